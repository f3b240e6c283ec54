//! Delivery against a chat service that fails in every way, and across images.

use super::super::item::{RECOVERED, SENT_AGAIN};
use super::super::split::{MESSAGE_UNITS_MAX, units};
use super::*;
use crate::chat::{Conversation, ReplyEnd};
use crate::store::{Outcome, Part};

#[path = "delivery_props.rs"]
mod props;

fn outbound(chat: &str, content: OutboundContent) -> Outbound {
    Outbound { conversation: Conversation::new("telegram", chat), content }
}

fn notice(chat: &str, text: &str) -> Outbound {
    outbound(chat, OutboundContent::Notice { text: text.to_owned() })
}

fn step(chat: &str, turn: i64, step: ReplyStep) -> Outbound {
    outbound(chat, OutboundContent::Reply { turn: TurnId(turn), step })
}

fn refused(code: i64, description: &str) -> TelegramError {
    TelegramError::Refused {
        method: "sendMessage",
        code,
        description: description.to_owned(),
        retry_after: None,
        migrate_to: None,
    }
}

/// What another image or process reads.
fn carried(delivery: &Delivery) -> Delivery {
    let state = serde_json::to_value(delivery).expect("plain data");
    serde_json::from_value(state).expect("reads back")
}

/// The outbox as the store has it.
#[derive(Default)]
struct Ledger {
    entries: BTreeMap<EntryId, Entry>,
    over: BTreeMap<EntryId, Outcome>,
    targets: Vec<Target>,
}

impl Ledger {
    fn last(&self) -> Option<EntryId> {
        self.entries.last_key_value().map(|(id, _)| *id)
    }

    fn of(&mut self, turn: TurnId) -> Option<&mut Entry> {
        self.entries.values_mut().find(|entry| entry.turn == Some(turn))
    }

    fn add(&mut self, turn: Option<TurnId>, conversation: Conversation, text: Option<String>) -> EntryId {
        let id = EntryId(self.last().map_or(1, |last| last.0 + 1));
        let created_at = UnixMillis::now();
        let entry = Entry { id, turn, conversation, text, end: None, created_at, parts: Vec::new() };
        self.entries.insert(id, entry);
        id
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let entry = self.entries.get_mut(&attempt.entry).expect("an entry");
        entry.parts.retain(|part| part.number != attempt.number);
        let Attempt { number, start, is_marked, .. } = *attempt;
        entry.parts.push(Part { number, start, is_marked, message_id: None });
    }

    fn shown(&mut self, attempt: &Attempt, message_id: i64) {
        let parts = &mut self.entries.get_mut(&attempt.entry).expect("an entry").parts;
        let part = parts.iter_mut().find(|part| part.number == attempt.number).expect("it was tried");
        part.message_id = Some(message_id.to_string());
    }

    fn open(&self) -> Outbox {
        let open = self.entries.values().filter(|entry| !self.over.contains_key(&entry.id));
        Outbox { entries: open.cloned().collect(), last: self.last(), targets: self.targets.clone() }
    }
}

/// A delivery, its clock, and the chats as their members see them.
#[derive(Default)]
struct World {
    delivery: Delivery,
    now: MonoNanos,
    in_flight: Vec<Request>,
    /// By chat: message id and text.
    chats: BTreeMap<String, Vec<(i64, String)>>,
    /// What was said in each turn.
    said: BTreeMap<TurnId, String>,
    over: Vec<TurnId>,
    doubted: bool,
    ledger: Ledger,
    /// What was found out and is not in the ledger.
    findings: Vec<Finding>,
}

impl World {
    fn new() -> Self {
        Self { now: MonoNanos(3_600_000_000_000), ..Self::default() }
    }

    /// Records what is due and hands it to the delivery, as the daemon does.
    fn push(&mut self, outbound: Outbound) {
        let conversation = outbound.conversation.clone();
        let entry = match &outbound.content {
            OutboundContent::Notice { text } => Some(self.ledger.add(None, conversation, Some(text.clone()))),
            OutboundContent::Reply { turn, step } => {
                let (turn, step) = (*turn, step.clone());
                let begun = self.ledger.of(turn).map(|entry| entry.id);
                let id = begun.unwrap_or_else(|| self.ledger.add(Some(turn), conversation.clone(), None));
                if begun.is_none() && step != ReplyStep::Begin {
                    self.delivery.push(Outbound::reply(conversation, turn, ReplyStep::Begin), Some(id), self.now);
                }
                let said = self.said.entry(turn).or_default();
                match step {
                    ReplyStep::Delta(text) => said.push_str(&text),
                    ReplyStep::SoFar(text) => *said = text,
                    ReplyStep::End(end) => {
                        let text = said.clone();
                        let entry = self.ledger.of(turn).expect("begun");
                        (entry.text, entry.end) = (Some(text), Some(end));
                    }
                    ReplyStep::Begin | ReplyStep::Activity(_) => {}
                }
                Some(id)
            }
        };
        self.delivery.push(outbound, entry, self.now);
        self.find();
    }

