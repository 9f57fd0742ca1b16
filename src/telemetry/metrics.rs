//! [`Metrics`]: the engine's plain numbers as instruments.

use super::RequestEnd;
use super::spans::{kind, method};
use super::traced::ended;
use crate::Coordinator;
use crate::coordinator::{Inbound, Outbound};
use crate::event::{Outcome, Owner, Request, Statistics};
use crate::family::Family;
use crate::id::RequestId;
use crate::include::IncludeCounts;
use crate::key::Key;
use crate::machine::Machine;
use crate::outbox::Traffic;
use crate::routing::RoutingCounts;
use crate::time::Instant;
use core::time::Duration;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Instruments of a meter, for a [`Traced`](super::Traced) coordinator. What is observable is read from the plain numbers that the
/// engine keeps, which can be read without any of this: [`traffic`](Coordinator::traffic), [`routing`](Coordinator::routing),
/// [`explored`](Coordinator::explored), [`table`](Coordinator::table) and the like. The others are counted from events: what the
/// engine says of each operation and request, and to whom it belongs.
///
/// Two coordinators of a program want a meter each, of names or attributes of their own, as OpenTelemetry takes two meters of one
/// name for the same; and so does one that takes the place of another. Once this is dropped, nothing is observed any more.
///
/// | instrument | kind, unit | attributes | what |
/// | --- | --- | --- | --- |
/// | `kad.requests.sent` | counter | `kad.owner` | requests: of an `operation`, or else as [spans](super#spans) say it |
/// | `kad.requests.ended` | counter | `kad.owner`, `kad.end` | how they ended: `answered`, `failed`, `rejected`, `timed out`, or why else they were given up (cancelled): `operation ended`, `lookup ended`, `superseded`, `unneeded` |
/// | `rpc.client.call.duration` | histogram, s | `rpc.system.name`, `rpc.method`, `error.type` | requests, from being sent to their end; those that were given up for another reason than time are not in it |
/// | `kad.requests.in_flight`, `kad.requests.queued` | observable gauge | | requests that have not ended, that wait for capacity |
/// | `kad.replies.late`, `kad.replies.unknown` | observable counter | | replies for requests that had ended, and ids that were made up (of requests, and of operations to be stopped) |
/// | `kad.operations.live`, `kad.operations.running` | observable gauge | | operations of the caller |
/// | `kad.operations.refused` | counter | `kad.operation.kind` | starts that were not accepted |
/// | `kad.operation.duration` | histogram, s | `kad.operation.kind`, `kad.outcome` | operations of the caller, from start to finish: `find`, `message`, `bootstrap`, `crawl`, `broadcast` |
/// | `kad.operation.requests`, `kad.operation.hops` | histogram | the same | what it took |
/// | `kad.broadcasts` | counter | `kad.outcome`, `kad.succeeded` | broadcasts that ended |
/// | `kad.table.nodes` | observable gauge | `kad.cpl` | nodes of the routing table, by common prefix length |
/// | `kad.include.queued`, `kad.include.in_flight` | observable gauge | | candidates that wait, and under check |
/// | `kad.include.ended` | observable counter | `kad.end` | candidates: `passed`, `failed`, `dropped` (the queue was full), `duplicate`, `shunned`, `unwanted` |
/// | `kad.probe.pending` | observable gauge | | nodes under check |
/// | `kad.probe.ended` | observable counter | `kad.end` | checks: `passed`, `failed` |
/// | `kad.explored` | observable counter | `kad.cpl` | refreshes of buckets that began |
/// | `kad.bootstraps` | observable counter | | bootstraps that began by themselves |
/// | `kad.network.nodes` | observable gauge | | the estimated size of the network, where it is known |
/// | `kad.wakeup.lag` | histogram, s | | how much later than the engine asked for the driver called it |
///
/// What is observable is as the engine was at a call no longer than a second before its latest one, or at the latest
/// [`measure`](super::Traced::measure).
#[derive(Debug)]
pub struct Metrics {
    sent: Counter<u64>,
    ended: Counter<u64>,
    took: Histogram<f64>,
    refused: Counter<u64>,
    duration: Histogram<f64>,
    requests: Histogram<u64>,
    hops: Histogram<u64>,
    broadcasts: Counter<u64>,
    lag: Histogram<f64>,
    numbers: Arc<Mutex<Numbers>>,
    /// When they are to be read again.
    due: Instant,
    open: HashMap<RequestId, Open>,
    /// Of operations, by tag.
    kinds: HashMap<u64, &'static str>,
    /// A reply that came in, and how it ended.
    reply: Option<(RequestId, RequestEnd)>,
    /// A start that came in.
    start: Option<&'static str>,
}

/// A request that has not ended.
#[derive(Debug)]
struct Open {
    owner: Owner,
    method: &'static str,
    since: Instant,
}

/// The engine's plain numbers, as they were last read.
#[derive(Debug, Default)]
struct Numbers {
    traffic: Traffic,
    routing: RoutingCounts,
    live: u64,
    running: u64,
    /// By common prefix length, as are those below. What has been reported once is so again, though it be 0.
    table: Vec<u64>,
    explored: Vec<u64>,
    nodes: Option<u64>,
}

