//! Which nodes [`Who`] means.

use crate::sim::network::handle::Handle;
use crate::sim::network::population::Population;
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::Scenario;
use crate::sim::scenario::who::Who;

/// What it takes to know which nodes are meant.
pub(crate) struct Chooser<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) population: &'a Population,
    /// The number of the draw: a share is another one for each.
    pub(crate) draw: u32,
    /// The nodes of a node's table, by its number, that are closest to it, at most so many.
    pub(crate) known: &'a dyn Fn(u32, usize) -> Vec<Handle>,
}

/// The draw of the share of nodes that is maintained; others have numbers of their own.
const MAINTAINED: u32 = 0;

/// Whether a node, by index, keeps its table itself.
pub(crate) fn maintained(scenario: &Scenario, population: &Population) -> impl Fn(u32) -> bool + use<> {
    let all = scenario.maintained == Who::All && scenario.is_maintained();
    let none = all || !scenario.is_maintained();
    // There are no tables yet.
    let chooser = Chooser { scenario, population, draw: MAINTAINED, known: &|_, _| Vec::new() };
    let chosen = if none { Vec::new() } else { chooser.choose(&scenario.maintained) };
    move |index| all || chosen.binary_search(&index).is_ok()
}

impl Chooser<'_> {
    /// The nodes that are meant, by number, in order.
    pub(crate) fn choose(&self, who: &Who) -> Vec<u32> {
        let Self { scenario, population, .. } = *self;
        let all = 0..scenario.nodes;
        let index = |handle: Handle| population.index(handle);
        let mut chosen: Vec<u32> = match who {
            Who::All => all.collect(),
            Who::Node(node) => vec![*node],
            Who::Nodes(list) => list.to_vec(),
            Who::First(count) => (0..*count).collect(),
            Who::Share(share) => all.filter(|index| self.is_in_share(*index, *share)).collect(),
            Who::Near { node, count } => {
                let own = population.handle(*node);
                let others = |handle| handle != own && index(handle).is_some();
                population.closest(own.key(), *count as usize, others).into_iter().filter_map(index).collect()
            }
            Who::Known { to, count } => {
                (self.known)(*to, *count as usize).into_iter().filter_map(index).collect()
            }
            Who::Except(others) => {
                let others = self.choose(others);
                all.filter(|index| others.binary_search(index).is_err()).collect()
            }
        };
        chosen.retain(|index| *index < scenario.nodes);
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// Whether a node is among those that are meant.
    pub(crate) fn is_among(&self, who: &Who, index: u32) -> bool {
        match who {
            Who::All => true,
            Who::Node(node) => *node == index,
            Who::Nodes(list) => list.contains(&index),
            Who::First(count) => index < *count,
            Who::Share(share) => self.is_in_share(index, *share),
            Who::Except(others) => !self.is_among(others, index),
            who => self.choose(who).binary_search(&index).is_ok(),
        }
    }

    fn is_in_share(&self, index: u32, share: f64) -> bool {
        let ids = [u64::from(self.draw), u64::from(index)];
        Random::new(self.scenario.seed, Stream::Who, ids).chance(share)
    }
}
