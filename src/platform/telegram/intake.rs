//! What people write: from a `getUpdates` answer into the store.
//!
//! **Invariants**
//! - An update is confirmed, by the offset of a later `getUpdates`, only after [`Store::accept`] returned for it.
//! - Each update is read on its own, and its id before anything else: one that cannot be read is confirmed like any
//!   other and holds nothing up.
//! - Nothing that was said is logged.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::chat::{Attachment, Conversation, Inbound, Sender};
use crate::clock::UnixMillis;
use crate::id::TurnId;
use crate::report::Chain;
use crate::store::{Accepted, Store, StoreError};

use super::{PLATFORM, media};

/// The kinds of update that are asked for. Channel posts and edits are none of them.
pub(super) const KINDS: &[&str] = &["message", "callback_query"];

#[derive(Deserialize)]
struct UpdateHead {
    update_id: i64,
}

#[derive(Deserialize)]
struct Update {
    #[serde(default)]
    message: Option<Value>,
    #[serde(default)]
    callback_query: Option<CallbackQuery>,
}

/// A button was pressed (<https://core.telegram.org/bots/api#callbackquery>).
#[derive(Deserialize)]
struct CallbackQuery {
    id: String,
    from: User,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    data: Option<String>,
}

/// A button that was pressed: to be answered, and its message's buttons to be taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Press {
    pub(super) query: String,
    pub(super) chat: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Message {
    message_id: i64,
    #[serde(default)]
    date: i64,
    chat: Chat,
    #[serde(default)]
    from: Option<User>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    caption: Option<String>,
    #[serde(default)]
    message_thread_id: Option<i64>,
    #[serde(default)]
    is_topic_message: bool,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
}

#[derive(Deserialize)]
struct User {
    id: i64,
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: Option<String>,
}

/// The bot that listens.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// The part of the token before the colon, so that it is known without asking.
    pub(super) id: String,
    /// The name in `/command@name`, once it is known.
    pub(super) username: Option<String>,
}

/// What became of a batch of updates.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The messages that were stored for the first time.
    pub(super) new: Vec<(TurnId, Inbound)>,
    /// The offset that confirms what was dealt with; none if that is nothing.
    pub(super) offset: Option<i64>,
    /// The presses among what is stored, also those that came again: an answer may have got lost.
    pub(super) presses: Vec<Press>,
    /// Why the rest is not confirmed.
    pub(super) failure: Option<StoreError>,
}

/// Stores the messages of a batch, and then the cursor.
pub(super) async fn take(updates: &[Box<RawValue>], account: &Account, store: &Store) -> Batch {
    let batch = take_posted(updates, account, store).await;
    if let Some(offset) = batch.offset
        && let Err(error) = store.set_cursor(PLATFORM, &account.id, &offset.to_string()).await
    {
        // The messages are safe. Without the cursor a later process asks for them again and drops them.
        tracing::warn!(error = %Chain(&error), "the position in the updates was not recorded");
    }
    batch
}

/// Stores the messages of a batch, all in one commit where the store can. Updates that are posted come in no order, so they
/// are no cursor: one that is behind would be skipped, should it be polled for.
pub(super) async fn take_posted(updates: &[Box<RawValue>], account: &Account, store: &Store) -> Batch {
    let mut read: Vec<(i64, Option<Said>)> = updates.iter().filter_map(|raw| read(raw, account)).collect();
    read.sort_by_key(|update| update.0);
    // Queued in order, waited for together: they share a commit.
    let accepts = read.iter().map(|(_, said)| async move {
        match said {
            Some(said) => store.accept(&said.inbound).await.map(Some),
            None => Ok(None),
        }
    });
    let accepted = futures_util::future::join_all(accepts).await;
    let mut batch = Batch::default();
    for ((update_id, said), outcome) in read.into_iter().zip(accepted) {
        let (inbound, press) = said.map_or((None, None), |said| (Some(said.inbound), said.press));
        if outcome.is_ok() {
            batch.presses.extend(press);
        }
        match (outcome, inbound) {
            (Ok(Some(Accepted::New(turn))), Some(inbound)) => batch.new.push((turn, inbound)),
            (Ok(Some(Accepted::Duplicate)), _) => tracing::debug!(update_id, "an update came again and is dropped"),
            (Ok(_), _) => {}
            (Err(error), _) => batch.failure = Some(batch.failure.unwrap_or(error)),
        }
        // Updates after one that failed may be stored, and are told; they come again as duplicates.
        if batch.failure.is_none() {
            batch.offset = Some(update_id.saturating_add(1));
        }
    }
    batch
}

