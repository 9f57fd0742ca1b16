//! Answers in parts, as discv5's come.

use crate::discv5::{Discv5, Enr, packets};
use crate::network::Random;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    CancelReason, Config, Coordinator, Finish, Instant, Key256, Machine, NetworkConfig, RequestId,
    RequestOutcome, Response, RoutingConfig, RoutingInbound, Secret, Stamped, Start,
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

type Out = Vec<Outbound<Discv5>>;

/// One node in the middle of a lookup that has asked its only seed, which is in its table.
struct Asking {
    engine: Coordinator<Discv5>,
    now: Instant,
    seed: Enr,
    request: RequestId,
    random: Random,
}

impl Asking {
    fn new(routing: RoutingConfig) -> Self {
        let mut random = Random(1);
        let (local, target): (Key256, Key256) = (random.key(), random.key());
        let config = Config { routing, ..Config::default() };
        let mut engine = Coordinator::new(local, config, &Secret::from_seed(1)).unwrap();
        let (now, seed) = (Instant::ORIGIN, Enr::random(&mut random));
        let connected = RoutingInbound::Connected { node: seed.clone(), round_trip: None };
        let _ = engine.handle(now, Stamped::new(connected.into()));
        let out = engine.handle(now, Stamped::new(Start::find(1, target).into()));
        let request = out.iter().find_map(|out| match &out.event {
            Outbound::Request(request) if request.initiator.operation().is_some() => Some(request.id),
            _ => None,
        });
        Self { request: request.unwrap(), engine, now, seed, random }
    }

    fn nodes(&mut self, count: usize) -> Vec<Enr> {
        (0..count).map(|_| Enr::random(&mut self.random)).collect()
    }

    fn submit(&mut self, after: Duration, event: impl Into<Inbound<Discv5>>) -> Out {
        self.now = self.now + after;
        let out = self.engine.handle(self.now, Stamped::new(event.into()));
        out.into_iter().map(|out| out.event).collect()
    }

    /// Ticks until a request of the lookup is cancelled, and returns what came out then.
    fn wait_for_cancel(&mut self) -> Out {
        loop {
            self.now = self.engine.poll_timeout().unwrap();
            let out = self.submit(Duration::ZERO, Inbound::Tick);
            if out.iter().any(|out| matches!(out, Outbound::Cancel(cancel) if cancel.id == self.request)) {
                return out;
            }
        }
    }
}

fn outcome(out: &Out, id: RequestId) -> RequestOutcome<Discv5> {
    let progress = out.iter().find_map(|out| match out {
        Outbound::Progress(progress) if progress.id == id => Some(progress.outcome.clone()),
        _ => None,
    });
    progress.expect("progress of the request")
}

fn cancels(out: &Out) -> Vec<CancelReason> {
    let reason = |out: &Outbound<Discv5>| match out {
        Outbound::Cancel(cancel) => Some(cancel.reason),
        _ => None,
    };
    out.iter().filter_map(reason).collect()
}

fn asked(out: &Out) -> usize {
    out.iter().filter(|out| matches!(out, Outbound::Request(_))).count()
}

#[test]
fn an_answer_is_complete_with_its_last_part() {
    let mut at = Asking::new(RoutingConfig::off());
    let nodes = at.nodes(12);
    let packets = packets(&nodes);
    for packet in &packets[..2] {
        let out = at.submit(20 * MS, Response::part(at.request, packet.clone()));
        assert!(out.is_empty(), "a part alone changes nothing: {out:?}");
    }
    let out = at.submit(20 * MS, Response::answered(at.request, packets[2].clone()));
    assert_eq!(outcome(&out, at.request), RequestOutcome::Answered { closer: nodes });
    assert_eq!(asked(&out), 3, "alpha of the nodes named are asked");
    let stats = at.engine.request_stats();
    assert_eq!((stats.answered, stats.timed_out, stats.cancelled), (1, 0, 0));
    let round_trip = at.engine.table().get(&at.seed).unwrap().round_trip();
    assert_eq!(round_trip, Some(20 * MS), "the round trip is that of the first part");
}

