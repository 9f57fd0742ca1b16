//! The family of the scenarios, with keys of any width.

use kad_proto::testing::{REFUSED, Sample};
use kad_proto::{Bits, Family, Group};

/// A family with keys of `N` bytes.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Net<const N: usize>;

/// A node: two of them may have the same key. The address determines the diversity group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer<const N: usize> {
    pub(crate) key: Bits<N>,
    pub(crate) address: u8,
}

impl<const N: usize> Family for Net<N> {
    type Key = Bits<N>;
    type Target = Bits<N>;
    type Node = Peer<N>;
    type Message = u64;

    fn key(node: &Peer<N>) -> Bits<N> {
        node.key
    }

    fn admits(&self, node: &Peer<N>) -> bool {
        node.address != REFUSED
    }

    fn group(node: &Peer<N>) -> Option<Group> {
        (!node.address.is_multiple_of(4)).then(|| Group(u64::from(node.address)))
    }
}

impl<const N: usize> Sample for Net<N> {
    fn node(key: Bits<N>, address: u8) -> Peer<N> {
        Peer { key, address }
    }

    fn target(key: Bits<N>) -> Bits<N> {
        key
    }

    fn message(number: u64) -> u64 {
        number
    }

    fn address(node: &Peer<N>) -> u8 {
        node.address
    }
}
