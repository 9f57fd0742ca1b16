//! What machines are told of operations, and what they say of them.
//!
//! The payloads here are shared: the query, the pool and the coordinator each have an inbound and an outbound
//! enum of their own, made of these.

use crate::context::Context;
use crate::family::Family;
use crate::id::{OperationId, RequestId};
use crate::task::Task;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;

/// Asks for a lookup: iterate towards `target`, asking each node on the way.
///
/// Its deadline and its span travel in the [`Stamped`](crate::Stamped) around it. It is answered by
/// [`Started`] or [`Refused`], in the same call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct Start<F: Family> {
    /// The caller's own name for the operation. A live operation's tag cannot be used again before its finish.
    pub tag: u64,
    /// The key to approach.
    pub target: F::Key,
    /// What each node is asked.
    pub ask: Ask<F>,
    /// How many nodes the finish lists at most; `None` is the configured k. More than k widens the lookup to as
    /// many. 1 to `query.max_candidates`, else it is [refused](RefusedBecause::NumResults).
    pub num_results: Option<usize>,
    /// Ends the lookup, [by name](Outcome::Quorum), once as many answers have [carried a value](Carried::value); `None` is
    /// never. At least 1, else it is [refused](RefusedBecause::Quorum).
    pub quorum: Option<usize>,
    /// Nodes to begin with. The coordinator adds the closest that its routing table knows.
    pub seeds: Vec<F::Node>,
}

impl<F: Family> Start<F> {
    /// A lookup of the nodes closest to `target`.
    pub const fn find(tag: u64, target: F::Key) -> Self {
        Self { tag, target, ask: Ask::FindCloser, num_results: None, quorum: None, seeds: Vec::new() }
    }

    /// A lookup that sends `message` to each node it visits.
    ///
    /// What the nodes answer besides closer nodes (values, providers) is the driver's to keep: it knows by
    /// [`Request::owner`] what a request was for. It says of each answer whether it [carried a value](Carried::value) that it
    /// accepts; a [quorum](Start::with_quorum) of them ends the lookup. A driver that has what it wants before may stop the
    /// operation too. A node is sent the message again only after a time-out, so it may get it twice.
    pub const fn message(tag: u64, target: F::Key, message: F::Message) -> Self {
        Self { tag, target, ask: Ask::Message(message), num_results: None, quorum: None, seeds: Vec::new() }
    }

    /// A bootstrap: a lookup of one's own key, `local`, which is how a node joins (Kademlia paper, section 2.3). The
    /// coordinator remembers its seeds, refreshes the buckets farther away when it has ended, and says so by
    /// [`Bootstrapped`]. One that began by itself because the table was nearly empty gives way to it.
    pub const fn bootstrap(tag: u64, local: F::Key, seeds: Vec<F::Node>) -> Self {
        Self { tag, target: local, ask: Ask::FindCloser, num_results: None, quorum: None, seeds }
    }

    /// The same, beginning with these nodes.
    #[must_use]
    pub fn with_seeds(mut self, seeds: Vec<F::Node>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Whether it is a bootstrap of the node with this key.
    pub(crate) fn is_bootstrap(&self, local: F::Key) -> bool {
        self.target == local && self.ask == Ask::FindCloser
    }

    /// The same, listing at most this many nodes in the end.
    #[must_use]
    pub fn with_num_results(mut self, num_results: usize) -> Self {
        self.num_results = Some(num_results);
        self
    }

    /// The same, ending once as many answers have carried a value.
    #[must_use]
    pub fn with_quorum(mut self, quorum: usize) -> Self {
        self.quorum = Some(quorum);
        self
    }
}

/// What a node is asked.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub enum Ask<F: Family> {
    /// Which nodes it knows closest to the target (`FIND_NODE`).
    FindCloser,
    /// This message of the caller's; its answer names closer nodes too (`GET_PROVIDERS`, `get_peers` and the like).
    Message(F::Message),
    /// To store this (`ADD_PROVIDER`, `put`, `announce_peer`): of a broadcast. Its answer names nobody.
    Store {
        /// What to store.
        message: F::Message,
        /// What the node's own answer [carried](Carried::token) while the broadcast looked for the nodes to store with.
        token: Option<F::Message>,
    },
    /// To store all of these: of a [sweep](crate::broadcast::Strategy::Sweep). One answer stands for all of them.
    Batch {
        /// What to store, and under which keys.
        records: Vec<Record<F>>,
        /// What the node's own answer carried, as above.
        token: Option<F::Message>,
    },
}

