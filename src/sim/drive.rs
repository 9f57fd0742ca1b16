//! How a [`World`] plays the driver of every node.

use super::check::{Call, Told};
use super::event::{Event, Work};
use super::lookup::{Asked, End, Ending, Fate, Lookup, Reason};
use super::nodes::{Handle, Key64, Net};
use super::queue::{Flight, Plan};
use super::random::{Purpose, scaled};
use super::world::World;
use crate::context::Context;
use crate::coordinator::{Inbound, Outbound};
use crate::event::{Finish, GivenUp, Reply, Start};
use crate::id::RequestId;
use crate::machine::{Machine, Stamped};
use crate::time::Instant;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

impl World {
    /// Begins the workload's next lookup, and plans the one after it.
    pub(crate) fn start(&mut self) {
        let number = self.begun;
        self.begun += 1;
        let mut draw = self.chance(Purpose::Target, number);
        let target = Handle::point(draw.below(Handle::NODES)).key();
        let is_message = draw.chance(self.scenario.workload.messages);
        let mut draw = self.chance(Purpose::Starter, number);
        let live = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        let tries = 1_000;
        let starter = (0..tries).map(|_| draw.below(self.scenario.nodes)).find(live);
        if self.begun < self.scenario.workload.lookups {
            let gap = self.scenario.workload.pace.gap(self.scenario.seed, [u64::from(number)], number);
            self.queue.plan(self.now + gap, Plan::Start);
        }
        let mut draw = self.chance(Purpose::Stop, number);
        if draw.chance(self.scenario.workload.stopped) {
            let later = scaled(Duration::from_secs(1), draw.unit());
            self.queue.plan(self.now + later, Plan::Stop(self.next_number()));
        }
        if number < self.scenario.keep {
            self.kept.insert(self.next_number());
        }
        self.look_up(Reason::Workload, starter, target, is_message, Vec::new());
    }

    fn next_number(&self) -> u32 {
        u32::try_from(self.lookups.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn look_up(
        &mut self,
        reason: Reason,
        starter: Option<u32>,
        target: Key64,
        is_message: bool,
        seeds: Vec<Handle>,
    ) {
        let number = self.next_number();
        let node = self.population.handle(starter.unwrap_or_default());
        let began = self.now;
        let asked = Vec::new();
        self.awaited += u32::from(reason == Reason::Workload);
        self.lookups.push(Lookup { number, reason, starter: node, target, began, ending: None, asked });
        self.note(&Event::Started { lookup: number, node });
        let is_up = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        let Some(starter) = starter.filter(is_up) else {
            self.ended(number, 0, Ending::none(End::NobodyThere, self.now));
            return;
        };
        let tag = u64::from(number);
        let start = if is_message { Start::message(tag, target, number) } else { Start::find(tag, target) };
        let mut stamped =
            Stamped::new(Inbound::Start(start.with_seeds(seeds))).in_span(self.span(Work::Lookup(number)));
        if reason == Reason::Workload {
            stamped.deadline = self.scenario.workload.deadline.map(|deadline| self.now + deadline);
        }
        self.tell(starter, Told::Start { tag: number, target, deadline: stamped.deadline }, stamped);
    }

    /// The caller of a lookup stops it.
    pub(crate) fn stop(&mut self, lookup: u32) {
        let starter = self.lookups.get(lookup as usize).map(|lookup| lookup.starter);
        let Some(index) = starter.and_then(|starter| self.population.index(starter)) else { return };
        let Some(id) = self.running.get(&(index, lookup)).copied() else { return };
        self.note(&Event::Stopped { lookup });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(Work::Lookup(lookup)));
        self.tell(index, Told::Stop, stop);
    }

    /// Lets a node know the round trips that it has measured before, once.
    fn warm(&mut self, index: u32) {
        let measured = self.measured(index);
        if let Some(node) = self.nodes.get_mut(index as usize)
            && let Some(engine) = &mut node.engine
            && core::mem::take(&mut node.cold)
        {
            for round_trip in measured {
                engine.observe(round_trip);
            }
        }
    }

    /// The round trips, to some nodes of its table, that a node has measured before and has yet to know of.
    pub(crate) fn measured(&self, index: u32) -> Vec<Duration> {
        const MEASURED: usize = 32;
        let node = self.nodes.get(index as usize).filter(|node| node.cold);
        let Some(engine) = node.and_then(|node| node.engine.as_ref()) else { return Vec::new() };
        let from = self.population.handle(index);
        let mut draw = self.chance(Purpose::Warm, index);
        let known: Vec<_> = engine.table().iter().map(|record| *record.node()).collect();
        let some = known.into_iter().cycle().take(MEASURED);
        some.map(|to| self.scenario.link.round_trip.draw(from, to, &mut draw)).collect()
    }

    /// A new span in the trace of a lookup or a broadcast, or in a trace of its own.
    pub(crate) fn span(&mut self, work: Work) -> SpanContext {
        match work {
            Work::Lookup(lookup) => self.span_of(1 << 63 | u64::from(lookup)),
            Work::Broadcast(number) => self.span_of(3 << 62 | u64::from(number)),
            _ => self.root(),
        }
    }

    /// A new span for the answer to a request: one of a broadcast's background has a trace of its own, by which what follows
    /// from it is known to belong there.
    pub(crate) fn span_for(&mut self, flight: &Flight) -> SpanContext {
        match (flight.work, flight.broadcast) {
            (Work::Background, Some(number)) => {
                self.span_of(1 << 61 | u64::from(number) << 40 | (self.spans % (1 << 40)))
            }
            (work, _) => self.span(work),
        }
    }

    /// The broadcast that a request is for, in the foreground or, as its link says, in the background.
    fn broadcast_of(work: Work, context: &Context) -> Option<u32> {
        match (work, context) {
            (Work::Broadcast(number), _) => Some(number),
            (Work::Background, Context::Link(span)) => {
                let trace = u128::from_be_bytes(span.trace_id().to_bytes());
                #[allow(clippy::cast_possible_truncation)] // the halves of a trace id, and numbers put there
                match trace as u64 {
                    trace if trace >> 62 == 3 => Some(trace as u32),
                    trace => Some((trace << 3 >> 43) as u32),
                }
            }
            _ => None,
        }
    }

    /// The first span of a new trace.
    pub(crate) fn root(&mut self) -> SpanContext {
        self.span_of(1 << 62 | self.spans)
    }

    fn span_of(&mut self, trace: u64) -> SpanContext {
        self.spans += 1;
        let trace = u128::from(self.scenario.seed) << 64 | u128::from(trace);
        SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes(self.spans.to_be_bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        )
    }

    /// A wake-up that was planned. Wake-ups are never taken back: an engine that has been told something since may
    /// have nothing to do yet.
    pub(crate) fn wake(&mut self, index: u32) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.wake != now {
            return;
        }
        node.wake = Instant::FAR_FUTURE;
        if node.timeout().is_some_and(|at| at <= now) {
            self.note(&Event::Woke { node: self.population.handle(index) });
            self.tell(index, Told::Tick, Stamped::new(Inbound::Tick));
        } else {
            self.plan_wake(index);
        }
    }

