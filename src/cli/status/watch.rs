//! `hermes gateway status --watch`: the page as it changes, until Ctrl-C.
//!
//! A handoff does not show as an error: the connection is carried over it, and the answer comes from the next image. When a
//! connection breaks, what was known stays on the screen for a while, with a word on it.

use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Down, view};
use crate::cli::args::StatusArgs;
use crate::cli::error::CliError;
use crate::cli::handoff;
use crate::cli::home::Home;
use crate::cli::page::{Look, local_time};
use crate::cli::screen;
use crate::control::client::Client;
use crate::control::proto::Status;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// For so long a gateway that does not answer is believed to be coming back.
const PATIENCE: Duration = Duration::from_secs(3);

/// To the alternate screen without a cursor, and back (xterm, ctlseqs).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const HOME: &str = "\u{1b}[H";
const END_OF_LINE: &str = "\u{1b}[K\r\n";
const BELOW: &str = "\u{1b}[J";

/// What was seen at one look.
enum Seen {
    Up(Box<Status>),
    Down(Box<Down>),
    /// It does not answer, and may be coming back.
    Unsure,
}

/// Watches until it is interrupted or nobody reads any more.
pub(super) async fn run(home: &Home, args: StatusArgs) -> Result<(), CliError> {
    let mut sight = Sight { home, client: None, lost: None };
    let mut shown: Box<dyn Canvas> = match Look::of_stdout() {
        look if look.is_terminal() && !args.json.json => Box::new(Terminal::enter(args.full)?),
        _ => Box::new(Lines { json: args.json.json, last: String::new() }),
    };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ended = ended().map_err(|source| CliError::Io { what: "listen for signals", source })?;
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => return Ok(()),
            _ = ticks.tick() => {}
        }
        let seen = tokio::select! {
            () = &mut ended => return Ok(()),
            seen = sight.look() => seen,
        };
        shown.show(&seen)?;
    }
}

/// Ctrl-C, a kill, or the end of the terminal: however it ends, the screen is left as it was.
fn ended() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// The way to the gateway.
struct Sight<'a> {
    home: &'a Home,
    client: Option<Client>,
    /// Since when it does not answer.
    lost: Option<Instant>,
}

impl Sight<'_> {
    async fn look(&mut self) -> Seen {
        let asked = async {
            let client = match &mut self.client {
                Some(client) => client,
                none => none.insert(self.home.connect().await?),
            };
            handoff::status(client).await
        };
        match asked.await {
            Ok(status) => {
                self.lost = None;
                Seen::Up(Box::new(status))
            }
            Err(_) => {
                self.client = None;
                let lost = *self.lost.get_or_insert_with(Instant::now);
                if lost.elapsed() < PATIENCE {
                    return Seen::Unsure;
                }
                Seen::Down(Box::new(Down::look(self.home).await))
            }
        }
    }
}

/// Where it is shown.
trait Canvas {
    fn show(&mut self, seen: &Seen) -> Result<(), CliError>;
}

/// A terminal: one page in its place.
struct Terminal {
    full: bool,
    last: String,
}

impl Terminal {
    fn enter(full: bool) -> Result<Self, CliError> {
        screen::print(ENTER)?;
        Ok(Self { full, last: String::new() })
    }
}

impl Canvas for Terminal {
    fn show(&mut self, seen: &Seen) -> Result<(), CliError> {
        // It may have been resized.
        let look = Look::of_stdout();
        let page = match seen {
            Seen::Up(status) => view::status(status, self.full, look),
            Seen::Down(down) => down.page(look),
            Seen::Unsure => return Ok(()),
        };
        let lines: Vec<&str> = page.lines().take(look.height.saturating_sub(1)).collect();
        let drawn = format!("{HOME}{}{END_OF_LINE}{BELOW}", lines.join(END_OF_LINE));
        if drawn == self.last {
            return Ok(());
        }
        screen::print(&drawn)?;
        self.last = drawn;
        Ok(())
    }
}

impl Drop for Terminal {
    /// If it cannot be written to, there is nobody left to see it.
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _left = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

/// A file or a pipe: a line for each change.
struct Lines {
    json: bool,
    last: String,
}

impl Canvas for Lines {
    fn show(&mut self, seen: &Seen) -> Result<(), CliError> {
        let (at, told) = match seen {
            Seen::Up(status) => (status.at, in_a_line(status)),
            Seen::Down(down) => (crate::clock::UnixMillis::now(), format!("{}: {}", down.gateway_state, down.why)),
            Seen::Unsure => return Ok(()),
        };
        if told == self.last {
            return Ok(());
        }
        let line = match seen {
            Seen::Up(status) if self.json => serde_json::to_string(status).expect("plain data serialises"),
            Seen::Down(down) if self.json => serde_json::to_string(down).expect("plain data serialises"),
            _ => format!("{} {told}", local_time(at)),
        };
        screen::print(&format!("{line}\n"))?;
        self.last = told;
        Ok(())
    }
}

/// What is worth a line when it changes: no ages, no bytes.
fn in_a_line(status: &Status) -> String {
    let mut words = vec![
        format!("{} {}", status.image.version, status.gateway_state),
        format!("phase {}", status.phase),
        format!("PID {} generation {}", status.pid, status.generation),
    ];
    let turns: usize = status.agents.iter().map(|agent| agent.turns.len()).sum();
    words.push(format!("turns {turns} running {} waiting", status.queued_turns));
    words.extend(
        status
            .agents
            .iter()
            .filter(|agent| agent.state != "ready")
            .map(|agent| format!("agent {} {}", agent.name, agent.state)),
    );
    words.extend(status.platforms.iter().map(|platform| {
        let link = serde_json::to_value(&platform.link).expect("plain data serialises");
        format!("{} {}", platform.name, link["state"].as_str().unwrap_or("?"))
    }));
    words.extend(
        status.blockers.iter().filter(|blocker| blocker.effect == "refuses").map(|blocker| blocker.what.clone()),
    );
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::control::proto::{AgentStatus, Image};

    #[test]
    fn a_line_says_what_changed_and_not_how_old_it_is() {
        let status = Status {
            image: Image { version: "1.4.0".into(), sha256: String::new() },
            gateway_state: "running".into(),
            phase: "serving".into(),
            pid: 42,
            agents: vec![AgentStatus { name: "default".into(), state: "down".into(), ..AgentStatus::default() }],
            at: UnixMillis(5),
            ..Status::default()
        };
        let line = in_a_line(&status);
        assert_eq!(
            line,
            "1.4.0 running; phase serving; PID 42 generation 0; turns 0 running 0 waiting; agent default down"
        );
        assert_eq!(in_a_line(&Status { at: UnixMillis(6), ..status.clone() }), line);
        assert_ne!(in_a_line(&Status { generation: 1, ..status }), line);
    }
}
