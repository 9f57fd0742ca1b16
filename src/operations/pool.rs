//! [`OperationPool`]: all live operations of a machine, of which a bounded number runs at the same time.
//!
//! A machine calls, in this order: [`elapse`](OperationPool::elapse) until it returns `None`, for what was due;
//! [`start`](OperationPool::start), [`stop`](OperationPool::stop), [`answered`](OperationPool::answered) or
//! [`failed`](OperationPool::failed), for its inbound event; and [`settle`](OperationPool::settle) until it
//! returns `None`, to run to quiescence.

use crate::collections::generational_slab::GenerationalSlab;
use crate::collections::indexed_heap::IndexedHeap;
use crate::collections::seeded_hash::SeededHash;
use crate::context::{Cause, Context};
use crate::operations::admission::{Look, WaitingLine};
use crate::operations::blocked::BlockedOperations;
use crate::operations::config::PoolConfig;
use crate::operations::listener::Listener;
use crate::operations::operation::{AcceptedStart, Operation, Status};
use crate::operations::task::{EmitsOperation, Task};
use crate::requests::call_context::{CallContext, OperationCause};
use crate::requests::purpose::{OperationRequest, Purpose, ReleasedCheck};
use crate::requests::request_queue::{Ending, Expired, Precedence, RequestQueue};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{EndedLookup, OperationOutbound, Outcome, RefusalReason, Refused};
use crate::vocabulary::request_events::{Answer, Failure, Initiator, Response};
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::Instant;
use crate::{context, deadline};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use slab::Slab;
use std::collections::HashMap;

/// All live operations, each with a task `T`. The request queue belongs to the machine, and is passed in the
/// [`CallContext`].
#[derive(Clone, Debug)]
pub(crate) struct OperationPool<F: Family, T> {
    local: LocalNode<F>,
    config: PoolConfig,
    hash: SeededHash,
    operations: GenerationalSlab<Operation<F, T>>,
    /// The caller's live operations, by tag.
    tags: HashMap<u64, OperationId, SeededHash>,
    /// By slot: when the operation has something to do by itself; see [`Operation::timer`].
    timers: IndexedHeap<Instant>,
    waiting: WaitingLine,
    blocked: BlockedOperations<F>,
    /// The number of starts accepted so far, which orders them by arrival.
    arrivals: u64,
    /// The number of the caller's operations that run.
    running: usize,
    /// The number of live crawls.
    crawls: usize,
    /// The limits of operations that go on in the background.
    background: Background,
    /// Lookups that have ended, and whose slow requests are still listened to.
    listeners: Slab<Listener>,
    /// Whether operations that have nobody left to ask are given further nodes to begin with.
    feeds: bool,
    /// Those that wait for it, within one call.
    starved: Vec<OperationId>,
    /// Results of ended lookups that the machine itself uses, until they are taken.
    ended: Vec<EndedLookup<F>>,
}

/// The limits of operations that go on as side effects after their finish.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Background {
    /// The maximum number of requests of all of them together, sent or to be sent.
    pub(crate) max_requests: usize,
    /// How long each may go on.
    pub(crate) timeout: Duration,
    /// The number of requests that are granted to operations in the background at the moment.
    pub(crate) granted_requests: usize,
}

/// The tag and the stamp of a start, with the configured timeout of its operation.
pub(crate) struct StartTerms {
    pub(crate) tag: u64,
    pub(crate) context: Context,
    pub(crate) deadline: Option<Instant>,
    /// The maximum duration of the operation (deadline rule 1).
    pub(crate) timeout: Duration,
    /// Whether it is a lookup of the node's own key.
    pub(crate) bootstrap: bool,
}

