//! The coordinator: what a driver embeds.
//!
//! What may follow what, for one operation (of a query and of a pool too):
//!
//! ```text
//! Start ──► Refused
//!       └─► Started ──► { Request, Cancel, Progress }* ──► Finished
//!
//! Request ──► Progress (answered, failed)
//!         │   Cancel, Progress (timed out)
//!         │   Cancel (its operation ended, or it was superseded)
//! ```
//!
//! Nothing of an operation comes after its `Finished`. Whatever is handed in for it then is ignored, and counted in
//! [`Traffic`].

use crate::context::{self, Cause, Context};
use crate::deadline::Clock;
use crate::error::ConfigError;
use crate::event::{Cancel, Finish, Progress, Refused, Request, Start, Started};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::machine::{Batch, Machine, Stamped};
use crate::operation::{Asked, Turn};
use crate::outbox::{NetworkConfig, Outbox, Traffic};
use crate::pool::{Elapsed, Pool, PoolConfig, earlier};
use crate::query::says_operations;
use crate::table::{Offered, RoutingTable, TableConfig};
use crate::time::Instant;
use core::time::Duration;

/// The configuration of a whole node. The defaults suit a node on the internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Of the lookups.
    pub pool: PoolConfig,
    /// Of the requests.
    pub network: NetworkConfig,
    /// Of the routing table.
    pub table: TableConfig,
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.pool.validate()?;
        self.network.validate()?;
        self.table.validate()
    }
}

