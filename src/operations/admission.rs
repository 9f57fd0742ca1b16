//! [`WaitingLine`]: operations that wait to begin, and which of them cannot be done in time.
//!
//! More operations at once than the requests in flight can serve would share them until none ends in its time. So an
//! operation begins only where no request that would go before its own waits for capacity
//! ([`RequestQueue::is_backlogged`](crate::requests::request_queue::RequestQueue::is_backlogged)), and those that have begun come
//! to their end. The others wait, in order of deadline, then of arrival.
//!
//! While some wait, the line learns how fast operations are served: the time that the latest so many took to end by themselves,
//! or those before them, whichever was faster, so that one pause is no reason to give up. By that, the n-th from now ends
//! `n · elapsed / served` from now. Before the first of the line, the running ones count one and a half times, as they are not
//! served in order. Whoever would not end by its deadline ends at once, so that its caller knows early:
//!
//! * at first, if it would take half as much again as there is time;
//! * after [`LEARNING`] such times, when it is looked at for the first time, if `n + 2 √n` operations would take longer than there
//!   is time: the number served in a time varies by about the root of itself;
//! * later, if it would take a quarter more than there is time: things have become worse.

use crate::collections::indexed_heap::IndexedHeap;
use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;

/// The time of so many is measured at least, and of as many as run.
const MIN_SERVED: u64 = 16;
/// After so many such times, the speed is known.
const LEARNING: u32 = 4;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingLine {
    /// By slot: deadline and arrival.
    places: IndexedHeap<(Instant, u64)>,
    /// Since when time is measured, and how many were served in it. It begins with the first that is served while others wait.
    since: Option<Instant>,
    served: u64,
    /// The time measured before this one, and how many were served in it.
    before: Option<(Duration, u64)>,
    /// How many such times there were since somebody waits.
    measured: u32,
    /// Those that arrived from here on have not been looked at while the speed was known.
    unseen_from: u64,
    /// The greatest number of an arrival so far, plus one.
    arrivals: u64,
    /// In order of deadline and arrival, for one look; empty otherwise.
    sorted: Vec<((Instant, u64), u32)>,
}

impl WaitingLine {
    /// An operation waits from now on. `arrival`, ever greater, orders those with one deadline.
    pub(super) fn join(&mut self, slot: u32, deadline: Instant, arrival: u64) {
        if self.places.len() == 0 {
            (self.since, self.served, self.before, self.measured) = (None, 0, None, 0);
        }
        self.places.set(slot, (deadline, arrival));
        self.arrivals = arrival + 1;
    }

    /// An operation waits no more. Returns whether it did.
    pub(super) fn leave(&mut self, slot: u32) -> bool {
        self.places.clear(slot)
    }

    /// The first in the line, and its deadline.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.places.peek().map(|((deadline, _), slot)| (deadline, slot))
    }

    /// An operation that ran has ended by itself, and `running` still run. If it is time to look through the line, returns the
    /// slots of those that cannot be done in time.
    pub(super) fn served(&mut self, now: Instant, running: usize) -> Vec<u32> {
        if self.places.len() == 0 {
            return Vec::new();
        }
        let Some(since) = self.since else {
            self.since = Some(now);
            return Vec::new();
        };
        self.served += 1;
        let (waiting, running) = (self.places.len() as u64, running as u64);
        // A look costs as much as the line is long: it pays for itself over a share of that.
        if self.served < MIN_SERVED.max(running).max(waiting / 64) {
            return Vec::new();
        }
        let latest = (now - since, self.served);
        let is_slower = |(elapsed, served): &(Duration, u64)| {
            u128::from(nanos(latest.0)) * u128::from(*served)
                > u128::from(nanos(*elapsed)) * u128::from(latest.1)
        };
        let (elapsed, served) = self.before.filter(is_slower).unwrap_or(latest);
        let (elapsed, served) = (u128::from(nanos(elapsed)), u128::from(served));
        self.measured = self.measured.saturating_add(1);
        let is_known = self.measured >= LEARNING;
        (self.since, self.served, self.before) = (Some(now), 0, Some(latest));
        let mut sorted = core::mem::take(&mut self.sorted);
        sorted.extend(self.places.iter());
        sorted.sort_unstable();
        let mut before = running + running.div_ceil(2);
        let too_late = sorted.drain(..).filter_map(|((deadline, arrival), slot)| {
            let number = u128::from(before + 1);
            // Four times what is to be served, and four times what can be.
            let (needed, possible) = match (is_known, arrival >= self.unseen_from) {
                (false, _) => (4 * number, 6),
                (true, true) => (4 * number + 8 * u128::from((before + 1).isqrt()), 4),
                (true, false) => (4 * number, 5),
            };
            let is_late = needed * elapsed > possible * served * u128::from(nanos(deadline - now));
            before += u64::from(!is_late);
            is_late.then_some(slot)
        });
        let too_late = too_late.collect();
        if is_known {
            self.unseen_from = self.arrivals;
        }
        self.sorted = sorted;
        too_late
    }
}

