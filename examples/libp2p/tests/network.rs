//! Our node among 20 nodes of `libp2p::kad` in one process, on loopback.
//!
//! `cargo test --release -- --nocapture --test-threads 1` prints time and requests of lookups by our node, and by a node of `libp2p::kad` that
//! has joined the same network, side by side.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use futures::StreamExt;
use futures::future::join_all;
use kad_libp2p::{Node, Peer, Preimage};
use kad_proto::{Config, Key, Target};
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{
    self, GetClosestPeersOk, GetProvidersOk, GetRecordOk, QueryId, QueryResult, Quorum, Record,
};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// The results of a query, and how many requests it took.
#[derive(Debug, Default)]
struct Found {
    peers: Vec<PeerId>,
    providers: HashSet<PeerId>,
    records: Vec<Vec<u8>>,
    requests: u32,
    succeeded: bool,
}

type Begin = Box<dyn FnOnce(&mut kad::Behaviour<MemoryStore>) -> QueryId + Send>;

/// A node of `libp2p::kad`, in a task of its own.
struct Other {
    keys: Keypair,
    id: PeerId,
    address: Multiaddr,
    queries: mpsc::UnboundedSender<(Begin, oneshot::Sender<Found>)>,
    task: AbortHandle,
}

fn listen() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

impl Other {
    async fn start(known: Option<(PeerId, Multiaddr)>) -> Self {
        Self::start_as(Keypair::generate_ed25519(), known).await
    }

    async fn start_as(keys: Keypair, known: Option<(PeerId, Multiaddr)>) -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(keys.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|keys| {
                let id = keys.public().to_peer_id();
                let mut kad = kad::Behaviour::new(id, MemoryStore::new(id));
                kad.set_mode(Some(kad::Mode::Server));
                let identify = identify::Config::new("ipfs/0.1.0".into(), keys.public());
                Behaviour { kad, identify: identify::Behaviour::new(identify) }
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        swarm.listen_on(listen()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let id = *swarm.local_peer_id();
        let (queries, inbox) = mpsc::unbounded_channel();
        if let Some((id, address)) = known {
            swarm.behaviour_mut().kad.add_address(&id, address);
            swarm.behaviour_mut().kad.bootstrap().unwrap();
        }
        let task = tokio::spawn(run(swarm, inbox)).abort_handle();
        Self { keys, id, address, queries, task }
    }

    async fn query(
        &self,
        begin: impl FnOnce(&mut kad::Behaviour<MemoryStore>) -> QueryId + Send + 'static,
    ) -> Found {
        let (to, from) = oneshot::channel();
        self.queries.send((Box::new(begin), to)).unwrap();
        from.await.unwrap()
    }

    async fn closest(&self, target: Vec<u8>) -> Found {
        self.query(|kad| kad.get_closest_peers(target)).await
    }

    /// Whether it serves others, from now on.
    async fn serve(&self, serves: bool) {
        let mode = if serves { kad::Mode::Server } else { kad::Mode::Client };
        self.query(move |kad| {
            kad.set_mode(Some(mode));
            kad.get_closest_peers(target(900))
        })
        .await;
    }
}

async fn run(
    mut swarm: Swarm<Behaviour>,
    mut inbox: mpsc::UnboundedReceiver<(Begin, oneshot::Sender<Found>)>,
) {
    let mut pending: HashMap<QueryId, (Found, oneshot::Sender<Found>)> = HashMap::new();
    loop {
        let event = tokio::select! {
            Some((begin, to)) = inbox.recv() => {
                pending.insert(begin(&mut swarm.behaviour_mut().kad), (Found::default(), to));
                continue;
            }
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) if info.protocols.iter().any(|it| it.as_ref() == "/ipfs/kad/1.0.0") => {
                for address in info.listen_addrs {
                    swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            })) => {
                let Some((found, _)) = pending.get_mut(&id) else { continue };
                found.requests = stats.num_requests();
                match result {
                    QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { peers, .. })) => {
                        found.peers = peers.into_iter().map(|peer| peer.peer_id).collect();
                    }
                    QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                        found.providers.extend(providers);
                    }
                    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))) => {
                        found.records.push(record.record.value);
                    }
                    QueryResult::StartProviding(result) => found.succeeded = result.is_ok(),
                    QueryResult::PutRecord(result) => found.succeeded = result.is_ok(),
                    _ => {}
                }
                if step.last {
                    let (found, to) = pending.remove(&id).unwrap();
                    let _ = to.send(found);
                }
            }
            _ => {}
        }
    }
}

