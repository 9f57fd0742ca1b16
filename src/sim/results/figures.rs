//! [`Figures`]: statistics of the lookups of a run. [`BroadcastFigures`]: statistics of its broadcasts.

use crate::sim::results::broadcast_run::BroadcastRun;
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::{Ending, LookupRun, Reason};
use crate::sim::results::serial;
use crate::vocabulary::operation_events::Outcome;
use core::fmt;
use core::time::Duration;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Statistics of a run's workload. Means and quantiles are over the lookups that the engine finished, and so not
/// over refused ones.
///
/// Serialised flat but for the quantiles: `lookups`, `running`, `ends` (a map), `time_s` in seconds, `requests` and
/// `hops` (each with its `mean`), `timeouts` and `cancelled` (means), `recall`, `success`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Lookups that have ended, including refused ones.
    pub lookups: usize,
    /// Lookups that have begun and not ended.
    pub running: usize,
    /// How they ended (the text of [`End`](crate::sim::End)), and how many so, the most frequent first.
    pub ends: Vec<(String, usize)>,
    /// How long lookups took.
    pub time: Quantiles<Duration>,
    /// Requests sent by a lookup.
    pub requests: Quantiles<u32>,
    /// The length of the longest causal chain that was answered, by lookup.
    pub hops: Quantiles<u32>,
    /// Mean number of requests of a lookup.
    pub mean_requests: f64,
    /// Mean number of hops of a lookup.
    pub mean_hops: f64,
    /// Mean number of requests of a lookup that timed out.
    pub mean_timeouts: f64,
    /// Mean number of requests of a lookup that it cancelled.
    pub mean_cancelled: f64,
    /// Mean share of the true k closest nodes, among those that could answer, that a lookup found. 0 to 1.
    pub recall: f64,
    /// Share of all ended lookups that ended by themselves, and found the closest node. 0 to
    /// 1.
    pub success: f64,
}

/// Three quantiles by nearest rank: the least value such that this share of all values does not exceed it.
/// Serialised as `p50`, `p90` and `p99`; durations as numbers of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles<T> {
    /// 50 %: the median.
    pub p50: T,
    /// 90 %.
    pub p90: T,
    /// 99 %.
    pub p99: T,
}

impl<T: Copy + Default + Ord> Quantiles<T> {
    fn of(values: impl Iterator<Item = T>) -> Self {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p90: at(90), p99: at(99) }
    }
}

impl Serialize for Quantiles<Duration> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        quantiles([self.p50, self.p90, self.p99].map(|time| time.as_secs_f64()), None, to)
    }
}

impl Serialize for Quantiles<u32> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        quantiles([self.p50, self.p90, self.p99], None, to)
    }
}

/// The quantiles of a number of each lookup, with its mean.
struct WithMean(Quantiles<u32>, f64);

impl Serialize for WithMean {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        quantiles([self.0.p50, self.0.p90, self.0.p99], Some(self.1), to)
    }
}

fn quantiles<S: Serializer>(
    values: [impl Serialize; 3],
    mean: Option<f64>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let [p50, p90, p99] = values;
    let mut out = to.serialize_struct("Quantiles", 3 + usize::from(mean.is_some()))?;
    out.serialize_field("p50", &p50)?;
    out.serialize_field("p90", &p90)?;
    out.serialize_field("p99", &p99)?;
    if let Some(mean) = mean {
        out.serialize_field("mean", &mean)?;
    }
    out.end()
}

impl Figures {
    pub(crate) fn of(lookups: &[LookupRun]) -> Self {
        let counted = || lookups.iter().filter(|lookup| lookup.reason == Reason::Workload);
        let endings = || counted().filter_map(|lookup| Some((lookup, lookup.ending.as_ref()?)));
        let finished = || endings().filter(|(_, ending)| matches!(ending.end, End::Finished(_)));
        let ends = count_ends(endings().map(|(_, ending)| ending.end));
        let count = finished().count().max(1) as f64;
        let mean =
            |figure: fn(&Ending) -> f64| finished().map(|(_, ending)| figure(ending)).sum::<f64>() / count;
        let ended = endings().count();
        let done = |end| matches!(end, End::Finished(outcome) if outcome.is_natural() && outcome != Outcome::NodeLimit);
        let succeeded = endings().filter(|(_, ending)| done(ending.end) && ending.hit).count();
        Self {
            lookups: ended,
            running: counted().count() - ended,
            ends,
            time: Quantiles::of(finished().filter_map(|(lookup, _)| lookup.took())),
            requests: Quantiles::of(finished().map(|(_, ending)| ending.stats.sent)),
            hops: Quantiles::of(finished().map(|(_, ending)| ending.stats.hops)),
            mean_requests: mean(|ending| f64::from(ending.stats.sent)),
            mean_hops: mean(|ending| f64::from(ending.stats.hops)),
            mean_timeouts: mean(|ending| f64::from(ending.stats.timed_out)),
            mean_cancelled: mean(|ending| f64::from(ending.stats.cancelled)),
            recall: mean(|ending| ending.recall),
            success: succeeded as f64 / ended.max(1) as f64,
        }
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Ends<'a>(&'a [(String, usize)]);

