//! [`World`]: the event loop. It plays the driver of every node, and the network between them.

use super::event::{Event, Fingerprint};
use super::figures::Figures;
use super::ideal::Population;
use super::lookup::{Asked, End, Ending, Fate, Lookup};
use super::nodes::{Handle, Net};
use super::queue::{Flight, Plan, Queue};
use super::random::{Draw, Purpose};
use super::scenario::Scenario;
use crate::coordinator::{Coordinator, Inbound, Outbound};
use crate::error::ConfigError;
use crate::event::{Finish, GivenUp, Reply, Request, Start, Statistics};
use crate::machine::{Batch, Machine, Stamped};
use crate::table::RoutingTable;
use crate::time::Instant;
use core::fmt;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A simulated network, and how far it has come.
pub struct World {
    scenario: Scenario,
    population: Population,
    nodes: Vec<Node>,
    queue: Queue,
    now: Instant,
    lookups: Vec<Lookup>,
    /// Spans made so far.
    spans: u64,
    events: u64,
    fingerprint: Fingerprint,
    log: Option<Log>,
    /// Kept between calls.
    batch: Batch<Outbound<Net>>,
}

type Log = Box<dyn FnMut(Instant, &Event) + Send>;

/// One node: nothing but its engine and when it is to be woken.
#[derive(Debug)]
struct Node {
    /// `None` where the node is dead.
    engine: Option<Coordinator<Net>>,
    /// The earliest wake-up that is planned; `FAR_FUTURE` where none is.
    wake: Instant,
    /// Whether it has yet to be told of round trips measured before the run.
    cold: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("scenario", &self.scenario)
            .field("now", &self.now)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Builds the network, every node with an ideal table, at virtual time zero.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field of the scenario that is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, ConfigError> {
        scenario.validate()?;
        let population = Population::new(scenario.seed, scenario.nodes);
        let nodes = (0..scenario.nodes)
            .map(|index| Node::new(&scenario, &population, index))
            .collect::<Result<_, _>>()?;
        let mut queue = Queue::new();
        if scenario.workload.lookups > 0 {
            queue.plan(Instant::ORIGIN + scenario.workload.first, Plan::Start);
        }
        Ok(Self {
            scenario,
            population,
            nodes,
            queue,
            now: Instant::ORIGIN,
            lookups: Vec::new(),
            spans: 0,
            events: 0,
            fingerprint: Fingerprint::new(),
            log: None,
            batch: Batch::new(),
        })
    }

    /// Calls this function with every event from now on.
    pub fn set_log(&mut self, log: impl FnMut(Instant, &Event) + Send + 'static) {
        self.log = Some(Box::new(log));
    }

    /// Does what is to happen next. Says whether anything was.
    pub fn step(&mut self) -> bool {
        let Some((at, plan)) = self.queue.pop() else { return false };
        self.now = at;
        match plan {
            Plan::Start => self.start(),
            Plan::Wake(index) => self.wake(index),
            Plan::Ask(flight) => self.ask(flight),
            Plan::Answer(flight, closer) => self.answer(&flight, closer),
        }
        true
    }

    /// Runs until nothing is left to happen.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Runs until this instant, at which nothing has happened yet. Says whether anything is left to happen.
    pub fn run_until(&mut self, end: Instant) -> bool {
        while self.queue.next_at().is_some_and(|at| at < end) {
            self.step();
        }
        self.queue.next_at().is_some()
    }

