//! `hermes weixin login` against the test server: every status, what it says, and what it leaves.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use hermes_gateway::config::{Config, Reader};
use serde_json::{Value, json};

use super::{hermes, json_of, run_with_input, stderr, stdout};
use crate::support::faults::Fault;
use crate::support::weixin::WeixinServer;
use crate::support::weixin::state::{QrStep, SCANNER};

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A server that answers these statuses, one for each question.
async fn server(answers: impl IntoIterator<Item = Value>) -> WeixinServer {
    let server = WeixinServer::start().await;
    let steps: Vec<_> = answers.into_iter().map(|answer| QrStep { answer, code: None }).collect();
    server.change(|state| state.qr_script.extend(steps));
    server
}

fn status(name: &str) -> Value {
    json!({ "status": name })
}

/// Runs the login; the server goes on meanwhile.
async fn login(server: &WeixinServer, home: &Path, arguments: &[&str], typed: &str) -> Output {
    let url = server.url();
    let mut words: Vec<String> = ["weixin", "login", "--base-url", &url].map(str::to_owned).to_vec();
    words.extend(arguments.iter().map(|word| (*word).to_owned()));
    let (home, typed) = (home.to_owned(), typed.to_owned());
    let run = move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run_with_input(&home, &words, &typed)
    };
    let output = tokio::task::spawn_blocking(run).await.expect("it runs");
    let token = server.token();
    for text in [stdout(&output), stderr(&output)] {
        assert!(!text.contains(&token), "the token is told:\n{text}");
    }
    let complaints = server.look(|state| state.complaints.clone());
    assert_eq!(complaints, Vec::<String>::new());
    output
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("it is there")
}

