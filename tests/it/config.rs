//! `gateway.toml`: what is accepted, and what the messages say.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hermes_gateway::config::{AutoUpdate, Channel, Config, ConfigError, Environment, Reader, Secret, Severity};
use hermes_gateway::id::AgentName;
use hermes_gateway::words::Language;
use insta::assert_snapshot;
use proptest::prelude::*;

mod beside;

fn environment() -> Environment {
    Environment::from_iter([("HOME", "/u/kim")])
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(text, Path::new("gateway.toml"), &environment(), Reader::Gateway)
}

fn accepted(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("refused:\n{error}"))
}

fn refused(text: &str) -> String {
    parse(text).expect_err("accepted").to_string()
}

#[test]
fn a_missing_file_means_the_defaults() {
    let config = Config::load(Path::new("/no/such/gateway.toml"), &environment()).expect("defaults");
    assert_eq!(config, Config::defaults(&environment()));
    assert_eq!(config.gateway.restart_drain_timeout, Duration::from_secs(5));
    assert_eq!(config.gateway.probation, Duration::from_secs(60));
    let agent = &config.agents[&AgentName::from("default")];
    assert_eq!(agent.command, ["hermes", "agent", "echo"]);
    assert_eq!(agent.cwd, Path::new("/u/kim"));
    assert_eq!(config.telegram, None);
    assert_eq!(config, accepted(""));
}

#[test]
fn every_key_is_read() {
    let config = accepted(
        r#"
        [gateway]
        restart_drain_timeout = "500ms"
        probation = "1h30m"
        [agents.default]
        command = ["/usr/bin/agent", "--acp"]
        cwd = "/srv/work"
        env = { LANG = "C" }
        [agents.second]
        command = ["other"]
        [platforms.telegram]
        token = "1:abc"
        api_url = "http://127.0.0.1:8081/"
        allow_from = ["1001", 1002]
        allow_admin_from = [1003, "1001"]
        gateway_restart_notification = false
        language = "zh-CN"
        pairing = false
        messages_per_second = 1_000
        [update]
        manifest_url = "file:///srv/releases/manifest.json"
        verifying_keys = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        auto = "apply"
        check_every = "1d"
        window = "Sat,Sun 23:00-04:00"
        channel = "beta"
        [telemetry]
        otlp_endpoint = "https://collector.example.org:4318/"
        "#,
    );
    assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("https://collector.example.org:4318"));
    assert_eq!(config.gateway.restart_drain_timeout, Duration::from_millis(500));
    assert_eq!(config.gateway.probation, Duration::from_secs(5400));
    let default = &config.agents[&AgentName::from("default")];
    assert_eq!(default.command, ["/usr/bin/agent", "--acp"]);
    assert_eq!(default.cwd, Path::new("/srv/work"));
    assert_eq!(default.env["LANG"], "C");
    assert_eq!(config.agents[&AgentName::from("second")].cwd, Path::new("/u/kim"));
    let telegram = config.telegram.expect("there");
    assert_eq!(telegram.token, Secret::new("1:abc"));
    assert_eq!(telegram.api_url, "http://127.0.0.1:8081");
    assert_eq!(telegram.access.allow_from, ["1001", "1002", "1003"], "an admin may also talk");
    assert_eq!(telegram.access.allow_admin_from, ["1003", "1001"]);
    assert!(!telegram.access.gateway_restart_notification);
    assert_eq!((telegram.access.language, telegram.access.pairing), (Language::ZhCn, false));
    assert_eq!(telegram.messages_per_second, 1000);
    assert_eq!(config.update.manifest_url.as_deref(), Some("file:///srv/releases/manifest.json"));
    assert_eq!(config.update.verifying_keys.len(), 1);
    assert_eq!((config.update.auto, config.update.channel), (AutoUpdate::Apply, Channel::Beta));
    assert_eq!(config.update.check_every, Duration::from_secs(86_400));
    assert_eq!(config.update.window.map(|window| window.to_string()).as_deref(), Some("Sat,Sun 23:00-04:00"));
}

