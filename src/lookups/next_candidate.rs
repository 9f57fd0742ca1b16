//! Which candidate of a path is asked next, and when the path has converged (Kademlia paper, section 2.3).
//!
//! A path converges when the k closest candidates that have not failed have all answered. Up to `alpha` requests
//! occupy concurrency slots; after `alpha` answers or misses without progress the path widens to k slots. A
//! request past the soft limit occupies no slot, and the next candidate may be asked in its place.
//!
//! A slow node may be asked again (a hedge) once it is late, and one that is silent may be retried, as often as `retries`
//! allows. A node that is closer than all nodes that have answered gets one more request. Reason: time-outs
//! are adapted to the usual round trip, so a live node may miss two requests in a row (2 of 1,000 nodes do,
//! if 1 % of messages is lost), and many lookups need the very closest node. There are few such nodes, and
//! the closest are asked first, so the extra request hardly delays the end of the lookup.

use crate::lookups::candidates::{Candidate, CandidateList, State};
use crate::lookups::rules::LookupRules;
use crate::requests::purpose::Block;
use crate::vocabulary::family::Family;
use crate::vocabulary::time::Instant;

/// So many late answers show that the patience is too short; one does not.
const MIN_LATE_ANSWERS: u16 = 2;

/// What [`CandidateList::step`] decided. `Ask`: ask the candidate of this rank, about the point of a block if there is one;
/// `edge_probe` if only to explore the edge of the neighbourhood. `Converged`: the k (or beta)
/// closest that have not failed have answered; `unsure` if so many did not answer that others may be closer.
/// `Listening`: nothing is left to ask, but silent nodes may still answer. `Exhausted`: neither, and fewer than k (or
/// beta) have answered. `Spent`: so many requests were sent to the nearest nodes of the [region](crate::lookups::region) that
/// no more are asked.
pub(crate) enum CandidateStep {
    Ask { rank: usize, block: Option<Block>, edge_probe: bool },
    Wait,
    Listening,
    Converged { unsure: bool },
    Exhausted,
    Spent,
}

impl<F: Family> CandidateList<F> {
    /// Decides what the path does next: ask a candidate, wait, or end. The [region](crate::lookups::region) is searched while
    /// the nearest are waited for, so that these do not delay it, however slow they are.
    pub(super) fn step(&mut self, rules: &LookupRules, at_limit: bool, now: Instant) -> CandidateStep {
        let step = self.nearest_step(rules, at_limit, now);
        self.asks_as_nearest = false;
        match step {
            CandidateStep::Ask { rank, .. } => {
                let reach = rules.region.map(|region| region.reach(0));
                let candidate = self
                    .candidates
                    .get(rank)
                    .filter(|it| reach.is_some_and(|reach| it.distance_prefix <= reach));
                self.asks_as_nearest = candidate.is_some();
                step
            }
            CandidateStep::Converged { .. } => {
                self.region_step(self.settled_edge, at_limit, rules).unwrap_or(step)
            }
            CandidateStep::Spent => {
                let edge = self.spent_edge(rules);
                edge.and_then(|edge| self.region_step(edge, at_limit, rules)).unwrap_or(step)
            }
            CandidateStep::Wait => self.region_step_meanwhile(at_limit, rules).unwrap_or(step),
            step => step,
        }
    }

