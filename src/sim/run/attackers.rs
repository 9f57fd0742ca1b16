//! What [Sybils](crate::sim::Sybils) and parties do of their own accord: they advertise themselves, and
//! [act](crate::sim::Behaviour::act).

use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::Handle;
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::behaviour::{Act, Behaviour, Turn};
use crate::sim::scenario::sybils::Sybils;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::machine::Stamped;
use std::sync::Arc;

impl World {
    /// Schedules the first advertisement of each set of Sybils.
    pub(super) fn schedule_advertisements(&mut self) {
        for (set, sybils) in (0..).zip(&self.scenario.sybils) {
            if !sybils.every.is_zero() {
                self.queue.schedule(self.now + sybils.from, Action::AdvertiseSybil { set, number: 0 });
            }
        }
    }

    /// Schedules the first turn of each party and set of Sybils that acts.
    pub(super) fn schedule_acts(&mut self) {
        for (party, behaviour) in (0..).zip(self.all_behaviours()) {
            if behaviour.acts_every().is_some() {
                self.queue.schedule(self.now, Action::Act { party, number: 0 });
            }
        }
    }

    /// The behaviours of the parties, and then of the sets of Sybils.
    fn all_behaviours(&self) -> Vec<Arc<dyn Behaviour>> {
        let parties = self.scenario.hostile.iter().map(|party| &party.behaviour);
        parties.chain(self.scenario.sybils.iter().map(|sybils| &sybils.behaviour)).cloned().collect()
    }

    /// The next Sybil of a set advertises itself to one of the nodes closest to the place of the set, and to a random node;
    /// schedules the one after it.
    pub(super) fn advertise_sybil(&mut self, set: u32, number: u32) {
        let Some(Sybils { every, audience, .. }) = self.scenario.sybils.get(set as usize).cloned() else {
            return;
        };
        let next = Action::AdvertiseSybil { set, number: number.wrapping_add(1) };
        self.queue.schedule(self.now + every, next);
        let members = self.sybils.all().get(set as usize).map(Vec::as_slice).unwrap_or_default();
        let Some((place, sybil)) = members.first().zip(members.get(number as usize % members.len().max(1)))
        else {
            return;
        };
        let (place, sybil) = (place.key(), *sybil);
        let near =
            self.population.closest(place, audience as usize, |node| self.population.index(node).is_some());
        let turn = number as usize / members.len().max(1);
        let mut random = Random::new(self.scenario.seed, Stream::Sybil, [u64::from(set), u64::from(number)]);
        let anybody = self.population.handle(random.below(self.scenario.nodes));
        for node in near.get(turn % near.len().max(1)).copied().into_iter().chain([anybody]) {
            self.ask_from(node, sybil);
        }
    }

    /// A party or a set of Sybils has its turn; schedules the next one.
    pub(super) fn act(&mut self, party: u32, number: u32) {
        let Some(behaviour) = self.all_behaviours().get(party as usize).cloned() else { return };
        if let Some(every) = behaviour.acts_every() {
            self.queue.schedule(self.now + every, Action::Act { party, number: number.wrapping_add(1) });
        }
        let set = (party as usize).checked_sub(self.scenario.hostile.len());
        let members = set.and_then(|set| self.sybils.all().get(set)).map(Vec::as_slice).unwrap_or_default();
        let ids = [u64::from(party), u64::from(number)];
        let turn = Turn {
            at: self.now,
            number,
            members,
            population: &self.population,
            nodes: self.scenario.nodes,
            random: Random::new(self.scenario.seed, Stream::Turn, ids),
        };
        for act in behaviour.act(turn) {
            let Act::Ask { node, sender } = act;
            self.ask_from(node, sender);
        }
    }

    /// A request arrives at a node that says it comes from this sender.
    fn ask_from(&mut self, node: Handle, sender: Handle) {
        if self.engine(node).is_some() && self.is_askable(node) && !self.is_separated(sender, node) {
            self.emit(&SimEvent::Intruded { node, sybil: sender });
            if let Some(index) = self.population.index(node) {
                let discovered = Inbound::Routing(RoutingInbound::Discovered(sender));
                let stamped = Stamped::new(discovered).in_span(self.root_span());
                self.call_engine(index, stamped);
            }
        }
    }
}
