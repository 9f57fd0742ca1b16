//! [`Traced`]: a coordinator that makes spans.

use super::Metrics;
use crate::broadcast::BroadcastFinish;
use crate::context::Context;
use crate::coordinator::{Inbound, Outbound};
use crate::crawl::CrawlFinish;
use crate::event::{Ask, Finish, GivenUp, Outcome, Owner, Request, Statistics};
use crate::family::Family;
use crate::id::RequestId;
use crate::machine::{Batch, Machine, Stamped};
use crate::time::Instant;
use crate::{Coordinator, broadcast::StoreEnd};
use core::fmt::{self, Debug};
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use std::collections::HashMap;
use std::time::SystemTime;

/// A coordinator whose operations and requests are spans of a tracer: see the [module](super). It is a machine with the events of
/// the [`Coordinator`], so that a driver changes one line.
///
/// ```
/// use kad_proto::coordinator::{Inbound, Outbound};
/// use kad_proto::telemetry::Traced;
/// use kad_proto::{Config, Coordinator, Family, Instant, Key8, Machine, Stamped, Start};
/// use std::time::SystemTime;
///
/// # #[derive(Clone, Debug, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// let coordinator = Coordinator::<Tiny>::new(Key8::new([0]), Config::default())?;
/// let tracer = opentelemetry::global::tracer("my-dht");
/// let mut dht = Traced::new(coordinator, tracer, SystemTime::now()); // what `Instant::ORIGIN` stands for
///
/// let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
/// for out in dht.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start))) {
///     if let Outbound::Request(request) = out.event {
///         println!("ask {:?} within the span {:?}", request.node, out.context.parent());
///     }
/// }
/// assert_eq!(dht.coordinator().traffic().sent, 1);
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
pub struct Traced<F: Family, T: Tracer> {
    coordinator: Coordinator<F>,
    tracing: Option<Tracing<F, T>>,
    metrics: Option<Metrics>,
}

/// What goes on.
struct Tracing<F: Family, T: Tracer> {
    tracer: T,
    origin: SystemTime,
    describe: fn(&F::Node) -> Vec<KeyValue>,
    /// By tag.
    operations: HashMap<u64, T::Span>,
    requests: HashMap<RequestId, T::Span>,
}

impl<F: Family, T: Tracer> Traced<F, T> {
    /// A coordinator whose spans `tracer` starts, and whose `Instant::ORIGIN` is `origin`.
    pub fn new(coordinator: Coordinator<F>, tracer: T, origin: SystemTime) -> Self {
        let describe = |node: &F::Node| vec![KeyValue::new("kad.node", format!("{node:?}"))];
        let (operations, requests) = (HashMap::new(), HashMap::new());
        let tracing = Some(Tracing { tracer, origin, describe, operations, requests });
        Self { coordinator, tracing, metrics: None }
    }

    /// A coordinator without a tracer: nothing is done for spans, and contexts are those of the engine.
    pub const fn off(coordinator: Coordinator<F>) -> Self {
        Self { coordinator, tracing: None, metrics: None }
    }

    /// The same, with these attributes of nodes instead of `kad.node`. They are asked for only where a span is recorded.
    #[must_use]
    pub fn describe_nodes(mut self, describe: fn(&F::Node) -> Vec<KeyValue>) -> Self {
        if let Some(tracing) = &mut self.tracing {
            tracing.describe = describe;
        }
        self
    }

    /// The same, which counts and measures too.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The coordinator.
    pub const fn coordinator(&self) -> &Coordinator<F> {
        &self.coordinator
    }

    /// Hands the engine's plain numbers of this moment to the [metrics](Traced::with_metrics), where there are any: to be called
    /// now and then, at least as often as metrics are exported.
    pub fn measure(&mut self, now: Instant) {
        if let Some(metrics) = &mut self.metrics {
            metrics.measure(now, &self.coordinator);
        }
    }
}

impl<F: Family, T: Tracer> Debug for Traced<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

impl<F: Family, T: Tracer> Machine for Traced<F, T> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, mut event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let said = out.len();
        if let Some(metrics) = &mut self.metrics {
            metrics.told(now, &event.event, &self.coordinator);
        }
        match &mut self.tracing {
            None => self.coordinator.handle_into(now, event, out),
            Some(tracing) => {
                let told = tracing.told(now, self.coordinator.table().local(), &mut event);
                self.coordinator.handle_into(now, event, out);
                tracing.said(now, told, out.get_mut(said..).unwrap_or_default());
            }
        }
        if let Some(metrics) = &mut self.metrics {
            for stamped in out.get(said..).unwrap_or_default() {
                metrics.said(&stamped.event);
            }
            metrics.over();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.coordinator.poll_timeout()
    }
}

