//! Events as JSON, with the context.

use std::fmt;

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::context;

/// Adds the members of the context to the object that another format writes.
pub(super) struct WithContext<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for WithContext<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, of: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(of, Writer::new(&mut line), event)?;
        writer.write_str(&with_members(&line, context::fields()))
    }
}

/// `line` is one object that is not empty; a member that it has already is not added.
fn with_members(line: &str, members: impl Iterator<Item = (&'static str, Value)>) -> String {
    let Some(object) = line.trim_end().strip_suffix('}') else { return line.to_owned() };
    let mut text = object.to_owned();
    for (name, value) in members {
        let name = format!("\"{name}\":");
        if !object.contains(&name) {
            text.extend([",", &name, &value.to_string()]);
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_added_at_the_end_of_the_object() {
        let members = || [("generation", json!(3)), ("trace_id", json!("ab"))].into_iter();
        for (line, all) in [
            (r#"{"a":1}"#, json!({ "a": 1, "generation": 3, "trace_id": "ab" })),
            (r#"{"a":{"b":{}}}"#, json!({ "a": { "b": {} }, "generation": 3, "trace_id": "ab" })),
            (r#"{"generation":7}"#, json!({ "generation": 7, "trace_id": "ab" })),
        ] {
            let text = with_members(&format!("{line}\n"), members());
            assert!(text.ends_with("}\n"));
            assert_eq!(serde_json::from_str::<Value>(&text).expect("an object"), all);
        }
    }
}
