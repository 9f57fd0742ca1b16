//! Crawl: a map of a network. Every node that can be reached is asked for what it knows, bucket by bucket.
//!
//! A node names the nodes of its own table that are closest to what it is asked about. So it is asked about its own key with
//! one bit flipped, once for each common prefix length (cpl) up to a configured one: each answer is a bucket of its table.
//! Nodes are asked in the order in which they were first named, each about one bucket at a time, by turns.

use crate::context::Cause;
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::event::{
    Answer, Ask, Cancel, Carried, Outcome, Progress, Refused, RefusedBecause, Request, Says, Started,
    Statistics, says,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::key::Key;
use crate::lookup::Miss;
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{NetworkConfig, Outbox, Seeded, Traffic};
use crate::pool::{Pool, PoolConfig, Replied, Starting, earlier};
use crate::task::{End, Found, Next, Place, Task};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;
use std::collections::{HashMap, HashSet, VecDeque};

/// How a crawl goes about it.
///
/// Memory of a crawl, at most: for each of `max_nodes` nodes three times its id, three times its key, and 100 bytes; for each of
/// `max_edges` edges 31 bytes. A third of that is taken in the end only, or for the moment in which a table grows. At most
/// `max_crawls` live at once. A finish holds, for each node, its id and 40 bytes; for each edge 8.
///
/// What liars take: a node can name, in `max_cpl + 1` answers, `max_closer_nodes` each that do not exist. Each of these takes the
/// place of one node and `max_failures` requests. Of those with one key, under ever other addresses, no more than 8 are taken.
/// Made-up nodes that answer, and lie on, take all the places there are: the crawl ends at the
/// [node limit](Outcome::NodeLimit), and says how many it left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct CrawlConfig {
    /// How long a crawl may take at most; its start may ask for less. Default: 10 min.
    pub timeout: Duration,
    /// The buckets up to this common prefix length (in bits) are asked for, one request for each. At most 1,023; cut off at one
    /// bit less than a key has. In a network of n nodes, those beyond log2(n / 20) hold no more nodes than the last that
    /// does. Default: 15.
    pub max_cpl: u32,
    /// How many requests of a crawl may be in flight or wait for capacity. 1 to 65,536. Default: 64.
    pub max_in_flight: usize,
    /// How many nodes are asked; those named beyond are [counted](CrawlCounts::left_out). 1 to 2^24. Default: 65,536.
    pub max_nodes: usize,
    /// How many edges are noted; those beyond are [counted](CrawlCounts::left_out). At most 2^28. Default: 2^20.
    pub max_edges: usize,
    /// How many nodes of one answer are looked at; the others are counted as left out. 1 to 1,024. Default: 40.
    pub max_closer_nodes: usize,
    /// After this many requests in a row without an answer a node is not asked about its other buckets: a lost message is not a
    /// dead node, but this many are. At least 1. Default: 2.
    pub max_failures: u32,
    /// How many crawls may live at once. One more is refused. At most 1,024. Default: 1.
    pub max_crawls: usize,
    /// Seed of the hash of the tables of nodes and edges. It has no influence on what comes out, but where peers choose their
    /// ids, give it a random number. Default: 0.
    pub hash_seed: u64,
}

impl Default for CrawlConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            max_cpl: 15,
            max_in_flight: 64,
            max_nodes: 65_536,
            max_edges: 1 << 20,
            max_closer_nodes: 40,
            max_failures: 2,
            max_crawls: 1,
            hash_seed: 0,
        }
    }
}

impl CrawlConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.timeout.is_zero(), "crawl.timeout", "longer than zero")?;
        require(self.max_cpl < 1_024, "crawl.max_cpl", "at most 1,023")?;
        require((1..=65_536).contains(&self.max_in_flight), "crawl.max_in_flight", "1 to 65,536")?;
        require((1..=1 << 24).contains(&self.max_nodes), "crawl.max_nodes", "1 to 2^24")?;
        require(self.max_edges <= 1 << 28, "crawl.max_edges", "at most 2^28")?;
        require((1..=1_024).contains(&self.max_closer_nodes), "crawl.max_closer_nodes", "1 to 1,024")?;
        require(self.max_failures > 0, "crawl.max_failures", "at least 1")?;
        require(self.max_crawls <= 1_024, "crawl.max_crawls", "at most 1,024")
    }
}

/// Asks for a crawl. Its deadline and its span travel in the [`Stamped`] around it. It is answered by [`Started`] or
/// [`Refused`], in the same call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct StartCrawl<F: Family> {
    /// The caller's own name for the operation. A live operation's tag cannot be used again before its finish.
    pub tag: u64,
    /// Nodes to begin with. The coordinator adds those of its routing table.
    pub seeds: Vec<F::Node>,
}

