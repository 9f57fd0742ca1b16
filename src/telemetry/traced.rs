//! [`Traced`]: a coordinator that makes spans.

use super::spans::{Spans, is_nothing};
use super::{Metrics, RequestEnd};
use crate::Coordinator;
use crate::context::Context;
use crate::coordinator::{Inbound, Outbound};
use crate::deadline::Clock;
use crate::family::Family;
use crate::id::RequestId;
use crate::machine::{Batch, Machine, Stamped};
use crate::time::Instant;
use core::fmt::{self, Debug};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, Tracer};
use std::collections::HashMap;
use std::time::SystemTime;

/// A coordinator whose operations and requests are spans of a tracer: see the [module](super). It is a machine with the events of
/// the [`Coordinator`], so that a driver changes one line. What it traces may be a coordinator within something else, such as a
/// flight recorder (`record::Recorder`).
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
pub struct Traced<F: Family, T: Tracer, M = Coordinator<F>> {
    machine: M,
    tracing: Option<Tracing<F, T>>,
    metrics: Option<Metrics>,
    clock: Clock,
}

/// What goes on.
struct Tracing<F: Family, T: Tracer> {
    spans: Spans<F, T>,
    /// By tag.
    operations: HashMap<u64, T::Span>,
    requests: HashMap<RequestId, T::Span>,
    /// The tracer makes no spans: none is installed.
    is_off: bool,
}

impl<F: Family, T: Tracer, M: AsRef<Coordinator<F>>> Traced<F, T, M> {
    /// A coordinator whose spans `tracer` starts, and whose `Instant::ORIGIN` is `origin`. A tracer that turns out to make no
    /// spans, as the global one while no provider is installed, is asked for one only.
    pub fn new(machine: M, tracer: T, origin: SystemTime) -> Self {
        Self::with_spans(machine, Spans::new(tracer, origin))
    }

    /// The same, with these spans: with attributes of [its own for nodes](Spans::describe_nodes), say.
    pub fn with_spans(machine: M, spans: Spans<F, T>) -> Self {
        let (operations, requests) = (HashMap::new(), HashMap::new());
        let tracing = Some(Tracing { spans, operations, requests, is_off: false });
        Self { machine, tracing, metrics: None, clock: Clock::default() }
    }

    /// A coordinator without a tracer: nothing is done for spans, and contexts are those of the engine.
    pub fn off(machine: M) -> Self {
        Self { machine, tracing: None, metrics: None, clock: Clock::default() }
    }

    /// The same, which counts and measures too.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Coordinator<F> {
        self.machine.as_ref()
    }

    /// What is traced: the coordinator, or what it is in.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The same. Tell it nothing by this way: what it says then has no span.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The span of a request that has not ended, to be given what only the driver knows: sizes in bytes
    /// (`kad.request.size`, `kad.response.size`), say. What its answer brings is to be noted before the answer is handed in.
    /// `None` without a tracer, and for all other ids.
    pub fn request_span(&mut self, request: RequestId) -> Option<&mut T::Span> {
        self.tracing.as_mut()?.requests.get_mut(&request)
    }

    /// The span of the live operation with this tag, for the same.
    pub fn operation_span(&mut self, tag: u64) -> Option<&mut T::Span> {
        self.tracing.as_mut()?.operations.get_mut(&tag)
    }

    /// Ends all spans that are open, with `kad.end` `abandoned`: for a program that ends. They would end when this is dropped,
    /// at the time that the tracer takes it for. What they were of goes on; what it asks
    /// from then on hangs under spans that have ended.
    pub fn abandon(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        let Some(tracing) = &mut self.tracing else { return };
        let spans = tracing.requests.drain().map(|(_, span)| span);
        for mut span in spans.chain(tracing.operations.drain().map(|(_, span)| span)) {
            span.set_attribute(KeyValue::new("kad.end", "abandoned"));
            span.end_with_timestamp(tracing.spans.time(now));
        }
    }

    /// Reads the engine's plain numbers for the [metrics](Traced::with_metrics), where there are any. It is done once a second
    /// when the machine is called; this is for the numbers of just now.
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

    // Where nobody watches, the event is handed on, and that is all: so no function of its own is wanted in between.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        if self.tracing.is_none() && self.metrics.is_none() {
            return self.machine.handle_into(now, event, out);
        }
        self.watch(now, event, out);
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
    /// Tells the machine something, and sees what comes of it.
    fn watch(&mut self, now: Instant, mut event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Self { machine, tracing, metrics, clock } = self;
        let now = clock.advance(now);
        let said = out.len();
        if let Some(metrics) = metrics {
            metrics.told(now, &event.event, (*machine).as_ref());
        }
        match tracing {
            None => machine.handle_into(now, event, out),
            Some(traced) => {
                let told = traced.told(now, (*machine).as_ref().table().local(), &mut event);
                machine.handle_into(now, event, out);
                traced.said(now, told, out.get_mut(said..).unwrap_or_default());
                if traced.is_off {
                    *tracing = None;
                }
            }
        }
        if let Some(metrics) = metrics {
            for stamped in out.get(said..).unwrap_or_default() {
                metrics.said(now, &stamped.event);
            }
            metrics.over(now, (*machine).as_ref());
        }
    }
}

