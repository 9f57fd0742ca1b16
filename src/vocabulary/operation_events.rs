//! Events of operations: how a lookup starts, its progress and its finish, refusals and statistics.
//!
//! These payloads are shared. Each machine (the query, the pools, the crawl, the coordinator) has its own inbound
//! and outbound enum, built from them; [`OperationInbound`] and [`OperationOutbound`] are the enums of the
//! machines with operations of one kind.

use crate::context::Context;
use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::region::RegionReport;
use crate::vocabulary::request_events::{Ask, Cancel, Initiator, Request, RequestOutcome, Response};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;

/// Starts a lookup: an iteration towards `target` that asks each node on the way (Kademlia paper, section 2.3).
///
/// The deadline and the span context of the lookup are those of the [`Stamped`](crate::Stamped) around this event.
/// It is answered by [`Started`] or [`Refused`], in the same call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Start<F: Family> {
    /// A number that the caller chooses to recognise the operation by. The tag of a live operation cannot be used
    /// again before its finish.
    pub tag: u64,
    /// What to look up: [a key, or what is hashed to it](crate::Target).
    pub target: F::Target,
    /// The request to send to each node.
    pub ask: Ask<F>,
    /// The maximum number of nodes in the finish; `None` is the configured k. A number above k makes the lookup
    /// converge on as many nodes. 1 to `query.max_candidates`, else the start is
    /// [refused](RefusalReason::NumResults).
    pub num_results: Option<usize>,
    /// Ends the lookup, with the outcome [`Quorum`](Outcome::Quorum), once this many answers have
    /// [carried a value](crate::AnswerExtra::value); `None` is never. At least 1, else the start is
    /// [refused](RefusalReason::Quorum).
    pub quorum: Option<usize>,
    /// The nodes to begin with. The coordinator adds the closest nodes of its routing table.
    pub seeds: Vec<F::Node>,
}

impl<F: Family> Start<F> {
    /// A lookup of the nodes closest to `target`.
    pub const fn find(tag: u64, target: F::Target) -> Self {
        Self { tag, target, ask: Ask::FindCloser, num_results: None, quorum: None, seeds: Vec::new() }
    }

    /// A lookup that sends `message` to each node it visits.
    ///
    /// The driver keeps what the nodes answer besides closer nodes (values, providers): [`Request::initiator`]
    /// identifies the operation that a request belongs to. With each answer the driver reports whether it
    /// [carried a value](crate::AnswerExtra::value) that the driver accepts; a [quorum](Start::with_quorum) of
    /// such answers ends the lookup. The driver may also stop the operation earlier. The message is sent to a node
    /// again only after a time-out, so a node may receive it twice.
    ///
    /// In a coordinator it asks all nodes of the [region](crate::QueryConfig::regions) of the target, and some
    /// [for closer nodes](Ask::FindCloser) to other points there.
    pub const fn message(tag: u64, target: F::Target, message: F::Message) -> Self {
        Self { tag, target, ask: Ask::Message(message), num_results: None, quorum: None, seeds: Vec::new() }
    }

    /// A bootstrap: a lookup of the node's own target, `local`, by which a node joins the network (Kademlia paper,
    /// section 2.3). The coordinator remembers its seeds; when the lookup has ended, it refreshes the buckets
    /// farther away and emits [`Bootstrapped`](crate::Bootstrapped). A bootstrap that the coordinator began by
    /// itself, because the table was nearly empty, is stopped when this one starts.
    pub const fn bootstrap(tag: u64, local: F::Target, seeds: Vec<F::Node>) -> Self {
        Self { tag, target: local, ask: Ask::FindCloser, num_results: None, quorum: None, seeds }
    }

