//! [`Sweep`]: which nodes store which of many records, found by few lookups.
//!
//! To store n records one by one takes n lookups. If there are more records than nodes, most of these lookups
//! find nodes that others have found already. A [`Sweep`] asks for only as many lookups as it needs to know
//! the k closest nodes of *every* record's key. Then it allocates the records to nodes, so that each node is
//! sent one batch.
//!
//! The idea is that of go-libp2p-kad-dht (`provider`). There, a region is explored until it has no gap; here,
//! only until no record needs the nodes in a gap. So a record that is alone in its region takes one lookup,
//! however large the region is. If nodes are clustered, no lookup explores the empty space between the
//! clusters.
//!
//! # What an answer shows
//!
//! A lookup of `target` that returns the m closest nodes also shows that there is *no other* node closer to the
//! target than the farthest of them. The keys to which this applies form subtrees: at each bit where the farthest
//! node differs from the target, the subtree that branches off there. These subtrees are [covered](Coverage). To
//! settle a key, walk the covered parts in order of distance to it up to the first gap: if they hold k nodes,
//! these are the k closest of the whole network, and the key is *settled*. Otherwise the key in the gap that is
//! nearest to it is the next target to look up.

use crate::broadcast::regions::{Coverage, Prefix};
use crate::lookups::region::Region;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::nearest::nearest;
use std::collections::BTreeSet;

pub use crate::broadcast::allocation::{NodeAllocation, NodeAllocations};

#[cfg(test)]
mod tests;

/// Parameters of a sweep.
///
/// Memory of a sweep: its keys; at most `max_lookups` × `results` node ids; at the very most a [`Prefix`] for each
/// bit of a key and each lookup, in a network of random keys some 4 for each lookup. The allocation of records to
/// nodes takes 16 bytes for each of the k nodes of each key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct SweepConfig {
    /// k: how many nodes each record is stored with. 1 to 1,024. Default: 20.
    pub k: usize,
    /// How many closest nodes each lookup returns: with twice as many, half as many lookups are needed. More than
    /// `k`, at most 8,192, and no more than the lookups can return:
    /// [`QueryConfig::max_candidates`](crate::QueryConfig::max_candidates). Default: 40.
    pub results: usize,
    /// How many lookups there may be. At least 1. Default: 64.
    pub max_lookups: usize,
    /// After this many consecutive lookups that return fewer than `results` nodes, none of them new, the sweep
    /// ends: the network is that small, or does not answer. At least 1. Default: 2.
    pub max_without_news: usize,
    /// The most nodes that one answer names: see [`Family::answers`]. A lookup covers the key space as far as this
    /// many of its nodes reach; what lies beyond was named by chance. At least 1. In a broadcast it is what the family
    /// says or, if its lookups [probe the edge](crate::QueryConfig::edge_probing) beyond that, `results`; whatever stands
    /// here. Default: 20.
    pub answer_size: usize,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self { k: 20, results: 40, answer_size: 20, max_lookups: 64, max_without_news: 2 }
    }
}

impl SweepConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.k), "sweep.k", "1 to 1,024")?;
        let results = self.k + 1..=8_192;
        require(results.contains(&self.results), "sweep.results", "sweep.k + 1 to 8,192")?;
        require(self.answer_size > 0, "sweep.answer_size", "at least 1")?;
        require(self.max_lookups > 0, "sweep.max_lookups", "at least 1")?;
        require(self.max_without_news > 0, "sweep.max_without_news", "at least 1")
    }

    /// The prefix length, in bits, of regions that suit a network of `nodes` nodes: a sweep of the records of one
    /// such region, however many they are, takes about a quarter of `max_lookups`.
    #[must_use]
    pub fn region_bits(&self, nodes: u64) -> u32 {
        let wanted = self.results.saturating_mul(self.max_lookups.div_ceil(4));
        let regions = nodes.div_ceil(u64::try_from(wanted).unwrap_or(u64::MAX).max(1));
        regions.checked_next_power_of_two().map_or(64, u64::trailing_zeros)
    }
}

/// What a sweep needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SweepStep<K> {
    /// Look up the nodes closest to this key, as many as [`SweepConfig::results`], and pass them to
    /// [`Sweep::found`].
    LookUp(K),
    /// Lookups are running, and the next step depends on their results.
    Wait,
    /// No more lookups are needed, and none is running. Call [`Sweep::into_allocations`] next.
    Done(SweepEnd),
}

