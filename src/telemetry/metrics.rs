//! [`Metrics`]: the engine's plain numbers as instruments.

use crate::Coordinator;
use crate::broadcast::BroadcastFinish;
use crate::coordinator::{Inbound, Outbound};
use crate::event::{GivenUp, Outcome, Owner, Statistics};
use crate::family::Family;
use crate::id::RequestId;
use crate::machine::Machine;
use crate::time::Instant;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use std::collections::HashMap;

/// Instruments of a meter, for a [`Traced`](super::Traced) coordinator. The engine keeps plain numbers, which can be read without
/// any of this; here they are counted on and exported.
///
/// | instrument | kind, unit | attributes | what |
/// | --- | --- | --- | --- |
/// | `kad.requests.sent` | counter | `kad.owner` | requests |
/// | `kad.requests.ended` | counter | `kad.owner`, `kad.end` | how they ended: `answered`, `failed`, `rejected`, `timed out`, or why they were given up |
/// | `kad.requests.in_flight`, `kad.requests.queued` | gauge | | requests that have not ended, that wait for capacity |
/// | `kad.replies.late`, `kad.replies.unknown` | counter | | replies for requests that had ended, and ids that were made up |
/// | `kad.operations.live`, `kad.operations.running` | gauge | | operations of the caller |
/// | `kad.operation.duration` | histogram, s | `kad.operation.kind`, `kad.outcome` | from start to finish |
/// | `kad.operation.requests`, `kad.operation.hops` | histogram | the same | what it took |
/// | `kad.stores` | counter | `kad.outcome` | broadcasts, by whether they succeeded: `stored`, `short` |
/// | `kad.table.nodes` | gauge | `kad.cpl` | nodes of the routing table, by common prefix length |
/// | `kad.include.queued`, `kad.include.in_flight` | gauge | | candidates that wait, and under check |
/// | `kad.include.ended` | counter | `kad.end` | candidates: `passed`, `failed`, `dropped`, `duplicate`, `shunned`, `unwanted` |
/// | `kad.probe.pending` | gauge | | nodes under check |
/// | `kad.probe.ended` | counter | `kad.end` | checks: `passed`, `failed` |
/// | `kad.explored`, `kad.bootstraps` | counter | | buckets refreshed, bootstraps that began by themselves |
/// | `kad.network.nodes` | gauge | | the estimated size of the network, where it is known |
/// | `kad.wakeup.lag` | histogram, s | | how much later than the engine asked for the driver called it |
#[derive(Debug)]
pub struct Metrics {
    sent: Counter<u64>,
    ended: Counter<u64>,
    late: Counter<u64>,
    unknown: Counter<u64>,
    duration: Histogram<f64>,
    requests: Histogram<u64>,
    hops: Histogram<u64>,
    stores: Counter<u64>,
    include: Counter<u64>,
    probe: Counter<u64>,
    explored: Counter<u64>,
    bootstraps: Counter<u64>,
    lag: Histogram<f64>,
    in_flight: Gauge<u64>,
    queued: Gauge<u64>,
    live: Gauge<u64>,
    running: Gauge<u64>,
    table: Gauge<u64>,
    include_queued: Gauge<u64>,
    include_in_flight: Gauge<u64>,
    probe_pending: Gauge<u64>,
    nodes: Gauge<u64>,
    owners: HashMap<RequestId, Owner>,
    kinds: HashMap<u64, &'static str>,
    /// What has been counted by now, by instrument and attribute.
    counted: HashMap<&'static str, u64>,
    /// How many buckets of the table have been reported.
    buckets: u32,
    /// A reply that came in, and how it ended.
    reply: Option<(RequestId, &'static str)>,
    /// A start that came in.
    start: Option<&'static str>,
}

impl Metrics {
    /// Makes the instruments.
    pub fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str| meter.u64_counter(name).build();
        let gauge = |name: &'static str| meter.u64_gauge(name).build();
        Self {
            sent: counter("kad.requests.sent"),
            ended: counter("kad.requests.ended"),
            late: counter("kad.replies.late"),
            unknown: counter("kad.replies.unknown"),
            duration: meter.f64_histogram("kad.operation.duration").with_unit("s").build(),
            requests: meter.u64_histogram("kad.operation.requests").build(),
            hops: meter.u64_histogram("kad.operation.hops").build(),
            stores: counter("kad.stores"),
            include: counter("kad.include.ended"),
            probe: counter("kad.probe.ended"),
            explored: counter("kad.explored"),
            bootstraps: counter("kad.bootstraps"),
            lag: meter.f64_histogram("kad.wakeup.lag").with_unit("s").build(),
            in_flight: gauge("kad.requests.in_flight"),
            queued: gauge("kad.requests.queued"),
            live: gauge("kad.operations.live"),
            running: gauge("kad.operations.running"),
            table: gauge("kad.table.nodes"),
            include_queued: gauge("kad.include.queued"),
            include_in_flight: gauge("kad.include.in_flight"),
            probe_pending: gauge("kad.probe.pending"),
            nodes: gauge("kad.network.nodes"),
            owners: HashMap::new(),
            kinds: HashMap::new(),
            counted: HashMap::new(),
            buckets: 0,
            reply: None,
            start: None,
        }
    }

