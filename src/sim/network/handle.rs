//! [`Net`], the [`Family`] of a simulated network, and [`Handle`], its node: a number from which the key follows.

use crate::sim::split_mix::{mix, unmix};
use crate::vocabulary::family::{AnswerScope, Family, Group};
use crate::vocabulary::key::Bits;
use core::fmt;

/// The key of a simulated node: 64 bits.
pub type Key64 = Bits<8>;

/// The family of a simulated network: a node is a [`Handle`] of four bytes, a key has 64 bits, and a message is a
/// `u32`. An entry of the routing table takes 24 bytes. Its value says how many nodes an answer names.
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
/// | 2^24 to 2^31 | made-up nodes, as dishonest nodes return them, in 1,024 address groups; they exist as [Sybils], or where a behaviour [says so] |
/// | 2^31 to 3 · 2^30 | accomplices: 64 next to each node and each point, closer to its key than any other node |
/// | from 3 · 2^30 | nodes at other addresses: the same keys, 127 further addresses each |
///
/// Identity is not proved in this network: a handle at another address is another node id with the same key, as in
/// BEP 5.
///
/// [Sybils]: crate::sim::Sybils
/// [says so]: crate::sim::Behaviour::has_made_up_nodes
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[cfg_attr(feature = "record", derive(serde::Deserialize))]
pub struct Handle(pub u32);

impl Handle {
    /// The maximum number of nodes of a network: 2^23.
    pub const NODES: u32 = 1 << 23;
    const POINTS: u32 = 1 << 24;
    const ACCOMPLICES: u32 = 1 << 31;
    const PER_NODE: u32 = 64;
    /// Accomplices are at this XOR distance times 1 to 64: far less than the distance between two nodes.
    const STEP: u64 = 1 << 16;
    const ELSEWHERE: u32 = 3 << 30;
    /// How many addresses a node can have.
    const ADDRESSES: u32 = 128;
    /// How many address groups the made-up nodes are in.
    pub const GROUPS: u16 = 1_024;

    /// A point of the key space that is no node; the number is taken modulo 2^23.
    pub const fn point(number: u32) -> Self {
        Self(Self::NODES + number % Self::NODES)
    }

    /// A node that does not exist; the number is taken modulo 2^31 - 2^24.
    pub const fn made_up(number: u32) -> Self {
        Self(Self::POINTS + number % (Self::ACCOMPLICES - Self::POINTS))
    }

    /// One of the 64 accomplices next to a node or a point; `None` if `self` is a made-up node or an
    /// accomplice. The number is taken modulo 64.
    pub const fn accomplice(self, number: u32) -> Option<Self> {
        if self.0 < Self::POINTS {
            Some(Self(Self::ACCOMPLICES + self.0 * Self::PER_NODE + number % Self::PER_NODE))
        } else {
            None
        }
    }

    /// Whether this is an accomplice.
    pub const fn is_accomplice(self) -> bool {
        self.0 >= Self::ACCOMPLICES && self.0 < Self::ELSEWHERE
    }

    /// Whether this is a made-up node.
    pub const fn is_made_up(self) -> bool {
        self.0 >= Self::POINTS && self.0 < Self::ACCOMPLICES
    }

    /// The same node at another address, 0 to 127; 0 is the one that it has in the beginning. The number is taken
    /// modulo 128. `None` if this is no node.
    pub const fn at_address(self, address: u32) -> Option<Self> {
        let node = self.at_first_address();
        if node.0 >= Self::NODES {
            return None;
        }
        match address % Self::ADDRESSES {
            0 => Some(node),
            address => Some(Self(Self::ELSEWHERE + node.0 * Self::ADDRESSES + address)),
        }
    }

    /// The address of a node, 0 to 127; 0 for other handles.
    pub const fn address(self) -> u32 {
        if self.0 < Self::ELSEWHERE { 0 } else { (self.0 - Self::ELSEWHERE) % Self::ADDRESSES }
    }

    /// The node at its first address; other handles unchanged.
    #[must_use]
    pub const fn at_first_address(self) -> Self {
        if self.0 < Self::ELSEWHERE { self } else { Self((self.0 - Self::ELSEWHERE) / Self::ADDRESSES) }
    }

    /// The address group of a made-up node, 1 to 1,024, as [`Family::group`] returns it. Other handles have none.
    pub const fn group(self) -> Option<u64> {
        if self.is_made_up() { Some(self.0 as u64 % Self::GROUPS as u64 + 1) } else { None }
    }

    /// Made-up nodes of the groups 1 to `groups` at about these XOR distances from a position, in this order. Their
    /// groups take turns. An attacker gets such nodes by generating identities until one is close enough.
    pub(crate) fn made_up_at(groups: u16, position: u64, distances: &[u64]) -> Vec<Self> {
        let mut nearest = vec![(u64::MAX, Self(0)); distances.len()];
        let groups = u32::from(groups.clamp(1, Self::GROUPS));
        // As many identities as one generates in an hour: 2^22, shared by the groups.
        let (each, stride) = ((1 << 22) / groups, u32::from(Self::GROUPS));
        for turn in 0..groups {
            let own = || (0..).zip(distances).filter(|(index, _): &(u32, _)| index % groups == turn);
            let mut own: Vec<_> =
                own().map(|(index, distance)| (position ^ distance, index as usize)).collect();
            own.sort_unstable();
            for number in 0..each.min((Self::ACCOMPLICES - Self::POINTS) / stride) {
                let handle = Self(Self::POINTS + turn + number * stride);
                let at = handle.position();
                let place = own.partition_point(|(wanted, _)| *wanted < at);
                for (wanted, index) in own.iter().skip(place.saturating_sub(1)).take(2) {
                    if let Some(best) = nearest.get_mut(*index)
                        && at ^ wanted < best.0
                    {
                        *best = (at ^ wanted, handle);
                    }
                }
            }
        }
        nearest.into_iter().map(|(_, handle)| handle).collect()
    }

