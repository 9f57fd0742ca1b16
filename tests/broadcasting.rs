//! Broadcasts in simulated networks: how soon each strategy returns, which nodes hold the records, how many
//! lookups that takes, and how well nodes estimate the size of the network. The figures are those of `simulate
//! --strategies`, at sizes for a test.

#![cfg(feature = "sim")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::sim::{BroadcastFigures, Broadcasts, Interarrival, Scenario, Scheme, Workload, World};
use kad_proto::{Config, RoutingConfig};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const OPTIMISTIC: Scheme = Scheme::Optimistic { nodes: None };

fn run(scenario: Scenario, broadcasts: Broadcasts) -> World {
    let workload = Workload { lookups: 0, ..Workload::default() };
    let mut world =
        World::new(Scenario { broadcasts: Some(broadcasts), workload, check_invariants: true, ..scenario })
            .unwrap();
    world.run().unwrap();
    world
}

fn figures(scenario: Scenario, scheme: Scheme, count: u32) -> BroadcastFigures {
    let figures = run(scenario, Broadcasts { scheme, count, ..Broadcasts::default() }).broadcast_figures();
    println!("{scheme}\n{figures}\n");
    assert_eq!((figures.broadcasts, figures.running, figures.fell_back), (count as usize, 0, 0));
    figures
}

/// A request time-out of 10 s, no soft limit, no retries.
fn fixed() -> Config {
    let mut config = Config { routing: RoutingConfig::off(), ..Config::default() };
    config.network.request_timeout = 10 * S;
    config.network.soft_timeout = 10 * S;
    config.network.min_timeout = 10 * S;
    config.query.retries = 0;
    config.query.edge_probing = false;
    config.query.timeout = 600 * S;
    config.broadcast.timeout = 600 * S;
    config
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn under_fire_optimistic_broadcasts_return_in_half_the_time_and_the_record_is_where_it_belongs() {
    for nodes in [1_000, 10_000] {
        let fire = Scenario { nodes, ..Scenario::under_fire() };
        let count = 200;
        let optimistic = figures(fire.clone(), OPTIMISTIC, count);
        let follow_up = figures(fire.clone(), Scheme::FollowUp, count);
        let slow = figures(Scenario { config: fixed(), ..fire }, Scheme::FollowUp, count);
        assert!(optimistic.time.p50 * 2 <= follow_up.time.p50, "{nodes}: {optimistic}\n{follow_up}");
        assert!(optimistic.time.p50 * 10 <= slow.time.p50, "{nodes}: {optimistic}\n{slow}");
        // At the return, and when the background has ended: as many stores as a follow-up.
        assert!(optimistic.share_at_return >= 0.75, "{nodes}: {optimistic}");
        assert!(optimistic.share >= 0.97 && follow_up.share >= 0.97, "{nodes}: {optimistic}\n{follow_up}");
        assert!(optimistic.stores <= 35.0, "{nodes}: {optimistic}");
        assert!(optimistic.success == 1.0 && follow_up.success == 1.0, "{nodes}: {optimistic}\n{follow_up}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn where_all_are_well_optimistic_broadcasts_take_a_third_of_the_time_and_of_the_requests() {
    let healthy = Scenario { nodes: 10_000, ..Scenario::default() };
    let optimistic = figures(healthy.clone(), OPTIMISTIC, 200);
    let follow_up = figures(healthy, Scheme::FollowUp, 200);
    assert!(optimistic.time.p50 * 3 <= follow_up.time.p50, "{optimistic}\n{follow_up}");
    assert!(optimistic.finds * 3.0 <= follow_up.finds, "{optimistic}\n{follow_up}");
    assert!(optimistic.share >= 0.98 && optimistic.stores <= 22.0, "{optimistic}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn a_sweep_of_ten_thousand_records_takes_one_lookup_where_single_broadcasts_take_twenty() {
    let records = 10_000;
    for (scenario, least) in [(Scenario::default(), 0.95), (Scenario::under_fire(), 0.9)] {
        let scenario = Scenario { nodes: 10_000, ..scenario };
        let broadcasts = Broadcasts {
            scheme: Scheme::Sweep { records },
            count: 1,
            warmup_lookups: 0,
            ..Broadcasts::default()
        };
        let figures = run(scenario, broadcasts).broadcast_figures();
        println!("{figures}");
        // A single broadcast needs one lookup for each record.
        assert!(figures.lookups * 20 <= u64::from(records), "{figures}");
        assert!(figures.share >= least && figures.success == 1.0, "{figures}");
    }
}

/// The relative errors of this many size estimates, in ascending order.
fn errors(scenario: Scenario, count: u32) -> Vec<f64> {
    let pace = Interarrival::Every(S);
    let world = run(scenario, Broadcasts { scheme: OPTIMISTIC, count, pace, ..Broadcasts::default() });
    let all = (0..world.scenario().nodes).map(|index| world.handle(index));
    let truth = all.filter(|node| world.engine(*node).is_some()).count() as f64 - 1.0;
    let mut errors: Vec<_> = world
        .broadcasts()
        .iter()
        .map(|broadcast| {
            let size = world.engine(broadcast.starter).unwrap().network_size(world.now()).unwrap();
            (size.nodes() as f64 / truth - 1.0).abs()
        })
        .collect();
    errors.sort_by(f64::total_cmp);
    let of = |part: usize| errors[errors.len() * part / 100];
    println!("{truth} nodes: off by {:.4} p50, {:.4} p90, {:.4} at most", of(50), of(90), of(99));
    errors
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn fifty_lookups_tell_the_size_of_the_network_within_a_tenth() {
    for (nodes, count) in [(1_000, 100), (10_000, 100), (100_000, 40)] {
        let errors = errors(Scenario { nodes, ..Scenario::default() }, count);
        let within = errors.iter().filter(|error| **error <= 0.1).count();
        assert!(within * 100 >= errors.len() * 95, "{nodes}: {within} of {}", errors.len());
        assert!(errors[errors.len() / 2] <= 0.05, "{nodes}: {errors:?}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn under_fire_those_that_answer_are_counted() {
    let errors = errors(Scenario { nodes: 1_000, ..Scenario::under_fire() }, 100);
    assert!(errors[90] <= 0.15, "{errors:?}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes where it is not optimised")]
fn records_are_kept_where_they_were_stored() {
    let fire = Scenario { nodes: 300, ..Scenario::under_fire() };
    for scheme in [Scheme::FollowUp, OPTIMISTIC, Scheme::Static, Scheme::Sweep { records: 100 }] {
        let world = run(
            fire.clone(),
            Broadcasts { scheme, count: 20, pace: Interarrival::Every(S), ..Broadcasts::default() },
        );
        for (broadcast, finish) in world.broadcasts().iter().map(|it| (it, it.ending.as_ref().unwrap())) {
            assert!(finish.succeeded, "{broadcast:?}");
            let holders = (0..300).filter(|index| world.holds(world.handle(*index), broadcast.first));
            assert!(holders.count() >= 8, "{broadcast:?}");
        }
    }
}
