//! Small calls beside polling and delivery: presses are answered, the menu is set. One at a time, at most once each, and
//! what fails is only told in the log: nothing depends on it.

use std::collections::VecDeque;
use std::pin::Pin;

use sha2::{Digest as _, Sha256};

use super::api::{Api, TelegramError};
use super::intake::Press;
use crate::hex;
use crate::platform::pending::under_way;
use crate::report::Chain;
use crate::words::{Language, MenuItem};

/// Presses that wait; beyond that the oldest is not answered, and its button shows progress for a while.
const WAITING_MAX: usize = 64;

/// The languages of the menu, with the code by which Telegram chooses; the first one is for everyone else.
const LANGUAGES: [(Language, Option<&str>); 2] = [(Language::En, None), (Language::ZhCn, Some("zh"))];

/// A small call.
#[derive(Debug)]
enum Chore {
    Press(Press),
    Menu,
}

/// How one ended.
pub(super) struct Ended(Option<String>);

type Running = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// What is to be done, and what is done.
#[derive(Default)]
pub(super) struct Chores {
    waiting: VecDeque<Chore>,
    running: Option<Running>,
    /// The menu that Telegram has, as a hash.
    pub(super) menu: Option<String>,
    /// It was looked at since the start.
    menu_seen: bool,
}

impl Chores {
    pub(super) fn pressed(&mut self, presses: Vec<Press>) {
        self.waiting.extend(presses.into_iter().map(Chore::Press));
        let over = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..over);
    }

    /// The link works: the menu is set if it is another one than before.
    pub(super) fn linked(&mut self) {
        if !std::mem::replace(&mut self.menu_seen, true) && self.menu.as_deref() != Some(&menu_hash()) {
            self.waiting.push_back(Chore::Menu);
        }
    }

    /// Begins the next, if none is under way.
    pub(super) fn begin(&mut self, api: &Api) {
        if self.running.is_none()
            && let Some(chore) = self.waiting.pop_front()
        {
            self.running = Some(Box::pin(carry_out(api.clone(), chore)));
        }
    }

    /// Waits for the one that is under way; for ever if there is none.
    pub(super) async fn ended(&mut self) -> Ended {
        let ended = under_way(&mut self.running).await;
        self.running = None;
        ended
    }

    pub(super) fn take(&mut self, Ended(menu): Ended) {
        self.menu = menu.or(self.menu.take());
    }

    /// Lets go of the one that is under way: it may be done, or not.
    pub(super) fn hush(&mut self) {
        if self.running.take().is_some() {
            // It may have been the menu.
            self.menu_seen &= self.menu.is_some();
        }
    }
}

/// What the menu offers, and what it says of each command.
fn menu(language: Language) -> Vec<(&'static str, &'static str)> {
    MenuItem::ALL.into_iter().map(|item| (item.command(), language.words().menu_item(item))).collect()
}

fn menu_hash() -> String {
    let digest = Sha256::digest(format!("{:?}", LANGUAGES.map(|(language, code)| (menu(language), code))));
    hex::encode(&digest[..8])
}

async fn carry_out(api: Api, chore: Chore) -> Ended {
    let (what, outcome) = match chore {
        Chore::Press(press) => ("a press is not answered", answer(&api, &press).await),
        Chore::Menu => {
            let outcome = set_menu(&api).await;
            if outcome.is_ok() {
                return Ended(Some(menu_hash()));
            }
            ("the menu is not set", outcome)
        }
    };
    if let Err(error) = outcome {
        tracing::info!(error = %Chain(&error), "{what}");
    }
    Ended(None)
}

/// Both are tried: a press that came again is answered already, and its buttons may still be there.
async fn answer(api: &Api, press: &Press) -> Result<(), TelegramError> {
    let answered = api.answer_press(&press.query).await;
    let taken = api.take_keyboard(&press.chat, &press.message).await;
    answered.and(taken)
}

async fn set_menu(api: &Api) -> Result<(), TelegramError> {
    for (language, code) in LANGUAGES {
        api.set_commands(&menu(language), code).await?;
    }
    Ok(())
}
