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
use crate::pace::Pace;
use crate::time::{Instant, nanos};
use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};

/// Limits on requests in flight.
///
/// Memory: at most `max_in_flight + max_queued` requests are held, and as many entries of per-node state, whatever
/// the nodes do. State of a node with no request is dropped at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkConfig {
    /// How long a request may take before it fails, at most; an operation's deadline can only make it less. The time-out
    /// is adapted to observed round trips: their mean + 5 deviations; at first, four times `soft_timeout`. Default: 2 s.
    pub request_timeout: Duration,
    /// The soft limit, at first: after it, a request no longer occupies a concurrency slot of its operation, but an answer
    /// still counts in full, and a node among the k closest may be asked again. Adapted likewise: mean + 1/4 deviation.
    /// At or beyond the time-out there is none. Default: 250 ms.
    pub soft_timeout: Duration,
    /// Adapted time-outs never go below this, adapted soft limits never below a third of it. At or beyond
    /// `request_timeout` nothing is adapted: time-outs and soft limits are as configured. Default: 250 ms.
    pub min_timeout: Duration,
    /// How many requests may be in flight in total. Default: 65,536.
    pub max_in_flight: usize,
    /// How many requests may be in flight to one key. Default: 16.
    pub max_per_node: usize,
    /// How many requests may wait. One more is refused. Default: 65,536.
    pub max_queued: usize,
    /// Seed of the hash of the per-node table. It has no influence on what comes out, but where peers choose their ids, give
    /// it a random number: who knows it can choose ids that make the table slow. Default: 0.
    pub hash_seed: u64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(2),
            soft_timeout: Duration::from_millis(250),
            min_timeout: Duration::from_millis(250),
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
        require(!self.min_timeout.is_zero(), "network.min_timeout", "longer than zero")?;
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
    /// Requests given up because their operation ended, or because the node answered another one.
    pub cancelled: u64,
    /// Requests emitted and not ended.
    pub in_flight: u64,
    /// Requests that wait for capacity; not emitted.
    pub queued: u64,
    /// Answers and failures for requests that had already ended: ignored. A made-up id may be so like an old one that
    /// it counts here.
    pub late: u64,
    /// Ids of requests that were never given out, and of operations that do not live: ignored.
    pub unknown: u64,
}

/// One request: what its sender wants to know again, and how far it got.
#[derive(Clone, Debug)]
pub(crate) struct Request<F: Family, T> {
    pub(crate) work: T,
    pub(crate) node: F::Node,
    /// An earlier request to the node is still listened to.
    again: bool,
    /// See [`To::patient`].
    patient: bool,
    /// The deadline of the operation it is sent for.
    pub(crate) operation_deadline: Instant,
    pub(crate) stage: Stage,
    /// When it was handed in; from `Stage::Sent` on, when it was sent.
    since: Instant,
    /// When it fails.
    pub(crate) deadline: Instant,
}

/// Whom a request is for.
#[derive(Clone, Debug)]
pub(crate) struct To<F: Family> {
    pub(crate) node: F::Node,
    /// An earlier request of the same operation to it is still listened to.
    pub(crate) again: bool,
    /// Nothing happens at the soft limit, and its silence says nothing of others: many of those who are checked are dead.
    pub(crate) patient: bool,
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

    /// Whether it had, or has, all the time that its operation had when it was handed in: where it runs out, that is no
    /// time-out of its own.
    pub(crate) fn had_all(&self) -> bool {
        self.deadline >= self.operation_deadline
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

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoTimeLeft => "the deadline leaves no time",
            Self::QueueFull => "no more requests can wait",
        })
    }
}

impl core::error::Error for Refusal {}

/// Why a request was not taken, as the sender learns it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused<F: Family> {
    NoTimeLeft,
    /// Where its node has as many requests in flight as it may, `busy` is that node.
    QueueFull {
        busy: Option<F::Key>,
    },
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
    /// Whoever has a later deadline than this has to queue behind others, who could not hand in a request so far.
    first: Option<Instant>,
    /// Busy nodes that somebody wanted to wait for when the queue was full.
    wanted: BTreeSet<F::Key>,
    /// Those of them that have got room since.
    freed: BTreeSet<F::Key>,
    traffic: Traffic,
    pace: Pace,
    limits: Limits,
    soft_limits: bool,
}

/// The configured limits, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Limits {
    soft: u64,
    hard: u64,
    least: u64,
}

