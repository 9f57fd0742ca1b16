//! What somebody who uses OpenTelemetry sees of a coordinator.

#![cfg(feature = "telemetry")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::broadcast::StartBroadcast;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::telemetry::{Metrics, Traced};
use kad_proto::{
    Ask, Config, Context, Coordinator, Family, Instant, Key, Key8, Machine, NetworkConfig, Request,
    RequestId, RoutingConfig, SpanContext, Stamped, Start,
};
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracer, SdkTracerProvider, SpanData};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

#[derive(Clone, Debug, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Node = Key8;
    type Message = &'static str;

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

const LOCAL: Key8 = Key8::new([0xff]);
const S: Duration = Duration::from_secs(1);

fn node(key: u8) -> Key8 {
    Key8::new([key])
}

/// A coordinator among nodes that know each other, and what its tracer was told.
struct Net {
    machine: Traced<Tiny, SdkTracer>,
    now: Instant,
    open: Vec<(Instant, Request<Tiny>, Context)>,
    /// Nodes that do not answer.
    dead: fn(&Key8) -> bool,
    /// Of each request, that from whose answer (or start) it followed: what a driver sees of the causal tree.
    causes: BTreeMap<RequestId, Option<RequestId>>,
    /// The span of each request.
    ids: BTreeMap<RequestId, SpanId>,
    provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
}

fn origin() -> SystemTime {
    SystemTime::UNIX_EPOCH + S * 1_000_000
}

impl Net {
    fn new(config: Config, sampler: Sampler) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .build();
        let tracer = provider.tracer("kad");
        let machine = Traced::new(Coordinator::new(LOCAL, config).unwrap(), tracer, origin());
        let (open, causes, ids) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { machine, now: Instant::ORIGIN, open, dead: |_| false, causes, ids, provider, exporter }
    }

    fn call(&mut self, event: Stamped<Inbound<Tiny>>) -> Vec<Stamped<Outbound<Tiny>>> {
        let cause = match &event.event {
            Inbound::Answered { request, .. } => Some(*request),
            _ => None,
        };
        let out = self.machine.handle(self.now, event);
        for stamped in &out {
            match &stamped.event {
                Outbound::Request(request) => {
                    self.causes.insert(request.id, cause);
                    if let Some(span) = stamped.context.parent() {
                        self.ids.insert(request.id, span.span_id());
                    }
                    self.open.push((self.now, request.clone(), stamped.context.clone()));
                }
                Outbound::Cancel(cancel) => self.open.retain(|(_, request, _)| request.id != cancel.id),
                _ => {}
            }
        }
        out.into_vec()
    }

    /// Answers come after 10 ms, in order; time passes where nobody answers. Until this instant.
    fn run(&mut self, until: Instant) {
        let network: Vec<_> = (0..64).map(|i| node(i * 4)).collect();
        loop {
            let place = self.open.iter().position(|(_, request, _)| !(self.dead)(&request.node));
            let answer = place.map(|place| self.open[place].0 + Duration::from_millis(10));
            let wake = self.machine.poll_timeout();
            let Some(at) = answer.into_iter().chain(wake).min().filter(|at| *at <= until) else { return };
            self.now = self.now.max(at);
            if answer != Some(at) {
                self.call(Inbound::Tick.into());
                continue;
            }
            let (_, request, _) = self.open.remove(place.unwrap());
            let mut closer = network.clone();
            closer.sort_by_key(|node| node.distance(&request.target));
            closer.truncate(if matches!(request.ask, Ask::Store { .. }) { 0 } else { 20 });
            self.call(Inbound::Answered { request: request.id, closer }.into());
        }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.provider.force_flush().unwrap();
        self.exporter.get_finished_spans().unwrap()
    }
}

fn quiet() -> Config {
    let network = NetworkConfig {
        request_timeout: S * 2,
        soft_timeout: S,
        min_timeout: S * 2,
        ..NetworkConfig::default()
    };
    Config { routing: RoutingConfig::off(), network, ..Config::default() }
}

fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|attribute| &attribute.value)
}

fn text(span: &SpanData, name: &str) -> String {
    attribute(span, name).map_or_else(String::new, ToString::to_string)
}

fn find(tag: u64, target: u8) -> Start<Tiny> {
    Start::find(tag, node(target)).with_seeds(vec![node(0x80), node(0x10)])
}