#[test]
fn without_agents_there_is_still_the_default_one() {
    let config = accepted("[agents.other]\ncommand = [\"x\"]");
    assert_eq!(config.agents.len(), 2);
    assert_eq!(config.agents[&AgentName::from("default")].command, ["hermes", "agent", "echo"]);
}

#[test]
fn nobody_may_talk_unless_named() {
    let telegram = accepted("[platforms.telegram]\ntoken = 'x'").telegram.expect("there");
    assert_eq!(telegram.access.allow_from, Vec::<String>::new());
    assert_eq!(telegram.access.allow_admin_from, Vec::<String>::new());
    assert_eq!(telegram.api_url, "https://api.telegram.org");
    assert!(telegram.access.gateway_restart_notification);
    assert_eq!((telegram.access.language, telegram.access.pairing), (Language::En, true));
}

#[test]
fn nobody_is_everybody() {
    let told = |platform: &str, keys: &str| refused(&format!("[platforms.{platform}]\n{keys}\nallow_from = ['*']"));
    assert_snapshot!(told("telegram", "token = 'x'"), @r#"gateway.toml:3:15: 'allow_from' names people, and '*' for everyone is not supported; leave it out, and `pairing` lets people in one by one; for example allow_from = ["1001"]"#);
    assert_snapshot!(told("weixin", "token = 'x'\naccount_id = 'x'"), @r#"gateway.toml:4:15: 'allow_from' names people, and '*' for everyone is not supported; leave it out, and `pairing` lets people in one by one; for example allow_from = ["o9cq80@im.wechat"]"#);
}

#[test]
fn a_webhook_needs_an_address_that_telegram_can_reach() {
    let section = "[platforms.telegram]\ntoken = 'x'\n";
    let webhook = |keys: &str| accepted(&format!("{section}{keys}")).telegram.expect("there").webhook;
    assert_eq!(webhook(""), None);
    let whole =
        webhook("webhook_url = 'https://example.org/hook'\nwebhook_secret = 'a-B_9'\nwebhook_listen = '[::1]:80'");
    let whole = whole.expect("there");
    assert_eq!((whole.url.expose(), whole.secret), ("https://example.org/hook", Some(Secret::new("a-B_9"))));
    assert_eq!(whole.listen.to_string(), "[::1]:80");
    let least = webhook("webhook_url = 'http://127.0.0.1:1/'").expect("there");
    assert_eq!((least.secret, least.listen.to_string().as_str()), (None, "127.0.0.1:8443"));
    let told = [
        "webhook_url = 'http://example.org/'",
        "webhook_url = 'example.org'",
        "webhook_url = 'https://example.org/'\nwebhook_listen = '8443'",
        "webhook_url = 'https://example.org/'\nwebhook_secret = 'a b'",
        "webhook_listen = '127.0.0.1:8443'",
        "webhook_secret = 'a'",
    ];
    let told = told.map(|keys| refused(&format!("{section}{keys}")));
    assert_snapshot!(told.join("\n"), @r"
    gateway.toml:3:15: 'webhook_url' must be an https address that Telegram can reach
    gateway.toml:3:15: 'webhook_url' must be an https address that Telegram can reach
    gateway.toml:4:18: 'webhook_listen' must be an address and a port, like 127.0.0.1:8443
    gateway.toml:4:1: the secret of the webhook has 1 to 256 of A-Z, a-z, 0-9, '_' and '-'
    gateway.toml:3:18: this is of use with 'webhook_url' only
    gateway.toml:3:1: this is of use with 'webhook_url' only
    ");
}

#[test]
fn more_messages_than_are_free_are_paid_for() {
    let telegram =
        |keys: &str| accepted(&format!("[platforms.telegram]\ntoken = 'x'\n{keys}")).telegram.expect("there");
    let told = |value: &str| refused(&format!("[platforms.telegram]\ntoken = 'x'\nmessages_per_second = {value}"));
    for (keys, per_second, paid) in [
        ("", 30, false),
        ("messages_per_second = 1", 1, false),
        ("messages_per_second = 30", 30, false),
        ("messages_per_second = 31", 31, true),
        ("messages_per_second = 1000", 1000, true),
    ] {
        let telegram = telegram(keys);
        assert_eq!((telegram.messages_per_second, telegram.is_paid()), (per_second, paid), "{keys}");
    }
    let refusals = ["0", "-1", "1001", "0x1000", "99999999999", "30.0", "'30'"].map(told);
    assert_snapshot!(refusals.join("\n"), @r"
    gateway.toml:3:23: 'messages_per_second' is 0, and must be a whole number from 1 to 1000; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' is -1, and must be a whole number from 1 to 1000; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' is 1001, and must be a whole number from 1 to 1000; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' is 0x1000, and must be a whole number from 1 to 1000; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' is 99999999999, and must be a whole number from 1 to 1000; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' must be a whole number from 1 to 1000, not a float; for example messages_per_second = 30
    gateway.toml:3:23: 'messages_per_second' must be a whole number from 1 to 1000, not a string; for example messages_per_second = 30
    ");
}

#[test]
fn unknown_names_are_told_with_the_nearest_known_one() {
    let text = r#"
[gateway]
restart_drain_timout = "5s"
zzz = 1
[agents.default]
comand = ["x"]
[platforms.telegarm]
[platforms.web]
lisen = "127.0.0.1:1"
[udpate]
"#;
    assert_snapshot!(refused(text), @r#"
    gateway.toml:3:1: unknown key 'restart_drain_timout' in [gateway]; did you mean 'restart_drain_timeout'?
    gateway.toml:4:1: unknown key 'zzz' in [gateway]; known are restart_drain_timeout, probation, handoff_timeout, probe
    gateway.toml:5:9: [agents.default] needs 'command'; for example command = ["hermes", "agent", "echo"]
    gateway.toml:6:1: unknown key 'comand' in [agents.default]; did you mean 'command'?
    gateway.toml:7:12: unknown platform 'telegarm' in [platforms]; did you mean 'telegram'?
    gateway.toml:9:1: unknown key 'lisen' in [platforms.web]; did you mean 'listen'?
    gateway.toml:10:2: unknown section 'udpate' in the file; did you mean 'update'?
    "#);
}

#[test]
fn a_web_page_that_others_could_read_or_log_in_to_is_refused() {
    let text = r#"
[platforms.web]
listen = "0.0.0.0:8787"
token = "short"
guest_token = "a-guest-token-of-some-length"
guest_token_file = "guest"
hosts = ["https://hermes.example.org", "hermes.example.org"]
"#;
    assert_snapshot!(refused(text), @r#"
    gateway.toml:3:10: 'listen' is no loopback address, so others could read what is typed here, the token too; put a proxy with TLS before the gateway and let it listen on 127.0.0.1, or set allow_remote = true
    gateway.toml:4:1: 'token' has fewer than 16 characters and could be guessed; `openssl rand -hex 32` makes one
    gateway.toml:6:20: 'guest_token' and 'guest_token_file' are both set in [platforms.web]; keep one of them
    gateway.toml:7:10: a host is named without 'https://', port and path; for example hermes.example.org
    "#);
    let same = r#"
[platforms.web]
listen = "somewhere"
token = "the-same-token-for-both"
guest_token = "the-same-token-for-both"
"#;
    assert_snapshot!(refused(same), @r#"
    gateway.toml:3:10: 'listen' must be an address and a port, like 127.0.0.1:8787
    gateway.toml:5:1: 'guest_token' is the same as 'token', and must be another
    "#);
}

#[test]
fn the_section_of_the_web_page_may_be_empty() {
    let web = accepted("[platforms.web]").web.expect("it is configured");
    assert_eq!((web.listen.to_string().as_str(), web.token, web.guest_token), ("127.0.0.1:8787", None, None));
    assert_eq!((web.access.allow_from, web.access.pairing), (vec!["owner".to_owned()], false));
    let remote = "[platforms.web]\nlisten = \"0.0.0.0:80\"\nallow_remote = true\nguest_token = \"0123456789abcdef\"";
    let web = accepted(remote).web.expect("it is configured");
    assert_eq!(web.access.allow_from, ["owner", "guest"]);
    assert_eq!(web.access.allow_admin_from, ["owner"]);
}

#[test]
fn wrong_types_are_told_with_an_example() {
    let text = r#"
platforms = 3
[gateway]
restart_drain_timeout = 5
probation = "60"
[agents.a]
command = "hermes agent echo"
[agents.b]
command = ["x", 7]
cwd = "work"
env = { A = 1 }
[agents.c]
command = []
[agents.d]
[agents."e:f"]
command = ["x"]
"#;
    assert_snapshot!(refused(text), @r#"
    gateway.toml:2:13: 'platforms' must be a section, not an integer; write [platforms] on its own line
    gateway.toml:4:25: 'restart_drain_timeout' must be a duration in quotes, not an integer; for example restart_drain_timeout = "5s"
    gateway.toml:5:13: 'probation' is not a duration: a number needs one of the units ms, s, m, h, d; for example probation = "60s"
    gateway.toml:7:11: 'command' must be a list of strings, not a string; for example command = ["hermes", "agent", "echo"]
    gateway.toml:9:17: 'command' is a list of strings, and this is an integer; for example command = ["hermes", "agent", "echo"]
    gateway.toml:10:7: 'cwd' must be an absolute path; for example cwd = "/srv/work"
    gateway.toml:11:13: 'A' must be a string; for example env = { NAME = "value" }
    gateway.toml:13:11: 'command' names no program; for example command = ["hermes", "agent", "echo"]
    gateway.toml:14:9: [agents.d] needs 'command'; for example command = ["hermes", "agent", "echo"]
    gateway.toml:15:9: 'e:f' cannot be the name of an agent; use up to 64 of a-z, A-Z, 0-9, - and _
    "#);
}

#[test]
fn telegram_and_update_values_are_checked() {
    let text = r#"
[gateway]
restart_drain_timeout = "11m"
[platforms.telegram]
api_url = "ftp://example.org"
allow_from = ["@kim", 1.5]
allow_admin_from = "1001"
gateway_restart_notification = "yes"
language = "zh"
[update]
manifest_url = "http://example.org/manifest.json"
verifying_keys = ["short"]
auto = "on"
github = "owner/repo"
check_every = "10s"
window = "02:00-02:00"
channel = "edge"
[platforms.weixin]
account_id = "a"
token = "t"
token_env = "T"
"#;
    assert_snapshot!(refused(text), @r#"
    gateway.toml:3:25: 'restart_drain_timeout' is 11m, and the most is 10m; for example restart_drain_timeout = "5s"
    gateway.toml:4:12: [platforms.telegram] needs one of 'token', 'token_file', 'token_credential', 'token_env'
    gateway.toml:5:11: 'api_url' must be an http or https address without '?' and '#'; for example api_url = "https://api.telegram.org"
    gateway.toml:6:23: 'allow_from' is a list of user ids, and this is a float; for example allow_from = ["1001"]
    gateway.toml:7:20: 'allow_admin_from' must be a list of user ids, not a string; for example allow_admin_from = ["1001"]
    gateway.toml:8:32: 'gateway_restart_notification' must be true or false, not a string; for example gateway_restart_notification = true
    gateway.toml:9:12: 'language' must be one of "en", "zh-CN"
    gateway.toml:11:16: 'manifest_url' must be an https or file address (http only on this machine); for example manifest_url = "https://example.org/hermes/manifest.json"
    gateway.toml:12:19: this is not an ed25519 public key: 32 bytes as base64, 44 characters with the '=' at the end
    gateway.toml:13:8: 'auto' must be one of "off", "notify", "apply"
    gateway.toml:14:10: 'manifest_url' and 'github' are both set in [update]; keep one of them
    gateway.toml:15:15: 'check_every' is less than 1m; for example check_every = "6h"
    gateway.toml:16:10: 'window' is not a window: it begins when it ends; leave the window out if any time will do; for example window = "Sat,Sun 02:00-05:00"
    gateway.toml:17:11: 'channel' must be one of "stable", "beta", "nightly"
    gateway.toml:21:13: 'token' and 'token_env' are both set in [platforms.weixin]; keep one of them
    "#);
}

#[test]
fn a_syntax_error_does_not_quote_the_line() {
    let message = refused("[platforms.telegram]\ntoken = \"123:hidden\nallow_from = []\n");
    assert!(!message.contains("hidden"), "{message}");
    assert_snapshot!(message, @r#"gateway.toml:2:20: invalid basic string, expected `"`"#);
}

#[test]
fn columns_count_characters() {
    assert_snapshot!(refused("[agents.default]\ncommand = [\"é\"]\nenv = { \"ä\" = \"ö\", B = 2 }"), @r#"gateway.toml:3:24: 'B' must be a string; for example env = { NAME = "value" }"#);
}

#[test]
fn addresses_of_releases() {
    for url in
        ["https://example.org/m.json", "http://127.0.0.1:8/m", "http://[::1]/m", "http://localhost/m", "file:///m"]
    {
        assert_eq!(accepted(&format!("[update]\nmanifest_url = '{url}'")).update.manifest_url.as_deref(), Some(url));
    }
    for url in
        ["http://example.org/m", "http://127.0.0.1.example.org/m", "/m.json", "ftp://127.0.0.1/m", "", "file://host/m"]
    {
        let message = refused(&format!("[update]\nmanifest_url = '{url}'"));
        assert!(message.contains("'manifest_url' must be"), "{url}: {message}");
    }
}

/// A directory with a configuration file and secrets beside it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        self
    }

    fn token(&self, keys: &str) -> Result<String, String> {
        let path = self.dir.path().join("gateway.toml");
        fs::write(&path, format!("[platforms.telegram]\n{keys}\n")).expect("written");
        let credentials = self.dir.path().as_os_str().to_owned();
        let env = Environment::from_iter([("CREDENTIALS_DIRECTORY", credentials), ("TOKEN", "from-variable".into())]);
        match Config::load(&path, &env) {
            Ok(config) => Ok(config.telegram.expect("there").token.expose().to_owned()),
            Err(error) => Err(error.to_string().replace(&format!("{}/", self.dir.path().display()), "")),
        }
    }
}

#[test]
fn a_secret_is_written_out_or_in_a_file_a_credential_or_a_variable() {
    let files =
        Files::new().with("secret", "from-file\n").with("crlf", "x\r\n").with("two", "x\n\n").with("empty", "\n");
    assert_eq!(files.token("token = 'inline'").as_deref(), Ok("inline"));
    assert_eq!(files.token("token_file = 'secret'").as_deref(), Ok("from-file"), "relative to gateway.toml");
    assert_eq!(files.token("token_credential = 'secret'").as_deref(), Ok("from-file"));
    assert_eq!(files.token("token_file = 'crlf'").as_deref(), Ok("x"));
    assert_eq!(files.token("token_env = 'TOKEN'").as_deref(), Ok("from-variable"));
    let refusals = [
        "",
        "token = ''",
        "token = 5",
        "token = 'a'\ntoken_file = 'secret'",
        "token_file = 'secret'\ntoken_credential = 'secret'",
        "token_file = 'missing'",
        "token_file = '.'",
        "token_file = 'empty'",
        "token_file = 'two'",
        "token_credential = '../secret'",
        "token_env = 'NO_TOKEN'",
    ]
    .map(|keys| files.token(keys).expect_err("refused"));
    assert_snapshot!(refusals.join("\n"), @r#"
    gateway.toml:1:12: [platforms.telegram] needs one of 'token', 'token_file', 'token_credential', 'token_env'
    gateway.toml:2:9: 'token' cannot be used: it is empty
    gateway.toml:2:9: 'token' must be a string, not an integer; for example token = "…"
    gateway.toml:3:14: 'token' and 'token_file' are both set in [platforms.telegram]; keep one of them
    gateway.toml:3:20: 'token_file' and 'token_credential' are both set in [platforms.telegram]; keep one of them
    gateway.toml:2:14: 'token_file' cannot be used: cannot read missing: No such file or directory (os error 2)
    gateway.toml:2:14: 'token_file' cannot be used: . is not a regular file
    gateway.toml:2:14: 'token_file' cannot be used: it is empty
    gateway.toml:2:14: 'token_file' cannot be used: it has a character that no secret has (a line break, another control character, or not UTF-8)
    gateway.toml:2:20: 'token_credential' cannot be used: the name of a credential is a plain file name
    gateway.toml:2:13: 'token_env' cannot be used: the variable NO_TOKEN is not set
    "#);
}

#[test]
fn without_systemd_there_are_no_credentials() {
    assert_snapshot!(refused("[platforms.telegram]\ntoken_credential = 'x'"), @r#"gateway.toml:2:20: 'token_credential' cannot be used: there are no credentials: CREDENTIALS_DIRECTORY is not set; add LoadCredential= to the unit"#);
}

#[test]
fn a_repository_stands_for_its_latest_release() {
    let url = |keys: &str| accepted(&format!("[update]\n{keys}")).update.manifest_url;
    assert_eq!(
        url("github = 'owner/a.repo'\nauto = 'notify'").as_deref(),
        Some("https://github.com/owner/a.repo/releases/latest/download/manifest.json")
    );
    for wrong in ["owner", "a/b/c", "/b", "a/", "../b", "https://github.com/a/b", "a/b?x"] {
        let told = refused(&format!("[update]\ngithub = '{wrong}'"));
        assert!(told.contains("the owner and the name of a repository"), "{told}");
    }
    let told = refused("[update]\nauto = 'apply'");
    assert_eq!(told, "gateway.toml:2:8: 'auto' needs a place to look at: set 'manifest_url' or 'github', too");
}

#[test]
fn a_problem_says_which_key_it_is_about_and_a_warning_does_not_refuse() {
    let text = "[gateway]\nprobatoin = '1s'\n[platforms.telegram]\ntoken = 5\n[agents.a]\n";
    let Err(ConfigError::Invalid { problems, .. }) = parse(text) else { panic!("it is refused") };
    let told: Vec<_> =
        problems.iter().map(|problem| (problem.line, problem.key.as_deref(), problem.nearest.as_deref())).collect();
    assert_eq!(
        told,
        [
            (2, Some("gateway.probatoin"), Some("probation")),
            (4, Some("platforms.telegram.token"), None),
            (5, Some("agents.a"), None),
        ]
    );

    let files = Files::new().with("secret", "x").with("open", "x").with("gateway.toml", "");
    fs::set_permissions(files.dir.path().join("open"), fs::Permissions::from_mode(0o644)).expect("changes");
    let path = files.dir.path().join("gateway.toml");
    let warned = |mode: u32, key: &str| {
        fs::write(&path, format!("[platforms.telegram]\n{key}")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changes");
        let (_, warnings) = Config::check(&path, &environment(), Reader::Gateway).expect("accepted");
        let told = |warning: hermes_gateway::config::Problem| {
            assert_eq!(warning.severity, Severity::Warning);
            format!("{}:{} {} {}", warning.line, warning.column, warning.key.expect("a key"), warning.message)
        };
        warnings
            .into_iter()
            .map(told)
            .collect::<Vec<_>>()
            .join("\n")
            .replace(&files.dir.path().display().to_string(), "DIR")
    };
    assert_eq!(warned(0o644, "token_file = 'secret'"), "");
    assert_eq!(warned(0o600, "token = 'x'"), "");
    assert_snapshot!(
        [warned(0o600, "token_file = 'open'"), warned(0o644, "token = 'x'")].join("\n"),
        @r"
    2:14 platforms.telegram.token_file everybody on this machine may read DIR/open (mode 0644), which holds a secret: chmod 600 DIR/open
    2:9 platforms.telegram.token everybody on this machine may read DIR/gateway.toml (mode 0644), which holds a secret: chmod 600 DIR/gateway.toml
    "
    );
}

#[test]
fn a_secret_is_not_shown() {
    let config = accepted("[platforms.telegram]\ntoken = '123:hidden'");
    let shown = format!("{config:?}");
    assert!(shown.contains("[secret]") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn a_file_that_is_no_configuration() {
    let files = Files::new().with("long", vec![b'#'; 2 * 1024 * 1024]).with("bytes", [0xff, 0xfe]);
    let told = |name: &str| {
        let error = Config::load(&files.dir.path().join(name), &environment()).expect_err("refused");
        hermes_gateway::report::Chain(&error).to_string().replace(&format!("{}", files.dir.path().display()), "DIR")
    };
    assert_snapshot!([told("long"), told("bytes"), told("")].join("\n"), @r#"
    DIR/long is longer than 1048576 bytes; is it the right file?
    DIR/bytes is not UTF-8 text; is it the right file?
    cannot read DIR/: Is a directory (os error 21)
    "#);
}

proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(text in "\\PC*") {
        let _ = parse(&text);
    }

    /// Texts that are nearly right reach further than arbitrary ones.
    #[test]
    fn any_order_of_known_pieces_is_judged_without_a_panic(pieces in proptest::collection::vec(piece(), 0..24)) {
        if let Err(error) = parse(&pieces.concat()) {
            let ConfigError::Invalid { problems, .. } = error else { panic!("not about the text: {error}") };
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
            prop_assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[gateway]\n",
        "[agents.default]\n",
        "[agents.é]\n",
        "[platforms.telegram]\n",
        "[update]\n",
        "[platforms]\n",
        "probation",
        "command",
        "cwd",
        "env",
        "token",
        "token_file",
        "allow_from",
        "api_url",
        "verifying_keys",
        " = ",
        "\"60s\"",
        "\"/\"",
        "[\"x\"]",
        "[1, \"2\"]",
        "{ A = \"b\" }",
        "true",
        "1",
        "0x10",
        "\n",
        "\n",
        "'",
        "\"",
        "é",
        ".",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

/// The keys that the source reads, by the calls that read them.
fn keys_in_source() -> BTreeSet<String> {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config").join(name);
        fs::read_to_string(path).expect("the source is there")
    };
    let source = [read("file.rs"), read("platforms.rs"), read("update.rs")].concat();
    let calls = [
        ".string(\"",
        ".boolean(\"",
        ".integer(\"",
        ".duration(\"",
        ".list(\"",
        ".entry(\"",
        "&mut section, \"",
        "users(section, \"",
        "address(section, \"",
        "inline: \"",
        "file: \"",
        "credential: \"",
        "variable: \"",
        "one_of(&mut section, \"",
    ];
    let named = |call: &str| {
        let keys = source.split(call).skip(1).filter_map(|rest| rest.split('"').next());
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    calls.into_iter().flat_map(named).collect()
}

#[test]
fn every_key_is_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(page).expect("there is a page of all keys");
    let words: BTreeSet<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let keys = keys_in_source();
    for known in
        ["command", "probation", "verifying_keys", "token_file", "pairing", "language", "oapi_url", "account_id"]
    {
        assert!(keys.contains(known), "{known} is a key: are keys read by other calls now? {keys:?}");
    }
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not say what these keys are for: {missing:?}");
}
