//! What was said, what is not acknowledged yet, and which answers are to come: the chat without any I/O.
//!
//! **Invariants**
//! - A message keeps its id until it is acknowledged, so that one sent again over a new connection is recognised.
//! - A message is over when the reply to it has ended; a command (`/…`) also when the gateway has answered with a
//!   notice, because most commands run no turn.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::chat::{Notice, OutboundContent, ReplyEnd, ReplyStep};
use crate::control::proto::{ChatSendParams, ChatSent};
use crate::id::TurnId;
use crate::jsonrpc::{ErrorObject, RequestId};

/// Something to be shown, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// A reply begins.
    Begin,
    /// A piece of a reply, as it is.
    Text(String),
    /// What the agent is doing.
    Activity(String),
    /// A message of the gateway itself.
    Notice(String),
    /// A reply is over.
    End(ReplyEnd),
    /// A message was not accepted.
    Rejected(String),
}

/// How a message went that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered in full.
    Answered,
    /// Not answered, or not in full.
    Unanswered(String),
}

/// Whose replies are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All in the chat.
    Everyone,
    /// Only replies to this client's own messages.
    Own,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// To be sent over the present connection.
    Unsent,
    /// Sent, and not acknowledged.
    Sent(RequestId),
    /// Accepted as this turn.
    Turn(TurnId),
    /// Accepted over an earlier connection, so that its turn is not known: the next one that nobody else waits for.
    AnyTurn,
}

#[derive(Clone, Debug)]
struct Message {
    id: String,
    text: String,
    state: State,
    /// Whether the gateway said something after it was accepted; a refusal comes so.
    noticed: bool,
}

impl Message {
    fn is_command(&self) -> bool {
        self.text.starts_with('/')
    }

    fn is_accepted(&self) -> bool {
        matches!(self.state, State::Turn(_) | State::AnyTurn)
    }
}

/// One side of a chat.
#[derive(Debug)]
pub(super) struct Talk {
    audience: Audience,
    prefix: String,
    next_message: u64,
    messages: Vec<Message>,
    running: BTreeSet<TurnId>,
    /// Steps of replies that are nobody's so far, for [`Audience::Own`], while a message waits for its turn's id.
    strays: Vec<(TurnId, ReplyStep)>,
    outcome: Outcome,
}

impl Talk {
    pub(super) fn new(audience: Audience) -> Self {
        // RandomState is seeded by the kernel, once per process, and the hash of nothing differs with the seed.
        let prefix = format!("cli-{:016x}", RandomState::new().build_hasher().finish());
        Self {
            audience,
            prefix,
            next_message: 1,
            messages: Vec::new(),
            running: BTreeSet::new(),
            strays: Vec::new(),
            outcome: Outcome::Answered,
        }
    }

    /// Says something; it is in [`Talk::unsent`] now.
    pub(super) fn say(&mut self, text: String) {
        let id = format!("{}-{}", self.prefix, self.next_message);
        self.next_message += 1;
        self.messages.push(Message { id, text, state: State::Unsent, noticed: false });
    }

    /// The first message that is to be sent.
    pub(super) fn unsent(&self) -> Option<ChatSendParams> {
        let message = self.messages.iter().find(|message| message.state == State::Unsent)?;
        Some(ChatSendParams { text: message.text.clone(), message_id: message.id.clone() })
    }

    /// Notes that the first unsent message was sent as this request.
    pub(super) fn sent(&mut self, request: RequestId) {
        if let Some(message) = self.messages.iter_mut().find(|message| message.state == State::Unsent) {
            message.state = State::Sent(request);
        }
    }

    /// Notes that the connection is gone: what was not acknowledged is to be sent again, and what runs shows itself
    /// again.
    pub(super) fn disconnected(&mut self) {
        self.running.clear();
        for message in &mut self.messages {
            if matches!(message.state, State::Sent(_)) {
                message.state = State::Unsent;
            }
        }
    }

    /// Takes the answer to a message.
    pub(super) fn answered(&mut self, request: &RequestId, outcome: Result<ChatSent, ErrorObject>) -> Vec<Show> {
        let sent = State::Sent(request.clone());
        let Some(index) = self.messages.iter().position(|message| message.state == sent) else { return Vec::new() };
        match outcome {
            Ok(ChatSent { turn: Some(turn) }) => {
                self.messages[index].state = State::Turn(TurnId(turn));
                self.claim_strays(TurnId(turn))
            }
            Ok(ChatSent { turn: None }) => {
                self.messages[index].state = State::AnyTurn;
                let latest = self.strays.iter().map(|(turn, _)| *turn).max();
                latest.map(|turn| self.claim_strays(turn)).unwrap_or_default()
            }
            Err(error) => {
                self.messages.remove(index);
                self.outcome = Outcome::Unanswered(error.message.clone());
                vec![Show::Rejected(error.message)]
            }
        }
    }

