//! What `scripts/soak` judges by: every kind of mistake is planted in a chat and must be found, and what is right must
//! pass. And its schedule: a function of the seed alone, with as much of everything as was asked for.

#[path = "../../scripts/soak-judge.rs"]
mod judge;
#[path = "../../scripts/soak-schedule.rs"]
mod schedule;

use judge::{Asked, Kind, MARKER, Shown, Verdict, judge};
use schedule::{Act, Amount, Handoff, Schedule, Step, What};

/// The process was killed then.
const KILL: u64 = 1_000;
const FAILED: &str = "❌ the gateway was killed while your message was being answered";

/// Messages that are answered by themselves, one every 100 ms from 100 ms on.
fn asked(texts: &[&str]) -> Vec<Asked> {
    let asked = |(index, text): (usize, &&str)| Asked {
        text: (*text).to_owned(),
        answer: (*text).to_owned(),
        at_ms: 100 * (u64::try_from(index).expect("few") + 1),
    };
    texts.iter().enumerate().map(asked).collect()
}

fn shown(texts: &[(u64, &str)]) -> Vec<Shown> {
    texts.iter().map(|(at_ms, text)| Shown { text: (*text).to_owned(), at_ms: *at_ms }).collect()
}

fn kinds(verdict: &Verdict) -> Vec<Kind> {
    verdict.faults.iter().map(|fault| fault.kind).collect()
}

/// What is found where "a", "b" and "c" were said.
fn found(texts: &[(u64, &str)], kills: &[u64]) -> Vec<Kind> {
    kinds(&judge(&asked(&["a", "b", "c"]), &shown(texts), kills))
}

fn marked(text: &str) -> String {
    format!("{MARKER}{text}")
}

#[test]
fn what_is_right_passes() {
    let verdict = judge(&asked(&["a", "b", "c"]), &shown(&[(150, "a"), (250, "b"), (350, "c")]), &[KILL]);
    assert_eq!(verdict, Verdict { asked: 3, answered: 3, ..Verdict::default() });
}

#[test]
fn a_loss_is_found() {
    assert_eq!(found(&[(150, "a"), (350, "c")], &[]), [Kind::Lost]);
    assert_eq!(found(&[], &[]), [Kind::Lost; 3]);
    let harmless = "⚠ Agent 'default' does not run (x); it is started again in 1 s. Your message waits.";
    assert_eq!(found(&[(150, "a"), (250, harmless), (350, "c")], &[]), [Kind::Lost], "a notice of something else");
    assert_eq!(found(&[(150, "a"), (150, FAILED), (350, "c")], &[]), [Kind::Lost], "told before it was asked");
}

#[test]
fn a_loss_that_is_told_is_none_and_each_word_counts_once() {
    let verdict = judge(&asked(&["a", "b", "c"]), &shown(&[(150, "a"), (250, FAILED), (350, "c")]), &[]);
    assert_eq!(verdict.reasons, [(FAILED.to_owned(), 1)].into());
    assert_eq!((verdict.answered, verdict.told, kinds(&verdict)), (2, 1, vec![]));
    assert_eq!(found(&[(150, "a"), (350, FAILED)], &[]), [Kind::Lost]);
    let both = format!("{FAILED}\n\n{FAILED}");
    assert_eq!(found(&[(150, "a"), (350, &both)], &[]), []);
    let verdict = judge(&asked(&["a"]), &shown(&[(150, "a"), (160, FAILED)]), &[]);
    assert_eq!((verdict.needless, verdict.answered), (1, 1), "a failure that was none");
}

#[test]
fn a_double_is_found() {
    assert_eq!(found(&[(150, "a"), (160, "a"), (250, "b"), (350, "c")], &[]), [Kind::Doubled]);
    assert_eq!(
        found(&[(150, "a"), (250, "b"), (350, "c"), (1_500, "a")], &[KILL]),
        [Kind::Doubled],
        "after a kill too"
    );
    let thrice = [(150, "a"), (250, "b"), (350, "c"), (360, "c"), (370, "c")];
    assert_eq!(found(&thrice, &[]), [Kind::Doubled; 2]);
}

#[test]
fn a_repeat_needs_the_marker_and_a_kill_in_its_delivery() {
    let c = marked("c");
    let texts = [(150, "a"), (250, "b"), (990, "c"), (1_500, c.as_str())];
    assert_eq!(found(&texts, &[KILL]), []);
    assert_eq!(found(&texts, &[]), [Kind::Unfounded], "no kill");
    assert_eq!(found(&texts, &[300]), [Kind::Unfounded], "a kill long before");
    assert_eq!(found(&texts, &[1_600]), [Kind::Unfounded], "a kill afterwards");
    let b = marked("b");
    let texts = [(150, "a"), (250, "b"), (990, "c"), (1_500, b.as_str())];
    assert_eq!(found(&texts, &[KILL]), [Kind::Unfounded], "delivered long before the kill");
    let verdict = judge(&asked(&["a"]), &shown(&[(1_500, &marked("a"))]), &[KILL]);
    assert_eq!((verdict.marked, verdict.repeated, verdict.faults.len()), (1, 0, 0), "it had not arrived");
    let verdict = judge(&asked(&["a"]), &shown(&[(1_500, &marked("a"))]), &[50]);
    assert_eq!(kinds(&verdict), [Kind::Unfounded], "said after the last kill");
}

