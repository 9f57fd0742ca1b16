//! The model of a lookup: its options, quorum and outcome; its candidates are in [`CandidateModel`].

use super::RequestInFlight;
use super::candidate_model::CandidateModel;
use super::operation_model::{Counts, OperationKind, OperationModel, RequestEnd, RequestSent};
use super::test_family::Net;
use kad_proto::coordinator::Outbound;
use kad_proto::{
    Ask, Bits, CancelReason, Config, Instant, Outcome, RefusalReason, RequestId, RequestOutcome,
    RoutingTable, Start,
};

pub(crate) struct LookupModel<const N: usize> {
    local: Bits<N>,
    start: Start<Net<N>>,
    paths: usize,
    candidates: CandidateModel<N>,
    /// Answers that carried a value.
    values: usize,
    /// Requests cancelled by the end of the lookup whose nodes might still have answered.
    abandoned: u32,
}

/// Why a lookup's start is refused, if it is.
pub(crate) fn refusal_reason<const N: usize>(
    start: &Start<Net<N>>,
    config: &Config,
) -> Option<RefusalReason> {
    let most = config.query.max_candidates;
    if start.num_results.is_some_and(|wanted| !(1..=most).contains(&wanted)) {
        return Some(RefusalReason::NumResults { most });
    }
    (start.quorum == Some(0)).then_some(RefusalReason::Quorum)
}

impl<const N: usize> LookupModel<N> {
    pub(crate) fn new(
        local: Bits<N>,
        config: &Config,
        start: &Start<Net<N>>,
        table: Option<&RoutingTable<Net<N>>>,
    ) -> Self {
        let query = &config.query;
        let mut start = start.clone();
        let wanted = 2 * query.k.max(start.num_results.unwrap_or(0));
        let nearest = table.into_iter().flat_map(|table| table.closest(start.target).take(wanted));
        let nearest: Vec<_> = nearest.map(|record| *record.node()).collect();
        start.seeds.extend(nearest);
        let candidates = CandidateModel::new(local, start.target, config, &start, &start.seeds);
        Self { local, start, paths: query.paths, candidates, values: 0, abandoned: 0 }
    }
}

impl<const N: usize> OperationModel<N> for LookupModel<N> {
    fn kind(&self) -> OperationKind {
        OperationKind::Lookup
    }

    fn time_passes(&mut self, now: Instant) {
        self.candidates.time_passes(now);
    }

    fn request_sent(&mut self, sent_event: &RequestSent<'_, N>) -> (bool, Counts) {
        let RequestSent { now, request, soft, nothing_queued } = *sent_event;
        assert_eq!(request.ask, self.start.ask, "request: asks what the start asks");
        let first = self.candidates.request_sent(now, request, soft, nothing_queued);
        let mut counts = vec![if request.ask == Ask::FindCloser { "request" } else { "request: message" }];
        counts.extend((!first).then_some("request: again"));
        counts.extend((request.target != self.start.target).then_some("request: edge probe"));
        (first, counts)
    }

    fn request_answered(&mut self, request_end: &RequestEnd<'_, N>) -> Vec<RequestId> {
        let RequestOutcome::Answered { closer } = request_end.outcome else {
            panic!("not an answer: {:?}", request_end.outcome)
        };
        let value = request_end.extra.is_some_and(|extra| extra.value);
        self.values += usize::from(value);
        let RequestInFlight { node, hop, .. } = *request_end.sent;
        self.candidates.request_answered(request_end.id, node, request_end.elapsed, hop, closer, value)
    }

    fn request_failed(&mut self, request_end: &RequestEnd<'_, N>) -> bool {
        let node = request_end.sent.node;
        self.candidates.request_failed(
            request_end.id,
            node,
            matches!(request_end.outcome, RequestOutcome::TimedOut),
        );
        self.candidates.has_no_pending(&node)
    }

    fn request_cancelled(
        &mut self,
        _now: Instant,
        _id: RequestId,
        sent: &RequestInFlight<N>,
        reason: CancelReason,
    ) {
        assert_eq!(reason, CancelReason::OperationEnded, "lookup: cancels nothing before its end");
        self.abandoned += u32::from(!self.candidates.has_failed(&sent.node));
    }

    fn check_progress(&mut self, _now: Instant, event: &Outbound<Net<N>>) -> Counts {
        assert!(matches!(event, Outbound::Progress(_)), "progress: of another kind of operation: {event:?}");
        Vec::new()
    }

    fn check_finish(&mut self, _now: Instant, event: &Outbound<Net<N>>, _in_flight: usize) -> Counts {
        let Outbound::Finished(finish) = event else {
            panic!("finish: of another kind of operation: {event:?}")
        };
        assert_eq!(finish.target, self.start.target);
        assert_ne!(finish.outcome, Outcome::Complete, "outcome: complete is not of a lookup");
        assert_eq!(
            finish.outcome == Outcome::Quorum,
            self.start.quorum.is_some_and(|quorum| self.values >= quorum),
            "quorum: the outcome exactly if enough answers carried a value"
        );
        self.candidates.assert_finish(finish.outcome, &finish.closest);
        // At the node limit, a path that has converged does not wait for its requests in flight.
        let waits =
            finish.outcome == Outcome::Exhausted || finish.outcome == Outcome::NodeLimit && self.paths == 1;
        assert!(
            !waits || self.abandoned == 0,
            "outcome: {:?} only when no node may still answer",
            finish.outcome
        );
        let exact = self.candidates.is_exact() && finish.closest.len() > 2;
        exact.then_some("finish: exact model of several results").into_iter().collect()
    }

    fn assert_not_idle(&self, now: Instant, busy: &[Bits<N>]) {
        self.candidates.assert_not_idle(now, busy);
    }

    fn is_bootstrap(&self) -> bool {
        self.start.target == self.local && self.start.ask == Ask::FindCloser
    }
}
