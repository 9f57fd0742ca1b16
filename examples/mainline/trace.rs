//! The record of each lookup, as spans: what a tracing SDK would keep, made by hand.
//!
//! One trace per lookup: a root span for the lookup, and one span for each request. The parent of a request's span is
//! whatever the engine stamped on the request; the answer is handed in stamped with the request's own span. What comes
//! out is the causal tree: every request hangs under the answer that led to it. (Its hop tells something else: the
//! length of the chain of who first named whom.)

use crate::driver::{Mainline, Node};
use core::fmt;
use core::time::Duration;
use kad_proto::{Context, Finish, Instant, Key160, RefusedBecause};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::io::ErrorKind;

/// One lookup: its root span, and the spans of its requests in the order in which they were sent.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) target: Key160,
    pub(crate) root: SpanContext,
    pub(crate) started: Instant,
    /// The deadline that the engine gave it.
    pub(crate) deadline: Option<Instant>,
    pub(crate) spans: Vec<Span>,
    /// How it ended, once it has.
    pub(crate) end: Option<Result<Finish<Mainline>, RefusedBecause>>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) context: SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) node: Node,
    pub(crate) hop: u32,
    pub(crate) sent: Instant,
    pub(crate) deadline: Option<Instant>,
    /// When and how it ended, once it has.
    pub(crate) end: Option<(Instant, Ending)>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The node answered, and named this many nodes.
    Answered(usize),
    Failed(Failure),
    /// It ran into its own timeout.
    TimedOut,
    /// It was given up because the lookup ended.
    Cancelled,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered(_) => "answered",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node answered with an error.
    Error { code: i64, text: String },
    /// Another node than the one that is said to live there answered.
    OtherNode(Key160),
    /// The datagram could not be sent.
    Unsendable(ErrorKind),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A stranger's words, which are not to control a terminal or to fill it.
            Self::Error { code, text } => {
                let text: String = text.chars().take(80).collect();
                write!(f, "error {code} \"{}\"", text.escape_debug())
            }
            Self::OtherNode(key) => write!(f, "node {key} lives there"),
            Self::Unsendable(kind) => write!(f, "not sent: {kind}"),
        }
    }
}

impl Lookup {
    /// A lookup that begins now, with a trace of its own.
    pub(crate) fn new(target: Key160, started: Instant) -> Self {
        let trace = TraceId::from_bytes(rand::random());
        let root = SpanContext::new(trace, span_id(), TraceFlags::SAMPLED, false, TraceState::NONE);
        Self { target, root, started, deadline: None, spans: Vec::new(), end: None }
    }

    /// Opens the span of a request under the span that the engine stamped on it, and says its number.
    pub(crate) fn open(
        &mut self,
        stamp: &Context,
        (node, hop): (Node, u32),
        (sent, deadline): (Instant, Option<Instant>),
    ) -> usize {
        let parent = stamp.parent().unwrap_or(&SpanContext::NONE);
        let (trace, flags, state) = (parent.trace_id(), parent.trace_flags(), parent.trace_state().clone());
        let context = SpanContext::new(trace, span_id(), flags, false, state);
        let parent = parent.span_id();
        self.spans.push(Span { context, parent, node, hop, sent, deadline, end: None });
        self.spans.len() - 1
    }

    /// Closes a request's span, and says its context. Closing it again replaces how it ended.
    pub(crate) fn close(&mut self, span: usize, now: Instant, ending: Ending) -> Option<SpanContext> {
        let span = self.spans.get_mut(span)?;
        span.end = Some((now, ending));
        Some(span.context.clone())
    }

    /// The spans as a tree: each with its depth, parents before their children. The root's children have depth 1; a
    /// span whose parent is not in this lookup, which the engine rules out, would have depth 0.
    pub(crate) fn tree(&self) -> Vec<(usize, &Span)> {
        let known =
            |id| id == self.root.span_id() || self.spans.iter().any(|span| span.context.span_id() == id);
        let mut open: Vec<(usize, &Span)> =
            self.spans.iter().rev().filter(|span| !known(span.parent)).map(|span| (0, span)).collect();
        let under = |id| self.spans.iter().rev().filter(move |span| span.parent == id);
        open.extend(under(self.root.span_id()).map(|span| (1, span)));
        let mut tree = Vec::with_capacity(self.spans.len());
        while let Some((depth, span)) = open.pop() {
            tree.push((depth, span));
            open.extend(under(span.context.span_id()).map(|child| (depth + 1, child)));
        }
        tree
    }
}

impl Span {
    /// How long the request was in flight, if it has ended.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.end.as_ref().map(|(ended, _)| *ended - self.sent)
    }
}

fn span_id() -> SpanId {
    SpanId::from_bytes(rand::random())
}
