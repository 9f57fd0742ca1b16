//! The example's driver, in a network of the independent crate `mainline` and against scripted peers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../examples/mainline/driver.rs"]
#[allow(dead_code)] // the program does more with it than is tested here
mod driver;
#[path = "../examples/mainline/krpc.rs"]
mod krpc;
#[path = "../examples/mainline/saved.rs"]
mod saved;
#[path = "../examples/mainline/store.rs"]
mod store;
#[path = "../examples/mainline/testnet.rs"]
mod testnet;
#[path = "../examples/mainline/trace.rs"]
#[allow(dead_code)] // the program prints more of it than is tested here
mod trace;

use driver::{Driver, Mainline, Node, Settings};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::table::Saved;
use kad_proto::{Config, Finish, Key160, Outcome, Stamped};
use krpc::{Answer, Body, Message, Query};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testnet::Testnet;
use trace::{Ending, Failure, Lookup};

/// Long enough for anything, on whatever machine.
const LONG: Duration = Duration::from_secs(60);

fn driver(settings: Settings) -> Driver {
    driver_with(driver::config(LONG), settings)
}

fn driver_with(config: Config, settings: Settings) -> Driver {
    let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    Driver::new(any_port, Key160::new(rand::random()), config, settings).unwrap()
}

fn finish(lookup: &Lookup) -> &Finish<Mainline> {
    lookup.end.as_ref().unwrap().as_ref().unwrap()
}

/// What must hold of every lookup that has ended, whatever the network did.
fn check_trace(lookup: &Lookup) {
    let finish = finish(lookup);
    assert_eq!(lookup.spans.len(), finish.statistics.requests as usize);
    let ids: HashSet<_> = lookup.spans.iter().map(|span| span.context.span_id()).collect();
    assert_eq!(ids.len(), lookup.spans.len());
    for span in &lookup.spans {
        assert_eq!(span.context.trace_id(), lookup.root.trace_id(), "a request of another trace");
        assert!(span.deadline.unwrap() <= lookup.deadline.unwrap(), "a request outlives its lookup");
        assert!(span.sent < span.deadline.unwrap(), "a request at or after its own deadline");
        assert!(span.end.is_some(), "a request that never ended");
        let parent = lookup.spans.iter().find(|parent| parent.context.span_id() == span.parent);
        let caused = parent.is_some_and(|parent| {
            let (ended, ending) = parent.end.as_ref().unwrap();
            matches!(ending, Ending::Answered(_) | Ending::Failed(_)) && *ended <= span.sent
        });
        assert!(caused || span.parent == lookup.root.span_id(), "neither an answer nor the lookup led to it");
    }
    assert_eq!(lookup.tree().len(), lookup.spans.len());
    assert!(lookup.tree().iter().all(|(depth, _)| *depth > 0));
}

#[test]
fn lookups_in_a_real_network_find_the_true_closest() {
    let testnet = Testnet::start(30).unwrap();
    assert_eq!(testnet.len(), 30);
    let mut driver = driver(Settings::default());
    assert!(driver.bootstrap(&testnet.bootstrap()).unwrap().len() < 3);
    for _ in 0..4 {
        driver.look_up(Key160::new(rand::random()), LONG);
    }
    driver.run().unwrap();
    let mut traces = HashSet::new();
    for lookup in driver.lookups() {
        let finish = finish(lookup);
        assert!(matches!(finish.outcome, Outcome::Converged | Outcome::Exhausted), "{:?}", finish.outcome);
        let truth = testnet.closest(lookup.target, 8);
        let found = |node: &&Node| finish.closest.iter().any(|contact| contact.node == **node);
        assert!(truth.iter().filter(found).count() >= 7, "{truth:?}\n{:?}", finish.closest);
        check_trace(lookup);
        // It did not all come from the bootstrap nodes: some answer led to a request.
        assert!(lookup.tree().iter().any(|(depth, _)| *depth > 1));
        traces.insert(lookup.root.trace_id());
    }
    assert_eq!(traces.len(), 4, "each lookup is a trace of its own");
    let traffic = driver.traffic();
    assert_eq!(traffic.in_flight, 0);
    assert_eq!(traffic.sent, traffic.answered + traffic.failed + traffic.timed_out + traffic.cancelled);
    assert_eq!(driver.datagrams().malformed, 0);
}

