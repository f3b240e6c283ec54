//! The integration tests, one binary. What goes where:
//!
//! - `agent`: agent processes, real ones and hostile ones.
//! - `attachments`: files that people send, from each platform to the agent, over faults, handoffs and kills.
//! - `cli`: every command against a scripted gateway.
//! - `config`: gateway.toml, accepted and refused.
//! - `control`: the control socket, its limits, and clients over freezes and adoptions.
//! - `dingtalk`: its messages, which come once, over handoffs, kills and updates.
//! - `dingtalk_api`: how DingTalk's chats are answered, against the test server, and what comes of faults.
//! - `dist`: man pages and completions are those of the command line.
//! - `fault`: the fault points are where they should be, and in no release.
//! - `fdstore`: the fd store of a real systemd.
//! - `golden`: states that earlier images handed over.
//! - `core`: the whole gateway as a plain process: nothing lost and nothing twice over handoffs, kills and reloads.
//! - `handoff`: the whole gateway under a real systemd, replaced while turns stream.
//! - `hostile`: bad input from every side, and ends at every moment: clear words, no panic, nothing lost.
//! - `install`: the way in and out, on a Debian that knows nothing of hermes: package, release, setup, removal.
//! - `kill`: the unit under a real systemd, its main process killed in the middle of a turn.
//! - `launch`: which image the launcher starts, and what it leaves of the unit under a real systemd.
//! - `model`: the path of a message as a model: every order of its steps and of what may go wrong.
//! - `people`: what people see in chats: pauses, pairing, words of restarts, and buttons.
//! - `refusal`: bad releases asked for from a chat and the command line: the reason is told, nothing is touched.
//! - `rollback`: new images that fail after the execve (needs the feature `fault-points`).
//! - `revert`: the way back to the version before, and versions that failed.
//! - `scene`: the scene of the bug report under a real systemd, with all platforms connected at once.
//! - `service`: the unit files, and notifications, logs and sockets under a real systemd.
//! - `soak`: what the soak judges by, and its schedule.
//! - `telegram`: the Telegram platform against the test server.
//! - `tidy`: rules for the source tree that the compiler does not know.
//! - `traces`: spans of handoffs and turns at a collector.
//! - `update`: which releases are staged and which are refused, and what is left on disk either way.
//! - `weixin`: the Weixin platform against the test server, its faults and its files.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod agent;
mod attachments;
mod cli;
mod config;
mod control;
mod core;
mod dingtalk;
mod dingtalk_api;
mod dist;
mod fault;
mod fdstore;
mod golden;
mod handoff;
mod hostile;
mod install;
mod kill;
mod launch;
mod model;
mod people;
mod refusal;
mod revert;
#[cfg(feature = "fault-points")]
mod rollback;
mod scene;
mod service;
mod soak;
mod support;
mod telegram;
mod tidy;
mod traces;
mod update;
mod weixin;
