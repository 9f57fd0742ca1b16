//! Parts of the key space: [`Prefix`], all keys that share their first bits, and [`Coverage`], a set of such
//! parts. Bits only, no arithmetic.
//!
//! Keys that share a prefix are an interval both in the order of keys and in the order of distance to any key. So
//! prefixes are the natural parts of a Kademlia network (Kademlia paper, section 2.1).

use crate::vocabulary::key::Key;
use core::fmt::{self, Debug};
use smallvec::{SmallVec, smallvec};

/// All keys that share their first bits: a subtree of the key space. Prefixes are ordered by their least key; a
/// prefix comes before the parts of it that begin with the same key.
///
/// ```
/// use kad_proto::{Key8, Prefix};
///
/// let part = Prefix::new(Key8::new([0b1010_1111]), 3);
/// assert_eq!(part.to_string(), "101*");
/// assert!(part.contains(&Key8::new([0b1011_0000])));
/// assert_eq!(part.nearest_to(&Key8::new([0b0000_0110])), Key8::new([0b1010_0110]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<K> {
    /// The least key: 0 from bit `bits` on.
    first: K,
    bits: u32,
}

impl<K: Key> Prefix<K> {
    /// The whole key space.
    pub const WHOLE: Self = Self { first: K::ZERO, bits: 0 };

    /// All keys that share the first `bits` bits of `key`. If `bits` is more than a key has, that is `key`
    /// alone.
    pub fn new(key: K, bits: u32) -> Self {
        Self { first: key.spliced(bits, &K::ZERO), bits: bits.min(K::BITS) }
    }

    /// How many bits its keys share, 0 ..= [`Key::BITS`].
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Its least key.
    pub const fn first(&self) -> K {
        self.first
    }

    /// Its greatest key.
    pub fn last(&self) -> K {
        self.first.spliced(self.bits, &K::ONES)
    }

    /// Whether the key is one of its keys.
    pub fn contains(&self, key: &K) -> bool {
        self.first.common_prefix_len(key) >= self.bits
    }

    /// Whether all keys of `part` are its keys.
    pub fn covers(&self, part: &Self) -> bool {
        self.bits <= part.bits && self.contains(&part.first)
    }

    /// The key of this part with the least distance to `key`: `key` itself if the part contains it.
    #[must_use]
    pub fn nearest_to(&self, key: &K) -> K {
        self.first.spliced(self.bits, key)
    }

    /// Its two halves, that with the lesser keys first. `None` for a single key.
    pub fn split(&self) -> Option<[Self; 2]> {
        let bits = self.bits + 1;
        let high = self.first.with_flipped(self.bits);
        (self.bits < K::BITS).then_some([Self { first: self.first, bits }, Self { first: high, bits }])
    }

    /// The part that this one is a half of. `None` for the whole.
    pub fn parent(&self) -> Option<Self> {
        self.bits.checked_sub(1).map(|bits| Self::new(self.first, bits))
    }

    /// The other half of its parent. `None` for the whole.
    pub fn sibling(&self) -> Option<Self> {
        let last = self.bits.checked_sub(1)?;
        Some(Self { first: self.first.with_flipped(last), bits: self.bits })
    }
}

/// The shared bits and a star: `101*`. For a single key, its bits alone.
impl<K: Key> fmt::Display for Prefix<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.bits).try_for_each(|bit| f.write_str(if self.first.bit(bit) { "1" } else { "0" }))?;
        f.write_str(if self.bits < K::BITS { "*" } else { "" })
    }
}

impl<K: Key> Debug for Prefix<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which parts of the key space are covered, as the fewest prefixes that make them up.
///
/// Memory: at most one prefix for each that was inserted; two halves of one prefix are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage<K: Key> {
    /// In order; none covers another, and no two are the halves of one.
    parts: Vec<Prefix<K>>,
}

impl<K: Key> Coverage<K> {
    /// A coverage without parts.
    pub const fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// Covers a part of the key space. O(the number of parts), as all of them may have to move.
    pub fn insert(&mut self, mut part: Prefix<K>) {
        if self.covers(&part) {
            return;
        }
        loop {
            let from = self.index_of(&part);
            let within = self.parts.iter().skip(from).take_while(|other| part.covers(other)).count();
            self.parts.splice(from..from + within, [part]);
            match (part.sibling(), part.parent()) {
                (Some(sibling), Some(parent)) if self.parts.binary_search(&sibling).is_ok() => part = parent,
                _ => return,
            }
        }
    }