#[test]
fn one_lookup_is_one_trace_and_its_tree_is_the_causal_tree() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.call(Inbound::Start(find(7, 0x42)).into());
    net.run(Instant::FAR_FUTURE);
    let spans = net.spans();
    let traces: HashSet<_> = spans.iter().map(|span| span.span_context.trace_id()).collect();
    assert_eq!(traces.len(), 1);
    let lookup = spans.iter().find(|span| span.name == "kad find").unwrap();
    assert_eq!((lookup.parent_span_id, &lookup.span_kind), (SpanId::INVALID, &SpanKind::Internal));
    assert_eq!(
        (text(lookup, "kad.operation"), text(lookup, "kad.outcome")),
        ("7".into(), "converged".into())
    );
    assert_eq!((lookup.start_time, &lookup.status), (origin(), &Status::Unset));
    let requests: Vec<_> = spans.iter().filter(|span| span.name == "FIND_NODE").collect();
    assert_eq!(requests.len(), net.causes.len());
    assert_eq!(text(lookup, "kad.requests"), requests.len().to_string());
    let mut deep = 0;
    for span in &requests {
        assert_eq!((&span.span_kind, text(span, "rpc.method")), (&SpanKind::Client, "FIND_NODE".into()));
        assert!(span.end_time.duration_since(span.start_time).unwrap() <= S * 2);
        let id = net.ids.iter().find(|(_, id)| **id == span.span_context.span_id()).unwrap().0;
        // The causal tree, as the driver saw it: whose answer was handed in when this request came out.
        let parent = match net.causes[id] {
            Some(cause) => net.ids[&cause],
            None => lookup.span_context.span_id(),
        };
        assert_eq!(span.parent_span_id, parent);
        deep += u32::from(net.causes[id].is_some_and(|cause| net.causes[&cause].is_some()));
    }
    assert!(deep > 3, "hop 3 hangs under the answer of hop 2");
}

#[test]
fn ten_lookups_at_once_are_ten_traces() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    for tag in 0..10 {
        net.call(Inbound::Start(find(tag, 0x11 * tag as u8)).into());
    }
    net.run(Instant::FAR_FUTURE);
    let spans = net.spans();
    let mut of = HashMap::<_, BTreeSet<String>>::new();
    for span in &spans {
        of.entry(span.span_context.trace_id()).or_default().insert(text(span, "kad.operation"));
    }
    assert_eq!(of.len(), 10);
    assert!(of.values().all(|tags| tags.len() == 1), "no span in another's trace: {of:?}");
}

#[test]
fn routing_checks_are_roots_with_links() {
    let config = Config { routing: RoutingConfig::default(), ..quiet() };
    let mut net = Net::new(config, Sampler::AlwaysOn);
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.run(Instant::from_secs(30));
    let spans = net.spans();
    let checks: Vec<_> = spans.iter().filter(|span| text(span, "kad.owner") == "include").collect();
    assert!(!checks.is_empty());
    let lookup = spans.iter().find(|span| span.name == "kad find").unwrap();
    for check in checks {
        assert_eq!(check.parent_span_id, SpanId::INVALID);
        assert_ne!(check.span_context.trace_id(), lookup.span_context.trace_id());
        assert_eq!(check.links.len(), 1, "{check:?}");
    }
    let linked = spans
        .iter()
        .flat_map(|span| span.links.iter())
        .any(|link| link.span_context.trace_id() == lookup.span_context.trace_id());
    assert!(linked, "the lookup's answers led to checks");
}

#[test]
fn a_lookup_that_ran_out_of_time_says_so_and_what_it_found() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.dead = |node| node.as_bytes()[0] < 0x60;
    let start = Stamped::new(Inbound::Start(find(1, 0x42))).by(Instant::from_millis(500));
    net.call(start);
    net.run(Instant::FAR_FUTURE);
    let spans = net.spans();
    let lookup = spans.iter().find(|span| span.name == "kad find").unwrap();
    assert_eq!(lookup.status, Status::error("deadline exceeded"));
    assert_eq!(
        (text(lookup, "kad.outcome"), text(lookup, "error.type")),
        ("deadline exceeded".into(), "deadline exceeded".into())
    );
    assert_eq!(attribute(lookup, "kad.deadline.remaining"), Some(&Value::F64(0.5)));
    let Some(Value::Array(closest)) = attribute(lookup, "kad.closest") else { panic!("{lookup:?}") };
    assert!(closest.to_string().contains("80"), "a partial result is a result: {closest}");
    assert_eq!(lookup.end_time, origin() + Duration::from_millis(500));
    let given_up = spans.iter().filter(|span| text(span, "kad.end") == "operation ended").count();
    assert!(given_up > 0 && net.machine.coordinator().traffic().cancelled as usize == given_up);
}

#[test]
fn a_time_out_is_an_error_of_its_request() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.dead = |_| true;
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.run(Instant::FAR_FUTURE);
    let spans = net.spans();
    let timed_out: Vec<_> = spans.iter().filter(|span| text(span, "error.type") == "timeout").collect();
    assert!(!timed_out.is_empty());
    assert!(timed_out.iter().all(|span| span.status == Status::error("timeout")));
}

