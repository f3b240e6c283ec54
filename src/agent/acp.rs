//! The Agent Client Protocol's messages (version 1, <https://agentclientprotocol.com/protocol/v1/overview>), as far as
//! the gateway speaks them.
//!
//! **Invariants**
//! - What is sent is built from the schema's own types, so it is always valid.
//! - What is received is read field by field: agents send kinds and fields outside of the schema, and one of them must
//!   not cost the message it came in.

use std::path::Path;

use agent_client_protocol_schema::ProtocolVersion;
use agent_client_protocol_schema::v1::{
    AudioContent, CancelNotification, ContentBlock, ImageContent, Implementation, InitializeRequest,
    InitializeResponse, LoadSessionRequest, NewSessionRequest, PromptRequest, RequestPermissionOutcome,
    RequestPermissionResponse, ResourceLink, SelectedPermissionOutcome, TextContent,
};
use serde::Serialize;
use serde_json::Value;

use super::PermissionOption;
use super::files::Offer;
use super::given::{Given, Link, Takes};
use super::magic::Medium;
use crate::id::SessionId;
use crate::jsonrpc::ErrorObject;

pub(super) const INITIALIZE: &str = "initialize";
pub(super) const SESSION_NEW: &str = "session/new";
pub(super) const SESSION_LOAD: &str = "session/load";
pub(super) const SESSION_PROMPT: &str = "session/prompt";
pub(super) const SESSION_CANCEL: &str = "session/cancel";
pub(super) const SESSION_UPDATE: &str = "session/update";
pub(super) const REQUEST_PERMISSION: &str = "session/request_permission";
pub(super) const CANCEL_REQUEST: &str = "$/cancel_request";

/// ACP's "authentication required".
pub(super) const AUTH_REQUIRED: i64 = -32000;
/// ACP's "resource not found".
pub(super) const NOT_FOUND: i64 = -32002;

/// The most of an agent's own words that goes into a reason, in characters.
const REASON_CHARS_MAX: usize = 500;
/// The most of a title that is shown, in characters.
const TITLE_CHARS_MAX: usize = 500;

pub(super) fn initialize_params() -> Value {
    let client = Implementation::new("hermes", env!("CARGO_PKG_VERSION"));
    value(InitializeRequest::new(ProtocolVersion::V1).client_info(client))
}

pub(super) fn new_session_params(cwd: &Path) -> Value {
    value(NewSessionRequest::new(cwd))
}

pub(super) fn load_session_params(session: &SessionId, cwd: &Path) -> Value {
    value(LoadSessionRequest::new(session.as_str().to_owned(), cwd))
}

/// The files come first: the end of a prompt is what it is known by in a history, and models see what a question is about
/// before they read it.
pub(super) fn prompt_params(session: &SessionId, mut text: String, files: Vec<Given>) -> Value {
    let mut blocks = Vec::with_capacity(files.len() + 1);
    for file in files {
        match file {
            Given::Inline { medium, data, link } => blocks.push(inline(medium, data, link)),
            Given::Link(link) => blocks.push(resource_link(link)),
            Given::Unread(line) if text.is_empty() => text = line,
            Given::Unread(line) => text = format!("{text}\n{line}"),
        }
    }
    blocks.push(ContentBlock::Text(TextContent::new(text)));
    value(PromptRequest::new(session.as_str().to_owned(), blocks))
}

/// The text of a prompt, which its last block is.
pub(super) fn last_text(prompt_params: &Value) -> &str {
    let last = prompt_params.get("prompt").and_then(Value::as_array).and_then(|blocks| blocks.last());
    last.and_then(|block| text_of(block, "text")).unwrap_or_default()
}

fn inline(medium: Medium, data: String, link: Link) -> ContentBlock {
    let mime = link.mime.unwrap_or_default();
    match medium {
        Medium::Image => ContentBlock::Image(ImageContent::new(data, mime)),
        Medium::Audio => ContentBlock::Audio(AudioContent::new(data, mime)),
    }
}

fn resource_link(link: Link) -> ContentBlock {
    let Link { name, uri, mime, size_bytes } = link;
    let size = i64::try_from(size_bytes).ok();
    ContentBlock::ResourceLink(ResourceLink::new(name, uri).mime_type(mime).size(size))
}

