//! Sweeps of networks that are known as a whole, so that every allocation can be checked.

use super::*;
use crate::{Key8, Key160};
use core::marker::PhantomData;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use std::collections::BTreeMap;

/// Nodes with a number besides their key.
#[derive(Clone, Debug, PartialEq)]
struct Plain<K>(PhantomData<K>);

impl<K> Default for Plain<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<K: Key> Family for Plain<K> {
    type Key = K;
    type Target = K;
    type Node = (K, u32);
    type Message = ();

    fn key(node: &(K, u32)) -> K {
        node.0
    }
}

struct Random(SplitMix64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.number() % n as u64).unwrap()
    }

    fn key(&mut self) -> Key160 {
        let mut bytes = [0; 20];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_be_bytes()[..chunk.len()]);
        }
        Key160::new(bytes)
    }

    fn keys(&mut self, count: usize) -> Vec<Key160> {
        (0..count).map(|_| self.key()).collect()
    }
}

/// The true closest nodes, by looking at all of them.
fn closest<K: Key>(network: &[K], target: K, count: usize) -> Vec<K> {
    let mut all: Vec<_> = network.iter().map(|node| node.distance(&target)).collect();
    if count < all.len() {
        all.select_nth_unstable(count);
        all.truncate(count);
    }
    all.sort_unstable();
    all.into_iter().map(|distance| distance.distance(&target)).collect()
}

fn numbered<K: Key>(nodes: impl IntoIterator<Item = K>) -> impl Iterator<Item = (K, u32)> {
    nodes.into_iter().map(|node| (node, 7))
}

/// How a sweep went.
struct Swept<K> {
    end: SweepEnd,
    lookups: usize,
    /// By node.
    allocations: BTreeMap<K, Vec<K>>,
}

/// Sweeps, with so many lookups at once that are answered in random order.
fn swept<K: Key>(
    config: &SweepConfig,
    keys: &[K],
    at_once: usize,
    mut oracle: impl FnMut(K) -> Vec<K>,
) -> Swept<K> {
    let mut sweep = Sweep::<Plain<K>>::new(config.clone(), keys.iter().copied()).unwrap();
    let (mut running, mut random) = (Vec::new(), Random(SplitMix64::seed_from_u64(at_once as u64)));
    let end = loop {
        match sweep.advance() {
            SweepStep::LookUp(target) => {
                assert!(!running.contains(&target));
                running.push(target);
                if running.len() < at_once {
                    continue;
                }
            }
            SweepStep::Wait => assert!(!running.is_empty()),
            SweepStep::Done(end) => break end,
        }
        let target = running.swap_remove(random.below(running.len()));
        assert!(sweep.found(&target, numbered(oracle(target))));
        assert!(!sweep.found(&target, []), "no longer under way");
    };
    assert!(running.is_empty());
    assert_eq!(sweep.advance(), SweepStep::Done(end), "and that is that");
    let lookups = sweep.lookups();
    assert!(lookups <= config.max_lookups);
    let some = keys.iter().step_by(keys.len() / 100 + 1);
    assert!(end != SweepEnd::Settled || some.copied().all(|key| sweep.is_settled(&key)));
    let mut allocations = BTreeMap::new();
    for allocation in sweep.into_allocations() {
        assert!(!allocation.keys.is_empty() && allocation.keys.is_sorted());
        assert!(
            allocations.insert(allocation.node.0, allocation.keys).is_none(),
            "one allocation for each node"
        );
    }
    Swept { end, lookups, allocations }
}

/// Who got each key, by distance.
fn allotted<K: Key>(swept: &Swept<K>) -> BTreeMap<K, Vec<K>> {
    let mut holders = BTreeMap::<_, Vec<_>>::new();
    for (node, keys) in &swept.allocations {
        for key in keys {
            holders.entry(*key).or_default().push(*node);
        }
    }
    for (key, nodes) in &mut holders {
        nodes.sort_unstable_by_key(|node| node.distance(key));
    }
    holders
}

