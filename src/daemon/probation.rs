//! What follows a handoff in the new image: it is told, watched, and committed.

use std::time::Duration;

use semver::Version;
use tokio::time::Instant;

use super::releases::{clear_failed, raise_floor, running_version};
use super::run::Daemon;
use super::state::{CarriedProbation, Passport};
use crate::chat::LinkState;
use crate::clock::MonoNanos;
use crate::gateway::AgentView;
use crate::handoff::Phase;
use crate::report::Chain;
use crate::store::{HandoffRecord, Store};
use crate::telemetry::lifecycle;
use crate::update::Versions;

/// An update that has not proven itself yet.
pub(super) struct Probation {
    /// Its row in the history, once that is written.
    row: Option<i64>,
    version: String,
    /// What was committed last.
    previous: String,
    until: Instant,
    /// Why it was not committed when it was due: told once.
    told: Option<String>,
}

impl Probation {
    pub(super) fn carried(&self) -> CarriedProbation {
        let left = self.until.saturating_duration_since(Instant::now());
        CarriedProbation {
            row: self.row,
            version: self.version.clone(),
            previous: self.previous.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Daemon {
    /// The new image serves: tells everyone, records it, and begins the probation of an update.
    pub(super) async fn arrived(&mut self, mut passport: Passport, ready: MonoNanos) {
        passport.timeline.enter_at(Phase::Probation, ready);
        let report = passport.report(ready);
        tracing::info!(
            name: lifecycle::HANDOFF_DONE,
            kind = report.kind,
            from = report.from.version,
            to = report.to.version,
            generation = report.generation,
            turns_carried = report.turns_carried,
            agents_carried = report.agents_carried,
            blackout_us = report.blackout_us,
            duration_us = report.duration_us,
            phases_us = ?report.phases_us,
            "handoff done"
        );
        self.tell_done(&passport.origin, &report).await;
        // To go back is to run other bytes, too.
        let is_update = matches!(passport.kind.as_str(), "update" | "revert");
        let record = HandoffRecord {
            kind: passport.kind.clone(),
            requested_by: passport.origin.who(),
            requested_via: passport.origin.way(),
            reason: passport.reason.clone(),
            from_version: passport.from.version.clone(),
            from_sha256: passport.from.sha256.clone(),
            to_version: passport.to.version.clone(),
            to_sha256: passport.to.sha256.clone(),
            generation: passport.generation.0,
            turns_carried: passport.turns_carried,
            agents_carried: passport.agents_carried,
            started_at: passport.started_at,
            phases_us: report.phases_us.clone(),
            outcome: if is_update { "serving" } else { "committed" }.to_owned(),
        };
        self.books = Some(tokio::spawn(keep_books(self.store.clone(), record)));
        self.begin_probation(passport, is_update).await;
    }

    /// Waits until what [`Self::arrived`] began to write is on disk: before anything that reads it or depends on it.
    pub(super) async fn close_books(&mut self) {
        let Some(books) = self.books.take() else { return };
        let row = books.await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot record a handoff");
            None
        });
        // One that goes on from an earlier handoff has its row.
        if let Some(probation @ Probation { row: None, .. }) = &mut self.probation {
            probation.row = row;
        }
    }

    /// An update is put on probation; one that was on probation before goes on with it, unless it was replaced.
    async fn begin_probation(&mut self, passport: Passport, is_update: bool) {
        let carried = passport.probation;
        if !is_update {
            self.probation = carried.map(|CarriedProbation { row, version, previous, left_ms }| {
                let until = Instant::now() + Duration::from_millis(left_ms);
                Probation { row, version, previous, until, told: None }
            });
            return;
        }
        if let Some(CarriedProbation { row: Some(row), .. }) = carried {
            self.set_outcome(row, "replaced before it was healthy").await;
        }
        let previous = carried.map_or(passport.from.version, |carried| carried.previous);
        let until = Instant::now() + self.config.gateway.probation;
        self.probation = Some(Probation { row: None, version: passport.to.version, previous, until, told: None });
    }

    async fn set_outcome(&self, row: i64, outcome: &str) {
        if let Err(error) = self.store.set_handoff_outcome(row, outcome).await {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
    }

    /// Commits an update whose time of probation is over.
    pub(super) async fn watch_probation(&mut self) {
        let Some(probation) = &self.probation else { return };
        if Instant::now() < probation.until {
            return;
        }
        let Err(why) = self.healthy() else { return self.commit().await };
        let Some(probation) = &mut self.probation else { return };
        probation.until = Instant::now() + Duration::from_secs(5);
        if probation.told.as_ref() != Some(&why) {
            tracing::warn!(why, "still on probation");
            probation.told = Some(why);
        }
    }

    /// Ends a probation early because another handoff is asked for and the image is healthy. One that is not goes on
    /// with it: to reload a better configuration or to update may be what makes it healthy.
    pub(super) async fn settle_probation(&mut self) {
        if self.probation.is_some() && self.healthy().is_ok() {
            self.commit().await;
        }
    }

    /// The links are up or in an orderly retry, and the default agent takes turns.
    fn healthy(&self) -> Result<(), String> {
        for (platform, (link, _)) in &self.links {
            if matches!(link, LinkState::Connecting) {
                return Err(format!("platform '{platform}' has not answered yet"));
            }
        }
        for (name, view, _) in self.gateway.agents() {
            if name.as_str() == "default" && !matches!(view, AgentView::Ready { .. }) {
                return Err(format!("agent '{name}' does not take turns"));
            }
        }
        Ok(())
    }

    async fn commit(&mut self) {
        self.close_books().await;
        let Some(probation) = self.probation.take() else { return };
        let versions = Versions::new(self.home.path());
        // This image read its own version when it began to serve.
        let version = running_version();
        let kept: Vec<Version> = Version::parse(&probation.previous).into_iter().chain([version.clone()]).collect();
        let set = tokio::task::spawn_blocking(move || {
            versions.set_current(&version)?;
            versions.prune(&kept)
        })
        .await;
        match set {
            Ok(Ok(pruned)) => {
                tracing::info!(version = probation.version, pruned = pruned.len(), "update committed");
            }
            Ok(Err(error)) => tracing::error!(error = %Chain(&error), "cannot make the update the current version"),
            Err(error) => tracing::error!(%error, "cannot make the update the current version"),
        }
        clear_failed(&self.store, &running_version()).await;
        if let Some(row) = probation.row {
            self.set_outcome(row, "committed").await;
        }
        self.write_state_file();
    }
}

/// Writes down that a handoff is over, and that this version ran. Beside the loop: the disk may take its time, and
/// nobody who is served waits for this.
async fn keep_books(store: Store, record: HandoffRecord) -> Option<i64> {
    let row = store.record_handoff(&record).await;
    raise_floor(&store).await;
    match row {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot record a handoff");
            None
        }
    }
}
