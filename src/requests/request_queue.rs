//! [`RequestQueue`]: all requests of a machine, within limits on requests in flight, per node and in total.
//!
//! Every machine with requests owns one and lends it to its parts. A part [submits](RequestQueue::submit) a
//! request, which is either to be sent at once, or waits, or is not accepted. Waiting requests are
//! [released](RequestQueue::release) in order of deadline as capacity becomes free. When a request is answered,
//! fails, times out or is cancelled, the part that submitted it [closes](RequestQueue::close) it.
//!
//! The queue keeps the deadline rules of requests (rules 3 to 5 of [`deadline`]): when a request may be sent, its
//! soft limit, its deadline, and the statistics. The timers are those of the [in-flight table](InFlightTable).
//!
//! If the queue is full, operations are blocked; [`BlockedOperations`](crate::operations::blocked) retries them.
//! For their sake the queue remembers the busy nodes that they wait for (watched nodes), and a precedence: submissions
//! that come after it are not accepted, so that newer requests do not overtake blocked operations that are more urgent,
//! or as urgent and there before.

use crate::collections::indexed_heap::IndexedHeap;
use crate::collections::seeded_hash::SeededHash;
use crate::deadline;
use crate::requests::ban_list::BanList;
use crate::requests::config::NetworkConfig;
use crate::requests::in_flight_table::{InFlightTable, RequestList};
use crate::requests::purpose::Attempt;
use crate::requests::rtt_estimator::{ConfiguredLimits, Limits, RttEstimator};
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::request_events::{Answer, AnswerExtra};
use crate::vocabulary::secret::{Seeds, WireToken, WireTokens};
use crate::vocabulary::time::{Instant, nanos};
use core::time::Duration;
use smallvec::SmallVec;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};

/// So many requests to a node that are slow together say something of the node: not a few lost messages.
const SILENT_TOGETHER: usize = 8;

/// A request that waits in line for its node occupies a concurrency slot for one part in so many of the time that is left to it, at
/// least for the soft limit: short lines are waited for, as they are shorter if nobody asks further nodes meanwhile.
const IN_LINE_WITH_SLOT: u64 = 16;

/// How many times as many requests may be in flight to a node as may be waited for there.
const IN_FLIGHT_PER_AWAITED: usize = 8;

/// One live request: its purpose, its node and its state.
#[derive(Clone, Debug)]
pub(crate) struct PendingRequest<F: Family, P> {
    pub(crate) purpose: P,
    pub(crate) node: F::Node,
    /// It is an [`Attempt::Hedge`].
    is_hedge: bool,
    /// See [`Recipient::no_soft_limit`].
    no_soft_limit: bool,
    /// See [`Recipient::is_named`].
    is_named: bool,
    /// Where it comes among those with the same deadline that wait for its node.
    turn: u32,
    /// The latest deadline that its operation allows: that of the operation, or of the lookup within it.
    pub(crate) operation_deadline: Instant,
    pub(crate) stage: Stage,
    /// It had to wait, and its operation is told if it stands in line for its node, or if that is silent.
    line: Option<InLine>,
    /// What has come of its answer so far, if that comes in parts.
    parts: Option<Box<AnswerParts<F>>>,
    /// When it was submitted; from [`Stage::Sent`] on, when it was sent.
    since: Instant,
    /// When it times out. While it waits, that is `operation_deadline`.
    pub(crate) deadline: Instant,
}

/// What has come of an answer that comes in parts.
#[derive(Clone, Debug)]
pub(crate) struct AnswerParts<F: Family> {
    /// The time to the first part.
    elapsed: Duration,
    /// That is no round trip: a connection was made first.
    dialed: bool,
    /// The nodes that the parts name.
    closer: Vec<F::Node>,
}

/// The node of a request, and how the soft limit applies to it.
#[derive(Clone, Debug)]
pub(crate) struct Recipient<F: Family> {
    pub(crate) node: F::Node,
    pub(crate) attempt: Attempt,
    /// The request has only its deadline, and no earlier limits: its sender judges nothing by haste (liveness checks,
    /// crawls, stores).
    pub(crate) no_soft_limit: bool,
    /// An answer has named the node: it may be one to which there is no connection yet.
    pub(crate) is_named: bool,
    /// When its sender came, among those with the same deadline.
    pub(crate) arrival: u32,
}

/// The order in which operations get what is scarce: the earliest deadline first, then first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Precedence {
    pub(crate) deadline: Instant,
    /// See [`Recipient::arrival`].
    pub(crate) arrival: u32,
}

/// The place of a request among those that wait for its node: in order of deadline; then in that of the senders, so that one that asks
/// many nodes in turn is not overtaken at the last by those that came after it; then in that of the requests. Who asks the node once
/// more comes after those with the same deadline that have not asked it.
type PlaceInLine = (Precedence, RequestId);

/// Before all others.
const FIRST: PlaceInLine = (Precedence::FIRST, RequestId::from_u64(0));

impl Precedence {
    /// Before all others.
    pub(crate) const FIRST: Self = Self { deadline: Instant::ORIGIN, arrival: 0 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits until fewer requests are in flight, to its node or in total.
    Waiting,
    /// In flight, before the soft limit: it occupies a concurrency slot of its operation.
    Sent,
    /// In flight beyond the soft limit.
    Slow,
    /// The same, and its node may be asked again.
    Repeatable,
    /// In flight beyond the patience: its node counts as silent, but an answer still counts in full. It occupies a place
    /// in flight, as there are too many such requests.
    Silent,
    /// The same, without a place in flight.
    Listening,
}

/// The place of a request in the line of those that wait for its node, or have waited.
#[derive(Clone, Copy, Debug)]
struct InLine {
    submitted: Instant,
    told: Silence,
    /// When its operation [leaves](RequestQueue::limit_lines) the line, if it has not got its turn by then.
    leaves_at: Option<Instant>,
}

/// What those in line for a node know of it: which limit a request that is in flight to it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Silence {
    None,
    /// The soft limit.
    Slow,
    /// The time-out.
    TimedOut,
    /// The same, and the operation has been told so of this request, which is in flight.
    GivenUp,
}

impl<F: Family, P> PendingRequest<F, P> {
    /// Its place while it waits.
    fn place_in_line(&self, id: RequestId) -> PlaceInLine {
        (Precedence { deadline: self.deadline, arrival: self.turn }, id)
    }

    /// Whether it has been emitted: it does not wait.
    pub(crate) fn is_emitted(&self) -> bool {
        self.stage != Stage::Waiting
    }

