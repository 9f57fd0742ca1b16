//! [`PoolConfig`]: the number of operations that may run or wait.

use crate::vocabulary::config_error::{ConfigError, require};

/// The number of operations that may run or wait.
///
/// An operation begins when fewer than `max_running` run and no request that would go before its own waits for capacity
/// ([`max_in_flight`](crate::NetworkConfig::max_in_flight)), or none runs. So a crowd is served one after the other, in order of
/// deadline, then of arrival, instead of being starved together. Those that cannot be done by their deadlines end as
/// [`Overloaded`](crate::Outcome::Overloaded): when a quarter of their time has passed, if by what operations of each kind have
/// cost lately and by the rate of requests there will not be enough; or when it is their turn, if there is less time left than such
/// operations take. One that finds nobody waiting begins in any case. What was learnt is forgotten after two minutes.
///
/// Memory: at most `max_running` running operations, each bounded by its own configuration
/// ([`QueryConfig`](crate::QueryConfig) and others), and at most `max_waiting` waiting ones, which hold only their
/// starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolConfig {
    /// The maximum number of operations that run at the same time. 1 to 2^24. Default: 16,384.
    pub max_running: usize,
    /// The maximum number of operations that wait; they begin in order of deadline, then of arrival. Further starts are
    /// [refused](crate::RefusalReason::Full). At most 2^24. Default: 65,536.
    pub max_waiting: usize,
    /// Whether a progress event is emitted for each request that ends. A caller that needs only the finish saves
    /// one event per answer, with a copy of the nodes that it names. Default: true.
    pub progress: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { max_running: 16_384, max_waiting: 65_536, progress: true }
    }
}

impl PoolConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const MOST: usize = 1 << 24;
        require((1..=MOST).contains(&self.max_running), "pool.max_running", "1 to 2^24")?;
        require(self.max_waiting <= MOST, "pool.max_waiting", "at most 2^24")
    }
}
