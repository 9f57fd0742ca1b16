//! Telemetry: the spans and metrics that a user of OpenTelemetry sees of a coordinator.

#![cfg(all(feature = "telemetry", feature = "testing"))]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod wrapped_coordinator;
mod maintenance_contract;
mod random_world;

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::broadcast::{StartBroadcast, Success};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::telemetry::{Metrics, Spans, Traced};
use kad_proto::{
    Ask, Config, ConfigError, Context, Coordinator, Family, Instant, Key, Key8, Machine, NetworkConfig,
    Request, RequestId, Response, RoutingConfig, RoutingInbound, Secret, SpanContext, Stamped, Start,
};
use maintenance_contract::Grouped;
use opentelemetry::trace::noop::{NoopSpan, NoopTracer};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider,
    ShouldSample, SpanData,
};
use proptest::prelude::*;
use random_world::{MachineKind, run_on};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tiny::TinyText as Tiny;

const LOCAL: Key8 = Key8::new([0xff]);
const S: Duration = Duration::from_secs(1);

fn node(key: u8) -> Key8 {
    Key8::new([key])
}

/// A coordinator among nodes that know each other, and the spans that it exports.
struct Net {
    machine: Traced<Tiny, SdkTracer>,
    now: Instant,
    open: Vec<(Instant, Request<Tiny>, Context)>,
    /// Nodes that do not answer.
    dead: fn(&Key8) -> bool,
    /// For each request, the one whose answer (or start) led to it: the causal tree as a driver sees it.
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
        let machine =
            Traced::new(Coordinator::new(LOCAL, config, &Secret::from_seed(0)).unwrap(), tracer, origin());
        let (open, causes, ids) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { machine, now: Instant::ORIGIN, open, dead: |_| false, causes, ids, provider, exporter }
    }

    fn call(&mut self, event: Stamped<Inbound<Tiny>>) -> Vec<Stamped<Outbound<Tiny>>> {
        let cause = match &event.event {
            Inbound::Response(Response { request, result: Ok(_), .. }) => Some(*request),
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
        out.into_iter().collect()
    }

    /// Until this instant, nodes answer after 10 ms, in order; where none does, time passes.
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
            self.call(Inbound::Response(Response::answered(request.id, closer)).into());
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
fn other_tasks_add_attributes_to_the_spans_of_requests() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    let attributes = net.machine.share_attributes();
    net.call(Inbound::Start(find(7, 0x42)).into());
    let requests: Vec<_> = net.open.iter().map(|(_, request, _)| request.id).collect();
    let (first, second) = (requests[0], requests[1]);
    let elsewhere = attributes.clone();
    let added = std::thread::spawn(move || elsewhere.add(first, KeyValue::new("kad.response.size", 99)));
    assert!(added.join().unwrap(), "its span is open");
    assert!(!attributes.add(RequestId::from_u64(u64::MAX), KeyValue::new("kad.response.size", 1)));
    net.call(Inbound::Response(Response::answered(first, Vec::new())).into());
    net.call(Inbound::Response(Response::unreachable(second)).into());
    assert!(!attributes.add(first, KeyValue::new("kad.response.size", 2)), "its span has ended");
    let (spans, ids) = (net.spans(), net.ids.clone());
    let span = |id| spans.iter().find(|span| span.span_context.span_id() == ids[&id]).unwrap();
    assert_eq!(attribute(span(first), "kad.response.size"), Some(&Value::I64(99)));
    assert_eq!(text(span(second), "error.type"), "unreachable");
    // A machine without a tracer has no spans to add to.
    let plain = Coordinator::<Tiny>::new(LOCAL, quiet(), &Secret::from_seed(0)).unwrap();
    let mut off = Traced::<_, SdkTracer, _>::off(plain);
    assert!(!off.share_attributes().add(first, KeyValue::new("kad.response.size", 3)));
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
    assert_eq!(spans.last().unwrap().name, "kad find", "it ends after the last of its requests");
    assert_eq!(text(lookup, "kad.sent"), requests.len().to_string());
    let mut deep = 0;
    for span in &requests {
        assert_eq!((&span.span_kind, text(span, "rpc.method")), (&SpanKind::Client, "FIND_NODE".into()));
        assert!(span.end_time.duration_since(span.start_time).unwrap() <= S * 2);
        let id = net.ids.iter().find(|(_, id)| **id == span.span_context.span_id()).unwrap().0;
        // The causal tree as the driver saw it: the request whose answer was handled when this one came out.
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
    let checks: Vec<_> = spans.iter().filter(|span| text(span, "kad.initiator") == "include").collect();
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
fn a_lookup_that_exceeds_its_deadline_reports_that_and_its_results() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.dead = |node| node.as_bytes()[0] < 0x60;
    let start = Stamped::new(Inbound::Start(find(1, 0x42))).with_deadline(Instant::from_millis(500));
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
    assert!(given_up > 0 && net.machine.coordinator().request_stats().cancelled as usize == given_up);
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
fn sampling_decisions_and_trace_state_are_inherited() {
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
    let engine = || Coordinator::<Tiny>::new(LOCAL, quiet(), &Secret::from_seed(0)).unwrap();
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

/// A sampler that keeps operations and what belongs to them.
#[derive(Clone, Debug)]
struct NoMaintenance;

impl ShouldSample for NoMaintenance {
    fn should_sample(
        &self,
        _: Option<&opentelemetry::Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let is_maintenance = attributes.iter().any(|attribute| attribute.key.as_str() == "kad.initiator");
        let decision =
            if is_maintenance { SamplingDecision::Drop } else { SamplingDecision::RecordAndSample };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

#[test]
fn a_sampler_can_distinguish_maintenance_from_operations() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(NoMaintenance)
        .with_simple_exporter(exporter.clone())
        .build();
    let config = Config { routing: RoutingConfig::default(), ..quiet() };
    let mut net = Net::new(quiet(), Sampler::AlwaysOff);
    let coordinator = Coordinator::new(LOCAL, config, &Secret::from_seed(0)).unwrap();
    net.machine = Traced::new(coordinator, provider.tracer("kad"), origin());
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.run(Instant::from_secs(30));
    let request_stats = net.machine.coordinator().request_stats();
    let spans = exporter.get_finished_spans().unwrap();
    let lookup = spans.iter().find(|span| span.name == "kad find").unwrap();
    assert_eq!(spans.len(), 1 + text(lookup, "kad.sent").parse::<usize>().unwrap());
    assert!(request_stats.sent as usize > spans.len(), "there was maintenance");
}

/// A tracer that makes no spans, and counts how many it was asked for.
#[derive(Clone, Debug, Default)]
struct Nothing(Arc<AtomicU64>);

impl Tracer for Nothing {
    type Span = NoopSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &opentelemetry::Context) -> NoopSpan {
        self.0.fetch_add(1, Ordering::Relaxed);
        NoopTracer::new().build_with_context(builder, parent)
    }
}

#[test]
fn a_tracer_that_makes_no_spans_is_asked_for_one() {
    let caller =
        SpanContext::new(TraceId::from(5), SpanId::from(6), TraceFlags::SAMPLED, true, TraceState::NONE);
    for context in [Context::NONE, Context::Parent(caller.clone()), Context::Link(caller)] {
        let mut plain = Coordinator::<Tiny>::new(LOCAL, quiet(), &Secret::from_seed(0)).unwrap();
        let nothing = Nothing::default();
        let mut traced = Traced::new(plain.clone(), nothing.clone(), origin());
        let mut call = |event: Inbound<Tiny>| {
            let event = Stamped { event, context: context.clone(), deadline: None };
            let out = plain.handle(Instant::ORIGIN, event.clone());
            assert_eq!(traced.handle(Instant::ORIGIN, event), out, "contexts are those of the engine");
            out
        };
        let requests = call(Inbound::Start(find(1, 0x42))).into_iter().filter_map(|out| match out.event {
            Outbound::Request(request) => Some(request.id),
            _ => None,
        });
        for request in requests.collect::<Vec<_>>() {
            call(Inbound::Response(Response::answered(request, vec![node(0x11), node(0x99)])));
        }
        assert_eq!(nothing.0.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn abandoning_ends_all_open_spans() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.dead = |_| true;
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.now = Instant::from_millis(700);
    net.machine.abandon(net.now);
    let spans = net.spans();
    assert_eq!(spans.len(), 3, "a lookup and two requests");
    for span in spans {
        assert_eq!(text(&span, "kad.end"), "abandoned");
        assert_eq!(span.end_time, origin() + Duration::from_millis(700));
    }
    // The operations go on, without further spans.
    net.run(Instant::FAR_FUTURE);
    assert_eq!(net.machine.coordinator().request_stats().in_flight, 0);
    assert!(net.spans().iter().all(|span| span.name != "kad find" || text(span, "kad.outcome").is_empty()));
}

#[test]
fn the_driver_can_add_attributes_to_request_spans() {
    let mut net = Net::new(quiet(), Sampler::AlwaysOn);
    net.call(Inbound::Start(find(1, 0x42)).into());
    let request = net.open[0].1.id;
    let span = net.machine.request_span(request).unwrap();
    span.set_attribute(KeyValue::new("kad.request.size", 92));
    net.machine.operation_span(1).unwrap().set_attribute(KeyValue::new("who", "me"));
    assert!(net.machine.operation_span(2).is_none());
    net.run(Instant::FAR_FUTURE);
    assert!(net.machine.request_span(request).is_none(), "it has ended");
    let spans = net.spans();
    let sizes = spans.iter().filter(|span| attribute(span, "kad.request.size") == Some(&Value::I64(92)));
    assert_eq!(sizes.map(|span| span.span_context.span_id()).collect::<Vec<_>>(), [net.ids[&request]]);
    assert_eq!(spans.iter().filter(|span| text(span, "who") == "me").count(), 1);
}

#[test]
fn the_driver_can_describe_nodes() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let spans = Spans::<Tiny, _>::new(provider.tracer("kad"), origin()).describe_nodes(|node| {
        let address = format!("10.0.0.{}", node.as_bytes()[0]);
        vec![KeyValue::new("network.peer.address", address), KeyValue::new("network.peer.port", 6881)]
    });
    let mut net = Net::new(quiet(), Sampler::AlwaysOff);
    net.machine = Traced::with_spans(Coordinator::new(LOCAL, quiet(), &Secret::from_seed(0)).unwrap(), spans);
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.run(Instant::FAR_FUTURE);
    let spans = exporter.get_finished_spans().unwrap();
    let to = |span: &&SpanData| text(span, "network.peer.address") == "10.0.0.128";
    let seed = spans.iter().find(to).unwrap();
    assert_eq!((text(seed, "network.peer.port"), text(seed, "kad.node")), ("6881".into(), String::new()));
    let lookup = spans.iter().find(|span| span.name == "kad find").unwrap();
    assert!(text(lookup, "kad.closest").contains("10.0.0.64"), "{lookup:?}");
}

/// A traced coordinator under the contract checkers, with two untraced ones. `plain` gets the checker's events,
/// and the checker sees its results; `shadow` gets the events with the contexts that the traced one got, so that
/// the context it stamps on a request is what the request's span must be a child of, or link to. Compared on drop.
struct Watched<F: Family> {
    plain: Coordinator<F>,
    watch: Option<Watch<F>>,
}

struct Watch<F: Family> {
    traced: Traced<F, SdkTracer>,
    shadow: Coordinator<F>,
    now: Instant,
    /// The context that the engine stamped on each request, and the request's span.
    requests: Vec<(RequestId, Context, SpanId)>,
    open: HashMap<RequestId, SpanContext>,
    starts: u64,
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
}

thread_local! {
    /// Numbers of compared spans of requests, of those that are children of another request, and of those with
    /// links.
    static JUDGED: RefCell<[usize; 3]> = const { RefCell::new([0; 3]) };
}

impl<F: Family> Clone for Watched<F> {
    fn clone(&self) -> Self {
        Self { plain: self.plain.clone(), watch: None }
    }
}

impl<F: Family> Watched<F> {
    fn new(local: F::Target, config: Config) -> Result<Self, ConfigError> {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let plain = Coordinator::new(local, config, &Secret::from_seed(0))?;
        let watch = Watch {
            traced: Traced::new(plain.clone(), provider.tracer("kad"), origin()),
            shadow: plain.clone(),
            now: Instant::ORIGIN,
            requests: Vec::new(),
            open: HashMap::new(),
            starts: 0,
            exporter,
            _provider: provider,
        };
        Ok(Self { plain, watch: Some(watch) })
    }

    fn call(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        let out = Machine::handle(&mut self.plain, now, event.clone());
        if let Some(watch) = &mut self.watch {
            watch.call(now, event);
            assert_eq!(Machine::poll_timeout(&watch.traced), Machine::poll_timeout(&self.plain));
        }
        out.into_iter().collect()
    }
}

impl<F: Family> Watch<F> {
    fn call(&mut self, now: Instant, mut event: Stamped<Inbound<F>>) {
        self.now = self.now.max(now);
        let said = self.traced.handle(now, event.clone());
        let is_start = matches!(event.event, Inbound::Start(_) | Inbound::Crawl(_) | Inbound::Broadcast(_));
        // The context that the tracer gave the event.
        match &event.event {
            _ if is_start => {
                self.starts += 1;
                let last =
                    |out: &&Stamped<_>| matches!(out.event, Outbound::Started(_) | Outbound::Refused(_));
                event.context = said.iter().find(last).unwrap().context.clone();
            }
            Inbound::Response(Response { request, .. }) if event.context.parent().is_none() => {
                if let Some(span) = self.open.get(request) {
                    event.context = Context::Parent(span.clone());
                }
            }
            _ => {}
        }
        let stamped = self.shadow.handle(now, event);
        assert_eq!(said.len(), stamped.len());
        for (said, stamped) in said.iter().zip(&stamped) {
            assert_eq!((&said.event, said.deadline), (&stamped.event, stamped.deadline));
            match &said.event {
                Outbound::Request(request) => {
                    let own = said.context.parent().unwrap();
                    self.open.insert(request.id, own.clone());
                    self.requests.push((request.id, stamped.context.clone(), own.span_id()));
                }
                // All others are stamped by the engine alone.
                _ => assert_eq!(said.context, stamped.context),
            }
        }
    }
}

impl<F: Family> Drop for Watch<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.traced.abandon(self.now);
        let spans = self.exporter.get_finished_spans().unwrap();
        let ids: HashMap<_, _> = spans.iter().map(|span| (span.span_context.span_id(), span)).collect();
        assert_eq!(ids.len(), spans.len(), "each span ends once");
        assert_eq!(spans.len() as u64, self.starts + self.requests.len() as u64, "and all that began do");
        let under: HashSet<_> = self.requests.iter().map(|(.., id)| *id).collect();
        let mut ends = BTreeMap::<String, u64>::new();
        let mut judged = [self.requests.len(), 0, 0];
        for (id, stamp, own) in &self.requests {
            let span = ids[own];
            let parent = stamp.parent().map_or(SpanId::INVALID, SpanContext::span_id);
            assert_eq!(span.parent_span_id, parent, "{id:?}: the tree of spans is the causal tree");
            let trace = stamp.parent().map(SpanContext::trace_id);
            assert!(trace.is_none_or(|trace| trace == span.span_context.trace_id()));
            let links: Vec<_> = span.links.iter().map(|link| &link.span_context).collect();
            assert_eq!(links, stamp.link().into_iter().collect::<Vec<_>>());
            assert!(span.start_time <= span.end_time);
            *ends.entry(text(span, "kad.end")).or_default() += 1;
            judged[1] += usize::from(under.contains(&parent));
            judged[2] += usize::from(!links.is_empty());
        }
        JUDGED.with_borrow_mut(|sums| sums.iter_mut().zip(judged).for_each(|(sum, more)| *sum += more));
        let mut end = |name: &str| ends.remove(name).unwrap_or(0);
        let request_stats = self.shadow.request_stats();
        assert_eq!(end("answered") + end("incomplete"), request_stats.answered);
        let reasons = ["failed", "unreachable", "connection refused", "gone", "rejected"];
        assert_eq!(reasons.map(&mut end).iter().sum::<u64>(), request_stats.failed);
        assert_eq!(end("timed out"), request_stats.timed_out);
        assert_eq!(end("abandoned"), request_stats.in_flight);
        assert_eq!(ends.values().sum::<u64>(), request_stats.cancelled, "{ends:?}");
    }
}

wrapper_under_test!(Watched);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 1_000 }))]

    #[test]
    fn spans_follow_the_stamps_of_the_engine(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let scenario = random_world::Scenario::decode(MachineKind::Coordinator, &bytes);
        match scenario.width {
            1 => run_on::<1, Watched<random_world::Net<1>>>(&scenario),
            20 => run_on::<20, Watched<random_world::Net<20>>>(&scenario),
            _ => run_on::<32, Watched<random_world::Net<32>>>(&scenario),
        };
    }

    #[test]
    fn spans_of_the_maintenance_follow_the_stamps_of_the_engine(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        maintenance_contract::run_scenario::<Watched<Grouped>>(&bytes);
    }
}

