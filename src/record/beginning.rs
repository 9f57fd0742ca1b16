//! [`Beginning`]: all that a node's construction depends on.

use super::Recordable;
use crate::coordinator::{Config, Coordinator};
use crate::error::ConfigError;
use crate::table::RoutingTable;
use crate::time::Instant;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What a coordinator is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "F: Recordable")]
pub(crate) struct Beginning<F: Recordable> {
    pub(crate) local: F::Key,
    pub(crate) config: Config,
    /// The nodes of its table, by bucket, oldest first: none but in a simulation.
    pub(crate) nodes: Vec<F::Node>,
    /// Round trips that were measured before: none but in a simulation.
    pub(crate) round_trips: Vec<Duration>,
}

impl<F: Recordable> Beginning<F> {
    /// Of a node that knows nobody.
    pub(super) const fn new(local: F::Key, config: Config) -> Self {
        Self { local, config, nodes: Vec::new(), round_trips: Vec::new() }
    }

    /// The coordinator, with this configuration instead. Nodes that its table has no room for are left out.
    pub(super) fn coordinator(&self, config: Config) -> Result<Coordinator<F>, ConfigError> {
        let mut table = RoutingTable::new(self.local, config.table.clone())?;
        for node in &self.nodes {
            let _ = table.offer(Instant::ORIGIN, node, None);
        }
        let mut coordinator = Coordinator::with_table(table, config)?;
        for round_trip in &self.round_trips {
            coordinator.observe(*round_trip);
        }
        Ok(coordinator)
    }
}
