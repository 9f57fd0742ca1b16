//! [`BroadcastTask`]: a broadcast as the task of an operation.
//!
//! It searches for nodes by the strategy's [`NodeSearch`], submits the stores to the nodes found, and ends when
//! both are done. What differs between the strategies is in the search; tokens, stores, the split of the time and
//! the finish are common to all.

use crate::broadcast::config::BroadcastConfig;
use crate::broadcast::events::{
    BroadcastFinish, BroadcastProgress, StartBroadcast, StoreEnd, Strategy, Success,
};
use crate::broadcast::optimistic::OptimisticSearch;
use crate::broadcast::search_step::SearchStep;
use crate::broadcast::store_list::{StoreList, from_both_ends};
use crate::broadcast::sweep_search::SweepSearch;
use crate::collections::seeded_hash::SeededHash;
use crate::deadline;
use crate::lookups::config::QueryConfig;
use crate::lookups::lookup::Lookup;
use crate::lookups::region::Region;
use crate::network_size::NotEnoughData;
use crate::network_size::thresholds::Thresholds;
use crate::operations::task::{Found, NoAnswer, OperationEnd, Task, TaskStep};
use crate::operations::work::{Work, WorkKind};
use crate::requests::purpose::{Attempt, NodeRef};
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::{Contact, Outcome, Progress};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::{Answer, Ask, Record};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};

/// How the nodes to store with are found.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // boxed as a whole where it matters
enum NodeSearch<F: Family> {
    /// All nodes are known: they were given, or the follow-up's lookup has ended.
    None,
    FollowUp(Lookup<F>),
    Optimistic(OptimisticSearch<F>),
    Sweep(SweepSearch<F>),
}

/// The tokens that answers carried, by the keys of their nodes; nodes may share a key.
type Tokens<F> =
    HashMap<<F as Family>::Key, SmallVec<[(<F as Family>::Node, <F as Family>::Message); 1]>, SeededHash>;

/// A broadcast, as the [task](Task) of an operation.
#[derive(Clone, Debug)]
pub(crate) struct BroadcastTask<F: Family> {
    target: F::Target,
    search: NodeSearch<F>,
    ask: Ask<F>,
    records: Vec<Record<F>>,
    success: Success,
    stores: StoreList<F>,
    /// Sent back with the stores. Never iterated.
    tokens: Tokens<F>,
    store_reserve: Duration,
    /// Whether nodes that have not answered may be stored with.
    store_before_response: bool,
    max_in_flight: usize,
    /// When the search ends at the latest; `None` once it has ended.
    search_until: Option<Instant>,
    lookups_begun: u32,
    lookup_outcome: Option<Outcome>,
    fallback_reason: Option<NotEnoughData>,
    closest: Vec<Contact<F>>,
    /// The region of the key, if the record is stored in one.
    region: Option<Region>,
    /// The distances of all nodes known in the region when the search ended; empty of an optimistic one.
    known: Vec<u64>,
    /// Lookups that have ended, and whose requests are to be cancelled.
    ended_lookups: SmallVec<[u16; 2]>,
}

