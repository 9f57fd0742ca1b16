//! [`EventLoop`]: the one task that owns the engine. It hands it what happens, and does what it says.

use crate::handle::Shared;
use crate::mailbox::{End, Error, Found, Item, Reads, Ticket};
use crate::repeat::Repeat;
use crate::transport::{Call, Timer, Transport};
use crate::wire::{Payload, Reply, Wire};
use async_lock::SemaphoreGuardArc;
use core::fmt::{self, Debug};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};
use futures_channel::mpsc::UnboundedReceiver;
use futures_channel::oneshot;
use futures_util::future::{AbortHandle, Abortable, Fuse, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Ask, Batch, ConfigError, Coordinator, Failure, Instant, Machine, Record, RefusalReason, Request,
    RequestId, Response, RoutingInbound, RoutingOutbound, SpanContext, Stamped, StartBroadcast, Target,
    Verdict,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The start of an operation.
pub(crate) struct Start<W: Wire> {
    pub(crate) tag: u64,
    pub(crate) event: Inbound<W>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) span: SpanContext,
    pub(crate) ticket: Ticket<W>,
    pub(crate) permit: Option<SemaphoreGuardArc>,
    pub(crate) repeat: bool,
}

/// A function that reads the engine.
type Read<W> = Box<dyn FnOnce(&Coordinator<W>, Instant) + Send>;

/// What handles want of the event loop. Each holds a permit, or is bounded by those that do, so the queue of commands is.
pub(crate) enum Command<W: Wire> {
    Start(Box<Start<W>>),
    /// The caller of this operation is gone. At most one for each start.
    Stop(u64),
    Report(RoutingInbound<W>, SemaphoreGuardArc),
    Forget(W::Key, SemaphoreGuardArc),
    Inspect(Read<W>, SemaphoreGuardArc),
    Shutdown(oneshot::Sender<()>),
}

/// An operation that lives.
struct Live<W: Wire> {
    ticket: Ticket<W>,
    _permit: Option<SemaphoreGuardArc>,
    /// The providers that it has yielded.
    providers: HashSet<W::Provider>,
    /// The best value so far, and its version: how often a better one came.
    best: Option<(W::Value, u64)>,
}

impl<W: Wire> Live<W> {
    fn offer(&mut self, provider: W::Provider, from: Option<&W::Node>) {
        if self.is_enough() || self.providers.contains(&provider) {
            return;
        }
        if self.providers.len() >= self.ticket.capacity() {
            self.ticket.miss();
        } else if self.providers.insert(provider.clone()) {
            self.ticket.push(Item::Provider(Found { item: provider, from: from.cloned() }));
        }
    }

    /// The verdict on a valid value: whether it is better than all before, as good as the best, or worse.
    fn judge(&mut self, value: &W::Value) -> Verdict {
        let version = match &self.best {
            None => 1,
            Some((best, _)) if !W::replaces(best, value) => return Verdict::Valid(0),
            // Each may take the place of the other: they are alike.
            Some((best, version)) if W::replaces(value, best) => return Verdict::Valid(*version),
            Some((_, version)) => version + 1,
        };
        self.best = Some((value.clone(), version));
        Verdict::Valid(version)
    }

    /// Whether it has as many providers as its caller wants.
    fn is_enough(&self) -> bool {
        matches!(self.ticket.reads, Reads::Providers(Some(enough)) if self.providers.len() >= enough)
    }
}

/// A request whose future lives.
struct InFlight<W: Wire> {
    abort: AbortHandle,
    /// The operation and the node, if the operation's caller reads what answers carry.
    reader: Option<(u64, W::Node)>,
}

/// The engine, and the tables that its events need.
pub(crate) struct EventLoop<W: Wire, M> {
    engine: M,
    shared: Arc<Shared<W>>,
    commands: UnboundedReceiver<Command<W>>,
    live: HashMap<u64, Live<W>>,
    in_flight: HashMap<RequestId, InFlight<W>>,
    repeat: Repeat<W>,
    batch: Batch<Outbound<W>>,
    /// The table has changed since the last view of it.
    table_changed: bool,
    closing: Vec<oneshot::Sender<()>>,
}

impl<W: Wire, M> Debug for EventLoop<W, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("live", &self.live.len()).finish_non_exhaustive()
    }
}

/// What the future of a request brings. Values that are not valid were taken out of the answer; `Verdict::Invalid` if none is
/// left.
type Ended<W> = (RequestId, Result<Reply<W>, Failure<W>>, Verdict);

/// The better of two verdicts on values of one answer.
const fn better(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Valid(one), Verdict::Valid(other)) if one > other => Verdict::Valid(one),
        _ => other,
    }
}

