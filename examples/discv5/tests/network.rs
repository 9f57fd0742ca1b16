//! The node among 20 nodes of the crate `discv5`, all on the loopback interface: what it finds is compared with the truth; what the
//! others find of it, with its record.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use discv5::{ConfigBuilder, Discv5, ListenConfig};
use enr::k256::ecdsa::SigningKey;
use enr::{CombinedKey, NodeId};
use futures::future::join_all;
use kad_discv5::{Node, Record, config};
use kad_proto::{Key, Key256, Outcome, RequestOutcome};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// k of this network.
const K: usize = 16;

fn loopback() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)
}

fn signing_key() -> SigningKey {
    SigningKey::from_slice(&rand::random::<[u8; 32]>()).unwrap()
}

fn target() -> Key256 {
    Key256::new(rand::random())
}

/// Of the one type of records, and of the other.
fn theirs(record: &Record) -> discv5::Enr {
    record.0.to_base64().parse().unwrap()
}

fn ours(enr: &discv5::Enr) -> Record {
    enr.to_base64().parse::<enr::Enr<SigningKey>>().unwrap().into()
}

/// A node of the crate.
struct Other {
    node: Discv5,
    key: SigningKey,
}

impl Other {
    async fn start(key: SigningKey, sequence: u64, known: Option<discv5::Enr>) -> Self {
        let socket = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        let port = socket.local_addr().unwrap().port();
        let signs = CombinedKey::Secp256k1(key.clone());
        let record =
            enr::Enr::builder().seq(sequence).ip4(Ipv4Addr::LOCALHOST).udp4(port).build(&signs).unwrap();
        let listen = ListenConfig::FromSockets { ipv4: Some(socket), ipv6: None };
        // Its record is as it is made here.
        let config = ConfigBuilder::new(listen).disable_enr_update().build();
        let mut node = Discv5::new(record, signs, config).unwrap();
        node.start().await.unwrap();
        if let Some(known) = known {
            node.add_enr(known).unwrap();
            node.find_node(node.local_enr().node_id()).await.unwrap();
        }
        Self { node, key }
    }

    fn record(&self) -> Record {
        ours(&self.node.local_enr())
    }

    async fn closest(&self, target: Key256) -> Vec<Record> {
        let found = self.node.find_node(NodeId::from(*target.as_bytes())).await.unwrap();
        found.iter().map(ours).collect()
    }
}

/// The others look around until all know all. They know nobody at a distance that they have not asked about.
async fn formed(others: &[Other]) {
    for _ in 0..50 {
        if others.iter().all(|other| other.node.table_entries_id().len() + 1 >= others.len()) {
            return;
        }
        join_all(others.iter().map(|other| other.closest(target()))).await;
    }
    panic!("{:?}", others.iter().map(|other| other.node.table_entries_id().len()).collect::<Vec<_>>());
}

/// Those closest to a target in truth.
fn truth(others: &[Other], target: &Key256) -> Vec<Record> {
    let mut all: Vec<_> = others.iter().map(Other::record).collect();
    all.sort_by_key(|record| record.key().distance(target));
    all.truncate(K);
    all
}

/// Lookups of random targets, all at once: each finds the true closest nodes, at their newest addresses.
async fn exact(what: &str, node: &Node, others: &[Other], lookups: usize) {
    let targets: Vec<_> = (0..lookups).map(|_| target()).collect();
    let begun = Instant::now();
    let found = join_all(targets.iter().map(|target| node.dht.find_node(*target).into_future())).await;
    let (mut requests, mut late) = (0, 0);
    for (found, target) in found.into_iter().zip(&targets) {
        let (found, truth) = (found.unwrap(), truth(others, target));
        requests += found.stats.sent;
        late += found.stats.timed_out;
        let tell = |record: &Record| (record.key(), record.0.seq(), record.address().unwrap());
        let found: Vec<_> = found.closest.iter().map(|contact| tell(&contact.node)).collect();
        assert_eq!(found, truth.iter().map(tell).collect::<Vec<_>>(), "{what}: closest to {target}");
    }
    let took = begun.elapsed();
    println!("{what}: {lookups} lookups in {took:.1?}, {requests} requests, {late} timed out, all exact");
}

