//! [`Traced`]: a coordinator that starts and ends spans for its operations and requests.

use crate::context::Context;
use crate::coordinator::Coordinator;
use crate::coordinator::events::{Inbound, Outbound};
use crate::deadline::MonotonicClock;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::span_attributes::SpanAttributes;
use crate::telemetry::spans::{RequestEnd, Spans, is_noop, request_end};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::time::Instant;
use core::fmt::{self, Debug};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, Tracer};
use std::collections::HashMap;
use std::time::SystemTime;

/// A coordinator whose operations and requests are spans of a tracer: see the [module](super). It is a machine
/// with the events of the [`Coordinator`], so a driver needs to change only its construction. The machine `M` that
/// it traces may wrap the coordinator, as a flight recorder (`record::Recorder`) does.
///
/// ```
/// use kad_proto::coordinator::{Inbound, Outbound};
/// use kad_proto::telemetry::Traced;
/// use kad_proto::{Config, Coordinator, Family, Instant, Key8, Machine, Secret, Stamped, Start};
/// use std::time::SystemTime;
///
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// let secret = Secret::from_seed(1); // in a real node: `Secret::new` of random bytes
/// let coordinator = Coordinator::<Tiny>::new(Key8::new([0]), Config::default(), &secret)?;
/// let tracer = opentelemetry::global::tracer("my-dht");
/// let mut dht = Traced::new(coordinator, tracer, SystemTime::now()); // the time of `Instant::ORIGIN`
///
/// let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
/// for out in dht.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start))) {
///     if let Outbound::Request(request) = out.event {
///         println!("ask {:?} within the span {:?}", request.node, out.context.parent());
///     }
/// }
/// assert_eq!(dht.coordinator().request_stats().sent, 1);
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
pub struct Traced<F: Family, T: Tracer, M = Coordinator<F>> {
    machine: M,
    tracing: Option<Tracing<F, T>>,
    metrics: Option<Metrics>,
    clock: MonotonicClock,
}

/// The open spans.
struct Tracing<F: Family, T: Tracer> {
    spans: Spans<F, T>,
    /// Spans of live operations, by tag.
    operations: HashMap<u64, T::Span>,
    requests: HashMap<RequestId, T::Span>,
    /// What other tasks add to the spans of requests, if they may.
    shared: Option<SpanAttributes>,
    /// The tracer makes no spans: no provider is installed.
    is_noop: bool,
}

impl<F: Family, T: Tracer, M: AsRef<Coordinator<F>>> Traced<F, T, M> {
    /// A coordinator whose spans `tracer` starts; `origin` is the system time of its `Instant::ORIGIN`. If
    /// the first span shows that the tracer makes no spans (the global tracer makes none until a provider is
    /// installed), tracing is switched off from then on.
    pub fn new(machine: M, tracer: T, origin: SystemTime) -> Self {
        Self::with_spans(machine, Spans::new(tracer, origin))
    }

    /// The same, with these spans: for example, with [other attributes for nodes](Spans::describe_nodes).
    pub fn with_spans(machine: M, spans: Spans<F, T>) -> Self {
        let (operations, requests) = (HashMap::new(), HashMap::new());
        let tracing = Some(Tracing { spans, operations, requests, shared: None, is_noop: false });
        Self { machine, tracing, metrics: None, clock: MonotonicClock::default() }
    }

    /// A coordinator without a tracer: no spans are made, and contexts are those of the engine.
    pub fn off(machine: M) -> Self {
        Self { machine, tracing: None, metrics: None, clock: MonotonicClock::default() }
    }

    /// The same coordinator, with metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The coordinator that is traced.
    pub fn coordinator(&self) -> &Coordinator<F> {
        self.machine.as_ref()
    }

    /// The machine that is traced: the coordinator, or what wraps it.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine that is traced, mutable. Do not pass events to it directly: operations and requests that follow
    /// from them have no spans.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The span of a request that has not ended, for attributes that only the driver knows: for example, sizes in
    /// bytes (`kad.request.size`, `kad.response.size`). Set attributes of the response before submitting it, as
    /// that ends the span. `None` without a tracer, and for all other ids.
    pub fn request_span(&mut self, request: RequestId) -> Option<&mut T::Span> {
        self.tracing.as_mut()?.requests.get_mut(&request)
    }

