//! The flight recorder in the simulator: the calls of a simulated node replay without the rest of the network.

#![cfg(all(feature = "record", feature = "sim"))]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod recording;

use kad_proto::coordinator::Inbound;
use kad_proto::record::{Keep, Recording, ReplayError, replay};
use kad_proto::sim::{
    Bootstrap, Broadcasts, Build, Churn, Eclipse, Empty, Interarrival, Join, Late, Length, Link, MadeUp, Net,
    NotRecorded, Party, Place, Scenario, Scheme, Silent, Sybils, Workload, World,
};
use kad_proto::{
    BootstrapConfig, Config, Coordinator, ExploreConfig, Instant, Machine, ProbeConfig, RoutingConfig,
    RoutingInbound, Schedule, Secret,
};
use recording::check;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// All recordings of a run: for each node, one for each of its sessions.
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

/// The coordinator at the end of a recording.
fn at_the_end(bytes: &[u8]) -> Coordinator<Net> {
    let recording = Recording::<Net>::open(bytes).unwrap();
    let mut coordinator = recording.coordinator(recording.config().clone()).unwrap();
    for call in recording.calls() {
        let call = call.unwrap();
        let _ = coordinator.handle(call.now, call.event);
    }
    coordinator
}

/// Records all nodes without text, and the three with the most calls with text as well; replays them all. Returns
/// the recordings without text.
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
            assert!(recording.record_anew().unwrap() == *bytes, "node {index}");
            assert!(recording.calls().all(|call| call.unwrap().output.is_some() == text));
        }
        // The state is equal too, not only what came out. (A node without any call lacks the round trips.)
        if let (Some(engine), Some(latest), true) =
            (world.engine(world.handle(*index)), lives.last(), calls > 0)
        {
            assert!(format!("{engine:?}") == format!("{:?}", at_the_end(latest)), "node {index}");
        }
    }
    assert!(all_calls >= 100, "{all_calls} calls");
    lives
}

/// A network that loses messages, in which 30 % of the nodes are dead.
fn fire() -> Scenario {
    let workload = Workload { lookups: 20, pace: Interarrival::Every(200 * MS), ..Workload::default() };
    Scenario { nodes: 150, workload, ..Scenario::under_fire() }
}

/// A network that grows from nothing, whose nodes maintain their tables.
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
        workload: Workload { lookups: 8, pace: Interarrival::Every(300 * MS), ..Workload::default() },
        link: Link { loss: 0.05, ..Link::default() },
        ..Scenario::default()
    }
}

fn storing(scheme: Scheme) -> Scenario {
    let broadcasts = Broadcasts {
        scheme,
        count: 6,
        pace: Interarrival::Every(500 * MS),
        warmup_lookups: 2,
        ..Broadcasts::default()
    };
    let workload = Workload { lookups: 0, ..Workload::default() };
    Scenario { nodes: 100, broadcasts: Some(broadcasts), workload, ..fire() }
}

#[test]
fn a_lossy_network_replays() {
    let lives = judge(&fire());
    // Live nodes begin with a table and with round trips; dead ones never began.
    assert!(lives.iter().any(Vec::is_empty) && lives.iter().all(|lives| lives.len() <= 1));
    let without = judge(&Scenario { known_round_trips: 0, ..fire() });
    let first = |lives: &Lives| lives.iter().flatten().next().unwrap().len();
    assert!(first(&lives) > first(&without) + 32);
}

#[test]
fn a_node_that_is_contacted_before_its_first_lookup_replays() {
    let scenario = Scenario { reverse_ping: true, nat: 0.1, ..fire() };
    let lives = judge(&scenario);
    let met = lives.iter().flatten().filter(|bytes| {
        let calls = Recording::<Net>::open(bytes).unwrap().calls().map(Result::unwrap);
        let mut told = calls.map(|call| call.event.event);
        matches!(told.next(), Some(Inbound::Routing(RoutingInbound::Connected { .. })))
            && told.any(|told| matches!(told, Inbound::Start(_)))
    });
    assert!(met.count() > 0);
}

#[test]
fn a_joining_network_replays() {
    judge(&growing());
    judge(&Scenario {
        nodes: 40,
        config: Scenario::default().config,
        build: Build::Join(Join { every: 20 * MS, ..Join::default() }),
        ..growing()
    });
}

