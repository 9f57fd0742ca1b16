//! [`Machine`]: the interface of every state machine, and the [`Stamped`] events that it receives and emits.

use crate::context::Context;
use crate::vocabulary::time::Instant;
use core::ops::{Deref, DerefMut, RangeBounds};
use opentelemetry::trace::SpanContext;
use smallvec::SmallVec;

/// A synchronous state machine. It does no IO, reads no clock and never blocks.
///
/// To drive one: submit each event that happens, act on each event that is returned, and call again with a
/// [`Tick`](crate::coordinator::events::Inbound::Tick) at [`poll_timeout`](Machine::poll_timeout) unless another
/// event happens before.
pub trait Machine {
    /// Inbound events of the machine.
    type Inbound;
    /// Outbound events of the machine.
    type Outbound;

    /// Handles `event` at the time `now`, and appends to `out` all outbound events that follow from both, in
    /// order. One call runs to quiescence: afterwards, the machine has nothing to do before the next event or
    /// before [`poll_timeout`](Machine::poll_timeout).
    ///
    /// What was due by `now` is done [before the event](crate::deadline). A `now` that is earlier than one already
    /// seen is treated as the latest seen. Never panics.
    fn handle_into(&mut self, now: Instant, event: Stamped<Self::Inbound>, out: &mut Batch<Self::Outbound>);

    /// The earliest instant at which a tick would do something, exactly; `None` if only an event can make the
    /// machine do something. That is:
    ///
    /// * *In the future.* After a call it is later than the time of that call: who ticks at each wake-up never does so twice at one
    ///   time, and each such tick moves the wake-up on.
    /// * *Never too late.* Whatever is due at a time, a deadline above all, is due by the wake-up.
    /// * *Never too early.* A tick before it emits nothing, and leaves the wake-up where it is.
    /// * *Seldom for nothing.* A tick at it mostly emits something. It need not: a request has been slow and there is nobody to ask
    ///   instead, or a check had to wait for capacity, and its time is over. Without other events, so many wake-ups in a row may say
    ///   nothing as the machine has requests, operations and nodes in hand, twice, and four more; with [maintenance](crate::routing),
    ///   so many within the shortest time of its configuration. It does not wake up on and on.
    ///
    /// The checker of the feature `testing` holds every machine to all four.
    fn poll_timeout(&self) -> Option<Instant>;

    /// [`handle_into`](Machine::handle_into) with a new batch. A caller that uses `handle_into` with one batch,
    /// cleared between calls, saves the allocation.
    #[must_use = "what comes out must be done: requests wait to be sent"]
    fn handle(&mut self, now: Instant, event: Stamped<Self::Inbound>) -> Batch<Self::Outbound> {
        let mut out = Batch::new();
        self.handle_into(now, event, &mut out);
        out
    }
}

/// The outbound events of one call of a machine, in order. It reads as a slice, and can be iterated and drained.
///
/// A few events fit in without an allocation; how many is not part of the interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<E>(SmallVec<[Stamped<E>; 4]>);

impl<E> Batch<E> {
    /// An empty batch.
    pub fn new() -> Self {
        Self(SmallVec::new())
    }

    /// An empty batch with room for `capacity` events.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(SmallVec::with_capacity(capacity))
    }

    /// Appends an event.
    #[inline]
    pub fn push(&mut self, event: Stamped<E>) {
        self.0.push(event);
    }

    /// Removes all events, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the events of a range, and returns them in order. The memory is kept.
    ///
    /// # Panics
    /// As [`Vec::drain`] does: if the range begins after its end, or ends beyond the last event.
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> impl Iterator<Item = Stamped<E>> {
        self.0.drain(range)
    }
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Deref for Batch<E> {
    type Target = [Stamped<E>];

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<E> DerefMut for Batch<E> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<E> Extend<Stamped<E>> for Batch<E> {
    fn extend<I: IntoIterator<Item = Stamped<E>>>(&mut self, events: I) {
        self.0.extend(events);
    }
}

impl<E> FromIterator<Stamped<E>> for Batch<E> {
    fn from_iter<I: IntoIterator<Item = Stamped<E>>>(events: I) -> Self {
        Self(events.into_iter().collect())
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = Stamped<E>;
    type IntoIter = IntoIter<E>;

    fn into_iter(self) -> IntoIter<E> {
        IntoIter(self.0.into_iter())
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a Stamped<E>;
    type IntoIter = core::slice::Iter<'a, Stamped<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The events of a [`Batch`], by value.
#[derive(Debug)]
pub struct IntoIter<E>(smallvec::IntoIter<[Stamped<E>; 4]>);

impl<E> Iterator for IntoIter<E> {
    type Item = Stamped<E>;

    fn next(&mut self) -> Option<Stamped<E>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<E> ExactSizeIterator for IntoIter<E> {}

impl<E> DoubleEndedIterator for IntoIter<E> {
    fn next_back(&mut self) -> Option<Stamped<E>> {
        self.0.next_back()
    }
}

/// An event with its metadata: its span context and its deadline.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamped<E> {
    /// The event: what has happened (inbound), or what the driver is to do or to know (outbound).
    pub event: E,
    /// The span that it belongs to or links to; see [the context rules](crate::context).
    pub context: Context,
    /// Inbound: the deadline that a start asks for; it has no meaning on other events. Outbound: on a request, the
    /// instant from which its answer is late; on every other event the deadline of the operation. `None` where
    /// there is no deadline: on refusals, and on side effects other than requests. See
    /// [the deadline rules](crate::deadline).
    pub deadline: Option<Instant>,
}

impl<E> Stamped<E> {
    /// An event without a context and without a deadline.
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
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<E> From<E> for Stamped<E> {
    fn from(event: E) -> Self {
        Self::new(event)
    }
}
