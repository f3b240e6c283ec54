//! Why a request to Weixin failed, and what to do about it.
//!
//! **Invariant:** no error holds a URL, a token, a ticket, a key or a body: only what is known here, and the words of
//! an `errmsg` that are too short to be any of these.

use std::time::Duration;

use thiserror::Error;

/// `ret` or `errcode`: the session is over. Of a poll it is the bot token's; of a send it may be the context's.
pub const STALE: i64 = -14;
/// `ret` or `errcode`: too often.
pub const RATE_LIMITED: i64 = -2;
/// How long an account is left alone after [`STALE`], as Tencent's own client does.
pub const STALE_PAUSE: Duration = Duration::from_secs(60 * 60);
/// How long nothing is asked after [`RATE_LIMITED`]. The service does not say how long it wants.
pub const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(30);
/// The longest part of an `errmsg` that is kept, in characters.
const SAID_CHARS_MAX: usize = 100;
/// The longest word of it. Tokens, tickets and keys are longer.
const WORD_CHARS_MAX: usize = 20;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum WeixinError {
    /// The HTTP client could not be built, for example because no root certificates are installed.
    #[error("cannot set up the HTTP client (are the CA certificates of the system installed?)")]
    Client {
        /// The client's reason.
        #[source]
        source: reqwest::Error,
    },
    /// A configured address is no URL.
    #[error("the {what} is not an http or https URL")]
    Address {
        /// Which one.
        what: &'static str,
    },
    /// The request or its answer did not get through.
    #[error("{method} did not get through")]
    Network {
        /// The method called.
        method: &'static str,
        /// The reason, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// There was no complete answer in time.
    #[error("{method} was not answered within {} s", after.as_secs())]
    Timeout {
        /// The method called.
        method: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The answer is larger than any honest one.
    #[error("the answer to {method} is larger than {bytes_max} bytes")]
    TooLarge {
        /// The method called.
        method: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer is not one of this API. What it says is not kept: it may hold messages.
    #[error("the answer to {method} cannot be read: {problem}")]
    Malformed {
        /// The method called.
        method: &'static str,
        /// The kind of mistake and its place.
        problem: String,
    },
    /// The answer has an HTTP status other than 200, a redirect for example: none is followed.
    #[error("{method} was answered with HTTP {status}")]
    Status {
        /// The method called.
        method: &'static str,
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, if it is in seconds.
        retry_after: Option<Duration>,
    },
    /// `ret` or `errcode` is not 0.
    #[error("{method} was refused with {code}{said}")]
    Refused {
        /// The method called.
        method: &'static str,
        /// `ret`, or else `errcode`.
        code: i64,
        /// The short words of `errmsg`, with a colon before them; or nothing.
        said: String,
    },
    /// A file is larger than the bound.
    #[error("the file is larger than {bytes_max} bytes")]
    FileTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The service names an address outside its configured hosts.
    #[error("{method} leads to a host that is neither that of base_url nor of cdn_url")]
    ForeignHost {
        /// The method called.
        method: &'static str,
    },
    /// A file cannot be decrypted.
    #[error("the file cannot be decrypted: {problem}")]
    Undecipherable {
        /// What is wrong.
        problem: &'static str,
    },
}

/// What to do about a [`WeixinError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, not before `after` if that is known, otherwise with the platform's own wait.
    Retry {
        /// The wait.
        after: Option<Duration>,
    },
    /// The token or the context is stale: see [`STALE`].
    Stale,
    /// This request will never succeed; others may.
    GiveUp,
}

impl WeixinError {
    /// What a failed `reqwest` call is, without its URL.
    pub(super) fn network(method: &'static str, source: reqwest::Error) -> Self {
        Self::Network { method, source: source.without_url() }
    }

    /// A refusal by code.
    pub(super) fn refused(method: &'static str, code: i64, errmsg: &str) -> Self {
        let said = short_words(errmsg);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        Self::Refused { method, code, said }
    }

    /// Whether Weixin may have done what it was asked: it has not said no, and the request may have reached it.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Network { source, .. } => !source.is_connect(),
            Self::Status { status, .. } => *status >= 500,
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => true,
            _ => false,
        }
    }

    /// Whether the same request may succeed later: too often, or too slow.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Status { status: 408 | 425 | 429, .. })
    }

    /// What to do about it. No failure is final for the account: a stale token may be renewed on the phone, and 401 or 403 are
    /// not in the protocol, so they are a proxy's.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Refused { code: STALE, .. } => Disposition::Stale,
            Self::Refused { code: RATE_LIMITED, .. } => Disposition::Retry { after: Some(RATE_LIMIT_PAUSE) },
            Self::Status { retry_after, status: 300..=399 | 401 | 403 | 408 | 429 | 500.., .. } => {
                Disposition::Retry { after: *retry_after }
            }
            Self::Refused { .. }
            | Self::Status { .. }
            | Self::FileTooLarge { .. }
            | Self::ForeignHost { .. }
            | Self::Address { .. }
            | Self::Undecipherable { .. } => Disposition::GiveUp,
            _ => Disposition::Retry { after: None },
        }
    }

    /// Whether a send may work without its context: -14, or what hermes-agent takes for the same.
    pub fn is_stale_context(&self) -> bool {
        match self {
            Self::Refused { code: STALE, .. } => true,
            Self::Refused { code: RATE_LIMITED, said, .. } => said.eq_ignore_ascii_case(": unknown error"),
            _ => false,
        }
    }

    /// The service's code, or the kind of failure: what [`crate::chat::LinkState`] calls `error_code`.
    pub fn code(&self) -> String {
        let kind = match self {
            Self::Client { .. } => "client",
            Self::Address { .. } => "address",
            Self::Network { .. } => "network",
            Self::Timeout { .. } => "timeout",
            Self::TooLarge { .. } | Self::FileTooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::ForeignHost { .. } => "foreign_host",
            Self::Undecipherable { .. } => "undecipherable",
            Self::Status { status, .. } => return status.to_string(),
            Self::Refused { code, .. } => return code.to_string(),
        };
        kind.to_owned()
    }
}

