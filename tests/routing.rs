//! The routing maintenance: tests named after defects of an earlier implementation. Its contract over any sequence
//! of events is in `maintenance.rs`.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "maintenance_contract/family.rs"]
mod family;

use family::{LOCAL, REFUSED, S, Tiny, at, node, span};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::routing::table::SavedNode;
use kad_proto::{
    Batch, Bootstrap, BootstrapConfig, CancelReason, Config, Context, Coordinator, Explore, ExploreConfig,
    Include, IncludeConfig, Initiator, Instant, Key, Machine, Maintenance, NetworkConfig, Outcome, Probe,
    ProbeConfig, QueryConfig, Request, RequestId, Response, RoutingConfig, RoutingInbound, RoutingOutbound,
    Schedule, Secret, SpanContext, Stamped, Start, TableConfig, maintenance, maintenance::bootstrap,
    maintenance::explore, routing::include, routing::probe,
};

fn network() -> NetworkConfig {
    // Time-outs are not adapted, so that they are known in advance.
    NetworkConfig { request_timeout: S * 2, soft_timeout: S, min_timeout: S * 2, ..NetworkConfig::default() }
}

fn requests(out: &Batch<Outbound<Tiny>>) -> Vec<Stamped<Request<Tiny>>> {
    let request = |out: &Stamped<Outbound<Tiny>>| match &out.event {
        Outbound::Request(event) => {
            Some(Stamped { event: event.clone(), context: out.context.clone(), deadline: out.deadline })
        }
        _ => None,
    };
    out.iter().filter_map(request).collect()
}

fn of(out: &Batch<Outbound<Tiny>>, initiator: Initiator) -> Vec<Request<Tiny>> {
    requests(out)
        .into_iter()
        .map(|stamped| stamped.event)
        .filter(|request| request.initiator == initiator)
        .collect()
}

fn answered(request: RequestId, closer: &[u8]) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Response(Response::answered(request, closer.iter().copied().map(node).collect())))
}

/// Only the given parts of the maintenance, with round intervals.
fn config(include: bool, probe: bool) -> Config {
    let routing = RoutingConfig {
        include: include.then(IncludeConfig::default),
        probe: probe.then(|| ProbeConfig { interval: S * 60, ..ProbeConfig::default() }),
        ..RoutingConfig::off()
    };
    Config { network: network(), routing, ..Config::default() }
}

fn connected(key: u8) -> Stamped<Inbound<Tiny>> {
    Stamped::new(Inbound::Routing(RoutingInbound::Connected { node: node(key), round_trip: None }))
}

// Defects of an earlier implementation.

#[test]
fn a_bootstrap_that_times_out_is_idle_again() {
    let query = QueryConfig { timeout: S * 5, ..QueryConfig::default() };
    let mut machine = Bootstrap::<Tiny>::new(LOCAL, query, network(), &Secret::from_seed(0)).unwrap();
    let start = || Stamped::new(bootstrap::Inbound::Start { seeds: vec![node(1)] });
    let first = machine.handle(at(0), start());
    let bootstrap::Outbound::Request(request) = &first[0].event else { panic!("{first:?}") };
    let again = machine.handle(at(1), start());
    let refused = again.last().is_some_and(|out| matches!(out.event, bootstrap::Outbound::Refused(_)));
    assert!(refused, "{again:?}");
    // The answer names silent nodes, and the time runs out.
    let closer = (2..5).map(node).collect();
    let _ = machine
        .handle(at(1), Stamped::new(bootstrap::Inbound::Response(Response::answered(request.id, closer))));
    let out = machine.handle(at(5), Stamped::new(bootstrap::Inbound::Tick));
    let Some(Stamped { event: bootstrap::Outbound::Finished(finish), .. }) = out.last() else {
        panic!("{out:?}")
    };
    assert_eq!((finish.outcome, finish.closest.len()), (Outcome::DeadlineExceeded, 1));
    assert!(!machine.is_running());
    // A late answer is ignored; then the next bootstrap can start.
    let late = bootstrap::Inbound::Response(Response::answered(request.id, vec![node(9)]));
    assert!(machine.handle(at(6), Stamped::new(late)).is_empty());
    let out = machine.handle(at(7), start());
    assert!(matches!(out[0].event, bootstrap::Outbound::Request(_)) && machine.is_running());
}

