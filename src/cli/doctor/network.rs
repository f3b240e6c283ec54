//! What is outside of this machine: whether platforms and releases can be reached, what they say of the time, of the
//! tokens, and of updates.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::{Check, Finding, Patient};
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::platform::{Account, account, web, weixin};
use crate::report::Chain;
use crate::service::package;
use crate::units::span;
use crate::update::known::Known;
use crate::update::{self, Source, UpdateError, Versions};

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// A clock that is off by more is worth a warning: expiry dates and signed requests depend on it.
const SKEW_WARN: Duration = Duration::from_secs(60);
/// By more than this, TLS and platforms refuse.
const SKEW_FAIL: Duration = Duration::from_secs(900);

const OFFLINE: &str = "not looked at (--offline)";
const UNUSABLE: &str = "not looked at: the configuration cannot be used";

/// Something that is reached over HTTP.
struct Place {
    /// Who it is of.
    who: &'static str,
    url: Url,
}

/// Every server that the configuration names; without the paths, which may hold secrets.
fn places(config: &Config) -> Vec<Place> {
    let mut named = Vec::new();
    if let Some(telegram) = &config.telegram {
        named.push(("telegram", telegram.api_url.as_str()));
    }
    if let Some(dingtalk) = &config.dingtalk {
        named.extend([("dingtalk", dingtalk.api_url.as_str()), ("dingtalk", dingtalk.oapi_url.as_str())]);
    }
    if let Some(weixin) = &config.weixin {
        named.extend([(weixin::PLATFORM, weixin.base_url.as_str()), (weixin::PLATFORM, weixin.cdn_url.as_str())]);
    }
    if let Some(manifest) = &config.update.manifest_url {
        named.push(("updates", manifest.as_str()));
    }
    let mut found: Vec<Place> = Vec::new();
    for (who, url) in named {
        let Some(mut url) = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
            continue;
        };
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        // A password in it is nobody's business; without a host neither can be set.
        let _kept = url.set_username("").and_then(|()| url.set_password(None));
        if !found.iter().any(|place| place.url == url) {
            found.push(Place { who, url });
        }
    }
    found
}

/// A client that follows nothing and waits for nobody for long.
async fn client() -> Result<Client, String> {
    let build = || {
        crate::tls::choose_provider();
        Client::builder().timeout(DEADLINE).redirect(Policy::none()).build()
    };
    let built = tokio::task::spawn_blocking(build).await.map_err(|error| error.to_string())?;
    built.map_err(|error| Chain(&error).to_string())
}

/// What a server said of the time, or why there was no answer. Any answer will do.
async fn knock(client: &Client, place: &Place) -> Result<Option<UnixMillis>, reqwest::Error> {
    let answer = client.head(place.url.clone()).send().await.map_err(reqwest::Error::without_url)?;
    let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
    Ok(date.and_then(http_date))
}

/// An IMF-fixdate (RFC 9110, 5.6.7) is a date of RFC 2822 as well.
fn http_date(text: &str) -> Option<UnixMillis> {
    jiff::fmt::rfc2822::parse(text).ok().map(|at| UnixMillis(at.timestamp().as_millisecond()))
}

pub(super) async fn network(patient: &Patient) -> Vec<Finding> {
    let check = Check::Network;
    let (places, client) = match reachable(patient, check).await {
        Ok(found) => found,
        Err(finding) => return vec![finding],
    };
    if places.is_empty() {
        return vec![Finding::note(check, "the configuration names no server")];
    }
    let asked = places.iter().map(async |place| {
        let origin = place.url.origin().ascii_serialization();
        match knock(&client, place).await {
            Ok(_) => Finding::ok(check, format!("{}: {origin} answers", place.who)),
            Err(error) => {
                let what = format!("{}: {origin} cannot be reached: {}", place.who, Chain(&error));
                Finding::fail(check, what, advice(&error))
            }
        }
    });
    join_all(asked).await
}

/// What to look at, by what broke.
fn advice(error: &reqwest::Error) -> &'static str {
    let told = Chain(error).to_string().to_lowercase();
    if told.contains("dns") || told.contains("resolve") || told.contains("lookup") {
        "see that this machine resolves names (/etc/resolv.conf)"
    } else if told.contains("certificate") || told.contains("tls") {
        "see that CA certificates are installed (ca-certificates), and that the clock is right"
    } else {
        "see that a firewall or proxy lets it through (HTTPS_PROXY is honoured)"
    }
}

async fn reachable(patient: &Patient, check: Check) -> Result<(Vec<Place>, Client), Finding> {
    if patient.offline {
        return Err(Finding::note(check, OFFLINE));
    }
    let Some(config) = patient.config() else { return Err(Finding::note(check, UNUSABLE)) };
    let fix = "see that CA certificates are installed (ca-certificates)";
    let client = client().await.map_err(|why| Finding::fail(check, format!("cannot use TLS: {why}"), fix))?;
    Ok((places(config), client))
}