/// Something to be stored with the nodes closest to its key.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct Record<F: Family> {
    /// Where it belongs.
    pub key: F::Key,
    /// What to store.
    pub message: F::Message,
}

/// What an answer carried besides closer nodes, as far as the engine has to know. The default is nothing.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "record",
    derive(serde::Serialize, serde::Deserialize),
    serde(bound = "F: crate::record::Recordable")
)]
pub struct Carried<F: Family> {
    /// A value that the driver accepts: it counts towards the [quorum](Start::quorum), and the node is
    /// [not listed](Finish::lacking) as one that lacked it.
    pub value: bool,
    /// Something that the node wants back when it is to store: it is handed to the driver again in the
    /// [store request](Ask::Store) to this node. (BEP 5 and BEP 44 have such tokens.)
    pub token: Option<F::Message>,
}

impl<F: Family> Default for Carried<F> {
    fn default() -> Self {
        Self { value: false, token: None }
    }
}

/// An answer, as it comes in.
#[derive(Clone, Debug)]
pub(crate) struct Answer<F: Family> {
    pub(crate) closer: Vec<F::Node>,
    pub(crate) carried: Carried<F>,
}

/// Whose work a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Owner {
    /// That of an operation, which the caller started. All others are side effects, with no parent context and no
    /// operation's deadline: most are the work of the [routing maintenance](crate::routing).
    Operation(OperationId),
    /// A lookup of our own key, because the routing table is nearly empty.
    Bootstrap,
    /// A lookup of a random key, which refreshes a bucket.
    Explore,
    /// The check of a node that may enter the routing table.
    Include,
    /// The check of a node that is in the routing table.
    Probe,
    /// What an optimistic broadcast has left to do after its finish.
    Background,
}

impl Owner {
    /// The operation, where it is one.
    pub const fn operation(self) -> Option<OperationId> {
        match self {
            Self::Operation(id) => Some(id),
            _ => None,
        }
    }

    /// In a word, which all operations share.
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

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(id) => write!(f, "{} {}", self.name(), id.tag()),
            _ => f.write_str(self.name()),
        }
    }
}

/// To be sent now. Its deadline is in the [`Stamped`](crate::Stamped) around it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Request<F: Family> {
    /// Names the request; hand it back with the answer.
    pub id: RequestId,
    /// Whose work it is.
    pub owner: Owner,
    /// Where to send it.
    pub node: F::Node,
    /// The key to ask about: the operation's target or, where nodes of its neighbourhood have been silent, a key beside
    /// it (for [`Ask::FindCloser`] only), so that the rim of the neighbourhood becomes known too.
    pub target: F::Key,
    /// What to ask.
    pub ask: Ask<F>,
    /// Length of the causal chain that led here: 1 for a seed, and one more than that of the answer that first
    /// named the node.
    pub hop: u32,
}

/// A request was given up: whatever the driver still does for it can be aborted.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Cancel<F: Family> {
    /// The request.
    pub id: RequestId,
    /// Whose work it was.
    pub owner: Owner,
    /// Where it was sent.
    pub node: F::Node,
    /// Why it was given up.
    pub reason: GivenUp,
}

