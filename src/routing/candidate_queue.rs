//! [`CandidateQueue`]: candidates that wait for a check before they may enter the routing table, and those being
//! checked.

use crate::collections::seeded_hash::SeededHash;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{Purpose, ReleasedCheck};
use crate::requests::request_queue::{Ending, PendingRequest};
use crate::routing::liveness_check::LivenessChecks;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::id::RequestId;
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use slab::Slab;
use std::collections::{HashMap, HashSet, VecDeque};

/// How candidates are checked.
///
/// Memory: at most `max_queued + max_in_flight` candidates, each a node id and a span context; and for at most
/// `max_failed` failed checks a node id, two keys and some 40 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct IncludeConfig {
    /// The maximum number of checks in flight. 1 to 1,024. Default: 3.
    pub max_in_flight: usize,
    /// The maximum number of candidates that wait; further ones are dropped, and counted. 1 to 2^16. Default:
    /// 128.
    pub max_queued: usize,
    /// The maximum duration of a check, including its wait for capacity. Once sent, its request has at most
    /// the network's request time-out. Longer than zero. Default: 10 s.
    pub timeout: Duration,
    /// Backoff: if two checks of a node in a row have failed, it is not checked again for this time when
    /// other nodes name it, because they keep naming a dead node for long. After a single failure there is no
    /// backoff: a message may have been lost. A node that contacts this one itself is checked at once. Longer
    /// than zero. Default: 5 min.
    pub retry_interval: Duration,
    /// The maximum number of failed checks that are remembered; beyond it, the oldest is forgotten. At most
    /// 2^20; 0 is none. Default: 1,024.
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

/// The number of candidates so far, by result. `offered` is the sum of all other fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncludeCounts {
    /// Candidates offered.
    pub offered: u64,
    /// Dropped because they were queued or being checked already.
    pub duplicate: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Dropped because their last two checks failed, the later one less than [`IncludeConfig::retry_interval`]
    /// ago.
    pub backed_off: u64,
    /// Dropped from the queue because the table would no longer admit them, or because they are gone or banned.
    pub unwanted: u64,
    /// Answered, and named a node.
    pub passed: u64,
    /// Failed, did not answer in time, named no node, or were never sent a request.
    pub failed: u64,
    /// Being checked.
    pub in_flight: u64,
    /// Waiting.
    pub queued: u64,
}

/// Candidates that wait for a check, and those being checked.
#[derive(Clone, Debug)]
pub(crate) struct CandidateQueue<F: Family> {
    checks: LivenessChecks<F>,
    max_queued: usize,
    queue: VecDeque<IncludeCandidate<F>>,
    in_flight: Slab<IncludeCandidate<F>>,
    /// Keys of all candidates, waiting or being checked. Never iterated.
    keys: HashSet<F::Key, SeededHash>,
    failures: FailedChecks<F>,
    counts: IncludeCounts,
}

/// The nodes whose last check failed, for the backoff.
#[derive(Clone, Debug)]
struct FailedChecks<F: Family> {
    capacity: usize,
    backoff: Duration,
    /// By key; of several nodes with the same key, the one that failed last. Never iterated.
    nodes: HashMap<F::Key, FailedCheck<F>, SeededHash>,
    /// The latest last. Entries may be stale: their node was removed from `nodes` since, or has failed again.
    order: VecDeque<(F::Key, Instant)>,
}

#[derive(Clone, Debug)]
struct FailedCheck<F: Family> {
    node: F::Node,
    /// When the last check failed.
    at: Instant,
    /// The check before that failed too.
    repeated: bool,
}

impl<F: Family> FailedChecks<F> {
    /// Whether a node is in backoff. What is told about it may be news: then it is worth another check.
    fn keep_out(&mut self, now: Instant, node: &F::Node) -> bool {
        if self.nodes.is_empty() {
            return false;
        }
        let Some(known) = self.nodes.get_mut(&F::key(node)).filter(|known| known.node == *node) else {
            return false;
        };
        let has_news = F::NODES_CHANGE && F::update(&mut known.node, node, ToldBy::Others);
        known.repeated && now < known.at + self.backoff && !has_news
    }

    fn forget(&mut self, node: &F::Node) {
        if !self.nodes.is_empty() && self.nodes.get(&F::key(node)).is_some_and(|known| known.node == *node) {
            self.nodes.remove(&F::key(node));
        }
    }

    fn insert(&mut self, now: Instant, node: F::Node) {
        if self.capacity == 0 {
            return;
        }
        let key = F::key(&node);
        let repeated = self.nodes.get(&key).is_some_and(|known| known.node == node);
        if self.order.len() == self.capacity
            && let Some((oldest, at)) = self.order.pop_front()
            && self.nodes.get(&oldest).is_some_and(|known| known.at == at)
        {
            self.nodes.remove(&oldest);
        }
        self.nodes.insert(key, FailedCheck { node, at: now, repeated });
        self.order.push_back((key, now));
    }
}

/// A candidate, with the span that its check links to.
#[derive(Clone, Debug)]
pub(crate) struct IncludeCandidate<F: Family> {
    pub(crate) node: F::Node,
    pub(crate) link: SpanContext,
    /// It has told about itself since its check began.
    pub(crate) has_news: bool,
}

