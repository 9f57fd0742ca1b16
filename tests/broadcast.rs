//! Broadcasts: an example of each strategy, and tests named after defects of earlier implementations.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::broadcast::{BroadcastFinish, Inbound, Outbound, StartBroadcast, StoreEnd, Strategy, Success};
use kad_proto::{
    AnswerExtra, Ask, Batch, BroadcastConfig, BroadcastPool, CancelReason, Context, Family, Initiator,
    Instant, Key, Key8, Machine, NetworkConfig, Outcome, PoolConfig, QueryConfig, Record, RefusalReason,
    Request, Response, Secret, SpanContext, Stamped, Verdict,
};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tiny::TinyText as Tiny;

const LOCAL: Key8 = Key8::new([0xff]);
const S: Duration = Duration::from_secs(1);

fn node(key: u8) -> Key8 {
    Key8::new([key])
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn span(number: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(u128::from(number)), SpanId::from(number));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn pool(k: usize, config: BroadcastConfig) -> BroadcastPool<Tiny> {
    let query = QueryConfig { k, max_candidates: 2 * k, edge_probing: false, ..QueryConfig::default() };
    let network = NetworkConfig {
        request_timeout: S * 2,
        soft_timeout: S,
        min_timeout: S * 2,
        ..NetworkConfig::default()
    };
    BroadcastPool::new(LOCAL, config, query, PoolConfig::default(), network, &Secret::from_seed(0)).unwrap()
}

/// A network in which each node knows all others and takes 10 ms to answer.
struct Net {
    machine: BroadcastPool<Tiny>,
    now: Instant,
    nodes: Vec<Key8>,
    dead: BTreeSet<Key8>,
    /// Requests in flight, and when they were sent.
    open: Vec<(Instant, Request<Tiny>)>,
    /// The records that each node was asked to store.
    held: BTreeMap<Key8, Vec<&'static str>>,
    out: Vec<(Instant, Stamped<Outbound<Tiny>>)>,
}

impl Net {
    fn new(machine: BroadcastPool<Tiny>, nodes: impl IntoIterator<Item = u8>) -> Self {
        let nodes = nodes.into_iter().map(node).collect();
        let (open, held, dead, out) = (Vec::new(), BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { machine, now: at(0), nodes, dead, open, held, out }
    }

    fn closest(&self, target: Key8, most: usize) -> Vec<Key8> {
        let mut nodes = self.nodes.clone();
        nodes.sort_by_key(|node| node.distance(&target));
        nodes.truncate(most);
        nodes
    }

    fn call(&mut self, event: Stamped<Inbound<Tiny>>) -> Batch<Outbound<Tiny>> {
        let out = self.machine.handle(self.now, event);
        for stamped in &out {
            match &stamped.event {
                Outbound::Request(request) => self.open.push((self.now, request.clone())),
                Outbound::Cancel(cancel) => self.open.retain(|(_, request)| request.id != cancel.id),
                _ => {}
            }
            self.out.push((self.now, stamped.clone()));
        }
        out
    }

    fn start(&mut self, start: StartBroadcast<Tiny>) -> Batch<Outbound<Tiny>> {
        self.call(Stamped::new(Inbound::Start(start)).in_span(span(1)))
    }

    /// Plays one answer or one wake-up.
    fn step(&mut self) -> bool {
        let place = self.open.iter().position(|(_, request)| !self.dead.contains(&request.node));
        let answer = place.map(|place| self.open[place].0 + Duration::from_millis(10));
        let wake = self.machine.poll_timeout();
        let (Some(at), is_answer) = (match (answer, wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at < wake) => (Some(at), true),
            (_, wake) => (wake, false),
        }) else {
            return false;
        };
        self.now = self.now.max(at);
        if !is_answer {
            self.call(Stamped::new(Inbound::Tick));
            return true;
        }
        let (_, request) = self.open.remove(place.unwrap());
        let closer = match &request.ask {
            Ask::Store { message, .. } => {
                self.held.entry(request.node).or_default().push(message);
                Vec::new()
            }
            Ask::Batch { records, .. } => {
                let messages = records.iter().map(|record| record.message);
                self.held.entry(request.node).or_default().extend(messages);
                Vec::new()
            }
            _ => self.closest(request.target, 20),
        };
        let extra = AnswerExtra { value: Verdict::Nothing, token: Some("token") };
        let event = Inbound::Response(Response::answered(request.id, closer).with_extra(extra));
        self.call(Stamped::new(event).in_span(span(request.id.to_u64() + 100)));
        true
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn finish(&self) -> (Instant, BroadcastFinish<Tiny>) {
        let finished = self.out.iter().filter_map(|(at, stamped)| match &stamped.event {
            Outbound::Finished(finish) => Some((*at, finish.clone())),
            _ => None,
        });
        let all: Vec<_> = finished.collect();
        assert_eq!(all.len(), 1, "one finish");
        all[0].clone()
    }

    fn holders(&self) -> Vec<Key8> {
        self.held.keys().copied().collect()
    }
}

fn sorted(mut nodes: Vec<Key8>) -> Vec<Key8> {
    nodes.sort_unstable();
    nodes
}

#[test]
fn a_follow_up_finds_the_closest_and_stores_with_them() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), (0..60).map(|i| i * 4));
    let out = net.start(StartBroadcast::follow_up(1, node(0x42), "it").with_seeds(vec![node(0x80)]));
    assert!(matches!(out[0].event, Outbound::Started(_)));
    net.run();
    let (_, finish) = net.finish();
    assert_eq!(
        (finish.outcome, finish.lookup_outcome, finish.succeeded),
        (Outcome::Complete, Some(Outcome::Converged), true)
    );
    assert_eq!(net.holders(), sorted(net.closest(node(0x42), 4)));
    assert!(finish.stores.iter().all(|stored| stored.end == StoreEnd::Stored), "{:?}", finish.stores);
    let found: Vec<_> = finish.closest.iter().map(|contact| contact.node).collect();
    assert_eq!(found, net.closest(node(0x42), 4));
    // The store carries the token of the node's answer, and its parent is the answer that ended the lookup.
    let mut stores = net.out.iter().filter_map(|(_, out)| match &out.event {
        Outbound::Request(Request { ask: Ask::Store { message, token }, .. }) => {
            Some((*message, *token, &out.context))
        }
        _ => None,
    });
    assert!(stores.all(|(message, token, context)| {
        (message, token) == ("it", Some("token"))
            && matches!(context, Context::Parent(span) if span.span_id() != SpanId::from(1))
    }));
    assert_eq!((net.machine.operations(), net.machine.poll_timeout()), (0, None));
}

