//! [`Task`]: the part of an operation that differs between lookups, crawls and broadcasts: which nodes to ask, and
//! what follows from their answers.
//!
//! A task has no context, no statistics and no requests. Those belong to the
//! [operation](crate::operations::operation), which is the same for all tasks, so that the rules of contexts and
//! deadlines are implemented once.

use crate::operations::work::Work;
use crate::requests::purpose::{Attempt, NodeRef};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{Contact, OperationOutbound, OperationStats, Outcome, Progress};
use crate::vocabulary::outbound::EmitsRequests;
use crate::vocabulary::request_events::{Answer, Ask};
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// What the operation of a task has to do next.
#[derive(Clone, Debug)]
pub(crate) enum TaskStep<F: Family> {
    /// Submit a request to this node. The task counts the node as asked from now on.
    Ask {
        node_ref: NodeRef,
        node: F::Node,
        hop: u16,
        attempt: Attempt,
        /// See [`Recipient::no_soft_limit`](crate::requests::request_queue::Recipient::no_soft_limit).
        no_soft_limit: bool,
        /// The deadline of the part of the task that wants the answer; the operation's deadline may be earlier.
        until: Instant,
    },
    /// Cancel all requests of this lookup: its results are complete or no longer needed.
    Abandon { lookup: u16 },
    /// Wait for the answers of the nodes asked.
    Wait,
    /// It has nobody left to ask: give it [further nodes](Task::add_seeds) to begin with.
    Starved,
    /// Finish the operation for the caller, and go on as a side effect in the background.
    Return,
    /// End the operation.
    Done(Outcome),
}

/// The part of a finish that the operation knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperationEnd {
    pub(crate) operation: OperationId,
    pub(crate) outcome: Outcome,
    pub(crate) stats: OperationStats,
}

/// See the [module](self).
pub(crate) trait Task<F: Family>: Sized {
    /// The payload of the event that reports an ended request.
    type Progress;
    /// The payload of the last event of the operation.
    type Finish;

    /// The operation begins to run; it ends at `deadline`.
    fn begin(&mut self, now: Instant, deadline: Instant);

    /// The next step. The operation calls it until it returns neither `Ask` nor `Abandon`.
    fn next(&mut self, now: Instant) -> TaskStep<F>;

    /// After [`TaskStep::Starved`]: the key that it wants the closest nodes of, and how many of these it has been given.
    fn wants(&self) -> Option<(F::Key, usize)> {
        None
    }

    /// Further nodes to begin with, after [`TaskStep::Starved`]; if there are none, it does not starve again.
    fn add_seeds(&mut self, seeds: Vec<F::Node>) {
        let _ = seeds;
    }

    /// Reverts the last [`TaskStep::Ask`], for this node, whose request was not accepted: the node counts as not
    /// asked.
    fn take_back(&mut self, node_ref: NodeRef);

    /// Returns the target and the question of a request that is emitted now.
    fn ask(&mut self, node_ref: NodeRef, node: &F::Node) -> (F::Target, Ask<F>);

    /// The node answered, `elapsed` after the request was sent. Returns how many other requests to it are
    /// superseded.
    fn answered(
        &mut self,
        node_ref: NodeRef,
        node: &F::Node,
        elapsed: Duration,
        answer: &mut Answer<F>,
    ) -> u8;

    /// A request to the node ended without an answer, or is silent.
    fn missed(&mut self, node_ref: NodeRef, miss: NoAnswer);

    /// The node is alive and refused the request. The default treats this as a failure.
    fn rejected(&mut self, node_ref: NodeRef, why: &F::Message) {
        let _ = why;
        self.missed(node_ref, NoAnswer::Failed);
    }

    /// A request that waited was closed without being sent: its node has failed another request, or the operation
    /// ends.
    fn withdrawn(&mut self, node_ref: NodeRef);

    /// A request to the node has passed its soft limit: it no longer occupies a concurrency slot, but may still be
    /// answered. `may_repeat`: from now on the node may be asked again; then this is called a second time, unless it
    /// was so the first time.
    fn slow(&mut self, node_ref: NodeRef, may_repeat: bool);

