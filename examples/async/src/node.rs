//! [`Node`]: what a node is made of, and how it is run.

use crate::event_loop::EventLoop;
use crate::handle::{Dht, Shared};
use crate::store::{MemoryStore, Store, StoreLimits};
use crate::transport::{Timer, Transport};
use crate::wire::Wire;
use core::future::Future;
use futures_channel::mpsc;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{Config, ConfigError, Coordinator, Machine, ReprovideConfig, Secret};
use std::sync::Arc;

/// What the kit may hold. The engine's own bounds are those of its [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many operations may live at once. Further ones wait, in their callers' futures, until others have ended or
    /// their deadline has come. Keep it within [`PoolConfig`](kad_proto::PoolConfig). Default: 16,384.
    pub operations: usize,
    /// How many other commands (reports, inspections) may wait for the event loop. Default: 1,024.
    pub commands: usize,
    /// How many items of one operation are kept for a reader who does not read, and how many providers one operation
    /// yields at most. Default: 4,096.
    pub unread: usize,
    /// How many events the event loop handles before it lets other tasks of its thread run. Default: 256.
    pub events_at_once: usize,
    /// When records that are [repeated](crate::Operation::repeated) are stored again, and how long after a broadcast has
    /// ended those that it has stored with nobody, the first time or again, are
    /// [tried again](kad_proto::ReprovideConfig::retry_interval): later each time.
    pub reprovide: ReprovideConfig,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations: 16_384,
            commands: 1_024,
            unread: 4_096,
            events_at_once: 256,
            reprovide: ReprovideConfig::default(),
        }
    }
}

/// A node that does not run yet: its engine, what it stores for others, and its limits.
#[derive(Debug)]
pub struct Node<W: Wire, M = Coordinator<W>> {
    engine: M,
    local: W::Target,
    family: W,
    store: Option<Box<dyn Store<W>>>,
    limits: Limits,
}

impl<W: Wire> Node<W> {
    /// A node whose own id is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: W::Target, config: Config, secret: &Secret) -> Result<Self, ConfigError> {
        Ok(Self::with_engine(Coordinator::new(local.clone(), config, secret)?, local))
    }

    /// The same, with this [value of its family](kad_proto::Family#the-value-of-a-family).
    #[must_use]
    pub fn with_family(mut self, family: W) -> Self {
        self.engine = self.engine.with_family(family.clone());
        self.family = family;
        self
    }
}

impl<W: Wire, M> Node<W, M>
where
    M: Machine<Inbound = Inbound<W>, Outbound = Outbound<W>> + AsRef<Coordinator<W>> + Send + 'static,
{
    /// A node with an engine that is there already: a [`Coordinator`], or what is around one, such as `Traced`, which
    /// makes spans, or `Recorder`. `local` is the own id that the engine was made with.
    pub fn with_engine(engine: M, local: W::Target) -> Self {
        Self { engine, local, family: W::default(), store: None, limits: Limits::default() }
    }

    /// What it stores for others. Without, a [`MemoryStore`].
    #[must_use]
    pub fn with_store(mut self, store: impl Store<W>) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// What it may hold.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The handle of the node, and the future that runs it. Spawn the future, or poll it beside others; it needs no
    /// runtime of its own, and is ready when the last handle was dropped or [`Dht::shutdown`] was called. Dropping it ends
    /// everything at once.
    ///
    /// # Errors
    /// [`ConfigError`] if the schedule of [`Limits::reprovide`] is out of bounds.
    pub fn run(
        self,
        transport: impl Transport<W>,
        timer: impl Timer,
    ) -> Result<(Dht<W>, impl Future<Output = ()> + Send + 'static), ConfigError> {
        let Self { engine, local, family, store, limits } = self;
        let timer = Arc::new(timer);
        let own = engine.as_ref().table().local();
        let store = store.unwrap_or_else(|| Box::new(MemoryStore::new(own, StoreLimits::default())));
        let view = engine.as_ref().view();
        let shared = Arc::new(Shared::new(limits, (local, family), view, store, timer.clone()));
        let (to, commands) = mpsc::unbounded();
        let event_loop = EventLoop::new(engine, shared.clone(), commands, timer.now())?;
        let run = async move { event_loop.run(&transport, &*timer).await };
        Ok((Dht::new(shared, to), run))
    }
}
