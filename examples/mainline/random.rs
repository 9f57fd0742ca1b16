//! Random numbers without a dependency: a counter, hashed under a key that the operating system gave. They cannot be
//! guessed from outside, which transaction ids want.

use kad_proto::Key160;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

#[derive(Clone, Debug, Default)]
pub(crate) struct Random {
    secret: RandomState,
    drawn: u64,
}

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.drawn += 1;
        self.secret.hash_one(self.drawn)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.number().to_be_bytes()) {
                *to = from;
            }
        }
        bytes
    }

    pub(crate) fn key(&mut self) -> Key160 {
        Key160::new(self.bytes())
    }

    /// Says yes with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        f64::from(u32::from_be_bytes(self.bytes())) / f64::from(u32::MAX) < probability
    }
}
