//! [`Population`]: the network as an omniscient observer sees it, with all keys in order, the ideal routing table
//! of each node, and the nodes truly closest to a key.

use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::{Random, Stream};
use crate::vocabulary::key::Key;
use core::ops::Range;
use std::collections::BTreeMap;

/// All nodes of a network, including the dead and those that are offline.
#[derive(Clone, Debug)]
pub(crate) struct Population {
    seed: u64,
    /// The first node's handle.
    base: u32,
    count: u32,
    /// All keys, as numbers, in ascending order. [`Handle::at`] maps a key back to its handle.
    sorted: Vec<u64>,
    /// The handles at keys that [`Handle::at`] does not lead to: of Sybils, and of nodes at other addresses.
    others: BTreeMap<u64, Handle>,
    /// The present handles of nodes that have another address or another id than in the beginning, by index.
    changed: BTreeMap<u32, Handle>,
    /// The same by handle.
    index_of_changed: BTreeMap<Handle, u32>,
    /// The nodes, by index, that were given the ids after those of the population, in order.
    given_ids: Vec<u32>,
}

impl Population {
    /// A population of `count` nodes, at most [`Handle::NODES`]. The seed determines the first handle, and so the
    /// keys.
    pub(crate) fn new(seed: u64, count: u32) -> Self {
        let base = Random::new(seed, Stream::Base, []).below(Handle::NODES - count + 1);
        let mut sorted: Vec<_> = (base..base + count).map(|number| Handle(number).position()).collect();
        sorted.sort_unstable();
        Self {
            seed,
            base,
            count,
            sorted,
            others: BTreeMap::new(),
            changed: BTreeMap::new(),
            index_of_changed: BTreeMap::new(),
            given_ids: Vec::new(),
        }
    }

    /// The present handle of a node.
    pub(crate) fn handle(&self, index: u32) -> Handle {
        let first = Handle(self.base + index);
        if self.changed.is_empty() { first } else { self.changed.get(&index).copied().unwrap_or(first) }
    }

    /// The index of a node, from 0, into arrays with one element for each node; `None` if nobody of the population
    /// has this handle now.
    pub(crate) fn index(&self, handle: Handle) -> Option<u32> {
        let index = handle.0.checked_sub(self.base).filter(|index| *index < self.count);
        if self.changed.is_empty() {
            return index;
        }
        let index = index.filter(|index| !self.changed.contains_key(index));
        index.or_else(|| self.index_of_changed.get(&handle).copied())
    }

    /// The index of the node that has, or once had, this handle.
    pub(crate) fn index_ever(&self, handle: Handle) -> Option<u32> {
        let first = handle.at_first_address();
        if first.0 >= Handle::NODES {
            return None;
        }
        let number = (first.0 + Handle::NODES - self.base - self.count) % Handle::NODES;
        let given = self.given_ids.get(number as usize).copied();
        given.or_else(|| first.0.checked_sub(self.base).filter(|index| *index < self.count))
    }

    /// The handle of a node that nobody has ever been, by number, as long as there are any.
    pub(crate) fn nobody(&self, number: u32) -> Option<Handle> {
        let free = Handle::NODES - self.count;
        (number < free).then(|| Handle((self.base + self.count + number) % Handle::NODES))
    }

    /// A node has another address from now on.
    pub(crate) fn move_node(&mut self, index: u32) {
        let handle = self.handle(index);
        if let Some(moved) = handle.at_address(handle.address() + 1) {
            self.others.insert(moved.position(), moved);
            self.change(index, moved);
        }
    }

    /// A node has another id from now on. Returns whether one was left.
    pub(crate) fn give_another_id(&mut self, index: u32) -> bool {
        let old = self.handle(index).position();
        let number = u32::try_from(self.given_ids.len()).unwrap_or(u32::MAX);
        let Some(handle) = self.nobody(number) else { return false };
        self.given_ids.push(index);
        self.others.remove(&old);
        if let Ok(place) = self.sorted.binary_search(&old) {
            self.sorted.remove(place);
        }
        let place = self.sorted.partition_point(|key| *key < handle.position());
        self.sorted.insert(place, handle.position());
        self.change(index, handle);
        true
    }

