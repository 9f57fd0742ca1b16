//! Runs both contracts on a wrapper of the coordinator: a test's wrapper has a method `call`, which passes each
//! event to the wrapper and to a plain coordinator and compares them, and a field `plain`, which the checkers
//! query.

/// Implements the trait `MachineUnderTest` of both contracts for a wrapper of any family.
macro_rules! wrapper_under_test {
    ($wrapper:ident) => {
        impl<const N: usize> crate::random_world::contract::build::Build<N>
            for $wrapper<crate::random_world::Net<N>>
        {
            fn build(local: kad_proto::Bits<N>, config: Config) -> Result<Self, ConfigError> {
                Self::new(local, config)
            }
        }

        impl<const N: usize> kad_proto::testing::MachineUnderTest<crate::random_world::Net<N>>
            for $wrapper<crate::random_world::Net<N>>
        {
            fn handle(
                &mut self,
                now: Instant,
                event: crate::random_world::contract::build::In<N>,
            ) -> Vec<crate::random_world::contract::build::Out<N>> {
                self.call(now, event)
            }

            fn poll_timeout(&self) -> Option<Instant> {
                Machine::poll_timeout(&self.plain)
            }

            fn request_stats(&self) -> kad_proto::RequestStats {
                self.plain.request_stats()
            }

            fn counts(&self) -> Option<(usize, usize)> {
                Some((self.plain.operations(), self.plain.running()))
            }

            fn table(&self) -> Option<&kad_proto::RoutingTable<crate::random_world::Net<N>>> {
                Some(self.plain.table())
            }

            fn size(&self, now: Instant) -> Result<u64, kad_proto::network_size::NotEnoughData> {
                self.plain.network_size(now).map(|size| size.nodes())
            }
        }

        impl kad_proto::testing::MachineUnderTest<crate::maintenance_contract::Grouped>
            for $wrapper<crate::maintenance_contract::Grouped>
        {
            fn handle(
                &mut self,
                now: Instant,
                event: crate::maintenance_contract::machine_under_test::In,
            ) -> Vec<crate::maintenance_contract::machine_under_test::Out> {
                self.call(now, event)
            }

            fn poll_timeout(&self) -> Option<Instant> {
                Machine::poll_timeout(&self.plain)
            }

            fn request_stats(&self) -> kad_proto::RequestStats {
                self.plain.request_stats()
            }

            fn counts(&self) -> Option<(usize, usize)> {
                Some((self.plain.operations(), self.plain.running()))
            }

            fn table(&self) -> Option<&kad_proto::RoutingTable<crate::maintenance_contract::Grouped>> {
                Some(self.plain.table())
            }
        }

        impl crate::maintenance_contract::machine_under_test::MaintainsTable
            for $wrapper<crate::maintenance_contract::Grouped>
        {
            const HAS_LOOKUPS: bool = true;

            fn build(config: Config, _: u64) -> Self {
                Self::new(crate::maintenance_contract::LOCAL, config).unwrap()
            }

            fn routing_counts(&self) -> kad_proto::RoutingCounts {
                self.plain.routing_counts()
            }

            fn is_probed(&self, node: &Key8) -> Option<bool> {
                self.plain.is_probed(node)
            }

            fn snapshot(
                &self,
                now: Instant,
            ) -> Vec<kad_proto::routing::table::SavedNode<crate::maintenance_contract::Grouped>> {
                self.plain.snapshot(now)
            }

            fn operation(&self, tag: u64) -> Option<kad_proto::OperationId> {
                self.plain.operation(tag)
            }
        }
    };
}
