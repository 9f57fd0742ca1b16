//! The events of a crawl: its start, its progress, and its finish with the map.

use crate::vocabulary::family::Family;
#[cfg(feature = "record")]
use crate::vocabulary::family::Recordable;
use crate::vocabulary::id::OperationId;
use crate::vocabulary::operation_events::{OperationInbound, OperationStats, Outcome, Progress};
use core::time::Duration;

/// Asks for a crawl.
///
/// Its deadline and its span are in the [`Stamped`](crate::Stamped) around it. It is answered by
/// [`Started`](crate::Started) or [`Refused`](crate::Refused), in the same call.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct StartCrawl<F: Family> {
    /// A number that the caller chooses to recognise the operation by. The tag of a live operation cannot be
    /// used again before its finish.
    pub tag: u64,
    /// Nodes to begin with. The coordinator adds the nodes of its routing table.
    pub seeds: Vec<F::Node>,
}

impl<F: Family> StartCrawl<F> {
    /// A crawl without seeds of its own.
    pub const fn new(tag: u64) -> Self {
        Self { tag, seeds: Vec::new() }
    }

    /// Sets the [seeds](Self::seeds).
    #[must_use]
    pub fn with_seeds(mut self, seeds: Vec<F::Node>) -> Self {
        self.seeds = seeds;
        self
    }
}

impl<F: Family> From<StartCrawl<F>> for OperationInbound<F, StartCrawl<F>> {
    fn from(start: StartCrawl<F>) -> Self {
        Self::Start(start)
    }
}

/// A request of a crawl ended.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct CrawlProgress<F: Family> {
    /// Which request ended, and how.
    pub request: Progress<F>,
    /// What the crawl has found so far.
    pub counts: CrawlCounts,
}

/// What a crawl has found, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CrawlCounts {
    /// Nodes known: reachable, unreachable, and those not known to be either yet.
    pub nodes: u32,
    /// Nodes that have answered at least once.
    pub reachable: u32,
    /// Nodes that have not answered, and are not asked any more.
    pub unreachable: u32,
    /// Nodes that have answered, and then were silent until they were given up: for some of their buckets there is no
    /// answer, so edges of theirs are missing, and perhaps nodes that nobody else names. Each has fewer buckets
    /// [answered](Crawled::answered) than [asked](Crawled::asked) for.
    pub unsure: u32,
    /// Edges: which node names which.
    pub edges: u32,
    /// The number of times that a node or an edge was left out: there was no room, or the answer named more
    /// nodes than are used, or 8 nodes with the same key were known already.
    pub left_out: u64,
}

/// The last event of a crawl.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct CrawlFinish<F: Family> {
    /// The operation. Its id has no meaning any more, and its tag may be used again, from now on.
    pub operation: OperationId,
    /// How it ended. [`Complete`](Outcome::Complete): all named nodes have been asked, and each has answered for all
    /// of its buckets or never. [`Unsure`](Outcome::Unsure): all have been asked, and some were silent
    /// [later](CrawlCounts::unsure). [`NodeLimit`](Outcome::NodeLimit): there was no room for all nodes or edges.
    pub outcome: Outcome,
    /// All nodes, in the order in which they were first named.
    pub nodes: Vec<Crawled<F>>,
    /// Which node names which: pairs of indices into `nodes`, in order.
    pub edges: Vec<(u32, u32)>,
    /// The totals.
    pub counts: CrawlCounts,
    /// The operation's statistics; `ended` is set.
    pub stats: OperationStats,
}

/// A node of the network, as a crawl has found it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize), serde(bound = "F: Recordable"))]
#[non_exhaustive]
pub struct Crawled<F: Family> {
    /// The node.
    pub node: F::Node,
    /// Whether it could be reached.
    pub reach: Reach,
    /// Length of the causal chain that led to it: 1 for a seed.
    pub hop: u32,
    /// The number of its buckets that it was asked for.
    pub asked: u32,
    /// The number of these buckets that it answered for.
    pub answered: u32,
    /// The number of requests to it: more than `asked` where a request had no answer and was repeated.
    pub requests: u32,
    /// The round trip of its first answer, in whole microseconds, at most 71 minutes; `None` if it has not
    /// answered.
    pub round_trip: Option<Duration>,
}

/// Whether a node could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Reach {
    /// It answered at least once.
    Reachable,
    /// It answered none of its requests, of which there were [as many as needed](crate::CrawlConfig::max_failures) for
    /// more than chance.
    Unreachable,
    /// The crawl ended before it was known.
    Unknown,
}