#[test]
fn a_wrong_order_is_found() {
    assert_eq!(found(&[(150, "b"), (250, "a"), (350, "c")], &[]), [Kind::Disordered]);
    assert_eq!(found(&[(150, "a"), (350, "c"), (360, "b")], &[KILL]), [Kind::Disordered]);
}

#[test]
fn nobodys_answer_is_found() {
    assert_eq!(found(&[(150, "a"), (250, "b"), (350, "c"), (360, "d")], &[]), [Kind::Strange]);
    assert_eq!(found(&[(150, "a"), (250, "b"), (350, "(no answer)")], &[]), [Kind::Strange, Kind::Lost]);
}

/// A streamed answer "0123456789" to the first message, and "b" to the second.
fn streamed(texts: &[(u64, &str)], kills: &[u64]) -> Verdict {
    let mut asked = asked(&["stream", "b"]);
    asked[0].answer = "0123456789".to_owned();
    judge(&asked, &shown(texts), kills)
}

#[test]
fn an_answer_may_stand_in_several_messages() {
    assert_eq!(kinds(&streamed(&[(150, "01234"), (160, "56789"), (250, "b")], &[])), []);
    assert_eq!(kinds(&streamed(&[(150, "01234"), (250, "b")], &[])), [Kind::Lost], "the end of it");
    assert_eq!(kinds(&streamed(&[(150, "01234"), (160, "6789"), (250, "b")], &[])), [Kind::Strange, Kind::Lost]);
    assert_eq!(kinds(&streamed(&[(150, "01234"), (250, "b"), (260, "56789")], &[])), [Kind::Disordered]);
    assert_eq!(kinds(&streamed(&[(150, "01234"), (160, "0123456789"), (250, "b")], &[])), [Kind::Doubled]);
    assert_eq!(kinds(&streamed(&[(150, "01234"), (160, "01234"), (170, "56789"), (250, "b")], &[])), [Kind::Doubled]);
}

#[test]
fn an_answer_that_was_cut_off_is_repeated_or_told_about() {
    let whole = marked("0123456789");
    let verdict = streamed(&[(990, "01234"), (1_500, &whole), (1_600, "b")], &[KILL]);
    assert_eq!((kinds(&verdict), verdict.answered, verdict.repeated), (vec![], 2, 1));
    let half = marked("56789");
    let verdict = streamed(&[(500, "01234"), (990, "56789"), (1_500, &half), (1_600, "b")], &[KILL]);
    assert_eq!((kinds(&verdict), verdict.answered, verdict.repeated), (vec![], 2, 1));
    let verdict = streamed(&[(150, "01234\n\n"), (160, FAILED), (250, "b")], &[KILL]);
    assert_eq!((kinds(&verdict), verdict.answered, verdict.told), (vec![], 1, 1), "the failure did not fit");
    let told = format!("01234\n\n{FAILED}");
    let verdict = streamed(&[(150, &told), (250, "b")], &[KILL]);
    assert_eq!((kinds(&verdict), verdict.answered, verdict.told), (vec![], 1, 1));
}

#[test]
fn all_chats_are_added_up() {
    let mut all = judge(&asked(&["a"]), &shown(&[(150, "a")]), &[]);
    all.add(judge(&asked(&["b"]), &shown(&[]), &[]));
    assert_eq!((all.asked, all.answered, all.of(Kind::Lost).count()), (2, 1, 1));
    assert_eq!(Kind::ALL.map(Kind::name).len(), 5);
}

const AMOUNT: Amount = Amount { handoffs: 50, kills: 50, agent_kills: 15, chats: 20, agents: 6 };
const DECK: usize = 115;

fn steps(seed: u64, count: usize) -> Vec<Step> {
    Schedule::new(seed, AMOUNT).take(count).collect()
}

#[test]
fn the_schedule_is_a_function_of_the_seed() {
    assert_eq!(steps(7, 3 * DECK), steps(7, 3 * DECK));
    assert_ne!(steps(7, DECK), steps(8, DECK));
}

#[test]
fn a_deck_has_as_much_of_everything_as_was_asked_for() {
    let steps = steps(7, DECK);
    let count = |wanted: fn(&Act) -> bool| steps.iter().filter(|step| wanted(&step.act)).count();
    assert_eq!(count(|act| matches!(act, Act::Handoff { .. })), AMOUNT.handoffs);
    assert_eq!(count(|act| matches!(act, Act::Kill | Act::KillInHandoff { .. })), AMOUNT.kills);
    assert_eq!(count(|act| matches!(act, Act::KillAgent(agent) if *agent < 6)), AMOUNT.agent_kills);
    for wanted in [(|act| matches!(act, Act::Handoff { handoff: Handoff::Swap, .. })) as fn(&Act) -> bool, |act| {
        matches!(act, Act::KillInHandoff { after_ms: 0..=30, .. })
    }] {
        assert!(count(wanted) > 5);
    }
    let says = || steps.iter().flat_map(|step| step.before.iter().chain(&step.during));
    assert!(says().all(|say| say.chat < AMOUNT.chats));
    assert!(says().any(|say| matches!(say.what, What::Stream { .. })));
}
