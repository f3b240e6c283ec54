//! Fetching with limits: https, http on loopback, and `file:`.
//!
//! **Invariants**
//! - Every wait has a limit and so has every body: for the connection, for the next byte, for everything together,
//!   and in bytes.
//! - Redirects are followed here, one by one, so that each is held to the same rule as the first URL: an https source
//!   leads to https only.
//! - No URL is shown with its user, password or query.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use self_update::bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Item, UpdateError, Wait};
use crate::config::is_loopback;

/// Redirects that are followed; release hosts use one or two.
const REDIRECTS_MAX: usize = 5;
/// Read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much and how long an update may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest manifest, in bytes.
    pub manifest_bytes_max: u64,
    /// The largest archive, in bytes.
    pub archive_bytes_max: u64,
    /// The largest binary in an archive, in bytes.
    pub binary_bytes_max: u64,
    /// The longest wait for a connection.
    pub connect: Duration,
    /// The longest wait for the next byte.
    pub idle: Duration,
    /// The longest time for manifest and archive together.
    pub total: Duration,
}

impl Default for Limits {
    /// 1 MiB, 256 MiB and 512 MiB; 10 s, 30 s and 15 min.
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            manifest_bytes_max: MIB,
            archive_bytes_max: 256 * MIB,
            binary_bytes_max: 512 * MIB,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(15 * 60),
        }
    }
}

/// The time limits of one update, running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    limits: Limits,
    deadline: Instant,
}

impl Timer {
    pub(super) fn start(limits: Limits) -> Self {
        Self { limits, deadline: Instant::now() + limits.total }
    }

    /// Waits for what a server sends next.
    async fn wait<T>(&self, url: &Url, next: impl Future<Output = T>) -> Result<T, UpdateError> {
        let timed_out = |wait, limit| UpdateError::TimedOut { url: shown(url), wait, limit };
        match timeout_at(self.deadline, timeout(self.limits.idle, next)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(timed_out(Wait::Idle, self.limits.idle)),
            Err(_) => Err(timed_out(Wait::Total, self.limits.total)),
        }
    }
}

/// A body on its way.
pub(super) struct Fetch {
    url: Url,
    item: Item,
    body: Body,
    limit_bytes: u64,
    done_bytes: u64,
    length_bytes: Option<u64>,
    timer: Timer,
}

enum Body {
    Http(Response),
    File(File, PathBuf),
}

impl Fetch {
    /// Asks for `url`, which was found at `base`; `limit_bytes` is the most that is accepted.
    pub(super) async fn open(
        url: &Url,
        base: Option<&Url>,
        item: Item,
        limit_bytes: u64,
        timer: Timer,
    ) -> Result<Self, UpdateError> {
        check_allowed(url, base)?;
        let (url, body, length_bytes) = if url.scheme() == "file" {
            let (file, path, length) = open_file(url).await?;
            (url.clone(), Body::File(file, path), Some(length))
        } else {
            let (url, response) = follow(url, &timer).await?;
            let length = response.content_length();
            (url, Body::Http(response), length)
        };
        if length_bytes.is_some_and(|length| length > limit_bytes) {
            return Err(UpdateError::TooLarge { item, limit_bytes });
        }
        Ok(Self { url, item, body, limit_bytes, done_bytes: 0, length_bytes, timer })
    }

    /// The length of the body, if the server says it.
    pub(super) fn length_bytes(&self) -> Option<u64> {
        self.length_bytes
    }

    /// How much has come.
    pub(super) fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// The next piece, `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, UpdateError> {
        let chunk = match &mut self.body {
            Body::Http(response) => {
                let next = self.timer.wait(&self.url, response.chunk()).await?;
                next.map_err(|source| UpdateError::Interrupted {
                    url: shown(&self.url),
                    done_bytes: self.done_bytes,
                    source: source.without_url(),
                })?
            }
            Body::File(file, path) => {
                let mut buffer = vec![0; CHUNK_BYTES];
                let read = self.timer.wait(&self.url, file.read(&mut buffer)).await?;
                let read = read.map_err(|source| UpdateError::ReadFile { path: path.clone(), source })?;
                buffer.truncate(read);
                (read > 0).then(|| Bytes::from(buffer))
            }
        };
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.done_bytes += u64::try_from(length).expect("a buffer's length fits");
        if self.done_bytes > self.limit_bytes {
            return Err(UpdateError::TooLarge { item: self.item, limit_bytes: self.limit_bytes });
        }
        Ok(chunk)
    }

    /// The whole body.
    pub(super) async fn bytes(mut self) -> Result<Vec<u8>, UpdateError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Whether `url` may be asked for, given where it was found.
