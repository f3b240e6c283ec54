//! The requests of a login by QR code: a person scans it with their phone, and the account that the bot gets is theirs.
//!
//! **Invariant:** what the service says about where to go on is taken only from its own hosts; the credentials are in
//! no log and no `Debug` output.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use super::api::{Api, checked, judge, plain, read, within};
use super::error::WeixinError;
use crate::config::Secret;

/// How long one question for the status may be held.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(35);
const CODE_DEADLINE: Duration = Duration::from_secs(15);
/// The kind of bot that a login makes.
const BOT_TYPE: &str = "3";
/// The domain that a login may be continued in.
const DOMAIN: &str = ".weixin.qq.com";
/// The longest id or text of an answer that is used, in bytes.
const FIELD_BYTES_MAX: usize = 4096;

/// A QR code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QrCode {
    /// Its name in questions for the status.
    pub id: Secret,
    /// What it says: the address that a phone opens.
    pub content: String,
}

/// What a login gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The bot token.
    pub token: Secret,
    /// The bot's id.
    pub account: String,
    /// The API's address for this account, if it has one of its own.
    pub base_url: Option<String>,
    /// Who scanned the code.
    pub scanner: Option<String>,
}

/// How far a login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody has scanned the code.
    Waiting,
    /// Someone has, and has to confirm.
    Scanned,
    /// The digits that the phone shows are wanted; if some were given, they were wrong.
    CodeWanted,
    /// Too many wrong digits: a new code is needed.
    CodeBlocked,
    /// The code has expired.
    Expired,
    /// The questions are to be asked elsewhere: this host, as it was told.
    Elsewhere(String),
    /// The bot is bound to this person already; there are no new credentials.
    AlreadyBound,
    /// It is done.
    Done(Credentials),
    /// A status that is not known here.
    Unknown(String),
}

/// Asks for a new QR code. `known` are the tokens of this gateway, at most 10.
///
/// # Errors
/// Any [`WeixinError`].
pub async fn qr_code(api: &Api, known: &[Secret]) -> Result<QrCode, WeixinError> {
    let method = "get_bot_qrcode";
    let mut url = api.endpoint(method)?;
    url.query_pairs_mut().append_pair("bot_type", BOT_TYPE);
    let tokens: Vec<&str> = known.iter().take(10).map(Secret::expose).collect();
    let request = api.headed(api.http().post(url)).json(&json!({ "local_token_list": tokens }));
    let exchange = async {
        let response = request.send().await.map_err(|source| WeixinError::network(method, source))?;
        checked(method, response).await
    };
    let body = within(method, CODE_DEADLINE, exchange).await?;
    judge(method, &body)?;
    let answer: Value = read(method, &body)?;
    match (field(&answer, "qrcode"), field(&answer, "qrcode_img_content")) {
        (Some(id), content) => Ok(QrCode { content: content.unwrap_or_else(|| id.clone()), id: Secret::new(id) }),
        (None, _) => Err(WeixinError::Malformed { method, problem: "there is no code in it".to_owned() }),
    }
}

/// Asks how far the login is; held up to 35 s by the service. What does not get through counts as
/// [`Progress::Waiting`], because the next question may.
///
/// # Errors
/// [`WeixinError::Refused`] and what is wrong with the question itself (4xx).
pub async fn status(api: &Api, code: &QrCode, digits: Option<&str>) -> Result<Progress, WeixinError> {
    match ask(api, code, digits).await {
        Err(
            WeixinError::Network { .. }
            | WeixinError::Timeout { .. }
            | WeixinError::Malformed { .. }
            | WeixinError::TooLarge { .. }
            | WeixinError::Status { status: 300..=399 | 408 | 429 | 500.., .. },
        ) => Ok(Progress::Waiting),
        outcome => outcome,
    }
}

async fn ask(api: &Api, code: &QrCode, digits: Option<&str>) -> Result<Progress, WeixinError> {
    let method = "get_qrcode_status";
    let mut url = api.endpoint(method)?;
    url.query_pairs_mut().append_pair("qrcode", code.id.expose());
    if let Some(digits) = digits {
        url.query_pairs_mut().append_pair("verify_code", digits);
    }
    let exchange = async {
        let response = plain(api.http().get(url)).send().await;
        checked(method, response.map_err(|source| WeixinError::network(method, source))?).await
    };
    let body = within(method, STATUS_DEADLINE, exchange).await?;
    judge(method, &body)?;
    progress(&read(method, &body)?)
}

