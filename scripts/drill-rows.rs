//! The rows of the drill, as data: what is done, and what must come of it.

use hermes_gateway::fault::{Call, Point};

/// The version that runs at first, and the one that it is updated to.
pub const OLD: &str = "1.0.0";
pub const NEW: &str = "1.0.1";

/// What the release has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// This hermes with another version in it.
    Hermes,
    /// It ends at once, well or badly.
    Exit0,
    Exit1,
    /// It crashes before main.
    Crash,
    /// A library that it needs is not there.
    Library,
    /// Half of a hermes.
    Truncated,
    /// For another processor.
    Foreign,
    Script,
    /// It does nothing, for ever.
    Hang,
}

/// What is done once the gateway serves and a turn streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An admin writes `/update`.
    Update,
    /// Two chats write it at once.
    Twice,
    /// An admin writes `/restart`, and Telegram delivers the message again afterwards.
    Redelivered,
    /// A process of the agent runs `hermes gateway restart`.
    Agent,
    /// Nothing: the faults are there at the start of the unit.
    Start,
    /// The main process is killed at random moments, again and again.
    Kills,
    /// An update is committed, and then the unit is started with every state in which a power cut may leave its slots.
    PowerCuts,
}

/// What else is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// `versions/` is mounted read-only.
    ReadOnly,
    /// The configuration that the new image reads has an agent that never answers.
    SilentAgent,
    /// Telegram answers nothing but errors from the request until the update is committed.
    Outage,
    /// mmap(2) fails in the process, and in every image of it, from the request on: RLIMIT_AS is what it has already.
    NoMaps,
    /// The same for a moment.
    NoMapsForAMoment,
}

/// Which version must serve in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    Old,
    New,
    Either,
}

/// What becomes of the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It is the same all the time.
    Stays,
    /// It ends on the way. With `Restart=no` nothing starts it again, and the drill does.
    Ends,
    /// It is told to stop. That is an end as it should be, so that only `Restart=always` starts it again.
    Stops,
    /// Whatever the kernel makes of it.
    Either,
}

/// What must come of it. That the unit serves in the end and that no message is lost is not said: it always must.
#[derive(Clone, Debug)]
pub struct Expect {
    pub serves: Serves,
    pub process: Process,
    /// The agent is the same process, and its turn goes on.
    pub agent_kept: bool,
    /// One of these is in what the chat was told. Nothing: nobody is told.
    pub told: &'static [&'static str],
    /// Afterwards the same update is asked for again, with nothing wrong, and works.
    pub again: bool,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub image: Image,
    pub ask: Ask,
    /// Lines for the file of faults.
    pub faults: Vec<String>,
    pub trouble: Trouble,
    pub expect: Expect,
}

/// A last word of any kind.
const ANY_WORD: &[&str] = &["✅", "❌", "⚠", "⏹", "♻ restarted"];

fn updated() -> Expect {
    Expect { serves: Serves::New, process: Process::Stays, agent_kept: true, told: &["✅ updated"], again: false }
}

fn refused(told: &'static [&'static str]) -> Expect {
    Expect { serves: Serves::Old, process: Process::Stays, agent_kept: true, told, again: false }
}

fn back(told: &'static [&'static str]) -> Expect {
    Expect { again: true, ..refused(told) }
}

/// Killed: its agents are spared.
fn killed() -> Expect {
    Expect { serves: Serves::Either, process: Process::Ends, agent_kept: true, told: ANY_WORD, again: false }
}

/// Told to stop: so its agents are ended.
fn stopped() -> Expect {
    Expect { process: Process::Stops, agent_kept: false, ..killed() }
}

fn row(name: impl Into<String>, expect: Expect) -> Row {
    Row {
        name: name.into(),
        image: Image::Hermes,
        ask: Ask::Update,
        faults: Vec::new(),
        trouble: Trouble::None,
        expect,
    }
}

fn fault(name: impl Into<String>, line: impl Into<String>, expect: Expect) -> Row {
    Row { faults: vec![line.into()], ..row(name, expect) }
}

/// Every row.
pub fn all() -> Vec<Row> {
    let groups = [plain(), images(), faulty_images(), steps(), starts(), requests(), machine()];
    groups.into_iter().flatten().collect()
}

fn plain() -> Vec<Row> {
    vec![row("nothing goes wrong", updated())]
}

/// Releases whose program cannot take over.
fn images() -> Vec<Row> {
    let image = |name, image, told| Row { image, ..row(format!("the new image {name}"), refused(told)) };
    vec![
        image("exits 0 at once", Image::Exit0, &["it printed no report"]),
        image("exits 1 at once", Image::Exit1, &["exit code 1"]),
        image("segfaults before main", Image::Crash, &["killed by signal 11"]),
        image("misses a shared library", Image::Library, &["shared librar"]),
        image("is a truncated ELF", Image::Truncated, &["❌"]),
        image("is for another processor", Image::Foreign, &["Exec format error"]),
        image("is a shell script", Image::Script, &["is a script"]),
        image("hangs in preflight", Image::Hang, &["❌"]),
    ]
}

