//! [`Engine`]: operations and the routing table of one node, and the loop that runs them to quiescence.
//!
//! A machine ([`Coordinator`](crate::Coordinator), [`Maintenance`](crate::Maintenance)) handles each inbound
//! event in three steps:
//!
//! 1. [`elapse`](Engine::elapse): do everything that was due before the event.
//! 2. The event: [`start_lookup`](Engine::start_lookup), [`stop`](Engine::stop), [`respond`](Engine::respond),
//!    or `Routing::handle`.
//! 3. [`settle`](Engine::settle): do everything that can be done without another event and without more time.
//!
//! Operations know no routing table, and routing knows no operations. What one of them learns, this file
//! passes to the other:
//!
//! | source | what happened | effect |
//! | --- | --- | --- |
//! | operations | a node answered, and named others | routing refreshes it or offers it to the table, and queues the named nodes for include |
//! | operations | a request timed out or failed | routing makes the node's probe due |
//! | operations | a bootstrap or a refresh ended | routing schedules what follows, and the network's size is sampled |
//! | routing | a bootstrap or a refresh is due | operations begin its lookup |
//! | request queue | it releases the request of a check | routing sends it |

use crate::context;
use crate::context::{Cause, Context};
use crate::lookups::config::QueryConfig;
use crate::lookups::lookup_task::LookupCapable;
use crate::maintenance::known_size::known_size;
use crate::network_size::watch::SizeWatch;
use crate::operations::pool::{OperationPool, TimeEffect};
use crate::operations::task::EmitsOperation;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{OperationRequest, Purpose};
use crate::requests::request_queue::{Ending, PendingRequest, RequestQueue};
use crate::routing::Routing;
use crate::routing::events::{DueLookup, EmitsRouting, RoutingInbound};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{Contact, EndedLookup, Start};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::{Answer, Ask, Failure, Response};
use crate::vocabulary::time::{Instant, earlier};

/// How many nodes of the table a lookup gets at a time that has nobody left to ask, after the closest ones.
const FURTHER_SEEDS: usize = 40;

/// The operations and the routing table of one node. `T` is the task of its operations: a lookup, or several
/// kinds.
#[derive(Clone, Debug)]
pub(crate) struct Engine<F: Family, T> {
    pub(crate) operations: OperationPool<F, T>,
    pub(crate) routing: Routing<F>,
    /// Configuration of the lookups.
    pub(crate) query: QueryConfig,
    /// Samples the network's size; `None` if it is not estimated.
    pub(crate) size_watch: Option<SizeWatch<F>>,
}

