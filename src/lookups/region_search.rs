//! How a lookup finds the nodes of the [region](crate::lookups::region) of its target, where the k closest that have answered
//! are much nearer.
//!
//! The answers about the key name only the nearest nodes, so the rest of the region is asked for piece by piece. A *part* is
//! the subtree of all keys that differ from the key first at one bit: it begins in the middle of what the parts nearer to the
//! key take up with it. The nodes of a part are nearer to its own points than anybody placed next to the key is. From the
//! outermost part to the innermost: the nodes known there are asked, and somebody is asked about the part, first one in
//! it, then one farther out, never one nearer to the key. What is nearer than the innermost part is asked last. And even where the
//! k closest reach as far as the region, three that are much farther are asked about the outermost part: they may name each
//! other only.
//!
//! This goes on while the nearest are asked: those who are nearest may be slow, and each may name the next. It begins once k nodes are
//! known about as near as the region reaches and enough of them were asked (`region_step_meanwhile`), has concurrency slots of its own
//! (`waiting_in_region`), and a budget of its own ([`Region::may_ask_others`](crate::lookups::region::Region)): what the nearest take
//! is bounded apart from it. Where their bound is spent, the search goes on without them.

use crate::lookups::candidates::{Candidate, CandidateList, Elsewhere, State};
use crate::lookups::next_candidate::CandidateStep;
use crate::lookups::region::Region;
use crate::lookups::rules::LookupRules;
use crate::requests::purpose::Block;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use smallvec::SmallVec;

/// How often somebody is asked about a part of which not all nodes are told; once more where the k closest are implausible. As often
/// about each piece of it, along the way to one of them.
const MAX_QUESTIONS: u8 = 2;

/// How many beyond the region are asked about its outermost part at most, whatever the others tell.
const MAX_ASKED_BEYOND: u16 = 3;

/// So many times as many where the k closest are so far that hardly anybody was found in the region.
const TIMES_WHERE_DESERTED: u16 = 3;

/// One is asked for so many nodes of the region: so the cost, as a share of all, is about the same for every k.
const NODES_FOR_ONE_BEYOND: u16 = 6;

/// Each of these is at least this part of its distance from the target apart from the others: there may be a crowd there, too, that
/// names only each other.
const APART: u64 = 4;

/// How many bits the distances of a piece have in common of a part with so many: few enough that an answer names all that are
/// known there.
#[allow(clippy::cast_possible_truncation)] // at most 64
fn piece_len<F: Family>(len: u8, known: usize, answer_size: u16) -> u8 {
    let pieces = known.div_ceil(usize::from(answer_size.max(1))).max(1).next_power_of_two();
    (len + pieces.ilog2() as u8).min((F::Key::BITS.min(64) as u8).max(len))
}

/// How often somebody is asked about a part whose pieces have so many bits more in common than it has.
fn most_questions<F: Family>(is_refuted: bool, more_bits: u8) -> u8 {
    let of_a_piece = MAX_QUESTIONS + u8::from(is_refuted);
    of_a_piece.saturating_mul(more_bits.saturating_add(1)).min(CandidateList::<F>::MAX_COUNTED)
}

/// How many are asked from beyond at most.
fn most_beyond(rules: &LookupRules) -> u16 {
    MAX_ASKED_BEYOND.min(rules.k / NODES_FOR_ONE_BEYOND)
}

