//! The ledger: sees every event in and out of a machine that runs operations, and asserts after every call what holds for any
//! operation, whatever it is about.
//!
//! Where an assertion fails, its message names the rule: those of the context and deadline rules by their number
//! (`context 3`, `deadline 5`), the others by name. What an operation of each kind asks, and what it makes of the answers, is
//! the affair of its [`Matter`]: [`opening`] knows which start makes which.
//!
//! - [`net`]: the networks that scenarios play in.
//! - [`subject`]: the machines, in one shape: the coordinator's events, which are a superset.
//! - [`between`]: what holds between calls: turns, sums, limits, the wake-up.
//! - [`matter`]: what a kind of operation has to say for itself: [`lookup`] (by the account of [`known`]), [`crawl`], and [`cast`].
//!   What a broadcast does after its finish is an aside of its own.

#![allow(dead_code)] // each test binary uses its part

mod background;
mod between;
pub(crate) mod cast;
pub(crate) mod crawl;
pub(crate) mod known;
pub(crate) mod lookup;
pub(crate) mod matter;
pub(crate) mod net;
pub(crate) mod subject;

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::netsize::NotEnoughData;
use kad_proto::table::Offered;
use kad_proto::{
    Bits, Cancel, Config, Context, GivenUp, Instant, OperationId, Outcome, Owner, Progress, RefusedBecause,
    Reply, Request, RequestId, RoutingConfig, RoutingTable, Stamped, Statistics, Traffic,
};
use matter::{Asking, Matter, Opening, Replied, World, ending, opening, progress_of};
use net::{Net, Peer, Tally};
use opentelemetry::trace::SpanContext;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use subject::{In, Out, Subject};

/// A live operation.
pub(crate) struct Op<const N: usize> {
    /// The context it was started with.
    own: SpanContext,
    deadline: Instant,
    arrival: u64,
    running: bool,
    /// It has taken its turn.
    begun: bool,
    statistics: Statistics,
    pub(crate) matter: Box<dyn Matter<N>>,
    /// Its requests are being given up because it ends: nothing but cancels and the finish may follow.
    ending: bool,
    /// The request that was just given up as timed out: the next event must report that.
    owed: Option<(RequestId, Sent<N>)>,
    /// Requests to a node that has just answered another one: they are given up next.
    superseded: Vec<RequestId>,
}

/// A request in flight.
#[derive(Clone, Debug)]
pub(crate) struct Sent<const N: usize> {
    pub(crate) owner: Owner,
    pub(crate) node: Peer<N>,
    pub(crate) target: Bits<N>,
    pub(crate) hop: u32,
    pub(crate) at: Instant,
    soft: Option<Instant>,
    pub(crate) deadline: Instant,
    /// Until when its answer is of use.
    until: Instant,
    /// The operation that it was left by.
    aside: Option<OperationId>,
}

pub(crate) struct Ledger<const N: usize> {
    config: Rc<Config>,
    local: Bits<N>,
    now: Instant,
    pub(crate) operations: BTreeMap<OperationId, Op<N>>,
    /// What goes on after the finish of its operation.
    pub(crate) asides: BTreeMap<OperationId, Op<N>>,
    /// Bootstraps that have ended, and are to be noticed.
    bootstraps: Vec<(OperationId, Outcome, Statistics, Context)>,
    pub(crate) ended: BTreeSet<OperationId>,
    /// In flight, in order of being sent.
    pub(crate) requests: Vec<(RequestId, Sent<N>)>,
    pub(crate) closed: Vec<RequestId>,
    issued: BTreeSet<RequestId>,
    /// What the machine should count; `queued` is left at zero.
    traffic: Traffic,
    /// Nobody looks after the routing table, so that the events alone say what it holds.
    untended: bool,
    /// What the coordinator's routing table should hold, if it is untended.
    table: RoutingTable<Net<N>>,
    /// What it should hold in any case.
    members: Vec<Peer<N>>,
    arrivals: u64,
    pub(crate) tally: Tally,
}

