//! `hermes`: a daemon that joins chat platforms to AI agents and replaces its own binary while it runs.
//!
//! The layers, each of which depends on lower ones only (`tests/it/tidy.rs` checks it):
//!
//! | layer | modules | what lives there |
//! |---|---|---|
//! | L0 | [`sys`], [`id`], [`clock`], [`report`], [`chat`], [`jsonrpc`], [`tls`], [`version`], [`recovery`], [`slots`], [`fault`], [`hex`], [`units`], [`words`] | the kernel, names, time, vocabulary |
//! | L1 | [`config`], [`store`], [`telemetry`] | gateway.toml, state.db, the journal |
//! | L2 | [`handoff`], [`service`], [`update`], [`control`] | replacing the image, systemd, releases, the socket |
//! | L3 | [`agent`], [`platform`] | ACP agents, chat platforms |
//! | L4 | [`gateway`] | joins the two: conversations, turns, chat commands |
//! | L5 | [`daemon`] | composes everything, runs it and hands it off |
//! | L6 | [`cli`] | the command line |
//!
//! The launcher of `src/launch/` is a program of its own, of std and [`slots`] alone.
//!
//! ARCHITECTURE.md is the map with the invariants.

pub mod agent;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod fault;
pub mod gateway;
pub mod handoff;
pub mod hex;
pub mod id;
pub mod jsonrpc;
pub mod platform;
pub mod recovery;
pub mod report;
pub mod service;
pub mod slots;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod units;
pub mod update;
pub mod version;
pub mod words;
