//! Which steps are possible. What they do is in [`effects`](super::effects).

use super::world::{
    Agent, CHATS, Delivery, End, Entry, Flight, Gateway, Id, Kind, Logged, MESSAGES, Piece, Prompt, Row, Shown, World,
};
use super::{Bug, Setting};

/// One step: what happens between two instants at which the process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// `platform::telegram::intake`, `store::Store::accept`: a message is received and stored. Between the two nothing
    /// has happened.
    Receive,
    /// Not in the protocol: it is stored when it was confirmed.
    Accept,
    /// `platform::telegram::task`: the next `getUpdates`, with the offset behind what was stored.
    Confirm,

    /// `gateway::Gateway` gives a waiting turn to the agent: its running record and its outbox entry, in one transaction.
    Start(Id),
    /// Not in the protocol: the running record, after the prompt was sent on its way.
    RecordRunning(Id),
    /// `gateway::command`, `daemon::effects`: done and the notice, in one transaction.
    Command(Id),
    /// `gateway::Gateway::recover`, `daemon::recovery`: done and the honest word, in one transaction.
    Interrupt(Id),
    /// `gateway::Gateway`, `daemon::effects`: done and the whole reply, in one transaction.
    Finish(Id),
    /// Not in the protocol: the reply, after done.
    Complete(Id),

    /// `agent::connection`, `agent::journal`: the prompt is in the state that is recorded.
    Note(Id),
    /// `agent::journal`: it is about to be written.
    BeginWrite(Id),
    /// `agent::stream::Input`.
    Write(Id),
    /// `agent::journal`: it was written.
    EndWrite(Id),
    /// The agent's process says something.
    Speak(Id),
    /// `agent::stream::Output`, `agent::journal`: what the agent said was looked at, marked, and is recorded.
    Record,
    /// `agent::stream::Output`: it is taken out of the socket, and the gateway hears of it.
    Consume,
    /// `agent::connection`: the process is gone and its output read, so its turn ends.
    BreakOff(Id),
    /// `daemon::recovery`, `agent::journal`: the log may forget a turn that is done.
    Settle(Id),
    /// `agent::task`: another process for one that died. The log goes on with what is not settled.
    Spawn,

    /// `platform::telegram::delivery`: the next part of a chat is recorded as attempted, and the request made.
    Attempt(usize),
    /// The server carries a send out.
    Execute(usize),
    /// `platform::telegram::delivery`: the answer is here, and the part is recorded as delivered.
    Answer(usize),
    /// The server refuses for now (429): the part is recorded as pending again.
    Refuse(usize),

    /// `daemon::boot`, `daemon::recovery`: the next process starts.
    Restart {
        /// It finds the sockets and the log of the agent: always if that lives, and perhaps if it has died.
        log: bool,
    },
    /// The process is killed.
    Crash,
    /// `handoff`: everything is carried but a send that did not end.
    Handoff,
    /// The agent's process ends.
    Die,
    /// The server delivers a message that was confirmed.
    Repeat(Id),
    /// The answer to a send does not arrive.
    LoseAnswer(usize),
}

/// What keeps chats going: everything but what goes wrong. Each of these brings something further and none takes anything
/// back, so things come to rest, and they do where none of these is possible.
pub fn progress(setting: &Setting, world: &World, steps: &mut Vec<Step>) {
    speak(setting, world, steps);
    if !steps.is_empty() {
        return;
    }
    let Some(gateway) = &world.gateway else {
        if !world.agent.forgotten {
            steps.push(Step::Restart { log: true });
        }
        if !world.agent.alive {
            steps.push(Step::Restart { log: false });
        }
        return;
    };
    intake(setting, world, gateway, steps);
    turns(setting, world, gateway, steps);
    connection(setting, world, gateway, steps);
    for chat in 0..CHATS {
        match &gateway.flights[chat] {
            Some(Flight { executed: true, .. }) => steps.push(Step::Answer(chat)),
            Some(_) => steps.push(Step::Execute(chat)),
            None if next_part(setting, world, chat).is_some() => steps.push(Step::Attempt(chat)),
            None => {}
        }
    }
}

