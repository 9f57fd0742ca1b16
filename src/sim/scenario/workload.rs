//! [`Workload`]: the lookups of a run.

use crate::sim::scenario::interarrival::Interarrival;
use crate::sim::scenario::who::Who;
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;
use std::sync::Arc;

/// Lookups, each started by a random node that is online at the time.
///
/// Each lookup has its own trace id, made of the scenario's seed and the lookup's number.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How many lookups there are. Default: 200.
    pub lookups: u32,
    /// From when the network is built to the first lookup. Default: zero.
    pub first: Duration,
    /// From one lookup to the next. Default: every 600 s, so that no two run at the same time.
    pub pace: Interarrival,
    /// How long each may take, more than zero; `None` applies the node's configuration alone. Default: `None`.
    pub deadline: Option<Duration>,
    /// The share of lookups that send a message to each node they visit, instead of asking for closer nodes only.
    /// 0 to 1. Default: 0.
    pub messages: f64,
    /// The share of lookups that their caller stops at a random time within a second, if they have not ended. 0 to
    /// 1. Default: 0.
    pub stopped: f64,
    /// Which nodes start them. Default: all.
    pub by: Who,
    /// What they look up. Default: uniformly random keys.
    pub targets: Targets,
}

/// What the lookups of a [`Workload`] look up, in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Targets {
    /// Uniformly random keys.
    #[default]
    Random,
    /// The keys of these [points](crate::sim::Handle::point).
    Points(Arc<[u32]>),
    /// The keys of these nodes, by number.
    Nodes(Arc<[u32]>),
    /// The [records](crate::sim::World::record_key) with the numbers from the first on: searches, which end when
    /// enough nodes have shown the record, or by what lookups end by.
    Records {
        /// The first number.
        first: u32,
        /// How many records there are. At least 1.
        count: u32,
        /// How many nodes must show it. At least 1.
        enough: usize,
    },
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            lookups: 200,
            first: Duration::ZERO,
            pace: Interarrival::Every(Duration::from_secs(600)),
            deadline: None,
            messages: 0.0,
            stopped: 0.0,
            by: Who::All,
            targets: Targets::Random,
        }
    }
}

impl Workload {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let deadline = self.deadline.is_none_or(|deadline| !deadline.is_zero());
        require(deadline, "workload.deadline", "longer than zero")?;
        require((0.0..=1.0).contains(&self.messages), "workload.messages", "0 to 1")?;
        require((0.0..=1.0).contains(&self.stopped), "workload.stopped", "0 to 1")?;
        require(self.pace.is_valid(), "workload.pace", "at least one time, all in order")?;
        let targets = match &self.targets {
            Targets::Random => true,
            Targets::Points(list) | Targets::Nodes(list) => !list.is_empty(),
            Targets::Records { count, enough, .. } => *count > 0 && *enough > 0,
        };
        require(targets, "workload.targets", "at least one")
    }

    /// From when the network is built to the first lookup.
    pub(crate) fn begins(&self) -> Duration {
        self.first + self.pace.first()
    }
}
