//! The questions about platforms and agents, and what is tried of the answers.

use std::env;
use std::path::Path;

use toml_edit::value;

use super::args::{PlatformChoice, SetupArgs};
use super::ask::Ask;
use super::plan::{Plan, Section, list};
use crate::cli::error::CliError;
use crate::cli::screen;
use crate::config::{Config, Environment, Reader, Secret};
use crate::platform::{dingtalk, telegram};
use crate::report::Chain;

/// Files of secrets in the home.
const TELEGRAM_TOKEN: &str = "telegram-token";
const DINGTALK_SECRET: &str = "dingtalk-secret";
const OPENAI_KEY: &str = "openai-key";
/// Agents that speak ACP, and how they are told to; shown where they are installed.
const KNOWN_AGENTS: [(&str, &[&str]); 6] = [
    ("opencode", &["acp"]),
    ("claude-code-acp", &[]),
    ("codex-acp", &[]),
    ("gemini", &["--experimental-acp"]),
    ("goose", &["acp"]),
    ("hermes-acp", &[]),
];

/// Which platform.
pub(super) fn platform(ask: &Ask, args: &SetupArgs) -> Result<PlatformChoice, CliError> {
    if let Some(choice) = args.platform {
        return Ok(choice);
    }
    let options = [
        ("telegram", "a bot of @BotFather; you need its token"),
        ("dingtalk", "a robot in Stream mode; you need its AppKey and AppSecret"),
        ("weixin", "a Weixin account; you scan a QR code"),
        ("web", "a page in your browser, on this machine; it needs no account"),
        ("none", "the terminal alone, for now"),
    ];
    let options = options.map(|(name, meaning)| (name.to_owned(), meaning.to_owned()));
    let answer = ask.choice("Where do you want to talk to your agent?", &options, "none", "--platform")?;
    Ok(match answer.as_str() {
        "telegram" => PlatformChoice::Telegram,
        "dingtalk" => PlatformChoice::Dingtalk,
        "weixin" => PlatformChoice::Weixin,
        "web" => PlatformChoice::Web,
        _ => PlatformChoice::None,
    })
}

/// The bot's token, tried at Telegram, and who may use it.
pub(super) async fn telegram(ask: &Ask, args: &SetupArgs, plan: &mut Plan) -> Result<Option<String>, CliError> {
    let (token, bot) = loop {
        let token = ask.secret("The bot's token, from @BotFather", args.secret_file.as_deref(), "--secret-file")?;
        if args.no_check {
            break (token, None);
        }
        match who_is(&token, args).await {
            Ok(name) => break (token, Some(name)),
            Err(why) => refused(ask, args, "Telegram", &why)?,
        }
    };
    if let Some(bot) = &bot {
        screen::complain(&format!("The token is that of {bot}."));
    }
    plan.secrets.push((TELEGRAM_TOKEN, token));
    let mut section = Section {
        path: ["platforms", "telegram"],
        set: vec![("token_file", value(TELEGRAM_TOKEN))],
        unset: &["token", "token_credential", "token_env"],
    };
    access(ask, args, "Your Telegram user id, a number; @userinfobot tells it", &mut section)?;
    plan.sections.push(section);
    Ok(bot)
}

async fn who_is(token: &Secret, args: &SetupArgs) -> Result<String, String> {
    let text = "[platforms.telegram]\ntoken = 'x'\n";
    let env = Environment::from_iter::<[(&str, &str); 0]>([]);
    let config = Config::from_text(text, Path::new("/"), &env, Reader::Gateway).ok().and_then(|config| config.telegram);
    let mut config = config.expect("the text is right");
    config.token = token.clone();
    if let Some(url) = &args.api_url {
        url.trim_end_matches('/').clone_into(&mut config.api_url);
    }
    let api = telegram::api::Api::new(&config).map_err(|error| Chain(&error).to_string())?;
    let me = api.get_me().await.map_err(|error| Chain(&error).to_string())?;
    Ok(me.username.map_or_else(|| format!("bot {}", me.id), |name| format!("@{name}")))
}

/// The app's key and secret, tried at DingTalk, and who may use it.
pub(super) async fn dingtalk(ask: &Ask, args: &SetupArgs, plan: &mut Plan) -> Result<(), CliError> {
    let (client_id, secret) = loop {
        let client_id = match &args.client_id {
            Some(client_id) => client_id.clone(),
            None => ask.line("The app's AppKey (Client ID)", None, "--client-id")?,
        };
        let secret = ask.secret("Its AppSecret (Client Secret)", args.secret_file.as_deref(), "--secret-file")?;
        if args.no_check {
            break (client_id, secret);
        }
        match dingtalk::check_credentials(&client_id, &secret, args.api_url.as_deref()).await {
            Ok(()) => break (client_id, secret),
            Err(why) => refused(ask, args, "DingTalk", &why)?,
        }
    };
    plan.secrets.push((DINGTALK_SECRET, secret));
    let mut section = Section {
        path: ["platforms", "dingtalk"],
        set: vec![("client_id", value(client_id)), ("client_secret_file", value(DINGTALK_SECRET))],
        unset: &["client_secret", "client_secret_credential", "client_secret_env"],
    };
    access(ask, args, "Your staff id; the robot answers /whoami with it", &mut section)?;
    plan.sections.push(section);
    Ok(())
}