#[test]
fn lost_datagrams_are_timed_out_and_asked_again() {
    let testnet = Testnet::start(12).unwrap();
    let mut config = driver::config(LONG);
    config.network.request_timeout = Duration::from_millis(500);
    config.network.soft_timeout = Duration::from_millis(100);
    let settings = Settings { drop: 0.3, ..Settings::default() };
    let mut driver = driver_with(config, settings);
    assert!(driver.bootstrap(&testnet.bootstrap()).unwrap().len() < 3);
    // Enough lookups that some request is lost; that none of 100 is has a probability of 10^-16.
    for _ in 0..10 {
        driver.look_up(Key160::new(rand::random()), LONG);
    }
    driver.run().unwrap();
    let lookups = driver.lookups();
    let mut spans = lookups.iter().flat_map(|lookup| &lookup.spans);
    assert!(spans.any(|span| matches!(span.end, Some((_, Ending::TimedOut)))));
    lookups.into_iter().for_each(check_trace);
    assert!(driver.datagrams().dropped > 0);
}

/// A node that does what the test says: a socket and an id.
struct Peer {
    socket: UdpSocket,
    node: Node,
}

impl Peer {
    fn new(id: u8) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("an IPv4 socket") };
        Self { socket, node: (Key160::new([id; 20]), address) }
    }

    /// The next message that it receives.
    fn receive(&self) -> Message {
        let mut buffer = [0; 2048];
        let (length, _) = self.socket.recv_from(&mut buffer).unwrap();
        Message::decode(&buffer[..length]).unwrap()
    }

    /// Answers the first query: names these nodes.
    fn answer(self, nodes: &[Node]) -> Self {
        let mut buffer = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        let transaction = Message::decode(&buffer[..length]).unwrap().transaction;
        self.socket.send_to(&response(&transaction, self.node.0, nodes), from).unwrap();
        self
    }

    /// Receives a query; returns its transaction id.
    fn asked(&self) -> Vec<u8> {
        let Message { transaction, body } = self.receive();
        assert!(matches!(body, Body::Query { query: Query::FindNode { .. }, .. }), "{body:?}");
        assert_eq!(transaction.len(), 4);
        transaction
    }
}

fn response(transaction: &[u8], from: Key160, nodes: &[Node]) -> Vec<u8> {
    let answer = Answer { nodes: Some(nodes.to_vec()), ..Answer::default() };
    let body = Body::Response { from, answer };
    Message { transaction: transaction.to_vec(), body }.encode().unwrap()
}

/// A driver that knows this peer, and has just asked it.
fn asking(peer: &Peer, time: Duration) -> Driver {
    let mut driver = driver(Settings::default());
    driver.tell(Stamped::new(Inbound::Connected { node: peer.node, round_trip: None }));
    driver.look_up(Key160::new([0; 20]), time);
    driver
}

#[test]
fn an_answer_counts_only_from_the_address_that_was_asked_and_with_its_transaction_id() {
    let (peer, other) = (Peer::new(1), Peer::new(2));
    let mut driver = asking(&peer, LONG);
    let transaction = peer.asked();
    let forged = response(&transaction, peer.node.0, &[other.node]);
    driver.datagram(&forged, other.node.1);
    assert_eq!(driver.datagrams().unexpected, 1);
    let mut wrong = transaction.clone();
    wrong[3] ^= 1;
    for transaction in [&wrong[..], &transaction[..3], &[transaction.as_slice(), b"x"].concat(), b""] {
        driver.datagram(&response(transaction, peer.node.0, &[other.node]), peer.node.1);
    }
    assert_eq!(driver.datagrams().unexpected, 5);
    assert!(driver.lookups()[0].end.is_none());

    let answer = response(&transaction, peer.node.0, &[]);
    driver.datagram(&answer, peer.node.1);
    let lookups = driver.lookups();
    let end = finish(lookups[0]);
    assert_eq!(end.outcome, Outcome::Exhausted);
    assert_eq!(end.closest.iter().map(|contact| contact.node).collect::<Vec<_>>(), [peer.node]);
    check_trace(driver.lookups()[0]);
    driver.datagram(&answer, peer.node.1);
    assert_eq!(driver.datagrams().unexpected, 6, "the same answer twice");
}

