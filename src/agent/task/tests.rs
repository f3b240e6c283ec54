//! The read path, step by step, killed between any two.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::*;
use crate::agent::running::Running;
use crate::agent::{TurnOutcome, TurnUpdate};
use crate::id::TurnId;

const NOW: MonoNanos = MonoNanos(1_000_000_000);
const TURN: TurnId = TurnId(1);

/// An agent that the test plays, and whoever keeps its fds.
struct Stage {
    /// A process that does nothing, for the pidfd.
    child: Child,
    its_stdin: UnixStream,
    its_stdout: UnixStream,
    kept: AgentFds,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It is gone either way.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn spec() -> AgentSpec {
    AgentSpec {
        name: "a".into(),
        command: Vec::new(),
        cwd: "/".into(),
        env: std::collections::BTreeMap::new(),
        withheld: std::collections::BTreeSet::new(),
        outgoing: "/nonexistent".into(),
    }
}

fn clone(fds: &AgentFds) -> AgentFds {
    let clone = |fd: &OwnedFd| fd.try_clone().expect("room for fds");
    let AgentFds { stdin, stdout, pidfd, log } = fds;
    AgentFds { stdin: clone(stdin), stdout: clone(stdout), pidfd: clone(pidfd), log: log.as_ref().map(clone) }
}

fn task(restored: Restored) -> Task {
    let (events, _nobody) = mpsc::channel(1);
    let (_handle, mailbox) = AgentHandle::new("a".into());
    let Restored { connection, backoff, life, journal } = restored;
    let limits = Limits::default();
    Task {
        spec: spec(),
        limits,
        events,
        mailbox,
        connection,
        life,
        backoff,
        journal,
        told: VecDeque::new(),
        readings: JoinSet::new(),
    }
}

impl Stage {
    /// An agent in the middle of [`TURN`], in session `s`.
    fn new() -> (Self, Task) {
        let (stdin, its_stdin) = UnixStream::pair().expect("a pair");
        let (stdout, its_stdout) = UnixStream::pair().expect("a pair");
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat starts");
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
        let fds = AgentFds { stdin: stdin.into(), stdout: stdout.into(), pidfd, log: None };
        let mut kept = clone(&fds);
        let process = Process::adopt(pid.as_raw_nonzero().get(), fds).expect("its fds");
        let mut connection = Connection::new("a".into(), Limits::default());
        connection.start(NOW, process.pid(), &spec());
        let mut journal = Journal::default();
        journal.begin(&"a".into());
        kept.log = journal.duplicate().expect("duplicates");
        let life = Life::Up(Box::new(Running::new(process, NOW, &Limits::default())));
        let task = &mut task(Restored { connection, backoff: Backoff::default(), life, journal });
        let mut stage = Self { child, its_stdin, its_stdout, kept };
        stage.reply(task, &json!({"protocolVersion": 1}));
        task.connection.prompt(NOW, TURN, None, "hello".into());
        stage.reply(task, &json!({"sessionId": "s"}));
        stage.settle(task);
        let task = stage.kill();
        let (recovered, turns) = task.expect("it can be recovered");
        assert_eq!(turns.len(), 1);
        (stage, recovered)
    }

    /// Writes all that waits, and returns what the agent got.
    fn settle(&mut self, task: &mut Task) -> String {
        wait(task.note_events());
        task.record(None);
        write(task);
        self.its_stdin.set_nonblocking(true).expect("sets");
        let mut got = Vec::new();
        // Ends with WouldBlock.
        let _over = self.its_stdin.read_to_end(&mut got);
        String::from_utf8(got).expect("JSON")
    }

    /// Answers the one request that was written.
    fn reply(&mut self, task: &mut Task, result: &serde_json::Value) {
        let got = self.settle(task);
        let request: serde_json::Value = serde_json::from_str(&got).expect("one request");
        self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string());
        read(task, Cut::None);
    }

    fn say(&mut self, line: &str) {
        self.its_stdout.write_all(format!("{line}\n").as_bytes()).expect("writes");
    }

