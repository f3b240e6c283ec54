//! Asking for a handoff and finding out how it ended, also when the connection breaks on the way.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::error::CliError;
use super::home::Home;
use super::progress::ProgressView;
use crate::control::client::{Client, ClientError};
use crate::control::proto::{self, HandoffKind, HandoffParams, HandoffReport, Image, Progress, Status};
use crate::store::HandoffRecord;

/// How long the gateway may take to say how it is.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for a restart; the gateway's own deadlines are far shorter.
const RESTART_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The longest wait for an update, which downloads.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How long a gateway that went away may take to come back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks for a gateway that went away.
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// Asks `client` for a handoff and waits for its end. `before` is what ran when it was asked for.
///
/// # Errors
/// The gateway's refusal or failure, or [`CliError::HandoffLost`] when the connection broke and the new image does
/// not serve.
pub(super) async fn handoff(
    home: &Home,
    client: &mut Client,
    before: &Status,
    params: &HandoffParams,
    view: &mut ProgressView,
) -> Result<HandoffReport, CliError> {
    let deadline = if matches!(params.kind, HandoffKind::Update { .. }) { UPDATE_TIMEOUT } else { RESTART_TIMEOUT };
    let shown = |method: &str, value| {
        if method == proto::PROGRESS
            && let Ok(progress) = serde_json::from_value::<Progress>(value)
        {
            view.show(&progress);
        }
    };
    match client.request(proto::HANDOFF, params, deadline, shown).await {
        Err(error) if error.is_disconnect() => {
            view.note("the connection broke; looking for what runs now");
            judge(before, &wait_for_return(home).await?, params).map_err(CliError::HandoffLost)
        }
        other => other.map_err(|error| CliError::client(error, &home.path)),
    }
}

/// Asks the gateway how it is.
///
/// # Errors
/// Any of the client's.
pub(super) async fn status(client: &mut Client) -> Result<Status, ClientError> {
    client.request(proto::STATUS, &serde_json::Value::Null, STATUS_TIMEOUT, |_, _| {}).await
}

/// Connects to the gateway of a home, and asks it how it is.
///
/// # Errors
/// As [`Home::connect`] and [`status`].
pub(super) async fn status_of(home: &Home) -> Result<Status, ClientError> {
    status(&mut home.connect().await?).await
}

/// The status of the gateway once it serves again.
async fn wait_for_return(home: &Home) -> Result<Status, CliError> {
    let mut last = "nothing answers".to_owned();
    let look = async {
        loop {
            let now = async { status(&mut home.connect().await?).await };
            match now.await {
                Ok(now) if is_settled(&now) => return now,
                Ok(now) => last = format!("the gateway is still in phase `{}`", now.phase),
                Err(error) => last = error.to_string(),
            }
            sleep(RETURN_PAUSE).await;
        }
    };
    if let Ok(now) = timeout(RETURN_TIMEOUT, look).await {
        return Ok(now);
    }
    Err(CliError::HandoffLost(format!("after {} s {last}", RETURN_TIMEOUT.as_secs())))
}

pub(super) fn is_settled(now: &Status) -> bool {
    matches!(now.phase.as_str(), "serving" | "probation")
        && matches!(now.gateway_state.as_str(), "running" | "degraded")
}

