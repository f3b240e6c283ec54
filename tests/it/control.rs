//! The control socket: requests over freezes and adoptions, half-closed clients, limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use hermes_gateway::control::client::{Client, ClientError};
use hermes_gateway::control::server::{self, CLIENTS_MAX, ControlHandle};
use hermes_gateway::control::{ClientId, ControlCommand, ControlEvent, ControlSnapshot, proto};
use hermes_gateway::jsonrpc::{ErrorObject, RequestId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
    handle: ControlHandle,
    events: mpsc::Receiver<ControlEvent>,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let (sender, events) = mpsc::channel(8);
        let handle = server::spawn(UnixListener::bind(&path).expect("binds"), sender).expect("spawns");
        Self { _dir: dir, path, handle, events }
    }

    async fn event(&mut self) -> ControlEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the task runs")
    }

    async fn request(&mut self) -> (ClientId, RequestId, String) {
        match self.event().await {
            ControlEvent::Request { client, id, method, .. } => (client, id, method),
            other => panic!("expected a request, got {other:?}"),
        }
    }

    async fn respond(&self, client: ClientId, id: RequestId, value: Value) {
        self.handle.send(ControlCommand::Respond { client, id, outcome: Ok(value) }).await;
    }

    /// Freezes; requests told before the marker are answered with their id, into the unsent bytes of the next task.
    async fn freeze(&mut self) -> (ControlSnapshot, Vec<(ClientId, RequestId)>) {
        self.handle.send(ControlCommand::Freeze).await;
        let mut open = Vec::new();
        loop {
            match self.event().await {
                ControlEvent::Frozen(snapshot) => return (snapshot, open),
                ControlEvent::Request { client, id, .. } => open.push((client, id)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Replaces the task by a new one that only knows the snapshot, as an execve does.
    fn adopt(&mut self, mut snapshot: ControlSnapshot) {
        let text = serde_json::to_string(&snapshot.state).expect("plain data");
        snapshot.state = serde_json::from_str(&text).expect("plain data");
        let (sender, events) = mpsc::channel(8);
        self.handle = server::adopt(snapshot, sender).expect("adopts");
        self.events = events;
    }
}

fn line(id: usize, padding: usize) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"m\",\"params\":\"{}\"}}\n", "x".repeat(padding))
}

/// A client that streams `count` requests, cut in pieces of ever new sizes, and returns the ids answered.
fn streaming_client(path: PathBuf, count: usize) -> std::thread::JoinHandle<Vec<i64>> {
    std::thread::spawn(move || {
        let mut stream = UnixStream::connect(path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        let reader = BufReader::new(stream.try_clone().expect("duplicates"));
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..count).flat_map(|id| line(id, id % 200).into_bytes()).collect();
            let (mut rest, mut seed) = (bytes.as_slice(), 12_345_usize);
            while !rest.is_empty() {
                seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                let (now, later) = rest.split_at((1 + (seed >> 8) % 331).min(rest.len()));
                stream.write_all(now).expect("writes");
                rest = later;
            }
        });
        let ids = reader
            .lines()
            .take(count)
            .map(|line| {
                let answer: Value = serde_json::from_str(&line.expect("a line in time")).expect("JSON");
                assert_eq!(answer["result"], answer["id"], "each answer is to its own request");
                answer["id"].as_i64().expect("a number")
            })
            .collect();
        writer.join().expect("wrote everything");
        ids
    })
}

#[tokio::test]
async fn a_hundred_adoptions_lose_and_double_no_request() {
    // A freeze brings up to 64 requests at once, and 30 are answered between two.
    const REQUESTS: usize = 10_000;
    let mut server = Server::start();
    let client = streaming_client(server.path.clone(), REQUESTS);
    let (mut answered, mut adoptions, mut since) = (0, 0, 0);
    while answered < REQUESTS {
        let (client, id, _) = server.request().await;
        let mut open = vec![(client, id)];
        since += 1;
        if since > 30 {
            let (snapshot, more) = server.freeze().await;
            open.extend(more);
            server.adopt(snapshot);
            (adoptions, since) = (adoptions + 1, 0);
        }
        for (client, id) in open {
            server.respond(client, id.clone(), json!(id)).await;
            answered += 1;
        }
    }
    let ids = tokio::task::spawn_blocking(|| client.join()).await.expect("joins").expect("the client is content");
    assert_eq!(ids, (0..10_000).collect::<Vec<i64>>());
    assert!(adoptions >= 100, "{adoptions} adoptions");
}

