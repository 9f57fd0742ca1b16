//! Edge probing: after a time-out, a lookup also asks about keys next to its target.
//!
//! Why: a node answers with the k closest nodes that it knows, dead or alive. If some of the k closest are
//! dead, the k closest live nodes are farther away than the nodes in any such answer. So the nodes at the
//! edge of the neighbourhood are never named, however often nodes are asked about the same key.
//!
//! How: once a node has been silent, nodes farther out (from rank k/2) are asked about another key: the point
//! of their own subtree that is nearest to the target. That is the target with one bit flipped, the first in
//! which it differs from the node. These nodes know that subtree, and its nodes have the same order of
//! distance from that point as from the target. Before a path with time-outs converges, it asks in this way
//! for the subtree of its k-th closest live node, with at most [`MAX_EDGE_PROBES`] extra nodes.

use crate::lookups::candidates::{Candidate, CandidateList, State};
use crate::lookups::next_candidate::CandidateStep;
use crate::lookups::rules::LookupRules;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// Extra nodes that a path asks at most for edge probing.
const MAX_EDGE_PROBES: u8 = 4;

impl<F: Family> CandidateList<F> {
    /// The bit to flip in the target when this candidate is asked: the first bit in which they differ, once
    /// there were time-outs and the candidate is in the outer half of the k closest.
    pub(super) fn edge_bit(&self, rank: usize, candidate: &Candidate, rules: &LookupRules) -> Option<u8> {
        (rules.edge_probing && self.had_timeouts && rank >= usize::from(rules.k / 2)).then(|| candidate.cpl())
    }

    /// Before convergence: the next step needed to explore the subtrees between the k-th closest of all
    /// candidates and the k-th closest live one, whose rank is `edge`. `None` if all are explored, or if no more
    /// may be asked (`may_not_ask`, or the bound of extra nodes is reached).
    pub(super) fn edge_probe(
        &self,
        edge: usize,
        may_not_ask: bool,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let edge_cpl = self.candidates.get(edge)?.cpl();
        let kth_cpl = self.candidates.get(usize::from(rules.k) - 1)?.cpl();
        // A node with the target's own key differs in no bit, so it has no subtree next to the target.
        let kth_cpl = u8::try_from(F::Key::BITS - 1).map_or(kth_cpl, |most| kth_cpl.min(most));
        let cpl = (edge_cpl..=kth_cpl).rev().find(|cpl| self.explored_edges >> cpl & 1 == 0)?;
        let in_flight =
            |candidate: &Candidate| candidate.state == State::Waiting && candidate.edge_bit == cpl + 1;
        if self.candidates.iter().any(in_flight) {
            return Some(CandidateStep::Wait);
        }
        if may_not_ask || self.edge_probes == MAX_EDGE_PROBES {
            return None;
        }
        let heard = |candidate: &Candidate| candidate.state == State::Heard;
        let in_subtree =
            self.candidates.iter().position(|candidate| heard(candidate) && candidate.cpl() == cpl);
        let rank = in_subtree.or_else(|| self.candidates.iter().position(heard))?;
        Some(CandidateStep::Ask { rank, edge_bit: Some(cpl), edge_probe: true })
    }
}
