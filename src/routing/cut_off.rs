//! What follows from the silence of nodes: they leave the table, or this node is cut off, as
//! [`Connectivity`](crate::routing::connectivity::Connectivity) finds. And what follows when it is, and when it is no longer.

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::requests::request_queue::answerer;
use crate::routing::Routing;
use crate::routing::candidate_list::Origin;
use crate::routing::connectivity::{Finding, Heard, TESTS, Witnesses};
use crate::routing::events::{EmitsRouting, RoutingOutbound};
use crate::vocabulary::family::Family;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

impl<F: Family> Routing<F> {
    /// When one of the remembered nodes is to be tried: only if its check can begin at once.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.include.as_ref().filter(|include| include.can_begin())?;
        self.bootstrap.as_ref()?.remembered.next_timeout()
    }

    /// Queues the remembered node whose turn it is for a check. Returns whether there is one.
    pub(super) fn offer_remembered<E>(&mut self, call: &CallContext<'_, F, E>) -> bool {
        let (Some(bootstrap), Some(include)) = (&mut self.bootstrap, &mut self.include) else { return false };
        let next = bootstrap.remembered.next(call.now, |node| !call.requests.is_banned(call.now, node));
        next.is_some_and(|node| {
            include.offer(call.now, &node, &SpanContext::NONE, Origin::Returning);
            true
        })
    }

    /// While this node is cut off: tests one node if it is time to: three of the table, then a remembered one, and so on.
    pub(super) fn test<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>) {
        if self.next_test().is_none_or(|at| at > call.now) {
            return;
        }
        let number = self.connectivity.test(call.now);
        if number % 4 == 3 && self.next_try().is_some() && self.offer_remembered(call) {
            self.advance_include(call, 1);
        } else if let Some(probe) = &mut self.probe {
            probe.test(call);
        }
    }

    /// When the next node is to be tested, while this node is cut off and there is one.
    pub(super) fn next_test(&self) -> Option<Instant> {
        self.probe.as_ref().filter(|probe| probe.can_test())?;
        self.connectivity.next_test()
    }

    /// Somebody was heard from: perhaps this node is cut off no longer.
    pub(crate) fn heard<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: impl FnOnce() -> Context,
    ) {
        if !self.is_watching(call.now) {
            return;
        }
        match self.connectivity.heard(call.now, answerer::<F>(node)) {
            Heard::Known => {}
            Heard::IsUp => {
                // Those whose silence could not be judged before are checked again.
                if let Some(probe) = &mut self.probe {
                    probe.expedite_held(call.now);
                }
            }
            Heard::IsBack => self.regain(call, &context()),
        }
    }

    /// Whether it matters who is heard from now.
    #[inline]
    pub(crate) fn is_watching(&self, now: Instant) -> bool {
        self.connectivity.is_watching(now)
    }

    /// The link of this node is lost, as the driver says.
    pub(super) fn lose<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>, context: &Context) {
        if !self.connectivity.is_cut_off() {
            call.emit_detached(RoutingOutbound::CutOff { told: true }, context::detached(context));
        }
        self.connectivity.lose(call.now, true);
    }

    /// The link of this node is back, or is another one: whoever is in the table is checked, the nearest first.
    pub(super) fn regain<E: EmitsRouting<F>>(&mut self, call: &mut CallContext<'_, F, E>, context: &Context) {
        let was_cut_off = self.connectivity.regain(call.now);
        self.table.forgive();
        if let Some(probe) = &mut self.probe {
            probe.verify_all(call.now);
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.hurry(call.now);
        }
        if let Some(lasted) = was_cut_off {
            call.emit_detached(RoutingOutbound::Reconnected { lasted }, context.clone());
        }
    }

    /// A node of the table was silent when it was checked. `since`: when the check before that had ended.
    pub(super) fn was_silent<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        (since, sent_at): (Instant, Instant),
        context: &Context,
    ) {
        let Some(probe) = &mut self.probe else { return };
        if self.connectivity.is_cut_off() {
            probe.put_last(call.now, node);
            return;
        }
        let left = self.table.count_failure(node).unwrap_or(usize::MAX);
        let (silent, failures) = self.table.silent();
        let entry = self.table.get(node);
        // A node that leaves after a failure or two must not do so because of what was heard before the link was lost.
        let is_hasty = entry.is_some_and(|entry| entry.failures() < 3);
        let since = if is_hasty { since.max(sent_at) } else { since };
        let is_first = entry.is_some_and(|entry| entry.is_verified() && entry.failures() == 1);
        let witnesses = Witnesses { all: self.table.verified(), silent, failures, is_first };
        match self.connectivity.silent(call.now, since, witnesses) {
            Finding::CutOff => {
                call.emit_detached(RoutingOutbound::CutOff { told: false }, context.clone());
            }
            Finding::Silent if left == 0 => self.leave_silent(call, node, context),
            Finding::Unclear | Finding::Doubtful if left == 0 => {
                probe.hold(call.now, node);
                probe.expedite_some(TESTS);
            }
            // What they answer counts when the node is checked for the last time.
            Finding::Unclear if left == 1 => probe.expedite_some(TESTS),
            Finding::Doubtful => probe.expedite_some(TESTS),
            Finding::Silent | Finding::Unclear => {}
        }
    }

    /// A node leaves the table because it was silent; it is remembered as a place to come back to.
    pub(super) fn leave_silent<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        node: &F::Node,
        context: &Context,
    ) {
        if let Some(bootstrap) = &mut self.bootstrap
            && let Some(entry) = self.table.get(node)
        {
            let lived = if entry.is_verified() { entry.last_seen() - entry.added() } else { Duration::ZERO };
            bootstrap.remembered.lose(call.now, node, lived, entry.age(call.now));
        }
        self.remove(call, node, || context.clone());
    }
}