    fn change(&mut self, index: u32, handle: Handle) {
        if let Some(old) = self.changed.insert(index, handle) {
            self.index_of_changed.remove(&old);
        }
        self.index_of_changed.insert(handle, index);
    }

    /// Sybils stand in the [ideal tables](Self::ideal_table) from now on, and count as known to an omniscient
    /// observer, who leaves them out by a filter.
    pub(crate) fn add_sybils(&mut self, sybils: &[Handle]) {
        for sybil in sybils {
            if self.others.insert(sybil.position(), *sybil).is_none() {
                self.sorted.push(sybil.position());
            }
        }
        self.sorted.sort_unstable();
    }

    /// Calls `each` with the buckets of a node's ideal routing table, by common prefix length (cpl): all nodes
    /// with exactly that cpl where there are at most k, else k of them drawn at random. Empty buckets are skipped.
    pub(crate) fn ideal_table(&self, index: u32, k: u32, mut each: impl FnMut(u32, &[Handle])) {
        let own = self.handle(index).key();
        let mut random = Random::new(self.seed, Stream::IdealTable, [u64::from(index)]);
        let mut drawn: Vec<u32> = Vec::with_capacity(k as usize);
        let mut bucket = Vec::with_capacity(k as usize);
        let mut range = 0..self.sorted.len();
        for cpl in 0..Key64::BITS {
            let middle = self.split(&range, cpl);
            let (ours, others) = if own.bit(cpl) {
                (middle..range.end, range.start..middle)
            } else {
                (range.start..middle, middle..range.end)
            };
            let among = u32::try_from(others.len()).unwrap_or(u32::MAX);
            drawn.clear();
            if among <= k {
                drawn.extend(0..among);
            } else {
                // k of them, each combination with the same probability (Floyd's method).
                for last in among - k..among {
                    let pick = random.below(last + 1);
                    drawn.push(if drawn.contains(&pick) { last } else { pick });
                }
            }
            bucket.clear();
            bucket.extend(drawn.iter().filter_map(|pick| self.at(others.start + *pick as usize)));
            if !bucket.is_empty() {
                each(cpl, &bucket);
            }
            range = ours;
            if range.len() <= 1 {
                return;
            }
        }
    }

    /// The k nodes closest to the target among those that `filter` accepts, closest first.
    pub(crate) fn closest(&self, target: Key64, k: usize, filter: impl Fn(Handle) -> bool) -> Vec<Handle> {
        let mut found = Vec::with_capacity(k);
        // A stack of ranges of keys that agree in their first `cpl` bits, the closest range on top.
        let mut ranges = vec![(0..self.sorted.len(), 0)];
        while let Some((range, cpl)) = ranges.pop() {
            if range.len() > 1 && cpl < Key64::BITS {
                let middle = self.split(&range, cpl);
                let (low, high) = (range.start..middle, middle..range.end);
                let (near, far) = if target.bit(cpl) { (high, low) } else { (low, high) };
                ranges.push((far, cpl + 1));
                ranges.push((near, cpl + 1));
            } else if let Some(handle) = (!range.is_empty()).then(|| self.at(range.start)).flatten()
                && filter(handle)
            {
                found.push(handle);
                if found.len() == k {
                    break;
                }
            }
        }
        found
    }

    /// Prefix sums over the nodes in order of their keys: element n is how many of the first n nodes `filter`
    /// accepts. For [`count_by_cpl`](Self::count_by_cpl).
    pub(crate) fn prefix_sums(&self, filter: impl Fn(Handle) -> bool) -> Vec<u32> {
        let mut sum = 0;
        let sums = (0..self.sorted.len()).map(|index| {
            sum += u32::from(self.at(index).is_some_and(&filter));
            sum
        });
        core::iter::once(0).chain(sums).collect()
    }

    /// How many of the nodes counted in the prefix sums have a common prefix length of exactly 0, 1, 2 .. with a
    /// node.
    pub(crate) fn count_by_cpl(&self, index: u32, sums: &[u32]) -> impl Iterator<Item = usize> {
        let own = self.handle(index).key();
        let mut range = 0..self.sorted.len();
        (0..Key64::BITS).map(move |cpl| {
            let middle = self.split(&range, cpl);
            let (low, high) = (range.start..middle, middle..range.end);
            let (ours, others) = if own.bit(cpl) { (high, low) } else { (low, high) };
            range = ours;
            let below = |index: usize| sums.get(index).copied().unwrap_or_default() as usize;
            below(others.end) - below(others.start)
        })
    }

