//! Chance: every draw comes from a stream of its own, named by the seed, a purpose and ids.
//!
//! Changing one parameter therefore changes the draws that it concerns and no others: the round trip of the second
//! request of lookup 7 to node 12 is the same whatever else happens. What decides uses IEEE arithmetic and the `libm`
//! crate only, so that every platform draws the same.

use super::nodes::mix;
use core::time::Duration;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What a stream of random numbers is for. The numbers are part of the reproducibility promise.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Where the network's handles begin.
    Base = 1,
    /// A node's view, by node.
    View = 2,
    /// Whether a node is dead from the start, by node.
    Dead = 3,
    /// Where a lookup starts, by lookup.
    Starter = 4,
    /// What a lookup is after, by lookup.
    Target = 5,
    /// When the next lookup begins, by lookup.
    Pace = 6,
    /// What the link does to one exchange, by operation, node and try.
    Exchange = 7,
    /// The round trips that a node has measured before the run, by node.
    Warm = 8,
    /// Whether a node is slow, cannot be asked, and to which party it belongs, by node.
    Nature = 9,
    /// How long a node is there and away, by node and how often it has come or gone.
    Churn = 10,
    /// What a node that is not honest answers, by operation, node and time.
    Answer = 11,
    /// Whom a node knows when it joins, by node.
    Seeds = 12,
    /// The way back to an asker, by operation and node.
    Meet = 13,
    /// When a lookup is stopped by its caller, by lookup.
    Stop = 14,
    /// What the link does to a request that is not for a lookup, by asker and how many of these it has sent.
    Upkeep = 15,
    /// To whom a Sybil makes itself known, by how often that has happened.
    Sybil = 16,
    /// The seed of a node's own chance, by node.
    Routing = 17,
    /// The key of a record, by record.
    Record = 18,
    /// Where a broadcast starts, by broadcast.
    Publisher = 19,
    /// What the link does to one exchange, by broadcast, node and try.
    Broadcast = 20,
    /// When a broadcast is stopped by its caller, by broadcast.
    StopBroadcast = 21,
    /// What a node looks up before its first broadcast, by node and lookup.
    Learn = 22,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub(crate) fn new<const N: usize>(seed: u64, purpose: Purpose, ids: [u64; N]) -> Self {
        let named = ids.iter().fold(mix(seed) ^ purpose as u64, |name, id| mix(name) ^ id);
        Self(Xoshiro256PlusPlus::seed_from_u64(mix(named)))
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `n`; 0 where there is none.
    #[allow(clippy::cast_possible_truncation)] // less than n
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u32
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponential, of mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }

    /// Normal, of mean 0 and deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(2.0 * self.exponential());
        radius * libm::cos(core::f64::consts::TAU * self.unit())
    }
}

/// A duration times a factor, to the nanosecond, saturating; never negative.
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, as it should
    Duration::from_nanos((crate::time::nanos(duration) as f64 * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_for_ever() {
        let mut draw = Draw::new(1, Purpose::View, [2, 3]);
        assert_eq!(draw.below(1_000_000), 452_241);
    }

    #[test]
    fn moments_are_as_they_should() {
        let mut draw = Draw::new(7, Purpose::Exchange, []);
        let n = 100_000;
        let (mut uniform, mut exponential, mut normal, mut square) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            uniform += draw.unit();
            exponential += draw.exponential();
            let x = draw.normal();
            normal += x;
            square += x * x;
        }
        let mean = |sum: f64| sum / f64::from(n);
        assert!((mean(uniform) - 0.5).abs() < 0.005);
        assert!((mean(exponential) - 1.0).abs() < 0.01);
        assert!(mean(normal).abs() < 0.01 && (mean(square) - 1.0).abs() < 0.02);
    }
}
