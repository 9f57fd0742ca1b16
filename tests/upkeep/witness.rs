//! Sees every event in and out, and asserts after every call what must hold.

use super::subject::{In, Out, Subject};
use super::{BUCKET, CHECKS, CLIENTS, Grouped, LOCAL, MIN_NODES, OPERATION, QUEUED, REFUSED, REQUEST, node};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::table::Saved;
use kad_proto::{
    Config, Context, Family, GivenUp, Instant, Key, Key8, OperationId, Owner, RequestId, SpanContext, Stamped,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An operation of the caller's.
struct Operation {
    span: SpanContext,
    deadline: Instant,
    bootstrap: bool,
}

/// A request in flight.
struct Open {
    owner: Owner,
    node: Key8,
    deadline: Instant,
}

pub(crate) struct Witness<M> {
    machine: M,
    config: Config,
    now: Instant,
    /// Time has passed, and the machine was not told.
    late: bool,
    open: BTreeMap<RequestId, Open>,
    operations: BTreeMap<OperationId, Operation>,
    /// What the table must hold, by what was said.
    table: BTreeSet<Key8>,
    /// Probes in a row that failed.
    failures: BTreeMap<Key8, usize>,
    clients: Vec<Key8>,
    tally: BTreeMap<&'static str, u64>,
}

/// What a call is about, as far as it matters to what comes out.
struct Call {
    span: SpanContext,
    /// The operation that the event belongs to.
    operation: Option<OperationId>,
    /// The tag and the operation that is started.
    starts: Option<(u64, Operation)>,
    client: Option<Key8>,
}

impl<M: Subject> Witness<M> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            machine: M::build(config.clone()),
            config,
            now: Instant::from_secs(1),
            late: false,
            open: BTreeMap::new(),
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

    /// A request in flight.
    pub(crate) fn open(&self, number: u8) -> Option<(RequestId, Key8)> {
        let open = self.open.iter().nth(usize::from(number) % self.open.len().max(1));
        open.map(|(id, open)| (*id, open.node))
    }

    pub(crate) fn snapshot(&self) -> Vec<Saved<Grouped>> {
        self.machine.snapshot(self.now)
    }

    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }

    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        self.late = true;
    }

    /// Time goes on to the next wake-up, which is neither early nor late.
    pub(crate) fn wake(&mut self) {
        let Some(wake) = self.machine.poll_timeout() else {
            self.call(Inbound::Tick.into());
            return;
        };
        if wake <= self.now {
            assert!(self.late, "wake-up: nothing that is due is left undone");
            self.catch_up();
            return;
        }
        let mut early = self.machine.clone();
        let just_before = Instant::from_nanos(wake.as_nanos() - 1);
        let out = early.handle(just_before, Inbound::Tick.into());
        assert!(out.is_empty(), "wake-up: too late for {out:?}");
        assert_eq!(early.poll_timeout(), Some(wake), "wake-up: nothing happens before");
        // At a soft limit of a lookup, or where requests have to wait, there may be nothing to say.
        let explains = self.machine.traffic().queued > 0
            || self.is_busy()
            || self.open.values().any(|open| !matches!(open.owner, Owner::Include | Owner::Probe));
        (self.now, self.late) = (wake, false);
        let silent = self.call(Inbound::Tick.into()).is_empty();
        let waits = self.machine.traffic().queued > 0 || self.is_busy();
        assert!(!silent || explains || waits, "wake-up: for nothing, at {wake}");
    }

    /// Time runs before the event: the call is the same as a tick, and then the event.
    pub(crate) fn tell(&mut self, event: In) {
        if !self.late {
            self.call(event);
            return;
        }
        let both = self.machine.clone().handle(self.now, event.clone());
        let mut apart = self.catch_up();
        apart.extend(self.call(event));
        assert_eq!(both, apart, "time before the event");
    }

    /// Whether as many requests are in flight as may, in total or to some node.
    fn is_busy(&self) -> bool {
        let network = &self.config.network;
        let mut to = BTreeMap::new();
        self.open.values().for_each(|open| *to.entry(open.node).or_insert(0) += 1);
        self.open.len() == network.max_in_flight || to.values().any(|most| *most == network.max_per_node)
    }

    fn catch_up(&mut self) -> Vec<Out> {
        self.late = false;
        self.call(Inbound::Tick.into())
    }

    /// Until all operations have ended.
    pub(crate) fn end(mut self) -> BTreeMap<&'static str, u64> {
        while !self.operations.is_empty() {
            self.wake();
        }
        self.tally
    }

    fn call(&mut self, event: In) -> Vec<Out> {
        let span = event.context.parent().cloned().unwrap_or(SpanContext::NONE);
        let mut call = Call { span: span.clone(), operation: None, starts: None, client: None };
        match &event.event {
            Inbound::Start(start) => {
                let latest = self.now + OPERATION;
                let deadline = event.deadline.map_or(latest, |asked| asked.min(latest));
                let bootstrap = start.target == LOCAL;
                call.starts = Some((start.tag, Operation { span, deadline, bootstrap }));
            }
            Inbound::Stop(id) => call.operation = Some(*id),
            Inbound::Answered { request, closer } => {
                if let Some(open) = self.open.remove(request) {
                    call.operation = open.owner.operation();
                    if open.owner != Owner::Include || !closer.is_empty() {
                        self.failures.remove(&open.node);
                    }
                }
            }
            Inbound::Failed(request) => {
                if let Some(open) = self.open.remove(request) {
                    call.operation = open.owner.operation();
                    *self.failures.entry(open.node).or_insert(0) += usize::from(open.owner == Owner::Probe);
                }
            }
            Inbound::Connected { node, .. } => {
                self.failures.remove(node);
            }
            Inbound::Client(node) => {
                call.client = Some(*node);
                if !self.clients.contains(node) {
                    self.clients.push(*node);
                    self.clients.drain(..self.clients.len().saturating_sub(CLIENTS));
                }
            }
            _ => {}
        }
        let is_start = call.starts.is_some();
        let mut bootstrapped = BTreeSet::new();
        let out = self.machine.handle(self.now, event);
        for (place, stamped) in out.iter().enumerate() {
            let owner = match &stamped.event {
                Outbound::Started(started) => {
                    let (tag, operation) = call.starts.take().expect("one finish: nobody started it");
                    assert_eq!(started.operation.tag(), tag);
                    self.operations.insert(started.operation, operation);
                    Some(Owner::Operation(started.operation))
                }
                Outbound::Refused(refused) => {
                    let (tag, _) = call.starts.take().expect("one finish: nobody started it");
                    assert_eq!((refused.tag, stamped.deadline), (tag, None));
                    self.count("refused");
                    continue;
                }
                Outbound::Request(request) => {
                    let deadline = stamped.deadline.expect("deadline 3: every request has one");
                    assert!(deadline > self.now && deadline <= self.now + REQUEST, "deadline 3: {deadline}");
                    let known = self.config.network.min_timeout == REQUEST
                        && self.config.network.max_queued == 0
                        && matches!(request.owner, Owner::Include | Owner::Probe);
                    assert!(!known || deadline == self.now + REQUEST, "context 4: a deadline of its own");
                    let open = Open { owner: request.owner, node: request.node, deadline };
                    assert!(self.open.insert(request.id, open).is_none());
                    self.count("request");
                    Some(request.owner)
                }
                Outbound::Cancel(cancel) => {
                    let open = self.open.remove(&cancel.id);
                    let open = open.expect("deadline 5: one cancel, of what is in flight");
                    assert_eq!((open.owner, open.node), (cancel.owner, cancel.node));
                    let timed_out = cancel.reason == GivenUp::TimedOut;
                    assert!(!timed_out || open.deadline <= self.now, "deadline 3: too early");
                    let failed = timed_out && open.owner == Owner::Probe;
                    *self.failures.entry(open.node).or_insert(0) += usize::from(failed);
                    self.count("cancel");
                    Some(cancel.owner)
                }
                Outbound::Progress(progress) => Some(Owner::Operation(progress.operation)),
                Outbound::Finished(finish) => Some(Owner::Operation(finish.operation)),
                Outbound::Admitted(node) => {
                    assert!(self.table.insert(*node), "table: {node:?} is in it");
                    self.failures.remove(node);
                    self.count("admitted");
                    None
                }
                Outbound::Removed(node) => {
                    assert!(self.table.remove(node), "table: {node:?} is not in it");
                    let failures = self.failures.remove(node).unwrap_or(0);
                    let dead = failures == self.config.table.max_failures;
                    let replaced = failures > 0 && admits_beside(&out[place + 1..], *node);
                    let client = call.client == Some(*node);
                    assert!(dead || replaced || client, "no blame: {node:?} failed {failures} probes");
                    self.count("removed");
                    None
                }
                Outbound::Bootstrapped(notice) => {
                    if let Some(id) = notice.operation {
                        assert!(bootstrapped.remove(&id), "bootstrapped: {id:?} has not finished");
                    }
                    self.count("bootstrapped");
                    None
                }
                Outbound::NearEmpty { nodes } => {
                    assert!(*nodes < MIN_NODES);
                    self.count("near empty");
                    None
                }
                other => panic!("{other:?}"),
            };
            match owner {
                Some(Owner::Operation(id)) => self.of_operation(&call, id, stamped),
                owner => self.of_maintenance(owner, stamped),
            }
            if let Outbound::Finished(finish) = &stamped.event {
                let operation = self.operations.remove(&finish.operation);
                if operation.is_some_and(|operation| operation.bootstrap) {
                    bootstrapped.insert(finish.operation);
                    self.count("joined");
                }
            }
        }
        assert!(call.starts.is_none(), "one finish: each start is answered at once: {is_start}");
        assert!(bootstrapped.is_empty(), "bootstrapped: each bootstrap is noticed");
        self.look();
        out
    }

    /// What an operation says.
    fn of_operation(&self, call: &Call, id: OperationId, stamped: &Out) {
        let operation = self.operations.get(&id).expect("one finish: nothing comes after it");
        let continues = call.operation == Some(id) && call.span.is_valid();
        let span = if continues { &call.span } else { &operation.span };
        assert_eq!(stamped.context, Context::Parent(span.clone()), "context 1 to 3: {stamped:?}");
        match stamped.event {
            Outbound::Request(_) => assert!(stamped.deadline <= Some(operation.deadline), "deadline 3"),
            _ => assert_eq!(stamped.deadline, Some(operation.deadline), "deadline 1"),
        }
    }

    /// What the maintenance says.
    fn of_maintenance(&mut self, owner: Option<Owner>, stamped: &Out) {
        assert!(matches!(stamped.context, Context::Link(_)), "context 4: {stamped:?}");
        let request = matches!(stamped.event, Outbound::Request(_));
        assert!(request || stamped.deadline.is_none(), "context 4: no deadline: {stamped:?}");
        match owner {
            Some(Owner::Include) => self.count("include"),
            Some(Owner::Probe) => self.count("probe"),
            Some(Owner::Explore) => self.count("explore"),
            Some(_) => self.count("bootstrap"),
            None => {}
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// What holds after every call.
    fn look(&mut self) {
        let (machine, now, config) = (&self.machine, self.now, &self.config);
        assert!(machine.poll_timeout().is_none_or(|wake| wake > now), "wake-up: something is due still");
        assert!(self.open.values().all(|open| open.deadline > now), "deadline 3: it ends by its time-out");
        assert!(self.operations.values().all(|operation| operation.deadline > now), "deadline 2");
        // Requests.
        let (traffic, counts) = (machine.traffic(), machine.counts());
        let ended = traffic.answered + traffic.failed + traffic.timed_out + traffic.cancelled;
        assert_eq!(traffic.sent, ended + traffic.in_flight, "deadline 5");
        assert_eq!(traffic.in_flight, self.open.len() as u64);
        assert!(self.open.len() <= config.network.max_in_flight);
        assert!(traffic.queued <= config.network.max_queued as u64);
        // Checks: bounded, of whom they should be, and none is lost.
        let nodes = |owner| {
            let of = self.open.values().filter(move |open| open.owner == owner).map(|open| open.node);
            (of.clone().count() as u64, of.collect::<BTreeSet<_>>())
        };
        let ((included, candidates), (probed, probes)) = (nodes(Owner::Include), nodes(Owner::Probe));
        assert!(included == candidates.len() as u64 && probed == probes.len() as u64, "one check for each");
        assert!(probes.is_subset(&self.table), "whom to probe is in the table");
        let (include, probe) = (counts.include, counts.probe);
        assert!(include.in_flight <= CHECKS && probe.in_flight <= CHECKS && include.queued <= QUEUED);
        let wait = (include.in_flight + probe.in_flight).checked_sub(included + probed);
        assert!(wait.is_some_and(|wait| wait <= traffic.queued), "a check is under way, or waits: {wait:?}");
        let dropped = include.duplicate + include.dropped + include.shunned + include.unwanted;
        let known = dropped + include.passed + include.failed;
        assert_eq!(include.offered, known + include.in_flight + include.queued);
        if include.queued > 0 && include.in_flight < CHECKS {
            assert!(self.is_busy(), "no candidate waits for nothing");
        }
        // One bootstrap, where it is ours.
        let ours = self.open.values().any(|open| open.owner == Owner::Bootstrap);
        assert!(!ours || !self.operations.values().any(|operation| operation.bootstrap), "two bootstraps");
        // The table, and the list of nodes to probe.
        let table = machine.table();
        assert_eq!(self.table, table.iter().map(|record| *record.node()).collect());
        assert_eq!(probe.nodes, table.len() as u64);
        let mut groups = BTreeMap::new();
        for record in table.iter() {
            let known = record.node();
            assert_eq!(machine.probes(known), Some(true), "{known:?} is in the table, and not probed");
            assert!(*known != node(REFUSED) && *known != LOCAL);
            assert!(!self.clients.contains(known), "{known:?} is a client");
            if let Some(group) = Grouped::group(known) {
                *groups.entry((group, None)).or_insert(0) += 1;
                *groups.entry((group, Some(known.common_prefix_len(&LOCAL)))).or_insert(0) += 1;
            }
        }
        assert!((0..8).all(|cpl| table.bucket(cpl).len() <= BUCKET));
        for ((_, bucket), members) in groups {
            let most = match bucket {
                None => config.table.max_per_group,
                Some(_) => config.table.max_per_group_in_bucket,
            };
            assert!(members <= most, "{members} of one group");
        }
    }
}

/// Whether a node of the same bucket is admitted next.
fn admits_beside(rest: &[Stamped<Outbound<Grouped>>], node: Key8) -> bool {
    let admitted = rest.iter().find_map(|out| match out.event {
        Outbound::Admitted(other) => Some(other),
        _ => None,
    });
    admitted.is_some_and(|other| other.common_prefix_len(&LOCAL) == node.common_prefix_len(&LOCAL))
}