#[test]
fn a_lookup_out_of_its_share_stores_with_the_closest_found_so_far() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), (0..60).map(|i| i * 4));
    // All close nodes are silent, and the request time-out exceeds the lookup's time.
    net.dead = net.closest(node(0x42), 12).into_iter().collect();
    let seeds = vec![node(0x80), node(0xc0)];
    let start = StartBroadcast::follow_up(1, node(0x42), "it").with_seeds(seeds);
    net.call(Stamped::new(Inbound::Start(start)).with_deadline(at(1_000)));
    net.run();
    let (when, finish) = net.finish();
    assert_eq!(when, at(910), "a tenth is kept, and the stores take 10 ms");
    assert_eq!((finish.outcome, finish.lookup_outcome), (Outcome::Complete, Some(Outcome::DeadlineExceeded)));
    assert!(finish.succeeded && finish.stores.iter().all(|stored| stored.end == StoreEnd::Stored));
    assert_eq!(sorted(net.holders()), sorted(vec![node(0x80), node(0xc0)]));
    let given_up: Vec<_> = net
        .out
        .iter()
        .filter_map(|(at, out)| match &out.event {
            Outbound::Cancel(cancel) => Some((*at, cancel.reason)),
            _ => None,
        })
        .collect();
    assert!(
        !given_up.is_empty() && given_up.iter().all(|it| *it == (at(900), CancelReason::LookupEnded)),
        "{given_up:?}"
    );
}