    /// Sets the [seeds](Start::seeds).
    #[must_use]
    pub fn with_seeds(mut self, seeds: Vec<F::Node>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Whether it is a bootstrap of the node whose key is `local`.
    pub(crate) fn is_bootstrap(&self, local: F::Key) -> bool {
        self.target.key() == local && self.ask == Ask::FindCloser
    }

    /// Sets the [maximum number of nodes](Start::num_results) in the finish.
    #[must_use]
    pub fn with_num_results(mut self, num_results: usize) -> Self {
        self.num_results = Some(num_results);
        self
    }

    /// Sets the [quorum](Start::quorum) of answers with a value that ends the lookup.
    #[must_use]
    pub fn with_quorum(mut self, quorum: usize) -> Self {
        self.quorum = Some(quorum);
        self
    }
}

/// A request of an operation has ended. Emitted for requests that were sent and then answered, failed, rejected or
/// timed out, if [`PoolConfig::progress`](crate::PoolConfig::progress) is set; the operation goes on or is about
/// to finish.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Progress<F: Family> {
    /// The request.
    pub id: RequestId,
    /// The operation.
    pub operation: OperationId,
    /// The node that was asked.
    pub node: F::Node,
    /// See [`Request::hop`].
    pub hop: u32,
    /// Time since the request was sent.
    pub elapsed: Duration,
    /// How the request ended.
    pub outcome: RequestOutcome<F>,
    /// The operation's statistics so far.
    pub stats: OperationStats,
}

/// The last event of an operation.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Finish<F: Family> {
    /// The operation. Its id has no meaning any more, and its tag may be used again, from now on.
    pub operation: OperationId,
    /// What was looked up.
    pub target: F::Target,
    /// How it ended.
    pub outcome: Outcome,
    /// The closest nodes that answered, in order of distance to the target. The list is partial if the outcome is
    /// neither [`Converged`](Outcome::Converged) nor [`AllFound`](Outcome::AllFound).
    pub closest: Vec<Contact<F>>,
    /// The operation's statistics; `ended` is set.
    pub stats: OperationStats,
    /// What was found in the region of the target. `None` if the lookup has [asked in no region](crate::QueryConfig::regions):
    /// it carries no message, or the size of the network is not known.
    pub region: Option<RegionReport>,
}

