//! The key that a target stands for: of what a request, a start or a record is about. The checker compares keys, and
//! takes every one of them from here.

use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::target::Target;

/// The key that a target stands for.
pub(super) fn key_of<F: Family>(target: &F::Target) -> F::Key {
    target.key()
}

/// Whether a request of a lookup of the key `of` may be about this target: that key, or the point of a block, which differs
/// from it in the first 64 bits only. Where not every key has a target, that of an edge probe may be any.
pub(super) fn is_edge_of<F: Family>(target: &F::Key, of: &F::Key) -> bool {
    F::Target::at(*target).is_none() || target.spliced(64, of) == *target
}
