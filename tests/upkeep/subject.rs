//! The two machines that look after a routing table, in one shape: the coordinator's events, which are a superset.

use super::{Grouped, LOCAL};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::maintenance::{Inbound as NarrowInbound, Outbound as NarrowOutbound};
use kad_proto::routing::RoutingCounts;
use kad_proto::table::Saved;
use kad_proto::{
    Config, Coordinator, Instant, Key8, Machine, Maintenance, OperationId, RoutingTable, Stamped, Traffic,
};

pub(crate) type In = Stamped<Inbound<Grouped>>;
pub(crate) type Out = Stamped<Outbound<Grouped>>;

pub(crate) trait Subject: Clone {
    /// Whether it knows other operations than the bootstrap.
    const LOOKUPS: bool;

    fn build(config: Config) -> Self;
    fn handle(&mut self, now: Instant, event: In) -> Vec<Out>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn traffic(&self) -> Traffic;
    fn counts(&self) -> RoutingCounts;
    fn table(&self) -> &RoutingTable<Grouped>;
    fn probes(&self, node: &Key8) -> Option<bool>;
    fn snapshot(&self, now: Instant) -> Vec<Saved<Grouped>>;
    fn operation(&self, tag: u64) -> Option<OperationId>;
}

macro_rules! read_only {
    ($machine:ident, $counts:ident) => {
        fn build(config: Config) -> Self {
            Self::new(LOCAL, config).unwrap()
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Machine::poll_timeout(self)
        }

        fn traffic(&self) -> Traffic {
            $machine::traffic(self)
        }

        fn counts(&self) -> RoutingCounts {
            $machine::$counts(self)
        }

        fn table(&self) -> &RoutingTable<Grouped> {
            $machine::table(self)
        }

        fn probes(&self, node: &Key8) -> Option<bool> {
            $machine::probes(self, node)
        }

        fn snapshot(&self, now: Instant) -> Vec<Saved<Grouped>> {
            $machine::snapshot(self, now)
        }

        fn operation(&self, tag: u64) -> Option<OperationId> {
            $machine::operation(self, tag)
        }
    };
}

impl Subject for Coordinator<Grouped> {
    const LOOKUPS: bool = true;

    fn handle(&mut self, now: Instant, event: In) -> Vec<Out> {
        Machine::handle(self, now, event).into_iter().collect()
    }

    read_only!(Coordinator, routing);
}

impl Subject for Maintenance<Grouped> {
    const LOOKUPS: bool = false;

    fn handle(&mut self, now: Instant, event: In) -> Vec<Out> {
        Machine::handle(self, now, narrow(event)).into_iter().map(widen).collect()
    }

    read_only!(Maintenance, counts);
}

fn narrow(event: In) -> Stamped<NarrowInbound<Grouped>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Start(start) => {
            assert_eq!(start.target, LOCAL, "only bootstraps");
            NarrowInbound::Bootstrap { tag: start.tag, seeds: start.seeds }
        }
        Inbound::Stop(id) => NarrowInbound::Stop(id),
        Inbound::Answered { request, closer } => NarrowInbound::Answered { request, closer },
        Inbound::Failed(request) => NarrowInbound::Failed(request),
        Inbound::Connected { node, round_trip } => NarrowInbound::Connected { node, round_trip },
        Inbound::Disconnected(node) => NarrowInbound::Disconnected(node),
        Inbound::Discovered(node) => NarrowInbound::Discovered(node),
        Inbound::Client(node) => NarrowInbound::Client(node),
        Inbound::Seeds(seeds) => NarrowInbound::Seeds(seeds),
        Inbound::Restore(saved) => NarrowInbound::Restore(saved),
        Inbound::Tick => NarrowInbound::Tick,
        other => panic!("not of the maintenance: {other:?}"),
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
        NarrowOutbound::Admitted(node) => Outbound::Admitted(node),
        NarrowOutbound::Removed(node) => Outbound::Removed(node),
        NarrowOutbound::Bootstrapped(payload) => Outbound::Bootstrapped(payload),
        NarrowOutbound::NearEmpty { nodes } => Outbound::NearEmpty { nodes },
        other => panic!("{other:?}"),
    };
    Stamped { event, context, deadline }
}
