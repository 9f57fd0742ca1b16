//! What every machine promises as a type.

#![allow(missing_docs)]

use kad_proto::{
    Bits, Config, ConfigError, Coordinator, Family, Group, Instant, Key, Key160, Machine, Network, Query,
    QueryPool, Reprovide, RoutingTable, Stamped,
};
use std::fmt::Debug;

/// A family as heavy as they come: ids with addresses, messages on the heap.
#[derive(Clone, Debug, PartialEq)]
struct Heavy;

impl Family for Heavy {
    type Key = Key160;
    type Node = (Key160, Vec<String>);
    type Message = Box<[u8]>;

    fn key(node: &Self::Node) -> Key160 {
        node.0
    }

    fn group(node: &Self::Node) -> Option<Group> {
        node.1.first().map(|address| Group(address.len() as u64))
    }
}

/// A family as light as they come: a node is a handle, and its key follows from it.
#[derive(Clone, Debug, PartialEq)]
struct Light;

impl Family for Light {
    type Key = Bits<4>;
    type Node = u32;
    type Message = ();

    fn key(node: &u32) -> Bits<4> {
        Bits::new(node.to_be_bytes())
    }
}

fn is_a_value<T: Clone + Debug + Send + 'static>() {}

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
fn a_node_may_be_as_small_as_a_handle() -> Result<(), ConfigError> {
    use kad_proto::coordinator::{Inbound, Outbound};
    use kad_proto::{Outcome, Start};

    let mut node = Coordinator::<Light>::new(Bits::new([0; 4]), Config::default())?;
    for handle in 1..30 {
        let connected = Inbound::Connected { node: handle, round_trip: None };
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
            let answered = Inbound::Answered { request, closer: Vec::new() };
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
