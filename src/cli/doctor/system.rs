//! What the machine gives: the unit, lingering, the journal, limits.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use super::{Check, Finding, Level, Patient};
use crate::cli::service::Target;
use crate::report::Chain;
use crate::service::layout::Layout;
use crate::service::manager::{Manager, ManagerError, Scope, UNIT, UnitState};
use crate::service::unit_file::{UnitFile, UnitKind};

/// What ends agents after a gateway that was killed has this long. The gateway itself asks for the time that it needs.
const STOP_LEAST: Duration = Duration::from_secs(30);
/// Fds that are kept of each agent, and those of the gateway itself.
const STORED_PER_AGENT: u64 = 4;
const STORED_BESIDES: u64 = 8;
/// Fds that the gateway needs for itself, and for each agent.
const OPEN_LEAST: u64 = 64;
const OPEN_GOOD: u64 = 1024;
const OPEN_PER_AGENT: u64 = 8;
/// Where logind notes who lingers (its own implementation, unchanged since it exists).
const LINGER: &str = "/var/lib/systemd/linger";

const PROPERTIES: [&str; 10] = [
    "Type",
    "NotifyAccess",
    "FileDescriptorStoreMax",
    "KillMode",
    "TimeoutStopUSec",
    "WatchdogUSec",
    "Restart",
    "RestartPreventExitStatus",
    "ExecStart",
    "ExecStopPost",
];

/// What the service manager and the journal have of the unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Seen {
    /// There is no systemd.
    NoManager,
    /// It does not answer, or not well.
    Refused(String),
    NotInstalled,
    Installed {
        state: UnitState,
        /// [`PROPERTIES`].
        properties: BTreeMap<String, String>,
        has_log: bool,
    },
}

impl Seen {
    pub(super) async fn look(manager: &Manager) -> Self {
        let asked = async {
            let state = manager.state(UNIT).await?;
            if !state.is_installed() {
                return Ok(Self::NotInstalled);
            }
            let properties = manager.properties(UNIT, &PROPERTIES).await?;
            let has_log = !manager.journal(UNIT, 1).await.is_empty();
            Ok(Self::Installed { state, properties, has_log })
        };
        asked.await.unwrap_or_else(|error| match error {
            ManagerError::None { .. } | ManagerError::Spawn { .. } => Self::NoManager,
            error => Self::Refused(Chain(&error).to_string()),
        })
    }
}

/// What the unit must give.
#[derive(Clone, Copy, Debug)]
struct Needs {
    /// What systemd shows of the watchdog is of a unit that runs.
    is_up: bool,
    agents: u64,
}

pub(super) fn unit(patient: &Patient) -> Vec<Finding> {
    let check = Check::Unit;
    let scope = patient.manager.scope();
    let (state, properties) = match &patient.unit {
        Seen::Installed { state, properties, .. } => (state, properties),
        Seen::NotInstalled => {
            let what = format!("no {UNIT} is installed ({} scope): nothing starts the gateway by itself", scope.name());
            return vec![Finding::note(check, what)];
        }
        Seen::NoManager => {
            return vec![Finding::note(check, "systemd does not run here: nothing starts the gateway by itself")];
        }
        Seen::Refused(why) => return vec![Finding::warn(check, why, "ask systemctl by hand")],
    };
    let mut found = Vec::new();
    let agents = patient.config().map_or(1, |config| config.agents.len() as u64);
    found.extend(judge(properties, Needs { is_up: state.is_up(), agents }));
    if state.needs_reload {
        let fix = patient.manager.command(&["daemon-reload"]);
        found.push(Finding::warn(check, "the unit's file has changed since systemd read it", fix));
    }
    if state.load == "masked" {
        let fix = patient.manager.command(&["unmask", UNIT]);
        found.push(Finding::fail(check, "the unit is masked: it cannot be started", fix));
    }
    if state.active == "failed" {
        let what = format!("the unit has failed ({})", state.result);
        found.push(Finding::fail(check, what, "hermes gateway logs says why"));
    }
    if state.enabled == "disabled" {
        let fix = patient.manager.command(&["enable", UNIT]);
        found.push(Finding::warn(check, "the unit is not enabled: it does not start with the machine", fix));
    }
    found.extend(age(patient));
    if found.iter().all(|finding| finding.level <= Level::Note) {
        let what = format!("{UNIT} is {} and as it should be ({} scope)", state.active, scope.name());
        found.push(Finding::ok(check, what));
    }
    found
}

