//! Who there is: the [`Family`] of a simulated network, whose nodes are numbers.

use crate::family::{Family, Group};
use crate::key::Bits;
use core::fmt;

/// The key of a simulated node.
pub type Key64 = Bits<8>;

/// The family of a simulated network: a node is a [`Handle`] of four bytes, a key has 64 bits, and a message is a
/// number. A record of the routing table takes 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net;

impl Family for Net {
    type Key = Key64;
    type Node = Handle;
    type Message = u32;

    fn key(node: &Handle) -> Key64 {
        node.key()
    }

    fn group(node: &Handle) -> Option<Group> {
        node.group().map(Group)
    }
}

/// A node of a simulated network, by number. Its key follows from the number, by a fixed mixing function that can be
/// inverted: no table of keys is needed, and no two handles have the same key.
///
/// | numbers | what they stand for |
/// | --- | --- |
/// | below 2^23 | nodes that may exist; a network of n nodes takes n in a row |
/// | 2^23 to 2^24 | points of the key space: targets of lookups; nobody is there |
/// | 2^24 to 2^31 | made-up nodes, as liars name them, in 127 address groups; nobody is there but [Sybils](super::Sybils) |
/// | from 2^31 | accomplices: 128 next to each node and each point, closer to its key than anybody else |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Handle(pub u32);

impl Handle {
    /// How many nodes a network can have at most.
    pub const NODES: u32 = 1 << 23;
    const POINTS: u32 = 1 << 24;
    const ACCOMPLICES: u32 = 1 << 31;
    const PER_NODE: u32 = 128;
    /// Accomplices stand at this distance times 1 to 128: far less than lies between two nodes.
    const STEP: u64 = 1 << 16;

    /// A point of the key space where nobody is; the number is taken modulo 2^23.
    pub const fn point(number: u32) -> Self {
        Self(Self::NODES + number % Self::NODES)
    }

    /// A node that does not exist; the number is taken modulo 2^31 - 2^24.
    pub const fn made_up(number: u32) -> Self {
        Self(Self::POINTS + number % (Self::ACCOMPLICES - Self::POINTS))
    }

    /// One of the 128 accomplices next to a node or a point; `None` next to anybody else. The number is taken
    /// modulo 128.
    pub const fn accomplice(self, number: u32) -> Option<Self> {
        if self.0 < Self::POINTS {
            Some(Self(Self::ACCOMPLICES + self.0 * Self::PER_NODE + number % Self::PER_NODE))
        } else {
            None
        }
    }

    /// Whether this is an accomplice.
    pub const fn is_accomplice(self) -> bool {
        self.0 >= Self::ACCOMPLICES
    }

    /// The address group of a made-up node, 1 to 127: what [`Family::group`] is asked. Others have none.
    pub const fn group(self) -> Option<u64> {
        let upper = self.0 / Self::POINTS;
        if upper > 0 && !self.is_accomplice() { Some(upper as u64) } else { None }
    }

    /// The `count` made-up nodes of a group that stand closest to a key, at most 4,096 of 2^24, closest first: as one finds
    /// them who tries identities until they are close.
    pub(crate) fn tried(group: u8, near: Self, count: u32) -> Vec<Self> {
        let (near, first) = (near.position(), u32::from(group) * Self::POINTS);
        let far = |handle: &Self| handle.position() ^ near;
        // As many as are wanted lie within this distance, beyond doubt.
        let within = u64::MAX / u64::from(Self::POINTS) * u64::from(2 * count + 64);
        let numbers = first..first + Self::POINTS;
        let mut all: Vec<_> = numbers.map(Self).filter(|handle| far(handle) < within).collect();
        all.sort_unstable_by_key(far);
        all.truncate(count as usize);
        all
    }

    /// Where it stands in the key space.
    pub const fn key(self) -> Key64 {
        Bits::new(self.position().to_be_bytes())
    }

    /// The node or point at this key, if there can be one.
    pub const fn at(key: &Key64) -> Option<Self> {
        let number = unmix(u64::from_be_bytes(*key.as_bytes()));
        #[allow(clippy::cast_possible_truncation)] // less than 2^24
        if number < Self::POINTS as u64 { Some(Self(number as u32)) } else { None }
    }

    /// The key as a number.
    pub(crate) const fn position(self) -> u64 {
        match self.0.checked_sub(Self::ACCOMPLICES) {
            None => mix(self.0 as u64),
            Some(number) => {
                let distance = (number % Self::PER_NODE + 1) as u64 * Self::STEP;
                mix((number / Self::PER_NODE) as u64) ^ distance
            }
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// 2^64 divided by the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of `SplitMix64` (Steele, Lea, Flood 2014): a permutation of the 64-bit numbers.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`mix`].
const fn unmix(mixed: u64) -> u64 {
    let mut z = mixed ^ (mixed >> 31) ^ (mixed >> 62);
    z = z.wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    z = z ^ (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_mul(inverse(GOLDEN)).wrapping_sub(1)
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
const fn inverse(odd: u64) -> u64 {
    let mut guess = odd;
    let mut round = 0;
    while round < 6 {
        guess = guess.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(guess)));
        round += 1;
    }
    guess
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn keys_lead_back_to_handles() {
        for number in (0..1 << 24).step_by(4_099) {
            let handle = Handle(number);
            assert_eq!(Handle::at(&handle.key()), Some(handle));
        }
        assert_eq!(Handle::at(&Handle::made_up(7).key()), None);
        for number in [0, 1, u64::MAX, GOLDEN] {
            assert_eq!(unmix(mix(number)), number);
        }
    }

    #[test]
    fn only_made_up_nodes_have_a_group() {
        let group = |number| Handle(number).group();
        assert_eq!([0, (1 << 24) - 1, 1 << 31, u32::MAX].map(group), [None; 4]);
        assert_eq!([1 << 24, (1 << 25) - 1, (1 << 31) - 1].map(group), [Some(1), Some(1), Some(127)]);
    }

    #[test]
    fn tried_nodes_are_closer_than_chance() {
        let victim = Handle(12_345);
        let tried = Handle::tried(3, victim, 200);
        assert!(tried.is_sorted_by_key(|handle| handle.key().distance(&victim.key())) && tried.len() == 200);
        assert!(tried.iter().all(|handle| handle.group() == Some(3)));
        // One of 2^16 keys shares 16 bits with the victim's: 256 of a group.
        assert!(tried.iter().all(|handle| handle.key().common_prefix_len(&victim.key()) >= 16));
        assert_eq!(Handle::tried(3, victim, 4_096).len(), 4_096);
    }

    #[test]
    fn accomplices_are_closer_than_anybody_else() {
        let victim = Handle::point(77);
        for number in 0..128 {
            let accomplice = victim.accomplice(number).map(|accomplice| (accomplice, accomplice.key()));
            assert!(accomplice.is_some_and(|(who, key)| {
                who.is_accomplice() && key.common_prefix_len(&victim.key()) >= 40 && who != victim
            }));
        }
        assert_eq!(Handle::made_up(0).accomplice(0), None);
    }
}
