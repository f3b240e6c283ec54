//! From the text of a `gateway.toml` to a [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::{Problem, Severity};
use super::platforms;
use super::secret::{Reader, SecretContext};
use super::table::{Entry, Problems, Section, as_section};
use super::{AgentConfig, Config, GatewayConfig, TelemetryConfig, update};
use crate::id::AgentName;

const DRAIN_MAX: (Duration, &str) = (Duration::from_secs(10 * 60), "10m");
/// A new image needs milliseconds; less than this is a typing error.
const HANDOFF_MIN: (Duration, &str) = (Duration::from_secs(1), "1s");
const PROBATION_MAX: (Duration, &str) = (Duration::from_secs(24 * 60 * 60), "24h");

/// The longest agent name: it becomes part of the names of fds, which systemd limits to 255 characters.
const AGENT_NAME_CHARS_MAX: usize = 64;

/// Reads the whole text, with what is no mistake and should be mended all the same; or tells every problem in it.
pub(super) fn parse(
    text: &str,
    path: &Path,
    env: &Environment,
    reader: Reader,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let mut problems = Problems::new(text);
    // Only the message of a syntax error is used: its `Display` quotes the line, and that may hold a token.
    let (root, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        problems.add(&error.span().unwrap_or_default(), error.message().to_owned());
    }
    let mut config = Config::defaults(env);
    // What a broken text seems to say is not judged, it would only hide the real mistake.
    if syntax.is_empty() {
        let mut file = Section::new("the file", 0..0, root.get_ref());
        let context = SecretContext::new(path, env, reader);
        read(&mut config, &mut file, &context, &mut problems);
        file.finish("section", &mut problems);
        config.secret_variables = context.into_variables();
    }
    let list = problems.into_list(root.get_ref());
    let is_fine = list.iter().all(|problem| problem.severity == Severity::Warning);
    if is_fine { Ok((config, list)) } else { Err(list) }
}

fn read(config: &mut Config, file: &mut Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) {
    if let Some(section) = file.section("gateway", "[gateway]", p) {
        config.gateway = read_gateway(section, p);
    }
    if let Some(agents) = file.section("agents", "[agents]", p) {
        for entry in agents.entries() {
            if let Some((name, agent)) = read_agent(&entry, context.env, p) {
                config.agents.insert(name, agent);
            }
        }
    }
    if let Some(section) = file.section("platforms", "[platforms]", p) {
        platforms::read(config, section, context, p);
    }
    if let Some(section) = file.section("update", "[update]", p) {
        config.update = update::read(section, p);
    }
    if let Some(section) = file.section("telemetry", "[telemetry]", p) {
        config.telemetry = read_telemetry(section, p);
    }
}

fn read_gateway(mut section: Section<'_, '_>, p: &mut Problems<'_>) -> GatewayConfig {
    let defaults = GatewayConfig::default();
    let drain = section.duration("restart_drain_timeout", "5s", DRAIN_MAX, p);
    let probation = section.duration("probation", "60s", PROBATION_MAX, p);
    let handoff_timeout = section.duration("handoff_timeout", "30s", DRAIN_MAX, p);
    if handoff_timeout.is_some_and(|time| time < HANDOFF_MIN.0)
        && let Some(entry) = section.entry("handoff_timeout")
    {
        let message =
            format!("'handoff_timeout' is less than {}; for example handoff_timeout = \"30s\"", HANDOFF_MIN.1);
        p.add(&entry.value.span(), message);
    }
    let probe = section.string("probe", "say ok", p).map(|(text, _)| text.to_owned());
    section.finish("key", p);
    GatewayConfig {
        restart_drain_timeout: drain.unwrap_or(defaults.restart_drain_timeout),
        probation: probation.unwrap_or(defaults.probation),
        handoff_timeout: handoff_timeout.unwrap_or(defaults.handoff_timeout),
        probe,
    }
}

fn read_agent(entry: &Entry<'_, '_>, env: &Environment, p: &mut Problems<'_>) -> Option<(AgentName, AgentConfig)> {
    let name = entry.key;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > AGENT_NAME_CHARS_MAX || !name.chars().all(legal) {
        let message = format!(
            "'{}' cannot be the name of an agent; use up to {AGENT_NAME_CHARS_MAX} of a-z, A-Z, 0-9, - and _",
            name.escape_debug()
        );
        p.add(&entry.key_span, message);
        return None;
    }
    let mut section = as_section(entry, &format!("[agents.{name}]"), p)?;
    let command = read_command(&mut section, p);
    let cwd = read_cwd(&mut section, p).unwrap_or_else(|| env.user_home().to_owned());
    let env = read_env(&mut section, p);
    section.finish("key", p);
    Some((AgentName::from(name), AgentConfig { command: command?, cwd, env }))
}

fn read_command(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = r#"["hermes", "agent", "echo"]"#;
    let Some(entry) = section.entry("command") else {
        p.add(&section.span, format!("{} needs 'command'; for example command = {EXAMPLE}", section.name));
        return None;
    };
    let words = section.list("command", ("strings", EXAMPLE), text, p)?;
    let broken = words.iter().find(|(word, _)| word.contains('\0'));
    if let Some((_, span)) = broken {
        p.add(span, "'command' has a NUL character, and no program can be given one".to_owned());
        return None;
    }
    if words.first().is_none_or(|(program, _)| program.is_empty()) {
        p.add(&entry.value.span(), format!("'command' names no program; for example command = {EXAMPLE}"));
        return None;
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn read_cwd(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<PathBuf> {
    let (text, span) = section.string("cwd", "/srv/work", p)?;
    if !Path::new(text).is_absolute() || text.contains('\0') {
        p.add(&span, "'cwd' must be an absolute path; for example cwd = \"/srv/work\"".to_owned());
        return None;
    }
    Some(PathBuf::from(text))
}

fn read_env(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> BTreeMap<String, String> {
    const EXAMPLE: &str = r#"{ NAME = "value" }"#;
    let mut env = BTreeMap::new();
    let Some(entry) = section.entry("env") else { return env };
    let Some(table) = entry.value.get_ref().as_table() else {
        p.add(&entry.value.span(), format!("'env' must be a table; for example env = {EXAMPLE}"));
        return env;
    };
    for variable in Section::new("env", entry.key_span.clone(), table).entries() {
        let name = variable.key;
        if name.is_empty() || name.contains(['=', '\0']) {
            p.add(&variable.key_span, format!("'{}' cannot be the name of a variable", name.escape_debug()));
            continue;
        }
        match variable.value.get_ref().as_str() {
            Some(value) if !value.contains('\0') => {
                env.insert(name.to_owned(), value.to_owned());
            }
            _ => p.add(&variable.value.span(), format!("'{name}' must be a string; for example env = {EXAMPLE}")),
        }
    }
    env
}

fn read_telemetry(mut section: Section<'_, '_>, p: &mut Problems<'_>) -> TelemetryConfig {
    const EXAMPLE: &str = "http://127.0.0.1:4318";
    let is_given = section.entry("otlp_endpoint").is_some();
    let otlp_endpoint = is_given.then(|| platforms::base_url(&mut section, "otlp_endpoint", EXAMPLE, p));
    section.finish("key", p);
    TelemetryConfig { otlp_endpoint }
}

pub(super) fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}
