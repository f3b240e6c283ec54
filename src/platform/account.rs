//! Whether a platform knows the account of the configuration, found out without taking or sending a message.

use super::{dingtalk, telegram};
use crate::config::Config;
use crate::report::Chain;

/// What a platform says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// It is this one.
    Known(String),
    /// It refuses the token, or whatever it is that proves who asks.
    Refused(String),
    /// It could not be asked.
    Unknown(String),
    /// It has no question that does no more than ask.
    NotAsked,
}

/// Asks the platform `name` for the account that `config` has on it.
pub async fn account(config: &Config, name: &str) -> Account {
    match name {
        telegram::PLATFORM => match &config.telegram {
            Some(config) => telegram(config.clone()).await,
            None => Account::NotAsked,
        },
        dingtalk::PLATFORM => match &config.dingtalk {
            Some(config) => dingtalk::account(config).await,
            None => Account::NotAsked,
        },
        // Weixin's calls take messages or announce somebody.
        _ => Account::NotAsked,
    }
}

async fn telegram(config: crate::config::TelegramConfig) -> Account {
    use telegram::api::{Api, Disposition};
    let api = match tokio::task::spawn_blocking(move || Api::new(&config)).await {
        Ok(Ok(api)) => api,
        Ok(Err(error)) => return Account::Unknown(Chain(&error).to_string()),
        Err(error) => return Account::Unknown(error.to_string()),
    };
    match api.get_me().await {
        Ok(me) => Account::Known(me.username.map_or_else(|| format!("id {}", me.id), |name| format!("@{name}"))),
        Err(error) if error.disposition() == Disposition::Fatal => Account::Refused(Chain(&error).to_string()),
        Err(error) => Account::Unknown(Chain(&error).to_string()),
    }
}