    /// The `count` made-up nodes, at most 4,096, of the groups 1 to `groups` that are closest to a position, closest
    /// first, with at most the same number, rounded up, from each group.
    pub(crate) fn closest_made_up(groups: u16, position: u64, count: u32) -> Vec<Self> {
        let groups = u32::from(groups.clamp(1, Self::GROUPS));
        let (each, stride) = (count.div_ceil(groups), u32::from(Self::GROUPS));
        // Of each group so many identities that the closest of all groups are far closer than chance.
        let (numbers, stride) =
            (((1 << 24) / groups).min((Self::ACCOMPLICES - Self::POINTS) / stride), stride);
        let far = |handle: &Self| handle.position() ^ position;
        let mut all = Vec::new();
        for group in 0..groups {
            // At least `each` of them lie within this distance (2 * each + 64 are expected to).
            let within = u64::MAX / u64::from(numbers) * u64::from((2 * each + 64).min(numbers));
            let members = (0..numbers).map(|number| Self(Self::POINTS + group + number * stride));
            let mut near: Vec<_> = members.filter(|handle| far(handle) <= within).collect();
            near.sort_unstable_by_key(far);
            near.truncate(each as usize);
            all.append(&mut near);
        }
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
        if self.0 < Self::ACCOMPLICES {
            mix(self.0 as u64)
        } else if self.0 < Self::ELSEWHERE {
            let number = self.0 - Self::ACCOMPLICES;
            let distance = (number % Self::PER_NODE + 1) as u64 * Self::STEP;
            mix((number / Self::PER_NODE) as u64) ^ distance
        } else {
            mix(self.at_first_address().0 as u64)
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
#[allow(clippy::unwrap_used)] // a test may fail so
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
        let last = (1 << 24) + 1_023;
        assert_eq!([1 << 24, last, last + 1, (1 << 31) - 1].map(group), [1, 1_024, 1, 1_024].map(Some));
    }

    #[test]
    fn closest_made_up_nodes_are_closer_than_chance() {
        let victim = Handle(12_345);
        for (groups, most) in [(1, 200), (40, 5), (200, 1)] {
            let closest = Handle::closest_made_up(groups, victim.position(), 200);
            let distance = |handle: &Handle| handle.key().distance(&victim.key());
            assert!(closest.is_sorted_by_key(distance) && closest.len() == 200);
            let of = |group| closest.iter().filter(|handle| handle.group() == Some(group)).count();
            assert!((1..=u64::from(groups)).all(|group| of(group) == most));
            // Far closer than the closest of 10,000 nodes, which shares 13 bits with it.
            assert!(closest.iter().take(20).all(|node| node.key().common_prefix_len(&victim.key()) >= 15));
        }
        assert_eq!(Handle::closest_made_up(1, victim.position(), 4_096).len(), 4_096);
    }

    #[test]
    fn made_up_nodes_are_where_they_are_wanted() {
        let distances: Vec<_> = (1..=30).map(|rank| rank * (u64::MAX / 10_000)).collect();
        let position = Handle::point(5).position();
        let found = Handle::made_up_at(30, position, &distances);
        for (handle, wanted) in found.iter().zip(&distances) {
            let off = (handle.position() ^ position).abs_diff(*wanted);
            assert!(off < u64::MAX / 20_000, "{handle} is {off} off");
        }
        let groups: std::collections::BTreeSet<_> = found.iter().map(|handle| handle.group()).collect();
        assert_eq!(groups.len(), 30);
    }

    #[test]
    fn a_node_has_its_key_at_every_address() {
        let node = Handle(4_711);
        for address in 0..128 {
            let there = node.at_address(address).unwrap();
            assert_eq!((there.key(), there.address(), there.at_first_address()), (node.key(), address, node));
            assert_eq!(
                (there.is_accomplice(), there.group(), there.at_address(0)),
                (false, None, Some(node))
            );
        }
        assert_eq!(Handle(Handle::NODES - 1).at_address(127), Some(Handle(u32::MAX)));
        assert_eq!(Handle::point(1).at_address(1), None);
    }

    #[test]
    fn accomplices_are_closer_than_any_other_node() {
        let victim = Handle::point(77);
        for number in 0..64 {
            let accomplice = victim.accomplice(number).map(|accomplice| (accomplice, accomplice.key()));
            assert!(accomplice.is_some_and(|(who, key)| {
                who.is_accomplice() && key.common_prefix_len(&victim.key()) >= 40 && who != victim
            }));
        }
        assert_eq!(Handle::made_up(0).accomplice(0), None);
    }
}
