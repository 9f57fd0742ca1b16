//! Who inherits what: the context rules, in one place.
//!
//! Every event, in and out, is stamped with an OpenTelemetry [`SpanContext`]; an invalid one means none.
//!
//! | rule | what it says |
//! | --- | --- |
//! | 1. Copy | An outbound event that results directly from actioning an inbound event of the same operation carries the inbound event's span context. A driver that answers with the span in which it did the IO gets one trace in which each request hangs under the answer that led to it. |
//! | 2. Fall back | Where the inbound event has no valid context, or no inbound event is the cause (a timer, capacity that somebody else freed), the operation's own context is used: the one it was started with. |
//! | 3. Never leak | What operation A's event unblocks for operation B carries B's context. |
//! | 4. Detach | A side effect (a node entering the routing table, the check that it has to pass before, all other routing maintenance, and what an optimistic broadcast does after its finish) has no parent and no operation's deadline; it carries a [link](Context::Link) to its origin instead: the span of the event that led to it, if there was one. |
//! | 5. Store once | An operation stores the context it was started with, and a check or a bucket that waits its own link. No queue stores a context for anybody else. |
//!
//! All machines stamp what an operation says through this file; a refusal carries the context of its start.

use crate::id::OperationId;
use opentelemetry::trace::SpanContext;

/// How an event stands to a span. A start that is stamped with a link has no parent: what follows from it has no
/// context, except from answers that bring one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Context {
    /// The event continues this span: what the caller does for it is a child (rules 1 to 3). An invalid span
    /// context means none.
    Parent(#[cfg_attr(feature = "record", serde(with = "crate::record::span"))] SpanContext),
    /// The event is a side effect of this span: what the caller does for it is a new trace that links here
    /// (rule 4).
    Link(#[cfg_attr(feature = "record", serde(with = "crate::record::span"))] SpanContext),
}

impl Context {
    /// No context at all.
    pub const NONE: Self = Self::Parent(SpanContext::NONE);

    /// The span to be a child of: `None` for a side effect, and where the span context is invalid.
    pub fn parent(&self) -> Option<&SpanContext> {
        match self {
            Self::Parent(span) if span.is_valid() => Some(span),
            _ => None,
        }
    }

    /// The span to link to, for a side effect whose origin had a valid one.
    pub fn link(&self) -> Option<&SpanContext> {
        match self {
            Self::Link(span) if span.is_valid() => Some(span),
            _ => None,
        }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<SpanContext> for Context {
    fn from(span: SpanContext) -> Self {
        Self::Parent(span)
    }
}

/// The context that an operation stores when it is started by an event with this one: rule 5.
pub(crate) fn own(inbound: &Context) -> SpanContext {
    inbound.parent().cloned().unwrap_or(SpanContext::NONE)
}

/// The link for a side effect of an inbound event that belongs to no operation: rule 4.
pub(crate) fn detached(inbound: &Context) -> Context {
    apart(origin(inbound))
}

/// The span that a side effect of an inbound event links to.
pub(crate) const fn origin(inbound: &Context) -> &SpanContext {
    let (Context::Parent(span) | Context::Link(span)) = inbound;
    span
}

/// The context of a side effect that was begun for `own`, and that no inbound event continues: rule 4.
pub(crate) fn apart(own: &SpanContext) -> Context {
    Context::Link(own.clone())
}

/// The context of a side effect that was begun for `own`, and that the inbound event of this context, if any, continues:
/// rule 4.
pub(crate) fn aside(inbound: Option<&Context>, own: &SpanContext) -> Context {
    apart(inbound.map(origin).filter(|span| span.is_valid()).unwrap_or(own))
}

/// Why the machine is doing what it does just now: an inbound event of an operation, or none (time). `I` is how the
/// machine names its operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause<'a, I = OperationId>(Option<(I, &'a Context)>);

impl<'a, I: Copy + PartialEq> Cause<'a, I> {
    /// No inbound event is the cause.
    pub(crate) const TIME: Self = Cause(None);

    /// The inbound event of this operation, stamped with this context, is the cause.
    pub(crate) const fn event(operation: I, context: &'a Context) -> Self {
        Cause(Some((operation, context)))
    }

    /// The context of an outbound event of `operation`, which was started with `own`: rules 1, 2 and 3.
    pub(crate) fn stamp(&self, operation: I, own: &SpanContext) -> Context {
        Context::Parent(self.origin(operation, own).clone())
    }

    /// The context of a side effect of `operation`: rule 4.
    pub(crate) fn detach(&self, operation: I, own: &SpanContext) -> Context {
        apart(self.origin(operation, own))
    }

    fn origin<'b>(&self, operation: I, own: &'b SpanContext) -> &'b SpanContext
    where
        'a: 'b,
    {
        match self.0 {
            Some((cause, context)) if cause == operation => context.parent().unwrap_or(own),
            _ => own,
        }
    }
}
