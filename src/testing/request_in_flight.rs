//! [`RequestInFlight`]: what the checker knows of a request that was sent and has not ended.

use crate::vocabulary::family::Family;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::request_events::Initiator;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;

/// A request that a machine has sent and that has not ended, for a harness that plays the nodes of a network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestInFlight<F: Family> {
    /// What initiated it. Requests that an operation leaves behind at its finish become those of the
    /// background.
    pub initiator: Initiator,
    /// The node that was asked.
    pub node: F::Node,
    /// The key that it was asked about.
    pub target: F::Key,
    /// See [`Request::hop`](crate::Request::hop).
    pub hop: u32,
    /// When it was sent.
    pub at: Instant,
    /// From when on its answer is late.
    pub deadline: Instant,
    /// When it ceases to occupy a slot, where that is known.
    pub(super) soft: Option<Instant>,
    /// The time until which its answer is useful: the deadline of its operation, or of the lookup that it
    /// belongs to.
    pub(super) useful_until: Instant,
    /// The finished operation that it belongs to, where it is known.
    pub(super) background_of: Option<OperationId>,
    /// Where it is not known: the finished operations of which one has sent it.
    pub(super) one_of: Vec<OperationId>,
    /// Its lookup has ended, and its answer is still listened to: the context that the lookup was started with.
    pub(super) listening: Option<SpanContext>,
    /// What has come of its answer, if that comes in parts: the time to the first, and the nodes of all.
    pub(super) parts: Option<(Duration, Vec<F::Node>)>,
}

impl<F: Family> RequestInFlight<F> {
    /// The time to its answer, which arrived at `at`, or to the first part of that.
    pub(super) fn elapsed(&self, at: Instant) -> Duration {
        self.parts.as_ref().map_or_else(|| at - self.at, |(elapsed, _)| *elapsed)
    }

    /// The nodes that its answer names, of which the last part names these.
    pub(super) fn all_named(&self, last: &[F::Node]) -> Vec<F::Node> {
        self.parts.iter().flat_map(|(_, nodes)| nodes).chain(last).cloned().collect()
    }
}