/// Boundaries of histograms: those that the semantic conventions advise for calls, and what operations take longer.
const SECONDS: [f64; 17] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0];
const LAGS: [f64; 10] = [0.0, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0, 10.0];
const REQUESTS: [f64; 12] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1_000.0, 10_000.0];
const HOPS: [f64; 9] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0];

/// How often the numbers are read.
const EVERY: Duration = Duration::from_secs(1);

impl Metrics {
    /// Makes the instruments.
    pub fn new(meter: &Meter) -> Self {
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        let from = Observed { meter, numbers: &numbers };
        from.gauge("kad.requests.in_flight", |it| it.traffic.in_flight);
        from.gauge("kad.requests.queued", |it| it.traffic.queued);
        from.counter("kad.replies.late", |it| it.traffic.late);
        from.counter("kad.replies.unknown", |it| it.traffic.unknown);
        from.gauge("kad.operations.live", |it| it.live);
        from.gauge("kad.operations.running", |it| it.running);
        from.gauge("kad.include.queued", |it| it.routing.include.queued);
        from.gauge("kad.include.in_flight", |it| it.routing.include.in_flight);
        from.gauge("kad.probe.pending", |it| it.routing.probe.in_flight);
        from.counter("kad.bootstraps", |it| it.routing.bootstraps);
        from.counters("kad.include.ended", |it| {
            let IncludeCounts { passed, failed, dropped, duplicate, shunned, unwanted, .. } =
                it.routing.include;
            ends([
                ("passed", passed),
                ("failed", failed),
                ("dropped", dropped),
                ("duplicate", duplicate),
                ("shunned", shunned),
                ("unwanted", unwanted),
            ])
        });
        from.counters("kad.probe.ended", |it| {
            ends([("passed", it.routing.probe.passed), ("failed", it.routing.probe.failed)])
        });
        from.counters("kad.explored", |it| by_cpl(&it.explored));
        from.gauges("kad.table.nodes", |it| by_cpl(&it.table));
        from.gauges("kad.network.nodes", |it| it.nodes.map(|nodes| (nodes, None)).into_iter().collect());
        let counter = |name: &'static str| meter.u64_counter(name).build();
        let seconds = |name: &'static str| {
            meter.f64_histogram(name).with_unit("s").with_boundaries(SECONDS.into()).build()
        };
        let numbers_of = |name: &'static str, boundaries: &[f64]| {
            meter.u64_histogram(name).with_boundaries(boundaries.into()).build()
        };
        Self {
            sent: counter("kad.requests.sent"),
            ended: counter("kad.requests.ended"),
            took: seconds("rpc.client.call.duration"),
            refused: counter("kad.operations.refused"),
            duration: seconds("kad.operation.duration"),
            requests: numbers_of("kad.operation.requests", &REQUESTS),
            hops: numbers_of("kad.operation.hops", &HOPS),
            broadcasts: counter("kad.broadcasts"),
            lag: meter.f64_histogram("kad.wakeup.lag").with_unit("s").with_boundaries(LAGS.into()).build(),
            numbers,
            due: Instant::ORIGIN,
            open: HashMap::new(),
            kinds: HashMap::new(),
            reply: None,
            start: None,
        }
    }

    /// An event comes in.
    pub(super) fn told<F: Family>(&mut self, now: Instant, event: &Inbound<F>, engine: &Coordinator<F>) {
        if let Some(due) = engine.poll_timeout().filter(|due| *due <= now) {
            self.lag.record((now - due).as_secs_f64(), &[]);
        }
        self.reply = ended(event);
        self.start = kind(event, engine.table().local());
    }

    /// An event went out.
    pub(super) fn said<F: Family>(&mut self, now: Instant, event: &Outbound<F>) {
        match event {
            Outbound::Started(started) => {
                if let Some(kind) = self.start.take() {
                    self.kinds.insert(started.operation.tag(), kind);
                }
            }
            Outbound::Refused(_) => {
                if let Some(kind) = self.start.take() {
                    self.refused.add(1, &[KeyValue::new("kad.operation.kind", kind)]);
                }
            }
            Outbound::Request(Request { id, owner, ask, .. }) => {
                self.open.insert(*id, Open { owner: *owner, method: method(ask), since: now });
                self.sent.add(1, &[of(*owner)]);
            }
            Outbound::Cancel(cancel) => self.end(now, cancel.id, RequestEnd::GivenUp(cancel.reason)),
            Outbound::Finished(it) => self.finished(it.operation.tag(), it.outcome, &it.statistics),
            Outbound::CrawlFinished(it) => self.finished(it.operation.tag(), it.outcome, &it.statistics),
            Outbound::BroadcastFinished(it) => {
                self.finished(it.operation.tag(), it.outcome, &it.statistics);
                let outcome = KeyValue::new("kad.outcome", it.outcome.to_string());
                self.broadcasts.add(1, &[outcome, KeyValue::new("kad.succeeded", it.succeeded)]);
            }
            _ => {}
        }
    }

    /// All events of a call went out.
    pub(super) fn over<F: Family>(&mut self, now: Instant, engine: &Coordinator<F>) {
        // Unless time took it before the reply was looked at.
        if let Some((request, end)) = self.reply.take() {
            self.end(now, request, end);
        }
        self.start = None;
        if now >= self.due {
            self.measure(now, engine);
        }
    }

    /// A request ended, if it was one.
    fn end(&mut self, now: Instant, request: RequestId, end: RequestEnd) {
        let Some(Open { owner, method, since }) = self.open.remove(&request) else { return };
        self.ended.add(1, &[of(owner), KeyValue::new("kad.end", end.to_string())]);
        let error = end.error();
        if error.is_none() && matches!(end, RequestEnd::GivenUp(_)) {
            return;
        }
        let call = [KeyValue::new("rpc.system.name", "kademlia"), KeyValue::new("rpc.method", method)];
        let error = error.map(|error| KeyValue::new("error.type", error));
        let attributes: Vec<_> = call.into_iter().chain(error).collect();
        self.took.record((now - since).as_secs_f64(), &attributes);
    }

    fn finished(&mut self, tag: u64, outcome: Outcome, statistics: &Statistics) {
        let kind = self.kinds.remove(&tag).unwrap_or("unknown");
        let of =
            [KeyValue::new("kad.operation.kind", kind), KeyValue::new("kad.outcome", outcome.to_string())];
        let took = statistics.ended.unwrap_or(statistics.started) - statistics.started;
        self.duration.record(took.as_secs_f64(), &of);
        self.requests.record(u64::from(statistics.requests), &of);
        self.hops.record(u64::from(statistics.hops), &of);
    }

    /// Reads the plain numbers.
    pub(super) fn measure<F: Family>(&mut self, now: Instant, engine: &Coordinator<F>) {
        self.due = now + EVERY;
        // Nobody panics with it in hand.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let table = engine.table();
        let bits = (0..F::Key::BITS).rev();
        let highest = |some: &dyn Fn(u32) -> bool| bits.clone().find(|cpl| some(*cpl));
        fill(&mut numbers.table, highest(&|cpl| !table.bucket(cpl).is_empty()), |cpl| {
            table.bucket(cpl).len() as u64
        });
        fill(&mut numbers.explored, highest(&|cpl| engine.explored(cpl) > 0), |cpl| engine.explored(cpl));
        numbers.traffic = engine.traffic();
        numbers.routing = engine.routing();
        numbers.live = engine.operations() as u64;
        numbers.running = engine.running() as u64;
        numbers.nodes = engine.network_size(now).ok().map(|size| size.nodes());
    }
}

