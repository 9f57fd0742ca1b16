//! [`SybilSets`]: the Sybils of a run.

use crate::sim::network::handle::Handle;
use crate::sim::network::population::Population;
use crate::sim::scenario::Scenario;
use crate::sim::scenario::sybils::{Place, Placement, Sybils};
use std::collections::BTreeMap;

/// The sets of Sybils, in the order of the scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct SybilSets {
    /// In each, the closest to its place first.
    sets: Vec<Vec<Handle>>,
    set_of: BTreeMap<Handle, usize>,
}

impl SybilSets {
    pub(crate) fn new(scenario: &Scenario, population: &Population) -> Self {
        let place = |sybils: &Sybils| generate(scenario, population, sybils);
        let sets: Vec<_> = scenario.sybils.iter().map(place).collect();
        let members = sets.iter().enumerate();
        let set_of = members.flat_map(|(set, all)| all.iter().map(move |sybil| (*sybil, set))).collect();
        Self { sets, set_of }
    }

    pub(crate) fn all(&self) -> &[Vec<Handle>] {
        &self.sets
    }

    /// The set that this node is in, by number; `None` if it is no Sybil.
    pub(crate) fn set_of(&self, node: Handle) -> Option<usize> {
        if self.set_of.is_empty() { None } else { self.set_of.get(&node).copied() }
    }
}

fn generate(scenario: &Scenario, population: &Population, sybils: &Sybils) -> Vec<Handle> {
    let place = match sybils.near {
        Place::Node(node) => population.handle(node).position(),
        Place::Point(point) => Handle::point(point).position(),
        Place::Record(record) => u64::from_be_bytes(*scenario.record_key(record).as_bytes()),
    };
    let mut all = match sybils.placed {
        Placement::Nearest => Handle::closest_made_up(sybils.groups, place, sybils.count),
        Placement::Plausible { crowd } => {
            // The n-th of N nodes is at n / (N + 1) of the key space on average.
            let gap = u64::MAX / (u64::from(scenario.nodes) + 1) / u64::from(crowd);
            let distances: Vec<_> =
                (1..=u64::from(sybils.count)).map(|rank| gap.saturating_mul(rank) - gap / 4).collect();
            Handle::made_up_at(sybils.groups, place, &distances)
        }
        Placement::Claimant(address) => match sybils.near {
            Place::Node(node) => population.handle(node).at_address(address).into_iter().collect(),
            _ => Vec::new(),
        },
    };
    all.sort_unstable_by_key(|sybil| sybil.position() ^ place);
    all.dedup();
    all
}
