//! What can be said of a gateway that does not answer: since when, why, which image would start next, and what starts it.
//!
//! The lock is the truth about whether a process has the home; `gateway_state.json` is what the last one said.

use serde::Serialize;

use crate::cli::error::{CliError, Told};
use crate::cli::home::Home;
use crate::cli::page::{Cell, Look, Page, Tone, ago, local_time, row};
use crate::clock::UnixMillis;
use crate::config::Environment;
use crate::report::Chain;
use crate::service::lock::Lock;
use crate::service::manager::{Manager, UNIT, UnitState};
use crate::service::state_file::{GatewayState, Phase};
use crate::slots::Slots;
use crate::update::Versions;

/// What `hermes gateway status --json` prints of a gateway that does not run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Down {
    /// As in the document of any error.
    error: Told,
    /// `not_running`, or `not_answering` while a process has the home.
    pub(in crate::cli) gateway_state: String,
    /// The home directory.
    pub(in crate::cli) home: String,
    /// The process that has the home, though it does not answer.
    pub(in crate::cli) pid: Option<u32>,
    /// When the last one was heard of.
    pub(in crate::cli) since: Option<UnixMillis>,
    /// Why it does not run, in words.
    pub(in crate::cli) why: String,
    /// The version that ran last.
    pub(in crate::cli) last_version: Option<String>,
    /// The version that would start next, where the launcher has a choice.
    pub(in crate::cli) next_version: Option<String>,
    /// What else is known of that choice.
    pub(in crate::cli) next_note: Option<String>,
    /// The state of the unit, where one is installed: `inactive`, `failed`, …
    pub(in crate::cli) unit: Option<String>,
    /// What starts it.
    pub(in crate::cli) start: String,
}

impl Down {
    /// Looks at what is left in the home, and asks the service manager.
    pub(in crate::cli) async fn look(home: &Home) -> Self {
        let manager = Manager::of_home(&home.path, &Environment::from_process());
        let unit = manager.state(UNIT).await.ok().filter(UnitState::is_installed);
        let holder = Lock::holder(&home.path.join("gateway.lock"));
        let state = GatewayState::read(&home.path.join("gateway_state.json"));
        let (pid, held) = match &holder {
            Ok(Some(holder)) => (holder.pid, true),
            Ok(None) => (None, false),
            Err(_) => (None, false),
        };
        let why = match (&holder, &state) {
            (Err(error), _) => Chain(error).to_string(),
            (_, Err(error)) => Chain(error).to_string(),
            (Ok(_), Ok(state)) => reason(state.as_ref(), held, unit.as_ref()),
        };
        let state = state.ok().flatten();
        let (next_version, next_note) = next(home);
        let start = match &unit {
            _ if held => "nothing: a process has the home; its journal says what it does".to_owned(),
            Some(_) => manager.command(&["start", UNIT]),
            None => "hermes gateway run".to_owned(),
        };
        Self {
            error: (&CliError::NotRunning { home: home.path.clone() }).into(),
            gateway_state: if held { "not_answering" } else { "not_running" }.to_owned(),
            home: home.path.display().to_string(),
            pid,
            since: state.as_ref().map(|state| state.updated_at),
            why,
            last_version: state.map(|state| state.version).filter(|version| !version.is_empty()),
            next_version,
            next_note,
            unit: unit.map(|unit| unit.active),
            start,
        }
    }

    /// For people.
    pub(in crate::cli) fn page(&self, look: Look) -> String {
        self.page_at(UnixMillis::now(), look)
    }

    fn page_at(&self, now: UnixMillis, look: Look) -> String {
        let mut page = Page::new(look);
        let state = if self.pid.is_some() || self.gateway_state == "not_answering" {
            "does not answer"
        } else {
            "does not run"
        };
        page.headline(&[Cell::toned("hermes", Tone::Title), Cell::toned(state, Tone::Bad)]);
        let mut rows = vec![row!["why", &self.why]];
        if let Some(since) = self.since {
            rows.push(row!["since", format!("{} ({})", local_time(since), ago(since, now))]);
        }
        rows.extend(self.pid.map(|pid| row!["process", format!("PID {pid} has the home")]));
        rows.extend(self.last_version.as_ref().map(|version| row!["ran", version]));
        if let Some(version) = &self.next_version {
            let note = self.next_note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            rows.push(row!["next", format!("{version}{note}")]);
        }
        rows.extend(self.unit.as_ref().map(|unit| row!["unit", format!("{UNIT} is {unit}")]));
        rows.push(row!["home", &self.home]);
        rows.push(row!["start", Cell::toned(&self.start, Tone::Title)]);
        page.rows(&rows);
        page.text()
    }
}

