//! [`ReportModel`]: what an operation of any kind reports: the closest nodes among those that answered, and how its
//! stores ended. It does not know which requests the operation may send, so it costs little.

use crate::broadcast::events::{BroadcastFinish, StartBroadcast, StoreEnd, Strategy};
use crate::coordinator::config::Config;
use crate::coordinator::events::Outbound;
use crate::testing::broadcast_model::lookup_share_end;
use crate::testing::broken::{Checked, broken, ensure, ensure_eq};
use crate::testing::lookup_model::needs_nothing;
use crate::testing::node_map::NodeSet;
use crate::testing::operation_model::{
    Counts, OperationKind, OperationModel, RequestEnd, RequestSent, Timer, is_store_request,
};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::target::{is_edge_of, key_of};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::{Contact, Outcome, Start, ValueReport};
use crate::vocabulary::request_events::{Ask, CancelReason, Request, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// What a broadcast of one record asks and stores; a sweep has none.
#[derive(Clone)]
struct OneRecord<F: Family> {
    key: F::Key,
    message: F::Message,
    ask: Ask<F>,
}

/// How an operation stores, if it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StrategyKind {
    /// With given nodes, or not at all.
    WithoutLookup,
    FollowUp,
    Optimistic,
    Sweep,
}

#[derive(Clone)]
pub(super) struct ReportModel<F: Family> {
    kind: OperationKind,
    local: F::Key,
    /// The key of its lookup, if it has one.
    target: Option<F::Key>,
    /// It asks for closer nodes: a lookup with the node's own key is a bootstrap.
    is_find: bool,
    /// What the caller holds meets the quorum.
    needs_nothing: bool,
    record: Option<OneRecord<F>>,
    strategy: StrategyKind,
    /// What a broadcast reserves for storing; `None`: half of its time.
    store_reserve: Option<Duration>,
    /// Until when a broadcast looks for nodes, once it runs.
    looks_until: Option<Instant>,
    timer: Timer,
    /// Requests in flight other than stores.
    pending: Vec<(RequestId, F::Node)>,
    /// Stores in flight.
    storing: Vec<RequestId>,
    /// The nodes that were asked other than to store.
    asked: NodeSet<F>,
    /// The nodes that answered, other than a store.
    answered: NodeSet<F>,
    /// The nodes that answered a store.
    stored: NodeSet<F>,
    /// Its finish allows it to go on in the background.
    continues: bool,
}

impl<F: Family> ReportModel<F> {
    fn new(kind: OperationKind, local: F::Key, target: Option<F::Key>) -> Self {
        Self {
            kind,
            local,
            target,
            is_find: false,
            needs_nothing: false,
            record: None,
            strategy: StrategyKind::WithoutLookup,
            store_reserve: None,
            looks_until: None,
            timer: Timer::None,
            pending: Vec::new(),
            storing: Vec::new(),
            asked: NodeSet::default(),
            answered: NodeSet::default(),
            stored: NodeSet::default(),
            continues: false,
        }
    }

    pub(super) fn lookup(local: F::Key, start: &Start<F>) -> Self {
        let target = Some(key_of::<F>(&start.target));
        Self {
            is_find: start.ask == Ask::FindCloser,
            needs_nothing: needs_nothing(start),
            ..Self::new(OperationKind::Lookup, local, target)
        }
    }

    pub(super) fn crawl(local: F::Key) -> Self {
        Self::new(OperationKind::Crawl, local, None)
    }

    /// `None` if there is nothing to store: such a start is refused.
    pub(super) fn broadcast(local: F::Key, config: &Config, start: &StartBroadcast<F>) -> Option<Self> {
        let first = start.records.first()?;
        let strategy = match &start.strategy {
            Strategy::Static(_) => StrategyKind::WithoutLookup,
            Strategy::FollowUp => StrategyKind::FollowUp,
            Strategy::Optimistic { .. } => StrategyKind::Optimistic,
            Strategy::Sweep => StrategyKind::Sweep,
        };
        let is_sweep = strategy == StrategyKind::Sweep;
        let key = key_of::<F>(&first.target);
        let (message, ask) = (first.message.clone(), start.ask.clone());
        Some(Self {
            record: (!is_sweep).then_some(OneRecord { key, message, ask }),
            strategy,
            store_reserve: (!is_sweep).then_some(config.broadcast.store_reserve),
            ..Self::new(OperationKind::Broadcast, local, Some(key))
        })
    }

