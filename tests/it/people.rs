//! What people see in chats: pauses, pairing, words of restarts, and buttons; with the whole gateway as a plain process.

mod restarts;

use std::path::Path;
use std::time::Duration;

use hermes_gateway::chat::{LinkState, Notice, OutboundContent};
use hermes_gateway::control::proto::{HandoffKind, PairingEntry, PlatformChange, PlatformStatus};
use serde_json::Value;

use crate::support::gateway::{Chat, Gateway};
use crate::support::telegram::TelegramServer;

pub const USER: i64 = 1002;
pub const ADMIN: i64 = 1001;
const STRANGER: i64 = 1003;
const GROUP: i64 = -77;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hermes"))
}

fn config(telegram: &TelegramServer, keys: &str) -> String {
    format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n[platforms.telegram]\ntoken = \"{}\"\n\
         api_url = \"{}\"\nallow_from = [{USER}]\nallow_admin_from = [{ADMIN}]\n{keys}\n",
        telegram.token(),
        telegram.url(),
    )
}

async fn start(keys: &str) -> (TelegramServer, Gateway) {
    let telegram = TelegramServer::start().await;
    let gateway = Gateway::start(binary(), &config(&telegram, keys)).await;
    connected(&gateway).await;
    (telegram, gateway)
}

async fn link_is(gateway: &Gateway, wanted: LinkState) {
    let what = format!("the link is {wanted:?}");
    gateway.wait_until(&what, async |status| status.platforms.iter().any(|platform| platform.link == wanted)).await;
}

async fn connected(gateway: &Gateway) {
    link_is(gateway, LinkState::Connected).await;
}

async fn until_says(telegram: &TelegramServer, chat: i64, part: &str) -> String {
    let what = format!("{part:?} in chat {chat}");
    telegram.until(&what, |state| state.texts(chat).into_iter().find(|text| text.contains(part))).await
}

async fn json<T: serde::de::DeserializeOwned>(gateway: &Gateway, arguments: &[&str]) -> T {
    let output = gateway.cli(arguments).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Until the ledger has everything as delivered.
async fn all_delivered(gateway: &Gateway) {
    let database = rusqlite::Connection::open(gateway.home().join("state.db")).expect("opens");
    let open = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'attempting')";
    let delivered = async {
        while database.query_row(open, [], |row| row.get::<_, i64>(0)).expect("reads") > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), delivered).await.expect("it is delivered in time");
}

