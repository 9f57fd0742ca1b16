//! Bootstrap: a node joins by a lookup of its own key (Kademlia paper, section 2.3).

use crate::error::{ConfigError, require};
use crate::event::{Cancel, Finish, Progress, RefusedBecause, Request, Start};
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::machine::{Batch, Machine, Stamped};
use crate::outbox::{NetworkConfig, Traffic};
use crate::query::{self, Query, QueryConfig};
use crate::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// When a coordinator joins anew by itself.
///
/// Memory: `max_seeds` node ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BootstrapConfig {
    /// A routing table of fewer nodes is nearly empty: a bootstrap begins by itself, from what is left of the table and the
    /// seeds remembered. 0 is never. Default: 4.
    pub min_nodes: usize,
    /// How long after a bootstrap that left the table nearly empty the next one begins. Default: 60 s.
    pub retry_interval: Duration,
    /// How long one that begins by itself may take. Default: 60 s.
    pub timeout: Duration,
    /// How many seeds are remembered: those handed in last. At most 4,096. Default: 32.
    pub max_seeds: usize,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { min_nodes: 4, retry_interval: minute, timeout: minute, max_seeds: 32 }
    }
}

impl BootstrapConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.retry_interval.is_zero(), "bootstrap.retry_interval", "longer than zero")?;
        require(!self.timeout.is_zero(), "bootstrap.timeout", "longer than zero")?;
        require(self.max_seeds <= 4_096, "bootstrap.max_seeds", "at most 4,096")
    }
}

/// When to bootstrap, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrapper<F: Family> {
    pub(crate) config: BootstrapConfig,
    /// The latest last.
    pub(crate) seeds: Vec<F::Node>,
    /// Bootstraps under way, those of the caller included.
    pub(crate) running: usize,
    /// The one of them that began by itself.
    pub(crate) by_itself: Option<OperationId>,
    /// The next begins no earlier.
    pub(crate) not_before: Instant,
    /// The table had enough nodes once, and has not now.
    fallen: bool,
    /// The span that a bootstrap by itself links to.
    pub(crate) origin: SpanContext,
}

impl<F: Family> Bootstrapper<F> {
    pub(crate) fn new(config: BootstrapConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            seeds: Vec::new(),
            running: 0,
            by_itself: None,
            not_before: Instant::ORIGIN,
            fallen: true,
            origin: SpanContext::NONE,
        })
    }

    /// Remembers seeds.
    pub(crate) fn remember(&mut self, seeds: &[F::Node]) {
        let most = self.config.max_seeds;
        let latest = seeds.get(seeds.len().saturating_sub(most)..).unwrap_or_default();
        self.seeds.retain(|known| !latest.contains(known));
        self.seeds.extend_from_slice(latest);
        self.seeds.drain(..self.seeds.len().saturating_sub(most));
    }

    /// Notes how many nodes the table has. Says whether it has become nearly empty just now.
    pub(crate) fn note(&mut self, nodes: usize, origin: &SpanContext) -> bool {
        let low = nodes < self.config.min_nodes;
        let falls = low && !self.fallen;
        self.fallen = low;
        if falls {
            self.origin = origin.clone();
        }
        falls
    }

    /// When the next bootstrap begins by itself, where the table has so many nodes.
    pub(crate) fn next_timeout(&self, nodes: usize) -> Option<Instant> {
        let somebody = nodes > 0 || !self.seeds.is_empty();
        (nodes < self.config.min_nodes
            && somebody
            && self.running == 0
            && self.not_before < Instant::FAR_FUTURE)
            .then_some(self.not_before)
    }
}

/// What a [`Bootstrap`] is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Join from these nodes. The stamp holds the bootstrap's span and its deadline.
    Start {
        /// Nodes to begin with.
        seeds: Vec<F::Node>,
    },
    /// End the bootstrap under way now.
    Stop,
    /// A request was answered.
    Answered {
        /// The request.
        request: RequestId,
        /// The nodes that the answer names.
        closer: Vec<F::Node>,
    },
    /// A request failed.
    Failed(RequestId),
    /// Nothing happened but time.
    Tick,
}

/// What a [`Bootstrap`] says. Every start is followed by one `Finished` or, in the same call, by one `Refused`.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this, and hand back the answer or the failure.
    Request(Request<F>),
    /// A request was given up; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(Progress<F>),
    /// The bootstrap ended, by convergence or time, and the machine is idle again.
    Finished(Finish<F>),
    /// A bootstrap is under way already, or the deadline leaves no time.
    Refused(RefusedBecause),
}

/// One bootstrap at a time: a lookup of our own key. The [`Coordinator`](crate::Coordinator) begins one by itself where
/// its routing table is nearly empty.
#[derive(Clone, Debug)]
pub struct Bootstrap<F: Family> {
    local: F::Key,
    query: Query<F>,
    running: Option<OperationId>,
    said: Batch<query::Outbound<F>>,
}

impl<F: Family> Bootstrap<F> {
    /// A machine of the node whose own key is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, query: QueryConfig, network: NetworkConfig) -> Result<Self, ConfigError> {
        Ok(Self { local, query: Query::new(local, query, network)?, running: None, said: Batch::new() })
    }

    /// Whether a bootstrap is under way.
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What became of all requests so far.
    pub fn traffic(&self) -> Traffic {
        self.query.traffic()
    }
}

impl<F: Family> Machine for Bootstrap<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Stamped { event, context, deadline } = event;
        let event = match event {
            Inbound::Start { seeds } => query::Inbound::Start(Start::bootstrap(0, self.local, seeds)),
            Inbound::Stop => self.running.map_or(query::Inbound::Tick, query::Inbound::Stop),
            Inbound::Answered { request, closer } => query::Inbound::Answered { request, closer },
            Inbound::Failed(request) => query::Inbound::Failed(request),
            Inbound::Tick => query::Inbound::Tick,
        };
        self.query.handle_into(now, Stamped { event, context, deadline }, &mut self.said);
        for Stamped { event, context, deadline } in self.said.drain(..) {
            let event = match event {
                query::Outbound::Started(started) => {
                    self.running = Some(started.operation);
                    continue;
                }
                query::Outbound::Request(request) => Outbound::Request(request),
                query::Outbound::Cancel(cancel) => Outbound::Cancel(cancel),
                query::Outbound::Progress(progress) => Outbound::Progress(progress),
                query::Outbound::Finished(finish) => {
                    self.running = None;
                    Outbound::Finished(finish)
                }
                query::Outbound::Refused(refused) => Outbound::Refused(match refused.reason {
                    RefusedBecause::TagInUse => RefusedBecause::Full,
                    reason => reason,
                }),
            };
            out.push(Stamped { event, context, deadline });
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.query.poll_timeout()
    }
}