/// What somebody said, in words or by a button.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    inbound: Inbound,
    press: Option<Press>,
}

/// The id of an update, and what is said in it if it is for this bot.
fn read(raw: &RawValue, account: &Account) -> Option<(i64, Option<Said>)> {
    let Ok(UpdateHead { update_id }) = serde_json::from_str(raw.get()) else {
        tracing::warn!(size_bytes = raw.get().len(), "an update without an id is skipped");
        return None;
    };
    let said = serde_json::from_str::<Update>(raw.get()).and_then(|update| match update {
        Update { message: Some(message), .. } => {
            let attachments = media::attachments(&message);
            let message: Message = serde_json::from_value(message)?;
            Ok(message.into_inbound(attachments, account).map(|inbound| Said { inbound, press: None }))
        }
        Update { callback_query: Some(query), .. } => Ok(query.into_said(account)),
        Update { .. } => {
            tracing::debug!(update_id, "an update of another kind is skipped");
            Ok(None)
        }
    });
    let said = said.unwrap_or_else(|error| {
        // The error's own text would quote the message.
        tracing::warn!(update_id, problem = ?error.classify(), column = error.column(), "an update is malformed and is skipped");
        None
    });
    Some((update_id, said))
}

impl Message {
    fn into_inbound(self, attachments: Vec<Attachment>, account: &Account) -> Option<Inbound> {
        let said = self.text.clone().or_else(|| self.caption.clone());
        let said = said.or_else(|| (!attachments.is_empty()).then(String::new))?;
        let text = address(said, account.username.as_deref())?;
        let from = self.from.as_ref()?.sender();
        // Not the update id: Telegram starts these anew at a random number after a quiet week, so one could come back.
        // A message's id is unique in its chat for good, and the same when the update is redelivered.
        let message_id = format!("{}:{}", self.chat.id, self.message_id);
        let sent_at = UnixMillis(self.date.saturating_mul(1000));
        Some(Inbound { attachments, ..self.inbound(account, message_id, from, sent_at, text) })
    }

    /// Something that is said where this message is.
    fn inbound(
        &self,
        account: &Account,
        message_id: String,
        sender: Sender,
        sent_at: UnixMillis,
        text: String,
    ) -> Inbound {
        let thread = self.message_thread_id.filter(|_| self.is_topic_message);
        Inbound {
            conversation: Conversation {
                platform: PLATFORM.into(),
                chat: self.chat.id.to_string(),
                thread: thread.map(|thread| thread.to_string()),
            },
            account: account.id.clone(),
            message_id,
            sender,
            sent_at,
            text,
            is_direct: self.chat.id > 0,
            attachments: Vec::new(),
            context: None,
        }
    }
}

impl CallbackQuery {
    /// A press says what the button carries. Telegram does not say when it was pressed.
    fn into_said(self, account: &Account) -> Option<Said> {
        let (message, text) = (self.message?, self.data?);
        let (chat, id) = (message.chat.id.to_string(), message.message_id.to_string());
        let message_id = format!("cb:{}", self.id);
        let inbound = message.inbound(account, message_id, self.from.sender(), UnixMillis::now(), text);
        Some(Said { inbound, press: Some(Press { query: self.id, chat, message: id }) })
    }
}

impl User {
    fn sender(&self) -> Sender {
        let name = match &self.last_name {
            Some(last_name) => format!("{} {last_name}", self.first_name),
            None => self.first_name.clone(),
        };
        Sender { id: self.id.to_string(), name }
    }
}

