//! The public types: machines and their events are plain values, families may be heavy or light, and payloads
//! convert into events.

#![allow(missing_docs)]

use kad_proto::{
    Bits, Config, ConfigError, Coordinator, Family, Group, Instant, Key, Key160, Machine, Network, Query,
    QueryPool, Reprovide, Response, RoutingInbound, RoutingTable, Secret, Stamped,
};
use std::fmt::Debug;

/// A heavy family: node ids hold addresses, and messages are on the heap.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heavy;

impl Family for Heavy {
    type Key = Key160;
    type Target = Key160;
    type Node = (Key160, Vec<String>);
    type Message = Box<[u8]>;

    fn key(node: &Self::Node) -> Key160 {
        node.0
    }

    fn group(node: &Self::Node) -> Option<Group> {
        node.1.first().map(|address| Group(address.len() as u64))
    }
}

/// A light family: a node is a handle that determines its key.
#[derive(Clone, Debug, Default, PartialEq)]
struct Light;

impl Family for Light {
    type Key = Bits<4>;
    type Target = Bits<4>;
    type Node = u32;
    type Message = ();

    fn key(node: &u32) -> Bits<4> {
        Bits::new(node.to_be_bytes())
    }
}

fn is_a_value<T: Clone + Debug + Send + 'static>() {}

/// A checker holds models behind trait objects: it moves between threads, and is not copied.
#[cfg(feature = "testing")]
#[test]
fn a_checker_moves_between_threads() {
    fn moves<T: Debug + Send + 'static>() {}
    moves::<kad_proto::testing::ContractChecker<Heavy>>();
    moves::<kad_proto::testing::ContractChecker<Light>>();
    is_a_value::<kad_proto::testing::Broken>();
    is_a_value::<kad_proto::testing::RequestInFlight<Heavy>>();
}

/// The checker asks of nodes and messages no more than the engine does.
#[cfg(feature = "testing")]
#[test]
fn a_checker_follows_a_machine_of_a_heavy_family() {
    use kad_proto::Start;
    let node = |byte: u8| (Key160::new([byte; 20]), vec![format!("10.0.0.{byte}")]);
    let (local, target) = (Key160::new([0; 20]), Key160::new([9; 20]));
    let mut machine = Coordinator::<Heavy>::new(local, Config::default(), &Secret::from_seed(0)).unwrap();
    let mut checker = kad_proto::testing::ContractChecker::new(local, Config::default()).unwrap();
    let start = Start::message(1, target, b"get".as_slice().into()).with_seeds(vec![node(1), node(2)]);
    let mut now = Instant::from_secs(1);
    checker.call(&mut machine, now, &Stamped::new(start.into()));
    let of_lookup =
        |(_, sent): &&(_, kad_proto::testing::RequestInFlight<Heavy>)| sent.initiator.operation().is_some();
    while let Some((request, _)) = checker.requests().iter().find(of_lookup) {
        now = now + std::time::Duration::from_millis(20);
        let response = Response::answered(*request, vec![node(1), node(2), node(3), node(4)]).with_value();
        checker.call(&mut machine, now, &Stamped::new(response.into()));
    }
    assert_eq!(checker.tally().get("outcome: all found"), Some(&1));
}

#[test]
fn machines_are_values() {
    fn of<F: Family>() {
        is_a_value::<Query<F>>();
        is_a_value::<QueryPool<F>>();
        is_a_value::<Coordinator<F>>();
        is_a_value::<Network<F>>();
        is_a_value::<RoutingTable<F>>();
        is_a_value::<Reprovide<F::Key>>();
        is_a_value::<Stamped<<Coordinator<F> as Machine>::Inbound>>();
        is_a_value::<Stamped<<Coordinator<F> as Machine>::Outbound>>();
    }
    of::<Heavy>();
    of::<Light>();
    is_a_value::<Config>();
    is_a_value::<ConfigError>();
    is_a_value::<Instant>();
}

