//! [`Checker`]: checks the [invariants](Invariant) after every call of an engine, by what goes in and what comes
//! out.
//!
//! The `World` gives it each call. The checker follows the operations and the requests of all nodes by itself and
//! compares them with the engine's events and counters.

use crate::broadcast::events::{BroadcastFinish, StoreEnd, Stored};
use crate::context::Context;
use crate::coordinator::events::Outbound;
use crate::requests::stats::RequestStats;
use crate::routing::events::RoutingOutbound;
use crate::sim::activity::{Activity, short_tag};
use crate::sim::invariants::Invariant;
use crate::sim::network::handle::{Handle, Key64, Net};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{Contact, Finish, OperationStats, Outcome, Progress};
use crate::vocabulary::request_events::{CancelReason, Request, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, SpanId};
use std::collections::{BTreeMap, BTreeSet};

/// The inbound event of a call, as far as the checks need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InboundKind {
    Start { tag: u32, target: Key64, deadline: Option<Instant> },
    Stop,
    Answered(RequestId),
    Failed(RequestId),
    Routing,
    Tick,
}

/// One call of an engine: the inbound event, the outbound events, and the engine's counters after it.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) now: Instant,
    pub(crate) node: Handle,
    pub(crate) inbound: InboundKind,
    /// The span of the inbound event.
    pub(crate) span: SpanContext,
    pub(crate) outbound: &'a [Stamped<Outbound<Net>>],
    pub(crate) stats: RequestStats,
    pub(crate) poll_timeout: Option<Instant>,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    activity: Activity,
    to: Handle,
    deadline: Instant,
}

/// A lookup or a broadcast that was started and has not finished.
#[derive(Clone, Debug)]
struct OpenOperation {
    node: Handle,
    target: Key64,
    span: SpanContext,
    deadline: Instant,
    accepted: bool,
    requests: u32,
    answered: BTreeSet<Handle>,
    /// The nodes that answered a store.
    stored: BTreeSet<Handle>,
}

/// What the finishes of lookups and of broadcasts have in common.
struct OperationEnd<'a> {
    operation: OperationId,
    target: Key64,
    outcome: Outcome,
    closest: &'a [Contact<Net>],
    stats: &'a OperationStats,
}

/// Follows the operations and requests of all nodes, and checks each call against them.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    request_timeout: Duration,
    requests: BTreeMap<(Handle, RequestId), InFlight>,
    operations: BTreeMap<u32, OpenOperation>,
    sent: BTreeMap<Handle, u64>,
}

type CheckResult = Result<(), (Invariant, String)>;