/// What an inbound event means for spans, once what time did before it is known.
enum Told<S> {
    Nothing,
    /// A start: its span.
    Start(S),
    /// A request ended: its attributes, and the type of its error.
    Ended(RequestId, Option<KeyValue>, Option<&'static str>),
}

impl<F: Family, T: Tracer> Tracing<F, T> {
    fn time(&self, at: Instant) -> SystemTime {
        let since = at - Instant::ORIGIN;
        self.origin.checked_add(since).unwrap_or(self.origin)
    }

    /// Starts a span that stands to the stamp as the rules say.
    fn start(
        &self,
        now: Instant,
        name: &'static str,
        kind: SpanKind,
        context: &Context,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> T::Span {
        let mut builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(self.time(now));
        if let Some(link) = context.link() {
            builder = builder.with_links(vec![Link::with_context(link.clone())]);
        }
        let parent = opentelemetry::Context::new();
        let parent = match context.parent() {
            Some(span) => parent.with_remote_span_context(span.clone()),
            None => parent,
        };
        let mut span = self.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attributes(attributes());
        }
        span
    }

    /// An event comes in: it gets the context that makes what follows a tree.
    fn told(&mut self, now: Instant, local: F::Key, stamped: &mut Stamped<Inbound<F>>) -> Told<T::Span> {
        let Stamped { event, context, .. } = stamped;
        let (request, closer, error) = match event {
            Inbound::Start(start) => {
                let name = match start.ask {
                    Ask::FindCloser if start.target == local => "kad bootstrap",
                    Ask::FindCloser => "kad find",
                    _ => "kad message",
                };
                return self.begin(now, name, start.tag, Some(start.target), context);
            }
            Inbound::Crawl(start) => return self.begin(now, "kad crawl", start.tag, None, context),
            Inbound::Broadcast(start) => {
                let target = start.records.first().map(|record| record.key);
                return self.begin(now, "kad broadcast", start.tag, target, context);
            }
            Inbound::Answered { request, closer } | Inbound::AnsweredWith { request, closer, .. } => {
                (*request, Some(KeyValue::new("kad.closer", count(closer.len()))), None)
            }
            Inbound::Failed(request) => (*request, None, Some("failed")),
            Inbound::Rejected { request, .. } => (*request, None, Some("rejected")),
            _ => return Told::Nothing,
        };
        if context.parent().is_none()
            && let Some(span) = self.requests.get(&request)
            && span.span_context().is_valid()
        {
            *context = Context::Parent(span.span_context().clone());
        }
        Told::Ended(request, closer, error)
    }

    /// An operation is asked for.
    fn begin(
        &self,
        now: Instant,
        name: &'static str,
        tag: u64,
        target: Option<F::Key>,
        context: &mut Context,
    ) -> Told<T::Span> {
        let span = self.start(now, name, SpanKind::Internal, context, || {
            let target = target.map(|target| KeyValue::new("kad.target", format!("{target:?}")));
            [KeyValue::new("kad.operation", number(tag))].into_iter().chain(target).collect()
        });
        if span.span_context().is_valid() {
            *context = Context::Parent(span.span_context().clone());
        }
        Told::Start(span)
    }

