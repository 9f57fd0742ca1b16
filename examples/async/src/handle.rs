//! [`Dht`]: the handle of a node.

use crate::event_loop::Command;
use crate::mailbox::{Error, Reads};
use crate::node::Limits;
use crate::operation::{Broadcast, Crawl, Lookup, Operation, Providers, Values};
use crate::store::{Refusal, Store};
use crate::transport::Timer;
use crate::wire::{Payload, Reply, Wire};
use async_lock::{Semaphore, SemaphoreGuardArc};
use core::fmt::{self, Debug};
use futures_channel::mpsc::UnboundedSender;
use futures_channel::oneshot;
use futures_util::future::BoxFuture;
use kad_proto::coordinator::Inbound;
use kad_proto::{
    AnswerScope, Ask, Coordinator, Finish, Group, Instant, RoutingInbound, Start, StartBroadcast, StartCrawl,
    TableView, Target,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What handles and event loop share.
pub(crate) struct Shared<W: Wire> {
    pub(crate) limits: Limits,
    /// What asks for the node itself.
    local: RwLock<W::Target>,
    family: W,
    tags: AtomicU64,
    /// A permit for each operation that lives.
    operations: Arc<Semaphore>,
    /// A permit for each other command that waits for the loop.
    commands: Arc<Semaphore>,
    view: RwLock<TableView<W>>,
    store: Mutex<Box<dyn Store<W>>>,
    timer: Arc<dyn AnyTimer>,
}

/// A [`Timer`] whose type is not known.
trait AnyTimer: Send + Sync {
    fn now(&self) -> Instant;
    fn sleep_until(self: Arc<Self>, at: Instant) -> BoxFuture<'static, ()>;
}

impl<T: Timer> AnyTimer for T {
    fn now(&self) -> Instant {
        Timer::now(self)
    }

    fn sleep_until(self: Arc<Self>, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(async move { Timer::sleep_until(&*self, at).await })
    }
}

impl<W: Wire> Shared<W> {
    pub(crate) fn new(
        limits: Limits,
        (local, family): (W::Target, W),
        view: TableView<W>,
        store: Box<dyn Store<W>>,
        timer: Arc<impl Timer>,
    ) -> Self {
        Self {
            operations: Arc::new(Semaphore::new(limits.operations)),
            commands: Arc::new(Semaphore::new(limits.commands)),
            limits,
            local: RwLock::new(local),
            family,
            tags: AtomicU64::new(0),
            view: RwLock::new(view),
            store: Mutex::new(store),
            timer,
        }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Box<dyn Store<W>>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_view(&self, view: TableView<W>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    pub(crate) fn local(&self) -> W::Target {
        self.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_local(&self, local: W::Target) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = local;
    }

    pub(crate) fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }
}

/// The handle of a node: its methods are the calls of a DHT. It is cheap to clone, and can be sent anywhere.
///
/// The node lives as long as its [future](crate::Node::run) is polled, and until the last handle is dropped or
/// [`shutdown`](Self::shutdown) is called.
pub struct Dht<W: Wire> {
    shared: Arc<Shared<W>>,
    commands: UnboundedSender<Command<W>>,
}

impl<W: Wire> Clone for Dht<W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), commands: self.commands.clone() }
    }
}

impl<W: Wire> Debug for Dht<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht").field("local", &self.shared.local()).finish_non_exhaustive()
    }
}

impl<W: Wire> Dht<W> {
    pub(crate) const fn new(shared: Arc<Shared<W>>, commands: UnboundedSender<Command<W>>) -> Self {
        Self { shared, commands }
    }

    /// Looks up the nodes closest to a target.
    pub fn find_node(&self, target: W::Target) -> Operation<W, Lookup> {
        self.operation(Start::find(0, target), Reads::Finish)
    }

    /// Joins the network by these nodes: looks up the own key, and fills the routing table.
    pub fn bootstrap(&self, seeds: Vec<W::Node>) -> Operation<W, Lookup> {
        self.operation(Start::bootstrap(0, self.shared.local(), seeds), Reads::Finish)
    }

    /// Searches for the values under a target, as a stream: in the own store, then with other nodes.
    pub fn get(&self, target: W::Target) -> Operation<W, Values> {
        self.operation(Start::message(0, target, Payload::Get), Reads::Values(None))
    }

    /// Searches for the providers of a target, as a stream: in the own store, then with other nodes.
    pub fn get_providers(&self, target: W::Target) -> Operation<W, Providers> {
        self.operation(Start::message(0, target, Payload::GetProviders), Reads::Providers(None))
    }

    /// Stores a value with the nodes closest to its target.
    pub fn put(&self, target: W::Target, value: W::Value) -> Operation<W, Broadcast> {
        self.operation(StartBroadcast::follow_up(0, target, Payload::Put(value)), Reads::Finish)
    }

    /// Stores the newest value that a [search](Self::get) has found with the nodes [that lack it](Finish::to_correct).
    pub fn correct(&self, finish: &Finish<W>, value: W::Value) -> Operation<W, Broadcast> {
        let nodes = finish.to_correct().map(|contact| contact.node.clone()).collect();
        self.put(finish.target.clone(), value).with_nodes(nodes)
    }

