//! Harnesses and test servers.

pub mod address;
pub mod browser;
pub mod dingtalk;
pub mod fake_gateway;
pub mod faults;
pub mod gateway;
pub mod openai;
pub mod release;
pub mod schema;
pub mod shared;
pub mod systemd;
pub mod telegram;
pub mod unit;
pub mod weixin;
