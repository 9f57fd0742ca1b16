//! [`CallContext`]: the state of one call of a machine, passed to all its parts.

use crate::context::{Cause, Context};
use crate::requests::purpose::{CheckRef, Purpose};
use crate::requests::request_queue::RequestQueue;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::{Batch, Stamped};
use crate::vocabulary::time::Instant;

/// The time, the cause, the request queue and the output of one call.
///
/// A machine makes it at the beginning of `handle_into` and passes it to its parts. It is never stored.
pub(crate) struct CallContext<'a, F: Family, E> {
    /// The time of the call; it never runs backwards from one call to the next.
    pub(crate) now: Instant,
    /// The inbound event that the machine handles at the moment, if it belongs to an operation (context rules 1 to
    /// 3).
    pub(crate) cause: OperationCause<'a>,
    /// The queue that all requests of the machine go through.
    pub(crate) requests: &'a mut RequestQueue<F, Purpose>,
    /// The outbound events of the call so far.
    pub(crate) out: &'a mut Batch<E>,
}

/// The cause of an outbound event, for machines with operations.
pub(crate) type OperationCause<'a> = Cause<'a, OperationId>;

impl<F: Family, E> CallContext<'_, F, E> {
    /// The liveness check that a request belongs to; `None` for a request of an operation and for an unknown id.
    pub(crate) fn check(&self, id: RequestId) -> Option<CheckRef> {
        self.requests.get(id)?.purpose.check()
    }

    /// Emits an event of a side effect (context rule 4): its context is a link, and it has no deadline.
    pub(crate) fn emit_detached(&mut self, event: impl Into<E>, context: Context) {
        self.out.push(Stamped { event: event.into(), context, deadline: None });
    }
}
