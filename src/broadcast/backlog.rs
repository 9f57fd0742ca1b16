//! [`Backlog`]: the records of a [reprovide schedule](crate::Reprovide) that wait although their time has passed: those
//! that were slept through, and those whose store has failed.

use crate::broadcast::regions::Prefix;
use crate::vocabulary::key::Key;
use crate::vocabulary::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// How many regions a backlog gives out at most at once.
pub(super) const BURST: usize = 8;

/// The longest back-off, as a multiple of the first.
const LONGEST: u64 = 12;

/// A record that waits. Its key is given as a distance, as everywhere in this file.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// When it was due; if its store has failed, when that was said first.
    since: Instant,
    /// When it is tried again, if its store has failed.
    retry: Option<Instant>,
}

/// What is known of a record whose store has failed.
#[derive(Clone, Copy, Debug)]
struct Failures {
    /// How often in a row.
    count: u32,
    since: Instant,
    /// When it was last tried, or failed.
    latest: Instant,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Backlog<K> {
    waiting: BTreeMap<K, Waiting>,
    /// Those that were slept through, by when they were due.
    overdue: BTreeSet<(Instant, K)>,
    /// Those whose store has failed, by when they are tried again.
    retries: BTreeSet<(Instant, K)>,
    failures: BTreeMap<K, Failures>,
    /// The first back-off, in nanoseconds.
    back_off: u64,
    /// When the next is to be given out at an even pace, of those that were slept through and of those that have failed.
    next: [Instant; 2],
}

/// The two lists, as indices of `next`.
const OVERDUE: usize = 0;
const RETRIES: usize = 1;

impl<K: Key> Backlog<K> {
    pub(super) const fn new(back_off: u64) -> Self {
        Self {
            waiting: BTreeMap::new(),
            overdue: BTreeSet::new(),
            retries: BTreeSet::new(),
            failures: BTreeMap::new(),
            back_off,
            next: [Instant::ORIGIN; 2],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn contains(&self, distance: &K) -> bool {
        self.waiting.contains_key(distance)
    }

    /// The distances that wait, in order.
    pub(super) fn distances(&self) -> impl Iterator<Item = &K> {
        self.waiting.keys()
    }

    /// The distances that wait and since when: first those that were slept through, by when they were due, then those
    /// whose store has failed, by when they are tried again.
    pub(super) fn since(&self) -> impl Iterator<Item = (K, Instant)> {
        let all = self.overdue.iter().chain(&self.retries);
        all.filter_map(|(_, distance)| Some((*distance, self.waiting.get(distance)?.since)))
    }

    /// A record that was due at this time was slept through.
    pub(super) fn postpone(&mut self, distance: K, since: Instant) {
        self.waiting.insert(distance, Waiting { since, retry: None });
        self.overdue.insert((since, distance));
    }

    /// The store of these records of one region has failed. `salt` differs from node to node.
    pub(super) fn failed(&mut self, now: Instant, distances: &[K], salt: u64) {
        let Some(first) = distances.first() else { return };
        let recent =
            |failures: &&Failures| now <= failures.latest.plus(self.back_off.saturating_mul(2 * LONGEST));
        let known = || distances.iter().filter_map(|distance| self.failures.get(distance)).filter(recent);
        let count = known().map(|failures| failures.count).max().unwrap_or(0).saturating_add(1);
        let since = known().map(|failures| failures.since).min().unwrap_or(now);
        let longest = self.back_off.saturating_mul(LONGEST);
        let wait =
            1_u64.checked_shl(count - 1).unwrap_or(u64::MAX).saturating_mul(self.back_off).min(longest);
        // From three quarters of it to five.
        let random = mixed(first.leading() ^ salt ^ u64::from(count)) >> 32;
        let jitter = u64::try_from((u128::from(wait / 2) * u128::from(random)) >> 32).unwrap_or(0);
        let retry = now.plus((wait - wait / 4).saturating_add(jitter));
        for distance in distances {
            self.failures.insert(*distance, Failures { count, since, latest: now });
            self.waiting.insert(*distance, Waiting { since, retry: Some(retry) });
            self.retries.insert((retry, *distance));
        }
    }

    /// A record is due now, in its turn: the failures that were long ago count no more.
    pub(super) fn given_out(&mut self, distance: &K, now: Instant) {
        let Some(failures) = self.failures.get_mut(distance) else { return };
        if now <= failures.latest.plus(self.back_off.saturating_mul(2 * LONGEST)) {
            failures.latest = now;
        } else {
            self.failures.remove(distance);
        }
    }

    /// Removes a record. Returns whether it was here.
    pub(super) fn take(&mut self, distance: &K) -> bool {
        let Some(Waiting { since, retry }) = self.waiting.remove(distance) else { return false };
        match retry {
            Some(at) => self.retries.remove(&(at, *distance)),
            None => self.overdue.remove(&(since, *distance)),
        }
    }

    /// Removes a record, and what is known of its failures.
    pub(super) fn forget(&mut self, distance: &K) -> bool {
        self.failures.remove(distance);
        self.take(distance)
    }

    /// When something is to be given out. `gap` is the time from one region to the next, in nanoseconds.
    pub(super) fn wake(&self, gap: u64) -> Option<Instant> {
        let overdue = (!self.overdue.is_empty()).then(|| self.allowed_at(OVERDUE, gap));
        let retry = self.retries.first().map(|(at, _)| self.allowed_at(RETRIES, gap).max(*at));
        overdue.into_iter().chain(retry).min()
    }

    /// The next region to give out now, and the distances in it that are due: of what was slept through what is most
    /// overdue, of what has failed what has waited the longest beyond its back-off. These leave the backlog.
    pub(super) fn pop(&mut self, now: Instant, bits: u32, gap: u64) -> Option<(Prefix<K>, Vec<K>)> {
        let may = |list: usize| self.allowed_at(list, gap) <= now;
        let overdue = self.overdue.first().filter(|_| may(OVERDUE));
        let retry = self.retries.first().filter(|(at, _)| *at <= now && may(RETRIES));
        let (list, first) = match (overdue, retry) {
            (Some((since, _)), Some((at, first))) if at < since => (RETRIES, first),
            (Some((_, first)), _) => (OVERDUE, first),
            (None, retry) => (RETRIES, &retry?.1),
        };
        let region = Prefix::new(*first, bits);
        let is_ready = |waiting: &Waiting| waiting.retry.is_none_or(|at| at <= now);
        let ready =
            self.waiting.range(region.first()..=region.last()).filter(|(_, waiting)| is_ready(waiting));
        let ready: Vec<K> = ready.map(|(distance, _)| *distance).collect();
        for distance in &ready {
            self.take(distance);
            self.given_out(distance, now);
        }
        if let Some(next) = self.next.get_mut(list) {
            *next = now.max(*next).plus(pace(list, gap));
        }
        Some((region, ready))
    }

    /// From when on a list may give out one more: at an even pace, and [`BURST`] at once after a rest.
    fn allowed_at(&self, list: usize, gap: u64) -> Instant {
        let next = self.next.get(list).copied().unwrap_or(Instant::ORIGIN);
        let ahead = pace(list, gap).saturating_mul(BURST as u64 - 1);
        Instant::from_nanos(next.as_nanos().saturating_sub(ahead))
    }
}

/// What has failed may be tried twice as fast as what was slept through is done: it has its own pace, the back-off.
const fn pace(list: usize, gap: u64) -> u64 {
    let pace = if list == RETRIES { gap / 2 } else { gap };
    if pace == 0 { 1 } else { pace }
}

/// The finaliser of `SplitMix64`.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