#[tokio::test]
async fn commands_before_the_marker_are_in_the_snapshot_and_a_thaw_goes_on() {
    let mut server = Server::start();
    let mut stream = UnixStream::connect(&server.path).expect("connects");
    stream.write_all(line(1, 0).as_bytes()).expect("writes");
    let (client, id, _) = server.request().await;
    server.respond(client, id, json!("before")).await;
    let (snapshot, _) = server.freeze().await;

    // Frozen, the task reads nothing: the next request stays in the socket, and the answer is told after the thaw.
    stream.write_all(line(2, 0).as_bytes()).expect("writes");
    let unsent = snapshot.state["clients"][0]["unsent"].as_str().expect("text").to_owned();
    drop(snapshot);
    server.handle.send(ControlCommand::Notify { client, method: "late", params: Value::Null }).await;
    server.handle.send(ControlCommand::Thaw).await;
    let (client, id, _) = server.request().await;
    server.respond(client, id, json!("after")).await;
    let reader = BufReader::new(stream);
    let lines: Vec<String> = tokio::task::spawn_blocking(move || reader.lines().take(3).flatten().collect())
        .await
        .expect("reads three lines");
    assert!(lines[0].contains("before") && lines[1].contains("late") && lines[2].contains("after"), "{lines:?}");
    // Whether the answer was written before the marker is a race; that it is in exactly one place is not.
    assert!(unsent.is_empty() || unsent.len() > 20, "{unsent}");
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answers_even_from_the_next_image() {
    let mut server = Server::start();
    let mut stream = UnixStream::connect(&server.path).expect("connects");
    // Without a newline at the end, as `printf … | nc -N` sends it.
    stream.write_all(line(7, 0).trim_end().as_bytes()).expect("writes");
    stream.shutdown(std::net::Shutdown::Write).expect("shuts down");
    let (client, id, _) = server.request().await;
    let (snapshot, _) = server.freeze().await;
    assert_eq!(snapshot.state["clients"][0]["half_closed"], json!(true));
    server.adopt(snapshot);
    server.respond(client, id, json!("done")).await;
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let text = timeout(PATIENCE, text).await.expect("closed in time").expect("joins").expect("reads");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("done"));
    assert!(matches!(server.event().await, ControlEvent::Gone { client: gone } if gone == client));
}

#[tokio::test]
async fn a_client_too_many_is_told_so_and_the_place_of_one_that_left_is_free() {
    let mut server = Server::start();
    let mut streams: Vec<UnixStream> =
        (0..CLIENTS_MAX).map(|_| UnixStream::connect(&server.path).expect("connects")).collect();
    for stream in &mut streams {
        stream.write_all(line(1, 0).as_bytes()).expect("writes");
        server.request().await;
    }
    let mut late = Client::connect(&server.path).await.expect("connects");
    let refused = late.request::<Value>(proto::STATUS, &Value::Null, PATIENCE, |_, _| {}).await;
    assert!(matches!(refused, Err(ClientError::Rpc(ErrorObject { code: proto::OVERLOADED, .. }))), "{refused:?}");

    // Its request is unanswered, so only breaking the connection altogether frees the place.
    let gone = streams.pop().expect("the last one");
    server.respond(ClientId(CLIENTS_MAX as u64), RequestId::Number(1), Value::Null).await;
    drop(gone);
    assert!(matches!(server.event().await, ControlEvent::Gone { client } if client.0 == CLIENTS_MAX as u64));
    let mut stream = UnixStream::connect(&server.path).expect("connects");
    stream.write_all(line(1, 0).as_bytes()).expect("writes");
    server.request().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_holds_nobody_up() {
    let mut server = Server::start();
    let mut deaf = UnixStream::connect(&server.path).expect("connects");
    deaf.write_all(line(1, 0).as_bytes()).expect("writes");
    let (client, ..) = server.request().await;
    let megabyte = json!("x".repeat(1 << 20));
    for _ in 0..18 {
        server.handle.send(ControlCommand::Notify { client, method: "noise", params: megabyte.clone() }).await;
    }
    assert!(matches!(server.event().await, ControlEvent::Gone { client: gone } if gone == client));
    let path = server.path.clone();
    let other = tokio::spawn(async move {
        let mut other = Client::connect(&path).await.expect("connects");
        other.request::<String>("m", &Value::Null, PATIENCE, |_, _| {}).await
    });
    let (client, id, _) = server.request().await;
    server.respond(client, id, json!("served")).await;
    assert_eq!(other.await.expect("joins").expect("answered"), "served");
}

#[tokio::test]
async fn a_stop_writes_what_is_unsent_and_closes() {
    let mut server = Server::start();
    let path = server.path.clone();
    let client = tokio::spawn(async move {
        let mut client = Client::connect(&path).await.expect("connects");
        let answer: String = client.request("m", &Value::Null, PATIENCE, |_, _| {}).await.expect("answered");
        (answer.len(), client.wait_closed(PATIENCE).await)
    });
    let (client_id, id, _) = server.request().await;
    server.respond(client_id, id, json!("x".repeat(4 << 20))).await;
    server.handle.send(ControlCommand::Stop { drain: PATIENCE }).await;
    assert!(matches!(server.event().await, ControlEvent::Stopped));
    assert_eq!(client.await.expect("joins"), (4 << 20, true));
}

#[tokio::test]
async fn a_client_whose_socket_is_missing_is_reported_gone() {
    let mut server = Server::start();
    let mut stream = UnixStream::connect(&server.path).expect("connects");
    stream.write_all(line(1, 0).as_bytes()).expect("writes");
    let (client, ..) = server.request().await;
    let (mut snapshot, _) = server.freeze().await;
    snapshot.clients.clear();
    server.adopt(snapshot);
    assert!(matches!(server.event().await, ControlEvent::Gone { client: gone } if gone == client));
}
