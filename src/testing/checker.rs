//! [`ContractChecker`]: follows one machine by its events, and checks each of them and what holds after every call.

use crate::context::Context;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::network_size::estimator::NotEnoughData;
use crate::operations::config::PoolConfig;
use crate::requests::stats::RequestStats;
use crate::routing::config::RoutingConfig;
use crate::routing::events::{RoutingInbound, RoutingOutbound};
use crate::routing::table::RoutingTable;
use crate::testing::broken::{Broken, Checked, broken, ensure, ensure_eq, ensure_some};
use crate::testing::common_parts::{finish_of, outcome_of, progress_of};
use crate::testing::machine_under_test::MachineUnderTest;
use crate::testing::node_map::{NodeMap, NodeSet};
use crate::testing::operation_model::OperationModel;
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::side_effects::check_detached;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{OperationStats, Outcome};
use crate::vocabulary::request_events::{Failure, Initiator, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A live operation, or one that goes on in the background after its finish.
#[derive(Clone)]
pub(super) struct TrackedOperation<F: Family> {
    /// The span context of its start.
    pub(super) start_context: SpanContext,
    pub(super) deadline: Instant,
    pub(super) arrival: u64,
    pub(super) running: bool,
    /// It was allowed to run, and its model has begun.
    pub(super) has_begun: bool,
    pub(super) stats: OperationStats,
    pub(super) model: Box<dyn OperationModel<F>>,
    /// Its requests are being cancelled because it ends: only cancels and the finish may follow.
    pub(super) ending: bool,
    /// The request that was just cancelled as timed out: the next event must be its progress.
    pub(super) unreported_timeout: Option<(RequestId, RequestInFlight<F>)>,
    /// Requests to a node that has just answered another one: their cancels must come next.
    pub(super) superseded: Vec<RequestId>,
}

/// Follows one machine from its construction on, and checks that it keeps the contract: see
/// [the module](crate::testing).
#[derive(Clone)]
pub struct ContractChecker<F: Family> {
    pub(super) config: Arc<Config>,
    /// The limits on operations, as the machine applies them.
    pub(super) pool: PoolConfig,
    /// The node itself.
    pub(super) local: LocalNode<F>,
    pub(super) now: Instant,
    pub(super) operations: BTreeMap<OperationId, TrackedOperation<F>>,
    /// Operations that go on after their finish.
    pub(super) background: BTreeMap<OperationId, TrackedOperation<F>>,
    /// Bootstraps that have finished and whose `Bootstrapped` event is due.
    pub(super) bootstraps: Vec<(OperationId, Outcome, OperationStats, Context)>,
    pub(super) ended: BTreeSet<OperationId>,
    /// In flight, in the order of sending.
    pub(super) requests: Vec<(RequestId, RequestInFlight<F>)>,
    pub(super) closed: Vec<RequestId>,
    pub(super) issued: BTreeSet<RequestId>,
    /// What the machine's counters must be; `queued` is that of the last call.
    pub(super) request_stats: RequestStats,
    /// When the machine wanted to be called next, after the last call.
    pub(super) wake: Option<Instant>,
    /// Wake-ups in a row at which nothing came out, without any other event.
    pub(super) silent_wake_ups: usize,
    /// Since when they are counted.
    pub(super) silent_since: Instant,
    /// Operations have the models of their kinds.
    pub(super) checks_models: bool,
    /// No routing maintenance is configured, or the machine has no table.
    pub(super) maintenance_off: bool,
    /// The events alone determine the table.
    pub(super) predicts_table: bool,
    /// Since when the machine takes its node for cut off.
    cut_off: Option<Instant>,
    /// What the machine's routing table must hold, as long as it is predicted.
    pub(super) table: RoutingTable<F>,
    /// The nodes of the table by the `Admitted` and `Removed` events, in any case.
    pub(super) members: NodeSet<F>,
    /// When nodes have left the table that live operations may have begun with.
    pub(super) left: NodeMap<F, Instant>,
    pub(super) accepted_starts: u64,
    pub(super) tally: BTreeMap<&'static str, u64>,
}

/// One call that is being checked.
pub(super) struct CheckedCall<'a, F: Family> {
    pub(super) now: Instant,
    pub(super) event: &'a Stamped<Inbound<F>>,
    /// The live operation that the inbound event belongs to.
    pub(super) cause: Option<OperationId>,
    /// The request in flight that the inbound event answers.
    pub(super) answered_request: Option<(RequestId, RequestInFlight<F>)>,
    /// The table, where there is one. A start does not change it.
    pub(super) table: Option<&'a RoutingTable<F>>,
    /// The estimated network size, for the start of a broadcast or a lookup.
    pub(super) size: Result<u64, NotEnoughData>,
    /// No request waited for capacity before or after the call.
    pub(super) nothing_queued: bool,
    pub(super) start_answered: bool,
    /// Changes of the table that are due so far.
    pub(super) effects: Vec<Stamped<Outbound<F>>>,
    /// The operation that the answered request belongs to is not known.
    pub(super) cause_ambiguous: bool,
    /// Nodes that have answered a request of a background operation, and that operation: one of several where it is not known.
    pub(super) answered_in_background: Vec<(F::Node, Vec<OperationId>)>,
    /// Deadline and arrival of the operations that were allowed to run and ended in this same call.
    pub(super) ran_and_ended: Vec<(Instant, u64)>,
    /// The number of starts that were accepted before this call.
    pub(super) starts_before: u64,
    /// How many operations run after the call, if the machine tells.
    pub(super) running: Option<usize>,
}

