//! What each step does.

use super::steps::{Step, next_part, whole_text};
use super::world::{
    CHATS, Delivery, End, Flight, Gateway, Id, Kind, Logged, MESSAGES, Part, Piece, Prompt, Row, Said, Turn, World,
};
use super::{Bug, Setting};

/// The state after a step that is possible.
pub fn after(setting: &Setting, world: &World, step: Step) -> World {
    let mut world = world.clone();
    if matches!(step, Step::Crash | Step::Handoff | Step::Die | Step::Repeat(_) | Step::LoseAnswer(_)) {
        world.left.in_all -= 1;
    }
    match step {
        Step::Receive | Step::Accept | Step::Confirm | Step::Repeat(_) => intake(setting, &mut world, step),
        Step::Start(_)
        | Step::RecordRunning(_)
        | Step::Command(_)
        | Step::Interrupt(_)
        | Step::Finish(_)
        | Step::Complete(_) => turn(setting, &mut world, step),
        Step::Note(_)
        | Step::BeginWrite(_)
        | Step::Write(_)
        | Step::EndWrite(_)
        | Step::Speak(_)
        | Step::Record
        | Step::Consume
        | Step::BreakOff(_)
        | Step::Settle(_)
        | Step::Spawn
        | Step::Die => agent(setting, &mut world, step),
        Step::Attempt(chat)
        | Step::Execute(chat)
        | Step::Answer(chat)
        | Step::Refuse(chat)
        | Step::LoseAnswer(chat) => delivery(setting, &mut world, step, chat),
        Step::Restart { log } => restart(setting, &mut world, log),
        Step::Crash => {
            world.left.crashes -= 1;
            world.doubt(0..CHATS);
            world.gateway = None;
        }
        Step::Handoff => {
            world.left.handoffs -= 1;
            world.doubt(0..CHATS);
            if setting.bug == Some(Bug::HandoffForgetsWaiting) {
                gateway(&mut world).waiting.clear();
            }
        }
    }
    world
}

fn gateway(world: &mut World) -> &mut Gateway {
    world.gateway.as_mut().expect("only a gateway that runs does something")
}

fn intake(setting: &Setting, world: &mut World, step: Step) {
    let confirmed = world.server.confirmed;
    let gateway = gateway(world);
    match step {
        Step::Confirm => world.server.confirmed = gateway.offset,
        Step::Receive if setting.bug == Some(Bug::ConfirmedBeforeStored) => {
            gateway.received = Some(confirmed);
            gateway.offset = confirmed + 1;
        }
        Step::Receive => accept(setting, world, confirmed),
        Step::Repeat(message) => {
            world.left.repeats -= 1;
            accept(setting, world, message);
        }
        _ => {
            if let Some(message) = gateway.received.take() {
                accept(setting, world, message);
            }
        }
    }
}

fn accept(setting: &Setting, world: &mut World, message: Id) {
    let row = &mut world.store.inbox[message];
    let is_new = *row == Row::Absent || setting.bug == Some(Bug::DuplicateAccepted);
    if is_new {
        *row = Row::Queued;
    }
    let gateway = gateway(world);
    gateway.offset = gateway.offset.max(message + 1);
    if is_new {
        gateway.waiting.push(message);
    }
}

