//! A small client of Tencent's iLink bot API, as its published client (npm `@tencent-weixin/openclaw-weixin` 2.4.9)
//! speaks it.
//!
//! **Invariants**
//! - Every call has a deadline, no redirect is followed, and no answer over 8 MiB is read.
//! - No error, log line or `Debug` output carries a URL, a token, a ticket or what was said.
//! - An answer with fields unknown here is read all the same; ids are read as u64.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::WeixinError;
use crate::config::Secret;
use crate::platform::http::{self, Unread};
use crate::sys::random;
use crate::version;

/// The version of the protocol's client that requests speak like.
const CHANNEL_VERSION: &str = "2.4.9";
/// [`CHANNEL_VERSION`] as `(major << 16) | (minor << 8) | patch`.
const CLIENT_VERSION: &str = "132105";
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long a poll may be held, unless the service says otherwise.
pub const POLL_DEADLINE: Duration = Duration::from_secs(35);
/// The longest that the service may ask for.
const POLL_DEADLINE_MAX: Duration = Duration::from_secs(120);
const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Of what only shows something.
const LIGHT_DEADLINE: Duration = Duration::from_secs(10);

/// What a poll brought.
#[derive(Debug, Default)]
pub struct Updates {
    /// The messages as they came, so that one that cannot be read hides no other.
    pub messages: Vec<Box<RawValue>>,
    /// The new cursor; none if the old one still holds.
    pub cursor: Option<String>,
    /// How long the next poll may be held, if the service says so.
    pub hold: Option<Duration>,
}

/// Where a file may be uploaded to: `getuploadurl`'s answer.
#[derive(Deserialize)]
pub struct UploadTarget {
    /// The whole address, preferred.
    #[serde(default)]
    pub upload_full_url: Option<String>,
    /// What stands in the address below `cdn_url`.
    #[serde(default)]
    pub upload_param: Option<String>,
}

/// The parts of every answer that say how it went. They are read one by one, whatever kind each is.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default, borrow)]
    ret: Option<&'a RawValue>,
    #[serde(default, borrow)]
    errcode: Option<&'a RawValue>,
    #[serde(default, borrow)]
    errmsg: Option<&'a RawValue>,
}

/// The answer to `getupdates`, its fields as they came.
#[derive(Deserialize)]
struct UpdatesAnswer {
    #[serde(default)]
    msgs: Option<Box<RawValue>>,
    #[serde(default)]
    get_updates_buf: Value,
    #[serde(default)]
    longpolling_timeout_ms: Value,
}

