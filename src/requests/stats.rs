//! [`RequestStats`]: the number of requests of a machine, by how they ended.

/// The number of requests of a machine so far, by how they ended. After every call, `sent` is the sum of
/// `answered`, `failed`, `timed_out`, `cancelled` and `in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestStats {
    /// Requests that were emitted.
    pub sent: u64,
    /// Requests that were answered in time.
    pub answered: u64,
    /// Requests that the driver reported as failed, for whatever reason. Those that a node
    /// [rejected](crate::Failure::Rejected) are among them, though it is alive; only the events tell them apart.
    pub failed: u64,
    /// Requests that ran into their own timeout.
    pub timed_out: u64,
    /// Requests that were emitted and then cancelled, for a reason other than their own timeout: see
    /// [`CancelReason`](crate::CancelReason).
    pub cancelled: u64,
    /// Requests that were emitted and have not ended.
    pub in_flight: u64,
    /// Those of the requests in flight whose answer is still listened to, although nobody waits for it any more: their
    /// patience has passed, or their lookup has ended. They do not count for
    /// [`max_in_flight`](crate::NetworkConfig::max_in_flight).
    pub listening: u64,
    /// Requests that wait for capacity; they are not emitted yet.
    pub queued: u64,
    /// Answers and failures for requests that had already ended; they are ignored. An id that was never issued may
    /// look like an old one and be counted here.
    pub late: u64,
    /// Ids of requests that were never issued or not emitted yet, and ids of operations that are not live; they
    /// are ignored.
    pub unknown: u64,
}