/// What an inbound event means for spans, once what time did before it is known.
enum Told<S> {
    Nothing,
    /// A start: its span.
    Start(S),
    Ended(RequestId, RequestEnd),
}

/// How an event says that a request has ended, if it does.
pub(super) fn ended<F: Family>(event: &Inbound<F>) -> Option<(RequestId, RequestEnd)> {
    match event {
        Inbound::Answered { request, closer } | Inbound::AnsweredWith { request, closer, .. } => {
            Some((*request, RequestEnd::Answered { closer: closer.len() }))
        }
        Inbound::Failed(request) => Some((*request, RequestEnd::Failed)),
        Inbound::Rejected { request, .. } => Some((*request, RequestEnd::Rejected)),
        _ => None,
    }
}

impl<F: Family, T: Tracer> Tracing<F, T> {
    /// An event comes in: it gets the context that makes what follows a tree.
    fn told(&mut self, now: Instant, local: F::Key, stamped: &mut Stamped<Inbound<F>>) -> Told<T::Span> {
        let Stamped { event, context, .. } = stamped;
        if let Some((request, end)) = ended(event) {
            if context.parent().is_none()
                && let Some(span) = self.requests.get(&request)
            {
                *context = Context::Parent(span.span_context().clone());
            }
            return Told::Ended(request, end);
        }
        let span = match event {
            Inbound::Start(start) => self.spans.lookup(now, start, local, context),
            Inbound::Crawl(start) => self.spans.crawl(now, start, context),
            Inbound::Broadcast(start) => self.spans.broadcast(now, start, context),
            _ => return Told::Nothing,
        };
        if is_nothing(&span, context) {
            self.is_off = true;
            return Told::Nothing;
        }
        *context = Context::Parent(span.span_context().clone());
        Told::Start(span)
    }

    /// Events go out, of which the first may be what time did before the inbound event.
    fn said(&mut self, now: Instant, told: Told<T::Span>, out: &mut [Stamped<Outbound<F>>]) {
        let mut begun = None;
        match told {
            Told::Nothing => {}
            Told::Start(span) => begun = Some(span),
            Told::Ended(request, end) => {
                // Unless time took it before the answer was looked at. The operation that it was the last of ends after it.
                let is_late = out
                    .iter()
                    .any(|it| matches!(&it.event, Outbound::Cancel(cancel) if cancel.id == request));
                if !is_late && let Some(span) = self.requests.remove(&request) {
                    self.spans.request_ended(now, span, end);
                }
            }
        }
        for Stamped { event, context, deadline } in out {
            match event {
                Outbound::Started(started) => {
                    if let Some(mut span) = begun.take() {
                        self.spans.started(now, &mut span, *deadline);
                        self.operations.insert(started.operation.tag(), span);
                    }
                }
                Outbound::Refused(refused) => {
                    if let Some(span) = begun.take() {
                        self.spans.refused(now, span, refused);
                    }
                }
                Outbound::Request(request) if !self.is_off => {
                    let span = self.spans.request(now, request, context, *deadline);
                    if is_nothing(&span, context) {
                        self.is_off = true;
                        continue;
                    }
                    *context = Context::Parent(span.span_context().clone());
                    self.requests.insert(request.id, span);
                }
                Outbound::Cancel(cancel) => {
                    if let Some(span) = self.requests.remove(&cancel.id) {
                        self.spans.request_ended(now, span, RequestEnd::GivenUp(cancel.reason));
                    }
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
