//! The world of a scenario: a small network, a driver that schedules its answers, and the machine under test.

use crate::broadcast::BroadcastPool;
use crate::broadcast::events::{StartBroadcast, Strategy, Success};
use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::crawl::Crawl;
use crate::crawl::events::StartCrawl;
use crate::lookups::query::Query;
use crate::lookups::query_pool::QueryPool;
use crate::routing::events::RoutingInbound;
use crate::testing::broken::{Broken, Checked, ensure_eq};
use crate::testing::checker::ContractChecker;
use crate::testing::draw::{Draw, key_of};
use crate::testing::machine_under_test::MachineUnderTest;
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::sample::{REFUSED, Sample};
use crate::testing::scenario::{MachineKind, Scenario, Step, time};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Start;
use crate::vocabulary::request_events::{Answer, AnswerExtra, Failure, Record, Response, Verdict};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::BTreeMap;

/// How often each named situation occurred: see [`ContractChecker::tally`].
pub type Tally = BTreeMap<&'static str, u64>;

/// Decodes the bytes into a [`Scenario`] for this kind of machine, plays it, and checks the contract after every call. Returns how
/// often each situation occurred. A fuzz target of a family is this call, and a property test too.
///
/// # Errors
/// [`Broken`] if the machine breaks a rule, with these bytes.
pub fn check<F: Sample>(kind: MachineKind, bytes: &[u8]) -> Result<Tally, Broken> {
    Scenario::decode(kind, bytes).check::<F>()
}

impl Scenario {
    /// Plays it against the machine that it is for. Returns how often each situation occurred.
    ///
    /// # Errors
    /// [`Broken`] if the machine breaks a rule.
    pub fn check<F: Sample>(&self) -> Result<Tally, Broken> {
        let secret = Secret::from_seed(0);
        match self.kind {
            MachineKind::Query => self
                .play(|local, Config { query, network, .. }| Query::<F>::new(local, query, network, &secret)),
            MachineKind::Pool => self.play(|local, Config { query, pool, network, .. }| {
                QueryPool::<F>::new(local, query, pool, network, &secret)
            }),
            MachineKind::Coordinator => {
                self.play(|local, config| Coordinator::<F>::new(local, config, &secret))
            }
            MachineKind::Crawl => self
                .play(|local, Config { crawl, network, .. }| Crawl::<F>::new(local, crawl, network, &secret)),
            MachineKind::Broadcast => self.play(|local, Config { broadcast, query, pool, network, .. }| {
                BroadcastPool::<F>::new(local, broadcast, query, pool, network, &secret)
            }),
        }
    }

    /// Plays it against the machines that `build` makes, of the id of a node and a configuration; they are the same machine each time.
    /// The calls are then replayed on a second machine, and the second half on a clone taken in the middle: both must give equal
    /// outbound events. Returns how often each situation occurred.
    ///
    /// The machine may be your driver's, which contains one of the crate: see [`MachineUnderTest`]. It should be of the scenario's
    /// [kind](Self::kind), and have this configuration.
    ///
    /// # Errors
    /// [`Broken`] if the machine breaks a rule, or cannot be built.
    pub fn play<F: Sample, M: MachineUnderTest<F>>(
        &self,
        build: impl Fn(F::Target, Config) -> Result<M, ConfigError>,
    ) -> Result<Tally, Broken> {
        World::play(self, build)
    }
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

/// A call of the machine, and what it returned.
type Call<F> = (Instant, Stamped<Inbound<F>>, Vec<Stamped<Outbound<F>>>);

struct World<F: Sample, M> {
    machine: M,
    checker: ContractChecker<F>,
    config: Config,
    models: bool,
    local: F::Target,
    nodes: Vec<(F::Node, Behaviour)>,
    /// How many Sybils there are next to each target, and how many in all.
    sybils: (usize, usize),
    random: Draw,
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
    calls: Vec<Call<F>>,
}

impl<F: Sample, M: MachineUnderTest<F>> World<F, M> {
    fn play(
        scenario: &Scenario,
        build: impl Fn(F::Target, Config) -> Result<M, ConfigError>,
    ) -> Checked<Tally> {
        let mut random = Draw::new(scenario.seed);
        let local = F::target(if random.below(4) == 0 { F::Key::ZERO } else { random.key() });
        let build = || {
            build(local.clone(), scenario.config.clone())
                .map_err(|error| Broken::new(format_args!("configuration: {error}")))
        };
        let nodes = (0..scenario.population).map(|place| {
            let key = random.key();
            let peer = F::node(key, random.byte() % 8);
            let behaviour = match scenario.behaviours >> (place % 4 * 2) & 3 {
                0 => Behaviour::Ideal,
                1 => Behaviour::Partial,
                2 => Behaviour::Dead,
                _ => Behaviour::Liar,
            };
            (peer, behaviour)
        });
        let nodes = nodes.collect();
        let checker = ContractChecker::new(local.clone(), scenario.config.clone())
            .map_err(|error| Broken::new(format_args!("configuration: {error}")))?;
        let mut world = Self {
            machine: build()?,
            checker: if scenario.models { checker } else { checker.without_models() },
            models: scenario.models,
            config: scenario.config.clone(),
            local: local.clone(),
            nodes,
            sybils: (scenario.sybils, 0),
            random,
            now: Instant::ORIGIN,
            behind: 0,
            kind: scenario.kind,
            crawls: scenario.crawls,
            spans: 0,
            operations: Vec::new(),
            foreign_ids: foreign_ids::<F, M>(build()?, scenario.kind),
            calls: Vec::new(),
        };
        let middle = scenario.steps.len() / 2;
        let mut snapshot = None;
        for (place, step) in scenario.steps.iter().enumerate() {
            if place == middle {
                snapshot = Some((world.machine.clone(), world.calls.len()));
            }
            world.step(*step)?;
        }
        world.end()?;
        world.replay(build()?, 0)?;
        if let Some((machine, from)) = snapshot {
            world.replay(machine, from)?;
        }
        Ok(world.checker.tally().clone())
    }

