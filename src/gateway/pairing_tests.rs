use proptest::prelude::*;

use super::*;
use crate::chat::{Conversation, Sender};

const MINUTE_MS: i64 = 60_000;

fn inbound(user: u8) -> Inbound {
    Inbound {
        conversation: Conversation::new("telegram", format!("c{user}")),
        account: "bot".into(),
        message_id: "m".into(),
        sender: Sender { id: user.to_string(), name: "N".into() },
        sent_at: UnixMillis(0),
        text: "hello".into(),
        is_direct: true,
        attachments: Vec::new(),
        context: None,
    }
}

fn platform() -> PlatformName {
    "telegram".into()
}

/// A code of its own for each number.
fn numbered(number: u8) -> String {
    code([number, number / 32, 0, 0, 0, 0, 0, 0])
}

fn given(knock: Knock) -> Option<String> {
    match knock {
        Knock::Code(code) => Some(code),
        Knock::Told | Knock::Full => None,
    }
}

#[test]
fn a_code_is_eight_characters_that_are_not_mistaken() {
    assert_eq!(code([0, 31, 32, 255, 8, 9, 10, 23]), "A9A9JKLZ");
    assert!(ALPHABET.iter().all(|c| !b"0O1I".contains(c)));
    assert_eq!(ALPHABET.iter().collect::<std::collections::BTreeSet<_>>().len(), 32);
}

#[test]
fn a_code_may_be_typed_carelessly_and_lets_in_one_person_to_talk() {
    let mut pairings = Pairings::default();
    let code =
        given(pairings.knock(&inbound(1), UnixMillis(0), || Some("ABCD2345".into()), &mut Vec::new())).expect("a code");
    let mut changes = Vec::new();
    let approved = pairings.approve(&platform(), " abcd-2345\n", UnixMillis(1), &mut changes).expect("it is open");
    assert_eq!((approved.user.as_str(), code.as_str()), ("1", "ABCD2345"));
    assert!(pairings.is_approved(&platform(), "1") && !pairings.is_approved(&"weixin".into(), "1"));
    let again = pairings.approve(&platform(), &code, UnixMillis(2), &mut changes);
    assert_eq!(again, Err(Refused::Wrong { tries_left: 4 }), "a code is good once");
}

#[test]
fn a_right_code_is_refused_while_approving_is_locked_and_the_lock_outlives_the_process() {
    let mut pairings = Pairings::default();
    let mut now = UnixMillis(0);
    let code = given(pairings.knock(&inbound(1), now, || Some("ABCD2345".into()), &mut Vec::new())).expect("a code");
    let mut changes = Vec::new();
    for _ in 0..WRONG_MAX {
        now.0 += 1;
        pairings.approve(&platform(), "WRONG", now, &mut changes).expect_err("it is wrong");
    }
    let Some(Change::Meta(WRONG_KEY, wrong)) = changes.pop() else { panic!("the count is kept: {changes:?}") };
    let mut later = Pairings::new(pairings.list(now).cloned().collect::<Vec<_>>(), Some(&wrong));
    assert_eq!(later, pairings);
    let locked = later.approve(&platform(), &code, now, &mut changes).expect_err("locked");
    assert_eq!(locked, Refused::Locked { left: LOCK });
    assert_eq!(locked.to_string(), "too many codes were wrong; nothing is approved there for another 60 min");
    // By then that code has expired as well; another one is approved.
    now.0 += 60 * MINUTE_MS;
    let code = given(later.knock(&inbound(1), now, || Some("EFGH2345".into()), &mut Vec::new())).expect("another code");
    later.approve(&platform(), &code, now, &mut changes).expect("the lock is over");
    assert_eq!(Pairings::new([], Some("not JSON")), Pairings::default());
}

#[derive(Clone, Debug)]
enum Op {
    Knock(u8),
    /// The code that somebody was given last.
    Approve(u8),
    ApproveWrong,
    Revoke(u8),
    /// The clock goes on, or is set back.
    Minutes(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..6).prop_map(Op::Knock),
        3 => (0u8..6).prop_map(Op::Approve),
        2 => Just(Op::ApproveWrong),
        1 => (0u8..6).prop_map(Op::Revoke),
        3 => (0i64..40).prop_map(Op::Minutes),
        1 => Just(Op::Minutes(61)),
        1 => (-90i64..0).prop_map(Op::Minutes),
    ]
}

/// What people and the operator know.
#[derive(Default)]
struct World {
    /// The code each was given last, when it was made, and when it was told last.
    given: BTreeMap<u8, (String, i64, i64)>,
    approved: std::collections::BTreeSet<u8>,
    /// When wrong codes were entered, since the last right one.
    wrong: Vec<i64>,
}

