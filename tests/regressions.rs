//! Tests named after defects, of this crate and of an earlier implementation.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    Batch, BroadcastPool, CancelReason, Config, Coordinator, Crawl, Family, Instant, Key8, Key160, Machine,
    Network, NetworkConfig, Outcome, PoolConfig, Query, QueryConfig, QueryPool, RefusalReason, Refused,
    Request, RequestId, Response, RoutingInbound, RoutingTable, Secret, Stamped, Start, TableConfig,
    coordinator, requests::network,
};
use std::time::Duration;
use tiny::Tiny;

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
    // Time-outs are not adapted, so that they are known in advance.
    NetworkConfig { request_timeout: S * 2, soft_timeout: S, min_timeout: S * 2, ..NetworkConfig::default() }
}

fn start(tag: u64, seeds: &[u8]) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Start(Start::find(tag, node(0)).with_seeds(nodes(seeds))))
}

fn answered(request: RequestId, closer: &[u8]) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Response(Response::answered(request, nodes(closer))))
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

/// 160-bit keys: more than the 64 bits that candidates are compared by first.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wide;

impl Family for Wide {
    type Key = Key160;
    type Target = Key160;
    type Node = Key160;
    type Message = ();

    fn key(node: &Key160) -> Key160 {
        *node
    }
}

/// A key of the byte `fill`, with the last byte `last`.
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

// Defects of this crate.