#[test]
fn a_static_broadcast_stores_with_the_given_nodes_only() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), 0..60);
    net.dead.insert(node(3));
    let nodes = vec![node(1), node(2), node(3), node(2), LOCAL];
    let start = StartBroadcast::fixed(1, node(0x42), "it", nodes).with_success(Success::Share(67));
    net.start(start);
    net.run();
    let (_, finish) = net.finish();
    let ends: Vec<_> = finish.stores.iter().map(|stored| (stored.node, stored.end.clone())).collect();
    let stored = StoreEnd::Stored;
    assert_eq!(ends, [(node(1), stored.clone()), (node(2), stored), (node(3), StoreEnd::TimedOut)]);
    assert_eq!((finish.outcome, finish.succeeded, finish.records_short), (Outcome::Complete, false, 1));
    assert_eq!((finish.lookup_outcome, finish.closest), (None, Vec::new()));
}

#[test]
fn each_store_reports_how_it_ended() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), 0..60);
    let nodes = vec![node(1), node(2), node(3)];
    let out = net.start(StartBroadcast::fixed(1, node(0x42), "it", nodes));
    let ids: Vec<_> = net.open.iter().map(|(_, request)| request.id).collect();
    let id = net.machine.operation(1).unwrap();
    assert_eq!((ids.len(), out.len()), (3, 4));
    net.call(Stamped::new(Inbound::Response(Response::failed(ids[0]))));
    net.call(Stamped::new(Inbound::Response(Response::rejected(ids[1], "full"))));
    net.call(Stamped::new(Inbound::Stop(id)));
    let (_, finish) = net.finish();
    let ends: Vec<_> = finish.stores.iter().map(|stored| stored.end.clone()).collect();
    assert_eq!(ends, [StoreEnd::Failed, StoreEnd::Rejected("full"), StoreEnd::Cancelled]);
    let counts = finish.counts();
    let sums = (counts.nodes, counts.stored, counts.failed, counts.refused, counts.silent);
    assert_eq!(sums, (3, 0, 2, 1, 0));
    assert_eq!((finish.outcome, finish.succeeded), (Outcome::Stopped, false));
}

#[test]
fn an_optimistic_broadcast_returns_early_and_goes_on_in_the_background() {
    let config = BroadcastConfig { max_in_flight: 4, ..BroadcastConfig::default() };
    let mut net = Net::new(pool(8, config), (0..250).map(|i| i as u8));
    let target = node(0x42);
    let start = StartBroadcast::optimistic(1, target, "it")
        .with_seeds(vec![node(0x80)])
        .with_strategy(Strategy::Optimistic { nodes: Some(250) });
    net.start(start);
    net.run();
    let (when, finish) = net.finish();
    assert_eq!((finish.outcome, finish.succeeded, finish.fallback_reason), (Outcome::Complete, true, None));
    let count = |end| finish.stores.iter().filter(|stored| stored.end == end).count();
    assert!(count(StoreEnd::Stored) >= 6 && count(StoreEnd::Background) > 0, "{:?}", finish.stores);
    assert_eq!(net.holders(), sorted(net.closest(target, 8)));
    // What comes after the finish is a side effect.
    let place = net.out.iter().position(|(_, out)| matches!(out.event, Outbound::Finished(_))).unwrap();
    for (at, out) in &net.out[place + 1..] {
        assert!(*at >= when && matches!(out.context, Context::Link(_)), "{out:?}");
        match &out.event {
            Outbound::Request(request) => assert_eq!(request.initiator, Initiator::Background),
            Outbound::Cancel(cancel) => assert_eq!(cancel.initiator, Initiator::Background),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((net.machine.operations(), net.machine.running(), net.machine.poll_timeout()), (0, 0, None));
    assert_eq!(net.machine.request_stats().in_flight, 0);
}

#[test]
fn without_a_network_size_an_optimistic_broadcast_falls_back_to_a_follow_up() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), (0..60).map(|i| i * 4));
    net.start(StartBroadcast::optimistic(1, node(0x42), "it").with_seeds(vec![node(0x80)]));
    net.run();
    let (_, finish) = net.finish();
    assert!(finish.fallback_reason.is_some() && finish.lookup_outcome == Some(Outcome::Converged));
    assert_eq!(net.holders(), sorted(net.closest(node(0x42), 4)));
}

