//! Generated histories of delivery: whatever fails, and whenever the image is replaced or killed.

use proptest::prelude::*;

use super::*;

const TURNS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Notice(usize),
    Begin(usize),
    Delta(usize, usize),
    Activity(usize),
    End(usize),
    Pass(u64),
    Finish(usize, usize),
    HandOff(bool),
    Kill(bool, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..2usize).prop_map(Op::Notice),
        1 => (0..TURNS).prop_map(Op::Begin),
        6 => (0..TURNS, prop_oneof![1..300usize, 4000..9000usize]).prop_map(|(turn, length)| Op::Delta(turn, length)),
        1 => (0..TURNS).prop_map(Op::Activity),
        1 => (0..TURNS).prop_map(Op::End),
        4 => (0..3000u64).prop_map(Op::Pass),
        6 => (0..4usize, 0..8usize).prop_map(|(at, how)| Op::Finish(at, how)),
        1 => any::<bool>().prop_map(Op::HandOff),
        1 => any::<(bool, bool)>().prop_map(|(carried_out, recorded)| Op::Kill(carried_out, recorded)),
    ]
}

/// A failure after which the message is not in the chat and is tried again.
fn failure(how: usize) -> Option<TelegramError> {
    match how {
        0 => Some(refused(500, "Internal Server Error")),
        1 => Some(TelegramError::Timeout { method: "sendMessage", after: Duration::from_secs(30) }),
        2 => Some(refused(429, "Too Many Requests")),
        _ => None,
    }
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let chat = |turn: usize| ["1", "-2"][turn % 2];
    let letter = |turn: usize| ["a", "b", "c", "d"][turn];
    let (mut begun, mut ended, mut length, mut notices) = ([false; TURNS], [false; TURNS], [0; TURNS], [0, 0]);
    let all_end = (0..TURNS).flat_map(|turn| [Op::Begin(turn), Op::End(turn)]);
    for op in ops.into_iter().chain(all_end) {
        let turn_id = |turn: usize| i64::try_from(turn).expect("small");
        if let Op::Begin(turn) | Op::Delta(turn, _) | Op::Activity(turn) | Op::End(turn) = op {
            begun[turn] = true;
        }
        match op {
            Op::Notice(at) => {
                notices[at] += 1;
                world.push(notice(chat(at), &format!("<{}>", notices[at])));
            }
            Op::Begin(turn) | Op::Delta(turn, _) | Op::Activity(turn) | Op::End(turn) if ended[turn] => {}
            Op::Begin(turn) => world.push(step(chat(turn), turn_id(turn), ReplyStep::Begin)),
            Op::Delta(turn, more) => {
                length[turn] += more;
                world.push(step(chat(turn), turn_id(turn), ReplyStep::Delta(letter(turn).repeat(more))));
            }
            Op::Activity(turn) => world.push(step(chat(turn), turn_id(turn), ReplyStep::Activity("T".into()))),
            Op::End(turn) => {
                ended[turn] = true;
                world.push(step(chat(turn), turn_id(turn), ReplyStep::End(ReplyEnd::Complete)));
            }
            Op::Pass(millis) => world.pass(Duration::from_millis(millis)),
            Op::Finish(at, how) if !world.in_flight.is_empty() => world.finish(at, failure(how)),
            Op::Finish(..) => {}
            Op::HandOff(carried_out) => world.hand_off(carried_out),
            Op::Kill(carried_out, recorded) => {
                if recorded {
                    world.find();
                }
                world.kill(carried_out);
                for turn in (0..TURNS).filter(|&turn| begun[turn] && !ended[turn]) {
                    world.push(step(chat(turn), turn_id(turn), ReplyStep::SoFar(letter(turn).repeat(length[turn]))));
                }
            }
        }
        world.start(Pace::Streaming);
    }
    world.settle();
    check(&world, &length, notices)?;
    world.find();
    let outcomes: Vec<Outcome> = world.ledger.over.values().copied().collect();
    prop_assert_eq!(outcomes, vec![Outcome::Delivered; world.ledger.entries.len()]);
    Ok(())
}

fn unmarked(text: &str) -> &str {
    [RECOVERED, SENT_AGAIN].iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text)
}

/// All text is in its chat, in order; nothing twice without the mark.
fn check(world: &World, length: &[usize; TURNS], notices: [usize; 2]) -> Result<(), TestCaseError> {
    for (at, count) in notices.into_iter().enumerate() {
        let shown: Vec<&str> = world.shown(["1", "-2"][at]).into_iter().filter(|text| text.contains('<')).collect();
        let bare = |text: &&str| unmarked(text).to_owned();
        let mut once: Vec<String> = shown.iter().map(bare).collect();
        once.dedup();
        prop_assert_eq!(&once, &(1..=count).map(|n| format!("<{n}>")).collect::<Vec<_>>());
        for pair in shown.windows(2).filter(|pair| bare(&pair[0]) == bare(&pair[1])) {
            prop_assert!(unmarked(pair[1]).len() < pair[1].len(), "an unmarked duplicate");
        }
    }
    for (turn, &wanted) in length.iter().enumerate() {
        let letter = ['a', 'b', 'c', 'd'][turn];
        let of_turn = world.shown(["1", "-2"][turn % 2]).into_iter().filter(|text| text.ends_with(letter));
        let shown: usize = of_turn.map(|text| unmarked(text).len()).sum();
        // What is shown beyond the text is a message of unknown fate.
        prop_assert!(shown == wanted || (world.doubted && shown > wanted), "turn {} has {} of {}", turn, shown, wanted);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_fails_all_is_shown_and_found_delivered(ops in proptest::collection::vec(op(), 1..120)) {
        run(ops)?;
    }
}
