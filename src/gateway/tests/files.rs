//! Messages with files, and answers with some.

use super::*;
use crate::chat::{Attachment, AttachmentKind, Content, Fetched, LocalFile};
use crate::gateway::files::with_attachments;

fn attachment(kind: AttachmentKind, name: Option<&str>) -> Attachment {
    Attachment { kind, name: name.map(str::to_owned), mime: None, size_bytes: None, source: "hidden".into() }
}

/// A message with files of these names.
pub(super) fn sent(text: &str, chat: &str, names: &[&str]) -> Inbound {
    let attachments = names.iter().map(|name| attachment(AttachmentKind::Image, Some(name))).collect();
    Inbound { attachments, ..said(USER, chat, text) }
}

fn send(gateway: &mut Gateway, turn: i64, text: &str, names: &[&str]) -> Vec<String> {
    let mut effects = Vec::new();
    gateway.inbound(TurnId(turn), sent(text, "c", names), &mut effects);
    short(&effects)
}

pub(super) fn there(name: &str) -> Fetched {
    Ok(LocalFile {
        kind: AttachmentKind::Image,
        name: name.into(),
        mime: None,
        path: format!("/h/{name}").into(),
        size_bytes: 1,
    })
}

fn fetched(gateway: &mut Gateway, turn: i64, files: Vec<Fetched>) -> Vec<String> {
    let mut effects = Vec::new();
    gateway.fetched(TurnId(turn), files, &mut effects);
    short(&effects)
}

#[test]
fn a_picture_without_a_word_is_no_empty_question() {
    let picture = Inbound { attachments: vec![attachment(AttachmentKind::Image, None)], ..said("1", "1", "") };
    assert_eq!(with_attachments(&picture), "[image]");
    let file = attachment(AttachmentKind::File, Some("a.pdf"));
    let both = Inbound { attachments: vec![file], ..said("1", "1", "read this") };
    assert_eq!(with_attachments(&both), "read this\n[file: a.pdf]");
    let mut gateway = gateway();
    ready(&mut gateway);
    send(&mut gateway, 1, "", &["a.png"]);
    assert_eq!(fetched(&mut gateway, 1, vec![there("a.png")])[1], "default <- 1 None [image: a.png] +a.png");
}

#[test]
fn a_message_is_asked_with_its_files_and_those_behind_it_wait() {
    let mut gateway = gateway();
    ready(&mut gateway);
    assert_eq!(send(&mut gateway, 1, "look", &["a.png", "b.png"]), ["1 fetches 2 None"]);
    assert!(say(&mut gateway, 2, USER, "and?").is_empty(), "in their order");
    assert_eq!(
        send(&mut gateway, 3, "more", &["c.png"]),
        ["3 fetches 1 None"],
        "at once, not only when it is its turn"
    );
    assert!(fetched(&mut gateway, 3, vec![there("c.png")]).is_empty());
    let missing = Err("the file is gone".to_owned());
    assert_eq!(
        fetched(&mut gateway, 1, vec![there("a.png"), missing]),
        ["1 starts", "default <- 1 None look\n[image: b.png (could not be fetched: the file is gone)] +a.png"]
    );
    assert!(fetched(&mut gateway, 1, vec![there("late")]).is_empty(), "it is asked once");
    assert_eq!(short(&event(&mut gateway, ended(1, end_turn())))[2], "default <- 2 None and?");
    assert_eq!(short(&event(&mut gateway, ended(2, end_turn())))[2], "default <- 3 None more +c.png");
}

#[test]
fn whoever_serves_next_asks_for_what_was_not_fetched() {
    let mut gateway = gateway();
    send(&mut gateway, 1, "look", &["a.png"]);
    send(&mut gateway, 2, "and", &["b.png"]);
    fetched(&mut gateway, 1, vec![there("a.png")]);
    let mut effects = Vec::new();
    gateway.hold(true, &mut effects);
    gateway.hold(false, &mut effects);
    assert!(effects.is_empty(), "after a thaw the platform is at it still");
    let mut gateway = carried(&gateway, &["default", "other"]);
    ready(&mut gateway);
    gateway.hold(false, &mut effects);
    assert_eq!(short(&effects), ["2 fetches 1 None"]);
    assert_eq!(gateway.turns_in_flight(), 1, "the other has its file");
    // After a kill the store has the message alone.
    let mut gateway = super::gateway();
    ready(&mut gateway);
    let now = UnixMillis::now();
    let open = OpenTurn { turn: TurnId(3), inbound: sent("look", "c", &["a.png"]), running: false, received_at: now };
    effects.clear();
    gateway.recover(open, &mut effects);
    assert_eq!(short(&effects), ["3 fetches 1 None"]);
    assert_eq!(fetched(&mut gateway, 3, Vec::new())[1], {
        "default <- 3 None look\n[image: a.png (could not be fetched: nobody knows of it)]"
    });
}

