//! The rules of starts, refusals and finishes: deadline rules 1, 2, 7 and 9.

use crate::context::Context;
use crate::coordinator::events::{Inbound, Outbound};
use crate::routing::events::Bootstrapped;
use crate::testing::broken::{Checked, ensure, ensure_eq, ensure_some};
use crate::testing::checker::{CheckedCall, ContractChecker, TrackedOperation};
use crate::testing::expected_start::{ExpectedStart, expected_start, model_of};
use crate::testing::operation_model::NodeState;
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::side_effects::check_detached;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{OperationStats, Outcome, RefusalReason};
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::time::Instant;
use opentelemetry::trace::SpanContext;
use std::sync::Arc;

impl<F: Family> ContractChecker<F> {
    pub(super) fn bootstrapped(&mut self, stamped: &Stamped<Outbound<F>>, notice: &Bootstrapped) -> Checked {
        let Some(operation) = notice.operation else {
            check_detached(stamped)?;
            return self.check_maintenance_on(stamped);
        };
        let at = self.bootstraps.iter().position(|(id, outcome, stats, _)| {
            (operation, notice.outcome, notice.stats) == (*id, *outcome, *stats)
        });
        let at = ensure_some!(
            at,
            "bootstrapped: once for each bootstrap that finished, with its result: {notice:?}"
        );
        let (.., context) = self.bootstraps.remove(at);
        ensure_eq!(
            (&stamped.context, stamped.deadline),
            (&context, None),
            "context 4: `Bootstrapped` links to its operation and has no deadline"
        );
        Ok(())
    }

    pub(super) fn started(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        id: OperationId,
    ) -> Checked {
        let config = Arc::clone(&self.config);
        let start = expected_start(&call.event.event, &config);
        let start = ensure_some!(start, "deadline 7: started only after a start: {stamped:?}");
        ensure!(!call.start_answered, "deadline 7: a start is accepted or refused once: {stamped:?}");
        ensure_eq!(
            self.refusal_reason(call, &start),
            None,
            "deadline 7: a start that cannot be accepted is refused with its reason"
        );
        ensure_eq!(id.tag(), start.tag, "ids: an operation's id holds its tag");
        ensure!(
            !self.operations.contains_key(&id) && !self.ended.contains(&id),
            "ids: never used twice: {id:?}"
        );
        call.start_answered = true;
        let node = NodeState { local: self.local.clone(), table: call.table, size: call.size };
        let model = model_of(&call.event.event, &config, &node, self.checks_models);
        let model = ensure_some!(model, "deadline 7: a start that stores nothing is refused: {stamped:?}");
        let latest = call.now + start.timeout;
        let op = TrackedOperation {
            start_context: call.event.context.parent().cloned().unwrap_or(SpanContext::NONE),
            deadline: call.event.deadline.map_or(latest, |asked| asked.min(latest)),
            arrival: self.accepted_starts,
            running: false,
            has_begun: false,
            stats: OperationStats { started: call.now, ..OperationStats::default() },
            model,
            ending: false,
            unreported_timeout: None,
            superseded: Vec::new(),
        };
        self.accepted_starts += 1;
        self.operations.insert(id, op);
        self.check_stamp(call, stamped, id, None)?;
        self.count("started");
        Ok(())
    }

    /// Why a start cannot be accepted: the first reason in the order of checking.
    fn refusal_reason(&self, call: &CheckedCall<'_, F>, start: &ExpectedStart) -> Option<RefusalReason> {
        let alike = self.operations.values().filter(|op| op.model.kind() == start.kind).count();
        if self.operations.keys().any(|id| id.tag() == start.tag) {
            Some(RefusalReason::TagInUse)
        } else if self.operations.len() >= self.pool.max_running + self.pool.max_waiting
            || alike >= start.most
        {
            Some(RefusalReason::Full)
        } else if start.refusal_reason.is_some() {
            start.refusal_reason
        } else if call.event.deadline.is_some_and(|asked| asked <= call.now)
            || call.now == Instant::FAR_FUTURE
        {
            Some(RefusalReason::DeadlinePassed)
        } else {
            None
        }
    }

