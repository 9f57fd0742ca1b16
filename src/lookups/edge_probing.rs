//! Edge probing: a lookup also asks about keys next to its target, once a node was silent, or if it looks for more
//! nodes than an answer names, or if answers name whole buckets.
//!
//! Why: a node answers with the n closest nodes that it knows, dead or alive; n is what the
//! [family](crate::Family::answers) says. If some of these are dead, or if n is less than k, the k closest live nodes
//! are farther away than the nodes in any such answer. So the nodes at the edge of the neighbourhood are never named,
//! however often nodes are asked about the same key.
//!
//! How: nodes farther out (from rank n/2, at most k/2) are asked about another key: the point of their own subtree
//! that is nearest to the target. That is the target with one bit flipped, the first in which it differs from the
//! node. These nodes know that subtree, and its nodes have the same order of distance from that point as from the
//! target. Before the path converges, it asks in this way for each subtree between the n-th closest of all candidates,
//! which the answers have told, and the k-th closest live one, with at most [`MAX_EDGE_PROBES`] extra nodes. Where answers
//! name fewer than k, one does not name a whole subtree: then each node is asked about the part of it in which it lies
//! itself ([`edge_depth`](CandidateList::edge_depth)). Where the wire format cannot ask about that point, [something near
//! it](crate::Family::target_near) is asked about.

use crate::lookups::candidates::{Candidate, CandidateList, State};
use crate::lookups::next_candidate::CandidateStep;
use crate::lookups::rules::LookupRules;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// Extra nodes that a path asks at most for edge probing; twice as many where answers name fewer than k.
const MAX_EDGE_PROBES: u8 = 4;

impl<F: Family> CandidateList<F> {
    /// Whether the edge of the neighbourhood is probed: answers may not have told all of the k closest live nodes.
    pub(super) fn probes_edge(&self, rules: &LookupRules) -> bool {
        self.edge_unsure && rules.edge_probing
    }

    /// The bit to flip in the target when this candidate is asked: the first bit in which they differ, if the edge is
    /// probed and the candidate is in the outer half of what an answer about the target can name. Not before a nearer
    /// one has answered: so long, its rank says nothing of how near it is.
    pub(super) fn edge_bit(&self, rank: usize, candidate: &Candidate, rules: &LookupRules) -> Option<u8> {
        let is_outer = self.probes_edge(rules) && rank >= usize::from(rules.edge_rank) && self.answers > 0;
        let has_answered = |nearer: &Candidate| nearer.state == State::Answered;
        (is_outer && self.candidates.iter().take(rank).any(has_answered)).then(|| candidate.cpl())
    }

    /// How many bits of a candidate, beyond the first in which it differs from the target, stand in the point that it is
    /// asked about, if that first is `bit`. Where answers name fewer than k, one cannot name its whole subtree: each
    /// node there is asked about a part of it. The subtree holds about as many nodes as there are closer ones.
    pub(super) fn edge_depth(&self, bit: u8, rules: &LookupRules) -> u32 {
        if rules.answer_size >= rules.k {
            return 0;
        }
        let closer = self.candidates.partition_point(|candidate| candidate.cpl() > bit);
        let in_part = usize::from(rules.answer_size).div_ceil(4).max(1);
        closer.div_ceil(in_part).next_power_of_two().trailing_zeros()
    }

    /// Before convergence: the next step needed to explore the subtrees between the n-th closest of all
    /// candidates and the k-th closest live one, whose rank is `edge`. `None` if all are explored, or if no more
    /// may be asked (`may_not_ask`, or the bound of extra nodes is reached).
    pub(super) fn edge_probe(
        &self,
        edge: usize,
        may_not_ask: bool,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let edge_cpl = self.candidates.get(edge)?.cpl();
        let last_told = usize::from(rules.answer_size) - 1;
        if rules.answer_size > rules.k && edge < last_told {
            return None; // answers have told all nodes as near as the edge
        }
        let told_cpl = self.candidates.get(last_told)?.cpl();
        // A node with the target's own key differs in no bit, so it has no subtree next to the target.
        let told_cpl = u8::try_from(F::Key::BITS - 1).map_or(told_cpl, |most| told_cpl.min(most));
        let cpl = (edge_cpl..=told_cpl).rev().find(|cpl| self.explored_edges >> cpl & 1 == 0)?;
        let most = if rules.answer_size < rules.k { 2 * MAX_EDGE_PROBES } else { MAX_EDGE_PROBES };
        let in_flight =
            |candidate: &Candidate| candidate.state == State::Waiting && candidate.edge_bit == cpl + 1;
        if self.candidates.iter().any(in_flight) {
            return Some(CandidateStep::Wait);
        }
        if may_not_ask || self.edge_probes >= most {
            return None;
        }
        let heard = |candidate: &Candidate| candidate.state == State::Heard;
        let in_subtree =
            self.candidates.iter().position(|candidate| heard(candidate) && candidate.cpl() == cpl);
        let rank = in_subtree.or_else(|| self.candidates.iter().position(heard))?;
        Some(CandidateStep::Ask { rank, edge_bit: Some(cpl), edge_probe: true })
    }
}
