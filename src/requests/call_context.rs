//! [`CallContext`]: the state of one call of a machine, passed to all its parts.

use crate::context::{Cause, Context};
use crate::requests::purpose::{CheckRef, Purpose};
use crate::requests::request_queue::{PendingRequest, RequestQueue};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::{Batch, Stamped};
use crate::vocabulary::request_events::Response;
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// The time, the cause, the request queue and the output of one call.
///
/// A machine makes it at the beginning of `handle_into` and passes it to its parts. It is never stored.
pub(crate) struct CallContext<'a, F: Family, E> {
    /// The time of the call; it never runs backwards from one call to the next.
    pub(crate) now: Instant,
    /// The inbound event that the machine handles at the moment, if it belongs to an operation (context rules 1 to
    /// 3).
    pub(crate) cause: OperationCause<'a>,
    /// When the response that the machine handles arrived: `now`, unless it waited in the driver's queue.
    pub(crate) arrived: Instant,
    /// The response took the time of making a connection too.
    pub(crate) dialed: bool,
    /// The queue that all requests of the machine go through.
    pub(crate) requests: &'a mut RequestQueue<F, Purpose>,
    /// The outbound events of the call so far.
    pub(crate) out: &'a mut Batch<E>,
}

/// The cause of an outbound event, for machines with operations.
pub(crate) type OperationCause<'a> = Cause<'a, OperationId>;

impl<'a, F: Family, E> CallContext<'a, F, E> {
    /// The state at the beginning of a call.
    pub(crate) fn new(
        now: Instant,
        requests: &'a mut RequestQueue<F, Purpose>,
        out: &'a mut Batch<E>,
    ) -> Self {
        Self { now, cause: Cause::TIME, arrived: now, dialed: false, requests, out }
    }

    /// The machine handles this response from now on.
    pub(crate) fn receive(&mut self, response: &Response<F>) {
        self.arrived = response.arrived.min(self.now);
        self.dialed = response.dialed;
    }

    /// The time from a request to the response that is handled.
    pub(crate) fn elapsed(&self, request: &PendingRequest<F, Purpose>) -> Duration {
        request.elapsed(self.arrived)
    }

    /// The round trip of the node that has answered a request, if the response measures one.
    pub(crate) fn round_trip(&self, request: &PendingRequest<F, Purpose>) -> Option<Duration> {
        (!self.dialed && !request.was_dialed()).then(|| self.elapsed(request))
    }

    /// The liveness check that a request belongs to; `None` for a request of an operation and for an unknown id.
    pub(crate) fn check(&self, id: RequestId) -> Option<CheckRef> {
        self.requests.get(id)?.purpose.check()
    }

    /// Emits an event of a side effect (context rule 4): its context is a link, and it has no deadline.
    pub(crate) fn emit_detached(&mut self, event: impl Into<E>, context: Context) {
        self.out.push(Stamped { event: event.into(), context, deadline: None });
    }
}