/// The others find our node at the address of this record.
async fn named(what: &str, record: &Record, others: &[Other]) {
    for (number, other) in others.iter().enumerate() {
        let found = other.closest(record.key()).await;
        let first = found.first().unwrap_or_else(|| panic!("{what}: {number} finds nobody"));
        assert_eq!(first, record, "{what}: {number} finds the closest");
        assert_eq!(first.address(), record.address(), "{what}: {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_twenty_nodes_of_discv5() {
    let first = Other::start(signing_key(), 1, None).await;
    let known = first.node.local_enr();
    let mut others = vec![first];
    for _ in 1..20 {
        others.push(Other::start(signing_key(), 1, Some(known.clone())).await);
    }
    formed(&others).await;
    let key = signing_key();
    let node = Node::start(key.clone(), loopback(), 1, config()).await.unwrap();
    let joined = node.dht.bootstrap(vec![ours(&known)]).await.unwrap();
    // Where the first is near to us, it names few.
    println!("joined: {:?}, {:?}", joined.outcome, joined.stats);
    assert_ne!(joined.outcome, Outcome::Unreachable);
    exact("one lookup", &node, &others, 1).await;
    exact("100 lookups at once", &node, &others, 100).await;
    named("joined", &node.record(), &others).await;

    // Some are killed: their sockets close.
    for mut killed in others.drain(2..5) {
        killed.node.shutdown();
    }
    exact("three killed, one lookup", &node, &others, 1).await;
    exact("three killed, 10 lookups at once", &node, &others, 10).await;

    // Others move. The record with the higher sequence number holds the new address.
    for moved in [4, 9] {
        let (before, known) = (others[moved].record(), others[moved - 1].node.local_enr());
        let mut old = others.remove(moved);
        old.node.shutdown();
        others.insert(moved, Other::start(old.key, 2, Some(known)).await);
        assert_ne!(others[moved].record().address(), before.address());
    }
    exact("two moved", &node, &others, 10).await;

    // So does ours. They know it from then on by its new record.
    node.shutdown().await;
    let moved = Node::start(key, loopback(), 2, config()).await.unwrap();
    assert_eq!(moved.record(), node.record());
    assert_ne!(moved.record().address(), node.record().address());
    moved.dht.bootstrap(vec![others[0].record()]).await.unwrap();
    exact("ours moved", &moved, &others, 10).await;
    named("ours moved", &moved.record(), &others).await;

    // A dropped call leaves nothing.
    let mut lookup = Box::pin(moved.dht.find_node(target()).into_future());
    assert!(futures::poll!(&mut lookup).is_pending());
    drop(lookup);
    let counts = moved.dht.inspect(|engine, _| (engine.operations(), engine.running())).await;
    assert_eq!(counts.unwrap(), (0, 0));
    moved.shutdown().await;
    assert!(moved.dht.find_node(target()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_begins_with_ours() {
    let node = Node::start(signing_key(), loopback(), 1, config()).await.unwrap();
    let known = theirs(&node.record());
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(Other::start(signing_key(), 1, Some(known.clone())).await);
    }
    formed(&others).await;
    exact("first", &node, &others, 20).await;
    whole_answer(&node, &others).await;
    // What a newcomer knows it has from our answers, some of which take several packets.
    for other in &others {
        let target = target();
        let mut truth = others.iter().map(Other::record).chain([node.record()]).collect::<Vec<_>>();
        truth.retain(|record| *record != other.record());
        truth.sort_by_key(|record| record.key().distance(&target));
        truth.truncate(K);
        let mut found = other.closest(target).await;
        found.sort_by_key(|record| record.key().distance(&target));
        assert_eq!(found, truth);
    }
    node.shutdown().await;
}

/// An answer of several packets is not there before the last of them: a newcomer that knows our node alone is told of all at
/// the distances that it asks for.
async fn whole_answer(node: &Node, others: &[Other]) {
    // It is asked for the two greatest distances.
    let (own, known) = (node.record().key(), || node.dht.view());
    let far = |record: &Record| own.common_prefix_len(&record.key()) <= 1;
    let there: Vec<_> = others.iter().map(Other::record).filter(far).collect();
    patiently("all are known", || there.iter().all(|record| known().nodes().contains(record))).await;
    let newcomer = Node::start(signing_key(), loopback(), 1, config()).await.unwrap();
    let mut lookup = newcomer.dht.find_node(own.with_flipped(0)).with_seeds(vec![node.record()]).start();
    let RequestOutcome::Answered { closer, .. } = lookup.next().await.unwrap().outcome else {
        panic!("no answer")
    };
    assert!(closer.iter().all(|record| there.contains(record)));
    assert_eq!(closer.len(), there.len().min(K));
    assert!(closer.len() > 3, "one packet has room for three");
    println!("an answer named {} nodes", closer.len());
    drop(lookup);
    newcomer.shutdown().await;
}

/// A record that changes while the session lasts: a ping tells its number, and our node asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_record_is_asked_for() {
    let node = Node::start(signing_key(), loopback(), 1, config()).await.unwrap();
    let other = Other::start(signing_key(), 1, Some(theirs(&node.record()))).await;
    let known = || node.dht.view().nodes().first().map(|record| record.0.seq());
    patiently("it is known", || known() == Some(1)).await;
    other.node.enr_insert("extra", &7_u8).unwrap();
    assert_eq!(other.record().0.seq(), 2);
    other.node.send_ping(theirs(&node.record())).await.unwrap();
    patiently("its new record is known", || known() == Some(2)).await;
    node.shutdown().await;
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