impl<F: Family, T: LookupCapable<F>> Engine<F, T> {
    /// Does everything that was due by `call.now`, and what follows from it, before the event is handled.
    pub(crate) fn elapse<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) {
        let Self { operations, routing, .. } = self;
        routing.called(call.now, |routing| {
            let operations = earlier(operations.next_deadline(), call.requests.next_timeout());
            earlier(routing.next_timeout(), operations)
        });
        self.routing.start_schedules(call.now);
        let mut elapsed = self.routing.next_timeout().is_some_and(|at| at <= call.now);
        while let Some(effect) = self.operations.elapse(call) {
            elapsed = true;
            match effect {
                TimeEffect::TimedOut(node, link) => self.routing.report_failure(call, &node, || link),
                TimeEffect::Incomplete(request) => self.incomplete(call, request),
                TimeEffect::Check(request) => self.check_timed_out(call, request),
                TimeEffect::SlowCheck(request) => self.routing.check_slow(call, request),
                TimeEffect::Internal => {}
            }
        }
        if elapsed {
            self.settle(call);
        }
    }

    /// Runs to quiescence: does everything that can be done without another event and without more time.
    pub(crate) fn settle<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) {
        loop {
            self.settle_operations(call);
            // Operations that wait for space in the request queue go before new checks.
            self.operations.give_precedence(call);
            self.routing.advance_checks(call);
            // The requests of checks count as well: what they decide is not left for the next call.
            if !self.operations.is_look_due(call.requests) {
                break;
            }
        }
    }

    /// The same, but begins no new checks.
    fn settle_operations<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
    ) {
        // In order of priority: each step may make an earlier one possible again.
        loop {
            if let Some(check) = self.operations.settle(call) {
                self.routing.send_check(call, check);
            } else if let Some((id, key, given)) = self.operations.take_starved() {
                let further = self.routing.table.closest(key).skip(given).take(FURTHER_SEEDS);
                let further = further.map(|entry| entry.node().clone()).collect();
                self.operations.feed(call, id, further);
            } else if let Some(ended) = self.operations.take_ended() {
                self.lookup_ended(call, ended);
            } else if let Some(due) = self.routing.due_lookup(call.now) {
                self.begin_lookup(call, due);
            } else {
                break;
            }
        }
    }

    /// Begins a lookup that routing maintenance wants.
    fn begin_lookup<E: EmitsOperation<F, T>>(&mut self, call: &mut CallContext<'_, F, E>, due: DueLookup<F>) {
        let DueLookup { initiator, target, seeds, timeout, link } = due;
        let start = Start::find(0, target).with_seeds(seeds);
        let operation = self.operations.begin_lookup(call, initiator, timeout, link, start, &self.query);
        self.routing.lookup_began(call.now, initiator, operation);
    }

    /// A lookup of the maintenance has ended, or a bootstrap of the caller's.
    fn lookup_ended<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>, ended: EndedLookup<F>) {
        if ended.outcome.shows_density() && !ended.closest.is_empty() {
            self.sample_size(call.now, ended.target, &ended.closest, &ended.context);
        }
        self.routing.lookup_ended(call, ended);
    }

    /// Samples the size of the network from a lookup that has converged.
    pub(crate) fn sample_size(
        &mut self,
        now: Instant,
        target: F::Key,
        closest: &[Contact<F>],
        context: &Context,
    ) {
        let table = &self.routing.table;
        let fill = table.bucket(table.local().common_prefix_len(&target)).len();
        if let Some(size) = &mut self.size_watch {
            size.sample(now, target, closest, fill, context, |size| {
                let answered = table.closest(table.local()).filter(|entry| entry.is_verified());
                size.observe_neighbourhood(&table.local(), answered.map(|entry| F::key(entry.node())));
            });
        }
    }

    /// The size of the network as a lookup of the caller's needs it, and whether `beta` does not cut it: as long as the size is to
    /// be estimated and not known, because only a lookup that ends by itself shows it.
    fn lookup_terms(&self, now: Instant, start: &Start<F>) -> (Option<KnownSize>, bool) {
        let asks_in_region = start.ask != Ask::FindCloser && self.query.regions;
        if !asks_in_region && self.query.beta.is_none() {
            return (None, false);
        }
        let estimate = self.size_watch.as_ref().map(|size| size.estimate(now));
        let is_wanted = estimate.as_ref().is_some_and(Result::is_err);
        let estimate = estimate.and_then(Result::ok).map(|estimate| estimate.nodes());
        let size = || known_size(&self.routing.table, estimate, self.query.k);
        (if asks_in_region { size() } else { None }, is_wanted)
    }

    /// Starts a lookup of the caller's, from its seeds and the closest nodes of the table. A bootstrap replaces
    /// an automatic one.
    pub(crate) fn start_lookup<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        start: Stamped<Start<F>>,
    ) {
        let terms = self.lookup_terms(call.now, &start.event);
        let Self { operations, routing, query, .. } = self;
        let mut replaced = None;
        let now = call.now;
        operations.start_lookup(
            call,
            start,
            query,
            |start| replaced = routing.seed_lookup(now, start),
            terms,
        );
        if let Some(id) = replaced {
            operations.stop_internal(call, id);
        }
    }

    /// Ends an operation of the caller's.
    pub(crate) fn stop<'a, E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        id: OperationId,
        context: &'a Context,
    ) {
        call.cause = Cause::event(id, context);
        self.operations.stop(call, id);
    }

    /// The request of a liveness check has reached its deadline. If parts of the answer came, they are the answer.
    fn check_timed_out<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        request: RequestId,
    ) {
        if call.requests.get(request).is_some_and(PendingRequest::is_answered_in_part) {
            self.incomplete(call, request);
        } else {
            self.routing.check_ended(call, request, Ending::TimedOut, false, None);
        }
    }

    /// The last part of an answer did not come in time: the parts that have come are the answer.
    #[cold]
    #[inline(never)]
    fn incomplete<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        request: RequestId,
    ) {
        let answer = call.requests.take_parts(request);
        self.answered(call, request, answer, Ending::Incomplete, None);
    }

    /// Handles the result of a request: first the routing table learns about the node, then the operation or
    /// the check continues.
    pub(crate) fn respond<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        response: Response<F>,
        context: &'a Context,
    ) {
        call.receive(&response);
        let Response { request, result, .. } = response;
        let Some(pending) = call.requests.match_response(request) else { return };
        match result {
            Ok(answer) if answer.is_part => {
                // It is live. Whether it serves is known when the answer is complete.
                self.routing.refresh(call.now, &pending.node, None);
                call.requests.keep_part(call.now, request, (call.arrived, call.dialed), answer.closer);
            }
            Ok(mut answer) => {
                if pending.is_answered_in_part() {
                    call.requests.join_parts(request, &mut answer.closer);
                }
                self.answered(call, request, answer, Ending::Answered, Some(context));
            }
            Err(failure) => self.failed(call, request, failure, context),
        }
    }

    /// A request was answered; `ending` says whether in full, and `context` is that of the inbound event, if there is
    /// one. The node may enter the table if its answer names a node, or if it is a seed of a bootstrap.
    #[inline(always)]
    #[allow(clippy::inline_always)] // measured: what is rare and calls it too must not keep it out of its usual caller
    fn answered<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        request: RequestId,
        mut answer: Answer<F>,
        ending: Ending,
        context: Option<&'a Context>,
    ) {
        let Self { operations, routing, .. } = self;
        let now = call.now;
        let Some(pending) = call.requests.get(request) else { return };
        let op_request = match pending.purpose {
            Purpose::Operation(op_request) => op_request,
            Purpose::Listening(listener) => {
                return self.answered_late(call, listener, request, &answer, ending, context);
            }
            Purpose::Check(_) => {
                let names_nodes = !answer.closer.is_empty();
                let by = routing.origin_of_answer(pending);
                let link = routing.check_ended(call, request, ending, names_nodes, context);
                routing
                    .offer_candidates(call, &answer.closer, by, || context.map_or(link, context::detached));
                return;
            }
        };
        let (id, round_trip, by) =
            (op_request.operation, call.round_trip(pending), routing.origin_of_answer(pending));
        // Seeds of a bootstrap were chosen by the caller, and may know no node yet.
        let qualifies =
            routing.qualifies(&answer.closer) || (op_request.is_seed() && operations.is_bootstrap(id));
        let is_new = !routing.refresh(now, &pending.node, round_trip) && qualifies;
        if is_new && !answer.closer.is_empty() {
            routing.serves_again(&pending.node);
        }
        let watched = routing.is_watching(now).then(|| pending.node.clone());
        let newcomer = (is_new && routing.would_admit(&pending.node)).then(|| pending.node.clone());
        if let Some(context) = context {
            call.cause = Cause::event(id, context);
        }
        let cause = call.cause;
        let link = || operations.detached_context(&cause, id).unwrap_or(Context::NONE);
        if let Some(node) = watched {
            routing.heard(call, &node, link);
        }
        if let Some(node) = newcomer {
            routing.offer_live(call, &node, round_trip, link);
        }
        routing.offer_candidates(call, &answer.closer, by, link);
        routing.correct(&mut answer.closer);
        operations.answered(call, id, request, answer, ending);
    }

    /// A request was answered whose lookup has ended: the routing table learns of the node and of those that it names.
    #[cold]
    #[inline(never)]
    fn answered_late<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        listener: u32,
        request: RequestId,
        answer: &Answer<F>,
        ending: Ending,
        context: Option<&'a Context>,
    ) {
        let Self { operations, routing, .. } = self;
        let Some((operation, pending)) = operations.listens_for(listener).zip(call.requests.get(request))
        else {
            return;
        };
        let (node, round_trip) = (pending.node.clone(), call.round_trip(pending));
        let by = routing.origin_of_answer(pending);
        if let Some(context) = context {
            call.cause = Cause::event(operation, context);
        }
        let Some((_, link)) = operations.end_listening(call, listener, request, ending) else { return };
        routing.heard(call, &node, || link.clone());
        let is_new = !routing.refresh(call.now, &node, round_trip) && routing.qualifies(&answer.closer);
        if is_new && !answer.closer.is_empty() {
            routing.serves_again(&node);
        }
        if is_new && routing.would_admit(&node) {
            routing.offer_live(call, &node, round_trip, || link.clone());
        }
        routing.offer_candidates(call, &answer.closer, by, || link);
    }

    /// A request failed, or the node rejected it.
    fn failed<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        request: RequestId,
        failure: Failure<F>,
        context: &'a Context,
    ) {
        let Self { operations, routing, .. } = self;
        let Some(pending) = call.requests.get(request) else { return };
        let node = pending.node.clone();
        let (id, listener) = match pending.purpose {
            Purpose::Operation(OperationRequest { operation, .. }) => (operation, None),
            Purpose::Listening(number) => match operations.listens_for(number) {
                Some(operation) => (operation, Some(number)),
                None => return,
            },
            Purpose::Check(_) => {
                let is_gone = failure == Failure::Gone && routing.was_asked_where_it_is(&node);
                routing.check_ended(call, request, Ending::Failed, false, Some(context));
                if is_gone {
                    // A candidate stays: it waits only if it has told where it is since its check began.
                    routing.gone_from_table(call, &node, || context::detached(context));
                }
                return;
            }
        };
        let round_trip = call.round_trip(pending);
        call.cause = Cause::event(id, context);
        let cause = call.cause;
        let link = || match listener {
            Some(number) => operations.listener_context(&cause, number),
            None => operations.detached_context(&cause, id),
        };
        let link = || link().unwrap_or(Context::NONE);
        let failure_of_entry = routing.was_asked_where_it_is(&node);
        match &failure {
            // A node that rejects a request is live.
            Failure::Rejected(_) => {
                routing.refresh(call.now, &node, round_trip);
                routing.heard(call, &node, link);
            }
            Failure::Failed | Failure::Unreachable => routing.report_failure(call, &node, link),
            // It was asked where others say that it is: this says nothing about it.
            Failure::ConnectionRefused | Failure::Gone if !failure_of_entry => {
                routing.report_failure(call, &node, link);
            }
            // No lost message: there is nothing to check first.
            Failure::ConnectionRefused => routing.count_failure(call, &node, link),
            Failure::Gone => routing.gone(call, &node, link),
        }
        match listener {
            Some(number) => {
                operations.end_listening(call, number, request, Ending::Failed);
            }
            None => operations.failed(call, id, request, failure),
        }
    }

    /// Handles what the driver reports about nodes and about this one.
    pub(crate) fn routing_event<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        event: RoutingInbound<F>,
        context: &Context,
    ) {
        // The node that is asked no more; or, without a node, any may be.
        let refused = match &event {
            RoutingInbound::Banned { node, .. } | RoutingInbound::Gone(node) => Some(Some(node.clone())),
            RoutingInbound::Family(_) | RoutingInbound::Identity(_) => Some(None),
            _ => None,
        };
        self.routing.handle(call, event, context);
        let Some(refused) = refused else { return };
        if refused.is_none() {
            self.operations.set_local(self.routing.local_node().clone());
        }
        let waiting = call.requests.waiting_for(|node| match &refused {
            Some(refused) => node == refused,
            None => !self.routing.local_node().family.admits(node) || call.requests.is_banned(call.now, node),
        });
        self.refuse_waiting(call, waiting, context);
    }

    /// Drops requests that wait: for their operations and checks they have failed.
    fn refuse_waiting<E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        waiting: Vec<RequestId>,
        context: &Context,
    ) {
        for id in waiting {
            match call.requests.get(id).and_then(|request| request.purpose.operation()) {
                Some(asked) => {
                    let operation = asked.operation;
                    self.operations.refuse_waiting(call, operation, id);
                }
                None => {
                    self.routing.check_ended(call, id, Ending::Cancelled, false, Some(context));
                }
            }
        }
    }

    /// Sets the value of the family, before the first event.
    pub(crate) fn set_family(&mut self, family: F) {
        self.routing.table.set_family(family);
        self.operations.set_local(self.routing.local_node().clone());
    }

    /// Visits all nodes that operations and routing hold.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.routing.visit_nodes(visit);
        self.operations.visit_nodes(visit);
    }

    /// The next time at which there is something to do without another event.
    pub(crate) fn poll_timeout(&self, requests: &RequestQueue<F, Purpose>) -> Option<Instant> {
        let operations = earlier(self.operations.next_deadline(), requests.next_timeout());
        earlier(self.routing.next_timeout(), operations)
    }
}
