//! The platform `web`: a status page, a chat page, health and metrics, for browsers and scripts.
//!
//! ```text
//!  browser ─► listener ─► hyper, axum (`server`, `routes`) ─► `link`: a message is stored, then confirmed
//!                              ▲                                 │ Inbound ─► gateway ─► delivery ─► `sender`
//!                              └── `events` ◄── `board`: what every chat says now ◄──────────────────┘
//! ```
//!
//! A chat is a row of numbered *messages*, which the store keeps (`store::transcript`): what people said, and what they
//! were answered. The `board` has them in memory, with the text of those that still grow; a `sender` puts there what
//! the delivery wants shown, and an event stream tells a browser what it does not have yet.
//!
//! **Invariants**
//! - The listener outlives the image and the process, so nobody who connects is refused.
//! - Nothing waits for a browser: not the chat, not a handoff.
//! - A message is confirmed (2xx) after the store has it; sent again under the same id it is the same message.
//! - An event's id is all that a reader has. Whoever comes with it, at whatever image or process, gets the rest.
//! - No token, session or CSRF token is logged.
//!
//! # Protocol
//!
//! Who asks is known by the session cookie of a login, or by `Authorization: Bearer <token>`. Without either: `401` for
//! `/api/…`, `/events`, `/files/…`, `/metrics` and `/health/detailed`, and for pages `303` to `/login?next=…`.
//! A `POST` by cookie has the CSRF token of the session: a form's field `csrf`, or the header `X-CSRF-Token` (pages have it as
//! [`pages::Viewer::csrf`]). Bodies are JSON, or forms (`application/x-www-form-urlencoded`), which are answered by a `303` to a page.
//! Errors of what is not for people (the paths above) are `{"error": "<one sentence>"}`, and pages to whoever posts a form. `503` and `429` have `Retry-After`; a connection that breaks before
//! the answer, as well as `503`, means: send it again under the same id.
//!
//! | route | what |
//! |---|---|
//! | `GET /` | status page |
//! | `GET /chat?chat=main` | chat page |
//! | `GET /login`, `POST /login` (`token`, `next`), `POST /logout` (`csrf`) | |
//! | `GET /events?chat=main&status=1&after=<id>` | event stream of a chat, of the status, or of both |
//! | `GET /api/status` | `control::proto::Status`; for guests without what [`pages::for_guests`] leaves out |
//! | `GET /api/messages?chat=main&before=<number>` | `{"messages": […], "more": bool}`, oldest first, 50 at the most |
//! | `POST /api/messages` | `{"id": "<uuid>", "chat": "main", "text": "…"}` → `{"number": 17}` |
//! | `POST /api/update` | admins: `{"id": "<uuid>", "version": "1.5.0"}`, without `version` the newest; answered as a message |
//! | `POST /api/restart` | admins: `{"id": "<uuid>", "force": false}`; answered as a message |
//! | `GET /files/<number>` | the file of a message |
//! | `GET /assets/…` | styles and scripts |
//! | `GET /healthz`, `GET /readyz` | whether the process answers, and whether it serves; without a token |
//! | `GET /health/detailed`, `GET /metrics` | |
//!
//! `id` is made by the client, a UUID for each message, and is the message's for good. `POST /api/update` and
//! `/api/restart` are the chat commands `/update` and `/restart`, said in the chat `main`: they pass the same gate, and their
//! answers stand there. `chat` has 1 to 64 of `A-Z a-z 0-9 . _ -`, `main` by default; everybody has chats of their own. The
//! conversation is `web:owner`, and of other chats than `main` `web:owner.<chat>`.
//!
//! ## Messages
//!
//! ```json
//! {"number": 17, "from": "user", "name": "owner", "at": 1790000000000, "text": "hello", "format": "plain",
//!  "final": true, "id": "<uuid>", "choices": [], "file": null}
//! ```
//!
//! `from` is `user`, `agent` or `gateway`; `format` is `plain` or `markdown`. `final` is false while the text may change. `id`
//! is the client's, of its own messages alone. `choices` are buttons, `{"label", "command"}`: pressing one sends its command as
//! a message. `file` is `{"name", "mime", "bytes", "url"}`. Numbers grow, and not by one. Numbers are those of all chats.
//!
//! ## Events
//!
//! | event | data | |
//! |---|---|---|
//! | `message` | a message as above | it is new, or takes the place of the one with its number |
//! | `text` | `{"number", "at", "text", "final"}` | cut the text of the message to its first `at` UTF-16 units, then append |
//! | `typing` | `{}` | the agent works, for the next 6 s; over with the next message |
//! | `status` | what [`pages::live`] makes of the status | takes the place of what was before |
//! | `progress` | `{"seq", "at", "phase", "message", "done_bytes", "total_bytes"}` | a step of a handoff |
//!
//! Every event has an id. A stream begins behind the event that `Last-Event-ID` names, else behind `after` (the page has
//! the one that it was rendered for), else with the last 50 messages. The status is always told at once. `progress` is told
//! from the last 64 steps; `phase` is one of the handoff's, and at its end `done` or `failed`; `refused` if a page asked while
//! another was under way, for admins alone. A reader that does not keep up
//! is cut off, and comes again. `retry` is 100 ms.

