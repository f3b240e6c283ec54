//! The preflight child: could this image take over that state?

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use thiserror::Error;

use super::settings::{self, SettingsError};
use super::state::{
    AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, LOCAL, PASSPORT, PLATFORMS, Passport, PlatformEntry, SECTIONS,
    STASH, Stash, TRACES,
};
use crate::agent;
use crate::config::Reader;
use crate::control::server;
use crate::fault::{self, Point};
use crate::gateway::GatewayState;
use crate::handoff::adopt::{AdoptError, Sections};
use crate::handoff::preflight::{CheckReport, PRODUCT};
use crate::platform::local::Local;
use crate::platform::{dingtalk, telegram, web, weixin};
use crate::store::{SCHEMA_VERSION, Store, StoreError};
use crate::telemetry::otlp::Span;

/// Why this image cannot take over.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The state is not there or cannot be read.
    #[error("cannot read the state on standard input")]
    State(#[source] AdoptError),
    /// Standard input cannot be used.
    #[error("cannot use standard input")]
    Input(#[source] std::io::Error),
    /// The home or the configuration cannot be used.
    #[error(transparent)]
    Settings(SettingsError),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[source] StoreError),
}

/// Reads the real configuration, the real database and, from the memfd on standard input, the real state. Changes
/// nothing.
///
/// # Errors
/// [`CheckError`]: this image must not be given the state.
pub fn handoff_check(home: Option<PathBuf>, config: Option<PathBuf>) -> Result<CheckReport, CheckError> {
    fault::at(Point::Checking);
    let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(CheckError::Input)?;
    let mut sections = Sections::read(&mut File::from(input), SECTIONS).map_err(CheckError::State)?;
    let passport = read_everything(&mut sections).map_err(CheckError::State)?;
    // This is no child of a gateway then, and has not what its unit gives it.
    let is_beside = passport.is_some_and(|passport| passport.note.origin.is_nobody());
    let reader = if is_beside { Reader::Other } else { Reader::Gateway };
    let (home, _) = settings::read(home.as_deref(), config.as_deref(), reader).map_err(CheckError::Settings)?;
    let schema = Store::inspect(&home.state_db()).map_err(CheckError::Store)?;
    Ok(CheckReport {
        product: PRODUCT.to_owned(),
        version: crate::version::version().to_owned(),
        reads: SECTIONS.iter().map(|s| (s.name.to_owned(), *s.reads.start(), *s.reads.end())).collect(),
        schema: (schema, SCHEMA_VERSION),
    })
}

fn read_everything(sections: &mut Sections) -> Result<Option<Passport>, AdoptError> {
    sections.fd_names()?;
    let passport = sections.take::<Passport>(PASSPORT)?;
    sections.take::<GatewayState>(GATEWAY)?;
    for agent in sections.take::<Vec<AgentEntry>>(AGENTS)?.unwrap_or_default() {
        agent::check_state(&agent.state).map_err(|source| unreadable(AGENTS, source))?;
    }
    if let Some(control) = sections.take::<ControlEntry>(CONTROL)? {
        server::check_state(&control.state).map_err(|source| unreadable(CONTROL, source))?;
    }
    for platform in sections.take::<Vec<PlatformEntry>>(PLATFORMS)?.unwrap_or_default() {
        let read = match platform.name.as_str() {
            telegram::PLATFORM => telegram::check_state(&platform.state),
            dingtalk::PLATFORM => dingtalk::check_state(&platform.state),
            weixin::PLATFORM => weixin::check_state(&platform.state),
            web::PLATFORM => web::check_state(&platform.state),
            _ => Ok(()),
        };
        read.map_err(|source| unreadable(PLATFORMS, source))?;
    }
    sections.take::<Local>(LOCAL)?;
    sections.take::<Vec<Span>>(TRACES)?;
    sections.take::<Stash>(STASH)?;
    Ok(passport)
}

fn unreadable(section: &str, source: serde_json::Error) -> AdoptError {
    AdoptError::Section { section: section.to_owned(), source }
}
