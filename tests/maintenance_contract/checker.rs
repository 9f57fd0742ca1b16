//! The checker: passes every event to the machine, and asserts on each outbound event and after every call what
//! must hold.

use super::machine_under_test::{In, MachineUnderTest, Out};
use super::{
    BUCKET_SIZE, Grouped, LOCAL, MAX_CHECKS, MAX_CLIENTS, MAX_QUEUED, MIN_NODES, OPERATION_TIMEOUT, REFUSED,
    REQUEST_TIMEOUT, node,
};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::routing::table::SavedNode;
use kad_proto::{
    CancelReason, Config, Context, Family, Initiator, Instant, Key, Key8, OperationId, RequestId, Response,
    RoutingInbound, RoutingOutbound, SpanContext, Stamped,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An operation of the caller.
struct Operation {
    span: SpanContext,
    deadline: Instant,
    bootstrap: bool,
}

/// A request in flight.
struct RequestInFlight {
    initiator: Initiator,
    node: Key8,
    deadline: Instant,
}

pub(crate) struct MaintenanceChecker<M> {
    machine: M,
    config: Config,
    now: Instant,
    /// Time has passed since the last call.
    clock_advanced: bool,
    in_flight: BTreeMap<RequestId, RequestInFlight>,
    operations: BTreeMap<OperationId, Operation>,
    /// The nodes of the table by the `Admitted` and `Removed` events.
    table: BTreeSet<Key8>,
    /// Failed probes in a row, by node.
    failures: BTreeMap<Key8, usize>,
    clients: Vec<Key8>,
    tally: BTreeMap<&'static str, u64>,
}

/// What the checker must know of an inbound event to check the outbound events of its call.
struct Call {
    span: SpanContext,
    /// The operation that the event belongs to.
    operation: Option<OperationId>,
    /// The tag and the operation of a start.
    start: Option<(u64, Operation)>,
    client: Option<Key8>,
}

impl<M: MachineUnderTest> MaintenanceChecker<M> {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self {
            machine: M::build(config.clone(), seed),
            config,
            now: Instant::from_secs(1),
            clock_advanced: false,
            in_flight: BTreeMap::new(),
            operations: BTreeMap::new(),
            table: BTreeSet::new(),
            failures: BTreeMap::new(),
            clients: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// A request in flight, selected by `number`.
    pub(crate) fn request_in_flight(&self, number: u8) -> Option<(RequestId, Key8)> {
        let open = self.in_flight.iter().nth(usize::from(number) % self.in_flight.len().max(1));
        open.map(|(id, open)| (*id, open.node))
    }

    pub(crate) fn snapshot(&self) -> Vec<SavedNode<Grouped>> {
        self.machine.snapshot(self.now)
    }

    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        self.clock_advanced = true;
    }

    /// Advances to the next wake-up and checks that it is neither too early nor too late.
    pub(crate) fn advance_to_wake_up(&mut self) {
        let Some(wake) = self.machine.poll_timeout() else {
            self.call(Inbound::Tick.into());
            return;
        };
        if wake <= self.now {
            assert!(self.clock_advanced, "wake-up: in the future unless time has passed");
            self.catch_up();
            return;
        }
        let mut early = self.machine.clone();
        let just_before = Instant::from_nanos(wake.as_nanos() - 1);
        let out = early.handle(just_before, Inbound::Tick.into());
        assert!(out.is_empty(), "wake-up: a nanosecond earlier nothing is due: {out:?}");
        assert_eq!(early.poll_timeout(), Some(wake), "wake-up: a nanosecond earlier nothing changes");
        // At a soft limit of a lookup, or where requests wait for capacity, a wake-up may have no visible effect.
        let explains = self.machine.request_stats().queued > 0
            || self.is_busy()
            || self
                .in_flight
                .values()
                .any(|open| !matches!(open.initiator, Initiator::Include | Initiator::Probe));
        (self.now, self.clock_advanced) = (wake, false);
        let silent = self.call(Inbound::Tick.into()).is_empty();
        let waits = self.machine.request_stats().queued > 0 || self.is_busy();
        assert!(!silent || explains || waits, "wake-up: a tick at {wake} has an effect");
    }

    /// Time passes before the event is handled: the call must equal a tick followed by the event.
    pub(crate) fn handle_event(&mut self, event: In) {
        if !self.clock_advanced {
            self.call(event);
            return;
        }
        let both = self.machine.clone().handle(self.now, event.clone());
        let mut apart = self.catch_up();
        apart.extend(self.call(event));
        assert_eq!(both, apart, "order: time passes before the event is handled, as by a tick");
    }

    /// Whether as many requests are in flight as the limits allow, in total or to some node.
    fn is_busy(&self) -> bool {
        let network = &self.config.network;
        let mut to = BTreeMap::new();
        self.in_flight.values().for_each(|open| *to.entry(open.node).or_insert(0) += 1);
        self.in_flight.len() == network.max_in_flight || to.values().any(|most| *most == network.max_per_node)
    }

    fn catch_up(&mut self) -> Vec<Out> {
        self.clock_advanced = false;
        self.call(Inbound::Tick.into())
    }

    /// Advances until all operations have ended. Returns the tally.
    pub(crate) fn finish(mut self) -> BTreeMap<&'static str, u64> {
        while !self.operations.is_empty() {
            self.advance_to_wake_up();
        }
        self.tally
    }

    fn call(&mut self, event: In) -> Vec<Out> {
        let span = event.context.parent().cloned().unwrap_or(SpanContext::NONE);
        let mut call = Call { span: span.clone(), operation: None, start: None, client: None };
        match &event.event {
            Inbound::Start(start) => {
                let latest = self.now + OPERATION_TIMEOUT;
                let deadline = event.deadline.map_or(latest, |asked| asked.min(latest));
                let bootstrap = start.target == LOCAL;
                call.start = Some((start.tag, Operation { span, deadline, bootstrap }));
            }
            Inbound::Stop(id) => call.operation = Some(*id),
            Inbound::Response(Response { request, result: Ok(answer) }) => {
                if let Some(open) = self.in_flight.remove(request) {
                    call.operation = open.initiator.operation();
                    if open.initiator != Initiator::Include || !answer.closer.is_empty() {
                        self.failures.remove(&open.node);
                    }
                }
            }
            Inbound::Response(Response { request, result: Err(_) }) => {
                if let Some(open) = self.in_flight.remove(request) {
                    call.operation = open.initiator.operation();
                    *self.failures.entry(open.node).or_insert(0) +=
                        usize::from(open.initiator == Initiator::Probe);
                }
            }
            Inbound::Routing(RoutingInbound::Connected { node, .. }) => {
                self.failures.remove(node);
            }
            Inbound::Routing(RoutingInbound::Client(node)) => {
                call.client = Some(*node);
                if !self.clients.contains(node) {
                    self.clients.push(*node);
                    self.clients.drain(..self.clients.len().saturating_sub(MAX_CLIENTS));
                }
            }
            _ => {}
        }
        let is_start = call.start.is_some();
        let mut bootstrapped = BTreeSet::new();
        let out = self.machine.handle(self.now, event);
        for (place, stamped) in out.iter().enumerate() {
            let initiator = match &stamped.event {
                Outbound::Started(started) => {
                    let (tag, operation) =
                        call.start.take().expect("deadline 7: accepted or refused only after a start");
                    assert_eq!(started.operation.tag(), tag);
                    self.operations.insert(started.operation, operation);
                    Some(Initiator::Operation(started.operation))
                }
                Outbound::Refused(refused) => {
                    let (tag, _) =
                        call.start.take().expect("deadline 7: accepted or refused only after a start");
                    assert_eq!((refused.tag, stamped.deadline), (tag, None));
                    self.count("refused");
                    continue;
                }
                Outbound::Request(request) => {
                    let deadline = stamped.deadline.expect("deadline 3: every request has a deadline");
                    assert!(
                        deadline > self.now && deadline <= self.now + REQUEST_TIMEOUT,
                        "deadline 3: after now, at most now + the request time-out: {deadline}"
                    );
                    let known = self.config.network.min_timeout == REQUEST_TIMEOUT
                        && self.config.network.max_queued == 0
                        && matches!(request.initiator, Initiator::Include | Initiator::Probe);
                    assert!(
                        !known || deadline == self.now + REQUEST_TIMEOUT,
                        "context 4: the deadline of a side effect is now + the request time-out"
                    );
                    let open = RequestInFlight { initiator: request.initiator, node: request.node, deadline };
                    assert!(self.in_flight.insert(request.id, open).is_none());
                    self.count("request");
                    Some(request.initiator)
                }
                Outbound::Cancel(cancel) => {
                    let open = self.in_flight.remove(&cancel.id);
                    let open = open.expect("deadline 5: one cancel, of a request in flight");
                    assert_eq!((open.initiator, open.node), (cancel.initiator, cancel.node));
                    let timed_out = cancel.reason == CancelReason::TimedOut;
                    assert!(
                        !timed_out || open.deadline <= self.now,
                        "deadline 3: times out only at its deadline"
                    );
                    let failed = timed_out && open.initiator == Initiator::Probe;
                    *self.failures.entry(open.node).or_insert(0) += usize::from(failed);
                    self.count("cancel");
                    Some(cancel.initiator)
                }
                Outbound::Progress(progress) => Some(Initiator::Operation(progress.operation)),
                Outbound::Finished(finish) => Some(Initiator::Operation(finish.operation)),
                Outbound::Routing(RoutingOutbound::Admitted(node)) => {
                    assert!(self.table.insert(*node), "table: admitted only if absent: {node:?}");
                    self.failures.remove(node);
                    self.count("admitted");
                    None
                }
                Outbound::Routing(RoutingOutbound::Removed(node)) => {
                    assert!(self.table.remove(node), "table: removed only if present: {node:?}");
                    let failures = self.failures.remove(node).unwrap_or(0);
                    let dead = failures == self.config.table.max_failures;
                    let replaced = failures > 0 && admits_in_same_bucket(&out[place + 1..], *node);
                    let client = call.client == Some(*node);
                    assert!(
                        dead || replaced || client,
                        "table: removed only after failed probes, by a replacement, or as a client: {node:?} failed {failures} probes"
                    );
                    self.count("removed");
                    None
                }
                Outbound::Routing(RoutingOutbound::Bootstrapped(notice)) => {
                    if let Some(id) = notice.operation {
                        assert!(bootstrapped.remove(&id), "bootstrapped: only after the finish: {id:?}");
                    }
                    self.count("bootstrapped");
                    None
                }
                Outbound::Routing(RoutingOutbound::NearEmpty { nodes }) => {
                    assert!(*nodes < MIN_NODES);
                    self.count("near empty");
                    None
                }
                other => panic!("{other:?}"),
            };
            match initiator {
                Some(Initiator::Operation(id)) => self.check_operation_event(&call, id, stamped),
                initiator => self.check_maintenance_event(initiator, stamped),
            }
            if let Outbound::Finished(finish) = &stamped.event {
                let operation = self.operations.remove(&finish.operation);
                if operation.is_some_and(|operation| operation.bootstrap) {
                    bootstrapped.insert(finish.operation);
                    self.count("joined");
                }
            }
        }
        assert!(call.start.is_none(), "deadline 7: a start is accepted or refused in its call: {is_start}");
        assert!(bootstrapped.is_empty(), "bootstrapped: reported for each bootstrap");
        self.check_between_calls();
        out
    }

    /// Checks the stamp of an event of an operation.
    fn check_operation_event(&self, call: &Call, id: OperationId, stamped: &Out) {
        let operation =
            self.operations.get(&id).expect("deadline 7: nothing before the start or after the finish");
        let continues = call.operation == Some(id) && call.span.is_valid();
        let span = if continues { &call.span } else { &operation.span };
        assert_eq!(stamped.context, Context::Parent(span.clone()), "context 1 to 3: {stamped:?}");
        match stamped.event {
            Outbound::Request(_) => assert!(stamped.deadline <= Some(operation.deadline), "deadline 3"),
            _ => assert_eq!(stamped.deadline, Some(operation.deadline), "deadline 1"),
        }
    }

    /// Checks the stamp of an event of the maintenance.
    fn check_maintenance_event(&mut self, initiator: Option<Initiator>, stamped: &Out) {
        assert!(matches!(stamped.context, Context::Link(_)), "context 4: {stamped:?}");
        let request = matches!(stamped.event, Outbound::Request(_));
        assert!(
            request || stamped.deadline.is_none(),
            "context 4: a side effect has no deadline: {stamped:?}"
        );
        match initiator {
            Some(Initiator::Include) => self.count("include"),
            Some(Initiator::Probe) => self.count("probe"),
            Some(Initiator::Explore) => self.count("explore"),
            Some(_) => self.count("bootstrap"),
            None => {}
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// Checks what holds after every call.
    fn check_between_calls(&mut self) {
        let (machine, now, config) = (&self.machine, self.now, &self.config);
        assert!(
            machine.poll_timeout().is_none_or(|wake| wake > now),
            "wake-up: in the future, as everything due is done"
        );
        assert!(
            self.in_flight.values().all(|open| open.deadline > now),
            "deadline 3: a request ends by its time-out"
        );
        assert!(self.operations.values().all(|operation| operation.deadline > now), "deadline 2");
        // Request counters and limits.
        let (request_stats, counts) = (machine.request_stats(), machine.routing_counts());
        let ended =
            request_stats.answered + request_stats.failed + request_stats.timed_out + request_stats.cancelled;
        assert_eq!(request_stats.sent, ended + request_stats.in_flight, "deadline 5");
        assert_eq!(request_stats.in_flight, self.in_flight.len() as u64);
        assert!(self.in_flight.len() <= config.network.max_in_flight);
        assert!(request_stats.queued <= config.network.max_queued as u64);
        // Include checks and probes: bounded in number, one for each node, and none is lost.
        let nodes = |initiator| {
            let of =
                self.in_flight.values().filter(move |open| open.initiator == initiator).map(|open| open.node);
            (of.clone().count() as u64, of.collect::<BTreeSet<_>>())
        };
        let ((included, candidates), (probed, probes)) = (nodes(Initiator::Include), nodes(Initiator::Probe));
        assert!(
            included == candidates.len() as u64 && probed == probes.len() as u64,
            "checks: one for each node"
        );
        assert!(probes.is_subset(&self.table), "probe: only nodes of the table");
        let (include, probe) = (counts.include, counts.probe);
        assert!(
            include.in_flight <= MAX_CHECKS && probe.in_flight <= MAX_CHECKS && include.queued <= MAX_QUEUED
        );
        let wait = (include.in_flight + probe.in_flight).checked_sub(included + probed);
        assert!(
            wait.is_some_and(|wait| wait <= request_stats.queued),
            "checks: each is in flight or queued: {wait:?}"
        );
        let dropped = include.duplicate + include.dropped + include.backed_off + include.unwanted;
        let known = dropped + include.passed + include.failed;
        assert_eq!(include.offered, known + include.in_flight + include.queued);
        if include.queued > 0 && include.in_flight < MAX_CHECKS {
            assert!(self.is_busy(), "include: a candidate waits only for capacity");
        }
        // At most one bootstrap if the machine has started one by itself.
        let ours = self.in_flight.values().any(|open| open.initiator == Initiator::Bootstrap);
        assert!(
            !ours || !self.operations.values().any(|operation| operation.bootstrap),
            "bootstrap: one at a time"
        );
        // The table and the list of nodes to probe agree.
        let table = machine.table();
        assert_eq!(self.table, table.iter().map(|record| *record.node()).collect());
        assert_eq!(probe.nodes, table.len() as u64);
        let mut groups = BTreeMap::new();
        for record in table.iter() {
            let known = record.node();
            assert_eq!(machine.is_probed(known), Some(true), "probe: every node of the table: {known:?}");
            assert!(*known != node(REFUSED) && *known != LOCAL);
            assert!(!self.clients.contains(known), "table: no clients: {known:?}");
            if let Some(group) = Grouped::group(known) {
                *groups.entry((group, None)).or_insert(0) += 1;
                *groups.entry((group, Some(known.common_prefix_len(&LOCAL)))).or_insert(0) += 1;
            }
        }
        assert!((0..8).all(|cpl| table.bucket(cpl).len() <= BUCKET_SIZE));
        for ((_, bucket), members) in groups {
            let most = match bucket {
                None => config.table.max_per_group,
                Some(_) => config.table.max_per_group_in_bucket,
            };
            assert!(members <= most, "table: group limit: {members}");
        }
    }
}

/// Whether the next admitted node is of the same bucket.
fn admits_in_same_bucket(rest: &[Stamped<Outbound<Grouped>>], node: Key8) -> bool {
    let admitted = rest.iter().find_map(|out| match out.event {
        Outbound::Routing(RoutingOutbound::Admitted(other)) => Some(other),
        _ => None,
    });
    admitted.is_some_and(|other| other.common_prefix_len(&LOCAL) == node.common_prefix_len(&LOCAL))
}