#[test]
fn what_is_asked_again_has_its_files_again() {
    let mut gateway = gateway();
    ready(&mut gateway);
    send(&mut gateway, 1, "look", &["a.png"]);
    fetched(&mut gateway, 1, vec![there("a.png")]);
    event(&mut gateway, ended(1, end_turn()));
    let mut gateway = carried(&gateway, &["default", "other"]);
    ready(&mut gateway);
    let asked = short(&say(&mut gateway, 2, USER, "/retry"));
    assert_eq!(asked, ["2 is closed", "2 is queued as look +file", "2 fetches 1 Some(TurnId(1))"]);
    assert_eq!(fetched(&mut gateway, 2, vec![there("a.png")])[1], "default <- 2 None look +a.png");
    event(&mut gateway, ended(2, end_turn()));
    say(&mut gateway, 3, USER, "/new");
    assert!(short(&say(&mut gateway, 4, USER, "/retry"))[1].starts_with("notice "), "nothing is left of it");
}

#[test]
fn what_is_too_much_in_one_message_is_named_only() {
    let mut gateway = gateway();
    ready(&mut gateway);
    let names: Vec<String> = (0..52).map(|n| format!("{n}.png")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(send(&mut gateway, 1, "look", &names), ["1 fetches 50 None"]);
    let asked = fetched(&mut gateway, 1, names[..50].iter().map(|name| there(name)).collect());
    assert_eq!(asked[1].matches(" +").count(), 50);
    let named = "look\n[image: 50.png (could not be fetched: there are too many in one message)]\n[image: 51.png ";
    assert!(asked[1].contains(named), "{asked:?}");
}

#[test]
fn files_of_somebody_who_may_not_talk_are_not_fetched() {
    let mut gateway = gateway();
    let mut effects = Vec::new();
    let inbound = Inbound { sender: Sender { id: "3".into(), name: "N".into() }, ..sent("look", "c", &["a.png"]) };
    gateway.inbound(TurnId(1), inbound, &mut effects);
    assert!(short(&effects).iter().all(|effect| !effect.contains("fetches")), "{effects:?}");
}

#[test]
fn an_image_that_knows_nothing_of_files_asks_by_the_text() {
    let mut gateway = gateway();
    send(&mut gateway, 1, "look", &["a.png"]);
    let mut state = serde_json::to_value(gateway.state()).expect("serialises");
    let waiting = &mut state["talks"][0]["queue"][0];
    assert_eq!(waiting["text"], "look\n[image: a.png]");
    waiting.as_object_mut().expect("an object").remove("files");
    let state = serde_json::from_value(state).expect("reads back");
    let mut gateway = Gateway::restore(access(), [AgentName::from("default")], state);
    assert_eq!(short(&ready(&mut gateway))[1], "default <- 1 None look\n[image: a.png]");
}

#[test]
fn a_file_is_shown_in_its_place_and_again_after_a_kill() {
    let file = |number, at| {
        let content = Content::Kept { path: "/f".into(), bytes: 1 };
        OutFile { number, at, name: "f".into(), mime: None, content }
    };
    let mut gateway = gateway();
    ready(&mut gateway);
    say(&mut gateway, 1, USER, "x");
    let update = TurnUpdate::File(file(0, 0));
    let effects = event(&mut gateway, AgentEvent::Update { turn: TurnId(1), update });
    let [Effect::Show(Outbound { content: OutboundContent::Reply { step: ReplyStep::File(shown), .. }, .. })] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*shown, file(0, 0));
    let open = OpenTurn { turn: TurnId(2), inbound: said(USER, "d", "x"), running: true, received_at: UnixMillis(1) };
    let (files, outcome) = (vec![file(0, 0), file(1, 3)], Some(end_turn()));
    let said =
        RecoveredTurn { turn: TurnId(2), session: None, text: "abécd".into(), files, outcome, permissions: vec![] };
    let mut effects = Vec::new();
    gateway.take_up(open, "default".into(), said, &mut effects);
    let shown: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Show(Outbound { content: OutboundContent::Reply { step, .. }, .. }) => Some(match step {
                ReplyStep::SoFar(text) => text.clone(),
                ReplyStep::File(file) => file.number.to_string(),
                other => panic!("{other:?}"),
            }),
            _ => None,
        })
        .collect();
    // No character is cut in two, wherever a file is said to stand.
    assert_eq!(shown, ["", "0", "ab", "1", "abécd"]);
    assert!(matches!(effects.last(), Some(Effect::Finish { files, .. }) if files.len() == 2), "{effects:?}");
}
