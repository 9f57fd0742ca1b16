//! [`Spans`]: starts and ends the spans of operations and requests.

use crate::broadcast::events::{BroadcastFinish, StartBroadcast};
use crate::context::Context;
use crate::coordinator::events::Inbound;
use crate::crawl::events::{CrawlFinish, StartCrawl};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::operation_events::{Contact, Finish, OperationStats, Outcome, Refused, Start};
use crate::vocabulary::request_events::{Ask, CancelReason, Failure, Initiator, Request, Response};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::fmt;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context as Current, KeyValue, Value};
use std::time::SystemTime;

/// Starts and ends spans of stamped events with a tracer: see the [table](super#spans). [`Traced`](super::Traced)
/// does all of it for a coordinator. This is for drivers that keep spans themselves, or embed another machine.
///
/// ```
/// use kad_proto::lookups::query::{Inbound, Outbound};
/// use kad_proto::telemetry::{RequestEnd, Spans};
/// use kad_proto::{Family, Instant, Key8, Machine, NetworkConfig, Query, QueryConfig, Secret, Stamped, Start};
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
/// let tracer = opentelemetry::global::tracer("my-dht");
/// let spans = Spans::<Tiny, _>::new(tracer, SystemTime::now());
/// let secret = Secret::from_seed(1); // in a real node: `Secret::new` of random bytes
/// let (local, config) = (Key8::new([0]), QueryConfig::default());
/// let mut query = Query::<Tiny>::new(local, config, NetworkConfig::default(), &secret)?;
/// let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
/// for out in query.handle(Instant::ORIGIN, Stamped::new(Inbound::Start(start))) {
///     if let Outbound::Request(request) = out.event {
///         let span = spans.request(Instant::ORIGIN, &request, &out.context, out.deadline);
///         // ... send it, and when its answer comes:
///         spans.request_ended(Instant::from_millis(80), span, RequestEnd::Answered { closer: 20 });
///     }
/// }
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
pub struct Spans<F: Family, T> {
    tracer: T,
    origin: SystemTime,
    describe: fn(&F::Node) -> Vec<KeyValue>,
}

/// The `error.type` of an operation that ran into its deadline.
const DEADLINE_EXCEEDED: &str = "deadline exceeded";

/// The `error.type` of an operation that ended so; `None` if it is no error by itself.
const fn error_of(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::DeadlineExceeded => Some(DEADLINE_EXCEEDED),
        Outcome::Overloaded => Some("overloaded"),
        _ => None,
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// The node answered.
    Answered {
        /// How many nodes the answer names.
        closer: usize,
    },
    /// The driver reported a failure, for a reason that is not known.
    Failed,
    /// The node could not be reached.
    Unreachable,
    /// Nobody accepts connections there.
    ConnectionRefused,
    /// The node is not there any more.
    Gone,
    /// The node is alive, and rejected it.
    Rejected,
    /// The engine cancelled it.
    Cancelled(CancelReason),
}

impl RequestEnd {
    /// The `error.type`, if the end is an error. A request cancelled for another reason than a time-out is
    /// none, as that shows nothing about the node.
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::Failed => Some("failed"),
            Self::Unreachable => Some("unreachable"),
            Self::ConnectionRefused => Some("connection_refused"),
            Self::Gone => Some("gone"),
            Self::Rejected => Some("rejected"),
            Self::Cancelled(CancelReason::TimedOut) => Some("timeout"),
            Self::Answered { .. } | Self::Cancelled(_) => None,
        }
    }
}

/// The value of `kad.end`.
impl fmt::Display for RequestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { .. } => f.write_str("answered"),
            Self::Failed => f.write_str("failed"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::ConnectionRefused => f.write_str("connection refused"),
            Self::Gone => f.write_str("gone"),
            Self::Rejected => f.write_str("rejected"),
            Self::Cancelled(reason) => reason.fmt(f),
        }
    }
}

impl<F: Family, T> fmt::Debug for Spans<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<F: Family, T: Tracer> Spans<F, T> {
    /// Spans that `tracer` starts; `origin` is the time of the engine's `Instant::ORIGIN`.
    pub fn new(tracer: T, origin: SystemTime) -> Self {
        let describe = |node: &F::Node| vec![KeyValue::new("kad.node", format!("{node:?}"))];
        Self { tracer, origin, describe }
    }

    /// The same, with these attributes of nodes instead of `kad.node`: for example `network.peer.address` and
    /// `network.peer.port`. `describe` is called only for spans that are recorded.
    #[must_use]
    pub fn describe_nodes(mut self, describe: fn(&F::Node) -> Vec<KeyValue>) -> Self {
        self.describe = describe;
        self
    }

    /// The time of an instant of the engine.
    pub fn time(&self, at: Instant) -> SystemTime {
        self.origin.checked_add(at - Instant::ORIGIN).unwrap_or(self.origin)
    }