#[test]
fn the_scenarios_compare_many_calls() {
    for factor in (1..64).step_by(2) {
        let bytes: Vec<_> = (0..=255).map(|byte: u8| byte.wrapping_mul(factor)).collect();
        maintenance_contract::run_scenario::<Watched<Grouped>>(&bytes);
        run_on::<1, Watched<random_world::Net<1>>>(&random_world::Scenario::decode(
            MachineKind::Coordinator,
            &[&[0; 28], &bytes[..]].concat(),
        ));
    }
    let [requests, deep, linked] = JUDGED.with_borrow(|judged| *judged);
    assert!(requests > 1_000 && deep > 100 && linked > 100, "{requests}, {deep}, {linked}");
}

#[test]
fn only_an_unsuccessful_broadcast_is_an_error() {
    let run = |dead: fn(&Key8) -> bool, success, deadline| {
        let mut net = Net::new(quiet(), Sampler::AlwaysOn);
        net.dead = dead;
        let nodes = vec![node(0x40), node(0x44)];
        let start = StartBroadcast::fixed(3, node(0x42), "it", nodes).with_success(success);
        net.call(Stamped::new(Inbound::Broadcast(start)).with_deadline(deadline));
        net.run(Instant::FAR_FUTURE);
        let spans = net.spans();
        let broadcast = spans.iter().find(|span| span.name == "kad broadcast").unwrap();
        (text(broadcast, "kad.outcome"), text(broadcast, "error.type"), broadcast.status.clone())
    };
    let (all, one) = (Success::Share(100), Success::Share(50));
    let half_dead: fn(&Key8) -> bool = |node| node.as_bytes()[0] == 0x44;
    let late = Instant::from_secs(60);
    assert_eq!(run(|_| false, all, late), ("complete".into(), String::new(), Status::Unset));
    assert_eq!(run(half_dead, one, late), ("complete".into(), String::new(), Status::Unset));
    let short = ("complete".into(), "unsuccessful".into(), Status::error("unsuccessful"));
    assert_eq!(run(half_dead, all, late), short);
    let soon = Instant::from_millis(500);
    let late = "deadline exceeded".to_owned();
    assert_eq!(run(half_dead, all, soon), (late.clone(), late.clone(), Status::error("deadline exceeded")));
    assert_eq!(run(half_dead, one, soon), (late, String::new(), Status::Unset));
}