    /// Whether it is in flight beyond its soft limit.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_emitted() && self.stage != Stage::Sent
    }

    /// Whether it is in flight beyond its patience: for its operation, the node is silent.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.stage, Stage::Silent | Stage::Listening)
    }

    /// Whether its operation waits for it no more, as the node has shown nothing for a whole time-out.
    pub(crate) fn is_given_up(&self) -> bool {
        self.line.is_some_and(|line| line.told == Silence::GivenUp)
    }

    /// Whether it is in flight without a place.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.stage == Stage::Listening
    }

    /// How long after its sending it leaves the stage in which it is, if not only at its deadline.
    #[inline]
    fn limit_of_stage(&self, limits: &Limits) -> Option<u64> {
        match self.stage {
            Stage::Sent => Some(limits.soft),
            Stage::Slow if self.is_hedge => Some(limits.soft),
            Stage::Slow => Some(limits.repeat),
            Stage::Repeatable if self.is_hedge => Some(limits.repeat_patience),
            Stage::Repeatable => Some(limits.patience),
            Stage::Waiting | Stage::Silent | Stage::Listening => None,
        }
    }

    /// Whether its deadline is the one that its operation set, rather than its own time-out. If it passes, that is
    /// no failure of the node (deadline rule 6).
    pub(crate) fn bound_by_operation(&self) -> bool {
        self.deadline >= self.operation_deadline
    }

    /// Whether a part of its answer has come.
    pub(crate) const fn is_answered_in_part(&self) -> bool {
        self.parts.is_some()
    }

    /// Whether the first part of its answer took the time of making a connection.
    pub(crate) fn was_dialed(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.dialed)
    }

    /// The time from its sending to its answer, or to the first part of that; the answer arrived at `at`.
    pub(crate) fn elapsed(&self, at: Instant) -> Duration {
        self.parts.as_ref().map_or_else(|| self.age(at), |parts| parts.elapsed)
    }

    /// When it was sent; when it was submitted, if it was not sent.
    pub(crate) const fn sent_at(&self) -> Instant {
        self.since
    }

    /// Time since it was sent; since it was submitted, if it was not sent.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now - self.since
    }
}

/// The requests in flight to a node.
#[derive(Clone, Copy, Debug)]
struct NodeInFlight {
    requests: usize,
    /// How many of them are more than [listened to](Stage::Listening).
    awaited: usize,
    /// How many of them are past their soft limit.
    slow: usize,
    /// When the last answer came, or a part of one.
    heard: Instant,
}

impl NodeInFlight {
    const NONE: Self = Self { requests: 0, awaited: 0, slow: 0, heard: Instant::ORIGIN };

    /// Whether one more request may be sent.
    const fn has_capacity(&self, config: &NetworkConfig) -> bool {
        let most = config.max_per_node;
        self.awaited < most && self.requests < most.saturating_mul(IN_FLIGHT_PER_AWAITED)
    }

    fn add(&mut self) {
        self.requests += 1;
        self.awaited += 1;
    }
}

/// A limit of a request that has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expired {
    /// It has waited for [as long](IN_LINE_WITH_SLOT) as with a slot. `stands`: in line for its node; else for its turn among all
    /// requests.
    InLine { request: RequestId, stands: bool },
    /// The soft limit, and perhaps also the limit from which on the node may be asked again.
    Soft { request: RequestId, may_repeat: bool },
    /// The node may be asked again.
    Repeat(RequestId),
    /// The patience: the node counts as silent. An answer is still accepted. `is_capped`: the configured maximum has
    /// shortened it. `may_retry`: nearly all that are asked again answer, so it is worth one more request.
    Silent { request: RequestId, is_capped: bool, may_retry: bool },
    /// The deadline. The request stays live until the caller [closes](RequestQueue::close) it.
    Hard(RequestId),
    /// It waits for a node that has timed out: it is not to be sent any more. The caller has to close it.
    Hopeless(RequestId),
    /// It has stood in line for its node, which answers others, for long enough: it is not to be sent any more. The caller has to close it.
    TooBusy(RequestId),
    /// It is silent, and its node has timed out, which it had to wait for: as if its deadline had passed. But an answer is still
    /// accepted, until that does pass.
    GivenUp(RequestId),
}

/// How a request ended, for the statistics of [`RequestQueue::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    /// Parts of the answer came, and its deadline passed before the last. It counts as answered.
    Incomplete,
    Failed,
    TimedOut,
    Cancelled,
}

impl Ending {
    /// Whether the node has answered.
    pub(crate) const fn is_answer(self) -> bool {
        matches!(self, Self::Answered | Self::Incomplete)
    }
}

/// The result of a submission that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Submitted {
    /// The caller has to emit the request now, with this deadline.
    Sent(RequestId, Instant),
    /// The request waits; [`RequestQueue::release`] returns it when it is to be sent.
    Queued(RequestId),
}

/// Why a [`Network`](crate::Network) did not accept a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitRefusal {
    /// The deadline is not later than the time of the call.
    NoTimeLeft,
    /// [`max_queued`](NetworkConfig::max_queued) requests wait already.
    QueueFull,
}

impl core::fmt::Display for SubmitRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoTimeLeft => "the deadline leaves no time",
            Self::QueueFull => "no more requests can wait",
        })
    }
}

impl core::error::Error for SubmitRefusal {}

/// Why a submission was not accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SubmitError<F: Family> {
    NoTimeLeft,
    /// The node is banned.
    Banned,
    /// No more requests can wait, or a blocked operation has precedence. `busy` is the key of the request's node
    /// if the queue is full and that node has as many requests in flight as allowed: then free capacity in total
    /// does not help.
    QueueFull {
        busy: Option<F::Key>,
    },
}

/// See the [module](self). `P` is the purpose of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestQueue<F: Family, P> {
    pub(crate) config: NetworkConfig,
    table: InFlightTable<PendingRequest<F, P>>,
    /// Waiting requests, in order of node and place there.
    waiting: BTreeSet<(F::Key, PlaceInLine)>,
    /// For each node with waiting requests and with free capacity: the first of them, in order of deadline, then of the requests. (In
    /// order of the operations fewer of many lookups at once come to their ends in time.)
    ready: IndexedHeap<(Instant, RequestId)>,
    /// The requests that had to [wait](InLine), by node, by what they know of it, and by when they were submitted. Those that judge
    /// nothing by haste are not among them, and where limits are as configured, there are none.
    in_line: BTreeSet<(F::Key, Silence, Instant, RequestId)>,
    /// The requests in flight, by node.
    active: HashMap<F::Key, NodeInFlight, SeededHash>,
    /// Submissions that come after this are not accepted, so that a blocked operation, which could not submit its request
    /// so far, goes first.
    precedence: Option<Precedence>,
    /// Busy nodes that blocked operations wait for: operations that want to ask them, but found the queue full.
    watched_nodes: BTreeSet<F::Key>,
    /// Watched nodes that have had a request end since, and so may have free capacity.
    freed_nodes: BTreeSet<F::Key>,
    /// Nodes that are not asked.
    bans: BanList<F>,
    stats: RequestStats,
    rtt: RttEstimator,
    /// What is known of the nodes that [answers have named](Recipient::is_named) alone.
    rtt_of_named: RttEstimator,
    /// Hash of those whose answers have been observed. It decides which answers count, so its seed is one that recordings hold.
    answerers: SeededHash,
    /// Whether requests have soft limits at all.
    soft_limits: bool,
    tokens: WireTokens,
}

impl<F: Family, P> RequestQueue<F, P> {
    pub(crate) fn new(config: NetworkConfig, seeds: &Seeds) -> Result<Self, ConfigError> {
        config.validate()?;
        let rtt = RttEstimator::new(ConfiguredLimits {
            soft: nanos(config.soft_timeout),
            hard: nanos(config.request_timeout),
            min: nanos(config.min_timeout),
            max: config.max_patience.map_or(u64::MAX, nanos),
        });
        Ok(Self {
            table: InFlightTable::new(),
            waiting: BTreeSet::new(),
            in_line: BTreeSet::new(),
            ready: IndexedHeap::new(),
            active: HashMap::with_hasher(SeededHash(seeds.hash)),
            precedence: None,
            watched_nodes: BTreeSet::new(),
            freed_nodes: BTreeSet::new(),
            bans: BanList::new(config.max_banned, SeededHash(seeds.hash)),
            stats: RequestStats::default(),
            rtt_of_named: rtt.clone(),
            rtt,
            answerers: SeededHash(seeds.choices),
            soft_limits: true,
            tokens: WireTokens::new(seeds),
            config,
        })
    }

