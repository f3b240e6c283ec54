//! What follows a handoff in the new image: it is told, watched, and committed.

use std::time::Duration;

use tokio::time::Instant;

use super::run::Daemon;
use super::state::Passport;
use crate::chat::LinkState;
use crate::clock::MonoNanos;
use crate::gateway::AgentView;
use crate::handoff::Phase;
use crate::report::Chain;
use crate::store::HandoffRecord;
use crate::telemetry::lifecycle;
use crate::update::Versions;
use semver::Version;

/// An update that has not proven itself yet.
pub(super) struct Probation {
    /// Its row in the history.
    row: Option<i64>,
    version: String,
    /// What ran before.
    previous: String,
    until: Instant,
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
        let is_update = passport.kind == "update";
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
        let row = match self.store.record_handoff(&record).await {
            Ok(row) => Some(row),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot record a handoff");
                None
            }
        };
        if is_update {
            let until = Instant::now() + self.config.gateway.probation;
            self.probation =
                Some(Probation { row, version: passport.to.version, previous: passport.from.version, until });
        }
    }

    /// Commits an update whose time of probation is over.
    pub(super) async fn watch_probation(&mut self) {
        let Some(probation) = &mut self.probation else { return };
        if Instant::now() < probation.until {
            return;
        }
        if let Err(why) = self.healthy() {
            tracing::warn!(why, "still on probation");
            if let Some(probation) = &mut self.probation {
                probation.until = Instant::now() + Duration::from_secs(5);
            }
            return;
        }
        self.commit().await;
    }

    /// Ends a probation early because another handoff is asked for: an image that is healthy is committed, one that
    /// is not must first become so.
    pub(super) async fn settle_probation(&mut self) -> Result<(), String> {
        let Some(probation) = &self.probation else { return Ok(()) };
        let version = probation.version.clone();
        self.healthy().map_err(|why| format!("{version} is on probation and not healthy yet: {why}"))?;
        self.commit().await;
        Ok(())
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
        let Some(probation) = self.probation.take() else { return };
        let versions = Versions::new(self.home.path());
        let [version, previous] = [&probation.version, &probation.previous]
            .map(|version| Version::parse(version).expect("a version that ran is one"));
        let set = tokio::task::spawn_blocking(move || {
            versions.set_current(&version)?;
            versions.prune(&[version, previous])
        })
        .await;
        match set {
            Ok(Ok(pruned)) => {
                tracing::info!(version = probation.version, pruned = pruned.len(), "update committed");
            }
            Ok(Err(error)) => tracing::error!(error = %Chain(&error), "cannot make the update the current version"),
            Err(error) => tracing::error!(%error, "cannot make the update the current version"),
        }
        if let Some(row) = probation.row
            && let Err(error) = self.store.set_handoff_outcome(row, "committed").await
        {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
        self.write_state_file();
    }
}
