//! The routing table: it agrees with its events, and, where the events alone determine it, with what they say.

use crate::context::Context;
use crate::coordinator::events::Outbound;
use crate::routing::events::{RoutingInbound, RoutingOutbound};
use crate::routing::table::Offered;
use crate::testing::broken::{Checked, ensure, ensure_eq};
use crate::testing::checker::{CheckedCall, ContractChecker};
use crate::testing::machine_under_test::MachineUnderTest;
use crate::testing::request_in_flight::RequestInFlight;
use crate::testing::side_effects::link;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::request_events::RequestOutcome;
use core::time::Duration;

impl<F: Family> ContractChecker<F> {
    /// Checks the routing table against its events. Rule 4: a change of the table has a link and no deadline.
    pub(super) fn check_table<M: MachineUnderTest<F>>(
        &mut self,
        machine: &M,
        call: &CheckedCall<'_, F>,
        out: &[Stamped<Outbound<F>>],
    ) -> Checked {
        let Some(table) = machine.table() else { return Ok(()) };
        ensure_eq!(table.len(), self.members.len(), "table: agrees with Admitted and Removed");
        let mut effects = Vec::new();
        for stamped in out {
            let (node, what) = match &stamped.event {
                Outbound::Routing(RoutingOutbound::Admitted(node)) => (node, "admitted"),
                Outbound::Routing(RoutingOutbound::Removed(node)) => (node, "removed"),
                _ => continue,
            };
            effects.push(stamped);
            self.count(what);
            ensure_eq!(
                table.get(node).is_some(),
                self.members.contains(node),
                "table: agrees with Admitted and Removed: {node:?}"
            );
        }
        if !self.checks_models {
            return Ok(());
        }
        for entry in table.iter() {
            let node = entry.node();
            ensure!(self.members.contains(node), "table: agrees with Admitted and Removed: {node:?}");
        }
        if self.predicts_table {
            let expected: Vec<_> = call.effects.iter().collect();
            ensure!(
                effects.iter().map(|out| &out.event).eq(expected.iter().map(|out| &out.event)),
                "table: agrees with the inbound events: {effects:?}, {expected:?}"
            );
            ensure!(
                call.cause_ambiguous || effects == expected,
                "context 4: table changes link to the event that caused them: {effects:?}, {expected:?}"
            );
            let mut nodes = table.iter().zip(self.table.iter());
            ensure!(
                table.len() == self.table.len() && nodes.all(|(is, should)| is == should),
                "table: agrees with the inbound events"
            );
        }
        Ok(())
    }

    /// Applies the end of a request to the expected routing table.
    pub(super) fn apply_to_table(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        outcome: &RequestOutcome<F>,
        (_, sent): (RequestId, &RequestInFlight<F>),
        context: &Context,
    ) {
        self.judge_node(call, outcome, sent, context);
        self.count(match outcome {
            RequestOutcome::Answered { .. } => "progress: answered",
            RequestOutcome::Incomplete { .. } => "progress: incomplete",
            RequestOutcome::Rejected(_) => "progress: rejected",
            RequestOutcome::TimedOut => return,
            RequestOutcome::Failed => "progress: failed",
            RequestOutcome::Unreachable => "progress: unreachable",
            RequestOutcome::ConnectionRefused => "progress: connection refused",
            RequestOutcome::Gone => "progress: gone",
        });
    }

    /// What the outcome of a request says about its node.
    pub(super) fn judge_node(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        outcome: &RequestOutcome<F>,
        sent: &RequestInFlight<F>,
        context: &Context,
    ) {
        match outcome {
            RequestOutcome::Answered { .. } | RequestOutcome::Incomplete { .. } => {
                self.node_alive(call, &sent.node, call.round_trip(sent), context);
            }
            // The node is alive, which refreshes its entry but does not admit it.
            RequestOutcome::Rejected(_) => {
                self.table.refresh(call.now, &sent.node, call.round_trip(sent));
            }
            RequestOutcome::TimedOut => {}
            RequestOutcome::Failed | RequestOutcome::Unreachable | RequestOutcome::ConnectionRefused => {
                self.node_dead(call, &sent.node, context);
            }
            RequestOutcome::Gone => {
                if self.predicts_table && self.table.remove(&sent.node) {
                    let event = Outbound::Routing(RoutingOutbound::Removed(sent.node.clone()));
                    call.effects.push(Stamped { event, context: context.clone(), deadline: None });
                }
            }
        }
    }

    pub(super) fn node_alive(
        &mut self,
        call: &mut CheckedCall<'_, F>,
        node: &F::Node,
        round_trip: Option<Duration>,
        context: &Context,
    ) {
        if !self.predicts_table {
            return;
        }
        if self.table.offer(call.now, node, round_trip) == Offered::Admitted {
            let event = Outbound::Routing(RoutingOutbound::Admitted(node.clone()));
            call.effects.push(Stamped { event, context: context.clone(), deadline: None });
        }
    }

    pub(super) fn node_dead(&mut self, call: &mut CheckedCall<'_, F>, node: &F::Node, context: &Context) {
        if self.predicts_table && self.table.record_failure(node) {
            let event = Outbound::Routing(RoutingOutbound::Removed(node.clone()));
            call.effects.push(Stamped { event, context: context.clone(), deadline: None });
        }
    }

    /// Applies what the driver reports about nodes to the expected routing table.
    pub(super) fn apply_report(&mut self, call: &mut CheckedCall<'_, F>, event: &RoutingInbound<F>) {
        let link = link(call.event);
        match event {
            RoutingInbound::Connected { node, round_trip } => {
                self.node_alive(call, node, *round_trip, &link);
            }
            RoutingInbound::Disconnected(node) => self.node_dead(call, node, &link),
            RoutingInbound::Seeds(_) => {}
            // What follows is not predicted.
            _ => self.predicts_table = false,
        }
    }
}