    /// The same queue without soft limits, for machines that do nothing at a soft limit, so that they are not
    /// woken for it.
    pub(crate) fn without_soft_limits(self) -> Self {
        Self { soft_limits: false, ..self }
    }

    /// The wire token for a request that is emitted now.
    pub(crate) fn draw_token(&mut self) -> WireToken {
        self.tokens.draw()
    }

    /// The statistics so far.
    pub(crate) fn stats(&self) -> RequestStats {
        self.stats
    }

    /// The time-out of a request that is sent now, in nanoseconds. Where limits are as configured, that of a hedge is
    /// shorter by the soft limit, which the first request to the node has already used up: both end at about the same
    /// time.
    fn timeout(&self, is_hedge: bool) -> u64 {
        let hard = nanos(self.config.request_timeout);
        if is_hedge && self.config.is_fixed() {
            // At least 1 ns, because a waiting hedge must be released in the end.
            hard.saturating_sub(nanos(self.config.soft_timeout)).max(1)
        } else {
            hard
        }
    }

    /// Submits a request for an operation that ends at `operation_deadline`. `owned` is the list of the
    /// operation's requests.
    ///
    /// On [`Submitted::Sent`] the caller must emit the request in this same call.
    ///
    /// # Errors
    /// [`SubmitError`] if no time is left, the queue is full, or a blocked operation has precedence. The caller
    /// keeps nothing of the request, and retries later.
    pub(crate) fn submit(
        &mut self,
        now: Instant,
        owned: &mut RequestList,
        operation_deadline: Instant,
        to: Recipient<F>,
        purpose: P,
    ) -> Result<Submitted, SubmitError<F>> {
        if self.bans.contains(now, &to.node) {
            return Err(SubmitError::Banned);
        }
        let Recipient { node, attempt, no_soft_limit, is_named, arrival } = to;
        let is_hedge = attempt == Attempt::Hedge;
        let deadline = deadline::of_request(now, operation_deadline, self.timeout(is_hedge))
            .ok_or(SubmitError::NoTimeLeft)?;
        let key = F::key(&node);
        let free = self.free_capacity();
        let active = self.active.entry(key);
        let node_has_capacity = match &active {
            MapEntry::Occupied(active) => active.get().has_capacity(&self.config),
            MapEntry::Vacant(_) => true,
        };
        let precedence = Precedence { deadline: operation_deadline, arrival };
        if self.precedence.is_some_and(|first| first < precedence) {
            return Err(SubmitError::QueueFull { busy: None });
        }
        // Who has asked the node before comes after those who have not.
        let turn = if attempt == Attempt::First { arrival } else { u32::MAX };
        let pending = |stage, deadline| PendingRequest {
            purpose,
            node,
            is_hedge,
            no_soft_limit,
            is_named,
            turn,
            operation_deadline,
            stage,
            line: None,
            parts: None,
            since: now,
            deadline,
        };
        // If no request is ready, no request waits for a node with free capacity: this one overtakes none.
        if node_has_capacity && free > 0 && self.ready.len() == 0 {
            active.or_insert(NodeInFlight::NONE).add();
            let id = self.table.open(owned, pending(Stage::Sent, deadline));
            self.mark_sent(now, id, no_soft_limit, deadline);
            return Ok(Submitted::Sent(id, deadline));
        }
        if !self.has_queue_space() {
            return Err(SubmitError::QueueFull { busy: (!node_has_capacity).then_some(key) });
        }
        // A request may wait as long as its operation lives; its time-out begins when it is sent.
        let deadline = operation_deadline;
        let is_told = self.soft_limits && !no_soft_limit && !self.config.is_fixed();
        let line = is_told.then_some(InLine { submitted: now, told: Silence::None, leaves_at: None });
        let id = self.table.open(owned, PendingRequest { line, ..pending(Stage::Waiting, deadline) });
        let slot = now.plus(self.rtt.limits().soft.max(nanos(deadline - now) / IN_LINE_WITH_SLOT));
        self.table.arm(id, if is_told && !node_has_capacity { slot.min(deadline) } else { deadline });
        if let Some(line) = line {
            self.in_line.insert((key, line.told, line.submitted, id));
        }
        let before = self.first_waiting(key);
        let place = (Precedence { arrival: turn, ..precedence }, id);
        self.waiting.insert((key, place));
        self.stats.queued += 1;
        // It may precede the request that was the first for this node so far.
        if node_has_capacity && self.first_waiting(key) == Some(place) {
            if let Some((_, overtaken)) = before {
                self.ready.clear(overtaken.handle().slot());
            }
            self.ready.set(id.handle().slot(), (deadline, id));
        }
        Ok(Submitted::Queued(id))
    }

    /// The request that [`release`](Self::release) would return.
    pub(crate) fn next_turn(&self) -> Option<RequestId> {
        let ((_, id), _) = self.ready.peek().filter(|_| self.free_capacity() > 0)?;
        Some(id)
    }

    /// The next waiting request that can be sent now, earliest deadline first, with its new deadline. The caller
    /// must emit it.
    pub(crate) fn release(&mut self, now: Instant) -> Option<(RequestId, Instant)> {
        let (of_all, of_named) = (self.rtt.take_shortened(), self.rtt_of_named.take_shortened());
        if of_all || of_named {
            self.shorten_timers(now);
        }
        if self.free_capacity() == 0 {
            return None;
        }
        let ((_, id), slot) = self.ready.peek()?;
        self.ready.clear(slot);
        let timeout = self.timeout(self.table.get(id)?.is_hedge);
        let request = self.table.get_mut(id)?;
        let place = request.place_in_line(id);
        // Always `Some`: a request that waits past its operation's deadline is closed before any is released.
        let deadline = deadline::of_request(now, request.operation_deadline, timeout)?;
        (request.stage, request.since, request.deadline) = (Stage::Sent, now, deadline);
        let (key, no_soft_limit) = (F::key(&request.node), request.no_soft_limit);
        self.waiting.remove(&(key, place));
        self.stats.queued -= 1;
        self.active.entry(key).or_insert(NodeInFlight::NONE).add();
        self.mark_sent(now, id, no_soft_limit, deadline);
        self.mark_ready(key);
        Some((id, deadline))
    }

