//! Keys: fixed-size bit strings under the XOR metric (Kademlia paper, section 2.1).

use crate::vocabulary::target::Target;
use core::fmt::{self, Debug};
use core::hash::Hash;

/// The operations that the engine needs on a key. Implemented by [`Bits`] for every size in bytes. Every key is a
/// [`Target`]: itself.
///
/// The trait is sealed, so a type of your own cannot implement it. The methods must agree with each other in every
/// bit (`leading` with `distance`, `common_prefix_len` with `bit`, the order with both), or lookups ask the wrong
/// nodes without any error. `Bits` is as small as the array it holds, so convert: let
/// [`Family::key`](crate::Family::key) return [`Bits::new`] of your type's bytes.
pub trait Key:
    Copy + Eq + Ord + Hash + Debug + Send + Sync + Target<Self> + sealed::Sealed + 'static
{
    /// Length of a key in bits.
    const BITS: u32;
    /// The key whose bits are all 0.
    const ZERO: Self;
    /// The key whose bits are all 1.
    const ONES: Self;

    /// XOR distance. A distance is itself a key; distances compare as big-endian numbers.
    #[must_use]
    fn distance(&self, other: &Self) -> Self;

    /// The first 64 bits, left-aligned (shorter keys are padded with 0 bits). It makes comparing distances cheap:
    /// the leading bits of a distance are the leading bits of the one key XOR those of the other.
    fn leading(&self) -> u64;

    /// Number of leading bits that both keys share (cpl), 0 ..= `BITS`.
    fn common_prefix_len(&self, other: &Self) -> u32;

    /// Bit `index` counted from the most significant; `false` at and beyond `BITS`.
    fn bit(&self, index: u32) -> bool;

    /// The key with bit `index` flipped, counted from the most significant; the same key at and beyond `BITS`.
    #[must_use]
    fn with_flipped(&self, index: u32) -> Self;

    /// A random key that shares exactly `cpl` leading bits with this one. The bits after the first that differs
    /// are taken from the random numbers that `next` returns, so that all such keys are equally likely. The same
    /// key at and beyond `BITS`.
    ///
    /// ```
    /// use kad_proto::{Key, Key8};
    ///
    /// let key = Key8::new([0b1010_0000]).random_with_cpl(2, || 0xff << 56);
    /// assert_eq!(key, Key8::new([0b1001_1111]));
    /// ```
    #[must_use]
    fn random_with_cpl(&self, cpl: u32, next: impl FnMut() -> u64) -> Self;

    /// The first `len` bits of this key, followed by the bits of `tail` from index `len` on. This key if `len` is
    /// `BITS` or more.
    #[must_use]
    fn spliced(&self, len: u32, tail: &Self) -> Self;
}

mod sealed {
    #[cfg(not(feature = "record"))]
    pub trait Sealed {}
    #[cfg(feature = "record")]
    pub trait Sealed: serde::Serialize + serde::de::DeserializeOwned {}
    impl<const N: usize> Sealed for super::Bits<N> {}
}

/// A bit string of `N` bytes, most significant byte first. See [`Key8`], [`Key160`], [`Key256`].
///
/// ```
/// use kad_proto::{Key, Key8};
///
/// let (a, b) = (Key8::new([0b1010_0000]), Key8::new([0b1011_1111]));
/// assert_eq!(a.distance(&b), Key8::new([0b0001_1111]));
/// assert_eq!(a.common_prefix_len(&b), 3);
/// assert!(a.bit(0) && !a.bit(1));
/// assert_eq!(Key8::from_hex("a0"), Ok(a));
/// assert_eq!(a.to_string(), "a0");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits<const N: usize>([u8; N]);

/// An 8-bit key: small enough to test exhaustively.
pub type Key8 = Bits<1>;
/// A 160-bit key: BitTorrent's mainline DHT (BEP 5).
pub type Key160 = Bits<20>;
/// A 256-bit key: libp2p's Kademlia and Ethereum's discv5.
pub type Key256 = Bits<32>;

