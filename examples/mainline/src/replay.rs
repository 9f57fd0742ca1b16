//! Replays a recording on a fresh engine: compares the outbound events, and shows the traces of the operations.
//!
//! The structure of the traces is not taken from the recording: the engine produces it again. A recording holds
//! the inbound events of the engine: not how many peers an answer named, nor why a request to find something
//! failed.

use crate::options::Options;
use crate::report::{Ids, at, requests_json};
use crate::{exit, write_file};
use kad_mainline::family::{Mainline, Payload};
use kad_mainline::goal::Asks;
use kad_mainline::svg::svg;
use kad_mainline::trace::{self, Kept, Span};
use kad_mainline::waterfall::Waterfall;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::record::{Call, Recording};
use kad_proto::telemetry::{Spans, Traced};
use kad_proto::{Context, Failure, Instant, Machine, RequestId, Response, Stamped, Verdict};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanId, TraceId, TracerProvider};
use opentelemetry_sdk::trace::{IdGenerator, SdkTracer, SdkTracerProvider};
use serde_json::json;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Replays the file: compares, and shows its traces. Returns the exit code.
///
/// # Errors
/// Where the file cannot be read, is no recording of this program, or is damaged, which names it; and those of
/// the output.
pub(crate) fn replay(path: &Path, options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let named = |error: &dyn Error| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(|error| named(&error))?;
    let recording = Recording::<Mainline>::open(&bytes).map_err(|error| named(&error))?;
    let replayed = recording.replay().map_err(|error| named(&error))?;
    if let Some(difference) = &replayed.difference {
        if options.json {
            let json = json!({
                "event": "replay",
                "calls": replayed.calls,
                "difference": difference.to_string(),
                "exit": 1,
            });
            writeln!(io::stdout(), "{json}")?;
        } else {
            writeln!(io::stdout(), "{replayed}")?;
        }
        return Ok(exit(1));
    }
    let operations = traces(&recording).map_err(|error| named(error.as_ref()))?;
    if let Some(path) = &options.svg {
        let spans: Vec<_> = operations.iter().map(Vec::as_slice).collect();
        write_file(path, svg(&spans)?.as_bytes())?;
    }
    if options.json {
        let json = json!({
            "event": "replay",
            "calls": replayed.calls,
            "difference": null,
            "operations": operations.iter().map(|spans| operation_json(spans)).collect::<Vec<_>>(),
            "exit": 0,
        });
        writeln!(io::stdout(), "{json}")?;
        return Ok(exit(0));
    }
    writeln!(io::stdout(), "{replayed}")?;
    for spans in &operations {
        if let Some(operation) = spans.iter().find(|span| !span.is_request()) {
            let target = operation.text("kad.target").unwrap_or("all");
            write!(io::stdout(), "\n{} of {target}\n{}", operation.name(), Ids(operation))?;
        }
        write!(io::stdout(), "{}", Waterfall(spans))?;
    }
    Ok(exit(0))
}

fn operation_json(spans: &[Span]) -> serde_json::Value {
    let operation = spans.iter().find(|span| !span.is_request());
    json!({
        "name": operation.map(Span::name),
        "target": operation.and_then(|span| span.text("kad.target")),
        "outcome": operation.and_then(|span| span.text("kad.outcome")),
        "trace_id": operation.map(|span| span.context().trace_id().to_string()),
        "span_id": operation.map(|span| span.context().span_id().to_string()),
        "started_us": operation.map(|span| at(span.started)),
        "ended_us": operation.map(|span| at(span.ended)),
        "spans": requests_json(spans, false),
        "background": requests_json(spans, true),
    })
}

/// The spans of each operation of a recording.
fn traces(recording: &Recording<'_, Mainline>) -> Result<Vec<Vec<Span>>, Box<dyn Error>> {
    let (kept, origin) = (Kept::new(false), SystemTime::UNIX_EPOCH);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(kept.clone())
        .with_id_generator(Counted::default())
        .build();
    let spans = Spans::new(provider.tracer("mainline"), origin).describe_nodes(trace::describe);
    // It makes the same random choices as the recorded one.
    let engine = recording.coordinator(recording.config().clone())?;
    let mut again =
        Again { engine: Traced::with_spans(engine, spans), asked: HashMap::new(), traces: HashMap::new() };
    let mut now = Instant::ORIGIN;
    for call in recording.calls() {
        let call = call?;
        now = call.now;
        again.tell(call);
    }
    again.engine.abandon(now);
    Ok(kept.take_all(origin))
}

/// An engine that receives all recorded events again, in new spans.
struct Again {
    engine: Traced<Mainline, SdkTracer>,
    /// What each request asks for.
    asked: HashMap<RequestId, Asks>,
    /// For each trace of the recorded run, the root span of its replay.
    traces: HashMap<TraceId, SpanContext>,
}

impl Again {
    fn tell(&mut self, Call { now, mut event, .. }: Call<Mainline>) {
        self.note(&event.event);
        let was = event.context.parent().map(SpanContext::trace_id);
        let is_start = matches!(event.event, Inbound::Start(_) | Inbound::Broadcast(_) | Inbound::Crawl(_));
        // An operation that follows from another belongs to the trace of that one.
        let first = was.filter(|_| is_start).and_then(|was| self.traces.get(&was)).cloned();
        event.context = first.map_or(Context::NONE, Context::from);
        for Stamped { event, context, .. } in self.engine.handle(now, event) {
            match event {
                Outbound::Request(request) => {
                    if let Some(asks) = Asks::of(&request.ask) {
                        self.asked.insert(request.id, asks);
                        self.attribute(request.id, trace::ASKED, asks.name().to_owned());
                    }
                }
                Outbound::Started(_) => {
                    if let (Some(was), Some(span)) = (was, context.parent()) {
                        self.traces.entry(was).or_insert_with(|| span.clone());
                    }
                }
                Outbound::Cancel(cancel) => drop(self.asked.remove(&cancel.id)),
                _ => {}
            }
        }
    }

    /// Sets the attributes of a request's span that the driver had set before it passed the response to the
    /// engine.
    fn note(&mut self, event: &Inbound<Mainline>) {
        let Inbound::Response(Response { request, result, .. }) = event else { return };
        let asked = self.asked.remove(request);
        match result {
            Ok(answer) if matches!(answer.extra.value, Verdict::Valid(_)) => {
                let had = match asked {
                    Some(Asks::Item) => "the item",
                    Some(Asks::Peers) => "peers",
                    _ => return,
                };
                self.attribute(*request, trace::HAD, had.to_owned());
            }
            Err(Failure::Rejected(Payload::Refused(failure))) => {
                self.attribute(*request, trace::FAILURE, failure.to_string());
            }
            _ => {}
        }
    }

    fn attribute(&mut self, request: RequestId, name: &'static str, value: String) {
        if let Some(span) = self.engine.request_span(request) {
            span.set_attribute(KeyValue::new(name, value));
        }
    }
}

/// Trace ids and span ids that each count from 1, so that every replay has the same.
#[derive(Debug, Default)]
struct Counted {
    traces: AtomicU64,
    spans: AtomicU64,
}

impl IdGenerator for Counted {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(u128::from(self.traces.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
