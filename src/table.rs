//! The routing table: k-buckets by common prefix length (Kademlia paper, sections 2.2 and 2.4).

use crate::error::{ConfigError, require};
use crate::family::{Family, Group};
use crate::key::Key;
use crate::outbox::Seeded;
use crate::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Limits of the routing table.
///
/// Memory: at most `bucket_size` nodes for each bit of a key, whatever is offered; a node costs its id and 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct TableConfig {
    /// k: how many nodes a bucket holds. 1 to 1,024. Default: 20.
    pub bucket_size: usize,
    /// How many nodes of one [`Group`] the table holds. At least 1. Default: 3.
    pub max_per_group: usize,
    /// How many nodes of one [`Group`] a bucket holds. At least 1. Default: 2.
    pub max_per_group_in_bucket: usize,
    /// How many failures in a row remove a node. One that has failed at all gives way to a new node that has not,
    /// if its bucket is full. 1 to 255. Default: 3.
    pub max_failures: usize,
    /// Seed of the hash of the table of groups, and of those that the [routing maintenance](crate::routing) keeps (candidates,
    /// nodes to probe, clients). It has no influence on what comes out; see
    /// [`NetworkConfig::hash_seed`](crate::NetworkConfig::hash_seed). Default: 0.
    pub hash_seed: u64,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { bucket_size: 20, max_per_group: 3, max_per_group_in_bucket: 2, max_failures: 3, hash_seed: 0 }
    }
}

impl TableConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.bucket_size), "table.bucket_size", "1 to 1,024")?;
        require(self.max_per_group > 0, "table.max_per_group", "at least 1")?;
        require(self.max_per_group_in_bucket > 0, "table.max_per_group_in_bucket", "at least 1")?;
        require((1..=255).contains(&self.max_failures), "table.max_failures", "1 to 255")
    }
}

/// What the table knows of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<F: Family> {
    node: F::Node,
    added: Instant,
    last_seen: Instant,
    /// Microseconds; `NONE` where unknown.
    round_trip: u32,
    failures: u8,
}

impl<F: Family> Record<F> {
    const NONE: u32 = u32::MAX;

    /// The node.
    pub const fn node(&self) -> &F::Node {
        &self.node
    }

    /// When it was admitted.
    pub const fn added(&self) -> Instant {
        self.added
    }

    /// When it last answered.
    pub const fn last_seen(&self) -> Instant {
        self.last_seen
    }

    /// How often it has failed since.
    pub fn failures(&self) -> u32 {
        u32::from(self.failures)
    }

    /// Its round-trip time, in whole microseconds, if one was measured: smoothed, each new one having a share of 1/8
    /// (RFC 6298).
    pub fn round_trip(&self) -> Option<Duration> {
        (self.round_trip != Self::NONE).then(|| Duration::from_micros(u64::from(self.round_trip)))
    }

    fn seen(&mut self, now: Instant, round_trip: Option<Duration>) {
        self.last_seen = now;
        self.failures = 0;
        if let Some(round_trip) = round_trip {
            let new = u32::try_from(round_trip.as_micros()).unwrap_or(Self::NONE - 1).min(Self::NONE - 1);
            let old = if self.round_trip == Self::NONE { new } else { self.round_trip };
            self.round_trip = old - old / 8 + new / 8;
        }
    }
}

/// What became of a node offered to the table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Offered<F: Family> {
    /// It was admitted.
    Admitted {
        /// The node that gave way, one that had failed.
        evicted: Option<F::Node>,
    },
    /// It was in the table; its record is refreshed.
    Refreshed,
    /// It was not admitted.
    Rejected(Rejection),
}

/// What is kept of a node when the program ends, and given back when it begins again: see
/// [`Coordinator::snapshot`](crate::Coordinator::snapshot). Plain data: how it is stored is the caller's affair.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct Saved<F: Family> {
    /// The node.
    pub node: F::Node,
    /// How long ago it last answered, when the snapshot was taken.
    pub age: Duration,
    /// See [`Record::round_trip`].
    pub round_trip: Option<Duration>,
}

