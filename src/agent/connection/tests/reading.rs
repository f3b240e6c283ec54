//! Prompts with files.

use super::*;
use crate::agent::magic::Medium;

#[test]
fn a_prompt_with_files_is_given_once_they_are_read_wherever_the_process_dies() {
    let question = || Question { text: "look".into(), files: vec![file()] };
    let mut connection = ready(json!({"loadSession": true}));
    connection.prompt(NOW, TurnId(1), None, question());
    reply(&mut connection, json!({"sessionId": "s"}));
    sent(&mut connection);
    // Nothing was given, so the next process may have it; whoever takes over reads the files again.
    connection.break_off(NOW, "gone", |_| String::new());
    connection.start(NOW, 8, &spec());
    reply(&mut connection, json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}}));
    reply(&mut connection, json!({}));
    reply(&mut connection, json!({"sessionId": "t"}));
    assert!(connection.next_reading().is_some() && connection.next_reading().is_none(), "once");
    let mut connection = carried(&connection);
    sent(&mut connection);
    read(&mut connection);
    let given = sent(&mut connection);
    let text = format!("{given:?}");
    assert!(given.len() == 1 && text.contains("file:///h/a.pdf") && text.contains("look"), "{text}");
    // It is given without them if they cannot be read in time.
    connection.prompt(NOW, TurnId(2), None, question());
    reply(&mut connection, json!({"sessionId": "u"}));
    sent(&mut connection);
    let late = connection.next_deadline().expect("it does not wait for ever");
    connection.expire(late);
    let text = format!("{:?}", sent(&mut connection));
    assert!(text.contains("[file: a.pdf (could not be read: it took too long)]"), "{text}");
    // A turn that was stopped meanwhile is not asked.
    connection.prompt(late, TurnId(3), None, question());
    reply(&mut connection, json!({"sessionId": "v"}));
    sent(&mut connection);
    connection.cancel(late, TurnId(3));
    read(&mut connection);
    assert!(sent(&mut connection).is_empty());
}

#[test]
fn a_slow_agent_gets_the_way_to_a_picture_where_there_is_no_room_for_it() {
    let mut connection = ready(json!({}));
    connection.limits.outgoing_bytes_max = 1000;
    connection.prompt(NOW, TurnId(1), None, Question { text: "look".into(), files: vec![file()] });
    reply(&mut connection, json!({"sessionId": "s"}));
    sent(&mut connection);
    let link = Link { name: "a".into(), uri: "file:///h/a".into(), mime: Some("image/png".into()), size_bytes: 1 };
    let inline = Given::Inline { medium: Medium::Image, data: "A".repeat(800), link };
    assert!(connection.next_reading().is_some());
    connection.read(TurnId(1), vec![inline]);
    assert_eq!(connection.take_fault(), None, "it is not ended for a picture");
    assert!(format!("{:?}", sent(&mut connection)).contains("resource_link"));
}

#[test]
fn a_prompt_with_files_is_known_again_however_its_agent_keeps_it() {
    let kept: [&[&str]; 4] =
        [&["look"], &["[a.pdf](file:///h/a.pdf)", "look"], &["file:///h/a.pdf\nlook"], &["something else"]];
    for (pieces, is_known) in kept.into_iter().zip([true, true, true, false]) {
        let mut connection = ready(json!({"loadSession": true}));
        connection.prompt(NOW, TurnId(1), None, Question { text: "look".into(), files: vec![file()] });
        reply(&mut connection, json!({"sessionId": "s"}));
        sent(&mut connection);
        read(&mut connection);
        sent(&mut connection);
        connection.break_off(NOW, "gone", |_| String::new());
        connection.start(NOW, 8, &spec());
        reply(&mut connection, json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}}));
        pieces.iter().for_each(|said| piece(&mut connection, "s", "user_message_chunk", said));
        piece(&mut connection, "s", "agent_message_chunk", "seen");
        reply(&mut connection, json!({}));
        let told = format!("{:?}", events(&mut connection));
        assert_eq!(told.contains("SoFar(\"seen\")"), is_known, "{pieces:?}: {told}");
    }
}
