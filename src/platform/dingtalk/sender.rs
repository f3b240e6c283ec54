//! How a chat is answered: by the webhook of its last message while that is good, else without being asked; in a card
//! that grows where a template is configured.
//!
//! **Invariants**
//! - The id of a card is made of a name of the store, the message's entry in the outbox and its number there: a repeat has
//!   the same, whatever became of the process in between, and no other store has it.
//! - A card that is refused may be there already, from a try whose answer was lost: then it goes on. If it is not, the
//!   answer is an ordinary message, and so are those after it in the chat.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::PLATFORM;
use super::api::{Api, DingTalkError, Space, TOKEN_CALL, Unasked, Words, is_limit};
use super::context::Context;
use super::files::{FileError, Files};
use super::upload::PICTURE_BYTES_MAX;
use crate::chat::{Attachment, NotSent};
use crate::clock::UnixMillis;
use crate::config::DingTalkConfig;
use crate::platform::delivery::{Action, Attached, Format, MessageId, Post, Request};
use crate::platform::link::{Failure, Sender, Unfetched, Unsent};
use crate::platform::uploads::Uploads;
use crate::report::Chain;
use crate::store::{Store, StoreError};
use crate::sys::random;

/// The longest title of a message, in characters.
const TITLE_CHARS_MAX: usize = 40;
/// The wait that is honoured where a limit is met without one being told: a group that has had its 20 messages in a
/// minute takes none for 10 minutes, and asking meanwhile makes it longer.
const LIMIT_WAIT: Duration = Duration::from_secs(60);

/// What a chat's id begins with that is known by the person in it alone, because nobody has written there yet. An
/// `openConversationId` begins with `cid`.
const DIRECT: &str = "staff:";

/// The id, for the outbox, of the chat with one member of the organisation.
pub fn direct_chat(staff_id: &str) -> String {
    format!("{DIRECT}{staff_id}")
}

/// Where the store keeps the name that is in the ids of its cards.
const CARDS_NAME: &str = "dingtalk.cards";

/// Makes the requests of the delivery.
#[derive(Clone)]
pub(super) struct DingTalkSender {
    api: Api,
    files: Files,
    account: String,
    template: Option<String>,
    /// The name in the ids of cards, once it is read.
    cards: Arc<OnceCell<String>>,
    /// Files that are held in memory at a time.
    uploads: Uploads,
}

impl DingTalkSender {
    pub(super) fn new(config: &DingTalkConfig) -> Self {
        let (account, template) = (config.client_id.clone(), config.card_template_id.clone());
        let api = Api::new(config);
        Self {
            files: Files::with(api.clone(), config),
            api,
            account,
            template,
            cards: Arc::default(),
            uploads: Uploads::default(),
        }
    }

    async fn context(&self, chat: &str, store: &Store) -> Result<Context, Unsent> {
        if let Some(staff_id) = chat.strip_prefix(DIRECT) {
            return Ok(Context { staff_id: Some(staff_id.to_owned()), ..Context::default() });
        }
        match store.context(PLATFORM, &self.account, chat).await {
            Ok(kept) => Ok(kept.map(|kept| Context::read(&kept)).unwrap_or_default()),
            Err(error) => Err(untold(&error)),
        }
    }

    /// The id of a card: the same for a repeat of the same message, which then is the same card.
    async fn track(&self, request: &Request, store: &Store) -> Result<String, Unsent> {
        let Some(attempt) = &request.attempt else { return Ok(format!("hermes-{}", guid())) };
        let name = self.cards.get_or_try_init(|| store.meta_or(CARDS_NAME, guid()));
        let name = name.await.map_err(|error| untold(&error))?;
        Ok(format!("hermes-{name}-{}-{}", attempt.entry.0, attempt.number))
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
        self.send_unasked(chat, words.into(), context).await
    }

    /// Without a webhook.
    async fn send_unasked(&self, chat: &str, message: Unasked, context: &Context) -> Result<(), DingTalkError> {
        let robot = self.robot(context);
        match (&context.staff_id, context.is_group) {
            (Some(staff_id), false) => self.api.send_single(robot, staff_id, message).await,
            _ => self.api.send_group(robot, chat, message).await,
        }
    }

    /// Which robot speaks in a chat.
    fn robot<'a>(&'a self, context: &'a Context) -> &'a str {
        if context.robot_code.is_empty() { &self.account } else { &context.robot_code }
    }

    /// A picture is shown without being asked, since a webhook takes none; a word that goes with it is a message before.
    async fn send_file(&self, chat: &str, file: &Attached, store: &Store) -> Result<Option<MessageId>, Unsent> {
        // A kind that it does not name is one that it does not take.
        if !matches!(file.mime.as_deref(), Some("image/png" | "image/jpeg")) {
            return Err(Unsent::no_file(NotSent::Unsupported));
        }
        let held = self.uploads.hold(file, PICTURE_BYTES_MAX).await?;
        let context = self.context(chat, store).await?;
        // Nothing is shown by an upload.
        let uploaded = self.api.upload_picture(file, held).await;
        let media_id = uploaded.map_err(|error| Unsent { is_ambiguous: false, ..unsent(&error) })?;
        if let Some(word) = &file.word {
            let post = Post { text: word.clone(), format: Format::Plain, choices: Vec::new(), is_final: true };
            self.send(chat, &post, &context).await.map_err(|error| unsent(&error))?;
        }
        let sent = self.send_unasked(chat, Unasked::picture(&media_id), &context).await;
        sent.map(|()| Some(MessageId(String::new()))).map_err(|error| unsent(&error))
    }

