//! [`Work`] and [`WorkCosts`]: what kinds of operations there are, and what one of each costs.

use crate::vocabulary::time::Instant;
use core::time::Duration;

/// What an operation does, and how much of it. Operations of equal work are expected to cost about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) kind: WorkKind,
    /// How many nodes or records it was given, where that decides what it costs; otherwise 0.
    pub(crate) size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkKind {
    /// A lookup that only finds nodes.
    Lookup,
    /// A lookup whose requests carry a message, and which may end at a quorum.
    Search,
    Crawl,
    FollowUp,
    Optimistic,
    /// A broadcast to given nodes: it sends a request to each.
    Static,
    /// A broadcast of many records.
    Sweep,
}

/// A [`Work`], as an index: those of given nodes or records by the power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkClass(u8);

/// So many sizes are told apart.
const SIZES: u8 = 32;

impl From<Work> for WorkClass {
    fn from(Work { kind, size }: Work) -> Self {
        #[allow(clippy::cast_possible_truncation)] // the logarithm of a number of at most 64 bits
        let size = (size.max(1).ilog2() as u8).min(SIZES - 1);
        Self(match kind {
            WorkKind::Lookup => 0,
            WorkKind::Search => 1,
            WorkKind::Crawl => 2,
            WorkKind::FollowUp => 3,
            WorkKind::Optimistic => 4,
            WorkKind::Static => 5 + size,
            WorkKind::Sweep => 5 + SIZES + size,
        })
    }
}

impl WorkClass {
    /// Whether it sends one request to each of given nodes.
    pub(super) fn has_given_nodes(self) -> bool {
        self.expected_requests().is_some()
    }

    /// How many requests one needs if none has been seen: known only where the nodes were given.
    fn expected_requests(self) -> Option<u64> {
        let size = self.0.checked_sub(5).filter(|size| *size < SIZES)?;
        Some(1 << size)
    }
}

/// An observation of the work of an operation that has ended: what it has cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinishedWork {
    pub(super) class: WorkClass,
    /// The requests that it has sent.
    pub(super) sent: u32,
    /// How long it ran.
    pub(super) took: Duration,
    /// It ended by itself. If not, it would have cost more than this.
    pub(super) is_complete: bool,
}

/// After so many of a class, its cost is known.
const KNOWN: u32 = 4;
/// What has not been seen for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// Fractions of a request are counted in sixteenths.
const SIXTEENTHS: u64 = 16;

/// What operations of each class have cost lately.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkCosts {
    /// By class; empty until something has been seen.
    classes: Vec<Cost>,
    /// How many of each class run.
    running: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    seen: u32,
    latest: Instant,
    /// The mean number of requests, in sixteenths, the latest with a weight of 1/8.
    requests: u64,
    /// Half of them took no longer than this.
    time: Duration,
}

impl WorkCosts {
    /// An operation has ended that ran while others waited. One that did not end by itself tells something only where it has
    /// cost more than was expected: it would have cost at least that.
    pub(super) fn observe(&mut self, now: Instant, work: FinishedWork) {
        let class = usize::from(work.class.0);
        if self.classes.len() <= class {
            self.classes.resize(class + 1, Cost::default());
        }
        let Some(cost) = self.classes.get_mut(class) else { return };
        if now - cost.latest > FORGOTTEN {
            *cost = Cost::default();
        }
        cost.latest = now;
        let sent = u64::from(work.sent) * SIXTEENTHS;
        if cost.seen == 0 {
            cost.requests = sent;
        } else if work.is_complete || sent > cost.requests {
            let weight = u64::from(cost.seen + 1).min(8);
            cost.requests = cost.requests - cost.requests / weight + sent / weight;
        }
        // A step by an eighth at most for each, up or down: in balance where half of them take longer.
        if cost.seen < KNOWN {
            cost.time = cost.time.max(work.took);
        } else if work.took > cost.time {
            cost.time += (cost.time / 8).min(work.took.saturating_sub(cost.time));
        } else if work.is_complete {
            cost.time -= (cost.time / 8).min(cost.time.saturating_sub(work.took));
        }
        cost.seen = cost.seen.saturating_add(1);
    }

    /// An operation of this class begins to run.
    pub(super) fn begins(&mut self, class: WorkClass) {
        let class = usize::from(class.0);
        if self.running.len() <= class {
            self.running.resize(class + 1, 0);
        }
        if let Some(running) = self.running.get_mut(class) {
            *running += 1;
        }
    }

    /// An operation of this class runs no more.
    pub(super) fn ends(&mut self, class: WorkClass) {
        if let Some(running) = self.running.get_mut(usize::from(class.0)) {
            *running = running.saturating_sub(1);
        }
    }

    /// How many requests all that run need from beginning to end, in sixteenths, as far as that is known.
    pub(super) fn requests_of_running(&self, now: Instant) -> u64 {
        let classes = (0..).zip(&self.running).filter(|(_, running)| **running > 0);
        let requests = classes
            .map(|(class, running)| u64::from(*running) * self.requests(now, WorkClass(class)).unwrap_or(0));
        requests.sum()
    }

