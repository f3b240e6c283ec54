//! What people say to the bot, as DingTalk tells it
//! (<https://open.dingtalk.com/document/orgapp/receive-message>).

use serde::Deserialize;
use serde_json::{Value, json};

use super::state::{State, Webhook, merge, now_ms};

/// The topic of messages to the bot.
pub const BOT_MESSAGE: &str = "/v1.0/im/bot/messages/get";

/// Somebody says something.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Say {
    /// Who: a member of the organisation.
    pub user: String,
    /// A group; none is the chat with the bot alone.
    #[serde(default)]
    pub group: Option<String>,
    /// What.
    #[serde(default)]
    pub text: String,
    /// Fields of the message that are other than usual; null leaves one out.
    #[serde(default)]
    pub fields: Value,
}

impl State {
    /// Pushes what somebody says. Returns its `msgId`.
    pub fn say(&mut self, say: &Say) -> String {
        let message = self.message(say);
        self.push("CALLBACK", BOT_MESSAGE, &json!({}), &message, Some(&say.text));
        message["msgId"].as_str().unwrap_or_default().to_owned()
    }

    /// Pushes a message again, as it was, under another `messageId`.
    pub fn say_again(&mut self, msg_id: &str) {
        let mark = json!({ "msgId": msg_id }).to_string();
        let is_it = |data: &str| data.contains(mark.trim_matches(['{', '}']));
        let push =
            self.pushes.iter().find(|push| push.text.is_some() && is_it(&push.data)).expect("it was said").clone();
        let data = serde_json::from_str(&push.data).expect("JSON");
        self.push("CALLBACK", BOT_MESSAGE, &json!({}), &data, push.text.as_deref());
    }

    /// The `data` of what somebody says.
    pub fn message(&mut self, say: &Say) -> Value {
        let number = self.fresh();
        let (now, until_ms) = (now_ms(), now_ms() + self.webhook_ms);
        let chat = say.group.clone().unwrap_or_else(|| Self::direct_chat(&say.user));
        // As long as DingTalk's: 32 characters.
        let session = format!("session-of-the-test-app-{number:08}");
        let base = self.webhook_base.as_ref().unwrap_or(&self.base);
        let bot = "$:LWCP_v1:$the-bot";
        let mut message = json!({
            "conversationId": chat,
            "atUsers": [{ "dingtalkId": bot }],
            "chatbotCorpId": "ding-corp",
            "chatbotUserId": bot,
            "msgId": format!("msg{number}=="),
            "senderNick": format!("Nick of {}", say.user),
            "isAdmin": false,
            "senderStaffId": say.user,
            "sessionWebhookExpiredTime": until_ms,
            "createAt": now,
            "senderCorpId": "ding-corp",
            "conversationType": if say.group.is_some() { "2" } else { "1" },
            "senderId": format!("$:LWCP_v1:${}", say.user),
            "sessionWebhook": format!("{base}/robot/sendBySession?session={session}"),
            "robotCode": self.client_id,
            "msgtype": "text",
            "text": { "content": if say.group.is_some() { format!(" {}", say.text) } else { say.text.clone() } },
        });
        if say.group.is_some() {
            message["conversationTitle"] = "A group".into();
            message["isInAtList"] = true.into();
        }
        self.webhooks.insert(session, Webhook { chat, until_ms });
        merge(&mut message, &say.fields);
        message
    }
}
