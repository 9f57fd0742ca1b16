//! One node of a world.

use super::behaviour::Party;
use super::ideal::Population;
use super::join::Build;
use super::nodes::Net;
use super::random::{Draw, Purpose};
use super::scenario::Scenario;
use crate::coordinator::Coordinator;
use crate::error::ConfigError;
use crate::machine::Machine;
use crate::table::RoutingTable;
use crate::time::Instant;

/// One node: its engine, when it is to be woken, and what it is like.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // four independent facts
pub(crate) struct Node {
    /// `None` where the node has been dead from the beginning.
    pub(crate) engine: Option<Coordinator<Net>>,
    /// The earliest wake-up that is planned; `FAR_FUTURE` where none is.
    pub(crate) wake: Instant,
    /// Whether it is there.
    pub(crate) up: bool,
    /// Whether it has yet to be told of round trips measured before the run.
    pub(crate) cold: bool,
    pub(crate) slow: bool,
    /// Whether others can ask it.
    pub(crate) open: bool,
    /// The party it belongs to, if it is not honest.
    pub(crate) party: Option<u8>,
}

impl Node {
    pub(crate) fn new(scenario: &Scenario, population: &Population, index: u32) -> Result<Self, ConfigError> {
        let ideal = scenario.build == Build::Ideal;
        let mut draw = Draw::new(scenario.seed, Purpose::Nature, [u64::from(index)]);
        let (slow, open) = (draw.chance(scenario.slow.share), !draw.chance(scenario.nat));
        let party = Party::of(&scenario.hostile, draw.unit());
        let engine = if ideal && dead(scenario, index) {
            None
        } else {
            let config = &scenario.config;
            let k = u32::try_from(config.table.bucket_size).unwrap_or(u32::MAX);
            let mut table = RoutingTable::new(population.handle(index).key(), config.table.clone())?;
            if ideal {
                population.view(index, k, |cpl, known| table.fill(Instant::ORIGIN, cpl, known));
                table.shrink();
            }
            Some(Coordinator::with_table(table, config.clone())?)
        };
        let (up, cold) = (ideal && engine.is_some(), ideal && scenario.warm);
        Ok(Self { engine, wake: Instant::FAR_FUTURE, up, cold, slow, open, party })
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Machine::poll_timeout)
    }
}

/// Whether a node is dead once the network is built.
pub(crate) fn dead(scenario: &Scenario, index: u32) -> bool {
    Draw::new(scenario.seed, Purpose::Dead, [u64::from(index)]).chance(scenario.dead)
}