#[test]
fn an_error_or_the_answer_of_another_node_is_a_failure() {
    for other in [false, true] {
        let peer = Peer::new(1);
        let mut driver = asking(&peer, LONG);
        let transaction = peer.asked();
        let body = Body::Error { code: 202, text: "Server\x1b[2J Error".into() };
        let answer = if other {
            response(&transaction, Key160::new([9; 20]), &[])
        } else {
            Message { transaction, body }.encode().unwrap()
        };
        driver.datagram(&answer, peer.node.1);
        let lookup = driver.lookups()[0];
        assert!(finish(lookup).closest.is_empty());
        assert_eq!(finish(lookup).statistics.failure, 1);
        let Some((_, Ending::Failed(failure))) = &lookup.spans[0].end else { panic!("{:?}", lookup.spans) };
        if other {
            assert_eq!(*failure, Failure::OtherNode(Key160::new([9; 20])));
        } else {
            assert_eq!(*failure, Failure::Error { code: 202, text: "Server\x1b[2J Error".into() });
            assert_eq!(
                failure.to_string(),
                r#"error 202 "Server\u{1b}[2J Error""#,
                "it cannot clear the screen"
            );
        }
        assert_eq!(driver.datagrams().unexpected, 0);
    }
}

#[test]
fn what_the_system_refuses_to_send_is_a_failure_at_once() {
    let mut driver = driver(Settings::default());
    // Not from a socket that is bound to loopback.
    let unreachable = (Key160::new([1; 20]), SocketAddrV4::new([192, 0, 2, 1].into(), 1));
    driver.tell(Stamped::new(Inbound::Connected { node: unreachable, round_trip: None }));
    driver.look_up(Key160::new([0; 20]), LONG);
    assert_eq!(finish(driver.lookups()[0]).outcome, Outcome::Exhausted);
    assert_eq!((driver.traffic().failed, driver.datagrams().unsendable), (1, 1));
    let lookup = driver.lookups()[0];
    assert!(matches!(lookup.spans[0].end, Some((_, Ending::Failed(Failure::Unsendable(_))))), "{lookup:?}");
    check_trace(lookup);
}

