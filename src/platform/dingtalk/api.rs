//! A small client of DingTalk's HTTP API: how a chat is answered
//! (<https://open.dingtalk.com/document/orgapp/robot-overview>).
//!
//! **Invariants**
//! - Every call has a deadline, and no answer over 1 MiB is read.
//! - The secret and access tokens go to the configured addresses only, and a session webhook is called only on hosts that
//!   are known: whoever can write to the bot could name any other.
//! - No error carries an address, a token or what was said.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::{Mutex, OnceCell};

use crate::clock::MonoNanos;
use crate::config::{DingTalkConfig, Secret};
use crate::platform::delivery::pace::after;
use crate::platform::http::{self, Unread};
use crate::platform::pending::outcome;

const CALL_DEADLINE: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What is kept of DingTalk's words, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// The longest word among them, in ASCII characters: whatever is longer may be a token or the address of a session.
const WORD_CHARS_MAX: usize = 15;
/// An access token is renewed so long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
/// How long a token is used whose end is not told.
const TOKEN_DEFAULT_SECS: u64 = 7200;
pub(super) const TOKEN_CALL: &str = "accessToken";
const TOKEN_HEADER: &str = "x-acs-dingtalk-access-token";

/// Why a call failed.
#[derive(Debug, Error)]
pub(super) enum DingTalkError {
    /// The HTTP client could not be built.
    #[error("cannot set up the HTTP client (are the CA certificates of the system installed?)")]
    Client(#[source] Arc<reqwest::Error>),
    /// It did not get through.
    #[error("{call} did not get through")]
    Network {
        /// The call.
        call: &'static str,
        /// The reason, without the address.
        #[source]
        source: reqwest::Error,
    },
    /// There was no complete answer in time.
    #[error("{call} was not answered within {} s", CALL_DEADLINE.as_secs())]
    Timeout {
        /// The call.
        call: &'static str,
    },
    /// The answer is larger than any honest one.
    #[error("the answer to {call} is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge {
        /// The call.
        call: &'static str,
    },
    /// The answer makes no sense.
    #[error("the answer to {call} (HTTP {status}) makes no sense: {problem}")]
    Malformed {
        /// The call.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// DingTalk says no.
    #[error("{call} was refused with {code}: {words}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// DingTalk's code, a word or a number.
        code: String,
        /// DingTalk's words, shortened.
        words: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A message's webhook is on a host that is not known.
    #[error("the session webhook of the chat is not on a known host; add it to webhook_hosts in [platforms.dingtalk]")]
    ForeignWebhook,
}

impl DingTalkError {
    /// Whether DingTalk may have done what it was asked: it has not said no, and the request may have reached it.
    pub(super) fn may_have_been_done(&self) -> bool {
        match self {
            Self::Client(_) | Self::ForeignWebhook => false,
            // Nothing but a token was asked for.
            Self::Network { call: TOKEN_CALL, .. }
            | Self::Refused { call: TOKEN_CALL, .. }
            | Self::Timeout { call: TOKEN_CALL }
            | Self::TooLarge { call: TOKEN_CALL }
            | Self::Malformed { call: TOKEN_CALL, .. } => false,
            Self::Network { source, .. } => !source.is_connect(),
            Self::Refused { status, .. } => *status >= 500,
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => true,
        }
    }

    /// DingTalk's code, or the kind of failure.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Client(_) => "client".to_owned(),
            Self::Network { .. } => "network".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::TooLarge { .. } => "too_large".to_owned(),
            Self::Malformed { .. } => "malformed".to_owned(),
            Self::Refused { code, .. } => code.clone(),
            Self::ForeignWebhook => "webhook".to_owned(),
        }
    }

    /// Whether DingTalk says no to the request itself: not to the token, and not because there are too many.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Refused { call, status, code, .. } = self else { return false };
        let is_final = (400..500).contains(status) && !matches!(status, 401 | 408 | 429) && !is_limit(code);
        is_final && *call != TOKEN_CALL && !self.is_of_others()
    }

    /// Whether somebody else than DingTalk has answered, for example a proxy: in other words than its own.
    pub(super) fn is_of_others(&self) -> bool {
        matches!(self, Self::Refused { status, code, .. } if *code == status.to_string())
    }

    fn is_stale_token(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }
}