pub(super) fn cancel_params(session: &SessionId) -> Value {
    value(CancelNotification::new(session.as_str().to_owned()))
}

/// The answer to a permission request; `None` means cancelled.
pub(super) fn permission_result(option: Option<String>) -> Value {
    let outcome = option.map_or(RequestPermissionOutcome::Cancelled, |id| {
        RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(id))
    });
    value(RequestPermissionResponse::new(outcome))
}

fn value(params: impl Serialize) -> Value {
    serde_json::to_value(params).expect("the schema's types are plain data with UTF-8 paths")
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) can_load: bool,
    pub(super) takes: Takes,
    pub(super) title: Option<String>,
    pub(super) auth_methods: Vec<String>,
}

/// Reads the result of `initialize`.
///
/// # Errors
/// What is wrong with the agent, for people.
pub(super) fn read_initialize(result: Value) -> Result<Introduction, String> {
    let response: InitializeResponse = serde_json::from_value(result).map_err(|e| {
        format!("its answer to initialize is not one of ACP: {}", clip(&e.to_string(), REASON_CHARS_MAX))
    })?;
    if response.protocol_version != ProtocolVersion::V1 {
        return Err(format!("it speaks version {} of ACP, the gateway version 1", response.protocol_version));
    }
    Ok(Introduction {
        can_load: response.agent_capabilities.load_session,
        takes: Takes {
            image: response.agent_capabilities.prompt_capabilities.image,
            audio: response.agent_capabilities.prompt_capabilities.audio,
        },
        title: response.agent_info.map(|info| info.title.unwrap_or(info.name)),
        auth_methods: response.auth_methods.iter().map(|method| method.name().to_owned()).collect(),
    })
}

/// The parts of a `session/update` that concern a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionEvent {
    /// What the user said, in a history that is replayed.
    User(String),
    Text(String),
    Thought(String),
    /// A file that the agent gives.
    File(Offer),
    /// A tool call began or changed; what is `None` stayed as it was.
    Tool {
        id: String,
        title: Option<String>,
        status: Option<String>,
    },
    /// A kind that the gateway does not show.
    Other,
}

/// Reads a `session/update`; `None` if it names no session.
pub(super) fn read_update(params: &Value) -> Option<(SessionId, SessionEvent)> {
    let session = SessionId::from(params.get("sessionId")?.as_str()?);
    let update = params.get("update").unwrap_or(&Value::Null);
    let event = match text_of(update, "sessionUpdate") {
        Some("user_message_chunk") => content(update).map(SessionEvent::User),
        Some("agent_message_chunk") => said(update),
        Some("agent_thought_chunk") => content(update).map(SessionEvent::Thought),
        Some("tool_call" | "tool_call_update") => tool(update),
        _ => None,
    };
    Some((session, event.unwrap_or(SessionEvent::Other)))
}

fn text_of<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn content(update: &Value) -> Option<String> {
    let block = update.get("content")?;
    match text_of(block, "type")? {
        "text" => text_of(block, "text").map(str::to_owned),
        "resource_link" => {
            let uri = text_of(block, "uri")?;
            let name = text_of(block, "title").or_else(|| text_of(block, "name")).unwrap_or(uri);
            Some(format!("[{name}]({uri})"))
        }
        _ => None,
    }
}

/// What the agent says: text, or a file.
fn said(update: &Value) -> Option<SessionEvent> {
    let offer = update.get("content").and_then(Offer::read).map(SessionEvent::File);
    offer.or_else(|| content(update).map(SessionEvent::Text))
}

fn tool(update: &Value) -> Option<SessionEvent> {
    Some(SessionEvent::Tool {
        id: text_of(update, "toolCallId")?.to_owned(),
        title: text_of(update, "title").map(|title| clip(title, TITLE_CHARS_MAX)),
        status: text_of(update, "status").map(|status| clip(status, 40)),
    })
}

/// A `session/request_permission`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PermissionAsk {
    pub(super) session: SessionId,
    pub(super) tool: Option<String>,
    pub(super) title: Option<String>,
    pub(super) options: Vec<PermissionOption>,
}

