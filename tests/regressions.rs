//! Tests named after defects: those of the engine's ancestor, none of which may come back, and our own.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::query::{Inbound, Outbound};
use kad_proto::{
    Batch, Family, GivenUp, Instant, Key8, Key160, Machine, NetworkConfig, Outcome, Query, QueryConfig,
    Reply, Request, RequestId, Stamped, Start,
};
use std::time::Duration;

/// 8-bit keys; a node is its key, so that every test can be checked by hand.
#[derive(Clone, Debug, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

const LOCAL: Key8 = Key8::new([0xff]);
const S: Duration = Duration::from_secs(1);

fn node(key: u8) -> Key8 {
    Key8::new([key])
}

fn nodes(keys: &[u8]) -> Vec<Key8> {
    keys.iter().copied().map(node).collect()
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

fn network() -> NetworkConfig {
    NetworkConfig { request_timeout: S * 2, soft_timeout: S, ..NetworkConfig::default() }
}

fn start(tag: u64, seeds: &[u8]) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Start(Start::find(tag, node(0)).with_seeds(nodes(seeds))))
}

fn requests(out: &Batch<Outbound<Tiny>>) -> Vec<Request<Tiny>> {
    let requests = out.iter().filter_map(|out| match &out.event {
        Outbound::Request(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

fn finish(out: &Batch<Outbound<Tiny>>) -> Option<kad_proto::Finish<Tiny>> {
    let mut finishes = out.iter().filter_map(|out| match &out.event {
        Outbound::Finished(finish) => Some(finish.clone()),
        _ => None,
    });
    finishes.next()
}

/// 160-bit keys: more than the 64 bits that candidates are first compared by.
#[derive(Clone, Debug, PartialEq)]
struct Wide;

impl Family for Wide {
    type Key = Key160;
    type Node = Key160;
    type Message = ();

    fn key(node: &Key160) -> Key160 {
        *node
    }
}

/// A key of these bytes at its end, and this one before.
fn wide(fill: u8, last: u8) -> Key160 {
    let mut bytes = [fill; 20];
    bytes[19] = last;
    Key160::new(bytes)
}

fn asked(out: &Batch<Outbound<Wide>>) -> Vec<(RequestId, Key160)> {
    let requests = out.iter().filter_map(|out| match &out.event {
        Outbound::Request(request) => Some((request.id, request.node)),
        _ => None,
    });
    requests.collect()
}

// Our own.

#[test]
fn a_node_at_the_far_end_of_the_key_space_is_asked() {
    let mut query = Query::<Wide>::new(wide(0x55, 0), QueryConfig::default(), network()).unwrap();
    let start = Start::find(1, wide(0, 0)).with_seeds(vec![wide(1, 1)]);
    let request = asked(&query.handle(at(0), Inbound::Start(start).into()))[0].0;
    let answer = Inbound::Answered { request, closer: vec![wide(0xff, 1)] };
    assert_eq!(asked(&query.handle(at(0), answer.into()))[0].1, wide(0xff, 1));
}

#[test]
fn nodes_that_agree_in_their_first_64_bits_are_told_apart_by_the_retry_rule() {
    let config = QueryConfig { k: 1, alpha: 2, max_candidates: 10, ..QueryConfig::default() };
    let mut query = Query::<Wide>::new(wide(0x55, 0), config, network()).unwrap();
    let start = Start::find(1, wide(0, 0)).with_seeds(vec![wide(0, 9), wide(0, 10)]);
    let slow = asked(&query.handle(at(0), Inbound::Start(start).into()))[0];
    assert_eq!(slow.1, wide(0, 9));
    let next = asked(&query.handle(at(1), Inbound::Tick.into()))[0];
    assert_eq!(next.1, wide(0, 10));
    // The second answers and names a closer node, which is slow when the first runs into its time-out.
    let answer = Inbound::Answered { request: next.0, closer: vec![wide(0, 1)] };
    assert_eq!(asked(&query.handle(at(1), answer.into()))[0].1, wide(0, 1));
    let again = asked(&query.handle(at(2), Inbound::Tick.into()));
    assert_eq!(again, [], "it is not among the k closest, so its time-out is final");
}

#[test]
fn a_late_call_blames_every_node_that_ran_into_its_own_timeout() {
    let query = QueryConfig { retries: 0, ..QueryConfig::default() };
    let mut query = Query::<Tiny>::new(LOCAL, query, network()).unwrap();
    let out = query.handle(at(0), start(1, &[1, 2, 3]).by(at(5)));
    assert_eq!(requests(&out).len(), 3);
    // All three timed out at 2 s, before the operation ended at 5 s; the caller says so at 9 s only.
    let out = query.handle(at(9), Inbound::Tick.into());
    let cancels = out.iter().filter_map(|out| match &out.event {
        Outbound::Cancel(cancel) => Some(cancel.reason),
        _ => None,
    });
    assert_eq!(cancels.collect::<Vec<_>>(), [GivenUp::TimedOut; 3]);
    let finish = finish(&out).unwrap();
    assert_eq!(finish.outcome, Outcome::DeadlineExceeded);
    assert_eq!((finish.statistics.timeouts, finish.statistics.cancelled), (3, 0));
}

mod network_queue {
    use super::*;
    use kad_proto::Network;
    use kad_proto::network::{Inbound, Outbound};

    fn submit(tag: u64, key: u8) -> Stamped<Inbound<Tiny>> {
        Stamped::new(Inbound::Submit { tag, node: node(key), message: () })
    }

    /// Tags in the order in which their requests are sent.
    fn sent(out: &Batch<Outbound<Tiny>>) -> Vec<u64> {
        let tags = out.iter().filter_map(|out| match out.event {
            Outbound::Send { tag, .. } => Some(tag),
            _ => None,
        });
        tags.collect()
    }

    fn id(out: &Batch<Outbound<Tiny>>) -> RequestId {
        let Outbound::Accepted { request, .. } = out[0].event else { panic!("{out:?}") };
        request
    }

    #[test]
    fn an_urgent_request_overtakes_one_that_waits_for_the_same_node() {
        let limits = NetworkConfig { max_in_flight: 1, max_per_node: 1, ..network() };
        let mut network = Network::<Tiny>::new(limits).unwrap();
        let first = id(&network.handle(at(0), submit(1, 1)));
        assert!(sent(&network.handle(at(0), submit(2, 7))).is_empty());
        assert!(sent(&network.handle(at(0), submit(3, 7).by(Instant::from_millis(500)))).is_empty());
        assert_eq!(sent(&network.handle(at(0), Inbound::Answered(first).into())), [3]);
    }

    #[test]
    fn nothing_wakes_for_a_soft_limit_that_means_nothing() {
        let mut network = Network::<Tiny>::new(network()).unwrap();
        assert_eq!(sent(&network.handle(at(0), submit(1, 1))), [1]);
        assert_eq!(network.poll_timeout(), Some(at(2)));
    }

    #[test]
    fn what_time_frees_goes_to_those_who_wait_before_the_event_is_looked_at() {
        let limits = NetworkConfig { max_in_flight: 1, max_queued: 1, request_timeout: S * 9, ..network() };
        let mut network = Network::<Tiny>::new(limits).unwrap();
        assert_eq!(sent(&network.handle(at(0), submit(1, 1).by(at(1)))), [1]);
        assert!(sent(&network.handle(at(0), submit(2, 2))).is_empty());
        // The first one's time has run out, so the second one is sent and the third one can wait.
        let out = network.handle(at(1), submit(3, 3));
        assert_eq!(sent(&out), [2]);
        assert!(out.iter().any(|out| matches!(out.event, Outbound::Accepted { tag: 3, .. })));
    }
}

#[test]
fn a_slot_that_an_answer_frees_makes_room_in_the_queue() {
    let limits = NetworkConfig { max_in_flight: 1, max_queued: 1, ..network() };
    let query = QueryConfig { alpha: 2, ..QueryConfig::default() };
    let mut query = Query::<Tiny>::new(LOCAL, query, limits).unwrap();
    let first = requests(&query.handle(at(0), start(1, &[1, 2])))[0].id;
    // The second one was in the queue and goes out; the third one takes its place there.
    let out = query.handle(at(0), Inbound::Answered { request: first, closer: nodes(&[3]) }.into());
    assert_eq!(requests(&out)[0].node, node(2));
    let unsent = |out: &&Stamped<_>| matches!(&out.event, Outbound::Progress(progress) if progress.reply == Reply::Unsent);
    assert_eq!(out.iter().filter(unsent).count(), 0);
    assert_eq!(query.traffic().queued, 1);
}
