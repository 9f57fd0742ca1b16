//! Networks of real coordinators under virtual time, with everything enabled that can go wrong.
//!
//! The longer run: `cargo test --release --features sim --test simulation -- --ignored`, with the first seed in
//! `KAD_SOAK_FROM` and the number of seeds in `KAD_SOAK`.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::type_complexity)] // a test may fail so

use kad_proto::broadcast::Success;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::sim::{
    Bootstrap, Broadcasts, Build, Churn, Eclipse, Empty, Interarrival, Join, Late, Latency, Length, Link,
    MadeUp, Net, Partition, Party, Place, Reason, RequestEnd, Scenario, Scheme, Silent, SimEvent, Slow,
    Sybils, Workload, World,
};
use kad_proto::{
    BootstrapConfig, Coordinator, ExploreConfig, Instant, Machine, ProbeConfig, Response, RoutingConfig,
    Schedule, Stamped, Start,
};
use std::sync::mpsc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// Everything enabled; the details depend on the seed.
fn storm(seed: u64, nodes: u32) -> Scenario {
    let pick = |number: u64| seed / number % 3;
    let length = |mean: Duration| match pick(3) {
        0 => Length::Exponential(mean),
        1 => Length::Weibull { scale: mean, shape: 0.6 },
        _ => Length::OneOf([mean / 10, mean, mean * 3].into()),
    };
    let round_trip = match pick(1) {
        0 => Latency::LogNormal { median: 80 * MS, sigma: 0.6 },
        1 => Latency::Uniform(Duration::ZERO, 400 * MS),
        _ => Latency::Constant(50 * MS),
    };
    let mut scenario = Scenario {
        seed,
        nodes,
        build: match pick(9) {
            0 => Build::Ideal,
            1 => Build::Join(Join { every: 20 * MS, refreshes: 1, ..Join::default() }),
            _ => Build::Bootstrap(Bootstrap { every: 20 * MS, settle: 5 * S, ..Bootstrap::default() }),
        },
        known_round_trips: if pick(27) == 0 { 32 } else { 0 },
        reverse_ping: pick(3) > 0,
        dead: 0.1,
        nat: 0.1,
        slow: Slow { share: 0.1, factor: 10.0 },
        churn: Some(Churn {
            share: 0.5,
            sessions: length(20 * S),
            absences: length(10 * S),
            restores: pick(27) == 1,
        }),
        hostile: vec![
            Party::new(0.03, MadeUp),
            Party::new(0.03, Eclipse),
            Party::new(0.03, Late(S)),
            Party::new(0.03, Empty),
            Party::new(0.03, Silent),
        ],
        link: Link { round_trip, loss: 0.05, duplication: 0.1, reordering: 0.1, refusal: 0.3, dial: None },
        partition: Some(Partition::Split { share: 0.3, from: 2 * S, until: 6 * S }),
        workload: Workload {
            lookups: 25,
            pace: Interarrival::Mean(300 * MS),
            deadline: [None, Some(2 * S), Some(300 * MS)][usize::try_from(pick(1)).unwrap()],
            messages: 0.3,
            stopped: 0.1,
            ..Workload::default()
        },
        health: Some(5 * S),
        check_invariants: true,
        replay: "KAD_SOAK=1 KAD_SOAK_FROM={seed} cargo test --features sim --test simulation -- --ignored"
            .into(),
        ..Scenario::default()
    };
    if pick(9) == 2 {
        scenario.config.routing = restless();
        scenario.sybils = if pick(3) == 0 {
            vec![Sybils { count: 20, groups: 2, near: Place::Node(9), ..Sybils::default() }]
        } else {
            Vec::new()
        };
    }
    scenario.config.query.paths = if pick(81) == 2 { 3 } else { 1 };
    if pick(3) == 2 {
        scenario.config.network.max_in_flight = 4;
        scenario.config.network.max_queued = 3;
        scenario.config.pool.max_running = 1;
    }
    scenario
}

