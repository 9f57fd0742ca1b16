//! Events of requests: what a request asks, what initiated it, how the driver answers it, and how it ends.

use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::secret::WireToken;
use crate::vocabulary::time::Instant;
use core::fmt;

/// The question of a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub enum Ask<F: Family> {
    /// Return the nodes closest to the target that the node knows (`FIND_NODE`).
    FindCloser,
    /// A message of the caller's whose answer also names closer nodes (`GET_PROVIDERS`, `get_peers` and the like).
    Message(F::Message),
    /// Store one record (`ADD_PROVIDER`, `put`, `announce_peer`). Sent by a broadcast. The answer names no nodes.
    Store {
        /// What to store.
        message: F::Message,
        /// The [token](AnswerExtra::token) in this node's own answer to the lookup of the broadcast, if there was
        /// one.
        token: Option<F::Message>,
    },
    /// Store all of these records. Sent by a [sweep](crate::broadcast::events::Strategy::Sweep). One answer is for
    /// all of them.
    Batch {
        /// The records, each with its target.
        records: Vec<Record<F>>,
        /// The token in this node's own answer, as in [`Ask::Store`].
        token: Option<F::Message>,
    },
}

/// A record to be stored with the nodes closest to its key.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct Record<F: Family> {
    /// What the record belongs to; its key says which nodes store it.
    pub target: F::Target,
    /// The message to store.
    pub message: F::Message,
}

/// What an answer carried besides closer nodes, as far as the engine needs it. The default is no value and no
/// token.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct AnswerExtra<F: Family> {
    /// The value that the answer carried, as the driver judges it.
    pub value: Verdict,
    /// A token that the node expects in a store request. The engine returns it to the driver in the
    /// [store request](Ask::Store) to this node. (BEP 5 and BEP 44 have such tokens.)
    pub token: Option<F::Message>,
}

impl<F: Family> Default for AnswerExtra<F> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<F: Family> AnswerExtra<F> {
    /// No value and no token.
    pub const NONE: Self = Self { value: Verdict::Nothing, token: None };
}

/// What the driver says of the value that an answer carried. It comes with the answer, as the driver has the value before
/// the engine has the answer: it validates first. The engine never sees the value.
///
/// A lookup compares the versions, and nothing else: a higher one is newer, so those with a lower one are older, and of the
/// same version all are as good as each other. What the version is depends on the wire:
///
/// * Values with a sequence number (BEP 44, IPNS): the number. One that is signed, `seq`, is `seq as u64 ^ 1 << 63`.
/// * Values of which a selector chooses the better (libp2p's `Validator` and `Selector`): the driver keeps the best value of
///   the search, and counts. The first is version 1; one that the selector prefers to the best has one more than the best;
///   one that equals the best has the same; any other has 0.
/// * Values without an order (providers, peers of a torrent, items that are named by their hash): always 0.
///
/// A node counts once, by the best of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// It carried none.
    #[default]
    Nothing,
    /// It carried a valid one, of this version.
    Valid(u64),
    /// It carried one that is not valid: the node lies, or is broken. That counts as neither an answer with a value nor as
    /// one without.
    Invalid,
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct Answer<F: Family> {
    /// The closer nodes that it names.
    pub closer: Vec<F::Node>,
    /// What it carried besides them.
    pub extra: AnswerExtra<F>,
    /// Whether it is a part of the answer, and more is to come: see [`Response::part`].
    pub is_part: bool,
}

impl<F: Family> Answer<F> {
    /// The verdict on what it carried. `None` of a part: that is in the last one, so without it it is not known.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        (!self.is_part).then_some(self.extra.value)
    }
}

/// Why a request was not answered, as the driver reports it. What the routing table concludes from each stands in
/// [`routing`](crate::routing).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum Failure<F: Family> {
    /// The answer was invalid, the connection broke, or the reason is not known.
    Failed,
    /// The node is alive and refused the request. The message is the reason; the engine passes it through.
    Rejected(F::Message),
    /// The node could not be reached: no address could be dialled, or no route leads there. That may be this host's
    /// fault.
    Unreachable,
    /// The host was reached, and nobody accepts there: the port is closed, or the protocol is not served. This does
    /// not happen by a lost message.
    ConnectionRefused,
    /// The node is not there any more, and will not come back where it was: another identity answers in its place, or
    /// it said so itself.
    Gone,
}

/// The answer to a request, or its failure: the driver submits it to the machine that emitted the request. The
/// [`Stamped`](crate::Stamped) around it contains the span in which the driver did the IO.
///
/// ```
/// # use kad_proto::{Key8, RequestId};
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl kad_proto::Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = u16;
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// use kad_proto::Response;
///
/// # let request = RequestId::from_u64(0);
/// # let closer = vec![];
/// let answered = Response::<Tiny>::answered(request, closer).with_value().with_token(7);
/// let failed = Response::<Tiny>::failed(request);
/// # assert!(answered.result.is_ok() && failed.result.is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Response<F: Family> {
    /// The request.
    pub request: RequestId,
    /// The answer, or the reason why there is none.
    pub result: Result<Answer<F>, Failure<F>>,
    /// When it arrived: at the time of the call ([`Instant::FAR_FUTURE`] means that), unless it had to wait before it
    /// could be submitted; see [`arrived_at`](Response::arrived_at).
    #[cfg_attr(feature = "record", serde(with = "unless_far"))]
    pub arrived: Instant,
    /// Whether the connection was made for this request; see [`after_dial`](Response::after_dial).
    pub dialed: bool,
}

