//! What an optimistic broadcast still does after its finish: its requests are side effects that link to it,
//! bounded in number and time.

use crate::context::Context;
use crate::coordinator::events::{Inbound, Outbound};
use crate::testing::broken::{Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::checker::{CheckedCall, ContractChecker, TrackedOperation};
use crate::testing::common_parts::outcome_of;
use crate::testing::operation_model::{RequestEnd, RequestSent};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::side_effects::check_detached;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::{CancelReason, Initiator, Request, RequestOutcome, Response};
use crate::vocabulary::time::Instant;
use opentelemetry::trace::SpanContext;
use std::sync::Arc;

impl<F: Family> ContractChecker<F> {
    fn link(&self, call: &CheckedCall<'_, F>, id: OperationId) -> Checked<Context> {
        Ok(Context::Link(self.context(call, id)?.clone()))
    }

    /// The requests in flight of a background operation.
    fn requests_of(&self, id: OperationId) -> impl Iterator<Item = &(RequestId, RequestInFlight<F>)> {
        self.requests.iter().filter(move |(_, sent)| sent.background_of == Some(id))
    }

    /// Whether a background operation has requests in flight, or may have: of some it is not known whose they are.
    fn may_have_requests(&self, id: OperationId) -> bool {
        self.requests.iter().any(|(_, sent)| sent.background_of == Some(id) || sent.one_of.contains(&id))
    }

    /// An operation has finished; if it has work left, it goes on in the background.
    pub(super) fn check_continuation(&mut self, call: &CheckedCall<'_, F>, id: OperationId) -> Checked {
        let config = Arc::clone(&self.config);
        let until = call.now + config.broadcast.background_timeout;
        let Some(op) = self.operations.get_mut(&id) else { return Ok(()) };
        let Some((continues, rest)) = op.model.continue_in_background(call.now, until)? else {
            return Ok(());
        };
        let most = config.broadcast.max_background;
        // No other background operation occupies a place.
        let alone = !self.background.keys().any(|background_of| self.may_have_requests(*background_of));
        if alone && call.nothing_queued {
            ensure_eq!(
                continues,
                rest <= most,
                "background: {rest} stores continue exactly if at most {most} may"
            );
        }
        ensure!(!continues || rest <= most, "background: {rest} stores continue where at most {most} may");
        if !continues {
            return Ok(());
        }
        if let Some(mut op) = self.operations.remove(&id) {
            op.deadline = until;
            self.background.insert(id, op);
        }
        for (_, sent) in &mut self.requests {
            if sent.initiator == Initiator::Operation(id) {
                (sent.initiator, sent.background_of) = (Initiator::Background, Some(id));
            }
        }
        Ok(())
    }

    /// Checks a background request. Returns its soft limit and until when its answer is of use, as far as these are known, and the
    /// operation that it belongs to: one of several where that is not known.
    pub(super) fn check_background_request(
        &mut self,
        call: &CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        request: &Request<F>,
        deadline: Instant,
    ) -> Checked<(Option<Instant>, Instant, Vec<OperationId>)> {
        let config = Arc::clone(&self.config);
        let network = &config.network;
        let own = call.now + network.request_timeout;
        let fixed = network.is_fixed();
        let link =
            |id: &OperationId| call.cause_ambiguous || self.link(call, *id).as_ref() == Ok(&stamped.context);
        let may = |(id, op): &(&OperationId, &TrackedOperation<F>)| op.model.may_send(request) && link(id);
        let mut mine: Vec<_> = self.background.iter().filter(may).map(|(id, _)| *id).collect();
        ensure!(
            matches!(stamped.context, Context::Link(_)),
            "context 4: a side effect carries a link, no parent: {stamped:?}"
        );
        ensure!(
            !mine.is_empty(),
            "deadline 7: after the finish only remaining background requests, linked to the operation: {stamped:?} after {:?}",
            call.event
        );
        mine.retain(|id| self.background.get(id).is_some_and(|op| op.deadline > call.now));
        ensure!(!mine.is_empty(), "background: ends by its time-out");
        let [id] = mine[..] else {
            for id in &mine {
                if let Some(op) = self.background.get_mut(id) {
                    op.model.lose_track();
                }
            }
            self.count("background: operation not known");
            return Ok((None, own, mine));
        };
        let last_in_table = self.last_in_table(call.now, &request.node);
        let op = ensure_some!(self.background.get_mut(&id), "background: of an operation that goes on");
        let was_in_table = last_in_table.is_some_and(|at| at >= op.stats.started);
        let until = op.model.answer_deadline(request).map_or(op.deadline, |until| until.min(op.deadline));
        let latest = until.min(own);
        ensure!(
            deadline <= latest,
            "deadline 3: at most the earlier of the background's deadline and now + the request time-out"
        );
        let soft = Some(call.now + network.soft_timeout);
        let soft = soft.filter(|soft| fixed && *soft < deadline && !op.model.has_no_soft_limit(request));
        let nothing_queued = call.nothing_queued;
        let sent_event = RequestSent { now: call.now, request, soft, nothing_queued, was_in_table };
        let (first, counts) = op.model.request_sent(&sent_event)?;
        ensure!(
            !fixed || !first || deadline == latest,
            "deadline 3: exactly the earlier of the two where time-outs are fixed: {stamped:?} {latest:?} at {}",
            call.now
        );
        self.count_all(counts);
        Ok((soft, until, vec![id]))
    }

    /// A lookup has ended by itself: its requests that are past their soft limit may go on as side effects.
    pub(super) fn begin_listening(&mut self, now: Instant, id: OperationId) -> Checked {
        let Some(context) = self.operations.get(&id).map(|op| op.start_context.clone()) else {
            return Ok(());
        };
        let mut left = 0;
        for (_, sent) in &mut self.requests {
            if sent.initiator != Initiator::Operation(id) {
                continue;
            }
            ensure!(
                sent.soft.is_none_or(|soft| soft <= now),
                "deadline 4: only requests past their soft limit go on after the finish: {sent:?}"
            );
            sent.initiator = Initiator::Background;
            sent.listening = Some(context.clone());
            left += 1;
        }
        if left > 0 {
            self.count("listening: begins");
        }
        Ok(())
    }

    /// A request that was listened to after the end of its lookup was cancelled.
    pub(super) fn check_end_of_listening(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        check_detached(stamped)?;
        let Some(own) = &sent.listening else { return Ok(()) };
        let link = Context::Link(own.clone());
        ensure_eq!(stamped.context, link, "context 4: a cancel after the finish links to the operation");
        match reason {
            CancelReason::TimedOut => {
                ensure!(
                    sent.deadline < sent.useful_until,
                    "deadline 6: a request with all of its operation's time is not timed out: {sent:?}"
                );
                self.node_dead(call, &sent.node, &link);
                self.count("listening: timed out");
            }
            CancelReason::Incomplete => {
                let outcome = RequestOutcome::Answered { closer: sent.all_named(&[]) };
                self.judge_node(call, &outcome, sent, &link);
                self.count("listening: incomplete");
            }
            CancelReason::OperationEnded => {
                ensure!(
                    sent.deadline >= sent.useful_until && sent.deadline <= call.now,
                    "deadline 6: a request that has time of its own is listened to until its time-out: {sent:?}"
                );
                self.count("listening: no time left");
            }
            _ => broken!("listening: no request is cancelled for this reason: {reason}"),
        }
        Ok(())
    }

    /// Applies the response to a request that is listened to after the end of its lookup.
    fn check_response_after_end(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        own: &SpanContext,
        sent: &RequestInFlight<F>,
        outcome: &RequestOutcome<F>,
    ) {
        let link = Context::Link(call.event.context.parent().unwrap_or(own).clone());
        self.judge_node(call, outcome, sent, &link);
        self.count("listening: response");
    }

    /// Applies the response to a background request.
    pub(super) fn check_background_response(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        id: RequestId,
        sent: &RequestInFlight<F>,
    ) -> Checked {
        let (event, now) = (call.event, call.now);
        let Some(outcome) = outcome_of(&event.event, sent) else { return Ok(()) };
        if let Some(own) = &sent.listening {
            self.check_response_after_end(call, own, sent, &outcome);
            return Ok(());
        }
        let elapsed = call.elapsed(sent);
        call.cause = sent.background_of;
        call.cause_ambiguous |= sent.background_of.is_none();
        let extra = match &event.event {
            Inbound::Response(Response { result: Ok(answer), .. }) => Some(&answer.extra),
            _ => None,
        };
        let request_end = RequestEnd { now, id, sent, elapsed, outcome: &outcome, extra };
        if let Some(op) = sent.background_of.and_then(|background_of| self.background.get_mut(&background_of))
        {
            if matches!(outcome, RequestOutcome::Answered { .. }) {
                op.superseded = op.model.request_answered(&request_end)?;
            } else {
                op.model.request_failed(&request_end)?;
            }
        }
        if matches!(outcome, RequestOutcome::Answered { .. }) {
            self.answered_untracked(call, id, sent);
        }
        let link = match sent.background_of {
            Some(background_of) => self.link(call, background_of)?,
            None => Context::NONE,
        };
        match outcome {
            RequestOutcome::TimedOut => self.node_dead(call, &sent.node, &link),
            outcome => self.judge_node(call, &outcome, sent, &link),
        }
        self.count("background: response");
        Ok(())
    }

    pub(super) fn check_background_cancel(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        id: RequestId,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        let now = call.now;
        let link = sent.background_of.map(|background_of| self.link(call, background_of)).transpose()?;
        ensure!(
            matches!(stamped.context, Context::Link(_)),
            "context 4: a side effect carries a link, no parent: {stamped:?}"
        );
        ensure!(
            call.cause_ambiguous || link.as_ref().is_none_or(|link| *link == stamped.context),
            "context 4: a background cancel links to its operation, or to the answer: {stamped:?}"
        );
        ensure_eq!(stamped.deadline, None, "context 4: the cancel of a side effect has no deadline");
        let Some(background_of) = sent.background_of else {
            return self.check_cancel_of_one_of(call, stamped, sent, reason);
        };
        let Some(op) = self.background.get_mut(&background_of) else {
            broken!("background: cancels only requests of an operation that goes on: {sent:?}")
        };
        let store = op.model.is_store(id);
        let what = match reason {
            CancelReason::TimedOut => {
                ensure!(
                    sent.deadline < sent.useful_until,
                    "deadline 6: a request that had all the remaining time is not timed out: {sent:?}"
                );
                let (outcome, elapsed) = (RequestOutcome::TimedOut, sent.elapsed(now));
                let request_end = RequestEnd { now, id, sent, elapsed, outcome: &outcome, extra: None };
                let (silent, is_known) =
                    (op.model.request_failed(&request_end)?, store || op.model.is_tracked());
                let link = link.unwrap_or(Context::NONE);
                if !is_known {
                    self.node_may_be_dead(call, sent, &[background_of], &link);
                } else if silent {
                    self.node_dead(call, &sent.node, &link);
                }
                if store { "background: store timed out" } else { "background: lookup timed out" }
            }
            CancelReason::Incomplete => {
                let (outcome, elapsed) =
                    (RequestOutcome::Answered { closer: sent.all_named(&[]) }, sent.elapsed(now));
                let request_end = RequestEnd { now, id, sent, elapsed, outcome: &outcome, extra: None };
                op.superseded = op.model.request_answered(&request_end)?;
                self.answered_untracked(call, id, sent);
                let link = link.unwrap_or(Context::NONE);
                self.judge_node(call, &outcome, sent, &link);
                "background: incomplete"
            }
            CancelReason::Superseded => {
                // By an answer of which it is not known to which operation it was given.
                let is_given = |(node, one_of): &(F::Node, Vec<OperationId>)| {
                    *node == sent.node && one_of.len() > 1 && one_of.contains(&background_of)
                };
                let may_be = op.model.may_be_superseded(sent)
                    || !store && call.answered_in_background.iter().any(is_given);
                ensure!(
                    op.superseded.contains(&id) || may_be,
                    "deadline 5: superseded only by another answer of its node"
                );
                op.superseded.retain(|superseded| *superseded != id);
                "background: superseded"
            }
            CancelReason::OperationEnded | CancelReason::LookupEnded => {
                ensure!(
                    reason == CancelReason::LookupEnded
                        || op.deadline > now
                        || sent.deadline >= sent.useful_until.min(op.deadline),
                    "deadline 6: a request that ran into its own time-out is reported as timed out"
                );
                op.model.request_cancelled(now, id, sent, reason)?;
                if store { "background: store cancelled" } else { "background: lookup cancelled" }
            }
            CancelReason::Unneeded => {
                broken!("background: no request is cancelled for this reason: {reason}")
            }
        };
        self.count(what);
        Ok(())
    }

    /// A background request was cancelled that one of several operations has sent.
    fn check_cancel_of_one_of(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked {
        let is_of = |id: &&OperationId| {
            let is_linked = || self.link(call, **id).as_ref() == Ok(&stamped.context);
            self.background.contains_key(id) && (call.cause_ambiguous || is_linked())
        };
        let owners: Vec<_> = sent.one_of.iter().filter(is_of).copied().collect();
        ensure!(
            !owners.is_empty(),
            "background: cancels only requests of operations that go on, linked to one: {stamped:?} of {sent:?}"
        );
        match reason {
            CancelReason::TimedOut => self.node_may_be_dead(call, sent, &owners, &stamped.context),
            CancelReason::Incomplete => {
                let outcome = RequestOutcome::Answered { closer: sent.all_named(&[]) };
                call.answered_in_background.push((sent.node.clone(), owners));
                self.judge_node(call, &outcome, sent, &stamped.context);
            }
            CancelReason::Superseded => {
                let is_given = |(node, one_of): &(F::Node, Vec<OperationId>)| {
                    *node == sent.node && owners.iter().any(|id| one_of.contains(id))
                };
                ensure!(
                    call.answered_in_background.iter().any(is_given),
                    "deadline 5: superseded only by another answer of its node: {sent:?}"
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// A background request was answered. If the model of its operation has lost track, all other requests of the lookup to that
    /// node are superseded that are known to be the operation's.
    fn answered_untracked(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        id: RequestId,
        sent: &RequestInFlight<F>,
    ) {
        let Some(background_of) = sent.background_of else {
            call.answered_in_background.push((sent.node.clone(), sent.one_of.clone()));
            return;
        };
        call.answered_in_background.push((sent.node.clone(), vec![background_of]));
        let Some(op) = self.background.get_mut(&background_of) else { return };
        if !op.model.is_tracked() && !op.model.is_store(id) {
            let is_other = |(other, it): &&(RequestId, RequestInFlight<F>)| {
                *other != id
                    && it.background_of == Some(background_of)
                    && it.node == sent.node
                    && !op.model.is_store(*other)
            };
            op.superseded = self.requests.iter().filter(is_other).map(|(other, _)| *other).collect();
        }
    }

    /// A request of one of these operations has timed out, and their models do not know whether it was the only one to its node:
    /// only then the node counts as silent.
    fn node_may_be_dead(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        sent: &RequestInFlight<F>,
        owners: &[OperationId],
        link: &Context,
    ) {
        let is_store =
            |id: &OperationId, request| self.background.get(id).is_some_and(|op| op.model.is_store(request));
        let is_other = |(request, other): &&(RequestId, RequestInFlight<F>)| {
            let is_known =
                other.background_of.is_some_and(|id| owners.contains(&id) && !is_store(&id, *request));
            other.node == sent.node && (is_known || other.one_of.iter().any(|id| owners.contains(id)))
        };
        let mut others = self.requests.iter().filter(is_other);
        match (others.next(), owners.len()) {
            (None, _) => self.node_dead(call, &sent.node, link),
            (Some((_, other)), 1) if other.background_of.is_some() => {}
            // Whether it counts, is not known.
            _ => self.predicts_table &= self.table.get(&sent.node).is_none(),
        }
    }

    /// Forgets the background operations that have ended, after checking that they leave nothing; checks the
    /// limits of the others.
    pub(super) fn check_background(&mut self, queued: u64, busy: &[F::Key]) -> Checked {
        let network = &self.config.network;
        let open = queued == 0 && self.requests.len() < network.max_in_flight;
        let of = |id: &OperationId| self.requests_of(*id).map(|(id, _)| *id).collect::<Vec<_>>();
        let stores = |(id, op): (&OperationId, &TrackedOperation<F>)| {
            of(id).into_iter().filter(|request| op.model.is_store(*request)).count()
        };
        let all: usize = self.background.iter().map(stores).sum();
        ensure!(
            all <= self.config.broadcast.max_background,
            "background: at most max_background stores in flight, not {all}"
        );
        let mut over = Vec::new();
        for (id, op) in &self.background {
            ensure!(
                op.superseded.is_empty(),
                "deadline 5: superseded requests are cancelled in the same call"
            );
            let in_flight = !of(id).is_empty();
            if op.deadline <= self.now {
                ensure!(!in_flight, "background: ends by its time-out");
                over.push(*id);
            } else if in_flight && open {
                op.model.check_not_idle(self.now, busy)?;
            } else if !self.may_have_requests(*id) && open && self.busy_nodes().is_empty() {
                ensure_eq!(
                    op.model.stores_left(),
                    0,
                    "background: does not end while a store is left to send"
                );
                over.push(*id);
            }
        }
        self.background.retain(|id, _| !over.contains(id));
        Ok(())
    }
}
