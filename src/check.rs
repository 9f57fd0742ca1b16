//! Whether a node lives: it is asked for the nodes closest to itself. What include and probe have in common.

use crate::event::{Ask, Asks, Cancel, GivenUp, Owner, Request};
use crate::family::Family;
use crate::id::RequestId;
use crate::inflight::Owned;
use crate::machine::Stamped;
use crate::outbox::{self, Ending, Submitted, To};
use crate::time::Instant;
use crate::turn::{Turn, Work};
use crate::{context, deadline};
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// What a check wants to know again when its request ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) owner: Owner,
    /// Where its owner keeps the node.
    pub(crate) slot: u32,
}

/// The checks of one owner that are under way.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    owner: Owner,
    timeout: Duration,
    most: usize,
    under_way: usize,
    owned: Owned,
    /// A request was not taken: to be tried again when something has happened.
    blocked: bool,
}

impl Checks {
    pub(crate) const fn new(owner: Owner, timeout: Duration, most: usize) -> Self {
        Self { owner, timeout, most, under_way: 0, owned: Owned::NOTHING, blocked: false }
    }

    /// Whether one more check can be tried.
    pub(crate) const fn is_free(&self) -> bool {
        self.under_way < self.most && !self.blocked
    }

    /// Something has happened: what was not taken may be now.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    pub(crate) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Begins the check of a node, if its request is taken.
    pub(crate) fn begin<F: Family, E: Asks<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        slot: u32,
        node: &F::Node,
        origin: &SpanContext,
    ) -> Option<RequestId> {
        let to = To { node: node.clone(), again: false, patient: true };
        let work = Work::Check(Check { owner: self.owner, slot });
        let until = deadline::of_operation(turn.now, None, self.timeout);
        let submitted = until.map(|until| turn.outbox.submit(turn.now, &mut self.owned, until, to, work));
        let Some(Ok(submitted)) = submitted else {
            self.blocked = true;
            return None;
        };
        self.under_way += 1;
        Some(match submitted {
            Submitted::Sent(id, deadline) => {
                self.send(turn, id, deadline, origin);
                id
            }
            Submitted::Queued(id) => id,
        })
    }

    /// Emits a request that the outbox let go.
    pub(crate) fn send<F: Family, E: Asks<F>>(
        &self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        deadline: Instant,
        origin: &SpanContext,
    ) {
        let Some(node) = turn.outbox.get(id).map(|request| request.node.clone()) else { return };
        let target = F::key(&node);
        let request = Request { id, owner: self.owner, node, target, ask: Ask::FindCloser, hop: 1 };
        let context = context::apart(origin);
        turn.out.push(Stamped { event: request.into(), context, deadline: Some(deadline) });
    }

    /// Ends a check. Where its request was given up, says so.
    pub(crate) fn end<F: Family, E: Asks<F>>(
        &mut self,
        turn: &mut Turn<'_, F, E>,
        id: RequestId,
        ending: Ending,
        origin: &SpanContext,
    ) -> Option<outbox::Request<F, Work>> {
        let request = turn.outbox.close(&mut self.owned, id, turn.now, ending)?;
        self.under_way -= 1;
        let reason = match ending {
            Ending::TimedOut => Some(GivenUp::TimedOut),
            Ending::Cancelled => Some(GivenUp::Unneeded),
            Ending::Answered | Ending::Failed => None,
        };
        if let Some(reason) = reason.filter(|_| request.is_emitted()) {
            let cancel = Cancel { id, owner: self.owner, node: request.node.clone(), reason };
            let context = context::apart(origin);
            turn.out.push(Stamped { event: cancel.into(), context, deadline: None });
        }
        Some(request)
    }
}
