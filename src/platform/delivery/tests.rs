//! Delivery against a chat service that fails in every way, and across images.

use super::limiter::Rate;
use super::medium::Measure;
use super::split::MESSAGE_UNITS_MAX;
use super::*;
use crate::chat::{Content, Conversation, OutFile, ReplyEnd, so_far};
use crate::platform::link::Failure;
use crate::store::{Attempt, Outcome, Part};
use crate::words::Language;

mod props;
mod world;

use world::{World, medium, units};

fn outbound(chat: &str, content: OutboundContent) -> Outbound {
    Outbound { conversation: Conversation::new("telegram", chat), content }
}

fn notice(chat: &str, text: &str) -> Outbound {
    outbound(chat, OutboundContent::Notice(text.into()))
}

fn step(chat: &str, turn: i64, step: ReplyStep) -> Outbound {
    outbound(chat, OutboundContent::Reply { turn: TurnId(turn), step })
}

/// A file that stands behind `at` bytes of text.
fn file(number: u32, at: usize, name: &str) -> OutFile {
    let content = Content::Kept { path: format!("/out/{name}").into(), bytes: 3 };
    OutFile { number, at, name: name.to_owned(), mime: None, content }
}

fn unsent(failure: Failure) -> Unsent {
    Unsent { failure, is_ambiguous: false, is_fatal: false, code: "400".to_owned(), why: "refused".to_owned() }
}

fn again(asked: Option<Duration>) -> Unsent {
    unsent(Failure::Again { asked })
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
    world.finish(0, Some(unsent(Failure::Unreachable)));
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
    world.finish(0, Some(unsent(Failure::Moved("-100".to_owned()))));
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
    world.finish(0, Some(unsent(Failure::NoMessage)));
    world.settle();
    assert_eq!(world.shown("1"), ["text", "text more"]);
}

#[test]
fn a_wait_that_the_platform_asks_for_holds_that_chat_only() {
    let mut world = World::new();
    world.push(notice("1", "first"));
    world.push(notice("2", "other"));
    world.start(Pace::Streaming);
    let began = world.now;
    world.finish(0, Some(again(Some(Duration::from_secs(70_000)))));
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
    assert!(matches!(&world.in_flight[0].action, Action::Send(post) if post.text == "so far"));
}

#[test]
fn a_draft_becomes_a_message_when_the_process_ends_and_grows_by_edits_then() {
    let mut world = World::with(|_| Growth::Draft);
    world.push(step("1", 7, ReplyStep::Delta("so far".into())));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    assert!(matches!(&world.in_flight[0].action, Action::Draft { .. }));
    world.finish(0, None);
    world.start(Pace::Flushing);
    assert!(matches!(&world.in_flight[0].action, Action::Send(post) if post.text == "so far" && !post.is_final));
    world.finish(0, None);
    assert_eq!(world.start(Pace::Flushing), None);
    assert!(world.in_flight.is_empty(), "it is sent once");
    world.kill(false);
    world.push(step("1", 7, ReplyStep::SoFar("so far, so good".into())));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["so far, so good"]);
}

#[test]
fn a_card_shows_all_there_is_when_the_process_ends() {
    let mut world = World::with(|_| Growth::Card);
    world.push(step("1", 7, ReplyStep::Delta("one".into())));
    world.start(Pace::Flushing);
    world.finish(0, None);
    world.push(step("1", 7, ReplyStep::Delta(" two".into())));
    world.start(Pace::Flushing);
    world.finish(0, None);
    assert_eq!(world.shown("1"), ["one two"]);
}

#[test]
fn a_state_of_a_later_version_is_read() {
    let later = r#"{"chats":{"1":{"items":[{"id":3,"tail":"x","ended":true,"colour":1}],"mood":2}},"extra":[]}"#;
    let read: Delivery = serde_json::from_str(later).expect("reads");
    let mut world = World { delivery: read.on(medium(|_| Growth::Edit)), ..World::new() };
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

#[test]
fn a_reply_grows_as_a_draft_and_is_sent_once() {
    let mut world = World::with(|_| Growth::Draft);
    world.push(step("1", 7, ReplyStep::Begin));
    let mut drafts = Vec::new();
    for _ in 0..100 {
        world.push(step("1", 7, ReplyStep::Delta("word ".into())));
        world.start(Pace::Streaming);
        if let Some(request) = world.in_flight.first() {
            match &request.action {
                Action::Draft { draft_id, post } => drafts.push((*draft_id, post.text.len())),
                other => assert_eq!(*other, Action::Typing),
            }
            world.finish(0, None);
        }
        world.pass(Duration::from_millis(50));
    }
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["word ".repeat(100)]);
    assert!(drafts.len() >= 3 && drafts.is_sorted_by(|a, b| a.0 == b.0 && a.1 < b.1), "{drafts:?}");
}

#[test]
fn where_drafts_are_refused_a_reply_is_edited() {
    let mut world = World::with(|_| Growth::Draft);
    world.push(step("1", 7, ReplyStep::Delta("x".repeat(300))));
    world.start(Pace::Streaming);
    assert!(matches!(&world.in_flight[0].action, Action::Draft { .. }));
    world.finish(0, Some(unsent(Failure::NoDraft)));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.push(step("1", 7, ReplyStep::Delta("y".into())));
    world.hand_off(true);
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    assert!(matches!(&world.in_flight[0].action, Action::Edit { .. }));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), [format!("{}y", "x".repeat(300))]);
}

#[test]
fn where_nothing_can_be_edited_whole_paragraphs_are_sent_while_a_reply_grows() {
    let mut world = World::with(|_| Growth::Blocks);
    world.push(step("1", 7, ReplyStep::Delta("One.\n\nTwo.\n\nThr".into())));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    world.finish(0, None);
    assert_eq!(world.shown("1"), ["One.\n\nTwo."]);
    world.push(step("1", 7, ReplyStep::Delta("ee.\n\nFour.".into())));
    world.pass(Duration::from_secs(2));
    world.start(Pace::Streaming);
    assert!(world.in_flight.iter().all(|request| request.action == Action::Typing), "not a message a second");
    world.in_flight.clear();
    world.kill(false);
    let said = world.said[&TurnId(7)].clone();
    world.push(step("1", 7, ReplyStep::SoFar(said)));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.settle();
    assert_eq!(world.shown("1"), ["One.\n\nTwo.", "Three.\n\nFour."]);
}

#[test]
fn after_a_kill_a_file_behind_blank_text_is_still_shown() {
    let mut world = World::with(|_| Growth::Draft);
    world.push(step("1", 7, ReplyStep::File(file(0, 0, "a"))));
    world.start(Pace::Streaming);
    world.finish(0, None);
    world.push(step("1", 7, ReplyStep::Delta("\n\n".into())));
    world.push(step("1", 7, ReplyStep::File(file(1, 2, "b"))));
    world.push(step("1", 7, ReplyStep::End(ReplyEnd::Complete)));
    world.kill(false);
    world.settle();
    assert_eq!(world.shown("1"), ["📎 a", "📎 b"]);
    assert_eq!(world.over, [TurnId(7)]);
}
