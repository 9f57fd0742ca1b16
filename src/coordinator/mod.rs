//! [`Coordinator`]: a whole node, the machine that a driver embeds.
//!
//! The order of the outbound events of one operation (also of a query and of a pool):
//!
//! ```text
//! Start ──► Refused
//!       └─► Started ──► { Request, Cancel, Progress }* ──► Finished
//! Crawl, Broadcast ──► the same, with progress and finish events of their own
//!
//! Request ──► Progress (answered, failed)
//!         │   Cancel, Progress (timed out)
//!         │   Cancel (its operation ended, or it was superseded)
//! ```
//!
//! No event of an operation comes after its `Finished`. A response or a stop for it after that is ignored,
//! and counted in [`RequestStats`].
//!
//! | file | what it holds |
//! | --- | --- |
//! | this one | [`Coordinator`]: construction, queries, and the handling of an inbound event |
//! | `broadcasts_and_crawls.rs` | how crawls and broadcasts start from the table, and the estimate of the network's size |
//! | `any_task.rs` | the one task type of its operations: a lookup, a crawl or a broadcast |
//! | `config.rs`, `events.rs` | configuration; events in and out |
//!
//! The coordinator only composes the other rooms of the engine, and may use all of them. Rules of lookups,
//! broadcasts, crawls and of the routing table belong in their rooms.

pub(crate) mod any_task;
mod broadcasts_and_crawls;
pub(crate) mod config;
pub(crate) mod events;

use crate::broadcast::config::BroadcastConfig;
use crate::coordinator::any_task::AnyTask;
use crate::crawl::config::CrawlConfig;
use crate::deadline::MonotonicClock;
use crate::maintenance::quiescence::Engine;
use crate::network_size::config::NetworkSizeConfig;
use crate::network_size::watch::SizeWatch;
use crate::network_size::{NotEnoughData, SizeEstimate};
use crate::operations::pool::OperationPool;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::Purpose;
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::routing::Routing;
use crate::routing::config::RoutingCounts;
use crate::routing::table::{RoutingTable, SavedNode};
use crate::routing::table_view::TableView;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::secret::{Secret, Seeds};
use crate::vocabulary::time::Instant;

pub use config::Config;
pub use events::{Inbound, Outbound};

/// A whole Kademlia node, without its IO: lookups, crawls and broadcasts, the limits on their requests, and the
/// routing table that they begin from and feed.
///
/// # Joining, and staying joined
///
/// A node begins with an empty table. [`Start::bootstrap`](crate::Start::bootstrap) with a few seeds joins:
/// it looks up the node's own key, which fills the buckets near that key; then the other buckets are
/// refreshed automatically. From then on the table keeps itself up to date: see [`routing`](crate::routing).
/// Report every node that sends a request to this node
/// ([`RoutingInbound::Discovered`](crate::RoutingInbound::Discovered)).
#[derive(Clone, Debug)]
pub struct Coordinator<F: Family> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Purpose>,
    engine: Engine<F, AnyTask<F>>,
    crawl: CrawlConfig,
    broadcast: BroadcastConfig,
}

