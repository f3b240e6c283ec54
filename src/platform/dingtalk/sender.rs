//! How a chat is answered: by the webhook of its last message while that is good, else without being asked; in a card
//! that grows where a template is configured.

use std::time::Duration;

use super::PLATFORM;
use super::api::{Api, DingTalkError, Space, Words};
use super::context::Context;
use crate::clock::UnixMillis;
use crate::config::DingTalkConfig;
use crate::platform::delivery::{Action, Format, MessageId, Post, Request};
use crate::platform::link::{Failure, Sender, Unsent};
use crate::report::Chain;
use crate::store::Store;

/// The longest title of a message, in characters.
const TITLE_CHARS_MAX: usize = 40;
/// The wait that is honoured where a limit is met without one being told: a group that has had its 20 messages in a
/// minute takes none for 10 minutes, and asking meanwhile makes it longer.
const LIMIT_WAIT: Duration = Duration::from_secs(60);

/// Makes the requests of the delivery.
#[derive(Clone)]
pub(super) struct DingTalkSender {
    api: Api,
    account: String,
    template: Option<String>,
}

impl DingTalkSender {
    pub(super) fn new(config: &DingTalkConfig) -> Self {
        let (account, template) = (config.client_id.clone(), config.card_template_id.clone());
        Self { api: Api::new(config), account, template }
    }

    async fn context(&self, chat: &str, store: &Store) -> Result<Context, Unsent> {
        match store.context(PLATFORM, &self.account, chat).await {
            Ok(kept) => Ok(kept.map(|kept| Context::read(&kept)).unwrap_or_default()),
            Err(error) => Err(Unsent {
                failure: Failure::Again { asked: None },
                is_ambiguous: false,
                is_fatal: false,
                code: "store".to_owned(),
                why: Chain(&error).to_string(),
            }),
        }
    }

    async fn send(&self, chat: &str, post: &Post, context: &Context) -> Result<(), DingTalkError> {
        let title = title(&post.text);
        let words = match post.format {
            Format::Plain => Words::Text(&post.text),
            Format::Markdown => Words::Markdown { title: &title, text: &post.text },
        };
        let at = context.staff_id.as_deref().filter(|_| context.is_group);
        if let Some(webhook) = context.webhook(UnixMillis::now()) {
            match self.api.send_by_session(webhook, words, at).await {
                Err(error) if is_over(&error) => {
                    tracing::debug!(code = error.code(), "a session webhook is of no use any more");
                }
                outcome => return outcome,
            }
        }
        let robot = if context.robot_code.is_empty() { &self.account } else { &context.robot_code };
        match (&context.staff_id, context.is_group) {
            (Some(staff_id), false) => self.api.send_single(robot, staff_id, words).await,
            _ => self.api.send_group(robot, chat, words).await,
        }
    }

    async fn start_card(
        &self,
        template: &str,
        track: &str,
        request: &Request,
        post: &Post,
        context: &Context,
    ) -> Result<(), DingTalkError> {
        let robot = if context.robot_code.is_empty() { &self.account } else { &context.robot_code };
        let space = match (&context.staff_id, context.is_group) {
            (Some(staff_id), false) => Space::Direct { staff_id },
            _ => Space::Group { conversation: &request.chat },
        };
        self.api.create_card(template, track, robot, space).await?;
        self.api.stream_card(track, &guid(), &post.text, post.is_final).await
    }
}

impl Sender for DingTalkSender {
    async fn perform(&self, request: &Request, store: &Store) -> Result<Option<MessageId>, Unsent> {
        match &request.action {
            // There is no such thing here.
            Action::Typing | Action::Draft { .. } => Ok(None),
            Action::Send(post) => {
                let context = self.context(&request.chat, store).await?;
                // An answer that grows is a card; a notice is a message.
                match self.template.as_deref().filter(|_| post.format == Format::Markdown) {
                    Some(template) => {
                        let track = track(request);
                        let started = self.start_card(template, &track, request, post, &context).await;
                        started.map(|()| Some(MessageId(track))).map_err(|error| unsent(&error))
                    }
                    None => {
                        let sent = self.send(&request.chat, post, &context).await;
                        sent.map(|()| Some(MessageId(String::new()))).map_err(|error| unsent(&error))
                    }
                }
            }
            Action::Edit { message_id, post } => {
                let streamed = self.api.stream_card(&message_id.0, &guid(), &post.text, post.is_final).await;
                streamed.map(|()| None).map_err(|error| unsent(&error))
            }
        }
    }
}

/// The id of a card: the same for a repeat of the same message, which then is the same card.
fn track(request: &Request) -> String {
    match &request.attempt {
        Some(attempt) => format!("hermes-{}-{}", attempt.entry.0, attempt.number),
        None => format!("hermes-{}", guid()),
    }
}

/// Anything that was not used before.
fn guid() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // RandomState is seeded anew for each value.
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// The first words of a text, for where only one line is shown.
fn title(text: &str) -> String {
    let line = text.lines().map(|line| line.trim_matches(['#', '*', '`', '>', '-', ' '])).find(|line| !line.is_empty());
    line.unwrap_or("…").chars().take(TITLE_CHARS_MAX).collect()
}

/// Whether a webhook has come to its end, or must not be called: then there is another way.
fn is_over(error: &DingTalkError) -> bool {
    match error {
        DingTalkError::ForeignWebhook => true,
        // A limit is met the other way as well.
        DingTalkError::Refused { call: "sendBySession", code, status, .. } => *status < 429 && !is_limit(code),
        _ => false,
    }
}

/// DingTalk's codes for too many messages.
fn is_limit(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    matches!(code.as_str(), "130101" | "130102" | "410100" | "90018" | "flowcontrolled")
        || code.contains("throttl")
        || code.contains("qps")
        || code.contains("toomany")
}

/// What this error means for a message.
fn unsent(error: &DingTalkError) -> Unsent {
    let failure = match error {
        DingTalkError::Refused { code, status, retry_after, .. } if *status == 429 || is_limit(code) => {
            Failure::Again { asked: Some(retry_after.unwrap_or(LIMIT_WAIT)) }
        }
        DingTalkError::Refused { status, retry_after, .. } if *status >= 500 || matches!(status, 401 | 408) => {
            Failure::Again { asked: *retry_after }
        }
        DingTalkError::Refused { code, .. } if code.eq_ignore_ascii_case("invalidStaffId") => Failure::Unreachable,
        DingTalkError::Refused { call: "accessToken", .. } => Failure::Again { asked: None },
        DingTalkError::Refused { .. } => Failure::Refused,
        _ => Failure::Again { asked: None },
    };
    Unsent {
        is_fatal: matches!(error, DingTalkError::Refused { call: "accessToken", status: 400..=403, .. }),
        failure,
        is_ambiguous: error.may_have_been_done(),
        code: error.code(),
        why: Chain(error).to_string(),
    }
}
