//! [`LookupRules`]: the limits of one lookup.

use crate::lookups::region::Region;

/// Built by `QueryConfig::rules` from validated fields.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub(crate) struct LookupRules {
    /// The lookup converges when this many of the closest nodes have answered; it asks no node farther away.
    pub(crate) k: u16,
    /// The most nodes near the target that one answer names.
    pub(crate) answer_size: u16,
    /// An answer names whole buckets.
    pub(crate) names_buckets: bool,
    /// The lookup converges early when this many closest nodes have answered; at most k.
    pub(crate) beta: u16,
    /// The concurrency slots of each path.
    pub(crate) alpha: u16,
    /// The number of disjoint paths.
    pub(crate) paths: u16,
    /// How often a node that timed out or is slow is asked again.
    pub(crate) retries: u16,
    /// The maximum number of nodes of one answer that are used; the rest is ignored.
    pub(crate) max_closer_nodes: u16,
    /// If an answer names more nodes of one group than this, all its nodes of that group are ignored.
    pub(crate) max_per_group: usize,
    /// The maximum number of candidates not asked yet, on each path.
    pub(crate) max_candidates: u16,
    /// The maximum number of nodes asked, on all paths together.
    pub(crate) max_nodes: u16,
    /// The maximum number of nodes in the result.
    pub(crate) num_results: u16,
    /// Whether nodes may be asked about another key than the target.
    pub(crate) edge_probing: bool,
    /// Whether it only asks for closer nodes, and sends no messages of the caller's.
    pub(crate) finds: bool,
    /// The region in which all nodes are asked, besides the k closest.
    pub(crate) region: Option<Region>,
    /// Whether a slow node is asked again while its first request is still pending.
    pub(crate) hedges: bool,
}

impl LookupRules {
    /// The concurrency slots of a path that makes no progress, and of the search in a region: as many nodes as an answer tells of.
    pub(super) fn wide(&self) -> u16 {
        self.alpha.max(self.k.min(self.answer_size))
    }
}