    /// The gateway is gone: the next one has what was kept.
    fn kill(&self) -> Result<(Task, Vec<RecoveredTurn>), AdoptError> {
        let (restored, turns) = recovered(&spec(), Limits::default(), clone(&self.kept))?;
        Ok((task(restored), turns))
    }
}

fn write(task: &mut Task) {
    while !task.connection.outgoing.is_empty() {
        let Life::Up(running) = &mut task.life else { panic!("it runs") };
        wait(running.process.writable());
        running.write(NOW, &task.limits, &mut task.connection, &mut task.journal);
    }
}

fn in_runtime<T>(test: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async { test() })
}

/// Readiness comes by the runtime, which runs only here.
fn wait(ready: impl Future<Output = ()>) {
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| handle.block_on(ready));
}

/// Where the gateway is killed in a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    Peeked,
    Marked,
    Recorded,
    /// As if the kernel gave way in the middle.
    HalfConsumed,
}

const CUTS: [Cut; 5] = [Cut::None, Cut::Peeked, Cut::Marked, Cut::Recorded, Cut::HalfConsumed];

/// As [`Task::read`], up to where it is cut.
fn read(task: &mut Task, cut: Cut) {
    let Life::Up(running) = &mut task.life else { panic!("it runs") };
    wait(running.process.stdout.readable());
    if cut == Cut::None {
        wait(task.read(NOW));
        return;
    }
    let heard = running.read(NOW, &task.limits, &mut task.connection, true).expect("there is something");
    wait(task.note_events());
    if cut == Cut::Peeked {
        return;
    }
    task.mark(heard);
    if cut == Cut::Marked {
        return;
    }
    task.record(Some(heard));
    if cut == Cut::HalfConsumed {
        task.consume(NOW, Heard { bytes: heard.bytes / 2, ..heard });
    }
}

/// What a chat sees of [`TURN`].
#[derive(Default)]
struct Seen {
    text: String,
    ends: usize,
}

impl Seen {
    fn events(&mut self, task: &mut Task) {
        for event in task.told.drain(..) {
            match event {
                AgentEvent::Update { update: TurnUpdate::Text(text), .. } => {
                    assert_eq!(self.ends, 0, "nothing follows the end");
                    self.text.push_str(&text);
                }
                AgentEvent::TurnEnded { .. } => self.ends += 1,
                _ => {}
            }
        }
    }

    /// What was shown is there still, and more may be.
    fn recovered(&mut self, turns: &[RecoveredTurn]) {
        let [turn] = turns else { panic!("one turn: {turns:?}") };
        assert!(turn.text.starts_with(&self.text), "nothing that was told is lost");
        self.text.clone_from(&turn.text);
        let ended = usize::from(turn.outcome.is_some());
        assert!(ended >= self.ends);
        self.ends = ended;
    }
}

/// The output of a turn, and the text in it. Lines of equal length are what makes reads hard to tell apart.
fn output(chunks: usize) -> (Vec<u8>, String) {
    let (mut bytes, mut whole) = (Vec::new(), String::new());
    for chunk in 0..chunks {
        let text = format!("{chunk:04}é");
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
        let line =
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": update}});
        bytes.extend_from_slice(format!("{line}\n").as_bytes());
        whole.push_str(&text);
    }
    // The third request: initialize, session/new, session/prompt.
    let end = json!({"jsonrpc": "2.0", "id": 2, "result": {"stopReason": "end_turn"}});
    bytes.extend_from_slice(format!("{end}\n").as_bytes());
    (bytes, whole)
}

/// Plays a turn: for each step so many bytes come and are read, up to the cut. Then the rest comes at once.
fn play(chunks: usize, steps: impl IntoIterator<Item = (usize, Cut)>) -> usize {
    in_runtime(|| {
        let (mut stage, mut task) = Stage::new();
        let (bytes, whole) = output(chunks);
        let (mut rest, mut seen, mut kills) = (bytes.as_slice(), Seen::default(), 0);
        for (count, cut) in steps {
            let (now, later) = rest.split_at(count.min(rest.len()));
            if now.is_empty() {
                break;
            }
            stage.its_stdout.write_all(now).expect("writes");
            rest = later;
            read(&mut task, cut);
            if cut == Cut::None {
                seen.events(&mut task);
            } else {
                kills += 1;
                drop(task);
                let (next, turns) = stage.kill().expect("it can be recovered");
                seen.recovered(&turns);
                task = next;
            }
        }
        stage.its_stdout.write_all(rest).expect("writes");
        while seen.ends == 0 {
            read(&mut task, Cut::None);
            seen.events(&mut task);
        }
        assert_eq!((seen.text.as_str(), seen.ends), (whole.as_str(), 1));
        let (_, turns) = stage.kill().expect("it can be recovered");
        assert_eq!(turns[0].text, whole);
        assert_eq!(turns[0].outcome, Some(TurnOutcome::Ended { stop_reason: "end_turn".into() }));
        kills
    })
}