#[test]
fn an_address_that_nothing_can_be_sent_to_is_not_asked() {
    let (peer, other) = (Peer::new(1), Peer::new(2));
    let mut driver = asking(&peer, LONG);
    let transaction = peer.asked();
    let nowhere = ["127.0.0.1:0", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1"];
    let named =
        nowhere.iter().zip(3..).map(|(address, id)| (Key160::new([id; 20]), address.parse().unwrap()));
    let named: Vec<_> = named.chain([other.node]).collect();
    driver.datagram(&response(&transaction, peer.node.0, &named), peer.node.1);
    other.asked();
    let lookup = driver.lookups()[0];
    assert_eq!(lookup.spans.iter().map(|span| span.node).collect::<Vec<_>>(), [peer.node, other.node]);
    assert_eq!(driver.datagrams().unsendable, 0);
}

#[test]
fn what_is_local_to_somebody_on_the_internet_is_not_local_to_us() {
    let [far, other, home, near, link] =
        ["192.0.2.1:1", "198.51.100.7:9", "127.0.0.1:1", "192.168.1.1:1", "169.254.3.4:1"]
            .map(|address| address.parse().unwrap());
    assert!(driver::can_know(far, other) && driver::can_know(home, near) && driver::can_know(near, far));
    assert!(![home, near, link].into_iter().any(|local| driver::can_know(far, local)));
}

#[test]
fn a_short_deadline_ends_the_lookup_with_what_it_has_found() {
    let (peer, silent) = (Peer::new(1), Peer::new(2));
    // Long enough for the silent node to be asked again, and less than its time-out.
    let mut driver = asking(&peer, Duration::from_millis(700));
    let transaction = peer.asked();
    // Both itself and the asker are named too: neither is asked.
    let named = [silent.node, peer.node, (Key160::new([3; 20]), driver.address())];
    driver.datagram(&response(&transaction, peer.node.0, &named), peer.node.1);
    let late = silent.asked();
    assert!(driver.lookups()[0].end.is_none());
    driver.run().unwrap();

    let lookup = driver.lookups()[0];
    let end = finish(lookup);
    assert_eq!(end.outcome, Outcome::DeadlineExceeded);
    assert_eq!(end.closest.iter().map(|contact| contact.node).collect::<Vec<_>>(), [peer.node]);
    assert!(end.statistics.ended.unwrap() >= lookup.deadline.unwrap());
    assert_eq!((end.statistics.requests, end.statistics.cancelled, end.statistics.timeouts), (3, 2, 0));
    let endings: Vec<_> = lookup.spans.iter().map(|span| span.end.clone().unwrap().1).collect();
    assert_eq!(endings, [Ending::Answered(2), Ending::Cancelled, Ending::Cancelled]);
    assert_eq!(lookup.spans[1].parent, lookup.spans[0].context.span_id());
    check_trace(lookup);

    driver.datagram(&response(&late, silent.node.0, &[]), silent.node.1);
    assert_eq!(driver.datagrams().unexpected, 1, "its transaction id is forgotten");
}

#[test]
fn a_bootstrap_node_that_cannot_be_reached_is_named() {
    let (peer, silent) = (Peer::new(1), Peer::new(2));
    let mut lost = driver(Settings { drop: 1.0, ..Settings::default() });
    assert_eq!(lost.bootstrap(&[silent.node.1]).unwrap(), [silent.node.1]);
    assert_eq!((lost.datagrams().sent, lost.datagrams().dropped), (0, 8));

    let known = peer.node;
    let answering = thread::spawn(move || peer.answer(&[]));
    let mut driver = driver(Settings::default());
    assert_eq!(driver.bootstrap(&[silent.node.1, known.1]).unwrap(), [silent.node.1]);
    answering.join().unwrap();
    driver.look_up(Key160::new([0; 20]), LONG);
    assert_eq!(driver.lookups()[0].spans[0].node, known, "the lookup begins with who answered");
}

#[test]
fn a_serving_node_answers() {
    let (peer, known) = (Peer::new(1), Peer::new(2));
    let mut driver = driver(Settings { serve: true, ..Settings::default() });
    driver.tell(Stamped::new(Inbound::Connected { node: known.node, round_trip: None }));
    let query = |query| {
        let body = Body::Query { from: peer.node.0, query, read_only: true };
        Message { transaction: b"any length".to_vec(), body }.encode().unwrap()
    };
    let mut answer_to = |asked| {
        driver.datagram(&query(asked), peer.node.1);
        let Message { transaction, body } = peer.receive();
        assert_eq!(transaction, b"any length");
        body
    };
    let pong = answer_to(Query::Ping);
    let found = answer_to(Query::FindNode { target: Key160::new([7; 20]) });
    let peers = answer_to(Query::GetPeers { info_hash: Key160::new([7; 20]) });
    let unknown = answer_to(Query::Other("sample_infohashes".into()));
    let from = driver.local();
    assert_eq!(pong, Body::Response { from, answer: Answer::default() });
    let nodes = Answer { nodes: Some(vec![known.node]), ..Answer::default() };
    assert_eq!(found, Body::Response { from, answer: nodes.clone() });
    let Body::Response { answer, .. } = peers else { panic!("{peers:?}") };
    let token = answer.token.clone();
    assert!(token.is_some());
    assert_eq!(answer, Answer { token, ..nodes }, "it knows nodes, but no peers");
    assert!(matches!(unknown, Body::Error { code: 204, .. }));
    assert_eq!(driver.datagrams().served, 4);

    let mut silent = self::driver(Settings::default());
    silent.datagram(&query(Query::Ping), peer.node.1);
    assert_eq!((silent.datagrams().served, silent.datagrams().unserved), (0, 1));
}

/// Hands a serving driver a query of this peer, and says what it answers.
fn exchange(driver: &mut Driver, peer: &Peer, query: Query) -> Result<Answer, i64> {
    let body = Body::Query { from: peer.node.0, query, read_only: true };
    driver.datagram(&Message { transaction: b"t".to_vec(), body }.encode().unwrap(), peer.node.1);
    match peer.receive().body {
        Body::Response { answer, .. } => Ok(answer),
        Body::Error { code, .. } => Err(code),
        body @ Body::Query { .. } => panic!("{body:?}"),
    }
}

#[test]
fn a_serving_node_keeps_items_and_peers_and_says_why_not() {
    let peer = Peer::new(1);
    let mut driver = driver(Settings { serve: true, ..Settings::default() });
    let mut ask = |query| exchange(&mut driver, &peer, query);
    let item = b"d1:ai1e4:listl0:1:be1:zi-7ee".to_vec();
    let target = store::target(&item);
    let nothing = ask(Query::Get { target }).unwrap();
    assert_eq!((nothing.nodes, nothing.item), (Some(vec![]), None));
    let token = nothing.token.unwrap();
    let put = |item: &[u8], target, token: &[u8]| {
        let (item, token) = (item.to_vec(), token.to_vec());
        Query::Put { item, target, token }
    };
    assert_eq!(ask(put(&item, Some(target), b"guessed!")), Err(203));
    assert_eq!(ask(put(b"5:other", Some(target), &token)), Err(203));
    let large = [b"997:".as_slice(), &[b'x'; 997]].concat();
    assert_eq!(ask(put(&large, None, &token)), Err(205));
    assert_eq!(ask(Query::Get { target }).unwrap().item, None);
    // BEP 44 has the target not said, the crate `mainline` says it.
    for said in [None, Some(target)] {
        assert_eq!(ask(put(&item, said, &token)), Ok(Answer::default()));
    }
    assert_eq!(ask(Query::Get { target }).unwrap().item, Some(item));

    let info_hash = Key160::new([7; 20]);
    let announce = |port, implied_port, token: &[u8]| {
        let token = token.to_vec();
        Query::AnnouncePeer { info_hash, port, implied_port, token }
    };
    let token = ask(Query::GetPeers { info_hash }).unwrap().token.unwrap();
    assert_eq!(ask(announce(6881, false, b"")), Err(203));
    assert_eq!(ask(announce(0, false, &token)), Err(203));
    assert_eq!(ask(Query::GetPeers { info_hash }).unwrap().peers, None);
    assert_eq!(ask(announce(6881, false, &token)), Ok(Answer::default()));
    assert_eq!(ask(announce(0, true, &token)), Ok(Answer::default()));
    let mut peers = ask(Query::GetPeers { info_hash }).unwrap().peers.unwrap();
    peers.sort_unstable();
    let mut expected = [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6881), peer.node.1];
    expected.sort_unstable();
    assert_eq!(peers, expected);
    assert_eq!(driver.stored(), (1, 1));
    assert_eq!(driver.datagrams().malformed, 0);
}

