//! [`World`]: the state of a simulated network, and what can be read from it.
//!
//! What changes the state, action by action, is in the files of `run`.

pub(crate) mod action;
pub(crate) mod action_queue;
pub(crate) mod node;
#[cfg(feature = "record")]
pub(crate) mod recordings;
pub(crate) mod sent_request;

use crate::coordinator::Coordinator;
use crate::coordinator::events::Outbound;
use crate::sim::event::SimEvent;
use crate::sim::fingerprint::Fingerprint;
use crate::sim::invariants::checkers::Checkers;
use crate::sim::invariants::{Invariant, Violation};
use crate::sim::network::handle::{Handle, Key64, Net};
use crate::sim::network::population::Population;
use crate::sim::random::{Random, Stream};
use crate::sim::results::broadcast_run::BroadcastRun;
use crate::sim::results::figures::{BroadcastFigures, Figures};
use crate::sim::results::health::{Health, Upkeep};
use crate::sim::results::lookup_run::LookupRun;
use crate::sim::scenario::Scenario;
use crate::sim::world::action_queue::ActionQueue;
use crate::sim::world::node::Node;
#[cfg(feature = "record")]
use crate::sim::world::recordings::Recordings;
use crate::testing::broken::Broken;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::Batch;
use crate::vocabulary::time::Instant;
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

/// A simulated network, and the run of its [`Scenario`] up to [`now`](World::now).
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) population: Population,
    pub(crate) nodes: Vec<Node>,
    /// The closest to their victim first.
    pub(crate) sybils: Vec<Handle>,
    pub(crate) queue: ActionQueue,
    pub(crate) now: Instant,
    pub(crate) lookups: Vec<LookupRun>,
    /// How many lookups of the workload have begun.
    pub(crate) begun: u32,
    pub(crate) broadcasts: Vec<BroadcastRun>,
    /// Broadcasts, by number, that wait for the warm-up lookups of their node, by its index.
    pub(crate) waiting_for_warmup: BTreeMap<u32, Vec<u32>>,
    /// Lookups, by number, whose requests are kept after their end.
    pub(crate) detailed: BTreeSet<u32>,
    /// The running lookups and broadcasts, by index of the node and tag.
    pub(crate) operations: BTreeMap<(u32, u32), OperationId>,
    /// How many lookups of the workload and broadcasts have begun and not ended.
    pub(crate) unfinished: u32,
    /// How many spans were made: their ids are numbers in order.
    pub(crate) spans: u64,
    events: u64,
    fingerprint: Fingerprint,
    log: Option<Log>,
    pub(crate) health: Vec<Health>,
    /// Requests of the tables' maintenance since the previous measurement of health.
    pub(crate) upkeep: Upkeep,
    /// If the invariants are checked.
    pub(crate) checkers: Option<Checkers>,
    pub(crate) violation: Option<Box<Violation>>,
    #[cfg(feature = "record")]
    pub(crate) recordings: Recordings,
    /// The buffer for an engine's outbound events, reused by the calls.
    pub(crate) outbound: Batch<Outbound<Net>>,
}