    /// What the path does next towards the k closest candidates that have not failed: it asks one, waits, or has converged.
    ///
    /// A slow candidate does not count towards the k, so one more candidate is asked for it, but none farther
    /// than that: a path that waits for silent nodes does not move away from the target. `at_limit`: the
    /// lookup has asked `max_nodes` nodes, so no edge probe starts.
    fn nearest_step(&mut self, rules: &LookupRules, at_limit: bool, now: Instant) -> CandidateStep {
        self.hold_until = None;
        (self.asks_in_region, self.part_asked) = (false, 0);
        // A round without progress: ask the whole neighbourhood at once, as far as an answer tells of it.
        let is_wide = self.rounds_without_progress >= rules.alpha;
        let wide = rules.wide();
        let num_slots = if is_wide { wide } else { rules.alpha };
        let slots_full = self.num_waiting.saturating_sub(self.waiting_in_region()) >= num_slots
            || self.num_waiting >= wide.saturating_mul(2);
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
        let (mut sent, mut is_spent) = (self.sent_before(from, rules), false);
        let within =
            rules.region.map(|region| (region, self.sent_within(&region), self.is_flooded(&region, rules)));
        let may_ask = |distance, sent| {
            within.is_none_or(|(region, within, is_flooded)| {
                region.may_ask(distance, sent, within, rules.k, is_flooded)
            })
        };
        for (rank, candidate) in (from..).zip(self.candidates.get(from..).unwrap_or_default()) {
            if converged || num_expected == rules.k {
                break;
            }
            sent += usize::from(candidate.tries);
            let may_ask = || may_ask(candidate.distance_prefix, sent);
            match candidate.state {
                State::Answered | State::AskedAgain => {
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
                State::Heard | State::Missed if !may_ask() => {
                    is_spent = true;
                    break;
                }
                State::Heard | State::Missed if slots_full => return CandidateStep::Wait,
                State::Heard | State::Missed => {
                    let block = self.block_of(rank, candidate, rules);
                    return CandidateStep::Ask { rank, block, edge_probe: false };
                }
                State::Late
                    if rules.hedges
                        && u16::from(candidate.tries) <= max_tries
                        && !slots_full
                        && may_ask()
                        && (self.answers > 0 || self.num_heard == 0) =>
                {
                    let block = self.block_of(rank, candidate, rules);
                    return CandidateStep::Ask { rank, block, edge_probe: false };
                }
                State::Slow | State::Late => all_answered = false,
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
        if is_spent {
            return CandidateStep::Spent;
        }
        if may_ask(0, sent)
            && self.probes_edge(rules)
            && let Some(edge_probe) = self.edge_probe(edge, slots_full, at_limit, rules)
        {
            return edge_probe;
        }
        match (converged, all_answered) {
            (true, _) if self.holds(edge, now) => CandidateStep::Wait,
            (true, _) => CandidateStep::Converged { unsure: self.is_unsure(edge, rules) },
            // A silent node may still answer, and name others.
            (false, true) if self.candidates.iter().any(Candidate::is_listened_to) => {
                CandidateStep::Listening
            }
            // So may one that has answered before.
            (false, true) if self.pending > 0 => CandidateStep::Wait,
            (false, true) => CandidateStep::Exhausted,
            // All are slow, and nobody has answered so far: further nodes to begin with are asked meanwhile.
            (false, false) if self.answers == 0 && self.num_waiting == 0 && self.num_heard == 0 => {
                CandidateStep::Listening
            }
            (false, false) => CandidateStep::Wait,
        }
    }

    /// Whether others may be closer than the k closest that have answered, of which the last has this rank: some were silent,
    /// and there are gaps in what the answers have told; or the caller would not wait.
    fn is_unsure(&self, edge: usize, rules: &LookupRules) -> bool {
        let nearer = self.candidates.iter().take(edge);
        let silent = nearer.clone().filter(|candidate| !candidate.state.has_answered()).count();
        let has_doubt = (silent > 0 || self.are_answers_short(rules)) && self.has_gap(edge, rules);
        has_doubt || self.was_capped && nearer.clone().any(Candidate::is_listened_to)
    }

    /// Whether the path waits for silent nodes although the k closest others have answered, up to this rank: answers
    /// came late before, so the patience was too short. It waits 1.25 times as long as the longest of them took.
    fn holds(&mut self, edge: usize, now: Instant) -> bool {
        if self.late_answers < MIN_LATE_ANSWERS || self.was_capped {
            return false;
        }
        let until = self.last_silent + self.latest_answer + self.latest_answer / 4;
        let holds = now < until && self.candidates.iter().take(edge).any(Candidate::is_listened_to);
        self.hold_until = holds.then_some(until);
        holds
    }
}
