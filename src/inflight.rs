//! The in-flight table: every request of every machine, with its soft limit and its deadline.

use crate::heap::Heap;
use crate::id::{Arena, RequestId};
use crate::time::Instant;

const NONE: u32 = u32::MAX;

/// Requests under way. `T` is what their sender wants to know again when they end.
///
/// Each request stands in the list of its owner ([`Owned`]), so that an operation that ends finds its requests
/// without a search, and has at most one timer, so that [`next_timeout`](InFlight::next_timeout) is exact.
#[derive(Clone, Debug)]
pub(crate) struct InFlight<T> {
    requests: Arena<Entry<T>>,
    timers: Heap<Instant>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    work: T,
    /// Where the timer stands at the soft limit: the deadline that follows it.
    after_soft: Option<Instant>,
    previous: u32,
    next: u32,
}

/// The requests of one owner: the head of a list that runs through the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned(u32);

impl Owned {
    pub(crate) const NOTHING: Self = Self(NONE);
}

/// What time did to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// Its soft limit passed: it is still listened to.
    Soft(RequestId),
    /// Its deadline passed. The entry stays until it is closed.
    Hard(RequestId),
}

impl<T> InFlight<T> {
    pub(crate) const fn new() -> Self {
        Self { requests: Arena::new(), timers: Heap::new() }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Enters a request, without a timer as yet.
    pub(crate) fn open(&mut self, owned: &mut Owned, work: T) -> RequestId {
        let handle = self.requests.insert(Entry { work, after_soft: None, previous: NONE, next: owned.0 });
        if let Some(next) = self.requests.at_mut(owned.0) {
            next.previous = handle.slot();
        }
        owned.0 = handle.slot();
        RequestId::new(handle)
    }

    /// Sets the request's timer: first for the soft limit, if there is one before the deadline, then for the
    /// deadline.
    pub(crate) fn arm(&mut self, request: RequestId, soft: Option<Instant>, deadline: Instant) {
        if let Some(entry) = self.requests.get_mut(request.handle()) {
            let soft = soft.filter(|soft| *soft < deadline);
            entry.after_soft = soft.map(|_| deadline);
            self.timers.set(request.handle().slot(), soft.unwrap_or(deadline));
        }
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&T> {
        self.requests.get(request.handle()).map(|entry| &entry.work)
    }

    pub(crate) fn get_mut(&mut self, request: RequestId) -> Option<&mut T> {
        self.requests.get_mut(request.handle()).map(|entry| &mut entry.work)
    }

    /// Whether the id may once have been given out: false means that it is made up.
    pub(crate) fn was_issued(&self, request: RequestId) -> bool {
        self.requests.was_issued(request.handle())
    }

    /// Takes a request out. `owned` must be the list it was opened in.
    pub(crate) fn close(&mut self, owned: &mut Owned, request: RequestId) -> Option<T> {
        let entry = self.requests.remove(request.handle())?;
        self.timers.clear(request.handle().slot());
        match self.requests.at_mut(entry.previous) {
            Some(previous) => previous.next = entry.next,
            None => owned.0 = entry.next,
        }
        if let Some(next) = self.requests.at_mut(entry.next) {
            next.previous = entry.previous;
        }
        Some(entry.work)
    }

    /// The requests of this owner, the one opened last first.
    pub(crate) fn of(&self, owned: Owned) -> impl Iterator<Item = (RequestId, &T)> {
        let mut slot = owned.0;
        core::iter::from_fn(move || {
            let (handle, entry) = self.requests.at(slot)?;
            slot = entry.next;
            Some((RequestId::new(handle), &entry.work))
        })
    }

    /// The next thing that is due by `now`, earliest first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Due> {
        let (_, slot) = self.timers.pop_until(now)?;
        let (handle, _) = self.requests.at(slot)?;
        let request = RequestId::new(handle);
        let entry = self.requests.get_mut(handle)?;
        Some(match entry.after_soft.take() {
            Some(deadline) => {
                self.timers.set(slot, deadline);
                Due::Soft(request)
            }
            None => Due::Hard(request),
        })
    }

    /// When [`expire`](InFlight::expire) will next have something to say.
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
    fn soft_then_hard_and_exact_in_between() {
        let (mut table, mut owned) = (InFlight::new(), Owned::NOTHING);
        let request = table.open(&mut owned, ());
        assert_eq!(table.next_timeout(), None);
        table.arm(request, Some(at(5)), at(9));
        assert_eq!(table.next_timeout(), Some(at(5)));
        assert!(table.expire(at(4)).is_none());
        assert!(matches!(table.expire(at(5)), Some(Due::Soft(r)) if r == request));
        assert_eq!(table.next_timeout(), Some(at(9)));
        assert!(matches!(table.expire(at(20)), Some(Due::Hard(r)) if r == request));
        assert_eq!(table.close(&mut owned, request), Some(()));
        assert_eq!((table.len(), table.next_timeout()), (0, None));
    }

    #[test]
    fn a_soft_limit_at_the_deadline_is_none() {
        let (mut table, mut owned) = (InFlight::new(), Owned::NOTHING);
        let request = table.open(&mut owned, ());
        table.arm(request, Some(at(9)), at(9));
        assert!(matches!(table.expire(at(9)), Some(Due::Hard(_))));
    }

    #[test]
    fn owners_find_their_requests() {
        let mut table = InFlight::new();
        let (mut a, mut b) = (Owned::NOTHING, Owned::NOTHING);
        let ids: Vec<_> = (0..6).map(|i| table.open(if i % 2 == 0 { &mut a } else { &mut b }, i)).collect();
        table.close(&mut a, ids[2]);
        let mut left = Vec::new();
        for owner in [&mut a, &mut b] {
            let requests: Vec<_> = table.of(*owner).map(|(request, _)| request).collect();
            left.extend(requests.into_iter().filter_map(|request| table.close(owner, request)));
        }
        assert_eq!(left, [4, 0, 5, 3, 1]);
        assert_eq!((table.of(a).count(), table.of(b).count()), (0, 0));
        assert_eq!(table.len(), 0);
    }
}
