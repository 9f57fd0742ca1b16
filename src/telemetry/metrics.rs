//! [`Metrics`]: the engine's plain numbers, and what can be counted from its events, as OpenTelemetry instruments.

use crate::coordinator::Coordinator;
use crate::coordinator::events::{Inbound, Outbound};
use crate::requests::stats::RequestStats;
use crate::routing::candidate_list::IncludeCounts;
use crate::routing::config::RoutingCounts;
use crate::telemetry::spans::{RequestEnd, kind, method, request_end};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Machine;
use crate::vocabulary::operation_events::{OperationStats, Outcome};
use crate::vocabulary::request_events::{Initiator, Request};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Instruments of a meter, for a [`Traced`](super::Traced) coordinator. Observable instruments are read from
/// the counters that the engine keeps, which can also be read directly:
/// [`request_stats`](Coordinator::request_stats), [`routing_counts`](Coordinator::routing_counts),
/// [`refreshes`](Coordinator::refreshes), [`table`](Coordinator::table) and others. The other instruments are
/// counted from the events of the engine, by operation or by initiator.
///
/// Each coordinator of a program needs a meter with a different name or different attributes, because
/// OpenTelemetry treats two meters of the same name as one. This includes a coordinator that replaces an
/// earlier one. When this value is dropped, its instruments report nothing any more.
///
/// | instrument | kind, unit | attributes | what |
/// | --- | --- | --- | --- |
/// | `kad.requests.sent` | counter | `kad.initiator` | requests sent: `operation`, or the initiator as in the [spans](super#spans) |
/// | `kad.requests.ended` | counter | `kad.initiator`, `kad.end` | how they ended: `answered`, `failed`, `rejected`, `timed out`, or why else they were cancelled: `operation ended`, `lookup ended`, `superseded`, `unneeded` |
/// | `rpc.client.call.duration` | histogram, s | `rpc.system.name`, `rpc.method`, `error.type` | requests, from being sent to their end; without those cancelled for another reason than a time-out |
/// | `kad.requests.in_flight`, `kad.requests.queued` | observable gauge | | requests that have not ended; requests that wait for capacity |
/// | `kad.responses.late`, `kad.responses.unknown` | observable counter | | responses for requests that had ended; ids that never existed (of requests, and of operations to be stopped) |
/// | `kad.operations.live`, `kad.operations.running` | observable gauge | | operations of the caller: running or waiting; running |
/// | `kad.operations.refused` | counter | `kad.operation.kind` | starts that were not accepted |
/// | `kad.operation.duration` | histogram, s | `kad.operation.kind`, `kad.outcome` | operations of the caller, from start to finish: `find`, `message`, `bootstrap`, `crawl`, `broadcast` |
/// | `kad.operation.requests`, `kad.operation.hops` | histogram | the same | requests sent by an operation; length of its longest causal chain |
/// | `kad.broadcasts` | counter | `kad.outcome`, `kad.succeeded` | broadcasts that ended |
/// | `kad.table.nodes` | observable gauge | `kad.cpl` | nodes of the routing table, by common prefix length |
/// | `kad.include.queued`, `kad.include.in_flight` | observable gauge | | candidates that wait for a check; candidates under check |
/// | `kad.include.ended` | observable counter | `kad.end` | candidates: `passed`, `failed`, `dropped` (the queue was full), `duplicate`, `backed_off`, `unwanted` |
/// | `kad.probe.pending` | observable gauge | | nodes of the table under check |
/// | `kad.probe.ended` | observable counter | `kad.end` | checks: `passed`, `failed` |
/// | `kad.refreshes` | observable counter | `kad.cpl` | refreshes of buckets that began |
/// | `kad.bootstraps` | observable counter | | bootstraps that began by themselves |
/// | `kad.network.nodes` | observable gauge | | the estimated size of the network, if it is known |
/// | `kad.wakeup.lag` | histogram, s | | how much later than at `poll_timeout` the driver called the engine |
///
/// Observable instruments show the engine as it was at a call at most one second before its latest call, or at the
/// latest [`measure`](super::Traced::measure).
#[derive(Debug)]
pub struct Metrics {
    sent: Counter<u64>,
    ended: Counter<u64>,
    call_duration: Histogram<f64>,
    refused: Counter<u64>,
    operation_duration: Histogram<f64>,
    requests: Histogram<u64>,
    hops: Histogram<u64>,
    broadcasts: Counter<u64>,
    wakeup_lag: Histogram<f64>,
    numbers: Arc<Mutex<Numbers>>,
    /// When the numbers are to be read again.
    next_reading: Instant,
    open_requests: HashMap<RequestId, OpenRequest>,
    /// The kinds of live operations, by tag.
    kinds: HashMap<u64, &'static str>,
    /// During a call: the request that its inbound event ends, and how.
    response: Option<(RequestId, RequestEnd)>,
    /// During a call: the kind of operation that its inbound event starts.
    started_kind: Option<&'static str>,
}

