//! Routing maintenance: the routing table keeps itself up to date.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | an answer names a node | it becomes a candidate of [include](crate::Include), if the table would admit it and it has not [failed lately](crate::IncludeConfig::retry_interval); each answerer has a [share](crate::IncludeConfig#shares) of the queue, and who is named by two goes first |
//! | the driver reports a node as [discovered](crate::RoutingInbound::Discovered) or as a server | the same, in a share of their own and [at a bounded rate](crate::IncludeConfig::unsolicited_interval), and its failed checks are forgotten |
//! | the same, and another node of the table has its key | the node of the table is checked, at the same bounded rate, 10 s after it was last heard from, and once a minute; it leaves only if its checks fail, and then the claimant is checked at once |
//! | the check of a candidate is past its [soft limit](crate::NetworkConfig::soft_timeout) | the next candidate is checked; until the deadline an answer counts in full |
//! | it has no answer | it is checked once more, if two have named it, or if nobody has but there is room |
//! | a candidate passes its check | it is offered to the table. A full bucket keeps its nodes: one that has failed holds its place until it has failed [as often as removes it](crate::TableConfig::max_failures). Up to four others wait for a place in each full bucket (the replacement cache), one of a group: when one is free, the one that answered last, within a quarter of an hour, is checked |
//! | a node answers a request of this machine, and its answer names a node, or it is a seed of a bootstrap, or the table holds fewer nodes than a lookup searches for: there may be nobody to name | it is offered to the table |
//! | a node of the table answers a request of this machine | its entry is refreshed, and its [probe](crate::Probe) postponed |
//! | a request times out, fails, or [could not be sent](crate::Failure::Unreachable) | nothing is removed: the node's probe is due now, and its result decides |
//! | [nobody accepts](crate::Failure::ConnectionRefused) where the node is said to be | counts as a failed probe at once |
//! | [parts](crate::Response::part) of an answer came, and the last did not | as if it had been answered |
//! | the node is gone, as the driver [reports](crate::RoutingInbound::Gone) or a [request shows](crate::Failure::Gone) | it leaves the table, the seeds and the queue of candidates at once |
//! | the driver [bans](crate::RoutingInbound::Banned) a node | the same; it is neither asked nor admitted until the time has passed |
//! | the node is a [client](crate::RoutingInbound::Client) | it leaves the table, and is not admitted until it is reported as a [server](crate::RoutingInbound::Server) or answers a request of an operation by naming a node |
//! | a request is cancelled because its operation ended | nothing |
//! | a node is heard from while its probe is in flight | whatever becomes of the probe, it has not failed |
//! | [`TableConfig::max_failures`](crate::TableConfig::max_failures) probes in a row fail (of a restored node that was not heard from since: two at most), and others answer meanwhile | the node is removed, and [remembered](#places-to-come-back-to) |
//! | so many fail, and hardly anybody answers | [this node is cut off](#own-connectivity), and nobody is removed |
//! | fewer than [`BootstrapConfig::min_nodes`](crate::BootstrapConfig::min_nodes) nodes are left | a [`NearEmpty`](crate::RoutingOutbound::NearEmpty) notice, and an automatic bootstrap from the remembered nodes, unless a bootstrap is running; again, ever more rarely, as long as that brings no node |
//! | the caller starts a bootstrap while an automatic one is running | it replaces the automatic one, whose requests are cancelled without a notice, and begins from its seeds too |
//! | a bootstrap ends | a [`Bootstrapped`](crate::RoutingOutbound::Bootstrapped) notice; explore refreshes the buckets farther away than the closest neighbour, where [somebody can be](#where-somebody-can-be) |
//! | time passes | explore refreshes buckets and looks up the own key, as [`ExploreConfig`](crate::ExploreConfig) says |
//!
//! # Where somebody can be
//!
//! The nearest buckets of a table are empty because nobody is there: in a network of n nodes, from cpl log2 n on. A bucket
//! is refreshed only if
//!
//! * it holds a node, or
//! * two or more nodes are to be expected there: each bucket has half as many as the one before it, and the nearest full
//!   bucket shows how many there are. If no bucket is full, that is every bucket farther than the nearest known node, and
//!   those of cpl 0 to 2 in any case. If such a refresh finds nobody, it is not repeated until the bucket has held a node
//!   or the next bootstrap has ended.
//!
//! All nearer buckets are covered by the lookup of the own key, which has an entry of its own in the schedule and is due as
//! often as the nearest bucket, [`max_cpl`](crate::ExploreConfig::max_cpl), would be: once an hour by default. A bucket that is
//! skipped costs no wake-up; when a node enters it that was due in the meantime, its refresh begins at once, with a link to
//! the event that brought the node. In a week among 5,000 nodes, 42 refreshes and 23 lookups of the own key a day were made,
//! less than 0.5 % of the refreshes where nobody was (`kad-simulate --weather T11`).
//!
//! # A node at rest
//!
//! What the maintenance costs a node of a network of 10,000 that nobody uses and that changes nowhere, with a table of some
//! 190 nodes (`kad-simulate --weather T15`, means of five seeds):
//!
//! | profile | requests an hour | wake-ups an hour | a dead node leaves the table after | own key looked up each |
//! | --- | --- | --- | --- | --- |
//! | [`Config::default`](crate::Config) | 872 | 717 | at most 15.5 min | 1 h |
//! | [`Config::quiet`](crate::Config::quiet) | 61 | 26 | at most 4 h | 6 h |
//!
//! Four fifths of the requests are probes. A lookup that asks a dead node has it probed at once, and then it leaves after
//! four checks, half a minute. Nodes that answer a lookup are not probed for another interval: a node that is used sends
//! fewer probes.
//!
//! # Identity
//!
//! A node is what [`PartialEq`] of its id says: see [`Family`](crate::Family#a-node-is-an-identity). What is told about
//! one that is known is merged by [`update`](crate::Family::update): the node's own word in the table, the seeds
//! and the queue of candidates, and that of others in the table and in lookups that have no answer of it yet. If the
//! table's entry changes, an [`Updated`](crate::RoutingOutbound::Updated) notice says so. A node that moves into a
//! [group](crate::Family::group) that has as many nodes in the table as it may leaves the table.
//!
//! A node whose key another node of the table has is not admitted while that one is there: where the transport does not
//! prove identity, anybody can claim a key. If it [contacts](crate::RoutingInbound::Discovered) this node, the holder of
//! the key is checked, 10 s after it was last heard from, but not twice within a minute; it leaves when as many of its checks in a row
//! have failed as [`TableConfig::max_failures`](crate::TableConfig::max_failures) says, and the claimant is checked in the same
//! call. Claims have a [share of the queue of candidates](crate::IncludeConfig#shares), and together with the checks of nodes
//! that nobody else has named a bounded rate: nobody can make this node send more requests than that by claims. Where
//! [include](crate::RoutingConfig::include) is off, a holder is checked at once, unless it was heard from within a minute. The
//! [guide](crate::guide::bring_your_own_wire) has the table of all cases.
//!
//! # Own connectivity
//!
//! A node that nothing gets through to must not take all others for dead. The driver tells it by
//! [`LinkDown`](crate::RoutingInbound::LinkDown) and [`LinkUp`](crate::RoutingInbound::LinkUp), if it can, also before the
//! machine sleeps and after it; else it is inferred, as far as the table is [probed](crate::RoutingConfig::probe). A
//! [`CutOff`](crate::RoutingOutbound::CutOff) and a [`Reconnected`](crate::RoutingOutbound::Reconnected) notice say so.
//!
//! * A node of the table leaves for its silence only if others have answered since its last check but one: three, of
//!   different groups, or all that the table knows to be live. If they have not, it stays, its checks back off, and up to
//!   eight others, those heard from last, are checked first.
//! * Each node of the table that falls silent adds one to a sum, each group that answers takes 16 away, but not again within
//!   two minutes; three groups that answer within 15 s take all away. At 8, eight nodes are checked at once; at 16, or at
//!   the size of the table if nobody at all answers, this node is cut off. One node of 32 may go on answering, as a neighbour in the
//!   local network does; with more, this node cannot tell an outage from a death of all others, and takes it for that: they
//!   leave, and are remembered. Only nodes count that have been heard from since they entered the table, so the silence of
//!   seeds and restored nodes is no evidence.
//! * While it is cut off, nobody leaves for silence, no failure counts, and nothing begins by itself but a test of one node
//!   at a time: after 5 s, then after an eighth of the time that has passed, at most 75 s; some 80 in the first hour. If the
//!   driver said it, nothing is tested. Operations of the caller go on.
//! * It is over when somebody is heard from: by an answer, or a report of the driver's. If anybody had answered within two
//!   minutes before, two others must be. Then all nodes of the table that were not heard from within a minute are probed, the
//!   nearest first, at most 20 a second, and failures of before are forgotten. For half an hour after it, four times as many must
//!   fall silent, as it may have been a mistake: nearly all may have died at once.
//! * After a jump of time (a call that is later than [`poll_timeout`](crate::Machine::poll_timeout) by more than a minute),
//!   no refresh begins until somebody was heard from: the link often comes back later than the machine.
//!
//! # Places to come back to
//!
//! Remembered are the [seeds](crate::RoutingInbound::Seeds), and the nodes that have left the table for their silence, at
//! most [so many](crate::BootstrapConfig::max_lost), those first that had been in it for longest, and eight of a group at
//! most. One of those that are not in the table is tried each
//! [minute](crate::BootstrapConfig::return_interval) in turn; ever more rarely when each has been, down to one in 16 min. If
//! one comes back,
//! those that were lost within ten minutes of it are tried at once; if three come back, a bootstrap is due: so a network that
//! was split grows together again. All of them are part of the [snapshot](crate::Coordinator::snapshot).
//!
//! # How it is built
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
//! | `table.rs`, `table_view.rs` | the k-buckets; their nodes as a value, for the tasks that serve others |
//! | `membership.rs` | how nodes enter and leave the table |
//! | `identity.rs` | what is told about nodes: addresses, gone, client and server; changes of this node's own id |
//! | `checks.rs`, `liveness_check.rs` | checks of candidates and of table nodes; what both have in common |
//! | `candidate_queue.rs`, `candidate_list.rs`, `failed_checks.rs` | include: when candidates are checked; who waits and who goes first; who is in backoff |
//! | `include.rs` | include as a machine |
//! | `probe_list.rs`, `probe.rs` | probe: the list of table nodes, and as a machine |
//! | `due_lookups.rs` | the lookups that maintenance starts: bootstraps and refreshes |
//! | `bootstrap_schedule.rs`, `explore_schedule.rs` | when these are due |
//! | `client_list.rs` | nodes known not to serve others |
//! | `connectivity.rs`, `cut_off.rs` | whether this node is cut off; what follows from that |
//! | `remembered.rs` | places to come back to |
//! | `standby.rs` | the replacement cache: who waits for a place in a full bucket |
//! | `config.rs`, `events.rs` | configuration; events in and out |

