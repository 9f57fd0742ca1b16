//! [`Broadcasts`]: the broadcasts of a run, which store records in the network.

use crate::broadcast::events::Success;
use crate::sim::scenario::interarrival::Interarrival;
use crate::sim::scenario::who::Who;
use crate::vocabulary::config_error::{ConfigError, require};
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// Broadcasts of records, each by a random node that is online at the time.
///
/// An honest node that a store request reaches holds the record until it starts anew; one that is not honest answers, and
/// keeps it if its [`Answer`](crate::sim::Answer::keeps) says so. Each broadcast has its own trace id.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcasts {
    /// How the records are stored. Default: follow-up.
    pub scheme: Scheme,
    /// How many broadcasts there are. At most 65,536. Default: 200.
    pub count: u32,
    /// From when the network is built to the first broadcast. Default: zero.
    pub first: Duration,
    /// From one broadcast to the next. Default: every 600 s, so that no two run at the same time.
    pub pace: Interarrival,
    /// How long each may take, more than zero; `None` applies the node's configuration alone. Default: `None`.
    pub deadline: Option<Duration>,
    /// How many nodes must have stored a record for the broadcast to succeed. Default: one.
    pub success: Success,
    /// How many lookups of random keys a node makes before its first broadcast, all at the same time, so that it
    /// can estimate the network's size; the broadcast begins when all have ended. They are repeated before a
    /// broadcast that begins more than an hour after the previous ones began. At most 1,024. Default: 50.
    pub warmup_lookups: u32,
    /// The share of broadcasts that their caller stops at a random time within a second, if they have not ended. 0
    /// to 1. Default: 0.
    pub stopped: f64,
    /// Which nodes start them. Default: all.
    pub by: Who,
    /// The keys of the records: of these [points](crate::sim::Handle::point), in turn. Default: uniformly random.
    pub keys: Option<Arc<[u32]>>,
}

impl Default for Broadcasts {
    fn default() -> Self {
        Self {
            scheme: Scheme::FollowUp,
            count: 200,
            first: Duration::ZERO,
            pace: Interarrival::Every(Duration::from_secs(600)),
            deadline: None,
            success: Success::default(),
            warmup_lookups: 50,
            stopped: 0.0,
            by: Who::All,
            keys: None,
        }
    }
}

/// How records are stored: one of the engine's [strategies](crate::broadcast::Strategy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A lookup, then the stores.
    FollowUp,
    /// Stores with the k closest nodes of the node's own table, without a lookup.
    Static,
    /// Stores during the lookup.
    Optimistic {
        /// The number of nodes of the network; `None`: the node's estimate.
        nodes: Option<u64>,
    },
    /// Many records in each broadcast, by few lookups.
    Sweep {
        /// How many records. 1 to 65,536.
        records: u32,
    },
}

impl Scheme {
    /// How many records a broadcast has.
    pub const fn records(self) -> u32 {
        if let Self::Sweep { records } = self { records } else { 1 }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FollowUp => "follow-up",
            Self::Static => "static",
            Self::Optimistic { .. } => "optimistic",
            Self::Sweep { .. } => "sweep",
        })
    }
}

impl Broadcasts {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(self.count <= 65_536, "broadcasts.count", "at most 65,536")?;
        require((1..=65_536).contains(&self.scheme.records()), "broadcasts.records", "1 to 65,536")?;
        let deadline = self.deadline.is_none_or(|deadline| !deadline.is_zero());
        require(deadline, "broadcasts.deadline", "longer than zero")?;
        require(self.warmup_lookups <= 1_024, "broadcasts.warmup_lookups", "at most 1,024")?;
        require((0.0..=1.0).contains(&self.stopped), "broadcasts.stopped", "0 to 1")?;
        let keys = self.keys.as_ref().is_none_or(|keys| !keys.is_empty());
        require(keys, "broadcasts.keys", "at least one")?;
        require(self.pace.is_valid(), "broadcasts.pace", "at least one time, all in order")
    }

    /// From when the network is built to the first broadcast.
    pub(crate) fn begins(&self) -> Duration {
        self.first + self.pace.first()
    }
}