/// One request: what its future does.
async fn request<W: Wire>(transport: &impl Transport<W>, call: Call<W>) -> Ended<W> {
    let id = call.id;
    let target = matches!(call.ask, Ask::Message(Payload::Get)).then(|| call.target.clone());
    let mut result = transport.request(call).await;
    let mut verdict = Verdict::Nothing;
    if let Ok(reply) = &mut result {
        let is_any = target.is_some() && !reply.values.is_empty();
        reply.values.retain(|value| target.as_ref().is_some_and(|target| W::accepts(target, value)));
        if is_any && reply.values.is_empty() {
            verdict = Verdict::Invalid;
        }
    }
    (id, result, verdict)
}

/// The same within its span, if it has one.
#[cfg(feature = "telemetry")]
fn spanned<W: Wire>(transport: &impl Transport<W>, call: Call<W>) -> impl Future<Output = Ended<W>> + Send {
    use futures_util::future::Either;
    use opentelemetry::trace::{FutureExt as _, TraceContextExt};

    match call.context.parent().cloned() {
        None => Either::Left(request(transport, call)),
        Some(span) => {
            let context = opentelemetry::Context::new().with_remote_span_context(span);
            Either::Right(request(transport, call).with_context(context))
        }
    }
}
#[cfg(not(feature = "telemetry"))]
use request as spanned;