    /// Tells the nodes closest to a target who provides it.
    pub fn provide(&self, target: W::Target, provider: W::Provider) -> Operation<W, Broadcast> {
        self.operation(StartBroadcast::follow_up(0, target, Payload::Provide(provider)), Reads::Finish)
    }

    /// Maps the network: which nodes there are, and who names whom.
    pub fn crawl(&self) -> Operation<W, Crawl> {
        self.operation(StartCrawl::new(0), Reads::Finish)
    }

    fn operation<K: crate::Kind<W>>(&self, start: impl Into<Inbound<W>>, reads: Reads) -> Operation<W, K> {
        Operation::new(self.clone(), start.into(), reads)
    }

    /// The nodes of the routing table that are closest to a target, closest first. Asks nobody, and waits for nothing.
    pub fn closest(&self, target: &W::Target, most: usize) -> Vec<W::Node> {
        let view = self.view();
        view.closest(&target.key()).take(most).cloned().collect()
    }

    /// The routing table, as it was when the event loop last had nothing to do.
    pub fn view(&self) -> TableView<W> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers the request of another node: from the routing table and the [`Store`]. `from` is the group of the address
    /// that it came from, so that no group can fill the store.
    ///
    /// It asks nobody, and waits for nothing. Whether a token is valid is for the transport to check, before. When the
    /// answer is on its way, [report](Self::report) the asker as
    /// [`Discovered`](kad_proto::RoutingInbound::Discovered), if it serves others.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not stored.
    pub fn serve(&self, target: &W::Target, ask: &Ask<W>, from: Option<Group>) -> Result<Reply<W>, Refusal> {
        let now = self.now();
        let mut reply = Reply::default();
        match ask {
            Ask::FindCloser => {}
            Ask::Message(Payload::Get) => {
                reply.values.extend(self.shared.store().value(&target.key(), now));
            }
            Ask::Message(Payload::GetProviders) => {
                reply.providers = self.shared.store().providers(&target.key(), now);
            }
            Ask::Store { message, .. } => {
                self.keep(target, message, from, now)?;
                return Ok(reply);
            }
            Ask::Batch { records, .. } => {
                for record in records {
                    self.keep(&record.target, &record.message, from, now)?;
                }
                return Ok(reply);
            }
            Ask::Message(_) => return Err(Refusal::Unknown),
        }
        let (AnswerScope::Closest(most) | AnswerScope::Buckets(most)) = self.shared.family.answers();
        reply.closer = self.closest(target, most);
        Ok(reply)
    }

    fn keep(
        &self,
        target: &W::Target,
        message: &Payload<W>,
        from: Option<Group>,
        now: Instant,
    ) -> Result<(), Refusal> {
        match message {
            Payload::Put(value) if !W::accepts(target, value) => Err(Refusal::Invalid),
            Payload::Put(value) => self.shared.store().put(target.key(), value.clone(), from, now),
            Payload::Provide(provider) => {
                self.shared.store().add_provider(target.key(), provider.clone(), from, now)
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// Reports what is known of a node from elsewhere: that it sent a query, that it is gone. Waits for nothing; where the
    /// event loop has more to do than [`Limits::commands`], the report is dropped, and the result is `false`.
    pub fn report(&self, event: RoutingInbound<W>) -> bool {
        let Some(permit) = self.shared.commands.try_acquire_arc() else { return false };
        self.send(Command::Report(event, permit)).is_ok()
    }

    /// Does not store a record again that is [repeated](Operation::repeated).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn forget(&self, target: &W::Target) -> Result<(), Error> {
        let permit = self.shared.commands.acquire_arc().await;
        self.send(Command::Forget(target.key(), permit))
    }

    /// Reads what only the engine knows: statistics, a [snapshot](Coordinator::snapshot) of the table, the size of the
    /// network. The function runs in the event loop, so it should be quick.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn inspect<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Coordinator<W>, Instant) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let permit = self.shared.commands.acquire_arc().await;
        let (to, from) = oneshot::channel();
        let read = move |engine: &Coordinator<W>, now: Instant| drop(to.send(read(engine, now)));
        self.send(Command::Inspect(Box::new(read), permit))?;
        from.await.map_err(|_| Error::Closed)
    }

    /// Ends the node: every operation ends with what it has found, all requests are aborted, and the node's future is
    /// ready. Returns when that is so.
    pub async fn shutdown(&self) {
        let (to, from) = oneshot::channel();
        if self.send(Command::Shutdown(to)).is_ok() {
            let _ = from.await;
        }
    }

    /// What time it is for the engine, which deadlines are given in.
    pub fn now(&self) -> Instant {
        self.shared.timer.now()
    }

    pub(crate) fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.shared.timer.clone().sleep_until(at)
    }

    pub(crate) fn next_tag(&self) -> u64 {
        self.shared.next_tag()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.shared.limits.unread
    }

    pub(crate) fn try_permit(&self) -> Option<SemaphoreGuardArc> {
        self.shared.operations.try_acquire_arc()
    }

    pub(crate) async fn permit(&self) -> SemaphoreGuardArc {
        self.shared.operations.acquire_arc().await
    }

    pub(crate) fn send(&self, command: Command<W>) -> Result<(), Error> {
        self.commands.unbounded_send(command).map_err(|_| Error::Closed)
    }
}
