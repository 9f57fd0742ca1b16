//! The program: among its own kind, in a network of the independent crate `mainline`, and against scripted peers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../src/krpc.rs"]
mod krpc;

use kad_proto::{Key, Key160};
use krpc::{Body, Message, Node, Query};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TARGET: &str = "4ccd00e38533a76675f08bdbf6b34c8247398888";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kad-udp"))
}

/// The program as a node that stays: what runs in the first terminal. It ends when this is dropped.
struct Serving {
    process: Child,
    node: Node,
    /// Open as long as the program may print.
    _output: BufReader<ChildStdout>,
}

impl Serving {
    fn start(bootstrap: Option<SocketAddrV4>) -> Self {
        let mut command = program();
        if let Some(address) = bootstrap {
            command.args(["--bootstrap", &address.to_string()]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "it has ended");
            line
        };
        let first = line();
        let words: Vec<_> = first.split_whitespace().collect();
        let ["node", id, "on", "port", port] = words[..] else { panic!("{first}") };
        // Who joins by a node that knows nobody yet learns of nobody either, and tries again in a minute.
        while !line().starts_with("bootstrap ended") {}
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap());
        Self { process, node: (Key160::from_hex(id).unwrap(), address), _output: output }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What runs in the second terminal.
fn find(bootstrap: SocketAddrV4, target: &str, deadline: &str) -> Output {
    let bootstrap = bootstrap.to_string();
    let arguments = ["--bootstrap", &bootstrap, "--find", target, "--deadline", deadline];
    program().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The nodes that a find has printed, in order.
fn found(output: &Output) -> Vec<Node> {
    let (_, closest) = stdout(output).split_once("\nclosest to ").unwrap_or_else(|| panic!("{output:?}"));
    let nodes = closest.lines().skip(1).take_while(|line| line.starts_with("  "));
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let id = Key160::from_hex(words.next().unwrap()).unwrap();
        (id, words.next().unwrap().parse().unwrap())
    };
    nodes.map(read).collect()
}

/// Those of the nodes that a find should print.
fn closest(mut nodes: Vec<Node>, target: &str) -> Vec<Node> {
    let target = Key160::from_hex(target).unwrap();
    nodes.sort_by_key(|node| node.0.distance(&target));
    nodes.truncate(8);
    nodes
}

fn is_ok(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for word in words {
        assert!(stdout(output).contains(word), "{word}: {}", stdout(output));
    }
}

#[test]
fn one_serves_and_another_finds_it() {
    let first = Serving::start(None);
    let output = find(first.node.1, TARGET, "5s");
    // One node is fewer than a lookup is after.
    is_ok(
        &output,
        &[&format!("closest to {TARGET}:"), "all found after", "1 hops", "1 requests: 1 answered"],
    );
    assert_eq!(found(&output), [first.node]);
}

#[test]
fn a_find_hops_through_nodes_that_joined_one_another() {
    let first = Serving::start(None);
    let mut others = Vec::<Serving>::new();
    for _ in 0..11 {
        let bootstrap = others.last().map_or(first.node.1, |last| last.node.1);
        others.push(Serving::start(Some(bootstrap)));
    }
    let nodes: Vec<_> = others.iter().map(|other| other.node).chain([first.node]).collect();
    // Those that they asked may not have checked them yet.
    let until = Instant::now() + Duration::from_secs(30);
    for (id, _) in &nodes {
        let (target, expected) = (id.to_string(), closest(nodes.clone(), &id.to_string()));
        let output = loop {
            let output = find(first.node.1, &target, "10s");
            if Instant::now() > until || output.status.success() && found(&output) == expected {
                break output;
            }
            thread::sleep(Duration::from_millis(50));
        };
        is_ok(&output, &["converged after"]);
        let hops = stdout(&output).split("  hop ").skip(1);
        let mut hops = hops.filter_map(|rest| rest.split_once(',')?.0.parse::<u32>().ok());
        assert!(hops.any(|hop| hop > 1), "{}", stdout(&output));
        assert_eq!(found(&output), expected);
    }
}

/// The crate `mainline` shares nothing with this program.
mod mainline_network {
    use super::*;
    use mainline::{Dht, Id, Testnet};

    #[test]
    fn a_find_in_it_finds_the_closest() {
        let network = Testnet::builder(30).build().unwrap();
        #[allow(deprecated)] // in favour of an asynchronous interface
        let info = |node: &Dht| node.info();
        let node = |dht: &Dht| (Key160::new(*info(dht).id().as_bytes()), info(dht).local_addr());
        let nodes: Vec<_> = network.nodes.iter().map(node).collect();
        let output = find(nodes[0].1, TARGET, "10s");
        is_ok(&output, &["converged after"]);
        assert_eq!(found(&output), closest(nodes, TARGET));
    }