/// Why a sweep makes no more lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum SweepEnd {
    /// The k closest nodes of each key are known.
    Settled,
    /// `max_without_news` consecutive lookups found nothing new. In a network of fewer nodes than a lookup is to
    /// return, sweeps end this way, and all nodes are known.
    NothingNew,
    /// There were `max_lookups` of them. Some keys are not settled: their records go to the closest nodes known.
    LookupLimit,
}

/// Finds the nodes to store many records with. It runs no lookups itself: it returns the targets to look up.
///
/// ```
/// use kad_proto::broadcast::sweep::{Sweep, SweepConfig, SweepEnd, SweepStep};
/// use kad_proto::{Family, Key, Key8};
///
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// let network: Vec<_> = (0..=255).map(|byte| Key8::new([byte])).collect();
/// let records = (0..50).map(|byte| Key8::new([byte]));
///
/// let config = SweepConfig { k: 4, results: 16, ..SweepConfig::default() };
/// let mut sweep = Sweep::<Tiny>::new(config, records)?;
/// let mut lookups = 0;
/// let end = loop {
///     match sweep.advance() {
///         SweepStep::LookUp(target) => {
///             let mut closest = network.clone();
///             closest.sort_by_key(|node| node.distance(&target));
///             sweep.found(&target, closest.into_iter().take(16));
///             lookups += 1;
///         }
///         SweepStep::Wait => unreachable!("no lookup is running"),
///         SweepStep::Done(end) => break end,
///     }
/// };
/// assert_eq!((end, lookups), (SweepEnd::Settled, 7));
/// for allocation in sweep.into_allocations() {
///     println!("{} stores {:?}", allocation.node, allocation.keys);
/// }
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sweep<F: Family> {
    config: SweepConfig,
    /// In order, without duplicates.
    keys: Vec<F::Key>,
    /// How many of `keys`, from the first on, are settled.
    settled: usize,
    /// In order of their keys, which all differ.
    nodes: Vec<F::Node>,
    /// The parts of the key space of which all nodes are known.
    coverage: Coverage<F::Key>,
    /// The running lookups.
    pending: Vec<Pending<F::Key>>,
    /// Keys that were looked up themselves and count as settled, whatever the coverage: the answers told their k
    /// closest nodes, or no target in the gap next to them is known. In order.
    looked_up: Vec<F::Key>,
    /// The length of the prefix that the last lookup covered around its target, which is what to expect of the
    /// next. `None` before the first has found a node.
    covered_bits: Option<u32>,
    lookups: usize,
    /// Consecutive lookups that found nothing new.
    without_news: usize,
    /// The region of each key, whose nodes store it besides the k closest.
    region: Option<Region>,
}