/// Writes [`Instant::FAR_FUTURE`] as nothing, as nearly all responses have it.
#[cfg(feature = "record")]
mod unless_far {
    use crate::vocabulary::time::Instant;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde wants a reference
    pub(super) fn serialize<S: Serializer>(at: &Instant, to: S) -> Result<S::Ok, S::Error> {
        Some(*at).filter(|at| *at < Instant::FAR_FUTURE).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Instant, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(Instant::FAR_FUTURE))
    }
}

impl<F: Family> Response<F> {
    /// A response with this result, which did not wait and took no dial.
    pub const fn new(request: RequestId, result: Result<Answer<F>, Failure<F>>) -> Self {
        Self { request, result, arrived: Instant::FAR_FUTURE, dialed: false }
    }

    /// The request was answered, and the answer names these closer nodes. For a request that has no reply on the wire
    /// (libp2p's `ADD_PROVIDER`) submit this, without nodes, when it was sent.
    pub const fn answered(request: RequestId, closer: Vec<F::Node>) -> Self {
        Self::new(request, Ok(Answer { closer, extra: AnswerExtra::NONE, is_part: false }))
    }

    /// A part of the answer came, and more is to come: the answers of discv5 take several packets. The engine keeps
    /// the nodes of the parts, and uses all of them when [`answered`](Response::answered) brings the last. It waits for
    /// that as long again as for the first part, at least for the soft limit, and not beyond the request's deadline;
    /// then the request is cancelled as [incomplete](CancelReason::Incomplete), and what has come is the answer. Until then it
    /// holds its concurrency slot.
    ///
    /// A failure that is submitted instead counts as one, whatever came before. All limits on an answer hold for its
    /// parts together. At most
    /// [`max_part_nodes`](crate::NetworkConfig::max_part_nodes) nodes are kept. Values and tokens belong to the last
    /// part; those of others are not looked at.
    pub const fn part(request: RequestId, closer: Vec<F::Node>) -> Self {
        Self::new(request, Ok(Answer { closer, extra: AnswerExtra::NONE, is_part: true }))
    }

    /// The request failed for [a reason that is not known](Failure::Failed).
    pub const fn failed(request: RequestId) -> Self {
        Self::new(request, Err(Failure::Failed))
    }

    /// [The node could not be reached](Failure::Unreachable).
    pub const fn unreachable(request: RequestId) -> Self {
        Self::new(request, Err(Failure::Unreachable))
    }

    /// [Nobody accepts there](Failure::ConnectionRefused).
    pub const fn connection_refused(request: RequestId) -> Self {
        Self::new(request, Err(Failure::ConnectionRefused))
    }

    /// [The node is not there any more](Failure::Gone).
    pub const fn gone(request: RequestId) -> Self {
        Self::new(request, Err(Failure::Gone))
    }

    /// The node is alive and refused the request, for this reason.
    pub const fn rejected(request: RequestId, reason: F::Message) -> Self {
        Self::new(request, Err(Failure::Rejected(reason)))
    }

    /// Sets when the result arrived, if it waited in a queue of the driver's since: the round trip ends then. An
    /// instant after the time of the call counts as that time, one before the request was sent as the time of
    /// sending. It cannot make an answer count whose request has ended before the call.
    #[must_use]
    pub const fn arrived_at(mut self, at: Instant) -> Self {
        self.arrived = at;
        self
    }

    /// Marks that the time since the request includes that of making a connection (a dial, a handshake): it is no
    /// measure of the [node's round trip](crate::routing::table::TableEntry::round_trip). Time-outs are adapted to it,
    /// since later requests to nodes that are not connected take as long.
    #[must_use]
    pub const fn after_dial(mut self) -> Self {
        self.dialed = true;
        self
    }

    /// Marks that the answer carried a valid value, of those without an order: the [verdict](Self::with_verdict) is
    /// [`Valid(0)`](Verdict::Valid). No effect on a failure.
    #[must_use]
    pub fn with_value(self) -> Self {
        self.with_verdict(Verdict::Valid(0))
    }

    /// Sets the [verdict](AnswerExtra::value) on the value that the answer carried. No effect on a failure.
    #[must_use]
    pub fn with_verdict(mut self, verdict: Verdict) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.extra.value = verdict;
        }
        self
    }

    /// Sets the [token](AnswerExtra::token) that the answer carried. No effect on a failure.
    #[must_use]
    pub fn with_token(mut self, token: F::Message) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.extra.token = Some(token);
        }
        self
    }

    /// Sets what the answer carried besides closer nodes. No effect on a failure.
    #[must_use]
    pub fn with_extra(mut self, extra: AnswerExtra<F>) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.extra = extra;
        }
        self
    }
}