mod auth;
mod board;
mod download;
mod events;
mod form;
mod link;
mod message;
pub mod pages;
mod patient;
mod reader;
mod routes;
mod sender;
mod server;
mod shown;
mod site;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::delivery::limiter::Rate;
use super::delivery::medium::{Growth, Measure, Medium};
use super::{Left, PlatformEvent, PlatformHandle, saved, task};
use crate::config::WebConfig;
use crate::store::Store;
pub use link::LISTENER;
use link::WebLink;
pub use shown::{ProgressStep, REFUSED, Shown};

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "web";

/// The chat whose conversation has the name of its user.
const MAIN: &str = "main";
/// The longest name of a chat, in bytes.
const CHAT_BYTES_MAX: usize = 64;
/// No reply is as long, so each is one message.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How often typing is shown again; a page shows it for 6 s.
const TYPING: Duration = Duration::from_secs(4);
/// A text that grows is shown this often: more than eyes tell apart, and little for a database.
const CHAT_RATE: Rate = Rate { period: Duration::from_millis(100), burst: 20 };
const OVERALL_RATE: Rate = Rate { period: Duration::from_millis(2), burst: 100 };

/// Starts the task of the platform, see [`super`]. `token_file` is where the token is that the gateway makes, `shown` what
/// the pages tell of the gateway.
pub fn spawn(
    config: &WebConfig,
    token_file: PathBuf,
    shown: watch::Receiver<Arc<Shown>>,
    left: Left,
    store: Store,
    events: mpsc::Sender<PlatformEvent>,
) -> PlatformHandle {
    let link = WebLink::new(config.clone(), token_file, store.clone(), shown);
    task::spawn(link, medium(config), left, store, events)
}

fn medium(config: &WebConfig) -> Medium {
    Medium {
        platform: PLATFORM,
        message_max: Measure::Bytes(MESSAGE_BYTES_MAX),
        // That a text is whole has to be told, too: then it goes into the store.
        growth: |_| Growth::Card,
        typing: Some(TYPING),
        language: config.access.language,
        chat_rate: |_| CHAT_RATE,
        overall: OVERALL_RATE,
        replaces: true,
    }
}

/// Whether this image understands the platform's state, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &Value) -> Result<(), serde_json::Error> {
    saved::check::<WebLink>(state)
}

/// What the chat that `user` calls `name` is called in its conversation; nothing if it is no name.
fn conversation_chat(user: &str, name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let is_name = (1..=CHAT_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain);
    is_name.then(|| if name == MAIN { user.to_owned() } else { format!("{user}.{name}") })
}

/// Whether a conversation's chat is one of `user`.
fn is_chat_of(user: &str, chat: &str) -> bool {
    chat.strip_prefix(user).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_chats_of_their_own() {
        assert_eq!(conversation_chat("owner", "main").as_deref(), Some("owner"));
        assert_eq!(conversation_chat("guest", "plans").as_deref(), Some("guest.plans"));
        for no in ["", "a b", "a:b", "a/b", &"x".repeat(65)] {
            assert_eq!(conversation_chat("owner", no), None, "{no}");
        }
        assert!(is_chat_of("owner", "owner") && is_chat_of("owner", "owner.guest"));
        assert!(!is_chat_of("owner", "guest") && !is_chat_of("owner", "owners"));
    }
}
