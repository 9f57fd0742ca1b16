//! [`Figures`]: what came of the lookups of a run. [`BroadcastFigures`]: what came of its broadcasts.

use super::broadcast::Broadcast;
use super::lookup::{End, Lookup, Reason};
use crate::event::Outcome;
use core::fmt;
use core::time::Duration;

/// The figures of a run, over all lookups of the workload that have ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Lookups that have ended, refused ones too.
    pub lookups: usize,
    /// Lookups that have begun and not ended.
    pub running: usize,
    /// How they ended, and how many each, most first.
    pub ends: Vec<(String, usize)>,
    /// How long they took.
    pub time: Quantiles<Duration>,
    /// Requests sent, each.
    pub requests: Quantiles<u32>,
    /// Length of the longest causal chain that was answered, each.
    pub hops: Quantiles<u32>,
    /// Mean requests of a lookup.
    pub mean_requests: f64,
    /// Mean hops of a lookup.
    pub mean_hops: f64,
    /// Mean number of requests of a lookup that ran into their own timeout.
    pub mean_timeouts: f64,
    /// Mean number of requests of a lookup that were given up because it ended.
    pub mean_cancelled: f64,
    /// Mean share of the true k closest nodes, among those that could answer, that a lookup found.
    pub recall: f64,
    /// Share of all lookups that ended with all there was to do done, and found the very closest node.
    pub success: f64,
}

/// Three quantiles: the least values that are not exceeded by so many of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles<T> {
    /// By half.
    pub p50: T,
    /// By 90 %.
    pub p90: T,
    /// By 99 %.
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

impl Figures {
    pub(crate) fn of(lookups: &[Lookup]) -> Self {
        let counted = || lookups.iter().filter(|lookup| lookup.reason == Reason::Workload);
        let endings = || counted().filter_map(|lookup| Some((lookup, lookup.ending.as_ref()?)));
        let finished = || endings().filter(|(_, ending)| matches!(ending.end, End::Finished(_)));
        let ends = tally(endings().map(|(_, ending)| ending.end));
        let count = finished().count().max(1) as f64;
        let mean = |figure: fn(&super::lookup::Ending) -> f64| {
            finished().map(|(_, ending)| figure(ending)).sum::<f64>() / count
        };
        let ended = endings().count();
        let done = |end| matches!(end, End::Finished(Outcome::Converged | Outcome::Exhausted));
        let succeeded = endings().filter(|(_, ending)| done(ending.end) && ending.hit).count();
        Self {
            lookups: ended,
            running: counted().count() - ended,
            ends,
            time: Quantiles::of(finished().filter_map(|(lookup, _)| lookup.took())),
            requests: Quantiles::of(finished().map(|(_, ending)| ending.statistics.requests)),
            hops: Quantiles::of(finished().map(|(_, ending)| ending.statistics.hops)),
            mean_requests: mean(|ending| f64::from(ending.statistics.requests)),
            mean_hops: mean(|ending| f64::from(ending.statistics.hops)),
            mean_timeouts: mean(|ending| f64::from(ending.statistics.timeouts)),
            mean_cancelled: mean(|ending| f64::from(ending.statistics.cancelled)),
            recall: mean(|ending| ending.recall),
            success: succeeded as f64 / ended.max(1) as f64,
        }
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

/// How often which end occurs, most first.
fn tally(all: impl Iterator<Item = End>) -> Vec<(String, usize)> {
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

/// The figures of a run, over all broadcasts that have ended.
#[derive(Clone, Debug, PartialEq)]
pub struct BroadcastFigures {
    /// Broadcasts that have ended, refused ones too.
    pub broadcasts: usize,
    /// Broadcasts that have begun and not ended.
    pub running: usize,
    /// How they ended, and how many each, most first.
    pub ends: Vec<(String, usize)>,
    /// From the start to the return: the finish, after which an optimistic one goes on in the background.
    pub time: Quantiles<Duration>,
    /// Records in these broadcasts.
    pub records: u64,
    /// Nodes that a record was sent to, on average, those in the background too.
    pub stores: f64,
    /// Requests to find nodes, for each record on average, those in the background too.
    pub finds: f64,
    /// Requests to store something, for each record on average: fewer than stores where a sweep sends many records in one.
    pub batches: f64,
    /// Lookups begun, all together.
    pub lookups: u64,
    /// Mean share of the true k closest nodes, among those that could answer, that held a record when its broadcast returned.
    pub share_at_return: f64,
    /// The same when what went on in the background was over, where it is by now.
    pub share: f64,
    /// The least such share of any record.
    pub least: f64,
    /// Share of all broadcasts that succeeded: stored with as many nodes as they should.
    pub success: f64,
    /// Optimistic ones that did not know how large the network is.
    pub fell_back: usize,
}

impl BroadcastFigures {
    pub(crate) fn of(broadcasts: &[Broadcast]) -> Self {
        let endings = || broadcasts.iter().filter_map(|cast| Some((cast, cast.ending.as_ref()?)));
        let finished = || endings().filter(|(_, ending)| matches!(ending.end, End::Finished(_)));
        let count = finished().count().max(1) as f64;
        let records: u64 = finished().map(|(cast, _)| u64::from(cast.records)).sum();
        let each = |figure: fn(&Broadcast) -> u32| {
            finished().map(|(cast, _)| f64::from(figure(cast))).sum::<f64>() / records.max(1) as f64
        };
        let judged = || finished().filter_map(|(cast, _)| Some((cast, cast.share?)));
        let ended = endings().count();
        Self {
            broadcasts: ended,
            running: broadcasts.len() - ended,
            ends: tally(endings().map(|(_, ending)| ending.end)),
            time: Quantiles::of(finished().filter_map(|(cast, _)| cast.took())),
            records,
            stores: each(|cast| cast.stored),
            finds: each(|cast| cast.finds),
            batches: each(|cast| cast.stores),
            lookups: finished().map(|(_, ending)| u64::from(ending.lookups)).sum(),
            share_at_return: finished().map(|(_, ending)| ending.share).sum::<f64>() / count,
            share: judged().map(|(_, share)| share).sum::<f64>() / judged().count().max(1) as f64,
            least: judged().map(|(cast, _)| cast.least).fold(1.0, f64::min),
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
}
