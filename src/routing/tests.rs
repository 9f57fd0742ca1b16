//! Tests of the routing table inside a coordinator.

use crate::coordinator::events::Inbound;
use crate::routing::table::Offered;
use crate::{
    Config, Coordinator, Family, Instant, Key8, Machine, ProbeConfig, RoutingConfig, RoutingInbound,
    RoutingTable, Secret, Stamped, TableConfig,
};

/// A key and an address.
#[derive(Clone, Debug, Default, PartialEq)]
struct Addressed;

impl Family for Addressed {
    type Key = Key8;
    type Target = Key8;
    type Node = (u8, u8);
    type Message = ();

    fn key(node: &(u8, u8)) -> Key8 {
        Key8::new([node.0])
    }
}

fn table() -> RoutingTable<Addressed> {
    RoutingTable::new(Key8::new([0xff]), TableConfig::default(), &Secret::from_seed(0)).unwrap()
}

/// Only probes.
fn config() -> Config {
    let probe = Some(ProbeConfig::default());
    Config { routing: RoutingConfig { probe, max_clients: 2, ..RoutingConfig::off() }, ..Config::default() }
}

#[test]
fn a_table_to_begin_with_is_probed() {
    let mut table = table();
    let _: Offered = table.offer(Instant::from_secs(100), &(1, 1), None);
    let machine = Coordinator::with_table(table, config(), &Secret::from_seed(0).seeds()).unwrap();
    assert_eq!((machine.is_probed(&(1, 1)), machine.is_probed(&(1, 2))), (Some(true), Some(false)));
    assert_eq!(machine.poll_timeout(), Some(Instant::from_secs(100 + 15 * 60)));
}

#[test]
fn a_node_that_calls_itself_a_client_keeps_no_other_with_its_key_out() {
    let mut machine = Coordinator::with_table(table(), config(), &Secret::from_seed(0).seeds()).unwrap();
    let mut handle = |event| machine.handle(Instant::ORIGIN, Stamped::new(event)).len();
    assert_eq!(handle(Inbound::Routing(RoutingInbound::Client((1, 66)))), 0);
    assert_eq!(handle(Inbound::Routing(RoutingInbound::Connected { node: (1, 66), round_trip: None })), 0);
    assert_eq!(handle(Inbound::Routing(RoutingInbound::Connected { node: (1, 1), round_trip: None })), 1);
    assert_eq!(handle(Inbound::Routing(RoutingInbound::Client((1, 66)))), 0);
    assert_eq!(machine.is_probed(&(1, 1)), Some(true));
}

#[test]
fn the_oldest_clients_are_forgotten() {
    let mut machine = Coordinator::with_table(table(), config(), &Secret::from_seed(0).seeds()).unwrap();
    for key in 1..=3 {
        let _ =
            machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Routing(RoutingInbound::Client((key, 0)))));
    }
    for key in 1..=3 {
        let event = Inbound::Routing(RoutingInbound::Connected { node: (key, 0), round_trip: None });
        let _ = machine.handle(Instant::ORIGIN, Stamped::new(event));
    }
    assert_eq!(machine.table().iter().map(|record| record.node().0).collect::<Vec<_>>(), [1]);
}
