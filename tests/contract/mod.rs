//! The contract of operations, as a checker over any sequence of events: [`ContractChecker::call`] passes each
//! inbound event to a machine that runs operations, and asserts on every outbound event and after every call what
//! must hold for any operation of any kind.
//!
//! The checker keeps its own model of each live operation, of the requests in flight and of the routing table, and
//! compares what the machine emits with it. Each assertion's message names the rule: the context and deadline
//! rules by their number in the modules `context` and `deadline` (`context 3`, `deadline 5`), the others by name.
//! Which requests an operation of a given kind may send, and what it must report, is checked by the
//! [`OperationModel`] of that kind; [`expected_start`] maps each start to its model.
//!
//! - [`test_family`]: the key and node types of the scenarios, and random keys and contexts.
//! - [`machine_under_test`]: the machines behind one trait; all take the coordinator's events, which are a
//!   superset.
//! - [`call_invariants`]: what holds between calls: the routing table, the order of running, counters, limits, the
//!   wake-up.
//! - [`operation_model`]: the trait of the models: [`lookup_model`] (over [`candidate_model`]), [`crawl_model`],
//!   [`broadcast_model`].
//! - [`background_operations`]: what an optimistic broadcast still does after its finish.

#![allow(dead_code)] // each test binary uses a part of it

mod background_operations;
pub(crate) mod broadcast_model;
mod call_invariants;
pub(crate) mod candidate_model;
pub(crate) mod crawl_model;
pub(crate) mod lookup_model;
pub(crate) mod machine_under_test;
pub(crate) mod operation_model;
pub(crate) mod test_family;

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::network_size::NotEnoughData;
use kad_proto::routing::table::Offered;
use kad_proto::{
    Bits, Cancel, CancelReason, Config, Context, Failure, Initiator, Instant, OperationId, OperationStats,
    Outcome, Progress, RefusalReason, Request, RequestId, RequestOutcome, RequestStats, Response,
    RoutingConfig, RoutingInbound, RoutingOutbound, RoutingTable, Secret, Stamped,
};
use machine_under_test::{In, MachineUnderTest, Out};
use opentelemetry::trace::SpanContext;
use operation_model::{
    ExpectedStart, NodeState, OperationModel, RequestEnd, RequestSent, expected_start, finish_of, progress_of,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use test_family::{Net, Peer, Tally};

/// A live operation, or one that goes on in the background after its finish.
pub(crate) struct TrackedOperation<const N: usize> {
    /// The span context of its start.
    start_context: SpanContext,
    deadline: Instant,
    arrival: u64,
    running: bool,
    /// It was allowed to run, and its model has begun.
    has_begun: bool,
    stats: OperationStats,
    pub(crate) model: Box<dyn OperationModel<N>>,
    /// Its requests are being cancelled because it ends: only cancels and the finish may follow.
    ending: bool,
    /// The request that was just cancelled as timed out: the next event must be its progress.
    unreported_timeout: Option<(RequestId, RequestInFlight<N>)>,
    /// Requests to a node that has just answered another one: their cancels must come next.
    superseded: Vec<RequestId>,
}

/// A request in flight.
#[derive(Clone, Debug)]
pub(crate) struct RequestInFlight<const N: usize> {
    pub(crate) initiator: Initiator,
    pub(crate) node: Peer<N>,
    pub(crate) target: Bits<N>,
    pub(crate) hop: u32,
    pub(crate) at: Instant,
    soft: Option<Instant>,
    pub(crate) deadline: Instant,
    /// The time until which its answer is useful: the deadline of its operation, or of the lookup that it
    /// belongs to.
    useful_until: Instant,
    /// The finished operation that it belongs to, where it is known.
    background_of: Option<OperationId>,
}

pub(crate) struct ContractChecker<const N: usize> {
    config: Rc<Config>,
    local: Bits<N>,
    now: Instant,
    pub(crate) operations: BTreeMap<OperationId, TrackedOperation<N>>,
    /// Operations that go on after their finish.
    pub(crate) background: BTreeMap<OperationId, TrackedOperation<N>>,
    /// Bootstraps that have finished and whose `Bootstrapped` event is due.
    bootstraps: Vec<(OperationId, Outcome, OperationStats, Context)>,
    pub(crate) ended: BTreeSet<OperationId>,
    /// In flight, in the order of sending.
    pub(crate) requests: Vec<(RequestId, RequestInFlight<N>)>,
    pub(crate) closed: Vec<RequestId>,
    issued: BTreeSet<RequestId>,
    /// What the machine's counters must be; `queued` is left at zero.
    request_stats: RequestStats,
    /// No routing maintenance is configured, so that the events alone determine the table.
    maintenance_off: bool,
    /// What the coordinator's routing table must hold, if there is no maintenance.
    table: RoutingTable<Net<N>>,
    /// The nodes of the table by the `Admitted` and `Removed` events, in any case.
    members: Vec<Peer<N>>,
    accepted_starts: u64,
    pub(crate) tally: Tally,
}

/// One call that is being checked.
struct CheckedCall<'a, const N: usize> {
    now: Instant,
    event: &'a In<N>,
    /// The outbound events that time alone causes have been checked; the next ones follow from the inbound
    /// event.
    timers_ran: bool,
    /// The live operation that the inbound event belongs to, if it is still live after time has passed.
    cause: Option<OperationId>,
    /// The request in flight that the inbound event answers, if it is still in flight after time has passed.
    answered_request: Option<(RequestId, RequestInFlight<N>)>,
    /// The table after time has passed and before the inbound event, where there is one.
    table: Option<&'a RoutingTable<Net<N>>>,
    /// The estimated network size at that moment.
    size: Result<u64, NotEnoughData>,
    /// No request waited for capacity before or after the call.
    nothing_queued: bool,
    start_answered: bool,
    /// Changes of the table that are due so far.
    effects: Vec<Out<N>>,
    /// The operation that the answered request belongs to is not known.
    cause_ambiguous: bool,
    /// Deadline and arrival of the operations that were allowed to run and ended in this same call.
    ran_and_ended: Vec<(Instant, u64)>,
}

