//! What the secret of a node decides: the wire tokens of its requests and the random keys that its refreshes
//! look up, and nothing else in the output.
//!
//! A coordinator runs a fixed workload. Then other coordinators, with another secret or another
//! configuration, receive the same inbound events, and the outputs are compared.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::broadcast::StartBroadcast;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::StartCrawl;
use kad_proto::{
    Config, Coordinator, CrawlConfig, Initiator, Instant, Key, Key8, Machine, NetworkConfig,
    NetworkSizeConfig, PoolConfig, Query, QueryConfig, QueryPool, Request, Response, RoutingConfig,
    RoutingInbound, Secret, Stamped, Start, WireToken, lookups::query,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tiny::Tiny;

const LOCAL: Key8 = Key8::new([0xff]);

type Out = Vec<Stamped<Outbound<Tiny>>>;

/// A call of a machine: what it was given, and what it returned.
#[derive(Clone, Debug)]
struct Call {
    now: Instant,
    event: Inbound<Tiny>,
    out: Out,
    wake: Option<Instant>,
}

fn node(key: u64) -> Key8 {
    Key8::new([key.to_le_bytes()[0]])
}

/// No routing maintenance; the network size is estimated from few lookups, so that it is reported; crawls are short.
fn config() -> Config {
    let network_size = Some(NetworkSizeConfig { k: 3, min_samples: 2, ..NetworkSizeConfig::default() });
    let query = QueryConfig { k: 8, ..QueryConfig::default() };
    let crawl = CrawlConfig { max_nodes: 40, max_cpl: 3, ..CrawlConfig::default() };
    Config { routing: RoutingConfig::off(), network_size, query, crawl, ..Config::default() }
}

fn coordinator(config: Config, secret: u64) -> Coordinator<Tiny> {
    Coordinator::new(LOCAL, config, &Secret::from_seed(secret)).unwrap()
}

/// The start with this number: mostly lookups; some crawls and broadcasts of each strategy.
fn start(number: u64) -> Inbound<Tiny> {
    let (tag, target) = (number, node(number * 37));
    let seeds: Vec<_> =
        (0..12).map(|place| node(number * 11 + place * 20)).filter(|it| *it != LOCAL).collect();
    match number % 8 {
        0 => Inbound::Broadcast(StartBroadcast::follow_up(tag, target, ()).with_seeds(seeds)),
        1 => Inbound::Broadcast(StartBroadcast::optimistic(tag, target, ()).with_seeds(seeds)),
        2 => Inbound::Broadcast(StartBroadcast::fixed(tag, target, (), seeds)),
        3 if number % 16 == 3 => Inbound::Crawl(StartCrawl::new(tag).with_seeds(seeds)),
        4 => Inbound::Start(Start::message(tag, target, ()).with_seeds(seeds)),
        _ => Inbound::Start(Start::find(tag, target).with_seeds(seeds)),
    }
}

/// Starts operations and answers their requests, until this many requests were sent. One node in five never
/// answers, one in nine refuses; the others name the 12 closest of all.
fn play<M>(machine: &mut M, requests: usize) -> Vec<Call>
where
    M: Machine<Inbound = Inbound<Tiny>, Outbound = Outbound<Tiny>>,
{
    let (mut calls, mut sent, mut now) = (Vec::new(), 0, Instant::ORIGIN);
    let mut open: VecDeque<Request<Tiny>> = VecDeque::new();
    let mut number = 0;
    while sent < requests {
        let answerable = open.iter().position(|request| request.node.as_bytes()[0] % 5 != 0);
        let event = match answerable {
            Some(place) if calls.len() % 10 != 0 => {
                let request = open.remove(place).unwrap();
                now = now + Duration::from_millis(3);
                Inbound::Response(if request.node.as_bytes()[0] % 9 == 1 {
                    Response::rejected(request.id, ())
                } else {
                    let mut closer: Vec<_> = (0..255).step_by(2).map(node).collect();
                    closer.sort_by_key(|other| other.distance(&request.target));
                    closer.truncate(12);
                    Response::answered(request.id, closer)
                })
            }
            _ if calls.len() % 10 == 0 && number < 2 + calls.len() as u64 / 10 => {
                number += 1;
                start(number)
            }
            _ => {
                now = machine.poll_timeout().unwrap_or(now).max(now);
                Inbound::Tick
            }
        };
        let out = machine.handle(now, Stamped::new(event.clone())).into_iter().collect::<Vec<_>>();
        for stamped in &out {
            match &stamped.event {
                Outbound::Request(request) => {
                    sent += 1;
                    open.push_back(request.clone());
                }
                Outbound::Cancel(cancel) => open.retain(|request| request.id != cancel.id),
                _ => {}
            }
        }
        calls.push(Call { now, event, out, wake: machine.poll_timeout() });
    }
    calls
}

/// Gives the inbound events of these calls to another machine.
fn replay<M>(machine: &mut M, calls: &[Call]) -> Vec<Call>
where
    M: Machine<Inbound = Inbound<Tiny>, Outbound = Outbound<Tiny>>,
{
    let call = |call: &Call| {
        let (now, event) = (call.now, call.event.clone());
        let out = machine.handle(now, Stamped::new(event.clone())).into_iter().collect::<Vec<_>>();
        Call { now, event, out, wake: machine.poll_timeout() }
    };
    calls.iter().map(call).collect()
}

fn requests(calls: &[Call]) -> Vec<&Request<Tiny>> {
    let events = calls.iter().flat_map(|call| &call.out);
    let requests = events.filter_map(|stamped| match &stamped.event {
        Outbound::Request(request) => Some(request),
        _ => None,
    });
    requests.collect()
}

fn tokens(calls: &[Call]) -> Vec<u64> {
    requests(calls).into_iter().map(|request| request.token.to_u64()).collect()
}

/// Whether two events are equal in every field but the wire token.
fn equal_but_for_tokens(one: &Stamped<Outbound<Tiny>>, other: &Stamped<Outbound<Tiny>>) -> bool {
    let (Outbound::Request(a), Outbound::Request(b)) = (&one.event, &other.event) else {
        return one == other;
    };
    // All fields but the token.
    let mut b = b.clone();
    b.token = a.token;
    *a == b && (&one.context, one.deadline) == (&other.context, other.deadline)
}

/// Whether it is the progress event of any kind of operation.
fn is_progress(stamped: &Stamped<Outbound<Tiny>>) -> bool {
    matches!(
        stamped.event,
        Outbound::Progress(_) | Outbound::CrawlProgress(_) | Outbound::BroadcastProgress(_)
    )
}

#[test]
fn no_wire_token_repeats_and_each_byte_takes_all_values() {
    let calls = play(&mut coordinator(config(), 1), 10_000);
    let tokens = tokens(&calls);
    assert!(tokens.len() >= 10_000);
    let distinct: BTreeSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), tokens.len());
    for request in requests(&calls) {
        assert_eq!(request.token.to_bytes(), request.token.to_u64().to_le_bytes());
    }
    for byte in 0..8 {
        let values: BTreeSet<_> = requests(&calls).iter().map(|it| it.token.to_bytes()[byte]).collect();
        assert_eq!(values.len(), 256, "byte {byte}");
    }
}

