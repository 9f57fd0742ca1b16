//! [`Family`]: the types of one network (keys, targets, node ids, messages), and what is particular to its wire.

use crate::vocabulary::key::Key;
#[cfg(test)]
use crate::vocabulary::key::Key8;
use crate::vocabulary::target::Target;
use core::fmt::Debug;

/// The types that the machines of one network are generic over, and what the engine must know of its wire protocol.
///
/// A simple family is a unit struct that names its types and implements [`key`](Family::key). The
/// [guide](crate::guide::bring_your_own_wire) shows one each for BitTorrent, libp2p and discv5.
///
/// ```
/// use kad_proto::{AnswerScope, Family, Group, Key160};
/// use std::net::{IpAddr, SocketAddr};
///
/// #[derive(Clone, Debug, Default, PartialEq)]
/// struct Mainline;
///
/// impl Family for Mainline {
///     type Key = Key160;
///     type Target = Key160;
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
///
///     fn answers(&self) -> AnswerScope {
///         AnswerScope::Closest(8)
///     }
/// }
/// ```
///
/// # The value of a family
///
/// A family is a value, so that what it knows may be chosen at run time: a table of preimages, which addresses can be
/// dialled, which networks are refused. Each machine begins with the default value; `with_family` gives it another,
/// and [`RoutingInbound::Family`](crate::RoutingInbound::Family) changes that of a running one. The methods must be
/// pure: the same value and the same arguments give the same result, or a run cannot be repeated. Keep large tables
/// behind an `Arc`: operations hold a copy of the value each.
///
/// # A node is an identity
///
/// Two node ids that are equal are the same node. Where the transport *proves* identity (libp2p, discv5), let the
/// identity alone decide equality, and leave the addresses out of it: then a node is known once, wherever it can be
/// reached, and [`update`](Family::update) merges what is told about it. Where it does *not* (BEP 5, where anybody may
/// claim any id), let equality include the address: then one who claims a node's id from elsewhere is another node,
/// which has the same key and does not replace the first as long as that one answers. See
/// [`routing`](crate::routing#identity) for what follows from it.
pub trait Family: Clone + Debug + Default + PartialEq + Send + 'static {
    /// The keys: [`Key160`](crate::Key160) for BitTorrent, [`Key256`](crate::Key256) for libp2p and discv5.
    type Key: Key;
    /// What is asked for; the key itself where that is what the wire format sends. See [`Target`].
    type Target: Target<Self::Key>;
    /// The node ids. A node id may be as small as a `u32` handle, or contain addresses.
    type Node: Clone + Debug + PartialEq + Send + 'static;
    /// The payload of requests and answers that only the driver interprets. The engine passes it through
    /// unchanged; it is cloned once per request.
    type Message: Clone + Debug + PartialEq + Send + 'static;

    /// The key of a node: its position in the key space. Must always return the same key for the same node. It is
    /// called often, so it should be cheap.
    fn key(node: &Self::Node) -> Self::Key;

    /// Whether a node that other nodes name in their answers may be used. If not, it is neither asked in a lookup
    /// nor admitted to the routing table. Meant for addresses that are invalid, that must not be contacted (port 0, a
    /// loopback address named by a remote node), or that this host cannot dial. The default admits every node.
    fn admits(&self, node: &Self::Node) -> bool {
        let _ = node;
        true
    }

    /// The group that the node belongs to (an IP prefix, a provider), for the diversity limits. The default is
    /// `None`: no limits apply to the node.
    fn group(node: &Self::Node) -> Option<Group> {
        let _ = node;
        None
    }

    /// The target that asks for a node itself: its own id. By default the target [at](Target::at) its key. Where it is
    /// `None`, the node is asked about this node's own target instead.
    fn target_of(node: &Self::Node) -> Option<Self::Target> {
        Target::at(Self::key(node))
    }

    /// Some target whose key shares at least the first `bits` bits with `point`; the more, the better. For work of the
    /// engine's own, which asks about points that nobody has chosen: refreshes of buckets, the edge of a
    /// neighbourhood, the gaps of a sweep, crawls. The default is the target [at](Target::at) the point itself.
    ///
    /// A family whose targets are hashed keeps a table of preimages, one for each prefix of some 15 bits
    /// (go-libp2p and js-libp2p have one each). Where the result is `None`, the engine does without:
    ///
    /// | work | without a target |
    /// | --- | --- |
    /// | refresh of a bucket | looks up a node of that bucket; if the bucket is empty, the node's own target |
    /// | edge of the neighbourhood | asks a node that lies in the subtree in question about itself, any other about the target |
    /// | sweep | looks up the key of each record whose nodes are not known yet |
    /// | crawl | asks for a bucket by a known node that lies in it; for all buckets of which none is known, asks the node about itself, once |
    fn target_near(&self, point: Self::Key, bits: u32) -> Option<Self::Target> {
        let _ = bits;
        Target::at(point)
    }

    /// Which nodes an answer names, and how many at most. The default is the closest 20, as in the Kademlia paper.
    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(20)
    }

    /// Whether equal nodes may differ in what they carry, so that [`update`](Family::update) is worth calling. A
    /// family whose nodes are what they are keeps the default, `false`, and pays nothing.
    const NODES_CHANGE: bool = false;

    /// Merges what is told about a node into what is known of it: addresses, a signed record. `told` equals `known`.
    /// Returns whether that changed `known`.
    ///
    /// A node's [own](ToldBy::Itself) word counts before that of others: let it replace what is known, unless that is
    /// newer (the sequence number of an ENR says so). What [others](ToldBy::Others) say may be wrong on purpose: let
    /// it fill what is missing, or add to a bounded list, or count only if it is signed by the node.
    fn update(known: &mut Self::Node, told: &Self::Node, by: ToldBy) -> bool {
        let _ = (known, told, by);
        false
    }
}

