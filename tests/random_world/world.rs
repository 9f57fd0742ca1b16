//! The world of a scenario: a small network, a driver that schedules its answers, and the machine under test.

use super::contract::build::{Build, In, Out};
use super::contract::test_family::{Net, Peer, Random, Tally, context, key};
use super::scenario::{MachineKind, Scenario, Step, time};
use kad_proto::broadcast::{StartBroadcast, Strategy, Success};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::StartCrawl;
use kad_proto::testing::{ContractChecker, RequestInFlight};
use kad_proto::{
    Answer, AnswerExtra, Bits, BroadcastPool, Config, Coordinator, Crawl, Failure, Instant, Key, OperationId,
    Query, QueryPool, Record, RequestId, Response, RoutingInbound, Stamped, Start, Verdict,
};
use std::time::Duration;

/// Plays a scenario; panics where the machine violates the contract. The calls are then replayed on a second
/// machine, and the second half on a clone taken in the middle: both must give equal outbound events.
pub(crate) fn run(scenario: &Scenario) -> Tally {
    match scenario.width {
        1 => play::<1>(scenario),
        20 => play::<20>(scenario),
        _ => play::<32>(scenario),
    }
}

fn play<const N: usize>(scenario: &Scenario) -> Tally {
    match scenario.kind {
        MachineKind::Query => World::<N, Query<Net<N>>>::play(scenario),
        MachineKind::Pool => World::<N, QueryPool<Net<N>>>::play(scenario),
        MachineKind::Coordinator => World::<N, Coordinator<Net<N>>>::play(scenario),
        MachineKind::Crawl => World::<N, Crawl<Net<N>>>::play(scenario),
        MachineKind::Broadcast => World::<N, BroadcastPool<Net<N>>>::play(scenario),
    }
}

/// Plays a scenario against the given type of machine.
pub(crate) fn run_on<const N: usize, S: Build<N>>(scenario: &Scenario) -> Tally {
    World::<N, S>::play(scenario)
}

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// With the closest of all nodes.
    Ideal,
    /// With some of the nodes.
    Partial,
    /// Never.
    Dead,
    /// With made-up nodes ever closer to the target, with itself, with the asking node, with one node repeated,
    /// with far too many nodes, or with none.
    Liar,
    /// As a node that was placed next to the target of an operation.
    Sybil(Manner),
}

/// What a Sybil does. It names other Sybils only, unless it is truthful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Accepts what it is to store, and has nothing.
    Hides,
    /// The same, and names all nodes that there are.
    HidesTruthfully,
    /// Has a value that is not valid, and is first to say so.
    Lies,
    /// Has an old value.
    Replays,
    /// Refuses whatever it is asked.
    Refuses,
}

/// What one Sybil after the other does; `None` is silent.
const MANNERS: [Option<Manner>; 8] = [
    Some(Manner::Hides),
    Some(Manner::Lies),
    Some(Manner::Replays),
    Some(Manner::HidesTruthfully),
    Some(Manner::Lies),
    Some(Manner::Refuses),
    None,
    Some(Manner::Hides),
];

/// So many Sybils there are at most in a world.
const MOST_SYBILS: usize = 60;

struct World<const N: usize, S> {
    machine: S,
    checker: ContractChecker<Net<N>>,
    config: Config,
    models: bool,
    local: Bits<N>,
    nodes: Vec<(Peer<N>, Behaviour)>,
    /// How many Sybils there are next to each target, and how many in all.
    sybils: (usize, usize),
    random: Random,
    now: Instant,
    /// By how many nanoseconds the caller's clock is behind for the next event.
    behind: u64,
    /// The kind of the machine.
    kind: MachineKind,
    /// Crawls are started.
    crawls: bool,
    spans: u64,
    operations: Vec<OperationId>,
    /// Ids of operations of another machine.
    foreign_ids: Vec<OperationId>,
    calls: Vec<(Instant, In<N>, Vec<Out<N>>)>,
}