/// A node of the crate `mainline` that knows only ours, and serves nobody.
fn their_node(ours: SocketAddrV4) -> mainline::Dht {
    let mut builder = mainline::Dht::builder();
    builder.bind_address(Ipv4Addr::LOCALHOST).bootstrap(&[ours]).request_timeout(Duration::from_secs(5));
    builder.build().unwrap()
}

/// What one of their nodes stores, another reads; and ours is the only node that could keep it.
#[test]
#[allow(deprecated)] // their blocking interface: in a test, there is nothing else to do
fn nodes_of_the_crate_mainline_store_with_ours_and_read_from_it() {
    let mut driver = staying(None);
    let address = driver.address();
    let over = AtomicBool::new(false);
    let (driver, target, info_hash, port) = thread::scope(|scope| {
        let ours = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                driver.step(Some(driver.now() + Duration::from_millis(20))).unwrap();
            }
            driver
        });
        let writer = their_node(address);
        let target = writer.put_immutable(b"kept by kad-proto").unwrap();
        let info_hash = mainline::Id::random();
        // Its own port, and another.
        let port = writer.info().local_addr().port();
        writer.announce_peer(info_hash, Some(port ^ 1)).unwrap();
        writer.announce_peer(info_hash, None).unwrap();
        // It takes with it what it may have kept itself.
        drop(writer);

        let reader = their_node(address);
        assert_eq!(reader.get_immutable(target).as_deref(), Some(b"kept by kad-proto".as_slice()));
        let peers: HashSet<_> = reader.get_peers(info_hash).flatten().map(|peer| peer.port()).collect();
        assert_eq!(peers, HashSet::from([port ^ 1, port]));
        assert_eq!(reader.get_immutable(mainline::Id::random()), None);
        over.store(true, Ordering::Relaxed);
        (ours.join().unwrap(), target, info_hash, port)
    });
    assert_eq!(driver.stored(), (1, 1));
    assert_eq!(*target.as_bytes(), *store::target(b"17:kept by kad-proto").as_bytes());
    assert_eq!(driver.datagrams().malformed, 0);
    // And by ourselves, over the wire.
    let (mut driver, peer) = (driver, Peer::new(1));
    let item = exchange(&mut driver, &peer, Query::Get { target: Key160::new(*target.as_bytes()) });
    assert_eq!(item.unwrap().item.unwrap(), b"17:kept by kad-proto");
    let info_hash = Key160::new(*info_hash.as_bytes());
    let peers = exchange(&mut driver, &peer, Query::GetPeers { info_hash }).unwrap().peers.unwrap();
    let expected = [port ^ 1, port].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    assert_eq!(peers.into_iter().collect::<HashSet<_>>(), HashSet::from(expected));
}

