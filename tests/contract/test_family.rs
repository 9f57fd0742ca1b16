//! The family of the scenarios, with keys of any width, and random keys and span contexts.

use kad_proto::{Bits, Context, Family, Group};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::collections::BTreeMap;

/// How often each named situation occurred.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

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

impl<const N: usize> Peer<N> {
    /// An address that the family does not admit.
    pub(crate) const REFUSED: u8 = 0xee;
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
        node.address != Peer::<N>::REFUSED
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

/// A random key. Some differ in the last bits only, and some are near the ends of the key space.
pub(crate) fn key<const N: usize>(random: &mut Random) -> Bits<N> {
    let mut bytes = random.bytes();
    match random.below(8) {
        0 => bytes[..N - 1].fill(0xff),
        1 => bytes[..N - 1].fill(0),
        2 | 3 => bytes[1..N].fill(0),
        _ => {}
    }
    Bits::new(bytes)
}

/// A context: a parent or a link; valid, with a trace state, or invalid in one of two ways.
pub(crate) fn context(how: u8, trace: u128, span: u64) -> Context {
    let state = match how % 3 {
        0 => TraceState::from_key_value([("vendor", span.to_string())]).unwrap_or_default(),
        _ => TraceState::default(),
    };
    let (trace, span) = match how / 3 % 8 {
        0 => (TraceId::INVALID, SpanId::INVALID),
        1 => (TraceId::from(trace), SpanId::INVALID),
        _ => (TraceId::from(trace), SpanId::from(span)),
    };
    let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, how.is_multiple_of(2), state);
    if how / 24 == 0 { Context::Link(span) } else { Context::Parent(span) }
}
