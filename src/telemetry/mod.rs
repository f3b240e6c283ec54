//! Where log events go: to the journal under systemd, else as text to stderr.
//!
//! - [`init`] is called once, first thing in the process; it takes some 50 µs, because the time between an
//!   execve and the first answer counts.
//! - [`lifecycle`] names the events that other programs look for.
//! - [`otlp`] exports what was measured of handoffs and turns.
//! - [`set_generation`] and [`follow`] say what all events are of, so that what several images log is found together.
//!
//! **Invariants**
//! - Other crates log warnings and errors only, unless `HERMES_LOG` names them: at lower levels HTTP libraries log
//!   addresses, and a bot's token is part of its address.
//! - Logging never waits longer than a moment: when journald does not take an event in time, the event is dropped and
//!   the number of dropped ones is told with the next.
//!
//! The message of an event is a constant phrase; what varies is in fields.

mod context;
mod journal;
mod json;
pub mod lifecycle;
pub mod otlp;

use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

pub use context::{follow, set_generation};
use journal::JournalLayer;
use json::WithContext;

/// The target of this crate's own events.
const OWN_TARGET: &str = "hermes_gateway";

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text on stderr.
    Text,
    /// A JSON object a line on stderr.
    Json,
    /// With all fields to journald.
    Journal,
}

/// A text that is no [`LogFormat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log format is one of text, json, journal")]
pub struct LogFormatError;

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, LogFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journal" => Ok(Self::Journal),
            _ => Err(LogFormatError),
        }
    }
}

/// What decides where events go.
#[derive(Clone, Debug, Default)]
pub struct TelemetryOptions {
    /// `--log-format`. Without it: the journal if stderr leads there, else text.
    pub format: Option<LogFormat>,
    /// `HERMES_LOG`: a level for this program (`debug`), or levels by crate (`info,hyper=debug`). Default `info`.
    pub filter: Option<String>,
    /// `JOURNAL_STREAM`: the device and inode of the stream to the journal that systemd made (systemd.exec(5)).
    pub journal_stream: Option<String>,
    /// `NO_COLOR` is set: no colours even on a terminal (no-color.org).
    pub no_color: bool,
}

/// Why logging could not be set up as asked.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// `HERMES_LOG` cannot be understood.
    #[error(
        "HERMES_LOG is '{filter}'; write a level (error, warn, info, debug, trace) or levels by crate, for example info,hyper=debug"
    )]
    Filter {
        /// What it is set to.
        filter: String,
    },
    /// `--log-format journal`, and there is no journald.
    #[error("cannot reach the journal")]
    Journal {
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// It was called before.
    #[error("logging is already set up")]
    Again,
}

/// Sets up logging for the whole process and returns the format in use.
///
/// # Errors
/// [`TelemetryError`]; nothing is set up then.
pub fn init(options: &TelemetryOptions) -> Result<LogFormat, TelemetryError> {
    let filter = parse_filter(options.filter.as_deref())?;
    let sink = Sink::choose(options)?;
    let format = sink.format();
    let done = Registry::default().with(filter).with(sink.layer()).try_init();
    done.map_err(|_| TelemetryError::Again)?;
    Ok(format)
}

/// Where events go, decided.
enum Sink {
    Stderr { json: bool, colour: bool },
    Journal(JournalLayer),
}

impl Sink {
    fn choose(options: &TelemetryOptions) -> Result<Self, TelemetryError> {
        let text = || Self::Stderr { json: false, colour: !options.no_color && io::stderr().is_terminal() };
        match options.format {
            Some(LogFormat::Text) => Ok(text()),
            Some(LogFormat::Json) => Ok(Self::Stderr { json: true, colour: false }),
            Some(LogFormat::Journal) => {
                JournalLayer::new().map(Self::Journal).map_err(|source| TelemetryError::Journal { source })
            }
            // Text on stderr gets to the journal too, so a journald that cannot be reached is no reason to fail.
            None if journal::is_stderr(options.journal_stream.as_deref()) => {
                Ok(JournalLayer::new().map_or_else(|_| text(), Self::Journal))
            }
            None => Ok(text()),
        }
    }

    fn format(&self) -> LogFormat {
        match self {
            Self::Stderr { json: false, .. } => LogFormat::Text,
            Self::Stderr { json: true, .. } => LogFormat::Json,
            Self::Journal(_) => LogFormat::Journal,
        }
    }

    fn layer<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        match self {
            Self::Stderr { json: true, .. } => {
                Box::new(stderr.json().flatten_event(true).map_event_format(WithContext))
            }
            Self::Stderr { json: false, colour } => Box::new(stderr.with_ansi(colour).with_target(false)),
            Self::Journal(layer) => Box::new(layer),
        }
    }
}

/// Reads `HERMES_LOG`. No regular expressions and no fields of spans, unlike `RUST_LOG`: they take longer to set up
/// than the rest of a start.
fn parse_filter(text: Option<&str>) -> Result<Targets, TelemetryError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(own_level(LevelFilter::INFO));
    };
    if let Ok(level) = text.parse::<LevelFilter>() {
        return Ok(own_level(level));
    }
    // A bare word is taken for a crate at its highest level, but here it is a level with a typing error.
    let named = text.contains(['=', ',']);
    text.parse::<Targets>().ok().filter(|_| named).ok_or_else(|| TelemetryError::Filter { filter: text.to_owned() })
}

fn own_level(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OWN_TARGET, level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_is_for_this_program_alone() {
        let enabled = |text: Option<&str>, target: &str, level: Level| {
            parse_filter(text).expect("understood").would_enable(target, &level)
        };
        assert!(enabled(None, "hermes_gateway::daemon", Level::INFO));
        assert!(!enabled(None, "hermes_gateway::daemon", Level::DEBUG));
        assert!(!enabled(None, "hyper", Level::INFO));
        assert!(enabled(Some("debug"), "hermes_gateway::daemon", Level::DEBUG));
        assert!(!enabled(Some("trace"), "h2", Level::INFO));
        assert!(enabled(Some("trace"), "h2", Level::WARN));
        assert!(!enabled(Some("error"), "h2", Level::WARN));
        assert!(!enabled(Some("off"), "hermes_gateway", Level::ERROR));
        assert!(enabled(Some("info,h2=trace"), "h2", Level::TRACE));
        assert!(enabled(Some(" "), "hermes_gateway", Level::INFO));
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for text in ["verbose", "debugg", "hermes=loud"] {
            assert!(parse_filter(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("journal".parse(), Ok(LogFormat::Journal));
        assert_eq!("xml".parse::<LogFormat>(), Err(LogFormatError));
    }
}
