//! What [Sybils](crate::sim::Sybils) do: they advertise themselves, and answer with one another.

use crate::coordinator::events::Inbound;
use crate::routing::events::RoutingInbound;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::Stream;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;

impl World {
    /// The answer of a Sybil: the Sybils closest to a key, without the one that is asked.
    pub(super) fn closest_sybils(&self, asked: Handle, target: Key64) -> Vec<Handle> {
        let mut others: Vec<_> = self.sybils.iter().copied().filter(|sybil| *sybil != asked).collect();
        others.sort_unstable_by_key(|sybil| sybil.key().distance(&target));
        others.truncate(self.scenario.k);
        others
    }

    /// The next Sybil advertises itself to the victim and to a random node; schedules the one after it.
    pub(super) fn advertise_sybil(&mut self, number: u32) {
        let Some(sybils) = self.scenario.sybils else { return };
        self.queue.schedule(self.now + sybils.every, Action::AdvertiseSybil(number.wrapping_add(1)));
        let index = number as usize % self.sybils.len().max(1);
        let Some(sybil) = self.sybils.get(index).copied() else { return };
        let mut random = self.random(Stream::Sybil, number);
        for index in [sybils.victim, random.below(self.scenario.nodes)] {
            let node = self.population.handle(index);
            if self.engine(node).is_some() && !self.is_separated(sybil, node) {
                self.emit(&SimEvent::Intruded { node, sybil });
                let discovered = Inbound::Routing(RoutingInbound::Discovered(sybil));
                let stamped = Stamped::new(discovered).in_span(self.root_span());
                self.call_engine(index, stamped);
            }
        }
    }
}