    /// Starts a span with the parent or the link of `context`, by the rules of [`context`](crate::context).
    fn start(
        &self,
        now: Instant,
        name: &'static str,
        kind: SpanKind,
        context: &Context,
        deadline: Option<Instant>,
        (for_samplers, attributes): (Vec<KeyValue>, impl FnOnce() -> Vec<KeyValue>),
    ) -> T::Span {
        let mut builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(self.time(now))
            .with_attributes(for_samplers);
        if let Some(link) = context.link() {
            builder = builder.with_links(vec![Link::with_context(link.clone())]);
        }
        let parent = match context.parent() {
            Some(span) => Current::new().with_remote_span_context(span.clone()),
            None => Current::new(),
        };
        let mut span = self.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attributes(attributes());
            set_remaining(&mut span, now, deadline);
        }
        span
    }

    /// Starts the span of a request, which is sent now.
    pub fn request(
        &self,
        now: Instant,
        request: &Request<F>,
        context: &Context,
        deadline: Option<Instant>,
    ) -> T::Span {
        let method = method(&request.ask);
        let for_samplers = vec![
            KeyValue::new("rpc.system.name", "kademlia"),
            KeyValue::new("rpc.method", method),
            match request.initiator {
                Initiator::Operation(id) => KeyValue::new("kad.operation", as_i64(id.tag())),
                initiator => KeyValue::new("kad.initiator", initiator.name()),
            },
        ];
        let attributes = || {
            let mut attributes = (self.describe)(&request.node);
            attributes.extend([
                KeyValue::new("kad.target", format!("{:?}", request.target.key())),
                KeyValue::new("kad.hop", i64::from(request.hop)),
            ]);
            attributes
        };
        self.start(now, method, SpanKind::Client, context, deadline, (for_samplers, attributes))
    }

    /// Ends the span of a request.
    pub fn request_ended(&self, now: Instant, mut span: T::Span, end: RequestEnd) {
        if span.is_recording() {
            span.set_attribute(KeyValue::new("kad.end", end.to_string()));
            if let RequestEnd::Answered { closer } = end {
                span.set_attribute(KeyValue::new("kad.closer", as_i64(closer)));
            }
        }
        self.end(now, span, end.error());
    }

    /// Starts the span of a lookup that is started now, on the node with the key `local`. Submit the start with
    /// the context of this span.
    pub fn lookup(&self, now: Instant, start: &Start<F>, local: F::Key, context: &Context) -> T::Span {
        let name = match kind_of(start, local) {
            "bootstrap" => "kad bootstrap",
            "find" => "kad find",
            _ => "kad message",
        };
        self.operation(now, name, start.tag, Some(start.target.key()), context)
    }

    /// Like [`lookup`](Self::lookup), for a crawl.
    pub fn crawl(&self, now: Instant, start: &StartCrawl<F>, context: &Context) -> T::Span {
        self.operation(now, "kad crawl", start.tag, None, context)
    }

    /// Like [`lookup`](Self::lookup), for a broadcast.
    pub fn broadcast(&self, now: Instant, start: &StartBroadcast<F>, context: &Context) -> T::Span {
        let target = start.records.first().map(|record| record.target.key());
        self.operation(now, "kad broadcast", start.tag, target, context)
    }

    fn operation(
        &self,
        now: Instant,
        name: &'static str,
        tag: u64,
        target: Option<F::Key>,
        context: &Context,
    ) -> T::Span {
        let for_samplers = vec![KeyValue::new("kad.operation", as_i64(tag))];
        let attributes = || {
            let target = target.map(|target| KeyValue::new("kad.target", format!("{target:?}")));
            target.into_iter().collect()
        };
        self.start(now, name, SpanKind::Internal, context, None, (for_samplers, attributes))
    }

    /// Records the deadline of an operation that was accepted.
    pub fn started(&self, now: Instant, span: &mut T::Span, deadline: Option<Instant>) {
        set_remaining(span, now, deadline);
    }

    /// Ends the span of an operation that was refused.
    pub fn refused(&self, now: Instant, mut span: T::Span, refused: &Refused) {
        span.set_attribute(KeyValue::new("error.type", "refused"));
        span.set_status(Status::error(refused.reason.to_string()));
        span.end_with_timestamp(self.time(now));
    }

    /// Ends the span of a lookup.
    pub fn lookup_ended(&self, now: Instant, mut span: T::Span, finish: &Finish<F>) {
        if span.is_recording() {
            let name = |contact: &Contact<F>| {
                let attribute = (self.describe)(&contact.node).into_iter().next();
                attribute.map_or_else(String::new, |attribute| attribute.value.to_string()).into()
            };
            let closest = Value::Array(Array::String(finish.closest.iter().map(name).collect()));
            span.set_attribute(KeyValue::new("kad.closest", closest));
        }
        self.operation_ended(now, span, (finish.outcome, &finish.stats), error_of(finish.outcome));
    }

    /// Ends the span of a crawl.
    pub fn crawl_ended(&self, now: Instant, mut span: T::Span, finish: &CrawlFinish<F>) {
        let counts = finish.counts;
        let found = [
            ("kad.nodes", counts.nodes),
            ("kad.reachable", counts.reachable),
            ("kad.unreachable", counts.unreachable),
            ("kad.edges", counts.edges),
        ];
        span.set_attributes(found.map(|(name, count)| KeyValue::new(name, i64::from(count))));
        self.operation_ended(now, span, (finish.outcome, &finish.stats), error_of(finish.outcome));
    }

    /// Ends the span of a broadcast. It is an error where the broadcast has not succeeded, whatever its time.
    pub fn broadcast_ended(&self, now: Instant, mut span: T::Span, finish: &BroadcastFinish<F>) {
        let counts = finish.counts();
        span.set_attributes([
            KeyValue::new("kad.stores", as_i64(finish.stores.len())),
            KeyValue::new("kad.stored", i64::from(counts.stored)),
            KeyValue::new("kad.refused", i64::from(counts.refused)),
            KeyValue::new("kad.succeeded", finish.succeeded),
        ]);
        let error = (!finish.succeeded).then(|| error_of(finish.outcome).unwrap_or("unsuccessful"));
        self.operation_ended(now, span, (finish.outcome, &finish.stats), error);
    }

    fn operation_ended(
        &self,
        now: Instant,
        mut span: T::Span,
        (outcome, stats): (Outcome, &OperationStats),
        error: Option<&'static str>,
    ) {
        if span.is_recording() {
            span.set_attribute(KeyValue::new("kad.outcome", outcome.to_string()));
            let OperationStats { sent, answered, failed, timed_out, cancelled, hops, .. } = *stats;
            let sums = [
                ("kad.sent", sent),
                ("kad.answered", answered),
                ("kad.failed", failed),
                ("kad.timed_out", timed_out),
                ("kad.cancelled", cancelled),
                ("kad.hops", hops),
            ];
            span.set_attributes(sums.map(|(name, sum)| KeyValue::new(name, i64::from(sum))));
        }
        self.end(now, span, error);
    }

    /// Ends a span. As OpenTelemetry requires of libraries, only an error sets the status.
    fn end(&self, now: Instant, mut span: T::Span, error: Option<&'static str>) {
        if let Some(error) = error {
            span.set_attribute(KeyValue::new("error.type", error));
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(self.time(now));
    }
}

