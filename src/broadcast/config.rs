//! [`BroadcastConfig`]: the time-outs, bounds and strategy parameters of broadcasts.

use crate::broadcast::sweep::SweepConfig;
use crate::lookups::config::QueryConfig;
use crate::operations::pool::Background;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::AnswerScope;
use core::time::Duration;

/// The time-outs, bounds and strategy parameters of broadcasts.
///
/// Memory of a broadcast:
///
/// * its start;
/// * a lookup, as [`QueryConfig`] bounds it; for a sweep, `max_lookups` of them at once, what [`SweepConfig`]
///   says, and 4 bytes for each of the k nodes of each record;
/// * some 60 bytes and a node id for each node that it stores with, and as much again in its finish;
/// * the [tokens](crate::AnswerExtra::token) of answers, with a key, a node id and some 30 bytes for each node
///   that was asked.
///
/// A broadcast stores with at most [`region_bound`](QueryConfig::region_bound) times k nodes, without regions with k; a static
/// one with at most `max_nodes`; a sweep with all nodes that it finds; an optimistic one with at most 2k during its lookup,
/// because nodes that fail are replaced, and, with regions, with as many as the follow-up in all (but 3k at least). Vectors and tables
/// grow by doubling. At most `max_background` stores go on in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BroadcastConfig {
    /// The maximum duration of a broadcast; a start may ask for a shorter one. Longer than zero. Default: 60
    /// s.
    pub timeout: Duration,
    /// The maximum duration of a sweep; a start may ask for a shorter one. For 10,000 records among as many
    /// nodes, the lookups take a few minutes. Longer than zero. Default: 10 min.
    pub sweep_timeout: Duration,
    /// The time at the end of a broadcast that is reserved for storing, but at most a tenth of the
    /// broadcast's time. (go-libp2p-kad-dht does the same.) A sweep reserves half of its time instead.
    /// Default: 1 s.
    pub store_reserve: Duration,
    /// The maximum number of stores of a broadcast that are in flight or wait for capacity. 1 to 1,024.
    /// Default: 20.
    pub max_in_flight: usize,
    /// The maximum number of nodes in a static broadcast; a start with more is refused. At most 65,536.
    /// Default: 1,024.
    pub max_nodes: usize,
    /// An optimistic broadcast returns once this share of k nodes has stored the record. Percent, rounded up to
    /// whole nodes. 1 to 100. Default: 75.
    pub early_return_percent: u8,
    /// Whether optimistic broadcasts store with nodes that were named but have not answered yet, and whether any broadcast does
    /// so in the [region](Self::regions) of its key when its lookup's share of the time is over. Set it to false if a store
    /// needs the [token](crate::AnswerExtra::token) of the node's answer. Default: true.
    pub store_before_response: bool,
    /// Whether a record is stored with all nodes found in the region of its key, but at least the k closest. The region is
    /// the distance within which k of the network's nodes are on average. So the record can be found though others have placed
    /// nodes next to the key. Needs the size of the network, which only the coordinator knows, or the start of an optimistic
    /// broadcast. [`QueryConfig::regions`] is the same of searches. See [storing](crate::guide::storing). Default: true.
    pub regions: bool,
    /// The maximum number of stores in the background, of all optimistic broadcasts together that have
    /// returned. A broadcast that would exceed it cancels its remaining stores when it returns. Each is
    /// granted the stores that it may still need, so that dead nodes can be replaced: 2k, and with regions
    /// [`region_bound`](QueryConfig::region_bound) times k, but at least 3k, less those that have ended. With the defaults, some 15
    /// broadcasts can be in the background at once. At most 65,536. Default: 1,024.
    pub max_background: usize,
    /// The maximum duration of a broadcast's background work. Longer than zero. Default: 10 s.
    pub background_timeout: Duration,
    /// Parameters of sweeps. `sweep.k` is ignored: the query's k is used. `sweep.results` is clamped to at
    /// most `query.max_candidates`, and to more than k. The default of `sweep.max_lookups` is 1,024 here,
    /// more than that of [`SweepConfig`], because the records of a sweep may be spread over the whole key
    /// space.
    pub sweep: SweepConfig,
    /// The maximum number of lookups of a sweep that run at once. 1 to 64. Default: 3.
    pub max_lookups: usize,
    /// The maximum number of records in a sweep; a start with more is refused. At most 2^24. Default: 65,536.
    pub max_records: usize,
}

impl Default for BroadcastConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            sweep_timeout: Duration::from_secs(600),
            store_reserve: Duration::from_secs(1),
            max_in_flight: 20,
            max_nodes: 1_024,
            early_return_percent: 75,
            store_before_response: true,
            regions: true,
            max_background: 1_024,
            background_timeout: Duration::from_secs(10),
            sweep: SweepConfig { max_lookups: 1_024, ..SweepConfig::default() },
            max_lookups: 3,
            max_records: 65_536,
        }
    }
}

impl BroadcastConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.timeout.is_zero(), "broadcast.timeout", "longer than zero")?;
        require(!self.sweep_timeout.is_zero(), "broadcast.sweep_timeout", "longer than zero")?;
        require((1..=1_024).contains(&self.max_in_flight), "broadcast.max_in_flight", "1 to 1,024")?;
        require(self.max_nodes <= 65_536, "broadcast.max_nodes", "at most 65,536")?;
        require(
            (1..=100).contains(&self.early_return_percent),
            "broadcast.early_return_percent",
            "1 to 100",
        )?;
        require(self.max_background <= 65_536, "broadcast.max_background", "at most 65,536")?;
        require(!self.background_timeout.is_zero(), "broadcast.background_timeout", "longer than zero")?;
        require((1..=64).contains(&self.max_lookups), "broadcast.max_lookups", "1 to 64")?;
        require(self.max_records <= 1 << 24, "broadcast.max_records", "at most 2^24")?;
        SweepConfig { k: 1, ..self.sweep.clone() }.validate()
    }

    /// The sweep parameters to use with lookups of this configuration: its k, and no more results than its
    /// candidates.
    pub(super) fn sweep_config(&self, query: &QueryConfig, answers: AnswerScope, finds: bool) -> SweepConfig {
        let results = self.sweep.results.clamp(query.k + 1, query.max_candidates.max(query.k + 1));
        let probes_edge = query.edge_probing && finds;
        let answer_size = if probes_edge { results } else { answers.most() };
        SweepConfig { k: query.k, results, answer_size, ..self.sweep.clone() }
    }

    /// The bounds of the background work, of which nothing is granted yet.
    pub(crate) const fn background(&self) -> Background {
        Background {
            max_requests: self.max_background,
            timeout: self.background_timeout,
            granted_requests: 0,
        }
    }
}
