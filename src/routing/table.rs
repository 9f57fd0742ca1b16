//! [`RoutingTable`]: k-buckets by common prefix length (Kademlia paper, sections 2.2 and 2.4).

use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::config_error::{ConfigError, require};
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::family::{Family, Group};
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::secret::{Secret, Seeds};
use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Limits of the routing table.
///
/// Memory: at most `bucket_size` nodes for each bit of a key, and as many again in the buckets of the own
/// neighbourhood, whatever is offered; a node costs its id and 20 bytes, rounded up to the alignment. The replacement cache beside it
/// holds at most four nodes for each bucket: see [`RoutingConfig`](crate::RoutingConfig).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct TableConfig {
    /// k: the maximum number of nodes in a bucket. Of the own neighbourhood all are kept: a node that is one of the
    /// `bucket_size` nearest to the own key of all that the table knows is admitted to a full bucket, too, up to twice this
    /// number. (The Kademlia paper, section 2.4, has it that way: a node must know its neighbourhood completely.) 1 to
    /// 1,024. Default: 20.
    pub bucket_size: usize,
    /// The maximum number of nodes of one [`Group`] in the table. At least 1. Default: 3.
    pub max_per_group: usize,
    /// The maximum number of nodes of one [`Group`] in a bucket. At least 1. Default: 2.
    pub max_per_group_in_bucket: usize,
    /// The number of failures in a row that removes a node; a node that was [restored](crate::RoutingInbound::Restore)
    /// and has not been heard from since leaves after two at most. 1 to 127. Default: 4: with probes that are
    /// [repeated](crate::ProbeConfig::retry_interval) after 10 s, a node has to be silent for 30 s.
    pub max_failures: usize,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { bucket_size: 20, max_per_group: 3, max_per_group_in_bucket: 2, max_failures: 4 }
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
        require((1..=127).contains(&self.max_failures), "table.max_failures", "1 to 127")
    }
}

/// What the table knows of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct TableEntry<F: Family> {
    node: F::Node,
    added: Instant,
    /// When it was last heard from. Of a node that is not verified: `added` less its age when it was restored, wrapping
    /// around zero, as that may be before the origin of time.
    last_seen: Instant,
    round_trip: RoundTrip,
    marks: Marks,
}

/// How many failures in a row a node had, in the low seven bits; and whether it has not been heard from since it was
/// restored, in the highest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Marks(u8);

impl Marks {
    const UNVERIFIED: u8 = 0x80;

    const fn failures(self) -> u8 {
        self.0 & !Self::UNVERIFIED
    }

    const fn is_verified(self) -> bool {
        self.0 & Self::UNVERIFIED == 0
    }

    /// One more failure.
    fn failed(self) -> Self {
        if self.failures() < Self::UNVERIFIED - 1 { Self(self.0 + 1) } else { self } // at most 127
    }
}

/// How many failures in a row remove a node that is not verified.
const MAX_FAILURES_UNVERIFIED: usize = 2;

/// A round-trip time in microseconds, or none. In three bytes, so that with the failures it takes four: tables of a
/// simulation are most of its memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RoundTrip([u8; 3]);

impl RoundTrip {
    const UNKNOWN: Self = Self([0xff; 3]);
    /// The longest: 16.8 s.
    const MAX: u32 = 0x00ff_fffe;

    fn micros(self) -> Option<u32> {
        let Self([low, middle, high]) = self;
        (self != Self::UNKNOWN).then(|| u32::from_le_bytes([low, middle, high, 0]))
    }

    /// The average of what was measured, the new value with a weight of 1/8.
    fn smoothed(self, measured: Duration) -> Self {
        let new = u32::try_from(measured.as_micros()).unwrap_or(Self::MAX).min(Self::MAX);
        let old = self.micros().unwrap_or(new);
        let [low, middle, high, _] = (old - old / 8 + new / 8).to_le_bytes();
        Self([low, middle, high])
    }
}

impl<F: Family> TableEntry<F> {
    /// The entry of a node that is known to be live at `now`.
    const fn new(node: F::Node, now: Instant) -> Self {
        Self { node, added: now, last_seen: now, round_trip: RoundTrip::UNKNOWN, marks: Marks(0) }
    }

    /// The node.
    pub const fn node(&self) -> &F::Node {
        &self.node
    }

