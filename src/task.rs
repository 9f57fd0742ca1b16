//! What an operation does: whom it asks, and what it makes of the answers.
//!
//! A [`Task`] knows no context, no statistics and no requests: those are the [operation's](crate::operation), which is the
//! same for all of them. So a lookup, a crawl and a broadcast each keep the rules of contexts and deadlines by one piece of
//! code.

use crate::event::{Answer, Ask, Contact, Outcome, Progress, Statistics};
use crate::family::Family;
use crate::id::OperationId;
use crate::lookup::{Miss, Spot};
use crate::time::Instant;
use core::time::Duration;

/// What a request is for, as its task knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Of a lookup of the task; most have one, of number 0.
    Lookup { number: u16, spot: Spot },
    /// Of a crawl, in which nodes are numbered.
    Crawl(u32),
    /// To store something, with a node by its number in the broadcast.
    Store(u32),
}

impl Place {
    /// Whether both are the same node of the same part of the task.
    pub(crate) const fn is_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Lookup { number, spot }, Self::Lookup { number: same, spot: other }) => {
                number == same && spot.is_of(other)
            }
            (Self::Crawl(node), Self::Crawl(other)) | (Self::Store(node), Self::Store(other)) => {
                node == other
            }
            _ => false,
        }
    }

    /// The lookup, where it is one's.
    pub(crate) const fn lookup(self) -> Option<u16> {
        match self {
            Self::Lookup { number, .. } => Some(number),
            _ => None,
        }
    }
}

/// What a task wants.
#[derive(Clone, Debug)]
pub(crate) enum Next<F: Family> {
    /// Ask this node; it counts as asked now.
    Ask {
        place: Place,
        node: F::Node,
        hop: u16,
        /// An earlier request to it is still listened to.
        again: bool,
        /// Nothing happens at the soft limit, and silence says nothing of others.
        patient: bool,
        /// The answer is of no use later than this, nor after the operation's deadline.
        until: Instant,
    },
    /// Give up all requests of this lookup: what it still could find is not needed.
    Abandon { lookup: u16 },
    /// Wait for those asked.
    Wait,
    /// What was asked for is done; the rest goes on as a side effect.
    Return,
    /// It is over.
    Done(Outcome),
}

/// What an operation knows of its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) operation: OperationId,
    pub(crate) outcome: Outcome,
    pub(crate) statistics: Statistics,
}

/// See the [module](self).
pub(crate) trait Task<F: Family>: Sized {
    /// What is said when a request has ended.
    type Progress;
    /// What is said in the end.
    type Finish;

    /// Takes its turn, of an operation that ends at the deadline.
    fn begin(&mut self, now: Instant, deadline: Instant);

    /// What to do now. To be called until it says neither `Ask` nor `Abandon`.
    fn next(&mut self, now: Instant) -> Next<F>;

    /// Takes back a [`Next::Ask`] that could not be carried out, as if it had not been said.
    fn take_back(&mut self, place: Place);

    /// The node is asked now: what, and about which key.
    fn ask(&mut self, place: Place, node: &F::Node) -> (F::Key, Ask<F>);

    /// The node answered after this time. Says how many other requests to it are superseded.
    fn answered(&mut self, place: Place, node: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8;

    /// A request to the node ended without an answer.
    fn missed(&mut self, place: Place, miss: Miss);

    /// The node lives, and refused.
    fn rejected(&mut self, place: Place, why: &F::Message) {
        let _ = why;
        self.missed(place, Miss::Failed);
    }

    /// A request that waited was not sent: its node has failed by another one, or its operation ends.
    fn withdrawn(&mut self, place: Place);

    /// A request to the node is slow: it no longer occupies a slot, but may still be answered.
    fn slow(&mut self, place: Place);

    /// Whether it counts towards the bound of crawls, which take far more memory than others.
    fn is_crawl(&self) -> bool {
        false
    }

    /// When [`elapse`](Task::elapse) is to be called, where that is before the operation's deadline.
    fn timer(&self) -> Option<Instant> {
        None
    }

    /// The time of the timer has come.
    fn elapse(&mut self, now: Instant) {
        let _ = now;
    }

    /// A lookup that is over, and whose requests are to be given up: each once, here or by [`next`](Task::next).
    fn abandoned(&mut self) -> Option<u16> {
        None
    }

    /// The rest goes on as a side effect that ends at this deadline. Says what the operation did.
    fn detach(&mut self, end: End, deadline: Instant) -> Option<Self::Finish> {
        let _ = (end, deadline);
        None
    }

    /// How many requests a task may make at most as a side effect, once it has been [detached](Task::detach).
    fn rest(&self) -> usize {
        0
    }

    /// What is said of a request that has ended.
    fn progress(&self, progress: Progress<F>, place: Place) -> Self::Progress;

    /// The last word. All requests have been given up.
    fn finish(self, end: End) -> Self::Finish;

    /// What a lookup found: of one that somebody inside waits for.
    fn found(finish: &mut Self::Finish) -> Option<Found<'_, F>>;
}

/// See [`Task::found`].
pub(crate) struct Found<'a, F: Family> {
    pub(crate) target: F::Key,
    pub(crate) closest: &'a mut Vec<Contact<F>>,
}
