//! The cryptography of TLS: ring, chosen once for every HTTP client of the process.
//!
//! reqwest is built without a provider of its own (`rustls-no-provider`), so one must be there before a client is
//! made.

/// Makes ring the provider of the process. Calling it again changes nothing.
pub fn choose_provider() {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
}
