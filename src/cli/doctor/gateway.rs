//! The gateway itself: what it says, and what it left.

use super::{Check, Finding, Patient};
use crate::chat::LinkState;
use crate::control::client::ClientError;
use crate::report::Chain;
use crate::service::lock::Lock;
use crate::service::state_file::{GatewayState, Phase};
use crate::units::{short_digest, span};

pub(super) fn image(patient: &Patient) -> Vec<Finding> {
    let check = Check::Image;
    let Ok(status) = &patient.status else {
        return vec![Finding::note(check, "no gateway runs that could be compared with what is on disk")];
    };
    let running = format!("{} (sha256 {})", status.image.version, short_digest(&status.image.sha256));
    let mine = crate::version::version();
    let mut found = Vec::new();
    if mine != status.image.version {
        found.push(Finding::note(check, format!("this command is hermes {mine}")));
    }
    match &status.on_disk {
        None => found.push(Finding::note(check, format!("{running} runs, and versions/ has no image"))),
        Some(disk) => {
            if disk.may_be(&status.image) {
                found.push(Finding::ok(check, format!("{running} runs and is on disk")));
            } else if status.phase == "probation" {
                let what = format!("{running} runs on probation; {} is on disk until it is over", disk.version);
                found.push(Finding::note(check, what));
            } else {
                let digest = disk.sha256.as_deref().map_or("unknown", short_digest);
                let what = format!(
                    "{running} runs, and {} (sha256 {digest}) is on disk: a crash would lead there",
                    disk.version
                );
                let fix = format!("hermes self-update --version {}, or restart the unit", disk.version);
                found.push(Finding::warn(check, what, fix));
            }
        }
    }
    found
}

pub(super) fn lock(patient: &Patient) -> Vec<Finding> {
    let check = Check::Lock;
    let holder = match Lock::holder(&patient.path("gateway.lock")) {
        Ok(holder) => holder,
        Err(error) => {
            return vec![Finding::fail(check, Chain(&error).to_string(), "run this as the gateway's user or as root")];
        }
    };
    let state = match GatewayState::read(&patient.path("gateway_state.json")) {
        Ok(state) => state,
        Err(error) => {
            let fix = "remove the file; the gateway writes it anew";
            return vec![Finding::warn(check, Chain(&error).to_string(), fix)];
        }
    };
    let said = state.as_ref().map(|state| state.gateway_state);
    let is_over = matches!(said, None | Some(Phase::Stopped | Phase::StartupFailed));
    match (holder, is_over) {
        (None, true) => vec![Finding::ok(check, "no process has the home, and none says that it does")],
        (None, false) => {
            let what = "gateway_state.json says that a gateway runs, and none does: it was killed, or it crashed";
            vec![Finding::warn(check, what, "start it; it goes on with what the store has")]
        }
        (Some(holder), _) => {
            let who = holder.pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            match &patient.status {
                Err(ClientError::NotRunning { .. }) => {
                    let what = format!("{who} has the home, and nothing answers on the control socket");
                    let fix = "it may be starting; if it stays so, its journal says why";
                    vec![Finding::fail(check, what, fix)]
                }
                _ => vec![Finding::ok(check, format!("{who} has the home"))],
            }
        }
    }
}

pub(super) fn gateway(patient: &Patient) -> Vec<Finding> {
    let check = Check::Gateway;
    let status = match &patient.status {
        Ok(status) => status,
        Err(ClientError::NotRunning { .. }) if patient.installed().is_some() => {
            let fix = "hermes gateway status says why; hermes gateway start starts it";
            return vec![Finding::warn(check, "a unit is installed and no gateway runs", fix)];
        }
        Err(ClientError::NotRunning { .. }) => return vec![Finding::note(check, "no gateway runs on this home")],
        Err(error) => {
            return vec![Finding::fail(check, Chain(error).to_string(), "run this as the gateway's user or as root")];
        }
    };
    let mut found = Vec::new();
    for platform in &status.platforms {
        let name = &platform.name;
        match &platform.link {
            LinkState::Connecting | LinkState::Connected => {}
            LinkState::Paused => {
                found.push(Finding::note(check, format!("{name} is paused (hermes gateway platform resume {name})")));
            }
            LinkState::Retrying { error_code, error_message, .. } => {
                let since = span(status.at.since(platform.updated_at));
                let what = format!("{name} has trouble for {since}: {error_message} ({error_code})");
                found.push(Finding::warn(
                    check,
                    what,
                    "it is tried again by itself; the check of the network says more",
                ));
            }
            LinkState::Fatal { error_code, error_message } => {
                let what = format!("{name} has given up: {error_message} ({error_code})");
                found.push(Finding::fail(check, what, "correct gateway.toml, then hermes gateway reload"));
            }
        }
    }
    for agent in status.agents.iter().filter(|agent| agent.state == "down") {
        let why = agent.error.as_deref().unwrap_or("for no stated reason");
        let fix = format!("the check of agents tries it out; its command stands in [agents.{}]", agent.name);
        found.push(Finding::fail(check, format!("agent '{}' is down: {why}", agent.name), fix));
    }
    for blocker in status.blockers.iter().filter(|blocker| blocker.effect != "delays") {
        let fix = if blocker.effect == "refuses" { "until then a restart is refused" } else { "see docs/operating.md" };
        found.push(Finding::warn(check, blocker.what.clone(), fix));
    }
    if found.is_empty() {
        found.push(Finding::ok(check, format!("{} serves as process {}", status.image.version, status.pid)));
    }
    found
}