    async fn start_card(
        &self,
        template: &str,
        track: &str,
        request: &Request,
        post: &Post,
        context: &Context,
    ) -> Result<(), DingTalkError> {
        let robot = self.robot(context);
        let space = match (&context.staff_id, context.is_group) {
            (Some(staff_id), false) => Space::Direct { staff_id },
            _ => Space::Group { conversation: &request.chat },
        };
        let created = self.api.create_card(template, track, robot, space).await;
        if created.as_ref().is_err_and(|error| !error.is_refusal()) {
            return created;
        }
        match (created, self.api.stream_card(track, &guid(), &post.text, post.is_final).await) {
            // There is no such card.
            (Err(refused), Err(error)) if error.is_refusal() => Err(refused),
            (_, streamed) => streamed,
        }
    }
}

impl Sender for DingTalkSender {
    async fn fetch(&self, chat: &str, file: &Attachment, path: &Path, store: &Store) -> Result<(), Unfetched> {
        let context =
            self.context(chat, store).await.map_err(|error| Unfetched { why: error.why, again: Some(None) })?;
        let bytes = self.files.fetch(self.robot(&context), &file.source).await.map_err(|error| match &error {
            FileError::NoAddress { again: Some(asked), .. } => Unfetched::for_now(&error, *asked),
            FileError::Network(_) | FileError::Refused(429 | 500..) => Unfetched::for_now(&error, None),
            _ => Unfetched::for_good(&error),
        })?;
        tokio::fs::write(path, bytes).await.map_err(|error| Unfetched::for_good(&error))
    }

    async fn perform(&self, request: &Request, store: &Store) -> Result<Option<MessageId>, Unsent> {
        match &request.action {
            // There is no such thing here.
            Action::Typing | Action::Draft { .. } => Ok(None),
            Action::Send(post) => {
                let context = self.context(&request.chat, store).await?;
                // An answer that grows is a card; a notice is a message.
                let may_grow = post.format == Format::Markdown && !request.draftless;
                match self.template.as_deref().filter(|_| may_grow) {
                    Some(template) => {
                        let track = self.track(request, store).await?;
                        let started = self.start_card(template, &track, request, post, &context).await;
                        started.map(|()| Some(MessageId(track))).map_err(|error| {
                            // A repeat is the same card, so nothing is shown twice.
                            Unsent { is_ambiguous: false, ..without_card(&error) }
                        })
                    }
                    None => {
                        let sent = self.send(&request.chat, post, &context).await;
                        sent.map(|()| Some(MessageId(String::new()))).map_err(|error| unsent(&error))
                    }
                }
            }
            Action::Attach(file) => self.send_file(&request.chat, file, store).await,
            Action::Edit { message_id, post } => {
                let streamed = self.api.stream_card(&message_id.0, &guid(), &post.text, post.is_final).await;
                streamed.map(|()| None).map_err(|error| unsent(&error))
            }
        }
    }
}

/// The store cannot tell what is needed.
fn untold(error: &StoreError) -> Unsent {
    Unsent {
        failure: Failure::Again { asked: None },
        is_ambiguous: false,
        is_fatal: false,
        code: "store".to_owned(),
        why: Chain(error).to_string(),
    }
}

/// Anything that was not used before.
fn guid() -> String {
    format!("{:032x}", u128::from_le_bytes(random::some()))
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

/// What this error means for a card: one that is refused is no reason to lose the answer.
fn without_card(error: &DingTalkError) -> Unsent {
    let unsent = unsent(error);
    if !matches!(unsent.failure, Failure::Refused | Failure::Unreachable) {
        return unsent;
    }
    tracing::warn!(
        error = unsent.why,
        "a card is refused, and the chat is answered by ordinary messages: check card_template_id, whose template needs a \
         variable 'content', and that the app may send cards"
    );
    Unsent { failure: Failure::NoDraft, ..unsent }
}

/// What this error means for a message.
pub(super) fn unsent(error: &DingTalkError) -> Unsent {
    let failure = match error {
        DingTalkError::Refused { code, status, retry_after, .. } if *status == 429 || is_limit(code) => {
            Failure::Again { asked: Some(retry_after.unwrap_or(LIMIT_WAIT)) }
        }
        DingTalkError::Refused { status, retry_after, .. } if *status >= 500 || matches!(status, 401 | 408) => {
            Failure::Again { asked: *retry_after }
        }
        DingTalkError::Refused { code, .. } if code.eq_ignore_ascii_case("invalidStaffId") => Failure::Unreachable,
        DingTalkError::Refused { call: TOKEN_CALL, .. } => Failure::Again { asked: None },
        DingTalkError::Refused { retry_after, .. } if error.is_of_others() => Failure::Again { asked: *retry_after },
        DingTalkError::Refused { .. } => Failure::Refused,
        _ => Failure::Again { asked: None },
    };
    Unsent {
        is_fatal: matches!(error, DingTalkError::Refused { call: TOKEN_CALL, status: 400..=403, .. }),
        failure,
        is_ambiguous: error.may_have_been_done(),
        code: error.code(),
        why: Chain(error).to_string(),
    }
}
