//! Memory of the machines: no allocation per event after a warm-up, and never more than the configuration allows.
//!
//! These tests are a binary by themselves because of the counting allocator. It counts for each thread separately,
//! so tests may run in parallel.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with the benches
#[path = "support/ideal.rs"]
mod ideal;

use allocation_counter::measure;
use ideal::{Ideal, Plain, SplitMix};
use kad_proto::broadcast::{
    Inbound as BroadcastInbound, Outbound as BroadcastOutbound, StartBroadcast, StoreEnd, Strategy,
};
use kad_proto::coordinator::{Inbound as CoordinatorInbound, Outbound as CoordinatorOutbound};
use kad_proto::crawl::{Inbound as CrawlInbound, Outbound as CrawlOutbound, StartCrawl};
use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::routing::table::Offered;
use kad_proto::{
    AnswerExtra, Ask, Batch, BroadcastConfig, BroadcastPool, Config, Coordinator, Crawl, CrawlConfig,
    Instant, Key256, Machine, NetworkConfig, PoolConfig, Query, QueryConfig, QueryPool, Record, Request,
    RequestId, Response, RoutingInbound, RoutingTable, Secret, Stamped, Start, SweepConfig, TableConfig,
    Verdict,
};
use std::collections::VecDeque;
use std::time::Duration;

const LOCAL: Key256 = Key256::new([0; 32]);

/// The parts of a machine's events that these tests use.
trait Events: Machine {
    fn start(start: Start<Plain>) -> Self::Inbound;
    fn answered(request: RequestId, closer: Vec<Key256>) -> Self::Inbound;
    fn request(event: &Self::Outbound) -> Option<&Request<Plain>>;
    fn is_finish(event: &Self::Outbound) -> bool;
}

macro_rules! events {
    ($machine:ident, $inbound:ident, $outbound:ident) => {
        impl Events for $machine<Plain> {
            fn start(start: Start<Plain>) -> Self::Inbound {
                $inbound::Start(start)
            }
            fn answered(request: RequestId, closer: Vec<Key256>) -> Self::Inbound {
                $inbound::Response(Response::answered(request, closer))
            }
            fn request(event: &Self::Outbound) -> Option<&Request<Plain>> {
                if let $outbound::Request(request) = event { Some(request) } else { None }
            }
            fn is_finish(event: &Self::Outbound) -> bool {
                matches!(event, $outbound::Finished(_))
            }
        }
    };
}
events!(Query, Inbound, Outbound);
events!(QueryPool, Inbound, Outbound);
events!(Coordinator, CoordinatorInbound, CoordinatorOutbound);
#[cfg(feature = "record")]
use kad_proto::record::Recorder;
#[cfg(feature = "record")]
events!(Recorder, CoordinatorInbound, CoordinatorOutbound);

/// Runs one lookup of the common workload. Returns the number of events after the start, and of all allocations in
/// them.
fn lookup<M: Events>(
    machine: &mut M,
    out: &mut Batch<M::Outbound>,
    network: &Ideal,
    target: Key256,
    first: usize,
) -> (u64, u64) {
    let mut requests = VecDeque::new();
    let start = Start::find(1, target).with_seeds(network.answer(first, &target));
    let mut event = Stamped::new(M::start(start));
    let (mut events, mut allocations) = (0, 0);
    let mut now = Instant::ORIGIN;
    loop {
        // What comes out is dropped outside of the measurement, as it belongs to the caller.
        let counted = measure(|| machine.handle_into(now, event, out));
        // The start may allocate.
        allocations += if events == 0 { 0 } else { counted.count_total };
        requests.extend(
            out.iter().filter_map(|out| M::request(&out.event)).map(|request| (request.id, request.node)),
        );
        if out.iter().any(|out| M::is_finish(&out.event)) {
            out.clear();
            return (events, allocations);
        }
        out.clear();
        let (id, node) = requests.pop_front().unwrap();
        now = now + Duration::from_micros(1);
        event = Stamped::new(M::answered(id, network.answer(network.index(&node).unwrap(), &target)));
        events += 1;
    }
}

