//! What the gateway tells its service manager and other programs about itself, and what it gets from systemd.
//!
//! - [`notify`]: readiness, status and the watchdog (sd_notify(3)).
//! - [`listen`]: the control socket, from socket activation or made here.
//! - [`fdstore`]: fds that systemd keeps for the next process.
//! - [`lock`]: one gateway for one home.
//! - [`state_file`]: the file `gateway_state.json`.
//! - [`mod@unit`]: what the launcher and the gateway tell each other.
//! - [`layout`], [`unit_file`], [`manager`], [`package`]: where a gateway is installed, its unit files, the service
//!   manager that runs it, and whether a package owns it.
//!
//! Deliberately absent: any decision. `daemon` knows when the gateway is ready and what is true of it.

pub mod fdstore;
pub mod layout;
pub mod listen;
pub mod lock;
pub mod manager;
pub mod notify;
pub mod package;
pub mod state_file;
pub mod unit;
pub mod unit_file;