    /// When it was admitted.
    pub const fn added(&self) -> Instant {
        self.added
    }

    /// When it was last known to be live; the origin of time, if that was before it.
    pub fn last_seen(&self) -> Instant {
        if self.is_verified() {
            self.last_seen
        } else {
            Instant::ORIGIN + (self.added - (Instant::ORIGIN + self.restored_age()))
        }
    }

    /// How long ago it was last known to be live.
    pub fn age(&self, now: Instant) -> Duration {
        if self.is_verified() {
            now - self.last_seen
        } else {
            self.restored_age().saturating_add(now - self.added)
        }
    }

    /// Of a node that is not verified: its age when it was restored.
    const fn restored_age(&self) -> Duration {
        Duration::from_nanos(self.added.as_nanos().wrapping_sub(self.last_seen.as_nanos()))
    }

    /// Whether it has been heard from since it entered the table. Only a node that was
    /// [restored](crate::RoutingInbound::Restore) may not have been.
    pub const fn is_verified(&self) -> bool {
        self.marks.is_verified()
    }

    /// The number of failures since then.
    pub fn failures(&self) -> u32 {
        u32::from(self.marks.failures())
    }

    /// Its round-trip time, in whole microseconds, if one was measured: smoothed, each new measurement with a
    /// weight of 1/8 (RFC 6298). At most 16.8 s (2^24 - 2 microseconds): a longer measurement counts as that.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.micros().map(|micros| Duration::from_micros(u64::from(micros)))
    }

    fn mark_seen(&mut self, now: Instant, round_trip: Option<Duration>) {
        self.last_seen = now;
        self.marks = Marks(0);
        if let Some(round_trip) = round_trip {
            self.round_trip = self.round_trip.smoothed(round_trip);
        }
    }
}

/// The result of an [offer](RoutingTable::offer) to the table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Offered {
    /// It was admitted.
    Admitted,
    /// It was in the table already; its entry is refreshed.
    Refreshed,
    /// It was not admitted.
    Rejected(Rejection),
}

/// One node of a snapshot, which is stored when the program ends and restored when it starts again: see
/// [`Coordinator::snapshot`](crate::Coordinator::snapshot). Plain data: the caller decides how it is stored.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct SavedNode<F: Family> {
    /// The node.
    pub node: F::Node,
    /// How long ago it last answered, when the snapshot was taken. [`NEVER`](Self::NEVER) or more: it is a seed that is not in
    /// the table, to come back to.
    pub age: Duration,
    /// See [`TableEntry::round_trip`].
    pub round_trip: Option<Duration>,
}

impl<F: Family> SavedNode<F> {
    /// The age of a seed that is not in the table: 2^33 s, 272 years, so that it stays one in whole seconds, and with what is
    /// added to it.
    pub const NEVER: Duration = Duration::from_secs(1 << 33);
}

/// Why a node was not admitted to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It has the node's own key.
    Local,
    /// The family does not [admit](Family::admits) it.
    Refused,
    /// Its bucket is full, and it is not one of the nearest to the own key. A node of the bucket that has failed keeps its place until
    /// [as many failures](TableConfig::max_failures) have removed it: a lost message is no reason to lose a node.
    BucketFull,
    /// Another node with the same key is in the table. It stays until its own failures remove it.
    KeyTaken,
    /// Its group has as many nodes in the table as it may.
    GroupInTable,
    /// Its group has as many nodes in the bucket as it may.
    GroupInBucket,
}

/// Known nodes, in buckets by the number of leading bits that they share with the node's own key (the cpl).
/// Plain data: it has no timer.
///
/// A full bucket keeps its old nodes as long as they are live: those that have been up for long are the
/// likeliest to stay (paper, section 2.2).
#[derive(Clone, Debug)]
pub struct RoutingTable<F: Family> {
    local: LocalNode<F>,
    config: TableConfig,
    /// By common prefix length with the own key; only as many as are needed. Each bucket is in order of admission,
    /// oldest first.
    buckets: Vec<Vec<TableEntry<F>>>,
    /// How many nodes of each group are in the table. Never iterated.
    groups: HashMap<Group, usize, SeededHash>,
    len: usize,
    /// How many of the nodes are not [verified](TableEntry::is_verified).
    unverified: usize,
    /// A lookup of the own key has found the closest nodes: what is near the own key is known, and how dense it is.
    knows_neighbourhood: bool,
}