impl<F: Family> BroadcastTask<F> {
    pub(crate) fn new(
        local: &LocalNode<F>,
        hash: SeededHash,
        query: &QueryConfig,
        config: &BroadcastConfig,
        start: StartBroadcast<F>,
        size: impl FnOnce() -> (Result<u64, NotEnoughData>, Option<KnownSize>),
    ) -> Self {
        let StartBroadcast { records, strategy, ask, success, seeds, .. } = start;
        let finds = ask == Ask::FindCloser;
        let target = records.first().map_or(&local.target, |record| &record.target).clone();
        let answers = local.family.answers();
        let (estimate, known) = match &strategy {
            Strategy::Static(_) => (Err(NotEnoughData::NONE), None),
            _ => size(),
        };
        let known = match &strategy {
            Strategy::Optimistic { nodes: Some(nodes) } => Some(KnownSize::with_hint(known, *nodes)),
            _ => known,
        };
        let known = known.filter(|_| config.regions);
        let rules = query.rules_for(None, finds, answers, known);
        let mut region = rules.region;
        let lookup = |seeds| Lookup::new(local, target.clone(), rules, seeds);
        let mut stores = StoreList::new();
        let mut fallback_reason = None;
        let search = match strategy {
            Strategy::FollowUp => NodeSearch::FollowUp(lookup(seeds)),
            Strategy::Static(nodes) => {
                push_static(&mut stores, nodes, *local.key(), hash);
                NodeSearch::None
            }
            Strategy::Optimistic { nodes } => match nodes.map_or(estimate, Ok) {
                Ok(nodes) => NodeSearch::Optimistic(OptimisticSearch::new(
                    lookup(seeds),
                    Thresholds::new(query.k, nodes),
                    query.region(KnownSize::hint(nodes)),
                    query.k,
                    config,
                )),
                Err(unknown) => {
                    fallback_reason = Some(unknown);
                    NodeSearch::FollowUp(lookup(seeds))
                }
            },
            Strategy::Sweep => {
                let sweep = config.sweep_config(query, answers, finds);
                let rules = query.rules_for(Some(sweep.results), finds, answers, None);
                let region = region.take();
                NodeSearch::Sweep(SweepSearch::new(
                    local,
                    rules,
                    sweep,
                    config.max_lookups,
                    &records,
                    seeds,
                    region,
                ))
            }
        };
        Self {
            target,
            search,
            ask,
            records,
            success,
            stores,
            tokens: HashMap::with_hasher(hash),
            store_reserve: config.store_reserve,
            store_before_response: config.store_before_response,
            max_in_flight: config.max_in_flight,
            search_until: None,
            lookups_begun: 0,
            lookup_outcome: None,
            fallback_reason,
            closest: Vec::new(),
            region,
            known: Vec::new(),
            ended_lookups: SmallVec::new(),
        }
    }

    /// When the search ends at the latest, in an operation that ends at `deadline` (deadline rule 8); `None` where
    /// no time is left for it.
    fn search_deadline(&self, now: Instant, deadline: Instant) -> Option<Instant> {
        match &self.search {
            NodeSearch::Sweep(_) => deadline::of_sweep(now, deadline),
            _ => deadline::of_lookup(now, deadline, self.store_reserve),
        }
    }

    /// The running lookup with this number.
    fn lookup(&mut self, number: u16) -> Option<&mut Lookup<F>> {
        match &mut self.search {
            NodeSearch::None => None,
            NodeSearch::FollowUp(lookup) => Some(lookup),
            NodeSearch::Optimistic(search) => Some(&mut search.lookup),
            NodeSearch::Sweep(search) => search.lookup(number),
        }
    }

    /// Ends the search, and adds the nodes found to the stores.
    fn end_search(&mut self, outcome: Outcome) {
        self.search_until = None;
        // Deadline rule 8: the time is over, so those known in the region are stored with, though some have not answered yet.
        let unanswered = outcome == Outcome::DeadlineExceeded && self.store_before_response;
        match core::mem::replace(&mut self.search, NodeSearch::None) {
            NodeSearch::None => {}
            NodeSearch::FollowUp(lookup) => {
                self.lookup_outcome = Some(outcome);
                self.ended_lookups.push(0);
                let in_region = self.region.map(|_| lookup.stores(unanswered));
                self.known = lookup.known_in_region();
                self.closest = lookup.into_closest();
                let nodes = in_region.as_ref().unwrap_or(&self.closest);
                self.stores.reserve(nodes.len());
                let push = |Contact { node, hop, .. }: &Contact<F>| {
                    self.stores.push(node.clone(), hop.saturating_add(1), Vec::new());
                };
                if nodes.len() > self.closest.len() {
                    from_both_ends(nodes.iter()).for_each(push);
                } else {
                    nodes.iter().for_each(push);
                }
            }
            NodeSearch::Optimistic(mut search) => {
                self.lookup_outcome = Some(outcome);
                self.ended_lookups.push(0);
                search.end_lookup(unanswered);
                self.search = NodeSearch::Optimistic(search);
            }
            NodeSearch::Sweep(mut search) => {
                search.finish(&mut self.stores, &mut self.ended_lookups, &self.records);
                self.search = NodeSearch::Sweep(search);
            }
        }
    }

