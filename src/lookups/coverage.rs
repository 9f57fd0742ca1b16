//! [`Coverage`]: which distances from the target the answers have told all nodes of.
//!
//! A node names the n closest nodes that it knows to the key that it is asked about, dead or alive. So if it knows its
//! neighbourhood, and names n nodes up to some distance, there are no others up to that distance. This holds for the target,
//! and for the point of a [block](crate::lookups::edge_probing) that is nearest to the target: in a block, the distances
//! from that point and those from the target have the same order. So each answer covers a range of distances from the
//! target, and a lookup knows what it has not been told of: the gaps.

use smallvec::SmallVec;

/// Ranges of distance prefixes (the first 64 bits of a distance), in order; between two of them there is a gap. At most
/// [`MAX_RANGES`](Self::MAX_RANGES): beyond that, the farthest are forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage {
    ranges: SmallVec<[(u64, u64); 4]>,
}

impl Coverage {
    const MAX_RANGES: usize = 64;

    /// Adds the distances from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Those that overlap it, or are next to it, become one range with it.
        let from = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        for (begin, end) in self.ranges.get(from..to).unwrap_or_default() {
            (first, last) = (first.min(*begin), last.max(*end));
        }
        if from < to {
            self.ranges.drain(from + 1..to);
            if let Some(range) = self.ranges.get_mut(from) {
                *range = (first, last);
            }
        } else {
            self.ranges.insert(from, (first, last));
            self.ranges.truncate(Self::MAX_RANGES);
        }
    }

    /// The last distance of the range that holds this one; `None` if it lies in a gap.
    pub(super) fn end_at(&self, at: u64) -> Option<u64> {
        let range = self.ranges.get(self.ranges.partition_point(|(_, end)| *end < at))?;
        (range.0 <= at).then_some(range.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_what_was_added(added in prop::collection::vec((0..200_u64, 0..12_u64), 0..16), top: bool) {
            let offset = if top { u64::MAX - 211 } else { 0 };
            let mut coverage = Coverage::default();
            let mut covered = [false; 212];
            for (first, more) in added {
                coverage.add(offset + first, offset + first + more);
                (first..=first + more).for_each(|at| covered[usize::try_from(at).unwrap()] = true);
                for at in 0..212_u64 {
                    let rest = &covered[usize::try_from(at).unwrap()..];
                    let run = rest.iter().take_while(|covered| **covered).count() as u64;
                    prop_assert_eq!(coverage.end_at(offset + at), (run > 0).then(|| offset + at + run - 1));
                }
            }
        }
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let (mut coverage, most) = (Coverage::default(), Coverage::MAX_RANGES as u64);
        (0..2 * most).rev().for_each(|at| coverage.add(at * 10, at * 10 + 1));
        assert_eq!(coverage.ranges.len(), Coverage::MAX_RANGES);
        let last = (most - 1) * 10;
        assert_eq!((coverage.end_at(0), coverage.end_at(last)), (Some(1), Some(last + 1)));
        assert_eq!(coverage.end_at(last + 10), None, "the farthest are forgotten");
        coverage.add(9, 3);
        assert_eq!(coverage.end_at(3), None, "an empty range");
    }
}