impl<F: Family> Finish<F> {
    /// Those of the closest nodes whose answers [carried no value](crate::AnswerExtra::value). If other answers
    /// carried one, the driver may store the value with these nodes.
    pub fn without_value(&self) -> impl Iterator<Item = &Contact<F>> {
        self.closest.iter().filter(|contact| !contact.value)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Outcome {
    /// The result holds the k closest nodes of the network, as far as can be known: of the known nodes that have not
    /// failed, the k closest have answered; and where a nearer node did not, or where answers name fewer nodes than k, the
    /// answers have told all nodes up to the k-th closest. A node that takes much longer than nearly all answers do counts
    /// as silent (see [`NetworkConfig`](crate::NetworkConfig) and [how long a lookup waits](crate::requests)): it may be live,
    /// and nearer. With several disjoint paths: on one of them at least.
    Converged,
    /// The lookup stopped before it knew the k closest nodes, because as many of the closest had answered as
    /// [`beta`](crate::QueryConfig::beta) says. The nodes found are near the target, no more.
    StoppedEarly,
    /// The k closest nodes that answer have answered, but others may be closer. Answers name the silent as well, so where
    /// nodes are silent, or an answer names fewer than k, there can be gaps: distances from the target of which no answer
    /// has told all nodes. The lookup asks about the gaps, and some were left: nobody was known there to ask, or the bound of
    /// [edge probing](crate::QueryConfig::edge_probing) was reached. Or the configured [most patience](crate::NetworkConfig::max_patience) has cut
    /// short the wait for a nearer node. A lookup that carries messages, and one without edge probing, asks about no gaps:
    /// where nodes are silent, it mostly ends so. A crawl: all nodes named were asked, but some that had answered were
    /// [silent later](crate::crawl::CrawlCounts::unsure), so edges are missing.
    Unsure,
    /// These are all there are: fewer than k nodes are known, starting points included, all of them have answered, one of
    /// them has named all others, and no answer was as long as an answer [can be](crate::Family::answers).
    AllFound,
    /// No node was left to ask, and fewer than k nodes have answered. There may be others: some that are known have not
    /// answered, or no answer has named all.
    Exhausted,
    /// Nobody could be reached: none of the nodes known answered until its time-out, or there was no node to ask. A
    /// lookup without any node to ask ends in this way in the call of its start.
    Unreachable,
    /// The lookup asked as many nodes as `query.max_nodes` allows before the k closest had answered; or the crawl
    /// asked as many nodes as it has room for, and further nodes were named.
    NodeLimit,
    /// As many answers as the [quorum](Start::quorum) of the start carried a value.
    Quorum,
    /// A crawl or a broadcast has done all its work.
    Complete,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller stopped it.
    Stopped,
    /// It has not begun: with so many operations before it, as fast as these end by themselves, it could not have been done by
    /// its deadline. Start fewer at once, or give them more time.
    Overloaded,
}

/// A node that answered an operation, and how.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
pub struct Contact<F: Family> {
    /// The node.
    pub node: F::Node,
    pub(crate) micros: u32,
    pub(crate) hop: u16,
    pub(crate) value: bool,
}

impl<F: Family> Contact<F> {
    /// Time from request to answer, in whole microseconds; at most 71 minutes.
    pub fn round_trip(&self) -> Duration {
        Duration::from_micros(u64::from(self.micros))
    }

    /// See [`Request::hop`].
    pub fn hop(&self) -> u32 {
        u32::from(self.hop)
    }

    /// Whether the node's answer [carried a value](crate::AnswerExtra::value).
    pub const fn has_value(&self) -> bool {
        self.value
    }
}

/// Statistics of an operation: its times, and the number of its requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OperationStats {
    /// When its start was accepted.
    pub started: Instant,
    /// When it ended; `None` while it lives.
    pub ended: Option<Instant>,
    /// Requests sent.
    pub sent: u32,
    /// Requests that were answered.
    pub answered: u32,
    /// Requests that the driver reported as failed or rejected.
    pub failed: u32,
    /// Requests that ran into their own timeout.
    pub timed_out: u32,
    /// Requests that were sent and then cancelled because the operation or its lookup ended, or because the
    /// node answered another request of the operation.
    pub cancelled: u32,
    /// The largest [`hop`](Request::hop) of a request that was answered: 1 if only seeds answered, 0 if no node
    /// did.
    pub hops: u32,
}

impl OperationStats {
    /// Requests that were sent and have not ended.
    pub const fn in_flight(&self) -> u32 {
        let ended = self.answered.saturating_add(self.failed).saturating_add(self.timed_out);
        self.sent.saturating_sub(ended.saturating_add(self.cancelled))
    }
}

/// A start was not accepted. No operation exists, and no other event follows for this start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct Refused {
    /// The tag of the start.
    pub tag: u64,
    /// Why it was not accepted.
    pub reason: RefusalReason,
}

/// Why a start was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum RefusalReason {
    /// A live operation has this tag.
    TagInUse,
    /// No more operations can run or wait.
    Full,
    /// The deadline leaves no time: it is not later than the time of the call.
    DeadlinePassed,
    /// [`Start::num_results`] is 0, or more than a lookup may hold (`query.max_candidates`).
    NumResults {
        /// The maximum; the minimum is 1.
        most: usize,
    },
    /// [`Start::quorum`] is 0.
    Quorum,
    /// A broadcast was started with no records, or with more than one broadcast can store.
    Records {
        /// The maximum; the minimum is 1.
        most: usize,
    },
    /// A broadcast was started with more nodes to store with than one broadcast can have.
    Nodes {
        /// The maximum.
        most: usize,
    },
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TagInUse => f.write_str("a live operation has this tag"),
            Self::Full => f.write_str("no more operations can wait"),
            Self::DeadlinePassed => f.write_str("the deadline leaves no time"),
            Self::NumResults { most } => write!(f, "num_results must be 1 to {most}"),
            Self::Quorum => f.write_str("quorum must be at least 1"),
            Self::Records { most } => write!(f, "records must be 1 to {most}"),
            Self::Nodes { most } => write!(f, "nodes must be at most {most}"),
        }
    }
}

impl core::error::Error for RefusalReason {}

