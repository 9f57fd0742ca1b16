//! Broadcasts: each strategy by example, and tests named after defects of the engine's ancestor.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::broadcast::{BroadcastFinish, Inbound, Outbound, StartBroadcast, StoreEnd, Strategy, Success};
use kad_proto::{
    Ask, Batch, BroadcastConfig, BroadcastPool, Carried, Context, Family, GivenUp, Instant, Key, Key8,
    Machine, NetworkConfig, Outcome, Owner, PoolConfig, QueryConfig, Record, RefusedBecause, Request,
    SpanContext, Stamped,
};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Node = Key8;
    type Message = &'static str;

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

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
    let query = QueryConfig { k, max_candidates: 2 * k, rim: false, ..QueryConfig::default() };
    let network = NetworkConfig {
        request_timeout: S * 2,
        soft_timeout: S,
        min_timeout: S * 2,
        ..NetworkConfig::default()
    };
    BroadcastPool::new(LOCAL, config, PoolConfig { query, ..PoolConfig::default() }, network).unwrap()
}

/// A network in which each node knows all others, and takes 10 ms to answer.
struct Net {
    machine: BroadcastPool<Tiny>,
    now: Instant,
    nodes: Vec<Key8>,
    dead: BTreeSet<Key8>,
    /// In flight.
    open: Vec<(Instant, Request<Tiny>)>,
    /// What each node was asked to store.
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

    /// One answer, or one wake-up.
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
        let carried = Carried { value: false, token: Some("token") };
        let event = Inbound::AnsweredWith { request: request.id, closer, carried };
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
        (finish.outcome, finish.lookup, finish.succeeded),
        (Outcome::Complete, Some(Outcome::Converged), true)
    );
    assert_eq!(net.holders(), sorted(net.closest(node(0x42), 4)));
    assert!(finish.stores.iter().all(|stored| stored.end == StoreEnd::Stored), "{:?}", finish.stores);
    let found: Vec<_> = finish.closest.iter().map(|contact| contact.node).collect();
    assert_eq!(found, net.closest(node(0x42), 4));
    // The store gives back what the node's answer carried, and hangs under the answer that ended the lookup.
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
    // All that are close are silent, and time-outs are longer than the lookup has.
    net.dead = net.closest(node(0x42), 12).into_iter().collect();
    let seeds = vec![node(0x80), node(0xc0)];
    let start = StartBroadcast::follow_up(1, node(0x42), "it").with_seeds(seeds);
    net.call(Stamped::new(Inbound::Start(start)).by(at(1_000)));
    net.run();
    let (when, finish) = net.finish();
    assert_eq!(when, at(910), "a tenth is kept, and the stores take 10 ms");
    assert_eq!((finish.outcome, finish.lookup), (Outcome::Complete, Some(Outcome::DeadlineExceeded)));
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
        !given_up.is_empty() && given_up.iter().all(|it| *it == (at(900), GivenUp::LookupEnded)),
        "{given_up:?}"
    );
}

#[test]
fn static_nodes_are_stored_with_and_nobody_else() {
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
    assert_eq!((finish.outcome, finish.succeeded, finish.short), (Outcome::Complete, false, 1));
    assert_eq!((finish.lookup, finish.closest), (None, Vec::new()));
}

#[test]
fn failures_say_why() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), 0..60);
    let nodes = vec![node(1), node(2), node(3)];
    let out = net.start(StartBroadcast::fixed(1, node(0x42), "it", nodes));
    let ids: Vec<_> = net.open.iter().map(|(_, request)| request.id).collect();
    let id = net.machine.operation(1).unwrap();
    assert_eq!((ids.len(), out.len()), (3, 4));
    net.call(Stamped::new(Inbound::Failed(ids[0])));
    net.call(Stamped::new(Inbound::Rejected { request: ids[1], why: "full" }));
    net.call(Stamped::new(Inbound::Stop(id)));
    let (_, finish) = net.finish();
    let ends: Vec<_> = finish.stores.iter().map(|stored| stored.end.clone()).collect();
    assert_eq!(ends, [StoreEnd::Failed, StoreEnd::Rejected("full"), StoreEnd::Cancelled]);
    assert_eq!((finish.outcome, finish.succeeded), (Outcome::Stopped, false));
}

