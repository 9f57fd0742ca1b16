//! Crawls: the crawled graph is that of the network, and unsent requests are not counted.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::crawl::{CrawlFinish, Inbound, Outbound, Reach, StartCrawl};
use kad_proto::{
    Batch, Crawl, CrawlConfig, Instant, Key, Key8, Machine, NetworkConfig, Outcome, Response, Secret, Stamped,
};
use std::collections::BTreeSet;
use tiny::Tiny;

const LOCAL: Key8 = Key8::new([0xff]);

#[test]
fn a_crawl_finds_every_node_and_every_edge() {
    let network: Vec<_> = (0..60_u8).map(|place| Key8::new([place.wrapping_mul(4)])).collect();
    let is_dead = |node: &Key8| node.as_bytes()[0] % 5 == 1;
    // Each node knows up to eight nodes of each of its buckets.
    let table = |node: &Key8| -> BTreeSet<Key8> {
        let bucket = |cpl| network.iter().filter(move |other| node.common_prefix_len(other) == cpl).take(8);
        (0..8).flat_map(bucket).copied().collect()
    };
    let mut machine =
        Crawl::<Tiny>::new(LOCAL, CrawlConfig::default(), NetworkConfig::default(), &Secret::from_seed(0))
            .unwrap();
    let start = StartCrawl::new(7).with_seeds(vec![network[0], LOCAL]);
    let mut out = machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start)));
    let (mut asked, mut now, mut finish) = (BTreeSet::new(), Instant::ORIGIN, None);
    while finish.is_none() {
        let mut next = Vec::new();
        for stamped in out {
            match stamped.event {
                Outbound::Request(request) => {
                    let is_new = asked.insert((request.node, request.target));
                    assert!(is_new || is_dead(&request.node), "once for each bucket, if it is answered");
                    if !is_dead(&request.node) {
                        let mut closer: Vec<_> = table(&request.node).into_iter().collect();
                        closer.sort_by_key(|other| other.distance(&request.target));
                        closer.truncate(8);
                        next.push(Inbound::Response(Response::answered(request.id, closer)));
                    }
                }
                Outbound::Finished(it) => finish = Some(it),
                _ => {}
            }
        }
        out = Batch::new();
        for event in next {
            machine.handle_into(now, Stamped::new(event), &mut out);
        }
        if out.is_empty() && finish.is_none() {
            now = machine.poll_timeout().unwrap();
            machine.handle_into(now, Stamped::new(Inbound::Tick), &mut out);
        }
    }
    let finish = finish.unwrap();
    assert_eq!(finish.outcome, Outcome::Complete);
    let found: BTreeSet<_> = finish.nodes.iter().map(|crawled| crawled.node).collect();
    assert_eq!((found.len(), finish.nodes.len()), (60, 60));
    for (place, crawled) in (0..).zip(&finish.nodes) {
        let dead = is_dead(&crawled.node);
        let (reach, asked) = if dead { (Reach::Unreachable, 1) } else { (Reach::Reachable, 8) };
        assert_eq!((crawled.reach, crawled.asked), (reach, asked), "{crawled:?}");
        let requests = if dead { 2..=4 } else { 8..=8 };
        assert!(requests.contains(&crawled.requests), "{crawled:?}");
        let named: BTreeSet<_> = finish.edges.iter().filter(|edge| edge.0 == place).collect();
        let named: BTreeSet<_> = named.iter().map(|edge| finish.nodes[edge.1 as usize].node).collect();
        let expected = if dead { BTreeSet::new() } else { table(&crawled.node) };
        assert_eq!(named, expected, "of {crawled:?}");
    }
    let counts = finish.counts;
    assert_eq!((counts.nodes, counts.reachable + counts.unreachable, counts.left_out), (60, 60, 0));
    assert_eq!(counts.edges as usize, finish.edges.len());
    assert_eq!((machine.poll_timeout(), machine.request_stats().in_flight), (None, 0));
}

/// A machine with this configuration, and what it emits for a start with these seeds.
fn started(
    config: CrawlConfig,
    network: NetworkConfig,
    seeds: Vec<Key8>,
) -> (Crawl<Tiny>, Batch<Outbound<Tiny>>) {
    let mut machine = Crawl::<Tiny>::new(LOCAL, config, network, &Secret::from_seed(0)).unwrap();
    let start = Inbound::Start(StartCrawl::new(7).with_seeds(seeds));
    let out = machine.handle(Instant::ORIGIN, Stamped::new(start));
    (machine, out)
}