/// Compares this machine's clock with those of the servers.
pub(super) async fn clock(patient: &Patient) -> Vec<Finding> {
    let check = Check::Clock;
    let (places, client) = match reachable(patient, check).await {
        Ok(found) => found,
        Err(finding) => return vec![finding],
    };
    let asked =
        places.iter().map(async |place| knock(&client, place).await.ok().flatten().map(|date| (place.who, date)));
    let dates: Vec<(&str, UnixMillis)> = join_all(asked).await.into_iter().flatten().collect();
    let now = UnixMillis::now();
    let skew = |date: UnixMillis| Duration::from_millis(date.0.abs_diff(now.0));
    // One server may be wrong, too: the clock is as good as the nearest says.
    let Some((who, date)) = dates.into_iter().min_by_key(|(_, date)| skew(*date)) else {
        return vec![Finding::note(check, "no server told the time")];
    };
    let (off, way) = (skew(date), if date < now { "ahead of" } else { "behind" });
    let what = format!("the clock is {} {way} that of {who}", span(off));
    let fix = "synchronise it, for example with systemd-timesyncd (timedatectl set-ntp true)";
    vec![if off > SKEW_FAIL {
        Finding::fail(check, what, fix)
    } else if off > SKEW_WARN {
        Finding::warn(check, what, fix)
    } else {
        Finding::ok(check, format!("the clock agrees with that of {who}"))
    }]
}

pub(super) async fn tokens(patient: &Patient) -> Vec<Finding> {
    let check = Check::Tokens;
    let Some(config) = patient.config() else { return vec![Finding::note(check, UNUSABLE)] };
    if config.platforms().next().is_none() {
        return vec![Finding::note(check, "no platform is configured")];
    }
    if patient.offline {
        return vec![Finding::note(check, OFFLINE)];
    }
    let asked = config.platforms().map(async |(name, _)| {
        if !config.is_known(name) {
            let why = "has a secret that cannot be looked at from here: only the gateway's unit has it";
            return by_link(patient, name, why);
        }
        match account(config, name).await {
            Account::Known(who) => Finding::ok(check, format!("{name} knows the account: {who}")),
            Account::Refused(why) => {
                let fix = format!("correct the credentials in [platforms.{name}], then hermes gateway reload");
                Finding::fail(check, format!("{name} refuses the account: {why}"), fix)
            }
            Account::Unknown(why) => {
                Finding::warn(check, format!("{name} could not be asked: {why}"), "the check of the network says more")
            }
            Account::NotAsked => by_link(patient, name, "cannot be asked without taking its messages"),
        }
    });
    join_all(asked).await
}

/// As far as the link of the gateway that runs tells; else why there is nobody to ask.
fn by_link(patient: &Patient, name: &str, why: &str) -> Finding {
    let check = Check::Tokens;
    let status = patient.status.as_ref().ok();
    let link = status.and_then(|status| status.platforms.iter().find(|platform| platform.name == name));
    match link.map(|platform| &platform.link) {
        Some(LinkState::Connected) => Finding::ok(check, format!("{name} is connected")),
        _ if name == web::PLATFORM => Finding::note(check, "web is this gateway's own: it has no account anywhere"),
        _ => Finding::note(check, format!("{name} {why}")),
    }
}

pub(super) async fn updates(patient: &Patient) -> Vec<Finding> {
    let check = Check::Updates;
    let program = std::env::current_exe().unwrap_or_default();
    if let Some(package) = package::owner(&patient.home.path, &program) {
        let what = format!("the package {} owns this gateway: {} updates it", package.name, package.update);
        return vec![Finding::note(check, what)];
    }
    let Some(config) = patient.config() else { return vec![Finding::note(check, UNUSABLE)] };
    let source = match Source::new(&config.update) {
        Ok(source) => source,
        Err(UpdateError::NoManifestUrl) => {
            return vec![Finding::note(check, "updates are not configured ([update] manifest_url)")];
        }
        Err(error) => {
            return vec![Finding::fail(check, Chain(&error).to_string(), "correct [update] in gateway.toml")];
        }
    };
    let is_local = config.update.manifest_url.as_deref().is_some_and(|url| url.starts_with("file:"));
    if patient.offline && !is_local {
        return vec![Finding::ok(check, "the keys are usable; the manifest was not looked at (--offline)")];
    }
    let running = semver::Version::parse(crate::version::version());
    let Ok(running) = running else { return vec![Finding::note(check, "this image has no version")] };
    let home = &patient.home.path;
    // Without a database nothing is known yet.
    let known = Known::peek(&patient.path("state.db")).unwrap_or_default();
    let releases = known.releases(source, Versions::new(home), running, config.update.channel);
    match releases.look().await.map(|look| look.check) {
        Ok(update::Check::Available { version, .. }) => {
            let what = format!("hermes {version} is available; its signature is verified when it is fetched");
            vec![Finding::note(check, what)]
        }
        Ok(_) => vec![Finding::ok(check, "the keys are usable, and the manifest has nothing newer")],
        Err(error) => vec![Finding::fail(check, Chain(&error).to_string(), "ask whoever publishes the releases")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_a_server_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UnixMillis(784_111_777_000)));
        assert_eq!(http_date("yesterday"), None);
    }
}