/// The last export: each point by its instrument and attributes; of a histogram the count and the sum.
fn exported(provider: &SdkMeterProvider, exporter: &InMemoryMetricExporter) -> BTreeMap<String, f64> {
    exporter.reset();
    provider.force_flush().unwrap();
    let mut points = BTreeMap::new();
    let mut note = |name: &str, of: Vec<String>, value: f64| {
        let old = points.insert([vec![name.to_owned()], of].concat().join(" "), value);
        assert_eq!(old, None, "{name}");
    };
    let of = |attributes: &mut dyn Iterator<Item = &KeyValue>| {
        let mut of: Vec<_> = attributes.map(|it| format!("{}={}", it.key, it.value)).collect();
        of.sort();
        of
    };
    for resource in exporter.get_finished_metrics().unwrap() {
        for metric in resource.scope_metrics().flat_map(|scope| scope.metrics().collect::<Vec<_>>()) {
            let name = metric.name();
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    sum.data_points().for_each(|it| note(name, of(&mut it.attributes()), it.value() as f64));
                }
                AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
                    gauge.data_points().for_each(|it| note(name, of(&mut it.attributes()), it.value() as f64))
                }
                AggregatedMetrics::U64(MetricData::Histogram(histogram)) => {
                    for it in histogram.data_points() {
                        note(&format!("{name} count"), of(&mut it.attributes()), it.count() as f64);
                        note(&format!("{name} sum"), of(&mut it.attributes()), it.sum() as f64);
                    }
                }
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    assert_eq!(metric.unit(), "s");
                    for it in histogram.data_points() {
                        note(&format!("{name} count"), of(&mut it.attributes()), it.count() as f64);
                        note(&format!("{name} sum"), of(&mut it.attributes()), it.sum());
                    }
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    points
}

