//! How the gateway reaches the task of an agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use super::AgentCommand;
use crate::id::AgentName;

/// Commands that may wait; more than the turns and answers of a busy minute.
const COMMANDS_MAX: usize = 256;

/// The sending end of an agent's command queue.
///
/// **Invariants**
/// - Commands are taken in order, and [`AgentCommand::Freeze`] among them: what was queued before it is in the
///   snapshot. [`AgentCommand::Thaw`] alone overtakes, because a frozen task takes nothing else.
/// - When the last handle is dropped the agent is stopped, as by [`AgentCommand::Stop`]; a frozen task only ends.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    name: AgentName,
    commands: mpsc::Sender<AgentCommand>,
    /// How many freezes were queued.
    freezes: Arc<AtomicU64>,
    /// How many of them are over.
    thawed: watch::Sender<u64>,
}

/// The other end.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) commands: mpsc::Receiver<AgentCommand>,
    thawed: watch::Receiver<u64>,
    /// How many freezes were taken out of the queue.
    frozen: u64,
}

impl AgentHandle {
    pub(super) fn new(name: AgentName) -> (Self, Mailbox) {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (thawed, thaws) = watch::channel(0);
        let mailbox = Mailbox { commands: queue, thawed: thaws, frozen: 0 };
        (Self { name, commands, freezes: Arc::default(), thawed }, mailbox)
    }

    /// The agent's name.
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// Queues a command, waiting for room.
    ///
    /// # Errors
    /// Gives the command back if the agent was stopped.
    pub async fn send(&self, command: AgentCommand) -> Result<(), AgentCommand> {
        if matches!(command, AgentCommand::Thaw) {
            self.thaw();
            return Ok(());
        }
        let Ok(room) = self.commands.reserve().await else { return Err(command) };
        self.put(room, command);
        Ok(())
    }

    /// Queues a command if there is room.
    ///
    /// # Errors
    /// Gives the command back if the queue is full or the agent was stopped.
    pub fn try_send(&self, command: AgentCommand) -> Result<(), AgentCommand> {
        if matches!(command, AgentCommand::Thaw) {
            self.thaw();
            return Ok(());
        }
        let Ok(room) = self.commands.try_reserve() else { return Err(command) };
        self.put(room, command);
        Ok(())
    }

    /// Whether the task has ended and takes no command any more.
    pub fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    fn put(&self, room: mpsc::Permit<'_, AgentCommand>, command: AgentCommand) {
        if matches!(command, AgentCommand::Freeze) {
            self.freezes.fetch_add(1, Ordering::Relaxed);
        }
        room.send(command);
    }

    fn thaw(&self) {
        self.thawed.send_replace(self.freezes.load(Ordering::Relaxed));
    }
}

impl Mailbox {
    /// A freeze was taken out of the queue: waits for its end. False if the last handle was dropped instead.
    pub(super) async fn thaw(&mut self) -> bool {
        self.frozen += 1;
        let frozen = self.frozen;
        self.thawed.wait_for(|thawed| *thawed >= frozen).await.is_ok()
    }
}
