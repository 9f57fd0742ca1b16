//! Convergence: where every node answers and has a complete table, a lookup finds exactly the closest nodes of the
//! network.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with the benches
#[path = "support/ideal.rs"]
mod ideal;

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use ideal::{Ideal, Plain};
use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    Bits, Family, Finish, Instant, Key, Key8, Key256, Machine, NetworkConfig, Outcome, Query, QueryConfig,
    Response, Secret, Stamped, Start,
};
use std::collections::VecDeque;
use std::time::Duration;
use tiny::Tiny;

/// Runs one lookup; every request is answered a millisecond later, in order.
fn lookup<F: Family>(
    query: &mut Query<F>,
    start: Start<F>,
    answer: impl FnMut(&F::Node) -> Vec<F::Node>,
) -> Finish<F> {
    lookup_among(query, start, answer, |_| false)
}

/// The same, where some nodes answer before all others.
fn lookup_among<F: Family>(
    query: &mut Query<F>,
    start: Start<F>,
    mut answer: impl FnMut(&F::Node) -> Vec<F::Node>,
    is_quick: impl Fn(&F::Node) -> bool,
) -> Finish<F> {
    let mut now = Instant::ORIGIN;
    let mut requests = VecDeque::new();
    let mut event = Inbound::Start(start);
    loop {
        for out in query.handle(now, Stamped::new(event)) {
            match out.event {
                Outbound::Request(request) => requests.push_back(request),
                Outbound::Cancel(cancel) => requests.retain(|request| request.id != cancel.id),
                Outbound::Finished(finish) => return finish,
                _ => {}
            }
        }
        let next = requests.iter().position(|request| is_quick(&request.node)).unwrap_or(0);
        let request = requests.remove(next).expect("a lookup that goes on has requests in flight");
        now = now + Duration::from_millis(1);
        event = Inbound::Response(Response::answered(request.id, answer(&request.node)));
    }
}

fn sorted<const N: usize>(nodes: &[Bits<N>], target: &Bits<N>, most: usize) -> Vec<Bits<N>> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable_by_key(|node| node.distance(target));
    nodes.truncate(most);
    nodes
}

fn found<F: Family<Node = Bits<N>>, const N: usize>(finish: &Finish<F>) -> Vec<Bits<N>> {
    finish.closest.iter().map(|contact| contact.node).collect()
}

/// The ideal table of a node: up to two nodes for each common prefix length.
fn view(nodes: &[Key8], of: Key8) -> Vec<Key8> {
    let in_bucket = |cpl| nodes.iter().filter(move |node| node.common_prefix_len(&of) == cpl).take(2);
    (0..8).flat_map(in_bucket).copied().collect()
}

#[test]
fn every_8_bit_target_finds_its_exact_closest_nodes() {
    let networks: [Vec<u8>; 5] = [
        (1..=255).collect(),
        (1..=255).step_by(3).collect(),
        (1..=255).step_by(17).collect(),
        (128..=255).collect(),
        vec![1, 2, 3, 250, 254],
    ];
    for keys in networks {
        let nodes: Vec<_> = keys.into_iter().map(|key| Key8::new([key])).collect();
        for (paths, k) in [(1, 2), (1, 4), (2, 4)] {
            let config = QueryConfig { k, paths, ..QueryConfig::default() };
            let mut query =
                Query::<Tiny>::new(Key8::new([0]), config, NetworkConfig::default(), &Secret::from_seed(0))
                    .unwrap();
            for target in 0..=u8::MAX {
                let target = Key8::new([target]);
                let first = nodes[usize::from(target.as_bytes()[0]) * 7 % nodes.len()];
                let seeds = view(&nodes, first);
                let start = Start::find(1, target).with_seeds(seeds);
                // In a table with two nodes a bucket, nodes near a target know its k closest as long as k is at
                // most two; for a larger k, nodes answer from the whole network.
                let finish = lookup(&mut query, start, |node| {
                    let known = if k > 2 { nodes.clone() } else { view(&nodes, *node) };
                    sorted(&known, &target, k.max(2))
                });
                assert_eq!(found(&finish), sorted(&nodes, &target, k), "{target} among {nodes:?}");
                // With several paths, each has only a share of the nodes.
                let outcome = if nodes.len() < k { Outcome::AllFound } else { Outcome::Converged };
                assert!(finish.outcome == outcome || paths > 1, "{:?}", finish.outcome);
            }
        }
    }
}

/// The common workload, with fewer nodes in an unoptimised build.
fn ideal() -> (Ideal, usize) {
    if cfg!(debug_assertions) { (Ideal::new(2_000), 40) } else { (Ideal::new(10_000), 200) }
}

fn workload(paths: usize) -> f64 {
    let (network, count) = ideal();
    let config = QueryConfig { paths, ..QueryConfig::default() };
    let mut query =
        Query::<Plain>::new(Key256::new([0; 32]), config, NetworkConfig::default(), &Secret::from_seed(0))
            .unwrap();
    let mut requests = 0;
    for (target, first) in network.lookups(count) {
        let start = Start::find(1, target).with_seeds(network.answer(first, &target));
        let finish = lookup(&mut query, start, |node| network.answer(network.index(node).unwrap(), &target));
        assert_eq!(found(&finish), network.truth(&target), "recall 1.0");
        // A path may run out of nodes before k of them have answered.
        assert!(finish.outcome == Outcome::Converged || paths > 1 && finish.outcome == Outcome::Exhausted);
        requests += finish.stats.sent;
    }
    f64::from(requests) / count as f64
}

#[test]
fn the_common_workload_has_full_recall() {
    let requests = workload(1);
    assert!(requests <= 32.0, "{requests} requests per lookup; the goal is 32");
}

#[test]
fn disjoint_paths_have_full_recall() {
    workload(3);
}

/// The made-up node at this distance from the target.
fn made_up(target: &Key256, distance: u64) -> Key256 {
    let mut bytes = *target.as_bytes();
    bytes.iter_mut().zip(distance.to_be_bytes()).for_each(|(byte, with)| *byte ^= with);
    Key256::new(bytes)
}

/// One seed is hostile: it and its accomplices answer at once, each with three that are a little nearer than itself, but not
/// as near as the k closest. Whoever looks for the nearest of them spends all that it has.
#[test]
fn a_captured_path_keeps_no_node_from_the_others() {
    let (network, count) = ideal();
    for paths in [2, 3, 4, 8] {
        let config = QueryConfig { paths, ..QueryConfig::default() };
        let mut query = Query::<Plain>::new(
            Key256::new([0; 32]),
            config,
            NetworkConfig::default(),
            &Secret::from_seed(0),
        )
        .unwrap();
        for (target, first) in network.lookups(count) {
            let truth = network.truth(&target);
            let rim = truth[19].distance(&target).leading();
            let is_made_up = |node: &Key256| network.index(node).is_none();
            let mut seeds = network.answer(first, &target);
            seeds.push(made_up(&target, 3 * rim));
            let answer = |node: &Key256| match network.index(node) {
                Some(honest) => network.answer(honest, &target),
                None => {
                    let own = node.distance(&target).leading();
                    (1..=3).rev().map(|step| made_up(&target, own - step * (rim / 4_096))).collect()
                }
            };
            let start = Start::find(1, target).with_seeds(seeds);
            let finish = lookup_among(&mut query, start, answer, is_made_up);
            assert_eq!(found(&finish), truth, "{paths} paths");
            let asked = finish.stats.sent as usize;
            assert!(asked <= 240, "{asked} requests");
        }
    }
}
