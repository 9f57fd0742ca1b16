//! [`TableView`]: what a driver needs of the routing table to serve others, as a value that can be shared.

use crate::routing::table::RoutingTable;
use crate::vocabulary::family::Family;
use crate::vocabulary::nearest::nearest;
use std::sync::Arc;

/// The nodes of a routing table at one time, for the tasks that answer the requests of other nodes: they need not ask
/// the task that owns the engine. It is cheap to clone and can be sent anywhere; it does not change.
///
/// Take a new one with [`Coordinator::view`](crate::Coordinator::view) when an
/// [`Admitted`](crate::RoutingOutbound::Admitted), [`Removed`](crate::RoutingOutbound::Removed) or
/// [`Updated`](crate::RoutingOutbound::Updated) notice comes out, and put it where the other tasks find it (a lock, a
/// watch channel). To take one costs a copy of all node ids.
///
/// ```
/// # use kad_proto::{Config, Coordinator, Key8, Machine, RoutingInbound, Secret, Stamped};
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl kad_proto::Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// use kad_proto::coordinator::{Inbound, Outbound};
/// use std::sync::{Arc, RwLock};
///
/// # let secret = Secret::from_seed(0);
/// # let now = kad_proto::Instant::ORIGIN;
/// let mut dht = Coordinator::<Tiny>::new(Key8::new([0]), Config::default(), &secret)?;
/// let shared = Arc::new(RwLock::new(dht.view()));
///
/// let node = Key8::new([0x80]);
/// let event = Inbound::Routing(RoutingInbound::Connected { node, round_trip: None });
/// for out in dht.handle(now, Stamped::new(event)) {
///     if matches!(out.event, Outbound::Routing(_)) {
///         *shared.write().unwrap() = dht.view();
///     }
/// }
/// // In the task of a server:
/// let view = shared.read().unwrap().clone();
/// let closest: Vec<_> = view.closest(&Key8::new([0x81])).take(20).collect();
/// assert_eq!(closest, [&node]);
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TableView<F: Family> {
    /// In order of their keys.
    nodes: Arc<[F::Node]>,
}

impl<F: Family> TableView<F> {
    pub(crate) fn new(table: &RoutingTable<F>) -> Self {
        let mut nodes: Vec<_> = table.iter().map(|entry| entry.node().clone()).collect();
        nodes.sort_unstable_by_key(F::key);
        Self { nodes: nodes.into() }
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, in order of their keys.
    pub fn nodes(&self) -> &[F::Node] {
        &self.nodes
    }

    /// All nodes in order of distance to `target`, closest first. Take as many as are needed: no more are looked at.
    pub fn closest(&self, target: &F::Key) -> impl Iterator<Item = &F::Node> {
        nearest(&self.nodes, F::key, *target).filter_map(|index| self.nodes.get(index))
    }
}