/// A secret that was refused may be given anew on a terminal.
fn refused(ask: &Ask, args: &SetupArgs, platform: &str, why: &str) -> Result<(), CliError> {
    if !ask.may_repeat() || args.secret_file.is_some() {
        return Err(CliError::Refused { platform: platform.to_owned(), why: why.to_owned() });
    }
    screen::complain(&format!("{platform} refuses it: {why}"));
    Ok(())
}

/// Who may talk. Without anybody named, whoever writes first gets a code.
fn access(ask: &Ask, args: &SetupArgs, question: &str, section: &mut Section) -> Result<(), CliError> {
    let words = |text: &str| -> Vec<String> {
        text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (mut allow, mut admin) = (args.allow.clone(), args.admin.clone());
    if allow.is_empty() && admin.is_empty() {
        let question = format!("{question} (empty: you are let in by a code later)");
        admin = words(&ask.line(&question, Some(""), "--admin")?);
        if !admin.is_empty() {
            allow = words(&ask.line("Ids of others who may talk, with commas between them", Some(""), "--allow")?);
        }
    }
    if let Some(url) = &args.api_url {
        section.set.push(("api_url", value(url)));
    }
    for (key, ids) in [("allow_from", allow), ("allow_admin_from", admin)] {
        if !ids.is_empty() {
            section.set.push((key, list(ids.iter().map(String::as_str))));
        }
    }
    Ok(())
}

/// Who answers. `has_agent`: one is configured already.
pub(super) fn agent(
    ask: &Ask,
    args: &SetupArgs,
    home: &Path,
    has_agent: bool,
    plan: &mut Plan,
) -> Result<String, CliError> {
    let installed = installed_agents();
    let answer = match &args.agent {
        Some(agent) => agent.clone(),
        None => {
            let mut options: Vec<(String, String)> = Vec::new();
            if has_agent {
                options.push(("keep".to_owned(), "the one that is configured".to_owned()));
            }
            options.push(("echo".to_owned(), "repeats what you say, to try it all out".to_owned()));
            options.push(("openai".to_owned(), "a model behind an OpenAI-compatible API".to_owned()));
            options.extend(installed.iter().map(|(name, words)| (name.clone(), words.join(" "))));
            options.push(("other".to_owned(), "the command of another ACP agent".to_owned()));
            ask.choice("Who is to answer?", &options, if has_agent { "keep" } else { "echo" }, "--agent")?
        }
    };
    let command: Vec<String> = match answer.as_str() {
        "keep" => return Ok(answer),
        "echo" => ["hermes", "agent", "echo"].map(str::to_owned).to_vec(),
        "openai" => openai(ask, args, home, plan)?,
        other => match installed.into_iter().find(|(name, _)| name == other) {
            Some((_, words)) => words,
            None => {
                let line = if other == "other" { ask.line("Its command", None, "--agent")? } else { other.to_owned() };
                line.split_whitespace().map(str::to_owned).collect()
            }
        },
    };
    let set = vec![("command", list(command.iter().map(String::as_str)))];
    plan.sections.push(Section { path: ["agents", "default"], set, unset: &[] });
    Ok(answer)
}

fn openai(ask: &Ask, args: &SetupArgs, home: &Path, plan: &mut Plan) -> Result<Vec<String>, CliError> {
    const OPENAI: &str = "https://api.openai.com/v1";
    let given = |given: &Option<String>, question: &str, default: Option<&str>, flag: &str| match given {
        Some(given) => Ok(given.clone()),
        None => ask.line(question, default, flag),
    };
    let base_url = given(&args.base_url, "Address of the API", Some(OPENAI), "--base-url")?;
    let model = given(&args.model, "Name of the model", None, "--model")?;
    let words = ["hermes", "agent", "openai", "--base-url", &base_url, "--model", &model];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    // A server on this machine mostly wants none.
    let has_key = match &args.api_key_file {
        Some(_) => true,
        None => ask.yes_or_no("Does it want an API key?", base_url == OPENAI, "--api-key-file")?,
    };
    if has_key {
        let key = ask.secret("The API key", args.api_key_file.as_deref(), "--api-key-file")?;
        plan.secrets.push((OPENAI_KEY, key));
        words.extend(["--api-key-file".to_owned(), home.join(OPENAI_KEY).display().to_string()]);
    }
    Ok(words)
}

/// Known agents in PATH, with the words that start them.
fn installed_agents() -> Vec<(String, Vec<String>)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = env::split_paths(&path).collect();
    let find = |program: &str| directories.iter().map(|dir| dir.join(program)).find(|path| path.is_file());
    let known = KNOWN_AGENTS.iter().filter_map(|(program, words)| {
        // By its whole path: the service has another PATH.
        let path = find(program)?.display().to_string();
        Some(((*program).to_owned(), [path].into_iter().chain(words.iter().map(|&word| word.to_owned())).collect()))
    });
    known.collect()
}