/// A node of a network with maintenance, lookups, an unsuccessful broadcast, a refused start, and dead nodes.
fn measured() -> (Net, SdkMeterProvider, InMemoryMetricExporter) {
    let exporter = InMemoryMetricExporter::default();
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "kad");
    let mut net = Net::new(quiet(), Sampler::AlwaysOff);
    net.dead = |node| node.as_bytes()[0] % 16 == 4;
    let config = Config { routing: RoutingConfig::default(), ..quiet() };
    net.machine = Traced::off(Coordinator::new(LOCAL, config, &Secret::from_seed(0)).unwrap())
        .with_metrics(Metrics::new(&meter));
    net.call(Inbound::Start(Start::bootstrap(9, LOCAL, vec![node(0x80), node(0x10)])).into());
    net.run(Instant::from_secs(20));
    net.call(Inbound::Start(find(1, 0x42)).into());
    net.call(Inbound::Start(find(1, 0x42)).into()); // refused: the tag is in use
    let short = StartBroadcast::fixed(3, node(0x42), "it", vec![node(0x40), node(0x44)])
        .with_success(Success::Share(100));
    net.call(Inbound::Broadcast(short).into());
    net.run(Instant::from_secs(40));
    net.call(Stamped::new(Inbound::Start(find(2, 0x99))).with_deadline(net.now + Duration::from_millis(5)));
    net.call(Inbound::Response(Response::answered(RequestId::from_u64(7 << 40), Vec::new())).into());
    net.run(Instant::from_secs(60));
    (net, provider, exporter)
}