#[test]
fn a_node_at_the_far_end_of_the_key_space_is_asked() {
    let mut query =
        Query::<Wide>::new(wide(0x55, 0), QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let start = Start::find(1, wide(0, 0)).with_seeds(vec![wide(1, 1)]);
    let request = asked(&query.handle(at(0), Inbound::Start(start).into()))[0].0;
    let answer = Inbound::Response(Response::answered(request, vec![wide(0xff, 1)]));
    assert_eq!(asked(&query.handle(at(0), answer.into()))[0].1, wide(0xff, 1));
}

#[test]
fn a_late_call_reports_every_request_that_timed_out_before_the_deadline() {
    let query = QueryConfig { retries: 0, ..QueryConfig::default() };
    let mut query = Query::<Tiny>::new(LOCAL, query, network(), &Secret::from_seed(0)).unwrap();
    let out = query.handle(at(0), start(1, &[1, 2, 3]).with_deadline(at(5)));
    assert_eq!(requests(&out).len(), 3);
    // All three requests timed out at 2 s, before the operation ended at 5 s; the next call comes at 9 s only.
    let out = query.handle(at(9), Inbound::Tick.into());
    let cancels = out.iter().filter_map(|out| match &out.event {
        Outbound::Cancel(cancel) => Some(cancel.reason),
        _ => None,
    });
    assert_eq!(cancels.collect::<Vec<_>>(), [CancelReason::TimedOut; 3]);
    let finish = finish(&out).unwrap();
    assert_eq!(finish.outcome, Outcome::DeadlineExceeded);
    assert_eq!((finish.stats.timed_out, finish.stats.cancelled), (3, 0));
}

mod network_queue {
    use super::*;
    use kad_proto::requests::network::{Inbound, Outbound};

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
    fn an_earlier_deadline_overtakes_in_the_queue_of_a_node() {
        let limits = NetworkConfig { max_in_flight: 1, max_per_node: 1, ..network() };
        let mut network = Network::<Tiny>::new(limits, &Secret::from_seed(0)).unwrap();
        let first = id(&network.handle(at(0), submit(1, 1)));
        assert!(sent(&network.handle(at(0), submit(2, 7))).is_empty());
        assert!(
            sent(&network.handle(at(0), submit(3, 7).with_deadline(Instant::from_millis(500)))).is_empty()
        );
        assert_eq!(sent(&network.handle(at(0), Inbound::Answered(first).into())), [3]);
    }

    #[test]
    fn no_wake_up_for_a_soft_limit_after_the_time_out() {
        let mut network = Network::<Tiny>::new(network(), &Secret::from_seed(0)).unwrap();
        assert_eq!(sent(&network.handle(at(0), submit(1, 1))), [1]);
        assert_eq!(network.poll_timeout(), Some(at(2)));
    }

    #[test]
    fn capacity_freed_by_time_goes_to_waiting_requests_before_the_event() {
        let limits = NetworkConfig {
            max_in_flight: 1,
            max_queued: 1,
            request_timeout: S * 9,
            min_timeout: S * 9,
            ..network()
        };
        let mut network = Network::<Tiny>::new(limits, &Secret::from_seed(0)).unwrap();
        assert_eq!(sent(&network.handle(at(0), submit(1, 1).with_deadline(at(1)))), [1]);
        assert!(sent(&network.handle(at(0), submit(2, 2))).is_empty());
        // The first has timed out, so the second is sent and the third may wait.
        let out = network.handle(at(1), submit(3, 3));
        assert_eq!(sent(&out), [2]);
        assert!(out.iter().any(|out| matches!(out.event, Outbound::Accepted { tag: 3, .. })));
    }
}

#[test]
fn capacity_freed_by_an_answer_makes_room_in_the_queue() {
    let limits = NetworkConfig { max_in_flight: 1, max_queued: 1, ..network() };
    let query = QueryConfig { alpha: 2, ..QueryConfig::default() };
    let mut query = Query::<Tiny>::new(LOCAL, query, limits, &Secret::from_seed(0)).unwrap();
    let first = requests(&query.handle(at(0), start(1, &[1, 2])))[0].id;
    // The second was queued and is sent; the third takes its place in the queue.
    let out = query.handle(at(0), answered(first, &[3]));
    assert_eq!(requests(&out)[0].node, node(2));
    assert_eq!(query.request_stats().queued, 1);
}

#[test]
fn a_queued_repeat_is_dropped_when_its_node_fails() {
    let limits = NetworkConfig { max_per_node: 1, ..network() };
    let mut query = Query::<Tiny>::new(LOCAL, QueryConfig::default(), limits, &Secret::from_seed(0)).unwrap();
    let first = requests(&query.handle(at(0), start(1, &[1, 2])))[0].clone();
    // The node is slow and is to be asked again, which must wait, as one request to it is in flight.
    assert!(requests(&query.handle(at(1), Inbound::Tick.into())).is_empty());
    assert_eq!(query.request_stats().queued, 2);
    let out = query.handle(at(1), Inbound::Response(Response::failed(first.id)).into());
    assert!(requests(&out).iter().all(|request| request.node != first.node));
    assert_eq!(query.request_stats().queued, 1);
}

#[test]
fn a_node_that_answers_one_request_after_failing_another_counts_as_alive() {
    let query = QueryConfig { k: 2, ..QueryConfig::default() };
    let mut query = Query::<Tiny>::new(LOCAL, query, network(), &Secret::from_seed(0)).unwrap();
    let first = requests(&query.handle(at(0), start(1, &[1, 2])));
    let again = requests(&query.handle(at(1), Inbound::Tick.into()));
    assert_eq!((first[0].node, again[0].node), (node(1), node(1)));
    let _ = query.handle(at(1), Inbound::Response(Response::failed(again[0].id)).into());
    let _ = query.handle(at(1), answered(first[0].id, &[]));
    let out = query.handle(at(1), answered(first[1].id, &[]));
    assert_eq!(finish(&out).map(|finish| finish.outcome), Some(Outcome::Converged));
}

#[test]
fn a_lookup_that_has_converged_does_not_end_at_the_node_limit() {
    let query =
        QueryConfig { k: 1, alpha: 1, retries: 0, max_candidates: 3, max_nodes: 3, ..QueryConfig::default() };
    let limits = NetworkConfig { request_timeout: S * 9, min_timeout: S * 9, ..network() };
    let mut query = Query::<Tiny>::new(LOCAL, query, limits, &Secret::from_seed(0)).unwrap();
    let first = requests(&query.handle(at(0), start(1, &[1, 0x81, 0x82])))[0].clone();
    // All are slow, so as many nodes are asked as the limit allows.
    let _ = query.handle(at(1), Inbound::Tick.into());
    let _ = query.handle(at(2), Inbound::Tick.into());
    let _ = query.handle(at(3), Inbound::Tick.into());
    // The closest answers; no edge probe is possible any more.
    let out = query.handle(at(3), answered(first.id, &[0x83]));
    assert_eq!(finish(&out).map(|finish| finish.outcome), Some(Outcome::Converged));
}

#[test]
fn a_lookup_of_a_busy_node_does_not_block_others() {
    let limits = NetworkConfig { max_in_flight: 2, max_per_node: 1, max_queued: 0, ..network() };
    let mut pool = QueryPool::<Tiny>::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        limits,
        &Secret::from_seed(0),
    )
    .unwrap();
    assert_eq!(requests(&pool.handle(at(0), start(1, &[1]))).len(), 1);
    let second = requests(&pool.handle(at(0), start(2, &[2])))[0].id;
    // Neither of these can send. The first waits for node 1, and has the earlier deadline.
    assert!(requests(&pool.handle(at(0), start(3, &[1]).with_deadline(at(1)))).is_empty());
    assert!(requests(&pool.handle(at(0), start(4, &[4]))).is_empty());
    let out = pool.handle(at(0), answered(second, &[]));
    assert_eq!(requests(&out).iter().map(|request| request.node).collect::<Vec<_>>(), [node(4)]);
}