/// One call under examination.
struct Call<'a, const N: usize> {
    now: Instant,
    event: &'a In<N>,
    /// Time has run; what comes now follows from the event.
    acted: bool,
    /// The live operation that the inbound event belongs to, if it is still there when time has run.
    cause: Option<OperationId>,
    /// The request in flight that the inbound event is a reply to, if it is still there when time has run.
    reply: Option<(RequestId, Sent<N>)>,
    /// The table when time has run, where there is one.
    table: Option<&'a RoutingTable<Net<N>>>,
    /// How large the network is, likewise.
    size: Result<u64, NotEnoughData>,
    /// Nothing waited for capacity, before or after.
    unqueued: bool,
    answered: bool,
    /// Changes of the table expected so far.
    effects: Vec<Out<N>>,
    /// Whose reply the inbound event is cannot be told.
    vague: bool,
    /// Deadline and arrival of those that took their turn and ended in this same call.
    brief: Vec<(Instant, u64)>,
}

impl<const N: usize> Op<N> {
    /// It takes its turn, if it has not.
    fn begin(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.begun, true) {
            self.matter.begin(now, self.deadline);
        }
    }
}

impl<const N: usize> Ledger<N> {
    pub(crate) fn new(local: Bits<N>, config: Config) -> Self {
        Self {
            local,
            now: Instant::ORIGIN,
            operations: BTreeMap::new(),
            asides: BTreeMap::new(),
            bootstraps: Vec::new(),
            ended: BTreeSet::new(),
            requests: Vec::new(),
            closed: Vec::new(),
            issued: BTreeSet::new(),
            traffic: Traffic::default(),
            untended: config.routing == RoutingConfig::off(),
            table: RoutingTable::new(local, config.table.clone()).unwrap(),
            members: Vec::new(),
            arrivals: 0,
            tally: Tally::new(),
            config: Rc::new(config),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// The deadline of the operation, if it lives.
    pub(crate) fn deadline(&self, operation: OperationId) -> Option<Instant> {
        self.operations.get(&operation).map(|operation| operation.deadline)
    }

    /// Whether lookups may ask about keys beside their target.
    pub(crate) fn looks_at_rim(&self) -> bool {
        self.config.pool.query.rim
    }

    /// k, and how many results can be asked for.
    pub(crate) fn results(&self) -> (usize, usize) {
        (self.config.pool.query.k, self.config.pool.query.max_candidates)
    }

    /// Hands the event in and checks all that comes out.
    pub(crate) fn call<S: Subject<N>>(
        &mut self,
        machine: &mut S,
        now: Instant,
        event: &In<N>,
    ) -> Vec<Out<N>> {
        let queued = machine.traffic().queued;
        let mut ticked = machine.clone();
        let out = machine.handle(now, event.clone());
        let mut apart = ticked.handle(now, Stamped::new(Inbound::Tick));
        // So much of what came out is time's; the rest follows from the event.
        let times = apart.len();
        apart.extend(ticked.clone().handle(now, event.clone()));
        assert_eq!(out, apart, "time runs before the event: as a tick, and then the event");
        // A reading earlier than the latest is treated as the latest.
        self.now = self.now.max(now);
        for op in self.operations.values_mut().chain(self.asides.values_mut()) {
            op.matter.look(self.now);
        }
        let mut call = Call {
            now: self.now,
            event,
            acted: false,
            cause: None,
            reply: None,
            table: ticked.table(),
            size: ticked.size(self.now),
            unqueued: queued == 0 && machine.traffic().queued == 0 && self.never_full(&out),
            answered: false,
            effects: Vec::new(),
            vague: false,
            brief: Vec::new(),
        };
        for stamped in &out[..times] {
            self.outbound(&mut call, stamped);
        }
        self.is_quiet();
        self.take_turns(&mut call);
        for op in self.operations.values_mut().chain(self.asides.values_mut()) {
            op.matter.passed(call.now);
        }
        self.act(&mut call);
        for stamped in &out[times..] {
            self.outbound(&mut call, stamped);
        }
        self.is_quiet();
        self.acted(&mut call, &machine.traffic());
        self.side_effects(machine, &call, &out);
        self.take_turns(&mut call);
        self.turns(&out, machine);
        self.after(machine);
        out
    }

    /// Time has run, and the event is looked at.
    fn act(&mut self, call: &mut Call<'_, N>) {
        call.acted = true;
        match &call.event.event {
            Inbound::Answered { request, .. }
            | Inbound::AnsweredWith { request, .. }
            | Inbound::Rejected { request, .. }
            | Inbound::Failed(request) => {
                call.reply = self.requests.iter().find(|(id, _)| id == request).cloned();
                call.cause = call.reply.as_ref().and_then(|(_, sent)| sent.owner.operation());
                // What becomes of the request of a side effect is not told.
                if call.reply.is_some() && call.cause.is_none() {
                    self.close(*request);
                    match call.event.event {
                        Inbound::Answered { .. } | Inbound::AnsweredWith { .. } => self.traffic.answered += 1,
                        _ => self.traffic.failed += 1,
                    }
                    self.count("aside: reply");
                    if let Some((id, sent)) =
                        call.reply.clone().filter(|(_, sent)| sent.owner == Owner::Background)
                    {
                        call.reply = None;
                        self.background_reply(call, id, &sent);
                    }
                }
            }
            Inbound::Stop(id) => {
                call.cause = self.operations.contains_key(id).then_some(*id);
            }
            _ => {}
        }
    }

    /// Whether every request of a call had room at once, even if no other was over by then.
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

    fn outbound(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>) {
        if let Some(progress) = progress_of(&stamped.event) {
            return self.progress(call, stamped, progress);
        }
        if let Some((id, outcome, statistics)) = ending(&stamped.event) {
            return self.finish(call, stamped, id, outcome, &statistics);
        }
        match &stamped.event {
            Outbound::Started(started) => self.started(call, stamped, started.operation),
            Outbound::Refused(refused) => self.refused(call, stamped, refused.tag, refused.reason),
            Outbound::Request(request) => self.request(call, stamped, request),
            Outbound::Cancel(cancel) => self.cancel(call, stamped, cancel),
            Outbound::Admitted(node) => {
                detached(stamped);
                assert!(!self.members.contains(node), "table: admitted once");
                self.members.push(*node);
            }
            Outbound::Removed(node) => {
                detached(stamped);
                let place = self.members.iter().position(|member| member == node);
                self.members.remove(place.expect("table: removed once, and only who was in it"));
            }
            Outbound::NetworkSize { .. } => {
                detached(stamped);
                self.count("network size");
            }
            Outbound::Bootstrapped(notice) => {
                let at = self.bootstraps.iter().position(|ended| {
                    notice.operation == Some(ended.0)
                        && (notice.outcome, notice.statistics) == (ended.1, ended.2)
                });
                let (.., context) = self.bootstraps.remove(at.expect("a bootstrap has ended, once"));
                assert_eq!(
                    (&stamped.context, stamped.deadline),
                    (&context, None),
                    "context 4: a side effect"
                );
            }
            other => panic!("an event that the ledger does not know: {other:?}"),
        }
    }

    /// Rules 1, 2 and 3: the inbound event's context if it is this operation's and valid, else the operation's own.
    fn context(&self, call: &Call<'_, N>, operation: OperationId) -> SpanContext {
        let op = self.operations.get(&operation).or_else(|| self.asides.get(&operation));
        let own = &op.expect("an operation that lives, or goes on").own;
        match &call.event.context {
            Context::Parent(span) if call.acted && call.cause == Some(operation) && span.is_valid() => {
                span.clone()
            }
            _ => own.clone(),
        }
    }

    /// An event of a live operation: its stamp is right, and it may come now.
    fn of(
        &mut self,
        call: &Call<'_, N>,
        stamped: &Out<N>,
        operation: OperationId,
        deadline: Option<Instant>,
    ) -> &mut Op<N> {
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
            "stamp: the deadline of {stamped:?}"
        );
        let last_words = matches!(stamped.event, Outbound::Cancel(_)) || ending(&stamped.event).is_some();
        assert!(
            !op.ending || last_words,
            "deadline 5: an operation that gives up its requests is ending: {stamped:?}"
        );
        let report = match (progress_of(&stamped.event), &op.owed) {
            (Some(progress), Some((id, _))) => progress.id == *id,
            (_, owed) => owed.is_none(),
        };
        assert!(report, "a request given up as timed out is reported next: {stamped:?}");
        let gives_up =
            matches!(&stamped.event, Outbound::Cancel(cancel) if op.superseded.contains(&cancel.id));
        assert!(
            op.superseded.is_empty() || gives_up,
            "deadline 5: what is superseded is given up next: {stamped:?}"
        );
        op
    }

    fn started(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, id: OperationId) {
        assert!(call.acted, "deadline 7: a start is answered when time has run");
        let config = Rc::clone(&self.config);
        let opening = opening(&call.event.event, &config).expect("started without a start");
        assert!(!call.answered, "deadline 7: one answer to a start");
        assert_eq!(
            self.objection(call, &opening),
            None,
            "deadline 7: a start that cannot be accepted is refused by name"
        );
        assert_eq!(id.tag(), opening.tag, "an operation's id holds its tag");
        assert!(!self.operations.contains_key(&id) && !self.ended.contains(&id), "ids are not used twice");
        call.answered = true;
        let own = match &call.event.context {
            Context::Parent(span) if span.is_valid() => span.clone(),
            _ => SpanContext::NONE,
        };
        let latest = call.now + opening.timeout;
        let op = Op {
            own,
            deadline: call.event.deadline.map_or(latest, |asked| asked.min(latest)),
            arrival: self.arrivals,
            running: false,
            begun: false,
            statistics: Statistics::default(),
            matter: (opening.matter)(&World { local: self.local, table: call.table, size: call.size }),
            ending: false,
            owed: None,
            superseded: Vec::new(),
        };
        self.arrivals += 1;
        let deadline = op.deadline;
        self.operations.insert(id, op);
        self.of(call, stamped, id, Some(deadline)).statistics.started = call.now;
        self.count("started");
    }

    /// Why a start cannot be accepted: the first reason of several.
    fn objection(&self, call: &Call<'_, N>, opening: &Opening<'_, N>) -> Option<RefusedBecause> {
        let pool = &self.config.pool;
        let alike = self.operations.values().filter(|op| op.matter.kind() == opening.kind).count();
        if self.operations.keys().any(|id| id.tag() == opening.tag) {
            Some(RefusedBecause::TagInUse)
        } else if self.operations.len() >= pool.max_running + pool.max_waiting || alike >= opening.most {
            Some(RefusedBecause::Full)
        } else if opening.objection.is_some() {
            opening.objection
        } else if call.event.deadline.is_some_and(|asked| asked <= call.now)
            || call.now == Instant::FAR_FUTURE
        {
            Some(RefusedBecause::DeadlinePassed)
        } else {
            None
        }
    }

    fn refused(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, tag: u64, reason: RefusedBecause) {
        assert!(call.acted, "deadline 7: a start is answered when time has run");
        let config = Rc::clone(&self.config);
        let opening = opening(&call.event.event, &config).expect("refused without a start");
        assert!(!call.answered, "deadline 7: one answer to a start");
        assert_eq!(
            (tag, Some(reason)),
            (opening.tag, self.objection(call, &opening)),
            "deadline 7: refused by name"
        );
        assert_eq!(
            (&stamped.context, stamped.deadline),
            (&call.event.context, None),
            "a refusal has the start's context"
        );
        call.answered = true;
        self.count(match reason {
            RefusedBecause::TagInUse => "refused: tag in use",
            RefusedBecause::Full => "refused: full",
            RefusedBecause::DeadlinePassed => "refused: deadline passed",
            RefusedBecause::Quorum => "refused: quorum",
            RefusedBecause::NumResults { .. } => "refused: number of results",
            RefusedBecause::Records { .. } => "refused: records",
            RefusedBecause::Nodes { .. } => "refused: nodes",
            other => panic!("a reason that the ledger does not know: {other}"),
        });
    }

    fn request(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, request: &Request<Net<N>>) {
        let network = self.config.network.clone();
        let deadline = stamped.deadline.expect("a request has a deadline");
        assert!(deadline > call.now, "deadline 3: no request at or after its own deadline");
        let own = call.now + network.request_timeout;
        let (mut soft, mut until, mut aside) = (None, own, None);
        if let Some(id) = request.owner.operation() {
            let op = self.of(call, stamped, id, Some(deadline));
            op.begin(call.now);
            until = op.matter.until(request).map_or(op.deadline, |until| until.min(op.deadline));
            let latest = until.min(own);
            assert!(
                deadline <= latest,
                "deadline 3: the earlier of its operation's and now + the request timeout"
            );
            // Adapted limits are the machine's own affair; one to a node asked again has what the first one left.
            let fixed = network.min_timeout >= network.request_timeout;
            soft = Some(call.now + network.soft_timeout);
            soft = soft.filter(|soft| fixed && *soft < deadline && !op.matter.is_patient(request));
            let asking = Asking { now: call.now, request, soft, unqueued: call.unqueued };
            let (first, counts) = op.matter.asks(&asking);
            assert!(
                !fixed || !first || deadline == latest,
                "deadline 3: not earlier either: {stamped:?} {latest:?} at {}",
                call.now
            );
            op.statistics.requests += 1;
            counts.into_iter().for_each(|what| self.count(what));
        } else if request.owner == Owner::Background {
            assert!(
                deadline <= own,
                "deadline 3: the earlier of the background's and now + the request timeout"
            );
            (soft, until, aside) = self.background_request(call, stamped, request, deadline);
        } else {
            self.aside(stamped);
            assert!(deadline <= own, "context 4: a deadline of its own");
            self.count("aside: request");
        }
        assert!(self.issued.insert(request.id), "ids are not used twice");
        self.requests.push((
            request.id,
            Sent {
                owner: request.owner,
                node: request.node,
                target: request.target,
                hop: request.hop,
                at: call.now,
                soft,
                deadline,
                until,
                aside,
            },
        ));
        self.traffic.sent += 1;
        self.traffic.in_flight += 1;
        let to_node = self.requests.iter().filter(|(_, sent)| sent.node.key == request.node.key).count();
        assert!(to_node <= network.max_per_node, "network: requests in flight to one node");
        assert!(self.requests.len() <= network.max_in_flight, "network: requests in flight in total");
    }

    /// Rule 4: what is no operation's is a side effect.
    fn aside(&self, stamped: &Out<N>) {
        assert!(
            !self.untended,
            "nobody but operations asks, where nobody looks after the table: {stamped:?}"
        );
        assert!(matches!(stamped.context, Context::Link(_)), "context 4: a link, and no parent: {stamped:?}");
    }

    fn close(&mut self, id: RequestId) -> Sent<N> {
        let place = self.requests.iter().position(|(open, _)| *open == id);
        let Some(place) = place else { panic!("deadline 5: one end for each request, {id:?} has none open") };
        self.closed.push(id);
        self.traffic.in_flight -= 1;
        self.requests.remove(place).1
    }

    fn cancel(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, cancel: &Cancel<Net<N>>) {
        let (id, now) = (cancel.id, call.now);
        let sent = self.close(id);
        assert_eq!((sent.owner, sent.node), (cancel.owner, cancel.node), "a cancel names its request");
        let timed_out = cancel.reason == GivenUp::TimedOut;
        assert!(!timed_out || sent.deadline <= now, "deadline 3: timed out before its deadline");
        *(if timed_out { &mut self.traffic.timed_out } else { &mut self.traffic.cancelled }) += 1;
        if cancel.owner == Owner::Background {
            return self.background_cancel(call, stamped, id, &sent, cancel.reason);
        }
        let Some(operation) = cancel.owner.operation() else {
            self.aside(stamped);
            assert_eq!(stamped.deadline, None, "context 4: no deadline");
            return self.count(if timed_out { "aside: timed out" } else { "aside: unneeded" });
        };
        let op = self.of(call, stamped, operation, None);
        let what = match cancel.reason {
            GivenUp::TimedOut => {
                assert!(
                    sent.deadline < sent.until,
                    "deadline 6: it had all its operation's time: the operation ended"
                );
                op.owed = Some((id, sent));
                op.statistics.timeouts += 1;
                "cancel: timed out"
            }
            GivenUp::Superseded => {
                assert!(op.superseded.contains(&id), "deadline 5: superseded by no answer of its node");
                op.superseded.retain(|superseded| *superseded != id);
                op.statistics.cancelled += 1;
                "cancel: superseded"
            }
            GivenUp::OperationEnded => {
                op.ending = true;
                op.statistics.cancelled += 1;
                // Found by its operation's deadline in the same call as its own: the earlier one counts.
                assert!(
                    op.deadline > now || sent.deadline >= op.deadline,
                    "deadline 6: a request that ran into its own timeout before its operation ended is a failure"
                );
                op.matter.given_up(now, id, &sent, cancel.reason);
                "cancel: operation ended"
            }
            reason => {
                op.statistics.cancelled += 1;
                op.matter.given_up(now, id, &sent, reason);
                "cancel: by its operation"
            }
        };
        self.count(what);
    }

    fn progress(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, progress: &Progress<Net<N>>) {
        let (id, node) = (progress.operation, progress.node);
        let by_event = !matches!(progress.reply, Reply::TimedOut);
        let closed = if by_event {
            assert!(call.acted, "a reply is looked at when time has run");
            let reply = call.reply.take().expect("a reply to a request in flight is reported, once");
            self.close(reply.0);
            Some(reply)
        } else {
            self.operations.get_mut(&id).and_then(|op| op.owed.take())
        };
        let Some((request, sent)) = closed else { panic!("progress without cause: {progress:?}") };
        assert_eq!(
            (sent.owner, sent.node, request),
            (Owner::Operation(id), node, progress.id),
            "progress of the request that ended"
        );
        assert!(
            !by_event || sent.deadline > call.now,
            "deadline 3: time runs before the event, so it was late"
        );
        assert_eq!(
            (progress.hop, progress.elapsed),
            (sent.hop, call.now - sent.at),
            "progress: hop and time"
        );
        let context = self.operations.contains_key(&id).then(|| Context::Link(self.context(call, id)));
        let op = self.of(call, stamped, id, None);
        let elapsed = progress.elapsed;
        let mut replied = Replied {
            now: call.now,
            id: request,
            sent: &sent,
            elapsed,
            reply: &progress.reply,
            carried: None,
        };
        let mut silent = false;
        match (&progress.reply, &call.event.event) {
            (Reply::Answered { closer }, Inbound::Answered { closer: given, .. }) => {
                assert_eq!(closer, given, "progress: the nodes as the caller handed them in");
                op.superseded = op.matter.answered(&replied);
                op.statistics.success += 1;
                op.statistics.hops = op.statistics.hops.max(progress.hop);
            }
            (Reply::Answered { closer }, Inbound::AnsweredWith { closer: given, carried, .. }) => {
                assert_eq!(closer, given, "progress: the nodes as the caller handed them in");
                replied.carried = Some(carried);
                op.superseded = op.matter.answered(&replied);
                op.statistics.success += 1;
                op.statistics.hops = op.statistics.hops.max(progress.hop);
            }
            (Reply::Failed, Inbound::Failed(_)) => {
                op.matter.missed(&replied);
                op.statistics.failure += 1;
            }
            (Reply::Rejected(said), Inbound::Rejected { why, .. }) => {
                assert_eq!(said, why, "progress: the reason is passed through");
                op.matter.missed(&replied);
                op.statistics.failure += 1;
            }
            (Reply::TimedOut, _) => silent = op.matter.missed(&replied),
            (reply, event) => panic!("a reply of another kind: {reply:?} to {event:?}"),
        }
        assert_eq!(progress.statistics, op.statistics, "statistics: as the events say");
        let counts = op.matter.progress(call.now, &stamped.event);
        counts.into_iter().for_each(|what| self.count(what));
        // One silence is one failure, even if the node was asked twice.
        if silent {
            self.dead(call, progress.node, &context.clone().unwrap_or(Context::NONE));
        }
        self.noticed(call, progress, &context.unwrap_or(Context::NONE));
    }

    /// Counts what a request's end means for the traffic, and for the routing table.
    fn noticed(&mut self, call: &mut Call<'_, N>, progress: &Progress<Net<N>>, context: &Context) {
        match progress.reply {
            Reply::Answered { .. } => {
                self.traffic.answered += 1;
                self.alive(call, progress.node, Some(progress.elapsed), context);
                self.count("progress: answered");
            }
            Reply::Failed => {
                self.traffic.failed += 1;
                self.dead(call, progress.node, context);
                self.count("progress: failed");
            }
            Reply::Rejected(_) => {
                // It lives, but is no better for it.
                self.traffic.failed += 1;
                self.table.refresh(call.now, &progress.node, Some(progress.elapsed));
                self.count("progress: rejected");
            }
            _ => {}
        }
    }

    fn alive(
        &mut self,
        call: &mut Call<'_, N>,
        node: Peer<N>,
        round_trip: Option<Duration>,
        context: &Context,
    ) {
        if let Offered::Admitted { evicted } = self.table.offer(call.now, &node, round_trip) {
            let changes = evicted.map(Outbound::Removed).into_iter().chain([Outbound::Admitted(node)]);
            call.effects.extend(changes.map(|event| Stamped {
                event,
                context: context.clone(),
                deadline: None,
            }));
        }
    }

    fn dead(&mut self, call: &mut Call<'_, N>, node: Peer<N>, context: &Context) {
        if self.table.failed(&node) {
            let event = Outbound::Removed(node);
            call.effects.push(Stamped { event, context: context.clone(), deadline: None });
        }
    }

    fn finish(
        &mut self,
        call: &mut Call<'_, N>,
        stamped: &Out<N>,
        id: OperationId,
        outcome: Outcome,
        statistics: &Statistics,
    ) {
        let stopped = call.acted && matches!(call.event.event, Inbound::Stop(of) if of == id);
        let now = call.now;
        let of = |(_, sent): &&(RequestId, Sent<N>)| sent.owner == Owner::Operation(id);
        let in_flight = self.requests.iter().filter(of).count();
        let op = self.of(call, stamped, id, None);
        op.statistics.ended = Some(now);
        assert_eq!(*statistics, op.statistics, "statistics: as the events say");
        assert_eq!(statistics.in_flight() as usize, in_flight, "statistics: what is in flight");
        assert_eq!(
            outcome == Outcome::DeadlineExceeded,
            op.deadline <= now,
            "deadline 2: the outcome says so"
        );
        assert_eq!(outcome == Outcome::Stopped, stopped, "deadline 9: a stop ends it in the same call");
        if !op.running && !matches!(outcome, Outcome::DeadlineExceeded | Outcome::Stopped) {
            call.brief.push((op.deadline, op.arrival));
            op.begin(now);
        }
        let counts = op.matter.finish(now, &stamped.event, in_flight);
        let bootstrap = op.matter.is_bootstrap();
        self.goes_on(call, id);
        assert!(
            !self.requests.iter().any(|(_, sent)| sent.owner == Owner::Operation(id)),
            "deadline 5: cancels come before the finish"
        );
        if bootstrap {
            let context = Context::Link(self.context(call, id));
            self.bootstraps.push((id, outcome, *statistics, context));
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
            other => panic!("an outcome that the ledger does not know: {other}"),
        });
    }

