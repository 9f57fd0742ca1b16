//! The driver, in a network of the independent crate `mainline` and against scripted peers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

use kad_mainline::driver::{Driver, Settings};
use kad_mainline::family::{Failure, Mainline, Node, Payload};
use kad_mainline::goal::Goal;
use kad_mainline::krpc::{Answer, Body, Message, Query};
use kad_mainline::limiter::Rates;
use kad_mainline::operation::{End, Operation};
use kad_mainline::testnet::Testnet;
use kad_mainline::trace::{Ending, HAD, Kept, Span};
use kad_mainline::waterfall::{Row, Waterfall, label, rows};
use kad_mainline::{driver, engine, map, provider, saved, store, svg, trace};
use kad_proto::broadcast::{BroadcastFinish, StoreEnd};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::Reach;
use kad_proto::routing::table::SavedNode;
use kad_proto::{Config, Finish, Instant, Key160, Outcome, RoutingInbound, RoutingOutbound, Stamped};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanId, SpanKind, TraceContextExt, Tracer};
use opentelemetry_sdk::trace::Span as SdkSpan;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// Long enough for anything, on whatever machine.
const LONG: Duration = Duration::from_secs(60);

/// A driver, and the spans that it makes.
struct Observed {
    driver: Driver,
    kept: Kept,
}

/// An operation, and its requests that have ended in the order of their start.
#[derive(Debug)]
struct Observation {
    operation: Operation,
    /// That of the operation itself among them.
    all: Vec<Span>,
    spans: Vec<Span>,
    background: Vec<Span>,
}

impl Observation {
    fn new(operation: Operation, all: Vec<Span>) -> Self {
        let requests = all.iter().filter(|span| span.is_request()).cloned();
        let (background, spans) = requests.partition(Span::is_background);
        Self { operation, all, spans, background }
    }

    /// Its own span.
    fn root(&self) -> &Span {
        let root = self.all.iter().find(|span| !span.is_request()).unwrap();
        assert_eq!(Some(root.context()), self.span.as_ref());
        root
    }
}

impl Deref for Observation {
    type Target = Operation;

    fn deref(&self) -> &Operation {
        &self.operation
    }
}

impl Observed {
    fn operations(&self) -> Vec<Observation> {
        let spans = |operation: &Operation| self.kept.get(operation.tag, self.origin());
        let all = self.driver.operations().into_iter();
        all.map(|operation| Observation::new(operation.clone(), spans(operation))).collect()
    }

    fn take_ended(&mut self) -> Vec<Observation> {
        let origin = self.origin();
        let ended = self.driver.take_ended(false).into_iter();
        ended
            .map(|operation| {
                let spans = self.kept.take(operation.tag, origin);
                Observation::new(operation, spans)
            })
            .collect()
    }

    fn take_upkeep(&self) -> Vec<Span> {
        self.kept.take_upkeep(self.origin())
    }
}

impl Deref for Observed {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl DerefMut for Observed {
    fn deref_mut(&mut self) -> &mut Driver {
        &mut self.driver
    }
}

fn driver(settings: Settings) -> Observed {
    driver_with(engine::config(LONG), settings)
}

fn driver_with(config: Config, settings: Settings) -> Observed {
    observed(config, settings, false)
}

fn observed(config: Config, settings: Settings, upkeep: bool) -> Observed {
    let (any_port, id) = (SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), Key160::new(rand::random()));
    let kept = Kept::new(upkeep);
    let tracer = provider::Providers::new(&kept, None).unwrap().tracer();
    Observed { driver: Driver::new(any_port, id, config, settings, tracer, None).unwrap(), kept }
}

/// Tells a driver that this node has answered it.
fn connected(node: Node) -> Stamped<Inbound<Mainline>> {
    Stamped::new(RoutingInbound::Connected { node, round_trip: None }.into())
}

fn finish(operation: &Operation) -> &Finish<Mainline> {
    let Some(End::Lookup(finish)) = &operation.end else { panic!("{:?}", operation.end) };
    finish
}

fn stores(operation: &Operation) -> &BroadcastFinish<Mainline> {
    let Some(End::Broadcast(finish)) = &operation.end else { panic!("{:?}", operation.end) };
    finish
}

/// What must hold of every operation that has ended, whatever the network did.
fn check_trace(lookup: &Observation) {
    let (_, stats) = lookup.end.as_ref().unwrap().figures().unwrap();
    let root = lookup.root();
    assert_eq!(lookup.spans.len(), stats.sent as usize);
    assert_eq!((root.started, root.ended), (stats.started, stats.ended.unwrap()));
    let ids: HashSet<_> = lookup.spans.iter().map(|span| span.context().span_id()).collect();
    assert_eq!(ids.len(), lookup.spans.len());
    for span in &lookup.spans {
        assert_eq!(span.context().trace_id(), root.context().trace_id(), "a request of another trace");
        assert!(span.deadline().unwrap() <= lookup.deadline.unwrap(), "a request outlives its lookup");
        assert!(span.started < span.deadline().unwrap(), "a request at or after its own deadline");
        assert_ne!(span.ending(), Ending::Abandoned);
        assert!(span.number("kad.request.size").is_some() || span.failure().is_some(), "{span:?}");
        assert_eq!(span.number("kad.response.size").is_some(), is_answered(span), "{span:?}");
        let parent = lookup.spans.iter().find(|parent| parent.context().span_id() == span.parent());
        let caused = parent.is_some_and(|parent| {
            matches!(parent.ending(), Ending::Answered | Ending::Failed) && parent.ended <= span.started
        });
        let is_first = span.parent() == root.context().span_id();
        assert!(caused || is_first, "neither an answer nor the lookup led to it");
    }
    let rows = rows(&lookup.all);
    assert_eq!(rows.len(), lookup.all.len());
    assert!(rows.iter().all(|row| (row.depth == 0) == row.cause.is_none()));
    assert_eq!(rows.iter().filter(|row| row.depth == 0).count(), 1, "all hangs under the operation");
}

/// Whether a message led to the end of this request.
fn is_answered(span: &Span) -> bool {
    match span.ending() {
        Ending::Answered | Ending::Stored => true,
        Ending::Failed => {
            !span.failure().unwrap_or_default().starts_with("not sent")
                && span.failure() != Some("it gave no token")
        }
        _ => false,
    }
}

