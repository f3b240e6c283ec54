//! Blocks of code that go on over the pages of a reply: which fence is open where a page begins.
//!
//! A page that is sent again or edited begins as it did before. What is not known here, after a kill or where too many chats
//! were served since, begins outside of any block: the words are all there, and some look other than they should.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::markdown::Fence;
use crate::platform::delivery::{Action, Request};
use crate::store::EntryId;

/// Chats whose last page is remembered, those served last.
const CHATS_MAX: usize = 256;

/// The last page that was begun in a chat.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    chat: String,
    #[serde(default)]
    thread: Option<String>,
    /// The reply and the number of the page, once it is a message.
    #[serde(default)]
    part: Option<(EntryId, u32)>,
    /// Its message.
    #[serde(default)]
    message: Option<String>,
    /// The reply, as drafts name it.
    #[serde(default)]
    draft: Option<u64>,
    /// The fence that is open where it begins.
    #[serde(default)]
    before: Option<Fence>,
    /// The fence that is open where it ends, if it is final.
    #[serde(default)]
    after: Option<Fence>,
    #[serde(default)]
    is_final: bool,
}

/// What is remembered, shared by all who send.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences(Arc<Mutex<VecDeque<Page>>>);

impl Fences {
    fn pages(&self) -> MutexGuard<'_, VecDeque<Page>> {
        // Plain data, which no panic leaves half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fence that is open where the page of a request begins.
    pub(super) fn before(&self, request: &Request) -> Option<Fence> {
        let pages = self.pages();
        let page = pages.iter().find(|page| page.is_at(request))?;
        match &request.action {
            Action::Send(_) => {
                let attempt = request.attempt.as_ref()?;
                let (entry, number) = page.part?;
                match attempt.number.checked_sub(number) {
                    Some(0) if entry == attempt.entry => page.before.clone(),
                    Some(1) if entry == attempt.entry && page.is_final => page.after.clone(),
                    _ => None,
                }
            }
            Action::Edit { message_id, .. } if page.message.as_ref() == Some(&message_id.0) => page.before.clone(),
            Action::Draft { draft_id, .. } if page.draft == Some(*draft_id) => {
                if page.is_final {
                    page.after.clone()
                } else {
                    page.before.clone()
                }
            }
            Action::Typing | Action::Attach(_) | Action::Edit { .. } | Action::Draft { .. } => None,
        }
    }

    /// A request was carried out: its page began with `before` and ends with `after`, and its message, if it is a new one, is
    /// `message`.
    pub(super) fn shown(&self, request: &Request, before: Option<Fence>, after: Option<Fence>, message: Option<&str>) {
        let (Action::Send(post) | Action::Edit { post, .. } | Action::Draft { post, .. }) = &request.action else {
            return;
        };
        let mut pages = self.pages();
        let known = pages.iter().position(|page| page.is_at(request)).and_then(|at| pages.remove(at));
        let mut page = known.unwrap_or_else(|| Page::at(request));
        match &request.action {
            Action::Send(_) => {
                page.part = request.attempt.as_ref().map(|attempt| (attempt.entry, attempt.number));
                page.message = message.map(str::to_owned);
            }
            Action::Edit { message_id, .. } if page.message.as_ref() != Some(&message_id.0) => {
                (page.part, page.message) = (None, Some(message_id.0.clone()));
            }
            Action::Draft { draft_id, .. } => page.draft = Some(*draft_id),
            Action::Edit { .. } | Action::Attach(_) | Action::Typing => {}
        }
        // A draft is never the end of a page.
        page.is_final = post.is_final && !matches!(request.action, Action::Draft { .. });
        (page.before, page.after) = (before, after);
        pages.push_back(page);
        let over = pages.len().saturating_sub(CHATS_MAX);
        pages.drain(..over);
    }

    /// What the next image needs: the chats where a block of code is open.
    pub(super) fn save(&self) -> serde_json::Value {
        let pages = self.pages();
        let open: Vec<&Page> = pages.iter().filter(|page| page.before.is_some() || page.after.is_some()).collect();
        serde_json::to_value(open).unwrap_or_default()
    }

    /// Goes on with what another image saved; what cannot be read is not known.
    pub(super) fn restore(&self, saved: serde_json::Value) {
        let pages: Vec<Page> = serde_json::from_value(saved).unwrap_or_default();
        self.pages().extend(pages.into_iter().take(CHATS_MAX));
    }
}

impl Page {
    fn at(request: &Request) -> Self {
        Self {
            chat: request.chat.clone(),
            thread: request.thread.clone(),
            part: None,
            message: None,
            draft: None,
            before: None,
            after: None,
            is_final: false,
        }
    }

    fn is_at(&self, request: &Request) -> bool {
        self.chat == request.chat && self.thread == request.thread
    }
}