/// What one step of [`OperationPool::elapse`] did, as far as the machine must know.
pub(crate) enum TimeEffect<F: Family> {
    /// A request ran into its own timeout: a failure of this node. The context is for the side effects of that.
    TimedOut(F::Node, Context),
    /// The last part of an answer of which parts came did not come in time. The request has not been closed: the
    /// machine must handle what has come as the answer.
    Incomplete(RequestId),
    /// The request of a liveness check is due. It has not been closed: the machine must close it.
    Check(RequestId),
    /// The request of a liveness check is past its soft limit.
    SlowCheck(RequestId),
    /// Something that concerns only the operations.
    Internal,
}

impl<F: Family, T: Task<F>> OperationPool<F, T> {
    pub(crate) fn new(local: LocalNode<F>, config: PoolConfig, seeds: &Seeds) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            local,
            operations: GenerationalSlab::new(),
            tags: HashMap::with_hasher(SeededHash(seeds.hash)),
            hash: SeededHash(seeds.hash),
            timers: IndexedHeap::new(),
            waiting: WaitingLine::default(),
            blocked: BlockedOperations::new(),
            arrivals: 0,
            running: 0,
            crawls: 0,
            background: Background::default(),
            listeners: Slab::new(),
            feeds: false,
            starved: Vec::new(),
            ended: Vec::new(),
            config,
        })
    }

    /// The same pool, of a machine that [feeds](Self::take_starved) operations that have nobody left to ask.
    pub(crate) fn with_food(self) -> Self {
        Self { feeds: true, ..self }
    }

    /// The same pool, whose operations may go on in the background after their finish.
    pub(crate) fn with_background(self, background: Background) -> Self {
        Self { background, ..self }
    }

    /// Accepts or refuses a start. `objection` is the reason to refuse the task itself, if there is one. `task` is
    /// called only if the start is accepted. The operation begins in the next [`settle`](OperationPool::settle).
    pub(crate) fn start<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        terms: StartTerms,
        objection: Result<(), RefusalReason>,
        task: impl FnOnce(&Self) -> T,
    ) {
        let admitted = self.admit(call.now, &terms, objection);
        let StartTerms { tag, context, bootstrap, .. } = terms;
        let deadline = match admitted {
            Ok(deadline) => deadline,
            Err(reason) => {
                let event = OperationOutbound::Refused(Refused { tag, reason }).into();
                call.out.push(Stamped { event, context, deadline: None });
                return;
            }
        };
        let task = task(self);
        let end = task.ends_at_once();
        self.crawls += usize::from(task.is_crawl());
        let handle = self.operations.next_handle();
        let id = OperationId::new(tag, handle);
        self.tags.insert(tag, id);
        let (now, initiator, context) = (call.now, Initiator::Operation(id), context::stored(&context));
        let progress = self.config.progress;
        let accepted = AcceptedStart { now, id, initiator, deadline, context, bootstrap, progress };
        let operation = Operation::new(accepted, task);
        operation.emit_started(call);
        self.timers.set(handle.slot(), operation.armed_timer);
        self.operations.insert(operation);
        self.waiting.join(handle.slot(), deadline, self.arrivals);
        self.arrivals += 1;
        if let Some(outcome) = end {
            self.end_operation(call, id, outcome);
        }
    }

    /// Begins an operation that is a side effect: it has no tag, does not wait for others, and does not count as
    /// running. Returns its id; `None` if no time is left.
    pub(crate) fn begin_side_effect<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        initiator: Initiator,
        timeout: Duration,
        link: SpanContext,
        bootstrap: bool,
        task: T,
    ) -> Option<OperationId> {
        let deadline = deadline::of_operation(call.now, None, timeout)?;
        let handle = self.operations.next_handle();
        let id = OperationId::new(0, handle);
        let progress = self.config.progress;
        let accepted =
            AcceptedStart { now: call.now, id, initiator, deadline, context: link, bootstrap, progress };
        let operation = Operation::new(accepted, task);
        self.timers.set(handle.slot(), operation.armed_timer);
        self.operations.insert(operation);
        self.resume(call, handle.slot(), Operation::begin);
        Some(id)
    }

    /// Takes the result of an ended lookup that the machine itself uses. To be called after each call until it
    /// returns `None`.
    pub(crate) fn take_ended(&mut self) -> Option<EndedLookup<F>> {
        self.ended.pop()
    }

    /// The deadline of a start that can be accepted.
    fn admit(
        &self,
        now: Instant,
        terms: &StartTerms,
        objection: Result<(), RefusalReason>,
    ) -> Result<Instant, RefusalReason> {
        if self.tags.contains_key(&terms.tag) {
            return Err(RefusalReason::TagInUse);
        }
        if self.tags.len() >= self.config.max_running + self.config.max_waiting {
            return Err(RefusalReason::Full);
        }
        objection?;
        deadline::of_operation(now, terms.deadline, terms.timeout).ok_or(RefusalReason::DeadlinePassed)
    }

    /// Stops an operation that is a side effect: a lookup of the routing maintenance.
    pub(crate) fn stop_internal<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
    ) {
        self.end_operation(call, id, Outcome::Stopped);
    }

    /// Stops an operation of the caller's. If it is not live, its id is counted as unknown.
    pub(crate) fn stop<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
    ) {
        let is_live = |operation: &Operation<F, T>| operation.initiator == Initiator::Operation(id);
        if self.operations.get(id.handle()).is_some_and(is_live) {
            self.end_operation(call, id, Outcome::Stopped);
        } else {
            call.requests.count_unknown_operation();
        }
    }

    /// Handles the answer to a live request of an operation; `ending` says whether it came in full.
    #[inline(always)]
    #[allow(clippy::inline_always)] // measured: what is rare and calls it too must not keep it out of its usual caller
    pub(crate) fn answered<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        request: RequestId,
        answer: Answer<F>,
        ending: Ending,
    ) {
        self.blocked.set_precedence(call.requests);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let status = operation.answered(call, request, answer, ending);
            self.apply_status(call, id, status);
        }
    }

    /// Handles the failure or the rejection of a live request of an operation.
    pub(crate) fn failed<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        request: RequestId,
        failure: Failure<F>,
    ) {
        self.blocked.set_precedence(call.requests);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let status = operation.failed(call, request, failure);
            self.apply_status(call, id, status);
        }
    }

    /// A request of an operation that waits is not to be sent: its node is banned.
    pub(crate) fn refuse_waiting<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        request: RequestId,
    ) {
        self.blocked.set_precedence(call.requests);
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let status = operation.refuse_waiting(call, request);
            self.apply_status(call, id, status);
        }
    }

    /// Visits all nodes that the operations hold.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.operations.iter().for_each(|operation| operation.visit_nodes(visit));
    }

    /// Handles the earliest timer that is due, of an operation or of a request; `None` if none is due. At the same
    /// instant, operations come first: a request whose deadline is that of its operation does not time out
    /// (deadline rule 6).
    pub(crate) fn elapse<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) -> Option<TimeEffect<F>> {
        let request_timer = call.requests.next_timeout().filter(|at| *at <= call.now);
        let operation_timer = self.timers.peek().filter(|(at, _)| *at <= call.now);
        if let Some((at, slot)) = operation_timer
            && request_timer.is_none_or(|timer| at <= timer)
        {
            let (id, is_over) = self.operations.at(slot).map(|(_, op)| (op.id, op.deadline <= at))?;
            if is_over {
                self.end_operation(call, id, Outcome::DeadlineExceeded);
            } else {
                if let Some(operation) = self.operations.at_mut(slot) {
                    self.timers.set(slot, operation.elapse(call));
                }
                self.resume(call, slot, Operation::advance);
            }
            return Some(TimeEffect::Internal);
        }
        self.blocked.set_precedence(call.requests);
        let due = call.requests.expire(call.now)?;
        let (Expired::InLine { request: due_id, .. }
        | Expired::Soft { request: due_id, .. }
        | Expired::Repeat(due_id)
        | Expired::Silent { request: due_id, .. }
        | Expired::Hard(due_id)
        | Expired::Hopeless(due_id)
        | Expired::TooBusy(due_id)
        | Expired::GivenUp(due_id)) = due;
        let request = call.requests.get(due_id)?;
        let asked = match request.purpose {
            Purpose::Operation(asked) => asked,
            Purpose::Check(_) if matches!(due, Expired::Hard(_)) => return Some(TimeEffect::Check(due_id)),
            Purpose::Check(_) => return Some(TimeEffect::SlowCheck(due_id)),
            Purpose::Listening(listener) => return Some(self.listened_in_vain(call, listener, due_id)),
        };
        if matches!(due, Expired::Hard(_)) && request.is_answered_in_part() && !request.bound_by_operation() {
            return Some(TimeEffect::Incomplete(due_id));
        }
        let id = asked.operation;
        let operation = self.operations.get_mut(id.handle())?;
        let effect = match due {
            // If two requests to the node are in flight, only the time-out of the last one counts as a failure.
            Expired::Hard(_)
                if !request.bound_by_operation()
                    && operation.is_only_request(call.requests, due_id, asked) =>
            {
                TimeEffect::TimedOut(request.node.clone(), operation.detached_context(&call.cause))
            }
            _ => TimeEffect::Internal,
        };
        let status = operation.expire_request(call, due);
        self.apply_status(call, id, status);
        Some(effect)
    }

    /// A request that was listened to has reached its deadline.
    fn listened_in_vain<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        listener: u32,
        request: RequestId,
    ) -> TimeEffect<F> {
        let Some(pending) = call.requests.get(request) else { return TimeEffect::Internal };
        if pending.bound_by_operation() {
            // It had no more time because its operation had not: no failure of the node (deadline rule 6).
            self.end_listening(call, listener, request, Ending::Cancelled);
            return TimeEffect::Internal;
        }
        if pending.is_answered_in_part() {
            return TimeEffect::Incomplete(request);
        }
        match self.end_listening(call, listener, request, Ending::TimedOut) {
            Some((node, context)) => TimeEffect::TimedOut(node, context),
            None => TimeEffect::Internal,
        }
    }

    /// A request that was listened to has ended. Returns its node, and the context of the side effects that follow.
    pub(crate) fn end_listening<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        number: u32,
        request: RequestId,
        ending: Ending,
    ) -> Option<(F::Node, Context)> {
        let listener = self.listeners.get_mut(number as usize)?;
        let ended = listener.end(call, request, ending)?;
        let context = listener.context(&call.cause);
        if listener.waits_for == 0 {
            self.listeners.remove(number as usize);
        }
        Some((ended.node, context))
    }

    /// The ended operation that a listener listens for.
    pub(crate) fn listens_for(&self, number: u32) -> Option<OperationId> {
        self.listeners.get(number as usize).map(|listener| listener.operation)
    }

    /// Handles a response, in a machine that has no liveness checks.
    pub(crate) fn respond<'a, E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        response: Response<F>,
        context: &'a Context,
    ) {
        call.receive(&response);
        let Response { request, result, .. } = response;
        let Some(pending) = call.requests.match_response(request) else { return };
        let had_parts = pending.is_answered_in_part();
        let purpose = pending.purpose;
        let result = match result {
            Ok(answer) if answer.is_part => {
                call.requests.keep_part(call.now, request, (call.arrived, call.dialed), answer.closer);
                return;
            }
            result => result,
        };
        let operation = match purpose {
            Purpose::Operation(OperationRequest { operation, .. }) => operation,
            Purpose::Listening(listener) => {
                if let Some(operation) = self.listens_for(listener) {
                    call.cause = Cause::event(operation, context);
                }
                let ending = if result.is_ok() { Ending::Answered } else { Ending::Failed };
                self.end_listening(call, listener, request, ending);
                return;
            }
            Purpose::Check(_) => return,
        };
        call.cause = Cause::event(operation, context);
        match result {
            Ok(mut answer) => {
                if had_parts {
                    call.requests.join_parts(request, &mut answer.closer);
                }
                self.answered(call, operation, request, answer, Ending::Answered);
            }
            Err(failure) => self.failed(call, operation, request, failure),
        }
    }

    /// Handles what was due, in a machine that has no liveness checks and no routing table. Returns whether anything
    /// was.
    pub(crate) fn elapse_all<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>) -> bool {
        let mut elapsed = false;
        while let Some(effect) = self.elapse(call) {
            elapsed = true;
            if let TimeEffect::Incomplete(request) = effect {
                self.incomplete(call, request);
            }
        }
        elapsed
    }

    /// The parts that have come are the answer to a request of an operation.
    #[cold]
    #[inline(never)]
    fn incomplete<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>, request: RequestId) {
        match call.requests.get(request).map(|known| known.purpose) {
            Some(Purpose::Operation(OperationRequest { operation, .. })) => {
                let answer = call.requests.take_parts(request);
                self.answered(call, operation, request, answer, Ending::Incomplete);
            }
            Some(Purpose::Listening(listener)) => {
                self.end_listening(call, listener, request, Ending::Incomplete);
            }
            Some(Purpose::Check(_)) | None => {}
        }
    }

    /// Does everything that can be done now: begins waiting operations, emits requests that the request queue
    /// releases, and retries blocked operations.
    ///
    /// The request queue is shared with the liveness checks of the routing table. If one of those is released, it
    /// is returned: the caller must send it, and call again until `None` is returned.
    #[must_use = "a check that was released has to be sent"]
    pub(crate) fn settle<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) -> Option<ReleasedCheck> {
        loop {
            if self.running < self.config.max_running
                && let Some((deadline, slot)) = self.waiting.first()
                && (self.running == 0 || !call.requests.is_backlogged(deadline))
            {
                self.begin_first(call, deadline, slot);
            } else if self.gives_up_turn(call) {
                // The turn is that of the next one.
            } else if let Some((request, deadline)) = call.requests.release(call.now) {
                match call.requests.get(request)?.purpose {
                    Purpose::Operation(OperationRequest { operation, .. }) => {
                        if let Some(operation) = self.operations.get_mut(operation.handle()) {
                            operation.send(call, request, deadline);
                        }
                    }
                    Purpose::Check(check) => return Some(ReleasedCheck { check, request, deadline }),
                    // Never released: it was sent long ago.
                    Purpose::Listening(_) => {}
                }
            } else if let Some(slot) = self.blocked.next_ready(call.requests) {
                self.resume(call, slot, Operation::advance);
            } else if !self.look_through_line(call) {
                return None;
            }
        }
    }

    /// Whether the operation whose request would be released next gives up that turn; then the request is closed.
    fn gives_up_turn<E>(&mut self, call: &mut CallContext<'_, F, E>) -> bool {
        let Some(request) = call.requests.next_turn() else { return false };
        let asked = call.requests.get(request).and_then(|request| request.purpose.operation()).copied();
        let operation = asked.and_then(|asked| self.operations.get_mut(asked.operation.handle()));
        operation
            .zip(asked)
            .is_some_and(|(operation, asked)| operation.gives_up_turn(call, request, asked.node))
    }

    /// The first in the line begins, unless it has come too late.
    fn begin_first<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        deadline: Instant,
        slot: u32,
    ) {
        let first = self
            .operations
            .at(slot)
            .map(|(_, operation)| (operation.id, operation.class(), operation.started()));
        let Some((id, class, started)) = first else { return };
        if self.waiting.is_too_late(call.now, (class, started), deadline) {
            return self.end_operation(call, id, Outcome::Overloaded);
        }
        self.waiting.begin(slot, class);
        self.running += 1;
        self.resume(call, slot, Operation::begin);
    }

    /// Whether it is time to look through the line of those that wait.
    pub(crate) fn is_look_due(&mut self, requests: &RequestQueue<F, Purpose>) -> bool {
        let (sent, live) = self.sent_and_live(requests);
        !self.waiting.is_empty() && self.waiting.is_look_due(sent, live)
    }

    /// How many requests have been sent; and how many operations run and requests are waited for.
    fn sent_and_live(&self, requests: &RequestQueue<F, Purpose>) -> (u64, u64) {
        let stats = requests.stats();
        (stats.sent, stats.in_flight - stats.listening + self.running as u64)
    }

    /// If it is time to, looks through the line of those that wait, and ends those that cannot be done in time. Returns whether
    /// there were any.
    fn look_through_line<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>) -> bool {
        if !self.is_look_due(call.requests) {
            return false;
        }
        let (sent, live) = self.sent_and_live(call.requests);
        let operations = &self.operations;
        let look = Look {
            running: operations.iter().filter_map(Operation::sent_so_far),
            waiting: |slot| operations.at(slot).map(|(_, waiting)| (waiting.class(), waiting.started())),
        };
        let too_late = self.waiting.look(call.now, (sent, live), look);
        for slot in &too_late {
            if let Some(id) = self.operations.at(*slot).map(|(_, operation)| operation.id) {
                self.end_operation(call, id, Outcome::Overloaded);
            }
        }
        !too_late.is_empty()
    }

    /// Calls an operation that may submit requests, and applies its status.
    fn resume<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        slot: u32,
        step: impl FnOnce(&mut Operation<F, T>, &mut CallContext<'_, F, E>) -> Status<F::Key>,
    ) {
        self.blocked.set_precedence(call.requests);
        if let Some(operation) = self.operations.at_mut(slot) {
            let (id, status) = (operation.id, step(operation, call));
            self.apply_status(call, id, status);
        }
    }

    /// Gives blocked operations precedence over what is submitted next, until this is called again.
    pub(crate) fn give_precedence<E>(&self, call: &mut CallContext<'_, F, E>) {
        self.blocked.set_precedence(call.requests);
    }

    /// The earliest timer of an operation.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|(at, _)| at)
    }

    /// The context of a side effect of a listener (context rule 4).
    pub(crate) fn listener_context(&self, cause: &OperationCause<'_>, number: u32) -> Option<Context> {
        self.listeners.get(number as usize).map(|listener| listener.context(cause))
    }

    /// The context of a side effect of a live operation (context rule 4).
    pub(crate) fn detached_context(&self, cause: &OperationCause<'_>, id: OperationId) -> Option<Context> {
        self.operations.get(id.handle()).map(|operation| operation.detached_context(cause))
    }

    /// Whether a live operation is a lookup of the node's own key.
    pub(crate) fn is_bootstrap(&self, id: OperationId) -> bool {
        self.operations.get(id.handle()).is_some_and(|operation| operation.bootstrap)
    }

    /// The caller's live operation with this tag.
    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.tags.get(&tag).copied()
    }

    /// The number of live crawls.
    pub(crate) const fn crawls(&self) -> usize {
        self.crawls
    }

    /// The hash for tables whose keys peers can choose.
    pub(crate) const fn hash(&self) -> SeededHash {
        self.hash
    }

    /// The node has another id, or another value of its family. Operations that live keep theirs.
    pub(crate) fn set_local(&mut self, local: LocalNode<F>) {
        self.local = local;
    }

    /// The node that the operations belong to.
    pub(crate) const fn local(&self) -> &LocalNode<F> {
        &self.local
    }

    /// The number of the caller's live operations, and how many of them run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.tags.len(), self.running)
    }

    /// Ends an operation, moves it to the background, or blocks it, as its status requires; then updates its
    /// timer.
    fn apply_status<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        status: Status<F::Key>,
    ) {
        let slot = id.handle().slot();
        match status {
            Status::Ends(outcome) => return self.end_operation(call, id, outcome),
            Status::Returns => return self.move_to_background(call, id),
            // Ordered by the same deadline as the request queue compares with the precedence deadline: the
            // operation that comes first here must not be rejected there.
            Status::Blocked { busy, until } => {
                let precedence = Precedence { deadline: until, arrival: id.handle().generation };
                self.blocked.insert(slot, precedence, busy, call.requests);
            }
            Status::Starved if self.feeds && self.is_fed(id) => self.starved.push(id),
            Status::Starved => return self.feed(call, id, Vec::new()),
            Status::Continues => {}
        }
        if let Some(operation) = self.operations.get_mut(id.handle()) {
            let timer = operation.timer();
            if timer != operation.armed_timer {
                operation.armed_timer = timer;
                self.timers.set(slot, timer);
            }
        }
    }

    /// Whether this operation is given further nodes to begin with: not the refreshes, of which the next asks others, so
    /// that a node that is cut off asks few.
    fn is_fed(&self, id: OperationId) -> bool {
        let initiator = self.operations.get(id.handle()).map(|operation| operation.initiator);
        initiator.is_some_and(|by| matches!(by, Initiator::Operation(_) | Initiator::Bootstrap))
    }

    /// Takes an operation that has nobody left to ask, with the key that it wants the closest nodes of, and how many it
    /// has been given. The machine must then [feed](Self::feed) it.
    pub(crate) fn take_starved(&mut self) -> Option<(OperationId, F::Key, usize)> {
        while let Some(id) = self.starved.pop() {
            if let Some((key, given)) = self.operations.get(id.handle()).and_then(Operation::wants) {
                return Some((id, key, given));
            }
        }
        None
    }

    /// Gives an operation further nodes to begin with.
    pub(crate) fn feed<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        seeds: Vec<F::Node>,
    ) {
        self.resume(call, id.handle().slot(), |operation, call| operation.feed(call, seeds));
    }

    /// Finishes an operation for the caller. Its remaining work goes on as a side effect, if the limits of the
    /// background allow it; else the operation ends.
    fn move_to_background<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
    ) {
        let Background { max_requests, timeout, granted_requests } = self.background;
        let deadline = deadline::of_operation(call.now, None, timeout);
        let Some(operation) = self.operations.get_mut(id.handle()) else { return };
        let remaining = operation.remaining_requests();
        let Some(deadline) =
            deadline.filter(|_| remaining > 0 && granted_requests + remaining <= max_requests)
        else {
            return self.end_operation(call, id, Outcome::Complete);
        };
        if let Some(work) = operation.finished_work(call.now, Outcome::Complete) {
            self.waiting.ended(call.now, work);
        }
        operation.enter_background(call, Outcome::Complete, deadline);
        self.background.granted_requests += remaining;
        self.tags.remove(&id.tag());
        self.running -= 1;
        self.resume(call, id.handle().slot(), Operation::advance);
    }

    /// Removes an operation from the pool. Every operation ends here: when it is done, at its deadline, when it is stopped, or
    /// when it cannot be done in time.
    fn end_operation<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: OperationId,
        outcome: Outcome,
    ) {
        let slot = id.handle().slot();
        let Some(mut operation) = self.operations.remove(id.handle()) else { return };
        self.timers.clear(slot);
        self.blocked.remove(slot, call.requests);
        match operation.initiator {
            Initiator::Operation(_) => {
                self.tags.remove(&id.tag());
                if !self.waiting.leave(slot) {
                    self.running -= 1;
                    if let Some(work) = operation.finished_work(call.now, outcome) {
                        self.waiting.ended(call.now, work);
                    }
                }
            }
            Initiator::Background => self.background.granted_requests -= operation.granted_requests,
            _ => {}
        }
        self.crawls -= usize::from(operation.is_crawl());
        let number = self.listeners.vacant_key();
        let listener = u32::try_from(number).ok().and_then(|slot| operation.listen_on(call, outcome, slot));
        if let Some(listener) = listener {
            self.listeners.insert(listener);
        }
        self.ended.extend(operation.finish(call, outcome));
    }
}
