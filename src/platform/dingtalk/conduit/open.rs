//! How a connection comes to be: a ticket is asked for over HTTPS and shown when the WebSocket is opened
//! (<https://open.dingtalk.com/document/orgapp/stream-protocol>).
//!
//! The WebSocket is an upgraded request of the same HTTP client, so TLS, proxies and deadlines are the client's; of the
//! WebSocket library only the framing is used.
//!
//! **Invariant:** neither the secret nor a ticket is in an error. A ticket is good for 90 s and one connection, and is
//! never kept.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};
use thiserror::Error;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::wire::Account;
use crate::platform::dingtalk::frame::BOT_MESSAGE;
use crate::platform::http::{self, Unread};

/// From asking for a ticket to the open WebSocket.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer that is read; an honest one has a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The largest frame that is read.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// The longest code of DingTalk's that is kept, in characters.
const CODE_CHARS_MAX: usize = 100;

/// An open connection.
pub(super) type WebSocket = WebSocketStream<reqwest::Upgraded>;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// The HTTP client could not be built.
    #[error("cannot set up the HTTP client (are the CA certificates of the system installed?)")]
    Client(#[source] reqwest::Error),
    /// It did not get through.
    #[error("{what} did not get through")]
    Network {
        /// What was tried.
        what: &'static str,
        /// The reason, without the address.
        #[source]
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("no connection within {} s", OPEN_DEADLINE.as_secs())]
    Timeout,
    /// DingTalk says no.
    #[error("{what} was refused with {status} ({code})")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// DingTalk's code.
        code: String,
    },
    /// The answer makes no sense.
    #[error("the answer to {what} makes no sense: {problem}")]
    Malformed {
        /// What was tried.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl OpenError {
    /// DingTalk's or HTTP's code, or the kind of failure.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Client(_) => "client".to_owned(),
            Self::Network { .. } => "network".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Refused { status, .. } => status.to_string(),
            Self::Malformed { .. } => "malformed".to_owned(),
        }
    }

    /// Whether it is the account that is refused.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Refused { what: TICKET, status: 400 | 401 | 403 | 404, .. })
    }
}

const TICKET: &str = "the request for a ticket";
const WEBSOCKET: &str = "the opening of the WebSocket";

/// The HTTP client. It loads the root certificates of the system: not for the thread of a runtime.
pub(super) fn client() -> Result<Client, OpenError> {
    // An upgrade is HTTP/1.1's (RFC 6455).
    http::client().http1_only().build().map_err(OpenError::Client)
}

/// Opens a connection.
pub(super) async fn open(http: Client, account: Account) -> Result<WebSocket, OpenError> {
    let opening = async {
        let address = ticket(&http, &account).await?;
        connect(&http, address).await
    };
    tokio::time::timeout(OPEN_DEADLINE, opening).await.map_err(|_| OpenError::Timeout)?
}

/// The address to connect to, ticket and all.
async fn ticket(http: &Client, account: &Account) -> Result<Url, OpenError> {
    let network = |source: reqwest::Error| OpenError::Network { what: TICKET, source: source.without_url() };
    let malformed = |problem| OpenError::Malformed { what: TICKET, problem };
    let body = json!({
        "clientId": account.client_id,
        "clientSecret": account.secret().expose(),
        "subscriptions": [
            { "type": "EVENT", "topic": "*" },
            { "type": "CALLBACK", "topic": BOT_MESSAGE },
        ],
        "ua": concat!("hermes/", env!("CARGO_PKG_VERSION")),
    });
    let url = format!("{}/v1.0/gateway/connections/open", account.api_url);
    // Without Accept the answer may be XML.
    let response = http.post(url).header(ACCEPT, "application/json").json(&body).send().await.map_err(network)?;
    let status = response.status();
    let answer = read(response).await?;
    if !status.is_success() {
        let code = answer.get("code").and_then(Value::as_str).unwrap_or("no code");
        let code = code.chars().filter(|c| !c.is_control()).take(CODE_CHARS_MAX).collect();
        return Err(OpenError::Refused { what: TICKET, status: status.as_u16(), code });
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let (Some(endpoint), Some(ticket)) = (text("endpoint"), text("ticket")) else {
        return Err(malformed("it has no endpoint and ticket"));
    };
    let scheme = if let Some(rest) = endpoint.strip_prefix("wss://") {
        format!("https://{rest}")
    } else if let (Some(rest), true) = (endpoint.strip_prefix("ws://"), account.api_url.starts_with("http://")) {
        format!("http://{rest}")
    } else {
        return Err(malformed("its endpoint is no wss address"));
    };
    let mut address = Url::parse(&scheme).map_err(|_| malformed("its endpoint is no address"))?;
    address.query_pairs_mut().append_pair("ticket", ticket);
    Ok(address)
}

/// Reads a JSON answer; null where it is something else.
async fn read(response: Response) -> Result<Value, OpenError> {
    let body = http::read(response, ANSWER_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::Network(source) => OpenError::Network { what: TICKET, source },
        Unread::TooLarge => OpenError::Malformed { what: TICKET, problem: "it is too long" },
    })?;
    Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The client's side of the opening handshake (RFC 6455, section 4.1).
async fn connect(http: &Client, address: Url) -> Result<WebSocket, OpenError> {
    let network = |source: reqwest::Error| OpenError::Network { what: WEBSOCKET, source: source.without_url() };
    let key = generate_key();
    let response = http
        .get(address)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .send()
        .await
        .map_err(network)?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let code = "no upgrade".to_owned();
        return Err(OpenError::Refused { what: WEBSOCKET, status: status.as_u16(), code });
    }
    let accepts = response.headers().get(SEC_WEBSOCKET_ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepts != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(OpenError::Malformed { what: WEBSOCKET, problem: "it is for another request" });
    }
    let upgraded = response.upgrade().await.map_err(network)?;
    let limits =
        WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}