    /// Equal inbound events give equal outbound events.
    fn replay(&self, mut machine: M, from: usize) -> Checked {
        for (now, event, out) in self.calls.iter().skip(from) {
            ensure_eq!(
                machine.handle(*now, event.clone()),
                *out,
                "determinism: equal inbound events give equal outbound events: {event:?}"
            );
        }
        Ok(())
    }

    /// Advances from wake-up to wake-up, and then to the end of time, until nothing is left.
    fn end(&mut self) -> Checked {
        for _ in 0..20 {
            let Some(at) = self.machine.poll_timeout() else { break };
            self.now = self.now.max(at);
            self.tick()?;
        }
        self.now = Instant::FAR_FUTURE;
        self.tick()?;
        self.checker.check_ended(Instant::FAR_FUTURE)?;
        ensure_eq!(self.machine.poll_timeout(), None, "wake-up: none when nothing is left");
        let request_stats = self.machine.request_stats();
        ensure_eq!((request_stats.in_flight, request_stats.queued), (0, 0), "deadline 5: no request is left");
        Ok(())
    }

    fn call(&mut self, mut event: Stamped<Inbound<F>>) -> Checked {
        if self.kind == MachineKind::Crawl {
            event.event = without_extras(event.event);
        }
        let now = Instant::from_nanos(self.now.as_nanos().saturating_sub(self.behind));
        self.behind = 0;
        let out = self.checker.try_call(&mut self.machine, now, &event)?;
        for stamped in &out {
            if let Outbound::Started(started) = &stamped.event {
                self.operations.push(started.operation);
            }
        }
        self.calls.push((now, event, out));
        Ok(())
    }

    fn tick(&mut self) -> Checked {
        let tick = self.stamp(Inbound::Tick);
        self.call(tick)
    }

    /// Gives an event a new context: valid, with a trace state, or invalid in one of two ways.
    fn stamp(&mut self, event: Inbound<F>) -> Stamped<Inbound<F>> {
        self.spans += 1;
        let context = Draw::context(self.random.byte(), u128::from(self.random.byte()) + 1_000, self.spans);
        Stamped { event, context, deadline: None }
    }

