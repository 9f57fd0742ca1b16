//! Probe: nodes of the routing table are checked when they have not been heard of for a while.

use crate::check::Checks;
use crate::context::{self, Cause, Context};
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::event::{Asks, Cancel, Owner, Request};
use crate::family::Family;
use crate::heap::Heap;
use crate::id::RequestId;
use crate::inflight::Due;
use crate::key::Key;
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{Ending, NetworkConfig, Outbox, Seeded, Traffic};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use core::cmp::Reverse;
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use slab::Slab;
use std::collections::HashMap;

/// When nodes are checked.
///
/// Memory: a node id and some 70 bytes for each node that the caller (or the routing table) has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ProbeConfig {
    /// How long after a node was last known to live it is checked. Default: 15 min.
    pub interval: Duration,
    /// How long after a check that failed the next one follows. Default: 10 s.
    pub retry_interval: Duration,
    /// How many checks may be under way. 1 to 1,024. Default: 3.
    pub max_in_flight: usize,
    /// How long a check may take, its wait for the network's capacity included; what is sent has the network's request
    /// time-out at most. Default: 10 s.
    pub timeout: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15 * 60),
            retry_interval: Duration::from_secs(10),
            max_in_flight: 3,
            timeout: Duration::from_secs(10),
        }
    }
}

impl ProbeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.interval.is_zero(), "probe.interval", "longer than zero")?;
        require(!self.retry_interval.is_zero(), "probe.retry_interval", "longer than zero")?;
        require((1..=1_024).contains(&self.max_in_flight), "probe.max_in_flight", "1 to 1,024")?;
        require(!self.timeout.is_zero(), "probe.timeout", "longer than zero")
    }
}

/// What became of checks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeCounts {
    /// Nodes in the list.
    pub nodes: u64,
    /// Checks under way.
    pub in_flight: u64,
    /// Checks that were answered.
    pub passed: u64,
    /// Checks that failed or timed out.
    pub failed: u64,
}

/// The list of nodes to check, and when.
#[derive(Clone, Debug)]
pub(crate) struct Prober<F: Family> {
    local: F::Key,
    checks: Checks,
    interval: Duration,
    retry_interval: Duration,
    nodes: Slab<Listed<F>>,
    /// By slot, those that are not under check; where several are due at once the nearest bucket comes first.
    due: Heap<(Instant, Reverse<u32>)>,
    /// Never iterated.
    slots: HashMap<F::Key, u32, Seeded>,
    counts: ProbeCounts,
}

#[derive(Clone, Debug)]
struct Listed<F: Family> {
    node: F::Node,
    /// Its check, if one is under way.
    check: Option<RequestId>,
    /// Its last check failed.
    failed: bool,
    /// The span that its next check links to, where there is one.
    origin: Option<Box<SpanContext>>,
}

impl<F: Family> Listed<F> {
    fn origin(&self) -> SpanContext {
        self.origin.as_deref().cloned().unwrap_or(SpanContext::NONE)
    }
}

/// A check that ended.
pub(crate) struct Probed<F: Family> {
    pub(crate) node: F::Node,
    pub(crate) round_trip: Duration,
    pub(crate) origin: SpanContext,
    /// Its request was sent: what became of it says something about the node.
    pub(crate) sent: bool,
}