    /// Takes what the gateway shows in the chat.
    pub(super) fn output(&mut self, content: OutboundContent) -> Vec<Show> {
        match content {
            OutboundContent::Notice(Notice { text, .. }) => {
                if let Some(index) = self.messages.iter().position(|m| m.is_command() && m.is_accepted()) {
                    self.messages.remove(index);
                }
                for message in self.messages.iter_mut().filter(|message| message.is_accepted()) {
                    message.noticed = true;
                }
                vec![Show::Notice(text)]
            }
            OutboundContent::Reply { turn, step } => self.step(turn, step),
        }
    }

    fn step(&mut self, turn: TurnId, step: ReplyStep) -> Vec<Show> {
        match &step {
            ReplyStep::End(_) => self.running.remove(&turn),
            _ => self.running.insert(turn),
        };
        let owner = self.owner(turn);
        if owner.is_none() && self.audience == Audience::Own {
            if self.messages.iter().any(|message| !message.is_accepted()) {
                self.strays.push((turn, step));
            }
            return Vec::new();
        }
        if let (Some(index), ReplyStep::End(end)) = (owner, &step) {
            self.messages.remove(index);
            self.outcome = match end {
                ReplyEnd::Complete => Outcome::Answered,
                ReplyEnd::Stopped => Outcome::Unanswered("the turn was stopped".to_owned()),
                ReplyEnd::Failed(reason) => Outcome::Unanswered(reason.clone()),
            };
        } else if let Some(index) = owner {
            self.messages[index].state = State::Turn(turn);
        }
        vec![match step {
            ReplyStep::Begin => Show::Begin,
            ReplyStep::Delta(text) | ReplyStep::SoFar(text) => Show::Text(text),
            ReplyStep::File(file) => Show::Text(format!("\n[file: {}]\n", file.name)),
            ReplyStep::Activity(title) => Show::Activity(title),
            ReplyStep::End(end) => Show::End(end),
        }]
    }

    fn owner(&self, turn: TurnId) -> Option<usize> {
        let place = |state: State| self.messages.iter().position(|message| message.state == state);
        place(State::Turn(turn)).or_else(|| place(State::AnyTurn))
    }

    fn claim_strays(&mut self, turn: TurnId) -> Vec<Show> {
        let strays = std::mem::take(&mut self.strays);
        strays.into_iter().filter(|(of, _)| *of == turn).flat_map(|(of, step)| self.step(of, step)).collect()
    }

    /// Gives up what was accepted and is not answered, because the gateway does not know of it any more. What is to
    /// be shown, if the gateway itself has said nothing.
    pub(super) fn give_up(&mut self) -> Vec<Show> {
        let lost: Vec<Message> = self.messages.drain(..).filter(|message| !message.is_command()).collect();
        self.running.clear();
        if lost.is_empty() {
            return Vec::new();
        }
        let unexplained = lost.iter().any(|message| !message.noticed);
        let reason = if unexplained {
            "the gateway runs the turn no longer; its answer may be lost"
        } else {
            "the gateway took the message and ran no turn for it"
        };
        self.outcome = Outcome::Unanswered(reason.to_owned());
        unexplained.then(|| Show::End(ReplyEnd::Failed(reason.to_owned()))).into_iter().collect()
    }

    /// Messages that are not over.
    pub(super) fn open(&self) -> usize {
        self.messages.len()
    }

    /// Whether all that is open was accepted, so that the gateway must know of it.
    pub(super) fn is_all_accepted(&self) -> bool {
        self.messages.iter().all(Message::is_accepted)
    }

    /// Whether there is something for `/stop` to stop.
    pub(super) fn is_turn_running(&self) -> bool {
        !self.running.is_empty() || self.messages.iter().any(|message| !message.is_command())
    }

