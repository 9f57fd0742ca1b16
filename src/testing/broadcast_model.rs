//! The model of a broadcast: which nodes it may store with and when, how each store ends, and what it must report.
//!
//! Where the model of its lookup is exact, so is the list of nodes to store with; otherwise only what holds in any
//! case is checked. The lookups of a sweep are distinguished by their targets.

use crate::broadcast::config::BroadcastConfig;
use crate::broadcast::events::{BroadcastFinish, StartBroadcast, StoreEnd, Strategy, Success};
use crate::coordinator::config::Config;
use crate::coordinator::events::Outbound;
use crate::lookups::config::QueryConfig;
use crate::lookups::region::Region;
use crate::network_size::estimator::NotEnoughData;
use crate::network_size::thresholds::Thresholds;
use crate::testing::broken::{Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::candidate_model::{CandidateModel, LookupTerms};
use crate::testing::node_map::{NodeMap, NodeSet};
use crate::testing::operation_model::{
    Counts, NodeState, OperationKind, OperationModel, RequestEnd, RequestSent, Timer, all, is_store_request,
};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::target::{is_edge_of, key_of};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::{Outcome, RefusalReason};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::{Ask, CancelReason, Record, Request, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// A node to store with.
#[derive(Clone, Debug)]
struct Store<F: Family> {
    node: F::Node,
    hop: Option<u32>,
    /// The records of a batch, as indices.
    records: Vec<u32>,
    /// Its latest request.
    sent: Option<RequestId>,
    /// It is to be sent: for the first time, or once more.
    due: bool,
    /// A request to it has timed out: it is, or was, sent once more.
    timed_out: bool,
    end: Option<StoreEnd<F>>,
}

impl<F: Family> Store<F> {
    fn is_stored(&self) -> bool {
        self.end == Some(StoreEnd::Stored)
    }

    fn has_failed(&self) -> bool {
        self.end.is_some() && !self.is_stored()
    }

    fn is_due(&self) -> bool {
        self.due && self.end.is_none()
    }

    /// It has failed, or is sent a second time.
    fn is_doubtful(&self) -> bool {
        !self.is_stored() && (self.end.is_some() || self.timed_out)
    }
}

/// The lookup of an optimistic broadcast, which stores while it looks.
#[derive(Clone)]
struct OptimisticState<F: Family> {
    candidates: CandidateModel<F>,
    thresholds: Thresholds,
    /// The region by the size that the thresholds are of.
    expected: Region,
    /// How many more nodes may be stored with.
    budget: usize,
    /// How many more it will be once the lookup has ended.
    budget_when_known: usize,
    early_return_at: usize,
    /// The k closest nodes are within the set threshold: the lookup asks no further.
    paused: bool,
    /// A store has failed: the lookup continues to its normal end.
    store_has_failed: bool,
    /// Something has happened since the window was last evaluated.
    stale: bool,
}

/// One lookup of a sweep.
#[derive(Clone)]
struct SweepLookup<F: Family> {
    pending: Vec<(RequestId, F::Node)>,
    asked: NodeSet<F>,
    answered: NodeSet<F>,
}

impl<F: Family> Default for SweepLookup<F> {
    fn default() -> Self {
        Self { pending: Vec::new(), asked: NodeSet::default(), answered: NodeSet::default() }
    }
}

#[derive(Clone)]
struct SweepState<F: Family> {
    /// The nodes that were named, and the possible hops of each.
    named: NodeMap<F, BTreeSet<u32>>,
    /// By target.
    lookups: BTreeMap<F::Key, SweepLookup<F>>,
}

#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
enum StrategyState<F: Family> {
    Static,
    FollowUp(CandidateModel<F>),
    Optimistic(OptimisticState<F>),
    Sweep(SweepState<F>),
}

#[allow(clippy::struct_excessive_bools)] // independent facts
#[derive(Clone)]
pub(super) struct BroadcastModel<F: Family> {
    /// The first record, the only one unless it is a sweep, and its key.
    record: Record<F>,
    target: F::Key,
    query: QueryConfig,
    config: BroadcastConfig,
    /// The region of its key, or of each.
    region: Option<Region>,
    start: StartBroadcast<F>,
    strategy: StrategyState<F>,
    fallback_reason: Option<NotEnoughData>,
    /// The deadline, and until when it looks for nodes, once it runs.
    schedule: Option<(Instant, Option<Instant>)>,
    /// When its lookup ended, as far as the model knows.
    lookup_ended_at: Option<Instant>,
    /// Its share of the time ran out before it had ended.
    lookup_was_cut: bool,
    /// The broadcast before its lookup ended, as nobody was left to ask: it goes on if it is given further nodes of the table
    /// in the same call.
    before_end: Option<Box<Self>>,
    /// The lookup certainly ended because its share of the time ran out.
    share_ran_out: bool,
    /// The nodes to store with: all of them, in order, where the model is exact; otherwise those that stores were
    /// sent to.
    stores: Vec<Store<F>>,
    exact: bool,
    tokens: NodeMap<F, F::Message>,
    /// The number of nodes to store with, as last reported.
    reported_nodes: u32,
    background: bool,
    /// It has returned early, and the background had no room for its remaining stores.
    drops_rest: bool,
    /// The checker can no longer assign every background request to its operation.
    untracked: bool,
    /// How many stores it may do in the background, and how many of them have ended.
    background_budget: usize,
    background_ended: usize,
}

/// Why a broadcast's start is refused, if it is.
pub(super) fn refusal_reason<F: Family>(start: &StartBroadcast<F>, config: &Config) -> Option<RefusalReason> {
    let sweep = start.strategy == Strategy::Sweep;
    let most = if sweep { config.broadcast.max_records } else { 1 };
    if !(1..=most).contains(&start.records.len()) {
        return Some(RefusalReason::Records { most });
    }
    let most = config.broadcast.max_nodes;
    match &start.strategy {
        Strategy::Static(nodes) if nodes.len() > most => Some(RefusalReason::Nodes { most }),
        _ => None,
    }
}

/// Until when a broadcast looks for nodes: deadline rule 8.
/// `store_reserve` is what it reserves for storing; `None`: half of all.
pub(super) fn lookup_share_end(
    now: Instant,
    deadline: Instant,
    store_reserve: Option<Duration>,
) -> Option<Instant> {
    let left = deadline - now;
    let half = left.saturating_sub(left / 2);
    let tenth = left / 10;
    let kept = store_reserve.map_or(half, |time| time.min(tenth).max(Duration::from_nanos(1)));
    Some(now + left.saturating_sub(kept)).filter(|until| *until > now)
}

fn required_stores(success: Success, all: usize) -> usize {
    let wanted = match success {
        Success::Count(count) => count.min(all),
        // A network may be said to have as many nodes as there are keys.
        Success::Share(share) => {
            usize::try_from((all as u128 * u128::from(share)).div_ceil(100)).unwrap_or(usize::MAX)
        }
    };
    wanted.max(1)
}

/// How many nodes an optimistic broadcast may store with once its lookup has ended, besides 2k.
fn most_when_known(query: &QueryConfig) -> usize {
    (query.k * query.region_bound).saturating_sub(2 * query.k).max(query.k)
}

impl<F: Family> BroadcastModel<F> {
    /// `None` if there is nothing to store: such a start is refused.
    pub(super) fn new(
        config: &Config,
        start: &StartBroadcast<F>,
        node_state: &NodeState<'_, F>,
    ) -> Option<Self> {
        let (query, local) = (config.query.clone(), node_state.local.clone());
        let record = start.records.first()?.clone();
        let target = key_of::<F>(&record.target);
        let mut seeds = start.seeds.clone();
        let table = node_state.table.into_iter();
        match &start.strategy {
            Strategy::Static(_) => {}
            Strategy::Sweep => seeds.extend(all(node_state.table)),
            _ => {
                let nearest = table.flat_map(|table| table.closest(target).take(2 * query.k));
                seeds.extend(nearest.map(|entry| entry.node().clone()));
            }
        }
        let is_find = start.ask == Ask::FindCloser;
        let region = match &start.strategy {
            Strategy::Optimistic { nodes: Some(nodes) } => {
                Some(query.region(KnownSize::with_hint(node_state.known_size(&query), *nodes)))
            }
            _ => node_state.region(&query),
        };
        let region = region.filter(|_| config.broadcast.regions);
        let terms = LookupTerms { beta: None, region, held: None };
        let candidates = || CandidateModel::new(local.clone(), target, config, is_find, None, &seeds, terms);
        let mut fallback_reason = None;
        // An observer cannot see whether a node that timed out is to be asked again while that request waits for
        // capacity, nor whether a node is to be asked that then fails to store.
        let never_full = config.network.max_in_flight >= 1_000 && config.network.max_per_node >= 16;
        let optimistic = matches!(start.strategy, Strategy::Optimistic { .. });
        let predictable = never_full || query.retries == 0 && !optimistic;
        let mut exact = config.network.max_queued >= 1_000 && predictable;
        let when_known = if config.broadcast.regions { most_when_known(&query) } else { 0 };
        let strategy = match &start.strategy {
            Strategy::Static(_) => StrategyState::Static,
            Strategy::FollowUp => StrategyState::FollowUp(candidates()),
            Strategy::Optimistic { nodes } => match nodes.map_or_else(|| node_state.size, Ok) {
                Err(unknown) => {
                    fallback_reason = Some(unknown);
                    StrategyState::FollowUp(candidates())
                }
                Ok(nodes) => StrategyState::Optimistic(OptimisticState {
                    candidates: candidates(),
                    thresholds: Thresholds::new(query.k, nodes),
                    expected: query.region(KnownSize::hint(nodes)),
                    budget: 2 * query.k,
                    budget_when_known: when_known,
                    early_return_at: (query.k * usize::from(config.broadcast.early_return_percent))
                        .div_ceil(100)
                        .max(1),
                    paused: false,
                    store_has_failed: false,
                    stale: true,
                }),
            },
            Strategy::Sweep => {
                exact = false;
                let mut named = NodeMap::<F, BTreeSet<u32>>::default();
                for seed in &seeds {
                    named.insert(seed.clone(), BTreeSet::from([1]));
                }
                StrategyState::Sweep(SweepState { named, lookups: BTreeMap::new() })
            }
        };
        let mut model = Self {
            record,
            target,
            query,
            config: config.broadcast.clone(),
            region: terms.region,
            start: start.clone(),
            strategy,
            fallback_reason,
            schedule: None,
            lookup_ended_at: None,
            lookup_was_cut: false,
            before_end: None,
            share_ran_out: false,
            stores: Vec::new(),
            exact,
            tokens: NodeMap::default(),
            reported_nodes: 0,
            background: false,
            drops_rest: false,
            untracked: false,
            background_budget: 0,
            background_ended: 0,
        };
        if let Strategy::Static(nodes) = &start.strategy {
            model.exact = true;
            for node in nodes {
                if F::key(node) != *local.key() && !model.stores.iter().any(|store| store.node == *node) {
                    model.add_store(node.clone(), 1);
                }
            }
        }
        Some(model)
    }

    fn add_store(&mut self, node: F::Node, hop: u32) {
        let store = Store {
            node,
            hop: Some(hop),
            records: Vec::new(),
            sent: None,
            due: true,
            timed_out: false,
            end: None,
        };
        self.stores.push(store);
    }

    fn candidates(&self) -> Option<&CandidateModel<F>> {
        match &self.strategy {
            StrategyState::FollowUp(candidates)
            | StrategyState::Optimistic(OptimisticState { candidates, .. }) => Some(candidates),
            _ => None,
        }
    }

    fn candidates_mut(&mut self) -> Option<&mut CandidateModel<F>> {
        match &mut self.strategy {
            StrategyState::FollowUp(candidates)
            | StrategyState::Optimistic(OptimisticState { candidates, .. }) => Some(candidates),
            _ => None,
        }
    }

    fn stored(&self) -> usize {
        self.stores.iter().filter(|store| store.is_stored()).count()
    }

    fn failed(&self) -> usize {
        self.stores.iter().filter(|store| store.has_failed()).count()
    }

    fn in_flight(&self) -> usize {
        self.stores.iter().filter(|store| !store.due && store.end.is_none()).count()
    }

    /// Stores that are to be sent, or in flight.
    fn open(&self) -> usize {
        self.stores.iter().filter(|store| store.end.is_none()).count()
    }

    fn deadline(&self) -> Option<Instant> {
        self.schedule.map(|(deadline, _)| deadline)
    }

    fn lookup_deadline(&self) -> Option<Instant> {
        self.schedule.and_then(|(_, until)| until).filter(|_| self.lookup_ended_at.is_none())
    }

    /// Whether the lookup's share of the time has run out, and the lookup had not ended before.
    fn share_is_over(&self, now: Instant) -> bool {
        self.lookup_deadline().is_some_and(|until| until <= now)
    }

    /// The lookup has ended: the nodes that a follow-up stores with are known.
    fn end_lookup(&mut self, now: Instant) -> Checked {
        if self.lookup_ended_at.is_some() || matches!(self.strategy, StrategyState::Static) {
            return Ok(());
        }
        let had_no_time = self.schedule.is_some_and(|(_, until)| until.is_none());
        self.lookup_was_cut = had_no_time || self.share_is_over(now);
        // Then nodes of the region are stored with that have not answered: which, is not modelled.
        self.exact &= !(self.lookup_was_cut && self.region.is_some() && self.config.store_before_response);
        self.lookup_ended_at = Some(now);
        match &mut self.strategy {
            StrategyState::FollowUp(candidates) => {
                self.exact &= candidates.is_exact();
                if self.exact {
                    for (node, hop) in candidates.closest() {
                        self.add_store(node, hop + 1);
                    }
                }
            }
            StrategyState::Optimistic(optimistic) => {
                optimistic.stale = true;
                optimistic.budget += core::mem::take(&mut optimistic.budget_when_known);
                self.update_window(now);
            }
            StrategyState::Sweep(sweep) => {
                let open = sweep.lookups.values().any(|lookup| !lookup.pending.is_empty());
                ensure!(!open, "deadline 8: when the lookup ends, its requests in flight are cancelled");
            }
            StrategyState::Static => {}
        }
        Ok(())
    }

    /// Something has happened that may change the nodes to store with.
    fn update(&mut self, now: Instant) -> Checked {
        if let StrategyState::Optimistic(optimistic) = &mut self.strategy {
            optimistic.stale = true;
        }
        // The caller's call is late: the end of the lookup or of the operation comes next.
        if !self.share_is_over(now) && self.deadline().is_some_and(|deadline| deadline > now) {
            self.update_window(now);
        }
        if self.lookup_deadline().is_some()
            && !self.share_is_over(now)
            && self.end_is_predictable()
            && self.is_looking()
            && self.candidates().is_some_and(CandidateModel::should_end)
        {
            let before = Box::new(self.clone());
            self.end_lookup(now)?;
            self.before_end =
                Some(before).filter(|_| !self.candidates().is_some_and(CandidateModel::is_pending));
        }
        Ok(())
    }

    /// Something else happens at the instant at which the lookup has ended, as nobody was left to ask: it may be given further nodes
    /// of the table after that.
    fn reconsider_end(&mut self, now: Instant) {
        let before = self.before_end.take().filter(|_| self.lookup_ended_at == Some(now));
        if let Some(before) = before {
            *self = *before;
            self.exact = false;
        }
    }

    /// Whether the lookup goes on; that of an optimistic broadcast may be paused.
    fn is_looking(&self) -> bool {
        let pauses = |optimistic: &OptimisticState<F>| {
            optimistic.paused || optimistic.budget + optimistic.budget_when_known == 0
        };
        self.lookup_ended_at.is_none()
            && !matches!(&self.strategy, StrategyState::Optimistic(optimistic) if pauses(optimistic))
    }

    /// Whether the model knows when the lookup ends.
    fn end_is_predictable(&self) -> bool {
        self.exact && self.candidates().is_some_and(CandidateModel::end_is_predictable)
    }

    /// The time it reserves for storing; `None`: half of all.
    fn store_reserve(&self) -> Option<Duration> {
        (!matches!(self.strategy, StrategyState::Sweep(_))).then_some(self.config.store_reserve)
    }

    fn update_window(&mut self, now: Instant) {
        let looking = self.lookup_ended_at.is_none();
        let sure = self.end_is_predictable() || !looking;
        let exact = self.exact;
        let k = self.query.k;
        let StrategyState::Optimistic(optimistic) = &mut self.strategy else { return };
        if !core::mem::replace(&mut optimistic.stale, false)
            || self.schedule.is_none_or(|(end, _)| end <= now)
        {
            return;
        }
        // Where it has a region, it is stored with all of the k closest that have answered once the lookup has ended, those beyond the
        // window too: in which order, is not modelled.
        let usable = optimistic.candidates.usable();
        let answered = || usable.iter().enumerate().filter(|(_, (.., answered))| *answered).take(k);
        let beyond = self.region.is_some() && !looking && answered().any(|(rank, _)| rank >= k);
        self.exact = exact && optimistic.candidates.is_exact() && sure && !beyond;
        if !self.exact {
            self.stores.retain(|store| store.sent.is_some());
            return;
        }
        let target = self.target;
        let store = |node: &F::Node| self.stores.iter().find(|store| store.node == *node);
        let window: Vec<_> = optimistic.candidates.usable();
        let window: Vec<_> = window
            .into_iter()
            .filter(|(node, ..)| !store(node).is_some_and(Store::is_doubtful))
            .take(k)
            .collect();
        let keys = window.iter().map(|(node, ..)| F::key(node));
        let dense = self.config.store_before_response && optimistic.thresholds.may_stop(&target, keys);
        let kth = k.checked_sub(1).and_then(|last| window.get(last));
        let kth = kth.map(|(node, ..)| F::key(node).distance(&target).leading());
        let is_refuted = kth.is_some_and(|kth| optimistic.expected.is_refuted_by(kth));
        let is_confirmed = window.iter().any(|(.., answered)| *answered);
        optimistic.paused = dense && is_confirmed && !is_refuted && !optimistic.store_has_failed;
        let everybody = dense && !is_refuted || !looking;
        let due: Vec<_> = window
            .into_iter()
            .filter(|(node, _, answered)| {
                store(node).is_none()
                    && (*answered || self.config.store_before_response)
                    && (everybody || !is_refuted && optimistic.thresholds.is_close(&target, &F::key(node)))
            })
            .take(optimistic.budget)
            .collect();
        optimistic.budget -= due.len();
        for (node, hop, _) in due {
            self.add_store(node, hop + 1);
        }
    }

    /// A store request comes out.
    fn store_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<Counts> {
        let RequestSent { now, request, was_in_table, .. } = *sent_event;
        let node = &request.node;
        self.before_end = None;
        // It may have been given nodes of the table that it did not ask before it stores.
        if was_in_table
            && request.hop == 2
            && self.config.store_before_response
            && let Some(candidates) = self.candidates_mut()
            && candidates.hops(node).is_none()
        {
            candidates.begins_with(node);
            self.exact = false;
        }
        if !matches!(self.strategy, StrategyState::Static | StrategyState::Optimistic(_))
            || self.share_is_over(now)
        {
            self.end_lookup(now)?;
        }
        let (message, token) = match &request.ask {
            Ask::Store { message, token } => (Some(message), token),
            Ask::Batch { token, .. } => (None, token),
            Ask::FindCloser | Ask::Message(_) => broken!("store: not a store request: {request:?}"),
        };
        ensure!(
            self.untracked || token.as_ref() == self.tokens.get(node),
            "token: a store carries the token of the node's own answer: {token:?} of {:?}",
            self.tokens
        );
        let records = self.check_stored_records(request, message)?;
        let place = self.stores.iter().position(|store| store.node == *node);
        if self.exact && place.is_none() {
            let expected: Vec<_> = self.stores.iter().map(|store| &store.node).collect();
            broken!(
                "store: to {node:?}, expected one of {expected:?}; {:?}",
                self.candidates().map(CandidateModel::to_string)
            );
        }
        let place = place.unwrap_or_else(|| {
            let node = node.clone();
            self.stores.push(Store {
                node,
                hop: None,
                records: Vec::new(),
                sent: None,
                due: true,
                timed_out: false,
                end: None,
            });
            self.stores.len() - 1
        });
        if let Some(hop) = self.stores.get(place).and_then(|store| store.hop) {
            ensure_eq!(request.hop, hop, "hops: one more than the node's own, for a store");
        }
        if !self.untracked {
            self.check_store(now, request)?;
        }
        let ended = self.stores.iter().filter(|store| store.end.is_some() || store.timed_out).count();
        ensure!(
            !self.exact || place < ended + self.config.max_in_flight,
            "store: in order, at most `parallel` ahead of those that ended"
        );
        if let Some(store) = self.stores.get_mut(place) {
            ensure!(store.due, "store: one request to a node, and one more if it timed out: {node:?}");
            ensure_eq!(store.end, None, "store: none to a node with which it has ended: {node:?}");
            store.due = false;
            store.sent = Some(request.id);
            store.records = records;
        }
        ensure!(self.in_flight() <= self.config.max_in_flight, "store: at most `parallel` in flight");
        let mut counts = vec!["store: sent"];
        counts.extend(token.as_ref().map(|_| "store: with a token"));
        counts.extend(self.exact.then_some("store: expected by an exact model"));
        let repeats = self.stores.get(place).is_some_and(|store| store.timed_out);
        counts.extend(repeats.then_some("store: sent again"));
        if self.background {
            let left = self.background_budget.checked_sub(self.in_flight() + self.background_ended);
            ensure!(left.is_some(), "background: not more stores than were left");
            counts.push("background: store sent");
        }
        Ok(counts)
    }

    /// Checks that a store holds the record of the broadcast, or a batch records of the sweep. Returns the records
    /// of a batch, as indices.
    fn check_stored_records(&self, request: &Request<F>, message: Option<&F::Message>) -> Checked<Vec<u32>> {
        let mut records = Vec::new();
        let key = key_of::<F>(&request.target);
        if let Ask::Batch { records: batch, .. } = &request.ask {
            ensure!(self.start.strategy == Strategy::Sweep, "store: only a sweep sends batches: {request:?}");
            ensure_eq!(key, F::key(&request.node), "store: the target of a batch is the node's key");
            for record in batch {
                let place = (0..).zip(&self.start.records).find(|(_, given)| *given == record);
                let place = place.map(|(place, _)| place);
                records.push(ensure_some!(place, "store: a batch holds records of the broadcast only"));
            }
            ensure!(!records.is_empty(), "store: a batch is not empty");
        } else {
            ensure!(self.start.strategy != Strategy::Sweep, "store: a sweep sends batches only: {request:?}");
            ensure_eq!(
                (message, key),
                (Some(&self.record.message), self.target),
                "store: the request carries the record and its key"
            );
        }
        Ok(records)
    }

    /// What holds of a node to store with, whether the model is exact or not.
    fn check_store(&self, now: Instant, request: &Request<F>) -> Checked {
        let node = &request.node;
        match &self.strategy {
            StrategyState::Static => {}
            StrategyState::FollowUp(candidates) => {
                // When its time for the search is over, also with those of the region that have not.
                let is_cut_off = self.lookup_was_cut || self.share_is_over(now);
                let may_be_unanswered = is_cut_off && self.config.store_before_response;
                let distance = F::key(node).distance(&self.target).leading();
                let is_within = self.region.is_some_and(|region| distance <= region.reach(0));
                ensure!(
                    candidates.has_answered(node)
                        || may_be_unanswered && is_within && candidates.hops(node).is_some(),
                    "follow-up: stores only with nodes that answered, or lie in the region when time is over"
                );
                ensure!(!candidates.is_pending(), "follow-up: stores only after its lookup");
            }
            StrategyState::Optimistic(optimistic) => {
                let hops = optimistic.candidates.hops(node);
                let hops = ensure_some!(hops, "optimistic: stores only with nodes that were named: {node:?}");
                ensure!(
                    hops.iter().any(|hop| hop + 1 == request.hop),
                    "hops: one more than the node's own, for a store"
                );
                let answered = optimistic.candidates.has_answered(node);
                ensure!(
                    self.config.store_before_response || answered,
                    "optimistic: only with nodes that answered, unless store_before_response"
                );
                let close = optimistic.thresholds.is_close(&self.target, &F::key(node));
                let is_looking = optimistic.candidates.is_pending() && !self.share_is_over(now);
                ensure!(
                    close || self.config.store_before_response || !is_looking,
                    "optimistic: during the lookup only within the individual threshold"
                );
            }
            StrategyState::Sweep(sweep) => {
                ensure_eq!(request.hop, 1, "hops: 1 for a batch");
                ensure!(
                    sweep.lookups.values().any(|lookup| lookup.answered.contains(node)),
                    "sweep: stores only with nodes that answered"
                );
            }
        }
        Ok(())
    }

    /// A store failed. The lookup of an optimistic broadcast loses the node, if the node is unresponsive.
    fn store_failed(&mut self, node: &F::Node, silent: bool) {
        if let StrategyState::Optimistic(optimistic) = &mut self.strategy {
            optimistic.store_has_failed = true;
            if silent {
                optimistic.candidates.node_failed(node);
            }
        }
    }

    fn store_mut(&mut self, id: RequestId) -> Option<&mut Store<F>> {
        self.stores.iter_mut().find(|store| store.sent == Some(id))
    }

    fn is_store(&self, id: RequestId) -> bool {
        self.stores.iter().any(|store| store.sent == Some(id))
    }

    fn check_lookup(&self, finish: &BroadcastFinish<F>) -> Checked {
        let Some(candidates) = self.candidates() else {
            ensure_eq!(
                (finish.lookup_outcome, finish.closest.len()),
                (None, 0),
                "lookup: no result without a lookup"
            );
            return Ok(());
        };
        let end = ensure_some!(finish.stats.ended, "stats: `ended` is set in a finish");
        let until = self.schedule.map(|(_, until)| until);
        match (finish.lookup_outcome, until) {
            (lookup, None) => ensure_eq!(lookup, None, "lookup: no outcome before it begins"),
            (None, Some(_)) => {
                // An optimistic broadcast may reach its goal before the lookup ends.
                ensure_eq!(
                    finish.outcome,
                    Outcome::Complete,
                    "lookup: none is unfinished unless an optimistic broadcast completed early"
                );
                ensure!(
                    matches!(self.strategy, StrategyState::Optimistic(_)),
                    "lookup: none is unfinished unless an optimistic broadcast completed early"
                );
                ensure!(
                    !self.exact || self.lookup_ended_at.is_none(),
                    "lookup: none is unfinished unless an optimistic broadcast completed early"
                );
            }
            (Some(Outcome::DeadlineExceeded), Some(until)) => {
                ensure!(
                    until.is_none_or(|until| until <= end),
                    "deadline 8: the lookup is cut off only when its share has run out"
                );
                let early = self
                    .lookup_ended_at
                    .filter(|lookup_ended_at| until.is_some_and(|until| *lookup_ended_at < until));
                ensure_eq!(early, None, "lookup: keeps the outcome it had before its share ran out");
            }
            (Some(Outcome::Stopped), Some(_)) => {
                ensure_eq!(finish.outcome, Outcome::Stopped, "lookup: stopped only with its broadcast");
                ensure!(
                    !self.exact || self.lookup_ended_at.is_none(),
                    "lookup: stopped only if it had not ended"
                );
            }
            (Some(lookup), Some(until)) => {
                ensure!(
                    until.is_some(),
                    "deadline 8: a lookup without a share of the time can only be cut off"
                );
                let natural = lookup.is_natural();
                ensure!(natural, "lookup: {lookup} is not an outcome of a broadcast's lookup");
                ensure!(!self.share_ran_out, "deadline 8: a lookup whose share ran out is cut off");
            }
        }
        if until.is_some() {
            candidates.check_finish(finish.lookup_outcome.unwrap_or(Outcome::Complete), &finish.closest)?;
        } else {
            ensure_eq!(finish.closest.len(), 0, "closest: empty before the lookup begins");
        }
        Ok(())
    }

    fn check_stores(&self, finish: &BroadcastFinish<F>) -> Checked {
        let nodes: Vec<_> = finish.stores.iter().map(|stored| &stored.node).collect();
        if self.exact && (self.schedule.is_some() || matches!(self.strategy, StrategyState::Static)) {
            let expected: Vec<_> = self.stores.iter().map(|store| &store.node).collect();
            ensure_eq!(nodes, expected, "stores: all nodes to store with, in order");
        }
        ensure!(
            nodes.len() >= self.reported_nodes as usize,
            "counts: the number of nodes to store with never falls"
        );
        for (place, stored) in finish.stores.iter().enumerate() {
            let twice = finish.stores.iter().take(place).any(|other| other.node == stored.node);
            ensure!(!twice, "stores: each node once: {stored:?}");
            let store = self.stores.iter().find(|store| store.node == stored.node);
            let sent = store.is_some_and(|store| store.sent.is_some());
            let expected = match store.and_then(|store| store.end.clone()) {
                Some(end) => end,
                None if self.background => StoreEnd::Background,
                None if store.is_some_and(|store| !store.due) => StoreEnd::Cancelled,
                None if store.is_some_and(|store| store.timed_out) => StoreEnd::TimedOut,
                None => StoreEnd::Unsent,
            };
            ensure_eq!(stored.end, expected, "stores: each end agrees with the events: {stored:?}");
            if let Some(store) = store.filter(|_| sent) {
                ensure_eq!(stored.records, store.records, "stores: the records that were sent");
            }
        }
        for store in &self.stores {
            ensure!(
                store.sent.is_none() || nodes.contains(&&store.node),
                "stores: every store that was sent is listed: {store:?}"
            );
        }
        self.check_success(finish)
    }

    /// Whether one more store is sent a second time: in a region, k are.
    fn may_repeat_store(&self) -> bool {
        let is_in_region = self.region.is_some() && self.candidates().is_some();
        let repeated = self.stores.iter().filter(|store| store.timed_out).count();
        !is_in_region || repeated < self.query.k
    }

    /// How many nodes an optimistic broadcast stores with at most: 2k by guess, and others once its lookup has ended.
    fn most_optimistic(&self) -> usize {
        2 * self.query.k + if self.config.regions { most_when_known(&self.query) } else { 0 }
    }

    /// How many credible stores are wanted where there is doubt: half of k, and three eighths of the nodes that an honest network
    /// has within the region, or up to the farthest store where that is farther.
    fn least_credible(&self, finish: &BroadcastFinish<F>) -> usize {
        if self.region.is_some() { (self.cover(finish).1 * 3 / 8).max(self.query.k / 2) } else { 0 }
    }

    /// How far the region reaches, or the farthest store, and how many nodes an honest network has up to there.
    fn cover(&self, finish: &BroadcastFinish<F>) -> (u64, usize) {
        let Some(region) = self.region else { return (0, 0) };
        let distance = |stored: &crate::broadcast::events::Stored<F>| {
            F::key(&stored.node).distance(&self.target).leading()
        };
        let farthest = finish.stores.iter().map(distance).max().unwrap_or_default();
        let cover = farthest.max(region.width().0);
        let expected = region.expected_sixteenths(cover) / 16;
        (cover, usize::try_from(expected).unwrap_or(usize::MAX / 8))
    }

    /// Checks what the region's report says, and that what is doubted does not succeed. Returns whether there may be doubt.
    fn check_credible(&self, finish: &BroadcastFinish<F>) -> Checked<bool> {
        let Some(report) = finish.region.as_ref() else { return Ok(false) };
        let stored = finish.stores.iter().filter(|stored| stored.end == StoreEnd::Stored).count();
        ensure_eq!(
            (report.answered as usize, report.stored as usize),
            (finish.stores.len(), stored),
            "region: only what was acknowledged counts as stored"
        );
        let (credible, least) = (report.credible as usize, self.least_credible(finish));
        // A crowd in which nothing is stored is seen by the nodes that are known there; then more may be wanted than were stored with.
        let (cover, expected) = self.cover(finish);
        let named = self.candidates().map_or(0, |candidates| candidates.named_within(cover));
        let may_be_more = report.is_implausible() || named > finish.stores.len();
        let most = finish.stores.len().saturating_add(if may_be_more { expected } else { 0 });
        let is_met = credible >= required_stores(self.start.success, most);
        ensure!(credible <= stored, "region: no more stores are credible than there are: {report:?}");
        // That some do not count shows that there is a crowd, or that the nodes are nearer than is plausible.
        let is_doubted = credible < stored || report.is_implausible();
        ensure!(
            !is_doubted || credible >= least.max(1) || finish.records_short > 0,
            "success: not by {credible} credible stores, where there is doubt and {least} are wanted: {report:?}"
        );
        Ok(credible < stored || credible < least || !is_met)
    }

    fn check_success(&self, finish: &BroadcastFinish<F>) -> Checked {
        let met = |of: Vec<&StoreEnd<F>>| {
            let stored = of.iter().filter(|end| ***end == StoreEnd::Stored).count();
            stored >= required_stores(self.start.success, of.len())
        };
        let short = if matches!(self.strategy, StrategyState::Sweep(_)) {
            let is_short = |(place, _): &(u32, &Record<F>)| {
                let of = finish.stores.iter().filter(|stored| stored.records.contains(place));
                !met(of.map(|stored| &stored.end).collect())
            };
            (0..).zip(&self.start.records).filter(is_short).count()
        } else {
            let one = finish.stores.iter().all(|stored| stored.records.is_empty());
            ensure!(one, "stores: records are listed for batches only");
            usize::from(!met(finish.stores.iter().map(|stored| &stored.end).collect()))
        };
        // Stores with more nodes than there can be do not count in full.
        let is_doubted = self.check_credible(finish)?;
        let short = if is_doubted && finish.records_short > 0 { 1 } else { short };
        ensure_eq!(
            (finish.records_short, finish.succeeded),
            (short, short == 0),
            "success: by the rule of the start"
        );
        let most = match &self.strategy {
            StrategyState::FollowUp(_) => self.query.k * self.query.region_bound,
            StrategyState::Optimistic(_) => self.most_optimistic(),
            StrategyState::Static | StrategyState::Sweep(_) => usize::MAX,
        };
        ensure!(finish.stores.len() <= most, "region: stores with at most {most} nodes");
        Ok(())
    }

    /// Checks that each record went to the k closest of the nodes found.
    fn check_allotted(&self, sweep: &SweepState<F>, finish: &BroadcastFinish<F>) -> Checked<bool> {
        let keys: Vec<_> = finish.stores.iter().map(|stored| F::key(&stored.node)).collect();
        ensure!(keys.is_sorted_by(|a, b| a < b), "sweep: one batch for each node, in order of keys");
        let answered = |node: &F::Node| sweep.lookups.values().any(|lookup| lookup.answered.contains(node));
        ensure!(
            finish.stores.iter().all(|stored| answered(&stored.node)),
            "sweep: stores only with nodes that answered"
        );
        let mut found: BTreeSet<_> = keys.iter().copied().collect();
        if !self.query.edge_probing {
            // All nodes that its lookups found, by target.
            let k = self.query.k;
            let most = self.config.sweep.results.clamp(k + 1, self.query.max_candidates.max(k + 1));
            for (target, lookup) in &sweep.lookups {
                let mut closest: Vec<_> = lookup.answered.nodes().map(F::key).collect();
                closest.sort_by_key(|key| key.distance(target));
                found.extend(closest.into_iter().take(most));
            }
        }
        for (place, record) in (0..).zip(&self.start.records) {
            let of = finish.stores.iter().filter(|stored| stored.records.contains(&place));
            let mut holders: Vec<_> = of.map(|stored| F::key(&stored.node)).collect();
            let mut closest: Vec<_> = found.iter().copied().collect();
            let target = key_of::<F>(&record.target);
            holders.sort_by_key(|key| key.distance(&target));
            closest.sort_by_key(|key| key.distance(&target));
            let (reach, most) = self.region.map_or((0, 0), |region| region.width());
            let k = self.query.k;
            let in_region = closest.iter().take(most).filter(|key| key.distance(&target).leading() <= reach);
            let wanted = in_region.count().max(k);
            closest.truncate(wanted);
            ensure_eq!(
                holders,
                closest,
                "sweep: each record goes to the k closest of the nodes found, and those of its region: {record:?}"
            );
        }
        Ok(found.len() > self.query.k)
    }

    /// Which situations a finish shows.
    fn situations(&self, finish: &BroadcastFinish<F>, exact: bool) -> Counts {
        let sizes = finish.stores.len();
        let end = |of: fn(&StoreEnd<F>) -> bool| finish.stores.iter().any(|stored| of(&stored.end));
        let kind = match (&self.strategy, &self.fallback_reason) {
            (_, Some(_)) => "broadcast: fell back to a follow-up",
            (StrategyState::Static, _) => "broadcast: static",
            (StrategyState::FollowUp(_), _) => "broadcast: follow-up",
            (StrategyState::Optimistic(_), _) => "broadcast: optimistic",
            (StrategyState::Sweep(_), _) => "broadcast: sweep",
        };
        let storing = !finish.stores.is_empty() && self.lookup_ended_at.is_some();
        let share =
            finish.lookup_outcome == Some(Outcome::DeadlineExceeded) && finish.outcome == Outcome::Complete;
        let by_hand = finish.outcome == Outcome::Stopped && self.schedule.is_some();
        let situations = [
            (true, kind),
            (finish.succeeded, "broadcast: succeeded"),
            (!finish.succeeded && sizes > 0, "broadcast: did not succeed"),
            (exact, "broadcast: exact model of several stores"),
            (share, "broadcast: the lookup's share ran out"),
            (share && sizes > 0, "broadcast: the lookup's share ran out, and it stored"),
            (self.background, "broadcast: returned early"),
            (by_hand && !storing, "broadcast: stopped during the lookup"),
            (by_hand && storing, "broadcast: stopped while storing"),
            (end(|end| *end == StoreEnd::Stored), "store: stored"),
            (end(|end| *end == StoreEnd::Failed), "store: failed"),
            (end(|end| matches!(end, StoreEnd::Rejected(_))), "store: rejected"),
            (end(|end| *end == StoreEnd::TimedOut), "store: timed out"),
            (end(|end| *end == StoreEnd::Cancelled), "store: cancelled"),
            (end(|end| *end == StoreEnd::Unsent), "store: unsent"),
            (end(|end| *end == StoreEnd::Background), "store: in the background"),
            (finish.sweep_end.is_some() && sizes > 1, "sweep: explored"),
            (matches!(self.strategy, StrategyState::Sweep(_)) && exact, "sweep: allotted"),
        ];
        let in_region = self.candidates().into_iter().flat_map(CandidateModel::region_situations);
        situations.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).chain(in_region).collect()
    }
}

impl<F: Family> OperationModel<F> for BroadcastModel<F> {
    fn boxed(&self) -> Box<dyn OperationModel<F>> {
        Box::new(self.clone())
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Broadcast
    }

    fn begin(&mut self, now: Instant, deadline: Instant) -> Checked {
        let until = lookup_share_end(now, deadline, self.store_reserve());
        self.schedule = Some((deadline, until));
        if matches!(self.strategy, StrategyState::Static) {
            self.schedule = Some((deadline, None));
        } else if until.is_none() {
            self.end_lookup(now)?;
        }
        self.update(now)
    }

    fn answered_in_part(&mut self, now: Instant, id: RequestId, node: &F::Node) {
        if let Some(candidates) = self.candidates_mut() {
            candidates.answered_in_part(now, id, node);
        }
    }

    fn time_passes(&mut self, now: Instant) {
        if let Some(candidates) = self.candidates_mut() {
            candidates.time_passes(now);
        }
    }

    fn due_work_done(&mut self, now: Instant) -> Checked {
        if self.share_is_over(now) {
            self.end_lookup(now)?;
        }
        Ok(())
    }

    fn has_no_soft_limit(&self, request: &Request<F>) -> bool {
        is_store_request(request)
    }

    fn answer_deadline(&self, request: &Request<F>) -> Option<Instant> {
        let until = self.schedule.and_then(|(_, until)| until);
        until.filter(|_| !self.has_no_soft_limit(request))
    }

    fn timer(&self) -> Timer {
        let Some(until) = self.lookup_deadline() else { return Timer::None };
        let pending = match &self.strategy {
            StrategyState::Sweep(sweep) => sweep.lookups.values().any(|lookup| !lookup.pending.is_empty()),
            _ => self.candidates().is_some_and(CandidateModel::is_pending),
        };
        // Of one that is not tracked, the end of the lookup may not have been seen.
        let is_known = pending && !self.untracked || self.end_is_predictable();
        if is_known { Timer::At(until) } else { Timer::Maybe(until) }
    }

    fn is_store(&self, id: RequestId) -> bool {
        BroadcastModel::is_store(self, id)
    }

    fn may_send(&self, request: &Request<F>) -> bool {
        match &request.ask {
            Ask::Store { message, .. } => *message == self.record.message,
            Ask::Batch { .. } => false,
            ask => {
                let target = key_of::<F>(&request.target);
                let may_find = target != self.target && *ask == Ask::FindCloser;
                (*ask == self.start.ask || may_find) && is_edge_of::<F>(&target, &self.target)
            }
        }
    }

    fn lose_track(&mut self) {
        self.exact = false;
        self.untracked = true;
    }

    fn waiting_failed(&mut self, node: &F::Node) {
        self.exact = false;
        if let Some(candidates) = self.candidates_mut() {
            candidates.waiting_failed(node);
        }
    }

    fn is_tracked(&self) -> bool {
        !self.untracked
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<(bool, Counts)> {
        let RequestSent { now, request, soft, nothing_queued, was_in_table } = *sent_event;
        if self.has_no_soft_limit(request) {
            return Ok((true, self.store_sent(sent_event)?));
        }
        if self.untracked {
            return Ok((false, vec!["background: lookup request"]));
        }
        let may_find = key_of::<F>(&request.target) != self.target && request.ask == Ask::FindCloser;
        ensure!(
            request.ask == self.start.ask || may_find,
            "request: asks what the start asks, about another key for closer nodes only"
        );
        let before = self.before_end.take().filter(|_| self.lookup_ended_at == Some(now));
        if let Some(before) = before
            && was_in_table
            && request.hop == 1
        {
            *self = *before;
        }
        ensure!(!self.share_is_over(now), "deadline 8: no lookup request after its share of the time");
        ensure_eq!(self.lookup_ended_at, None, "lookup: no request after its end");
        let mut counts = vec!["broadcast: lookup request"];
        counts.extend(self.background.then_some("background: lookup request"));
        let (edge_probing, max_lookups) = (self.query.edge_probing, self.config.max_lookups);
        match &mut self.strategy {
            StrategyState::Static => broken!("static: has no lookup"),
            StrategyState::FollowUp(candidates) => {
                if was_in_table && request.hop == 1 {
                    candidates.begins_with(&request.node);
                }
                Ok((candidates.request_sent(now, request, soft, nothing_queued)?, counts))
            }
            StrategyState::Optimistic(optimistic) => {
                ensure!(
                    !self.exact || !nothing_queued || !optimistic.paused,
                    "optimistic: no lookup request once the set threshold is met"
                );
                if was_in_table && request.hop == 1 {
                    optimistic.candidates.begins_with(&request.node);
                }
                // A node that timed out enters the window again.
                optimistic.stale |= optimistic.candidates.has_timed_out(&request.node);
                let first = optimistic.candidates.request_sent(now, request, soft, nothing_queued)?;
                self.update_window(now);
                Ok((first, counts))
            }
            StrategyState::Sweep(sweep) => {
                let hops = sweep.named.get(&request.node);
                let hops = ensure_some!(hops, "sweep: asks only nodes that were named: {request:?}");
                ensure!(hops.contains(&request.hop), "hops: {} of {hops:?}", request.hop);
                let lookup = sweep.lookups.entry(key_of::<F>(&request.target)).or_default();
                let first = lookup.asked.insert(request.node.clone(), ());
                lookup.pending.push((request.id, request.node.clone()));
                if !edge_probing {
                    let running = sweep.lookups.values().filter(|lookup| !lookup.pending.is_empty()).count();
                    ensure!(running <= max_lookups, "sweep: at most max_lookups at once");
                    let most = self.config.sweep.max_lookups;
                    ensure!(sweep.lookups.len() <= most, "sweep: at most sweep.max_lookups in total");
                    counts.extend((running > 1).then_some("sweep: several lookups at once"));
                }
                // A repeated request to a node may be an edge probe with another target.
                Ok((first && !edge_probing, counts))
            }
        }
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<Vec<RequestId>> {
        let RequestOutcome::Answered { closer } = request_end.outcome else {
            broken!("progress: not an answer: {:?}", request_end.outcome)
        };
        let RequestInFlight { node, hop, target, .. } = request_end.sent;
        let id = request_end.id;
        self.reconsider_end(request_end.now);
        if self.untracked && !self.is_store(id) {
            return Ok(Vec::new());
        }
        let mut superseded = Vec::new();
        let background = usize::from(self.background);
        if let Some(store) = self.store_mut(id) {
            store.end = Some(StoreEnd::Stored);
            self.background_ended += background;
        } else {
            if let Some(token) = request_end.extra.and_then(|extra| extra.token.clone()) {
                self.tokens.insert(node.clone(), token);
            }
            let value = request_end.extra.map(|extra| extra.value);
            let most = self.query.max_closer_nodes;
            match &mut self.strategy {
                StrategyState::Static => broken!("static: has no lookup"),
                StrategyState::FollowUp(candidates)
                | StrategyState::Optimistic(OptimisticState { candidates, .. }) => {
                    superseded = candidates.request_answered(request_end, closer, value)?;
                }
                StrategyState::Sweep(sweep) => {
                    let lookup = sweep.lookups.entry(*target).or_default();
                    let others = lookup.pending.iter().filter(|(other, to)| *other != id && to == node);
                    superseded.extend(others.map(|(other, _)| *other));
                    lookup.pending.retain(|(_, to)| to != node);
                    lookup.answered.insert(node.clone(), ());
                    sweep.named.update(node, |hops| _ = hops.insert(1));
                    for named in closer.iter().take(most) {
                        sweep.named.update(named, |hops| _ = hops.insert(hop + 1));
                    }
                }
            }
        }
        if self.background {
            self.update(request_end.now)?;
        }
        Ok(superseded)
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<bool> {
        let (id, RequestInFlight { node, target, .. }) = (request_end.id, request_end.sent);
        let timed_out = matches!(request_end.outcome, RequestOutcome::TimedOut);
        self.reconsider_end(request_end.now);
        if self
            .lookup_deadline()
            .is_some_and(|until| until <= request_end.now && request_end.sent.deadline >= until)
        {
            self.end_lookup(request_end.now)?;
        }
        if self.untracked && !self.is_store(id) {
            return Ok(false);
        }
        let mut quiet = true;
        let background = usize::from(self.background);
        let may_repeat = self.may_repeat_store();
        if let Some(store) = self.store_mut(id) {
            match request_end.outcome {
                RequestOutcome::Rejected(why) => store.end = Some(StoreEnd::Rejected(why.clone())),
                RequestOutcome::TimedOut if store.timed_out || !may_repeat => {
                    store.end = Some(StoreEnd::TimedOut);
                }
                RequestOutcome::TimedOut => (store.timed_out, store.due) = (true, true),
                _ => store.end = Some(StoreEnd::Failed),
            }
            let ended = store.end.is_some();
            self.background_ended += if ended { background } else { 0 };
            self.store_failed(node, !matches!(request_end.outcome, RequestOutcome::Rejected(_)));
        } else {
            match &mut self.strategy {
                StrategyState::Static => broken!("static: has no lookup"),
                StrategyState::FollowUp(candidates)
                | StrategyState::Optimistic(OptimisticState { candidates, .. }) => {
                    candidates.request_failed(id, node, timed_out)?;
                    quiet = candidates.has_no_pending(node);
                }
                StrategyState::Sweep(sweep) => {
                    let lookup = sweep.lookups.entry(*target).or_default();
                    lookup.pending.retain(|(other, _)| *other != id);
                    quiet = lookup.pending.iter().all(|(_, to)| to != node);
                }
            }
        }
        if self.background {
            self.update(request_end.now)?;
        }
        Ok(quiet)
    }

    fn request_cancelled(
        &mut self,
        now: Instant,
        id: RequestId,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        self.before_end = None;
        let until = self.schedule.and_then(|(_, until)| until);
        if reason == CancelReason::LookupEnded {
            ensure!(!self.is_store(id), "cancel: LookupEnded is for lookup requests only");
            if let Some(until) = until {
                ensure!(
                    until > now || sent.deadline >= until,
                    "deadline 6: a request that ran into its own time-out before its lookup ended is reported as timed out"
                );
                self.share_ran_out |= until <= now;
            }
        }
        // The request had all the time that there was when it was sent, and the operation goes on in the
        // background.
        let cut_off = reason == CancelReason::OperationEnded && self.background && sent.deadline <= now;
        let cut_off = cut_off && self.deadline().is_some_and(|end| end > now);
        match &mut self.strategy {
            StrategyState::Sweep(sweep) => {
                let lookup = sweep.lookups.entry(sent.target).or_default();
                lookup.pending.retain(|(other, _)| *other != id);
            }
            StrategyState::Optimistic(OptimisticState { candidates, .. })
                if cut_off && !self.untracked && !self.stores.iter().any(|it| it.sent == Some(id)) =>
            {
                candidates.request_failed(id, &sent.node, true)?;
            }
            StrategyState::FollowUp(candidates)
            | StrategyState::Optimistic(OptimisticState { candidates, .. }) => {
                candidates.request_cancelled(id, &sent.node);
            }
            StrategyState::Static => {}
        }
        match reason {
            CancelReason::LookupEnded if !matches!(self.strategy, StrategyState::Sweep(_)) => {
                self.end_lookup(now)?;
            }
            CancelReason::LookupEnded | CancelReason::OperationEnded if !cut_off => {}
            CancelReason::OperationEnded => {
                let may_repeat = self.may_repeat_store();
                if let Some(store) = self.store_mut(id) {
                    if store.timed_out || !may_repeat {
                        store.end = Some(StoreEnd::TimedOut);
                    } else {
                        (store.timed_out, store.due) = (true, true);
                    }
                    self.background_ended += usize::from(store.end.is_some());
                    self.store_failed(&sent.node, true);
                }
                self.update(now)?;
            }
            reason => broken!("cancel: not a reason of a broadcast: {reason}"),
        }
        Ok(())
    }

    fn check_progress(&mut self, now: Instant, event: &Outbound<F>) -> Checked<Counts> {
        let Outbound::BroadcastProgress(progress) = event else {
            broken!("progress: of another kind of operation: {event:?}")
        };
        ensure_eq!(
            progress.store,
            self.is_store(progress.request.id),
            "progress: `store` is set for stores only"
        );
        let (stored, failed) = (progress.counts.stored as usize, progress.counts.failed as usize);
        ensure_eq!(
            (stored, failed),
            (self.stored(), self.failed()),
            "counts: stored and failed agree with the events"
        );
        let ended = |of: fn(&StoreEnd<F>) -> bool| {
            self.stores.iter().filter(|store| store.end.as_ref().is_some_and(of)).count()
        };
        let (refused, silent) = (progress.counts.refused as usize, progress.counts.silent as usize);
        ensure_eq!(
            (refused, silent),
            (ended(|end| matches!(end, StoreEnd::Rejected(_))), ended(|end| *end == StoreEnd::TimedOut)),
            "counts: refused and silent agree with the events"
        );
        let nodes = progress.counts.nodes;
        let tracked = u32::try_from(self.stores.len()).unwrap_or(u32::MAX);
        if self.exact {
            ensure_eq!(nodes, tracked, "counts: nodes to store with");
        } else {
            ensure!(nodes >= tracked && nodes >= self.reported_nodes, "counts: nodes to store with");
        }
        self.reported_nodes = nodes;
        self.update(now)?;
        Ok(vec![if progress.store {
            "broadcast: progress of a store"
        } else {
            "broadcast: progress of a lookup"
        }])
    }

    fn silent_progress(&mut self, now: Instant) -> Checked {
        self.update(now)
    }

    fn check_finish(&mut self, now: Instant, event: &Outbound<F>, in_flight: usize) -> Checked<Counts> {
        let Outbound::BroadcastFinished(finish) = event else {
            broken!("finish: of another kind of operation: {event:?}")
        };
        let cut =
            matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped | Outcome::Overloaded);
        ensure!(
            cut || finish.outcome == Outcome::Complete,
            "outcome: not of a broadcast: {}",
            finish.outcome
        );
        if self.share_is_over(now) {
            self.end_lookup(now)?;
        }
        let natural = finish.lookup_outcome.is_some_and(Outcome::is_natural);
        self.exact &= self.candidates().is_none_or(CandidateModel::is_exact);
        if self.lookup_ended_at.is_none() && (natural || !cut) {
            match &self.strategy {
                StrategyState::FollowUp(_) => self.end_lookup(now)?,
                StrategyState::Optimistic(_) if natural => self.exact = false,
                _ => {}
            }
        }
        let stored = self.stored();
        let returns = matches!(&self.strategy, StrategyState::Optimistic(state) if !cut && stored >= state.early_return_at);
        let goes_on = finish.stores.iter().any(|store| store.end == StoreEnd::Background);
        // With nothing in flight and no node to store with, the lookup may still go on.
        let is_left = |stored: &&crate::broadcast::events::Stored<F>| match stored.end {
            StoreEnd::Background | StoreEnd::Cancelled | StoreEnd::Unsent => true,
            // It was to be repeated.
            StoreEnd::TimedOut => self
                .stores
                .iter()
                .any(|store| store.node == stored.node && store.timed_out && store.end.is_none()),
            _ => false,
        };
        let open = finish.stores.iter().filter(is_left).count();
        let background_budget = self.most_optimistic().saturating_sub(finish.stores.len()) + open;
        let unseen = open == 0
            && background_budget > 0
            && background_budget <= self.config.max_background
            && self.lookup_ended_at.is_none();
        self.background = returns && (goes_on || in_flight > 0 || unseen);
        ensure!(
            !goes_on || returns,
            "background: only an optimistic broadcast that returned early continues"
        );
        ensure_eq!(key_of::<F>(&finish.target), self.target, "closest: those to the target of the start");
        ensure_eq!(
            finish.fallback_reason,
            self.fallback_reason,
            "fell back: exactly if the network size is not known"
        );
        self.check_stores(finish)?;
        let sizes = finish.stores.len();
        ensure!(
            cut || returns || open == 0,
            "outcome: complete only when nothing is left to store: {:?}",
            finish.stores
        );
        self.check_lookup(finish)?;
        let mut exact = self.exact && sizes > 1;
        if let StrategyState::Sweep(sweep) = &self.strategy {
            let begun = self.schedule.is_some();
            ensure!(begun || finish.sweep_end.is_none(), "sweep: explored nothing before it began");
            ensure!(
                finish.sweep_end.is_none() || open == 0 || cut,
                "sweep: explored only when nothing is left to store"
            );
            exact =
                begun && (finish.sweep_end.is_some() || sizes > 0) && self.check_allotted(sweep, finish)?;
            let share_left = self.lookup_deadline().is_some_and(|until| until > now);
            let early = cut && finish.stores.is_empty();
            ensure!(
                finish.sweep_end.is_some() || !share_left || early,
                "sweep: stops looking only if all is explored or its share ran out"
            );
        } else {
            ensure_eq!(finish.sweep_end, None, "explored: set by sweeps only");
        }
        self.background_budget = background_budget;
        self.drops_rest = returns && !self.background && open > 0;
        if let StrategyState::Optimistic(optimistic) = &mut self.strategy
            && self.background
        {
            let left = self.background_budget - open;
            optimistic.budget = left.saturating_sub(optimistic.budget_when_known);
        }
        let mut counts = self.situations(finish, exact);
        let dropped = self.drops_rest;
        counts.extend(dropped.then_some("broadcast: returned early, no room in the background"));
        Ok(counts)
    }

    fn continue_in_background(&mut self, now: Instant, until: Instant) -> Checked<Option<(bool, usize)>> {
        if !self.background {
            return Ok(self.drops_rest.then_some((false, self.background_budget)));
        }
        let looking = self.lookup_deadline().and_then(|_| lookup_share_end(now, until, self.store_reserve()));
        let looked = self.lookup_deadline().is_some();
        self.schedule = Some((until, if looked { looking } else { None }));
        if looked && looking.is_none() {
            self.end_lookup(now)?;
        }
        Ok(Some((true, self.background_budget)))
    }

    fn stores_left(&self) -> usize {
        if self.exact { self.open() } else { 0 }
    }

    fn check_not_idle(&self, now: Instant, busy: &[F::Key]) -> Checked {
        let in_flight = self.in_flight();
        // The next store was submitted, and waits for a busy node.
        let next = self.stores.iter().find(|store| store.is_due());
        let stuck = next.is_some_and(|store| busy.contains(&F::key(&store.node)));
        if self.exact && next.is_some() {
            let full = in_flight >= self.config.max_in_flight
                || self.stores.iter().any(|store| store.is_due() && busy.contains(&F::key(&store.node)));
            ensure!(
                full || stuck,
                "not idle: a store to {next:?} could be sent now; {:?}",
                self.candidates().map(CandidateModel::to_string)
            );
        }
        let pending = match &self.strategy {
            StrategyState::Sweep(sweep) => sweep.lookups.values().any(|lookup| !lookup.pending.is_empty()),
            StrategyState::Static => false,
            _ => self.candidates().is_some_and(CandidateModel::is_pending),
        };
        // Of one that is not tracked, not every request of its lookup is known.
        let waits = in_flight > 0 || pending || !busy.is_empty() || self.untracked;
        ensure!(waits, "not idle: a live broadcast waits for a request");
        if self.exact
            && self.is_looking()
            && !stuck
            && !self.untracked
            && let Some(candidates) = self.candidates()
        {
            candidates.check_not_idle(now, busy)?;
        }
        Ok(())
    }
}