    fn step(&mut self, step: Step) -> Checked {
        match step {
            Step::Start { .. } => self.start(step),
            Step::Crawl { tag, deadline, seeds } => self.crawl(tag, deadline, seeds),
            Step::Broadcast { .. } => self.broadcast(step),
            Step::Answer { request, lie, carries } => match self.outstanding(request) {
                Some((id, sent)) => {
                    let behaviour = if lie >= 128 { Behaviour::Liar } else { self.behaviour(&sent.node) };
                    self.answer(id, &sent, behaviour, carries)
                }
                None => Ok(()),
            },
            Step::Fail { request, rejected } => match self.outstanding(request) {
                Some((id, _)) => self.fail(id, rejected),
                None => Ok(()),
            },
            Step::Late { request, failed } => {
                let id = pick(self.checker.closed_requests(), request).copied();
                id.map_or(Ok(()), |id| self.respond(id, failed))
            }
            Step::Forged { id: [generation, slot, high] } => {
                let generation = u64::from(generation) | u64::from(high / 64) << 30;
                self.respond(RequestId::from_u64(generation << 32 | u64::from(slot)), high % 2 == 1)
            }
            Step::Stop { operation } => {
                let id = pick(&self.operations, operation).copied();
                id.map_or(Ok(()), |id| self.submit(Inbound::Stop(id)))
            }
            Step::StopForged { tag } => {
                let id = pick(&self.foreign_ids, tag).copied().filter(|id| !self.operations.contains(id));
                id.map_or(Ok(()), |id| self.submit(Inbound::Stop(id)))
            }
            Step::Advance { by, tick } => {
                self.advance(by);
                if tick { self.tick() } else { Ok(()) }
            }
            Step::Backwards { by } => {
                self.behind = time(by);
                Ok(())
            }
            Step::Connected { node } => {
                let node = self.some_node(node);
                let address = F::address(&node);
                let round_trip = address.is_multiple_of(2).then(|| Duration::from_micros(u64::from(address)));
                self.submit(Inbound::Routing(RoutingInbound::Connected { node, round_trip }))
            }
            Step::Disconnected { node } => {
                let node = self.some_node(node);
                self.submit(Inbound::Routing(RoutingInbound::Disconnected(node)))
            }
            Step::Drive { calls, by } => self.drive(calls % 64, by),
        }
    }

    /// Stamps an event and hands it in.
    fn submit(&mut self, event: Inbound<F>) -> Checked {
        let event = self.stamp(event);
        self.call(event)
    }

