//! The two machines that maintain a routing table, behind one trait.

use super::family::{Grouped, LOCAL};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::routing::table::SavedNode;
use kad_proto::testing::MachineUnderTest;
use kad_proto::{
    Config, Coordinator, Instant, Key8, Maintenance, OperationId, RoutingCounts, RoutingTable, Secret,
    Stamped,
};

pub(crate) type In = Stamped<Inbound<Grouped>>;
pub(crate) type Out = Stamped<Outbound<Grouped>>;

pub(crate) trait MaintainsTable: MachineUnderTest<Grouped> {
    /// Whether it runs other operations than the bootstrap.
    const HAS_LOOKUPS: bool;

    fn build(config: Config, seed: u64) -> Self;
    fn routing_counts(&self) -> RoutingCounts;
    fn is_probed(&self, node: &Key8) -> Option<bool>;
    fn snapshot(&self, now: Instant) -> Vec<SavedNode<Grouped>>;
    fn operation(&self, tag: u64) -> Option<OperationId>;

    fn routing_table(&self) -> &RoutingTable<Grouped> {
        self.table().expect("a machine with a table")
    }
}

macro_rules! maintains_table {
    ($machine:ident, has_lookups: $has_lookups:literal) => {
        impl MaintainsTable for $machine<Grouped> {
            const HAS_LOOKUPS: bool = $has_lookups;

            fn build(config: Config, seed: u64) -> Self {
                Self::new(LOCAL, config.into(), &Secret::from_seed(seed)).unwrap()
            }

            fn routing_counts(&self) -> RoutingCounts {
                $machine::routing_counts(self)
            }

            fn is_probed(&self, node: &Key8) -> Option<bool> {
                $machine::is_probed(self, node)
            }

            fn snapshot(&self, now: Instant) -> Vec<SavedNode<Grouped>> {
                $machine::snapshot(self, now)
            }

            fn operation(&self, tag: u64) -> Option<OperationId> {
                $machine::operation(self, tag)
            }
        }
    };
}

maintains_table!(Coordinator, has_lookups: true);
maintains_table!(Maintenance, has_lookups: false);
