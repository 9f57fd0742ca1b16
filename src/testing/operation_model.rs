//! The trait of the models: what an operation of one kind may request and must report, beyond the rules of every
//! operation.

use crate::coordinator::events::Outbound;
use crate::lookups::config::QueryConfig;
use crate::lookups::region::Region;
use crate::maintenance::known_size::known_size;
use crate::network_size::estimator::NotEnoughData;
use crate::routing::table::RoutingTable;
use crate::testing::broken::Checked;
use crate::testing::request_in_flight::RequestInFlight;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::{AnswerExtra, Ask, CancelReason, Request, RequestOutcome};
use crate::vocabulary::time::Instant;
use core::time::Duration;

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperationKind {
    Lookup,
    Crawl,
    Broadcast,
}

/// The state of the node when an operation starts.
pub(super) struct NodeState<'a, F: Family> {
    /// The node itself.
    pub(super) local: LocalNode<F>,
    pub(super) table: Option<&'a RoutingTable<F>>,
    /// The estimated network size.
    pub(super) size: Result<u64, NotEnoughData>,
}

impl<F: Family> NodeState<'_, F> {
    /// The region of a key, where the size of the network is known.
    pub(super) fn region(&self, query: &QueryConfig) -> Option<Region> {
        self.known_size(query).map(|size| query.region(size))
    }

    /// The size of the network, where it is known.
    pub(super) fn known_size(&self, query: &QueryConfig) -> Option<KnownSize> {
        known_size(self.table?, self.size.ok(), query.k)
    }
}

/// A request that comes out.
pub(super) struct RequestSent<'a, F: Family> {
    pub(super) now: Instant,
    pub(super) request: &'a Request<F>,
    /// Its soft limit, where it is known.
    pub(super) soft: Option<Instant>,
    /// No request waited for capacity before or after this call.
    pub(super) nothing_queued: bool,
    /// Its node is in the table, or was since the operation began: a lookup that has nobody left to ask may begin with it.
    pub(super) was_in_table: bool,
}

/// A request that has ended with an answer, a failure, a refusal or a time-out.
pub(super) struct RequestEnd<'a, F: Family> {
    pub(super) now: Instant,
    pub(super) id: RequestId,
    pub(super) sent: &'a RequestInFlight<F>,
    pub(super) elapsed: Duration,
    pub(super) outcome: &'a RequestOutcome<F>,
    pub(super) extra: Option<&'a AnswerExtra<F>>,
}

/// When an operation must act before its deadline without an inbound event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    None,
    At(Instant),
    /// At this time or never; the model does not know which.
    Maybe(Instant),
}

/// Names of observed situations, to be counted in the tally.
pub(super) type Counts = Vec<&'static str>;

/// The model of one operation. Its methods are called for each outbound event, in order, after the checker has
/// found the event to keep the rules of all operations; they assert the rules of the kind.
pub(super) trait OperationModel<F: Family>: Send {
    fn kind(&self) -> OperationKind;

    /// A copy of it.
    fn boxed(&self) -> Box<dyn OperationModel<F>>;

    /// Time has passed, up to `now`.
    fn time_passes(&mut self, now: Instant) {
        let _ = now;
    }

    /// It is allowed to run, and ends at this deadline.
    fn begin(&mut self, now: Instant, deadline: Instant) -> Checked {
        let _ = (now, deadline);
        Ok(())
    }

    /// All outbound events that were due by `now` have come.
    fn due_work_done(&mut self, now: Instant) -> Checked {
        let _ = now;
        Ok(())
    }

    /// Whether a request has no soft limit.
    fn has_no_soft_limit(&self, request: &Request<F>) -> bool {
        let _ = request;
        false
    }

    /// Until when the answer to a request is of use, where that is before the operation's deadline.
    fn answer_deadline(&self, request: &Request<F>) -> Option<Instant> {
        let _ = request;
        None
    }

    /// When it must act by itself.
    fn timer(&self) -> Timer {
        Timer::None
    }

