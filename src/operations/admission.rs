//! [`WaitingLine`]: operations that wait to begin, and which of them cannot be done in time.
//!
//! More operations at once than the requests in flight can serve would share them until none ends in its time. So an
//! operation begins only where no request that would go before its own waits for capacity
//! ([`RequestQueue::is_backlogged`](crate::requests::request_queue::RequestQueue::is_backlogged)), and those that have begun come
//! to their end. The others wait, in order of deadline, then of arrival.
//!
//! While some wait, two things are learnt: what operations of each kind cost, in requests and in time
//! ([`WorkCosts`]), and how fast requests are sent, as the fastest of the latest [`RATES`] measurements, so that one pause is no
//! reason to give up. An operation that runs into its deadline is an observation too: it would have cost at least what it has.
//! Otherwise a line in which nothing ends in time would never learn that. Two rules follow:
//!
//! * **At its turn**, an operation ends instead of beginning if it has waited, or others wait, and the time left is less than 1.5
//!   times the median of its kind: it would probably fail, and use up what the others need.
//! * **Early**: from time to time the line is looked through. The time that an operation needs is that of sending all requests of
//!   those that run, as far as they still need them, of those that go before it, and its own; but at least 1.5 times the median
//!   of its kind. If it needs more than is left, it ends, but not before a quarter of its time has passed ([`PATIENCE`]), as the
//!   rate may rise. Before [`LEARNING`] measurements, it may need 1.5 times what is left. When it is looked at for the first time
//!   after them, five times the root of the sum of the squared costs is added to what it needs: the sum of the costs varies by about
//!   that root, and those that end first cost less than others. Later it may need an eighth more than what is left.

use crate::collections::indexed_heap::IndexedHeap;
use crate::operations::work::{FinishedWork, WorkClass, WorkCosts};
use crate::vocabulary::time::{Instant, nanos};

/// The rate is measured over so many requests at least, and as many as are in flight.
const MIN_REQUESTS: u64 = 64;
/// The fastest of the latest so many measurements counts.
const RATES: usize = 4;
/// After so many measurements, the rate is known.
const LEARNING: u32 = 3;
/// An operation ends early only when one part in so many of its time has passed.
const PATIENCE: u32 = 4;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingLine {
    /// By slot: deadline and arrival.
    places: IndexedHeap<(Instant, u64)>,
    costs: WorkCosts,
    rate: RequestRate,
    /// The line is looked through when so many requests have been sent; `None`: that is not decided yet.
    next_look: Option<u64>,
    /// By slot: whether it has been looked at while the rate was known.
    seen: Vec<bool>,
    /// In order of deadline and arrival, for one look; empty otherwise.
    sorted: Vec<((Instant, u64), u32)>,
}

/// How fast the requests of operations are sent while some wait.
#[derive(Clone, Debug, Default)]
struct RequestRate {
    /// The requests of operations that have ended.
    ended: u64,
    /// The beginning of this measurement, and how many requests had been sent by then.
    since: Option<(Instant, u64)>,
    /// Times in nanoseconds, and how many requests were sent in them; the latest last.
    latest: [Option<(u64, u64)>; RATES],
    measured: u32,
}

impl RequestRate {
    /// So many requests of those that run have been sent by now. Begins the next measurement.
    fn measure(&mut self, now: Instant, of_running: u64) {
        let total = self.ended + of_running;
        if let Some((since, before)) = self.since.replace((now, total)) {
            self.latest.rotate_left(1);
            if let Some(last) = self.latest.last_mut() {
                *last = Some((nanos(now - since), total.saturating_sub(before)));
            }
            self.measured = self.measured.saturating_add(1);
        }
    }

    /// The mean of what was measured: a time in nanoseconds, and how many requests were sent in it.
    fn mean(&self) -> Option<(u64, u64)> {
        let sum = |(time, all): (u64, u64), &(elapsed, sent): &(u64, u64)| (time + elapsed, all + sent);
        Some(self.latest.iter().flatten().fold((0, 0), sum)).filter(|(_, sent)| *sent > 0)
    }

    /// The fastest measured: a time in nanoseconds, and how many requests were sent in it.
    fn fastest(&self) -> Option<(u64, u64)> {
        let faster = |a: &(u64, u64), b: &(u64, u64)| {
            (u128::from(a.1) * u128::from(b.0)).cmp(&(u128::from(b.1) * u128::from(a.0)))
        };
        self.latest.iter().flatten().copied().max_by(faster).filter(|(_, sent)| *sent > 0)
    }
}

