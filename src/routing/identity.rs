//! What is told about nodes: where they can be reached, that they are gone, that they serve or do not; and what follows
//! if this node itself changes its id or its policy. The rules stand in [`routing`](crate::routing#identity).

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::routing::Routing;
use crate::routing::events::{EmitsRouting, RoutingOutbound};
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::target::Target;

impl<F: Family> Routing<F> {
    /// A node has told about itself: this counts before what others have told.
    pub(super) fn told_by_itself<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if !F::NODES_CHANGE {
            return;
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remembered.told(node, ToldBy::Itself);
        }
        if let Some(include) = &mut self.include {
            include.told_by_itself(node);
        }
        self.standby.told_by_itself(self.table.cpl(node), node);
        if self.table.local_node().family.admits(node) {
            call.requests.update_waiting(node);
        }
        self.told(call, node, ToldBy::Itself, context);
    }

    /// Others have named nodes: for those of the table, what the table knows counts.
    pub(crate) fn correct(&self, named: &mut [F::Node]) {
        if F::NODES_CHANGE {
            for node in named {
                if let Some(entry) = self.table.get(node) {
                    node.clone_from(entry.node());
                }
            }
        }
    }

    /// Whether a request to this node went to where the table knows it to be, so that its failure says something about
    /// the table's entry.
    pub(crate) fn was_asked_where_it_is(&self, asked: &F::Node) -> bool {
        !F::NODES_CHANGE
            || self.table.get(asked).is_none_or(|entry| {
                let mut known = entry.node().clone();
                !F::update(&mut known, asked, ToldBy::Itself)
            })
    }

    /// Something is told about a node: if that changes what the table knows of it, emits the notice. A node that moves
    /// to a group which has as many nodes in the table as it may leaves the table.
    pub(crate) fn told<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        by: ToldBy,
        context: impl FnOnce() -> Context,
    ) {
        if !F::NODES_CHANGE {
            return;
        }
        let Some(entry) = self.table.get(node) else { return };
        let mut updated = entry.node().clone();
        if !F::update(&mut updated, node, by) {
            return;
        }
        if !self.table.local_node().family.admits(&updated) {
            // Others cannot move it to where it is not admitted; it can itself, and leaves.
            if by == ToldBy::Itself {
                self.remove(call, &updated, context);
            }
            return;
        }
        self.table.replace(&updated);
        if self.table.exceeds_group_limits(&updated) {
            // It has moved to where enough others are.
            self.remove(call, &updated, context);
            return;
        }
        if let Some(probe) = &mut self.probe {
            probe.set_node(&updated);
        }
        call.emit_detached(RoutingOutbound::Updated(updated), context());
    }

    /// A node serves others: it is no client any more.
    #[inline]
    pub(crate) fn serves_again(&mut self, node: &F::Node) {
        self.clients.remove(node);
    }

    /// A node is gone: it leaves the table, the seeds and the queue of candidates at once.
    pub(crate) fn gone<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if let Some(include) = &mut self.include {
            include.withdraw(node);
        }
        self.gone_from_table(call, node, context);
    }

    /// The same, but it may be a candidate.
    pub(crate) fn gone_from_table<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remembered.forget(node);
        }
        self.standby.forget(self.table.cpl(node), node);
        self.remove(call, node, context);
    }

    /// The value of the family has changed: nodes that it does not admit leave the table.
    pub(super) fn change_family<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        family: F,
        context: &Context,
    ) {
        for node in self.table.set_family(family) {
            self.remove(call, &node, || context::detached(context));
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remembered.retain_accepted(&self.table);
        }
    }

    /// This node has another id: the table is sorted anew around its key, and a bootstrap is due.
    pub(super) fn change_identity<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        target: F::Target,
        context: &Context,
    ) {
        if target == self.table.local_node().target {
            return;
        }
        if let Some(include) = &mut self.include {
            include.set_own_target(target.clone());
        }
        if let Some(probe) = &mut self.probe {
            probe.set_own_target(target.clone());
        }
        self.standby.clear();
        call.requests.change_own_key(self.table.local(), target.key());
        let link = context::detached(context);
        for node in self.table.rekey(target) {
            self.removed(call, node, link.clone());
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remembered.retain_accepted(&self.table);
            bootstrap.make_due(context::source(context));
        }
        if let Some(explore) = &mut self.explore {
            explore.identity_changed(call.now, self.bootstrap.is_some(), context::source(context));
        }
        self.size_changed(call, &link);
    }

    /// The node that the table belongs to.
    pub(crate) const fn local_node(&self) -> &LocalNode<F> {
        self.table.local_node()
    }
}