/// A request of a crawl ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct CrawlProgress<F: Family> {
    /// Which, and how.
    pub request: Progress<F>,
    /// What the crawl has found so far.
    pub counts: CrawlCounts,
}

/// What a crawl has found, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CrawlCounts {
    /// Nodes known: reachable, unreachable, and those of which it is not known yet.
    pub nodes: u32,
    /// Nodes that have answered at least once.
    pub reachable: u32,
    /// Nodes that have not, and are asked no more.
    pub unreachable: u32,
    /// Edges: which node names which.
    pub edges: u32,
    /// Nodes and edges that were not taken, as often as they were named: there was no room, or the answer named more than are
    /// looked at, or the node is one of more than 8 with the same key.
    pub left_out: u64,
}

/// The last event of a crawl.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct CrawlFinish<F: Family> {
    /// The operation. Its id and its tag are free from now on.
    pub operation: OperationId,
    /// How it ended: [`Complete`](Outcome::Complete) where all that were named have been asked,
    /// [`NodeLimit`](Outcome::NodeLimit) where there was no room for all.
    pub outcome: Outcome,
    /// All nodes, in the order in which they were first named.
    pub nodes: Vec<Crawled<F>>,
    /// Which node names which, by their places in `nodes`, in order.
    pub edges: Vec<(u32, u32)>,
    /// The sums.
    pub counts: CrawlCounts,
    /// The operation's statistics; `ended` is set.
    pub statistics: Statistics,
}

/// A node of the network, as a crawl has found it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Crawled<F: Family> {
    /// The node.
    pub node: F::Node,
    /// Whether it could be reached.
    pub reach: Reach,
    /// Length of the causal chain that led to it: 1 for a seed.
    pub hop: u32,
    /// How many of its buckets it was asked about.
    pub asked: u32,
    /// How many of them it told.
    pub answered: u32,
    /// How long its first answer took, in whole microseconds, at most 71 minutes.
    pub round_trip: Option<Duration>,
}

/// Whether a node could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Reach {
    /// It answered at least once.
    Reachable,
    /// It did not, as often as it was asked.
    Unreachable,
    /// The crawl ended before that was known.
    Unknown,
}

/// A node, as the crawl keeps it.
#[derive(Clone, Debug)]
struct Seen<F: Family> {
    node: F::Node,
    /// The next of those with the same key.
    next_alike: u32,
    /// Of the first answer.
    micros: u32,
    hop: u16,
    /// Requests made: the cpl of the next.
    asked: u16,
    answered: u16,
    /// Requests in a row without an answer.
    silent: u32,
    /// It will not be asked again.
    over: bool,
}

const NONE: u32 = u32::MAX;
/// Nodes with one key: a liar who names one key with ever other addresses gets no further than this.
const ALIKE: usize = 8;

/// A crawl, as the [task](Task) of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Survey<F: Family> {
    local: F::Key,
    config: CrawlConfig,
    /// How many buckets each node is asked about.
    buckets: u16,
    seeds: Vec<F::Node>,
    nodes: Vec<Seen<F>>,
    /// The first node of each key. Never iterated.
    keys: HashMap<F::Key, u32, Seeded>,
    /// Which names which. Iterated only to be sorted.
    edges: HashSet<u64, Seeded>,
    /// Whom to ask next.
    turns: VecDeque<u32>,
    pending: usize,
    /// There was no room for a node or an edge.
    full: bool,
    counts: CrawlCounts,
}

impl<F: Family> Survey<F> {
    pub(crate) fn new(local: F::Key, config: CrawlConfig, seeds: Vec<F::Node>) -> Self {
        let hash = Seeded(config.hash_seed);
        let buckets = config.max_cpl.min(F::Key::BITS - 1) + 1;
        Self {
            local,
            buckets: u16::try_from(buckets).unwrap_or(u16::MAX),
            seeds,
            nodes: Vec::new(),
            keys: HashMap::with_hasher(hash),
            edges: HashSet::with_hasher(hash),
            turns: VecDeque::new(),
            pending: 0,
            full: false,
            counts: CrawlCounts::default(),
            config,
        }
    }

