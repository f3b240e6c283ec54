//! A bot message, as it is in the `data` of a push
//! (<https://open.dingtalk.com/document/orgapp/receive-message>).
//!
//! **Invariants**
//! - Each field is read on its own: one that is missing or of another type costs only itself, and a message without an id,
//!   a conversation or a sender is none.
//! - Nothing that was said is logged.

use serde_json::Value;

use super::PLATFORM;
use super::context::Context;
use crate::chat::{Attachment, AttachmentKind, Conversation, Inbound, Sender};
use crate::clock::UnixMillis;

/// Attachments of one message; the rest is dropped.
const ATTACHMENTS_MAX: usize = 16;

/// Reads a message to the bot of `account`; `None` if it is none that can be answered.
pub(super) fn read(data: &str, account: &str) -> Option<Inbound> {
    let Ok(data) = serde_json::from_str::<Value>(data) else {
        tracing::warn!(size_bytes = data.len(), "a bot message that is no JSON is skipped");
        return None;
    };
    let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let millis = |name: &str| {
        let value = data.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).map(UnixMillis)
    };
    let (Some(chat), Some(message_id)) = (text("conversationId"), text("msgId")) else {
        tracing::warn!("a bot message without an id or a conversation is skipped");
        return None;
    };
    let staff_id = text("senderStaffId");
    let sender = staff_id.or_else(|| text("senderId"))?;
    let is_group = text("conversationType") != Some("1");
    let (said, attachments) = content(&data);
    if said.is_empty() && attachments.is_empty() {
        tracing::debug!("a bot message of a kind that is not understood is skipped");
        return None;
    }
    let context = Context {
        webhook: text("sessionWebhook").map(str::to_owned),
        webhook_until: millis("sessionWebhookExpiredTime").unwrap_or_default(),
        is_group,
        staff_id: staff_id.map(str::to_owned),
        robot_code: text("robotCode").unwrap_or(account).to_owned(),
    };
    Some(Inbound {
        conversation: Conversation::new(PLATFORM, chat),
        account: account.to_owned(),
        message_id: message_id.to_owned(),
        sender: Sender { id: sender.to_owned(), name: text("senderNick").unwrap_or(sender).to_owned() },
        sent_at: millis("createAt").unwrap_or_default(),
        text: said,
        is_direct: !is_group,
        attachments,
        context: Some(context.write()),
    })
}

/// What was said, and what came with it.
fn content(data: &Value) -> (String, Vec<Attachment>) {
    let content = data.get("content").unwrap_or(&Value::Null);
    let (mut text, mut attachments) = (String::new(), Vec::new());
    match data.get("msgtype").and_then(Value::as_str).unwrap_or("text") {
        "text" => text.push_str(data.pointer("/text/content").and_then(Value::as_str).unwrap_or_default()),
        "picture" => attachments.extend(attachment(content, AttachmentKind::Image)),
        "video" => attachments.extend(attachment(content, AttachmentKind::Video)),
        "file" => attachments.extend(attachment(content, AttachmentKind::File)),
        "audio" => {
            // DingTalk's own transcript is what a text agent understands.
            text.push_str(content.get("recognition").and_then(Value::as_str).unwrap_or_default());
            attachments.extend(attachment(content, AttachmentKind::Audio));
        }
        "richText" => {
            for part in content.get("richText").and_then(Value::as_array).into_iter().flatten() {
                text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                attachments.extend(attachment(part, AttachmentKind::Image));
            }
        }
        _ => {}
    }
    attachments.truncate(ATTACHMENTS_MAX);
    (text.trim().to_owned(), attachments)
}

