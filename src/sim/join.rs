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
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self::Join(join) = self else { return Ok(()) };
        require((1..=64).contains(&join.seeds), "join.seeds", "1 to 64")
    }

    /// How long it takes until the last of so many nodes has joined and done its refreshes, if all goes well.
    pub(crate) fn takes(&self, nodes: u32) -> Duration {
        match self {
            Self::Ideal => Duration::ZERO,
            Self::Join(join) => {
                let last = join.every.saturating_mul(nodes);
                last.saturating_add(join.pause.saturating_mul(join.refreshes + 1))
            }
        }
    }
}
