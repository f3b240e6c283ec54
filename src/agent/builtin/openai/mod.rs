//! `hermes agent openai`: an agent on any server of the chat completions API
//! (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! **Invariants**
//! - What the user said is on disk before the model hears it, and what was answered, be it in part, before the turn
//!   ends: `session/load` in another process goes on from there.
//! - The key comes from the environment or a file, never from the command line, and is in no message.
//!
//! Deliberately absent: tools. It talks.

mod history;
mod model;
mod sse;

use std::path::PathBuf;
use std::process::ExitCode;

use super::prompt::{Block, Prompt};
use super::server::{Brain, NOT_FOUND, Past, StopReason, Turn, serve};
use super::{block_on, fail};
use crate::config::Secret;
use crate::jsonrpc::ErrorObject;
use crate::report::Chain;
use history::{Entry, History, HistoryError, Role};
use model::{Model, ModelError, Piece, Reply};

/// The most of a history that is sent along, in bytes; the newest part of it.
const CONTEXT_BYTES_MAX: usize = 256 << 10;

/// Answers through any server of the chat completions API.
#[derive(Clone, Debug, clap::Args)]
pub struct OpenaiArgs {
    /// Address of the API, up to and with its version
    #[arg(
        long,
        value_name = "URL",
        env = "OPENAI_BASE_URL",
        hide_env_values = true,
        default_value = "https://api.openai.com/v1"
    )]
    pub base_url: String,
    /// Name of the model
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// File with the API key; without it OPENAI_API_KEY is used, if set
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// What the model is told before every conversation
    #[arg(long, value_name = "PROMPT")]
    pub system: Option<String>,
    /// Where the conversations are kept [default: $HERMES_HOME/agents/openai]
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
}

/// Runs the agent on stdin and stdout until stdin ends.
pub fn run(args: OpenaiArgs) -> ExitCode {
    match Openai::new(args) {
        Ok(agent) => block_on(serve(agent)),
        Err(error) => fail(&error),
    }
}

struct Openai {
    model: Model,
    history: History,
    system: Option<String>,
}

impl Openai {
    fn new(args: OpenaiArgs) -> Result<Self, String> {
        let key = api_key(args.api_key_file)?;
        let model = Model::new(&args.base_url, args.model, key).map_err(|e| Chain(&e).to_string())?;
        let folder =
            args.history.or_else(default_history).ok_or("neither HERMES_HOME nor HOME is set; give --history")?;
        let history = History::open(folder).map_err(|e| Chain(&e).to_string())?;
        Ok(Self { model, history, system: args.system })
    }

    /// The model's answer, said as it comes. What was said of it is in `answer`, whatever becomes of the rest.
    async fn answer(&self, turn: &mut Turn, past: &[Entry], answer: &mut String) -> Result<StopReason, ModelError> {
        let messages = model::messages(self.system.as_deref(), past, CONTEXT_BYTES_MAX);
        let mut reply: Reply = tokio::select! {
            reply = self.model.ask(&messages) => reply?,
            () = turn.cancelled() => return Ok(StopReason::Cancelled),
        };
        loop {
            let piece = tokio::select! {
                piece = reply.next() => piece?,
                () = turn.cancelled() => return Ok(StopReason::Cancelled),
            };
            let heard = match piece {
                Piece::Text(text) => {
                    answer.push_str(&text);
                    turn.say(text).await
                }
                Piece::Thought(text) => turn.think(text).await,
                Piece::End(reason) => return Ok(reason),
            };
            if heard.is_err() {
                return Ok(StopReason::Cancelled);
            }
        }
    }
}

impl Brain for Openai {
    const NAME: &'static str = "hermes-openai";
    const TITLE: &'static str = "Chat completions";
    const IMAGES: bool = true;
    const AUDIO: bool = false;
    const CAN_LOAD: bool = true;

    fn create(&self) -> Result<String, ErrorObject> {
        self.history.create().map_err(|e| history_error(&e))
    }

    fn load(&self, session: &str) -> Result<Vec<Past>, ErrorObject> {
        let entries = self.history.load(session).map_err(|e| history_error(&e))?;
        let past = |entry: Entry| match entry.role {
            Role::User => Past::User(entry.content),
            Role::Assistant => Past::Agent(entry.content),
        };
        Ok(entries.into_iter().map(past).collect())
    }

    async fn prompt(&self, turn: &mut Turn, prompt: Prompt) -> Result<StopReason, ErrorObject> {
        let mut past = self.history.load(&turn.session).map_err(|e| history_error(&e))?;
        let said = Entry { images: images(&prompt), ..Entry::new(Role::User, prompt.text()) };
        self.history.append(&turn.session, &said).map_err(|e| history_error(&e))?;
        past.push(said);
        let mut answer = String::new();
        let outcome = self.answer(turn, &past, &mut answer).await;
        if !answer.is_empty() {
            let partial = !matches!(outcome, Ok(StopReason::EndTurn));
            let answered = Entry { partial, ..Entry::new(Role::Assistant, answer) };
            self.history.append(&turn.session, &answered).map_err(|e| history_error(&e))?;
        }
        outcome.map_err(|error| ErrorObject::new(ErrorObject::INTERNAL, Chain(&error).to_string()))
    }
}

/// The pictures of a prompt as the API takes them.
fn images(prompt: &Prompt) -> Vec<String> {
    let image = |block: &Block| match block {
        Block::Image { mime, data } => Some(format!("data:{mime};base64,{data}")),
        Block::Text(_) | Block::Audio { .. } | Block::Link { .. } => None,
    };
    prompt.blocks.iter().filter_map(image).collect()
}

fn history_error(error: &HistoryError) -> ErrorObject {
    let code = match error {
        HistoryError::Unknown { .. } => NOT_FOUND,
        _ => ErrorObject::INTERNAL,
    };
    ErrorObject::new(code, Chain(error).to_string())
}

fn api_key(file: Option<PathBuf>) -> Result<Option<Secret>, String> {
    let key = match file {
        Some(file) => {
            std::fs::read_to_string(&file).map_err(|e| format!("cannot read the key in {}: {e}", file.display()))?
        }
        None => std::env::var("OPENAI_API_KEY").unwrap_or_default(),
    };
    let key = key.trim();
    Ok((!key.is_empty()).then(|| Secret::new(key)))
}

fn default_history() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HERMES_HOME").or_else(|| set("HOME").map(|home| home.join(".hermes")))?;
    Some(home.join("agents").join("openai"))
}