pub(crate) mod bootstrap_schedule;
pub(crate) mod candidate_list;
pub(crate) mod candidate_queue;
mod checks;
mod client_list;
pub(crate) mod config;
mod connectivity;
mod cut_off;
mod due_lookups;
pub(crate) mod events;
pub(crate) mod explore_schedule;
mod failed_checks;
mod identity;
pub mod include;
mod liveness_check;
mod membership;
pub mod probe;
pub(crate) mod probe_list;
mod remembered;
mod standby;
pub mod table;
pub(crate) mod table_view;
#[cfg(test)]
mod tests;

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::routing::bootstrap_schedule::BootstrapSchedule;
use crate::routing::candidate_queue::CandidateQueue;
use crate::routing::client_list::ClientList;
use crate::routing::config::{RoutingConfig, RoutingCounts};
use crate::routing::connectivity::Connectivity;
use crate::routing::events::{EmitsRouting, RoutingInbound};
use crate::routing::explore_schedule::ExploreSchedule;
use crate::routing::probe_list::ProbeList;
use crate::routing::standby::Standby;
use crate::routing::table::{RoutingTable, TableEntry};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::secret::Seeds;
use crate::vocabulary::time::{Instant, earlier};
use core::time::Duration;

/// A machine that is called more often than this has not slept.
const QUIET: Duration = Duration::from_secs(60);