    /// What the inbound event should have led to, whatever else came out.
    fn acted(&mut self, call: &mut Call<'_, N>, traffic: &Traffic) {
        if opening(&call.event.event, &self.config).is_some() {
            assert!(call.answered, "deadline 7: a start is answered at once");
        }
        match &call.event.event {
            Inbound::Stop(id) => {
                let ended = !self.operations.contains_key(id);
                assert!(ended, "deadline 9: a stop ends it in the same call");
                self.traffic.unknown += u64::from(call.cause.is_none());
            }
            Inbound::Answered { request, .. }
            | Inbound::AnsweredWith { request, .. }
            | Inbound::Rejected { request, .. }
            | Inbound::Failed(request) => {
                let open = self.requests.iter().any(|(id, _)| id == request);
                assert!(!open, "a reply to a request in flight is reported at once");
                assert!(call.cause.is_none() || call.reply.is_none(), "a reply is reported, not given up");
                if call.cause.is_some() || call.reply.is_some() || call.vague {
                    return;
                }
                if self.issued.contains(request) {
                    self.traffic.late += 1;
                    self.count("late");
                } else {
                    // Made up. It may name a request that ended in the queue, or be too like one to tell.
                    let taken_for_late = traffic.late > self.traffic.late && request.to_u64() < 1 << 63;
                    self.traffic.late += u64::from(taken_for_late);
                    self.traffic.unknown += u64::from(!taken_for_late);
                    self.count("forged");
                }
            }
            Inbound::Connected { node, round_trip } => {
                self.alive(call, *node, *round_trip, &link(call.event))
            }
            Inbound::Disconnected(node) => self.dead(call, *node, &link(call.event)),
            _ => {}
        }
    }

    /// Nothing that an event announced is left undone.
    fn is_quiet(&self) {
        for op in self.operations.values() {
            assert!(op.owed.is_none(), "a request given up as timed out is reported");
            assert!(op.superseded.is_empty(), "deadline 5: what is superseded is given up");
            assert!(!op.ending, "deadline 5: an operation that ends is finished at once");
        }
    }
}

/// Rule 4: a change of the table is nobody's child, and has no deadline.
fn detached<const N: usize>(stamped: &Out<N>) {
    assert!(matches!(stamped.context, Context::Link(_)), "context 4: a link, and no parent: {stamped:?}");
    assert_eq!(stamped.deadline, None, "context 4: no deadline: {stamped:?}");
}

/// Rule 4, where the cause is an event that belongs to no operation.
fn link<const N: usize>(event: &In<N>) -> Context {
    let (Context::Parent(span) | Context::Link(span)) = &event.context;
    Context::Link(span.clone())
}
