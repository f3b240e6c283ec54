//! What users do: each is an update for the bot.

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::StoredFile;
use super::keyboard::Press;
use super::state::{Message, State, now_ms};

/// A file that a user sends, with sizes in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// A photo in several sizes, smallest first: width, height, bytes.
    Photo(Vec<(u32, u32, u64)>),
    /// Any file.
    Document {
        /// Its name.
        name: String,
        /// Its MIME type.
        mime: String,
        /// Its size.
        bytes: u64,
    },
    /// A voice message.
    Voice(u64),
    /// A piece of music.
    Audio(u64),
    /// A film.
    Video(u64),
}

impl State {
    /// `user` writes `text` in `chat`. Returns the id of the update.
    pub fn say(&mut self, user: i64, chat: i64, thread: Option<i64>, text: &str) -> i64 {
        self.write(user, chat, thread, json!({ "text": text }))
    }

    /// `user` sends a file. `more` is added to the message: a caption or `media_group_id`.
    pub fn say_media(&mut self, user: i64, chat: i64, media: &Media, more: &Value) -> i64 {
        let mut content = match media {
            Media::Photo(sizes) => {
                let sizes = sizes.iter().map(|&(width, height, bytes)| {
                    let mut size = self.file("photos", "jpg", bytes);
                    size["width"] = width.into();
                    size["height"] = height.into();
                    size
                });
                json!({ "photo": sizes.collect::<Vec<_>>() })
            }
            Media::Document { name, mime, bytes } => {
                let mut file = self.file("documents", "bin", *bytes);
                file["file_name"] = name.as_str().into();
                file["mime_type"] = mime.as_str().into();
                json!({ "document": file })
            }
            Media::Voice(bytes) => json!({ "voice": self.film("voice", "oga", "audio/ogg", *bytes) }),
            Media::Audio(bytes) => json!({ "audio": self.film("music", "mp3", "audio/mpeg", *bytes) }),
            Media::Video(bytes) => {
                let mut file = self.film("videos", "mp4", "video/mp4", *bytes);
                file["width"] = 640.into();
                file["height"] = 480.into();
                json!({ "video": file })
            }
        };
        merge(&mut content, more);
        self.write(user, chat, None, content)
    }

    /// `user` sends a file with these bytes and this caption: a photo, or a document if it has a name and a MIME type.
    pub fn send(&mut self, user: i64, chat: i64, caption: &str, bytes: &[u8], document: Option<(&str, &str)>) -> i64 {
        let size = u64::try_from(bytes.len()).expect("small");
        let folder = if document.is_some() { "documents" } else { "photos" };
        let stored = StoredFile { uploaded: Some(bytes.to_vec()), ..StoredFile::made_up(folder, "bin", size) };
        let file_id = self.store_file(stored);
        let mut file = json!({ "file_id": file_id, "file_unique_id": format!("u{file_id}"), "file_size": size });
        let mut content = match document {
            Some((name, mime)) => {
                merge(&mut file, &json!({ "file_name": name, "mime_type": mime }));
                json!({ "document": file })
            }
            None => {
                merge(&mut file, &json!({ "width": 600, "height": 400 }));
                json!({ "photo": [file] })
            }
        };
        if !caption.is_empty() {
            content["caption"] = caption.into();
        }
        self.write(user, chat, None, content)
    }

    /// A new file, as the part that all kinds of it have.
    fn file(&mut self, folder: &str, extension: &str, bytes: u64) -> Value {
        let file_id = self.store_file(StoredFile::made_up(folder, extension, bytes));
        json!({ "file_id": file_id, "file_unique_id": format!("u{file_id}"), "file_size": bytes })
    }

    fn film(&mut self, folder: &str, extension: &str, mime: &str, bytes: u64) -> Value {
        let mut file = self.file(folder, extension, bytes);
        file["duration"] = 3.into();
        file["mime_type"] = mime.into();
        file
    }

    fn write(&mut self, user: i64, chat: i64, thread: Option<i64>, content: Value) -> i64 {
        let message_id = self.new_message_id(chat);
        let mut message = json!({
            "message_id": message_id,
            "date": now_ms() / 1000,
            "chat": Self::chat(chat),
            "from": Self::user(user),
        });
        merge(&mut message, &content);
        if let Some(thread) = thread {
            message["message_thread_id"] = thread.into();
            message["is_topic_message"] = true.into();
        }
        self.queue_kind("message", message)
    }

    /// `user` presses the button of the bot's message that carries `data`. Returns the id of the query.
    ///
    /// # Panics
    /// If there is no such button.
    pub fn press(&mut self, user: i64, chat: i64, message_id: i64, data: &str) -> String {
        let own = |message: &&Message| message.chat == chat && message.message_id == message_id && !message.deleted;
        let message = self.messages.iter().rfind(own).expect("a message of the bot").clone();
        let rows = message.keyboard.as_ref().and_then(|keyboard| keyboard["inline_keyboard"].as_array());
        let mut buttons = rows.into_iter().flatten().filter_map(Value::as_array).flatten();
        assert!(buttons.any(|button| button["callback_data"] == data), "no button with {data}: {message:?}");
        let id = format!("{}", 7_000_000_000_u64 + u64::try_from(self.presses.len()).expect("few"));
        let query = json!({
            "id": id,
            "from": Self::user(user),
            "message": super::messages::as_message(self, &message),
            "chat_instance": format!("{chat}"),
            "data": data,
        });
        self.presses.insert(id.clone(), Press { data: data.to_owned(), answer: None });
        self.queue_kind("callback_query", query);
        id
    }

    /// A person as a `User`.
    fn user(user: i64) -> Value {
        json!({ "id": user, "is_bot": false, "first_name": format!("User {user}") })
    }

    /// Queues an update if the bot wants the kind. Returns its id all the same.
    fn queue_kind(&mut self, kind: &str, content: Value) -> i64 {
        // What is not named here comes only if it was asked for by name, and this server makes none of it.
        let wants = self.wanted.as_ref().is_none_or(|kinds| kinds.iter().any(|wanted| wanted == kind));
        if wants {
            return self.queue(json!({ kind: content }));
        }
        self.next_update += 1;
        self.next_update - 1
    }

    /// Queues an update as it is, but for its id, which is returned.
    pub fn queue(&mut self, mut update: Value) -> i64 {
        let id = self.next_update;
        self.next_update += 1;
        update["update_id"] = id.into();
        self.updates.push_back(update);
        id
    }

    /// Keeps what `allowed_updates` says: an empty list is the usual kinds, none leaves what was.
    pub(super) fn want(&mut self, kinds: Option<Value>) {
        if let Some(Value::Array(kinds)) = kinds {
            let kinds: Vec<String> = kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            self.wanted = (!kinds.is_empty()).then_some(kinds);
        }
    }

    /// Drops the updates that `offset` confirms. A negative one keeps that many from the end.
    pub fn confirm(&mut self, offset: i64) {
        if offset > 0 {
            // Their ids ascend, so what is confirmed is a head of the queue, as long as there may be.
            let confirmed = |update: &Value| update["update_id"].as_i64().is_some_and(|id| id < offset);
            while self.updates.front().is_some_and(confirmed) {
                self.updates.pop_front();
            }
        } else if let Ok(keep @ 1..) = usize::try_from(offset.unsigned_abs()) {
            let drop = self.updates.len().saturating_sub(keep);
            self.updates.drain(..drop);
        }
    }

    /// The oldest updates that are not confirmed.
    pub fn batch(&self, limit: usize) -> Vec<Value> {
        self.updates.iter().take(limit).cloned().collect()
    }
}

/// Adds the fields of one object to another.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
