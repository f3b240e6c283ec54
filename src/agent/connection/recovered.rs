//! A connection whose gateway was killed.

use super::{Call, Connection, Stage};
use crate::agent::{RecoveredPermission, TurnOutcome, acp};
use crate::clock::MonoNanos;
use crate::id::{SessionId, TurnId};

/// What a turn ends with if nobody knows whether the agent has its prompt.
const HANDED_OVER: &str = "the gateway was killed while it handed the message over, and it is not known whether the \
                           agent has it; /retry asks again";

impl Connection {
    /// The writer was killed in a write of `count` bytes: nobody knows which of them the agent has.
    ///
    /// A request that belongs to a turn is never sent again, because it may be in the agent's history already: the turn
    /// ends, and the agent is asked to cancel what it may have begun, which means nothing to one that has not. Answers
    /// and cancellations are sent again: an answer that comes twice answers nothing that is open, and one that never
    /// comes would leave the agent waiting. `initialize` is left to its deadline. The history of a turn that is taken up
    /// is asked for once more.
    pub(in crate::agent) fn settle_doubt(&mut self, now: MonoNanos, count: usize) {
        self.replay_again();
        for id in self.outgoing.doubt(count) {
            let turn = match self.calls.get(&id) {
                Some(Call::NewSession { turn, .. } | Call::LoadSession { turn, .. } | Call::Prompt { turn }) => *turn,
                Some(Call::Initialize { .. }) | None => continue,
            };
            self.calls.remove(&id);
            if self.resume_again(now, turn) {
                continue;
            }
            let session = self.turns.get(&turn).and_then(|turn| turn.session().cloned());
            self.end_turn(turn, TurnOutcome::Failed { reason: HANDED_OVER.to_owned() });
            if let Some(session) = session {
                self.notify(acp::SESSION_CANCEL, acp::cancel_params(&session));
            }
        }
    }

    /// The turns in flight, with their sessions as far as they are known and their open permission requests.
    pub(in crate::agent) fn open_turns(
        &self,
    ) -> impl Iterator<Item = (TurnId, Option<SessionId>, Vec<RecoveredPermission>)> {
        self.turns.iter().map(|(id, turn)| {
            let session = match &turn.stage {
                Stage::Waiting { session, .. } => session.clone(),
                Stage::Opening { .. }
                | Stage::Loading(_)
                | Stage::Running { .. }
                | Stage::Cancelling { .. }
                | Stage::Resuming(_) => turn.session().cloned(),
            };
            (*id, session, self.asked(*id))
        })
    }
}
