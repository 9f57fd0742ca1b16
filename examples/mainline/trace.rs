//! The record of each operation, as spans: what a tracing SDK would keep, made by hand.
//!
//! One trace per operation: a root span for it, and one span for each request. The parent of a request's span is
//! whatever the engine stamped on the request; the answer is handed in stamped with the request's own span. What comes
//! out is the causal tree: every request hangs under the answer that led to it. (Its hop tells something else: the
//! length of the chain of who first named whom.)
//!
//! What the engine stamps with a link has no parent: it is a trace of its own, of one span, that says where it comes from.

use crate::driver::{Mainline, Node};
use crate::goal::{Found, Goal};
use core::fmt;
use core::time::Duration;
use kad_proto::broadcast::BroadcastFinish;
use kad_proto::crawl::CrawlFinish;
use kad_proto::{Context, Finish, Instant, Key160, Outcome, Owner, RefusedBecause, Statistics};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::io::ErrorKind;

/// One operation: its root span, and the spans of its requests in the order in which they were sent.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) goal: Goal,
    pub(crate) target: Key160,
    pub(crate) root: SpanContext,
    /// What the root itself hangs under, where another operation led to this one.
    pub(crate) parent: Option<SpanId>,
    pub(crate) started: Instant,
    /// The deadline that the engine gave it.
    pub(crate) deadline: Option<Instant>,
    /// None of a crawl: there are too many.
    pub(crate) spans: Vec<Span>,
    /// Those of what an optimistic broadcast left to be done after its end, each a trace of its own.
    pub(crate) background: Vec<Span>,
    pub(crate) found: Found,
    /// How it ended, once it has.
    pub(crate) end: Option<End>,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Lookup(Finish<Mainline>),
    Broadcast(BroadcastFinish<Mainline>),
    Crawl(CrawlFinish<Mainline>),
    Refused(RefusedBecause),
}

impl End {
    /// Its outcome and its statistics, if it was begun at all.
    pub(crate) const fn figures(&self) -> Result<(Outcome, &Statistics), RefusedBecause> {
        match self {
            Self::Lookup(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Broadcast(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Crawl(finish) => Ok((finish.outcome, &finish.statistics)),
            Self::Refused(reason) => Err(*reason),
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) context: SpanContext,
    /// Invalid where it has none.
    pub(crate) parent: SpanId,
    /// Where it comes from, without being a part of it.
    pub(crate) link: Option<SpanContext>,
    pub(crate) owner: Owner,
    pub(crate) node: Node,
    /// The query, as the protocol calls it.
    pub(crate) asked: &'static str,
    pub(crate) hop: u32,
    pub(crate) sent: Instant,
    pub(crate) deadline: Option<Instant>,
    /// What the answer had besides nodes.
    pub(crate) had: Option<Had>,
    /// When and how it ended, once it has.
    pub(crate) end: Option<(Instant, Ending)>,
}

/// What an answer had besides nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Had {
    Item,
    /// An item that is not the one that was asked for.
    OtherItem,
    /// So many that may be reached.
    Peers(usize),
}

impl fmt::Display for Had {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item => f.write_str("the item"),
            Self::OtherItem => f.write_str("another item than that asked for"),
            Self::Peers(1) => f.write_str("1 peer"),
            Self::Peers(peers) => write!(f, "{peers} peers"),
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The node answered, and named this many nodes.
    Answered(usize),
    /// The node has stored it.
    Stored,
    Failed(Failure),
    /// It ran into its own timeout.
    TimedOut,
    /// It was given up because the operation, or its lookup, ended.
    Cancelled,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered(_) => "answered",
            Self::Stored => "stored",
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
    /// The node has given us no token to store with it by.
    NoToken,
    /// The datagram could not be sent.
    Unsendable(ErrorKind),
    /// The engine asks for something that this driver does not know.
    Unknown,
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
            Self::NoToken => f.write_str("it gave no token"),
            Self::Unknown => f.write_str("not sent: unknown"),
            Self::Unsendable(kind) => write!(f, "not sent: {kind}"),
        }
    }
}

impl Operation {
    /// An operation that begins now, with a trace of its own, or as a part of that of another.
    pub(crate) fn new(goal: Goal, target: Key160, started: Instant, under: Option<&SpanContext>) -> Self {
        Self {
            goal,
            target,
            root: under.map_or_else(root, child),
            parent: under.map(SpanContext::span_id),
            started,
            deadline: None,
            spans: Vec::new(),
            background: Vec::new(),
            found: Found::default(),
            end: None,
        }
    }

    /// Whether what links to this span was led to by this operation.
    pub(crate) fn led_to(&self, link: &SpanContext) -> bool {
        let mut traces = self.background.iter().map(|span| span.context.trace_id());
        self.root.trace_id() == link.trace_id() || traces.any(|trace| trace == link.trace_id())
    }

    /// Whether there is nothing more to come of it.
    pub(crate) fn is_over(&self) -> bool {
        let mut spans = self.spans.iter().chain(&self.background);
        self.end.is_some() && spans.all(|span| span.end.is_some())
    }

    /// The spans as a tree: each with its depth, parents before their children. The root's children have depth 1; a
    /// span whose parent is not in this operation, which the engine rules out, would have depth 0.
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
    /// That of a request that is sent now: under the span that the engine stamped on it, or with a link to it.
    pub(crate) fn new(
        stamp: &Context,
        (owner, node, hop): (Owner, Node, u32),
        asked: &'static str,
        (sent, deadline): (Instant, Option<Instant>),
    ) -> Self {
        let parent = stamp.parent();
        Self {
            context: parent.map_or_else(root, child),
            parent: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            link: stamp.link().cloned(),
            owner,
            node,
            asked,
            hop,
            sent,
            deadline,
            had: None,
            end: None,
        }
    }

    /// How long the request was in flight, if it has ended.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.end.as_ref().map(|(ended, _)| *ended - self.sent)
    }
}

/// The first span of a trace.
pub(crate) fn root() -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(rand::random()),
        span_id(),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

/// A span under this one.
fn child(parent: &SpanContext) -> SpanContext {
    let (trace, flags, state) = (parent.trace_id(), parent.trace_flags(), parent.trace_state().clone());
    SpanContext::new(trace, span_id(), flags, false, state)
}

fn span_id() -> SpanId {
    SpanId::from_bytes(rand::random())
}