#[test]
fn a_sweep_sends_each_node_its_records_in_one_batch() {
    let mut net = Net::new(pool(3, BroadcastConfig::default()), (0..100).map(|i| (i * 5 / 2) as u8));
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let keys = [0x10, 0x11, 0x42, 0x80, 0x81, 0xc3, 0xc3, 0xf0];
    let records: Vec<_> = names
        .iter()
        .zip(keys)
        .map(|(message, key)| Record { target: node(key), message: *message })
        .collect();
    net.start(StartBroadcast::sweep(1, records.clone()).with_seeds(vec![node(0x82)]));
    net.run();
    let (_, finish) = net.finish();
    assert_eq!(
        (finish.outcome, finish.succeeded, finish.sweep_end),
        (Outcome::Complete, true, Some(kad_proto::broadcast::sweep::SweepEnd::Settled))
    );
    for (place, record) in (0..).zip(&records) {
        let holders: Vec<_> = net
            .held
            .iter()
            .filter(|(_, held)| held.contains(&record.message))
            .map(|(node, _)| *node)
            .collect();
        assert_eq!(holders, sorted(net.closest(record.target, 3)), "{record:?}");
        let told = finish.stores.iter().filter(|stored| stored.records.contains(&place)).count();
        assert_eq!(told, 3);
    }
    let is_batch = |event: &Outbound<_>| matches!(event, Outbound::Request(request) if matches!(request.ask, Ask::Batch { .. }));
    let batches = net.out.iter().filter(|(_, out)| is_batch(&out.event)).count();
    assert_eq!(batches, finish.stores.len(), "one request for each node");
}

#[test]
fn invalid_broadcasts_are_refused_with_the_reason() {
    let mut net = Net::new(
        pool(4, BroadcastConfig { max_nodes: 2, max_records: 3, ..BroadcastConfig::default() }),
        0..60,
    );
    let mut reason = |start: StartBroadcast<Tiny>, deadline| {
        let stamped = Stamped { deadline, ..Stamped::new(Inbound::Start(start)).in_span(span(5)) };
        let out = net.call(stamped);
        assert_eq!(out.len(), 1);
        assert_eq!((&out[0].context, out[0].deadline), (&Context::Parent(span(5)), None));
        let Outbound::Refused(refused) = out[0].event else { panic!("{out:?}") };
        refused.reason
    };
    let record = |key| Record { target: node(key), message: "it" };
    let mut two = StartBroadcast::follow_up(1, node(1), "it");
    two.records.push(record(2));
    assert_eq!(reason(two, None), RefusalReason::Records { most: 1 });
    assert_eq!(reason(StartBroadcast::sweep(1, Vec::new()), None), RefusalReason::Records { most: 3 });
    let four = (0..4).map(record).collect();
    assert_eq!(reason(StartBroadcast::sweep(1, four), None), RefusalReason::Records { most: 3 });
    let nodes = (0..3).map(node).collect();
    assert_eq!(
        reason(StartBroadcast::fixed(1, node(1), "it", nodes), None),
        RefusalReason::Nodes { most: 2 }
    );
    let late = StartBroadcast::follow_up(1, node(1), "it");
    assert_eq!(reason(late, Some(at(0))), RefusalReason::DeadlinePassed);
}

// Defects of an earlier implementation.

#[test]
fn broadcasts_do_not_mix_up_their_lookups() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), (0..60).map(|i| i * 4));
    for (tag, key, name) in [(1, 0x11, "a"), (2, 0x99, "b"), (3, 0xd2, "c")] {
        net.start(StartBroadcast::follow_up(tag, node(key), name).with_seeds(vec![node(0x80)]));
    }
    net.run();
    for (key, name) in [(0x11, "a"), (0x99, "b"), (0xd2, "c")] {
        let holders: Vec<_> =
            net.held.iter().filter(|(_, held)| held.contains(&name)).map(|(node, _)| *node).collect();
        assert_eq!(holders, sorted(net.closest(node(key), 4)), "{name}");
    }
}

