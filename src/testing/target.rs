//! The key that a target stands for: of what a request, a start or a record is about. The checker compares keys, and
//! takes every one of them from here.

use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::target::Target;

/// The key that a target stands for.
pub(super) fn key_of<F: Family>(target: &F::Target) -> F::Key {
    target.key()
}

/// Whether a request to `node`, of a lookup of the key `of`, may be about this target: that key, or that key with one bit
/// flipped (the subtree next to it), or the point of the node's own part of a subtree that is nearest to it, which begins as
/// the node does. Where not every key has a target, that of an edge probe may be any.
pub(super) fn is_edge_of<F: Family>(target: &F::Key, of: &F::Key, node: &F::Key) -> bool {
    let own = node.common_prefix_len(target).min(node.common_prefix_len(of) + 1 + MAX_EDGE_DEPTH);
    F::Target::at(*target).is_none()
        || differ_in_at_most_one_bit(target, of)
        || node.spliced(own, of) == *target
}

/// Into as many bits a subtree is divided at the most.
const MAX_EDGE_DEPTH: u32 = 5;

/// Whether two keys are equal, or differ in one bit only, as the target of an edge probe differs from that of its
/// lookup.
fn differ_in_at_most_one_bit<K: Key>(one: &K, other: &K) -> bool {
    one == other || one.with_flipped(one.common_prefix_len(other)) == *other
}
