//! [`Probe`]: checks nodes that have not been heard from for a while, as a machine.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::requests::config::NetworkConfig;
use crate::requests::purpose::ReleasedCheck;
use crate::requests::request_queue::{Ending, RequestQueue};
use crate::requests::stats::RequestStats;
use crate::routing::liveness_check::{CheckList, CheckMachine, respond};
use crate::routing::probe_list::{ProbeConfig, ProbeCounts, ProbeList, Probed};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::outbound::{inbound_from, outbound_from};
use crate::vocabulary::request_events::{Cancel, Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::{Instant, earlier};
use core::time::Duration;

/// Inbound events of a [`Probe`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound<F: Family> {
    /// A node that is live now: check it regularly from now on. It replaces a node with the same key.
    Add(F::Node),
    /// Stop checking this node.
    Remove(F::Node),
    /// A node is known to be live from another source: its next check is postponed.
    Alive(F::Node),
    /// A node may be dead: check it now. The stamp contains the span that the check links to.
    Suspect(F::Node),
    /// A request was answered (it does not matter which nodes the answer names), or has failed.
    Response(Response<F>),
    /// Only time has passed.
    Tick,
}

inbound_from!(Inbound { Response: Response<F> });

/// Outbound events of a [`Probe`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound<F: Family> {
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// A node is live.
    Passed {
        /// The node.
        node: F::Node,
        /// The time from request to answer.
        round_trip: Duration,
    },
    /// A check of a node failed. The node stays in the list, and its next check follows after
    /// [`ProbeConfig::retry_interval`]. The caller decides after how many failures it removes the node.
    Missed(F::Node),
}

outbound_from!(Outbound { Request: Request<F>, Cancel: Cancel<F> });

/// Checks that nodes are still live. A node is asked for the nodes closest to itself if it has not been heard
/// from for [`ProbeConfig::interval`], or if it is suspected to be dead. In a
/// [`Coordinator`](crate::Coordinator) the list of nodes is the routing table.
#[derive(Clone, Debug)]
pub struct Probe<F: Family> {
    machine: CheckMachine<F, ProbeList<F>>,
}

impl<F: Family> Probe<F> {
    /// A machine of the node whose own id is `local`: if several checks are due, nodes nearer to its key
    /// are checked first.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(
        local: F::Target,
        probe: &ProbeConfig,
        network: NetworkConfig,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        let seeds = secret.seeds();
        let list = ProbeList::new(local, probe, seeds.hash)?;
        Ok(Self { machine: CheckMachine::new(RequestQueue::new(network, &seeds)?, list) })
    }

    /// The number of checks so far, by result.
    pub fn counts(&self) -> ProbeCounts {
        self.machine.list.counts()
    }

    /// Whether a node is in the list.
    pub fn contains(&self, node: &F::Node) -> bool {
        self.machine.list.contains(node)
    }

    /// Statistics of all requests so far.
    pub fn request_stats(&self) -> RequestStats {
        self.machine.request_stats()
    }
}

impl<F: Family> CheckList<F, Outbound<F>> for ProbeList<F> {
    fn send(&self, call: &mut CallContext<'_, F, Outbound<F>>, released: ReleasedCheck) {
        Self::send(self, call, released);
    }

    fn advance(&mut self, call: &mut CallContext<'_, F, Outbound<F>>) {
        Self::advance(self, call);
    }

    fn check_ended(
        &mut self,
        call: &mut CallContext<'_, F, Outbound<F>>,
        request: RequestId,
        ending: Ending,
        _names_nodes: bool,
        cause: Option<&Context>,
    ) {
        let Some(check) = call.check(request) else { return };
        let Some(probed) = self.end(call, check.slot, request, ending) else { return };
        let Probed { node, elapsed: round_trip, link, silent, .. } = probed;
        let passed = ending.is_answer();
        if !passed && !silent {
            return;
        }
        let event = if passed { Outbound::Passed { node, round_trip } } else { Outbound::Missed(node) };
        call.emit_detached(event, context::continued(cause, &link));
    }
}

impl<F: Family> Machine for Probe<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let Stamped { event, context, .. } = event;
        self.machine.handle(now, out, |list, call| match event {
            Inbound::Add(node) => list.add(call, &node),
            Inbound::Remove(node) => list.remove(call, &node),
            Inbound::Alive(node) => list.postpone(call.now, &node),
            Inbound::Suspect(node) => list.expedite(call.now, &node, context::source(&context)),
            Inbound::Response(response) => respond(list, call, response, &context),
            Inbound::Tick => {}
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.machine.next_timeout(), self.machine.list.next_timeout())
    }
}