/// How long it takes to send so many sixteenths of a request, in nanoseconds.
fn time_of(sixteenths: u128, (elapsed, sent): (u64, u64)) -> u128 {
    sixteenths * u128::from(elapsed) / (16 * u128::from(sent))
}

/// What the line cannot know by itself, for one look.
pub(super) struct Look<R, C> {
    /// The class of each operation that runs, and how many requests it has sent.
    pub(super) running: R,
    /// The class of the operation in a slot, and when it was started.
    pub(super) waiting: C,
}

impl WaitingLine {
    /// An operation waits from now on. `arrival`, ever greater, orders those with one deadline.
    pub(super) fn join(&mut self, slot: u32, deadline: Instant, arrival: u64) {
        if self.is_empty() {
            (self.rate, self.next_look) = (RequestRate::default(), None);
        }
        self.places.set(slot, (deadline, arrival));
        if let Some(seen) = self.seen.get_mut(slot as usize) {
            *seen = false;
        }
    }

    /// An operation waits no more. Returns whether it did.
    pub(super) fn leave(&mut self, slot: u32) -> bool {
        self.places.clear(slot)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == 0
    }

    /// The first in the line, and its deadline.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.places.peek().map(|((deadline, _), slot)| (deadline, slot))
    }

    /// Whether the first in the line, of this class and with this deadline, has come too late: there is less time left than half
    /// as much again as it takes. One that has not waited, and that nobody else waits for, begins in any case.
    pub(super) fn is_too_late(
        &self,
        now: Instant,
        (class, started): (WorkClass, Instant),
        deadline: Instant,
    ) -> bool {
        let left = u128::from(nanos(deadline - now));
        let has_waited = self.places.len() > 1 || started < now;
        let of_running = self.costs.requests_of_running(now);
        has_waited && self.time_from_now(now, class, of_running).is_some_and(|time| left < time)
    }

    /// 1.5 times as long as an operation of this class takes if it begins now, in nanoseconds, if that is known: the median of its
    /// class; or until all requests are sent that those that run (`of_running`) and it need, if that is less. Large operations share
    /// the rate, so the median is long where many of them ran at once.
    fn time_from_now(&self, now: Instant, class: WorkClass, of_running: u64) -> Option<u128> {
        let time = u128::from(nanos(self.costs.time(now, class)?));
        let requests = self.costs.requests(now, class)? + of_running;
        let time = self.rate.mean().map_or(time, |rate| time.min(time_of(u128::from(requests), rate)));
        Some(time + time / 2)
    }

    /// The first in the line begins.
    pub(super) fn begin(&mut self, slot: u32, class: WorkClass) {
        self.leave(slot);
        self.costs.begins(class);
    }

    /// An operation that ran has ended, or goes on in the background.
    pub(super) fn ended(&mut self, now: Instant, work: FinishedWork) {
        self.costs.ends(work.class);
        if !self.is_empty() {
            self.rate.ended += u64::from(work.sent);
            self.costs.observe(now, work);
        }
    }

    /// Whether it is time to look through the line, when so many requests have been sent, and so many operations run or
    /// requests are in flight. A look costs as much as both are long: it pays for itself over a share of that.
    pub(super) fn is_look_due(&mut self, sent: u64, live: u64) -> bool {
        sent >= *self.next_look.get_or_insert(sent + MIN_REQUESTS.max(live) / 4)
    }

    /// Looks through the line, when so many requests have been sent. Returns the slots of those that cannot be done in time.
    pub(super) fn look<R: Iterator<Item = (WorkClass, u32)>, C: Fn(u32) -> Option<(WorkClass, Instant)>>(
        &mut self,
        now: Instant,
        (sent, live): (u64, u64),
        look: Look<R, C>,
    ) -> Vec<u32> {
        self.next_look = Some(sent + MIN_REQUESTS.max(live).max(self.places.len() as u64 / 64));
        let (mut sent_by_running, mut before) = (0, 0);
        for (class, sent) in look.running {
            sent_by_running += u64::from(sent);
            if let Some(whole) = self.costs.requests(now, class) {
                before += whole.saturating_sub(16 * u64::from(sent)).max(whole / 2);
            }
        }
        self.rate.measure(now, sent_by_running);
        let Some(rate) = self.rate.fastest() else { return Vec::new() };
        let is_known = self.rate.measured >= LEARNING;
        let mut sorted = core::mem::take(&mut self.sorted);
        sorted.extend(self.places.iter());
        sorted.sort_unstable();
        let of_running = self.costs.requests_of_running(now);
        let mut seen = core::mem::take(&mut self.seen);
        let mut squares: u128 = 0;
        let too_late = sorted.drain(..).filter_map(|((deadline, _), slot)| {
            let (class, started) = (look.waiting)(slot)?;
            let requests = self.costs.requests(now, class)?;
            let work = u128::from(before + requests);
            // What sends one request to each of given nodes does not vary.
            let varies = if class.has_given_nodes() { 0 } else { u128::from(requests) };
            let square = squares + varies.pow(2);
            let needed = time_of(work, rate).max(self.time_from_now(now, class, of_running).unwrap_or(0));
            let was_seen = seen.get(slot as usize).copied().unwrap_or(false);
            let (needed, possible) = match (is_known, was_seen) {
                (false, _) => (4 * needed, 6),
                (true, false) => (4 * needed + 20 * time_of(square.isqrt(), rate), 4),
                (true, true) => (8 * needed, 9),
            };
            let is_late = needed > possible * u128::from(nanos(deadline - now));
            let is_judged = now - started >= (deadline - started) / PATIENCE;
            if is_judged && is_known {
                if seen.len() <= slot as usize {
                    seen.resize(slot as usize + 1, false);
                }
                if let Some(seen) = seen.get_mut(slot as usize) {
                    *seen = true;
                }
            }
            if !is_late {
                (before, squares) = (before + requests, square);
            }
            (is_late && is_judged).then_some(slot)
        });
        let too_late = too_late.collect();
        self.seen = seen;
        self.sorted = sorted;
        too_late
    }
}

