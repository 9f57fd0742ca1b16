//! Machines in which lookups and a routing table work together: [`Maintenance`], and two parts of it alone.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `quiescence.rs` | the engine: operations and routing, and the loop that connects them; the coordinator uses it too |
//! | this one | [`Maintenance`]: bootstrap, include, probe and explore over one table, without other lookups |
//! | `bootstrap.rs` | [`Bootstrap`](bootstrap::Bootstrap): a lookup of the node's own key |
//! | `explore.rs` | [`Explore`](explore::Explore): refreshes of buckets |
//!
//! The rules of the maintenance are in [`routing`](crate::routing). What connects operations with the routing
//! table belongs here. Broadcasts and crawls do not: the coordinator adds them.

use crate::deadline::MonotonicClock;
use crate::lookups::config::QueryConfig;
use crate::lookups::lookup_task::LookupTask;
use crate::maintenance::quiescence::Engine;
use crate::operations::config::PoolConfig;
use crate::operations::pool::OperationPool;
use crate::requests::call_context::CallContext;
use crate::requests::config::NetworkConfig;
use crate::requests::purpose::Purpose;
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::routing::Routing;
use crate::routing::config::{RoutingConfig, RoutingCounts};
use crate::routing::events::{RoutingInbound, RoutingOutbound};
use crate::routing::table::{RoutingTable, SavedNode, TableConfig};
use crate::routing::table_view::TableView;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::operation_events::{Finish, OperationOutbound, Progress, Refused, Start, Started};
use crate::vocabulary::outbound::{inbound_from, outbound_from};
use crate::vocabulary::request_events::{Cancel, Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;
pub mod bootstrap;
pub mod explore;
pub(crate) mod known_size;
pub(crate) mod quiescence;

/// The configuration of a [`Maintenance`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceConfig {
    /// The lookups of bootstrap and explore.
    pub query: QueryConfig,
    /// The number of the caller's bootstraps that may run or wait.
    pub pool: PoolConfig,
    /// Requests: limits in flight and time-outs.
    pub network: NetworkConfig,
    /// The routing table.
    pub table: TableConfig,
    /// The maintenance of the table.
    pub routing: RoutingConfig,
}

impl MaintenanceConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.query.validate()?;
        self.pool.validate()?;
        self.network.validate()?;
        self.table.validate()?;
        self.routing.validate()
    }
}

/// Inbound events of a [`Maintenance`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Inbound<F: Family> {
    /// Join: starts an operation of the caller's, the lookup of [`Start::bootstrap`]. The stamp contains its
    /// span and its deadline.
    Bootstrap {
        /// A number that the caller chooses to recognise the operation by; see [`Start::tag`].
        tag: u64,
        /// Nodes to begin with, besides those of the table. They are remembered.
        seeds: Vec<F::Node>,
    },
    /// Ends a bootstrap of the caller's now, in the same way as at its deadline. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered, or has failed. The stamp contains the span in which the driver did the IO.
    Response(Response<F>),
    /// What the driver knows about nodes from other sources than the machine's own requests.
    Routing(RoutingInbound<F>),
    /// Only time has passed.
    Tick,
}

/// Outbound events of a [`Maintenance`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outbound<F: Family> {
    /// A bootstrap of the caller's was accepted.
    Started(Started),
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// A request of the caller's bootstrap ended.
    Progress(Progress<F>),
    /// A bootstrap of the caller's ended: its last event.
    Finished(Finish<F>),
    /// A bootstrap of the caller's was not accepted.
    Refused(Refused),
    /// What happened to the routing table.
    Routing(RoutingOutbound<F>),
}

outbound_from!(Outbound { Request: Request<F>, Cancel: Cancel<F>, Routing: RoutingOutbound<F> });
inbound_from!(Inbound { Response: Response<F>, Routing: RoutingInbound<F> });

impl<F: Family> From<OperationOutbound<F, Progress<F>, Finish<F>>> for Outbound<F> {
    #[inline]
    fn from(event: OperationOutbound<F, Progress<F>, Finish<F>>) -> Self {
        match event {
            OperationOutbound::Started(started) => Self::Started(started),
            OperationOutbound::Request(request) => Self::Request(request),
            OperationOutbound::Cancel(cancel) => Self::Cancel(cancel),
            OperationOutbound::Progress(progress) => Self::Progress(progress),
            OperationOutbound::Finished(finish) => Self::Finished(finish),
            OperationOutbound::Refused(refused) => Self::Refused(refused),
        }
    }
}

/// A routing table that keeps itself up to date: bootstrap, include, probe and explore over one table, with
/// its own request queue. For callers that have their own lookups, or need only a table to answer requests
/// from.
///
/// It is a [`Coordinator`](crate::Coordinator) whose only operation is the bootstrap.
#[derive(Clone, Debug)]
pub struct Maintenance<F: Family> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Purpose>,
    engine: Engine<F, LookupTask<F>>,
}

impl<F: Family> Maintenance<F> {
    /// An empty table of the node whose own id is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Target, config: MaintenanceConfig, secret: &Secret) -> Result<Self, ConfigError> {
        config.validate()?;
        let MaintenanceConfig { query, pool, network, table, routing } = config;
        let seeds = secret.seeds();
        let table = RoutingTable::with_seeds(local, table, &seeds)?;
        let engine = Engine {
            operations: OperationPool::new(table.local_node().clone(), pool, &seeds)?,
            routing: Routing::new(table, routing, query.k, query.max_closer_nodes, &seeds)?,
            query,
            size_watch: None,
        };
        let requests = RequestQueue::new(network, &seeds)?;
        Ok(Self { clock: MonotonicClock::default(), requests, engine })
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.engine.set_family(family);
        self
    }

    /// The nodes of the table as a value that can be shared, for tasks that answer the requests of other nodes.
    pub fn view(&self) -> TableView<F> {
        TableView::new(self.table())
    }

    /// The routing table.
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.engine.routing.table
    }

    /// Counts of what the maintenance did so far.
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
    /// data: to be stored, and restored by [`RoutingInbound::Restore`] when the program starts again.
    pub fn snapshot(&self, now: Instant) -> Vec<SavedNode<F>> {
        self.engine.routing.snapshot(now)
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    /// The id of the live bootstrap that was started with this tag; pass it to [`Inbound::Stop`].
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.engine.operations.operation(tag)
    }
}

impl<F: Family> Machine for Maintenance<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, requests, engine } = self;
        let Stamped { event, context, deadline } = event;
        let mut call = CallContext::new(clock.advance(now), requests, out);
        engine.elapse(&mut call);
        match event {
            Inbound::Bootstrap { tag, seeds } => {
                let event = Start::bootstrap(tag, engine.routing.table.local_node().target.clone(), seeds);
                engine.start_lookup(&mut call, Stamped { event, context, deadline });
            }
            Inbound::Stop(id) => engine.stop(&mut call, id, &context),
            Inbound::Response(response) => engine.respond(&mut call, response, &context),
            Inbound::Routing(event) => engine.routing_event(&mut call, event, &context),
            Inbound::Tick => {}
        }
        engine.settle(&mut call);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout(&self.requests)
    }
}