type Log = Box<dyn FnMut(Instant, &SimEvent) + Send>;

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("scenario", &self.scenario)
            .field("now", &self.now)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl World {
    /// The world at virtual time zero, with nothing scheduled yet.
    pub(crate) fn unscheduled(scenario: Scenario) -> Result<Self, ConfigError> {
        scenario.validate()?;
        let population = Population::new(scenario.seed, scenario.nodes);
        let mut nodes = Vec::with_capacity(scenario.nodes as usize);
        for index in 0..scenario.nodes {
            nodes.push(Node::new(&scenario, &population, index)?);
        }
        let sybils =
            scenario.sybils.map_or_else(Vec::new, |sybils| sybils.all(population.handle(sybils.victim)));
        let checkers = scenario.check_invariants.then(|| Checkers::new(scenario.config.clone()));
        let queue = ActionQueue::new(scenario.is_maintained());
        Ok(Self {
            scenario,
            population,
            nodes,
            sybils,
            queue,
            now: Instant::ORIGIN,
            lookups: Vec::new(),
            begun: 0,
            broadcasts: Vec::new(),
            waiting_for_warmup: BTreeMap::new(),
            detailed: BTreeSet::new(),
            operations: BTreeMap::new(),
            unfinished: 0,
            spans: 0,
            events: 0,
            fingerprint: Fingerprint::new(),
            log: None,
            health: Vec::new(),
            upkeep: Upkeep::default(),
            checkers,
            violation: None,
            #[cfg(feature = "record")]
            recordings: Recordings::default(),
            outbound: Batch::new(),
        })
    }

    /// Calls this function with the time and every event from now on. A later call replaces it.
    pub fn set_log(&mut self, log: impl FnMut(Instant, &SimEvent) + Send + 'static) {
        self.log = Some(Box::new(log));
    }

    /// Whether anything is left to happen that [`run`](World::run) goes on for: lookups and broadcasts, and the
    /// building of the network. Nodes that go online and offline, Sybils that advertise themselves and
    /// measurements of health do not count; if the nodes' maintenance is on, nor do its requests.
    pub fn is_busy(&self) -> bool {
        self.queue.is_busy() || self.unfinished > 0
    }

    /// The virtual time: that of the last action.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The scenario of this run.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// All lookups that have begun, in order, including those of joining nodes and before broadcasts.
    pub fn lookups(&self) -> &[LookupRun] {
        &self.lookups
    }

    /// How many lookups of the workload have begun.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// All broadcasts so far, in order, including those that wait for the warm-up lookups of their node.
    pub fn broadcasts(&self) -> &[BroadcastRun] {
        &self.broadcasts
    }

    /// Statistics of the broadcasts so far.
    pub fn broadcast_figures(&self) -> BroadcastFigures {
        BroadcastFigures::of(&self.broadcasts)
    }

    /// The records that a node holds, by number, in order.
    pub fn held(&self, node: Handle) -> impl Iterator<Item = u32> {
        self.node(node).into_iter().flat_map(|node| node.records.iter().copied())
    }

    /// Whether a node holds a record, by number.
    pub fn holds(&self, node: Handle, record: u32) -> bool {
        self.node(node).is_some_and(|node| node.records.contains(&record))
    }

    /// The key of a record, by number.
    pub fn record_key(&self, record: u32) -> Key64 {
        Handle::point(self.random(Stream::Record, record).below(Handle::NODES)).key()
    }

    /// Statistics of the workload's lookups so far.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.lookups)
    }

    /// The measurements of the routing tables, in order: one per interval of the scenario's
    /// [`health`](Scenario::health).
    pub fn health(&self) -> &[Health] {
        &self.health
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A running hash of all events and their times. Equal for equal scenarios, on every platform.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.value()
    }

    /// The handle of node `index`, less than the scenario's `nodes`.
    pub fn handle(&self, index: u32) -> Handle {
        self.population.handle(index)
    }

    /// The engine of a node; `None` if it is offline, dead, or no node of this network.
    pub fn engine(&self, node: Handle) -> Option<&Coordinator<Net>> {
        self.node(node).filter(|node| node.up)?.engine.as_ref()
    }

    /// The nodes of an honest answer of this node now: the k closest to the target in its table, closest first.
    /// Empty if it has no [`engine`](World::engine).
    pub fn closest_known(&self, node: Handle, target: Key64) -> Vec<Handle> {
        let records = self.engine(node).into_iter().flat_map(|engine| engine.table().closest(target));
        records.take(self.scenario.k).map(|record| *record.node()).collect()
    }

    /// The k nodes closest to a key among those that would answer a request of `asker` now, without `asker`;
    /// closest first.
    pub fn truly_closest(&self, target: Key64, asker: Handle) -> Vec<Handle> {
        let counts = |node: Handle| node != asker && self.answers(node) && !self.is_separated(asker, node);
        self.population.closest(target, self.scenario.k, counts)
    }

    /// The Sybils, the closest to their victim first.
    pub fn sybils(&self) -> &[Handle] {
        &self.sybils
    }

    pub(crate) fn node(&self, node: Handle) -> Option<&Node> {
        self.nodes.get(self.population.index(node)? as usize)
    }

    /// Whether a node is online, reachable and answers.
    pub(crate) fn answers(&self, node: Handle) -> bool {
        let party = |number: u8| self.scenario.hostile.get(usize::from(number));
        self.node(node).is_some_and(|node| {
            node.up
                && node.reachable
                && node.party.and_then(party).is_none_or(|party| party.behaviour.answers())
        })
    }

    pub(crate) fn is_sybil(&self, node: Handle) -> bool {
        node.group().is_some() && self.sybils.contains(&node)
    }

    /// Whether a request to this node arrives at anything that may answer.
    pub(crate) fn is_askable(&self, node: Handle) -> bool {
        match self.node(node) {
            Some(node) => node.up && node.reachable,
            None => self.is_sybil(node) || (node.is_accomplice() && self.accomplice_party().is_some()),
        }
    }

    /// The party, by index, that accomplices belong to.
    pub(crate) fn accomplice_party(&self) -> Option<usize> {
        self.scenario.hostile.iter().position(|party| party.behaviour.has_accomplices())
    }

    /// Whether a partition separates these two now.
    pub(crate) fn is_separated(&self, from: Handle, to: Handle) -> bool {
        self.scenario.partition.as_ref().is_some_and(|partition| partition.separates(self.now, from, to))
    }

    /// Counts an event, adds it to the fingerprint, and logs it.
    pub(crate) fn emit(&mut self, event: &SimEvent) {
        self.events += 1;
        self.fingerprint.add(self.now, event);
        if let Some(log) = &mut self.log {
            log(self.now, event);
        }
    }

    /// Notes the violation of an invariant, which ends the run. The first one counts.
    pub(crate) fn violate(&mut self, node: Handle, broken: &Broken) {
        let (invariant, detail) = (Invariant::of_rule(broken.rule()), broken.to_string());
        let seed = self.scenario.seed;
        let replay = self.scenario.replay.replace("{seed}", &seed.to_string());
        let replay = replay.replace("{node}", &node.0.to_string());
        self.violation.get_or_insert_with(|| {
            Box::new(Violation { invariant, detail, at: self.now, node, seed, replay })
        });
    }

    /// The random stream for one id.
    pub(crate) fn random(&self, stream: Stream, id: u32) -> Random {
        Random::new(self.scenario.seed, stream, [u64::from(id)])
    }
}