/// All parts of the routing maintenance, frequent enough for a short run.
fn restless() -> RoutingConfig {
    let (bootstrap, probe) = (BootstrapConfig::default(), ProbeConfig::default());
    let schedule = Schedule::Dynamic { interval: 2 * S, multiplier: 10, jitter: 50 };
    RoutingConfig {
        bootstrap: Some(BootstrapConfig { min_nodes: 10, retry_interval: S, ..bootstrap }),
        probe: Some(ProbeConfig { interval: 3 * S, retry_interval: 300 * MS, ..probe }),
        explore: Some(ExploreConfig { schedule, max_cpl: 5, timeout: 2 * S }),
        ..RoutingConfig::default()
    }
}

fn weather(seeds: impl Iterator<Item = u64>, nodes: u32) -> World {
    let mut last = None;
    for seed in seeds {
        let mut world = World::new(storm(seed, nodes)).unwrap();
        if let Err(broken) = world.run() {
            panic!("{broken}") // the seed, and the command that shows it again;
        }
        let figures = world.figures();
        assert_eq!((figures.lookups, figures.running), (25, 0), "seed {seed}: {figures}");
        last = Some(world);
    }
    last.unwrap()
}

/// Seeds from this one on: fewer in an unoptimised build, which checks arithmetic for overflow.
fn some(from: u64, count: u64) -> std::ops::Range<u64> {
    from..from + if cfg!(debug_assertions) { count / 8 } else { count }
}

#[test]
fn invariants_hold_with_everything_turned_on() {
    weather(some(0, 200), 30);
}

/// The same, with broadcasts.
fn publishing(seed: u64, nodes: u32) -> World {
    let schemes = [
        Scheme::FollowUp,
        Scheme::Optimistic { nodes: None },
        Scheme::Optimistic { nodes: Some(nodes.into()) },
        Scheme::Sweep { records: 30 },
        Scheme::Static,
    ];
    let mut scenario = storm(seed, nodes);
    // The holders of the records are judged this much later.
    scenario.config.broadcast.background_timeout = 500 * MS;
    scenario.broadcasts = Some(Broadcasts {
        scheme: schemes[usize::try_from(seed % 5).unwrap()],
        count: 12,
        pace: Interarrival::Mean(300 * MS),
        deadline: [None, Some(3 * S), Some(300 * MS)][usize::try_from(seed / 5 % 3).unwrap()],
        success: Success::Share(50),
        warmup_lookups: u32::try_from(seed / 3 % 8).unwrap(),
        stopped: 0.1,
        ..Broadcasts::default()
    });
    let mut world = World::new(scenario).unwrap();
    if let Err(broken) = world.run() {
        panic!("{broken}")
    }
    let figures = world.broadcast_figures();
    assert_eq!((figures.broadcasts, figures.running), (12, 0), "seed {seed}: {figures}");
    world
}

#[test]
fn invariants_hold_while_records_are_stored() {
    let worlds = some(0, 120).map(|seed| publishing(seed, 30));
    let (mut held, mut left, mut count) = (0, 0, 0);
    for world in worlds {
        count += 1;
        let nodes = 0..world.scenario().nodes;
        held += nodes.map(|index| world.held(world.handle(index)).count()).sum::<usize>();
        // Requests that were in flight when their broadcast returned.
        let ended = world.broadcasts().iter().filter_map(|broadcast| broadcast.ending.as_ref());
        left += ended.map(|ending| ending.stats.in_flight()).sum::<u32>();
    }
    assert!(held > 80 * count && left > 20, "{held} {left} in {count}");
}