#[test]
fn metrics_agree_with_the_plain_numbers() {
    let (mut net, provider, exporter) = measured();
    let now = net.now;
    net.machine.measure(now);
    let points = exported(&provider, &exporter);
    let engine = net.machine.coordinator();
    let (request_stats, routing) = (engine.request_stats(), engine.routing_counts());
    let at = |name: &str| points.get(name).copied().unwrap_or_else(|| panic!("{name} of {points:#?}"));
    let sum = |prefix: &str| {
        let some = points.iter().filter(|(name, _)| name.starts_with(prefix));
        some.map(|(_, value)| value).sum::<f64>() as u64
    };
    let ended = |end: &str| {
        let is = |name: &str| name.starts_with("kad.requests.ended kad.end=") && name.contains(end);
        points.iter().filter(|(name, _)| is(name)).map(|(_, value)| value).sum::<f64>() as u64
    };
    assert_eq!(sum("kad.requests.sent"), request_stats.sent);
    assert_eq!(ended("=answered"), request_stats.answered);
    assert_eq!(ended("=timed out"), request_stats.timed_out);
    assert_eq!(ended("=failed") + ended("=rejected"), request_stats.failed);
    assert_eq!(
        ended("=operation ended") + ended("=lookup ended") + ended("=superseded"),
        request_stats.cancelled
    );
    for initiator in ["operation", "include", "explore"] {
        assert!(at(&format!("kad.requests.sent kad.initiator={initiator}")) > 0.0);
    }
    assert!(request_stats.timed_out > 0 && request_stats.cancelled > 0);
    assert_eq!(at("kad.requests.in_flight") as u64, request_stats.in_flight);
    assert_eq!(at("kad.requests.queued") as u64, request_stats.queued);
    assert_eq!(
        (at("kad.responses.late") + at("kad.responses.unknown")) as u64,
        request_stats.late + request_stats.unknown
    );
    assert_eq!(request_stats.late + request_stats.unknown, 1);
    assert_eq!(at("kad.operations.live") as usize, engine.operations());
    assert_eq!(at("kad.operations.running") as usize, engine.running());
    assert_eq!(at("kad.operations.refused kad.operation.kind=find"), 1.0);

    assert_eq!(
        sum("rpc.client.call.duration count"),
        request_stats.answered + request_stats.failed + request_stats.timed_out
    );
    let call = "error.type=timeout rpc.method=FIND_NODE rpc.system.name=kademlia";
    let (count, sum_of) = (
        at(&format!("rpc.client.call.duration count {call}")),
        at(&format!("rpc.client.call.duration sum {call}")),
    );
    assert!(sum_of >= count && count > 0.0, "a time-out takes a second or two: {sum_of} of {count}");

    for (kind, outcome) in [("bootstrap", "converged"), ("find", "converged"), ("find", "deadline exceeded")]
    {
        let of = format!("kad.operation.kind={kind} kad.outcome={outcome}");
        assert_eq!(at(&format!("kad.operation.duration count {of}")), 1.0);
        assert_eq!(at(&format!("kad.operation.hops count {of}")), 1.0);
        assert!(at(&format!("kad.operation.requests sum {of}")) >= 1.0);
    }
    let of = "kad.operation.kind=find kad.outcome=deadline exceeded";
    assert_eq!(at(&format!("kad.operation.duration sum {of}")), 0.005);
    assert_eq!(at("kad.broadcasts kad.outcome=complete kad.succeeded=false"), 1.0);

    for cpl in 0..8 {
        let of = format!("kad.cpl={cpl}");
        let nodes = points.get(&format!("kad.table.nodes {of}")).copied().unwrap_or_default() as usize;
        assert_eq!(nodes, engine.table().bucket(cpl).len());
        let explored = points.get(&format!("kad.refreshes {of}")).copied().unwrap_or_default() as u64;
        assert_eq!(explored, engine.refreshes(cpl));
    }
    assert_eq!(sum("kad.table.nodes"), engine.table().len() as u64);
    assert_eq!(sum("kad.refreshes"), routing.refreshes);
    assert!(routing.refreshes >= 3, "a bootstrap has the buckets refreshed");
    let include = routing.include;
    for (end, number) in [
        ("passed", include.passed),
        ("failed", include.failed),
        ("dropped", include.dropped),
        ("duplicate", include.duplicate),
        ("backed_off", include.backed_off),
        ("unwanted", include.unwanted),
    ] {
        assert_eq!(at(&format!("kad.include.ended kad.end={end}")) as u64, number);
    }
    assert!(include.passed > 0);
    assert_eq!(at("kad.include.queued") as u64, include.queued);
    assert_eq!(at("kad.include.in_flight") as u64, include.in_flight);
    assert_eq!(at("kad.probe.pending") as u64, routing.probe.in_flight);
    assert_eq!(at("kad.probe.ended kad.end=passed") as u64, routing.probe.passed);
    assert_eq!(at("kad.probe.ended kad.end=failed") as u64, routing.probe.failed);
    assert_eq!(at("kad.bootstraps") as u64, routing.automatic_bootstraps);
    let size = engine.network_size(now).ok().map(|size| size.nodes());
    assert_eq!(points.get("kad.network.nodes").map(|nodes| *nodes as u64), size);
    assert!(at("kad.wakeup.lag count") > 0.0);
    assert_eq!(at("kad.wakeup.lag sum"), 0.0, "the driver of this test is never late");
}

