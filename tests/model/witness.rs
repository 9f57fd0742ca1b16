//! The witness: sees every event in and out of a machine, and asserts the contract after every call.
//!
//! Here is what each event must be when it comes out; what holds [between](between) calls has a file of its own.

mod between;

use super::known::Known;
use super::subject::{In, Out, Subject};
use super::{Net, Peer, Tally};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::table::Offered;
use kad_proto::{
    Ask, Bits, Cancel, Config, Context, Finish, GivenUp, Instant, OperationId, Outcome, Progress,
    RefusedBecause, Reply, Request, RequestId, RoutingTable, Stamped, Start, Statistics, Traffic,
};
use opentelemetry::trace::SpanContext;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A live operation.
pub(crate) struct Op<const N: usize> {
    /// The context it was started with.
    own: SpanContext,
    start: Start<Net<N>>,
    deadline: Instant,
    arrival: u64,
    running: bool,
    statistics: Statistics,
    known: Known<N>,
    /// Answers that carried a value.
    values: usize,
    /// Requests given up by its end whose nodes may yet have answered.
    abandoned: u32,
    /// Its requests are being given up because it ends: nothing but cancels and the finish may follow.
    ending: bool,
    /// The request that was just given up as timed out: the next event must report that.
    owed: Option<(RequestId, Sent<N>)>,
    /// Requests to a node that has just answered another one: they are given up next.
    superseded: Vec<RequestId>,
}

/// A request in flight.
#[derive(Clone)]
pub(crate) struct Sent<const N: usize> {
    pub(crate) operation: OperationId,
    pub(crate) node: Peer<N>,
    pub(crate) target: Bits<N>,
    hop: u32,
    at: Instant,
    soft: Option<Instant>,
    deadline: Instant,
}

pub(crate) struct Witness<const N: usize> {
    config: Config,
    local: Bits<N>,
    now: Instant,
    pub(crate) operations: BTreeMap<OperationId, Op<N>>,
    /// Bootstraps that have ended, and are to be noticed.
    bootstraps: Vec<(OperationId, Outcome, Statistics, Context)>,
    pub(crate) ended: Vec<OperationId>,
    /// In flight, in order of being sent.
    pub(crate) requests: Vec<(RequestId, Sent<N>)>,
    pub(crate) closed: Vec<RequestId>,
    issued: BTreeSet<RequestId>,
    /// What the machine should count; `queued` is left at zero.
    traffic: Traffic,
    /// What the coordinator's routing table should hold.
    table: RoutingTable<Net<N>>,
    arrivals: u64,
    pub(crate) tally: Tally,
}

/// One call under examination.
struct Call<'a, const N: usize> {
    now: Instant,
    event: &'a In<N>,
    /// The live operation that the inbound event belongs to, if it is still there when time has run.
    cause: Option<OperationId>,
    /// Time has run; what comes now follows from the event.
    acted: bool,
    /// Nothing waited for capacity, before or after.
    unqueued: bool,
    answered: bool,
    /// Side effects expected so far.
    effects: Vec<Out<N>>,
    /// Deadline and arrival of those that took their turn and ended in this same call.
    brief: Vec<(Instant, u64)>,
}

