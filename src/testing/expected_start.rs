//! [`ExpectedStart`]: how the checker expects a start to be handled; and the [model](model_of) of its operation.

use crate::broadcast::events::Strategy;
use crate::coordinator::config::Config;
use crate::coordinator::events::Inbound;
use crate::testing::broadcast_model::{self, BroadcastModel};
use crate::testing::crawl_model::{self, CrawlModel};
use crate::testing::lookup_model::{self, LookupModel};
use crate::testing::operation_model::{NodeState, OperationKind, OperationModel};
use crate::testing::report_model::ReportModel;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::RefusalReason;
use crate::vocabulary::target::Target;
use core::time::Duration;

/// A start, as the checker expects it to be handled.
pub(super) struct ExpectedStart {
    pub(super) kind: OperationKind,
    pub(super) tag: u64,
    /// The longest time it may take.
    pub(super) timeout: Duration,
    /// How many operations of its kind may be live.
    pub(super) most: usize,
    /// Why its kind refuses it, if it does.
    pub(super) refusal_reason: Option<RefusalReason>,
}

/// The start that an inbound event requests, if it does.
pub(super) fn expected_start<F: Family>(event: &Inbound<F>, config: &Config) -> Option<ExpectedStart> {
    match event {
        Inbound::Start(start) => Some(ExpectedStart {
            kind: OperationKind::Lookup,
            tag: start.tag,
            timeout: config.query.timeout,
            most: usize::MAX,
            refusal_reason: lookup_model::refusal_reason(start, config),
        }),
        Inbound::Crawl(start) => Some(ExpectedStart {
            kind: OperationKind::Crawl,
            tag: start.tag,
            timeout: config.crawl.timeout,
            most: config.crawl.max_crawls,
            refusal_reason: None,
        }),
        Inbound::Broadcast(start) => Some(ExpectedStart {
            kind: OperationKind::Broadcast,
            tag: start.tag,
            timeout: match start.strategy {
                Strategy::Sweep => config.broadcast.sweep_timeout,
                _ => config.broadcast.timeout,
            },
            most: usize::MAX,
            refusal_reason: broadcast_model::refusal_reason(start, config),
        }),
        Inbound::Stop(_) | Inbound::Response(_) | Inbound::Routing(_) | Inbound::Tick => None,
    }
}

/// The model of the operation that a start begins: that of its kind, if `by_kind` is set, else one of what it
/// reports.
///
/// Three kinds of operations have the latter in any case, as the events do not show all: a sweep with edge probes,
/// because its lookups are told apart by their targets; a bootstrap of a machine with automatic bootstraps,
/// because it may begin from remembered seeds; and a crawl of a family that cannot name a target in each bucket, because
/// which nodes stand for one depends on all that are known.
pub(super) fn model_of<F: Family>(
    event: &Inbound<F>,
    config: &Config,
    node: &NodeState<'_, F>,
    by_kind: bool,
) -> Option<Box<dyn OperationModel<F>>> {
    match event {
        Inbound::Start(start)
            if by_kind
                && !(start.is_bootstrap(*node.local.key())
                    && node.table.is_some()
                    && config.routing.bootstrap.is_some()) =>
        {
            Some(Box::new(LookupModel::new(node.local.clone(), config, start, node)))
        }
        Inbound::Crawl(start) if by_kind && names_all_targets(&node.local) => {
            let seeds = crawl_model::seeds(start, node.table);
            Some(Box::new(CrawlModel::new(node.local.clone(), config.crawl.clone(), seeds)))
        }
        Inbound::Broadcast(start)
            if by_kind && !(start.strategy == Strategy::Sweep && config.query.edge_probing) =>
        {
            Some(Box::new(BroadcastModel::new(config, start, node)?))
        }
        Inbound::Start(start) => Some(Box::new(ReportModel::lookup(*node.local.key(), start))),
        Inbound::Crawl(_) => Some(Box::new(ReportModel::crawl(*node.local.key()))),
        Inbound::Broadcast(start) => {
            Some(Box::new(ReportModel::broadcast(*node.local.key(), config, start)?))
        }
        Inbound::Stop(_) | Inbound::Response(_) | Inbound::Routing(_) | Inbound::Tick => None,
    }
}

/// Whether the family knows the target at any point.
fn names_all_targets<F: Family>(local: &LocalNode<F>) -> bool {
    let point = local.key().with_flipped(0);
    local.family.target_near(point, F::Key::BITS).is_some_and(|target| target.key() == point)
}
