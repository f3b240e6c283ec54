//! What is decided at which moment, and what holds over any history of clocks, holds and looks.

use proptest::prelude::*;

use super::*;
use crate::config::Opening;

const HOUR: i64 = 3_600_000;
/// 2026-11-27T00:00:00Z
const MIDNIGHT: UnixMillis = UnixMillis(1_795_737_600_000);

fn v(text: &str) -> Version {
    text.parse().expect("a version")
}

fn offer(version: &str) -> Offer {
    Offer { version: v(version), rollout: None, notes_url: None }
}

fn plan(auto: AutoUpdate, window: Option<&str>) -> Plan {
    let window = window.map(|text| Window::parse(text).expect("a window"));
    let config = UpdateConfig { auto, window, ..UpdateConfig::default() };
    Plan::new(&config, TimeZone::UTC, "an installation".to_owned())
}

/// An agenda after a look at `at` that found 1.1.0.
fn offered(plan: &Plan, at: UnixMillis) -> Agenda {
    let mut agenda = Agenda::default();
    agenda.amend(plan, &v("1.0.0"), at);
    agenda.looked(at, Ok((Some(offer("1.1.0")), None)));
    agenda
}

fn at(now: UnixMillis) -> Moment<'static> {
    let mono = MonoNanos(1_000_000_000_000);
    Moment { now, mono, since: (MIDNIGHT, MonoNanos(0)), looked: None, is_busy: false, hold: None }
}

fn later(from: UnixMillis, hours: i64) -> UnixMillis {
    UnixMillis(from.0 + hours * HOUR)
}

#[test]
fn nothing_is_done_where_nothing_is_to_be_done_by_itself() {
    let off = plan(AutoUpdate::Off, None);
    assert_eq!(decide(&off, &offered(&off, MIDNIGHT), at(later(MIDNIGHT, 1000))), Decision::Nothing);
}

#[test]
fn releases_are_looked_for_at_the_start_and_then_at_intervals() {
    let plan = plan(AutoUpdate::Notify, None);
    let mut agenda = Agenda::default();
    let Decision::WaitUntil(first) = decide(&plan, &agenda, at(MIDNIGHT)) else { panic!("it waits a little") };
    assert!(first > MIDNIGHT && first < UnixMillis(MIDNIGHT.0 + 6 * HOUR / 8), "{first:?}");
    assert_eq!(decide(&plan, &agenda, at(first)), Decision::Look);
    agenda.looked(first, Ok((None, None)));
    let Decision::WaitUntil(second) = decide(&plan, &agenda, at(first)) else { panic!("it waits") };
    assert_eq!(second.0 - first.0, 6 * HOUR + (first.0 - MIDNIGHT.0), "later by as much each time");
}

#[test]
fn a_look_that_fails_is_repeated_later_and_later() {
    let plan = plan(AutoUpdate::Notify, None);
    let mut agenda = Agenda::default();
    let pauses: Vec<i64> = (0..12)
        .map(|_| {
            agenda.looked(MIDNIGHT, Err("no answer".to_owned()));
            let Decision::WaitUntil(next) = decide(&plan, &agenda, at(MIDNIGHT)) else { panic!("it waits") };
            next.0 - MIDNIGHT.0
        })
        .collect();
    assert!(pauses[0] >= 60_000 && pauses[0] <= 67_500, "{pauses:?}");
    assert!(pauses.is_sorted() && *pauses.last().expect("some") <= 6 * HOUR * 9 / 8, "{pauses:?}");
    agenda.looked(MIDNIGHT, Ok((None, None)));
    assert_eq!((agenda.errors, agenda.last_error.clone()), (0, None));
}

#[test]
fn admins_are_told_once_of_a_version_and_not_while_updates_are_held() {
    let plan = plan(AutoUpdate::Notify, Some("02:00-05:00"));
    let mut agenda = offered(&plan, MIDNIGHT);
    let hold = Hold { since: MIDNIGHT, until: Some(later(MIDNIGHT, 1)), by: String::new() };
    let held = Moment { hold: Some(&hold), ..at(MIDNIGHT) };
    assert!(matches!(decide(&plan, &agenda, held), Decision::WaitUntil(_)));
    let over = Moment { now: later(MIDNIGHT, 1), ..held };
    assert_eq!(decide(&plan, &agenda, over), Decision::Notify(offer("1.1.0")), "the window is for installing");
    agenda.told(&v("1.1.0"));
    assert!(matches!(decide(&plan, &agenda, over), Decision::WaitUntil(_)));
    agenda.looked(over.now, Ok((Some(offer("1.2.0")), None)));
    assert_eq!(decide(&plan, &agenda, over), Decision::Notify(offer("1.2.0")));
}