fn allocates_nothing_per_event<M: Events>(mut machine: M, network: &Ideal, warmup: usize) {
    let mut out = Batch::new();
    let lookups = network.lookups(warmup + 10);
    // Healthy lookups as a warm-up.
    for (target, first) in &lookups[..warmup] {
        lookup(&mut machine, &mut out, network, *target, *first);
    }
    for (target, first) in &lookups[warmup..] {
        let (events, allocations) = lookup(&mut machine, &mut out, network, *target, *first);
        assert!(events >= 20);
        assert_eq!(allocations, 0, "in {events} answers of 20 nodes each");
    }
}

#[test]
fn a_warm_query_allocates_nothing_per_event() {
    let query = Query::new(LOCAL, QueryConfig::default(), NetworkConfig::default(), &Secret::from_seed(0));
    allocates_nothing_per_event(query.unwrap(), &Ideal::new(1_000), 10);
}

#[test]
fn a_warm_pool_allocates_nothing_per_event() {
    let pool = QueryPool::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        NetworkConfig::default(),
        &Secret::from_seed(0),
    );
    allocates_nothing_per_event(pool.unwrap(), &Ideal::new(1_000), 10);
}

#[test]
fn a_warm_coordinator_allocates_nothing_per_event() {
    let network = Ideal::new(1_000);
    let mut coordinator = Coordinator::<Plain>::new(
        LOCAL,
        Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() },
        &Secret::from_seed(0),
    )
    .unwrap();
    // A routing table with all the nodes of this network that it can hold.
    for node in &network.keys {
        let connected =
            CoordinatorInbound::Routing(RoutingInbound::Connected { node: *node, round_trip: None });
        let _ = coordinator.handle(Instant::ORIGIN, connected.into());
    }
    // As many lookups as there are samples in the size estimate.
    let warmup = kad_proto::NetworkSizeConfig::default().max_samples + 1;
    allocates_nothing_per_event(coordinator, &network, warmup);
}

/// After the ring is full and has reached its greatest size.
#[cfg(feature = "record")]
#[test]
fn a_warm_recorder_allocates_nothing_per_event() {
    let keep = kad_proto::record::Keep::Last { bytes: 100_000 };
    let config = Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() };
    let recorder = Recorder::<Plain>::new(LOCAL, config, &Secret::from_seed(0), keep).unwrap();
    let warmup = kad_proto::NetworkSizeConfig::default().max_samples + 1;
    allocates_nothing_per_event(recorder, &Ideal::new(1_000), warmup);
}

/// The allocations of a recorder that keeps everything are the growth of its buffer; an answer of 20 nodes takes
/// 20 keys with their lengths, and at most 40 more bytes.
#[cfg(feature = "record")]
#[test]
fn a_recorder_grows_by_the_size_of_its_events() {
    let network = Ideal::new(1_000);
    let config = Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() };
    let keep = kad_proto::record::Keep::All;
    let mut recorder = Recorder::<Plain>::new(LOCAL, config, &Secret::from_seed(0), keep).unwrap();
    for node in &network.keys {
        let connected =
            CoordinatorInbound::Routing(RoutingInbound::Connected { node: *node, round_trip: None });
        let _ = recorder.handle(Instant::ORIGIN, connected.into());
    }
    let mut out = Batch::new();
    let lookups = network.lookups(300);
    for (target, first) in &lookups[..200] {
        lookup(&mut recorder, &mut out, &network, *target, *first);
    }
    let (calls, bytes) = (recorder.calls(), recorder.bytes().len());
    let (mut events, mut allocations) = (0, 0);
    for (target, first) in &lookups[200..] {
        let (more, allocated) = lookup(&mut recorder, &mut out, &network, *target, *first);
        events += more;
        allocations += allocated;
    }
    assert_eq!(recorder.calls() - calls, events + 100);
    let per_call = (recorder.bytes().len() - bytes) as u64 / (events + 100);
    println!("{events} answers: {per_call} bytes a call, {allocations} allocations");
    assert!(per_call <= 20 * 33 + 40, "{per_call} bytes");
    assert!(
        allocations <= 2,
        "{allocations} in {events} answers: the buffer has doubled once or twice at most"
    );
}

/// An adversary that makes up nodes, each closer to the target than all before.
struct Adversary {
    target: Key256,
    distance: u64,
}