#[test]
fn explore_ignores_a_late_answer_and_orders_candidates_by_the_explored_key() {
    let schedule = Schedule::Dynamic { interval: S * 60, multiplier: 0, jitter: 0 };
    let config = ExploreConfig { schedule, max_cpl: 0, timeout: S * 5 };
    // It starts with 2k nodes, fewer than there are.
    let query = QueryConfig { alpha: 1, k: 2, ..QueryConfig::default() };
    let mut machine = Explore::<Tiny>::new(LOCAL, config, query, network(), &Secret::from_seed(7)).unwrap();
    for key in 0..20 {
        let _ = machine.handle(at(0), Stamped::new(explore::Inbound::Add(node(key * 12))));
    }
    assert_eq!(machine.poll_timeout(), Some(at(60)));
    let out = machine.handle(at(60), Stamped::new(explore::Inbound::Tick));
    let [Stamped { event: explore::Outbound::Request(request), context, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(matches!(context, Context::Link(_)));
    assert_eq!(request.target.common_prefix_len(&LOCAL), 0);
    let closest =
        machine.table().iter().map(|record| *record.node()).min_by_key(|n| n.distance(&request.target));
    assert_eq!(Some(request.node), closest, "closest to the explored key, not to ourselves");
    let id = request.id;
    let out = machine.handle(at(65), Stamped::new(explore::Inbound::Tick));
    let explored = out.iter().any(|out| {
        matches!(out.event, explore::Outbound::Explored { cpl: 0, outcome: Outcome::DeadlineExceeded, .. })
    });
    assert!(explored, "{out:?}");
    let late = explore::Inbound::Response(Response::answered(id, vec![node(1)]));
    assert!(machine.handle(at(66), Stamped::new(late)).is_empty());
    assert_eq!(machine.poll_timeout(), Some(at(125)));
}

#[test]
fn requests_of_explore_link_to_the_answer_that_led_to_them() {
    let schedule = Schedule::NoWait;
    let config = ExploreConfig { schedule, max_cpl: 0, timeout: S * 5 };
    let mut machine =
        Explore::<Tiny>::new(LOCAL, config, QueryConfig::default(), network(), &Secret::from_seed(7))
            .unwrap();
    let out = machine.handle(at(0), Stamped::new(explore::Inbound::Add(node(1))).in_span(span(1)));
    let [Stamped { event: explore::Outbound::Request(request), context, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*context, Context::Link(SpanContext::NONE), "the schedule's work, not that of who was added");
    let answer = explore::Inbound::Response(Response::answered(request.id, vec![node(2)]));
    let out = machine.handle(at(0), Stamped::new(answer).in_span(span(2)));
    let linked = out.iter().all(|out| out.context == Context::Link(span(2)));
    assert!(linked && out.iter().any(|out| matches!(out.event, explore::Outbound::Request(_))), "{out:?}");
}

#[test]
fn silent_candidates_do_not_block_the_include_checks() {
    let mut machine =
        Include::<Tiny>::new(LOCAL, &IncludeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    for key in 1..=4 {
        let _ = machine.handle(at(0), Stamped::new(include::Inbound::Offer(node(key))).in_span(span(1)));
    }
    assert_eq!((machine.counts().in_flight, machine.counts().queued), (3, 1));
    assert_eq!(machine.poll_timeout(), Some(at(1)), "the soft limit");
    let mut out = machine.handle(at(1), Stamped::new(include::Inbound::Tick));
    let counts = machine.counts();
    assert_eq!((counts.in_flight, counts.listening, counts.queued), (4, 3, 0));
    assert_eq!(machine.poll_timeout(), Some(at(2)), "their deadlines, and the soft limit of the fourth");
    out.extend(machine.handle(at(2), Stamped::new(include::Inbound::Tick)));
    let rejected = out.iter().filter(|out| matches!(out.event, include::Outbound::Rejected(_))).count();
    let asked: Vec<_> = out
        .iter()
        .filter_map(|out| match &out.event {
            include::Outbound::Request(request) => Some((request.id, request.node, request.target)),
            _ => None,
        })
        .collect();
    assert_eq!((rejected, asked.len(), asked[0].1, asked[0].2), (3, 1, node(4), node(4)));
    let answer = include::Inbound::Response(Response::answered(asked[0].0, vec![LOCAL]));
    let out = machine.handle(at(2), Stamped::new(answer));
    assert!(matches!(out[0].event, include::Outbound::Passed { node: n, .. } if n == node(4)));
    assert_eq!(out[0].context, Context::Link(span(1)), "the link of its own offer");
}

#[test]
fn a_candidate_that_names_no_node_is_rejected() {
    let mut machine =
        Include::<Tiny>::new(LOCAL, &IncludeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let out = machine.handle(at(0), Stamped::new(include::Inbound::Offer(node(1))));
    let include::Outbound::Request(request) = &out[0].event else { panic!("{out:?}") };
    let answer = include::Inbound::Response(Response::answered(request.id, Vec::new()));
    let out = machine.handle(at(1), Stamped::new(answer));
    assert!(matches!(out[..], [Stamped { event: include::Outbound::Rejected(_), .. }]), "{out:?}");
    assert_eq!((machine.counts().passed, machine.counts().failed), (0, 1));
}

#[test]
fn a_probe_times_out_even_if_slots_are_free() {
    let config = ProbeConfig { interval: S * 60, ..ProbeConfig::default() };
    let mut machine = Probe::<Tiny>::new(LOCAL, &config, network(), &Secret::from_seed(0)).unwrap();
    // Both are due at once: the closer one comes first.
    for key in [0x01, 0xf1] {
        let _ = machine.handle(at(0), Stamped::new(probe::Inbound::Add(node(key))));
    }
    assert_eq!(machine.poll_timeout(), Some(at(60)));
    assert!(machine.handle(at(59), Stamped::new(probe::Inbound::Tick)).is_empty());
    let out = machine.handle(at(60), Stamped::new(probe::Inbound::Tick));
    let asked: Vec<_> = out
        .iter()
        .map(|out| match &out.event {
            probe::Outbound::Request(request) => request.node,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [node(0xf1), node(0x01)]);
    assert_eq!(machine.poll_timeout(), Some(at(62)));
    let out = machine.handle(at(62), Stamped::new(probe::Inbound::Tick));
    let missed = out.iter().filter(|out| matches!(out.event, probe::Outbound::Missed(_))).count();
    let cancelled = out.iter().filter(|out| matches!(out.event, probe::Outbound::Cancel(_))).count();
    assert_eq!((missed, cancelled), (2, 2));
    assert_eq!(machine.poll_timeout(), Some(at(72)), "asked again after the retry interval");
}

#[test]
fn a_query_cancelled_by_its_caller_does_not_make_probes_due() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(false, true), &Secret::from_seed(0)).unwrap();
    for key in 1..4 {
        let _ = machine.handle(at(0), connected(key));
    }
    let out = machine.handle(at(0), Stamped::new(Inbound::Start(Start::find(1, node(0)))));
    assert_eq!(requests(&out).len(), 3);
    let id = machine.operation(1).unwrap();
    let _ = machine.handle(at(1), Stamped::new(Inbound::Stop(id)));
    assert_eq!((machine.table().len(), machine.poll_timeout()), (3, Some(at(60))));
}

#[test]
fn a_time_out_of_a_query_causes_a_probe_that_decides() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(false, true), &Secret::from_seed(0)).unwrap();
    let _ = machine.handle(at(0), connected(1));
    let query = Stamped::new(Inbound::Start(Start::find(1, node(0)))).with_deadline(at(30)).in_span(span(5));
    let out = machine.handle(at(0), query);
    assert_eq!(requests(&out).len(), 1);
    let out = machine.handle(at(1), Stamped::new(Inbound::Tick));
    assert_eq!(requests(&out).len(), 1, "asked again at the soft limit");
    let out = machine.handle(at(2), Stamped::new(Inbound::Tick));
    let probes = of(&out, Initiator::Probe);
    assert_eq!((probes.len(), machine.table().len()), (1, 1), "{out:?}");
    let stamped =
        requests(&out).into_iter().find(|stamped| stamped.event.initiator == Initiator::Probe).unwrap();
    assert_eq!(stamped.context, Context::Link(span(5)), "a link to the query, no parent");
    assert_eq!(stamped.deadline, Some(at(4)), "a deadline of its own");
    // The node answers the probe and stays.
    let _ = machine.handle(at(3), answered(probes[0].id, &[]));
    assert_eq!((machine.table().len(), machine.poll_timeout()), (1, Some(at(63))));
    // Later it is dead: four probes, ten seconds apart. Others answer meanwhile, so it is not this node that is cut off.
    let mut removed = Vec::new();
    for second in 63..110 {
        let out = machine.handle(at(second), connected(2));
        removed.extend(
            out.iter()
                .filter(|o| matches!(o.event, Outbound::Routing(RoutingOutbound::Removed(_))))
                .map(|_| second),
        );
    }
    assert_eq!(removed, [63 + 2 + 3 * 12]);
    assert_eq!((machine.is_probed(&node(1)), machine.poll_timeout()), (Some(false), Some(at(109 + 60))));
}

#[test]
fn nodes_that_an_answer_names_are_checked_before_they_enter_the_table() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(true, false), &Secret::from_seed(0)).unwrap();
    let start = Start::find(1, node(0)).with_seeds(vec![node(9)]);
    let out = machine.handle(at(0), Stamped::new(Inbound::Start(start)).in_span(span(1)));
    let answer = answered(requests(&out)[0].event.id, &[0x80, REFUSED, 0xff]).in_span(span(2));
    let out = machine.handle(at(0), answer);
    let stamped = requests(&out);
    let check = stamped.iter().find(|stamped| stamped.event.initiator == Initiator::Include).unwrap();
    assert_eq!((check.event.node, check.event.target), (node(0x80), node(0x80)));
    assert_eq!(check.context, Context::Link(span(2)));
    assert_eq!(of(&out, Initiator::Include).len(), 1, "neither ourselves nor whom the family refuses");
    assert!(requests(&out).iter().all(|stamped| stamped.event.node != node(REFUSED)));
    assert!(machine.table().get(&node(0x80)).is_none() && machine.table().get(&node(9)).is_some());
    // The operation ends; the check goes on.
    let id = machine.operation(1).unwrap();
    let _ = machine.handle(at(1), Stamped::new(Inbound::Stop(id)));
    let _ = machine.handle(at(1), answered(check.event.id, &[1]));
    assert!(machine.table().get(&node(0x80)).is_some());
}