/// DingTalk's codes for too many messages.
pub(super) fn is_limit(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    matches!(code.as_str(), "130101" | "130102" | "410100" | "90018" | "flowcontrolled")
        || code.contains("throttl")
        || code.contains("qps")
        || code.contains("toomany")
}

/// A text as a chat gets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Words<'a> {
    /// As it is.
    Text(&'a str),
    /// Markdown, with a title for where only one line is shown.
    Markdown { title: &'a str, text: &'a str },
}

/// A message that is written without being asked: its `msgKey` and its `msgParam`.
#[derive(Clone, Debug)]
pub(super) struct Unasked {
    key: &'static str,
    param: String,
}

impl Unasked {
    /// A picture that was uploaded.
    pub(super) fn picture(media_id: &str) -> Self {
        Self { key: "sampleImageMsg", param: json!({ "photoURL": media_id }).to_string() }
    }
}

impl From<Words<'_>> for Unasked {
    fn from(words: Words<'_>) -> Self {
        match words {
            Words::Text(content) => Self { key: "sampleText", param: json!({ "content": content }).to_string() },
            Words::Markdown { title, text } => {
                Self { key: "sampleMarkdown", param: json!({ "title": title, "text": text }).to_string() }
            }
        }
    }
}

/// Who gets a card.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space<'a> {
    /// Everyone in a group.
    Group { conversation: &'a str },
    /// One member of the organisation.
    Direct { staff_id: &'a str },
}

/// One app at DingTalk. Clones share connections and the access token.
#[derive(Clone)]
pub(super) struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    http: OnceCell<Client>,
    api_url: String,
    /// Where files are uploaded to.
    oapi_url: String,
    client_id: String,
    client_secret: Secret,
    /// Hosts on which a session webhook may be; `https` but for those that were configured.
    hosts: Vec<String>,
    token: Mutex<Option<(Secret, MonoNanos)>>,
}

impl Api {
    pub(super) fn new(config: &DingTalkConfig) -> Self {
        let host = |url: &String| Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let known = [&config.api_url, &config.oapi_url].into_iter().filter_map(host);
        Self {
            inner: Arc::new(Inner {
                http: OnceCell::new(),
                api_url: config.api_url.clone(),
                oapi_url: config.oapi_url.clone(),
                client_id: config.client_id.clone(),
                client_secret: config.client_secret.clone(),
                hosts: known.chain(config.webhook_hosts.iter().cloned()).collect(),
                token: Mutex::new(None),
            }),
        }
    }

    /// Answers a chat by the webhook of a message from there. `at` is called in a group.
    pub(super) async fn send_by_session(
        &self,
        webhook: &str,
        words: Words<'_>,
        at: Option<&str>,
    ) -> Result<(), DingTalkError> {
        const CALL: &str = "sendBySession";
        let url = self.known(webhook).ok_or(DingTalkError::ForeignWebhook)?;
        let mut body = match words {
            Words::Text(content) => json!({ "msgtype": "text", "text": { "content": content } }),
            Words::Markdown { title, text } => {
                json!({ "msgtype": "markdown", "markdown": { "title": title, "text": text } })
            }
        };
        if let Some(at) = at {
            body["at"] = json!({ "atUserIds": [at] });
        }
        let http = self.http().await?;
        let (status, answer) = call(CALL, http.post(url).json(&body)).await?;
        accepted(CALL, status, &answer)
    }