impl World {
    fn is_open(&self, user: u8, now: i64) -> bool {
        self.given.get(&user).is_some_and(|(_, made, _)| *made <= now && now - made < 60)
    }

    fn is_locked(&self, now: i64) -> bool {
        let last = self.wrong.last();
        self.wrong.len() >= 5 && last.is_some_and(|last| *last <= now && now - last < 60)
    }
}

proptest! {
    #[test]
    fn nobody_is_let_in_but_by_an_open_code(ops in prop::collection::vec(op(), 1..120)) {
        let mut pairings = Pairings::default();
        let mut world = World::default();
        // What the store has.
        let (mut kept, mut wrong) = (BTreeMap::new(), None);
        let (mut minute, mut made) = (1000i64, 0u8);
        for op in ops {
            let now = UnixMillis(minute * MINUTE_MS);
            let mut changes = Vec::new();
            let does_nothing = match op {
                Op::Knock(user) => world.approved.contains(&user),
                Op::Approve(user) => !world.given.contains_key(&user),
                Op::ApproveWrong | Op::Revoke(_) | Op::Minutes(_) => false,
            };
            if does_nothing {
                continue;
            }
            let right = matches!(op, Op::Approve(user) if world.is_open(user, minute));
            let given = world.given.clone();
            if !matches!(op, Op::Revoke(_) | Op::Minutes(_)) {
                world.forget_expired(minute);
            }
            match op {
                Op::Knock(user) => {
                    let make = || {
                        made = made.wrapping_add(1);
                        Some(numbered(made))
                    };
                    let knock = pairings.knock(&inbound(user), now, make, &mut changes);
                    let open = (0..6).filter(|user| world.is_open(*user, minute)).count();
                    match knock {
                        Knock::Code(code) => {
                            if world.is_open(user, minute) {
                                let (known, _, told) = world.given.get_mut(&user).expect("it is open");
                                prop_assert_eq!(&*known, &code, "the same code while it is open");
                                prop_assert!(minute - *told >= 60 || *told > minute, "told once in an hour");
                                *told = minute;
                            } else {
                                prop_assert!(open < OPEN_MAX);
                                let others = world.given.iter().filter(|(user, _)| world.is_open(**user, minute));
                                prop_assert!(others.into_iter().all(|(_, (other, ..))| *other != code));
                                world.given.insert(user, (code, minute, minute));
                            }
                        }
                        Knock::Told => prop_assert!(world.is_open(user, minute)),
                        Knock::Full => {
                            prop_assert!(!world.is_open(user, minute));
                            prop_assert_eq!(open, OPEN_MAX);
                        }
                    }
                }
                Op::Approve(user) => {
                    let (code, ..) = &given[&user];
                    match pairings.approve(&platform(), code, now, &mut changes) {
                        Ok(row) => {
                            prop_assert!(right && !world.is_locked(minute));
                            prop_assert_eq!(row.user, user.to_string());
                            world.given.remove(&user);
                            world.approved.insert(user);
                            world.wrong.clear();
                        }
                        Err(_) if world.is_locked(minute) => {}
                        Err(_) => {
                            prop_assert!(!right);
                            world.enter_wrong(minute);
                        }
                    }
                }
                Op::ApproveWrong => {
                    let refused = pairings.approve(&platform(), "ZZZZ", now, &mut changes).expect_err("it is wrong");
                    if !world.is_locked(minute) {
                        world.enter_wrong(minute);
                    }
                    prop_assert_eq!(matches!(refused, Refused::Locked { .. }), world.is_locked(minute));
                }
                Op::Revoke(user) => {
                    pairings.revoke(&platform(), &user.to_string(), &mut changes);
                    world.given.remove(&user);
                    world.approved.remove(&user);
                }
                Op::Minutes(minutes) => minute += minutes,
            }
            for change in changes {
                match change {
                    Change::Pairing(row) => drop(kept.insert(row.user.clone(), row)),
                    Change::Unpair(_, user) => drop(kept.remove(&user)),
                    Change::Meta(WRONG_KEY, value) => wrong = Some(value),
                    other => panic!("{other:?}"),
                }
            }
            for user in 0..6 {
                prop_assert_eq!(pairings.is_approved(&platform(), &user.to_string()), world.approved.contains(&user));
            }
            prop_assert_eq!(&Pairings::new(kept.values().cloned(), wrong.as_deref()), &pairings, "as a kill finds it");
        }
    }
}

impl World {
    fn forget_expired(&mut self, minute: i64) {
        self.given.retain(|_, (_, made, _)| *made <= minute && minute - *made < 60);
    }

    fn enter_wrong(&mut self, minute: i64) {
        if self.wrong.last().is_some_and(|last| *last > minute || minute - last >= 60) {
            self.wrong.clear();
        }
        self.wrong.push(minute);
    }
}