    /// Whether an optimistic broadcast has stored with enough nodes to return, and has not returned. True once.
    fn returns_now(&mut self) -> bool {
        match &mut self.search {
            NodeSearch::Optimistic(search)
                if !search.has_returned && self.stores.stored() >= search.stores_to_return =>
            {
                search.has_returned = true;
                true
            }
            _ => false,
        }
    }

    fn end_store(&mut self, index: u32, end: StoreEnd<F>) {
        let (failed, silent) =
            (end != StoreEnd::Stored, matches!(end, StoreEnd::TimedOut | StoreEnd::Failed));
        self.stores.mark_ended(index, end);
        if failed {
            self.store_failed(index, silent);
        } else if let NodeSearch::Optimistic(search) = &mut self.search {
            search.window_changed = true;
        }
    }

    /// A store has failed, or is repeated: an optimistic broadcast replaces its node, and goes on looking. `silent`: the node
    /// has not answered.
    fn store_failed(&mut self, index: u32, silent: bool) {
        if let NodeSearch::Optimistic(search) = &mut self.search {
            search.window_changed = true;
            let store = self.stores.get(index).filter(|_| silent);
            search.store_failed(store.map(|store| &store.node));
        }
    }

    /// Keeps the token of a node's latest answer, for the store with it.
    fn keep_token(&mut self, node: &F::Node, token: F::Message) {
        let same_key = self.tokens.entry(F::key(node)).or_default();
        match same_key.iter_mut().find(|(of, _)| of == node) {
            Some((_, last)) => *last = token,
            None => same_key.push((node.clone(), token)),
        }
    }

    /// Updates a lookup, one of whose requests has ended or is slow.
    fn update_lookup<R>(&mut self, number: u16, update: impl FnOnce(&mut Lookup<F>) -> R) -> Option<R> {
        let result = self.lookup(number).map(update);
        if let NodeSearch::Optimistic(search) = &mut self.search {
            search.window_changed = true;
        }
        result
    }

    /// The finish. `unsent` is reported of stores that have not been sent, and `unended` of those that were sent and have not
    /// ended.
    fn report(
        &self,
        end: OperationEnd,
        unsent: &StoreEnd<F>,
        unended: &StoreEnd<F>,
        closest: Vec<Contact<F>>,
    ) -> BroadcastFinish<F> {
        let OperationEnd { operation, outcome, stats } = end;
        let (is_sweep, lookups, sweep_end) = match &self.search {
            NodeSearch::Sweep(search) => (true, search.lookups_begun, search.end),
            _ => (false, self.lookups_begun, None),
        };
        let region = self.region.filter(|_| self.lookups_begun > 0).map(|region| {
            let target = self.target.key().leading();
            let distance = |node: &F::Node| F::key(node).leading() ^ target;
            let stores = self.stores.iter().map(|entry| (distance(&entry.node), entry.is_stored()));
            let known = match &self.search {
                NodeSearch::Optimistic(search) => search.lookup.known_in_region(),
                NodeSearch::Sweep(_) => self.stores.iter().map(|entry| distance(&entry.node)).collect(),
                _ => self.known.clone(),
            };
            region.report(closest.iter().map(|contact| distance(&contact.node)), stores, known.into_iter())
        });
        let plain = self.stores.records_short(self.records.len(), self.success);
        let is_credible = region.as_ref().is_none_or(|(report, doubts)| {
            let (credible, all) = (report.credible as usize, doubts.all);
            self.success.is_met(credible, all) && credible >= doubts.least
        });
        let records_short = plain.max(usize::from(!is_credible));
        // A lookup that is still running was cut off, unless the broadcast is complete without its end.
        let is_cut_off = outcome != Outcome::Complete && self.search_until.is_some() && !is_sweep;
        BroadcastFinish {
            operation,
            target: self.target.clone(),
            outcome,
            succeeded: records_short == 0,
            records_short,
            lookups,
            lookup_outcome: self.lookup_outcome.or(is_cut_off.then_some(outcome)),
            sweep_end,
            fallback_reason: self.fallback_reason,
            closest,
            stores: self.stores.report(unsent, unended),
            stats,
            region: region.map(|(report, _)| report),
        }
    }
}

