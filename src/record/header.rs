//! [`Header`]: everything that a node's construction depends on, which is the first frame of a recording.

use crate::coordinator::{Config, Coordinator};
use crate::routing::table::RoutingTable;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Recordable;
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What a coordinator is constructed from, without the seeds that guard the wire and the hash tables: those have
/// no influence on the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "F: Recordable")]
pub(crate) struct Header<F: Recordable> {
    pub(crate) local: F::Target,
    pub(crate) config: Config,
    /// The seed of the random choices that influence the output.
    pub(crate) choices: u64,
    /// The nodes of the table at the beginning, by bucket, oldest first; empty except in a simulation.
    pub(crate) nodes: Vec<F::Node>,
    /// Round trips measured before the beginning; empty except in a simulation.
    pub(crate) round_trips: Vec<Duration>,
    /// The value of the family; the default except in a simulation.
    pub(crate) family: F,
}

impl<F: Recordable> Header<F> {
    /// For a node with an empty table and no measured round trips.
    pub(super) fn new(local: F::Target, config: Config, choices: u64) -> Self {
        Self { local, config, choices, nodes: Vec::new(), round_trips: Vec::new(), family: F::default() }
    }

    /// The seeds of a replay: the recorded one for choices, and constants for the guards.
    pub(super) const fn seeds(&self) -> Seeds {
        Seeds::unguarded(self.choices)
    }

    /// Constructs the coordinator, with this configuration instead of the recorded one. Nodes for which its table
    /// has no room are left out.
    pub(super) fn coordinator(&self, config: Config, seeds: &Seeds) -> Result<Coordinator<F>, ConfigError> {
        let table = RoutingTable::with_seeds(self.local.clone(), config.table.clone(), seeds)?;
        let mut table = table.with_family(self.family.clone());
        for node in &self.nodes {
            let _ = table.offer(Instant::ORIGIN, node, None);
        }
        if !self.nodes.is_empty() {
            table.neighbourhood_found(); // a table to begin with is complete: that of a simulated node
        }
        let mut coordinator = Coordinator::with_table(table, config, seeds)?;
        for round_trip in &self.round_trips {
            coordinator.observe(*round_trip);
        }
        Ok(coordinator)
    }
}
