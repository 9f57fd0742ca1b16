//! Routing maintenance: the routing table keeps itself up to date.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | an answer names a node | it becomes a candidate of [include](crate::Include), if the table would admit it and it has not [failed lately](crate::IncludeConfig::retry_interval) |
//! | the driver reports a node as [discovered](crate::RoutingInbound::Discovered) | the same, and its failed checks are forgotten |
//! | a candidate passes its check | it is offered to the table; if its bucket is full, it replaces the node there with the most failed probes, if one has failed any |
//! | a node answers a request of this machine, and its answer names a node or it is a seed of a bootstrap | it is offered to the table |
//! | a node of the table answers a request of this machine | its entry is refreshed, and its [probe](crate::Probe) postponed |
//! | a request times out or fails | nothing is removed: the node's probe is due now, and its result decides |
//! | a request is cancelled because its operation ended | nothing |
//! | [`TableConfig::max_failures`](crate::TableConfig::max_failures) probes in a row fail | the node is removed |
//! | fewer than [`BootstrapConfig::min_nodes`](crate::BootstrapConfig::min_nodes) nodes are left | a [`NearEmpty`](crate::RoutingOutbound::NearEmpty) notice, and an automatic bootstrap from the remembered seeds, unless a bootstrap is running |
//! | the caller starts a bootstrap while an automatic one is running | it replaces the automatic one, whose requests are cancelled without a notice, and begins from its seeds too |
//! | a bootstrap ends | a [`Bootstrapped`](crate::RoutingOutbound::Bootstrapped) notice; [explore](crate::Explore) refreshes all buckets farther away than the closest neighbour |
//!
//! The [`Coordinator`](crate::Coordinator) does all of this beside its operations;
//! [`Maintenance`](crate::Maintenance) does it alone. All of it is side-effect work: its events have links
//! instead of parents, and deadlines that no operation sets ([rule 4](crate::context)).
//!
//! Routing knows no operations and runs no lookups. It decides which lookup is due, and
//! [`maintenance`](crate::maintenance) runs it and reports the result as plain values.
//!
//! | file | what it holds |
//! | --- | --- |
//! | this one | `Routing`: the table and its maintenance, driver events, the next time-out |
//! | `table.rs` | the k-buckets |
//! | `membership.rs` | how nodes enter and leave the table |
//! | `checks.rs`, `liveness_check.rs` | checks of candidates and of table nodes; what both have in common |
//! | `candidate_queue.rs`, `include.rs` | include: the queue of candidates, and as a machine |
//! | `probe_list.rs`, `probe.rs` | probe: the list of table nodes, and as a machine |
//! | `due_lookups.rs` | the lookups that maintenance starts: bootstraps and refreshes |
//! | `bootstrap_schedule.rs`, `explore_schedule.rs` | when these are due |
//! | `client_list.rs` | nodes known not to serve others |
//! | `config.rs`, `events.rs` | configuration; events in and out |

pub(crate) mod bootstrap_schedule;
pub(crate) mod candidate_queue;
mod checks;
mod client_list;
pub(crate) mod config;
mod due_lookups;
pub(crate) mod events;
pub(crate) mod explore_schedule;
pub mod include;
mod liveness_check;
mod membership;
pub mod probe;
pub(crate) mod probe_list;
pub mod table;
#[cfg(test)]
mod tests;

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::routing::bootstrap_schedule::BootstrapSchedule;
use crate::routing::candidate_queue::CandidateQueue;
use crate::routing::client_list::ClientList;
use crate::routing::config::{RoutingConfig, RoutingCounts};
use crate::routing::events::{EmitsRouting, RoutingInbound};
use crate::routing::explore_schedule::ExploreSchedule;
use crate::routing::probe_list::ProbeList;
use crate::routing::table::RoutingTable;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::{Instant, earlier};