/// What is read from the numbers when it is exported.
struct Observed<'a> {
    meter: &'a Meter,
    numbers: &'a Arc<Mutex<Numbers>>,
}

/// Numbers with the attribute of each.
type Points = Vec<(u64, Option<KeyValue>)>;

impl Observed<'_> {
    fn gauge(&self, name: &'static str, read: fn(&Numbers) -> u64) {
        self.gauges(name, move |numbers| vec![(read(numbers), None)]);
    }

    fn counter(&self, name: &'static str, read: fn(&Numbers) -> u64) {
        self.counters(name, move |numbers| vec![(read(numbers), None)]);
    }

    fn gauges(&self, name: &'static str, read: impl Fn(&Numbers) -> Points + Send + Sync + 'static) {
        let points = self.points(read);
        let gauge = self.meter.u64_observable_gauge(name);
        gauge
            .with_callback(move |to| {
                for (number, of) in points() {
                    to.observe(number, of.as_slice());
                }
            })
            .build();
    }

    fn counters(&self, name: &'static str, read: impl Fn(&Numbers) -> Points + Send + Sync + 'static) {
        let points = self.points(read);
        let counter = self.meter.u64_observable_counter(name);
        counter
            .with_callback(move |to| {
                for (number, of) in points() {
                    to.observe(number, of.as_slice());
                }
            })
            .build();
    }

    fn points(
        &self,
        read: impl Fn(&Numbers) -> Points + Send + Sync + 'static,
    ) -> impl Fn() -> Points + Send + Sync + 'static {
        let numbers = Arc::downgrade(self.numbers);
        move || {
            let numbers = numbers.upgrade();
            numbers.map_or_else(Points::new, |it| read(&it.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }
}

/// Fills in the numbers up to the highest common prefix length, and as far as they went before.
fn fill(to: &mut Vec<u64>, highest: Option<u32>, read: impl Fn(u32) -> u64) {
    let length = highest.map_or(0, |highest| highest as usize + 1).max(to.len());
    to.clear();
    to.extend((0..).take(length).map(read));
}

fn by_cpl(numbers: &[u64]) -> Points {
    (0..).zip(numbers).map(|(cpl, number)| (*number, Some(KeyValue::new("kad.cpl", cpl)))).collect()
}

fn ends<const N: usize>(ends: [(&'static str, u64); N]) -> Points {
    ends.map(|(end, number)| (number, Some(KeyValue::new("kad.end", end)))).into()
}

/// Whose work it is: all operations under one name, as there are too many of them.
fn of(owner: Owner) -> KeyValue {
    KeyValue::new("kad.owner", owner.name())
}
