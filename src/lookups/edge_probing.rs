//! Edge probing: a lookup also asks about keys next to its target, once a node was silent, or if it looks for more
//! nodes than an answer names, or if answers name whole buckets.
//!
//! Why: a node answers with the n closest nodes that it knows, dead or alive. If some of these are dead, or if n is less
//! than k, the k closest live nodes are farther away than the nodes in any such answer. So the nodes at the edge of the
//! neighbourhood are never named, however often nodes are asked about the same key.
//!
//! How: a *block* is a subtree that does not hold the target. Its nodes have the same order of distance from its point that
//! is nearest to the target as from the target itself. Nodes farther out (from rank n/2) are asked about that point of a
//! block in which they lie; they know it well. [`Coverage`](crate::lookups::coverage) says up to where the answers have told
//! all nodes, and where there are gaps. Before the path converges, it asks a node in each block that lies in a gap, up to
//! the k-th closest live node. The number of extra nodes that it asks for this is bounded, and grows with the number of
//! silent nodes: see [`max_edge_probes`](CandidateList::max_edge_probes). If gaps are left, the lookup is not sure of its
//! end.
//!
//! A block is to hold three fifths of the nodes that an answer names, by the density of nodes near the target; then one
//! answer covers it. How many an answer names is what the [family](crate::Family::answers) says, or the most that
//! the answers have named, if that is less.
//!
//! Who is asked about a block does not tell of the target. So where many more of the nearest are silent than have answered, the others
//! are asked about the target, as if nobody had told of it; and before the path converges, two thirds of the k closest must have
//! been asked about it, if necessary again. Otherwise a few liars, nearer to the target than all others that this node knew before,
//! would be the only ones to tell of it, and could name nodes that do not exist.
//!
//! Liars: an answer covers nothing unless the node that gives it lies within the range that it covers; and it covers no more than
//! the range in which as many candidates are known as it names, for there an honest one would have named those. What is
//! covered wrongly costs edge probes, not nodes that answer about the target.
//!
//! Where nobody in a block can be asked, because nobody there is known or all are silent, somebody else is asked about it: first
//! again one of the few that have answered and are nearest to it, for these are known to live and to know its nodes best,
//! whereas of those not asked so far a share is dead; then one that was not asked. One that lies within reach of the target may
//! tell that the block is empty. Nodes asked again are no new ones, so this goes on at the limit of nodes; but each counts as
//! an extra one.
//!
//! Where the wire format cannot ask about that point, [something near it](crate::Family::target_near) is asked about; that
//! covers the block only if the answer goes beyond it. Where that cannot be asked either, a node can be asked about itself: one
//! in the block, again if it has answered about the target; or one beyond about the target, to name somebody in the block.
//! Where answers name buckets, the answer of a node covers its block.

use crate::lookups::candidates::{Candidate, CandidateList, Elsewhere, State};
use crate::lookups::next_candidate::{CandidateStep, StepLimits};
use crate::lookups::rules::LookupRules;
use crate::requests::purpose::Block;
use crate::requests::purpose::CandidateRef;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;

/// Extra nodes that a path asks at most for edge probing, for as many nodes as an answer names; and half as many more as nodes
/// within the neighbourhood are silent, or all of these but twice this number.
const MAX_EDGE_PROBES: usize = 4;

/// So many times as many of the nearest as answer may be silent where the others are asked about their blocks.
const MAX_SILENT: usize = 4;

/// So many where the answers about the target are believed, though few of those who answered were asked about it.
const MAX_SILENT_AT_END: usize = 2;

/// For each so many named ones that are silent, one more silent other is asked about the target.
const SILENT_FOR_OTHER: u16 = 8;

/// So many of the candidates that have answered and are nearest to a gap are asked again about it, if need be.
const MAX_ASKED_AGAIN: usize = 3;

/// A survey of the gaps ends after as many blocks: near the target, made-up nodes may lie so densely that blocks are tiny.
const MAX_BLOCKS: usize = 64;

