//! The one way out for requests: limits in flight, per node and in total, over the [in-flight table](InFlight).
//!
//! Every machine that sends requests borrows the same outbox. It owns the deadline rules of requests: when one
//! may be sent, when it is slow, when it has failed, and the sum of what became of all of them.

use crate::deadline;
use crate::error::{ConfigError, require};
use crate::family::Family;
use crate::heap::Heap;
use crate::id::RequestId;
use crate::inflight::{Due, InFlight, Owned};
use crate::time::Instant;
use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};

/// Limits on requests in flight.
///
/// Memory: at most `max_in_flight + max_queued` requests are held, and as many entries of per-node state, whatever
/// the nodes do. State of a node with no request is dropped at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How long a request may take before it fails, at most; an operation's deadline can only make it less.
    /// Also how long a request may wait in the queue before it is given up unsent. Default: 2 s.
    pub request_timeout: Duration,
    /// The soft limit: after it, a request no longer occupies a concurrency slot of its operation, but an answer
    /// still counts in full. At or beyond `request_timeout` there is none. Default: 750 ms.
    pub soft_timeout: Duration,
    /// How many requests may be in flight in total. Default: 65,536.
    pub max_in_flight: usize,
    /// How many requests may be in flight to one key. Default: 16.
    pub max_per_node: usize,
    /// How many requests may wait. One more is refused. Default: 65,536.
    pub max_queued: usize,
    /// Seed of the hash of the per-node table. It has no influence on what comes out. Default: 0.
    pub hash_seed: u64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(2),
            soft_timeout: Duration::from_millis(750),
            max_in_flight: 65_536,
            max_per_node: 16,
            max_queued: 65_536,
            hash_seed: 0,
        }
    }
}

impl NetworkConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const MOST: usize = 1 << 30;
        require(!self.request_timeout.is_zero(), "network.request_timeout", "longer than zero")?;
        require(!self.soft_timeout.is_zero(), "network.soft_timeout", "longer than zero")?;
        require((1..=MOST).contains(&self.max_in_flight), "network.max_in_flight", "1 to 2^30")?;
        require((1..=MOST).contains(&self.max_per_node), "network.max_per_node", "1 to 2^30")?;
        require(self.max_queued <= MOST, "network.max_queued", "at most 2^30")
    }
}

/// What became of all requests so far: `sent` is always the sum of `answered`, `failed`, `timed_out`,
/// `cancelled` and `in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests emitted.
    pub sent: u64,
    /// Requests that were answered in time.
    pub answered: u64,
    /// Requests that the caller reported as failed.
    pub failed: u64,
    /// Requests that ran into their own timeout.
    pub timed_out: u64,
    /// Requests given up because their operation ended.
    pub cancelled: u64,
    /// Requests emitted and not ended.
    pub in_flight: u64,
    /// Requests that wait for capacity; not emitted.
    pub queued: u64,
    /// Answers and failures for requests that had already ended: ignored.
    pub late: u64,
    /// Ids that were never given out, of requests or operations: ignored.
    pub unknown: u64,
}

/// One request: what its sender wants to know again, and how far it got.
#[derive(Clone, Debug)]
pub(crate) struct Request<F: Family, T> {
    pub(crate) work: T,
    pub(crate) node: F::Node,
    /// The deadline of the operation it is sent for.
    pub(crate) operation_deadline: Instant,
    pub(crate) stage: Stage,
    /// When it was handed in; from `Stage::Sent` on, when it was sent.
    since: Instant,
    /// When it fails.
    pub(crate) deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for its node, or all of them together, to have fewer requests in flight.
    Waiting,
    /// In flight, occupying a slot of its operation.
    Sent,
    /// In flight beyond the soft limit.
    Slow,
}

impl<F: Family, T> Request<F, T> {
    pub(crate) fn is_emitted(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Slow)
    }

    /// Time since it was sent (or handed in, where it was not).
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now - self.since
    }
}

/// How a request ended: what [`Outbox::close`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    Failed,
    TimedOut,
    Cancelled,
}

/// What happened to a request that was handed in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Submitted {
    /// It is to be sent now.
    Sent(RequestId, Instant),
    /// It waits; [`Outbox::release`] will name it when it is to be sent.
    Queued(RequestId),
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Its deadline leaves no time at all.
    NoTimeLeft,
    /// `max_queued` requests wait already.
    QueueFull,
}