    /// The place of a node, which is new if it was not known. `None` where it is not to be asked, or there is no room.
    fn learn(&mut self, node: &F::Node, hop: u16) -> Option<u32> {
        let key = F::key(node);
        if key == self.local || !F::admits(node) {
            return None;
        }
        let first = self.keys.get(&key).copied();
        let (mut last, mut alike, mut next) = (NONE, 0, first.unwrap_or(NONE));
        while let Some(seen) = self.nodes.get(next as usize) {
            if seen.node == *node {
                return Some(next);
            }
            alike += 1;
            (last, next) = (next, seen.next_alike);
        }
        let place = u32::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < self.config.max_nodes);
        self.full |= place.is_none();
        let Some(place) = place.filter(|_| alike < ALIKE) else {
            self.counts.left_out += 1;
            return None;
        };
        match self.nodes.get_mut(last as usize) {
            Some(seen) => seen.next_alike = place,
            None => {
                self.keys.insert(key, place);
            }
        }
        let (node, next_alike) = (node.clone(), NONE);
        self.nodes.push(Seen {
            node,
            next_alike,
            micros: 0,
            hop,
            asked: 0,
            answered: 0,
            silent: 0,
            over: false,
        });
        self.counts.nodes += 1;
        self.turns.push_back(place);
        Some(place)
    }

    fn node(&self, place: Place) -> Option<&Seen<F>> {
        let Place::Crawl(place) = place else { return None };
        self.nodes.get(place as usize)
    }

    /// A request to a node has ended.
    fn ended(&mut self, place: u32) {
        self.pending -= 1;
        let (buckets, most) = (self.buckets, self.config.max_failures);
        let Some(seen) = self.nodes.get_mut(place as usize) else { return };
        if seen.asked < buckets && seen.silent < most {
            self.turns.push_back(place);
            return;
        }
        seen.over = true;
        self.counts.unreachable += u32::from(seen.answered == 0);
    }
}

impl<F: Family> Task<F> for Survey<F> {
    type Progress = CrawlProgress<F>;
    type Finish = CrawlFinish<F>;

    fn begin(&mut self, _now: Instant, _deadline: Instant) {
        for node in core::mem::take(&mut self.seeds) {
            self.learn(&node, 1);
        }
    }

    fn next(&mut self, _now: Instant) -> Next<F> {
        if self.pending < self.config.max_in_flight
            && let Some(turn) = self.turns.pop_front()
            && let Some(seen) = self.nodes.get_mut(turn as usize)
        {
            seen.asked += 1;
            self.pending += 1;
            let (place, node, hop) = (Place::Crawl(turn), seen.node.clone(), seen.hop);
            let until = Instant::FAR_FUTURE;
            return Next::Ask { place, node, hop, again: false, patient: true, until };
        }
        if self.pending > 0 {
            return Next::Wait;
        }
        Next::Done(if self.full { Outcome::NodeLimit } else { Outcome::Complete })
    }

    fn take_back(&mut self, place: Place) {
        self.withdrawn(place);
        if let Place::Crawl(place) = place {
            self.turns.push_front(place);
        }
    }

    fn ask(&mut self, place: Place, node: &F::Node) -> (F::Key, Ask<F>) {
        let key = F::key(node);
        let asked = self.node(place).map_or(0, |seen| seen.asked.saturating_sub(1));
        (key.with_flipped(u32::from(asked)), Ask::FindCloser)
    }

