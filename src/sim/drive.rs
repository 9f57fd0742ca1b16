//! How a [`World`] plays the driver of every node, and the network between them.

use super::behaviour::Question;
use super::check::{Call, Told};
use super::event::Event;
use super::join::Build;
use super::link::Exchange;
use super::lookup::{Asked, End, Ending, Fate, Lookup, Reason};
use super::node::dead;
use super::nodes::{Handle, Key64, Net};
use super::queue::{Flight, Plan};
use super::random::{Draw, Purpose, scaled};
use super::world::World;
use crate::coordinator::{Inbound, Outbound};
use crate::event::{Finish, GivenUp, Reply, Request, Start, Statistics};
use crate::id::RequestId;
use crate::machine::{Machine, Stamped};
use crate::time::Instant;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

impl World {
    /// The network is built: those that are to be dead die, others begin to come and go, and the workload begins.
    pub(crate) fn built(&mut self) {
        for index in 0..self.scenario.nodes {
            if dead(&self.scenario, index) {
                self.go(index);
                if let Some(node) = self.nodes.get_mut(index as usize) {
                    node.engine = None;
                }
            } else if let Some(churn) = &self.scenario.churn {
                let mut draw = self.chance(Purpose::Churn, index);
                if draw.chance(churn.share) {
                    let (there, left) = churn.begin(&mut draw);
                    self.queue.plan(self.now + left, Plan::Turn(index, 1));
                    if !there {
                        self.go(index);
                    }
                }
            }
        }
        if self.scenario.workload.lookups > 0 {
            self.queue.plan(self.now + self.scenario.workload.begins(), Plan::Start);
        }
    }

    /// A node comes if it is away, and goes if it is there.
    pub(crate) fn turn(&mut self, index: u32, times: u32) {
        let Some(churn) = &self.scenario.churn else { return };
        let is_there = self.nodes.get(index as usize).is_some_and(|node| node.up);
        let ids = [u64::from(index), u64::from(times)];
        let lasts = churn.next(!is_there, &mut Draw::new(self.scenario.seed, Purpose::Churn, ids));
        self.queue.plan(self.now + lasts, Plan::Turn(index, times.wrapping_add(1)));
        if is_there { self.go(index) } else { self.come(index) }
    }

