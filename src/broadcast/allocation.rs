//! [`NodeAllocation`]: which records each node stores, as a sweep has decided it.

use crate::vocabulary::family::Family;
use core::iter::{Enumerate, Peekable};
use std::vec::IntoIter;

/// The records to be stored with one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeAllocation<F: Family> {
    /// The node.
    pub node: F::Node,
    /// The keys of its records, at least one, in order.
    pub keys: Vec<F::Key>,
}

/// The allocations of a sweep, one for each node that stores any record, in order of the nodes' keys; see
/// [`Sweep::into_allocations`](crate::Sweep::into_allocations).
#[derive(Clone, Debug)]
pub struct NodeAllocations<F: Family> {
    nodes: Enumerate<IntoIter<F::Node>>,
    keys: Vec<F::Key>,
    /// Pairs of a node's index and a key's index, in order.
    pairs: Peekable<IntoIter<(usize, usize)>>,
}

impl<F: Family> NodeAllocations<F> {
    /// `pairs` says which node stores which key, by their indices in `nodes` and `keys`; it is in order.
    pub(super) fn new(nodes: Vec<F::Node>, keys: Vec<F::Key>, pairs: Vec<(usize, usize)>) -> Self {
        Self { nodes: nodes.into_iter().enumerate(), keys, pairs: pairs.into_iter().peekable() }
    }
}

impl<F: Family> Iterator for NodeAllocations<F> {
    type Item = NodeAllocation<F>;

    fn next(&mut self) -> Option<NodeAllocation<F>> {
        let (first, _) = *self.pairs.peek()?;
        let (index, node) = self.nodes.find(|(index, _)| *index == first)?;
        let mut keys = Vec::new();
        while let Some((_, key)) = self.pairs.next_if(|(of, _)| *of == index) {
            keys.extend(self.keys.get(key));
        }
        Some(NodeAllocation { node, keys })
    }
}
