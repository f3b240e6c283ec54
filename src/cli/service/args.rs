//! `hermes gateway install|uninstall|start|list|adopt`.

use std::path::Path;

use clap::Args;

use crate::cli::args::JsonArgs;
use crate::cli::home::means_the_machine;
use crate::config::Environment;
use crate::service::manager::Scope;

/// Which service manager is meant.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ScopeArgs {
    /// The machine's service, with the home /var/lib/hermes [default for root, unless another home is named or there is a ~/.hermes].
    #[arg(long)]
    pub system: bool,
    /// A service of this user, with the home ~/.hermes [default for everyone else].
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
}

impl ScopeArgs {
    /// What was typed, or the default of whoever types. `home` is the one that is named.
    pub(super) fn scope(self, home: Option<&Path>, env: &Environment) -> Scope {
        let of_machine = self.system || (!self.user && means_the_machine(home, env));
        if of_machine { Scope::System } else { Scope::User }
    }
}

/// `hermes gateway install`.
#[derive(Clone, Debug, Default, Args)]
pub struct InstallArgs {
    /// See [`ScopeArgs`].
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// The user that the system service runs as [default: hermes, which is created].
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    pub run_as_user: Option<String>,
    /// Let systemd hold the control socket, too, so that whoever connects starts the gateway.
    #[arg(long)]
    pub socket: bool,
    /// Let systemd hold the listener of Telegram's webhook, too.
    #[arg(long)]
    pub webhook: bool,
    /// Let systemd hold the listener of the web pages, too, so that a visit starts the gateway.
    #[arg(long)]
    pub web: bool,
    /// Replace unit files that were changed by hand, or are somebody else's.
    #[arg(long)]
    pub force: bool,
    /// Do not start the gateway.
    #[arg(long)]
    pub no_start: bool,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes gateway uninstall`.
#[derive(Clone, Copy, Debug, Args)]
pub struct UninstallArgs {
    /// See [`ScopeArgs`].
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Remove the home with everything in it, too: configuration, messages, versions.
    #[arg(long)]
    pub purge: bool,
    /// Remove unit files that are somebody else's.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes gateway start`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StartArgs {
    /// See [`ScopeArgs`].
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}
