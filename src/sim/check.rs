//! The contract's invariants, checked at every step: [`Rule`].

use super::drive::number;
use super::event::Work;
use super::nodes::{Handle, Key64, Net};
use crate::broadcast::{BroadcastFinish, StoreEnd, Stored};
use crate::context::Context;
use crate::coordinator::Outbound;
use crate::event::{Contact, Finish, GivenUp, Outcome, Progress, Reply, Request, Statistics};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::key::Key;
use crate::machine::Stamped;
use crate::outbox::Traffic;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, SpanId};
use std::collections::{BTreeMap, BTreeSet};

/// What must hold after every call of every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// What was sent equals what was answered, failed, timed out, was cancelled or is in flight; the same for the
    /// statistics of a lookup.
    Conservation,
    /// A request's deadline lies ahead, no farther than a request's time-out, and is no later than its lookup's; nothing is
    /// in flight past its deadline.
    Deadline,
    /// What a lookup says carries the span that led to it or the lookup's own. Upkeep has no parent; what is said of tables
    /// carries a link and no deadline.
    Context,
    /// A request ends once: by its answer, its failure or one cancel.
    OneEnding,
    /// Each accepted start is answered by one finish, no later than its deadline, and nothing of the lookup comes after.
    OneFinish,
    /// The next wake-up lies ahead, and no later than the next deadline.
    WakeUp,
    /// Nobody asks itself.
    NotSelf,
    /// A finish lists nodes that answered, each once, in order of distance.
    Closest,
    /// The finish of a broadcast says of each node once what became of its store, and of exactly those that answered one that
    /// they have stored.
    Stores,
}

/// An invariant did not hold: where, when and how to see it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// What did not hold.
    pub rule: Rule,
    /// How.
    pub detail: String,
    /// When.
    pub at: Instant,
    /// Whose engine it was.
    pub node: Handle,
    /// The seed of the run.
    pub seed: u64,
    /// The command that runs it again.
    pub replay: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, detail, at, node, seed, replay } = self;
        write!(f, "invariant {rule:?} is broken at {at} by {node}, seed {seed}: {detail}\nreplay: {replay}")
    }
}

impl core::error::Error for Broken {}

/// What an engine was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Start { tag: u32, target: Key64, deadline: Option<Instant> },
    Stop,
    Answered(RequestId),
    Failed(RequestId),
    Notice,
    Tick,
}

/// One call of an engine, and what it left behind.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) now: Instant,
    pub(crate) node: Handle,
    pub(crate) told: Told,
    /// The span in which it was told.
    pub(crate) span: SpanContext,
    pub(crate) said: &'a [Stamped<Outbound<Net>>],
    pub(crate) traffic: Traffic,
    pub(crate) timeout: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    work: Work,
    to: Handle,
    deadline: Instant,
}

#[derive(Clone, Debug)]
struct Open {
    node: Handle,
    target: Key64,
    own: SpanContext,
    deadline: Instant,
    accepted: bool,
    requests: u32,
    answered: BTreeSet<Handle>,
    /// Those that answered a store.
    stored: BTreeSet<Handle>,
}

/// What the last events of all operations have in common.
struct Last<'a> {
    operation: OperationId,
    target: Key64,
    outcome: Outcome,
    closest: &'a [Contact<Net>],
    statistics: &'a Statistics,
}

/// What it takes to judge a call.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    /// How long a request may take.
    most: Duration,
    flying: BTreeMap<(Handle, RequestId), Flying>,
    open: BTreeMap<u32, Open>,
    sent: BTreeMap<Handle, u64>,
}

type Verdict = Result<(), (Rule, String)>;