impl Outcome {
    /// Whether a lookup has ended in this way by itself, without a deadline, a stop or a quorum.
    #[cfg(feature = "testing")]
    pub(crate) const fn is_natural(self) -> bool {
        matches!(
            self,
            Self::Converged
                | Self::StoppedEarly
                | Self::Unsure
                | Self::AllFound
                | Self::Exhausted
                | Self::Unreachable
                | Self::NodeLimit
        )
    }

    /// Whether as many of the closest nodes have answered as were looked for, so that they show how dense the network is,
    /// though a few may be missing.
    pub(crate) const fn shows_density(self) -> bool {
        matches!(self, Self::Converged | Self::Unsure)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::StoppedEarly => "stopped early",
            Self::Unsure => "unsure",
            Self::AllFound => "all found",
            Self::Exhausted => "exhausted",
            Self::Unreachable => "unreachable",
            Self::NodeLimit => "node limit",
            Self::Quorum => "quorum",
            Self::Complete => "complete",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Stopped => "stopped",
            Self::Overloaded => "overloaded",
        })
    }
}

/// A start was accepted: its operation runs, or [waits](crate::PoolConfig) to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct Started {
    /// The id of the operation until its finish.
    pub operation: OperationId,
}

/// Inbound events of a machine with operations of one kind: [`QueryPool`](crate::QueryPool),
/// [`BroadcastPool`](crate::BroadcastPool) and [`Crawl`](crate::Crawl). `S` is the start of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum OperationInbound<F: Family, S> {
    /// Start an operation. The stamp contains the operation's span context and its deadline.
    Start(S),
    /// Stop an operation now; it ends in the same way as at its deadline, with the outcome
    /// [`Stopped`](Outcome::Stopped). Ignored if the operation has ended.
    Stop(OperationId),
    /// A request was answered, or has failed. The stamp contains the span in which the driver did the IO.
    Response(Response<F>),
    /// Time has passed, and no other event happened.
    Tick,
}

impl<F: Family> From<Start<F>> for OperationInbound<F, Start<F>> {
    fn from(start: Start<F>) -> Self {
        Self::Start(start)
    }
}

impl<F: Family, S> From<Response<F>> for OperationInbound<F, S> {
    fn from(response: Response<F>) -> Self {
        Self::Response(response)
    }
}

/// Outbound events of a machine with operations of one kind. Every start is followed, in the same call, by one
/// `Started` or one `Refused`. Every `Started` is followed by exactly one `Finished`, the last event of the
/// operation. `P` is the progress of an operation, `E` its finish.
#[derive(Clone, Debug, PartialEq)]
pub enum OperationOutbound<F: Family, P, E> {
    /// A start was accepted.
    Started(Started),
    /// Send this request, and submit its [`Response`].
    Request(Request<F>),
    /// A request was cancelled: abort its IO.
    Cancel(Cancel<F>),
    /// A request ended.
    Progress(P),
    /// An operation ended: its last event.
    Finished(E),
    /// A start was not accepted.
    Refused(Refused),
}

impl<F: Family, P, E> From<Request<F>> for OperationOutbound<F, P, E> {
    #[inline]
    fn from(request: Request<F>) -> Self {
        Self::Request(request)
    }
}

impl<F: Family, P, E> From<Cancel<F>> for OperationOutbound<F, P, E> {
    #[inline]
    fn from(cancel: Cancel<F>) -> Self {
        Self::Cancel(cancel)
    }
}

/// The result of a lookup that the machine itself uses: a lookup of the routing maintenance, or a bootstrap of the
/// caller's.
#[derive(Clone, Debug)]
pub(crate) struct EndedLookup<F: Family> {
    pub(crate) initiator: Initiator,
    pub(crate) outcome: Outcome,
    pub(crate) stats: OperationStats,
    /// The cpl of the target and the closest node that answered.
    pub(crate) closest_cpl: Option<u32>,
    pub(crate) target: F::Key,
    /// The closest nodes that answered. Empty for an operation of the caller's, whose finish contains them.
    pub(crate) closest: Vec<Contact<F>>,
    /// The context of the side effects that follow from this result.
    pub(crate) context: Context,
}
