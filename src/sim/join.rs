//! How the network comes to be.

use crate::error::{ConfigError, require};
use core::time::Duration;

/// How the network comes to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// At time zero every node has an ideal table: for each common prefix length all nodes that share exactly so many
    /// bits with it where there are at most k, else k of them drawn at random.
    #[default]
    Ideal,
    /// Nodes join one after the other, each by looking itself up.
    Join(Join),
    /// Nodes come one after the other, know the seeds and nobody else, and bootstrap. All else is up to what keeps their
    /// routing tables.
    Bootstrap(Bootstrap),
}

/// How nodes come to a network that grows from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// How many nodes are seeds: they are there from the beginning, know each other, can be asked, are honest, and neither
    /// die nor leave. 1 to 64. Default: 3.
    pub seeds: u32,
    /// From one node's coming to the next one's. Default: 100 ms.
    pub every: Duration,
    /// From the coming of the last until the network counts as built: when nodes die, begin to come and go, and do what
    /// they are made to do. Default: 500 s.
    pub settle: Duration,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { seeds: 3, every: Duration::from_millis(100), settle: Duration::from_secs(500) }
    }
}

/// How nodes join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// How many nodes each knows in the beginning, of those that have joined before. 1 to 64. Default: 3.
    pub seeds: u32,
    /// From one to the next. Default: 100 ms.
    pub every: Duration,
    /// How many random keys each looks up when it has joined. Default: 3.
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
    /// How many nodes are seeds of a network that grows from nothing, or that returning nodes bootstrap from.
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

    /// How long it takes until the network of so many nodes counts as built.
    pub(crate) fn takes(&self, nodes: u32) -> Duration {
        match self {
            Self::Ideal => Duration::ZERO,
            // Until the last has done its refreshes, if all goes well.
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
