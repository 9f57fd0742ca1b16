//! Broadcast: records are stored with the right nodes, in time.
//!
//! | strategy | which nodes, and when |
//! | --- | --- |
//! | [follow-up](Strategy::FollowUp) | looks up the k closest to the record's key, then stores with them |
//! | [static](Strategy::Static) | stores with nodes that the caller names |
//! | [optimistic](Strategy::Optimistic) | stores during the lookup already, with nodes so close that they are almost surely among the k closest; returns when enough of them have stored, and lets the rest go on in the background |
//! | [sweep](Strategy::Sweep) | many records at once: looks up only as much as it takes to know the k closest of all of them, and gives each node all of its records in one request |
//!
//! A broadcast is an operation like a lookup, and each owns its lookups. Its time is split (deadline rule 8): the lookup ends
//! early enough for the stores to have their share, and where its own share runs out, the record is stored with the closest
//! nodes that have answered by then.

mod cast;
mod optimistic;
mod stores;
mod sweep;

pub(crate) use cast::Cast;

use crate::context::Cause;
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::event::{
    Ask, Cancel, Carried, Contact, Outcome, Progress, Record, Refused, RefusedBecause, Request, Says,
    Started, Statistics, says,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::machine::{Batch, Machine, Stamped};
use crate::netsize::NotEnoughData;
use crate::outbox::{NetworkConfig, Outbox, Traffic};
use crate::pool::{Background, Pool, PoolConfig, Replied, Starting, earlier};
use crate::query::QueryConfig;
use crate::sweep::{Explored, SweepConfig};
use crate::task::Task;
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;

/// How broadcasts go about it.
///
/// Memory of a broadcast: that of its start; of a lookup as [`QueryConfig`] bounds it (of a sweep: of `max_lookups` at once, what
/// [`SweepConfig`] says, and 4 bytes for each of the k nodes of each record); some 60 bytes and a node id for each node that it
/// stores with, and as much again in its finish; and what answers [carried](Carried::token), with a key, a node id and some 30
/// bytes for each node that was asked. The nodes that it stores with are at most k; or `max_nodes`, where they are given; or all
/// that a sweep finds; or twice k, of an optimistic one, as others take the place of those that fail. Vectors and tables grow by
/// doubling. Of those that go on in the background there are at most `max_background`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BroadcastConfig {
    /// How long a broadcast may take at most; its start may ask for less. Default: 60 s.
    pub timeout: Duration,
    /// How long a sweep may take at most; its start may ask for less. Of 10,000 records among as many nodes, looking up takes a
    /// few minutes. Default: 10 min.
    pub sweep_timeout: Duration,
    /// The end of its time that a broadcast keeps for storing, where it has at least ten times as much; else it keeps a tenth.
    /// (go-libp2p-kad-dht has the same.) A sweep keeps half of its time. Default: 1 s.
    pub store_time: Duration,
    /// How many stores of a broadcast may be in flight or wait for capacity. 1 to 1,024. Default: 20.
    pub parallel: usize,
    /// With how many nodes a static broadcast can store. At most 65,536. Default: 1,024.
    pub max_nodes: usize,
    /// An optimistic broadcast returns when this share of k has stored the record, in per cent, rounded up. 1 to 100. Default: 75.
    pub return_share: u8,
    /// Whether optimistic broadcasts store with nodes that have been named and have not answered yet. Where a store needs what
    /// the node's answer [carried](Carried::token), set it to false. Default: true.
    pub unasked: bool,
    /// How many stores of broadcasts that have returned may go on in the background, all together. Where there would be more,
    /// a broadcast that returns gives up the rest of its own. Each is granted as many as it may still need, 2k less those that
    /// have ended, so that the dead can be replaced: by default ten or so go on at once. At most 65,536. Default: 256.
    pub max_background: usize,
    /// How long they may go on. Default: 10 s.
    pub background_timeout: Duration,
    /// Of sweeps. `sweep.k` is not looked at: it is the query's; and `sweep.results` is cut off at `query.max_candidates`, but
    /// more than k. By default there are more lookups than there, as a sweep may be of records everywhere: 1,024.
    pub sweep: SweepConfig,
    /// How many lookups of a sweep run at once. 1 to 64. Default: 3.
    pub max_lookups: usize,
    /// How many records a sweep may have. At most 2^24. Default: 65,536.
    pub max_records: usize,
}

impl Default for BroadcastConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            sweep_timeout: Duration::from_secs(600),
            store_time: Duration::from_secs(1),
            parallel: 20,
            max_nodes: 1_024,
            return_share: 75,
            unasked: true,
            max_background: 256,
            background_timeout: Duration::from_secs(10),
            sweep: SweepConfig { max_lookups: 1_024, ..SweepConfig::default() },
            max_lookups: 3,
            max_records: 65_536,
        }
    }
}