#[test]
fn a_queued_repeat_is_sent_though_adapted_limits_leave_it_no_time() {
    let limits = NetworkConfig { min_timeout: Duration::from_nanos(1), max_per_node: 1, ..network() };
    let mut pool = QueryPool::<Tiny>::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        limits,
        &Secret::from_seed(0),
    )
    .unwrap();
    assert_eq!(requests(&pool.handle(at(0), start(1, &[1]))).len(), 1);
    // The node is slow and is to be asked again, which waits, as one request to it is in flight.
    assert!(requests(&pool.handle(at(1), Inbound::Tick.into())).is_empty());
    // Other nodes answer in no time, so that the adapted soft limit and time-out become equal.
    let mut open = requests(&pool.handle(at(1), start(2, &(10..30).collect::<Vec<_>>())));
    while let Some(request) = open.pop() {
        open.extend(requests(&pool.handle(at(1), answered(request.id, &[]))));
    }
    let again = requests(&pool.handle(at(2), Inbound::Tick.into()));
    assert_eq!(again.iter().map(|request| request.node).collect::<Vec<_>>(), [node(1)]);
}

#[test]
fn an_adapted_soft_limit_is_never_now() {
    let limits = NetworkConfig { min_timeout: Duration::from_nanos(1), ..network() };
    let mut query = Query::<Tiny>::new(LOCAL, QueryConfig::default(), limits, &Secret::from_seed(0)).unwrap();
    for tag in 0..3 {
        // Round trips of zero.
        let mut open = requests(&query.handle(at(0), start(tag, &(1..20).collect::<Vec<_>>())));
        while let Some(request) = open.pop() {
            assert!(query.poll_timeout().is_some_and(|wake| wake > at(0)));
            open.extend(requests(&query.handle(at(0), answered(request.id, &[]))));
        }
    }
}

// Defects of an earlier implementation.