/// A driver that stays, and answers.
fn staying(probe: Option<Duration>) -> Driver {
    let settings = Settings { serve: true, ..Settings::default() };
    driver_with(driver::staying(driver::config(LONG), probe), settings)
}

fn ping(from: Key160, read_only: bool) -> Vec<u8> {
    let body = Body::Query { from, query: Query::Ping, read_only };
    Message { transaction: b"aa".to_vec(), body }.encode().unwrap()
}

#[test]
fn who_asks_us_something_is_checked_and_enters_the_table_only_then() {
    let (peer, shy) = (Peer::new(1), Peer::new(2));
    let mut driver = staying(None);
    driver.datagram(&ping(shy.node.0, true), shy.node.1);
    assert_eq!(driver.traffic().sent, 0, "who says that it does not serve is no candidate");
    driver.datagram(&ping(peer.node.0, false), peer.node.1);
    assert!(matches!(peer.receive().body, Body::Response { .. }));
    let check = peer.receive();
    let body = Body::Query {
        from: driver.local(),
        query: Query::FindNode { target: peer.node.0 },
        read_only: false,
    };
    assert_eq!(check.body, body);
    assert!(driver.table().is_empty());
    let neighbour = Peer::new(3);
    driver.datagram(&response(&check.transaction, peer.node.0, &[neighbour.node]), peer.node.1);
    assert!(driver.table().get(&peer.node).is_some());
    assert!(matches!(driver.take_news()[..], [(_, Outbound::Admitted(node)), ..] if node == peer.node));
    // That it names is another candidate.
    neighbour.asked();

    // Anybody can say of a node that it does not serve.
    driver.datagram(&ping(peer.node.0, true), peer.node.1);
    assert!(driver.table().get(&peer.node).is_some());
    // Nobody is asked on the word of a message that seems to come from ourselves.
    let sent = driver.traffic().sent;
    driver.datagram(&ping(Key160::new([7; 20]), false), driver.address());
    assert_eq!(driver.traffic().sent, sent);
}