fn address_of(span: &Span) -> SocketAddrV4 {
    span.address().parse().unwrap()
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
    for lookup in &driver.operations() {
        let finish = finish(lookup);
        assert!(matches!(finish.outcome, Outcome::Converged | Outcome::AllFound), "{:?}", finish.outcome);
        let truth = testnet.closest(lookup.target, 8);
        let found = |node: &&Node| finish.closest.iter().any(|contact| contact.node == **node);
        assert!(truth.iter().filter(found).count() >= 7, "{truth:?}\n{:?}", finish.closest);
        check_trace(lookup);
        // It did not all come from the bootstrap nodes: some answer led to a request.
        assert!(rows(&lookup.all).iter().any(|row| row.depth > 1));
        traces.insert(lookup.root().context().trace_id());
    }
    assert_eq!(traces.len(), 4, "each lookup is a trace of its own");
    let requests = driver.request_stats();
    assert_eq!(requests.in_flight, 0);
    assert_eq!(requests.sent, requests.answered + requests.failed + requests.timed_out + requests.cancelled);
    assert_eq!(driver.datagrams().malformed, 0);
}

#[test]
fn lost_datagrams_are_timed_out_and_asked_again() {
    let testnet = Testnet::start(12).unwrap();
    let mut config = engine::config(LONG);
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
    let lookups = driver.operations();
    let mut spans = lookups.iter().flat_map(|lookup| &lookup.spans);
    assert!(spans.any(|span| span.ending() == Ending::TimedOut));
    lookups.iter().for_each(check_trace);
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
fn asking(peer: &Peer, time: Duration) -> Observed {
    let mut driver = driver(Settings::default());
    driver.tell(connected(peer.node));
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
    assert!(driver.operations()[0].end.is_none());

    let answer = response(&transaction, peer.node.0, &[]);
    driver.datagram(&answer, peer.node.1);
    let lookups = driver.operations();
    let end = finish(&lookups[0]);
    assert_eq!(end.outcome, Outcome::AllFound);
    assert_eq!(end.closest.iter().map(|contact| contact.node).collect::<Vec<_>>(), [peer.node]);
    check_trace(&lookups[0]);
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
        let lookup = driver.operations().remove(0);
        assert!(finish(&lookup).closest.is_empty());
        assert_eq!(finish(&lookup).stats.failed, 1);
        let failure = lookup.spans[0].failure().unwrap();
        if other {
            assert_eq!(failure, Failure::OtherNode(Key160::new([9; 20])).to_string());
        } else {
            assert_eq!(failure, r#"error 202 "Server\u{1b}[2J Error""#, "it cannot clear the screen");
        }
        check_trace(&lookup);
        assert_eq!(driver.datagrams().unexpected, 0);
    }
}

#[test]
fn what_the_system_refuses_to_send_is_a_failure_at_once() {
    let mut driver = driver(Settings::default());
    // Not from a socket that is bound to loopback.
    let unreachable = (Key160::new([1; 20]), SocketAddrV4::new([192, 0, 2, 1].into(), 1));
    driver.tell(connected(unreachable));
    driver.look_up(Key160::new([0; 20]), LONG);
    let lookup = driver.operations().remove(0);
    assert_eq!(finish(&lookup).outcome, Outcome::Unreachable);
    assert_eq!((driver.request_stats().failed, driver.datagrams().unsendable), (1, 1));
    assert!(lookup.spans[0].failure().unwrap().starts_with("not sent: "), "{lookup:?}");
    check_trace(&lookup);
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
    driver.abandon();
    let lookup = driver.operations().remove(0);
    assert_eq!(lookup.spans.iter().map(address_of).collect::<Vec<_>>(), [peer.node.1, other.node.1]);
    assert_eq!(
        [0, 1].map(|place: usize| lookup.spans[place].ending()),
        [Ending::Answered, Ending::Abandoned]
    );
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
    assert!(driver.operations()[0].end.is_none());
    driver.run().unwrap();

    let lookup = driver.operations().remove(0);
    let end = finish(&lookup);
    assert_eq!(end.outcome, Outcome::DeadlineExceeded);
    assert_eq!(end.closest.iter().map(|contact| contact.node).collect::<Vec<_>>(), [peer.node]);
    assert!(end.stats.ended.unwrap() >= lookup.deadline.unwrap());
    // The silent one was asked again, and the peer about what its answer has left open.
    assert_eq!((end.stats.sent, end.stats.cancelled, end.stats.timed_out), (4, 3, 0));
    let endings: Vec<_> = lookup.spans.iter().map(Span::ending).collect();
    assert_eq!(endings[0], Ending::Answered);
    assert!(endings[1..].iter().all(|ending| *ending == Ending::Cancelled), "{endings:?}");
    assert_eq!(lookup.spans[0].number("kad.closer"), Some(2));
    assert_eq!(lookup.root().ending(), Ending::TimedOut);
    assert_eq!(lookup.spans[1].parent(), lookup.spans[0].context().span_id());
    check_trace(&lookup);

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
    driver.abandon();
    let lookup = driver.operations().remove(0);
    assert_eq!(address_of(&lookup.spans[0]), known.1, "the lookup begins with who answered");
    assert_eq!(lookup.spans[0].key(), known.0.to_string());
}

#[test]
fn a_serving_node_answers() {
    let (peer, known) = (Peer::new(1), Peer::new(2));
    let mut driver = driver(Settings { serve: true, ..Settings::default() });
    driver.tell(connected(known.node));
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
        body => panic!("{body:?}"),
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

/// Bencoded queries by hand, as no program of ours would send them.
#[test]
fn a_malformed_query_is_told_so_and_only_an_unknown_method_is_unknown() {
    let peer = Peer::new(1);
    let mut driver = driver(Settings { serve: true, ..Settings::default() });
    let id = "2:id20:abcdefghij0123456789";
    let info_hash = "9:info_hash20:mnopqrstuvwxyz123456";
    let mutable = format!(
        "{id}1:k32:the public key of a mutable item3:seqi1e3:sig64:{}5:token1:x1:v1:x",
        "S".repeat(64)
    );
    let cases = [
        ("ping", String::new(), 203),
        ("find_node", id.into(), 203),
        ("find_node", format!("{id}6:target3:abc"), 203),
        ("get_peers", id.into(), 203),
        ("announce_peer", format!("{id}{info_hash}4:porti7e"), 203),
        ("announce_peer", format!("{id}{info_hash}4:porti7e5:token4:what"), 203),
        ("put", format!("{id}5:token4:what"), 203),
        ("put", format!("{id}5:token4:what1:v1:x"), 203),
        ("put", mutable, 201),
        ("sample_infohashes", format!("{id}6:target20:mnopqrstuvwxyz123456"), 204),
    ];
    let count = cases.len() as u64;
    for (name, arguments, expected) in cases {
        let datagram = format!("d1:ad{arguments}e1:q{}:{name}1:t7:unusual1:y1:qe", name.len());
        driver.datagram(datagram.as_bytes(), peer.node.1);
        let Message { transaction, body } = peer.receive();
        assert_eq!(transaction, b"unusual");
        let Body::Error { code, .. } = body else { panic!("{datagram}: {body:?}") };
        assert_eq!(code, expected, "{datagram}");
    }
    assert_eq!((driver.datagrams().served, driver.datagrams().malformed), (count, 0));
    // Nobody knows to which query an answer without its id would belong; and to answer what is no query could go on
    // for ever.
    for silent in [
        format!("d1:ad{id}e1:q4:ping1:y1:qe"),
        format!("d1:ad{id}e1:q4:ping1:ti4e1:y1:qe"),
        "d1:t2:aa1:y1:xe".into(),
        "d1:rde1:t2:aa1:y1:re".into(),
        "d1:t2:aa1:y1:ee".into(),
    ] {
        driver.datagram(silent.as_bytes(), peer.node.1);
    }
    let datagrams = driver.datagrams();
    assert_eq!((datagrams.sent, datagrams.malformed, datagrams.unexpected), (count, 4, 1));
}

/// A node whose answers have something wrong in every optional field is a node, and what is right in them counts.
#[test]
fn an_answer_with_bad_fields_still_counts() {
    let (peer, named) = (Peer::new(1), Peer::new(2));
    let mut driver = driver(Settings::default());
    driver.tell(connected(peer.node));
    driver.begin(Goal::Peers { quorum: None }, Key160::new([0; 20]), LONG);
    let transaction = peer.receive().transaction;
    let port = named.node.1.port().to_be_bytes();
    let nodes = [named.node.0.as_bytes(), &[127, 0, 0, 1][..], &port, b"cut off"].concat();
    let answer = [
        &b"d2:ipi1e1:rd2:id20:"[..],
        peer.node.0.as_bytes(),
        b"5:nodes33:",
        &nodes,
        b"5:tokenle1:vixe6:valuesl3:abci1e6:\x7f\0\0\x01\0\x07ee1:t4:",
        &transaction,
        b"1:vi4e1:y1:re",
    ];
    driver.datagram(&answer.concat(), peer.node.1);
    assert_eq!(driver.datagrams().malformed, 0);
    let asked = named.receive();
    driver.datagram(&response(&asked.transaction, named.node.0, &[]), named.node.1);
    let search = driver.take_ended().remove(0);
    assert_eq!(finish(&search).closest.len(), 2, "both have answered");
    let peers: Vec<_> = search.found.peers.keys().map(ToString::to_string).collect();
    assert_eq!(peers, ["127.0.0.1:7"]);
}

/// What others have stored with this node, it finds itself: without asking anybody where that is enough.
#[test]
fn what_a_node_keeps_for_others_it_finds_itself() {
    let (peer, known) = (Peer::new(1), Peer::new(2));
    let mut driver = staying(None);
    let (item, info_hash) = (b"2:it".to_vec(), Key160::new([7; 20]));
    let target = store::target(&item);
    let token = exchange(&mut driver, &peer, Query::Get { target }).unwrap().token.unwrap();
    let put = Query::Put { item: item.clone(), target: None, token: token.clone() };
    assert_eq!(exchange(&mut driver, &peer, put), Ok(Answer::default()));
    let announce = Query::AnnouncePeer { info_hash, port: 7, implied_port: false, token };
    assert_eq!(exchange(&mut driver, &peer, announce), Ok(Answer::default()));
    let sent = driver.datagrams().sent;
    for goal in [get(), Goal::Peers { quorum: Some(1) }] {
        let (is_get, key) = if goal == get() { (true, target) } else { (false, info_hash) };
        driver.begin(goal, key, LONG);
        let found = driver.take_ended().remove(0);
        let (end, stats) = (finish(&found), &finish(&found).stats);
        assert_eq!((end.outcome, stats.sent, stats.ended), (Outcome::Quorum, 0, Some(stats.started)));
        assert_eq!((found.found.own_item, found.found.item.is_some()), (is_get, is_get));
        assert_eq!(found.found.own_peers.len(), usize::from(!is_get));
    }
    assert_eq!(driver.datagrams().sent, sent, "nobody was asked");

    // All are asked where that is wanted, or another is needed; but not the node itself, even if it is named.
    driver.tell(connected(known.node));
    // Under an id that the engine does not know for the own one.
    let ours = (Key160::new([9; 20]), driver.address());
    for (goal, key) in [
        (Goal::Peers { quorum: None }, info_hash),
        (Goal::Get { quorum: Some(2), correct: false }, target),
        (Goal::Peers { quorum: None }, Key160::new([8; 20])),
        (Goal::Find, target),
    ] {
        driver.begin(goal.clone(), key, LONG);
        let asked = core::iter::from_fn(|| Some(known.receive())).find(|asked| {
            matches!(asked.body, Body::Query { query: Query::GetPeers { .. } | Query::Get { .. }, .. })
                || matches!(asked.body, Body::Query { query: Query::FindNode { target }, .. } if target == key)
        });
        let answer = Answer {
            nodes: Some(vec![ours]),
            peers: Some(vec!["127.0.0.1:7".parse().unwrap(), "127.0.0.1:8".parse().unwrap()]),
            item: Some(item.clone()),
            ..self::token(b"t")
        };
        let body = Body::Response { from: known.node.0, answer };
        let transaction = asked.unwrap().transaction;
        driver.datagram(&Message { transaction, body }.encode().unwrap(), known.node.1);
        let found = driver.take_ended().remove(0);
        let counts: Vec<_> = found.found.peers.iter().map(|(peer, nodes)| (peer.port(), *nodes)).collect();
        let (own_item, own_peers) = (found.found.own_item, found.found.own_peers.len());
        match goal {
            Goal::Peers { .. } => {
                assert_eq!(counts, [(7, 1), (8, 1)]);
                assert_eq!(own_peers, usize::from(key == info_hash));
            }
            Goal::Get { .. } => {
                assert!(own_item);
                assert_eq!(found.found.item.as_ref(), Some(&item));
                assert_eq!(finish(&found).outcome, Outcome::Quorum, "one more than the own store");
            }
            _ => assert!(!own_item && own_peers == 0, "a lookup searches for nothing that is stored"),
        }
        assert_eq!(found.goal, goal, "it is told as it was wanted");
        assert!(found.spans.iter().all(|span| address_of(span) != ours.1), "the node asked itself");
    }
}

/// A peer asks as fast as it can; another asks once. On loopback each is a host.
#[test]
fn who_asks_too_much_is_not_answered_and_others_are() {
    let (greedy, modest) = (Peer::new(1), Peer::new(2));
    let rates = Rates { queries: 1, burst: 10, ..Rates::default() };
    let mut driver = driver(Settings { serve: true, rates, ..Settings::default() });
    for _ in 0..1_000 {
        driver.datagram(&ping(greedy.node.0, true), greedy.node.1);
    }
    let counted = driver.datagrams();
    assert_eq!(counted.served + counted.limited, 1_000);
    assert!(counted.served >= 10 && counted.limited > 0 && counted.overload == 0, "{counted:?}");
    assert_eq!(exchange(&mut driver, &modest, Query::Ping), Ok(Answer::default()));
    // A malformed query counts as any other.
    let limited = driver.datagrams().limited;
    for _ in 0..100 {
        driver.datagram(b"d1:t2:aa1:y1:qe", greedy.node.1);
    }
    assert!(driver.datagrams().limited > limited);
    // Answers are not limited: who is asked may answer.
    let asked = driver.datagrams().unexpected;
    driver.datagram(&response(b"aaaa", greedy.node.0, &[]), greedy.node.1);
    assert_eq!(driver.datagrams().unexpected, asked + 1);
}

/// The budget of all is used up in the names of many; those that the node knows, and those that have a token, have
/// their own.
#[test]
fn a_flood_leaves_its_answers_to_who_is_known() {
    let (known, holder, stranger) = (Peer::new(1), Peer::new(2), Peer::new(3));
    // A single answer is the budget of minutes.
    let rates = Rates { bytes: 1, ..Rates::default() };
    let settings = Settings { serve: true, rates, ..Settings::default() };
    let mut driver = driver(settings);
    driver.tell(connected(known.node));
    let info_hash = Key160::new([7; 20]);
    let token = exchange(&mut driver, &holder, Query::GetPeers { info_hash }).unwrap().token.unwrap();
    driver.datagram(&ping(stranger.node.0, true), stranger.node.1);
    assert_eq!(driver.datagrams().overload, 1);
    let announce = |token: &[u8]| {
        let query = Query::AnnouncePeer { info_hash, port: 7, implied_port: false, token: token.to_vec() };
        let body = Body::Query { from: holder.node.0, query, read_only: true };
        Message { transaction: b"t".to_vec(), body }.encode().unwrap()
    };
    driver.datagram(&announce(b"guessed!"), holder.node.1);
    assert_eq!((driver.datagrams().overload, driver.stored()), (2, (0, 0)));
    let mut again = self::driver(settings);
    again.tell(connected(known.node));
    let _ = exchange(&mut again, &stranger, Query::Ping);
    // To say that one is a node of the table does not make one it.
    again.datagram(&ping(known.node.0, true), stranger.node.1);
    assert_eq!(again.datagrams().overload, 1);
    assert_eq!(exchange(&mut again, &known, Query::Ping), Ok(Answer::default()));
    driver.datagram(&announce(&token), holder.node.1);
    assert!(matches!(holder.receive().body, Body::Response { .. }));
    assert_eq!(driver.stored(), (0, 1));
    // Who is not answered is not listened to.
    let mut staying = driver_with(engine::staying(engine::config(LONG), None), settings);
    let _ = exchange(&mut staying, &holder, Query::Ping);
    let sent = staying.request_stats().sent;
    staying.datagram(&ping(stranger.node.0, false), stranger.node.1);
    assert_eq!((staying.datagrams().overload, staying.request_stats().sent), (1, sent));
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
                let until = driver.now() + Duration::from_millis(20);
                driver.step(Some(until)).unwrap();
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

/// A client of the crate `mainline` in a network of its nodes.
fn their_client(testnet: &Testnet) -> mainline::Dht {
    let mut builder = mainline::Dht::builder();
    builder.bind_address(Ipv4Addr::LOCALHOST).bootstrap(&testnet.bootstrap());
    builder.request_timeout(Duration::from_secs(5));
    builder.build().unwrap()
}

/// A driver in a network.
fn in_network(testnet: &Testnet) -> Observed {
    let mut driver = driver(Settings::default());
    assert!(driver.bootstrap(&testnet.bootstrap()).unwrap().len() < 3);
    driver
}

/// Does this, and says what came of it.
fn done(driver: &mut Observed, goal: Goal, target: Key160) -> Observation {
    driver.begin(goal, target, LONG);
    driver.run().unwrap();
    let operation = driver.take_ended().remove(0);
    check_trace(&operation);
    operation
}

fn get() -> Goal {
    Goal::Get { quorum: Some(1), correct: false }
}

fn put(item: &[u8]) -> Goal {
    Goal::Put { item: item.to_vec(), optimistic: false }
}

#[test]
#[allow(deprecated)] // their blocking interface
fn what_we_put_the_crate_mainline_gets_and_the_other_way_round() {
    let testnet = Testnet::start(30).unwrap();
    let mut driver = in_network(&testnet);
    let item = b"16:put by kad-proto";
    let target = store::target(item);
    let nowhere = done(&mut driver, get(), target);
    assert_eq!(nowhere.found.item, None);
    assert_eq!(finish(&nowhere).to_correct().count(), 0, "nobody has anything to give");

    let put = done(&mut driver, put(item), target);
    let finish = stores(&put);
    assert!(finish.succeeded && finish.lookup_outcome.is_some(), "{finish:?}");
    assert_eq!(finish.stores.len(), 8, "{finish:?}");
    assert!(finish.stores.iter().all(|stored| stored.end == StoreEnd::Stored), "{finish:?}");
    // Those that have it are those that are closest in truth.
    let truth = testnet.closest(target, 8);
    let has = |node: &&Node| finish.stores.iter().any(|stored| stored.node == **node);
    assert!(truth.iter().filter(has).count() >= 7, "{truth:?}");
    // The stores hang under the answer that ended the lookup, not under the root.
    let is_store = |row: &&Row<'_>| row.span.asked() == "put" && row.depth > 1;
    assert_eq!(rows(&put.all).iter().filter(is_store).count(), finish.stores.len());

    let theirs = their_client(&testnet);
    let id = mainline::Id::from_bytes(target.as_bytes()).unwrap();
    assert_eq!(theirs.get_immutable(id).as_deref(), Some(b"put by kad-proto".as_slice()));

    let target = theirs.put_immutable(b"put by mainline").unwrap();
    let found = done(&mut driver, get(), Key160::new(*target.as_bytes()));
    assert_eq!(found.found.item.as_deref(), Some(b"15:put by mainline".as_slice()));
    assert_eq!(self::finish(&found).outcome, Outcome::Quorum);
    assert!(found.spans.iter().any(|span| span.text(HAD) == Some("the item")));
}

#[test]
#[allow(deprecated)]
fn whom_we_announce_the_crate_mainline_finds_and_the_other_way_round() {
    let testnet = Testnet::start(30).unwrap();
    let (mut driver, theirs) = (in_network(&testnet), their_client(&testnet));
    let info_hash = Key160::new(rand::random());
    let id = mainline::Id::from_bytes(info_hash.as_bytes()).unwrap();
    let nobody = done(&mut driver, Goal::Peers { quorum: None }, info_hash);
    assert!(nobody.found.peers.is_empty());

    let announce = |port| Goal::Announce { port, optimistic: false };
    for port in [Some(7), None] {
        let announced = done(&mut driver, announce(port), info_hash);
        assert!(stores(&announced).succeeded, "{:?}", announced.end);
        assert_eq!(stores(&announced).stores.len(), engine::K, "BEP 5's k");
    }
    let peers: HashSet<_> = theirs.get_peers(id).flatten().collect();
    // A node of the crate keeps one peer of each id that announces any: the last, and ours has one id.
    let ours = [7, driver.address().port()].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    assert!(!peers.is_empty() && peers.iter().all(|peer| ours.contains(peer)), "{peers:?}");
    assert!(peers.contains(&ours[1]), "the last: {peers:?}");

    theirs.announce_peer(id, Some(9)).unwrap();
    let found = done(&mut driver, Goal::Peers { quorum: None }, info_hash).operation.found.peers;
    assert!(found.contains_key(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)), "{found:?}");
    assert!(found.contains_key(&ours[1]), "{found:?}");
    let some = done(&mut driver, Goal::Peers { quorum: Some(2) }, info_hash);
    assert_eq!(finish(&some).outcome, Outcome::Quorum);
}

#[test]
fn an_optimistic_put_needs_the_size_of_the_network_and_leaves_nothing_undone() {
    let testnet = Testnet::start(60).unwrap();
    let mut driver = in_network(&testnet);
    let optimistic = |item: &[u8]| Goal::Put { item: item.to_vec(), optimistic: true };
    let early = done(&mut driver, optimistic(b"5:early"), store::target(b"5:early"));
    assert!(stores(&early).fallback_reason.is_some(), "nothing is known yet");
    for _ in 0..12 {
        driver.look_up(Key160::new(rand::random()), LONG);
    }
    driver.run().unwrap();
    driver.take_ended();
    assert!(driver.network_size().is_ok());

    let target = store::target(b"4:late");
    driver.begin(optimistic(b"4:late"), target, LONG);
    driver.run().unwrap();
    assert_eq!(driver.request_stats().in_flight, 0, "it is not over before what it left to be done is");
    let late = driver.take_ended().remove(0);
    let finish = stores(&late);
    assert_eq!(finish.fallback_reason, None);
    assert!(finish.succeeded);
    let later = finish.stores.iter().filter(|stored| stored.end == StoreEnd::Background).count();
    let stored = finish.stores.iter().filter(|stored| stored.end == StoreEnd::Stored).count();
    assert!(stored >= 6 && stored + later == finish.stores.len(), "{finish:?}");
    let spans = late.spans.iter().chain(&late.background).filter(|span| span.asked() == "put");
    let ends: Vec<_> = spans.map(Span::ending).collect();
    assert!(ends.len() >= engine::K && ends.iter().all(|end| *end == Ending::Stored), "{ends:?}");
    for span in &late.background {
        assert!(span.link().is_some(), "{span:?}");
        assert_ne!(span.context().trace_id(), late.root().context().trace_id(), "it is a trace of its own");
    }
}

/// The stores of an optimistic broadcast that are begun in the background link to the background, one after the
/// other.
#[test]
fn what_follows_in_the_background_is_waited_for() {
    let slow = |query: Query| {
        if is_put(&query) {
            thread::sleep(Duration::from_millis(50));
        }
        Some(Ok(token(b"t")))
    };
    let network = Scripted::start((0..24).map(|_| Box::new(slow) as Script).collect());
    let mut config = engine::config(LONG);
    // One store at a time: each that follows is led to by the one before.
    config.broadcast.max_in_flight = 1;
    config.broadcast.early_return_percent = 10;
    config.network_size.as_mut().unwrap().min_samples = 2;
    // With the k closest alone: by two lookups, the region of 24 nodes may seem to hold all of them.
    config.broadcast.regions = false;
    let mut driver = driver_with(config, Settings::default());
    for node in &network.nodes {
        driver.tell(connected(*node));
    }
    for _ in 0..4 {
        driver.look_up(Key160::new(rand::random()), LONG);
    }
    driver.run().unwrap();
    driver.take_ended();
    let target = store::target(b"2:it");
    driver.begin(Goal::Put { item: b"2:it".to_vec(), optimistic: true }, target, LONG);
    driver.run().unwrap();
    assert_eq!((driver.request_stats().in_flight, driver.request_stats().queued), (0, 0));
    let put = driver.take_ended().remove(0);
    assert_eq!(stores(&put).fallback_reason, None);
    assert!(put.background.len() >= 6, "{}", put.background.len());
    assert!(put.background.iter().all(|span| span.started >= put.root().ended));
    let depth = rows(&put.all).iter().map(|row| row.depth).max().unwrap();
    assert!(depth > put.background.len(), "each hangs under the one before: {depth}");
    assert_bars_fit(&put.all);
    let all: usize = network.nodes.iter().map(|node| network.stores_with(*node).len()).sum();
    assert_eq!(all, engine::K);
}

#[test]
fn a_crawl_finds_every_node() {
    let testnet = Testnet::start(30).unwrap();
    let mut driver = in_network(&testnet);
    let crawled = done_unrecorded(&mut driver);
    let Some(End::Crawl(crawl)) = &crawled.end else { panic!("{:?}", crawled.end) };
    assert_eq!(crawl.outcome, Outcome::Complete);
    let found: HashSet<_> = crawl.nodes.iter().map(|crawled| crawled.node).collect();
    assert_eq!(found, testnet.closest(Key160::new([0; 20]), 30).into_iter().collect::<HashSet<_>>());
    assert!(crawl.nodes.iter().all(|crawled| crawled.reach == Reach::Reachable));
    let map = map::Map { crawl, local: driver.local() };
    assert_eq!(map.by_cpl().values().map(|(nodes, _)| nodes).sum::<usize>(), 30);
    let (outgoing, incoming) = map.degrees();
    assert!(outgoing.least >= 20 && outgoing.most <= 29 && incoming.most <= 29, "{outgoing:?} {incoming:?}");
    let dot = map.dot().unwrap();
    assert_eq!(dot.matches("[label=").count(), 30);
    assert_eq!(dot.matches(" -> ").count(), crawl.edges.len());
    assert!(dot.starts_with("digraph dht {\n") && dot.ends_with("}\n"));
}

fn done_unrecorded(driver: &mut Observed) -> Observation {
    driver.begin(Goal::Crawl { file: None }, Key160::new([0; 20]), LONG);
    driver.run().unwrap();
    driver.take_ended().remove(0)
}

/// What a scripted node answers: nothing, an answer, or an error.
type Script = Box<dyn Fn(Query) -> Option<Result<Answer, (i64, &'static str)>> + Send>;

/// Scripted nodes, which serve until dropped. Each knows all others.
struct Scripted {
    nodes: Vec<Node>,
    over: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<(Node, Query)>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Scripted {
    fn start(scripts: Vec<Script>) -> Self {
        let (over, asked) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let peers: Vec<_> = (1..).zip(&scripts).map(|(id, _)| Peer::new(id)).collect();
        let nodes: Vec<_> = peers.iter().map(|peer| peer.node).collect();
        let serve = |(peer, script): (Peer, Script)| {
            let (over, asked, nodes) = (Arc::clone(&over), Arc::clone(&asked), nodes.clone());
            peer.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !over.load(Ordering::Relaxed) {
                    let Ok((length, from)) = peer.socket.recv_from(&mut buffer) else { continue };
                    let Message { transaction, body } = Message::decode(&buffer[..length]).unwrap();
                    let Body::Query { query, .. } = body else { continue };
                    asked.lock().unwrap().push((peer.node, query.clone()));
                    let body = match script(query) {
                        None => continue,
                        Some(Ok(answer)) => {
                            let nodes = Some(nodes.clone());
                            Body::Response { from: peer.node.0, answer: Answer { nodes, ..answer } }
                        }
                        Some(Err((code, text))) => Body::Error { code, text: text.into() },
                    };
                    let datagram = Message { transaction, body }.encode().unwrap();
                    peer.socket.send_to(&datagram, from).unwrap();
                }
            })
        };
        let threads = peers.into_iter().zip(scripts).map(serve).collect();
        Self { nodes, over, asked, threads }
    }

    /// A driver that knows them.
    fn driver(&self) -> Observed {
        let mut config = engine::config(LONG);
        config.network.request_timeout = Duration::from_millis(1_500);
        config.network.min_timeout = Duration::from_millis(1_500);
        config.network.soft_timeout = Duration::from_secs(1);
        let mut driver = driver_with(config, Settings::default());
        for node in &self.nodes {
            driver.tell(connected(*node));
        }
        driver
    }

    /// The stores that a node was asked for.
    fn stores_with(&self, node: Node) -> Vec<Query> {
        let asked = self.asked.lock().unwrap();
        let is_store = |query: &Query| matches!(query, Query::Put { .. } | Query::AnnouncePeer { .. });
        asked.iter().filter(|(of, query)| *of == node && is_store(query)).map(|it| it.1.clone()).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn token(token: &[u8]) -> Answer {
    Answer { token: Some(token.to_vec()), ..Answer::default() }
}

fn is_put(query: &Query) -> bool {
    matches!(query, Query::Put { .. })
}

#[test]
fn what_becomes_of_each_store_is_told_with_its_reason() {
    let willing = |query: Query| is_put(&query).then(Answer::default).or(Some(token(b"one"))).map(Ok);
    let full = |query: Query| Some(if is_put(&query) { Err((202, "No room")) } else { Ok(token(b"two")) });
    let silent = |query: Query| (!is_put(&query)).then(|| Ok(token(b"three")));
    let stingy = |_| Some(Ok(Answer::default()));
    let old = |_| Some(Err((204, "Method Unknown")));
    let scripts: [Script; 5] =
        [Box::new(willing), Box::new(full), Box::new(silent), Box::new(stingy), Box::new(old)];
    let network = Scripted::start(scripts.into());
    let mut driver = network.driver();
    let item = b"2:it";
    let put = done(&mut driver, put(item), store::target(item));
    let finish = stores(&put);
    assert!(finish.succeeded, "one is enough");
    let end = |place: usize| {
        let stored = finish.stores.iter().find(|stored| stored.node == network.nodes[place]);
        stored.map(|stored| stored.end.clone())
    };
    let refused = |failure| Some(StoreEnd::Rejected(Payload::Refused(failure)));
    assert_eq!(end(0), Some(StoreEnd::Stored));
    assert_eq!(end(1), refused(Failure::Error { code: 202, text: "No room".into() }));
    assert_eq!(end(2), Some(StoreEnd::TimedOut));
    assert_eq!(end(3), refused(Failure::NoToken));
    assert_eq!(end(4), None, "who does not know what get is is not stored with");
    // Each got its own token back, once; and who refuses something lives.
    let of = |token: &[u8]| {
        let target = Some(store::target(item));
        vec![Query::Put { item: item.to_vec(), target, token: token.to_vec() }]
    };
    assert_eq!(
        [0, 1, 3].map(|place| network.stores_with(network.nodes[place])),
        [of(b"one"), of(b"two"), vec![]]
    );
    assert_eq!(network.stores_with(network.nodes[2])[0], of(b"three")[0]);
    for place in [1, 3, 4] {
        let known = driver.table().get(&network.nodes[place]).unwrap();
        assert_eq!(known.failures(), 0, "node {place}");
    }
    assert!(driver.table().get(&network.nodes[2]).unwrap().failures() > 0);
}

#[test]
fn where_nobody_stores_it_nobody_has_and_that_is_no_success() {
    let full = |query: Query| Some(if is_put(&query) { Err((202, "No room")) } else { Ok(token(b"t")) });
    let network = Scripted::start(vec![Box::new(full), Box::new(full)]);
    let put = done(&mut network.driver(), put(b"2:it"), store::target(b"2:it"));
    assert!(!stores(&put).succeeded);
    assert_eq!(stores(&put).stores.len(), 2);
}

#[test]
fn an_item_that_is_not_the_one_asked_for_is_not_taken() {
    let liar = |_| Some(Ok(Answer { item: Some(b"3:lie".to_vec()), ..token(b"t") }));
    let network = Scripted::start(vec![Box::new(liar)]);
    let got = done(&mut network.driver(), get(), store::target(b"5:truth"));
    assert_eq!(got.found.item, None);
    assert_eq!(got.spans[0].text(HAD), Some("another item than that asked for"));
    assert_eq!((finish(&got).values.invalid, finish(&got).to_correct().count()), (1, 0));
}

#[test]
fn a_corrected_item_is_given_to_those_that_lacked_it_and_gave_a_token() {
    let item = b"5:truth";
    let has = |_| Some(Ok(Answer { item: Some(b"5:truth".to_vec()), ..token(b"has") }));
    let lies = |query: Query| {
        let item = (!is_put(&query)).then(|| b"3:lie".to_vec());
        Some(Ok(Answer { item, ..token(b"lies") }))
    };
    let lacks = |_| Some(Ok(token(b"lacks")));
    let stingy = |_| Some(Ok(Answer::default()));
    let scripts: [Script; 4] = [Box::new(has), Box::new(lies), Box::new(lacks), Box::new(stingy)];
    let network = Scripted::start(scripts.into());
    let mut driver = network.driver();
    let target = store::target(item);
    driver.begin(Goal::Get { quorum: None, correct: true }, target, LONG);
    driver.run().unwrap();
    let [got, corrected] = &driver.take_ended()[..] else { panic!("the search, and what it led to") };
    check_trace(got);
    check_trace(corrected);
    assert_eq!(got.found.item.as_deref(), Some(item.as_slice()));
    assert_eq!(corrected.root().context().trace_id(), got.root().context().trace_id());
    assert_eq!(corrected.root().parent(), got.root().context().span_id());
    assert_eq!(got.root().parent(), SpanId::INVALID);
    let stored: HashSet<_> = stores(corrected).stores.iter().map(|stored| stored.node).collect();
    assert_eq!(stored, HashSet::from([network.nodes[2]]), "not the liar");
    assert!(stores(corrected).stores.iter().all(|stored| stored.end == StoreEnd::Stored));
    let of =
        |token: &[u8]| vec![Query::Put { item: item.to_vec(), target: Some(target), token: token.to_vec() }];
    let received = [0, 1, 2, 3].map(|place| network.stores_with(network.nodes[place]));
    assert_eq!(received, [vec![], vec![], of(b"lacks"), vec![]]);
}

/// Spans that a test makes: what each hangs under or links to, when it starts and ends in ms, and its attributes.
type Made<'a> = (Option<(usize, bool)>, u64, u64, Vec<KeyValue>);

/// Makes them, of the operation 0; the first is that of the operation itself.
fn made(all: &[Made<'_>]) -> Vec<Span> {
    let kept = Kept::new(false);
    let providers = provider::Providers::new(&kept, None).unwrap();
    let tracer = providers.tracer();
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000 + ms);
    let mut started: Vec<(SdkSpan, u64)> = Vec::new();
    for (from, start, end, attributes) in all {
        let context = |place: usize| started[place].0.span_context().clone();
        let (name, kind) =
            if from.is_none() { ("kad find", SpanKind::Internal) } else { ("FIND_NODE", SpanKind::Client) };
        let mut builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(at(*start));
        let mut parent = opentelemetry::Context::new();
        match from {
            Some((place, true)) => builder = builder.with_links(vec![Link::with_context(context(*place))]),
            Some((place, false)) => parent = parent.with_remote_span_context(context(*place)),
            None => {}
        }
        let mut span = tracer.build_with_context(builder, &parent);
        let background = matches!(from, Some((_, true)));
        let initiator = if background {
            KeyValue::new(trace::INITIATOR, "background")
        } else {
            KeyValue::new("kad.operation", 0)
        };
        span.set_attributes(attributes.iter().cloned().chain([initiator]));
        started.push((span, *end));
    }
    for (mut span, end) in started {
        span.end_with_timestamp(at(end));
    }
    kept.take(0, SystemTime::UNIX_EPOCH)
}

/// The attributes of a request that ended so.
fn ended(query: &str, hop: i64, end: &str, error: Option<&'static str>) -> Vec<KeyValue> {
    let mut all = trace::describe(&(Key160::new([1; 20]), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7)));
    all.extend([
        KeyValue::new("krpc.query", query.to_owned()),
        KeyValue::new("kad.hop", hop),
        KeyValue::new("kad.end", end.to_owned()),
    ]);
    all.extend(error.map(|error| KeyValue::new("error.type", error)));
    all
}

/// A lookup with one of everything, of which one thing begins and another ends after the operation.
fn everything() -> Vec<Span> {
    let named = KeyValue::new("kad.closer", 8);
    let failure = KeyValue::new("krpc.failure", format!("error 202 \"<&> {}\"", "x".repeat(60)));
    made(&[
        (None, 0, 100, vec![KeyValue::new("kad.outcome", "converged"), KeyValue::new("kad.target", "2a")]),
        (Some((0, false)), 0, 50, [ended("get", 1, "answered", None), vec![named]].concat()),
        (Some((0, false)), 0, 70, ended("find_node", 1, "timed out", Some("timeout"))),
        (Some((1, false)), 50, 50, [ended("put", 2, "failed", Some("failed")), vec![failure]].concat()),
        (Some((1, false)), 50, 100, ended("find_node", 2, "operation ended", None)),
        (Some((1, false)), 50, 150, ended("put", 2, "answered", None)),
        (Some((5, true)), 150, 200, ended("put", 3, "abandoned", None)),
    ])
}

#[test]
fn the_bars_of_a_waterfall_stand_where_the_time_was() {
    let expected = "      at ms   took ms  = answered, x timed out, ~ given up, ! failed
      0.000   100.000 |========        | kad find: converged
      0.000    50.000 |====            |  get 127.0.0.1:7 hop 1 named 8
     50.000     0.000 |    !           |   put 127.0.0.1:7 hop 2 failed: error 202 \"<&> xxxxxxxxx...
     50.000    50.000 |    ~~~~        |   127.0.0.1:7 hop 2 given up: operation ended
     50.000   100.000 |    ========    |   put 127.0.0.1:7 hop 2 stored
    150.000    50.000 |            ~~~~|    put 127.0.0.1:7 hop 3 later in flight
      0.000    70.000 |xxxxxx          |  127.0.0.1:7 hop 1 timed out
";
    let spans = everything();
    assert_eq!(Waterfall(&spans).to_string(), expected);
    assert!(expected.lines().any(|line| line.len() == 100));
    assert_bars_fit(&spans);
    // An instant, and nothing at all.
    assert!(Waterfall(&made(&[(None, 5, 5, Vec::new())])).to_string().contains("0.000     0.000 |= "));
    assert_eq!(Waterfall(&[]).to_string().lines().count(), 1);
}

/// The lines of a waterfall are no longer than they may be, and say what the spans say.
fn assert_bars_fit(spans: &[Span]) {
    let text = Waterfall(spans).to_string();
    let lines: Vec<_> = text.lines().skip(1).collect();
    assert_eq!(lines.len(), spans.len());
    let from = spans.iter().map(|span| span.started).min().unwrap();
    let all = (spans.iter().map(|span| span.ended).max().unwrap() - from).as_secs_f64();
    for (line, Row { span, .. }) in lines.into_iter().zip(rows(spans)) {
        assert!(line.chars().count() <= 100, "{line}");
        let (begin, end) = (line.find('|').unwrap() + 1, 1 + line[25..].find('|').unwrap() + 24);
        let bar = &line[begin..end];
        let share = |at: Instant| (at - from).as_secs_f64() / all * bar.len() as f64;
        let drawn = bar.len() - bar.trim_start().len();
        assert!((drawn as f64 - share(span.started)).abs() <= 1.0, "{line}");
        assert!((bar.trim_end().len() as f64 - share(span.ended)).abs() <= 1.0, "{line}");
        let rest = line[end + 1..].trim_start().trim_end_matches("...");
        assert!(label(span).starts_with(rest), "{line}");
    }
}

#[test]
fn a_picture_is_well_formed_and_says_nothing_that_differs_from_run_to_run() {
    let (one, other) = (everything(), everything());
    assert_ne!(one[0].context(), other[0].context());
    let svg = svg::svg(&[&one, &other]).unwrap();
    assert_eq!(svg, svg::svg(&[&other, &one]).unwrap());
    // Every element is closed, by the name that it was opened by, and what is text is escaped.
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        assert!(
            !text.contains('>') && text.matches('&').count() == text.matches(';').count() || tag == "style"
        );
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
        let attributes = tag.trim_end_matches('/').split_once(' ').map_or("", |(_, attributes)| attributes);
        assert_eq!(attributes.matches('"').count(), 2 * attributes.matches('=').count(), "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
    for (class, count) in [("operation", 1), ("answered", 2), ("late", 1), ("given", 2), ("failed", 1)] {
        let rectangles = svg.matches(&format!("<rect class=\"{class}\"")).count();
        assert_eq!(rectangles, 2 * count + 1, "{class}, with the legend");
    }
    assert_eq!(svg.matches("class=\"cause\"").count(), 2 * 6, "all but the operations hang under something");
    assert!(svg.contains("error 202 \"&lt;&amp;&gt; xxx"));
    assert!(svg.contains(">50</text>") && svg.contains(">0 ms</text>") && !svg.contains("NaN"));
}

#[test]
fn a_node_that_runs_for_long_keeps_no_spans() {
    let testnet = Testnet::start(12).unwrap();
    let settings = Settings { serve: true, ..Settings::default() };
    let mut driver = driver_with(engine::staying(engine::config(LONG), None), settings);
    driver.bootstrap(&testnet.bootstrap()).unwrap();
    let mut done = |goal: Goal| {
        driver.begin(goal, Key160::new(rand::random()), LONG);
        driver.run().unwrap();
        driver.take_ended().remove(0)
    };
    for _ in 0..3 {
        assert!(!done(Goal::Find).spans.is_empty());
    }
    let crawl = done(Goal::Crawl { file: None });
    assert_eq!((crawl.spans.len(), crawl.root().number("kad.nodes") >= Some(11)), (0, true), "{crawl:?}");
    assert!(driver.routing_counts().include.passed > 0, "it has looked after its table");
    driver.abandon();
    assert_eq!(driver.kept.len(), 0);
}

#[test]
fn upkeep_is_recorded_as_traces_that_link_to_what_led_to_them() {
    let (peer, neighbour) = (Peer::new(1), Peer::new(2));
    let settings = Settings { serve: true, ..Settings::default() };
    let mut driver = observed(engine::staying(engine::config(LONG), None), settings, true);
    let address = peer.node.1;
    let peer = thread::spawn(move || peer.answer(&[]));
    driver.bootstrap(&[address]).unwrap();
    let peer = peer.join().unwrap();
    let join = peer.asked();
    driver.datagram(&response(&join, peer.node.0, &[neighbour.node]), peer.node.1);
    let joined = driver.take_upkeep();
    let joined = joined.iter().find(|span| span.initiator() == "join").unwrap();
    assert_eq!((address_of(joined), joined.link()), (peer.node.1, None));
    assert_eq!((joined.ending(), joined.number("kad.closer")), (Ending::Answered, Some(1)));
    // That the neighbour was named led to its check: another trace, with a link.
    let check = core::iter::from_fn(|| Some(neighbour.receive())).find(|message| {
        let checks = Query::FindNode { target: neighbour.node.0 };
        matches!(&message.body, Body::Query { query, .. } if *query == checks)
    });
    driver.datagram(&response(&check.unwrap().transaction, neighbour.node.0, &[peer.node]), neighbour.node.1);
    let upkeep = driver.take_upkeep();
    let check = upkeep.iter().find(|span| span.initiator() == "include").unwrap();
    assert_eq!(address_of(check), neighbour.node.1);
    assert_eq!(check.link(), Some(joined.context()));
    assert_ne!(check.context().trace_id(), joined.context().trace_id());
    assert!(driver.take_upkeep().iter().all(|span| span.context() != check.context()), "it is taken once");

    let mut untraced = staying(None);
    untraced.datagram(&ping(peer.node.0, false), peer.node.1);
    assert_eq!((untraced.request_stats().sent, untraced.take_upkeep().len()), (1, 0));
}

/// A driver that stays, and answers.
fn staying(probe: Option<Duration>) -> Observed {
    let settings = Settings { serve: true, ..Settings::default() };
    driver_with(engine::staying(engine::config(LONG), probe), settings)
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
    assert_eq!(driver.request_stats().sent, 0, "who says that it does not serve is no candidate");
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
    assert!(
        matches!(driver.take_news()[..], [(_, Outbound::Routing(RoutingOutbound::Admitted(node))), ..] if node == peer.node)
    );
    // That it names is another candidate.
    neighbour.asked();

    // Anybody can say of a node that it does not serve.
    driver.datagram(&ping(peer.node.0, true), peer.node.1);
    assert!(driver.table().get(&peer.node).is_some());
    // Nobody is asked on the word of a message that seems to come from ourselves.
    let sent = driver.request_stats().sent;
    let own = driver.address();
    driver.datagram(&ping(Key160::new([7; 20]), false), own);
    assert_eq!(driver.request_stats().sent, sent);
}

#[test]
fn a_node_that_stays_joins_from_its_bootstrap_nodes_and_from_those_restored() {
    let (peer, old) = (Peer::new(1), Peer::new(2));
    let mut driver = staying(None);
    let saved = SavedNode { node: old.node, age: LONG, round_trip: None };
    driver.tell(Stamped::new(RoutingInbound::Restore(vec![saved]).into()));
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
        SavedNode { node: node(1), age: hour, round_trip: Some(Duration::from_micros(1_500)) },
        SavedNode { node: node(2), age: Duration::ZERO, round_trip: None },
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
        prop_assert!(driver.operations()[0].end.is_none());
    });
    let mut driver = driver.into_inner();
    assert!(driver.datagrams().malformed > 0);
    driver.datagram(&valid, peer.node.1);
    assert_eq!(finish(&driver.operations()[0]).closest.len(), 1);
}
