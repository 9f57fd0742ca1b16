//! [`ExploreSchedule`]: when buckets are refreshed, and by lookups of which keys.

use crate::collections::indexed_heap::IndexedHeap;
use crate::routing::events::DueLookup;
use crate::routing::table::RoutingTable;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::Outcome;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeMap;

/// How buckets are refreshed, and the own key looked up.
///
/// Refreshed are the buckets that hold a node, and those in which several nodes are to be expected: see
/// [`routing`](crate::routing#where-somebody-can-be). The own key is looked up as often as the nearest bucket is refreshed; and, if the
/// last bootstrap has not found who is near, as soon as the table holds k nodes that have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ExploreConfig {
    /// When each bucket is due. Default: [`Schedule::Dynamic`] with 1 h, 100 and 10.
    pub schedule: Schedule,
    /// Buckets up to this common prefix length (in bits) are refreshed. At most 1,023; a value above the
    /// bits of a key less one is reduced to that. Default: 14.
    pub max_cpl: u32,
    /// The maximum duration of the lookup of one refresh. Longer than zero. Default: 60 s.
    pub timeout: Duration,
}

/// When buckets are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Schedule {
    /// A bucket is due `interval × (1 + (max_cpl − cpl) × multiplier / 100)` after its last refresh, plus a
    /// random time of at most `interval × jitter / 100`. For the first refresh, this time is counted from the
    /// first call of the machine. So near buckets are refreshed more often than far ones, which other lookups
    /// fill anyway. (The schedule of Zikade.)
    Dynamic {
        /// The interval of the nearest bucket, `max_cpl`. Longer than zero.
        interval: Duration,
        /// The extra time for each bucket farther away, in hundredths of the interval. At most 10,000.
        multiplier: u32,
        /// The maximum of the random extra time, in hundredths of the interval. At most 10,000.
        jitter: u32,
    },
    /// One bucket after the other, from cpl 0, then the own key, and from cpl 0 again, without a pause.
    NoWait,
}

impl Default for ExploreConfig {
    fn default() -> Self {
        let interval = Duration::from_secs(3_600);
        let schedule = Schedule::Dynamic { interval, multiplier: 100, jitter: 10 };
        Self { schedule, max_cpl: 14, timeout: Duration::from_secs(60) }
    }
}