/// Adds the nodes of a static broadcast to the stores, without duplicates and without the own node.
fn push_static<F: Family>(stores: &mut StoreList<F>, nodes: Vec<F::Node>, local: F::Key, hash: SeededHash) {
    let mut keys = HashSet::with_hasher(hash);
    stores.reserve(nodes.len());
    for node in nodes {
        let key = F::key(&node);
        let is_new = keys.insert(key) || stores.iter().all(|entry| entry.node != node);
        if key != local && is_new {
            stores.push(node, 1, Vec::new());
        }
    }
}

impl<F: Family> Task<F> for BroadcastTask<F> {
    type Progress = BroadcastProgress<F>;
    type Finish = BroadcastFinish<F>;

    fn begin(&mut self, now: Instant, deadline: Instant) {
        match &mut self.search {
            NodeSearch::None => return,
            NodeSearch::FollowUp(lookup) => lookup.begin(),
            NodeSearch::Optimistic(search) => search.begin(),
            NodeSearch::Sweep(_) => {}
        }
        self.lookups_begun = u32::from(!matches!(self.search, NodeSearch::Sweep(_)));
        self.search_until = self.search_deadline(now, deadline);
        if self.search_until.is_none() {
            self.end_search(Outcome::DeadlineExceeded);
        }
    }

    fn next(&mut self, now: Instant) -> TaskStep<F> {
        loop {
            if let Some(lookup) = self.ended_lookups.pop() {
                return TaskStep::Abandon { lookup };
            }
            if let NodeSearch::Optimistic(search) = &mut self.search {
                search.update(&mut self.stores);
            }
            if self.stores.in_flight() < self.max_in_flight
                && let Some((index, entry)) = self.stores.submit_next()
            {
                let (node_ref, node, hop) = (NodeRef::Store(index), entry.node.clone(), entry.hop);
                let until = Instant::FAR_FUTURE;
                return TaskStep::Ask {
                    node_ref,
                    node,
                    hop,
                    attempt: Attempt::First,
                    no_soft_limit: true,
                    until,
                };
            }
            if self.returns_now() {
                return TaskStep::Return;
            }
            let step = match (&mut self.search, self.search_until) {
                (_, None) | (NodeSearch::None, _) => None,
                (NodeSearch::FollowUp(lookup), Some(until)) => {
                    Some((SearchStep::of_lookup(0, lookup.next(now)), until))
                }
                (NodeSearch::Optimistic(search), Some(until)) => search.step(now).map(|step| (step, until)),
                (NodeSearch::Sweep(search), Some(until)) => Some((search.step(now), until)),
            };
            match step {
                Some((SearchStep::Ask { number, candidate, node, hop, attempt }, until)) => {
                    let node_ref = NodeRef::Lookup { number, candidate };
                    return TaskStep::Ask { node_ref, node, hop, attempt, no_soft_limit: false, until };
                }
                Some((SearchStep::LookupEnded(number), _)) => self.ended_lookups.push(number),
                Some((SearchStep::Continue, _)) => {}
                Some((SearchStep::Wait, _)) => return TaskStep::Wait,
                Some((SearchStep::Starved, _)) => return TaskStep::Starved,
                Some((SearchStep::Done(outcome), _)) => self.end_search(outcome),
                None if self.stores.remaining() > 0 => return TaskStep::Wait,
                None => return TaskStep::Done(Outcome::Complete),
            }
        }
    }

    fn wants(&self) -> Option<(F::Key, usize)> {
        match &self.search {
            NodeSearch::FollowUp(lookup) => Some((lookup.key(), lookup.seeds_wanted())),
            NodeSearch::Optimistic(search) => Some((search.lookup.key(), search.lookup.seeds_wanted())),
            NodeSearch::Sweep(_) | NodeSearch::None => None,
        }
    }

    fn add_seeds(&mut self, seeds: Vec<F::Node>) {
        if let Some(lookup) = self.lookup(0) {
            lookup.add_seeds(seeds);
        }
    }

