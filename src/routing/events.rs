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
    /// which may have no room for it.
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
    /// a new node becomes known to its neighbours.
    Discovered(F::Node),
    /// A node is known not to serve others (a client: libp2p's client mode, BEP 43's read-only flag). It
    /// leaves the table, and is not admitted again as long as it is
    /// [remembered](crate::RoutingConfig::max_clients). Submit this only if the node itself said so:
    /// otherwise any node could keep others out of the table.
    Client(F::Node),
    /// Remember these nodes as seeds. A nearly empty table begins an automatic bootstrap from them; for a
    /// bootstrap with a deadline and a finish, start a [`Start::bootstrap`](crate::Start::bootstrap) instead,
    /// whose seeds are remembered too.
    Seeds(Vec<F::Node>),
    /// The snapshot of an earlier run: see [`Coordinator::snapshot`](crate::Coordinator::snapshot). The nodes
    /// enter the table as far as its limits allow, are probed at once, and are remembered as seeds.
    Restore(Vec<SavedNode<F>>),
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
    pub(crate) target: F::Key,
    /// Nodes to begin with.
    pub(crate) seeds: Vec<F::Node>,
    /// The maximum duration of the lookup.
    pub(crate) timeout: Duration,
    /// The span that the lookup links to.
    pub(crate) link: SpanContext,
}
