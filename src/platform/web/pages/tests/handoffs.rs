use super::super::fixture::{NOW, failed, restart, update};
use super::*;

fn with_phases(phases: &[(&str, u64)]) -> HandoffRecord {
    HandoffRecord { phases_us: phases.iter().map(|(phase, us)| ((*phase).to_owned(), *us)).collect(), ..update() }
}

#[test]
fn the_blackout_is_what_was_not_served() {
    assert_eq!(blackout_us(&update()), 900 + 400 + 700 + 2_321);
    assert_eq!(duration_us(&update()), 4_900 + 210 + 4_321, "without the download");
    assert_eq!(blackout_us(&failed()), 0);
}

#[test]
fn segments_are_to_scale_and_long_waits_are_cut() {
    let record = with_phases(&[("stage", 60_000_000), ("preflight", 70_000), ("quiesce", 20_000), ("adopt", 10_000)]);
    let scale = Scale::of(std::slice::from_ref(&record));
    assert_eq!(scale, Scale { us: 130_000, wait_us_max: 30_000 });
    let shown: Vec<_> =
        scale.segments(&record).into_iter().map(|s| (s.phase, s.x, s.width, s.is_cut, s.is_dark)).collect();
    assert_eq!(
        shown,
        [
            ("stage", 0, 2307, true, false),
            ("preflight", 2307, 5385, false, false),
            ("quiesce", 7692, 1538, false, true),
            ("adopt", 9230, 770, false, true),
        ]
    );
}

#[test]
fn all_rows_have_one_scale() {
    let (short, long) = (with_phases(&[("preflight", 5_000)]), with_phases(&[("preflight", 10_000)]));
    let scale = Scale::of(&[short.clone(), long.clone()]);
    assert_eq!([&short, &long].map(|record| scale.segments(record)[0].width), [5000, 10_000]);
}

#[test]
fn ticks_are_round_and_few() {
    let ticks = |us| Scale { us, wait_us_max: 0 }.ticks();
    assert_eq!(ticks(9_431), [0, 2_000, 4_000, 6_000, 8_000]);
    assert_eq!(ticks(130_000), [0, 50_000, 100_000]);
    assert_eq!(ticks(1), [0, 1]);
    proptest::proptest!(|(us in 1u64..=u64::MAX)| {
        proptest::prop_assert!(ticks(us).len() <= 1 + usize::try_from(TICKS_MAX).unwrap());
    });
}

proptest::proptest! {
    /// Also of what no clock measures.
    #[test]
    fn no_segment_leaves_the_picture(durations in proptest::collection::vec(proptest::prelude::any::<u64>(), 0..9)) {
        let names = ["stage", "preflight", "drain", "quiesce", "seal", "exec", "adopt", "probation", "later"];
        let phases: Vec<_> = names.into_iter().zip(durations).collect();
        let records = [with_phases(&phases), update()];
        let scale = Scale::of(&records);
        for segment in records.iter().flat_map(|record| scale.segments(record)) {
            proptest::prop_assert!(segment.x + segment.width <= 10_000, "{segment:?}");
        }
        picture(&records, NOW);
    }
}

#[test]
fn a_row_says_in_words_what_it_shows() {
    let markup = picture(&[update()], NOW).into_string();
    let spoken = "aria-label=\"stage 1840 ms, preflight 4.9 ms, drain 210 µs, quiesce 900 µs, seal 400 µs, exec 700 µs, \
                  adopt 2.3 ms; nothing served for 4.3 ms\"";
    assert!(markup.contains(spoken), "{markup}");
    assert!(markup.contains("<title>stage 1840 ms (drawn shorter)</title>"), "{markup}");
    assert!(markup.contains("<rect class=\"blackout\""), "{markup}");
    assert!(!picture(&[failed()], NOW).into_string().contains("blackout"), "it was served all the time");
}

#[test]
fn the_line_of_the_process_breaks_where_it_ended() {
    let gaps = |records: &[HandoffRecord]| picture(records, NOW).into_string().matches("class=\"gap\"").count();
    assert_eq!(gaps(&[update(), failed(), restart(2, 60), restart(1, 90)]), 0, "one process");
    assert_eq!(gaps(&[restart(1, 10), update()]), 1, "counted from 0 again");
}

#[test]
fn without_handoffs_there_is_no_picture() {
    assert!(picture(&[], NOW).into_string().starts_with("<p class=\"dim\">None yet."));
}
