//! [`Scenario`]: everything that a run depends on.

use super::behaviour::Party;
use super::broadcast::Broadcasts;
use super::churn::Churn;
use super::join::Build;
use super::link::Link;
use super::nodes::Handle;
use super::partition::Partition;
use super::sybils::Sybils;
use super::workload::Workload;
use crate::coordinator::Config;
use crate::error::{ConfigError, require};
use crate::routing::RoutingConfig;
use core::time::Duration;

/// All that a run depends on: two runs of the same scenario are the same, event by event.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What all chance comes from. Default: 1.
    pub seed: u64,
    /// How many nodes there are, dead ones too. 2 to 8,388,608. Default: 1,000.
    pub nodes: u32,
    /// The configuration of every node. Where nodes do not come by [`Build::Bootstrap`] its `routing` must be off: they know
    /// what they know at the outset, and what lookups bring. Default: the engine's, with `routing` off.
    pub config: Config,
    /// How many nodes an answer names, and how many of the truly closest a lookup is judged by (recall@k). 1 to 1,024.
    /// Default: 20.
    pub k: usize,
    /// How the network comes to be. Default: with ideal tables.
    pub build: Build,
    /// Whether a node that begins with a filled table has measured round trips, as it would have by filling it: 32,
    /// to nodes of its table, drawn from the link before it is told anything. Default: true.
    pub warm: bool,
    /// Whether a node that is asked by one that it does not know asks back, and offers it to its table if that is
    /// answered. Where nodes join or come back, others learn of them only so. Default: false.
    pub meet: bool,
    /// The share of nodes that are dead from when the network is built: they stand in the others' tables and never
    /// answer. 0 to 1. Default: 0.
    pub dead: f64,
    /// The share of nodes that may ask but cannot be asked (behind a NAT). 0 to 1. Default: 0.
    pub nat: f64,
    /// Nodes that are slow.
    pub slow: Slow,
    /// Nodes that come and go, from when the network is built. Default: none.
    pub churn: Option<Churn>,
    /// Nodes that are not honest. Default: none.
    pub hostile: Vec<Party>,
    /// An attempt to eclipse a node. Default: none.
    pub sybils: Option<Sybils>,
    /// What links do.
    pub link: Link,
    /// Who cannot reach whom, and when. Default: none.
    pub partition: Option<Partition>,
    /// What the network is made to do.
    pub workload: Workload,
    /// What is stored in it. Default: nothing.
    pub broadcasts: Option<Broadcasts>,
    /// Of how many lookups every request is kept. Default: 16.
    pub keep: u32,
    /// How often the routing tables are looked at; see [`Health`](super::Health). Default: never.
    pub health: Option<Duration>,
    /// Whether the invariants are checked at every step; see [`Rule`](super::Rule). Default: in debug builds.
    pub check: bool,
    /// The command that runs this scenario with a given seed, `{seed}` standing for it, and `{node}` for the number of the node's
    /// handle: told where an invariant is broken. Default: that of the example.
    pub replay: String,
}

/// Nodes to which every round trip takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// Their share. 0 to 1. Default: 0.
    pub share: f64,
    /// How many times as long. 1 to 1,000. Default: 5.
    pub factor: f64,
}

impl Default for Slow {
    fn default() -> Self {
        Self { share: 0.0, factor: 5.0 }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 1_000,
            config: Config { routing: RoutingConfig::off(), ..Config::default() },
            k: 20,
            build: Build::Ideal,
            warm: true,
            meet: false,
            dead: 0.0,
            nat: 0.0,
            slow: Slow::default(),
            churn: None,
            hostile: Vec::new(),
            sybils: None,
            link: Link::default(),
            partition: None,
            workload: Workload::default(),
            broadcasts: None,
            keep: 16,
            health: None,
            check: cfg!(debug_assertions),
            replay: "cargo run --release --all-features --example simulate -- --check --seed {seed}"
                .to_owned(),
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

    /// Whether nodes keep their routing tables themselves.
    pub(crate) fn is_maintained(&self) -> bool {
        matches!(self.build, Build::Bootstrap(_))
    }

    /// Whether a node, by index, is a seed, by which others find into the network: it is always there.
    pub(crate) fn is_seed(&self, index: u32) -> bool {
        self.is_maintained() && index < self.build.seeds()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        require((2..=Handle::NODES).contains(&self.nodes), "nodes", "2 to 8,388,608")?;
        require((1..=1_024).contains(&self.k), "k", "1 to 1,024")?;
        require(share(self.dead), "dead", "0 to 1")?;
        require(share(self.nat), "nat", "0 to 1")?;
        require(share(self.slow.share), "slow.share", "0 to 1")?;
        require((1.0..=1_000.0).contains(&self.slow.factor), "slow.factor", "1 to 1,000")?;
        require(self.health.is_none_or(|every| !every.is_zero()), "health", "longer than zero")?;
        Party::validate(&self.hostile)?;
        self.build.validate()?;
        let RoutingConfig { bootstrap, include, probe, explore, .. } = &self.config.routing;
        let off = bootstrap.is_none() && include.is_none() && probe.is_none() && explore.is_none();
        require(off || self.is_maintained(), "routing", "off where nodes do not come by bootstrap")?;
        require(
            self.build.seeds() <= self.nodes || !self.is_maintained(),
            "bootstrap.seeds",
            "at most nodes",
        )?;
        self.sybils.map_or(Ok(()), |sybils| sybils.validate(self.nodes))?;
        self.churn.as_ref().map_or(Ok(()), Churn::validate)?;
        self.partition.as_ref().map_or(Ok(()), Partition::validate)?;
        self.config.validate()?;
        self.link.validate()?;
        self.broadcasts.as_ref().map_or(Ok(()), Broadcasts::validate)?;
        self.workload.validate()
    }
}