impl<F: Family> RoutingTable<F> {
    /// An empty table of the node whose own id is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Target, config: TableConfig, secret: &Secret) -> Result<Self, ConfigError> {
        Self::with_seeds(local, config, &secret.seeds())
    }

    pub(crate) fn with_seeds(
        local: F::Target,
        config: TableConfig,
        seeds: &Seeds,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let groups = HashMap::with_hasher(SeededHash(seeds.hash));
        Ok(Self {
            local: LocalNode::new(local),
            config,
            buckets: Vec::new(),
            groups,
            len: 0,
            unverified: 0,
            knows_neighbourhood: false,
        })
    }

    /// The node's own key.
    pub const fn local(&self) -> F::Key {
        *self.local.key()
    }

    /// How many leading bits the key of a node shares with the own key: the number of its bucket.
    pub(crate) fn cpl(&self, node: &F::Node) -> u32 {
        self.local.key().common_prefix_len(&F::key(node))
    }

    /// A lookup of the own key has found the closest nodes.
    pub(crate) const fn neighbourhood_found(&mut self) {
        self.knows_neighbourhood = true;
    }

    /// Whether the nodes near the own key were looked for, and found: before that, their density says nothing of the network.
    pub(crate) const fn knows_neighbourhood(&self) -> bool {
        self.knows_neighbourhood
    }

    /// How many nodes a bucket holds at most.
    pub(crate) const fn bucket_size(&self) -> usize {
        self.config.bucket_size
    }

    /// The node that the table belongs to.
    pub(crate) const fn local_node(&self) -> &LocalNode<F> {
        &self.local
    }

    /// The same table, with this [value of its family](Family#the-value-of-a-family) instead of the default. Nodes that
    /// it does not admit leave it.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        for node in self.set_family(family) {
            self.remove(&node);
        }
        self
    }

    /// The number of nodes in the table.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the table contains no node.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Marks a node as live if it is in the table: its failures are forgotten. Returns whether it is in the
    /// table.
    pub fn refresh(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> bool {
        let found = self.find(node);
        found.is_some_and(|(cpl, index)| self.mark_seen(cpl, index, now, round_trip))
    }

    /// Marks the node at this place as live. Returns whether there is one.
    fn mark_seen(&mut self, cpl: u32, index: usize, now: Instant, round_trip: Option<Duration>) -> bool {
        let entry = self.buckets.get_mut(cpl as usize).and_then(|bucket| bucket.get_mut(index));
        let Some(entry) = entry else { return false };
        self.unverified -= usize::from(!entry.is_verified());
        entry.mark_seen(now, round_trip);
        true
    }

    /// Offers a node that is known to be live at `now`: it answered, after `round_trip` if that was measured.
    /// The limits count the nodes in the table, never those that were merely offered.
    pub fn offer(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> Offered {
        let cpl = self.cpl(node);
        match self.placement(cpl, node) {
            Placement::Present(index) => {
                self.mark_seen(cpl, index, now, round_trip);
                Offered::Refreshed
            }
            Placement::Rejected(rejection) => Offered::Rejected(rejection),
            Placement::Free => {
                let mut entry = TableEntry::new(node.clone(), now);
                entry.mark_seen(now, round_trip);
                self.push(cpl, entry);
                Offered::Admitted
            }
        }
    }

    /// Adds an entry to its bucket, which has room for it.
    fn push(&mut self, cpl: u32, entry: TableEntry<F>) {
        if self.buckets.len() <= cpl as usize {
            self.buckets.resize_with(cpl as usize + 1, Vec::new);
        }
        if let Some(bucket) = self.buckets.get_mut(cpl as usize) {
            if bucket.len() == bucket.capacity() {
                // Doubles, but not beyond `bucket_size`, and grows slowly then: a simulation has many tables.
                let room = self.config.bucket_size.saturating_sub(bucket.len());
                let more = if room > 0 { bucket.len().max(4).min(room) } else { 4 };
                bucket.reserve_exact(more);
            }
            let group = F::group(&entry.node);
            self.unverified += usize::from(!entry.is_verified());
            bucket.push(entry);
            self.len += 1;
            if let Some(group) = group {
                *self.groups.entry(group).or_insert(0) += 1;
            }
        }
    }

    /// A node of this group has left the table, or the group.
    fn leave_group(groups: &mut HashMap<Group, usize, SeededHash>, group: Option<Group>) {
        if let Some(group) = group
            && let Some(count) = groups.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                groups.remove(&group);
            }
        }
    }

    /// Whether a node that is not in the table would be admitted if it were offered now.
    pub fn would_admit(&self, node: &F::Node) -> bool {
        let key = F::key(node);
        let cpl = self.local.key().common_prefix_len(&key);
        // Most buckets are full: whether the node is in one need not be found out.
        (self.bucket(cpl).len() < self.config.bucket_size || self.has_room(cpl, &key))
            && matches!(self.placement(cpl, node), Placement::Free)
    }

    /// Whether a node may be asked and admitted at all: it has not the own key, and the family admits it.
    pub(crate) fn accepts(&self, node: &F::Node) -> bool {
        F::key(node) != self.local() && self.local.family.admits(node)
    }

    /// Where a node is in its bucket, the one of `cpl`, or where it would be if it were offered.
    fn placement(&self, cpl: u32, node: &F::Node) -> Placement {
        if cpl == F::Key::BITS {
            return Placement::Rejected(Rejection::Local);
        }
        let bucket = self.bucket(cpl);
        let key = F::key(node);
        if let Some((index, entry)) = bucket.iter().enumerate().find(|(_, entry)| F::key(&entry.node) == key)
        {
            return if entry.node == *node {
                Placement::Present(index)
            } else {
                Placement::Rejected(Rejection::KeyTaken)
            };
        }
        if !self.has_room(cpl, &key) {
            return Placement::Rejected(Rejection::BucketFull);
        }
        if !self.local.family.admits(node) {
            return Placement::Rejected(Rejection::Refused);
        }
        if let Some(group) = F::group(node) {
            let in_group = |known: &&TableEntry<F>| F::group(&known.node) == Some(group);
            if self.groups.get(&group).copied().unwrap_or(0) >= self.config.max_per_group {
                return Placement::Rejected(Rejection::GroupInTable);
            }
            if bucket.iter().filter(in_group).count() >= self.config.max_per_group_in_bucket {
                return Placement::Rejected(Rejection::GroupInBucket);
            }
        }
        Placement::Free
    }

    /// Whether the bucket of `cpl` has room for one more node, with this key. If it is full, it has room for those of the own
    /// neighbourhood.
    fn has_room(&self, cpl: u32, key: &F::Key) -> bool {
        let (bucket, size) = (self.bucket(cpl), self.config.bucket_size);
        if bucket.len() < size || bucket.len() >= 2 * size {
            return bucket.len() < size;
        }
        let mut nearer = 0;
        for bucket in self.buckets.iter().skip(cpl as usize + 1) {
            nearer += bucket.len();
            if nearer >= size {
                return false;
            }
        }
        let distance = key.distance(self.local.key());
        let is_nearer = |entry: &&TableEntry<F>| F::key(&entry.node).distance(self.local.key()) < distance;
        nearer + bucket.iter().filter(is_nearer).count() < size
    }

    /// The other node that holds the key of this one.
    pub(crate) fn key_holder(&self, node: &F::Node) -> Option<&TableEntry<F>> {
        let key = F::key(node);
        let bucket = self.bucket(self.local().common_prefix_len(&key)).iter();
        bucket.filter(|entry| F::key(&entry.node) == key).find(|entry| entry.node != *node)
    }

    /// Takes over what is known of a node that is in the table.
    pub(crate) fn replace(&mut self, node: &F::Node) {
        let Some((cpl, index)) = self.find(node) else { return };
        let bucket = self.buckets.get_mut(cpl as usize);
        let Some(entry) = bucket.and_then(|bucket| bucket.get_mut(index)) else { return };
        let (before, after) = (F::group(&entry.node), F::group(node));
        entry.node.clone_from(node);
        if before != after {
            Self::leave_group(&mut self.groups, before);
            if let Some(group) = after {
                *self.groups.entry(group).or_insert(0) += 1;
            }
        }
    }

    /// Whether the group of a node has more nodes in the table, or in its bucket, than it may.
    pub(crate) fn exceeds_group_limits(&self, node: &F::Node) -> bool {
        let Some(group) = F::group(node) else { return false };
        let bucket = self.bucket(self.cpl(node));
        let in_bucket = bucket.iter().filter(|entry| F::group(&entry.node) == Some(group)).count();
        in_bucket > self.config.max_per_group_in_bucket
            || self.groups.get(&group).is_some_and(|count| *count > self.config.max_per_group)
    }

    /// Sets the value of the family. Returns the nodes that it does not admit.
    pub(crate) fn set_family(&mut self, family: F) -> Vec<F::Node> {
        self.local.family = family;
        let nodes = self.iter().map(TableEntry::node);
        nodes.filter(|node| !self.local.family.admits(node)).cloned().collect()
    }

    /// Sorts the nodes anew around another id, oldest first. Returns those for which there is no room.
    pub(crate) fn rekey(&mut self, target: F::Target) -> Vec<F::Node> {
        self.local.set_target(target);
        let mut entries: Vec<_> = core::mem::take(&mut self.buckets).into_iter().flatten().collect();
        entries.sort_by_key(TableEntry::added);
        self.groups.clear();
        (self.len, self.unverified, self.knows_neighbourhood) = (0, 0, false);
        let mut left = Vec::new();
        for entry in entries {
            let cpl = self.local.key().common_prefix_len(&F::key(&entry.node));
            match self.placement(cpl, &entry.node) {
                Placement::Free => self.push(cpl, entry),
                _ => left.push(entry.node),
            }
        }
        left
    }

    /// A node was admitted now because it was restored: it was last seen `age` ago, and is not
    /// [verified](TableEntry::is_verified). Without effect if it is not in the table.
    pub(crate) fn mark_restored(&mut self, node: &F::Node, age: Duration) {
        let Some((cpl, index)) = self.find(node) else { return };
        let entry = self.buckets.get_mut(cpl as usize).and_then(|bucket| bucket.get_mut(index));
        let Some(entry) = entry else { return };
        self.unverified += usize::from(entry.is_verified());
        entry.last_seen = Instant::from_nanos(entry.added.as_nanos().wrapping_sub(nanos(age)));
        entry.marks = Marks(Marks::UNVERIFIED);
    }

    /// The number of nodes that are [verified](TableEntry::is_verified).
    pub(crate) const fn verified(&self) -> usize {
        self.len - self.unverified
    }

    /// Of the verified nodes, how many have failed since they were last heard from, and how many failures these have
    /// had together.
    pub(crate) fn silent(&self) -> (usize, usize) {
        let failed = self.iter().filter(|entry| entry.is_verified() && entry.failures() > 0);
        failed.fold((0, 0), |(nodes, all), entry| (nodes + 1, all + entry.failures() as usize))
    }

    /// Forgets all failures.
    pub(crate) fn forgive(&mut self) {
        for entry in self.buckets.iter_mut().flatten() {
            entry.marks = Marks(entry.marks.0 & Marks::UNVERIFIED);
        }
    }

    /// Fills an empty bucket with nodes that share exactly `cpl` bits with the own key, have no group, have
    /// different keys and are no more than a bucket holds. Allocates exactly what they need: a simulation has
    /// many tables.
    #[cfg(feature = "sim")]
    pub(crate) fn fill(&mut self, now: Instant, cpl: u32, nodes: &[F::Node]) {
        if self.buckets.len() <= cpl as usize {
            self.buckets.resize_with(cpl as usize + 1, Vec::new);
        }
        if let Some(bucket) = self.buckets.get_mut(cpl as usize) {
            bucket.reserve_exact(nodes.len());
            bucket.extend(nodes.iter().map(|node| TableEntry::new(node.clone(), now)));
            self.len += nodes.len();
        }
        self.knows_neighbourhood = true;
    }

    /// Releases spare memory of the list of buckets.
    #[cfg(feature = "sim")]
    pub(crate) fn shrink(&mut self) {
        self.buckets.shrink_to_fit();
    }

    /// Counts a failure of a node, which timed out or could not be reached. Returns whether that removed it.
    #[must_use = "a removed node has left the table"]
    pub fn record_failure(&mut self, node: &F::Node) -> bool {
        self.count_failure(node) == Some(0) && self.remove(node)
    }

    /// Counts a failure of a node. Returns how many more remove it; `None` if it is not in the table.
    pub(crate) fn count_failure(&mut self, node: &F::Node) -> Option<usize> {
        let (cpl, index) = self.find(node)?;
        let entry = self.buckets.get_mut(cpl as usize)?.get_mut(index)?;
        entry.marks = entry.marks.failed();
        let most = self.config.max_failures;
        let most = if entry.is_verified() { most } else { most.min(MAX_FAILURES_UNVERIFIED) };
        Some(most.saturating_sub(entry.failures() as usize))
    }

    /// Removes a node. Returns whether it was in the table.
    pub fn remove(&mut self, node: &F::Node) -> bool {
        self.find(node).is_some_and(|(cpl, index)| self.remove_at(cpl, index).is_some())
    }

    /// What the table knows of a node; `None` if it is not in the table.
    pub fn get(&self, node: &F::Node) -> Option<&TableEntry<F>> {
        let (cpl, index) = self.find(node)?;
        self.buckets.get(cpl as usize)?.get(index)
    }

    /// The nodes that share exactly `cpl` leading bits with the own key, oldest first.
    pub fn bucket(&self, cpl: u32) -> &[TableEntry<F>] {
        self.buckets.get(cpl as usize).map_or(&[], Vec::as_slice)
    }

    /// All nodes, by common prefix length.
    pub fn iter(&self) -> impl Iterator<Item = &TableEntry<F>> {
        self.buckets.iter().flatten()
    }

    /// All nodes in order of distance to `target`, closest first. Take as many as are needed: each bucket is
    /// sorted only when the iterator reaches it.
    pub fn closest(&self, target: F::Key) -> Closest<'_, F> {
        let home = self.local.key().common_prefix_len(&target);
        Closest { table: self, target, home, stage: Stage::Home, sorted: SmallVec::new(), next: 0 }
    }

    fn find(&self, node: &F::Node) -> Option<(u32, usize)> {
        let cpl = self.cpl(node);
        let index = self.bucket(cpl).iter().position(|entry| entry.node == *node)?;
        Some((cpl, index))
    }

    fn remove_at(&mut self, cpl: u32, index: usize) -> Option<F::Node> {
        let bucket = self.buckets.get_mut(cpl as usize).filter(|bucket| index < bucket.len())?;
        let TableEntry { node, marks, .. } = bucket.remove(index);
        self.len -= 1;
        self.unverified -= usize::from(!marks.is_verified());
        Self::leave_group(&mut self.groups, F::group(&node));
        Some(node)
    }
}