    fn fail(&mut self, id: RequestId, rejected: bool) -> Checked {
        let why = id.to_u64();
        let response = match why % 5 {
            _ if rejected => Response::rejected(id, F::message(why)),
            0 => Response::unreachable(id),
            1 => Response::connection_refused(id),
            2 => Response::gone(id),
            _ => Response::failed(id),
        };
        self.submit(Inbound::Response(response))
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

    fn drive(&mut self, calls: u8, by: u8) -> Checked {
        for _ in 0..calls {
            let live = self
                .checker
                .requests()
                .iter()
                .find(|(_, sent)| self.behaviour(&sent.node) != Behaviour::Dead);
            if let Some((id, sent)) = live.cloned() {
                self.now = self.now + Duration::from_nanos(time(by % 8));
                self.answer(id, &sent, self.behaviour(&sent.node), by)?;
            } else if let Some(at) = self.machine.poll_timeout() {
                self.now = self.now.max(at);
                self.tick()?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Some nodes to begin with, and the random number that chose them; if there are 15, also this node, one that is `refused`, and
    /// all twice.
    fn seeds(&mut self, seeds: u8, refused: bool) -> (u8, Vec<F::Node>) {
        let first = self.random.byte();
        let mut nodes: Vec<_> = (0..seeds).map(|offset| self.some_node(first.wrapping_add(offset))).collect();
        if seeds == 15 {
            nodes.push(F::node(self.local.key(), 1));
            if refused {
                nodes.push(F::node(self.random.key(), REFUSED));
            }
            nodes.extend_from_within(..);
        }
        (first, nodes)
    }

    fn start(&mut self, step: Step) -> Checked {
        let Step::Start { tag, target, deadline, results, seeds, message, quorum } = step else {
            return Ok(());
        };
        let target = match target {
            0..=3 => F::target(self.random.key()),
            4 => self.local.clone(),
            5 => F::target(F::Key::ZERO),
            6 => F::target(F::Key::ONES),
            _ => F::target(F::key(&self.some_node(target))),
        };
        self.besiege(&target);
        let (k, most) = (self.config.query.k, self.config.query.max_candidates);
        let num_results = match results {
            0..=2 => None,
            3 => Some(1),
            4 => Some(k + 1),
            5 => Some(most),
            6 => Some(0),
            _ => Some(if tag.is_multiple_of(2) { most + 1 } else { usize::MAX }),
        };
        let (first, nodes) = self.seeds(seeds, false);
        let mut start = if message {
            Start::message(0, target, F::message(u64::from(first)))
        } else {
            Start::find(0, target)
        };
        start.tag = u64::from(tag);
        start.num_results = num_results;
        start.quorum = quorum;
        start.held = (first % 8 == 3).then(|| u64::from(first / 8 % 4));
        self.submit_start(Inbound::Start(start.with_seeds(nodes)), deadline)
    }

    fn crawl(&mut self, tag: u8, deadline: u8, seeds: u8) -> Checked {
        let (_, nodes) = self.seeds(seeds, true);
        self.submit_start(Inbound::Crawl(StartCrawl::new(u64::from(tag)).with_seeds(nodes)), deadline)
    }

    fn broadcast(&mut self, step: Step) -> Checked {
        let Step::Broadcast { tag, target, deadline, how, seeds } = step else { return Ok(()) };
        let (first, mut nodes) = self.seeds(seeds, false);
        let target = match target {
            0..=24 => F::target(self.random.key()),
            25..=28 => F::target(F::key(&self.some_node(target))),
            29 => self.local.clone(),
            30 => F::target(F::Key::ZERO),
            _ => F::target(F::Key::ONES),
        };
        self.besiege(&target);
        // No message is used twice.
        self.spans += 1;
        let message = self.spans * 1_000;
        let population = self.nodes.len() as u64;
        let start = StartBroadcast::follow_up(u64::from(tag), target.clone(), F::message(message));
        let strategy = match how % 16 {
            0..=2 => Strategy::FollowUp,
            3 | 4 => Strategy::Static(core::mem::take(&mut nodes)),
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
                let target = if same { target.clone() } else { F::target(self.random.key()) };
                start.records.push(Record { target, message: F::message(message + number) });
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
            start = start.with_ask(F::message(u64::from(first)));
        }
        self.submit_start(Inbound::Broadcast(start), deadline)
    }

    fn submit_start(&mut self, start: Inbound<F>, deadline: u8) -> Checked {
        let mut event = self.stamp(start);
        // A new trace for each start.
        self.spans += 1;
        event.context = Draw::context(self.random.byte(), u128::from(self.spans) << 64, self.spans);
        event.deadline = match deadline / 16 {
            0..=7 => None,
            8 => Some(Instant::from_nanos(u64::from(deadline) % 3)),
            9 => Some(self.now),
            10 => Some(Instant::FAR_FUTURE),
            _ => Some(self.now + Duration::from_nanos(time(deadline))),
        };
        self.call(event)
    }

    /// Places Sybils next to a target: some nearer than any other node can be, some at distances at which honest nodes are.
    fn besiege(&mut self, target: &F::Target) {
        let (count, so_far) = self.sybils;
        let width = usize::try_from(F::Key::BITS / 8).unwrap_or_default();
        for number in so_far..(so_far + count).min(MOST_SYBILS) {
            let mut away = vec![0; width];
            if let Some(last) = away.last_mut() {
                *last ^= u8::try_from(number % 32 + 1).unwrap_or(1);
            }
            if number % 3 == 2
                && let Some(first) = away.first_mut()
            {
                *first ^= self.random.byte() >> (1 + number % 5);
            }
            let node = F::node(target.key().distance(&key_of(&away)), self.random.byte() % 8);
            let manner = MANNERS.get(number % MANNERS.len()).copied().flatten();
            self.nodes.push((node, manner.map_or(Behaviour::Dead, Behaviour::Sybil)));
            self.sybils.1 += 1;
        }
    }

    fn respond(&mut self, id: RequestId, failed: bool) -> Checked {
        let closer = vec![self.some_node(0)];
        self.submit(Inbound::Response(if failed {
            Response::failed(id)
        } else {
            Response::answered(id, closer)
        }))
    }

    fn outstanding(&self, request: u8) -> Option<(RequestId, RequestInFlight<F>)> {
        pick(self.checker.requests(), request).cloned()
    }

    /// A node of the network, or an unknown one if the network is empty.
    fn some_node(&mut self, place: u8) -> F::Node {
        match pick(&self.nodes, place) {
            Some((node, _)) => node.clone(),
            None => F::node(self.random.key(), 0),
        }
    }

    fn behaviour(&self, node: &F::Node) -> Behaviour {
        let known = self.nodes.iter().find(|(peer, _)| peer == node).map(|(_, behaviour)| *behaviour);
        // Nodes that dishonest nodes made up are dead or dishonest as well.
        known.unwrap_or(if F::address(node).is_multiple_of(2) { Behaviour::Dead } else { Behaviour::Liar })
    }

    fn answer(
        &mut self,
        request: RequestId,
        sent: &RequestInFlight<F>,
        behaviour: Behaviour,
        carries: u8,
    ) -> Checked {
        let mut all: Vec<_> = self.nodes.iter().map(|(node, _)| node.clone()).collect();
        all.sort_by_key(|node| F::key(node).distance(&sent.target));
        let mut closer = match behaviour {
            Behaviour::Ideal | Behaviour::Dead => {
                all.truncate(20);
                all
            }
            Behaviour::Partial => {
                all.retain(|_| self.random.below(3) == 0);
                all.truncate(8);
                all
            }
            Behaviour::Liar => self.lie(sent, &all),
            Behaviour::Sybil(manner) => return self.answer_as_sybil(request, manner, all),
        };
        let extra = AnswerExtra {
            value: verdict(carries),
            token: (carries % 2 == 1).then(|| F::message(self.spans << 8 | u64::from(carries))),
        };
        let response = match carries {
            0..128 if carries % 16 == 5 => {
                // More may follow, or not.
                closer.truncate(closer.len().div_ceil(2));
                Response::part(request, closer)
            }
            0..128 if carries % 16 == 6 => {
                let waited = Duration::from_nanos(u64::from(carries / 16));
                let arrived = Instant::ORIGIN + (self.now - (Instant::ORIGIN + waited));
                Response::answered(request, closer).arrived_at(arrived)
            }
            0..128 if carries % 16 == 7 => Response::answered(request, closer).after_dial(),
            0..128 => Response::answered(request, closer),
            _ => Response::answered(request, closer).with_extra(extra),
        };
        self.submit(Inbound::Response(response))
    }

    fn answer_as_sybil(&mut self, request: RequestId, manner: Manner, mut closer: Vec<F::Node>) -> Checked {
        if manner != Manner::HidesTruthfully {
            closer.retain(|node| matches!(self.behaviour(node), Behaviour::Sybil(_)));
        }
        closer.truncate(20);
        let response = match manner {
            Manner::Refuses => Response::rejected(request, F::message(0)),
            Manner::Hides | Manner::HidesTruthfully => Response::answered(request, closer),
            Manner::Lies => Response::answered(request, closer).with_verdict(Verdict::Invalid),
            Manner::Replays => Response::answered(request, closer).with_verdict(Verdict::Valid(0)),
        };
        let token = F::message(self.spans);
        self.submit(Inbound::Response(response.with_token(token)))
    }

    fn lie(&mut self, sent: &RequestInFlight<F>, all: &[F::Node]) -> Vec<F::Node> {
        match self.random.below(if self.crawls { 8 } else { 6 }) {
            6 | 7 => {
                // One key under ever new addresses, some of which the family does not admit.
                let key = if self.random.below(2) == 0 { F::key(&sent.node) } else { self.random.key() };
                let first = self.random.byte();
                (0..12).map(|address| F::node(key, first.wrapping_add(address))).collect()
            }
            0 => Vec::new(),
            1 => vec![sent.node.clone(); 3],
            2 => (0..3).map(|address| F::node(self.local.key(), address)).collect(),
            3 => [all, all, all].concat(),
            how => {
                let many = if how == 4 { 5 } else { 100 };
                let width = usize::try_from(F::Key::BITS / 8).unwrap_or_default();
                let made_up = |_| {
                    let mut bytes = vec![0; width];
                    let last = self.random.below(width.min(3));
                    let byte = self.random.byte();
                    bytes.iter_mut().rev().skip(last).take(1).for_each(|to| *to = byte);
                    F::node(sent.target.distance(&key_of(&bytes)), self.random.byte() % 8)
                };
                (0..many).map(made_up).collect()
            }
        }
    }
}

/// Mostly values of one version; some are older or newer than others, or invalid.
fn verdict(carries: u8) -> Verdict {
    match carries {
        160..192 if carries % 4 < 2 => Verdict::Invalid,
        0..192 => Verdict::Nothing,
        192..232 => Verdict::Valid(1),
        232.. => Verdict::Valid(u64::from(carries % 4)),
    }
}

fn pick<T>(list: &[T], place: u8) -> Option<&T> {
    list.get(usize::from(place).checked_rem(list.len())?)
}

/// The event for a machine whose scenarios have neither values nor tokens nor refusals.
fn without_extras<F: Sample>(event: Inbound<F>) -> Inbound<F> {
    match event {
        Inbound::Response(Response { request, result, .. }) => Inbound::Response(Response::new(
            request,
            match result {
                Ok(answer) => Ok(Answer { extra: AnswerExtra::default(), ..answer }),
                Err(_) => Err(Failure::Failed),
            },
        )),
        Inbound::Routing(RoutingInbound::Connected { .. } | RoutingInbound::Disconnected(_)) => Inbound::Tick,
        event => event,
    }
}

/// Ids of operations that another machine issued.
fn foreign_ids<F: Sample, M: MachineUnderTest<F>>(mut machine: M, kind: MachineKind) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for tag in 100..108 {
        // Without seeds each operation ends at once; its id is a foreign one nevertheless.
        let target = F::target(F::Key::ZERO);
        let start = match kind {
            MachineKind::Crawl => Inbound::Crawl(StartCrawl::new(tag)),
            MachineKind::Broadcast => {
                Inbound::Broadcast(StartBroadcast::follow_up(tag, target, F::message(0)))
            }
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
