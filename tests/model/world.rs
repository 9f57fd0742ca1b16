//! The world: a small network, a driver with a schedule, and a machine between them.

use super::bytes::{Kind, Scenario, Step, time};
use super::ledger::net::{Net, Peer, Random, Tally, context, key};
use super::ledger::subject::{In, Out, Subject};
use super::ledger::{Ledger, Sent};
use kad_proto::broadcast::{StartBroadcast, Strategy, Success};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::StartCrawl;
use kad_proto::{
    Bits, BroadcastPool, Carried, Coordinator, Crawl, Instant, Key, OperationId, Query, QueryPool, Record,
    RequestId, Stamped, Start,
};
use std::time::Duration;

/// Plays a scenario; panics where the machine breaks the contract. The outbound events of a second run, and of one
/// continued from a clone taken in the middle, are compared as well.
pub(crate) fn run(scenario: &Scenario) -> Tally {
    match scenario.width {
        1 => play::<1>(scenario),
        20 => play::<20>(scenario),
        _ => play::<32>(scenario),
    }
}

fn play<const N: usize>(scenario: &Scenario) -> Tally {
    match scenario.kind {
        Kind::Query => World::<N, Query<Net<N>>>::play(scenario),
        Kind::Pool => World::<N, QueryPool<Net<N>>>::play(scenario),
        Kind::Coordinator => World::<N, Coordinator<Net<N>>>::play(scenario),
        Kind::Crawl => World::<N, Crawl<Net<N>>>::play(scenario),
        Kind::Broadcast => World::<N, BroadcastPool<Net<N>>>::play(scenario),
    }
}

/// Plays a scenario against a machine of one's own.
pub(crate) fn run_on<const N: usize, S: Subject<N>>(scenario: &Scenario) -> Tally {
    World::<N, S>::play(scenario)
}

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    /// With the closest of all nodes.
    Ideal,
    /// With some of the nodes.
    Partial,
    /// Never.
    Dead,
    /// With made-up nodes that are ever closer, with itself, with the asking node, with the same node twice, with
    /// far too many, with nothing.
    Liar,
}

struct World<const N: usize, S> {
    machine: S,
    ledger: Ledger<N>,
    local: Bits<N>,
    nodes: Vec<(Peer<N>, Nature)>,
    random: Random,
    now: Instant,
    /// How far the caller's clock is behind for the next event.
    behind: u64,
    /// The kind of the machine.
    kind: Kind,
    /// Crawls are started.
    crawls: bool,
    spans: u64,
    operations: Vec<OperationId>,
    /// Ids of operations of another machine.
    foreign: Vec<OperationId>,
    calls: Vec<(Instant, In<N>, Vec<Out<N>>)>,
}