    /// Takes what the delivery has found out, and records what it had found before.
    fn find(&mut self) {
        let found = self.delivery.take_findings();
        for finding in std::mem::replace(&mut self.findings, found) {
            match finding {
                Finding::Over { entry, outcome, .. } => {
                    self.ledger.over.insert(entry, outcome);
                }
                Finding::Unreachable { chat, .. } => self.ledger.targets.push(Target::Unreachable(chat)),
                Finding::Reachable { chat } => {
                    self.ledger.targets.retain(|target| *target != Target::Unreachable(chat.clone()));
                }
                Finding::Moved { chat, to } => self.ledger.targets.push(Target::Moved(chat, to)),
            }
        }
        for finding in &self.findings {
            if let Finding::Over { entry, .. } = finding
                && let Some(turn) = self.ledger.entries[entry].turn
            {
                self.over.push(turn);
            }
        }
    }

    fn pass(&mut self, wait: Duration) {
        self.now = after(self.now, wait);
    }

    /// Starts what may start now, and returns when more may.
    fn start(&mut self, pace: Pace) -> Option<MonoNanos> {
        loop {
            match self.delivery.next(self.now, pace) {
                Next::Start(request) => {
                    if let Action::Send { text } | Action::Edit { text, .. } = &request.action {
                        assert!(!text.trim().is_empty() && units(text) <= MESSAGE_UNITS_MAX);
                    }
                    assert!(self.in_flight.iter().all(|other| other.chat != request.chat), "two at once in a chat");
                    if let Some(attempt) = &request.attempt {
                        self.ledger.attempt(attempt);
                    }
                    self.in_flight.push(request);
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    /// Carries a request out as Telegram would.
    fn perform(&mut self, request: &Request) -> Result<Option<i64>, TelegramError> {
        let messages = self.chats.entry(request.chat.clone()).or_default();
        match &request.action {
            Action::Typing => Ok(None),
            Action::Send { text } => {
                let id = i64::try_from(messages.len()).expect("few messages") + 1;
                messages.push((id, text.clone()));
                Ok(Some(id))
            }
            Action::Edit { message_id, text } => {
                let message = messages.iter_mut().find(|message| message.0 == *message_id).expect("an edited message");
                if message.1 == *text {
                    return Err(refused(400, "Bad Request: message is not modified"));
                }
                message.1.clone_from(text);
                Ok(None)
            }
        }
    }

    fn finish(&mut self, at: usize, failure: Option<TelegramError>) {
        let request = self.in_flight.remove(at % self.in_flight.len());
        let outcome = match failure {
            Some(error) => Err(error),
            None => self.perform(&request),
        };
        if let (Some(attempt), Ok(Some(message_id))) = (&request.attempt, &outcome) {
            self.ledger.shown(attempt, *message_id);
        }
        let outcome = outcome.as_ref().map(|id| *id);
        self.delivery.done(&request.chat, outcome, self.now);
        self.find();
    }

    /// Replaces the image. What is in flight may have been carried out, or not.
    fn hand_off(&mut self, carried_out: bool) {
        let saved = carried(&self.delivery);
        self.cut_off(carried_out);
        self.delivery = saved.adopt();
        self.take_up();
    }

    /// Kills the process, and begins another with what was recorded.
    fn kill(&mut self, carried_out: bool) {
        self.cut_off(carried_out);
        self.delivery = Delivery::default();
        self.take_up();
    }

    fn take_up(&mut self) {
        self.findings.clear();
        self.delivery.take_up(self.ledger.open(), self.now);
        self.find();
    }

    fn cut_off(&mut self, carried_out: bool) {
        for request in std::mem::take(&mut self.in_flight) {
            self.doubted |= matches!(request.action, Action::Send { .. });
            if carried_out {
                let outcome = self.perform(&request);
                // The last of them was recorded before the end came.
                if let (Some(attempt), Ok(Some(message_id))) = (&request.attempt, outcome)
                    && self.in_flight.is_empty()
                    && message_id % 2 == 0
                {
                    self.ledger.shown(attempt, message_id);
                }
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let wait = self.start(Pace::Streaming);
            if !self.in_flight.is_empty() {
                self.finish(0, None);
            } else if let Some(at) = wait {
                assert!(at > self.now, "a wait that is over");
                self.now = at;
            } else {
                return;
            }
        }
        panic!("delivery never comes to rest");
    }

    fn shown(&self, chat: &str) -> Vec<&str> {
        self.chats.get(chat).map(|all| all.iter().map(|message| message.1.as_str()).collect()).unwrap_or_default()
    }
}

#[test]
fn a_reply_is_sent_once_and_then_edited_about_once_a_second() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Begin));
    let mut edits = Vec::new();
    for _ in 0..100 {
        world.push(step("1", 7, ReplyStep::Delta("word ".into())));
        world.start(Pace::Streaming);
        if let Some(request) = world.in_flight.first() {
            if matches!(request.action, Action::Edit { .. }) {
                edits.push(world.now);
            }
            world.finish(0, None);
        }
        world.pass(Duration::from_millis(50));
    }
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["word ".repeat(100)]);
    assert!((3..=5).contains(&edits.len()), "{} edits in 5 s", edits.len());
    assert!(edits.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(1)));
    assert_eq!(world.over, [TurnId(7)]);
}