/// Takes the bot's own name off `/command@name`. A command for another bot is nothing for this one.
fn address(text: String, username: Option<&str>) -> Option<String> {
    let command = text.split_whitespace().next().unwrap_or_default();
    let Some((name, bot)) = command.split_once('@').filter(|_| text.starts_with('/')) else { return Some(text) };
    match username {
        Some(username) if username.eq_ignore_ascii_case(bot) => Some(format!("{name}{}", &text[command.len()..])),
        Some(_) => None,
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> Account {
        Account { id: "42".into(), username: Some("HermesBot".into()) }
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    fn only(json: &str) -> Option<Inbound> {
        read(&raw(json), &account()).expect("an id").1.map(|said| said.inbound)
    }

    #[test]
    fn a_message_of_a_topic_is_read_whole() {
        let inbound = only(
            r#"{"update_id":9,"message":{"message_id":5,"date":7,"chat":{"id":-100,"type":"supergroup"},
                "from":{"id":1,"first_name":"Ann","last_name":"Lee"},"text":"hi","message_thread_id":3,
                "is_topic_message":true}}"#,
        );
        let wanted = Inbound {
            conversation: Conversation { platform: "telegram".into(), chat: "-100".into(), thread: Some("3".into()) },
            account: "42".into(),
            message_id: "-100:5".into(),
            sender: Sender { id: "1".into(), name: "Ann Lee".into() },
            sent_at: UnixMillis(7000),
            text: "hi".into(),
            is_direct: false,
            attachments: Vec::new(),
            context: None,
        };
        assert_eq!(inbound, Some(wanted));
    }

    #[test]
    fn a_press_says_what_the_button_carries() {
        let update = r#"{"update_id":1,"callback_query":{"id":"77","from":{"id":1,"first_name":"Ann"},"data":"/approve 1",
            "message":{"message_id":5,"date":7,"chat":{"id":1}}}}"#;
        let said = read(&raw(update), &account()).expect("an id").1.expect("a press");
        let press = Press { query: "77".into(), chat: "1".into(), message: "5".into() };
        assert_eq!(said.press, Some(press));
        let inbound = said.inbound;
        assert_eq!((inbound.text.as_str(), inbound.message_id.as_str()), ("/approve 1", "cb:77"));
        assert_eq!(
            (inbound.conversation.chat.as_str(), inbound.is_direct, inbound.sender.id.as_str()),
            ("1", true, "1")
        );
        for strange in [r#""data":5"#, r#""data":null"#, r#""message":{"chat":{}}"#, r#""id":7"#] {
            let update = format!(r#"{{"update_id":1,"callback_query":{{"id":"1","from":{{"id":1}},{strange}}}}}"#);
            assert_eq!(only(&update), None, "{strange}");
        }
    }

    #[test]
    fn what_is_no_text_for_the_bot_is_confirmed_and_dropped() {
        let message =
            |fields: &str| format!(r#"{{"update_id":1,"message":{{"message_id":1,"chat":{{"id":1}},{fields}}}}}"#);
        let table = [
            r#"{"update_id":1,"new_kind":{"x":[]}}"#.to_owned(),
            r#"{"update_id":1,"channel_post":{"message_id":1,"chat":{"id":1},"text":"x"}}"#.to_owned(),
            r#"{"update_id":1,"message":{"message_id":"no number"}}"#.to_owned(),
            r#"{"update_id":1,"message":17}"#.to_owned(),
            message(r#""from":{"id":1},"sticker":{}"#),
            message(r#""from":{"id":1},"text":"/new@OtherBot""#),
        ];
        for update in table {
            assert_eq!(only(&update), None, "{update}");
        }
        assert_eq!(
            only(&message(r#""from":{"id":1},"caption":"a photo""#)).map(|i| i.text).as_deref(),
            Some("a photo")
        );
    }

    #[test]
    fn the_bots_own_name_is_taken_off_a_command_only() {
        let cut = |text: &str| address(text.to_owned(), Some("HermesBot"));
        assert_eq!(cut("/update@hermesbot check").as_deref(), Some("/update check"));
        assert_eq!(cut("/new@HermesBot").as_deref(), Some("/new"));
        assert_eq!(cut("/new@Other"), None);
        assert_eq!(cut("mail a@b.org").as_deref(), Some("mail a@b.org"));
        assert_eq!(cut("/new a@b.org").as_deref(), Some("/new a@b.org"));
    }

    #[tokio::test]
    async fn a_batch_is_stored_then_confirmed_and_comes_again_as_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let updates = [
            raw(r#"{"update_id":3,"message":{"message_id":1,"chat":{"id":1},"from":{"id":1},"text":"a"}}"#),
            raw(r#"{"no_id":true}"#),
            raw(r#"{"update_id":4,"poll":{}}"#),
        ];
        let first = take(&updates, &account(), &store).await;
        assert_eq!((first.new.len(), first.offset), (1, Some(5)));
        assert_eq!(store.cursor(PLATFORM, "42").await.expect("reads").as_deref(), Some("5"));
        let again = take(&updates, &account(), &store).await;
        assert_eq!((again.new.len(), again.offset), (0, Some(5)));
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_skipped(id in any::<i64>(), key in "[a-z_]{1,8}", value in "[1-9][0-9]{0,2}|null|\"x\"|\\[\\]|\\{\\}") {
            let update = format!(r#"{{"update_id":{id},"message":{{"{key}":{value}}}}}"#);
            prop_assert_eq!(read(&raw(&update), &account()).map(|update| update.0), Some(id));
        }
    }
}
