//! Lookups among many nodes with ideal tables: what the family knows of targets, and what answers name.

use crate::bep5::{Bep5, Contact};
use crate::discv5::{Discv5, Enr};
use crate::figures::{Spread, size};
use crate::libp2p::{Asked, Libp2p, Peer, Preimages};
use crate::network::{Link, Network, Random, Wire};
use kad_proto::{Config, Key, QueryConfig, RoutingConfig};

const NODES: usize = size(2_000, 5_000);
const LOOKUPS: usize = size(30, 100);
const SEEDS: u64 = size(2, 5);

/// What lookups have found of the true closest live nodes, and requests for each.
struct Found {
    share: f64,
    requests: f64,
    incomplete: u64,
}

/// Lookups by nodes that know the table of some node of the network; each begins with the 2k nodes of it that are
/// closest to its target, and has no other experience.
fn lookups<F: Wire>(
    seed: u64,
    family: &F,
    (dead, loss): (f64, f64),
    k: usize,
    node: fn(&mut Random) -> F::Node,
    target: fn(&mut Random) -> F::Target,
) -> Found {
    let mut network = Network::<F>::new(seed, Link { loss, ..Link::default() });
    for _ in 0..NODES {
        let node = node(&mut network.random);
        let host = network.add(node);
        if network.random.chance(dead) {
            network.kill(host);
        }
    }
    network.set_ideal_tables();
    let query = QueryConfig { k, max_candidates: k.max(20) * 2, ..QueryConfig::default() };
    let config = Config { query, routing: RoutingConfig::off(), network_size: None, ..Config::default() };
    let mut askers = Vec::new();
    for _ in 0..LOOKUPS {
        let like = network.random.below(NODES);
        let (node, target) = (node(&mut network.random), target(&mut network.random));
        let key = kad_proto::Target::key(&target);
        let mut known = network.ideal_table(like);
        known.sort_by_key(|node| F::key(node).distance(&key));
        known.truncate(2 * k);
        let asker = network.add_engine(node, family.clone(), config.clone());
        network.hosts[asker].serves = false;
        network.start_lookup(asker, target, known);
        askers.push(asker);
    }
    network.run_operations();
    let (mut found, mut all, mut sent) = (0, 0, 0);
    for asker in askers {
        let finish = network.hosts[asker].finishes.pop().unwrap();
        let (these, of) = network.found(asker, &finish, k);
        (found, all, sent) = (found + these, all + of, sent + finish.stats.sent);
    }
    Found {
        share: found as f64 / all as f64,
        requests: f64::from(sent) / LOOKUPS as f64,
        incomplete: network.counts.incomplete,
    }
}

/// The share found and the requests of a lookup, over the seeds.
fn measure<F: Wire>(
    name: &str,
    family: &F,
    conditions: (f64, f64),
    k: usize,
    node: fn(&mut Random) -> F::Node,
    target: fn(&mut Random) -> F::Target,
) -> (Spread, Spread) {
    let found: Vec<_> = (1..=SEEDS).map(|seed| lookups(seed, family, conditions, k, node, target)).collect();
    let share = Spread::of(&found.iter().map(|found| found.share).collect::<Vec<_>>());
    let requests = Spread::of(&found.iter().map(|found| found.requests).collect::<Vec<_>>());
    let incomplete: u64 = found.iter().map(|found| found.incomplete).sum();
    println!("{name}: {share}; requests {requests}; incomplete answers {incomplete}");
    (share, requests)
}

fn of_libp2p(name: &str, preimages: Preimages, dead: f64) -> (Spread, Spread) {
    let name = format!("libp2p, {name}, {dead} dead");
    measure(&name, &Libp2p::with(preimages), (dead, 0.0), 20, Peer::random, Asked::random)
}

#[test]
fn hashed_targets_among_the_dead() {
    let table = |bits| Libp2p::with_table(bits).preimages;
    let (exact, _) = of_libp2p("exact", Preimages::Exact, 0.3);
    let long = size(14, 16);
    let (of_long, _) = of_libp2p(&format!("{long} bits"), table(long), 0.3);
    let (of_12, _) = of_libp2p("12 bits", table(12), 0.3);
    let (none, _) = of_libp2p("none", Preimages::None, 0.3);
    let (wrong, _) = of_libp2p("hash as key", Preimages::HashAsKey, 0.3);
    assert!(exact.mean >= 0.98 && of_long.mean >= 0.98, "{exact} {of_long}");
    assert!(of_12.mean >= 0.97, "{of_12}");
    assert!(none.mean >= wrong.mean + 0.1, "{none} {wrong}");
}

#[test]
fn hashed_targets_where_all_are_well() {
    for (name, preimages) in [("exact", Preimages::Exact), ("none", Preimages::None)] {
        let (share, _) = of_libp2p(name, preimages, 0.0);
        assert!(share.mean >= 0.998, "{name}: {share}");
    }
}

fn of_bep5(claimed: usize, dead: f64) -> (Spread, Spread) {
    let name = format!("BEP 5, answers of 8, {claimed} claimed, {dead} dead");
    measure(&name, &Bep5 { claimed }, (dead, 0.0), 20, Contact::random, Random::key)
}

#[test]
fn answers_that_are_shorter_than_k() {
    // Told or not: how many nodes an answer names is learnt.
    for dead in [0.0, 0.3] {
        for claimed in [8, 20] {
            let (share, _) = of_bep5(claimed, dead);
            assert!(share.mean >= 0.98, "{dead} dead, {claimed} claimed: {share}");
        }
    }
}

/// Where no key but that of a node can be asked about, a node that has answered about the target is asked again about
/// itself, if it lies in a gap where nobody else can be asked.
#[test]
fn more_results_than_an_answer_names() {
    for (preimages, dead, goal) in
        [(Preimages::Exact, 0.0, 0.99), (Preimages::None, 0.0, 0.99), (Preimages::Exact, 0.3, 0.97)]
    {
        let name = format!("libp2p, {preimages:?}, 40 results of answers of 20, {dead} dead");
        let family = Libp2p::with(preimages);
        let (share, _) = measure(&name, &family, (dead, 0.0), 40, Peer::random, Asked::random);
        assert!(share.mean >= goal, "{share}");
    }
}

#[test]
fn answers_by_distance() {
    for (dead, loss, goal) in [(0.0, 0.0, 0.99), (0.0, 0.02, 0.99), (0.3, 0.0, 0.98)] {
        let name = format!("discv5, {dead} dead, {loss} lost");
        let (share, _) = measure(&name, &Discv5, (dead, loss), 16, Enr::random, Random::key);
        assert!(share.mean >= goal, "{share}");
    }
}