async fn refusal(gateway: &Gateway, arguments: &[&str]) -> (String, String) {
    let output = gateway.cli(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let text = |key: &str| error["error"][key].as_str().expect("a text").to_owned();
    (text("code"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_platform_stays_so_over_handoffs_and_kills_until_it_is_resumed() {
    let (telegram, mut gateway) = start("").await;
    let paused: PlatformChange = json(&gateway, &["gateway", "platform", "pause", "telegram", "--json"]).await;
    assert_eq!((paused.paused, paused.changed), (true, true));
    link_is(&gateway, LinkState::Paused).await;
    let again: PlatformChange = json(&gateway, &["gateway", "platform", "pause", "telegram", "--json"]).await;
    assert!(!again.changed);
    telegram.say(USER, USER, "hello");
    gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    link_is(&gateway, LinkState::Paused).await;
    gateway.kill_and_start().await;
    link_is(&gateway, LinkState::Paused).await;
    let listed: Vec<PlatformStatus> = json(&gateway, &["gateway", "platform", "list", "--json"]).await;
    assert_eq!(listed.iter().map(|platform| &platform.link).collect::<Vec<_>>(), [&LinkState::Paused]);
    assert_eq!(gateway.state_file()["gateway_state"], "running", "it was meant to be paused");
    assert_eq!(telegram.texts(USER), [""; 0], "nothing was taken in");
    let resumed: PlatformChange = json(&gateway, &["gateway", "platform", "resume", "telegram", "--json"]).await;
    assert_eq!((resumed.paused, resumed.changed), (false, true));
    until_says(&telegram, USER, "hello").await;
    connected(&gateway).await;
    // What was shown and is not recorded as such may be shown again, marked.
    all_delivered(&gateway).await;
    gateway.kill_and_start().await;
    connected(&gateway).await;
    assert_eq!(telegram.texts(USER), ["hello"]);
    let (code, message) = refusal(&gateway, &["gateway", "platform", "pause", "irc", "--json"]).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("invalid", "'irc' is no platform that can be paused. There are: telegram")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platform_one_is_on_is_paused_only_knowingly() {
    let (telegram, gateway) = start("").await;
    let mut chat = gateway.chat("main").await;
    telegram.say(USER, USER, "/platform pause telegram");
    until_says(&telegram, USER, "This command is for admins.").await;
    telegram.say(ADMIN, ADMIN, "/platform pause telegram");
    let warning = until_says(&telegram, ADMIN, "/platform pause telegram here").await;
    assert!(warning.contains("hermes gateway platform resume telegram"), "{warning}");
    connected(&gateway).await;
    telegram.say(ADMIN, ADMIN, "/platform pause telegram here");
    link_is(&gateway, LinkState::Paused).await;
    chat.say("/platform list").await;
    chat.notice("platform telegram: paused; /platform resume telegram lets it go on").await;
    chat.say("/platform pause local").await;
    chat.notice("'local' is no platform that can be paused. There are: telegram").await;
    chat.say("/platform resume telegram").await;
    chat.notice("▶ telegram goes on.").await;
    chat.say("/platform resume telegram").await;
    chat.notice("telegram is not paused.").await;
    connected(&gateway).await;
    assert_eq!(telegram.texts(ADMIN), [warning]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_unknown_is_let_in_by_their_code_until_that_is_revoked() {
    let (telegram, mut gateway) = start("").await;
    telegram.say(STRANGER, GROUP, "hello all");
    telegram.say(STRANGER, STRANGER, "hello");
    let told = until_says(&telegram, STRANGER, "hermes pairing approve telegram ").await;
    let code = told.lines().nth(1).expect("it has its line").to_owned();
    let asked: Vec<PairingEntry> = json(&gateway, &["pairing", "list", "--json"]).await;
    assert_eq!((asked[0].user.as_str(), asked[0].state.as_str()), (&*STRANGER.to_string(), "asked"));
    assert_eq!(asked[0].code.as_ref(), Some(&code));
    let (kind, message) = refusal(&gateway, &["pairing", "approve", "telegram", "AAAAAAAA", "--json"]).await;
    assert!(kind == "invalid" && message.contains("4 more"), "{kind}: {message}");
    gateway.kill_and_start().await;
    let approved: PairingEntry = json(&gateway, &["pairing", "approve", "telegram", &code, "--json"]).await;
    assert_eq!((approved.user, approved.state.as_str()), (STRANGER.to_string(), "approved"));
    until_says(&telegram, STRANGER, "✅ You may talk to this bot now.").await;
    telegram.say(STRANGER, STRANGER, "may I?");
    until_says(&telegram, STRANGER, "may I?").await;
    telegram.say(STRANGER, STRANGER, "/restart");
    until_says(&telegram, STRANGER, "This command is for admins.").await;
    gateway.kill_and_start().await;
    telegram.say(STRANGER, STRANGER, "still?");
    until_says(&telegram, STRANGER, "still?").await;
    // Without a gateway it is done in the store.
    gateway.terminate();
    let text = gateway.cli(&["pairing", "list"]).await;
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("approved") && text.contains(&format!("(id {STRANGER})")), "{text}");
    let user = STRANGER.to_string();
    let revoked: PairingEntry = json(&gateway, &["pairing", "revoke", "telegram", &user, "--json"]).await;
    assert_eq!(revoked.user, user);
    let none: Vec<PairingEntry> = json(&gateway, &["pairing", "list", "--json"]).await;
    assert!(none.is_empty());
    gateway.start_again().await;
    telegram.say(STRANGER, STRANGER, "and now?");
    telegram
        .until("another code", |state| {
            let codes = state.texts(STRANGER).iter().filter(|text| text.contains("hermes pairing approve")).count();
            (codes == 2).then_some(())
        })
        .await;
    assert!(telegram.texts(STRANGER).iter().all(|text| text != "and now?"));
    assert_eq!(telegram.texts(GROUP), [""; 0], "in a group nothing is said");
    let log = gateway.log();
    assert!(!log.contains(&code), "a code is in no log: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approving_is_locked_after_five_wrong_codes_also_for_the_right_one() {
    let (telegram, mut gateway) = start("language = \"zh-CN\"").await;
    telegram.say(STRANGER, STRANGER, "hello");
    let told = until_says(&telegram, STRANGER, "hermes pairing approve telegram ").await;
    assert!(told.starts_with("你还没有权限使用这个机器人。"), "{told}");
    let code = told.lines().nth(1).expect("it has its line").to_owned();
    for left in [4, 3, 2, 1] {
        let (_, message) = refusal(&gateway, &["pairing", "approve", "telegram", "WRONG", "--json"]).await;
        assert!(message.contains(&format!("{left} more")), "{message}");
    }
    gateway.terminate();
    for code in ["WRONG", &code] {
        let (kind, message) = refusal(&gateway, &["pairing", "approve", "telegram", code, "--json"]).await;
        assert!(kind == "forbidden" && message.contains("another 60 min"), "{kind}: {message}");
    }
    gateway.start_again().await;
    let (kind, _) = refusal(&gateway, &["pairing", "approve", "telegram", &code, "--json"]).await;
    assert_eq!(kind, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pairing_somebody_unknown_is_told_once_that_they_may_not_talk() {
    let (telegram, gateway) = start("pairing = false").await;
    telegram.say(STRANGER, STRANGER, "hello");
    until_says(&telegram, STRANGER, "You may not talk to this bot. Your id here is 1003.").await;
    telegram.say(STRANGER, STRANGER, "hello?");
    telegram.say(USER, USER, "after it");
    until_says(&telegram, USER, "after it").await;
    assert_eq!(telegram.texts(STRANGER).len(), 1);
    let none: Vec<PairingEntry> = json(&gateway, &["pairing", "list", "--json"]).await;
    assert!(none.is_empty());
}

/// The next thing that is asked in a local chat, with its buttons.
async fn asked(chat: &mut Chat) -> Notice {
    loop {
        if let OutboundContent::Notice(notice) = chat.next().await
            && notice.text.starts_with("🔐")
        {
            return notice;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_button_that_is_pressed_late_answers_nothing_else() {
    let telegram = TelegramServer::start().await;
    let mut gateway = Gateway::start(binary(), &config(&telegram, "")).await;
    let mut chat = gateway.chat("main").await;
    chat.say("ask touch it").await;
    let first = asked(&mut chat).await;
    let [yes, .., no] = &first.choices[..] else { panic!("{first:?}") };
    assert!(yes.command.starts_with("/approve 1.") && no.command.starts_with("/deny 1."), "{first:?}");
    gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    chat.say(&yes.command).await;
    assert_eq!(chat.answer(async |_, _| {}).await.text, "chosen: yes");
    gateway.kill_and_start().await;
    let mut chat = gateway.chat("main").await;
    chat.say("ask touch another").await;
    let second = asked(&mut chat).await;
    assert_eq!(second.choices[0].command, yes.command.replace("1.", "2."), "the count goes on after a kill");
    chat.say(&yes.command).await;
    chat.notice("⌛ That is no longer to be answered.").await;
    chat.say(&no.command).await;
    chat.notice("⌛ That is no longer to be answered.").await;
    chat.say(&second.choices.last().expect("it can be denied").command).await;
    assert_eq!(chat.answer(async |_, _| {}).await.text, "chosen: no");
}
