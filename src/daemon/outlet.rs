//! The daemon's end of a bounded command queue: it never waits, so that no two parts can wait for each other.

use std::collections::VecDeque;

use tokio::sync::mpsc::error::TrySendError;

use crate::agent::{AgentCommand, AgentHandle};
use crate::control::ControlCommand;
use crate::control::server::ControlHandle;
use crate::platform::{PlatformCommand, PlatformHandle};

/// Something that takes commands while it has room.
pub(super) trait Inlet {
    /// What it takes.
    type Command;

    /// Takes a command or gives it back. One that has ended takes everything: it needs no commands.
    fn try_put(&self, command: Self::Command) -> Result<(), Self::Command>;

    /// Whether it has ended.
    fn is_over(&self) -> bool;
}

impl Inlet for AgentHandle {
    type Command = AgentCommand;

    fn try_put(&self, command: AgentCommand) -> Result<(), AgentCommand> {
        match self.try_send(command) {
            Err(command) if !self.is_over() => Err(command),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }
}

impl Inlet for PlatformHandle {
    type Command = PlatformCommand;

    fn try_put(&self, command: PlatformCommand) -> Result<(), PlatformCommand> {
        match self.try_send(command) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(command)) => Err(command),
        }
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }
}

impl Inlet for ControlHandle {
    type Command = ControlCommand;

    fn try_put(&self, command: ControlCommand) -> Result<(), ControlCommand> {
        self.try_send(command).map_err(|command| *command)
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }
}

/// Commands for one inlet, in order. What does not fit waits here.
///
/// **Invariant:** the backlog is bounded by back-pressure, see `Daemon::next_event`.
#[derive(Debug)]
pub(super) struct Outlet<I: Inlet> {
    inlet: I,
    backlog: VecDeque<I::Command>,
}

impl<I: Inlet> Outlet<I> {
    pub(super) fn new(inlet: I) -> Self {
        Self { inlet, backlog: VecDeque::new() }
    }

    pub(super) fn put(&mut self, command: I::Command) {
        self.backlog.push_back(command);
        self.flush();
    }

    /// Hands on what fits now.
    pub(super) fn flush(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(command) = self.inlet.try_put(command) {
                self.backlog.push_front(command);
                return;
            }
        }
    }

    pub(super) fn is_backlogged(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// What takes them.
    pub(super) fn inlet(&self) -> &I {
        &self.inlet
    }

    /// Whether the other end is gone.
    pub(super) fn is_over(&self) -> bool {
        self.inlet.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[derive(Default)]
    struct Narrow {
        room: Cell<usize>,
        got: RefCell<Vec<u32>>,
    }

    impl Inlet for &Narrow {
        type Command = u32;

        fn try_put(&self, command: u32) -> Result<(), u32> {
            if self.room.get() == 0 {
                return Err(command);
            }
            self.room.set(self.room.get() - 1);
            self.got.borrow_mut().push(command);
            Ok(())
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    #[test]
    fn order_is_kept_when_there_is_no_room() {
        let narrow = Narrow::default();
        let mut outlet = Outlet::new(&narrow);
        narrow.room.set(1);
        for command in 1..=3 {
            outlet.put(command);
        }
        assert!(outlet.is_backlogged());
        narrow.room.set(5);
        outlet.put(4);
        assert!(!outlet.is_backlogged());
        assert_eq!(*narrow.got.borrow(), [1, 2, 3, 4]);
    }
}
