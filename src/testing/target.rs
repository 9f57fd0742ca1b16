//! The key that a target stands for: of what a request, a start or a record is about. The checker compares keys, and
//! takes every one of them from here.

use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// The key that a target stands for.
pub(super) const fn key_of<F: Family>(target: &F::Key) -> F::Key {
    *target
}

/// Whether two keys are equal, or differ in one bit only, as the target of an edge probe differs from that of its
/// lookup.
pub(super) fn differ_in_at_most_one_bit<K: Key>(one: &K, other: &K) -> bool {
    one == other || one.with_flipped(one.common_prefix_len(other)) == *other
}