    /// A request to this node, sent at `sent`, has passed a limit without an answer. If none has come from the node since, and
    /// [enough](SILENT_TOGETHER) of the requests in flight there are slow, then those in line for it share that: for the operations of
    /// those that wait, it is slow; and if it times out, those that had come when that one was sent are not sent, and what of them has
    /// been sent since is not waited for beyond its patience. (Who came later might find that it answers.) Only those are looked at
    /// that are told something new: each twice at most.
    fn share_silence(&mut self, at: Instant, key: F::Key, sent: Instant, silence: Silence) {
        let Some(active) = self.active.get(&key) else { return };
        if active.slow < SILENT_TOGETHER || active.heard > sent || self.in_line.is_empty() {
            return;
        }
        let (first, last) = (RequestId::from_u64(0), RequestId::from_u64(u64::MAX));
        let until = if silence == Silence::TimedOut { sent } else { Instant::FAR_FUTURE };
        for told in [Silence::None, Silence::Slow].into_iter().filter(|told| *told < silence) {
            let such = (key, told, Instant::ORIGIN, first)..=(key, told, until, last);
            let to_tell: Vec<_> = self.in_line.range(such).map(|(.., id)| *id).collect();
            for id in to_tell {
                self.tell(key, id, silence);
                // What is in flight has limits of its own until it is silent.
                let is_due = |request: &PendingRequest<F, P>| {
                    !request.is_emitted() || request.is_silent() && silence == Silence::TimedOut
                };
                if self.table.get(id).is_some_and(is_due) {
                    self.table.arm(id, at);
                }
            }
        }
    }

    /// A request in line for this node knows this of it from now on.
    fn tell(&mut self, key: F::Key, id: RequestId, silence: Silence) {
        if let Some(line) = self.table.get_mut(id).and_then(|request| request.line.as_mut()) {
            let told = core::mem::replace(&mut line.told, silence);
            let submitted = line.submitted;
            self.in_line.remove(&(key, told, submitted, id));
            self.in_line.insert((key, silence, submitted, id));
        }
    }

    /// An operation waits, and so many nodes have answered it. If nothing of it is in flight, and fewer nodes keep it from its end,
    /// because it stands in line for them, it does so for `patience` more, at least for as long as a request may take; then its
    /// requests to these are not sent any more. A node may answer all that it is asked in time, and yet have far more to answer than
    /// the others.
    pub(crate) fn limit_lines(
        &mut self,
        now: Instant,
        owned: RequestList,
        num_answered: u32,
        patience: Duration,
    ) {
        // Where nobody waits, this costs nothing.
        if self.waiting.is_empty() {
            return;
        }
        let (mut num_in_line, mut unlimited) = (0, SmallVec::<[RequestId; 16]>::new());
        for (id, request) in self.table.owned_by(owned) {
            match (request.stage, request.line) {
                (Stage::Silent | Stage::Listening, _) => {}
                // What waits for its turn among all requests waits for nobody in particular.
                (Stage::Waiting, Some(line)) if !self.node_has_capacity(F::key(&request.node)) => {
                    num_in_line += 1;
                    if num_in_line >= num_answered {
                        return;
                    }
                    unlimited.extend(line.leaves_at.is_none().then_some(id));
                }
                _ => return,
            }
        }
        let until = now.plus(nanos(patience.max(self.config.request_timeout)));
        for id in unlimited {
            if let Some(line) = self.table.get_mut(id).and_then(|request| request.line.as_mut()) {
                line.leaves_at = Some(until);
                // What it has been told meanwhile is due before.
                if self.table.timer(id).is_none_or(|timer| until < timer) {
                    self.table.arm(id, until);
                }
            }
        }
    }

    /// A request is in no line any more.
    fn leave_line(&mut self, key: F::Key, id: RequestId, line: Option<InLine>) {
        if let Some(InLine { submitted, told, .. }) = line {
            self.in_line.remove(&(key, told, submitted, id));
        }
    }

    /// The limit that counts as passed at `at` for a waiting request: its node is silent, or it has stood in line for some time, or
    /// for long enough.
    fn expire_waiting(&mut self, at: Instant, id: RequestId) -> Option<Expired> {
        let request = self.table.get(id)?;
        let (line, deadline, key) = (request.line?, request.deadline, F::key(&request.node));
        if line.told < Silence::TimedOut && line.leaves_at.is_some_and(|leaves_at| leaves_at <= at) {
            return Some(Expired::TooBusy(id));
        }
        self.table.arm(id, line.leaves_at.map_or(deadline, |leaves_at| leaves_at.min(deadline)));
        Some(match line.told {
            Silence::None => Expired::InLine { request: id, stands: !self.node_has_capacity(key) },
            Silence::Slow => Expired::Soft { request: id, may_repeat: false },
            Silence::TimedOut | Silence::GivenUp => Expired::Hopeless(id),
        })
    }

    /// The limits of a request. Where a first contact takes several round trips, as a connection is made first, those whom answers
    /// name take longer than those that are known, so they have at least the patience that fits themselves.
    fn limits_of(&self, is_named: bool) -> Limits {
        let mut limits = *self.rtt.limits();
        if is_named && self.rtt_of_named.may_be_slower_than(&self.rtt) {
            let of_named = self.rtt_of_named.limits();
            limits.patience = limits.patience.max(of_named.patience);
            limits.repeat_patience = limits.repeat_patience.max(of_named.repeat_patience);
            limits.is_capped |= of_named.is_capped;
        }
        limits
    }

    /// Sets the timers anew that the limits in force would set earlier. Happens once: when a machine that knew
    /// nothing knows enough answers.
    #[cold]
    fn shorten_timers(&mut self, now: Instant) {
        let ids: Vec<_> = if self.soft_limits { self.table.ids().collect() } else { Vec::new() };
        for id in ids {
            let Some((request, timer)) = self.table.get(id).zip(self.table.timer(id)) else { continue };
            let has_limits = !request.no_soft_limit && request.parts.is_none();
            let limits = self.limits_of(request.is_named);
            let Some(limit) = request.limit_of_stage(&limits).filter(|_| has_limits) else { continue };
            // Not before the next moment: what is due now has been done in this call.
            let due = request.since.plus(limit).max(now.plus(1));
            if due < timer {
                self.table.arm(id, due);
            }
        }
    }

    /// Sets the timer of a request that is in flight from now on, and counts it.
    #[inline]
    fn mark_sent(&mut self, now: Instant, id: RequestId, no_soft_limit: bool, deadline: Instant) {
        let soft = now.plus(self.rtt.limits().soft);
        let only_deadline = no_soft_limit || !self.soft_limits;
        self.table.arm(id, if only_deadline { deadline } else { soft.min(deadline) });
        self.stats.sent += 1;
        self.stats.in_flight += 1;
    }

    /// Records a round trip to a node that was not measured by a request of this queue.
    pub(crate) fn observe(&mut self, round_trip: Duration, node: &F::Node) {
        self.rtt.observe(nanos(round_trip), answerer::<F>(node), self.answerers);
    }

    /// The same, to a node that nothing else is known of.
    #[cfg(any(feature = "record", feature = "sim"))]
    pub(crate) fn observe_anonymous(&mut self, round_trip: Duration) {
        for rtt in [&mut self.rtt, &mut self.rtt_of_named] {
            rtt.observe(nanos(round_trip), nanos(round_trip), self.answerers);
        }
    }

    /// Bans a node: no request to it is accepted before `until`. A time that is not after `now` lifts the ban.
    pub(crate) fn ban(&mut self, now: Instant, node: F::Node, until: Instant) {
        self.bans.insert(now, node, until);
    }

    /// This node had the key `before`, and has the key `key` now: neither is asked.
    pub(crate) fn change_own_key(&mut self, before: F::Key, key: F::Key) {
        self.bans.change_own_key(before, key);
    }