#[test]
fn a_node_that_stays_joins_from_its_bootstrap_nodes_and_from_those_restored() {
    let (peer, old) = (Peer::new(1), Peer::new(2));
    let mut driver = staying(None);
    let saved = Saved { node: old.node, age: LONG, round_trip: None };
    driver.tell(Stamped::new(Inbound::Restore(vec![saved])));
    // It was alive once: now it is probed.
    assert!(driver.table().get(&old.node).is_some());
    old.asked();

    let (address, peer) = (peer.node.1, thread::spawn(move || peer.answer(&[])));
    assert!(driver.bootstrap(&[address]).unwrap().is_empty());
    let peer = peer.join().unwrap();
    let joins = |asked: Message| {
        let joins = Query::FindNode { target: driver.local() };
        matches!(asked.body, Body::Query { query, .. } if query == joins).then_some(asked.transaction)
    };
    // Of what each is asked then, one thing is who is nearest to us.
    let [by_peer, _] =
        [&peer, &old].map(|node| core::iter::from_fn(|| Some(node.receive())).find_map(joins).unwrap());
    driver.datagram(&response(&by_peer, peer.node.0, &[]), peer.node.1);
    assert!(driver.table().get(&peer.node).is_some(), "a seed need not know anybody yet");
}

#[test]
fn what_is_saved_is_read_again() {
    let folder = std::env::temp_dir().join(format!("kad-proto-{:x}", rand::random::<u64>()));
    std::fs::create_dir(&folder).unwrap();
    let (path, id) = (folder.join("table.json"), Key160::new([9; 20]));
    let node = |id| (Key160::new([id; 20]), SocketAddrV4::new([192, 0, 2, id].into(), 6881));
    let hour = Duration::from_secs(3_600);
    let nodes = [
        Saved { node: node(1), age: hour, round_trip: Some(Duration::from_micros(1_500)) },
        Saved { node: node(2), age: Duration::ZERO, round_trip: None },
    ];
    saved::write(&path, id, &nodes).unwrap();
    let (read_id, read) = saved::read(&path).unwrap();
    assert_eq!(read_id, id);
    assert_eq!(read.len(), 2);
    for (read, written) in read.iter().zip(&nodes) {
        assert_eq!((read.node, read.round_trip), (written.node, written.round_trip));
        assert!(read.age >= written.age && read.age < written.age + hour, "it has aged since");
    }
    saved::write(&path, id, &[]).unwrap();
    assert!(saved::read(&path).unwrap().1.is_empty(), "written anew");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");

    let text = std::fs::read_to_string(&path).unwrap();
    for broken in [&text[..text.len() / 2], &text.replace("09", "0x"), "[]", ""] {
        std::fs::write(&path, broken).unwrap();
        assert!(saved::read(&path).is_err(), "{broken}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(saved::read(&path).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn whatever_comes_is_counted_and_does_no_harm() {
    let peer = Peer::new(1);
    let driver = RefCell::new(asking(&peer, LONG));
    let transaction = peer.asked();
    let valid = response(&transaction, peer.node.0, &[peer.node]);
    proptest!(|(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    )| {
        let mut driver = driver.borrow_mut();
        driver.datagram(&noise, peer.node.1);
        let mut changed = valid.clone();
        for (place, byte) in changes {
            changed[place.index(valid.len())] = byte;
        }
        // From another address, lest a change that makes no difference ends the lookup.
        driver.datagram(&changed, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
        let counted = driver.datagrams();
        prop_assert_eq!(counted.received, counted.malformed + counted.unexpected + counted.unserved);
        prop_assert!(driver.lookups()[0].end.is_none());
    });
    let mut driver = driver.into_inner();
    assert!(driver.datagrams().malformed > 0);
    driver.datagram(&valid, peer.node.1);
    assert_eq!(finish(driver.lookups()[0]).closest.len(), 1);
}