#[cfg(test)]
mod tests {
    use super::{Look, WaitingLine};
    use crate::operations::work::{FinishedWork, Work, WorkClass, WorkKind};
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn at(milliseconds: u32) -> Instant {
        Instant::from_secs(1) + MS * milliseconds
    }

    fn lookups() -> WorkClass {
        Work { kind: WorkKind::Lookup, size: 0 }.into()
    }

    fn ran(took: u32, is_complete: bool) -> FinishedWork {
        FinishedWork { class: lookups(), sent: 10, took: MS * took, is_complete }
    }

    /// A line of so many with this deadline, all of which came at 0.
    fn line(waiting: u32, deadline: u32) -> WaitingLine {
        let mut line = WaitingLine::default();
        for slot in 0..waiting {
            line.join(slot, at(deadline), u64::from(slot));
        }
        line
    }

    /// The first in the line is served each so many milliseconds, with ten requests, and the line is looked through each 100 ms:
    /// those that are told.
    fn serve(line: &mut WaitingLine, from: u32, until: u32, each: usize) -> Vec<u32> {
        let mut told = Vec::new();
        for now in (from + 10..=until).step_by(10) {
            if (now as usize).is_multiple_of(each) {
                let first = line.first().map(|(_, slot)| slot);
                first.map(|slot| line.leave(slot));
                line.ended(at(now), ran(10, true));
            }
            if now.is_multiple_of(100) {
                told.extend(look(line, now, lookups()));
            }
        }
        told
    }

    fn look(line: &mut WaitingLine, now: u32, class: WorkClass) -> Vec<u32> {
        let look = Look { running: core::iter::empty(), waiting: |_| Some((class, at(0))) };
        let told = line.look(at(now), (u64::from(now), 1), look);
        assert!(told.iter().all(|slot| line.leave(*slot)));
        told
    }

    #[test]
    fn those_for_whom_there_is_no_time_end_the_last_to_arrive_first() {
        let mut waiting = line(400, 2_000);
        // Nobody before a quarter of its time has passed, whatever is known.
        assert!(serve(&mut waiting, 0, 490, 10).is_empty());
        // 50 were served. A hundred are served in a second: 150 in what is left; 100 and five times the root of that.
        assert_eq!(serve(&mut waiting, 490, 500, 10), (150..400).collect::<Vec<_>>());
        // Who has been looked at stays as long as things do not become worse.
        assert!(serve(&mut waiting, 500, 700, 10).is_empty());
        // They become worse: half as fast, which shows when all of the latest looks say so.
        assert!(serve(&mut waiting, 700, 1_000, 20).is_empty());
        // 90 were served, and 60 wait. 45 can be done in the 900 ms that are left, and an eighth more are left to try.
        assert_eq!(serve(&mut waiting, 1_000, 1_100, 20), (140..150).collect::<Vec<_>>());
    }