impl BroadcastConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.timeout.is_zero(), "broadcast.timeout", "longer than zero")?;
        require(!self.sweep_timeout.is_zero(), "broadcast.sweep_timeout", "longer than zero")?;
        require((1..=1_024).contains(&self.parallel), "broadcast.parallel", "1 to 1,024")?;
        require(self.max_nodes <= 65_536, "broadcast.max_nodes", "at most 65,536")?;
        require((1..=100).contains(&self.return_share), "broadcast.return_share", "1 to 100")?;
        require(self.max_background <= 65_536, "broadcast.max_background", "at most 65,536")?;
        require(!self.background_timeout.is_zero(), "broadcast.background_timeout", "longer than zero")?;
        require((1..=64).contains(&self.max_lookups), "broadcast.max_lookups", "1 to 64")?;
        require(self.max_records <= 1 << 24, "broadcast.max_records", "at most 2^24")?;
        SweepConfig { k: 1, ..self.sweep.clone() }.validate()
    }

    /// How sweeps go about it, with lookups of this configuration.
    fn sweep_by(&self, query: &QueryConfig) -> SweepConfig {
        let results = self.sweep.results.clamp(query.k + 1, query.max_candidates.max(query.k + 1));
        SweepConfig { k: query.k, results, ..self.sweep.clone() }
    }

    pub(crate) const fn background(&self) -> Background {
        Background { most: self.max_background, timeout: self.background_timeout, granted: 0 }
    }
}

/// Asks for records to be stored.
///
/// Its deadline and its span travel in the [`Stamped`] around it. It is answered by [`Started`] or [`Refused`], in the same
/// call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct StartBroadcast<F: Family> {
    /// The caller's own name for the operation. A live operation's tag cannot be used again before its finish.
    pub tag: u64,
    /// What to store: one record or, by a sweep, 1 to `broadcast.max_records`; else it is
    /// [refused](RefusedBecause::Records).
    pub records: Vec<Record<F>>,
    /// With whom.
    pub strategy: Strategy<F>,
    /// What nodes are asked while they are looked for. [`Ask::FindCloser`], but where an answer is to carry something that the
    /// store needs.
    pub ask: Ask<F>,
    /// How many nodes must have stored a record for it to count as stored.
    pub success: Success,
    /// Nodes to begin with. The coordinator adds the closest that its routing table knows.
    pub seeds: Vec<F::Node>,
}

impl<F: Family> StartBroadcast<F> {
    fn of(tag: u64, records: Vec<Record<F>>, strategy: Strategy<F>) -> Self {
        Self { tag, records, strategy, ask: Ask::FindCloser, success: Success::default(), seeds: Vec::new() }
    }

    /// Stores a record with the k closest to its key.
    pub fn follow_up(tag: u64, key: F::Key, message: F::Message) -> Self {
        Self::of(tag, vec![Record { key, message }], Strategy::FollowUp)
    }

    /// Stores a record with these nodes.
    pub fn fixed(tag: u64, key: F::Key, message: F::Message, nodes: Vec<F::Node>) -> Self {
        Self::of(tag, vec![Record { key, message }], Strategy::Static(nodes))
    }

    /// Stores a record with the k closest to its key, and returns before all of them have been found, where the size of the
    /// network is known.
    pub fn optimistic(tag: u64, key: F::Key, message: F::Message) -> Self {
        Self::of(tag, vec![Record { key, message }], Strategy::Optimistic { nodes: None })
    }

    /// Stores each of many records with the k closest to its key.
    pub fn sweep(tag: u64, records: Vec<Record<F>>) -> Self {
        Self::of(tag, records, Strategy::Sweep)
    }

    /// The same, beginning with these nodes.
    #[must_use]
    pub fn with_seeds(mut self, seeds: Vec<F::Node>) -> Self {
        self.seeds = seeds;
        self
    }

    /// The same, asking nodes this while they are looked for.
    #[must_use]
    pub fn with_ask(mut self, message: F::Message) -> Self {
        self.ask = Ask::Message(message);
        self
    }

    /// The same, successful by this measure.
    #[must_use]
    pub fn with_success(mut self, success: Success) -> Self {
        self.success = success;
        self
    }
}