#[test]
fn a_bucket_whose_request_was_never_sent_does_not_count_as_asked() {
    let network = NetworkConfig { max_in_flight: 1, ..NetworkConfig::default() };
    let seeds = [1, 2].map(|key| Key8::new([key])).to_vec();
    let (mut machine, _) = started(CrawlConfig::default(), network, seeds);
    assert_eq!((machine.request_stats().in_flight, machine.request_stats().queued), (1, 1));
    let id = machine.operation(7).unwrap();
    let out = machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Stop(id)));
    let Some(Stamped { event: Outbound::Finished(finish), .. }) = out.last() else { panic!("{out:?}") };
    let asked: Vec<_> = finish.nodes.iter().map(|crawled| (crawled.reach, crawled.asked)).collect();
    assert_eq!(asked, [(Reach::Unknown, 1), (Reach::Unknown, 0)]);
    assert_eq!(finish.stats.sent, 1);
}

/// Crawls 60 nodes that all know each other, in virtual time; `is_lost` says which requests are not answered, by their number.
fn crawl_of_sixty(config: CrawlConfig, is_lost: impl Fn(u32, &Key8) -> bool) -> CrawlFinish<Tiny> {
    let network: Vec<_> = (0..60_u8).map(|place| Key8::new([place.wrapping_mul(4)])).collect();
    let (mut machine, mut out) = started(config, NetworkConfig::default(), vec![network[0]]);
    let (mut now, mut number) = (Instant::ORIGIN, 0);
    loop {
        let mut answers = Vec::new();
        for stamped in out.drain(..) {
            match stamped.event {
                Outbound::Request(request) => {
                    number += 1;
                    if !is_lost(number, &request.node) {
                        let mut closer = network.clone();
                        closer.sort_by_key(|other| other.distance(&request.target));
                        closer.truncate(8);
                        answers.push(Response::answered(request.id, closer));
                    }
                }
                Outbound::Finished(finish) => return finish,
                _ => {}
            }
        }
        if answers.is_empty() {
            now = machine.poll_timeout().unwrap();
            machine.handle_into(now, Stamped::new(Inbound::Tick), &mut out);
        }
        for answer in answers {
            machine.handle_into(now, Stamped::new(Inbound::Response(answer)), &mut out);
        }
    }
}

#[test]
fn what_is_lost_on_the_way_is_asked_again() {
    let whole = crawl_of_sixty(CrawlConfig::default(), |_, _| false);
    assert_eq!((whole.outcome, whole.counts.unsure), (Outcome::Complete, 0));
    for every in [7, 10, 20, 50] {
        let finish = crawl_of_sixty(CrawlConfig::default(), |number, _| number % every == 0);
        assert_eq!(
            (finish.outcome, finish.counts.unreachable),
            (Outcome::Complete, 0),
            "each {every}th lost"
        );
        let edges = |finish: &CrawlFinish<Tiny>| -> BTreeSet<_> {
            let node = |place: u32| finish.nodes[place as usize].node;
            finish.edges.iter().map(|(from, to)| (node(*from), node(*to))).collect()
        };
        assert_eq!(edges(&finish), edges(&whole), "each {every}th lost");
        let (repeated, lost) = (finish.stats.sent - whole.stats.sent, finish.stats.timed_out);
        assert_eq!(repeated, lost, "only what was lost");
        for crawled in &finish.nodes {
            assert_eq!((crawled.asked, crawled.answered), (8, 8), "{crawled:?}");
        }
    }
    // Who does not want this can have it as before: a node that is silent once is given up.
    let config = CrawlConfig { max_failures: 1, ..CrawlConfig::default() };
    let hasty = crawl_of_sixty(config, |number, _| number % 20 == 0);
    assert_eq!(hasty.outcome, Outcome::Unsure);
    assert_eq!(hasty.stats.sent, hasty.nodes.iter().map(|crawled| crawled.requests).sum::<u32>());
}

#[test]
fn a_crawl_whose_nodes_leave_meanwhile_is_not_told_to_be_complete() {
    let leaves = |node: &Key8| node.as_bytes()[0] % 16 == 4;
    let finish = crawl_of_sixty(CrawlConfig::default(), |number, node| leaves(node) && number > 150);
    let unsure: Vec<_> = finish.nodes.iter().filter(|it| it.answered > 0 && it.answered < it.asked).collect();
    assert!(!unsure.is_empty() && unsure.iter().all(|it| leaves(&it.node) && it.requests > it.asked));
    assert_eq!((finish.outcome, finish.counts.unsure as usize), (Outcome::Unsure, unsure.len()));
    assert!(unsure.iter().all(|it| it.reach == Reach::Reachable));
}
