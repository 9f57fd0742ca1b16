//! Crawl: maps a network. Every reachable node is asked for its routing table, bucket by bucket.
//!
//! A node answers with the nodes of its table that are closest to the key it is asked about. So it is asked
//! about its own key with one bit flipped, once for each common prefix length (cpl) up to a configured one:
//! each answer is one bucket of its table. Nodes are asked round-robin, in the order in which they were first
//! named, with one request per node at a time.
//!
//! A request without an answer is repeated, after those of all nodes that are ready; see
//! [`max_failures`](CrawlConfig::max_failures). A node that never answers is [unreachable](Reach::Unreachable). One that
//! has answered, and then is given up, leaves the map [unsure](CrawlCounts::unsure), and the finish says so.
//!
//! | file | what it holds |
//! | --- | --- |
//! | this one | [`Crawl`], and how crawls start |
//! | `task.rs` | a crawl as the task of an operation: which node is asked next, and for which bucket |
//! | `config.rs`, `events.rs` | configuration; start, progress and finish |
//!
//! Crawls use operations, and neither lookups nor the routing table: the coordinator passes its nodes in as
//! seeds.

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
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;

pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod task;

pub use config::CrawlConfig;
pub use events::{CrawlCounts, CrawlFinish, CrawlProgress, Crawled, Reach, StartCrawl};
pub(crate) use task::CrawlTask;

/// Inbound events of a [`Crawl`].
pub type Inbound<F> = OperationInbound<F, StartCrawl<F>>;

/// Outbound events of a [`Crawl`].
pub type Outbound<F> = OperationOutbound<F, CrawlProgress<F>, CrawlFinish<F>>;

/// A machine that maps networks: it runs crawls, and has no routing table. A [`Coordinator`](crate::Coordinator)
/// runs crawls that begin with the nodes of its routing table.
#[derive(Clone, Debug)]
pub struct Crawl<F: Family> {
    machine: OperationMachine<F, CrawlTask<F>>,
    config: CrawlConfig,
}

impl<F: Family> Crawl<F> {
    /// A machine for the node whose own id is `local`; nodes with its key are never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        config: CrawlConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let seeds = secret.seeds();
        let max_running = config.max_crawls.max(1);
        let pool = PoolConfig { max_running, max_waiting: 0, ..PoolConfig::default() };
        let requests = RequestQueue::new(network, &seeds)?.without_soft_limits();
        let operations = OperationPool::new(LocalNode::new(local), pool, &seeds)?;
        Ok(Self { machine: OperationMachine::new(requests, operations), config })
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

    /// The id of the live crawl that was started with this tag; pass it to a stop event.
    pub fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }
}

impl<F: Family> Machine for Crawl<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { machine, config } = self;
        machine.handle_into(now, event, out, |operations, call, start| {
            operations.start_crawl(call, start, config, |_| ());
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

impl<F: Family, T: Task<F> + From<CrawlTask<F>>> OperationPool<F, T> {
    /// Accepts or refuses the start of a crawl. If it is accepted, `more_seeds` is called to add seeds.
    pub(crate) fn start_crawl<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        stamped: Stamped<StartCrawl<F>>,
        config: &CrawlConfig,
        more_seeds: impl FnOnce(&mut Vec<F::Node>),
    ) {
        let Stamped { event: StartCrawl { tag, mut seeds }, context, deadline } = stamped;
        let terms = StartTerms { tag, context, deadline, timeout: config.timeout, bootstrap: false };
        let is_full = self.crawls() >= config.max_crawls;
        let verdict = if is_full { Err(RefusalReason::Full) } else { Ok(()) };
        self.start(call, terms, verdict, |pool| {
            more_seeds(&mut seeds);
            CrawlTask::new(pool.local(), config.clone(), seeds, pool.hash()).into()
        });
    }
}
