//! [`Secret`]: the secret of a node, and the seeds and [wire tokens](WireToken) that are derived from it.

use core::fmt;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The secret of a node: 32 random bytes, an argument of every machine's constructor.
///
/// Everything that others must not be able to guess is derived from it: the hash of the tables whose keys peers
/// can choose, the random keys that refreshes look up, and the [wire tokens](crate::Request::token) of requests.
/// Each is derived by a one-way function (`ChaCha8`), so that one of them reveals nothing about the others.
///
/// Take the bytes from the operating system's random number generator, separately for each node. The secret may
/// change each time the program starts. An attacker who knows a node's secret can slow down its hash tables,
/// predict the keys that it refreshes, and forge answers on an unauthenticated wire. Therefore `Debug` does not
/// show it, and a recording does not contain it.
///
/// ```
/// use kad_proto::Secret;
///
/// let bytes = [0x5e; 32]; // in a program: from the operating system, by the crate `getrandom`, say
/// let secret = Secret::new(bytes);
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// ```
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret with these bytes, which should be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A secret that anybody can guess, for tests and simulations that must be reproducible. The same number gives
    /// the same secret.
    pub fn from_seed(seed: u64) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(seed.to_le_bytes()) {
            *to = from;
        }
        Self(bytes)
    }

    pub(crate) fn seeds(&self) -> Seeds {
        let mut random = ChaCha8Rng::from_seed(self.0);
        let (hash, choices) = (random.next_u64(), random.next_u64());
        let mut wire = [0; 32];
        random.fill_bytes(&mut wire);
        Seeds { hash, choices, wire }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The seeds that are derived from the [`Secret`].
#[derive(Clone)]
pub(crate) struct Seeds {
    /// Seed of the hash tables whose keys peers can choose. It has no influence on outbound events.
    pub(crate) hash: u64,
    /// Seed of the random choices that influence outbound events. A recording contains it, because a replay needs
    /// it.
    pub(crate) choices: u64,
    /// Seed of the wire tokens. Never recorded.
    pub(crate) wire: [u8; 32],
}

impl Seeds {
    /// Seeds for a replay or a simulation, with this seed of the random choices. The hash and the wire tokens are
    /// not secret.
    #[cfg(any(feature = "record", feature = "sim"))]
    pub(crate) const fn unguarded(choices: u64) -> Self {
        Self { hash: 0, choices, wire: [0; 32] }
    }
}

/// A random number for the transaction id of a request on an unauthenticated wire. It cannot be guessed without
/// the node's [`Secret`]. `Debug` does not show it, and a recording does not contain it. See
/// [`Request::token`](crate::Request::token).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WireToken(u64);

impl WireToken {
    /// The token as a number.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The 8 bytes of the token. All are equally random: take as many as the wire format has room for.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

impl fmt::Debug for WireToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The wire tokens of a node's requests: a stream of random numbers, keyed by the secret.
#[derive(Clone)]
pub(crate) struct WireTokens(ChaCha8Rng);

impl WireTokens {
    pub(crate) fn new(seeds: &Seeds) -> Self {
        Self(ChaCha8Rng::from_seed(seeds.wire))
    }

    pub(crate) fn draw(&mut self) -> WireToken {
        WireToken(self.0.next_u64())
    }
}

impl fmt::Debug for WireTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireTokens(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_differs_and_depends_on_every_byte() {
        let secret = Secret::from_seed(7).seeds();
        assert!(secret.hash != secret.choices && secret.wire != [0; 32]);
        for byte in 0..32 {
            let mut bytes = Secret::from_seed(7).0;
            bytes[byte] ^= 1;
            let other = Secret::new(bytes).seeds();
            assert!(other.hash != secret.hash && other.choices != secret.choices, "{byte}");
            assert_ne!(WireTokens::new(&other).draw(), WireTokens::new(&secret).draw());
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = Secret::new([0xab; 32]);
        let shown = format!("{secret:?} {:?}", WireTokens::new(&secret.seeds()));
        assert_eq!(shown, "Secret(..) WireTokens(..)");
    }
}
