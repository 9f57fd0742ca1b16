//! The key that a target stands for: of what a request, a start or a record is about. The checker compares keys, and
//! takes every one of them from here.

use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::target::Target;

/// The key that a target stands for.
pub(super) fn key_of<F: Family>(target: &F::Target) -> F::Key {
    target.key()
}

/// Whether a request of a lookup of the key `of` may be about this target: it is that key, or differs from it in one bit
/// only, as the target of an edge probe does. Where not every key has a target, that of an edge probe may be any.
pub(super) fn is_edge_of<F: Family>(target: &F::Key, of: &F::Key) -> bool {
    F::Target::at(*target).is_none() || differ_in_at_most_one_bit(target, of)
}

/// Whether two keys are equal, or differ in one bit only, as the target of an edge probe differs from that of its
/// lookup.
fn differ_in_at_most_one_bit<K: Key>(one: &K, other: &K) -> bool {
    one == other || one.with_flipped(one.common_prefix_len(other)) == *other
}
