//! One chat: what waits for it, what is in flight, and what its failures mean.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::item::Item;
use super::medium::{Growth, Medium, Shape};
use super::pace::{after, back_off};
use super::request::{Action, MessageId};
use super::{AGE_MAX, NOBODY_THERE, TOO_OLD};
use crate::chat::NotSent;
use crate::clock::MonoNanos;
use crate::platform::link::{Failure, Unsent};

/// A request in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) item: u64,
    pub(super) action: Action,
    /// How much of the item's text it shows, in bytes.
    #[serde(default)]
    pub(super) body: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Chat {
    #[serde(default)]
    pub(super) items: VecDeque<Item>,
    /// Its place in the line for what the bot may send in all: lower is earlier. It goes to the end when it had
    /// nothing to show before, and whenever it is served.
    #[serde(default)]
    pub(super) place: u64,
    #[serde(default)]
    pub(super) in_flight: Option<InFlight>,
    /// Failures in a row.
    #[serde(default)]
    pub(super) failures: u32,
    /// Nothing is sent before.
    #[serde(default)]
    pub(super) retry_at: MonoNanos,
    /// When a growing reply may be edited again.
    #[serde(default)]
    pub(super) edit_at: MonoNanos,
    /// It was told in the log that nobody can be reached here.
    #[serde(default)]
    pub(super) unreachable: bool,
    /// Drafts, or cards, are refused here.
    #[serde(default)]
    pub(super) draftless: bool,
}

impl Chat {
    /// Whether something about it matters although nothing waits for it.
    pub(super) fn is_remembered(&self, now: MonoNanos) -> bool {
        self.unreachable || self.retry_at > now || self.edit_at > now
    }

    /// Takes the last place in line, unless it waits already.
    pub(super) fn line_up(&mut self, place: u64) {
        if self.items.is_empty() {
            self.place = place;
        }
    }
}

/// What a failure says of a chat.
pub(super) enum Discovery {
    /// It has this id now.
    Moved(String),
    /// Nobody can be reached there.
    Unreachable,
}

impl Chat {
    fn item(&mut self, id: u64) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    /// What its messages are like.
    pub(super) fn shape(&self, medium: Medium, key: &str) -> Shape {
        let shape = medium.shape(key);
        let growth = match shape.growth {
            Growth::Draft if self.draftless => Growth::Edit,
            // What is no card is a message that cannot be edited.
            Growth::Card if self.draftless => Growth::Blocks,
            growth => growth,
        };
        Shape { growth, ..shape }
    }

    pub(super) fn showed(&mut self, in_flight: InFlight, sent: Option<MessageId>) {
        let Some(item) = self.item(in_flight.item) else { return };
        let body = in_flight.body;
        match (in_flight.action, sent) {
            (Action::Typing | Action::Draft { .. }, _) => {}
            (Action::Edit { message_id, post }, _) | (Action::Send(post), Some(message_id)) => {
                item.showed(message_id, post.text, post.is_final.then_some(body));
            }
            (Action::Attach(_), Some(message_id)) => item.showed(message_id, String::new(), Some(body)),
            (Action::Send(_) | Action::Attach(_), None) => {
                item.skip(body, "the platform did not say which message it is")
            }
        }
    }

    /// Takes a failure.
    pub(super) fn failed(
        &mut self,
        key: &str,
        in_flight: InFlight,
        error: &Unsent,
        medium: Medium,
        now: MonoNanos,
    ) -> Option<Discovery> {
        match error.failure.clone() {
            Failure::Again { asked } => self.again((medium.platform, key), &in_flight, error, asked, now),
            Failure::NoDraft => {
                self.draftless = true;
                let shape = self.shape(medium, key);
                self.items.iter_mut().for_each(|item| item.shape = shape);
            }
            Failure::Unchanged => self.showed(in_flight, None),
            Failure::Moved(new) => return Some(Discovery::Moved(new)),
            Failure::Unreachable => {
                self.unreachable((medium.platform, key), error);
                return Some(Discovery::Unreachable);
            }
            Failure::NoMessage if matches!(in_flight.action, Action::Edit { .. }) => {
                if let Some(item) = self.item(in_flight.item) {
                    item.lost_message();
                }
            }
            Failure::NoThread if self.item(in_flight.item).is_some_and(|item| item.thread.is_some()) => {
                if let Some(item) = self.item(in_flight.item) {
                    item.thread = None;
                }
            }
            Failure::NoFile(why) => self.unsendable((medium.platform, key), &in_flight, error, why),
            Failure::NoThread | Failure::NoMessage | Failure::Refused => match in_flight.action {
                Action::Attach(_) => {
                    let why = NotSent::Refused(error.why.clone());
                    self.unsendable((medium.platform, key), &in_flight, error, why);
                }
                _ => self.refused((medium.platform, key), in_flight, error),
            },
        }
        None
    }

    fn again(
        &mut self,
        (platform, key): (&str, &str),
        in_flight: &InFlight,
        error: &Unsent,
        asked: Option<Duration>,
        now: MonoNanos,
    ) {
        if matches!(in_flight.action, Action::Typing | Action::Draft { .. }) && asked.is_none() {
            return; // It is shown again in a few seconds anyway, and must not hold back text.
        }
        self.failures = self.failures.saturating_add(1);
        let wait = asked.unwrap_or_else(|| back_off(self.failures));
        self.retry_at = after(now, wait);
        tracing::warn!(
            platform,
            chat = key,
            failures = self.failures,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            error = error.why,
            "a message was not delivered and is tried again"
        );
        let Some(item) = self.item(in_flight.item) else { return };
        if matches!(in_flight.action, Action::Send(_) | Action::Attach(_)) && error.is_ambiguous {
            item.unanswered();
        }
        if now.since(item.queued_at) > AGE_MAX {
            tracing::error!(platform, chat = key, "a message was not delivered for a day and is given up");
            item.give_up(TOO_OLD);
        }
    }

    fn unreachable(&mut self, (platform, key): (&str, &str), error: &Unsent) {
        if !self.unreachable {
            tracing::warn!(
                platform,
                chat = key,
                error = error.why,
                "a chat is out of reach: what waits for it is given up"
            );
        }
        self.unreachable = true;
        self.items.iter_mut().for_each(|item| item.give_up(NOBODY_THERE));
    }

    /// A file is not taken: a line of text is shown in its place.
    fn unsendable(&mut self, (platform, key): (&str, &str), in_flight: &InFlight, error: &Unsent, why: NotSent) {
        tracing::warn!(platform, chat = key, error = error.why, "a file is not taken: its chat is told of it instead");
        if let Some(item) = self.item(in_flight.item) {
            item.file_refused(why);
        }
    }

    fn refused(&mut self, (platform, key): (&str, &str), in_flight: InFlight, error: &Unsent) {
        if matches!(in_flight.action, Action::Typing | Action::Draft { .. }) {
            return;
        }
        tracing::error!(platform, chat = key, error = error.why, "a message is refused: this part of it is given up");
        let Some(item) = self.item(in_flight.item) else { return };
        let body = in_flight.body;
        match in_flight.action {
            // What is shown stays; it counts as the wanted text, so that what follows goes on.
            Action::Edit { message_id, post } => item.showed(message_id, post.text, post.is_final.then_some(body)),
            _ => item.skip(body, &error.why),
        }
    }
}
