//! The three test servers, a unit that is connected to all of them, and chats that are alike on each.

use std::path::Path;

use crate::handoff;
use crate::support::dingtalk::DingTalkServer;
use crate::support::release::Publisher;
use crate::support::systemd::Systemd;
use crate::support::telegram::TelegramServer;
use crate::support::unit::Unit;
use crate::support::weixin::WeixinServer;

pub const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
/// Chats of people who may talk to the bot: 0 to this, on each platform.
pub const CHATS: usize = 600;
/// The longest wait for what a chat shows: the bot says no more than 16 messages a second on DingTalk.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
/// Marks a reply that may be there already.
const MARK: &str = "♻️ ";

/// Everything that secrets of the platforms are recognised by, in what the test servers give out.
const SECRETS: [&str; 11] = [
    "the-token-of-the-test-bot",
    "the-secret-of-the-test-app",
    "secret-token-of-the-test-bot",
    // Tickets and session webhooks of DingTalk's.
    "ticket/",
    "ticket%2F",
    "of=the-test",
    "sendBySession",
    "session-of-the-test-app",
    // Contexts of Weixin's.
    "context-",
    "Bearer",
    "\"contextToken\"",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    Telegram,
    DingTalk,
    Weixin,
}

impl Platform {
    pub const ALL: [Self; 3] = [Self::Telegram, Self::DingTalk, Self::Weixin];

    /// As the gateway calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Telegram => "telegram",
            Self::DingTalk => "dingtalk",
            Self::Weixin => "weixin",
        }
    }
}

/// Where something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chat {
    /// The platform's admin, with the bot alone.
    Admin,
    /// Somebody who may talk to it. Of DingTalk's every other one is in a group.
    Of(usize),
}

/// A message of the bot.
#[derive(Clone, Debug)]
pub struct Shown {
    /// When its server got it, in milliseconds since 1970.
    pub at_ms: u64,
    pub text: String,
}

/// The platforms.
pub struct Servers {
    pub telegram: TelegramServer,
    pub dingtalk: DingTalkServer,
    pub weixin: WeixinServer,
}

impl Servers {
    pub async fn start() -> Self {
        Self {
            telegram: TelegramServer::start().await,
            dingtalk: DingTalkServer::start().await,
            weixin: WeixinServer::start().await,
        }
    }

    /// A gateway on all of them.
    pub fn config(&self, publisher: &Publisher, gateway: &str) -> String {
        let (id, secret) = self.dingtalk.look(|state| (state.client_id.clone(), state.client_secret.clone()));
        let account = self.weixin.look(|state| state.account.clone());
        let named = |name: fn(Chat) -> String| (0..CHATS).map(|n| name(Chat::Of(n))).collect::<Vec<_>>();
        format!(
            "{}\n[gateway]\n{gateway}\n\
             [platforms.dingtalk]\n\
             client_id = \"{id}\"\nclient_secret = \"{secret}\"\napi_url = \"{ding}\"\noapi_url = \"{ding}\"\n\
             allow_from = {:?}\nallow_admin_from = [{:?}]\ngateway_restart_notification = false\n\
             [platforms.weixin]\n\
             token = \"{}\"\naccount_id = \"{account}\"\nbase_url = \"{}\"\ncdn_url = \"{}\"\n\
             allow_from = {:?}\nallow_admin_from = [{:?}]\ngateway_restart_notification = false\n",
            handoff::config(&self.telegram, publisher),
            named(staff),
            staff(Chat::Admin),
            self.weixin.token(),
            self.weixin.url(),
            self.weixin.cdn_url(),
            named(peer),
            peer(Chat::Admin),
            ding = self.dingtalk.url(),
        )
    }

