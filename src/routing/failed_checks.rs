//! [`FailedChecks`]: the candidates whose last check failed, for the backoff.

use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};

/// The nodes whose last check failed; beyond the capacity, the oldest failure is forgotten.
#[derive(Clone, Debug)]
pub(super) struct FailedChecks<F: Family> {
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
    pub(super) fn new(capacity: usize, backoff: Duration, hash: SeededHash) -> Self {
        Self { capacity, backoff, nodes: HashMap::with_hasher(hash), order: VecDeque::new() }
    }

    /// Whether a node is in backoff. What is told about it may be news: then it is worth another check.
    pub(super) fn keep_out(&mut self, now: Instant, node: &F::Node) -> bool {
        if self.nodes.is_empty() {
            return false;
        }
        let Some(known) = self.nodes.get_mut(&F::key(node)).filter(|known| known.node == *node) else {
            return false;
        };
        let has_news = F::NODES_CHANGE && F::update(&mut known.node, node, ToldBy::Others);
        known.repeated && now < known.at + self.backoff && !has_news
    }

    pub(super) fn forget(&mut self, node: &F::Node) {
        if !self.nodes.is_empty() && self.nodes.get(&F::key(node)).is_some_and(|known| known.node == *node) {
            self.nodes.remove(&F::key(node));
        }
    }

    pub(super) fn insert(&mut self, now: Instant, node: F::Node) {
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

    pub(super) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.order.iter().filter_map(|(key, _)| self.nodes.get(key)).for_each(|failed| visit(&failed.node));
    }
}