    fn take_back(&mut self, node_ref: NodeRef) {
        match node_ref {
            NodeRef::Lookup { number, candidate } => {
                if let Some(lookup) = self.lookup(number) {
                    lookup.undo_ask(candidate);
                }
            }
            NodeRef::Store(index) => self.stores.take_back(index),
            NodeRef::Crawl(_) => {}
        }
    }

    fn ask(&mut self, node_ref: NodeRef, node: &F::Node) -> (F::Target, Ask<F>) {
        match node_ref {
            NodeRef::Lookup { number, candidate } => {
                let target = self.lookup(number).map(|lookup| lookup.target_for(candidate, node));
                // The message is about the key of the record.
                let ask = if candidate.block.is_some() { Ask::FindCloser } else { self.ask.clone() };
                (target.unwrap_or_else(|| self.target.clone()), ask)
            }
            NodeRef::Store(index) => {
                self.stores.mark_sent(index);
                let tokens = self.tokens.get(&F::key(node)).into_iter().flatten();
                let token = tokens.filter(|(of, _)| of == node).map(|(_, token)| token.clone()).next();
                let records = self.stores.get(index).map_or(&[][..], |entry| &entry.records);
                if let ([], Some(Record { target, message })) = (records, self.records.first()) {
                    return (target.clone(), Ask::Store { message: message.clone(), token });
                }
                let record = |index: &u32| self.records.get(*index as usize).cloned();
                let target = F::target_of(node).unwrap_or_else(|| self.target.clone());
                (target, Ask::Batch { records: records.iter().filter_map(record).collect(), token })
            }
            NodeRef::Crawl(_) => (self.target.clone(), self.ask.clone()),
        }
    }

    fn answered(
        &mut self,
        node_ref: NodeRef,
        node: &F::Node,
        elapsed: Duration,
        answer: &mut Answer<F>,
    ) -> u8 {
        match node_ref {
            NodeRef::Lookup { number, candidate } => {
                if let Some(token) = answer.extra.token.take() {
                    self.keep_token(node, token);
                }
                self.update_lookup(number, |lookup| {
                    lookup.answered_at(candidate, node);
                    lookup.answered(candidate, elapsed, &answer.closer, answer.verdict())
                })
                .unwrap_or(0)
            }
            NodeRef::Store(index) => {
                self.end_store(index, StoreEnd::Stored);
                0
            }
            NodeRef::Crawl(_) => 0,
        }
    }

    fn missed(&mut self, node_ref: NodeRef, miss: NoAnswer) {
        match node_ref {
            NodeRef::Lookup { number, candidate } => {
                self.update_lookup(number, |lookup| lookup.missed(candidate, miss));
            }
            NodeRef::Store(index) if miss == NoAnswer::TimedOut => {
                let may = self.region.is_none_or(|region| self.stores.repeated() < region.most_repeats());
                if may && self.stores.repeat(index) {
                    self.store_failed(index, true);
                } else {
                    self.end_store(index, StoreEnd::TimedOut);
                }
            }
            NodeRef::Store(index) => self.end_store(index, StoreEnd::Failed),
            NodeRef::Crawl(_) => {}
        }
    }

    fn rejected(&mut self, node_ref: NodeRef, why: &F::Message) {
        match node_ref {
            NodeRef::Store(index) => self.end_store(index, StoreEnd::Rejected(why.clone())),
            node_ref => self.missed(node_ref, NoAnswer::Failed),
        }
    }

    fn withdrawn(&mut self, node_ref: NodeRef) {
        if let NodeRef::Lookup { number, candidate } = node_ref {
            self.update_lookup(number, |lookup| lookup.not_sent(candidate));
        }
    }

    fn slow(&mut self, node_ref: NodeRef, may_repeat: bool) {
        if let NodeRef::Lookup { number, candidate } = node_ref {
            self.update_lookup(number, |lookup| lookup.slow(candidate, may_repeat));
        }
    }

    fn stands_in_line(&mut self, node_ref: NodeRef) {
        if let NodeRef::Lookup { number, candidate } = node_ref {
            self.update_lookup(number, |lookup| lookup.stands_in_line(candidate));
        }
    }