/// What a survey of the gaps found.
#[derive(Clone, Copy, Debug, Default)]
struct Survey {
    /// The rank of a candidate in the nearest gap where one can be asked, and its block.
    ask: Option<(usize, Block)>,
    /// The nearest gap where none can be asked.
    unknown: Option<Block>,
    /// The nearest of these that a candidate can be asked about that has answered before; its rank and the block.
    again: Option<(usize, Block)>,
    /// Somebody has been asked about a gap.
    is_pending: bool,
    /// There is a gap.
    has_gap: bool,
}

/// See [`CandidateList::teller`].
#[derive(Clone, Copy, Debug)]
enum Teller {
    /// The candidate of this rank is asked.
    Ask(usize),
    /// Those that have been asked have not answered yet.
    Pending,
}

impl<F: Family> CandidateList<F> {
    /// Whether the edge of the neighbourhood is probed: answers may not have told all of the k closest live nodes.
    pub(super) fn probes_edge(&self, rules: &LookupRules) -> bool {
        rules.edge_probing && (self.edge_unsure || self.are_answers_short(rules))
    }

    /// Whether an answer names fewer nodes than the lookup searches for, or a bucket: then it leaves some out.
    pub(super) fn are_answers_short(&self, rules: &LookupRules) -> bool {
        rules.names_buckets || self.answer_size(rules) < rules.k
    }

    /// How many nodes an answer names, as far as is known.
    fn answer_size(&self, rules: &LookupRules) -> u16 {
        if self.most_named == 0 { rules.answer_size } else { rules.answer_size.min(self.most_named) }
    }

    /// The block whose point this candidate is asked about, if the edge is probed and the candidate is in the outer half of
    /// what an answer about the target can name. Not before [enough of the nearer](Self::is_told_of) have answered: so long, its
    /// rank says nothing of how near it is.
    pub(super) fn block_of(&self, rank: usize, candidate: &Candidate, rules: &LookupRules) -> Option<Block> {
        let outer = usize::from(self.answer_size(rules) / 2);
        let is_outer = self.probes_edge(rules) && rank >= outer && self.answers > 0;
        (is_outer && self.is_told_of(rank, outer)).then(|| {
            let at = candidate.distance_prefix;
            Block::around(at, self.block_len(at, rules))
        })
    }

    /// Whether the answers have told of the nodes up to this rank: some have answered, and not many more are silent. A few liars
    /// can name any number that do not exist. Then the others are to tell of the target, too, as what these have told of it is
    /// worth nothing.
    fn is_told_of(&self, rank: usize, outer: usize) -> bool {
        let (mut answered, mut silent) = (0, 0);
        for candidate in self.candidates.iter().take(rank) {
            answered += usize::from(candidate.state.has_answered());
            silent += usize::from(candidate.is_silent());
        }
        answered > 0 && (silent < outer || silent <= MAX_SILENT * answered)
    }

    /// How many bits the distances of a block have in common that holds this distance: few enough that the block holds as
    /// many nodes as an answer can tell.
    fn block_len(&self, at: u64, rules: &LookupRules) -> u8 {
        let subtree = subtree_len::<F>(at);
        let Some(reach) = self.coverage.end_at(0).filter(|reach| *reach < at && !rules.names_buckets) else {
            return subtree;
        };
        let known = self.candidates.partition_point(|candidate| candidate.distance_prefix <= reach);
        let wanted = u64::from((self.answer_size(rules) * 3 / 5).max(1));
        let size = (reach / (known as u64).max(1)).saturating_mul(wanted).max(1);
        subtree_len::<F>(size).max(subtree)
    }

    /// The largest block around this distance of which at most half lies before it, and that no node in it has answered
    /// about.
    fn block_in_gap(&self, at: u64, rules: &LookupRules) -> Block {
        let mut len = self.block_len(at, rules);
        loop {
            let block = Block::around(at, len);
            let asked =
                |candidate: &Candidate| candidate.state == State::Answered && candidate.block_len == len;
            let is_known =
                at - block.first > Block::rest(len) / 2 || self.within(block).any(|(_, it)| asked(it));
            if !is_known || len >= max_len::<F>() {
                return block;
            }
            len += 1;
        }
    }