#[test]
fn an_update_waits_for_its_window_and_for_a_fresh_look_in_it() {
    let plan = plan(AutoUpdate::Apply, Some("02:00-05:00"));
    let mut agenda = offered(&plan, MIDNIGHT);
    let begins = plan.next_apply(&agenda, None, MIDNIGHT).expect("it will be");
    assert!((later(MIDNIGHT, 2)..later(MIDNIGHT, 3)).contains(&begins), "{begins:?}");
    assert_eq!(decide(&plan, &agenda, at(MIDNIGHT)), Decision::WaitUntil(begins));
    assert_eq!(decide(&plan, &agenda, at(begins)), Decision::Look, "what was offered at midnight may be taken back");
    agenda.looked(begins, Ok((Some(offer("1.1.0")), None)));
    assert_eq!(decide(&plan, &agenda, at(begins)), Decision::Apply(offer("1.1.0")));
    let busy = Moment { is_busy: true, ..at(begins) };
    assert!(matches!(decide(&plan, &agenda, busy), Decision::WaitUntil(_)));
    let closed = later(MIDNIGHT, 5);
    agenda.looked(closed, Ok((Some(offer("1.1.0")), None)));
    assert!(matches!(decide(&plan, &agenda, at(closed)), Decision::WaitUntil(_)));
    agenda.looked(begins, Ok((None, None)));
    assert!(matches!(decide(&plan, &agenda, at(begins)), Decision::WaitUntil(_)), "it was taken back");
}

#[test]
fn a_version_that_failed_is_not_begun_again_and_one_that_was_cut_short_a_few_times() {
    let plan = plan(AutoUpdate::Apply, None);
    let mut agenda = offered(&plan, MIDNIGHT);
    let mut now = MIDNIGHT;
    for tries in 1..=TRIES_MAX {
        assert_eq!(decide(&plan, &agenda, at(now)), Decision::Apply(offer("1.1.0")), "try {tries}");
        agenda.begun(&v("1.1.0"));
        let again = agenda.cut_short(&v("1.1.0"), now, "the connection broke");
        assert_eq!(again, tries < TRIES_MAX);
        assert!(matches!(decide(&plan, &agenda, at(now)), Decision::WaitUntil(_)), "not at once");
        agenda.looked(now, Ok((Some(offer("1.1.0")), None)));
        // An hour without a server does not cost the release.
        let pause = [0, 1, 2, 0][usize::try_from(tries).expect("small") - 1];
        if again && pause > 0 {
            assert!(matches!(decide(&plan, &agenda, at(later(now, pause - 1))), Decision::WaitUntil(_)), "try {tries}");
        }
        now = later(now, pause);
        agenda.looked(now, Ok((Some(offer("1.1.0")), None)));
    }
    assert_eq!(plan.next_apply(&agenda, None, MIDNIGHT), None);
    // Killed each time, so that nobody told.
    let mut agenda = offered(&plan, MIDNIGHT);
    (0..TRIES_MAX).for_each(|_| agenda.begun(&v("1.1.0")));
    assert_eq!(plan.next_apply(&agenda, None, MIDNIGHT), None);
    let mut agenda = offered(&plan, MIDNIGHT);
    agenda.begun(&v("1.1.0"));
    agenda.failed(&v("1.1.0"), "it does not start");
    assert_eq!(plan.next_apply(&agenda, None, MIDNIGHT), None);
    agenda.looked(MIDNIGHT, Ok((Some(offer("1.1.1")), None)));
    assert_eq!(decide(&plan, &agenda, at(MIDNIGHT)), Decision::Apply(offer("1.1.1")), "the next one is another one");
    agenda.begun(&v("1.1.1"));
    agenda.failed(&v("1.1.1"), "nor does it");
    assert_eq!(agenda.last_failure(), Some((&v("1.1.1"), "nor does it")));
    agenda.looked(MIDNIGHT, Ok((Some(offer("1.1.0")), None)));
    assert_eq!(plan.next_apply(&agenda, None, MIDNIGHT), None, "also after another one");
    (0..40).for_each(|patch| agenda.begun(&Version::new(2, 0, patch)));
    assert_eq!(agenda.attempts.len(), ATTEMPTS_MAX);
}

#[test]
fn an_attempt_that_was_cut_short_is_repeated_in_the_window_and_a_clock_set_back_does_not_put_it_off() {
    let plan = plan(AutoUpdate::Apply, Some("02:00-03:00"));
    let mut agenda = offered(&plan, MIDNIGHT);
    let open = later(MIDNIGHT, 2);
    for _ in 0..2 {
        agenda.begun(&v("1.1.0"));
        assert!(agenda.cut_short(&v("1.1.0"), open, "the server is away"));
    }
    agenda.looked(open, Ok((Some(offer("1.1.0")), None)));
    let again = plan.next_apply(&agenda, None, open).expect("it will be");
    assert!((later(MIDNIGHT, 26)..later(MIDNIGHT, 27)).contains(&again), "{again:?}");
    let before = later(MIDNIGHT, -1000);
    assert!(agenda.amend(&plan, &v("1.0.0"), before));
    assert!(agenda.not_before(&v("1.1.0")).is_some_and(|at| at <= later(before, 1)));
}

