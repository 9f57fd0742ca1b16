//! [`ProbeList`]: the nodes of the routing table, and when each is due to be checked.

use crate::collections::indexed_heap::IndexedHeap;
use crate::collections::seeded_hash::SeededHash;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::ReleasedCheck;
use crate::requests::request_queue::Ending;
use crate::routing::liveness_check::LivenessChecks;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::cmp::Reverse;
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use slab::Slab;
use std::collections::HashMap;

/// When nodes are checked.
///
/// Memory: a node id and some 70 bytes for each node in the list (in a coordinator: in the routing table).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ProbeConfig {
    /// The time from when a node was last known to be live to its check. Longer than zero. Default: 15 min.
    pub interval: Duration,
    /// The time from a failed check to the next one. It doubles, up to `interval`, with each further one while it is not
    /// clear whether [this node is cut off](crate::routing). Longer than zero. Default: 10 s.
    pub retry_interval: Duration,
    /// The maximum number of checks in flight. 1 to 1,024. Default: 3.
    pub max_in_flight: usize,
    /// The maximum duration of a check, including its wait for capacity. Once sent, its request has at most
    /// the network's request time-out. Longer than zero. Default: 10 s.
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
    /// For a node that is to be quiet: a node of the table is checked 4 h after it was last known to be live. One that
    /// dies stays in the table for up to 4 h, unless a lookup asks it before: see
    /// [`routing`](crate::routing#a-node-at-rest).
    pub fn quiet() -> Self {
        Self { interval: Duration::from_secs(4 * 3_600), ..Self::default() }
    }

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

/// How many checks follow on each other when all nodes are checked after an outage: one in this time.
const PACE: Duration = Duration::from_millis(50);
/// Who was heard from within this time is not checked because of an outage.
const FRESH: Duration = Duration::from_secs(60);

/// The number of nodes in the list, and of their checks so far, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeCounts {
    /// Nodes in the list.
    pub nodes: u64,
    /// Checks in flight.
    pub in_flight: u64,
    /// Checks that were answered.
    pub passed: u64,
    /// Checks that failed or timed out.
    pub failed: u64,
}

/// The nodes to check, and when.
#[derive(Clone, Debug)]
pub(crate) struct ProbeList<F: Family> {
    local: F::Key,
    checks: LivenessChecks<F>,
    interval: Duration,
    retry_interval: Duration,
    nodes: Slab<ProbeEntry<F>>,
    /// By slot, the nodes with no check in flight: when, and the cpl of the bucket. Of those due at once, the
    /// nearest bucket comes first.
    due: IndexedHeap<(Instant, Reverse<u32>)>,
    /// Never iterated.
    slots: HashMap<F::Key, u32, SeededHash>,
    counts: ProbeCounts,
}

#[derive(Clone, Debug)]
struct ProbeEntry<F: Family> {
    node: F::Node,
    /// Its check, if one is in flight.
    check: Option<RequestId>,
    /// Its last check failed, so the next one is due after the retry interval and not earlier.
    last_failed: bool,
    /// It was heard from while its check was in flight: the result of that says nothing.
    heard: bool,
    /// How many checks in a row have failed without counting against it.
    held: u8,
    /// The span that its next check links to, if there is one.
    link: Option<Box<SpanContext>>,
}

impl<F: Family> ProbeEntry<F> {
    fn link(&self) -> SpanContext {
        self.link.as_deref().cloned().unwrap_or(SpanContext::NONE)
    }
}

/// A check that ended.
pub(crate) struct Probed<F: Family> {
    pub(crate) node: F::Node,
    /// The time from request to answer, and the round trip if that measures one.
    pub(crate) elapsed: Duration,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) link: SpanContext,
    /// Its request was sent and not answered, and nothing was heard from it meanwhile.
    pub(crate) silent: bool,
    /// When it was sent.
    pub(crate) sent_at: Instant,
    /// When the check before this one ended, if that failed.
    pub(crate) since: Instant,
}

