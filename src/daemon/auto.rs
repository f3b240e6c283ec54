//! Updates that nobody asks for: what [`schedule::decide`] says is done here, and what came of it is told to the agenda.
//!
//! **Invariants**
//! - What is done is in the store before anybody outside hears of it: admins are told once of a version, and a version
//!   that is begun counts as begun whatever becomes of the process.
//! - An update by itself is a handoff as any other, asked for by nobody ([`Origin::Automatic`]).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use semver::Version;

use super::releases::{failed, running_version};
use super::run::Daemon;
use super::state::Origin;
use super::swap::{Pending, Step, Swap};
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{AutoUpdate, UpdateConfig};
use crate::control::proto::{FailedBefore, HandoffKind, HoldParams, HoldStatus, RolloutStatus, UpdateStatus};
use crate::gateway::{Effect, Requester, notice};
use crate::jsonrpc::ErrorObject;
use crate::report::Chain;
use crate::store::Change;
use crate::update::hold::{Hold, parse_until};
use crate::update::known::{AGENDA, HOLD, Known};
use crate::update::schedule::{self, Agenda, Decision, Moment, Offer, Plan};
use crate::update::{Look, UpdateError};
use crate::words::{Held, Updates, Words};

/// What is known of updates, and what is to come.
pub(super) struct Auto {
    plan: Plan,
    agenda: Agenda,
    hold: Option<Hold>,
    since: (UnixMillis, MonoNanos),
    looked: Option<MonoNanos>,
    is_looking: bool,
}

impl Auto {
    /// What the configuration says, and the store has.
    pub(super) fn new(config: &UpdateConfig, known: Known) -> Self {
        let installation = known.installation.unwrap_or_default();
        let plan = Plan::new(config, TimeZone::system(), installation);
        let since = (UnixMillis::now(), MonoNanos::now());
        Self { plan, agenda: known.agenda, hold: known.hold, since, looked: None, is_looking: false }
    }

    fn moment(&self, now: UnixMillis, is_busy: bool) -> Moment<'_> {
        let is_busy = is_busy || self.is_looking;
        Moment {
            now,
            mono: MonoNanos::now(),
            since: self.since,
            looked: self.looked,
            is_busy,
            hold: self.hold.as_ref(),
        }
    }

    /// For the store.
    fn record(&self) -> Effect {
        let text = serde_json::to_string(&self.agenda).expect("plain data serialises");
        Effect::Record(Change::Meta(AGENDA, text))
    }

    /// Local time, for people.
    fn shown(&self, at: UnixMillis) -> String {
        match Timestamp::from_millisecond(at.0) {
            Ok(at) => self.plan.zone().to_datetime(at).strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => "the end of time".to_owned(),
        }
    }
}

impl From<Hold> for HoldStatus {
    fn from(Hold { since, until, by }: Hold) -> Self {
        Self { since, until, by }
    }
}

impl Daemon {
    /// Does what is due; looked at every second.
    pub(super) async fn watch_updates(&mut self) {
        if self.held || self.stopping.is_some() {
            return;
        }
        let now = UnixMillis::now();
        if self.auto.agenda.amend(&self.auto.plan, &running_version(), now) {
            self.carry_out(vec![self.auto.record()]).await;
        }
        // A handoff is refused while an agent that is no longer configured is being stopped.
        let agents_leave = self.agents.keys().any(|agent| !self.config.agents.contains_key(agent));
        let is_busy = !matches!(self.swap, Swap::Idle) || self.probation.is_some() || agents_leave;
        match schedule::decide(&self.auto.plan, &self.auto.agenda, self.auto.moment(now, is_busy)) {
            Decision::Look => self.look_for_releases().await,
            Decision::Notify(offer) => self.tell_available(offer).await,
            Decision::Apply(offer) => self.apply(offer).await,
            Decision::WaitUntil(_) | Decision::Nothing => {}
        }
    }

