//! The node among nodes of js-libp2p (another program, `tests/js/swarm.mjs`), all on the loopback interface. `.ci/js-libp2p` installs
//! what that needs and runs this.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use kad_libp2p::{Ipfs, Node, Peer, Preimage};
use kad_proto::{Config, Key, Target};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const COUNT: usize = 8;

/// The nodes of js-libp2p.
struct Swarm {
    nodes: Vec<Peer>,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

fn id(text: &Value) -> PeerId {
    text.as_str().unwrap().parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

impl Swarm {
    /// They run, and know nobody.
    async fn start() -> Self {
        // `.ci/js-libp2p` says where it has installed them.
        let folder = std::env::var("KAD_JS").unwrap();
        let mut process = Command::new("node")
            .args(["swarm.mjs", &COUNT.to_string()])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let output = BufReader::new(output).lines();
        let mut swarm = Self { nodes: Vec::new(), input, output, _process: process };
        let first = swarm.read().await;
        let peer = |it: &Value| Peer::new(id(&it["id"]), [it["address"].as_str().unwrap().parse().unwrap()]);
        swarm.nodes = first["nodes"].as_array().unwrap().iter().map(peer).collect();
        swarm
    }

    async fn read(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn does(&mut self, command: Value) -> Value {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = self.read().await;
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    /// All join by this node, until each knows so many.
    async fn join(&mut self, by: &Peer, known: usize) {
        let address = by.addresses[0].clone().with_p2p(by.id).unwrap();
        let answer = self.does(json!({"do": "join", "address": address, "known": known})).await;
        let counts: Vec<_> =
            answer["known"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
        assert!(counts.iter().all(|count| *count >= known as u64), "each knows: {counts:?}");
    }

    async fn closest(&mut self, node: usize, key: &[u8]) -> Vec<PeerId> {
        let answer = self.does(json!({"do": "closest", "node": node, "key": hex(key)})).await;
        answer["peers"].as_array().unwrap().iter().map(id).collect()
    }

    /// Those closest to a target in truth.
    fn truth(&self, target: &Preimage) -> Vec<PeerId> {
        let mut all: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        all.sort_by_key(|id| Preimage::new(id.to_bytes()).key().distance(&target.key()));
        all
    }
}

async fn start() -> Node {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let node = Node::start(Keypair::generate_ed25519(), listen, Config::default()).unwrap();
    node.serve(true);
    while node.peer().addresses.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node
}

fn ids(finish: &kad_proto::Finish<Ipfs>) -> Vec<PeerId> {
    finish.closest.iter().map(|contact| contact.node.id).collect()
}

async fn exact(what: &str, node: &Node, swarm: &Swarm, targets: std::ops::Range<usize>) {
    let mut requests = 0;
    for number in targets.clone() {
        let target = Preimage::new(format!("target {number}"));
        let found = node.dht.find_node(target.clone()).await.unwrap();
        assert_eq!(ids(&found), swarm.truth(&target), "{what}: {:?}", found.stats);
        requests += found.stats.sent;
    }
    println!("{what}: {} lookups, {requests} requests, all exact", targets.len());
}

/// The key of a record, that of another, and the multihash of some content.
fn record(name: &str) -> Vec<u8> {
    format!("/test/{name}").into_bytes()
}

fn content(byte: u8) -> Vec<u8> {
    [&[0x12, 0x20][..], &[byte; 32]].concat()
}

/// Records and providers, both ways.
async fn records(node: &Node, swarm: &mut Swarm) {
    let stored = node.dht.put(Preimage::new(record("ours")), b"ours".to_vec()).await.unwrap();
    assert!(stored.succeeded, "{:?}", stored.stores);
    let got = swarm.does(json!({"do": "get", "node": 3, "key": hex(&record("ours"))})).await;
    let values = got["values"].as_array().unwrap();
    assert!(!values.is_empty() && values.iter().all(|value| *value == hex(b"ours")), "{got}");

    let (key, value) = (hex(&record("theirs")), hex(b"theirs"));
    swarm.does(json!({"do": "put", "node": 5, "key": key, "value": value})).await;
    let found = node.dht.get(Preimage::new(record("theirs"))).first().await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"theirs"[..]));

    let provided = node.dht.provide(Preimage::new(content(1)), node.peer()).await.unwrap();
    assert!(provided.succeeded, "{:?}", provided.stores);
    let found = swarm.does(json!({"do": "providers", "node": 6, "key": hex(&content(1))})).await;
    assert_eq!(found["peers"], json!([node.peer().id.to_string()]));

    swarm.does(json!({"do": "provide", "node": 2, "key": hex(&content(2))})).await;
    let mut providers = node.dht.get_providers(Preimage::new(content(2))).start();
    let mut found = HashSet::new();
    while let Some(provider) = providers.next().await {
        found.insert(provider.item.id);
    }
    assert_eq!(found, HashSet::from([swarm.nodes[2].id]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and packages of npm: .ci/js-libp2p"]
async fn among_nodes_of_js_libp2p() {
    let mut swarm = Swarm::start().await;
    let first = swarm.nodes[0].clone();
    swarm.join(&first, COUNT - 1).await;
    let node = start().await;
    node.dht.bootstrap(vec![first.clone()]).await.unwrap();
    exact("joined", &node, &swarm, 0..50).await;

    // They ping us, then they name us.
    swarm.join(&first, COUNT).await;
    let ours = node.peer().id;
    for number in 0..COUNT {
        assert_eq!(swarm.closest(number, &ours.to_bytes()).await.first(), Some(&ours), "{number} finds us");
    }
    records(&node, &mut swarm).await;

    // Two end: their connections close.
    for _ in 0..2 {
        swarm.does(json!({"do": "kill", "node": 4})).await;
        swarm.nodes.remove(4);
    }
    exact("two ended", &node, &swarm, 50..100).await;

    // A client names itself to nobody, and is found by nobody; then again.
    let client = swarm.nodes[1].clone();
    swarm.does(json!({"do": "mode", "node": 1, "mode": "client"})).await;
    swarm.nodes.remove(1);
    let knows = || node.dht.view().nodes().contains(&client);
    patiently("a client leaves the table", || !knows()).await;
    exact("one is a client", &node, &swarm, 100..120).await;
    swarm.nodes.insert(1, client.clone());
    swarm.does(json!({"do": "mode", "node": 1, "mode": "server"})).await;
    patiently("a server is admitted again", knows).await;
    exact("it is a server again", &node, &swarm, 120..140).await;
    node.dht.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and packages of npm: .ci/js-libp2p"]
async fn a_network_of_js_libp2p_that_begins_with_ours() {
    let (node, mut swarm) = (start().await, Swarm::start().await);
    swarm.join(&node.peer(), COUNT).await;
    exact("first", &node, &swarm, 0..20).await;
    node.dht.shutdown().await;
}

async fn patiently(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not so");
}
