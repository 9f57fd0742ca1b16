//! [`NetworkConfig`]: the limits on requests in flight, and the time-outs.

use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// Limits on requests in flight, and time-outs.
///
/// Memory: at most `max_in_flight + max_listening + max_queued` requests are held, and as many entries of per-node state, whatever
/// the nodes do, and `max_part_nodes` node ids for each whose answer comes in parts; and `max_banned` node ids. The
/// state of a node is dropped as soon as it has no request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkConfig {
    /// The time-out of a request, until which its answer is welcome: then it counts as a failure of the node. An
    /// operation's deadline can only make it shorter. Choose it so that few answers take longer; it costs no waiting
    /// where answers are quick, as [operations wait only as long as they have reason to](crate::requests). Longer than
    /// zero. Default: 2 s.
    pub request_timeout: Duration,
    /// The soft limit before enough round trips are known. After the soft limit, a request no longer occupies a
    /// concurrency slot of its operation, but an answer still counts in full. It is adapted to the latest round trips:
    /// the time within which 60 % of the answers come, or twice the time of 25 % where that is less. If it is not
    /// shorter than the time-out, there is no soft limit. Longer than zero. Default: 250 ms.
    pub soft_timeout: Duration,
    /// The minimum of the adapted patience; the minimum of adapted soft limits is a third of it. If it is
    /// `request_timeout` or longer, nothing is adapted: the patience is `request_timeout`, and soft limits are as
    /// configured. Longer than zero. Default: 250 ms.
    pub min_timeout: Duration,
    /// The most patience: how long an operation waits for an answer at most before it goes on without it. The answer
    /// is still listened to until `request_timeout`, and counts if it comes before the operation ends. A caller who
    /// would rather not wait for slow nodes sets it, and is told by the [outcome](crate::Outcome::Unsure) where that
    /// leaves a doubt. Adapted soft limits are of the answers that take no longer. Longer than zero. `None` is
    /// `request_timeout`. Default: `None`.
    pub max_patience: Option<Duration>,
    /// The maximum number of requests in flight in total. 1 to 2^30. Default: 65,536.
    pub max_in_flight: usize,
    /// The maximum number of requests whose answer is listened to although nobody waits for it any more: beyond
    /// their patience, or after their lookup has ended. They are not counted by `max_in_flight`. Beyond this number, a
    /// request counts there until it ends, and is cancelled when its lookup ends. At most 2^30. Default: 16,384.
    pub max_listening: usize,
    /// The maximum number of requests in flight to nodes with one key, each until it is answered or passes its patience. With those
    /// that are only listened to, it is eight times as many. Further ones wait, in order of deadline and of arrival of their
    /// operations, and [give up](crate::requests) if these show that the node is silent, or if hardly any other node
    /// [keeps its lookup](crate::guide::looking_up#a-crowd-of-lookups) from its end. 1 to 2^30. Default: 16.
    pub max_per_node: usize,
    /// The maximum number of requests that wait for capacity. Further ones are refused. At most 2^30.
    /// Default: 65,536.
    pub max_queued: usize,
    /// The maximum number of [banned](crate::RoutingInbound::Banned) nodes that are remembered, one for each key;
    /// beyond it, the ban that was declared first is forgotten. At most 2^20. Default: 1,024.
    pub max_banned: usize,
    /// The maximum number of nodes that are kept of an answer that comes [in parts](crate::Response::part), before the
    /// last part; further ones are ignored. 1 to 1,024. Default: 64.
    pub max_part_nodes: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(2),
            soft_timeout: Duration::from_millis(250),
            min_timeout: Duration::from_millis(250),
            max_patience: None,
            max_in_flight: 65_536,
            max_listening: 16_384,
            max_per_node: 16,
            max_queued: 65_536,
            max_banned: 1_024,
            max_part_nodes: 64,
        }
    }
}

impl NetworkConfig {
    /// Whether limits are as configured: nothing is adapted, and nobody is given up before the time-out.
    pub(crate) fn is_fixed(&self) -> bool {
        self.min_timeout >= self.request_timeout
            && self.max_patience.is_none_or(|most| most >= self.request_timeout)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const MOST: usize = 1 << 30;
        require(!self.request_timeout.is_zero(), "network.request_timeout", "longer than zero")?;
        require(!self.soft_timeout.is_zero(), "network.soft_timeout", "longer than zero")?;
        require(!self.min_timeout.is_zero(), "network.min_timeout", "longer than zero")?;
        let patience = self.max_patience.is_none_or(|patience| !patience.is_zero());
        require(patience, "network.max_patience", "longer than zero")?;
        require(self.max_listening <= MOST, "network.max_listening", "at most 2^30")?;
        require((1..=MOST).contains(&self.max_in_flight), "network.max_in_flight", "1 to 2^30")?;
        require((1..=MOST).contains(&self.max_per_node), "network.max_per_node", "1 to 2^30")?;
        require(self.max_queued <= MOST, "network.max_queued", "at most 2^30")?;
        require(self.max_banned <= 1 << 20, "network.max_banned", "at most 2^20")?;
        require((1..=1_024).contains(&self.max_part_nodes), "network.max_part_nodes", "1 to 1,024")
    }
}