/// Whether what runs now is what was asked for; the report is put together from the history.
fn judge(before: &Status, now: &Status, params: &HandoffParams) -> Result<HandoffReport, String> {
    let same_process = now.pid == before.pid && now.started_at == before.started_at;
    if same_process && now.generation <= before.generation {
        return Err(format!("{} goes on as before", before.image.version));
    }
    let record = now.handoffs.first().filter(|record| before.handoffs.first() != Some(record));
    // An update serves before it is committed, which is what was asked for.
    let went_well = |record: &HandoffRecord| matches!(record.outcome.as_str(), "committed" | "serving");
    if let Some(record) = record.filter(|record| !went_well(record)) {
        return Err(format!("it ended with: {}", record.outcome));
    }
    let wanted = match &params.kind {
        HandoffKind::Restart | HandoffKind::Reload => true,
        HandoffKind::Update { version, .. } => {
            version.as_ref().is_none_or(|version| *version == now.image.version)
                && now.image.sha256 != before.image.sha256
        }
        HandoffKind::Installed { version } => *version == now.image.version,
        HandoffKind::Revert { .. } => now.image.sha256 != before.image.sha256,
    };
    if !wanted {
        return Err(format!("{} runs", now.image.version));
    }
    Ok(HandoffReport {
        kind: params.kind.name().to_owned(),
        from: record.map_or_else(
            || before.image.clone(),
            |record| Image { version: record.from_version.clone(), sha256: record.from_sha256.clone() },
        ),
        to: now.image.clone(),
        pid: now.pid,
        generation: now.generation,
        agents_carried: record.map_or(0, |record| record.agents_carried),
        turns_carried: record.map_or(0, |record| record.turns_carried),
        blackout_us: 0,
        duration_us: record.map_or(0, |record| record.phases_us.iter().map(|(_, us)| us).sum()),
        phases_us: record.map(|record| record.phases_us.clone()).unwrap_or_default(),
        dry_run: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn status(version: &str, pid: u32, generation: u64) -> Status {
        Status {
            gateway_state: "running".into(),
            image: Image { version: version.into(), sha256: format!("sha of {version}") },
            pid,
            generation,
            started_at: UnixMillis(i64::from(pid)),
            phase: "serving".into(),
            ..Status::default()
        }
    }

    fn record(outcome: &str) -> HandoffRecord {
        HandoffRecord {
            kind: "update".into(),
            requested_by: "root".into(),
            requested_via: "control".into(),
            reason: None,
            from_version: "1.0.0".into(),
            from_sha256: "sha of 1.0.0".into(),
            to_version: "1.1.0".into(),
            to_sha256: "sha of 1.1.0".into(),
            generation: 1,
            turns_carried: 2,
            agents_carried: 1,
            started_at: UnixMillis(5),
            phases_us: vec![("execve".into(), 7)],
            outcome: outcome.into(),
            trace_id: None,
        }
    }

    fn params(kind: HandoffKind) -> HandoffParams {
        HandoffParams { kind, force: false, reason: None }
    }

    #[test]
    fn only_a_new_image_counts_as_success() {
        let before = status("1.0.0", 10, 0);
        let restart = params(HandoffKind::Restart);
        let update = params(HandoffKind::Update { version: None, dry_run: false });
        let other = params(HandoffKind::Update { version: Some("1.2.0".into()), dry_run: false });

        assert!(judge(&before, &before, &restart).is_err(), "nothing happened");
        assert!(judge(&before, &status("1.0.0", 10, 1), &restart).is_ok());
        assert!(judge(&before, &status("1.0.0", 11, 0), &restart).is_ok(), "a new process serves");
        assert!(judge(&before, &status("1.0.0", 10, 2), &update).is_err(), "rolled back");
        assert!(judge(&before, &status("1.1.0", 10, 1), &other).is_err(), "not the one asked for");
        let revert = params(HandoffKind::Revert { dry_run: false });
        assert!(judge(&before, &status("1.0.0", 10, 2), &revert).is_err(), "the same image");
        assert_eq!(judge(&before, &status("0.9.0", 10, 1), &revert).expect("went back").kind, "revert");

        let mut after = status("1.1.0", 10, 1);
        after.handoffs = vec![record("committed")];
        let report = judge(&before, &after, &update).expect("updated");
        assert_eq!((report.from.version.as_str(), report.turns_carried, report.duration_us), ("1.0.0", 2, 7));
        after.handoffs = vec![record("serving")];
        assert!(judge(&before, &after, &update).is_ok(), "on probation");
        after.handoffs = vec![record("rolled back: the agent did not answer")];
        let reason = judge(&before, &after, &update).expect_err("rolled back");
        assert!(reason.contains("did not answer"), "{reason}");
    }
}