/// The routing table and the parts that maintain it; a part that is off is `None`.
#[derive(Clone, Debug)]
pub(crate) struct Routing<F: Family> {
    pub(crate) table: RoutingTable<F>,
    bootstrap: Option<BootstrapSchedule<F>>,
    include: Option<CandidateQueue<F>>,
    probe: Option<ProbeList<F>>,
    explore: Option<ExploreSchedule>,
    clients: ClientList<F>,
    /// Nodes of one answer that are read.
    max_closer_nodes: usize,
    /// How many nodes a lookup searches for.
    k: usize,
    /// Automatic bootstraps so far.
    bootstraps: u64,
}

impl<F: Family> Routing<F> {
    pub(crate) fn new(
        table: RoutingTable<F>,
        config: RoutingConfig,
        k: usize,
        max_closer_nodes: usize,
        seeds: &Seeds,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let (local, hash) = (table.local(), seeds.hash);
        let mut probe = config.probe.map(|probe| ProbeList::new(local, &probe, hash)).transpose()?;
        if let Some(probe) = &mut probe {
            table.iter().for_each(|entry| probe.insert(entry.node(), entry.last_seen()));
        }
        Ok(Self {
            table,
            bootstrap: config.bootstrap.map(BootstrapSchedule::new).transpose()?,
            include: config.include.map(|include| CandidateQueue::new(&include, hash)).transpose()?,
            probe,
            explore: config
                .explore
                .map(|explore| ExploreSchedule::new::<F::Key>(explore, seeds.choices))
                .transpose()?,
            clients: ClientList::new(config.max_clients, hash),
            max_closer_nodes,
            k,
            bootstraps: 0,
        })
    }

    /// To be called at the beginning of each call; at the first one, the schedules start.
    pub(crate) fn start_schedules(&mut self, now: Instant) {
        if let Some(explore) = &mut self.explore {
            explore.start(now);
        }
    }

    /// Handles what the driver reports about nodes.
    pub(crate) fn handle<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        event: RoutingInbound<F>,
        context: &Context,
    ) {
        match event {
            RoutingInbound::Connected { node, round_trip } => {
                if let Some(round_trip) = round_trip {
                    call.requests.observe(round_trip);
                }
                self.offer_live(call, &node, round_trip, || context::detached(context));
            }
            RoutingInbound::Disconnected(node) => {
                self.report_failure(call, &node, || context::detached(context));
            }
            RoutingInbound::Discovered(node) => {
                self.discovered(call.now, &node, || context::detached(context));
            }
            RoutingInbound::Client(node) => self.mark_client(call, node, context),
            RoutingInbound::Seeds(seeds) => self.remember_seeds(&seeds),
            RoutingInbound::Restore(saved) => self.restore(call, saved, context),
        }
    }

    /// When the next bootstrap, refresh or probe is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let nodes = self.table.len();
        let bootstrap = self.bootstrap.as_ref().and_then(|part| part.next_timeout(nodes));
        let explore = self.explore.as_ref().filter(|_| nodes > 0).and_then(ExploreSchedule::next_timeout);
        let probe = self.probe.as_ref().and_then(ProbeList::next_timeout);
        earlier(bootstrap, earlier(explore, probe))
    }

    pub(crate) fn counts(&self) -> RoutingCounts {
        RoutingCounts {
            include: self.include.as_ref().map(CandidateQueue::counts).unwrap_or_default(),
            probe: self.probe.as_ref().map(ProbeList::counts).unwrap_or_default(),
            refreshes: self.explore.as_ref().map_or(0, ExploreSchedule::total_refreshes),
            automatic_bootstraps: self.bootstraps,
        }
    }

    pub(crate) fn refreshes(&self, cpl: u32) -> u64 {
        self.explore.as_ref().map_or(0, |explore| explore.refreshes(cpl))
    }

    /// Whether the probe list holds a node; `None` if probing is off.
    pub(crate) fn is_probed(&self, node: &F::Node) -> Option<bool> {
        self.probe.as_ref().map(|probe| probe.contains(node))
    }
}