    fn answered(&mut self, place: Place, _: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8 {
        let Place::Crawl(place) = place else { return 0 };
        let Some(seen) = self.nodes.get_mut(place as usize) else { return 0 };
        if seen.answered == 0 {
            seen.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
            self.counts.reachable += 1;
        }
        seen.answered += 1;
        seen.silent = 0;
        let hop = seen.hop.saturating_add(1);
        let most = self.config.max_closer_nodes;
        self.counts.left_out += answer.closer.len().saturating_sub(most) as u64;
        for node in answer.closer.iter().take(most) {
            let Some(named) = self.learn(node, hop).filter(|named| *named != place) else { continue };
            let edge = u64::from(place) << 32 | u64::from(named);
            if self.edges.len() < self.config.max_edges {
                self.counts.edges += u32::from(self.edges.insert(edge));
            } else {
                let lost = !self.edges.contains(&edge);
                self.counts.left_out += u64::from(lost);
                self.full |= lost;
            }
        }
        self.ended(place);
        0
    }

    fn missed(&mut self, place: Place, _miss: Miss) {
        if let Place::Crawl(place) = place
            && let Some(seen) = self.nodes.get_mut(place as usize)
        {
            seen.silent += 1;
            self.ended(place);
        }
    }

    fn withdrawn(&mut self, place: Place) {
        if let Place::Crawl(place) = place
            && let Some(seen) = self.nodes.get_mut(place as usize)
        {
            seen.asked -= 1;
            self.pending -= 1;
        }
    }

    fn slow(&mut self, _place: Place) {}

    fn is_crawl(&self) -> bool {
        true
    }

    fn progress(&self, request: Progress<F>, _place: Place) -> CrawlProgress<F> {
        CrawlProgress { request, counts: self.counts }
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of a number
    fn finish(self, end: End) -> CrawlFinish<F> {
        let End { operation, outcome, statistics } = end;
        let crawled = |seen: Seen<F>| Crawled {
            reach: match (seen.answered > 0, seen.over) {
                (true, _) => Reach::Reachable,
                (false, true) => Reach::Unreachable,
                (false, false) => Reach::Unknown,
            },
            hop: u32::from(seen.hop),
            asked: u32::from(seen.asked),
            answered: u32::from(seen.answered),
            round_trip: (seen.answered > 0).then(|| Duration::from_micros(u64::from(seen.micros))),
            node: seen.node,
        };
        let mut edges: Vec<_> =
            self.edges.into_iter().map(|edge| ((edge >> 32) as u32, edge as u32)).collect();
        edges.sort_unstable();
        let nodes = self.nodes.into_iter().map(crawled).collect();
        CrawlFinish { operation, outcome, nodes, edges, counts: self.counts, statistics }
    }

    fn found(_: &mut CrawlFinish<F>) -> Option<Found<'_, F>> {
        None
    }
}

/// What a [`Crawl`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Begin a crawl. The stamp holds its span and its deadline.
    Start(StartCrawl<F>),
    /// End a crawl now, as if its deadline had come. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered. The stamp holds the span in which the driver did the IO.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// A request failed: the node is unreachable, or answered nonsense.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Crawl`] says. Every start is followed by one `Finished` or, in the same call, by one `Refused`.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(CrawlProgress<F>),
    /// A crawl ended: its last event.
    Finished(CrawlFinish<F>),
    /// A start was not accepted.
    Refused(Refused),
}

says!(Outbound {
    Request: Request<F>,
    Cancel: Cancel<F>,
    Started: Started,
    Progress: CrawlProgress<F>,
    Finished: CrawlFinish<F>,
    Refused: Refused,
});

/// Maps networks: crawls with requests of their own. A [`Coordinator`](crate::Coordinator) can crawl too, beginning with the
/// nodes of its routing table.
#[derive(Clone, Debug)]
pub struct Crawl<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Survey<F>>,
    config: CrawlConfig,
}

impl<F: Family> Crawl<F> {
    /// A machine of the node whose own key is `local`: that key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: CrawlConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let pool =
            PoolConfig { max_running: config.max_crawls.max(1), max_waiting: 0, ..PoolConfig::default() };
        Ok(Self {
            clock: Clock::default(),
            outbox: Outbox::new(network)?.without_soft_limits(),
            pool: Pool::new(local, pool)?,
            config,
        })
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live crawl that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }
}

impl<F: Family> Machine for Crawl<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool, config } = self;
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        while pool.elapse(&mut turn).is_some() {}
        pool.settle(&mut turn, |_, _, _, _| ());
        match event {
            Inbound::Start(start) => {
                let event = Stamped { event: start, context: context.clone(), deadline };
                pool.start_crawl(&mut turn, event, config, |_| ());
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                let replied = Replied::Answer(closer, Carried::default());
                pool.reply(&mut turn, request, &context, replied);
            }
            Inbound::Failed(request) => pool.reply(&mut turn, request, &context, Replied::Failure(None)),
            Inbound::Tick => {}
        }
        pool.settle(&mut turn, |_, _, _, _| ());
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.pool.next_deadline(), self.outbox.next_timeout())
    }
}

impl<F: Family, T: Task<F> + From<Survey<F>>> Pool<F, T> {
    /// Accepts the start of a crawl or refuses it. `more_seeds` is asked only if it is accepted.
    pub(crate) fn start_crawl<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        stamped: Stamped<StartCrawl<F>>,
        config: &CrawlConfig,
        more_seeds: impl FnOnce(&mut Vec<F::Node>),
    ) {
        let Stamped { event: StartCrawl { tag, mut seeds }, context, deadline } = stamped;
        let starting = Starting { tag, context, deadline, timeout: config.timeout, bootstrap: false };
        let full = self.crawls() >= config.max_crawls;
        let objection = if full { Err(RefusedBecause::Full) } else { Ok(()) };
        self.start(turn, starting, objection, |pool| {
            more_seeds(&mut seeds);
            Survey::new(pool.local(), config.clone(), seeds).into()
        });
    }
}
