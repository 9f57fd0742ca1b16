//! [`RoutingConfig`]: which parts of the routing maintenance are on; [`RoutingCounts`]: what they did.

use crate::routing::bootstrap_schedule::BootstrapConfig;
use crate::routing::candidate_list::IncludeCounts;
use crate::routing::candidate_queue::IncludeConfig;
use crate::routing::explore_schedule::ExploreConfig;
use crate::routing::probe_list::{ProbeConfig, ProbeCounts};
use crate::vocabulary::config_error::{ConfigError, require};

/// Which parts of the routing maintenance are on, and the configuration of each. By default, all of them.
///
/// Memory: that of the parts; `max_clients` node ids and keys; and the replacement cache, at most four nodes for each bucket, with an
/// instant each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct RoutingConfig {
    /// Bootstraps automatically when the table is nearly empty. If off, only the caller bootstraps.
    pub bootstrap: Option<BootstrapConfig>,
    /// Checks candidates before they enter the table. If off, only nodes that have answered enter it.
    pub include: Option<IncludeConfig>,
    /// Checks the nodes of the table. If off, each request that a node fails to answer counts as a failure of
    /// it, and [`TableConfig::max_failures`](crate::TableConfig::max_failures) in a row remove it.
    pub probe: Option<ProbeConfig>,
    /// Refreshes buckets, and looks up the own key. If off, only the caller's lookups do.
    pub explore: Option<ExploreConfig>,
    /// The maximum number of nodes known not to serve others that are remembered, one for each key; beyond
    /// it, the oldest is forgotten. At most 2^20. Default: 1,024.
    pub max_clients: usize,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            bootstrap: Some(BootstrapConfig::default()),
            include: Some(IncludeConfig::default()),
            probe: Some(ProbeConfig::default()),
            explore: Some(ExploreConfig::default()),
            ..Self::off()
        }
    }
}

impl RoutingConfig {
    /// All parts, for a node that is to be quiet: [`ProbeConfig::quiet`], [`ExploreConfig::quiet`]. See
    /// [`routing`](crate::routing#a-node-at-rest) for what it saves and what it costs.
    pub fn quiet() -> Self {
        Self { probe: Some(ProbeConfig::quiet()), explore: Some(ExploreConfig::quiet()), ..Self::default() }
    }

    /// No maintenance: the table learns from answers and driver events only.
    pub const fn off() -> Self {
        Self { bootstrap: None, include: None, probe: None, explore: None, max_clients: 1_024 }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.bootstrap.as_ref().map_or(Ok(()), BootstrapConfig::validate)?;
        self.include.as_ref().map_or(Ok(()), IncludeConfig::validate)?;
        self.probe.as_ref().map_or(Ok(()), ProbeConfig::validate)?;
        self.explore.as_ref().map_or(Ok(()), ExploreConfig::validate)?;
        require(self.max_clients <= 1 << 20, "routing.max_clients", "at most 2^20")
    }
}

/// What the routing maintenance has done so far, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutingCounts {
    /// Candidates.
    pub include: IncludeCounts,
    /// Probes of nodes in the table.
    pub probe: ProbeCounts,
    /// Refreshes of buckets that explore has begun.
    pub refreshes: u64,
    /// Lookups of the own key that explore has begun.
    pub own_lookups: u64,
    /// Automatic bootstraps.
    pub automatic_bootstraps: u64,
}