    fn known(&self, now: Instant, class: WorkClass) -> Option<&Cost> {
        let cost = self.classes.get(usize::from(class.0))?;
        (cost.seen >= KNOWN && now - cost.latest <= FORGOTTEN).then_some(cost)
    }

    /// How many requests one of this class needs, in sixteenths, if that is known.
    pub(super) fn requests(&self, now: Instant, class: WorkClass) -> Option<u64> {
        match self.known(now, class) {
            Some(cost) => Some(cost.requests),
            None => class.expected_requests().map(|requests| requests * SIXTEENTHS),
        }
    }

    /// How long half of this class take at most, if that is known.
    pub(super) fn time(&self, now: Instant, class: WorkClass) -> Option<Duration> {
        self.known(now, class).map(|cost| cost.time)
    }
}

#[cfg(test)]
mod tests {
    use super::{FinishedWork, SIXTEENTHS, Work, WorkClass, WorkCosts, WorkKind};
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Instant = Instant::from_secs(1_000);

    fn class(kind: WorkKind, size: usize) -> WorkClass {
        Work { kind, size }.into()
    }

    fn ran(sent: u32, took: u32, is_complete: bool) -> FinishedWork {
        FinishedWork { class: class(WorkKind::Lookup, 0), sent, took: MS * took, is_complete }
    }

    #[test]
    fn a_cost_is_known_after_four_and_forgotten_after_two_minutes() {
        let (mut costs, lookups) = (WorkCosts::default(), class(WorkKind::Lookup, 0));
        for took in [100, 400, 200] {
            costs.observe(NOW, ran(10, took, true));
            assert_eq!((costs.requests(NOW, lookups), costs.time(NOW, lookups)), (None, None));
        }
        costs.observe(NOW, ran(30, 300, true));
        assert_eq!(costs.requests(NOW, lookups), Some(15 * SIXTEENTHS), "the mean");
        assert_eq!(costs.time(NOW, lookups), Some(400 * MS), "the longest of the first");
        let late = NOW + Duration::from_secs(120);
        assert_eq!(costs.time(late, lookups), Some(400 * MS));
        assert_eq!(costs.time(late + MS, lookups), None);
        costs.observe(late + MS, ran(10, 100, true));
        assert_eq!(costs.time(late + MS, lookups), None, "it is learnt anew");
    }

    #[test]
    fn the_time_settles_at_the_median_of_a_mixture() {
        // Two of three take 100 ms, one takes 2 s.
        let (mut costs, lookups) = (WorkCosts::default(), class(WorkKind::Lookup, 0));
        for number in 0..600 {
            costs.observe(NOW, ran(10, if number % 3 == 0 { 2_000 } else { 100 }, true));
        }
        assert!(costs.time(NOW, lookups).is_some_and(|time| time < 150 * MS), "{costs:?}");
        for number in 0..600 {
            costs.observe(NOW, ran(10, if number % 3 == 0 { 100 } else { 2_000 }, true));
        }
        assert!(costs.time(NOW, lookups).is_some_and(|time| time > 1_500 * MS), "{costs:?}");
    }

    #[test]
    fn one_that_did_not_end_by_itself_tells_only_that_it_costs_more() {
        let (mut costs, lookups) = (WorkCosts::default(), class(WorkKind::Lookup, 0));
        (0..8).for_each(|_| costs.observe(NOW, ran(10, 100, true)));
        (0..50).for_each(|_| costs.observe(NOW, ran(2, 50, false)));
        assert_eq!(
            (costs.requests(NOW, lookups), costs.time(NOW, lookups)),
            (Some(10 * SIXTEENTHS), Some(100 * MS))
        );
        (0..50).for_each(|_| costs.observe(NOW, ran(40, 900, false)));
        assert!(costs.requests(NOW, lookups).is_some_and(|requests| requests > 35 * SIXTEENTHS));
        assert_eq!(costs.time(NOW, lookups), Some(900 * MS));
    }

    #[test]
    fn kinds_and_powers_of_two_are_apart_and_given_nodes_are_known() {
        let mut costs = WorkCosts::default();
        let all = [
            class(WorkKind::Lookup, 9),
            class(WorkKind::Search, 9),
            class(WorkKind::Crawl, 9),
            class(WorkKind::FollowUp, 9),
            class(WorkKind::Optimistic, 9),
            class(WorkKind::Static, 9),
            class(WorkKind::Static, 16),
            class(WorkKind::Static, usize::MAX),
            class(WorkKind::Sweep, 0),
            class(WorkKind::Sweep, usize::MAX),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{one:?}");
        }
        assert_eq!(class(WorkKind::Static, 9), class(WorkKind::Static, 15));
        assert_eq!(costs.requests(NOW, class(WorkKind::Static, 16)), Some(16 * SIXTEENTHS));
        assert_eq!(costs.requests(NOW, class(WorkKind::Sweep, 16)), None);
        // What runs, as far as it is known.
        for one in all {
            costs.begins(one);
        }
        costs.ends(class(WorkKind::Static, usize::MAX));
        assert_eq!(costs.requests_of_running(NOW), (8 + 16) * SIXTEENTHS);
    }
}
