//! Generated histories of delivery: whatever fails, and whenever the image is replaced or killed.

use proptest::prelude::*;

use super::*;

const TURNS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Notice(usize),
    Begin(usize),
    Delta(usize, usize),
    Paragraph(usize),
    Activity(usize),
    File(usize),
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
        2 => (0..TURNS).prop_map(Op::Paragraph),
        1 => (0..TURNS).prop_map(Op::Activity),
        2 => (0..TURNS).prop_map(Op::File),
        1 => (0..TURNS).prop_map(Op::End),
        4 => (0..3000u64).prop_map(Op::Pass),
        6 => (0..4usize, 0..8usize).prop_map(|(at, how)| Op::Finish(at, how)),
        1 => any::<bool>().prop_map(Op::HandOff),
        1 => any::<(bool, bool)>().prop_map(|(carried_out, recorded)| Op::Kill(carried_out, recorded)),
    ]
}

/// A failure after which the message is not in the chat and is tried again.
fn failure(how: usize) -> Option<Unsent> {
    match how {
        0..3 => Some(Unsent { is_ambiguous: how < 2, ..again(None) }),
        _ => None,
    }
}

fn run(growth: fn(&str) -> Growth, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut world = World::with(growth);
    let chat = |turn: usize| ["1", "-2"][turn % 2];
    let letter = |turn: usize| ["a", "b", "c", "d"][turn];
    let (mut begun, mut ended, mut notices) = ([false; TURNS], [false; TURNS], [0, 0]);
    let mut said: [String; TURNS] = Default::default();
    let mut files: [Vec<OutFile>; TURNS] = Default::default();
    let all_end = (0..TURNS).flat_map(|turn| [Op::Begin(turn), Op::End(turn)]);
    for op in ops.into_iter().chain(all_end) {
        let turn_id = |turn: usize| i64::try_from(turn).expect("small");
        if let Some(turn) = turn_of(&op) {
            begun[turn] = true;
        }
        match op {
            Op::Notice(at) => {
                notices[at] += 1;
                world.push(notice(chat(at), &format!("<{}>", notices[at])));
            }
            op if turn_of(&op).is_some_and(|turn| ended[turn]) => {}
            Op::Begin(turn) => world.push(step(chat(turn), turn_id(turn), ReplyStep::Begin)),
            Op::Delta(turn, more) => {
                said[turn].push_str(&letter(turn).repeat(more));
                world.push(step(chat(turn), turn_id(turn), ReplyStep::Delta(letter(turn).repeat(more))));
            }
            Op::Paragraph(turn) => {
                said[turn].push_str("\n\n");
                world.push(step(chat(turn), turn_id(turn), ReplyStep::Delta("\n\n".to_owned())));
            }
            Op::Activity(turn) => world.push(step(chat(turn), turn_id(turn), ReplyStep::Activity("T".into()))),
            Op::File(turn) => {
                let number = u32::try_from(files[turn].len()).expect("few");
                let given = file(number, said[turn].len(), &format!("{}{number}", letter(turn)));
                files[turn].push(given.clone());
                world.push(step(chat(turn), turn_id(turn), ReplyStep::File(given)));
            }
            Op::End(turn) => {
                ended[turn] = true;
                world.push(step(chat(turn), turn_id(turn), ReplyStep::End(ReplyEnd::Complete)));
            }
            Op::Pass(millis) => world.pass(Duration::from_millis(millis)),
            Op::Finish(at, how) if !world.in_flight.is_empty() => {
                let is_file = matches!(world.in_flight[at % world.in_flight.len()].action, Action::Attach(_));
                let refused = (how == 3 && is_file).then(|| unsent(Failure::Refused));
                world.finish(at, refused.or_else(|| failure(how)));
            }
            Op::Finish(..) => {}
            Op::HandOff(carried_out) => world.hand_off(carried_out),
            Op::Kill(carried_out, recorded) => {
                if recorded {
                    world.find();
                }
                world.kill(carried_out);
                for turn in (0..TURNS).filter(|&turn| begun[turn] && !ended[turn]) {
                    for again in so_far(&said[turn], &files[turn]) {
                        world.push(step(chat(turn), turn_id(turn), again));
                    }
                }
            }
        }
        world.start(Pace::Streaming);
    }
    world.settle();
    check(&world, &said, notices)?;
    check_files(&world, &said, &files)?;
    world.find();
    let outcomes: Vec<Outcome> = world.ledger.over.values().copied().collect();
    prop_assert_eq!(outcomes, vec![Outcome::Delivered; world.ledger.entries.len()]);
    Ok(())
}

