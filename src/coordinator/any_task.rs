//! [`AnyTask`]: the task of a coordinator's operation, of any kind.

use crate::broadcast::events::{BroadcastFinish, BroadcastProgress};
use crate::broadcast::task::BroadcastTask;
use crate::crawl::events::{CrawlFinish, CrawlProgress};
use crate::crawl::task::CrawlTask;
use crate::lookups::lookup_task::LookupTask;
use crate::operations::task::{Found, NoAnswer, OperationEnd, Task, TaskStep};
use crate::operations::work::Work;
use crate::requests::purpose::NodeRef;
use crate::vocabulary::family::Family;
use crate::vocabulary::operation_events::{Finish, Outcome, Progress};
use crate::vocabulary::request_events::{Answer, Ask};
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// A task of any kind. The rare kinds are boxed, so that a lookup stays small.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are lookups
pub(crate) enum AnyTask<F: Family> {
    Lookup(LookupTask<F>),
    Crawl(Box<CrawlTask<F>>),
    Broadcast(Box<BroadcastTask<F>>),
}

/// The progress event of any task.
pub(crate) enum AnyProgress<F: Family> {
    Lookup(Progress<F>),
    Crawl(CrawlProgress<F>),
    Broadcast(BroadcastProgress<F>),
}

/// The last event of any task.
pub(crate) enum AnyFinish<F: Family> {
    Lookup(Finish<F>),
    Crawl(CrawlFinish<F>),
    Broadcast(BroadcastFinish<F>),
}

impl<F: Family> From<LookupTask<F>> for AnyTask<F> {
    fn from(task: LookupTask<F>) -> Self {
        Self::Lookup(task)
    }
}

impl<F: Family> From<CrawlTask<F>> for AnyTask<F> {
    fn from(task: CrawlTask<F>) -> Self {
        Self::Crawl(Box::new(task))
    }
}

impl<F: Family> From<BroadcastTask<F>> for AnyTask<F> {
    fn from(task: BroadcastTask<F>) -> Self {
        Self::Broadcast(Box::new(task))
    }
}

/// Evaluates the body with the task of whatever kind.
macro_rules! delegate {
    ($any:expr, $task:ident => $body:expr) => {
        match $any {
            AnyTask::Lookup($task) => $body,
            AnyTask::Crawl($task) => $body,
            AnyTask::Broadcast($task) => $body,
        }
    };
}

impl<F: Family> Task<F> for AnyTask<F> {
    type Progress = AnyProgress<F>;
    type Finish = AnyFinish<F>;

    fn begin(&mut self, now: Instant, deadline: Instant) {
        delegate!(self, task => task.begin(now, deadline));
    }

    fn next(&mut self, now: Instant) -> TaskStep<F> {
        delegate!(self, task => task.next(now))
    }

    fn wants(&self) -> Option<(F::Key, usize)> {
        delegate!(self, task => task.wants())
    }

    fn add_seeds(&mut self, seeds: Vec<F::Node>) {
        delegate!(self, task => task.add_seeds(seeds));
    }

    fn take_back(&mut self, node_ref: NodeRef) {
        delegate!(self, task => task.take_back(node_ref));
    }

    fn ask(&mut self, node_ref: NodeRef, node: &F::Node) -> (F::Target, Ask<F>) {
        delegate!(self, task => task.ask(node_ref, node))
    }

    fn answered(
        &mut self,
        node_ref: NodeRef,
        node: &F::Node,
        elapsed: Duration,
        answer: &mut Answer<F>,
    ) -> u8 {
        delegate!(self, task => task.answered(node_ref, node, elapsed, answer))
    }

    fn missed(&mut self, node_ref: NodeRef, miss: NoAnswer) {
        delegate!(self, task => task.missed(node_ref, miss));
    }

    fn rejected(&mut self, node_ref: NodeRef, why: &F::Message) {
        delegate!(self, task => task.rejected(node_ref, why));
    }

    fn withdrawn(&mut self, node_ref: NodeRef) {
        delegate!(self, task => task.withdrawn(node_ref));
    }

    fn slow(&mut self, node_ref: NodeRef, may_repeat: bool) {
        delegate!(self, task => task.slow(node_ref, may_repeat));
    }

    fn stands_in_line(&mut self, node_ref: NodeRef) {
        delegate!(self, task => task.stands_in_line(node_ref));
    }

    fn takes_turn(&mut self, node_ref: NodeRef) -> bool {
        delegate!(self, task => task.takes_turn(node_ref))
    }

    fn work(&self) -> Work {
        delegate!(self, task => task.work())
    }

    fn is_crawl(&self) -> bool {
        delegate!(self, task => task.is_crawl())
    }

    fn ends_at_once(&self) -> Option<Outcome> {
        delegate!(self, task => task.ends_at_once())
    }

    fn listens_on(&self) -> bool {
        delegate!(self, task => task.listens_on())
    }

    fn timer(&self) -> Option<Instant> {
        delegate!(self, task => task.timer())
    }

    fn lookup_deadline(&self) -> Option<Instant> {
        delegate!(self, task => task.lookup_deadline())
    }

    fn elapse(&mut self, now: Instant) {
        delegate!(self, task => task.elapse(now));
    }

    fn abandoned(&mut self) -> Option<u16> {
        delegate!(self, task => task.abandoned())
    }

    fn enter_background(&mut self, end: OperationEnd, deadline: Instant) -> Option<AnyFinish<F>> {
        match self {
            Self::Lookup(task) => task.enter_background(end, deadline).map(AnyFinish::Lookup),
            Self::Crawl(task) => task.enter_background(end, deadline).map(AnyFinish::Crawl),
            Self::Broadcast(task) => task.enter_background(end, deadline).map(AnyFinish::Broadcast),
        }
    }

    fn remaining_requests(&self) -> usize {
        delegate!(self, task => task.remaining_requests())
    }

    fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        delegate!(self, task => task.visit_nodes(visit));
    }

    fn progress(&self, progress: Progress<F>, node_ref: NodeRef) -> AnyProgress<F> {
        match self {
            Self::Lookup(task) => AnyProgress::Lookup(task.progress(progress, node_ref)),
            Self::Crawl(task) => AnyProgress::Crawl(task.progress(progress, node_ref)),
            Self::Broadcast(task) => AnyProgress::Broadcast(task.progress(progress, node_ref)),
        }
    }

    fn finish(self, end: OperationEnd) -> AnyFinish<F> {
        match self {
            Self::Lookup(task) => AnyFinish::Lookup(task.finish(end)),
            Self::Crawl(task) => AnyFinish::Crawl(task.finish(end)),
            Self::Broadcast(task) => AnyFinish::Broadcast(task.finish(end)),
        }
    }

    fn found(finish: &mut AnyFinish<F>) -> Option<Found<'_, F>> {
        match finish {
            AnyFinish::Lookup(finish) => LookupTask::found(finish),
            AnyFinish::Crawl(_) | AnyFinish::Broadcast(_) => None,
        }
    }
}
