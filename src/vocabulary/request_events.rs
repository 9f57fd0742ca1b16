//! Events of requests: what a request asks, what initiated it, how the driver answers it, and how it ends.

use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::{OperationId, RequestId};
use crate::vocabulary::secret::WireToken;
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
        /// The records, each with its key.
        records: Vec<Record<F>>,
        /// The token in this node's own answer, as in [`Ask::Store`].
        token: Option<F::Message>,
    },
}

/// A record to be stored with the nodes closest to its key.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct Record<F: Family> {
    /// The key of the record.
    pub key: F::Key,
    /// The message to store.
    pub message: F::Message,
}

/// What an answer carried besides closer nodes, as far as the engine needs it. The default is no value and no
/// token.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct AnswerExtra<F: Family> {
    /// Whether the answer carried a value that the driver accepts. It counts towards the
    /// [quorum](crate::Start::quorum), and the node is not among those that [lack](crate::Finish::without_value) the
    /// value.
    pub value: bool,
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
    pub const NONE: Self = Self { value: false, token: None };
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
pub struct Answer<F: Family> {
    /// The closer nodes that it names.
    pub closer: Vec<F::Node>,
    /// What it carried besides them.
    pub extra: AnswerExtra<F>,
}

/// Why a request was not answered, as the driver reports it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum Failure<F: Family> {
    /// The node could not be reached, or its answer was invalid.
    Failed,
    /// The node is alive and refused the request. The message is the reason; the engine passes it through.
    Rejected(F::Message),
}

/// The answer to a request, or its failure: the driver submits it to the machine that emitted the request. The
/// [`Stamped`](crate::Stamped) around it contains the span in which the driver did the IO.
///
/// ```
/// # use kad_proto::{Key8, RequestId};
/// # #[derive(Clone, Debug, PartialEq)]
/// # struct Tiny;
/// # impl kad_proto::Family for Tiny {
/// #     type Key = Key8;
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
pub struct Response<F: Family> {
    /// The request.
    pub request: RequestId,
    /// The answer, or the reason why there is none.
    pub result: Result<Answer<F>, Failure<F>>,
}

impl<F: Family> Response<F> {
    /// The request was answered, and the answer names these closer nodes.
    pub const fn answered(request: RequestId, closer: Vec<F::Node>) -> Self {
        Self { request, result: Ok(Answer { closer, extra: AnswerExtra::NONE }) }
    }

    /// The request failed: the node could not be reached, or its answer was invalid.
    pub const fn failed(request: RequestId) -> Self {
        Self { request, result: Err(Failure::Failed) }
    }

    /// The node is alive and refused the request, for this reason.
    pub const fn rejected(request: RequestId, reason: F::Message) -> Self {
        Self { request, result: Err(Failure::Rejected(reason)) }
    }

    /// Marks that the answer carried a [value](AnswerExtra::value). No effect on a failure.
    #[must_use]
    pub fn with_value(mut self) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.extra.value = true;
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
    /// The remaining work of an optimistic broadcast after its finish.
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
    /// The key to ask about. This is the operation's target or, if nodes of its neighbourhood have been silent, a
    /// key next to it (for [`Ask::FindCloser`] only), so that the edge of the neighbourhood becomes known too.
    pub target: F::Key,
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
    /// The driver reported a failure.
    Failed,
    /// The node is alive and refused the request, for this reason.
    Rejected(F::Message),
    /// The request ran into its own timeout.
    TimedOut,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "timed out",
            Self::OperationEnded => "operation ended",
            Self::Superseded => "superseded",
            Self::Unneeded => "unneeded",
            Self::LookupEnded => "lookup ended",
        })
    }
}
