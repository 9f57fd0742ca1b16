//! Which candidate of a path is asked next, and when the path has converged (Kademlia paper, section 2.3).
//!
//! A path converges when the k closest candidates that have not failed have all answered. Up to `alpha` requests
//! occupy concurrency slots; after `alpha` answers or misses without progress the path widens to k slots. An answer is progress if
//! it is the first to name more than a sixteenth of the k closest, or of all that it names: else nearly all that are closest by now
//! are among those that will have to answer. (The paper waits for a round that names none, which costs time.) A
//! request past the soft limit occupies no slot, and the next candidate may be asked in its place. Nor does one that has waited for
//! some time in line for a busy node, until its turn comes; but its node is expected to answer, so nobody farther is asked for it.
//!
//! A slow node may be asked again (a hedge) once it is late, and one that is silent may be retried, as often as `retries`
//! allows. A node that is closer than all nodes that have answered gets one more request. Reason: time-outs
//! are adapted to the usual round trip, so a live node may miss two requests in a row (2 of 1,000 nodes do,
//! if 1 % of messages is lost), and many lookups need the very closest node. There are few such nodes, and
//! the closest are asked first, so the extra request hardly delays the end of the lookup.
//!
//! Candidates that only those have named of whose names many are silent are [put off](crate::lookups::credit): the path goes on as if
//! they were not there, until nothing else is left to ask.

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

/// What bounds a step besides the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLimits {
    /// The lookup has asked as many nodes as it may.
    pub(crate) at_limit: bool,
    /// More nodes to begin with may be known.
    pub(crate) has_seeds: bool,
}

/// What a [walk](CandidateList::walk) from the nearest candidate outwards has found.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
struct Walk {
    /// The rank of the k-th that has not failed, or of the last.
    edge: usize,
    converged: bool,
    /// All up to there have answered or failed, but for those that are put off.
    all_answered: bool,
    /// No more requests may be sent to one that would be asked.
    is_spent: bool,
    /// Some that are nearer were put off.
    has_put_off: bool,
    /// More requests may be sent to the nearest.
    may_probe: bool,
}

impl<F: Family> CandidateList<F> {
    /// Decides what the path does next: ask a candidate, wait, or end. The [region](crate::lookups::region) is searched while
    /// the nearest are waited for, so that these do not delay it, however slow they are.
    pub(super) fn step(&mut self, rules: &LookupRules, limits: StepLimits, now: Instant) -> CandidateStep {
        let step = self.nearest_step(rules, limits, now);
        let at_limit = limits.at_limit;
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
    /// Those that were [put off](crate::lookups::credit) come last: first others tell of the target.
    ///
    /// At the limit of nodes no edge probe starts.
    fn nearest_step(&mut self, rules: &LookupRules, limits: StepLimits, now: Instant) -> CandidateStep {
        self.hold_until = None;
        (self.asks_in_region, self.asks_other, self.part_asked) = (false, false, 0);
        let slots_full = self.are_slots_full(rules);
        if slots_full && self.unchanged {
            return CandidateStep::Wait;
        }
        let mut walk = match self.walk(rules, slots_full, false) {
            Ok(walk) => walk,
            Err(step) => return step,
        };
        if walk.has_put_off || walk.converged && self.credit.is_flood() {
            if let Some(step) = self.ask_others_than_doubted(walk.edge, slots_full, limits, rules) {
                return step;
            }
            match self.walk(rules, slots_full, true) {
                // They have had their share: as if they were not there.
                Ok(Walk { is_spent: true, .. }) => {}
                Ok(with_all) => walk = with_all,
                Err(step) => return step,
            }
        }
        let Walk { edge, converged, all_answered, is_spent, may_probe, .. } = walk;
        if is_spent {
            return CandidateStep::Spent;
        }
        if may_probe
            && self.probes_edge(rules)
            && let Some(edge_probe) = self.edge_probe(edge, slots_full, limits.at_limit, rules)
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
            (false, false) if self.answers == 0 && self.num_heard == 0 && !self.has_waiting() => {
                CandidateStep::Listening
            }
            (false, false) => CandidateStep::Wait,
        }
    }

    /// Whether no concurrency slot is free. After a round without progress the whole neighbourhood is asked at once, as far as an
    /// answer tells of it.
    pub(super) fn are_slots_full(&self, rules: &LookupRules) -> bool {
        let is_wide = self.rounds_without_progress >= rules.alpha;
        let wide = rules.wide();
        let num_slots = if is_wide { wide } else { rules.alpha };
        self.num_waiting.saturating_sub(self.waiting_in_region()) >= num_slots
            || self.num_waiting >= wide.saturating_mul(2)
    }