/// A request that has not ended.
#[derive(Debug)]
struct OpenRequest {
    initiator: Initiator,
    method: &'static str,
    sent_at: Instant,
}

/// The engine's plain numbers, as they were last read.
#[derive(Debug, Default)]
struct Numbers {
    request_stats: RequestStats,
    routing: RoutingCounts,
    live: u64,
    running: u64,
    /// By common prefix length in bits, as `explored` is (the refreshes). Once a length has been reported, it
    /// is reported again even if its value is 0.
    table: Vec<u64>,
    explored: Vec<u64>,
    nodes: Option<u64>,
}

/// Boundaries of histograms of durations: those that the semantic conventions advise for calls, and more for
/// operations, which take longer.
const SECONDS: [f64; 17] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0];
const LAGS: [f64; 10] = [0.0, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0, 10.0];
const REQUESTS: [f64; 12] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1_000.0, 10_000.0];
const HOPS: [f64; 9] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0];

/// How often the numbers are read.
const READING_INTERVAL: Duration = Duration::from_secs(1);

impl Metrics {
    /// Creates the instruments of this meter.
    pub fn new(meter: &Meter) -> Self {
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        let observe = Observables { meter, numbers: &numbers };
        observe.gauge("kad.requests.in_flight", |it| it.request_stats.in_flight);
        observe.gauge("kad.requests.queued", |it| it.request_stats.queued);
        observe.counter("kad.responses.late", |it| it.request_stats.late);
        observe.counter("kad.responses.unknown", |it| it.request_stats.unknown);
        observe.gauge("kad.operations.live", |it| it.live);
        observe.gauge("kad.operations.running", |it| it.running);
        observe.gauge("kad.include.queued", |it| it.routing.include.queued);
        observe.gauge("kad.include.in_flight", |it| it.routing.include.in_flight);
        observe.gauge("kad.probe.pending", |it| it.routing.probe.in_flight);
        observe.counter("kad.bootstraps", |it| it.routing.automatic_bootstraps);
        observe.counters("kad.include.ended", |it| {
            let IncludeCounts { passed, failed, dropped, duplicate, backed_off, unwanted, .. } =
                it.routing.include;
            ends([
                ("passed", passed),
                ("failed", failed),
                ("dropped", dropped),
                ("duplicate", duplicate),
                ("backed_off", backed_off),
                ("unwanted", unwanted),
            ])
        });
        observe.counters("kad.probe.ended", |it| {
            ends([("passed", it.routing.probe.passed), ("failed", it.routing.probe.failed)])
        });
        observe.counters("kad.refreshes", |it| by_cpl(&it.explored));
        observe.gauges("kad.table.nodes", |it| by_cpl(&it.table));
        observe.gauges("kad.network.nodes", |it| it.nodes.map(|nodes| (nodes, None)).into_iter().collect());
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
            call_duration: seconds("rpc.client.call.duration"),
            refused: counter("kad.operations.refused"),
            operation_duration: seconds("kad.operation.duration"),
            requests: numbers_of("kad.operation.requests", &REQUESTS),
            hops: numbers_of("kad.operation.hops", &HOPS),
            broadcasts: counter("kad.broadcasts"),
            wakeup_lag: meter
                .f64_histogram("kad.wakeup.lag")
                .with_unit("s")
                .with_boundaries(LAGS.into())
                .build(),
            numbers,
            next_reading: Instant::ORIGIN,
            open_requests: HashMap::new(),
            kinds: HashMap::new(),
            response: None,
            started_kind: None,
        }
    }

    /// To be called before each call of the engine, with its inbound event.
    pub(super) fn before_call<F: Family>(
        &mut self,
        now: Instant,
        event: &Inbound<F>,
        engine: &Coordinator<F>,
    ) {
        if let Some(due) = engine.poll_timeout().filter(|due| *due <= now) {
            self.wakeup_lag.record((now - due).as_secs_f64(), &[]);
        }
        self.response = request_end(event);
        self.started_kind = kind(event, engine.table().local());
    }

    /// To be called for each outbound event of a call, in order.
    pub(super) fn outbound<F: Family>(&mut self, now: Instant, event: &Outbound<F>) {
        match event {
            Outbound::Started(started) => {
                if let Some(kind) = self.started_kind.take() {
                    self.kinds.insert(started.operation.tag(), kind);
                }
            }
            Outbound::Refused(_) => {
                if let Some(kind) = self.started_kind.take() {
                    self.refused.add(1, &[KeyValue::new("kad.operation.kind", kind)]);
                }
            }
            Outbound::Request(Request { id, initiator, ask, .. }) => {
                let method = method(ask);
                self.open_requests.insert(*id, OpenRequest { initiator: *initiator, method, sent_at: now });
                self.sent.add(1, &[initiator_attribute(*initiator)]);
            }
            Outbound::Cancel(cancel) => {
                self.end_request(now, cancel.id, RequestEnd::Cancelled(cancel.reason));
            }
            Outbound::Finished(it) => self.end_operation(it.operation.tag(), it.outcome, &it.stats),
            Outbound::CrawlFinished(it) => self.end_operation(it.operation.tag(), it.outcome, &it.stats),
            Outbound::BroadcastFinished(it) => {
                self.end_operation(it.operation.tag(), it.outcome, &it.stats);
                let outcome = KeyValue::new("kad.outcome", it.outcome.to_string());
                self.broadcasts.add(1, &[outcome, KeyValue::new("kad.succeeded", it.succeeded)]);
            }
            _ => {}
        }
    }

    /// To be called after the outbound events of a call.
    pub(super) fn after_call<F: Family>(&mut self, now: Instant, engine: &Coordinator<F>) {
        // A request that timed out in this call, before the response was handled, has been removed: nothing
        // happens then.
        if let Some((request, end)) = self.response.take() {
            self.end_request(now, request, end);
        }
        self.started_kind = None;
        if now >= self.next_reading {
            self.measure(now, engine);
        }
    }

    /// Counts the end of a request; an unknown id is ignored.
    fn end_request(&mut self, now: Instant, request: RequestId, end: RequestEnd) {
        let Some(OpenRequest { initiator, method, sent_at }) = self.open_requests.remove(&request) else {
            return;
        };
        self.ended.add(1, &[initiator_attribute(initiator), KeyValue::new("kad.end", end.to_string())]);
        let error = end.error();
        if error.is_none() && matches!(end, RequestEnd::Cancelled(_)) {
            return;
        }
        let call = [KeyValue::new("rpc.system.name", "kademlia"), KeyValue::new("rpc.method", method)];
        let error = error.map(|error| KeyValue::new("error.type", error));
        let attributes: Vec<_> = call.into_iter().chain(error).collect();
        self.call_duration.record((now - sent_at).as_secs_f64(), &attributes);
    }

    fn end_operation(&mut self, tag: u64, outcome: Outcome, stats: &OperationStats) {
        let kind = self.kinds.remove(&tag).unwrap_or("unknown");
        let attributes =
            [KeyValue::new("kad.operation.kind", kind), KeyValue::new("kad.outcome", outcome.to_string())];
        let took = stats.ended.unwrap_or(stats.started) - stats.started;
        self.operation_duration.record(took.as_secs_f64(), &attributes);
        self.requests.record(u64::from(stats.sent), &attributes);
        self.hops.record(u64::from(stats.hops), &attributes);
    }

    /// Reads the plain numbers.
    pub(super) fn measure<F: Family>(&mut self, now: Instant, engine: &Coordinator<F>) {
        self.next_reading = now + READING_INTERVAL;
        // Nothing panics while it holds the lock.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let table = engine.table();
        let bits = (0..F::Key::BITS).rev();
        let highest_cpl = |is_some: &dyn Fn(u32) -> bool| bits.clone().find(|cpl| is_some(*cpl));
        fill(&mut numbers.table, highest_cpl(&|cpl| !table.bucket(cpl).is_empty()), |cpl| {
            table.bucket(cpl).len() as u64
        });
        fill(&mut numbers.explored, highest_cpl(&|cpl| engine.refreshes(cpl) > 0), |cpl| {
            engine.refreshes(cpl)
        });
        numbers.request_stats = engine.request_stats();
        numbers.routing = engine.routing_counts();
        numbers.live = engine.operations() as u64;
        numbers.running = engine.running() as u64;
        numbers.nodes = engine.network_size(now).ok().map(|size| size.nodes());
    }
}

/// Creates observable instruments, whose callbacks read the numbers when a reader exports.
struct Observables<'a> {
    meter: &'a Meter,
    numbers: &'a Arc<Mutex<Numbers>>,
}

/// Values to observe, each with its attribute.
type Points = Vec<(u64, Option<KeyValue>)>;

impl Observables<'_> {
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

/// Reads the numbers up to the highest common prefix length, and at least as far as they went before.
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

/// The initiator as an attribute. All operations have one value, as there are too many of them.
fn initiator_attribute(initiator: Initiator) -> KeyValue {
    KeyValue::new("kad.initiator", initiator.name())
}
