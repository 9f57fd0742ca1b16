//! [`Target`]: what a lookup asks for, and where it lies in the key space.

use core::fmt::Debug;

/// What a lookup asks for. Requests carry it, and its key says where in the key space it lies.
///
/// Where the wire format sends the key itself (BitTorrent), or something that follows from the key and the node
/// asked (the distances of discv5), the target *is* the key: `type Target = Key160`. Where it sends what is *hashed*
/// to the key (libp2p), the target is that preimage, and the key is its hash:
///
/// ```
/// use kad_proto::{Key256, Target};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Preimage {
///     bytes: Vec<u8>,
///     hash: Key256, // of `bytes`: computed once, as `key` is called often
/// }
///
/// impl Target<Key256> for Preimage {
///     fn key(&self) -> Key256 {
///         self.hash
///     }
/// }
/// ```
pub trait Target<K>: Clone + Debug + PartialEq + Send + 'static {
    /// Where the target lies. Always the same for the same target. It is called often, so it should be cheap: a
    /// target that is hashed should keep its hash.
    fn key(&self) -> K;

    /// The target that lies at `key`, if the key alone is enough to tell it. The default is `None`: nobody knows the
    /// preimage of a hash.
    fn at(key: K) -> Option<Self> {
        let _ = key;
        None
    }
}
