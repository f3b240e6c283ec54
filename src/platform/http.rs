//! What all HTTP clients of platforms have in common.
//!
//! **Invariants**
//! - No redirect is followed: it would hand a token, or what is said, to wherever it points.
//! - No answer is read beyond a bound, and no error carries an address.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A client to be built. Building it loads the root certificates of the system, which takes milliseconds: not for the
/// thread of a runtime.
pub(super) fn client() -> ClientBuilder {
    crate::tls::choose_provider();
    Client::builder().connect_timeout(CONNECT_DEADLINE).redirect(Policy::none())
}

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It broke off; without the address.
    Network(reqwest::Error),
    /// It is larger than asked for.
    TooLarge,
}

/// Reads a body of at most `bytes_max`.
///
/// # Errors
/// [`Unread`].
pub(super) async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Unread::Network(error.without_url()))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