    /// Installs the unit and starts it, and waits until it is connected to all of them.
    pub async fn unit<'a>(&self, systemd: &'a Systemd, config: &str, drop_in: &str) -> Unit<'a> {
        let unit = Unit::install_with(systemd, Path::new(BINARY), "on-failure", config, drop_in);
        unit.start();
        self.dingtalk.until("DingTalk's connection", |state| state.open_connections().next().map(|_| ())).await;
        self.telegram.until("a poll", |state| (state.calls_of("getUpdates") > 0).then_some(())).await;
        self.weixin.until("a poll", |state| (state.calls_of("getupdates") > 0).then_some(())).await;
        unit
    }

    /// Somebody says something.
    pub fn say(&self, platform: Platform, chat: Chat, text: &str) {
        match platform {
            Platform::Telegram => {
                let user = if chat == Chat::Admin { handoff::ADMIN } else { handoff::USER };
                self.telegram.say(user, telegram_chat(chat), text);
            }
            Platform::DingTalk => match group(chat) {
                Some(group) => drop(self.dingtalk.say_in(&group, &staff(chat), text)),
                None => drop(self.dingtalk.say(&staff(chat), text)),
            },
            Platform::Weixin => drop(self.weixin.say(&peer(chat), text)),
        }
    }

    /// What a chat shows of the bot, oldest first.
    pub fn shown(&self, platform: Platform, chat: Chat) -> Vec<Shown> {
        match platform {
            Platform::Telegram => self.telegram.look(|state| {
                let messages = state.in_chat(telegram_chat(chat));
                let shown = |at_ms, text: &str| Shown { at_ms, text: text.to_owned() };
                messages.map(|message| shown(message.versions[0].at_ms, message.text())).collect()
            }),
            Platform::DingTalk => self.dingtalk.look(|state| {
                let chat =
                    group(chat).unwrap_or_else(|| crate::support::dingtalk::state::State::direct_chat(&staff(chat)));
                let sent = state.sent.iter().filter(|sent| sent.chat == chat);
                sent.map(|sent| Shown { at_ms: sent.at_ms, text: sent.text.clone() }).collect()
            }),
            Platform::Weixin => self.weixin.look(|state| {
                let sent = state.sent.iter().filter(|sent| sent.to == peer(chat));
                sent.map(|sent| Shown { at_ms: sent.at_ms, text: sent.text().to_owned() }).collect()
            }),
        }
    }

    /// Its texts.
    pub fn texts(&self, platform: Platform, chat: Chat) -> Vec<String> {
        self.shown(platform, chat).into_iter().map(|shown| shown.text).collect()
    }

    /// Waits until `look` finds what it looks for in a chat.
    pub async fn until<R>(
        &self,
        what: &str,
        platform: Platform,
        chat: Chat,
        mut look: impl FnMut(&[Shown]) -> Option<R>,
    ) -> R {
        // The server's lock is taken by `shown`, so it may not be held while it is called.
        let start = std::time::Instant::now();
        loop {
            let shown = self.shown(platform, chat);
            if let Some(found) = look(&shown) {
                return found;
            }
            assert!(start.elapsed() < DEADLINE, "waited in vain on {}: {what}: {shown:?}", platform.name());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Each of these is shown in its chat, in this order, once, and nothing else is.
    pub async fn all_answered(&self, said: &Said) {
        for (&(platform, chat), texts) in &said.by_chat {
            self.until(&format!("{texts:?}"), platform, chat, |shown| (shown.len() >= texts.len()).then_some(())).await;
        }
        // What comes twice would have come by now or with the next: it is looked at once all have theirs.
        for (&(platform, chat), texts) in &said.by_chat {
            assert_eq!(&self.texts(platform, chat), texts, "{} {chat:?}", platform.name());
        }
        self.no_complaints();
    }

    /// Nothing was done that breaks a platform's rules, and nothing marked as a possible repeat was sent.
    pub fn no_complaints(&self) {
        assert_eq!(self.dingtalk.look(|state| state.complaints.clone()), Vec::<String>::new());
        assert_eq!(self.weixin.look(|state| state.complaints.clone()), Vec::<String>::new());
        let repeats = self.weixin.look(|state| state.sent.iter().filter(|sent| sent.is_repeat).count());
        let marked = [
            self.telegram.look(|state| state.messages.iter().filter(|m| m.text().starts_with(MARK)).count()),
            self.dingtalk.look(|state| state.sent.iter().filter(|sent| sent.text.starts_with(MARK)).count()),
            self.weixin.look(|state| state.sent.iter().filter(|sent| sent.text().starts_with(MARK)).count()),
        ];
        assert_eq!((repeats, marked), (0, [0; 3]), "nothing was sent again");
    }
}

/// What was said, and where.
#[derive(Debug, Default)]
pub struct Said {
    by_chat: std::collections::BTreeMap<(Platform, Chat), Vec<String>>,
}

impl Said {
    /// Says it and takes note of it.
    pub fn say(&mut self, servers: &Servers, platform: Platform, chat: Chat, text: &str) {
        servers.say(platform, chat, text);
        self.by_chat.entry((platform, chat)).or_default().push(text.to_owned());
    }

    pub fn count(&self, platform: Platform) -> usize {
        self.by_chat.iter().filter(|((of, _), _)| *of == platform).map(|(_, texts)| texts.len()).sum()
    }
}

/// No line of the journal has a secret in it.
pub fn no_secret_in(journal: &str) {
    for secret in SECRETS {
        let line = journal.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

fn telegram_chat(chat: Chat) -> i64 {
    match chat {
        Chat::Admin => handoff::ADMIN,
        Chat::Of(number) => 500_000 + i64::try_from(number).expect("few"),
    }
}

fn staff(chat: Chat) -> String {
    match chat {
        Chat::Admin => "the-boss".to_owned(),
        Chat::Of(number) => format!("staff{number}"),
    }
}

fn group(chat: Chat) -> Option<String> {
    match chat {
        Chat::Of(number) if number % 2 == 1 => Some(format!("cid-of-group-{number}")),
        _ => None,
    }
}

fn peer(chat: Chat) -> String {
    match chat {
        Chat::Admin => "boss@im.wechat".to_owned(),
        Chat::Of(number) => format!("peer{number}@im.wechat"),
    }
}
