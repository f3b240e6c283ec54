//! How long nobody was served: a client that asks all the time.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hermes_gateway::control::client::{Client, ClientError};
use serde_json::Value;
use tokio::task::JoinHandle;

/// From one question to the next.
const PERIOD: Duration = Duration::from_millis(4);
/// Whoever is not answered for so long asks over another connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

struct Seen {
    /// The last answer.
    answered: Instant,
    /// The longest time between two answers.
    longest: Duration,
}

impl Watch {
    /// Begins with a gateway that serves.
    pub fn start(socket: &'static Path) -> Self {
        let seen = Arc::new(Mutex::new(Seen { answered: Instant::now(), longest: Duration::ZERO }));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let mut ticks = tokio::time::interval(PERIOD);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Ok(mut client) = Client::connect(socket).await else { continue };
                    // A method that is not there is refused by the gateway's own loop, without any work.
                    while let Err(ClientError::Rpc(_)) =
                        client.request::<Value>("no-such-method", &(), PATIENCE, |_, _| {}).await
                    {
                        seen.lock().expect("no holder panics").answer();
                        ticks.tick().await;
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// The longest time without an answer so far, that which goes on included.
    pub fn longest(&self) -> Duration {
        let seen = self.seen.lock().expect("no holder panics");
        seen.longest.max(seen.answered.elapsed())
    }
}

impl Seen {
    fn answer(&mut self) {
        self.longest = self.longest.max(self.answered.elapsed());
        self.answered = Instant::now();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
