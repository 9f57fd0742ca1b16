//! [`QueryPool`]: many lookups over one request queue, as a machine.

use crate::lookups::config::QueryConfig;
use crate::lookups::lookup_task::LookupTask;
use crate::operations::config::PoolConfig;
use crate::operations::machine::OperationMachine;
use crate::operations::pool::OperationPool;
use crate::requests::config::NetworkConfig;
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::operation_events::{Finish, OperationInbound, OperationOutbound, Progress, Start};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;

/// Inbound events of a [`Query`](crate::Query) and a [`QueryPool`].
pub type Inbound<F> = OperationInbound<F, Start<F>>;

/// Outbound events of a [`Query`](crate::Query) and a [`QueryPool`].
pub type Outbound<F> = OperationOutbound<F, Progress<F>, Finish<F>>;

/// Many lookups over one request queue, of which a bounded number runs at once.
///
/// The cost of an event does not grow with the number of lookups, except for timers: O(log n).
#[derive(Clone, Debug)]
pub struct QueryPool<F: Family> {
    machine: OperationMachine<F, LookupTask<F>>,
    config: QueryConfig,
}

impl<F: Family> QueryPool<F> {
    /// A pool of the node whose own id is `local`: its key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        query: QueryConfig,
        pool: PoolConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        query.validate()?;
        let seeds = secret.seeds();
        let (requests, operations) =
            (RequestQueue::new(network, &seeds)?, OperationPool::new(LocalNode::new(local), pool, &seeds)?);
        Ok(Self { machine: OperationMachine::new(requests, operations), config: query })
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.machine.set_family(family);
        self
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.machine.request_stats()
    }

    /// The id of the live operation that was started with this tag; pass it to a stop event.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }

    /// The number of live operations, running or waiting.
    pub fn operations(&self) -> usize {
        self.machine.counts().0
    }

    /// The number of operations that run.
    pub fn running(&self) -> usize {
        self.machine.counts().1
    }
}

impl<F: Family> Machine for QueryPool<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { machine, config } = self;
        machine.handle_into(now, event, out, |operations, call, start| {
            operations.start_lookup(call, start, config, |_| (), (None, false));
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}
