//! Delivery against a chat service that fails in every way, and across images.

use super::super::item::RECOVERED;
use super::super::keep::must_be_kept;
use super::super::split::{MESSAGE_UNITS_MAX, units};
use super::*;
use crate::chat::{Conversation, ReplyEnd};

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

/// A delivery, its clock, and the chats as their members see them.
#[derive(Default)]
struct World {
    delivery: Delivery,
    now: MonoNanos,
    in_flight: Vec<Request>,
    /// By chat: message id and text.
    chats: BTreeMap<String, Vec<(i64, String)>>,
    over: Vec<TurnId>,
    doubted: bool,
    /// What the recovery log has.
    kept: Delivery,
}

impl World {
    fn new() -> Self {
        Self { now: MonoNanos(3_600_000_000_000), ..Self::default() }
    }

    fn keep(&mut self) {
        self.kept.clone_from(&self.delivery);
    }

    fn push(&mut self, outbound: Outbound) {
        let keep = must_be_kept(&outbound);
        self.over.extend(self.delivery.push(outbound, self.now));
        if keep {
            self.keep();
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
                    if request.action != Action::Typing {
                        self.keep();
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
        let outcome = outcome.as_ref().map(|id| *id);
        self.over.extend(self.delivery.done(&request.chat, outcome, self.now));
        self.keep();
    }

    /// Replaces the image. What is in flight may have been carried out, or not.
    fn hand_off(&mut self, carried_out: bool) {
        let saved = carried(&self.delivery);
        self.cut_off(carried_out);
        self.delivery = saved.adopt();
        self.keep();
    }

    /// Kills the process, and begins another with what was kept.
    fn kill(&mut self, carried_out: bool) {
        self.cut_off(carried_out);
        self.delivery = carried(&self.kept).recover(self.now);
        self.keep();
    }

    fn cut_off(&mut self, carried_out: bool) {
        for request in std::mem::take(&mut self.in_flight) {
            self.doubted |= matches!(request.action, Action::Send { .. });
            if carried_out {
                drop(self.perform(&request));
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
    world.push(notice("1", "again"));
    world.settle();
    assert_eq!(world.shown("1"), ["again"], "a chat that comes back is served");
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
fn notices_beyond_the_bound_run_together_in_order() {
    let mut world = World::new();
    let texts: Vec<String> = (0..200).map(|n| format!("notice {n}")).collect();
    texts.iter().for_each(|text| world.push(notice("1", text)));
    assert_eq!(world.delivery.chats["1"].items.len(), CHAT_ITEMS_MAX);
    world.settle();
    let lines: Vec<&str> = world.shown("1").iter().flat_map(|text| text.split("\n\n")).collect();
    assert_eq!(lines, texts);
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
    world.kill(false);
    world.push(step("1", 7, ReplyStep::SoFar("te".into())));
    assert_eq!(world.over, [TurnId(7), TurnId(7)]);
    world.push(step("1", 7, ReplyStep::Delta("xt".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["text"]);
    // The same turn asked again is another reply.
    world.push(step("1", 7, ReplyStep::Begin));
    world.push(step("1", 7, ReplyStep::Delta("again".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["text", "again"]);
}

#[test]
fn after_a_kill_a_reply_waits_for_its_turn_and_not_for_ever() {
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
    let until = after(world.now, CLAIM_WAIT);
    assert_eq!(world.start(Pace::Streaming), Some(until));
    assert!(world.in_flight.is_empty(), "neither typing nor an edit");
    world.settle();
    assert!(world.now >= until);
    assert_eq!(world.shown("1"), ["text".repeat(60)]);
    assert!(world.delivery.chats.values().all(|chat| chat.items.is_empty()));
}

#[test]
fn a_stop_does_not_wait_for_turns_to_go_on() {
    let mut world = World::new();
    world.push(step("1", 7, ReplyStep::Begin));
    world.kill(false);
    assert_eq!(world.start(Pace::Flushing), None);
}

#[test]
fn the_turns_that_are_over_are_remembered_to_a_bound() {
    let mut world = World::new();
    for turn in 0..300 {
        world.push(step("1", turn, ReplyStep::Begin));
        world.push(step("1", turn, ReplyStep::End(ReplyEnd::Complete)));
        world.settle();
    }
    assert_eq!(world.delivery.over.len(), OVER_MAX);
    assert_eq!(world.delivery.over.back(), Some(&TurnId(299)));
}
