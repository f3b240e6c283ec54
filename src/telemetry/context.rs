//! What every event is told with: the generation of the image, and the trace of the handoff under way.
//!
//! A handoff begins in one image and ends in the next, so no span of a process can hold it. Its trace id is carried
//! instead (the passport, the note in the store), and each image tells it with all that it logs while the handoff is
//! under way: `journalctl HERMES_TRACE_ID=<id>` is the whole of it, over all images and processes.
//!
//! The ids are those of W3C Trace Context (<https://www.w3.org/TR/trace-context/>), so the trace that is exported
//! ([`super::otlp`]) has the same.

use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use crate::id::{Generation, TraceId};

/// The fields of the context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) generation: Option<Generation>,
    pub(super) trace: Option<TraceId>,
}

static CONTEXT: RwLock<Context> = RwLock::new(Context { generation: None, trace: None });

/// From here on every event has the field `generation`.
pub fn set_generation(generation: Generation) {
    change(|context| context.generation = Some(generation));
}

/// From here on every event has the field `trace_id`, or has it no longer.
pub fn follow(trace: Option<&TraceId>) {
    let same = read(|context| context.trace.as_ref() == trace);
    if !same {
        change(|context| context.trace = trace.cloned());
    }
}

/// The context as fields.
pub(super) fn fields() -> impl Iterator<Item = (&'static str, Value)> {
    let Context { generation, trace } = read(Context::clone);
    let generation = generation.map(|generation| ("generation", Value::from(generation.0)));
    let trace = trace.map(|trace| ("trace_id", Value::from(trace.as_str())));
    generation.into_iter().chain(trace)
}

fn read<T>(look: impl FnOnce(&Context) -> T) -> T {
    look(&CONTEXT.read().unwrap_or_else(PoisonError::into_inner))
}

fn change(change: impl FnOnce(&mut Context)) {
    change(&mut CONTEXT.write().unwrap_or_else(PoisonError::into_inner));
}