        impl Serialize for Ends<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                serial::counts(self.0, to)
            }
        }

        let mut out = to.serialize_struct("Figures", 10)?;
        out.serialize_field("lookups", &self.lookups)?;
        out.serialize_field("running", &self.running)?;
        out.serialize_field("ends", &Ends(&self.ends))?;
        out.serialize_field("time_s", &self.time)?;
        out.serialize_field("requests", &WithMean(self.requests, self.mean_requests))?;
        out.serialize_field("hops", &WithMean(self.hops, self.mean_hops))?;
        out.serialize_field("timeouts", &self.mean_timeouts)?;
        out.serialize_field("cancelled", &self.mean_cancelled)?;
        out.serialize_field("recall", &self.recall)?;
        out.serialize_field("success", &self.success)?;
        out.end()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, requests, hops, .. } = self;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(f, "lookups    {:>10}   ({} still running)", self.lookups, self.running)?;
        for (end, count) in &self.ends {
            writeln!(f, "  {end:<22} {count}")?;
        }
        writeln!(f, "               p50      p90      p99     mean")?;
        writeln!(f, "time, ms  {:>8.0} {:>8.0} {:>8.0}", ms(time.p50), ms(time.p90), ms(time.p99))?;
        let Quantiles { p50, p90, p99 } = requests;
        writeln!(f, "requests  {p50:>8} {p90:>8} {p99:>8} {:>8.1}", self.mean_requests)?;
        let Quantiles { p50, p90, p99 } = hops;
        writeln!(f, "hops      {p50:>8} {p90:>8} {p99:>8} {:>8.2}", self.mean_hops)?;
        writeln!(f, "timeouts                             {:>8.1}", self.mean_timeouts)?;
        writeln!(f, "cancelled                            {:>8.1}", self.mean_cancelled)?;
        writeln!(f, "recall                               {:>8.4}", self.recall)?;
        write!(f, "success                              {:>8.4}", self.success)
    }
}

/// Counts the ends by their texts, the most frequent first.
fn count_ends(all: impl Iterator<Item = End>) -> Vec<(String, usize)> {
    let mut ends: Vec<(String, usize)> = Vec::new();
    for end in all {
        let name = end.to_string();
        match ends.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => ends.push((name, 1)),
        }
    }
    ends.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    ends
}

/// Statistics of a run's broadcasts. Means and quantiles are over the broadcasts that the engine finished.
/// Serialised by these names, but `ends` as a map, `return_s` for the time in seconds, `copies_per_record` for the
/// stores, `finds_per_record`, `store_requests_per_record` for the batches, and `least_share`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BroadcastFigures {
    /// Broadcasts that have ended, including refused ones.
    pub broadcasts: usize,
    /// Broadcasts that have begun and not ended.
    pub running: usize,
    /// How they ended (the text of [`End`](crate::sim::End)), and how many so, the most frequent first.
    #[serde(serialize_with = "serial::counts")]
    pub ends: Vec<(String, usize)>,
    /// From the start to the finish, after which an optimistic one goes on in the background.
    #[serde(rename = "return_s")]
    pub time: Quantiles<Duration>,
    /// Records in these broadcasts.
    pub records: u64,
    /// Mean number of nodes that a record was sent to, including those in the background.
    #[serde(rename = "copies_per_record")]
    pub stores: f64,
    /// Mean number of requests to find nodes, for each record, including those in the background.
    #[serde(rename = "finds_per_record")]
    pub finds: f64,
    /// Mean number of requests to store something, for each record: less than `stores` where a sweep sends many
    /// records in one request.
    #[serde(rename = "store_requests_per_record")]
    pub batches: f64,
    /// Total number of lookups made by the broadcasts.
    pub lookups: u64,
    /// Mean share of the true k closest nodes, among those that could answer, that held a record at the finish. 0
    /// to 1.
    pub share_at_return: f64,
    /// The same at the end of the background, over the broadcasts that have reached it.
    pub share: f64,
    /// The least such share of any record.
    #[serde(rename = "least_share")]
    pub least: f64,
    /// Share of all ended broadcasts that succeeded: stored with as many nodes as required. 0 to 1.
    pub success: f64,
    /// Optimistic broadcasts that fell back to follow-up, as they had no estimate of the network's size.
    pub fell_back: usize,
}

