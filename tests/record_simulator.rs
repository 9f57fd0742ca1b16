//! The flight recorder in the simulator: what a simulated node was told is replayed without the rest of the network.

#![cfg(all(feature = "record", feature = "sim"))]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod recording;

use kad_proto::coordinator::Inbound;
use kad_proto::explore::Schedule;
use kad_proto::record::{Keep, Recording, ReplayError, replay};
use kad_proto::sim::{
    Bootstrap, Broadcasts, Build, Churn, Eclipse, Empty, Join, Late, Length, Link, MadeUp, Net, NotRecorded,
    Pace, Party, Scenario, Scheme, Silent, Sybils, Workload, World,
};
use kad_proto::{
    BootstrapConfig, Config, Coordinator, ExploreConfig, Instant, Machine, ProbeConfig, RoutingConfig,
};
use recording::check;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// All recordings of a run: for each node, one for each of its lives.
type Lives = Vec<Vec<Vec<u8>>>;

fn run(scenario: &Scenario, recorded: &[u32], text: bool) -> (World, Lives) {
    let mut world = World::new(scenario.clone()).unwrap();
    for index in recorded {
        world.record(*index, Keep::All, text).unwrap();
    }
    world.run().unwrap();
    let lives = recorded.iter().map(|index| world.recordings(*index)).collect();
    (world, lives)
}

/// The coordinator that is at the end of a recording.
fn at_the_end(bytes: &[u8]) -> Coordinator<Net> {
    let recording = Recording::<Net>::open(bytes).unwrap();
    let mut coordinator = recording.coordinator(recording.config().clone()).unwrap();
    for call in recording.calls() {
        let call = call.unwrap();
        let _ = coordinator.handle(call.now, call.event);
    }
    coordinator
}

/// Records all nodes without text, and those three with it that were told most. Says what was recorded without.
fn judge(scenario: &Scenario) -> Lives {
    let plain = run(scenario, &[], false).0.fingerprint();
    let nodes: Vec<_> = (0..scenario.nodes).collect();
    let lives = judge_some(scenario, &nodes, false, plain);
    let mut most = nodes;
    most.sort_by_key(|index| lives[*index as usize].iter().map(Vec::len).max());
    judge_some(scenario, &most.split_off(most.len() - 3), true, plain);
    lives
}

fn judge_some(scenario: &Scenario, nodes: &[u32], text: bool, plain: u64) -> Lives {
    let (world, lives) = run(scenario, nodes, text);
    let (other, again) = run(scenario, nodes, text);
    assert_eq!((world.fingerprint(), other.fingerprint()), (plain, plain), "recording changes nothing");
    assert!(lives == again, "the same run, the same recordings");
    let mut all_calls = 0;
    for (index, lives) in nodes.iter().zip(&lives) {
        let mut calls = 0;
        for bytes in lives {
            let checked = check(bytes).unwrap();
            assert_eq!(checked.difference, None);
            calls = checked.calls;
            all_calls += calls;
            let recording = Recording::<Net>::open(bytes).unwrap();
            assert!(recording.again().unwrap() == *bytes, "node {index}");
            assert!(recording.calls().all(|call| call.unwrap().said.is_some() == text));
        }
        // Not only what comes out is the same. (Who is told nothing does not know of the round trips either.)
        if let (Some(engine), Some(latest), true) =
            (world.engine(world.handle(*index)), lives.last(), calls > 0)
        {
            assert!(format!("{engine:?}") == format!("{:?}", at_the_end(latest)), "node {index}");
        }
    }
    assert!(all_calls >= 100, "{all_calls} calls");
    lives
}

/// A network under fire.
fn fire() -> Scenario {
    let workload = Workload { lookups: 20, pace: Pace::Every(200 * MS), ..Workload::default() };
    Scenario { nodes: 150, workload, ..Scenario::under_fire() }
}

