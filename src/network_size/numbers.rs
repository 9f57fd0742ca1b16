//! Conversions to `f64` that the estimate and the thresholds share.

use crate::vocabulary::key::Key;

/// The distance as a share of the largest possible one, 0 to 1. Bits beyond the first 64 make no difference.
#[allow(clippy::cast_precision_loss)]
pub(super) fn normed_distance<K: Key>(distance: &K) -> f64 {
    let most = u64::MAX.checked_shl(64_u32.saturating_sub(K::BITS)).unwrap_or(1);
    distance.leading() as f64 / most as f64
}

/// A rank, or a number of nodes of at most 1,024: exact.
#[allow(clippy::cast_precision_loss)] // small numbers
pub(super) fn count_as_f64(count: usize) -> f64 {
    count as f64
}
