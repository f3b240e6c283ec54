//! The path of a message as a model, and every order of its steps and of what may go wrong, checked.
//!
//! The other tests run the gateway and let it fail at some points; here is no line of it, but all points. A state has
//! what outlives the process (`world`: the platform's server, the store, the agent with its sockets and its recovery
//! log) and what is gone with it. A step (`steps`) is what happens between two instants at which the process may be
//! killed, and names the module of `src/` that it stands for; a transaction of the store is one step. Of a step the
//! gateway may take, any may be next. `properties` says what must hold, and `Bug` plants the mistakes that the
//! protocol is there to avoid: for each the checker must find how it comes to harm.
//!
//! | in the model | stands for |
//! |---|---|
//! | `Server` | Telegram: it keeps a message until a later `getUpdates` confirms it, and shows what it is sent in order |
//! | `Store::inbox` | `store::inbox`: `Store::accept`, the state of a turn |
//! | `Store::outbox` | what is to be shown, entry by entry, and what of it was attempted and delivered: `store`, `platform::telegram::delivery` |
//! | `Agent` | an agent's process, `agent::stream` (its sockets and the peek offset), `agent::journal` (its log) |
//! | `Gateway` | what `gateway::Gateway`, `daemon`, `agent::task` and `platform::telegram::task` have in memory |
//! | `Step::Restart` | `daemon::boot`, `daemon::recovery`, `agent::recover` |
//! | `Step::Handoff` | `daemon::quiesce`, `handoff`: memory is carried, a request in flight is not |
//!
//! What is left out, and why that is no loss:
//!
//! - The cursor in the store: without it the server sends more again, never less.
//! - Steps that change nothing that lasts are part of the step that follows: to be killed before or after is the same.
//! - Edits of a message: they may be repeated. Each piece of a reply fills a message.
//! - A part that is refused for good or given up: it is as delivered, and told in the log.
//! - A request that is executed long after its sender is gone: it is executed before the next step of the chat or never.
//! - Cancelling, permissions, sessions.
//!
//! That every reachable state comes to rest, and what holds there, is not asked with stateright's `eventually`, which
//! sees only one of several ways into a state. No step that is no fault takes anything back, so it is enough that the
//! right things hold in each state in which only faults are possible.

mod effects;
mod properties;
mod steps;
mod world;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

use properties::{
    ANSWERED, BROKEN_OFF, CAME_AGAIN, DOUBTED, GIVEN_ONCE, HANDED_OFF, IN_ORDER, MARKED_FIRST, NEXT_PROCESS, ONCE,
    ONE_TURN, OVERTAKEN, REPEATED, STORED, TAKEN_UP, TWO_KILLS,
};
use steps::Step;
use world::{Agent, Faults, Gateway, History, Id, Kind, Server, Store, World};

/// A message that somebody writes.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    chat: usize,
    kind: Kind,
}

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A message is confirmed when it is received, and stored then.
    ConfirmedBeforeStored,
    /// A message that is stored already is taken for a new one.
    DuplicateAccepted,
    /// The prompt goes to the agent, and then the turn is recorded as running.
    PromptedBeforeRecorded,
    /// After a kill a turn that ran is asked again.
    RunningAskedAgain,
    /// The next turn of a chat begins when the one before has ended, not when its reply is complete in the outbox.
    NextTurnBeforeTheEnd,
    /// A turn is done in one transaction and its reply complete in another.
    DoneApartFromOutbox,
    /// What the agent said is taken out of the socket, and then recorded.
    ConsumedBeforeRecorded,
    /// After a kill what was recorded and not taken out of the socket is read again.
    RecordedReadAgain,
    /// The agent's log forgets a turn when it has ended, not when the store has it as done.
    SettledBeforeDone,
    /// The log of an agent's next process begins without the turns of the one before that are not settled.
    NewLogForgetsTurns,
    /// After a kill an agent is started while the store does not know yet that the turns of the one before are over.
    AgentBeforeHonestWord,
    /// A part is sent without a record of the attempt.
    AttemptNotRecorded,
    /// A part is recorded as delivered before it is sent.
    DeliveredBeforeSent,
    /// What was attempted is sent again without the marker.
    RepeatUnmarked,
    /// What was never attempted is marked, because it might have been.
    PendingMarked,
    /// A send whose answer did not come is taken for one that was refused.
    LostAnswerTakenForRefusal,
    /// A part that was sent again with the marker, and refused, is pending as if it had never been sent.
    RefusalForgetsDoubt,
    /// A handoff does not carry the turns that wait.
    HandoffForgetsWaiting,
}

/// What is checked: the messages, how long the answers are, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    messages: &'static [Message],
    /// In how many pieces an agent answers.
    chunks: u8,
    faults: Faults,
    bug: Option<Bug>,
    /// What must be possible.
    possible: &'static [&'static str],
}

/// One message, a long answer, and three faults.
const ONE: Setting = Setting {
    messages: &[Message { chat: 0, kind: Kind::Prompt }],
    chunks: 2,
    faults: Faults { crashes: 2, handoffs: 1, deaths: 1, repeats: 1, lost_answers: 1, in_all: 3 },
    bug: None,
    possible: &[REPEATED, MARKED_FIRST, TAKEN_UP, BROKEN_OFF, TWO_KILLS, HANDED_OFF, CAME_AGAIN],
};

