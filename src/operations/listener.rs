//! [`Listener`]: requests of a lookup that has ended by itself, whose answers are still listened to.
//!
//! A lookup ends when it has what it wants, while slow nodes have not answered yet. If their answers were not listened
//! to, only quick answers would be observed, and [patience](crate::requests) would grow ever shorter. So these requests
//! go on as side effects (context rule 4): they have a link to the lookup and their own deadlines, and take no place in
//! flight. An answer teaches the routing table and the model of round trips; a time-out is a failure of the node.

use crate::context::Context;
use crate::requests::call_context::{CallContext, OperationCause};
use crate::requests::in_flight_table::RequestList;
use crate::requests::purpose::Purpose;
use crate::requests::request_queue::{Ending, PendingRequest};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::{Cancel, CancelReason, Initiator};
use opentelemetry::trace::SpanContext;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// The operation that has ended.
    pub(crate) operation: OperationId,
    /// The initiator of its requests from now on.
    initiator: Initiator,
    /// The span context that it was started with.
    context: SpanContext,
    pub(crate) requests: RequestList,
    /// How many requests there are.
    pub(crate) waits_for: u32,
}

impl Listener {
    pub(crate) fn new(operation: OperationId, initiator: Initiator, context: &SpanContext) -> Self {
        // Nothing of a caller's operation comes after its finish.
        let initiator = if initiator.operation().is_some() { Initiator::Background } else { initiator };
        Self { operation, initiator, context: context.clone(), requests: RequestList::EMPTY, waits_for: 0 }
    }

    /// The context of the side effects that follow (context rule 4).
    pub(crate) fn context(&self, cause: &OperationCause<'_>) -> Context {
        cause.detach(self.operation, &self.context)
    }

    /// Ends a request, and emits its cancel if it was not answered by its node.
    pub(crate) fn end<F: Family, E: From<Cancel<F>>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        ending: Ending,
    ) -> Option<PendingRequest<F, Purpose>> {
        let request = call.requests.close(&mut self.requests, id, call.arrived, ending)?;
        self.waits_for -= 1;
        let reason = match ending {
            Ending::TimedOut => Some(CancelReason::TimedOut),
            Ending::Incomplete => Some(CancelReason::Incomplete),
            Ending::Cancelled => Some(CancelReason::OperationEnded),
            Ending::Answered | Ending::Failed => None,
        };
        if let Some(reason) = reason {
            let cancel = Cancel { id, initiator: self.initiator, node: request.node.clone(), reason };
            let context = self.context(&call.cause);
            call.out.push(Stamped { event: cancel.into(), context, deadline: None });
        }
        Some(request)
    }
}
