//! Weixin (personal WeChat) over Tencent's iLink bot API.
//!
//! `api` speaks HTTP, `error` says what a failure means, `message` reads what people write, `media` has their files, and
//! `login` the requests of a login by QR code.
//!
//! **Invariant:** no token, ticket, context or key is in any event, error or log.

pub mod api;
pub mod error;
pub mod login;
pub mod media;
pub mod message;

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "weixin";
/// The address of the API for everyone.
pub const BASE_URL: &str = "https://ilinkai.weixin.qq.com";
/// The address of the CDN.
pub const CDN_URL: &str = "https://novac2c.cdn.weixin.qq.com/c2c";