#[test]
fn an_optimistic_broadcast_returns_early_and_the_rest_goes_on_in_the_background() {
    let config = BroadcastConfig { parallel: 4, ..BroadcastConfig::default() };
    let mut net = Net::new(pool(8, config), (0..250).map(|i| i as u8));
    let target = node(0x42);
    let start = StartBroadcast {
        strategy: Strategy::Optimistic { nodes: Some(250) },
        ..StartBroadcast::optimistic(1, target, "it").with_seeds(vec![node(0x80)])
    };
    net.start(start);
    net.run();
    let (when, finish) = net.finish();
    assert_eq!((finish.outcome, finish.succeeded, finish.fell_back), (Outcome::Complete, true, None));
    let count = |end| finish.stores.iter().filter(|stored| stored.end == end).count();
    assert!(count(StoreEnd::Stored) >= 6 && count(StoreEnd::Background) > 0, "{:?}", finish.stores);
    assert_eq!(net.holders(), sorted(net.closest(target, 8)));
    // What comes after the finish is a side effect.
    let place = net.out.iter().position(|(_, out)| matches!(out.event, Outbound::Finished(_))).unwrap();
    for (at, out) in &net.out[place + 1..] {
        assert!(*at >= when && matches!(out.context, Context::Link(_)), "{out:?}");
        match &out.event {
            Outbound::Request(request) => assert_eq!(request.owner, Owner::Background),
            Outbound::Cancel(cancel) => assert_eq!(cancel.owner, Owner::Background),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((net.machine.operations(), net.machine.running(), net.machine.poll_timeout()), (0, 0, None));
    assert_eq!(net.machine.traffic().in_flight, 0);
}

#[test]
fn who_does_not_know_the_size_of_the_network_falls_back_by_name() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), (0..60).map(|i| i * 4));
    net.start(StartBroadcast::optimistic(1, node(0x42), "it").with_seeds(vec![node(0x80)]));
    net.run();
    let (_, finish) = net.finish();
    assert!(finish.fell_back.is_some() && finish.lookup == Some(Outcome::Converged));
    assert_eq!(net.holders(), sorted(net.closest(node(0x42), 4)));
}

#[test]
fn a_sweep_gives_each_node_all_of_its_records_at_once() {
    let mut net = Net::new(pool(3, BroadcastConfig::default()), (0..100).map(|i| (i * 5 / 2) as u8));
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let keys = [0x10, 0x11, 0x42, 0x80, 0x81, 0xc3, 0xc3, 0xf0];
    let records: Vec<_> =
        names.iter().zip(keys).map(|(message, key)| Record { key: node(key), message: *message }).collect();
    net.start(StartBroadcast::sweep(1, records.clone()).with_seeds(vec![node(0x82)]));
    net.run();
    let (_, finish) = net.finish();
    assert_eq!(
        (finish.outcome, finish.succeeded, finish.explored),
        (Outcome::Complete, true, Some(kad_proto::sweep::Explored::Settled))
    );
    for (place, record) in (0..).zip(&records) {
        let holders: Vec<_> = net
            .held
            .iter()
            .filter(|(_, held)| held.contains(&record.message))
            .map(|(node, _)| *node)
            .collect();
        assert_eq!(holders, sorted(net.closest(record.key, 3)), "{record:?}");
        let told = finish.stores.iter().filter(|stored| stored.records.contains(&place)).count();
        assert_eq!(told, 3);
    }
    let batches = net.out.iter().filter(|(_, out)| matches!(&out.event, Outbound::Request(request) if matches!(request.ask, Ask::Batch { .. }))).count();
    assert_eq!(batches, finish.stores.len(), "one request for each node");
}

#[test]
fn starts_that_cannot_be_are_refused_by_name() {
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
    let record = |key| Record { key: node(key), message: "it" };
    let mut two = StartBroadcast::follow_up(1, node(1), "it");
    two.records.push(record(2));
    assert_eq!(reason(two, None), RefusedBecause::Records { most: 1 });
    assert_eq!(reason(StartBroadcast::sweep(1, Vec::new()), None), RefusedBecause::Records { most: 3 });
    let four = (0..4).map(record).collect();
    assert_eq!(reason(StartBroadcast::sweep(1, four), None), RefusedBecause::Records { most: 3 });
    let nodes = (0..3).map(node).collect();
    assert_eq!(
        reason(StartBroadcast::fixed(1, node(1), "it", nodes), None),
        RefusedBecause::Nodes { most: 2 }
    );
    let late = StartBroadcast::follow_up(1, node(1), "it");
    assert_eq!(reason(late, Some(at(0))), RefusedBecause::DeadlinePassed);
}

// Defects of the ancestor.

#[test]
fn a_broadcast_never_takes_anothers_lookup_for_its_own() {
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
fn storing_a_record_has_a_time_out() {
    let mut net = Net::new(pool(4, BroadcastConfig::default()), 0..60);
    net.dead.insert(node(1));
    net.start(StartBroadcast::fixed(1, node(0x42), "it", vec![node(1)]));
    assert_eq!(net.machine.poll_timeout(), Some(at(2_000)));
    net.run();
    let (when, finish) = net.finish();
    assert_eq!((when, &finish.stores[0].end), (at(2_000), &StoreEnd::TimedOut));
}
