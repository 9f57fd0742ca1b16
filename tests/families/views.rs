//! What a driver sees: the table as a value, and the nodes that an engine holds.

use crate::figures::size;
use crate::libp2p::Libp2p;
use crate::maintained::{Kind, bep5, discv5, libp2p};
use crate::network::{Random, Wire};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Coordinator, Instant, Machine, Response, RoutingOutbound, Stamped, Start, StartBroadcast, StartCrawl,
    Target,
};
use std::time::Duration;

fn the_view_is_the_table<F: Wire>(kind: &Kind<F>) {
    let mut network = kind.network(1, size(30, 200), 0.0);
    for host in 0..network.hosts.len() {
        let (view, table) = (network.hosts[host].engine().view(), network.hosts[host].engine().table());
        assert_eq!(view.len(), table.len());
        assert_eq!(
            view.nodes().len(),
            table.iter().filter(|entry| view.nodes().contains(entry.node())).count()
        );
        for _ in 0..20 {
            let key = (kind.target)(&mut network.random).key();
            assert!(view.closest(&key).eq(table.closest(key).map(|entry| entry.node())), "{}", kind.name);
        }
    }
}

#[test]
fn a_view_of_the_table_names_the_same_nodes() {
    the_view_is_the_table(&libp2p(Libp2p::with_table(12).preimages));
    the_view_is_the_table(&discv5());
    the_view_is_the_table(&bep5());
}

/// The nodes that an event names.
fn named<F: Wire>(event: &Outbound<F>) -> Vec<F::Node> {
    match event {
        Outbound::Request(request) => vec![request.node.clone()],
        Outbound::Cancel(cancel) => vec![cancel.node.clone()],
        Outbound::Progress(progress) => vec![progress.node.clone()],
        Outbound::CrawlProgress(progress) => vec![progress.request.node.clone()],
        Outbound::BroadcastProgress(progress) => vec![progress.request.node.clone()],
        Outbound::Finished(finish) => finish.closest.iter().map(|contact| contact.node.clone()).collect(),
        Outbound::CrawlFinished(finish) => finish.nodes.iter().map(|crawled| crawled.node.clone()).collect(),
        Outbound::BroadcastFinished(finish) => {
            let stores = finish.stores.iter().map(|stored| stored.node.clone());
            stores.chain(finish.closest.iter().map(|contact| contact.node.clone())).collect()
        }
        Outbound::Routing(
            RoutingOutbound::Admitted(node) | RoutingOutbound::Removed(node) | RoutingOutbound::Updated(node),
        ) => vec![node.clone()],
        _ => Vec::new(),
    }
}

/// From now on no event names a node to the engine: it names only nodes that were visited.
fn drive_without_names<F: Wire>(
    mut engine: Coordinator<F>,
    mut now: Instant,
    random: &mut Random,
    name: &str,
) {
    let mut visited = Vec::new();
    engine.visit_nodes(|node| visited.push(node.clone()));
    let (mut names, mut requests) = (0, Vec::new());
    for _ in 0..size(400, 4_000) {
        let event: Inbound<F> = if requests.is_empty() || random.below(4) == 0 {
            let Some(at) = engine.poll_timeout() else { break };
            now = now.max(at);
            Inbound::Tick
        } else {
            let id = requests.swap_remove(random.below(requests.len()));
            now = now + Duration::from_millis(random.below(20) as u64);
            match random.below(6) {
                0 => Response::failed(id).into(),
                1 => Response::unreachable(id).into(),
                2 => Response::gone(id).into(),
                3 => Response::connection_refused(id).into(),
                4 => Response::part(id, Vec::new()).into(),
                _ => Response::answered(id, Vec::new()).into(),
            }
        };
        for out in engine.handle(now, Stamped::new(event)) {
            for node in named(&out.event) {
                assert!(visited.contains(&node), "{name}: {node:?} was not visited: {:?}", out.event);
                names += 1;
            }
            if let Outbound::Request(request) = out.event {
                requests.push(request.id);
            }
        }
    }
    assert!(names > 50, "{names}");
}

fn all_nodes_are_visited<F: Wire>(kind: &Kind<F>) {
    for seed in 1..=size(1, 8) {
        let mut network = kind.network(seed, size(30, 100), 0.0);
        let host = network.random.below(network.hosts.len());
        // In the middle of everything that an engine can do at once.
        for tag in 0..8 {
            let (target, other) = ((kind.target)(&mut network.random), (kind.target)(&mut network.random));
            let message = network.random.next();
            network.submit(host, Start::find(100 + tag, target.clone()));
            network.submit(host, StartBroadcast::follow_up(200 + tag, other, message));
            network.submit(host, StartBroadcast::optimistic(300 + tag, target, message));
        }
        let records =
            (0..20).map(|message| kad_proto::Record { target: (kind.target)(&mut network.random), message });
        let records = records.collect();
        network.submit(host, StartBroadcast::sweep(400, records));
        network.submit(host, StartCrawl::new(500));
        for _ in 0..size(4, 10) {
            network.run_for(Duration::from_millis(40));
            let engine = network.hosts[host].engine().clone();
            let now = network.now;
            drive_without_names(engine, now, &mut network.random, kind.name);
        }
    }
}

#[test]
fn later_events_name_only_nodes_that_were_visited() {
    all_nodes_are_visited(&libp2p(Libp2p::with_table(12).preimages));
    all_nodes_are_visited(&discv5());
    all_nodes_are_visited(&bep5());
}
