//! The unit that is drilled, and what is seen of it. Nothing here gives up when the gateway is in a bad state: that is
//! what is to be told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hermes_gateway::control::client::Client;
use hermes_gateway::control::proto::{self, Status};

use crate::releases::Releases;
use crate::rows::{Ask, NEW, OLD, Row, Trouble};
use crate::systemd::Systemd;
use crate::telegram::TelegramServer;
use crate::unit::{HOME, SOCKET, UNIT, Unit};

pub const ADMIN: i64 = 1001;
pub const USER: i64 = 1002;

/// A home as it is installed, from which each row starts.
const PRISTINE: &str = "/var/lib/hermes-pristine";
/// Where the gateway finds the faults.
const FAULTS_DIR: &str = "/var/lib/hermes-faults";
const FAULTS: &str = "/var/lib/hermes-faults/plan";
/// When it is there, a process of the agent asks for a restart.
const ASK: &str = "/var/lib/hermes-faults/ask";
const ASKED: &str = "/var/lib/hermes-faults/asked";
/// An answer to `status` takes no longer.
const SOON: Duration = Duration::from_secs(1);

/// Quicker than in production, and with an end of all memory.
const DROP_IN: &str = "[Service]\nRestartSec=200ms\nTimeoutStopSec=10s\nWatchdogSec=10s\n\
    MemoryMax=400M\nMemorySwapMax=0\nEnvironment=HERMES_FAULTS=/var/lib/hermes-faults/plan\n";

/// The installed unit.
pub struct Bed<'a> {
    systemd: &'a Systemd,
    pub restart: String,
    releases: Releases,
}

impl<'a> Bed<'a> {
    /// Installs the unit. It does not run yet.
    pub fn install(systemd: &'a Systemd, binary: &Path, restart: &str, releases: Releases) -> Result<Self> {
        Unit::install_with(systemd, binary, restart, "", DROP_IN);
        run("cp", &["-a", HOME, PRISTINE])?;
        fs::create_dir_all(FAULTS_DIR)?;
        run("chown", &["hermes:hermes", FAULTS_DIR])?;
        Ok(Self { systemd, restart: restart.to_owned(), releases })
    }

    /// Stops the unit. Returns whether that left a process behind.
    pub fn stop(&self) -> bool {
        self.systemctl(&["stop", UNIT]);
        let left = !self.systemd.processes(UNIT).is_empty();
        self.systemctl(&["kill", "--kill-whom=all", "--signal=KILL", UNIT]);
        self.systemctl(&["reset-failed", UNIT]);
        left
    }

    /// Puts everything into the state before the first start.
    pub fn reset(&self, row: &Row, telegram: &TelegramServer) -> Result<()> {
        let versions = format!("{HOME}/versions");
        // Mounted by a row before.
        let _not_mounted = Command::new("umount").args(["--quiet", &versions]).status();
        Self::clear()?;
        self.configure(row, telegram, row.trouble == Trouble::SilentAgent && row.ask == Ask::Start)?;
        if row.trouble == Trouble::ReadOnly {
            run("mount", &["--bind", &versions, &versions])?;
            run("mount", &["-o", "remount,bind,ro", &versions])?;
        }
        Ok(())
    }

    /// A home as it was installed, and no faults.
    pub fn clear() -> Result<()> {
        fs::remove_dir_all(HOME).context("cannot clear the home")?;
        run("cp", &["-a", PRISTINE, HOME])?;
        for file in [FAULTS, ASK, ASKED] {
            let _was_not_there = fs::remove_file(file);
        }
        Ok(())
    }