#[test]
fn who_found_a_full_bucket_is_checked_when_a_place_is_free() {
    let table = TableConfig { bucket_size: 2, ..TableConfig::default() };
    let config = Config { table, ..config(true, true) };
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    // The farthest bucket is full with the first two, and nearer ones are many enough that a third is no neighbour.
    let far: Vec<u8> = (0..=u8::MAX).filter(|key| node(*key).common_prefix_len(&LOCAL) == 0).collect();
    let near = (0..=u8::MAX).filter(|key| node(*key).common_prefix_len(&LOCAL) == 2);
    for key in near.take(2).chain(far[..3].iter().copied()) {
        let _ = machine.handle(at(0), connected(key));
    }
    let known = |machine: &Coordinator<Tiny>, key| machine.table().get(&node(key)).is_some();
    assert!(known(&machine, far[0]) && known(&machine, far[1]) && !known(&machine, far[2]));

    let gone = Stamped::new(Inbound::Routing(RoutingInbound::Gone(node(far[0])))).in_span(span(9));
    let out = machine.handle(at(1), gone);
    let [check] = &requests(&out)[..] else { panic!("{out:?}") };
    assert_eq!((check.event.node, check.event.initiator), (node(far[2]), Initiator::Include));
    assert_eq!(check.context, Context::Link(span(9)));
    let _ = machine.handle(at(1), answered(check.event.id, &[far[1]]));
    assert!(known(&machine, far[2]));
    // It waits no more.
    let out = machine.handle(at(2), Stamped::new(Inbound::Routing(RoutingInbound::Gone(node(far[1])))));
    assert!(requests(&out).is_empty(), "{out:?}");
}

#[test]
fn a_client_is_not_admitted() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(true, true), &Secret::from_seed(0)).unwrap();
    let _ = machine.handle(at(0), connected(1));
    let out = machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Client(node(1)))));
    assert!(
        matches!(out[..], [Stamped { event: Outbound::Routing(RoutingOutbound::Removed(n)), .. }] if n == node(1))
    );
    assert!(machine.handle(at(1), connected(1)).is_empty());
    assert!(
        machine.handle(at(1), Stamped::new(Inbound::Routing(RoutingInbound::Discovered(node(1))))).is_empty()
    );
    assert_eq!((machine.table().len(), machine.is_probed(&node(1))), (0, Some(false)));
}

#[test]
fn a_nearly_empty_table_bootstraps_from_its_seeds() {
    let bootstrap = BootstrapConfig { min_nodes: 2, ..BootstrapConfig::default() };
    let mut config = config(false, false);
    config.routing.bootstrap = Some(bootstrap);
    config.table.max_failures = 1;
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let out = machine.handle(at(0), Stamped::new(Inbound::Start(Start::bootstrap(1, LOCAL, vec![node(9)]))));
    // The seed names no nodes, and is admitted nevertheless.
    let out = machine.handle(at(0), answered(requests(&out)[0].event.id, &[]));
    let noticed =
        out.iter().any(|out| matches!(&out.event, Outbound::Routing(RoutingOutbound::Bootstrapped(b)) if b.operation.is_some()));
    assert!(noticed && machine.table().len() == 1, "{out:?}");
    let next = machine.poll_timeout().unwrap();
    assert!((at(10)..=at(13)).contains(&next), "one node is too few: the next bootstrap, at {next}");
    let _ = machine.handle(at(1), connected(8));
    assert_eq!(machine.poll_timeout(), None);
    let out = machine.handle(
        at(100),
        Stamped::new(Inbound::Routing(RoutingInbound::Disconnected(node(8)))).in_span(span(3)),
    );
    assert!(
        out.iter().any(|out| matches!(out.event, Outbound::Routing(RoutingOutbound::NearEmpty { nodes: 1 }))),
        "{out:?}"
    );
    let begun = of(&out, Initiator::Bootstrap);
    assert_eq!(begun.iter().map(|request| request.node).collect::<Vec<_>>(), [node(9)]);
    assert!(requests(&out).iter().all(|stamped| stamped.context == Context::Link(span(3))));
    let out = machine.handle(at(101), answered(begun[0].id, &[]));
    let noticed =
        out.iter().any(|out| matches!(&out.event, Outbound::Routing(RoutingOutbound::Bootstrapped(b)) if b.operation.is_none()));
    assert!(noticed && machine.routing_counts().automatic_bootstraps == 1);
}

#[test]
fn restored_nodes_are_probed_at_once() {
    let mut old = Coordinator::<Tiny>::new(LOCAL, config(true, true), &Secret::from_seed(0)).unwrap();
    for key in [1, 2, 0x80] {
        let _ = old.handle(at(10), connected(key));
    }
    let saved = old.snapshot(at(40));
    assert!(saved.iter().all(|saved| saved.age == S * 30) && saved.len() == 3);
    let mut new = Coordinator::<Tiny>::new(LOCAL, config(true, true), &Secret::from_seed(0)).unwrap();
    let out = new.handle(at(50), Stamped::new(Inbound::Routing(RoutingInbound::Restore(saved))));
    assert_eq!((new.table().len(), of(&out, Initiator::Probe).len()), (3, 3));
    assert!(new.table().iter().all(|record| record.last_seen() == at(20)));
}

