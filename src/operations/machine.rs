//! [`OperationMachine`]: a machine with operations of one kind and its own request queue.
//!
//! [`QueryPool`](crate::QueryPool), [`BroadcastPool`](crate::BroadcastPool) and [`Crawl`](crate::Crawl) are such
//! machines. They differ only in their tasks and in how an operation starts.

use crate::context::Cause;
use crate::deadline::MonotonicClock;
use crate::operations::pool::OperationPool;
use crate::operations::task::Task;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{Purpose, ReleasedCheck};
use crate::requests::request_queue::RequestQueue;
use crate::requests::stats::RequestStats;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::{Batch, Stamped};
use crate::vocabulary::operation_events::{OperationInbound, OperationOutbound};
use crate::vocabulary::time::{Instant, earlier};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct OperationMachine<F: Family, T> {
    clock: MonotonicClock,
    requests: RequestQueue<F, Purpose>,
    operations: OperationPool<F, T>,
}

/// The outbound events of the machine.
type Outbound<F, T> = OperationOutbound<F, <T as Task<F>>::Progress, <T as Task<F>>::Finish>;

impl<F: Family, T: Task<F>> OperationMachine<F, T> {
    pub(crate) fn new(requests: RequestQueue<F, Purpose>, operations: OperationPool<F, T>) -> Self {
        Self { clock: MonotonicClock::default(), requests, operations }
    }

    /// Handles one event: the implementation of [`Machine::handle_into`](crate::Machine::handle_into). Everything
    /// that was due by `now`, and what follows from that, is done first. `start` accepts or refuses the start of
    /// an operation.
    pub(crate) fn handle_into<S>(
        &mut self,
        now: Instant,
        event: Stamped<OperationInbound<F, S>>,
        out: &mut Batch<Outbound<F, T>>,
        start: impl FnOnce(&mut OperationPool<F, T>, &mut CallContext<'_, F, Outbound<F, T>>, Stamped<S>),
    ) {
        let Self { clock, requests, operations } = self;
        let Stamped { event, context, deadline } = event;
        let mut call = CallContext::new(clock.advance(now), requests, out);
        if operations.elapse_all(&mut call) {
            // This machine has no liveness checks, so none is released.
            let _: Option<ReleasedCheck> = operations.settle(&mut call);
        }
        match event {
            OperationInbound::Start(event) => {
                start(operations, &mut call, Stamped { event, context: context.clone(), deadline });
            }
            OperationInbound::Stop(id) => {
                call.cause = Cause::event(id, &context);
                operations.stop(&mut call, id);
            }
            OperationInbound::Response(response) => operations.respond(&mut call, response, &context),
            OperationInbound::Tick => {}
        }
        let _: Option<ReleasedCheck> = operations.settle(&mut call);
        // This machine does not use the results of lookups.
        while operations.take_ended().is_some() {}
    }

    /// The implementation of [`Machine::poll_timeout`](crate::Machine::poll_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.operations.next_deadline(), self.requests.next_timeout())
    }

    /// Sets the value of the family.
    pub(crate) fn set_family(&mut self, family: F) {
        let mut local = self.operations.local().clone();
        local.family = family;
        self.operations.set_local(local);
    }

    pub(crate) fn request_stats(&self) -> RequestStats {
        self.requests.stats()
    }

    /// The live operation that was started with this tag.
    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.operations.operation(tag)
    }

    /// The number of live operations, and how many of them run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.operations.counts()
    }
}