impl BroadcastFigures {
    pub(crate) fn of(broadcasts: &[BroadcastRun]) -> Self {
        let endings = || broadcasts.iter().filter_map(|run| Some((run, run.ending.as_ref()?)));
        let finished = || endings().filter(|(_, ending)| matches!(ending.end, End::Finished(_)));
        let count = finished().count().max(1) as f64;
        let records: u64 = finished().map(|(run, _)| u64::from(run.records)).sum();
        let each = |figure: fn(&BroadcastRun) -> u32| {
            finished().map(|(run, _)| f64::from(figure(run))).sum::<f64>() / records.max(1) as f64
        };
        let measured = || finished().filter_map(|(run, _)| Some((run, run.share?)));
        let ended = endings().count();
        Self {
            broadcasts: ended,
            running: broadcasts.len() - ended,
            ends: count_ends(endings().map(|(_, ending)| ending.end)),
            time: Quantiles::of(finished().filter_map(|(run, _)| run.took())),
            records,
            stores: each(|run| run.stored),
            finds: each(|run| run.finds),
            batches: each(|run| run.stores),
            lookups: finished().map(|(_, ending)| u64::from(ending.lookups)).sum(),
            share_at_return: finished().map(|(_, ending)| ending.share).sum::<f64>() / count,
            share: measured().map(|(_, share)| share).sum::<f64>() / measured().count().max(1) as f64,
            least: measured().map(|(run, _)| run.least).fold(1.0, f64::min),
            success: finished().filter(|(_, ending)| ending.succeeded).count() as f64 / ended.max(1) as f64,
            fell_back: finished().filter(|(_, ending)| ending.fell_back).count(),
        }
    }
}

impl fmt::Display for BroadcastFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(f, "broadcasts {:>10}   ({} still running)", self.broadcasts, self.running)?;
        for (end, count) in &self.ends {
            writeln!(f, "  {end:<22} {count}")?;
        }
        let Quantiles { p50, p90, p99 } = self.time;
        writeln!(f, "               p50      p90      p99     mean")?;
        writeln!(f, "return, ms {:>7.0} {:>8.0} {:>8.0}", ms(p50), ms(p90), ms(p99))?;
        writeln!(f, "for each of {} records:", self.records)?;
        writeln!(f, "  requests to find nodes             {:>8.2}", self.finds)?;
        writeln!(f, "  requests to store                  {:>8.2}", self.batches)?;
        writeln!(f, "  nodes it is sent to                {:>8.2}", self.stores)?;
        writeln!(f, "  share of the k closest, at return  {:>8.4}", self.share_at_return)?;
        writeln!(f, "  and in the end                     {:>8.4} (least {:.2})", self.share, self.least)?;
        writeln!(f, "lookups                              {:>8}", self.lookups)?;
        write!(f, "success                              {:>8.4}", self.success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        assert_eq!(Quantiles::of(1..=200), Quantiles { p50: 100, p90: 180, p99: 198 });
        assert_eq!(Quantiles::of(core::iter::once(7)), Quantiles { p50: 7, p90: 7, p99: 7 });
        assert_eq!(Quantiles::<u32>::of(core::iter::empty()), Quantiles::default());
    }

    #[test]
    fn times_are_numbers_of_seconds() {
        let half = Duration::from_millis(500);
        let times = Quantiles { p50: half, p90: 2 * half, p99: 3 * half };
        assert_eq!(
            serde_json::to_value(times).unwrap(),
            serde_json::json!({ "p50": 0.5, "p90": 1.0, "p99": 1.5 })
        );
        let counts = Quantiles { p50: 1_u32, p90: 2, p99: 3 };
        assert_eq!(
            serde_json::to_value(counts).unwrap(),
            serde_json::json!({ "p50": 1, "p90": 2, "p99": 3 })
        );
    }
}