fn failure(output: &Output) -> (Option<i32>, String) {
    let document = json_of(output);
    (output.status.code(), document["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_login_leaves_the_token_and_a_section_that_names_it() {
    let home = home();
    let server = server([status("wait"), status("scaned"), status("scaned"), status("confirmed")]).await;
    let output = login(&server, home.path(), &[], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    let code = server.look(|state| state.qr_codes[0].clone());
    for words in
        ["Scan this code", &format!("/scan/{code}"), "▀", "Logged in as testbot@im.bot", "hermes gateway reload"]
    {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    assert_eq!(said.matches("Scanned.").count(), 1);
    let token_file = home.path().join("weixin-token");
    assert_eq!(read(&token_file).trim(), server.token());
    assert_eq!(token_file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    let config = read(home.path().join("gateway.toml"));
    let table: toml::Table = config.parse().expect("TOML");
    let wanted = json!({
        "token_file": "weixin-token", "account_id": "testbot@im.bot", "base_url": server.url(), "allow_from": [SCANNER],
    });
    assert_eq!(json!(table["platforms"]["weixin"]), wanted);
    // The gateway takes it: it starts with this configuration, if only to be told that it may not run twice.
    let env = hermes_gateway::config::Environment::from_process();
    let read = Config::from_text(&config, &home.path().join("gateway.toml"), &env, Reader::Gateway);
    assert_eq!(read.expect("a configuration").weixin.expect("the section").token.expose(), server.token());
}

#[tokio::test]
async fn the_known_token_is_told_and_an_old_section_is_left_alone() {
    let home = home();
    let config = home.path().join("real.toml");
    std::fs::write(&config, "[platforms.weixin]\ntoken = \"old\"\naccount_id = \"old\"\n").expect("writes");
    symlink(&config, home.path().join("gateway.toml")).expect("links");
    std::fs::write(home.path().join("weixin-token"), "known-token\n").expect("writes");
    let server = server([status("confirmed")]).await;
    let output = login(&server, home.path(), &["--json"], "").await;
    let document = json_of(&output);
    assert_eq!((&document["outcome"], &document["config"]), (&json!("logged_in"), &json!("by_hand")));
    assert_eq!((&document["account_id"], &document["scanner"]), (&json!("testbot@im.bot"), &json!(SCANNER)));
    assert!(document["lines"].as_str().expect("lines").contains("token_file = \"weixin-token\""));
    assert!(stderr(&output).contains("Scan this code"), "people must see the code");
    assert!(read(&config).contains("account_id = \"old\""));
    assert_eq!(read(home.path().join("weixin-token")).trim(), server.token());
    let asked = server.look(|state| state.calls[0].body["local_token_list"].clone());
    assert_eq!(asked, json!(["known-token"]));
}

#[tokio::test]
async fn a_second_login_of_the_same_account_changes_nothing_but_the_token() {
    let home = home();
    std::fs::write(home.path().join("gateway.toml"), "# mine\n[gateway]\nprobation = \"5s\"\n").expect("writes");
    let server = server([status("confirmed"), status("confirmed")]).await;
    let first = json_of(&login(&server, home.path(), &["--json"], "").await);
    let config = read(home.path().join("gateway.toml"));
    assert!(config.starts_with("# mine\n[gateway]\nprobation = \"5s\"\n\n[platforms.weixin]"), "{config}");
    server.change(|state| state.token = "a-newer-token".to_owned());
    let second = json_of(&login(&server, home.path(), &["--json"], "").await);
    assert_eq!([&first["config"], &second["config"]], [&json!("appended"), &json!("unchanged")]);
    assert_eq!(read(home.path().join("gateway.toml")), config);
    assert_eq!(read(home.path().join("weixin-token")), "a-newer-token\n");
}

#[tokio::test]
async fn the_digits_of_the_phone_are_asked_for_until_they_are_right() {
    let home = home();
    let server = server([status("confirmed")]).await;
    server.change(|state| state.qr_script.push_front(QrStep { answer: status("scaned"), code: Some("1234".into()) }));
    let output = login(&server, home.path(), &[], "four\n\n9999\n1234\n").await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert_eq!(said.matches("Type the digits").count(), 4, "{said}");
    assert_eq!(said.matches("These were not the digits").count(), 1, "{said}");
    let told: Vec<_> = server.look(|state| {
        let polls = state.calls.iter().filter(|call| call.method == "get_qrcode_status");
        polls.map(|call| call.body["verify_code"].clone()).collect()
    });
    assert_eq!(told, [Value::Null, json!("9999"), json!("1234"), Value::Null]);
}

#[tokio::test]
async fn digits_that_nobody_types_end_the_login() {
    let server = server([status("need_verifycode")]).await;
    let output = login(&server, home().path(), &["--json"], "").await;
    assert_eq!(failure(&output), (Some(1), "no_digits".to_owned()));
}

#[tokio::test]
async fn a_code_that_is_spent_is_followed_by_a_new_one_but_not_for_ever() {
    let once = server([status("verify_code_blocked"), status("expired"), status("confirmed")]).await;
    let home = home();
    let output = login(&once, home.path(), &[], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    for words in ["wrong too often", "The code has expired.", "Logged in"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    assert_eq!(once.look(|state| state.qr_codes.len()), 3);

    let never = server([status("expired"), status("expired"), status("expired")]).await;
    let output = login(&never, home.path(), &["--json"], "").await;
    assert_eq!(failure(&output), (Some(1), "expired".to_owned()));
    assert_eq!(never.look(|state| state.qr_codes.len()), 3);
}

#[tokio::test]
async fn a_login_goes_on_elsewhere_only_where_it_may() {
    let elsewhere = |host: &str| json!({ "status": "scaned_but_redirect", "redirect_host": host });
    let near = server([]).await;
    let host = near.url().replace("http://", "");
    near.change(|state| {
        let steps = [elsewhere(&host), status("scaned_but_redirect"), status("confirmed")];
        state.qr_script.extend(steps.map(|answer| QrStep { answer, code: None }));
    });
    let output = login(&near, home().path(), &[], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("goes on at another host"));

    let other = server([status("confirmed")]).await;
    let far = server([elsewhere(&other.url().replace("http://", ""))]).await;
    let home = home();
    let output = login(&far, home.path(), &["--json"], "").await;
    assert_eq!(failure(&output), (Some(1), "foreign_host".to_owned()));
    assert_eq!(other.look(|state| state.calls.len()), 0);

    let foreign = server([json!({ "status": "confirmed", "baseurl": "https://example.org" })]).await;
    let output = login(&foreign, home.path(), &["--json"], "").await;
    assert_eq!(failure(&output), (Some(1), "foreign_host".to_owned()));
    assert!(!home.path().join("weixin-token").exists());
}

#[tokio::test]
async fn a_bot_that_is_bound_already_is_no_failure() {
    let home = home();
    let bound = server([status("binded_redirect"), status("binded_redirect")]).await;
    let output = login(&bound, home.path(), &["--json"], "").await;
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), json!({ "outcome": "already_bound" })));
    let output = login(&bound, home.path(), &[], "").await;
    assert!(stdout(&output).contains("has a bot already"));
    assert!(!home.path().join("gateway.toml").exists());
}

#[tokio::test]
async fn what_does_not_get_through_is_waited_out() {
    let server = server([status("something_new"), status("confirmed")]).await;
    for fault in [Fault::Html { code: 524 }, Fault::Reset, Fault::Malformed] {
        server.fault("get_qrcode_status", 1, fault);
    }
    let output = login(&server, home().path(), &[], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("Weixin says 'something_new'"));
}

#[tokio::test]
async fn a_login_that_nobody_confirms_ends() {
    let server = server([status("wait")]).await;
    let output = login(&server, home().path(), &["--json", "--within", "2s"], "").await;
    assert_eq!(failure(&output), (Some(1), "timeout".to_owned()));
    // Not even digits that are asked for are waited for.
    server.change(|state| state.qr_script.push_back(QrStep { answer: status("scaned"), code: Some("1".into()) }));
    let mut command = hermes(home().path(), &["weixin", "login", "--base-url", &server.url(), "--within", "2s"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("starts");
    let typing = child.stdin.take();
    let output = tokio::task::spawn_blocking(move || super::finish(child)).await.expect("it ends");
    drop(typing);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("hint: run it again"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_service_that_gives_no_code_is_named() {
    let server = server([]).await;
    server.fault("get_bot_qrcode", 1, Fault::Html { code: 502 });
    let output = login(&server, home().path(), &[], "").await;
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stderr(&output), @"error: cannot log in to Weixin: get_bot_qrcode was answered with HTTP 502");
}