fn attachment(part: &Value, kind: AttachmentKind) -> Option<Attachment> {
    let source = part.get("downloadCode").and_then(Value::as_str)?.to_owned();
    let name = part.get("fileName").and_then(Value::as_str).map(str::to_owned);
    Some(Attachment { kind, name, mime: None, size_bytes: None, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(fields: &Value) -> Value {
        let mut message = json!({
            "conversationId": "cid1", "conversationType": "1", "msgId": "m1", "senderId": "$:LWCP_v1:$x",
            "senderStaffId": "manager1", "senderNick": "Ann", "createAt": 1_732_608_000_000_i64,
            "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=s",
            "sessionWebhookExpiredTime": 1_732_613_400_000_i64, "robotCode": "robot1",
            "msgtype": "text", "text": { "content": " hello " },
        });
        for (key, value) in fields.as_object().expect("an object") {
            message[key] = value.clone();
        }
        message
    }

    fn only(fields: &Value) -> Option<Inbound> {
        read(&message(fields).to_string(), "app1")
    }

    #[test]
    fn a_text_is_read_whole() {
        let context = Context {
            webhook: Some("https://oapi.dingtalk.com/robot/sendBySession?session=s".into()),
            webhook_until: UnixMillis(1_732_613_400_000),
            is_group: false,
            staff_id: Some("manager1".into()),
            robot_code: "robot1".into(),
        };
        let wanted = Inbound {
            conversation: Conversation::new(PLATFORM, "cid1"),
            account: "app1".into(),
            message_id: "m1".into(),
            sender: Sender { id: "manager1".into(), name: "Ann".into() },
            sent_at: UnixMillis(1_732_608_000_000),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: Some(context.write()),
        };
        assert_eq!(only(&json!({})), Some(wanted));
    }

    #[test]
    fn each_kind_is_read_for_what_an_agent_understands_of_it() {
        let code = |code: &str, kind, name: Option<&str>| Attachment {
            kind,
            name: name.map(str::to_owned),
            mime: None,
            size_bytes: None,
            source: code.to_owned(),
        };
        let rich = json!([{ "text": "look " }, { "downloadCode": "d1", "type": "picture" }, { "text": "here" }]);
        let table = [
            (
                json!({ "msgtype": "picture", "content": { "downloadCode": "d" } }),
                "",
                vec![code("d", AttachmentKind::Image, None)],
            ),
            (
                json!({ "msgtype": "file", "content": { "downloadCode": "d", "fileName": "a.pdf" } }),
                "",
                vec![code("d", AttachmentKind::File, Some("a.pdf"))],
            ),
            (
                json!({ "msgtype": "audio", "content": { "downloadCode": "d", "recognition": "hi" } }),
                "hi",
                vec![code("d", AttachmentKind::Audio, None)],
            ),
            (
                json!({ "msgtype": "richText", "content": { "richText": rich } }),
                "look here",
                vec![code("d1", AttachmentKind::Image, None)],
            ),
        ];
        for (fields, text, attachments) in table {
            let inbound = only(&fields).expect("a message");
            assert_eq!((inbound.text.as_str(), inbound.attachments), (text, attachments), "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_none_and_what_is_odd_costs_only_itself() {
        for fields in [
            json!({ "msgId": null }),
            json!({ "conversationId": 7 }),
            json!({ "senderId": null, "senderStaffId": [] }),
            json!({ "msgtype": "newKind" }),
            json!({ "text": "no object" }),
        ] {
            assert_eq!(only(&fields), None, "{fields}");
        }
        let odd = json!({ "createAt": "soon", "sessionWebhook": {}, "senderStaffId": 1, "senderNick": null, "conversationType": "2" });
        let inbound = only(&odd).expect("it can be answered");
        assert_eq!((inbound.sender.id.as_str(), inbound.is_direct), ("$:LWCP_v1:$x", false));
    }

    proptest! {
        #[test]
        fn any_data_is_read_or_skipped(data in any::<String>(), key in "[a-zA-Z]{1,9}|msgtype|content|text", value in "[0-9]{1,3}|null|\"x\"|\\[\\]|\\{\\}|\\[\\{\\}\\]") {
            let _read = read(&data, "app1");
            let mut message = message(&json!({})).to_string();
            message.insert_str(1, &format!("\"{key}\":{value},"));
            let _read = read(&message, "app1");
        }
    }
}
