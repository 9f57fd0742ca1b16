//! Random numbers: every draw comes from its own stream, identified by the seed, a [`Stream`] and ids.
//!
//! Changing one parameter therefore changes the draws that it concerns and no others: the round trip of the second
//! request of lookup 7 to node 12 is the same whatever else happens. Decisions use IEEE arithmetic and the `libm`
//! crate only, so that every platform draws the same numbers.

use crate::sim::split_mix::mix;
use core::time::Duration;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What a stream of random numbers decides; "by ..." lists the ids that it takes. The discriminants are part of
/// the reproducibility promise.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// The first handle of the network.
    Base = 1,
    /// A node's ideal routing table, by node.
    IdealTable = 2,
    /// Whether a node dies when the network is built, by node.
    Dead = 3,
    /// Which node starts a lookup, by lookup.
    Starter = 4,
    /// The target of a lookup, by lookup.
    Target = 5,
    /// The time from one start to the next, by lookup or broadcast.
    Interarrival = 6,
    /// What the link does to one exchange, by operation, node and try.
    Exchange = 7,
    /// The round trips that a node has measured before the run, by node.
    PreseedRtt = 8,
    /// Whether a node is slow, whether it is reachable, and its party, by node.
    Traits = 9,
    /// How long a node is online and offline, by node and number of changes so far.
    Churn = 10,
    /// The answer of a node that is not honest, by operation, node and time.
    Answer = 11,
    /// The nodes that a joining node knows, by node.
    Seeds = 12,
    /// What the link does to a reverse ping, by operation and node.
    ReversePing = 13,
    /// When a lookup is stopped by its caller, by lookup.
    Stop = 14,
    /// What the link does to a request of the table's maintenance, by asker and number of such requests so far.
    Upkeep = 15,
    /// The node to which a Sybil advertises itself, by number of advertisements so far.
    Sybil = 16,
    /// The seed of a node's engine, by node.
    Engine = 17,
    /// The key of a record, by record.
    Record = 18,
    /// Which node starts a broadcast, by broadcast.
    Publisher = 19,
    /// What the link does to one exchange, by broadcast, node and try.
    Broadcast = 20,
    /// When a broadcast is stopped by its caller, by broadcast.
    StopBroadcast = 21,
    /// The targets of a node's warm-up lookups, by node and lookup.
    Warmup = 22,
    /// A round trip that stays the same, by the node or the pair.
    FixedLatency = 23,
    /// The latency class of a node, by node.
    LatencyClass = 24,
    /// Whether a node is one of a share of them, by use in the scenario and node.
    Who = 25,
    /// What nodes that are not honest do in a turn, by party or set of Sybils and number of the turn.
    Turn = 26,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(crate) fn new<const N: usize>(seed: u64, stream: Stream, ids: [u64; N]) -> Self {
        let named = ids.iter().fold(mix(seed) ^ stream as u64, |name, id| mix(name) ^ id);
        Self(Xoshiro256PlusPlus::seed_from_u64(mix(named)))
    }

    /// Uniform over all of `u64`.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `n`; 0 if `n` is 0.
    #[allow(clippy::cast_possible_truncation)] // less than n
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u32
    }

    /// `true` with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(2.0 * self.exponential());
        radius * libm::cos(core::f64::consts::TAU * self.unit())
    }
}

/// A duration times a factor, to the nanosecond, saturating; never negative.
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, as it should
    Duration::from_nanos((crate::vocabulary::time::nanos(duration) as f64 * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_for_ever() {
        let mut random = Random::new(1, Stream::IdealTable, [2, 3]);
        assert_eq!(random.below(1_000_000), 452_241);
    }

    #[test]
    fn moments_are_as_they_should() {
        let mut random = Random::new(7, Stream::Exchange, []);
        let n = 100_000;
        let (mut uniform, mut exponential, mut normal, mut square) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            uniform += random.unit();
            exponential += random.exponential();
            let x = random.normal();
            normal += x;
            square += x * x;
        }
        let mean = |sum: f64| sum / f64::from(n);
        assert!((mean(uniform) - 0.5).abs() < 0.005);
        assert!((mean(exponential) - 1.0).abs() < 0.01);
        assert!(mean(normal).abs() < 0.01 && (mean(square) - 1.0).abs() < 0.02);
    }
}
