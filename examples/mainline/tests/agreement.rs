//! The simulator agrees with the real thing: the same lookups in the same topology, once simulated and once over
//! UDP with the answers in the same order, ask the same nodes in the same order and find the same.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_mainline::driver::{Driver, Settings};
use kad_mainline::krpc::{Answer, Body, Message, Query};
use kad_mainline::trace::Kept;
use kad_mainline::{family, provider};
use kad_proto::sim::{Handle, Key64, Latency, Link, Scenario, Workload, World};
use kad_proto::{Config, Family, Key160, RoutingInbound, Stamped};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

const NODES: u32 = 30;
const LOOKUPS: u32 = 10;
/// Small enough for lookups of several hops in so small a network.
const K: usize = 4;
const LONG: Duration = Duration::from_secs(60);

/// The simulated key, and zeros: distances are in the same order.
fn wide(key: Key64) -> Key160 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(key.as_bytes());
    Key160::new(bytes)
}

fn narrow(key: Key160) -> Key64 {
    Key64::new(key.as_bytes()[..8].try_into().unwrap())
}

/// Time-outs that no loaded machine runs into.
fn config() -> Config {
    let mut config = Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() };
    config.table.bucket_size = K;
    config.query.k = K;
    config.network.request_timeout = LONG;
    config.network.soft_timeout = LONG;
    config.network.min_timeout = LONG;
    config
}

fn world() -> World {
    World::new(Scenario {
        nodes: NODES,
        config: config(),
        k: K,
        // Constant: answers come in the order of the requests.
        link: Link { round_trip: Latency::Constant(Duration::from_millis(50)), ..Link::default() },
        workload: Workload { lookups: LOOKUPS, ..Workload::default() },
        ..Scenario::default()
    })
    .unwrap()
}

/// A node on a socket of its own, which knows what the simulated one knows.
struct Peer {
    handle: Handle,
    socket: UdpSocket,
    address: SocketAddrV4,
}

impl Peer {
    fn new(handle: Handle) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("an IPv4 socket") };
        Self { handle, socket, address }
    }

    fn node(&self) -> family::Node {
        (wide(self.handle.key()), self.address)
    }

    /// Answers one query.
    fn answer(&self, world: &World, peers: &[Peer]) {
        let mut buffer = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        let message = Message::decode(&buffer[..length]).unwrap();
        let Body::Query { query: Query::FindNode { target }, .. } = message.body else { panic!("a query") };
        let closer = world.closest_known(self.handle, narrow(target));
        let closer = closer.iter().map(|handle| peer(peers, *handle).node()).collect();
        let body = Body::Response {
            from: wide(self.handle.key()),
            answer: Answer { nodes: Some(closer), ..Answer::default() },
        };
        let answer = Message { transaction: message.transaction, body };
        self.socket.send_to(&answer.encode().unwrap(), from).unwrap();
    }
}

fn peer(peers: &[Peer], handle: Handle) -> &Peer {
    peers.iter().find(|peer| peer.handle == handle).unwrap()
}

#[test]
fn the_same_nodes_are_asked_over_udp_and_in_the_simulator() {
    let mut simulated = world();
    simulated.run().unwrap();
    // As it was before any lookup; ideal tables are full, so that lookups do not change them.
    let world = world();
    let peers: Vec<_> = (0..NODES).map(|index| Peer::new(world.handle(index))).collect();
    let mut hops = 0;
    for lookup in simulated.lookups() {
        let asked: Vec<_> = lookup.asked.iter().map(|asked| (asked.node, asked.hop)).collect();
        assert!(!asked.is_empty(), "the simulator must keep what it is compared by");

        let id = wide(lookup.starter.key());
        let (address, kept) = (SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), Kept::new(false));
        let tracer = provider::Providers::new(&kept, None).unwrap().tracer();
        let mut driver = Driver::new(address, id, config(), Settings::default(), tracer, None).unwrap();
        for known in world.engine(lookup.starter).unwrap().table().iter() {
            let node = peer(&peers, *known.node()).node();
            driver.tell(Stamped::new(RoutingInbound::Connected { node, round_trip: None }.into()));
        }
        driver.look_up(wide(lookup.target), LONG);
        let mut answered = 0;
        while driver.operations()[0].end.is_none() {
            // Who is to be asked next; a driver that asks another node is waited for in vain.
            let peer = peer(&peers, asked[answered].0);
            peer.answer(&world, &peers);
            driver.step(None).unwrap();
            answered += 1;
        }
        let spans = kept.get(driver.operations()[0].tag, driver.origin());
        let over_udp = spans.iter().filter(|span| span.is_request()).map(|span| {
            let peer = peers.iter().find(|peer| peer.address.to_string() == span.address()).unwrap();
            (peer.handle, u32::try_from(span.hop()).unwrap())
        });
        assert_eq!(over_udp.collect::<Vec<_>>(), asked, "lookup {}", lookup.number);

        let (outcome, stats) = driver.operations()[0].end.as_ref().unwrap().figures().unwrap();
        let ending = lookup.ending.as_ref().unwrap();
        assert_eq!(ending.end, kad_proto::sim::End::Finished(outcome));
        assert_eq!(stats.sent, ending.stats.sent);
        hops = hops.max(ending.stats.hops);
    }
    assert!(hops > 1, "lookups of one hop show little");
    assert_eq!(kad_proto::sim::Net::key(&world.handle(0)), world.handle(0).key());
}