impl<F: Family> Coordinator<F> {
    /// A node whose own id is `local`: what other nodes ask for when they look for it.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Target, config: Config, secret: &Secret) -> Result<Self, ConfigError> {
        let seeds = secret.seeds();
        Self::with_table(RoutingTable::with_seeds(local, config.table.clone(), &seeds)?, config, &seeds)
    }

    /// A node that begins with this table, and with its key.
    pub(crate) fn with_table(
        table: RoutingTable<F>,
        config: Config,
        seeds: &Seeds,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let Config { query, pool, network, routing, crawl, broadcast, network_size, .. } = config;
        let size = network_size.map(|size| NetworkSizeConfig { k: size.k.min(query.k), ..size });
        let operations = OperationPool::new(table.local_node().clone(), pool, seeds)?;
        let engine = Engine {
            operations: operations.with_background(broadcast.background()).with_food(),
            routing: Routing::new(table, routing, query.k, query.max_closer_nodes, seeds)?,
            query,
            size_watch: size.map(SizeWatch::new).transpose()?,
        };
        let requests = RequestQueue::new(network, seeds)?;
        Ok(Self { clock: MonotonicClock::default(), requests, engine, crawl, broadcast })
    }

    /// The same node, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.engine.set_family(family);
        self
    }

    /// Adds a round trip to the time-out estimate, so that the node starts like one that has run for some
    /// time.
    #[cfg(any(feature = "record", feature = "sim"))]
    pub(crate) fn observe(&mut self, round_trip: core::time::Duration) {
        self.requests.observe_anonymous(round_trip);
    }

    /// The routing table. To answer a request for the nodes closest to a key, use
    /// [`closest`](RoutingTable::closest).
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.engine.routing.table
    }

    /// The nodes of the table as a value that can be shared, for tasks that answer the requests of other nodes.
    pub fn view(&self) -> TableView<F> {
        TableView::new(self.table())
    }

    /// Calls `visit` for every node that the engine holds, each at least once, in no particular order: those of the
    /// table, of its maintenance, of live operations and of requests. A driver whose node ids are handles may forget
    /// what it knows of all others: no later event names them, until the driver itself does. It costs time in
    /// proportion to their number, so call it now and then.
    pub fn visit_nodes(&self, mut visit: impl FnMut(&F::Node)) {
        self.requests.visit_nodes(&mut visit);
        self.engine.visit_nodes(&mut visit);
    }

    /// Counts of what the routing maintenance did so far.
    pub fn routing_counts(&self) -> RoutingCounts {
        self.engine.routing.counts()
    }

    /// The number of refreshes of the bucket with this common prefix length (in bits) that explore has begun.
    pub fn refreshes(&self, cpl: u32) -> u64 {
        self.engine.routing.refreshes(cpl)
    }

    /// Whether a node is in the list of nodes to probe, which contains exactly those of the table; `None` if
    /// [nothing is probed](crate::RoutingConfig::probe).
    pub fn is_probed(&self, node: &F::Node) -> Option<bool> {
        self.engine.routing.is_probed(node)
    }

    /// The nodes of the routing table, those that it has lost and may come back to, and the seeds that are not in it, as plain
    /// data: to be stored, and restored by [`RoutingInbound::Restore`](crate::RoutingInbound::Restore) when the program
    /// starts again.
    pub fn snapshot(&self, now: Instant) -> Vec<SavedNode<F>> {
        self.engine.routing.snapshot(now)
    }

    /// The size of the network, estimated from the lookups that have converged: the caller's and those of the
    /// routing maintenance.
    ///
    /// # Errors
    /// [`NotEnoughData`] if there were too few of them lately, or nothing is [estimated](Config::network_size).
    pub fn network_size(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        self.engine.size_watch.as_ref().map_or(Err(NotEnoughData::NONE), |size| size.estimate(now))
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    /// The id of the live operation that was started with this tag; pass it to [`Inbound::Stop`].
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.engine.operations.operation(tag)
    }

    /// The number of the caller's live operations, running or waiting.
    pub fn operations(&self) -> usize {
        self.engine.operations.counts().0
    }

    /// The number of the caller's operations that run.
    pub fn running(&self) -> usize {
        self.engine.operations.counts().1
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
        let Self { clock, requests, engine, crawl, broadcast } = self;
        let mut first_new = out.len(); // the first outbound event that is not yet sampled for the network's size
        let Stamped { event, context, deadline } = event;
        let mut call = CallContext::new(clock.advance(now), requests, out);
        // What was due before the event.
        engine.elapse(&mut call);
        engine.update_network_size(&mut call, &mut first_new);
        // The event.
        match event {
            Inbound::Start(event) => engine.start_lookup(&mut call, Stamped { event, context, deadline }),
            Inbound::Crawl(event) => {
                engine.start_crawl(&mut call, Stamped { event, context, deadline }, crawl);
            }
            Inbound::Broadcast(event) => {
                engine.start_broadcast(&mut call, Stamped { event, context, deadline }, broadcast);
            }
            Inbound::Stop(id) => engine.stop(&mut call, id, &context),
            Inbound::Response(response) => engine.respond(&mut call, response, &context),
            Inbound::Routing(event) => engine.routing_event(&mut call, event, &context),
            Inbound::Tick => {}
        }
        // What can be done after it.
        engine.settle(&mut call);
        engine.update_network_size(&mut call, &mut first_new);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout(&self.requests)
    }
}
