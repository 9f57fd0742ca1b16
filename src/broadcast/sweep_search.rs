//! [`SweepSearch`]: the node search of a sweep, which runs the lookups that the
//! [algorithm](crate::broadcast::sweep) asks for.

use crate::broadcast::search_step::SearchStep;
use crate::broadcast::store_list::StoreList;
use crate::broadcast::sweep::{Sweep, SweepConfig, SweepEnd, SweepStep};
use crate::lookups::lookup::Lookup;
use crate::lookups::region::Region;
use crate::lookups::rules::LookupRules;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::Outcome;
use crate::vocabulary::request_events::Record;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use smallvec::SmallVec;

/// A lookup that runs, with the point that the sweep wants to be looked up.
type RunningLookup<F> = Option<(<F as Family>::Key, Lookup<F>)>;

/// Up to `max_lookups` lookups at once, by number, on behalf of one [`Sweep`].
#[derive(Clone, Debug)]
pub(crate) struct SweepSearch<F: Family> {
    local: LocalNode<F>,
    rules: LookupRules,
    sweep: Sweep<F>,
    seeds: Vec<F::Node>,
    /// The targets of the records, in order of their keys.
    targets: Vec<F::Target>,
    /// The running lookups, each with the point that the sweep wants to be looked up; the index is the number.
    lookups: SmallVec<[RunningLookup<F>; 3]>,
    pub(crate) lookups_begun: u32,
    /// Why the sweep made no more lookups, once it has ended by itself.
    pub(crate) end: Option<SweepEnd>,
}

impl<F: Family> SweepSearch<F> {
    pub(crate) fn new(
        local: &LocalNode<F>,
        rules: LookupRules,
        config: SweepConfig,
        max_lookups: usize,
        records: &[Record<F>],
        seeds: Vec<F::Node>,
        region: Option<Region>,
    ) -> Self {
        let mut targets: Vec<_> = records.iter().map(|record| record.target.clone()).collect();
        targets.sort_by_key(Target::key);
        let lookups = (0..max_lookups).map(|_| None).collect();
        let sweep = Sweep::of(config, targets.iter().map(Target::key)).in_regions(region);
        Self { local: local.clone(), rules, sweep, seeds, targets, lookups, lookups_begun: 0, end: None }
    }

    pub(crate) fn lookup(&mut self, number: u16) -> Option<&mut Lookup<F>> {
        self.lookups.get_mut(usize::from(number))?.as_mut().map(|(_, lookup)| lookup)
    }

    /// What is looked up for a point that the sweep wants to know about: the target of a record that lies there; else
    /// a target in the same gap; if the family knows none, the target of the record that wants it.
    fn target_for(&self, point: F::Key) -> F::Target {
        let of_record = |key: F::Key| {
            let at = self.targets.binary_search_by_key(&key, Target::key).ok()?;
            self.targets.get(at).cloned()
        };
        of_record(point)
            .or_else(|| self.local.family.target_near(point, self.sweep.gap_bits(&point)))
            .or_else(|| self.sweep.wanted_for(&point).and_then(of_record))
            .unwrap_or_else(|| self.local.target.clone())
    }

    pub(crate) fn step(&mut self, now: Instant) -> SearchStep<F> {
        for (number, slot) in (0..).zip(&mut self.lookups) {
            let Some((_, lookup)) = slot else { continue };
            match SearchStep::of_lookup(number, lookup.next_of_seeds(now)) {
                SearchStep::Done(_) => {
                    if let Some((point, lookup)) = slot.take() {
                        report_found(&mut self.sweep, point, lookup);
                    }
                    return SearchStep::LookupEnded(number);
                }
                SearchStep::Wait | SearchStep::Starved => {}
                step => return step,
            }
        }
        let Some(free) = self.lookups.iter().position(Option::is_none) else { return SearchStep::Wait };
        match self.sweep.advance() {
            SweepStep::LookUp(point) => {
                let target = self.target_for(point);
                let seeds = self.seeds_for(target.key());
                let mut lookup = Lookup::new(&self.local, target, self.rules, seeds);
                lookup.begin();
                self.lookups_begun += 1;
                if let Some(slot) = self.lookups.get_mut(free) {
                    *slot = Some((point, lookup));
                }
                SearchStep::Continue
            }
            SweepStep::Wait => SearchStep::Wait,
            SweepStep::Done(end) => {
                self.end = Some(end);
                SearchStep::Done(Outcome::Complete)
            }
        }
    }

    /// The seeds of a lookup of `target`: at most 2k of the nodes found so far and of the start's seeds, closest
    /// first.
    fn seeds_for(&self, target: F::Key) -> Vec<F::Node> {
        let most = 2 * usize::from(self.rules.k);
        let mut seeds: Vec<_> = self.sweep.nodes(&target).take(most).cloned().collect();
        seeds.extend(self.seeds.iter().cloned());
        seeds.sort_by_key(|node| F::key(node).distance(&target));
        seeds.dedup();
        seeds.truncate(most);
        seeds
    }

    /// See [`Lookup::timer`].
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.lookups.iter().flatten().filter_map(|(_, lookup)| lookup.timer()).min()
    }

    /// See [`Lookup::elapse`].
    pub(crate) fn elapse(&mut self, now: Instant) {
        self.lookups.iter_mut().flatten().for_each(|(_, lookup)| lookup.elapse(now));
    }

    /// Visits all nodes that the search holds.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.seeds.iter().chain(self.sweep.all_nodes()).for_each(&mut *visit);
        self.lookups.iter().flatten().for_each(|(_, lookup)| lookup.visit_nodes(visit));
    }

    /// Ends the search: adds each node that records are allocated to, with all of its records, to `stores`, and
    /// the numbers of the lookups that were still running to `ended_lookups`.
    pub(crate) fn finish(
        &mut self,
        stores: &mut StoreList<F>,
        ended_lookups: &mut SmallVec<[u16; 2]>,
        records: &[Record<F>],
    ) {
        for (number, slot) in (0..).zip(&mut self.lookups) {
            if let Some((point, lookup)) = slot.take() {
                report_found(&mut self.sweep, point, lookup);
                ended_lookups.push(number);
            }
        }
        let mut order: Vec<_> =
            (0..).zip(records).map(|(index, record)| (record.target.key(), index)).collect();
        order.sort_unstable();
        for allocation in self.sweep.allocations() {
            let records = allocation.keys.iter().flat_map(|key| records_with_key(&order, key)).collect();
            stores.push(allocation.node, 1, records);
        }
    }
}

/// The indices of the records with this key; `order` is sorted.
fn records_with_key<K: Key>(order: &[(K, u32)], key: &K) -> impl Iterator<Item = u32> {
    let from = order.partition_point(|(of, _)| of < key);
    let rest = order.get(from..).unwrap_or_default();
    rest.iter().take_while(move |(of, _)| *of == *key).map(|(_, index)| *index)
}

/// Reports the nodes that a lookup has found to the sweep.
fn report_found<F: Family>(sweep: &mut Sweep<F>, point: F::Key, lookup: Lookup<F>) {
    let key = lookup.key();
    sweep.found_near(&point, &key, lookup.into_closest().into_iter().map(|contact| contact.node));
}
