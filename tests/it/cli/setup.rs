//! `hermes setup` without a service: what is asked, what is tried, and what is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use super::{json_of, run_with_input, stderr, stdout};
use crate::support::dingtalk::DingTalkServer;
use crate::support::telegram::TelegramServer;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Runs it with these answers; the server goes on meanwhile.
async fn setup(home: &Path, arguments: &[&str], answers: &str) -> Output {
    let words = [&["setup", "--no-install"], arguments].concat();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let (home, answers) = (home.to_owned(), answers.to_owned());
    let run = move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run_with_input(&home, &words, &answers)
    };
    tokio::task::spawn_blocking(run).await.expect("it runs")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn config(home: &Path) -> String {
    fs::read_to_string(home.join("gateway.toml")).expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_tried_and_kept() {
    let (server, home) = (TelegramServer::start().await, home());
    let (url, token) = (server.url(), server.token());
    let output =
        setup(home.path(), &["--api-url", &url], &format!("telegram\n{token}\n1001\n1002, 1003\necho\n")).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("The token is that of @"), "{}", stderr(&output));
    for said in [stdout(&output), stderr(&output), config(home.path())] {
        assert!(!said.contains(&token), "the token is told: {said}");
    }
    let expected = format!(
        "[platforms.telegram]\ntoken_file = \"telegram-token\"\napi_url = \"{url}\"\nallow_from = [\"1002\", \"1003\"]\n\
         allow_admin_from = [\"1001\"]\n\n[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n"
    );
    assert_eq!(config(home.path()), expected);
    assert_eq!(fs::read_to_string(home.path().join("telegram-token")).expect("written"), format!("{token}\n"));
    for name in ["gateway.toml", "telegram-token"] {
        assert_eq!(mode(&home.path().join(name)), 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_platform_refuses_changes_nothing() {
    let (server, home) = (TelegramServer::start().await, home());
    let url = server.url();
    let output = setup(home.path(), &["--api-url", &url], "telegram\n1:wrong\n\necho\n").await;
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("error: Telegram refuses it") && told.contains("--no-check"), "{told}");
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0, "nothing is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_dingtalk_is_tried_and_flags_answer_every_question() {
    let (server, home) = (DingTalkServer::start().await, home());
    let (id, secret) = server.look(|state| (state.client_id.clone(), state.client_secret.clone()));
    let file = home.path().join("secret.txt");
    fs::write(&file, &secret).expect("writes");
    let (url, file) = (server.url(), file.to_str().expect("a plain path").to_owned());
    let flags =
        ["--yes", "--json", "--platform", "dingtalk", "--client-id", &id, "--secret-file", &file, "--api-url", &url];
    let output = setup(home.path(), &[&flags[..], &["--admin", "ann", "--agent", "my-agent --acp"]].concat(), "").await;
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let document = json_of(&output);
    assert_eq!((document["agent"].as_str(), document["running"].as_bool()), (Some("my-agent --acp"), Some(false)));
    let text = config(home.path());
    assert!(
        text.contains("client_secret_file = \"dingtalk-secret\"") && text.contains("[\"my-agent\", \"--acp\"]"),
        "{text}"
    );

    let wrong = ["--client-id", &id, "--secret-file", "/dev/null"];
    let output = setup(home.path(), &[&["--yes", "--platform", "dingtalk"], &wrong[..]].concat(), "").await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(config(home.path()), text);
}

#[tokio::test]
async fn what_is_configured_stays_and_what_would_be_refused_is_not_written() {
    let home = home();
    let present = "# mine\n[gateway]\nprobation = \"5s\" # short\n\n[agents.default]\ncommand = [\"a\"]\n";
    fs::write(home.path().join("gateway.toml"), present).expect("writes");
    let output = setup(home.path(), &[], "none\nkeep\n").await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(config(home.path()), present);

    let output = setup(home.path(), &["--no-check"], "telegram\n1:x\nann\n\nkeep\n").await;
    assert_eq!(output.status.code(), Some(78), "a user id of Telegram is a number");
    assert!(stderr(&output).contains("nothing was changed") && stderr(&output).contains("numeric user ids"));
    assert_eq!(config(home.path()), present);
    assert!(!home.path().join("telegram-token").exists());

    let elsewhere = "[platforms.telegram]\ntoken_env = \"BOT_TOKEN\"\n";
    fs::write(home.path().join("gateway.toml"), elsewhere).expect("writes");
    let output = setup(home.path(), &["--no-check"], "telegram\n1:x\n\necho\n").await;
    assert!(output.status.success(), "the new token is in the place of the other: {}", stderr(&output));
    assert!(!config(home.path()).contains("token_env"), "{}", config(home.path()));

    fs::write(home.path().join("gateway.toml"), "[gateway\ntoken = \"hidden-value\"").expect("writes");
    let output = setup(home.path(), &[], "none\necho\n").await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not TOML") && !stderr(&output).contains("hidden"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_model_is_asked_for_with_its_key_in_a_file() {
    let home = home();
    let answers = "none\nopenai\nhttp://127.0.0.1:9/v1\nsmall\ny\nsk-hidden\n";
    let output = setup(home.path(), &[], answers).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let key = home.path().join("openai-key");
    assert_eq!(fs::read_to_string(&key).expect("written"), "sk-hidden\n");
    assert_eq!(mode(&key), 0o600);
    let text = config(home.path());
    assert!(text.contains("\"--model\", \"small\", \"--api-key-file\"") && !text.contains("sk-"), "{text}");
}

#[tokio::test]
async fn an_answer_that_is_missing_names_its_flag() {
    let home = home();
    let output = setup(home.path(), &[], "telegram\n").await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("give --secret-file"), "{}", stderr(&output));
    let output = setup(home.path(), &["--yes", "--agent", "openai"], "").await;
    assert!(stderr(&output).contains("give --model"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0);
}

#[tokio::test]
async fn a_page_needs_no_account() {
    let home = home();
    let output = setup(home.path(), &[], "web\necho\n").await;
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = "[platforms.web]\n\n[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n";
    assert_eq!(config(home.path()), expected);
    let token = home.path().join("web-token");
    let told = format!("The page is at http://127.0.0.1:8787. Sign in with the token in {}.", token.display());
    assert!(stdout(&output).contains(&told), "{}", stdout(&output));

    fs::write(home.path().join("gateway.toml"), "[platforms.web]\nlisten = \"127.0.0.1:9\"\ntoken_env = 'WEB_TOKEN'\n")
        .expect("writes");
    let output = setup(home.path(), &["--json", "--platform", "web", "--agent", "echo"], "").await;
    assert_eq!(output.status.code(), Some(0), "the variable may be the unit's: {}", stderr(&output));
    fs::write(home.path().join("gateway.toml"), "[platforms.web]\ntoken_file = 'missing'\n").expect("writes");
    let output = setup(home.path(), &["--json", "--platform", "web", "--agent", "echo"], "").await;
    assert_eq!(output.status.code(), Some(78), "the file is not there: {}", stderr(&output));
    fs::write(home.path().join("gateway.toml"), "[platforms.web]\nlisten = \"127.0.0.1:9\"\n").expect("writes");
    let output = setup(home.path(), &["--json", "--platform", "web", "--agent", "echo"], "").await;
    assert_eq!(json_of(&output)["page"], "http://127.0.0.1:9", "{}", stderr(&output));
}
