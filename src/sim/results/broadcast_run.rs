//! [`BroadcastRun`]: one broadcast of a run, and how it ended.

use crate::sim::network::handle::Handle;
use crate::sim::results::end::End;
use crate::sim::results::serial;
use crate::vocabulary::operation_events::OperationStats;
use crate::vocabulary::region::RegionReport;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::collections::BTreeMap;

/// One broadcast of a run.
///
/// Serialised flat, with the same fields whether it runs (then those of its ending are null) or has ended:
/// `number`, `starter`, `first`, `records`, `began_s`, `took_s`, those of [`BroadcastEnding`], `finds`, `stores`,
/// `stored`, `share` and `least` (null until measured). Times are in seconds.
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
    /// How many of its records none of those nodes held by then.
    pub held_by_none: u32,
    /// How many requests it has sent to each node.
    pub(crate) tries: BTreeMap<Handle, u64>,
}

impl BroadcastRun {
    /// From its beginning to its finish; `None` while it runs.
    pub fn took(&self) -> Option<Duration> {
        self.ending.as_ref().map(|ending| ending.at - self.began)
    }
}

impl Serialize for BroadcastRun {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("BroadcastRun", 11 + BroadcastEnding::FIELDS)?;
        out.serialize_field("number", &self.number)?;
        out.serialize_field("starter", &self.starter)?;
        out.serialize_field("first", &self.first)?;
        out.serialize_field("records", &self.records)?;
        out.serialize_field("began_s", &serial::since_origin(self.began))?;
        out.serialize_field("took_s", &self.took().map(|took| took.as_secs_f64()))?;
        BroadcastEnding::write(&mut out, self.ending.as_ref())?;
        out.serialize_field("finds", &self.finds)?;
        out.serialize_field("stores", &self.stores)?;
        out.serialize_field("stored", &self.stored)?;
        out.serialize_field("share", &self.share)?;
        out.serialize_field("least", &self.share.map(|_| self.least))?;
        out.end()
    }
}

/// The end of a broadcast, as its finish reports it. Serialised flat: `ended_s`, in seconds, `end`, `succeeded`,
/// `fell_back`, `lookups`, `share_at_return`, and of what the engine counted `sent`, `answered`, `failed`, `timed_out`,
/// `cancelled` and `hops`.
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
    /// What its finish said of the region of the key. Not serialised.
    pub region: Option<RegionReport>,
}

impl BroadcastEnding {
    /// The end of a broadcast that sent no request.
    pub(crate) fn without_requests(end: End, at: Instant) -> Self {
        let stats = OperationStats::default();
        Self { end, at, succeeded: false, fell_back: false, lookups: 0, share: 0.0, stats, region: None }
    }

    const FIELDS: usize = 6 + serial::STATS;

    /// The fields of an ending; null if there is none.
    fn write<S: SerializeStruct>(out: &mut S, ending: Option<&Self>) -> Result<(), S::Error> {
        out.serialize_field("ended_s", &ending.map(|ending| serial::since_origin(ending.at)))?;
        out.serialize_field("end", &ending.map(|ending| ending.end))?;
        out.serialize_field("succeeded", &ending.map(|ending| ending.succeeded))?;
        out.serialize_field("fell_back", &ending.map(|ending| ending.fell_back))?;
        out.serialize_field("lookups", &ending.map(|ending| ending.lookups))?;
        out.serialize_field("share_at_return", &ending.map(|ending| ending.share))?;
        serial::stats(out, ending.map(|ending| &ending.stats))
    }
}

impl Serialize for BroadcastEnding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("BroadcastEnding", Self::FIELDS)?;
        Self::write(&mut out, Some(self))?;
        out.end()
    }
}
