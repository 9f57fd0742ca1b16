//! Events about nodes into a machine with a routing table, and about the table out of it.

use crate::routing::table::SavedNode;
use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{OperationStats, Outcome};
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::Initiator;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// What the driver knows about nodes from other sources than the answers to the machine's requests. Inbound
/// events of a [`Coordinator`](crate::Coordinator) and a [`Maintenance`](crate::Maintenance).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum RoutingInbound<F: Family> {
    /// A node is known to be live and to serve: it answered the driver, for example. It is offered to the table,
    /// which may have no room for it. Its id is [the node's own word](crate::ToldBy::Itself): if it is known under
    /// other addresses, these are the ones that count from now on.
    Connected {
        /// The node.
        node: F::Node,
        /// The round-trip time, if it was measured; the time-outs are adapted to it.
        round_trip: Option<Duration>,
    },
    /// A node could not be reached: see [what follows](crate::routing).
    Disconnected(F::Node),
    /// A node is known to exist, but not known to be live or to serve: it sent a request to this node, for
    /// example. It is checked before it enters the table. Report every node that sends a request: this is how
    /// a new node becomes known to its neighbours. Its id is the node's own word, as in `Connected`.
    Discovered(F::Node),
    /// A node is known not to serve others (a client: libp2p's client mode, BEP 43's read-only flag). It
    /// leaves the table, and is not admitted again as long as it is
    /// [remembered](crate::RoutingConfig::max_clients), until it is reported as a `Server`, or answers a request of
    /// this machine by naming a node. Submit this only if the node itself said so: otherwise any node could keep
    /// others out of the table.
    Client(F::Node),
    /// Remember these nodes as seeds. A nearly empty table begins an automatic bootstrap from them; for a
    /// bootstrap with a deadline and a finish, start a [`Start::bootstrap`](crate::Start::bootstrap) instead,
    /// whose seeds are remembered too.
    Seeds(Vec<F::Node>),
    /// The snapshot of an earlier run: see [`Coordinator::snapshot`](crate::Coordinator::snapshot). The nodes
    /// enter the table as far as its limits allow, and are probed at once. Those for which there is no room, or that do
    /// not answer, and its seeds are remembered as places to come back to. A table of nodes none of which has answered yet counts as
    /// [nearly empty](crate::BootstrapConfig::min_nodes).
    Restore(Vec<SavedNode<F>>),
    /// A node serves others, as it said itself: it is no client any more. It is checked, like one that was
    /// discovered, before it enters the table.
    Server(F::Node),
    /// A node is gone for good: it said so itself, or the driver knows. It leaves the table and the seeds at once,
    /// and is not checked. It may come back as any new node.
    Gone(F::Node),
    /// A node is not to be used for this time: it leaves the table and the seeds, is not admitted, and is sent no
    /// request. Requests to it that wait are dropped, and count as failed; those in flight go on. At most
    /// [`max_banned`](crate::NetworkConfig::max_banned) bans are remembered; an id that is banned again is banned for
    /// the new time, and a time of zero lifts the ban. Whole networks are better refused by
    /// [`Family::admits`](crate::Family::admits).
    Banned {
        /// The node.
        node: F::Node,
        /// For how long.
        duration: Duration,
    },
    /// The value of the family has changed: other addresses can be dialled, other nodes are refused, other targets
    /// are known. Nodes that it does not [admit](crate::Family::admits) leave the table. Operations that live keep the
    /// old value.
    Family(F),
    /// This node has another id. The nodes of the table are sorted into the buckets around its key, as far as there is
    /// room; the others leave it. A bootstrap begins, for the new neighbourhood, and then the buckets are refreshed.
    /// Operations that live go on, and ask neither the old id nor the new one. Addresses and records of this node are the driver's
    /// alone: when they change, the engine need not know.
    Identity(F::Target),
    /// The link of this node is down, or so it will be at any moment: nothing gets through. Until it is up again, nothing
    /// begins by itself, and nobody leaves the table for being silent. Operations go on as long as they can. It is taken
    /// for up, too, when nodes are [heard from](crate::routing#own-connectivity).
    LinkDown,
    /// The link of this node is up again, or another one has taken its place, or the machine wakes from a sleep: the nodes
    /// of the table are checked, the nearest first.
    LinkUp,
}

/// What a machine reports about its routing table. Each is a side effect: it has a link to its origin, and no
/// deadline.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum RoutingOutbound<F: Family> {
    /// A node entered the routing table.
    Admitted(F::Node),
    /// A node left the routing table.
    Removed(F::Node),
    /// A bootstrap ended.
    Bootstrapped(Bootstrapped),
    /// The routing table has fallen below [`BootstrapConfig::min_nodes`](crate::BootstrapConfig::min_nodes): an
    /// automatic bootstrap begins from the remembered seeds.
    NearEmpty {
        /// The number of nodes that are left.
        nodes: usize,
    },
    /// What is known of a node of the table has [changed](crate::Family::update): its addresses, for example.
    Updated(F::Node),
    /// This node is [cut off](crate::routing#own-connectivity): nothing gets through to it.
    CutOff {
        /// The driver said so; otherwise, it was inferred.
        told: bool,
    },
    /// This node is cut off no longer.
    Reconnected {
        /// How long it was.
        lasted: Duration,
    },
}

/// A bootstrap ended: one that the caller started (its [`Finish`](crate::Finish) is emitted as well), or an
/// automatic one that was not replaced by one of the caller's.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bootstrapped {
    /// The caller's operation; `None` for an automatic one.
    pub operation: Option<OperationId>,
    /// How the lookup ended.
    pub outcome: Outcome,
    /// The number of nodes in the routing table now.
    pub nodes: usize,
    /// The statistics of the lookup.
    pub stats: OperationStats,
}

/// The outbound events of a machine with a routing table.
pub(crate) trait EmitsRouting<F: Family>: EmitsRequests<F> + From<RoutingOutbound<F>> {}

impl<F: Family, E> EmitsRouting<F> for E where E: EmitsRequests<F> + From<RoutingOutbound<F>> {}

/// A lookup that routing maintenance wants to start: a bootstrap, or the refresh of a bucket.
pub(crate) struct DueLookup<F: Family> {
    /// [`Initiator::Bootstrap`] or [`Initiator::Explore`].
    pub(crate) initiator: Initiator,
    pub(crate) target: F::Target,
    /// Nodes to begin with.
    pub(crate) seeds: Vec<F::Node>,
    /// The maximum duration of the lookup.
    pub(crate) timeout: Duration,
    /// The span that the lookup links to.
    pub(crate) link: SpanContext,
}
