//! The [changes](crate::sim::Change) of a scenario.

use crate::coordinator::Coordinator;
use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::routing::table::{RoutingTable, SavedNode};
use crate::sim::network::handle::{Handle, Net};
use crate::sim::scenario::change::{Effect, Sends};
use crate::sim::scenario::who::Who;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::sim::world::node::Node;
use crate::sim::world::who::Chooser;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::time::Instant;
use core::time::Duration;

impl World {
    /// Lets this happen now, between two steps.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field that is out of bounds.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), ConfigError> {
        effect.validate(self.scenario.nodes)?;
        self.perform_effect(effect);
        Ok(())
    }

    /// Schedules the changes of the scenario, and the end of the time that it lasts at least.
    pub(super) fn schedule_changes(&mut self) {
        for (number, change) in (0..).zip(&self.scenario.changes) {
            self.queue.schedule(self.now + change.at, Action::Change(number));
        }
        if !self.scenario.lasts.is_zero() {
            self.queue.schedule(self.now + self.scenario.lasts, Action::Lasted);
        }
    }

    /// A change of the scenario, by number, happens.
    pub(super) fn change(&mut self, number: u32) {
        let change = self.scenario.changes.get(number as usize).cloned();
        if let Some(change) = change {
            self.perform_effect(&change.effect);
        }
    }

    fn perform_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::LinkDown { who, sends } => {
                let who = self.choose(who);
                self.set_links(&who, Some(*sends));
            }
            Effect::LinkUp { who } => {
                let who = self.choose(who);
                self.set_links(&who, None);
            }
            Effect::TellLink { who, up } => {
                for index in self.choose(who) {
                    self.tell(index, if *up { RoutingInbound::LinkUp } else { RoutingInbound::LinkDown });
                }
            }
            Effect::Sleep { who, time } => {
                let (who, until) = (self.choose(who), self.now + *time);
                self.for_each(&who, |node| node.asleep_until = node.asleep_until.max(until));
            }
            Effect::Separate { who } => {
                let who = self.choose(who);
                self.islands = self.islands.saturating_add(1);
                let island = self.islands;
                self.for_each(&who, |node| node.island = island);
                self.links_changed = true;
            }
            Effect::Heal => {
                self.islands = 0;
                self.nodes.iter_mut().for_each(|node| node.island = 0);
            }
            Effect::Kill { who } => {
                for index in self.choose(who) {
                    self.for_each(&[index], |node| node.killed = node.up);
                    self.take_down(index);
                }
            }
            Effect::Restart { who, snapshot } => {
                for index in self.choose(who) {
                    let now = self.now;
                    self.for_each(&[index], |node| {
                        if node.up {
                            node.snapshot = node.saved(now);
                        }
                    });
                    self.take_down(index);
                    self.start_anew(index, *snapshot);
                }
            }
            Effect::Restore { who, contacts } => {
                let age = Duration::ZERO;
                let saved: Vec<_> =
                    contacts.iter().map(|node| SavedNode { node: *node, age, round_trip: None }).collect();
                for index in self.choose(who) {
                    self.tell(index, RoutingInbound::Restore(saved.clone()));
                }
            }
            Effect::Seeds { who, seeds } => {
                for index in self.choose(who) {
                    self.tell(index, RoutingInbound::Seeds(seeds.clone()));
                }
            }
            Effect::Move { who } => {
                for index in self.choose(who) {
                    self.close_connections(index);
                    self.population.move_node(index);
                }
            }
            Effect::ChangeId { who } => {
                for index in self.choose(who) {
                    self.change_id(index);
                }
            }
            Effect::Serve { who, serve } => {
                for index in self.choose(who) {
                    self.for_each(&[index], |node| node.serves = *serve);
                    self.tell_of_mode(index, *serve);
                }
            }
            Effect::Loss(loss) => self.loss = *loss,
            Effect::SlowDown { factor, add } => self.slow_down = (*factor, *add),
        }
    }

    /// The nodes that are meant, by number, in order. Each call draws another share.
    fn choose(&mut self, who: &Who) -> Vec<u32> {
        self.draws += 1;
        self.chooser(self.draws, |chooser| chooser.choose(who))
    }

    /// Whether a node is among those that start operations; a share of them is the same throughout the run.
    pub(super) fn starts(&self, who: &Who, index: u32) -> bool {
        const STARTERS: u32 = 1;
        self.chooser(STARTERS, |chooser| chooser.is_among(who, index))
    }

    fn chooser<T>(&self, draw: u32, with: impl FnOnce(&Chooser<'_>) -> T) -> T {
        let known = |index: u32, count: usize| {
            let node = self.population.handle(index);
            self.closest_in_table(node, node.key(), count)
        };
        with(&Chooser { scenario: &self.scenario, population: &self.population, draw, known: &known })
    }

    fn for_each(&mut self, who: &[u32], mut change: impl FnMut(&mut Node)) {
        for index in who {
            if let Some(node) = self.nodes.get_mut(*index as usize) {
                change(node);
            }
        }
    }

    fn set_links(&mut self, who: &[u32], down: Option<Sends>) {
        self.for_each(who, |node| node.link_down = down);
        self.links_changed = true;
        if down.is_some() {
            for index in who {
                self.close_connections(*index);
            }
        }
    }

    /// All connections of a node, by index, are lost, on both sides.
    pub(super) fn close_connections(&mut self, index: u32) {
        if self.scenario.link.dial.is_none() {
            return;
        }
        let handle = self.population.handle(index);
        self.for_each(&[index], |node| node.connections = Some(Box::default()));
        for node in &mut self.nodes {
            if let Some(connections) = &mut node.connections {
                connections.close(handle);
            }
        }
    }

    /// Tells something to the engine of a node, by index, if it is there.
    pub(super) fn tell(&mut self, index: u32, event: RoutingInbound<Net>) {
        if self.is_awake(index) {
            let stamped = Stamped::new(Inbound::Routing(event)).in_span(self.root_span());
            self.call_engine(index, stamped);
        }
    }

    /// A node has told those that hold it in their tables whether it serves.
    fn tell_of_mode(&mut self, index: u32, serve: bool) {
        let node = self.population.handle(index);
        let holds = |other: &&(u32, Option<&Coordinator<Net>>)| {
            other.1.is_some_and(|engine| engine.table().get(&node).is_some())
        };
        let engines =
            (0..).zip(&self.nodes).map(|(other, node)| (other, node.engine.as_ref().filter(|_| node.up)));
        let engines: Vec<_> = engines.collect();
        let holders: Vec<u32> = engines.iter().filter(holds).map(|(other, _)| *other).collect();
        // One that serves again is in no table: it tells those that it knows.
        let table = self.engine(node).map(Coordinator::table).into_iter().flat_map(RoutingTable::iter);
        let known: Vec<Handle> = table.map(|entry| *entry.node()).collect();
        let told = known.into_iter().filter_map(|known| self.population.index(known));
        let told: Vec<u32> = if serve { told.collect() } else { holders };
        for other in told {
            if !self.is_separated(node, self.population.handle(other)) {
                let event = if serve { RoutingInbound::Server(node) } else { RoutingInbound::Client(node) };
                self.tell(other, event);
            }
        }
    }

    fn change_id(&mut self, index: u32) {
        // A machine that sleeps takes no other id.
        if self.wakes_at(index).is_some() {
            return;
        }
        self.close_connections(index);
        if !self.population.give_another_id(index) {
            return;
        }
        let key = self.population.handle(index).key();
        if let Some(checkers) = &mut self.checkers {
            checkers.exempt(index);
        }
        self.tell(index, RoutingInbound::Identity(key));
    }

    /// Whether a node, by index, is online and its machine does not sleep.
    pub(super) fn is_awake(&self, index: u32) -> bool {
        self.nodes.get(index as usize).is_some_and(|node| node.up && self.now >= node.asleep_until)
    }

    /// When the machine of a node wakes that sleeps now.
    pub(super) fn wakes_at(&self, index: u32) -> Option<Instant> {
        let until = self.nodes.get(index as usize)?.asleep_until;
        (until > self.now).then_some(until)
    }
}
