//! [`Operation`]: a call, before it is made; [`Running`]: one that was made.

use crate::event_loop::{Command, Start};
use crate::handle::Dht;
use crate::mailbox::{End, Error, Found, Item, Mailbox, Reads, Ticket};
use crate::wire::{Payload, Wire};
use core::fmt::{self, Debug};
use core::future::{Future, IntoFuture, poll_fn};
use core::marker::PhantomData;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use futures_util::Stream;
use futures_util::future::{BoxFuture, Either, select};
use kad_proto::broadcast::{BroadcastFinish, BroadcastProgress, Success};
use kad_proto::coordinator::Inbound;
use kad_proto::crawl::{CrawlFinish, CrawlProgress};
use kad_proto::{Ask, Finish, Instant, Progress, RefusalReason, SpanContext, StartBroadcast};
use std::sync::Arc;

mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// What kind of operation it is: what it yields while it runs, and how it finishes. Only this crate implements it.
pub trait Kind<W: Wire>: Sealed + Send + Sync + Unpin + 'static {
    /// What the stream yields.
    type Item;
    /// The result.
    type Finish;

    #[doc(hidden)]
    fn item(item: Item<W>) -> Option<Self::Item>;
    #[doc(hidden)]
    fn finish(end: End<W>) -> Option<Self::Finish>;
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $item:ident => $item_type:ty, $finish:ident => $finish_type:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Sealed for $name {}

        impl<W: Wire> Kind<W> for $name {
            type Item = $item_type;
            type Finish = $finish_type;

            fn item(item: Item<W>) -> Option<$item_type> {
                match item {
                    Item::$item(item) => Some(item),
                    _ => None,
                }
            }

            fn finish(end: End<W>) -> Option<$finish_type> {
                match end {
                    End::$finish(finish) => Some(finish),
                    _ => None,
                }
            }
        }
    };
}

kind!(
    /// A lookup of nodes. It yields how its requests end.
    Lookup, Lookup => Progress<W>, Lookup => Finish<W>
);
kind!(
    /// A search for values. It yields them.
    Values, Value => Found<W, W::Value>, Lookup => Finish<W>
);
kind!(
    /// A search for providers. It yields each once.
    Providers, Provider => Found<W, W::Provider>, Lookup => Finish<W>
);
kind!(
    /// A broadcast, which stores. It yields how its requests end.
    Broadcast, Broadcast => BroadcastProgress<W>, Broadcast => BroadcastFinish<W>
);
kind!(
    /// A crawl. It yields how its requests end.
    Crawl, Crawl => CrawlProgress<W>, Crawl => CrawlFinish<W>
);

/// An operation that has not begun. `.await` runs it, and returns its finish; [`start`](Self::start) makes a stream of it.
///
/// Nothing happens before it is polled the first time. **Dropping it cancels it**: the engine stops the operation, and
/// the futures of its requests are dropped, which aborts their IO.
#[must_use = "an operation does nothing unless it is awaited or polled"]
pub struct Operation<W: Wire, K> {
    dht: Dht<W>,
    start: Inbound<W>,
    reads: Reads,
    deadline: Option<Instant>,
    span: SpanContext,
    repeat: bool,
    kind: PhantomData<K>,
}

impl<W: Wire, K> Debug for Operation<W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("start", &self.start).finish_non_exhaustive()
    }
}

impl<W: Wire, K: Kind<W>> Operation<W, K> {
    pub(crate) const fn new(dht: Dht<W>, start: Inbound<W>, reads: Reads) -> Self {
        let (deadline, span) = (None, SpanContext::NONE);
        Self { dht, start, reads, deadline, span, repeat: false, kind: PhantomData }
    }

    /// Ends it at this time, with what it has found by then. Without, it ends by the configured time-out.
    pub const fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Ends it so long after this call, with what it has found by then.
    pub fn within(self, time: Duration) -> Self {
        let deadline = self.dht.now() + time;
        self.until(deadline)
    }

    /// Runs it as a part of this span: what follows from it is a child of the span, or a child of a child.
    pub fn in_span(mut self, span: SpanContext) -> Self {
        self.span = span;
        self
    }

    /// Begins with these nodes too, besides those of the routing table.
    pub fn with_seeds(mut self, nodes: Vec<W::Node>) -> Self {
        match &mut self.start {
            Inbound::Start(start) => start.seeds = nodes,
            Inbound::Broadcast(start) => start.seeds = nodes,
            Inbound::Crawl(start) => start.seeds = nodes,
            _ => {}
        }
        self
    }

