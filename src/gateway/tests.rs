use proptest::prelude::*;

use super::*;
use crate::agent::PermissionOption;
use crate::chat::{OutboundContent, Sender};
use crate::id::SessionId;
use crate::store::Change;
use crate::words::Language;

const ADMIN: &str = "1";
const USER: &str = "2";
const ADMIN_COMMANDS: [&str; 9] = [
    "/restart",
    "/update",
    "/update 2.0.0",
    "/update check",
    "/update revert",
    "/reload",
    "/platform list",
    "/platform pause telegram",
    "/platform resume telegram",
];

fn access() -> Access {
    let listed = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    Access::new([(
        "telegram".into(),
        Allowed::Listed { talk: listed(&[USER]), admin: listed(&[ADMIN]), pairing: false },
    )])
}

fn gateway() -> Gateway {
    Gateway::new(access(), [AgentName::from("default"), AgentName::from("other")])
}

fn said(sender: &str, chat: &str, text: &str) -> Inbound {
    Inbound {
        conversation: Conversation::new("telegram", chat),
        account: "bot".into(),
        message_id: "m".into(),
        sender: Sender { id: sender.into(), name: "N".into() },
        sent_at: UnixMillis(0),
        text: text.into(),
        is_direct: true,
        attachments: Vec::new(),
        context: None,
    }
}

/// Says something and returns what came of it.
fn say(gateway: &mut Gateway, turn: i64, sender: &str, text: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    gateway.inbound(TurnId(turn), said(sender, "c", text), &mut effects);
    effects
}

fn event(gateway: &mut Gateway, event: AgentEvent) -> Vec<Effect> {
    let mut effects = Vec::new();
    gateway.agent_event(event, &mut effects);
    effects
}

fn ready(gateway: &mut Gateway) -> Vec<Effect> {
    event(gateway, AgentEvent::Ready { agent: "default".into(), pid: 7, title: None })
}

fn ended(turn: i64, outcome: TurnOutcome) -> AgentEvent {
    AgentEvent::TurnEnded { turn: TurnId(turn), outcome, text: String::new(), files: Vec::new() }
}

fn end_turn() -> TurnOutcome {
    TurnOutcome::Ended { stop_reason: "end_turn".into() }
}

/// The effects in short, for comparison.
fn short(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Show(Outbound { content, .. }) => match content {
                OutboundContent::Reply { turn, step } => format!("{turn} {step:?}"),
                OutboundContent::Notice(_) => unreachable!("a notice is an effect of its own"),
            },
            Effect::Notice(_, notice) => format!("notice {}", notice.text.lines().next().unwrap_or("")),
            Effect::Start(turn, _) => format!("{turn} starts"),
            Effect::Finish { turn, text, end, .. } => format!("{turn} ends {end:?} {text:?}"),
            Effect::Close(turn) => format!("{turn} is closed"),
            Effect::Agent(agent, AgentCommand::Prompt { turn, session, text, files }) => {
                let files: String = files.iter().map(|file| format!(" +{}", file.name)).collect();
                format!("{agent} <- {turn} {:?} {text}{files}", session.as_ref().map(SessionId::as_str))
            }
            Effect::Agent(agent, command) => format!("{agent} <- {command:?}"),
            Effect::Requeue(turn, text, files) => format!("{turn} is queued as {text}{}", " +file".repeat(files.len())),
            Effect::Fetch { turn, attachments, of, .. } => format!("{turn} fetches {} {of:?}", attachments.len()),
            Effect::Session(row) => format!("session {:?}", row.session.as_ref().map(SessionId::as_str)),
            Effect::Handoff { kind, force, by } => format!("handoff {kind:?} {force} by {}", by.sender.id),
            Effect::Record(change) => format!("record {change:?}"),
            Effect::Pause { platform, pause, here, .. } => format!("pause {platform} {pause} {here}"),
            Effect::CheckUpdate(_) => "check".into(),
            Effect::Describe(_, what) => format!("describe {what:?}"),
        })
        .collect()
}

