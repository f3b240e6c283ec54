//! Spans of handoffs and turns to a collector, over OTLP/HTTP (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! What a span is of may have begun in another image, so a span is made once it is over, of what is known then. Spans that
//! have not been taken yet are handed to the next image ([`Exporter::waiting`]).
//!
//! **Invariants**
//! - Nobody waits for a collector: a span that finds no room is dropped, and how many is told in the log.
//! - Headers, which may hold a token, come from the environment alone (`OTEL_EXPORTER_OTLP_HEADERS`) and are not logged.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Notify;

use crate::clock::UnixMillis;
use crate::id;

/// Spans that wait at the most.
const WAITING_MAX: usize = 1024;
/// Spans in a request.
const BATCH: usize = 128;
/// The longest that a collector may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The pause after a request that failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Something that is over: a handoff, a phase of it, a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The trace to which it belongs.
    pub trace: id::TraceId,
    /// Its id, unique in the trace; not 0.
    pub id: u64,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// What it is, of few different names.
    pub name: String,
    /// When it began, in µs since 1970.
    pub start_us: u64,
    /// How long it took, in µs.
    pub duration_us: u64,
    /// What else is known.
    pub attributes: Vec<(String, Attribute)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A value in a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Attribute {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl Span {
    /// A moment as [`Span::start_us`].
    pub fn micros(at: UnixMillis) -> u64 {
        u64::try_from(at.0).unwrap_or_default().saturating_mul(1000)
    }

    fn data(self, scope: &InstrumentationScope) -> SpanData {
        let trace = TraceId::from_hex(self.trace.as_str()).unwrap_or(TraceId::INVALID);
        let (id, sampled) = (SpanId::from(self.id), TraceFlags::SAMPLED);
        let start_time = SystemTime::UNIX_EPOCH + Duration::from_micros(self.start_us);
        let attribute = |(name, value)| {
            let value = match value {
                Attribute::Number(number) => Value::I64(number),
                Attribute::Text(text) => Value::String(text.into()),
            };
            KeyValue::new::<String, Value>(name, value)
        };
        SpanData {
            span_context: SpanContext::new(trace, id, sampled, false, TraceState::NONE),
            parent_span_id: self.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Owned(self.name),
            start_time,
            end_time: start_time + Duration::from_micros(self.duration_us),
            attributes: self.attributes.into_iter().map(attribute).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope.clone(),
        }
    }
}

/// Why nothing can be exported.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The address or `OTEL_EXPORTER_OTLP_HEADERS` is of no use.
    #[error("cannot export to otlp_endpoint")]
    Endpoint(#[source] ExporterBuildError),
    /// The collector refused, or is out of reach.
    #[error("the collector at otlp_endpoint does not take spans: {0}")]
    Refused(String),
}

/// Sends spans beside everything else.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Queue {
    spans: Mutex<VecDeque<Span>>,
    more: Notify,
    taken: Notify,
}

impl Queue {
    fn with<T>(&self, look: impl FnOnce(&mut VecDeque<Span>) -> T) -> T {
        look(&mut self.spans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Exporter {
    /// Begins to send to the collector at `endpoint` (`/v1/traces` is added), first what the image before could not send.
    /// In a runtime.
    pub fn start(endpoint: &str, version: &'static str, left: Vec<Span>) -> Self {
        let queue = Arc::new(Queue::default());
        let exporter = Self { queue: Arc::clone(&queue), task: tokio::spawn(run(queue, endpoint.to_owned(), version)) };
        exporter.put(left);
        exporter
    }

    /// Queues spans.
    pub fn put(&self, spans: impl IntoIterator<Item = Span>) {
        let dropped = self.queue.with(|queue| {
            queue.extend(spans);
            let over = queue.len().saturating_sub(WAITING_MAX);
            queue.drain(..over).count()
        });
        if dropped > 0 {
            tracing::warn!(dropped, "spans are dropped: the collector does not take them fast enough");
        }
        self.queue.more.notify_one();
    }

    /// What was not taken by the collector yet.
    pub fn waiting(&self) -> Vec<Span> {
        self.queue.with(|queue| queue.iter().cloned().collect())
    }

    /// Waits until everything was taken, no longer than `deadline`.
    pub async fn flush(self, deadline: Duration) {
        let taken = async {
            while !self.queue.with(|queue| queue.is_empty()) {
                self.queue.taken.notified().await;
            }
        };
        let _out_of_time = tokio::time::timeout(deadline, taken).await;
        self.task.abort();
    }
}

async fn run(queue: Arc<Queue>, endpoint: String, version: &'static str) {
    let made = tokio::task::spawn_blocking(move || exporter(&endpoint, version)).await;
    let exporter = match made {
        Ok(Ok(exporter)) => exporter,
        Ok(Err(error)) => return tracing::error!(error = %crate::report::Chain(&error), "no spans are exported"),
        Err(error) => return tracing::error!(%error, "no spans are exported"),
    };
    let scope = InstrumentationScope::builder("hermes").with_version(version).build();
    let taken = &queue.taken;
    let mut is_up = true;
    loop {
        let batch: Vec<Span> = queue.with(|queue| queue.iter().take(BATCH).cloned().collect());
        if batch.is_empty() {
            queue.more.notified().await;
            continue;
        }
        let last = batch.last().map(|span| (span.trace.clone(), span.id));
        match send(&exporter, batch.into_iter().map(|span| span.data(&scope)).collect()).await {
            // What was dropped meanwhile is not there any more.
            Ok(()) => queue.with(|queue| {
                let at = queue.iter().position(|span| Some((span.trace.clone(), span.id)) == last);
                queue.drain(..at.map_or(0, |at| at + 1));
                is_up = true;
                taken.notify_one();
            }),
            Err(error) => {
                if std::mem::replace(&mut is_up, false) {
                    tracing::warn!(error = %crate::report::Chain(&error), "spans wait");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn send(exporter: &SpanExporter, batch: Vec<SpanData>) -> Result<(), OtlpError> {
    match tokio::time::timeout(DEADLINE, exporter.export(batch)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(OtlpError::Refused(error.to_string())),
        Err(_) => Err(OtlpError::Refused(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// Loads the root certificates of the system, which takes milliseconds.
fn exporter(endpoint: &str, version: &'static str) -> Result<SpanExporter, OtlpError> {
    crate::tls::choose_provider();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.map_err(OtlpError::Client)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(OtlpError::Endpoint)?;
    let resource = Resource::builder_empty()
        .with_service_name("hermes-gateway")
        .with_attribute(KeyValue::new("service.version", version));
    exporter.set_resource(&resource.build());
    Ok(exporter)
}
