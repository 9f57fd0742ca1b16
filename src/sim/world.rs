//! [`World`]: a simulated network, and its event loop.

use super::broadcast::Broadcast;
use super::check::{Broken, Checker, Rule};
use super::event::{Event, Fingerprint};
use super::figures::{BroadcastFigures, Figures};
use super::health::{Health, Upkeep};
use super::ideal::Population;
use super::join::Build;
use super::lookup::Lookup;
use super::node::Node;
use super::nodes::{Handle, Key64, Net};
use super::queue::{Plan, Queue};
use super::random::{Draw, Purpose};
use super::scenario::Scenario;
#[cfg(feature = "record")]
use super::tapes::Tapes;
use crate::coordinator::{Coordinator, Outbound};
use crate::error::ConfigError;
use crate::id::OperationId;
use crate::machine::Batch;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// A simulated network, and how far it has come.
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) population: Population,
    pub(crate) nodes: Vec<Node>,
    /// The closest to their victim first.
    pub(crate) sybils: Vec<Handle>,
    pub(crate) queue: Queue,
    pub(crate) now: Instant,
    pub(crate) lookups: Vec<Lookup>,
    /// How many lookups of the workload have begun.
    pub(crate) begun: u32,
    pub(crate) broadcasts: Vec<Broadcast>,
    /// Broadcasts whose nodes have not learnt enough yet, by node, by number.
    pub(crate) learning: BTreeMap<u32, Vec<u32>>,
    /// Lookups of which every request is kept, by number.
    pub(crate) kept: BTreeSet<u32>,
    /// Lookups and broadcasts that live, by node and tag.
    pub(crate) running: BTreeMap<(u32, u32), OperationId>,
    /// How many lookups of the workload and broadcasts have begun and not ended.
    pub(crate) awaited: u32,
    /// Spans made so far.
    pub(crate) spans: u64,
    events: u64,
    fingerprint: Fingerprint,
    log: Option<Log>,
    pub(crate) health: Vec<Health>,
    /// Requests that were not for lookups, since tables were last looked at.
    pub(crate) upkeep: Upkeep,
    pub(crate) checker: Option<Checker>,
    pub(crate) broken: Option<Box<Broken>>,
    #[cfg(feature = "record")]
    pub(crate) tapes: Tapes,
    /// Kept between calls.
    pub(crate) batch: Batch<Outbound<Net>>,
}

