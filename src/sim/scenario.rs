//! [`Scenario`]: everything that a run depends on.

use super::link::Link;
use super::nodes::Handle;
use super::workload::Workload;
use crate::coordinator::Config;
use crate::error::{ConfigError, require};

/// All that a run depends on: two runs of the same scenario are the same, event by event.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What all chance comes from. Default: 1.
    pub seed: u64,
    /// How many nodes there are, dead ones too. 2 to 8,388,608. Default: 1,000.
    pub nodes: u32,
    /// The configuration of every node.
    pub config: Config,
    /// How many nodes an answer names, and how many of the truly closest a lookup is judged by (recall@k). 1 to 1,024.
    /// Default: 20.
    pub k: usize,
    /// Whether a node that begins with a filled table has measured round trips, as it would have by filling it: 32,
    /// to nodes of its table, drawn from the link when it starts its first lookup. Default: true.
    pub warm: bool,
    /// The share of nodes that are dead from the start: they stand in the others' tables and never answer. 0 to 1.
    /// Default: 0.
    pub dead: f64,
    /// What links do.
    pub link: Link,
    /// What the network is made to do.
    pub workload: Workload,
    /// Of how many lookups every request is kept. Default: 16.
    pub keep: u32,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 1_000,
            config: Config::default(),
            k: 20,
            warm: true,
            dead: 0.0,
            link: Link::default(),
            workload: Workload::default(),
            keep: 16,
        }
    }
}

impl Scenario {
    /// The workload "under fire", by which lookup policies are judged: 10,000 nodes with ideal tables, of which 30 %
    /// are dead; 2 % of all exchanges lost; round trips log-normal, median 80 ms, sigma 0.6; 200 lookups, one at a
    /// time.
    pub fn under_fire() -> Self {
        Self { dead: 0.3, ..Self::lossy() }
    }

    /// The same with nobody dead.
    pub fn lossy() -> Self {
        Self { nodes: 10_000, link: Link { loss: 0.02, ..Link::default() }, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((2..=Handle::NODES).contains(&self.nodes), "nodes", "2 to 8,388,608")?;
        require((1..=1_024).contains(&self.k), "k", "1 to 1,024")?;
        require((0.0..=1.0).contains(&self.dead), "dead", "0 to 1")?;
        self.config.validate()?;
        self.link.validate()?;
        self.workload.validate()
    }
}
