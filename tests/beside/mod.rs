//! A wrapper of the coordinator beside one without it, under models that know nothing of either: what a test says is `call` and
//! the field `plain`, and the models are shown the plain one.

/// Makes both models' subject of a wrapper, for any family.
macro_rules! beside {
    ($wrapper:ident) => {
        impl<const N: usize> crate::model::ledger::subject::Subject<N> for $wrapper<crate::model::Net<N>> {
            fn build(local: kad_proto::Bits<N>, config: Config) -> Result<Self, ConfigError> {
                Self::new(local, config)
            }

            fn handle(
                &mut self,
                now: Instant,
                event: crate::model::ledger::subject::In<N>,
            ) -> Vec<crate::model::ledger::subject::Out<N>> {
                self.call(now, event)
            }

            fn poll_timeout(&self) -> Option<Instant> {
                Machine::poll_timeout(&self.plain)
            }

            fn traffic(&self) -> kad_proto::Traffic {
                self.plain.traffic()
            }

            fn counts(&self) -> Option<(usize, usize)> {
                Some((self.plain.operations(), self.plain.running()))
            }

            fn table(&self) -> Option<&kad_proto::RoutingTable<crate::model::Net<N>>> {
                Some(self.plain.table())
            }

            fn size(&self, now: Instant) -> Result<u64, kad_proto::netsize::NotEnoughData> {
                self.plain.network_size(now).map(|size| size.nodes())
            }
        }

        impl crate::upkeep::subject::Subject for $wrapper<crate::upkeep::Grouped> {
            const LOOKUPS: bool = true;

            fn build(config: Config) -> Self {
                Self::new(crate::upkeep::LOCAL, config).unwrap()
            }

            fn handle(
                &mut self,
                now: Instant,
                event: crate::upkeep::subject::In,
            ) -> Vec<crate::upkeep::subject::Out> {
                self.call(now, event)
            }

            fn poll_timeout(&self) -> Option<Instant> {
                Machine::poll_timeout(&self.plain)
            }

            fn traffic(&self) -> kad_proto::Traffic {
                self.plain.traffic()
            }

            fn counts(&self) -> kad_proto::routing::RoutingCounts {
                self.plain.routing()
            }

            fn table(&self) -> &kad_proto::RoutingTable<crate::upkeep::Grouped> {
                self.plain.table()
            }

            fn probes(&self, node: &Key8) -> Option<bool> {
                self.plain.probes(node)
            }

            fn snapshot(&self, now: Instant) -> Vec<kad_proto::table::Saved<crate::upkeep::Grouped>> {
                self.plain.snapshot(now)
            }

            fn operation(&self, tag: u64) -> Option<kad_proto::OperationId> {
                self.plain.operation(tag)
            }
        }
    };
}