#[test]
fn seeds_that_are_not_in_the_table_are_saved_and_restored_as_seeds() {
    let bootstrap = BootstrapConfig::default();
    let mut config = config(false, true);
    config.routing.bootstrap = Some(bootstrap);
    let mut old = Coordinator::<Tiny>::new(LOCAL, config.clone(), &Secret::from_seed(0)).unwrap();
    let _ = old.handle(at(10), Stamped::new(RoutingInbound::Seeds(vec![node(7), node(9)]).into()));
    let _ = old.handle(at(10), connected(7));
    let saved = old.snapshot(at(40));
    let is_seed = |saved: &SavedNode<Tiny>| saved.age >= SavedNode::<Tiny>::NEVER;
    assert_eq!(
        saved.iter().map(|saved| (saved.node, is_seed(saved))).collect::<Vec<_>>(),
        [(node(7), false), (node(9), true)]
    );
    let mut new = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let out = new.handle(at(50), Stamped::new(RoutingInbound::Restore(saved).into()).in_span(span(1)));
    // The seed does not enter the table, and the bootstrap asks it.
    assert_eq!((new.table().len(), of(&out, Initiator::Probe).len()), (1, 1));
    let asked = of(&out, Initiator::Bootstrap);
    assert!(asked.iter().any(|request| request.node == node(9)), "{asked:?}");
    assert!(new.snapshot(at(50)).iter().any(|saved| saved.node == node(9) && is_seed(saved)));
}

#[test]
fn the_explore_schedule_follows_its_formula() {
    let times = |jitter| {
        let schedule = Schedule::Dynamic { interval: S * 60, multiplier: 50, jitter };
        let config = ExploreConfig { schedule, max_cpl: 2, timeout: S };
        let mut machine =
            Explore::<Tiny>::new(LOCAL, config, QueryConfig::default(), network(), &Secret::from_seed(7))
                .unwrap();
        let _ = machine.handle(at(0), Stamped::new(explore::Inbound::Add(node(1))));
        let mut times = Vec::new();
        while times.len() < 5 {
            let wake = machine.poll_timeout().unwrap();
            for out in machine.handle(wake, Stamped::new(explore::Inbound::Tick)) {
                if let explore::Outbound::Explored { cpl, .. } = out.event {
                    times.push((cpl, wake));
                }
            }
        }
        times
    };
    // As no node answers, each lookup takes its maximum of one second. cpl 2 is due each 60 s, 1 each 90 s, 0 each
    // 120 s after that.
    assert_eq!(times(0), [(2, at(61)), (1, at(91)), (0, at(121)), (2, at(122)), (1, at(182))]);
    for ((cpl, late), (of, early)) in times(10).into_iter().zip(times(0)).take(3) {
        assert!(cpl == of && late > early && late <= early + S * 6, "{cpl}: {early} {late}");
    }
}

#[test]
fn the_longest_intervals_of_explore_mean_never() {
    // The first call has overflowed.
    let schedule =
        Schedule::Dynamic { interval: std::time::Duration::MAX, multiplier: 10_000, jitter: 10_000 };
    let config = ExploreConfig { schedule, ..ExploreConfig::default() };
    for seed in 0..8 {
        let mut machine = Explore::<Tiny>::new(
            LOCAL,
            config.clone(),
            QueryConfig::default(),
            network(),
            &Secret::from_seed(seed),
        )
        .unwrap();
        let out = machine.handle(at(1), Stamped::new(explore::Inbound::Add(node(1))));
        assert_eq!((out.len(), machine.poll_timeout()), (0, None));
    }
}

#[test]
fn a_bootstrap_refreshes_the_buckets_farther_than_the_closest_neighbour() {
    let mut config = config(false, false);
    config.routing.explore = Some(ExploreConfig::default());
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    // The seed shares four bits with the local key: buckets 0 to 4.
    let start = Start::bootstrap(1, LOCAL, vec![node(0b1111_0000)]);
    let mut out = machine.handle(at(0), Stamped::new(Inbound::Start(start)));
    let mut cpls = Vec::new();
    while let Some(stamped) = requests(&out).first() {
        let request = &stamped.event;
        if request.initiator == Initiator::Explore {
            cpls.push(request.target.common_prefix_len(&LOCAL));
        }
        out = machine.handle(at(0), answered(request.id, &[]));
    }
    assert_eq!((cpls, machine.routing_counts().refreshes), (vec![0, 1, 2, 3, 4], 5));
}

#[test]
fn refreshes_after_a_bootstrap_link_to_it_and_scheduled_ones_to_nothing() {
    let mut config = config(false, false);
    config.routing.explore = Some(ExploreConfig::default());
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let start = Stamped::new(Inbound::Start(Start::bootstrap(1, LOCAL, vec![node(0b1111_0000)])));
    let out = machine.handle(at(0), start.in_span(span(1)));
    // The bootstrap ends by this answer.
    let mut out = machine.handle(at(0), answered(requests(&out)[0].event.id, &[]).in_span(span(2)));
    let mut links = Vec::new();
    while links.len() < 6 {
        for stamped in requests(&out) {
            assert_eq!(stamped.event.initiator, Initiator::Explore);
            links.push(stamped.context);
        }
        out = match requests(&out).first() {
            Some(stamped) => machine.handle(at(0), answered(stamped.event.id, &[])),
            None => machine.handle(machine.poll_timeout().unwrap(), Stamped::new(Inbound::Tick)),
        };
    }
    // Buckets 0 to 4 now, and one later by the schedule.
    assert_eq!(links[..5], vec![Context::Link(span(2)); 5]);
    assert_eq!(links[5], Context::Link(SpanContext::NONE));
}

#[test]
fn a_check_yields_to_a_waiting_lookup_but_not_to_an_ended_one() {
    let mut config = config(true, false);
    config.network = NetworkConfig { max_in_flight: 1, max_queued: 0, ..network() };
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    // It would ask three nodes, and has room for one request.
    let start = Start::find(1, node(0)).with_seeds(vec![node(1), node(2), node(3)]);
    let out = machine.handle(at(0), Stamped::new(Inbound::Start(start)).with_deadline(at(5)));
    let first = requests(&out)[0].event.id;
    assert!(
        machine
            .handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Discovered(node(0x80)))))
            .is_empty()
    );
    let out = machine.handle(at(1), Stamped::new(Inbound::Response(Response::failed(first))));
    let owners: Vec<_> = requests(&out).iter().map(|stamped| stamped.event.initiator).collect();
    assert!(matches!(owners[..], [Initiator::Operation(_)]), "room goes to the lookup: {owners:?}");
    let out = machine.handle(at(1), Stamped::new(Inbound::Stop(machine.operation(1).unwrap())));
    let checks = of(&out, Initiator::Include);
    assert_eq!(checks.iter().map(|check| check.node).collect::<Vec<_>>(), [node(0x80)], "at once");
}