    /// Virtual time: that of the last thing that happened.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What this is a run of.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// All lookups that have begun, in order.
    pub fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.lookups)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A running hash of all events and their times. Equal for equal scenarios, on every platform.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.value()
    }

    /// The handle of node `index`, of those that the scenario's `nodes` counts.
    pub fn handle(&self, index: u32) -> Handle {
        self.population.handle(index)
    }

    /// The engine of a node, if it is there.
    pub fn engine(&self, node: Handle) -> Option<&Coordinator<Net>> {
        self.nodes.get(self.population.index(node)? as usize)?.engine.as_ref()
    }

    fn note(&mut self, event: &Event) {
        self.events += 1;
        self.fingerprint.take(self.now, event);
        if let Some(log) = &mut self.log {
            log(self.now, event);
        }
    }

    /// Begins the workload's next lookup, and plans the one after it.
    fn start(&mut self) {
        let (seed, number) = (self.scenario.seed, self.lookups.len() as u64);
        let mut draw = Draw::new(seed, Purpose::Target, [number]);
        let target = Handle::point(draw.below(Handle::NODES)).key();
        let is_message = draw.chance(self.scenario.workload.messages);
        let mut draw = Draw::new(seed, Purpose::Starter, [number]);
        let live = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.engine.is_some());
        let tries = 1_000;
        let starter = (0..tries).map(|_| draw.below(self.scenario.nodes)).find(live);
        #[allow(clippy::cast_possible_truncation)] // the workload counts in 32 bits
        let number = number as u32;
        let next = number + 1;
        if next < self.scenario.workload.lookups {
            self.queue.plan(self.now + self.scenario.workload.gap(seed, number), Plan::Start);
        }
        let node = self.population.handle(starter.unwrap_or_default());
        self.lookups.push(Lookup {
            number,
            starter: node,
            target,
            began: self.now,
            ending: None,
            asked: Vec::new(),
        });
        self.note(&Event::Started { lookup: number, node });
        let Some(starter) = starter else {
            self.ended(number, End::NobodyThere, Statistics::default(), 0, 0.0);
            return;
        };
        let tag = u64::from(number);
        let start = if is_message { Start::message(tag, target, number) } else { Start::find(tag, target) };
        let mut stamped = Stamped::new(Inbound::Start(start)).in_span(self.span(number));
        stamped.deadline = self.scenario.workload.deadline.map(|deadline| self.now + deadline);
        self.warm(starter);
        self.tell(starter, stamped);
    }

    /// Lets a node know the round trips to some nodes of its table, once.
    fn warm(&mut self, index: u32) {
        const MEASURED: usize = 32;
        let from = self.population.handle(index);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(engine) = &mut node.engine
            && core::mem::take(&mut node.cold)
        {
            let mut draw = Draw::new(self.scenario.seed, Purpose::Warm, [u64::from(index)]);
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
    fn wake(&mut self, index: u32) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if node.wake != now {
            return;
        }
        node.wake = Instant::FAR_FUTURE;
        if node.timeout().is_some_and(|at| at <= now) {
            self.note(&Event::Woke { node: self.population.handle(index) });
            self.tell(index, Stamped::new(Inbound::Tick));
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

    /// Tells a node something, and does what it says.
    fn tell(&mut self, index: u32, event: Stamped<Inbound<Net>>) {
        let mut batch = core::mem::take(&mut self.batch);
        if let Some(engine) = self.nodes.get_mut(index as usize).and_then(|node| node.engine.as_mut()) {
            engine.handle_into(self.now, event, &mut batch);
        }
        for said in batch.drain(..) {
            self.said(index, said);
        }
        self.batch = batch;
        self.plan_wake(index);
    }

    fn said(&mut self, index: u32, stamped: Stamped<Outbound<Net>>) {
        let table = self.population.handle(index);
        match stamped.event {
            Outbound::Started(_) => {}
            Outbound::Request(request) => self.send(index, &request, stamped.deadline),
            Outbound::Cancel(cancel) => {
                let (lookup, timed_out) =
                    (number(cancel.operation.tag()), cancel.reason == GivenUp::TimedOut);
                self.note(&Event::GivenUp { lookup, node: cancel.node, timed_out });
                let fate = if timed_out { Fate::TimedOut } else { Fate::Cancelled };
                self.fate(lookup, cancel.node, fate);
            }
            Outbound::Progress(progress) => {
                let fate = match progress.reply {
                    Reply::Answered { .. } => Fate::Answered,
                    Reply::Failed => Fate::Failed,
                    Reply::TimedOut => return,
                };
                self.fate(number(progress.operation.tag()), progress.node, fate);
            }
            Outbound::Finished(finish) => self.finished(&finish),
            Outbound::Refused(refused) => {
                let end = End::Refused(refused.reason);
                self.ended(number(refused.tag), end, Statistics::default(), 0, 0.0);
            }
            Outbound::Admitted(node) => self.note(&Event::Admitted { table, node }),
            Outbound::Removed(node) => self.note(&Event::Removed { table, node }),
        }
    }

    /// A request leaves its asker.
    fn send(&mut self, asker: u32, request: &Request<Net>, deadline: Option<Instant>) {
        let (lookup, from, to) =
            (number(request.operation.tag()), self.population.handle(asker), request.node);
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let mut tries = 0;
        if let Some(lookup) = self.lookups.get_mut(lookup as usize) {
            tries = lookup.asked.iter().filter(|asked| asked.node == to).count() as u64;
            lookup.asked.push(Asked { node: to, hop: request.hop, sent: self.now, ended: None });
        }
        self.note(&Event::Sent { lookup, from, to, hop: request.hop, deadline });
        let mut draw =
            Draw::new(self.scenario.seed, Purpose::Exchange, [u64::from(lookup), u64::from(to.0), tries]);
        let exchange = self.scenario.link.exchange(from, to, &mut draw);
        if exchange.request_lost || self.engine(to).is_none() {
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
        };
        self.queue.plan(self.now + exchange.there, Plan::Ask(flight));
    }

    /// A request arrives, and the node answers.
    fn ask(&mut self, flight: Flight) {
        let Flight { lookup, node, asker, .. } = flight;
        let Some(engine) = self.engine(node) else { return };
        let closer: Vec<_> = engine
            .table()
            .closest(flight.target)
            .take(self.scenario.k)
            .map(|record| *record.node())
            .collect();
        let named = u32::try_from(closer.len()).unwrap_or(u32::MAX);
        self.note(&Event::Asked { lookup, node, closer: named });
        if flight.answer_lost {
            self.note(&Event::Lost { lookup, from: self.population.handle(asker), to: node });
            return;
        }
        let at = self.now + flight.back;
        if let Some(later) = flight.duplicate {
            self.queue.plan(at + later, Plan::Answer(flight, closer.clone()));
        }
        self.queue.plan(at, Plan::Answer(flight, closer));
    }

    /// An answer arrives.
    fn answer(&mut self, flight: &Flight, closer: Vec<Handle>) {
        let from = self.population.handle(flight.asker);
        self.note(&Event::Answered { lookup: flight.lookup, from, node: flight.node });
        let span = self.span(flight.lookup);
        let event = Inbound::Answered { request: flight.request, closer };
        self.tell(flight.asker, Stamped::new(event).in_span(span));
    }

    /// Notes how a request ended.
    fn fate(&mut self, lookup: u32, node: Handle, fate: Fate) {
        let now = self.now;
        let asked = self.lookups.get_mut(lookup as usize).map(|lookup| lookup.asked.as_mut_slice());
        let open = |asked: &&mut Asked| asked.node == node && asked.ended.is_none();
        if let Some(asked) = asked.unwrap_or_default().iter_mut().rev().find(open) {
            asked.ended = Some((now, fate));
        }
    }

    fn finished(&mut self, finish: &Finish<Net>) {
        let lookup = number(finish.operation.tag());
        let starter = self.lookups.get(lookup as usize).map(|lookup| lookup.starter);
        let answers = |node: Handle| Some(node) != starter && self.engine(node).is_some();
        let truth = self.population.closest(finish.target, self.scenario.k, answers);
        let found = finish.closest.iter().filter(|contact| truth.contains(&contact.node)).count();
        let recall = if truth.is_empty() { 1.0 } else { found as f64 / truth.len() as f64 };
        let results = u32::try_from(finish.closest.len()).unwrap_or(u32::MAX);
        self.ended(lookup, End::Finished(finish.outcome), finish.statistics, results, recall);
    }

    fn ended(&mut self, number: u32, end: End, statistics: Statistics, results: u32, recall: f64) {
        self.note(&Event::Finished { lookup: number, end, results });
        let (at, keep) = (self.now, number < self.scenario.keep);
        if let Some(lookup) = self.lookups.get_mut(number as usize) {
            lookup.ending = Some(Ending { end, at, statistics, recall });
            if !keep {
                lookup.asked = Vec::new();
            }
        }
    }
}

impl Node {
    fn new(scenario: &Scenario, population: &Population, index: u32) -> Result<Self, ConfigError> {
        let dead = Draw::new(scenario.seed, Purpose::Dead, [u64::from(index)]).chance(scenario.dead);
        let engine = if dead {
            None
        } else {
            let config = &scenario.config;
            let k = u32::try_from(config.table.bucket_size).unwrap_or(u32::MAX);
            let mut table = RoutingTable::new(population.handle(index).key(), config.table.clone())?;
            population.view(index, k, |known| {
                table.offer(Instant::ORIGIN, &known, None);
            });
            Some(Coordinator::with_table(table, config.clone())?)
        };
        Ok(Self { engine, wake: Instant::FAR_FUTURE, cold: scenario.warm })
    }

    fn timeout(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Machine::poll_timeout)
    }
}

/// The number of the lookup that has this tag.
#[allow(clippy::cast_possible_truncation)] // tags are made of numbers
const fn number(tag: u64) -> u32 {
    tag as u32
}