fn ensure(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> CheckResult {
    if holds { Ok(()) } else { Err((invariant, detail())) }
}

impl Checker {
    /// A checker of engines whose requests time out after `request_timeout`, at most.
    pub(crate) const fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            requests: BTreeMap::new(),
            operations: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Checks one call; called after each.
    pub(crate) fn check(&mut self, call: &Call<'_>) -> CheckResult {
        if let InboundKind::Start { tag, target, deadline } = call.inbound {
            let open = OpenOperation {
                node: call.node,
                target,
                span: call.span.clone(),
                deadline: deadline.unwrap_or(Instant::FAR_FUTURE),
                accepted: false,
                requests: 0,
                answered: BTreeSet::new(),
                stored: BTreeSet::new(),
            };
            self.operations.insert(tag, open);
        }
        for stamped in call.outbound {
            self.check_event(call, stamped)?;
        }
        if let InboundKind::Start { tag, .. } = call.inbound {
            let answered = self.operations.get(&tag).is_none_or(|open| open.accepted);
            ensure(answered, Invariant::OneFinish, || {
                format!("the start of {} was not answered", Activity::from_tag(tag))
            })?;
        }
        if let InboundKind::Answered(request) | InboundKind::Failed(request) = call.inbound {
            self.end_maintenance_request(call, request)?;
        }
        self.check_totals(call)
    }

    /// Drops the requests of a node whose engine was dropped: they do not end any more.
    pub(crate) fn forget(&mut self, node: Handle) {
        self.requests.retain(|(asker, _), _| *asker != node);
        self.sent.remove(&node);
    }

    /// Checks at the end of a run that no operation is left: none at all, or, if the run stops at `now` while
    /// more would happen, none whose deadline has passed.
    pub(crate) fn at_end(&self, now: Option<Instant>) -> Result<(), (Handle, Invariant, String)> {
        match self.operations.iter().find(|(_, open)| now.is_none_or(|now| open.deadline < now)) {
            None => Ok(()),
            Some((tag, open)) => {
                Err((open.node, Invariant::OneFinish, format!("{} never ended", Activity::from_tag(*tag))))
            }
        }
    }

    fn check_event(&mut self, call: &Call<'_>, stamped: &Stamped<Outbound<Net>>) -> CheckResult {
        match &stamped.event {
            // The simulator starts no crawls.
            Outbound::CrawlProgress(_) | Outbound::CrawlFinished(_) => Ok(()),
            Outbound::Started(started) => {
                let tag = short_tag(started.operation.tag());
                self.check_operation_context(call, tag, stamped)?;
                let (Some(open), activity) = (self.operations.get_mut(&tag), Activity::from_tag(tag)) else {
                    return Ok(());
                };
                ensure(!open.accepted, Invariant::OneFinish, || format!("{activity} was started twice"))?;
                open.accepted = true;
                let granted = stamped.deadline.unwrap_or(Instant::FAR_FUTURE);
                ensure(granted <= open.deadline && granted > call.now, Invariant::Deadline, || {
                    format!("{activity} may take until {granted}, not {}", open.deadline)
                })?;
                open.deadline = granted;
                Ok(())
            }
            Outbound::Request(request) => {
                self.check_activity_context(call, request.initiator.into(), stamped)?;
                self.request(call, request, stamped.deadline)
            }
            Outbound::Cancel(cancel) => {
                self.check_activity_context(call, cancel.initiator.into(), stamped)?;
                let in_flight = self.end_request(call, cancel.id, cancel.node)?;
                ensure(in_flight.activity == cancel.initiator.into(), Invariant::OneEnding, || {
                    format!("a request for {} is given up for {}", in_flight.activity, cancel.initiator)
                })?;
                let timed_out = cancel.reason == CancelReason::TimedOut;
                ensure(!timed_out || in_flight.deadline <= call.now, Invariant::Deadline, || {
                    format!("{:?} timed out before {}", cancel.id, in_flight.deadline)
                })
            }
            Outbound::Progress(progress) => {
                self.check_operation_context(call, short_tag(progress.operation.tag()), stamped)?;
                self.progress(call, progress, false)
            }
            Outbound::BroadcastProgress(progress) => {
                self.check_operation_context(call, short_tag(progress.request.operation.tag()), stamped)?;
                self.progress(call, &progress.request, progress.store)
            }
            Outbound::BroadcastFinished(finish) => {
                self.check_operation_context(call, short_tag(finish.operation.tag()), stamped)?;
                self.broadcast_finish(call, finish)
            }
            Outbound::Finished(finish) => {
                self.check_operation_context(call, short_tag(finish.operation.tag()), stamped)?;
                self.finish(call, finish)
            }
            Outbound::Refused(refused) => {
                let tag = short_tag(refused.tag);
                let open = self.operations.remove(&tag).filter(|open| !open.accepted);
                ensure(open.is_some(), Invariant::OneFinish, || {
                    format!("{} was refused, but not anew", Activity::from_tag(tag))
                })
            }
            event @ (Outbound::NetworkSize { .. }
            | Outbound::Routing(
                RoutingOutbound::Admitted(_)
                | RoutingOutbound::Removed(_)
                | RoutingOutbound::Bootstrapped(_)
                | RoutingOutbound::NearEmpty { .. },
            )) => {
                let detached = matches!(stamped.context, Context::Link(_)) && stamped.deadline.is_none();
                ensure(detached, Invariant::Context, || format!("{event:?} has a parent, or a deadline"))
            }
        }
    }

    /// Checks the context of a request or a cancel.
    fn check_activity_context(
        &self,
        call: &Call<'_>,
        activity: Activity,
        stamped: &Stamped<Outbound<Net>>,
    ) -> CheckResult {
        match activity.tag() {
            Some(tag) => self.check_operation_context(call, tag, stamped),
            None => ensure(matches!(stamped.context, Context::Link(_)), Invariant::Context, || {
                format!("{activity} has a parent: {:?}", stamped.event)
            }),
        }
    }

    /// Checks the context of an event of a lookup or a broadcast.
    fn check_operation_context(
        &self,
        call: &Call<'_>,
        tag: u32,
        stamped: &Stamped<Outbound<Net>>,
    ) -> CheckResult {
        let activity = Activity::from_tag(tag);
        let open = self.operations.get(&tag).filter(|open| open.node == call.node);
        let Some(open) = open else {
            return Err((
                Invariant::OneFinish,
                format!("{activity} does not live here: {:?}", stamped.event),
            ));
        };
        let span = match &stamped.context {
            Context::Parent(span) => span,
            Context::Link(_) => return Err((Invariant::Context, format!("{activity} is detached"))),
        };
        let caused = span.trace_id() == open.span.trace_id()
            && (span.span_id() == open.span.span_id() || span.span_id() == call.span.span_id());
        ensure(caused && span.span_id() != SpanId::INVALID, Invariant::Context, || {
            format!("{activity} speaks in span {:?}: {:?}", span.span_id(), stamped.event)
        })
    }

    fn request(&mut self, call: &Call<'_>, request: &Request<Net>, deadline: Option<Instant>) -> CheckResult {
        let (now, activity) = (call.now, Activity::from(request.initiator));
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let mut latest = now + self.request_timeout;
        if let Some(open) = activity.tag().and_then(|tag| self.operations.get_mut(&tag)) {
            latest = latest.min(open.deadline);
            open.requests += 1;
        }
        ensure(deadline > now && deadline <= latest, Invariant::Deadline, || {
            format!("{activity}: a request until {deadline}, which may take until {latest}")
        })?;
        ensure(
            request.node != call.node && Net::key(&request.node) != call.node.key(),
            Invariant::NotSelf,
            || format!("{activity}: a node asks itself"),
        )?;
        *self.sent.entry(call.node).or_default() += 1;
        let in_flight = InFlight { activity, to: request.node, deadline };
        let before = self.requests.insert((call.node, request.id), in_flight);
        ensure(before.is_none(), Invariant::OneEnding, || format!("{:?} is in flight twice", request.id))
    }

    /// Ends a request of the maintenance or of a broadcast's background when its response arrives: the engine
    /// emits no event that reports it.
    fn end_maintenance_request(&mut self, call: &Call<'_>, request: RequestId) -> CheckResult {
        let named = (call.node, request);
        match self.requests.get(&named).copied() {
            None | Some(InFlight { activity: Activity::Lookup(_) | Activity::Broadcast(_), .. }) => Ok(()),
            Some(InFlight { activity, deadline, .. }) => {
                self.requests.remove(&named);
                ensure(deadline > call.now, Invariant::Deadline, || {
                    format!("a late answer counts for {activity}")
                })
            }
        }
    }

    fn progress(&mut self, call: &Call<'_>, progress: &Progress<Net>, store: bool) -> CheckResult {
        let tag = short_tag(progress.operation.tag());
        let activity = Activity::from_tag(tag);
        let (request, answered) = match (&progress.outcome, call.inbound) {
            (RequestOutcome::TimedOut, _) => return Ok(()), // its cancel came before
            (RequestOutcome::Answered { .. }, InboundKind::Answered(request)) => (request, true),
            (RequestOutcome::Failed, InboundKind::Failed(request)) => (request, false),
            _ => {
                let detail = format!("nobody said what {activity} knows of {}", progress.node);
                return Err((Invariant::OneEnding, detail));
            }
        };
        let in_flight = self.end_request(call, request, progress.node)?;
        ensure(in_flight.deadline > call.now, Invariant::Deadline, || {
            format!("a late answer counts for {activity}")
        })?;
        if let Some(open) = self.operations.get_mut(&tag).filter(|_| answered) {
            (if store { &mut open.stored } else { &mut open.answered }).insert(progress.node);
        }
        Ok(())
    }

    fn end_request(
        &mut self,
        call: &Call<'_>,
        request: RequestId,
        node: Handle,
    ) -> Result<InFlight, (Invariant, String)> {
        match self.requests.remove(&(call.node, request)) {
            Some(in_flight) if in_flight.to == node => Ok(in_flight),
            _ => Err((Invariant::OneEnding, format!("{request:?} to {node} ends, but is not in flight"))),
        }
    }

    fn finish(&mut self, call: &Call<'_>, finish: &Finish<Net>) -> CheckResult {
        let Finish { operation, target, outcome, closest, stats } = finish;
        let end = OperationEnd { operation: *operation, target: *target, outcome: *outcome, closest, stats };
        self.end_operation(call, &end, false).map(|_| ())
    }

    fn broadcast_finish(&mut self, call: &Call<'_>, finish: &BroadcastFinish<Net>) -> CheckResult {
        let BroadcastFinish { operation, target, outcome, closest, stats, stores, .. } = finish;
        let end = OperationEnd { operation: *operation, target: *target, outcome: *outcome, closest, stats };
        // The remaining requests of an optimistic broadcast that is complete go on in the background.
        let Some(open) = self.end_operation(call, &end, finish.outcome == Outcome::Complete)? else {
            return Ok(());
        };
        let is_stored = |stored: &&Stored<Net>| stored.end == StoreEnd::Stored;
        let stored: BTreeSet<_> = stores.iter().filter(is_stored).map(|stored| stored.node).collect();
        let all: BTreeSet<_> = stores.iter().map(|stored| stored.node).collect();
        ensure(stored == open.stored && all.len() == stores.len(), Invariant::Stores, || {
            format!("{} says of its stores: {stores:?}", Activity::from_tag(short_tag(operation.tag())))
        })
    }

    /// Checks the last event of an operation. If it `leaves` requests behind, they belong to the background
    /// from now on.
    fn end_operation(
        &mut self,
        call: &Call<'_>,
        end: &OperationEnd<'_>,
        leaves: bool,
    ) -> Result<Option<OpenOperation>, (Invariant, String)> {
        let tag = short_tag(end.operation.tag());
        let activity = Activity::from_tag(tag);
        let Some(open) = self.operations.remove(&tag) else { return Ok(None) };
        let by_deadline = end.outcome == Outcome::DeadlineExceeded;
        let in_time = if by_deadline { call.now == open.deadline } else { call.now < open.deadline };
        ensure(in_time && open.accepted, Invariant::OneFinish, || {
            format!("{activity} ends by {:?}, with time until {}", end.outcome, open.deadline)
        })?;
        let mut left = 0;
        for (_, request) in self.requests.range_mut(Self::requests_of(call.node)) {
            if request.activity == activity {
                request.activity = Activity::Background;
                left += 1;
            }
        }
        ensure(leaves || left == 0, Invariant::OneEnding, || format!("{activity} leaves requests behind"))?;
        let sums = end.stats.in_flight() == left && end.stats.sent == open.requests;
        ensure(sums, Invariant::Conservation, || {
            format!("{activity} sent {} requests, {left} are left: {:?}", open.requests, end.stats)
        })?;
        let listed: Vec<_> = end.closest.iter().map(|contact| contact.node).collect();
        let far = |node: &Handle| node.key().distance(&open.target);
        let sound = listed.is_sorted_by(|a, b| far(a) < far(b))
            && listed.iter().all(|node| open.answered.contains(node))
            && end.target == open.target;
        ensure(sound, Invariant::Closest, || format!("{activity} lists {listed:?}"))?;
        Ok(Some(open))
    }

    /// Checks the engine's counters and its next wake-up time after a call.
    fn check_totals(&self, call: &Call<'_>) -> CheckResult {
        let RequestStats { sent, answered, failed, timed_out, cancelled, in_flight, .. } = call.stats;
        let mut count = 0;
        let mut deadline = Instant::FAR_FUTURE;
        for (_, request) in self.requests.range(Self::requests_of(call.node)) {
            count += 1;
            deadline = deadline.min(request.deadline);
        }
        let counted = self.sent.get(&call.node).copied().unwrap_or_default();
        let sums = sent == answered + failed + timed_out + cancelled + in_flight;
        ensure(sums && sent == counted && in_flight == count, Invariant::Conservation, || {
            format!("{counted} were sent and {count} are in flight: {:?}", call.stats)
        })?;
        ensure(deadline > call.now, Invariant::Deadline, || {
            format!("a request is in flight past {deadline}")
        })?;
        let wake = call.poll_timeout.unwrap_or(Instant::FAR_FUTURE);
        ensure(wake > call.now && wake <= deadline, Invariant::WakeUp, || {
            format!("the next wake-up is at {wake}, the next deadline {deadline}")
        })
    }

    /// The range of all requests of a node.
    fn requests_of(node: Handle) -> core::ops::RangeInclusive<(Handle, RequestId)> {
        (node, RequestId::from_u64(0))..=(node, RequestId::from_u64(u64::MAX))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // a test may fail so
mod tests {
    use super::*;
    use crate::broadcast::events::StartBroadcast;
    use crate::coordinator::Coordinator;
    use crate::coordinator::events::Inbound;
    use crate::vocabulary::machine::{Batch, Machine};
    use crate::{Config, Start};
    use opentelemetry::trace::{TraceFlags, TraceId, TraceState};

    const NOW: Instant = Instant::from_millis(5);
    const OWN: Handle = Handle(0);

    fn span(trace: u8, span: u8) -> SpanContext {
        let (trace, span) = (TraceId::from_bytes([trace; 16]), SpanId::from_bytes([span; 8]));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    /// A real engine whose calls are checked after `forge` has changed them.
    struct Forgery {
        engine: Coordinator<Net>,
        checker: Checker,
    }

    impl Forgery {
        fn new() -> Self {
            let engine = Coordinator::new(
                OWN.key(),
                Config { routing: crate::RoutingConfig::off(), ..Config::default() },
                &crate::Secret::from_seed(0),
            )
            .unwrap();
            Self { engine, checker: Checker::new(Config::default().network.request_timeout) }
        }

        fn call(
            &mut self,
            inbound: InboundKind,
            event: Inbound<Net>,
            forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>),
        ) -> (Batch<Outbound<Net>>, CheckResult) {
            let span = span(1, 2);
            let mut outbound = self.engine.handle(NOW, Stamped::new(event).in_span(span.clone()));
            let real = outbound.clone();
            let (stats, poll_timeout) = (self.engine.request_stats(), self.engine.poll_timeout());
            let mut call = Call { now: NOW, node: OWN, inbound, span, outbound: &[], stats, poll_timeout };
            forge(&mut outbound, &mut call);
            let result = self.checker.check(&Call { outbound: &outbound, ..call });
            (real, result)
        }

        /// The start of a lookup that asks two nodes, unchanged.
        fn start(
            &mut self,
            forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>),
        ) -> (Batch<Outbound<Net>>, CheckResult) {
            let target = Handle::point(1).key();
            let start = Start::find(7, target).with_seeds(vec![Handle(1), Handle(2)]);
            let inbound = InboundKind::Start { tag: 7, target, deadline: None };
            self.call(inbound, Inbound::Start(start), forge)
        }

        /// The end of that lookup.
        fn stop(&mut self, forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>)) -> CheckResult {
            let (outbound, honest) = self.start(|_, _| {});
            assert_eq!(honest, Ok(()));
            let Outbound::Started(started) = &outbound[0].event else { unreachable!() };
            self.call(InboundKind::Stop, Inbound::Stop(started.operation), forge).1
        }

        /// An answer to its first request.
        fn answer(&mut self, forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>)) -> CheckResult {
            let (outbound, honest) = self.start(|_, _| {});
            assert_eq!(honest, Ok(()));
            let Outbound::Request(request) = &outbound[1].event else { unreachable!() };
            let event = Inbound::Response(crate::Response::answered(request.id, Vec::new()));
            self.call(InboundKind::Answered(request.id), event, forge).1
        }
    }

    fn violated(result: CheckResult) -> Option<Invariant> {
        result.err().map(|(invariant, _)| invariant)
    }

    #[test]
    fn an_honest_engine_passes() {
        assert_eq!(Forgery::new().start(|_, _| {}).1, Ok(()));
        assert_eq!(Forgery::new().stop(|_, _| {}), Ok(()));
        assert_eq!(Forgery::new().answer(|_, _| {}), Ok(()));
    }

    #[test]
    fn sums_that_do_not_hold_are_found() {
        let result = Forgery::new().start(|_, call| call.stats.answered += 1).1;
        assert_eq!(violated(result), Some(Invariant::Conservation));
        let result = Forgery::new().start(|outbound, _| drop(outbound.drain(outbound.len() - 1..))).1;
        assert_eq!(
            violated(result),
            Some(Invariant::Conservation),
            "a request that was counted and not sent"
        );
        let result = Forgery::new().stop(|outbound, _| {
            let Some(Outbound::Finished(finish)) = outbound.last_mut().map(|outbound| &mut outbound.event)
            else {
                return;
            };
            finish.stats.cancelled -= 1;
        });
        assert_eq!(violated(result), Some(Invariant::Conservation));
    }

    #[test]
    fn deadlines_that_do_not_hold_are_found() {
        for deadline in [NOW, NOW + Duration::from_secs(61)] {
            let result = Forgery::new().start(|outbound, _| outbound[1].deadline = Some(deadline)).1;
            assert_eq!(violated(result), Some(Invariant::Deadline));
        }
        let result = Forgery::new().start(|_, call| call.poll_timeout = Some(NOW)).1;
        assert_eq!(violated(result), Some(Invariant::WakeUp), "a wake-up that is due already");
        let result = Forgery::new().start(|_, call| call.poll_timeout = None).1;
        assert_eq!(violated(result), Some(Invariant::WakeUp), "a deadline overslept");
    }

    #[test]
    fn contexts_that_leak_are_found() {
        for foreign in [span(2, 2), span(1, 3), SpanContext::NONE] {
            let result = Forgery::new().start(|outbound, _| outbound[1].context = foreign.into()).1;
            assert_eq!(violated(result), Some(Invariant::Context));
        }
        let result = Forgery::new().answer(|outbound, _| {
            assert!(matches!(outbound[0].event, Outbound::Routing(RoutingOutbound::Admitted(_))));
            outbound[0].context = span(1, 2).into();
        });
        assert_eq!(violated(result), Some(Invariant::Context), "a side effect with a parent");
    }

    #[test]
    fn what_ends_twice_or_never_is_found() {
        let again =
            |outbound: &mut Batch<Outbound<Net>>, index: usize| outbound.push(outbound[index].clone());
        assert_eq!(
            violated(Forgery::new().stop(|outbound, _| {
                outbound.push(outbound[0].clone());
                outbound.rotate_right(1);
            })),
            Some(Invariant::OneEnding)
        );
        let result = Forgery::new().stop(|outbound, _| again(outbound, outbound.len() - 1));
        assert_eq!(violated(result), Some(Invariant::OneFinish), "two finishes");
        assert_eq!(
            violated(Forgery::new().stop(|outbound, _| again(outbound, 0))),
            Some(Invariant::OneFinish),
            "after it"
        );
        assert_eq!(
            violated(Forgery::new().stop(|outbound, _| drop(outbound.drain(..1)))),
            Some(Invariant::OneEnding)
        );
        let result = Forgery::new().start(|outbound, call| {
            outbound.clear();
            call.stats = RequestStats::default();
        });
        assert_eq!(violated(result.1), Some(Invariant::OneFinish), "a start without an answer");
        let mut forgery = Forgery::new();
        assert_eq!(forgery.start(|_, _| {}).1, Ok(()));
        assert_eq!(
            forgery.checker.at_end(None).map_err(|(_, invariant, _)| invariant),
            Err(Invariant::OneFinish)
        );
    }

    /// A broadcast to two nodes, of which the first has stored; then `forge` changes its finish.
    fn broadcast(forge: impl FnOnce(&mut BroadcastFinish<Net>)) -> CheckResult {
        let (mut forgery, target) = (Forgery::new(), Handle::point(1).key());
        let tag = Activity::Broadcast(7).tag().unwrap();
        let start = StartBroadcast::fixed(tag.into(), target, 7, vec![Handle(1), Handle(2)]);
        let inbound = InboundKind::Start { tag, target, deadline: None };
        let (outbound, honest) = forgery.call(inbound, Inbound::Broadcast(start), |_, _| {});
        assert_eq!(honest, Ok(()));
        let (Outbound::Started(started), Outbound::Request(request)) =
            (&outbound[0].event, &outbound[1].event)
        else {
            unreachable!()
        };
        let event = Inbound::Response(crate::Response::answered(request.id, Vec::new()));
        assert_eq!(forgery.call(InboundKind::Answered(request.id), event, |_, _| {}).1, Ok(()));
        let stop = Inbound::Stop(started.operation);
        let result = forgery.call(InboundKind::Stop, stop, |outbound, _| {
            let Some(Outbound::BroadcastFinished(finish)) =
                outbound.last_mut().map(|outbound| &mut outbound.event)
            else {
                unreachable!()
            };
            forge(finish);
        });
        result.1
    }

    #[test]
    fn a_broadcast_that_misreports_its_stores_is_found() {
        assert_eq!(broadcast(|_| {}), Ok(()));
        let forged: [fn(&mut BroadcastFinish<Net>); 3] = [
            |finish| finish.stores[1].end = StoreEnd::Stored,
            |finish| finish.stores[0].end = StoreEnd::TimedOut,
            |finish| finish.stores.push(finish.stores[0].clone()),
        ];
        for forge in forged {
            assert_eq!(violated(broadcast(forge)), Some(Invariant::Stores));
        }
        assert_eq!(violated(broadcast(|finish| finish.stats.sent += 1)), Some(Invariant::Conservation));
        assert_eq!(violated(broadcast(|finish| finish.target = Handle(3).key())), Some(Invariant::Closest));
    }

    #[test]
    fn a_request_to_the_node_itself_is_found() {
        let result = Forgery::new().start(|outbound, _| {
            let Outbound::Request(request) = &mut outbound[1].event else { return };
            request.node = OWN;
        });
        assert_eq!(violated(result.1), Some(Invariant::NotSelf));
    }

    #[test]
    fn a_finish_that_lists_a_node_without_an_answer_is_found() {
        let result = Forgery::new().stop(|outbound, _| {
            let Some(Outbound::Finished(finish)) = outbound.last_mut().map(|outbound| &mut outbound.event)
            else {
                return;
            };
            finish.closest.push(Contact { node: Handle(1), micros: 0, hop: 1, value: false });
        });
        assert_eq!(violated(result), Some(Invariant::Closest));
    }
}