    /// The operation as a stream of what happens on the way; [`Running::finish`] returns its finish.
    pub fn start(mut self) -> Running<W, K> {
        if self.reads == Reads::Finish {
            self.reads = Reads::Progress;
        }
        Running::new(self)
    }
}

impl<W: Wire> Operation<W, Lookup> {
    /// Looks up so many nodes, instead of the configured k.
    pub fn results(mut self, nodes: usize) -> Self {
        if let Inbound::Start(start) = &mut self.start {
            start.num_results = Some(nodes);
        }
        self
    }
}

impl<W: Wire> Operation<W, Values> {
    /// Ends once so many nodes have the best value so far, as the wire [chooses](Wire::replaces) (the own store counts as one).
    /// Without, it asks all of the closest nodes. At least 1, else it is refused.
    pub const fn enough(mut self, answers: usize) -> Self {
        self.reads = Reads::Values(Some(answers));
        self
    }

    /// The first value that turns up, and no more requests than that takes. `None` if there is none.
    ///
    /// # Errors
    /// [`Error`] says why the search did not take place.
    pub async fn first(self) -> Result<Option<W::Value>, Error> {
        let mut running = self.enough(1).start();
        let found = running.next().await.map(|found| found.item);
        if found.is_none() {
            running.finish().await?;
        }
        Ok(found)
    }

    /// The best of all values that turn up, as the wire [chooses](Wire::replaces). `None` if there is none.
    ///
    /// # Errors
    /// [`Error`] says why the search did not take place.
    pub async fn newest(self) -> Result<Option<W::Value>, Error> {
        let mut running = self.start();
        let mut newest = None;
        while let Some(Found { item, .. }) = running.next().await {
            if newest.as_ref().is_none_or(|best| W::replaces(best, &item)) {
                newest = Some(item);
            }
        }
        running.finish().await?;
        Ok(newest)
    }
}

impl<W: Wire> Operation<W, Providers> {
    /// Ends once so many providers are known. Without, it asks all of the closest nodes.
    pub const fn enough(mut self, providers: usize) -> Self {
        self.reads = Reads::Providers(Some(providers));
        self
    }
}

impl<W: Wire> Operation<W, Broadcast> {
    fn edit(mut self, edit: impl FnOnce(&mut StartBroadcast<W>)) -> Self {
        if let Inbound::Broadcast(start) = &mut self.start {
            edit(start);
        }
        self
    }

    /// Stores [during the lookup](kad_proto::broadcast::Strategy::Optimistic), and returns before all nodes have stored.
    pub fn optimistic(self) -> Self {
        use kad_proto::broadcast::Strategy;
        self.edit(|start| start.strategy = Strategy::Optimistic { nodes: None })
    }

    /// Stores with these nodes, without a lookup.
    pub fn with_nodes(self, nodes: Vec<W::Node>) -> Self {
        self.edit(|start| start.strategy = kad_proto::broadcast::Strategy::Static(nodes))
    }

    /// Its lookup asks nodes for [values](Payload::Get) or [providers](Payload::GetProviders), where their answers must
    /// contain the token without which they store nothing.
    pub fn asking(self, payload: Payload<W>) -> Self {
        self.edit(|start| start.ask = Ask::Message(payload))
    }

    /// The number of nodes that must have stored it for the broadcast to have succeeded.
    pub fn with_success(self, success: Success) -> Self {
        self.edit(|start| start.success = success)
    }

    /// Stores it again and again, on the schedule of the [node](crate::Limits::reprovide), until
    /// [`Dht::forget`](crate::Dht::forget). The [`Store`](crate::Store) remembers it.
    pub const fn repeated(mut self) -> Self {
        self.repeat = true;
        self
    }
}

impl<W: Wire, K: Kind<W>> IntoFuture for Operation<W, K> {
    type Output = Result<K::Finish, Error>;
    type IntoFuture = Finishing<W, K>;

    fn into_future(self) -> Finishing<W, K> {
        Finishing(Running::new(self))
    }
}

