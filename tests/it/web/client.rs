//! A browser's part: requests with a session or a token, and an event stream that is opened again when it breaks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

/// The longest wait for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);
/// How soon a browser opens a stream again, as the gateway says.
const RETRY: Duration = Duration::from_millis(100);
pub const TOKEN: &str = "the-token-of-the-owner-of-this-gateway";
pub const GUEST_TOKEN: &str = "the-token-of-its-guests";

/// gateway.toml with the web page at `address` and the echo agent.
pub fn config(address: SocketAddr, more: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_hermes");
    format!(
        "[agents.default]\ncommand = [\"{binary}\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
         [platforms.web]\nlisten = \"{address}\"\ntoken = \"{TOKEN}\"\nguest_token = \"{GUEST_TOKEN}\"\n{more}\n"
    )
}

/// The name of a message.
pub fn uuid() -> String {
    let bytes = hermes_gateway::hex::encode(&hermes_gateway::sys::random::some::<16>());
    let groups = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| &bytes[from..to]);
    groups.join("-")
}

/// A request with a form, as a page without a script makes it.
pub fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(pairs.join("&"))
}

/// The pages at an address.
#[derive(Clone)]
pub struct Site {
    pub address: SocketAddr,
    pub client: Client,
    token: &'static str,
}

impl Site {
    /// As who has `token`.
    pub fn new(address: SocketAddr, token: &'static str) -> Self {
        hermes_gateway::tls::choose_provider();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build();
        Self { address, client: client.expect("a client"), token }
    }

    /// A request without anything that says who asks.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).timeout(SOON)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(self.token)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    pub async fn status_of(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.expect("an answer")
    }

    /// Says something until it is accepted, as pages do. Returns its number.
    pub async fn say(&self, chat: &str, text: &str) -> i64 {
        self.say_as(&uuid(), chat, text).await
    }

    /// As [`Site::say`], under a name of its own.
    pub async fn say_as(&self, id: &str, chat: &str, text: &str) -> i64 {
        let body = json!({ "id": id, "chat": chat, "text": text });
        let start = Instant::now();
        loop {
            let answer = self.request(Method::POST, "/api/messages").json(&body).send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => {
                    let answer: Value = answer.json().await.expect("JSON");
                    return answer["number"].as_i64().expect("a number");
                }
                Ok(answer) => assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{text}"),
                Err(error) => assert!(!error.is_connect(), "nobody is refused: {error:?}"),
            }
            assert!(start.elapsed() < SOON, "not accepted: {text}");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The stream of a chat, from its last messages on.
    pub fn stream(&self, query: &str) -> Stream {
        let (site, path) = (self.clone(), format!("/events?{query}"));
        Stream { site, path, last: None, body: None, rest: String::new(), messages: BTreeMap::new(), breaks: 0 }
    }

    /// The session of a login with `token`, and the page that it leads to.
    pub async fn login(&self, token: &str, next: &str) -> (StatusCode, Option<String>, String) {
        let form = [("token", token), ("next", next)];
        let answer = with_form(self.bare(Method::POST, "/login"), &form).send().await.expect("an answer");
        let of =
            |name: header::HeaderName| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        (answer.status(), of(header::SET_COOKIE), of(header::LOCATION).unwrap_or_default())
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub event: String,
    pub id: String,
    pub data: Value,
}

/// An event stream, and what a page would make of it.
pub struct Stream {
    site: Site,
    path: String,
    pub last: Option<String>,
    body: Option<Response>,
    rest: String,
    /// What the page shows, by the numbers of messages.
    pub messages: BTreeMap<i64, Value>,
    /// How often it was opened again.
    pub breaks: usize,
}

impl Stream {
    async fn open(&mut self) -> Response {
        let start = Instant::now();
        loop {
            let mut request = self.site.client.get(format!("http://{}{}", self.site.address, self.path));
            if let Some(last) = &self.last {
                request = request.header("last-event-id", last);
            }
            match timeout(SOON, request.bearer_auth(self.site.token).send()).await.expect("an answer in time") {
                Ok(answer) if answer.status() == StatusCode::OK => return answer,
                Ok(answer) => assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE),
                Err(error) => assert!(!error.is_connect(), "nobody is refused: {error:?}"),
            }
            assert!(start.elapsed() < SOON, "the stream does not open");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Breaks the connection, as networks do.
    pub fn cut(&mut self) {
        self.body = None;
        self.rest.clear();
    }

    /// The next event, however often the stream breaks before it.
    pub async fn next(&mut self) -> Event {
        loop {
            while let Some((block, rest)) = self.rest.split_once("\n\n") {
                let block = block.to_owned();
                self.rest = rest.to_owned();
                if let Some(event) = parsed(&block) {
                    self.last = Some(event.id.clone());
                    self.take(&event);
                    return event;
                }
            }
            if self.body.is_none() {
                self.breaks += usize::from(self.last.is_some());
                self.rest.clear();
                self.body = Some(self.open().await);
            }
            let body = self.body.as_mut().expect("it was opened");
            match timeout(SOON, body.chunk()).await.expect("an event in time") {
                Ok(Some(piece)) => self.rest.push_str(std::str::from_utf8(&piece).expect("pieces are whole events")),
                Ok(None) | Err(_) => self.body = None,
            }
        }
    }

    fn take(&mut self, Event { event, data, .. }: &Event) {
        let number = data["number"].as_i64();
        match (event.as_str(), number) {
            ("message", Some(number)) => drop(self.messages.insert(number, data.clone())),
            ("text", Some(number)) => {
                let message = self.messages.get_mut(&number).expect("a text is of a message that is known");
                let had: Vec<u16> = message["text"].as_str().expect("a text").encode_utf16().collect();
                let at = usize::try_from(data["at"].as_u64().expect("a place")).expect("small");
                assert!(at <= had.len(), "{at} of {}: something is missing", had.len());
                let kept = String::from_utf16(&had[..at]).expect("cut between characters");
                message["text"] = format!("{kept}{}", data["text"].as_str().expect("a text")).into();
                message["final"] = data["final"].clone();
            }
            _ => {}
        }
    }

    /// Reads until what the page shows is as wanted.
    pub async fn until<T>(&mut self, what: &str, mut reached: impl FnMut(&BTreeMap<i64, Value>) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = reached(&self.messages) {
                return found;
            }
            assert!(start.elapsed() < 4 * SOON, "not in time: {what}");
            self.next().await;
        }
    }

    /// How many messages are by `author`.
    pub fn said_by(&self, author: &str) -> usize {
        self.messages.values().filter(|message| message["from"] == author).count()
    }

    /// Reads until an answer behind message `number` is complete, and returns its text.
    pub async fn answer_to(&mut self, number: i64) -> String {
        self.until("an answer", |messages| {
            let mut behind = messages.range(number + 1..).map(|(_, message)| message);
            let answer = behind.find(|message| message["from"] == "agent" && message["final"] == true)?;
            Some(answer["text"].as_str().expect("a text").to_owned())
        })
        .await
    }

    /// Reads until the answer behind message `number` has so many bytes.
    pub async fn growing(&mut self, number: i64, bytes: usize) {
        self.until("a growing answer", |messages| {
            let mut behind = messages.range(number + 1..).map(|(_, message)| message);
            behind.any(|message| message["text"].as_str().is_some_and(|text| text.len() >= bytes)).then_some(())
        })
        .await;
    }
}

fn parsed(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let event = field("event")?.to_owned();
    let id = field("id").expect("every event has an id").to_owned();
    let data = serde_json::from_str(field("data").expect("every event has data")).expect("JSON");
    Some(Event { event, id, data })
}