    /// The closest nodes are in order of distance, each once, and all of them answered.
    fn check_closest(&self, target: &F::Target, closest: &[Contact<F>]) -> Checked {
        let target = key_of::<F>(target);
        ensure!(
            self.target == Some(target),
            "closest: those to the target of the start: {:?}, not {target:?}",
            self.target
        );
        let far = |contact: &Contact<F>| F::key(&contact.node).distance(&target);
        ensure!(
            closest.is_sorted_by(|a, b| far(a) <= far(b)),
            "closest: in order of distance to {target:?}: {closest:?}"
        );
        for (place, contact) in closest.iter().enumerate() {
            let twice = closest.iter().take(place).any(|other| other.node == contact.node);
            ensure!(!twice, "closest: each node once: {contact:?}");
            ensure!(self.answered.contains(&contact.node), "closest: only nodes that answered: {contact:?}");
        }
        Ok(())
    }

    fn check_stores(&self, finish: &BroadcastFinish<F>) -> Checked {
        let mut listed = NodeSet::<F>::default();
        for stored in &finish.stores {
            ensure!(listed.insert(stored.node.clone(), ()), "stores: each node once: {stored:?}");
            ensure_eq!(
                stored.end == StoreEnd::Stored,
                self.stored.contains(&stored.node),
                "stores: each end agrees with the events: {stored:?}"
            );
        }
        for node in self.stored.nodes() {
            ensure!(listed.contains(node), "stores: every store that was answered is listed: {node:?}");
        }
        Ok(())
    }

    fn close(&mut self, id: RequestId) {
        self.pending.retain(|(other, _)| *other != id);
        self.storing.retain(|other| *other != id);
    }
}

impl<F: Family> OperationModel<F> for ReportModel<F> {
    fn boxed(&self) -> Box<dyn OperationModel<F>> {
        Box::new(self.clone())
    }

    fn kind(&self) -> OperationKind {
        self.kind
    }

    fn begin(&mut self, now: Instant, deadline: Instant) -> Checked {
        if self.strategy != StrategyKind::WithoutLookup {
            self.looks_until = lookup_share_end(now, deadline, self.store_reserve);
            self.timer = self.looks_until.map_or(Timer::None, Timer::Maybe);
        }
        Ok(())
    }

    fn has_no_soft_limit(&self, request: &Request<F>) -> bool {
        self.kind == OperationKind::Crawl || is_store_request(request)
    }

    fn answer_deadline(&self, request: &Request<F>) -> Option<Instant> {
        self.looks_until.filter(|_| !is_store_request(request))
    }

    fn timer(&self) -> Timer {
        self.timer
    }

    fn continue_in_background(&mut self, _now: Instant, until: Instant) -> Checked<Option<(bool, usize)>> {
        (self.looks_until, self.timer) = (None, Timer::Maybe(until));
        Ok(self.continues.then_some((true, 0)))
    }

    fn is_store(&self, id: RequestId) -> bool {
        self.storing.contains(&id)
    }

    fn may_send(&self, request: &Request<F>) -> bool {
        let Some(record) = &self.record else { return false };
        match &request.ask {
            Ask::Store { message, .. } => *message == record.message,
            Ask::Batch { .. } => false,
            ask => {
                let target = key_of::<F>(&request.target);
                let may_find = target != record.key && *ask == Ask::FindCloser;
                (*ask == record.ask || may_find) && is_edge_of::<F>(&target, &record.key)
            }
        }
    }

