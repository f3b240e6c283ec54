//! The service that a command is about, and the look whether it is well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::args::ScopeArgs;
use super::error::ServiceError;
use crate::cli::error::CliError;
use crate::cli::handoff;
use crate::cli::home::Home;
use crate::config::Environment;
use crate::control::proto::Status;
use crate::report::Chain;
use crate::service::layout::Layout;
use crate::service::manager::{Manager, Scope, UNIT, UnitState};
use crate::service::package::{self, Package};
use crate::service::unit_file::{self, UnitFile, UnitKind};

/// How long a gateway whose unit is active may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Lines of the journal that are shown of a gateway that does not come up.
const JOURNAL_LINES: u16 = 15;

/// A service in one scope.
pub(in crate::cli) struct Target {
    pub(in crate::cli) env: Environment,
    pub(in crate::cli) layout: Layout,
    pub(in crate::cli) manager: Manager,
    /// The package that owns it.
    pub(in crate::cli) package: Option<Package>,
}

impl Target {
    /// The service that was typed, or the default of whoever typed.
    pub(in crate::cli) fn of(args: ScopeArgs, home: Option<PathBuf>, user: Option<&str>) -> Result<Self, ServiceError> {
        let env = Environment::from_process();
        let named = home.clone().or_else(|| env.get("HERMES_HOME").map(PathBuf::from));
        Self::new(args.scope(named.as_deref(), &env), home, user)
    }

    /// The service of a scope. `home` is that of `--home`; for a service of a user `HERMES_HOME` counts, too.
    pub(in crate::cli) fn new(scope: Scope, home: Option<PathBuf>, user: Option<&str>) -> Result<Self, ServiceError> {
        let env = Environment::from_process();
        let layout = match scope {
            Scope::System => Layout::system(user, home.as_deref()),
            Scope::User => {
                let home = home.or_else(|| env.get("HERMES_HOME").map(PathBuf::from));
                let home = home.unwrap_or_else(|| env.user_home().join(".hermes"));
                let home = std::path::absolute(&home).unwrap_or(home);
                Layout::user(&env, &home)
            }
        };
        let layout = layout.map_err(ServiceError::Layout)?;
        let package = match scope {
            Scope::System => package::owner(&layout.home, Path::new("")),
            Scope::User => None,
        };
        let manager = Manager::new(scope, &env);
        Ok(Self { env, layout, manager, package })
    }

    pub(in crate::cli) fn home(&self) -> Home {
        Home::at(self.layout.home.clone(), &self.env)
    }

    /// Refuses anybody but root to change the system service.
    pub(in crate::cli) fn check_rights(&self, what: &'static str) -> Result<(), ServiceError> {
        let refused = self.layout.scope == Scope::System && !nix::unistd::geteuid().is_root();
        if refused { Err(ServiceError::NotRoot { what }) } else { Ok(()) }
    }

    pub(in crate::cli) async fn state(&self, unit: &str) -> Result<UnitState, ServiceError> {
        self.manager.state(unit).await.map_err(ServiceError::Manager)
    }

    /// What an installed unit file is; a package's are its own business.
    pub(in crate::cli) fn unit_file(&self, kind: UnitKind) -> Result<UnitFile, ServiceError> {
        self.look(kind, kind.path(&self.layout))
    }

    /// What the file is that systemd has loaded: a package's is foreign.
    pub(in crate::cli) fn loaded_file(&self, state: &UnitState) -> Result<UnitFile, ServiceError> {
        let path = state.file.clone().unwrap_or_else(|| UnitKind::Gateway.path(&self.layout));
        self.look(UnitKind::Gateway, path)
    }

    fn look(&self, kind: UnitKind, path: PathBuf) -> Result<UnitFile, ServiceError> {
        let wanted = unit_file::text(kind, &self.layout, &self.env);
        unit_file::look(&path, &wanted).map_err(ServiceError::io("read", path))
    }