impl<const N: usize, S: Build<N>> World<N, S> {
    fn play(scenario: &Scenario) -> Tally {
        let mut random = Random(scenario.seed);
        let local = if random.below(4) == 0 { Bits::new([0; N]) } else { key(&mut random) };
        let build = || S::build(local, scenario.config.clone()).expect("decoded configurations are valid");
        let nodes = (0..scenario.population).map(|place| {
            let peer = Peer { key: key(&mut random), address: random.byte() % 8 };
            let behaviour = match scenario.behaviours >> (place % 4 * 2) & 3 {
                0 => Behaviour::Ideal,
                1 => Behaviour::Partial,
                2 => Behaviour::Dead,
                _ => Behaviour::Liar,
            };
            (peer, behaviour)
        });
        let nodes = nodes.collect();
        let checker = ContractChecker::new(local, scenario.config.clone()).expect("likewise");
        let mut world = Self {
            machine: build(),
            checker: if scenario.models { checker } else { checker.without_models() },
            models: scenario.models,
            config: scenario.config.clone(),
            local,
            nodes,
            sybils: (scenario.sybils, 0),
            random,
            now: Instant::ORIGIN,
            behind: 0,
            kind: scenario.kind,
            crawls: scenario.crawls,
            spans: 0,
            operations: Vec::new(),
            foreign_ids: foreign_ids(build(), scenario.kind),
            calls: Vec::new(),
        };
        let middle = scenario.steps.len() / 2;
        let mut snapshot = None;
        for (place, step) in scenario.steps.iter().enumerate() {
            if place == middle {
                snapshot = Some((world.machine.clone(), world.calls.len()));
            }
            world.step(*step);
        }
        world.end();
        world.replay(build(), 0);
        if let Some((machine, from)) = snapshot {
            world.replay(machine, from);
        }
        world.checker.tally().clone()
    }

    /// Equal inbound events give equal outbound events.
    fn replay(&self, mut machine: S, from: usize) {
        for (now, event, out) in &self.calls[from..] {
            assert_eq!(
                machine.handle(*now, event.clone()),
                *out,
                "determinism: equal inbound events give equal outbound events: {event:?}"
            );
        }
    }

    /// Advances from wake-up to wake-up, and then to the end of time, until nothing is left.
    fn end(&mut self) {
        for _ in 0..20 {
            let Some(at) = self.machine.poll_timeout() else { break };
            self.now = self.now.max(at);
            self.tick();
        }
        self.now = Instant::FAR_FUTURE;
        self.tick();
        assert_eq!(self.checker.check_ended(Instant::FAR_FUTURE), Ok(()));
        assert_eq!(self.machine.poll_timeout(), None, "wake-up: none when nothing is left");
        let request_stats = self.machine.request_stats();
        assert_eq!((request_stats.in_flight, request_stats.queued), (0, 0), "deadline 5: no request is left");
    }

    fn call(&mut self, mut event: In<N>) {
        if self.kind == MachineKind::Crawl {
            event.event = without_extras(event.event);
        }
        let now = Instant::from_nanos(self.now.as_nanos().saturating_sub(self.behind));
        self.behind = 0;
        let out = self.checker.call(&mut self.machine, now, &event);
        for stamped in &out {
            if let Outbound::Started(started) = &stamped.event {
                self.operations.push(started.operation);
            }
        }
        self.calls.push((now, event, out));
    }

    fn tick(&mut self) {
        let tick = self.stamp(Inbound::Tick);
        self.call(tick);
    }

