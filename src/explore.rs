//! Explore: buckets are refreshed by lookups of random keys, on a schedule.

use crate::context::Cause;
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::event::{Cancel, Carried, Outcome, Owner, Request, Says, Start, Statistics};
use crate::family::Family;
use crate::heap::Heap;
use crate::id::RequestId;
use crate::key::Key;
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{NetworkConfig, Outbox, Traffic};
use crate::pool::{Pool, PoolConfig, Replied, earlier};
use crate::query::{self, QueryConfig, Search};
use crate::table::{Offered, RoutingTable, TableConfig};
use crate::task::Task;
use crate::time::{Instant, nanos};
use crate::turn::{Turn, Work};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeMap;

/// How buckets are refreshed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ExploreConfig {
    /// When each bucket is due.
    pub schedule: Schedule,
    /// The buckets up to this common prefix length (in bits) are refreshed. At most 1,023; cut off at one bit less than a key
    /// has. Default: 14.
    pub max_cpl: u32,
    /// How long one lookup may take. Default: 60 s.
    pub timeout: Duration,
}

/// When buckets are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Schedule {
    /// A bucket is due `interval + (max_cpl − cpl) × interval × multiplier` after it was last refreshed, and up to
    /// `interval × jitter` more; first as long after the first call of the machine. So near buckets come more often than far
    /// ones, which lookups of others fill anyway. (The schedule of Zikade.)
    Dynamic {
        /// Of the nearest bucket. Longer than zero.
        interval: Duration,
        /// How much more for each bucket farther away, in hundredths of the interval.
        multiplier: u32,
        /// How much more at random, at most, in hundredths of the interval.
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

/// Which bucket is due when.
#[derive(Clone, Debug)]
pub(crate) struct Explorer {
    config: ExploreConfig,
    max_cpl: u32,
    random: Xoshiro256PlusPlus,
    /// By cpl; where several are due at once the lower cpl comes first.
    due: Heap<Instant>,
    /// Of the buckets that a bootstrap made due: the span that their lookups link to.
    origins: BTreeMap<u32, SpanContext>,
    running: Option<u32>,
    /// Lookups begun, by cpl.
    explored: Vec<u64>,
    begun: bool,
}

impl Explorer {
    pub(crate) fn new<K: Key>(config: ExploreConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            max_cpl: config.max_cpl.min(K::BITS - 1),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            due: Heap::new(),
            origins: BTreeMap::new(),
            running: None,
            explored: Vec::new(),
            begun: false,
            config,
        })
    }

    /// How many lookups were begun for this bucket.
    pub(crate) fn explored(&self, cpl: u32) -> u64 {
        self.explored.get(cpl as usize).copied().unwrap_or(0)
    }

    /// How many lookups were begun.
    pub(crate) fn all_explored(&self) -> u64 {
        self.explored.iter().sum()
    }

    /// Sets the first due times, at the first call.
    pub(crate) fn begin(&mut self, now: Instant) {
        if !self.begun {
            self.begun = true;
            self.explored.resize(self.max_cpl as usize + 1, 0);
            for cpl in 0..=self.max_cpl {
                let at = self.after(now, cpl);
                self.due.set(cpl, at);
            }
        }
    }

    /// When a bucket that was refreshed just now is due again.
    fn after(&mut self, now: Instant, cpl: u32) -> Instant {
        match self.config.schedule {
            Schedule::NoWait => now,
            Schedule::Dynamic { interval, multiplier, jitter } => {
                let interval = u128::from(nanos(interval));
                let farther = u128::from(self.max_cpl.saturating_sub(cpl)) * u128::from(multiplier);
                let most = interval * u128::from(jitter) / 100;
                let jitter = (u128::from(self.random.next_u64()) * most) >> 64;
                let wait = interval + interval * farther / 100 + jitter;
                now.plus(u64::try_from(wait).unwrap_or(u64::MAX))
            }
        }
    }

    /// When the next bucket is due, if none is being refreshed. What is due at the end of time never is.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        self.due.peek().map(|(at, _)| at).filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// The bucket that is due: a random key of it, and the span that its lookup links to.
    pub(crate) fn next<K: Key>(&mut self, now: Instant, local: K) -> Option<(K, SpanContext)> {
        self.next_timeout().filter(|at| *at <= now)?;
        let (_, cpl) = self.due.pop_until(now)?;
        let random = &mut self.random;
        self.running = Some(cpl);
        if let Some(explored) = self.explored.get_mut(cpl as usize) {
            *explored += 1;
        }
        let origin = self.origins.remove(&cpl).unwrap_or(SpanContext::NONE);
        Some((local.random_with_cpl(cpl, || random.next_u64()), origin))
    }

    /// The lookup has ended. Gives back the bucket that was refreshed.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<u32> {
        let cpl = self.running.take()?;
        let at = self.after(now, cpl);
        self.due.set(cpl, at);
        Some(cpl)
    }

    /// Makes all buckets up to this one due now: what a node does once it knows its neighbourhood (Kademlia paper, section
    /// 2.3). Their lookups link to its span.
    pub(crate) fn refresh(&mut self, now: Instant, nearest: u32, origin: &SpanContext) {
        for cpl in (0..=self.max_cpl.min(nearest)).filter(|cpl| Some(*cpl) != self.running) {
            self.due.set(cpl, now);
            if origin.is_valid() {
                self.origins.insert(cpl, origin.clone());
            }
        }
    }
}

