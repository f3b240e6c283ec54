//! What people write: from a `getupdates` answer into the store.
//!
//! **Invariants**
//! - The cursor is recorded, and used, only after [`Store::accept`] returned for every message before it.
//! - A message that cannot be read is passed over and holds nothing up.
//! - Nothing that was said is logged.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::value::RawValue;

use super::PLATFORM;
use super::media::Reference;
use super::message::{self, File, FileKind, Message};
use crate::chat::{Attachment, AttachmentKind, Conversation, Inbound, Sender};
use crate::id::TurnId;
use crate::report::Chain;
use crate::store::{Accepted, Store, StoreError};

/// The last messages of which it is remembered what was in them.
const RECENT_MAX: usize = 256;

/// What became of a batch of messages.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The messages that were stored for the first time.
    pub(super) new: Vec<(TurnId, Inbound)>,
    /// Why the cursor is not taken.
    pub(super) failure: Option<StoreError>,
}

/// The messages of the last minutes: the service sometimes sends one again under another id.
#[derive(Debug, Default)]
pub(super) struct Recent {
    seen: VecDeque<(u64, String)>,
}

impl Recent {
    /// Whether the same person sent the same in the same millisecond under another id.
    fn is_twin(&self, message: &Message) -> bool {
        let mark = mark(message);
        mark.is_some_and(|mark| self.seen.iter().any(|(seen, id)| *seen == mark && *id != message.id))
    }

    fn remember(&mut self, message: &Message) {
        let Some(mark) = mark(message) else { return };
        if self.seen.len() >= RECENT_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((mark, message.id.clone()));
    }
}

/// What is the same in two messages that are one.
fn mark(message: &Message) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let files: Vec<&Reference> = message.files.iter().map(|file| &file.reference).collect();
    let files: Vec<_> = files.iter().map(|file| (&file.full_url, &file.param)).collect();
    (&message.from, message.sent_at.0, &message.text, files).hash(&mut hasher);
    (message.sent_at.0 > 0).then(|| hasher.finish())
}

/// Stores the messages of a batch, all in one commit where the store can, and then the cursor.
pub(super) async fn take(
    messages: &[Box<RawValue>],
    cursor: Option<&str>,
    account: &str,
    recent: &mut Recent,
    store: &Store,
) -> Batch {
    let mut read = Vec::new();
    for message in messages.iter().filter_map(|raw| message::read(raw, account)) {
        if recent.is_twin(&message) {
            tracing::debug!(message_id = %message.id, "a message came again under another id and is dropped");
            continue;
        }
        recent.remember(&message);
        read.push(inbound(message, account));
    }
    // Queued in order, waited for together: they share a commit.
    let accepted = futures_util::future::join_all(read.iter().map(|inbound| store.accept(inbound))).await;
    let mut batch = Batch::default();
    for (inbound, outcome) in read.into_iter().zip(accepted) {
        match outcome {
            Ok(Accepted::New(turn)) => batch.new.push((turn, inbound)),
            Ok(Accepted::Duplicate) => {
                tracing::debug!(message_id = %inbound.message_id, "a message came again and is dropped")
            }
            Err(error) => batch.failure = Some(batch.failure.unwrap_or(error)),
        }
    }
    if let (None, Some(cursor)) = (&batch.failure, cursor)
        && let Err(error) = store.set_cursor(PLATFORM, account, cursor).await
    {
        // The messages are safe. Without the cursor a later process asks for them again and drops them.
        tracing::warn!(error = %Chain(&error), "the position in the messages was not recorded");
    }
    batch
}

fn inbound(message: Message, account: &str) -> Inbound {
    let name = message.from.split('@').next().unwrap_or_default().to_owned();
    Inbound {
        conversation: Conversation::new(PLATFORM, message.group.clone().unwrap_or_else(|| message.from.clone())),
        account: account.to_owned(),
        message_id: message.id,
        sender: Sender { id: message.from, name },
        sent_at: message.sent_at,
        text: message.text,
        is_direct: message.group.is_none(),
        attachments: message.files.into_iter().map(attachment).collect(),
        context: message.context,
    }
}

fn attachment(file: File) -> Attachment {
    let kind = match file.kind {
        FileKind::Image => AttachmentKind::Image,
        FileKind::Voice => AttachmentKind::Audio,
        FileKind::Video => AttachmentKind::Video,
        FileKind::File => AttachmentKind::File,
    };
    let source = serde_json::to_string(&file.reference).expect("plain data serialises");
    Attachment { kind, name: file.name, mime: None, size_bytes: file.size_bytes, source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(id: u64, at: i64, text: &str) -> Box<RawValue> {
        let message = json!({
            "message_id": id, "from_user_id": "ann@im.wechat", "create_time_ms": at, "context_token": format!("c{id}"),
            "item_list": [{ "type": 1, "text_item": { "text": text } }],
        });
        RawValue::from_string(message.to_string()).expect("JSON")
    }

    #[tokio::test]
    async fn a_batch_is_stored_then_its_cursor_and_comes_again_as_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let messages = [raw(1, 5, "a"), RawValue::from_string("[7]".to_owned()).expect("JSON"), raw(2, 6, "b")];
        let mut recent = Recent::default();
        let first = take(&messages, Some("x"), "me", &mut recent, &store).await;
        assert_eq!(first.new.iter().map(|(_, inbound)| inbound.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((first.new[0].1.is_direct, first.new[0].1.sender.name.as_str()), (true, "ann"));
        assert_eq!(store.cursor(PLATFORM, "me").await.expect("reads").as_deref(), Some("x"));
        assert_eq!(store.context(PLATFORM, "me", "ann@im.wechat").await.expect("reads").as_deref(), Some("c2"));
        let again = take(&messages, None, "me", &mut recent, &store).await;
        assert!(again.new.is_empty() && again.failure.is_none());
        assert_eq!(store.cursor(PLATFORM, "me").await.expect("reads").as_deref(), Some("x"));
    }

    #[tokio::test]
    async fn a_twin_is_dropped_and_the_same_words_at_another_time_are_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let mut recent = Recent::default();
        let messages = [raw(1, 5, "go on"), raw(2, 5, "go on"), raw(3, 6, "go on"), raw(4, 0, "x"), raw(5, 0, "x")];
        let batch = take(&messages, None, "me", &mut recent, &store).await;
        let ids: Vec<_> = batch.new.iter().map(|(_, inbound)| inbound.message_id.as_str()).collect();
        assert_eq!(ids, ["1", "3", "4", "5"]);
    }
}
