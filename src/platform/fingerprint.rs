//! Secrets that somebody who comes in has to know.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The hash of a secret: how long comparing it takes says nothing of the secret.
#[derive(Clone, Copy)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether this is the secret.
    pub(super) fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(given).0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_matches() {
        let secret = Fingerprint::of(b"secret");
        assert!(secret.matches(b"secret"));
        assert!(!secret.matches(b"secreu") && !secret.matches(b"") && !secret.matches(b"secret "));
    }
}
