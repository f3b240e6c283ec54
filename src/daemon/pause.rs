//! Holding a platform back, and letting it go on.
//!
//! **Invariant:** that a platform is paused is in the store before the platform is told, so that it stays so whatever
//! becomes of the process; it is told before anything else when it is started.

use super::kept::PAUSED;
use super::run::Daemon;
use crate::control::proto::{PlatformChange, PlatformParams};
use crate::gateway::{Effect, Requester, notice};
use crate::id::PlatformName;
use crate::jsonrpc::ErrorObject;
use crate::platform::PlatformCommand;
use crate::report::Chain;
use crate::words::{Language, Paused};

/// Why a platform stays as it is.
pub(super) enum PauseError {
    /// There is none of this name that can be paused.
    Unknown,
    /// It cannot be recorded; the reason.
    Store(String),
}

impl Daemon {
    /// `/platform pause` and `/platform resume`. The answer is pushed to `effects`, with the end of the message that
    /// asked.
    pub(super) async fn pause_for_chat(
        &mut self,
        platform: PlatformName,
        pause: bool,
        here: bool,
        by: &Requester,
        effects: &mut Vec<Effect>,
    ) {
        let words = self.gateway.words(&by.conversation);
        let is_here = by.conversation.platform == platform;
        let known: Vec<PlatformName> = self.platforms.keys().cloned().collect();
        let told = if pause && is_here && !here && known.contains(&platform) && !self.kept.paused.contains(&platform) {
            Some(words.paused(platform.as_str(), Paused::Here))
        } else {
            match self.set_paused(&platform, pause).await {
                // Whoever asked was told before that nothing is said here from now on.
                Ok(Paused::Now) if is_here => None,
                Ok(done) => Some(words.paused(platform.as_str(), done)),
                Err(PauseError::Unknown) => {
                    let known: Vec<&str> = known.iter().map(PlatformName::as_str).collect();
                    Some(words.unknown_platform(platform.as_str(), &known))
                }
                Err(PauseError::Store(reason)) => Some(words.pause_failed(platform.as_str(), &reason)),
            }
        };
        effects.push(Effect::Close(by.turn));
        effects.extend(told.map(|told| notice(&by.conversation, told)));
    }

    /// The same for a control client.
    pub(super) async fn pause_for_client(
        &mut self,
        params: PlatformParams,
        pause: bool,
    ) -> Result<PlatformChange, ErrorObject> {
        let platform = PlatformName::new(params.platform);
        match self.set_paused(&platform, pause).await {
            Ok(done) => {
                let changed = matches!(done, Paused::Now | Paused::GoesOn);
                Ok(PlatformChange { platform: platform.to_string(), paused: pause, changed })
            }
            Err(PauseError::Unknown) => {
                let known: Vec<&str> = self.platforms.keys().map(PlatformName::as_str).collect();
                let told = Language::En.words().unknown_platform(platform.as_str(), &known);
                Err(ErrorObject::new(ErrorObject::INVALID_PARAMS, told))
            }
            Err(PauseError::Store(reason)) => Err(ErrorObject::new(ErrorObject::INTERNAL, reason)),
        }
    }

    async fn set_paused(&mut self, platform: &PlatformName, pause: bool) -> Result<Paused, PauseError> {
        if !self.platforms.contains_key(platform) {
            return Err(PauseError::Unknown);
        }
        if self.kept.paused.contains(platform) == pause {
            return Ok(if pause { Paused::Already } else { Paused::WasNot });
        }
        let mut paused = self.kept.paused.clone();
        if pause {
            paused.insert(platform.clone())
        } else {
            paused.remove(platform)
        };
        let kept = serde_json::to_string(&paused).expect("plain data serialises");
        if let Err(error) = self.store.set_meta(PAUSED, kept).await {
            return Err(PauseError::Store(Chain(&error).to_string()));
        }
        self.kept.paused = paused;
        if let Some(outlet) = self.platforms.get_mut(platform) {
            outlet.put(if pause { PlatformCommand::Pause } else { PlatformCommand::Resume });
        }
        Ok(if pause { Paused::Now } else { Paused::GoesOn })
    }
}