fn turn(setting: &Setting, world: &mut World, step: Step) {
    match step {
        Step::Start(message) => {
            let unrecorded = setting.bug == Some(Bug::PromptedBeforeRecorded);
            let gateway = gateway(world);
            gateway.waiting.retain(|&other| other != message);
            gateway.turns[message] = Some(Turn { asked: true, unrecorded, ..Turn::default() });
            if !unrecorded {
                world.store.inbox[message] = Row::Running;
                world.entry(message);
            }
        }
        Step::RecordRunning(message) => {
            if let Some(turn) = &mut gateway(world).turns[message] {
                turn.unrecorded = false;
            }
            world.store.inbox[message] = Row::Running;
            world.entry(message);
        }
        Step::Command(message) => {
            gateway(world).waiting.retain(|&other| other != message);
            world.store.inbox[message] = Row::Done;
            world.entry(message).finish([Piece::Answer]);
        }
        Step::Interrupt(message) => {
            gateway(world).interrupted[message] = false;
            world.store.inbox[message] = Row::Done;
            world.entry(message).interrupt();
        }
        Step::Finish(message) => {
            let turn = gateway(world).turns[message].take().expect("it is in flight");
            let text = whole_text(&turn.text, turn.end.expect("it has ended"));
            world.store.inbox[message] = Row::Done;
            if setting.bug == Some(Bug::DoneApartFromOutbox) {
                gateway(world).half_done = Some((message, text));
            } else {
                world.entry(message).finish(text);
            }
        }
        _ => {
            if let Some((message, text)) = gateway(world).half_done.take() {
                world.entry(message).finish(text);
            }
        }
    }
}

fn agent(setting: &Setting, world: &mut World, step: Step) {
    let agent = &mut world.agent;
    let prompt = |world: &mut World, message: Id, prompt| {
        if let Some(logged) = &mut world.agent.log[message] {
            logged.prompt = prompt;
        }
    };
    match step {
        Step::Note(message) => {
            agent.log[message] = Some(Logged { prompt: Prompt::Noted, text: Vec::new(), end: None });
            if let Some(turn) = &mut gateway(world).turns[message] {
                turn.asked = false;
            }
        }
        Step::BeginWrite(message) => prompt(world, message, Prompt::Writing),
        Step::Write(message) => {
            agent.work[message] = Some(0);
            world.history.given[message] += 1;
        }
        Step::EndWrite(message) => prompt(world, message, Prompt::Written),
        Step::Speak(message) => {
            if let Some(said) = &mut agent.work[message] {
                let what = if *said < setting.chunks { Said::Chunk(*said) } else { Said::End };
                *said += 1;
                agent.socket.push((message, what));
            }
        }
        Step::Record => record(setting, world),
        Step::Consume => {
            let what = agent.socket.remove(0);
            agent.recorded = false;
            if setting.bug == Some(Bug::ConsumedBeforeRecorded) {
                gateway(world).in_hand = Some(what);
            } else {
                tell(world, what);
            }
        }
        Step::BreakOff(message) => {
            if let Some(logged) = &mut agent.log[message] {
                logged.end = Some(End::Failed);
            }
            if let Some(turn) = &mut gateway(world).turns[message] {
                turn.end = Some(End::Failed);
            }
        }
        Step::Settle(message) => agent.log[message] = None,
        Step::Spawn => {
            agent.alive = true;
            agent.forgotten = false;
            if setting.bug == Some(Bug::NewLogForgetsTurns) {
                agent.log = Default::default();
            }
        }
        _ => {
            world.left.deaths -= 1;
            agent.alive = false;
            agent.work = Default::default();
        }
    }
}

/// What was looked at goes into the log.
fn record(setting: &Setting, world: &mut World) {
    let in_hand = gateway(world).in_hand.take();
    let Some(&(message, what)) = in_hand.as_ref().or(world.agent.socket.first()) else { return };
    world.agent.recorded = setting.bug != Some(Bug::ConsumedBeforeRecorded);
    if let Some(logged) = &mut world.agent.log[message]
        && logged.end.is_none()
    {
        match what {
            Said::Chunk(chunk) => logged.text.push(Piece::Chunk(chunk)),
            Said::End => logged.end = Some(End::Whole),
        }
    }
    if in_hand.is_some() {
        tell(world, (message, what));
    }
}

/// The gateway hears what the agent said. It does not know the turns that it ended.
fn tell(world: &mut World, (message, what): (Id, Said)) {
    let Some(turn) = &mut gateway(world).turns[message] else { return };
    if turn.end.is_some() {
        return;
    }
    match what {
        Said::Chunk(chunk) => turn.text.push(Piece::Chunk(chunk)),
        Said::End => turn.end = Some(End::Whole),
    }
}

