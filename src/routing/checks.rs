//! Checks of the routing table, of both kinds: include checks candidates, probe checks nodes of the table.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::ReleasedCheck;
use crate::requests::request_queue::Ending;
use crate::routing::Routing;
use crate::routing::candidate_queue::IncludeCandidate;
use crate::routing::events::EmitsRouting;
use crate::routing::probe_list::Probed;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::request_events::Initiator;

impl<F: Family> Routing<F> {
    /// Begins the checks that are due, as far as there is capacity: of table nodes first, then of candidates.
    pub(crate) fn advance_checks<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>) {
        if let Some(probe) = &mut self.probe {
            probe.advance(call);
        }
        if let Some(include) = &mut self.include {
            let (table, clients) = (&self.table, &self.clients);
            include.advance(call, |node| table.would_admit(node) && !clients.contains(node));
        }
    }

    /// Emits the request of a check that was queued for capacity.
    pub(crate) fn send_check<E: EmitsRouting<F>>(
        &self,
        call: &mut CallContext<'_, F, E>,
        released: ReleasedCheck,
    ) {
        if released.check.initiator == Initiator::Include {
            if let Some(include) = &self.include {
                include.send(call, released);
            }
        } else if let Some(probe) = &self.probe {
            probe.send(call, released);
        }
    }

    /// The request of a check ended. `names_nodes`: it was answered, and the answer names at least one node.
    /// `cause` is the context of the inbound event that ended it. Returns the context of the side effects that follow.
    pub(crate) fn check_ended<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        id: RequestId,
        ending: Ending,
        names_nodes: bool,
        cause: Option<&Context>,
    ) -> Context {
        let Some(check) = call.check(id) else { return Context::NONE };
        if check.initiator == Initiator::Include {
            let ended =
                self.include.as_mut().and_then(|part| part.end(call, check.slot, id, ending, names_nodes));
            let Some((IncludeCandidate { node, link, .. }, request)) = ended else { return Context::NONE };
            let context = context::continued(cause, &link);
            if names_nodes {
                let round_trip = call.round_trip(&request);
                self.offer_live(call, &node, round_trip, || context.clone());
            }
            return context;
        }
        let ended = self.probe.as_mut().and_then(|part| part.end(call, check.slot, id, ending));
        let Some(Probed { node, round_trip, link, sent, .. }) = ended else { return Context::NONE };
        let context = context::continued(cause, &link);
        if ending.is_answer() {
            self.offer_live(call, &node, round_trip, || context.clone());
        } else if sent {
            self.count_failure(call, &node, || context.clone());
        }
        context
    }
}