impl<F: Family> CandidateQueue<F> {
    pub(crate) fn new(local: F::Target, config: &IncludeConfig, hash: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            checks: LivenessChecks::new(Initiator::Include, local, config.timeout, config.max_in_flight),
            max_queued: config.max_queued,
            queue: VecDeque::new(),
            in_flight: Slab::new(),
            keys: HashSet::with_hasher(SeededHash(hash)),
            failures: FailedChecks {
                capacity: config.max_failed,
                backoff: config.retry_interval,
                nodes: HashMap::with_hasher(SeededHash(hash)),
                order: VecDeque::new(),
            },
            counts: IncludeCounts::default(),
        })
    }

    pub(crate) fn counts(&self) -> IncludeCounts {
        IncludeCounts {
            in_flight: self.checks.in_flight() as u64,
            queued: self.queue.len() as u64,
            ..self.counts
        }
    }

    /// How many more candidates fit into the queue.
    pub(crate) fn spare_capacity(&self) -> usize {
        self.max_queued - self.queue.len()
    }

    /// The node itself was heard from: forgets its failed checks.
    pub(crate) fn forget_failures(&mut self, node: &F::Node) {
        self.failures.forget(node);
    }

    /// This node has another id.
    pub(crate) fn set_own_target(&mut self, target: F::Target) {
        self.checks.set_own_target(target);
    }

    /// Merges what a candidate tells about itself.
    pub(crate) fn told_by_itself(&mut self, node: &F::Node) {
        if !self.keys.contains(&F::key(node)) {
            return;
        }
        let checked = self.in_flight.iter_mut().map(|(_, candidate)| candidate);
        for candidate in self.queue.iter_mut().chain(checked).filter(|candidate| candidate.node == *node) {
            candidate.has_news |= F::update(&mut candidate.node, node, ToldBy::Itself);
        }
    }

    /// What is known of a candidate.
    pub(crate) fn known(&self, node: &F::Node) -> Option<&F::Node> {
        let checked = self.in_flight.iter().map(|(_, candidate)| candidate);
        let mut all = self.queue.iter().chain(checked).filter(|_| self.keys.contains(&F::key(node)));
        all.find(|candidate| candidate.node == *node).map(|candidate| &candidate.node)
    }

    /// Drops a candidate that waits.
    pub(crate) fn withdraw(&mut self, node: &F::Node) {
        if self.keys.contains(&F::key(node))
            && let Some(at) = self.queue.iter().position(|waiting| waiting.node == *node)
        {
            self.queue.remove(at);
            self.keys.remove(&F::key(node));
            self.counts.unwanted += 1;
        }
    }

    /// Visits all nodes that the queue holds.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        let candidates = self.queue.iter().chain(self.in_flight.iter().map(|(_, candidate)| candidate));
        candidates.for_each(|candidate| visit(&candidate.node));
        self.failures.order.iter().filter_map(|(key, _)| self.failures.nodes.get(key)).for_each(|failed| {
            visit(&failed.node);
        });
    }

    /// Queues a candidate, unless it is queued or being checked already, is in backoff, or the queue is full.
    pub(crate) fn offer(&mut self, now: Instant, node: &F::Node, link: &SpanContext) {
        self.counts.offered += 1;
        if self.failures.keep_out(now, node) {
            self.counts.backed_off += 1;
        } else if self.keys.contains(&F::key(node)) {
            self.counts.duplicate += 1;
        } else if self.spare_capacity() == 0 {
            self.counts.dropped += 1;
        } else {
            self.keys.insert(F::key(node));
            self.queue.push_back(IncludeCandidate {
                node: node.clone(),
                link: link.clone(),
                has_news: false,
            });
        }
    }

    /// Begins checks, as many as may be in flight. A candidate that is no longer `admissible` is dropped.
    pub(crate) fn advance<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        admissible: impl Fn(&F::Node) -> bool,
    ) {
        self.checks.unblock();
        while self.checks.has_capacity()
            && let Some(candidate) = self.queue.pop_front()
        {
            if !admissible(&candidate.node) || call.requests.is_banned(call.now, &candidate.node) {
                self.counts.unwanted += 1;
                self.keys.remove(&F::key(&candidate.node));
                continue;
            }
            #[allow(clippy::cast_possible_truncation)] // at most 1,024
            let slot = self.in_flight.vacant_key() as u32;
            if self.checks.begin(call, slot, &candidate.node, &candidate.link).is_some() {
                // What it told before is what is checked.
                self.in_flight.insert(IncludeCandidate { has_news: false, ..candidate });
            } else {
                self.queue.push_front(candidate);
            }
        }
    }

    /// Emits the request of a check that was queued for capacity.
    pub(crate) fn send<E: EmitsRequests<F>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        released: ReleasedCheck,
    ) {
        let ReleasedCheck { check, request, deadline } = released;
        if let Some(candidate) = self.in_flight.get(check.slot as usize) {
            self.checks.send(call, request, deadline, &candidate.link);
        }
    }

    /// Ends a check. `passed`: it was answered, and the answer names at least one node. Returns the candidate
    /// and its request.
    pub(crate) fn end<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        slot: u32,
        id: RequestId,
        ending: Ending,
        passed: bool,
    ) -> Option<(IncludeCandidate<F>, PendingRequest<F, Purpose>)> {
        let candidate = self.in_flight.try_remove(slot as usize)?;
        let IncludeCandidate { node, link, .. } = &candidate;
        *(if passed { &mut self.counts.passed } else { &mut self.counts.failed }) += 1;
        let request = self.checks.end(call, id, ending, link);
        if candidate.has_news && !passed && self.spare_capacity() > 0 {
            // It was asked where it is not: it is checked again, where it says that it is.
            self.counts.offered += 1;
            let (node, link) = (node.clone(), link.clone());
            self.queue.push_back(IncludeCandidate { node, link, has_news: false });
        } else {
            self.keys.remove(&F::key(node));
        }
        let request = request?;
        if passed {
            self.failures.forget(node);
        } else if request.is_emitted() && !candidate.has_news {
            self.failures.insert(call.now, node.clone());
        }
        Some((candidate, request))
    }
}