fn assert_exact<K: Key>(swept: &Swept<K>, config: &SweepConfig, network: &[K], keys: &[K]) {
    let holders = allotted(swept);
    for key in keys {
        let expected = closest(network, *key, config.k);
        assert_eq!(holders.get(key).map_or(&[][..], Vec::as_slice), expected, "{key:?}");
    }
}

/// The default, in a network whose answers tell as many nodes as a lookup returns.
fn wide() -> SweepConfig {
    SweepConfig { answer_size: 40, ..SweepConfig::default() }
}

fn config(k: usize, results: usize) -> SweepConfig {
    SweepConfig { k, results, answer_size: results, max_lookups: usize::MAX, ..SweepConfig::default() }
}

/// Sweeps a network that answers in truth, and judges that every key went to its k closest nodes.
fn exact<K: Key>(config: &SweepConfig, network: &[K], keys: &[K], at_once: usize) -> Swept<K> {
    let mut network = network.to_vec();
    network.sort_unstable();
    network.dedup();
    let swept = swept(config, keys, at_once, |target| closest(&network, target, config.results));
    assert_exact(&swept, config, &network, keys);
    swept
}

/// The sum over all regions of the lookups for many records.
fn in_regions(config: &SweepConfig, network: &[Key160], keys: &[Key160], at_once: usize) -> usize {
    let bits = config.region_bits(network.len() as u64);
    let mut sorted = network.to_vec();
    sorted.sort_unstable();
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut lookups = 0;
    for region in keys.chunk_by(|a, b| a.common_prefix_len(b) >= bits) {
        let oracle = |target| {
            let places = nearest(&sorted, |node| *node, target).take(config.results);
            places.map(|index| sorted[index]).collect()
        };
        let swept = swept(config, region, at_once, oracle);
        assert_eq!(swept.end, SweepEnd::Settled);
        assert_exact(&swept, config, network, &region[..region.len().min(2)]);
        lookups += swept.lookups;
    }
    lookups
}

#[test]
fn ten_thousand_records_take_few_lookups() {
    // If answers tell half as many nodes, it takes twice as many.
    for (config, nodes, at_once, most) in [
        (wide(), 1_000, 3, 60),
        (wide(), 10_000, 1, 400),
        (SweepConfig::default(), 1_000, 3, 120),
        (SweepConfig::default(), 10_000, 1, 800),
    ] {
        let mut random = Random(SplitMix64::seed_from_u64(nodes));
        let network = random.keys(usize::try_from(nodes).unwrap());
        let lookups = in_regions(&config, &network, &random.keys(10_000), at_once);
        assert!(lookups <= most, "{lookups} for {nodes} nodes");
    }
}

#[test]
fn a_record_that_stands_alone_takes_one_lookup() {
    let mut random = Random(SplitMix64::seed_from_u64(1));
    let network = random.keys(1_000);
    let keys = [0, 0x20, 0x60, 0x80, 0xe0].map(|byte| key_in(byte, 8, &random.key()));
    let swept = exact(&SweepConfig::default(), &network, &keys, 1);
    assert_eq!((swept.end, swept.lookups), (SweepEnd::Settled, 5));
}

#[test]
fn no_records_take_no_lookup() {
    let swept = exact(&SweepConfig::default(), &Random(SplitMix64::seed_from_u64(1)).keys(100), &[], 1);
    assert_eq!((swept.end, swept.lookups), (SweepEnd::Settled, 0));
    assert!(swept.allocations.is_empty());
}

/// A case known to have gone wrong elsewhere: none of the nodes found is on the target's side.
#[test]
fn all_nodes_share_one_cpl_with_every_key() {
    for nodes in [10, 100, 1_000] {
        let mut random = Random(SplitMix64::seed_from_u64(nodes));
        let network: Vec<_> = random.keys(usize::try_from(nodes).unwrap());
        let network: Vec<_> = network.iter().map(|node| key_in(0x80, 1, node)).collect();
        let keys: Vec<_> = random.keys(300).iter().map(|key| key_in(0, 1, key)).collect();
        let swept = exact(&config(20, 40), &network, &keys, 1);
        // The nodes of one record differ from those of another in the bits after the one that no node has.
        assert!(swept.lookups <= 5 + network.len() / 20, "{} for {nodes}", swept.lookups);
    }
}