/// A network that grows from nothing, of nodes that look after their tables.
fn growing() -> Scenario {
    let schedule = Schedule::Dynamic { interval: 2 * S, multiplier: 10, jitter: 50 };
    let routing = RoutingConfig {
        bootstrap: Some(BootstrapConfig { min_nodes: 10, retry_interval: S, ..BootstrapConfig::default() }),
        probe: Some(ProbeConfig { interval: 3 * S, retry_interval: 300 * MS, ..ProbeConfig::default() }),
        explore: Some(ExploreConfig { schedule, max_cpl: 5, timeout: 2 * S }),
        ..RoutingConfig::default()
    };
    Scenario {
        nodes: 20,
        config: Config { routing, ..Config::default() },
        build: Build::Bootstrap(Bootstrap { every: 20 * MS, settle: 5 * S, ..Bootstrap::default() }),
        workload: Workload { lookups: 8, pace: Pace::Every(300 * MS), ..Workload::default() },
        link: Link { loss: 0.05, ..Link::default() },
        ..Scenario::default()
    }
}

fn storing(scheme: Scheme) -> Scenario {
    let broadcasts =
        Broadcasts { scheme, count: 6, pace: Pace::Every(500 * MS), learn: 2, ..Broadcasts::default() };
    let workload = Workload { lookups: 0, ..Workload::default() };
    Scenario { nodes: 100, broadcasts: Some(broadcasts), workload, ..fire() }
}

#[test]
fn under_fire() {
    let lives = judge(&fire());
    // Those that live begin with a table and with round trips; the dead never began.
    assert!(lives.iter().any(Vec::is_empty) && lives.iter().all(|lives| lives.len() <= 1));
    let without = judge(&Scenario { warm: false, ..fire() });
    let first = |lives: &Lives| lives.iter().flatten().next().unwrap().len();
    assert!(first(&lives) > first(&without) + 32);
}

#[test]
fn one_that_is_met_before_its_first_lookup() {
    let scenario = Scenario { meet: true, nat: 0.1, ..fire() };
    let lives = judge(&scenario);
    let met = lives.iter().flatten().filter(|bytes| {
        let calls = Recording::<Net>::open(bytes).unwrap().calls().map(Result::unwrap);
        let mut told = calls.map(|call| call.event.event);
        matches!(told.next(), Some(Inbound::Connected { .. }))
            && told.any(|told| matches!(told, Inbound::Start(_)))
    });
    assert!(met.count() > 0);
}

#[test]
fn joining() {
    judge(&growing());
    judge(&Scenario {
        nodes: 40,
        config: Scenario::default().config,
        build: Build::Join(Join { every: 20 * MS, ..Join::default() }),
        ..growing()
    });
}

#[test]
fn amid_sybils() {
    judge(&Scenario {
        sybils: Some(Sybils { count: 20, groups: 2, victim: 9, from: S, every: 200 * MS }),
        ..growing()
    });
}

#[test]
fn every_life_of_one_that_comes_and_goes() {
    let length = |mean| Length::Exponential(mean);
    let churn = Some(Churn { share: 0.5, sessions: length(400 * MS), absences: length(200 * MS) });
    let lives = judge(&Scenario { churn, ..growing() });
    assert!(lives.iter().filter(|lives| lives.len() >= 3).count() >= 2);
    // One that keeps its table is the same when it comes back.
    let churn = Some(Churn { share: 0.5, sessions: length(2 * S), absences: length(S) });
    let lives = judge(&Scenario { churn, nodes: 100, ..fire() });
    assert!(lives.iter().all(|lives| lives.len() <= 1));
}

#[test]
fn optimistic_broadcasts() {
    judge(&storing(Scheme::Optimistic { nodes: None }));
    judge(&storing(Scheme::Optimistic { nodes: Some(70) }));
}

#[test]
fn sweeps() {
    judge(&storing(Scheme::Sweep { records: 30 }));
}

#[test]
fn among_liars() {
    let hostile = vec![
        Party::new(0.05, MadeUp),
        Party::new(0.05, Eclipse),
        Party::new(0.05, Late(S)),
        Party::new(0.05, Empty),
        Party::new(0.05, Silent),
    ];
    judge(&Scenario { hostile, ..fire() });
}

