//! Updates that nobody asks for, and what admins are told of them: a real gateway, real releases, and chats of all
//! platforms.
//!
//! When something is due is decided by `update::schedule`, whose tests have the clock in their hands; here is that what is
//! decided is done.

mod offline;

use std::fs;
use std::path::Path;

use hermes_gateway::control::proto::{Status, UpdateCheck};
use hermes_gateway::update::Versions;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use crate::support::dingtalk::DingTalkServer;
use crate::support::dingtalk::state::State as DingTalkState;
use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::release::{Fault, Publisher, ReleaseServer, pack, release};
use crate::support::telegram::TelegramServer;
use crate::support::weixin::WeixinServer;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const ADMIN: i64 = 1001;
const STAFF: &str = "manager4711";
const CONTACT: &str = "admin@im.wechat";

/// A gateway 1.0.0 that is installed, with a publisher of releases and a Telegram.
struct Scene {
    telegram: TelegramServer,
    publisher: Publisher,
    server: ReleaseServer,
    gateway: Gateway,
}

impl Scene {
    async fn start(keys: &str) -> Self {
        Self::start_with(keys, "").await
    }

    /// With `keys` of `[update]` and other sections.
    async fn start_with(keys: &str, sections: &str) -> Self {
        let telegram = TelegramServer::start().await;
        let publisher = Publisher::new();
        // Nothing is released yet.
        fs::write(publisher.path("manifest.json"), r#"{"schema":1,"releases":[]}"#).expect("writes");
        let server = ReleaseServer::start(publisher.dir.path()).await;
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        let path = install(home.path());
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n[gateway]\nprobation = \"3s\"\n\
             [platforms.telegram]\ntoken = \"{}\"\napi_url = \"{}\"\nallow_admin_from = [{ADMIN}]\n{sections}\n\
             [update]\nmanifest_url = \"{}\"\nverifying_keys = [\"{}\"]\ncheck_every = \"1m\"\n{keys}\n",
            telegram.token(),
            telegram.url(),
            server.url("manifest.json"),
            publisher.public_key(),
        );
        Self { gateway: Gateway::start_in(home, &path, &config).await, telegram, publisher, server }
    }

    /// Publishes what can take over.
    fn release(&self, version: &str) {
        self.publisher.release(version, &fs::read(BINARY).expect("the binary is built"));
    }