/// Who told about a node; see [`Family::update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToldBy {
    /// The node itself: the driver reported it as [connected](crate::RoutingInbound::Connected),
    /// [discovered](crate::RoutingInbound::Discovered) or [serving](crate::RoutingInbound::Server).
    Itself,
    /// Another node, in an answer; or a snapshot of an earlier run.
    Others,
}

/// Which nodes an answer names; see [`Family::answers`].
///
/// The engine relies on it where it concludes that there is *no other* node: when it decides whether the edge of a
/// neighbourhood is known, and what a sweep has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerScope {
    /// Of the nodes that the answerer knows, those closest to the target, at most this many, at least 1 (BEP 5: 8;
    /// libp2p: 20).
    Closest(usize),
    /// The answerer's whole bucket in which the target lies, at most this many nodes, at least 1 (discv5: 16), and
    /// those of the buckets next to it that the driver asks for in the same request. A node asked about itself names
    /// itself.
    Buckets(usize),
}

impl AnswerScope {
    /// The most nodes near the target that one answer can name.
    pub(crate) fn most(self) -> usize {
        let (Self::Closest(most) | Self::Buckets(most)) = self;
        most.max(1)
    }
}

/// A group of nodes that one party might control, such as an IP prefix; see [`Family::group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// The plainest family, for unit tests: a node is its key, and so is a target.
#[cfg(test)]
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plain;

#[cfg(test)]
impl Family for Plain {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

/// A family that can be recorded: it, its targets, node ids and messages implement `Serialize` and
/// `DeserializeOwned`. Implemented for every such family.
#[cfg(feature = "record")]
pub trait Recordable:
    Family<
        Target: serde::Serialize + serde::de::DeserializeOwned,
        Node: serde::Serialize + serde::de::DeserializeOwned,
        Message: serde::Serialize + serde::de::DeserializeOwned,
    > + serde::Serialize
    + serde::de::DeserializeOwned
{
}

#[cfg(feature = "record")]
impl<F> Recordable for F where
    F: Family<
            Target: serde::Serialize + serde::de::DeserializeOwned,
            Node: serde::Serialize + serde::de::DeserializeOwned,
            Message: serde::Serialize + serde::de::DeserializeOwned,
        > + serde::Serialize
        + serde::de::DeserializeOwned
{
}
