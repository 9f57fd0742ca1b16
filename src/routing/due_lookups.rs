//! The lookups that routing maintenance starts: bootstraps, refreshes of buckets, lookups of the own key; and the caller's
//! bootstraps.
//!
//! This file decides what is due and handles the end. The caller runs the lookups: see
//! [`Engine`](crate::maintenance::quiescence::Engine).

use crate::context;
use crate::context::Context;
use crate::requests::call_context::CallContext;
use crate::routing::Routing;
use crate::routing::events::{Bootstrapped, DueLookup, EmitsRouting, RoutingOutbound};
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{EndedLookup, Outcome, Start};
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use opentelemetry::trace::SpanContext;

impl<F: Family> Routing<F> {
    /// Adds the closest nodes of the table to the seeds of a caller's lookup. If it is a bootstrap, returns the
    /// automatic bootstrap that it replaces.
    pub(crate) fn seed_lookup(&mut self, now: Instant, start: &mut Start<F>) -> Option<OperationId> {
        // Twice the number that the lookup searches for: some may be dead, and the live ones may know no
        // other node.
        let wanted = 2 * self.k.max(start.num_results.unwrap_or(0));
        let given = start.seeds.len();
        self.correct(&mut start.seeds);
        start.seeds.reserve(wanted.min(self.table.len()));
        let known = self.table.closest(start.target.key()).take(wanted);
        start.seeds.extend(known.map(|entry| entry.node().clone()));
        if !start.is_bootstrap(self.table.local()) {
            return None;
        }
        self.bootstrap_started(now, &mut start.seeds, given)
    }

    /// The caller starts a bootstrap. The first `given` of these seeds are the caller's; they are remembered.
    /// Returns the automatic bootstrap that it replaces, if one is running; the remembered seeds are then
    /// added to `seeds`.
    pub(crate) fn bootstrap_started(
        &mut self,
        now: Instant,
        seeds: &mut Vec<F::Node>,
        given: usize,
    ) -> Option<OperationId> {
        let bootstrap = self.bootstrap.as_mut()?;
        bootstrap.began();
        let replaced = bootstrap.automatic.take();
        if replaced.is_some() {
            seeds.extend(bootstrap.remembered.to_ask(now, self.table.len()).cloned());
        }
        bootstrap.remembered.remember(seeds.get(..given).unwrap_or_default(), &self.table);
        replaced
    }

    /// Remembers nodes to bootstrap from.
    pub(crate) fn remember_seeds(&mut self, now: Instant, seeds: &[F::Node]) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.remember(now, seeds, &self.table);
        }
    }

    /// An inbound event with this context has been handled. If a bootstrap is due now, the event is its origin, as what
    /// was due before has begun before it.
    pub(super) fn link_due_bootstrap(&mut self, now: Instant, context: &Context) {
        if let Some(bootstrap) = &mut self.bootstrap
            && !bootstrap.link.is_valid()
            && bootstrap.next_timeout(self.table.len(), self.table.verified()).is_some_and(|at| at <= now)
        {
            bootstrap.link = context::source(context).clone();
        }
    }

    /// The lookup that is due now, if one is: a bootstrap first, then the refresh of a bucket. The caller must
    /// begin it and report by [`lookup_began`](Self::lookup_began).
    pub(crate) fn due_lookup(&mut self, now: Instant) -> Option<DueLookup<F>> {
        if self.connectivity.is_cut_off() {
            return None;
        }
        if let Some(due) = self.due_bootstrap(now) {
            return Some(due);
        }
        if !self.connectivity.may_explore() {
            return None;
        }
        self.explore.as_mut()?.due_lookup(now, &self.table, self.k)
    }

    fn due_bootstrap(&mut self, now: Instant) -> Option<DueLookup<F>> {
        let bootstrap = self.bootstrap.as_mut()?;
        bootstrap.next_timeout(self.table.len(), self.table.verified()).filter(|at| *at <= now)?;
        let known = self.table.iter().map(|entry| entry.node().clone());
        Some(DueLookup {
            initiator: Initiator::Bootstrap,
            target: self.table.local_node().target.clone(),
            seeds: known.chain(bootstrap.remembered.to_ask(now, self.table.len()).cloned()).collect(),
            timeout: bootstrap.config.timeout,
            link: core::mem::replace(&mut bootstrap.link, SpanContext::NONE),
        })
    }

    /// The lookup that was due has begun as this operation. `None`: it could not begin, because the time has
    /// nearly reached its maximum; then no bootstrap is due any more.
    pub(crate) fn lookup_began(
        &mut self,
        now: Instant,
        initiator: Initiator,
        operation: Option<OperationId>,
    ) {
        if initiator == Initiator::Explore {
            if let (Some(explore), None) = (&mut self.explore, operation) {
                explore.lookup_ended(now, &self.table, None);
            }
        } else if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.automatic = operation;
            if operation.is_some() {
                bootstrap.began();
                self.bootstraps += 1;
            } else {
                bootstrap.stop();
            }
        }
    }

    /// A lookup of the maintenance has ended, or a bootstrap of the caller's.
    pub(crate) fn lookup_ended<E: EmitsRouting<F>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        ended: EndedLookup<F>,
    ) {
        if ended.target == self.table.local()
            && matches!(ended.outcome, Outcome::Converged | Outcome::Unsure | Outcome::AllFound)
        {
            self.table.neighbourhood_found();
        }
        if ended.initiator == Initiator::Explore {
            if let Some(explore) = &mut self.explore {
                explore.lookup_ended(call.now, &self.table, Some(ended.outcome));
            }
            return;
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.ended(call.now);
            if ended.initiator == Initiator::Bootstrap {
                bootstrap.automatic = None;
            }
        }
        if ended.initiator == Initiator::Bootstrap && ended.outcome == Outcome::Stopped {
            return; // A bootstrap of the caller's has replaced it.
        }
        if let Some(explore) = &mut self.explore
            && let Some(nearest) = ended.closest_cpl
        {
            let found = (ended.outcome, nearest);
            explore.bootstrapped(call.now, &self.table, found, context::source(&ended.context));
        }
        self.find_neighbourhood(call.now, &ended.context);
        let notice = RoutingOutbound::Bootstrapped(Bootstrapped {
            operation: ended.initiator.operation(),
            outcome: ended.outcome,
            nodes: self.table.len(),
            stats: ended.stats,
        });
        call.emit_detached(notice, ended.context);
    }
}