/// Whether the file is this version's. One that somebody else wrote may be fine: its properties are what counts.
fn age(patient: &Patient) -> Option<Finding> {
    let check = Check::Unit;
    let target = Target::new(patient.manager.scope(), Some(patient.home.path.clone()), None).ok()?;
    let path = UnitKind::Gateway.path(&target.layout);
    match target.unit_file(UnitKind::Gateway).ok()? {
        UnitFile::Missing | UnitFile::Current => None,
        UnitFile::Outdated => {
            let what = format!("{} is of another version", path.display());
            Some(Finding::warn(check, what, "hermes gateway install brings it up to date, in place"))
        }
        UnitFile::Edited => {
            let what = format!("{} was changed by hand: drop-ins (systemctl edit) outlive an update", path.display());
            Some(Finding::note(check, what))
        }
        UnitFile::Foreign => {
            Some(Finding::note(check, format!("{} was not written by hermes gateway install", path.display())))
        }
    }
}

/// What is wrong with a unit, by its properties (systemd.service(5)).
fn judge(properties: &BTreeMap<String, String>, needs: Needs) -> Vec<Finding> {
    let check = Check::Unit;
    let of = |name: &str| properties.get(name).map(String::as_str).unwrap_or_default();
    let mut found = Vec::new();
    let mut expect = |is_right: bool, level: Level, what: String, fix: &str| {
        if !is_right {
            found.push(Finding { check, level, what, fix: Some(format!("set {fix} in a drop-in")) });
        }
    };
    let kind = of("Type");
    let what = format!("Type={kind}: systemd does not hear that the gateway serves, or hands off");
    expect(matches!(kind, "notify" | "notify-reload"), Level::Fail, what, "Type=notify");
    let access = of("NotifyAccess");
    let what = format!("NotifyAccess={access}: what the gateway tells systemd is not heard");
    expect(matches!(access, "main" | "exec" | "all"), Level::Fail, what, "NotifyAccess=main");
    let stored: u64 = of("FileDescriptorStoreMax").parse().unwrap_or(0);
    let needed = needs.agents * STORED_PER_AGENT + STORED_BESIDES;
    let what =
        format!("FileDescriptorStoreMax={stored}, and {needed} are needed: a crash costs agents and their turns");
    expect(stored >= needed, Level::Warn, what, "FileDescriptorStoreMax=1024");
    let mode = of("KillMode");
    let what = format!("KillMode={mode}: agents do not outlive a gateway that is killed or restarted");
    expect(mode == "process", Level::Warn, what, "KillMode=process");
    let stop = timespan(of("TimeoutStopUSec"));
    let what = format!("TimeoutStopSec is {}: what ends agents at a stop would be killed", of("TimeoutStopUSec"));
    expect(stop.is_none_or(|stop| stop >= STOP_LEAST), Level::Warn, what, "TimeoutStopSec=60");
    let watchdog = timespan(of("WatchdogUSec"));
    let what = "there is no watchdog: a gateway that hangs stays so".to_owned();
    expect(!needs.is_up || watchdog.is_some_and(|time| !time.is_zero()), Level::Warn, what, "WatchdogSec=30");
    let restart = of("Restart");
    let what = format!("Restart={restart}: a gateway that is killed stays dead");
    expect(!matches!(restart, "no" | "on-success" | ""), Level::Warn, what, "Restart=on-failure");
    let prevented = of("RestartPreventExitStatus");
    let what = "a wrong configuration would be tried again and again".to_owned();
    expect(prevented.split_whitespace().any(|code| code == "78"), Level::Warn, what, "RestartPreventExitStatus=78");
    let what = "ExecStart= is not the launcher: after an update that fails nothing goes back".to_owned();
    expect(of("ExecStart").contains("hermes-launch"), Level::Warn, what, "ExecStart=… hermes-launch gateway run");
    let what = "ExecStopPost= is not the launcher's: agents may be left behind at a stop".to_owned();
    expect(of("ExecStopPost").contains("hermes-launch"), Level::Warn, what, "ExecStopPost=… hermes-launch stop-post");
    found
}

/// A time span as systemctl(1) shows it: `1min 30s`. None is no bound, `infinity`, or one that is not understood.
fn timespan(text: &str) -> Option<Duration> {
    text.split_whitespace()
        .map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = part[..end].parse().ok()?;
            let secs = match &part[end..] {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
            Duration::try_from_secs_f64(number * secs).ok()
        })
        .sum()
}

pub(super) fn linger(patient: &Patient) -> Vec<Finding> {
    let check = Check::Linger;
    if patient.manager.scope() == Scope::System {
        return vec![Finding::ok(check, "a system service needs no login")];
    }
    // Without its manager systemctl cannot say that it is there.
    let file = Layout::user(&patient.env, &patient.home.path).map(|layout| UnitKind::Gateway.path(&layout));
    if patient.installed().is_none() && !file.is_ok_and(|file| file.exists()) {
        return vec![Finding::note(check, "no service of this user is installed")];
    }
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let Some(user) = user else { return vec![Finding::note(check, "this user has no name")] };
    if Path::new(LINGER).join(&user).exists() {
        return vec![Finding::ok(check, format!("{user} lingers: the service runs without a login"))];
    }
    let what = format!("the service of {user} ends when {user} logs out, and does not start with the machine");
    vec![Finding::warn(check, what, format!("loginctl enable-linger {user}"))]
}