impl<W: Wire, M> EventLoop<W, M>
where
    M: Machine<Inbound = Inbound<W>, Outbound = Outbound<W>> + AsRef<Coordinator<W>> + Send + 'static,
{
    pub(crate) fn new(
        engine: M,
        shared: Arc<Shared<W>>,
        commands: UnboundedReceiver<Command<W>>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let local = engine.as_ref().table().local();
        let repeated = shared.store().repeated();
        let repeat = Repeat::new(local, &shared.limits.reprovide, repeated, now)?;
        Ok(Self {
            engine,
            shared,
            commands,
            live: HashMap::new(),
            in_flight: HashMap::new(),
            repeat,
            batch: Batch::new(),
            table_changed: false,
            closing: Vec::new(),
        })
    }

    /// Runs until it is shut down, or nobody has a handle any more.
    pub(crate) async fn run(mut self, transport: &impl Transport<W>, timer: &impl Timer) {
        let mut requests = FuturesUnordered::new();
        let send = |call| spanned(transport, call);
        let mut sleep = pin!(Fuse::terminated());
        let mut armed = None;
        poll_fn(|cx| {
            let mut left = self.shared.limits.events_at_once.max(1);
            while left > 0 {
                // What has come goes first: time, run before it, would take it for late.
                if self.poll_requests(cx, timer, &mut requests, &send, &mut left) {
                    continue;
                }
                match self.poll_command(cx, timer) {
                    Poll::Ready(false) => {
                        self.dispatch(&mut requests, &send);
                        return Poll::Ready(());
                    }
                    Poll::Ready(true) => {}
                    Poll::Pending => {
                        let (wake, now) = (self.poll_timeout(), timer.now());
                        if wake.is_none_or(|at| at > now) {
                            self.publish();
                            if wake != armed {
                                sleep.set(
                                    wake.map_or_else(Fuse::terminated, |at| timer.sleep_until(at).fuse()),
                                );
                                armed = wake;
                            }
                            if wake.is_none() || sleep.as_mut().poll(cx).is_pending() {
                                return Poll::Pending;
                            }
                            armed = None;
                        } else {
                            self.tick(now);
                        }
                    }
                }
                self.dispatch(&mut requests, &send);
                left -= 1;
            }
            // The other tasks of this thread are due.
            cx.waker().wake_by_ref();
            self.publish();
            Poll::Pending
        })
        .await;
        drop(requests);
        for caller in core::mem::take(&mut self.closing) {
            let _ = caller.send(());
        }
    }

    /// Hands over the answers that have come. Returns whether there was one.
    fn poll_requests<Io>(
        &mut self,
        cx: &mut Context<'_>,
        timer: &impl Timer,
        requests: &mut FuturesUnordered<Abortable<Io>>,
        send: &impl Fn(Call<W>) -> Io,
        left: &mut usize,
    ) -> bool
    where
        Io: Future<Output = Ended<W>>,
    {
        let before = *left;
        while *left > 0
            && let Poll::Ready(Some(ended)) = requests.poll_next_unpin(cx)
        {
            // One that was aborted is known to be.
            if let Ok((id, result, verdict)) = ended {
                let arrived = result.as_ref().ok().and_then(|reply| reply.arrived);
                let now = timer.now();
                self.answer(arrived.map_or(now, |at| at.min(now)), id, result, verdict);
                self.dispatch(requests, send);
                *left -= 1;
            }
        }
        *left < before
    }

    /// Takes one command. `false`: the loop is to end.
    fn poll_command(&mut self, cx: &mut Context<'_>, timer: &impl Timer) -> Poll<bool> {
        let command = match self.commands.poll_next_unpin(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(command) => command,
        };
        let now = timer.now();
        match command {
            None => {
                self.close(now);
                return Poll::Ready(false);
            }
            Some(Command::Shutdown(caller)) => {
                self.closing.push(caller);
                self.close(now);
                return Poll::Ready(false);
            }
            Some(Command::Start(start)) => self.start(now, *start),
            Some(Command::Stop(tag)) => {
                // Its permit goes to the next.
                if self.live.remove(&tag).is_some() {
                    self.stop(now, tag);
                }
            }
            Some(Command::Report(event, permit)) => {
                drop(permit);
                if let RoutingInbound::Identity(local) = &event {
                    self.shared.set_local(local.clone());
                }
                self.handle(now, Stamped::new(event.into()));
            }
            Some(Command::Forget(key, permit)) => {
                drop(permit);
                self.shared.store().forget(&key);
                self.repeat.remove(now, key);
            }
            Some(Command::Inspect(read, permit)) => {
                drop(permit);
                read(self.engine.as_ref(), now);
            }
        }
        Poll::Ready(true)
    }

    fn handle(&mut self, now: Instant, event: Stamped<Inbound<W>>) {
        self.engine.handle_into(now, event, &mut self.batch);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.engine.poll_timeout(), self.repeat.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what is due.
    fn tick(&mut self, now: Instant) {
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.handle(now, Stamped::new(Inbound::Tick));
        }
        for keys in self.repeat.due(now) {
            let store = self.shared.store();
            let known = |key: W::Key| Some((key, store.record(&key)?));
            let (keys, records): (Vec<_>, Vec<_>) = keys.into_iter().filter_map(known).unzip();
            drop(store);
            if !records.is_empty() {
                let tag = self.shared.next_tag();
                self.repeat.began(tag, keys);
                let start = StartBroadcast::sweep(tag, records);
                self.handle(now, Stamped::new(start.into()));
            }
        }
    }

    /// Begins an operation: with what the own store has, if that is searched for.
    fn start(&mut self, now: Instant, start: Start<W>) {
        let Start { tag, mut event, deadline, span, ticket, permit, repeat } = start;
        if ticket.is_abandoned() {
            return;
        }
        if repeat && let Err(most) = self.repeat_record(now, tag, &event) {
            return ticket.end(Err(Error::Refused(RefusalReason::Records { most })));
        }
        let mut live = Live { ticket, _permit: permit, providers: HashSet::new(), best: None };
        let mut is_enough = false;
        if let Inbound::Start(start) = &mut event {
            let key = start.target.key();
            match live.ticket.reads {
                Reads::Values(enough) => {
                    let own = self.shared.store().value(&key, now);
                    start.quorum = enough;
                    if let Some(item) = own {
                        if let Verdict::Valid(version) = live.judge(&item) {
                            start.held = Some(version);
                        }
                        live.ticket.push(Item::Value(Found { item, from: None }));
                    }
                }
                Reads::Providers(_) => {
                    let own = self.shared.store().providers(&key, now);
                    start.held = (!own.is_empty()).then_some(0);
                    for provider in own {
                        live.offer(provider, None);
                    }
                    is_enough = live.is_enough();
                }
                Reads::Finish | Reads::Progress => {}
            }
        }
        self.live.insert(tag, live);
        self.handle(now, Stamped { event, context: span.into(), deadline });
        if is_enough {
            self.stop(now, tag);
        }
    }

    /// Has a record stored again and again, if there is room; else the error is how many there may be.
    fn repeat_record(&mut self, now: Instant, tag: u64, event: &Inbound<W>) -> Result<(), usize> {
        let Inbound::Broadcast(StartBroadcast { records, .. }) = event else { return Ok(()) };
        for Record { target, message } in records {
            self.repeat.add(now, target.key())?;
            self.shared.store().repeat(Record { target: target.clone(), message: message.clone() });
        }
        self.repeat.began(tag, records.iter().map(|record| record.target.key()).collect());
        Ok(())
    }

    fn stop(&mut self, now: Instant, tag: u64) {
        if let Some(operation) = self.engine.as_ref().operation(tag) {
            self.handle(now, Stamped::new(Inbound::Stop(operation)));
        }
    }

    /// Hands over an answer, after what it carries has been passed on to the caller.
    fn answer(
        &mut self,
        now: Instant,
        id: RequestId,
        result: Result<Reply<W>, Failure<W>>,
        mut verdict: Verdict,
    ) {
        let Some(InFlight { reader, .. }) = self.in_flight.remove(&id) else { return };
        let Reply { closer, values, providers, token, dialed, arrived } = match result {
            Ok(reply) => reply,
            Err(failure) => return self.handle(now, Stamped::new(Response::new(id, Err(failure)).into())),
        };
        let mut response = Response::answered(id, closer);
        if let Some(token) = token {
            response = response.with_token(Payload::Token(token));
        }
        if dialed {
            response = response.after_dial();
        }
        if let Some(at) = arrived {
            response = response.arrived_at(at);
        }
        let mut enough = None;
        if let Some((tag, node)) = reader
            && let Some(live) = self.live.get_mut(&tag)
        {
            match live.ticket.reads {
                Reads::Values(_) => {
                    for item in values {
                        verdict = better(verdict, live.judge(&item));
                        live.ticket.push(Item::Value(Found { item, from: Some(node.clone()) }));
                    }
                }
                Reads::Providers(_) => {
                    if !providers.is_empty() {
                        verdict = Verdict::Valid(0);
                    }
                    for provider in providers {
                        live.offer(provider, Some(&node));
                    }
                    enough = live.is_enough().then_some(tag);
                }
                Reads::Finish | Reads::Progress => {}
            }
        }
        self.handle(now, Stamped::new(response.with_verdict(verdict).into()));
        if let Some(tag) = enough {
            self.stop(now, tag);
        }
    }

    /// Does what the engine says.
    fn dispatch<Io: Future>(
        &mut self,
        requests: &mut FuturesUnordered<Abortable<Io>>,
        send: &impl Fn(Call<W>) -> Io,
    ) {
        let mut batch = core::mem::take(&mut self.batch);
        for Stamped { event, context, deadline } in batch.drain(..) {
            match event {
                Outbound::Request(request) => {
                    let (abort, registration) = AbortHandle::new_pair();
                    let reader = self.reader(&request);
                    self.in_flight.insert(request.id, InFlight { abort, reader });
                    let Request { id, token, node, target, ask, .. } = request;
                    let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
                    let call = Call { node, target, ask, deadline, context, id, token };
                    requests.push(Abortable::new(send(call), registration));
                }
                Outbound::Cancel(cancel) => {
                    if let Some(request) = self.in_flight.remove(&cancel.id) {
                        request.abort.abort();
                    }
                }
                Outbound::Progress(it) => self.progress(it.operation.tag(), || Item::Lookup(it)),
                Outbound::BroadcastProgress(it) => {
                    self.progress(it.request.operation.tag(), || Item::Broadcast(it));
                }
                Outbound::CrawlProgress(it) => {
                    self.progress(it.request.operation.tag(), || Item::Crawl(it));
                }
                Outbound::Finished(it) => self.end(it.operation.tag(), Ok(End::Lookup(it))),
                Outbound::BroadcastFinished(it) => {
                    self.repeat.ended(it.stats.ended.unwrap_or_default(), &it);
                    self.end(it.operation.tag(), Ok(End::Broadcast(it)));
                }
                Outbound::CrawlFinished(it) => self.end(it.operation.tag(), Ok(End::Crawl(it))),
                Outbound::Refused(it) => {
                    self.repeat.refused(it.tag);
                    self.end(it.tag, Err(Error::Refused(it.reason)));
                }
                Outbound::Routing(
                    RoutingOutbound::Admitted(_) | RoutingOutbound::Removed(_) | RoutingOutbound::Updated(_),
                ) => self.table_changed = true,
                Outbound::NetworkSize { nodes } => self.repeat.resize(nodes),
                _ => {}
            }
        }
        self.batch = batch;
    }

    /// Who reads what the answer to a request carries.
    fn reader(&self, request: &Request<W>) -> Option<(u64, W::Node)> {
        let tag = match request.ask {
            Ask::Message(_) => request.initiator.operation()?.tag(),
            _ => return None,
        };
        let live = self.live.get(&tag)?;
        let reads = matches!(live.ticket.reads, Reads::Values(_) | Reads::Providers(_));
        reads.then(|| (tag, request.node.clone()))
    }

    fn progress(&self, tag: u64, item: impl FnOnce() -> Item<W>) {
        if let Some(live) = self.live.get(&tag)
            && live.ticket.reads == Reads::Progress
        {
            live.ticket.push(item());
        }
    }

    fn end(&mut self, tag: u64, end: Result<End<W>, Error>) {
        if let Some(live) = self.live.remove(&tag) {
            live.ticket.end(end);
        }
    }

    /// Shows the table as it is now to those who answer the requests of others.
    fn publish(&mut self) {
        if core::mem::take(&mut self.table_changed) {
            self.shared.set_view(self.engine.as_ref().view());
        }
    }

    /// Takes no more commands, and stops all operations: those that wait first, so that none begins.
    fn close(&mut self, now: Instant) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Shutdown(caller) = command {
                self.closing.push(caller);
            }
        }
        let mut tags: Vec<_> = self.live.keys().copied().collect();
        tags.sort_unstable();
        for tag in tags.into_iter().rev() {
            self.stop(now, tag);
        }
    }
}