#[test]
fn a_store_request_times_out() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), 0..60);
    net.dead.insert(node(1));
    net.start(StartBroadcast::fixed(1, node(0x42), "it", vec![node(1)]));
    assert_eq!(net.machine.poll_timeout(), Some(at(2_000)));
    net.run();
    let (when, finish) = net.finish();
    // It is sent twice.
    assert_eq!((when, &finish.stores[0].end), (at(4_000), &StoreEnd::TimedOut));
    assert_eq!((finish.stats.sent, finish.stats.timed_out), (2, 2));
}

#[test]
fn a_lost_store_is_repeated_once() {
    let static_one = StartBroadcast::fixed(1, node(0x42), "it", vec![node(1), node(2)]);
    let follow_up = StartBroadcast::follow_up(1, node(0), "it").with_seeds(vec![node(2)]);
    let record = Record { target: node(0), message: "it" };
    let sweep = StartBroadcast::sweep(1, vec![record]).with_seeds(vec![node(2)]);
    for start in [static_one, follow_up, sweep] {
        let mut net = Net::new(pool(2, BroadcastConfig::default()), [1, 2]);
        net.start(start.with_success(Success::Share(100)));
        let stores = |net: &Net| {
            let is_first = |(_, request): &(Instant, Request<Tiny>)| {
                request.node == node(1) && !matches!(request.ask, Ask::FindCloser)
            };
            net.open.iter().filter(|it| is_first(it)).count()
        };
        while stores(&net) == 0 {
            assert!(net.step());
        }
        let asked = net.open.iter().find(|(_, request)| request.node == node(1)).unwrap().0;
        net.dead.insert(node(1));
        while net.now < asked + S * 2 {
            assert!(net.step());
        }
        // The first request was lost; the node is there.
        assert_eq!(stores(&net), 1, "sent again");
        net.dead.clear();
        net.run();
        let (when, finish) = net.finish();
        assert_eq!((when, finish.succeeded), (asked + Duration::from_millis(2_010), true));
        assert!(finish.stores.len() == 2 && finish.stores.iter().all(|store| store.end == StoreEnd::Stored));
        assert_eq!((net.holders(), finish.stats.timed_out), (vec![node(1), node(2)], 1));
    }
}

#[test]
fn a_second_try_that_is_cut_off_is_cancelled() {
    let config = BroadcastConfig { timeout: S * 2 + Duration::from_millis(1), ..BroadcastConfig::default() };
    let mut net = Net::new(pool(4, BroadcastConfig { max_in_flight: 1, ..config }), 0..60);
    net.dead.extend([node(1), node(2)]);
    net.start(StartBroadcast::fixed(1, node(0x42), "it", vec![node(1), node(2)]));
    net.run();
    let (when, finish) = net.finish();
    let ends: Vec<_> = finish.stores.iter().map(|store| store.end.clone()).collect();
    // The second try of the first goes before the first of the second.
    assert_eq!((when, ends), (at(2_001), vec![StoreEnd::Cancelled, StoreEnd::Unsent]));
}

// Defects that the contract checker found.

/// A pool whose lookups ask one node at a time.
fn one_by_one(k: usize, config: BroadcastConfig, network: NetworkConfig) -> BroadcastPool<Tiny> {
    let query = QueryConfig {
        k,
        alpha: 1,
        max_candidates: k,
        max_closer_nodes: 4,
        retries: 0,
        edge_probing: false,
        ..QueryConfig::default()
    };
    let network =
        NetworkConfig { request_timeout: S * 2, soft_timeout: S * 2, min_timeout: S * 2, ..network };
    BroadcastPool::new(LOCAL, config, query, PoolConfig::default(), network, &Secret::from_seed(0)).unwrap()
}

fn optimistic(tag: u64, key: u8, nodes: u64, seeds: &[u8]) -> StartBroadcast<Tiny> {
    StartBroadcast::optimistic(tag, node(key), "it")
        .with_seeds(seeds.iter().copied().map(node).collect())
        .with_strategy(Strategy::Optimistic { nodes: Some(nodes) })
}