/// The part of the engine that initiated a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Initiator {
    /// An operation that the caller started. All others are side effects, without a parent context and without an
    /// operation's deadline; most belong to the [routing maintenance](crate::routing).
    Operation(OperationId),
    /// A lookup of the node's own key, because the routing table is nearly empty.
    Bootstrap,
    /// A lookup of a random key, which refreshes a bucket.
    Explore,
    /// The liveness check of a node before it may enter the routing table.
    Include,
    /// The liveness check of a node that is in the routing table.
    Probe,
    /// What an operation leaves behind at its finish: the remaining work of an optimistic broadcast, or requests of a
    /// lookup whose answers are [still listened to](crate::requests).
    Background,
}

impl Initiator {
    /// The id of the operation; `None` for a side effect.
    pub const fn operation(self) -> Option<OperationId> {
        match self {
            Self::Operation(id) => Some(id),
            _ => None,
        }
    }

    /// One word for metrics and spans; the same for all operations.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Operation(_) => "operation",
            Self::Bootstrap => "bootstrap",
            Self::Explore => "explore",
            Self::Include => "include",
            Self::Probe => "probe",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(id) => write!(f, "{} {}", self.name(), id.tag()),
            _ => f.write_str(self.name()),
        }
    }
}

/// A request to be sent now. Its deadline is in the [`Stamped`](crate::Stamped) around it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Request<F: Family> {
    /// The id of the request; to be returned in the [`Response`].
    pub id: RequestId,
    /// A random number that cannot be guessed without the node's [secret](crate::Secret), for the transaction id
    /// on an unauthenticated wire. Use as many of its 8 bytes as the wire format has room for (BEP 5: 4), and keep
    /// a table in the driver that maps token and address to the request.
    #[cfg_attr(feature = "record", serde(skip))]
    pub token: WireToken,
    /// What initiated the request.
    pub initiator: Initiator,
    /// The node to send it to.
    pub node: F::Node,
    /// What to ask about. This is the operation's target or, for [`Ask::FindCloser`] only, a target next to it, so
    /// that the edge of the neighbourhood becomes known too: if nodes of the neighbourhood have been silent, or if it
    /// is larger than [an answer](crate::Family::answers). In an [`Ask::Store`] it is the target of the record; in an
    /// [`Ask::Batch`], which has several, that of the node.
    pub target: F::Target,
    /// What to ask the node.
    pub ask: Ask<F>,
    /// Length of the causal chain that led to the node: 1 for a seed, else one more than the hop of the answer
    /// that first named the node.
    pub hop: u32,
}

/// A request was cancelled: the driver can abort its IO.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Cancel<F: Family> {
    /// The request.
    pub id: RequestId,
    /// What initiated the request.
    pub initiator: Initiator,
    /// The node that it was sent to.
    pub node: F::Node,
    /// Why it was cancelled.
    pub reason: CancelReason,
}

/// Why a request was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum CancelReason {
    /// It ran into its own timeout: this counts as a failure of the node.
    TimedOut,
    /// Its operation ended, with whatever outcome: this is no evidence against the node.
    OperationEnded,
    /// The operation had sent a second request to the node, as the first was slow, and the node has answered the
    /// other one.
    Superseded,
    /// A node that was being probed has left the routing table.
    Unneeded,
    /// The lookup within the operation is over (it has found the nodes, or its share of the time has passed), and
    /// the operation goes on: this is no evidence against the node.
    LookupEnded,
    /// [Parts](Response::part) of the answer came, and the last did not come in time. The request counts as answered.
    Incomplete,
}

/// How a request of an operation ended, in a [`Progress`](crate::Progress) event.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum RequestOutcome<F: Family> {
    /// The node answered.
    Answered {
        /// The nodes that it named, as the driver submitted them.
        closer: Vec<F::Node>,
    },
    /// The request failed, for a reason that is not known.
    Failed,
    /// The node is alive and refused the request, for this reason.
    Rejected(F::Message),
    /// The request ran into its own timeout.
    TimedOut,
    /// [Parts](Response::part) of the answer came, and the last did not come in time. It counts as an answer.
    Incomplete {
        /// The nodes that the parts named, as the driver submitted them.
        closer: Vec<F::Node>,
    },
    /// The node could not be reached.
    Unreachable,
    /// Nobody accepts connections there.
    ConnectionRefused,
    /// The node is not there any more.
    Gone,
}

impl<F: Family> From<Failure<F>> for RequestOutcome<F> {
    fn from(failure: Failure<F>) -> Self {
        match failure {
            Failure::Failed => Self::Failed,
            Failure::Unreachable => Self::Unreachable,
            Failure::ConnectionRefused => Self::ConnectionRefused,
            Failure::Gone => Self::Gone,
            Failure::Rejected(reason) => Self::Rejected(reason),
        }
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "timed out",
            Self::OperationEnded => "operation ended",
            Self::Superseded => "superseded",
            Self::Unneeded => "unneeded",
            Self::LookupEnded => "lookup ended",
            Self::Incomplete => "incomplete",
        })
    }
}