/// Why a node was not admitted to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It has our own key.
    Local,
    /// The family does not [admit](Family::admits) it.
    Refused,
    /// Its bucket is full of nodes that have not failed.
    BucketFull,
    /// Another node with the same key is in the table and has not failed.
    KeyTaken,
    /// Its group has as many nodes in the table as it may.
    GroupInTable,
    /// Its group has as many nodes in the bucket as it may.
    GroupInBucket,
}

/// Known nodes by how many leading bits they share with our own key. Plain data: it wants no wake-up.
///
/// A full bucket keeps its old nodes as long as they live: those that have been up for long are the likeliest to
/// stay (paper, section 2.2).
#[derive(Clone, Debug)]
pub struct RoutingTable<F: Family> {
    local: F::Key,
    config: TableConfig,
    /// By common prefix length with `local`; only as many as are needed.
    buckets: Vec<Vec<Record<F>>>,
    /// How many nodes of each group are in the table. Never iterated.
    groups: HashMap<Group, usize, Seeded>,
    len: usize,
}

impl<F: Family> RoutingTable<F> {
    /// An empty table around the key `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: TableConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let groups = HashMap::with_hasher(Seeded(config.hash_seed));
        Ok(Self { local, config, buckets: Vec::new(), groups, len: 0 })
    }

    /// Our own key.
    pub const fn local(&self) -> F::Key {
        self.local
    }

    pub(crate) const fn hash_seed(&self) -> u64 {
        self.config.hash_seed
    }

    /// How many nodes there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no node.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Notes that a node lives, if it is in the table. Says whether it is.
    pub fn refresh(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> bool {
        let found = self.find(node);
        let record = found.and_then(|(cpl, place)| self.buckets.get_mut(cpl as usize)?.get_mut(place));
        record.map(|record| record.seen(now, round_trip)).is_some()
    }

    /// Offers a node that is known to live at `now`: it answered, after `round_trip` if that was measured. Limits
    /// count what is in the table, never what is merely offered.
    pub fn offer(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> Offered<F> {
        let cpl = self.local.common_prefix_len(&F::key(node));
        let gives_way = match self.place(cpl, node) {
            Place::Known(place) => {
                let bucket = self.buckets.get_mut(cpl as usize);
                if let Some(record) = bucket.and_then(|bucket| bucket.get_mut(place)) {
                    record.seen(now, round_trip);
                }
                return Offered::Refreshed;
            }
            Place::None(rejection) => return Offered::Rejected(rejection),
            Place::Free => None,
            Place::InsteadOf(place) => Some(place),
        };
        let evicted = gives_way.and_then(|place| self.take(cpl, place));
        let mut record = Record {
            node: node.clone(),
            added: now,
            last_seen: now,
            round_trip: Record::<F>::NONE,
            failures: 0,
        };
        record.seen(now, round_trip);
        if self.buckets.len() <= cpl as usize {
            self.buckets.resize_with(cpl as usize + 1, Vec::new);
        }
        if let Some(bucket) = self.buckets.get_mut(cpl as usize) {
            if bucket.len() == bucket.capacity() {
                // Doubles, but never beyond what a bucket may hold: tables are many in a simulation.
                let room = self.config.bucket_size.saturating_sub(bucket.len());
                bucket.reserve_exact(bucket.len().max(4).min(room));
            }
            bucket.push(record);
            self.len += 1;
            if let Some(group) = F::group(node) {
                *self.groups.entry(group).or_insert(0) += 1;
            }
        }
        Offered::Admitted { evicted }
    }

    /// Whether a node that is not in the table would be admitted if it were offered now.
    pub fn wants(&self, node: &F::Node) -> bool {
        let cpl = self.local.common_prefix_len(&F::key(node));
        matches!(self.place(cpl, node), Place::Free | Place::InsteadOf(_))
    }

    /// What has become of a node, which shares `cpl` bits with our own key, or would if it were offered.
    fn place(&self, cpl: u32, node: &F::Node) -> Place {
        if cpl == F::Key::BITS {
            return Place::None(Rejection::Local);
        }
        let bucket = self.bucket(cpl);
        let full = bucket.len() >= self.config.bucket_size;
        let key = F::key(node);
        let same = bucket.iter().position(|record| F::key(&record.node) == key);
        if let Some((place, record)) = same.and_then(|place| Some((place, bucket.get(place)?))) {
            if record.node == *node {
                return Place::Known(place);
            }
            if record.failures == 0 {
                return Place::None(Rejection::KeyTaken);
            }
        }
        let gives_way = same.or_else(|| {
            let worst = bucket.iter().enumerate().max_by_key(|(_, record)| record.failures);
            worst.filter(|(_, record)| full && record.failures > 0).map(|(place, _)| place)
        });
        if gives_way.is_none() && full {
            return Place::None(Rejection::BucketFull);
        }
        if !F::admits(node) {
            return Place::None(Rejection::Refused);
        }
        let leaving = gives_way.and_then(|place| bucket.get(place)).and_then(|record| F::group(&record.node));
        if let Some(group) = F::group(node) {
            let counts = |known: &&Record<F>| F::group(&known.node) == Some(group);
            let freed = usize::from(leaving == Some(group));
            if self.groups.get(&group).map_or(0, |count| count - freed) >= self.config.max_per_group {
                return Place::None(Rejection::GroupInTable);
            }
            if bucket.iter().filter(counts).count() - freed >= self.config.max_per_group_in_bucket {
                return Place::None(Rejection::GroupInBucket);
            }
        }
        gives_way.map_or(Place::Free, Place::InsteadOf)
    }

    /// The node was last seen as long ago as a snapshot says. Without effect where it is not in the table.
    pub(crate) fn backdate(&mut self, node: &F::Node, age: Duration) {
        let Some((cpl, place)) = self.find(node) else { return };
        if let Some(record) = self.buckets.get_mut(cpl as usize).and_then(|bucket| bucket.get_mut(place)) {
            record.last_seen = Instant::ORIGIN + (record.last_seen - (Instant::ORIGIN + age));
        }
    }

    /// Fills an empty bucket with nodes that share exactly `cpl` bits with our own key, name no group, have different
    /// keys and are no more than a bucket holds. Takes no more memory than they need: there are many tables in a
    /// simulation.
    #[cfg(feature = "sim")]
    pub(crate) fn fill(&mut self, now: Instant, cpl: u32, nodes: &[F::Node]) {
        if self.buckets.len() <= cpl as usize {
            self.buckets.resize_with(cpl as usize + 1, Vec::new);
        }
        if let Some(bucket) = self.buckets.get_mut(cpl as usize) {
            bucket.reserve_exact(nodes.len());
            bucket.extend(nodes.iter().map(|node| Record {
                node: node.clone(),
                added: now,
                last_seen: now,
                round_trip: Record::<F>::NONE,
                failures: 0,
            }));
            self.len += nodes.len();
        }
    }

    /// Gives back memory that the list of buckets does not need.
    #[cfg(feature = "sim")]
    pub(crate) fn shrink(&mut self) {
        self.buckets.shrink_to_fit();
    }

    /// Notes that a node ran into its own timeout or could not be reached. Says whether that removed it.
    #[must_use = "a removed node has left the table"]
    pub fn failed(&mut self, node: &F::Node) -> bool {
        let Some((cpl, place)) = self.find(node) else { return false };
        let bucket = self.buckets.get_mut(cpl as usize);
        let Some(record) = bucket.and_then(|bucket| bucket.get_mut(place)) else { return false };
        record.failures = record.failures.saturating_add(1);
        usize::from(record.failures) >= self.config.max_failures && self.take(cpl, place).is_some()
    }

    /// Takes a node out. Says whether it was in.
    pub fn remove(&mut self, node: &F::Node) -> bool {
        self.find(node).is_some_and(|(cpl, place)| self.take(cpl, place).is_some())
    }

    /// What is known of a node, if it is in the table.
    pub fn get(&self, node: &F::Node) -> Option<&Record<F>> {
        let (cpl, place) = self.find(node)?;
        self.buckets.get(cpl as usize)?.get(place)
    }

    /// The nodes that share exactly `cpl` bits with our own key, oldest first.
    pub fn bucket(&self, cpl: u32) -> &[Record<F>] {
        self.buckets.get(cpl as usize).map_or(&[], Vec::as_slice)
    }

    /// All nodes, by common prefix length.
    pub fn iter(&self) -> impl Iterator<Item = &Record<F>> {
        self.buckets.iter().flatten()
    }

    /// All nodes in order of distance to `target`, closest first. Take as many as are needed: the work is done by
    /// the bucket.
    pub fn closest(&self, target: F::Key) -> Closest<'_, F> {
        let home = self.local.common_prefix_len(&target);
        Closest { table: self, target, home, stage: Stage::Home, sorted: SmallVec::new(), next: 0 }
    }

    fn find(&self, node: &F::Node) -> Option<(u32, usize)> {
        let cpl = self.local.common_prefix_len(&F::key(node));
        let place = self.bucket(cpl).iter().position(|record| record.node == *node)?;
        Some((cpl, place))
    }

    fn take(&mut self, cpl: u32, place: usize) -> Option<F::Node> {
        let bucket = self.buckets.get_mut(cpl as usize).filter(|bucket| place < bucket.len())?;
        let node = bucket.remove(place).node;
        self.len -= 1;
        if let Some(group) = F::group(&node)
            && let Some(count) = self.groups.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
        Some(node)
    }
}

