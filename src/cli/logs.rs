//! `hermes gateway logs`: what the gateway has logged, by journalctl(1) for its unit.
//!
//! For people journalctl shows it in its own way; for programs each entry becomes one [`LogLine`].

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::args::LogsArgs;
use super::error::CliError;
use super::home::Home;
use super::screen;
use crate::clock::UnixMillis;
use crate::config::Environment;
use crate::service::manager::{Manager, ManagerError, Scope, UNIT};
use crate::telemetry::lifecycle;

/// How long journalctl may take to end once nothing is read of it any more.
const END: Duration = Duration::from_secs(5);
/// What the telemetry puts before the fields of its events.
const FIELD_PREFIX: &str = "HERMES_";

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LogLine {
    /// When it was logged.
    pub(super) at: UnixMillis,
    /// As syslog(3) counts: 3 error, 4 warning, 6 information, 7 debugging.
    pub(super) priority: u8,
    /// The process.
    pub(super) pid: Option<u32>,
    /// What was said.
    pub(super) message: String,
    /// The event's name, if it is one of the lifecycle: `hermes.handoff_done`, …
    pub(super) event: Option<String>,
    /// The event's fields, in small letters: `version`, `blackout_us`, …
    pub(super) fields: BTreeMap<String, String>,
}

/// `hermes gateway logs`.
pub(super) async fn run(home: &Home, args: &LogsArgs) -> Result<(), CliError> {
    let manager = Manager::of_home(&home.path, &Environment::from_process());
    let scope = manager.scope();
    match manager.state(UNIT).await {
        Ok(unit) if unit.is_installed() => {}
        Ok(_) => return Err(CliError::NoJournal(format!("no unit {UNIT} is installed ({} scope)", scope.name()))),
        Err(error @ (ManagerError::None { .. } | ManagerError::Spawn { .. })) => {
            return Err(CliError::NoJournal(error.to_string()));
        }
        // There may be a journal all the same.
        Err(_) => {}
    }
    let mut command = Command::new("journalctl");
    command.args(words(scope, args)).stdin(Stdio::null()).kill_on_drop(true);
    if args.json.json {
        command.stdout(Stdio::piped());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Err(CliError::NoJournal(format!("cannot run journalctl: {error}"))),
    };
    let outcome = if args.json.json { print_lines(&mut child).await } else { Ok(()) };
    let interrupted = tokio::signal::ctrl_c();
    let ended = async {
        match outcome {
            Ok(()) => {
                child.wait().await.map_err(|source| CliError::Io { what: "wait for journalctl", source }).map(Some)
            }
            // Nobody reads any more.
            Err(error) => {
                drop(tokio::time::timeout(END, child.kill()).await);
                Err(error)
            }
        }
    };
    let status = tokio::select! {
        _ = interrupted => return Ok(()),
        ended = ended => ended?,
    };
    match status {
        Some(status) if !status.success() => Err(CliError::NoJournal(format!("journalctl ended with {status}"))),
        _ => Ok(()),
    }
}

fn words(scope: Scope, args: &LogsArgs) -> Vec<String> {
    let unit = if scope == Scope::User { "--user-unit" } else { "--unit" };
    let mut words = vec![unit.to_owned(), UNIT.to_owned(), format!("--lines={}", args.number)];
    words.push(if args.json.json { "--output=json" } else { "--output=short-iso" }.to_owned());
    words.push("--no-pager".to_owned());
    if args.json.json {
        words.push("--quiet".to_owned());
    }
    if args.follow {
        words.push("--follow".to_owned());
    }
    words.extend(args.since.as_ref().map(|since| format!("--since={since}")));
    if args.handoffs {
        // Matches of one field are alternatives, and all of them hold beside the unit.
        words.extend(lifecycle::ids().map(|(_, id)| format!("MESSAGE_ID={id}")));
    }
    words
}

async fn print_lines(child: &mut Child) -> Result<(), CliError> {
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    let unreadable = |source| CliError::Io { what: "read what journalctl says", source };
    while let Some(line) = lines.next_line().await.map_err(unreadable)? {
        if let Some(entry) = read(&line) {
            screen::print(&format!("{}\n", serde_json::to_string(&entry).expect("plain data serialises")))?;
        }
    }
    Ok(())
}

/// An entry as journalctl(1) writes it with `--output=json`.
fn read(line: &str) -> Option<LogLine> {
    let entry: BTreeMap<String, Value> = serde_json::from_str(line).ok()?;
    let text = |key: &str| entry.get(key).and_then(text);
    let micros: i64 = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
    let event = text("MESSAGE_ID").and_then(|id| lifecycle::ids().find(|(_, known)| *known == id));
    let field = |(key, value): (&String, &Value)| {
        Some((key.strip_prefix(FIELD_PREFIX)?.to_ascii_lowercase(), self::text(value)?))
    };
    Some(LogLine {
        at: UnixMillis(micros / 1000),
        priority: text("PRIORITY").and_then(|priority| priority.parse().ok()).unwrap_or(6),
        pid: text("_PID").and_then(|pid| pid.parse().ok()),
        message: text("MESSAGE").unwrap_or_default(),
        event: event.map(|(name, _)| name.to_owned()),
        fields: entry.iter().filter_map(field).collect(),
    })
}

/// A value is a string, or the numbers of its bytes if they are no text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::JsonArgs;

    fn args() -> LogsArgs {
        LogsArgs { follow: false, number: 5, since: None, handoffs: false, json: JsonArgs { json: false } }
    }

    #[test]
    fn the_question_is_for_the_unit_in_its_scope() {
        assert_eq!(
            words(Scope::System, &args()),
            ["--unit", "hermes-gateway.service", "--lines=5", "--output=short-iso", "--no-pager"]
        );
        let all = LogsArgs {
            follow: true,
            since: Some("1 h ago".into()),
            handoffs: true,
            json: JsonArgs { json: true },
            ..args()
        };
        let asked = words(Scope::User, &all);
        assert_eq!(asked[..2], ["--user-unit", "hermes-gateway.service"]);
        assert!(asked.contains(&"--follow".to_owned()) && asked.contains(&"--since=1 h ago".to_owned()));
        assert_eq!(asked.iter().filter(|word| word.starts_with("MESSAGE_ID=")).count(), lifecycle::ids().count());
    }

    #[test]
    fn an_entry_is_read_with_its_fields() {
        let (name, id) = lifecycle::ids().next().expect("there are some");
        let line = format!(
            r#"{{"__REALTIME_TIMESTAMP":"1700000000123456","PRIORITY":"6","_PID":"42","MESSAGE":[104,105],
            "MESSAGE_ID":"{id}","HERMES_VERSION":"1.4.0","_UID":"0"}}"#
        );
        let entry = read(&line).expect("an entry");
        let fields = BTreeMap::from([("version".to_owned(), "1.4.0".to_owned())]);
        let expected = LogLine {
            at: UnixMillis(1_700_000_000_123),
            priority: 6,
            pid: Some(42),
            message: "hi".into(),
            event: Some(name.into()),
            fields,
        };
        assert_eq!(entry, expected);
        assert_eq!(read("-- No entries --"), None);
    }
}