    /// An event comes in.
    pub(super) fn told<F: Family>(&mut self, now: Instant, event: &Inbound<F>, engine: &Coordinator<F>) {
        if let Some(due) = engine.poll_timeout().filter(|due| *due <= now) {
            self.lag.record((now - due).as_secs_f64(), &[]);
        }
        self.reply = match event {
            Inbound::Answered { request, .. } | Inbound::AnsweredWith { request, .. } => {
                Some((*request, "answered"))
            }
            Inbound::Failed(request) => Some((*request, "failed")),
            Inbound::Rejected { request, .. } => Some((*request, "rejected")),
            _ => None,
        };
        self.start = match event {
            Inbound::Start(start) if start.is_bootstrap(engine.table().local()) => Some("bootstrap"),
            Inbound::Start(start) if start.ask == crate::Ask::FindCloser => Some("find"),
            Inbound::Start(_) => Some("message"),
            Inbound::Crawl(_) => Some("crawl"),
            Inbound::Broadcast(_) => Some("broadcast"),
            _ => None,
        };
    }

    /// Events went out.
    pub(super) fn said<F: Family>(&mut self, event: &Outbound<F>) {
        match event {
            Outbound::Started(started) => {
                if let Some(kind) = self.start.take() {
                    self.kinds.insert(started.operation.tag(), kind);
                }
            }
            Outbound::Request(request) => {
                self.owners.insert(request.id, request.owner);
                self.sent.add(1, &[owner(request.owner)]);
            }
            Outbound::Cancel(cancel) => {
                // Time took it before the reply was looked at.
                self.reply = self.reply.filter(|(request, _)| *request != cancel.id);
                let end = if cancel.reason == GivenUp::TimedOut {
                    "timed out".into()
                } else {
                    cancel.reason.to_string()
                };
                if let Some(of) = self.owners.remove(&cancel.id) {
                    self.ended.add(1, &[owner(of), KeyValue::new("kad.end", end)]);
                }
            }
            Outbound::Finished(it) => self.finished(it.operation.tag(), it.outcome, &it.statistics),
            Outbound::CrawlFinished(it) => self.finished(it.operation.tag(), it.outcome, &it.statistics),
            Outbound::BroadcastFinished(it) => {
                self.finished(it.operation.tag(), it.outcome, &it.statistics);
                self.broadcast(it);
            }
            _ => {}
        }
    }

    /// All events of a call went out.
    pub(super) fn over(&mut self) {
        if let Some((request, end)) = self.reply.take()
            && let Some(of) = self.owners.remove(&request)
        {
            self.ended.add(1, &[owner(of), KeyValue::new("kad.end", end)]);
        }
        self.start = None;
    }

    fn broadcast<F: Family>(&self, finish: &BroadcastFinish<F>) {
        let outcome = if finish.succeeded { "stored" } else { "short" };
        self.stores.add(1, &[KeyValue::new("kad.outcome", outcome)]);
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

    /// Counts on to this number.
    fn upto(&mut self, name: &'static str, number: u64) -> u64 {
        let counted = self.counted.entry(name).or_insert(0);
        number.saturating_sub(core::mem::replace(counted, number))
    }

    /// Reads the plain numbers.
    pub(super) fn measure<F: Family>(&mut self, now: Instant, engine: &Coordinator<F>) {
        let (traffic, routing) = (engine.traffic(), engine.routing());
        self.in_flight.record(traffic.in_flight, &[]);
        self.queued.record(traffic.queued, &[]);
        let more = self.upto("late", traffic.late);
        self.late.add(more, &[]);
        let more = self.upto("unknown", traffic.unknown);
        self.unknown.add(more, &[]);
        self.live.record(engine.operations() as u64, &[]);
        self.running.record(engine.running() as u64, &[]);
        // The buckets that have been reported before are so again, though they be empty now.
        let table = engine.table();
        let last =
            table.iter().map(|record| crate::Key::common_prefix_len(&table.local(), &F::key(record.node())));
        self.buckets = self.buckets.max(last.max().map_or(0, |cpl| cpl + 1));
        for cpl in 0..self.buckets {
            let nodes = table.bucket(cpl).len() as u64;
            self.table.record(nodes, &[KeyValue::new("kad.cpl", i64::from(cpl))]);
        }
        let (include, probe) = (routing.include, routing.probe);
        self.include_queued.record(include.queued, &[]);
        self.include_in_flight.record(include.in_flight, &[]);
        let ends = [
            ("passed", include.passed),
            ("failed", include.failed),
            ("dropped", include.dropped),
            ("duplicate", include.duplicate),
            ("shunned", include.shunned),
            ("unwanted", include.unwanted),
        ];
        for (end, number) in ends {
            let more = self.upto(end, number);
            self.include.add(more, &[KeyValue::new("kad.end", end)]);
        }
        self.probe_pending.record(probe.in_flight, &[]);
        for (end, name, number) in
            [("passed", "probe passed", probe.passed), ("failed", "probe failed", probe.failed)]
        {
            let more = self.upto(name, number);
            self.probe.add(more, &[KeyValue::new("kad.end", end)]);
        }
        let more = self.upto("explored", routing.explored);
        self.explored.add(more, &[]);
        let more = self.upto("bootstraps", routing.bootstraps);
        self.bootstraps.add(more, &[]);
        if let Ok(size) = engine.network_size(now) {
            self.nodes.record(size.nodes(), &[]);
        }
    }
}

fn owner(owner: Owner) -> KeyValue {
    let name = match owner {
        Owner::Operation(_) => "operation",
        Owner::Bootstrap => "bootstrap",
        Owner::Explore => "explore",
        Owner::Include => "include",
        Owner::Probe => "probe",
        Owner::Background => "background",
    };
    KeyValue::new("kad.owner", name)
}