    /// A handle by which other tasks add attributes to the spans of requests, from now on; the same at every call.
    /// Without a tracer it adds none.
    pub fn share_attributes(&mut self) -> SpanAttributes {
        let shared = self.tracing.as_mut().map(|tracing| tracing.shared.get_or_insert_default().clone());
        shared.unwrap_or_default()
    }

    /// The span of the live operation with this tag, for the same purpose. `None` without a tracer, and for all
    /// other tags.
    pub fn operation_span(&mut self, tag: u64) -> Option<&mut T::Span> {
        self.tracing.as_mut()?.operations.get_mut(&tag)
    }

    /// Ends all open spans, with `kad.end` `abandoned`: for a program that ends. Otherwise they would end when
    /// this is dropped, at the time that the tracer reads then. The operations and requests go on; spans of later
    /// requests have parents that have ended.
    pub fn abandon(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        let Some(tracing) = &mut self.tracing else { return };
        if let Some(shared) = &tracing.shared {
            shared.clear();
        }
        let spans = tracing.requests.drain().map(|(_, span)| span);
        for mut span in spans.chain(tracing.operations.drain().map(|(_, span)| span)) {
            span.set_attribute(KeyValue::new("kad.end", "abandoned"));
            span.end_with_timestamp(tracing.spans.time(now));
        }
    }

    /// Reads the engine's plain numbers for the [metrics](Traced::with_metrics), if any. Calls of the machine do
    /// this at most once a second; call this for the current numbers.
    pub fn measure(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if let Some(metrics) = &mut self.metrics {
            metrics.measure(now, self.machine.as_ref());
        }
    }
}

impl<F: Family, T: Tracer, M: AsRef<Coordinator<F>>> AsRef<Coordinator<F>> for Traced<F, T, M> {
    fn as_ref(&self) -> &Coordinator<F> {
        self.machine.as_ref()
    }
}

impl<F: Family, T: Tracer, M: AsRef<Coordinator<F>>> Debug for Traced<F, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("coordinator", self.coordinator()).finish_non_exhaustive()
    }
}

impl<F, T, M> Machine for Traced<F, T, M>
where
    F: Family,
    T: Tracer,
    M: Machine<Inbound = Inbound<F>, Outbound = Outbound<F>> + AsRef<Coordinator<F>>,
{
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    // Without tracer and metrics this only forwards the event, so it is inlined to cost no call.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        if self.tracing.is_none() && self.metrics.is_none() {
            return self.machine.handle_into(now, event, out);
        }
        self.handle_observed(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

impl<F, T, M> Traced<F, T, M>
where
    F: Family,
    T: Tracer,
    M: Machine<Inbound = Inbound<F>, Outbound = Outbound<F>> + AsRef<Coordinator<F>>,
{
    /// Forwards the event, and updates spans and metrics by the event and the output.
    fn handle_observed(
        &mut self,
        now: Instant,
        mut event: Stamped<Inbound<F>>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Self { machine, tracing, metrics, clock } = self;
        let now = clock.advance(now);
        let before = out.len();
        if let Some(metrics) = metrics {
            metrics.before_call(now, &event.event, (*machine).as_ref());
        }
        match tracing {
            None => machine.handle_into(now, event, out),
            Some(traced) => {
                let effect = traced.inbound(now, (*machine).as_ref().table().local(), &mut event);
                machine.handle_into(now, event, out);
                traced.outbound(now, effect, out.get_mut(before..).unwrap_or_default());
                if traced.is_noop {
                    *tracing = None;
                }
            }
        }
        if let Some(metrics) = metrics {
            for stamped in out.get(before..).unwrap_or_default() {
                metrics.outbound(now, &stamped.event);
            }
            metrics.after_call(now, (*machine).as_ref());
        }
    }
}

/// The effect of an inbound event on spans. It is applied together with the output, which may show that time ended
/// the request or the operation first.
enum SpanEffect<S> {
    None,
    /// The event is a start, with this span.
    Start(S),
    RequestEnded(RequestId, RequestEnd),
}

impl<F: Family, T: Tracer> Drop for Tracing<F, T> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.clear();
        }
    }
}

