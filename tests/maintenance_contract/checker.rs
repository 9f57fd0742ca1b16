//! The checker of the routing maintenance: passes every event to the machine under the
//! [`ContractChecker`], and asserts besides what must hold of the maintenance of a table.

use super::family::{Grouped, LOCAL, REFUSED, node};
use super::machine_under_test::{In, MaintainsTable, Out};
use super::{BUCKET_SIZE, MAX_CHECKS, MAX_CLIENTS, MAX_QUEUED, MIN_NODES};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::routing::table::SavedNode;
use kad_proto::testing::ContractChecker;
use kad_proto::{
    CancelReason, Config, Failure, Family, Initiator, Instant, Key, Key8, OperationId, RequestId, Response,
    RoutingInbound, RoutingOutbound,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) struct MaintenanceChecker<M> {
    machine: M,
    contract: ContractChecker<Grouped>,
    config: Config,
    now: Instant,
    /// Time has passed since the last call.
    clock_advanced: bool,
    /// The operations of the caller that are live, and whether each is a bootstrap.
    operations: BTreeMap<OperationId, bool>,
    /// Failed probes in a row, by node.
    failures: BTreeMap<Key8, usize>,
    /// Nodes that were restored and not heard from since.
    restored: BTreeSet<Key8>,
    is_cut_off: bool,
    clients: Vec<Key8>,
    /// The models of lookups know no bans, so there are some only without models.
    allows_bans: bool,
    /// Banned nodes, and until when.
    bans: BTreeMap<Key8, Instant>,
    /// Requests of whose answer a part has come, and whether that names a node.
    parts: BTreeMap<RequestId, bool>,
    tally: BTreeMap<&'static str, u64>,
}