#[test]
fn a_kill_at_any_step_of_a_read_loses_and_doubles_nothing() {
    for cut in CUTS {
        // A hundred reads of one length, each of them whole lines; and such that end within lines and characters.
        let line = output(2).0.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for length in [line, 2 * line, 37] {
            play(40, std::iter::repeat_n((length, cut), 100));
            play(40, (0..100).map(|step| (length, if step % 2 == 0 { cut } else { Cut::None })));
        }
    }
}

#[test]
fn two_hundred_kills_at_random_points_change_nothing() {
    let mut random = 12_345_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % below).expect("small")
    };
    let steps: Vec<(usize, Cut)> = (0..200).map(|_| (1 + next(300), CUTS[1 + next(4)])).collect();
    assert_eq!(play(300, steps), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn output_is_told_exactly_once(
        steps in prop::collection::vec((1_usize..400, prop::sample::select(&CUTS[..])), 0..60)
    ) {
        play(20, steps);
    }
}

#[test]
fn a_prompt_whose_handing_over_was_cut_off_is_not_sent_again() {
    in_runtime(|| {
        let (mut stage, mut task) = Stage::new();
        task.connection.cancel(NOW, TURN);
        stage.say(&json!({"jsonrpc": "2.0", "id": 2, "result": {"stopReason": "cancelled"}}).to_string());
        read(&mut task, Cut::None);
        stage.settle(&mut task);
        task.journal.settle(TURN);
        task.connection.prompt(NOW, TurnId(2), Some("s".into()), "again".into());
        wait(task.note_events());
        task.record(None);
        // Recorded and not yet begun: it is sent by whoever comes next.
        let (mut task, turns) = stage.kill().expect("it can be recovered");
        assert_eq!((turns.len(), turns[0].turn, &turns[0].outcome), (1, TurnId(2), &None));
        // Begun, and nobody knows how far it came.
        task.journal.writing(task.connection.outgoing.front().len());
        let (mut task, turns) = stage.kill().expect("it can be recovered");
        assert!(
            matches!(&turns[0].outcome, Some(TurnOutcome::Failed { reason }) if reason.contains("/retry")),
            "{turns:?}"
        );
        let got = stage.settle(&mut task);
        assert!(!got.contains("again") && got.contains("session/cancel"), "{got}");
        let told: Vec<_> = task.told.iter().collect();
        assert!(matches!(told[..], [AgentEvent::Ready { .. }]), "the end is not told again: {told:?}");
    });
}

#[test]
fn what_is_settled_is_forgotten_and_a_long_log_is_written_anew() {
    in_runtime(|| {
        let (mut stage, mut task) = Stage::new();
        let before = task.journal.recovered(&task.connection);
        for turn in 2..60 {
            let update = TurnUpdate::Text("x".repeat(50_000));
            task.connection.push_event(AgentEvent::Update { turn: TurnId(turn), update });
            let outcome = TurnOutcome::Cancelled;
            task.connection.push_event(AgentEvent::TurnEnded {
                turn: TurnId(turn),
                outcome,
                text: String::new(),
                files: Vec::new(),
            });
            stage.settle(&mut task);
            task.journal.settle(TurnId(turn - 1));
        }
        stage.settle(&mut task);
        assert!(task.journal.wants_compaction(0));
        let (_, turns) = stage.kill().expect("it can be recovered");
        assert_eq!(turns.iter().map(|turn| turn.turn.0).collect::<Vec<_>>(), [1, 59]);
        assert_eq!((&turns[0], turns[1].text.len()), (&before[0], 50_000));
        // The recovery has written it anew, and the log of the one before is the same file.
        let log = stage.kept.log.as_ref().expect("there is one").try_clone().expect("duplicates");
        let length = crate::recovery::RecoveryLog::open(log).expect("a log").len_bytes();
        assert!((50_000..60_000).contains(&length), "{length}");
    });
}

