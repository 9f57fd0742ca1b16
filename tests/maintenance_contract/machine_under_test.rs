//! The two machines that maintain a routing table, behind one trait: both take and return the coordinator's
//! events, which are a superset.

use super::{Grouped, LOCAL};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::maintenance::{Inbound as NarrowInbound, Outbound as NarrowOutbound};
use kad_proto::routing::table::SavedNode;
use kad_proto::{
    Config, Coordinator, Instant, Key8, Machine, Maintenance, OperationId, RequestStats, RoutingCounts,
    RoutingTable, Secret, Stamped,
};

pub(crate) type In = Stamped<Inbound<Grouped>>;
pub(crate) type Out = Stamped<Outbound<Grouped>>;

pub(crate) trait MachineUnderTest: Clone {
    /// Whether it runs other operations than the bootstrap.
    const HAS_LOOKUPS: bool;

    fn build(config: Config, seed: u64) -> Self;
    fn handle(&mut self, now: Instant, event: In) -> Vec<Out>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn request_stats(&self) -> RequestStats;
    fn routing_counts(&self) -> RoutingCounts;
    fn table(&self) -> &RoutingTable<Grouped>;
    fn is_probed(&self, node: &Key8) -> Option<bool>;
    fn snapshot(&self, now: Instant) -> Vec<SavedNode<Grouped>>;
    fn operation(&self, tag: u64) -> Option<OperationId>;
}

macro_rules! common_methods {
    ($machine:ident) => {
        fn build(config: Config, seed: u64) -> Self {
            Self::new(LOCAL, config.into(), &Secret::from_seed(seed)).unwrap()
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Machine::poll_timeout(self)
        }

        fn request_stats(&self) -> RequestStats {
            $machine::request_stats(self)
        }

        fn routing_counts(&self) -> RoutingCounts {
            $machine::routing_counts(self)
        }

        fn table(&self) -> &RoutingTable<Grouped> {
            $machine::table(self)
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
    };
}

impl MachineUnderTest for Coordinator<Grouped> {
    const HAS_LOOKUPS: bool = true;

    fn handle(&mut self, now: Instant, event: In) -> Vec<Out> {
        Machine::handle(self, now, event).into_iter().collect()
    }

    common_methods!(Coordinator);
}

impl MachineUnderTest for Maintenance<Grouped> {
    const HAS_LOOKUPS: bool = false;

    fn handle(&mut self, now: Instant, event: In) -> Vec<Out> {
        Machine::handle(self, now, narrow(event)).into_iter().map(widen).collect()
    }

    common_methods!(Maintenance);
}

fn narrow(event: In) -> Stamped<NarrowInbound<Grouped>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Start(start) => {
            assert_eq!(start.target, LOCAL, "maintenance: only bootstraps start");
            NarrowInbound::Bootstrap { tag: start.tag, seeds: start.seeds }
        }
        Inbound::Stop(id) => NarrowInbound::Stop(id),
        Inbound::Response(response) => NarrowInbound::Response(response),
        Inbound::Routing(event) => NarrowInbound::Routing(event),
        Inbound::Tick => NarrowInbound::Tick,
        other => panic!("maintenance: not an event of it: {other:?}"),
    };
    Stamped { event, context, deadline }
}

fn widen(event: Stamped<NarrowOutbound<Grouped>>) -> Out {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        NarrowOutbound::Started(payload) => Outbound::Started(payload),
        NarrowOutbound::Request(payload) => Outbound::Request(payload),
        NarrowOutbound::Cancel(payload) => Outbound::Cancel(payload),
        NarrowOutbound::Progress(payload) => Outbound::Progress(payload),
        NarrowOutbound::Finished(payload) => Outbound::Finished(payload),
        NarrowOutbound::Refused(payload) => Outbound::Refused(payload),
        NarrowOutbound::Routing(event) => Outbound::Routing(event),
        other => panic!("{other:?}"),
    };
    Stamped { event, context, deadline }
}