pub(super) fn journal(patient: &Patient) -> Vec<Finding> {
    let check = Check::Journal;
    let Seen::Installed { state, has_log, .. } = &patient.unit else {
        let what = "no unit is installed: the gateway logs to the standard error of `hermes gateway run`";
        return vec![Finding::note(check, what)];
    };
    if *has_log {
        return vec![Finding::ok(check, "the journal has the gateway's log")];
    }
    if !state.is_up() {
        return vec![Finding::note(check, "the journal has nothing of the gateway, which does not run")];
    }
    let fix = "run this as root or in the group systemd-journal, and see that journalctl works";
    vec![Finding::warn(check, "the journal has nothing of a gateway that runs, or it cannot be read", fix)]
}

/// Of the gateway that runs, else of this command.
pub(super) fn limits(patient: &Patient) -> Vec<Finding> {
    let check = Check::Limits;
    let running = patient.status.as_ref().ok().and_then(|status| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", status.pid)).ok()?;
        open_files(&limits)
    });
    let of = if running.is_some() { "the gateway" } else { "this command" };
    let limit = running.or_else(|| getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft));
    let Some(limit) = limit else { return vec![Finding::note(check, "the limit of open files is not known")] };
    let agents = patient.config().map_or(1, |config| config.agents.len() as u64);
    let least = OPEN_LEAST + OPEN_PER_AGENT * agents;
    let what = format!("{of} may have {limit} files open");
    let fix = "set LimitNOFILE=65536 in the unit, or raise `ulimit -n`";
    vec![if limit < least {
        Finding::fail(check, format!("{what}, and needs {least}"), fix)
    } else if limit < OPEN_GOOD {
        Finding::warn(check, format!("{what}, which is little"), fix)
    } else {
        Finding::ok(check, what)
    }]
}

/// The soft limit in a `limits` of proc(5).
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { is_up: true, agents: 2 };

    /// As systemctl shows the unit of dist/.
    fn good() -> BTreeMap<String, String> {
        [
            ("Type", "notify"),
            ("NotifyAccess", "main"),
            ("FileDescriptorStoreMax", "1024"),
            ("KillMode", "process"),
            ("TimeoutStopUSec", "1min"),
            ("WatchdogUSec", "30s"),
            ("Restart", "on-failure"),
            ("RestartPreventExitStatus", "78"),
            ("ExecStart", "{ path=/usr/lib/hermes/hermes-launch ; argv[]=/usr/lib/hermes/hermes-launch gateway run }"),
            ("ExecStopPost", "{ path=/usr/lib/hermes/hermes-launch ; argv[]=… stop-post }"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn each_property_that_is_wrong_is_found_and_no_other() {
        assert_eq!(judge(&good(), NEEDS), []);
        for (name, value) in [
            ("Type", "simple"),
            ("NotifyAccess", "none"),
            ("FileDescriptorStoreMax", "15"),
            ("KillMode", "control-group"),
            ("TimeoutStopUSec", "29s"),
            ("WatchdogUSec", "0"),
            ("WatchdogUSec", "infinity"),
            ("Restart", "no"),
            ("RestartPreventExitStatus", ""),
            ("ExecStart", "{ path=/usr/bin/hermes ; argv[]=/usr/bin/hermes gateway run }"),
            ("ExecStopPost", ""),
        ] {
            let mut unit = good();
            unit.insert(name.to_owned(), value.to_owned());
            let found = judge(&unit, NEEDS);
            assert_eq!(found.len(), 1, "{name}={value}: {found:?}");
        }
        let mut endless = good();
        endless.insert("TimeoutStopUSec".into(), "infinity".into());
        assert_eq!(judge(&endless, NEEDS), []);
    }

    #[test]
    fn every_property_that_is_judged_is_asked_for() {
        let asked: Vec<String> = PROPERTIES.map(str::to_owned).into();
        assert_eq!(good().into_keys().filter(|name| !asked.contains(name)).count(), 0);
        assert_eq!(good().len(), asked.len());
    }

    #[test]
    fn time_spans_are_read_as_systemctl_writes_them() {
        for (text, secs) in
            [("1min 30s", Some(90)), ("30s", Some(30)), ("1h", Some(3600)), ("infinity", None), ("5", None)]
        {
            assert_eq!(timespan(text), secs.map(Duration::from_secs), "{text}");
        }
        assert_eq!(timespan("500ms"), Some(Duration::from_millis(500)));
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
    }
}
