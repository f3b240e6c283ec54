//! Somebody who says something again and again.

use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use super::people::Say;

/// What is said, and how often.
#[derive(Clone, Debug, Deserialize)]
pub struct Plan {
    /// Who says it.
    pub user: String,
    /// In a group; none is the chat with the bot alone.
    #[serde(default)]
    pub group: Option<String>,
    /// What, before its number, which begins at 1.
    pub prefix: String,
    /// Milliseconds between two.
    pub every_ms: u64,
    /// How often; none is until the pusher is dropped.
    #[serde(default)]
    pub times: Option<u64>,
}

/// Says it until it is dropped. What was said is in [`super::state::State::pushes`].
pub struct Pusher {
    task: JoinHandle<()>,
}

impl Pusher {
    /// Begins.
    pub fn start(shared: Shared, plan: Plan) -> Self {
        Self { task: tokio::spawn(run(shared, plan)) }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says everything of a plan.
pub async fn run(shared: Shared, plan: Plan) {
    let mut ticks = interval(Duration::from_millis(plan.every_ms.max(1)));
    // Every one is said, if late.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1..=plan.times.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let (user, group) = (plan.user.clone(), plan.group.clone());
        let say = Say { user, group, text: format!("{}{number}", plan.prefix), ..Say::default() };
        shared.change(|state| state.say(&say));
    }
}