#[test]
fn wire_tokens_depend_on_the_secret_and_on_nothing_else() {
    let calls = play(&mut coordinator(config(), 1), 1_000);
    let same = replay(&mut coordinator(config(), 1), &calls);
    let other = replay(&mut coordinator(config(), 2), &calls);
    assert_eq!(tokens(&same), tokens(&calls), "the same secret and the same events give the same tokens");
    assert_eq!(tokens(&other).len(), tokens(&calls).len());
    let (one, two): (BTreeSet<_>, BTreeSet<_>) =
        (tokens(&calls).into_iter().collect(), tokens(&other).into_iter().collect());
    assert!(one.is_disjoint(&two), "different secrets give different tokens");
}

#[test]
fn debug_shows_neither_wire_token_nor_secret() {
    let mut machine = coordinator(config(), 1);
    let calls = play(&mut machine, 100);
    for request in requests(&calls) {
        let mut other = request.clone();
        other.token = WireToken::default();
        assert_ne!(request.token, other.token);
        assert_eq!(format!("{request:?}"), format!("{other:?}"));
    }
    // The same calls under another secret give machines that look the same.
    let mut other = coordinator(config(), 2);
    let _ = replay(&mut other, &calls);
    let [one, two] = [&machine, &other].map(|machine| format!("{machine:?}"));
    for shown in [one, two] {
        let shown_token = tokens(&calls).into_iter().find(|token| shown.contains(&token.to_string()));
        assert_eq!(shown_token, None, "a wire token in the Debug text of a coordinator");
    }
}