/// Images that pass the preflight and fail later.
fn faulty_images() -> Vec<Row> {
    let later = |name, what: &str, expect| fault(format!("the new image {name}"), format!("{NEW} {what}"), expect);
    // Killed by the kernel, or so slow that its deadline comes first.
    let either = Expect { process: Process::Either, ..back(&["❌"]) };
    vec![
        later("hangs after the execve", "after_exec hang", back(&["serves again"])),
        later("exits 0 after the execve", "after_exec exit0", back(&["serves again"])),
        later("segfaults after the execve", "after_exec segv", back(&["serves again"])),
        later("panics while adopting", "adopting panic", back(&["serves again"])),
        later("hangs while adopting", "adopting hang", back(&["serves again"])),
        later("exits 1 before READY", "adopted exit1", back(&["serves again"])),
        later("panics one second after READY", "on_probation panic", back(&["serves again"])),
        later("aborts in probation", "on_probation abort", back(&["serves again"])),
        later("deadlocks its runtime in probation", "on_probation hang", back(&["serves again"])),
        later("eats all memory", "on_probation memory", either),
        later("cannot read the state", "checking exit1", refused(&["exit code 1"])),
        later("cannot read the state after all", "read_state EIO", back(&["serves again"])),
        Row {
            trouble: Trouble::SilentAgent, ..row("the new image has an agent that never answers", refused(&["❌"]))
        },
        Row { trouble: Trouble::Outage, ..row("the new image loses every platform", updated()) },
    ]
}

/// The running image at every numbered step of an update.
fn steps() -> Vec<Row> {
    let mut rows = Vec::new();
    for point in Point::ALL.iter().copied() {
        for (signal, action, expect) in
            [("SIGKILL", "kill", killed()), ("SIGTERM", "term", stopped()), ("SIGUSR1", "usr1", updated())]
        {
            let name = format!("{signal} at step {}, {}", point.number(), point.name());
            let expect = match point {
                // In the preflight's child, which dies of each of them.
                Point::Checking => back(&["killed by signal"]),
                // It comes before the update, which is then refused or not.
                _ if point.phase() == "serving" && action == "usr1" => {
                    Expect { serves: Serves::Either, told: &["✅", "⏳"], ..updated() }
                }
                _ => expect,
            };
            rows.push(fault(name, format!("{} {action}", point.name()), expect));
        }
    }
    rows
}

/// At the steps that the start of a unit passes.
fn starts() -> Vec<Row> {
    let quiet = |expect| Expect { serves: Serves::Old, told: &[], agent_kept: false, ..expect };
    let mut rows = Vec::new();
    for point in [Point::AfterExec, Point::Claimed, Point::Adopting, Point::Adopted, Point::Ready, Point::Unheld] {
        for (signal, action, expect) in [("SIGKILL", "kill", killed()), ("SIGTERM", "term", stopped())] {
            let line = format!("{} {action}", point.name());
            let name = format!("{signal} in a start, {}", point.name());
            rows.push(Row { ask: Ask::Start, ..fault(name, line, quiet(expect)) });
        }
    }
    rows
}

/// The ways to ask.
fn requests() -> Vec<Row> {
    let restarted = Expect { serves: Serves::Old, told: &["♻ restarted"], ..updated() };
    vec![
        Row { ask: Ask::Twice, ..row("two requests at once", Expect { told: &["⏳ Not now"], ..updated() }) },
        Row { ask: Ask::Redelivered, ..row("/restart delivered again after the restart", restarted.clone()) },
        Row { ask: Ask::Agent, ..row("the agent asks for the restart", Expect { told: &[], ..restarted }) },
        Row { ask: Ask::Kills, ..row("SIGKILL at random moments under load", Expect { told: &[], ..killed() }) },
    ]
}

/// What the machine does not give.
fn machine() -> Vec<Row> {
    let mut rows = Vec::new();
    for call in Call::ALL.iter().copied() {
        let (errno, expect) = match call {
            Call::Dup => ("EMFILE", back(&["❌"])),
            Call::MemfdCreate => ("ENOMEM", back(&["❌"])),
            Call::Execve => ("ENOMEM", back(&["❌"])),
            Call::Spawn => ("EAGAIN", back(&["❌"])),
            Call::Versions => ("ENOSPC", back(&["❌"])),
            Call::Fsync => ("EIO", back(&["❌"])),
            // Once: the new image cannot. Always: the previous one, back in the process, cannot either, and ends.
            Call::ReadState => ("EIO", back(&["serves again"])),
            // A message that cannot be stored is delivered again, so the command comes through in the end.
            Call::StateDb => ("ENOSPC", Expect { serves: Serves::Either, told: ANY_WORD, ..back(&[]) }),
            // Only other programs read it.
            Call::StateFile => ("ENOSPC", updated()),
        };
        for (name, often) in [("once", ""), ("always", " always")] {
            let is_over = call == Call::ReadState && !often.is_empty();
            let expect = if is_over { killed() } else { expect.clone() };
            let name = format!("{errno} for {}, {name}", call.name());
            rows.push(fault(name, format!("{} {errno}{often}", call.name()), expect));
        }
    }
    for (way, seconds) in [("forward", "31536000"), ("back", "-31536000")] {
        // CLOCK_REALTIME has no namespace, so it is what the gateway reads of it that jumps.
        rows.push(fault(format!("the clock jumps {way} by a year"), format!("clock {seconds} always"), updated()));
    }
    rows.push(Row { trouble: Trouble::ReadOnly, ..row("versions/ is read-only", refused(&["❌"])) });
    // The kernel kills a process whose execve(2) finds no room for the image, after the point of no return.
    let unmapped = Expect { process: Process::Either, ..killed() };
    rows.push(Row { trouble: Trouble::NoMapsForAMoment, ..row("mmap fails, for a moment", unmapped.clone()) });
    rows.push(Row { trouble: Trouble::NoMaps, ..row("mmap fails, always", unmapped) });
    let cut = Expect { process: Process::Either, agent_kept: false, ..killed() };
    rows.push(Row { ask: Ask::PowerCuts, ..row("power cut while switching slots", cut) });
    rows
}
