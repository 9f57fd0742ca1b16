//! [`BroadcastRun`]: one broadcast of a run, and how it ended.

use crate::sim::network::handle::Handle;
use crate::sim::results::end::End;
use crate::vocabulary::operation_events::OperationStats;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::BTreeMap;

/// One broadcast of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct BroadcastRun {
    /// Its number, from 0, in the order in which the scenario schedules them.
    pub number: u32,
    /// The node that starts it.
    pub starter: Handle,
    /// Its first record, by number; the others have the numbers that follow.
    pub first: u32,
    /// How many records it has.
    pub records: u32,
    /// When it began: after the warm-up lookups of its node.
    pub began: Instant,
    /// How it ended; `None` while it runs.
    pub ending: Option<BroadcastEnding>,
    /// Requests that it sent to find nodes, including those in the background.
    pub finds: u32,
    /// Requests that it sent to store something, including those in the background.
    pub stores: u32,
    /// The sum of the records in the requests of `stores`.
    pub stored: u32,
    /// The share of the true k closest nodes, among those that could answer when its background was over, that
    /// hold a record; the mean over its records. 0 to 1. `None` until then.
    pub share: Option<f64>,
    /// The least such share of any of its records.
    pub least: f64,
    /// How many requests it has sent to each node.
    pub(crate) tries: BTreeMap<Handle, u64>,
}

impl BroadcastRun {
    /// From its beginning to its finish; `None` while it runs.
    pub fn took(&self) -> Option<Duration> {
        self.ending.as_ref().map(|ending| ending.at - self.began)
    }
}

/// The end of a broadcast, as its finish reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BroadcastEnding {
    /// How it ended.
    pub end: End,
    /// When it ended.
    pub at: Instant,
    /// Whether each record was stored with as many nodes as the scenario's `success` requires.
    pub succeeded: bool,
    /// Whether an optimistic one fell back to follow-up, as it had no estimate of the network's size.
    pub fell_back: bool,
    /// How many lookups it made.
    pub lookups: u32,
    /// The share of the true k closest nodes, among those that could answer, that held a record at its finish; the
    /// mean over its records. 0 to 1.
    pub share: f64,
    /// What the engine counted until its finish.
    pub stats: OperationStats,
}

impl BroadcastEnding {
    /// The end of a broadcast that sent no request.
    pub(crate) fn without_requests(end: End, at: Instant) -> Self {
        let stats = OperationStats::default();
        Self { end, at, succeeded: false, fell_back: false, lookups: 0, share: 0.0, stats }
    }
}
