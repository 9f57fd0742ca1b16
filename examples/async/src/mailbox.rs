//! [`Mailbox`]: what the event loop has for the caller of one operation.

use crate::wire::Wire;
use core::fmt;
use core::task::{Context, Poll, Waker};
use kad_proto::broadcast::{BroadcastFinish, BroadcastProgress};
use kad_proto::crawl::{CrawlFinish, CrawlProgress};
use kad_proto::{Finish, Progress, RefusalReason};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a call has no result at all. (An operation that ended early has one: a finish that says so.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The engine did not accept the start.
    Refused(RefusalReason),
    /// The node was [shut down](crate::Dht::shutdown), or its [future](crate::Node::run) was dropped.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "the operation was refused: {reason}"),
            Self::Closed => f.write_str("the node was shut down"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Closed => None,
        }
    }
}

/// Something that an operation has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<W: Wire, T> {
    /// What it is.
    pub item: T,
    /// Whose answer it was in; `None` if it was in the own store.
    pub from: Option<W::Node>,
}

/// What is delivered while an operation runs.
#[derive(Debug)]
pub enum Item<W: Wire> {
    Lookup(Progress<W>),
    Broadcast(BroadcastProgress<W>),
    Crawl(CrawlProgress<W>),
    Value(Found<W, W::Value>),
    Provider(Found<W, W::Provider>),
}

/// The finish of an operation.
#[derive(Debug)]
pub enum End<W: Wire> {
    Lookup(Finish<W>),
    Broadcast(BroadcastFinish<W>),
    Crawl(CrawlFinish<W>),
}

#[derive(Debug)]
struct Contents<W: Wire> {
    items: VecDeque<Item<W>>,
    missed: u64,
    end: Option<Result<End<W>, Error>>,
    has_ended: bool,
    reader: Option<Waker>,
}

/// What the event loop has for the caller of one operation. It is bounded, and never waits for the caller.
#[derive(Debug)]
pub(crate) struct Mailbox<W: Wire> {
    contents: Mutex<Contents<W>>,
    capacity: usize,
}

impl<W: Wire> Mailbox<W> {
    pub(crate) fn new(capacity: usize) -> Self {
        let contents =
            Contents { items: VecDeque::new(), missed: 0, end: None, has_ended: false, reader: None };
        Self { contents: Mutex::new(contents), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, Contents<W>> {
        // No code of others runs while it is held.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Item<W>) {
        let mut contents = self.lock();
        if contents.items.len() >= self.capacity {
            contents.missed += 1;
            return;
        }
        contents.items.push_back(item);
        let reader = contents.reader.take();
        drop(contents);
        reader.into_iter().for_each(Waker::wake);
    }

    fn end(&self, end: Result<End<W>, Error>) {
        let mut contents = self.lock();
        if contents.has_ended {
            return;
        }
        (contents.end, contents.has_ended) = (Some(end), true);
        let reader = contents.reader.take();
        drop(contents);
        reader.into_iter().for_each(Waker::wake);
    }

    /// How many items there was no room for.
    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// The next item; `None` after the last.
    pub(crate) fn poll_item(&self, cx: &mut Context<'_>) -> Poll<Option<Item<W>>> {
        let mut contents = self.lock();
        match contents.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if contents.has_ended => Poll::Ready(None),
            None => {
                contents.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The finish, once.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<End<W>, Error>> {
        let mut contents = self.lock();
        if contents.has_ended {
            return Poll::Ready(contents.end.take().unwrap_or(Err(Error::Closed)));
        }
        contents.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the caller of an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Nothing but the finish.
    Finish,
    /// How requests end.
    Progress,
    /// Values, until so many answers carried one.
    Values(Option<usize>),
    /// Providers, until so many are known.
    Providers(Option<usize>),
}

/// The event loop's side of a mailbox. Whatever becomes of the loop, its caller is told.
#[derive(Debug)]
pub(crate) struct Ticket<W: Wire> {
    mailbox: Arc<Mailbox<W>>,
    pub(crate) reads: Reads,
}

impl<W: Wire> Ticket<W> {
    pub(crate) const fn new(mailbox: Arc<Mailbox<W>>, reads: Reads) -> Self {
        Self { mailbox, reads }
    }

    pub(crate) fn push(&self, item: Item<W>) {
        self.mailbox.push(item);
    }

    pub(crate) fn end(&self, end: Result<End<W>, Error>) {
        self.mailbox.end(end);
    }

    /// Whether the caller has gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.mailbox) == 1
    }

    pub(crate) fn capacity(&self) -> usize {
        self.mailbox.capacity
    }

    /// Something could not be delivered.
    pub(crate) fn miss(&self) {
        self.mailbox.lock().missed += 1;
    }
}

impl<W: Wire> Drop for Ticket<W> {
    fn drop(&mut self) {
        self.end(Err(Error::Closed));
    }
}
