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
    /// Ends the lookup, with the outcome [`Quorum`](Outcome::Quorum), once this many nodes have answered with a [valid
    /// value](crate::Verdict::Valid) of the newest version so far; `None` is never. At least 1, else the start is
    /// [refused](RefusalReason::Quorum). Older values do not count, so where a newer one comes, the count begins anew.
    pub quorum: Option<usize>,
    /// The nodes to begin with. The coordinator adds the closest nodes of its routing table.
    pub seeds: Vec<F::Node>,
    /// The version of the valid value that the caller holds itself, if it holds one. It counts like the answer of one node.
    pub held: Option<u64>,
}

impl<F: Family> Start<F> {
    /// A lookup of the nodes closest to `target`.
    pub const fn find(tag: u64, target: F::Target) -> Self {
        Self {
            tag,
            target,
            ask: Ask::FindCloser,
            num_results: None,
            quorum: None,
            seeds: Vec::new(),
            held: None,
        }
    }

    /// A lookup that sends `message` to each node it visits.
    ///
    /// The driver keeps what the nodes answer besides closer nodes (values, providers): [`Request::initiator`]
    /// identifies the operation that a request belongs to. With each answer comes the driver's
    /// [verdict](crate::Verdict) on what it carried; a [quorum](Start::with_quorum) of valid ones ends the lookup, and the
    /// finish tells [how many there were](Finish::values). The driver may also stop the operation earlier. The message is sent to a
    /// node again only after a time-out, so a node may receive it twice.
    ///
    /// In a coordinator it asks all nodes of the [region](crate::QueryConfig::regions) of the target, and some
    /// [for closer nodes](Ask::FindCloser) to other points there.
    pub const fn message(tag: u64, target: F::Target, message: F::Message) -> Self {
        Self {
            tag,
            target,
            ask: Ask::Message(message),
            num_results: None,
            quorum: None,
            seeds: Vec::new(),
            held: None,
        }
    }

    /// A bootstrap: a lookup of the node's own target, `local`, by which a node joins the network (Kademlia paper,
    /// section 2.3). The coordinator remembers its seeds; when the lookup has ended, it refreshes the buckets
    /// farther away and emits [`Bootstrapped`](crate::Bootstrapped). A bootstrap that the coordinator began by
    /// itself, because the table was nearly empty, is stopped when this one starts.
    pub const fn bootstrap(tag: u64, local: F::Target, seeds: Vec<F::Node>) -> Self {
        Self { tag, target: local, ask: Ask::FindCloser, num_results: None, quorum: None, seeds, held: None }
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

    /// The caller [holds](Start::held) a valid value of this version itself: it counts towards the quorum like the answer
    /// of one node, and nodes with an older one are to be [corrected](Finish::to_correct). A search whose quorum it meets
    /// ends in the call of its start, waits for no other operation, and asks nobody; a caller that wants to hear of others asks for a
    /// larger quorum, or none.
    #[must_use]
    pub const fn with_held(mut self, version: u64) -> Self {
        self.held = Some(version);
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
    /// The values that answers carried.
    pub values: ValueReport<F>,
}

impl<F: Family> Finish<F> {
    /// Those of the closest nodes that lack the newest valid value, closest first: they were asked for it, and answered
    /// with none, or with an [older](crate::Verdict::Valid) one. The driver may store the newest with them (libp2p's
    /// corrective put), or with the first of them only (Kademlia paper, section 2.3).
    ///
    /// Empty if no valid value is known. Nodes whose value was [invalid](crate::Verdict::Invalid) are left out, and so are
    /// those that were silent, or were asked about other points only. After an end by a [quorum](Start::quorum) the closest
    /// that have answered may be far from the target.
    pub fn to_correct(&self) -> impl Iterator<Item = &Contact<F>> {
        let is_known = self.values.newest.is_some();
        self.closest.iter().filter(move |contact| is_known && contact.carried.lacks_newest())
    }
}

/// The values that the answers of a lookup carried, by the [verdicts](crate::Verdict) of the driver. Answers are those of all
/// nodes, not of the closest only. Which value it was the driver knows: it has judged it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct ValueReport<F: Family> {
    /// The newest version, that which the caller [holds](Start::held) included; `None` if no valid value is known.
    pub newest: Option<u64>,
    /// The node that was the first to answer with it; `None` if none has: nobody has a valid one, or the caller only.
    pub first: Option<F::Node>,
    /// Nodes that have answered with it.
    pub valid: u32,
    /// Nodes that have answered with an older one.
    pub older: u32,
    /// Nodes that have answered with an invalid one, and with no valid one.
    pub invalid: u32,
}

impl<F: Family> Default for ValueReport<F> {
    /// No answer has carried anything.
    fn default() -> Self {
        Self { newest: None, first: None, valid: 0, older: 0, invalid: 0 }
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
    /// [edge probing](crate::QueryConfig::edge_probing) was reached. Or the configured [most
    /// patience](crate::NetworkConfig::max_patience) has cut short the wait for a nearer node. A lookup that carries messages, and one
    /// without edge probing, asks about no gaps: where nodes are silent, it mostly ends so. A crawl: all nodes named were asked, but
    /// some that had answered were [silent later](crate::crawl::CrawlCounts::unsure), so edges are missing.
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
    /// As many nodes as the [quorum](Start::quorum) of the start have the newest valid value.
    Quorum,
    /// A crawl or a broadcast has done all its work.
    Complete,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller stopped it.
    Stopped,
    /// It has not begun: with so many operations before it, by what these cost, or with as little time as was left when it was its
    /// turn, it could not have been done by its deadline. Start fewer at once, or give them more time.
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
    pub(crate) carried: Carried,
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

    /// Whether the node has answered with a [valid value](crate::Verdict::Valid) of the newest version.
    pub const fn has_value(&self) -> bool {
        matches!(self.carried, Carried::Newest)
    }
}

/// What the answers of a node have carried, from the least to the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub(crate) enum Carried {
    /// It has answered no question about the value.
    #[default]
    Unknown,
    Nothing,
    Invalid,
    /// A valid value, and there is a newer one.
    Older,
    /// A valid value of the newest version so far.
    Newest,
}

impl Carried {
    /// Whether the node is known to have none of the newest version, and has told no lie.
    pub(crate) const fn lacks_newest(self) -> bool {
        matches!(self, Self::Nothing | Self::Older)
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
    /// Whether an operation has ended in this way by itself, without a deadline or a stop.
    pub(crate) const fn is_by_itself(self) -> bool {
        !matches!(self, Self::DeadlineExceeded | Self::Stopped)
    }

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
