//! What liars, silence and overload must not do.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::{
    Batch, Bits, Config, Coordinator, Family, Instant, Machine, Network, NetworkConfig, Outcome, PoolConfig,
    Query, QueryConfig, QueryPool, RequestId, Stamped, Start, coordinator, network, query,
};
use std::collections::VecDeque;
use std::time::Duration;

/// A node is a number, and its key is the number.
#[derive(Clone, Debug, PartialEq)]
struct Numbers;

impl Family for Numbers {
    type Key = Bits<4>;
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
fn one_liar_does_not_push_out_what_honest_nodes_named() {
    let mut machine =
        Query::<Numbers>::new(key(LOCAL), QueryConfig::default(), NetworkConfig::default()).unwrap();
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
                    assert_eq!(found, 18, "all that live: {:?}", finish.statistics);
                    return;
                }
                _ => {}
            }
        }
        let request = open.pop_front().unwrap();
        let dead = honest[..2].contains(&request.node) || made_up.contains(&request.node);
        let closer = if request.node == liar { made_up.clone() } else { honest.clone() };
        let event = if dead {
            query::Inbound::Failed(request.id)
        } else {
            query::Inbound::Answered { request: request.id, closer }
        };
        said = machine.handle(at(now), Stamped::new(event));
    }
}

#[test]
fn time_outs_that_were_learnt_among_near_nodes_heal_among_far_ones() {
    let mut machine = Coordinator::<Numbers>::new(
        key(LOCAL),
        Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() },
    )
    .unwrap();
    let connected = |node, round_trip| Stamped::new(coordinator::Inbound::Connected { node, round_trip });
    for _ in 0..8 {
        let _ = machine.handle(at(0), connected(7, Some(MS)));
    }
    // Alive, but farther than any time-out that was learnt.
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
                coordinator::Inbound::Answered { request, closer: Vec::new() }
            } else {
                now = wake;
                coordinator::Inbound::Tick
            };
            said = machine.handle(now, Stamped::new(event));
        };
    }
    assert!(found >= 19, "{found} of 20 found, {:?}", machine.traffic());
}

fn request(said: &Batch<query::Outbound<Numbers>>) -> Option<(RequestId, u64)> {
    said.iter().find_map(|stamped| match &stamped.event {
        query::Outbound::Request(request) => {
            Some((request.id, request.owner.operation().map_or(0, kad_proto::OperationId::tag)))
        }
        _ => None,
    })
}

#[test]
fn under_overload_the_earliest_deadline_is_served_first() {
    for max_queued in [0, 1] {
        let pool =
            PoolConfig { query: QueryConfig { alpha: 1, ..QueryConfig::default() }, ..PoolConfig::default() };
        let network = NetworkConfig { max_in_flight: 1, max_queued, ..NetworkConfig::default() };
        let mut machine = QueryPool::<Numbers>::new(key(LOCAL), pool, network).unwrap();
        let mut start = |tag, seed, deadline: u64| {
            let start = Stamped::new(query::Inbound::Start(find(tag, vec![seed]))).by(at(deadline));
            machine.handle(at(0), start)
        };
        let mut served = request(&start(1, 0x100_0000, 50_000)).unwrap();
        let _ = start(2, 0x100_0001, 50_000);
        let _ = start(3, 5, 30_000);
        // Each answer names somebody nearer, so that who is answered always wants to go on.
        let mut tags = Vec::new();
        for round in 1..10 {
            let closer = vec![0x100_0000 - u32::try_from(round).unwrap()];
            let event = query::Inbound::Answered { request: served.0, closer };
            served = request(&machine.handle(at(round), Stamped::new(event))).unwrap();
            tags.push(served.1);
        }
        assert!(tags[..2].contains(&3), "queue of {max_queued}: {tags:?}");
    }
}

#[test]
fn one_silence_is_one_failure() {
    let mut machine = Coordinator::<Numbers>::new(
        key(LOCAL),
        Config { routing: kad_proto::RoutingConfig::off(), ..Config::default() },
    )
    .unwrap();
    let connected = coordinator::Inbound::Connected { node: 7, round_trip: None };
    let _ = machine.handle(at(0), Stamped::new(connected));
    let _ = machine.handle(at(0), Stamped::new(coordinator::Inbound::Start(find(1, Vec::new()))));
    assert!(machine.operation(1).is_some() && machine.operation(2).is_none());
    while machine.operations() > 0 {
        let wake = machine.poll_timeout().unwrap();
        let _ = machine.handle(wake, Stamped::new(coordinator::Inbound::Tick));
    }
    assert_eq!(machine.traffic().timed_out, 3, "it was asked thrice, as the nearest there is");
    assert_eq!(machine.table().get(&7).map(kad_proto::table::Record::failures), Some(1));
}

#[test]
fn nobody_to_ask_is_told_at_once() {
    let mut machine =
        Query::<Numbers>::new(key(LOCAL), QueryConfig::default(), NetworkConfig::default()).unwrap();
    let said = machine.handle(at(0), Stamped::new(query::Inbound::Start(find(1, vec![LOCAL]))));
    let [started, finished] = &said[..] else { panic!("{said:?}") };
    assert!(matches!(started.event, query::Outbound::Started(_)));
    let query::Outbound::Finished(finish) = &finished.event else { panic!("{finished:?}") };
    assert_eq!((finish.outcome, finish.closest.len()), (Outcome::Exhausted, 0));
}

#[test]
fn giving_up_what_has_ended_is_late_and_what_never_was_is_unknown() {
    let mut machine = Network::<Numbers>::new(NetworkConfig::default()).unwrap();
    let submit = network::Inbound::Submit { tag: 1, node: 7, message: () };
    let said = machine.handle(at(0), Stamped::new(submit));
    let network::Outbound::Accepted { request, .. } = said[0].event else { panic!("{said:?}") };
    let _ = machine.handle(at(1), Stamped::new(network::Inbound::Answered(request)));
    for id in [request, RequestId::from_u64(u64::MAX)] {
        assert!(machine.handle(at(2), Stamped::new(network::Inbound::Withdraw(id))).is_empty());
    }
    let traffic = machine.traffic();
    assert_eq!((traffic.answered, traffic.late, traffic.unknown), (1, 1, 1));
}