#[test]
fn metrics_are_read_by_themselves() {
    let (mut net, provider, exporter) = measured();
    // Half a second after the last call that read them, the metrics are unchanged.
    let before = exported(&provider, &exporter);
    let late = net.now + Duration::from_secs(3_600);
    net.now = late;
    net.call(Inbound::Tick.into());
    let after = exported(&provider, &exporter);
    assert!(after["kad.wakeup.lag sum"] > 1_000.0, "a driver that is late is seen to be");
    assert_ne!(before, after);
    net.now = late + Duration::from_millis(500);
    net.call(Inbound::Response(Response::answered(RequestId::from_u64(7 << 40), Vec::new())).into());
    assert_eq!(exported(&provider, &exporter)["kad.responses.unknown"], after["kad.responses.unknown"]);
    net.now = late + Duration::from_secs(1);
    net.call(Inbound::Tick.into());
    let engine = net.machine.coordinator().request_stats();
    let last = exported(&provider, &exporter);
    assert_eq!(
        (last["kad.responses.late"] + last["kad.responses.unknown"]) as u64,
        engine.late + engine.unknown
    );
    assert_eq!((engine.late, engine.unknown), (0, 2));

    // An empty bucket is reported as empty.
    let table = net.machine.coordinator().table();
    let highest = (0..8).rev().find(|cpl| !table.bucket(*cpl).is_empty()).unwrap();
    let nodes: Vec<_> = table.bucket(highest).iter().map(|record| *record.node()).collect();
    let of = format!("kad.table.nodes kad.cpl={highest}");
    assert_eq!(last[&of], nodes.len() as f64);
    for node in nodes {
        net.call(Inbound::Routing(RoutingInbound::Client(node)).into());
    }
    net.machine.measure(net.now);
    assert_eq!(exported(&provider, &exporter)[&of], 0.0);

    // A dropped engine reports nothing.
    drop(net);
    let after = exported(&provider, &exporter);
    assert!(!after.contains_key(&of) && !after.contains_key("kad.requests.in_flight"), "{after:?}");
}