/// Nodes in order of distance; see [`RoutingTable::closest`].
///
/// Let c be the cpl of the target with our own key. Bucket c holds the nodes that share more than c bits with the
/// target: they come first. Those of the buckets beyond share exactly c, and which bucket is next is told by the
/// bits of the distance between us and the target: buckets where it is 1, from c on, are ever closer to the target
/// than we are; then those where it is 0, backwards. The buckets before c come last, nearest cpl first.
#[derive(Clone, Debug)]
pub struct Closest<'a, F: Family> {
    table: &'a RoutingTable<F>,
    target: F::Key,
    home: u32,
    stage: Stage,
    /// The bucket at hand: the start of each node's distance, and its place.
    sorted: SmallVec<[(u64, &'a Record<F>); 20]>,
    next: usize,
}

/// Where a node stands in its bucket, or would.
#[derive(Clone, Copy, Debug)]
enum Place {
    Known(usize),
    Free,
    InsteadOf(usize),
    None(Rejection),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Bucket c is next.
    Home,
    /// Buckets from this one up whose bit of the distance is 1.
    Up(u32),
    /// Buckets from below this one down to c + 1 whose bit is 0, and from c - 1 down.
    Down(u32),
}

impl<F: Family> Closest<'_, F> {
    fn next_bucket(&mut self) -> Option<u32> {
        #[allow(clippy::cast_possible_truncation)] // as many buckets as a key has bits
        let buckets = self.table.buckets.len() as u32;
        let differs = |cpl| self.target.bit(cpl) != self.table.local.bit(cpl);
        loop {
            match self.stage {
                Stage::Home => {
                    self.stage = Stage::Up(self.home + 1);
                    return Some(self.home);
                }
                Stage::Up(cpl) if cpl >= buckets => self.stage = Stage::Down(buckets.max(self.home)),
                Stage::Up(cpl) => {
                    self.stage = Stage::Up(cpl + 1);
                    if differs(cpl) {
                        return Some(cpl);
                    }
                }
                Stage::Down(0) => return None,
                Stage::Down(above) => {
                    let cpl = above - 1;
                    self.stage = Stage::Down(cpl);
                    if cpl < self.home || (cpl > self.home && !differs(cpl)) {
                        return Some(cpl);
                    }
                }
            }
        }
    }
}

