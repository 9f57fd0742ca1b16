//! [`nearest`]: sorted elements in order of distance to a key.

use crate::vocabulary::key::Key;
use core::ops::Range;
use smallvec::{SmallVec, smallvec};

/// The indices of all elements in order of distance to `target`, closest first; `sorted` must be in order of
/// `key`. The iterator is lazy: each step costs some O(log n).
pub(crate) fn nearest<T, K: Key>(
    sorted: &[T],
    key: impl Fn(&T) -> K,
    target: K,
) -> impl Iterator<Item = usize> {
    // Ranges of elements that share a prefix which no element outside has, the nearest last.
    let mut open: SmallVec<[Range<usize>; 16]> = smallvec![0..sorted.len()];
    core::iter::from_fn(move || {
        loop {
            let Range { start, end } = open.pop()?;
            let part = sorted.get(start..end)?;
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let fork = key(first).common_prefix_len(&key(last));
            if fork == K::BITS {
                open.push(start + 1..end);
                return Some(start);
            }
            let middle = start + part.partition_point(|element| !key(element).bit(fork));
            let mut halves = [start..middle, middle..end];
            if !target.bit(fork) {
                halves.reverse();
            }
            open.extend(halves);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key8;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_nearest_come_first(mut keys: Vec<u8>, target: u8) {
            keys.sort_unstable();
            let order: Vec<_> = nearest(&keys, |key| Key8::new([*key]), Key8::new([target])).collect();
            let found: Vec<_> = order.iter().map(|place| keys[*place] ^ target).collect();
            prop_assert!(found.is_sorted());
            let mut places = order;
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..keys.len()), "each place once");
        }
    }
}