/// With which nodes a broadcast stores.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
#[non_exhaustive]
pub enum Strategy<F: Family> {
    /// A lookup, then stores with the k closest that have answered.
    FollowUp,
    /// Stores with these nodes, at most `broadcast.max_nodes`, else it is [refused](RefusedBecause::Nodes). A node named twice
    /// counts once, and we ourselves are left out.
    Static(Vec<F::Node>),
    /// Stores during the lookup with nodes inside the [individual threshold](crate::netsize::Thresholds::individual), ends it by
    /// the [set threshold](crate::netsize::Thresholds::set), and finishes when enough have stored; the rest goes on in the
    /// [background](crate::Owner::Background). (Optimistic provide: Trautwein et al., INFOCOM 2024.)
    Optimistic {
        /// How many nodes there are. `None`: as many as the coordinator estimates; where it can't, and where there is no
        /// coordinator, the broadcast [falls back](BroadcastFinish::fell_back) to a follow-up.
        nodes: Option<u64>,
    },
    /// See [`Sweep`](crate::Sweep).
    Sweep,
}

/// How many nodes must have stored a record for it to count as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Success {
    /// So many, or all of those that it was to be stored with, where those are fewer; at least one.
    Count(usize),
    /// This share, in per cent, rounded up, of those that it was to be stored with; at least one.
    Share(u8),
}

impl Default for Success {
    /// One.
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Success {
    /// Whether `stored` of `all` are enough.
    fn is_met(self, stored: usize, all: usize) -> bool {
        let wanted = match self {
            Self::Count(count) => count.min(all),
            Self::Share(share) => (all * usize::from(share)).div_ceil(100),
        };
        stored >= wanted.max(1)
    }
}

/// A request of a broadcast ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct BroadcastProgress<F: Family> {
    /// Which, and how.
    pub request: Progress<F>,
    /// Whether it was to store, rather than to find nodes.
    pub store: bool,
    /// How far the stores are.
    pub counts: StoreCounts,
}

/// How far the stores of a broadcast are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoreCounts {
    /// Nodes to store with, as far as they are known.
    pub nodes: u32,
    /// Those that have stored.
    pub stored: u32,
    /// Those that have failed, refused, or run into their time-out.
    pub failed: u32,
}

/// The last event of a broadcast.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct BroadcastFinish<F: Family> {
    /// The operation. Its id and its tag are free from now on.
    pub operation: OperationId,
    /// The key of its record; of a sweep, of its first.
    pub target: F::Key,
    /// How it ended: [`Complete`](Outcome::Complete) where all that it could do is done (by an optimistic one: or goes on in the
    /// background).
    pub outcome: Outcome,
    /// Whether each record is stored with as many nodes as the start asked for.
    pub succeeded: bool,
    /// How many records are not.
    pub short: usize,
    /// How many lookups it has begun: those of a sweep, and else one, or none where nodes were given.
    pub lookups: u32,
    /// How its lookup ended. [`DeadlineExceeded`](Outcome::DeadlineExceeded) where its share of the time ran out, and the record
    /// was stored with the closest that had answered by then. `None` where there was none, or it was not over when an optimistic
    /// broadcast had all that it wanted; and of a sweep, which has many: see `explored`.
    pub lookup: Option<Outcome>,
    /// Why a sweep looked no further; `None` where time ran out before.
    pub explored: Option<Explored>,
    /// Where an optimistic one stored as a follow-up does: why the size of the network is not known.
    pub fell_back: Option<NotEnoughData>,
    /// The closest nodes to the record's key that have answered, in order; of a sweep, nobody.
    pub closest: Vec<Contact<F>>,
    /// All nodes that something was to be stored with, and what became of it.
    pub stores: Vec<Stored<F>>,
    /// The operation's statistics; `ended` is set. Requests that go on in the background still count as in flight.
    pub statistics: Statistics,
}

/// What became of a store.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Stored<F: Family> {
    /// The node.
    pub node: F::Node,
    /// How it ended.
    pub end: StoreEnd<F>,
    /// Which of the records, by their places in the start. Empty where there is only one.
    pub records: Vec<u32>,
}

/// How a store ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
#[non_exhaustive]
pub enum StoreEnd<F: Family> {
    /// The node has stored it.
    Stored,
    /// The caller reported a failure.
    Failed,
    /// The node refused, for this reason.
    Rejected(F::Message),
    /// The request ran into its own time-out.
    TimedOut,
    /// It was sent, and given up because the broadcast ended.
    Cancelled,
    /// The broadcast ended before it was sent.
    Unsent,
    /// It goes on in the background.
    Background,
}

/// What a [`BroadcastPool`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Begin a broadcast. The stamp holds its span and its deadline.
    Start(StartBroadcast<F>),
    /// End a broadcast now, as if its deadline had come. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered: for a store, it is done. The stamp holds the span in which the driver did the IO.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// The same, and the answer carried something else that the engine has to know.
    AnsweredWith {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
        /// What it carried besides.
        carried: Carried<F>,
    },
    /// A request failed: the node is unreachable, or answered nonsense.
    Failed(RequestId),
    /// The node lives, and refused to do what the request asked for.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why, as the driver puts it: passed through.
        why: F::Message,
    },
    /// Nothing happened but time.
    Tick,
}

