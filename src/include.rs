//! Include: candidates are checked before they enter the routing table.

use crate::check::Checks;
use crate::context::{self, Cause, Context};
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::event::{Asks, Cancel, Owner, Request};
use crate::family::Family;
use crate::id::RequestId;
use crate::inflight::Due;
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{Ending, NetworkConfig, Outbox, Seeded, Traffic};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use slab::Slab;
use std::collections::{HashMap, HashSet, VecDeque};

/// How candidates are checked.
///
/// Memory: at most `max_queued + max_in_flight` candidates, each a node id and a span context; and of at most
/// `max_failed` failed checks a node id, two keys and some 40 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct IncludeConfig {
    /// How many checks may be under way. 1 to 1,024. Default: 3.
    pub max_in_flight: usize,
    /// How many candidates may wait; more are dropped, and counted. 1 to 2^16. Default: 128.
    pub max_queued: usize,
    /// How long a check may take, its wait for the network's capacity included; what is sent has the network's request
    /// time-out at most. Default: 10 s.
    pub timeout: Duration,
    /// How long a node that has failed two checks in a row is not checked again, however often others name it: the dead are
    /// named for long. One failure may be a lost message. Who is heard from itself is checked at once. Default: 5 min.
    pub retry_interval: Duration,
    /// How many failed checks are remembered, the latest. At most 2^20; 0 is none. Default: 1,024.
    pub max_failed: usize,
}

impl Default for IncludeConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 3,
            max_queued: 128,
            timeout: Duration::from_secs(10),
            retry_interval: Duration::from_secs(300),
            max_failed: 1_024,
        }
    }
}

impl IncludeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.max_in_flight), "include.max_in_flight", "1 to 1,024")?;
        require((1..=1 << 16).contains(&self.max_queued), "include.max_queued", "1 to 2^16")?;
        require(!self.timeout.is_zero(), "include.timeout", "longer than zero")?;
        require(!self.retry_interval.is_zero(), "include.retry_interval", "longer than zero")?;
        require(self.max_failed <= 1 << 20, "include.max_failed", "at most 2^20")
    }
}

/// What became of candidates so far. `offered` is the sum of all others but `in_flight` and `queued`, and of those two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncludeCounts {
    /// Candidates offered.
    pub offered: u64,
    /// Dropped because they wait already or are being checked.
    pub duplicate: u64,
    /// Dropped because as many waited as may.
    pub dropped: u64,
    /// Dropped because their last two checks failed, the later one lately.
    pub shunned: u64,
    /// No longer wanted when their turn came.
    pub unwanted: u64,
    /// Answered, and named a node.
    pub passed: u64,
    /// Failed, silent, named nobody, or never sent.
    pub failed: u64,
    /// Being checked.
    pub in_flight: u64,
    /// Waiting.
    pub queued: u64,
}

/// Candidates that wait for a check, and those under check.
#[derive(Clone, Debug)]
pub(crate) struct Vetting<F: Family> {
    checks: Checks,
    max_queued: usize,
    queue: VecDeque<Candidate<F>>,
    under_check: Slab<Candidate<F>>,
    /// Of all of them. Never iterated.
    keys: HashSet<F::Key, Seeded>,
    failures: Failures<F>,
    counts: IncludeCounts,
}

/// Nodes whose last check failed lately.
#[derive(Clone, Debug)]
struct Failures<F: Family> {
    most: usize,
    lasts: Duration,
    /// By key; the one that failed last, where there are several. Never iterated.
    nodes: HashMap<F::Key, Failure<F>, Seeded>,
    /// The latest last. Some may have been taken out of `nodes` since.
    order: VecDeque<(F::Key, Instant)>,
}

#[derive(Clone, Debug)]
struct Failure<F: Family> {
    node: F::Node,
    /// When it failed last.
    at: Instant,
    /// And the time before.
    again: bool,
}

impl<F: Family> Failures<F> {
    fn get(&self, now: Instant, node: &F::Node) -> Option<&Failure<F>> {
        if self.nodes.is_empty() {
            return None;
        }
        self.nodes.get(&F::key(node)).filter(|known| known.node == *node && now < known.at + self.lasts)
    }

