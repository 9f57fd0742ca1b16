//! One node of a world.

use super::behaviour::Party;
use super::ideal::Population;
use super::join::Build;
use super::nodes::Net;
use super::random::{Draw, Purpose};
use super::scenario::Scenario;
use crate::coordinator::{Config, Coordinator};
use crate::error::ConfigError;
use crate::machine::Machine;
use crate::table::RoutingTable;
use crate::time::Instant;
use std::collections::BTreeSet;

/// One node: its engine, when it is to be woken, and what it is like.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // four independent facts
pub(crate) struct Node {
    /// `None` where the node has been dead from the beginning, or keeps its table itself and is away.
    pub(crate) engine: Option<Coordinator<Net>>,
    /// How often it has begun anew. An answer to what it asked before is not for the engine that it has now.
    pub(crate) life: u32,
    /// How many requests it has sent that were not for lookups.
    pub(crate) upkeep: u32,
    /// The earliest wake-up that is planned; `FAR_FUTURE` where none is.
    pub(crate) wake: Instant,
    /// Whether it is there.
    pub(crate) up: bool,
    /// Whether it has yet to know of round trips measured before the run.
    pub(crate) cold: bool,
    pub(crate) slow: bool,
    /// Whether others can ask it.
    pub(crate) open: bool,
    /// The records it holds, by number.
    pub(crate) held: BTreeSet<u32>,
    /// How many lookups it has yet to make before its first broadcast; `None` where it has not begun to.
    pub(crate) lessons: Option<u32>,
    /// When it began to make them.
    pub(crate) learnt: Instant,
    /// The party it belongs to, if it is not honest.
    pub(crate) party: Option<u8>,
}

impl Node {
    pub(crate) fn new(scenario: &Scenario, population: &Population, index: u32) -> Result<Self, ConfigError> {
        let ideal = scenario.build == Build::Ideal;
        let mut draw = Draw::new(scenario.seed, Purpose::Nature, [u64::from(index)]);
        let seed = scenario.is_seed(index);
        let (slow, open) = (draw.chance(scenario.slow.share), !draw.chance(scenario.nat) || seed);
        let party = Party::of(&scenario.hostile, draw.unit()).filter(|_| !seed);
        let engine = if (ideal && dead(scenario, index)) || matches!(scenario.build, Build::Bootstrap(_)) {
            None
        } else {
            Some(engine(scenario, population, index, ideal)?)
        };
        let (up, cold) = (ideal && engine.is_some(), ideal && scenario.warm);
        let (wake, held) = (Instant::FAR_FUTURE, BTreeSet::new());
        Ok(Self {
            engine,
            life: 0,
            upkeep: 0,
            wake,
            up,
            cold,
            slow,
            open,
            held,
            lessons: None,
            learnt: wake,
            party,
        })
    }

    /// Begins anew, knowing nobody and holding nothing.
    pub(crate) fn begin(&mut self, scenario: &Scenario, population: &Population, index: u32) {
        self.life += 1;
        self.held.clear();
        self.lessons = None;
        self.wake = Instant::FAR_FUTURE;
        self.engine = engine(scenario, population, index, false).ok(); // the configuration has been checked before
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Machine::poll_timeout)
    }
}

/// The engine of a node, which begins with an ideal table or with an empty one.
fn engine(
    scenario: &Scenario,
    population: &Population,
    index: u32,
    ideal: bool,
) -> Result<Coordinator<Net>, ConfigError> {
    let config = config(scenario, index);
    let k = u32::try_from(config.table.bucket_size).unwrap_or(u32::MAX);
    let mut table = RoutingTable::new(population.handle(index).key(), config.table.clone())?;
    if ideal {
        population.view(index, k, |cpl, known| table.fill(Instant::ORIGIN, cpl, known));
        table.shrink();
    }
    Coordinator::with_table(table, config)
}

/// The configuration of a node: chance is its own.
pub(crate) fn config(scenario: &Scenario, index: u32) -> Config {
    let mut config = scenario.config.clone();
    config.routing.seed = Draw::new(scenario.seed, Purpose::Routing, [u64::from(index)]).number();
    config
}

/// Whether a node is dead once the network is built.
pub(crate) fn dead(scenario: &Scenario, index: u32) -> bool {
    !scenario.is_seed(index)
        && Draw::new(scenario.seed, Purpose::Dead, [u64::from(index)]).chance(scenario.dead)
}