fn target(number: usize) -> Vec<u8> {
    format!("target {number}").into_bytes()
}

fn key(id: &PeerId) -> kad_proto::Key256 {
    Preimage::new(id.to_bytes()).key()
}

/// Those closest to a target in truth.
fn truth(all: &[PeerId], target: &[u8], most: usize) -> Vec<PeerId> {
    let key_of = Preimage::new(target).key();
    let mut all = all.to_vec();
    all.sort_by_key(|id| key(id).distance(&key_of));
    all.truncate(most);
    all
}

/// 20 others, each of which has joined by the first; our node; and a node of theirs that is measured beside ours.
async fn network() -> (Vec<Other>, Node, Other) {
    let first = Other::start(None).await;
    let known = (first.id, first.address.clone());
    let mut others = vec![first];
    for _ in 1..20 {
        others.push(Other::start(Some(known.clone())).await);
    }
    let beside = Other::start(Some(known.clone())).await;
    let node = Node::start(Keypair::generate_ed25519(), listen(), Config::default()).unwrap();
    node.serve(true);
    let first = Peer::new(known.0, [known.1]);
    node.dht.bootstrap(vec![first]).await.unwrap();
    // All are known to all before anything is measured.
    for round in 0..2 {
        for other in others.iter().chain([&beside]) {
            other.closest(other.id.to_bytes()).await;
            other.closest(target(1_000 + round)).await;
        }
        node.dht.bootstrap(Vec::new()).await.unwrap();
    }
    (others, node, beside)
}

fn ids(finish: &kad_proto::Finish<kad_libp2p::Ipfs>) -> Vec<PeerId> {
    finish.closest.iter().map(|contact| contact.node.id).collect()
}