    /// Writes to one member of the organisation without being asked.
    pub(super) async fn send_single(&self, robot: &str, staff_id: &str, said: Unasked) -> Result<(), DingTalkError> {
        const CALL: &str = "oToMessages/batchSend";
        let Unasked { key, param } = said;
        let body = json!({ "robotCode": robot, "userIds": [staff_id], "msgKey": key, "msgParam": param });
        let answer = self.call(CALL, Method::POST, "/v1.0/robot/oToMessages/batchSend", &body).await?;
        let names = |list: &str| answer.get(list).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let refused = |code: &str, words: &str, status| DingTalkError::Refused {
            call: CALL,
            status,
            code: code.to_owned(),
            words: words.to_owned(),
            retry_after: None,
        };
        if names("invalidStaffIdList") {
            return Err(refused("invalidStaffId", "there is no such member", 400));
        }
        if names("flowControlledStaffIdList") {
            return Err(refused("flowControlled", "too many messages to this member", 429));
        }
        Ok(())
    }

    /// Writes to a group without being asked.
    pub(super) async fn send_group(&self, robot: &str, conversation: &str, said: Unasked) -> Result<(), DingTalkError> {
        let Unasked { key, param } = said;
        let body = json!({ "robotCode": robot, "openConversationId": conversation, "msgKey": key, "msgParam": param });
        self.call("groupMessages/send", Method::POST, "/v1.0/robot/groupMessages/send", &body).await.map(drop)
    }

    /// Shows a card in a chat, under an id of our own: the same id is the same card, or is refused.
    pub(super) async fn create_card(
        &self,
        template: &str,
        track: &str,
        robot: &str,
        space: Space<'_>,
    ) -> Result<(), DingTalkError> {
        let mut body = json!({
            "cardTemplateId": template,
            "outTrackId": track,
            "cardData": { "cardParamMap": {} },
            "callbackType": "STREAM",
        });
        match space {
            Space::Group { conversation } => {
                body["openSpaceId"] = format!("dtv1.card//IM_GROUP.{conversation}").into();
                body["imGroupOpenSpaceModel"] = json!({ "supportForward": true });
                body["imGroupOpenDeliverModel"] = json!({ "robotCode": robot });
            }
            Space::Direct { staff_id } => {
                body["openSpaceId"] = format!("dtv1.card//IM_ROBOT.{staff_id}").into();
                body["imRobotOpenSpaceModel"] = json!({ "supportForward": true });
                body["imRobotOpenDeliverModel"] = json!({ "spaceType": "IM_ROBOT", "robotCode": robot });
            }
        }
        const CALL: &str = "createAndDeliver";
        let answer = self.call(CALL, Method::POST, "/v1.0/card/instances/createAndDeliver", &body).await?;
        // A chat that is not reached is told with HTTP 200.
        let results = answer.pointer("/result/deliverResults").and_then(Value::as_array);
        let is_no = |answer: &Value| answer.get("success").and_then(Value::as_bool) == Some(false);
        match results.into_iter().flatten().chain([&answer]).find(|answer| is_no(answer)) {
            Some(no) => Err(DingTalkError::Refused {
                call: CALL,
                status: 200,
                code: "undelivered".to_owned(),
                words: words_of(no, "errorMsg"),
                retry_after: None,
            }),
            None => Ok(()),
        }
    }

    /// Replaces the text of a card. `guid` is new for each call.
    pub(super) async fn stream_card(
        &self,
        track: &str,
        guid: &str,
        text: &str,
        is_final: bool,
    ) -> Result<(), DingTalkError> {
        let body = json!({
            "outTrackId": track,
            "guid": guid,
            "key": "content",
            "content": text,
            "isFull": true,
            "isFinalize": is_final,
            "isError": false,
        });
        self.call("card/streaming", Method::PUT, "/v1.0/card/streaming", &body).await.map(drop)
    }

    /// The address of a file that somebody has sent. It is good for a short time, for whoever has it.
    pub(super) async fn download_url(&self, robot: &str, code: &str) -> Result<String, DingTalkError> {
        const CALL: &str = "messageFiles/download";
        let body = json!({ "robotCode": robot, "downloadCode": code });
        let answer = self.call(CALL, Method::POST, "/v1.0/robot/messageFiles/download", &body).await?;
        let url = answer.get("downloadUrl").and_then(Value::as_str).map(str::to_owned);
        url.ok_or(DingTalkError::Malformed { call: CALL, status: 200, problem: "it has no downloadUrl" })
    }

