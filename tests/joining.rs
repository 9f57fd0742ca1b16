//! Networks that grow from nothing and maintain their routing tables themselves, with the default configuration.

#![cfg(feature = "sim")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::panic)]

use kad_proto::sim::{
    Bootstrap, Build, Health, Interarrival, Link, Reason, Scenario, Sybils, Workload, World,
};
use kad_proto::{Config, Instant, RoutingConfig};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// When a network counts as built: 1,000 nodes join within 100 s.
const BUILT: Duration = Duration::from_secs(600);

/// Nodes join one by one; the others know three of them.
fn growing(lookups: u32) -> Scenario {
    Scenario {
        config: Config::default(),
        build: Build::Bootstrap(Bootstrap::default()),
        link: Link { loss: 0.01, ..Link::default() },
        workload: Workload { lookups, pace: Interarrival::Mean(2 * S), ..Workload::default() },
        check_invariants: true,
        ..Scenario::default()
    }
}

fn at(world: &mut World, after: Duration) -> Health {
    world.run_until(Instant::ORIGIN + after).unwrap();
    world.look_closely()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn a_thousand_nodes_join_from_three_seeds() {
    let mut world = World::new(growing(2_000)).unwrap();
    let health = at(&mut world, BUILT);
    println!("{health:?}");
    assert_eq!(health.up, 1_000);
    assert!(health.recall >= 0.99, "{health:?}");
    world.run().unwrap();
    let figures = world.figures();
    println!("{figures}");
    // All lookups start once the network is built. Success is to find the closest node that is alive at the end of
    // the lookup; 1 % of all messages are lost.
    let workload = || world.lookups().iter().filter(|lookup| lookup.reason == Reason::Workload);
    assert!(workload().all(|lookup| lookup.began >= Instant::ORIGIN + BUILT));
    assert!(figures.lookups == 2_000 && figures.success >= 0.999, "{figures}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn tables_forget_the_dead_within_two_probe_intervals() {
    let mut world = World::new(Scenario { dead: 0.3, ..growing(1_000) }).unwrap();
    let before = at(&mut world, BUILT);
    let killed = at(&mut world, BUILT + S);
    assert!(before.dead < 0.01 && killed.dead > 0.25, "{before:?} {killed:?}");
    let interval = RoutingConfig::default().probe.unwrap().interval;
    let after = at(&mut world, BUILT + 2 * interval);
    println!("{killed:?} {after:?}");
    assert!(after.dead < 0.05, "{after:?}");
    world.run().unwrap();
    let figures = world.figures();
    println!("{figures}");
    assert!(figures.success >= 0.999, "{figures}");
}

/// The number of Sybils in the victim's table at the end, in total and in the fullest bucket, and the share of its
/// true neighbours that it knows.
fn eclipsed(config: Config, sybils: Sybils) -> (usize, usize, f64) {
    let scenario = Scenario { config, sybils: vec![sybils], ..growing(20) };
    let mut world = World::new(scenario).unwrap();
    world.run().unwrap();
    let victim = world.handle(500);
    let table = world.engine(victim).unwrap().table();
    let bucket = |cpl| {
        table
            .bucket(cpl)
            .iter()
            .filter(|record| world.sybils().any(|set| set.contains(record.node())))
            .count()
    };
    let (all, most) = ((0..64).map(bucket).sum(), (0..64).map(bucket).max().unwrap());
    let truth = world.truly_closest(victim.key(), victim);
    let known = truth.iter().filter(|node| table.get(node).is_some()).count();
    (all, most, known as f64 / truth.len() as f64)
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn an_eclipse_takes_no_more_of_a_table_than_the_limits_allow() {
    let limits = Config::default().table;
    let open = Config {
        table: kad_proto::TableConfig {
            max_per_group: 1_000,
            max_per_group_in_bucket: 1_000,
            ..limits.clone()
        },
        ..Config::default()
    };
    let one = Sybils::default();
    let (all, _, known) = eclipsed(open, one.clone());
    assert!(all > 50 && known < 0.5, "without limits the victim is lost: {all} {known}");
    for sybils in
        [one.clone(), Sybils { from: 5 * MINUTE, ..one.clone() }, Sybils { groups: 20, ..one.clone() }]
    {
        let groups = usize::from(sybils.groups);
        let (all, most, known) = eclipsed(Config::default(), sybils);
        println!("{all} {most} {known}");
        assert!(all > 0 && all <= groups * limits.max_per_group, "{all}");
        assert!(most <= groups * limits.max_per_group_in_bucket, "{most}");
        // With twenty groups, Sybils have sixty places and the neighbourhood: the limits bound their number, not
        // more.
        assert!(groups > 1 || known >= 0.95, "{known}");
    }
}