/// One account at one server. Clones share the connections.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    cdn: Url,
    token: Option<Secret>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Builds the HTTP client; without a token only the login works. It loads the root certificates of the system,
    /// which takes milliseconds: not for the thread of the runtime.
    ///
    /// # Errors
    /// [`WeixinError::Client`] and [`WeixinError::Address`].
    pub fn new(base_url: &str, cdn_url: &str, token: Option<Secret>) -> Result<Self, WeixinError> {
        // A poll that ends without an answer closes its connection, so that a dead one is never used again.
        let http = http::client().http1_only().build().map_err(|source| WeixinError::Client { source })?;
        let base = address("base_url", base_url)?;
        let cdn = address("cdn_url", cdn_url)?;
        Ok(Self { inner: Arc::new(Inner { http, base, cdn, token }) })
    }

    /// The same with its methods at another host, as a login may ask for.
    ///
    /// # Errors
    /// [`WeixinError::Address`].
    pub fn at(&self, base_url: &str) -> Result<Self, WeixinError> {
        let base = address("base_url", base_url)?;
        let (http, cdn, token) = (self.inner.http.clone(), self.inner.cdn.clone(), self.inner.token.clone());
        Ok(Self { inner: Arc::new(Inner { http, base, cdn, token }) })
    }

    /// `notifystart`: the account's client begins to listen. The service can do without.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn notify_start(&self) -> Result<(), WeixinError> {
        self.post("notifystart", "msg/notifystart", json!({}), LIGHT_DEADLINE).await.map(drop)
    }

    /// `notifystop`: it listens no more.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn notify_stop(&self) -> Result<(), WeixinError> {
        self.post("notifystop", "msg/notifystop", json!({}), LIGHT_DEADLINE).await.map(drop)
    }

    /// `getupdates`: what came after `cursor` (empty: from the beginning). If nothing has come within `hold`, that is
    /// a poll that brought nothing. An answer that has begun must be whole within `hold` and 15 s.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn get_updates(&self, cursor: &str, hold: Duration) -> Result<Updates, WeixinError> {
        let method = "getupdates";
        let request = self.request(method, json!({ "get_updates_buf": cursor }))?;
        let response = match tokio::time::timeout(hold, request.send()).await {
            Ok(sent) => sent.map_err(|source| WeixinError::network(method, source))?,
            Err(_) => return Ok(Updates::default()),
        };
        let body = within(method, CALL_DEADLINE, checked(method, response)).await?;
        judge(method, &body)?;
        let answer: UpdatesAnswer = read(method, &body)?;
        // A list that is none is an empty one: what is behind the cursor comes again if it was not.
        let messages = answer.msgs.as_deref().map_or("null", RawValue::get);
        let messages =
            serde_json::from_str::<Option<Vec<Box<RawValue>>>>(messages).map_err(|e| malformed(method, &e))?;
        let hold = answer.longpolling_timeout_ms.as_u64().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Updates {
            messages: messages.unwrap_or_default(),
            cursor: answer.get_updates_buf.as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned),
            hold: hold.map(|hold| hold.clamp(Duration::from_secs(1), POLL_DEADLINE_MAX)),
        })
    }

    /// `sendmessage` of one item. `client_id` names the message; a repeat has the same. Returns its id, if the service
    /// gives one.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn send_message(
        &self,
        to: &str,
        client_id: &str,
        item: Value,
        context: Option<&str>,
    ) -> Result<Option<u64>, WeixinError> {
        let mut msg = json!({
            "from_user_id": "",
            "to_user_id": to,
            "client_id": client_id,
            "message_type": 2,
            "message_state": 2,
            "item_list": [item],
        });
        if let Some(context) = context {
            msg["context_token"] = context.into();
        }
        let body = self.post("sendmessage", "sendmessage", json!({ "msg": msg }), CALL_DEADLINE).await?;
        Ok(read::<Value>("sendmessage", &body)?["message_id"].as_u64())
    }

    /// `getconfig`: the ticket that [`Api::send_typing`] needs for this person; none if the service gives none.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn typing_ticket(&self, user: &str, context: Option<&str>) -> Result<Option<Secret>, WeixinError> {
        let mut params = json!({ "ilink_user_id": user });
        if let Some(context) = context {
            params["context_token"] = context.into();
        }
        let body = self.post("getconfig", "getconfig", params, LIGHT_DEADLINE).await?;
        let answer: Value = read("getconfig", &body)?;
        Ok(answer["typing_ticket"].as_str().filter(|ticket| !ticket.is_empty()).map(Secret::new))
    }

    /// `sendtyping`: whether the bot is seen typing.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn send_typing(&self, user: &str, ticket: &Secret, is_typing: bool) -> Result<(), WeixinError> {
        let status = if is_typing { 1 } else { 2 };
        let params = json!({ "ilink_user_id": user, "typing_ticket": ticket.expose(), "status": status });
        self.post("sendtyping", "sendtyping", params, LIGHT_DEADLINE).await.map(drop)
    }

    /// `getuploadurl`, with the parameters of the file.
    ///
    /// # Errors
    /// Any [`WeixinError`].
    pub async fn upload_target(&self, params: Value) -> Result<UploadTarget, WeixinError> {
        let body = self.post("getuploadurl", "getuploadurl", params, CALL_DEADLINE).await?;
        read("getuploadurl", &body)
    }

    /// The CDN's address.
    pub(super) fn cdn(&self) -> &Url {
        &self.inner.cdn
    }

    /// The API's address.
    pub(super) fn base(&self) -> &Url {
        &self.inner.base
    }

    /// A client without the headers of this API.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.inner.http
    }

    /// A method's address.
    pub(super) fn endpoint(&self, path: &str) -> Result<Url, WeixinError> {
        below(&self.inner.base, &format!("ilink/bot/{path}")).ok_or(WeixinError::Address { what: "base_url" })
    }

    async fn post(
        &self,
        method: &'static str,
        path: &str,
        params: Value,
        deadline: Duration,
    ) -> Result<Vec<u8>, WeixinError> {
        let request = self.request(path, params)?;
        let exchange = async {
            let response = request.send().await.map_err(|source| WeixinError::network(method, source))?;
            checked(method, response).await
        };
        let body = within(method, deadline, exchange).await?;
        judge(method, &body)?;
        Ok(body)
    }

    /// A POST with everything that the protocol wants of one.
    fn request(&self, path: &str, mut params: Value) -> Result<RequestBuilder, WeixinError> {
        let bot_agent = format!("Hermes/{}", version::version());
        params["base_info"] = json!({ "channel_version": CHANNEL_VERSION, "bot_agent": bot_agent });
        let request = self.headed(self.inner.http.post(self.endpoint(path)?)).json(&params);
        Ok(match &self.inner.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// The headers of every POST.
    pub(super) fn headed(&self, request: RequestBuilder) -> RequestBuilder {
        plain(request).header("AuthorizationType", "ilink_bot_token").header("X-WECHAT-UIN", uin())
    }
}

/// The headers of every request, which are all that a GET has.
pub(super) fn plain(request: RequestBuilder) -> RequestBuilder {
    request.header("iLink-App-Id", "bot").header("iLink-App-ClientVersion", CLIENT_VERSION)
}

/// A random number in decimal, in base64: no request has that of another.
fn uin() -> String {
    STANDARD.encode(u32::from_le_bytes(random::some()).to_string())
}

/// A configured URL. The part after it is appended, whether it ends in a slash or not.
fn address(what: &'static str, text: &str) -> Result<Url, WeixinError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or(WeixinError::Address { what })
}

/// An address below another.
pub(super) fn below(base: &Url, path: &str) -> Option<Url> {
    Url::parse(&format!("{}/{path}", base.as_str().trim_end_matches('/'))).ok()
}

/// Gives up after `deadline`.
pub(super) async fn within<T>(
    method: &'static str,
    deadline: Duration,
    what: impl Future<Output = Result<T, WeixinError>>,
) -> Result<T, WeixinError> {
    tokio::time::timeout(deadline, what).await.map_err(|_| WeixinError::Timeout { method, after: deadline })?
}

/// The body of an answer with status 200.
pub(super) async fn checked(method: &'static str, response: Response) -> Result<Vec<u8>, WeixinError> {
    let status = response.status().as_u16();
    if status != 200 {
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        return Err(WeixinError::Status { method, status, retry_after: seconds.map(Duration::from_secs) });
    }
    body(method, response, ANSWER_BYTES_MAX).await
}

/// The body of an answer, if it is no longer than `bytes_max`.
pub(super) async fn body(method: &'static str, response: Response, bytes_max: usize) -> Result<Vec<u8>, WeixinError> {
    http::read(response, bytes_max).await.map_err(|unread| match unread {
        Unread::Network(source) => WeixinError::network(method, source),
        Unread::TooLarge => WeixinError::TooLarge { method, bytes_max },
    })
}

/// Reads an answer. The error's own text is not kept: it quotes what it found.
pub(super) fn read<'a, T: Deserialize<'a>>(method: &'static str, body: &'a [u8]) -> Result<T, WeixinError> {
    serde_json::from_slice(body).map_err(|error| malformed(method, &error))
}

fn malformed(method: &'static str, error: &serde_json::Error) -> WeixinError {
    let problem = format!("{:?} at line {} column {}", error.classify(), error.line(), error.column());
    WeixinError::Malformed { method, problem }
}

/// Whether an answer says that it went well: neither `ret` nor `errcode` is there with anything but 0.
pub(super) fn judge(method: &'static str, body: &[u8]) -> Result<(), WeixinError> {
    // A list would be read as the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(WeixinError::Malformed { method, problem: "it is no object".to_owned() });
    }
    let head: Head<'_> = read(method, body)?;
    let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    for raw in [head.ret, head.errcode].into_iter().flatten() {
        let code = match serde_json::from_str::<Value>(raw.get()) {
            Ok(Value::Null) => Some(0),
            Ok(Value::Number(number)) => number.as_i64(),
            Ok(Value::String(digits)) => digits.parse().ok(),
            _ => None,
        };
        match code {
            Some(0) => {}
            Some(code) => return Err(WeixinError::refused(method, code, &text(head.errmsg).unwrap_or_default())),
            None => {
                let problem = "its code is no number".to_owned();
                return Err(WeixinError::Malformed { method, problem });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoded_version_is_that_of_the_channel() {
        let numbers: Vec<u32> = CHANNEL_VERSION.split('.').map(|part| part.parse().expect("a number")).collect();
        assert_eq!(((numbers[0] << 16) | (numbers[1] << 8) | numbers[2]).to_string(), CLIENT_VERSION);
    }

    #[test]
    fn a_code_in_either_place_is_a_refusal() {
        let code = |body: &str| match judge("x", body.as_bytes()) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.code(),
        };
        for body in ["{}", r#"{"ret":0}"#, r#"{"ret":null,"errcode":0}"#, r#"{"ret":"0","new":[]}"#] {
            assert_eq!(code(body), "fine", "{body}");
        }
        assert_eq!(code(r#"{"ret":-14}"#), "-14");
        assert_eq!(code(r#"{"ret":0,"errcode":-2,"errmsg":7}"#), "-2");
        for body in ["", "[]", "null", r#"{"ret":[]}"#, r#"{"ret":1.5}"#, "<html>"] {
            assert_eq!(code(body), "malformed", "{body}");
        }
    }

    #[test]
    fn an_address_keeps_its_path_and_takes_no_other_scheme() {
        let api =
            Api::new("http://127.0.0.1:1/a/", "http://127.0.0.1:1/c2c", Some(Secret::new("t"))).expect("a client");
        assert_eq!(api.endpoint("getupdates").expect("a URL").as_str(), "http://127.0.0.1:1/a/ilink/bot/getupdates");
        for text in ["", "file:///x", "data:x", "127.0.0.1"] {
            assert!(matches!(api.at(text), Err(WeixinError::Address { .. })), "{text}");
        }
        assert!(!format!("{api:?}").contains("127"));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(body in any::<Vec<u8>>(), ret in "[0-9a-z\"\\[\\]{}.-]{0,6}") {
            drop(judge("x", &body));
            drop(judge("x", format!("{{\"ret\":{ret}}}").as_bytes()));
        }
    }
}