/// What a [`Coordinator`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Begin a lookup, from the closest nodes that the routing table knows and the seeds given. The stamp holds its
    /// span and its deadline.
    Start(Start<F>),
    /// End a lookup now, as if its deadline had come. Ignored if it has ended.
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
    /// A node is known to live by other means than a request of ours: it answered the driver, say. Who has merely
    /// sent us a datagram has proved nothing. It is offered to the table, which may have no room for it.
    Connected {
        /// The node.
        node: F::Node,
        /// The round trip, if it was measured; time-outs are adapted to it.
        round_trip: Option<Duration>,
    },
    /// A node could not be reached, by other means than a request of ours. Counts as one failure of it:
    /// [`TableConfig::max_failures`] in a row remove it.
    Disconnected(F::Node),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Coordinator`] says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(Progress<F>),
    /// An operation ended: its last event.
    Finished(Finish<F>),
    /// A start was not accepted.
    Refused(Refused),
    /// A node entered the routing table: a side effect, linked to what led to it.
    Admitted(F::Node),
    /// A node left the routing table: a side effect, linked to what led to it.
    Removed(F::Node),
}

says_operations!(Outbound);

/// A whole Kademlia node, without its IO: lookups, the limits on their requests, and the routing table that they
/// begin from and feed.
///
/// # Joining, and staying joined
///
/// A node begins knowing nobody. Give its first lookup seeds, or tell of nodes that the driver itself has reached by
/// [`Inbound::Connected`]; then look up one's own key, which fills the buckets near it, and random keys, which fill the
/// others. Doing so again from time to time keeps the table fresh: the coordinator does not do it by itself.
///
/// A node that answers a request enters the table if its bucket has room; one whose requests fail or run into their
/// own timeouts leaves it after [`TableConfig::max_failures`] in a row.
#[derive(Clone, Debug)]
pub struct Coordinator<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Asked>,
    pool: Pool<F>,
    table: RoutingTable<F>,
    k: usize,
}

impl<F: Family> Coordinator<F> {
    /// A node whose own key is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: Config) -> Result<Self, ConfigError> {
        Ok(Self {
            clock: Clock::default(),
            k: config.pool.query.k,
            outbox: Outbox::new(config.network)?,
            pool: Pool::new(local, config.pool)?,
            table: RoutingTable::new(local, config.table)?,
        })
    }

    /// A node that begins with this table, around whose key it stands.
    #[cfg(feature = "sim")]
    pub(crate) fn with_table(table: RoutingTable<F>, config: Config) -> Result<Self, ConfigError> {
        let local = table.local();
        Ok(Self { table, ..Self::new(local, config)? })
    }

    /// Takes a round trip that was measured before: what a node knows that has been up for a while.
    #[cfg(feature = "sim")]
    pub(crate) fn observe(&mut self, round_trip: Duration) {
        self.outbox.observe(round_trip);
    }

    /// The routing table. To answer somebody who asks for the nodes closest to a key, use
    /// [`closest`](RoutingTable::closest).
    pub const fn table(&self) -> &RoutingTable<F> {
        &self.table
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }

    /// The live operation that was started with this tag, to stop it by.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.pool.operation(tag)
    }

    /// Operations that live, running or waiting.
    pub fn operations(&self) -> usize {
        self.pool.counts().0
    }

    /// Operations that run.
    pub fn running(&self) -> usize {
        self.pool.counts().1
    }
}

impl<F: Family> Machine for Coordinator<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, pool, table, k } = self;
        let Stamped { event, context, deadline } = event;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        let mut elapsed = false;
        while let Some(what) = pool.elapse(&mut turn) {
            elapsed = true;
            if let Elapsed::TimedOut(node, context) = what {
                failed(table, &node, || context, turn.out);
            }
        }
        if elapsed {
            pool.settle(&mut turn);
        }
        match event {
            Inbound::Start(event) => {
                let context = context.clone();
                pool.start(&mut turn, Stamped { event, context, deadline }, |start| {
                    // Twice as many as it is after: where some are dead, the others may know nobody else.
                    let wanted = 2 * (*k).max(start.num_results.unwrap_or(0));
                    let known = table.closest(start.target).take(wanted);
                    start.seeds.reserve(wanted.min(table.len()));
                    start.seeds.extend(known.map(|record| record.node().clone()));
                });
            }
            Inbound::Stop(id) => {
                turn.cause = Cause::event(id, &context);
                pool.stop(&mut turn, id);
            }
            Inbound::Answered { request, closer } => {
                if let Some(known) = turn.outbox.recognise(request) {
                    let (id, elapsed) = (known.work.operation, known.age(turn.now));
                    turn.cause = Cause::event(id, &context);
                    let context = || pool.detach(&turn.cause, id).unwrap_or(Context::NONE);
                    alive(table, turn.now, &known.node, Some(elapsed), context, turn.out);
                    pool.answered(&mut turn, id, request, closer);
                }
            }
            Inbound::Failed(request) => {
                if let Some(known) = turn.outbox.recognise(request) {
                    let id = known.work.operation;
                    turn.cause = Cause::event(id, &context);
                    let context = || pool.detach(&turn.cause, id).unwrap_or(Context::NONE);
                    failed(table, &known.node, context, turn.out);
                    pool.failed(&mut turn, id, request);
                }
            }
            Inbound::Connected { node, round_trip } => {
                if let Some(round_trip) = round_trip {
                    turn.outbox.observe(round_trip);
                }
                alive(table, turn.now, &node, round_trip, || context::detached(&context), turn.out);
            }
            Inbound::Disconnected(node) => {
                failed(table, &node, || context::detached(&context), turn.out);
            }
            Inbound::Tick => {}
        }
        pool.settle(&mut turn);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.pool.next_deadline(), self.outbox.next_timeout())
    }
}

/// Offers a node that answered to the table. What that changes is a side effect, in a context of its own.
fn alive<F: Family>(
    table: &mut RoutingTable<F>,
    now: Instant,
    node: &F::Node,
    round_trip: Option<Duration>,
    context: impl Fn() -> Context,
    out: &mut Batch<Outbound<F>>,
) {
    if let Offered::Admitted { evicted } = table.offer(now, node, round_trip) {
        let changes = evicted.map(Outbound::Removed).into_iter().chain([Outbound::Admitted(node.clone())]);
        out.extend(changes.map(|event| Stamped { event, context: context(), deadline: None }));
    }
}

/// Tells the table that a node failed.
fn failed<F: Family>(
    table: &mut RoutingTable<F>,
    node: &F::Node,
    context: impl FnOnce() -> Context,
    out: &mut Batch<Outbound<F>>,
) {
    if table.failed(node) {
        out.push(Stamped { event: Outbound::Removed(node.clone()), context: context(), deadline: None });
    }
}