#[test]
fn a_network_with_sybils_replays() {
    judge(&Scenario {
        sybils: vec![Sybils {
            count: 20,
            groups: 2,
            near: Place::Node(9),
            from: S,
            every: 200 * MS,
            ..Sybils::default()
        }],
        ..growing()
    });
}

#[test]
fn every_session_of_a_churning_node_replays() {
    let length = |mean| Length::Exponential(mean);
    let churn =
        Some(Churn { share: 0.5, sessions: length(400 * MS), absences: length(200 * MS), restores: true });
    let lives = judge(&Scenario { churn, ..growing() });
    assert!(lives.iter().filter(|lives| lives.len() >= 3).count() >= 2);
    // A node that keeps its table is the same when it comes back.
    let churn = Some(Churn { share: 0.5, sessions: length(2 * S), absences: length(S), restores: false });
    let lives = judge(&Scenario { churn, nodes: 100, ..fire() });
    assert!(lives.iter().all(|lives| lives.len() <= 1));
}

#[test]
fn optimistic_broadcasts_replay() {
    judge(&storing(Scheme::Optimistic { nodes: None }));
    judge(&storing(Scheme::Optimistic { nodes: Some(70) }));
}

#[test]
fn sweeps_replay() {
    judge(&storing(Scheme::Sweep { records: 30 }));
}

#[test]
fn a_network_with_liars_replays() {
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
fn a_recording_holds_the_initial_table() {
    let scenario = Scenario { known_round_trips: 0, ..fire() };
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
        // A coordinator that begins with an empty table behaves differently.
        let empty =
            Coordinator::<Net>::new(*recording.local(), recording.config().clone(), &Secret::from_seed(0))
                .unwrap();
        assert!(empty.table().is_empty());
    }
    assert!((80..130).contains(&live), "{live}");
}

#[test]
fn another_configuration_shows_the_first_difference() {
    let (_, lives) = run(&fire(), &(0..150).collect::<Vec<_>>(), true);
    let bytes = lives.iter().flatten().max_by_key(|bytes| bytes.len()).unwrap();
    let recording = Recording::<Net>::open(bytes).unwrap();
    let mut config = recording.config().clone();
    config.query.alpha = 1;
    let replayed = recording.replay_on(recording.coordinator(config).unwrap()).unwrap();
    let difference = replayed.difference.unwrap();
    assert_eq!(difference.call, 1, "fewer requests at a time");
    assert!(
        difference.replayed_output.contains("Request(")
            && difference.recorded_output.is_some_and(|had| had != difference.replayed_output)
    );
}

#[test]
fn a_truncated_recording_replays_its_complete_calls() {
    let (_, lives) = run(&fire(), &(0..150).collect::<Vec<_>>(), false);
    let bytes = lives.iter().flatten().max_by_key(|bytes| bytes.len()).unwrap();
    let calls = replay::<Net>(bytes).unwrap().calls;
    let mut seen = Vec::new();
    for length in (100..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        match check(&bytes[..length]) {
            Err(ReplayError::Truncated { calls }) => seen.push(calls),
            other => panic!("{length} of {}: {other:?}", bytes.len()),
        }
    }
    assert!(
        seen.is_sorted() && seen.first() == Some(&0) && seen.last().is_some_and(|last| last + 2 >= calls),
        "{seen:?} of {calls}"
    );
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    assert!(matches!(check(&damaged), Err(ReplayError::Damaged { .. })));
}

#[test]
fn a_ring_of_the_latest_calls_can_be_read() {
    let mut world = World::new(growing()).unwrap();
    world.record(4, Keep::Last { bytes: 2_000 }, false).unwrap();
    world.run().unwrap();
    let lives = world.recordings(4);
    assert_eq!(lives.len(), 1);
    assert!(matches!(replay::<Net>(&lives[0]), Err(ReplayError::Partial { calls: 0, lost }) if lost > 100));
    assert!(Recording::<Net>::open(&lives[0]).unwrap().calls().all(|call| call.is_ok()));
}

#[test]
fn recording_must_be_requested_before_the_first_step() {
    let mut world = World::new(fire()).unwrap();
    assert_eq!(world.record(150, Keep::All, false), Err(NotRecorded::NoSuchNode));
    // The second of two requests to record counts, in full.
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
