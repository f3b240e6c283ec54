use super::*;

/// Everything that can be said, with a name; long enough to hold all variants.
fn everything(words: &dyn Words) -> String {
    let mut all = Vec::new();
    let mut say = |name: &str, text: String| all.push(format!("[{name}]\n{text}"));
    people(words, &mut say);
    turns(words, &mut say);
    handoffs(words, &mut say);
    states(words, &mut say);
    all.join("\n")
}

fn people(words: &dyn Words, say: &mut dyn FnMut(&str, String)) {
    say("help", words.help());
    for item in MenuItem::ALL {
        say(&format!("menu_item {}", item.command()), words.menu_item(item).to_owned());
    }
    say("stranger", words.stranger("1003"));
    say("pairing_code", words.pairing_code("ABCD2345", "telegram"));
    say("pairing_approved", words.pairing_approved().to_owned());
    say("not_admin", words.not_admin().to_owned());
    say("usage", words.usage("/stop"));
    say("one_argument", words.one_argument().to_owned());
    let conversation = Conversation { thread: Some("7".to_owned()), ..Conversation::new("telegram", "-100") };
    say("whoami", words.whoami("Ann", "1001", true, &conversation));
    say("whoami user", words.whoami("Ann", "1001", false, &conversation));
    say("unknown_platform", words.unknown_platform("irc", &["dingtalk", "telegram"]));
    say("unknown_platform none", words.unknown_platform("irc", &[]));
    for what in [Paused::Now, Paused::Already, Paused::GoesOn, Paused::WasNot, Paused::Here] {
        say(&format!("paused {what:?}"), words.paused("telegram", what));
    }
    say("pause_failed", words.pause_failed("telegram", "the database could not commit"));
}

fn turns(words: &dyn Words, say: &mut dyn FnMut(&str, String)) {
    say("interrupted", words.reply_failed(words.interrupted()));
    say("stopping", words.reply_failed(words.stopping()));
    for reason in ["max_tokens", "max_turn_requests", "refusal", "bored"] {
        say(&format!("stop_reason {reason}"), words.reply_failed(&words.stop_reason(reason)));
    }
    say("command_lost", words.command_lost("/restart"));
    say("stale", words.stale().to_owned());
    say("database_damaged", words.database_damaged("/h/state.db.damaged-1"));
    say("agent_gone", words.agent_gone("coder", "default"));
    say("session_lost", words.session_lost().to_owned());
    say("agent_down", words.agent_down("default", "exit code 1", Duration::from_secs(4)));
    say("queue_full", words.queue_full(32));
    say("nothing_to_stop", words.nothing_to_stop().to_owned());
    say("nothing_to_retry", words.nothing_to_retry().to_owned());
    say("new_session", words.new_session("coder"));
    say("new_while_running", words.new_while_running().to_owned());
    say("unknown_agent", words.unknown_agent("x", &["coder", "default"]));
    let answers =
        [("/approve 17.1", "Allow"), ("/deny 17.2", "Reject")].map(|(command, name)| (command.to_owned(), name));
    let answers = answers.map(|(command, name)| Answer { command, name });
    say("permission", words.permission(false, "rm -r build", &answers));
    say("permission again", words.permission(true, "rm -r build", &answers));
    say("deny", words.deny().to_owned());
    for why in [Expired::TurnOver, Expired::AgentEnded, Expired::Unanswered(Duration::from_secs(3600))] {
        say(&format!("permission_expired {why:?}"), words.permission_expired("rm -r build", why));
    }
    say("permission_gone", words.permission_gone().to_owned());
    say("no_such_option", words.no_such_option().to_owned());
    say("answered", words.answered("rm -r build", Some("Allow")));
    say("answered no", words.answered("rm -r build", None));
    say("nothing_to_answer", words.nothing_to_answer().to_owned());
    say("recovered", words.recovered().to_owned());
    say("sent_again", words.sent_again().to_owned());
    say("no_answer", words.no_answer().to_owned());
    say("cut", words.cut().to_owned());
    say("reply_stopped", words.reply_stopped().to_owned());
}

