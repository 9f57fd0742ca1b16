//! [`Family`]: the types of one network.

use crate::key::Key;
use core::fmt::Debug;

/// Names the types that one network's machines are generic over: its keys, its node ids and its messages.
///
/// Implement it on a unit struct of your own. A node id may be as small as a `u32` handle, or carry addresses;
/// two values that are not equal may have the same key (one node under two addresses).
///
/// ```
/// use kad_proto::{Family, Group, Key160};
/// use std::net::{IpAddr, SocketAddr};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Mainline;
///
/// impl Family for Mainline {
///     type Key = Key160;
///     type Node = (Key160, SocketAddr);
///     type Message = Vec<u8>;
///
///     fn key(node: &Self::Node) -> Key160 {
///         node.0
///     }
///
///     fn group(node: &Self::Node) -> Option<Group> {
///         match node.1.ip() {
///             IpAddr::V4(ip) => Some(Group(u64::from(u32::from(ip) >> 8))),
///             IpAddr::V6(ip) => Some(Group((u128::from(ip) >> 80) as u64)),
///         }
///     }
/// }
/// ```
pub trait Family: Clone + Debug + PartialEq + Send + 'static {
    /// The keys: [`Key160`](crate::Key160) for BitTorrent, [`Key256`](crate::Key256) for libp2p and discv5.
    type Key: Key;
    /// The node ids.
    type Node: Clone + Debug + PartialEq + Send + 'static;
    /// What a message query carries. The engine passes it through untouched; it is cloned once per request.
    type Message: Clone + Debug + PartialEq + Send + 'static;

    /// Where a node stands in the key space. Must always give the same key for the same node; it is called
    /// often, so it should be cheap.
    fn key(node: &Self::Node) -> Self::Key;

    /// Whether to have anything to do with a node that others name: one that is refused is neither asked in a lookup nor
    /// admitted to the routing table. For addresses that lead nowhere, or where they should not (a port 0, a loopback
    /// address named by a stranger). The default takes everybody.
    fn admits(node: &Self::Node) -> bool {
        let _ = node;
        true
    }

    /// The group that the node's diversity is judged by (an IP prefix, a provider), if it has one. The default
    /// is none: no limits apply.
    fn group(node: &Self::Node) -> Option<Group> {
        let _ = node;
        None
    }
}

/// A group of nodes that one party might control, such as an IP prefix; see [`Family::group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);
