//! [`Operation`]: one live operation, with its requests, its context, its deadline and its statistics.
//!
//! The [pool](crate::operations::pool) calls it with answers, failures and expired timers. It passes them to its
//! [task](crate::operations::task), submits the requests that the task wants, and emits the events. Every call
//! that may change what the task wants returns a [`Status`], which the pool applies.

use crate::context::Context;
use crate::operations::listener::Listener;
use crate::operations::task::{EmitsOperation, Found, NoAnswer, OperationEnd, Task, TaskStep};
use crate::operations::work::{FinishedWork, WorkClass};
use crate::requests::call_context::{CallContext, OperationCause};
use crate::requests::in_flight_table::RequestList;
use crate::requests::purpose::{NodeRef, OperationRequest, Purpose};
use crate::requests::request_queue::{
    Ending, Expired, PendingRequest, Recipient, RequestQueue, SubmitError, Submitted,
};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{
    EndedLookup, OperationOutbound, OperationStats, Outcome, Progress, Started,
};
use crate::vocabulary::request_events::{
    self, Answer, Cancel, CancelReason, Failure, Initiator, RequestOutcome,
};
use crate::vocabulary::time::Instant;
use core::marker::PhantomData;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// An operation stands in line for one part in so many of its time, once nothing else keeps it from its end.
const IN_LINE: u32 = 4;

/// Whether an operation goes on, after a call to it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) enum Status<K> {
    Continues,
    /// It wants to submit a request, but the request queue is full. If the node to ask is `busy`, capacity at
    /// other nodes does not help.
    Blocked {
        busy: Option<K>,
        /// The deadline of that request, by which blocked operations are ordered.
        until: Instant,
    },
    /// It has nobody left to ask, and wants further nodes to begin with.
    Starved,
    /// It has what the caller wants, and can go on as a side effect in the background.
    Returns,
    Ends(Outcome),
}

/// The values of an accepted start.
pub(crate) struct AcceptedStart {
    pub(crate) now: Instant,
    pub(crate) id: OperationId,
    pub(crate) initiator: Initiator,
    pub(crate) deadline: Instant,
    pub(crate) context: SpanContext,
    /// Whether it is a lookup of the node's own key.
    pub(crate) bootstrap: bool,
    /// Whether progress events are emitted.
    pub(crate) progress: bool,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Operation<F: Family, T> {
    pub(crate) id: OperationId,
    /// [`Initiator::Operation`] for an operation of the caller's. Any other is a side effect, which emits only
    /// requests and cancels.
    pub(crate) initiator: Initiator,
    /// Whether it is a lookup of the node's own key.
    pub(crate) bootstrap: bool,
    /// Whether progress events are emitted.
    progress: bool,
    pub(crate) deadline: Instant,
    /// The time that its timer in the pool is set to; see [`timer`](Operation::timer).
    pub(crate) armed_timer: Instant,
    /// The number of requests that it was granted when it moved to the background; see
    /// [`Background`](crate::operations::pool::Background).
    pub(crate) granted_requests: usize,
    /// The span context that it was started with (context rule 5).
    context: SpanContext,
    /// When it began; `None` while it waits.
    begun: Option<Instant>,
    class: WorkClass,
    task: T,
    own_requests: RequestList,
    stats: OperationStats,
    family: PhantomData<F>,
}

impl<F: Family, T: Task<F>> Operation<F, T> {
    /// An operation that waits to [begin](Operation::begin). The caller has checked the start against the
    /// configuration.
    pub(crate) fn new(accepted: AcceptedStart, task: T) -> Self {
        let AcceptedStart { now, id, initiator, deadline, context, bootstrap, progress } = accepted;
        let stats = OperationStats { started: now, ..OperationStats::default() };
        Self {
            id,
            initiator,
            bootstrap,
            progress,
            deadline,
            armed_timer: task.timer().map_or(deadline, |at| at.min(deadline)),
            granted_requests: 0,
            context,
            begun: None,
            class: task.work().into(),
            task,
            own_requests: RequestList::EMPTY,
            stats,
            family: PhantomData,
        }
    }

