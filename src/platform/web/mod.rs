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
//! [`Viewer::csrf`]). Bodies are JSON, or forms (`application/x-www-form-urlencoded`), which are answered by a `303` to a page.
//! Errors of `/api/…` are `{"error": "<one sentence>"}`. `503` and `429` have `Retry-After`; a connection that breaks before
//! the answer, as well as `503`, means: send it again under the same id.
//!
//! | route | what |
//! |---|---|
//! | `GET /` | status page |
//! | `GET /chat?chat=main` | chat page |
//! | `GET /login`, `POST /login` (`token`, `next`), `POST /logout` (`csrf`) | |
//! | `GET /events?chat=main&status=1&after=<id>` | event stream of a chat, of the status, or of both |
//! | `GET /api/status` | `control::proto::Status` |
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
//! | `typing` | `{"activity": "…"}` or `{}` | the agent works, for the next 6 s; over with the next message |
//! | `status` | what [`pages::live`] makes of the status | takes the place of what was before |
//! | `progress` | `{"seq", "at", "phase", "message", "done_bytes", "total_bytes"}` | a step of a handoff |
//!
//! Every event has an id. A stream begins behind the event that `Last-Event-ID` names, else behind `after` (the page has
//! the one that it was rendered for), else with the last 50 messages. The status is always told at once. `progress` is told
//! from the last 64 steps; `phase` is one of the handoff's, and at its end `done` or `failed`. A reader that does not keep up
//! is cut off, and comes again. `retry` is 100 ms.

pub mod pages;