#[test]
fn a_bootstrap_of_the_caller_replaces_an_automatic_one() {
    let mut config = config(false, false);
    config.routing.bootstrap = Some(BootstrapConfig::default());
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let out = machine
        .handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Seeds(vec![node(7)]))).in_span(span(1)));
    assert_eq!(of(&out, Initiator::Bootstrap).len(), 1);
    let start = Stamped::new(Inbound::Start(Start::bootstrap(1, LOCAL, vec![node(9)])));
    let out = machine.handle(at(0), start.in_span(span(5)).with_deadline(at(30)));
    let id = machine.operation(1).unwrap();
    let cancelled: Vec<_> = out
        .iter()
        .filter_map(|out| match &out.event {
            Outbound::Cancel(cancel) => {
                Some((cancel.initiator, cancel.reason, out.context.parent().is_some()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(cancelled, [(Initiator::Bootstrap, CancelReason::OperationEnded, false)]);
    let begun = requests(&out);
    let mut asked: Vec<_> = begun.iter().map(|stamped| stamped.event.node).collect();
    asked.sort();
    assert_eq!(asked, [7, 9].map(node), "the seeds of both");
    for stamped in &begun {
        assert_eq!((stamped.event.initiator, &stamped.context), (Initiator::Operation(id), &span(5).into()));
    }
    let notices = |out: &Batch<Outbound<Tiny>>| {
        out.iter()
            .filter(|out| matches!(out.event, Outbound::Routing(RoutingOutbound::Bootstrapped(_))))
            .count()
    };
    assert_eq!(notices(&out), 0, "the one that gave way says nothing");
    // Both seeds are asked, each once.
    let first = machine.handle(at(0), answered(begun[0].event.id, &[]));
    let last = machine.handle(at(0), answered(begun[1].event.id, &[]));
    assert_eq!((notices(&first), notices(&last), machine.table().len()), (0, 1, 2));
    let next = machine.poll_timeout().unwrap();
    assert!((at(10)..=at(13)).contains(&next), "two are too few: the next, at {next}");
    assert_eq!(machine.routing_counts().automatic_bootstraps, 1);
}

#[test]
fn a_lookup_of_the_maintenance_cannot_be_stopped() {
    let mut config = config(false, false);
    config.routing.bootstrap = Some(BootstrapConfig::default());
    let mut machine = Maintenance::<Tiny>::new(LOCAL, config.clone().into(), &Secret::from_seed(0)).unwrap();
    // The id of an operation of another machine, which is equal inside to the id of one of ours.
    let bootstrap = maintenance::Inbound::Bootstrap { tag: 0, seeds: vec![node(1)] };
    let mut other = Maintenance::<Tiny>::new(LOCAL, config.into(), &Secret::from_seed(0)).unwrap();
    let _ = other.handle(at(0), Stamped::new(bootstrap));
    let _ = machine
        .handle(at(0), Stamped::new(maintenance::Inbound::Routing(RoutingInbound::Seeds(vec![node(7)]))));
    let forged = maintenance::Inbound::Stop(other.operation(0).unwrap());
    assert!(machine.handle(at(0), Stamped::new(forged)).is_empty());
    assert_eq!((machine.request_stats().in_flight, machine.request_stats().unknown), (1, 1));
}

#[test]
fn the_maintenance_works_without_a_coordinator() {
    let config = Config { network: network(), ..Config::default() };
    let mut machine = Maintenance::<Tiny>::new(LOCAL, config.into(), &Secret::from_seed(0)).unwrap();
    let join = maintenance::Inbound::Bootstrap { tag: 1, seeds: vec![node(1)] };
    let mut said = machine.handle(at(0), Stamped::new(join).in_span(span(1)).with_deadline(at(30)));
    let mut finishes = Vec::new();
    let mut now = at(0);
    while now < at(60) {
        let mut requests = Vec::new();
        for Stamped { event, context, deadline } in said.drain(..) {
            match event {
                maintenance::Outbound::Request(request) => requests.push(request.id),
                maintenance::Outbound::Finished(finish) => finishes.push((finish.outcome, context, deadline)),
                _ => {}
            }
        }
        for request in requests {
            let closer = [1, 0x21, 0x42, 0x83, 0xc4].map(node).to_vec();
            said.extend(machine.handle(
                now,
                Stamped::new(maintenance::Inbound::Response(Response::answered(request, closer))),
            ));
        }
        if said.is_empty() {
            now = machine.poll_timeout().unwrap();
            said = machine.handle(now, Stamped::new(maintenance::Inbound::Tick));
        }
    }
    assert_eq!(finishes, [(Outcome::AllFound, Context::Parent(span(1)), Some(at(30)))]);
    assert_eq!((machine.table().len(), machine.routing_counts().probe.nodes), (5, 5));
    assert!(machine.routing_counts().refreshes > 0 && machine.routing_counts().automatic_bootstraps == 0);
}

#[test]
fn further_time_outs_do_not_advance_the_retry_of_a_failed_probe() {
    let mut machine =
        Probe::<Tiny>::new(LOCAL, &ProbeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let _ = machine.handle(at(0), Stamped::new(probe::Inbound::Add(node(1))));
    let suspect = || Stamped::new(probe::Inbound::Suspect(node(1)));
    assert_eq!(machine.handle(at(1), suspect()).len(), 1);
    let _ = machine.handle(at(3), Stamped::new(probe::Inbound::Tick));
    assert!(machine.handle(at(4), suspect()).is_empty());
    assert_eq!(machine.poll_timeout(), Some(at(13)));
}

#[test]
fn nothing_is_due_at_the_end_of_time() {
    let mut machine =
        Probe::<Tiny>::new(LOCAL, &ProbeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let late = Instant::from_nanos(u64::MAX - 1);
    let _ = machine.handle(late, Stamped::new(probe::Inbound::Add(node(1))));
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn an_answer_to_a_lookup_postpones_the_probe() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(true, true), &Secret::from_seed(0)).unwrap();
    let _ = machine.handle(at(0), connected(1));
    let out = machine.handle(at(30), Stamped::new(Inbound::Start(Start::find(1, node(0)))));
    // The answer names no nodes, but shows that the node is alive.
    let _ = machine.handle(at(30), answered(requests(&out)[0].event.id, &[]));
    assert_eq!(machine.poll_timeout(), Some(at(90)));
    assert_eq!(machine.table().get(&node(1)).unwrap().last_seen(), at(30));
}

#[test]
fn a_node_that_names_no_node_enters_a_table_that_is_not_small_only_as_a_bootstrap_seed() {
    let mut config = config(true, false);
    config.query.k = 1;
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    // While the table has fewer than k nodes, there may be nobody to name.
    let out = machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Discovered(node(0x10)))));
    let _ = machine.handle(at(0), answered(requests(&out)[0].event.id, &[]));
    assert!(machine.table().get(&node(0x10)).is_some());
    let of_node = |out: &Batch<Outbound<Tiny>>, key| {
        requests(out).into_iter().find(|stamped| stamped.event.node == node(key)).unwrap().event.id
    };
    let start = |start: Start<Tiny>, seed| Stamped::new(Inbound::Start(start.with_seeds(vec![node(seed)])));
    // A seed of another lookup.
    let out = machine.handle(at(0), start(Start::find(1, node(0)), 7));
    let _ = machine.handle(at(0), answered(of_node(&out, 7), &[]));
    // A node that a bootstrap only heard of, and a node that is being checked.
    let out = machine.handle(at(0), start(Start::find(2, LOCAL), 0xf8));
    let out = machine.handle(at(0), answered(of_node(&out, 0xf8), &[0xfc]));
    assert_eq!(requests(&out).len(), 2);
    for stamped in requests(&out) {
        assert_eq!(stamped.event.node, node(0xfc));
        let _ = machine.handle(at(0), answered(stamped.event.id, &[]));
    }
    // A seed of a bootstrap.
    let out = machine.handle(at(0), start(Start::find(3, LOCAL), 0xfe));
    let _ = machine.handle(at(0), answered(of_node(&out, 0xfe), &[]));
    let mut known: Vec<_> = machine.table().iter().map(|record| *record.node()).collect();
    known.sort();
    assert_eq!(known, [node(0x10), node(0xf8), node(0xfe)]);
}

#[test]
fn one_answer_fills_at_most_half_of_the_share_of_answers() {
    let mut config = config(true, false);
    config.routing.include = Some(IncludeConfig { max_queued: 16, ..IncludeConfig::default() });
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let start = Start::find(1, node(0)).with_seeds(vec![node(9)]);
    let out = machine.handle(at(0), Stamped::new(Inbound::Start(start)));
    let named: Vec<_> = (20..40).collect();
    let _ = machine.handle(at(0), answered(requests(&out)[0].event.id, &named));
    let counts = machine.routing_counts().include;
    assert_eq!((counts.offered, counts.in_flight, counts.queued, counts.dropped), (20, 3, 2, 15));
}

#[test]
fn a_candidate_can_be_offered_again_once_its_check_has_ended() {
    let mut machine =
        Include::<Tiny>::new(LOCAL, &IncludeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let offer = || Stamped::new(include::Inbound::Offer(node(1)));
    assert_eq!(machine.handle(at(0), offer()).len(), 1);
    assert!(machine.handle(at(1), offer()).is_empty());
    let _ = machine.handle(at(2), Stamped::new(include::Inbound::Tick));
    assert_eq!(machine.handle(at(3), offer()).len(), 1);
    assert_eq!((machine.counts().duplicate, machine.counts().failed), (1, 1));
}

/// Gives the events to the machine from `from` on, each one time-out after the last. Returns how many checks
/// began.
fn checks(machine: &mut Include<Tiny>, from: u64, events: &[include::Inbound<Tiny>]) -> usize {
    let asks =
        |stamped: &Stamped<include::Outbound<Tiny>>| matches!(stamped.event, include::Outbound::Request(_));
    let mut count = 0;
    for (event, time) in events.iter().zip((from..).step_by(2)) {
        count += machine.handle(at(time), Stamped::new(event.clone())).iter().filter(|it| asks(it)).count();
    }
    let _ = machine.handle(at(from + 2 * events.len() as u64), Stamped::new(include::Inbound::Tick));
    count
}

#[test]
fn after_two_failed_checks_a_node_is_backed_off_unless_heard_from() {
    use include::Inbound::{Heard, Offer};
    let mut machine =
        Include::<Tiny>::new(LOCAL, &IncludeConfig::default(), network(), &Secret::from_seed(0)).unwrap();
    let offers = |count| vec![Offer(node(1)); count];
    assert_eq!(checks(&mut machine, 0, &offers(9)), 2, "one failure may be a lost message");
    assert_eq!((machine.counts().backed_off, machine.counts().failed), (7, 2));
    assert_eq!(checks(&mut machine, 100, &[Offer(node(2))]), 1, "that is said of nobody else");
    // The check failed at 4 s, and again five minutes later.
    assert_eq!(checks(&mut machine, 303, &offers(1)), 0);
    assert_eq!(checks(&mut machine, 305, &offers(5)), 1);
    assert_eq!(checks(&mut machine, 400, &[Heard(node(1)), Offer(node(1)), Offer(node(1))]), 2);
    // An answer clears the failures.
    let out = machine.handle(at(500), Stamped::new(Heard(node(1))));
    let include::Outbound::Request(request) = &out[0].event else { panic!("{out:?}") };
    let answer = include::Inbound::Response(Response::answered(request.id, vec![LOCAL]));
    let _ = machine.handle(at(500), Stamped::new(answer));
    assert_eq!(checks(&mut machine, 501, &offers(3)), 2);
}

#[test]
fn only_the_latest_failed_candidates_are_remembered() {
    for (max_failed, again) in [(0, 3), (1, 3), (2, 2), (3, 2)] {
        let config = IncludeConfig { max_failed, ..IncludeConfig::default() };
        let mut machine = Include::<Tiny>::new(LOCAL, &config, network(), &Secret::from_seed(0)).unwrap();
        let offer = |key| include::Inbound::Offer(node(key));
        let of_one = checks(&mut machine, 0, &[offer(1), offer(1)]);
        let both = checks(&mut machine, 10, &[offer(2), offer(1)]);
        assert_eq!(of_one + both - 1, again, "{max_failed}");
    }
    // A node that fails twice takes one place.
    let config = IncludeConfig { max_failed: 1, ..IncludeConfig::default() };
    let mut machine = Include::<Tiny>::new(LOCAL, &config, network(), &Secret::from_seed(0)).unwrap();
    assert_eq!(checks(&mut machine, 0, &vec![include::Inbound::Offer(node(1)); 4]), 2);
}

#[test]
fn dead_nodes_that_others_keep_naming_are_backed_off() {
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config(true, false), &Secret::from_seed(0)).unwrap();
    let names = |machine: &mut Coordinator<Tiny>, time: u64| {
        let start = Start::find(time, node(0)).with_seeds(vec![node(9)]);
        let out = machine.handle(at(time), Stamped::new(Inbound::Start(start)));
        let lookup = |stamped: &&Stamped<Request<Tiny>>| stamped.event.initiator.operation().is_some();
        let id = requests(&out).iter().find(lookup).unwrap().event.id;
        let _ = machine.handle(at(time), answered(id, &[0xf0]));
        let _ = machine.handle(at(time + 4), Stamped::new(Inbound::Tick));
        machine.routing_counts().include.failed
    };
    let failed: Vec<_> = (0..4).map(|round| names(&mut machine, 1 + 5 * round)).collect();
    assert_eq!(failed, [1, 2, 2, 2]);
    let _ = machine.handle(at(50), Stamped::new(Inbound::Routing(RoutingInbound::Discovered(node(0xf0)))));
    let _ = machine.handle(at(54), Stamped::new(Inbound::Tick));
    assert_eq!(machine.routing_counts().include.failed, 3, "it has asked us something, so it is checked");
    assert_eq!(names(&mut machine, 60), 4);
    assert_eq!(names(&mut machine, 70), 4);
}

#[test]
fn silent_candidates_do_not_lengthen_time_outs() {
    // Otherwise, flooding a node with made-up candidates would slow all its lookups down.
    let mut config = config(true, false);
    config.network = NetworkConfig::default();
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let near =
        |key| Inbound::Routing(RoutingInbound::Connected { node: node(key), round_trip: Some(S / 100) });
    for key in 1..=40 {
        let _ = machine.handle(at(0), Stamped::new(near(key)));
    }
    for (key, quarter) in (0x80..0xf0).zip(0..) {
        let discovered = Inbound::Routing(RoutingInbound::Discovered(node(key)));
        let _ = machine.handle(at(0) + S / 4 * quarter, Stamped::new(discovered));
    }
    while machine.routing_counts().include.failed < 60 {
        let wake = machine.poll_timeout().unwrap();
        let _ = machine.handle(wake, Stamped::new(Inbound::Tick));
    }
    let now = at(100);
    let _ = machine.handle(now, Stamped::new(Inbound::Tick));
    let out = machine.handle(now, Stamped::new(Inbound::Start(Start::find(1, node(0)))));
    let lookups = requests(&out).into_iter().filter(|stamped| stamped.event.initiator.operation().is_some());
    assert_eq!(lookups.count(), 3);
    // The least soft limit, as all round trips that are known are short: a third of `min_timeout`.
    assert_eq!(machine.poll_timeout(), Some(now + S / 12));
}

#[test]
fn near_empty_is_reported_once_and_the_latest_seeds_are_kept() {
    let mut config = config(false, false);
    config.routing.bootstrap =
        Some(BootstrapConfig { min_nodes: 3, max_seeds: 2, ..BootstrapConfig::default() });
    config.table.max_failures = 1;
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    for key in 1..=3 {
        let _ = machine.handle(at(0), connected(key));
    }
    let _ =
        machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Seeds(vec![node(7), node(8)]))));
    let _ = machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Seeds(vec![node(9)]))));
    let mut gone = |key, second| {
        machine.handle(at(second), Stamped::new(Inbound::Routing(RoutingInbound::Disconnected(node(key)))))
    };
    let (first, second) = (gone(1, 100), gone(2, 101));
    let notices = |out: &Batch<Outbound<Tiny>>| {
        out.iter()
            .filter(|out| matches!(out.event, Outbound::Routing(RoutingOutbound::NearEmpty { .. })))
            .count()
    };
    assert_eq!((notices(&first), notices(&second)), (1, 0));
    // One began while the table was being filled; the next comes a minute after it.
    let mut asked = Vec::new();
    while asked.is_empty() {
        let out = machine.handle(machine.poll_timeout().unwrap(), Stamped::new(Inbound::Tick));
        asked.extend(of(&out, Initiator::Bootstrap).iter().map(|request| request.node));
    }
    asked.sort();
    assert_eq!(asked, [3, 8, 9].map(node), "who is left, and the latest two seeds");
}