    fn takes_turn(&mut self, node_ref: NodeRef) -> bool {
        let NodeRef::Lookup { number, candidate } = node_ref else { return true };
        self.update_lookup(number, |lookup| lookup.takes_turn(candidate)).unwrap_or(true)
    }

    fn work(&self) -> Work {
        let (kind, size) = match &self.search {
            NodeSearch::None => (WorkKind::Static, self.stores.iter().count()),
            NodeSearch::FollowUp(_) => (WorkKind::FollowUp, 0),
            NodeSearch::Optimistic(_) => (WorkKind::Optimistic, 0),
            NodeSearch::Sweep(_) => (WorkKind::Sweep, self.records.len()),
        };
        Work { kind, size }
    }

    fn timer(&self) -> Option<Instant> {
        let search = match &self.search {
            _ if self.search_until.is_none() => None,
            NodeSearch::None => None,
            NodeSearch::FollowUp(lookup) => lookup.timer(),
            NodeSearch::Optimistic(search) => search.lookup.timer(),
            NodeSearch::Sweep(search) => search.timer(),
        };
        [search, self.search_until].into_iter().flatten().min()
    }

    fn elapse(&mut self, now: Instant) {
        if self.search_until.is_some_and(|until| until <= now) {
            self.end_search(Outcome::DeadlineExceeded);
        }
        match &mut self.search {
            NodeSearch::None => {}
            NodeSearch::FollowUp(lookup) => lookup.elapse(now),
            NodeSearch::Optimistic(search) => search.lookup.elapse(now),
            NodeSearch::Sweep(search) => search.elapse(now),
        }
    }

    fn lookup_deadline(&self) -> Option<Instant> {
        self.search_until
    }

    fn remaining_requests(&self) -> usize {
        match &self.search {
            NodeSearch::Optimistic(search) if self.search_until.is_some() || self.stores.remaining() > 0 => {
                search.max_remaining_stores(&self.stores)
            }
            _ => 0,
        }
    }

    fn abandoned(&mut self) -> Option<u16> {
        self.ended_lookups.pop()
    }

    fn enter_background(&mut self, end: OperationEnd, deadline: Instant) -> Option<BroadcastFinish<F>> {
        let closest = match &self.search {
            NodeSearch::Optimistic(search) => search.lookup.closest(),
            _ => Vec::new(),
        };
        let finish = self.report(end, &StoreEnd::Background, &StoreEnd::Background, closest);
        let now = end.stats.ended.unwrap_or(deadline);
        if self.search_until.is_some() {
            self.search_until = self.search_deadline(now, deadline);
            if self.search_until.is_none() {
                self.end_search(Outcome::DeadlineExceeded);
            }
        }
        Some(finish)
    }

    fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        match &self.search {
            NodeSearch::None => {}
            NodeSearch::FollowUp(lookup) => lookup.visit_nodes(visit),
            NodeSearch::Optimistic(search) => search.lookup.visit_nodes(visit),
            NodeSearch::Sweep(search) => search.visit_nodes(visit),
        }
        self.closest.iter().map(|contact| &contact.node).for_each(&mut *visit);
        self.stores.iter().map(|entry| &entry.node).for_each(visit);
    }

    fn progress(&self, request: Progress<F>, node_ref: NodeRef) -> BroadcastProgress<F> {
        let store = matches!(node_ref, NodeRef::Store(_));
        BroadcastProgress { request, store, counts: self.stores.counts() }
    }

    fn finish(mut self, end: OperationEnd) -> BroadcastFinish<F> {
        let closest = match &self.search {
            NodeSearch::FollowUp(lookup) => lookup.closest(),
            NodeSearch::Optimistic(search) => search.lookup.closest(),
            NodeSearch::None | NodeSearch::Sweep(_) => core::mem::take(&mut self.closest),
        };
        self.report(end, &StoreEnd::Unsent, &StoreEnd::Cancelled, closest)
    }

    fn found(_: &mut BroadcastFinish<F>) -> Option<Found<'_, F>> {
        None
    }
}
