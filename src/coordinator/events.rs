//! Inbound and outbound events of a [`Coordinator`](crate::Coordinator).

use crate::broadcast::events::{BroadcastFinish, BroadcastProgress, StartBroadcast};
use crate::coordinator::any_task::{AnyFinish, AnyProgress};
use crate::crawl::events::{CrawlFinish, CrawlProgress, StartCrawl};
use crate::routing::events::{RoutingInbound, RoutingOutbound};
use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{Finish, OperationOutbound, Progress, Refused, Start, Started};
use crate::vocabulary::outbound::{inbound_from, outbound_from};
use crate::vocabulary::request_events::{Cancel, Request, Response};

/// Inbound events of a [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum Inbound<F: Family> {
    /// Start a lookup, from the closest nodes of the routing table and the given seeds. The stamp contains
    /// its span and its deadline.
    Start(Start<F>),
    /// Start a [crawl](crate::crawl), from the nodes of the routing table and the given seeds. The stamp
    /// contains its span and its deadline.
    Crawl(StartCrawl<F>),
    /// Start a [broadcast](crate::broadcast), which stores records with the nodes closest to their keys. Its
    /// lookups begin from the closest nodes of the routing table and the given seeds. The stamp contains its
    /// span and its deadline.
    Broadcast(StartBroadcast<F>),
    /// Stop an operation now; it ends in the same way as at its deadline. Ignored if it has ended.
    Stop(OperationId),
    /// A request was answered, or has failed. The stamp contains the span in which the driver did the IO.
    Response(Response<F>),
    /// What the driver knows about nodes from other sources than the machine's own requests.
    Routing(RoutingInbound<F>),
    /// Only time has passed.
    Tick,
}

inbound_from!(Inbound {
    Start: Start<F>,
    Crawl: StartCrawl<F>,
    Broadcast: StartBroadcast<F>,
    Response: Response<F>,
    Routing: RoutingInbound<F>,
});

/// Outbound events of a [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum Outbound<F: Family> {
    /// A start was accepted.
    Started(Started),
    /// Send this request, and report its result.
    Request(Request<F>),
    /// A request was cancelled; abort its IO.
    Cancel(Cancel<F>),
    /// A request of a lookup ended.
    Progress(Progress<F>),
    /// A lookup ended: its last event.
    Finished(Finish<F>),
    /// A request of a crawl ended.
    CrawlProgress(CrawlProgress<F>),
    /// A crawl ended: its last event.
    CrawlFinished(CrawlFinish<F>),
    /// A request of a broadcast ended.
    BroadcastProgress(BroadcastProgress<F>),
    /// A broadcast ended: its last event. An optimistic one may go on storing after it, as work of
    /// [`Initiator::Background`](crate::Initiator::Background).
    BroadcastFinished(BroadcastFinish<F>),
    /// A start was not accepted.
    Refused(Refused),
    /// What happened to the routing table: a side effect, linked to its origin.
    Routing(RoutingOutbound<F>),
    /// The size of the network is known for the first time, or differs by more than a tenth from the last one
    /// emitted: a side effect, linked to the lookup that led to it. See [`NetworkSize`](crate::NetworkSize).
    NetworkSize {
        /// The number of nodes that answer, this node not counted.
        nodes: u64,
    },
}

outbound_from!(Outbound { Request: Request<F>, Cancel: Cancel<F>, Routing: RoutingOutbound<F> });

impl<F: Family> From<OperationOutbound<F, AnyProgress<F>, AnyFinish<F>>> for Outbound<F> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // measured: one copy of the event fewer
    fn from(event: OperationOutbound<F, AnyProgress<F>, AnyFinish<F>>) -> Self {
        match event {
            OperationOutbound::Started(started) => Self::Started(started),
            OperationOutbound::Request(request) => Self::Request(request),
            OperationOutbound::Cancel(cancel) => Self::Cancel(cancel),
            OperationOutbound::Progress(AnyProgress::Lookup(progress)) => Self::Progress(progress),
            OperationOutbound::Progress(AnyProgress::Crawl(progress)) => Self::CrawlProgress(progress),
            OperationOutbound::Progress(AnyProgress::Broadcast(progress)) => {
                Self::BroadcastProgress(progress)
            }
            OperationOutbound::Finished(AnyFinish::Lookup(finish)) => Self::Finished(finish),
            OperationOutbound::Finished(AnyFinish::Crawl(finish)) => Self::CrawlFinished(finish),
            OperationOutbound::Finished(AnyFinish::Broadcast(finish)) => Self::BroadcastFinished(finish),
            OperationOutbound::Refused(refused) => Self::Refused(refused),
        }
    }
}
