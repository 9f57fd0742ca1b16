//! [`InFlightTable`]: the live requests of a machine (in flight or waiting), with their timers.

use crate::collections::generational_slab::GenerationalSlab;
use crate::collections::indexed_heap::IndexedHeap;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::time::Instant;

const NONE: u32 = u32::MAX;

/// The live requests, each with a payload `T` that is returned when it ends.
///
/// Each request is in the list of its owner ([`RequestList`]), so that an operation that ends finds its requests
/// without a search. Each request has at most one timer, so that [`next_timeout`](InFlightTable::next_timeout) is
/// exact.
#[derive(Clone, Debug)]
pub(crate) struct InFlightTable<T> {
    requests: GenerationalSlab<Entry<T>>,
    timers: IndexedHeap<Instant>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    payload: T,
    previous: u32,
    next: u32,
}

/// The requests of one owner (an operation, or the checks of include or of probe): the head (a slot) of a
/// doubly linked list through the table, newest request first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestList(u32);

impl RequestList {
    pub(crate) const EMPTY: Self = Self(NONE);
}

impl<T> InFlightTable<T> {
    pub(crate) const fn new() -> Self {
        Self { requests: GenerationalSlab::new(), timers: IndexedHeap::new() }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Adds a request to the table and to the list of its owner, without a timer.
    pub(crate) fn open(&mut self, owned: &mut RequestList, payload: T) -> RequestId {
        let handle = self.requests.insert(Entry { payload, previous: NONE, next: owned.0 });
        if let Some(next) = self.requests.at_mut(owned.0) {
            next.previous = handle.slot();
        }
        owned.0 = handle.slot();
        RequestId::new(handle)
    }

    /// Sets the request's timer.
    #[inline]
    pub(crate) fn arm(&mut self, request: RequestId, at: Instant) {
        if self.requests.get(request.handle()).is_some() {
            self.timers.set(request.handle().slot(), at);
        }
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&T> {
        self.requests.get(request.handle()).map(|entry| &entry.payload)
    }

    pub(crate) fn get_mut(&mut self, request: RequestId) -> Option<&mut T> {
        self.requests.get_mut(request.handle()).map(|entry| &mut entry.payload)
    }

    /// The payloads of all requests, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.requests.iter().map(|entry| &entry.payload)
    }

    /// The ids of all requests, in no particular order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = RequestId> {
        self.requests.handles().map(RequestId::new)
    }

    /// When the timer of a request is due.
    pub(crate) fn timer(&self, request: RequestId) -> Option<Instant> {
        self.timers.get(request.handle().slot())
    }

    /// Whether the id may have been issued; `false` means that it certainly was not.
    pub(crate) fn was_issued(&self, request: RequestId) -> bool {
        self.requests.was_issued(request.handle())
    }

    /// Removes a request and its timer, and returns its payload. `owned` must be the list that it was opened in.
    pub(crate) fn close(&mut self, owned: &mut RequestList, request: RequestId) -> Option<T> {
        let entry = self.requests.remove(request.handle())?;
        self.timers.clear(request.handle().slot());
        match self.requests.at_mut(entry.previous) {
            Some(previous) => previous.next = entry.next,
            None => owned.0 = entry.next,
        }
        if let Some(next) = self.requests.at_mut(entry.next) {
            next.previous = entry.previous;
        }
        Some(entry.payload)
    }

    /// Moves a request from the list that it was opened in to that of another owner.
    pub(crate) fn transfer(&mut self, from: &mut RequestList, to: &mut RequestList, request: RequestId) {
        let slot = request.handle().slot();
        let Some(entry) = self.requests.get_mut(request.handle()) else { return };
        let (previous, next) = (entry.previous, entry.next);
        (entry.previous, entry.next) = (NONE, to.0);
        match self.requests.at_mut(previous) {
            Some(previous) => previous.next = next,
            None => from.0 = next,
        }
        if let Some(next) = self.requests.at_mut(next) {
            next.previous = previous;
        }
        if let Some(first) = self.requests.at_mut(to.0) {
            first.previous = slot;
        }
        to.0 = slot;
    }

    /// The requests of this owner, newest first.
    pub(crate) fn owned_by(&self, owned: RequestList) -> impl Iterator<Item = (RequestId, &T)> {
        let mut slot = owned.0;
        core::iter::from_fn(move || {
            let (handle, entry) = self.requests.at(slot)?;
            slot = entry.next;
            Some((RequestId::new(handle), &entry.payload))
        })
    }

    /// The next request whose timer is due by `now`, earliest first, and when it was. It stays in the table, without a
    /// timer, until the caller [arms](InFlightTable::arm) or [closes](InFlightTable::close) it.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Instant, RequestId)> {
        let (at, slot) = self.timers.pop_until(now)?;
        self.requests.at(slot).map(|(handle, _)| (at, RequestId::new(handle)))
    }

    /// The earliest time at which [`expire`](InFlightTable::expire) will return something.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn timers_are_exact() {
        let (mut table, mut owned) = (InFlightTable::new(), RequestList::EMPTY);
        let request = table.open(&mut owned, ());
        assert_eq!(table.next_timeout(), None);
        table.arm(request, at(5));
        assert_eq!(table.next_timeout(), Some(at(5)));
        assert!(table.expire(at(4)).is_none());
        assert_eq!((table.expire(at(5)), table.next_timeout()), (Some((at(5), request)), None));
        table.arm(request, at(9));
        assert_eq!(table.expire(at(20)), Some((at(9), request)));
        assert_eq!(table.close(&mut owned, request), Some(()));
        assert_eq!((table.len(), table.next_timeout()), (0, None));
        table.arm(request, at(30));
        assert_eq!(table.next_timeout(), None, "a request that has ended has no timer");
    }

    #[test]
    fn owners_find_their_requests() {
        let mut table = InFlightTable::new();
        let (mut a, mut b) = (RequestList::EMPTY, RequestList::EMPTY);
        let ids: Vec<_> = (0..6).map(|i| table.open(if i % 2 == 0 { &mut a } else { &mut b }, i)).collect();
        table.close(&mut a, ids[2]);
        table.transfer(&mut b, &mut a, ids[3]);
        table.transfer(&mut a, &mut b, ids[0]);
        let mut left = Vec::new();
        for requests_of in [&mut a, &mut b] {
            let requests: Vec<_> = table.owned_by(*requests_of).map(|(request, _)| request).collect();
            left.extend(requests.into_iter().filter_map(|request| table.close(requests_of, request)));
        }
        assert_eq!(left, [3, 4, 0, 5, 1]);
        assert_eq!((table.owned_by(a).count(), table.owned_by(b).count()), (0, 0));
        assert_eq!(table.len(), 0);
    }
}
