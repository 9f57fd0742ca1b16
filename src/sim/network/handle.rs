//! [`Net`], the [`Family`] of a simulated network, and [`Handle`], its node: a number from which the key follows.

use crate::sim::split_mix::{mix, unmix};
use crate::vocabulary::family::{AnswerScope, Family, Group};
use crate::vocabulary::key::Bits;
use core::fmt;

/// The key of a simulated node: 64 bits.
pub type Key64 = Bits<8>;

/// The family of a simulated network: a node is a [`Handle`] of four bytes, a key has 64 bits, and a message is a
/// `u32`. An entry of the routing table takes 32 bytes. Its value says how many nodes an answer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Net {
    answers: u16,
}

impl Net {
    /// A network whose answers name at most this many nodes.
    pub const fn answering(nodes: u16) -> Self {
        Self { answers: nodes }
    }
}

impl Default for Net {
    /// Answers name 20 nodes.
    fn default() -> Self {
        Self::answering(20)
    }
}

impl Family for Net {
    type Key = Key64;
    type Target = Key64;
    type Node = Handle;
    type Message = u32;

    fn key(node: &Handle) -> Key64 {
        node.key()
    }

    fn group(node: &Handle) -> Option<Group> {
        node.group().map(Group)
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(usize::from(self.answers))
    }
}

/// A node of a simulated network: a number. Its key follows from the number by a fixed mixing function with an
/// inverse, so that no table of keys is needed, and no two handles have the same key.
///
/// | numbers | meaning |
/// | --- | --- |
/// | below 2^23 | nodes that may exist; a network of n nodes uses n consecutive numbers |
/// | 2^23 to 2^24 | points of the key space: targets of lookups; no node has such a key |
/// | 2^24 to 2^31 | made-up nodes, as dishonest nodes return them, in 127 address groups; only [Sybils] exist |
/// | from 2^31 | accomplices: 128 next to each node and each point, closer to its key than any other node |
///
/// [Sybils]: crate::sim::Sybils
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Handle(pub u32);

impl Handle {
    /// The maximum number of nodes of a network: 2^23.
    pub const NODES: u32 = 1 << 23;
    const POINTS: u32 = 1 << 24;
    const ACCOMPLICES: u32 = 1 << 31;
    const PER_NODE: u32 = 128;
    /// Accomplices are at this XOR distance times 1 to 128: far less than the distance between two nodes.
    const STEP: u64 = 1 << 16;

    /// A point of the key space that is no node; the number is taken modulo 2^23.
    pub const fn point(number: u32) -> Self {
        Self(Self::NODES + number % Self::NODES)
    }

    /// A node that does not exist; the number is taken modulo 2^31 - 2^24.
    pub const fn made_up(number: u32) -> Self {
        Self(Self::POINTS + number % (Self::ACCOMPLICES - Self::POINTS))
    }

    /// One of the 128 accomplices next to a node or a point; `None` if `self` is a made-up node or an
    /// accomplice. The number is taken modulo 128.
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

    /// The address group of a made-up node, 1 to 127, as [`Family::group`] returns it. Other handles have none.
    pub const fn group(self) -> Option<u64> {
        let upper = self.0 / Self::POINTS;
        if upper > 0 && !self.is_accomplice() { Some(upper as u64) } else { None }
    }

    /// The `count` made-up nodes of a group that are closest to a key, at most 4,096 of 2^24, closest first.
    /// An attacker gets such nodes by generating identities until enough of them are close to the key.
    pub(crate) fn closest_made_up(group: u8, near: Self, count: u32) -> Vec<Self> {
        let (near, first) = (near.position(), u32::from(group) * Self::POINTS);
        let far = |handle: &Self| handle.position() ^ near;
        // At least `count` of them lie within this distance (2 * count + 64 are expected to).
        let within = u64::MAX / u64::from(Self::POINTS) * u64::from(2 * count + 64);
        let numbers = first..first + Self::POINTS;
        let mut all: Vec<_> = numbers.map(Self).filter(|handle| far(handle) < within).collect();
        all.sort_unstable_by_key(far);
        all.truncate(count as usize);
        all
    }

    /// Its key.
    pub const fn key(self) -> Key64 {
        Bits::new(self.position().to_be_bytes())
    }

    /// The node or point with this key; `None` if the key is that of no node and no point.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::key::Key;

    #[test]
    fn keys_lead_back_to_handles() {
        for number in (0..1 << 24).step_by(4_099) {
            let handle = Handle(number);
            assert_eq!(Handle::at(&handle.key()), Some(handle));
        }
        assert_eq!(Handle::at(&Handle::made_up(7).key()), None);
    }

    #[test]
    fn only_made_up_nodes_have_a_group() {
        let group = |number| Handle(number).group();
        assert_eq!([0, (1 << 24) - 1, 1 << 31, u32::MAX].map(group), [None; 4]);
        assert_eq!([1 << 24, (1 << 25) - 1, (1 << 31) - 1].map(group), [Some(1), Some(1), Some(127)]);
    }

    #[test]
    fn closest_made_up_nodes_are_closer_than_chance() {
        let victim = Handle(12_345);
        let closest_made_up = Handle::closest_made_up(3, victim, 200);
        assert!(
            closest_made_up.is_sorted_by_key(|handle| handle.key().distance(&victim.key()))
                && closest_made_up.len() == 200
        );
        assert!(closest_made_up.iter().all(|handle| handle.group() == Some(3)));
        // One of 2^16 keys shares 16 bits with the victim's: 256 of a group.
        assert!(closest_made_up.iter().all(|handle| handle.key().common_prefix_len(&victim.key()) >= 16));
        assert_eq!(Handle::closest_made_up(3, victim, 4_096).len(), 4_096);
    }

    #[test]
    fn accomplices_are_closer_than_any_other_node() {
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
