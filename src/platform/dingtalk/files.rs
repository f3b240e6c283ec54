//! Files that people send: a message has a code, which DingTalk exchanges for an address, which is read
//! (<https://open.dingtalk.com/document/orgapp/download-the-file-content-of-the-robot-receiving-message>).
//!
//! **Invariants**
//! - A file has at most 25 MiB and a deadline, so it is held in memory.
//! - Its address is not trusted with anything: it gets no token, is not redirected, and is `https` unless the API itself is
//!   on that host without.
//! - No error carries an address or a code.

use std::time::Duration;

use reqwest::{Client, Url};
use thiserror::Error;

use super::api::{Api, DingTalkError};
use super::sender::unsent;
use crate::config::DingTalkConfig;
use crate::platform::http::{self, Unread};
use crate::platform::link::Failure;
use crate::report::Chain;

/// The largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 25 << 20;
/// How long a file may take.
const FILE_DEADLINE: Duration = Duration::from_secs(120);

/// Why there is no file.
#[derive(Debug, Error)]
pub enum FileError {
    /// DingTalk does not give its address.
    #[error("the address of the file is not to be had: {why}")]
    NoAddress {
        /// Its reason.
        why: String,
        /// It may give it later: the wait that it asked for, if it did.
        again: Option<Option<Duration>>,
    },
    /// The address is not one to be called.
    #[error("the address of the file is not https")]
    Foreign,
    /// It did not get through.
    #[error("the file did not get through")]
    Network(#[source] reqwest::Error),
    /// It took too long.
    #[error("the file was not there within {} s", FILE_DEADLINE.as_secs())]
    Timeout,
    /// Whoever has it says no.
    #[error("the file was refused with HTTP {0}")]
    Refused(u16),
    /// It is too large.
    #[error("the file is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
}

/// Fetches files. Clones share connections and the access token.
#[derive(Clone)]
pub struct Files {
    api: Api,
    base: Option<Url>,
}

impl Files {
    /// For the files that people send to the app.
    pub fn new(config: &DingTalkConfig) -> Self {
        Self::with(Api::new(config), config)
    }

    /// The same over connections that are there.
    pub(super) fn with(api: Api, config: &DingTalkConfig) -> Self {
        Self { api, base: Url::parse(&config.api_url).ok() }
    }

    /// The bytes of a file by its `downloadCode` ([`crate::chat::Attachment::source`]); `robot` is the bot it was sent to.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn fetch(&self, robot: &str, code: &str) -> Result<Vec<u8>, FileError> {
        let no_address = |error: &DingTalkError| {
            let may_pass = matches!(unsent(error).failure, Failure::Again { .. });
            let asked = match error {
                DingTalkError::Refused { retry_after, .. } => *retry_after,
                _ => None,
            };
            let again = may_pass.then_some(asked);
            FileError::NoAddress { why: Chain(error).to_string(), again }
        };
        let address = self.api.download_url(robot, code).await.map_err(|error| no_address(&error))?;
        let address = self.known(&address).ok_or(FileError::Foreign)?;
        let client = self.api.http().await.map_err(|error| no_address(&error))?;
        tokio::time::timeout(FILE_DEADLINE, read(client, address)).await.map_err(|_| FileError::Timeout)?
    }

    /// The address, if it may be called.
    fn known(&self, address: &str) -> Option<Url> {
        let url = Url::parse(address).ok()?;
        let is_of_the_api = self.base.as_ref().is_some_and(|base| base.origin() == url.origin());
        (url.scheme() == "https" || is_of_the_api).then_some(url)
    }
}

async fn read(client: &Client, address: Url) -> Result<Vec<u8>, FileError> {
    let network = |error: reqwest::Error| FileError::Network(error.without_url());
    let response = client.get(address).send().await.map_err(network)?;
    if !response.status().is_success() {
        return Err(FileError::Refused(response.status().as_u16()));
    }
    http::read(response, FILE_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::Network(error) => FileError::Network(error),
        Unread::TooLarge => FileError::TooLarge,
    })
}
