//! The coordinator: what a driver embeds.
//!
//! What may follow what, for one operation (of a query and of a pool too):
//!
//! ```text
//! Start ──► Refused
//!       └─► Started ──► { Request, Cancel, Progress }* ──► Finished
//! Crawl, Broadcast ──► the same, with progress and finish of their own
//!
//! Request ──► Progress (answered, failed)
//!         │   Cancel, Progress (timed out)
//!         │   Cancel (its operation ended, or it was superseded)
//! ```
//!
//! Nothing of an operation comes after its `Finished`. Whatever is handed in for it then is ignored, and counted in
//! [`Traffic`].

use crate::broadcast::{BroadcastConfig, BroadcastFinish, BroadcastProgress, StartBroadcast};
use crate::context::Cause;
use crate::crawl::{CrawlConfig, CrawlFinish, CrawlProgress, StartCrawl};
use crate::deadline::Clock;
use crate::error::ConfigError;
use crate::event::{
    Bootstrapped, Cancel, Carried, Finish, Outcome, Progress, Refused, Request, Start, Started, says,
};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::job::Job;
use crate::machine::{Batch, Machine, Stamped};
use crate::netsize::{NetworkSizeConfig, NotEnoughData, SizeEstimate};
use crate::outbox::{NetworkConfig, Outbox, Traffic};
use crate::pool::{Pool, PoolConfig, Replied};
use crate::routing::{Routing, RoutingConfig, RoutingCounts, says_notices};
use crate::table::{RoutingTable, Saved, TableConfig};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;

/// The configuration of a whole node. The defaults suit a node on the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Of the lookups.
    pub pool: PoolConfig,
    /// Of the requests.
    pub network: NetworkConfig,
    /// Of the routing table.
    pub table: TableConfig,
    /// Of those who look after it.
    pub routing: RoutingConfig,
    /// Of crawls.
    pub crawl: CrawlConfig,
    /// Of broadcasts.
    pub broadcast: BroadcastConfig,
    /// How the size of the network is estimated; `None`: not at all, and optimistic broadcasts fall back to follow-ups. Its k is
    /// cut off at that of the lookups.
    pub network_size: Option<NetworkSizeConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool: PoolConfig::default(),
            network: NetworkConfig::default(),
            table: TableConfig::default(),
            routing: RoutingConfig::default(),
            crawl: CrawlConfig::default(),
            broadcast: BroadcastConfig::default(),
            network_size: Some(NetworkSizeConfig::default()),
        }
    }
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.pool.validate()?;
        self.network.validate()?;
        self.table.validate()?;
        self.routing.validate()?;
        self.crawl.validate()?;
        self.broadcast.validate()?;
        self.network_size.as_ref().map_or(Ok(()), NetworkSizeConfig::validate)
    }
}