impl<const N: usize> TrackedOperation<N> {
    /// It is allowed to run, if it was not yet.
    fn begin(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.model.begin(now, self.deadline);
        }
    }
}

impl<const N: usize> ContractChecker<N> {
    pub(crate) fn new(local: Bits<N>, config: Config) -> Self {
        Self {
            local,
            now: Instant::ORIGIN,
            operations: BTreeMap::new(),
            background: BTreeMap::new(),
            bootstraps: Vec::new(),
            ended: BTreeSet::new(),
            requests: Vec::new(),
            closed: Vec::new(),
            issued: BTreeSet::new(),
            request_stats: RequestStats::default(),
            maintenance_off: config.routing == RoutingConfig::off(),
            table: RoutingTable::new(local, config.table.clone(), &Secret::from_seed(0)).unwrap(),
            members: Vec::new(),
            accepted_starts: 0,
            tally: Tally::new(),
            config: Rc::new(config),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// The deadline of an operation, if it is live.
    pub(crate) fn deadline(&self, operation: OperationId) -> Option<Instant> {
        self.operations.get(&operation).map(|operation| operation.deadline)
    }

    /// Whether lookups may ask about keys other than their target.
    pub(crate) fn probes_edge(&self) -> bool {
        self.config.query.edge_probing
    }

    /// k, and the highest number of results that a start may ask for.
    pub(crate) fn result_limits(&self) -> (usize, usize) {
        (self.config.query.k, self.config.query.max_candidates)
    }

    /// Passes the event to the machine and checks all outbound events.
    pub(crate) fn call<S: MachineUnderTest<N>>(
        &mut self,
        machine: &mut S,
        now: Instant,
        event: &In<N>,
    ) -> Vec<Out<N>> {
        let queued = machine.request_stats().queued;
        let mut ticked = machine.clone();
        let out = machine.handle(now, event.clone());
        let mut apart = ticked.handle(now, Stamped::new(Inbound::Tick));
        // This many events are caused by time; the rest follows from the inbound event.
        let times = apart.len();
        apart.extend(ticked.clone().handle(now, event.clone()));
        assert_eq!(out, apart, "order: time passes before the event is handled, as by a tick");
        // A clock reading earlier than the latest one is treated as the latest.
        self.now = self.now.max(now);
        for op in self.operations.values_mut().chain(self.background.values_mut()) {
            op.model.time_passes(self.now);
        }
        let mut call = CheckedCall {
            now: self.now,
            event,
            timers_ran: false,
            cause: None,
            answered_request: None,
            table: ticked.table(),
            size: ticked.size(self.now),
            nothing_queued: queued == 0 && machine.request_stats().queued == 0 && self.never_full(&out),
            start_answered: false,
            effects: Vec::new(),
            cause_ambiguous: false,
            ran_and_ended: Vec::new(),
        };
        for stamped in &out[..times] {
            self.check_event(&mut call, stamped);
        }
        self.assert_nothing_owed();
        self.start_waiting(&mut call);
        for op in self.operations.values_mut().chain(self.background.values_mut()) {
            op.model.due_work_done(call.now);
        }
        self.resolve_cause(&mut call);
        for stamped in &out[times..] {
            self.check_event(&mut call, stamped);
        }
        self.assert_nothing_owed();
        self.check_consequences(&mut call, &machine.request_stats());
        self.check_table(machine, &call, &out);
        self.start_waiting(&mut call);
        self.check_running(&out, machine);
        self.check_between_calls(machine);
        out
    }

    /// Time has passed; finds the operation and the request that the inbound event belongs to.
    fn resolve_cause(&mut self, call: &mut CheckedCall<'_, N>) {
        call.timers_ran = true;
        match &call.event.event {
            Inbound::Response(Response { request, .. }) => {
                call.answered_request = self.requests.iter().find(|(id, _)| id == request).cloned();
                call.cause = call.answered_request.as_ref().and_then(|(_, sent)| sent.initiator.operation());
                // No progress reports the end of a request that belongs to no operation.
                if call.answered_request.is_some() && call.cause.is_none() {
                    self.close_request(*request);
                    match call.event.event {
                        Inbound::Response(Response { result: Ok(_), .. }) => self.request_stats.answered += 1,
                        _ => self.request_stats.failed += 1,
                    }
                    self.count("side effect: response");
                    if let Some((id, sent)) = call
                        .answered_request
                        .clone()
                        .filter(|(_, sent)| sent.initiator == Initiator::Background)
                    {
                        call.answered_request = None;
                        self.check_background_response(call, id, &sent);
                    }
                }
            }
            Inbound::Stop(id) => {
                call.cause = self.operations.contains_key(id).then_some(*id);
            }
            _ => {}
        }
    }

    /// Whether all requests in flight and those of this call fit the limits at once, even if none had ended in
    /// between.
    fn never_full(&self, out: &[Out<N>]) -> bool {
        let new = out.iter().filter_map(|out| match &out.event {
            Outbound::Request(request) => Some(request.node.key),
            _ => None,
        });
        let all: Vec<_> = self.requests.iter().map(|(_, sent)| sent.node.key).chain(new).collect();
        let network = &self.config.network;
        let of_node = |key| all.iter().filter(|other| *other == key).count();
        all.len() <= network.max_in_flight && all.iter().all(|key| of_node(key) <= network.max_per_node)
    }

    fn check_event(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>) {
        if let Some(progress) = progress_of(&stamped.event) {
            return self.progress(call, stamped, progress);
        }
        if let Some((id, outcome, stats)) = finish_of(&stamped.event) {
            return self.finish(call, stamped, id, outcome, &stats);
        }
        match &stamped.event {
            Outbound::Started(started) => self.started(call, stamped, started.operation),
            Outbound::Refused(refused) => self.refused(call, stamped, refused.tag, refused.reason),
            Outbound::Request(request) => self.request(call, stamped, request),
            Outbound::Cancel(cancel) => self.cancel(call, stamped, cancel),
            Outbound::Routing(RoutingOutbound::Admitted(node)) => {
                assert_detached(stamped);
                assert!(!self.members.contains(node), "table: a node is admitted only if absent");
                self.members.push(*node);
            }
            Outbound::Routing(RoutingOutbound::Removed(node)) => {
                assert_detached(stamped);
                let place = self.members.iter().position(|member| member == node);
                self.members.remove(place.expect("table: a node is removed only if present"));
            }
            Outbound::NetworkSize { .. } => {
                assert_detached(stamped);
                self.count("network size");
            }
            Outbound::Routing(RoutingOutbound::Bootstrapped(notice)) => {
                let at = self.bootstraps.iter().position(|ended| {
                    notice.operation == Some(ended.0) && (notice.outcome, notice.stats) == (ended.1, ended.2)
                });
                let (.., context) = self.bootstraps.remove(
                    at.expect("bootstrapped: once for each bootstrap that finished, with its result"),
                );
                assert_eq!(
                    (&stamped.context, stamped.deadline),
                    (&context, None),
                    "context 4: `Bootstrapped` links to its operation and has no deadline"
                );
            }
            other => panic!("unknown event: {other:?}"),
        }
    }

    /// Rules 1, 2 and 3: the inbound event's context if it belongs to this operation and is valid, else that of
    /// its start.
    fn context(&self, call: &CheckedCall<'_, N>, operation: OperationId) -> SpanContext {
        let op = self.operations.get(&operation).or_else(|| self.background.get(&operation));
        let start_context = &op.expect("stamp: of a live or background operation").start_context;
        match &call.event.context {
            Context::Parent(span) if call.timers_ran && call.cause == Some(operation) && span.is_valid() => {
                span.clone()
            }
            _ => start_context.clone(),
        }
    }

    /// Checks the stamp of an event of a live operation, and that the event may come now.
    fn check_stamp(
        &mut self,
        call: &CheckedCall<'_, N>,
        stamped: &Out<N>,
        operation: OperationId,
        deadline: Option<Instant>,
    ) -> &mut TrackedOperation<N> {
        assert!(
            self.operations.contains_key(&operation),
            "deadline 7: nothing of an operation before its start or after its finish: {stamped:?}"
        );
        let expected = Context::Parent(self.context(call, operation));
        assert_eq!(stamped.context, expected, "context 1 to 3: {stamped:?} after {:?}", call.event);
        let op = self.operations.get_mut(&operation).unwrap();
        assert_eq!(
            stamped.deadline,
            Some(deadline.unwrap_or(op.deadline)),
            "stamp: the operation's deadline: {stamped:?}"
        );
        let last_words = matches!(stamped.event, Outbound::Cancel(_)) || finish_of(&stamped.event).is_some();
        assert!(
            !op.ending || last_words,
            "deadline 5: after cancelling for its end an operation only cancels and finishes: {stamped:?}"
        );
        let report = match (progress_of(&stamped.event), &op.unreported_timeout) {
            (Some(progress), Some((id, _))) => progress.id == *id,
            (_, unreported_timeout) => unreported_timeout.is_none(),
        };
        assert!(report, "progress: follows the cancel of a timed-out request at once: {stamped:?}");
        let gives_up =
            matches!(&stamped.event, Outbound::Cancel(cancel) if op.superseded.contains(&cancel.id));
        assert!(
            op.superseded.is_empty() || gives_up,
            "deadline 5: superseded requests are cancelled next: {stamped:?}"
        );
        op
    }

    fn started(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>, id: OperationId) {
        assert!(call.timers_ran, "deadline 7: a start is handled after time has passed");
        let config = Rc::clone(&self.config);
        let expected_start = expected_start(&call.event.event, &config).expect("started: only after a start");
        assert!(!call.start_answered, "deadline 7: a start is accepted or refused once");
        assert_eq!(
            self.refusal_reason(call, &expected_start),
            None,
            "deadline 7: a start that cannot be accepted is refused with its reason"
        );
        assert_eq!(id.tag(), expected_start.tag, "ids: an operation's id holds its tag");
        assert!(!self.operations.contains_key(&id) && !self.ended.contains(&id), "ids: never used twice");
        call.start_answered = true;
        let start_context = match &call.event.context {
            Context::Parent(span) if span.is_valid() => span.clone(),
            _ => SpanContext::NONE,
        };
        let latest = call.now + expected_start.timeout;
        let op = TrackedOperation {
            start_context,
            deadline: call.event.deadline.map_or(latest, |asked| asked.min(latest)),
            arrival: self.accepted_starts,
            running: false,
            has_begun: false,
            stats: OperationStats::default(),
            model: (expected_start.model)(&NodeState {
                local: self.local,
                table: call.table,
                size: call.size,
            }),
            ending: false,
            unreported_timeout: None,
            superseded: Vec::new(),
        };
        self.accepted_starts += 1;
        let deadline = op.deadline;
        self.operations.insert(id, op);
        self.check_stamp(call, stamped, id, Some(deadline)).stats.started = call.now;
        self.count("started");
    }

    /// Why a start cannot be accepted: the first reason in the order of checking.
    fn refusal_reason(
        &self,
        call: &CheckedCall<'_, N>,
        expected_start: &ExpectedStart<'_, N>,
    ) -> Option<RefusalReason> {
        let pool = &self.config.pool;
        let alike = self.operations.values().filter(|op| op.model.kind() == expected_start.kind).count();
        if self.operations.keys().any(|id| id.tag() == expected_start.tag) {
            Some(RefusalReason::TagInUse)
        } else if self.operations.len() >= pool.max_running + pool.max_waiting || alike >= expected_start.most
        {
            Some(RefusalReason::Full)
        } else if expected_start.refusal_reason.is_some() {
            expected_start.refusal_reason
        } else if call.event.deadline.is_some_and(|asked| asked <= call.now)
            || call.now == Instant::FAR_FUTURE
        {
            Some(RefusalReason::DeadlinePassed)
        } else {
            None
        }
    }

    fn refused(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>, tag: u64, reason: RefusalReason) {
        assert!(call.timers_ran, "deadline 7: a start is handled after time has passed");
        let config = Rc::clone(&self.config);
        let expected_start = expected_start(&call.event.event, &config).expect("refused: only after a start");
        assert!(!call.start_answered, "deadline 7: a start is accepted or refused once");
        assert_eq!(
            (tag, Some(reason)),
            (expected_start.tag, self.refusal_reason(call, &expected_start)),
            "deadline 7: refused with the first reason that applies"
        );
        assert_eq!(
            (&stamped.context, stamped.deadline),
            (&call.event.context, None),
            "stamp: a refusal has the start's context and no deadline"
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
            other => panic!("unknown reason: {other}"),
        });
    }

    fn request(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>, request: &Request<Net<N>>) {
        let network = self.config.network.clone();
        let deadline = stamped.deadline.expect("deadline 3: every request has a deadline");
        assert!(deadline > call.now, "deadline 3: no request is sent at or after its deadline");
        let own = call.now + network.request_timeout;
        let (mut soft, mut until, mut background_of) = (None, own, None);
        if let Some(id) = request.initiator.operation() {
            let op = self.check_stamp(call, stamped, id, Some(deadline));
            op.begin(call.now);
            until = op.model.answer_deadline(request).map_or(op.deadline, |until| until.min(op.deadline));
            let latest = until.min(own);
            assert!(
                deadline <= latest,
                "deadline 3: at most the earlier of its operation's deadline and now + the request time-out"
            );
            // Adapted time-outs are not modelled; a repeated request to a node has only the time that the first
            // one left.
            let fixed = network.min_timeout >= network.request_timeout;
            soft = Some(call.now + network.soft_timeout);
            soft = soft.filter(|soft| fixed && *soft < deadline && !op.model.has_no_soft_limit(request));
            let sent_event =
                RequestSent { now: call.now, request, soft, nothing_queued: call.nothing_queued };
            let (first, counts) = op.model.request_sent(&sent_event);
            assert!(
                !fixed || !first || deadline == latest,
                "deadline 3: exactly the earlier of the two where time-outs are fixed: {stamped:?} {latest:?} at {}",
                call.now
            );
            op.stats.sent += 1;
            counts.into_iter().for_each(|what| self.count(what));
        } else if request.initiator == Initiator::Background {
            assert!(
                deadline <= own,
                "deadline 3: at most the earlier of the background's deadline and now + the request time-out"
            );
            (soft, until, background_of) = self.check_background_request(call, stamped, request, deadline);
        } else {
            self.check_side_effect_request(stamped);
            assert!(
                deadline <= own,
                "context 4: the deadline of a side effect is now + the request time-out"
            );
            self.count("side effect: request");
        }
        assert!(self.issued.insert(request.id), "ids: never used twice");
        self.requests.push((
            request.id,
            RequestInFlight {
                initiator: request.initiator,
                node: request.node,
                target: request.target,
                hop: request.hop,
                at: call.now,
                soft,
                deadline,
                useful_until: until,
                background_of,
            },
        ));
        self.request_stats.sent += 1;
        self.request_stats.in_flight += 1;
        let to_node = self.requests.iter().filter(|(_, sent)| sent.node.key == request.node.key).count();
        assert!(to_node <= network.max_per_node, "network: at most max_per_node requests to one node");
        assert!(self.requests.len() <= network.max_in_flight, "network: at most max_in_flight requests");
    }

    /// Rule 4: a request of no operation is a side effect.
    fn check_side_effect_request(&self, stamped: &Out<N>) {
        assert!(!self.maintenance_off, "side effect: none without routing maintenance: {stamped:?}");
        assert!(
            matches!(stamped.context, Context::Link(_)),
            "context 4: a side effect carries a link, no parent: {stamped:?}"
        );
    }

    fn close_request(&mut self, id: RequestId) -> RequestInFlight<N> {
        let place = self.requests.iter().position(|(open, _)| *open == id);
        let Some(place) = place else {
            panic!("deadline 5: each request ends once; {id:?} is not in flight")
        };
        self.closed.push(id);
        self.request_stats.in_flight -= 1;
        self.requests.remove(place).1
    }

    fn cancel(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>, cancel: &Cancel<Net<N>>) {
        let (id, now) = (cancel.id, call.now);
        let sent = self.close_request(id);
        assert_eq!(
            (sent.initiator, sent.node),
            (cancel.initiator, cancel.node),
            "cancel: initiator and node of its request"
        );
        let timed_out = cancel.reason == CancelReason::TimedOut;
        assert!(!timed_out || sent.deadline <= now, "deadline 3: times out only at its deadline");
        *(if timed_out { &mut self.request_stats.timed_out } else { &mut self.request_stats.cancelled }) += 1;
        if cancel.initiator == Initiator::Background {
            return self.check_background_cancel(call, stamped, id, &sent, cancel.reason);
        }
        let Some(operation) = cancel.initiator.operation() else {
            self.check_side_effect_request(stamped);
            assert_eq!(stamped.deadline, None, "context 4: the cancel of a side effect has no deadline");
            return self.count(if timed_out {
                "side effect: timed out"
            } else {
                "side effect: no longer needed"
            });
        };
        let op = self.check_stamp(call, stamped, operation, None);
        let what = match cancel.reason {
            CancelReason::TimedOut => {
                assert!(
                    sent.deadline < sent.useful_until,
                    "deadline 6: a request with all of its operation's time is not timed out"
                );
                op.unreported_timeout = Some((id, sent));
                op.stats.timed_out += 1;
                "cancel: timed out"
            }
            CancelReason::Superseded => {
                assert!(
                    op.superseded.contains(&id),
                    "deadline 5: superseded only by another answer of its node"
                );
                op.superseded.retain(|superseded| *superseded != id);
                op.stats.cancelled += 1;
                "cancel: superseded"
            }
            CancelReason::OperationEnded => {
                op.ending = true;
                op.stats.cancelled += 1;
                // Where one call finds both deadlines passed, the earlier one counts.
                assert!(
                    op.deadline > now || sent.deadline >= op.deadline,
                    "deadline 6: a request that ran into its own time-out before its operation ended is reported as timed out"
                );
                op.model.request_cancelled(now, id, &sent, cancel.reason);
                "cancel: operation ended"
            }
            reason => {
                op.stats.cancelled += 1;
                op.model.request_cancelled(now, id, &sent, reason);
                "cancel: by its operation"
            }
        };
        self.count(what);
    }

    fn progress(&mut self, call: &mut CheckedCall<'_, N>, stamped: &Out<N>, progress: &Progress<Net<N>>) {
        let (id, node) = (progress.operation, progress.node);
        let by_event = !matches!(progress.outcome, RequestOutcome::TimedOut);
        let closed = if by_event {
            assert!(call.timers_ran, "progress: a response is handled after time has passed");
            let answered = call
                .answered_request
                .take()
                .expect("progress: once for each response to a request in flight");
            self.close_request(answered.0);
            Some(answered)
        } else {
            self.operations.get_mut(&id).and_then(|op| op.unreported_timeout.take())
        };
        let Some((request, sent)) = closed else {
            panic!("progress: only for a request that ended: {progress:?}")
        };
        assert_eq!(
            (sent.initiator, sent.node, request),
            (Initiator::Operation(id), node, progress.id),
            "progress: of the request that ended"
        );
        assert!(
            !by_event || sent.deadline > call.now,
            "deadline 3: a response at or after the deadline is late"
        );
        assert_eq!(
            (progress.hop, progress.elapsed),
            (sent.hop, call.now - sent.at),
            "progress: hop and elapsed time"
        );
        let context = self.operations.contains_key(&id).then(|| Context::Link(self.context(call, id)));
        let op = self.check_stamp(call, stamped, id, None);
        let elapsed = progress.elapsed;
        let mut request_end = RequestEnd {
            now: call.now,
            id: request,
            sent: &sent,
            elapsed,
            outcome: &progress.outcome,
            extra: None,
        };
        let mut silent = false;
        let result = match &call.event.event {
            Inbound::Response(response) => Some(&response.result),
            _ => None,
        };
        match (&progress.outcome, result) {
            (RequestOutcome::Answered { closer }, Some(Ok(answer))) => {
                assert_eq!(*closer, answer.closer, "progress: the nodes as the caller gave them");
                request_end.extra = Some(&answer.extra);
                op.superseded = op.model.request_answered(&request_end);
                op.stats.answered += 1;
                op.stats.hops = op.stats.hops.max(progress.hop);
            }
            (RequestOutcome::Failed, Some(Err(Failure::Failed))) => {
                op.model.request_failed(&request_end);
                op.stats.failed += 1;
            }
            (RequestOutcome::Rejected(said), Some(Err(Failure::Rejected(why)))) => {
                assert_eq!(said, why, "progress: the reason is passed through");
                op.model.request_failed(&request_end);
                op.stats.failed += 1;
            }
            (RequestOutcome::TimedOut, _) => silent = op.model.request_failed(&request_end),
            (reply, event) => panic!("progress: outcome {reply:?} does not match the response {event:?}"),
        }
        assert_eq!(progress.stats, op.stats, "stats: agree with the events");
        let counts = op.model.check_progress(call.now, &stamped.event);
        counts.into_iter().for_each(|what| self.count(what));
        // Two timed-out requests to one node are one failure of the node.
        if silent {
            self.node_dead(call, progress.node, &context.clone().unwrap_or(Context::NONE));
        }
        self.count_end(call, progress, &context.unwrap_or(Context::NONE));
    }

    /// Counts the end of a request in the counters, and applies it to the expected routing table.
    fn count_end(&mut self, call: &mut CheckedCall<'_, N>, progress: &Progress<Net<N>>, context: &Context) {
        match progress.outcome {
            RequestOutcome::Answered { .. } => {
                self.request_stats.answered += 1;
                self.node_alive(call, progress.node, Some(progress.elapsed), context);
                self.count("progress: answered");
            }
            RequestOutcome::Failed => {
                self.request_stats.failed += 1;
                self.node_dead(call, progress.node, context);
                self.count("progress: failed");
            }
            RequestOutcome::Rejected(_) => {
                // The node is alive, which refreshes its entry but does not admit it.
                self.request_stats.failed += 1;
                self.table.refresh(call.now, &progress.node, Some(progress.elapsed));
                self.count("progress: rejected");
            }
            _ => {}
        }
    }

    fn node_alive(
        &mut self,
        call: &mut CheckedCall<'_, N>,
        node: Peer<N>,
        round_trip: Option<Duration>,
        context: &Context,
    ) {
        if let Offered::Admitted { evicted } = self.table.offer(call.now, &node, round_trip) {
            let changes = evicted
                .map(|node| Outbound::Routing(RoutingOutbound::Removed(node)))
                .into_iter()
                .chain([Outbound::Routing(RoutingOutbound::Admitted(node))]);
            call.effects.extend(changes.map(|event| Stamped {
                event,
                context: context.clone(),
                deadline: None,
            }));
        }
    }

    fn node_dead(&mut self, call: &mut CheckedCall<'_, N>, node: Peer<N>, context: &Context) {
        if self.table.record_failure(&node) {
            let event = Outbound::Routing(RoutingOutbound::Removed(node));
            call.effects.push(Stamped { event, context: context.clone(), deadline: None });
        }
    }

    fn finish(
        &mut self,
        call: &mut CheckedCall<'_, N>,
        stamped: &Out<N>,
        id: OperationId,
        outcome: Outcome,
        stats: &OperationStats,
    ) {
        let stopped = call.timers_ran && matches!(call.event.event, Inbound::Stop(of) if of == id);
        let now = call.now;
        let of = |(_, sent): &&(RequestId, RequestInFlight<N>)| sent.initiator == Initiator::Operation(id);
        let in_flight = self.requests.iter().filter(of).count();
        let op = self.check_stamp(call, stamped, id, None);
        op.stats.ended = Some(now);
        assert_eq!(*stats, op.stats, "stats: agree with the events");
        assert_eq!(stats.in_flight() as usize, in_flight, "stats: number of requests in flight");
        assert_eq!(
            outcome == Outcome::DeadlineExceeded,
            op.deadline <= now,
            "deadline 2: deadline exceeded exactly at or after the deadline"
        );
        assert_eq!(
            outcome == Outcome::Stopped,
            stopped,
            "deadline 9: a stop, and only a stop, ends it with this outcome in the same call"
        );
        if !op.running && !matches!(outcome, Outcome::DeadlineExceeded | Outcome::Stopped) {
            call.ran_and_ended.push((op.deadline, op.arrival));
            op.begin(now);
        }
        let counts = op.model.check_finish(now, &stamped.event, in_flight);
        let bootstrap = op.model.is_bootstrap();
        self.check_continuation(call, id);
        assert!(
            !self.requests.iter().any(|(_, sent)| sent.initiator == Initiator::Operation(id)),
            "deadline 5: all requests are cancelled before the finish"
        );
        if bootstrap {
            let context = Context::Link(self.context(call, id));
            self.bootstraps.push((id, outcome, *stats, context));
        }
        self.operations.remove(&id);
        self.ended.insert(id);
        counts.into_iter().for_each(|what| self.count(what));
        self.count(match outcome {
            Outcome::Converged => "outcome: converged",
            Outcome::Exhausted => "outcome: exhausted",
            Outcome::NodeLimit => "outcome: node limit",
            Outcome::DeadlineExceeded => "outcome: deadline exceeded",
            Outcome::Quorum => "outcome: quorum",
            Outcome::Complete => "outcome: complete",
            Outcome::Stopped => "outcome: stopped",
            other => panic!("unknown outcome: {other}"),
        });
    }

    /// Checks that the inbound event had its required effect; other outbound events may have followed too.
    fn check_consequences(&mut self, call: &mut CheckedCall<'_, N>, request_stats: &RequestStats) {
        if expected_start(&call.event.event, &self.config).is_some() {
            assert!(call.start_answered, "deadline 7: a start is accepted or refused in its call");
        }
        match &call.event.event {
            Inbound::Stop(id) => {
                let ended = !self.operations.contains_key(id);
                assert!(
                    ended,
                    "deadline 9: a stop, and only a stop, ends it with this outcome in the same call"
                );
                self.request_stats.unknown += u64::from(call.cause.is_none());
            }
            Inbound::Response(Response { request, .. }) => {
                let open = self.requests.iter().any(|(id, _)| id == request);
                assert!(!open, "progress: a response to a request in flight is reported in its call");
                assert!(
                    call.cause.is_none() || call.answered_request.is_none(),
                    "progress: an answered request is not cancelled"
                );
                if call.cause.is_some() || call.answered_request.is_some() || call.cause_ambiguous {
                    return;
                }
                if self.issued.contains(request) {
                    self.request_stats.late += 1;
                    self.count("late");
                } else {
                    // A forged id. It may equal that of a request that ended in the queue, or pass for an
                    // issued one.
                    let taken_for_late =
                        request_stats.late > self.request_stats.late && request.to_u64() < 1 << 63;
                    self.request_stats.late += u64::from(taken_for_late);
                    self.request_stats.unknown += u64::from(!taken_for_late);
                    self.count("forged");
                }
            }
            Inbound::Routing(RoutingInbound::Connected { node, round_trip }) => {
                self.node_alive(call, *node, *round_trip, &link(call.event))
            }
            Inbound::Routing(RoutingInbound::Disconnected(node)) => {
                self.node_dead(call, *node, &link(call.event))
            }
            _ => {}
        }
    }

    /// Checks that every event that another event requires was emitted.
    fn assert_nothing_owed(&self) {
        for op in self.operations.values() {
            assert!(
                op.unreported_timeout.is_none(),
                "progress: follows the cancel of a timed-out request in the same call"
            );
            assert!(
                op.superseded.is_empty(),
                "deadline 5: superseded requests are cancelled in the same call"
            );
            assert!(
                !op.ending,
                "deadline 5: an operation that cancels for its end finishes in the same call"
            );
        }
    }
}

/// Rule 4: a change of the table has a link, no parent, and no deadline.
fn assert_detached<const N: usize>(stamped: &Out<N>) {
    assert!(
        matches!(stamped.context, Context::Link(_)),
        "context 4: a side effect carries a link, no parent: {stamped:?}"
    );
    assert_eq!(stamped.deadline, None, "context 4: a side effect has no deadline: {stamped:?}");
}

/// Rule 4, for the change that an event of no operation causes.
fn link<const N: usize>(event: &In<N>) -> Context {
    let (Context::Parent(span) | Context::Link(span)) = &event.context;
    Context::Link(span.clone())
}
