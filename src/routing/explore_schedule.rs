//! [`ExploreSchedule`]: when buckets are refreshed, and by lookups of which keys.

use crate::collections::indexed_heap::IndexedHeap;
use crate::routing::events::DueLookup;
use crate::routing::table::RoutingTable;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeMap;

/// How buckets are refreshed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ExploreConfig {
    /// When each bucket is due. Default: [`Schedule::Dynamic`] with 1 h, 100 and 10.
    pub schedule: Schedule,
    /// The buckets up to this common prefix length (in bits) are refreshed. At most 1,023; a value above the
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
    /// One bucket after the other, without a pause.
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

/// When each bucket is due.
#[derive(Clone, Debug)]
pub(crate) struct ExploreSchedule {
    config: ExploreConfig,
    max_cpl: u32,
    random: Xoshiro256PlusPlus,
    /// By cpl; of the buckets due at once, the lowest cpl comes first.
    due: IndexedHeap<Instant>,
    /// The spans that the refreshes of buckets made due by a bootstrap link to, by cpl.
    links: BTreeMap<u32, SpanContext>,
    /// The cpl of the bucket that is being refreshed: one at a time.
    running: Option<u32>,
    /// The number of refreshes begun, by cpl.
    explored: Vec<u64>,
    started: bool,
}

impl ExploreSchedule {
    pub(crate) fn new<K: Key>(config: ExploreConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            max_cpl: config.max_cpl.min(K::BITS - 1),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            due: IndexedHeap::new(),
            links: BTreeMap::new(),
            running: None,
            explored: Vec::new(),
            started: false,
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

    /// At the first call, sets the first due times; later without effect.
    pub(crate) fn start(&mut self, now: Instant) {
        if !self.started {
            self.started = true;
            self.explored.resize(self.max_cpl as usize + 1, 0);
            for cpl in 0..=self.max_cpl {
                let at = self.next_due(now, cpl);
                self.due.set(cpl, at);
            }
        }
    }

    /// When a bucket that is refreshed `now` is due again.
    fn next_due(&mut self, now: Instant, cpl: u32) -> Instant {
        match self.config.schedule {
            Schedule::NoWait => now,
            Schedule::Dynamic { interval, multiplier, jitter } => {
                let interval = u128::from(nanos(interval));
                let farther = u128::from(self.max_cpl.saturating_sub(cpl)) * u128::from(multiplier);
                // At most 2^64, so that a random number of 64 bits times it does not overflow.
                let most = (interval * u128::from(jitter) / 100).min(u128::from(u64::MAX));
                let jitter = (u128::from(self.random.next_u64()) * most) >> 64;
                let wait = interval + interval * farther / 100 + jitter;
                now.plus(u64::try_from(wait).unwrap_or(u64::MAX))
            }
        }
    }

    /// When the next bucket is due; `None` while one is being refreshed. A bucket that is due at `FAR_FUTURE`
    /// is never refreshed.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        self.due.peek().map(|(at, _)| at).filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// Begins the refresh of the bucket that is due now: its cpl, a random key of it, and the span that its lookup
    /// links to.
    fn pop_due<K: Key>(&mut self, now: Instant, local: K) -> Option<(u32, K, SpanContext)> {
        self.next_timeout().filter(|at| *at <= now)?;
        let (_, cpl) = self.due.pop_until(now)?;
        let random = &mut self.random;
        self.running = Some(cpl);
        if let Some(explored) = self.explored.get_mut(cpl as usize) {
            *explored += 1;
        }
        let link = self.links.remove(&cpl).unwrap_or(SpanContext::NONE);
        Some((cpl, local.random_with_cpl(cpl, || random.next_u64()), link))
    }

    /// The refresh that is due now, if one is and the table is not empty: a lookup of a random point of the
    /// bucket, from the 2k closest nodes of the table. If the family knows no target in the bucket, the node of the
    /// bucket that is closest to the point is looked up; if the bucket is empty, the own target.
    pub(crate) fn due_lookup<F: Family>(
        &mut self,
        now: Instant,
        table: &RoutingTable<F>,
        k: usize,
    ) -> Option<DueLookup<F>> {
        if table.is_empty() {
            return None;
        }
        let (cpl, point, link) = self.pop_due(now, table.local())?;
        let local = table.local_node();
        let target = local.family.target_near(point, cpl + 1).unwrap_or_else(|| {
            let closest = table.bucket(cpl).iter().min_by_key(|entry| F::key(entry.node()).distance(&point));
            closest.and_then(|entry| F::target_of(entry.node())).unwrap_or_else(|| local.target.clone())
        });
        let seeds = table.closest(target.key()).take(2 * k).map(|entry| entry.node().clone()).collect();
        Some(DueLookup { initiator: Initiator::Explore, target, seeds, timeout: self.config.timeout, link })
    }

    /// The lookup has ended, or could not begin. Returns the cpl of the refreshed bucket.
    pub(crate) fn lookup_ended(&mut self, now: Instant) -> Option<u32> {
        let cpl = self.running.take()?;
        let at = self.next_due(now, cpl);
        self.due.set(cpl, at);
        Some(cpl)
    }

    /// Makes all buckets from cpl 0 to `nearest` due now, as a node does once it knows its neighbourhood
    /// (Kademlia paper, section 2.3). Their lookups link to `link`.
    pub(crate) fn make_due(&mut self, now: Instant, nearest: u32, link: &SpanContext) {
        for cpl in (0..=self.max_cpl.min(nearest)).filter(|cpl| Some(*cpl) != self.running) {
            self.due.set(cpl, now);
            if link.is_valid() {
                self.links.insert(cpl, link.clone());
            }
        }
    }
}
