//! The context rules: which span context each outbound event carries.
//!
//! Every event, inbound and outbound, is stamped with a [`Context`] that holds an OpenTelemetry [`SpanContext`];
//! an invalid span context means none.
//!
//! | rule | definition |
//! | --- | --- |
//! | 1. Copy | An outbound event that results directly from an inbound event of the same operation carries the span context of that inbound event. If the driver stamps each answer with the span in which it did the IO, it gets one trace in which each request is a child of the answer that led to it. |
//! | 2. Fall back | If the inbound event has no valid context, or if no inbound event of the operation is the cause (a timer, or capacity that another operation released), the outbound event carries the operation's own context: the one that the operation was started with. |
//! | 3. Never leak | If an event of operation A lets operation B go on (by releasing capacity, for example), the outbound events of B carry B's own context, never A's. |
//! | 4. Detach | A side effect has no parent span and no operation's deadline. Instead it carries a [link](Context::Link) to its origin: the span of the event that led to it, if there was one. Side effects are: a node's entry into the routing table, the liveness check before that entry, all other routing maintenance, and the requests of an optimistic broadcast after its finish. |
//! | 5. Store once | An operation stores the context that it was started with; a check that waits and a bucket that waits for its refresh each store their own link. No queue stores a context on behalf of another. |
//!
//! All machines stamp the outbound events of operations by the functions of this file. A refusal carries the
//! context of its start.

#[cfg(feature = "record")]
mod span_serde;

use opentelemetry::trace::SpanContext;

/// The relation of an event to a span: child or link. See the [rules](self).
///
/// A start that is stamped with a link has no parent, so its operation stores no context: the events that follow
/// carry none, except those that follow from an answer which is stamped with a context itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Context {
    /// The event belongs to this span: a span that the caller begins for the event is a child of it (rules 1 to
    /// 3). An invalid span context means none.
    Parent(#[cfg_attr(feature = "record", serde(with = "span_serde"))] SpanContext),
    /// The event is a side effect of this span: a span that the caller begins for the event is the root of a new
    /// trace, with a link to this one (rule 4).
    Link(#[cfg_attr(feature = "record", serde(with = "span_serde"))] SpanContext),
}

impl Context {
    /// No context: a parent whose span context is invalid.
    pub const NONE: Self = Self::Parent(SpanContext::NONE);

    /// The parent span. `None` for a side effect, and where the span context is invalid.
    pub fn parent(&self) -> Option<&SpanContext> {
        match self {
            Self::Parent(span) if span.is_valid() => Some(span),
            _ => None,
        }
    }

    /// The span that a side effect links to. `None` for an event with a parent, and where the span context is
    /// invalid.
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

/// The span context that an operation stores, given the context of its start (rule 5): that of the parent, or
/// none.
pub(crate) fn stored(inbound: &Context) -> SpanContext {
    inbound.parent().cloned().unwrap_or(SpanContext::NONE)
}

/// The context of a side effect of an inbound event that belongs to no operation (rule 4): a link to the event's
/// span.
pub(crate) fn detached(inbound: &Context) -> Context {
    linked(source(inbound))
}

/// The span that a side effect of an inbound event links to (rule 4), whether the event is a child of it or links
/// to it.
pub(crate) const fn source(inbound: &Context) -> &SpanContext {
    let (Context::Parent(span) | Context::Link(span)) = inbound;
    span
}

/// The context of a side effect that began for the span `own` and goes on without an inbound event (rule 4): a
/// link to `own`.
pub(crate) fn linked(own: &SpanContext) -> Context {
    Context::Link(own.clone())
}

/// The context of a side effect that began for the span `own` and may go on because of an inbound event (rule 4):
/// a link to the span of the inbound event, or to `own` if there is no such event or it has no valid span.
pub(crate) fn continued(inbound: Option<&Context>, own: &SpanContext) -> Context {
    linked(inbound.map(source).filter(|span| span.is_valid()).unwrap_or(own))
}

/// The cause of what the machine does at the moment: an inbound event of one operation, or no inbound event (time
/// passed, capacity was released). `I` is the machine's type of operation ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause<'a, I>(Option<(I, &'a Context)>);

impl<'a, I: Copy + PartialEq> Cause<'a, I> {
    /// No inbound event is the cause.
    pub(crate) const TIME: Self = Cause(None);

    /// The cause is an inbound event of this operation, stamped with this context.
    pub(crate) const fn event(operation: I, context: &'a Context) -> Self {
        Cause(Some((operation, context)))
    }

    /// The context of an outbound event of `operation`, which was started with the context `own` (rules 1, 2 and
    /// 3).
    pub(crate) fn stamp(&self, operation: I, own: &SpanContext) -> Context {
        Context::Parent(self.origin(operation, own).clone())
    }

    /// The context of a side effect of `operation`, which was started with the context `own` (rule 4).
    pub(crate) fn detach(&self, operation: I, own: &SpanContext) -> Context {
        linked(self.origin(operation, own))
    }

    /// The span of the cause where it is an event of this operation with a valid parent; else `own`.
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
