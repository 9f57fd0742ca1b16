//! [`QueryConfig`]: the configuration of lookups.

use crate::lookups::region::Region;
use crate::lookups::rules::LookupRules;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::family::{AnswerScope, Family};
use crate::vocabulary::operation_events::{RefusalReason, Start};
use crate::vocabulary::region::KnownSize;
use crate::vocabulary::request_events::Ask;
use core::time::Duration;

/// The configuration of lookups.
///
/// Memory: a lookup holds at most `max_candidates` nodes that it knows and has not asked (on each path), and at
/// most `max_nodes` that it has asked, whatever its peers answer; some 24 bytes and a node id for each. For many results both
/// are more: see there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct QueryConfig {
    /// The maximum duration of a lookup; a start may ask for a shorter one. Longer than zero. Default: 60 s.
    pub timeout: Duration,
    /// k: the number of closest nodes that a lookup searches for. 1 to `max_candidates`, which should be at
    /// least 2 k: if you raise k, raise both. Default: 20.
    pub k: usize,
    /// alpha: the concurrency slots of a lookup (of each path) while it makes progress. After alpha misses in a row, or answers that
    /// are the first to name a sixteenth of the k closest at most, and of what they name, the lookup widens to k slots: nearly all
    /// that are closest by now are to be asked anyhow. A request past the soft limit occupies no slot. 1 to 1,024. Default: 3.
    pub alpha: usize,
    /// beta: ends the lookup when this many closest nodes have answered, instead of k. 1 to k. Such a lookup does not
    /// know the k closest nodes, so it ends no lookup that has to: those of broadcasts, of the routing maintenance, searches
    /// with a [quorum](Start::quorum) in the [region](Self::regions) of their target, and, where the coordinator estimates the size of
    /// the network and does not know it, those of the caller's by which it is estimated. Default: none.
    pub beta: Option<usize>,
    /// Disjoint paths (S/Kademlia, section 4.4): with more than one, the seeds are divided among this many
    /// lookups that share no node, and their results are merged. 1 to 64. Default: 1.
    pub paths: usize,
    /// How often a node among the k closest is asked again after a time-out, because a lost message does not
    /// mean a dead node. A lookup that only asks for closer nodes asks again already after the soft limit,
    /// and there a slow node that is closer than all nodes that have answered is asked once more, unless this
    /// is 0; and so is one that is silent, where nearly all nodes that are late answer when they are asked again.
    /// One that has answered may be asked about other keys near the target. In all, a lookup sends at most three requests more
    /// than this to a node, stores apart. At most 16. Default: 1.
    pub retries: usize,
    /// The maximum number of nodes of one answer that are used; the others are ignored. 1 to 1,024. Default:
    /// 40.
    pub max_closer_nodes: usize,
    /// The maximum number of nodes of one [`Group`](crate::Group) in one answer. If an answer names more, all
    /// its nodes of that group are ignored, so that one party cannot fill the neighbourhood with its own
    /// nodes. At least 1. Default: 3.
    pub max_per_group: usize,
    /// The maximum number of candidates on a path that were not asked yet; if there are more, the closest are
    /// kept, but where most that were named are silent, half of the places are for others. One
    /// answer adds at most half of this number. If a start asks for more results than half of it, the limit is twice the number of
    /// results. At least k, at most 8,192. Default: 40.
    pub max_candidates: usize,
    /// Edge probing: after a time-out, a lookup that only asks for closer nodes also asks about keys next to
    /// the target, to find the live nodes that are among the k closest once the dead ones are left out: see
    /// [`Request::target`](crate::Request::target). Default: true.
    pub edge_probing: bool,
    /// Whether a lookup that carries a message, and has not ended by a quorum, asks all nodes of the region of its target that
    /// it finds, but at least the k closest. The region is the distance within which k of the network's nodes are on
    /// average. So it finds what is stored there, though others have placed nodes next to the target. Needs the size of the
    /// network, which only the coordinator knows. See [storing](crate::guide::storing). Default: true.
    pub regions: bool,
    /// b: the maximum number of nodes of a region that are stored with or asked, as a multiple of k: evenly spread over the region. The
    /// bounds on [requests](crate::guide::storing#the-region-not-the-count) follow from it: (b + 2)k + 8 to the nearest, bk to
    /// others, (2b + 2)k + 8 to all nodes of the region; on each path. 1 to 64; 1: only the k closest. Default: 4.
    pub region_bound: usize,
    /// The maximum number of nodes that a lookup asks; see [`NodeLimit`](crate::Outcome::NodeLimit). If a start asks for
    /// more results than k, and than a third of it, the limit is three times the number of results. At least `max_candidates`, at most
    /// 16,384. Default: 240.
    pub max_nodes: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            k: 20,
            alpha: 3,
            beta: None,
            paths: 1,
            retries: 1,
            max_closer_nodes: 40,
            max_per_group: 3,
            max_candidates: 40,
            edge_probing: true,
            regions: true,
            region_bound: 4,
            max_nodes: 240,
        }
    }
}

