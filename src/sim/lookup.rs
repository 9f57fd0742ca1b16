//! What is kept of each lookup of a run.

use super::nodes::{Handle, Key64};
use crate::event::{Outcome, RefusedBecause, Statistics};
use crate::id::RequestId;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;

/// One lookup of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// Its number, from 0 in order of start; also its tag, and the low half of its trace id.
    pub number: u32,
    /// Why it was made.
    pub reason: Reason,
    /// Who looks.
    pub starter: Handle,
    /// What for.
    pub target: Key64,
    /// When it began.
    pub began: Instant,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
    /// Every request it made, in order; kept after its end only for the first lookups of a run, as the scenario says.
    pub asked: Vec<Asked>,
}

impl Lookup {
    /// How long it took, if it has ended.
    pub fn took(&self) -> Option<Duration> {
        self.ending.as_ref().map(|ending| ending.at - self.began)
    }
}

/// Why a lookup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is part of the workload; only such lookups count for the figures.
    Workload,
    /// A node joins.
    Join,
    /// A node that has joined fills its table.
    Refresh,
    /// A node learns how large the network is, before its first broadcast.
    Learn,
}

/// The end of a lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    /// How it ended.
    pub end: End,
    /// When.
    pub at: Instant,
    /// What the engine counted.
    pub statistics: Statistics,
    /// The share of the true k closest nodes, among those that could answer at its end, that it found. 0 to 1.
    pub recall: f64,
    /// Whether it found the very closest of them.
    pub hit: bool,
}

impl Ending {
    /// The end of a lookup that asked nobody.
    pub(crate) fn none(end: End, at: Instant) -> Self {
        Self { end, at, statistics: Statistics::default(), recall: 0.0, hit: false }
    }
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The engine finished it.
    Finished(Outcome),
    /// The engine refused it.
    Refused(RefusedBecause),
    /// There was no live node to start it, or it went away.
    NobodyThere,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(outcome) => outcome.fmt(f),
            Self::Refused(_) => f.write_str("refused"),
            Self::NobodyThere => f.write_str("nobody there"),
        }
    }
}

/// One request of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who was asked.
    pub node: Handle,
    /// Length of the causal chain.
    pub hop: u32,
    /// When it was sent.
    pub sent: Instant,
    /// When and how it ended, if it has.
    pub ended: Option<(Instant, Fate)>,
    pub(crate) request: RequestId,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It was answered.
    Answered,
    /// It failed.
    Failed,
    /// It ran into its own timeout.
    TimedOut,
    /// Its lookup ended before.
    Cancelled,
}