#[test]
fn a_notice_overtakes_a_growing_reply_and_not_a_complete_one() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("x".repeat(300))));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.push(notice("1", "status"));
    world.settle();
    world.push(step("1", 7, ReplyStep::Delta("y".repeat(5000))));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.push(notice("1", "after"));
    world.settle();
    let shown = world.shown("1");
    assert_eq!((shown.len(), shown[1], shown[3]), (4, "status", "after"));
    assert_eq!(units(shown[0]) + units(shown[2]), 5300);
}

#[test]
fn an_activity_edit_in_flight_at_the_end_is_edited_away() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("text".repeat(60))));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.push(step("1", 7, ReplyStep::Activity("tool".into())));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["text".repeat(60)]);
    assert_eq!(world.over, [TurnId(7)]);
}

#[test]
fn a_chat_out_of_reach_gives_up_and_the_turn_is_still_over_once() {
    let mut world = World::new();
    world.push(notice("1", "first"));
    world.push(step("1", 7, ReplyStep::Delta("text".into())));
    world.start(Pace::Streaming);
    world.finish(0, Some(refused(403, "Forbidden: bot was blocked by the user")));
    world.push(step("1", 7, ReplyStep::Delta("more".into())));
    world.settle();
    assert_eq!(world.over, []);
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    assert_eq!(world.over, [TurnId(7)]);
    assert!(world.shown("1").is_empty());
    world.push(notice("1", "to nobody"));
    world.kill(false);
    world.push(notice("1", "to nobody after a kill"));
    world.settle();
    assert!(world.shown("1").is_empty(), "nothing is sent where nobody can be reached");
    world.find();
    assert!(world.ledger.over.values().all(|outcome| *outcome == Outcome::Abandoned));
    world.delivery.heard("1");
    world.push(notice("1", "again"));
    world.settle();
    world.kill(false);
    world.push(notice("1", "and again"));
    world.settle();
    assert_eq!(world.shown("1"), ["again", "and again"], "a chat that comes back is served");
}

#[test]
fn a_group_that_moved_is_followed_also_by_what_comes_later() {
    let mut world = World::new();
    world.push(notice("-1", "first"));
    world.push(notice("-1", "second"));
    world.start(Pace::Streaming);
    let mut moved = refused(400, "Bad Request: group chat was upgraded to a supergroup chat");
    if let TelegramError::Refused { migrate_to, .. } = &mut moved {
        *migrate_to = Some(-100);
    }
    world.finish(0, Some(moved));
    world.push(notice("-1", "third"));
    world.settle();
    assert_eq!(world.shown("-100"), ["first", "second", "third"]);
}

