//! [`Node`]: one node of a world, with its engine.

use crate::coordinator::Coordinator;
use crate::routing::config::RoutingConfig;
use crate::routing::table::{RoutingTable, SavedNode};
use crate::sim::network::handle::Net;
use crate::sim::network::population::Population;
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::Scenario;
use crate::sim::scenario::behaviour::Party;
use crate::sim::scenario::build::Build;
use crate::sim::scenario::change::Sends;
use crate::sim::world::connections::Connections;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::machine::Machine;
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::Instant;
use std::collections::BTreeSet;

/// One node: its engine, its next wake-up, and its traits.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(crate) struct Node {
    /// `None` if the node has been dead from the beginning, or its maintenance is on and it is offline.
    pub(crate) engine: Option<Coordinator<Net>>,
    /// How often it has restarted with an empty table. An engine does not receive the answers to requests of an
    /// earlier one.
    pub(crate) incarnation: u32,
    /// How many requests of the table's maintenance it has sent.
    pub(crate) upkeep_requests: u32,
    /// The earliest wake-up that is scheduled; `FAR_FUTURE` where none is.
    pub(crate) next_wake: Instant,
    /// How often its engine was woken.
    pub(crate) wakes: u32,
    /// Whether it is online.
    pub(crate) up: bool,
    /// Whether it was killed in the session that its churn has planned: then it is absent as long as after one.
    pub(crate) killed: bool,
    /// Whether it serves others.
    pub(crate) serves: bool,
    /// Whether its link is down, and what then becomes of what it sends.
    pub(crate) link_down: Option<Sends>,
    /// Which of the sets that are separated from each other it is in.
    pub(crate) island: u8,
    /// Until when its machine sleeps.
    pub(crate) asleep_until: Instant,
    /// Its table when it went offline, if it keeps its table itself, and when that was.
    pub(crate) snapshot: Option<(Instant, Vec<SavedNode<Net>>)>,
    /// Its connections, once it has any.
    pub(crate) connections: Option<Box<Connections>>,
    /// Whether its engine has yet to receive the round trips that were measured before the run.
    pub(crate) known_round_trips_pending: bool,
    pub(crate) slow: bool,
    /// Whether requests reach it: not so behind a NAT.
    pub(crate) reachable: bool,
    /// The records it holds, by number.
    pub(crate) records: BTreeSet<u32>,
    /// How many warm-up lookups have yet to end before its broadcasts begin; `None` if it has not begun them.
    pub(crate) warmup_left: Option<u32>,
    /// When it began its warm-up lookups.
    pub(crate) warmup_began: Instant,
    /// The party it belongs to, by index, if it is not honest.
    pub(crate) party: Option<u8>,
    /// Whether it keeps its table itself.
    pub(crate) maintained: bool,
}

impl Node {
    /// A node of the network, which keeps its table itself if `maintained`.
    pub(crate) fn new(
        scenario: &Scenario,
        population: &Population,
        index: u32,
        maintained: bool,
    ) -> Result<Self, ConfigError> {
        let ideal = scenario.build == Build::Ideal;
        let mut random = Random::new(scenario.seed, Stream::Traits, [u64::from(index)]);
        let seed = scenario.is_seed(index);
        let (slow, reachable) = (random.chance(scenario.slow.share), !random.chance(scenario.nat) || seed);
        let party = Party::choose(&scenario.hostile, random.unit()).filter(|_| !seed);
        let engine = if (ideal && is_dead(scenario, index)) || matches!(scenario.build, Build::Bootstrap(_)) {
            None
        } else {
            Some(new_engine(scenario, population, index, ideal, maintained)?)
        };
        let up = ideal && engine.is_some();
        let known_round_trips_pending = ideal && scenario.known_round_trips > 0;
        Ok(Self {
            engine,
            incarnation: 0,
            upkeep_requests: 0,
            next_wake: Instant::FAR_FUTURE,
            wakes: 0,
            up,
            killed: false,
            serves: true,
            link_down: None,
            island: 0,
            asleep_until: Instant::ORIGIN,
            snapshot: None,
            connections: None,
            known_round_trips_pending,
            slow,
            reachable,
            records: BTreeSet::new(),
            warmup_left: None,
            warmup_began: Instant::FAR_FUTURE,
            party,
            maintained,
        })
    }

    /// Its table as it would save it now.
    pub(crate) fn saved(&self, now: Instant) -> Option<(Instant, Vec<SavedNode<Net>>)> {
        self.engine.as_ref().map(|engine| (now, engine.snapshot(now)))
    }

    /// Restarts it with an empty table and no records.
    pub(crate) fn restart(&mut self, scenario: &Scenario, population: &Population, index: u32) {
        self.incarnation += 1;
        self.records.clear();
        self.warmup_left = None;
        self.asleep_until = Instant::ORIGIN;
        self.killed = false;
        self.next_wake = Instant::FAR_FUTURE;
        // The configuration was validated before.
        self.engine = new_engine(scenario, population, index, false, self.maintained).ok();
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Machine::poll_timeout)
    }
}

/// A new engine for a node, with an ideal table or an empty one.
fn new_engine(
    scenario: &Scenario,
    population: &Population,
    index: u32,
    ideal: bool,
    maintained: bool,
) -> Result<Coordinator<Net>, ConfigError> {
    let (mut config, seeds) = (scenario.config.clone(), engine_seeds(scenario, index));
    if !maintained {
        config.routing = RoutingConfig::off();
    }
    let k = u32::try_from(config.table.bucket_size).unwrap_or(u32::MAX);
    let as_many = u16::try_from(config.query.k).unwrap_or(u16::MAX);
    let answers = scenario.answers.told.unwrap_or(as_many);
    let table = RoutingTable::with_seeds(population.handle(index).key(), config.table.clone(), &seeds)?;
    let mut table = table.with_family(Net::answering(answers));
    if ideal {
        population.ideal_table(index, k, |cpl, known| table.fill(Instant::ORIGIN, cpl, known));
        table.shrink();
    }
    Coordinator::with_table(table, config, &seeds)
}

/// The seeds of a node's engine.
pub(crate) fn engine_seeds(scenario: &Scenario, index: u32) -> Seeds {
    Seeds::unguarded(Random::new(scenario.seed, Stream::Engine, [u64::from(index)]).number())
}

/// Whether a node is dead once the network is built.
pub(crate) fn is_dead(scenario: &Scenario, index: u32) -> bool {
    !scenario.is_seed(index)
        && Random::new(scenario.seed, Stream::Dead, [u64::from(index)]).chance(scenario.dead)
}