impl<F: Family> fmt::Debug for ContractChecker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContractChecker")
            .field("now", &self.now)
            .field("operations", &self.operations.keys())
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

impl<F: Family> CheckedCall<'_, F> {
    /// The time from a request to the response of this call, or to the first part of that.
    pub(super) fn elapsed(&self, sent: &RequestInFlight<F>) -> Duration {
        let arrived = match &self.event.event {
            Inbound::Response(response) => response.arrived.min(self.now),
            _ => self.now,
        };
        sent.elapsed(arrived)
    }

    /// The round trip that the response of this call measures of its node.
    pub(super) fn round_trip(&self, sent: &RequestInFlight<F>) -> Option<Duration> {
        let dialed = matches!(&self.event.event, Inbound::Response(response) if response.dialed);
        (!dialed).then(|| self.elapsed(sent))
    }
}

impl<F: Family> TrackedOperation<F> {
    /// It is allowed to run, if it was not yet.
    pub(super) fn begin(&mut self, now: Instant) -> Checked {
        if core::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        self.model.begin(now, self.deadline)
    }
}

impl<F: Family> ContractChecker<F> {
    /// A checker of a new machine of the node with the id `local`, constructed with this configuration. A machine
    /// that takes parts of the configuration, such as a [`Query`](crate::Query), has these parts, and the checker
    /// ignores the others.
    ///
    /// # Errors
    /// [`ConfigError`] if the part of the configuration about the routing table is out of bounds.
    pub fn new(local: F::Target, config: impl Into<Arc<Config>>) -> Result<Self, ConfigError> {
        let config = config.into();
        let maintenance_off = config.routing == RoutingConfig::off();
        Ok(Self {
            local: LocalNode::new(local.clone()),
            now: Instant::ORIGIN,
            operations: BTreeMap::new(),
            background: BTreeMap::new(),
            bootstraps: Vec::new(),
            ended: BTreeSet::new(),
            requests: Vec::new(),
            closed: Vec::new(),
            issued: BTreeSet::new(),
            request_stats: RequestStats::default(),
            wake: None,
            silent_wake_ups: 0,
            silent_since: Instant::ORIGIN,
            checks_models: true,
            maintenance_off,
            predicts_table: maintenance_off,
            cut_off: None,
            table: RoutingTable::new(local, config.table.clone(), &Secret::from_seed(0))?,
            members: NodeSet::default(),
            left: NodeMap::default(),
            accepted_starts: 0,
            tally: BTreeMap::new(),
            pool: config.pool.clone(),
            config,
        })
    }

