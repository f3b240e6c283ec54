//! A delivery, its clock, a ledger, and a chat service as the members of its chats see it.

use super::*;

/// A chat service with groups, in which a growing reply is shown so.
pub(super) fn medium(growth: fn(&str) -> Growth) -> Medium {
    Medium {
        platform: "test",
        message_max: Measure::Utf16(MESSAGE_UNITS_MAX),
        growth,
        typing: Some(Duration::from_secs(4)),
        language: Language::En,
        chat_rate: |chat| if chat.starts_with('-') { Rate::GROUP } else { Rate::CHAT },
        overall: Rate::overall(30),
        replaces: false,
    }
}

pub(super) fn units(text: &str) -> usize {
    Measure::Utf16(0).len(text)
}

/// What another image or process reads.
pub(super) fn carried(delivery: &Delivery) -> Delivery {
    let state = serde_json::to_value(delivery).expect("plain data");
    serde_json::from_value(state).expect("reads back")
}

/// The outbox as the store has it.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) entries: BTreeMap<EntryId, Entry>,
    pub(super) over: BTreeMap<EntryId, Outcome>,
    pub(super) targets: Vec<Target>,
}

impl Ledger {
    pub(super) fn last(&self) -> Option<EntryId> {
        self.entries.last_key_value().map(|(id, _)| *id)
    }

    pub(super) fn of(&mut self, turn: TurnId) -> Option<&mut Entry> {
        self.entries.values_mut().find(|entry| entry.turn == Some(turn))
    }

    pub(super) fn add(&mut self, turn: Option<TurnId>, conversation: Conversation, text: Option<String>) -> EntryId {
        let id = EntryId(self.last().map_or(1, |last| last.0 + 1));
        let created_at = UnixMillis::now();
        let choices = Vec::new();
        let (files, parts) = (Vec::new(), Vec::new());
        let entry = Entry { id, turn, conversation, text, files, choices, end: None, created_at, parts };
        self.entries.insert(id, entry);
        id
    }

    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let entry = self.entries.get_mut(&attempt.entry).expect("an entry");
        entry.parts.retain(|part| part.number != attempt.number);
        let Attempt { number, start, length, is_marked, file, .. } = *attempt;
        entry.parts.push(Part { number, start, length, is_marked, message_id: None, file });
    }

    pub(super) fn shown(&mut self, attempt: &Attempt, message_id: &MessageId) {
        let parts = &mut self.entries.get_mut(&attempt.entry).expect("an entry").parts;
        let part = parts.iter_mut().find(|part| part.number == attempt.number).expect("it was tried");
        part.message_id = Some(message_id.0.clone());
    }

    pub(super) fn open(&self) -> Outbox {
        let open = self.entries.values().filter(|entry| !self.over.contains_key(&entry.id));
        Outbox { entries: open.cloned().collect(), last: self.last(), targets: self.targets.clone() }
    }
}