/// What goes wrong.
pub fn faults(setting: &Setting, world: &World, steps: &mut Vec<Step>) {
    refusals(world, steps);
    let left = &world.left;
    if left.in_all == 0 {
        return;
    }
    if left.deaths > 0 && world.agent.alive {
        steps.push(Step::Die);
    }
    let Some(gateway) = &world.gateway else { return };
    if left.crashes > 0 {
        steps.push(Step::Crash);
    }
    // Where nothing is in flight it changes nothing that the model has.
    let changes = gateway.flights.iter().any(Option::is_some) || setting.bug == Some(Bug::HandoffForgetsWaiting);
    if left.handoffs > 0 && changes && is_at_rest(&world.agent, gateway) {
        steps.push(Step::Handoff);
    }
    if left.repeats > 0 && gateway.received.is_none() {
        steps.extend((0..world.server.confirmed).map(Step::Repeat));
    }
    for (chat, flight) in gateway.flights.iter().enumerate() {
        if left.lost_answers > 0 && flight.is_some() {
            steps.push(Step::LoseAnswer(chat));
        }
    }
}

fn refusals(world: &World, steps: &mut Vec<Step>) {
    for (chat, flight) in world.gateway.iter().flat_map(|gateway| gateway.flights.iter().enumerate()) {
        if flight.is_some_and(|flight| !flight.executed) {
            steps.push(Step::Refuse(chat));
        }
    }
}

fn intake(setting: &Setting, world: &World, gateway: &Gateway, steps: &mut Vec<Step>) {
    let confirmed = world.server.confirmed;
    match gateway.received {
        Some(_) => steps.push(Step::Accept),
        None if gateway.offset <= confirmed && confirmed < setting.messages.len() => steps.push(Step::Receive),
        None => {}
    }
    if gateway.offset > confirmed {
        steps.push(Step::Confirm);
    }
}

fn turns(setting: &Setting, world: &World, gateway: &Gateway, steps: &mut Vec<Step>) {
    for (at, &message) in gateway.waiting.iter().enumerate() {
        let chat = setting.chat(message);
        let before = gateway.waiting[..at].iter().any(|&other| setting.is_prompt(other) && setting.chat(other) == chat);
        match setting.messages[message].kind {
            Kind::Command => steps.push(Step::Command(message)),
            Kind::Prompt if !before && world.agent.alive && !is_busy(setting, gateway, chat) => {
                steps.push(Step::Start(message));
            }
            Kind::Prompt => {}
        }
    }
    for message in 0..MESSAGES {
        if gateway.interrupted[message] {
            steps.push(Step::Interrupt(message));
        }
        match &gateway.turns[message] {
            Some(turn) if turn.unrecorded => steps.push(Step::RecordRunning(message)),
            Some(turn) if turn.end.is_some() => steps.push(Step::Finish(message)),
            Some(_) | None => {}
        }
    }
    if let Some((message, _)) = gateway.half_done {
        steps.push(Step::Complete(message));
    }
}

/// Whether another turn of the chat has to end first.
fn is_busy(setting: &Setting, gateway: &Gateway, chat: usize) -> bool {
    setting.of_chat(chat).any(|message| {
        gateway.interrupted[message]
            || match &gateway.turns[message] {
                Some(turn) => turn.end.is_none() || setting.bug != Some(Bug::NextTurnBeforeTheEnd),
                None => false,
            }
    })
}

/// An agent speaks as soon as it can, and waits until that was taken. For the gateway this is no different from an agent
/// that speaks later, since the gateway may look later; so only one of the two orders is checked.
fn speak(setting: &Setting, world: &World, steps: &mut Vec<Step>) {
    for (message, said) in world.agent.work.iter().enumerate() {
        if world.agent.socket.is_empty() && said.is_some_and(|said| said <= setting.chunks) {
            steps.push(Step::Speak(message));
        }
    }
}

