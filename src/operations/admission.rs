//! [`WaitingLine`]: operations that wait to begin, and which of them cannot be done in time.
//!
//! More operations at once than the requests in flight can serve would share them until none ends in its time. So an
//! operation begins only where no request that would go before its own waits for capacity
//! ([`RequestQueue::is_backlogged`](crate::requests::request_queue::RequestQueue::is_backlogged)), and those that have begun come
//! to their end. The others wait, in order of deadline, then of arrival.
//!
//! While some wait, the line learns how fast operations are served: `served` of them have ended by themselves within
//! `elapsed`, so the n-th from now ends about `n · elapsed / served` from now. Before the first of the line, the running ones
//! count one and a half times, as they are not served in order. Whoever would not end by its deadline ends at once, so that its
//! caller knows early:
//!
//! * as long as fewer than [`GENERATIONS`] times as many as run have been served, if it would take half as much again as
//!   there is time;
//! * then, when it is looked at for the first time, if `n + 2 √n` operations would take longer than there is time: the number
//!   served in a time varies by about the root of itself;
//! * later, if it would take a quarter more than there is time: things have become worse.

use crate::collections::indexed_heap::IndexedHeap;
use crate::vocabulary::time::{Instant, nanos};

/// So many must have been served, and as many as run, before anything is concluded.
const MIN_SERVED: u64 = 16;
/// When so many times as many as run have been served, the speed is known.
const GENERATIONS: u64 = 3;
/// Beyond so many, or eight times as many as run, the older half is forgotten.
const MAX_SERVED: u64 = 1_024;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingLine {
    /// By slot: deadline and arrival.
    places: IndexedHeap<(Instant, u64)>,
    /// When the first was served since somebody waits, and how many were after it.
    since: Option<Instant>,
    served: u64,
    /// The line is looked through when so many have been served.
    next_look: u64,
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
            (self.since, self.served, self.next_look) = (None, 0, MIN_SERVED);
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
        if self.served < self.next_look.max(running) {
            return Vec::new();
        }
        let is_known = self.served >= GENERATIONS * running;
        let (elapsed, served) = (u128::from(nanos(now - since)), u128::from(self.served));
        if self.served >= MAX_SERVED.max(8 * running) {
            self.served /= 2;
            self.since = Some(since + (now - since) / 2);
        }
        // A look costs as much as the line is long: it pays for itself over a sixteenth of that.
        self.next_look = self.served + waiting / 16 + 1;
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