    fn forget(&mut self, node: &F::Node) {
        if !self.nodes.is_empty() && self.nodes.get(&F::key(node)).is_some_and(|known| known.node == *node) {
            self.nodes.remove(&F::key(node));
        }
    }

    fn insert(&mut self, now: Instant, node: F::Node) {
        if self.most == 0 {
            return;
        }
        let key = F::key(&node);
        let again = self.nodes.get(&key).is_some_and(|known| known.node == node);
        if self.order.len() == self.most
            && let Some((oldest, at)) = self.order.pop_front()
            && self.nodes.get(&oldest).is_some_and(|known| known.at == at)
        {
            self.nodes.remove(&oldest);
        }
        self.nodes.insert(key, Failure { node, at: now, again });
        self.order.push_back((key, now));
    }
}

/// A candidate, with the span that its check links to.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<F: Family> {
    pub(crate) node: F::Node,
    pub(crate) origin: SpanContext,
}

impl<F: Family> Vetting<F> {
    pub(crate) fn new(config: &IncludeConfig, hash_seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            checks: Checks::new(Owner::Include, config.timeout, config.max_in_flight),
            max_queued: config.max_queued,
            queue: VecDeque::new(),
            under_check: Slab::new(),
            keys: HashSet::with_hasher(Seeded(hash_seed)),
            failures: Failures {
                most: config.max_failed,
                lasts: config.retry_interval,
                nodes: HashMap::with_hasher(Seeded(hash_seed)),
                order: VecDeque::new(),
            },
            counts: IncludeCounts::default(),
        })
    }

    pub(crate) fn counts(&self) -> IncludeCounts {
        IncludeCounts {
            in_flight: self.checks.under_way() as u64,
            queued: self.queue.len() as u64,
            ..self.counts
        }
    }

    /// How many more candidates can wait.
    pub(crate) fn room(&self) -> usize {
        self.max_queued - self.queue.len()
    }

    /// A node was heard from itself: what came of its checks is forgotten.
    pub(crate) fn heard(&mut self, node: &F::Node) {
        self.failures.forget(node);
    }

    /// Takes a candidate, unless it is known, has failed lately, or there is no room.
    pub(crate) fn offer(&mut self, now: Instant, node: &F::Node, origin: &SpanContext) {
        self.counts.offered += 1;
        if self.failures.get(now, node).is_some_and(|failure| failure.again) {
            self.counts.shunned += 1;
        } else if self.keys.contains(&F::key(node)) {
            self.counts.duplicate += 1;
        } else if self.room() == 0 {
            self.counts.dropped += 1;
        } else {
            self.keys.insert(F::key(node));
            self.queue.push_back(Candidate { node: node.clone(), origin: origin.clone() });
        }
    }

    /// Begins as many checks as may be under way.
    pub(crate) fn advance<E: Asks<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        wanted: impl Fn(&F::Node) -> bool,
    ) {
        self.checks.unblock();
        while self.checks.is_free()
            && let Some(candidate) = self.queue.pop_front()
        {
            if !wanted(&candidate.node) {
                self.counts.unwanted += 1;
                self.keys.remove(&F::key(&candidate.node));
                continue;
            }
            #[allow(clippy::cast_possible_truncation)] // at most 1,024
            let slot = self.under_check.vacant_key() as u32;
            if self.checks.begin(turn, slot, &candidate.node, &candidate.origin).is_some() {
                self.under_check.insert(candidate);
            } else {
                self.queue.push_front(candidate);
            }
        }
    }

    /// Emits the request of a check that waited for capacity.
    pub(crate) fn send<E: Asks<F>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        id: RequestId,
        deadline: Instant,
    ) {
        if let Some(candidate) = self.under_check.get(slot as usize) {
            self.checks.send(turn, id, deadline, &candidate.origin);
        }
    }

    /// Ends a check. `passed`: it was answered, and the answer names somebody. Gives back the candidate and its round
    /// trip.
    pub(crate) fn end<E: Asks<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        id: RequestId,
        ending: Ending,
        passed: bool,
    ) -> Option<(Candidate<F>, Duration)> {
        let candidate = self.under_check.try_remove(slot as usize)?;
        self.keys.remove(&F::key(&candidate.node));
        *(if passed { &mut self.counts.passed } else { &mut self.counts.failed }) += 1;
        let request = self.checks.end(turn, id, ending, &candidate.origin)?;
        if passed {
            self.failures.forget(&candidate.node);
        } else if request.is_emitted() {
            self.failures.insert(turn.now, candidate.node.clone());
        }
        Some((candidate, request.age(turn.now)))
    }
}

