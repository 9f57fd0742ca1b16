//! The rows of the table of weathers that are programs: each runs, and its figures move when what it measures is changed.

#![allow(clippy::unwrap_used, clippy::float_cmp)] // a test may fail so

use kad_simulate::weather::programs::crawl::{Busy, Ending, Network};
use kad_simulate::weather::programs::crowded_groups::{Answer, Shape, growth};
use kad_simulate::weather::programs::equal_deadlines::Crowd;
use kad_simulate::weather::programs::reprovide::Sleep;
use kad_simulate::weather::programs::{ROWS, small_faults};
use kad_simulate::weather::{Figure, Goal, Trial};
use std::collections::BTreeSet;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// The figures of the short form.
fn figures(name: &str, seed: u64) -> Vec<Figure> {
    let row = ROWS.iter().find(|row| row.name == name).unwrap();
    (row.run)(Trial { seed, short: true }).unwrap()
}

fn misses(figure: &Figure) -> bool {
    match figure.goal {
        Goal::AtLeast(bound) => figure.value < bound,
        Goal::AtMost(bound) => figure.value > bound,
        Goal::Stated => false,
    }
}

#[test]
fn every_program_gives_the_same_figures_again_and_reaches_what_it_is_said_to_reach() {
    for row in &ROWS {
        let (first, again) = (figures(row.name, 1), figures(row.name, 1));
        let names: BTreeSet<_> = first.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names.len(), first.len(), "{}: one name for each figure", row.name);
        assert!(first.iter().any(|figure| figure.goal != Goal::Stated), "{} has a goal", row.name);
        for (one, other) in first.iter().zip(&again) {
            assert_eq!((&one.name, one.goal), (&other.name, other.goal));
            // The clock's time is measured, and judged by nobody.
            if one.name.starts_with("measured ") {
                assert_eq!(one.goal, Goal::Stated);
            } else {
                assert_eq!(one.value, other.value, "{}: {}", row.name, one.name);
            }
        }
        assert!(!row.reached || !first.iter().any(misses), "{}: {first:?}", row.name);
    }
}

#[test]
fn the_short_form_has_the_figures_that_are_named() {
    let begins = [
        ("L11", vec!["calls a node, any groups", "growth, any groups", "calls a node, one 64-bit prefix"]),
        (
            "L12",
            vec!["neither served nor told, room for 64", "overtaken, room for all but two", "lookups done"],
        ),
        ("T12", vec!["heard of while", "restored age", "link of", "refreshes without", "jitter"]),
        (
            "R7",
            vec!["regions due in a call, 8 h", "regions out of order, 30 d", "tries of", "failed regions"],
        ),
        (
            "R8",
            vec!["edges found, 2 %", "living nodes unreachable, 5 %", "told complete", "measured failure"],
        ),
    ];
    for (row, begins) in begins {
        let figures = figures(row, 2);
        for begin in begins {
            assert!(figures.iter().any(|figure| figure.name.starts_with(begin)), "{row}: {begin}");
        }
    }
}

#[test]
fn growth_tells_a_quadratic_cost_from_a_linear_one() {
    assert_eq!(growth(|nodes| Ok(7 * u64::from(nodes))).unwrap(), 1.0);
    assert_eq!(growth(|nodes| Ok(u64::from(nodes).pow(2))).unwrap(), 4.0);
    let answer = |nodes| Answer { nodes, shape: Shape::Groups(2), max_candidates: 8_192, seed: 1 };
    let calls = [0, 256, 1_024].map(|nodes| answer(nodes).calls().unwrap());
    assert!(calls[0] < 100 && calls[1] > 256 * 3 && calls[2] > 1_024 * 3, "{calls:?}");
}