fn must(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

impl Checker {
    /// Judges engines whose requests may take so long.
    pub(crate) const fn new(most: Duration) -> Self {
        Self { most, flying: BTreeMap::new(), open: BTreeMap::new(), sent: BTreeMap::new() }
    }

    /// Judges a call.
    pub(crate) fn judge(&mut self, call: &Call<'_>) -> Verdict {
        if let Told::Start { tag, target, deadline } = call.told {
            let open = Open {
                node: call.node,
                target,
                own: call.span.clone(),
                deadline: deadline.unwrap_or(Instant::FAR_FUTURE),
                accepted: false,
                requests: 0,
                answered: BTreeSet::new(),
                stored: BTreeSet::new(),
            };
            self.open.insert(tag, open);
        }
        for said in call.said {
            self.event(call, said)?;
        }
        if let Told::Start { tag, .. } = call.told {
            let answered = self.open.get(&tag).is_none_or(|open| open.accepted);
            must(answered, Rule::OneFinish, || format!("the start of {} was not answered", Work::of(tag)))?;
        }
        if let Told::Answered(request) | Told::Failed(request) = call.told {
            self.upkeep_ends(call, request)?;
        }
        self.afterwards(call)
    }

    /// A node has begun anew, or is gone: what its engine had under way is not to be heard of again.
    pub(crate) fn forget(&mut self, node: Handle) {
        self.flying.retain(|(asker, _), _| *asker != node);
        self.sent.remove(&node);
    }

    /// Judges what is left when nothing more will happen, or by now.
    pub(crate) fn at_end(&self, now: Option<Instant>) -> Result<(), (Handle, Rule, String)> {
        match self.open.iter().find(|(_, open)| now.is_none_or(|now| open.deadline < now)) {
            None => Ok(()),
            Some((tag, open)) => Err((open.node, Rule::OneFinish, format!("{} never ended", Work::of(*tag)))),
        }
    }

    fn event(&mut self, call: &Call<'_>, stamped: &Stamped<Outbound<Net>>) -> Verdict {
        match &stamped.event {
            // Nobody here crawls.
            Outbound::CrawlProgress(_) | Outbound::CrawlFinished(_) => Ok(()),
            Outbound::Started(started) => {
                let tag = number(started.operation.tag());
                self.of_operation(call, tag, stamped)?;
                let (Some(open), work) = (self.open.get_mut(&tag), Work::of(tag)) else { return Ok(()) };
                must(!open.accepted, Rule::OneFinish, || format!("{work} was started twice"))?;
                open.accepted = true;
                let granted = stamped.deadline.unwrap_or(Instant::FAR_FUTURE);
                must(granted <= open.deadline && granted > call.now, Rule::Deadline, || {
                    format!("{work} may take until {granted}, not {}", open.deadline)
                })?;
                open.deadline = granted;
                Ok(())
            }
            Outbound::Request(request) => {
                self.of_work(call, request.owner.into(), stamped)?;
                self.request(call, request, stamped.deadline)
            }
            Outbound::Cancel(cancel) => {
                self.of_work(call, cancel.owner.into(), stamped)?;
                let flying = self.end(call, cancel.id, cancel.node)?;
                must(flying.work == cancel.owner.into(), Rule::OneEnding, || {
                    format!("a request for {} is given up for {}", flying.work, cancel.owner)
                })?;
                let timed_out = cancel.reason == GivenUp::TimedOut;
                must(!timed_out || flying.deadline <= call.now, Rule::Deadline, || {
                    format!("{:?} timed out before {}", cancel.id, flying.deadline)
                })
            }
            Outbound::Progress(progress) => {
                self.of_operation(call, number(progress.operation.tag()), stamped)?;
                self.progress(call, progress, false)
            }
            Outbound::BroadcastProgress(progress) => {
                self.of_operation(call, number(progress.request.operation.tag()), stamped)?;
                self.progress(call, &progress.request, progress.store)
            }
            Outbound::BroadcastFinished(finish) => {
                self.of_operation(call, number(finish.operation.tag()), stamped)?;
                self.broadcast_finish(call, finish)
            }
            Outbound::Finished(finish) => {
                self.of_operation(call, number(finish.operation.tag()), stamped)?;
                self.finish(call, finish)
            }
            Outbound::Refused(refused) => {
                let tag = number(refused.tag);
                let open = self.open.remove(&tag).filter(|open| !open.accepted);
                must(open.is_some(), Rule::OneFinish, || {
                    format!("{} was refused, but not anew", Work::of(tag))
                })
            }
            said @ (Outbound::Admitted(_)
            | Outbound::Removed(_)
            | Outbound::Bootstrapped(_)
            | Outbound::NetworkSize { .. }
            | Outbound::NearEmpty { .. }) => {
                let aside = matches!(stamped.context, Context::Link(_)) && stamped.deadline.is_none();
                must(aside, Rule::Context, || format!("{said:?} has a parent, or a deadline"))
            }
        }
    }

    /// What holds for a request, and for its being given up.
    fn of_work(&self, call: &Call<'_>, work: Work, stamped: &Stamped<Outbound<Net>>) -> Verdict {
        match work.tag() {
            Some(tag) => self.of_operation(call, tag, stamped),
            None => must(matches!(stamped.context, Context::Link(_)), Rule::Context, || {
                format!("{work} has a parent: {:?}", stamped.event)
            }),
        }
    }

    /// What holds for all that a lookup or a broadcast says.
    fn of_operation(&self, call: &Call<'_>, tag: u32, stamped: &Stamped<Outbound<Net>>) -> Verdict {
        let work = Work::of(tag);
        let open = self.open.get(&tag).filter(|open| open.node == call.node);
        let Some(open) = open else {
            return Err((Rule::OneFinish, format!("{work} does not live here: {:?}", stamped.event)));
        };
        let span = match &stamped.context {
            Context::Parent(span) => span,
            Context::Link(_) => return Err((Rule::Context, format!("{work} is detached"))),
        };
        let caused = span.trace_id() == open.own.trace_id()
            && (span.span_id() == open.own.span_id() || span.span_id() == call.span.span_id());
        must(caused && span.span_id() != SpanId::INVALID, Rule::Context, || {
            format!("{work} speaks in span {:?}: {:?}", span.span_id(), stamped.event)
        })
    }

    fn request(&mut self, call: &Call<'_>, request: &Request<Net>, deadline: Option<Instant>) -> Verdict {
        let (now, work) = (call.now, Work::from(request.owner));
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let mut latest = now + self.most;
        if let Some(open) = work.tag().and_then(|tag| self.open.get_mut(&tag)) {
            latest = latest.min(open.deadline);
            open.requests += 1;
        }
        must(deadline > now && deadline <= latest, Rule::Deadline, || {
            format!("{work}: a request until {deadline}, which may take until {latest}")
        })?;
        must(request.node != call.node && Net::key(&request.node) != call.node.key(), Rule::NotSelf, || {
            format!("{work}: a node asks itself")
        })?;
        *self.sent.entry(call.node).or_default() += 1;
        let flying = Flying { work, to: request.node, deadline };
        let before = self.flying.insert((call.node, request.id), flying);
        must(before.is_none(), Rule::OneEnding, || format!("{:?} is in flight twice", request.id))
    }

    /// A request that is neither for a lookup nor for a broadcast ends without a word: by what the engine was told.
    fn upkeep_ends(&mut self, call: &Call<'_>, request: RequestId) -> Verdict {
        let named = (call.node, request);
        match self.flying.get(&named).copied() {
            None | Some(Flying { work: Work::Lookup(_) | Work::Broadcast(_), .. }) => Ok(()),
            Some(Flying { work, deadline, .. }) => {
                self.flying.remove(&named);
                must(deadline > call.now, Rule::Deadline, || format!("a late answer counts for {work}"))
            }
        }
    }

    fn progress(&mut self, call: &Call<'_>, progress: &Progress<Net>, store: bool) -> Verdict {
        let tag = number(progress.operation.tag());
        let work = Work::of(tag);
        let (told, answered) = match (&progress.reply, call.told) {
            (Reply::TimedOut, _) => return Ok(()), // its cancel came before
            (Reply::Answered { .. }, Told::Answered(request)) => (request, true),
            (Reply::Failed, Told::Failed(request)) => (request, false),
            _ => {
                let detail = format!("nobody said what {work} knows of {}", progress.node);
                return Err((Rule::OneEnding, detail));
            }
        };
        let flying = self.end(call, told, progress.node)?;
        must(flying.deadline > call.now, Rule::Deadline, || format!("a late answer counts for {work}"))?;
        if let Some(open) = self.open.get_mut(&tag).filter(|_| answered) {
            (if store { &mut open.stored } else { &mut open.answered }).insert(progress.node);
        }
        Ok(())
    }

    fn end(&mut self, call: &Call<'_>, request: RequestId, node: Handle) -> Result<Flying, (Rule, String)> {
        match self.flying.remove(&(call.node, request)) {
            Some(flying) if flying.to == node => Ok(flying),
            _ => Err((Rule::OneEnding, format!("{request:?} to {node} ends, but is not in flight"))),
        }
    }

    fn finish(&mut self, call: &Call<'_>, finish: &Finish<Net>) -> Verdict {
        let Finish { operation, target, outcome, closest, statistics } = finish;
        let last = Last { operation: *operation, target: *target, outcome: *outcome, closest, statistics };
        self.last(call, &last, false).map(|_| ())
    }

    fn broadcast_finish(&mut self, call: &Call<'_>, finish: &BroadcastFinish<Net>) -> Verdict {
        let BroadcastFinish { operation, target, outcome, closest, statistics, stores, .. } = finish;
        let last = Last { operation: *operation, target: *target, outcome: *outcome, closest, statistics };
        // What an optimistic one that is done has left goes on as nobody's work.
        let Some(open) = self.last(call, &last, finish.outcome == Outcome::Complete)? else { return Ok(()) };
        let is_stored = |stored: &&Stored<Net>| stored.end == StoreEnd::Stored;
        let stored: BTreeSet<_> = stores.iter().filter(is_stored).map(|stored| stored.node).collect();
        let all: BTreeSet<_> = stores.iter().map(|stored| stored.node).collect();
        must(stored == open.stored && all.len() == stores.len(), Rule::Stores, || {
            format!("{} says of its stores: {stores:?}", Work::of(number(operation.tag())))
        })
    }

    /// What holds for the last event of an operation. One that `leaves` requests behind leaves them to the background.
    fn last(
        &mut self,
        call: &Call<'_>,
        last: &Last<'_>,
        leaves: bool,
    ) -> Result<Option<Open>, (Rule, String)> {
        let tag = number(last.operation.tag());
        let work = Work::of(tag);
        let Some(open) = self.open.remove(&tag) else { return Ok(None) };
        let by_deadline = last.outcome == Outcome::DeadlineExceeded;
        let in_time = if by_deadline { call.now == open.deadline } else { call.now < open.deadline };
        must(in_time && open.accepted, Rule::OneFinish, || {
            format!("{work} ends by {:?}, with time until {}", last.outcome, open.deadline)
        })?;
        let mut left = 0;
        for (_, flying) in self.flying.range_mut(Self::of(call.node)) {
            if flying.work == work {
                flying.work = Work::Background;
                left += 1;
            }
        }
        must(leaves || left == 0, Rule::OneEnding, || format!("{work} leaves requests behind"))?;
        let sums = last.statistics.in_flight() == left && last.statistics.requests == open.requests;
        must(sums, Rule::Conservation, || {
            format!("{work} sent {} requests, {left} are left: {:?}", open.requests, last.statistics)
        })?;
        let listed: Vec<_> = last.closest.iter().map(|contact| contact.node).collect();
        let far = |node: &Handle| node.key().distance(&open.target);
        let sound = listed.is_sorted_by(|a, b| far(a) < far(b))
            && listed.iter().all(|node| open.answered.contains(node))
            && last.target == open.target;
        must(sound, Rule::Closest, || format!("{work} lists {listed:?}"))?;
        Ok(Some(open))
    }

    /// What holds after a call.
    fn afterwards(&self, call: &Call<'_>) -> Verdict {
        let Traffic { sent, answered, failed, timed_out, cancelled, in_flight, .. } = call.traffic;
        let mut flying = 0;
        let mut deadline = Instant::FAR_FUTURE;
        for (_, request) in self.flying.range(Self::of(call.node)) {
            flying += 1;
            deadline = deadline.min(request.deadline);
        }
        let counted = self.sent.get(&call.node).copied().unwrap_or_default();
        let sums = sent == answered + failed + timed_out + cancelled + in_flight;
        must(sums && sent == counted && in_flight == flying, Rule::Conservation, || {
            format!("{counted} were sent and {flying} are in flight: {:?}", call.traffic)
        })?;
        must(deadline > call.now, Rule::Deadline, || format!("a request is in flight past {deadline}"))?;
        let wake = call.timeout.unwrap_or(Instant::FAR_FUTURE);
        must(wake > call.now && wake <= deadline, Rule::WakeUp, || {
            format!("the next wake-up is at {wake}, the next deadline {deadline}")
        })
    }

    /// All requests of a node.
    fn of(node: Handle) -> core::ops::RangeInclusive<(Handle, RequestId)> {
        (node, RequestId::from_u64(0))..=(node, RequestId::from_u64(u64::MAX))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // a test may fail so
mod tests {
    use super::*;
    use crate::broadcast::StartBroadcast;
    use crate::coordinator::{Coordinator, Inbound};
    use crate::machine::{Batch, Machine};
    use crate::{Config, Start};
    use opentelemetry::trace::{TraceFlags, TraceId, TraceState};

    const NOW: Instant = Instant::from_millis(5);
    const OWN: Handle = Handle(0);

    fn span(trace: u8, span: u8) -> SpanContext {
        let (trace, span) = (TraceId::from_bytes([trace; 16]), SpanId::from_bytes([span; 8]));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    /// A real engine whose calls are judged, after `forge` has had its way with each.
    struct Forgery {
        engine: Coordinator<Net>,
        checker: Checker,
    }

    impl Forgery {
        fn new() -> Self {
            let engine = Coordinator::new(
                OWN.key(),
                Config { routing: crate::RoutingConfig::off(), ..Config::default() },
            )
            .unwrap();
            Self { engine, checker: Checker::new(Config::default().network.request_timeout) }
        }

        fn call(
            &mut self,
            told: Told,
            event: Inbound<Net>,
            forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>),
        ) -> (Batch<Outbound<Net>>, Verdict) {
            let span = span(1, 2);
            let mut said = self.engine.handle(NOW, Stamped::new(event).in_span(span.clone()));
            let real = said.clone();
            let (traffic, timeout) = (self.engine.traffic(), self.engine.poll_timeout());
            let mut call = Call { now: NOW, node: OWN, told, span, said: &[], traffic, timeout };
            forge(&mut said, &mut call);
            let verdict = self.checker.judge(&Call { said: &said, ..call });
            (real, verdict)
        }

        /// The start of a lookup that asks two nodes, honestly told.
        fn start(
            &mut self,
            forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>),
        ) -> (Batch<Outbound<Net>>, Verdict) {
            let target = Handle::point(1).key();
            let start = Start::find(7, target).with_seeds(vec![Handle(1), Handle(2)]);
            let told = Told::Start { tag: 7, target, deadline: None };
            self.call(told, Inbound::Start(start), forge)
        }

        /// The end of that lookup.
        fn stop(&mut self, forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>)) -> Verdict {
            let (said, honest) = self.start(|_, _| {});
            assert_eq!(honest, Ok(()));
            let Outbound::Started(started) = &said[0].event else { unreachable!() };
            self.call(Told::Stop, Inbound::Stop(started.operation), forge).1
        }

        /// An answer to its first request.
        fn answer(&mut self, forge: impl FnOnce(&mut Batch<Outbound<Net>>, &mut Call<'_>)) -> Verdict {
            let (said, honest) = self.start(|_, _| {});
            assert_eq!(honest, Ok(()));
            let Outbound::Request(request) = &said[1].event else { unreachable!() };
            let event = Inbound::Answered { request: request.id, closer: Vec::new() };
            self.call(Told::Answered(request.id), event, forge).1
        }
    }

    fn broken(verdict: Verdict) -> Option<Rule> {
        verdict.err().map(|(rule, _)| rule)
    }

    #[test]
    fn an_honest_engine_passes() {
        assert_eq!(Forgery::new().start(|_, _| {}).1, Ok(()));
        assert_eq!(Forgery::new().stop(|_, _| {}), Ok(()));
        assert_eq!(Forgery::new().answer(|_, _| {}), Ok(()));
    }

    #[test]
    fn sums_that_do_not_hold_are_found() {
        let verdict = Forgery::new().start(|_, call| call.traffic.answered += 1).1;
        assert_eq!(broken(verdict), Some(Rule::Conservation));
        let verdict = Forgery::new().start(|said, _| drop(said.pop())).1;
        assert_eq!(broken(verdict), Some(Rule::Conservation), "a request that was counted and not sent");
        let verdict = Forgery::new().stop(|said, _| {
            let Some(Outbound::Finished(finish)) = said.last_mut().map(|said| &mut said.event) else {
                return;
            };
            finish.statistics.cancelled -= 1;
        });
        assert_eq!(broken(verdict), Some(Rule::Conservation));
    }

    #[test]
    fn deadlines_that_do_not_hold_are_found() {
        for deadline in [NOW, NOW + Duration::from_secs(61)] {
            let verdict = Forgery::new().start(|said, _| said[1].deadline = Some(deadline)).1;
            assert_eq!(broken(verdict), Some(Rule::Deadline));
        }
        let verdict = Forgery::new().start(|_, call| call.timeout = Some(NOW)).1;
        assert_eq!(broken(verdict), Some(Rule::WakeUp), "a wake-up that is due already");
        let verdict = Forgery::new().start(|_, call| call.timeout = None).1;
        assert_eq!(broken(verdict), Some(Rule::WakeUp), "a deadline overslept");
    }

    #[test]
    fn contexts_that_leak_are_found() {
        for foreign in [span(2, 2), span(1, 3), SpanContext::NONE] {
            let verdict = Forgery::new().start(|said, _| said[1].context = foreign.into()).1;
            assert_eq!(broken(verdict), Some(Rule::Context));
        }
        let verdict = Forgery::new().answer(|said, _| {
            assert!(matches!(said[0].event, Outbound::Admitted(_)));
            said[0].context = span(1, 2).into();
        });
        assert_eq!(broken(verdict), Some(Rule::Context), "a side effect with a parent");
    }

    #[test]
    fn what_ends_twice_or_never_is_found() {
        let again = |said: &mut Batch<Outbound<Net>>, place: usize| said.push(said[place].clone());
        assert_eq!(
            broken(Forgery::new().stop(|said, _| said.insert(0, said[0].clone()))),
            Some(Rule::OneEnding)
        );
        let verdict = Forgery::new().stop(|said, _| again(said, said.len() - 1));
        assert_eq!(broken(verdict), Some(Rule::OneFinish), "two finishes");
        assert_eq!(broken(Forgery::new().stop(|said, _| again(said, 0))), Some(Rule::OneFinish), "after it");
        assert_eq!(broken(Forgery::new().stop(|said, _| drop(said.remove(0)))), Some(Rule::OneEnding));
        let verdict = Forgery::new().start(|said, call| {
            said.clear();
            call.traffic = Traffic::default();
        });
        assert_eq!(broken(verdict.1), Some(Rule::OneFinish), "a start without an answer");
        let mut forgery = Forgery::new();
        assert_eq!(forgery.start(|_, _| {}).1, Ok(()));
        assert_eq!(forgery.checker.at_end(None).map_err(|(_, rule, _)| rule), Err(Rule::OneFinish));
    }

    /// A broadcast to two nodes, of which the first has stored; then what is done to its end.
    fn broadcast(forge: impl FnOnce(&mut BroadcastFinish<Net>)) -> Verdict {
        let (mut forgery, target) = (Forgery::new(), Handle::point(1).key());
        let tag = Work::Broadcast(7).tag().unwrap();
        let start = StartBroadcast::fixed(tag.into(), target, 7, vec![Handle(1), Handle(2)]);
        let told = Told::Start { tag, target, deadline: None };
        let (said, honest) = forgery.call(told, Inbound::Broadcast(start), |_, _| {});
        assert_eq!(honest, Ok(()));
        let (Outbound::Started(started), Outbound::Request(request)) = (&said[0].event, &said[1].event)
        else {
            unreachable!()
        };
        let event = Inbound::Answered { request: request.id, closer: Vec::new() };
        assert_eq!(forgery.call(Told::Answered(request.id), event, |_, _| {}).1, Ok(()));
        let stop = Inbound::Stop(started.operation);
        let verdict = forgery.call(Told::Stop, stop, |said, _| {
            let Some(Outbound::BroadcastFinished(finish)) = said.last_mut().map(|said| &mut said.event)
            else {
                unreachable!()
            };
            forge(finish);
        });
        verdict.1
    }

    #[test]
    fn a_broadcast_that_tells_no_truth_of_its_stores_is_found() {
        assert_eq!(broadcast(|_| {}), Ok(()));
        let forged: [fn(&mut BroadcastFinish<Net>); 3] = [
            |finish| finish.stores[1].end = StoreEnd::Stored,
            |finish| finish.stores[0].end = StoreEnd::TimedOut,
            |finish| finish.stores.push(finish.stores[0].clone()),
        ];
        for forge in forged {
            assert_eq!(broken(broadcast(forge)), Some(Rule::Stores));
        }
        assert_eq!(broken(broadcast(|finish| finish.statistics.requests += 1)), Some(Rule::Conservation));
        assert_eq!(broken(broadcast(|finish| finish.target = Handle(3).key())), Some(Rule::Closest));
    }

    #[test]
    fn a_node_that_asks_itself_is_found() {
        let verdict = Forgery::new().start(|said, _| {
            let Outbound::Request(request) = &mut said[1].event else { return };
            request.node = OWN;
        });
        assert_eq!(broken(verdict.1), Some(Rule::NotSelf));
    }

    #[test]
    fn a_finish_that_lists_what_did_not_answer_is_found() {
        let verdict = Forgery::new().stop(|said, _| {
            let Some(Outbound::Finished(finish)) = said.last_mut().map(|said| &mut said.event) else {
                return;
            };
            finish.closest.push(Contact { node: Handle(1), micros: 0, hop: 1, value: false });
        });
        assert_eq!(broken(verdict), Some(Rule::Closest));
    }
}