    fn come(&mut self, index: u32) {
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = true;
            self.note(&Event::Came { node: self.population.handle(index) });
        }
    }

    /// A node stops what it is doing, and goes.
    fn go(&mut self, index: u32) {
        if !self.nodes.get(index as usize).is_some_and(|node| node.up) {
            return;
        }
        let own: Vec<_> = self.running.range((index, 0)..=(index, u32::MAX)).map(|(_, id)| *id).collect();
        for id in own {
            let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(number(id.tag())));
            self.tell(index, Told::Stop, stop);
        }
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.up = false;
            self.note(&Event::Went { node: self.population.handle(index) });
        }
    }

    /// A node joins: it looks itself up, beginning from nodes that have joined before.
    pub(crate) fn join(&mut self, index: u32) {
        let Build::Join(join) = self.scenario.build else { return };
        if index + 1 < self.scenario.nodes {
            self.queue.plan(self.now + join.every, Plan::Join(index + 1));
        }
        self.come(index);
        if index == 0 {
            return;
        }
        let mut draw = self.chance(Purpose::Seeds, index);
        let mut seeds: Vec<_> = (0..join.seeds).map(|_| self.population.handle(draw.below(index))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let target = self.population.handle(index).key();
        self.look_up(Reason::Join, Some(index), target, false, seeds);
        if join.refreshes > 0 {
            self.queue.plan(self.now + join.pause, Plan::Refresh(index, join.refreshes - 1));
        }
    }

    /// A node looks up a random key.
    pub(crate) fn refresh(&mut self, index: u32, left: u32) {
        let Build::Join(join) = self.scenario.build else { return };
        if left > 0 {
            self.queue.plan(self.now + join.pause, Plan::Refresh(index, left - 1));
        }
        let ids = [u64::from(index), u64::from(left)];
        let mut draw = Draw::new(self.scenario.seed, Purpose::Target, ids);
        let target = Handle::point(draw.below(Handle::NODES)).key();
        self.look_up(Reason::Refresh, Some(index), target, false, Vec::new());
    }

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
            let gap = self.scenario.workload.gap(self.scenario.seed, number);
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

    fn look_up(
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
        self.lookups.push(Lookup { number, reason, starter: node, target, began, ending: None, asked });
        self.note(&Event::Started { lookup: number, node });
        let is_up = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        let Some(starter) = starter.filter(is_up) else {
            self.ended(number, End::NobodyThere, Statistics::default(), 0, 0.0);
            return;
        };
        let tag = u64::from(number);
        let start = if is_message { Start::message(tag, target, number) } else { Start::find(tag, target) };
        let mut stamped = Stamped::new(Inbound::Start(start.with_seeds(seeds))).in_span(self.span(number));
        if reason == Reason::Workload {
            stamped.deadline = self.scenario.workload.deadline.map(|deadline| self.now + deadline);
        }
        self.warm(starter);
        self.tell(starter, Told::Start { lookup: number, target, deadline: stamped.deadline }, stamped);
    }

    /// The caller of a lookup stops it.
    pub(crate) fn stop(&mut self, lookup: u32) {
        let starter = self.lookups.get(lookup as usize).map(|lookup| lookup.starter);
        let Some(index) = starter.and_then(|starter| self.population.index(starter)) else { return };
        let Some(id) = self.running.get(&(index, lookup)).copied() else { return };
        self.note(&Event::Stopped { lookup });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(lookup));
        self.tell(index, Told::Stop, stop);
    }

    /// Lets a node know the round trips to some nodes of its table, once.
    fn warm(&mut self, index: u32) {
        const MEASURED: usize = 32;
        let from = self.population.handle(index);
        let mut draw = self.chance(Purpose::Warm, index);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(engine) = &mut node.engine
            && core::mem::take(&mut node.cold)
        {
            let known: Vec<_> = engine.table().iter().map(|record| *record.node()).collect();
            for to in known.into_iter().cycle().take(MEASURED) {
                engine.observe(self.scenario.link.round_trip.draw(from, to, &mut draw));
            }
        }
    }

    /// A new span in the trace of a lookup.
    fn span(&mut self, lookup: u32) -> SpanContext {
        self.spans += 1;
        let trace = u128::from(self.scenario.seed) << 64 | 1 << 63 | u128::from(lookup);
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
    fn tell(&mut self, index: u32, told: Told, event: Stamped<Inbound<Net>>) {
        let mut batch = core::mem::take(&mut self.batch);
        let span = self.checker.as_ref().map(|_| event.context.parent().cloned());
        if let Some(engine) = self.nodes.get_mut(index as usize).and_then(|node| node.engine.as_mut()) {
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
            Outbound::Request(request) => self.send(index, &request, stamped.deadline),
            Outbound::Cancel(cancel) => {
                let (lookup, timed_out) = (
                    number(cancel.owner.operation().map_or(0, crate::OperationId::tag)),
                    cancel.reason == GivenUp::TimedOut,
                );
                self.note(&Event::GivenUp { lookup, node: cancel.node, timed_out });
                let fate = if timed_out { Fate::TimedOut } else { Fate::Cancelled };
                self.fate(lookup, cancel.id, fate);
            }
            Outbound::Progress(progress) => {
                let fate = match progress.reply {
                    Reply::Answered { .. } => Fate::Answered,
                    Reply::Failed => Fate::Failed,
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
            Outbound::Refused(refused) => {
                let end = End::Refused(refused.reason);
                self.ended(number(refused.tag), end, Statistics::default(), 0, 0.0);
            }
            Outbound::Admitted(node) => self.note(&Event::Admitted { table, node }),
            Outbound::Removed(node) => self.note(&Event::Removed { table, node }),
            Outbound::Bootstrapped(_) | Outbound::NearEmpty { .. } => {}
        }
    }

    /// What the link does to the `tries`-th request of a lookup to a node.
    pub(crate) fn exchange(&self, lookup: u32, from: Handle, to: Handle, tries: u64) -> Exchange {
        let ids = [u64::from(lookup), u64::from(to.0), tries];
        let mut draw = Draw::new(self.scenario.seed, Purpose::Exchange, ids);
        let slow = self.node(to).is_some_and(|node| node.slow);
        let factor = if slow { self.scenario.slow.factor } else { 1.0 };
        self.scenario.link.exchange(from, to, factor, &mut draw)
    }

    /// A request leaves its asker.
    fn send(&mut self, asker: u32, request: &Request<Net>, deadline: Option<Instant>) {
        let (lookup, from, to) = (
            number(request.owner.operation().map_or(0, crate::OperationId::tag)),
            self.population.handle(asker),
            request.node,
        );
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let mut tries = 0;
        if let Some(lookup) = self.lookups.get_mut(lookup as usize) {
            tries = lookup.asked.iter().filter(|asked| asked.node == to).count() as u64;
            let (hop, sent) = (request.hop, self.now);
            lookup.asked.push(Asked { node: to, hop, sent, ended: None, request: request.id });
        }
        self.note(&Event::Sent { lookup, from, to, hop: request.hop, deadline });
        let exchange = self.exchange(lookup, from, to, tries);
        let there = self.is_askable(to) && !self.cut(from, to);
        if exchange.request_lost || !(there || exchange.refused) {
            self.note(&Event::Lost { lookup, from, to });
            return;
        }
        let flight = Flight {
            request: request.id,
            target: request.target,
            back: exchange.back,
            duplicate: exchange.duplicate,
            lookup,
            asker,
            node: to,
            answer_lost: exchange.answer_lost,
            refused: exchange.refused,
        };
        self.queue.plan(self.now + exchange.there, Plan::Ask(flight));
    }

    /// Whether a request to this node arrives anywhere.
    fn is_askable(&self, node: Handle) -> bool {
        self.node(node)
            .map_or_else(|| node.is_accomplice() && self.accomplices().is_some(), |node| node.up && node.open)
    }

    /// The party that accomplices belong to.
    fn accomplices(&self) -> Option<usize> {
        self.scenario.hostile.iter().position(|party| party.behaviour.has_accomplices())
    }

    /// A request arrives, and the node answers.
    pub(crate) fn ask(&mut self, flight: Flight) {
        let Flight { lookup, node, asker, .. } = flight;
        let from = self.population.handle(asker);
        if !self.is_askable(node) || self.cut(node, from) {
            if flight.refused {
                self.queue.plan(self.now + flight.back, Plan::Refused(flight));
            } else {
                self.note(&Event::Lost { lookup, from, to: node });
            }
            return;
        }
        let honest = self.closest_known(node, flight.target);
        let party = match self.node(node) {
            Some(node) => node.party.map(usize::from),
            None => self.accomplices(),
        };
        let mut held = Duration::ZERO;
        let closer = match party.and_then(|party| self.scenario.hostile.get(party)) {
            None => Some(honest),
            Some(party) => {
                let ids = [u64::from(lookup), u64::from(node.0), self.now.as_nanos()];
                let draw = Draw::new(self.scenario.seed, Purpose::Answer, ids);
                let (k, target) = (self.scenario.k, flight.target);
                let question = Question { node, asker: from, target, k, honest: &honest, draw };
                party.behaviour.answer(question).map(|answer| {
                    held = answer.after;
                    answer.closer
                })
            }
        };
        let named = closer.as_ref().map_or(0, |closer| u32::try_from(closer.len()).unwrap_or(u32::MAX));
        self.note(&Event::Asked { lookup, node, closer: named });
        self.plan_meeting(node, from, lookup);
        let Some(closer) = closer.filter(|_| !flight.answer_lost) else {
            self.note(&Event::Lost { lookup, from, to: node });
            return;
        };
        let at = self.now + held + flight.back;
        if let Some(later) = flight.duplicate {
            self.queue.plan(at + later, Plan::Answer(flight, closer.clone()));
        }
        self.queue.plan(at, Plan::Answer(flight, closer));
    }

    /// A node that was asked by one that it does not know asks back.
    fn plan_meeting(&mut self, node: Handle, asker: Handle, lookup: u32) {
        let unknown = |node| self.engine(node).is_some_and(|engine| engine.table().get(&asker).is_none());
        if !self.scenario.meet || !unknown(node) || !self.answers(asker) {
            return;
        }
        let ids = [u64::from(lookup), u64::from(node.0)];
        let mut draw = Draw::new(self.scenario.seed, Purpose::Meet, ids);
        let exchange = self.scenario.link.exchange(node, asker, 1.0, &mut draw);
        if let Some(index) = self.population.index(node)
            && !exchange.request_lost
            && !exchange.answer_lost
        {
            let took = exchange.there + exchange.back;
            self.queue.plan(self.now + took, Plan::Meet { node: index, asker, lookup, took });
        }
    }

    /// A node has reached one that asked it.
    pub(crate) fn meet(&mut self, index: u32, asker: Handle, lookup: u32, took: Duration) {
        let node = self.population.handle(index);
        if self.engine(node).is_none() || !self.answers(asker) || self.cut(node, asker) {
            return;
        }
        self.note(&Event::Met { node, asker });
        let event = Inbound::Connected { node: asker, round_trip: Some(took) };
        let stamped = Stamped::new(event).in_span(self.span(lookup));
        self.tell(index, Told::Notice, stamped);
    }

    /// An answer arrives.
    pub(crate) fn answer(&mut self, flight: &Flight, closer: Vec<Handle>) {
        let from = self.population.handle(flight.asker);
        if self.engine(from).is_none() {
            self.note(&Event::Lost { lookup: flight.lookup, from, to: flight.node });
            return;
        }
        self.note(&Event::Answered { lookup: flight.lookup, from, node: flight.node });
        let span = self.span(flight.lookup);
        let event = Inbound::Answered { request: flight.request, closer };
        self.tell(flight.asker, Told::Answered(flight.request), Stamped::new(event).in_span(span));
    }

    /// The news arrives that nobody is there.
    pub(crate) fn refused(&mut self, flight: &Flight) {
        if self.engine(self.population.handle(flight.asker)).is_none() {
            return;
        }
        self.note(&Event::Refused { lookup: flight.lookup, node: flight.node });
        let stamped = Stamped::new(Inbound::Failed(flight.request)).in_span(self.span(flight.lookup));
        self.tell(flight.asker, Told::Failed(flight.request), stamped);
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
        let found = finish.closest.iter().filter(|contact| truth.contains(&contact.node)).count();
        let recall = if truth.is_empty() { 1.0 } else { found as f64 / truth.len() as f64 };
        let results = u32::try_from(finish.closest.len()).unwrap_or(u32::MAX);
        self.ended(lookup, End::Finished(finish.outcome), finish.statistics, results, recall);
    }

    fn ended(&mut self, number: u32, end: End, statistics: Statistics, results: u32, recall: f64) {
        self.note(&Event::Finished { lookup: number, end, results });
        let (at, keep) = (self.now, self.kept.contains(&number));
        if let Some(lookup) = self.lookups.get_mut(number as usize) {
            lookup.ending = Some(Ending { end, at, statistics, recall });
            if !keep {
                lookup.asked = Vec::new();
            }
        }
    }
}

/// The number of the lookup that has this tag.
#[allow(clippy::cast_possible_truncation)] // tags are made of numbers
pub(crate) const fn number(tag: u64) -> u32 {
    tag as u32
}
