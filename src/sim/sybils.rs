//! An attempt to eclipse a node: [`Sybils`] of few address groups in its neighbourhood.

use super::check::Told;
use super::event::Event;
use super::nodes::{Handle, Key64};
use super::queue::Plan;
use super::random::{Draw, Purpose};
use super::world::World;
use crate::coordinator::Inbound;
use crate::error::{ConfigError, require};
use crate::key::Key;
use crate::machine::Stamped;
use core::time::Duration;

/// Nodes of one party in the neighbourhood of a victim, closer to it than anybody else. They make themselves known to
/// it, and to a random other node each time, and answer whatever they are asked with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sybils {
    /// How many. 1 to 4,096. Default: 200.
    pub count: u32,
    /// From how many address groups they come, in equal numbers. 1 to 127. Default: 1.
    pub groups: u8,
    /// Whose neighbourhood they are in, by index. Default: 500.
    pub victim: u32,
    /// When the first of them makes itself known. Default: at once.
    pub from: Duration,
    /// From one's making itself known to the next one's, in turn. Default: 100 ms.
    pub every: Duration,
}

impl Default for Sybils {
    fn default() -> Self {
        Self { count: 200, groups: 1, victim: 500, from: Duration::ZERO, every: Duration::from_millis(100) }
    }
}

impl Sybils {
    pub(crate) fn validate(&self, nodes: u32) -> Result<(), ConfigError> {
        require((1..=4_096).contains(&self.count), "sybils.count", "1 to 4,096")?;
        require((1..=127).contains(&self.groups), "sybils.groups", "1 to 127")?;
        require(self.victim < nodes, "sybils.victim", "less than nodes")?;
        require(!self.every.is_zero(), "sybils.every", "longer than zero")
    }

    /// All of them, the closest to the victim first.
    pub(crate) fn all(&self, victim: Handle) -> Vec<Handle> {
        let each = self.count.div_ceil(u32::from(self.groups));
        let mut all: Vec<_> =
            (1..=self.groups).flat_map(|group| Handle::tried(group, victim, each)).collect();
        all.sort_unstable_by_key(|sybil| sybil.position() ^ victim.position());
        all.truncate(self.count as usize);
        all
    }
}

impl World {
    /// The Sybils, the closest to their victim first.
    pub fn sybils(&self) -> &[Handle] {
        &self.sybils
    }

    /// The Sybils closest to a key, but for the one that is asked.
    pub(crate) fn name_sybils(&self, asked: Handle, target: Key64) -> Vec<Handle> {
        let mut others: Vec<_> = self.sybils.iter().copied().filter(|sybil| *sybil != asked).collect();
        others.sort_unstable_by_key(|sybil| sybil.key().distance(&target));
        others.truncate(self.scenario.k);
        others
    }

    /// A Sybil makes itself known to the victim and to a random node, and the next one is to follow.
    pub(crate) fn intrude(&mut self, time: u32) {
        let Some(sybils) = self.scenario.sybils else { return };
        self.queue.plan(self.now + sybils.every, Plan::Intrude(time.wrapping_add(1)));
        let Some(sybil) = self.sybils.get(time as usize % self.sybils.len().max(1)).copied() else { return };
        let mut draw = Draw::new(self.scenario.seed, Purpose::Sybil, [u64::from(time)]);
        for index in [sybils.victim, draw.below(self.scenario.nodes)] {
            let node = self.population.handle(index);
            if self.engine(node).is_some() && !self.cut(sybil, node) {
                self.note(&Event::Intruded { node, sybil });
                let told = Stamped::new(Inbound::Discovered(sybil)).in_span(self.root());
                self.tell(index, Told::Notice, told);
            }
        }
    }
}