    #[test]
    fn a_node_of_it_finds_nodes_of_ours() {
        let first = Serving::start(None);
        let others: Vec<_> = (0..4).map(|_| Serving::start(Some(first.node.1))).collect();
        let theirs = Dht::builder().bootstrap(&[first.node.1]).build().unwrap();
        let target = Id::from_bytes(Key160::from_hex(TARGET).unwrap().as_bytes()).unwrap();
        let expected = closest(others.iter().map(|other| other.node).chain([first.node]).collect(), TARGET);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            #[allow(deprecated)]
            let answered = theirs.find_node(target);
            let node = |node: &mainline::Node| (Key160::new(*node.id().as_bytes()), node.address());
            let nodes = closest(answered.iter().map(node).collect(), TARGET);
            if nodes == expected {
                break;
            }
            assert!(Instant::now() < until, "{nodes:?} are not {expected:?}");
        }
    }
}

/// A peer that the test plays.
struct Peer {
    socket: UdpSocket,
    node: Node,
}

impl Peer {
    fn new(byte: u8) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
        Self { socket, node: (Key160::new([byte; 20]), address) }
    }

    fn send(&self, transaction: &[u8], body: Body, to: SocketAddrV4) {
        let message = Message { transaction: transaction.to_vec(), body };
        self.socket.send_to(&message.encode(), to).unwrap();
    }

    fn receive(&self) -> (Message, SocketAddrV4) {
        let mut buffer = [0; 2_048];
        let (length, SocketAddr::V4(from)) = self.socket.recv_from(&mut buffer).unwrap() else {
            unreachable!()
        };
        (Message::decode(&buffer[..length]).unwrap(), from)
    }

    /// The next query.
    fn asked(&self) -> (Vec<u8>, Query, SocketAddrV4) {
        let (message, from) = self.receive();
        let Body::Query { query, read_only: true, .. } = message.body else { panic!("{message:?}") };
        assert_eq!(message.transaction.len(), 4);
        (message.transaction, query, from)
    }

    /// Answers a query of that kind.
    fn answer(&self, nodes: Option<Vec<Node>>) {
        let (transaction, query, to) = self.asked();
        assert_eq!(query == Query::Ping, nodes.is_none(), "{query:?}");
        self.send(&transaction, Body::Response { from: self.node.0, nodes }, to);
    }

    /// Asks a node, and returns what it answers.
    fn ask(&self, query: Query, read_only: bool, to: SocketAddrV4) -> Body {
        self.send(b"x", Body::Query { from: self.node.0, query, read_only }, to);
        let (message, from) = self.receive();
        assert_eq!((message.transaction.as_slice(), from), (b"x".as_slice(), to));
        message.body
    }
}

/// A find of the program in a thread of its own, while the test plays its peers.
fn finding(bootstrap: SocketAddrV4, deadline: &'static str) -> thread::JoinHandle<Output> {
    thread::spawn(move || find(bootstrap, TARGET, deadline))
}

#[test]
fn answers_what_it_is_asked_and_nothing_else() {
    let serving = Serving::start(None);
    let (id, to) = serving.node;
    let peer = Peer::new(1);
    for junk in [b"".as_slice(), b"junk", &b"l".repeat(2_000), &b"\xff".repeat(60_000)] {
        peer.socket.send_to(junk, to).unwrap();
    }
    // An answer to nothing.
    peer.send(b"abcd", Body::Response { from: peer.node.0, nodes: Some(vec![peer.node]) }, to);
    peer.send(b"ab", Body::Error { code: 201, text: String::new() }, to);
    assert_eq!(peer.ask(Query::Ping, true, to), Body::Response { from: id, nodes: None });
    let nobody = Body::Response { from: id, nodes: Some(Vec::new()) };
    let find_node = || Query::FindNode { target: Key160::new([7; 20]) };
    assert_eq!(peer.ask(find_node(), true, to), nobody);
    let unknown = Body::Error { code: 204, text: "Method Unknown".into() };
    assert_eq!(peer.ask(Query::Other("vote".into()), true, to), unknown);

    // Who is read-only stays out of its table. Who is not is asked in return, after the answer, and enters if it
    // names somebody.
    assert_eq!(peer.ask(find_node(), false, to), nobody);
    let (message, _) = peer.receive();
    let Body::Query { query: Query::FindNode { .. }, read_only: false, .. } = message.body else {
        panic!("{message:?}")
    };
    let names = Body::Response { from: peer.node.0, nodes: Some(vec![serving.node]) };
    peer.send(&message.transaction, names, to);
    let known = Body::Response { from: id, nodes: Some(vec![peer.node]) };
    assert_eq!(peer.ask(find_node(), true, to), known);
}