#[test]
fn no_wake_up_at_the_end_of_time() {
    let config = Config { network: network(), ..Config::default() };
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let _ = machine.handle(at(0), connected(1));
    let _ = machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Seeds(vec![node(2)]))));
    let _ = machine
        .handle(Instant::FAR_FUTURE, Stamped::new(Inbound::Routing(RoutingInbound::Discovered(node(7)))));
    let _ = machine.handle(Instant::FAR_FUTURE, Stamped::new(Inbound::Tick));
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn an_invalid_backoff_configuration_names_its_field() {
    let never = IncludeConfig { retry_interval: core::time::Duration::ZERO, ..IncludeConfig::default() };
    let many = IncludeConfig { max_failed: (1 << 20) + 1, ..IncludeConfig::default() };
    for (field, config) in [("include.retry_interval", never), ("include.max_failed", many)] {
        assert_eq!(config.validate().unwrap_err().field(), field);
    }
}

/// A machine whose only maintenance is this schedule of explore.
fn exploring(schedule: Schedule) -> Coordinator<Tiny> {
    let mut config = config(false, false);
    config.table.bucket_size = 4;
    (config.table.max_per_group, config.table.max_per_group_in_bucket) = (20, 20);
    config.routing.explore = Some(ExploreConfig { schedule, ..ExploreConfig::default() });
    Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap()
}