impl<F: Family, T: Tracer> Tracing<F, T> {
    /// Ends the span of a request, if it is open.
    fn end_request(&mut self, now: Instant, request: RequestId, end: RequestEnd) {
        let Some(mut span) = self.requests.remove(&request) else { return };
        if let Some(shared) = &self.shared {
            span.set_attributes(shared.end(request));
        }
        self.spans.request_ended(now, span, end);
    }

    /// Handles an inbound event: stamps it with the context of its span, so that the spans that follow are its
    /// children.
    fn inbound(
        &mut self,
        now: Instant,
        local: F::Key,
        stamped: &mut Stamped<Inbound<F>>,
    ) -> SpanEffect<T::Span> {
        let Stamped { event, context, .. } = stamped;
        if let Some((request, end)) = request_end(event) {
            if context.parent().is_none()
                && let Some(span) = self.requests.get(&request)
            {
                *context = Context::Parent(span.span_context().clone());
            }
            return SpanEffect::RequestEnded(request, end);
        }
        let span = match event {
            Inbound::Start(start) => self.spans.lookup(now, start, local, context),
            Inbound::Crawl(start) => self.spans.crawl(now, start, context),
            Inbound::Broadcast(start) => self.spans.broadcast(now, start, context),
            _ => return SpanEffect::None,
        };
        if is_noop(&span, context) {
            self.is_noop = true;
            return SpanEffect::None;
        }
        *context = Context::Parent(span.span_context().clone());
        SpanEffect::Start(span)
    }

    /// Handles the outbound events of a call, the first of which may be due to time, which runs before the inbound
    /// event.
    fn outbound(&mut self, now: Instant, effect: SpanEffect<T::Span>, out: &mut [Stamped<Outbound<F>>]) {
        let mut started = None;
        match effect {
            SpanEffect::None => {}
            SpanEffect::Start(span) => started = Some(span),
            SpanEffect::RequestEnded(request, end) => {
                // If the request timed out in this call, before its response was handled, its cancel ends the
                // span below. Otherwise the span ends here, before that of its operation, which may finish in this
                // call.
                let is_late = out
                    .iter()
                    .any(|it| matches!(&it.event, Outbound::Cancel(cancel) if cancel.id == request));
                if !is_late {
                    self.end_request(now, request, end);
                }
            }
        }
        for Stamped { event, context, deadline } in out {
            match event {
                Outbound::Started(accepted) => {
                    if let Some(mut span) = started.take() {
                        self.spans.started(now, &mut span, *deadline);
                        self.operations.insert(accepted.operation.tag(), span);
                    }
                }
                Outbound::Refused(refused) => {
                    if let Some(span) = started.take() {
                        self.spans.refused(now, span, refused);
                    }
                }
                Outbound::Request(request) if !self.is_noop => {
                    let span = self.spans.request(now, request, context, *deadline);
                    if is_noop(&span, context) {
                        self.is_noop = true;
                        continue;
                    }
                    *context = Context::Parent(span.span_context().clone());
                    self.requests.insert(request.id, span);
                    if let Some(shared) = &self.shared {
                        shared.begin(request.id);
                    }
                }
                Outbound::Cancel(cancel) => {
                    self.end_request(now, cancel.id, RequestEnd::Cancelled(cancel.reason));
                }
                Outbound::Finished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.spans.lookup_ended(now, span, finish);
                    }
                }
                Outbound::CrawlFinished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.spans.crawl_ended(now, span, finish);
                    }
                }
                Outbound::BroadcastFinished(finish) => {
                    if let Some(span) = self.operations.remove(&finish.operation.tag()) {
                        self.spans.broadcast_ended(now, span, finish);
                    }
                }
                _ => {}
            }
        }
    }
}