/// What a [`Coordinator`] is told.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub enum Inbound<F: Family> {
    /// Begin a lookup, from the closest nodes that the routing table knows and the seeds given. The stamp holds its
    /// span and its deadline.
    Start(Start<F>),
    /// Begin a [crawl](crate::crawl), from the nodes of the routing table and the seeds given. The stamp holds its span and its
    /// deadline.
    Crawl(StartCrawl<F>),
    /// Store records with the right nodes: begin a [broadcast](crate::broadcast), from the closest nodes that the routing table
    /// knows and the seeds given. The stamp holds its span and its deadline.
    Broadcast(StartBroadcast<F>),
    /// End an operation now, as if its deadline had come. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered. The stamp holds the span in which the driver did the IO.
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
    /// The node lives, and refused to do what the request asked for. The stamp is as that of an answer.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why, as the driver puts it: passed through.
        why: F::Message,
    },
    /// A node is known to live and to serve by other means than a request of ours: it answered the driver, say. It is
    /// offered to the table, which may have no room for it.
    Connected {
        /// The node.
        node: F::Node,
        /// The round trip, if it was measured; time-outs are adapted to it.
        round_trip: Option<Duration>,
    },
    /// A node could not be reached, by other means than a request of ours: see [what follows](crate::routing).
    Disconnected(F::Node),
    /// A node was heard of or from, and nothing is proved: it sent us a request, say. It is checked before it enters the
    /// table. Hand in whoever asks us something: this is how those nearest to a newcomer learn of it.
    Discovered(F::Node),
    /// A node is known not to serve others (a client: libp2p's client mode, BEP 43's read-only flag). It leaves the table,
    /// and is not admitted again as long as it is [remembered](RoutingConfig::max_clients). Make sure that it is the node
    /// that says so: who may say it of others can keep them out.
    Client(F::Node),
    /// Remember these nodes as places to join from. A table that is nearly empty begins a bootstrap with them by itself; to
    /// have one with a deadline and a finish, start a [`Start::bootstrap`] instead, whose seeds are remembered too.
    Seeds(Vec<F::Node>),
    /// What an earlier run of the program knew: see [`Coordinator::snapshot`]. The nodes enter the table, as far as its
    /// limits allow, are probed at once, and are remembered as seeds.
    Restore(Vec<Saved<F>>),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Coordinator`] says.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
#[non_exhaustive]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request of a lookup ended.
    Progress(Progress<F>),
    /// A lookup ended: its last event.
    Finished(Finish<F>),
    /// A request of a crawl ended.
    CrawlProgress(CrawlProgress<F>),
    /// A crawl ended: its last event.
    CrawlFinished(CrawlFinish<F>),
    /// A request of a broadcast ended.
    BroadcastProgress(BroadcastProgress<F>),
    /// A broadcast ended: its last event. What an optimistic one has left to do goes on, as work of
    /// [`Owner::Background`](crate::Owner::Background).
    BroadcastFinished(BroadcastFinish<F>),
    /// A start was not accepted.
    Refused(Refused),
    /// A node entered the routing table: a side effect, linked to what led to it.
    Admitted(F::Node),
    /// A node left the routing table: a side effect, linked to what led to it.
    Removed(F::Node),
    /// A bootstrap ended: a side effect, linked to it.
    Bootstrapped(Bootstrapped),
    /// The routing table has fallen below [`BootstrapConfig::min_nodes`](crate::BootstrapConfig::min_nodes): a bootstrap from
    /// the seeds remembered begins by itself.
    NearEmpty {
        /// How many nodes are left.
        nodes: usize,
    },
    /// The size of the network is known, or has changed by more than a tenth since it was last said: a side effect, linked to the
    /// lookup that showed it. See [`NetworkSize`](crate::NetworkSize).
    NetworkSize {
        /// How many nodes there are, others than ourselves, that answer.
        nodes: u64,
    },
}

says!(Outbound {
    Started: Started,
    Request: Request<F>,
    Cancel: Cancel<F>,
    Refused: Refused,
});
says_notices!(Outbound);

/// A whole Kademlia node, without its IO: lookups, the limits on their requests, and the routing table that they
/// begin from and feed.
///
/// # Joining, and staying joined
///
/// A node begins knowing nobody. [`Start::bootstrap`] with a few seeds joins: it looks up one's own key, which fills the
/// buckets near it; then the others are refreshed by themselves. From then on the table looks after itself: see
/// [`routing`](crate::routing). Tell the coordinator of whoever sends a request ([`Inbound::Discovered`]).
#[derive(Clone, Debug)]
pub struct Coordinator<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    pool: Pool<F, Job<F>>,
    routing: Routing<F>,
    crawl: CrawlConfig,
    broadcast: BroadcastConfig,
}

impl<F: Family> Coordinator<F> {
    /// A node whose own key is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: Config) -> Result<Self, ConfigError> {
        Self::with_table(RoutingTable::new(local, config.table.clone())?, config)
    }

    /// A node that begins with this table, around whose key it stands.
    pub(crate) fn with_table(table: RoutingTable<F>, config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let (k, max_closer_nodes) = (config.pool.query.k, config.pool.query.max_closer_nodes);
        Ok(Self {
            clock: Clock::default(),
            outbox: Outbox::new(config.network)?,
            pool: Pool::new(table.local(), config.pool)?.with_background(config.broadcast.background()),
            routing: Routing::new(table, config.routing, k, max_closer_nodes, config.network_size)?,
            crawl: config.crawl,
            broadcast: config.broadcast,
        })
    }

    /// Takes a round trip that was measured before: what a node knows that has been up for a while.
    #[cfg(any(feature = "record", feature = "sim"))]
    pub(crate) fn observe(&mut self, round_trip: Duration) {
        self.outbox.observe(round_trip);
    }

    /// The routing table. To answer somebody who asks for the nodes closest to a key, use
    /// [`closest`](RoutingTable::closest).
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.routing.table
    }

    /// What the routing maintenance did so far.
    pub fn routing(&self) -> RoutingCounts {
        self.routing.counts()
    }

    /// How many refreshes of the bucket with this common prefix length (in bits) explore has begun.
    pub fn explored(&self, cpl: u32) -> u64 {
        self.routing.explored(cpl)
    }

    /// Whether a node is in the list of nodes to probe, which holds exactly those of the table; `None` where
    /// [nothing is probed](RoutingConfig::probe).
    pub fn probes(&self, node: &F::Node) -> Option<bool> {
        self.routing.probes(node)
    }

    /// The nodes of the routing table as plain data, to be stored and given back by [`Inbound::Restore`] when the program
    /// begins anew.
    pub fn snapshot(&self, now: Instant) -> Vec<Saved<F>> {
        self.routing.snapshot(now)
    }

    /// How large the network is, judged by the lookups that have converged: those of the caller and those of the routing
    /// maintenance.
    ///
    /// # Errors
    /// [`NotEnoughData`] where there were too few of them lately, or nothing is [estimated](Config::network_size).
    pub fn network_size(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        self.routing.network_size(now)
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live operation that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }

    /// Operations of the caller that live, running or waiting.
    pub fn operations(&self) -> usize {
        self.pool.counts().0
    }

    /// Operations of the caller that run.
    pub fn running(&self) -> usize {
        self.pool.counts().1
    }
}

impl<F: Family> AsRef<Self> for Coordinator<F> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<F: Family> Machine for Coordinator<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool, routing, crawl, broadcast } = self;
        let said = out.len();
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        routing.elapse(&mut turn, pool);
        sample(routing, turn.now, turn.out, said);
        let said = turn.out.len();
        match event {
            Inbound::Start(event) => routing.start(&mut turn, pool, Stamped { event, context, deadline }),
            Inbound::Crawl(event) => {
                let stamped = Stamped { event, context: context.clone(), deadline };
                pool.start_crawl(&mut turn, stamped, crawl, |seeds| {
                    seeds.extend(routing.table.iter().map(|record| record.node().clone()));
                });
            }
            Inbound::Broadcast(event) => {
                let stamped = Stamped { event, context: context.clone(), deadline };
                let (now, known) = (turn.now, &*routing);
                let more_seeds = |start: &mut StartBroadcast<F>| known.seed(start);
                let size = || known.network_size(now).map(|size| size.nodes());
                pool.start_broadcast(&mut turn, stamped, broadcast, more_seeds, size);
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                routing.reply(
                    &mut turn,
                    pool,
                    request,
                    &context,
                    Replied::Answer(closer, Carried::default()),
                );
            }
            Inbound::AnsweredWith { request, closer, carried } => {
                routing.reply(&mut turn, pool, request, &context, Replied::Answer(closer, carried));
            }
            Inbound::Failed(request) => {
                routing.reply(&mut turn, pool, request, &context, Replied::Failure(None));
            }
            Inbound::Rejected { request, why } => {
                routing.reply(&mut turn, pool, request, &context, Replied::Failure(Some(why)));
            }
            Inbound::Connected { node, round_trip } => {
                routing.connected(&mut turn, &node, round_trip, &context);
            }
            Inbound::Disconnected(node) => routing.disconnected(&mut turn, &node, &context),
            Inbound::Discovered(node) => routing.heard_of(turn.now, &node, &context),
            Inbound::Client(node) => routing.client(&mut turn, node, &context),
            Inbound::Seeds(seeds) => routing.remember(&seeds),
            Inbound::Restore(saved) => routing.restore(&mut turn, saved, &context),
            Inbound::Tick => {}
        }
        routing.settle(&mut turn, pool);
        sample(routing, turn.now, turn.out, said);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.routing.poll_timeout(&self.pool, &self.outbox)
    }
}

/// Judges the size of the network by the lookups that have converged, from this place of what was said on.
fn sample<F: Family>(routing: &mut Routing<F>, now: Instant, out: &mut Batch<Outbound<F>>, said: usize) {
    for Stamped { event, context, .. } in out.get(said..).unwrap_or_default() {
        let (target, closest) = match event {
            Outbound::Finished(it) if it.outcome == Outcome::Converged => (it.target, &it.closest),
            Outbound::BroadcastFinished(it) if it.lookup == Some(Outcome::Converged) => {
                (it.target, &it.closest)
            }
            _ => continue,
        };
        routing.sample(now, target, closest, context);
    }
    if let Some((nodes, context)) = routing.news() {
        out.push(Stamped { event: Outbound::NetworkSize { nodes }, context, deadline: None });
    }
}