fn progress(answer: &Value) -> Result<Progress, WeixinError> {
    let incomplete =
        |problem: &str| WeixinError::Refused { method: "get_qrcode_status", code: 0, said: format!(": {problem}") };
    Ok(match answer["status"].as_str().unwrap_or("wait") {
        "wait" => Progress::Waiting,
        "scaned" => Progress::Scanned,
        "need_verifycode" => Progress::CodeWanted,
        "verify_code_blocked" => Progress::CodeBlocked,
        "expired" => Progress::Expired,
        "binded_redirect" => Progress::AlreadyBound,
        "scaned_but_redirect" => match field(answer, "redirect_host") {
            Some(host) => Progress::Elsewhere(host),
            None => Progress::Scanned,
        },
        "confirmed" => Progress::Done(Credentials {
            token: Secret::new(field(answer, "bot_token").ok_or_else(|| incomplete("confirmed without a token"))?),
            account: field(answer, "ilink_bot_id").ok_or_else(|| incomplete("confirmed without an account"))?,
            base_url: field(answer, "baseurl"),
            scanner: field(answer, "ilink_user_id"),
        }),
        other => Progress::Unknown(other.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()),
    })
}

fn field(answer: &Value, name: &str) -> Option<String> {
    let text = answer[name].as_str()?.trim();
    let is_usable = !text.is_empty() && text.len() <= FIELD_BYTES_MAX && !text.chars().any(char::is_control);
    is_usable.then(|| text.to_owned())
}

/// The address of the host that a login is to go on at: over https within the service's domain, or the host that it
/// began at.
pub fn elsewhere(began_at: &str, host: &str) -> Option<String> {
    let began = Url::parse(began_at).ok()?;
    let secure = Url::parse(&format!("https://{host}")).ok().filter(|url| is_bare(url, host))?;
    if secure.host_str().is_some_and(|name| name.ends_with(DOMAIN)) && secure.port().is_none() {
        return Some(format!("https://{host}"));
    }
    let same = Url::parse(&format!("{}://{host}", began.scheme())).ok().filter(|url| is_bare(url, host))?;
    let is_same = same.host_str() == began.host_str() && same.port_or_known_default() == began.port_or_known_default();
    is_same.then(|| began_at.trim_end_matches('/').to_owned())
}

/// Whether an address that was made of a host has nothing but that host in it.
fn is_bare(url: &Url, host: &str) -> bool {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    url.host_str().is_some_and(|name| format!("{name}{port}").eq_ignore_ascii_case(host))
}

/// Whether credentials may name this address of the API: over https within the service's domain, or the address that the
/// login began at.
pub fn is_acceptable_base(began_at: &str, base_url: &str) -> bool {
    let Some(url) = Url::parse(base_url).ok() else { return false };
    let is_theirs = url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && url.host_str().is_some_and(|name| name.ends_with(DOMAIN));
    is_theirs || began_at.trim_end_matches('/') == base_url.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THEIRS: &str = "https://ilinkai.weixin.qq.com";

    #[test]
    fn a_login_goes_on_within_the_domain_or_where_it_began() {
        assert_eq!(elsewhere(THEIRS, "sh.ilink.weixin.qq.com").as_deref(), Some("https://sh.ilink.weixin.qq.com"));
        assert_eq!(elsewhere("http://127.0.0.1:7", "127.0.0.1:7").as_deref(), Some("http://127.0.0.1:7"));
        let foreign = [
            "example.org",
            "weixin.qq.com.example.org",
            "example.org/.weixin.qq.com",
            "user@x.weixin.qq.com",
            "x.weixin.qq.com:8443",
            "127.0.0.1:7",
            "x.weixin.qq.com/path",
            "x.weixin.qq.com?x",
            "",
            " ",
        ];
        for host in foreign {
            assert_eq!(elsewhere(THEIRS, host), None, "{host}");
        }
        assert_eq!(elsewhere("http://127.0.0.1:7", "127.0.0.1:8"), None);
    }

    #[test]
    fn credentials_name_no_foreign_address() {
        assert!(is_acceptable_base(THEIRS, "https://sh.ilink.weixin.qq.com/"));
        assert!(is_acceptable_base("http://127.0.0.1:7", "http://127.0.0.1:7/"));
        for base in ["http://x.weixin.qq.com", "https://example.org", "https://x.weixin.qq.com.example.org", "x"] {
            assert!(!is_acceptable_base(THEIRS, base), "{base}");
        }
    }

    #[test]
    fn a_confirmation_without_credentials_is_refused() {
        let whole = json!({ "status": "confirmed", "bot_token": "t", "ilink_bot_id": "b", "ilink_user_id": "u" });
        assert!(matches!(progress(&whole), Ok(Progress::Done(_))));
        for missing in ["bot_token", "ilink_bot_id"] {
            let mut part = whole.clone();
            part[missing] = json!(7);
            assert!(progress(&part).is_err(), "{missing}");
        }
        assert!(
            !format!("{:?}", progress(&json!({ "status": "confirmed", "bot_token": "hush", "ilink_bot_id": "b" })))
                .contains("hush")
        );
    }

    proptest! {
        #[test]
        fn any_host_is_judged(host in any::<String>()) {
            if let Some(url) = elsewhere(THEIRS, &host) {
                prop_assert!(Url::parse(&url).expect("a URL").host_str().expect("a host").ends_with(DOMAIN));
            }
        }

        #[test]
        fn any_status_is_read(status in any::<String>(), host in any::<String>()) {
            drop(progress(&json!({ "status": status, "redirect_host": host })));
        }
    }
}
