//! [`Sample`]: a family whose nodes a test can make up.

use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// A family that says how a test makes its nodes, targets and messages out of keys and numbers.
///
/// Where the key of a node or of a target is a hash, nobody can make one that lies at a given key: take the bits of the key as the
/// bits of what is hashed. The methods must be pure.
pub trait Sample: Family {
    /// A node at this key, or one that its bits decide. The address, mostly below 8, tells apart nodes of one key, and is what the
    /// [group](Family::group) may depend on; a family may refuse to [admit](Family::admits) some, of which the one that is tried is
    /// [`REFUSED`].
    fn node(key: Self::Key, address: u8) -> Self::Node;

    /// A target at this key, or one that its bits decide.
    fn target(key: Self::Key) -> Self::Target;

    /// The message of this number: different ones for different numbers, if there are so many.
    fn message(number: u64) -> Self::Message;

    /// A number by which nodes differ that are only made up: of those with an even one, nothing is ever heard. The address, where the
    /// node still has it; the default is the first byte of its key.
    fn address(node: &Self::Node) -> u8 {
        Self::key(node).leading().to_be_bytes().first().copied().unwrap_or_default()
    }
}

/// The address of nodes that a family may refuse.
pub const REFUSED: u8 = 0xee;