    #[test]
    fn earlier_deadlines_go_first_and_do_not_end_for_later_ones() {
        let mut waiting = line(400, 10_000);
        for slot in 400..410 {
            waiting.join(slot, at(1_000), u64::from(slot));
        }
        assert_eq!(waiting.first(), Some((at(1_000), 400)));
        assert!(waiting.leave(400) && !waiting.leave(400));
        assert_eq!(waiting.first(), Some((at(1_000), 401)));
        // Twenty are served in a second, and the rate is known: there is time for these nine, whoever came before them.
        assert!(serve(&mut waiting, 0, 400, 50).is_empty());
        assert_eq!(waiting.first(), Some((at(1_000), 409)));
        // A quarter of the others' time has passed. 150 can be done in the rest of it: 100, and five times the root of that.
        let told = serve(&mut waiting, 400, 2_500, 50);
        assert!(
            told.first().is_some_and(|first| (130..180).contains(first)) && told.last() == Some(&399),
            "{told:?}"
        );
    }

    #[test]
    fn one_pause_is_no_reason_to_give_up_and_four_are() {
        let mut waiting = line(100, 4_000);
        assert!(serve(&mut waiting, 0, 900, 20).is_empty());
        // Three looks at a tenth of the speed: as fast as before, there is time for all.
        for now in [1_000, 2_000] {
            (0..10).for_each(|_| waiting.ended(at(now), ran(10, true)));
            assert!(look(&mut waiting, now, lookups()).is_empty());
        }
        for now in [2_200, 2_400, 2_600] {
            (0..2).for_each(|_| waiting.ended(at(now), ran(10, true)));
            let told = look(&mut waiting, now, lookups());
            assert_eq!(!told.is_empty(), now == 2_600, "{now}: {told:?}");
        }
    }

    #[test]
    fn who_comes_to_the_head_too_late_does_not_begin_unless_it_is_alone() {
        let mut waiting = line(2, 1_000);
        let is_too_late =
            |line: &WaitingLine, now| line.is_too_late(at(now), (lookups(), at(999)), at(1_000));
        assert!(!is_too_late(&waiting, 999), "nothing is known");
        // None ends by itself: that teaches too.
        for _ in 0..4 {
            waiting.ended(at(0), ran(400, false));
        }
        assert!(!is_too_late(&waiting, 400) && is_too_late(&waiting, 401));
        waiting.leave(1);
        assert!(!is_too_late(&waiting, 999));
        assert!(waiting.is_too_late(at(999), (lookups(), at(0)), at(1_000)), "it has waited");
    }

    #[test]
    fn large_ones_that_shared_the_rate_do_not_keep_the_next_from_beginning_alone() {
        let mut waiting = line(9, 20_000);
        for slot in 0..6 {
            waiting.begin(slot, lookups());
        }
        let _ = look(&mut waiting, 0, lookups());
        // Six ran together for 12 s, 10 requests each: alone one takes 2 s, and half as much again is 3 s.
        for _ in 0..6 {
            waiting.ended(at(12_000), ran(12_000, true));
        }
        let _ = look(&mut waiting, 12_000, lookups());
        assert!(!waiting.is_too_late(at(17_000), (lookups(), at(0)), at(20_000)));
        assert!(waiting.is_too_late(at(17_001), (lookups(), at(0)), at(20_000)));
        waiting.begin(6, lookups());
        assert!(waiting.is_too_late(at(14_001), (lookups(), at(0)), at(20_000)));
    }

    #[test]
    fn what_given_nodes_cost_is_known_before_one_has_ended() {
        let stores: WorkClass = Work { kind: WorkKind::Static, size: 1_024 }.into();
        let mut waiting = line(10, 40_000);
        for second in 0..=10 {
            waiting.ended(at(1_000 * second), FinishedWork { sent: 100, ..ran(10, true) });
            let told = look(&mut waiting, 1_000 * second, stores);
            // A hundred requests a second: two of a thousand in 30 s.
            let expected = if second == 10 { (2..10).collect() } else { Vec::new() };
            assert_eq!(told, expected, "{second}");
        }
    }
}
