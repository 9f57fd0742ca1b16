//! One call of a machine, as the parts in it see it.

use crate::check::Check;
use crate::context::Cause;
use crate::family::Family;
use crate::id::RequestId;
use crate::machine::Batch;
use crate::operation::Asked;
use crate::outbox::Outbox;
use crate::time::Instant;

/// What a call is about: the time, why it happens, the one way out for requests, and what is said.
pub(crate) struct Turn<'a, F: Family, E> {
    pub(crate) now: Instant,
    pub(crate) cause: Cause<'a>,
    pub(crate) outbox: &'a mut Outbox<F, Work>,
    pub(crate) out: &'a mut Batch<E>,
}

impl<F: Family, E> Turn<'_, F, E> {
    /// The check that a request is for.
    pub(crate) fn check(&self, id: RequestId) -> Option<Check> {
        match self.outbox.get(id)?.work {
            Work::Check(check) => Some(check),
            Work::Operation(_) => None,
        }
    }

    /// Lets go the checks that waited and have room now, where there are no operations.
    pub(crate) fn release(&mut self, mut send: impl FnMut(&mut Self, Check, RequestId, Instant)) {
        while let Some((id, deadline)) = self.outbox.release(self.now) {
            if let Some(check) = self.check(id) {
                send(self, check, id, deadline);
            }
        }
    }
}

/// What the sender of a request wants to know again when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Operation(Asked),
    Check(Check),
}

impl Work {
    /// Of an operation's request.
    pub(crate) const fn operation(&self) -> Option<&Asked> {
        match self {
            Self::Operation(asked) => Some(asked),
            Self::Check(_) => None,
        }
    }
}
