//! `hermes weixin login`: a person scans a QR code with their phone, and the gateway gets a bot account of theirs.
//!
//! **Invariants**
//! - Every status of the service is followed, and told in words.
//! - The token goes into its file alone: not to the terminal, and in no document.
//! - It ends, at the latest after its time.

mod keep;
mod qr;

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::args::{WeixinCommand, WeixinLoginArgs};
use super::error::CliError;
use super::home::Home;
use super::screen;
use crate::config::WeixinConfig;
use crate::platform::weixin::api::Api;
use crate::platform::weixin::login::{self, Credentials, Progress, QrCode};

/// Codes that are shown in one login.
const CODES_MAX: u32 = 3;
/// A code is taken for expired after this time, whatever the service says.
const CODE_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Between two questions for the status.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);
/// Digits that a phone may show.
const DIGITS_MAX: usize = 12;

/// Runs the command.
///
/// # Errors
/// [`CliError::Weixin`], [`CliError::Login`] and those of files and the terminal.
pub(super) async fn run(home: &Home, command: WeixinCommand) -> Result<(), CliError> {
    let WeixinCommand::Login(args) = command;
    let base_url = args.base_url.clone().unwrap_or_else(|| WeixinConfig::BASE_URL.to_owned());
    let api = Api::new(&base_url, WeixinConfig::CDN_URL, None).map_err(CliError::Weixin)?;
    let mut login = Login { origin: api.clone(), api, base_url, said: Said::new(args.json.json), codes: 0 };
    let known = keep::known_token(&home.path);
    let login = tokio::time::timeout(args.within, login.follow(known.as_slice()));
    let Ok(outcome) = login.await else {
        return Err(failed("timeout", "nobody has confirmed the login in time"));
    };
    tell(home, &args, outcome?)
}

fn failed(code: &'static str, why: &str) -> CliError {
    CliError::Login { code, why: why.to_owned() }
}

/// How a login ended well.
enum Outcome {
    Done(Credentials, String),
    AlreadyBound,
}

/// A login under way.
struct Login {
    /// Where codes come from.
    origin: Api,
    /// Where the status is asked for.
    api: Api,
    base_url: String,
    said: Said,
    codes: u32,
}

impl Login {
    async fn follow(&mut self, known: &[crate::config::Secret]) -> Result<Outcome, CliError> {
        let mut code = self.new_code(known).await?;
        let mut shown_at = Instant::now();
        let mut digits: Option<String> = None;
        loop {
            let progress = login::status(&self.api, &code, digits.as_deref()).await.map_err(CliError::Weixin)?;
            match progress {
                Progress::Waiting if shown_at.elapsed() < CODE_AGE_MAX => {}
                Progress::Scanned => {
                    digits = None;
                    self.said.once("Scanned. Confirm the login on your phone.")?;
                }
                Progress::CodeWanted => {
                    let prompt = match digits {
                        None => "Type the digits that your phone shows: ",
                        Some(_) => "These were not the digits. Type the digits that your phone shows: ",
                    };
                    digits = Some(self.said.ask(prompt).await?);
                    continue; // The service waits for them.
                }
                Progress::Waiting | Progress::Expired | Progress::CodeBlocked => {
                    self.said.line(match progress {
                        Progress::CodeBlocked => "The digits were wrong too often. Here is a new code.",
                        _ => "The code has expired.",
                    })?;
                    code = self.new_code(known).await?;
                    (shown_at, digits) = (Instant::now(), None);
                }
                Progress::Elsewhere(host) => self.go_on_at(&host)?,
                Progress::AlreadyBound => return Ok(Outcome::AlreadyBound),
                Progress::Done(credentials) => return self.done(credentials),
                Progress::Unknown(status) => {
                    self.said.once(&format!("Weixin says '{status}', which this version does not know. Waiting."))?;
                }
            }
            tokio::time::sleep(QUESTION_PAUSE).await;
        }
    }

    async fn new_code(&mut self, known: &[crate::config::Secret]) -> Result<QrCode, CliError> {
        if self.codes >= CODES_MAX {
            return Err(failed("expired", "no code was used before it expired"));
        }
        self.codes += 1;
        self.api = self.origin.clone();
        let code = login::qr_code(&self.origin, known).await.map_err(CliError::Weixin)?;
        self.said.code(&code)?;
        Ok(code)
    }

    fn go_on_at(&mut self, host: &str) -> Result<(), CliError> {
        let foreign = || failed("foreign_host", "Weixin leads to a host that is not in weixin.qq.com");
        let url = login::elsewhere(&self.base_url, host).ok_or_else(foreign)?;
        self.api = self.origin.at(&url).map_err(CliError::Weixin)?;
        self.said.once("Scanned. The login goes on at another host of Weixin.")
    }

