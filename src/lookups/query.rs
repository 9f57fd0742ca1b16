//! [`Query`]: one lookup at a time, as a machine.

use crate::lookups::config::QueryConfig;
use crate::lookups::query_pool::QueryPool;
pub use crate::lookups::query_pool::{Inbound, Outbound};
use crate::operations::config::PoolConfig;
use crate::requests::config::NetworkConfig;
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;

/// One lookup at a time, with its own request queue. When it has finished, another can be started; a start
/// before that is refused as [`Full`](crate::RefusalReason::Full).
///
/// It is a [`QueryPool`] of one. For lookups that begin from a routing table, see the
/// [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug)]
pub struct Query<F: Family>(QueryPool<F>);

impl<F: Family> Query<F> {
    /// A query of the node whose own id is `local`: its key is never asked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        query: QueryConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        let pool = PoolConfig { max_running: 1, max_waiting: 0, ..PoolConfig::default() };
        QueryPool::new(local, query, pool, network, secret).map(Self)
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(self, family: F) -> Self {
        Self(self.0.with_family(family))
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.0.request_stats()
    }
}

impl<F: Family> Machine for Query<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        self.0.handle_into(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}