    /// The candidates in a block, with their ranks.
    fn within(&self, block: Block) -> impl Iterator<Item = (usize, &Candidate)> {
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix < block.first);
        let here = (from..).zip(self.candidates.get(from..).unwrap_or_default());
        here.take_while(move |(_, candidate)| candidate.distance_prefix <= block.last())
    }

    /// The candidate has answered, and named so many nodes: the first and the last are at these distances from the target.
    /// `is_exact`: it was asked about the point of its block, not about something near it.
    pub(crate) fn cover(
        &mut self,
        at: CandidateRef,
        named: usize,
        (first, last): (u64, u64),
        is_exact: bool,
        rules: &LookupRules,
    ) {
        self.most_named = self.most_named.max(u16::try_from(named).unwrap_or(u16::MAX));
        // The target's own block is the whole key space.
        let block = at.block.unwrap_or(Block::ALL);
        let (own, reach) = (at.distance_prefix ^ block.first, last ^ block.first);
        let whole = Block::rest(block.len);
        if rules.names_buckets {
            if at.block.is_some() && own <= whole {
                self.coverage.add(block.first, block.last());
            }
            return;
        }
        if 2 * named < usize::from(self.answer_size(rules)) || !is_exact && reach < whole {
            return;
        }
        if own > whole && first ^ block.first > whole {
            let is_near = self.coverage.end_at(0).is_some_and(|reach| at.distance_prefix <= reach);
            if is_near {
                // It knows nobody there.
                self.coverage.add(block.first, block.last());
            }
        }
        let claimed = block.first.saturating_add(reach.min(whole));
        if own > reach || self.coverage.end_at(block.first).is_some_and(|end| end >= claimed) {
            return;
        }
        let before = self.candidates.partition_point(|candidate| candidate.distance_prefix < block.first);
        // It does not name itself.
        let beyond =
            self.candidates.get(before + named + 1).map_or(u64::MAX, |candidate| candidate.distance_prefix);
        let last = claimed.min(beyond.saturating_sub(1));
        // Where candidates cannot be told apart by their prefixes, there may be more of them.
        let alike = self.candidates.partition_point(|candidate| candidate.distance_prefix <= last)
            - self.candidates.partition_point(|candidate| candidate.distance_prefix < last);
        if let Some(last) = if alike > 1 { last.checked_sub(1) } else { Some(last) } {
            self.coverage.add(block.first, last);
        }
    }

    /// How many extra nodes the path may ask to explore the edge, which has this rank: the more candidates within it are
    /// silent or have failed, the farther away it is.
    fn max_edge_probes(&self, edge: usize, rules: &LookupRules) -> usize {
        let nearer = self.candidates.iter().take(edge);
        let silent = nearer.filter(|candidate| !candidate.state.has_answered()).count();
        let answers = usize::from(rules.k.div_ceil(self.answer_size(rules).max(1)));
        MAX_EDGE_PROBES * answers + (silent / 2).max(silent.saturating_sub(2 * MAX_EDGE_PROBES))
    }

    /// Before convergence: the next step needed to explore the gaps up to the k-th closest live candidate, whose rank is
    /// `edge`. `None` if there are none, or if no more may be asked: the slots are full, or the bound of extra nodes is
    /// reached. `at_limit`: no candidate may be asked that was not asked before.
    pub(super) fn edge_probe(
        &self,
        edge: usize,
        slots_full: bool,
        at_limit: bool,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let may_probe = !slots_full && usize::from(self.edge_probes) < self.max_edge_probes(edge, rules);
        match self.teller(edge, rules) {
            Some(Teller::Ask(rank)) if may_probe => {
                return Some(CandidateStep::Ask { rank, block: None, edge_probe: true });
            }
            Some(Teller::Pending) => return Some(CandidateStep::Wait),
            _ => {}
        }
        let survey = self.survey(edge, rules);
        let is_asked_elsewhere = |other: &Candidate| other.state.is_waiting() && other.asks_elsewhere();
        let is_asking_elsewhere = || self.candidates.iter().any(is_asked_elsewhere);
        if may_probe {
            let unknown = || survey.unknown.filter(|_| !at_limit).and_then(|block| self.ask_elsewhere(block));
            let again = || survey.again.map(|(rank, block)| (rank, Some(block))).or_else(unknown);
            let elsewhere = || if is_asking_elsewhere() { None } else { again() };
            let inside = survey.ask.filter(|_| !at_limit).map(|(rank, block)| (rank, Some(block)));
            if let Some((rank, block)) = inside.or_else(elsewhere) {
                return Some(CandidateStep::Ask { rank, block, edge_probe: true });
            }
        }
        let waits = survey.is_pending || survey.has_gap && is_asking_elsewhere();
        waits.then_some(CandidateStep::Wait)
    }

    /// Who is to tell of the target, besides those that have. Where many more of the nearest were silent than have answered, they may
    /// be made up, by liars who alone were asked about the target: the others were asked about their blocks. So two thirds of
    /// the k closest that have answered are to have been asked about the target itself.
    fn teller(&self, edge: usize, rules: &LookupRules) -> Option<Teller> {
        if rules.names_buckets || self.elsewhere == Elsewhere::Impossible {
            return None;
        }
        let outer = usize::from(self.answer_size(rules) / 2).max(1);
        let (mut answered, mut told, mut silent) = (0, 0, 0);
        let (mut is_doubtful, mut is_pending, mut teller) = (false, false, None);
        for (rank, candidate) in self.candidates.iter().enumerate().take(edge + 1) {
            if candidate.state.has_answered() {
                answered += 1;
                if candidate.was_asked_about_target() {
                    told += 1;
                    is_pending |= candidate.state == State::AskedAgain && candidate.is_asked_about(0);
                } else if teller.is_none() && candidate.may_be_asked_again(rules) {
                    teller = Some(Teller::Ask(rank));
                }
            } else if candidate.is_silent() {
                silent += 1;
                is_doubtful |= silent >= outer && silent > MAX_SILENT_AT_END * answered;
            }
        }
        if is_doubtful && 3 * told < 2 * answered && teller.is_some() {
            return teller;
        }
        (is_doubtful && is_pending).then_some(Teller::Pending)
    }

    /// Where some of the nearest were put off, since those who have named them are [doubted](crate::lookups::credit), or most that were
    /// named are silent: the next step towards others who tell of the target. They lie beyond the k closest, whose last has this
    /// rank: candidates that [may replace](crate::lookups::credit::Credit::may_replace_doubted) those put off, and those not doubted
    /// that have answered about a block of their own. If there are none, more nodes to begin with are wanted.
    ///
    /// So many are asked until half as many [named ones](crate::lookups::credit::Credit::num_nearer) have answered as an answer names, but
    /// not more than it names (several paths share that number), nor when `alpha`, and one for each eight named ones that are silent, more
    /// of them are silent than have answered: then nobody is made up, and all are slow or have gone. Without a region not more than
    /// these, until somebody has answered whom one of them was the first to name: else all are known already. Those in the region count
    /// towards what may be sent to its nearest.
    ///
    /// Before the first of them is asked, and as long as one of them may answer, the path waits where the nodes made up can use up what may
    /// be sent to a [region](crate::lookups::region), and nobody that was named has answered. Several paths do not wait: meanwhile the
    /// others would spend the nodes that they share.
    pub(super) fn ask_others_than_doubted(
        &mut self,
        edge: usize,
        slots_full: bool,
        limits: StepLimits,
        rules: &LookupRules,
    ) -> Option<CandidateStep> {
        let wanted = self.answer_size(rules).min(rules.k).div_ceil(2);
        let may_be_spent = rules.region.is_some() && self.credit.is_flood() && self.credit.has_no_answer();
        let (mut asked, mut silent, mut answered, mut are_fruitful) = (0, 0, 0, false);
        for other in self.candidates.iter().filter(|it| it.marks & Candidate::OTHER != 0) {
            asked += 1;
            silent += u16::from(!other.state.has_answered() && !other.state.is_waiting());
            answered += u16::from(other.state.has_answered());
            are_fruitful |= self.credit.is_confirmed(other.slot);
        }
        let most = self.answer_size(rules).min(rules.k).div_ceil(rules.paths);
        let doubt = rules.alpha + self.credit.num_silent() / SILENT_FOR_OTHER;
        let are_enough = rules.region.is_none() && !are_fruitful && asked >= doubt;
        let is_left = asked < most && silent < answered + doubt && !are_enough;
        let is_open = asked == 0 || asked > silent + answered;
        if may_be_spent && is_open && rules.paths == 1 && self.num_waiting > self.waiting_in_region() {
            return Some(CandidateStep::Wait);
        }
        let may_ask = !limits.at_limit && !slots_full && is_left;
        if self.credit.num_nearer() >= wanted || !may_ask {
            return None;
        }
        let can_ask_again = !rules.names_buckets && self.elsewhere != Elsewhere::Impossible;
        let may_ask_again = |it: &Candidate| {
            !it.was_asked_about_target() && it.may_be_asked_again(rules) && !self.credit.is_doubted(it.slot)
        };
        let is_other = |it: &Candidate| match it.state {
            State::Heard => self.credit.may_replace_doubted(it.slot),
            _ => can_ask_again && may_ask_again(it),
        };
        // In the region they are bounded as its nearest are.
        let within =
            rules.region.map(|region| (region, self.sent_within(&region), self.is_flooded(&region, rules)));
        let is_allowed = |rank: usize, it: &Candidate| {
            within.is_none_or(|(region, sent, is_flooded)| {
                let up_to = self.sent_before(rank + 1, rules);
                region.may_ask(it.distance_prefix, up_to, sent, rules.k, is_flooded)
            })
        };
        let mut others = self.candidates.iter().enumerate().skip(edge + 1);
        if let Some((rank, other)) = others.find(|(rank, it)| is_other(it) && is_allowed(*rank, it)) {
            let edge_probe = other.state != State::Heard;
            self.asks_other = true;
            return Some(CandidateStep::Ask { rank, block: None, edge_probe });
        }
        let wants_seeds = limits.has_seeds && (asked == 0 || answered > 0 || may_be_spent);
        wants_seeds.then_some(CandidateStep::Exhausted)
    }

    /// A candidate that was not asked, to tell of a block in which there is none; with what it is asked about.
    fn ask_elsewhere(&self, block: Block) -> Option<(usize, Option<Block>)> {
        if self.elsewhere == Elsewhere::Impossible {
            let nearby = self.heard_nearby(block).map(|(rank, wider)| (rank, Some(wider)));
            return nearby.or_else(|| Some((self.heard_beyond(block)?, None)));
        }
        let rank = self.candidates.iter().position(|candidate| candidate.state == State::Heard)?;
        Some((rank, Some(block)))
    }

    /// A candidate that has answered, to be asked again about a block in which nobody else can be asked: one that lies there,
    /// or one of the few that are nearest to it. It is known to live.
    fn ask_again(&self, block: Block, rules: &LookupRules) -> Option<usize> {
        // Of buckets, that of a node tells its own block, and hardly anything else.
        if self.elsewhere == Elsewhere::Impossible || rules.names_buckets {
            let mut own = self.within(block).filter(|(_, it)| it.may_be_asked_about_its_own(rules));
            return own.next().map(|(rank, _)| rank);
        }
        let mut nearest = [(u64::MAX, usize::MAX); MAX_ASKED_AGAIN];
        for (rank, candidate) in self.candidates.iter().enumerate() {
            if candidate.state.has_answered() {
                let mut farther = (candidate.distance_prefix ^ block.first, rank);
                for place in &mut nearest {
                    let nearer = farther.min(*place);
                    farther = farther.max(core::mem::replace(place, nearer));
                }
            }
        }
        let may = |candidate: &Candidate| {
            candidate.may_be_asked_again(rules) && !candidate.was_asked_elsewhere(block.len)
        };
        nearest.map(|(_, rank)| rank).into_iter().find(|rank| self.candidates.get(*rank).is_some_and(may))
    }

    /// The smallest block around this one, within the same subtree, where a candidate was not asked, and its rank.
    fn heard_nearby(&self, block: Block) -> Option<(usize, Block)> {
        (subtree_len::<F>(block.first)..block.len).rev().find_map(|len| {
            let wider = Block::around(block.first, len);
            let (rank, _) = self.within(wider).find(|(_, candidate)| candidate.state == State::Heard)?;
            Some((rank, wider))
        })
    }

    /// The nearest candidate beyond the subtree of this block that was not asked. Asked about the target, it names nodes of
    /// the next larger subtree that holds the target: of those in this one, too.
    fn heard_beyond(&self, block: Block) -> Option<usize> {
        let last = Block::around(block.first, subtree_len::<F>(block.first)).last();
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix <= last);
        let mut beyond = (from..).zip(self.candidates.get(from..).unwrap_or_default());
        beyond.find(|(_, candidate)| candidate.state == State::Heard).map(|(rank, _)| rank)
    }

    /// Whether there is a gap up to this rank.
    pub(super) fn has_gap(&self, edge: usize, rules: &LookupRules) -> bool {
        self.survey(edge, rules).has_gap
    }

    /// Looks for gaps up to the candidate of this rank.
    fn survey(&self, edge: usize, rules: &LookupRules) -> Survey {
        let mut survey = Survey::default();
        let Some(last) = self.candidates.get(edge).map(|candidate| candidate.distance_prefix) else {
            return survey;
        };
        let told = usize::from(self.answer_size(rules)).saturating_sub(1);
        let start = if rules.names_buckets {
            // An answer about the target tells the nearest.
            self.candidates.get(told).map(|candidate| candidate.distance_prefix)
        } else if edge < told {
            None // an answer about the target names all these
        } else {
            self.coverage.end_at(0).map_or(Some(0), |reach| reach.checked_add(1))
        };
        let Some(mut at) = start.filter(|at| *at <= last) else { return survey };
        if at == 0 {
            survey.has_gap = true; // nobody near the target has told its neighbours
            return survey;
        }
        for _ in 0..MAX_BLOCKS {
            let after = if let Some(end) = self.coverage.end_at(at) {
                end
            } else {
                survey.has_gap = true;
                let block = self.block_in_gap(at, rules);
                let mut heard = None;
                let mut is_pending = false;
                for (rank, candidate) in self.within(block) {
                    is_pending |= candidate.state.is_waiting() && candidate.block_len > 0;
                    heard = heard.or((candidate.state == State::Heard).then_some(rank));
                }
                survey.is_pending |= is_pending;
                if !is_pending {
                    let ask = heard.map(|rank| (rank, block));
                    if ask.is_none() {
                        survey.unknown = survey.unknown.or(Some(block));
                        let again = || self.ask_again(block, rules).map(|rank| (rank, block));
                        survey.again = survey.again.or_else(again);
                    }
                    survey.ask = survey.ask.or(ask);
                }
                block.last()
            };
            match after.checked_add(1) {
                Some(next) if next <= last => at = next,
                _ => break,
            }
        }
        survey
    }
}