/// What a [`BroadcastPool`] says. Every start is followed by one `Finished` or, in the same call, by one `Refused`. What comes
/// after the `Finished` of an optimistic broadcast belongs to nobody: requests and cancels of
/// [`Owner::Background`](crate::Owner::Background).
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(BroadcastProgress<F>),
    /// A broadcast ended: its last event.
    Finished(BroadcastFinish<F>),
    /// A start was not accepted.
    Refused(Refused),
}

says!(Outbound {
    Started: Started,
    Request: Request<F>,
    Cancel: Cancel<F>,
    Progress: BroadcastProgress<F>,
    Finished: BroadcastFinish<F>,
    Refused: Refused,
});

/// Many broadcasts over one set of requests: a machine of its own. For one that knows where to begin, and how large the network
/// is, see the [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug)]
pub struct BroadcastPool<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Cast<F>>,
    config: BroadcastConfig,
}

impl<F: Family> BroadcastPool<F> {
    /// A pool of the node whose own key is `local`: that key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Key,
        broadcast: BroadcastConfig,
        pool: PoolConfig,
        network: NetworkConfig,
    ) -> Result<Self, ConfigError> {
        broadcast.validate()?;
        Ok(Self {
            clock: Clock::default(),
            outbox: Outbox::new(network)?,
            pool: Pool::new(local, pool)?.with_background(broadcast.background()),
            config: broadcast,
        })
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live broadcast that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }

    /// Broadcasts that live, running or waiting.
    pub fn operations(&self) -> usize {
        self.pool.counts().0
    }

    /// Broadcasts that run.
    pub fn running(&self) -> usize {
        self.pool.counts().1
    }
}

impl<F: Family> Machine for BroadcastPool<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool, config } = self;
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        let mut elapsed = false;
        while pool.elapse(&mut turn).is_some() {
            elapsed = true;
        }
        if elapsed {
            pool.settle(&mut turn, |_, _, _, _| ());
        }
        match event {
            Inbound::Start(start) => {
                let stamped = Stamped { event: start, context: context.clone(), deadline };
                let unknown = NotEnoughData { samples: 0, needed: 1 };
                pool.start_broadcast(&mut turn, stamped, config, |_| (), || Err(unknown));
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                pool.reply(&mut turn, request, &context, Replied::Answer(closer, Carried::default()));
            }
            Inbound::AnsweredWith { request, closer, carried } => {
                pool.reply(&mut turn, request, &context, Replied::Answer(closer, carried));
            }
            Inbound::Failed(request) => pool.reply(&mut turn, request, &context, Replied::Failure(None)),
            Inbound::Rejected { request, why } => {
                pool.reply(&mut turn, request, &context, Replied::Failure(Some(why)));
            }
            Inbound::Tick => {}
        }
        pool.settle(&mut turn, |_, _, _, _| ());
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.pool.next_deadline(), self.outbox.next_timeout())
    }
}

impl<F: Family, T: Task<F> + From<Cast<F>>> Pool<F, T> {
    /// Accepts the start of a broadcast or refuses it. `more_seeds` and the size of the network are asked for only if it is
    /// accepted.
    pub(crate) fn start_broadcast<E: Says<F, T>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        stamped: Stamped<StartBroadcast<F>>,
        config: &BroadcastConfig,
        more_seeds: impl FnOnce(&mut StartBroadcast<F>),
        size: impl FnOnce() -> Result<u64, NotEnoughData>,
    ) {
        let Stamped { event: mut start, context, deadline } = stamped;
        let sweeps = start.strategy == Strategy::Sweep;
        let timeout = if sweeps { config.sweep_timeout } else { config.timeout };
        let starting = Starting { tag: start.tag, context, deadline, timeout, bootstrap: false };
        let objection = admit(config, &start);
        self.start(turn, starting, objection, |pool| {
            more_seeds(&mut start);
            Cast::new(pool.local(), pool.config(), config, start, size).into()
        });
    }
}

/// Why a start cannot be accepted, if so.
fn admit<F: Family>(config: &BroadcastConfig, start: &StartBroadcast<F>) -> Result<(), RefusedBecause> {
    let most = if start.strategy == Strategy::Sweep { config.max_records } else { 1 };
    if start.records.is_empty() || start.records.len() > most {
        return Err(RefusedBecause::Records { most });
    }
    match &start.strategy {
        Strategy::Static(nodes) if nodes.len() > config.max_nodes => {
            Err(RefusedBecause::Nodes { most: config.max_nodes })
        }
        _ => Ok(()),
    }
}
