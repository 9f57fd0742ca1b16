//! Broadcast: stores records with the nodes closest to their keys, before a deadline.
//!
//! | strategy | which nodes, and when |
//! | --- | --- |
//! | [follow-up](Strategy::FollowUp) | looks up the k nodes closest to the record's key, then stores with them |
//! | [static](Strategy::Static) | stores with nodes that the caller names |
//! | [optimistic](Strategy::Optimistic) | stores during the lookup, with nodes so close that they are almost surely among the k closest; returns when enough of them have stored, while the rest goes on in the background |
//! | [sweep](Strategy::Sweep) | many records at once: looks up only as much as it takes to know the k closest nodes of all of them, and sends each node all of its records in one request |
//!
//! A broadcast is an operation, as a lookup is, and owns the lookups that it needs. Its time is split
//! ([deadline](crate::deadline) rule 8): the lookup ends early enough to leave time for the stores. If the
//! lookup has not ended by then, the record is stored with the closest nodes that have answered, and in the
//! [region](BroadcastConfig::regions) of its key also with nodes that have not answered yet, unless
//! [`store_before_response`](BroadcastConfig::store_before_response) is off.
//!
//! [`Reprovide`](reprovide::Reprovide) schedules when records are stored again; [`Sweep`](sweep::Sweep) is
//! the algorithm of sweeps, and can be used alone.
//!
//! | file | what it holds |
//! | --- | --- |
//! | this one | [`BroadcastPool`], and how broadcasts start |
//! | `task.rs` | a broadcast as the task of an operation: the search for nodes, then the stores |
//! | `search_step.rs`, `optimistic.rs`, `sweep_search.rs` | what a search for nodes wants next; the searches of optimistic broadcasts and of sweeps |
//! | `sweep.rs`, `allocation.rs`, `regions.rs` | the algorithm of sweeps; its result; parts of the key space |
//! | `store_list.rs` | the nodes to store with, and the state of each store |
//! | `reprovide.rs`, `backlog.rs` | when records are stored again; what waits although its time has passed |
//! | `config.rs`, `events.rs` | configuration; start, progress and finish |
//!
//! Broadcasts use lookups and the estimate of the network's size. They do not know the routing table: the
//! coordinator passes its nodes in as seeds.

use crate::lookups::config::QueryConfig;
use crate::network_size::NotEnoughData;
use crate::operations::config::PoolConfig;
use crate::operations::machine::OperationMachine;
use crate::operations::pool::{OperationPool, StartTerms};
use crate::operations::task::{EmitsOperation, Task};
use crate::requests::call_context::CallContext;
use crate::requests::config::NetworkConfig;
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::operation_events::{OperationInbound, OperationOutbound, RefusalReason};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;

pub(crate) mod allocation;
mod backlog;
pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod optimistic;
pub(crate) mod regions;
pub mod reprovide;
pub(crate) mod search_step;
pub(crate) mod store_list;
pub mod sweep;
pub(crate) mod sweep_search;
pub(crate) mod task;

pub use config::BroadcastConfig;
pub use events::{
    BroadcastFinish, BroadcastProgress, StartBroadcast, StoreCounts, StoreEnd, Stored, Strategy, Success,
};
pub(crate) use task::BroadcastTask;

/// Inbound events of a [`BroadcastPool`].
pub type Inbound<F> = OperationInbound<F, StartBroadcast<F>>;

/// Outbound events of a [`BroadcastPool`]. After the `Finished` of an optimistic broadcast there may be more
/// requests and cancels for it: they belong to no operation, and their initiator is
/// [`Initiator::Background`](crate::Initiator::Background).
pub type Outbound<F> = OperationOutbound<F, BroadcastProgress<F>, BroadcastFinish<F>>;

/// A machine that runs many broadcasts over one request queue. It has no routing table and no estimate of the
/// network's size; the [`Coordinator`](crate::Coordinator) runs broadcasts with both.
#[derive(Clone, Debug)]
pub struct BroadcastPool<F: Family> {
    machine: OperationMachine<F, BroadcastTask<F>>,
    config: BroadcastConfig,
    query: QueryConfig,
}

impl<F: Family> BroadcastPool<F> {
    /// A pool for the node whose own id is `local`; nodes with its key are never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        broadcast: BroadcastConfig,
        query: QueryConfig,
        pool: PoolConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        broadcast.validate()?;
        query.validate()?;
        let seeds = secret.seeds();
        let operations =
            OperationPool::new(LocalNode::new(local), pool, &seeds)?.with_background(broadcast.background());
        let machine = OperationMachine::new(RequestQueue::new(network, &seeds)?, operations);
        Ok(Self { machine, config: broadcast, query })
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.machine.set_family(family);
        self
    }

    /// The number of requests so far, by how they ended.
    pub fn request_stats(&self) -> RequestStats {
        self.machine.request_stats()
    }

    /// The id of the live broadcast that was started with this tag; pass it to a stop event.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }

    /// The number of live broadcasts, running or waiting.
    pub fn operations(&self) -> usize {
        self.machine.counts().0
    }

    /// The number of broadcasts that run.
    pub fn running(&self) -> usize {
        self.machine.counts().1
    }
}

impl<F: Family> Machine for BroadcastPool<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { machine, config, query } = self;
        machine.handle_into(now, event, out, |operations, call, start| {
            operations.start_broadcast(
                call,
                start,
                config,
                query,
                |_| (),
                || (Err(NotEnoughData::NONE), None),
            );
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

impl<F: Family, T: Task<F> + From<BroadcastTask<F>>> OperationPool<F, T> {
    /// Accepts or refuses the start of a broadcast. If it is accepted, `more_seeds` is called to add seeds.
    /// `size` returns the estimated size of the network, and that by which regions are determined.
    pub(crate) fn start_broadcast<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        stamped: Stamped<StartBroadcast<F>>,
        config: &BroadcastConfig,
        query: &QueryConfig,
        more_seeds: impl FnOnce(&mut StartBroadcast<F>),
        size: impl FnOnce() -> (Result<u64, NotEnoughData>, Option<KnownSize>),
    ) {
        let Stamped { event: mut start, context, deadline } = stamped;
        let is_sweep = start.strategy == Strategy::Sweep;
        let timeout = if is_sweep { config.sweep_timeout } else { config.timeout };
        let terms = StartTerms { tag: start.tag, context, deadline, timeout, bootstrap: false };
        let verdict = check_start(config, &start);
        self.start(call, terms, verdict, |pool| {
            more_seeds(&mut start);
            BroadcastTask::new(pool.local(), pool.hash(), query, config, start, size).into()
        });
    }
}

/// Whether the bounds of the configuration allow this start.
fn check_start<F: Family>(config: &BroadcastConfig, start: &StartBroadcast<F>) -> Result<(), RefusalReason> {
    let most = if start.strategy == Strategy::Sweep { config.max_records } else { 1 };
    if start.records.is_empty() || start.records.len() > most {
        return Err(RefusalReason::Records { most });
    }
    match &start.strategy {
        Strategy::Static(nodes) if nodes.len() > config.max_nodes => {
            Err(RefusalReason::Nodes { most: config.max_nodes })
        }
        _ => Ok(()),
    }
}