#[test]
fn an_answer_counts_only_from_whom_was_asked() {
    let (seed, named, forger) = (Peer::new(0x80), Peer::new(0x40), Peer::new(0x4c));
    let finding = finding(seed.node.1, "5s");
    seed.answer(None);
    seed.answer(Some(vec![named.node]));
    let (transaction, _, to) = named.asked();
    let lie = |from: &Peer| Body::Response { from: from.node.0, nodes: Some(vec![forger.node]) };
    // From another address; with another transaction id.
    forger.send(&transaction, lie(&named), to);
    named.send(b"abcd", lie(&named), to);
    named.send(&transaction[..3], lie(&named), to);
    named.send(&transaction, Body::Response { from: named.node.0, nodes: Some(vec![seed.node]) }, to);
    let output = finding.join().unwrap();
    is_ok(&output, &["2 requests: 2 answered"]);
    assert_eq!(found(&output), [named.node, seed.node]);
}

#[test]
fn errors_and_other_nodes_are_failures() {
    let (seed, refuses, moved) = (Peer::new(0x80), Peer::new(0x40), Peer::new(0x4c));
    let nowhere = (Key160::new([0x44; 20]), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let finding = finding(seed.node.1, "5s");
    seed.answer(None);
    seed.answer(Some(vec![refuses.node, moved.node, nowhere]));
    let (transaction, _, to) = refuses.asked();
    refuses.send(&transaction, Body::Error { code: 202, text: "not today".into() }, to);
    let (transaction, _, to) = moved.asked();
    moved.send(&transaction, Body::Response { from: Key160::new([3; 20]), nodes: Some(vec![]) }, to);
    let output = finding.join().unwrap();
    is_ok(&output, &["3 requests: 1 answered, 2 failed"]);
    assert_eq!(found(&output), [seed.node]);
}

#[test]
fn a_deadline_ends_a_find_with_what_it_has() {
    let (seed, silent) = (Peer::new(0x80), Peer::new(0x40));
    let began = Instant::now();
    let finding = finding(seed.node.1, "700ms");
    seed.answer(None);
    seed.answer(Some(vec![silent.node]));
    let output = finding.join().unwrap();
    let took = began.elapsed();
    is_ok(&output, &["deadline exceeded after"]);
    assert_eq!(found(&output), [seed.node]);
    assert!(took >= Duration::from_millis(690) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_request_that_is_not_answered_times_out() {
    let (seed, silent) = (Peer::new(0x80), Peer::new(0x40));
    let finding = finding(seed.node.1, "20s");
    seed.answer(None);
    seed.answer(Some(vec![silent.node]));
    // The seed is asked about keys beside the target too, as others are silent, and is silent as well.
    let output = finding.join().unwrap();
    is_ok(&output, &["exhausted after", " timed out"]);
    assert!(!stdout(&output).contains(" 0 timed out"), "{}", stdout(&output));
}

#[test]
fn nobody_answers() {
    let silent = Peer::new(1);
    let output = find(silent.node.1, TARGET, "200ms");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stderr(&output), format!("nobody answers at {}\n", silent.node.1));

    // One that answers only to make itself known.
    let finding = finding(silent.node.1, "300ms");
    let (transaction, ..) = silent.asked();
    silent.send(&transaction, Body::Response { from: silent.node.0, nodes: None }, silent.node.1);
    drop(silent);
    assert_eq!(finding.join().unwrap().status.code(), Some(2));

    // And there is nobody to ask.
    let output = program().args(["--find", TARGET]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stdout(&output).contains("unreachable after"), "{output:?}");
}

#[test]
fn bad_arguments_are_named() {
    let cases: [(&[&str], &str); 7] = [
        (&["--find", "4ccd"], "a key has 40 hexadecimal digits, not 4"),
        (&["--port", "65536"], "65536"),
        (&["--deadline", "5"], "not a time like 500ms or 5s"),
        (&["--deadline", "0s"], "not a time like 500ms or 5s"),
        (&["--bootstrap", "nowhere"], "nowhere"),
        (&["--store"], "--store"),
        (&["--find"], "--find"),
    ];
    for (arguments, named) in cases {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(named), "{named}: {output:?}");
    }
    let help = program().arg("--help").output().unwrap();
    is_ok(&help, &["--port", "--bootstrap", "--find", "--deadline"]);
}