#[test]
fn a_message_that_cannot_be_edited_is_sent_anew() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("text".into())));
    world.pass(Duration::from_secs(1));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.push(step("1", 7, ReplyStep::Delta(" more".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.start(Pace::Streaming);
    world.finish(0, Some(refused(400, "Bad Request: message to edit not found")));
    world.settle();
    assert_eq!(world.shown("1"), ["text", "text more"]);
}

#[test]
fn a_wait_that_telegram_asks_for_holds_that_chat_only() {
    let mut world = World::new();
    world.push(notice("1", "first"));
    world.push(notice("2", "other"));
    world.start(Pace::Streaming);
    let mut flood = refused(429, "Too Many Requests: retry after 70000");
    if let TelegramError::Refused { retry_after, .. } = &mut flood {
        *retry_after = Some(Duration::from_secs(70_000));
    }
    let began = world.now;
    world.finish(0, Some(flood));
    world.finish(0, None);
    assert_eq!(world.shown("2"), ["other"]);
    world.settle();
    assert_eq!(world.shown("1"), ["first"]);
    assert!(world.now.since(began) >= Duration::from_secs(70_000));
}

#[test]
fn a_crowd_is_told_so_that_no_more_is_taken_in_and_all_of_it_is_shown_in_order() {
    let mut world = World::new();
    let texts: Vec<String> = (0..ITEMS_MAX + 10).map(|n| format!("notice {n}")).collect();
    texts.iter().for_each(|text| world.push(notice("1", text)));
    assert!(world.delivery.is_crowded());
    world.settle();
    assert_eq!(world.shown("1"), texts);
    assert!(!world.delivery.is_crowded());
}

#[test]
fn one_slow_chat_does_not_starve_the_others() {
    let mut world = World::new();
    for n in 0..60 {
        world.push(notice(&n.to_string(), "a"));
        world.push(notice(&n.to_string(), "b"));
    }
    let mut served = std::collections::BTreeSet::new();
    for _ in 0..60 {
        while world.in_flight.is_empty() {
            if let Some(at) = world.start(Pace::Streaming) {
                world.now = world.now.max(at);
            }
        }
        served.insert(world.in_flight[0].chat.clone());
        world.finish(0, None);
    }
    assert!(served.len() >= 50, "{} of 60 chats were served by 60 messages", served.len());
}

#[test]
fn an_old_chat_is_not_starved_by_ever_new_ones() {
    let mut world = World::new();
    // The bot's overall limit is used up, more chats begin to talk all the time, and each name comes after the last.
    let mut chats = 0;
    let mut begin = |world: &mut World, count: usize| {
        for _ in 0..count {
            chats += 1;
            world.push(notice(&format!("2{chats:06}"), "new"));
        }
    };
    begin(&mut world, 60);
    world.push(notice("1", "old"));
    for _ in 0..40 {
        world.start(Pace::Streaming);
        while !world.in_flight.is_empty() {
            world.finish(0, None);
        }
        begin(&mut world, 20);
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.shown("1"), ["old"]);
}

#[test]
fn flushing_shows_what_a_growing_reply_has() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("so far".into())));
    world.start(Pace::Flushing);
    assert!(matches!(&world.in_flight[0].action, Action::Send { text } if text == "so far"));
}

#[test]
fn a_state_of_a_later_version_is_read() {
    let later = r#"{"chats":{"1":{"items":[{"id":3,"tail":"x","ended":true,"colour":1}],"mood":2}},"extra":[]}"#;
    let mut world = World { delivery: serde_json::from_str(later).expect("reads"), ..World::new() };
    world.settle();
    assert_eq!(world.shown("1"), ["x"]);
}

#[test]
fn a_reply_that_was_delivered_is_not_shown_again_to_who_does_not_know_it() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("text".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    world.find();
    world.kill(false);
    for again in [ReplyStep::Begin, ReplyStep::SoFar("te".into()), ReplyStep::Delta("xt".into())] {
        world.push(step("1", 7, again));
    }
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["text"]);
}

#[test]
fn after_a_kill_a_reply_waits_until_its_turn_goes_on() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Delta("text".repeat(60))));
    world.push(step("2", 8, ReplyStep::Begin));
    world.start(Pace::Streaming);
    while !world.in_flight.is_empty() {
        world.finish(0, None);
    }
    world.push(step("1", 7, ReplyStep::Activity("tool".into())));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.kill(false);
    assert_eq!(world.start(Pace::Streaming), None);
    assert!(world.in_flight.is_empty(), "neither typing nor an edit");
    world.push(step("1", 7, ReplyStep::SoFar("text".repeat(61))));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["text".repeat(61)]);
}

#[test]
fn a_stop_does_not_wait_for_turns_to_go_on() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Begin));
    world.kill(false);
    assert_eq!(world.start(Pace::Flushing), None);
}

#[test]
fn what_is_pushed_and_was_in_the_outbox_already_is_shown_once() {
    let mut world = World::new();
    let id = world.ledger.add(None, Conversation::new("telegram", "1"), Some("once".into()));
    world.take_up();
    world.delivery.push(notice("1", "once"), Some(id), world.now);
    world.settle();
    assert_eq!(world.shown("1"), ["once"]);
}

#[test]
fn an_old_answer_is_delivered_after_a_kill_and_an_old_notice_is_not() {
    let mut world = World::new();
    world.push(notice("1", "old news"));
    world.push(step("1", 7, ReplyStep::Delta("an answer".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    let two_days_ms = 2 * i64::try_from(AGE_MAX.as_millis()).expect("small");
    world.ledger.entries.values_mut().for_each(|entry| entry.created_at.0 -= two_days_ms);
    world.kill(false);
    world.settle();
    assert_eq!(world.shown("1"), ["an answer"]);
    world.find();
    let outcomes: Vec<_> = world.ledger.over.values().copied().collect();
    assert_eq!(outcomes, [Outcome::Abandoned, Outcome::Delivered]);
}

#[test]
fn idle_chats_are_forgotten() {
    let mut world = World::new();
    for chat in 0..2000 {
        world.push(notice(&chat.to_string(), "a"));
        world.settle();
    }
    assert!(world.delivery.chats.len() < 200, "{} chats", world.delivery.chats.len());
}
