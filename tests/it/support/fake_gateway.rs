//! A gateway made of the real control server and a script, for tests of the command line.

use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hermes_gateway::control::server::{self, ControlHandle};
use hermes_gateway::control::{ClientId, ControlCommand, ControlEvent};
use hermes_gateway::jsonrpc::ErrorObject;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// What a script does about a request.
#[derive(Debug)]
pub enum Act {
    /// Answers it.
    Respond(Result<Value, ErrorObject>),
    /// Tells the client something.
    Notify(&'static str, Value),
    /// Replaces the control task by a new one that only knows the snapshot, as an execve does.
    Adopt,
    /// Loses all connections and listens anew, as a killed gateway does that is started again.
    Break,
    /// Stops as a gateway does that was told to.
    Stop,
}

/// A running fake; it ends when this is dropped.
pub struct FakeGateway {
    home: tempfile::TempDir,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    requests: std_mpsc::Receiver<(String, Value)>,
}

impl FakeGateway {
    /// Starts a gateway that does what `script` says about each method and its parameters.
    pub fn start(script: impl FnMut(&str, &Value) -> Vec<Act> + Send + 'static) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("binds");
        let (quit, quitting) = oneshot::channel();
        let (seen, requests) = std_mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let fake = Running::new(path, listener, script, seen);
                tokio::select! {
                    () = fake.run() => {}
                    _ = quitting => {}
                }
            });
        });
        Self { home, quit: Some(quit), thread: Some(thread), requests }
    }

    /// Its home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The next request that came, method and parameters.
    pub fn request(&self) -> (String, Value) {
        self.requests.recv_timeout(Duration::from_secs(30)).expect("a request in time")
    }

    /// The parameters of the next request of `method`; others before it are skipped.
    pub fn request_of(&self, method: &str) -> Value {
        loop {
            let (found, params) = self.request();
            if found == method {
                return params;
            }
        }
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        drop(self.quit.take());
        let result = self.thread.take().expect("joined only here").join();
        if !std::thread::panicking() {
            result.expect("the fake gateway did not panic");
        }
    }
}

struct Running<S> {
    path: PathBuf,
    script: S,
    seen: std_mpsc::Sender<(String, Value)>,
    handle: ControlHandle,
    events: mpsc::Receiver<ControlEvent>,
    /// Came while a marker was awaited.
    early: VecDeque<ControlEvent>,
}

impl<S: FnMut(&str, &Value) -> Vec<Act>> Running<S> {
    fn new(path: PathBuf, listener: UnixListener, script: S, seen: std_mpsc::Sender<(String, Value)>) -> Self {
        let (sender, events) = mpsc::channel(8);
        let handle = server::spawn(listener, sender).expect("spawns");
        Self { path, script, seen, handle, events, early: VecDeque::new() }
    }

    async fn run(mut self) {
        loop {
            let event = match self.early.pop_front() {
                Some(event) => event,
                None => self.events.recv().await.expect("the control task runs"),
            };
            let ControlEvent::Request { client, id, method, params, .. } = event else { continue };
            let _ = self.seen.send((method.clone(), params.clone()));
            for act in (self.script)(&method, &params) {
                match act {
                    Act::Respond(outcome) => {
                        self.handle.send(ControlCommand::Respond { client, id: id.clone(), outcome }).await;
                    }
                    Act::Notify(method, params) => self.notify(client, method, params).await,
                    Act::Adopt => self.adopt().await,
                    Act::Break => self.listen_anew().await,
                    Act::Stop => {
                        self.stop(Duration::from_secs(30)).await;
                        return;
                    }
                }
            }
        }
    }

    async fn notify(&self, client: ClientId, method: &'static str, params: Value) {
        self.handle.send(ControlCommand::Notify { client, method, params }).await;
    }

    async fn adopt(&mut self) {
        self.handle.send(ControlCommand::Freeze).await;
        let snapshot = loop {
            match self.events.recv().await.expect("the control task runs") {
                ControlEvent::Frozen(snapshot) => break snapshot,
                other => self.early.push_back(other),
            }
        };
        let (sender, events) = mpsc::channel(8);
        self.handle = server::adopt(snapshot, sender).expect("adopts");
        self.events = events;
    }

    async fn stop(&mut self, drain: Duration) {
        self.handle.send(ControlCommand::Stop { drain }).await;
        while !matches!(self.events.recv().await, Some(ControlEvent::Stopped) | None) {}
    }

    async fn listen_anew(&mut self) {
        self.stop(Duration::ZERO).await;
        self.early.clear();
        std::fs::remove_file(&self.path).expect("the old socket is there");
        let (sender, events) = mpsc::channel(8);
        let listener = UnixListener::bind(&self.path).expect("binds");
        self.handle = server::spawn(listener, sender).expect("spawns");
        self.events = events;
    }
}
