//! Files: what users send can be downloaded, what the bot uploads is kept
//! (<https://core.telegram.org/bots/api#getfile>).

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::Shared;
use super::entities;
use super::keyboard::keyboard;
use super::messages::{as_message, open_thread, push, reachable, reply_to};
use super::methods::{Outcome, bad_request, not_found};
use super::params::Params;
use super::state::{Attached, Message, State, Version, now_ms};

/// Larger files cannot be downloaded by a bot.
const DOWNLOAD_BYTES_MAX: u64 = 20 << 20;

/// A file on the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredFile {
    /// Under `/file/bot<token>/`.
    pub path: String,
    /// Its name, if it was uploaded.
    pub name: Option<String>,
    /// What `getFile` and the update say; the bytes may be others.
    pub size: u64,
    /// What was uploaded; a file of a user has bytes that follow from its size.
    #[serde(serialize_with = "encode", deserialize_with = "decode", default)]
    pub uploaded: Option<Vec<u8>>,
}

impl StoredFile {
    /// A file that a user sends. The number in its path is put in when it is stored.
    pub fn made_up(folder: &str, extension: &str, size: u64) -> Self {
        Self { path: format!("{folder}/file_#.{extension}"), name: None, size, uploaded: None }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let byte = |at: u64| u8::try_from(at % 251).expect("below 251");
        self.uploaded.clone().unwrap_or_else(|| (0..self.size).map(byte).collect())
    }
}

impl State {
    /// Stores a file. Returns its id.
    pub fn store_file(&mut self, mut file: StoredFile) -> String {
        let number = self.files.len();
        file.path = file.path.replace('#', &number.to_string());
        let id = format!("AgACAgIAAx{number}");
        self.files.insert(id.clone(), file);
        id
    }
}

/// `getFile`: where a file is downloaded from.
pub(super) fn get_file(state: &State, params: &Params) -> Outcome {
    let id = params.text("file_id");
    let file = state.files.get(&id).ok_or_else(|| bad_request("invalid file_id"))?;
    if file.size > DOWNLOAD_BYTES_MAX {
        return Err(bad_request("file is too big"));
    }
    let unique = format!("u{id}");
    Ok(json!({ "file_id": id, "file_unique_id": unique, "file_size": file.size, "file_path": file.path }))
}

/// `/file/bot<token>/<path>`. Faults of the method `file` are those of downloads.
pub async fn download(Extract(shared): Extract<Shared>, Path((bot, path)): Path<(String, String)>) -> Response {
    let looked = shared.change(|state| {
        let is_own = bot.strip_prefix("bot") == Some(state.token.as_str());
        is_own.then(|| state.take_fault("file"))
    });
    let Some(fault) = looked else { return not_found().await };
    if let Some(fault) = fault {
        return fault.answer().await;
    }
    let found = shared.lock().files.values().find(|file| file.path == path).map(StoredFile::bytes);
    match found {
        Some(bytes) => (StatusCode::OK, bytes).into_response(),
        None => not_found().await,
    }
}

/// `sendPhoto`, `sendDocument`: `kind` is also the name of the parameter with the file.
pub(super) fn send_file(state: &mut State, params: &Params, kind: &str) -> Outcome {
    let chat = reachable(state, params)?;
    let thread = open_thread(state, chat, params)?;
    let reply_to = reply_to(state, chat, params)?;
    let keyboard = keyboard(params)?;
    let (text, entities) = entities::formatted(params, "caption", "caption_entities")?;
    entities::fits(&text, entities::CAPTION_UNITS_MAX).map_err(|_| bad_request("message caption is too long"))?;
    let given = params.text(kind);
    let upload = match given.strip_prefix("attach://") {
        Some(name) => params.files.get(name),
        None => params.files.get(kind),
    };
    let file_id = match upload {
        Some(upload) if upload.bytes.is_empty() => return Err(bad_request("file must be non-empty")),
        Some(upload) => state.store_file(StoredFile {
            path: format!("{kind}s/file_#"),
            name: Some(upload.name.clone()),
            size: u64::try_from(upload.bytes.len()).expect("bounded"),
            uploaded: Some(upload.bytes.clone()),
        }),
        None if state.files.contains_key(&given) => given,
        None if given.is_empty() => return Err(bad_request(&format!("there is no {kind} in the request"))),
        None => return Err(bad_request("wrong remote file identifier specified")),
    };
    let message = Message {
        chat,
        thread,
        message_id: state.new_message_id(chat),
        versions: vec![Version { at_ms: now_ms(), text, entities }],
        deleted: false,
        reply_to,
        keyboard,
        attached: Some(Attached { kind: kind.to_owned(), file_id }),
    };
    push(state, message.clone());
    Ok(as_message(state, &message))
}

fn encode<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
}
