//! The platforms at a start: which are configured, what was left for each, and who may talk there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use tokio::sync::mpsc;

use super::DaemonError;
use super::boot::optional;
use super::keeper::Keeper;
use super::kept::Kept;
use super::outlet::Outlet;
use super::pages::Pages;
use super::specs::Specs;
use super::state::{PLATFORMS, PlatformEntry, platform_fd};
use crate::config::{Config, PlatformAccess};
use crate::gateway::{Access, Allowed};
use crate::handoff::{FdName, Inherited};
use crate::id::PlatformName;
use crate::platform::local::PLATFORM as LOCAL;
use crate::platform::{Left, PlatformEvent, PlatformHandle, dingtalk, telegram, web, weixin};
use crate::service::fdstore;
use crate::store::Store;
use crate::words::Languages;

/// The program that runs. Its file may have been replaced since it was started; this leads to it all the same
/// (proc_pid_exe(5)).
const OWN_IMAGE: &str = "/proc/self/exe";

/// Sockets that systemd passes for platforms: their names, and what the platform calls them.
const PASSED: [(&str, &str, &str); 2] =
    [(fdstore::WEBHOOK, telegram::PLATFORM, telegram::LISTENER), (fdstore::WEB, web::PLATFORM, web::LISTENER)];

/// The platforms that run.
type Platforms = BTreeMap<PlatformName, Outlet<PlatformHandle>>;

/// Starts the configured platforms, with what was left for them. Returns with them what pages are told by.
pub(super) fn platforms(
    Specs { config, home }: Specs<'_>,
    store: &Store,
    mut inherited: Option<&mut Inherited>,
    events: &mpsc::Sender<PlatformEvent>,
    keeper: &mut Keeper,
    kept: &Kept,
) -> Result<(Platforms, Pages), DaemonError> {
    let entries: Vec<PlatformEntry> = optional(inherited.as_deref_mut(), PLATFORMS)?;
    let mut entries: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let (mut started, pages) = (Vec::new(), Pages::default());
    let mut left = |name: &str| {
        let name = PlatformName::from(name);
        let state = entries.remove(&name).map(|entry| entry.state);
        let mut fds = inherited.as_deref_mut().map(|inherited| platform_fds(&name, inherited)).unwrap_or_default();
        for (passed, _, listener) in PASSED.into_iter().filter(|(_, platform, _)| *platform == name.as_str()) {
            let socket = inherited.as_deref_mut().and_then(|all| all.take_fd(&FdName::new(passed)));
            fds.splice(0..0, socket.map(|socket| (listener.to_owned(), socket)));
        }
        for (what, fd) in &fds {
            keeper.store(platform_fd(&name, what), fd.as_fd());
        }
        Left { state, fds, paused: kept.paused.contains(&name) }
    };
    if let Some(telegram) = &config.telegram {
        let left = left(telegram::PLATFORM);
        started.push(telegram::spawn(telegram.clone(), left, store.clone(), events.clone()));
    }
    if let Some(weixin) = &config.weixin {
        let left = left(weixin::PLATFORM);
        started.push(weixin::spawn(weixin.clone(), left, store.clone(), events.clone()));
    }
    if let Some(dingtalk) = &config.dingtalk {
        let left = left(dingtalk::PLATFORM);
        started.push(dingtalk::spawn(dingtalk, Path::new(OWN_IMAGE), left, store.clone(), events.clone()));
    }
    if let Some(config) = &config.web {
        let left = left(web::PLATFORM);
        started.push(web::spawn(config, home.web_token(), pages.receiver(), left, store.clone(), events.clone()));
    }
    for platform in entries.keys() {
        tracing::info!(%platform, "platform is no longer configured, its open deliveries are dropped");
    }
    Ok((started.into_iter().map(|handle| (handle.name().clone(), Outlet::new(handle))).collect(), pages))
}

/// What a platform left, by its own names: at a handoff what it handed over, after a kill what was kept for it.
fn platform_fds(platform: &PlatformName, inherited: &mut Inherited) -> Vec<(String, OwnedFd)> {
    let prefix = platform_fd(platform, "");
    let names: Vec<FdName> =
        inherited.names().filter(|name| name.as_str().starts_with(prefix.as_str())).cloned().collect();
    let take = |name: FdName| Some((name.as_str()[prefix.as_str().len()..].to_owned(), inherited.take_fd(&name)?));
    names.into_iter().filter_map(take).collect()
}

/// Who may talk on which platform.
pub(super) fn access(config: &Config) -> Access {
    let listed = |ids: &[String]| ids.iter().cloned().collect();
    let platforms = config.platforms().map(|(name, access)| {
        let PlatformAccess { allow_from, allow_admin_from, pairing, .. } = access;
        let allowed = Allowed::Listed { talk: listed(allow_from), admin: listed(allow_admin_from), pairing: *pairing };
        (PlatformName::from(name), allowed)
    });
    Access::new(platforms.chain([(PlatformName::from(LOCAL), Allowed::Everyone)]))
}

/// What is spoken on which platform.
pub(super) fn languages(config: &Config) -> Languages {
    Languages::new(config.platforms().map(|(name, access)| (PlatformName::from(name), access.language)))
}
