//! [`World`]: the state of a simulated network, and what can be read from it.
//!
//! What changes the state, action by action, is in the files of `run`.

pub(crate) mod action;
pub(crate) mod action_queue;
pub(crate) mod connections;
pub(crate) mod node;
#[cfg(feature = "record")]
pub(crate) mod recordings;
pub(crate) mod sent_request;
pub(crate) mod sybil_set;
pub(crate) mod who;

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
use crate::sim::scenario::behaviour::Behaviour;
use crate::sim::scenario::latency::Trip;
use crate::sim::world::action_queue::ActionQueue;
use crate::sim::world::node::Node;
#[cfg(feature = "record")]
use crate::sim::world::recordings::Recordings;
use crate::sim::world::sybil_set::SybilSets;
use crate::testing::broken::Broken;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::Batch;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A simulated network, and the run of its [`Scenario`] up to [`now`](World::now).
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) population: Population,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sybils: SybilSets,
    /// The sets of nodes that are separated from each other so far: a node's island is the latest that it was put in.
    pub(crate) islands: u8,
    /// Whether a change has touched links, so that who can reach whom must be looked at.
    pub(crate) links_changed: bool,
    /// The share of exchanges that is lost now.
    pub(crate) loss: f64,
    /// By how much round trips are longer now.
    pub(crate) slow_down: (f64, Duration),
    /// How many shares of nodes were drawn by [`Who`](crate::sim::Who).
    pub(crate) draws: u32,
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
        let mut population = Population::new(scenario.seed, scenario.nodes);
        let sybils = SybilSets::new(&scenario, &population);
        for (set, sybils) in scenario.sybils.iter().zip(sybils.all()) {
            if set.in_tables {
                population.add_sybils(sybils);
            }
        }
        let mut nodes = Vec::with_capacity(scenario.nodes as usize);
        let is_maintained = who::maintained(&scenario, &population);
        for index in 0..scenario.nodes {
            nodes.push(Node::new(&scenario, &population, index, is_maintained(index))?);
        }
        let checkers = scenario.check_invariants.then(|| Checkers::new(scenario.config.clone()));
        let queue = ActionQueue::new(scenario.is_maintained());
        let loss = scenario.link.loss;
        Ok(Self {
            loss,
            scenario,
            population,
            nodes,
            sybils,
            islands: 0,
            links_changed: false,
            slow_down: (1.0, Duration::ZERO),
            draws: 1,
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
    /// building of the network, and the changes. Nodes that go online and offline, Sybils that advertise themselves and
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
        self.scenario.record_key(record)
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

    /// The number of the node that has this handle now; `None` if none has.
    pub fn number(&self, node: Handle) -> Option<u32> {
        self.population.index(node)
    }

    /// How many requests of its table's maintenance a node, by number, has sent so far.
    pub fn upkeep_requests(&self, index: u32) -> u64 {
        self.nodes.get(index as usize).map_or(0, |node| u64::from(node.upkeep_requests))
    }

    /// How often the engine of a node, by number, was woken so far.
    pub fn wakes(&self, index: u32) -> u64 {
        self.nodes.get(index as usize).map_or(0, |node| u64::from(node.wakes))
    }

    /// The class of a node in [`Latency::Classes`](crate::sim::Latency::Classes), from 0; `None` for other round trips.
    pub fn latency_class(&self, node: Handle) -> Option<usize> {
        self.scenario.link.round_trip.class_of(&self.trip(node, node))
    }

    /// The engine of a node; `None` if it is offline, dead, or no node of this network.
    pub fn engine(&self, node: Handle) -> Option<&Coordinator<Net>> {
        self.node(node).filter(|node| node.up)?.engine.as_ref()
    }

    /// The nodes of an honest answer of this node now: those closest to the target in its table, closest first, at most as
    /// many as [answers name](crate::sim::Answers::names). Empty if it has no [`engine`](World::engine).
    pub fn closest_known(&self, node: Handle, target: Key64) -> Vec<Handle> {
        self.closest_in_table(node, target, usize::from(self.scenario.answers.names))
    }

    /// The nodes of this node's table that are closest to the target, closest first, at most so many.
    pub fn closest_in_table(&self, node: Handle, target: Key64, count: usize) -> Vec<Handle> {
        let records = self.engine(node).into_iter().flat_map(|engine| engine.table().closest(target));
        records.take(count).map(|record| *record.node()).collect()
    }

    /// The k nodes closest to a key among those that would answer a request of `asker` now, without `asker`;
    /// closest first.
    pub fn truly_closest(&self, target: Key64, asker: Handle) -> Vec<Handle> {
        // The asker may have another handle by now than when it asked.
        let own = self.population.index_ever(asker).map_or(asker, |index| self.population.handle(index));
        let counts = |node: Handle| node != own && self.answers(node) && !self.is_separated(own, node);
        self.population.closest(target, self.scenario.k, counts)
    }

    /// The sets of Sybils, in the order of the scenario, each with the closest to its place first.
    pub fn sybils(&self) -> impl Iterator<Item = &[Handle]> {
        self.sybils.all().iter().map(Vec::as_slice)
    }

    pub(crate) fn node(&self, node: Handle) -> Option<&Node> {
        self.nodes.get(self.population.index(node)? as usize)
    }

    /// Whether a node is online, reachable, serves and answers.
    pub(crate) fn answers(&self, node: Handle) -> bool {
        let party = |number: u8| self.scenario.hostile.get(usize::from(number));
        self.node(node).is_some_and(|node| {
            node.up
                && node.reachable
                && node.serves
                && self.now >= node.asleep_until
                && node.party.and_then(party).is_none_or(|party| party.behaviour.answers())
        })
    }

    pub(crate) fn is_sybil(&self, node: Handle) -> bool {
        self.sybils.set_of(node).is_some()
    }

    /// Whether a request to this node arrives at anything that may answer.
    pub(crate) fn is_askable(&self, node: Handle) -> bool {
        match self.node(node) {
            Some(node) => node.up && node.reachable && self.now >= node.asleep_until,
            None => {
                self.is_sybil(node)
                    || (node.is_accomplice() && self.accomplice_party().is_some())
                    || (node.is_made_up() && self.made_up_party().is_some())
            }
        }
    }

    /// The party, by index, that accomplices belong to.
    pub(crate) fn accomplice_party(&self) -> Option<usize> {
        self.scenario.hostile.iter().position(|party| party.behaviour.has_accomplices())
    }

    /// The party, by index, that made-up nodes belong to.
    pub(crate) fn made_up_party(&self) -> Option<usize> {
        self.scenario.hostile.iter().position(|party| party.behaviour.has_made_up_nodes())
    }

    /// How a node behaves that is not honest; `None` if it is, or does not exist.
    pub(crate) fn behaviour_of(&self, node: Handle) -> Option<&Arc<dyn Behaviour>> {
        if let Some(set) = self.sybils.set_of(node) {
            return self.scenario.sybils.get(set).map(|sybils| &sybils.behaviour);
        }
        let party = match self.node(node) {
            Some(node) => node.party.map(usize::from),
            None if node.is_accomplice() => self.accomplice_party(),
            None if node.is_made_up() => self.made_up_party(),
            None => None,
        };
        party.and_then(|party| self.scenario.hostile.get(party)).map(|party| &party.behaviour)
    }

    /// Whether a partition separates these two now, or the link of one of them is down.
    pub(crate) fn is_separated(&self, from: Handle, to: Handle) -> bool {
        (self.links_changed && self.is_cut(from, to))
            || self
                .scenario
                .partition
                .as_ref()
                .is_some_and(|partition| partition.separates(self.now, from, to))
    }

    fn is_cut(&self, from: Handle, to: Handle) -> bool {
        let link =
            |handle| self.node(handle).map_or((false, 0), |node| (node.link_down.is_some(), node.island));
        let ((from_down, from_island), (to_down, to_island)) = (link(from), link(to));
        from_down || to_down || from_island != to_island
    }

    /// An exchange between these two now.
    pub(crate) fn trip(&self, from: Handle, to: Handle) -> Trip {
        let (from_number, to_number) = (self.population.index(from), self.population.index(to));
        Trip { from, to, from_number, to_number, at: self.now, unit: 0.0, seed: self.scenario.seed }
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