/// The routing table and the parts that maintain it; a part that is off is `None`, and takes only a pointer.
#[derive(Clone, Debug)]
pub(crate) struct Routing<F: Family> {
    pub(crate) table: RoutingTable<F>,
    bootstrap: Option<Box<BootstrapSchedule<F>>>,
    include: Option<Box<CandidateQueue<F>>>,
    probe: Option<Box<ProbeList<F>>>,
    explore: Option<Box<ExploreSchedule>>,
    /// Who waits for a place in a full bucket. Only where candidates are checked.
    standby: Standby<F>,
    clients: ClientList<F>,
    connectivity: Connectivity,
    /// When the machine was last called.
    last_call: Instant,
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
        let (local, hash) = (&table.local_node().target, seeds.hash);
        let has_tries = config.include.is_some();
        let mut probe = config.probe.map(|probe| ProbeList::new(local.clone(), &probe, hash)).transpose()?;
        if let Some(probe) = &mut probe {
            table.iter().for_each(|entry| probe.insert(entry.node(), entry.last_seen()));
        }
        Ok(Self {
            bootstrap: config
                .bootstrap
                .map(|bootstrap| BootstrapSchedule::new(bootstrap, has_tries, seeds.choices))
                .transpose()?
                .map(Box::new),
            include: config
                .include
                .map(|include| CandidateQueue::new(local.clone(), &include, seeds))
                .transpose()?
                .map(Box::new),
            table,
            probe: probe.map(Box::new),
            explore: config
                .explore
                .map(|explore| ExploreSchedule::new::<F::Key>(explore, true, seeds.choices))
                .transpose()?
                .map(Box::new),
            standby: Standby::new(),
            clients: ClientList::new(config.max_clients, hash),
            connectivity: Connectivity::new(),
            last_call: Instant::ORIGIN,
            max_closer_nodes,
            k,
            bootstraps: 0,
        })
    }

    /// To be called at the beginning of each call; at the first one, the schedules start.
    pub(crate) fn start_schedules(&mut self, now: Instant) {
        if let Some(explore) = &mut self.explore {
            explore.start(now, &self.table);
        }
    }

    /// To be called at the beginning of each call, before anything is done that was due.
    #[inline]
    pub(crate) fn called(&mut self, now: Instant, due: impl FnOnce(&Self) -> Option<Instant>) {
        if now - self.last_call > QUIET {
            let due = due(self);
            self.connectivity.called(now, due);
        }
        self.last_call = now;
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
                    call.requests.observe(round_trip, &node);
                }
                self.heard(call, &node, || context::detached(context));
                self.told_by_itself(call, &node, || context::detached(context));
                self.offer_live(call, &node, round_trip, || context::detached(context));
            }
            RoutingInbound::Disconnected(node) => {
                self.report_failure(call, &node, || context::detached(context));
            }
            RoutingInbound::Discovered(node) => {
                self.heard(call, &node, || context::detached(context));
                self.told_by_itself(call, &node, || context::detached(context));
                self.discovered(call.now, &node, || context::detached(context));
            }
            RoutingInbound::Client(node) => self.mark_client(call, node, context),
            RoutingInbound::Server(node) => {
                self.heard(call, &node, || context::detached(context));
                self.serves_again(&node);
                self.told_by_itself(call, &node, || context::detached(context));
                self.discovered(call.now, &node, || context::detached(context));
            }
            RoutingInbound::Gone(node) => self.gone(call, &node, || context::detached(context)),
            RoutingInbound::Banned { node, duration } => {
                self.gone(call, &node, || context::detached(context));
                call.requests.ban(call.now, node, call.now + duration);
            }
            RoutingInbound::Family(family) => self.change_family(call, family, context),
            RoutingInbound::Identity(target) => self.change_identity(call, target, context),
            RoutingInbound::LinkDown => self.lose(call, context),
            RoutingInbound::LinkUp => self.regain(call, &context::detached(context)),
            RoutingInbound::Seeds(seeds) => self.remember_seeds(call.now, &seeds),
            RoutingInbound::Restore(saved) => self.restore(call, saved, context),
        }
        self.link_due_bootstrap(call.now, context);
    }

    /// When the next bootstrap, refresh, try, probe or check of a candidate is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.connectivity.is_cut_off() {
            return self.next_test();
        }
        let (nodes, verified) = (self.table.len(), self.table.verified());
        let bootstrap = self.bootstrap.as_ref().and_then(|part| part.next_timeout(nodes, verified));
        let bootstrap = earlier(bootstrap, self.next_try());
        let explore = self.explore.as_ref().filter(|_| self.connectivity.may_explore());
        let explore = explore.and_then(|part| part.next_timeout());
        let probe = self.probe.as_ref().and_then(|part| part.next_timeout());
        let include = self.include.as_ref().and_then(|part| part.next_timeout());
        earlier(earlier(bootstrap, include), earlier(explore, probe))
    }

    pub(crate) fn counts(&self) -> RoutingCounts {
        RoutingCounts {
            include: self.include.as_ref().map(|part| part.counts()).unwrap_or_default(),
            probe: self.probe.as_ref().map(|part| part.counts()).unwrap_or_default(),
            refreshes: self.explore.as_ref().map_or(0, |part| part.total_refreshes()),
            own_lookups: self.explore.as_ref().map_or(0, |part| part.own_lookups()),
            automatic_bootstraps: self.bootstraps,
        }
    }

    pub(crate) fn refreshes(&self, cpl: u32) -> u64 {
        self.explore.as_ref().map_or(0, |explore| explore.refreshes(cpl))
    }

    /// Visits all nodes that the table and its maintenance hold.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.table.iter().map(TableEntry::node).for_each(&mut *visit);
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap.remembered.visit_nodes(visit);
        }
        self.clients.visit_nodes(visit);
        self.standby.visit_nodes(visit);
        if let Some(include) = &self.include {
            include.visit_nodes(visit);
        }
    }

    /// Whether the probe list holds a node; `None` if probing is off.
    pub(crate) fn is_probed(&self, node: &F::Node) -> Option<bool> {
        self.probe.as_ref().map(|probe| probe.contains(node))
    }
}
