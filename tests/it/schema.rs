//! What each command with `--json` prints of a real gateway is as its schema in `dist/schema/` says.

use std::path::Path;

use crate::support::gateway::Gateway;
use crate::support::schema;

/// Words that make a command print what it prints when it works. `gateway-stop` comes last.
fn words(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "config-check" => &["config", "check", "--json"],
        "doctor" => &["doctor", "--offline", "--json"],
        "gateway-history" => &["gateway", "history", "--json"],
        // In a plain process there is no journal; `service` has one.
        "gateway-logs" => &["gateway", "logs", "--json"],
        "gateway-platform-list" => &["gateway", "platform", "list", "--json"],
        "gateway-platform-pause" => &["gateway", "platform", "pause", "telegram", "--json"],
        "gateway-platform-resume" => &["gateway", "platform", "resume", "telegram", "--json"],
        "gateway-reload" => &["gateway", "reload", "--json"],
        "gateway-restart" => &["gateway", "restart", "--json"],
        "gateway-status" => &["gateway", "status", "--json"],
        "gateway-stop" => &["gateway", "stop", "--json"],
        "pairing-approve" => &["pairing", "approve", "telegram", "ABCD2345", "--json"],
        "pairing-list" => &["pairing", "list", "--json"],
        "pairing-revoke" => &["pairing", "revoke", "telegram", "1", "--json"],
        "self-update" => &["self-update", "--check", "--json"],
        "gateway-list" => &["gateway", "list", "--json"],
        // Those that ask a platform or a service manager are tested with it, and everything that `cli` runs is checked.
        "weixin-login" | "setup" | "gateway-adopt" | "gateway-install" | "gateway-start" | "gateway-uninstall"
        | "error" => return None,
        _ => panic!("{name}.json is of a command that is not run here"),
    })
}

#[tokio::test]
async fn a_real_gateway_answers_as_the_schemas_say() {
    let config = "[platforms.telegram]\ntoken = \"1:x\"\napi_url = \"http://127.0.0.1:1\"\nallow_from = [\"1\"]\n";
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), config).await;
    let mut names = schema::names();
    names.sort_by_key(|name| name == "gateway-stop");
    for name in names {
        let Some(words) = words(&name) else { continue };
        assert_eq!(schema::command(words), name);
        let output = gateway.cli(words).await;
        assert!(!output.stdout.is_empty(), "{words:?}: {output:?}");
        schema::check(words, &output.stdout);
    }
    let output = gateway.cli(&["gateway", "status", "--json"]).await;
    assert_eq!(output.status.code(), Some(3), "it was stopped");
    schema::check(&["gateway", "status", "--json"], &output.stdout);
}