/// Answers every request, naming nobody, and wakes the machine when it wants to be, until this time. Returns what was
/// looked up, by the number of bits shared with the own key, and the links of the lookups' first requests.
fn lookups_until(
    machine: &mut Coordinator<Tiny>,
    mut out: Batch<Outbound<Tiny>>,
    mut now: Instant,
    end: Instant,
) -> Vec<(u32, Context)> {
    let mut lookups = Vec::new();
    loop {
        let begun = |machine: &Coordinator<Tiny>| {
            machine.routing_counts().refreshes + machine.routing_counts().own_lookups
        };
        for stamped in requests(&out) {
            if begun(machine) > lookups.len() as u64 {
                lookups.push((stamped.event.target.common_prefix_len(&LOCAL), stamped.context.clone()));
            }
        }
        // All of one lookup are answered before the next begins.
        let mut next = Batch::new();
        for stamped in requests(&out) {
            for out in machine.handle(now, answered(stamped.event.id, &[])) {
                next.push(out);
            }
        }
        out = next;
        if !requests(&out).is_empty() {
            continue;
        }
        match machine.poll_timeout().filter(|at| *at <= end) {
            None => return lookups,
            Some(at) => {
                now = at;
                out = machine.handle(now, Stamped::new(Inbound::Tick));
                assert!(!out.is_empty(), "a wake-up that does nothing");
            }
        }
    }
}

#[test]
fn buckets_where_nobody_can_be_are_not_refreshed_and_the_own_key_is_looked_up() {
    let hourly = Schedule::Dynamic { interval: S * 3_600, multiplier: 100, jitter: 10 };
    let mut machine = exploring(hourly);
    // Bucket 1 is full, with room for four nodes: two are to be expected in bucket 2. One is in bucket 5.
    for key in [0, 1, 2, 3, 0b1000_0000, 0b1000_0001, 0b1000_0010, 0b1000_0011, 0b1111_1000] {
        let _ = machine.handle(at(0), connected(key));
    }
    let day = at(24 * 3_600);
    let lookups = lookups_until(&mut machine, Batch::new(), at(0), day);
    let of = |cpl: u32| lookups.iter().filter(|(of, _)| *of == cpl).count() as u64;
    // Nobody was found in bucket 2, so it is not refreshed again.
    assert_eq!([2, 3, 4, 6, 7].map(of), [1, 0, 0, 0, 0], "{lookups:?}");
    for cpl in 0..8 {
        assert_eq!(machine.refreshes(cpl), of(cpl));
    }
    // The own key shares all eight bits with itself.
    let own = machine.routing_counts().own_lookups;
    assert!(of(8) == own && (20..=24).contains(&own), "{own} lookups of the own key");
    assert!(of(0) >= 2 && of(1) >= 3 && of(5) >= 7, "{lookups:?}");
    assert_eq!(machine.routing_counts().refreshes + own, lookups.len() as u64);
    assert!(lookups.iter().all(|(_, context)| *context == Context::Link(SpanContext::NONE)));

    // A node enters bucket 4, which has been due for a day.
    let out = machine.handle(day, connected(0b1111_0000).in_span(span(3)));
    let [Stamped { event: request, context, .. }, ..] = &requests(&out)[..] else { panic!("{out:?}") };
    assert_eq!((request.target.common_prefix_len(&LOCAL), context), (4, &Context::Link(span(3))));
}

