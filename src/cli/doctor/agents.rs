//! Whether each agent can be started, as the gateway would.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Check, Finding, Patient};
use crate::agent;
use crate::daemon::Specs;
use crate::report::Chain;

/// How long an agent may take to answer `initialize`.
const DEADLINE: Duration = Duration::from_secs(30);

/// Starts a process of each, beside those of a gateway that runs.
pub(super) async fn agents(patient: &Patient) -> Vec<Finding> {
    let check = Check::Agents;
    let (Some(config), Ok(home)) = (patient.config(), &patient.paths) else {
        return vec![Finding::note(check, "not looked at: the configuration cannot be used")];
    };
    let tried = config.agents.keys().map(async |name| {
        let spec = Specs { config, home }.of(name);
        let command = spec.command.join(" ");
        match agent::probe(spec, None, DEADLINE).await {
            Ok(()) => Finding::ok(check, format!("agent '{name}' starts and answers ({command})")),
            Err(error) => {
                let what = format!("agent '{name}' does not start: {}", Chain(&error));
                let fix =
                    format!("run `{command}` by hand as the gateway's user; its command stands in [agents.{name}]");
                Finding::fail(check, what, fix)
            }
        }
    });
    join_all(tried).await
}