/// Why a request was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum GivenUp {
    /// It ran into its own timeout: a failure of the node.
    TimedOut,
    /// Its operation ended, by whatever outcome: this says nothing about the node.
    OperationEnded,
    /// The node was asked again because it was slow, and has answered the other request.
    Superseded,
    /// A node that was being probed has left the routing table.
    Unneeded,
    /// The operation has found whom it looked for, or its time for that is over, and goes on: this says nothing about the node.
    LookupEnded,
}

/// A request of the operation ended, and the operation goes on or is about to finish.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Progress<F: Family> {
    /// The request.
    pub id: RequestId,
    /// The operation.
    pub operation: OperationId,
    /// The node that was asked.
    pub node: F::Node,
    /// See [`Request::hop`].
    pub hop: u32,
    /// Since the request was sent.
    pub elapsed: Duration,
    /// How the request ended.
    pub reply: Reply<F>,
    /// The operation's statistics so far.
    pub statistics: Statistics,
}

/// How a request ended, as its operation learns it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
#[non_exhaustive]
pub enum Reply<F: Family> {
    /// The node answered.
    Answered {
        /// The nodes it named, as the caller handed them in.
        closer: Vec<F::Node>,
    },
    /// The caller reported a failure.
    Failed,
    /// The node lives, and refused, for this reason.
    Rejected(F::Message),
    /// The request ran into its own timeout.
    TimedOut,
}

/// The last event of an operation.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Finish<F: Family> {
    /// The operation. Its id and its tag are free from now on.
    pub operation: OperationId,
    /// The key that was approached.
    pub target: F::Key,
    /// How it ended.
    pub outcome: Outcome,
    /// The closest nodes that answered, in order of distance to the target: partial where the outcome says so.
    pub closest: Vec<Contact<F>>,
    /// The operation's statistics; `ended` is set.
    pub statistics: Statistics,
}

impl<F: Family> Finish<F> {
    /// Those of the closest nodes whose answers [carried no value](Carried::value): where others did, the driver may give
    /// it to them.
    pub fn lacking(&self) -> impl Iterator<Item = &Contact<F>> {
        self.closest.iter().filter(|contact| !contact.value)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Outcome {
    /// The k closest nodes known that have not failed have answered (or the beta closest, where configured).
    Converged,
    /// Nothing was left to ask, and fewer than k nodes had answered (on some path, where there are several). In a network
    /// of fewer than k nodes this is how lookups end; and, in the call of their start, those that have nobody to ask.
    Exhausted,
    /// As many nodes as `query.max_nodes` allows were asked before the k closest had answered; or a crawl asked all that it
    /// had room for, and others were named.
    NodeLimit,
    /// As many answers as the start's [quorum](Start::quorum) have carried a value.
    Quorum,
    /// All there was to do is done: of a crawl or a broadcast.
    Complete,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller stopped it.
    Stopped,
}

/// A node that answered.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: crate::record::Recordable"))]
pub struct Contact<F: Family> {
    /// The node.
    pub node: F::Node,
    pub(crate) micros: u32,
    pub(crate) hop: u16,
    pub(crate) value: bool,
}

impl<F: Family> Contact<F> {
    /// Time from request to answer, in whole microseconds, at most 71 minutes.
    pub fn round_trip(&self) -> Duration {
        Duration::from_micros(u64::from(self.micros))
    }

    /// See [`Request::hop`].
    pub fn hop(&self) -> u32 {
        u32::from(self.hop)
    }

    /// Whether its answer [carried a value](Carried::value).
    pub const fn has_value(&self) -> bool {
        self.value
    }
}

/// What an operation did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Statistics {
    /// When its start was accepted.
    pub started: Instant,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Requests sent.
    pub requests: u32,
    /// Requests that were answered.
    pub success: u32,
    /// Requests whose failure the caller reported.
    pub failure: u32,
    /// Requests that ran into their own timeout.
    pub timeouts: u32,
    /// Requests given up because the operation or its lookup ended, or because the node answered another one.
    pub cancelled: u32,
    /// Length of the longest causal chain that was answered: 1 where only seeds did.
    pub hops: u32,
}

impl Statistics {
    /// Requests sent and not ended.
    pub const fn in_flight(&self) -> u32 {
        let ended = self.success.saturating_add(self.failure).saturating_add(self.timeouts);
        self.requests.saturating_sub(ended.saturating_add(self.cancelled))
    }
}

/// A start that was not accepted. There is no operation, and nothing else will be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct Refused {
    /// The tag that the start gave.
    pub tag: u64,
    /// Why.
    pub reason: RefusedBecause,
}