    /// The same checker of a machine whose family has this value.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.table = self.table.with_family(family.clone());
        self.local.family = family;
        self
    }

    /// The same checker without models: it does not check which requests an operation may send, which stores a
    /// broadcast owes, and whether an operation waits without a reason, nor does it predict the routing table. All
    /// other rules it checks. A call then costs about as much as the machine's own work, and the memory does not
    /// grow with the number of calls.
    #[must_use]
    pub fn without_models(mut self) -> Self {
        (self.checks_models, self.predicts_table) = (false, false);
        self
    }

    /// The same checker of a machine whose routing table begins with the nodes of this one.
    #[cfg(any(feature = "sim", test))]
    #[must_use]
    pub(crate) fn with_table(mut self, table: &RoutingTable<F>) -> Self {
        if self.predicts_table {
            self.table = table.clone();
        }
        for entry in table.iter() {
            self.members.insert(entry.node().clone(), ());
        }
        self
    }

    /// How often each situation occurred so far (`"request"`, `"outcome: converged"`, `"store: stored"`), so that
    /// a test can require that its scenarios reach what they are meant to reach. The names are no part of the
    /// interface.
    pub fn tally(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally
    }

    /// The requests in flight, in the order of sending.
    pub fn requests(&self) -> &[(RequestId, RequestInFlight<F>)] {
        &self.requests
    }

    /// The requests that have ended, in the order of ending. Empty [without models](Self::without_models).
    pub fn closed_requests(&self) -> &[RequestId] {
        &self.closed
    }

    /// The deadline of an operation; `None` if it is not live.
    pub fn deadline(&self, operation: OperationId) -> Option<Instant> {
        self.operations.get(&operation).map(|operation| operation.deadline)
    }

    /// Passes the event to the machine, and checks all outbound events and what holds after the call. The checker
    /// calls clones of the machine as well: to know which events time alone causes, and to see that the machine
    /// has nothing to do before [`poll_timeout`](crate::Machine::poll_timeout) and something to do then. Returns
    /// the outbound events.
    ///
    /// # Panics
    /// If the machine breaks a rule, with a message that begins with the name of the rule.
    #[allow(clippy::panic)] // a test fails so
    #[track_caller]
    pub fn call<M: MachineUnderTest<F>>(
        &mut self,
        machine: &mut M,
        now: Instant,
        event: &Stamped<Inbound<F>>,
    ) -> Vec<Stamped<Outbound<F>>> {
        match self.try_call(machine, now, event) {
            Ok(outbound) => outbound,
            Err(broken) => panic!("{broken}"),
        }
    }

    /// [`call`](Self::call), with the broken rule as a value. After an error the checker is of no more use.
    ///
    /// # Errors
    /// [`Broken`] if the machine breaks a rule.
    pub fn try_call<M: MachineUnderTest<F>>(
        &mut self,
        machine: &mut M,
        now: Instant,
        event: &Stamped<Inbound<F>>,
    ) -> Result<Vec<Stamped<Outbound<F>>>, Broken> {
        self.count("call");
        let tick = Stamped::new(Inbound::Tick);
        let is_due = machine.poll_timeout().is_some_and(|at| at <= self.now.max(now));
        let mut other = machine.clone();
        let by_time = other.handle(now, tick.clone());
        let ticked = is_due.then(|| other.clone());
        let by_event = other.handle(now, event.clone());
        let outbound = machine.handle(now, event.clone());
        ensure!(
            outbound.iter().eq(by_time.iter().chain(&by_event)),
            "order: time passes before the event is handled, as by a tick: {outbound:?}, not {by_time:?} and \
             {by_event:?}"
        );
        if let Some(ticked) = &ticked {
            self.check(now, &tick, &by_time, ticked)?;
        } else {
            ensure!(by_time.is_empty(), "wake-up: before it nothing happens: {by_time:?}");
        }
        if is_due && matches!(event.event, Inbound::Tick) {
            ensure!(by_event.is_empty(), "order: a second tick at the same time does nothing: {by_event:?}");
        } else {
            self.check(now, event, &by_event, machine)?;
        }
        Self::check_exact_wake_up(machine)?;
        Ok(outbound)
    }

    /// Checks one call that an observer has made: the time and the inbound event, the outbound events, and the
    /// machine after it.
    ///
    /// The checker must know what time alone has caused. So, if the machine's
    /// [`poll_timeout`](crate::Machine::poll_timeout) is `now` or earlier, call it with a tick at `now` first, and
    /// have that call checked; then call it with the event. Both together are equivalent to
    /// [one call with the event](crate::deadline).
    ///
    /// # Errors
    /// [`Broken`] if the machine breaks a rule. After that the checker is of no more use.
    pub fn check<M: MachineUnderTest<F>>(
        &mut self,
        now: Instant,
        event: &Stamped<Inbound<F>>,
        outbound: &[Stamped<Outbound<F>>],
        machine: &M,
    ) -> Result<(), Broken> {
        // A clock reading earlier than the latest one is treated as the latest.
        self.now = self.now.max(now);
        ensure!(
            matches!(event.event, Inbound::Tick) || self.wake.is_none_or(|wake| wake > self.now),
            "order: what is due at {:?} is done before the event, by a tick at {}",
            self.wake,
            self.now
        );
        self.pool = machine.pool(&self.config);
        self.maintenance_off |= machine.table().is_none();
        let queued = machine.request_stats().queued;
        let is_start = matches!(event.event, Inbound::Broadcast(_) | Inbound::Start(_));
        let mut call = CheckedCall {
            now: self.now,
            event,
            cause: None,
            answered_request: None,
            table: machine.table(),
            size: if is_start { machine.size(self.now) } else { Err(NotEnoughData::NONE) },
            nothing_queued: self.checks_models
                && self.request_stats.queued == 0
                && queued == 0
                && self.never_full(outbound),
            start_answered: false,
            effects: Vec::new(),
            cause_ambiguous: false,
            answered_in_background: Vec::new(),
            ran_and_ended: Vec::new(),
            starts_before: self.accepted_starts,
            running: machine.counts().map(|(_, running)| running),
        };
        for op in self.operations.values_mut().chain(self.background.values_mut()) {
            op.model.time_passes(self.now);
            if let Inbound::Routing(RoutingInbound::Gone(node)) = &event.event
                && self.request_stats.queued > 0
            {
                op.model.waiting_failed(node);
            }
        }
        let running = call.running;
        if !matches!(event.event, Inbound::Tick) {
            if running.is_none() {
                self.start_waiting(&mut call, None)?;
            }
            self.time_has_passed(&call)?;
            self.resolve_cause(&mut call)?;
        }
        for stamped in outbound {
            self.check_event(&mut call, stamped)?;
        }
        self.check_nothing_owed()?;
        self.check_consequences(&mut call, &machine.request_stats())?;
        self.check_table(machine, &call, outbound)?;
        self.start_waiting(&mut call, running)?;
        self.time_has_passed(&call)?;
        self.check_running(outbound, machine)?;
        self.check_between_calls(machine)?;
        self.check_silence(event, outbound, machine)?;
        self.request_stats.queued = queued;
        self.wake = machine.poll_timeout();
        Ok(())
    }

    /// Checks that every operation and every request whose deadline is `by` or earlier has ended, and that nothing
    /// goes on in the background of an operation for so long: to be called at the end of a test, with
    /// [`Instant::FAR_FUTURE`] for all of them.
    ///
    /// # Errors
    /// [`Broken`] if something is left.
    pub fn check_ended(&self, by: Instant) -> Result<(), Broken> {
        self.check_operations_ended(by)?;
        if let Some(id) = self.background.iter().find(|(_, op)| op.deadline <= by).map(|(id, _)| id) {
            broken!("background: ends by its time-out: {id:?}");
        }
        if let Some(request) = self.requests.iter().find(|(_, sent)| sent.deadline <= by) {
            broken!("deadline 5: every request ends: {request:?}");
        }
        Ok(())
    }

    /// [`check_ended`](Self::check_ended), of operations only.
    pub(crate) fn check_operations_ended(&self, by: Instant) -> Checked {
        match self.operations.iter().find(|(_, op)| op.deadline <= by) {
            Some((id, _)) => broken!("deadline 7: every accepted start finishes: {id:?} does not"),
            None => Ok(()),
        }
    }

    /// When this node was last in the table, as far as live operations may have begun with it.
    pub(super) fn last_in_table(&self, now: Instant, node: &F::Node) -> Option<Instant> {
        let is_in = self.members.contains(node) || self.table.get(node).is_some();
        if is_in { Some(now) } else { self.left.get(node).copied() }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    pub(super) fn count_all(&mut self, counts: Vec<&'static str>) {
        for what in counts {
            self.count(what);
        }
    }

    /// What was due is done.
    fn time_has_passed(&mut self, call: &CheckedCall<'_, F>) -> Checked {
        for op in self.operations.values_mut().chain(self.background.values_mut()) {
            op.model.due_work_done(call.now)?;
        }
        Ok(())
    }

    /// Finds the operation and the request that the inbound event belongs to.
    fn resolve_cause(&mut self, call: &mut CheckedCall<'_, F>) -> Checked {
        match &call.event.event {
            Inbound::Response(response) => self.resolve_response(call, response),
            Inbound::Stop(id) => {
                call.cause = self.operations.contains_key(id).then_some(*id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn resolve_response(&mut self, call: &mut CheckedCall<'_, F>, response: &Response<F>) -> Checked {
        let answered = self.requests.iter().find(|(id, _)| *id == response.request).cloned();
        call.answered_request.clone_from(&answered);
        let Some((id, sent)) = answered else { return Ok(()) };
        call.cause = sent.initiator.operation();
        if let Ok(answer) = &response.result
            && answer.is_part
        {
            call.answered_request = None;
            self.keep_part(call, id, &answer.closer);
            return Ok(());
        }
        // A progress reports the end of a request of an operation, where the machine emits it.
        let silent = call.cause.is_none() || !self.pool.progress;
        if !silent {
            return Ok(());
        }
        self.close_request(id)?;
        ensure!(
            sent.deadline > call.now,
            "deadline 3: a response at or after the deadline is late: {sent:?}, now {}",
            call.now
        );
        self.count_response(response);
        let (Some(outcome), Some(operation)) = (outcome_of(&call.event.event, &sent), call.cause) else {
            self.count("side effect: response");
            if sent.initiator == Initiator::Background {
                // An answer that was listened to has been used, though no operation is its cause.
                call.answered_request = call.answered_request.take().filter(|_| sent.listening.is_some());
                self.check_background_response(call, id, &sent)?;
            }
            return Ok(());
        };
        call.answered_request = None;
        self.request_ended(call, operation, (id, &sent), &outcome)?;
        if let Some(op) = self.operations.get_mut(&operation) {
            op.model.silent_progress(call.now)?;
        }
        let context = Context::Link(self.context(call, operation)?.clone());
        self.apply_to_table(call, &outcome, (id, &sent), &context);
        Ok(())
    }

    /// Whether all requests in flight and those of this call fit the limits at once, even if none had ended in
    /// between.
    fn never_full(&self, outbound: &[Stamped<Outbound<F>>]) -> bool {
        let new = outbound.iter().filter_map(|out| match &out.event {
            Outbound::Request(request) => Some(F::key(&request.node)),
            _ => None,
        });
        let all: Vec<_> = self.requests.iter().map(|(_, sent)| F::key(&sent.node)).chain(new).collect();
        let network = &self.config.network;
        let of_node = |key| all.iter().filter(|other| *other == key).count();
        all.len() <= network.max_in_flight && all.iter().all(|key| of_node(key) <= network.max_per_node)
    }

    fn check_event(&mut self, call: &mut CheckedCall<'_, F>, stamped: &Stamped<Outbound<F>>) -> Checked {
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
                check_detached(stamped)?;
                let is_new = self.members.insert(node.clone(), ());
                ensure!(is_new, "table: a node is admitted only if absent: {node:?}");
                Ok(())
            }
            Outbound::Routing(RoutingOutbound::Removed(node)) => {
                check_detached(stamped)?;
                let was_there = self.members.remove(node);
                ensure!(was_there, "table: a node is removed only if present: {node:?}");
                let live = self.operations.values().chain(self.background.values());
                let oldest = live.map(|op| op.stats.started).min();
                self.left.retain(|left| oldest.is_some_and(|oldest| *left >= oldest));
                self.left.insert(node.clone(), call.now);
                let by_silence = match &call.event.event {
                    Inbound::Routing(_) => false,
                    Inbound::Response(response) => {
                        response.result.as_ref().is_err_and(|failure| *failure != Failure::Gone)
                    }
                    _ => true,
                };
                ensure!(
                    !(self.cut_off.is_some() && by_silence),
                    "connectivity: while cut off, nobody is removed for silence: {node:?}"
                );
                Ok(())
            }
            Outbound::Routing(RoutingOutbound::Updated(node)) => {
                check_detached(stamped)?;
                ensure!(self.members.contains(node), "table: only nodes of the table are updated: {node:?}");
                Ok(())
            }
            Outbound::Routing(RoutingOutbound::CutOff { told }) => {
                self.count(if *told { "cut off, as told" } else { "cut off, as inferred" });
                ensure!(self.cut_off.is_none(), "connectivity: a machine is cut off only if it was not");
                self.cut_off = Some(call.now);
                check_detached(stamped)
            }
            Outbound::Routing(RoutingOutbound::Reconnected { .. }) => {
                self.count("reconnected");
                ensure!(
                    self.cut_off.is_some(),
                    "connectivity: a machine is reconnected only if it was cut off"
                );
                self.cut_off = None;
                check_detached(stamped)
            }
            Outbound::Routing(RoutingOutbound::Bootstrapped(notice)) => self.bootstrapped(stamped, notice),
            Outbound::Routing(RoutingOutbound::NearEmpty { .. }) => {
                check_detached(stamped)?;
                self.check_maintenance_on(stamped)
            }
            Outbound::NetworkSize { .. } => {
                self.count("network size");
                check_detached(stamped)
            }
            Outbound::Progress(_)
            | Outbound::CrawlProgress(_)
            | Outbound::BroadcastProgress(_)
            | Outbound::Finished(_)
            | Outbound::CrawlFinished(_)
            | Outbound::BroadcastFinished(_) => Ok(()), // handled above
        }
    }

    /// Rules 1, 2 and 3: the inbound event's context if it belongs to this operation and is valid, else that of
    /// its start.
    pub(super) fn context<'a>(
        &'a self,
        call: &CheckedCall<'a, F>,
        operation: OperationId,
    ) -> Checked<&'a SpanContext> {
        let op = self.operations.get(&operation).or_else(|| self.background.get(&operation));
        let op = ensure_some!(op, "deadline 7: of a live or background operation: {operation:?}");
        let by_event = call.event.context.parent().filter(|_| call.cause == Some(operation));
        Ok(by_event.unwrap_or(&op.start_context))
    }

    /// Checks the stamp of an event of a live operation, and that the event may come now.
    pub(super) fn check_stamp(
        &mut self,
        call: &CheckedCall<'_, F>,
        stamped: &Stamped<Outbound<F>>,
        operation: OperationId,
        deadline: Option<Instant>,
    ) -> Checked<&mut TrackedOperation<F>> {
        ensure!(
            self.operations.contains_key(&operation),
            "deadline 7: nothing of an operation before its start or after its finish: {stamped:?}"
        );
        let expected = self.context(call, operation)?;
        ensure!(
            matches!(&stamped.context, Context::Parent(span) if span == expected),
            "context 1 to 3: {stamped:?} after {:?}, expected {expected:?}",
            call.event
        );
        let op = self.operations.get_mut(&operation);
        let op = ensure_some!(op, "deadline 7: nothing of an operation after its finish: {stamped:?}");
        ensure_eq!(
            stamped.deadline,
            Some(deadline.unwrap_or(op.deadline)),
            "deadline 1: an event has the deadline of its operation: {stamped:?}"
        );
        let last_words = matches!(stamped.event, Outbound::Cancel(_)) || finish_of(&stamped.event).is_some();
        ensure!(
            !op.ending || last_words,
            "deadline 5: after cancelling for its end an operation only cancels and finishes: {stamped:?}"
        );
        let report = match (progress_of(&stamped.event), &op.unreported_timeout) {
            (Some(progress), Some((id, _))) => progress.id == *id,
            (_, unreported_timeout) => unreported_timeout.is_none(),
        };
        ensure!(report, "progress: follows the cancel of a timed-out request at once: {stamped:?}");
        let gives_up =
            matches!(&stamped.event, Outbound::Cancel(cancel) if op.superseded.contains(&cancel.id));
        ensure!(
            op.superseded.is_empty() || gives_up,
            "deadline 5: superseded requests are cancelled next: {stamped:?}"
        );
        Ok(op)
    }

    /// Checks that the inbound event had its required effect; other outbound events may have followed too.
    fn check_consequences(&mut self, call: &mut CheckedCall<'_, F>, request_stats: &RequestStats) -> Checked {
        match &call.event.event {
            Inbound::Start(_) | Inbound::Crawl(_) | Inbound::Broadcast(_) => {
                ensure!(call.start_answered, "deadline 7: a start is accepted or refused in its call");
            }
            Inbound::Stop(id) => {
                ensure!(
                    !self.operations.contains_key(id),
                    "deadline 9: a stop, and only a stop, ends it with this outcome in the same call: {id:?}"
                );
                self.request_stats.unknown += u64::from(call.cause.is_none());
            }
            Inbound::Response(response) => self.check_response_used(call, response, request_stats)?,
            Inbound::Routing(event) => self.apply_report(call, event),
            Inbound::Tick => {}
        }
        Ok(())
    }

    /// A response to a request in flight has ended it, and one to any other request was counted.
    fn check_response_used(
        &mut self,
        call: &CheckedCall<'_, F>,
        response: &Response<F>,
        request_stats: &RequestStats,
    ) -> Checked {
        let id = response.request;
        let open = self.requests.iter().any(|(open, _)| *open == id);
        if open && response.result.as_ref().is_ok_and(|answer| answer.is_part) {
            return Ok(()); // the request goes on
        }
        ensure!(!open, "progress: a response to a request in flight is reported in its call: {id:?}");
        ensure!(
            call.cause.is_none() || call.answered_request.is_none(),
            "progress: an answered request is not cancelled: {id:?}"
        );
        if call.cause.is_some() || call.answered_request.is_some() || call.cause_ambiguous {
            return Ok(());
        }
        if self.issued.contains(&id) {
            self.request_stats.late += 1;
            self.count("late");
        } else {
            // A forged id, or one of a request that was forgotten. It may equal that of a request that ended in
            // the queue, or pass for an issued one.
            let taken_for_late = request_stats.late > self.request_stats.late && id.to_u64() < 1 << 63;
            self.request_stats.late += u64::from(taken_for_late);
            self.request_stats.unknown += u64::from(!taken_for_late);
            self.count("forged");
        }
        Ok(())
    }

    /// Checks that every event that another event requires was emitted.
    fn check_nothing_owed(&self) -> Checked {
        for op in self.operations.values() {
            ensure!(
                op.unreported_timeout.is_none(),
                "progress: follows the cancel of a timed-out request in the same call"
            );
            ensure!(
                op.superseded.is_empty(),
                "deadline 5: superseded requests are cancelled in the same call: {:?}",
                op.superseded
            );
            ensure!(
                !op.ending,
                "deadline 5: an operation that cancels for its end finishes in the same call"
            );
        }
        ensure!(
            self.bootstraps.is_empty(),
            "bootstrapped: in the call of the finish of each bootstrap: {:?}",
            self.bootstraps
        );
        Ok(())
    }
}