/// Reads a `session/request_permission`. Options without an id are left out: they could not be chosen.
pub(super) fn read_permission(params: &Value) -> Option<PermissionAsk> {
    let call = params.get("toolCall").unwrap_or(&Value::Null);
    let options = params.get("options")?.as_array()?;
    Some(PermissionAsk {
        session: SessionId::from(text_of(params, "sessionId")?),
        tool: text_of(call, "toolCallId").map(str::to_owned),
        title: text_of(call, "title").map(|title| clip(title, TITLE_CHARS_MAX)),
        options: options.iter().filter_map(permission_option).collect(),
    })
}

fn permission_option(option: &Value) -> Option<PermissionOption> {
    let id = text_of(option, "optionId")?.to_owned();
    let name = clip(text_of(option, "name").unwrap_or(&id), TITLE_CHARS_MAX);
    // Of an unknown kind the safe reading is the one that allows nothing.
    let kind = text_of(option, "kind").unwrap_or("reject_once").to_owned();
    Some(PermissionOption { id, name, kind })
}

/// The stop reason in the result of `session/prompt`.
pub(super) fn read_stop_reason(result: &Value) -> Option<&str> {
    text_of(result, "stopReason")
}

/// The session in the result of `session/new`.
pub(super) fn read_session_id(result: &Value) -> Option<SessionId> {
    text_of(result, "sessionId").map(SessionId::from)
}