type Log = Box<dyn FnMut(Instant, &Event) + Send>;

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
    /// Builds the network at virtual time zero: every node with an ideal table, or nobody yet where they are to join.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field of the scenario that is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, ConfigError> {
        scenario.validate()?;
        let population = Population::new(scenario.seed, scenario.nodes);
        let mut nodes = Vec::with_capacity(scenario.nodes as usize);
        for index in 0..scenario.nodes {
            nodes.push(Node::new(&scenario, &population, index)?);
        }
        let sybils =
            scenario.sybils.map_or_else(Vec::new, |sybils| sybils.all(population.handle(sybils.victim)));
        let checker = scenario.check.then(|| Checker::new(scenario.config.network.request_timeout));
        let queue = Queue::new(scenario.is_maintained());
        let mut world = Self {
            scenario,
            population,
            nodes,
            sybils,
            queue,
            now: Instant::ORIGIN,
            lookups: Vec::new(),
            begun: 0,
            broadcasts: Vec::new(),
            learning: BTreeMap::new(),
            kept: BTreeSet::new(),
            running: BTreeMap::new(),
            awaited: 0,
            spans: 0,
            events: 0,
            fingerprint: Fingerprint::new(),
            log: None,
            health: Vec::new(),
            upkeep: Upkeep::default(),
            checker,
            broken: None,
            #[cfg(feature = "record")]
            tapes: Tapes::default(),
            batch: Batch::new(),
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        if self.scenario.health.is_some() {
            self.queue.plan(Instant::ORIGIN, Plan::Health);
        }
        if let Some(sybils) = self.scenario.sybils {
            self.queue.plan(Instant::ORIGIN + sybils.from, Plan::Intrude(0));
        }
        match self.scenario.build {
            Build::Ideal => self.built(),
            build => {
                self.queue.plan(Instant::ORIGIN, Plan::Join(0));
                self.queue.plan(Instant::ORIGIN + build.takes(self.scenario.nodes), Plan::Built);
            }
        }
    }

    /// Calls this function with every event from now on.
    pub fn set_log(&mut self, log: impl FnMut(Instant, &Event) + Send + 'static) {
        self.log = Some(Box::new(log));
    }

    /// Does what is to happen next. Says whether anything was.
    ///
    /// # Errors
    /// [`Broken`] once an invariant did not hold, if the scenario has them checked.
    pub fn step(&mut self) -> Result<bool, Box<Broken>> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        #[cfg(feature = "record")]
        self.tapes.close();
        let Some((at, plan)) = self.queue.pop() else { return Ok(false) };
        self.now = at;
        match plan {
            Plan::Start => self.start(),
            Plan::Broadcast => self.broadcast(),
            Plan::Publish(index, number) => self.publish(index, number),
            Plan::StopBroadcast(number) => self.stop_broadcast(number),
            Plan::Judge(number) => self.judge(number),
            Plan::Join(index) => self.join(index),
            Plan::Refresh(index, left) => self.refresh(index, left),
            Plan::Built => self.built(),
            Plan::Turn(index, times) => self.turn(index, times),
            Plan::Stop(lookup) => self.stop(lookup),
            Plan::Meet { node, asker, work, took } => self.meet(node, asker, work, took),
            Plan::Intrude(time) => self.intrude(time),
            Plan::Health => self.look(),
            Plan::Wake(index) => self.wake(index),
            Plan::Ask(flight) => self.ask(flight),
            Plan::Answer(flight, closer) => self.answer(&flight, closer),
            Plan::Refused(flight) => self.refused(&flight),
        }
        self.broken.clone().map_or(Ok(true), Err)
    }

    /// Runs until nothing is left to happen but that nodes come, go and keep their tables.
    ///
    /// # Errors
    /// [`Broken`] once an invariant did not hold, if the scenario has them checked.
    pub fn run(&mut self) -> Result<(), Box<Broken>> {
        while self.is_busy() {
            self.step()?;
        }
        let now = self.scenario.is_maintained().then_some(self.now);
        if let Some(Err((node, rule, detail))) = self.checker.as_ref().map(|checker| checker.at_end(now)) {
            self.broken(node, rule, detail);
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Runs until this instant, at which nothing has happened yet. Says whether anything is left to happen but that
    /// nodes come, go and keep their tables.
    ///
    /// # Errors
    /// [`Broken`] once an invariant did not hold, if the scenario has them checked.
    pub fn run_until(&mut self, end: Instant) -> Result<bool, Box<Broken>> {
        while self.is_busy() && self.queue.next_at().is_some_and(|at| at < end) {
            self.step()?;
        }
        Ok(self.is_busy())
    }

    /// Whether anything is left to happen but that nodes come, go and keep their tables: what [`run`](World::run) goes on for.
    pub fn is_busy(&self) -> bool {
        self.queue.is_busy() || self.awaited > 0
    }

    /// Virtual time: that of the last thing that happened.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What this is a run of.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// All lookups that have begun, in order; those of joining nodes too.
    pub fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    /// How many lookups of the workload have begun.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// All broadcasts that have begun, in order.
    pub fn broadcasts(&self) -> &[Broadcast] {
        &self.broadcasts
    }

    /// The figures of the broadcasts so far.
    pub fn broadcast_figures(&self) -> BroadcastFigures {
        BroadcastFigures::of(&self.broadcasts)
    }

    /// The records that a node holds, by number, in order.
    pub fn held(&self, node: Handle) -> impl Iterator<Item = u32> {
        self.node(node).into_iter().flat_map(|node| node.held.iter().copied())
    }

    /// Whether a node holds a record.
    pub fn holds(&self, node: Handle, record: u32) -> bool {
        self.node(node).is_some_and(|node| node.held.contains(&record))
    }

    /// The key of a record, by number.
    pub fn record_key(&self, record: u32) -> Key64 {
        Handle::point(self.chance(Purpose::Record, record).below(Handle::NODES)).key()
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.lookups)
    }

    /// What the routing tables looked like whenever the scenario had them looked at.
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

    /// The handle of node `index`, of those that the scenario's `nodes` counts.
    pub fn handle(&self, index: u32) -> Handle {
        self.population.handle(index)
    }

    /// The engine of a node, if it is there.
    pub fn engine(&self, node: Handle) -> Option<&Coordinator<Net>> {
        self.node(node).filter(|node| node.up)?.engine.as_ref()
    }

    /// The nodes that an honest node at hand would name now: the closest that its table knows. Nothing where it cannot
    /// be asked.
    pub fn closest_known(&self, node: Handle, target: Key64) -> Vec<Handle> {
        let records = self.engine(node).into_iter().flat_map(|engine| engine.table().closest(target));
        records.take(self.scenario.k).map(|record| *record.node()).collect()
    }

    /// The k nodes closest to a key among those that `asker` can ask now, closest first.
    pub fn truly_closest(&self, target: Key64, asker: Handle) -> Vec<Handle> {
        let counts = |node: Handle| node != asker && self.answers(node) && !self.cut(asker, node);
        self.population.closest(target, self.scenario.k, counts)
    }

    /// What becomes of a request that would be sent now, the `tries`-th of this lookup to this node: the round trip, or
    /// nothing where it is lost or nobody answers. The same draw as the engine's own request would get.
    pub fn round_trip(&self, lookup: u32, from: Handle, to: Handle, tries: u64) -> Option<Duration> {
        let exchange = self.exchange(lookup, from, to, tries);
        let lost = exchange.request_lost || exchange.answer_lost || !self.answers(to);
        (!lost && !self.cut(from, to)).then(|| exchange.there + exchange.back)
    }

    pub(crate) fn node(&self, node: Handle) -> Option<&Node> {
        self.nodes.get(self.population.index(node)? as usize)
    }

    /// Whether a node is there, can be asked and answers.
    pub(crate) fn answers(&self, node: Handle) -> bool {
        let party = |number: u8| self.scenario.hostile.get(usize::from(number));
        self.node(node).is_some_and(|node| {
            node.up && node.open && node.party.and_then(party).is_none_or(|party| party.behaviour.answers())
        })
    }

    /// Whether this is one of the Sybils.
    pub(crate) fn is_sybil(&self, node: Handle) -> bool {
        node.group().is_some() && self.sybils.contains(&node)
    }

    /// Whether a partition keeps these two apart now.
    pub(crate) fn cut(&self, from: Handle, to: Handle) -> bool {
        self.scenario.partition.as_ref().is_some_and(|partition| partition.cuts(self.now, from, to))
    }

    pub(crate) fn note(&mut self, event: &Event) {
        self.events += 1;
        self.fingerprint.take(self.now, event);
        if let Some(log) = &mut self.log {
            log(self.now, event);
        }
    }

    pub(crate) fn broken(&mut self, node: Handle, rule: Rule, detail: String) {
        let seed = self.scenario.seed;
        let replay = self.scenario.replay.replace("{seed}", &seed.to_string());
        let replay = replay.replace("{node}", &node.0.to_string());
        self.broken
            .get_or_insert_with(|| Box::new(Broken { rule, detail, at: self.now, node, seed, replay }));
    }

    /// A stream of chance for an index.
    pub(crate) fn chance(&self, purpose: Purpose, index: u32) -> Draw {
        Draw::new(self.scenario.seed, purpose, [u64::from(index)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_invariant_is_reported_with_the_way_to_see_it_again() {
        let replay = "replay --seed {seed} --record {node}".to_owned();
        let mut world =
            World::new(Scenario { nodes: 100, seed: 42, check: true, replay, ..Scenario::default() })
                .unwrap();
        assert_eq!(world.run_until(Instant::from_millis(50)), Ok(true));
        // A request that the checker has not seen: as if the engine had sent one without counting it.
        let (node, _) = *world.running.keys().next().unwrap();
        world.checker = Some(Checker::new(Duration::from_secs(2)));
        world.wake_at_once(node);
        let broken = world.run().unwrap_err();
        let replay = format!("replay --seed 42 --record {}", world.handle(node).0);
        assert_eq!((broken.seed, &broken.replay), (42, &replay));
        assert!(broken.to_string().contains("seed 42"), "{broken}");
        assert_eq!(world.step(), Err(broken), "the run is over");
    }

    #[cfg(feature = "record")]
    #[test]
    fn what_broke_an_invariant_is_in_the_recording() {
        use crate::coordinator::Inbound;
        use crate::record::{Call, Keep, Recording, replay};

        let world = || World::new(Scenario { nodes: 100, check: true, ..Scenario::default() }).unwrap();
        let mut first = world();
        assert_eq!(first.run_until(Instant::from_millis(50)), Ok(true));
        let (node, _) = *first.running.keys().next().unwrap();
        // The same again, recorded, until somebody has forgotten the requests that are under way.
        let mut world = world();
        assert_eq!(world.record(node, Keep::All, true), Ok(()));
        assert_eq!(world.run_until(Instant::from_millis(50)), Ok(true));
        world.checker = Some(Checker::new(Duration::from_secs(2)));
        world.wake_at_once(node);
        let broken = world.run().unwrap_err();
        assert_eq!(broken.node, world.handle(node));
        let [bytes] = &world.recordings(node)[..] else { unreachable!() };
        let replayed = replay::<Net>(bytes).unwrap();
        assert_eq!(replayed.difference, None);
        let last = Recording::<Net>::open(bytes).unwrap().calls().last().unwrap().unwrap();
        let Call { number, now, event, .. } = last;
        assert_eq!((number, now, event.event), (replayed.calls, broken.at, Inbound::Tick));
        assert!(number > 1, "{number}");
    }
}