fn delivery(setting: &Setting, world: &mut World, step: Step, chat: usize) {
    let flight = world.gateway.as_ref().and_then(|gateway| gateway.flights[chat]);
    match step {
        Step::Attempt(_) => {
            let Some(shown) = next_part(setting, world, chat) else { return };
            let state = match setting.bug {
                Some(Bug::AttemptNotRecorded) => Delivery::Pending,
                Some(Bug::DeliveredBeforeSent) => Delivery::Delivered,
                _ => Delivery::Attempting,
            };
            part(world, shown.message, shown.part, shown.piece).state = state;
            gateway(world).flights[chat] = Some(Flight { shown, executed: false });
        }
        Step::Execute(_) => {
            if let Some(Flight { shown, .. }) = flight {
                gateway(world).flights[chat] = Some(Flight { shown, executed: true });
                world.server.shown[chat].push(shown);
            }
        }
        Step::LoseAnswer(_) => {
            world.left.lost_answers -= 1;
            world.doubt([chat]);
            if let (Some(Flight { shown, .. }), Some(Bug::LostAnswerTakenForRefusal)) = (flight, setting.bug) {
                part(world, shown.message, shown.part, shown.piece).state = Delivery::Pending;
            }
        }
        _ => {
            let Some(Flight { shown, .. }) = gateway(world).flights[chat].take() else { return };
            let refused = matches!(step, Step::Refuse(_));
            let forgets = setting.bug == Some(Bug::RefusalForgetsDoubt);
            let state = match (refused, shown.marked && !forgets) {
                (false, _) => Delivery::Delivered,
                // It was not executed this time; the time before it may have been.
                (true, true) => Delivery::Attempting,
                (true, false) => Delivery::Pending,
            };
            part(world, shown.message, shown.part, shown.piece).state = state;
        }
    }
}

fn part(world: &mut World, message: Id, at: usize, piece: Piece) -> &mut Part {
    let entry = world.entry(message);
    if entry.parts.len() == at {
        entry.parts.push(Part { piece, state: Delivery::Pending });
    }
    &mut entry.parts[at]
}

/// The next process: what is in the store, the agent's log and its socket is all it knows.
fn restart(setting: &Setting, world: &mut World, log: bool) {
    let mut gateway = Gateway::default();
    if world.agent.recorded {
        world.agent.recorded = false;
        if setting.bug != Some(Bug::RecordedReadAgain) {
            world.agent.socket.remove(0);
        }
    }
    if !log {
        world.agent.forgotten = true;
        world.agent.socket.clear();
        world.agent.log = Default::default();
    }
    for message in 0..MESSAGES {
        let is_command = setting.messages.get(message).is_some_and(|message| message.kind == Kind::Command);
        match world.store.inbox[message] {
            Row::Absent | Row::Done => {}
            Row::Queued if is_command => gateway.interrupted[message] = true,
            Row::Running if setting.bug == Some(Bug::RunningAskedAgain) => {
                world.agent.log[message] = None;
                gateway.waiting.push(message);
            }
            Row::Queued | Row::Running if world.agent.log[message].is_some() => {
                gateway.turns[message] = world.agent.log[message].as_mut().map(take_up);
                world.history.taken_up = true;
            }
            Row::Queued => gateway.waiting.push(message),
            // What the log does not have, the agent never got.
            Row::Running if log => gateway.waiting.push(message),
            Row::Running => gateway.interrupted[message] = true,
        }
    }
    world.gateway = Some(gateway);
}

/// A turn goes on from the log. Of a prompt that was being written nobody knows whether the agent has it.
fn take_up(logged: &mut Logged) -> Turn {
    if logged.prompt == Prompt::Writing {
        logged.prompt = Prompt::Written;
        logged.end = logged.end.or(Some(End::Failed));
    }
    Turn { text: logged.text.clone(), end: logged.end, ..Turn::default() }
}