impl<const N: usize> Witness<N> {
    pub(crate) fn new(local: Bits<N>, config: Config) -> Self {
        Self {
            local,
            now: Instant::ORIGIN,
            operations: BTreeMap::new(),
            bootstraps: Vec::new(),
            ended: Vec::new(),
            requests: Vec::new(),
            closed: Vec::new(),
            issued: BTreeSet::new(),
            traffic: Traffic::default(),
            table: RoutingTable::new(local, config.table.clone()).unwrap(),
            arrivals: 0,
            tally: Tally::new(),
            config,
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// The deadline of the operation, if it lives.
    pub(crate) fn deadline(&self, operation: OperationId) -> Option<Instant> {
        self.operations.get(&operation).map(|operation| operation.deadline)
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
        let mut twice = machine.clone();
        let out = machine.handle(now, event.clone());
        let mut apart = twice.handle(now, Stamped::new(Inbound::Tick));
        apart.extend(twice.handle(now, event.clone()));
        assert_eq!(out, apart, "time runs before the event: as a tick, and then the event");
        // A reading earlier than the latest is treated as the latest.
        self.now = self.now.max(now);
        for op in self.operations.values_mut() {
            op.known.look(self.now);
        }
        let mut call = Call {
            now: self.now,
            event,
            cause: self.cause(event, &out),
            acted: false,
            unqueued: queued == 0 && machine.traffic().queued == 0 && self.never_full(&out),
            answered: false,
            effects: Vec::new(),
            brief: Vec::new(),
        };
        for stamped in &out {
            self.outbound(&mut call, stamped);
        }
        self.acted(&mut call, &machine.traffic());
        self.side_effects(machine, &call, &out);
        self.take_turns(&mut call);
        self.turns(&out, machine);
        self.after(machine);
        out
    }

    /// Which operation the inbound event belongs to. What time does first, in the same call, may end it or its
    /// request before the event is looked at.
    fn cause(&self, event: &In<N>, out: &[Out<N>]) -> Option<OperationId> {
        let cancelled =
            |id| out.iter().any(|out| matches!(&out.event, Outbound::Cancel(cancel) if cancel.id == id));
        match event.event {
            Inbound::Answered { request, .. }
            | Inbound::AnsweredWith { request, .. }
            | Inbound::Rejected { request, .. }
            | Inbound::Failed(request)
                if !cancelled(request) =>
            {
                self.requests.iter().find(|(id, _)| *id == request).map(|(_, sent)| sent.operation)
            }
            Inbound::Stop(id) => {
                let finish = out.iter().find_map(|out| match &out.event {
                    Outbound::Finished(finish) if finish.operation == id => Some(finish.outcome),
                    _ => None,
                });
                let lives = self.operations.contains_key(&id);
                lives.then_some(id).filter(|_| finish.is_none_or(|outcome| outcome == Outcome::Stopped))
            }
            _ => None,
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
        match &stamped.event {
            Outbound::Started(started) => self.started(call, stamped, started.operation),
            Outbound::Refused(refused) => self.refused(call, stamped, refused.tag, refused.reason),
            Outbound::Request(request) => self.request(call, stamped, request),
            Outbound::Cancel(cancel) => self.cancel(call, stamped, cancel),
            Outbound::Progress(progress) => self.progress(call, stamped, progress),
            Outbound::Finished(finish) => self.finish(call, stamped, finish),
            Outbound::Admitted(_) | Outbound::Removed(_) => {}
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
            other => panic!("an event that the model does not know: {other:?}"),
        }
    }

    /// Rules 1, 2 and 3: the inbound event's context if it is this operation's and valid, else the operation's own.
    fn context(&self, call: &Call<'_, N>, operation: OperationId) -> SpanContext {
        let own = &self.operations[&operation].own;
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
        let last_words = matches!(stamped.event, Outbound::Cancel(_) | Outbound::Finished(_));
        assert!(
            !op.ending || last_words,
            "deadline 5: an operation that gives up its requests is ending: {stamped:?}"
        );
        let report = match (&stamped.event, &op.owed) {
            (Outbound::Progress(progress), Some((_, sent))) => progress.node == sent.node,
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
        let Inbound::Start(start) = &call.event.event else { panic!("started without a start") };
        self.take_turns(call);
        assert!(!call.answered, "deadline 7: one answer to a start");
        assert_eq!(
            self.objection(call, start),
            None,
            "deadline 7: a start that cannot be accepted is refused by name"
        );
        assert_eq!(id.tag(), start.tag, "an operation's id holds its tag");
        assert!(!self.operations.contains_key(&id) && !self.ended.contains(&id), "ids are not used twice");
        call.answered = true;
        call.acted = true;
        let own = match &call.event.context {
            Context::Parent(span) if span.is_valid() => span.clone(),
            _ => SpanContext::NONE,
        };
        let mut start = start.clone();
        let query = &self.config.pool.query;
        let wanted = 2 * query.k.max(start.num_results.unwrap_or(0));
        // An empty table, where the machine has none.
        start.seeds.extend(self.table.closest(start.target).take(wanted).map(|record| *record.node()));
        let known = Known::new(self.local, start.target, &self.config, &start, &start.seeds);
        let latest = call.now + query.timeout;
        let op = Op {
            own,
            deadline: call.event.deadline.map_or(latest, |asked| asked.min(latest)),
            arrival: self.arrivals,
            running: false,
            statistics: Statistics::default(),
            known,
            start,
            values: 0,
            abandoned: 0,
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
    fn objection(&self, call: &Call<'_, N>, start: &Start<Net<N>>) -> Option<RefusedBecause> {
        let pool = &self.config.pool;
        let most = pool.query.max_candidates;
        if self.operations.keys().any(|id| id.tag() == start.tag) {
            Some(RefusedBecause::TagInUse)
        } else if self.operations.len() >= pool.max_running + pool.max_waiting {
            Some(RefusedBecause::Full)
        } else if start.num_results.is_some_and(|wanted| !(1..=most).contains(&wanted)) {
            Some(RefusedBecause::NumResults { most })
        } else if start.quorum == Some(0) {
            Some(RefusedBecause::Quorum)
        } else if call.event.deadline.is_some_and(|asked| asked <= call.now)
            || call.now == Instant::FAR_FUTURE
        {
            Some(RefusedBecause::DeadlinePassed)
        } else {
            None
        }
    }

    fn refused(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, tag: u64, reason: RefusedBecause) {
        let Inbound::Start(start) = &call.event.event else { panic!("refused without a start") };
        assert!(!call.answered, "deadline 7: one answer to a start");
        assert_eq!(
            (tag, Some(reason)),
            (start.tag, self.objection(call, start)),
            "deadline 7: refused by name"
        );
        assert_eq!(
            (&stamped.context, stamped.deadline),
            (&call.event.context, None),
            "a refusal has the start's context"
        );
        call.answered = true;
        call.acted = true;
        self.count(match reason {
            RefusedBecause::TagInUse => "refused: tag in use",
            RefusedBecause::Full => "refused: full",
            RefusedBecause::DeadlinePassed => "refused: deadline passed",
            RefusedBecause::Quorum => "refused: quorum",
            _ => "refused: number of results",
        });
    }

    fn request(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, request: &Request<Net<N>>) {
        let network = self.config.network.clone();
        let unqueued = call.unqueued;
        let deadline = stamped.deadline.expect("a request has a deadline");
        let op = self.of(call, stamped, request.owner.operation().unwrap(), Some(deadline));
        assert!(deadline > call.now, "deadline 3: no request at or after its own deadline");
        let latest = op.deadline.min(call.now + network.request_timeout);
        assert!(
            deadline <= latest,
            "deadline 3: the earlier of its operation's and now + the request timeout"
        );
        assert_eq!(request.ask, op.start.ask, "a request asks what the start said");
        // Adapted limits are the machine's own affair; one to a node asked again has what the first one left.
        let fixed = network.min_timeout >= network.request_timeout;
        let soft = Some(call.now + network.soft_timeout).filter(|soft| fixed && *soft < deadline);
        let first = op.known.asks(call.now, request, soft, unqueued);
        assert!(!fixed || !first || deadline == latest, "deadline 3: not earlier either");
        let flipped = request.target != op.start.target;
        op.statistics.requests += 1;
        assert!(self.issued.insert(request.id), "ids are not used twice");
        self.requests.push((
            request.id,
            Sent {
                operation: request.owner.operation().unwrap(),
                node: request.node,
                target: request.target,
                hop: request.hop,
                at: call.now,
                soft,
                deadline,
            },
        ));
        self.traffic.sent += 1;
        self.traffic.in_flight += 1;
        let to_node = self.requests.iter().filter(|(_, sent)| sent.node.key == request.node.key).count();
        assert!(to_node <= network.max_per_node, "network: requests in flight to one node");
        assert!(self.requests.len() <= network.max_in_flight, "network: requests in flight in total");
        self.count(if matches!(request.ask, Ask::FindCloser) { "request" } else { "request: message" });
        if !first {
            self.count("request: again");
        }
        if flipped {
            self.count("request: of the rim");
        }
    }

    fn close(&mut self, id: RequestId) -> Sent<N> {
        let place = self.requests.iter().position(|(open, _)| *open == id);
        let Some(place) = place else { panic!("deadline 5: one end for each request, {id:?} has none open") };
        self.closed.push(id);
        self.traffic.in_flight -= 1;
        self.requests.remove(place).1
    }

    fn cancel(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, cancel: &Cancel<Net<N>>) {
        let sent = self.close(cancel.id);
        assert_eq!(
            (sent.operation, sent.node),
            (cancel.owner.operation().unwrap(), cancel.node),
            "a cancel names its request"
        );
        let stopped =
            matches!(call.event.event, Inbound::Stop(id) if id == cancel.owner.operation().unwrap());
        call.acted |= cancel.reason == GivenUp::OperationEnded
            && stopped
            && call.cause == Some(cancel.owner.operation().unwrap());
        let now = call.now;
        let op = self.of(call, stamped, cancel.owner.operation().unwrap(), None);
        match cancel.reason {
            GivenUp::TimedOut => {
                assert!(sent.deadline <= now, "deadline 3: timed out before its deadline");
                assert!(
                    sent.deadline < op.deadline,
                    "deadline 6: it had all its operation's time: the operation ended"
                );
                op.owed = Some((cancel.id, sent));
                op.statistics.timeouts += 1;
                self.traffic.timed_out += 1;
                self.count("cancel: timed out");
            }
            GivenUp::Superseded => {
                assert!(
                    op.superseded.contains(&cancel.id),
                    "deadline 5: superseded by no answer of its node"
                );
                op.superseded.retain(|id| *id != cancel.id);
                op.statistics.cancelled += 1;
                self.traffic.cancelled += 1;
                self.count("cancel: superseded");
            }
            _ => {
                op.ending = true;
                op.statistics.cancelled += 1;
                op.abandoned += u32::from(!op.known.has_failed(&cancel.node));
                // Found by its operation's deadline in the same call as its own: the earlier one counts.
                assert!(
                    op.deadline > now || sent.deadline >= op.deadline,
                    "deadline 6: a request that ran into its own timeout before its operation ended is a failure"
                );
                self.traffic.cancelled += 1;
                self.count("cancel: operation ended");
            }
        }
    }

    fn progress(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, progress: &Progress<Net<N>>) {
        let (id, node) = (progress.operation, progress.node);
        let by_event = !matches!(progress.reply, Reply::TimedOut);
        let closed = match call.event.event {
            Inbound::Answered { request, .. }
            | Inbound::AnsweredWith { request, .. }
            | Inbound::Rejected { request, .. }
            | Inbound::Failed(request)
                if by_event =>
            {
                assert!(!call.acted, "a reply is reported once");
                call.acted = true;
                Some((request, self.close(request)))
            }
            _ => self.operations.get_mut(&id).and_then(|op| op.owed.take()),
        };
        let Some((request, sent)) = closed else { panic!("progress without cause: {progress:?}") };
        assert_eq!((sent.operation, sent.node), (id, node), "progress of the request that ended");
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
        let mut silent = false;
        let op = self.of(call, stamped, id, None);
        match (&progress.reply, &call.event.event) {
            (
                Reply::Answered { closer },
                Inbound::Answered { closer: given, .. } | Inbound::AnsweredWith { closer: given, .. },
            ) => {
                assert_eq!(closer, given, "progress: the nodes as the caller handed them in");
                let value =
                    matches!(&call.event.event, Inbound::AnsweredWith { carried, .. } if carried.value);
                op.values += usize::from(value);
                let (elapsed, hop) = (progress.elapsed, progress.hop);
                op.superseded = op.known.answered(request, node, elapsed, hop, closer, value);
                op.statistics.success += 1;
                op.statistics.hops = op.statistics.hops.max(progress.hop);
            }
            (Reply::Failed, Inbound::Failed(_)) => {
                op.known.missed(request, node, false);
                op.statistics.failure += 1;
            }
            (Reply::Rejected(said), Inbound::Rejected { why, .. }) => {
                assert_eq!(said, why, "progress: the reason is passed through");
                op.known.missed(request, node, false);
                op.statistics.failure += 1;
            }
            (Reply::TimedOut, _) => {
                op.known.missed(request, node, true);
                silent = op.known.is_quiet(&node);
            }
            (reply, event) => panic!("a reply of another kind: {reply:?} to {event:?}"),
        }
        assert_eq!(progress.statistics, op.statistics, "statistics: as the events say");
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

    fn finish(&mut self, call: &mut Call<'_, N>, stamped: &Out<N>, finish: &Finish<Net<N>>) {
        let id = finish.operation;
        let stopped = matches!(call.event.event, Inbound::Stop(of) if of == id) && call.cause == Some(id);
        call.acted |= stopped;
        let (now, local, paths) = (call.now, self.local, self.config.pool.query.paths);
        let op = self.of(call, stamped, id, None);
        op.statistics.ended = Some(now);
        assert_eq!(finish.statistics, op.statistics, "statistics: as the events say");
        assert_eq!(finish.statistics.in_flight(), 0, "deadline 5: a finish leaves nothing in flight");
        assert_eq!(finish.target, op.start.target);
        assert_eq!(
            finish.outcome == Outcome::DeadlineExceeded,
            op.deadline <= now,
            "deadline 2: the outcome says so"
        );
        assert_eq!(
            finish.outcome == Outcome::Stopped,
            stopped,
            "deadline 9: a stop ends it in the same call"
        );
        assert_eq!(
            finish.outcome == Outcome::Quorum,
            op.start.quorum.is_some_and(|quorum| op.values >= quorum),
            "quorum: ends it with the answer that makes it, and nothing else does"
        );
        op.known.assert_finish(finish.outcome, &finish.closest);
        // At the node limit, a path that has converged does not wait for what it has in flight.
        let waits =
            finish.outcome == Outcome::Exhausted || finish.outcome == Outcome::NodeLimit && paths == 1;
        assert!(!waits || op.abandoned == 0, "outcome: {:?} while somebody may yet answer", finish.outcome);
        let exact = op.known.is_exact();
        let bootstrap = op.start.target == local && op.start.ask == Ask::FindCloser;
        if !op.running && !matches!(finish.outcome, Outcome::DeadlineExceeded | Outcome::Stopped) {
            call.brief.push((op.deadline, op.arrival));
        }
        assert!(
            !self.requests.iter().any(|(_, sent)| sent.operation == id),
            "deadline 5: cancels come before the finish"
        );
        if bootstrap {
            let context = Context::Link(self.context(call, id));
            self.bootstraps.push((id, finish.outcome, finish.statistics, context));
        }
        self.operations.remove(&id);
        self.ended.push(id);
        self.count(match finish.outcome {
            Outcome::Converged => "outcome: converged",
            Outcome::Exhausted => "outcome: exhausted",
            Outcome::NodeLimit => "outcome: node limit",
            Outcome::DeadlineExceeded => "outcome: deadline exceeded",
            Outcome::Quorum => "outcome: quorum",
            _ => "outcome: stopped",
        });
        if exact && finish.closest.len() > 2 {
            self.count("finish: exact account of several results");
        }
    }

    /// What the inbound event should have led to, whatever else came out.
    fn acted(&mut self, call: &mut Call<'_, N>, traffic: &Traffic) {
        match &call.event.event {
            Inbound::Start(_) => assert!(call.answered, "deadline 7: a start is answered at once"),
            Inbound::Stop(id) => {
                let ended = !self.operations.contains_key(id);
                assert!(ended, "deadline 9: a stop ends it in the same call");
                self.traffic.unknown += u64::from(call.cause.is_none());
            }
            Inbound::Answered { request, .. }
            | Inbound::AnsweredWith { request, .. }
            | Inbound::Rejected { request, .. }
            | Inbound::Failed(request) => {
                assert_eq!(
                    call.acted,
                    call.cause.is_some(),
                    "a reply to a request in flight is reported at once"
                );
                if call.cause.is_none() && self.issued.contains(request) {
                    self.traffic.late += 1;
                    self.count("late");
                } else if call.cause.is_none() {
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
            // The maintenance is off here.
            Inbound::Discovered(_)
            | Inbound::Client(_)
            | Inbound::Seeds(_)
            | Inbound::Restore(_)
            | Inbound::Tick => {}
            other => panic!("an event that the model does not know: {other:?}"),
        }
        assert!(
            self.operations.values().all(|op| op.owed.is_none()),
            "a request given up as timed out is reported"
        );
        let superseded = self.operations.values().any(|op| !op.superseded.is_empty());
        assert!(!superseded, "deadline 5: what is superseded is given up");
        assert!(
            self.operations.values().all(|op| !op.ending),
            "deadline 5: an operation that ends is finished at once"
        );
    }
}

/// Rule 4, where the cause is an event that belongs to no operation.
fn link<const N: usize>(event: &In<N>) -> Context {
    let (Context::Parent(span) | Context::Link(span)) = &event.context;
    Context::Link(span.clone())
}