#[test]
fn without_maintenance_the_secret_changes_nothing_but_tokens() {
    let mut machine = coordinator(config(), 1);
    let calls = play(&mut machine, 6_000);
    for secret in [2, 3, u64::MAX] {
        let mut other = coordinator(config(), secret);
        let others = replay(&mut other, &calls);
        for (call, with_other) in calls.iter().zip(&others) {
            assert_eq!(call.out.len(), with_other.out.len(), "{:?}", call.event);
            for (one, other) in call.out.iter().zip(&with_other.out) {
                assert!(equal_but_for_tokens(one, other), "{one:?}\n{other:?}");
            }
            assert_eq!(call.wake, with_other.wake);
        }
        assert_eq!(machine.request_stats(), other.request_stats());
        assert!(machine.table().iter().eq(other.table().iter()));
    }
    // The workload includes every kind of event that a coordinator without maintenance emits.
    let seen = |is: fn(&Outbound<Tiny>) -> bool| {
        assert!(calls.iter().flat_map(|call| &call.out).any(|stamped| is(&stamped.event)));
    };
    seen(|event| matches!(event, Outbound::Started(_)));
    seen(|event| matches!(event, Outbound::Cancel(_)));
    seen(|event| matches!(event, Outbound::Finished(_)));
    seen(|event| matches!(event, Outbound::CrawlFinished(_)));
    seen(|event| matches!(event, Outbound::BroadcastFinished(_)));
    seen(|event| matches!(event, Outbound::Routing(_)));
    seen(|event| matches!(event, Outbound::NetworkSize { .. }));
}

#[test]
fn the_secret_decides_which_random_keys_are_explored() {
    let explored = |secret| {
        let mut machine = coordinator(Config::default(), secret);
        let connected = |key| RoutingInbound::Connected { node: node(key), round_trip: None };
        for key in 0..200 {
            let event = Stamped::new(Inbound::Routing(connected(key)));
            let _ = machine.handle(Instant::ORIGIN, event);
        }
        let (mut targets, mut now) = (BTreeSet::new(), Instant::ORIGIN);
        let mut events = VecDeque::new();
        while targets.len() < 20 {
            let event = events.pop_front().unwrap_or(Inbound::Tick);
            if event == Inbound::Tick {
                now = machine.poll_timeout().unwrap().max(now);
            }
            for stamped in machine.handle(now, Stamped::new(event)) {
                let Outbound::Request(request) = stamped.event else { continue };
                events.push_back(Inbound::Response(Response::answered(request.id, Vec::new())));
                if request.initiator == Initiator::Explore {
                    targets.insert(request.target);
                }
            }
        }
        targets
    };
    assert_eq!(explored(1), explored(1));
    assert_ne!(explored(1), explored(2));
}

#[test]
fn without_progress_events_everything_else_is_equal() {
    let without = Config { pool: PoolConfig { progress: false, ..PoolConfig::default() }, ..config() };
    let mut machine = coordinator(config(), 1);
    let calls = play(&mut machine, 6_000);
    let mut silent = coordinator(without, 1);
    let others = replay(&mut silent, &calls);
    let mut left_out = 0;
    for (call, other) in calls.iter().zip(&others) {
        let rest: Vec<_> = call.out.iter().filter(|stamped| !is_progress(stamped)).collect();
        assert_eq!(other.out.iter().collect::<Vec<_>>(), rest, "{:?}", call.event);
        assert_eq!(other.wake, call.wake);
        left_out += call.out.len() - rest.len();
    }
    assert!(left_out > 1_000 && others.iter().all(|call| !call.out.iter().any(is_progress)));
    assert_eq!(silent.request_stats(), machine.request_stats());
    assert_eq!((silent.operations(), silent.running()), (machine.operations(), machine.running()));
    assert!(silent.table().iter().eq(machine.table().iter()));
}

/// A machine of lookups only reports progress unless its pool is configured not to; one lookup by itself always does.
#[test]
fn a_query_pool_can_be_without_progress_events_too() {
    let lookup = |pool| {
        let (query, network) = (QueryConfig::default(), NetworkConfig::default());
        let mut machine = QueryPool::<Tiny>::new(LOCAL, query, pool, network, &Secret::from_seed(1)).unwrap();
        let seeds = (1..40).map(node).collect();
        lookup_to_its_end(&mut machine, Start::find(1, node(0)).with_seeds(seeds))
    };
    let with = lookup(PoolConfig::default());
    let without = lookup(PoolConfig { progress: false, ..PoolConfig::default() });
    let is_progress = |event: &&query::Outbound<Tiny>| matches!(event, query::Outbound::Progress(_));
    assert_eq!(
        (with.iter().filter(is_progress).count(), without.iter().filter(is_progress).count()),
        (20, 0)
    );
    assert_eq!(
        without.iter().collect::<Vec<_>>(),
        with.iter().filter(|it| !is_progress(it)).collect::<Vec<_>>()
    );

    let (query, network) = (QueryConfig::default(), NetworkConfig::default());
    let mut alone = Query::<Tiny>::new(LOCAL, query, network, &Secret::from_seed(1)).unwrap();
    let seeds = (1..40).map(node).collect();
    let events = lookup_to_its_end(&mut alone, Start::find(1, node(0)).with_seeds(seeds));
    assert_eq!(events.iter().filter(is_progress).count(), 20);
}