    /// Whether a node is banned now.
    pub(crate) fn is_banned(&self, now: Instant, node: &F::Node) -> bool {
        self.bans.contains(now, node)
    }

    /// The requests that wait for capacity and whose node is such, in order of node, deadline and arrival.
    pub(crate) fn waiting_for(&self, is_such: impl Fn(&F::Node) -> bool) -> Vec<RequestId> {
        let waiting = self.waiting.iter().map(|(_, (_, id))| *id);
        waiting.filter(|id| self.table.get(*id).is_some_and(|request| is_such(&request.node))).collect()
    }

    /// What is known of a node has changed: requests to it that wait go to where it is now.
    pub(crate) fn update_waiting(&mut self, node: &F::Node) {
        let key = F::key(node);
        for (_, (_, id)) in self.waiting.range((key, FIRST)..).take_while(|(of, _)| *of == key) {
            if let Some(request) = self.table.get_mut(*id).filter(|request| request.node == *node) {
                request.node.clone_from(node);
            }
        }
    }

    /// Visits the nodes of all live requests and all banned nodes.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.bans.visit_nodes(visit);
        for request in self.table.iter() {
            visit(&request.node);
            if let Some(parts) = &request.parts {
                parts.closer.iter().for_each(&mut *visit);
            }
        }
    }

    /// Whether requests wait for capacity that would go before one with this deadline, if it came now.
    pub(crate) fn is_backlogged(&self, deadline: Instant) -> bool {
        self.ready.peek().is_some_and(|((first, _), _)| first <= deadline)
    }

    /// Whether one more request can wait. Requests that are ready do not count as far as there is capacity to
    /// release them: they leave the queue in this same call.
    pub(crate) fn has_queue_space(&self) -> bool {
        self.waiting.len() < self.config.max_queued + self.free_capacity().min(self.ready.len())
    }

    /// Whether a request that is submitted now would be sent at once, if its node is not busy.
    pub(crate) fn has_capacity(&self) -> bool {
        self.free_capacity() > 0 && self.ready.len() == 0
    }

    /// Whether one more request may be in flight to a node.
    fn node_has_capacity(&self, key: F::Key) -> bool {
        self.active.get(&key).is_none_or(|active| active.has_capacity(&self.config))
    }

    /// Sets the precedence of the blocked operation that goes first: submissions that come after it fail until this is
    /// called again. `None`: all submissions are considered.
    pub(crate) fn set_precedence(&mut self, precedence: Option<Precedence>) {
        self.precedence = precedence;
    }

    /// A watched node that has free capacity now.
    pub(crate) fn freed_node(&mut self) -> Option<F::Key> {
        while let Some(key) = self.freed_nodes.first().copied() {
            if self.node_has_capacity(key) {
                return Some(key);
            }
            self.freed_nodes.pop_first();
        }
        None
    }

    /// Stops watching a node: no blocked operation waits for it any more.
    pub(crate) fn unwatch_node(&mut self, key: F::Key) {
        self.watched_nodes.remove(&key);
        self.freed_nodes.remove(&key);
    }

    /// Watches a busy node, because a blocked operation waits for it.
    pub(crate) fn watch_node(&mut self, key: F::Key) {
        self.watched_nodes.insert(key);
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&PendingRequest<F, P>> {
        self.table.get(id)
    }

    /// The request that a response is for: one that was emitted and has not ended. For any other id the response
    /// is counted as late or unknown, and the result is `None`.
    pub(crate) fn match_response(&mut self, id: RequestId) -> Option<&PendingRequest<F, P>> {
        if !self.table.get(id).is_some_and(PendingRequest::is_emitted) {
            // A request that waits was not emitted yet, so no node can have answered it: a response to it counts
            // as unknown.
            let late = self.table.get(id).is_none() && self.table.was_issued(id);
            *(if late { &mut self.stats.late } else { &mut self.stats.unknown }) += 1;
            return None;
        }
        self.table.get(id)
    }

    /// Counts an id of a request that is not live, as late or unknown.
    pub(crate) fn count_stale_request(&mut self, id: RequestId) {
        let late = self.table.was_issued(id);
        *(if late { &mut self.stats.late } else { &mut self.stats.unknown }) += 1;
    }

    /// Counts an id of an operation that is not live.
    pub(crate) fn count_unknown_operation(&mut self) {
        self.stats.unknown += 1;
    }

    /// Keeps a part of the answer to a request, which arrived at `at`, after a dial if `dialed`. From the first part on,
    /// the request waits for the last one only as long again, at least for the soft limit. It has
    /// no soft limit any more: a node that is answering is not asked again, and holds its slot for as long.
    #[cold]
    pub(crate) fn keep_part(
        &mut self,
        now: Instant,
        id: RequestId,
        (at, dialed): (Instant, bool),
        closer: Vec<F::Node>,
    ) {
        let most = self.config.max_part_nodes;
        let Some(request) = self.table.get_mut(id) else { return };
        let (elapsed, is_hedge, sent) = (request.age(at), request.is_hedge, request.since);
        let is_named = request.is_named;
        let (from, key) = (answerer::<F>(&request.node), F::key(&request.node));
        let is_first = request.parts.is_none();
        let parts = request
            .parts
            .get_or_insert_with(|| Box::new(AnswerParts { elapsed, dialed, closer: Vec::new() }));
        let room = most.saturating_sub(parts.closer.len());
        parts.closer.extend(closer.into_iter().take(room));
        self.active.entry(key).and_modify(|active| active.heard = now);
        if is_first {
            self.observe_answer((sent, at), is_hedge, is_named, from);
            let wait = nanos(elapsed).max(self.rtt.limits().soft);
            if let Some(request) = self.table.get_mut(id) {
                request.deadline = request.deadline.min(now.plus(wait));
                let deadline = request.deadline;
                self.table.arm(id, deadline);
            }
        }
    }

    /// Puts the nodes of the parts that came before, if any, in front of those of the last part.
    #[cold]
    pub(crate) fn join_parts(&mut self, id: RequestId, closer: &mut Vec<F::Node>) {
        if let Some(request) = self.table.get_mut(id)
            && let Some(parts) = &mut request.parts
        {
            let mut all = core::mem::take(&mut parts.closer);
            all.append(closer);
            *closer = all;
        }
    }

    /// The answer that consists of the parts that have come; it counts as a part, as the last is missing.
    #[cold]
    pub(crate) fn take_parts(&mut self, id: RequestId) -> Answer<F> {
        let mut closer = Vec::new();
        self.join_parts(id, &mut closer);
        Answer { closer, extra: AnswerExtra::NONE, is_part: true }
    }

    /// Records the round trip of an answer.
    fn observe_answer(&mut self, times: (Instant, Instant), is_hedge: bool, is_named: bool, answerer: u64) {
        // If this is a hedge, the first request was not answered before it was sent, so the time that the node takes is
        // that much longer. If only the fast answers were observed, limits would become ever shorter.
        let before = if is_hedge { self.rtt.limits().repeat } else { 0 };
        let (sent, arrived) = times;
        let round_trip = nanos(arrived - sent).saturating_add(before);
        self.rtt.observe_answer(round_trip, answerer, self.answerers, Some(times));
        if is_named {
            self.rtt_of_named.observe_answer(round_trip, answerer, self.answerers, Some(times));
        }
    }

    /// Ends a request, whose response arrived at `at` if there is one: removes it from the table and the list of its
    /// owner, and counts its ending. The caller then calls [`release`](RequestQueue::release), as this may have freed
    /// capacity. `None` if the request is not live.
    pub(crate) fn close(
        &mut self,
        owned: &mut RequestList,
        id: RequestId,
        at: Instant,
        ending: Ending,
    ) -> Option<PendingRequest<F, P>> {
        let request = self.table.close(owned, id)?;
        if ending == Ending::Answered {
            if request.parts.is_none() {
                let times = (request.since, at);
                self.observe_answer(times, request.is_hedge, request.is_named, answerer::<F>(&request.node));
            }
            if request.is_hedge && !request.is_silent() {
                self.rtt.record_repeat(true);
            }
            // That it is past its patience has been recorded when that was.
            if !request.is_hedge && !request.no_soft_limit && !request.is_silent() {
                self.rtt.record_outcome(true);
            }
        }
        if ending == Ending::TimedOut && !request.is_hedge && !request.no_soft_limit && !request.is_silent() {
            self.rtt.record_outcome(false);
        }
        if !request.is_hedge && !request.no_soft_limit {
            match ending {
                Ending::Answered => self.rtt.record_end(at, true),
                Ending::TimedOut if request.is_emitted() => self.rtt.record_end(at, false),
                _ => {}
            }
        }
        if request.stage == Stage::Listening {
            self.stats.listening -= 1;
        }
        let key = F::key(&request.node);
        if request.is_emitted() {
            self.stats.in_flight -= 1;
            *match ending {
                Ending::Answered | Ending::Incomplete => &mut self.stats.answered,
                Ending::Failed => &mut self.stats.failed,
                Ending::TimedOut => &mut self.stats.timed_out,
                Ending::Cancelled => &mut self.stats.cancelled,
            } += 1;
        } else {
            self.stats.queued -= 1;
        }
        self.leave_line(key, id, request.line);
        if request.stage == Stage::Waiting {
            self.waiting.remove(&(key, request.place_in_line(id)));
            self.ready.clear(id.handle().slot());
        } else {
            self.decrement_active(key, &request, ending.is_answer().then_some(at));
        }
        self.mark_ready(key);
        Some(request)
    }

    /// Sets new deadlines for the waiting requests of this owner.
    pub(crate) fn set_waiting_deadlines(
        &mut self,
        owned: RequestList,
        until: impl Fn(&PendingRequest<F, P>) -> Instant,
    ) {
        let waiting = self.table.owned_by(owned).filter(|(_, request)| !request.is_emitted());
        let waiting: Vec<_> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            let Some(request) = self.table.get_mut(id) else { continue };
            let (key, before, deadline) = (F::key(&request.node), request.place_in_line(id), until(request));
            (request.deadline, request.operation_deadline) = (deadline, deadline);
            let place = request.place_in_line(id);
            let earlier = self.table.timer(id).filter(|timer| *timer < before.0.deadline);
            self.table.arm(id, earlier.map_or(deadline, |timer| timer.min(deadline)));
            if let Some((_, first)) = self.first_waiting(key) {
                self.ready.clear(first.handle().slot());
            }
            self.waiting.remove(&(key, before));
            self.waiting.insert((key, place));
            self.mark_ready(key);
        }
    }

    /// The next limit of a request that is due by `now`, earliest first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Expired> {
        let (at, id) = self.table.expire(now)?;
        let request = self.table.get(id)?;
        if at < request.deadline && !request.is_emitted() {
            return self.expire_waiting(at, id);
        }
        let (key, sent) = (F::key(&request.node), request.since);
        let (was_slow, bound_by_operation) = (request.is_slow(), request.bound_by_operation());
        let expired = self.expire_emitted(at, id)?;
        if !was_slow && matches!(expired, Expired::Soft { .. }) {
            self.active.entry(key).and_modify(|active| active.slow += 1);
        }
        let silence = match expired {
            Expired::Soft { .. } => Silence::Slow,
            Expired::Hard(_) if !bound_by_operation => Silence::TimedOut,
            _ => Silence::None,
        };
        self.share_silence(at, key, sent, silence);
        Some(expired)
    }

    /// The limit that a request has passed whose timer was due at `at`.
    fn expire_emitted(&mut self, at: Instant, id: RequestId) -> Option<Expired> {
        let limits = self.limits_of(self.table.get(id)?.is_named);
        let request = self.table.get_mut(id)?;
        if at >= request.deadline {
            return Some(Expired::Hard(id));
        }
        // When it leaves its stage. Limits may have become shorter since the timer was set.
        let end_of_stage = |request: &PendingRequest<F, P>| {
            let limit = request.limit_of_stage(&limits);
            limit.map_or(request.deadline, |limit| request.since.plus(limit).max(at).min(request.deadline))
        };
        if request.no_soft_limit {
            request.stage = Stage::Slow;
            let deadline = request.deadline;
            self.table.arm(id, deadline);
            return Some(Expired::Soft { request: id, may_repeat: false });
        }
        let expired = match request.stage {
            Stage::Sent => {
                request.stage = Stage::Slow;
                let may_repeat = end_of_stage(request) <= at;
                if may_repeat {
                    request.stage = Stage::Repeatable;
                }
                Expired::Soft { request: id, may_repeat }
            }
            Stage::Slow => {
                request.stage = Stage::Repeatable;
                Expired::Repeat(id)
            }
            // The patience may have become longer since the timer was set: then it goes on.
            Stage::Repeatable if end_of_stage(request) > at => Expired::Repeat(id),
            Stage::Silent | Stage::Listening => Expired::GivenUp(id),
            _ => {
                request.stage = Stage::Silent;
                if request.is_hedge {
                    self.rtt.record_repeat(false);
                } else {
                    self.rtt.record_outcome(false);
                }
                let may_retry = !limits.is_capped && self.rtt.repeats_are_answered();
                Expired::Silent { request: id, is_capped: limits.is_capped, may_retry }
            }
        };
        let is_hopeless = request.line.is_some_and(|line| line.told == Silence::TimedOut);
        let (key, timer) = (F::key(&request.node), end_of_stage(request));
        self.table.arm(id, timer);
        match expired {
            Expired::Silent { .. } => {
                self.give_back_place(id);
                if is_hopeless {
                    self.table.arm(id, at);
                }
            }
            Expired::GivenUp(_) => self.tell(key, id, Silence::GivenUp),
            _ => {}
        }
        Some(expired)
    }

    /// A request in flight gives back its places, in total and at its node, and is only listened to from now on. Returns `false`, and
    /// does nothing, if there is no room for one more such.
    fn give_back_place(&mut self, id: RequestId) -> bool {
        let has_room = self.stats.listening < self.config.max_listening as u64;
        let Some(request) = self.table.get_mut(id).filter(|_| has_room) else { return false };
        request.stage = Stage::Listening;
        let key = F::key(&request.node);
        self.stats.listening += 1;
        self.active.entry(key).and_modify(|active| active.awaited -= 1);
        self.free_watched(key);
        self.mark_ready(key);
        true
    }

    /// A request of a sender that judges nothing by haste, which is sent now, is to expire softly all the same: so the sender can
    /// do something else meanwhile.
    pub(crate) fn limit_softly(&mut self, now: Instant, id: RequestId) {
        let soft = now.plus(self.rtt.limits().soft);
        if self.soft_limits && self.table.get(id).is_some_and(|request| soft < request.deadline) {
            self.table.arm(id, soft);
        }
    }

    /// Goes on listening for the answer to such a request, without a place in flight. Returns `false`, and does nothing,
    /// if there is no room for one more.
    pub(crate) fn listen(&mut self, id: RequestId) -> bool {
        self.table.get(id).is_some_and(|request| request.stage == Stage::Slow) && self.give_back_place(id)
    }

    /// Goes on listening for the answer to a request that is past its soft limit, for another owner, and without a place
    /// in flight. Returns `false`, and does nothing, if it is not, or if there is no room for one more.
    pub(crate) fn listen_on(
        &mut self,
        from: &mut RequestList,
        to: &mut RequestList,
        id: RequestId,
        purpose: P,
    ) -> bool {
        let Some(request) = self.table.get(id).filter(|request| request.is_slow()) else { return false };
        let (stage, is_hedge) = (request.stage, request.is_hedge);
        if stage != Stage::Listening {
            if !self.give_back_place(id) {
                return false;
            }
            if stage != Stage::Silent && !is_hedge {
                self.rtt.record_outcome(false);
            }
        }
        let Some(request) = self.table.get_mut(id) else { return false };
        request.purpose = purpose;
        let (key, line, deadline) = (F::key(&request.node), request.line.take(), request.deadline);
        self.leave_line(key, id, line);
        self.table.transfer(from, to, id);
        self.table.arm(id, deadline);
        true
    }

    /// Of the requests of this owner that pass the test, the one submitted last.
    pub(crate) fn find(
        &self,
        owned: RequestList,
        test: impl Fn(&PendingRequest<F, P>) -> bool,
    ) -> Option<RequestId> {
        self.table.owned_by(owned).find(|(_, request)| test(request)).map(|(id, _)| id)
    }

    /// The number of requests in flight to the nodes with this key, of all owners.
    pub(crate) fn in_flight_to(&self, key: &F::Key) -> usize {
        self.active.get(key).map_or(0, |active| active.requests)
    }

    /// Of the requests that wait for the nodes with this key, the first that passes the test, in order of deadline and
    /// arrival.
    pub(crate) fn find_waiting(
        &self,
        key: F::Key,
        test: impl Fn(&PendingRequest<F, P>) -> bool,
    ) -> Option<RequestId> {
        if self.waiting.is_empty() {
            return None;
        }
        let waiting = self.waiting.range((key, FIRST)..).take_while(|(of, _)| *of == key);
        waiting.map(|(_, (_, id))| *id).find(|id| self.table.get(*id).is_some_and(&test))
    }

    /// The requests of this owner that are in flight.
    pub(crate) fn in_flight(&self, owned: RequestList) -> impl Iterator<Item = (RequestId, &P)> {
        let emitted = self.table.owned_by(owned).filter(|(_, request)| request.is_emitted());
        emitted.map(|(id, request)| (id, &request.purpose))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.table.next_timeout()
    }

    /// The number of requests that may be sent before the total limit is reached.
    fn free_capacity(&self) -> usize {
        let in_flight = self.stats.in_flight - self.stats.listening;
        let in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX);
        self.config.max_in_flight.saturating_sub(in_flight)
    }

    /// The first request that waits for this node.
    fn first_waiting(&self, key: F::Key) -> Option<PlaceInLine> {
        let (of, place) = self.waiting.range((key, FIRST)..).next()?;
        (*of == key).then_some(*place)
    }

    /// Marks the first request that waits for a node as ready, if the node has free capacity.
    fn mark_ready(&mut self, key: F::Key) {
        if !self.waiting.is_empty()
            && self.node_has_capacity(key)
            && let Some((_, first)) = self.first_waiting(key)
            && let Some(request) = self.table.get(first)
        {
            self.ready.set(first.handle().slot(), (request.deadline, first));
        }
    }

    /// Counts one request fewer in flight to this node, which was answered at `heard`, and drops the state of the node if there is
    /// none left.
    fn decrement_active(&mut self, key: F::Key, ended: &PendingRequest<F, P>, heard: Option<Instant>) {
        self.free_watched(key);
        if let MapEntry::Occupied(mut active) = self.active.entry(key) {
            let state = active.get_mut();
            state.requests -= 1;
            state.awaited -= usize::from(!ended.is_listened_to());
            state.slow -= usize::from(ended.is_slow());
            state.heard = heard.unwrap_or(state.heard);
            if state.requests == 0 {
                active.remove();
            }
        }
    }

    /// A node may have free capacity again: if a blocked operation waits for that, it is looked at.
    fn free_watched(&mut self, key: F::Key) {
        if self.watched_nodes.contains(&key) {
            self.freed_nodes.insert(key);
        }
    }

    /// The number of nodes with requests in flight.
    pub(crate) fn tracked_nodes(&self) -> usize {
        self.active.len()
    }
}

