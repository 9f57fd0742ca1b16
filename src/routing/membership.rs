//! How nodes enter and leave the routing table.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::routing::Routing;
use crate::routing::candidate_list::Origin;
use crate::routing::checks::CLAIM_INTERVAL;
use crate::routing::events::{EmitsRouting, RoutingOutbound};
use crate::routing::table::{Offered, Rejection, SavedNode, TableEntry};
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// Where candidates are not checked, and the rate of what others cause is not limited, whoever claims the key of another
/// node causes no check of that one if it was heard from within this time.
const UNLIMITED_CLAIM_INTERVAL: Duration = Duration::from_secs(60);

impl<F: Family> Routing<F> {
    /// A node is known to be live and to serve: it enters the table if there is room. Also forgets its failed
    /// checks.
    pub(crate) fn offer_live<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        round_trip: Option<Duration>,
        context: impl FnOnce() -> Context,
    ) {
        if self.clients.contains(node) || call.requests.is_banned(call.now, node) {
            return;
        }
        if self.refresh(call.now, node, round_trip) {
            return;
        }
        if let Some(include) = &mut self.include {
            include.forget_failures(node);
        }
        self.returned(call.now, node);
        let offered = self.table.offer(call.now, node, round_trip);
        if offered == Offered::Rejected(Rejection::BucketFull) && self.include.is_some() {
            self.standby.wait(call.now, self.table.cpl(node), node);
        }
        if offered == Offered::Admitted {
            let context = context();
            if let Some(bootstrap) = &mut self.bootstrap {
                bootstrap.grew();
                bootstrap.remembered.moved(node, true);
            }
            if let Some(probe) = &mut self.probe {
                probe.add(call, node);
            }
            call.emit_detached(RoutingOutbound::Admitted(node.clone()), context.clone());
            self.size_changed(call, &context);
        }
    }

    /// A node is known to be live: if it is in the table, refreshes its entry and postpones its probe. Returns
    /// whether it is.
    pub(crate) fn refresh(&mut self, now: Instant, node: &F::Node, round_trip: Option<Duration>) -> bool {
        let known = self.table.refresh(now, node, round_trip);
        if known && let Some(probe) = &mut self.probe {
            probe.postpone(now, node);
        }
        known
    }

    /// Whether the table has room for a node, and the node is not known as a client.
    #[inline]
    pub(crate) fn would_admit(&self, node: &F::Node) -> bool {
        self.table.would_admit(node) && !self.clients.contains(node)
    }

    /// A node is live that is not in the table: if it was lost, those that were lost with it are tried at once.
    fn returned(&mut self, now: Instant, node: &F::Node) {
        let Some(bootstrap) = &mut self.bootstrap else { return };
        let Some(returned) = bootstrap.remembered.returned(now, node) else { return };
        if let Some(include) = &mut self.include {
            for other in &returned.others {
                include.offer(now, other, &SpanContext::NONE, Origin::Returning);
            }
        }
        if returned.is_healing {
            bootstrap.make_due(&SpanContext::NONE);
        }
    }

    /// Whether a node that gave this answer may enter the table: the answer names a node, or include is off, or there may
    /// be nobody to name.
    pub(crate) fn qualifies(&self, closer: &[F::Node]) -> bool {
        self.include.is_none() || !closer.is_empty() || self.is_small()
    }

    /// Whether the table holds so few nodes that the network may be as small.
    pub(super) const fn is_small(&self) -> bool {
        self.table.len() < self.k
    }

    /// A node failed to answer: its probe is due now, and its result decides. If probing is off, this counts
    /// as a failure at once, unless it was asked where the table does not know it to be. While this node is cut off, it
    /// says nothing.
    pub(crate) fn report_failure<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if self.connectivity.is_cut_off() {
            return; // all are checked when it is cut off no longer
        }
        if let Some(probe) = &mut self.probe {
            probe.expedite(call.now, node, context::source(&context()));
        } else if self.was_asked_where_it_is(node) {
            self.count_failure(call, node, context);
        }
    }

    /// Counts a failure of a node, which may remove it. While this node is cut off, it says nothing.
    pub(crate) fn count_failure<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if !self.connectivity.is_cut_off() && self.table.count_failure(node) == Some(0) {
            self.leave_silent(call, node, &context());
        }
    }

    /// Removes a node from the table, if it is there.
    pub(super) fn remove<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if self.table.remove(node) {
            let context = context();
            self.removed(call, node.clone(), context.clone());
            self.size_changed(call, &context);
        }
    }

    /// A node was removed from the table: stops probing it and emits the notice. Who waits for its place is checked.
    pub(super) fn removed<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: F::Node,
        context: Context,
    ) {
        if let Some(probe) = &mut self.probe {
            probe.remove(call, &node);
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remembered.moved(&node, false);
        }
        if let Some(include) = &mut self.include {
            include.key_freed(&F::key(&node));
            let cpl = self.table.cpl(&node);
            if let Some(next) = self.standby.next(call.now, cpl) {
                include.offer(call.now, &next, context::source(&context), Origin::Returning);
            }
        }
        call.emit_detached(RoutingOutbound::Removed(node), context);
    }

    /// The table has changed its size: emits a notice if it has become nearly empty.
    pub(super) fn size_changed<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        context: &Context,
    ) {
        let (nodes, verified) = (self.table.len(), self.table.verified());
        if let Some(explore) = &mut self.explore {
            explore.table_changed(call.now, &self.table, context::source(context));
        }
        self.find_neighbourhood(call.now, context);
        if let Some(bootstrap) = &mut self.bootstrap
            && bootstrap.size_changed(nodes, verified, context::source(context))
        {
            call.emit_detached(RoutingOutbound::NearEmpty { nodes: verified }, context.clone());
        }
    }

    /// Looks up the own key again if no bootstrap has found who is near, and the table holds k nodes now. Else a node that was one of
    /// the first of its network would not [know how dense](crate::maintenance) this is, until that is due anyway.
    pub(super) fn find_neighbourhood(&mut self, now: Instant, context: &Context) {
        let has_k = self.table.verified() >= self.k;
        if let Some(explore) = self.explore.as_mut().filter(|explore| has_k && explore.wants_own_key()) {
            explore.look_up_own_key(now, context::source(context));
        }
    }

    /// A node was heard from directly, but is not known to serve: it is queued for a check, and its failed checks are
    /// forgotten first.
    ///
    /// If another node holds its key, that one may have moved, or this one claims what is not its own: the
    /// [holder is checked](Self::advance_checks) instead. It leaves the table only if its checks fail.
    pub(crate) fn discovered(&mut self, now: Instant, node: &F::Node, context: impl FnOnce() -> Context) {
        let holder = self.table.key_holder(node);
        let is_wanted = if holder.is_some() {
            self.table.local_node().family.admits(node)
        } else {
            self.table.would_admit(node)
        };
        if !is_wanted || self.clients.contains(node) {
            return;
        }
        match (&mut self.include, holder, &mut self.probe) {
            (Some(include), None, _) => {
                include.forget_failures(node);
                include.offer(now, node, context::source(&context()), Origin::Contact);
            }
            (Some(include), Some(holder), Some(_)) => {
                let due = now.max(holder.last_seen() + CLAIM_INTERVAL);
                include.claim(node, context::source(&context()), due);
            }
            (None, Some(holder), Some(probe)) if now - holder.last_seen() >= UNLIMITED_CLAIM_INTERVAL => {
                probe.expedite(now, &holder.node().clone(), context::source(&context()));
            }
            _ => {}
        }
    }

    /// An answer names nodes: those that the table would admit are queued for a check, as far as its giver's share of the
    /// queue has room.
    pub(crate) fn offer_candidates<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        nodes: &[F::Node],
        by: Origin,
        context: impl FnOnce() -> Context,
    ) {
        let nodes = nodes.get(..self.max_closer_nodes).unwrap_or(nodes);
        if F::NODES_CHANGE {
            let context = context();
            for node in nodes {
                self.told(call, node, ToldBy::Others, || context.clone());
            }
            self.queue_candidates(call.now, nodes, by, || context);
        } else {
            self.queue_candidates(call.now, nodes, by, context);
        }
    }

    /// Queues nodes for a check, as far as the table would admit them and there is room.
    fn queue_candidates(
        &mut self,
        now: Instant,
        nodes: &[F::Node],
        by: Origin,
        context: impl FnOnce() -> Context,
    ) {
        let Some(include) = self.include.as_mut() else { return };
        let wanted = |node: &&F::Node| self.table.would_admit(node) && !self.clients.contains(node);
        let mut wanted = nodes.iter().filter(wanted).peekable();
        if wanted.peek().is_some() {
            let context = context();
            wanted.for_each(|node| include.offer(now, node, context::source(&context), by));
        }
    }

    /// A node is known not to serve others: it leaves the table, and is not admitted while it is remembered.
    pub(crate) fn mark_client<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: F::Node,
        context: &Context,
    ) {
        self.standby.forget(self.table.cpl(&node), &node);
        self.remove(call, &node, || context::detached(context));
        self.clients.insert(node);
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Vec<SavedNode<F>> {
        let save = |entry: &TableEntry<F>| SavedNode {
            node: entry.node().clone(),
            age: entry.age(now),
            round_trip: entry.round_trip(),
        };
        let places = self.bootstrap.iter().flat_map(|bootstrap| bootstrap.remembered.to_save(now));
        let places = places.map(|(node, age)| SavedNode { node: node.clone(), age, round_trip: None });
        self.table.iter().map(save).chain(places).collect()
    }

    /// Restores a snapshot: its nodes enter the table as far as there is room, and are probed at once; its seeds are
    /// remembered.
    pub(crate) fn restore<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        saved: Vec<SavedNode<F>>,
        context: &Context,
    ) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.hurry(call.now);
        }
        for SavedNode { mut node, age, round_trip } in saved {
            if F::NODES_CHANGE
                && let Some(known) = self.include.as_ref().and_then(|include| include.known(&node))
            {
                // What is known of it by now counts before what was saved of it.
                let mut merged = known.clone();
                F::update(&mut merged, &node, ToldBy::Others);
                node = merged;
            }
            if age >= SavedNode::<F>::NEVER {
                if !call.requests.is_banned(call.now, &node)
                    && let Some(bootstrap) = &mut self.bootstrap
                {
                    bootstrap.remember(call.now, &[node], &self.table);
                }
                continue;
            }
            if !self.table.would_admit(&node) {
                if self.table.accepts(&node)
                    && self.table.get(&node).is_none()
                    && !call.requests.is_banned(call.now, &node)
                    && let Some(bootstrap) = &mut self.bootstrap
                {
                    bootstrap.remembered.lose(call.now, &node, Duration::ZERO, age);
                }
                continue;
            }
            self.offer_live(call, &node, round_trip, || context::detached(context));
            self.table.mark_restored(&node, age);
            if let Some(probe) = &mut self.probe {
                probe.expedite(call.now, &node, context::source(context));
            }
        }
    }
}
