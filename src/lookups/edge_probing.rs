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
//! which the answers have told, and the k-th closest live one. The number of extra nodes that it asks for this is bounded, and
//! grows with the number of silent nodes: see [`max_edge_probes`](CandidateList::max_edge_probes).
//!
//! Where a subtree holds more nodes than an answer names, one answer does not name all of it: then further nodes there are
//! asked about the part of it in which they lie themselves ([`edge_depth`](CandidateList::edge_depth)), until an answer has
//! come for each part that holds a candidate. Where answers name fewer than k, all nodes there are asked so from the start.
//! Where the wire format cannot ask about that point, [something near
//! it](crate::Family::target_near) is asked about.

use crate::lookups::candidates::{Candidate, CandidateList, State};
use crate::lookups::next_candidate::CandidateStep;
use crate::lookups::rules::LookupRules;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// Extra nodes that a path asks at most for edge probing, for as many nodes as an answer names; and as many more as nodes
/// within the neighbourhood are silent, beyond twice this number.
const MAX_EDGE_PROBES: usize = 4;

/// A subtree is explored in at most 2^5 parts.
const MAX_EDGE_DEPTH: u32 = 5;

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
    /// asked about, if that first is `bit`. One answer cannot name the whole subtree if that holds more nodes than an answer
    /// names: then each node there is asked about the part of it in which it lies itself. The subtree holds about as many
    /// nodes as there are closer ones.
    pub(super) fn edge_depth(&self, bit: u8, rules: &LookupRules) -> u32 {
        let closer = self.candidates.partition_point(|candidate| candidate.cpl() > bit);
        let answer_size = usize::from(rules.answer_size);
        let in_part = if rules.has_short_answers() { answer_size.div_ceil(4).max(1) } else { answer_size };
        closer.div_ceil(in_part).next_power_of_two().trailing_zeros().min(MAX_EDGE_DEPTH)
    }

    /// How many extra nodes the path may ask to explore the edge, which has this rank: the more candidates within it are
    /// silent or have failed, the farther away it is.
    fn max_edge_probes(&self, edge: usize, rules: &LookupRules) -> usize {
        let nearer = self.candidates.iter().take(edge);
        let silent = nearer.filter(|candidate| candidate.state != State::Answered).count();
        let more = if rules.has_short_answers() { rules.k.div_ceil(rules.answer_size.max(1)) } else { 1 };
        MAX_EDGE_PROBES * usize::from(more) + silent.saturating_sub(2 * MAX_EDGE_PROBES)
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
        let (cpl, part) = self.unexplored_part(edge, rules)?;
        let in_flight =
            |candidate: &Candidate| candidate.state == State::Waiting && candidate.is_asked_about(cpl);
        if self.candidates.iter().any(in_flight) {
            return Some(CandidateStep::Wait);
        }
        if may_not_ask || usize::from(self.edge_probes) >= self.max_edge_probes(edge, rules) {
            return None;
        }
        let heard = |candidate: &Candidate| candidate.state == State::Heard;
        let rank_of = |test: &dyn Fn(&Candidate) -> bool| self.candidates.iter().position(test);
        let in_subtree = |candidate: &Candidate| heard(candidate) && candidate.cpl() == cpl;
        let rank = part.or_else(|| rank_of(&in_subtree)).or_else(|| rank_of(&heard))?;
        let edge_part = part.is_some() || rules.has_short_answers();
        Some(CandidateStep::Ask { rank, edge_bit: Some(cpl), edge_probe: true, edge_part })
    }

    /// Whether a subtree or a part of it is left unexplored, up to this rank.
    pub(super) fn is_edge_unexplored(&self, edge: usize, rules: &LookupRules) -> bool {
        self.probes_edge(rules) && self.unexplored_part(edge, rules).is_some()
    }

    /// The nearest subtree that is not explored, by the number of bits that it shares with the target; and, if a part of
    /// it is not explored, the rank of a candidate there that was not asked.
    fn unexplored_part(&self, edge: usize, rules: &LookupRules) -> Option<(u8, Option<usize>)> {
        let last = self.candidates.get(edge)?;
        let (edge_cpl, edge_distance) = (last.cpl(), last.distance_prefix);
        let last_told = usize::from(rules.answer_size) - 1;
        if rules.answer_size > rules.k && edge < last_told {
            return None; // answers have told all nodes as near as the edge
        }
        let told_cpl = self.candidates.get(last_told)?.cpl();
        // A node with the target's own key differs in no bit, so it has no subtree next to the target.
        let told_cpl = u8::try_from(F::Key::BITS - 1).map_or(told_cpl, |most| told_cpl.min(most));
        for cpl in (edge_cpl..=told_cpl).rev() {
            if self.explored_edges >> cpl & 1 == 0 {
                return Some((cpl, None));
            }
            let depth = self.edge_depth(cpl, rules).min(62 - u32::from(cpl.min(62)));
            if depth == 0 {
                continue;
            }
            // The bits that follow the first in which a candidate differs from the target.
            let part = |distance: u64| distance >> (63 - u32::from(cpl) - depth) & ((1 << depth) - 1);
            let last_part = if cpl == edge_cpl { part(edge_distance) } else { u64::MAX };
            let here = || {
                let all = (0..).zip(&self.candidates);
                all.skip_while(move |(_, candidate): &(usize, &Candidate)| candidate.cpl() > cpl)
                    .take_while(move |(_, candidate)| candidate.cpl() == cpl)
            };
            let explored = here()
                .filter(|(_, candidate)| candidate.state == State::Answered && candidate.is_asked_about(cpl))
                .fold(0_u64, |parts, (_, candidate)| {
                    parts
                        | 1 << if candidate.is_asked_about_part() {
                            part(candidate.distance_prefix)
                        } else {
                            0
                        }
                });
            let missing = here().find(|(_, candidate)| {
                let part = part(candidate.distance_prefix);
                candidate.state == State::Heard && part <= last_part && explored >> part & 1 == 0
            });
            if let Some((rank, _)) = missing {
                return Some((cpl, Some(rank)));
            }
        }
        None
    }
}