/// Why a start was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum RefusedBecause {
    /// A live operation has this tag.
    TagInUse,
    /// No more operations can wait.
    Full,
    /// The deadline leaves no time at all.
    DeadlinePassed,
    /// More results were asked for than a query may hold, or none.
    NumResults {
        /// The most that can be asked for; the least is 1.
        most: usize,
    },
    /// A quorum of no answers at all was asked for.
    Quorum,
    /// More records were to be stored than one broadcast can, or none.
    Records {
        /// The most that there can be; the least is 1.
        most: usize,
    },
    /// There were more nodes to store with than there can be.
    Nodes {
        /// The most that there can be.
        most: usize,
    },
}

impl fmt::Display for RefusedBecause {
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

impl core::error::Error for RefusedBecause {}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::Exhausted => "exhausted",
            Self::NodeLimit => "node limit",
            Self::Quorum => "quorum",
            Self::Complete => "complete",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Stopped => "stopped",
        })
    }
}

impl fmt::Display for GivenUp {
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

/// An operation was accepted: it runs, or waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct Started {
    /// Names it until its finish.
    pub operation: OperationId,
}

/// A bootstrap ended: one that the caller started (its [`Finish`] comes as well), or one that began by itself because
/// the routing table was nearly empty, and did not give way to one of the caller's.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct Bootstrapped {
    /// The caller's operation, if it was one.
    pub operation: Option<OperationId>,
    /// How it ended.
    pub outcome: Outcome,
    /// How many nodes the routing table holds now.
    pub nodes: usize,
    /// What it did.
    pub statistics: Statistics,
}

/// Makes an outbound enum of its payloads.
macro_rules! says {
    ($outbound:ident { $($variant:ident: $payload:ty),* $(,)? }) => {
        $(impl<F: Family> From<$payload> for $outbound<F> {
            #[inline]
            fn from(payload: $payload) -> Self {
                Self::$variant(payload)
            }
        })*
    };
}
pub(crate) use says;

/// What a machine that sends requests can say.
pub(crate) trait Asks<F: Family>: From<Request<F>> + From<Cancel<F>> {}

impl<F: Family, E> Asks<F> for E where E: From<Request<F>> + From<Cancel<F>> {}

/// What a machine whose operations have this task can say. Every such machine's outbound enum has a variant for each payload.
pub(crate) trait Says<F: Family, T: Task<F>>:
    Asks<F> + From<Started> + From<T::Progress> + From<T::Finish> + From<Refused>
{
}

impl<F: Family, T: Task<F>, E> Says<F, T> for E where
    E: Asks<F> + From<Started> + From<T::Progress> + From<T::Finish> + From<Refused>
{
}

/// The end of a lookup that somebody inside waits for: one of the routing maintenance, or a bootstrap.
#[derive(Clone, Debug)]
pub(crate) struct Ended<F: Family> {
    pub(crate) owner: Owner,
    pub(crate) outcome: Outcome,
    pub(crate) statistics: Statistics,
    /// The common prefix length of the closest node that answered with the target.
    pub(crate) nearest: Option<u32>,
    pub(crate) target: F::Key,
    /// Who answered, where nobody outside learns of it.
    pub(crate) closest: Vec<Contact<F>>,
    /// That of what follows from it, which is a side effect.
    pub(crate) context: Context,
}