#[test]
fn a_log_that_is_given_up_recovers_nobody() {
    in_runtime(|| {
        let (stage, mut task) = Stage::new();
        task.journal.give_up(&std::io::ErrorKind::OutOfMemory.into());
        assert!(!task.journal.is_kept());
        assert!(matches!(stage.kill().map(drop), Err(AdoptError::Log(_) | AdoptError::LogEmpty)));
    });
}

#[test]
fn the_log_of_the_next_process_has_the_turns_that_are_not_settled() {
    in_runtime(|| {
        let (mut stage, mut task) = Stage::new();
        let (bytes, whole) = output(3);
        stage.its_stdout.write_all(&bytes).expect("writes");
        while task.journal.recovered(&task.connection)[0].outcome.is_none() {
            read(&mut task, Cut::None);
        }
        task.journal.begin(&"a".into());
        stage.kept.log = task.journal.duplicate().expect("duplicates");
        assert!(task.journal.wants_compaction(0), "it is to be written as a whole");
        task.journal.compact(snapshot::state(&task.connection, task.backoff, &task.life));
        let (_, turns) = stage.kill().expect("it can be recovered");
        assert_eq!((turns.len(), turns[0].text.as_str()), (1, whole.as_str()));
    });
}

#[test]
fn a_file_is_recorded_before_it_is_taken_away_and_is_one_file_wherever_the_gateway_is_killed() {
    let update = |content: serde_json::Value| {
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": update}})
            .to_string()
    };
    let text = |text: &str| update(json!({"type": "text", "text": text}));
    let file = update(json!({"type": "resource", "resource": {"uri": "x:/a.bin", "blob": "AAEC"}}));
    for cut in CUTS {
        in_runtime(|| {
            let outgoing = tempfile::tempdir().expect("a temporary directory");
            let (mut stage, mut task) = Stage::new();
            let mut told = Vec::new();
            for lines in [vec![text("one ")], vec![file.clone()], vec![text("two"), file.clone()], vec![text(" three")]]
            {
                task.spec.outgoing = outgoing.path().to_owned();
                lines.iter().for_each(|line| stage.say(line));
                read(&mut task, cut);
                if cut != Cut::None {
                    (task, _) = stage.kill().expect("it can be recovered");
                }
            }
            task.spec.outgoing = outgoing.path().to_owned();
            let outcome = json!({"jsonrpc": "2.0", "id": 2, "result": {"stopReason": "end_turn"}});
            stage.say(&outcome.to_string());
            while !matches!(told.last(), Some(AgentEvent::TurnEnded { .. })) {
                read(&mut task, Cut::None);
                told.extend(task.told.drain(..));
            }
            let Some(AgentEvent::TurnEnded { text, files, .. }) = told.pop() else { panic!("it ends") };
            let places: Vec<_> = files.iter().map(|file| (file.number, file.at)).collect();
            assert_eq!((text.as_str(), places), ("one two three", vec![(0, 4), (1, 7)]), "{cut:?}");
            // What was said outlives the end, and the next image, until it is settled.
            for _ in 0..2 {
                let (next, turns) = stage.kill().expect("it can be recovered");
                assert_eq!(turns[0].files, files, "{cut:?}");
                task = next;
            }
            let kept = std::fs::read_dir(outgoing.path().join("1")).expect("lists");
            let mut names: Vec<_> = kept.map(|file| file.expect("lists").file_name()).collect();
            names.sort();
            assert_eq!(names, ["0-a.bin", "1-a.bin"], "{cut:?}");
            assert_eq!(std::fs::read(outgoing.path().join("1/1-a.bin")).expect("it is there"), [0, 1, 2]);
            drop(task);
        });
    }
}