/// The time that all threads of the process have computed so far, where the system says it (Linux). Other programs on the
/// machine do not disturb it; but it is that of all nodes.
fn computed() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Lookups of these targets, all at once. Returns what took how long, and the requests of all.
async fn side_by_side(
    what: &str,
    node: &Node,
    beside: &Other,
    all: &[PeerId],
    targets: std::ops::Range<usize>,
) -> usize {
    let share = |found: Vec<Vec<PeerId>>, own: PeerId| {
        let all: Vec<_> = all.iter().copied().filter(|id| *id != own).collect();
        let hits = found.into_iter().zip(targets.clone()).map(|(found, number)| {
            let truth = truth(&all, &target(number), 20);
            truth.iter().filter(|id| found.contains(id)).count()
        });
        (hits.sum::<usize>(), targets.len() * 20.min(all.len()))
    };
    let (begin, before) = (Instant::now(), computed());
    let ours = join_all(
        targets.clone().map(|number| node.dht.find_node(Preimage::new(target(number))).into_future()),
    );
    let ours: Vec<_> = ours.await.into_iter().map(Result::unwrap).collect();
    let (took, cpu) = (begin.elapsed(), computed().saturating_sub(before));
    let (hits, of) = share(ours.iter().map(ids).collect(), node.peer().id);
    let requests: u32 = ours.iter().map(|found| found.stats.sent).sum();
    println!("{what}: ours: {took:.1?}, {cpu:?} computed, {requests} requests, {hits} of {of} found");
    let (begin, before) = (Instant::now(), computed());
    let theirs: Vec<_> = join_all(targets.clone().map(|number| beside.closest(target(number)))).await;
    let (their_time, their_cpu) = (begin.elapsed(), computed().saturating_sub(before));
    let their_requests: u32 = theirs.iter().map(|found| found.requests).sum();
    let (their_hits, of) = share(theirs.into_iter().map(|found| found.peers).collect(), beside.id);
    println!(
        "{what}: libp2p::kad: {their_time:.1?}, {their_cpu:?} computed, {their_requests} requests, {their_hits} of {of} found"
    );
    of - hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_twenty_nodes_of_libp2p() {
    let (mut others, node, beside) = network().await;
    let ours = node.peer();
    assert!(!ours.addresses.is_empty());
    let everybody = |others: &[Other]| -> Vec<PeerId> {
        others.iter().map(|other| other.id).chain([beside.id, ours.id]).collect()
    };

    // The closest nodes are exact, one lookup at a time and 200 at once.
    let all = everybody(&others);
    assert_eq!(side_by_side("one lookup", &node, &beside, &all, 0..1).await, 0);
    assert_eq!(side_by_side("200 lookups at once", &node, &beside, &all, 1..201).await, 0);

    // They name us.
    let found = others[7].closest(ours.id.to_bytes()).await;
    assert!(found.peers.contains(&ours.id), "a server is known");

    // Records and providers, both ways.
    let (by_us, by_them) = (target(500), target(501));
    let stored = node.dht.put(Preimage::new(by_us.clone()), b"ours".to_vec()).await.unwrap();
    assert!(stored.succeeded, "{:?}", stored.stores);
    let wanted = by_us.clone();
    let found = others[3].query(move |kad| kad.get_record(wanted.into())).await;
    assert!(!found.records.is_empty() && found.records.iter().all(|value| value == b"ours"));
    let record = Record::new(by_them.clone(), b"theirs".to_vec());
    let put = others[5].query(move |kad| kad.put_record(record, Quorum::One).unwrap()).await;
    assert!(put.succeeded);
    let found = node.dht.get(Preimage::new(by_them.clone())).first().await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"theirs"[..]));

    let provided = node.dht.provide(Preimage::new(by_us.clone()), ours.clone()).await.unwrap();
    assert!(provided.succeeded, "{:?}", provided.stores);
    let wanted = by_us.clone();
    let found = others[11].query(move |kad| kad.get_providers(wanted.into())).await;
    assert_eq!(found.providers, HashSet::from([ours.id]));
    let wanted = by_them.clone();
    assert!(others[13].query(move |kad| kad.start_providing(wanted.into()).unwrap()).await.succeeded);
    let mut providers = node.dht.get_providers(Preimage::new(by_them)).enough(1).start();
    let found = providers.next().await.unwrap();
    assert_eq!(found.item.id, others[13].id);
    // Whoever names it may not know its addresses; but it can be found.
    let found = node.dht.find_node(Preimage::new(found.item.id.to_bytes())).await.unwrap();
    assert_eq!(ids(&found)[0], others[13].id);
    assert!(!found.closest[0].node.addresses.is_empty());
    drop(providers);

    // Five are killed: their sockets close.
    for killed in others.drain(2..7) {
        killed.task.abort();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let all = everybody(&others);
    assert_eq!(side_by_side("five killed, one lookup", &node, &beside, &all, 201..202).await, 0);
    assert_eq!(side_by_side("five killed, 200 lookups", &node, &beside, &all, 202..402).await, 0);

    // A dropped call leaves nothing.
    let mut lookup = Box::pin(node.dht.find_node(Preimage::new(target(600))).into_future());
    assert!(futures::poll!(&mut lookup).is_pending());
    drop(lookup);
    let counts = node.dht.inspect(|engine, _| (engine.operations(), engine.running())).await;
    assert_eq!(counts.unwrap(), (0, 0));

    // A client answers nobody, and finds all; a server again does.
    node.serve(false);
    assert_eq!(side_by_side("as a client", &node, &beside, &all, 402..403).await, 0);
    let store = |number| {
        let record = Record::new(target(number), b"to us alone".to_vec());
        others[3].query(move |kad| kad.put_record_to(record, [ours.id].into_iter(), Quorum::One))
    };
    assert!(!store(700).await.succeeded);
    node.serve(true);
    // Its connections take it up when they are next polled.
    let mut tries = 0;
    while !store(701).await.succeeded {
        tries += 1;
        assert!(tries < 100);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(node.dht.get(Preimage::new(target(701))).first().await.unwrap().unwrap(), b"to us alone");
    node.dht.shutdown().await;
    assert!(node.dht.find_node(Preimage::new(*b"later")).await.is_err());
}

/// 12 others and our node, which all know all.
async fn small_network() -> (Vec<Other>, Node) {
    let first = Other::start(None).await;
    let known = (first.id, first.address.clone());
    let mut others = vec![first];
    for _ in 1..12 {
        others.push(Other::start(Some(known.clone())).await);
    }
    let node = Node::start(Keypair::generate_ed25519(), listen(), Config::default()).unwrap();
    node.serve(true);
    node.dht.bootstrap(vec![Peer::new(known.0, [known.1])]).await.unwrap();
    for other in &others {
        other.closest(other.id.to_bytes()).await;
    }
    exact("joined", &node, &others, 0..20).await;
    (others, node)
}

/// Lookups of these targets, one after the other, find all others in the true order.
async fn exact(what: &str, node: &Node, others: &[Other], targets: std::ops::Range<usize>) {
    let all: Vec<_> = others.iter().map(|other| other.id).collect();
    for number in targets {
        let found = node.dht.find_node(Preimage::new(target(number))).await.unwrap();
        assert_eq!(
            ids(&found),
            truth(&all, &target(number), 20),
            "{what}, target {number}: {:?}",
            found.stats
        );
    }
}

async fn patiently(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_move() {
    let (mut others, node) = small_network().await;
    // Two others come back elsewhere, and join by somebody who is not ours.
    for number in [3, 8] {
        let moved = others.remove(number);
        moved.task.abort();
        let by = (others[5].id, others[5].address.clone());
        others.insert(number, Other::start_as(moved.keys, Some(by)).await);
        assert_ne!(others[number].address, moved.address);
        // It has joined: the others that it has asked know where it is.
        others[number].closest(moved.id.to_bytes()).await;
    }
    exact("two moved", &node, &others, 20..40).await;
    for number in [3, 8] {
        let (id, address) = (others[number].id, &others[number].address);
        let found = node.dht.find_node(Preimage::new(id.to_bytes())).await.unwrap();
        assert_eq!(found.closest[0].node.id, id);
        assert!(found.closest[0].node.addresses.contains(address), "{:?}", found.closest[0].node);
        // What it says itself takes the place of the old, which others may add again.
        patiently("the table has the new address first", || {
            let view = node.dht.view();
            view.nodes().iter().any(|peer| peer.id == id && peer.addresses.first() == Some(address))
        })
        .await;
    }

    // So does ours: who is asked for it names its new address.
    let (keys, old) = (Keypair::generate_ed25519(), node);
    old.dht.shutdown().await;
    let start = || Node::start(keys.clone(), listen(), Config::default()).unwrap();
    let first = others[0].address.clone();
    let seeds = || vec![Peer::new(others[0].id, [first.clone()])];
    let before = start();
    before.serve(true);
    before.dht.bootstrap(seeds()).await.unwrap();
    let stale = before.peer().addresses;
    assert!(!stale.is_empty());
    before.dht.shutdown().await;
    let after = start();
    after.serve(true);
    after.dht.bootstrap(seeds()).await.unwrap();
    exact("ours moved", &after, &others, 40..50).await;
    assert_ne!(after.peer().addresses, stale);
    let id = after.peer().id;
    let record = || Record::new(target(800), b"found again".to_vec());
    let mut tries = 0;
    while !others[7]
        .query(move |kad| kad.put_record_to(record(), [id].into_iter(), Quorum::One))
        .await
        .succeeded
    {
        others[7].closest(id.to_bytes()).await;
        tries += 1;
        assert!(tries < 100, "it is reached where it is now");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    after.dht.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_change_there_and_back() {
    let (mut others, node) = small_network().await;
    for round in 0..2 {
        let client = others.remove(4);
        client.serve(false).await;
        let knows = || node.dht.view().nodes().iter().any(|peer| peer.id == client.id);
        patiently("a client leaves the table", || !knows()).await;
        // Others may still name it; but it answers nobody.
        exact("one is a client", &node, &others, 100 * round + 100..100 * round + 110).await;
        client.serve(true).await;
        patiently("a server is admitted again", knows).await;
        others.insert(4, client);
        exact("it serves again", &node, &others, 100 * round + 110..100 * round + 120).await;
    }
    node.dht.shutdown().await;
}

#[tokio::test]
async fn a_network_that_begins_with_ours() {
    let node = Node::start(Keypair::generate_ed25519(), listen(), Config::default()).unwrap();
    node.serve(true);
    while node.peer().addresses.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ours = node.peer();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Other::start(Some((ours.id, ours.addresses[0].clone()))).await);
    }
    let all: HashSet<_> = others.iter().map(|other| other.id).collect();
    let mut tries = 0;
    loop {
        let found = node.dht.find_node(Preimage::new(target(1))).await.unwrap();
        let mut known = ids(&found).into_iter().collect::<HashSet<_>>() == all;
        for other in &others {
            let mut found: HashSet<_> = other.closest(target(1)).await.peers.into_iter().collect();
            found.insert(other.id);
            found.remove(&ours.id);
            known &= found == all;
        }
        if known {
            break;
        }
        tries += 1;
        assert!(tries < 100, "{found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.dht.shutdown().await;
}
