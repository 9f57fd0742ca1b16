//! The liveness check that include and probe have in common: a node is asked for the nodes closest to itself.

use crate::context::Context;
use crate::deadline::MonotonicClock;
use crate::requests::call_context::CallContext;
use crate::requests::in_flight_table::RequestList;
use crate::requests::purpose::{Attempt, CheckRef, Purpose, ReleasedCheck};
use crate::requests::request_queue::{Ending, Expired, PendingRequest, Recipient, RequestQueue, Submitted};
use crate::requests::stats::RequestStats;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Stamped};
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::{Ask, Cancel, CancelReason, Initiator, Request, Response};
use crate::vocabulary::time::Instant;
use crate::{context, deadline};
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// The checks of one part, include or probe, that are in flight.
#[derive(Clone, Debug)]
pub(crate) struct LivenessChecks<F: Family> {
    initiator: Initiator,
    /// This node's own target, for nodes that cannot be asked about themselves.
    own_target: F::Target,
    timeout: Duration,
    /// How many may be in flight that are not listened to only.
    max_in_flight: usize,
    in_flight: usize,
    /// How many may be listened to beyond their soft limit. If none, checks have no soft limit.
    max_listening: usize,
    listening: usize,
    own_requests: RequestList,
    /// The request queue refused a request: nothing is submitted until the next [`unblock`](Self::unblock).
    blocked: bool,
}

impl<F: Family> LivenessChecks<F> {
    pub(crate) const fn new(
        initiator: Initiator,
        own_target: F::Target,
        timeout: Duration,
        max_in_flight: usize,
    ) -> Self {
        Self {
            initiator,
            own_target,
            timeout,
            max_in_flight,
            in_flight: 0,
            max_listening: 0,
            listening: 0,
            own_requests: RequestList::EMPTY,
            blocked: false,
        }
    }

    /// The same, with a soft limit, after which a check takes no place any more: it is listened to, as at most so many are.
    pub(crate) fn listening_on(self, max_listening: usize) -> Self {
        Self { max_listening, ..self }
    }

    /// This node has another id.
    pub(crate) fn set_own_target(&mut self, target: F::Target) {
        self.own_target = target;
    }

    /// Whether another check can be tried.
    pub(crate) const fn has_capacity(&self) -> bool {
        self.has_slot() && !self.blocked
    }

    /// The same, though the request queue may have refused the request to some node.
    pub(crate) const fn has_slot(&self) -> bool {
        self.in_flight < self.max_in_flight
    }

    /// To be called in each call of the machine: a request that was refused before may be accepted now.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// The number of checks that have begun and not ended.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight + self.listening
    }

    /// Those of them that are listened to beyond their soft limit.
    pub(crate) const fn listening(&self) -> usize {
        self.listening
    }

    /// Begins the check of a node. `None` if the request queue refuses its request.
    pub(crate) fn begin<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        slot: u32,
        node: &F::Node,
        link: &SpanContext,
    ) -> Option<RequestId> {
        let node = node.clone();
        let to = Recipient {
            node,
            attempt: Attempt::First,
            no_soft_limit: true,
            is_named: false,
            arrival: u32::MAX,
        };
        let purpose = Purpose::Check(CheckRef { initiator: self.initiator, slot });
        let until = deadline::of_operation(call.now, None, self.timeout);
        let submitted =
            until.map(|until| call.requests.submit(call.now, &mut self.own_requests, until, to, purpose));
        let Some(Ok(submitted)) = submitted else {
            self.blocked = true;
            return None;
        };
        self.in_flight += 1;
        Some(match submitted {
            Submitted::Sent(id, deadline) => {
                self.send(call, id, deadline, link);
                id
            }
            Submitted::Queued(id) => id,
        })
    }

    /// Emits a request that the request queue has released.
    pub(crate) fn send<E: EmitsRequests<F>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        deadline: Instant,
        link: &SpanContext,
    ) {
        let Some(node) = call.requests.get(id).map(|request| request.node.clone()) else { return };
        if self.max_listening > 0 {
            call.requests.limit_softly(call.now, id);
        }
        let token = call.requests.draw_token();
        let target = F::target_of(&node).unwrap_or_else(|| self.own_target.clone());
        let request =
            Request { id, token, initiator: self.initiator, node, target, ask: Ask::FindCloser, hop: 1 };
        let context = context::linked(link);
        call.out.push(Stamped { event: request.into(), context, deadline: Some(deadline) });
    }

    /// A check is past its soft limit: if there is room for one more, it is only listened to from now on.
    pub(crate) fn slow<E>(&mut self, call: &mut CallContext<'_, F, E>, id: RequestId) {
        if self.listening < self.max_listening && call.requests.listen(id) {
            self.in_flight -= 1;
            self.listening += 1;
        }
    }

    /// Ends a check. If its request was sent and has timed out or is cancelled, emits a [`Cancel`].
    pub(crate) fn end<E: EmitsRequests<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        ending: Ending,
        link: &SpanContext,
    ) -> Option<PendingRequest<F, Purpose>> {
        let request = call.requests.close(&mut self.own_requests, id, call.arrived, ending)?;
        *(if request.is_listened_to() { &mut self.listening } else { &mut self.in_flight }) -= 1;
        let reason = match ending {
            Ending::TimedOut => Some(CancelReason::TimedOut),
            Ending::Incomplete => Some(CancelReason::Incomplete),
            Ending::Cancelled => Some(CancelReason::Unneeded),
            Ending::Answered | Ending::Failed => None,
        };
        if let Some(reason) = reason.filter(|_| request.is_emitted()) {
            let cancel = Cancel { id, initiator: self.initiator, node: request.node.clone(), reason };
            let context = context::linked(link);
            call.out.push(Stamped { event: cancel.into(), context, deadline: None });
        }
        Some(request)
    }
}

