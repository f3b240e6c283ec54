//! The agent's side of an ACP connection over stdio, shared by the built-in agents.
//!
//! **Invariants**
//! - Prompts of different sessions run side by side; a session runs one at a time and refuses a second.
//! - What is said goes through one bounded queue to one writer, so that a client that reads slowly slows the agent down
//!   and lines are never mixed.
//! - When stdin ends, running turns are cancelled, given [`LAST_WORDS`] to put their affairs in order, and the agent ends.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::prompt::Prompt;
use crate::jsonrpc::{ErrorObject, LineBuffer, Message, RequestId};

/// The longest line taken from the client, in bytes.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Lines that may wait for the client.
const LINES_MAX: usize = 64;
/// How long turns may take to end after stdin has.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// ACP's "resource not found".
pub(super) const NOT_FOUND: i64 = -32002;

/// A piece of a session's history, as it is replayed.
pub(super) enum Past {
    User(String),
    Agent(String),
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    EndTurn,
    MaxTokens,
    Refusal,
    Cancelled,
}

impl StopReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::Refusal => "refusal",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What makes an agent that agent.
pub(super) trait Brain: Send + Sync + 'static {
    /// Its name and title.
    const NAME: &'static str;
    const TITLE: &'static str;
    /// Whether it takes pictures, and sound.
    const IMAGES: bool;
    const AUDIO: bool;
    /// Whether [`Brain::load`] works.
    const CAN_LOAD: bool;

    /// Makes a session and names it.
    fn create(&self) -> Result<String, ErrorObject>;

    /// The history of a session made earlier.
    fn load(&self, session: &str) -> Result<Vec<Past>, ErrorObject>;

    /// Answers a prompt.
    fn prompt(&self, turn: &mut Turn, prompt: Prompt) -> impl Future<Output = Result<StopReason, ErrorObject>> + Send;
}

/// The client has gone: nothing can be said any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// What the writer is to do.
enum Out {
    Line(Vec<u8>),
    /// Say when all lines before are out.
    Flush(oneshot::Sender<()>),
}

/// Ways to the client, shared by all turns.
struct Wire {
    lines: mpsc::Sender<Out>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last: i64,
    pending: HashMap<i64, oneshot::Sender<Value>>,
}

impl Wire {
    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.lines.send(Out::Line(message.to_line())).await.map_err(|_| Gone)
    }

    async fn update(&self, session: &str, update: Value) -> Result<(), Gone> {
        let params = json!({"sessionId": session, "update": update});
        self.send(Message::Notification { method: "session/update".to_owned(), params }).await
    }

    async fn call(&self, method: &str, params: Value) -> Result<oneshot::Receiver<Value>, Gone> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.last += 1;
            let id = calls.last;
            calls.pending.insert(id, answer);
            id
        };
        self.send(Message::Request { id: RequestId::Number(id), method: method.to_owned(), params }).await?;
        Ok(answered)
    }

    fn answered(&self, id: &RequestId, outcome: Result<Value, ErrorObject>) {
        let RequestId::Number(id) = id else { return };
        let pending = self.calls.lock().unwrap_or_else(PoisonError::into_inner).pending.remove(id);
        if let Some(answer) = pending {
            // The turn may have ended meanwhile.
            let _unheard = answer.send(outcome.unwrap_or(Value::Null));
        }
    }
}

/// A turn that runs: how it speaks to the client.
pub(super) struct Turn {
    pub(super) session: String,
    wire: Arc<Wire>,
    cancelled: watch::Receiver<bool>,
}

impl Turn {
    /// Says a piece of the answer.
    pub(super) async fn say(&self, text: impl Into<String>) -> Result<(), Gone> {
        self.chunk("agent_message_chunk", text.into()).await
    }

    /// Thinks aloud.
    pub(super) async fn think(&self, text: impl Into<String>) -> Result<(), Gone> {
        self.chunk("agent_thought_chunk", text.into()).await
    }

    /// Says something else than text: a content block.
    pub(super) async fn give(&self, content: Value) -> Result<(), Gone> {
        self.wire.update(&self.session, json!({"sessionUpdate": "agent_message_chunk", "content": content})).await
    }