impl<'a, F: Family> Iterator for Closest<'a, F> {
    type Item = &'a Record<F>;

    fn next(&mut self) -> Option<&'a Record<F>> {
        loop {
            if let Some((_, record)) = self.sorted.get(self.next) {
                self.next += 1;
                return Some(record);
            }
            let cpl = self.next_bucket()?;
            let target = self.target;
            let records = self.table.bucket(cpl).iter();
            self.sorted.clear();
            self.next = 0;
            self.sorted
                .extend(records.map(|record| (F::key(&record.node).distance(&target).leading(), record)));
            self.sorted.sort_unstable_by(|(a, left), (b, right)| {
                let full = |record: &Record<F>| F::key(&record.node).distance(&target);
                a.cmp(b).then_with(|| full(left).cmp(&full(right)))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key8, Key160};
    use proptest::prelude::*;

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

    /// Nodes that name a group and differ in address.
    #[derive(Clone, Debug, PartialEq)]
    struct Grouped;

    impl Family for Grouped {
        type Key = Key8;
        type Node = (u8, u8);
        type Message = ();

        fn key(node: &(u8, u8)) -> Key8 {
            Key8::new([node.0])
        }

        fn group(node: &(u8, u8)) -> Option<Group> {
            (node.1 != 0).then_some(Group(u64::from(node.1)))
        }
    }

    const NOW: Instant = Instant::from_nanos(7);

    fn table(config: TableConfig) -> RoutingTable<Tiny> {
        RoutingTable::new(Key8::new([0]), config).unwrap()
    }

    #[test]
    fn round_trips_are_smoothed() {
        let (mut table, node) = (table(TableConfig::default()), Key8::new([9]));
        let ms = Duration::from_millis;
        for (measured, smoothed) in
            [(None, None), (Some(80), Some(80)), (Some(160), Some(90)), (None, Some(90))]
        {
            let _: Offered<Tiny> = table.offer(NOW, &node, measured.map(ms));
            assert_eq!(table.get(&node).map(Record::round_trip), Some(smoothed.map(ms)));
        }
        let _: Offered<Tiny> = table.offer(NOW, &node, Some(Duration::MAX));
        assert!(table.get(&node).and_then(Record::round_trip) > Some(Duration::from_secs(500)));
    }

    #[test]
    fn every_8_bit_target_and_table() {
        for step in [1_u8, 3, 7, 50] {
            for local in [0, 0x5a, 0xff] {
                let mut table =
                    RoutingTable::<Tiny>::new(Key8::new([local]), TableConfig::default()).unwrap();
                for byte in (0..=u8::MAX).step_by(usize::from(step)) {
                    let _ = table.offer(NOW, &Key8::new([byte]), None);
                }
                for target in 0..=u8::MAX {
                    let target = Key8::new([target]);
                    let found: Vec<_> = table.closest(target).map(|record| *record.node()).collect();
                    let mut sorted: Vec<_> = table.iter().map(|record| *record.node()).collect();
                    sorted.sort_by_key(|node| node.distance(&target));
                    assert_eq!(found, sorted);
                    assert_eq!(found.len(), table.len());
                }
            }
        }
    }

    #[test]
    fn a_full_bucket_keeps_its_live_old_nodes() {
        let mut table = table(TableConfig { bucket_size: 2, ..TableConfig::default() });
        let node = |byte| Key8::new([byte]);
        for byte in [0x80, 0x81] {
            assert_eq!(table.offer(NOW, &node(byte), None), Offered::Admitted { evicted: None });
        }
        assert_eq!(table.offer(NOW, &node(0x82), None), Offered::Rejected(Rejection::BucketFull));
        assert!(!table.failed(&node(0x81)));
        assert_eq!(table.offer(NOW, &node(0x82), None), Offered::Admitted { evicted: Some(node(0x81)) });
        assert_eq!(table.len(), 2);
        assert_eq!(table.offer(NOW, &node(0), None), Offered::Rejected(Rejection::Local));
    }

    #[test]
    fn failures_in_a_row_remove_a_node_and_an_answer_forgives_them() {
        let mut table = table(TableConfig::default());
        let node = Key8::new([9]);
        let _ = table.offer(NOW, &node, Some(Duration::from_micros(1_500)));
        assert!(!table.failed(&node) && !table.failed(&node));
        assert_eq!(table.get(&node).map(Record::failures), Some(2));
        assert_eq!(table.offer(NOW + Duration::from_secs(1), &node, None), Offered::Refreshed);
        let record = table.get(&node).unwrap();
        assert_eq!((record.failures(), record.added()), (0, NOW));
        assert_eq!(record.last_seen(), NOW + Duration::from_secs(1));
        assert_eq!(record.round_trip(), Some(Duration::from_micros(1_500)));
        assert!(!table.failed(&node) && !table.failed(&node) && table.failed(&node));
        assert!(table.is_empty() && !table.failed(&node));
    }

    #[test]
    fn one_address_cannot_take_over_another_nodes_key() {
        let mut table = RoutingTable::<Grouped>::new(Key8::new([0]), TableConfig::default()).unwrap();
        let _ = table.offer(NOW, &(9, 1), None);
        assert_eq!(table.offer(NOW, &(9, 2), None), Offered::Rejected(Rejection::KeyTaken));
        assert!(!table.failed(&(9, 2)), "a failure at a bogus address is no failure of the node");
        assert_eq!(table.get(&(9, 1)).map(Record::failures), Some(0));
        let _ = table.failed(&(9, 1));
        assert_eq!(table.offer(NOW, &(9, 2), None), Offered::Admitted { evicted: Some((9, 1)) });
    }

    proptest! {
        #[test]
        fn limits_hold_whatever_is_offered(
            steps in proptest::collection::vec((any::<u8>(), 0..4_u8, 0..4_u8), 0..300),
            bucket_size in 1..6_usize,
        ) {
            let config = TableConfig { bucket_size, ..TableConfig::default() };
            let mut table = RoutingTable::<Grouped>::new(Key8::new([0]), config.clone()).unwrap();
            for (key, group, what) in steps {
                let before = table.len();
                match what {
                    0 => prop_assert_eq!(usize::from(table.failed(&(key, group))), before - table.len()),
                    1 => prop_assert_eq!(usize::from(table.remove(&(key, group))), before - table.len()),
                    _ => {
                        let offered = table.offer(NOW, &(key, group), None);
                        let grows = matches!(offered, Offered::Admitted { evicted: None });
                        prop_assert_eq!(table.len(), before + usize::from(grows));
                        prop_assert_eq!(matches!(offered, Offered::Rejected(_)), table.get(&(key, group)).is_none());
                    }
                }
                for group in 1..4_u8 {
                    let of = |records: &mut dyn Iterator<Item = &Record<Grouped>>| {
                        records.filter(|record| record.node().1 == group).count()
                    };
                    prop_assert!(of(&mut table.iter()) <= config.max_per_group);
                    for cpl in 0..8 {
                        prop_assert!(table.bucket(cpl).len() <= bucket_size);
                        prop_assert!(of(&mut table.bucket(cpl).iter()) <= config.max_per_group_in_bucket);
                    }
                }
                prop_assert_eq!(table.iter().count(), table.len());
            }
        }

        #[test]
        fn the_closest_come_first(local: [u8; 20], target: [u8; 20], near: u8, nodes: Vec<[u8; 20]>) {
            #[derive(Clone, Debug, PartialEq)]
            struct Wide;
            impl Family for Wide {
                type Key = Key160;
                type Node = Key160;
                type Message = ();
                fn key(node: &Key160) -> Key160 {
                    *node
                }
            }
            let local = Key160::new(local);
            let mut table = RoutingTable::<Wide>::new(local, TableConfig::default()).unwrap();
            for (i, mut node) in nodes.into_iter().enumerate() {
                // Random keys share few bits; let some share many.
                let shared = usize::from(near).wrapping_mul(i) % 21;
                node[..shared].copy_from_slice(&local.as_bytes()[..shared]);
                let _ = table.offer(NOW, &Key160::new(node), None);
            }
            for target in [Key160::new(target), local] {
                let found: Vec<_> = table.closest(target).map(|record| *record.node()).collect();
                let mut sorted: Vec<_> = table.iter().map(|record| *record.node()).collect();
                sorted.sort_by_key(|node| node.distance(&target));
                prop_assert_eq!(found, sorted);
            }
        }
    }
}