/// The number by which an answer, or its absence, is attributed: that of the node's group, or of its key.
#[inline]
pub(crate) fn answerer<F: Family>(node: &F::Node) -> u64 {
    F::group(node).map_or_else(|| F::key(node).leading(), |group| group.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::family::Plain;
    use crate::{Key8, Secret};

    /// Requests in flight are waited for as long as it is known by now that answers take.
    #[test]
    fn a_patience_that_grows_holds_for_what_is_in_flight() {
        let at = Instant::from_millis;
        let observe = |queue: &mut RequestQueue<Plain, ()>, millis, nodes: core::ops::Range<u8>| {
            nodes.for_each(|node| queue.observe(Duration::from_millis(millis), &Key8::new([node])));
        };
        for grows in [false, true] {
            let config = NetworkConfig::default();
            let mut queue = RequestQueue::<Plain, ()>::new(config, &Secret::from_seed(0).seeds()).unwrap();
            observe(&mut queue, 20, 0..60);
            let to = Recipient {
                node: Key8::new([255]),
                attempt: Attempt::First,
                no_soft_limit: false,
                is_named: false,
                arrival: 0,
            };
            let mut owned = RequestList::EMPTY;
            queue.submit(at(0), &mut owned, at(60_000), to, ()).unwrap();
            let mut silent_at = None;
            for millis in 1..2_000 {
                if grows && millis == 200 {
                    observe(&mut queue, 900, 60..120);
                }
                while let Some(expired) = queue.expire(at(millis)) {
                    silent_at = matches!(expired, Expired::Silent { .. }).then_some(millis).or(silent_at);
                }
            }
            let silent_at = silent_at.unwrap();
            assert_eq!(silent_at > 900, grows, "silent at {silent_at} ms");
            assert!(grows || silent_at <= 251, "silent at {silent_at} ms");
        }
    }

    /// A first contact may take several round trips: those whom answers name have a patience that fits them.
    #[test]
    fn whom_answers_name_is_waited_for_as_long_as_such_nodes_take() {
        let at = Instant::from_millis;
        let silent_at = |is_named, named: u8, millis: u64| {
            let config = NetworkConfig::default();
            let mut queue = RequestQueue::<Plain, ()>::new(config, &Secret::from_seed(0).seeds()).unwrap();
            let mut owned = RequestList::EMPTY;
            let mut submit = |queue: &mut RequestQueue<Plain, ()>, node, is_named| {
                let node = Key8::new([node]);
                let to =
                    Recipient { node, attempt: Attempt::First, no_soft_limit: false, is_named, arrival: 0 };
                let Submitted::Sent(id, _) = queue.submit(at(0), &mut owned, at(60_000), to, ()).unwrap()
                else {
                    panic!("there is room")
                };
                id
            };
            (0..100).for_each(|node| queue.observe(Duration::from_millis(20), &Key8::new([node])));
            let ids: Vec<_> = (100..100 + named).map(|node| submit(&mut queue, node, true)).collect();
            submit(&mut queue, 255, is_named);
            for id in ids {
                queue.close(&mut owned, id, at(millis), Ending::Answered);
            }
            let mut silent_at = None;
            for now in millis + 1..2_000 {
                while let Some(expired) = queue.expire(at(now)) {
                    silent_at = matches!(expired, Expired::Silent { .. }).then_some(now).or(silent_at);
                }
            }
            silent_at.unwrap_or(2_000)
        };
        assert!(silent_at(false, 0, 0) <= 251, "one that was known before");
        assert_eq!(silent_at(true, 0, 0), 2_000, "nothing is known of the named");
        assert!(silent_at(true, 40, 20) <= 251, "they are as quick");
        let known = silent_at(false, 40, 400);
        let of_dialed = silent_at(true, 40, 400);
        assert!((401..500).contains(&of_dialed) && known <= of_dialed, "{known} {of_dialed}");
    }

    /// Whether one more request than is configured is worth while is known from those that repeated another.
    #[test]
    fn a_third_request_is_worth_while_where_repeated_ones_are_answered() {
        let at = Instant::from_millis;
        for (last_is_answered, max_patience, is_worth_while) in
            [(true, None, true), (false, None, false), (true, Some(Duration::from_millis(100)), false)]
        {
            let config = NetworkConfig { max_patience, ..NetworkConfig::default() };
            let mut queue = RequestQueue::<Plain, ()>::new(config, &Secret::from_seed(0).seeds()).unwrap();
            (0..60).for_each(|node| queue.observe(Duration::from_millis(20), &Key8::new([node])));
            let mut owned = RequestList::EMPTY;
            let submit = |queue: &mut RequestQueue<Plain, ()>, owned: &mut RequestList, millis, is_hedge| {
                let to = Recipient {
                    node: Key8::new([255]),
                    attempt: if is_hedge { Attempt::Hedge } else { Attempt::First },
                    no_soft_limit: false,
                    is_named: false,
                    arrival: 0,
                };
                let submitted = queue.submit(at(millis), owned, at(millis + 60_000), to, ()).unwrap();
                let Submitted::Sent(id, _) = submitted else { panic!("there is room") };
                id
            };
            // Whether it is worth while, as is said when the request is silent.
            let silent = |queue: &mut RequestQueue<Plain, ()>, millis| {
                let mut said = None;
                while let Some(expired) = queue.expire(at(millis + 1_900)) {
                    if let Expired::Silent { may_retry, .. } = expired {
                        said = Some(may_retry);
                    }
                }
                said
            };
            for number in 0..17 {
                let id = submit(&mut queue, &mut owned, number * 10_000, true);
                let is_answered = number < 16 || last_is_answered;
                let ending = if is_answered { Ending::Answered } else { Ending::TimedOut };
                if !is_answered {
                    assert_eq!(silent(&mut queue, number * 10_000), Some(false));
                }
                queue.close(&mut owned, id, at(number * 10_000 + 20), ending);
            }
            submit(&mut queue, &mut owned, 200_000, false);
            let what = format!("{last_is_answered} {max_patience:?}");
            assert_eq!(silent(&mut queue, 200_000), Some(is_worth_while), "{what}");
        }
    }
    /// To this node, by the operation that arrived so.
    fn recipient(node: u8, arrival: u32, attempt: Attempt) -> Recipient<Plain> {
        Recipient { node: Key8::new([node]), attempt, no_soft_limit: false, is_named: false, arrival }
    }

    #[test]
    fn those_in_line_are_served_in_order_of_deadline_then_of_the_arrival_of_their_operations() {
        let at = Instant::from_millis;
        let config = NetworkConfig { max_per_node: 1, ..NetworkConfig::default() };
        let mut queue = RequestQueue::<Plain, u8>::new(config, &Secret::from_seed(0).seeds()).unwrap();
        let mut owned = RequestList::EMPTY;
        // The purpose is the place in which it is to be sent.
        for (place, until, arrival, attempt) in [
            (0, 60_000, 9, Attempt::First),
            (4, 60_000, 3, Attempt::Hedge),
            (5, 60_000, 1, Attempt::Again),
            (3, 60_000, 7, Attempt::First),
            (2, 60_000, 5, Attempt::First),
            (1, 50_000, 8, Attempt::Again),
        ] {
            queue.submit(at(0), &mut owned, at(until), recipient(1, arrival, attempt), place).unwrap();
        }
        let mut sent = queue.find(owned, |request| request.purpose == 0).unwrap();
        for place in 1..=5 {
            assert!(queue.next_turn().is_none(), "one at a time");
            queue.close(&mut owned, sent, at(10), Ending::Answered);
            let next = queue.next_turn();
            sent = queue.release(at(10)).unwrap().0;
            assert_eq!((next, queue.get(sent).unwrap().purpose), (Some(sent), place));
        }
    }

    /// What waits for its turn among all requests keeps its slot: nobody could be asked instead.
    #[test]
    fn what_waits_for_a_sixteenth_of_its_time_stands_in_line_if_its_node_is_busy() {
        let at = Instant::from_millis;
        // Whether the node is busy when the request comes, and still so then.
        for (max_in_flight, node, busy_until, told_so) in [
            (10, 1, 2_000, Some(true)),
            (1, 1, 2_000, Some(true)),
            (10, 1, 500, Some(false)),
            (1, 2, 2_000, None),
        ] {
            let config = NetworkConfig { max_per_node: 1, max_in_flight, ..NetworkConfig::default() };
            let mut queue = RequestQueue::<Plain, ()>::new(config, &Secret::from_seed(0).seeds()).unwrap();
            let mut owned = RequestList::EMPTY;
            let submit = |queue: &mut RequestQueue<Plain, ()>, owned: &mut RequestList, node| {
                queue.submit(at(0), owned, at(16_000), recipient(node, 0, Attempt::First), ()).unwrap()
            };
            let Submitted::Sent(sent, _) = submit(&mut queue, &mut owned, 1) else { panic!("there is room") };
            let Submitted::Queued(waiting) = submit(&mut queue, &mut owned, node) else {
                panic!("there is no room")
            };
            let mut told = Vec::new();
            for millis in 1..=1_000 {
                if millis == busy_until {
                    queue.close(&mut owned, sent, at(millis), Ending::Answered);
                }
                while let Some(expired) = queue.expire(at(millis)) {
                    if let Expired::InLine { request, stands } = expired {
                        told.push((request, millis, stands));
                    }
                }
            }
            let expected: Vec<_> = told_so.map(|stands| (waiting, 1_000, stands)).into_iter().collect();
            assert_eq!(told, expected, "of {max_in_flight}, to {node}, busy until {busy_until}");
        }
    }
}