/// Two messages in a chat, and two faults.
const TWO: Setting = Setting {
    messages: &[Message { chat: 0, kind: Kind::Prompt }, Message { chat: 0, kind: Kind::Prompt }],
    chunks: 1,
    faults: Faults { repeats: 0, lost_answers: 0, in_all: 2, ..ONE.faults },
    bug: None,
    possible: &[REPEATED, MARKED_FIRST, TAKEN_UP, BROKEN_OFF, TWO_KILLS, NEXT_PROCESS, HANDED_OFF],
};

/// A command while a turn runs, and one fault.
const COMMAND: Setting = Setting {
    messages: &[Message { chat: 0, kind: Kind::Prompt }, Message { chat: 0, kind: Kind::Command }],
    faults: Faults { in_all: 1, ..ONE.faults },
    possible: &[REPEATED, MARKED_FIRST, TAKEN_UP, BROKEN_OFF, HANDED_OFF, CAME_AGAIN, OVERTAKEN],
    ..TWO
};

/// Two chats with one agent, and a kill or a death.
const CHATS: Setting = Setting {
    messages: &[Message { chat: 0, kind: Kind::Prompt }, Message { chat: 1, kind: Kind::Prompt }],
    faults: Faults { crashes: 1, handoffs: 0, deaths: 1, repeats: 0, lost_answers: 0, in_all: 1 },
    possible: &[REPEATED, MARKED_FIRST, TAKEN_UP, BROKEN_OFF, NEXT_PROCESS],
    ..TWO
};

impl Setting {
    fn chat(&self, message: Id) -> usize {
        self.messages[message].chat
    }

    fn is_prompt(&self, message: Id) -> bool {
        self.messages[message].kind == Kind::Prompt
    }

    fn of_chat(&self, chat: usize) -> impl Iterator<Item = Id> {
        (0..self.messages.len()).filter(move |&message| self.chat(message) == chat)
    }
}

impl Model for Setting {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            server: Server::default(),
            store: Store::default(),
            agent: Agent { alive: true, ..Agent::default() },
            gateway: Some(Gateway::default()),
            left: self.faults,
            history: History::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps::progress(self, world, steps);
        steps::faults(self, world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(effects::after(self, world, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

/// Checks every state, and that what must be possible is.
fn holds(setting: Setting) {
    let checker = setting.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, found) = (checker.unique_state_count(), checker.discoveries());
    // What does not hold ends the check, so that it comes first.
    for property in setting.properties().iter().rev() {
        let path = found.get(property.name).map(|path| path.clone().into_actions());
        if property.expectation.discovery_is_failure() {
            assert_eq!(path, None, "not so: {} ({states} states)", property.name);
        } else {
            assert!(path.is_some(), "cannot come about: {} ({states} states)", property.name);
        }
    }
    eprintln!("{states} states, the longest way has {} steps", checker.max_depth());
}

/// Checks that this mistake is found out, by this property.
fn fails(setting: Setting, bug: Bug, property: &'static str) {
    let setting = Setting { bug: Some(bug), possible: &[], ..setting };
    let found = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = setting.checker().finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property).map(stateright::Path::into_actions);
    eprintln!("{bug:?}: {path:?}");
    assert!(path.is_some(), "{bug:?} does no harm that anybody sees: {property}");
}

#[test]
fn one_message_is_answered_whatever_happens() {
    holds(ONE);
}

#[test]
fn two_messages_are_answered_in_order_whatever_happens() {
    holds(TWO);
}

#[test]
fn a_command_is_answered_beside_a_turn_whatever_happens() {
    holds(COMMAND);
}

#[test]
fn two_chats_are_answered_whatever_happens() {
    holds(CHATS);
}

#[test]
fn mistakes_on_the_way_to_the_agent_are_found_out() {
    fails(ONE, Bug::ConfirmedBeforeStored, STORED);
    fails(ONE, Bug::ConfirmedBeforeStored, ANSWERED);
    fails(ONE, Bug::DuplicateAccepted, GIVEN_ONCE);
    fails(ONE, Bug::PromptedBeforeRecorded, GIVEN_ONCE);
    fails(ONE, Bug::RunningAskedAgain, GIVEN_ONCE);
    fails(TWO, Bug::NextTurnBeforeTheEnd, ONE_TURN);
    fails(TWO, Bug::NextTurnBeforeTheEnd, IN_ORDER);
    fails(ONE, Bug::HandoffForgetsWaiting, ANSWERED);
}

#[test]
fn mistakes_with_what_the_agent_says_are_found_out() {
    fails(ONE, Bug::ConsumedBeforeRecorded, ANSWERED);
    fails(ONE, Bug::RecordedReadAgain, ONCE);
    fails(ONE, Bug::SettledBeforeDone, GIVEN_ONCE);
    fails(ONE, Bug::NewLogForgetsTurns, GIVEN_ONCE);
    fails(ONE, Bug::AgentBeforeHonestWord, GIVEN_ONCE);
    fails(ONE, Bug::DoneApartFromOutbox, ANSWERED);
}

#[test]
fn mistakes_on_the_way_to_the_chat_are_found_out() {
    fails(ONE, Bug::AttemptNotRecorded, ONCE);
    fails(ONE, Bug::DeliveredBeforeSent, ANSWERED);
    fails(ONE, Bug::RepeatUnmarked, ONCE);
    fails(ONE, Bug::PendingMarked, DOUBTED);
    fails(ONE, Bug::LostAnswerTakenForRefusal, ONCE);
    fails(ONE, Bug::RefusalForgetsDoubt, ONCE);
}
