//! How agents are started, by the configuration.

use crate::agent::AgentSpec;
use crate::config::{Config, Home};
use crate::id::AgentName;

/// What the specification of an agent is made of.
#[derive(Clone, Copy)]
pub(crate) struct Specs<'a> {
    pub(crate) config: &'a Config,
    pub(crate) home: &'a Home,
}

impl Specs<'_> {
    /// That of an agent; one that is not configured (any more) is not started again.
    pub(crate) fn of(self, name: &AgentName) -> AgentSpec {
        let spec = match self.config.agents.get(name) {
            Some(agent) => AgentSpec {
                name: name.clone(),
                command: agent.command.clone(),
                cwd: agent.cwd.clone(),
                env: agent.env.clone(),
                withheld: self.config.secret_variables.clone(),
                ..AgentSpec::gone(name)
            },
            None => AgentSpec::gone(name),
        };
        AgentSpec { outgoing: self.home.outgoing(), ..spec }
    }
}