    /// The address of the webhook, if it may be called.
    fn known(&self, webhook: &str) -> Option<Url> {
        let url = Url::parse(webhook).ok()?;
        let host = url.host_str()?;
        let is_loopback = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_private = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        (is_private && self.inner.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))).then_some(url)
    }

    pub(super) async fn http(&self) -> Result<&Client, DingTalkError> {
        self.inner
            .http
            .get_or_try_init(|| async {
                // It loads the root certificates of the system: not on the thread of the runtime.
                let building = tokio::task::spawn_blocking(|| http::client().build());
                outcome(building.await).map_err(|error| DingTalkError::Client(Arc::new(error)))
            })
            .await
    }

    /// A call with an access token, once more with a new one if it is refused.
    async fn call(&self, name: &'static str, method: Method, path: &str, body: &Value) -> Result<Value, DingTalkError> {
        match self.call_once(name, method.clone(), path, body).await {
            Err(error) if error.is_stale_token() => {
                *self.inner.token.lock().await = None;
                self.call_once(name, method, path, body).await
            }
            outcome => outcome,
        }
    }

    async fn call_once(
        &self,
        name: &'static str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, DingTalkError> {
        let token = self.token().await?;
        let http = self.http().await?;
        let request = http.request(method, format!("{}{path}", self.inner.api_url));
        let request = request.header(TOKEN_HEADER, token.expose()).json(body);
        call(name, request).await.map(|(_, answer)| answer)
    }

    /// The address of the older API.
    pub(super) fn oapi(&self) -> &str {
        &self.inner.oapi_url
    }

    /// The access token, a new one if need be.
    pub(super) async fn token(&self) -> Result<Secret, DingTalkError> {
        const CALL: &str = TOKEN_CALL;
        let mut kept = self.inner.token.lock().await;
        if let Some((token, until)) = &*kept
            && *until > MonoNanos::now()
        {
            return Ok(token.clone());
        }
        let body = json!({ "appKey": self.inner.client_id, "appSecret": self.inner.client_secret.expose() });
        let url = format!("{}/v1.0/oauth2/accessToken", self.inner.api_url);
        let (status, answer) = call(CALL, self.http().await?.post(url).json(&body)).await?;
        let problem = "it has no accessToken";
        let token = answer.get("accessToken").and_then(Value::as_str);
        let token = Secret::new(token.ok_or(DingTalkError::Malformed { call: CALL, status, problem })?);
        let secs = answer.get("expireIn").and_then(Value::as_u64).unwrap_or(TOKEN_DEFAULT_SECS);
        let lasts = Duration::from_secs(secs).saturating_sub(TOKEN_MARGIN);
        *kept = Some((token.clone(), after(MonoNanos::now(), lasts)));
        Ok(token)
    }
}

/// The older calls answer 200 with a code where they fail, too.
pub(super) fn accepted(call: &'static str, status: u16, answer: &Value) -> Result<(), DingTalkError> {
    let errcode = answer.get("errcode");
    match errcode.and_then(|code| code.as_i64().or_else(|| code.as_str()?.parse().ok())) {
        Some(0) => Ok(()),
        Some(code) => {
            let words = words_of(answer, "errmsg");
            Err(DingTalkError::Refused { call, status, code: code.to_string(), words, retry_after: None })
        }
        None => Err(DingTalkError::Malformed { call, status, problem: "it has no errcode" }),
    }
}

