//! The trait of the models: what an operation of one kind may request and must report, beyond the rules of every
//! operation.

use super::RequestInFlight;
use super::broadcast_model::{self, BroadcastModel};
use super::crawl_model::{self, CrawlModel};
use super::lookup_model::{self, LookupModel};
use super::test_family::{Net, Peer};
use kad_proto::broadcast::Strategy;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::network_size::NotEnoughData;
use kad_proto::{
    AnswerExtra, Bits, CancelReason, Config, Instant, OperationId, OperationStats, Outcome, Progress,
    RefusalReason, Request, RequestId, RequestOutcome, RoutingTable,
};
use std::time::Duration;

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Lookup,
    Crawl,
    Broadcast,
}

/// A start, as the checker expects it to be handled.
pub(crate) struct ExpectedStart<'a, const N: usize> {
    pub(crate) kind: OperationKind,
    pub(crate) tag: u64,
    /// The longest time it may take.
    pub(crate) timeout: Duration,
    /// How many operations of its kind may be live.
    pub(crate) most: usize,
    /// Why its kind refuses it, if it does.
    pub(crate) refusal_reason: Option<RefusalReason>,
    pub(crate) model: MakeModel<'a, N>,
}

/// The state of the node when an operation starts.
pub(crate) struct NodeState<'a, const N: usize> {
    /// The key of the node itself.
    pub(crate) local: Bits<N>,
    pub(crate) table: Option<&'a RoutingTable<Net<N>>>,
    /// The estimated network size.
    pub(crate) size: Result<u64, NotEnoughData>,
}

/// Makes the model of an operation from the state of the node.
pub(crate) type MakeModel<'a, const N: usize> =
    Box<dyn FnOnce(&NodeState<'_, N>) -> Box<dyn OperationModel<N>> + 'a>;

/// The start that an inbound event requests, if it does.
pub(crate) fn expected_start<'a, const N: usize>(
    event: &'a Inbound<Net<N>>,
    config: &'a Config,
) -> Option<ExpectedStart<'a, N>> {
    match event {
        Inbound::Start(start) => Some(ExpectedStart {
            kind: OperationKind::Lookup,
            tag: start.tag,
            timeout: config.query.timeout,
            most: usize::MAX,
            refusal_reason: lookup_model::refusal_reason(start, config),
            model: Box::new(move |node_state| {
                Box::new(LookupModel::new(node_state.local, config, start, node_state.table))
            }),
        }),
        Inbound::Crawl(start) => Some(ExpectedStart {
            kind: OperationKind::Crawl,
            tag: start.tag,
            timeout: config.crawl.timeout,
            most: config.crawl.max_crawls,
            refusal_reason: None,
            model: Box::new(move |node_state| {
                let seeds = crawl_model::seeds(start, node_state.table);
                Box::new(CrawlModel::new(node_state.local, config.crawl.clone(), seeds))
            }),
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
            model: Box::new(move |node_state| Box::new(BroadcastModel::new(config, start, node_state))),
        }),
        _ => None,
    }
}

/// The part of a progress event that is common to all kinds.
pub(crate) fn progress_of<const N: usize>(event: &Outbound<Net<N>>) -> Option<&Progress<Net<N>>> {
    match event {
        Outbound::Progress(progress) => Some(progress),
        Outbound::CrawlProgress(progress) => Some(&progress.request),
        Outbound::BroadcastProgress(progress) => Some(&progress.request),
        _ => None,
    }
}

/// The part of a finish event that is common to all kinds.
pub(crate) fn finish_of<const N: usize>(
    event: &Outbound<Net<N>>,
) -> Option<(OperationId, Outcome, OperationStats)> {
    match event {
        Outbound::Finished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        Outbound::CrawlFinished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        Outbound::BroadcastFinished(finish) => Some((finish.operation, finish.outcome, finish.stats)),
        _ => None,
    }
}

/// A request that comes out.
pub(crate) struct RequestSent<'a, const N: usize> {
    pub(crate) now: Instant,
    pub(crate) request: &'a Request<Net<N>>,
    /// Its soft limit, where it is known.
    pub(crate) soft: Option<Instant>,
    /// No request waited for capacity before or after this call.
    pub(crate) nothing_queued: bool,
}

