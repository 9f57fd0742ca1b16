//! The model: one simulated network, one witness, one way to turn bytes into a scenario.
//!
//! The property tests, the corpus replay and the fuzz targets all run [`check`]: bytes become a
//! [`Scenario`](bytes::Scenario), the [world](world) plays it against a machine, and the [witness](witness::Witness)
//! sees every event in and out and asserts the contract after every call. Where an assertion fails, its message names
//! the rule: those of the context and deadline rules by their number (`context 3`, `deadline 5`), the others by name.
//!
//! - [`bytes`]: any bytes are a scenario; a header, then steps of four bytes, so that what shrinks stays alike.
//! - [`subject`]: query, pool and coordinator in one shape.
//! - [`world`]: nodes that are honest, dead, or liars, and what a schedule does to their answers.
//! - [`witness`]: the rules of operations, requests, contexts, limits and wake-ups.
//! - [`known`]: what one lookup has been told, hence whom it may ask and how it may end.

#![allow(dead_code)] // each test binary uses its part

pub(crate) mod bytes;
pub(crate) mod known;
pub(crate) mod subject;
pub(crate) mod witness;
pub(crate) mod world;

#[allow(unused_imports)] // as above
pub(crate) use bytes::{HEADER, Kind, STEP, decode};
pub(crate) use world::run;

use kad_proto::{Bits, Family, Group};
use std::collections::BTreeMap;

/// How often each noteworthy thing happened, by name.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// Plays the scenario that the bytes are, against this machine, under the eyes of the witness.
pub(crate) fn check(kind: Kind, bytes: &[u8]) -> Tally {
    run(&decode(kind, bytes))
}

/// Networks with keys of `N` bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Net<const N: usize>;

/// A node id: two of them may have the same key. The address names the diversity group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer<const N: usize> {
    pub(crate) key: Bits<N>,
    pub(crate) address: u8,
}

impl<const N: usize> Family for Net<N> {
    type Key = Bits<N>;
    type Node = Peer<N>;
    type Message = u64;

    fn key(node: &Peer<N>) -> Bits<N> {
        node.key
    }

    fn group(node: &Peer<N>) -> Option<Group> {
        (!node.address.is_multiple_of(4)).then(|| Group(u64::from(node.address)))
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}