impl Adversary {
    fn answer(&mut self, many: usize) -> Vec<Key256> {
        let node = |_| {
            self.distance -= 1;
            let mut bytes = *self.target.as_bytes();
            for (byte, with) in bytes.iter_mut().zip(self.distance.to_be_bytes()) {
                *byte ^= with;
            }
            Key256::new(bytes)
        };
        (0..many).map(node).collect()
    }
}

/// The bound of one lookup: see the documentation of `QueryConfig`. Doubled, as vectors grow by doubling.
fn bytes_per_lookup(config: &QueryConfig) -> u64 {
    let nodes = (config.max_nodes + config.paths * config.max_candidates) as u64;
    2 * nodes * (24 + size_of::<Key256>() as u64) + 2_048
}

/// Starts this many lookups and answers every request with made-up nodes until all have finished. Returns the
/// highest number of bytes that the machine held, and the number of requests it sent.
fn under_fire(config: &QueryConfig, lookups: u64) -> (u64, u64) {
    let pool = PoolConfig::default();
    let mut requests = VecDeque::new();
    let mut out = Batch::new();
    let (mut held, mut peak, mut sent) = (0_i64, 0, 0);
    let mut machine = None;
    let made = measure(|| {
        machine = QueryPool::<Plain>::new(
            LOCAL,
            config.clone(),
            pool,
            NetworkConfig::default(),
            &Secret::from_seed(0),
        )
        .ok()
    });
    held += made.bytes_current;
    let mut machine = machine.unwrap();
    let target = SplitMix(5).key();
    let mut adversary = Adversary { target, distance: u64::MAX };
    let mut starts = 0..lookups;
    loop {
        let event = match starts.next() {
            Some(tag) => Inbound::Start(Start::find(tag, target).with_seeds(adversary.answer(20))),
            None => match requests.pop_front() {
                Some(request) => Inbound::Response(Response::answered(request, adversary.answer(200))),
                None => return (peak, sent),
            },
        };
        // The machine drops the vectors of the event, which counts as freed here and not as held before.
        let given = match &event {
            Inbound::Start(start) => start.seeds.capacity() * size_of::<Key256>(),
            Inbound::Response(Response { result: Ok(answer), .. }) => {
                answer.closer.capacity() * size_of::<Key256>()
            }
            _ => 0,
        };
        let counted = measure(|| machine.handle_into(Instant::ORIGIN, Stamped::new(event), &mut out));
        requests.extend(
            out.iter().filter_map(|out| Query::<Plain>::request(&out.event)).map(|request| request.id),
        );
        sent += out.iter().filter(|out| Query::<Plain>::request(&out.event).is_some()).count() as u64;
        let cleared = measure(|| out.clear());
        held += counted.bytes_current + cleared.bytes_current + given as i64;
        peak = peak.max(held as u64);
    }
}

#[test]
fn a_lookup_under_fire_stays_within_its_bound() {
    let default = QueryConfig::default();
    let small = QueryConfig { k: 8, max_candidates: 16, max_nodes: 32, ..default.clone() };
    let disjoint = QueryConfig { paths: 3, ..default.clone() };
    for config in [default, small, disjoint] {
        let (peak, sent) = under_fire(&config, 1);
        assert_eq!(sent, config.max_nodes as u64, "the adversary is never out of closer nodes");
        // For the pool itself, its timers and its requests in flight.
        let bound = bytes_per_lookup(&config) + 16_384;
        assert!(peak <= bound, "{peak} bytes held, {bound} allowed, by {config:?}");
    }
}

#[test]
fn a_pool_under_fire_stays_within_its_bound() {
    let config = QueryConfig::default();
    let lookups = 200;
    let (peak, sent) = under_fire(&config, lookups);
    assert_eq!(sent, lookups * config.max_nodes as u64);
    // Each lookup has up to k requests in flight, of a few hundred bytes.
    let bound = lookups * (bytes_per_lookup(&config) + config.k as u64 * 2 * 256) + 65_536;
    assert!(peak <= bound, "{peak} bytes held, {bound} allowed");
}