    fn plan_wake(&mut self, index: u32) {
        if let Some(node) = self.nodes.get_mut(index as usize)
            && let Some(at) = node.timeout()
            && at < node.wake
        {
            node.wake = at;
            self.queue.plan(at, Plan::Wake(index));
        }
    }

    #[cfg(test)]
    pub(crate) fn wake_at_once(&mut self, index: u32) {
        self.tell(index, Told::Tick, Stamped::new(Inbound::Tick));
    }

    /// Tells a node something, has the call judged, and does what it says.
    pub(crate) fn tell(&mut self, index: u32, told: Told, event: Stamped<Inbound<Net>>) {
        self.warm(index);
        let mut batch = core::mem::take(&mut self.batch);
        let span = self.checker.as_ref().map(|_| event.context.parent().cloned());
        if let Some(engine) = self.nodes.get_mut(index as usize).and_then(|node| node.engine.as_mut()) {
            #[cfg(feature = "record")]
            self.tapes.handle_into(index, engine, self.now, event, &mut batch);
            #[cfg(not(feature = "record"))]
            engine.handle_into(self.now, event, &mut batch);
            if let Some(checker) = &mut self.checker {
                let node = self.population.handle(index);
                let call = Call {
                    now: self.now,
                    node,
                    told,
                    span: span.flatten().unwrap_or(SpanContext::NONE),
                    said: &batch,
                    traffic: engine.traffic(),
                    timeout: engine.poll_timeout(),
                };
                if let Err((rule, detail)) = checker.judge(&call) {
                    self.broken(node, rule, detail);
                }
            }
        }
        let named = match told {
            Told::Answered(request) | Told::Failed(request) => Some(request),
            _ => None,
        };
        for said in batch.drain(..) {
            self.said(index, named, said);
        }
        self.batch = batch;
        self.plan_wake(index);
    }