impl<const N: usize, S: Subject<N>> World<N, S> {
    fn play(scenario: &Scenario) -> Tally {
        let mut random = Random(scenario.seed);
        let local = if random.below(4) == 0 { Bits::new([0; N]) } else { key(&mut random) };
        let build = || S::build(local, scenario.config.clone()).expect("scenarios have valid configurations");
        let nodes = (0..scenario.population).map(|place| {
            let peer = Peer { key: key(&mut random), address: random.byte() % 8 };
            let nature = match scenario.mood >> (place % 4 * 2) & 3 {
                0 => Nature::Ideal,
                1 => Nature::Partial,
                2 => Nature::Dead,
                _ => Nature::Liar,
            };
            (peer, nature)
        });
        let nodes = nodes.collect();
        let mut world = Self {
            machine: build(),
            ledger: Ledger::new(local, scenario.config.clone()),
            local,
            nodes,
            random,
            now: Instant::ORIGIN,
            behind: 0,
            kind: scenario.kind,
            crawls: scenario.crawls,
            spans: 0,
            operations: Vec::new(),
            foreign: foreign(build(), scenario.kind),
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
        world.ledger.tally
    }

    /// Equal input, equal output.
    fn replay(&self, mut machine: S, from: usize) {
        for (now, event, out) in &self.calls[from..] {
            assert_eq!(machine.handle(*now, event.clone()), *out, "determinism: {event:?}");
        }
    }

    /// Time goes on until nothing is left, at the wake-ups and then for ever.
    fn end(&mut self) {
        for _ in 0..20 {
            let Some(at) = self.machine.poll_timeout() else { break };
            self.now = self.now.max(at);
            self.tick();
        }
        self.now = Instant::FAR_FUTURE;
        self.tick();
        assert_eq!(self.ledger.operations.len(), 0, "deadline 7: every accepted start finishes");
        assert_eq!(self.ledger.asides.len(), 0, "background: over by its time-out");
        assert_eq!(self.machine.poll_timeout(), None, "wake-up: none where nothing is left");
        let traffic = self.machine.traffic();
        assert_eq!((traffic.in_flight, traffic.queued), (0, 0), "deadline 5: nothing is left");
    }

    fn call(&mut self, mut event: In<N>) {
        if self.kind == Kind::Crawl {
            event.event = plain(event.event);
        }
        let now = Instant::from_nanos(self.now.as_nanos().saturating_sub(self.behind));
        self.behind = 0;
        let out = self.ledger.call(&mut self.machine, now, &event);
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

    /// A fresh context for each event: valid, with a trace state, or none in several ways.
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
                    let nature = if lie >= 128 { Nature::Liar } else { self.nature(&sent.node) };
                    self.answer(id, &sent, nature, carries);
                }
            }
            Step::Fail { request, rejected } => {
                if let Some((id, _)) = self.outstanding(request) {
                    let why = id.to_u64();
                    let event =
                        if rejected { Inbound::Rejected { request: id, why } } else { Inbound::Failed(id) };
                    let event = self.stamp(event);
                    self.call(event);
                }
            }
            Step::Late { request, failed } => {
                if let Some(id) = of(&self.ledger.closed, request).copied() {
                    self.reply(id, failed);
                }
            }
            Step::Forged { id: [generation, slot, high] } => {
                let generation = u64::from(generation) | u64::from(high / 64) << 30;
                self.reply(RequestId::from_u64(generation << 32 | u64::from(slot)), high % 2 == 1);
            }
            Step::Stop { operation } => {
                if let Some(id) = of(&self.operations, operation).copied() {
                    let event = self.stamp(Inbound::Stop(id));
                    self.call(event);
                }
            }
            Step::StopForged { tag } => {
                if let Some(id) = of(&self.foreign, tag).copied().filter(|id| !self.operations.contains(id)) {
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
                let event = self.stamp(Inbound::Connected { node, round_trip });
                self.call(event);
            }
            Step::Disconnected { node } => {
                let event = Inbound::Disconnected(self.some_node(node));
                let event = self.stamp(event);
                self.call(event);
            }
            Step::Drive { calls, by } => self.drive(calls % 64, by),
        }
    }

    fn advance(&mut self, by: u8) {
        let wake = self.machine.poll_timeout();
        let far = self.operations.iter().rev().find_map(|id| self.ledger.deadline(*id));
        self.now = match by / 16 {
            // Mostly by little; for ever only where that is all there is to do.
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
            let live = self.ledger.requests.iter().find(|(_, sent)| self.nature(&sent.node) != Nature::Dead);
            if let Some((id, sent)) = live.cloned() {
                self.now = self.now + Duration::from_nanos(time(by % 8));
                self.answer(id, &sent, self.nature(&sent.node), by);
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
        let (k, most) = (self.config().0, self.config().1);
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
        self.begin(Inbound::Start(start.with_seeds(nodes)), deadline);
    }

    fn crawl(&mut self, tag: u8, deadline: u8, seeds: u8) {
        let first = self.random.byte();
        let mut nodes: Vec<_> = (0..seeds).map(|offset| self.some_node(first.wrapping_add(offset))).collect();
        if seeds == 15 {
            nodes.push(Peer { key: self.local, address: 1 });
            nodes.push(Peer { key: key(&mut self.random), address: Peer::<N>::REFUSED });
            nodes.extend_from_within(..);
        }
        self.begin(Inbound::Crawl(StartCrawl { tag: u64::from(tag), seeds: nodes }), deadline);
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
            // Its lookups are told apart by what they ask about.
            _ if self.ledger.looks_at_rim() => Strategy::FollowUp,
            _ => Strategy::Sweep,
        };
        let mut start = StartBroadcast { strategy, ..start }.with_seeds(nodes);
        if start.strategy == Strategy::Sweep || how == 255 {
            let more = self.random.below(12) as u64;
            for number in 1..more {
                let same = self.random.below(5) == 0;
                let key = if same { start.records[0].key } else { key(&mut self.random) };
                start.records.push(Record { key, message: message + number });
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
        self.begin(Inbound::Broadcast(start), deadline);
    }

    fn begin(&mut self, start: Inbound<Net<N>>, deadline: u8) {
        let mut event = self.stamp(start);
        // A trace of its own.
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

    fn config(&self) -> (usize, usize) {
        self.ledger.results()
    }

    fn reply(&mut self, id: RequestId, failed: bool) {
        let closer = vec![self.some_node(0)];
        let event = if failed { Inbound::Failed(id) } else { Inbound::Answered { request: id, closer } };
        let event = self.stamp(event);
        self.call(event);
    }

    fn outstanding(&self, request: u8) -> Option<(RequestId, Sent<N>)> {
        of(&self.ledger.requests, request).cloned()
    }

    /// A node of the network, or a stranger where there is none.
    fn some_node(&mut self, place: u8) -> Peer<N> {
        match of(&self.nodes, place) {
            Some((peer, _)) => *peer,
            None => Peer { key: key(&mut self.random), address: 0 },
        }
    }

    fn nature(&self, node: &Peer<N>) -> Nature {
        let known = self.nodes.iter().find(|(peer, _)| peer == node).map(|(_, nature)| *nature);
        // Nodes that liars made up lie on, or are dead.
        known.unwrap_or(if node.address.is_multiple_of(2) { Nature::Dead } else { Nature::Liar })
    }

    fn answer(&mut self, request: RequestId, sent: &Sent<N>, nature: Nature, carries: u8) {
        let mut all: Vec<_> = self.nodes.iter().map(|(peer, _)| *peer).collect();
        all.sort_by_key(|peer| peer.key.distance(&sent.target));
        let closer = match nature {
            Nature::Ideal | Nature::Dead => {
                all.truncate(20);
                all
            }
            Nature::Partial => {
                all.retain(|_| self.random.below(3) == 0);
                all.truncate(8);
                all
            }
            Nature::Liar => self.lie(sent, all),
        };
        let carried = Carried {
            value: carries >= 192,
            token: (carries % 2 == 1).then_some(self.spans << 8 | u64::from(carries)),
        };
        let event = match carries {
            0..128 => Inbound::Answered { request, closer },
            _ => Inbound::AnsweredWith { request, closer, carried },
        };
        let event = self.stamp(event);
        self.call(event);
    }

    fn lie(&mut self, sent: &Sent<N>, all: Vec<Peer<N>>) -> Vec<Peer<N>> {
        match self.random.below(if self.crawls { 8 } else { 6 }) {
            6 | 7 => {
                // One key under ever other addresses, some of which the family refuses.
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

fn of<T>(list: &[T], place: u8) -> Option<&T> {
    list.get(usize::from(place).checked_rem(list.len())?)
}

/// The same for a machine to which an answer carries nothing, and a refusal is a failure.
fn plain<const N: usize>(event: Inbound<Net<N>>) -> Inbound<Net<N>> {
    match event {
        Inbound::AnsweredWith { request, closer, .. } => Inbound::Answered { request, closer },
        Inbound::Rejected { request, .. } => Inbound::Failed(request),
        Inbound::Connected { .. } | Inbound::Disconnected(_) => Inbound::Tick,
        event => event,
    }
}

/// Ids that another machine gave out.
fn foreign<const N: usize, S: Subject<N>>(mut machine: S, kind: Kind) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for tag in 100..108 {
        // Without a seed each ends at once; its id is none the less another one's.
        let target = Bits::new([0; N]);
        let start = match kind {
            Kind::Crawl => Inbound::Crawl(StartCrawl { tag, seeds: Vec::new() }),
            Kind::Broadcast => Inbound::Broadcast(StartBroadcast::follow_up(tag, target, 0)),
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
