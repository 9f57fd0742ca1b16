//! Sweep: many records, few lookups; the [algorithm](crate::sweep) with lookups of its own.

use super::cast::Look;
use super::stores::Stores;
use crate::event::Record;
use crate::family::Family;
use crate::key::Key;
use crate::lookup::{Lookup, Rules};
use crate::sweep::{Explored, Next, Sweep, SweepConfig};
use smallvec::SmallVec;

#[derive(Clone, Debug)]
pub(crate) struct Sweeper<F: Family> {
    local: F::Key,
    rules: Rules,
    sweep: Sweep<F>,
    seeds: Vec<F::Node>,
    /// Lookups under way, by number.
    lookups: SmallVec<[Option<Lookup<F>>; 3]>,
    /// How many lookups there were.
    pub(crate) begun: u32,
    pub(crate) explored: Option<Explored>,
}

impl<F: Family> Sweeper<F> {
    pub(crate) fn new(
        local: F::Key,
        rules: Rules,
        config: SweepConfig,
        max_lookups: usize,
        records: &[Record<F>],
        seeds: Vec<F::Node>,
    ) -> Self {
        let keys = records.iter().map(|record| record.key);
        let lookups = (0..max_lookups).map(|_| None).collect();
        let sweep = Sweep::of(config, keys);
        Self { local, rules, sweep, seeds, lookups, begun: 0, explored: None }
    }

    pub(crate) fn lookup(&mut self, number: u16) -> Option<&mut Lookup<F>> {
        self.lookups.get_mut(usize::from(number))?.as_mut()
    }

    pub(crate) fn look(&mut self) -> Look<F> {
        for (number, place) in (0..).zip(&mut self.lookups) {
            let Some(lookup) = place else { continue };
            match Look::of(number, lookup.next()) {
                Look::Over(_) => {
                    if let Some(lookup) = place.take() {
                        hand_in(&mut self.sweep, lookup);
                    }
                    return Look::Ended(number);
                }
                Look::Wait => {}
                look => return look,
            }
        }
        let Some(free) = self.lookups.iter().position(Option::is_none) else { return Look::Wait };
        match self.sweep.advance() {
            Next::LookUp(target) => {
                let seeds = self.nearest(target);
                let mut lookup = Lookup::new(self.local, target, self.rules, seeds);
                lookup.begin();
                self.begun += 1;
                if let Some(place) = self.lookups.get_mut(free) {
                    *place = Some(lookup);
                }
                Look::Again
            }
            Next::Wait => Look::Wait,
            Next::Done(explored) => {
                self.explored = Some(explored);
                Look::Over(crate::event::Outcome::Complete)
            }
        }
    }

    /// Where the lookup of a target is to begin.
    fn nearest(&self, target: F::Key) -> Vec<F::Node> {
        let most = 2 * usize::from(self.rules.k);
        let mut seeds: Vec<_> = self.sweep.nodes(&target).take(most).cloned().collect();
        seeds.extend(self.seeds.iter().cloned());
        seeds.sort_by_key(|node| F::key(node).distance(&target));
        seeds.dedup();
        seeds.truncate(most);
        seeds
    }

    /// No more is looked up: each node found is to store all of its records.
    pub(crate) fn settle(
        &mut self,
        stores: &mut Stores<F>,
        abandon: &mut SmallVec<[u16; 2]>,
        records: &[Record<F>],
    ) {
        for (number, place) in (0..).zip(&mut self.lookups) {
            if let Some(lookup) = place.take() {
                hand_in(&mut self.sweep, lookup);
                abandon.push(number);
            }
        }
        let mut order: Vec<_> = (0..).zip(records).map(|(place, record)| (record.key, place)).collect();
        order.sort_unstable();
        for parcel in self.sweep.parcels() {
            let records = parcel.keys.iter().flat_map(|key| with_key(&order, key)).collect();
            stores.push(parcel.node, 1, records);
        }
    }
}

/// The records with this key, by their places.
fn with_key<K: Key>(order: &[(K, u32)], key: &K) -> impl Iterator<Item = u32> {
    let from = order.partition_point(|(of, _)| of < key);
    let rest = order.get(from..).unwrap_or_default();
    rest.iter().take_while(move |(of, _)| *of == *key).map(|(_, place)| *place)
}

/// Tells the sweep what a lookup has found.
fn hand_in<F: Family>(sweep: &mut Sweep<F>, lookup: Lookup<F>) {
    let target = lookup.target();
    sweep.found(&target, lookup.into_closest().into_iter().map(|contact| contact.node));
}
