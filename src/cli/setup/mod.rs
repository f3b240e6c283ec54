//! `hermes setup`: from nothing to a chat that works.
//!
//! Asks, tries the answers, writes gateway.toml and the files of secrets, and starts the service, or lets the one that
//! runs read them.
//!
//! **Invariants**
//! - Nothing is written before every question is answered and the platform has taken the token.
//! - A configuration that the gateway would refuse is not put in the place of another one.
//! - Secrets come from a terminal, standard input or a file, and go into files of mode 0600; never into an argument.

pub(super) mod args;
mod ask;
mod plan;
mod questions;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::args::{PlatformChoice, SetupArgs};
use self::ask::Ask;
use self::plan::{Plan, Section};
use super::args::{ChatArgs, JsonArgs, WeixinCommand, WeixinLoginArgs};
use super::error::CliError;
use super::files::ConfigFile;
use super::home::Home;
use super::service::{self, Target};
use super::{chat, ctl, files, screen, weixin};
use crate::config::{Config, Environment, Reader, WEB_TOKEN_FILE, WebConfig};
use crate::control::proto::{HandoffKind, HandoffParams};
use crate::service::manager::{Scope, UNIT};

/// The chat in which the agent is greeted.
const CHAT: &str = "setup";
const LOGIN_TIME: std::time::Duration = std::time::Duration::from_secs(8 * 60);

/// Runs the command.
pub(super) async fn run(home: Option<PathBuf>, args: SetupArgs) -> Result<(), CliError> {
    let ask = Ask::new(args.yes);
    let (target, as_service) = target(&ask, &args, home).await?;
    let home = target.home();
    let config_file = ConfigFile::of(&home.path)?;
    let has_agent = config_file.text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("agents"));

    let mut plan = Plan::default();
    let platform = questions::platform(&ask, &args)?;
    let bot = match platform {
        PlatformChoice::Telegram => questions::telegram(&ask, &args, &mut plan).await?,
        PlatformChoice::Dingtalk => questions::dingtalk(&ask, &args, &mut plan).await.map(|()| None)?,
        PlatformChoice::Web => {
            // The section alone is enough, and the gateway makes the token.
            plan.sections.push(Section { path: ["platforms", "web"], ..Section::default() });
            None
        }
        PlatformChoice::Weixin | PlatformChoice::None => None,
    };
    let agent = questions::agent(&ask, &args, &home.path, has_agent, &mut plan)?;
    let text = plan::edit(&config_file.text, &plan)
        .map_err(|why| CliError::Usage(format!("{} is not TOML: {why}", config_file.path.display())))?;

    if as_service {
        // Refuses one that the service has not started, which would be in its way.
        target.running().await?;
        service::prepare_home(&target).map_err(CliError::Service)?;
    }
    let config = write(&home.path, &config_file, &text, &plan)?;
    let page = config.web.filter(|_| platform == PlatformChoice::Web).map(|web| Page::of(&web, &home));
    if platform == PlatformChoice::Weixin {
        let login =
            WeixinLoginArgs { base_url: args.api_url.clone(), within: LOGIN_TIME, json: JsonArgs { json: false } };
        weixin::run(&home, WeixinCommand::Login(login)).await?;
    }
    let runs = bring_up(&target, as_service, args.json).await?;
    if args.json.json {
        let (home, config_file, service, running) = (home.path, config_file.path, as_service, runs);
        let page = page.map(|page| page.address);
        return screen::print_json(&Done { home, config_file, agent, bot, page, service, running });
    }
    screen::print(&format!("{} is written.\n", config_file.path.display()))?;
    if let Some(bot) = bot {
        screen::print(&format!(
            "Write to {bot}; without an id in allow_admin_from it answers with a code for\n  hermes pairing approve telegram CODE\n"
        ))?;
    }
    if let Some(Page { address, key }) = page {
        screen::print(&format!("The page is at {address}. Sign in with {key}.\n"))?;
    }
    finish(&home, &ask, runs).await
}

/// The web page, and what opens it.
struct Page {
    address: String,
    /// In words: the token itself is not shown.
    key: String,
}

impl Page {
    fn of(web: &WebConfig, home: &Home) -> Self {
        let address = format!("http://{}", web.listen);
        let key = match web.token {
            Some(_) => "the token of [platforms.web] in gateway.toml".to_owned(),
            None => format!("the token in {}", home.path.join(WEB_TOKEN_FILE).display()),
        };
        Self { address, key }
    }
}

