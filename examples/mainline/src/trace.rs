//! Finished spans, as this program keeps and reads them.
//!
//! `kad_proto::telemetry::Traced` makes them: one trace for each operation, whose tree says which answer led to
//! which request. (A hop is something else: the length of the chain of who first named whom.) What the engine does
//! aside is a trace of its own, with a link to what led to it.

use crate::driver::JOIN;
use crate::family::Node;
use core::time::Duration;
use kad_proto::Instant;
use opentelemetry::trace::{Span as _, SpanContext, SpanId, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span as Started, SpanData, SpanProcessor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The query of a request, as the protocol calls it.
pub const ASKED: &str = "krpc.query";
/// What an answer had besides nodes.
pub const HAD: &str = "krpc.had";
/// Why a request failed, in words.
pub const FAILURE: &str = "krpc.failure";

/// Whose work a request is, where it is a side effect.
pub const INITIATOR: &str = "kad.initiator";

const OPERATION: &str = "kad.operation";
const NODE: &str = "kad.node";
const ADDRESS: &str = "network.peer.address";
const PORT: &str = "network.peer.port";

/// A node, as attributes of spans.
pub fn describe((key, address): &Node) -> Vec<KeyValue> {
    vec![
        KeyValue::new(NODE, key.to_string()),
        KeyValue::new(ADDRESS, address.ip().to_string()),
        KeyValue::new(PORT, i64::from(address.port())),
    ]
}

/// A span processor that keeps finished spans in memory until they are taken: all of an operation, but of a crawl
/// only that of the crawl itself (there are too many); and those of the routing maintenance, if that is wanted.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Mutex<Store>>);

#[derive(Debug)]
struct Store {
    upkeep_is_wanted: bool,
    started: u64,
    /// Of the spans that have not ended: the how manieth to start each was.
    open: HashMap<SpanId, u64>,
    crawls: HashSet<TraceId>,
    /// By tag.
    operations: BTreeMap<i64, Vec<(u64, SpanData)>>,
    /// The operation that each trace comes from.
    traces: HashMap<TraceId, i64>,
    upkeep: Vec<(u64, SpanData)>,
}

impl Kept {
    /// Keeps the spans of operations, and those of the routing maintenance if that is wanted.
    pub fn new(upkeep_is_wanted: bool) -> Self {
        Self(Arc::new(Mutex::new(Store {
            upkeep_is_wanted,
            started: 0,
            open: HashMap::new(),
            crawls: HashSet::new(),
            operations: BTreeMap::new(),
            traces: HashMap::new(),
            upkeep: Vec::new(),
        })))
    }

    fn spans(&self) -> MutexGuard<'_, Store> {
        // Nobody panics with it in hand.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the finished spans of an operation, in the order of their start; the engine's time began at `origin`.
    pub fn take(&self, operation: u64, origin: SystemTime) -> Vec<Span> {
        let Ok(tag) = i64::try_from(operation) else { return Vec::new() };
        let mut spans = self.spans();
        let taken = spans.operations.remove(&tag).unwrap_or_default();
        for (_, span) in &taken {
            // It may be that of another operation, which led to this one.
            let trace = span.span_context.trace_id();
            if spans.traces.get(&trace) == Some(&tag) {
                spans.traces.remove(&trace);
            }
        }
        in_order(taken, origin)
    }

    /// The same of all operations, in the order of their tags.
    pub fn take_all(&self, origin: SystemTime) -> Vec<Vec<Span>> {
        let mut spans = self.spans();
        spans.traces.clear();
        let operations = core::mem::take(&mut spans.operations);
        operations.into_values().map(|spans| in_order(spans, origin)).collect()
    }

    /// Takes the finished spans of the routing maintenance.
    pub fn take_upkeep(&self, origin: SystemTime) -> Vec<Span> {
        in_order(core::mem::take(&mut self.spans().upkeep), origin)
    }

    /// What it would take of an operation.
    pub fn get(&self, operation: u64, origin: SystemTime) -> Vec<Span> {
        let tag = i64::try_from(operation).unwrap_or(i64::MAX);
        in_order(self.spans().operations.get(&tag).cloned().unwrap_or_default(), origin)
    }

    /// Of how many spans it knows something.
    #[allow(clippy::len_without_is_empty)] // to be counted is all that is wanted
    pub fn len(&self) -> usize {
        let spans = self.spans();
        let finished: usize = spans.operations.values().map(Vec::len).sum();
        finished + spans.upkeep.len() + spans.traces.len() + spans.crawls.len() + spans.open.len()
    }
}

fn in_order(mut spans: Vec<(u64, SpanData)>, origin: SystemTime) -> Vec<Span> {
    spans.sort_unstable_by_key(|(number, _)| *number);
    spans.into_iter().map(|(_, data)| Span::new(data, origin)).collect()
}

impl SpanProcessor for Kept {
    fn on_start(&self, span: &mut Started, parent: &Context) {
        // What this program crawls hangs under nothing; most spans hang under another, and need not be copied for
        // their name.
        let is_crawl =
            !parent.has_active_span() && span.exported_data().is_some_and(|data| data.name == "kad crawl");
        let (context, mut spans) = (span.span_context(), self.spans());
        let number = spans.started;
        spans.started += 1;
        spans.open.insert(context.span_id(), number);
        if is_crawl {
            spans.crawls.insert(context.trace_id());
        }
    }

    fn on_end(&self, span: SpanData) {
        let mut spans = self.spans();
        let (context, is_request) = (&span.span_context, span.span_kind == SpanKind::Client);
        let (trace, number) = (context.trace_id(), spans.open.remove(&context.span_id()));
        let is_of_crawl = spans.crawls.contains(&trace);
        if is_of_crawl && is_request {
            return;
        }
        if is_of_crawl {
            spans.crawls.remove(&trace);
        }
        let aside = text(&span, INITIATOR) == Some("background");
        let origin = span.links.first().filter(|_| aside).map(|link| link.span_context.trace_id());
        let own = integer(&span, OPERATION).filter(|tag| i64::try_from(JOIN).unwrap_or(i64::MAX) != *tag);
        let tag = own.or_else(|| spans.traces.get(&origin?).copied());
        let kept = (number.unwrap_or(u64::MAX), span);
        if let Some(tag) = tag {
            spans.traces.entry(trace).or_insert(tag);
            spans.operations.entry(tag).or_default().push(kept);
        } else if spans.upkeep_is_wanted && is_request {
            spans.upkeep.push(kept);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn value<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    let of_name = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    of_name.map(|attribute| &attribute.value)
}

fn text<'a>(span: &'a SpanData, name: &str) -> Option<&'a str> {
    match value(span, name)? {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    }
}

fn integer(span: &SpanData, name: &str) -> Option<i64> {
    match value(span, name)? {
        Value::I64(number) => Some(*number),
        _ => None,
    }
}

/// A finished span: of an operation or of a request.
#[derive(Clone, Debug)]
pub struct Span {
    data: SpanData,
    pub started: Instant,
    pub ended: Instant,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The node answered. Of an operation: it came to an end of its own.
    Answered,
    /// The node has stored it.
    Stored,
    /// The node refused, could not be asked, or answered something else. Of an operation: it was refused.
    Failed,
    /// It ran into its own timeout. Of an operation: into its deadline.
    TimedOut,
    /// It was given up for another reason.
    Cancelled,
    /// It had not ended when the program left.
    Abandoned,
}

impl Span {
    fn new(data: SpanData, origin: SystemTime) -> Self {
        let since = |time: SystemTime| Instant::ORIGIN + time.duration_since(origin).unwrap_or_default();
        let (started, ended) = (since(data.start_time), since(data.end_time));
        Self { data, started, ended }
    }

    /// Its ids.
    pub fn context(&self) -> &SpanContext {
        &self.data.span_context
    }

    /// What it hangs under; invalid where that is nothing.
    pub fn parent(&self) -> SpanId {
        self.data.parent_span_id
    }

    /// Where it comes from, without being a part of it.
    pub fn link(&self) -> Option<&SpanContext> {
        self.data.links.first().map(|link| &link.span_context)
    }

    /// Whether it is a request, rather than an operation.
    pub fn is_request(&self) -> bool {
        self.data.span_kind == SpanKind::Client
    }

    /// Whether it is what a broadcast left to be done after its end.
    pub fn is_background(&self) -> bool {
        self.text(INITIATOR) == Some("background")
    }

    pub fn name(&self) -> &str {
        &self.data.name
    }

    /// An attribute that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.data, name)
    }

    /// An attribute that is a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        integer(&self.data, name)
    }

    /// The query.
    pub fn asked(&self) -> &str {
        self.text(ASKED).unwrap_or_default()
    }

    /// Whether it was to store something, rather than to find it.
    pub fn is_store(&self) -> bool {
        matches!(self.asked(), "put" | "announce_peer")
    }

    /// The node's key.
    pub fn key(&self) -> &str {
        self.text(NODE).unwrap_or_default()
    }

    /// The node's address.
    pub fn address(&self) -> String {
        format!("{}:{}", self.text(ADDRESS).unwrap_or_default(), self.number(PORT).unwrap_or_default())
    }

    pub fn hop(&self) -> i64 {
        self.number("kad.hop").unwrap_or_default()
    }

    pub fn deadline(&self) -> Option<Instant> {
        let Value::F64(seconds) = value(&self.data, "kad.deadline.remaining")? else { return None };
        Some(self.started + Duration::try_from_secs_f64(*seconds).ok()?)
    }

    pub fn elapsed(&self) -> Duration {
        self.ended - self.started
    }

    /// Whose work it is. The only operation of this program that shows nothing else is that of joining.
    pub fn initiator(&self) -> &str {
        self.text(INITIATOR).unwrap_or("join")
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.text(FAILURE).filter(|_| self.ending() == Ending::Failed)
    }

    /// How it ended.
    pub fn ending(&self) -> Ending {
        match (self.text("kad.end"), self.text("error.type")) {
            (Some("answered"), _) if self.is_store() => Ending::Stored,
            (Some("answered"), _) | (None, None) => Ending::Answered,
            (Some("failed" | "unreachable" | "connection refused" | "gone" | "rejected"), _)
            | (None, Some("refused")) => Ending::Failed,
            (Some("timed out"), _) | (None, Some(_)) => Ending::TimedOut,
            (Some("abandoned"), _) => Ending::Abandoned,
            (Some(_), _) => Ending::Cancelled,
        }
    }
}

impl Ending {
    /// In words; `None` where it has not ended.
    pub const fn text(self) -> Option<&'static str> {
        match self {
            Self::Answered => Some("answered"),
            Self::Stored => Some("stored"),
            Self::Failed => Some("failed"),
            Self::TimedOut => Some("timed out"),
            Self::Cancelled => Some("cancelled"),
            Self::Abandoned => None,
        }
    }
}
