//! Questions on a terminal, or to whoever has piped the answers in, one a line and in the order of the questions.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use crate::cli::error::CliError;
use crate::cli::screen;
use crate::config::Secret;

/// A secret of more bytes is none.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Who is asked.
pub(super) struct Ask {
    /// Nobody: defaults count.
    silent: bool,
    terminal: bool,
}

impl Ask {
    pub(super) fn new(silent: bool) -> Self {
        Self { silent, terminal: io::stdin().is_terminal() && io::stderr().is_terminal() }
    }

    /// Whether a wrong answer may be given anew.
    pub(super) fn may_repeat(&self) -> bool {
        self.terminal && !self.silent
    }

    /// A line; an empty one is the default. `flag` is named where there is neither.
    pub(super) fn line(&self, question: &str, default: Option<&str>, flag: &str) -> Result<String, CliError> {
        let missing = || CliError::Usage(format!("there is no answer to \"{question}\": give {flag}"));
        if self.silent {
            return default.map(str::to_owned).ok_or_else(missing);
        }
        let shown = default.filter(|default| !default.is_empty()).map(|default| format!(" [{default}]"));
        loop {
            self.prompt(&format!("{question}{}: ", shown.as_deref().unwrap_or_default()));
            let line = read_line()?;
            let Some(line) = line else { return default.map(str::to_owned).ok_or_else(missing) };
            match (line.trim(), default) {
                ("", Some(default)) => return Ok(default.to_owned()),
                ("", None) if self.terminal => {}
                ("", None) => return Err(missing()),
                (answer, _) => return Ok(answer.to_owned()),
            }
        }
    }

    /// One of several words, each with what it means.
    pub(super) fn choice(
        &self,
        question: &str,
        options: &[(String, String)],
        default: &str,
        flag: &str,
    ) -> Result<String, CliError> {
        if !self.silent {
            screen::complain(question);
            for (name, meaning) in options {
                screen::complain(&format!("  {name:<10} {meaning}"));
            }
        }
        loop {
            let answer = self.line("Which one", Some(default), flag)?;
            if options.iter().any(|(name, _)| *name == answer) {
                return Ok(answer);
            }
            let names: Vec<&str> = options.iter().map(|(name, _)| name.as_str()).collect();
            let told = format!("'{answer}' is none of {}", names.join(", "));
            if !self.may_repeat() {
                return Err(CliError::Usage(told));
            }
            screen::complain(&told);
        }
    }

    /// Yes or no.
    pub(super) fn yes_or_no(&self, question: &str, default: bool, flag: &str) -> Result<bool, CliError> {
        let letters = if default { "Y/n" } else { "y/N" };
        loop {
            let answer = self.line(question, Some(letters), flag)?;
            match answer.to_lowercase().as_str() {
                "y/n" => return Ok(default),
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ if self.may_repeat() => screen::complain("yes or no?"),
                _ => return Err(CliError::Usage(format!("'{answer}' is neither yes nor no, to \"{question}\""))),
            }
        }
    }

    /// A secret, which is not shown. `file` is that of a flag.
    pub(super) fn secret(&self, question: &str, file: Option<&Path>, flag: &str) -> Result<Secret, CliError> {
        if let Some(path) = file {
            return read_secret(path);
        }
        let text = if self.terminal && !self.silent {
            let read = rpassword::prompt_password(format!("{question} (not shown): "));
            read.map_err(|source| CliError::Io { what: "read from the terminal", source })?
        } else {
            self.line(question, None, flag)?
        };
        secret_of(&text, question)
    }

    fn prompt(&self, text: &str) {
        use io::Write as _;
        let _ = write!(io::stderr(), "{text}");
        // Nobody types a line break after a piped answer.
        if !self.terminal {
            screen::complain("");
        }
    }
}

fn read_line() -> Result<Option<String>, CliError> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    let read = read.map_err(|source| CliError::Io { what: "read from standard input", source })?;
    Ok((read > 0).then_some(line))
}

fn read_secret(path: &Path) -> Result<Secret, CliError> {
    let failed = |source| CliError::Io { what: "read the file with the secret", source };
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().lock().read_line(&mut text).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    }
    secret_of(&text, "the secret")
}

fn secret_of(text: &str, question: &str) -> Result<Secret, CliError> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) || text.contains(char::is_whitespace) {
        return Err(CliError::Usage(format!("that is no answer to \"{question}\": it is empty or has spaces in it")));
    }
    Ok(Secret::new(text))
}