/// A delivery, its clock, and the chats as their members see them.
#[derive(Default)]
pub(super) struct World {
    pub(super) medium: Medium,
    pub(super) delivery: Delivery,
    pub(super) now: MonoNanos,
    pub(super) in_flight: Vec<Request>,
    /// By chat: message id and text.
    pub(super) chats: BTreeMap<String, Vec<(i64, String)>>,
    /// What was said in each turn.
    pub(super) said: BTreeMap<TurnId, String>,
    pub(super) files: BTreeMap<TurnId, Vec<OutFile>>,
    pub(super) over: Vec<TurnId>,
    pub(super) doubted: bool,
    pub(super) ledger: Ledger,
    /// What was found out and is not in the ledger.
    pub(super) findings: Vec<Finding>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| Growth::Edit)
    }

    pub(super) fn with(growth: fn(&str) -> Growth) -> Self {
        let medium = medium(growth);
        let delivery = Delivery::default().on(medium);
        Self { medium, delivery, now: MonoNanos(3_600_000_000_000), ..Self::default() }
    }

    /// Records what is due and hands it to the delivery, as the daemon does.
    pub(super) fn push(&mut self, outbound: Outbound) {
        let conversation = outbound.conversation.clone();
        let entry = match &outbound.content {
            OutboundContent::Notice(notice) => Some(self.ledger.add(None, conversation, Some(notice.text.clone()))),
            OutboundContent::Reply { turn, step } => {
                let (turn, step) = (*turn, step.clone());
                let begun = self.ledger.of(turn).map(|entry| entry.id);
                let id = begun.unwrap_or_else(|| self.ledger.add(Some(turn), conversation.clone(), None));
                if begun.is_none() && step != ReplyStep::Begin {
                    self.delivery.push(Outbound::reply(conversation, turn, ReplyStep::Begin), Some(id), self.now);
                }
                let said = self.said.entry(turn).or_default();
                match step {
                    ReplyStep::Delta(text) => said.push_str(&text),
                    ReplyStep::SoFar(text) => *said = text,
                    ReplyStep::End(end) => {
                        let text = said.clone();
                        let entry = self.ledger.of(turn).expect("begun");
                        (entry.text, entry.end) = (Some(text), Some(end));
                        entry.files = self.files.get(&turn).cloned().unwrap_or_default();
                    }
                    ReplyStep::File(file) => {
                        let files = self.files.entry(turn).or_default();
                        if files.iter().all(|known| known.number != file.number) {
                            files.push(file);
                        }
                    }
                    ReplyStep::Begin | ReplyStep::Activity(_) => {}
                }
                Some(id)
            }
        };
        self.delivery.push(outbound, entry, self.now);
        self.find();
    }

    /// Takes what the delivery has found out, and records what it had found before.
    pub(super) fn find(&mut self) {
        let found = self.delivery.take_findings();
        for finding in std::mem::replace(&mut self.findings, found) {
            match finding {
                Finding::Over { entry, outcome, .. } => {
                    self.ledger.over.insert(entry, outcome);
                }
                Finding::Unreachable { chat, .. } => self.ledger.targets.push(Target::Unreachable(chat)),
                Finding::Reachable { chat } => {
                    self.ledger.targets.retain(|target| *target != Target::Unreachable(chat.clone()));
                }
                Finding::Moved { chat, to } => self.ledger.targets.push(Target::Moved(chat, to)),
            }
        }
        for finding in &self.findings {
            if let Finding::Over { entry, .. } = finding
                && let Some(turn) = self.ledger.entries[entry].turn
            {
                self.over.push(turn);
            }
        }
    }

    pub(super) fn pass(&mut self, wait: Duration) {
        self.now = after(self.now, wait);
    }

    /// Starts what may start now, and returns when more may.
    pub(super) fn start(&mut self, pace: Pace) -> Option<MonoNanos> {
        loop {
            match self.delivery.next(self.now, pace) {
                Next::Start(request) => {
                    if let Action::Send(post) | Action::Edit { post, .. } | Action::Draft { post, .. } = &request.action
                    {
                        assert!(!post.text.trim().is_empty() && units(&post.text) <= MESSAGE_UNITS_MAX);
                    }
                    assert!(self.in_flight.iter().all(|other| other.chat != request.chat), "two at once in a chat");
                    if let Some(attempt) = &request.attempt {
                        self.ledger.attempt(attempt);
                    }
                    self.in_flight.push(request);
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    /// Carries a request out as a chat service would.
    pub(super) fn perform(&mut self, request: &Request) -> Result<Option<MessageId>, Unsent> {
        let messages = self.chats.entry(request.chat.clone()).or_default();
        match &request.action {
            Action::Typing | Action::Draft { .. } => Ok(None),
            Action::Send(post) => {
                let id = i64::try_from(messages.len()).expect("few messages") + 1;
                messages.push((id, post.text.clone()));
                Ok(Some(id.into()))
            }
            Action::Attach(file) => {
                let id = i64::try_from(messages.len()).expect("few messages") + 1;
                let word = file.word.as_ref().map(|word| format!("{word}\n")).unwrap_or_default();
                messages.push((id, format!("{word}📎 {}", file.name)));
                Ok(Some(id.into()))
            }
            Action::Edit { message_id, post } => {
                let is_it = |message: &&mut (i64, String)| MessageId::from(message.0) == *message_id;
                let message = messages.iter_mut().find(is_it).expect("an edited message");
                if message.1 == post.text {
                    return Err(unsent(Failure::Unchanged));
                }
                message.1.clone_from(&post.text);
                Ok(None)
            }
        }
    }

    pub(super) fn finish(&mut self, at: usize, failure: Option<Unsent>) {
        let request = self.in_flight.remove(at % self.in_flight.len());
        let outcome = match failure {
            Some(error) => Err(error),
            None => self.perform(&request),
        };
        if let (Some(attempt), Ok(Some(message_id))) = (&request.attempt, &outcome) {
            self.ledger.shown(attempt, message_id);
        }
        self.delivery.done(&request.chat, outcome, self.now);
        self.find();
    }

    /// Replaces the image. What is in flight may have been carried out, or not.
    pub(super) fn hand_off(&mut self, carried_out: bool) {
        let saved = carried(&self.delivery);
        self.cut_off(carried_out);
        self.delivery = saved.on(self.medium);
        self.take_up();
    }

    /// Kills the process, and begins another with what was recorded.
    pub(super) fn kill(&mut self, carried_out: bool) {
        self.cut_off(carried_out);
        self.delivery = Delivery::default().on(self.medium);
        self.take_up();
    }

    pub(super) fn take_up(&mut self) {
        self.findings.clear();
        self.delivery.take_up(self.ledger.open(), self.now);
        self.find();
    }

    pub(super) fn cut_off(&mut self, carried_out: bool) {
        for request in std::mem::take(&mut self.in_flight) {
            self.doubted |= matches!(request.action, Action::Send(_) | Action::Attach(_));
            if carried_out {
                let outcome = self.perform(&request);
                // The last of them was recorded before the end came.
                if let (Some(attempt), Ok(Some(message_id))) = (&request.attempt, outcome)
                    && self.in_flight.is_empty()
                    && message_id.0.ends_with(['0', '2', '4', '6', '8'])
                {
                    self.ledger.shown(attempt, &message_id);
                }
            }
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let wait = self.start(Pace::Streaming);
            if !self.in_flight.is_empty() {
                self.finish(0, None);
            } else if let Some(at) = wait {
                assert!(at > self.now, "a wait that is over");
                self.now = at;
            } else {
                return;
            }
        }
        panic!("delivery never comes to rest");
    }

    pub(super) fn shown(&self, chat: &str) -> Vec<&str> {
        self.chats.get(chat).map(|all| all.iter().map(|message| message.1.as_str()).collect()).unwrap_or_default()
    }
}