impl ExploreConfig {
    /// For a node that is to be quiet: the interval of the own key and of the nearest bucket is 6 h instead of 1 h. See
    /// [`routing`](crate::routing#a-node-at-rest).
    pub fn quiet() -> Self {
        let interval = Duration::from_secs(6 * 3_600);
        let schedule = Schedule::Dynamic { interval, multiplier: 100, jitter: 10 };
        Self { schedule, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Schedule::Dynamic { interval, multiplier, jitter } = self.schedule {
            require(!interval.is_zero(), "explore.schedule.interval", "longer than zero")?;
            require(multiplier <= 10_000, "explore.schedule.multiplier", "at most 10,000")?;
            require(jitter <= 10_000, "explore.schedule.jitter", "at most 10,000")?;
        }
        require(self.max_cpl < 1_024, "explore.max_cpl", "at most 1,023")?;
        require(!self.timeout.is_zero(), "explore.timeout", "longer than zero")
    }
}

/// When each bucket is due, and the own key.
///
/// Each has an entry: the buckets by cpl, then the own key. An entry waits in `due` only while its lookup would find
/// somebody (see [`table_changed`](Self::table_changed)): so the first of `due` is always one that can begin.
#[derive(Clone, Debug)]
pub(crate) struct ExploreSchedule {
    config: ExploreConfig,
    max_cpl: u32,
    random: Xoshiro256PlusPlus,
    /// By slot: the cpl, or [`own_slot`](Self::own_slot). Empty until the schedule starts.
    entries: Vec<Entry>,
    /// Whether the own key is looked up, too.
    own_key: bool,
    /// The entries that can begin, by slot; of those due at once, the one that was scheduled first comes first.
    due: IndexedHeap<(Instant, u64)>,
    /// How often an entry was scheduled.
    scheduled: u64,
    /// The spans that lookups link to, by slot: of those made due by a bootstrap, or begun by an event.
    links: BTreeMap<u32, SpanContext>,
    /// The slot of the lookup that is running: one at a time.
    running: Option<u32>,
    /// The number of refreshes begun, by cpl.
    explored: Vec<u64>,
    /// The number of lookups of the own key begun.
    own_lookups: u64,
    /// How many nodes the table held when buckets were last made due by a bootstrap.
    known: usize,
    /// The last bootstrap has not found who is near to the own key.
    own_key_wanted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Instant,
    /// The number of entries that were scheduled before.
    turn: u64,
    /// The last refresh found nobody in this bucket, and nobody has entered it since.
    in_vain: bool,
}

/// How many farther buckets are refreshed, whether or not they hold a node, by a table without a full bucket: what it
/// holds says nothing of the network's density.
const FARTHEST: u32 = 2;

impl ExploreSchedule {
    /// `own_key`: whether the own key is looked up, too.
    pub(crate) fn new<K: Key>(config: ExploreConfig, own_key: bool, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            max_cpl: config.max_cpl.min(K::BITS - 1),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            entries: Vec::new(),
            own_key,
            due: IndexedHeap::new(),
            scheduled: 0,
            links: BTreeMap::new(),
            running: None,
            explored: Vec::new(),
            own_lookups: 0,
            known: 0,
            own_key_wanted: false,
            config,
        })
    }

    /// The number of refreshes of this bucket that were begun.
    pub(crate) fn refreshes(&self, cpl: u32) -> u64 {
        self.explored.get(cpl as usize).copied().unwrap_or(0)
    }

    /// The number of refreshes that were begun, of all buckets.
    pub(crate) fn total_refreshes(&self) -> u64 {
        self.explored.iter().sum()
    }

    /// The number of lookups of the own key that were begun.
    pub(crate) const fn own_lookups(&self) -> u64 {
        self.own_lookups
    }

    /// The slot of the own key.
    const fn own_slot(&self) -> u32 {
        self.max_cpl + 1
    }

    /// At the first call, sets the first due times; later without effect.
    pub(crate) fn start<F: Family>(&mut self, now: Instant, table: &RoutingTable<F>) {
        if self.entries.is_empty() {
            self.explored.resize(self.max_cpl as usize + 1, 0);
            for slot in 0..=self.own_slot() {
                let at = self.next_due(now, slot);
                self.entries.push(Entry { at, turn: self.scheduled, in_vain: false });
                self.scheduled += 1;
            }
            self.table_changed(now, table, &SpanContext::NONE);
        }
    }

    /// When an entry whose lookup ends `now` is due again. The own key is due as often as the nearest bucket.
    fn next_due(&mut self, now: Instant, slot: u32) -> Instant {
        match self.config.schedule {
            Schedule::NoWait => now,
            Schedule::Dynamic { interval, multiplier, jitter } => {
                let interval = u128::from(nanos(interval));
                let farther = u128::from(self.max_cpl.saturating_sub(slot)) * u128::from(multiplier);
                // At most 2^64, so that a random number of 64 bits times it does not overflow.
                let most = (interval * u128::from(jitter) / 100).min(u128::from(u64::MAX));
                let jitter = (u128::from(self.random.next_u64()) * most) >> 64;
                let wait = interval + interval * farther / 100 + jitter;
                now.plus(u64::try_from(wait).unwrap_or(u64::MAX))
            }
        }
    }

    /// When the next lookup is due; `None` while one is running, and while the table is empty. What is due at
    /// `FAR_FUTURE` never begins.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        self.due.peek().map(|((at, _), _)| at).filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// Sets when an entry is due.
    fn schedule(&mut self, slot: u32, at: Instant) {
        let turn = self.scheduled;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        (entry.at, entry.turn) = (at, turn);
        self.scheduled += 1;
        if self.due.get(slot).is_some() {
            self.due.set(slot, (at, turn));
        }
    }

    /// The table holds other nodes than before: decides which buckets are refreshed at all. Those that are due, and are
    /// only now, link to `link`.
    ///
    /// A bucket is, if it holds a node, or if several are to be expected there, by the nearest full bucket: each
    /// bucket has half as many as the one before. Where no bucket is full, nodes are expected in all buckets farther
    /// than the nearest known node, as after a bootstrap (Kademlia paper, section 2.3), and in the first three. A refresh
    /// that has found nobody is not repeated. The nearer buckets are covered by the lookup of the own key.
    pub(crate) fn table_changed<F: Family>(
        &mut self,
        now: Instant,
        table: &RoutingTable<F>,
        link: &SpanContext,
    ) {
        if self.entries.is_empty() {
            return;
        }
        let (mut known, mut nearest, mut full) = (0, 0, None);
        for cpl in 0..=self.max_cpl {
            let nodes = table.bucket(cpl).len();
            known += nodes;
            if nodes > 0 {
                nearest = cpl;
            }
            if nodes >= table.bucket_size() {
                full = Some(cpl);
            }
        }
        if known < table.len() {
            nearest = self.max_cpl;
        }
        // Two are expected in the last of these.
        let halvings = table.bucket_size().checked_ilog2().unwrap_or(0).saturating_sub(1);
        let expected = full.map_or(nearest.max(FARTHEST), |full| full + halvings);
        for slot in 0..=self.own_slot() {
            let is_inhabited = !table.bucket(slot).is_empty();
            let Some(entry) = self.entries.get_mut(slot as usize) else { return };
            let can_begin = if slot > self.max_cpl {
                self.own_key
            } else {
                entry.in_vain &= !is_inhabited;
                is_inhabited || (slot <= expected && !entry.in_vain)
            };
            if !can_begin || table.is_empty() {
                self.due.clear(slot);
            } else if self.running != Some(slot) && self.due.get(slot).is_none() {
                self.due.set(slot, (entry.at, entry.turn));
                if entry.at <= now && link.is_valid() {
                    self.links.entry(slot).or_insert_with(|| link.clone());
                }
            }
        }
    }

    /// The lookup that is due now, if one is and the table is not empty, from the 2k closest nodes of the table: of a
    /// random point of a bucket, or of the own target. If the family knows no target in the bucket, the node of the
    /// bucket that is closest to the point is looked up; if the bucket is empty, the own target.
    pub(crate) fn due_lookup<F: Family>(
        &mut self,
        now: Instant,
        table: &RoutingTable<F>,
        k: usize,
    ) -> Option<DueLookup<F>> {
        self.next_timeout().filter(|at| *at <= now)?;
        let (_, slot) = self.due.pop_until((now, u64::MAX))?;
        self.running = Some(slot);
        let link = self.links.remove(&slot).unwrap_or(SpanContext::NONE);
        let local = table.local_node();
        let target = if let Some(explored) = self.explored.get_mut(slot as usize) {
            *explored += 1;
            let point = table.local().random_with_cpl(slot, || self.random.next_u64());
            local.family.target_near(point, slot + 1).unwrap_or_else(|| {
                let bucket = table.bucket(slot).iter();
                let closest = bucket.min_by_key(|entry| F::key(entry.node()).distance(&point));
                closest.and_then(|entry| F::target_of(entry.node())).unwrap_or_else(|| local.target.clone())
            })
        } else {
            self.own_lookups += 1;
            local.target.clone()
        };
        let seeds = table.closest(target.key()).take(2 * k).map(|entry| entry.node().clone()).collect();
        Some(DueLookup { initiator: Initiator::Explore, target, seeds, timeout: self.config.timeout, link })
    }

    /// The lookup has ended, with this outcome, or could not begin. Returns the cpl of the refreshed bucket.
    pub(crate) fn lookup_ended<F: Family>(
        &mut self,
        now: Instant,
        table: &RoutingTable<F>,
        outcome: Option<Outcome>,
    ) -> Option<u32> {
        use Outcome::{AllFound, Converged, Exhausted, StoppedEarly, Unsure};
        let slot = self.running.take()?;
        let at = self.next_due(now, slot);
        self.schedule(slot, at);
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.in_vain = matches!(outcome, Some(Converged | StoppedEarly | Unsure | AllFound | Exhausted));
        }
        self.table_changed(now, table, &SpanContext::NONE);
        (slot <= self.max_cpl).then_some(slot)
    }

    /// A bootstrap has ended, with this outcome; the nearest node that answered shares `nearest` bits with the own key.
    /// Makes the buckets from cpl 0 to `nearest` due now, as a node does once it knows its neighbourhood (Kademlia paper,
    /// section 2.3). Their lookups link to `link`. The own key has just been looked up.
    ///
    /// In a network of a few nodes, which bootstraps again and again, buckets are made due only if that has changed
    /// something.
    pub(crate) fn bootstrapped<F: Family>(
        &mut self,
        now: Instant,
        table: &RoutingTable<F>,
        (outcome, nearest): (Outcome, u32),
        link: &SpanContext,
    ) {
        if self.running != Some(self.own_slot()) {
            let at = self.next_due(now, self.own_slot());
            self.schedule(self.own_slot(), at);
        }
        self.own_key_wanted = !table.knows_neighbourhood();
        if matches!(outcome, Outcome::AllFound | Outcome::Exhausted) && table.len() == self.known {
            return;
        }
        self.known = table.len();
        let running = self.running;
        for cpl in (0..=self.max_cpl.min(nearest)).filter(|cpl| Some(*cpl) != running) {
            self.schedule(cpl, now);
            if let Some(entry) = self.entries.get_mut(cpl as usize) {
                entry.in_vain = false;
            }
            if link.is_valid() {
                self.links.insert(cpl, link.clone());
            }
        }
        self.table_changed(now, table, &SpanContext::NONE);
    }

    /// Whether the last bootstrap has not found who is near to the own key, as that of one of the first nodes of a network.
    pub(crate) const fn wants_own_key(&self) -> bool {
        self.own_key_wanted
    }

    /// The own key is to be looked up now.
    pub(crate) fn look_up_own_key(&mut self, now: Instant, link: &SpanContext) {
        self.own_key_wanted = false;
        let own = self.own_slot();
        if self.own_key && self.running != Some(own) {
            self.schedule(own, now);
            if link.is_valid() {
                self.links.insert(own, link.clone());
            }
        }
    }

    /// This node has another id: what was found in buckets was found in others. Unless a bootstrap is about to look up
    /// the new key, that is due now.
    pub(crate) fn identity_changed(&mut self, now: Instant, bootstraps: bool, link: &SpanContext) {
        self.entries.iter_mut().for_each(|entry| entry.in_vain = false);
        if !bootstraps {
            self.look_up_own_key(now, link);
        }
    }
}
