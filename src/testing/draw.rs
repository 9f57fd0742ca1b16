//! [`Draw`]: random numbers, keys and contexts from a seed.

use crate::context::Context;
use crate::vocabulary::key::Key;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;

/// A stream of random numbers from a seed, and what is made of them: keys and span contexts among which the rare ones are frequent.
/// `SplitMix64` (Steele, Lea, Flood 2014). The same seed gives the same stream on any platform.
#[derive(Clone, Debug)]
pub struct Draw(SplitMix64);

impl Draw {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`; 0 if that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let number = self.number().checked_rem(n as u64).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }

    /// The first byte of the next number.
    pub fn byte(&mut self) -> u8 {
        (self.number() >> 56) as u8
    }

    /// A random key. Some differ in the last bits only, and some are near the ends of the key space.
    pub fn key<K: Key>(&mut self) -> K {
        let mut bytes: Vec<u8> = (0..K::BITS / 8).map(|_| self.byte()).collect();
        let how = self.below(8);
        let last = bytes.len().saturating_sub(1);
        match how {
            0 => bytes.iter_mut().take(last).for_each(|byte| *byte = 0xff),
            1 => bytes.iter_mut().take(last).for_each(|byte| *byte = 0),
            2 | 3 => bytes.iter_mut().skip(1).for_each(|byte| *byte = 0),
            _ => {}
        }
        key_of(&bytes)
    }

    /// A context: a parent or a link; valid, with a trace state, or invalid in one of two ways, as the byte says. A valid one has
    /// these ids.
    pub fn context(how: u8, trace: u128, span: u64) -> Context {
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
}

/// The key with these bytes, the most significant first; zeros follow where they are too few.
pub(super) fn key_of<K: Key>(bytes: &[u8]) -> K {
    let mut words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(word)
    });
    // All bits but the first are drawn.
    let key = K::ZERO.random_with_cpl(0, || words.next().unwrap_or_default());
    if bytes.first().is_some_and(|first| *first >= 0x80) { key } else { key.with_flipped(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::key::{Key8, Key160};

    /// The first numbers of `SplitMix64` of this seed: what is stored of scenarios depends on them.
    #[test]
    fn the_stream_of_a_seed_is_fixed() {
        let mut draw = Draw::new(1_234_567);
        let first = [(); 3].map(|()| draw.number());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_key_has_the_bytes_that_are_given() {
        for byte in 0..=255 {
            assert_eq!(key_of::<Key8>(&[byte]), Key8::new([byte]));
        }
        let mut next = 0x70_u8;
        let bytes = [0; 20].map(|_: u8| {
            next = next.wrapping_add(0x11);
            next
        });
        assert_eq!(key_of::<Key160>(&bytes), Key160::new(bytes));
    }
}