/// The task of the agent's connection does one thing after the other.
fn connection(setting: &Setting, world: &World, gateway: &Gateway, steps: &mut Vec<Step>) {
    let agent = &world.agent;
    if agent.alive
        && let Some((message, logged)) = writing(agent)
    {
        match (logged, agent.work[message]) {
            (Prompt::Noted, _) => steps.push(Step::BeginWrite(message)),
            (_, None) => steps.push(Step::Write(message)),
            (_, Some(_)) => steps.push(Step::EndWrite(message)),
        }
        if logged == Prompt::Writing {
            return;
        }
    }
    if gateway.in_hand.is_some() {
        return steps.push(Step::Record);
    }
    if agent.recorded {
        return steps.push(Step::Consume);
    }
    if !agent.socket.is_empty() {
        let first = if setting.bug == Some(Bug::ConsumedBeforeRecorded) { Step::Consume } else { Step::Record };
        steps.push(first);
    }
    for message in 0..MESSAGES {
        let turn = gateway.turns[message].as_ref();
        if turn.is_some_and(|turn| turn.asked) && agent.alive && agent.log[message].is_none() {
            steps.push(Step::Note(message));
        }
        let Some(logged) = &agent.log[message] else { continue };
        if logged.end.is_none() && !agent.alive && agent.socket.is_empty() {
            steps.push(Step::BreakOff(message));
        }
        let early = setting.bug == Some(Bug::SettledBeforeDone);
        if logged.end.is_some() && (early || world.store.inbox[message] == Row::Done) {
            steps.push(Step::Settle(message));
        }
    }
    // What was with the process before is settled in the store first: whoever starts after another kill would take the
    // log of the new process as proof that the agent never got it.
    let settled = gateway.interrupted.iter().all(|open| !open) || setting.bug == Some(Bug::AgentBeforeHonestWord);
    let ended = agent.log.iter().flatten().all(|logged| logged.end.is_some());
    if !agent.alive && agent.socket.is_empty() && ended && settled {
        steps.push(Step::Spawn);
    }
}

/// The prompt that is next to be written, or is being written.
fn writing(agent: &Agent) -> Option<(Id, Prompt)> {
    let mut waiting = agent.log.iter().enumerate().filter_map(|(message, logged)| match logged {
        Some(Logged { prompt: prompt @ (Prompt::Noted | Prompt::Writing), end: None, .. }) => Some((message, *prompt)),
        Some(_) | None => None,
    });
    let first = waiting.next();
    waiting.find(|(_, prompt)| *prompt == Prompt::Writing).or(first)
}

/// Whether every part is where it can be frozen.
fn is_at_rest(agent: &Agent, gateway: &Gateway) -> bool {
    let writes = writing(agent).is_some_and(|(_, prompt)| prompt == Prompt::Writing);
    !writes && !agent.recorded && gateway.in_hand.is_none() && gateway.half_done.is_none()
}

/// What a chat is to be sent next: of its entries in their order, the first part that is known and not delivered. An
/// entry that has nothing to send yet lets those after it pass.
pub fn next_part(setting: &Setting, world: &World, chat: usize) -> Option<Shown> {
    let mut of_chat = world.store.outbox.iter().filter(|entry| setting.chat(entry.message) == chat);
    of_chat.find_map(|entry| undelivered(setting, world, entry))
}

fn undelivered(setting: &Setting, world: &World, entry: &Entry) -> Option<Shown> {
    let message = entry.message;
    if let Some(part) = entry.parts.iter().position(|part| part.state != Delivery::Delivered) {
        let marked = match setting.bug {
            Some(Bug::RepeatUnmarked) => false,
            Some(Bug::PendingMarked) => true,
            _ => entry.parts[part].state == Delivery::Attempting,
        };
        return Some(Shown { message, part, piece: entry.parts[part].piece, marked });
    }
    if entry.complete {
        return None;
    }
    // The reply is shown while it grows.
    let part = entry.parts.len();
    let said = world.gateway.as_ref()?.turns[message].as_ref()?;
    Some(Shown { message, part, piece: *said.text.get(part)?, marked: false })
}

/// The end of a turn, in pieces.
pub fn whole_text(text: &[Piece], end: End) -> Vec<Piece> {
    let word = (end == End::Failed).then_some(Piece::Word);
    text.iter().copied().chain(word).collect()
}