/// A case known to have gone wrong elsewhere.
#[test]
fn a_single_node() {
    for node in [0, 1, 0x7f, 0xff] {
        let keys: Vec<_> = (0..=u8::MAX).map(|byte| Key8::new([byte])).collect();
        let swept = exact(&config(3, 6), &[Key8::new([node])], &keys, 1);
        assert_eq!((swept.end, swept.lookups), (SweepEnd::NothingNew, 3));
        assert_eq!(swept.allocations.get(&Key8::new([node])), Some(&keys));
    }
}

/// A case known to have gone wrong elsewhere.
#[test]
fn no_nodes_at_all() {
    let keys = Random(SplitMix64::seed_from_u64(1)).keys(100);
    let swept = exact(&SweepConfig::default(), &[], &keys, 1);
    assert_eq!((swept.end, swept.lookups), (SweepEnd::NothingNew, 2));
    assert!(swept.allocations.is_empty());
}

/// A case known to have gone wrong elsewhere: many records where there are few nodes, and the other way round.
#[test]
fn clustered_keys() {
    let mut random = Random(SplitMix64::seed_from_u64(3));
    let in_cluster = |random: &mut Random, bits, count| -> Vec<_> {
        random.keys(count).iter().map(|key| key_in(0x5a, bits, key)).collect()
    };
    let spread = random.keys(500);
    // All records within one part of 256, or of 2^60.
    for bits in [8, 60] {
        let keys = in_cluster(&mut random, bits, 300);
        let swept = exact(&config(20, 40), &spread, &keys, 1);
        assert_eq!((swept.end, swept.lookups), (SweepEnd::Settled, 1));
    }
    // Most nodes within one part, the records everywhere, some amidst them.
    for bits in [8, 60, 155] {
        let cluster = in_cluster(&mut random, bits, 300);
        let network = [&spread[..50], &cluster].concat();
        let keys = [random.keys(300), in_cluster(&mut random, bits, 300)].concat();
        let swept = exact(&config(20, 40), &network, &keys, 1);
        assert_eq!(swept.end, SweepEnd::Settled);
        assert!(swept.lookups < 20, "{}: no more than for nodes that are spread evenly", swept.lookups);
    }
}

#[test]
fn lookups_that_find_nothing_end_it_and_records_go_to_who_is_known() {
    let mut random = Random(SplitMix64::seed_from_u64(5));
    let (network, keys) = (random.keys(1_000), random.keys(1_000));
    let config = SweepConfig::default();
    let mut answers = 0;
    let swept = swept(&config, &keys, 1, |target| {
        answers += 1;
        if answers <= 3 { closest(&network, target, 40) } else { Vec::new() }
    });
    assert_eq!((swept.end, swept.lookups), (SweepEnd::NothingNew, 5));
    let holders = allotted(&swept);
    let known: Vec<_> = swept.allocations.keys().copied().collect();
    assert!(keys.iter().all(|key| holders[key] == closest(&known, *key, 20)));
}

#[test]
fn one_lookup_that_finds_nothing_is_made_again() {
    let mut random = Random(SplitMix64::seed_from_u64(6));
    let (network, keys) = (random.keys(500), random.keys(500));
    let config = wide();
    let mut answers = 0;
    let swept = swept(&config, &keys, 1, |target| {
        answers += 1;
        if answers % 2 == 0 { closest(&network, target, 40) } else { Vec::new() }
    });
    assert_eq!(swept.end, SweepEnd::Settled);
    assert_exact(&swept, &config, &network, &keys);
}