    /// Events go out, of which the first may be what time did before the inbound event.
    fn said(&mut self, now: Instant, told: Told<T::Span>, out: &mut [Stamped<Outbound<F>>]) {
        let (mut begun, mut ended) = match told {
            Told::Nothing => (None, None),
            Told::Start(span) => (Some(span), None),
            Told::Ended(request, closer, error) => (None, Some((request, closer, error))),
        };
        for Stamped { event, context, deadline } in out {
            match event {
                Outbound::Started(started) => {
                    if let Some(mut span) = begun.take() {
                        remaining(&mut span, now, *deadline);
                        self.operations.insert(started.operation.tag(), span);
                    }
                }
                Outbound::Refused(refused) => {
                    if let Some(mut span) = begun.take() {
                        span.set_attribute(KeyValue::new("error.type", "refused"));
                        span.set_status(Status::error(refused.reason.to_string()));
                        span.end_with_timestamp(self.time(now));
                    }
                }
                Outbound::Request(request) => {
                    let span = self.request(now, request, context, *deadline);
                    if span.span_context().is_valid() {
                        *context = Context::Parent(span.span_context().clone());
                        self.requests.insert(request.id, span);
                    }
                }
                Outbound::Cancel(cancel) => {
                    // Time took it before the answer was looked at.
                    ended = ended.filter(|(request, ..)| *request != cancel.id);
                    if let Some(mut span) = self.requests.remove(&cancel.id) {
                        span.set_attribute(KeyValue::new("kad.given_up", cancel.reason.to_string()));
                        let error = (cancel.reason == GivenUp::TimedOut).then_some("timeout");
                        self.end(now, span, error);
                    }
                }
                Outbound::Finished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.finish(now, span, finish.outcome, &finish.statistics, || self.found(finish));
                    }
                }
                Outbound::CrawlFinished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.finish(now, span, finish.outcome, &finish.statistics, || crawled(finish));
                    }
                }
                Outbound::BroadcastFinished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.finish(now, span, finish.outcome, &finish.statistics, || stored(finish));
                    }
                }
                _ => {}
            }
        }
        if let Some((request, closer, error)) = ended
            && let Some(mut span) = self.requests.remove(&request)
        {
            if let Some(closer) = closer {
                span.set_attribute(closer);
            }
            self.end(now, span, error);
        }
    }

    /// The span of a request.
    fn request(
        &self,
        now: Instant,
        request: &Request<F>,
        context: &Context,
        deadline: Option<Instant>,
    ) -> T::Span {
        let method = match request.ask {
            Ask::FindCloser => "FIND_NODE",
            Ask::Message(_) => "MESSAGE",
            Ask::Store { .. } => "STORE",
            Ask::Batch { .. } => "BATCH",
        };
        let mut span = self.start(now, method, SpanKind::Client, context, || {
            let mut attributes = (self.describe)(&request.node);
            attributes.extend([
                KeyValue::new("rpc.system.name", "kademlia"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("kad.target", format!("{:?}", request.target)),
                KeyValue::new("kad.hop", i64::from(request.hop)),
                match request.owner {
                    Owner::Operation(id) => KeyValue::new("kad.operation", number(id.tag())),
                    owner => KeyValue::new("kad.owner", owner.to_string()),
                },
            ]);
            attributes
        });
        remaining(&mut span, now, deadline);
        span
    }

    /// A request has ended.
    fn end(&self, now: Instant, mut span: T::Span, error: Option<&'static str>) {
        match error {
            Some(error) => {
                span.set_attribute(KeyValue::new("error.type", error));
                span.set_status(Status::error(error));
            }
            None => span.set_status(Status::Ok),
        }
        span.end_with_timestamp(self.time(now));
    }

    /// An operation has ended.
    fn finish(
        &self,
        now: Instant,
        mut span: T::Span,
        outcome: Outcome,
        statistics: &Statistics,
        found: impl FnOnce() -> Vec<KeyValue>,
    ) {
        if span.is_recording() {
            span.set_attribute(KeyValue::new("kad.outcome", outcome.to_string()));
            let Statistics { requests, success, failure, timeouts, cancelled, hops, .. } = *statistics;
            let sums = [
                ("kad.requests", requests),
                ("kad.success", success),
                ("kad.failure", failure),
                ("kad.timeouts", timeouts),
                ("kad.cancelled", cancelled),
                ("kad.hops", hops),
            ];
            span.set_attributes(sums.map(|(name, sum)| KeyValue::new(name, i64::from(sum))));
            span.set_attributes(found());
        }
        if outcome == Outcome::DeadlineExceeded {
            span.set_attribute(KeyValue::new("error.type", "deadline exceeded"));
            span.set_status(Status::error("deadline exceeded"));
        } else {
            span.set_status(Status::Ok);
        }
        span.end_with_timestamp(self.time(now));
    }

    fn found(&self, finish: &Finish<F>) -> Vec<KeyValue> {
        let name = |contact: &crate::Contact<F>| {
            let attribute = (self.describe)(&contact.node).into_iter().next();
            attribute.map_or_else(|| StringValue::from(""), |attribute| attribute.value.to_string().into())
        };
        let closest = finish.closest.iter().map(name).collect();
        vec![KeyValue::new("kad.closest", Value::Array(Array::String(closest)))]
    }
}

fn crawled<F: Family>(finish: &CrawlFinish<F>) -> Vec<KeyValue> {
    let counts = finish.counts;
    let sums = [
        ("kad.nodes", counts.nodes),
        ("kad.reachable", counts.reachable),
        ("kad.unreachable", counts.unreachable),
        ("kad.edges", counts.edges),
    ];
    sums.map(|(name, sum)| KeyValue::new(name, i64::from(sum))).into()
}

fn stored<F: Family>(finish: &BroadcastFinish<F>) -> Vec<KeyValue> {
    let stored = finish.stores.iter().filter(|stored| stored.end == StoreEnd::Stored).count();
    vec![
        KeyValue::new("kad.stores", count(finish.stores.len())),
        KeyValue::new("kad.stored", count(stored)),
        KeyValue::new("kad.succeeded", finish.succeeded),
    ]
}

/// Notes how long it is to a deadline, in seconds.
fn remaining<S: Span>(span: &mut S, now: Instant, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        span.set_attribute(KeyValue::new("kad.deadline.remaining", (deadline - now).as_secs_f64()));
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
