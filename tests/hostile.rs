//! Hostile networks: what dishonest nodes, silent nodes and overload must not achieve.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::crawl::{self, CrawlFinish, StartCrawl};
use kad_proto::{
    Batch, Bits, Config, Coordinator, Crawl, CrawlConfig, Family, Instant, Key, Machine, Network,
    NetworkConfig, Outcome, PoolConfig, Query, QueryConfig, QueryPool, RequestId, Response, RoutingInbound,
    Secret, Stamped, Start, coordinator, lookups::query, requests::network,
};
use std::collections::VecDeque;
use std::time::Duration;

/// A node is a number, and its key is the number.
#[derive(Clone, Debug, Default, PartialEq)]
struct Numbers;

impl Family for Numbers {
    type Key = Bits<4>;
    type Target = Bits<4>;
    type Node = u32;
    type Message = ();

    fn key(node: &u32) -> Bits<4> {
        key(*node)
    }
}

const LOCAL: u32 = u32::MAX;
const MS: Duration = Duration::from_millis(1);

fn key(node: u32) -> Bits<4> {
    Bits::new(node.to_be_bytes())
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn find(tag: u64, seeds: Vec<u32>) -> Start<Numbers> {
    Start::find(tag, key(0)).with_seeds(seeds)
}

#[test]
fn one_liar_does_not_displace_the_candidates_of_honest_nodes() {
    let mut machine = Query::<Numbers>::new(
        key(LOCAL),
        QueryConfig::default(),
        NetworkConfig::default(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let honest: Vec<u32> = (0x1_0000..0x1_0014).collect();
    let made_up: Vec<u32> = (1..=40).collect();
    let (seed, liar) = (0x4000_0000, 0x4000_0001);
    let mut open = VecDeque::new();
    let mut said = machine.handle(at(0), Stamped::new(query::Inbound::Start(find(1, vec![seed, liar]))));
    for now in 1.. {
        for stamped in said.drain(..) {
            match stamped.event {
                query::Outbound::Request(request) => open.push_back(request),
                query::Outbound::Finished(finish) => {
                    let found =
                        finish.closest.iter().filter(|contact| honest.contains(&contact.node)).count();
                    assert_eq!(found, 18, "all that live: {:?}", finish.stats);
                    return;
                }
                _ => {}
            }
        }
        let request = open.pop_front().unwrap();
        let dead = honest[..2].contains(&request.node) || made_up.contains(&request.node);
        let closer = if request.node == liar { made_up.clone() } else { honest.clone() };
        let event = if dead {
            query::Inbound::Response(Response::failed(request.id))
        } else {
            query::Inbound::Response(Response::answered(request.id, closer))
        };
        said = machine.handle(at(now), Stamped::new(event));
    }
}

#[test]
fn time_outs_learnt_from_near_nodes_adapt_to_far_ones() {
    let mut machine = Coordinator::<Numbers>::new(
        key(LOCAL),
        Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() },
        &Secret::from_seed(0),
    )
    .unwrap();
    let connected = |node, round_trip| {
        Stamped::new(coordinator::Inbound::Routing(RoutingInbound::Connected { node, round_trip }))
    };
    for _ in 0..8 {
        let _ = machine.handle(at(0), connected(7, Some(MS)));
    }
    // These nodes answer, but later than every time-out learnt so far.
    let far: Vec<u32> = (0x1000..0x1014).collect();
    let mut now = at(1);
    let mut found = 0;
    for tag in 0..50 {
        let mut inbox: Vec<(Instant, RequestId)> = Vec::new();
        let start = coordinator::Inbound::Start(find(tag, far.clone()));
        let mut said = machine.handle(now, Stamped::new(start));
        found = 'lookup: loop {
            for stamped in said {
                match stamped.event {
                    coordinator::Outbound::Request(request) if request.node != 7 => {
                        inbox.push((now + 600 * MS, request.id));
                    }
                    coordinator::Outbound::Finished(finish) => break 'lookup finish.closest.len(),
                    _ => {}
                }
            }
            inbox.sort_unstable();
            let wake = machine.poll_timeout().unwrap();
            let due = inbox.first().is_some_and(|(answer, _)| *answer < wake);
            let event = if due {
                let (answer, request) = inbox.remove(0);
                now = answer;
                coordinator::Inbound::Response(Response::answered(request, Vec::new()))
            } else {
                now = wake;
                coordinator::Inbound::Tick
            };
            said = machine.handle(now, Stamped::new(event));
        };
    }
    assert!(found >= 19, "{found} of 20 found, {:?}", machine.request_stats());
}

fn request(said: &Batch<query::Outbound<Numbers>>) -> Option<(RequestId, u64)> {
    said.iter().find_map(|stamped| match &stamped.event {
        query::Outbound::Request(request) => {
            Some((request.id, request.initiator.operation().map_or(0, kad_proto::OperationId::tag)))
        }
        _ => None,
    })
}

#[test]
fn under_overload_the_earliest_deadline_is_served_first() {
    for max_queued in [0, 1] {
        let query = QueryConfig { alpha: 1, ..QueryConfig::default() };
        let network = NetworkConfig { max_in_flight: 1, max_queued, ..NetworkConfig::default() };
        let mut machine = QueryPool::<Numbers>::new(
            key(LOCAL),
            query,
            PoolConfig::default(),
            network,
            &Secret::from_seed(0),
        )
        .unwrap();
        let mut start = |tag, seed, deadline: u64| {
            let start =
                Stamped::new(query::Inbound::Start(find(tag, vec![seed]))).with_deadline(at(deadline));
            machine.handle(at(0), start)
        };
        let mut served = request(&start(1, 0x100_0000, 50_000)).unwrap();
        let _ = start(2, 0x100_0001, 50_000);
        let _ = start(3, 5, 30_000);
        // Each answer names a closer node, so that its lookup always wants to send another request.
        let mut tags = Vec::new();
        for round in 1..10 {
            let closer = vec![0x100_0000 - u32::try_from(round).unwrap()];
            let event = query::Inbound::Response(Response::answered(served.0, closer));
            served = request(&machine.handle(at(round), Stamped::new(event))).unwrap();
            tags.push(served.1);
        }
        assert!(tags[..2].contains(&3), "queue of {max_queued}: {tags:?}");
    }
}

#[test]
fn two_timed_out_requests_to_a_node_are_one_failure() {
    let mut machine = Coordinator::<Numbers>::new(
        key(LOCAL),
        Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() },
        &Secret::from_seed(0),
    )
    .unwrap();
    let connected = coordinator::Inbound::Routing(RoutingInbound::Connected { node: 7, round_trip: None });
    let _ = machine.handle(at(0), Stamped::new(connected));
    let _ = machine.handle(at(0), Stamped::new(coordinator::Inbound::Start(find(1, Vec::new()))));
    assert!(machine.operation(1).is_some() && machine.operation(2).is_none());
    while machine.operations() > 0 {
        let wake = machine.poll_timeout().unwrap();
        let _ = machine.handle(wake, Stamped::new(coordinator::Inbound::Tick));
    }
    assert_eq!(machine.request_stats().timed_out, 3, "it was asked thrice, as the nearest there is");
    assert_eq!(machine.table().get(&7).map(kad_proto::routing::table::TableEntry::failures), Some(1));
}