    /// Writes gateway.toml; with a silent agent, if that is wanted, in the place of the real one.
    pub fn configure(&self, row: &Row, telegram: &TelegramServer, silent: bool) -> Result<()> {
        let hermes = format!("{HOME}/versions/{OLD}/hermes");
        let asks = format!(
            "(while [ ! -e {ASK} ]; do sleep 0.02; done; {hermes} gateway restart >{ASKED}.new 2>&1; \
             echo \"exit code $?\" >>{ASKED}.new; mv {ASKED}.new {ASKED}) </dev/null >/dev/null & exec {hermes} agent echo"
        );
        let command = match () {
            () if silent => "[\"sleep\", \"infinity\"]".to_owned(),
            () if row.ask == Ask::Agent => format!("[\"sh\", \"-c\", {}]", serde_json::to_string(&asks)?),
            () => "[\"hermes\", \"agent\", \"echo\"]".to_owned(),
        };
        let config = format!(
            "[gateway]\nrestart_drain_timeout = \"1s\"\nprobation = \"1s\"\nhandoff_timeout = \"2s\"\n\
             [agents.default]\ncommand = {command}\ncwd = \"{HOME}\"\n\
             [platforms.telegram]\ntoken = \"{}\"\napi_url = \"{}\"\nallow_from = [{USER}]\nallow_admin_from = [{ADMIN}]\n\
             gateway_restart_notification = false\n{}",
            telegram.token(),
            telegram.url(),
            self.releases.config(row.image),
        );
        Self::write_config(&config)
    }

    /// Writes this as gateway.toml.
    pub fn write_config(text: &str) -> Result<()> {
        fs::write(Path::new(HOME).join("gateway.toml"), text)?;
        run("chown", &["hermes:hermes", &format!("{HOME}/gateway.toml")])
    }

    /// Where the images are.
    pub fn versions(&self) -> PathBuf {
        Path::new(HOME).join("versions")
    }

    /// Starts the unit and does not wait for it.
    pub fn start(&self) {
        self.systemctl(&["reset-failed", UNIT]);
        self.systemctl(&["start", "--no-block", UNIT]);
    }

    /// Plans faults: lines for `src/fault.rs`.
    pub fn plan(&self, faults: &[String]) -> Result<()> {
        let new = format!("{FAULTS}.drill");
        fs::write(&new, faults.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        run("chown", &["hermes:hermes", &new])?;
        Ok(fs::rename(new, FAULTS)?)
    }

    /// The faults that happen once and have not happened.
    pub fn planned(&self) -> Vec<String> {
        let text = fs::read_to_string(FAULTS).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty() && !line.ends_with(" always")).map(str::to_owned).collect()
    }

    /// Lets a process of the agent ask for a restart.
    pub fn let_agent_ask(&self) -> Result<()> {
        Ok(fs::write(ASK, "")?)
    }

    /// What that process was told, once it was.
    pub fn agent_was_told(&self) -> Option<String> {
        fs::read_to_string(ASKED).ok()
    }

    /// What the gateway says about itself, if it answers.
    pub async fn status(&self) -> Option<Status> {
        let ask = async {
            let mut client = Client::connect(Path::new(SOCKET)).await.ok()?;
            client.request::<Status>(proto::STATUS, &(), SOON, |_, _| {}).await.ok()
        };
        tokio::time::timeout(SOON, ask).await.ok().flatten()
    }

    /// `ActiveState=`.
    pub fn active(&self) -> String {
        self.systemd.show(UNIT, "ActiveState")
    }

    /// The last lines of the unit's journal.
    pub fn journal(&self) -> String {
        self.systemd.journalctl(&["--unit", UNIT, "--output", "short-precise", "--no-hostname", "--lines", "40"])
    }

    fn systemctl(&self, arguments: &[&str]) {
        // What it does shows in the state of the unit.
        let _output = self.systemd.try_systemctl(arguments);
    }
}

/// From here on no more memory is mapped in the process `pid`.
pub fn forbid_maps(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let kib: u64 = size.context("a process without a size")?.parse()?;
    limit_maps(pid, Some(kib << 10))
}

/// It has as much memory again as it wants.
pub fn allow_maps(pid: u32) -> Result<()> {
    limit_maps(pid, None)
}

/// By prlimit(1) and as the same user: without CAP_SYS_RESOURCE root may not either.
fn limit_maps(pid: u32, limit: Option<u64>) -> Result<()> {
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let (pid, limit) = (pid.to_string(), format!("--as={limit}:"));
    let user = ["--reuid", "hermes", "--regid", "hermes", "--clear-groups"];
    run("setpriv", &[&user[..], &["prlimit", "--pid", &pid, &limit]].concat())
}

/// The process of the default agent, if it is ready.
pub fn agent_pid(status: &Status) -> Option<i32> {
    status.agents.iter().find(|agent| agent.name == "default" && agent.state == "ready").and_then(|agent| agent.pid)
}

/// The command that asks for the update by its name, whatever became of it before.
pub fn update_by_name() -> String {
    format!("/update {NEW}")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(())
}