#[test]
fn there_are_no_more_lookups_than_configured() {
    let mut random = Random(SplitMix64::seed_from_u64(7));
    let (network, keys) = (random.keys(2_000), random.keys(1_000));
    let config = SweepConfig { max_lookups: 7, ..SweepConfig::default() };
    for at_once in [1, 3] {
        let swept = swept(&config, &keys, at_once, |target| closest(&network, target, 40));
        assert_eq!((swept.end, swept.lookups), (SweepEnd::LookupLimit, 7));
        assert!(swept.allocations.len() <= 7 * 40);
        assert!(allotted(&swept).values().all(|nodes| nodes.len() == 20), "each goes to who is known");
    }
}

#[test]
fn a_sweep_may_be_cut_short_at_any_time() {
    let mut random = Random(SplitMix64::seed_from_u64(8));
    let (network, keys) = (random.keys(500), random.keys(100));
    let mut sweep = Sweep::<Plain<_>>::new(SweepConfig::default(), keys.iter().copied()).unwrap();
    assert_eq!(sweep.clone().into_allocations().count(), 0);
    let SweepStep::LookUp(target) = sweep.advance() else { panic!("a lookup") };
    assert_eq!(sweep.advance(), SweepStep::Wait, "the first tells how far an answer reaches");
    let found = closest(&network, target, 40);
    assert!(sweep.found(&target, numbered(found.iter().copied())));
    let allocations: Vec<_> = sweep.clone().into_allocations().collect();
    assert_eq!(allocations.iter().map(|allocation| allocation.keys.len()).sum::<usize>(), 100 * 20);
    // And those found so far are where the next lookup may begin.
    let SweepStep::LookUp(target) = sweep.advance() else { panic!("a lookup") };
    let seeds: Vec<_> = sweep.nodes(&target).map(|node| node.0).collect();
    assert_eq!(seeds, closest(&found, target, 40));
}

#[test]
fn of_two_nodes_with_one_key_the_first_known_stays() {
    let [key, node] = [9, 8].map(|byte| Key8::new([byte]));
    let config = SweepConfig { k: 2, results: 3, ..SweepConfig::default() };
    let mut sweep = Sweep::<Plain<Key8>>::new(config, [key]).unwrap();
    assert_eq!(sweep.advance(), SweepStep::LookUp(key));
    assert!(sweep.found(&key, [(node, 1), (node, 2), (node, 5)]));
    // They are one node: the second closest is not known.
    assert_eq!(sweep.advance(), SweepStep::LookUp(node));
    let other = Key8::new([10]);
    assert!(sweep.found(&node, [(node, 3), (other, 4), (Key8::new([0]), 6)]));
    assert_eq!(sweep.advance(), SweepStep::Done(SweepEnd::Settled));
    let mut allocations = sweep.into_allocations();
    assert_eq!(allocations.next(), Some(NodeAllocation { node: (node, 1), keys: vec![key] }));
    assert_eq!(allocations.next().map(|allocation| allocation.node), Some((other, 4)));
}

#[test]
fn lookups_at_once_are_not_likely_to_find_the_same() {
    let mut random = Random(SplitMix64::seed_from_u64(9));
    let (network, keys) = (random.keys(1_000), random.keys(1_000));
    let mut sweep = Sweep::<Plain<_>>::new(wide(), keys.iter().copied()).unwrap();
    let SweepStep::LookUp(target) = sweep.advance() else { panic!("a lookup") };
    assert!(sweep.found(&target, numbered(closest(&network, target, 40))));
    let mut found = BTreeSet::new();
    for _ in 0..4 {
        let SweepStep::LookUp(target) = sweep.advance() else { panic!("another lookup") };
        found.extend(closest(&network, target, 40));
    }
    assert!(found.len() > 100, "{} nodes of 160", found.len());
}

#[test]
fn nothing_is_looked_up_twice_at_once() {
    let key = Key8::new([9]);
    let mut sweep = Sweep::<Plain<Key8>>::new(SweepConfig::default(), [key]).unwrap();
    assert_eq!(sweep.advance(), SweepStep::LookUp(key));
    // A node with the key itself is no hint how far the next answer reaches.
    assert!(sweep.found(&key, [(key, 1)]));
    assert_eq!(sweep.advance(), SweepStep::LookUp(Key8::new([8])));
    assert_eq!(sweep.advance(), SweepStep::Wait);
}

