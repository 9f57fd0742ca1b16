//! The events of a broadcast: its start, its progress and its finish.

use crate::broadcast::sweep::SweepEnd;
use crate::network_size::NotEnoughData;
use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{Contact, OperationInbound, OperationStats, Outcome, Progress};
use crate::vocabulary::region::RegionReport;
use crate::vocabulary::request_events::{Ask, Record};

/// Asks for records to be stored.
///
/// Its deadline and its span are in the [`Stamped`](crate::Stamped) around it. It is answered by
/// [`Started`](crate::Started) or [`Refused`](crate::Refused), in the same call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct StartBroadcast<F: Family> {
    /// A number that the caller chooses to recognise the operation by. The tag of a live operation cannot be
    /// used again before its finish.
    pub tag: u64,
    /// What to store: one record; in a sweep, 1 to `broadcast.max_records`. Otherwise the start is
    /// [refused](crate::RefusalReason::Records).
    pub records: Vec<Record<F>>,
    /// How the nodes to store with are found.
    pub strategy: Strategy<F>,
    /// What the lookup asks each node. [`Ask::FindCloser`], unless the answers must contain something that
    /// the stores need, such as a token.
    pub ask: Ask<F>,
    /// The number of nodes that must have stored a record for it to count as stored.
    pub success: Success,
    /// Nodes that the lookup begins with. The coordinator adds the closest nodes of its routing table.
    pub seeds: Vec<F::Node>,
}

impl<F: Family> From<StartBroadcast<F>> for OperationInbound<F, StartBroadcast<F>> {
    fn from(start: StartBroadcast<F>) -> Self {
        Self::Start(start)
    }
}

impl<F: Family> StartBroadcast<F> {
    fn of(tag: u64, records: Vec<Record<F>>, strategy: Strategy<F>) -> Self {
        Self { tag, records, strategy, ask: Ask::FindCloser, success: Success::default(), seeds: Vec::new() }
    }

    /// Stores a record with the k nodes closest to its key.
    pub fn follow_up(tag: u64, target: F::Target, message: F::Message) -> Self {
        Self::of(tag, vec![Record { target, message }], Strategy::FollowUp)
    }

    /// Stores a record with these nodes.
    pub fn fixed(tag: u64, target: F::Target, message: F::Message, nodes: Vec<F::Node>) -> Self {
        Self::of(tag, vec![Record { target, message }], Strategy::Static(nodes))
    }

    /// Stores a record with the k nodes closest to its key, during the lookup. Finishes before all of them
    /// have stored it. If the size of the network is unknown, it falls back to a follow-up.
    pub fn optimistic(tag: u64, target: F::Target, message: F::Message) -> Self {
        Self::of(tag, vec![Record { target, message }], Strategy::Optimistic { nodes: None })
    }

    /// Stores each of many records with the k nodes closest to its key.
    pub fn sweep(tag: u64, records: Vec<Record<F>>) -> Self {
        Self::of(tag, records, Strategy::Sweep)
    }

    /// Sets the [seeds](Self::seeds).
    #[must_use]
    pub fn with_seeds(mut self, seeds: Vec<F::Node>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Makes the lookup send this message to each node, instead of [`Ask::FindCloser`].
    #[must_use]
    pub fn with_ask(mut self, message: F::Message) -> Self {
        self.ask = Ask::Message(message);
        self
    }

    /// Sets the [strategy](Self::strategy).
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy<F>) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the [number of nodes](Self::success) that must have stored a record.
    #[must_use]
    pub fn with_success(mut self, success: Success) -> Self {
        self.success = success;
        self
    }
}

/// How a broadcast finds the nodes to store with, and when it stores.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum Strategy<F: Family> {
    /// A lookup, then stores with the k closest nodes that have answered.
    FollowUp,
    /// Stores with these nodes, without a lookup. More than `broadcast.max_nodes` are
    /// [refused](crate::RefusalReason::Nodes). A node named twice counts once; nodes with the own key are left
    /// out.
    Static(Vec<F::Node>),
    /// Stores during the lookup with nodes inside the [individual
    /// threshold](crate::network_size::Thresholds::individual), ends the lookup by the [set
    /// threshold](crate::network_size::Thresholds::set), and finishes when enough nodes have stored; the rest
    /// goes on in the [background](crate::Initiator::Background). (Optimistic provide: Trautwein et al.,
    /// INFOCOM 2024.)
    Optimistic {
        /// The number of nodes in the network. `None`: the coordinator's estimate. If there is no estimate or
        /// no coordinator, the broadcast [falls back](BroadcastFinish::fallback_reason) to a follow-up.
        nodes: Option<u64>,
    },
    /// Many records at once, by as few lookups as possible: see [`Sweep`](crate::Sweep).
    Sweep,
}

/// The number of nodes that must have stored a record for it to count as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Success {
    /// This number of nodes; if the record was to be stored with fewer nodes, all of them. At least one.
    Count(usize),
    /// This percentage of the nodes that the record was to be stored with, rounded up. At least one node.
    Share(u8),
}

impl Default for Success {
    /// One node.
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Success {
    /// Whether `stored` of `all` nodes are enough.
    pub(super) fn is_met(self, stored: usize, all: usize) -> bool {
        let wanted = match self {
            Self::Count(count) => count.min(all),
            Self::Share(share) => (all * usize::from(share)).div_ceil(100),
        };
        stored >= wanted.max(1)
    }
}

/// A request of a broadcast ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct BroadcastProgress<F: Family> {
    /// Which request ended, and how.
    pub request: Progress<F>,
    /// Whether the request was a store; otherwise it was one of a lookup.
    pub store: bool,
    /// The state of the stores.
    pub counts: StoreCounts,
}

