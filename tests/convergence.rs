//! Where every node answers and knows what it should, a lookup finds exactly the closest nodes there are.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with the benches
#[path = "support/ideal.rs"]
mod ideal;

use ideal::{Ideal, Plain};
use kad_proto::query::{Inbound, Outbound};
use kad_proto::{
    Bits, Family, Finish, Instant, Key, Key8, Key256, Machine, NetworkConfig, Outcome, Query, QueryConfig,
    Stamped, Start,
};
use std::collections::VecDeque;
use std::time::Duration;

/// 8-bit keys; a node is its key.
#[derive(Clone, Debug, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

/// Runs one lookup; every request is answered a millisecond later, in order.
fn lookup<F: Family>(
    query: &mut Query<F>,
    start: Start<F>,
    mut answer: impl FnMut(&F::Node) -> Vec<F::Node>,
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
        let request = requests.pop_front().expect("a lookup that goes on has requests in flight");
        now = now + Duration::from_millis(1);
        event = Inbound::Answered { request: request.id, closer: answer(&request.node) };
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

/// What a node knows in an ideal table: up to two nodes for each length of prefix that they share with it.
fn view(nodes: &[Key8], of: Key8) -> Vec<Key8> {
    let in_bucket = |cpl| nodes.iter().filter(move |node| node.common_prefix_len(&of) == cpl).take(2);
    (0..8).flat_map(in_bucket).copied().collect()
}

#[test]
fn every_8_bit_target_is_approached_to_the_end() {
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
            let mut query = Query::<Tiny>::new(Key8::new([0]), config, NetworkConfig::default()).unwrap();
            for target in 0..=u8::MAX {
                let target = Key8::new([target]);
                let first = nodes[usize::from(target.as_bytes()[0]) * 7 % nodes.len()];
                let seeds = view(&nodes, first);
                let start = Start::find(1, target).with_seeds(seeds);
                // In a table of two nodes a bucket, the k closest to a target are known to those near it as long as k
                // is at most two; for more, nodes answer from all there is.
                let finish = lookup(&mut query, start, |node| {
                    let known = if k > 2 { nodes.clone() } else { view(&nodes, *node) };
                    sorted(&known, &target, k.max(2))
                });
                assert_eq!(found(&finish), sorted(&nodes, &target, k), "{target} among {nodes:?}");
                // With several paths, each has its share of the nodes only.
                let outcome = if nodes.len() < k { Outcome::Exhausted } else { Outcome::Converged };
                assert!(finish.outcome == outcome || paths > 1, "{:?}", finish.outcome);
            }
        }
    }
}

/// The common workload, with fewer nodes where nothing is optimised.
fn ideal() -> (Ideal, usize) {
    if cfg!(debug_assertions) { (Ideal::new(2_000), 40) } else { (Ideal::new(10_000), 200) }
}

fn workload(paths: usize) -> f64 {
    let (network, count) = ideal();
    let config = QueryConfig { paths, ..QueryConfig::default() };
    let mut query = Query::<Plain>::new(Key256::new([0; 32]), config, NetworkConfig::default()).unwrap();
    let mut requests = 0;
    for (target, first) in network.lookups(count) {
        let start = Start::find(1, target).with_seeds(network.answer(first, &target));
        let finish = lookup(&mut query, start, |node| network.answer(network.index(node).unwrap(), &target));
        assert_eq!(found(&finish), network.truth(&target), "recall 1.0");
        // A path may run out of nodes of its own before k of them have answered.
        assert!(finish.outcome == Outcome::Converged || paths > 1 && finish.outcome == Outcome::Exhausted);
        requests += finish.statistics.requests;
    }
    f64::from(requests) / count as f64
}

#[test]
fn the_common_workload_is_found_in_full() {
    let requests = workload(1);
    assert!(requests <= 32.0, "{requests} requests per lookup; the goal is 32");
}

#[test]
fn disjoint_paths_find_it_too() {
    workload(3);
}