#[test]
fn a_message_becomes_a_turn_and_its_answer_is_shown() {
    let mut gateway = gateway();
    assert!(say(&mut gateway, 1, USER, "hello").is_empty(), "waits for the agent to be ready");
    assert_eq!(short(&ready(&mut gateway)), ["1 starts", "default <- 1 None hello"]);
    let opened = AgentEvent::Session { turn: TurnId(1), session: "s".into(), kept: true };
    assert_eq!(short(&event(&mut gateway, opened)), [r#"session Some("s")"#]);
    let text = AgentEvent::Update { turn: TurnId(1), update: TurnUpdate::Text("hi".into()) };
    assert_eq!(short(&event(&mut gateway, text)), [r#"1 Delta("hi")"#]);
    assert!(say(&mut gateway, 2, USER, "more").is_empty(), "one turn at a time");
    assert_eq!(
        short(&event(&mut gateway, ended(1, end_turn()))),
        [r#"1 ends Complete Some("")"#, "2 starts", r#"default <- 2 Some("s") more"#]
    );
}

#[test]
fn a_turn_goes_on_with_what_the_next_process_of_its_agent_has_kept() {
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "hello");
    let update = |update| AgentEvent::Update { turn: TurnId(1), update };
    event(&mut gateway, update(TurnUpdate::Text("hi ".into())));
    let died = AgentEvent::Died { agent: "default".into(), how: "x".into(), restart_in: Duration::from_secs(1) };
    event(&mut gateway, died);
    assert_eq!(gateway.turns_in_flight(), 1);
    ready(&mut gateway);
    let so_far = update(TurnUpdate::SoFar("hi there".into()));
    assert_eq!(short(&event(&mut gateway, so_far)), [r#"1 SoFar("hi there")"#]);
    assert_eq!(gateway.agents().next().expect("one").turns[0].answer_bytes, 8);
}

#[test]
fn the_gate_is_the_same_for_every_way() {
    let mut gateway = gateway();
    ready(&mut gateway);
    let refused = short(&say(&mut gateway, 1, "3", "/restart"));
    assert_eq!(refused, ["1 is closed", "notice You may not talk to this bot. Your id here is 3."]);
    assert_eq!(short(&say(&mut gateway, 2, "3", "again")), ["2 is closed"], "told once");
    for (turn, command) in ADMIN_COMMANDS.iter().enumerate() {
        let refused = short(&say(&mut gateway, 10, USER, command));
        assert_eq!(refused, ["10 is closed", "notice This command is for admins."], "{turn}");
    }
    assert_eq!(short(&say(&mut gateway, 20, ADMIN, "/restart force")), ["handoff Restart true by 1"]);
    assert_eq!(short(&say(&mut gateway, 21, ADMIN, "/platform pause weixin")), ["pause weixin true false"]);
    assert_eq!(short(&say(&mut gateway, 22, ADMIN, "/platform pause telegram here")), ["pause telegram true true"]);
    assert_eq!(short(&say(&mut gateway, 23, ADMIN, "/platform resume weixin")), ["pause weixin false false"]);
    assert!(short(&say(&mut gateway, 24, ADMIN, "/platform stop weixin"))[1].starts_with("notice Usage: /platform "));
}

#[test]
fn somebody_unknown_gets_a_code_alone_and_is_let_in_by_it_to_talk_only() {
    let listed = Allowed::Listed { talk: BTreeSet::new(), admin: BTreeSet::from([ADMIN.into()]), pairing: true };
    let mut gateway = Gateway::new(Access::new([("telegram".into(), listed)]), [AgentName::from("default")]);
    ready(&mut gateway);
    let mut in_group = Vec::new();
    gateway.inbound(TurnId(1), Inbound { is_direct: false, ..said("3", "g", "hi") }, &mut in_group);
    assert_eq!(short(&in_group), ["1 is closed"], "nothing is said in a group");
    let given = say(&mut gateway, 2, "3", "/restart");
    let [Effect::Close(_), Effect::Record(_), Effect::Notice(_, told)] = &given[..] else { panic!("{given:?}") };
    let told = &told.text;
    let code = told.lines().nth(1).expect("it has its line");
    assert_eq!(code.len(), pairing::CODE_CHARS);
    assert!(told.ends_with(&format!("hermes pairing approve telegram {code}")), "{told}");
    assert_eq!(short(&say(&mut gateway, 3, "3", "hello?")), ["3 is closed"], "told once");
    let approved = gateway.access().approve(&"telegram".into(), code, UnixMillis::now(), &mut Vec::new());
    assert_eq!(approved.expect("the code is open").user, "3");
    assert_eq!(short(&say(&mut gateway, 4, "3", "hello")), ["4 starts", "default <- 4 None hello"]);
    assert_eq!(short(&say(&mut gateway, 5, "3", "/restart"))[1], "notice This command is for admins.");
    gateway.access().revoke(&"telegram".into(), "3", &mut Vec::new()).expect("was let in");
    assert!(matches!(
        &say(&mut gateway, 6, "3", "hello")[..],
        [Effect::Close(_), Effect::Record(_), Effect::Notice(..)]
    ));
    for (turn, user) in [(7, "4"), (8, "5")] {
        say(&mut gateway, turn, user, "hi");
    }
    let mut full = Vec::new();
    gateway.inbound(TurnId(9), said("6", "d", "hi"), &mut full);
    assert_eq!(short(&full), ["9 is closed", "notice You may not talk to this bot. Your id here is 6."]);
}

#[test]
fn commands_run_in_the_middle_of_a_turn() {
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "hello");
    assert_eq!(short(&say(&mut gateway, 2, USER, "/stop")), ["2 is closed", "default <- Cancel { turn: TurnId(1) }"]);
    assert_eq!(short(&event(&mut gateway, ended(1, TurnOutcome::Cancelled))), [r#"1 ends Stopped Some("")"#]);
    assert_eq!(
        short(&say(&mut gateway, 3, USER, "/retry")),
        ["3 is closed", "3 is queued as hello", "3 starts", "default <- 3 None hello"]
    );
}

#[test]
fn a_permission_is_chosen_by_kind_not_by_position() {
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "hello");
    let option = |id: &str, kind: &str| PermissionOption { id: id.into(), name: id.into(), kind: kind.into() };
    let ask = |request| AgentEvent::Permission {
        turn: TurnId(1),
        request,
        title: "rm".into(),
        options: vec![option("never", "reject_always"), option("always", "allow_always"), option("once", "allow_once")],
    };
    event(&mut gateway, ask(5));
    event(&mut gateway, ask(6));
    event(&mut gateway, ask(7));
    let answer = |effects: Vec<Effect>| short(&effects)[1].clone();
    assert_eq!(
        answer(say(&mut gateway, 2, USER, "/approve")),
        r#"default <- Permission { request: 5, option: Some("once") }"#
    );
    assert!(answer(say(&mut gateway, 3, USER, "/approve 1")).contains("not one of the options"));
    assert_eq!(
        answer(say(&mut gateway, 4, USER, "/approve 2")),
        r#"default <- Permission { request: 6, option: Some("always") }"#
    );
    assert_eq!(
        answer(say(&mut gateway, 5, USER, "/deny")),
        r#"default <- Permission { request: 7, option: Some("never") }"#
    );
    assert!(answer(say(&mut gateway, 6, USER, "/approve")).contains("asks nothing"));
}

#[test]
fn an_answer_with_a_number_meets_its_own_request_or_none_also_after_a_kill() {
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "hello");
    let ask = |turn: i64, request| {
        let option = |id: &str, kind: &str| PermissionOption { id: id.into(), name: id.into(), kind: kind.into() };
        let options = vec![option("once", "allow_once"), option("no", "reject_once")];
        AgentEvent::Permission { turn: TurnId(turn), request, title: format!("rm {request}"), options }
    };
    let mut choices = Vec::new();
    for request in [5, 6] {
        let asked = event(&mut gateway, ask(1, request));
        let [Effect::Record(kept), Effect::Notice(_, notice)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(*kept, Change::Meta(ASKS_KEY, (choices.len() / 2 + 1).to_string()));
        assert!(notice.choices.iter().all(|choice| notice.text.contains(&choice.command)), "{notice:?}");
        choices.extend(notice.choices.iter().map(|choice| choice.command.clone()));
    }
    assert_eq!(choices, ["/approve 1.1", "/deny 1.2", "/approve 2.1", "/deny 2.2"]);
    let second = short(&say(&mut gateway, 2, USER, "/approve 2.1"));
    assert_eq!(second[1..], [r#"default <- Permission { request: 6, option: Some("once") }"#, "notice once: rm 6"]);
    let gone = "notice ⌛ That is no longer to be answered.";
    for late in ["/approve 2.1", "/deny 2.2", "/deny 2.0", "/approve 9.1"] {
        assert_eq!(short(&say(&mut gateway, 3, USER, late)), ["3 is closed", gone], "{late}");
    }
    assert_eq!(short(&say(&mut gateway, 4, USER, "/approve 1.2"))[1], "notice That is not one of the options.");
    let mut gateway = carried(&gateway, &["default"]);
    assert!(short(&say(&mut gateway, 5, USER, "/deny 1.0"))[1].contains(r#"request: 5, option: Some("no")"#));
    // One that was killed goes on counting where the store says.
    let mut gateway = Gateway::new(access(), [AgentName::from("default")]);
    gateway.count_asks_from(2);
    ready(&mut gateway);
    say(&mut gateway, 6, USER, "hello");
    event(&mut gateway, ask(6, 5));
    assert_eq!(short(&say(&mut gateway, 7, USER, "/approve 1.1")), ["7 is closed", gone]);
    assert!(short(&say(&mut gateway, 8, USER, "/approve 3.1"))[1].contains("request: 5"));
}

#[test]
fn after_a_kill_what_waited_is_asked_and_what_ran_is_told() {
    let mut gateway = gateway();
    ready(&mut gateway);
    let now = UnixMillis::now();
    let mut recover = |turn, sender, text: &str, running, received_at| {
        let open = OpenTurn { turn: TurnId(turn), inbound: said(sender, "c", text), running, received_at };
        let mut effects = Vec::new();
        gateway.recover(open, &mut effects);
        short(&effects)
    };
    let ran = recover(1, USER, "ran", true, now);
    assert!(ran.len() == 1 && ran[0].starts_with("1 ends Failed(") && ran[0].ends_with(" None"), "{ran:?}");
    assert!(ran[0].contains("answer is lost"), "{ran:?}");
    let command = recover(2, ADMIN, "/restart", false, now);
    assert!(command[0] == "2 is closed" && command[1].contains("came to your /restart"), "{command:?}");
    let stale = recover(3, USER, "long ago", false, UnixMillis(now.0 - 25 * 3_600_000));
    assert!(stale[0] == "3 is closed" && stale[1].contains("more than a day ago"), "{stale:?}");
    assert_eq!(recover(4, "3", "no longer allowed", true, now), ["4 is closed"]);
    assert_eq!(recover(5, USER, "waited", false, now), ["5 starts", "default <- 5 None waited"]);
    event(&mut gateway, ended(5, end_turn()));
    assert_eq!(short(&say(&mut gateway, 6, USER, "/retry"))[1], "6 is queued as waited");
}

#[test]
fn a_permission_request_that_can_no_longer_be_answered_is_told_as_such() {
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "go");
    let ask = |request| {
        let options = ["allow_once", "reject_once"].map(|kind| PermissionOption {
            id: kind.into(),
            name: kind.into(),
            kind: kind.into(),
        });
        AgentEvent::Permission { turn: TurnId(1), request, title: format!("rm {request}"), options: options.into() }
    };
    event(&mut gateway, ask(5));
    let mut effects = Vec::new();
    gateway.expire(UnixMillis::now(), &mut effects);
    assert_eq!(short(&effects), [""; 0]);
    let hour_ms = i64::try_from(ASK_MAX.as_millis()).expect("small");
    gateway.expire(UnixMillis(UnixMillis::now().0 + hour_ms + 1000), &mut effects);
    let denied = r#"default <- Permission { request: 5, option: Some("reject_once") }"#;
    assert_eq!(short(&effects), [denied, "notice ⌛ Denied, because nobody answered within 60 min: rm 5"]);
    event(&mut gateway, ask(6));
    let ended = short(&event(&mut gateway, ended(1, end_turn())));
    let told = "notice ⌛ No longer to be answered: rm 6. The turn that asked is over.";
    assert_eq!(ended, [told, r#"1 ends Complete Some("")"#]);
}

#[test]
fn a_turn_that_outlived_the_gateway_goes_on_with_its_session_and_what_the_agent_asks() {
    let mut gateway = gateway();
    let take_up = |gateway: &mut Gateway, turn, session: &str, outcome: Option<TurnOutcome>| {
        let open =
            OpenTurn { turn: TurnId(turn), inbound: said(USER, "c", "x"), running: true, received_at: UnixMillis(1) };
        let option = PermissionOption { id: "o".into(), name: "o".into(), kind: "allow_once".into() };
        let permissions = vec![RecoveredPermission { request: 5, title: "rm".into(), options: vec![option] }];
        let permissions = if outcome.is_none() { permissions } else { Vec::new() };
        let session = Some(session.into());
        let said =
            RecoveredTurn { turn: TurnId(turn), session, text: "half".into(), files: Vec::new(), outcome, permissions };
        let mut effects = Vec::new();
        gateway.take_up(open, "default".into(), said, &mut effects);
        short(&effects)
    };
    assert_eq!(
        take_up(&mut gateway, 1, "old", Some(end_turn())),
        ["1 starts", r#"1 SoFar("half")"#, r#"1 ends Complete Some("half")"#],
        "the chat may have begun another session since"
    );
    assert_eq!(
        take_up(&mut gateway, 2, "s", None),
        [
            "2 starts",
            r#"session Some("s")"#,
            r#"2 SoFar("half")"#,
            r#"record Meta("asks", "1")"#,
            "notice 🔐 The gateway was killed, and the agent still asks: rm"
        ]
    );
    let answered = short(&say(&mut gateway, 3, USER, "/approve"));
    assert!(answered.iter().any(|effect| effect.contains("Permission { request: 5")), "{answered:?}");
    assert_eq!(short(&event(&mut gateway, ended(2, end_turn()))), [r#"2 ends Complete Some("")"#]);
}

/// As a reload does: the state of one gateway in one with other agents.
fn carried(gateway: &Gateway, agents: &[&str]) -> Gateway {
    let state = serde_json::to_string(&gateway.state()).expect("serialises");
    let state = serde_json::from_str(&state).expect("reads back");
    Gateway::restore(access(), agents.iter().map(|agent| AgentName::from(*agent)), state)
}

#[test]
fn a_conversation_whose_agent_was_removed_goes_on_with_the_default_one() {
    let mut gateway = gateway();
    ready(&mut gateway);
    event(&mut gateway, AgentEvent::Ready { agent: "other".into(), pid: 8, title: None });
    say(&mut gateway, 1, USER, "/new other");
    say(&mut gateway, 2, USER, "hello");
    event(&mut gateway, AgentEvent::Session { turn: TurnId(2), session: "s".into(), kept: true });
    say(&mut gateway, 3, USER, "more");
    let mut gateway = carried(&gateway, &["default"]);
    // It was carried, says so, and is about to be stopped: it must not get turns any more.
    assert!(event(&mut gateway, AgentEvent::Ready { agent: "other".into(), pid: 8, title: None }).is_empty());
    assert_eq!(gateway.agents().count(), 1);
    let failed = TurnOutcome::Failed { reason: "the agent was stopped".into() };
    let effects = short(&event(&mut gateway, ended(2, failed)));
    assert_eq!(effects[1], "session None");
    assert!(effects[2].contains("'other' is no longer configured"), "{effects:?}");
    assert_eq!(effects[3..], ["3 starts", "default <- 3 None more"]);
    // The same for a conversation that comes out of the store.
    let conversation = Conversation::new("telegram", "c2");
    gateway.learn(SessionRow { conversation, agent: "other".into(), session: Some("s".into()) });
    let mut effects = Vec::new();
    gateway.inbound(TurnId(4), said(USER, "c2", "hi"), &mut effects);
    assert_eq!(short(&effects).last().map(String::as_str), Some("default <- 4 None hi"));
}

#[test]
fn an_agent_that_stays_down_is_told_once_to_each_chat_that_waits() {
    let mut gateway = gateway();
    let down = || AgentEvent::StartFailed {
        agent: "default".into(),
        reason: "no such file".into(),
        restart_in: Duration::from_secs(1),
    };
    say(&mut gateway, 1, USER, "hello");
    assert_eq!(event(&mut gateway, down()).len(), 1);
    assert!(event(&mut gateway, down()).is_empty());
    assert!(say(&mut gateway, 2, USER, "anybody there?").is_empty());
    let mut gateway = carried(&gateway, &["default", "other"]);
    assert!(event(&mut gateway, down()).is_empty());
    ready(&mut gateway);
    let died = AgentEvent::Died { agent: "default".into(), how: "x".into(), restart_in: Duration::from_secs(1) };
    assert_eq!(event(&mut gateway, died).len(), 1, "a new outage is told again");
}

#[test]
fn a_platform_is_spoken_to_in_its_language() {
    let languages = Languages::new([("telegram".into(), Language::ZhCn)]);
    let mut gateway = gateway().speaking(languages);
    assert_eq!(short(&say(&mut gateway, 1, USER, "/stop")), ["1 is closed", "notice 当前没有正在生成的回答。"]);
    let local = Conversation::new("local", "main");
    assert_eq!(gateway.words(&local).nothing_to_stop(), Language::En.words().nothing_to_stop());
}

#[test]
fn only_known_commands_are_commands() {
    assert_eq!(ChatCommand::parse("hello /stop"), None);
    assert_eq!(ChatCommand::parse("/"), None);
    assert_eq!(ChatCommand::parse("/compact now"), None);
    assert_eq!(ChatCommand::parse("/STOP"), Some(ChatCommand::Stop));
    assert_eq!(ChatCommand::parse("/update 1.5.0"), Some(ChatCommand::UpdateTo("1.5.0".into())));
    assert_eq!(ChatCommand::parse("/update check"), Some(ChatCommand::UpdateCheck));
    assert_eq!(ChatCommand::parse("/update revert"), Some(ChatCommand::Revert));
    assert!(matches!(ChatCommand::parse("/restart now"), Some(ChatCommand::Misused(_))));
    assert_eq!(ChatCommand::parse("/update 1 2"), Some(ChatCommand::Surplus));
}

#[derive(Clone, Debug)]
enum Step {
    Say {
        chat: u8,
        files: usize,
    },
    /// The platform has done what it was asked last, or first.
    Fetch {
        last: bool,
        there: bool,
    },
    End,
    Die,
    Ready,
    Hold(bool),
    Carry,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, prop_oneof![3 => Just(0usize), 2 => 1usize..3]).prop_map(|(chat, files)| Step::Say { chat, files }),
        4 => any::<(bool, bool)>().prop_map(|(last, there)| Step::Fetch { last, there }),
        4 => Just(Step::End),
        1 => Just(Step::Die),
        2 => Just(Step::Ready),
        2 => any::<bool>().prop_map(Step::Hold),
        2 => Just(Step::Carry),
    ]
}

/// Checks what the module promises after every step: one prompt in flight a conversation, none while held, each with all
/// of its files.
#[derive(Default)]
struct Model {
    prompted: BTreeMap<String, Vec<i64>>,
    in_flight: BTreeMap<i64, String>,
    /// What platforms were asked to fetch, with the number of files.
    /// How many files each message has.
    files: BTreeMap<TurnId, usize>,
    fetching: Vec<(TurnId, usize)>,
    held: bool,
}

impl Model {
    fn take(&mut self, chat_of: &BTreeMap<i64, String>, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Fetch { turn, attachments, .. } = effect {
                assert!(!self.held, "asked for files while held");
                assert!(self.fetching.iter().all(|(other, _)| other != turn), "asked twice for the same");
                self.fetching.push((*turn, attachments.len()));
            }
            let Effect::Agent(_, AgentCommand::Prompt { turn, files, text, .. }) = effect else { continue };
            assert!(self.fetching.iter().all(|(other, _)| other != turn), "asked before its files are known");
            let lines = text.lines().filter(|line| line.ends_with("(could not be fetched: gone)]")).count();
            assert_eq!(files.len() + lines, self.files.get(turn).copied().unwrap_or(0), "{text}");
            assert!(!self.held, "prompted while held");
            let chat = chat_of[&turn.0].clone();
            assert!(!self.in_flight.values().any(|c| *c == chat), "two turns in flight in {chat}");
            self.in_flight.insert(turn.0, chat.clone());
            self.prompted.entry(chat).or_default().push(turn.0);
        }
    }
}

proptest! {
    /// Whatever happens in between, handoffs included: each message is prompted once, in order, one at a time.
    #[test]
    fn every_turn_is_prompted_once_in_order(steps in prop::collection::vec(step(), 1..80)) {
        let mut gateway = gateway();
        let mut model = Model::default();
        let mut chat_of = BTreeMap::new();
        let mut next = 1;
        let settle = (0..200).flat_map(|_| {
            [Step::Hold(false), Step::Ready, Step::Fetch { last: false, there: true }, Step::End]
        });
        for step in steps.into_iter().chain(settle) {
            let mut effects = Vec::new();
            match step {
                Step::Say { chat, files } => {
                    chat_of.insert(next, chat.to_string());
                    model.files.insert(TurnId(next), files);
                    let inbound = files::sent("hello", &chat.to_string(), &["a", "b"][..files]);
                    gateway.inbound(TurnId(next), inbound, &mut effects);
                    next += 1;
                }
                Step::Fetch { last, there } if !model.fetching.is_empty() => {
                    let at = if last { model.fetching.len() - 1 } else { 0 };
                    let (turn, count) = model.fetching.remove(at);
                    let file = |_| if there { files::there("a") } else { Err("gone".to_owned()) };
                    gateway.fetched(turn, (0..count).map(file).collect(), &mut effects);
                }
                Step::Fetch { .. } => {}
                Step::End => {
                    if let Some((turn, _)) = model.in_flight.pop_first() {
                        gateway.agent_event(ended(turn, end_turn()), &mut effects);
                    }
                }
                Step::Die => {
                    // As the agent's contract has it: each turn ends before the death is told.
                    for (turn, _) in std::mem::take(&mut model.in_flight) {
                        effects.extend(event(&mut gateway, ended(turn, TurnOutcome::Failed { reason: "x".into() })));
                        model.take(&chat_of, &effects);
                        effects.clear();
                    }
                    let agent = AgentName::from("default");
                    let restart_in = Duration::from_secs(1);
                    gateway.agent_event(AgentEvent::Died { agent, how: "x".into(), restart_in }, &mut effects);
                }
                Step::Ready => effects = ready(&mut gateway),
                Step::Hold(hold) => {
                    model.held = hold;
                    gateway.hold(hold, &mut effects);
                }
                Step::Carry => {
                    let state = serde_json::to_string(&gateway.state()).expect("serialises");
                    let state = serde_json::from_str(&state).expect("reads back");
                    gateway = Gateway::restore(access(), [AgentName::from("default")], state);
                    // What was under way is lost with the image.
                    model.fetching.clear();
                    model.held = false;
                }
            }
            model.take(&chat_of, &effects);
            prop_assert_eq!(gateway.turns_in_flight(), model.in_flight.len());
        }
        for chat in 0..3 {
            let chat = chat.to_string();
            let said: Vec<i64> = chat_of.iter().filter(|(_, c)| **c == chat).map(|(turn, _)| *turn).collect();
            let prompted = model.prompted.remove(&chat).unwrap_or_default();
            // Beyond the limit of waiting messages a message is refused with a notice, never reordered.
            let mut rest = said.iter();
            prop_assert!(prompted.iter().all(|turn| rest.any(|s| s == turn)), "{prompted:?} of {said:?}");
            if said.len() <= QUEUE_LIMIT {
                prop_assert_eq!(prompted, said);
            }
        }
    }

    #[test]
    fn no_text_panics_as_a_command(text in "/?.{0,40}") {
        let _ = ChatCommand::parse(&text);
    }
}

mod files;