#[test]
fn num_results_is_kept_and_progress_carries_stats() {
    let mut query =
        Query::<Tiny>::new(LOCAL, QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let begin = Start::find(1, node(0)).with_seeds(nodes(&[1, 2, 3])).with_num_results(2);
    let out = query.handle(at(0), Inbound::Start(begin).into());
    let mut last = None;
    for (count, request) in (1..).zip(requests(&out)) {
        let out = query.handle(at(0), answered(request.id, &[]));
        let progress = out.iter().find_map(|out| match &out.event {
            Outbound::Progress(progress) => Some(progress.stats),
            _ => None,
        });
        assert_eq!(progress.map(|stats| (stats.sent, stats.answered)), Some((3, count)));
        last = finish(&out);
    }
    let closest: Vec<_> = last.unwrap().closest.iter().map(|contact| contact.node).collect();
    assert_eq!(closest, nodes(&[1, 2]));
}

#[test]
fn a_query_that_times_out_emits_its_finish() {
    let mut query =
        Query::<Tiny>::new(LOCAL, QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let out = query.handle(at(0), start(1, &[1, 2]).with_deadline(at(1)));
    let _ = query.handle(Instant::from_millis(500), answered(requests(&out)[0].id, &[]));
    let finish = finish(&query.handle(at(1), Inbound::Tick.into())).unwrap();
    assert_eq!((finish.outcome, finish.closest.len()), (Outcome::DeadlineExceeded, 1));
    // The same tag can be used for another operation.
    let again = query.handle(at(1), start(1, &[1]));
    assert!(matches!(again[0].event, Outbound::Started(_)));
}

#[test]
fn a_second_query_with_a_tag_in_use_is_refused() {
    let mut pool = QueryPool::<Tiny>::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        network(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let first = pool.handle(at(0), start(7, &[1]));
    let out = pool.handle(at(0), start(7, &[2]));
    let refused = Refused { tag: 7, reason: RefusalReason::TagInUse };
    assert_eq!(out.iter().map(|out| out.event.clone()).collect::<Vec<_>>(), [Outbound::Refused(refused)]);
    // The first operation goes on.
    let out = pool.handle(at(0), answered(requests(&first)[0].id, &[]));
    assert_eq!(finish(&out).map(|finish| finish.closest.len()), Some(1));
}

#[test]
fn at_capacity_a_live_request_does_not_hide_expired_ones() {
    let limits = NetworkConfig { max_in_flight: 3, max_per_node: 1, ..network() };
    let mut network = Network::<Tiny>::new(limits, &Secret::from_seed(0)).unwrap();
    let submit = |key| network::Inbound::Submit { tag: u64::from(key), node: node(key), message: () };
    // The first stays in flight; those behind it have less time.
    let _ = network.handle(at(0), Stamped::new(submit(1)).with_deadline(at(2)));
    let _ = network.handle(at(0), Stamped::new(submit(2)).with_deadline(at(1)));
    let _ = network.handle(at(0), Stamped::new(submit(3)).with_deadline(at(1)));
    let _ = network.handle(at(0), Stamped::new(submit(4)).with_deadline(at(9)));
    let out = network.handle(at(1), network::Inbound::Tick.into());
    let ended = out.iter().filter(|out| matches!(out.event, network::Outbound::Ended { .. })).count();
    let sent = out.iter().filter(|out| matches!(out.event, network::Outbound::Send { tag: 4, .. })).count();
    assert_eq!((ended, sent), (2, 1));
}

#[test]
fn wake_ups_alone_end_a_lookup_of_a_silent_node() {
    let mut query = Query::<Tiny>::new(
        LOCAL,
        QueryConfig { retries: 0, ..QueryConfig::default() },
        network(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let _ = query.handle(at(0), start(1, &[1]).with_deadline(at(60)));
    // A lookup of a silent node ends by its own wake-ups alone: soft limit, time-out.
    let mut wakes = Vec::new();
    let mut outcome = None;
    while let Some(wake) = query.poll_timeout().filter(|_| wakes.len() < 10) {
        wakes.push(wake);
        outcome = finish(&query.handle(wake, Inbound::Tick.into())).map(|finish| finish.outcome);
    }
    assert_eq!((wakes, outcome), (vec![at(1), at(2)], Some(Outcome::Unreachable)));
}

#[test]
fn a_stopped_query_does_not_blame_its_nodes() {
    let config = Config {
        network: network(),
        table: TableConfig { max_failures: 1, ..TableConfig::default() },
        routing: kad_proto::RoutingConfig::off(),
        ..Config::default()
    };
    let mut coordinator = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    for key in 1..4 {
        let connected =
            coordinator::Inbound::Routing(RoutingInbound::Connected { node: node(key), round_trip: None });
        let _ = coordinator.handle(at(0), connected.into());
    }
    for ends_by in ["stop", "deadline"] {
        let begin = Stamped::new(coordinator::Inbound::Start(Start::find(1, node(0)))).with_deadline(at(1));
        let out = coordinator.handle(at(0), begin);
        let coordinator::Outbound::Started(started) = out[0].event else { panic!("{out:?}") };
        let out = match ends_by {
            "stop" => coordinator.handle(at(0), coordinator::Inbound::Stop(started.operation).into()),
            _ => coordinator.handle(at(1), coordinator::Inbound::Tick.into()),
        };
        let cancelled =
            out.iter().filter(|out| matches!(out.event, coordinator::Outbound::Cancel(_))).count();
        assert_eq!((cancelled, coordinator.table().len()), (3, 3), "by {ends_by}");
        assert!(coordinator.table().iter().all(|record| record.failures() == 0));
    }
}

#[test]
fn per_node_state_is_released() {
    let mut network = Network::<Tiny>::new(network(), &Secret::from_seed(0)).unwrap();
    let mut ids = Vec::new();
    for key in 0..100 {
        let submit = network::Inbound::Submit { tag: 0, node: node(key), message: () };
        let out = network.handle(at(0), submit.into());
        let network::Outbound::Accepted { request, .. } = out[0].event else { panic!("{out:?}") };
        ids.push(request);
    }
    assert_eq!(network.tracked_nodes(), 100);
    let ends: [fn(RequestId) -> network::Inbound<Tiny>; 3] =
        [network::Inbound::Answered, network::Inbound::Failed, network::Inbound::Withdraw];
    for (number, id) in ids.iter().take(90).enumerate() {
        let _ = network.handle(at(0), ends[number % 3](*id).into());
    }
    assert_eq!(network.tracked_nodes(), 10);
    let _ = network.handle(at(60), network::Inbound::Tick.into());
    assert_eq!(network.tracked_nodes(), 0);
}

#[test]
fn a_stop_while_handling_a_progress_event_is_an_ordinary_call() {
    let mut query =
        Query::<Tiny>::new(LOCAL, QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let out = query.handle(at(0), start(1, &[1, 2, 3]));
    let answer = query.handle(at(0), answered(requests(&out)[0].id, &[4, 5]));
    // The caller stops the query before reading the rest of the batch: an ordinary next call.
    let Outbound::Progress(progress) = &answer[0].event else { panic!("{answer:?}") };
    let stopped = query.handle(at(0), Inbound::Stop(progress.operation).into());
    let given_up = stopped.iter().filter(|out| matches!(out.event, Outbound::Cancel(_))).count();
    // The requests in the rest of the batch are cancelled like all others.
    assert_eq!(given_up, 2 + requests(&answer).len());
    assert_eq!(finish(&stopped).unwrap().outcome, Outcome::Stopped);
}

#[test]
fn progress_is_never_blocked_by_a_slow_consumer_and_never_dropped_before_the_finish() {
    let limits = NetworkConfig { max_per_node: 50, ..network() };
    let mut pool = QueryPool::<Tiny>::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        limits,
        &Secret::from_seed(0),
    )
    .unwrap();
    // All calls append to one batch, in order.
    let mut out = Batch::new();
    for tag in 0..50 {
        pool.handle_into(at(0), start(tag, &[1, 2, 3]), &mut out);
    }
    for request in requests(&out) {
        pool.handle_into(at(0), answered(request.id, &[1, 2, 3]), &mut out);
    }
    for tag in 0..50 {
        let of_this = out.iter().filter_map(|out| match &out.event {
            Outbound::Progress(progress) if progress.operation.tag() == tag => Some("progress"),
            Outbound::Finished(finish) if finish.operation.tag() == tag => Some("finish"),
            _ => None,
        });
        assert_eq!(of_this.collect::<Vec<_>>(), ["progress", "progress", "progress", "finish"]);
    }
}

#[test]
fn every_event_names_its_operation() {
    // An earlier implementation confused operations of a shared pool: every event must name its operation.
    let mut pool = QueryPool::<Tiny>::new(
        LOCAL,
        QueryConfig::default(),
        PoolConfig::default(),
        network(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let (a, b) = (pool.handle(at(0), start(1, &[1])), pool.handle(at(0), start(2, &[1])));
    let (a, b) = (requests(&a)[0].clone(), requests(&b)[0].clone());
    assert_eq!((a.node, a.initiator.operation().unwrap().tag()), (b.node, 1));
    let out = pool.handle(at(0), answered(b.id, &[]));
    assert_eq!(finish(&out).map(|finish| finish.operation), b.initiator.operation());
    let out = pool.handle(at(0), answered(a.id, &[]));
    assert_eq!(finish(&out).map(|finish| finish.operation), a.initiator.operation());
}

// Invalid input.

#[test]
fn an_invalid_configuration_names_its_field() {
    type Change = fn(&mut Config);
    assert_eq!(Config::default().validate(), Ok(()));
    let changes: [(&str, Change); 51] = [
        ("query.timeout", |config| config.query.timeout = Duration::ZERO),
        ("query.k", |config| config.query.k = 0),
        ("query.k", |config| config.query.k = 41),
        ("query.k", |config| config.query.max_candidates = 19),
        ("query.max_candidates", |config| config.query.max_candidates = 8_193),
        ("query.alpha", |config| config.query.alpha = 0),
        ("query.alpha", |config| config.query.alpha = 1_025),
        ("query.beta", |config| config.query.beta = Some(0)),
        ("query.beta", |config| config.query.beta = Some(21)),
        ("query.paths", |config| config.query.paths = 0),
        ("query.paths", |config| config.query.paths = 65),
        ("query.retries", |config| config.query.retries = 17),
        ("query.max_closer_nodes", |config| config.query.max_closer_nodes = 0),
        ("query.max_closer_nodes", |config| config.query.max_closer_nodes = 1_025),
        ("query.max_nodes", |config| config.query.max_nodes = 39),
        ("query.max_nodes", |config| config.query.max_nodes = 16_385),
        ("pool.max_running", |config| config.pool.max_running = 0),
        ("pool.max_running", |config| config.pool.max_running = usize::MAX),
        ("pool.max_waiting", |config| config.pool.max_waiting = usize::MAX),
        ("network.request_timeout", |config| config.network.request_timeout = Duration::ZERO),
        ("network.soft_timeout", |config| config.network.soft_timeout = Duration::ZERO),
        ("network.min_timeout", |config| config.network.min_timeout = Duration::ZERO),
        ("network.max_in_flight", |config| config.network.max_in_flight = 0),
        ("network.max_per_node", |config| config.network.max_per_node = 0),
        ("network.max_queued", |config| config.network.max_queued = usize::MAX),
        ("table.bucket_size", |config| config.table.bucket_size = 0),
        ("table.bucket_size", |config| config.table.bucket_size = 1_025),
        ("table.max_per_group", |config| config.table.max_per_group = 0),
        ("table.max_per_group_in_bucket", |config| config.table.max_per_group_in_bucket = 0),
        ("table.max_failures", |config| config.table.max_failures = 0),
        ("table.max_failures", |config| config.table.max_failures = 256),
        ("crawl.timeout", |config| config.crawl.timeout = Duration::ZERO),
        ("crawl.max_cpl", |config| config.crawl.max_cpl = 1_024),
        ("crawl.max_in_flight", |config| config.crawl.max_in_flight = 0),
        ("crawl.max_nodes", |config| config.crawl.max_nodes = 0),
        ("crawl.max_edges", |config| config.crawl.max_edges = usize::MAX),
        ("crawl.max_closer_nodes", |config| config.crawl.max_closer_nodes = 0),
        ("crawl.max_failures", |config| config.crawl.max_failures = 0),
        ("crawl.max_crawls", |config| config.crawl.max_crawls = 1_025),
        ("broadcast.timeout", |config| config.broadcast.timeout = Duration::ZERO),
        ("broadcast.sweep_timeout", |config| config.broadcast.sweep_timeout = Duration::ZERO),
        ("broadcast.max_in_flight", |config| config.broadcast.max_in_flight = 0),
        ("broadcast.max_nodes", |config| config.broadcast.max_nodes = 65_537),
        ("broadcast.early_return_percent", |config| config.broadcast.early_return_percent = 0),
        ("broadcast.early_return_percent", |config| config.broadcast.early_return_percent = 101),
        ("broadcast.max_background", |config| config.broadcast.max_background = usize::MAX),
        ("broadcast.background_timeout", |config| config.broadcast.background_timeout = Duration::ZERO),
        ("broadcast.max_lookups", |config| config.broadcast.max_lookups = 65),
        ("broadcast.max_records", |config| config.broadcast.max_records = usize::MAX),
        ("sweep.max_lookups", |config| config.broadcast.sweep.max_lookups = 0),
        ("network_size.max_age", |config| {
            config.network_size.as_mut().unwrap().max_age = Duration::ZERO;
        }),
    ];
    for (field, change) in changes {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.field(), field);
        assert!(error.to_string().starts_with(field) && !error.bound().is_empty());
        assert_eq!(
            Coordinator::<Tiny>::new(LOCAL, config.clone(), &Secret::from_seed(0)).unwrap_err(),
            error
        );
        let Config { query, pool, network, table, crawl, broadcast, .. } = config;
        match field.split('.').next() {
            Some("query") => {
                assert_eq!(
                    Query::<Tiny>::new(LOCAL, query.clone(), network.clone(), &Secret::from_seed(0))
                        .unwrap_err(),
                    error
                );
                assert_eq!(
                    QueryPool::<Tiny>::new(LOCAL, query, pool, network, &Secret::from_seed(0)).unwrap_err(),
                    error
                );
            }
            Some("pool") => assert_eq!(
                QueryPool::<Tiny>::new(LOCAL, query, pool, network, &Secret::from_seed(0)).unwrap_err(),
                error
            ),
            Some("network") => {
                assert_eq!(Network::<Tiny>::new(network, &Secret::from_seed(0)).unwrap_err(), error)
            }
            Some("crawl") => assert_eq!(
                Crawl::<Tiny>::new(LOCAL, crawl, network, &Secret::from_seed(0)).unwrap_err(),
                error
            ),
            Some("broadcast" | "sweep") => {
                assert_eq!(
                    BroadcastPool::<Tiny>::new(LOCAL, broadcast, query, pool, network, &Secret::from_seed(0))
                        .unwrap_err(),
                    error
                )
            }
            Some("network_size") => {}
            _ => {
                assert_eq!(RoutingTable::<Tiny>::new(LOCAL, table, &Secret::from_seed(0)).unwrap_err(), error)
            }
        }
    }
}

#[test]
fn the_end_of_time_is_an_instant_like_any_other() {
    let endless = QueryConfig { timeout: Duration::MAX, ..QueryConfig::default() };
    let limits = NetworkConfig { request_timeout: Duration::MAX, min_timeout: Duration::MAX, ..network() };
    let mut query = Query::<Tiny>::new(LOCAL, endless, limits, &Secret::from_seed(0)).unwrap();
    let out = query.handle(Instant::from_nanos(u64::MAX - 1), start(1, &[1]));
    assert_eq!(requests(&out).len(), 1);
    assert_eq!(query.poll_timeout(), Some(Instant::FAR_FUTURE));
    let out = query.handle(Instant::FAR_FUTURE, Inbound::Tick.into());
    assert_eq!(finish(&out).unwrap().outcome, Outcome::DeadlineExceeded);
    assert_eq!(query.poll_timeout(), None);
    let out = query.handle(Instant::FAR_FUTURE, start(1, &[1]));
    let refused = Refused { tag: 1, reason: RefusalReason::DeadlinePassed };
    assert_eq!(out[0].event, Outbound::Refused(refused));
}

#[test]
fn an_earlier_clock_reading_counts_as_the_latest() {
    let mut query =
        Query::<Tiny>::new(LOCAL, QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let _ = query.handle(at(100), Inbound::Tick.into());
    let out = query.handle(at(3), start(1, &[1]));
    assert_eq!(requests(&out).len(), 1);
    assert_eq!(out.iter().map(|out| out.deadline).collect::<Vec<_>>(), [Some(at(160)), Some(at(102))]);
    // Before the request time-out, although the caller's clock is behind.
    let _ = query.handle(at(102), Inbound::Tick.into());
    assert_eq!(query.request_stats().timed_out, 1);
}

#[test]
fn unknown_ids_are_counted_and_ignored() {
    let mut query =
        Query::<Tiny>::new(LOCAL, QueryConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let out = query.handle(at(0), start(1, &[1]));
    let request = requests(&out)[0].clone();
    for number in [1, u64::MAX, 1 << 63] {
        assert!(query.handle(at(0), answered(RequestId::from_u64(number), &[9])).is_empty());
    }
    assert_eq!((query.request_stats().unknown, query.request_stats().late), (3, 0));
    assert!(finish(&query.handle(at(0), answered(request.id, &[]))).is_some());
    assert!(query.handle(at(0), answered(request.id, &[9])).is_empty());
    assert!(query.handle(at(0), Inbound::Response(Response::failed(request.id)).into()).is_empty());
    assert!(query.handle(at(0), Inbound::Stop(request.initiator.operation().unwrap()).into()).is_empty());
    assert_eq!((query.request_stats().unknown, query.request_stats().late), (4, 2));
}
