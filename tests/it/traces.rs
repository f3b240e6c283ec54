//! Spans of handoffs and turns at a collector: a trace of a handoff is whole although two images and a collector that is
//! out of order were in its way, and a turn that went on over it is one span.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::control::proto::HandoffKind;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;

use crate::support::gateway::{Gateway, SOON, expected_stream, stream_prompt};
use crate::support::release::Publisher;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");

/// A collector that refuses until it is told to accept.
#[derive(Clone, Default)]
struct Collector {
    accepts: Arc<AtomicBool>,
    refused: Arc<tokio::sync::Notify>,
    spans: Arc<Mutex<Vec<Span>>>,
    arrived: Arc<tokio::sync::Notify>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let app = axum::Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, url)
    }

    /// Waits for the span that is looked for.
    async fn span(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        let found = async {
            loop {
                let arrived = self.arrived.notified();
                let spans = self.spans.lock().expect("nobody panics with it").clone();
                if let Some(span) = spans.into_iter().find(&wanted) {
                    return span;
                }
                arrived.await;
            }
        };
        match tokio::time::timeout(SOON, found).await {
            Ok(span) => span,
            Err(_) => panic!("{what} is not among {:?}", self.spans.lock().expect("nobody panics with it")),
        }
    }

    fn children(&self, of: &Span) -> BTreeSet<String> {
        let spans = self.spans.lock().expect("nobody panics with it");
        spans.iter().filter(|span| span.parent_span_id == of.span_id).map(|span| span.name.clone()).collect()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> StatusCode {
    if !collector.accepts.load(Ordering::SeqCst) {
        collector.refused.notify_one();
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("the protocol's message");
    for resource in request.resource_spans {
        let attributes = resource.resource.expect("of the gateway").attributes;
        assert!(attributes.iter().any(|attribute| attribute.key == "service.name"), "{attributes:?}");
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.spans.lock().expect("nobody panics with it").extend(spans);
    }
    collector.arrived.notify_waiters();
    StatusCode::OK
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a Value {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    let value = found.unwrap_or_else(|| panic!("{} has {name}", span.name)).value.as_ref();
    value.and_then(|value| value.value.as_ref()).expect("it has a value")
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handoff_and_what_went_on_over_it_are_whole_at_the_collector() {
    let (collector, url) = Collector::start().await;
    let publisher = Publisher::new();
    publisher.release("1.0.1", &fs::read(BINARY).expect("the binary is built"));
    let config = format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
         [gateway]\nprobation = \"0s\"\n\
         [telemetry]\notlp_endpoint = \"{url}/\"\n\
         [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        publisher.path("manifest.json").display(),
        publisher.public_key()
    );
    let gateway = Gateway::start(BINARY.as_ref(), &config).await;

    // One that fails, and what is told of it finds a collector out of order.
    let version = Some("9.9.9".to_owned());
    gateway.handoff(HandoffKind::Update { version, dry_run: false }).await.expect_err("there is none");
    tokio::time::timeout(SOON, collector.refused.notified()).await.expect("the collector is asked");

    let mut chat = gateway.chat("main").await;
    chat.say(&stream_prompt(600, 20, 10)).await;
    gateway.wait_until("a turn runs", async |status| !status.agents[0].turns.is_empty()).await;
    collector.accepts.store(true, Ordering::SeqCst);
    let report = gateway.handoff(HandoffKind::Update { version: None, dry_run: false }).await.expect("it updates");
    assert_eq!(report.turns_carried, 1);
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text, answer.end), (expected_stream(600, 20), ReplyEnd::Complete));

    let failed = collector.span("the failed update", |span| span.name == "update" && span.status.is_some()).await;
    assert_eq!(failed.status.as_ref().map(|status| status.code()), Some(SpanStatus::Error));
    let done = collector.span("the update", |span| span.name == "update" && span.trace_id != failed.trace_id).await;
    assert!(done.parent_span_id.is_empty() || done.parent_span_id.iter().all(|byte| *byte == 0));
    let probation = collector.span("its probation", |span| span.name == "probation").await;
    assert_eq!((&probation.trace_id, &probation.parent_span_id), (&done.trace_id, &done.span_id));
    let phases = collector.children(&done);
    for phase in ["stage", "preflight", "drain", "quiesce", "seal", "exec", "adopt", "probation"] {
        assert!(phases.contains(phase), "{phase} is not in {phases:?}");
    }
    assert_eq!(attribute(&done, "hermes.to.version"), &text("1.0.1"));
    assert_eq!(attribute(&done, "hermes.turns_carried"), &Value::IntValue(1));

    let turn = collector.span("the turn", |span| span.name == "turn").await;
    assert_eq!(attribute(&turn, "hermes.turn.carried"), &text("yes"));
    assert_eq!(attribute(&turn, "hermes.turn.end"), &text("complete"));
    assert!(turn.start_time_unix_nano < done.end_time_unix_nano && done.end_time_unix_nano < turn.end_time_unix_nano);

    let trace = done.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let history = gateway.status().await.handoffs;
    assert_eq!(history[0].trace_id.as_ref().map(ToString::to_string), Some(trace));
}