    /// A request has waited for some time, as the node has as many in flight as are allowed: it occupies no concurrency slot until its
    /// turn comes.
    fn stands_in_line(&mut self, node_ref: NodeRef) {
        let _ = node_ref;
    }

    /// The turn of a request that waited has come. Returns `false` if it is not to be sent, as all concurrency slots are occupied
    /// meanwhile: then the node counts as not asked.
    fn takes_turn(&mut self, node_ref: NodeRef) -> bool {
        let _ = node_ref;
        true
    }

    /// What it does, before it begins.
    fn work(&self) -> Work;

    /// Whether it counts towards the limit on crawls, which take far more memory than other operations.
    fn is_crawl(&self) -> bool {
        false
    }

    /// Whether it has all that it wants before it begins, and how it ends then: it waits for no other operation.
    fn ends_at_once(&self) -> Option<Outcome> {
        None
    }

    /// Whether its slow requests are listened to after its end.
    fn listens_on(&self) -> bool {
        false
    }

    /// When [`elapse`](Task::elapse) is to be called, if that is before the operation's deadline.
    fn timer(&self) -> Option<Instant> {
        None
    }

    /// When the lookups within it end, if that is before the operation's deadline.
    fn lookup_deadline(&self) -> Option<Instant> {
        None
    }

    /// The [timer](Task::timer) is due.
    fn elapse(&mut self, now: Instant) {
        let _ = now;
    }

    /// A lookup that is over and whose requests are to be cancelled. Each lookup is returned once, either here or
    /// as [`TaskStep::Abandon`] by [`next`](Task::next).
    fn abandoned(&mut self) -> Option<u16> {
        None
    }

    /// After [`TaskStep::Return`]: goes on as a side effect that ends at `deadline`. Returns the finish of the
    /// operation, which is emitted now.
    fn enter_background(&mut self, end: OperationEnd, deadline: Instant) -> Option<Self::Finish> {
        let _ = (end, deadline);
        None
    }

    /// The maximum number of requests that the task will still need if it goes on
    /// [in the background](Task::enter_background).
    fn remaining_requests(&self) -> usize {
        0
    }

    /// Visits all nodes that the task holds, each at least once.
    fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node));

    /// Completes the progress event of a request to this node that has ended.
    fn progress(&self, progress: Progress<F>, node_ref: NodeRef) -> Self::Progress;

    /// The last event of the operation. All requests have been cancelled before.
    fn finish(self, end: OperationEnd) -> Self::Finish;

    /// The result of a lookup in its finish, for a lookup that the machine itself uses. `None` if the task is not
    /// a lookup.
    fn found(finish: &mut Self::Finish) -> Option<Found<'_, F>>;
}

/// See [`Task::found`].
pub(crate) struct Found<'a, F: Family> {
    pub(crate) target: F::Key,
    pub(crate) closest: &'a mut Vec<Contact<F>>,
}

/// How a request without an answer ended, or that it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Its patience has passed, while an answer is still accepted; it was sent at `sent`. `is_capped`: the configured maximum
    /// has shortened the patience. The message may have been lost, so the node may be asked again; `may_retry`: nearly all that
    /// are asked again answer, so once more than is configured.
    Silent { sent: Instant, is_capped: bool, may_retry: bool },
    /// It timed out, and no patience had passed before. The message may have been lost, so the node may be asked again.
    TimedOut,
    /// It timed out, and its patience had passed before.
    TimedOutSilently,
    /// It failed, was rejected, or was never sent.
    Failed,
    /// It was never sent, as its node, which answers others, was too busy.
    Busy,
}

/// The bound on the outbound events of a machine whose operations have the task `T`.
pub(crate) trait EmitsOperation<F: Family, T: Task<F>>:
    EmitsRequests<F> + From<OperationOutbound<F, T::Progress, T::Finish>>
{
}

impl<F: Family, T: Task<F>, E> EmitsOperation<F, T> for E where
    E: EmitsRequests<F> + From<OperationOutbound<F, T::Progress, T::Finish>>
{
}