    /// Emits that the start was accepted.
    pub(crate) fn emit_started<E: EmitsOperation<F, T>>(&self, call: &mut CallContext<'_, F, E>) {
        self.emit(call, Some(self.deadline), OperationOutbound::Started(Started { operation: self.id }));
    }

    /// The next time at which it has something to do by itself: its deadline, or the earlier timer of its task.
    pub(crate) fn timer(&self) -> Instant {
        self.task.timer().map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Begins to run.
    pub(crate) fn begin<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) -> Status<F::Key> {
        self.begun = Some(call.now);
        self.task.begin(call.now, self.deadline);
        self.advance(call)
    }

    /// Its task's timer, which is before its deadline, is due. Returns the next time of the timer.
    pub(crate) fn elapse<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>) -> Instant {
        self.task.elapse(call.now);
        // Cancelled now rather than in `advance`: the time of these requests is over, and they must not count as
        // time-outs.
        while let Some(lookup) = self.task.abandoned() {
            self.abandon(call, lookup);
        }
        self.armed_timer = self.timer();
        self.armed_timer
    }

    /// Submits requests as long as the task wants to and the request queue accepts them.
    pub(crate) fn advance<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) -> Status<F::Key> {
        // The call is late, and the timer of this operation is due too. It is handled later in the same call, in
        // order of time: after the requests whose deadlines passed before it.
        if self.armed_timer <= call.now {
            return Status::Continues;
        }
        loop {
            match self.task.next(call.now) {
                TaskStep::Ask { node_ref, node, hop, attempt, no_soft_limit, until } => {
                    let asked = OperationRequest { operation: self.id, node: node_ref, hop };
                    let arrival = self.id.handle().generation;
                    let is_named = !asked.is_seed();
                    let to = Recipient { node, attempt, no_soft_limit, is_named, arrival };
                    let purpose = Purpose::Operation(asked);
                    let until = until.min(self.deadline);
                    match call.requests.submit(call.now, &mut self.own_requests, until, to, purpose) {
                        Ok(Submitted::Sent(id, deadline)) => self.send(call, id, deadline),
                        Ok(Submitted::Queued(_)) => {}
                        Err(SubmitError::Banned) => self.task.missed(node_ref, NoAnswer::Failed),
                        Err(refused) => {
                            self.task.take_back(node_ref);
                            return match refused {
                                SubmitError::QueueFull { busy } => Status::Blocked { busy, until },
                                SubmitError::NoTimeLeft | SubmitError::Banned => Status::Continues,
                            };
                        }
                    }
                }
                TaskStep::Abandon { lookup } => self.abandon(call, lookup),
                TaskStep::Wait => {
                    let elapsed = self.begun.map_or(Duration::ZERO, |begun| call.now - begun);
                    let patience = elapsed.max((self.deadline - self.stats.started) / IN_LINE);
                    call.requests.limit_lines(call.now, self.own_requests, self.stats.answered, patience);
                    return Status::Continues;
                }
                TaskStep::Starved => return Status::Starved,
                TaskStep::Return => return Status::Returns,
                TaskStep::Done(outcome) => return Status::Ends(outcome),
            }
        }
    }

    /// See [`Task::wants`].
    pub(crate) fn wants(&self) -> Option<(F::Key, usize)> {
        self.task.wants()
    }

    /// Goes on with further nodes to begin with, or without.
    pub(crate) fn feed<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        seeds: Vec<F::Node>,
    ) -> Status<F::Key> {
        self.task.add_seeds(seeds);
        self.advance(call)
    }

    /// Cancels the requests of a lookup that is over.
    fn abandon<E: From<Cancel<F>>>(&mut self, call: &mut CallContext<'_, F, E>, lookup: u16) {
        let of = |request: &PendingRequest<F, Purpose>| {
            request.purpose.operation().is_some_and(|asked| asked.node.lookup() == Some(lookup))
        };
        while let Some(id) = call.requests.find(self.own_requests, of) {
            self.cancel_request(call, id, CancelReason::LookupEnded);
        }
    }

    /// The turn of a request that has waited has come. If the task does not take it, as all its slots are occupied, the request is closed
    /// without being sent.
    pub(crate) fn gives_up_turn<E>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        node_ref: NodeRef,
    ) -> bool {
        let takes_turn = self.task.takes_turn(node_ref);
        if !takes_turn {
            call.requests.close(&mut self.own_requests, id, call.now, Ending::Cancelled);
        }
        !takes_turn
    }

    /// Emits a request that was sent, or released by the request queue.
    pub(crate) fn send<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        deadline: Instant,
    ) {
        let token = call.requests.draw_token();
        let Some(request) = call.requests.get(id) else { return };
        let Purpose::Operation(asked) = request.purpose else { return };
        self.stats.sent += 1;
        let (target, ask) = self.task.ask(asked.node, &request.node);
        let node = request.node.clone();
        let hop = u32::from(asked.hop);
        let request =
            request_events::Request { id, token, initiator: self.initiator, node, target, ask, hop };
        self.emit(call, Some(deadline), request);
    }

    /// Handles the answer to a live request of this operation; `ending` says whether it came in full.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as for the pool's method
    pub(crate) fn answered<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        mut answer: Answer<F>,
        ending: Ending,
    ) -> Status<F::Key> {
        let Some((asked, request)) = self.close(call, id, ending) else { return Status::Continues };
        let elapsed = call.elapsed(&request);
        self.stats.answered += 1;
        self.stats.hops = self.stats.hops.max(u32::from(asked.hop));
        let superseded = self.task.answered(asked.node, &request.node, elapsed, &mut answer);
        let closer = answer.closer;
        let outcome = if ending == Ending::Incomplete {
            self.emit_cancel(call, id, request.node.clone(), CancelReason::Incomplete);
            RequestOutcome::Incomplete { closer }
        } else {
            RequestOutcome::Answered { closer }
        };
        self.report(call, (id, request.node), asked, elapsed, outcome);
        for _ in 0..superseded {
            let same = |other: &PendingRequest<F, Purpose>| is_for_node(&other.purpose, asked.node);
            let Some(id) = call.requests.find(self.own_requests, same) else { break };
            self.cancel_request(call, id, CancelReason::Superseded);
        }
        self.advance(call)
    }

    /// Handles the failure or the rejection of a live request of this operation.
    pub(crate) fn failed<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        failure: Failure<F>,
    ) -> Status<F::Key> {
        let Some((asked, request)) = self.close(call, id, Ending::Failed) else { return Status::Continues };
        let node_ref = asked.node;
        self.stats.failed += 1;
        match &failure {
            Failure::Rejected(reason) => self.task.rejected(node_ref, reason),
            Failure::Failed | Failure::Unreachable | Failure::ConnectionRefused | Failure::Gone => {
                self.task.missed(node_ref, NoAnswer::Failed);
            }
        }
        // Waiting requests to the same node are not sent any more.
        let waits = |other: &PendingRequest<F, Purpose>| {
            other.purpose.operation().is_some_and(|it| it.operation == self.id && it.node.is_same(node_ref))
        };
        while let Some(id) = call.requests.find_waiting(F::key(&request.node), waits) {
            call.requests.close(&mut self.own_requests, id, call.now, Ending::Cancelled);
            self.task.withdrawn(node_ref);
        }
        let elapsed = call.elapsed(&request);
        self.report(call, (id, request.node), asked, elapsed, failure.into());
        self.advance(call)
    }

    /// A request that waits is not to be sent: its node is banned.
    pub(crate) fn refuse_waiting<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
    ) -> Status<F::Key> {
        if let Some((asked, _)) = self.close(call, id, Ending::Cancelled) {
            self.task.missed(asked.node, NoAnswer::Failed);
        }
        self.advance(call)
    }

    /// Visits all nodes that the operation holds.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.task.visit_nodes(visit);
    }

    /// Whether no other request of this operation to the same node is in flight. It looks at the others only where
    /// another request, of whichever operation, is in flight to a node with that key: a crawl has tens of thousands.
    pub(crate) fn is_only_request(
        &self,
        requests: &RequestQueue<F, Purpose>,
        request: RequestId,
        asked: OperationRequest,
    ) -> bool {
        let key = requests.get(request).map(|request| F::key(&request.node));
        let is_alone = key.is_some_and(|key| requests.in_flight_to(&key) <= 1);
        if is_alone || asked.node.has_one_request() {
            return true;
        }
        let mut others = requests.in_flight(self.own_requests).filter(|(id, _)| *id != request);
        !others.any(|(_, other)| is_for_node(other, asked.node))
    }

    /// Closes a request in the request queue. `None` if it is not live.
    fn close<E>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        ending: Ending,
    ) -> Option<(OperationRequest, PendingRequest<F, Purpose>)> {
        let request = call.requests.close(&mut self.own_requests, id, call.arrived, ending)?;
        Some((*request.purpose.operation()?, request))
    }

    /// Handles the soft limit or the deadline of a request that has passed.
    pub(crate) fn expire_request<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        due: Expired,
    ) -> Status<F::Key> {
        match due {
            Expired::InLine { request, stands } => {
                if let Some(pending) = call.requests.get(request).filter(|_| stands)
                    && let Some(asked) = pending.purpose.operation()
                {
                    self.task.stands_in_line(asked.node);
                }
            }
            Expired::Soft { request, may_repeat } => self.slow(call, request, may_repeat),
            Expired::Repeat(request) => self.slow(call, request, true),
            Expired::Silent { request, is_capped, may_retry } => {
                if let Some(pending) = call.requests.get(request)
                    && let Some(asked) = pending.purpose.operation()
                {
                    let sent = pending.sent_at();
                    self.task.missed(asked.node, NoAnswer::Silent { sent, is_capped, may_retry });
                }
            }
            Expired::Hard(id) if call.requests.get(id).is_some_and(PendingRequest::bound_by_operation) => {
                self.cancel_at_deadline(call, id);
            }
            Expired::Hard(id) => self.fail_timed_out(call, id),
            Expired::GivenUp(id) => {
                if let Some(asked) = call.requests.get(id).and_then(|request| request.purpose.operation()) {
                    self.task.missed(asked.node, NoAnswer::TimedOutSilently);
                }
            }
            Expired::Hopeless(id) | Expired::TooBusy(id) => {
                let is_busy = matches!(due, Expired::TooBusy(_));
                if let Some((asked, _)) = self.close(call, id, Ending::Cancelled) {
                    self.task.missed(asked.node, if is_busy { NoAnswer::Busy } else { NoAnswer::Failed });
                }
            }
        }
        self.advance(call)
    }

    /// A request has passed its soft limit, or its node may be asked again.
    fn slow<E>(&mut self, call: &CallContext<'_, F, E>, id: RequestId, may_repeat: bool) {
        if let Some(asked) = call.requests.get(id).and_then(|request| request.purpose.operation()) {
            self.task.slow(asked.node, may_repeat);
        }
    }

    /// The deadline of a request has passed: its own time-out, if it was sent. A request that waits has the
    /// deadline of its operation, which ends it first, unless the operation has moved to the background since:
    /// such a request was never sent, and nothing is emitted for it.
    fn fail_timed_out<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>, id: RequestId) {
        let was_sent = call.requests.get(id).is_some_and(PendingRequest::is_emitted);
        let ending = if was_sent { Ending::TimedOut } else { Ending::Cancelled };
        let Some((asked, request)) = self.close(call, id, ending) else { return };
        if !was_sent {
            self.task.missed(asked.node, NoAnswer::Failed);
            return;
        }
        let elapsed = request.age(call.now);
        self.stats.timed_out += 1;
        self.timed_out(asked, request.is_given_up(), request.is_silent());
        self.emit_cancel(call, id, request.node.clone(), CancelReason::TimedOut);
        self.report(call, (id, request.node), asked, elapsed, RequestOutcome::TimedOut);
    }

    /// The time of a request to this node has run out.
    fn timed_out(&mut self, asked: OperationRequest, is_given_up: bool, is_silent: bool) {
        // Of one that was given up, that was told.
        if !is_given_up {
            let miss = if is_silent { NoAnswer::TimedOutSilently } else { NoAnswer::TimedOut };
            self.task.missed(asked.node, miss);
        }
    }

    /// A request has reached the deadline that its operation set when the request was submitted, while the
    /// operation goes on: the operation has moved to the background since, or that deadline was the one of a
    /// lookup within it. The request is cancelled, without blame for the node (deadline rule 6).
    fn cancel_at_deadline<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
    ) {
        let Some(request) = call.requests.get(id) else { return };
        let (asked, is_given_up, is_silent) =
            (request.purpose.operation().copied(), request.is_given_up(), request.is_silent());
        if let Some(asked) = asked {
            self.cancel_request(call, id, CancelReason::OperationEnded);
            self.timed_out(asked, is_given_up, is_silent);
        }
    }

    /// What class of work it is.
    pub(super) const fn class(&self) -> WorkClass {
        self.class
    }

    /// When its start was accepted.
    pub(super) const fn started(&self) -> Instant {
        self.stats.started
    }

    /// Of an operation of the caller's that runs: its class, and how many requests it has sent.
    pub(super) fn sent_so_far(&self) -> Option<(WorkClass, u32)> {
        let runs = self.begun.is_some() && matches!(self.initiator, Initiator::Operation(_));
        runs.then_some((self.class, self.stats.sent))
    }

    /// What it has cost, if it began.
    pub(super) fn finished_work(&self, now: Instant, outcome: Outcome) -> Option<FinishedWork> {
        self.begun.map(|begun| FinishedWork {
            class: self.class,
            sent: self.stats.sent,
            took: now - begun,
            is_complete: outcome.is_by_itself(),
        })
    }

    /// See [`Task::is_crawl`].
    pub(crate) fn is_crawl(&self) -> bool {
        self.task.is_crawl()
    }

    /// See [`Task::remaining_requests`].
    pub(crate) fn remaining_requests(&self) -> usize {
        self.task.remaining_requests()
    }

    /// Emits the finish, and goes on as a side effect until `deadline`.
    pub(crate) fn enter_background<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        outcome: Outcome,
        deadline: Instant,
    ) {
        let end = OperationEnd {
            operation: self.id,
            outcome,
            stats: OperationStats { ended: Some(call.now), ..self.stats },
        };
        self.granted_requests = self.task.remaining_requests();
        if let Some(finish) = self.task.enter_background(end, deadline) {
            self.emit(call, Some(self.deadline), OperationOutbound::Finished(finish));
        }
        self.initiator = Initiator::Background;
        self.deadline = deadline;
        // Requests that were sent keep their deadlines. Waiting requests get the new one: of the lookup, or of the
        // side effect.
        let lookup_deadline = self.task.lookup_deadline().map_or(deadline, |at| at.min(deadline));
        let until = |request: &PendingRequest<F, Purpose>| {
            let node_ref = request.purpose.operation().map(|asked| asked.node);
            if node_ref.is_some_and(|node_ref| node_ref.lookup().is_some()) {
                lookup_deadline
            } else {
                deadline
            }
        };
        call.requests.set_waiting_deadlines(self.own_requests, until);
    }

    /// If it is a lookup that ends by itself, moves its requests that are past their soft limit to a listener, whose number in
    /// the pool will be `number`. `None` if there are none, or if the queue has no room.
    pub(crate) fn listen_on<E>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        outcome: Outcome,
        number: u32,
    ) -> Option<Listener> {
        if !outcome.is_by_itself() || !self.task.listens_on() {
            return None;
        }
        let is_slow = |request: &PendingRequest<F, Purpose>| request.is_slow();
        let mut listener: Option<Listener> = None;
        while let Some(id) = call.requests.find(self.own_requests, is_slow) {
            let listener =
                listener.get_or_insert_with(|| Listener::new(self.id, self.initiator, &self.context));
            let purpose = Purpose::Listening(number);
            if !call.requests.listen_on(&mut self.own_requests, &mut listener.requests, id, purpose) {
                break;
            }
            listener.waits_for += 1;
        }
        listener.filter(|listener| listener.waits_for > 0)
    }

    /// Cancels all requests, and emits the finish if the operation is the caller's. Returns the result of a lookup
    /// that the machine itself uses: of a bootstrap or of a side effect.
    pub(crate) fn finish<E: EmitsOperation<F, T>>(
        mut self,
        call: &mut CallContext<'_, F, E>,
        outcome: Outcome,
    ) -> Option<EndedLookup<F>> {
        while let Some(id) = call.requests.find(self.own_requests, |_| true) {
            self.cancel_request(call, id, CancelReason::OperationEnded);
        }
        self.stats.ended = Some(call.now);
        let context = self.context(&call.cause);
        let is_internal = self.initiator.operation().is_none();
        let reports_lookup = self.bootstrap || is_internal;
        let detached = reports_lookup.then(|| self.detached_context(&call.cause));
        let Self { initiator, stats, deadline, .. } = self;
        let mut finish = self.task.finish(OperationEnd { operation: self.id, outcome, stats });
        let ended = detached.zip(T::found(&mut finish)).map(|(context, found)| {
            let Found { target, closest } = found;
            let closest_cpl = closest.first().map(|contact| F::key(&contact.node).common_prefix_len(&target));
            let closest = if is_internal { core::mem::take(closest) } else { Vec::new() };
            EndedLookup { initiator, outcome, stats, closest_cpl, target, closest, context }
        });
        if !is_internal {
            call.out.push(Stamped {
                event: OperationOutbound::Finished(finish).into(),
                context,
                deadline: Some(deadline),
            });
        }
        ended
    }

    /// Cancels a request without blame for its node (deadline rule 6).
    fn cancel_request<E: From<Cancel<F>>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        reason: CancelReason,
    ) {
        let closed = call.requests.close(&mut self.own_requests, id, call.now, Ending::Cancelled);
        let Some(request) = closed else { return };
        if request.is_emitted() {
            self.stats.cancelled += 1;
            self.emit_cancel(call, id, request.node, reason);
        } else if let (CancelReason::OperationEnded, Some(asked)) = (reason, request.purpose.operation()) {
            self.task.withdrawn(asked.node);
        }
    }

    /// The context of a side effect of this operation (context rule 4).
    pub(crate) fn detached_context(&self, cause: &OperationCause<'_>) -> Context {
        cause.detach(self.id, &self.context)
    }

    fn emit_cancel<E: From<Cancel<F>>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        node: F::Node,
        reason: CancelReason,
    ) {
        let deadline = self.initiator.operation().map(|_| self.deadline);
        self.emit(call, deadline, Cancel { id, initiator: self.initiator, node, reason });
    }

    /// Emits the progress event of a request that has ended, if progress events are wanted.
    fn report<E: EmitsOperation<F, T>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        (id, node): (RequestId, F::Node),
        asked: OperationRequest,
        elapsed: Duration,
        outcome: RequestOutcome<F>,
    ) {
        let Initiator::Operation(operation) = self.initiator else { return };
        if !self.progress {
            return;
        }
        let (hop, stats) = (u32::from(asked.hop), self.stats);
        let progress = Progress { id, operation, node, hop, elapsed, outcome, stats };
        self.emit(
            call,
            Some(self.deadline),
            OperationOutbound::Progress(self.task.progress(progress, asked.node)),
        );
    }

    // Inlined, so that an event is built where it is stored instead of being moved through the enums.
    #[inline(always)]
    #[allow(clippy::inline_always)] // measured: one copy of the event fewer
    fn emit<E>(&self, call: &mut CallContext<'_, F, E>, deadline: Option<Instant>, event: impl Into<E>) {
        let context = self.context(&call.cause);
        call.out.push(Stamped { event: event.into(), context, deadline });
    }

    /// The context of this operation's outbound events (context rules 1 to 4).
    fn context(&self, cause: &OperationCause<'_>) -> Context {
        match self.initiator {
            Initiator::Operation(_) => cause.stamp(self.id, &self.context),
            _ => self.detached_context(cause),
        }
    }
}

/// Whether a request is for this node of its operation.
fn is_for_node(purpose: &Purpose, node_ref: NodeRef) -> bool {
    purpose.operation().is_some_and(|asked| asked.node.is_same(node_ref))
}