/// Makes a call, and reads the JSON object of its answer.
pub(super) async fn call(name: &'static str, request: RequestBuilder) -> Result<(u16, Value), DingTalkError> {
    let exchange = async {
        let network = |source: reqwest::Error| DingTalkError::Network { call: name, source: source.without_url() };
        let response = request.send().await.map_err(network)?;
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
        Ok((status, wait.map(Duration::from_secs), read(name, response).await?))
    };
    let (status, retry_after, body) =
        tokio::time::timeout(CALL_DEADLINE, exchange).await.map_err(|_| DingTalkError::Timeout { call: name })??;
    let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status == 200 {
        let problem = "it is not a JSON object";
        return if answer.is_object() {
            Ok((status, answer))
        } else {
            Err(DingTalkError::Malformed { call: name, status, problem })
        };
    }
    let code = answer.get("code").and_then(Value::as_str).map_or_else(|| status.to_string(), clip);
    let words = words_of(&answer, "message");
    Err(DingTalkError::Refused { call: name, status, code, words, retry_after })
}

async fn read(name: &'static str, response: Response) -> Result<Vec<u8>, DingTalkError> {
    http::read(response, ANSWER_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::Network(source) => DingTalkError::Network { call: name, source },
        Unread::TooLarge => DingTalkError::TooLarge { call: name },
    })
}

fn words_of(answer: &Value, name: &str) -> String {
    answer.get(name).and_then(Value::as_str).map_or_else(|| "no words".to_owned(), short_words)
}

/// The words of a text that are too short to be a secret. Chinese has no blanks, and is in no secret.
fn short_words(text: &str) -> String {
    let (mut short, mut word) = (String::new(), String::new());
    for c in text.chars().chain([' ']) {
        if c.is_ascii_graphic() {
            word.push(c);
            continue;
        }
        short.push_str(if word.len() > WORD_CHARS_MAX { "…" } else { &word });
        short.push(c);
        word.clear();
    }
    clip(short.trim())
}

fn clip(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PlatformAccess;

    fn api(hosts: &[&str]) -> Api {
        Api::new(&DingTalkConfig {
            client_id: "app".into(),
            client_secret: Secret::new("hidden"),
            api_url: "https://api.dingtalk.com".into(),
            oapi_url: "https://oapi.dingtalk.com".into(),
            webhook_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            card_template_id: None,
            access: PlatformAccess::default(),
        })
    }

    #[test]
    fn a_webhook_is_called_on_known_hosts_only_and_in_private() {
        let table = [
            ("https://oapi.dingtalk.com/robot/sendBySession?session=s", true),
            ("https://api.dingtalk.com/robot/sendBySession?session=s", true),
            ("http://oapi.dingtalk.com/robot/sendBySession?session=s", false),
            ("https://oapi.dingtalk.com.example.org/", false),
            ("https://user@example.org/?oapi.dingtalk.com", false),
            ("https://169.254.169.254/latest", false),
            ("http://127.0.0.1:9/robot/sendBySession", true),
            ("http://localhost:9/", false),
            ("file:///etc/passwd", false),
            ("no address", false),
        ];
        for (webhook, wanted) in table {
            assert_eq!(api(&["127.0.0.1"]).known(webhook).is_some(), wanted, "{webhook}");
        }
        // Names of hosts are the same in any case, whoever wrote them.
        for webhook in ["https://dingtalk.example.org/robot", "https://DingTalk.Example.ORG/robot"] {
            assert!(api(&["DingTalk.example.org"]).known(webhook).is_some(), "{webhook}");
        }
        assert!(api(&[]).known("http://127.0.0.1:9/").is_none());
    }

    #[test]
    fn what_is_kept_of_an_answer_is_short_and_plain() {
        let answer = json!({ "message": format!("a\n{}", "x ".repeat(1000)) });
        let words = words_of(&answer, "message");
        assert!(words.starts_with("a x") && words.chars().count() == WORDS_CHARS_MAX);
        let token = json!({ "message": "会话bc2f0a6e91d84f7c不存在 or over" });
        assert_eq!(words_of(&token, "message"), "会话…不存在 or over");
        assert_eq!(words_of(&json!({ "message": 7 }), "message"), "no words");
    }
}