/// What an [`Explore`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// A node that lives: lookups may begin with it, if its table takes it.
    Add(F::Node),
    /// A node that is gone.
    Remove(F::Node),
    /// A request was answered.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// A request failed.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What an [`Explore`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A bucket was refreshed.
    Explored {
        /// Which, by common prefix length (in bits).
        cpl: u32,
        /// How the lookup ended.
        outcome: Outcome,
        /// What it did.
        statistics: Statistics,
    },
}

/// Refreshes buckets: looks up a random key in each, on a schedule, one at a time, from the nodes of a table of its own that
/// are closest to that key. In a [`Coordinator`](crate::Coordinator) that is the routing table.
///
/// Nothing is due while the table is empty.
#[derive(Clone, Debug)]
pub struct Explore<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Search<F>>,
    table: RoutingTable<F>,
    explorer: Explorer,
    k: usize,
    said: Batch<query::Outbound<F>>,
}

impl<F: Family> Explore<F> {
    /// A machine of the node whose own key is `local`. The seed is that of random keys and jitter.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Key,
        explore: ExploreConfig,
        query: QueryConfig,
        network: NetworkConfig,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let table = TableConfig { hash_seed: network.hash_seed, ..TableConfig::default() };
        Ok(Self {
            clock: Clock::default(),
            k: query.k,
            outbox: Outbox::new(network)?,
            pool: Pool::new(local, PoolConfig { query, ..PoolConfig::default() })?,
            table: RoutingTable::new(local, table)?,
            explorer: Explorer::new::<F::Key>(explore, seed)?,
            said: Batch::new(),
        })
    }

    /// The nodes that lookups begin with.
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.table
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// Lets go what can go, and begins what is due.
    fn settle(&mut self, now: Instant, out: &mut Batch<Outbound<F>>) {
        let Self { outbox, pool, table, explorer, k, said, .. } = self;
        let mut turn = Turn { now, cause: Cause::TIME, outbox, out: said };
        loop {
            pool.settle(&mut turn, |_, _, _, _| ());
            let mut news = turn.out.drain(..).filter_map(narrow).collect::<Batch<_>>();
            out.append(&mut news);
            if let Some(ended) = pool.ended() {
                if let Some(cpl) = explorer.ended(turn.now) {
                    let event =
                        Outbound::Explored { cpl, outcome: ended.outcome, statistics: ended.statistics };
                    out.push(Stamped { event, context: ended.context, deadline: None });
                }
            } else if !explore(explorer, pool, table, &mut turn, *k) {
                return;
            }
        }
    }
}

/// Begins the lookup of the bucket that is due, if there is one and anybody to ask. Says whether it did.
pub(crate) fn explore<F: Family, T: Task<F> + From<Search<F>>, E: Says<F, T>>(
    explorer: &mut Explorer,
    pool: &mut Pool<F, T>,
    table: &RoutingTable<F>,
    turn: &mut Turn<'_, F, E>,
    k: usize,
) -> bool {
    if table.is_empty() {
        return false;
    }
    while let Some((target, origin)) = explorer.next(turn.now, table.local()) {
        let seeds = table.closest(target).take(2 * k).map(|record| record.node().clone()).collect();
        let start = Start::find(0, target).with_seeds(seeds);
        if pool.begin(turn, Owner::Explore, explorer.config.timeout, origin, start).is_some() {
            return true;
        }
        // The end of time: nothing can begin any more, and what is due is never due again.
        explorer.ended(turn.now);
    }
    false
}

/// What a lookup of our own says.
fn narrow<F: Family>(stamped: Stamped<query::Outbound<F>>) -> Option<Stamped<Outbound<F>>> {
    let Stamped { event, context, deadline } = stamped;
    let event = match event {
        query::Outbound::Request(request) => Outbound::Request(request),
        query::Outbound::Cancel(cancel) => Outbound::Cancel(cancel),
        _ => return None,
    };
    Some(Stamped { event, context, deadline })
}

impl<F: Family> Machine for Explore<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let now = self.clock.advance(now);
        self.explorer.begin(now);
        let mut turn = Turn { now, cause: Cause::TIME, outbox: &mut self.outbox, out: &mut self.said };
        while self.pool.elapse(&mut turn).is_some() {}
        self.settle(now, out);
        let Stamped { event, context, .. } = event;
        let mut turn = Turn { now, cause: Cause::TIME, outbox: &mut self.outbox, out: &mut self.said };
        match event {
            Inbound::Add(node) => {
                let _: Offered<F> = self.table.offer(now, &node, None);
            }
            Inbound::Remove(node) => {
                self.table.remove(&node);
            }
            Inbound::Answered { request, closer } => {
                let replied = Replied::Answer(closer, Carried::default());
                self.pool.reply(&mut turn, request, &context, replied);
            }
            Inbound::Failed(request) => {
                self.pool.reply(&mut turn, request, &context, Replied::Failure(None));
            }
            Inbound::Tick => {}
        }
        self.settle(now, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = self.explorer.next_timeout().filter(|_| !self.table.is_empty());
        earlier(due, earlier(self.pool.next_deadline(), self.outbox.next_timeout()))
    }
}