impl<M: MaintainsTable> MaintenanceChecker<M> {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        let (contract, bans) = (ContractChecker::new(LOCAL, config.clone()).unwrap(), seed.is_multiple_of(4));
        Self {
            allows_bans: bans || !M::HAS_LOOKUPS,
            machine: M::build(config.clone(), seed),
            contract: if bans && M::HAS_LOOKUPS { contract.without_models() } else { contract },
            config,
            now: Instant::from_secs(1),
            clock_advanced: false,
            operations: BTreeMap::new(),
            failures: BTreeMap::new(),
            restored: BTreeSet::new(),
            is_cut_off: false,
            clients: Vec::new(),
            bans: BTreeMap::new(),
            parts: BTreeMap::new(),
            tally: BTreeMap::new(),
        }
    }

    pub(crate) const fn allows_bans(&self) -> bool {
        self.allows_bans
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// A request in flight, selected by `number`.
    pub(crate) fn request_in_flight(&self, number: u8) -> Option<(RequestId, Key8)> {
        let mut open: Vec<_> = self.contract.requests().iter().map(|(id, sent)| (*id, sent.node)).collect();
        open.sort_unstable();
        open.get(usize::from(number) % open.len().max(1)).copied()
    }

    /// A node of the table, selected by `number`.
    pub(crate) fn member(&self, number: u8) -> Option<Key8> {
        let table = self.machine.routing_table();
        table.iter().nth(usize::from(number) % table.len().max(1)).map(|entry| *entry.node())
    }

    pub(crate) fn snapshot(&self) -> Vec<SavedNode<Grouped>> {
        self.machine.snapshot(self.now)
    }

    pub(crate) fn operation(&self, tag: u64) -> Option<OperationId> {
        self.machine.operation(tag)
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        self.clock_advanced = true;
    }

    /// Advances to the next wake-up and checks that it is not too early.
    pub(crate) fn advance_to_wake_up(&mut self) {
        let Some(wake) = self.machine.poll_timeout() else {
            self.call(Inbound::Tick.into());
            return;
        };
        if wake <= self.now {
            assert!(self.clock_advanced, "wake-up: in the future unless time has passed");
            self.catch_up();
            return;
        }
        // At a soft limit, or where requests wait for capacity, or for a candidate that is dropped, or a remembered node whose turn it
        // is while it is banned, a wake-up may have no visible effect.
        let explains = self.machine.request_stats().queued > 0
            || self.machine.routing_counts().include.queued > 0
            || self.is_busy()
            || self.bans.values().any(|until| *until > wake)
            || self.contract.requests().iter().any(|(_, sent)| sent.initiator != Initiator::Probe);
        (self.now, self.clock_advanced) = (wake, false);
        let silent = self.call(Inbound::Tick.into()).is_empty();
        let waits = self.machine.request_stats().queued > 0 || self.is_busy();
        assert!(!silent || explains || waits, "wake-up: a tick at {wake} has an effect");
    }

    /// Time passes before the event is handled: the call must equal a tick followed by the event.
    pub(crate) fn handle_event(&mut self, event: In) {
        if !self.clock_advanced {
            self.call(event);
            return;
        }
        let both = self.machine.clone().handle(self.now, event.clone());
        let mut apart = self.catch_up();
        apart.extend(self.call(event));
        assert_eq!(both, apart, "order: time passes before the event is handled, as by a tick");
    }

    /// Whether as many requests are in flight as the limits allow, in total or to some node.
    fn is_busy(&self) -> bool {
        let network = &self.config.network;
        let mut to = BTreeMap::new();
        self.contract.requests().iter().for_each(|(_, sent)| *to.entry(sent.node).or_insert(0) += 1);
        // More where answers are listened to, which take no place in flight.
        self.contract.requests().len() >= network.max_in_flight
            || to.values().any(|most| *most == network.max_per_node)
    }

    fn catch_up(&mut self) -> Vec<Out> {
        self.clock_advanced = false;
        self.call(Inbound::Tick.into())
    }

    /// Advances until all operations have ended. Returns the tally.
    pub(crate) fn finish(mut self) -> BTreeMap<&'static str, u64> {
        while !self.operations.is_empty() {
            self.advance_to_wake_up();
        }
        self.tally.insert("call", self.contract.tally().get("call").copied().unwrap_or(0));
        self.tally
    }

    fn call(&mut self, event: In) -> Vec<Out> {
        // The node that leaves the table if it is there: a client, gone or banned.
        let mut leaves = None;
        // The node that has answered a check by naming nodes: if it was taken for a client, it serves again.
        let mut serves = None;
        let asked = |id| self.contract.requests().iter().find(|(open, _)| *open == id).cloned();
        match &event.event {
            Inbound::Response(Response { request, result, .. }) => {
                if let Some((_, sent)) = asked(*request) {
                    let is_part = result.as_ref().is_ok_and(|answer| answer.is_part);
                    let named = self.parts.get(request).copied().unwrap_or(false);
                    let names = named || result.as_ref().is_ok_and(|answer| !answer.closer.is_empty());
                    let is_check = matches!(sent.initiator, Initiator::Include | Initiator::Probe);
                    if names && !is_check && !is_part {
                        // It answers as a server.
                        self.clients.retain(|client| *client != sent.node);
                    }
                    if is_part {
                        self.parts.insert(*request, names);
                    } else if names && is_check {
                        serves = Some(sent.node);
                    }
                    match result {
                        Err(Failure::Gone) => leaves = Some(sent.node),
                        Err(Failure::ConnectionRefused) if sent.initiator != Initiator::Probe => {
                            self.failed(sent.node, !is_check);
                        }
                        _ => {}
                    }
                    if result.is_ok() && (is_part || sent.initiator != Initiator::Include || names) {
                        self.heard(&sent.node);
                    } else if result.is_err() {
                        self.failed(sent.node, sent.initiator == Initiator::Probe);
                    }
                }
            }
            Inbound::Routing(RoutingInbound::Connected { node, .. }) => self.heard(node),
            Inbound::Routing(RoutingInbound::LinkUp) => self.failures.clear(),
            Inbound::Routing(RoutingInbound::Server(node)) => {
                self.clients.retain(|client| client != node);
            }
            Inbound::Routing(RoutingInbound::Gone(node)) => leaves = Some(*node),
            Inbound::Routing(RoutingInbound::Banned { node, duration }) => {
                leaves = Some(*node);
                self.bans.insert(*node, self.now + *duration);
            }
            Inbound::Routing(RoutingInbound::Client(node)) => {
                leaves = Some(*node);
                if !self.clients.contains(node) {
                    self.clients.push(*node);
                    self.clients.drain(..self.clients.len().saturating_sub(MAX_CLIENTS));
                }
            }
            _ => {}
        }
        let out = self.contract.call(&mut self.machine, self.now, &event);
        for stamped in &out {
            match &stamped.event {
                Outbound::Started(started) => {
                    let bootstrap = matches!(&event.event, Inbound::Start(start) if start.target == LOCAL);
                    self.operations.insert(started.operation, bootstrap);
                }
                Outbound::Refused(_) => self.count("refused"),
                Outbound::Request(request) => {
                    let ban = self.bans.get(&request.node);
                    assert!(ban.is_none_or(|until| *until <= self.now), "banned: not asked: {request:?}");
                    self.count("request");
                    self.count_initiator(request.initiator);
                }
                Outbound::Cancel(cancel) => {
                    let is_check = matches!(cancel.initiator, Initiator::Include | Initiator::Probe);
                    if cancel.reason == CancelReason::Incomplete && self.parts[&cancel.id] {
                        if is_check {
                            serves = Some(cancel.node);
                        } else {
                            self.clients.retain(|client| *client != cancel.node);
                        }
                    }
                    let failed =
                        cancel.reason == CancelReason::TimedOut && cancel.initiator == Initiator::Probe;
                    self.failed(cancel.node, failed);
                    self.count("cancel");
                    self.count_initiator(cancel.initiator);
                }
                Outbound::Progress(_) => {}
                Outbound::Finished(finish) => {
                    if self.operations.remove(&finish.operation) == Some(true) {
                        self.count("joined");
                    }
                }
                Outbound::Routing(RoutingOutbound::Admitted(node)) => {
                    self.heard(node);
                    if serves == Some(*node) {
                        self.clients.retain(|client| client != node);
                    }
                    if matches!(event.event, Inbound::Routing(RoutingInbound::Restore(_))) {
                        self.restored.insert(*node);
                    }
                    let ban = self.bans.get(node);
                    assert!(ban.is_none_or(|until| *until <= self.now), "banned: not admitted: {node:?}");
                    self.count("admitted");
                }
                Outbound::Routing(RoutingOutbound::Removed(node)) => {
                    let failures = self.failures.remove(node).unwrap_or(0);
                    let most = self.config.table.max_failures;
                    let dead = failures >= if self.restored.contains(node) { most.min(2) } else { most };
                    assert!(
                        dead || leaves == Some(*node),
                        "table: removed only after failed probes, or as a client, gone or banned: {node:?} failed {failures} probes"
                    );
                    self.count("removed");
                }
                Outbound::Routing(RoutingOutbound::CutOff { told }) => {
                    self.is_cut_off = true;
                    self.count(if *told { "cut off, as told" } else { "cut off, as inferred" });
                }
                Outbound::Routing(RoutingOutbound::Reconnected { .. }) => {
                    self.is_cut_off = false;
                    self.failures.clear();
                    self.count("reconnected");
                }
                Outbound::Routing(RoutingOutbound::Bootstrapped(_)) => self.count("bootstrapped"),
                Outbound::Routing(RoutingOutbound::NearEmpty { nodes }) => {
                    assert!(*nodes < MIN_NODES);
                    self.count("near empty");
                }
                other => panic!("{other:?}"),
            }
        }
        self.check_between_calls();
        out
    }

    fn heard(&mut self, node: &Key8) {
        self.failures.remove(node);
        self.restored.remove(node);
    }

    /// A failure of a node counts, unless the machine is cut off.
    fn failed(&mut self, node: Key8, counts: bool) {
        *self.failures.entry(node).or_insert(0) += usize::from(counts && !self.is_cut_off);
    }

    fn count_initiator(&mut self, initiator: Initiator) {
        match initiator {
            Initiator::Operation(_) => {}
            Initiator::Include => self.count("include"),
            Initiator::Probe => self.count("probe"),
            Initiator::Explore => self.count("explore"),
            _ => self.count("bootstrap"),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// Checks what holds after every call.
    fn check_between_calls(&mut self) {
        let (machine, config) = (&self.machine, &self.config);
        let (request_stats, counts) = (machine.request_stats(), machine.routing_counts());
        let table = machine.routing_table();
        // Include checks and probes: bounded in number, one for each node, and none is lost.
        let nodes = |initiator| {
            let of = self.contract.requests().iter().filter(move |(_, open)| open.initiator == initiator);
            let of = of.map(|(_, open)| open.node).collect::<Vec<_>>();
            (of.len() as u64, of.into_iter().collect::<BTreeSet<_>>())
        };
        let ((included, candidates), (probed, probes)) = (nodes(Initiator::Include), nodes(Initiator::Probe));
        assert!(
            included == candidates.len() as u64 && probed == probes.len() as u64,
            "checks: one for each node"
        );
        assert!(probes.iter().all(|node| table.get(node).is_some()), "probe: only nodes of the table");
        let (include, probe) = (counts.include, counts.probe);
        let checked = include.in_flight.checked_sub(include.listening).unwrap();
        assert!(checked <= MAX_CHECKS && probe.in_flight <= MAX_CHECKS && include.queued <= MAX_QUEUED);
        assert!(include.listening <= 8 * MAX_CHECKS, "checks: few are listened to");
        let wait = (include.in_flight + probe.in_flight).checked_sub(included + probed);
        assert!(
            wait.is_some_and(|wait| wait <= request_stats.queued),
            "checks: each is in flight or queued: {wait:?}"
        );
        let dropped = include.duplicate + include.dropped + include.backed_off + include.unwanted;
        let known = dropped + include.passed + include.failed;
        assert_eq!(include.offered, known + include.in_flight + include.queued);
        if include.queued > 0 && checked < MAX_CHECKS && !self.is_cut_off {
            let until = self.now + config.routing.include.as_ref().unwrap().unsolicited_interval;
            let is_held_back = machine.poll_timeout().is_some_and(|at| at <= until);
            assert!(
                self.is_busy() || is_held_back,
                "include: a candidate waits only for capacity, or its rate"
            );
        }
        // At most one bootstrap if the machine has started one by itself. Of one that has ended, slow requests may be
        // listened to: what was sent just now is of one that goes on.
        let mut open = self.contract.requests().iter().map(|(_, open)| open);
        let ours = open.any(|open| open.initiator == Initiator::Bootstrap && open.at == self.now);
        assert!(!ours || !self.operations.values().any(|bootstrap| *bootstrap), "bootstrap: one at a time");
        // The table and the list of nodes to probe agree.
        assert_eq!(probe.nodes, table.len() as u64);
        let mut groups = BTreeMap::new();
        for record in table.iter() {
            let known = record.node();
            assert_eq!(machine.is_probed(known), Some(true), "probe: every node of the table: {known:?}");
            assert!(*known != node(REFUSED) && *known != LOCAL);
            assert!(!self.clients.contains(known), "table: no clients: {known:?}");
            if let Some(group) = Grouped::group(known) {
                *groups.entry((group, None)).or_insert(0) += 1;
                *groups.entry((group, Some(known.common_prefix_len(&LOCAL)))).or_insert(0) += 1;
            }
        }
        assert!((0..8).all(|cpl| table.bucket(cpl).len() <= 2 * BUCKET_SIZE));
        for ((_, bucket), members) in groups {
            let most = match bucket {
                None => config.table.max_per_group,
                Some(_) => config.table.max_per_group_in_bucket,
            };
            assert!(members <= most, "table: group limit: {members}");
        }
    }
}
