//! The run of a [`World`]: the event loop, which performs the scheduled actions in order of time.
//!
//! [`World::step`] takes the next action and calls the method for it. The files of this folder hold these methods:
//!
//! * `lookups`, `broadcasts` start and stop operations; `lifecycle` lets nodes join, go online and offline;
//! * `deliveries` lets requests and answers arrive;
//! * `driver` is the driver of every node: it calls the engine and performs its outbound events, with `spans` for
//!   the span contexts, `requests` for what it sends, and `endings` for operations that end;
//! * `changes` lets happen what the scenario, or code between two steps, wants to happen; `attackers` is what nodes do that
//!   are not honest, of their own accord;
//! * `health` measures the tables, and `recording` records nodes.

mod attackers;
mod broadcasts;
mod changes;
mod deliveries;
mod driver;
mod endings;
mod health;
mod lifecycle;
mod lookups;
#[cfg(feature = "record")]
mod recording;
mod requests;
mod spans;

use crate::sim::invariants::Violation;
use crate::sim::scenario::Scenario;
use crate::sim::scenario::build::Build;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::time::Instant;
use core::time::Duration;

impl World {
    /// Builds the network at virtual time zero: every node has an ideal table, or no node is online yet, where
    /// [nodes join](crate::sim::Build).
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field of the scenario that is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, ConfigError> {
        let mut world = Self::unscheduled(scenario)?;
        world.schedule_beginning();
        Ok(world)
    }

    fn schedule_beginning(&mut self) {
        if self.scenario.health.is_some() {
            self.queue.schedule(Instant::ORIGIN, Action::SampleHealth);
        }
        self.schedule_advertisements();
        match self.scenario.build {
            Build::Ideal => self.network_built(),
            build => {
                self.queue.schedule(Instant::ORIGIN, Action::Join(0));
                let end = Instant::ORIGIN + build.duration(self.scenario.nodes);
                self.queue.schedule(end, Action::NetworkBuilt);
            }
        }
    }

    /// Performs the next scheduled action. Returns `false` if there is none.
    ///
    /// # Errors
    /// [`Violation`] of an invariant, if the scenario has them checked: at this step, or at an earlier one.
    pub fn step(&mut self) -> Result<bool, Box<Violation>> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        #[cfg(feature = "record")]
        self.close_recordings();
        let Some((at, action)) = self.queue.pop() else { return Ok(false) };
        self.now = at;
        match action {
            Action::StartLookup => self.start_next_lookup(),
            Action::StartBroadcast => self.start_next_broadcast(),
            Action::SubmitBroadcast { node, broadcast } => self.submit_broadcast(node, broadcast),
            Action::StopBroadcast(number) => self.stop_broadcast(number),
            Action::MeasureCoverage(number) => self.measure_coverage(number),
            Action::Join(index) => self.join(index),
            Action::Refresh { node, left } => self.refresh(node, left),
            Action::NetworkBuilt => self.network_built(),
            Action::TogglePresence { node, changes } => self.toggle_presence(node, changes),
            Action::StopLookup(lookup) => self.stop_lookup(lookup),
            Action::ReversePing { node, asker, activity, round_trip } => {
                self.deliver_reverse_ping(node, asker, activity, round_trip);
            }
            Action::AdvertiseSybil { set, number } => self.advertise_sybil(set, number),
            Action::Act { party, number } => self.act(party, number),
            Action::Change(number) => self.change(number),
            Action::Lasted => {}
            Action::SampleHealth => self.sample_health(),
            Action::Wake(index) => self.wake(index),
            Action::DeliverRequest(sent) => self.deliver_request(sent),
            Action::DeliverAnswer(sent, closer, shows) => self.deliver_answer(&sent, closer, shows),
            Action::DeliverRefusal(sent) => self.deliver_refusal(&sent),
        }
        self.violation.clone().map_or(Ok(true), Err)
    }

    /// Runs until it is no longer [busy](World::is_busy).
    ///
    /// # Errors
    /// [`Violation`] of an invariant, if the scenario has them checked.
    pub fn run(&mut self) -> Result<(), Box<Violation>> {
        while self.is_busy() {
            self.step()?;
        }
        let now = self.scenario.is_maintained().then_some(self.now);
        if let Some(Err((index, broken))) = self.checkers.as_ref().map(|checkers| checkers.at_end(now)) {
            self.violate(self.population.handle(index), &broken);
        }
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Runs until the next action is at `end` or later, or until it is no longer [busy](World::is_busy). Returns
    /// whether it is busy.
    ///
    /// # Errors
    /// [`Violation`] of an invariant, if the scenario has them checked.
    pub fn run_until(&mut self, end: Instant) -> Result<bool, Box<Violation>> {
        while self.is_busy() && self.queue.next_at().is_some_and(|at| at < end) {
            self.step()?;
        }
        Ok(self.is_busy())
    }
}

