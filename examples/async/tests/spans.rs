//! With `Traced` as the engine, a call is a trace, and the futures of its requests run within their spans.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with other tests
mod support;

use kad_proto::telemetry::Traced;
use kad_proto::{Config, Coordinator, Failure, RoutingConfig, Secret, SpanContext};
use kad_proto_async::{Call, Limits, Node, Reply, TokioTimer, Transport};
use opentelemetry::trace::{
    Span, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider};
use std::time::{Duration, SystemTime};
use support::{Link, Manner, Mem, Net, beside, key};

/// A transport that makes a span of its own for each request.
struct Spanned(Link<TokioTimer>, SdkTracer);

impl Transport<Mem> for Spanned {
    async fn request(&self, call: Call<Mem>) -> Result<Reply<Mem>, Failure<Mem>> {
        let current = opentelemetry::Context::current().span().span_context().span_id();
        assert_eq!(Some(current), call.context.parent().map(SpanContext::span_id));
        tokio::task::yield_now().await;
        let current_later = opentelemetry::Context::current().span().span_context().span_id();
        assert_eq!(current, current_later, "across polls too");
        let mut span = self.1.start("dial");
        let result = self.0.request(call).await;
        span.end();
        result
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_a_trace() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracer = provider.tracer("test");
    let (id, config) = (key(0), Config { routing: RoutingConfig::off(), ..Config::default() });
    let timer = TokioTimer::new();
    let net = Net::new(timer, Duration::from_millis(1));
    let mut runs: Vec<_> = (1..30)
        .map(|seed| net.add(key(seed), config.clone(), Limits::default(), Manner::Answers).1)
        .collect();
    let engine = Coordinator::new(id, config, &Secret::from_seed(1)).unwrap();
    let engine = Traced::new(engine, tracer.clone(), SystemTime::now());
    let transport = Spanned(Link(net.clone(), id), tracer);
    let (dht, run) = Node::with_engine(engine, id).run(transport, timer).unwrap();
    runs.push(Box::pin(run));
    let caller =
        SpanContext::new(TraceId::from(7), SpanId::from(9), TraceFlags::SAMPLED, true, TraceState::default());
    beside(runs, async {
        let seeds = (1..30).map(key).collect();
        let found = dht.find_node(key(99)).with_seeds(seeds).in_span(caller.clone()).await.unwrap();
        dht.shutdown().await;
        let spans = exporter.get_finished_spans().unwrap();
        let ids: Vec<_> = spans.iter().map(|span| span.span_context.span_id()).collect();
        assert!(spans.iter().all(|span| span.span_context.trace_id() == caller.trace_id()));
        let root = spans.iter().find(|span| span.parent_span_id == caller.span_id()).unwrap();
        assert!(
            spans
                .iter()
                .all(|span| span.parent_span_id == caller.span_id() || ids.contains(&span.parent_span_id))
        );
        let dials = spans.iter().filter(|span| span.name == "dial").count();
        assert_eq!(dials, found.stats.sent as usize);
        assert_eq!(
            spans.len(),
            2 * dials + 1,
            "the lookup, and for each request its span and that of its IO"
        );
        assert!(root.end_time >= root.start_time);
    })
    .await;
}
