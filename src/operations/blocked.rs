//! [`BlockedOperations`]: operations that could not submit a request, because the request queue was full.

use crate::collections::indexed_heap::IndexedHeap;
use crate::requests::request_queue::{Precedence, RequestQueue};
use crate::vocabulary::family::Family;
use std::collections::{BTreeMap, BTreeSet};

/// Running operations that could not submit a request, because the request queue was full. Each is retried when
/// its submission may succeed, and not before, so that the cost of a call does not grow with their number. They
/// are ordered by the deadline of the request that they want to submit, then by arrival, and identified by their slot in
/// the pool.
#[derive(Clone, Debug)]
pub(super) struct BlockedOperations<F: Family> {
    /// All of them, by precedence. Space in the queue unblocks any.
    all: IndexedHeap<Precedence>,
    /// Those whose node was not busy, by precedence. Free capacity in total unblocks them too.
    node_free: IndexedHeap<Precedence>,
    /// Those whose node was busy, by node and precedence. Free capacity at that node unblocks them.
    node_busy: BTreeSet<(F::Key, Precedence, u32)>,
    /// By slot: the node and precedence of its entry in `node_busy`.
    busy_entries: BTreeMap<u32, (F::Key, Precedence)>,
}

impl<F: Family> BlockedOperations<F> {
    pub(super) const fn new() -> Self {
        Self {
            all: IndexedHeap::new(),
            node_free: IndexedHeap::new(),
            node_busy: BTreeSet::new(),
            busy_entries: BTreeMap::new(),
        }
    }

    /// Adds an operation, or replaces its entry. `busy` is the node that it wants to ask, if that node is busy:
    /// the request queue then watches it.
    pub(super) fn insert<P>(
        &mut self,
        slot: u32,
        precedence: Precedence,
        busy: Option<F::Key>,
        requests: &mut RequestQueue<F, P>,
    ) {
        self.remove(slot, requests);
        if let Some(node) = busy {
            requests.watch_node(node);
        }
        self.all.set(slot, precedence);
        match busy {
            None => self.node_free.set(slot, precedence),
            Some(node) => {
                self.node_busy.insert((node, precedence, slot));
                self.busy_entries.insert(slot, (node, precedence));
            }
        }
    }

    pub(super) fn remove<P>(&mut self, slot: u32, requests: &mut RequestQueue<F, P>) {
        if self.all.clear(slot)
            && !self.node_free.clear(slot)
            && let Some((node, precedence)) = self.busy_entries.remove(&slot)
        {
            self.node_busy.remove(&(node, precedence, slot));
            if self.first_waiter(node).is_none() {
                requests.unwatch_node(node);
            }
        }
    }

    /// Removes and returns the first operation whose submission may succeed now.
    pub(super) fn next_ready<P>(&mut self, requests: &mut RequestQueue<F, P>) -> Option<u32> {
        let (_, first) = self.all.peek()?;
        let slot = if requests.has_queue_space() {
            Some(first)
        } else if requests.has_capacity() {
            self.node_free.peek().map(|(_, slot)| slot).or_else(|| self.next_unblocked(requests))
        } else {
            None
        }?;
        self.remove(slot, requests);
        Some(slot)
    }

    /// The first operation of a node that is no longer busy.
    fn next_unblocked<P>(&self, requests: &mut RequestQueue<F, P>) -> Option<u32> {
        while let Some(node) = requests.freed_node() {
            match self.first_waiter(node) {
                Some(slot) => return Some(slot),
                None => requests.unwatch_node(node),
            }
        }
        None
    }

    /// The first operation that waits for this node.
    fn first_waiter(&self, node: F::Key) -> Option<u32> {
        let (of, _, slot) = self.node_busy.range((node, Precedence::FIRST, 0)..).next()?;
        (*of == node).then_some(*slot)
    }

    /// Gives precedence to the first operation whose submission may succeed now: the request queue does not accept
    /// submissions that come after it. To be called before an operation or a check submits requests.
    pub(super) fn set_precedence<P>(&self, requests: &mut RequestQueue<F, P>) {
        let eligible = if requests.has_queue_space() { &self.all } else { &self.node_free };
        requests.set_precedence(eligible.peek().map(|(precedence, _)| precedence));
    }
}
