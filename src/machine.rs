//! What every machine is: [`Machine`], and the [`Stamped`] events that go in and come out.

use crate::context::Context;
use crate::time::Instant;
use opentelemetry::trace::SpanContext;
use smallvec::SmallVec;

/// A synchronous state machine. It does no IO, reads no clock and never waits.
///
/// The whole of driving one: hand in what happened, do what comes out, and call again with a
/// [`Tick`](crate::coordinator::Inbound::Tick) at [`poll_timeout`](Machine::poll_timeout) unless something else
/// happens before.
pub trait Machine {
    /// What the machine is told.
    type Inbound;
    /// What the machine says.
    type Outbound;

    /// Tells the machine that it is `now` and that `event` happened, and appends to `out` everything that
    /// follows from both. One call runs to quiescence: nothing is left for later except what waits for an event
    /// or for time.
    ///
    /// A `now` earlier than one already seen is treated as the latest seen. Never panics.
    fn handle_into(&mut self, now: Instant, event: Stamped<Self::Inbound>, out: &mut Batch<Self::Outbound>);

    /// The earliest instant at which a call without news would do something, exactly; `None` where only an
    /// event can wake the machine.
    fn poll_timeout(&self) -> Option<Instant>;

    /// [`handle_into`](Machine::handle_into) with a batch of its own. A caller that keeps a batch and clears it
    /// between calls allocates nothing.
    #[must_use = "what comes out must be done: requests wait to be sent"]
    fn handle(&mut self, now: Instant, event: Stamped<Self::Inbound>) -> Batch<Self::Outbound> {
        let mut out = Batch::new();
        self.handle_into(now, event, &mut out);
        out
    }
}

/// What one call of a machine says, in order.
pub type Batch<E> = SmallVec<[Stamped<E>; 4]>;

/// An event with its metadata: how it stands to a span, and until when it matters.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamped<E> {
    /// What happened, or is to be done.
    pub event: E,
    /// The span it belongs to; see [the context rules](crate::context).
    pub context: Context,
    /// Inbound: the deadline that a start asks for; without meaning on other events. Outbound: for a request the
    /// instant at which its answer is late, for everything else the deadline of the operation. `None` where
    /// there is none: refusals and side effects.
    pub deadline: Option<Instant>,
}

impl<E> Stamped<E> {
    /// An event without context and deadline.
    pub const fn new(event: E) -> Self {
        Self { event, context: Context::NONE, deadline: None }
    }

    /// The same event within this span.
    #[must_use]
    pub fn in_span(mut self, span: SpanContext) -> Self {
        self.context = Context::Parent(span);
        self
    }

    /// The same event with this deadline.
    #[must_use]
    pub fn by(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<E> From<E> for Stamped<E> {
    fn from(event: E) -> Self {
        Self::new(event)
    }
}