    /// Beside the loop, and no longer than a download may take.
    async fn look_for_releases(&mut self) {
        self.auto.looked = Some(MonoNanos::now());
        let releases = match self.releases().await {
            Ok(releases) => releases,
            Err(error) => return self.looked(Err(error)).await,
        };
        self.auto.is_looking = true;
        let steps = self.steps.clone();
        tokio::spawn(async move {
            let outcome = releases.look().await;
            drop(steps.send(Step::Looked(outcome)).await);
        });
    }

    /// A look that nobody asked for is over.
    pub(super) async fn looked(&mut self, outcome: Result<Look, UpdateError>) {
        self.auto.is_looking = false;
        let found = match outcome {
            Ok(Look { offer, deferred, .. }) => Ok((offer, deferred)),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot look for releases");
                Err(Chain(&error).to_string())
            }
        };
        self.auto.agenda.looked(UnixMillis::now(), found);
        self.carry_out(vec![self.auto.record()]).await;
    }

    /// Somebody has looked for releases, which needs no other look for now.
    pub(super) async fn learn_releases(&mut self, look: &Look) {
        let found = (look.offer.clone(), look.deferred.clone());
        self.auto.agenda.looked(UnixMillis::now(), Ok(found));
        self.carry_out(vec![self.auto.record()]).await;
    }

    async fn tell_available(&mut self, offer: Offer) {
        let Offer { version, notes_url, .. } = offer;
        tracing::info!(%version, "a release is available");
        self.auto.agenda.told(&version);
        let (version, running) = (version.to_string(), self.image.id.version.clone());
        let told = self.notices_to_admins(|words| words.available(&version, &running, notes_url.as_deref()));
        self.carry_out([self.auto.record()].into_iter().chain(told).collect()).await;
    }

    async fn apply(&mut self, Offer { version, rollout, .. }: Offer) {
        // It may have been taken back since it was offered.
        match failed(&self.store, &version).await {
            Ok(None) => {}
            Ok(Some(reason)) => {
                self.auto.agenda.failed(&version, &reason);
                return self.carry_out(vec![self.auto.record()]).await;
            }
            Err(error) => return self.looked(Err(UpdateError::Known(error))).await,
        }
        self.auto.agenda.begun(&version);
        self.carry_out(vec![self.auto.record()]).await;
        let window = self.config.update.window.map_or(String::new(), |window| format!(", window {window}"));
        let rollout = rollout.map_or(String::new(), |percent| format!(", rolled out to {percent} %"));
        let reason = format!("[update] auto = \"apply\"{window}{rollout}");
        let kind = HandoffKind::Update { version: Some(version.to_string()), dry_run: false };
        self.request_handoff(kind, false, Some(reason), Origin::Automatic).await;
    }

    /// An update that nobody asked for did not come about. While it is tried again by itself, admins are not told.
    pub(super) async fn automatic_update_failed(&mut self, pending: &Pending, reason: &str) {
        if let HandoffKind::Update { version: Some(version), .. } = &pending.kind
            && let Ok(version) = Version::parse(version)
        {
            let again = !pending.is_refused && self.auto.agenda.cut_short(&version, UnixMillis::now(), reason);
            if !again {
                self.auto.agenda.failed(&version, reason);
            }
            self.carry_out(vec![self.auto.record()]).await;
            if again {
                return;
            }
        }
        let (kind, running) = (pending.kind_name(), self.image.id.version.clone());
        self.tell_admins(|words| words.by_itself(&words.handoff_failed(kind, reason, &running))).await;
    }

    /// `/update hold` and `/update unhold`. The answer is pushed to `effects`, with the end of the message that asked.
    pub(super) async fn hold_for_chat(
        &mut self,
        hold: bool,
        until: Option<&str>,
        by: &Requester,
        effects: &mut Vec<Effect>,
    ) {
        let was_held = self.is_held();
        let who = format!("{} (id {})", by.sender.name, by.sender.id);
        let outcome = self.set_hold(hold, until, who).await;
        let end = self.auto.hold.as_ref().and_then(|hold| hold.until).map(|until| self.auto.shown(until));
        let what = match &outcome {
            Ok(()) if hold => Held::Until(end.as_deref()),
            Ok(()) if was_held => Held::GoesOn,
            Ok(()) => Held::WasNot,
            Err(reason) => Held::Failed(reason),
        };
        let told = self.gateway.words(&by.conversation).held(what);
        effects.extend([Effect::Close(by.turn), notice(&by.conversation, told)]);
    }

    /// The same for a control client.
    pub(super) async fn hold_for_client(
        &mut self,
        hold: bool,
        params: HoldParams,
        uid: u32,
    ) -> Result<UpdateStatus, ErrorObject> {
        let outcome = self.set_hold(hold, params.until.as_deref(), format!("uid {uid}")).await;
        outcome.map(|()| self.update_status()).map_err(|reason| ErrorObject::new(ErrorObject::INVALID_PARAMS, reason))
    }

    async fn set_hold(&mut self, hold: bool, until: Option<&str>, by: String) -> Result<(), String> {
        let now = UnixMillis::now();
        let until = until.map(|text| parse_until(text, now, self.auto.plan.zone())).transpose();
        let until = until.map_err(|error| error.to_string())?;
        let hold = hold.then_some(Hold { since: now, until, by });
        self.store.set_meta(HOLD, Hold::stored(hold.as_ref())).await.map_err(|error| Chain(&error).to_string())?;
        tracing::info!(hold = ?hold, "updates by itself are held, or no longer");
        self.auto.hold = hold;
        Ok(())
    }

    fn is_held(&self) -> bool {
        self.auto.hold.as_ref().is_some_and(|hold| hold.holds(UnixMillis::now()))
    }

    /// What `status` says of updates.
    pub(super) fn update_status(&self) -> UpdateStatus {
        let (config, now) = (&self.config.update, UnixMillis::now());
        let Auto { plan, agenda, hold, since, .. } = &self.auto;
        let held = hold.as_ref().filter(|hold| hold.holds(now));
        let deferred = agenda.deferred.as_ref();
        let available = deferred.or(agenda.offer.as_ref()).map(|offer| offer.version.to_string());
        let failed = agenda
            .last_failure()
            .map(|(version, reason)| FailedBefore { version: version.to_string(), reason: reason.to_owned() });
        UpdateStatus {
            auto: config.auto.as_str().to_owned(),
            channel: config.channel.as_str().to_owned(),
            window: config.window.map(|window| window.to_string()),
            last_check_at: agenda.last_check_at,
            last_error: agenda.last_error.clone(),
            next_check_at: plan.next_check(agenda, since.0),
            available,
            deferred: deferred
                .and_then(|offer| offer.rollout)
                .map(|percent| RolloutStatus { percent, included: Some(false) }),
            apply_at: plan.next_apply(agenda, held, now),
            held: self.hold_status(),
            failed,
        }
    }

    /// Who holds updates.
    pub(super) fn hold_status(&self) -> Option<HoldStatus> {
        self.auto.hold.clone().filter(|hold| hold.holds(UnixMillis::now())).map(HoldStatus::from)
    }

    /// The line about updates in `/status`; none if nothing happens by itself and nothing is held.
    pub(super) fn updates_line(&self, words: &dyn Words) -> Option<String> {
        let status = self.update_status();
        if self.config.update.auto == AutoUpdate::Off && status.held.is_none() {
            return None;
        }
        let until = status.held.as_ref().map(|hold| hold.until.map(|until| self.auto.shown(until)));
        Some(words.updates(&Updates {
            applies: self.config.update.auto == AutoUpdate::Apply,
            window: status.window.as_deref(),
            available: status.available.as_deref(),
            deferred: status.deferred.map(|rollout| rollout.percent),
            held: until.as_ref().map(Option::as_deref),
            error: status.last_error.as_deref(),
            next_check: status.next_check_at.map(|at| at.since(UnixMillis::now())),
        }))
    }
}
