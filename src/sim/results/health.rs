//! [`Health`]: the state of the routing tables at one instant.

use crate::sim::activity::Activity;
use crate::sim::results::serial;
use crate::vocabulary::time::Instant;
use serde::Serialize;

/// The routing tables of the online nodes at one instant: averages over the tables that were measured.
/// Serialised by these names, but `at_s` in seconds, and `upkeep_per_minute`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// When they were measured.
    #[serde(rename = "at_s", serialize_with = "serial::instant")]
    pub at: Instant,
    /// How many nodes are online.
    pub up: u32,
    /// How many nodes a table holds.
    pub size: f64,
    /// How many nodes the bucket of each common prefix length holds, from 0.
    pub by_cpl: Vec<f64>,
    /// The share of nodes in the tables that would not answer: dead, offline, not reachable, or silent. 0 to 1.
    pub dead: f64,
    /// How many [Sybils](crate::sim::Sybils) a table holds. They do not count as dead.
    pub sybils: f64,
    /// How many nodes a table lacks: an ideal table would hold this many more of the nodes that answer.
    pub missing: f64,
    /// The share of the true k closest nodes to a table's own key, among those that answer, that are among the k
    /// closest in it. 0 to 1.
    pub recall: f64,
    /// The least such share of any table measured.
    pub worst: f64,
    /// The share of tables that have all of them. 0 to 1.
    pub complete: f64,
    /// Requests of the tables' maintenance per node and minute, since the previous measurement.
    #[serde(rename = "upkeep_per_minute")]
    pub upkeep: Upkeep,
}

/// Requests of the routing tables' maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Upkeep {
    /// Requests of bootstraps that the maintenance began.
    pub bootstrap: f64,
    /// Requests of bucket refreshes.
    pub explore: f64,
    /// Liveness checks of nodes that may enter a table.
    pub include: f64,
    /// Liveness checks of nodes in the tables.
    pub probe: f64,
}

impl Upkeep {
    /// The sum of all four.
    pub fn sum(&self) -> f64 {
        self.bootstrap + self.explore + self.include + self.probe
    }

    /// Counts a request, unless it is for a lookup or a broadcast.
    pub(crate) fn count(&mut self, activity: Activity) {
        match activity {
            Activity::Lookup(_) | Activity::Broadcast(_) | Activity::Background => {}
            Activity::Bootstrap => self.bootstrap += 1.0,
            Activity::Explore => self.explore += 1.0,
            Activity::Include => self.include += 1.0,
            Activity::Probe => self.probe += 1.0,
        }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        let Self { bootstrap, explore, include, probe } = self;
        Self {
            bootstrap: bootstrap * factor,
            explore: explore * factor,
            include: include * factor,
            probe: probe * factor,
        }
    }
}
