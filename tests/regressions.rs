//! Tests named after defects: those of the engine's ancestor, none of which may come back, and our own.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::query::{Inbound, Outbound};
use kad_proto::{
    Batch, Family, GivenUp, Instant, Key8, Machine, NetworkConfig, Outcome, PoolConfig, Query, QueryConfig,
    QueryPool, Reply, Request, RequestId, Stamped, Start,
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

fn answered(request: RequestId, closer: &[u8]) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Answered { request, closer: nodes(closer) })
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

// Our own.

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
