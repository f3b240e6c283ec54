//! What `scripts/demo` runs: one update of a running gateway in the middle of an answer, and what became of it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hermes_gateway::chat::{Notice, OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::control::proto::Status;
use hermes_gateway::update::Versions;
use hermes_gateway::version::version;
use semver::Version;
use tokio::signal::unix::{SignalKind, signal};

#[path = "../tests/it/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;

use gateway::{Chat, Gateway, expected_stream, stream_prompt};

/// The answer: this many pieces of this many bytes, one every so many milliseconds.
const CHUNKS: usize = 600;
const CHUNK_BYTES: usize = 64;
const DELAY_MS: u64 = 10;
/// The update is asked for after this many bytes: a third of the answer is undisturbed.
const UNDISTURBED_BYTES: usize = CHUNKS * CHUNK_BYTES / 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        // What was started is dropped, and so ended, on every way out.
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            result = demo() => result,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        },
        (interrupt, terminate) => interrupt.and(terminate).map(drop).context("cannot listen for signals"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(binary), Some(script)) = (arguments.next(), arguments.next()) else {
        bail!("start it with scripts/demo");
    };
    let releases = tempfile::Builder::new().prefix("hermes-releases-").tempdir()?;
    let newer = newer()?;
    let key = release(&script, &binary, releases.path(), &newer)?;
    let gateway = start(&binary, releases.path(), &key).await?;
    // Its digest is known a moment after it serves.
    gateway.wait_until("the digest is known", async |status| !status.image.sha256.is_empty()).await;
    let before = gateway.status().await;
    println!("hermes {} serves as PID {}; its agent is PID {}.\n", version(), gateway.pid(), agent_pid(&before)?);
    let scene = scene(&mut gateway.chat("demo").await).await?;
    let after = gateway.status().await;
    let is_same_process = gateway.pid() == before.pid && before.pid == after.pid;
    let result = Findings { before, after, scene, newer: newer.to_string(), is_same_process }.tell();
    let home = gateway.home().to_owned();
    let pid = gateway.pid();
    drop((gateway, releases));
    ensure!(!home.exists(), "{} was left behind", home.display());
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "the gateway was left behind as PID {pid}");
    result
}

/// The version after the one that runs.
fn newer() -> Result<Version> {
    let mut newer = Version::parse(version())?;
    newer.patch += 1;
    Ok(newer)
}

/// Makes a key and a signed release with `scripts/release`, and returns the public key.
fn release(script: &Path, binary: &Path, dir: &Path, version: &Version) -> Result<String> {
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(script).args(arguments).output().context("cannot run scripts/release")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "scripts/release failed: {said}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let key = run(&["--gen-key".as_ref(), dir.as_ref()])?;
    let (version, file) = (version.to_string(), dir.join("release.key"));
    run(&[
        "--version".as_ref(),
        version.as_ref(),
        "--out".as_ref(),
        dir.as_ref(),
        "--key".as_ref(),
        file.as_ref(),
        "--bin".as_ref(),
        binary.as_ref(),
    ])?;
    println!("Released {version} with scripts/release, signed with a key made for this.");
    Ok(key.trim().to_owned())
}

/// Installs `binary` in a temporary home as an update would have, and starts it there.
async fn start(binary: &Path, releases: &Path, key: &str) -> Result<Gateway> {
    let home = tempfile::Builder::new().prefix("hermes-").tempdir()?;
    let versions = Versions::new(home.path());
    let running = Version::parse(version())?;
    let installed = versions.path(&running);
    std::fs::create_dir_all(installed.parent().context("a version has a directory")?)?;
    std::fs::copy(binary, &installed)?;
    versions.set_current(&running)?;
    let config = format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n\
         [update]\nmanifest_url = \"file://{}/manifest.json\"\nverifying_keys = [\"{key}\"]\n",
        releases.display()
    );
    Ok(Gateway::start_in(home, &installed, &config).await)
}

/// What was seen in the chat.
struct Scene {
    /// The answer.
    text: String,
    /// Whether it ended as one that was not interrupted.
    is_complete: bool,
    /// When each piece came.
    pieces: Vec<Instant>,
    /// When the update was asked for.
    asked: Instant,
    /// When the chat was told that it is over.
    done: Option<Instant>,
}