/// Whether the result of `session/load` says nothing: some agents answer so for a session that they do not know.
pub(super) fn is_empty_result(result: &Value) -> bool {
    match result {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// An agent's error in the words of its agent, for people.
pub(super) fn error_text(error: &ErrorObject, auth_methods: &[String]) -> String {
    if error.code == AUTH_REQUIRED {
        let methods = if auth_methods.is_empty() { "none named".to_owned() } else { auth_methods.join(", ") };
        return format!(
            "the agent wants a login first (its methods: {}); log in with the agent's own program as the gateway's user",
            clip(&methods, REASON_CHARS_MAX)
        );
    }
    let detail = match &error.data {
        Some(Value::String(detail)) => Some(detail.as_str()),
        Some(data) => text_of(data, "details").or_else(|| text_of(data, "message")),
        None => None,
    };
    let message = clip(&error.message, REASON_CHARS_MAX);
    match detail.filter(|detail| *detail != error.message) {
        Some(detail) => {
            format!("the agent answered with an error: {message}: {} ({})", clip(detail, REASON_CHARS_MAX), error.code)
        }
        None => format!("the agent answered with an error: {message} ({})", error.code),
    }
}

fn clip(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_sent_is_what_the_protocol_asks_for() {
        assert_eq!(
            prompt_params(&"s".into(), "hi".into(), Vec::new()),
            json!({"sessionId": "s", "prompt": [{"type": "text", "text": "hi"}]})
        );
        assert_eq!(new_session_params(Path::new("/w")), json!({"cwd": "/w", "mcpServers": []}));
        assert_eq!(
            load_session_params(&"s".into(), Path::new("/w")),
            json!({"sessionId": "s", "cwd": "/w", "mcpServers": []})
        );
        assert_eq!(
            permission_result(Some("yes".into())),
            json!({"outcome": {"outcome": "selected", "optionId": "yes"}})
        );
        assert_eq!(permission_result(None), json!({"outcome": {"outcome": "cancelled"}}));
        let initialize = initialize_params();
        assert_eq!(initialize["protocolVersion"], 1);
        assert_eq!(initialize["clientInfo"]["name"], "hermes");
        assert_ne!(initialize["clientCapabilities"]["terminal"], true);
    }

    #[test]
    fn files_are_blocks_before_the_text() {
        let link = |mime: Option<&str>| Link {
            name: "a.pdf".into(),
            uri: "file:///h/a.pdf".into(),
            mime: mime.map(str::to_owned),
            size_bytes: 7,
        };
        let inline = |medium, mime: &str| Given::Inline { medium, data: "QUI=".into(), link: link(Some(mime)) };
        let files = vec![
            inline(Medium::Image, "image/png"),
            inline(Medium::Audio, "audio/ogg"),
            Given::Link(link(Some("application/pdf"))),
            Given::Unread("[file: b (could not be read: x)]".into()),
            Given::Link(link(None)),
        ];
        let prompt = json!([
            {"type": "image", "data": "QUI=", "mimeType": "image/png"},
            {"type": "audio", "data": "QUI=", "mimeType": "audio/ogg"},
            {"type": "resource_link", "name": "a.pdf", "uri": "file:///h/a.pdf", "mimeType": "application/pdf", "size": 7},
            {"type": "resource_link", "name": "a.pdf", "uri": "file:///h/a.pdf", "size": 7},
            {"type": "text", "text": "see\n[file: b (could not be read: x)]"},
        ]);
        assert_eq!(prompt_params(&"s".into(), "see".into(), files), json!({"sessionId": "s", "prompt": prompt}));
    }

    #[test]
    fn another_protocol_version_is_refused_in_words() {
        let error = read_initialize(json!({"protocolVersion": 2})).expect_err("not version 1");
        assert_eq!(error, "it speaks version 2 of ACP, the gateway version 1");
        assert!(read_initialize(json!({})).is_err());
    }

    #[test]
    fn fields_of_a_wrong_type_in_initialize_cost_only_themselves() {
        let read = read_initialize(json!({
            "protocolVersion": 1, "agentCapabilities": {"loadSession": true, "promptCapabilities": 7},
            "authMethods": [5, {"id": "a", "name": "Key"}], "agentInfo": {"name": "n", "version": "1"}, "new": {}
        }));
        let expected = Introduction {
            can_load: true,
            takes: Takes::default(),
            title: Some("n".into()),
            auth_methods: vec!["Key".into()],
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn content_is_text_or_a_link_or_nothing() {
        let update = |content: Value| {
            let params =
                json!({"sessionId": "s", "update": {"sessionUpdate": "agent_message_chunk", "content": content}});
            read_update(&params).expect("it names a session").1
        };
        assert_eq!(update(json!({"type": "text", "text": "a", "x": 1})), SessionEvent::Text("a".into()));
        assert_eq!(
            update(json!({"type": "resource_link", "name": "f", "uri": "https://example.org/f"})),
            SessionEvent::Text("[f](https://example.org/f)".into())
        );
        let files = [
            json!({"type": "resource_link", "name": "f", "uri": "file:///f"}),
            json!({"type": "image", "data": "", "mimeType": "image/png"}),
            json!({"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}),
            json!({"type": "resource", "resource": {"uri": "x:/f", "blob": "AAAA"}}),
            json!({"type": "resource", "resource": {"uri": "x:/f", "text": "AAAA"}}),
        ];
        for file in files {
            assert!(matches!(update(file), SessionEvent::File(_)));
        }
        assert_eq!(update(json!({"type": "resource", "resource": {"uri": "x:/f"}})), SessionEvent::Other);
        assert_eq!(update(json!("bare")), SessionEvent::Other);
    }

    #[test]
    fn a_missing_login_names_the_methods() {
        let text = error_text(&ErrorObject::new(AUTH_REQUIRED, "auth"), &["API key".into(), "OAuth".into()]);
        assert!(text.contains("API key, OAuth"), "{text}");
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let key = prop_oneof![
                Just("sessionId"),
                Just("update"),
                Just("sessionUpdate"),
                Just("content"),
                Just("type"),
                Just("text"),
                Just("toolCall"),
                Just("toolCallId"),
                Just("options"),
                Just("optionId"),
                Just("title"),
                Just("data"),
                Just("resource"),
                Just("blob"),
                Just("uri"),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_value_panics(value in json_value()) {
            let _ = read_update(&value);
            let _ = read_permission(&value);
            let _ = read_initialize(value.clone());
            let _ = read_stop_reason(&value);
            let _ = error_text(&ErrorObject { code: 1, message: String::new(), data: Some(value) }, &[]);
        }

        #[test]
        fn clipping_keeps_characters_whole(text in ".{0,40}", chars_max in 0usize..40) {
            let clipped = clip(&text, chars_max);
            prop_assert!(clipped.chars().count() <= chars_max + 1);
            prop_assert!(text.starts_with(clipped.trim_end_matches('…')) || text.contains('…'));
        }
    }
}