    /// Somebody looks for releases, which the gateway hears of, too.
    async fn look(&self) -> UpdateCheck {
        let output = self.gateway.cli(&["self-update", "--check", "--json"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("one document")
    }

    async fn serves(&self, version: &str) {
        let what = format!("{version} serves");
        self.gateway
            .wait_until(&what, async |status| status.image.version == version && status.phase == "serving")
            .await;
    }

    async fn until_told(&self, part: &str) -> String {
        let what = format!("{part:?} is told to the admin");
        self.telegram.until(&what, |state| state.texts(ADMIN).into_iter().find(|text| text.contains(part))).await
    }

    fn told(&self, part: &str) -> usize {
        self.telegram.texts(ADMIN).iter().filter(|text| text.contains(part)).count()
    }

    /// Until the gateway has acted upon what it knows, as far as it will: it has looked at its clock since.
    async fn settled(&self) -> Status {
        let mut settled = None;
        let before = self.gateway.status().await.update.last_check_at;
        self.look().await;
        self.gateway
            .wait_until("it has heard of the look", async |status| {
                settled = Some(status.clone());
                status.update.last_check_at > before
            })
            .await;
        settled.expect("it was waited for")
    }
}

/// Installs this binary as 1.0.0.
fn install(home: &Path) -> std::path::PathBuf {
    let versions = Versions::new(home);
    let installed = "1.0.0".parse().expect("a version");
    let path = versions.path(&installed);
    fs::create_dir_all(path.parent().expect("a parent")).expect("creates it");
    fs::copy(BINARY, &path).expect("installs it");
    versions.set_current(&installed).expect("it is there");
    path
}

/// A window in local time that begins in so many hours, and lasts for as many.
fn window(begins_in: i64, hours: i64) -> String {
    let time = |hours: i64| {
        let at = Timestamp::now() + hours.hours();
        jiff::tz::TimeZone::system().to_datetime(at).strftime("%H:%M").to_string()
    };
    format!("window = \"{}-{}\"", time(begins_in), time(begins_in + hours))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_of_every_platform_are_told_once_of_each_release() {
    let (dingtalk, weixin) = (DingTalkServer::start().await, WeixinServer::start().await);
    let (client_id, client_secret) = dingtalk.look(|state| (state.client_id.clone(), state.client_secret.clone()));
    let sections = format!(
        "[platforms.dingtalk]\nclient_id = \"{client_id}\"\nclient_secret = \"{client_secret}\"\napi_url = \"{0}\"\n\
         oapi_url = \"{0}\"\nallow_admin_from = [\"{STAFF}\"]\n[platforms.weixin]\naccount_id = \"testbot@im.bot\"\n\
         token = \"{1}\"\nbase_url = \"{2}\"\ncdn_url = \"{3}\"\nallow_admin_from = [\"{CONTACT}\"]\n\
         language = \"zh-CN\"\n",
        dingtalk.url(),
        weixin.token(),
        weixin.url(),
        weixin.cdn_url(),
    );
    let mut scene = Scene::start_with("auto = \"notify\"", &sections).await;
    scene.publisher.release("1.1.0", b"the new image");
    // Nobody asks: the gateway looks by itself.
    let told = scene.until_told("1.1.0 is available").await;
    assert_eq!(
        told,
        "🆕 hermes 1.1.0 is available; 1.0.0 runs. /update installs it.\nNotes: https://example.org/notes/1.1.0"
    );
    dingtalk
        .until("the admin on DingTalk is told", |state| told_to(&state.texts(&DingTalkState::direct_chat(STAFF))))
        .await;
    weixin.until("the admin on Weixin is told", |state| told_to(&state.texts(CONTACT))).await;

    scene.gateway.kill_and_start().await;
    scene.settled().await;
    scene.publisher.release("1.2.0", b"a newer one");
    scene.look().await;
    scene.until_told("1.2.0 is available").await;
    assert_eq!(scene.told("1.1.0 is available"), 1, "{:?}", scene.telegram.texts(ADMIN));
    let status = scene.gateway.status().await;
    assert_eq!((status.image.version.as_str(), status.generation), ("1.0.0", 0), "nothing is installed");
    assert_eq!(status.update.available.as_deref(), Some("1.2.0"));
    assert!(!scene.gateway.log().contains("panicked"), "{}", scene.gateway.log());
}

fn told_to(texts: &[String]) -> Option<()> {
    texts.iter().any(|text| text.contains("1.1.0") && text.contains("1.0.0")).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_installed_in_its_window_by_the_usual_way_and_admins_are_told() {
    let scene = Scene::start(&format!("auto = \"apply\"\n{}", window(-3, 6))).await;
    let before = scene.gateway.status().await;
    let mut chat = scene.gateway.chat("main").await;
    chat.say(&stream_prompt(300, 20, 20)).await;
    scene.gateway.wait_until("a turn runs", async |status| !status.agents[0].turns.is_empty()).await;
    scene.release("1.0.1");
    scene.look().await;
    scene.serves("1.0.1").await;
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!(answer.text, expected_stream(300, 20), "no turn dies for it");

    let after = scene.gateway.status().await;
    assert_eq!((after.pid, after.agents[0].pid), (before.pid, before.agents[0].pid));
    let record = &after.handoffs[0];
    assert_eq!((record.kind.as_str(), record.outcome.as_str()), ("update", "committed"));
    assert_eq!((record.requested_by.as_str(), record.requested_via.as_str()), ("automatic", "schedule"));
    let reason = record.reason.as_deref().expect("a reason");
    assert!(reason.starts_with("[update] auto = \"apply\", window "), "{reason}");
    let told = scene.until_told("✅ updated 1.0.0 → 1.0.1").await;
    assert!(told.contains("An automatic update"), "{told}");
    assert_eq!((after.update.available, after.update.apply_at), (None, None));
    assert!(!scene.gateway.log().contains("panicked"), "{}", scene.gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_the_window_a_release_waits_and_a_person_need_not() {
    let scene = Scene::start(&format!("auto = \"apply\"\n{}", window(5, 2))).await;
    scene.release("1.0.1");
    scene.look().await;
    let status = scene.settled().await;
    let opens_in = status.update.apply_at.expect("it will be").0 - Timestamp::now().as_millisecond();
    assert!((3 * 3_600_000..7 * 3_600_000).contains(&opens_in), "{opens_in}");
    assert_eq!((status.generation, status.handoffs.len()), (0, 0));
    let shown = scene.gateway.cli(&["gateway", "status"]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("  updates  apply, channel stable, window ") && shown.contains("1.0.1 is available"),
        "{shown}"
    );
    let output = scene.gateway.cli(&["self-update", "--yes"]).await;
    assert!(output.status.success(), "{output:?}");
    scene.serves("1.0.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_the_process_and_stops_nobody_who_asks() {
    let mut scene = Scene::start("auto = \"apply\"").await;
    scene.telegram.say(ADMIN, ADMIN, "/update hold soon");
    scene.until_told("❌ Updates go on as before: 'soon' is neither a time").await;
    scene.telegram.say(ADMIN, ADMIN, "/update hold 7d");
    scene.until_told("⏸ Nothing is updated by itself until 20").await;
    scene.release("1.0.1");
    let found = scene.look().await;
    assert_eq!((found.available.as_deref(), found.channel.as_str()), (Some("1.0.1"), "stable"));
    assert!(found.held.is_some_and(|held| held.until.is_some() && held.by.contains("1001")));
    scene.gateway.kill_and_start().await;
    let status = scene.settled().await;
    assert_eq!((status.generation, status.handoffs.len()), (0, 0), "{}", scene.gateway.log());
    scene.telegram.say(ADMIN, ADMIN, "/status");
    scene.until_told("updates: by themselves, held until ").await;

    let output = scene.gateway.cli(&["self-update", "--yes"]).await;
    assert!(output.status.success(), "{output:?}");
    scene.serves("1.0.1").await;
    scene.release("1.0.2");
    let status = scene.settled().await;
    assert_eq!(status.image.version, "1.0.1", "still held");
    let output = scene.gateway.cli(&["self-update", "--unhold", "--json"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("one document")["held"], Value::Null);
    scene.serves("1.0.2").await;
    scene.telegram.say(ADMIN, ADMIN, "/update hold");
    scene.until_told("⏸ Nothing is updated by itself until /update unhold.").await;
    scene.telegram.say(ADMIN, ADMIN, "/update unhold");
    scene.until_told("▶ Updates are no longer held.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_release_comes_by_itself_once_its_stage_has_this_installation() {
    let scene = Scene::start("auto = \"apply\"\nchannel = \"beta\"").await;
    let binary = fs::read(BINARY).expect("the binary is built");
    let of = |version: &str, channel: &str, rollout| pack::Release {
        channel: hermes_gateway::config::Channel::parse(channel),
        rollout,
        ..release(version)
    };
    scene.publisher.publish(&of("1.0.1", "beta", Some(0)), &binary);
    scene.publisher.publish(&of("1.9.0", "nightly", None), b"for others");
    let found = scene.look().await;
    let rollout = found.rollout.expect("it is staged");
    assert_eq!((found.available.as_deref(), rollout.percent, rollout.included), (Some("1.0.1"), 0, Some(false)));
    let status = scene.settled().await;
    assert_eq!((status.generation, status.update.apply_at), (0, None));
    let deferred = status.update.deferred.expect("it waits for its stage");
    assert_eq!((status.update.available.as_deref(), deferred.percent), (Some("1.0.1"), 0));

    // What is for all is not held up by what is not for this one.
    scene.publisher.publish(&of("1.0.2", "stable", Some(0)), &binary);
    pack::set_rollout(scene.publisher.dir.path(), &"1.0.1".parse().expect("a version"), 100).expect("writes");
    scene.look().await;
    scene.serves("1.0.1").await;
    let status = scene.settled().await;
    assert_eq!((status.image.version.as_str(), status.update.available.as_deref()), ("1.0.1", Some("1.0.2")));
    scene.telegram.say(ADMIN, ADMIN, "/update");
    scene.serves("1.0.2").await;
    assert_eq!(scene.gateway.status().await.handoffs[0].requested_by, "User 1001 (id 1001)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_is_told_once_and_not_tried_again() {
    let scene = Scene::start("auto = \"apply\"").await;
    scene.publisher.release("1.0.1", b"no program");
    scene.look().await;
    let told = scene.until_told("❌ The update failed: ").await;
    assert!(told.contains("1.0.0 goes on as before.") && told.contains("An automatic update"), "{told}");
    let status = scene.settled().await;
    assert_eq!(status.update.failed.expect("it failed").version, "1.0.1");
    let status = scene.settled().await;
    assert_eq!((status.handoffs.len(), status.update.apply_at), (1, None), "{:?}", status.handoffs);
    assert_eq!(scene.told("❌ The update failed: "), 1);
    scene.release("1.0.2");
    scene.look().await;
    scene.serves("1.0.2").await;
    assert_eq!(scene.gateway.status().await.update.failed, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_trouble_is_nobodys_failure() {
    let scene = Scene::start("auto = \"apply\"").await;
    let binary = fs::read(BINARY).expect("the binary is built");
    let archive = scene.publisher.release("1.0.1", &binary);
    scene.server.fail(&archive, Fault::Status(503));
    scene.look().await;
    scene.gateway.wait_until("it was tried", async |status| status.update.last_error.is_some()).await;
    let status = scene.gateway.status().await;
    assert!(status.update.last_error.expect("an error").contains("503"));
    assert_eq!((status.update.failed, scene.told("failed")), (None, 0), "it is tried again, so nobody is told");
    scene.server.heal();
    scene.look().await;
    scene.serves("1.0.1").await;
    scene.until_told("✅ updated 1.0.0 → 1.0.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_being_edited_is_no_fault_of_the_release() {
    let scene = Scene::start("auto = \"apply\"").await;
    let file = scene.gateway.home().join("gateway.toml");
    let config = fs::read_to_string(&file).expect("reads");
    fs::write(&file, format!("{config}\n[half")).expect("writes");
    scene.release("1.0.1");
    scene.look().await;
    scene.gateway.wait_until("it was tried", async |status| status.update.last_error.is_some()).await;
    let status = scene.gateway.status().await;
    assert!(status.update.last_error.expect("an error").contains("cannot take over (exit code 78)"));
    assert_eq!((status.update.failed, scene.told("failed")), (None, 0));
    fs::write(&file, config).expect("writes");
    scene.look().await;
    scene.serves("1.0.1").await;
}

#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_on_the_way_is_told_and_the_update_begun_again() {
    let mut scene = Scene::start("auto = \"apply\"").await;
    scene.gateway.plan_faults("staged kill\n");
    scene.release("1.0.1");
    scene.look().await;
    scene.gateway.wait();
    assert_eq!(scene.gateway.planned_faults(), "", "it was killed on the way");
    scene.gateway.start_again().await;
    scene.until_told("The process was killed during the update").await;
    scene.look().await;
    scene.serves("1.0.1").await;
    let told = scene.until_told("✅ updated 1.0.0 → 1.0.1").await;
    assert!(told.contains("An automatic update"), "{told}");
}

#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_does_not_stay_is_not_taken_again() {
    let scene = Scene::start("auto = \"apply\"").await;
    scene.gateway.plan_faults("1.0.1 adopting panic\n");
    scene.release("1.0.1");
    scene.look().await;
    let told = scene.until_told("❌ The update to 1.0.1 failed").await;
    assert!(told.contains("1.0.0 serves again") && told.contains("An automatic update"), "{told}");
    let found = scene.look().await;
    assert_eq!((found.failed_before.expect("it failed").version.as_str(), found.available), ("1.0.1", None));
    let status = scene.settled().await;
    assert_eq!(status.handoffs.len(), 1, "{:?}", status.handoffs);
    assert_eq!(scene.told("❌ The update to 1.0.1 failed"), 1);
}
