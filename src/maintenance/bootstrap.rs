//! [`Bootstrap`]: a node joins by a lookup of its own key (Kademlia paper, section 2.3), as a machine.

use crate::lookups::config::QueryConfig;
use crate::lookups::query;
use crate::lookups::query::Query;
use crate::requests::config::NetworkConfig;
use crate::requests::stats::RequestStats;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::operation_events::{Finish, Progress, RefusalReason, Start};
use crate::vocabulary::outbound::inbound_from;
use crate::vocabulary::request_events::{Cancel, Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;

/// Inbound events of a [`Bootstrap`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Join from these nodes. The stamp contains the bootstrap's span and its deadline.
    Start {
        /// Nodes to begin with.
        seeds: Vec<F::Node>,
    },
    /// Ends the running bootstrap now.
    Stop,
    /// A request was answered, or has failed.
    Response(Response<F>),
    /// Only time has passed.
    Tick,
}

inbound_from!(Inbound { Response: Response<F> });

/// Outbound events of a [`Bootstrap`]. Every start is followed by one `Finished` or, in the same call, by one
/// `Refused`.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(Progress<F>),
    /// The bootstrap ended (see [`Finish::outcome`]), and the machine is idle again.
    Finished(Finish<F>),
    /// A bootstrap is running already ([`RefusalReason::Full`]), or the deadline leaves no time.
    Refused(RefusalReason),
}

/// One bootstrap at a time: a lookup of the node's own key. The [`Coordinator`](crate::Coordinator) begins
/// one automatically when its routing table is nearly empty.
#[derive(Clone, Debug)]
pub struct Bootstrap<F: Family> {
    local: F::Target,
    query: Query<F>,
    running: Option<OperationId>,
    /// The events of the query in one call; kept for its memory.
    inner_out: Batch<query::Outbound<F>>,
}

impl<F: Family> Bootstrap<F> {
    /// A machine of the node whose own id is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        query: QueryConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        let query = Query::new(local.clone(), query, network, secret)?;
        Ok(Self { local, query, running: None, inner_out: Batch::new() })
    }

    /// The same machine, with this [value of its family](Family#the-value-of-a-family) instead of the default.
    #[must_use]
    pub fn with_family(mut self, family: F) -> Self {
        self.query = self.query.with_family(family);
        self
    }

    /// Whether a bootstrap is running.
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.query.request_stats()
    }
}

impl<F: Family> Machine for Bootstrap<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Stamped { event, context, deadline } = event;
        let event = match event {
            Inbound::Start { seeds } => query::Inbound::Start(Start::bootstrap(0, self.local.clone(), seeds)),
            Inbound::Stop => self.running.map_or(query::Inbound::Tick, query::Inbound::Stop),
            Inbound::Response(response) => query::Inbound::Response(response),
            Inbound::Tick => query::Inbound::Tick,
        };
        self.query.handle_into(now, Stamped { event, context, deadline }, &mut self.inner_out);
        for Stamped { event, context, deadline } in self.inner_out.drain(..) {
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
                    RefusalReason::TagInUse => RefusalReason::Full,
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