#[cfg(test)]
mod tests {
    use super::{MIN_SERVED, WaitingLine};
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn at(milliseconds: u32) -> Instant {
        Instant::from_secs(1) + MS * milliseconds
    }

    /// A line of so many with this deadline.
    fn line(waiting: u32, deadline: Instant) -> WaitingLine {
        let mut line = WaitingLine::default();
        for slot in 0..waiting {
            line.join(slot, deadline, u64::from(slot));
        }
        line
    }

    /// One is served each 10 ms from `from` on, with nobody running: those that are told to end, until `number` were served.
    fn serve(line: &mut WaitingLine, from: u32, number: u32) -> Vec<u32> {
        let mut told = Vec::new();
        for one in 1..=number {
            told.extend(line.served(at(from + one * 10), 0));
        }
        assert!(told.iter().all(|slot| line.leave(*slot)));
        told
    }

    #[test]
    fn those_for_whom_there_is_no_time_end_the_last_to_arrive_first() {
        // A hundred are served in a second. At first only what is out of the question ends, half as much again.
        let mut waiting = line(200, at(1_170));
        assert_eq!(serve(&mut waiting, 0, 17), (150..200).collect::<Vec<_>>());
        assert_eq!(serve(&mut waiting, 170, 16), (126..150).collect::<Vec<_>>());
        assert_eq!(serve(&mut waiting, 330, 16), (102..126).collect::<Vec<_>>());
        // Then those beyond what can be done: 40 and twice their root are 52, in the 520 ms that are left.
        assert_eq!(serve(&mut waiting, 490, 16), (40..102).collect::<Vec<_>>());
        // Who has been looked at stays as long as things do not become worse.
        (0..16).for_each(|slot| assert!(waiting.leave(slot)));
        assert!(serve(&mut waiting, 650, 16).is_empty());
        (16..20).for_each(|slot| assert!(waiting.leave(slot)));
        // 50 ms are left, in which 5 can be done, and a quarter more are left to try.
        assert_eq!(serve(&mut waiting, 960, 16), (26..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_pause_is_no_reason_to_give_up() {
        let mut waiting = line(50, at(60_000));
        assert!(serve(&mut waiting, 0, 100).is_empty());
        // 58 s later: there are 900 ms left, in which 50 can be done as fast as before the pause, but not as it looks.
        assert!(waiting.served(at(59_000), 0).is_empty());
        assert!(serve(&mut waiting, 59_000, u32::try_from(MIN_SERVED).unwrap()).is_empty());
        // Who is that slow again and again is slow.
        let mut waiting = line(50, at(60_000));
        let _ = serve(&mut waiting, 0, 17);
        for _ in 0..16 {
            assert!(waiting.served(at(30_000), 0).is_empty());
        }
        let told: Vec<u32> = (0..16).flat_map(|_| waiting.served(at(59_000), 0)).collect();
        assert!(!told.is_empty(), "{waiting:?}");
    }

    #[test]
    fn earlier_deadlines_go_first_and_do_not_end_for_later_ones() {
        let mut waiting = line(100, at(10_000));
        for slot in 100..110 {
            waiting.join(slot, at(1_000), u64::from(slot));
        }
        assert_eq!(waiting.first(), Some((at(1_000), 100)));
        assert!(serve(&mut waiting, 0, 80).is_empty());
        assert!(waiting.leave(100) && !waiting.leave(100));
        assert_eq!(waiting.first(), Some((at(1_000), 101)));
    }
}