fn is_store(request: &Request<Tiny>) -> bool {
    matches!(request.ask, Ask::Store { .. })
}

impl Net {
    /// Takes the request to this node, to store or to find, out of those in flight.
    fn take(&mut self, key: u8, store: bool) -> kad_proto::RequestId {
        let of =
            |(_, request): &(Instant, Request<Tiny>)| request.node == node(key) && is_store(request) == store;
        let place = self.open.iter().position(of).unwrap_or_else(|| panic!("{key:x}, of {:?}", self.open));
        self.open.remove(place).1.id
    }

    fn names(&mut self, key: u8, closer: &[u8]) {
        let (request, closer) = (self.take(key, false), closer.iter().copied().map(node).collect());
        self.call(Stamped::new(Inbound::Response(Response::answered(request, closer))));
    }

    fn stores(&mut self, key: u8) {
        let request = self.take(key, true);
        self.call(Stamped::new(Inbound::Response(Response::answered(request, Vec::new()))));
    }

    fn tick(&mut self, now: Instant) -> Batch<Outbound<Tiny>> {
        self.now = now;
        self.call(Stamped::new(Inbound::Tick))
    }
}

#[test]
fn a_late_call_does_not_blame_nodes_for_the_end_of_the_lookup_share() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), []);
    let start = StartBroadcast::follow_up(1, node(0x42), "it").with_seeds(vec![node(0x80), node(0xc0)]);
    net.call(Stamped::new(Inbound::Start(start)).with_deadline(at(1_000)));
    // The lookup's share ended at 900 ms and the operation's time at 1 s; the time-outs of the requests are later.
    let out = net.tick(at(1_500));
    let given_up = out.iter().filter_map(|out| match &out.event {
        Outbound::Cancel(cancel) => Some(cancel.reason),
        Outbound::Progress(progress) => panic!("no failure of the node: {progress:?}"),
        _ => None,
    });
    let given_up: Vec<_> = given_up.collect();
    assert_eq!(given_up, [CancelReason::LookupEnded; 2]);
    let finish = net.finish().1;
    assert_eq!(
        (finish.outcome, finish.lookup_outcome),
        (Outcome::DeadlineExceeded, Some(Outcome::DeadlineExceeded))
    );
}

/// Once each of two operations let the other go first, without end, in one call.
#[test]
fn broadcasts_that_wait_for_capacity_do_not_yield_to_each_other_for_ever() {
    let network = NetworkConfig { max_in_flight: 1, max_queued: 0, ..NetworkConfig::default() };
    let mut net = Net::new(one_by_one(4, BroadcastConfig::default(), network), []);
    // The first has less time to look than the second, and has more time to store than the second has to look.
    net.call(Stamped::new(Inbound::Start(optimistic(1, 0, 1, &[0x50]))).with_deadline(at(10_000)));
    let second = StartBroadcast::follow_up(2, node(0xf0), "that").with_seeds(vec![node(0x90)]);
    net.call(Stamped::new(Inbound::Start(second)).with_deadline(at(10_500)));
    net.stores(0x50);
    net.names(0x50, &[0x40, 0x41]);
    let open: Vec<_> = net.open.iter().map(|(_, request)| request.node).collect();
    assert_eq!(open, [node(0x90)], "the earlier deadline goes first");
    net.names(0x90, &[]);
    net.stores(0x40);
}