#[test]
fn what_has_become_untrue_is_forgotten() {
    let plan = plan(AutoUpdate::Apply, None);
    let mut agenda = offered(&plan, MIDNIGHT);
    agenda.begun(&v("1.1.0"));
    assert!(!agenda.amend(&plan, &v("1.0.0"), MIDNIGHT));
    let mut updated = agenda.clone();
    assert!(updated.amend(&plan, &v("1.1.0"), MIDNIGHT));
    assert_eq!((updated.offer, updated.attempts, updated.last_check_at), (None, Vec::new(), Some(MIDNIGHT)));
    let mut set_back = agenda.clone();
    assert!(set_back.amend(&plan, &v("1.0.0"), UnixMillis(5)));
    assert_eq!(set_back.last_check_at, Some(UnixMillis(5)));
    let elsewhere =
        UpdateConfig { manifest_url: Some("https://example.org/other.json".into()), ..UpdateConfig::default() };
    let elsewhere = Plan::new(&elsewhere, TimeZone::UTC, String::new());
    assert!(agenda.amend(&elsewhere, &v("1.0.0"), MIDNIGHT));
    assert_eq!((agenda.offer, agenda.last_check_at), (None, None));
    assert_eq!(agenda.attempts.len(), 1, "another place has the same bytes");
}

#[test]
fn an_agenda_of_another_version_is_read() {
    let read = |text: &str| serde_json::from_str::<Agenda>(text).expect("reads");
    assert_eq!(read("{}"), Agenda::default());
    assert_eq!(read(r#"{"last_check_at":5,"later":[1]}"#).last_check_at, Some(UnixMillis(5)));
    let agenda = offered(&plan(AutoUpdate::Apply, None), MIDNIGHT);
    assert_eq!(read(&serde_json::to_string(&agenda).expect("plain data")), agenda);
}

/// What happens to an installation.
#[derive(Clone, Debug)]
enum Event {
    /// Time goes by, and the gateway does what is due when it looks, every so many seconds.
    Pass { secs: u32 },
    /// Somebody sets the wall clock.
    Set { by_ms: i64 },
    /// Updates are held for so long, or without an end, or not at all.
    Hold(Option<Option<i64>>),
    /// The publisher has this patch release, or none, or is out of reach.
    Publish(Result<Option<u64>, ()>),
    /// The process is started anew.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u32..20_000).prop_map(|secs| Event::Pass { secs }),
        1 => prop_oneof![-400 * 24 * HOUR..400 * 24 * HOUR, -10_000i64..10_000].prop_map(|by_ms| Event::Set { by_ms }),
        1 => prop::option::of(prop::option::of(0..48 * HOUR)).prop_map(Event::Hold),
        2 => prop_oneof![2 => (1u64..4).prop_map(|patch| Ok(Some(patch))), 1 => Just(Ok(None)), 1 => Just(Err(()))]
            .prop_map(Event::Publish),
        1 => Just(Event::Restart),
    ]
}

/// An installation over time.
struct World {
    plan: Plan,
    window: Option<Window>,
    agenda: Agenda,
    now: UnixMillis,
    mono_ms: u64,
    started: (UnixMillis, MonoNanos),
    looked: Option<MonoNanos>,
    hold: Option<Hold>,
    published: Result<Option<u64>, ()>,
    looks: Vec<u64>,
    begun: Vec<Version>,
    told: Vec<Version>,
    restarts: usize,
}

impl World {
    fn mono(&self) -> MonoNanos {
        MonoNanos(self.mono_ms * 1_000_000)
    }

    /// What the daemon does every second.
    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.agenda.amend(&self.plan, &v("1.0.0"), self.now);
        let moment = Moment {
            now: self.now,
            mono: self.mono(),
            since: self.started,
            looked: self.looked,
            is_busy: false,
            hold: self.hold.as_ref(),
        };
        let held = self.hold.as_ref().is_some_and(|hold| hold.holds(self.now));
        match decide(&self.plan, &self.agenda, moment) {
            Decision::Look => {
                self.looks.push(self.mono_ms);
                self.looked = Some(self.mono());
                let found = self.published.map(|patch| (patch.map(|patch| offer(&format!("1.0.{patch}"))), None));
                self.agenda.looked(self.now, found.map_err(|()| "out of reach".to_owned()));
            }
            Decision::Notify(offer) => {
                prop_assert!(!held && self.told.last() != Some(&offer.version), "told twice in a row");
                self.agenda.told(&offer.version);
                self.told.push(offer.version);
            }
            Decision::Apply(offer) => {
                prop_assert!(!held);
                let Some(patch) = self.published.ok().flatten().filter(|_| self.agenda.is_fresh(self.now)) else {
                    // Offered within the last minutes, and taken back since: nobody can know.
                    self.agenda.failed(&offer.version, "it is not there");
                    return Ok(());
                };
                if let Some(window) = &self.window {
                    let Some(Opening { from, until }) = window.opening(self.now, self.plan.zone()) else {
                        return Err(TestCaseError::fail("there is no window"));
                    };
                    prop_assert!((from..until).contains(&self.now), "outside of the window");
                }
                prop_assert!(!self.begun.contains(&offer.version), "begun again after it failed");
                let _published = patch;
                self.agenda.begun(&offer.version);
                self.agenda.failed(&offer.version, "it failed");
                self.begun.push(offer.version);
            }
            Decision::WaitUntil(at) => prop_assert!(at > self.now, "it would be asked without end"),
            Decision::Nothing => return Err(TestCaseError::fail("something is to be done by itself")),
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Pass { secs } => {
                for _ in 0..20 {
                    let step_ms = u64::from(secs) * 50;
                    self.mono_ms += step_ms;
                    self.now.0 += i64::try_from(step_ms).expect("small");
                    // More than one thing may be due.
                    for _ in 0..4 {
                        self.tick()?;
                    }
                }
            }
            Event::Set { by_ms } => self.now.0 = (self.now.0 + by_ms).max(0),
            Event::Hold(hold) => {
                let until = |time| UnixMillis(self.now.0 + time);
                self.hold = hold.map(|time| Hold { since: self.now, until: time.map(until), by: String::new() });
            }
            Event::Publish(published) => self.published = published,
            Event::Restart => {
                let text = serde_json::to_string(&self.agenda).expect("plain data");
                self.agenda = serde_json::from_str(&text).expect("reads");
                (self.started, self.looked) = ((self.now, self.mono()), None);
                self.restarts += 1;
            }
        }
        self.tick()
    }
}