/// The most bits that the distances of a block have in common: candidates are told apart by so many.
#[allow(clippy::cast_possible_truncation)] // at most 64
fn max_len<F: Family>() -> u8 {
    F::Key::BITS.min(64) as u8
}

/// The length of the largest block that holds this distance and not the target.
#[allow(clippy::cast_possible_truncation)] // at most 65
fn subtree_len<F: Family>(at: u64) -> u8 {
    (at.leading_zeros() as u8 + 1).min(max_len::<F>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::family::{AnswerScope, Plain};
    use crate::{Key8, QueryConfig};

    fn rules() -> LookupRules {
        QueryConfig { k: 4, ..QueryConfig::default() }.rules_for(None, true, AnswerScope::Closest(4), None)
    }

    /// Candidates of the key 0: the nearest has answered, five are silent, and the four farthest are known.
    fn list() -> CandidateList<Plain> {
        let mut list = CandidateList::with_capacity(10);
        for (rank, key) in [1, 2, 3, 4, 5, 6, 40, 50, 60, 70].into_iter().enumerate() {
            let key = Key8::new([key]);
            assert!(list.insert(rank, Candidate::new(key.leading()), || key, (1, None), &rules()));
        }
        (list.answers, list.edge_unsure) = (1, true);
        (0..6).for_each(|rank| {
            list.candidates[rank].tries = 1;
            list.candidates[rank].state = if rank == 0 { State::Answered } else { State::Missed };
        });
        list.candidates[0].marks = Candidate::ASKED_ABOUT_TARGET;
        list
    }

    #[test]
    fn where_most_of_the_nearest_are_silent_the_others_are_asked_about_the_target() {
        let mut list = list();
        let is_of_block =
            |list: &CandidateList<Plain>| list.block_of(6, &list.candidates[6], &rules()).is_some();
        assert!(!is_of_block(&list), "one has answered, and five are silent");
        list.candidates[3].awaited = 1;
        assert!(is_of_block(&list), "four are silent, and one may answer");
        list.candidates[3].awaited = 0;
        assert!(!is_of_block(&list));
        (list.candidates[2].tries, list.candidates[2].state) = (0, State::Heard);
        assert!(is_of_block(&list), "four are silent, and one was not asked");
        list.candidates[0].state = State::Missed;
        assert!(!is_of_block(&list), "nobody has answered");
    }

    #[test]
    fn enough_are_to_have_told_of_the_target_where_most_of_the_nearest_are_silent() {
        let mut list = list();
        for rank in 6..9 {
            let candidate = &mut list.candidates[rank];
            (candidate.tries, candidate.state, candidate.block_len) = (1, State::Answered, 4);
        }
        let step = |list: &CandidateList<Plain>| match list.edge_probe(8, false, false, &rules()) {
            Some(CandidateStep::Ask { rank, block: None, edge_probe: true }) => Some(rank),
            Some(CandidateStep::Wait) => None,
            _ => panic!("one of these is what it waits for"),
        };
        // One of four has told of it; it takes three.
        assert_eq!(step(&list), Some(6));
        list.ask(6, None, true);
        assert_eq!(step(&list), Some(7));
        list.ask(7, None, true);
        assert_eq!(step(&list), None, "they are waited for");
        for rank in [6, 7] {
            let candidate = &mut list.candidates[rank];
            (candidate.state, candidate.pending, candidate.awaited) = (State::Answered, 0, 0);
        }
        assert!(list.teller(8, &rules()).is_none());
        list.candidates[6].marks = 0;
        assert!(list.teller(8, &rules()).is_some());
        (1..4).for_each(|rank| list.candidates[rank].state = State::Answered);
        assert!(list.teller(8, &rules()).is_none(), "hardly anybody is silent");
    }

    /// A request that could not be sent has asked nobody.
    #[test]
    fn who_was_not_asked_after_all_may_be_asked_about_the_target() {
        let mut list = list();
        (list.candidates[6].tries, list.candidates[6].state) = (1, State::Answered);
        list.candidates[1].marks = Candidate::ASKED_ABOUT_TARGET;
        // One that has answered about its block, one that was not asked, and one that was asked about the target before.
        for (rank, before) in [(6, false), (7, false), (1, true)] {
            let Candidate { slot, distance_prefix, .. } = list.candidates[rank];
            list.ask(rank, None, true);
            assert!(list.candidates[rank].was_asked_about_target());
            list.undo_ask(CandidateRef { path: 0, slot, distance_prefix, block: None, edge_probe: true });
            assert_eq!(list.candidates[rank].was_asked_about_target(), before, "{rank}");
        }
    }
}