    fn done(&self, credentials: Credentials) -> Result<Outcome, CliError> {
        let base_url = credentials.base_url.clone().unwrap_or_else(|| self.base_url.clone());
        if !login::is_acceptable_base(&self.base_url, &base_url) {
            return Err(failed("foreign_host", "the account is at a host that is not in weixin.qq.com"));
        }
        let base_url = base_url.trim_end_matches('/').to_owned();
        Ok(Outcome::Done(credentials, base_url))
    }
}

/// What `hermes weixin login --json` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum LoginAnswer {
    /// This person has a bot already; nothing was changed.
    AlreadyBound,
    /// There is a new account.
    LoggedIn {
        /// Its id.
        account_id: String,
        /// Where it is spoken to.
        base_url: String,
        /// Who scanned the code, where Weixin says.
        scanner: Option<String>,
        /// Where the token is.
        token_file: PathBuf,
        /// The configuration.
        config_file: PathBuf,
        /// What was done to it: `appended`, `none` or `by_hand`.
        config: &'static str,
        /// The lines that it has, or is to have.
        lines: String,
    },
}

/// Says how it ended, after what is to be kept is kept.
fn tell(home: &Home, args: &WeixinLoginArgs, outcome: Outcome) -> Result<(), CliError> {
    let said = Said::new(args.json.json);
    let (credentials, base_url) = match outcome {
        Outcome::Done(credentials, base_url) => (credentials, base_url),
        Outcome::AlreadyBound if said.json => return screen::print_json(&LoginAnswer::AlreadyBound),
        Outcome::AlreadyBound => {
            return said.line(
                "This person has a bot already, and its login goes on being valid: nothing was changed.\n\
                 If this gateway does not have it, remove the bot on the phone and log in again.",
            );
        }
    };
    let kept = keep::keep(home, &credentials, &base_url)?;
    if said.json {
        return screen::print_json(&LoginAnswer::LoggedIn {
            account_id: credentials.account,
            base_url,
            scanner: credentials.scanner,
            token_file: kept.token_file,
            config_file: kept.config_file,
            config: kept.change.name(),
            lines: kept.lines,
        });
    }
    said.line(&format!("Logged in as {}. The token is in {}.", credentials.account, kept.token_file.display()))?;
    let config = kept.config_file.display();
    said.line(&match kept.change {
        keep::Change::Appended => format!("{config} has the new section:\n\n{}", kept.lines),
        keep::Change::None => format!("{config} names this account already."),
        keep::Change::ByHand => {
            format!(
                "{config} is left as it is. See to it that it has these lines, and no others in that section \
                     that contradict them:\n\n{}",
                kept.lines
            )
        }
    })?;
    said.line("Run `hermes gateway reload` to let a running gateway use it.")
}

/// What is said to whoever logs in: on standard output, or on standard error if that is for a program.
struct Said {
    json: bool,
    last: std::cell::RefCell<String>,
}

impl Said {
    fn new(json: bool) -> Self {
        Self { json, last: std::cell::RefCell::default() }
    }

    fn print(&self, text: &str) -> Result<(), CliError> {
        if self.json {
            screen::complain(text.trim_end_matches('\n'));
            return Ok(());
        }
        screen::print(text)
    }

    fn line(&self, line: &str) -> Result<(), CliError> {
        self.last.borrow_mut().clear();
        self.print(&format!("{line}\n"))
    }

    /// Says it if it was not the last that was said.
    fn once(&self, line: &str) -> Result<(), CliError> {
        if *self.last.borrow() == line {
            return Ok(());
        }
        self.line(line)?;
        line.clone_into(&mut self.last.borrow_mut());
        Ok(())
    }

    fn code(&self, code: &QrCode) -> Result<(), CliError> {
        let is_terminal = if self.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let in_colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let picture = qr::draw(&code.content, in_colour).unwrap_or_default();
        self.line(&format!("Scan this code with Weixin on your phone:\n\n{picture}\nor open {}\n", code.content))
    }

    /// Asks for digits until some are given.
    async fn ask(&self, prompt: &str) -> Result<String, CliError> {
        loop {
            self.print(prompt)?;
            let line = read_line().await?;
            let digits = line.trim();
            if !digits.is_empty() && digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok(digits.to_owned());
            }
        }
    }
}

/// A line of standard input, read by a thread of its own: nothing can end a read, but the process may end meanwhile.
async fn read_line() -> Result<String, CliError> {
    let broken = |source| CliError::Io { what: "read from standard input", source };
    let (sender, receiver) = oneshot::channel();
    let read = move || {
        let mut line = String::new();
        let outcome = io::stdin().lock().read_line(&mut line).map(|_| line);
        // The login may be over.
        drop(sender.send(outcome));
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).map_err(broken)?;
    let line = receiver.await.expect("the thread always answers").map_err(broken)?;
    if line.is_empty() {
        return Err(failed("no_digits", "the digits that the phone shows are wanted, and standard input has ended"));
    }
    Ok(line)
}
