//! The mixing function of `SplitMix64` and its inverse: keys of simulated nodes, random streams and the
//! fingerprint are made with it.

/// 2^64 divided by the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of `SplitMix64` (Steele, Lea, Flood 2014): a permutation of the 64-bit numbers.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`mix`].
pub(crate) const fn unmix(mixed: u64) -> u64 {
    let mut z = mixed ^ (mixed >> 31) ^ (mixed >> 62);
    z = z.wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    z = z ^ (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_mul(inverse(GOLDEN)).wrapping_sub(1)
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
const fn inverse(odd: u64) -> u64 {
    let mut guess = odd;
    let mut round = 0;
    while round < 6 {
        guess = guess.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(guess)));
        round += 1;
    }
    guess
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_inverted() {
        for number in [0, 1, u64::MAX, GOLDEN] {
            assert_eq!(unmix(mix(number)), number);
        }
    }
}