fn handoffs(words: &dyn Words, say: &mut dyn FnMut(&str, String)) {
    let kinds = ["restart", "reload", "update", "revert"];
    for kind in kinds {
        say(&format!("handoff_begins {kind}"), words.handoff_begins(kind).to_owned());
        let done = Done { kind, from: "1.4.0", to: "1.5.0", pid: 42, turns: 3, blackout_us: 4_321, is_dry_run: false };
        say(&format!("handoff_done {kind}"), words.handoff_done(&done));
        say(&format!("handoff_failed {kind}"), words.handoff_failed(kind, "no space left on device", "1.4.0"));
        let back = Back { kind, failed: "1.5.0", reason: "it crashed", running: "1.4.0", pid: 42, turns: 1 };
        say(&format!("came_back {kind}"), words.came_back(&back));
        say(&format!("restarted_anew {kind}"), words.restarted_anew(kind, 42));
        say(&format!("handoff_stopped {kind}"), words.handoff_stopped(kind, "SIGTERM"));
        let why = Restart::Asked { kind: kind.to_owned(), from: "1.4.0".to_owned(), to: "1.5.0".to_owned() };
        say(&format!("restarted {kind}"), words.restarted(&why, true));
    }
    let went_back = Restart::WentBack { from: "1.5.0".to_owned(), to: "1.4.0".to_owned() };
    say("restarted back", words.restarted(&went_back, true));
    say("restarted stopped", words.restarted(&Restart::Stopped, true));
    say("restarted crashed", words.restarted(&Restart::Crashed, true));
    say("restarted crashed and lost", words.restarted(&Restart::Crashed, false));
    let dry = Done { kind: "update", from: "1.4.0", to: "1.5.0", pid: 42, turns: 0, blackout_us: 0, is_dry_run: true };
    say("handoff_done dry", words.handoff_done(&dry));
    say("updated_anew", words.updated_anew("1.4.0", "1.5.0", 42));
    for (kind, hurries) in [("update", false), ("restart", true), ("rollback", false)] {
        let busy = Busy::UnderWay { kind, who: "Ann (id 1)".to_owned(), phase: "drain", secs: 7, hurries };
        say(&format!("not_now {kind}"), words.not_now(&busy));
    }
    say("not_now agent", words.not_now(&Busy::AgentLeaves("coder".to_owned())));
    let steps = [Step::Looking, Step::Downloading(None), Step::Downloading(Some(5_000_001)), Step::Verifying];
    for step in steps.into_iter().chain([Step::Unpacking, Step::Staged, Step::Waiting(waiting())]) {
        say(&format!("step {step:?}"), words.step(&step));
    }
    let found = [
        Found::Newer("1.5.0".to_owned()),
        Found::FailedBefore("1.5.0".to_owned(), "it crashed".to_owned()),
        Found::Nothing,
        Found::Unknown("no answer".to_owned()),
    ];
    for found in found {
        say(&format!("found {found:?}"), words.found(&found, "1.4.0"));
    }
    say("available", words.available("1.5.0", "1.4.0", None));
    let notes = words.available("1.5.0", "1.4.0", Some("https://10.0.0.1/1.5.0"));
    say("available with notes", notes);
    say("by_itself", words.by_itself("…"));
    let until = "2026-12-24 00:00";
    for what in [Held::Until(None), Held::Until(Some(until)), Held::GoesOn, Held::WasNot, Held::Failed("…")] {
        say(&format!("held {what:?}"), words.held(what));
    }
    let updates = Updates {
        applies: true,
        window: Some("02:00-05:00"),
        available: Some("1.5.0"),
        deferred: Some(25),
        held: Some(Some(until)),
        error: Some("no answer"),
        next_check: Some(Duration::from_secs(61)),
    };
    let none = Updates {
        applies: false,
        window: None,
        available: None,
        deferred: None,
        held: Some(None),
        error: None,
        next_check: None,
    };
    say("updates", words.updates(&updates));
    say("updates on request", words.updates(&none));
}