    async fn chunk(&self, kind: &str, text: String) -> Result<(), Gone> {
        self.wire.update(&self.session, chunk(kind, text)).await
    }

    /// Tells of a tool call.
    pub(super) async fn tool(&self, id: &str, title: &str, status: &str, new: bool) -> Result<(), Gone> {
        let kind = if new { "tool_call" } else { "tool_call_update" };
        let mut update = json!({"sessionUpdate": kind, "toolCallId": id, "status": status});
        if new {
            update["title"] = title.into();
        }
        self.wire.update(&self.session, update).await
    }

    /// Asks for permission; `None` means that the turn was cancelled.
    pub(super) async fn ask(&mut self, title: &str, options: Value) -> Result<Option<String>, Gone> {
        let params = json!({
            "sessionId": self.session, "toolCall": {"toolCallId": "ask", "title": title}, "options": options,
        });
        let answered = self.wire.call("session/request_permission", params).await?;
        tokio::select! {
            answer = answered => Ok(answer.ok().as_ref().and_then(chosen_option)),
            () = self.cancelled() => Ok(None),
        }
    }

    /// Waits until everything said has left the process.
    pub(super) async fn flush(&self) -> Result<(), Gone> {
        let (done, flushed) = oneshot::channel();
        self.wire.lines.send(Out::Flush(done)).await.map_err(|_| Gone)?;
        flushed.await.map_err(|_| Gone)
    }

    /// Waits until the client cancels the turn.
    pub(super) async fn cancelled(&mut self) {
        if self.cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn chosen_option(result: &Value) -> Option<String> {
    result.get("outcome")?.get("optionId")?.as_str().map(str::to_owned)
}

fn chunk(kind: &str, text: String) -> Value {
    json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}})
}

/// A session that the client opened in this process.
#[derive(Default)]
struct Session {
    /// The switch of its latest turn. The turn drops the other end before it answers, so that a client that hears the
    /// answer can prompt at once.
    turn: Option<watch::Sender<bool>>,
}

struct Server<B> {
    brain: Arc<B>,
    wire: Arc<Wire>,
    sessions: HashMap<String, Session>,
    turns: JoinSet<()>,
}

/// Serves one client on stdin and stdout until stdin ends.
///
/// # Errors
/// What is wrong with stdin or stdout, for people.
pub(super) async fn serve<B: Brain>(brain: B) -> Result<(), String> {
    let (lines, queue) = mpsc::channel(LINES_MAX);
    let mut writer = tokio::spawn(write(queue));
    let wire = Arc::new(Wire { lines, calls: Mutex::default() });
    let mut server = Server { brain: Arc::new(brain), wire, sessions: HashMap::new(), turns: JoinSet::new() };
    let outcome = tokio::select! {
        outcome = server.read() => outcome,
        // It ends by itself only when nobody reads any more.
        _ = &mut writer => return Ok(()),
    };
    server.wind_up().await;
    drop(server);
    let _slow_reader = tokio::time::timeout(LAST_WORDS, writer).await;
    outcome
}

async fn write(mut queue: mpsc::Receiver<Out>) {
    let mut stdout = tokio::io::stdout();
    while let Some(out) = queue.recv().await {
        match out {
            Out::Line(line) => {
                if stdout.write_all(&line).await.is_err() || stdout.flush().await.is_err() {
                    return;
                }
            }
            // Who asked may be gone.
            Out::Flush(done) => drop(done.send(())),
        }
    }
}