/// What `hermes setup --json` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Done {
    home: PathBuf,
    config_file: PathBuf,
    /// What the default agent is.
    agent: String,
    /// The bot's name, where its platform tells it.
    bot: Option<String>,
    /// Where the web page is, if it was asked for.
    page: Option<String>,
    /// Whether it is a service.
    service: bool,
    /// Whether a gateway runs on it.
    running: bool,
}

/// Which gateway is set up, and whether as a service. One that is installed is.
async fn target(ask: &Ask, args: &SetupArgs, home: Option<PathBuf>) -> Result<(Target, bool), CliError> {
    let target = Target::of(args.scope, home.clone(), None).map_err(CliError::Service)?;
    let state = target.manager.state(UNIT).await;
    // The user's service may be of another home: then this one is for the foreground.
    let is_this_home = target.check_unit_home();
    let as_service = match &state {
        Ok(state) if state.is_installed() && is_this_home.is_ok() => !args.no_install,
        Ok(state) if state.is_installed() && !args.install => false,
        _ if args.install || args.no_install => args.install,
        Err(_) => false,
        Ok(_) => {
            let whose = if target.layout.scope == Scope::System { "this machine" } else { "yours" };
            ask.yes_or_no(&format!("Install the gateway as a service of {whose}?"), true, "--install or --no-install")?
        }
    };
    if as_service {
        is_this_home.map_err(CliError::Service)?;
        target.check_rights("set up").map_err(CliError::Service)?;
        return Ok((target, true));
    }
    // The home of whoever runs it in the foreground.
    let env = Environment::from_process();
    let home = Home::find(home, &env)?;
    Ok((Target::new(Scope::User, Some(home.path), None).map_err(CliError::Service)?, false))
}

/// Writes the secrets, and the configuration once the gateway would take it; else the secrets go again.
fn write(home: &Path, config_file: &ConfigFile, text: &str, plan: &Plan) -> Result<Config, CliError> {
    let failed = |what: &'static str| move |source| CliError::Io { what, source };
    files::make_home(home).map_err(failed("make the home directory"))?;
    let owner = fs::metadata(home).map_err(failed("look at the home directory"))?;
    let mut before: Vec<(PathBuf, Option<Vec<u8>>)> = Vec::new();
    let written = plan.secrets.iter().try_for_each(|(name, secret)| {
        let path = home.join(name);
        before.push((path.clone(), files::read(home, &path)?));
        files::replace(&path, format!("{}\n", secret.expose()).as_bytes(), 0o600, &owner)
    });
    let checked = written.map_err(failed("write the file of a secret")).and_then(|()| {
        let env = Environment::from_process();
        Config::from_text(text, &config_file.path, &env, Reader::Other).map_err(CliError::WouldBeRefused)
    });
    let undo = || {
        for (path, bytes) in before {
            let undone = match bytes {
                Some(bytes) => files::replace(&path, &bytes, 0o600, &owner),
                None => fs::remove_file(&path),
            };
            // The error that is told is the one that led here.
            drop(undone);
        }
    };
    let config = checked.inspect_err(|_| undo())?;
    config_file.replace(text, &owner)?;
    Ok(config)
}

/// Lets a gateway that runs read the configuration, or installs the service. True if one runs now.
async fn bring_up(target: &Target, as_service: bool, json: JsonArgs) -> Result<bool, CliError> {
    let home = target.home();
    if home.connect().await.is_ok() {
        let params = HandoffParams { kind: HandoffKind::Reload, force: false, reason: Some("hermes setup".to_owned()) };
        ctl::hand_off(&home, &params, json).await?;
        return Ok(true);
    }
    if as_service {
        service::install_for(target, json).await?;
    }
    Ok(as_service)
}

/// The end: a first word with the agent, or how to come to it.
async fn finish(home: &Home, ask: &Ask, runs: bool) -> Result<(), CliError> {
    if !runs {
        return screen::print("Now run `hermes gateway run`, and in another terminal `hermes chat`.\n");
    }
    screen::print("Saying hello to the agent:\n")?;
    let hello = ChatArgs { chat: CHAT.to_owned(), once: Some("hello".to_owned()) };
    chat::run(home, hello).await?;
    screen::print("\n")?;
    if ask.may_repeat() && ask.yes_or_no("Talk to it now?", true, "hermes chat")? {
        let talk = ChatArgs { chat: crate::platform::local::DEFAULT_CHAT.to_owned(), once: None };
        return chat::run(home, talk).await;
    }
    screen::print("`hermes chat` talks to it, `hermes gateway status` shows how it is.\n")
}
