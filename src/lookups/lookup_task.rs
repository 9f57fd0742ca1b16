//! [`LookupTask`]: a lookup as the task of an operation, and how such operations start.

use crate::lookups::config::QueryConfig;
use crate::lookups::lookup::{Lookup, LookupStep};
use crate::operations::pool::{OperationPool, StartTerms};
use crate::operations::task::{EmitsOperation, Found, NoAnswer, OperationEnd, Task, TaskStep};
use crate::operations::work::{Work, WorkKind};
use crate::requests::call_context::CallContext;
use crate::requests::purpose::NodeRef;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::{Finish, Outcome, Progress, Start};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::{Answer, Ask, Initiator};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// A lookup, as the [task](Task) of an operation.
#[derive(Clone, Debug)]
pub(crate) struct LookupTask<F: Family> {
    lookup: Lookup<F>,
    ask: Ask<F>,
    /// How many with the newest valid value end the lookup.
    quorum: Option<usize>,
}

impl<F: Family> LookupTask<F> {
    /// `size`: of the network, if it is known. `to_the_end`: not to be cut by [`beta`](QueryConfig::beta).
    pub(crate) fn new(
        local: &LocalNode<F>,
        config: &QueryConfig,
        start: Start<F>,
        size: Option<KnownSize>,
        to_the_end: bool,
    ) -> Self {
        let rules = config.rules(&start, local.family.answers(), size, to_the_end);
        let mut lookup = Lookup::new(local, start.target, rules, start.seeds);
        lookup.hold(start.held);
        Self { lookup, ask: start.ask, quorum: start.quorum }
    }

    /// Whether as many as the quorum have the newest valid value.
    fn has_quorum(&self) -> bool {
        self.quorum.is_some_and(|quorum| self.lookup.value_holders() >= quorum)
    }
}

/// Tasks of which a lookup is one kind.
pub(crate) trait LookupCapable<F: Family>: Task<F> + From<LookupTask<F>> {}

impl<F: Family, T: Task<F> + From<LookupTask<F>>> LookupCapable<F> for T {}

impl<F: Family> Task<F> for LookupTask<F> {
    type Progress = Progress<F>;
    type Finish = Finish<F>;

    fn begin(&mut self, _now: Instant, _deadline: Instant) {
        self.lookup.begin();
    }

    fn next(&mut self, now: Instant) -> TaskStep<F> {
        if self.has_quorum() {
            return TaskStep::Done(Outcome::Quorum);
        }
        match self.lookup.next(now) {
            LookupStep::Ask { candidate, node, hop, attempt } => {
                let node_ref = NodeRef::Lookup { number: 0, candidate };
                let until = Instant::FAR_FUTURE;
                TaskStep::Ask { node_ref, node, hop, attempt, no_soft_limit: false, until }
            }
            LookupStep::Wait => TaskStep::Wait,
            LookupStep::Starved => TaskStep::Starved,
            LookupStep::Done(done) => TaskStep::Done(done.into()),
        }
    }

    fn wants(&self) -> Option<(F::Key, usize)> {
        Some((self.lookup.key(), self.lookup.seeds_wanted()))
    }

    fn add_seeds(&mut self, seeds: Vec<F::Node>) {
        self.lookup.add_seeds(seeds);
    }

    fn take_back(&mut self, node_ref: NodeRef) {
        if let NodeRef::Lookup { candidate, .. } = node_ref {
            self.lookup.undo_ask(candidate);
        }
    }

    fn ask(&mut self, node_ref: NodeRef, node: &F::Node) -> (F::Target, Ask<F>) {
        let NodeRef::Lookup { candidate, .. } = node_ref else {
            return (self.lookup.target().clone(), self.ask.clone());
        };
        // The message is about the target. Who is near another point is asked without it.
        let ask = if candidate.block.is_some() { Ask::FindCloser } else { self.ask.clone() };
        (self.lookup.target_for(candidate, node), ask)
    }

    fn answered(
        &mut self,
        node_ref: NodeRef,
        node: &F::Node,
        elapsed: Duration,
        answer: &mut Answer<F>,
    ) -> u8 {
        let NodeRef::Lookup { candidate, .. } = node_ref else { return 0 };
        self.lookup.answered_at(candidate, node);
        self.lookup.answered(candidate, elapsed, &answer.closer, answer.verdict())
    }