#[test]
fn an_empty_table_looks_nobody_up() {
    let mut machine = exploring(Schedule::NoWait);
    let out = machine.handle(at(0), Stamped::new(Inbound::Tick));
    assert!(out.is_empty() && machine.poll_timeout().is_none());
    let _ = machine.handle(at(0), connected(0));
    let _ = machine.handle(at(0), Stamped::new(Inbound::Routing(RoutingInbound::Client(node(0)))));
    // The lookup that had begun ends; no other begins.
    lookups_until(&mut machine, Batch::new(), at(0), at(100));
    assert_eq!((machine.routing_counts().refreshes, machine.poll_timeout()), (1, None));
}

#[test]
fn refreshes_without_a_pause_take_the_buckets_in_turn_while_the_clock_stands() {
    let config = ExploreConfig { schedule: Schedule::NoWait, ..ExploreConfig::default() };
    let mut machine =
        Explore::<Tiny>::new(LOCAL, config, QueryConfig::default(), network(), &Secret::from_seed(7))
            .unwrap();
    let mut out = Batch::new();
    for bit in 0..8 {
        let said = machine.handle(at(0), Stamped::new(explore::Inbound::Add(node(0xff ^ (0x80 >> bit)))));
        said.into_iter().for_each(|stamped| out.push(stamped));
    }
    let mut explored = Vec::new();
    while explored.len() < 24 {
        let mut next = Batch::new();
        for stamped in out {
            match stamped.event {
                explore::Outbound::Request(request) => {
                    let answer = explore::Inbound::Response(Response::answered(request.id, Vec::new()));
                    machine.handle(at(0), Stamped::new(answer)).into_iter().for_each(|said| next.push(said));
                }
                explore::Outbound::Explored { cpl, .. } => explored.push(cpl),
                explore::Outbound::Cancel(_) => {}
            }
        }
        out = next;
    }
    assert_eq!(explored[..24], [0, 1, 2, 3, 4, 5, 6, 7].repeat(3));
}

#[test]
fn a_new_identity_is_looked_up_where_no_bootstrap_does_it() {
    let hourly = Schedule::Dynamic { interval: S * 3_600, multiplier: 100, jitter: 10 };
    let mut machine = exploring(hourly);
    let _ = machine.handle(at(0), connected(0));
    let event = Stamped::new(Inbound::Routing(RoutingInbound::Identity(node(0x0f)))).in_span(span(1));
    let out = machine.handle(at(1), event);
    let [Stamped { event: request, context, .. }] = &requests(&out)[..] else { panic!("{out:?}") };
    assert_eq!((request.target, request.initiator), (node(0x0f), Initiator::Explore));
    assert_eq!(*context, Context::Link(span(1)));
    assert_eq!((machine.routing_counts().own_lookups, machine.routing_counts().refreshes), (1, 0));
}

#[test]
fn few_nodes_that_bootstrap_again_and_again_are_not_refreshed_each_time() {
    let mut config = config(false, false);
    config.routing.bootstrap = Some(BootstrapConfig::default());
    config.routing.explore = Some(ExploreConfig::default());
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    let mut out = machine.handle(at(0), connected(0));
    let mut sent = 0;
    loop {
        sent += requests(&out).len();
        let mut next = Batch::new();
        for stamped in requests(&out) {
            let said = machine.handle(machine_time(&stamped), answered(stamped.event.id, &[]));
            said.into_iter().for_each(|said| next.push(said));
        }
        out = next;
        if requests(&out).is_empty() {
            let Some(wake) = machine.poll_timeout().filter(|wake| *wake < at(3_600)) else { break };
            out = machine.handle(wake, Stamped::new(Inbound::Tick));
        }
    }
    let counts = machine.routing_counts();
    assert!(
        counts.automatic_bootstraps > 1 && counts.refreshes <= 3 && counts.own_lookups == 0,
        "{counts:?}"
    );
    assert_eq!(sent as u64, counts.automatic_bootstraps + counts.refreshes);
}

/// When a request was sent: its deadline less the time-out of requests.
fn machine_time(request: &Stamped<Request<Tiny>>) -> Instant {
    Instant::ORIGIN + (request.deadline.unwrap() - at(2))
}

#[test]
fn a_bootstrap_that_an_event_begins_in_its_own_call_links_to_it() {
    let saved = SavedNode::<Tiny> { node: node(1), age: S, round_trip: None };
    let events: [Inbound<Tiny>; 4] = [
        Inbound::Routing(RoutingInbound::Seeds(vec![node(1)])),
        Inbound::Routing(RoutingInbound::Restore(vec![saved])),
        Inbound::Routing(RoutingInbound::Connected { node: node(1), round_trip: None }),
        // The answer that brings the first node; the lookup's seeds are not remembered.
        Inbound::Start(Start::find(1, node(0)).with_seeds(vec![node(1)])),
    ];
    for event in events {
        let mut config = config(false, false);
        config.routing.bootstrap = Some(BootstrapConfig::default());
        let mut machine = Coordinator::<Tiny>::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
        let is_lookup = matches!(event, Inbound::Start(_));
        let mut out = machine.handle(at(1), Stamped::new(event).in_span(span(1)));
        if is_lookup {
            let asked = requests(&out);
            out = machine.handle(at(1), answered(asked[0].event.id, &[2]).in_span(span(1)));
        }
        let begun: Vec<_> = requests(&out);
        let begun = begun.iter().filter(|stamped| stamped.event.initiator == Initiator::Bootstrap);
        let links: Vec<_> = begun.map(|stamped| stamped.context.clone()).collect();
        assert!(!links.is_empty() && links.iter().all(|link| *link == Context::Link(span(1))), "{links:?}");
        // The next one follows from time alone.
        for stamped in requests(&out) {
            let _ =
                machine.handle(at(1), Stamped::new(Inbound::Response(Response::failed(stamped.event.id))));
        }
        if let Some(wake) = machine.poll_timeout() {
            let out = machine.handle(wake, Stamped::new(Inbound::Tick));
            let begun = requests(&out);
            let linked = |stamped: &Stamped<Request<Tiny>>| stamped.context.link().is_some();
            let bootstraps =
                |stamped: &&Stamped<Request<Tiny>>| stamped.event.initiator == Initiator::Bootstrap;
            assert!(!begun.iter().filter(bootstraps).any(linked), "{out:?}");
        }
    }
}

#[test]
fn the_quiet_profile_is_valid() {
    assert_eq!(Config::quiet().validate(), Ok(()));
}