impl<F: Family, T> Outbox<F, T> {
    pub(crate) fn new(config: NetworkConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            requests: InFlight::new(),
            waiting: BTreeSet::new(),
            ready: Heap::new(),
            active: HashMap::with_hasher(Seeded(config.hash_seed)),
            first: None,
            wanted: BTreeSet::new(),
            freed: BTreeSet::new(),
            traffic: Traffic::default(),
            pace: Pace::default(),
            limits: Limits {
                soft: nanos(config.soft_timeout),
                hard: nanos(config.request_timeout),
                least: nanos(config.min_timeout),
            },
            soft_limits: true,
            config,
        })
    }

    /// The same, for who does nothing at a soft limit: time does not stop there.
    pub(crate) fn without_soft_limits(self) -> Self {
        Self { soft_limits: false, ..self }
    }

    /// The sums, of this moment.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The soft limit and the time-out of a request sent now, in nanoseconds. One to a node whose last request is slow and
    /// still listened to (`again`) has as much time as that one would have left, had it been the first.
    fn limits(&self, again: bool) -> (u64, u64) {
        let Limits { soft, hard, least } = self.limits;
        let (soft, hard) = if least >= hard {
            (soft, hard)
        } else {
            let hard = self.pace.hard(least, soft.saturating_mul(4), hard);
            (self.pace.soft(least, soft, hard), hard)
        };
        // Adapted limits move between two requests, and may leave nothing; but what waits must go out in the end.
        (soft, if again { hard.saturating_sub(soft).max(1) } else { hard })
    }

    /// Hands in a request for an operation that ends at `operation_deadline`.
    pub(crate) fn submit(
        &mut self,
        now: Instant,
        owned: &mut Owned,
        operation_deadline: Instant,
        to: To<F>,
        work: T,
    ) -> Result<Submitted, Refused<F>> {
        let (soft, hard) = self.limits(to.again);
        let deadline = deadline::of_request(now, operation_deadline, hard).ok_or(Refused::NoTimeLeft)?;
        let To { node, again, patient } = to;
        let key = F::key(&node);
        let free = self.free();
        let active = self.active.entry(key);
        let has_room = match &active {
            MapEntry::Occupied(active) => *active.get() < self.config.max_per_node,
            MapEntry::Vacant(_) => true,
        };
        if self.first.is_some_and(|first| first < operation_deadline) {
            return Err(Refused::QueueFull { busy: None });
        }
        // Where nothing is ready, nothing waits for a node that has room.
        if has_room && free > 0 && self.ready.len() == 0 {
            *active.or_insert(0) += 1;
            let stage = Stage::Sent;
            let request =
                Request { work, node, again, patient, operation_deadline, stage, since: now, deadline };
            let id = self.requests.open(owned, request);
            self.enter(now.plus(soft), id, patient, deadline);
            return Ok(Submitted::Sent(id, deadline));
        }
        if !self.has_space() {
            return Err(Refused::QueueFull { busy: (!has_room).then_some(key) });
        }
        // What waits may wait as long as its operation lives.
        let (stage, deadline) = (Stage::Waiting, operation_deadline);
        let request = Request { work, node, again, patient, operation_deadline, stage, since: now, deadline };
        let id = self.requests.open(owned, request);
        self.requests.arm(id, None, deadline);
        let before = self.first_waiting(key);
        self.waiting.insert((key, deadline, id));
        self.traffic.queued += 1;
        // It may go before the one that was the first so far.
        if has_room && self.first_waiting(key) == Some((deadline, id)) {
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
        let (soft, hard) = self.limits(self.requests.get(id)?.again);
        let request = self.requests.get_mut(id)?;
        // A request that waits past its operation's deadline is closed before anything is released.
        let deadline = deadline::of_request(now, request.operation_deadline, hard)?;
        request.stage = Stage::Sent;
        request.since = now;
        request.deadline = deadline;
        let (key, patient) = (F::key(&request.node), request.patient);
        self.waiting.remove(&(key, waited, id));
        self.traffic.queued -= 1;
        *self.active.entry(key).or_insert(0) += 1;
        self.enter(now.plus(soft), id, patient, deadline);
        self.make_ready(key);
        Some((id, deadline))
    }

    /// A request is in flight from now on.
    fn enter(&mut self, soft: Instant, id: RequestId, patient: bool, deadline: Instant) {
        self.requests.arm(id, (self.soft_limits && !patient).then_some(soft), deadline);
        self.traffic.sent += 1;
        self.traffic.in_flight += 1;
    }

    /// Takes a round trip that was measured by other means than a request.
    pub(crate) fn observe(&mut self, round_trip: Duration) {
        self.pace.observe(nanos(round_trip));
    }

    /// Whether one more request can wait. What is ready leaves the queue in this same call, as far as there is capacity.
    pub(crate) fn has_space(&self) -> bool {
        self.waiting.len() < self.config.max_queued + self.free().min(self.ready.len())
    }

    /// Whether a request handed in now would be sent at once, unless its node is busy.
    pub(crate) fn is_free(&self) -> bool {
        self.free() > 0 && self.ready.len() == 0
    }

    /// Whether one more request may be in flight to a node.
    fn has_room(&self, key: F::Key) -> bool {
        self.active.get(&key).is_none_or(|active| *active < self.config.max_per_node)
    }

    /// Lets those with a later deadline than this stand back.
    pub(crate) fn stand_back(&mut self, first: Option<Instant>) {
        self.first = first;
    }

    /// A node that has room, and that somebody wanted when it was busy.
    pub(crate) fn freed(&mut self) -> Option<F::Key> {
        while let Some(key) = self.freed.first().copied() {
            if self.has_room(key) {
                return Some(key);
            }
            self.freed.pop_first();
        }
        None
    }

    /// Nobody wants this node any more.
    pub(crate) fn forget(&mut self, key: F::Key) {
        self.wanted.remove(&key);
        self.freed.remove(&key);
    }

    /// Somebody wants this node, which is busy.
    pub(crate) fn want(&mut self, key: F::Key) {
        self.wanted.insert(key);
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

    /// Counts an id of a request that does not live.
    pub(crate) fn count_ended(&mut self, id: RequestId) {
        let late = self.requests.was_issued(id);
        *(if late { &mut self.traffic.late } else { &mut self.traffic.unknown }) += 1;
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
        now: Instant,
        ending: Ending,
    ) -> Option<Request<F, T>> {
        let request = self.requests.close(owned, id)?;
        if ending == Ending::Answered {
            // Where the node was asked again, the first request would have taken at least as long as both together:
            // counting only answers that came in time would make time-outs ever shorter.
            let before = if request.again { self.limits(false).0 } else { 0 };
            self.pace.observe(nanos(request.age(now)).saturating_add(before));
            self.pace.ended(true);
        }
        if ending == Ending::TimedOut && !request.again && !request.patient {
            self.pace.ended(false);
        }
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
        if request.stage == Stage::Waiting {
            self.waiting.remove(&(key, request.deadline, id));
            self.ready.clear(id.handle().slot());
        } else {
            self.leave(key);
        }
        self.make_ready(key);
        Some(request)
    }

    /// Gives what waits of this owner another deadline.
    pub(crate) fn postpone(&mut self, owned: Owned, until: impl Fn(&Request<F, T>) -> Instant) {
        let waiting = self.requests.of(owned).filter(|(_, request)| !request.is_emitted());
        let waiting: Vec<_> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            let Some(request) = self.requests.get_mut(id) else { continue };
            let (key, before, deadline) = (F::key(&request.node), request.deadline, until(request));
            (request.deadline, request.operation_deadline) = (deadline, deadline);
            self.requests.arm(id, None, deadline);
            if let Some((_, first)) = self.first_waiting(key) {
                self.ready.clear(first.handle().slot());
            }
            self.waiting.remove(&(key, before, id));
            self.waiting.insert((key, deadline, id));
            self.make_ready(key);
        }
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

    /// The request of this owner that was handed in last, of those that pass the test.
    pub(crate) fn find(&self, owned: Owned, test: impl Fn(&Request<F, T>) -> bool) -> Option<RequestId> {
        self.requests.of(owned).find(|(_, request)| test(request)).map(|(id, _)| id)
    }

    /// What this owner has in flight.
    pub(crate) fn in_flight(&self, owned: Owned) -> impl Iterator<Item = (RequestId, &T)> {
        let emitted = self.requests.of(owned).filter(|(_, request)| request.is_emitted());
        emitted.map(|(id, request)| (id, &request.work))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout()
    }

    /// How many more requests may be in flight in total.
    fn free(&self) -> usize {
        let in_flight = usize::try_from(self.traffic.in_flight).unwrap_or(usize::MAX);
        self.config.max_in_flight.saturating_sub(in_flight)
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

    /// One request fewer is in flight to this node, which is forgotten when it has none.
    fn leave(&mut self, key: F::Key) {
        if self.wanted.contains(&key) {
            self.freed.insert(key);
        }
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
}

/// A small seeded hash for keys: each eight bytes are folded in by a multiplication. The tables it serves are never
/// iterated, so collisions cost time only; who could choose keys that collide would have to know the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        // Two secrets of one seed; the factor must be odd.
        let mut secrets = Fold { state: self.0 ^ Fold::FACTOR, factor: Fold::FACTOR };
        secrets.write_u64(self.0);
        let state = secrets.state;
        secrets.write_u64(!self.0);
        Fold { state, factor: secrets.state | 1 }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    state: u64,
    factor: u64,
}

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
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        #[allow(clippy::cast_possible_truncation)] // both halves are folded in
        let folded = (product >> 64) as u64 ^ product as u64;
        self.state = folded.rotate_left(23);
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