#[derive(Clone, Debug)]
pub(crate) struct Outbox<F: Family, T> {
    pub(crate) config: NetworkConfig,
    requests: InFlight<Request<F, T>>,
    /// Requests that wait, by node, deadline and arrival.
    waiting: BTreeSet<(F::Key, Instant, RequestId)>,
    /// The first that waits for each node that has room, by deadline and arrival.
    ready: Heap<(Instant, RequestId)>,
    /// Requests in flight, by node.
    active: HashMap<F::Key, usize, Seeded>,
    traffic: Traffic,
}

impl<F: Family, T> Outbox<F, T> {
    pub(crate) fn new(config: NetworkConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            requests: InFlight::new(),
            waiting: BTreeSet::new(),
            ready: Heap::new(),
            active: HashMap::with_hasher(Seeded(config.hash_seed)),
            traffic: Traffic::default(),
            config,
        })
    }

    /// The sums, of this moment.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Hands in a request for an operation that ends at `operation_deadline`, or hands the node back.
    pub(crate) fn submit(
        &mut self,
        now: Instant,
        owned: &mut Owned,
        operation_deadline: Instant,
        node: F::Node,
        work: T,
    ) -> Result<Submitted, (Refusal, F::Node)> {
        let timeout = self.config.request_timeout;
        let Some(deadline) = deadline::of_request(now, operation_deadline, timeout) else {
            return Err((Refusal::NoTimeLeft, node));
        };
        let key = F::key(&node);
        // Where nothing is ready, nothing waits for a node that has room.
        let sent = self.has_room(key) && self.free() > 0 && self.ready.len() == 0;
        // What is ready leaves the queue in this same call, as far as there is capacity.
        let leaving = self.free().min(self.ready.len());
        if !sent && self.waiting.len() >= self.config.max_queued + leaving {
            return Err((Refusal::QueueFull, node));
        }
        let stage = if sent { Stage::Sent } else { Stage::Waiting };
        let request = Request { work, node, operation_deadline, stage, since: now, deadline };
        let id = self.requests.open(owned, request);
        if sent {
            self.enter(now, key, id, deadline);
            return Ok(Submitted::Sent(id, deadline));
        }
        self.requests.arm(id, None, deadline);
        let before = self.first_waiting(key);
        self.waiting.insert((key, deadline, id));
        self.traffic.queued += 1;
        // It may go before the one that was the first so far.
        if self.has_room(key) && self.first_waiting(key) == Some((deadline, id)) {
            if let Some((_, overtaken)) = before {
                self.ready.clear(overtaken.handle().slot());
            }
            self.ready.set(id.handle().slot(), (deadline, id));
        }
        Ok(Submitted::Queued(id))
    }

    /// The next waiting request that can be sent now, earliest deadline first, with its deadline.
    pub(crate) fn release(&mut self, now: Instant) -> Option<(RequestId, Instant)> {
        if self.free() == 0 {
            return None;
        }
        let ((waited, id), slot) = self.ready.peek()?;
        self.ready.clear(slot);
        let timeout = self.config.request_timeout;
        let request = self.requests.get_mut(id)?;
        // A request that waits past its operation's deadline is closed before anything is released.
        let deadline = deadline::of_request(now, request.operation_deadline, timeout)?;
        request.stage = Stage::Sent;
        request.since = now;
        request.deadline = deadline;
        let key = F::key(&request.node);
        self.waiting.remove(&(key, waited, id));
        self.traffic.queued -= 1;
        self.enter(now, key, id, deadline);
        self.make_ready(key);
        Some((id, deadline))
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&Request<F, T>> {
        self.requests.get(id)
    }

    /// The request that an answer or a failure is for: one that was emitted and has not ended. Counts the others.
    pub(crate) fn recognise(&mut self, id: RequestId) -> Option<&Request<F, T>> {
        if !self.requests.get(id).is_some_and(Request::is_emitted) {
            // An id that waits in the queue was not given out yet, so naming it is a forgery.
            let late = self.requests.get(id).is_none() && self.requests.was_issued(id);
            *(if late { &mut self.traffic.late } else { &mut self.traffic.unknown }) += 1;
            return None;
        }
        self.requests.get(id)
    }

    /// Counts an id of an operation that does not live.
    pub(crate) fn count_unknown(&mut self) {
        self.traffic.unknown += 1;
    }

    /// Ends a request. What that frees goes out through [`release`](Outbox::release).
    pub(crate) fn close(
        &mut self,
        owned: &mut Owned,
        id: RequestId,
        ending: Ending,
    ) -> Option<Request<F, T>> {
        let request = self.requests.close(owned, id)?;
        let key = F::key(&request.node);
        if request.is_emitted() {
            self.traffic.in_flight -= 1;
            *match ending {
                Ending::Answered => &mut self.traffic.answered,
                Ending::Failed => &mut self.traffic.failed,
                Ending::TimedOut => &mut self.traffic.timed_out,
                Ending::Cancelled => &mut self.traffic.cancelled,
            } += 1;
        } else {
            self.traffic.queued -= 1;
        }
        match request.stage {
            Stage::Waiting => {
                self.waiting.remove(&(key, request.deadline, id));
                self.ready.clear(id.handle().slot());
            }
            Stage::Sent | Stage::Slow => self.leave(key),
        }
        self.make_ready(key);
        Some(request)
    }

    /// The next request that time has something to say of, earliest first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Due> {
        let due = self.requests.expire(now)?;
        if let Due::Soft(id) = due
            && let Some(request) = self.requests.get_mut(id)
        {
            request.stage = Stage::Slow;
        }
        Some(due)
    }

    /// Any request of this owner.
    pub(crate) fn any(&self, owned: Owned) -> Option<RequestId> {
        self.requests.any(owned)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout()
    }

    /// How many more requests may be in flight in total.
    fn free(&self) -> usize {
        let in_flight = usize::try_from(self.traffic.in_flight).unwrap_or(usize::MAX);
        self.config.max_in_flight.saturating_sub(in_flight)
    }

    /// Whether one more request may be in flight to this node.
    fn has_room(&self, key: F::Key) -> bool {
        self.active.get(&key).is_none_or(|active| *active < self.config.max_per_node)
    }

    fn first_waiting(&self, key: F::Key) -> Option<(Instant, RequestId)> {
        let least = (key, Instant::ORIGIN, RequestId::from_u64(0));
        let (of, deadline, id) = self.waiting.range(least..).next()?;
        (*of == key).then_some((*deadline, *id))
    }

    /// The first request that waits for a node is ready once the node has room.
    fn make_ready(&mut self, key: F::Key) {
        if !self.waiting.is_empty()
            && self.has_room(key)
            && let Some(first) = self.first_waiting(key)
        {
            self.ready.set(first.1.handle().slot(), first);
        }
    }

    /// A request is in flight from now on.
    fn enter(&mut self, now: Instant, key: F::Key, id: RequestId, deadline: Instant) {
        self.requests.arm(id, Some(now + self.config.soft_timeout), deadline);
        self.traffic.sent += 1;
        self.traffic.in_flight += 1;
        *self.active.entry(key).or_insert(0) += 1;
    }

    /// One request fewer is in flight to this node, which is forgotten when it has none.
    fn leave(&mut self, key: F::Key) {
        if let MapEntry::Occupied(mut active) = self.active.entry(key) {
            *active.get_mut() -= 1;
            if *active.get() == 0 {
                active.remove();
            }
        }
    }

    /// How many nodes have state.
    pub(crate) fn tracked_nodes(&self) -> usize {
        self.active.len()
    }

    /// How many requests are held, waiting or in flight.
    pub(crate) fn held(&self) -> usize {
        self.requests.len()
    }
}

/// A small seeded hash for keys, which are uniform bit strings: each eight bytes are folded in by a
/// multiplication. The table it serves is bounded and never iterated, so collisions cost time only, and little.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.0 ^ Fold::FACTOR)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold(u64);

impl Fold {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl Hasher for Fold {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(Self::FACTOR);
        #[allow(clippy::cast_possible_truncation)] // both halves are folded in
        let folded = (product >> 64) as u64 ^ product as u64;
        self.0 = folded.rotate_left(23);
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
