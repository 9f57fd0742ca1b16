//! Checks of the routing table, of both kinds: include checks candidates, probe checks nodes of the table.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::requests::purpose::{Purpose, ReleasedCheck};
use crate::requests::request_queue::{Ending, PendingRequest, answerer};
use crate::routing::Routing;
use crate::routing::candidate_list::{Candidate, Origin};
use crate::routing::candidate_queue::{EndedCheck, Verdict};
use crate::routing::events::EmitsRouting;
use crate::routing::probe_list::Probed;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::request_events::Initiator;
use core::time::Duration;

/// Whoever claims the key of another node causes a check of that one no sooner than this after it was last heard from.
/// Within a minute of a move, there must be time for four checks over 30 s after it.
pub(super) const CLAIM_INTERVAL: Duration = Duration::from_secs(10);

impl<F: Family> Routing<F> {
    /// Begins the checks that are due, as far as there is capacity: of table nodes first, then of candidates. If it is a
    /// claimant's turn, the check of the node that holds its key is due instead, [`CLAIM_INTERVAL`] after that was last
    /// heard from.
    pub(crate) fn advance_checks<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>) {
        if self.connectivity.is_cut_off() {
            return self.test(call);
        }
        if let Some(probe) = &mut self.probe {
            probe.advance(call);
        }
        self.advance_include(call, usize::MAX);
        // Remembered nodes are tried when no other candidate goes first.
        if self.next_try().is_some_and(|at| at <= call.now) && self.offer_remembered(call) {
            self.advance_include(call, usize::MAX);
        }
    }

    /// Begins checks of candidates, at most `most`.
    pub(super) fn advance_include<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        most: usize,
    ) {
        let Some(include) = &mut self.include else { return };
        let (table, clients, probe) = (&self.table, &self.clients, &mut self.probe);
        let (now, mut is_claimed) = (call.now, false);
        include.advance(call, most, |candidate| {
            let node = &candidate.node;
            if candidate.origin() == Origin::Returning {
                // It is asked whether it still is what it was, even if there is no room for it.
                return if table.accepts(node) { Verdict::Check } else { Verdict::Unwanted };
            }
            if clients.contains(node) {
                return Verdict::Unwanted;
            }
            if table.would_admit(node) {
                return Verdict::Check;
            }
            let holder = table.key_holder(node).filter(|_| candidate.waits_unsolicited());
            let Some((holder, probe)) = holder.zip(probe.as_mut()) else { return Verdict::Unwanted };
            let due = holder.last_seen() + CLAIM_INTERVAL;
            if due > now {
                return Verdict::Later(due);
            }
            probe.expedite(now, holder.node(), &candidate.link);
            is_claimed = true;
            Verdict::Claims
        });
        if is_claimed && let Some(probe) = &mut self.probe {
            probe.advance(call);
        }
    }

    /// The request of a check is past its soft limit. Only those of candidates have one.
    pub(crate) fn check_slow<E>(&mut self, call: &mut CallContext<'_, F, E>, id: RequestId) {
        if let Some(include) = &mut self.include {
            include.slow(call, id);
        }
    }

    /// As whose word the nodes count that the answer to this request names.
    #[inline]
    pub(crate) fn origin_of_answer(&self, request: &PendingRequest<F, Purpose>) -> Origin {
        let answerer = answerer::<F>(&request.node);
        let check = request.purpose.check().filter(|check| check.initiator == Initiator::Include);
        let origin = self.include.as_ref().zip(check);
        origin.map_or(Origin::Answer(answerer), |(part, check)| part.origin_of_answer(check.slot, answerer))
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
            // Where nearly nobody is, a node may have nobody to name.
            let passed = names_nodes || (ending.is_answer() && self.is_small());
            let ended = self.include.as_mut().and_then(|part| part.end(call, check.slot, id, ending, passed));
            let Some(EndedCheck { candidate: Candidate { node, link, .. }, request, .. }) = ended else {
                return Context::NONE;
            };
            let context = context::continued(cause, &link);
            if ending.is_answer() {
                self.heard(call, &node, || context.clone());
            }
            if names_nodes {
                self.serves_again(&node);
            }
            if passed {
                let round_trip = call.round_trip(&request);
                self.offer_live(call, &node, round_trip, || context.clone());
            }
            return context;
        }
        let ended = self.probe.as_mut().and_then(|part| part.end(call, check.slot, id, ending));
        let Some(Probed { node, round_trip, link, silent, since, sent_at, .. }) = ended else {
            return Context::NONE;
        };
        let context = context::continued(cause, &link);
        if ending.is_answer() {
            self.heard(call, &node, || context.clone());
            self.offer_live(call, &node, round_trip, || context.clone());
        } else if silent {
            self.was_silent(call, &node, (since, sent_at), &context);
        }
        context
    }
}