#[test]
fn a_crowd_is_served_where_there_is_room_and_is_not_where_there_is_no_time() {
    let crowd = Crowd::new(3);
    let roomy = Crowd { max_queued: 65_536, ..crowd }.run().unwrap();
    assert_eq!((roomy.begun, roomy.never, roomy.overtaken), (500, 0, 0));
    // No round trip is as short: 16 requests are sent, those of the first.
    let hasty = Crowd { deadline: Duration::from_millis(1), ..crowd }.run().unwrap();
    assert!((500 - 16..500).contains(&hasty.never) && hasty.done == 0, "{hasty:?}");
    assert_eq!(hasty.overtaken, 0, "{hasty:?}");
    // There is time for all.
    let patient = Crowd { deadline: HOUR, ..crowd }.run().unwrap();
    assert_eq!((patient.never, patient.done), (0, 500));
    let more = Crowd { deadline: HOUR / 60, newcomers: true, ..crowd }.run().unwrap();
    assert!(more.done > 500 && more.begun >= 500 + more.done, "{more:?}");
}

#[test]
fn each_small_fault_has_a_control() {
    use small_faults::{Heard, age_read, refreshes, survives_its_probe};
    assert!(!survives_its_probe(Heard::Never).unwrap());
    let (soon, day) = (Duration::from_secs(6), 24 * HOUR);
    assert_eq!(age_read(soon, day).unwrap(), soon);
    // The clock goes on: one bucket after the other.
    let even = refreshes(64, Duration::from_secs(1)).unwrap();
    assert_eq!(even.iter().sum::<u32>(), 64);
    assert!(even.iter().max().unwrap() - even.iter().min().unwrap() <= 1, "{even:?}");
}

#[test]
fn the_longer_the_sleep_the_more_is_overdue() {
    let sleep = Sleep { length: Duration::ZERO, bits: 8, link_down: Duration::ZERO, seed: 4 };
    let awake = sleep.run().unwrap();
    // One at a time, and 256 in 22 hours.
    assert!(awake.overdue <= 1 && awake.in_a_call <= 1 && awake.in_a_minute <= 1, "{awake:?}");
    assert_eq!((awake.out_of_order, awake.tries, awake.again), (0, 0, 1.0));
    let overdue = |length| Sleep { length, ..sleep }.run().unwrap().overdue;
    let rest = [4, 8, 16, 240].map(|hours| overdue(HOUR * hours));
    assert!(rest.is_sorted() && rest[3] == 256, "{rest:?}");
    assert!((90..=96).contains(&rest[1]), "8 of 22 hours: {rest:?}");
    // Where the link is down, what fails is due again.
    let down = Sleep { length: HOUR * 8, link_down: HOUR, ..sleep }.run().unwrap();
    assert!(down.tries > 1, "{down:?}");
}

#[test]
fn a_crawl_finds_all_if_nothing_is_lost_and_nothing_if_all_is() {
    let network = Network::new(200, 5).unwrap();
    let all = network.crawl(0.0).unwrap();
    assert_eq!((all.edges, all.nodes, all.false_edges, all.unreachable), (1.0, 1.0, 0, 0));
    assert!(all.told_complete && all.requests == 200 * 16, "{all:?}");
    let none = network.crawl(1.0).unwrap();
    assert_eq!((none.edges, none.unreachable), (0.0, 1));
    assert!(none.requests < 16 && none.took > all.took / 100, "{none:?}");
    let half = network.crawl(0.97).unwrap();
    assert!(half.edges < all.edges, "{half:?}");
}

#[test]
fn a_busy_crawl_stays_busy() {
    for ending in [Ending::Answer, Ending::Failure] {
        let mut busy = Busy::new(1_000).unwrap();
        assert_eq!(busy.in_flight(), 1_000);
        for _ in 0..100 {
            assert!(busy.end_one(ending));
        }
        assert_eq!(busy.in_flight(), 1_000);
    }
    let mut silent = Busy::new(1_000).unwrap();
    silent.time_out();
    assert!(!silent.end_one(Ending::Answer), "all have timed out");
    assert_eq!(silent.in_flight(), 1_000, "and are asked again");
}