#[test]
fn a_table_under_fire_stays_within_its_bound() {
    let config = TableConfig { bucket_size: 8, ..TableConfig::default() };
    let mut random = SplitMix(1);
    let info = measure(|| {
        let mut table = RoutingTable::<Plain>::new(LOCAL, config.clone(), &Secret::from_seed(0)).unwrap();
        for near in 0..20_000 {
            let mut bytes = *random.key().as_bytes();
            // Many keys close to the local one, for buckets that are rarely reached.
            bytes[..near % 32].fill(0);
            let _: Offered = table.offer(Instant::ORIGIN, &Key256::new(bytes), None);
        }
        assert!(table.len() <= 256 * config.bucket_size);
    });
    let node = (size_of::<Key256>() as u64 + 20).next_multiple_of(8);
    // Vectors of buckets and of nodes, grown by doubling.
    let bound = 2 * 256 * (config.bucket_size as u64 * node + size_of::<Vec<u8>>() as u64);
    assert!(info.bytes_max <= bound, "{} bytes held, {bound} allowed", info.bytes_max);
}

/// Crawls a network of liars: each answer names as many nodes as are read, most of them made up. Returns the
/// highest number of bytes that the machine held, including the finish, and the numbers of nodes and edges found.
fn crawl_under_fire(config: &CrawlConfig) -> (u64, usize, usize) {
    let mut machine =
        Crawl::<Plain>::new(LOCAL, config.clone(), NetworkConfig::default(), &Secret::from_seed(0)).unwrap();
    let mut random = SplitMix(3);
    let mut named: Vec<_> = (0..20).map(|_| random.key()).collect();
    let (mut requests, mut out) = (VecDeque::new(), Batch::new());
    let (mut held, mut peak) = (0_i64, 0);
    let mut event = CrawlInbound::Start(StartCrawl::new(1).with_seeds(named.clone()));
    loop {
        // The machine drops the vectors of the event, which counts as freed here and not as held before.
        let given = match &event {
            CrawlInbound::Start(start) => start.seeds.capacity() * size_of::<Key256>(),
            CrawlInbound::Response(Response { result: Ok(answer), .. }) => {
                answer.closer.capacity() * size_of::<Key256>()
            }
            _ => 0,
        };
        held += given as i64;
        let counted = measure(|| machine.handle_into(Instant::ORIGIN, Stamped::new(event), &mut out));
        peak = peak.max(held as u64 + counted.bytes_max);
        for stamped in &out {
            match &stamped.event {
                CrawlOutbound::Request(request) => requests.push_back(request.id),
                CrawlOutbound::Finished(finish) => {
                    return (peak, finish.nodes.len(), finish.edges.len());
                }
                _ => {}
            }
        }
        let cleared = measure(|| out.clear());
        held += counted.bytes_current + cleared.bytes_current;
        let request = requests.pop_front().unwrap();
        let mut closer = Vec::with_capacity(60);
        while closer.len() < 60 {
            let made_up = named.len() < 2 * config.max_nodes && closer.len() % 4 != 0;
            let node = if made_up { random.key() } else { named[random.below(named.len())] };
            named.extend(made_up.then_some(node));
            closer.push(node);
        }
        event = CrawlInbound::Response(Response::answered(request, closer));
    }
}

#[test]
fn a_crawl_under_fire_stays_within_its_bound() {
    // Where vectors and tables are full, and where they have just grown.
    for (max_nodes, max_edges) in [(4_096, 57_344), (4_097, 57_345), (3_584, 65_536), (3_585, 70_000)] {
        let config = CrawlConfig { max_nodes, max_edges, max_cpl: 3, ..CrawlConfig::default() };
        let (peak, nodes, edges) = crawl_under_fire(&config);
        assert_eq!((nodes, edges), (max_nodes, max_edges), "the liars are never out of nodes to name");
        // See the documentation of `CrawlConfig`. A node is its key here.
        let node = 3 * 2 * size_of::<Key256>() + 100;
        // Plus the requests in flight.
        let bound = (max_nodes * node + max_edges * 31 + 32_768) as u64;
        assert!(peak <= bound, "{peak} bytes held, {bound} allowed, by {config:?}");
    }
}