    /// Whether all keys of a part are covered. O(log n).
    pub fn covers(&self, part: &Prefix<K>) -> bool {
        self.part_covering(part).is_some()
    }

    /// The fewest prefixes that make up what is covered, in order.
    pub fn parts(&self) -> &[Prefix<K>] {
        &self.parts
    }

    /// The largest parts of `within` of which nothing is covered, in order of distance to `from`: the first is the
    /// gap nearest to `from`, or, if `from` is a random key, a random gap.
    ///
    /// ```
    /// use kad_proto::{Coverage, Key8, Prefix};
    ///
    /// let mut seen = Coverage::new();
    /// seen.insert(Prefix::new(Key8::new([0b0110_0000]), 3));
    /// let gaps: Vec<_> = seen.gaps(Prefix::WHOLE, Key8::new([0])).map(|gap| gap.to_string()).collect();
    /// assert_eq!(gaps, ["00*", "010*", "1*"]);
    /// ```
    pub fn gaps(&self, within: Prefix<K>, from: K) -> Gaps<'_, K> {
        Gaps { coverage: self, from, open: smallvec![within] }
    }

    /// The covered part that contains all of this one.
    pub(super) fn part_covering(&self, part: &Prefix<K>) -> Option<Prefix<K>> {
        // Of the parts that begin at or before it, only the last can contain it.
        let before = self.parts.partition_point(|other| other.first <= part.first).checked_sub(1)?;
        self.parts.get(before).filter(|other| other.covers(part)).copied()
    }

    /// Whether some keys of a part are covered, if not all of them are.
    fn covers_any_of(&self, part: &Prefix<K>) -> bool {
        self.parts.get(self.index_of(part)).is_some_and(|other| part.covers(other))
    }

    /// The index of the first covered part that begins in or after this one.
    fn index_of(&self, part: &Prefix<K>) -> usize {
        self.parts.partition_point(|other| other.first < part.first)
    }
}

impl<K: Key> Default for Coverage<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The parts of the key space that are not covered; see [`Coverage::gaps`].
#[derive(Clone, Debug)]
pub struct Gaps<'a, K: Key> {
    coverage: &'a Coverage<K>,
    from: K,
    /// Still to be searched for gaps, the nearest last.
    open: SmallVec<[Prefix<K>; 8]>,
}