    /// Walks from the nearest candidate outwards, up to the k-th that has not failed. `Err`: a candidate to ask, or to wait for.
    ///
    /// A slow candidate does not count towards the k, so one more candidate is asked for it, but none farther
    /// than that: a path that waits for silent nodes does not move away from the target. `with_all`: those that are put off, too.
    fn walk(&mut self, rules: &LookupRules, slots_full: bool, with_all: bool) -> Result<Walk, CandidateStep> {
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
        let (mut sent, mut is_spent, mut has_put_off) = (self.sent_before(from, rules), false, false);
        let puts_off = !with_all && self.credit.may_doubt();
        let within =
            rules.region.map(|region| (region, self.sent_within(&region), self.is_flooded(&region, rules)));
        let may_ask = |distance, sent: usize, kept: usize| {
            within.is_none_or(|(region, (as_nearest, to_all), is_flooded)| {
                region.may_ask(distance, sent + kept, (as_nearest + kept, to_all + kept), rules.k, is_flooded)
            })
        };
        for (rank, candidate) in (from..).zip(self.candidates.get(from..).unwrap_or_default()) {
            if converged || num_expected == rules.k {
                break;
            }
            sent += usize::from(candidate.tries);
            // The last requests that the region may be sent are not for those put off.
            let kept =
                if with_all && self.credit.is_put_off(candidate.slot) { 2 * usize::from(rules.k) } else { 0 };
            let may_ask = || may_ask(candidate.distance_prefix, sent, kept);
            match candidate.state {
                State::Answered | State::AskedAgain => {
                    num_expected += 1;
                    max_tries = rules.retries;
                    if all_answered && !has_put_off {
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
                    self.settled_prefix += u16::from(all_answered && !has_put_off);
                    continue;
                }
                State::Heard | State::Missed if puts_off && self.credit.is_put_off(candidate.slot) => {
                    has_put_off = true;
                    continue;
                }
                State::Heard | State::Missed if !may_ask() => {
                    is_spent = true;
                    break;
                }
                State::Heard | State::Missed if slots_full => return Err(CandidateStep::Wait),
                State::Heard | State::Missed => {
                    let block = self.block_of(rank, candidate, rules);
                    return Err(CandidateStep::Ask { rank, block, edge_probe: false });
                }
                State::Late
                    if rules.hedges
                        && u16::from(candidate.tries) <= max_tries
                        && !slots_full
                        && may_ask()
                        && (self.answers > 0 || self.num_heard == 0) =>
                {
                    if puts_off && self.credit.is_put_off(candidate.slot) {
                        (has_put_off, all_answered) = (true, false);
                        continue;
                    }
                    let block = self.block_of(rank, candidate, rules);
                    return Err(CandidateStep::Ask { rank, block, edge_probe: false });
                }
                State::Slow | State::Late => all_answered = false,
            }
            if slots_full && !all_answered {
                return Err(CandidateStep::Wait);
            }
            num_live += 1;
            if num_live <= rules.k {
                edge = rank;
            }
            converged = all_answered && num_live == rules.beta;
        }
        let may_probe = may_ask(0, sent, 0);
        Ok(Walk { edge, converged, all_answered, is_spent, has_put_off, may_probe })
    }

    /// Whether others may be closer than the k closest that have answered, of which the last has this rank: some were silent,
    /// and there are gaps in what the answers have told; or the caller would not wait; or some that live were too busy.
    fn is_unsure(&self, edge: usize, rules: &LookupRules) -> bool {
        let nearer = self.candidates.iter().take(edge);
        let silent = nearer.clone().filter(|candidate| !candidate.state.has_answered()).count();
        let has_doubt = (silent > 0 || self.are_answers_short(rules)) && self.has_gap(edge, rules);
        let was_busy = |it: &Candidate| it.marks & Candidate::BUSY != 0 && !it.state.has_answered();
        has_doubt
            || nearer.clone().any(was_busy)
            || self.was_capped && nearer.clone().any(Candidate::is_listened_to)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::purpose::CandidateRef;
    use crate::vocabulary::family::{AnswerScope, Plain};
    use crate::vocabulary::key::Key;
    use crate::{Key8, QueryConfig};

    const NO_SEEDS: StepLimits = StepLimits { at_limit: false, has_seeds: false };

    fn rules() -> LookupRules {
        QueryConfig { k: 4, alpha: 1, ..QueryConfig::default() }.rules_for(
            None,
            true,
            AnswerScope::Closest(4),
            None,
        )
    }

    /// The candidate 100 of the key 0 has answered, and named those from 1 to 10, of whom eight were silent and have failed. The
    /// candidates from 101 to 104 are seeds, too.
    fn list() -> CandidateList<Plain> {
        let mut list = CandidateList::with_capacity(20);
        let insert = |list: &mut CandidateList<Plain>, key: u8, by: Option<CandidateRef>| {
            let node = Key8::new([key]);
            let rank = list.insertion_rank(&Key8::new([0]), node.leading(), &node).unwrap();
            assert!(list.insert(rank, Candidate::new(node.leading()), || node, (1, by), &rules()));
        };
        for key in 100..=104 {
            insert(&mut list, key, None);
        }
        let at = ask(&mut list, 0);
        list.answered(at, core::time::Duration::ZERO);
        for key in 1..=10 {
            insert(&mut list, key, Some(at));
        }
        for rank in 2..10 {
            let at = ask(&mut list, rank);
            list.slow(at, false, 3);
            list.candidates[rank].state = State::Failed;
        }
        list
    }

    fn ask(list: &mut CandidateList<Plain>, rank: usize) -> CandidateRef {
        let Candidate { slot, distance_prefix, .. } = list.ask(rank, None, false).unwrap();
        CandidateRef { path: 0, slot, distance_prefix, block: None, edge_probe: false }
    }

    /// The key of the one that is asked.
    fn asked(list: &mut CandidateList<Plain>, limits: StepLimits) -> Option<u8> {
        let step = list.nearest_step(&rules(), limits, Instant::ORIGIN);
        let CandidateStep::Ask { rank, .. } = step else { return None };
        Some(list.candidates[rank].distance_prefix.to_be_bytes()[0])
    }

    #[test]
    fn who_was_named_by_one_whose_names_are_silent_is_asked_after_all_others() {
        let mut list = list();
        assert!(list.credit.is_put_off(list.candidates[0].slot));
        // The three nearest others, with whom four have answered, and one more.
        for (rank, key) in (11..).zip(101..=104) {
            assert_eq!(asked(&mut list, NO_SEEDS), Some(key));
            let at = ask(&mut list, rank);
            list.answered(at, core::time::Duration::ZERO);
        }
        let with_seeds = StepLimits { has_seeds: true, ..NO_SEEDS };
        let step = list.nearest_step(&rules(), with_seeds, Instant::ORIGIN);
        assert!(matches!(step, CandidateStep::Exhausted), "further nodes to begin with are wanted");
        assert_eq!(asked(&mut list, NO_SEEDS), Some(1), "nobody else is left");
        // One of them has named the nearest, too.
        let (first, other) = (list.candidates[0].slot, list.candidates[11].slot);
        list.told_by_others(0, &Key8::new([2]), other);
        assert!(list.credit.is_put_off(first), "that is not the one at this rank");
        list.told_by_others(0, &Key8::new([1]), other);
        assert_eq!(asked(&mut list, with_seeds), Some(1));
    }

    /// If the others do not answer either, or nobody whom they name, nobody is made up: all are slow, or all are known. That is after
    /// `alpha`, and one for the eight that are silent. (The rules are those of a lookup without a region.)
    #[test]
    fn others_are_asked_as_long_as_whom_they_name_answers() {
        for (answer, are_fruitful, most) in [(false, false, 2), (true, false, 2), (true, true, 4)] {
            let mut list = list();
            for rank in 11..14 {
                let at = ask(&mut list, rank);
                list.answered(at, core::time::Duration::ZERO);
            }
            for rank in 15..=20 {
                let node = Key8::new([90 + rank]);
                let by = None;
                let candidate = Candidate::new(node.leading());
                assert!(list.insert(rank.into(), candidate, || node, (1, by), &rules()));
            }
            let mut others = 0;
            while let Some(104..) = asked(&mut list, NO_SEEDS) {
                let at = ask(&mut list, 14 + others);
                if answer {
                    list.answered(at, core::time::Duration::ZERO);
                } else {
                    list.slow(at, false, 3);
                }
                if are_fruitful && others == 0 {
                    let named = u16::try_from(list.contacts.len()).unwrap();
                    list.credit.heard(named, Some(at.slot), true);
                    list.credit.answered(named);
                }
                others += 1;
            }
            assert_eq!(others, most);
            assert_eq!(asked(&mut list, NO_SEEDS), Some(1));
        }
    }
}