#[test]
fn regions_take_a_quarter_of_the_lookups_there_may_be() {
    let config = SweepConfig::default();
    let bits = |nodes| config.region_bits(nodes);
    // 16 lookups of 40 nodes are 640.
    assert_eq!((bits(0), bits(640), bits(641), bits(1_280), bits(1_281)), (0, 0, 1, 1, 2));
    assert_eq!((bits(10_000), bits(u64::MAX)), (4, 55));
}

#[test]
fn bad_configurations_are_named() {
    let bad = |change: fn(&mut SweepConfig)| {
        let mut config = SweepConfig::default();
        change(&mut config);
        Sweep::<Plain<Key8>>::new(config, []).map(|_| ()).map_err(|error| error.field())
    };
    assert_eq!(bad(|config| config.k = 0), Err("sweep.k"));
    assert_eq!(bad(|config| config.k = 1_025), Err("sweep.k"));
    assert_eq!(bad(|config| config.results = 20), Err("sweep.results"));
    assert_eq!(bad(|config| config.results = 8_193), Err("sweep.results"));
    assert_eq!(bad(|config| config.max_lookups = 0), Err("sweep.max_lookups"));
    assert_eq!(bad(|config| config.max_without_news = 0), Err("sweep.max_without_news"));
    assert_eq!(bad(|_| ()), Ok(()));
}

proptest! {
    #[test]
    fn every_key_goes_to_its_closest_nodes(
        network: BTreeSet<u8>,
        keys: Vec<u8>,
        k in 1..6_usize,
        more in 1..8_usize,
        at_once in 1..4_usize,
    ) {
        let of = |bytes: &mut dyn Iterator<Item = u8>| bytes.map(|byte| Key8::new([byte])).collect::<Vec<_>>();
        let (network, keys) = (of(&mut network.into_iter()), of(&mut keys.into_iter()));
        exact(&config(k, k + more), &network, &keys, at_once);
    }

    #[test]
    fn clusters_within_clusters_are_explored(
        parts in proptest::collection::vec((0..3_u8, 0..161_u32, 1..40_usize), 1..6),
        count in 0..60_usize,
        k in 1..25_usize,
        at_once in 1..4_usize,
        seed: u64,
    ) {
        let mut random = Random(SplitMix64::seed_from_u64(seed));
        let (mut network, mut keys) = (Vec::new(), random.keys(count));
        let mut centre = random.key();
        for (what, bits, size) in parts {
            for _ in 0..size {
                let key = centre.spliced(bits, &random.key());
                if what != 0 { network.push(key) }
                if what != 1 { keys.push(key) }
            }
            centre = centre.spliced(bits, &random.key());
        }
        exact(&config(k, 2 * k), &network, &keys, at_once);
    }

    #[test]
    fn liars_waste_no_more_than_there_is(
        answers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..30),
        keys: Vec<u8>,
        at_once in 1..4_usize,
    ) {
        let keys: Vec<_> = keys.into_iter().map(|byte| Key8::new([byte])).collect();
        let config = SweepConfig { k: 2, results: 8, max_lookups: 20, ..SweepConfig::default() };
        let mut answers = answers.into_iter();
        let mut named = BTreeSet::new();
        let swept = swept(&config, &keys, at_once, |target| {
            let answer = answers.next().unwrap_or_default();
            let answer: Vec<_> = answer.into_iter().map(|byte| target.distance(&Key8::new([byte]))).collect();
            named.extend(answer.iter().take(8).copied());
            answer
        });
        let named: Vec<_> = named.into_iter().collect();
        let holders = allotted(&swept);
        prop_assert!(keys.iter().all(|key| holders.get(key).map_or(&[][..], Vec::as_slice) == closest(&named, *key, 2)));
    }
}

/// The key, but that its first bits are those of a byte, and then 0.
fn key_in(byte: u8, bits: u32, key: &Key160) -> Key160 {
    let mut first = [0; 20];
    first[0] = byte;
    Key160::new(first).spliced(bits, key)
}