#[test]
fn a_start_without_any_node_finishes_at_once() {
    let mut machine = Query::<Numbers>::new(
        key(LOCAL),
        QueryConfig::default(),
        NetworkConfig::default(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let said = machine.handle(at(0), Stamped::new(query::Inbound::Start(find(1, vec![LOCAL]))));
    let [started, finished] = &said[..] else { panic!("{said:?}") };
    assert!(matches!(started.event, query::Outbound::Started(_)));
    let query::Outbound::Finished(finish) = &finished.event else { panic!("{finished:?}") };
    assert_eq!((finish.outcome, finish.closest.len()), (Outcome::Unreachable, 0));
}

#[test]
fn withdrawing_an_ended_request_counts_as_late_and_another_id_as_unknown() {
    let mut machine = Network::<Numbers>::new(NetworkConfig::default(), &Secret::from_seed(0)).unwrap();
    let submit = network::Inbound::Submit { tag: 1, node: 7, message: () };
    let said = machine.handle(at(0), Stamped::new(submit));
    let network::Outbound::Accepted { request, .. } = said[0].event else { panic!("{said:?}") };
    let _ = machine.handle(at(1), Stamped::new(network::Inbound::Answered(request)));
    for id in [request, RequestId::from_u64(u64::MAX)] {
        assert!(machine.handle(at(2), Stamped::new(network::Inbound::Withdraw(id))).is_empty());
    }
    let request_stats = machine.request_stats();
    assert_eq!((request_stats.answered, request_stats.late, request_stats.unknown), (1, 1, 1));
}

/// A node is a number, which is its key, and an address.
#[derive(Clone, Debug, Default, PartialEq)]
struct Addressed;

impl Family for Addressed {
    type Key = Bits<4>;
    type Target = Bits<4>;
    type Node = (u32, u32);
    type Message = ();

    fn key(node: &(u32, u32)) -> Bits<4> {
        key(node.0)
    }
}

/// Crawls from these seeds to the end. `answer` returns the nodes that a node names, or `None` if it is dead.
/// Returns the finish, and the number of requests to each node.
fn crawl(
    config: CrawlConfig,
    seeds: Vec<(u32, u32)>,
    mut answer: impl FnMut((u32, u32), Bits<4>) -> Option<Vec<(u32, u32)>>,
) -> (CrawlFinish<Addressed>, Vec<(u32, u32)>) {
    let mut machine =
        Crawl::<Addressed>::new(key(LOCAL), config, NetworkConfig::default(), &Secret::from_seed(0)).unwrap();
    let (mut asked, mut events) = (Vec::new(), VecDeque::new());
    let mut event = crawl::Inbound::Start(StartCrawl::new(1).with_seeds(seeds));
    loop {
        for stamped in machine.handle(at(0), Stamped::new(event)) {
            match stamped.event {
                crawl::Outbound::Request(request) => {
                    asked.push(request.node);
                    events.push_back(match answer(request.node, request.target) {
                        Some(closer) => crawl::Inbound::Response(Response::answered(request.id, closer)),
                        None => crawl::Inbound::Response(Response::failed(request.id)),
                    });
                }
                crawl::Outbound::Finished(finish) => return (finish, asked),
                _ => {}
            }
        }
        event = events.pop_front().unwrap();
    }
}

/// The nodes that an honest node names: the closest of the network to the target.
fn closest(network: &[(u32, u32)], target: Bits<4>) -> Vec<(u32, u32)> {
    let mut all = network.to_vec();
    all.sort_by_key(|node| key(node.0).distance(&target));
    all.truncate(20);
    all
}

fn honest() -> Vec<(u32, u32)> {
    (1..=100_u32).map(|number| (number.wrapping_mul(0x9e37_79b9), 0)).collect()
}

#[test]
fn one_key_with_many_addresses_takes_eight_places_of_a_crawl() {
    let (network, liar) = (honest(), (0x1234_5678, 0));
    let mut address = 0;
    let config = CrawlConfig::default();
    let buckets = usize::try_from(config.max_cpl + 1).unwrap();
    // The other addresses of the dishonest node answer, and name made-up nodes as well.
    let (finish, asked) = crawl(config.clone(), vec![network[0], liar], |node, target| {
        if node.0 != liar.0 {
            return Some(closest(&network, target));
        }
        address += 100;
        Some((address..address + 100).map(|address| (liar.0, address)).collect())
    });
    assert_eq!((finish.outcome, finish.nodes.len()), (Outcome::Complete, network.len() + 8));
    let wasted = asked.iter().filter(|node| node.0 == liar.0).count();
    assert_eq!((wasted, asked.len()), (8 * buckets, finish.nodes.len() * buckets));
    // The rest of the first answer that named them, and all nodes of the other answers.
    assert_eq!(finish.counts.left_out, u64::try_from(8 * buckets * 100 - 7).unwrap());
    assert!(network.iter().all(|node| finish.nodes.iter().any(|crawled| crawled.node == *node)));
}

#[test]
fn made_up_nodes_take_only_as_many_requests_as_their_liar_can_name() {
    let (network, liar) = (honest(), (0x1234_5678, 0));
    let config = CrawlConfig::default();
    let buckets = usize::try_from(config.max_cpl + 1).unwrap();
    let mut made_up = 0;
    let (finish, asked) = crawl(config.clone(), vec![network[0], liar], |node, target| {
        if node.1 > 0 {
            return None;
        }
        if node != liar {
            return Some(closest(&network, target));
        }
        made_up += 200;
        Some((made_up..made_up + 200).map(|number| (0x8000_0000 | number << 8, 1)).collect())
    });
    assert_eq!(finish.outcome, Outcome::Complete);
    let share = buckets * config.max_closer_nodes;
    assert_eq!(finish.nodes.len(), network.len() + 1 + share);
    let wasted = asked.iter().filter(|node| node.1 > 0).count();
    // Nothing is lost here, so few tries are enough.
    assert!((2 * share..=3 * share).contains(&wasted), "{wasted} requests to {share} nodes");
    let reachable = finish.nodes.iter().filter(|crawled| crawled.answered > 0).count();
    assert_eq!(reachable, network.len() + 1, "nobody honest is missing");
}

#[test]
fn a_crawl_of_ever_new_liars_ends_at_the_node_limit() {
    let (network, liar) = (honest(), (0x1234_5678, 0));
    let config = CrawlConfig { max_nodes: 2_000, max_cpl: 3, ..CrawlConfig::default() };
    let mut made_up = 0;
    let (finish, asked) = crawl(config, vec![network[0], liar], |node, target| {
        if node != liar && node.1 == 0 {
            return Some(closest(&network, target));
        }
        made_up += 40;
        Some((made_up..made_up + 40).map(|number| (0x8000_0000 | number << 8, 1)).collect())
    });
    assert_eq!((finish.outcome, finish.nodes.len()), (Outcome::NodeLimit, 2_000));
    assert_eq!(asked.len(), 2_000 * 4, "each is asked about its buckets, and no more");
    assert!(finish.counts.left_out > 0);
}