#[test]
fn nodes_with_the_same_key_keep_their_own_tokens() {
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Ports;

    impl Family for Ports {
        type Key = Key8;
        type Target = Key8;
        type Node = (Key8, u16);
        type Message = u16;

        fn key(node: &(Key8, u16)) -> Key8 {
            node.0
        }
    }

    let (pool, network) = (PoolConfig::default(), NetworkConfig::default());
    let mut machine = BroadcastPool::<Ports>::new(
        LOCAL,
        BroadcastConfig::default(),
        QueryConfig::default(),
        pool,
        network,
        &Secret::from_seed(0),
    )
    .unwrap();
    let seeds = vec![(node(1), 80), (node(1), 443)];
    let start = StartBroadcast::follow_up(1, node(0), 7).with_seeds(seeds);
    let mut told: Vec<_> = machine.handle(at(0), Stamped::new(Inbound::Start(start))).into_iter().collect();
    let mut stores = Vec::new();
    while let Some(out) = told.pop() {
        let Outbound::Request(request) = out.event else { continue };
        if let Ask::Store { token, .. } = request.ask {
            stores.push((request.node.1, token));
            continue;
        }
        let extra = AnswerExtra { value: Verdict::Nothing, token: Some(request.node.1) };
        let event = Inbound::Response(Response::answered(request.id, Vec::new()).with_extra(extra));
        told.extend(machine.handle(at(1), Stamped::new(event)));
    }
    stores.sort_unstable();
    assert_eq!(stores, [(80, Some(80)), (443, Some(443))]);
}

#[test]
fn the_background_has_its_own_time_out() {
    let config = BroadcastConfig { early_return_percent: 10, ..BroadcastConfig::default() };
    let network = NetworkConfig { max_in_flight: 3, ..NetworkConfig::default() };
    let mut net = Net::new(one_by_one(8, config, network), []);
    let keys: Vec<_> = (1..=8).map(|key| key * 0x18).collect();
    net.call(Stamped::new(Inbound::Start(optimistic(1, 0, 10, &keys))).with_deadline(at(1_000)));
    net.stores(0x18);
    assert_eq!((net.finish().1.outcome, net.machine.request_stats().queued), (Outcome::Complete, 5));
    // The requests' deadline was that of their operation, so they have not timed out. The waiting request is sent
    // now.
    let out = net.tick(at(1_000));
    let mut sent = 0;
    for out in &out {
        match &out.event {
            Outbound::Cancel(cancel) => assert_eq!(cancel.reason, CancelReason::OperationEnded),
            Outbound::Request(request) => {
                assert_eq!(out.deadline, Some(at(3_000)));
                sent += usize::from(is_store(request));
            }
            other => panic!("{other:?}"),
        }
    }
    // Two cancels, and what they gave room to: two stores that had waited.
    assert_eq!((out.len() - sent, sent), (2, 2), "{out:?}");
    net.run();
    let asked = net.out.iter().filter_map(|(_, out)| match &out.event {
        Outbound::Request(request) => Some(request.id),
        _ => None,
    });
    let asked: BTreeSet<_> = asked.collect();
    assert!(net.out.iter().all(|(_, out)| match &out.event {
        Outbound::Cancel(cancel) => asked.contains(&cancel.id),
        _ => true,
    }));
    assert!(net.now <= at(11_000), "{}", net.now);
}

#[test]
fn background_places_are_released() {
    let background_timeout = Duration::from_nanos(1);
    let config = BroadcastConfig {
        early_return_percent: 1,
        max_background: 32,
        background_timeout,
        ..BroadcastConfig::default()
    };
    let mut net = Net::new(one_by_one(8, config, NetworkConfig::default()), []);
    // It has stored with all nodes it knows, and has no time to look for others.
    net.start(optimistic(1, 0, 10, &[1]));
    net.stores(1);
    net.tick(at(1));
    let out = net.start(optimistic(2, 0, 10, &[1, 2]));
    assert!(matches!(out[0].event, Outbound::Started(_)), "{out:?}");
    net.open.retain(|(_, request)| request.initiator != Initiator::Background);
    net.stores(1);
    let Some(Outbound::Finished(finish)) = net
        .out
        .iter()
        .rev()
        .map(|(_, out)| out.event.clone())
        .find(|event| matches!(event, Outbound::Finished(_)))
    else {
        panic!("it has returned")
    };
    assert_eq!(finish.stores[1].end, StoreEnd::Background);
}

