//! [`LookupRun`]: one lookup of a run, its requests, and how it ended.

use crate::sim::network::handle::{Handle, Key64};
use crate::sim::results::end::End;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::operation_events::OperationStats;
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// One lookup of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupRun {
    /// Its number, from 0 in order of start; also its tag, and part of the low half of its trace id.
    pub number: u32,
    /// Why it was made.
    pub reason: Reason,
    /// The node that started it.
    pub starter: Handle,
    /// The key it looked up.
    pub target: Key64,
    /// When it began.
    pub began: Instant,
    /// How it ended; `None` while it runs.
    pub ending: Option<Ending>,
    /// Every request it sent, in order; kept after its end only for the first lookups of the workload: see
    /// [`Scenario::detailed_lookups`](crate::sim::Scenario::detailed_lookups).
    pub asked: Vec<Asked>,
}

impl LookupRun {
    /// From its beginning to its end; `None` while it runs.
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
    /// A node joins: it looks up its own key.
    Join,
    /// A node that has joined fills its table by the lookup of a random key.
    Refresh,
    /// A node makes it before a broadcast, to estimate the network's size.
    Warmup,
}

/// The end of a lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    /// How it ended.
    pub end: End,
    /// When it ended.
    pub at: Instant,
    /// What the engine counted.
    pub stats: OperationStats,
    /// The share of the true k closest nodes, among those that could answer at its end, that it found. 0 to 1.
    pub recall: f64,
    /// Whether it found the closest of them.
    pub hit: bool,
}

impl Ending {
    /// The end of a lookup that sent no request.
    pub(crate) fn without_requests(end: End, at: Instant) -> Self {
        Self { end, at, stats: OperationStats::default(), recall: 0.0, hit: false }
    }
}

/// One request of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The node that was asked.
    pub node: Handle,
    /// The length of the causal chain that led to the node: 1 for a seed.
    pub hop: u32,
    /// When it was sent.
    pub sent: Instant,
    /// When and how it ended; `None` while it is in flight.
    pub ended: Option<(Instant, RequestEnd)>,
    pub(crate) request: RequestId,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestEnd {
    /// It was answered.
    Answered,
    /// It failed: the node refused it.
    Failed,
    /// Its own time-out expired.
    TimedOut,
    /// Its lookup cancelled it.
    Cancelled,
}
