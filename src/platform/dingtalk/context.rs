//! How a chat is answered: what its last message said about that.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// Kept in the store with the message ([`crate::chat::Inbound::context`]). It holds the address of a session webhook,
/// which lets anybody write to the chat: not for logs.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    /// Where the chat is answered for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<String>,
    /// For how long.
    #[serde(default)]
    pub(super) webhook_until: UnixMillis,
    /// Whether it is a group.
    #[serde(default)]
    pub(super) is_group: bool,
    /// Who wrote, if that is a member of the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) staff_id: Option<String>,
    /// The bot that was written to.
    #[serde(default)]
    pub(super) robot_code: String,
}

impl Context {
    /// Reads what the store has; empty if that makes no sense.
    pub(super) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// As the store keeps it.
    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).expect("plain data serialises")
    }

    /// The webhook, if it is good for a moment longer.
    pub(super) fn webhook(&self, now: UnixMillis) -> Option<&str> {
        // A minute for clocks that differ.
        let is_good = self.webhook_until.0 > now.0.saturating_add(60_000);
        self.webhook.as_deref().filter(|_| is_good)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_webhook = self.webhook.is_some();
        f.debug_struct("Context")
            .field("has_webhook", &has_webhook)
            .field("is_group", &self.is_group)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_webhook_is_used_while_it_is_good_and_shown_to_nobody() {
        let webhook = Some("https://oapi.dingtalk.com/robot/sendBySession?session=hidden".to_owned());
        let context = Context { webhook, webhook_until: UnixMillis(1_000_000), ..Context::default() };
        assert!(context.webhook(UnixMillis(900_000)).is_some());
        assert!(context.webhook(UnixMillis(950_000)).is_none());
        assert!(!format!("{context:?}").contains("hidden"));
        assert_eq!(Context::read(&context.write()), context);
    }

    proptest! {
        #[test]
        fn any_text_is_some_context(text in any::<String>()) {
            let _context = Context::read(&text);
        }
    }
}
