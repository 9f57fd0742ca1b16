//! [`Wire`]: what the kit must know of a family beyond what the engine does; [`Payload`], the messages of all wires.

use kad_proto::{Family, Instant};

/// A family whose values and providers the kit can carry.
///
/// A family of the engine names keys, targets and nodes, and how requests travel is the transport's business. Between
/// them the kit needs two types: what is stored under a key as a value, and who is named as a provider of it. The
/// messages of the family are then [`Payload`]s of the two.
///
/// ```
/// use kad_proto::{Family, Key256};
/// use kad_proto_async::{Payload, Wire};
///
/// #[derive(Clone, Debug, Default, PartialEq)]
/// struct Mine;
///
/// impl Family for Mine {
///     type Key = Key256;
///     type Target = Key256;
///     type Node = Key256;
///     type Message = Payload<Mine>;
///     fn key(node: &Key256) -> Key256 {
///         *node
///     }
/// }
///
/// impl Wire for Mine {
///     type Value = Vec<u8>;
///     type Provider = Key256;
/// }
/// ```
pub trait Wire: Family<Message = Payload<Self>, Node: Sync, Target: Sync> + Sync {
    /// What is stored under a key: a record.
    type Value: Clone + core::fmt::Debug + PartialEq + Send + Sync + 'static;
    /// Who provides what has a key: a node with its addresses, a peer of a torrent.
    /// Two that are equal are the same provider, which a search yields as it was named first: if addresses are no part of
    /// equality, they may be missing there, and the node can be looked up.
    type Provider: Clone + core::fmt::Debug + Eq + core::hash::Hash + Send + Sync + 'static;

    /// Whether this value may be stored under this target. One that may not is neither accepted from an answer nor
    /// stored for others. A wire whose records are signed, or named by their hash, checks that here. The default
    /// accepts all.
    fn accepts(target: &Self::Target, value: &Self::Value) -> bool {
        let _ = (target, value);
        true
    }

    /// Whether this value may take the place of that which is stored under the same key: a sequence number is not
    /// lower. The default is that it may. In a search, of two values that may take each other's place none is better.
    fn replaces(old: &Self::Value, new: &Self::Value) -> bool {
        let _ = (old, new);
        true
    }

    /// How large a value is in memory, in bytes, for the bounds of stores. The default is that of the type alone, so a
    /// family whose values hold more on the heap should say so.
    fn size(value: &Self::Value) -> usize {
        size_of_val(value)
    }
}

/// The messages of a [`Wire`]: what requests carry besides their target, and what nodes give back.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload<W: Wire> {
    /// Asks for the value stored under the target.
    Get,
    /// Asks for the providers of the target.
    GetProviders,
    /// Asks the node to store this value.
    Put(W::Value),
    /// Asks the node to remember this provider.
    Provide(W::Provider),
    /// What a node wants to be given back with a store, as in BEP 5 and BEP 44.
    Token(Vec<u8>),
    /// Why a node refused a request.
    Reason(String),
}

/// What a node answers, on both sides of the wire: the answer that a [`Transport`](crate::Transport) brings, and the
/// one that [`Dht::serve`](crate::Dht::serve) makes for others. The default is an answer that names nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<W: Wire> {
    /// Nodes closer to the target.
    pub closer: Vec<W::Node>,
    /// Values stored under the target.
    pub values: Vec<W::Value>,
    /// Providers of the target.
    pub providers: Vec<W::Provider>,
    /// What the node wants to be given back with a store: the engine hands it out again in the
    /// [store](kad_proto::Ask::Store) to this node.
    pub token: Option<Vec<u8>>,
    /// Whether a connection was [made for this request](kad_proto::Response::after_dial).
    pub dialed: bool,
    /// When the answer arrived, by the [timer](crate::Timer)'s clock, if the transport knows: a task that reads a socket does.
    /// It counts as an answer of that time, even if the event loop was busy, and its request has timed out meanwhile.
    pub arrived: Option<Instant>,
}

impl<W: Wire> Default for Reply<W> {
    fn default() -> Self {
        Self::naming(Vec::new())
    }
}

impl<W: Wire> Reply<W> {
    /// An answer that names these nodes, and nothing else.
    pub const fn naming(closer: Vec<W::Node>) -> Self {
        Self { closer, values: Vec::new(), providers: Vec::new(), token: None, dialed: false, arrived: None }
    }
}