/// The words of a text that are too short to be a secret.
fn short_words(text: &str) -> String {
    let word = |word: &'_ str| if word.chars().count() > WORD_CHARS_MAX { "…".to_owned() } else { word.to_owned() };
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_disposition() {
        let status = |status, secs: Option<u64>| {
            WeixinError::Status { method: "x", status, retry_after: secs.map(Duration::from_secs) }.disposition()
        };
        let refused = |code| WeixinError::refused("x", code, "").disposition();
        let retry = |secs: Option<u64>| Disposition::Retry { after: secs.map(Duration::from_secs) };
        assert_eq!(refused(-14), Disposition::Stale);
        assert_eq!(refused(-2), retry(Some(30)));
        assert_eq!(refused(-3), Disposition::GiveUp);
        assert_eq!(
            [status(429, Some(7)), status(502, None), status(307, None)],
            [retry(Some(7)), retry(None), retry(None)]
        );
        assert_eq!(
            [status(401, None), status(403, None), status(400, None)],
            [retry(None), retry(None), Disposition::GiveUp]
        );
    }

    #[test]
    fn what_an_errmsg_says_is_shortened_and_holds_no_long_word() {
        let error = WeixinError::refused("sendmessage", -3, "bad token 0123456789abcdef0123456789abcdef\n given");
        assert_eq!(error.to_string(), "sendmessage was refused with -3: bad token … given");
        assert_eq!(WeixinError::refused("x", 7, "").to_string(), "x was refused with 7");
    }

    #[test]
    fn a_stale_context_has_two_forms() {
        assert!(WeixinError::refused("x", -14, "").is_stale_context());
        assert!(WeixinError::refused("x", -2, "unknown error").is_stale_context());
        assert!(!WeixinError::refused("x", -2, "too often").is_stale_context());
    }
}