impl<B: Brain> Server<B> {
    async fn read(&mut self) -> Result<(), String> {
        let mut stdin = tokio::io::stdin();
        let mut lines = LineBuffer::new(LINE_BYTES_MAX);
        let mut bytes = vec![0; 64 << 10];
        loop {
            tokio::select! {
                _ = self.turns.join_next(), if !self.turns.is_empty() => {}
                read = stdin.read(&mut bytes) => {
                    match read.map_err(|e| format!("cannot read stdin: {e}"))? {
                        0 => return Ok(()),
                        count => lines.push(&bytes[..count]),
                    }
                    while let Some(line) = lines.next_line().map_err(|e| format!("the client sent {e}"))? {
                        if self.line(&line).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    async fn wind_up(&mut self) {
        for session in self.sessions.values() {
            session.cancel();
        }
        let ended = async { while self.turns.join_next().await.is_some() {} };
        let _too_late = tokio::time::timeout(LAST_WORDS, ended).await;
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Gone> {
        match Message::parse(line) {
            Ok(Message::Request { id, method, params }) => self.request(id, &method, &params).await,
            Ok(Message::Notification { method, params }) => {
                if method == "session/cancel"
                    && let Some(session) = params["sessionId"].as_str().and_then(|name| self.sessions.get(name))
                {
                    session.cancel();
                }
                Ok(())
            }
            Ok(Message::Response { id, outcome }) => {
                self.wire.answered(&id, outcome);
                Ok(())
            }
            Err(error) => {
                eprintln!("hermes agent: skipped a line: {error}");
                Ok(())
            }
        }
    }

    async fn request(&mut self, id: RequestId, method: &str, params: &Value) -> Result<(), Gone> {
        let outcome = match method {
            "initialize" => Ok(Self::introduction()),
            "authenticate" => Ok(json!({})),
            "session/new" => self.brain.create().map(|session| {
                self.sessions.insert(session.clone(), Session::default());
                json!({"sessionId": session})
            }),
            "session/load" => self.load(params).await?,
            "session/prompt" => match self.start_turn(&id, params) {
                // The turn answers when it is over.
                Ok(()) => return Ok(()),
                Err(error) => Err(error),
            },
            _ => Err(ErrorObject::new(ErrorObject::METHOD_NOT_FOUND, format!("there is no method {method}"))),
        };
        self.wire.send(Message::Response { id, outcome }).await
    }

    fn introduction() -> Value {
        json!({
            "protocolVersion": 1,
            "agentCapabilities": {
                "loadSession": B::CAN_LOAD,
                "promptCapabilities": {"embeddedContext": true, "image": B::IMAGES, "audio": B::AUDIO},
            },
            "authMethods": [],
            "agentInfo": {"name": B::NAME, "title": B::TITLE, "version": env!("CARGO_PKG_VERSION")},
        })
    }

    async fn load(&mut self, params: &Value) -> Result<Result<Value, ErrorObject>, Gone> {
        if !B::CAN_LOAD {
            return Ok(Err(ErrorObject::new(ErrorObject::METHOD_NOT_FOUND, "this agent keeps no sessions")));
        }
        let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
        let past = match self.brain.load(&session) {
            Ok(past) => past,
            Err(error) => return Ok(Err(error)),
        };
        for piece in past {
            let update = match piece {
                Past::User(text) => chunk("user_message_chunk", text),
                Past::Agent(text) => chunk("agent_message_chunk", text),
            };
            self.wire.update(&session, update).await?;
        }
        self.sessions.entry(session).or_default();
        Ok(Ok(json!({})))
    }

    fn start_turn(&mut self, id: &RequestId, params: &Value) -> Result<(), ErrorObject> {
        let name = params["sessionId"].as_str().unwrap_or_default();
        let Some(session) = self.sessions.get_mut(name) else {
            return Err(ErrorObject::new(NOT_FOUND, format!("there is no session {name:?}")));
        };
        if session.turn.as_ref().is_some_and(|switch| !switch.is_closed()) {
            return Err(ErrorObject::new(ErrorObject::INVALID_PARAMS, "the session is busy with a turn"));
        }
        let (switch, cancelled) = watch::channel(false);
        session.turn = Some(switch);
        let prompt = Prompt::read(&params["prompt"]);
        let mut turn = Turn { session: name.to_owned(), wire: Arc::clone(&self.wire), cancelled };
        let (brain, id) = (Arc::clone(&self.brain), id.clone());
        self.turns.spawn(async move {
            let outcome = brain.prompt(&mut turn, prompt).await;
            let outcome = outcome.map(|reason| json!({"stopReason": reason.as_str()}));
            let Turn { wire, cancelled, .. } = turn;
            drop(cancelled);
            // If the client has gone there is nobody to tell.
            let _gone = wire.send(Message::Response { id, outcome }).await;
        });
        Ok(())
    }
}

impl Session {
    fn cancel(&self) {
        if let Some(switch) = &self.turn {
            switch.send_replace(true);
        }
    }
}
