//! [`Include`]: checks candidates before they enter a routing table, as a machine.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::requests::config::NetworkConfig;
use crate::requests::purpose::ReleasedCheck;
use crate::requests::request_queue::{Ending, RequestQueue, answerer};
use crate::requests::stats::RequestStats;
use crate::routing::candidate_list::{Candidate, IncludeCounts, Origin};
use crate::routing::candidate_queue::{CandidateQueue, EndedCheck, IncludeConfig, Verdict};
use crate::routing::liveness_check::{CheckList, CheckMachine, respond};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::outbound::{inbound_from, outbound_from};
use crate::vocabulary::request_events::{Cancel, Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::{Instant, earlier};
use core::time::Duration;

/// Inbound events of an [`Include`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// Another node named this node: check it, unless it [has failed lately](IncludeConfig::retry_interval).
    /// The stamp contains the span that the check links to.
    Offer(F::Node),
    /// The same, and this is the node that named it: it has a [share](IncludeConfig#shares) of the queue. A node that two
    /// have named goes first.
    Named {
        /// The node to check.
        node: F::Node,
        /// Whose answer names it.
        by: F::Node,
    },
    /// The node itself was heard from: check it, even if earlier checks of it have failed, but no more nodes of which only
    /// this is known than [the configured rate](IncludeConfig::unsolicited_interval) allows. The stamp is as for an offer.
    Heard(F::Node),
    /// A request was answered, or has failed.
    Response(Response<F>),
    /// Only time has passed.
    Tick,
}

inbound_from!(Inbound { Response: Response<F> });

/// Outbound events of an [`Include`]. Each candidate that was not dropped ends as `Passed` or `Rejected`.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// The node answered and named a node: it may enter a routing table.
    Passed {
        /// The node.
        node: F::Node,
        /// The time from request to answer.
        round_trip: Duration,
    },
    /// The node failed, did not answer within its time-out, or named no node.
    Rejected(F::Node),
}

outbound_from!(Outbound { Request: Request<F>, Cancel: Cancel<F> });

/// Checks candidates before they enter a routing table: each is asked for the nodes closest to itself, and
/// passes if it names at least one. So a node that does not exist, or is live but does not serve, does not
/// enter the table.
///
/// A node that does not answer is checked once more, as a message may have been lost, if it is known by its own contact or by
/// two others. One that has failed twice in a row is not checked again for [some time](IncludeConfig::retry_interval),
/// unless the node itself is heard from: other nodes keep naming a dead node for long.
///
/// Candidates are independent of each other: each has the link of its own offer, and a time-out that ends its
/// check in any case. In a [`Coordinator`](crate::Coordinator), the nodes that answers name are offered
/// automatically.
#[derive(Clone, Debug)]
pub struct Include<F: Family> {
    machine: CheckMachine<F, CandidateQueue<F>>,
}

impl<F: Family> Include<F> {
    /// A machine of the node whose own id is `local`, which checks within these limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        include: &IncludeConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        let seeds = secret.seeds();
        let queue = CandidateQueue::new(local, include, &seeds)?;
        Ok(Self { machine: CheckMachine::new(RequestQueue::new(network, &seeds)?, queue) })
    }

    /// The number of candidates so far, by result.
    pub fn counts(&self) -> IncludeCounts {
        self.machine.list.counts()
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.machine.request_stats()
    }
}

impl<F: Family> CheckList<F, Outbound<F>> for CandidateQueue<F> {
    fn send(&self, call: &mut CallContext<'_, F, Outbound<F>>, released: ReleasedCheck) {
        Self::send(self, call, released);
    }

    fn advance(&mut self, call: &mut CallContext<'_, F, Outbound<F>>) {
        Self::advance(self, call, usize::MAX, |_| Verdict::Check);
    }

    fn check_slow(&mut self, call: &mut CallContext<'_, F, Outbound<F>>, request: RequestId) {
        self.slow(call, request);
    }

    fn check_ended(
        &mut self,
        call: &mut CallContext<'_, F, Outbound<F>>,
        request: RequestId,
        ending: Ending,
        names_nodes: bool,
        cause: Option<&Context>,
    ) {
        let Some(check) = call.check(request) else { return };
        let ended = self.end(call, check.slot, request, ending, names_nodes);
        let Some(EndedCheck { candidate, request, .. }) = ended.filter(|ended| !ended.again) else { return };
        let (Candidate { node, link, .. }, round_trip) = (candidate, call.elapsed(&request));
        let event =
            if names_nodes { Outbound::Passed { node, round_trip } } else { Outbound::Rejected(node) };
        call.emit_detached(event, context::continued(cause, &link));
    }
}

impl<F: Family> Machine for Include<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Stamped { event, context, .. } = event;
        self.machine.handle(now, out, |queue, call| match event {
            Inbound::Offer(node) => queue.offer(call.now, &node, context::source(&context), Origin::Caller),
            Inbound::Named { node, by } => {
                let origin = Origin::Answer(answerer::<F>(&by));
                queue.offer(call.now, &node, context::source(&context), origin);
            }
            Inbound::Heard(node) => {
                queue.forget_failures(&node);
                queue.offer(call.now, &node, context::source(&context), Origin::Contact);
            }
            Inbound::Response(response) => respond(queue, call, response, &context),
            Inbound::Tick => {}
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.machine.next_timeout(), self.machine.list.next_timeout())
    }
}