/// Runs a follow-up in a healthy network. Returns the number of answers after the start, how many of them
/// allocated, and the number of allocations.
fn follow_up(
    machine: &mut BroadcastPool<Plain>,
    out: &mut Batch<BroadcastOutbound<Plain>>,
    network: &Ideal,
    target: Key256,
    first: usize,
) -> (u64, u64, u64) {
    let mut requests = VecDeque::new();
    let start = StartBroadcast::follow_up(1, target, 7).with_seeds(network.answer(first, &target));
    let mut event = BroadcastInbound::Start(start);
    let (mut events, mut taking, mut allocations) = (0, 0, 0);
    loop {
        let counted = measure(|| machine.handle_into(Instant::ORIGIN, Stamped::new(event), out)).count_total;
        if events > 0 {
            taking += u64::from(counted > 0);
            allocations += counted;
        }
        for stamped in &*out {
            if let BroadcastOutbound::Request(request) = &stamped.event {
                requests.push_back((request.id, request.node, matches!(request.ask, Ask::Store { .. })));
            }
        }
        out.clear();
        let Some((request, node, store)) = requests.pop_front() else { return (events, taking, allocations) };
        let known = || network.answer(network.index(&node).unwrap(), &target);
        event =
            BroadcastInbound::Response(Response::answered(request, if store { Vec::new() } else { known() }));
        events += 1;
    }
}

#[test]
fn a_warm_follow_up_allocates_nothing_per_answer() {
    let (pool, requests) = (PoolConfig::default(), NetworkConfig::default());
    let mut machine = BroadcastPool::new(
        LOCAL,
        BroadcastConfig::default(),
        QueryConfig::default(),
        pool,
        requests,
        &Secret::from_seed(0),
    )
    .unwrap();
    let network = Ideal::new(1_000);
    let mut out = Batch::new();
    for (place, (target, first)) in network.lookups(20).into_iter().enumerate() {
        let (events, taking, allocations) = follow_up(&mut machine, &mut out, &network, target, first);
        assert!(events >= 40);
        // Only the list of nodes to store with, when the lookup ends, and the report of them in the finish.
        assert!(
            place < 10 || taking == 2 && allocations == 2,
            "{allocations} in {taking} of {events} answers"
        );
    }
}

/// Runs a broadcast whose peers name ever closer made-up nodes, return tokens, and store nothing that they can
/// refuse. Returns the highest number of bytes that the machine held, including the finish, the number of nodes
/// asked, and the number of nodes to store with.
fn broadcast_under_fire(
    start: StartBroadcast<Plain>,
    config: &BroadcastConfig,
    query: &QueryConfig,
    fails: bool,
) -> (u64, u64, usize) {
    let (pool, network) = (PoolConfig::default(), NetworkConfig::default());
    let mut machine = BroadcastPool::<Plain>::new(
        LOCAL,
        config.clone(),
        query.clone(),
        pool,
        network,
        &Secret::from_seed(0),
    )
    .unwrap();
    let (mut requests, mut out) = (VecDeque::new(), Batch::new());
    let (mut held, mut peak, mut asked, mut stores) = (0_i64, 0, 0, 0);
    let mut adversary = Adversary { target: LOCAL, distance: u64::MAX >> 20 };
    let mut event = BroadcastInbound::Start(start);
    loop {
        // The machine drops the vectors of the event, which counts as freed here and not as held before.
        let given = match &event {
            BroadcastInbound::Start(start) => {
                let fixed = if let Strategy::Static(nodes) = &start.strategy { nodes.capacity() } else { 0 };
                (start.seeds.capacity() + fixed) * size_of::<Key256>()
                    + start.records.capacity() * size_of::<Record<Plain>>()
            }
            BroadcastInbound::Response(Response { result: Ok(answer), .. }) => {
                answer.closer.capacity() * size_of::<Key256>()
            }
            _ => 0,
        };
        held += given as i64;
        let counted = measure(|| machine.handle_into(Instant::ORIGIN, Stamped::new(event), &mut out));
        peak = peak.max(held as u64 + counted.bytes_max);
        let mut finished = false;
        for stamped in &out {
            match &stamped.event {
                BroadcastOutbound::Request(request) => {
                    let store = matches!(request.ask, Ask::Store { .. } | Ask::Batch { .. });
                    asked += u64::from(!store);
                    requests.push_back((request.id, request.target, store));
                }
                BroadcastOutbound::Finished(finish) => {
                    stores = finish.stores.len();
                    assert!(finish.stores.iter().all(|stored| stored.end != StoreEnd::Unsent));
                    finished = true;
                }
                _ => {}
            }
        }
        let cleared = measure(|| out.clear());
        held += counted.bytes_current + cleared.bytes_current;
        let Some((request, target, store)) = requests.pop_front().filter(|_| !finished) else {
            return (peak, asked, stores);
        };
        adversary.target = target;
        let extra = AnswerExtra { value: Verdict::Nothing, token: Some(7) };
        event = match (store, fails) {
            (true, true) => BroadcastInbound::Response(Response::failed(request)),
            (true, false) => BroadcastInbound::Response(Response::answered(request, Vec::new())),
            (false, _) => BroadcastInbound::Response(
                Response::answered(request, adversary.answer(200)).with_extra(extra),
            ),
        };
    }
}