impl<const N: usize> Bits<N> {
    /// The key with these bytes, most significant first.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// Reads exactly `2 * N` hexadecimal digits, of either case.
    ///
    /// # Errors
    /// [`ParseKeyError`] where the length differs or a character is not a hexadecimal digit.
    pub fn from_hex(text: &str) -> Result<Self, ParseKeyError> {
        if text.len() != 2 * N {
            return Err(ParseKeyError::Length { expected: 2 * N, found: text.len() });
        }
        let mut bytes = [0; N];
        let digits = text.as_bytes().chunks_exact(2);
        for (position, (byte, pair)) in bytes.iter_mut().zip(digits).enumerate() {
            for (offset, &digit) in pair.iter().enumerate() {
                let value = char::from(digit)
                    .to_digit(16)
                    .ok_or(ParseKeyError::Digit { position: 2 * position + offset })?;
                // A hexadecimal digit is at most 15.
                *byte = *byte << 4 | u8::try_from(value).unwrap_or(0);
            }
        }
        Ok(Self(bytes))
    }
}

/// The reason why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// The text has the wrong number of characters.
    Length {
        /// Number of hexadecimal digits that the key has.
        expected: usize,
        /// Length of the text in bytes.
        found: usize,
    },
    /// A character is not a hexadecimal digit.
    Digit {
        /// Its position in bytes, counted from 0.
        position: usize,
    },
}

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "a key has {expected} hexadecimal digits, not {found}")
            }
            Self::Digit { position } => write!(f, "no hexadecimal digit at position {position}"),
        }
    }
}

impl core::error::Error for ParseKeyError {}

impl<const N: usize> Target<Self> for Bits<N> {
    #[inline]
    fn key(&self) -> Self {
        *self
    }

    #[inline]
    fn at(key: Self) -> Option<Self> {
        Some(key)
    }
}

impl<const N: usize> Key for Bits<N> {
    #[allow(clippy::cast_possible_truncation)] // a key of 2^29 bytes does not exist
    const BITS: u32 = N as u32 * 8;
    const ZERO: Self = Self([0; N]);
    const ONES: Self = Self([0xff; N]);

    #[inline]
    fn distance(&self, other: &Self) -> Self {
        let mut bytes = self.0;
        for (byte, with) in bytes.iter_mut().zip(&other.0) {
            *byte ^= with;
        }
        Self(bytes)
    }

    #[inline]
    fn leading(&self) -> u64 {
        match self.0.first_chunk() {
            Some(first) => u64::from_be_bytes(*first),
            None => {
                self.0.iter().zip((0..8).rev()).fold(0, |sum, (byte, at)| sum | u64::from(*byte) << (8 * at))
            }
        }
    }

    #[inline]
    fn common_prefix_len(&self, other: &Self) -> u32 {
        let mut shared = 0;
        for (a, b) in self.0.iter().zip(&other.0) {
            let differing = a ^ b;
            shared += differing.leading_zeros();
            if differing != 0 {
                break;
            }
        }
        shared
    }

    #[inline]
    fn bit(&self, index: u32) -> bool {
        self.0.get(index as usize / 8).is_some_and(|byte| byte << (index % 8) & 0x80 != 0)
    }

    fn with_flipped(&self, index: u32) -> Self {
        let mut bytes = self.0;
        if let Some(byte) = bytes.get_mut(index as usize / 8) {
            *byte ^= 0x80 >> (index % 8);
        }
        Self(bytes)
    }

    fn random_with_cpl(&self, cpl: u32, mut next: impl FnMut() -> u64) -> Self {
        let mut bytes = self.0;
        for (chunk, first) in bytes.chunks_mut(8).zip((0..).step_by(64)) {
            // `free`: the bits of this chunk after the shared ones and the one that differs.
            let kept = cpl.saturating_add(1).saturating_sub(first);
            let Some(free) = u64::MAX.checked_shr(kept) else { continue };
            let random = (next() & free).to_be_bytes();
            for ((byte, random), free) in chunk.iter_mut().zip(random).zip(free.to_be_bytes()) {
                *byte = *byte & !free | random;
            }
        }
        Self(bytes).with_flipped(cpl)
    }

    fn spliced(&self, len: u32, tail: &Self) -> Self {
        let mut bytes = tail.0;
        let whole = len as usize / 8;
        for (byte, of) in bytes.iter_mut().zip(&self.0).take(whole) {
            *byte = *of;
        }
        if let (Some(byte), Some(of)) = (bytes.get_mut(whole), self.0.get(whole)) {
            *byte ^= (*byte ^ of) & !(0xff >> (len % 8));
        }
        Self(bytes)
    }
}

impl<const N: usize> fmt::Display for Bits<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> Debug for Bits<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serialized as `N` bytes; in human-readable formats as hexadecimal digits.
#[cfg(any(feature = "record", feature = "sim"))]
impl<const N: usize> serde::Serialize for Bits<N> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0) }
    }
}

