//! Mistakes in `gateway.toml`: at a start the process ends with 78, at a reload the gateway goes on with what it has.

use std::fs;
use std::path::Path;

use hermes_gateway::control::proto::HandoffKind;
use hermes_gateway::store::HandoffRecord;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{BINARY, ECHO, assert_no_panic, echoes, home, start};
use crate::support::gateway::Gateway;

#[test]
fn a_start_ends_with_78_and_names_place_key_and_fix() {
    for (text, said) in [
        (
            "[gateway]\nprobatoin = \"60s\"\n",
            "gateway.toml:2:1: unknown key 'probatoin' in [gateway]; did you mean 'probation'?",
        ),
        (
            "[gateway]\nprobation = 60\n",
            "gateway.toml:2:13: 'probation' must be a duration in quotes, not an integer; for example probation = \"60s\"",
        ),
        ("[platforms.telegram]\ntoken_file = \"/no/such/token\"\n", "gateway.toml:2:14: "),
        ("[gateway\n", "gateway.toml:1:9: "),
        ("x = \u{1}\n", "gateway.toml:1:5: "),
    ] {
        let (code, log) = started(text.as_bytes());
        assert_eq!(code, Some(78), "{text}\n{log}");
        assert!(log.starts_with("error: the gateway cannot run: cannot use the configuration: "), "{log}");
        assert!(log.contains(said), "{text}\n{log}");
    }
    let (code, log) = started(b"\xff\xfe");
    assert_eq!(code, Some(78));
    assert!(log.trim_end().ends_with("gateway.toml is not UTF-8 text; is it the right file?"), "{log}");
    let deep = format!("a = {}", "[".repeat(100_000));
    assert_eq!(started(deep.as_bytes()).0, Some(78));
}

/// Exit code and log of a gateway with this configuration.
fn started(config: &[u8]) -> (Option<i32>, String) {
    let mut gateway = Gateway::launch(home(), &[], Path::new(BINARY), config);
    let code = gateway.wait().code();
    assert_no_panic(&gateway);
    (code, gateway.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_refused_and_the_gateway_goes_on_with_what_it_has() {
    let gateway = start(ECHO).await;
    let file = gateway.home().join("gateway.toml");
    fs::write(&file, "[gateway]\nprobatoin = \"60s\"\nprobation = 60\n").expect("writes");
    let said = format!(
        "the new image cannot take over (exit code 78): cannot use the configuration: \
         {}:2:1: unknown key 'probatoin' in [gateway]; did you mean 'probation'?",
        file.display()
    );
    let output = gateway.cli(&["gateway", "reload"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("error: {said}\n")), "{stderr}");
    let mut chat = gateway.chat("main").await;
    chat.say("/reload").await;
    let told = chat.notice("The reload failed").await;
    assert_eq!(told, format!("❌ The reload failed: {said}\n1.0.0 goes on as before."));
    gateway.signal(Signal::SIGHUP);
    let mut records = Vec::new();
    gateway
        .wait_until("the reload by SIGHUP is over", async |status| {
            records = status.handoffs.clone();
            records.len() == 3
        })
        .await;
    assert_eq!(records[0].requested_by, "SIGHUP");
    for HandoffRecord { kind, outcome, .. } in &records {
        assert_eq!((kind.as_str(), outcome), ("reload", &format!("failed in preflight: {said}")), "one way for all");
    }
    assert!(gateway.log().matches(&said).count() >= 3, "{}", gateway.log());
    let state = gateway.state_file();
    assert_eq!((&state["gateway_state"], &state["handoff"]), (&json!("running"), &json!(null)));

    assert_eq!(gateway.status().await.generation, 0);
    echoes(&mut chat, "on as before").await;
    fs::write(&file, format!("[gateway]\nprobation = \"1s\"\n{ECHO}")).expect("writes");
    let report = gateway.handoff(HandoffKind::Reload).await.expect("the file is right now");
    assert_eq!((report.kind.as_str(), report.generation), ("reload", 1));
    echoes(&mut chat, "with the new one").await;
    assert_no_panic(&gateway);
}
