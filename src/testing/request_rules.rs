//! The rules of requests, from the request to its one ending: deadline rules 3 to 6, and progress.

use crate::context::Context;
use crate::coordinator::events::{Inbound, Outbound};
use crate::testing::broken::{Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::checker::{CheckedCall, ContractChecker};
use crate::testing::operation_model::{RequestEnd, RequestSent};
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::side_effects::{check_detached, check_link};
use crate::testing::target::key_of;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Progress;
use crate::vocabulary::request_events::{
    AnswerExtra, Cancel, CancelReason, Failure, Initiator, Request, RequestOutcome, Response,
};
use crate::vocabulary::time::Instant;
use std::sync::Arc;

impl<F: Family> ContractChecker<F> {
    pub(super) fn request(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        request: &Request<F>,
    ) -> Checked {
        let config = Arc::clone(&self.config);
        let network = &config.network;
        let deadline =
            ensure_some!(stamped.deadline, "deadline 3: every request has a deadline: {request:?}");
        ensure!(
            deadline > call.now,
            "deadline 3: no request is sent at or after its deadline: {deadline}, now {}: {request:?}",
            call.now
        );
        let to = F::key(&request.node);
        ensure!(to != *self.local.key(), "not self: no request to the node itself: {request:?}");
        let own = call.now + network.request_timeout;
        let (mut soft, mut until, mut background_of, mut one_of) = (None, own, None, Vec::new());
        if let Some(id) = request.initiator.operation() {
            let last_in_table = self.last_in_table(call.now, &request.node);
            let op = self.check_stamp(call, stamped, id, Some(deadline))?;
            op.begin(call.now)?;
            let was_in_table = last_in_table.is_some_and(|at| at >= op.stats.started);
            until = op.model.answer_deadline(request).map_or(op.deadline, |until| until.min(op.deadline));
            let latest = until.min(own);
            ensure!(
                deadline <= latest,
                "deadline 3: at most the earlier of its operation's deadline and now + the request time-out: \
                 {deadline}, not {latest}: {request:?}"
            );
            // Adapted time-outs are not modelled; a repeated request to a node has only the time that the first
            // one left.
            let fixed = network.is_fixed();
            soft = Some(call.now + network.soft_timeout);
            soft = soft.filter(|soft| fixed && *soft < deadline && !op.model.has_no_soft_limit(request));
            let nothing_queued = call.nothing_queued;
            let sent_event = RequestSent { now: call.now, request, soft, nothing_queued, was_in_table };
            let (first, counts) = op.model.request_sent(&sent_event)?;
            ensure!(
                !fixed || !first || deadline == latest,
                "deadline 3: exactly the earlier of the two where time-outs are fixed: {stamped:?} {latest:?} \
                 at {}",
                call.now
            );
            op.stats.sent += 1;
            self.count_all(counts);
        } else if request.initiator == Initiator::Background {
            ensure!(
                deadline <= own,
                "deadline 3: at most the earlier of the background's deadline and now + the request time-out: \
                 {stamped:?}"
            );
            (soft, until, one_of) = self.check_background_request(call, stamped, request, deadline)?;
            if let [id] = one_of[..] {
                (background_of, one_of) = (Some(id), Vec::new());
            }
        } else {
            self.check_maintenance_on(stamped)?;
            check_link(stamped)?;
            ensure!(
                deadline <= own,
                "deadline 3: that of a side effect is at most now + the request time-out: {stamped:?}"
            );
            let fixed = network.is_fixed();
            let at_once = network.max_queued == 0 || call.nothing_queued;
            let routing = &config.routing;
            let timeout = match request.initiator {
                Initiator::Include => routing.include.as_ref().map(|include| include.timeout),
                Initiator::Probe => routing.probe.as_ref().map(|probe| probe.timeout),
                _ => None,
            };
            ensure!(
                !fixed || !at_once || timeout.is_none_or(|timeout| deadline == own.min(call.now + timeout)),
                "deadline 3: that of a check is exactly now + its time-out, where time-outs are fixed: {stamped:?}"
            );
            self.count("side effect: request");
        }
        let in_flight_twice = self.requests.iter().any(|(id, _)| *id == request.id);
        ensure!(!in_flight_twice, "deadline 5: a request is in flight once: {request:?}");
        if self.checks_models {
            ensure!(self.issued.insert(request.id), "ids: never used twice: {request:?}");
        }
        let sent = RequestInFlight {
            initiator: request.initiator,
            node: request.node.clone(),
            target: key_of::<F>(&request.target),
            hop: request.hop,
            at: call.now,
            soft,
            deadline,
            useful_until: until,
            background_of,
            one_of,
            listening: None,
            parts: None,
        };
        self.requests.push((request.id, sent));
        self.request_stats.sent += 1;
        self.request_stats.in_flight += 1;
        self.check_in_flight(call.now, request)
    }

    /// The limits of requests in flight, to the node of this one and in total.
    fn check_in_flight(&self, now: Instant, request: &Request<F>) -> Checked {
        let (to, network) = (F::key(&request.node), &self.config.network);
        // Where patience is adapted, those that are listened to are known only to the machine: the others are waited for at least so
        // long. Where it is not, a repeated request has the rest of it. The end of a lookup of the maintenance is not seen from
        // here: what is past its soft limit may be listened to since. So may checks of candidates.
        let (fixed, adapts) = (network.is_fixed(), network.min_timeout < network.request_timeout);
        let least = match network.max_patience {
            Some(most) if !adapts => most.saturating_sub(network.soft_timeout),
            Some(most) => most.min(network.min_timeout),
            None => network.min_timeout,
        };
        let is_awaited = |sent: &RequestInFlight<F>| {
            let ends_seen =
                matches!(sent.initiator, Initiator::Operation(_) | Initiator::Background | Initiator::Probe);
            let is_waited_for = if ends_seen {
                fixed || now < sent.at + least
            } else {
                fixed && now < sent.at + network.soft_timeout
            };
            sent.listening.is_none() && is_waited_for
        };
        let (mut awaited, mut to_node, mut awaited_of_node) = (0, 0, 0);
        for (_, sent) in &self.requests {
            let (is_awaited, is_there) = (is_awaited(sent), F::key(&sent.node) == to);
            awaited += usize::from(is_awaited);
            to_node += usize::from(is_there);
            awaited_of_node += usize::from(is_awaited && is_there);
        }
        ensure!(
            to_node <= network.max_per_node.saturating_mul(8),
            "network: at most eight times max_per_node requests to one node, not {to_node}: {request:?}"
        );
        ensure!(
            awaited_of_node <= network.max_per_node,
            "network: at most max_per_node requests to one node that are waited for, not {awaited_of_node}: {request:?}"
        );
        ensure!(awaited <= network.max_in_flight, "network: at most max_in_flight requests, not {awaited}");
        Ok(())
    }

    /// Side effects of the maintenance come only if there is some.
    pub(super) fn check_maintenance_on(&self, stamped: &Stamped<Outbound<F>>) -> Checked {
        ensure!(!self.maintenance_off, "side effect: none without routing maintenance: {stamped:?}");
        Ok(())
    }

    pub(super) fn close_request(&mut self, id: RequestId) -> Checked<RequestInFlight<F>> {
        let place = self.requests.iter().position(|(open, _)| *open == id);
        let place = ensure_some!(place, "deadline 5: each request ends once: {id:?} is not in flight");
        if self.checks_models {
            self.closed.push(id);
        }
        self.request_stats.in_flight = self.request_stats.in_flight.saturating_sub(1);
        Ok(self.requests.remove(place).1)
    }

    pub(super) fn cancel(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        cancel: &Cancel<F>,
    ) -> Checked {
        let (id, now) = (cancel.id, call.now);
        let sent = self.close_request(id)?;
        ensure_eq!(
            (sent.initiator, &sent.node),
            (cancel.initiator, &cancel.node),
            "deadline 5: a cancel has the initiator and the node of its request"
        );
        let timed_out = cancel.reason == CancelReason::TimedOut;
        ensure!(
            !timed_out || sent.deadline <= now,
            "deadline 3: times out only at its deadline: {sent:?}, now {now}"
        );
        let incomplete = cancel.reason == CancelReason::Incomplete;
        ensure!(
            sent.parts.is_some() == incomplete || !(timed_out || incomplete),
            "deadline 6: a request of which a part was answered is incomplete at its deadline, and no other: {sent:?}"
        );
        ensure!(
            !incomplete || self.adapts() || sent.deadline <= now,
            "deadline 3: incomplete only at its deadline: {sent:?}, now {now}"
        );
        *(match cancel.reason {
            CancelReason::TimedOut => &mut self.request_stats.timed_out,
            CancelReason::Incomplete => &mut self.request_stats.answered,
            _ => &mut self.request_stats.cancelled,
        }) += 1;
        if sent.listening.is_some() {
            return self.check_end_of_listening(call, stamped, &sent, cancel.reason);
        }
        if cancel.initiator == Initiator::Background {
            return self.check_background_cancel(call, stamped, id, &sent, cancel.reason);
        }
        let Some(operation) = cancel.initiator.operation() else {
            self.check_maintenance_on(stamped)?;
            check_detached(stamped)?;
            self.count(match cancel.reason {
                CancelReason::TimedOut => "side effect: timed out",
                CancelReason::Incomplete => "side effect: incomplete",
                _ => "side effect: no longer needed",
            });
            return Ok(());
        };
        let progress = self.pool.progress;
        let op = self.check_stamp(call, stamped, operation, None)?;
        let what = match cancel.reason {
            CancelReason::TimedOut => {
                ensure!(
                    sent.deadline < sent.useful_until,
                    "deadline 6: a request with all of its operation's time is not timed out: {sent:?}"
                );
                if progress {
                    op.stats.timed_out += 1;
                    op.unreported_timeout = Some((id, sent));
                } else {
                    self.silent_timeout(call, operation, (id, &sent))?;
                }
                "cancel: timed out"
            }
            CancelReason::Incomplete => {
                if progress {
                    op.unreported_timeout = Some((id, sent));
                } else {
                    let outcome = RequestOutcome::Incomplete { closer: sent.all_named(&[]) };
                    self.request_ended(call, operation, (id, &sent), &outcome)?;
                    if let Some(op) = self.operations.get_mut(&operation) {
                        op.model.silent_progress(now)?;
                    }
                    let context = Context::Link(self.context(call, operation)?.clone());
                    self.apply_to_table(call, &outcome, (id, &sent), &context);
                }
                "cancel: incomplete"
            }
            CancelReason::Superseded => {
                ensure!(
                    op.superseded.contains(&id) || op.model.may_be_superseded(&sent),
                    "deadline 5: superseded only by another answer of its node: {sent:?}"
                );
                op.superseded.retain(|superseded| *superseded != id);
                op.stats.cancelled += 1;
                "cancel: superseded"
            }
            CancelReason::OperationEnded => {
                op.ending = true;
                op.stats.cancelled += 1;
                // Where one call finds both deadlines passed, the earlier one counts.
                ensure!(
                    op.deadline > now || sent.deadline >= op.deadline,
                    "deadline 6: a request that ran into its own time-out before its operation ended is \
                     reported as timed out: {sent:?}"
                );
                op.model.request_cancelled(now, id, &sent, cancel.reason)?;
                "cancel: operation ended"
            }
            CancelReason::LookupEnded | CancelReason::Unneeded => {
                op.stats.cancelled += 1;
                op.model.request_cancelled(now, id, &sent, cancel.reason)?;
                "cancel: by its operation"
            }
        };
        self.count(what);
        Ok(())
    }

    /// A request of an operation has timed out, and no progress will say so.
    fn silent_timeout(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        operation: OperationId,
        request: (RequestId, &RequestInFlight<F>),
    ) -> Checked {
        let outcome = RequestOutcome::TimedOut;
        let silent = self.request_ended(call, operation, request, &outcome)?;
        if let Some(op) = self.operations.get_mut(&operation) {
            op.stats.timed_out += 1;
            op.model.silent_progress(call.now)?;
        }
        if silent {
            let context = Context::Link(self.context(call, operation)?.clone());
            self.node_dead(call, &request.1.node, &context);
        }
        Ok(())
    }

    pub(super) fn progress(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        progress: &Progress<F>,
    ) -> Checked {
        ensure!(self.pool.progress, "progress: none where it is switched off: {progress:?}");
        let id = progress.operation;
        let by_event =
            !matches!(progress.outcome, RequestOutcome::TimedOut | RequestOutcome::Incomplete { .. });
        let closed = if by_event {
            let answered = ensure_some!(
                call.answered_request.take(),
                "progress: once for each response to a request in flight: {progress:?}"
            );
            self.close_request(answered.0)?;
            Some(answered)
        } else {
            self.operations.get_mut(&id).and_then(|op| op.unreported_timeout.take())
        };
        let (request, sent) = ensure_some!(closed, "progress: only for a request that ended: {progress:?}");
        ensure_eq!(
            (sent.initiator, &sent.node, request),
            (Initiator::Operation(id), &progress.node, progress.id),
            "progress: of the request that ended"
        );
        ensure_eq!(
            (progress.hop, progress.elapsed),
            (sent.hop, if by_event { call.elapsed(&sent) } else { sent.elapsed(call.now) }),
            "progress: hop and elapsed time"
        );
        self.check_stamp(call, stamped, id, None)?;
        let context = Context::Link(self.context(call, id)?.clone());
        let silent = self.request_ended(call, id, (request, &sent), &progress.outcome)?;
        let Some(op) = self.operations.get_mut(&id) else { return Ok(()) };
        ensure_eq!(progress.stats, op.stats, "stats: agree with the events");
        let counts = op.model.check_progress(call.now, &stamped.event)?;
        self.count_all(counts);
        // Two timed-out requests to one node are one failure of the node.
        if silent {
            self.node_dead(call, &progress.node, &context);
        }
        if let (true, Inbound::Response(response)) = (by_event, &call.event.event) {
            self.count_response(response);
        }
        self.apply_to_table(call, &progress.outcome, (request, &sent), &context);
        Ok(())
    }

    /// A request of an operation has ended: compares the outcome with the response, and applies it to the
    /// operation. Returns whether the node has timed out, and no other request to it is in flight.
    pub(super) fn request_ended(
        &mut self,
        call: &CheckedCall<'_, F>,
        operation: OperationId,
        (id, sent): (RequestId, &RequestInFlight<F>),
        outcome: &RequestOutcome<F>,
    ) -> Checked<bool> {
        let now = call.now;
        let Some(op) = self.operations.get_mut(&operation) else {
            broken!("deadline 7: nothing of an operation after its finish: {operation:?}")
        };
        let result = match &call.event.event {
            Inbound::Response(response) => Some(&response.result),
            _ => None,
        };
        let extra: Option<&AnswerExtra<F>> =
            result.and_then(|result| result.as_ref().ok()).map(|answer| &answer.extra);
        let extra = extra.filter(|_| matches!(outcome, RequestOutcome::Answered { .. }));
        let end = RequestEnd { now, id, sent, elapsed: call.elapsed(sent), outcome, extra };
        match outcome {
            RequestOutcome::TimedOut => return op.model.request_failed(&end),
            // For its operation, the parts are the answer.
            RequestOutcome::Incomplete { closer } => {
                ensure_eq!(*closer, sent.all_named(&[]), "progress: the nodes of the parts");
                let outcome = RequestOutcome::Answered { closer: closer.clone() };
                op.superseded = op.model.request_answered(&RequestEnd { outcome: &outcome, ..end })?;
                op.stats.answered += 1;
                op.stats.hops = op.stats.hops.max(sent.hop);
                return Ok(false);
            }
            _ => ensure!(
                sent.deadline > now,
                "deadline 3: a response at or after the deadline is late: {sent:?}, now {now}"
            ),
        }
        match (outcome, result) {
            (RequestOutcome::Answered { closer }, Some(Ok(answer))) => {
                ensure_eq!(
                    *closer,
                    sent.all_named(&answer.closer),
                    "progress: the nodes as the caller gave them"
                );
                op.superseded = op.model.request_answered(&end)?;
                op.stats.answered += 1;
                op.stats.hops = op.stats.hops.max(sent.hop);
            }
            (RequestOutcome::Failed, Some(Err(Failure::Failed)))
            | (RequestOutcome::Unreachable, Some(Err(Failure::Unreachable)))
            | (RequestOutcome::ConnectionRefused, Some(Err(Failure::ConnectionRefused)))
            | (RequestOutcome::Gone, Some(Err(Failure::Gone))) => {
                op.model.request_failed(&end)?;
                op.stats.failed += 1;
            }
            (RequestOutcome::Rejected(said), Some(Err(Failure::Rejected(why)))) => {
                ensure_eq!(said, why, "progress: the reason is passed through");
                op.model.request_failed(&end)?;
                op.stats.failed += 1;
            }
            (outcome, result) => {
                broken!("progress: outcome {outcome:?} does not match the response {result:?}")
            }
        }
        Ok(false)
    }

    /// A part of the answer to a request has come: the request goes on, for a shorter time.
    pub(super) fn keep_part(&mut self, call: &CheckedCall<'_, F>, id: RequestId, closer: &[F::Node]) {
        let network = &self.config.network;
        let (most, soft, fixed) = (network.max_part_nodes, network.soft_timeout, !self.adapts());
        let Some((_, sent)) = self.requests.iter_mut().find(|(open, _)| *open == id) else { return };
        let (elapsed, is_first, node) = (call.elapsed(sent), sent.parts.is_none(), sent.node.clone());
        let (_, nodes) = sent.parts.get_or_insert_with(|| (elapsed, Vec::new()));
        let room = most.saturating_sub(nodes.len());
        nodes.extend(closer.iter().take(room).cloned());
        if is_first {
            sent.soft = None;
            if fixed {
                sent.deadline = sent.deadline.min(call.now + elapsed.max(soft));
            }
        }
        let (owner, background_of) = (sent.initiator.operation(), sent.background_of);
        let op = match owner {
            Some(id) => self.operations.get_mut(&id),
            None => background_of.and_then(|id| self.background.get_mut(&id)),
        };
        if let Some(op) = op {
            op.model.answered_in_part(call.now, id, &node);
        }
        // The node is live: its entry is refreshed, but it is not admitted yet.
        self.table.refresh(call.now, &node, None);
        self.count("a part of an answer");
    }

    /// Whether time-outs are adapted to round trips, so that the checker does not know them.
    pub(super) fn adapts(&self) -> bool {
        !self.config.network.is_fixed()
    }

    pub(super) fn count_response(&mut self, response: &Response<F>) {
        let stats = &mut self.request_stats;
        *(if response.result.is_ok() { &mut stats.answered } else { &mut stats.failed }) += 1;
    }
}
