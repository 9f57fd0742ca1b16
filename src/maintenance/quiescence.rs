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
use crate::network_size::watch::SizeWatch;
use crate::operations::pool::{OperationPool, TimeEffect};
use crate::operations::task::EmitsOperation;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{OperationRequest, Purpose};
use crate::requests::request_queue::{Ending, RequestQueue};
use crate::routing::Routing;
use crate::routing::events::{DueLookup, EmitsRouting};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{Contact, EndedLookup, Outcome, Start};
use crate::vocabulary::request_events::{Answer, Failure, Response};
use crate::vocabulary::time::{Instant, earlier};

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
        self.routing.start_schedules(call.now);
        let mut elapsed = self.routing.next_timeout().is_some_and(|at| at <= call.now);
        while let Some(effect) = self.operations.elapse(call) {
            elapsed = true;
            match effect {
                TimeEffect::TimedOut(node, link) => self.routing.report_failure(call, &node, || link),
                TimeEffect::Check(request) => {
                    self.routing.check_ended(call, request, Ending::TimedOut, false, None);
                }
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
        // In order of priority: each step may make an earlier one possible again.
        loop {
            if let Some(check) = self.operations.settle(call) {
                self.routing.send_check(call, check);
            } else if let Some(ended) = self.operations.take_ended() {
                self.lookup_ended(call, ended);
            } else if let Some(due) = self.routing.due_lookup(call.now) {
                self.begin_lookup(call, due);
            } else {
                break;
            }
        }
        // Operations that wait for space in the request queue go before new checks.
        self.operations.give_precedence(call);
        self.routing.advance_checks(call);
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
        if ended.outcome == Outcome::Converged && !ended.closest.is_empty() {
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
            size.sample(now, target, closest, fill, context);
        }
    }

    /// Starts a lookup of the caller's, from its seeds and the closest nodes of the table. A bootstrap replaces
    /// an automatic one.
    pub(crate) fn start_lookup<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        start: Stamped<Start<F>>,
    ) {
        let Self { operations, routing, query, .. } = self;
        let mut replaced = None;
        operations.start_lookup(call, start, query, |start| replaced = routing.seed_lookup(start));
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

    /// Handles the result of a request: first the routing table learns about the node, then the operation or
    /// the check continues.
    pub(crate) fn respond<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        response: Response<F>,
        context: &'a Context,
    ) {
        let Response { request, result } = response;
        match result {
            Ok(answer) => self.answered(call, request, answer, context),
            Err(failure) => self.failed(call, request, failure, context),
        }
    }

    /// A request was answered. The node may enter the table if its answer names a node, or if it is a seed of a
    /// bootstrap.
    fn answered<'a, E: EmitsRouting<F> + EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'a, F, E>,
        request: RequestId,
        answer: Answer<F>,
        context: &'a Context,
    ) {
        let Self { operations, routing, .. } = self;
        let now = call.now;
        let Some(pending) = call.requests.match_response(request) else { return };
        let Purpose::Operation(op_request) = pending.purpose else {
            let names_nodes = !answer.closer.is_empty();
            routing.check_ended(call, request, Ending::Answered, names_nodes, Some(context));
            routing.offer_candidates(now, &answer.closer, || context::detached(context));
            return;
        };
        let (id, round_trip) = (op_request.operation, Some(pending.age(now)));
        // Seeds of a bootstrap were chosen by the caller, and may know no node yet.
        let qualifies =
            routing.qualifies(&answer.closer) || (op_request.is_seed() && operations.is_bootstrap(id));
        let is_new = !routing.refresh(now, &pending.node, round_trip) && qualifies;
        let newcomer = (is_new && routing.would_admit(&pending.node)).then(|| pending.node.clone());
        call.cause = Cause::event(id, context);
        let cause = call.cause;
        let link = || operations.detached_context(&cause, id).unwrap_or(Context::NONE);
        if let Some(node) = newcomer {
            routing.offer_live(call, &node, round_trip, link);
        }
        routing.offer_candidates(now, &answer.closer, link);
        operations.answered(call, id, request, answer);
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
        let now = call.now;
        let Some(pending) = call.requests.match_response(request) else { return };
        let Purpose::Operation(OperationRequest { operation: id, .. }) = pending.purpose else {
            routing.check_ended(call, request, Ending::Failed, false, Some(context));
            return;
        };
        let (node, round_trip) = (pending.node.clone(), pending.age(now));
        call.cause = Cause::event(id, context);
        let cause = call.cause;
        match &failure {
            // A node that rejects a request is live.
            Failure::Rejected(_) => {
                routing.refresh(now, &node, Some(round_trip));
            }
            Failure::Failed => {
                routing.report_failure(call, &node, || {
                    operations.detached_context(&cause, id).unwrap_or(Context::NONE)
                });
            }
        }
        operations.failed(call, id, request, failure);
    }

    /// The next time at which there is something to do without another event.
    pub(crate) fn poll_timeout(&self, requests: &RequestQueue<F, Purpose>) -> Option<Instant> {
        let operations = earlier(self.operations.next_deadline(), requests.next_timeout());
        earlier(self.routing.next_timeout(), operations)
    }
}