    /// The home that the installed unit serves; nothing if there is none of hermes.
    pub(in crate::cli) fn unit_home(&self) -> Result<Option<PathBuf>, ServiceError> {
        let path = UnitKind::Gateway.path(&self.layout);
        let usual = match self.layout.scope {
            Scope::System => self.layout.home.clone(),
            Scope::User => self.env.user_home().join(".hermes"),
        };
        unit_file::home(&path, usual).map_err(ServiceError::io("read", path))
    }

    /// All homes of a user share one unit: refuses that of another home.
    pub(in crate::cli) fn check_unit_home(&self) -> Result<(), ServiceError> {
        match self.unit_home()? {
            Some(home) if home != self.layout.home => Err(ServiceError::OtherUnit { serves: home }),
            _ => Ok(()),
        }
    }

    /// What the running gateway says, once it is well.
    ///
    /// # Errors
    /// [`ServiceError::NotUp`] with the end of the journal.
    pub(in crate::cli) async fn wait_healthy(&self) -> Result<Status, ServiceError> {
        let home = self.home();
        let until = Instant::now() + HEALTH_TIMEOUT;
        loop {
            let why = match handoff::status_of(&home).await {
                Ok(status) if handoff::is_settled(&status) => return Ok(status),
                Ok(status) => format!("it is {} ({})", status.gateway_state, status.phase),
                Err(error) => Chain(&error).to_string(),
            };
            let state = self.state(UNIT).await?;
            if !state.is_up() || Instant::now() >= until {
                return Err(self.not_up(format!("{why}; the unit is {} ({})", state.active, state.sub)).await);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// As `status`, once the gateway knows the digest of its image: one that has just started is still measuring it.
    pub(in crate::cli) async fn measured(&self, mut status: Status) -> Result<Status, CliError> {
        let home = self.home();
        let until = Instant::now() + HEALTH_TIMEOUT;
        while status.image.sha256.is_empty() && Instant::now() < until {
            sleep(LOOK_AGAIN).await;
            status = handoff::status_of(&home).await.map_err(|error| CliError::client(error, &home.path))?;
        }
        Ok(status)
    }

    /// The enabled sockets that systemd does not listen on.
    pub(in crate::cli) async fn closed_sockets(&self) -> Result<Vec<&'static str>, ServiceError> {
        let mut closed = Vec::new();
        for name in UnitKind::SOCKETS.map(UnitKind::name) {
            let state = self.state(name).await?;
            if state.enabled == "enabled" && !state.is_up() {
                closed.push(name);
            }
        }
        Ok(closed)
    }

    /// Starts the unit, which may run already, and waits until the gateway is well.
    pub(in crate::cli) async fn start(&self) -> Result<Status, ServiceError> {
        // The sockets first: a unit that runs is not given them any more.
        if !self.state(UNIT).await?.is_up() {
            self.manager.order("start", &self.closed_sockets().await?).await.map_err(ServiceError::Manager)?;
        }
        if let Err(error) = self.manager.order("start", &[UNIT]).await {
            return Err(self.not_up(Chain(&error).to_string()).await);
        }
        self.wait_healthy().await
    }

    async fn not_up(&self, why: String) -> ServiceError {
        let user = if self.layout.scope == Scope::User { "--user " } else { "" };
        ServiceError::NotUp {
            why,
            journal: self.manager.journal(UNIT, JOURNAL_LINES).await,
            look: format!("journalctl {user}-u {UNIT} -e"),
        }
    }

    /// The gateway that runs on the home, if one does; refuses one that the unit has not started.
    pub(in crate::cli) async fn running(&self) -> Result<Option<Status>, CliError> {
        let home = self.home();
        let failed = |error| CliError::client(error, &home.path);
        let mut client = match home.connect().await.map_err(failed) {
            Ok(client) => client,
            Err(CliError::NotRunning { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let status = handoff::status(&mut client).await.map_err(failed)?;
        let unit = self.state(UNIT).await.map_err(CliError::Service)?;
        if unit.main_pid != Some(status.pid) {
            let outside = ServiceError::Outside { home: home.path.clone(), pid: status.pid };
            return Err(CliError::Service(outside));
        }
        Ok(Some(status))
    }
}