fn zone() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(vec!["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0"])
        .prop_map(|rule| TimeZone::posix(rule).expect("a rule"))
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(
        events in prop::collection::vec(event(), 1..60),
        zone in zone(),
        applies in any::<bool>(),
        window in prop::option::of((0u16..24, 1u16..24)),
        start in 0i64..365 * 24,
        name in "[a-z]{1,8}",
    ) {
        let window = window.map(|(from, length)| {
            let to = (from + length) % 24;
            Window::parse(&format!("{from:02}:00-{to:02}:00")).expect("a window")
        });
        let auto = if applies { AutoUpdate::Apply } else { AutoUpdate::Notify };
        let config = UpdateConfig { auto, window, ..UpdateConfig::default() };
        let plan = Plan::new(&config, zone, name);
        let now = UnixMillis(MIDNIGHT.0 + start * HOUR);
        let mut world = World {
            plan, window, agenda: Agenda::default(), now, mono_ms: 0, started: (now, MonoNanos(0)), looked: None,
            hold: None, published: Ok(None), looks: Vec::new(), begun: Vec::new(), told: Vec::new(), restarts: 0,
        };
        for event in events {
            world.happen(event)?;
        }
        // A clock that is set may cost a look, but never a storm of them.
        let pause_ms = u64::try_from(LOOK_PAUSE.as_millis()).expect("small");
        let hasty = world.looks.windows(2).filter(|pair| pair[1] - pair[0] < pause_ms).count();
        prop_assert!(hasty <= world.restarts, "{} looks too soon, {} restarts", hasty, world.restarts);
    }

    /// While nobody sets the clock, releases are looked for as often as is said, within the spread.
    #[test]
    fn looks_are_as_far_apart_as_is_said(hours in 1u64..48, name in "[a-z]{1,8}") {
        let every = Duration::from_secs(hours * 3600);
        let config = UpdateConfig { auto: AutoUpdate::Notify, check_every: every, ..UpdateConfig::default() };
        let plan = Plan::new(&config, TimeZone::UTC, name);
        let mut agenda = Agenda::default();
        agenda.looked(MIDNIGHT, Ok((None, None)));
        let Decision::WaitUntil(next) = decide(&plan, &agenda, at(MIDNIGHT)) else {
            return Err(TestCaseError::fail("it waits"));
        };
        let pause = next.since(MIDNIGHT);
        prop_assert!(pause >= every && pause <= every + every / 8, "{:?}", pause);
    }
}