#[test]
fn a_part_that_is_lost_leaves_the_rest() {
    let mut at = Asking::new(RoutingConfig::default());
    let nodes = at.nodes(8);
    for packet in packets(&nodes) {
        at.submit(20 * MS, Response::part(at.request, packet));
    }
    let first = Instant::ORIGIN + 20 * MS;
    let out = at.wait_for_cancel();
    assert!(at.now - first <= Duration::from_millis(250), "it waits for the soft limit: {}", at.now);
    assert_eq!(cancels(&out), [CancelReason::Incomplete]);
    assert_eq!(outcome(&out, at.request), RequestOutcome::Incomplete { closer: nodes });
    let stats = at.engine.request_stats();
    assert_eq!((stats.answered, stats.timed_out), (1, 0));
    assert_eq!(at.engine.table().get(&at.seed).unwrap().failures(), 0);
    let asks_seed = |out: &Outbound<Discv5>| matches!(out, Outbound::Request(asked) if asked.node == at.seed);
    assert!(!out.iter().any(asks_seed), "the node is not suspected");
    // What comes later is late.
    let late = at.nodes(4);
    let out = at.submit(MS, Response::answered(at.request, late));
    assert!(out.is_empty() && at.engine.request_stats().late == 1);
}

#[test]
fn parts_without_end_are_bounded() {
    let mut at = Asking::new(RoutingConfig::off());
    let most = NetworkConfig::default().max_part_nodes;
    let (mut out, mut parts) = (Out::new(), 0);
    while out.is_empty() {
        let closer = at.nodes(16);
        out = at.submit(MS, Response::part(at.request, closer));
        parts += 1;
        assert!(parts < 1_000, "further parts do not extend the time");
    }
    assert_eq!(cancels(&out), [CancelReason::Incomplete]);
    let RequestOutcome::Incomplete { closer } = outcome(&out, at.request) else { panic!("{out:?}") };
    assert_eq!(closer.len(), most);
    // A part after the end is late.
    let closer = at.nodes(16);
    assert!(at.submit(MS, Response::part(at.request, closer)).is_empty());
    assert_eq!(at.engine.request_stats().late, 2, "the one that came in the call of the end, and this one");
}

#[test]
fn parts_and_a_stop() {
    let mut at = Asking::new(RoutingConfig::off());
    let closer = at.nodes(4);
    at.submit(MS, Response::part(at.request, closer));
    let id = at.engine.operation(1).unwrap();
    let out = at.submit(MS, Inbound::Stop(id));
    assert_eq!(cancels(&out), [CancelReason::OperationEnded]);
    let finish: Option<&Finish<_>> = out.iter().find_map(|out| match out {
        Outbound::Finished(finish) => Some(finish),
        _ => None,
    });
    assert!(finish.is_some() && at.engine.poll_timeout().is_none());
}

#[test]
fn a_check_whose_last_part_is_lost_is_passed() {
    let mut at =
        Asking::new(RoutingConfig { include: RoutingConfig::default().include, ..RoutingConfig::off() });
    let newcomer = at.nodes(1).remove(0);
    let out = at.submit(MS, RoutingInbound::Discovered(newcomer.clone()));
    let check = out.iter().find_map(|out| match out {
        Outbound::Request(request) if request.node == newcomer => Some(request.clone()),
        _ => None,
    });
    let check = check.unwrap();
    assert_eq!(check.target, newcomer.id, "it is asked about itself: its own record and one bucket more");
    at.submit(MS, Response::part(check.id, vec![newcomer.clone()]));
    while at.engine.table().get(&newcomer).is_none() {
        at.now = at.engine.poll_timeout().unwrap();
        at.submit(Duration::ZERO, Inbound::Tick);
    }
    assert!(at.now <= Instant::from_millis(300), "{}", at.now);
}