/// Asks for a long answer, for the update in the middle of it, and reads on until it ends.
async fn scene(chat: &mut Chat) -> Result<Scene> {
    let start = Instant::now();
    let show = |at: Instant, line: &str| println!("{:6.2} s  {line}", (at - start).as_secs_f64());
    let prompt = stream_prompt(CHUNKS, CHUNK_BYTES, DELAY_MS);
    show(start, &format!("you:    {prompt}"));
    chat.say(&prompt).await;
    let (mut text, mut pieces, mut asked, mut done) = (String::new(), Vec::new(), None, None);
    let is_complete = loop {
        let shown = chat.next().await;
        let now = Instant::now();
        match shown {
            OutboundContent::Notice(Notice { text, .. }) => {
                for line in text.lines() {
                    show(now, &format!("hermes: {line}"));
                }
                if text.starts_with('✅') {
                    done = Some(now);
                }
            }
            OutboundContent::Reply { step: ReplyStep::Delta(piece), .. } => {
                if pieces.is_empty() {
                    show(now, "agent:  the answer begins to stream");
                }
                pieces.push(now);
                text.push_str(&piece);
                if asked.is_none() && text.len() >= UNDISTURBED_BYTES {
                    asked = Some(now);
                    show(now, "you:    /update");
                    chat.say("/update").await;
                }
            }
            OutboundContent::Reply { step: ReplyStep::End(end), .. } => {
                show(now, "agent:  the answer ends");
                break end == ReplyEnd::Complete;
            }
            OutboundContent::Reply { .. } => {}
        }
    };
    let asked = asked.context("the answer ended before the update could be asked for")?;
    Ok(Scene { text, is_complete, pieces, asked, done })
}

/// Everything there is to judge.
struct Findings {
    before: Status,
    after: Status,
    scene: Scene,
    newer: String,
    is_same_process: bool,
}

impl Findings {
    /// Prints the findings.
    ///
    /// # Errors
    /// If one of them is not as it should be.
    fn tell(&self) -> Result<()> {
        let Self { before, after, scene, newer, is_same_process } = self;
        let (agent_before, agent_after) = (agent_pid(before)?, agent_pid(after)?);
        let expected = expected_stream(CHUNKS, CHUNK_BYTES);
        let mut all_well = true;
        let mut line = |is_well: bool, what: &str, found: String| {
            all_well &= is_well;
            println!("  {:6}  {what:12}  {found}", if is_well { "ok" } else { "FAILED" });
        };
        println!("\nBefore → after:");
        line(*is_same_process, "process", format!("PID {} → {}", before.pid, after.pid));
        line(agent_before == agent_after, "agent", format!("PID {agent_before} → {agent_after}"));
        let version = format!("{} → {}", before.image.version, after.image.version);
        line(after.image.version == *newer, "version", version);
        let sha256 = format!("{} → {}", short(&before.image.sha256), short(&after.image.sha256));
        line(before.image.sha256 != after.image.sha256, "sha256", sha256);
        line(
            after.generation == before.generation + 1,
            "generation",
            format!("{} → {}", before.generation, after.generation),
        );
        let same = if scene.text == expected { "every one as the agent said it" } else { "NOT what the agent said" };
        line(
            scene.is_complete && scene.text == expected,
            "answer",
            format!("{} of {} bytes, {same}", scene.text.len(), expected.len()),
        );
        let record = after.handoffs.first().filter(|record| record.to_version == *newer);
        let carried = record.map_or(0, |record| record.turns_carried);
        line(carried == 1, "turns", format!("{carried} carried over"));
        line(scene.done.is_some(), "told", "the chat was told how it went".to_owned());
        let [undisturbed, during] = scene.gaps();
        println!("\nThe longest wait between two pieces of the answer (one is sent every {DELAY_MS} ms):");
        println!("  {:>7} before the update was asked for", millis(undisturbed));
        println!("  {:>7} from then until it was done", millis(during));
        if let Some(record) = record {
            println!("\nThe handoff; the old image serves until quiesce begins:");
            for (phase, us) in &record.phases_us {
                println!("  {:>7} {phase}", millis(Duration::from_micros(*us)));
            }
        }
        ensure!(all_well, "not everything is as it should be");
        println!("\nAll is well.");
        Ok(())
    }
}

impl Scene {
    /// The longest time between two pieces: before the update was asked for, and from then until the piece after it
    /// was done.
    fn gaps(&self) -> [Duration; 2] {
        let mut gaps = [Duration::ZERO; 2];
        for pair in self.pieces.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            if to <= self.asked {
                gaps[0] = gaps[0].max(to - from);
            } else if self.done.is_none_or(|done| from <= done) {
                gaps[1] = gaps[1].max(to - from);
            }
        }
        gaps
    }
}

fn agent_pid(status: &Status) -> Result<i32> {
    status.agents.first().and_then(|agent| agent.pid).context("the agent does not run")
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or("unknown")
}

fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}