    /// The first place in a range of keys that agree before bit `cpl` whose key has that bit set.
    fn split(&self, range: &Range<usize>, cpl: u32) -> usize {
        let bit = 1_u64 << (Key64::BITS - 1 - cpl);
        let keys = self.sorted.get(range.clone()).unwrap_or_default();
        range.start + keys.partition_point(|key| key & bit == 0)
    }

    fn at(&self, index: usize) -> Option<Handle> {
        let key = self.sorted.get(index)?;
        if !self.others.is_empty()
            && let Some(other) = self.others.get(key)
        {
            return Some(*other);
        }
        Handle::at(&Key64::new(key.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ideal_tables_are_ideal() {
        let network = Population::new(3, 500);
        for index in [0, 17, 499] {
            let own = network.handle(index).key();
            let mut known = Vec::new();
            network.ideal_table(index, 20, |_, bucket| known.extend_from_slice(bucket));
            for cpl in 0..Key64::BITS {
                let shares = |handle: &Handle| handle.key().common_prefix_len(&own) == cpl;
                let all = (0..500).map(|other| network.handle(other)).filter(shares).count();
                let mut bucket: Vec<_> = known.iter().filter(|handle| shares(handle)).collect();
                bucket.sort_unstable();
                bucket.dedup();
                assert_eq!(bucket.len(), all.min(20));
            }
        }
    }

    #[test]
    fn nodes_are_counted_by_common_prefix_length() {
        let network = Population::new(4, 300);
        let even = |handle: Handle| handle.0.is_multiple_of(2);
        let sums = network.prefix_sums(even);
        for index in [0, 150, 299] {
            let own = network.handle(index);
            let mut counts = [0; Key64::BITS as usize];
            for other in
                (0..300).map(|other| network.handle(other)).filter(|other| *other != own && even(*other))
            {
                let shared = other.key().common_prefix_len(&own.key()) as usize;
                counts.iter_mut().skip(shared).take(1).for_each(|count| *count += 1);
            }
            assert_eq!(network.count_by_cpl(index, &sums).collect::<Vec<_>>(), counts);
        }
    }

    #[test]
    fn the_closest_are_the_closest() {
        let network = Population::new(5, 1_000);
        for number in 0..50 {
            let target = Handle::point(number).key();
            let even = |handle: &Handle| handle.0.is_multiple_of(2);
            let mut all: Vec<_> = (0..1_000).map(|index| network.handle(index)).filter(even).collect();
            all.sort_unstable_by_key(|handle| handle.key().distance(&target));
            all.truncate(20);
            assert_eq!(network.closest(target, 20, |handle| even(&handle)), all);
        }
        assert_eq!(network.closest(Handle(0).key(), 2_000, |_| true).len(), 1_000);
    }

    #[test]
    fn nodes_that_move_or_take_another_id_are_found_where_they_are() {
        let mut network = Population::new(6, 200);
        let (first, neighbour) = (network.handle(7), network.handle(8));
        network.move_node(7);
        let moved = network.handle(7);
        assert_eq!((moved.key(), moved.address()), (first.key(), 1));
        assert_eq!(
            (network.index(first), network.index(moved), network.index(neighbour)),
            (None, Some(7), Some(8))
        );
        assert_eq!(network.closest(first.key(), 1, |_| true), [moved]);
        assert!(network.give_another_id(7));
        let other = network.handle(7);
        assert_eq!((network.index(moved), network.index(other)), (None, Some(7)));
        assert_ne!(network.closest(first.key(), 1, |_| true), [moved]);
        assert_eq!(network.closest(other.key(), 1, |_| true), [other]);
        assert_eq!(network.closest(other.key(), 1_000, |_| true).len(), 200);
        network.move_node(7);
        assert_eq!(network.closest(other.key(), 1, |_| true), [network.handle(7)]);
        let ever = [first, moved, other, network.handle(7)].map(|handle| network.index_ever(handle));
        assert_eq!((ever, network.index_ever(neighbour)), ([Some(7); 4], Some(8)));
        assert_eq!(network.nobody(1).and_then(|handle| network.index_ever(handle)), None);
    }
}