/// A list of nodes to check, as a [`CheckMachine`] drives it.
pub(crate) trait CheckList<F: Family, E> {
    /// Emits the request of a check that was queued for capacity.
    fn send(&self, call: &mut CallContext<'_, F, E>, released: ReleasedCheck);

    /// Begins the checks that are due, as far as there is capacity.
    fn advance(&mut self, call: &mut CallContext<'_, F, E>);

    /// The request of a check is past its soft limit, if checks of this list have one.
    fn check_slow(&mut self, call: &mut CallContext<'_, F, E>, request: RequestId) {
        let _ = (call, request);
    }

    /// The request of a check ended. `names_nodes`: it was answered, and the answer names at least one node.
    /// `cause` is the context of the inbound event that ended it.
    fn check_ended(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        request: RequestId,
        ending: Ending,
        names_nodes: bool,
        cause: Option<&Context>,
    );
}

/// Checks with their own request queue: the machines [`Include`](crate::Include) and [`Probe`](crate::Probe).
#[derive(Clone, Debug)]
pub(crate) struct CheckMachine<F: Family, L> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Purpose>,
    pub(crate) list: L,
}

impl<F: Family, L> CheckMachine<F, L> {
    pub(crate) fn new(requests: RequestQueue<F, Purpose>, list: L) -> Self {
        Self { clock: MonotonicClock::default(), requests, list }
    }

    /// Does all that is due by `now`, then handles the event, then does what can be done after it.
    pub(crate) fn handle<E>(
        &mut self,
        now: Instant,
        out: &mut Batch<E>,
        event: impl FnOnce(&mut L, &mut CallContext<'_, F, E>),
    ) where
        L: CheckList<F, E>,
    {
        let Self { clock, requests, list } = self;
        let mut call = CallContext::new(clock.advance(now), requests, out);
        while let Some(expired) = call.requests.expire(call.now) {
            let request = match expired {
                Expired::Hard(request) => request,
                Expired::Soft { request, .. } => {
                    list.check_slow(&mut call, request);
                    continue;
                }
                Expired::InLine { .. }
                | Expired::Repeat(_)
                | Expired::Silent { .. }
                | Expired::Hopeless(_)
                | Expired::TooBusy(_)
                | Expired::GivenUp(_) => continue,
            };
            if call.requests.get(request).is_some_and(PendingRequest::is_answered_in_part) {
                let names_nodes = !call.requests.take_parts(request).closer.is_empty();
                list.check_ended(&mut call, request, Ending::Incomplete, names_nodes, None);
            } else {
                list.check_ended(&mut call, request, Ending::TimedOut, false, None);
            }
        }
        settle(list, &mut call);
        event(list, &mut call);
        settle(list, &mut call);
    }

    pub(crate) fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout()
    }
}

/// Handles the result of a check's request, as the driver reports it.
pub(crate) fn respond<F: Family, E>(
    list: &mut impl CheckList<F, E>,
    call: &mut CallContext<'_, F, E>,
    response: Response<F>,
    context: &Context,
) {
    call.receive(&response);
    let Response { request, result, .. } = response;
    if call.requests.match_response(request).is_none() {
        return;
    }
    match result {
        Ok(answer) if answer.is_part => {
            call.requests.keep_part(call.now, request, (call.arrived, call.dialed), answer.closer);
        }
        Ok(mut answer) => {
            call.requests.join_parts(request, &mut answer.closer);
            let names_nodes = !answer.closer.is_empty();
            list.check_ended(call, request, Ending::Answered, names_nodes, Some(context));
        }
        Err(_) => list.check_ended(call, request, Ending::Failed, false, Some(context)),
    }
}

fn settle<F: Family, E>(list: &mut impl CheckList<F, E>, call: &mut CallContext<'_, F, E>) {
    while let Some((request, deadline)) = call.requests.release(call.now) {
        if let Some(check) = call.check(request) {
            list.send(call, ReleasedCheck { check, request, deadline });
        }
    }
    list.advance(call);
}