impl World {
    /// Runs for this time, whether it is busy or not: in a network whose nodes keep their tables themselves, something
    /// always happens.
    ///
    /// # Errors
    /// [`Violation`] of an invariant, if the scenario has them checked.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Box<Violation>> {
        let end = self.now + time;
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step()?;
        }
        self.now = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::checkers::Checkers;
    #[cfg(feature = "record")]
    use crate::sim::network::handle::Net;

    #[test]
    fn a_violation_is_reported_with_the_command_that_repeats_it() {
        let replay = "replay --seed {seed} --record {node}".to_owned();
        let mut world = World::new(Scenario {
            nodes: 100,
            seed: 42,
            check_invariants: true,
            replay,
            ..Scenario::default()
        })
        .unwrap();
        assert_eq!(world.run_until(Instant::from_millis(50)), Ok(true));
        // A request that the checker has not seen: as if the engine had sent one without counting it.
        let (node, _) = *world.operations.keys().next().unwrap();
        world.checkers = Some(Checkers::new(world.scenario.config.clone()));
        world.wake_at_once(node);
        let violation = world.run().unwrap_err();
        let replay = format!("replay --seed 42 --record {}", world.handle(node).0);
        assert_eq!((violation.seed, &violation.replay), (42, &replay));
        assert!(violation.to_string().contains("seed 42"), "{violation}");
        assert_eq!(world.step(), Err(violation), "the run is over");
    }

    #[cfg(feature = "record")]
    #[test]
    fn the_call_that_violates_an_invariant_is_recorded() {
        use crate::coordinator::events::Inbound;
        use crate::record::{Call, Keep, Recording, replay};

        let world =
            || World::new(Scenario { nodes: 100, check_invariants: true, ..Scenario::default() }).unwrap();
        let mut first = world();
        assert_eq!(first.run_until(Instant::from_millis(50)), Ok(true));
        let (node, _) = *first.operations.keys().next().unwrap();
        // The same again, recorded, until the checker is replaced by one that knows no requests.
        let mut world = world();
        assert_eq!(world.record(node, Keep::All, true), Ok(()));
        assert_eq!(world.run_until(Instant::from_millis(50)), Ok(true));
        world.checkers = Some(Checkers::new(world.scenario.config.clone()));
        world.wake_at_once(node);
        let violation = world.run().unwrap_err();
        assert_eq!(violation.node, world.handle(node));
        let [bytes] = &world.recordings(node)[..] else { unreachable!() };
        let replayed = replay::<Net>(bytes).unwrap();
        assert_eq!(replayed.difference, None);
        let last = Recording::<Net>::open(bytes).unwrap().calls().last().unwrap().unwrap();
        let Call { number, now, event, .. } = last;
        assert_eq!((number, now, event.event), (replayed.calls, violation.at, Inbound::Tick));
        assert!(number > 1, "{number}");
    }
}