/// Nodes in order of distance; see [`RoutingTable::closest`].
///
/// Let c be the cpl of the target with the own key. The nodes of bucket c share more than c bits with the
/// target: they come first. Those of the buckets above c share exactly c bits with it; the bits of the
/// distance between the own key and the target give their order. First, upwards, the buckets whose bit is 1:
/// their nodes are closer to the target than the own key is. Then, downwards, those whose bit is 0. The
/// buckets below c come last, highest cpl first.
#[derive(Clone, Debug)]
pub struct Closest<'a, F: Family> {
    table: &'a RoutingTable<F>,
    target: F::Key,
    /// c, see above.
    home: u32,
    stage: Stage,
    /// The current bucket, sorted: the prefix of each node's distance, and its entry.
    sorted: SmallVec<[(u64, &'a TableEntry<F>); 20]>,
    /// Index of the next node in `sorted`.
    next: usize,
}

/// Where a node is in its bucket, or would be.
#[derive(Clone, Copy, Debug)]
enum Placement {
    Present(usize),
    Free,
    Rejected(Rejection),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Bucket c is next.
    Home,
    /// Buckets from this one up whose bit of the distance is 1.
    Up(u32),
    /// Buckets below this one down to c + 1 whose bit of the distance is 0, then from c - 1 down.
    Down(u32),
}

impl<F: Family> Closest<'_, F> {
    fn next_bucket(&mut self) -> Option<u32> {
        #[allow(clippy::cast_possible_truncation)] // as many buckets as a key has bits
        let buckets = self.table.buckets.len() as u32;
        let differs = |cpl| self.target.bit(cpl) != self.table.local.key().bit(cpl);
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
    type Item = &'a TableEntry<F>;

    fn next(&mut self) -> Option<&'a TableEntry<F>> {
        loop {
            if let Some((_, entry)) = self.sorted.get(self.next) {
                self.next += 1;
                return Some(entry);
            }
            let cpl = self.next_bucket()?;
            let target = self.target;
            let entries = self.table.bucket(cpl).iter();
            self.sorted.clear();
            self.next = 0;
            self.sorted.extend(entries.map(|entry| (F::key(&entry.node).distance(&target).leading(), entry)));
            self.sorted.sort_unstable_by(|(a, left), (b, right)| {
                let distance = |entry: &TableEntry<F>| F::key(&entry.node).distance(&target);
                a.cmp(b).then_with(|| distance(left).cmp(&distance(right)))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::vocabulary::family::Plain;
    use crate::{Key8, Key160};
    use proptest::prelude::*;

    /// Nodes that name a group and differ in address.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Grouped;

    impl Family for Grouped {
        type Key = Key8;
        type Target = Key8;
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

    fn table(config: TableConfig) -> RoutingTable<Plain> {
        RoutingTable::new(Key8::new([0]), config, &Secret::from_seed(0)).unwrap()
    }

    #[test]
    fn round_trips_are_smoothed() {
        let (mut table, node) = (table(TableConfig::default()), Key8::new([9]));
        let ms = Duration::from_millis;
        for (measured, smoothed) in
            [(None, None), (Some(80), Some(80)), (Some(160), Some(90)), (None, Some(90))]
        {
            let _: Offered = table.offer(NOW, &node, measured.map(ms));
            assert_eq!(table.get(&node).map(TableEntry::round_trip), Some(smoothed.map(ms)));
        }
        for (times, smoothed) in [(1, 2_175_901), (200, 16_777_208)] {
            for _ in 0..times {
                let _: Offered = table.offer(NOW, &node, Some(Duration::MAX));
            }
            let smoothed = Some(Duration::from_micros(smoothed));
            assert_eq!(table.get(&node).map(TableEntry::round_trip), Some(smoothed));
        }
        let first: Offered = table.offer(NOW, &Key8::new([10]), Some(Duration::MAX));
        let longest = table.get(&Key8::new([10])).and_then(TableEntry::round_trip);
        assert_eq!((first, longest), (Offered::Admitted, Some(Duration::from_micros((1 << 24) - 2))));
    }

    #[test]
    fn every_8_bit_target_and_table() {
        for step in [1_u8, 3, 7, 50] {
            for local in [0, 0x5a, 0xff] {
                let mut table = RoutingTable::<Plain>::new(
                    Key8::new([local]),
                    TableConfig::default(),
                    &Secret::from_seed(0),
                )
                .unwrap();
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
        // Two that are nearer, so that the bucket is none of the own neighbourhood.
        for byte in [0x01, 0x02, 0x80, 0x81] {
            assert_eq!(table.offer(NOW, &node(byte), None), Offered::Admitted);
        }
        assert_eq!(table.offer(NOW, &node(0x82), None), Offered::Rejected(Rejection::BucketFull));
        // A failure does not cost a node its place, until it has had as many as remove it.
        for _ in 0..3 {
            assert!(!table.record_failure(&node(0x81)));
            assert_eq!(table.offer(NOW, &node(0x82), None), Offered::Rejected(Rejection::BucketFull));
        }
        assert!(table.record_failure(&node(0x81)));
        assert_eq!(table.offer(NOW, &node(0x82), None), Offered::Admitted);
        assert_eq!(table.len(), 4);
        assert_eq!(table.offer(NOW, &node(0), None), Offered::Rejected(Rejection::Local));
    }

    #[test]
    fn failures_in_a_row_remove_a_node_and_an_answer_forgives_them() {
        let mut table = table(TableConfig::default());
        let node = Key8::new([9]);
        let _ = table.offer(NOW, &node, Some(Duration::from_micros(1_500)));
        assert!(!table.record_failure(&node) && !table.record_failure(&node));
        assert_eq!(table.get(&node).map(TableEntry::failures), Some(2));
        assert_eq!(table.offer(NOW + Duration::from_secs(1), &node, None), Offered::Refreshed);
        let record = table.get(&node).unwrap();
        assert_eq!((record.failures(), record.added()), (0, NOW));
        assert_eq!(record.last_seen(), NOW + Duration::from_secs(1));
        assert_eq!(record.round_trip(), Some(Duration::from_micros(1_500)));
        let mut fails = || table.record_failure(&node);
        assert!(!fails() && !fails() && !fails() && fails());
        assert!(table.is_empty() && !table.record_failure(&node));
    }

    #[test]
    fn one_address_cannot_take_over_another_nodes_key() {
        let mut table =
            RoutingTable::<Grouped>::new(Key8::new([0]), TableConfig::default(), &Secret::from_seed(0))
                .unwrap();
        let _ = table.offer(NOW, &(9, 1), None);
        assert_eq!(table.offer(NOW, &(9, 2), None), Offered::Rejected(Rejection::KeyTaken));
        assert!(!table.record_failure(&(9, 2)), "a failure at a bogus address is no failure of the node");
        assert_eq!(table.get(&(9, 1)).map(TableEntry::failures), Some(0));
        // A lost message is not enough: the node leaves when its own failures remove it.
        for _ in 0..3 {
            assert!(!table.record_failure(&(9, 1)));
        }
        assert_eq!(table.offer(NOW, &(9, 2), None), Offered::Rejected(Rejection::KeyTaken));
        assert_eq!(table.key_holder(&(9, 2)).map(TableEntry::node), Some(&(9, 1)));
        assert!(table.record_failure(&(9, 1)) && table.key_holder(&(9, 2)).is_none());
        assert_eq!(table.offer(NOW, &(9, 2), None), Offered::Admitted);
    }

    proptest! {
        #[test]
        fn limits_hold_whatever_is_offered(
            steps in proptest::collection::vec((any::<u8>(), 0..4_u8, 0..4_u8), 0..300),
            bucket_size in 1..6_usize,
        ) {
            let config = TableConfig { bucket_size, ..TableConfig::default() };
            let mut table = RoutingTable::<Grouped>::new(Key8::new([0]), config.clone(), &Secret::from_seed(0)).unwrap();
            for (key, group, what) in steps {
                let before = table.len();
                match what {
                    0 => prop_assert_eq!(usize::from(table.record_failure(&(key, group))), before - table.len()),
                    1 => prop_assert_eq!(usize::from(table.remove(&(key, group))), before - table.len()),
                    _ => {
                        let offered = table.offer(NOW, &(key, group), None);
                        let grows = matches!(offered, Offered::Admitted);
                        prop_assert_eq!(table.len(), before + usize::from(grows));
                        prop_assert_eq!(matches!(offered, Offered::Rejected(_)), table.get(&(key, group)).is_none());
                    }
                }
                for group in 1..4_u8 {
                    let of = |records: &mut dyn Iterator<Item = &TableEntry<Grouped>>| {
                        records.filter(|record| record.node().1 == group).count()
                    };
                    prop_assert!(of(&mut table.iter()) <= config.max_per_group);
                    for cpl in 0..8 {
                        prop_assert!(table.bucket(cpl).len() <= 2 * bucket_size);
                        prop_assert!(of(&mut table.bucket(cpl).iter()) <= config.max_per_group_in_bucket);
                    }
                }
                prop_assert_eq!(table.iter().count(), table.len());
            }
        }

        #[test]
        fn the_own_neighbourhood_is_complete(mut keys: Vec<u8>, bucket_size in 1..6_usize) {
            let mut table = table(TableConfig { bucket_size, ..TableConfig::default() });
            for key in &keys {
                let _: Offered = table.offer(NOW, &Key8::new([*key]), None);
            }
            keys.retain(|key| *key != 0);
            keys.sort_unstable();
            keys.dedup();
            for key in keys.into_iter().take(bucket_size) {
                let node = Key8::new([key]);
                let bucket = table.bucket(table.local().common_prefix_len(&node)).len();
                prop_assert!(table.get(&node).is_some() || bucket == 2 * bucket_size);
            }
        }

        #[test]
        fn the_closest_come_first(local: [u8; 20], target: [u8; 20], near: u8, nodes: Vec<[u8; 20]>) {
            #[derive(Clone, Debug, Default, PartialEq)]
            struct Wide;
            impl Family for Wide {
                type Key = Key160;
                type Target = Key160;
                type Node = Key160;
                type Message = ();
                fn key(node: &Key160) -> Key160 {
                    *node
                }
            }
            let local = Key160::new(local);
            let mut table = RoutingTable::<Wide>::new(local, TableConfig::default(), &Secret::from_seed(0)).unwrap();
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