impl<F: Family> Sweep<F> {
    /// A sweep for records with these keys, in any order; a key given twice counts once.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(config: SweepConfig, keys: impl IntoIterator<Item = F::Key>) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::of(config, keys))
    }

    /// Like [`new`](Self::new), with a configuration that has been validated.
    pub(crate) fn of(config: SweepConfig, keys: impl IntoIterator<Item = F::Key>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self {
            config,
            keys,
            settled: 0,
            nodes: Vec::new(),
            coverage: Coverage::new(),
            pending: Vec::new(),
            looked_up: Vec::new(),
            covered_bits: None,
            lookups: 0,
            without_news: 0,
            region: None,
        }
    }

    /// The same, where each key is allocated to all nodes found in its region, too.
    pub(crate) fn in_regions(self, region: Option<Region>) -> Self {
        Self { region, ..self }
    }

    /// The next step. Each call that returns [`SweepStep::LookUp`] begins a lookup: call it once to run one at a
    /// time, or repeatedly for as many as should run at once. Targets of lookups that run at once are chosen so
    /// that they are unlikely to find the same nodes.
    pub fn advance(&mut self) -> SweepStep<F::Key> {
        let end = match self.next_target() {
            NextTarget::AllSettled => SweepEnd::Settled,
            _ if self.without_news >= self.config.max_without_news => SweepEnd::NothingNew,
            _ if self.lookups >= self.config.max_lookups => SweepEnd::LookupLimit,
            NextTarget::AllPending => return SweepStep::Wait,
            NextTarget::LookUp(lookup) => {
                self.pending.push(lookup);
                self.lookups += 1;
                return SweepStep::LookUp(lookup.point);
            }
        };
        if self.pending.is_empty() { SweepStep::Done(end) } else { SweepStep::Wait }
    }

    /// Receives the result of a lookup of `target`: the closest nodes, closest first, of which the first
    /// [`results`](SweepConfig::results) are used. The result of a lookup that was cut short counts too. Returns
    /// whether such a lookup was running; if not, nothing changes.
    pub fn found(&mut self, target: &F::Key, closest: impl IntoIterator<Item = F::Node>) -> bool {
        self.found_near(target, target, closest)
    }

    /// Like [`found`](Self::found), where another key was looked up instead of the `target` that was asked for: one
    /// in the same [gap](Self::gap_bits), or the [key](Self::wanted_for) that wants the lookup. For wire formats in
    /// which one cannot ask for any point: see [`Family::target_near`].
    pub fn found_near(
        &mut self,
        target: &F::Key,
        looked_up: &F::Key,
        closest: impl IntoIterator<Item = F::Node>,
    ) -> bool {
        let Some(index) = self.pending.iter().position(|pending| pending.point == *target) else {
            return false;
        };
        let key = self.pending.remove(index).key;
        let known = self.nodes.len();
        self.nodes.extend(closest.into_iter().take(self.config.results));
        let named = self.nodes.len() - known;
        let told = self.nodes.iter().skip(known).take(self.config.answer_size).map(F::key);
        let tells_all = told.collect::<BTreeSet<_>>().len() >= self.config.k;
        if *looked_up == key && (tells_all || looked_up != target) {
            let at = self.looked_up.partition_point(|known| *known < key);
            self.looked_up.insert(at, key);
        }
        self.cover(looked_up, known);
        // Of two nodes with the same key, the one known first stays. The sort merges two sorted runs in O(n).
        self.nodes.sort_by_key(F::key);
        self.nodes.dedup_by_key(|node| F::key(node));
        let has_news = named == self.config.results || self.nodes.len() > known;
        self.without_news = if has_news { 0 } else { self.without_news + 1 };
        true
    }

    /// How many leading bits a key must share with this target of a running lookup to lie in the same gap of the
    /// coverage.
    pub fn gap_bits(&self, target: &F::Key) -> u32 {
        self.coverage.gaps(Prefix::WHOLE, *target).next().map_or(F::Key::BITS, |gap| gap.bits())
    }

    /// The key of a record for which this target of a running lookup is looked up.
    pub fn wanted_for(&self, target: &F::Key) -> Option<F::Key> {
        self.pending.iter().find(|pending| pending.point == *target).map(|pending| pending.key)
    }

    /// The nodes found so far, nearest to `target` first: good seeds for its lookup.
    pub fn nodes(&self, target: &F::Key) -> impl Iterator<Item = &F::Node> {
        nearest(&self.nodes, F::key, *target).filter_map(|index| self.nodes.get(index))
    }

    /// All nodes found so far, in order of their keys.
    pub(crate) fn all_nodes(&self) -> &[F::Node] {
        &self.nodes
    }

    /// How many lookups have begun.
    pub const fn lookups(&self) -> usize {
        self.lookups
    }

    /// Whether the k closest nodes of this key are known.
    pub fn is_settled(&self, key: &F::Key) -> bool {
        self.unsettled_target(key).is_none()
    }

    /// Allocates each key to the k closest of the nodes found. Yields one [`NodeAllocation`] for each node that
    /// has any key, in order of the nodes' keys. It may be called before the sweep is done, if time runs out.
    /// If no node was found, there are no allocations.
    pub fn into_allocations(self) -> NodeAllocations<F> {
        let mut pairs = Vec::with_capacity(self.keys.len() * self.config.k.min(self.nodes.len()));
        for (key, of) in self.keys.iter().enumerate() {
            let (reach, most) = self.region.map_or((0, self.config.k), |region| region.width());
            let distance = |index: &usize| {
                self.nodes.get(*index).map_or(u64::MAX, |node| F::key(node).distance(of).leading())
            };
            let closest = nearest(&self.nodes, F::key, *of).take(most.max(self.config.k)).enumerate();
            let closest =
                closest.take_while(|(rank, index)| *rank < self.config.k || distance(index) <= reach);
            pairs.extend(closest.map(|(_, node)| (node, key)));
        }
        pairs.sort_unstable();
        NodeAllocations::new(self.nodes, self.keys, pairs)
    }

    /// Like [`into_allocations`](Self::into_allocations), leaving an empty sweep in place.
    pub(crate) fn allocations(&mut self) -> NodeAllocations<F> {
        let empty = Self::of(self.config.clone(), []);
        core::mem::replace(self, empty).into_allocations()
    }

    /// The target of the first key that is not settled and that no running lookup is likely to settle.
    fn next_target(&mut self) -> NextTarget<F::Key> {
        let mut next = NextTarget::AllSettled;
        let mut at = self.settled;
        while let Some(key) = self.keys.get(at).copied() {
            let Some(target) = self.unsettled_target(&key) else {
                // A covered part with k nodes settles all keys in it.
                let part = self.coverage.part_covering(&Prefix::new(key, F::Key::BITS));
                let part = part.filter(|part| self.count_nodes(part) >= self.config.k);
                at = part.map_or(at + 1, |part| self.keys_end(at, &part));
                if matches!(next, NextTarget::AllSettled) {
                    self.settled = at;
                }
                continue;
            };
            let Some(bits) = self.covered_bits.or(self.pending.is_empty().then_some(F::Key::BITS)) else {
                return NextTarget::AllPending;
            };
            if !self.pending.iter().any(|pending| pending.point.common_prefix_len(&target) >= bits) {
                return NextTarget::LookUp(Pending { point: target, key });
            }
            next = NextTarget::AllPending;
            at = self.keys_end(at, &Prefix::new(key, bits));
        }
        next
    }

    /// The target whose lookup is needed to settle this key; `None` if it is settled.
    fn unsettled_target(&self, key: &F::Key) -> Option<F::Key> {
        if self.looked_up.binary_search(key).is_ok() {
            return None;
        }
        let target = self.coverage.gaps(Prefix::WHOLE, *key).next()?.nearest_to(key);
        let last = self.nodes(key).nth(self.config.k - 1);
        let settled = last.is_some_and(|node| F::key(node).distance(key) < target.distance(key));
        (!settled).then_some(target)
    }

    /// Covers the parts of the key space that a lookup of `target` has shown completely. Its nodes are those from
    /// index `from` on.
    fn cover(&mut self, target: &F::Key, from: usize) {
        // What is farther than an answer can tell was found by chance.
        let named = || self.nodes.iter().skip(from).take(self.config.answer_size).map(F::key);
        let Some(farthest) = named().max_by_key(|key| key.distance(target)) else { return };
        let shared = farthest.common_prefix_len(target);
        if farthest == *target {
            self.coverage.insert(Prefix::new(farthest, shared));
        }
        // Beyond the last bit that the farthest shares with another node, its subtree holds no node but itself.
        let others = named().filter(|key| *key != farthest);
        let last = others.map(|key| key.common_prefix_len(&farthest)).max().unwrap_or(0).max(shared);
        for bit in (shared..=last).filter(|bit| target.bit(*bit) != farthest.bit(*bit)) {
            self.coverage.insert(Prefix::new(farthest.with_flipped(bit), bit + 1));
        }
        self.covered_bits = Some(F::Key::BITS.min(shared + 1));
    }

    fn count_nodes(&self, part: &Prefix<F::Key>) -> usize {
        let from = self.nodes.partition_point(|node| F::key(node) < part.first());
        self.nodes.get(from..).unwrap_or(&[]).partition_point(|node| part.contains(&F::key(node)))
    }

    /// The index after the last key of `part`, which holds the key at index `at`.
    fn keys_end(&self, at: usize, part: &Prefix<F::Key>) -> usize {
        at + self.keys.get(at..).unwrap_or(&[]).partition_point(|key| part.contains(key))
    }
}

/// Which lookup the keys need next.
enum NextTarget<K> {
    /// None: all keys are settled.
    AllSettled,
    /// None for now: running lookups are likely to settle all keys that are left.
    AllPending,
    LookUp(Pending<K>),
}

/// A lookup that runs.
#[derive(Clone, Copy, Debug)]
struct Pending<K> {
    /// Its target.
    point: K,
    /// The key that wants it.
    key: K,
}