/// What an [`Include`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Somebody names this node: check it, unless it [has failed lately](IncludeConfig::retry_interval). The stamp holds the
    /// span that the check links to.
    Offer(F::Node),
    /// The node itself was heard from: check it, whatever came of its last checks. Stamped like an offer.
    Heard(F::Node),
    /// A request was answered.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// A request failed.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What an [`Include`] says: of each candidate that it did not drop, in the end, whether it passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// The node answered and named a node: it may enter a routing table.
    Passed {
        /// The node.
        node: F::Node,
        /// How long it took to answer.
        round_trip: Duration,
    },
    /// The node failed, was silent past its time-out, or named nobody.
    Rejected(F::Node),
}

crate::event::says!(Outbound { Request: Request<F>, Cancel: Cancel<F> });

/// Checks candidates before they enter a routing table: each is asked for the nodes closest to itself, and passes if it
/// names at least one. What merely claims to exist, or lives but serves nobody, stays out.
///
/// One that has failed twice in a row is not checked again for a while, unless it is heard from itself: those that have died
/// are named by others for long.
///
/// Each candidate is of its own: it has the link of its own offer, and a time-out that frees its place whatever happens.
/// In a [`Coordinator`](crate::Coordinator), nodes that answers name are offered by themselves.
#[derive(Clone, Debug)]
pub struct Include<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    vetting: Vetting<F>,
}

impl<F: Family> Include<F> {
    /// A machine that checks within these limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(include: &IncludeConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        let vetting = Vetting::new(include, network.hash_seed)?;
        Ok(Self { clock: Clock::default(), outbox: Outbox::new(network)?, vetting })
    }

    /// What became of all candidates so far.
    pub fn counts(&self) -> IncludeCounts {
        self.vetting.counts()
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }
}

/// Ends a check, and says whether the node passed.
fn end<F: Family>(
    vetting: &mut Vetting<F>,
    turn: &mut Turn<'_, F, Outbound<F>>,
    id: RequestId,
    ending: Ending,
    passed: bool,
    cause: Option<&Context>,
) {
    let Some(check) = turn.check(id) else { return };
    if let Some((Candidate { node, origin }, round_trip)) = vetting.end(turn, check.slot, id, ending, passed)
    {
        let event = if passed { Outbound::Passed { node, round_trip } } else { Outbound::Rejected(node) };
        turn.out.push(Stamped { event, context: context::aside(cause, &origin), deadline: None });
    }
}

impl<F: Family> Machine for Include<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, vetting } = self;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        while let Some(due) = turn.outbox.expire(turn.now) {
            if let Due::Hard(id) = due {
                end(vetting, &mut turn, id, Ending::TimedOut, false, None);
            }
        }
        settle(vetting, &mut turn);
        let Stamped { event, context, .. } = event;
        match event {
            Inbound::Offer(node) => vetting.offer(turn.now, &node, context::origin(&context)),
            Inbound::Heard(node) => {
                vetting.heard(&node);
                vetting.offer(turn.now, &node, context::origin(&context));
            }
            Inbound::Answered { request, closer } => {
                if turn.outbox.recognise(request).is_some() {
                    let passed = !closer.is_empty();
                    end(vetting, &mut turn, request, Ending::Answered, passed, Some(&context));
                }
            }
            Inbound::Failed(request) => {
                if turn.outbox.recognise(request).is_some() {
                    end(vetting, &mut turn, request, Ending::Failed, false, Some(&context));
                }
            }
            Inbound::Tick => {}
        }
        settle(vetting, &mut turn);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.outbox.next_timeout()
    }
}

fn settle<F: Family>(vetting: &mut Vetting<F>, turn: &mut Turn<'_, F, Outbound<F>>) {
    turn.release(|turn, check, id, deadline| vetting.send(turn, check.slot, id, deadline));
    vetting.advance(turn, |_| true);
}