#[test]
fn invariants_hold_with_everything_turned_on_and_more_nodes() {
    let seeds = some(200, 80);
    let middle = seeds.start.midpoint(seeds.end);
    std::thread::scope(|threads| {
        threads.spawn(|| drop(weather(seeds.start..middle, 70)));
        weather(middle..seeds.end, 70);
    });
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn soak() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (from, count) = (number("KAD_SOAK_FROM", 1_000), number("KAD_SOAK", 3_000));
    for seed in from..from + count {
        weather([seed].into_iter(), [40, 90, 300][usize::try_from(seed % 3).unwrap()]);
        publishing(seed, [40, 90, 300][usize::try_from(seed % 3).unwrap()]);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let print = |seed| weather([seed].into_iter(), 60).fingerprint();
    assert_eq!(print(5), print(5));
    assert_ne!(print(5), print(6));
}

/// Equal on every platform. Only an intended change of policy may change the figures.
#[test]
fn this_run_is_the_same_everywhere() {
    assert_eq!(format!("{:016x}", weather([12].into_iter(), 60).fingerprint()), "12cc7304217fdafc");
}

#[test]
fn lookups_in_an_ideal_network_are_complete_and_short() {
    for nodes in [50, 500, 5_000] {
        for seed in 1..=3 {
            let workload = Workload { lookups: 60, ..Workload::default() };
            // No long round trips that look like losses.
            let link = Link { round_trip: Latency::Uniform(50 * MS, 100 * MS), ..Link::default() };
            let mut world =
                World::new(Scenario { nodes, seed, link, workload, ..Scenario::default() }).unwrap();
            world.run().unwrap();
            let figures = world.figures();
            assert!((figures.recall - 1.0).abs() < 1e-9, "{nodes} nodes, seed {seed}: {figures}");
            let most = f64::from(nodes).log2() / 2.0 + 2.0;
            assert!(figures.mean_hops <= most, "{nodes} nodes, seed {seed}: {figures}");
        }
    }
}

#[test]
fn nodes_that_join_one_by_one_form_a_network() {
    for seeds in [1, 3] {
        let build = Build::Join(Join { seeds, every: 50 * MS, ..Join::default() });
        let health = Some(5 * S);
        let workload = Workload { lookups: 50, pace: Interarrival::Every(S), ..Workload::default() };
        let scenario =
            Scenario { nodes: 300, build, reverse_ping: true, health, workload, ..Scenario::default() };
        let mut world = World::new(scenario).unwrap();
        world.run().unwrap();
        let figures = world.figures();
        assert!(figures.recall > 0.99, "{seeds} seeds: {figures}");
        let joins = world.lookups().iter().filter(|lookup| lookup.reason == Reason::Join).count();
        assert_eq!(joins, 299);
        let (first, last) = (&world.health()[1], world.health().last().unwrap());
        assert!(first.up < 150 && last.up == 300 && last.size > first.size, "{first:?} {last:?}");
        assert!(last.by_cpl[0] > 15.0 && last.dead < 0.01, "{last:?}");
    }
}

#[test]
fn dead_nodes_are_in_tables_and_do_not_answer() {
    let scenario = Scenario { dead: 0.3, health: Some(3_600 * S), ..Scenario::default() };
    let mut world = World::new(scenario).unwrap();
    world.run().unwrap();
    let health = &world.health()[0];
    assert!((0.25..0.35).contains(&health.dead) && (650..750).contains(&health.up), "{health:?}");
    assert!(world.figures().recall > 0.98, "{}", world.figures());
}

#[test]
fn a_partition_keeps_two_sides_apart_while_it_lasts() {
    let sides = |node: kad_proto::sim::Handle| node.0 % 2;
    let partition = Partition::By(std::sync::Arc::new(move |now, from, to| {
        now < Instant::from_millis(100_000) && sides(from) != sides(to)
    }));
    let workload = Workload { lookups: 40, pace: Interarrival::Every(5 * S), ..Workload::default() };
    let scenario = Scenario { nodes: 200, partition: Some(partition), workload, ..Scenario::default() };
    let mut world = World::new(scenario).unwrap();
    let (sender, answers) = mpsc::channel();
    world.set_log(move |at, event| {
        if let SimEvent::Answered { from, node, .. } = event {
            let _ = sender.send((at, sides(*from) == sides(*node)));
        }
    });
    world.run().unwrap();
    drop(world);
    let (mut within, mut across) = (0, 0);
    for (at, same) in answers {
        within += usize::from(same);
        across += usize::from(!same);
        assert!(same || at >= Instant::from_millis(100_000));
    }
    assert!(within > 100 && across > 100);
}

#[test]
fn lookups_are_stopped_and_run_out_of_time() {
    let workload = Workload { lookups: 100, deadline: Some(300 * MS), stopped: 0.3, ..Workload::default() };
    let mut world = World::new(Scenario { workload, ..Scenario::default() }).unwrap();
    world.run().unwrap();
    let ends = world.figures().ends;
    for end in ["converged", "deadline exceeded", "stopped"] {
        assert!(ends.iter().any(|(name, count)| name == end && *count >= 5), "{ends:?}");
    }
}

#[test]
fn requests_that_are_refused_fail_at_once() {
    let link = Link { refusal: 1.0, ..Link::default() };
    let mut world =
        World::new(Scenario { dead: 0.3, link, detailed_lookups: 100, ..Scenario::default() }).unwrap();
    world.run().unwrap();
    let fates: Vec<_> =
        world.lookups().iter().flat_map(|lookup| &lookup.asked).filter_map(|a| a.ended).collect();
    assert!(fates.iter().filter(|(_, fate)| *fate == RequestEnd::Failed).count() > 100);
}

#[test]
fn an_eclipsed_target_yields_the_attackers_nodes() {
    let recall = |hostile| {
        let mut world = World::new(Scenario { hostile, ..Scenario::default() }).unwrap();
        world.run().unwrap();
        world.figures().recall
    };
    assert!(recall(vec![Party::new(0.1, Eclipse)]) < 0.6);
    assert!(recall(vec![Party::new(0.1, MadeUp)]) > 0.95);
    assert!(recall(vec![Party::new(0.1, Empty)]) > 0.95);
}

/// The coordinator of the node that looks, driven by hand with the recorded answers at the recorded times.
#[test]
fn a_coordinator_driven_by_hand_sends_the_same_requests() {
    for seed in 0..30 {
        let workload = Workload { lookups: 1, ..Workload::default() };
        let link = Link { loss: 0.1, ..Link::default() };
        let scenario =
            Scenario { seed, nodes: 30, known_round_trips: 0, link, workload, ..Scenario::default() };
        let before = World::new(scenario.clone()).unwrap();
        let mut world = World::new(scenario).unwrap();
        world.run().unwrap();
        let lookup = &world.lookups()[0];
        let mut answers: Vec<_> = lookup
            .asked
            .iter()
            .enumerate()
            .filter_map(|(place, asked)| match asked.ended {
                Some((at, RequestEnd::Answered)) => Some((at, place)),
                _ => None,
            })
            .collect();
        answers.sort_unstable();

        let mut engine = before.engine(lookup.starter).unwrap().clone();
        let mut sent = Vec::new();
        let mut tell = |engine: &mut Coordinator<Net>, at, event| {
            let requests =
                engine.handle(at, Stamped::new(event)).into_iter().filter_map(|out| match out.event {
                    Outbound::Request(request) => Some((at, request)),
                    _ => None,
                });
            sent.extend(requests);
            sent.clone()
        };
        let mut requests = tell(&mut engine, lookup.began, Inbound::Start(Start::find(0, lookup.target)));
        for (at, place) in answers {
            while let Some(due) = engine.poll_timeout().filter(|due| *due < at) {
                requests = tell(&mut engine, due, Inbound::Tick);
            }
            let request = &requests[place].1;
            let closer = before.closest_known(request.node, request.target);
            let event = Inbound::Response(Response::answered(request.id, closer));
            requests = tell(&mut engine, at, event);
        }
        while let Some(due) = engine.poll_timeout() {
            requests = tell(&mut engine, due, Inbound::Tick);
        }
        let by_hand: Vec<_> = requests.iter().map(|(at, request)| (*at, request.node)).collect();
        let simulated: Vec<_> = lookup.asked.iter().map(|asked| (asked.sent, asked.node)).collect();
        assert_eq!(by_hand, simulated, "seed {seed}");
    }
}

#[test]
fn lookups_begin_as_scheduled() {
    let times = [S, 2 * S, 5 * S];
    let workload = Workload { lookups: 4, pace: Interarrival::At(times.into()), ..Workload::default() };
    let mut world = World::new(Scenario { nodes: 50, workload, ..Scenario::default() }).unwrap();
    world.run().unwrap();
    let began: Vec<_> = world.lookups().iter().map(|lookup| lookup.began - Instant::ORIGIN).collect();
    assert_eq!(began, [S, 2 * S, 5 * S, 8 * S]);
}
