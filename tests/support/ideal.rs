//! The common workload: a network in which every node has an ideal Kademlia table.
//!
//! Random numbers: `SplitMix64`, seed 7 for keys, 11 for views, 99 for targets and start nodes.

use kad_proto::{Family, Key, Key256};

pub(crate) const K: usize = 20;

/// 256-bit keys; a node is its key.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Plain;

impl Family for Plain {
    type Key = Key256;
    type Target = Key256;
    type Node = Key256;
    type Message = u64;

    fn key(node: &Key256) -> Key256 {
        *node
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub(crate) fn key(&mut self) -> Key256 {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        Key256::new(bytes)
    }
}

pub(crate) struct Ideal {
    /// Sorted.
    pub(crate) keys: Vec<Key256>,
    /// By node, the nodes it knows, as indices into `keys`.
    views: Vec<Vec<u32>>,
}

impl Ideal {
    pub(crate) fn new(nodes: usize) -> Self {
        let (mut for_keys, mut for_views) = (SplitMix(7), SplitMix(11));
        let mut keys: Vec<_> = (0..nodes).map(|_| for_keys.key()).collect();
        keys.sort_unstable();
        let views = (0..nodes).map(|node| view(&keys, node, &mut for_views)).collect();
        Self { keys, views }
    }

    /// The 20 nodes of a node's view that are closest to the target.
    pub(crate) fn answer(&self, node: usize, target: &Key256) -> Vec<Key256> {
        let mut known: Vec<_> = self.views[node].iter().map(|index| self.keys[*index as usize]).collect();
        let distance = |key: &Key256| key.distance(target);
        if known.len() > K {
            known.select_nth_unstable_by_key(K, distance);
            known.truncate(K);
        }
        known.sort_unstable_by_key(distance);
        known
    }

    pub(crate) fn index(&self, key: &Key256) -> Option<usize> {
        self.keys.binary_search(key).ok()
    }

    /// The true 20 closest nodes of the whole network.
    pub(crate) fn truth(&self, target: &Key256) -> Vec<Key256> {
        let mut all = self.keys.clone();
        all.sort_unstable_by_key(|key| key.distance(target));
        all.truncate(K);
        all
    }

    /// The workload's targets and start nodes.
    pub(crate) fn lookups(&self, count: usize) -> Vec<(Key256, usize)> {
        let mut random = SplitMix(99);
        (0..count).map(|_| (random.key(), random.below(self.keys.len()))).collect()
    }
}

/// For every common prefix length with the node's key, all nodes if there are at most 20, else 20 drawn at random.
fn view(keys: &[Key256], node: usize, random: &mut SplitMix) -> Vec<u32> {
    let own = keys[node];
    let (mut low, mut high) = (0, keys.len());
    let mut known = Vec::new();
    for cpl in 0..Key256::BITS {
        // Sorted keys that share `cpl` bits are adjacent; the next bit splits them.
        let middle = low + keys[low..high].partition_point(|key| !key.bit(cpl));
        let others = if own.bit(cpl) { low..middle } else { middle..high };
        (low, high) = if own.bit(cpl) { (middle, high) } else { (low, middle) };
        let mut others: Vec<_> = others.map(|index| index as u32).collect();
        let drawn = others.len().min(K);
        for place in 0..drawn {
            let with = place + random.below(others.len() - place);
            others.swap(place, with);
        }
        known.extend_from_slice(&others[..drawn]);
        if high - low <= 1 {
            break;
        }
    }
    known
}
