//! What is stored in the network: [`Broadcasts`], and what is kept of each.

use super::lookup::End;
use super::nodes::Handle;
use super::workload::Pace;
use crate::broadcast::Success;
use crate::error::{ConfigError, require};
use crate::event::Statistics;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

/// Broadcasts of records with uniformly random keys, each by a random node that is there at the time.
///
/// An honest node that a store reaches holds the record from then on, as long as it does not begin anew; others answer, and
/// keep nothing. Each broadcast has a trace id of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcasts {
    /// How the records are stored. Default: follow-up.
    pub scheme: Scheme,
    /// How many broadcasts there are. At most 65,536. Default: 200.
    pub count: u32,
    /// When the first begins, once the network is built. Default: at once.
    pub first: Duration,
    /// When the next begins. Default: every 600 s, so that no two of them meet.
    pub pace: Pace,
    /// How long each may take; `None` leaves it to the node's configuration. Default: none.
    pub deadline: Option<Duration>,
    /// How many must have stored a record. Default: one.
    pub success: Success,
    /// How many random keys a node looks up before its first broadcast, and again before one that comes more than an hour later,
    /// all at once, so that it knows how large the network is: its broadcast begins when these have ended. At most 1,024.
    /// Default: 50.
    pub learn: u32,
    /// How many of the broadcasts are stopped by their caller, within a second, if they have not ended. 0 to 1. Default: 0.
    pub stopped: f64,
}

impl Default for Broadcasts {
    fn default() -> Self {
        Self {
            scheme: Scheme::FollowUp,
            count: 200,
            first: Duration::ZERO,
            pace: Pace::Every(Duration::from_secs(600)),
            deadline: None,
            success: Success::default(),
            learn: 50,
            stopped: 0.0,
        }
    }
}

/// How records are stored: the [strategies](crate::broadcast::Strategy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A lookup, then the stores.
    FollowUp,
    /// With the k closest that the node's own table knows.
    Static,
    /// Stores during the lookup.
    Optimistic {
        /// How many nodes there are; `None`: as the node estimates.
        nodes: Option<u64>,
    },
    /// So many records in each broadcast, 1 to 65,536.
    Sweep {
        /// How many.
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
        require(self.learn <= 1_024, "broadcasts.learn", "at most 1,024")?;
        require((0.0..=1.0).contains(&self.stopped), "broadcasts.stopped", "0 to 1")?;
        require(self.pace.is_sound(), "broadcasts.pace", "at least one time, all in order")
    }

    /// When the first begins, counted from when the network is built.
    pub(crate) fn begins(&self) -> Duration {
        self.first + self.pace.first()
    }
}

/// One broadcast of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// Its number, from 0 in order of planning.
    pub number: u32,
    /// Whose it is.
    pub starter: Handle,
    /// Its first record, by number; the others follow.
    pub first: u32,
    /// How many records it has.
    pub records: u32,
    /// When it began: after its node has learnt what it has to.
    pub began: Instant,
    /// How it ended, if it has.
    pub ending: Option<BroadcastEnding>,
    /// Requests that it sent to find nodes, those in the background too.
    pub finds: u32,
    /// Requests that it sent to store something, those in the background too.
    pub stores: u32,
    /// Records in these, all together.
    pub stored: u32,
    /// The share of the true k closest nodes, of those that could answer when its background was over, that hold its record; the
    /// mean over its records. 0 to 1.
    pub share: Option<f64>,
    /// The least such share of any of its records.
    pub least: f64,
    /// How often it has asked whom.
    pub(crate) tries: BTreeMap<Handle, u64>,
}

impl Broadcast {
    /// How long it took to return, if it has ended.
    pub fn took(&self) -> Option<Duration> {
        self.ending.as_ref().map(|ending| ending.at - self.began)
    }
}

/// The end of a broadcast, as its caller learns it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BroadcastEnding {
    /// How it ended.
    pub end: End,
    /// When.
    pub at: Instant,
    /// Whether each record was stored with as many nodes as it should be.
    pub succeeded: bool,
    /// Whether an optimistic one did not know how large the network is.
    pub fell_back: bool,
    /// How many lookups it began.
    pub lookups: u32,
    /// The share of the true k closest nodes that held its record by then.
    pub share: f64,
    /// What the engine counted by then.
    pub statistics: Statistics,
}

impl BroadcastEnding {
    /// The end of a broadcast that asked nobody.
    pub(crate) fn none(end: End, at: Instant) -> Self {
        let statistics = Statistics::default();
        Self { end, at, succeeded: false, fell_back: false, lookups: 0, share: 0.0, statistics }
    }
}
