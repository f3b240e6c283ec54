//! The names of lifecycle events, and the fixed ids under which the journal keeps them.
//!
//! An event is one of these when it is logged under its name:
//! `tracing::info!(name: lifecycle::READY, version, "serving")`. In the journal it then has the field
//! `MESSAGE_ID` (systemd.journal-fields(7)), by which a program finds it whatever its words are:
//! `journalctl MESSAGE_ID=<id>`.
//!
//! **Invariant:** an id never changes its meaning and is never used for another event.

/// An image begins to run: started by systemd or a shell, or by a handoff.
pub const STARTED: &str = "hermes.started";
/// The gateway serves.
pub const READY: &str = "hermes.ready";
/// A handoff to another image was asked for and has begun.
pub const HANDOFF_BEGIN: &str = "hermes.handoff_begin";
/// The new image has taken over and proven itself.
pub const HANDOFF_DONE: &str = "hermes.handoff_done";
/// A handoff did not happen or was taken back; the gateway serves on with the image it had.
pub const HANDOFF_FAILED: &str = "hermes.handoff_failed";
/// The gateway ends because it was told to.
pub const STOPPED: &str = "hermes.stopped";
/// An agent process has ended without being told to.
pub const AGENT_DIED: &str = "hermes.agent_died";

/// The ids, made with `systemd-id128 new`.
const IDS: [(&str, &str); 7] = [
    (STARTED, "c7cd3329e5bd41b9b1157c2685b02362"),
    (READY, "66282b83eadd4531ab55554b7d5bcded"),
    (HANDOFF_BEGIN, "39d34e7198b84c7bb8a79df8c47d9b9e"),
    (HANDOFF_DONE, "074c41cedaad45f5bf88532f222a9dea"),
    (HANDOFF_FAILED, "589b169f88324d2693c8dfde4ff17e27"),
    (STOPPED, "b308615003084e9a877f03fb45417b70"),
    (AGENT_DIED, "a2ba7475625d493dba37208f622c721c"),
];

/// The names and ids of all events.
pub fn ids() -> impl Iterator<Item = (&'static str, &'static str)> {
    IDS.into_iter()
}

/// The journal's id of the event with this name; nothing for an event that is not of the lifecycle.
pub fn message_id(name: &str) -> Option<&'static str> {
    IDS.iter().find(|(known, _)| *known == name).map(|&(_, id)| id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_event_has_an_id_of_its_own() {
        let ids: BTreeSet<_> = IDS.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), IDS.len());
        for (name, id) in IDS {
            assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{name}: {id}");
            assert_eq!(message_id(name), Some(id));
        }
        assert_eq!(message_id("event src/x.rs:1"), None);
    }
}
