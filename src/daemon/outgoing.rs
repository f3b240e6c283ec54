//! How agents are started, and where and for how long the files in their answers are kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::AgentSpec;
use crate::config::{Config, Home};
use crate::id::{AgentName, TurnId};
use crate::report::Chain;
use crate::store::{Store, StoreError};

/// From the start of a process to its first look for files that are of no use any more: not while it is busy with that.
const FIRST_SWEEP: Duration = Duration::from_secs(60);
/// From one look to the next.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);

/// What the specification of an agent is made of.
#[derive(Clone, Copy)]
pub(super) struct Specs<'a> {
    pub(super) config: &'a Config,
    pub(super) home: &'a Home,
}

impl Specs<'_> {
    /// That of an agent; one that is not configured (any more) is not started again.
    pub(super) fn of(self, name: &AgentName) -> AgentSpec {
        let spec = match self.config.agents.get(name) {
            Some(agent) => AgentSpec {
                name: name.clone(),
                command: agent.command.clone(),
                cwd: agent.cwd.clone(),
                env: agent.env.clone(),
                ..AgentSpec::gone(name)
            },
            None => AgentSpec::gone(name),
        };
        AgentSpec { outgoing: self.home.outgoing(), ..spec }
    }
}

/// Removes, every hour, the files of turns that the store has forgotten. It is never over.
pub(super) async fn keep_swept(store: Store, outgoing: PathBuf) {
    let mut wait = FIRST_SWEEP;
    loop {
        tokio::time::sleep(wait).await;
        if let Err(error) = sweep(&store, &outgoing).await {
            tracing::warn!(error = %Chain(&error), "files in old answers are not removed");
        }
        wait = SWEEP_PERIOD;
    }
}

async fn sweep(store: &Store, outgoing: &Path) -> Result<(), StoreError> {
    let listed = {
        let outgoing = outgoing.to_owned();
        tokio::task::spawn_blocking(move || turns_in(&outgoing)).await
    };
    let turns = listed.unwrap_or_default();
    let forgotten = store.forgotten(turns).await?;
    let outgoing = outgoing.to_owned();
    let removed = tokio::task::spawn_blocking(move || {
        for turn in forgotten {
            match fs::remove_dir_all(outgoing.join(turn.0.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%turn, %error, "the files in an old answer cannot be removed");
                }
                _ => {}
            }
        }
    });
    // A panic in it was told by the hook, and nothing else depends on it.
    drop(removed.await);
    Ok(())
}

/// The turns that have a directory.
fn turns_in(outgoing: &Path) -> Vec<TurnId> {
    let Ok(entries) = fs::read_dir(outgoing) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(TurnId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Conversation, Inbound, Sender};
    use crate::clock::UnixMillis;
    use crate::store::{Accepted, Change};

    #[tokio::test]
    async fn files_are_kept_as_long_as_their_turn_is_known_and_no_longer() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let inbound = Inbound {
            conversation: Conversation::new("telegram", "1"),
            account: "bot".into(),
            message_id: "1".into(),
            sender: Sender { id: "1".into(), name: "Ann".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        };
        let Accepted::New(known) = store.accept(&inbound).await.expect("accepts") else { panic!("a new message") };
        let outgoing = dir.path().join("out");
        sweep(&store, &outgoing).await.expect("there is nothing");
        for name in [known.0.to_string().as_str(), "77", "notes"] {
            fs::create_dir_all(outgoing.join(name)).expect("creates");
            fs::write(outgoing.join(name).join("0-a"), "a").expect("writes");
        }
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(&outgoing).expect("lists").map(|e| e.expect("lists").file_name()).collect();
            names.sort();
            names
        };
        store.change(vec![Change::Close(known)]).await.expect("records");
        sweep(&store, &outgoing).await.expect("sweeps");
        assert_eq!(left(), [known.0.to_string().as_str(), "notes"]);
    }
}