#[test]
fn a_broadcast_under_fire_stays_within_its_bound() {
    let mut random = SplitMix(9);
    let query = QueryConfig::default();
    let (node, record) = (size_of::<Key256>() as u64, size_of::<Record<Plain>>() as u64);
    let seeds: Vec<_> = (0..20).map(|_| random.key()).collect();
    // See the documentation of `BroadcastConfig`. A node is its key here, and a message takes 8 bytes.
    // The list of an optimistic broadcast grows by doubling.
    let stores = |count: u64| 3 * count * (node + 60);
    let tokens = |asked: u64| 3 * asked * (2 * node + 8 + 30);
    let lookup = bytes_per_lookup(&query);
    let spare = 32_768;
    let default = BroadcastConfig::default();
    let target = random.key();

    let start = StartBroadcast::follow_up(1, target, 7).with_seeds(seeds.clone());
    let (peak, asked, count) = broadcast_under_fire(start, &default, &query, false);
    assert_eq!((asked, count), (query.max_nodes as u64, query.k));
    let bound = lookup + stores(count as u64) + tokens(asked) + spare;
    assert!(peak <= bound, "follow-up: {peak} bytes held, {bound} allowed");

    let nodes: Vec<_> = (0..1_024).map(|_| random.key()).collect();
    let start = StartBroadcast::fixed(1, target, 7, nodes);
    let (peak, asked, count) = broadcast_under_fire(start, &default, &query, false);
    assert_eq!((asked, count), (0, default.max_nodes));
    let bound = count as u64 * node + 2 * count as u64 * (node + 60) + spare;
    assert!(peak <= bound, "static: {peak} bytes held, {bound} allowed");

    // Every node seems close enough; none stores.
    let start = StartBroadcast::optimistic(1, target, 7)
        .with_seeds(seeds.clone())
        .with_strategy(Strategy::Optimistic { nodes: Some(1) });
    let (peak, asked, count) = broadcast_under_fire(start, &default, &query, true);
    assert_eq!(count, 4 * query.k, "twice k by guess, and twice k once the lookup has ended");
    let bound = lookup + stores(count as u64) + tokens(asked) + spare;
    assert!(peak <= bound, "optimistic: {peak} bytes held, {bound} allowed");

    let max_lookups = 16;
    let sweep = SweepConfig { max_lookups, ..default.sweep.clone() };
    let config = BroadcastConfig { sweep, ..default.clone() };
    for records in [10, 1_000, 5_000] {
        let all = (0..records).map(|message| Record { target: random.key(), message }).collect();
        let start = StartBroadcast::sweep(1, all).with_seeds(seeds.clone());
        let (peak, asked, count) = broadcast_under_fire(start, &config, &query, false);
        assert!(count <= max_lookups * 40 && asked <= (max_lookups * query.max_nodes) as u64);
        let k = query.k as u64;
        // The start and its keys; and what each node receives: in the sweep, in the list of stores, and in the
        // finish.
        let lots = records * (record + 2 * node) + records * k * (16 + 2 * 4 + 2 * 4);
        let found = 2 * max_lookups as u64 * 40 * node;
        let bound = 3 * lookup + found + lots + stores(count as u64) + tokens(asked) + spare;
        assert!(peak <= bound, "sweep of {records}: {peak} bytes held, {bound} allowed");
    }
}
