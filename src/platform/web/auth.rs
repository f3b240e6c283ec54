//! Who asks: tokens, sessions, and the tokens of forms.
//!
//! **Invariants**
//! - A session is `<user>.<since>.<mac>`, with a key that is made of the user's token: it needs no place in memory or store,
//!   so it outlives images and processes, and ends when the token changes.
//! - Tokens and MACs are compared in constant time. None is in an error or a log.
//! - Who tries tokens is refused after [`FAILURES_MAX`] in a minute, whatever comes then.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::shown::Audience;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{Secret, WebConfig};
use crate::hex;
use crate::platform::fingerprint::Fingerprint;

/// How long a login is good for.
pub(super) const SESSION_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Wrong tokens from one address in a [`WINDOW`].
const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose failures are counted each for itself.
const ADDRESSES_MAX: usize = 256;

/// Somebody whose token, or session, was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) user: &'static str,
    pub(super) is_admin: bool,
    /// What a form, or a request of a script, has to have; none if who asks has shown the token itself, which no other site
    /// can make a browser do.
    pub(super) csrf: Option<String>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is wrong.
    Wrong,
    /// Too many were wrong: none is looked at for so long.
    TooMany(Duration),
}

struct User {
    name: &'static str,
    is_admin: bool,
    token: Fingerprint,
    /// Of the token, for MACs.
    key: Hmac<Sha256>,
}

/// Those who may come in.
pub(super) struct Auth {
    users: Vec<User>,
    failures: Mutex<BTreeMap<Option<IpAddr>, Failures>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    since: MonoNanos,
}

impl Auth {
    pub(super) fn new(owner: &Secret, guest: Option<&Secret>) -> Self {
        let user = |name, is_admin, token: &Secret| User {
            name,
            is_admin,
            token: Fingerprint::of(token.expose().as_bytes()),
            key: Hmac::new_from_slice(token.expose().as_bytes()).expect("a key of any length"),
        };
        let owner = user(WebConfig::OWNER, true, owner);
        let guest = guest.map(|guest| user(WebConfig::GUEST, false, guest));
        Self { users: std::iter::once(owner).chain(guest).collect(), failures: Mutex::default() }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn by_token(&self, token: &str, from: IpAddr, now: MonoNanos) -> Result<Known, Refused> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, failed| now.since(failed.since) < WINDOW);
        let from = (failures.len() < ADDRESSES_MAX || failures.contains_key(&Some(from))).then_some(from);
        let failed = failures.get(&from).copied().unwrap_or(Failures { count: 0, since: now });
        if failed.count >= FAILURES_MAX {
            return Err(Refused::TooMany(WINDOW.saturating_sub(now.since(failed.since))));
        }
        // All are compared, so that the time says nothing of whose it is.
        let found = self.users.iter().fold(
            None,
            |found, user| {
                if user.token.matches(token.as_bytes()) { Some(user) } else { found }
            },
        );
        match found {
            Some(user) => Ok(Known { user: user.name, is_admin: user.is_admin, csrf: None }),
            None => {
                failures.insert(from, Failures { count: failed.count + 1, ..failed });
                Err(Refused::Wrong)
            }
        }
    }

    /// A session for somebody who has shown the token.
    pub(super) fn session(&self, known: &Known, now: UnixMillis) -> Option<String> {
        let user = self.users.iter().find(|user| user.name == known.user)?;
        let body = format!("{}.{}", user.name, now.0);
        Some(format!("{body}.{}", user.mac("session", &body)))
    }

    /// Whose session it is.
    pub(super) fn by_session(&self, session: &str, now: UnixMillis) -> Option<Known> {
        let (body, mac) = session.rsplit_once('.')?;
        let (name, since) = body.split_once('.')?;
        let user = self.users.iter().find(|user| user.name == name)?;
        let since = UnixMillis(since.parse().ok()?);
        let is_good = user.is_mac("session", body, mac) && now.since(since) < SESSION_AGE;
        is_good.then(|| Known { user: user.name, is_admin: user.is_admin, csrf: Some(user.mac("csrf", session)) })
    }
}

impl Known {
    /// How much they may know.
    pub(super) fn audience(&self) -> Audience {
        if self.is_admin { Audience::Admins } else { Audience::Guests }
    }

    /// Whether `given` is what a form of this session has.
    pub(super) fn has_form_token(&self, given: Option<&str>) -> bool {
        match (&self.csrf, given) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(csrf), Some(given)) => Fingerprint::of(csrf.as_bytes()).matches(given.as_bytes()),
        }
    }
}

impl User {
    fn mac_of(&self, what: &str, text: &str) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(format!("hermes web {what}\n{text}").as_bytes());
        mac
    }

    fn mac(&self, what: &str, text: &str) -> String {
        hex::encode(&self.mac_of(what, text).finalize().into_bytes())
    }

    fn is_mac(&self, what: &str, text: &str, given: &str) -> bool {
        Fingerprint::of(self.mac(what, text).as_bytes()).matches(given.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn auth(owner: &str) -> Auth {
        Auth::new(&Secret::new(owner), Some(&Secret::new("the token of a guest")))
    }

    fn at(secs: u64) -> MonoNanos {
        MonoNanos(1_000_000_000 * (1000 + secs))
    }

    #[test]
    fn a_session_is_its_users_for_as_long_as_the_token_stays() {
        let auth = auth("the token of the owner");
        let known = auth.by_token("the token of a guest", HERE, at(0)).expect("good");
        assert_eq!((known.user, known.is_admin), ("guest", false));
        let session = auth.session(&known, UnixMillis(5)).expect("a user");
        let seen = auth.by_session(&session, UnixMillis(6)).expect("good");
        assert_eq!((seen.user, seen.is_admin), ("guest", false));
        assert!(seen.has_form_token(seen.csrf.as_deref()) && !seen.has_form_token(None));
        assert!(!seen.has_form_token(Some(&session)), "a session is no token of a form");
        let age = i64::try_from(SESSION_AGE.as_millis()).expect("fits");
        assert_eq!(auth.by_session(&session, UnixMillis(5 + age)), None, "too old");
        assert_eq!(auth.by_session(&session.replace("guest", "owner"), UnixMillis(6)), None);
        assert_eq!(auth.by_session(&session.replace(".5.", ".50."), UnixMillis(60)), None);
        for no in ["", ".", "guest.5.", "guest..", "owner.x.y"] {
            assert_eq!(auth.by_session(no, UnixMillis(6)), None, "{no}");
        }
        let owner = auth.by_token("the token of the owner", HERE, at(0)).expect("good");
        let session = auth.session(&owner, UnixMillis(5)).expect("a user");
        assert!(!session.contains("token"));
        assert_eq!(self::auth("another token, since").by_session(&session, UnixMillis(6)), None);
    }

    #[test]
    fn who_tries_tokens_is_refused_for_a_while_and_others_are_not() {
        let auth = auth("the token of the owner");
        for _ in 0..FAILURES_MAX {
            assert_eq!(auth.by_token("no", HERE, at(0)), Err(Refused::Wrong));
        }
        let good = "the token of the owner";
        assert_eq!(auth.by_token(good, HERE, at(20)), Err(Refused::TooMany(Duration::from_secs(40))));
        assert!(auth.by_token(good, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), at(20)).is_ok());
        assert!(auth.by_token(good, HERE, at(60)).is_ok());
        for n in 0..2 * ADDRESSES_MAX {
            let from = IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(n).expect("small")));
            assert!(auth.by_token("no", from, at(90)).is_err());
        }
        assert!(auth.failures.lock().expect("not poisoned").len() <= ADDRESSES_MAX + 1);
    }
}
