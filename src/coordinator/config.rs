//! [`Config`]: the configuration of a [`Coordinator`](crate::Coordinator).

use crate::broadcast::config::BroadcastConfig;
use crate::crawl::config::CrawlConfig;
use crate::lookups::config::QueryConfig;
use crate::maintenance::MaintenanceConfig;
use crate::network_size::config::NetworkSizeConfig;
use crate::operations::config::PoolConfig;
use crate::requests::config::NetworkConfig;
use crate::routing::config::RoutingConfig;
use crate::routing::table::TableConfig;
use crate::vocabulary::config_error::ConfigError;

/// The configuration of a whole node. The defaults suit a node on the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Lookups.
    pub query: QueryConfig,
    /// The number of operations that may run or wait.
    pub pool: PoolConfig,
    /// Requests: limits in flight and time-outs.
    pub network: NetworkConfig,
    /// The routing table.
    pub table: TableConfig,
    /// The maintenance of the table.
    pub routing: RoutingConfig,
    /// Crawls.
    pub crawl: CrawlConfig,
    /// Broadcasts.
    pub broadcast: BroadcastConfig,
    /// The estimate of the network's size. `None`: no estimate, so optimistic broadcasts fall back to
    /// follow-ups. If its k is larger than that of the lookups, that of the lookups is used.
    pub network_size: Option<NetworkSizeConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            query: QueryConfig::default(),
            pool: PoolConfig::default(),
            network: NetworkConfig::default(),
            table: TableConfig::default(),
            routing: RoutingConfig::default(),
            crawl: CrawlConfig::default(),
            broadcast: BroadcastConfig::default(),
            network_size: Some(NetworkSizeConfig::default()),
        }
    }
}

impl Config {
    /// For a node that is to be quiet, as on a phone: while nobody asks for anything, it sends a tenth of the requests
    /// and wakes up a tenth as often as by default. Lookups are as by default.
    ///
    /// It costs accuracy of the routing table: a dead node stays in it for up to 4 h (15 min by default), unless a
    /// lookup asks it before, and new neighbours of its own are found after 6 h (1 h), unless they ask this node. So the
    /// first lookup after a long rest meets more silent nodes, and takes longer. See
    /// [`routing`](crate::routing#a-node-at-rest) for the figures.
    ///
    /// ```
    /// # use kad_proto::{Config, RoutingConfig};
    /// assert_eq!(Config::quiet(), Config { routing: RoutingConfig::quiet(), ..Config::default() });
    /// ```
    pub fn quiet() -> Self {
        Self { routing: RoutingConfig::quiet(), ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.query.validate()?;
        self.pool.validate()?;
        self.network.validate()?;
        self.table.validate()?;
        self.routing.validate()?;
        self.crawl.validate()?;
        self.broadcast.validate()?;
        self.network_size.as_ref().map_or(Ok(()), NetworkSizeConfig::validate)
    }
}

impl From<Config> for MaintenanceConfig {
    /// The fields of the configuration that a [`Maintenance`](crate::Maintenance) has too.
    fn from(config: Config) -> Self {
        let Config { query, pool, network, table, routing, .. } = config;
        Self { query, pool, network, table, routing }
    }
}