    pub(super) fn refused(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        tag: u64,
        reason: RefusalReason,
    ) -> Checked {
        let start = expected_start(&call.event.event, &self.config);
        let start = ensure_some!(start, "deadline 7: refused only after a start: {stamped:?}");
        ensure!(!call.start_answered, "deadline 7: a start is accepted or refused once: {stamped:?}");
        ensure_eq!(
            (tag, Some(reason)),
            (start.tag, self.refusal_reason(call, &start)),
            "deadline 7: refused with the first reason that applies"
        );
        ensure_eq!(
            (&stamped.context, stamped.deadline),
            (&call.event.context, None),
            "context 1: a refusal has the start's context and no deadline"
        );
        call.start_answered = true;
        self.count(match reason {
            RefusalReason::TagInUse => "refused: tag in use",
            RefusalReason::Full => "refused: full",
            RefusalReason::DeadlinePassed => "refused: deadline passed",
            RefusalReason::Quorum => "refused: quorum",
            RefusalReason::NumResults { .. } => "refused: number of results",
            RefusalReason::Records { .. } => "refused: records",
            RefusalReason::Nodes { .. } => "refused: nodes",
        });
        Ok(())
    }

    pub(super) fn finish(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        id: OperationId,
        outcome: Outcome,
        stats: &OperationStats,
    ) -> Checked {
        let stopped = matches!(call.event.event, Inbound::Stop(of) if of == id);
        let now = call.now;
        let of = |(_, sent): &&(RequestId, RequestInFlight<F>)| sent.initiator == Initiator::Operation(id);
        let in_flight = self.requests.iter().filter(of).count();
        let op = self.check_stamp(call, stamped, id, None)?;
        // A broadcast that is complete may leave requests to its background, and a lookup that has ended by itself those
        // that are slow, to be listened to.
        let by_itself = outcome.is_by_itself();
        ensure!(
            in_flight == 0 || by_itself,
            "deadline 5: all requests are cancelled before the finish, {in_flight} are left: {stamped:?}"
        );
        op.stats.ended = Some(now);
        ensure_eq!(*stats, op.stats, "stats: agree with the events");
        ensure_eq!(stats.in_flight() as usize, in_flight, "stats: number of requests in flight");
        ensure_eq!(
            outcome == Outcome::DeadlineExceeded,
            op.deadline <= now,
            "deadline 2: deadline exceeded exactly at or after the deadline"
        );
        ensure_eq!(
            outcome == Outcome::Stopped,
            stopped,
            "deadline 9: a stop, and only a stop, ends it with this outcome in the same call"
        );
        if outcome == Outcome::Overloaded {
            // Where the machine does not say how many run, that one has begun is a guess until it sends.
            let has_begun = call.running.is_some() && (op.running || op.has_begun);
            ensure!(!has_begun && op.stats.sent == 0, "outcome: overloaded only if it has not begun");
        } else if !op.running && !op.model.needs_nothing() && by_itself {
            call.ran_and_ended.push((op.deadline, op.arrival));
            op.begin(now)?;
        }
        let counts = op.model.check_finish(now, &stamped.event, in_flight)?;
        let bootstrap = op.model.is_bootstrap();
        self.check_continuation(call, id)?;
        if by_itself {
            self.begin_listening(now, id)?;
        }
        ensure!(
            !self.requests.iter().any(|(_, sent)| sent.initiator == Initiator::Operation(id)),
            "deadline 5: all requests are cancelled before the finish: {stamped:?}"
        );
        if bootstrap && call.table.is_some() {
            let context = Context::Link(self.context(call, id)?.clone());
            self.bootstraps.push((id, outcome, *stats, context));
        }
        self.operations.remove(&id);
        self.ended.insert(id);
        self.count_all(counts);
        self.count(match outcome {
            Outcome::Converged => "outcome: converged",
            Outcome::StoppedEarly => "outcome: stopped early",
            Outcome::Unsure => "outcome: unsure",
            Outcome::AllFound => "outcome: all found",
            Outcome::Exhausted => "outcome: exhausted",
            Outcome::Unreachable => "outcome: unreachable",
            Outcome::NodeLimit => "outcome: node limit",
            Outcome::DeadlineExceeded => "outcome: deadline exceeded",
            Outcome::Quorum => "outcome: quorum",
            Outcome::Complete => "outcome: complete",
            Outcome::Stopped => "outcome: stopped",
            Outcome::Overloaded => "outcome: overloaded",
        });
        Ok(())
    }
}
