//! [`BootstrapSchedule`]: when an automatic bootstrap is due, and from which nodes.

use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::id::OperationId;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// When a machine with a routing table bootstraps by itself.
///
/// Memory: `max_seeds` node ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BootstrapConfig {
    /// If the routing table has fewer nodes than this, it counts as nearly empty: an automatic bootstrap
    /// begins, from the nodes left in the table and the remembered seeds. 0: never. Default: 4.
    pub min_nodes: usize,
    /// The time from the end of a bootstrap to the next automatic one, if the table is still nearly empty.
    /// Longer than zero. Default: 60 s.
    pub retry_interval: Duration,
    /// The maximum duration of an automatic bootstrap. Longer than zero. Default: 60 s.
    pub timeout: Duration,
    /// The maximum number of seeds that are remembered; beyond it, the oldest is forgotten. At most 4,096.
    /// Default: 32.
    pub max_seeds: usize,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { min_nodes: 4, retry_interval: minute, timeout: minute, max_seeds: 32 }
    }
}

impl BootstrapConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.retry_interval.is_zero(), "bootstrap.retry_interval", "longer than zero")?;
        require(!self.timeout.is_zero(), "bootstrap.timeout", "longer than zero")?;
        require(self.max_seeds <= 4_096, "bootstrap.max_seeds", "at most 4,096")
    }
}

/// When an automatic bootstrap is due, and from which nodes.
#[derive(Clone, Debug)]
pub(crate) struct BootstrapSchedule<F: Family> {
    pub(crate) config: BootstrapConfig,
    /// Remembered seeds, the latest last.
    pub(crate) seeds: Vec<F::Node>,
    /// Running bootstraps, those of the caller included.
    pub(crate) running: usize,
    /// The automatic bootstrap, if one is running.
    pub(crate) automatic: Option<OperationId>,
    /// No automatic bootstrap begins before this time; `FAR_FUTURE`: none ever.
    pub(crate) not_before: Instant,
    /// The table has fewer than `min_nodes` nodes. Initially true, so that a table that begins empty causes no
    /// notice.
    nearly_empty: bool,
    /// How many nodes the table had when its size last changed.
    nodes: usize,
    /// A bootstrap is due whatever the table holds: this node has a new id.
    wanted: bool,
    /// The span that the next automatic bootstrap links to.
    pub(crate) link: SpanContext,
}

impl<F: Family> BootstrapSchedule<F> {
    pub(crate) fn new(config: BootstrapConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            seeds: Vec::new(),
            running: 0,
            automatic: None,
            not_before: Instant::ORIGIN,
            nearly_empty: true,
            nodes: 0,
            wanted: false,
            link: SpanContext::NONE,
        })
    }

    /// Remembers seeds; the oldest are dropped beyond `max_seeds`.
    pub(crate) fn remember(&mut self, seeds: &[F::Node]) {
        let most = self.config.max_seeds;
        let latest = seeds.get(seeds.len().saturating_sub(most)..).unwrap_or_default();
        let mut latest = latest.to_vec();
        if F::NODES_CHANGE {
            // What is known of a seed counts before what is remembered of it.
            for seed in &mut latest {
                if let Some(known) = self.seeds.iter().find(|known| *known == seed) {
                    let mut merged = known.clone();
                    F::update(&mut merged, seed, ToldBy::Others);
                    *seed = merged;
                }
            }
        }
        self.seeds.retain(|known| !latest.contains(known));
        self.seeds.append(&mut latest);
        self.seeds.drain(..self.seeds.len().saturating_sub(most));
    }

    /// A bootstrap is due now, whatever the table holds; it links to `link`.
    pub(crate) fn make_due(&mut self, link: &SpanContext) {
        self.wanted = true;
        self.link = link.clone();
    }

    /// A bootstrap has begun.
    pub(crate) fn began(&mut self) {
        self.running += 1;
        self.wanted = false;
    }

    /// Merges what is told about a seed.
    pub(crate) fn told(&mut self, node: &F::Node, by: ToldBy) {
        if let Some(seed) = self.seeds.iter_mut().find(|seed| *seed == node) {
            F::update(seed, node, by);
        }
    }

    /// The table has `nodes` nodes now. Returns whether it has become nearly empty by this change. The bootstrap links to
    /// `link` then, and where this is the first node that can be asked.
    pub(crate) fn size_changed(&mut self, nodes: usize, link: &SpanContext) -> bool {
        let is_nearly_empty = nodes < self.config.min_nodes;
        let has_fallen = is_nearly_empty && !self.nearly_empty;
        self.nearly_empty = is_nearly_empty;
        let is_first = self.nodes == 0 && nodes > 0 && self.seeds.is_empty();
        self.nodes = nodes;
        if has_fallen || (is_first && !self.link.is_valid()) {
            self.link = link.clone();
        }
        has_fallen
    }

    /// When the next automatic bootstrap is due, for a table of `nodes` nodes. `None` if it has enough nodes,
    /// there is no node to ask, or a bootstrap is running.
    pub(crate) fn next_timeout(&self, nodes: usize) -> Option<Instant> {
        let has_seeds = nodes > 0 || !self.seeds.is_empty();
        let not_before = if self.wanted { Instant::ORIGIN } else { self.not_before };
        ((nodes < self.config.min_nodes || self.wanted)
            && has_seeds
            && self.running == 0
            && self.not_before < Instant::FAR_FUTURE)
            .then_some(not_before)
    }
}