fn states(words: &dyn Words, say: &mut dyn FnMut(&str, String)) {
    say("version", words.version("1.4.0", 2));
    say("digest_unknown", words.digest_unknown().to_owned());
    let phases = ["serving", "probation", "stage", "preflight", "drain", "quiesce", "seal", "exec", "adopt"];
    for phase in phases {
        let waiting = (phase == "drain").then(waiting);
        let up = Duration::from_secs(61);
        let state = State { version: "1.4.0", generation: 2, pid: 42, up, phase, waiting };
        say(&format!("state {phase}"), words.state(&state));
    }
    say("queued", words.queued(2));
    for (state, error) in [("starting", None), ("ready", None), ("down", Some("exit code 1"))] {
        let agent = AgentState { name: "default", title: Some("Echo"), state, turns: 1, error };
        say(&format!("agent_line {state}"), words.agent_line(&agent));
    }
    let (error_code, error_message) = ("502".to_owned(), "bad gateway".to_owned());
    let links = [
        LinkState::Connecting,
        LinkState::Connected,
        LinkState::Paused,
        LinkState::Retrying {
            error_code: error_code.clone(),
            error_message: error_message.clone(),
            next_attempt_at: crate::clock::UnixMillis(0),
        },
        LinkState::Fatal { error_code, error_message },
    ];
    for link in links {
        say("platform_line", words.platform_line("telegram", &link, Duration::from_secs(8)));
    }
}

fn waiting() -> Wait {
    Wait { platforms: vec!["telegram".to_owned(), "weixin".to_owned()], waited: 2, left: 3 }
}

#[test]
fn everything_that_is_said_in_english() {
    insta::assert_snapshot!(everything(Language::En.words()));
}

#[test]
fn everything_that_is_said_in_chinese() {
    insta::assert_snapshot!(everything(Language::ZhCn.words()));
}

/// A sentence that was forgotten in a translation would be English: words of three letters and more are commands, names
/// or what came from a program.
#[test]
fn nothing_in_chinese_is_left_in_english() {
    let chinese = everything(Language::ZhCn.words());
    let names = [
        "hermes", "gateway", "telegram", "dingtalk", "weixin", "irc", "pairing", "approve", "platform", "pause",
        "resume", "NAME", "AGENT", "VERSION", "here", "check", "force", "revert", "PID", "default", "coder", "Echo",
        "Ann", "TIME", "DATE", "hold", "unhold", "https", "Allow", "Reject", "build", "SIGTERM", "exit", "code", "bad",
        "the", "database", "could", "not", "commit", "space", "left", "device", "crashed", "answer", "bored", "state",
        "damaged", "ABCD2345", "help",
    ];
    let is_command = |word: &str| chinese.contains(&format!("/{word}"));
    let left: Vec<&str> = chinese
        .lines()
        .filter(|line| !line.starts_with('['))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter(|word| word.len() >= 3 && word.starts_with(|c: char| c.is_ascii_alphabetic()))
        .filter(|word| !names.contains(word) && !is_command(word))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_language_is_known_by_its_tag_alone() {
    for language in Language::ALL {
        assert_eq!(Language::parse(language.tag()), Some(language));
        assert_eq!(serde_json::to_value(language).expect("a tag"), language.tag());
    }
    for tag in ["", "EN", "zh", "zh_CN", "de"] {
        assert_eq!(Language::parse(tag), None);
    }
}

#[test]
fn small_times_have_two_digits_that_mean_something() {
    assert_eq!([0, 950, 9_999, 10_000, 123_456].map(millis), ["0.0 ms", "0.9 ms", "9.9 ms", "10 ms", "123 ms"]);
}