    /// How the message that was over last went.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(turn: i64, step: ReplyStep) -> OutboundContent {
        OutboundContent::Reply { turn: TurnId(turn), step }
    }

    fn delta(turn: i64, text: &str) -> OutboundContent {
        reply(turn, ReplyStep::Delta(text.to_owned()))
    }

    fn accept(talk: &mut Talk, request: i64, turn: Option<i64>) -> Vec<Show> {
        talk.sent(RequestId::Number(request));
        talk.answered(&RequestId::Number(request), Ok(ChatSent { turn }))
    }

    #[test]
    fn an_unacknowledged_message_is_sent_again_with_its_id() {
        let mut talk = Talk::new(Audience::Everyone);
        talk.say("hi".into());
        let first = talk.unsent().expect("to be sent");
        talk.sent(RequestId::Number(1));
        assert_eq!(talk.unsent(), None);
        talk.disconnected();
        assert_eq!(talk.unsent(), Some(first));
        accept(&mut talk, 1, Some(5));
        talk.disconnected();
        assert_eq!(talk.unsent(), None, "acknowledged");
    }

    #[test]
    fn once_shows_only_the_own_reply() {
        let mut talk = Talk::new(Audience::Own);
        talk.say("hi".into());
        assert_eq!(talk.output(delta(4, "of somebody else")), []);
        accept(&mut talk, 1, Some(5));
        assert_eq!(talk.output(delta(4, "more")), []);
        assert_eq!(talk.output(delta(5, "mine")), [Show::Text("mine".into())]);
        talk.output(reply(4, ReplyStep::End(ReplyEnd::Complete)));
        assert_eq!(talk.open(), 1);
        talk.output(reply(5, ReplyStep::End(ReplyEnd::Failed("why".into()))));
        assert_eq!((talk.open(), talk.outcome()), (0, &Outcome::Unanswered("why".into())));
    }

    #[test]
    fn a_message_known_already_claims_the_reply_that_came_before_its_answer() {
        let mut talk = Talk::new(Audience::Own);
        talk.say("hi".into());
        talk.output(reply(5, ReplyStep::Begin));
        talk.output(delta(5, "all of "));
        assert_eq!(accept(&mut talk, 1, None), [Show::Begin, Show::Text("all of ".into())]);
        assert_eq!(talk.output(delta(5, "it")), [Show::Text("it".into())]);
        talk.output(reply(5, ReplyStep::End(ReplyEnd::Complete)));
        assert_eq!((talk.open(), talk.outcome()), (0, &Outcome::Answered));
    }

    #[test]
    fn a_command_is_over_with_its_notice() {
        let mut talk = Talk::new(Audience::Everyone);
        talk.say("/status".into());
        accept(&mut talk, 1, Some(5));
        talk.output(OutboundContent::Notice("fine".into()));
        assert_eq!((talk.open(), talk.is_turn_running()), (0, false));
    }

    #[test]
    fn a_refusal_by_notice_is_no_answer_and_is_not_told_twice() {
        let mut talk = Talk::new(Audience::Everyone);
        talk.say("hi".into());
        accept(&mut talk, 1, Some(5));
        talk.output(OutboundContent::Notice("you may not".into()));
        assert_eq!((talk.give_up(), talk.open()), (Vec::new(), 0));
        assert!(matches!(talk.outcome(), Outcome::Unanswered(_)));
        talk.say("hi".into());
        accept(&mut talk, 2, Some(6));
        assert!(matches!(talk.give_up()[..], [Show::End(ReplyEnd::Failed(_))]));
    }

    proptest! {
        /// Whatever the connection does, each message is in the end acknowledged once, under its first id, in order.
        #[test]
        fn reconnecting_keeps_ids_and_order(breaks in prop::collection::vec(any::<bool>(), 0..60), count in 1..20_usize) {
            let mut talk = Talk::new(Audience::Everyone);
            for n in 0..count {
                talk.say(n.to_string());
            }
            let (mut request, mut accepted) = (0, Vec::new());
            let mut breaks = breaks.into_iter();
            while let Some(params) = talk.unsent() {
                request += 1;
                talk.sent(RequestId::Number(request));
                if breaks.next() == Some(true) {
                    talk.disconnected();
                } else {
                    accepted.push(params);
                    talk.answered(&RequestId::Number(request), Ok(ChatSent { turn: Some(request) }));
                }
            }
            let texts: Vec<String> = accepted.iter().map(|params| params.text.clone()).collect();
            prop_assert_eq!(texts, (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
            let ids: BTreeSet<&String> = accepted.iter().map(|params| &params.message_id).collect();
            prop_assert_eq!(ids.len(), count);
            prop_assert!(talk.is_all_accepted());
        }
    }
}