impl QueryConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let up_to = |most: usize| 1..=most;
        require(!self.timeout.is_zero(), "query.timeout", "longer than zero")?;
        require(up_to(8_192).contains(&self.max_candidates), "query.max_candidates", "1 to 8,192")?;
        require(up_to(self.max_candidates).contains(&self.k), "query.k", "1 to query.max_candidates")?;
        require(up_to(1_024).contains(&self.alpha), "query.alpha", "1 to 1,024")?;
        require(self.beta.is_none_or(|beta| up_to(self.k).contains(&beta)), "query.beta", "1 to query.k")?;
        require(up_to(64).contains(&self.paths), "query.paths", "1 to 64")?;
        require(self.retries <= 16, "query.retries", "at most 16")?;
        require(up_to(1_024).contains(&self.max_closer_nodes), "query.max_closer_nodes", "1 to 1,024")?;
        require(self.max_per_group > 0, "query.max_per_group", "at least 1")?;
        require(up_to(64).contains(&self.region_bound), "query.region_bound", "1 to 64")?;
        let nodes = self.max_candidates..=16_384;
        require(nodes.contains(&self.max_nodes), "query.max_nodes", "query.max_candidates to 16,384")
    }

    /// Whether a start is within the limits, and if not, which one it exceeds.
    pub(crate) fn admit<F: Family>(&self, start: &Start<F>) -> Result<(), RefusalReason> {
        if start.num_results.is_some_and(|wanted| wanted == 0 || wanted > self.max_candidates) {
            return Err(RefusalReason::NumResults { most: self.max_candidates });
        }
        if start.quorum == Some(0) { Err(RefusalReason::Quorum) } else { Ok(()) }
    }

    /// The limits of one lookup. All fields are validated, so no number is truncated here. `size`: of the network, if it is
    /// known. `to_the_end`: not to be cut by `beta`.
    pub(crate) fn rules<F: Family>(
        &self,
        start: &Start<F>,
        answers: AnswerScope,
        size: Option<KnownSize>,
        to_the_end: bool,
    ) -> LookupRules {
        let finds = start.ask == Ask::FindCloser;
        let beta = self.beta.filter(|_| !to_the_end);
        let size = size.filter(|_| self.regions && !finds && (beta.is_none() || start.quorum.is_some()));
        let rules = self.rules_for(start.num_results, finds, answers, size);
        let cut = beta.filter(|_| rules.region.is_none()).and_then(|beta| u16::try_from(beta).ok());
        LookupRules { beta: cut.unwrap_or(rules.beta), ..rules }
    }

    /// The region of a key in a network of this size.
    pub(crate) fn region(&self, size: KnownSize) -> Region {
        Region::of(self.k, self.region_bound, size)
    }

    /// The same, for a lookup of `num_results` nodes (k if `None`) that `beta` does not cut. `find_only`: it only asks for
    /// closer nodes, and sends no messages of the caller's; only then is there edge probing and hedging. `size`: of the
    /// network, for a lookup that asks in the region of its target.
    pub(crate) fn rules_for(
        &self,
        num_results: Option<usize>,
        find_only: bool,
        answers: AnswerScope,
        size: Option<KnownSize>,
    ) -> LookupRules {
        let to_u16 = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let num_results = num_results.unwrap_or(self.k);
        let k = self.k.max(num_results);
        LookupRules {
            k: to_u16(k),
            answer_size: to_u16(answers.most()),
            names_buckets: matches!(answers, AnswerScope::Buckets(_)),
            beta: to_u16(k),
            alpha: to_u16(self.alpha),
            paths: to_u16(self.paths),
            retries: to_u16(self.retries),
            max_closer_nodes: to_u16(self.max_closer_nodes),
            max_per_group: self.max_per_group,
            max_candidates: to_u16(self.max_candidates.max(2 * num_results)),
            max_nodes: to_u16(if num_results > self.k {
                self.max_nodes.max(3 * num_results)
            } else {
                self.max_nodes
            }),
            num_results: to_u16(num_results),
            edge_probing: self.edge_probing && find_only,
            finds: find_only,
            region: size.map(|size| self.region(size)),
            hedges: find_only,
        }
    }
}