#[test]
fn who_is_sampled_out_stays_so_and_trace_state_is_carried() {
    let state = TraceState::from_key_value([("vendor", "7")]).unwrap();
    for (flags, recorded) in [(TraceFlags::NOT_SAMPLED, false), (TraceFlags::SAMPLED, true)] {
        let mut net = Net::new(quiet(), Sampler::AlwaysOn);
        let caller = SpanContext::new(TraceId::from(5), SpanId::from(6), flags, true, state.clone());
        net.call(Stamped::new(Inbound::Start(find(1, 0x42))).in_span(caller.clone()));
        for (_, _, context) in &net.open {
            let span = context.parent().unwrap();
            assert_eq!((span.trace_id(), span.is_sampled()), (caller.trace_id(), recorded));
            assert_eq!(span.trace_state(), &state);
        }
        net.run(Instant::FAR_FUTURE);
        let spans = net.spans();
        assert_eq!(!spans.is_empty(), recorded);
        let lookup = spans.iter().find(|span| span.name == "kad find");
        assert!(
            lookup.is_none_or(
                |lookup| lookup.parent_span_id == caller.span_id() && lookup.parent_span_is_remote
            )
        );
    }
}

#[test]
fn without_a_tracer_contexts_are_those_of_the_engine() {
    let engine = || Coordinator::<Tiny>::new(LOCAL, quiet()).unwrap();
    let mut plain = engine();
    let mut traced = Traced::<Tiny, SdkTracer>::off(engine());
    let caller =
        SpanContext::new(TraceId::from(5), SpanId::from(6), TraceFlags::SAMPLED, true, TraceState::NONE);
    let start = Stamped::new(Inbound::Start(find(1, 0x42))).in_span(caller);
    assert_eq!(plain.handle(Instant::ORIGIN, start.clone()), traced.handle(Instant::ORIGIN, start));
    assert_eq!(plain.poll_timeout(), traced.poll_timeout());
}

#[test]
fn a_broadcast_is_one_trace_with_its_stores() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    let start = StartBroadcast::follow_up(3, node(0x42), "it").with_seeds(vec![node(0x80)]);
    net.call(Inbound::Broadcast(start).into());
    net.run(Instant::FAR_FUTURE);
    let spans = net.spans();
    let broadcast = spans.iter().find(|span| span.name == "kad broadcast").unwrap();
    let stores: Vec<_> = spans.iter().filter(|span| span.name == "STORE").collect();
    assert_eq!((stores.len(), text(broadcast, "kad.stored")), (20, "20".into()));
    assert!(stores.iter().all(|span| span.span_context.trace_id() == broadcast.span_context.trace_id()));
}

#[test]
fn metrics_agree_with_the_plain_numbers() {
    let exporter = InMemoryMetricExporter::default();
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "kad");
    let config = Config { routing: RoutingConfig::default(), ..quiet() };
    let mut net = Net::new(config, Sampler::AlwaysOff);
    net.dead = |node| node.as_bytes()[0] % 16 == 4;
    net.machine = Traced::off(
        Coordinator::new(LOCAL, Config { routing: RoutingConfig::default(), ..quiet() }).unwrap(),
    )
    .with_metrics(Metrics::new(&meter));
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.run(Instant::from_secs(60));
    let now = net.now;
    net.machine.measure(now);
    provider.force_flush().unwrap();
    let mut sums = BTreeMap::<String, u64>::new();
    for resource in exporter.get_finished_metrics().unwrap() {
        for metric in resource.scope_metrics().flat_map(|scope| scope.metrics().collect::<Vec<_>>()) {
            let AggregatedMetrics::U64(data) = metric.data() else { continue };
            let name = metric.name().to_string();
            match data {
                MetricData::Sum(sum) => {
                    for point in sum.data_points() {
                        let end = point.attributes().find(|attribute| attribute.key.as_str() == "kad.end");
                        let end = end.map_or_else(String::new, |KeyValue { value, .. }| format!(" {value}"));
                        *sums.entry(format!("{name}{end}")).or_default() += point.value();
                    }
                }
                MetricData::Gauge(gauge) => {
                    for point in gauge.data_points() {
                        *sums.entry(name.clone()).or_default() += point.value();
                    }
                }
                _ => {}
            }
        }
    }
    let traffic = net.machine.coordinator().traffic();
    let routing = net.machine.coordinator().routing();
    assert_eq!(sums["kad.requests.sent"], traffic.sent);
    assert_eq!(sums["kad.requests.ended answered"], traffic.answered);
    assert_eq!(sums["kad.requests.ended timed out"], traffic.timed_out);
    assert_eq!(sums["kad.requests.in_flight"], traffic.in_flight);
    assert_eq!(sums["kad.table.nodes"], net.machine.coordinator().table().len() as u64);
    assert_eq!(sums["kad.include.ended passed"], routing.include.passed);
    assert!(traffic.timed_out > 0 && routing.include.passed > 0);
}
