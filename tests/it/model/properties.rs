//! What must hold in every state, what must hold at rest, and what must be possible, or the rest would say nothing.

use stateright::Property;

use super::Setting;
use super::steps;
use super::world::{CHATS, Delivery, Id, Kind, Piece, Row, Shown, World};

pub const STORED: &str = "what is confirmed is stored";
pub const ONCE: &str = "nothing is told twice unmarked";
pub const DOUBTED: &str = "a marker is of a send that ended in doubt";
pub const GIVEN_ONCE: &str = "an agent gets a prompt at most once";
pub const ONE_TURN: &str = "a chat has at most one turn that runs";
pub const IN_ORDER: &str = "the answers in a chat are in the order of its messages";
pub const ANSWERED: &str = "at rest every message has one answer or one honest word, and nothing is pending";

pub const REPEATED: &str = "a part is shown twice, the second time marked";
pub const MARKED_FIRST: &str = "a part is shown once, and marked";
pub const TAKEN_UP: &str = "a turn is taken up after a kill and answered as a whole";
pub const BROKEN_OFF: &str = "an answer breaks off with the honest word";
pub const TWO_KILLS: &str = "a message is answered as a whole over two kills";
pub const NEXT_PROCESS: &str = "the agent dies, and its next process answers the next message";
pub const HANDED_OFF: &str = "a send is repeated because of a handoff alone";
pub const CAME_AGAIN: &str = "a message that comes again is dropped";
pub const OVERTAKEN: &str = "a command is answered before a reply is over";

/// What must hold, and what of the rest this setting makes possible.
pub fn all(setting: &Setting) -> Vec<Property<Setting>> {
    let possible = [
        Property::sometimes(REPEATED, |_, world| is_repeated(world)),
        Property::sometimes(MARKED_FIRST, |setting, world| is_marked_first(world) && is_at_rest(setting, world)),
        Property::sometimes(TAKEN_UP, |setting, world: &World| {
            world.history.taken_up && is_whole(setting, &told(world, 0)) && is_at_rest(setting, world)
        }),
        Property::sometimes(BROKEN_OFF, |_, world| shown(world).any(|one| one.part > 0 && one.piece == Piece::Word)),
        Property::sometimes(TWO_KILLS, |setting, world: &World| {
            setting.faults.crashes - world.left.crashes == 2 && is_whole(setting, &told(world, 0))
        }),
        Property::sometimes(NEXT_PROCESS, |setting, world: &World| {
            told(world, 0).ends_with(&[Piece::Word]) && world.agent.alive && is_whole(setting, &told(world, 1))
        }),
        Property::sometimes(HANDED_OFF, |setting, world: &World| {
            let only = setting.faults.handoffs - world.left.handoffs == setting.faults.in_all - world.left.in_all;
            only && is_repeated(world)
        }),
        Property::sometimes(CAME_AGAIN, |setting, world: &World| {
            world.left.repeats < setting.faults.repeats && is_at_rest(setting, world)
        }),
        Property::sometimes(OVERTAKEN, |_, world: &World| {
            let answer = world.server.shown[0].iter().position(|one| one.piece == Piece::Answer);
            answer.is_some_and(|at| at + 1 < world.server.shown[0].len())
        }),
    ];
    let possible = possible.into_iter().filter(|property| setting.possible.contains(&property.name));
    possible
        .chain([
            Property::always(STORED, |_, world| is_stored(world)),
            Property::always(ONCE, |_, world| is_told_once(world)),
            Property::always(DOUBTED, |_, world| is_doubted(world)),
            Property::always(GIVEN_ONCE, |_, world: &World| world.history.given.iter().all(|&times| times <= 1)),
            Property::always(ONE_TURN, has_one_turn),
            Property::always(IN_ORDER, is_in_order),
            Property::always(ANSWERED, |setting, world| !is_at_rest(setting, world) || is_answered(setting, world)),
        ])
        .collect()
}

fn shown(world: &World) -> impl Iterator<Item = &Shown> {
    world.server.shown.iter().flatten()
}

fn is_stored(world: &World) -> bool {
    world.store.inbox[..world.server.confirmed].iter().all(|row| *row != Row::Absent)
}

fn is_told_once(world: &World) -> bool {
    let unmarked = |shown: &&Shown| !shown.marked;
    shown(world).filter(unmarked).all(|one| {
        let same =
            |other: &&Shown| other.message == one.message && (other.part == one.part || other.piece == one.piece);
        shown(world).filter(unmarked).filter(same).count() == 1
    })
}

fn is_doubted(world: &World) -> bool {
    shown(world).filter(|shown| shown.marked).all(|one| {
        let same = |other: &&Shown| other.marked && (other.message, other.part) == (one.message, one.part);
        shown(world).filter(same).count() <= usize::from(world.history.doubts[one.message][one.part])
    })
}

fn has_one_turn(setting: &Setting, world: &World) -> bool {
    let runs = |message: &Id| world.store.inbox[*message] == Row::Running;
    (0..CHATS).all(|chat| setting.of_chat(chat).filter(runs).count() <= 1)
}

/// The notice that answers a command is no part of that order: it does not wait for a reply that grows.
fn is_in_order(setting: &Setting, world: &World) -> bool {
    world.server.shown.iter().all(|shown| {
        let replies = shown.iter().filter(|shown| setting.is_prompt(shown.message));
        replies.map(|shown| (shown.message, shown.part)).is_sorted()
    })
}

/// Nothing is left to do but what goes wrong.
fn is_at_rest(setting: &Setting, world: &World) -> bool {
    let mut possible = Vec::new();
    steps::progress(setting, world, &mut possible);
    possible.is_empty()
}

fn is_answered(setting: &Setting, world: &World) -> bool {
    let outbox = &world.store.outbox;
    outbox.iter().all(|entry| entry.complete && entry.parts.iter().all(|part| part.state == Delivery::Delivered))
        && (0..setting.messages.len()).all(|message| {
            world.store.inbox[message] == Row::Done && is_answer(setting, message, &told(world, message))
        })
}

/// What a chat shows for a message, each part once.
fn told(world: &World, message: Id) -> Vec<Piece> {
    let mut told = Vec::new();
    for shown in shown(world).filter(|shown| shown.message == message) {
        if shown.part == told.len() {
            told.push(shown.piece);
        }
    }
    told
}

fn is_answer(setting: &Setting, message: Id, told: &[Piece]) -> bool {
    match (setting.messages[message].kind, told) {
        (Kind::Command, _) => matches!(told, [Piece::Answer | Piece::Word]),
        (Kind::Prompt, [before @ .., Piece::Word]) => (0..=setting.chunks).any(|count| says(count, before)),
        (Kind::Prompt, _) => is_whole(setting, told),
    }
}

fn is_whole(setting: &Setting, told: &[Piece]) -> bool {
    says(setting.chunks, told)
}

/// Whether this is what an agent says first, and nothing else.
fn says(count: u8, told: &[Piece]) -> bool {
    (0..count).map(Piece::Chunk).eq(told.iter().copied())
}

fn is_repeated(world: &World) -> bool {
    shown(world).filter(|one| one.marked).any(|one| is_there_unmarked(world, one))
}

fn is_marked_first(world: &World) -> bool {
    shown(world).filter(|one| one.marked).any(|one| !is_there_unmarked(world, one))
}

fn is_there_unmarked(world: &World, one: &Shown) -> bool {
    shown(world).any(|other| !other.marked && (other.message, other.part) == (one.message, one.part))
}