/// What the last process said, or did not live to say.
fn reason(state: Option<&GatewayState>, held: bool, unit: Option<&UnitState>) -> String {
    let said = |state: &GatewayState| state.exit_reason.clone().unwrap_or_else(|| "for no stated reason".to_owned());
    let unit = match unit {
        Some(unit) if unit.active == "failed" => format!("; the unit failed ({})", unit.result),
        Some(unit) if unit.sub == "auto-restart" => "; the service manager is about to start it again".to_owned(),
        _ => String::new(),
    };
    match state {
        None if held => "a process has the home and does not answer yet".to_owned(),
        None => "it has never run on this home".to_owned(),
        Some(state) if held => match state.gateway_state {
            Phase::Starting => "it is starting".to_owned(),
            other => format!("it was {other} and does not answer"),
        },
        Some(state) => match state.gateway_state {
            Phase::Stopped => format!("it was stopped: {}{unit}", said(state)),
            Phase::StartupFailed => format!("it could not start: {}{unit}", said(state)),
            other => format!("it ended without a word while it was {other}: it was killed, or it crashed{unit}"),
        },
    }
}

/// The version that the launcher would start, and why that one.
fn next(home: &Home) -> (Option<String>, Option<String>) {
    let versions = Versions::new(&home.path);
    let current = || versions.current().ok().flatten().map(|version| version.to_string());
    let slots = match Slots::read(versions.dir()) {
        Ok(Some(slots)) => slots,
        Ok(None) => return (current(), None),
        Err(error) => return (current(), Some(error.to_string())),
    };
    let failed = slots.failed.map(|failed| format!("{} failed: {}", failed.version, failed.reason));
    match slots.trial {
        Some(trial) if trial.boots_left > 0 => (Some(trial.version), Some("on trial".to_owned())),
        _ => (slots.proven.or_else(current), failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Down {
        Down {
            error: (&CliError::NotServing).into(),
            gateway_state: "not_running".into(),
            home: "/var/lib/hermes".into(),
            pid: None,
            since: Some(UnixMillis(1_000_000)),
            why: reason(Some(&state(Phase::Running)), false, None),
            last_version: Some("1.4.0".into()),
            next_version: Some("1.3.0".into()),
            next_note: Some("1.4.0 failed: did not come up".into()),
            unit: Some("failed".into()),
            start: "systemctl start hermes-gateway.service".into(),
        }
    }

    fn state(phase: Phase) -> GatewayState {
        GatewayState { gateway_state: phase, exit_reason: Some("SIGTERM".into()), ..GatewayState::default() }
    }

    #[test]
    fn the_page_says_why_and_what_to_do() {
        // The time is that of the zone of whoever runs the test.
        let page =
            down().page_at(UnixMillis(1_180_000), Look::PLAIN).replace(&local_time(UnixMillis(1_000_000)), "[time]");
        insta::assert_snapshot!(page, @r"
        hermes does not run
          why    it ended without a word while it was running: it was killed, or it crashed
          since  [time] (3 min ago)
          ran    1.4.0
          next   1.3.0 (1.4.0 failed: did not come up)
          unit   hermes-gateway.service is failed
          home   /var/lib/hermes
          start  systemctl start hermes-gateway.service
        ");
    }

    #[test]
    fn the_reason_is_what_the_last_process_said() {
        let failed = UnitState { active: "failed".into(), result: "exit-code".into(), ..UnitState::default() };
        assert_eq!(reason(None, false, None), "it has never run on this home");
        assert_eq!(reason(Some(&state(Phase::Stopped)), false, None), "it was stopped: SIGTERM");
        assert_eq!(
            reason(Some(&state(Phase::StartupFailed)), false, Some(&failed)),
            "it could not start: SIGTERM; the unit failed (exit-code)"
        );
        assert_eq!(reason(Some(&state(Phase::Starting)), true, None), "it is starting");
        assert_eq!(reason(Some(&state(Phase::Draining)), true, None), "it was draining and does not answer");
    }
}