    /// Gives an event a new context: valid, with a trace state, or invalid in one of two ways.
    fn stamp(&mut self, event: Inbound<Net<N>>) -> In<N> {
        self.spans += 1;
        let context = context(self.random.byte(), u128::from(self.random.byte()) + 1_000, self.spans);
        Stamped { event, context, deadline: None }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start { tag, target, deadline, results, seeds, message, quorum } => {
                self.start(tag, target, deadline, results, seeds, message, quorum);
            }
            Step::Crawl { tag, deadline, seeds } => self.crawl(tag, deadline, seeds),
            Step::Broadcast { tag, target, deadline, how, seeds } => {
                self.broadcast(tag, target, deadline, how, seeds);
            }
            Step::Answer { request, lie, carries } => {
                if let Some((id, sent)) = self.outstanding(request) {
                    let behaviour = if lie >= 128 { Behaviour::Liar } else { self.behaviour(&sent.node) };
                    self.answer(id, &sent, behaviour, carries);
                }
            }
            Step::Fail { request, rejected } => {
                if let Some((id, _)) = self.outstanding(request) {
                    let why = id.to_u64();
                    let event = if rejected {
                        Inbound::Response(Response::rejected(id, why))
                    } else {
                        Inbound::Response(match why % 5 {
                            0 => Response::unreachable(id),
                            1 => Response::connection_refused(id),
                            2 => Response::gone(id),
                            _ => Response::failed(id),
                        })
                    };
                    let event = self.stamp(event);
                    self.call(event);
                }
            }
            Step::Late { request, failed } => {
                if let Some(id) = pick(self.checker.closed_requests(), request).copied() {
                    self.respond(id, failed);
                }
            }
            Step::Forged { id: [generation, slot, high] } => {
                let generation = u64::from(generation) | u64::from(high / 64) << 30;
                self.respond(RequestId::from_u64(generation << 32 | u64::from(slot)), high % 2 == 1);
            }
            Step::Stop { operation } => {
                if let Some(id) = pick(&self.operations, operation).copied() {
                    let event = self.stamp(Inbound::Stop(id));
                    self.call(event);
                }
            }
            Step::StopForged { tag } => {
                if let Some(id) =
                    pick(&self.foreign_ids, tag).copied().filter(|id| !self.operations.contains(id))
                {
                    let event = self.stamp(Inbound::Stop(id));
                    self.call(event);
                }
            }
            Step::Advance { by, tick } => {
                self.advance(by);
                if tick {
                    self.tick();
                }
            }
            Step::Backwards { by } => self.behind = time(by),
            Step::Connected { node } => {
                let node = self.some_node(node);
                let round_trip =
                    (node.address.is_multiple_of(2)).then(|| Duration::from_micros(u64::from(node.address)));
                let event = self.stamp(Inbound::Routing(RoutingInbound::Connected { node, round_trip }));
                self.call(event);
            }
            Step::Disconnected { node } => {
                let event = Inbound::Routing(RoutingInbound::Disconnected(self.some_node(node)));
                let event = self.stamp(event);
                self.call(event);
            }
            Step::Drive { calls, by } => self.drive(calls % 64, by),
        }
    }

    fn advance(&mut self, by: u8) {
        let wake = self.machine.poll_timeout();
        let far = self.operations.iter().rev().find_map(|id| self.checker.deadline(*id));
        self.now = match by / 16 {
            // Mostly by little; to the end of time only if the byte selects just that.
            0..=8 => self.now + Duration::from_nanos(time(by % 16).min(200_000)),
            9 | 10 => self.now + Duration::from_nanos(time(by)),
            11 | 12 => wake.unwrap_or(self.now).max(self.now),
            13 => (wake.unwrap_or(self.now) + Duration::from_nanos(1)).max(self.now),
            14 => far.unwrap_or(self.now).max(self.now),
            _ if by == 255 => Instant::FAR_FUTURE,
            _ => self.now,
        };
    }

    fn drive(&mut self, calls: u8, by: u8) {
        for _ in 0..calls {
            let live = self
                .checker
                .requests()
                .iter()
                .find(|(_, sent)| self.behaviour(&sent.node) != Behaviour::Dead);
            if let Some((id, sent)) = live.cloned() {
                self.now = self.now + Duration::from_nanos(time(by % 8));
                self.answer(id, &sent, self.behaviour(&sent.node), by);
            } else if let Some(at) = self.machine.poll_timeout() {
                self.now = self.now.max(at);
                self.tick();
            } else {
                return;
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of a step
    fn start(
        &mut self,
        tag: u8,
        target: u8,
        deadline: u8,
        results: u8,
        seeds: u8,
        message: bool,
        quorum: Option<usize>,
    ) {
        let target = match target {
            0..=3 => key(&mut self.random),
            4 => self.local,
            5 => Bits::new([0; N]),
            6 => Bits::new([0xff; N]),
            _ => self.some_node(target).key,
        };
        self.besiege(target);
        let (k, most) = (self.config.query.k, self.config.query.max_candidates);
        let num_results = match results {
            0..=2 => None,
            3 => Some(1),
            4 => Some(k + 1),
            5 => Some(most),
            6 => Some(0),
            _ => Some(if tag.is_multiple_of(2) { most + 1 } else { usize::MAX }),
        };
        let first = self.random.byte();
        let mut nodes: Vec<_> = (0..seeds).map(|offset| self.some_node(first.wrapping_add(offset))).collect();
        if seeds == 15 {
            nodes.push(Peer { key: self.local, address: 1 });
            nodes.extend_from_within(..);
        }
        let mut start =
            if message { Start::message(0, target, u64::from(first)) } else { Start::find(0, target) };
        start.tag = u64::from(tag);
        start.num_results = num_results;
        start.quorum = quorum;
        start.held = (first % 8 == 3).then(|| u64::from(first / 8 % 4));
        self.submit_start(Inbound::Start(start.with_seeds(nodes)), deadline);
    }

    fn crawl(&mut self, tag: u8, deadline: u8, seeds: u8) {
        let first = self.random.byte();
        let mut nodes: Vec<_> = (0..seeds).map(|offset| self.some_node(first.wrapping_add(offset))).collect();
        if seeds == 15 {
            nodes.push(Peer { key: self.local, address: 1 });
            nodes.push(Peer { key: key(&mut self.random), address: Peer::<N>::REFUSED });
            nodes.extend_from_within(..);
        }
        self.submit_start(Inbound::Crawl(StartCrawl::new(u64::from(tag)).with_seeds(nodes)), deadline);
    }

    fn broadcast(&mut self, tag: u8, target: u8, deadline: u8, how: u8, seeds: u8) {
        let first = self.random.byte();
        let mut nodes: Vec<_> = (0..seeds).map(|offset| self.some_node(first.wrapping_add(offset))).collect();
        if seeds == 15 {
            nodes.push(Peer { key: self.local, address: 1 });
            nodes.extend_from_within(..);
        }
        let target = match target {
            0..=24 => key(&mut self.random),
            25..=28 => self.some_node(target).key,
            29 => self.local,
            30 => Bits::new([0; N]),
            _ => Bits::new([0xff; N]),
        };
        self.besiege(target);
        // No message is used twice.
        self.spans += 1;
        let message = self.spans * 1_000;
        let population = self.nodes.len() as u64;
        let start = StartBroadcast::follow_up(u64::from(tag), target, message);
        let strategy = match how % 16 {
            0..=2 => Strategy::FollowUp,
            3 | 4 => Strategy::Static(std::mem::take(&mut nodes)),
            5..=7 => Strategy::Optimistic { nodes: Some(population) },
            8 => Strategy::Optimistic { nodes: Some(1) },
            9 => Strategy::Optimistic { nodes: Some(population * 10 + 1) },
            10 | 11 => Strategy::Optimistic { nodes: None },
            // The checker distinguishes a sweep's lookups by their targets, which edge probing hides.
            _ if self.config.query.edge_probing && self.models => Strategy::FollowUp,
            _ => Strategy::Sweep,
        };
        let mut start = start.with_strategy(strategy).with_seeds(nodes);
        if start.strategy == Strategy::Sweep || how == 255 {
            let more = self.random.below(12) as u64;
            for number in 1..more {
                let same = self.random.below(5) == 0;
                let key = if same { start.records[0].target } else { key(&mut self.random) };
                start.records.push(Record { target: key, message: message + number });
            }
        }
        if self.random.below(24) == 0 {
            start.records.clear();
        }
        start.success = match self.random.below(5) {
            0 => Success::Share(67),
            1 => Success::Count(3),
            2 => Success::Share(100),
            _ => Success::default(),
        };
        if how >= 192 {
            start = start.with_ask(u64::from(first));
        }
        self.submit_start(Inbound::Broadcast(start), deadline);
    }

    fn submit_start(&mut self, start: Inbound<Net<N>>, deadline: u8) {
        let mut event = self.stamp(start);
        // A new trace for each start.
        self.spans += 1;
        event.context = context(self.random.byte(), u128::from(self.spans) << 64, self.spans);
        event.deadline = match deadline / 16 {
            0..=7 => None,
            8 => Some(Instant::from_nanos(u64::from(deadline) % 3)),
            9 => Some(self.now),
            10 => Some(Instant::FAR_FUTURE),
            _ => Some(self.now + Duration::from_nanos(time(deadline))),
        };
        self.call(event);
    }

    /// Places Sybils next to a target: some nearer than any other node can be, some at distances at which honest nodes are.
    fn besiege(&mut self, target: Bits<N>) {
        let (count, so_far) = self.sybils;
        for number in so_far..(so_far + count).min(MOST_SYBILS) {
            let mut bytes = *target.as_bytes();
            bytes[N - 1] ^= u8::try_from(number % 32 + 1).unwrap_or(1);
            if number % 3 == 2 {
                bytes[0] ^= self.random.byte() >> (1 + number % 5);
            }
            let peer = Peer { key: Bits::new(bytes), address: self.random.byte() % 8 };
            let behaviour = MANNERS[number % MANNERS.len()].map_or(Behaviour::Dead, Behaviour::Sybil);
            self.nodes.push((peer, behaviour));
            self.sybils.1 += 1;
        }
    }

    fn respond(&mut self, id: RequestId, failed: bool) {
        let closer = vec![self.some_node(0)];
        let event = if failed {
            Inbound::Response(Response::failed(id))
        } else {
            Inbound::Response(Response::answered(id, closer))
        };
        let event = self.stamp(event);
        self.call(event);
    }

    fn outstanding(&self, request: u8) -> Option<(RequestId, RequestInFlight<Net<N>>)> {
        pick(self.checker.requests(), request).cloned()
    }

    /// A node of the network, or an unknown one if the network is empty.
    fn some_node(&mut self, place: u8) -> Peer<N> {
        match pick(&self.nodes, place) {
            Some((peer, _)) => *peer,
            None => Peer { key: key(&mut self.random), address: 0 },
        }
    }

    fn behaviour(&self, node: &Peer<N>) -> Behaviour {
        let known = self.nodes.iter().find(|(peer, _)| peer == node).map(|(_, behaviour)| *behaviour);
        // Nodes that dishonest nodes made up are dead or dishonest as well.
        known.unwrap_or(if node.address.is_multiple_of(2) { Behaviour::Dead } else { Behaviour::Liar })
    }

    fn answer(
        &mut self,
        request: RequestId,
        sent: &RequestInFlight<Net<N>>,
        behaviour: Behaviour,
        carries: u8,
    ) {
        let mut all: Vec<_> = self.nodes.iter().map(|(peer, _)| *peer).collect();
        all.sort_by_key(|peer| peer.key.distance(&sent.target));
        let closer = match behaviour {
            Behaviour::Ideal | Behaviour::Dead => {
                all.truncate(20);
                all
            }
            Behaviour::Partial => {
                all.retain(|_| self.random.below(3) == 0);
                all.truncate(8);
                all
            }
            Behaviour::Liar => self.lie(sent, all),
            Behaviour::Sybil(manner) => return self.answer_as_sybil(request, manner, all),
        };
        let extra = AnswerExtra {
            value: verdict(carries),
            token: (carries % 2 == 1).then_some(self.spans << 8 | u64::from(carries)),
        };
        let event = match carries {
            0..128 if carries % 16 == 5 => {
                // More may follow, or not.
                let part = closer.len().div_ceil(2);
                Inbound::Response(Response::part(request, closer[..part].to_vec()))
            }
            0..128 if carries % 16 == 6 => {
                let waited = Duration::from_nanos(u64::from(carries / 16));
                let arrived = Instant::ORIGIN + (self.now - (Instant::ORIGIN + waited));
                Inbound::Response(Response::answered(request, closer).arrived_at(arrived))
            }
            0..128 if carries % 16 == 7 => {
                Inbound::Response(Response::answered(request, closer).after_dial())
            }
            0..128 => Inbound::Response(Response::answered(request, closer)),
            _ => Inbound::Response(Response::answered(request, closer).with_extra(extra)),
        };
        let event = self.stamp(event);
        self.call(event);
    }

    fn answer_as_sybil(&mut self, request: RequestId, manner: Manner, mut closer: Vec<Peer<N>>) {
        if manner != Manner::HidesTruthfully {
            closer.retain(|peer| matches!(self.behaviour(peer), Behaviour::Sybil(_)));
        }
        closer.truncate(20);
        let response = match manner {
            Manner::Refuses => Response::rejected(request, 0),
            Manner::Hides | Manner::HidesTruthfully => Response::answered(request, closer),
            Manner::Lies => Response::answered(request, closer).with_verdict(Verdict::Invalid),
            Manner::Replays => Response::answered(request, closer).with_verdict(Verdict::Valid(0)),
        };
        let event = self.stamp(Inbound::Response(response.with_token(self.spans)));
        self.call(event);
    }

    fn lie(&mut self, sent: &RequestInFlight<Net<N>>, all: Vec<Peer<N>>) -> Vec<Peer<N>> {
        match self.random.below(if self.crawls { 8 } else { 6 }) {
            6 | 7 => {
                // One key under ever new addresses, some of which the family does not admit.
                let key = if self.random.below(2) == 0 { sent.node.key } else { key(&mut self.random) };
                let first = self.random.byte();
                (0..12).map(|address| Peer { key, address: first.wrapping_add(address) }).collect()
            }
            0 => Vec::new(),
            1 => vec![sent.node; 3],
            2 => (0..3).map(|address| Peer { key: self.local, address }).collect(),
            3 => all.iter().chain(&all).chain(&all).copied().collect(),
            how => {
                let many = if how == 4 { 5 } else { 100 };
                let made_up = |_| {
                    let mut bytes = *sent.target.as_bytes();
                    let last = self.random.below(N.min(3));
                    bytes[N - 1 - last] ^= self.random.byte();
                    Peer { key: Bits::new(bytes), address: self.random.byte() % 8 }
                };
                (0..many).map(made_up).collect()
            }
        }
    }
}

/// Mostly values of one version; some are older or newer than others, or invalid.
fn verdict(carries: u8) -> Verdict {
    match carries {
        0..160 => Verdict::Nothing,
        160..192 if carries % 4 < 2 => Verdict::Invalid,
        160..192 => Verdict::Nothing,
        192..232 => Verdict::Valid(1),
        232.. => Verdict::Valid(u64::from(carries % 4)),
    }
}

fn pick<T>(list: &[T], place: u8) -> Option<&T> {
    list.get(usize::from(place).checked_rem(list.len())?)
}

/// The event for a machine whose scenarios have neither values nor tokens nor refusals.
fn without_extras<const N: usize>(event: Inbound<Net<N>>) -> Inbound<Net<N>> {
    match event {
        Inbound::Response(Response { request, result, .. }) => Inbound::Response(Response::new(
            request,
            match result {
                Ok(answer) => Ok(Answer { extra: AnswerExtra::default(), ..answer }),
                Err(_) => Err(Failure::Failed),
            },
        )),
        Inbound::Routing(RoutingInbound::Connected { .. })
        | Inbound::Routing(RoutingInbound::Disconnected(_)) => Inbound::Tick,
        event => event,
    }
}

/// Ids of operations that another machine issued.
fn foreign_ids<const N: usize, S: Build<N>>(mut machine: S, kind: MachineKind) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for tag in 100..108 {
        // Without seeds each operation ends at once; its id is a foreign one nevertheless.
        let target = Bits::new([0; N]);
        let start = match kind {
            MachineKind::Crawl => Inbound::Crawl(StartCrawl::new(tag)),
            MachineKind::Broadcast => Inbound::Broadcast(StartBroadcast::follow_up(tag, target, 0)),
            _ => Inbound::Start(Start::find(tag, target)),
        };
        for out in machine.handle(Instant::ORIGIN, Stamped::new(start)) {
            if let Outbound::Started(started) = out.event {
                ids.push(started.operation);
            }
        }
    }
    ids
}
