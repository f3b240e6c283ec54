//! What the launcher is to run next, kept in step with what happens here.
//!
//! A file that cannot be written is told and no more: the launcher finds a runnable image without it.

use std::path::PathBuf;

use super::run::Daemon;
use super::state::Note;
use crate::report::Chain;
use crate::slots::{Failed, Slots, SlotsError, Trial};
use crate::update::Versions;

/// Starts that a trial is granted when its process was killed, beyond the one in place: a power cut is not its fault.
const TRIAL_BOOTS: u32 = 1;

impl Daemon {
    fn versions_dir(&self) -> PathBuf {
        Versions::new(self.home.path()).dir().to_owned()
    }

    /// Changes the slots beside the loop. Where there are none, this image is the proven one.
    async fn change_slots(&self, change: impl FnOnce(&mut Slots) + Send + 'static) -> Result<(), String> {
        let (dir, running) = (self.versions_dir(), self.image.id.version.clone());
        let changed = tokio::task::spawn_blocking(move || {
            let mut slots = read(&dir).unwrap_or_else(|| Slots { proven: Some(running), ..Slots::default() });
            let before = slots.clone();
            change(&mut slots);
            if slots == before { Ok(()) } else { slots.write(&dir) }
        });
        match changed.await {
            Ok(outcome) => outcome.map_err(|error: SlotsError| Chain(&error).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// An update is about to run. If that cannot be written down it must not: a crash would lead to a loop of crashes.
    pub(super) async fn slot_trial(&self, version: String) -> Result<(), String> {
        let known = self.version_is_there(&version);
        self.change_slots(move |slots| {
            slots.trial = known.then_some(Trial { version, boots_left: TRIAL_BOOTS });
        })
        .await
        .map_err(|error| format!("cannot write down which version is tried: {error}"))
    }

    /// The update does not come about.
    pub(super) async fn slot_no_trial(&self) {
        tell(self.change_slots(|slots| slots.trial = None).await);
    }

    /// The running version has proven itself.
    pub(super) async fn slot_proven(&self, version: String) {
        let change = move |slots: &mut Slots| {
            if slots.proven.as_deref() != Some(&version) {
                slots.previous = slots.proven.replace(version.clone());
            }
            slots.trial = None;
            slots.failed.take_if(|failed| failed.version == version);
        };
        tell(self.change_slots(change).await);
    }

    /// A version was tried and did not stay.
    pub(super) async fn slot_failed(&self, version: &str, reason: &str) {
        let failed = Failed { version: version.to_owned(), reason: reason.to_owned() };
        let change = move |slots: &mut Slots| {
            slots.trial.take_if(|trial| trial.version == failed.version);
            slots.failed = Some(failed);
        };
        tell(self.change_slots(change).await);
    }

    /// At a start: why the launcher left the version that `note` is about. A trial that is neither noted nor running is
    /// over.
    pub(super) async fn settle_slots(&self, note: Option<&Note>) -> Option<String> {
        let dir = self.versions_dir();
        let slots = tokio::task::spawn_blocking(move || read(&dir)).await.ok()??;
        if let Some(trial) = &slots.trial
            && trial.version != self.image.id.version
        {
            self.slot_no_trial().await;
        }
        let failed = slots.failed?;
        note.is_some_and(|note| note.to.version == failed.version).then_some(failed.reason)
    }

    /// One that runs from elsewhere cannot be started by the launcher.
    fn version_is_there(&self, version: &str) -> bool {
        semver::Version::parse(version).is_ok_and(|version| Versions::new(self.home.path()).path(&version).is_file())
    }
}

fn read(dir: &std::path::Path) -> Option<Slots> {
    Slots::read(dir).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "the slots are written anew");
        None
    })
}

fn tell(outcome: Result<(), String>) {
    if let Err(error) = outcome {
        tracing::error!(error, "cannot write down which version is to run");
    }
}