/// Whether the tracer makes no spans: then a span has no valid context, or that of its parent.
pub(super) fn is_noop<S: Span>(span: &S, context: &Context) -> bool {
    let own = span.span_context();
    !own.is_valid() || context.parent() == Some(own)
}

/// The kind of operation that an event starts, if any.
pub(super) fn kind<F: Family>(event: &Inbound<F>, local: F::Key) -> Option<&'static str> {
    match event {
        Inbound::Start(start) => Some(kind_of(start, local)),
        Inbound::Crawl(_) => Some("crawl"),
        Inbound::Broadcast(_) => Some("broadcast"),
        _ => None,
    }
}

fn kind_of<F: Family>(start: &Start<F>, local: F::Key) -> &'static str {
    match start.ask {
        _ if start.is_bootstrap(local) => "bootstrap",
        Ask::FindCloser => "find",
        _ => "message",
    }
}

/// The request that an inbound event ends, if any, and how.
pub(super) fn request_end<F: Family>(event: &Inbound<F>) -> Option<(RequestId, RequestEnd)> {
    let Inbound::Response(Response { request, result, .. }) = event else { return None };
    let end = match result {
        Ok(answer) if answer.is_part => return None,
        Ok(answer) => RequestEnd::Answered { closer: answer.closer.len() },
        Err(Failure::Failed) => RequestEnd::Failed,
        Err(Failure::Unreachable) => RequestEnd::Unreachable,
        Err(Failure::ConnectionRefused) => RequestEnd::ConnectionRefused,
        Err(Failure::Gone) => RequestEnd::Gone,
        Err(Failure::Rejected(_)) => RequestEnd::Rejected,
    };
    Some((*request, end))
}

/// The name of a request's span, which is its `rpc.method`.
pub(super) const fn method<F: Family>(ask: &Ask<F>) -> &'static str {
    match ask {
        Ask::FindCloser => "FIND_NODE",
        Ask::Message(_) => "MESSAGE",
        Ask::Store { .. } => "STORE",
        Ask::Batch { .. } => "BATCH",
    }
}

/// Sets `kad.deadline.remaining`, in seconds.
fn set_remaining<S: Span>(span: &mut S, now: Instant, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        span.set_attribute(KeyValue::new("kad.deadline.remaining", (deadline - now).as_secs_f64()));
    }
}

/// The value of an integer attribute: at most `i64::MAX`.
fn as_i64(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