#[cfg(feature = "record")]
#[test]
fn a_traced_recorder_replays_with_its_spans() {
    use kad_proto::record::{Keep, Recorder, replay};
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let recorder = Recorder::<Grouped>::new(
        maintenance_contract::LOCAL,
        Config::default(),
        &Secret::from_seed(0),
        Keep::All,
    )
    .unwrap();
    let mut traced = Traced::new(recorder.with_text(), provider.tracer("kad"), origin());
    let start = Start::find(1, node(0x42)).with_seeds(vec![node(0x80), node(0x10)]);
    let out = traced.handle(Instant::ORIGIN, Inbound::Start(start).into());
    let requests = out.iter().filter_map(|out| match &out.event {
        Outbound::Request(request) => Some(request.id),
        _ => None,
    });
    for request in requests.collect::<Vec<_>>() {
        let _ = traced.handle(
            Instant::from_millis(20),
            Inbound::Response(Response::answered(request, vec![node(0x11)])).into(),
        );
    }
    assert_eq!(traced.coordinator().request_stats().answered, 2);
    let bytes = traced.machine_mut().bytes();
    let replayed = replay::<Grouped>(&bytes).unwrap();
    assert_eq!((replayed.calls, replayed.difference), (3, None));
    assert!(!exporter.get_finished_spans().unwrap().is_empty());
}
