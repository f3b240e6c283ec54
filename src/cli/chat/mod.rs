//! `hermes chat`: a line-oriented chat, which a handoff or a restart of the gateway does not disturb.
//!
//! `talk` knows what is open, `view` how it looks; this file joins them to the gateway, the keyboard and Ctrl-C.

mod talk;
mod view;

use std::io::{self, BufRead};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use self::talk::{Audience, Outcome, Show, Talk};
use self::view::{Mode, View};
use super::args::ChatArgs;
use super::error::CliError;
use super::handoff::STATUS_TIMEOUT;
use super::home::Home;
use crate::chat::{OutboundContent, ReplyStep};
use crate::control::client::{Client, ClientError, decode};
use crate::control::proto::{self, ChatOpenParams, ChatOpened, ChatOutput, Status};
use crate::jsonrpc::{Message, RequestId};

/// Lines that may wait for an answer before more are read.
const OPEN_MAX: usize = 16;
/// The longest message, in bytes: as JSON it must fit the gateway's limit of a line.
const TEXT_BYTES_MAX: usize = 128 << 10;
/// How long a gateway that went away may take to come back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);
/// The first and the longest pause between two attempts to reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long nothing may come before the gateway is asked whether it still knows of what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// What comes up next.
#[derive(Debug)]
enum Event {
    Received(Result<Message, ClientError>),
    Line(Option<String>),
    Interrupt,
    Silence,
}

/// Where the next messages come from.
#[derive(Debug)]
enum Input {
    Lines(mpsc::Receiver<String>),
    Ended,
}

/// The question whether the gateway still knows of what is waited for.
#[derive(Debug, Default)]
struct Check {
    asked: Option<RequestId>,
    /// Answers in a row that knew of nothing. One is not enough: a turn is between two places for a moment.
    unknown: u32,
}

struct Chat<'a> {
    home: &'a Home,
    params: ChatOpenParams,
    client: Client,
    conversation: String,
    talk: Talk,
    view: View,
    input: Input,
    interrupt: Signal,
    check: Check,
    stopping: bool,
}

/// Runs the chat until standard input ends, or with `--once` until the answer is complete.
pub(super) async fn run(home: &Home, args: ChatArgs) -> Result<(), CliError> {
    let (audience, mode) = match &args.once {
        Some(text) => (Audience::Own, Mode::Answer { command: text.starts_with('/') }),
        None => (Audience::Everyone, Mode::Conversation),
    };
    if args.once.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(CliError::Usage(format!("a message has at most {TEXT_BYTES_MAX} bytes")));
    }
    let params = ChatOpenParams { chat: Some(args.chat) };
    let (client, opened) = open(home, &params).await.map_err(|error| CliError::client(error, &home.path))?;
    let interrupt =
        signal(SignalKind::interrupt()).map_err(|source| CliError::Io { what: "listen for Ctrl-C", source })?;
    let mut chat = Chat {
        home,
        params,
        client,
        conversation: opened.conversation,
        talk: Talk::new(audience),
        view: View::new(mode),
        input: Input::Ended,
        interrupt,
        check: Check::default(),
        stopping: false,
    };
    match args.once {
        Some(text) => {
            // What was said before is not the answer, and reading it has taken it out of the backlog.
            let said = plain_text(&opened.backlog);
            if !said.is_empty() {
                chat.view.aside(&said);
            }
            chat.talk.say(text);
            chat.run().await?;
            match chat.talk.outcome() {
                Outcome::Answered => Ok(()),
                Outcome::Unanswered(reason) => Err(CliError::NoAnswer(reason.clone())),
            }
        }
        None => {
            chat.show_backlog(opened.backlog)?;
            chat.input = read_lines()?;
            chat.run().await
        }
    }
}

