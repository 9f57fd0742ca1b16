//! Which candidate of a path is asked next, and when the path has converged (Kademlia paper, section 2.3).
//!
//! A path converges when the k closest candidates that have not failed have all answered. Up to `alpha` requests
//! occupy concurrency slots; after `alpha` answers or misses without progress the path widens to k slots. A
//! request past the soft limit occupies no slot, and the next candidate may be asked in its place.
//!
//! A slow node may be asked again (a hedge), and one that timed out may be retried, as often as `retries`
//! allows. A node that is closer than all nodes that have answered gets one more request. Reason: time-outs
//! are adapted to the usual round trip, so a live node may miss two requests in a row (2 of 1,000 nodes do,
//! if 1 % of messages is lost), and many lookups need the very closest node. There are few such nodes, and
//! the closest are asked first, so the extra request hardly delays the end of the lookup.

use crate::lookups::candidates::{CandidateList, State};
use crate::lookups::rules::LookupRules;
use crate::vocabulary::family::Family;

/// What [`CandidateList::step`] decided. `Ask`: ask the candidate of this rank, about the target with `edge_bit`
/// flipped if there is one; `edge_probe` if only to explore the edge of the neighbourhood. `Exhausted`: nothing
/// is left to ask, and fewer than k (or beta) have answered.
pub(crate) enum CandidateStep {
    Ask { rank: usize, edge_bit: Option<u8>, edge_probe: bool },
    Wait,
    Converged,
    Exhausted,
}

impl<F: Family> CandidateList<F> {
    /// Decides what the path does next, from the k closest candidates that have not failed: ask one, wait, or
    /// end.
    ///
    /// A slow candidate does not count towards the k, so one more candidate is asked for it, but none farther
    /// than that: a path that waits for silent nodes does not move away from the target. `at_limit`: the
    /// lookup has asked `max_nodes` nodes, so no edge probe starts.
    pub(crate) fn step(&mut self, rules: &LookupRules, at_limit: bool) -> CandidateStep {
        // A round without progress: ask the whole neighbourhood at once.
        let num_slots =
            if self.rounds_without_progress >= rules.alpha { rules.alpha.max(rules.k) } else { rules.alpha };
        let slots_full = self.num_waiting >= num_slots;
        if slots_full && self.unchanged {
            return CandidateStep::Wait;
        }
        // The settled prefix is not examined again. `num_live` counts the candidates that have not failed;
        // `num_expected` counts only those of them that have answered or are likely to answer: once it is k,
        // no candidate farther away is asked.
        let (mut num_live, mut num_expected, mut all_answered) =
            (self.settled_answered, self.settled_answered, true);
        let mut edge = self.settled_edge;
        // One more try for a candidate closer than all that have answered: see the head of this file.
        let mut max_tries = rules.retries + u16::from(rules.retries > 0 && self.settled_answered == 0);
        let mut converged = self.settled_answered == rules.beta;
        let from = usize::from(self.settled_prefix);
        for (rank, candidate) in (from..).zip(self.candidates.get(from..).unwrap_or_default()) {
            if converged || num_expected == rules.k {
                break;
            }
            match candidate.state {
                State::Answered => {
                    num_expected += 1;
                    max_tries = rules.retries;
                    if all_answered {
                        self.settled_prefix += 1;
                        self.settled_answered += 1;
                        self.settled_edge = rank;
                    }
                }
                State::Waiting => {
                    all_answered = false;
                    // Asked before without an answer, it is unlikely to answer now: do not count it, and ask
                    // the next one too.
                    num_expected += u16::from(candidate.tries == 1);
                }
                State::Failed => {
                    self.settled_prefix += u16::from(all_answered);
                    continue;
                }
                State::Heard | State::Missed if slots_full => return CandidateStep::Wait,
                State::Heard | State::Missed => {
                    return CandidateStep::Ask {
                        rank,
                        edge_bit: self.edge_bit(rank, candidate, rules),
                        edge_probe: false,
                    };
                }
                State::Slow if rules.hedges && u16::from(candidate.tries) <= max_tries && !slots_full => {
                    return CandidateStep::Ask {
                        rank,
                        edge_bit: self.edge_bit(rank, candidate, rules),
                        edge_probe: false,
                    };
                }
                State::Slow => all_answered = false,
            }
            if slots_full && !all_answered {
                return CandidateStep::Wait;
            }
            num_live += 1;
            if num_live <= rules.k {
                edge = rank;
            }
            converged = all_answered && num_live == rules.beta;
        }
        if self.probes_edge(rules)
            && let Some(edge_probe) = self.edge_probe(edge, slots_full || at_limit, rules)
        {
            return edge_probe;
        }
        match (converged, all_answered) {
            (true, _) => CandidateStep::Converged,
            (false, true) => CandidateStep::Exhausted,
            (false, false) => CandidateStep::Wait,
        }
    }
}