#[test]
fn a_node_may_be_a_handle() -> Result<(), ConfigError> {
    use kad_proto::coordinator::{Inbound, Outbound};
    use kad_proto::{Outcome, Start};

    let mut node = Coordinator::<Light>::new(Bits::new([0; 4]), Config::default(), &Secret::from_seed(0))?;
    for handle in 1..30 {
        let connected = Inbound::Routing(RoutingInbound::Connected { node: handle, round_trip: None });
        let _ = node.handle(Instant::ORIGIN, Stamped::new(connected));
    }
    let target = Bits::new(9_u32.to_be_bytes());
    assert_eq!(target.common_prefix_len(&Light::key(&8)), 31);
    let mut said = node.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(Start::find(1, target))));
    let (mut open, mut finished) = (Vec::new(), None);
    while finished.is_none() {
        for stamped in said.drain(..) {
            match stamped.event {
                Outbound::Request(request) => open.push(request.id),
                Outbound::Finished(finish) => finished = Some(finish),
                _ => {}
            }
        }
        if let Some(request) = open.pop() {
            let answered = Inbound::Response(Response::answered(request, Vec::new()));
            said.extend(node.handle(Instant::ORIGIN, Stamped::new(answered)));
        }
    }
    let found = finished.map(|finish| (finish.outcome, finish.closest));
    let nearest = |closest: Vec<kad_proto::Contact<Light>>| {
        closest.iter().take(4).map(|contact| contact.node).collect::<Vec<_>>()
    };
    assert_eq!(
        found.map(|(outcome, closest)| (outcome, nearest(closest))),
        Some((Outcome::Converged, vec![9, 8, 11, 10]))
    );
    Ok(())
}

/// Each payload converts into the inbound event that holds it.
#[test]
fn payloads_convert_into_inbound_events() {
    use kad_proto::broadcast::StartBroadcast;
    use kad_proto::crawl::StartCrawl;
    use kad_proto::{Context, RequestId, Start, broadcast, coordinator, crawl, lookups::query, maintenance};

    let start = Start::<Light>::find(1, Light::key(&1)).with_seeds(vec![2]);
    let crawl = StartCrawl::<Light>::new(2).with_seeds(vec![3]);
    let broadcast = StartBroadcast::<Light>::follow_up(3, Light::key(&4), ());
    let response = Response::<Light>::answered(RequestId::from_u64(5), vec![6]).with_value();
    let routing = RoutingInbound::<Light>::Discovered(7);
    assert_eq!(coordinator::Inbound::from(start.clone()), coordinator::Inbound::Start(start));
    assert_eq!(coordinator::Inbound::from(crawl.clone()), coordinator::Inbound::Crawl(crawl));
    assert_eq!(coordinator::Inbound::from(broadcast.clone()), coordinator::Inbound::Broadcast(broadcast));
    assert_eq!(
        coordinator::Inbound::from(response.clone()),
        coordinator::Inbound::Response(response.clone())
    );
    assert_eq!(coordinator::Inbound::from(routing.clone()), coordinator::Inbound::Routing(routing.clone()));
    assert_eq!(
        maintenance::Inbound::from(response.clone()),
        maintenance::Inbound::Response(response.clone())
    );
    assert_eq!(maintenance::Inbound::from(routing.clone()), maintenance::Inbound::Routing(routing));
    assert_eq!(query::Inbound::from(response.clone()), query::Inbound::Response(response.clone()));
    assert_eq!(crawl::Inbound::from(response.clone()), crawl::Inbound::Response(response.clone()));
    assert_eq!(broadcast::Inbound::from(response.clone()), broadcast::Inbound::Response(response.clone()));

    // An event converts into a stamped one without context and deadline.
    let stamped = Stamped::from(coordinator::Inbound::from(response.clone()));
    let event = coordinator::Inbound::Response(response);
    assert_eq!(stamped, Stamped { event, context: Context::NONE, deadline: None });
}