pub(super) fn check_allowed(url: &Url, base: Option<&Url>) -> Result<(), UpdateError> {
    let found_at = base.map(Url::scheme);
    let allowed = match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback) && found_at != Some("https"),
        "file" => found_at.is_none_or(|scheme| scheme == "file"),
        _ => false,
    };
    if allowed { Ok(()) } else { Err(UpdateError::InsecureUrl { url: shown(url) }) }
}

/// A URL for people: scheme, host, port and path.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Follows redirects to the response that is none, and returns it with its URL.
async fn follow(url: &Url, timer: &Timer) -> Result<(Url, Response), UpdateError> {
    let mut at = url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let response = ask(&at, timer).await?;
        let status = response.status();
        if status.is_success() {
            return Ok((at, response));
        }
        let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
        let Some(location) = location else {
            return Err(UpdateError::Status { url: shown(&at), status: status.as_u16() });
        };
        let next = location.to_str().ok().and_then(|text| at.join(text).ok());
        let next = next.ok_or_else(|| UpdateError::BadUrl { what: format!("the redirect from {}", shown(&at)) })?;
        check_allowed(&next, Some(&at))?;
        at = next;
    }
    Err(UpdateError::TooManyRedirects { url: shown(url), limit: REDIRECTS_MAX })
}

async fn ask(url: &Url, timer: &Timer) -> Result<Response, UpdateError> {
    let client = client(url, &timer.limits)
        .map_err(|source| UpdateError::Unreachable { url: shown(url), source: source.without_url() })?;
    timer.wait(url, client.get(url.clone()).send()).await?.map_err(|source| {
        if source.is_connect() && source.is_timeout() {
            UpdateError::TimedOut { url: shown(url), wait: Wait::Connect, limit: timer.limits.connect }
        } else {
            UpdateError::Unreachable { url: shown(url), source: source.without_url() }
        }
    })
}

fn client(url: &Url, limits: &Limits) -> reqwest::Result<Client> {
    crate::tls::choose_provider();
    let builder = Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(limits.connect);
    if url.scheme() == "http" {
        // Only loopback comes here: it needs no proxy, and no certificates, which a small system may not have.
        builder.no_proxy().tls_certs_only(std::iter::empty()).build()
    } else {
        builder.build()
    }
}

async fn open_file(url: &Url) -> Result<(File, PathBuf, u64), UpdateError> {
    let path = url.to_file_path().map_err(|()| UpdateError::BadUrl { what: shown(url) })?;
    let failed = |source| UpdateError::ReadFile { path: path.clone(), source };
    // Looked at before it is opened, because opening a pipe waits for a writer.
    let meta = tokio::fs::metadata(&path).await.map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let file = File::open(&path).await.map_err(failed)?;
    Ok((file, path, meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn only_safe_sources_are_allowed() {
        for (target, base, allowed) in [
            ("https://example.org/m.json", None, true),
            ("http://127.0.0.1:8080/m.json", None, true),
            ("http://[::1]/m.json", None, true),
            ("http://localhost/m.json", None, true),
            ("file:///srv/m.json", None, true),
            ("http://example.org/m.json", None, false),
            ("http://127.0.0.1.example.org/m.json", None, false),
            ("ftp://127.0.0.1/m.json", None, false),
            ("data:text/plain,x", None, false),
            ("http://127.0.0.1/a", Some("https://example.org/m.json"), false),
            ("http://127.0.0.1/a", Some("http://127.0.0.1/m.json"), true),
            ("https://example.org/a", Some("file:///srv/m.json"), true),
            ("file:///srv/a", Some("https://example.org/m.json"), false),
            ("file:///srv/a", Some("file:///srv/m.json"), true),
        ] {
            let base = base.map(url);
            assert_eq!(check_allowed(&url(target), base.as_ref()).is_ok(), allowed, "{target} from {base:?}");
        }
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let text = shown(&url("https://user:pass@example.org:8443/dir/m.json?token=t#f"));
        assert_eq!(text, "https://example.org:8443/dir/m.json");
    }
}
