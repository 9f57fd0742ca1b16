//! [`ClientList`]: nodes known not to serve others.

use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::family::Family;
use std::collections::{HashMap, VecDeque};

/// A bounded list of nodes known not to serve others; beyond the bound, the oldest key is forgotten.
#[derive(Clone, Debug)]
pub(super) struct ClientList<F: Family> {
    capacity: usize,
    /// By key; of several nodes with the same key, the latest. Never iterated.
    nodes: HashMap<F::Key, F::Node, SeededHash>,
    /// Keys in order of insertion, the latest last.
    order: VecDeque<F::Key>,
}

impl<F: Family> ClientList<F> {
    pub(super) fn new(capacity: usize, hash: u64) -> Self {
        Self { capacity, nodes: HashMap::with_hasher(SeededHash(hash)), order: VecDeque::new() }
    }

    #[inline]
    pub(super) fn contains(&self, node: &F::Node) -> bool {
        !self.nodes.is_empty() && self.nodes.get(&F::key(node)).is_some_and(|known| known == node)
    }

    /// Forgets that this node is a client.
    #[inline]
    pub(super) fn remove(&mut self, node: &F::Node) {
        if self.contains(node) {
            self.forget(F::key(node));
        }
    }

    #[cold]
    fn forget(&mut self, key: F::Key) {
        self.nodes.remove(&key);
        self.order.retain(|known| *known != key);
    }

    pub(super) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.order.iter().filter_map(|key| self.nodes.get(key)).for_each(visit);
    }

    pub(super) fn insert(&mut self, node: F::Node) {
        let key = F::key(&node);
        if self.capacity > 0 && self.nodes.insert(key, node).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.nodes.remove(&oldest);
            }
        }
    }
}
