//! The model of a lookup: its options, quorum and outcome; its candidates are in [`CandidateModel`].

use crate::coordinator::config::Config;
use crate::coordinator::events::Outbound;
use crate::network_size::estimator::NotEnoughData;
use crate::testing::broken::{Checked, broken, ensure, ensure_eq};
use crate::testing::candidate_model::{CandidateModel, LookupTerms};
use crate::testing::operation_model::{
    Counts, NodeState, OperationKind, OperationModel, RequestEnd, RequestSent,
};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::target::key_of;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::{Outcome, RefusalReason, Start};
use crate::vocabulary::request_events::{Ask, CancelReason, RequestOutcome};
use crate::vocabulary::time::Instant;

#[derive(Clone)]
pub(super) struct LookupModel<F: Family> {
    local: F::Key,
    /// The key of its target.
    target: F::Key,
    start: Start<F>,
    paths: usize,
    candidates: CandidateModel<F>,
    /// Requests cancelled by the end of the lookup whose nodes might still have answered.
    abandoned: u32,
}

/// Why a lookup's start is refused, if it is.
pub(super) fn refusal_reason<F: Family>(start: &Start<F>, config: &Config) -> Option<RefusalReason> {
    let most = config.query.max_candidates;
    if start.num_results.is_some_and(|wanted| !(1..=most).contains(&wanted)) {
        return Some(RefusalReason::NumResults { most });
    }
    (start.quorum == Some(0)).then_some(RefusalReason::Quorum)
}

/// Whether what the caller holds meets the quorum.
pub(super) fn needs_nothing<F: Family>(start: &Start<F>) -> bool {
    start.held.is_some() && start.quorum == Some(1)
}

impl<F: Family> LookupModel<F> {
    pub(super) fn new(
        local: LocalNode<F>,
        config: &Config,
        start: &Start<F>,
        node: &NodeState<'_, F>,
    ) -> Self {
        let (query, table) = (&config.query, node.table);
        let target = key_of::<F>(&start.target);
        let mut start = start.clone();
        let wanted = 2 * query.k.max(start.num_results.unwrap_or(0));
        let nearest = table.into_iter().flat_map(|table| table.closest(target).take(wanted));
        let nearest: Vec<_> = nearest.map(|entry| entry.node().clone()).collect();
        start.seeds.extend(nearest);
        let is_find = start.ask == Ask::FindCloser;
        let own = *local.key();
        // Until the size of the network is known, no lookup is cut that shows it.
        let beta = query.beta.filter(|_| !matches!(node.size, Err(few) if few != NotEnoughData::NONE));
        let in_region = query.regions && !is_find && (beta.is_none() || start.quorum.is_some());
        let region = node.region(query).filter(|_| in_region);
        let terms = LookupTerms { beta: beta.filter(|_| region.is_none()), region, held: start.held };
        let candidates =
            CandidateModel::new(local, target, config, is_find, start.num_results, &start.seeds, terms);
        Self { local: own, target, start, paths: query.paths, candidates, abandoned: 0 }
    }
}

impl<F: Family> OperationModel<F> for LookupModel<F> {
    fn boxed(&self) -> Box<dyn OperationModel<F>> {
        Box::new(self.clone())
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Lookup
    }

    fn time_passes(&mut self, now: Instant) {
        self.candidates.time_passes(now);
    }

    fn waiting_failed(&mut self, node: &F::Node) {
        self.candidates.waiting_failed(node);
    }

    fn answered_in_part(&mut self, now: Instant, id: RequestId, node: &F::Node) {
        self.candidates.answered_in_part(now, id, node);
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<(bool, Counts)> {
        let RequestSent { now, request, soft, nothing_queued, was_in_table } = *sent_event;
        let is_edge_probe = key_of::<F>(&request.target) != self.target;
        let is_same = request.ask == self.start.ask;
        let may_find = is_edge_probe && request.ask == Ask::FindCloser;
        ensure!(
            is_same || may_find,
            "request: asks what the start asks, about another key for closer nodes only"
        );
        if was_in_table && request.hop == 1 {
            self.candidates.begins_with(&request.node);
        }
        let first = self.candidates.request_sent(now, request, soft, nothing_queued)?;
        let mut counts = vec![if request.ask == Ask::FindCloser { "request" } else { "request: message" }];
        counts.extend((!first).then_some("request: again"));
        counts.extend(is_edge_probe.then_some("request: edge probe"));
        Ok((first, counts))
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<Vec<RequestId>> {
        let RequestOutcome::Answered { closer } = request_end.outcome else {
            broken!("progress: not an answer: {:?}", request_end.outcome)
        };
        let value = request_end.extra.map(|extra| extra.value);
        self.candidates.request_answered(request_end, closer, value)
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<bool> {
        let node = &request_end.sent.node;
        let timed_out = matches!(request_end.outcome, RequestOutcome::TimedOut);
        self.candidates.request_failed(request_end.id, node, timed_out)?;
        Ok(self.candidates.has_no_pending(node))
    }

    fn request_cancelled(
        &mut self,
        _now: Instant,
        _id: RequestId,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        ensure_eq!(reason, CancelReason::OperationEnded, "lookup: cancels nothing before its end");
        self.abandoned += u32::from(!self.candidates.has_failed(&sent.node));
        Ok(())
    }

    fn check_progress(&mut self, _now: Instant, event: &Outbound<F>) -> Checked<Counts> {
        ensure!(matches!(event, Outbound::Progress(_)), "progress: of another kind of operation: {event:?}");
        Ok(Vec::new())
    }

    fn check_finish(&mut self, _now: Instant, event: &Outbound<F>, _in_flight: usize) -> Checked<Counts> {
        let Outbound::Finished(finish) = event else {
            broken!("finish: of another kind of operation: {event:?}")
        };
        ensure_eq!(key_of::<F>(&finish.target), self.target, "closest: those of the start's target");
        ensure!(finish.outcome != Outcome::Complete, "outcome: complete is not of a lookup");
        ensure_eq!(
            finish.outcome == Outcome::Quorum,
            self.start.quorum.is_some_and(|quorum| self.candidates.values().holders() >= quorum),
            "quorum: the outcome exactly if enough have the newest valid value"
        );
        self.candidates.check_finish(finish.outcome, &finish.closest)?;
        // At the node limit, a path that has converged does not wait for its requests in flight.
        let waits = match finish.outcome {
            Outcome::Exhausted | Outcome::AllFound | Outcome::Unreachable => true,
            Outcome::NodeLimit => self.paths == 1,
            _ => false,
        };
        ensure!(
            !waits || self.abandoned == 0 && !self.candidates.is_awaited(),
            "outcome: {:?} only when no node may still answer",
            finish.outcome
        );
        let mut counts = self.candidates.values().check_finish(finish)?;
        counts.extend(self.candidates.region_situations());
        let exact = self.candidates.is_exact() && finish.closest.len() > 2;
        counts.extend(exact.then_some("finish: exact model of several results"));
        Ok(counts)
    }

    fn check_not_idle(&self, now: Instant, busy: &[F::Key]) -> Checked {
        self.candidates.check_not_idle(now, busy)
    }

    fn needs_nothing(&self) -> bool {
        needs_nothing(&self.start)
    }

    fn is_bootstrap(&self) -> bool {
        self.target == self.local && self.start.ask == Ask::FindCloser
    }
}