    fn said(&mut self, index: u32, named: Option<RequestId>, stamped: Stamped<Outbound<Net>>) {
        let table = self.population.handle(index);
        match stamped.event {
            Outbound::Started(started) => {
                self.running.insert((index, number(started.operation.tag())), started.operation);
            }
            Outbound::Request(request) => {
                let broadcast = Self::broadcast_of(request.owner.into(), &stamped.context);
                self.send(index, &request, stamped.deadline, broadcast);
            }
            Outbound::Cancel(cancel) => {
                let (work, timed_out) = (cancel.owner.into(), cancel.reason == GivenUp::TimedOut);
                self.note(&Event::GivenUp { work, node: cancel.node, timed_out });
                if let Work::Lookup(lookup) = work {
                    let fate = if timed_out { Fate::TimedOut } else { Fate::Cancelled };
                    self.fate(lookup, cancel.id, fate);
                }
            }
            Outbound::Progress(progress) => {
                let fate = match progress.reply {
                    Reply::Answered { .. } => Fate::Answered,
                    Reply::Failed | Reply::Rejected(_) => Fate::Failed,
                    Reply::TimedOut => return,
                };
                if let Some(request) = named {
                    self.fate(number(progress.operation.tag()), request, fate);
                }
            }
            Outbound::Finished(finish) => {
                self.running.remove(&(index, number(finish.operation.tag())));
                self.finished(&finish);
            }
            Outbound::BroadcastFinished(finish) => {
                self.running.remove(&(index, number(finish.operation.tag())));
                self.returned(&finish);
            }
            Outbound::Refused(refused) => {
                if let Work::Broadcast(broadcast) = Work::of(number(refused.tag)) {
                    self.cast_off(broadcast, End::Refused(refused.reason));
                    return;
                }
                self.ended(number(refused.tag), 0, Ending::none(End::Refused(refused.reason), self.now));
            }
            Outbound::Admitted(node) => self.note(&Event::Admitted { table, node }),
            Outbound::Removed(node) => self.note(&Event::Removed { table, node }),
            // Where nodes do not keep their tables themselves, any lookup of one's own key is called so.
            Outbound::Bootstrapped(it) if self.scenario.is_maintained() => {
                let nodes = u32::try_from(it.nodes).unwrap_or(u32::MAX);
                self.note(&Event::Bootstrapped { node: table, nodes });
            }
            // Nobody here crawls.
            Outbound::Bootstrapped(_)
            | Outbound::CrawlProgress(_)
            | Outbound::CrawlFinished(_)
            | Outbound::BroadcastProgress(_)
            | Outbound::NetworkSize { .. } => {}
            Outbound::NearEmpty { nodes } => {
                let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
                self.note(&Event::NearEmpty { node: table, nodes });
            }
        }
    }

    /// Notes how a request ended.
    fn fate(&mut self, lookup: u32, request: RequestId, fate: Fate) {
        let now = self.now;
        let asked = self.lookups.get_mut(lookup as usize).map(|lookup| lookup.asked.as_mut_slice());
        let same = |asked: &&mut Asked| asked.request == request && asked.ended.is_none();
        if let Some(asked) = asked.unwrap_or_default().iter_mut().rev().find(same) {
            asked.ended = Some((now, fate));
        }
    }

    fn finished(&mut self, finish: &Finish<Net>) {
        let lookup = number(finish.operation.tag());
        let Some(starter) = self.lookups.get(lookup as usize).map(|lookup| lookup.starter) else { return };
        let truth = self.truly_closest(finish.target, starter);
        let is_found = |node: &Handle| finish.closest.iter().any(|contact| contact.node == *node);
        let found = truth.iter().filter(|node| is_found(node)).count();
        let recall = if truth.is_empty() { 1.0 } else { found as f64 / truth.len() as f64 };
        let hit = truth.first().is_none_or(is_found);
        let (end, at) = (End::Finished(finish.outcome), self.now);
        let results = u32::try_from(finish.closest.len()).unwrap_or(u32::MAX);
        self.ended(lookup, results, Ending { end, at, statistics: finish.statistics, recall, hit });
    }

    fn ended(&mut self, number: u32, results: u32, ending: Ending) {
        self.note(&Event::Finished { lookup: number, end: ending.end, results });
        let keep = self.kept.contains(&number);
        if let Some(lookup) = self.lookups.get_mut(number as usize) {
            lookup.ending = Some(ending);
            self.awaited -= u32::from(lookup.reason == Reason::Workload);
            if !keep {
                lookup.asked = Vec::new();
            }
            if lookup.reason == Reason::Learn {
                let starter = lookup.starter;
                self.learnt(starter);
            }
        }
    }
}

/// The tag of a lookup or a broadcast, which is no longer than this.
#[allow(clippy::cast_possible_truncation)] // tags are made of numbers
pub(crate) const fn number(tag: u64) -> u32 {
    tag as u32
}
