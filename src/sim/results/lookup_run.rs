//! [`LookupRun`]: one lookup of a run, its requests, and how it ended.

use crate::sim::network::handle::{Handle, Key64};
use crate::sim::results::end::End;
use crate::sim::results::serial;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::operation_events::OperationStats;
use crate::vocabulary::region::RegionReport;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One lookup of a run.
///
/// Serialised flat, with the same fields whether it runs (then those of its ending are null) or has ended:
/// `number`, `reason`, `starter`, `target`, `began_s`, `took_s`, those of [`Ending`], `record`, `shown`,
/// `lies`, and `asked`, a list. Times are in
/// seconds.
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
    /// The record that it searches for, by number.
    pub record: Option<u32>,
    /// How many answers have shown this record.
    pub shown: u32,
    /// How many answers have shown another record: lies.
    pub lies: u32,
    /// The nodes that it found, the closest first; for lookups of the workload.
    pub found: Vec<Handle>,
    /// Those of the true k closest nodes, among those that could answer at its end, that it did not find; for lookups of
    /// the workload.
    pub missed: Vec<Handle>,
}

impl LookupRun {
    /// From its beginning to its end; `None` while it runs.
    pub fn took(&self) -> Option<Duration> {
        self.ending.as_ref().map(|ending| ending.at - self.began)
    }
}

impl Serialize for LookupRun {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("LookupRun", 10 + Ending::FIELDS)?;
        out.serialize_field("number", &self.number)?;
        out.serialize_field("reason", &self.reason)?;
        out.serialize_field("starter", &self.starter)?;
        out.serialize_field("target", &self.target)?;
        out.serialize_field("began_s", &serial::since_origin(self.began))?;
        out.serialize_field("took_s", &self.took().map(|took| took.as_secs_f64()))?;
        Ending::write(&mut out, self.ending.as_ref())?;
        out.serialize_field("record", &self.record)?;
        out.serialize_field("shown", &self.shown)?;
        out.serialize_field("lies", &self.lies)?;
        out.serialize_field("asked", &self.asked)?;
        out.end()
    }
}

/// Why a lookup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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

/// The end of a lookup. Serialised flat: `ended_s`, in seconds, `end`, `recall`, `hit`, and of what the engine counted
/// `sent`, `answered`, `failed`, `timed_out`, `cancelled` and `hops`.
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
    /// What its finish said of the region of the target. Not serialised.
    pub region: Option<RegionReport>,
}

impl Ending {
    /// The end of a lookup that sent no request.
    pub(crate) fn without_requests(end: End, at: Instant) -> Self {
        Self { end, at, stats: OperationStats::default(), recall: 0.0, hit: false, region: None }
    }

    const FIELDS: usize = 4 + serial::STATS;

    /// The fields of an ending; null if there is none.
    fn write<S: SerializeStruct>(out: &mut S, ending: Option<&Self>) -> Result<(), S::Error> {
        out.serialize_field("ended_s", &ending.map(|ending| serial::since_origin(ending.at)))?;
        out.serialize_field("end", &ending.map(|ending| ending.end))?;
        out.serialize_field("recall", &ending.map(|ending| ending.recall))?;
        out.serialize_field("hit", &ending.map(|ending| ending.hit))?;
        serial::stats(out, ending.map(|ending| &ending.stats))
    }
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("Ending", Self::FIELDS)?;
        Self::write(&mut out, Some(self))?;
        out.end()
    }
}

/// One request of a lookup. Serialised as `node`, `hop`, `sent_s`, `ended_s` and `end`: times in seconds, the last two
/// null while it is in flight.
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

impl Serialize for Asked {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("Asked", 5)?;
        out.serialize_field("node", &self.node)?;
        out.serialize_field("hop", &self.hop)?;
        out.serialize_field("sent_s", &serial::since_origin(self.sent))?;
        out.serialize_field("ended_s", &self.ended.map(|(at, _)| serial::since_origin(at)))?;
        out.serialize_field("end", &self.ended.map(|(_, end)| end))?;
        out.end()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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