#[cfg(feature = "record")]
impl<'de, const N: usize> serde::Deserialize<'de> for Bits<N> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<const N: usize>;

        impl<const N: usize> serde::de::Visitor<'_> for Reader<N> {
            type Value = Bits<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a key of {N} bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bits<N>, E> {
                bytes.try_into().map(Bits).map_err(|_| E::invalid_length(bytes.len(), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bits<N>, E> {
                text.parse().map_err(E::custom)
            }
        }

        if from.is_human_readable() { from.deserialize_str(Reader) } else { from.deserialize_bytes(Reader) }
    }
}

impl<const N: usize> core::str::FromStr for Bits<N> {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        Self::from_hex(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_pair_of_8_bit_keys() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                let (x, y) = (Key8::new([a]), Key8::new([b]));
                assert_eq!(x.distance(&y), Key8::new([a ^ b]));
                assert_eq!(x.common_prefix_len(&y), (a ^ b).leading_zeros());
                assert_eq!(x.leading(), u64::from(a) << 56);
            }
            for i in 0..10 {
                let mask = u8::MAX.checked_shr(i).unwrap_or(0);
                let spliced = Key8::new([a & !mask | 0x5a & mask]);
                assert_eq!(Key8::new([a]).spliced(i, &Key8::new([0x5a])), spliced);
                assert_eq!(Key8::new([a]).bit(i), i < 8 && a & (0x80 >> i) != 0);
                let flipped = Key8::new([if i < 8 { a ^ (0x80 >> i) } else { a }]);
                assert_eq!(Key8::new([a]).with_flipped(i), flipped);
            }
        }
    }

    #[test]
    fn hex_says_what_is_wrong() {
        assert_eq!(Key160::from_hex("00"), Err(ParseKeyError::Length { expected: 40, found: 2 }));
        assert_eq!(Key8::from_hex("0g"), Err(ParseKeyError::Digit { position: 1 }));
        assert_eq!(Key8::from_hex("é"), Err(ParseKeyError::Digit { position: 0 }));
        assert_eq!("fF".parse(), Ok(Key8::new([255])));
    }

    #[test]
    fn every_key_of_a_cpl_is_drawn_and_no_other() {
        for (local, cpl) in (0..=u8::MAX).flat_map(|local| (0..8).map(move |cpl| (local, cpl))) {
            let local = Key8::new([local]);
            let drawn: std::collections::BTreeSet<_> =
                (0..256).map(|byte: u64| local.random_with_cpl(cpl, || byte << 56)).collect();
            assert_eq!(drawn.len(), 1 << (7 - cpl));
            assert!(drawn.iter().all(|key| key.common_prefix_len(&local) == cpl));
        }
        assert_eq!(Key8::new([9]).random_with_cpl(8, || u64::MAX), Key8::new([9]));
    }

    proptest! {
        #[test]
        fn the_cpl_of_a_random_key_is_exact(bytes: [u8; 20], cpl in 0..=170_u32, mut seed: u64) {
            let key = Key160::new(bytes);
            let drawn = key.random_with_cpl(cpl, || {
                seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                seed
            });
            prop_assert_eq!(drawn.common_prefix_len(&key), cpl.min(160));
        }

        #[test]
        fn the_metric_is_what_the_bits_say(a: [u8; 20], b: [u8; 20], c: [u8; 20], len in 0..200_u32) {
            let (a, b, c) = (Key160::new(a), Key160::new(b), Key160::new(c));
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&b).distance(&b), a);
            // Unidirectional: one point at each distance.
            prop_assert_eq!(a.distance(&b) == a.distance(&c), b == c);
            let cpl = a.common_prefix_len(&b);
            prop_assert!((0..cpl).all(|i| a.bit(i) == b.bit(i)));
            prop_assert!(cpl == Key160::BITS || a.bit(cpl) != b.bit(cpl));
            prop_assert_eq!(Key160::from_hex(&a.to_string()), Ok(a));
            prop_assert!(a.leading() <= b.leading() || a > b);
            prop_assert_eq!(a.distance(&b).leading(), a.leading() ^ b.leading());
            let spliced = a.spliced(len, &b);
            let part = |i| if i < len { &a } else { &b };
            prop_assert!((0..Key160::BITS).all(|i| spliced.bit(i) == part(i).bit(i)));
            prop_assert_eq!(a.distance(&Key160::ZERO), a);
        }
    }
}
