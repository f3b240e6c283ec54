//! `hermes gateway history`: every handoff, from the gateway that runs or from the database that it left.

use std::time::Duration;

use super::args::HistoryArgs;
use super::error::CliError;
use super::home::Home;
use super::page::{Cell, Look, Page, Tone, fine, local_time, row};
use super::screen;
use super::status::view::{change, phases, tone_of};
use crate::control::client::ClientError;
use crate::control::proto::{self, History, HistoryParams};
use crate::jsonrpc::ErrorObject;
use crate::store::{HandoffRecord, Store};
use crate::units::{count, short_digest};

/// How long the gateway may take to read it.
const TIMEOUT: Duration = Duration::from_secs(20);

/// `hermes gateway history`.
pub(super) async fn run(home: &Home, args: HistoryArgs) -> Result<(), CliError> {
    let history = match from_gateway(home, args.number).await {
        Ok(history) => history,
        // Nobody is there to ask, or it is older than the question.
        Err(ClientError::NotRunning { .. }) => from_store(home, args.number)?,
        Err(ClientError::Rpc(error)) if error.code == ErrorObject::METHOD_NOT_FOUND => from_store(home, args.number)?,
        Err(error) => return Err(CliError::client(error, &home.path)),
    };
    if args.json.json { screen::print_json(&history) } else { screen::print(&page(&history, Look::of_stdout())) }
}

async fn from_gateway(home: &Home, limit: u32) -> Result<History, ClientError> {
    let mut client = home.connect().await?;
    client.request(proto::HISTORY, &HistoryParams { limit }, TIMEOUT, |_, _| {}).await
}

/// Writes nothing.
fn from_store(home: &Home, limit: u32) -> Result<History, CliError> {
    let path = home.path.join("state.db");
    if !path.exists() {
        return Ok(History::default());
    }
    Store::read_handoffs(&path, limit).map(|handoffs| History { handoffs }).map_err(CliError::Store)
}

fn page(history: &History, look: Look) -> String {
    let mut page = Page::new(look);
    if history.handoffs.is_empty() {
        page.paragraph("no handoff is on record");
    }
    for (number, record) in history.handoffs.iter().enumerate() {
        if number > 0 {
            page.blank();
        }
        entry(&mut page, record);
    }
    page.text()
}

fn entry(page: &mut Page, record: &HandoffRecord) {
    let HandoffRecord { requested_by, requested_via, reason, generation, .. } = record;
    let when = Cell::toned(local_time(record.started_at), Tone::Faint);
    page.headline(&[
        when,
        Cell::toned(change(record), Tone::Title),
        Cell::toned(&record.outcome, tone_of(&record.outcome)),
    ]);
    let why = reason.as_ref().map(|reason| format!(" “{reason}”")).unwrap_or_default();
    let digests = if record.from_sha256 == record.to_sha256 {
        short_digest(&record.to_sha256).to_owned()
    } else {
        format!("{} → {}", short_digest(&record.from_sha256), short_digest(&record.to_sha256))
    };
    let carried = format!("{}, {}", count(record.turns_carried, "turn"), count(record.agents_carried, "agent"));
    let total = fine(record.phases_us.iter().map(|(_, us)| us).sum());
    page.rows(&[
        row!["asked", format!("by {requested_by} ({requested_via}){why}")],
        row!["sha256", digests],
        row!["carried", format!("{carried}; generation {generation}")],
        row!["phases", format!("{}; {total} in all", phases(record))],
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn each_handoff_is_told_in_full() {
        let update = HandoffRecord {
            kind: "update".into(),
            requested_by: "Ann (id 1001)".into(),
            requested_via: "telegram:1001".into(),
            reason: Some("security".into()),
            from_version: "1.3.0".into(),
            from_sha256: "0a".repeat(32),
            to_version: "1.4.0".into(),
            to_sha256: "0b".repeat(32),
            generation: 2,
            turns_carried: 3,
            agents_carried: 1,
            started_at: UnixMillis(1_000_000),
            phases_us: vec![("stage".into(), 1_200_000), ("preflight".into(), 80_000), ("exec".into(), 900)],
            outcome: "committed".into(),
            trace_id: None,
        };
        let restart = HandoffRecord {
            kind: "restart".into(),
            requested_by: "uid 0".into(),
            requested_via: "control".into(),
            reason: None,
            to_version: "1.3.0".into(),
            to_sha256: "0a".repeat(32),
            phases_us: Vec::new(),
            outcome: "failed in preflight: it crashed".into(),
            ..update.clone()
        };
        let time = local_time(update.started_at);
        let shown = page(&History { handoffs: vec![update, restart] }, Look::PLAIN).replace(&time, "[time]");
        insta::assert_snapshot!(shown, @r"
        [time] update 1.3.0 → 1.4.0 committed
          asked    by Ann (id 1001) (telegram:1001) “security”
          sha256   0a0a0a0a0a0a → 0b0b0b0b0b0b
          carried  3 turns, 1 agent; generation 2
          phases   stage 1200 ms, preflight 80 ms, exec 900 µs; 1280 ms in all

        [time] restart 1.3.0 failed in preflight: it crashed
          asked    by uid 0 (control)
          sha256   0a0a0a0a0a0a
          carried  3 turns, 1 agent; generation 2
          phases   no phase was measured; 0 µs in all
        ");
        assert_eq!(page(&History::default(), Look::PLAIN), "  no handoff is on record\n");
    }
}