    /// It has finished with work left: whether it goes on in the background until this time, and with how many
    /// stores at most.
    fn continue_in_background(&mut self, now: Instant, until: Instant) -> Checked<Option<(bool, usize)>> {
        let _ = (now, until);
        Ok(None)
    }

    /// Whether a request in flight is one to store.
    fn is_store(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Whether a background request may belong to it.
    fn may_send(&self, request: &Request<F>) -> bool {
        let _ = request;
        false
    }

    /// Whether this request may have been superseded by an answer that its node has given to another one, where
    /// the model cannot tell which requests an answer supersedes.
    fn may_be_superseded(&self, sent: &RequestInFlight<F>) -> bool {
        let _ = sent;
        false
    }

    /// How many nodes it still has to store with, as far as the model knows.
    fn stores_left(&self) -> usize {
        0
    }

    /// From now on the checker cannot assign every request to its operation: the model must not rely on being
    /// complete.
    fn lose_track(&mut self) {}

    /// Whether it has not lost track.
    fn is_tracked(&self) -> bool {
        true
    }

    /// A node has gone while requests wait: those that wait for it, which an observer does not see, have failed.
    fn waiting_failed(&mut self, node: &F::Node) {
        let _ = node;
    }

    /// A part of the answer to this request has come: from now on it has no soft limit.
    fn answered_in_part(&mut self, now: Instant, id: RequestId, node: &F::Node) {
        let _ = (now, id, node);
    }

    /// A request comes out. Returns whether it has the full request time-out: whether no earlier request to the
    /// node is still in flight.
    fn request_sent(&mut self, sent_event: &RequestSent<'_, F>) -> Checked<(bool, Counts)>;

    /// A request was answered. Returns the other requests to the node, which must be cancelled next as superseded.
    fn request_answered(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<Vec<RequestId>>;

    /// A request failed, was refused, or timed out. Returns whether no other request to its node is in flight.
    fn request_failed(&mut self, request_end: &RequestEnd<'_, F>) -> Checked<bool>;

    /// A request was cancelled, for a reason that is neither its time-out nor another answer of its node.
    fn request_cancelled(
        &mut self,
        now: Instant,
        id: RequestId,
        sent: &RequestInFlight<F>,
        reason: CancelReason,
    ) -> Checked;

    /// A progress comes out; the end of its request has been applied.
    fn check_progress(&mut self, now: Instant, event: &Outbound<F>) -> Checked<Counts>;

    /// The end of a request has been applied, and no progress comes out, as the machine emits none.
    fn silent_progress(&mut self, now: Instant) -> Checked {
        let _ = now;
        Ok(())
    }

    /// The finish comes out while this many requests are in flight.
    fn check_finish(&mut self, now: Instant, event: &Outbound<F>, in_flight: usize) -> Checked<Counts>;

    /// The operation stays live after a call in which nothing prevented it from sending: it must have a reason to
    /// wait. `busy` lists the nodes with as many requests in flight as the limit allows.
    fn check_not_idle(&self, now: Instant, busy: &[F::Key]) -> Checked;

    /// Whether it had all that it wanted at its start: then it ends in that call, and waits for no other operation.
    fn needs_nothing(&self) -> bool {
        false
    }

    /// Whether its finish must be followed by a `Bootstrapped` event.
    fn is_bootstrap(&self) -> bool {
        false
    }
}

impl<F: Family> Clone for Box<dyn OperationModel<F>> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// The nodes of a table, in its order.
pub(super) fn all<F: Family>(table: Option<&RoutingTable<F>>) -> impl Iterator<Item = F::Node> {
    table.into_iter().flat_map(RoutingTable::iter).map(|entry| entry.node().clone())
}

/// Whether a request is one to store.
pub(super) const fn is_store_request<F: Family>(request: &Request<F>) -> bool {
    matches!(request.ask, Ask::Store { .. } | Ask::Batch { .. })
}
