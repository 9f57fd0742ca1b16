//! [`Explore`]: refreshes buckets by lookups of random keys, on a schedule, as a machine.

use crate::deadline::MonotonicClock;
use crate::lookups::config::QueryConfig;
use crate::lookups::lookup_task::LookupTask;
use crate::lookups::query;
use crate::operations::config::PoolConfig;
use crate::operations::pool::OperationPool;
use crate::requests::call_context::CallContext;
use crate::requests::config::NetworkConfig;
use crate::requests::purpose::{Purpose, ReleasedCheck};
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::routing::events::DueLookup;
use crate::routing::explore_schedule::{ExploreConfig, ExploreSchedule};
use crate::routing::table::{Offered, RoutingTable, TableConfig};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::operation_events::{EndedLookup, OperationStats, Outcome, Start};
use crate::vocabulary::outbound::inbound_from;
use crate::vocabulary::request_events::{Cancel, Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::{Instant, earlier};
use opentelemetry::trace::SpanContext;

/// Inbound events of an [`Explore`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// A live node: the next lookups may begin from it, if the table of this machine admits it.
    Add(F::Node),
    /// A node that has gone: it leaves the table of this machine.
    Remove(F::Node),
    /// A request was answered, or has failed.
    Response(Response<F>),
    /// Only time has passed.
    Tick,
}

inbound_from!(Inbound { Response: Response<F> });

/// Outbound events of an [`Explore`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// A bucket was refreshed.
    Explored {
        /// The bucket, by common prefix length (in bits).
        cpl: u32,
        /// How the lookup ended.
        outcome: Outcome,
        /// The statistics of the lookup.
        stats: OperationStats,
    },
}

/// Refreshes buckets: looks up a random key in each, on a schedule, one at a time, from the nodes of its own
/// table that are closest to that key. In a [`Coordinator`](crate::Coordinator) that is the routing table.
///
/// Which buckets are refreshed follows from the nodes of the table: see
/// [`routing`](crate::routing#where-somebody-can-be). Nothing is due while it is empty. The own key, which a coordinator
/// looks up on the same schedule, is for a [`Bootstrap`](crate::Bootstrap) to look up.
#[derive(Clone, Debug)]
pub struct Explore<F: Family> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Purpose>,
    operations: OperationPool<F, LookupTask<F>>,
    query: QueryConfig,
    table: RoutingTable<F>,
    schedule: ExploreSchedule,
    /// The events of the lookups in one call; kept for its memory.
    inner_out: Batch<query::Outbound<F>>,
}

impl<F: Family> Explore<F> {
    /// A machine of the node whose own id is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        explore: ExploreConfig,
        query: QueryConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        query.validate()?;
        let seeds = secret.seeds();
        let table = RoutingTable::with_seeds(local, TableConfig::default(), &seeds)?;
        Ok(Self {
            clock: MonotonicClock::default(),
            requests: RequestQueue::new(network, &seeds)?,
            operations: OperationPool::new(table.local_node().clone(), PoolConfig::default(), &seeds)?,
            query,
            table,
            schedule: ExploreSchedule::new::<F::Key>(explore, false, seeds.choices)?,
            inner_out: Batch::new(),
        })
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.table.set_family(family);
        self.operations.set_local(self.table.local_node().clone());
        self
    }

    /// The nodes that lookups begin with.
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.table
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    /// Does everything that can be done now, and begins what is due.
    fn settle(&mut self, now: Instant, out: &mut Batch<Outbound<F>>) {
        let Self { requests, operations, query, table, schedule, inner_out, .. } = self;
        let mut call = CallContext::new(now, requests, inner_out);
        loop {
            // This machine has no checks.
            let _: Option<ReleasedCheck> = operations.settle(&mut call);
            call.out.drain(..).filter_map(translate).for_each(|stamped| out.push(stamped));
            if let Some(ended) = operations.take_ended() {
                let EndedLookup { outcome, stats, context, .. } = ended;
                if let Some(cpl) = schedule.lookup_ended(now, table, Some(outcome)) {
                    let event = Outbound::Explored { cpl, outcome, stats };
                    out.push(Stamped { event, context, deadline: None });
                }
                continue;
            }
            let Some(due) = schedule.due_lookup(now, table, query.k) else { return };
            let DueLookup { initiator, target, seeds, timeout, link } = due;
            let start = Start::find(0, target).with_seeds(seeds);
            if operations.begin_lookup(&mut call, initiator, timeout, link, start, query).is_none() {
                schedule.lookup_ended(now, table, None);
            }
        }
    }
}

/// The machine's event for an event of its lookups; `None` for those that it does not emit.
fn translate<F: Family>(stamped: Stamped<query::Outbound<F>>) -> Option<Stamped<Outbound<F>>> {
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
        self.schedule.start(now, &self.table);
        let mut call = CallContext::new(now, &mut self.requests, &mut self.inner_out);
        self.operations.elapse_all(&mut call);
        self.settle(now, out);
        let Stamped { event, context, .. } = event;
        let mut call = CallContext::new(now, &mut self.requests, &mut self.inner_out);
        match event {
            Inbound::Add(node) => {
                let _: Offered = self.table.offer(now, &node, None);
                self.schedule.table_changed(now, &self.table, &SpanContext::NONE);
            }
            Inbound::Remove(node) => {
                self.table.remove(&node);
                self.schedule.table_changed(now, &self.table, &SpanContext::NONE);
            }
            Inbound::Response(response) => self.operations.respond(&mut call, response, &context),
            Inbound::Tick => {}
        }
        self.settle(now, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = self.schedule.next_timeout();
        earlier(due, earlier(self.operations.next_deadline(), self.requests.next_timeout()))
    }
}
