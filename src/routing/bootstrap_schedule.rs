//! [`BootstrapSchedule`]: when an automatic bootstrap is due, and from which nodes; the nodes to come back to.

use crate::routing::remembered::RememberedNodes;
use crate::routing::table::RoutingTable;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// When a machine with a routing table bootstraps by itself.
///
/// Memory: `max_seeds + max_lost` node ids, and some 60 bytes for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BootstrapConfig {
    /// If the routing table has fewer nodes than this, it counts as nearly empty: an automatic bootstrap
    /// begins, from the nodes left in the table and the remembered ones. Restored nodes that have not been heard from
    /// since do not count. 0: never. Default: 4.
    pub min_nodes: usize,
    /// The time from the end of a bootstrap to the next automatic one, if the table is still nearly empty. It doubles,
    /// up to `max_retry_interval`, with each bootstrap that brings no node into the table, and there is up to a quarter
    /// more of it at random. Longer than zero. Default: 10 s: nodes of a new network that all begin at once with the same
    /// one hear of each other by their second bootstraps.
    pub retry_interval: Duration,
    /// The maximum of that time, if it is longer than `retry_interval`. Default: 1 h.
    pub max_retry_interval: Duration,
    /// The maximum duration of an automatic bootstrap. Longer than zero. Default: 60 s.
    pub timeout: Duration,
    /// The maximum number of seeds that are remembered; beyond it, the oldest is forgotten. At most 4,096.
    /// Default: 256.
    pub max_seeds: usize,
    /// The maximum number of nodes that are remembered of those that left the table because they were silent; beyond
    /// it, the one that had been in the table for the shortest time is forgotten. At most 4,096; 0 is none. Default: 64.
    pub max_lost: usize,
    /// One of the remembered nodes that are not in the table is tried in this time, give or take a quarter of it; when each has
    /// been tried, one in twice this time, and so on, down to a sixteenth as often. Longer than zero. Default: 60 s.
    pub return_interval: Duration,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            min_nodes: 4,
            retry_interval: PAUSE,
            max_retry_interval: 60 * minute,
            timeout: minute,
            max_seeds: 256,
            max_lost: 64,
            return_interval: minute,
        }
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
        require(self.max_seeds <= 4_096, "bootstrap.max_seeds", "at most 4,096")?;
        require(self.max_lost <= 4_096, "bootstrap.max_lost", "at most 4,096")?;
        require(!self.return_interval.is_zero(), "bootstrap.return_interval", "longer than zero")
    }
}

/// The least time from the end of a bootstrap to the next automatic one, whatever the driver says.
const PAUSE: Duration = Duration::from_secs(10);
/// After so many bootstraps of an empty table in a row that found nobody, there is none until a remembered node answers.
const MAX_FRUITLESS: u32 = 7;

/// When an automatic bootstrap is due, and from which nodes.
#[derive(Clone, Debug)]
pub(crate) struct BootstrapSchedule<F: Family> {
    pub(crate) config: BootstrapConfig,
    pub(super) remembered: RememberedNodes<F>,
    /// Running bootstraps, those of the caller included.
    pub(crate) running: usize,
    /// The automatic bootstrap, if one is running.
    pub(crate) automatic: Option<OperationId>,
    /// No automatic bootstrap begins before this time; `FAR_FUTURE`: none ever.
    not_before: Instant,
    /// When the last bootstrap ended, and how many have since one brought a node into the table.
    ended: Option<Instant>,
    fruitless: u32,
    /// Whether remembered nodes are tried.
    has_tries: bool,
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
    pub(crate) fn new(config: BootstrapConfig, has_tries: bool, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            remembered: RememberedNodes::new(
                (config.max_seeds, config.max_lost),
                config.return_interval,
                seed,
            ),
            config,
            running: 0,
            automatic: None,
            not_before: Instant::ORIGIN,
            ended: None,
            fruitless: 0,
            has_tries,
            nearly_empty: true,
            nodes: 0,
            wanted: false,
            link: SpanContext::NONE,
        })
    }

    /// Remembers seeds. If one is new, a bootstrap of a table that is nearly empty need not wait.
    pub(crate) fn remember(&mut self, now: Instant, seeds: &[F::Node], table: &RoutingTable<F>) {
        if self.remembered.remember(seeds, table) {
            self.hurry(now);
        }
    }

    /// Nothing that was in vain before need be so now: bootstraps and tries need not wait, but for [`PAUSE`].
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.fruitless = 0;
        if self.not_before < Instant::FAR_FUTURE {
            let soon = self.ended.map_or(now, |ended| now.max(ended + PAUSE));
            self.not_before = self.not_before.min(soon);
        }
        self.remembered.hurry(now);
    }

    /// A node has entered the table.
    pub(crate) fn grew(&mut self) {
        if self.fruitless > 0
            && self.not_before < Instant::FAR_FUTURE
            && let Some(ended) = self.ended
        {
            self.fruitless = 0;
            self.not_before = self.not_before.min(ended + self.config.retry_interval);
        }
    }

    /// A bootstrap has ended.
    pub(crate) fn ended(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        let wait = self.config.retry_interval.saturating_mul(1 << self.fruitless.min(16));
        let most = self.config.max_retry_interval.max(self.config.retry_interval);
        self.not_before = self.remembered.jittered(now + wait.min(most), wait.min(most) / 4);
        self.ended = Some(now);
        self.fruitless = self.fruitless.saturating_add(1);
    }

    /// No bootstrap is due any more: time has nearly reached its maximum.
    pub(crate) fn stop(&mut self) {
        self.not_before = Instant::FAR_FUTURE;
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

    /// The table has `nodes` nodes now, of which `verified` were heard from. Returns whether it has become nearly empty by
    /// this change. The bootstrap links to `link` then, and where this is the first node that can be asked.
    pub(crate) fn size_changed(&mut self, nodes: usize, verified: usize, link: &SpanContext) -> bool {
        let is_nearly_empty = verified < self.config.min_nodes;
        let has_fallen = is_nearly_empty && !self.nearly_empty;
        self.nearly_empty = is_nearly_empty;
        let is_first = self.nodes == 0 && nodes > 0 && self.remembered.is_empty();
        self.nodes = nodes;
        if has_fallen || (is_first && !self.link.is_valid()) {
            self.link = link.clone();
        }
        has_fallen
    }

    /// When the next automatic bootstrap is due, for a table of `nodes` nodes, of which `verified` were heard from.
    /// `None` if these are enough, there is no node to ask, or a bootstrap is running.
    pub(crate) fn next_timeout(&self, nodes: usize, verified: usize) -> Option<Instant> {
        let has_seeds = nodes > 0 || !self.remembered.is_empty();
        let not_before = if self.wanted { Instant::ORIGIN } else { self.not_before };
        // Where nobody answers, the remembered nodes are tried in turn, and no longer all at once.
        let in_vain = nodes == 0 && self.fruitless >= MAX_FRUITLESS && self.has_tries;
        ((verified < self.config.min_nodes && !in_vain || self.wanted)
            && has_seeds
            && self.running == 0
            && self.not_before < Instant::FAR_FUTURE)
            .then_some(not_before)
    }
}