#[test]
fn tables_are_those_of_the_beginning() {
    let scenario = Scenario { warm: false, ..fire() };
    let mut world = World::new(scenario).unwrap();
    let mut live = 0;
    for index in 0..150 {
        world.record(index, Keep::All, false).unwrap();
        let lives = world.recordings(index);
        let Some(engine) = world.engine(world.handle(index)) else {
            assert!(lives.is_empty());
            continue;
        };
        live += 1;
        let recording = Recording::<Net>::open(&lives[0]).unwrap();
        let rebuilt = recording.coordinator(recording.config().clone()).unwrap();
        assert!(engine.table().len() > 30 && engine.table().iter().eq(rebuilt.table().iter()));
        for cpl in 0..64 {
            assert_eq!(engine.table().bucket(cpl), rebuilt.table().bucket(cpl));
        }
        assert_eq!(format!("{engine:?}"), format!("{rebuilt:?}"));
        // A coordinator that began with nothing is another.
        let empty = Coordinator::<Net>::new(recording.local(), recording.config().clone()).unwrap();
        assert!(empty.table().is_empty());
    }
    assert!((80..130).contains(&live), "{live}");
}

#[test]
fn another_configuration_shows_where_it_differs() {
    let (_, lives) = run(&fire(), &(0..150).collect::<Vec<_>>(), true);
    let bytes = lives.iter().flatten().max_by_key(|bytes| bytes.len()).unwrap();
    let recording = Recording::<Net>::open(bytes).unwrap();
    let mut config = recording.config().clone();
    config.pool.query.alpha = 1;
    let replayed = recording.replay_on(recording.coordinator(config).unwrap()).unwrap();
    let difference = replayed.difference.unwrap();
    assert_eq!(difference.call, 1, "fewer requests at a time");
    assert!(
        difference.came.contains("Request(") && difference.had_come.is_some_and(|had| had != difference.came)
    );
}

#[test]
fn cut_short_it_is_replayed_as_far_as_it_goes() {
    let (_, lives) = run(&fire(), &(0..150).collect::<Vec<_>>(), false);
    let bytes = lives.iter().flatten().max_by_key(|bytes| bytes.len()).unwrap();
    let calls = replay::<Net>(bytes).unwrap().calls;
    let mut seen = Vec::new();
    for length in (100..bytes.len()).step_by(97) {
        match check(&bytes[..length]) {
            Err(ReplayError::Truncated { calls }) => seen.push(calls),
            other => panic!("{length} of {}: {other:?}", bytes.len()),
        }
    }
    assert!(
        seen.is_sorted() && seen.first() == Some(&0) && seen.last().is_some_and(|last| last + 2 >= calls)
    );
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    assert!(matches!(check(&damaged), Err(ReplayError::Damaged { .. })));
}

#[test]
fn the_latest_calls_can_be_kept_alone() {
    let mut world = World::new(growing()).unwrap();
    world.record(4, Keep::Last { bytes: 2_000 }, false).unwrap();
    world.run().unwrap();
    let lives = world.recordings(4);
    assert_eq!(lives.len(), 1);
    assert!(matches!(replay::<Net>(&lives[0]), Err(ReplayError::Partial { calls: 0, lost }) if lost > 100));
    assert!(Recording::<Net>::open(&lives[0]).unwrap().calls().all(|call| call.is_ok()));
}

#[test]
fn who_is_recorded_is_said_before_the_first_step() {
    let mut world = World::new(fire()).unwrap();
    assert_eq!(world.record(150, Keep::All, false), Err(NotRecorded::NoSuchNode));
    // Of two wishes the second counts, whole.
    for text in [true, false] {
        for index in 0..150 {
            assert_eq!(world.record(index, Keep::All, text), Ok(()));
        }
    }
    assert_eq!(world.step(), Ok(true));
    assert_eq!(world.record(0, Keep::All, false), Err(NotRecorded::Late));
    assert!(world.now() < Instant::from_millis(1_000));
    world.run().unwrap();
    let all: Lives = (0..150).map(|index| world.recordings(index)).collect();
    assert_eq!(all, run(&fire(), &(0..150).collect::<Vec<_>>(), false).1);
    assert!(world.recordings(150).is_empty());
}