impl<K: Key> Iterator for Gaps<'_, K> {
    type Item = Prefix<K>;

    fn next(&mut self) -> Option<Prefix<K>> {
        while let Some(part) = self.open.pop() {
            if self.coverage.covers(&part) {
                continue;
            }
            if !self.coverage.covers_any_of(&part) {
                return Some(part);
            }
            let mut halves = part.split()?;
            if !self.from.bit(part.bits) {
                halves.reverse();
            }
            self.open.extend(halves);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key8;
    use proptest::prelude::*;

    /// A set of 8-bit keys.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Set([u128; 2]);

    impl Set {
        const ALL: Self = Self([u128::MAX; 2]);

        fn of(part: Prefix<Key8>) -> Self {
            let (first, size) = (part.first().as_bytes()[0], 1_u32 << (8 - part.bits()));
            let run = u128::MAX >> (128 - size.min(128));
            match (size, first / 128) {
                (256, _) => Self::ALL,
                (_, 0) => Self([run << first, 0]),
                _ => Self([0, run << (first - 128)]),
            }
        }

        fn with(self, other: Self) -> Self {
            Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
        }

        fn meets(self, other: Self) -> bool {
            self.0[0] & other.0[0] != 0 || self.0[1] & other.0[1] != 0
        }

        fn contains(self, key: u8) -> bool {
            self.0[usize::from(key / 128)] >> (key % 128) & 1 == 1
        }
    }

    fn every_prefix() -> Vec<Prefix<Key8>> {
        let of = |bits: u32| (0..1_u32 << bits).map(move |i| (i << (8 - bits), bits));
        let all = (0..=8).flat_map(of);
        all.map(|(first, bits)| Prefix::new(Key8::new([u8::try_from(first).unwrap()]), bits)).collect()
    }

    #[test]
    fn every_8_bit_prefix() {
        for part in every_prefix() {
            let set = Set::of(part);
            let last = (0..=u8::MAX).rev().find(|byte| set.contains(*byte));
            assert_eq!(Some(*part.last().as_bytes()), last.map(|byte| [byte]));
            for byte in 0..=u8::MAX {
                let key = Key8::new([byte]);
                assert_eq!(part.contains(&key), set.contains(byte));
                assert_eq!(part.contains(&key), Prefix::new(key, part.bits()) == part);
                let of_part =
                    (0..=u8::MAX).filter(|other| set.contains(*other)).map(|other| Key8::new([other]));
                assert_eq!(Some(part.nearest_to(&key)), of_part.min_by_key(|other| other.distance(&key)));
            }
            match part.split() {
                None => assert_eq!(part.bits(), 8),
                Some([low, high]) => {
                    assert!(low < high && part < low);
                    assert_eq!(Set::of(low).with(Set::of(high)), set);
                    assert_eq!((low.sibling(), high.sibling()), (Some(high), Some(low)));
                    assert_eq!((low.parent(), high.parent()), (Some(part), Some(part)));
                }
            }
            assert_eq!(part.to_string().len(), part.bits() as usize + usize::from(part.bits() < 8));
        }
        assert_eq!((Prefix::<Key8>::WHOLE.sibling(), Prefix::<Key8>::WHOLE.parent()), (None, None));
        assert_eq!(Prefix::new(Key8::new([7]), 99), Prefix::new(Key8::new([7]), 8));
    }

    /// Checks what must hold for a coverage that is made of these parts.
    fn check(parts: &[Prefix<Key8>], within: Prefix<Key8>, from: Key8) {
        let mut coverage = Coverage::new();
        for part in parts {
            coverage.insert(*part);
        }
        let covered = parts.iter().fold(Set([0; 2]), |sum, part| sum.with(Set::of(*part)));
        let mut seen = Set([0; 2]);
        for part in coverage.parts() {
            assert!(!seen.meets(Set::of(*part)) && coverage.covers(part));
            assert!(part.sibling().is_none_or(|sibling| !coverage.parts().contains(&sibling)), "{parts:?}");
            seen = seen.with(Set::of(*part));
        }
        assert_eq!(seen, covered);
        assert!(coverage.parts().is_sorted() && coverage.parts().len() <= parts.len());
        // What is covered and the gaps are all of it, and no gap could be larger.
        let mut last = None;
        for gap in coverage.gaps(within, from) {
            let set = Set::of(gap);
            assert!(!set.meets(seen) && within.covers(&gap));
            let larger = gap.parent().filter(|parent| within.covers(parent));
            assert!(larger.is_none_or(|parent| Set::of(parent).meets(covered)));
            let distance = gap.nearest_to(&from).distance(&from);
            assert!(last.is_none_or(|last| last < distance), "{parts:?}");
            last = Some(distance);
            seen = seen.with(set);
        }
        assert_eq!(seen.with(Set::of(within)), seen);
    }

    #[test]
    fn every_pair_of_8_bit_prefixes() {
        let all = every_prefix();
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.covers(b), Set::of(*a).with(Set::of(*b)) == Set::of(*a));
                // Each pair in one order, half of them in either.
                if (i < j) == ((i + j) % 2 == 0) {
                    let from = u8::try_from((i * 31 + j) % 256).unwrap();
                    check(&[*a, *b], Prefix::WHOLE, Key8::new([from]));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn coverage_is_what_was_put_in(
            picks in proptest::collection::vec((any::<u8>(), 1..=8_u32), 0..60),
            within: (u8, u8),
            from: u8,
        ) {
            let parts: Vec<_> = picks.iter().map(|(key, bits)| Prefix::new(Key8::new([*key]), *bits)).collect();
            let within = Prefix::new(Key8::new([within.0]), u32::from(within.1 % 9));
            check(&parts, within, Key8::new([from]));
        }
    }
}