/// A request that has ended with an answer, a failure, a refusal or a time-out.
pub(crate) struct RequestEnd<'a, const N: usize> {
    pub(crate) now: Instant,
    pub(crate) id: RequestId,
    pub(crate) sent: &'a RequestInFlight<N>,
    pub(crate) elapsed: Duration,
    pub(crate) outcome: &'a RequestOutcome<Net<N>>,
    pub(crate) extra: Option<&'a AnswerExtra<Net<N>>>,
}

/// When an operation must act before its deadline without an inbound event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    None,
    At(Instant),
    /// At this time or never; the model does not know which.
    Maybe(Instant),
}

/// Names of observed situations, to be counted in the tally.
pub(crate) type Counts = Vec<&'static str>;

/// The model of one operation. Its methods are called for each outbound event, in order, after the checker has
/// found the event to keep the rules of all operations; they assert the rules of the kind.
pub(crate) trait OperationModel<const N: usize> {
    fn kind(&self) -> OperationKind;

    /// Time has passed, up to `now`.
    fn time_passes(&mut self, now: Instant) {
        let _ = now;
    }

    /// It is allowed to run, and ends at this deadline.
    fn begin(&mut self, now: Instant, deadline: Instant) {
        let _ = (now, deadline);
    }

    /// All outbound events that were due by `now` have come.
    fn due_work_done(&mut self, now: Instant) {
        let _ = now;
    }

    /// Whether a request has no soft limit.
    fn has_no_soft_limit(&self, request: &Request<Net<N>>) -> bool {
        let _ = request;
        false
    }

    /// Until when the answer to a request is of use, where that is before the operation's deadline.
    fn answer_deadline(&self, request: &Request<Net<N>>) -> Option<Instant> {
        let _ = request;
        None
    }

    /// When it must act by itself.
    fn timer(&self) -> Timer {
        Timer::None
    }

    /// It has finished with work left: whether it goes on in the background until this time, and with how many
    /// stores at most.
    fn continue_in_background(&mut self, now: Instant, until: Instant) -> Option<(bool, usize)> {
        let _ = (now, until);
        None
    }

    /// Whether a request is one to store.
    fn is_store(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Whether a background request may belong to it.
    fn may_send(&self, request: &Request<Net<N>>) -> bool {
        let _ = request;
        false
    }

    /// How many nodes it still has to store with, as far as the model knows.
    fn stores_left(&self) -> usize {
        0
    }

    /// From now on the checker cannot assign every request to its operation: the model must not rely on being
    /// complete.
    fn lose_track(&mut self) {}

    /// A request comes out. Returns whether it has the full request time-out: whether no earlier request to the
    /// node is still in flight.
    fn request_sent(&mut self, sent_event: &RequestSent<'_, N>) -> (bool, Counts);

    /// A request was answered. Returns the other requests to the node, which must be cancelled next as superseded.
    fn request_answered(&mut self, request_end: &RequestEnd<'_, N>) -> Vec<RequestId>;

    /// A request failed, was refused, or timed out. Returns whether no other request to its node is in flight.
    fn request_failed(&mut self, request_end: &RequestEnd<'_, N>) -> bool;

    /// A request was cancelled, for a reason that is neither its time-out nor another answer of its node.
    fn request_cancelled(
        &mut self,
        now: Instant,
        id: RequestId,
        sent: &RequestInFlight<N>,
        reason: CancelReason,
    );

    /// A progress comes out; the end of its request has been applied.
    fn check_progress(&mut self, now: Instant, event: &Outbound<Net<N>>) -> Counts;

    /// The finish comes out while this many requests are in flight.
    fn check_finish(&mut self, now: Instant, event: &Outbound<Net<N>>, in_flight: usize) -> Counts;

    /// The operation stays live after a call in which nothing prevented it from sending: it must have a reason to
    /// wait. `busy` lists the nodes with as many requests in flight as the limit allows.
    fn assert_not_idle(&self, now: Instant, busy: &[Bits<N>]);

    /// Whether its finish must be followed by a `Bootstrapped` event.
    fn is_bootstrap(&self) -> bool {
        false
    }
}

/// The nodes of a table, in its order.
pub(crate) fn all<const N: usize>(table: Option<&RoutingTable<Net<N>>>) -> Vec<Peer<N>> {
    table.into_iter().flat_map(RoutingTable::iter).map(|record| *record.node()).collect()
}