#[test]
fn a_lookup_that_was_cut_short_or_is_one_of_a_sweep_has_no_outcome() {
    let config = BroadcastConfig { early_return_percent: 1, max_background: 0, ..BroadcastConfig::default() };
    let mut net = Net::new(one_by_one(8, config.clone(), NetworkConfig::default()), []);
    net.start(optimistic(1, 0, 10, &[1]));
    net.stores(1);
    let finish = net.finish().1;
    assert_eq!((finish.outcome, finish.lookup_outcome), (Outcome::Complete, None));
    let mut net = Net::new(one_by_one(8, config, NetworkConfig::default()), []);
    let records = vec![Record { target: node(1), message: "it" }];
    net.start(StartBroadcast::sweep(1, records).with_seeds(vec![node(2)]));
    let id = net.machine.operation(1).unwrap();
    net.call(Stamped::new(Inbound::Stop(id)));
    let finish = net.finish().1;
    assert_eq!((finish.outcome, finish.lookup_outcome, finish.sweep_end), (Outcome::Stopped, None, None));
}

#[test]
fn a_network_size_learnt_by_time_is_known_to_the_event_of_the_same_call() {
    use kad_proto::coordinator::{Inbound, Outbound};
    use kad_proto::{Config, Coordinator, NetworkSizeConfig, RoutingConfig, Start};
    let query = QueryConfig { k: 1, retries: 0, edge_probing: false, ..QueryConfig::default() };
    let size = NetworkSizeConfig { k: 1, min_samples: 2, ..NetworkSizeConfig::default() };
    let config =
        Config { query, routing: RoutingConfig::off(), network_size: Some(size), ..Config::default() };
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    // Two lookups converge while the closest node that each knows times out.
    for tag in 0..2 {
        let target = node(0x10 * (tag as u8 + 1));
        let near = target.with_flipped(7);
        let start = Start::find(tag, target).with_seeds(vec![near, near.with_flipped(5)]);
        let _ = machine.handle(at(0), Stamped::new(Inbound::Start(start)));
    }
    // At the soft limit the next node is asked.
    for out in machine.handle(at(300), Stamped::new(Inbound::Tick)) {
        let Outbound::Request(request) = out.event else { continue };
        let event = Inbound::Response(Response::answered(request.id, Vec::new()));
        let _ = machine.handle(at(300), Stamped::new(event));
    }
    let start = StartBroadcast::optimistic(7, node(0x15), "it");
    let start = Stamped::new(Inbound::Broadcast(start));
    let mut ticked = machine.clone();
    let mut apart = ticked.handle(at(5_000), Stamped::new(Inbound::Tick));
    apart.extend(ticked.handle(at(5_000), start.clone()));
    let out = machine.handle(at(5_000), start);
    assert_eq!(out, apart);
    let stores = |out: &Stamped<Outbound<Tiny>>| matches!(&out.event, Outbound::Request(it) if is_store(it));
    assert!(out.iter().any(stores), "it stores at once, as it knows how large the network is: {out:?}");
}

#[test]
fn a_node_that_enters_the_window_again_gets_its_store_in_the_same_call() {
    // Two nodes are within the set threshold if the sum of their distances is less than 0xc7.
    let mut net = Net::new(pool(2, BroadcastConfig::default()), []);
    net.start(optimistic(1, 0, 10, &[0x60, 0xa0]));
    net.now = at(10);
    net.names(0xa0, &[0x20, 0x28]);
    assert!(
        [0x20, 0x28].iter().all(|key| net.open.iter().any(|(_, it)| it.node == node(*key) && is_store(it)))
    );
    // One of them knows no nearer ones: no other is needed.
    net.names(0x28, &[]);
    // A node times out meanwhile; then it is needed.
    net.tick(at(2_000));
    let store = net.take(0x20, true);
    let out = net.call(Stamped::new(Inbound::Response(Response::failed(store))));
    let asked = |store| {
        let requests = out.iter().filter_map(|out| match &out.event {
            Outbound::Request(request) if is_store(request) == store => Some(request.node),
            _ => None,
        });
        requests.collect::<Vec<_>>()
    };
    assert_eq!((asked(false), asked(true)), (vec![node(0x20), node(0x60)], vec![node(0x60)]));
}