impl<F: Family> CandidateList<F> {
    /// How many requests to others of the region than the nearest occupy concurrency slots: they have slots of their own.
    pub(super) fn waiting_in_region(&self) -> u16 {
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix <= self.region_from);
        let others = self.candidates.get(from..).unwrap_or_default().iter();
        let waiting = others.filter(|candidate| candidate.occupies_slot()).count();
        u16::try_from(waiting).unwrap_or(u16::MAX)
    }

    /// How many requests were sent to the candidates before this rank; 0 where that does not matter.
    pub(super) fn sent_before(&self, rank: usize, rules: &LookupRules) -> usize {
        if rules.region.is_none() {
            return 0;
        }
        self.candidates.iter().take(rank).map(|candidate| usize::from(candidate.tries)).sum()
    }

    /// How many requests were sent to candidates of the region: as some of the nearest, and in all.
    pub(super) fn sent_within(&self, region: &Region) -> (usize, usize) {
        let within =
            self.candidates.iter().take_while(|candidate| candidate.distance_prefix <= region.reach(0));
        (self.sent_as_nearest.into(), within.map(|candidate| usize::from(candidate.tries)).sum())
    }

    /// Whether hardly any node of the region has answered, though those beyond were asked about it: most that are named there are
    /// made up.
    pub(super) fn is_flooded(&self, region: &Region, rules: &LookupRules) -> bool {
        let wanted = most_beyond(rules);
        if wanted == 0 || u16::from(self.asked_beyond) < wanted {
            return false;
        }
        let within =
            self.candidates.iter().take_while(|candidate| candidate.distance_prefix <= region.reach(0));
        within.filter(|candidate| candidate.state.has_answered()).count() < usize::from(rules.k / 2)
    }

    /// The rank of the k-th closest candidate that has not failed.
    pub(super) fn nearest_known(&self, k: u16) -> Option<usize> {
        let mut known = (0..).zip(&self.candidates).filter(|(_, candidate)| candidate.state != State::Failed);
        known.nth(usize::from(k).checked_sub(1)?).map(|(rank, _)| rank)
    }

    /// The rank of the last of the nearest, whose requests are spent: the k-th closest that has not failed. Where fewer are known, all
    /// of the region are the nearest, so it is the last of these. `None` if nobody is known there.
    pub(super) fn spent_edge(&self, rules: &LookupRules) -> Option<usize> {
        let last_within = || {
            let reach = rules.region?.reach(0);
            self.candidates.partition_point(|candidate| candidate.distance_prefix <= reach).checked_sub(1)
        };
        self.nearest_known(rules.k).or_else(last_within)
    }

    /// The same as [`region_step`](Self::region_step) while the nearest are waited for: from when on k nodes are known about as near
    /// as the region reaches, and some of them were asked long enough to have told who else is there.
    pub(super) fn region_step_meanwhile(
        &mut self,
        at_limit: bool,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let region = rules.region?;
        if self.num_asked() < usize::from(rules.alpha) {
            return None;
        }
        let edge = self.nearest_known(rules.k)?;
        let kth = self.candidates.get(edge)?.distance_prefix;
        if kth > region.much_farther(0) / 2 {
            return None;
        }
        let was_asked = |it: &&Candidate| it.tries > 0 && it.state != State::Waiting;
        let asked = self.candidates.iter().take(edge + 1).filter(was_asked).count();
        // Where nobody is slow, half of them tell of others soon.
        let wanted = if self.edge_unsure { rules.alpha.min(rules.k) } else { rules.k.div_ceil(2) };
        if asked < usize::from(wanted) {
            return None;
        }
        if kth >= region.reach(kth) {
            // No others of the region are known, so there are no slots for them.
            let is_full = self.num_waiting >= rules.wide();
            return self.question_from_beyond(&region, kth, (is_full, at_limit), rules);
        }
        self.region_step(edge, at_limit, rules)
    }

    /// The next step towards the nodes of the region, once the k closest have answered, of which the last has this rank.
    /// `None` if there is nothing left to do. `at_limit`: no candidate may be asked that was not asked before.
    pub(super) fn region_step(
        &mut self,
        edge: usize,
        at_limit: bool,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let region = rules.region?;
        let kth = self.candidates.get(edge)?.distance_prefix;
        let reach = region.reach(kth);
        self.region_from = kth;
        let wide = rules.wide();
        let is_full = self.waiting_in_region() >= wide || self.num_waiting >= wide.saturating_mul(2);
        if let Some(step) = self.question_from_beyond(&region, kth, (is_full, at_limit), rules) {
            return Some(step);
        }
        if kth >= reach {
            return None;
        }
        let others =
            edge + 1..self.candidates.partition_point(|candidate| candidate.distance_prefix <= reach);
        let within = self.candidates.get(others.clone()).unwrap_or_default();
        let asked = usize::from(self.region_asked);
        let sent: usize = within.iter().map(|candidate| usize::from(candidate.tries)).sum();
        let all = self.sent_before(others.end, rules);
        let is_refuted = region.is_refuted_by(kth);
        let is_spent = !region.may_ask_others(sent, all);
        let may_ask = !at_limit && asked < region.most_others();
        let distances = within.iter().map(|candidate| candidate.distance_prefix);
        let live = |index: usize| within.get(index).is_some_and(|candidate| candidate.state != State::Failed);
        let (places, distances): (SmallVec<[usize; 128]>, SmallVec<[u64; 128]>) =
            (0..).zip(distances).filter(|(index, _)| live(*index)).unzip();
        let group = |index: usize| {
            let candidate = within.get(*places.get(index)?)?;
            F::group(&self.contacts.get(usize::from(candidate.slot))?.node)
        };
        let picked = region.pick(&distances, group, rules.max_per_group);
        let picked = || {
            let of = places.iter().zip(&picked).filter(|(_, picked)| **picked).map(|(index, _)| *index);
            of.rev().filter_map(|index| Some((others.start + index, within.get(index)?)))
        };
        let may = |candidate: &Candidate| {
            matches!(candidate.state, State::Heard | State::Missed)
                && !is_spent
                && (may_ask || candidate.tries > 0)
        };
        let is_open = |candidate: &Candidate| {
            matches!(candidate.state, State::Waiting | State::Slow | State::Late | State::AskedAgain)
        };
        let (mut ask, mut waits, mut part_asked) = (None, false, 0);
        let parts = region.parts(reach);
        let range = |len: u8| {
            let block = Block::part(len);
            (block, block.first.max(kth.saturating_add(1))..=block.last().min(reach))
        };
        for (number, len) in (1_u32..).zip(parts.clone()) {
            let (block, span) = range(len);
            if span.is_empty() {
                continue;
            }
            let here = || picked().filter(|(_, it)| span.contains(&it.distance_prefix));
            // At first half of all for the outermost part, a quarter for the next, and so on.
            let share = region.most_others().checked_shr(number).unwrap_or(0);
            let so_far =
                within.iter().filter(|it| it.tries > 0 && span.contains(&it.distance_prefix)).count();
            // Where more are known than an answer names, each is asked about a piece of the part, in which it lies.
            let known = within.iter().filter(|it| span.contains(&it.distance_prefix)).count();
            let piece_len = piece_len::<F>(len, known, rules.answer_size);
            let may_now = |it: &Candidate| may(it) && (so_far < share || it.tries > 0);
            let about = |it: &Candidate| rules.finds.then(|| Block::around(it.distance_prefix, piece_len));
            ask = here().find(|(_, it)| may_now(it)).map(|(rank, it)| (rank, about(it), false));
            if ask.is_some() {
                break;
            }
            let is_asked = |it: &Candidate| it.state.is_waiting() && it.is_asked_about(piece_len);
            if here().any(|(_, it)| is_open(it)) || self.candidates.iter().any(is_asked) {
                waits = true;
            } else if let Some(gap) = self.gap_within(&span)
                && self.questions(len) < most_questions::<F>(is_refuted, piece_len - len)
                && !is_spent
            {
                let piece = if piece_len > len { Block::around(gap, piece_len) } else { block };
                ask = self.ask_about(piece, at_limit, reach, rules).map(|rank| (rank, Some(piece), true));
                if ask.is_some() {
                    part_asked = len;
                    break;
                }
            }
        }
        if ask.is_none() && !waits {
            // What is left is for all.
            ask = parts.clone().find_map(|len| {
                let (block, span) = range(len);
                let left = picked().find(|(_, it)| span.contains(&it.distance_prefix) && may(it));
                left.map(|(rank, _)| (rank, rules.finds.then_some(block), false))
            });
        }
        if ask.is_none() && !waits {
            let innermost = 1_u64.checked_shl(65 - u32::from(parts.end)).unwrap_or(0);
            let core = || picked().filter(|(_, it)| it.distance_prefix < innermost);
            ask = core().find(|(_, it)| may(it)).map(|(rank, _)| (rank, None, false));
            waits = core().any(|(_, it)| is_open(it));
        }
        if let Some((rank, block, edge_probe)) = ask.filter(|_| !is_full) {
            (self.asks_in_region, self.part_asked) = (!edge_probe, part_asked);
            return Some(CandidateStep::Ask { rank, block, edge_probe });
        }
        (waits || ask.is_some()).then_some(CandidateStep::Wait)
    }

    /// Some that are [much farther](Region::much_farther) than the region, and than the k closest, of which the last is at the distance
    /// `kth`, are asked about the outermost part: those who are near may name each other only, at plausible distances. The nearest
    /// of them, which know the most others there, but each [apart](APART) from the others.
    fn question_from_beyond(
        &mut self,
        region: &Region,
        kth: u64,
        (is_full, at_limit): (bool, bool),
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let reach = region.reach(kth);
        let (len, beyond) = (region.parts(reach).start, reach.max(kth));
        let block = Block::part(len);
        let is_counted = self.questions(len) < Self::MAX_COUNTED;
        let is_possible = self.elsewhere == Elsewhere::Possible && self.edge_probes < u16::MAX && is_counted;
        // Where hardly anybody was found there, those who were asked so far may have kept the others back: more are asked, from
        // just beyond the region on.
        let is_deserted = region.is_deserted_by(kth);
        let most = most_beyond(rules) * if is_deserted { TIMES_WHERE_DESERTED } else { 1 };
        let is_left = is_deserted || u16::from(self.asked_beyond) < most;
        if is_possible && is_left {
            let far = region.much_farther(if is_deserted { 0 } else { beyond });
            let from = self.candidates.partition_point(|candidate| candidate.distance_prefix <= far);
            let mut others = (from..).zip(self.candidates.get(from..).unwrap_or_default());
            let beyond = || self.candidates.get(from..).unwrap_or_default().iter();
            let asked: SmallVec<[u64; 4]> =
                beyond().filter(|it| it.is_asked_about(len)).map(|it| it.distance_prefix).collect();
            let is_apart = |at: u64| asked.iter().all(|other| at ^ other >= at / APART);
            let may = |it: &Candidate| {
                (it.may_be_asked_again(rules) || it.state == State::Heard && !at_limit)
                    && is_apart(it.distance_prefix)
            };
            if asked.len() < usize::from(most)
                && let Some((rank, _)) = others.find(|(_, it)| may(it))
            {
                self.part_asked = len;
                let ask = CandidateStep::Ask { rank, block: Some(block), edge_probe: true };
                return Some(if is_full { CandidateStep::Wait } else { ask });
            }
        }
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix <= beyond);
        let mut others = self.candidates.get(from..).unwrap_or_default().iter();
        let is_asked = |it: &Candidate| it.state.is_waiting() && it.is_asked_about(len);
        others.any(is_asked).then_some(CandidateStep::Wait)
    }

    /// The first distance of this range of which no answer has told; `None` if there is none.
    fn gap_within(&self, span: &core::ops::RangeInclusive<u64>) -> Option<u64> {
        let Some(told) = self.coverage.end_at(*span.start()) else { return Some(*span.start()) };
        told.checked_add(1).filter(|gap| gap <= span.end())
    }

    /// Whom to ask about a part, or a piece of it: one in it, or else one farther out, that has answered; else one beyond the region
    /// that was not asked.
    fn ask_about(&self, block: Block, at_limit: bool, reach: u64, rules: &LookupRules) -> Option<usize> {
        if self.edge_probes == u16::MAX {
            return None; // nobody can be asked about another point than the target
        }
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix < block.first);
        let mut outward = (from..).zip(self.candidates.get(from..).unwrap_or_default());
        let mut others = outward.clone();
        let can = |it: &Candidate| {
            it.may_be_asked_again(rules)
                && !it.is_asked_about(block.len)
                && (self.elsewhere == Elsewhere::Possible || it.distance_prefix <= block.last())
        };
        let again = outward.find(|(_, candidate)| can(candidate));
        let is_new = |it: &Candidate| it.state == State::Heard && it.distance_prefix > reach;
        let new = || {
            let may = !at_limit && self.elsewhere == Elsewhere::Possible;
            others.find(|(_, candidate)| may && is_new(candidate))
        };
        again.or_else(new).map(|(rank, _)| rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::purpose::CandidateRef;
    use crate::vocabulary::family::{AnswerScope, Plain};
    use crate::vocabulary::region::KnownSize;
    use crate::{Key8, QueryConfig};

    /// Of a search in a network of 31 nodes: four of them are within the first eighth of the key space.
    fn rules() -> LookupRules {
        let config = QueryConfig { k: 4, ..QueryConfig::default() };
        config.rules_for(None, false, AnswerScope::Closest(4), Some(KnownSize::hint(31)))
    }

    /// Candidates of the key 0 at these keys.
    fn list(keys: &[u8]) -> CandidateList<Plain> {
        let mut list = CandidateList::with_capacity(keys.len());
        for (rank, key) in keys.iter().enumerate() {
            let candidate = Candidate::new(Key8::new([*key]).leading());
            assert!(list.insert(rank, candidate, || Key8::new([*key]), (1, None), &rules()));
        }
        list
    }

    /// Each names one that is a little nearer than all before, so that hardly any are nearer than the one that is asked.
    #[test]
    fn whoever_names_one_a_little_nearer_each_time_is_asked_a_bounded_number_of_times() {
        for (k, region_bound) in [(1, 1), (1, 2), (2, 1), (2, 4)] {
            let config = QueryConfig { k, region_bound, max_nodes: 250, ..QueryConfig::default() };
            let rules =
                config.rules_for(None, false, AnswerScope::Closest(4), Some(KnownSize::hint(3 * k as u64)));
            let reach = rules.region.unwrap().reach(0);
            let local = crate::vocabulary::local_node::LocalNode::new(Key8::new([255]));
            let mut lookup = crate::lookups::lookup::Lookup::<Plain>::new(
                &local,
                Key8::new([0]),
                rules,
                vec![Key8::new([254])],
            );
            lookup.begin();
            let (mut nearest, mut within) = (254, 0);
            let now = crate::Instant::ORIGIN;
            while let crate::lookups::lookup::LookupStep::Ask { candidate, node, .. } =
                lookup.next_of_seeds(now)
            {
                within += usize::from(node.leading() <= reach);
                nearest = (nearest - 1).max(1);
                lookup.answered(candidate, core::time::Duration::ZERO, &[Key8::new([nearest])], None);
            }
            let most = k * (2 * region_bound + 2) + 8;
            assert!((most / 2..=most).contains(&within), "k {k}, bound {region_bound}: {within} of {most}");
        }
    }

    fn at(list: &CandidateList<Plain>, rank: usize) -> CandidateRef {
        let Candidate { slot, distance_prefix, .. } = list.candidates[rank];
        CandidateRef { path: 0, slot, distance_prefix, block: None, edge_probe: true }
    }

    #[test]
    fn no_more_questions_are_asked_than_are_counted_and_one_that_was_not_is_not_reverted() {
        for more_bits in 0..=64 {
            for is_refuted in [false, true] {
                let most = most_questions::<Plain>(is_refuted, more_bits);
                assert!(most <= CandidateList::<Plain>::MAX_COUNTED, "{most} of {more_bits}");
            }
        }
        assert_eq!((most_questions::<Plain>(false, 0), most_questions::<Plain>(true, 1)), (2, 6));
        let keys: Vec<u8> = (100..120).collect();
        let (mut list, part) = (list(&keys), 4);
        for rank in 0..keys.len() {
            list.part_asked = part;
            let before = (list.questions(part), list.asked_beyond);
            list.ask(rank, Some(Block::part(part)), true);
            assert_eq!(usize::from(list.questions(part)), (rank + 1).min(15));
            let reference = at(&list, rank);
            list.undo_ask(reference);
            assert_eq!((list.questions(part), list.asked_beyond), before, "as before {rank} was asked");
            list.part_asked = part;
            list.ask(rank, Some(Block::part(part)), true);
        }
        assert_eq!((list.questions(part - 1), list.questions(part + 1)), (0, 0), "each part has its own");
        list.insert(20, Candidate::new(u64::MAX), || Key8::new([0xff]), (1, None), &rules());
        list.asked_beyond = 0;
        let region = rules().region.unwrap();
        let outermost = |kth| region.parts(region.reach(kth)).start;
        let (near, far) = (1, u64::MAX >> 4);
        assert_eq!(
            (outermost(near), outermost(far)),
            (part - 1, part),
            "wider where the k closest are too near"
        );
        let mut from_beyond =
            |kth| list.question_from_beyond(&region, kth, (false, false), &LookupRules { k: 8, ..rules() });
        assert!(matches!(from_beyond(near), Some(CandidateStep::Ask { .. })));
        assert!(!matches!(from_beyond(far), Some(CandidateStep::Ask { .. })), "it would not be counted");
    }

    #[test]
    fn where_the_requests_to_the_nearest_are_spent_and_few_are_known_all_of_the_region_are_the_nearest() {
        let known = list(&[1, 2, 3, 0x40, 0x80]);
        assert_eq!(known.spent_edge(&rules()), Some(3), "the k-th");
        let mut few = list(&[1, 2, 3, 0xc0]);
        few.mark_failed(0);
        assert_eq!(few.spent_edge(&rules()), Some(2), "the last of the region, not the first of all");
        assert_eq!(list(&[0xc0]).spent_edge(&rules()), None, "nobody");
        // Somebody beyond the region is still asked who else is there.
        let step = few.region_step(2, false, &LookupRules { k: 8, ..rules() });
        assert!(matches!(step, Some(CandidateStep::Ask { rank: 3, block: Some(_), edge_probe: true })));
    }

    /// Some of these may be a crowd that names only each other.
    #[test]
    fn those_beyond_are_asked_apart_from_each_other_and_more_of_them_where_the_region_is_deserted() {
        let rules = LookupRules { k: 18, ..rules() };
        let region = rules.region.unwrap();
        // A crowd at 0x90; the region reaches to 0x20, so that 0x70 is not much farther.
        let mut list = list(&[1, 0x70, 0x90, 0x91, 0x92, 0xa8, 0xd0, 0xef]);
        let mut ask = |kth: u64| {
            let mut asked = Vec::new();
            while let Some(CandidateStep::Ask { rank, block, edge_probe }) =
                list.question_from_beyond(&region, kth << 56, (false, false), &rules)
            {
                list.ask(rank, block, edge_probe);
                asked.push(list.candidates[rank].distance_prefix.to_be_bytes()[0]);
            }
            let waits = list.question_from_beyond(&region, kth << 56, (false, false), &rules);
            assert!(matches!(waits, Some(CandidateStep::Wait)), "they are waited for");
            asked
        };
        assert_eq!(ask(0x1f), [0x90, 0xa8, 0xd0]);
        assert_eq!(ask(0x3f), [0; 0], "three are enough where the k closest are not too far");
        assert_eq!(ask(0x42), [0xef]);
    }

    /// The others of the region are not there to use their part of the requests.
    #[test]
    fn where_hardly_anybody_of_the_region_answers_the_nearest_may_use_the_requests_of_the_others() {
        let rules = LookupRules { k: 6, ..rules() };
        let region = rules.region.unwrap();
        let mut list = list(&[1, 2, 3, 4, 0x90]);
        assert!(!list.is_flooded(&region, &rules), "nobody beyond was asked");
        let few = LookupRules { k: 4, ..rules };
        assert!(!list.is_flooded(&region, &few), "nobody beyond is asked for so few");
        list.asked_beyond = 1;
        assert!(list.is_flooded(&region, &rules));
        for rank in 0..3 {
            assert!(list.is_flooded(&region, &rules), "{rank} have answered");
            list.candidates[rank].state = State::Answered;
        }
        assert!(!list.is_flooded(&region, &rules));
        // The region is of k = 4 and the bound 4: 6k + 8 for the nearest, and 4k for others.
        let may_ask =
            |sent, to_all, is_flooded| region.may_ask(region.reach(0), sent, (sent, to_all), 4, is_flooded);
        assert!(may_ask(31, 47, false) && !may_ask(32, 47, false) && !may_ask(31, 48, false));
        assert!(may_ask(47, 47, true) && !may_ask(48, 48, true), "never more than 10k + 8 in all");
    }
}