impl<F: Family> Prober<F> {
    pub(crate) fn new(local: F::Key, config: &ProbeConfig, hash_seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            local,
            checks: Checks::new(Owner::Probe, config.timeout, config.max_in_flight),
            interval: config.interval,
            retry_interval: config.retry_interval,
            nodes: Slab::new(),
            due: Heap::new(),
            slots: HashMap::with_hasher(Seeded(hash_seed)),
            counts: ProbeCounts::default(),
        })
    }

    pub(crate) fn counts(&self) -> ProbeCounts {
        let (nodes, in_flight) = (self.nodes.len() as u64, self.checks.under_way() as u64);
        ProbeCounts { nodes, in_flight, ..self.counts }
    }

    fn listed(&mut self, node: &F::Node) -> Option<(u32, &mut Listed<F>)> {
        let slot = *self.slots.get(&F::key(node))?;
        let listed = self.nodes.get_mut(slot as usize).filter(|listed| listed.node == *node)?;
        Some((slot, listed))
    }

    pub(crate) fn contains(&self, node: &F::Node) -> bool {
        let slot = self.slots.get(&F::key(node));
        slot.and_then(|slot| self.nodes.get(*slot as usize)).is_some_and(|listed| listed.node == *node)
    }

    fn set(&mut self, slot: u32, key: F::Key, at: Instant) {
        self.due.set(slot, (at, Reverse(self.local.common_prefix_len(&key))));
    }

    /// Takes a node into the list that is known to live now. It takes the place of another with the same key.
    pub(crate) fn add_alive<E: Asks<F>>(&mut self, turn: &mut Turn<'_, F, E>, node: &F::Node) {
        if self.contains(node) {
            return;
        }
        let key = F::key(node);
        if let Some(other) = self.slots.get(&key).and_then(|slot| self.nodes.get(*slot as usize)) {
            let other = other.node.clone();
            self.remove(turn, &other);
        }
        self.insert(node, turn.now);
    }

    /// Takes a node into the list whose key is not in it, and that was known to live at `seen`.
    pub(crate) fn insert(&mut self, node: &F::Node, seen: Instant) {
        let (key, first) = (F::key(node), seen + self.interval);
        let listed = Listed { node: node.clone(), check: None, failed: false, origin: None };
        #[allow(clippy::cast_possible_truncation)] // 2^32 nodes do not fit into memory
        let slot = self.nodes.insert(listed) as u32;
        self.slots.insert(key, slot);
        self.set(slot, key, first);
    }

    /// Takes a node out; a check of it is given up.
    pub(crate) fn remove<E: Asks<F>>(&mut self, turn: &mut Turn<'_, F, E>, node: &F::Node) {
        let Some((slot, listed)) = self.listed(node) else { return };
        let (check, origin) = (listed.check, listed.origin());
        if let Some(id) = check {
            self.checks.end(turn, id, Ending::Cancelled, &origin);
        }
        self.due.clear(slot);
        self.slots.remove(&F::key(node));
        self.nodes.try_remove(slot as usize);
    }

    /// A node is known to live: its next check can wait.
    pub(crate) fn alive(&mut self, now: Instant, node: &F::Node) {
        let at = now + self.interval;
        if let Some((slot, listed)) = self.listed(node) {
            listed.failed = false;
            if listed.check.is_none() {
                listed.origin = None;
                self.set(slot, F::key(node), at);
            }
        }
    }

    /// A node may be dead: its check is due now, unless one has failed already, which the next will follow in its time.
    pub(crate) fn suspect(&mut self, now: Instant, node: &F::Node, origin: &SpanContext) {
        if let Some((slot, listed)) = self.listed(node)
            && listed.check.is_none()
            && !listed.failed
        {
            listed.origin = origin.is_valid().then(|| Box::new(origin.clone()));
            self.set(slot, F::key(node), now);
        }
    }

    /// Begins as many checks of what is due as may be under way.
    pub(crate) fn advance<E: Asks<F>>(&mut self, turn: &mut Turn<'_, F, E>) {
        self.checks.unblock();
        while self.checks.is_free()
            && let Some(((at, _), slot)) = self.due.peek()
            && at <= turn.now
            && let Some(listed) = self.nodes.get_mut(slot as usize)
        {
            let origin = listed.origin();
            listed.check = self.checks.begin(turn, slot, &listed.node, &origin);
            if listed.check.is_some() {
                self.due.clear(slot);
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
        if let Some(listed) = self.nodes.get(slot as usize) {
            self.checks.send(turn, id, deadline, &listed.origin());
        }
    }

    /// Ends a check, and sets when the next is due.
    pub(crate) fn end<E: Asks<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        id: RequestId,
        ending: Ending,
    ) -> Option<Probed<F>> {
        let listed = self.nodes.get_mut(slot as usize)?;
        let (node, origin) = (listed.node.clone(), listed.origin());
        let request = self.checks.end(turn, id, ending, &origin)?;
        let (passed, sent) = (ending == Ending::Answered, request.is_emitted());
        listed.check = None;
        listed.failed = !passed && sent;
        if passed {
            listed.origin = None;
        }
        self.counts.passed += u64::from(passed);
        self.counts.failed += u64::from(listed.failed);
        let next = turn.now + if passed { self.interval } else { self.retry_interval };
        self.set(slot, F::key(&node), next);
        Some(Probed { node, round_trip: request.age(turn.now), origin, sent })
    }

    /// When the next check is due, if it can begin. What is due at the end of time never is.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let ((at, _), _) = self.due.peek().filter(|_| self.checks.is_free())?;
        (at < Instant::FAR_FUTURE).then_some(at)
    }
}

