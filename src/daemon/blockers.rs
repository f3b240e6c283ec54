//! What would hold up or refuse a restart now, in words: what people want to know before they ask for one.

use std::time::Duration;

use super::advice::advice;
use super::pulse::Health;
use super::run::Daemon;
use super::swap::Swap;
use crate::clock::UnixMillis;
use crate::config::Environment;
use crate::control::proto::Blocker;

/// A restart would not come about.
const REFUSES: &str = "refuses";
/// It would wait.
const DELAYS: &str = "delays";
/// It would work, and a crash would cost more than it should.
const RISKS: &str = "risks";

impl Daemon {
    /// All there is, the worst first.
    pub(super) fn blockers(&mut self) -> Vec<Blocker> {
        let mut found = self.refusals();
        if let Some(why) = self.refused_config() {
            found.push(blocker(REFUSES, format!("the configuration on disk is not usable: {why}"), None));
        }
        found.extend(self.delays());
        found.extend(self.risks());
        found
    }

    fn refusals(&self) -> Vec<Blocker> {
        let mut found = Vec::new();
        if let Some(why) = &self.stopping {
            found.push(blocker(REFUSES, format!("the gateway stops ({why})"), None));
        }
        if let Swap::Preparing(pending) = &self.swap {
            let (kind, who, phase) = (pending.kind_name(), pending.origin.who(), pending.timeline.phase());
            let waiting = self.waiting_for().map_or(String::new(), |what| format!(", waiting for {what}"));
            let what = format!("a handoff is under way: {kind}, asked for by {who}, at {phase}{waiting}");
            found.push(blocker(REFUSES, what, Some(pending.started_at)));
        }
        for agent in self.agents.keys().filter(|agent| !self.config.agents.contains_key(agent)) {
            found.push(blocker(REFUSES, format!("agent '{agent}' is no longer configured and is being ended"), None));
        }
        match self.pulse.health() {
            Health::Fine => {}
            Health::Hangs(time) => {
                let what = "the database does not answer; the disk may be full or hang".to_owned();
                found.push(blocker(REFUSES, what, Some(before(time))));
            }
            Health::Broken => {
                let what = "the database does not work; the journal says why".to_owned();
                found.push(blocker(REFUSES, what, None));
            }
        }
        found
    }

    /// What is being sent is waited for.
    fn delays(&self) -> Vec<Blocker> {
        let longest = self.config.gateway.restart_drain_timeout.as_secs();
        let of = |(name, load): (_, crate::platform::Load)| {
            let what = format!("platform '{name}' is sending ({}); waited for at most {longest} s", load.sending);
            (load.sending > 0).then(|| blocker(DELAYS, what, load.sending_since))
        };
        self.platforms.iter().map(|(name, outlet)| (name, outlet.inlet().load())).filter_map(of).collect()
    }

    fn risks(&self) -> Vec<Blocker> {
        let mut found = Vec::new();
        if let Some(advice) = advice(&Environment::from_process(), std::process::id()) {
            found.push(blocker(RISKS, advice.text().to_owned(), None));
        } else if !self.keeper.has_fd_store() {
            let what = "the unit has no fd store: a crash costs the agents and their turns; set \
                        FileDescriptorStoreMax=512 in the unit";
            found.push(blocker(RISKS, what.to_owned(), None));
        }
        found
    }
}

fn blocker(effect: &str, what: String, since: Option<UnixMillis>) -> Blocker {
    Blocker { effect: effect.to_owned(), what, since }
}

fn before(time: Duration) -> UnixMillis {
    UnixMillis(UnixMillis::now().0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}