/// The state of a broadcast's stores, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoreCounts {
    /// Nodes to store with that are known so far.
    pub nodes: u32,
    /// Nodes that have stored.
    pub stored: u32,
    /// Nodes whose store has failed, was rejected, or timed out: the next two included.
    pub failed: u32,
    /// Nodes that are alive and [refused](StoreEnd::Rejected) to store.
    pub refused: u32,
    /// Nodes that were [silent](StoreEnd::TimedOut) until the time-out.
    pub silent: u32,
}

impl StoreCounts {
    /// Counts a store that has ended in this way; the others have not ended.
    pub(super) fn count<F: Family>(&mut self, end: &StoreEnd<F>) {
        let has_ended = !matches!(end, StoreEnd::Cancelled | StoreEnd::Unsent | StoreEnd::Background);
        self.stored += u32::from(*end == StoreEnd::Stored);
        self.failed += u32::from(has_ended && *end != StoreEnd::Stored);
        self.refused += u32::from(matches!(end, StoreEnd::Rejected(_)));
        self.silent += u32::from(*end == StoreEnd::TimedOut);
    }
}

/// The last event of a broadcast.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct BroadcastFinish<F: Family> {
    /// The operation. Its id has no meaning any more, and its tag may be used again, from now on.
    pub operation: OperationId,
    /// The target of its record; of a sweep, that of its first record.
    pub target: F::Target,
    /// How it ended. [`Complete`](Outcome::Complete): all its work is done, or, for an optimistic one, the
    /// rest goes on in the background.
    pub outcome: Outcome,
    /// Whether each record is stored with as many nodes as the start's [`Success`] asks for.
    ///
    /// Where the nodes of the [region](crate::BroadcastConfig::regions) of the key are doubted, this is not enough. They are if a part
    /// of the region is a *crowd*: more nodes are known in it, or in it and the parts farther out that are none, than chance explains
    /// (a probability below 1 of 100,000; below 1 of 50 where the region [is implausible](RegionReport::is_implausible)). Those count that
    /// have answered, and those that were not asked, unless they are named by nobody but nodes of whose names many are silent. And they
    /// are doubted if the region is implausible, or if the k closest that have answered are far beyond it. Then the stores that are
    /// [credible](RegionReport::credible) must be as many as `Success` asks for of the nodes that there can be; at least k/2; and at
    /// least three eighths of the nodes that an honest network has within the region, or up to the farthest store. See
    /// [storing](crate::guide::storing#the-region-not-the-count) for what this promises.
    pub succeeded: bool,
    /// The number of records that are stored with fewer nodes than that.
    pub records_short: usize,
    /// The number of lookups that it has begun: any number for a sweep, none for a static broadcast, else
    /// one.
    pub lookups: u32,
    /// How its lookup ended. [`DeadlineExceeded`](Outcome::DeadlineExceeded): the lookup's share of the time
    /// ran out, and the record was stored with the closest nodes that had answered by then. `None` if there
    /// was no lookup, if it was still running when an optimistic broadcast was complete, and for a sweep,
    /// which has many lookups: see `sweep_end`.
    pub lookup_outcome: Option<Outcome>,
    /// Why a sweep made no more lookups; `None` if its share of the time ran out before, and for the other
    /// strategies.
    pub sweep_end: Option<SweepEnd>,
    /// Why the size of the network was unknown, if an optimistic broadcast fell back to a follow-up for that
    /// reason.
    pub fallback_reason: Option<NotEnoughData>,
    /// The nodes closest to the record's key that have answered, closest first; empty for a sweep.
    pub closest: Vec<Contact<F>>,
    /// All nodes that a record was to be stored with, and how each store ended.
    pub stores: Vec<Stored<F>>,
    /// The operation's statistics; `ended` is set. Requests that go on in the background still count as in flight.
    pub stats: OperationStats,
    /// What was seen of the region of the key, and how many of its nodes have stored the record. `None` if the size of the
    /// network is not known, then the record goes to the k closest; and for static broadcasts and sweeps.
    pub region: Option<RegionReport>,
}

impl<F: Family> BroadcastFinish<F> {
    /// How many have stored, refused, and were silent. Those that are neither stored nor failed were not asked, or not awaited
    /// any more. Who they are, and why they refused, is in the [list of the stores](Self::stores).
    pub fn counts(&self) -> StoreCounts {
        let nodes = u32::try_from(self.stores.len()).unwrap_or(u32::MAX);
        let mut counts = StoreCounts { nodes, ..StoreCounts::default() };
        self.stores.iter().for_each(|stored| counts.count(&stored.end));
        counts
    }
}

/// A store with one node, and how it ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Stored<F: Family> {
    /// The node.
    pub node: F::Node,
    /// How the store ended.
    pub end: StoreEnd<F>,
    /// Which records, as indices into the start's records. Empty if there is only one record.
    pub records: Vec<u32>,
}

/// How a store ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub enum StoreEnd<F: Family> {
    /// The node has stored it.
    Stored,
    /// The caller reported a failure.
    Failed,
    /// The node rejected it, with this message.
    Rejected(F::Message),
    /// The request timed out.
    TimedOut,
    /// It was sent, and cancelled because the broadcast ended.
    Cancelled,
    /// The broadcast ended before it was sent.
    Unsent,
    /// It goes on in the background.
    Background,
}