impl<F: Family> ProbeList<F> {
    pub(crate) fn new(local: F::Target, config: &ProbeConfig, hash: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            local: local.key(),
            checks: LivenessChecks::new(Initiator::Probe, local, config.timeout, config.max_in_flight),
            interval: config.interval,
            retry_interval: config.retry_interval,
            nodes: Slab::new(),
            due: IndexedHeap::new(),
            slots: HashMap::with_hasher(SeededHash(hash)),
            counts: ProbeCounts::default(),
        })
    }

    pub(crate) fn counts(&self) -> ProbeCounts {
        let (nodes, in_flight) = (self.nodes.len() as u64, self.checks.in_flight() as u64);
        ProbeCounts { nodes, in_flight, ..self.counts }
    }

    fn entry_mut(&mut self, node: &F::Node) -> Option<(u32, &mut ProbeEntry<F>)> {
        let slot = *self.slots.get(&F::key(node))?;
        let entry = self.nodes.get_mut(slot as usize).filter(|entry| entry.node == *node)?;
        Some((slot, entry))
    }

    pub(crate) fn contains(&self, node: &F::Node) -> bool {
        let slot = self.slots.get(&F::key(node));
        slot.and_then(|slot| self.nodes.get(*slot as usize)).is_some_and(|entry| entry.node == *node)
    }

    /// What is known of a node has changed.
    pub(crate) fn set_node(&mut self, node: &F::Node) {
        if let Some((_, entry)) = self.entry_mut(node) {
            entry.node = node.clone();
        }
    }

    /// This node has another id, by whose key the checks that are due at once are ordered.
    pub(crate) fn set_own_target(&mut self, target: F::Target) {
        self.local = target.key();
        self.checks.set_own_target(target);
        let due: Vec<_> = self.nodes.iter().map(|(slot, entry)| (slot, F::key(&entry.node))).collect();
        for (slot, key) in due {
            #[allow(clippy::cast_possible_truncation)] // as in `insert`
            let slot = slot as u32;
            if let Some((at, _)) = self.due.get(slot) {
                self.schedule(slot, key, at);
            }
        }
    }

    fn schedule(&mut self, slot: u32, key: F::Key, at: Instant) {
        self.due.set(slot, (at, Reverse(self.local.common_prefix_len(&key))));
    }

    /// Adds a node that is known to be live now. It replaces another node with the same key.
    pub(crate) fn add<E: EmitsRequests<F>>(&mut self, call: &mut CallContext<'_, F, E>, node: &F::Node) {
        if self.contains(node) {
            self.set_node(node);
            return;
        }
        let key = F::key(node);
        if let Some(other) = self.slots.get(&key).and_then(|slot| self.nodes.get(*slot as usize)) {
            let other = other.node.clone();
            self.remove(call, &other);
        }
        self.insert(node, call.now);
    }

    /// Adds a node whose key is not in the list, last known to be live at `seen`.
    pub(crate) fn insert(&mut self, node: &F::Node, seen: Instant) {
        let (key, first) = (F::key(node), seen + self.interval);
        let entry = ProbeEntry {
            node: node.clone(),
            check: None,
            last_failed: false,
            heard: false,
            held: 0,
            link: None,
        };
        #[allow(clippy::cast_possible_truncation)] // 2^32 nodes do not fit into memory
        let slot = self.nodes.insert(entry) as u32;
        self.slots.insert(key, slot);
        self.schedule(slot, key, first);
    }

    /// Removes a node; a check of it is cancelled.
    pub(crate) fn remove<E: EmitsRequests<F>>(&mut self, call: &mut CallContext<'_, F, E>, node: &F::Node) {
        let Some((slot, entry)) = self.entry_mut(node) else { return };
        let (check, link) = (entry.check, entry.link());
        if let Some(id) = check {
            self.checks.end(call, id, Ending::Cancelled, &link);
        }
        self.due.clear(slot);
        self.slots.remove(&F::key(node));
        self.nodes.try_remove(slot as usize);
    }

    /// A node is known to be live: its next check is a whole interval away.
    pub(crate) fn postpone(&mut self, now: Instant, node: &F::Node) {
        let at = now + self.interval;
        if let Some((slot, entry)) = self.entry_mut(node) {
            (entry.last_failed, entry.held) = (false, 0);
            entry.heard = entry.check.is_some();
            if entry.check.is_none() {
                entry.link = None;
                self.schedule(slot, F::key(node), at);
            }
        }
    }

    /// A node may be dead: its check is due now. No effect if a check is in flight, or if the last one
    /// failed: then the next one follows after the retry interval.
    pub(crate) fn expedite(&mut self, now: Instant, node: &F::Node, link: &SpanContext) {
        if let Some((slot, entry)) = self.entry_mut(node)
            && entry.check.is_none()
            && !entry.last_failed
        {
            entry.link = link.is_valid().then(|| Box::new(link.clone()));
            self.schedule(slot, F::key(node), now);
        }
    }

    /// Up to so many nodes, those heard from last, are checked before all others. Not those whose last check failed.
    pub(crate) fn expedite_some(&mut self, most: usize) {
        let waiting = self.nodes.iter().filter(|(_, entry)| entry.check.is_none() && !entry.last_failed);
        #[allow(clippy::cast_possible_truncation)] // as in `insert`
        let waiting = waiting.filter_map(|(slot, _)| Some((self.due.get(slot as u32)?, slot as u32)));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        for ((_, cpl), slot) in waiting.into_iter().rev().take(most) {
            self.due.set(slot, (Instant::ORIGIN, cpl));
        }
    }

    /// All nodes are checked, one in each [`PACE`], the nearest first; but not those that were heard from within a minute, nor
    /// those whose last check failed, which are due soon.
    pub(crate) fn verify_all(&mut self, now: Instant) {
        let fresh = now + self.interval.saturating_sub(FRESH);
        #[allow(clippy::cast_possible_truncation)] // as in `insert`
        let old = self.nodes.iter().filter(|(_, entry)| !entry.last_failed).map(|(slot, _)| slot as u32);
        let old =
            old.filter_map(|slot| Some((self.due.get(slot)?, slot))).filter(|((at, _), _)| *at <= fresh);
        let mut old: Vec<_> = old.map(|((_, cpl), slot)| (cpl, slot)).collect();
        old.sort_unstable();
        let mut at = now;
        for (cpl, slot) in old {
            self.due.set(slot, (at, cpl));
            at = at + PACE;
        }
    }

    /// The nodes whose last checks have failed without counting against them are checked now.
    pub(crate) fn expedite_held(&mut self, now: Instant) {
        for (slot, entry) in self.nodes.iter_mut().filter(|(_, entry)| entry.held > 1) {
            entry.held = 1;
            #[allow(clippy::cast_possible_truncation)] // as in `insert`
            let slot = slot as u32;
            if let Some((at, cpl)) = self.due.get(slot) {
                self.due.set(slot, (at.min(now), cpl));
            }
        }
    }

    /// The last check of a node failed, and that says nothing about it: the next one follows later and later.
    pub(crate) fn hold(&mut self, now: Instant, node: &F::Node) {
        let (retry, most) = (self.retry_interval, self.interval);
        if let Some((slot, entry)) = self.entry_mut(node)
            && entry.check.is_none()
        {
            let wait = Self::wait(retry, most, entry.held);
            entry.held = entry.held.saturating_add(1);
            self.schedule(slot, F::key(node), now + wait);
        }
    }

    /// The last check of a node failed, and that says nothing about it: all others come first.
    pub(crate) fn put_last(&mut self, now: Instant, node: &F::Node) {
        let at = now + self.interval;
        if let Some((slot, entry)) = self.entry_mut(node)
            && entry.check.is_none()
        {
            entry.last_failed = false;
            self.schedule(slot, F::key(node), at);
        }
    }

    /// The time from a failed check to the next one, if `held` before have been held.
    fn wait(retry: Duration, most: Duration, held: u8) -> Duration {
        retry.saturating_mul(1 << held.min(16)).min(most.max(retry))
    }

    /// Whether the check of a node can begin now, be it due or not.
    pub(crate) fn can_test(&self) -> bool {
        self.checks.has_capacity() && self.due.peek().is_some()
    }

    /// Begins the check of the node that is due first, be it due or not. If it fails, that node comes last.
    pub(crate) fn test<E: EmitsRequests<F>>(&mut self, call: &mut CallContext<'_, F, E>) {
        self.checks.unblock();
        if self.checks.has_capacity()
            && let Some((_, slot)) = self.due.peek()
        {
            self.begin(call, slot);
        }
    }

    /// Begins the check of a node. Returns `false` if the request queue refuses its request.
    fn begin<E: EmitsRequests<F>>(&mut self, call: &mut CallContext<'_, F, E>, slot: u32) -> bool {
        let Some(entry) = self.nodes.get_mut(slot as usize) else { return false };
        let link = entry.link();
        entry.heard = false;
        entry.check = self.checks.begin(call, slot, &entry.node, &link);
        let has_begun = entry.check.is_some();
        if has_begun {
            self.due.clear(slot);
        }
        has_begun
    }

    /// Begins the checks that are due, as many as may be in flight.
    pub(crate) fn advance<E: EmitsRequests<F>>(&mut self, call: &mut CallContext<'_, F, E>) {
        self.checks.unblock();
        while self.checks.has_capacity()
            && let Some(((at, _), slot)) = self.due.peek()
            && at <= call.now
        {
            self.begin(call, slot);
        }
    }

    /// Emits the request of a check that was queued for capacity.
    pub(crate) fn send<E: EmitsRequests<F>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        released: ReleasedCheck,
    ) {
        let ReleasedCheck { check, request, deadline } = released;
        if let Some(entry) = self.nodes.get(check.slot as usize) {
            self.checks.send(call, request, deadline, &entry.link());
        }
    }

    /// Ends a check and schedules the next one.
    pub(crate) fn end<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        slot: u32,
        id: RequestId,
        ending: Ending,
    ) -> Option<Probed<F>> {
        let entry = self.nodes.get_mut(slot as usize)?;
        let (node, link) = (entry.node.clone(), entry.link());
        let request = self.checks.end(call, id, ending, &link)?;
        let (passed, sent) = (ending.is_answer(), request.is_emitted());
        let silent = !passed && sent && !entry.heard;
        entry.check = None;
        entry.last_failed = silent;
        let (held, is_live) = (entry.held, passed || entry.heard);
        if is_live {
            (entry.link, entry.held) = (None, 0);
        }
        self.counts.passed += u64::from(passed);
        self.counts.failed += u64::from(!passed && sent);
        let next = call.now + if is_live { self.interval } else { self.retry_interval };
        self.schedule(slot, F::key(&node), next);
        let sent_at = request.sent_at();
        let waited = Self::wait(self.retry_interval, self.interval, held.saturating_sub(1));
        let since = Instant::ORIGIN + (sent_at - (Instant::ORIGIN + waited));
        Some(Probed {
            node,
            elapsed: call.elapsed(&request),
            round_trip: call.round_trip(&request),
            link,
            silent,
            sent_at,
            since,
        })
    }

    /// When the next check is due, if it can begin. A check that is due at `FAR_FUTURE` never begins.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let ((at, _), _) = self.due.peek().filter(|_| self.checks.has_capacity())?;
        (at < Instant::FAR_FUTURE).then_some(at)
    }
}