enum State<W: Wire> {
    New(Box<Start<W>>),
    /// There are as many operations as there may be.
    Waiting(BoxFuture<'static, Result<(), Error>>),
    Live,
}

/// An operation as a stream. It is yielded what happens on the way, as it happens; the stream ends with the operation.
///
/// Nothing waits for the reader: of a stream that is not read, so much is kept as [`Limits`](crate::Limits) say, and the
/// rest is [missed](Self::missed).
#[must_use = "an operation does nothing unless it is polled"]
pub struct Running<W: Wire, K> {
    dht: Dht<W>,
    tag: u64,
    mailbox: Arc<Mailbox<W>>,
    state: State<W>,
    kind: PhantomData<K>,
}

impl<W: Wire, K> Debug for Running<W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl<W: Wire, K: Kind<W>> Running<W, K> {
    fn new(operation: Operation<W, K>) -> Self {
        let Operation { dht, mut start, reads, deadline, span, repeat, .. } = operation;
        let (tag, mailbox) = (dht.next_tag(), Arc::new(Mailbox::new(dht.capacity())));
        match &mut start {
            Inbound::Start(start) => start.tag = tag,
            Inbound::Broadcast(start) => start.tag = tag,
            Inbound::Crawl(start) => start.tag = tag,
            _ => {}
        }
        let ticket = Ticket::new(mailbox.clone(), reads);
        let start = Start { tag, event: start, deadline, span, ticket, permit: None, repeat };
        Self { dht, tag, mailbox, state: State::New(Box::new(start)), kind: PhantomData }
    }

    /// Hands it to the event loop, if it was not yet, as soon as there is room.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let State::New(_) = self.state
            && let State::New(mut start) = core::mem::replace(&mut self.state, State::Live)
        {
            if let Some(permit) = self.dht.try_permit() {
                start.permit = Some(permit);
                return Poll::Ready(self.dht.send(Command::Start(start)));
            }
            self.state = State::Waiting(Box::pin(wait(self.dht.clone(), start)));
        }
        if let State::Waiting(waiting) = &mut self.state {
            let sent = ready!(waiting.as_mut().poll(cx));
            self.state = State::Live;
            return Poll::Ready(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// The next thing that happens; `None` when it has ended.
    pub async fn next(&mut self) -> Option<K::Item> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// How many items there was no room for, because they were not read.
    pub fn missed(&self) -> u64 {
        self.mailbox.missed()
    }

    /// Waits for its finish, and leaves out what happens on the way.
    ///
    /// # Errors
    /// [`Error`] says why there is none.
    pub async fn finish(self) -> Result<K::Finish, Error> {
        Finishing(self).await
    }
}

/// Waits until there is room for one more operation, but no longer than its deadline.
async fn wait<W: Wire>(dht: Dht<W>, mut start: Box<Start<W>>) -> Result<(), Error> {
    let late = async {
        match start.deadline {
            Some(at) => dht.sleep_until(at).await,
            None => core::future::pending().await,
        }
    };
    let permit = match select(pin!(dht.permit()), pin!(late)).await {
        Either::Left((permit, _)) => permit,
        Either::Right(_) => {
            let refused = Err(Error::Refused(RefusalReason::DeadlinePassed));
            start.ticket.end(Err(Error::Refused(RefusalReason::DeadlinePassed)));
            return refused;
        }
    };
    start.permit = Some(permit);
    dht.send(Command::Start(start))
}

impl<W: Wire, K: Kind<W>> Stream for Running<W, K> {
    type Item = K::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<K::Item>> {
        // An error is in the mailbox too.
        let _ = ready!(self.poll_start(cx));
        loop {
            let Some(item) = ready!(self.mailbox.poll_item(cx)) else { return Poll::Ready(None) };
            if let Some(item) = K::item(item) {
                return Poll::Ready(Some(item));
            }
        }
    }
}

impl<W: Wire, K> Drop for Running<W, K> {
    fn drop(&mut self) {
        if matches!(self.state, State::Live) && !self.mailbox.has_ended() {
            let _ = self.dht.send(Command::Stop(self.tag));
        }
    }
}

/// The future of an operation's finish.
#[must_use = "an operation does nothing unless it is awaited or polled"]
#[derive(Debug)]
pub struct Finishing<W: Wire, K>(Running<W, K>);

impl<W: Wire, K: Kind<W>> Future for Finishing<W, K> {
    type Output = Result<K::Finish, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.0.poll_start(cx))?;
        let end = ready!(self.0.mailbox.poll_end(cx))?;
        Poll::Ready(K::finish(end).ok_or(Error::Closed))
    }
}