/// Runs one lookup in which every node answers and names no other. Returns all that came out.
fn lookup_to_its_end<M>(machine: &mut M, start: Start<Tiny>) -> Vec<query::Outbound<Tiny>>
where
    M: Machine<Inbound = query::Inbound<Tiny>, Outbound = query::Outbound<Tiny>>,
{
    let (mut all, mut events) = (Vec::new(), VecDeque::from([query::Inbound::Start(start)]));
    while let Some(event) = events.pop_front() {
        for stamped in machine.handle(Instant::ORIGIN, Stamped::new(event)) {
            if let query::Outbound::Request(request) = &stamped.event {
                events.push_back(query::Inbound::Response(Response::answered(request.id, Vec::new())));
            }
            all.push(stamped.event);
        }
    }
    all
}

#[cfg(feature = "record")]
mod recorded {
    use super::*;
    use kad_proto::record::{Keep, Recorder};

    /// Magic, format, then the first frame: length, checksum, payload.
    const FIRST_FRAME: usize = 9;

    /// The payload of the first frame, which holds the construction, and all that follows it.
    fn split(recording: &[u8]) -> (&[u8], &[u8]) {
        let (prefix, payload) = (&recording[FIRST_FRAME..FIRST_FRAME + 4], &recording[FIRST_FRAME + 8..]);
        payload.split_at(u32::from_le_bytes(prefix.try_into().unwrap()) as usize)
    }

    /// The number as postcard writes it.
    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        bytes.push(number.to_le_bytes()[0]);
        bytes
    }

    /// A recording with an index of its parts of 8 bytes.
    struct Indexed<'a> {
        recording: &'a [u8],
        parts: BTreeSet<&'a [u8]>,
    }

    impl Indexed<'_> {
        fn holds(&self, bytes: &[u8]) -> bool {
            let may = bytes.get(..8).is_none_or(|part| self.parts.contains(part));
            may && self.recording.windows(bytes.len()).any(|window| window == bytes)
        }
    }

    #[test]
    fn a_recording_holds_neither_wire_tokens_nor_the_secret() {
        let secrets = [[0x5a; 32], std::array::from_fn(|place| (place as u8).wrapping_mul(77) ^ 0x3c)];
        for text in [false, true] {
            let record = |secret: [u8; 32]| {
                let (secret, keep) = (Secret::new(secret), Keep::All);
                let recorder = Recorder::<Tiny>::new(LOCAL, config(), &secret, keep).unwrap();
                if text { recorder.with_text() } else { recorder }
            };
            let [mut one, mut other] = secrets.map(record);
            let calls = play(&mut one, 200);
            let others = replay(&mut other, &calls);
            assert_ne!(tokens(&calls), tokens(&others));
            let recordings = [one.bytes(), other.bytes()];
            for (recording, tokens) in recordings.iter().zip([tokens(&calls), tokens(&others)]) {
                let recording = Indexed { recording, parts: recording.windows(8).collect() };
                for token in tokens {
                    let forms = [token.to_le_bytes().to_vec(), token.to_be_bytes().to_vec(), varint(token)];
                    assert!(forms.iter().all(|form| !recording.holds(form)), "{token:#x}");
                    let shown = [token.to_string(), format!("{token:x}"), format!("{token:X}")];
                    assert!(shown.iter().all(|form| !recording.holds(form.as_bytes())), "{token:#x}");
                }
                for secret in &secrets {
                    assert!(secret.windows(8).all(|part| !recording.holds(part)));
                }
            }
            // The recordings differ in the seed of the random choices, and in nothing else.
            let [(first, rest), (second, others)] = [split(&recordings[0]), split(&recordings[1])];
            assert!(rest == others, "the same calls and results");
            // Behind the seed, the lists of nodes and of round trips are empty.
            let [first, second] = [first, second].map(|payload| payload.strip_suffix(&[0, 0]).unwrap());
            let common = first.iter().zip(second).take_while(|(a, b)| a == b).count();
            assert!((1..=10).contains(&(first.len() - common)), "a number of at most 10 bytes");
            assert!((1..=10).contains(&(second.len() - common)), "a number of at most 10 bytes");
        }
    }
}
