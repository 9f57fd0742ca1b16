//! [`ActionQueue`]: the scheduled actions of a run in order of time; at the same instant, in the order of
//! scheduling.

use crate::sim::world::action::Action;
use crate::vocabulary::time::Instant;
use core::cmp::Reverse;
use slab::Slab;
use std::collections::BinaryHeap;

/// The scheduled actions of a world.
#[derive(Debug)]
pub(crate) struct ActionQueue {
    /// The time of each action, its sequence number, and its place in `actions`: small entries, as the heap moves
    /// them.
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    actions: Slab<Action>,
    sequence: u64,
    /// How many of the actions a run goes on for.
    keep_running: usize,
    /// Whether the nodes' routing maintenance is on.
    maintained: bool,
}

impl ActionQueue {
    pub(crate) const fn new(maintained: bool) -> Self {
        Self { heap: BinaryHeap::new(), actions: Slab::new(), sequence: 0, keep_running: 0, maintained }
    }

    pub(crate) fn schedule(&mut self, at: Instant, action: Action) {
        self.keep_running += usize::from(action.keeps_running(self.maintained));
        self.heap.push(Reverse((at, self.sequence, self.actions.insert(action))));
        self.sequence += 1;
    }

    /// The time of the next action.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Action)> {
        let Reverse((at, _, index)) = self.heap.pop()?;
        let action = self.actions.try_remove(index)?;
        self.keep_running -= usize::from(action.keeps_running(self.maintained));
        Some((at, action))
    }

    /// Whether any action is scheduled that a run goes on for.
    pub(crate) const fn is_busy(&self) -> bool {
        self.keep_running > 0
    }
}