    fn missed(&mut self, node_ref: NodeRef, miss: NoAnswer) {
        if let NodeRef::Lookup { candidate, .. } = node_ref {
            self.lookup.missed(candidate, miss);
        }
    }

    fn withdrawn(&mut self, node_ref: NodeRef) {
        if let NodeRef::Lookup { candidate, .. } = node_ref {
            self.lookup.not_sent(candidate);
        }
    }

    fn slow(&mut self, node_ref: NodeRef, may_repeat: bool) {
        if let NodeRef::Lookup { candidate, .. } = node_ref {
            self.lookup.slow(candidate, may_repeat);
        }
    }

    fn stands_in_line(&mut self, node_ref: NodeRef) {
        if let NodeRef::Lookup { candidate, .. } = node_ref {
            self.lookup.stands_in_line(candidate);
        }
    }

    fn takes_turn(&mut self, node_ref: NodeRef) -> bool {
        let NodeRef::Lookup { candidate, .. } = node_ref else { return true };
        self.lookup.takes_turn(candidate)
    }

    fn ends_at_once(&self) -> Option<Outcome> {
        self.has_quorum().then_some(Outcome::Quorum)
    }

    fn work(&self) -> Work {
        let kind = if self.ask == Ask::FindCloser { WorkKind::Lookup } else { WorkKind::Search };
        Work { kind, size: 0 }
    }

    fn listens_on(&self) -> bool {
        true
    }

    fn timer(&self) -> Option<Instant> {
        self.lookup.timer()
    }

    fn elapse(&mut self, now: Instant) {
        self.lookup.elapse(now);
    }

    fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.lookup.visit_nodes(visit);
    }

    fn progress(&self, progress: Progress<F>, _node_ref: NodeRef) -> Progress<F> {
        progress
    }

    fn finish(self, end: OperationEnd) -> Finish<F> {
        let OperationEnd { operation, outcome, stats } = end;
        let target = self.lookup.target().clone();
        let (region, values) = (self.lookup.region_report(), self.lookup.value_report());
        Finish { operation, target, outcome, closest: self.lookup.into_closest(), stats, region, values }
    }

    fn found(finish: &mut Finish<F>) -> Option<Found<'_, F>> {
        Some(Found { target: finish.target.key(), closest: &mut finish.closest })
    }
}

impl<F: Family, T: LookupCapable<F>> OperationPool<F, T> {
    /// Accepts or refuses the start of a caller's lookup. `add_seeds` is called only if it is accepted. `terms`: the size of
    /// the network, if it is known, and whether `beta` does not cut this lookup.
    pub(crate) fn start_lookup<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        stamped: Stamped<Start<F>>,
        config: &QueryConfig,
        add_seeds: impl FnOnce(&mut Start<F>),
        (size, to_the_end): (Option<KnownSize>, bool),
    ) {
        let Stamped { event: mut start, context, deadline } = stamped;
        let (tag, timeout, bootstrap) = (start.tag, config.timeout, start.is_bootstrap(*self.local().key()));
        let objection = config.admit(&start);
        let terms = StartTerms { tag, context, deadline, timeout, bootstrap };
        self.start(call, terms, objection, |pool| {
            add_seeds(&mut start);
            LookupTask::new(pool.local(), config, start, size, to_the_end).into()
        });
    }

    /// Begins a lookup of the routing maintenance: it has no tag and does not wait in the queue of operations.
    /// Returns its id, or `None` if its deadline leaves no time.
    pub(crate) fn begin_lookup<E: EmitsOperation<F, T>>(
        &mut self,
        call: &mut CallContext<'_, F, E>,
        initiator: Initiator,
        timeout: Duration,
        link: SpanContext,
        start: Start<F>,
        config: &QueryConfig,
    ) -> Option<OperationId> {
        let bootstrap = start.is_bootstrap(*self.local().key());
        let task = LookupTask::new(self.local(), config, start, None, true).into();
        self.begin_side_effect(call, initiator, timeout, link, bootstrap, task)
    }
}
