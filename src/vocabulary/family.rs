//! [`Family`]: the types of one network (keys, node ids, messages).

use crate::vocabulary::key::Key;
use core::fmt::Debug;

/// The types that the machines of one network are generic over: its keys, its node ids and its messages.
///
/// Implement it for a unit struct. A node id may be as small as a `u32` handle, or contain addresses. Two node ids
/// that are not equal may have the same key (one node with two addresses).
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
    /// The payload of requests and answers that only the driver interprets. The engine passes it through
    /// unchanged; it is cloned once per request.
    type Message: Clone + Debug + PartialEq + Send + 'static;

    /// The key of a node: its position in the key space. Must always return the same key for the same node. It is
    /// called often, so it should be cheap.
    fn key(node: &Self::Node) -> Self::Key;

    /// Whether a node that other nodes name in their answers may be used. If not, it is neither asked in a lookup
    /// nor admitted to the routing table. Meant for addresses that are invalid or must not be contacted (port 0, a
    /// loopback address named by a remote node). The default admits every node.
    fn admits(node: &Self::Node) -> bool {
        let _ = node;
        true
    }

    /// The group that the node belongs to (an IP prefix, a provider), for the diversity limits. The default is
    /// `None`: no limits apply to the node.
    fn group(node: &Self::Node) -> Option<Group> {
        let _ = node;
        None
    }
}

/// A group of nodes that one party might control, such as an IP prefix; see [`Family::group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// A family whose types can be recorded: its node ids and messages implement `Serialize` and `DeserializeOwned`.
/// Implemented for every such family.
#[cfg(feature = "record")]
pub trait Recordable:
    Family<
        Node: serde::Serialize + serde::de::DeserializeOwned,
        Message: serde::Serialize + serde::de::DeserializeOwned,
    >
{
}

#[cfg(feature = "record")]
impl<F> Recordable for F where
    F: Family<
            Node: serde::Serialize + serde::de::DeserializeOwned,
            Message: serde::Serialize + serde::de::DeserializeOwned,
        >
{
}