/// What a [`Probe`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// A node that lives now: check it from time to time. It takes the place of one with the same key.
    Add(F::Node),
    /// Check this node no longer.
    Remove(F::Node),
    /// A node is known to live by other means: its next check can wait.
    Alive(F::Node),
    /// A node seems to be dead: check it now. The stamp holds the span that the check links to.
    Suspect(F::Node),
    /// A request was answered, whatever the answer names.
    Answered(RequestId),
    /// A request failed.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Probe`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A node lives.
    Passed {
        /// The node.
        node: F::Node,
        /// How long it took to answer.
        round_trip: Duration,
    },
    /// A check of a node failed. It stays in the list, and its next check follows soon, unless it is removed: how many
    /// failures are a death is its owner's decision.
    Missed(F::Node),
}

crate::event::says!(Outbound { Request: Request<F>, Cancel: Cancel<F> });

/// Checks that nodes still live: each is asked for the nodes closest to itself when it has not been heard of for
/// [`ProbeConfig::interval`], or seems to be dead. In a [`Coordinator`](crate::Coordinator) its list is the routing table.
#[derive(Clone, Debug)]
pub struct Probe<F: Family> {
    clock: Clock,
    outbox: Outbox<F, Work>,
    prober: Prober<F>,
}

impl<F: Family> Probe<F> {
    /// A machine of the node whose own key is `local`: nodes nearer to it are checked first where several are due.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, probe: &ProbeConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        let prober = Prober::new(local, probe, network.hash_seed)?;
        Ok(Self { clock: Clock::default(), outbox: Outbox::new(network)?, prober })
    }

    /// What became of all checks so far.
    pub fn counts(&self) -> ProbeCounts {
        self.prober.counts()
    }

    /// Whether a node is in the list.
    pub fn contains(&self, node: &F::Node) -> bool {
        self.prober.contains(node)
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.outbox.traffic()
    }
}

/// Ends a check, and says how.
fn end<F: Family>(
    prober: &mut Prober<F>,
    turn: &mut Turn<'_, F, Outbound<F>>,
    id: RequestId,
    ending: Ending,
    cause: Option<&Context>,
) {
    let Some(check) = turn.check(id) else { return };
    if let Some(Probed { node, round_trip, origin, sent }) = prober.end(turn, check.slot, id, ending)
        && sent
    {
        let passed = ending == Ending::Answered;
        let event = if passed { Outbound::Passed { node, round_trip } } else { Outbound::Missed(node) };
        turn.out.push(Stamped { event, context: context::aside(cause, &origin), deadline: None });
    }
}

fn settle<F: Family>(prober: &mut Prober<F>, turn: &mut Turn<'_, F, Outbound<F>>) {
    turn.release(|turn, check, id, deadline| prober.send(turn, check.slot, id, deadline));
    prober.advance(turn);
}

impl<F: Family> Machine for Probe<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { clock, outbox, prober } = self;
        let mut turn = Turn { now: clock.advance(now), cause: Cause::TIME, outbox, out };
        while let Some(due) = turn.outbox.expire(turn.now) {
            if let Due::Hard(id) = due {
                end(prober, &mut turn, id, Ending::TimedOut, None);
            }
        }
        settle(prober, &mut turn);
        let Stamped { event, context, .. } = event;
        match event {
            Inbound::Add(node) => prober.add_alive(&mut turn, &node),
            Inbound::Remove(node) => prober.remove(&mut turn, &node),
            Inbound::Alive(node) => prober.alive(turn.now, &node),
            Inbound::Suspect(node) => prober.suspect(turn.now, &node, context::origin(&context)),
            Inbound::Answered(request) => {
                if turn.outbox.recognise(request).is_some() {
                    end(prober, &mut turn, request, Ending::Answered, Some(&context));
                }
            }
            Inbound::Failed(request) => {
                if turn.outbox.recognise(request).is_some() {
                    end(prober, &mut turn, request, Ending::Failed, Some(&context));
                }
            }
            Inbound::Tick => {}
        }
        settle(prober, &mut turn);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        crate::pool::earlier(self.outbox.next_timeout(), self.prober.next_timeout())
    }
}