impl Chat<'_> {
    async fn run(&mut self) -> Result<(), CliError> {
        self.view.prompt();
        loop {
            while let Some(params) = self.talk.unsent() {
                match self.client.send(proto::CHAT_SEND, &params).await {
                    Ok(request) => self.talk.sent(request),
                    Err(error) => self.recover(error).await?,
                }
            }
            if matches!(self.input, Input::Ended) && self.talk.open() == 0 {
                return self.view.finish();
            }
            match self.next_event().await {
                Event::Received(Ok(message)) => self.received(message)?,
                Event::Received(Err(error)) => self.recover(error).await?,
                Event::Line(Some(line)) => self.line(line),
                Event::Line(None) => self.input = Input::Ended,
                Event::Interrupt if self.stopping || !self.talk.is_turn_running() => return self.interrupted(),
                Event::Interrupt => {
                    self.stopping = true;
                    self.talk.say("/stop".to_owned());
                }
                Event::Silence => self.ask_whether_known().await?,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let silence = Instant::now() + SILENCE;
        let may_check = self.talk.open() > 0 && self.talk.is_all_accepted() && self.check.asked.is_none();
        let may_read = self.talk.open() < OPEN_MAX;
        tokio::select! {
            received = self.client.receive() => Event::Received(received),
            line = next_line(&mut self.input), if may_read => Event::Line(line),
            _ = self.interrupt.recv() => Event::Interrupt,
            () = sleep_until(silence), if may_check => Event::Silence,
        }
    }

    fn received(&mut self, message: Message) -> Result<(), CliError> {
        match message {
            Message::Notification { method, params } if method == proto::CHAT_OUTPUT => {
                match serde_json::from_value::<ChatOutput>(params) {
                    Ok(output) if output.conversation == self.conversation => self.output(output.content),
                    // A kind of output that a later gateway has and this version cannot show.
                    Ok(_) | Err(_) => Ok(()),
                }
            }
            Message::Response { id, outcome } if self.check.asked.as_ref() == Some(&id) => {
                self.check.asked = None;
                self.checked(decode(proto::STATUS, outcome))
            }
            Message::Response { id, outcome } => {
                let outcome = match decode(proto::CHAT_SEND, outcome) {
                    Ok(sent) => Ok(sent),
                    Err(ClientError::Rpc(error)) => Err(error),
                    Err(error) => return Err(CliError::Client(error)),
                };
                let shows = self.talk.answered(&id, outcome);
                self.show(shows)
            }
            Message::Notification { .. } | Message::Request { .. } => Ok(()),
        }
    }

    fn output(&mut self, content: OutboundContent) -> Result<(), CliError> {
        self.check.unknown = 0;
        let shows = self.talk.output(content);
        self.show(shows)
    }

    fn show(&mut self, shows: Vec<Show>) -> Result<(), CliError> {
        for show in shows {
            let ended = matches!(show, Show::End(_));
            let over = ended || matches!(show, Show::Notice(_) | Show::Rejected(_));
            self.view.show(show)?;
            let idle = over && !self.talk.is_turn_running();
            // A turn that ended is the one that was to be stopped; another may run by now.
            self.stopping &= !(ended || idle);
            if idle && matches!(self.input, Input::Lines(_)) {
                self.view.prompt();
            }
        }
        Ok(())
    }

    fn show_backlog(&mut self, backlog: Vec<OutboundContent>) -> Result<(), CliError> {
        backlog.into_iter().try_for_each(|content| self.output(content))
    }

    fn line(&mut self, line: String) {
        self.view.typed();
        if line.len() > TEXT_BYTES_MAX {
            self.view.aside(&format!("error: not sent: a message has at most {TEXT_BYTES_MAX} bytes"));
        } else if line.trim().is_empty() {
            self.view.prompt();
        } else {
            self.talk.say(line);
        }
    }

    fn interrupted(&mut self) -> Result<(), CliError> {
        self.view.finish()?;
        if self.talk.open() == 0 { Ok(()) } else { Err(CliError::NoAnswer("interrupted".to_owned())) }
    }

    /// Asks for the status. A turn that the gateway does not know of will not be answered: it was refused, or lost
    /// together with the state of a gateway that was killed.
    async fn ask_whether_known(&mut self) -> Result<(), CliError> {
        match self.client.send(proto::STATUS, &serde_json::Value::Null).await {
            Ok(request) => {
                self.check.asked = Some(request);
                Ok(())
            }
            Err(error) => self.recover(error).await,
        }
    }

    fn checked(&mut self, status: Result<Status, ClientError>) -> Result<(), CliError> {
        // A gateway that cannot tell is waited for.
        let Ok(status) = status else { return Ok(()) };
        let known = status.queued_turns > 0
            || status.agents.iter().flat_map(|agent| &agent.turns).any(|turn| turn.conversation == self.conversation)
            || !matches!(status.phase.as_str(), "serving" | "probation");
        self.check.unknown = if known { 0 } else { self.check.unknown + 1 };
        if self.check.unknown >= 2 {
            self.check.unknown = 0;
            let shows = self.talk.give_up();
            self.show(shows)?;
            self.view.prompt();
        }
        Ok(())
    }

    /// Reconnects after the connection broke, and joins the chat again.
    async fn recover(&mut self, error: ClientError) -> Result<(), CliError> {
        if !error.is_disconnect() {
            return Err(CliError::client(error, &self.home.path));
        }
        self.talk.disconnected();
        self.check = Check::default();
        let until = Instant::now() + RETURN_TIMEOUT;
        let mut pause = BACKOFF.0;
        loop {
            tokio::select! {
                opened = open(self.home, &self.params) => match opened {
                    Ok((client, opened)) => {
                        self.client = client;
                        return self.show_backlog(opened.backlog);
                    }
                    Err(error) if Instant::now() >= until || !is_transient(&error) => {
                        return Err(CliError::client(error, &self.home.path));
                    }
                    Err(_) => {}
                },
                _ = self.interrupt.recv() => return Err(CliError::client(error, &self.home.path)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

/// Whether a gateway that starts may give this error.
fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Rpc(error) => error.code == proto::OVERLOADED,
        ClientError::Timeout { .. } => true,
        error => error.is_disconnect(),
    }
}

async fn open(home: &Home, params: &ChatOpenParams) -> Result<(Client, ChatOpened), ClientError> {
    let mut client = home.connect().await?;
    // The chat is joined with the answer, so what is said in it cannot come before.
    let opened = client.request(proto::CHAT_OPEN, params, STATUS_TIMEOUT, |_, _| {}).await?;
    Ok((client, opened))
}

async fn next_line(input: &mut Input) -> Option<String> {
    match input {
        Input::Lines(lines) => lines.recv().await,
        Input::Ended => std::future::pending().await,
    }
}

/// Reads standard input in a thread of its own, because a read from a terminal cannot be cancelled.
fn read_lines() -> Result<Input, CliError> {
    let (sender, lines) = mpsc::channel(1);
    let read = move || {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        // A read that fails ends the input as its end does.
        while stdin.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if sender.blocking_send(text).is_err() {
                return;
            }
            line.clear();
        }
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(read)
        .map_err(|source| CliError::Io { what: "start a thread for standard input", source })?;
    Ok(Input::Lines(lines))
}

fn plain_text(backlog: &[OutboundContent]) -> String {
    let mut text = String::new();
    for content in backlog {
        match content {
            OutboundContent::Notice(notice) => text.push_str(&format!("{}\n", notice.text)),
            OutboundContent::Reply { step: ReplyStep::Delta(said) | ReplyStep::SoFar(said), .. } => text.push_str(said),
            OutboundContent::Reply { step: ReplyStep::End(_), .. } => text.push('\n'),
            OutboundContent::Reply { .. } => {}
        }
    }
    text.trim_end().to_owned()
}