fn turn_of(op: &Op) -> Option<usize> {
    match op {
        Op::Begin(turn)
        | Op::Delta(turn, _)
        | Op::Paragraph(turn)
        | Op::Activity(turn)
        | Op::File(turn)
        | Op::End(turn) => Some(*turn),
        _ => None,
    }
}

fn unmarked(text: &str) -> &str {
    let words = Language::En.words();
    [words.recovered(), words.sent_again()].iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text)
}

/// All text is in its chat, in order; nothing twice without the mark.
fn check(world: &World, said: &[String; TURNS], notices: [usize; 2]) -> Result<(), TestCaseError> {
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
    for (turn, said) in said.iter().enumerate() {
        let letter = ['a', 'b', 'c', 'd'][turn];
        let letters = |text: &str| text.chars().filter(|c| *c == letter).count();
        let is_of_turn = |text: &&str| unmarked(text).trim_start().starts_with(letter);
        let of_turn = world.shown(["1", "-2"][turn % 2]).into_iter().filter(is_of_turn);
        let shown: usize = of_turn.map(|text| letters(unmarked(text))).sum();
        let wanted = letters(said);
        // What is shown beyond the text is a message of unknown fate.
        prop_assert!(shown == wanted || (world.doubted && shown > wanted), "turn {} has {} of {}", turn, shown, wanted);
    }
    Ok(())
}

/// Each file, or a word in its place, is in its chat, in order, behind the text that stands before it; none twice without
/// the mark.
fn check_files(world: &World, said: &[String; TURNS], files: &[Vec<OutFile>; TURNS]) -> Result<(), TestCaseError> {
    for (turn, files) in files.iter().enumerate() {
        let letter = ['a', 'b', 'c', 'd'][turn];
        let (mut letters, mut shown): (usize, Vec<&str>) = (0, Vec::new());
        for text in world.shown(["1", "-2"][turn % 2]) {
            let Some((mark, name)) = text.split_once("📎 ") else {
                let text = unmarked(text).trim_start();
                letters += if text.starts_with(letter) { text.chars().filter(|c| *c == letter).count() } else { 0 };
                continue;
            };
            let name = name.split(' ').next().unwrap_or_default();
            let Some(number) = name.strip_prefix(letter).and_then(|number| number.parse::<usize>().ok()) else {
                continue;
            };
            prop_assert!(shown.last() != Some(&name) || !mark.is_empty(), "an unmarked duplicate of {}", name);
            let before = said[turn][..files[number].at].chars().filter(|c| *c == letter).count();
            prop_assert!(world.doubted || letters == before, "{} stands behind {} of {}", name, letters, before);
            shown.push(name);
        }
        shown.dedup();
        prop_assert_eq!(shown, files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_fails_all_is_shown_and_found_delivered(ops in proptest::collection::vec(op(), 1..120)) {
        run(|_| Growth::Edit, ops)?;
    }

    #[test]
    fn so_it_is_where_replies_grow_as_drafts(ops in proptest::collection::vec(op(), 1..120)) {
        run(|_| Growth::Draft, ops)?;
    }

    #[test]
    fn so_it_is_where_replies_grow_in_cards(ops in proptest::collection::vec(op(), 1..120)) {
        run(|_| Growth::Card, ops)?;
    }

    #[test]
    fn so_it_is_where_nothing_can_be_edited(ops in proptest::collection::vec(op(), 1..120)) {
        run(|_| Growth::Blocks, ops)?;
    }
}
