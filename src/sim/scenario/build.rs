//! [`Build`]: how the network is built, with ideal tables or by nodes that join.

use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// How the network is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// At time zero every node has an ideal table: for each common prefix length all nodes that share exactly that
    /// many bits with it where there are at most k, else k of them drawn at random. k is the table's bucket size.
    #[default]
    Ideal,
    /// Nodes join one after the other, each by a lookup of its own key.
    Join(Join),
    /// Nodes start one after the other, know the seeds only, and bootstrap. Their routing maintenance does
    /// everything else.
    Bootstrap(Bootstrap),
}

/// Parameters of [`Build::Bootstrap`]: a network that grows from its seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// How many nodes are seeds: they are online from the beginning, know each other, are reachable, are honest,
    /// and neither die nor leave. 1 to 64. Default: 3.
    pub seeds: u32,
    /// From one node's start to the next one's. Default: 100 ms.
    pub every: Duration,
    /// From the start of the last node until the network counts as built: then nodes die, churn begins, and the
    /// workload begins. Default: 500 s.
    pub settle: Duration,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { seeds: 3, every: Duration::from_millis(100), settle: Duration::from_secs(500) }
    }
}

/// Parameters of [`Build::Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// How many nodes each joining node knows, drawn from those that joined before (with repetition). 1 to 64.
    /// Default: 3.
    pub seeds: u32,
    /// From one node's join to the next one's. Default: 100 ms.
    pub every: Duration,
    /// How many random keys each node looks up after it has joined. Default: 3.
    pub refreshes: u32,
    /// How long it waits before each. Default: 5 s.
    pub pause: Duration,
}

impl Default for Join {
    fn default() -> Self {
        Self { seeds: 3, every: Duration::from_millis(100), refreshes: 3, pause: Duration::from_secs(5) }
    }
}

impl Build {
    /// How many seeds a network that grows by [`Build::Bootstrap`] has; the default number for other builds.
    pub(crate) fn seeds(&self) -> u32 {
        if let Self::Bootstrap(bootstrap) = self { bootstrap.seeds } else { Bootstrap::default().seeds }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Ideal => Ok(()),
            Self::Join(join) => require((1..=64).contains(&join.seeds), "join.seeds", "1 to 64"),
            Self::Bootstrap(it) => require((1..=64).contains(&it.seeds), "bootstrap.seeds", "1 to 64"),
        }
    }

    /// The time until a network of this many nodes counts as built.
    pub(crate) fn duration(&self, nodes: u32) -> Duration {
        match self {
            Self::Ideal => Duration::ZERO,
            // Until the last node has begun its refreshes, and one more pause.
            Self::Join(join) => {
                let last = join.every.saturating_mul(nodes);
                last.saturating_add(join.pause.saturating_mul(join.refreshes + 1))
            }
            Self::Bootstrap(bootstrap) => {
                let last = bootstrap.every.saturating_mul(nodes);
                last.saturating_add(bootstrap.settle)
            }
        }
    }
}