    fn may_be_superseded(&self, sent: &RequestInFlight<F>) -> bool {
        self.strategy == StrategyKind::Sweep && self.answered.contains(&sent.node)
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<(bool, Counts)> {
        let request = sent_event.request;
        if is_store_request(request) {
            self.storing.push(request.id);
            return Ok((true, Vec::new()));
        }
        self.pending.push((request.id, request.node.clone()));
        let first = self.asked.insert(request.node.clone(), ());
        // Until when the lookup goes on in the background is not known.
        let known = self.kind == OperationKind::Crawl
            || self.strategy != StrategyKind::Sweep && first && !self.continues;
        Ok((known, Vec::new()))
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<Vec<RequestId>> {
        let node = &request_end.sent.node;
        if self.is_store(request_end.id) {
            self.close(request_end.id);
            self.stored.insert(node.clone(), ());
            return Ok(Vec::new());
        }
        self.close(request_end.id);
        self.answered.insert(node.clone(), ());
        if self.strategy == StrategyKind::Sweep || self.kind == OperationKind::Crawl {
            return Ok(Vec::new());
        }
        let superseded = self.pending.extract_if(.., |(_, to)| to == node).map(|(id, _)| id).collect();
        Ok(superseded)
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<bool> {
        self.close(request_end.id);
        Ok(self.pending.iter().all(|(_, to)| *to != request_end.sent.node))
    }

    fn request_cancelled(
        &mut self,
        _now: Instant,
        id: RequestId,
        _sent: &RequestInFlight<F>,
        _reason: CancelReason,
    ) -> Checked {
        self.close(id);
        Ok(())
    }

    fn check_progress(&mut self, _now: Instant, event: &Outbound<F>) -> Checked<Counts> {
        let right = match (self.kind, event) {
            (OperationKind::Lookup, Outbound::Progress(_))
            | (OperationKind::Crawl, Outbound::CrawlProgress(_)) => true,
            (OperationKind::Broadcast, Outbound::BroadcastProgress(progress)) => {
                ensure!(
                    !progress.store
                        || !matches!(progress.request.outcome, RequestOutcome::Answered { .. })
                        || self.stored.contains(&progress.request.node),
                    "progress: `store` is set for stores only: {progress:?}"
                );
                true
            }
            _ => false,
        };
        ensure!(right, "progress: of another kind of operation: {event:?}");
        Ok(Vec::new())
    }

    fn check_finish(&mut self, _now: Instant, event: &Outbound<F>, _in_flight: usize) -> Checked<Counts> {
        match (self.kind, event) {
            (OperationKind::Lookup, Outbound::Finished(finish)) => {
                self.check_closest(&finish.target, &finish.closest)?;
                let ValueReport { first, valid, .. } = &finish.values;
                ensure!(
                    first.is_some() == (*valid > 0) && first.iter().all(|node| self.answered.contains(node)),
                    "values: the first with the newest value has answered: {first:?} of {valid}"
                );
                let had = finish.closest.iter().filter(|contact| contact.has_value()).count();
                ensure!(had <= *valid as usize, "values: at least as many as of the closest");
            }
            (OperationKind::Broadcast, Outbound::BroadcastFinished(finish)) => {
                self.check_closest(&finish.target, &finish.closest)?;
                self.check_stores(finish)?;
                self.continues =
                    self.strategy == StrategyKind::Optimistic && finish.outcome == Outcome::Complete;
            }
            (OperationKind::Crawl, Outbound::CrawlFinished(finish)) => {
                for crawled in &finish.nodes {
                    ensure_eq!(
                        crawled.answered > 0,
                        self.answered.contains(&crawled.node),
                        "crawl: nodes agree with the events: {crawled:?}"
                    );
                }
            }
            _ => broken!("finish: of another kind of operation: {event:?}"),
        }
        Ok(Vec::new())
    }

    fn check_not_idle(&self, _now: Instant, _busy: &[F::Key]) -> Checked {
        Ok(())
    }

    fn needs_nothing(&self) -> bool {
        self.needs_nothing
    }

    fn is_bootstrap(&self) -> bool {
        self.is_find && self.target == Some(self.local)
    }
}
