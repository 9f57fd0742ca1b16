//! [`SeededHash`]: a keyed hash for hash tables whose keys are chosen by peers.

use core::hash::{BuildHasher, Hasher};

/// A small seeded hash: every 8 bytes are folded into the state by one multiplication. The tables that use it are
/// never iterated, so collisions cost time only, and choosing keys that collide requires knowledge of the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededHash(pub(crate) u64);

impl BuildHasher for SeededHash {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        // Two secrets are derived from the one seed. The factor must be odd.
        let mut secrets = FoldHasher { state: self.0 ^ FoldHasher::FACTOR, factor: FoldHasher::FACTOR };
        secrets.write_u64(self.0);
        let state = secrets.state;
        secrets.write_u64(!self.0);
        FoldHasher { state, factor: secrets.state | 1 }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FoldHasher {
    state: u64,
    factor: u64,
}

impl FoldHasher {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        #[allow(clippy::cast_possible_truncation)] // both halves are folded in
        let folded = (product >> 64) as u64 ^ product as u64;
        self.state = folded.rotate_left(23);
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
