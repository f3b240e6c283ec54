//! A release server on loopback that can fail in the ways servers do, and the releases it serves.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, LOCATION};
use axum::http::{Response, StatusCode, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream::{self, Stream, StreamExt};
use hermes_gateway::config::UpdateConfig;
use hermes_gateway::update;
use semver::Version;
use serde_json::Value;
use tokio::task::JoinHandle;
use zipsign_api::SigningKey;

#[path = "../../../scripts/release-pack.rs"]
pub mod pack;

/// What goes wrong with one file of a [`ReleaseServer`].
#[derive(Clone, Debug)]
pub enum Fault {
    /// Accepts the request and says nothing.
    Silence,
    /// Announces the file, sends half of it, and nothing more, with the connection open.
    StallHalfWay,
    /// Announces the file, sends half of it and breaks the connection.
    DieHalfWay,
    /// Sends half of the file and ends as if that were all.
    Truncate,
    /// Sends the file without announcing its length.
    Unannounced,
    /// Sends without end, as fast as it can.
    Endless,
    /// Sends a byte now and then, without end.
    Trickle,
    /// Sends something else.
    Content(Vec<u8>),
    /// Answers with a redirect.
    Redirect(String),
    /// Answers with a status.
    Status(u16),
}

/// Serves a directory on 127.0.0.1; stops when dropped.
#[derive(Debug)]
pub struct ReleaseServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    faults: Mutex<HashMap<String, Fault>>,
}

impl ReleaseServer {
    /// Starts to serve `dir`.
    pub async fn start(dir: &Path) -> Self {
        let shared = Arc::new(Shared { dir: dir.to_owned(), faults: Mutex::default() });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves until aborted") });
        Self { address, shared, task }
    }

    /// The URL of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// From now on the file fails.
    pub fn fail(&self, name: &str, fault: Fault) {
        self.shared.faults.lock().expect("no holder panics").insert(name.to_owned(), fault);
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.shared.faults.lock().expect("no holder panics").clear();
    }
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response<Body> {
    let name = uri.path().trim_start_matches('/').to_owned();
    let fault = shared.faults.lock().expect("no holder panics").get(&name).cloned();
    let file = std::fs::read(shared.dir.join(&name)).ok();
    let length = file.as_ref().map(Vec::len);
    let half = || Bytes::from(file.clone().map(|file| file[..file.len() / 2].to_vec()).unwrap_or_default());
    let announced = |body| {
        let length = length.unwrap_or_default();
        Response::builder().header(CONTENT_LENGTH, length).body(body).expect("a number is a header value")
    };
    match fault {
        None => match file {
            Some(file) => Response::new(Body::from(file)),
            None => status(StatusCode::NOT_FOUND),
        },
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::StallHalfWay) => announced(Body::from_stream(first(half()).chain(stream::pending()))),
        Some(Fault::DieHalfWay) => {
            // Yields first, because what was not flushed before the error is never sent.
            let broken = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            });
            announced(Body::from_stream(first(half()).chain(broken)))
        }
        Some(Fault::Truncate) => unannounced(first(half())),
        Some(Fault::Unannounced) => unannounced(first(Bytes::from(file.unwrap_or_default()))),
        Some(Fault::Endless) => {
            let chunk = Bytes::from(vec![b' '; 16 * 1024]);
            unannounced(stream::repeat_with(move || Ok(chunk.clone())))
        }
        Some(Fault::Trickle) => unannounced(stream::unfold((), |()| async {
            // The pace of the server, which is the fault itself.
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok(Bytes::from_static(b" ")), ()))
        })),
        Some(Fault::Content(content)) => Response::new(Body::from(content)),
        Some(Fault::Redirect(to)) => Response::builder()
            .status(StatusCode::FOUND)
            .header(LOCATION, to)
            .body(Body::empty())
            .expect("a URL is a header value"),
        Some(Fault::Status(code)) => status(StatusCode::from_u16(code).expect("a status")),
    }
}

fn status(code: StatusCode) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).expect("nothing in it is wrong")
}

fn first(bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::once(async { Ok(bytes) })
}

/// A body without an announced length.
fn unannounced(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    Response::new(Body::from_stream(chunks))
}

/// A publisher: a key and a directory of releases.
pub struct Publisher {
    /// Signs.
    pub key: SigningKey,
    /// Is served.
    pub dir: tempfile::TempDir,
}

impl Publisher {
    /// A new publisher without releases.
    pub fn new() -> Self {
        Self {
            key: pack::generate_key().expect("the kernel gives random bytes"),
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// The public key, as `[update] verifying_keys` wants it.
    pub fn public_key(&self) -> String {
        BASE64_STANDARD.encode(self.key.verifying_key().as_bytes())
    }

    /// `[update]` for this publisher and that manifest.
    pub fn config(&self, manifest_url: &str) -> UpdateConfig {
        UpdateConfig {
            manifest_url: Some(manifest_url.to_owned()),
            verifying_keys: vec![self.public_key()],
            ..UpdateConfig::default()
        }
    }

    /// Publishes a version for this target and returns the archive's name. If `binary` is a hermes, the copy in the
    /// archive says that version; any other bytes stay as they are.
    pub fn release(&self, version: &str, binary: &[u8]) -> String {
        self.publish(&release(version), binary)
    }

    /// As [`Publisher::release`], with everything that is said of it.
    pub fn publish(&self, release: &pack::Release, binary: &[u8]) -> String {
        let mut binary = binary.to_vec();
        if !pack::stamps(&binary).is_empty() {
            pack::restamp(&mut binary, &release.version).expect("a hermes has one version block");
        }
        pack::publish(self.dir.path(), release, &binary, &self.key).expect("a temporary directory takes it")
    }

    /// The path of a published file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes the manifest by hand.
    pub fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&path).expect("it is published")).expect("it is JSON");
        edit(&mut manifest);
        std::fs::write(&path, manifest.to_string()).expect("a temporary directory takes it");
    }
}

/// A release for this target.
pub fn release(version: &str) -> pack::Release {
    pack::Release {
        version: Version::parse(version).expect("a version"),
        target: update::target().to_owned(),
        date: "2026-11-25T00:00:00Z".to_owned(),
        notes_url: Some(format!("https://example.org/notes/{version}")),
        launcher: None,
        expires: None,
        channel: None,
        rollout: None,
        url_base: None,
    }
}
