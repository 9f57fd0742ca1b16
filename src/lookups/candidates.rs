//! [`CandidateList`]: the candidates of one path of a lookup, in order of distance, and the state of each.
//!
//! This file holds the list and the transitions of a candidate's [`State`]. `next_candidate.rs` decides which
//! candidate is asked next.
//!
//! | from | to | when | method |
//! | --- | --- | --- | --- |
//! | - | `Heard` | a seed, or named by an answer | `insert` |
//! | `Heard` | removed | the list is full, a closer candidate is inserted, and this one is not pinned | `insert` |
//! | `Heard` | removed | the list is full, one that is not put off is inserted, and this one [is](Credit) | `insert` |
//! | `Heard` | `Waiting` | it is asked | `ask` |
//! | `Heard` | removed | another path asks it | `give_up` |
//! | `Waiting` | `Slow`, `Late` | its latest request passed the soft limit, which frees the concurrency slot | `slow` |
//! | `Slow` | `Late` | it may be asked again from now on | `slow` |
//! | `Late` | `Waiting` | it is asked again while the first request is pending (a hedge) | `ask` |
//! | these three | `Missed` | its last request passed its patience or timed out, and it may be retried | `missed` |
//! | `Missed` | `Waiting` | it is among the k closest and is asked again | `ask` |
//! | `Failed` | `Missed` | others tell news of it, such as another address | `told_by_others` |
//! | these three | `Failed` | a request failed, or the last one was missed with no retry left | `missed` |
//! | `Heard`, `Missed` | `Failed` | it failed elsewhere, for example a store at it | `mark_failed` |
//! | any | `Answered` | a request to it was answered, even if another one has failed | `answered` |
//! | `Answered` | `AskedAgain` | it is asked again, about the edge of the neighbourhood | `ask` |
//! | `AskedAgain` | `Answered` | that request passed a limit, or ended without an answer | `slow`, `missed` |
//! | `Waiting` | `Heard` | its turn in that line comes, and all slots are occupied | `takes_turn` |
//! | `Waiting`, `AskedAgain` | the same | its request waits [in line](Candidate::IN_LINE) for the node, without a slot until it is sent | `stands_in_line` |
//! | `Waiting`, `AskedAgain` | as before `ask` | its request could not be submitted | `undo_ask` |
//!
//! A request beyond its patience is *silent*: the lookup goes on without it, but listens. Its candidate is `Missed` or
//! `Failed`, with a request pending, and becomes `Answered` if the answer still comes.
//!
//! A candidate that was asked is never removed, so it is not asked as a new one if it is named again. The
//! number of candidates not asked yet is bounded; the closest are kept.
//!
//! Two numbers find a candidate: its *rank*, the index in order of distance, which shifts when closer candidates
//! arrive; and its *slot*, the index of its contact, which is stable as long as it is in the list.

use crate::lookups::coverage::Coverage;
use crate::lookups::credit::Credit;
use crate::lookups::region::Region;
use crate::lookups::rules::LookupRules;
use crate::operations::task::NoAnswer;
use crate::requests::purpose::Block;
use crate::requests::purpose::CandidateRef;
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::{Carried, Contact};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;

/// A candidate that was asked as often is not asked again because there is news of it: others may tell what they like.
const MAX_TRIES_WITH_NEWS: u8 = 4;

/// A candidate that has answered is asked again, about another point than before, only if it was asked at most so many times
/// more than it may be retried. So each costs a bounded number of requests, whatever it answers.
const MAX_TRIES_AGAIN: u16 = 2;

/// How many candidates much farther than a region are kept for the search in it.
const WITNESSES: usize = 2;

/// How many candidates with the same key a path holds: a bound on answers that name one key under many addresses.
pub(super) const MAX_SAME_KEY: usize = 8;

/// The candidates of one path; see the [module](self).
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub(crate) struct CandidateList<F: Family> {
    /// By rank.
    pub(super) candidates: Vec<Candidate>,
    /// By slot.
    pub(crate) contacts: Vec<Contact<F>>,
    /// Candidates in state `Heard`.
    pub(super) num_heard: u16,
    /// Candidates that [occupy](Candidate::occupies_slot) concurrency slots.
    pub(super) num_waiting: u16,
    /// Requests that have not ended.
    pub(super) pending: u32,
    /// Answers and misses since the last answer that was progress: it named new nodes among the k closest, more than a sixteenth of k,
    /// or of all that it named.
    pub(crate) rounds_without_progress: u16,
    /// The number of candidates, from rank 0 without a gap, that had answered or failed at the last `step`:
    /// the settled prefix. The next `step` begins after them.
    pub(super) settled_prefix: u16,
    /// How many of these have answered.
    pub(super) settled_answered: u16,
    /// The rank of the last of these that has answered.
    pub(super) settled_edge: usize,
    /// Nothing has happened since the last `step`, except that candidates were asked.
    pub(super) unchanged: bool,
    /// Answers may not tell all of the k closest live nodes: a node was slow, timed out or failed.
    pub(super) edge_unsure: bool,
    pub(super) elsewhere: Elsewhere,
    /// Extra nodes asked to explore the edge of the neighbourhood; `u16::MAX` where it cannot be explored.
    pub(super) edge_probes: u16,
    /// What the answers have told.
    pub(super) coverage: Coverage,
    /// Whether the nodes that they have named answer.
    pub(super) credit: Credit,
    /// The most nodes that one of them has named.
    pub(super) most_named: u16,
    /// Answers so far.
    pub(super) answers: u16,
    /// The caller's limit of patience has shortened the wait for a silent node.
    pub(super) was_capped: bool,
    /// Answers that came after their node had been given up as silent.
    pub(super) late_answers: u16,
    /// The longest time that one of them took.
    pub(super) latest_answer: Duration,
    /// Until when the path waits for silent nodes, at the most; `None` if it does not.
    pub(super) hold_until: Option<Instant>,
    /// When the latest request was sent that is silent.
    pub(super) last_silent: Instant,
    /// New candidates beyond this distance prefix are dropped: the list is full of closer ones.
    pub(crate) admission_distance: u64,
    /// How often somebody was asked about a [part](crate::lookups::region) of the region: four bits for each length of its
    /// common prefix, so at most [`MAX_COUNTED`](Self::MAX_COUNTED). There are fewer than 32 parts, so each has its own.
    questions: u128,
    /// The part of the region that the candidate is asked about that is asked next, or was asked last; 0 if it is none.
    pub(super) part_asked: u8,
    /// How often somebody beyond the region was asked about its outermost part.
    pub(super) asked_beyond: u8,
    /// How many candidates were asked as others of the region than the k closest.
    pub(super) region_asked: u16,
    /// The candidate that is asked next, or was asked last, is to tell of the target besides those whose names are [doubted](Credit).
    pub(super) asks_other: bool,
    /// Requests to candidates of the region as some of the nearest.
    pub(super) sent_as_nearest: u16,
    /// The candidate that is asked next, or was asked last, is asked so.
    pub(super) asks_as_nearest: bool,
    /// Candidates beyond this distance prefix are others of the region than the nearest; `u64::MAX` until they are asked.
    pub(super) region_from: u64,
    /// The candidate that is asked next, or was asked last, is one of these.
    pub(super) asks_in_region: bool,
}

/// One candidate, in 16 bytes: four to a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The first 64 bits of its distance to the target.
    pub(crate) distance_prefix: u64,
    pub(crate) slot: u16,
    pub(super) state: State,
    /// Requests made to it.
    pub(crate) tries: u8,
    /// Requests to it that have not ended: two if it was asked again because it was slow.
    pub(crate) pending: u8,
    /// Those of them that are not silent.
    pub(crate) awaited: u8,
    /// The length of the block that its latest request is about, 0 for the target itself; with
    /// [`ELSEWHERE`](Self::ELSEWHERE) if the request is to tell of a block in which it does not lie.
    pub(super) block_len: u8,
    /// [`PINNED`](Self::PINNED), [`ASKED_ABOUT_TARGET`](Self::ASKED_ABOUT_TARGET), [`OTHER`](Self::OTHER), [`BUSY`](Self::BUSY),
    /// [`IN_LINE`](Self::IN_LINE).
    pub(super) marks: u8,
}

impl Candidate {
    /// Blocks have at most 64 bits in common, so this bit is free.
    const ELSEWHERE: u8 = 0x80;
    /// Never removed for a closer candidate: one of the closest seeds.
    const PINNED: u8 = 1;
    /// One of its requests was about the target itself.
    pub(super) const ASKED_ABOUT_TARGET: u8 = 2;
    /// It was asked to tell of the target besides those whose names are [doubted](Credit).
    pub(super) const OTHER: u8 = 4;
    /// It answers others, but was not asked, as it was too busy.
    pub(super) const BUSY: u8 = 8;
    /// Its latest request waits in line for the node: it is neither sent nor slow.
    const IN_LINE: u8 = 16;

    /// Whether its latest request occupies a concurrency slot.
    pub(super) const fn occupies_slot(&self) -> bool {
        self.state.is_waiting() && self.marks & Self::IN_LINE == 0
    }

    /// Its latest request is over, or slow. Returns how many slots that frees.
    fn give_back_slot(&mut self) -> u16 {
        let freed = self.occupies_slot().into();
        self.marks &= !Self::IN_LINE;
        freed
    }

    /// Whether one of its requests was about the target itself.
    pub(super) const fn was_asked_about_target(&self) -> bool {
        self.marks & Self::ASKED_ABOUT_TARGET != 0
    }

    /// Whether its latest request was to tell of a block in which it does not lie.
    pub(super) const fn asks_elsewhere(&self) -> bool {
        self.block_len & Self::ELSEWHERE != 0
    }

    /// Whether its latest request was to tell of a block of this length in which it does not lie.
    pub(super) const fn was_asked_elsewhere(&self, block_len: u8) -> bool {
        self.block_len == block_len | Self::ELSEWHERE
    }

    /// Whether its latest request was about a block of this length.
    pub(super) const fn is_asked_about(&self, block_len: u8) -> bool {
        self.block_len & !Self::ELSEWHERE == block_len
    }

    pub(crate) const fn new(distance_prefix: u64) -> Self {
        Self {
            distance_prefix,
            slot: 0,
            state: State::Heard,
            tries: 0,
            pending: 0,
            awaited: 0,
            block_len: 0,
            marks: 0,
        }
    }

    /// Whether a request to it is silent, and its answer would still count.
    pub(super) const fn is_listened_to(&self) -> bool {
        self.pending > self.awaited && !self.state.has_answered()
    }

    /// Whether it was asked, and has not answered in time.
    pub(super) fn is_silent(&self) -> bool {
        self.tries > 0 && self.awaited == 0 && !self.state.has_answered()
    }

    /// Whether it may be removed for another one: it was not asked yet.
    fn can_be_removed(&self) -> bool {
        self.state == State::Heard && self.marks & Self::PINNED == 0
    }

    /// Whether it has answered, and may be asked once more about another point than before.
    pub(super) fn may_be_asked_again(&self, rules: &LookupRules) -> bool {
        self.state == State::Answered
            && self.pending == 0
            && u16::from(self.tries) <= rules.retries + MAX_TRIES_AGAIN
    }

    /// The same, about the block in which it lies: it was not asked about that.
    pub(super) fn may_be_asked_about_its_own(&self, rules: &LookupRules) -> bool {
        (self.block_len == 0 || self.asks_elsewhere()) && self.may_be_asked_again(rules)
    }
}

/// Whether a node can be asked about a block in which it does not lie. Where the wire format cannot name a point there, it
/// cannot; a node that lies there can still be asked about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    Possible,
    Impossible,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Known, not asked yet.
    Heard,
    /// Asked; occupies a concurrency slot, unless it stands in line.
    Waiting,
    /// Asked, and past the soft limit.
    Slow,
    /// The same, and it may be asked again while it is among the k closest.
    Late,
    /// Silent or timed out, with a retry left. Counts as failed until it is among the k closest and asked again.
    Missed,
    Answered,
    /// The same, and asked again, about the edge of the neighbourhood; occupies a concurrency slot likewise.
    AskedAgain,
    Failed,
}

impl State {
    pub(super) const fn has_answered(self) -> bool {
        matches!(self, Self::Answered | Self::AskedAgain)
    }

    /// Whether its latest request has passed no limit.
    pub(super) const fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting | Self::AskedAgain)
    }
}

impl<F: Family> CandidateList<F> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            candidates: Vec::with_capacity(capacity),
            contacts: Vec::with_capacity(capacity),
            num_heard: 0,
            num_waiting: 0,
            pending: 0,
            rounds_without_progress: 0,
            settled_prefix: 0,
            settled_answered: 0,
            settled_edge: 0,
            unchanged: false,
            edge_unsure: false,
            elsewhere: Elsewhere::Possible,
            edge_probes: 0,
            coverage: Coverage::default(),
            credit: Credit::with_capacity(capacity),
            most_named: 0,
            answers: 0,
            was_capped: false,
            late_answers: 0,
            latest_answer: Duration::ZERO,
            hold_until: None,
            last_silent: Instant::ORIGIN,
            admission_distance: u64::MAX,
            questions: 0,
            part_asked: 0,
            asked_beyond: 0,
            region_asked: 0,
            asks_other: false,
            sent_as_nearest: 0,
            asks_as_nearest: false,
            region_from: u64::MAX,
            asks_in_region: false,
        }
    }

    /// The most questions about one part of the region that are counted: nobody is asked about it more often.
    pub(super) const MAX_COUNTED: u8 = 15;

    /// How often somebody was asked about the part of the region whose distances have so many bits in common.
    pub(super) fn questions(&self, len: u8) -> u8 {
        let counted = self.questions >> Self::question_bits(len) & u128::from(Self::MAX_COUNTED);
        u8::try_from(counted).unwrap_or_default()
    }

    fn question_bits(len: u8) -> u32 {
        4 * (u32::from(len) % 32)
    }

    fn reset_settled(&mut self) {
        (self.settled_prefix, self.settled_answered, self.settled_edge) = (0, 0, 0);
    }

    /// Another path asks this node: it is no candidate of this one any more, unless it was asked here.
    pub(crate) fn give_up(&mut self, target: &F::Key, distance_prefix: u64, node: &F::Node) {
        if let Err(rank) = self.insertion_rank(target, distance_prefix, node)
            && self.is_at(rank, distance_prefix, node)
            && self.is_heard(rank)
        {
            self.candidates.remove(rank);
            self.num_heard -= 1;
            self.admission_distance = u64::MAX;
            self.unchanged = false;
        }
    }

    /// Whether the candidate at this rank was not asked yet.
    pub(crate) fn is_heard(&self, rank: usize) -> bool {
        self.candidates.get(rank).is_some_and(|candidate| candidate.state == State::Heard)
    }

    /// A slot whose candidate was given up; else the next one.
    fn free_slot(&self) -> usize {
        if self.contacts.len() == self.candidates.len() {
            return self.contacts.len();
        }
        let mut is_taken: SmallVec<[bool; 256]> = SmallVec::from_elem(false, self.contacts.len());
        for candidate in &self.candidates {
            if let Some(is_taken) = is_taken.get_mut(usize::from(candidate.slot)) {
                *is_taken = true;
            }
        }
        is_taken.iter().position(|is_taken| !is_taken).unwrap_or(self.contacts.len())
    }

    /// How many candidates were asked, or have failed elsewhere.
    pub(crate) fn num_asked(&self) -> usize {
        self.candidates.len().saturating_sub(usize::from(self.num_heard))
    }

    /// Whether no candidate has answered.
    pub(crate) fn has_no_answer(&self) -> bool {
        self.answers == 0
    }

    /// Whether these are all there are, as far as can be known: all candidates have answered, one of them has named all
    /// others, and either an answer could have named more, or there is no gap in what the answers have told.
    pub(crate) fn are_all_there_are(&self, rules: &LookupRules) -> bool {
        let could_name_more = !rules.names_buckets && self.most_named < rules.answer_size;
        let is_complete = could_name_more || self.coverage.end_at(0) == Some(u64::MAX);
        let are_named = self.candidates.len() <= usize::from(self.most_named) + 1;
        is_complete && are_named && self.candidates.iter().all(|candidate| candidate.state.has_answered())
    }

    /// Whether a request has passed no limit: it is in flight, or waits.
    pub(super) fn has_waiting(&self) -> bool {
        self.num_waiting > 0 || self.candidates.iter().any(|candidate| candidate.state.is_waiting())
    }

    /// Whether no request is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0
    }

    pub(crate) fn was_asked(&self, rank: usize) -> bool {
        self.candidates.get(rank).is_some_and(|candidate| candidate.tries > 0)
    }

    /// Marks the candidate as asked about the target, or about the point of a block. Returns the candidate.
    pub(crate) fn ask(&mut self, rank: usize, block: Option<Block>, edge_probe: bool) -> Option<Candidate> {
        let candidate = self.candidates.get_mut(rank)?;
        self.edge_probes += u16::from(edge_probe);
        self.sent_as_nearest = self.sent_as_nearest.saturating_add(self.asks_as_nearest.into());
        if candidate.state == State::Heard {
            self.num_heard -= 1;
            self.admission_distance = u64::MAX;
            self.region_asked += u16::from(self.asks_in_region);
            self.credit.asked(candidate.slot);
        }
        candidate.state = if candidate.state.has_answered() { State::AskedAgain } else { State::Waiting };
        candidate.tries = candidate.tries.saturating_add(1);
        candidate.pending += 1;
        candidate.awaited += 1;
        candidate.block_len = match block {
            Some(block) if (block.first..=block.last()).contains(&candidate.distance_prefix) => block.len,
            Some(block) => block.len | Candidate::ELSEWHERE,
            None if edge_probe => Candidate::ELSEWHERE,
            None => 0,
        };
        if block.is_none_or(Block::is_at_target) {
            candidate.marks |= Candidate::ASKED_ABOUT_TARGET;
        }
        if self.asks_other {
            candidate.marks |= Candidate::OTHER;
        }
        self.num_waiting += 1;
        self.pending += 1;
        self.unchanged = true;
        let candidate = *candidate;
        if self.part_asked > 0 && self.questions(self.part_asked) < Self::MAX_COUNTED {
            self.questions += 1 << Self::question_bits(self.part_asked);
            let is_beyond = candidate.distance_prefix > Block::part(self.part_asked).last();
            self.asked_beyond = self.asked_beyond.saturating_add(u8::from(is_beyond));
        } else {
            // It is not counted, so there is nothing to revert.
            self.part_asked = 0;
        }
        Some(candidate)
    }

    /// Reverts the last `ask`, whose request could not be submitted. Returns whether the candidate had not been
    /// asked before.
    pub(crate) fn undo_ask(&mut self, at: CandidateRef) -> bool {
        let Some(candidate) = self.candidate_mut(at).filter(|candidate| candidate.state.is_waiting()) else {
            return false;
        };
        candidate.tries -= 1;
        candidate.pending -= 1;
        candidate.awaited -= 1;
        let freed = candidate.give_back_slot();
        let (tries, awaited) = (candidate.tries, candidate.awaited);
        // Who has answered about something else, or was not asked, was not asked about the target before.
        if at.block.is_none_or(Block::is_at_target) && (tries == 0 || candidate.state == State::AskedAgain) {
            candidate.marks &= !Candidate::ASKED_ABOUT_TARGET;
        }
        if tries == 0 {
            candidate.marks &= !Candidate::OTHER;
        }
        candidate.state = match (tries, awaited) {
            _ if candidate.state == State::AskedAgain => State::Answered,
            (0, _) => State::Heard,
            (_, 0) => State::Missed,
            _ => State::Late,
        };
        candidate.block_len = 0;
        if self.part_asked > 0 && self.questions(self.part_asked) > 0 {
            self.questions -= 1 << Self::question_bits(self.part_asked);
            let is_beyond = at.distance_prefix > Block::part(self.part_asked).last();
            self.asked_beyond = self.asked_beyond.saturating_sub(u8::from(is_beyond));
        }
        self.num_heard += u16::from(tries == 0);
        if tries == 0 {
            self.credit.not_asked(at.slot);
        }
        self.region_asked -= u16::from(tries == 0 && self.asks_in_region);
        self.edge_probes -= u16::from(at.edge_probe);
        self.sent_as_nearest = self.sent_as_nearest.saturating_sub(self.asks_as_nearest.into());
        self.num_waiting -= freed;
        self.pending -= 1;
        tries == 0
    }

    /// To be called right after `ask`: whether the candidate had been silent, with no request awaited, and is live
    /// again by this `ask`.
    pub(crate) fn is_revived(&mut self, at: CandidateRef) -> bool {
        self.candidate_mut(at).is_some_and(|candidate| candidate.tries > 1 && candidate.awaited == 1)
    }

    /// A request to the candidate was answered, after `elapsed`. Returns how many other pending requests to it are superseded.
    pub(crate) fn answered(&mut self, at: CandidateRef, elapsed: Duration) -> u8 {
        let Some(candidate) = self.candidate_mut(at) else { return 0 };
        let freed = candidate.give_back_slot();
        let was = core::mem::replace(&mut candidate.state, State::Answered);
        let was_silent = candidate.awaited == 0;
        let pending = core::mem::take(&mut candidate.pending);
        candidate.awaited = 0;
        self.num_waiting -= freed;
        self.pending -= u32::from(pending);
        self.unchanged = false;
        if was == State::Failed {
            // It was silent, or another request to it failed, so `step` has counted it as failed in the settled prefix.
            self.reset_settled();
        }
        self.answers = self.answers.saturating_add(1);
        self.credit.answered(at.slot);
        if was_silent {
            self.late_answers = self.late_answers.saturating_add(1);
            self.latest_answer = self.latest_answer.max(elapsed);
        }
        pending.saturating_sub(1)
    }

    /// Others have named the candidate at this rank: what they tell of it counts as long as it has not answered. One
    /// that has failed and of which there is news, such as another address, may be asked again.
    #[inline]
    pub(crate) fn told_by_others(&mut self, rank: usize, told: &F::Node, by: u16) {
        // At this rank there may be another one: of another path, or with the same key.
        if self.credit.may_doubt()
            && let Some(candidate) = self.candidates.get(rank)
            && self.contacts.get(usize::from(candidate.slot)).is_some_and(|known| known.node == *told)
        {
            self.credit.named_again(candidate.slot, by);
        }
        if F::NODES_CHANGE
            && let Some(candidate) = self.candidates.get_mut(rank)
            && !candidate.state.has_answered()
            && let Some(contact) = self.contacts.get_mut(usize::from(candidate.slot))
            && contact.node == *told
            && F::update(&mut contact.node, told, ToldBy::Others)
            && candidate.state == State::Failed
            && candidate.pending == 0
            && candidate.tries < MAX_TRIES_WITH_NEWS
        {
            candidate.state = State::Missed;
            self.unchanged = false;
            self.reset_settled();
        }
    }

    /// A request to the candidate is silent, timed out, failed or was refused.
    pub(crate) fn missed(&mut self, at: CandidateRef, miss: NoAnswer, rules: &LookupRules) {
        let Some(candidate) = self.candidate_mut(at).filter(|candidate| candidate.pending > 0) else {
            return;
        };
        let is_silent = matches!(miss, NoAnswer::Silent { .. });
        // Of a request that was silent already, the deadline is no news.
        let is_awaited = miss != NoAnswer::TimedOutSilently;
        candidate.pending -= u8::from(!is_silent);
        candidate.awaited = candidate.awaited.saturating_sub(u8::from(is_awaited));
        let was = candidate.state;
        let is_over = matches!(miss, NoAnswer::Failed | NoAnswer::Busy);
        let over =
            if is_awaited { was != State::Failed && (candidate.awaited == 0 || is_over) } else { false };
        let freed = if over { candidate.give_back_slot() } else { 0 };
        if over {
            let one_more = rules.retries > 0 && matches!(miss, NoAnswer::Silent { may_retry: true, .. });
            let max_tries = rules.retries + u16::from(one_more);
            let again = !is_over && u16::from(candidate.tries) <= max_tries;
            candidate.marks |= if miss == NoAnswer::Busy { Candidate::BUSY } else { 0 };
            candidate.state = match was {
                State::Answered | State::AskedAgain => State::Answered,
                _ if again => State::Missed,
                _ => State::Failed,
            };
        }
        self.num_waiting -= freed;
        self.pending -= u32::from(!is_silent);
        self.unchanged = false;
        if let NoAnswer::Silent { sent, is_capped, .. } = miss {
            self.was_capped |= is_capped;
            self.last_silent = self.last_silent.max(sent);
        }
        if is_awaited {
            self.rounds_without_progress = self.rounds_without_progress.saturating_add(1);
            self.edge_unsure = true;
            // It may be in the settled prefix, which `step` skips.
            self.reset_settled();
            if miss != NoAnswer::Busy {
                self.credit.silent(at.slot);
            }
        }
    }

    /// The candidate failed outside the lookup, for example in a store. No effect if it has answered.
    pub(crate) fn mark_failed(&mut self, rank: usize) {
        let Some(candidate) = self.candidates.get_mut(rank) else { return };
        if candidate.state.has_answered() || candidate.state == State::Failed {
            return;
        }
        self.edge_unsure = true;
        self.unchanged = false;
        // While a request is awaited, the candidate may still answer, so its state is left alone.
        if candidate.awaited > 0 {
            return;
        }
        if core::mem::replace(&mut candidate.state, State::Failed) == State::Heard {
            self.num_heard -= 1;
            self.admission_distance = u64::MAX;
        }
        self.reset_settled();
    }

    /// A queued request to the candidate was dropped before it was sent, because another request to it failed or
    /// its operation ends.
    pub(crate) fn not_sent(&mut self, at: CandidateRef) {
        if let Some(candidate) = self.candidate_mut(at).filter(|candidate| candidate.pending > 0) {
            candidate.pending -= 1;
            candidate.awaited = candidate.awaited.saturating_sub(1);
            self.pending -= 1;
        }
    }

    /// The latest request to the candidate passed the soft limit. `may_repeat`: it may be asked again.
    pub(crate) fn slow(&mut self, at: CandidateRef, may_repeat: bool, alpha: u16) {
        let Some(candidate) = self.candidate_mut(at) else { return };
        let state = candidate.state;
        if state == State::AskedAgain {
            let freed = candidate.give_back_slot();
            candidate.state = State::Answered;
            self.num_waiting -= freed;
            self.unchanged = false;
            return;
        }
        if !(state == State::Waiting || state == State::Slow && may_repeat) {
            return;
        }
        let freed = candidate.give_back_slot();
        candidate.state = if may_repeat { State::Late } else { State::Slow };
        self.credit.silent(at.slot);
        self.num_waiting -= freed;
        self.edge_unsure = true;
        if self.answers == 0 && state == State::Waiting && self.num_asked() > 2 * usize::from(alpha) {
            // Nobody of so many has answered so far: most of the nodes to begin with may be dead.
            self.rounds_without_progress = self.rounds_without_progress.saturating_add(1);
        }
        self.unchanged = false;
    }

    /// The latest request to the candidate waits in line for the node, and gives back its slot until its turn comes. Others have as
    /// many requests in flight there as are allowed, so this is no silence; it is still expected to answer.
    pub(crate) fn stands_in_line(&mut self, at: CandidateRef) {
        let Some(candidate) = self.candidate_mut(at).filter(|candidate| candidate.state.is_waiting()) else {
            return;
        };
        let freed = candidate.give_back_slot();
        candidate.marks |= Candidate::IN_LINE;
        self.num_waiting -= freed;
        self.unchanged = false;
    }

    /// The turn of a request to the candidate has come. If it stood in line without a slot, it takes one; if there is none, it is not
    /// to be sent, and the candidate counts as not asked: many turns may come at a time, and each lookup would take a turn from
    /// everybody whom it knew in the beginning. A request that asks the node once more, or one of the region, or about another point
    /// than the target, is sent in any case.
    pub(crate) fn takes_turn(&mut self, at: CandidateRef, rules: &LookupRules) -> bool {
        let are_full = self.are_slots_full(rules);
        let is_near = rules.region.is_some_and(|region| at.distance_prefix <= region.reach(0));
        let Some(candidate) = self.candidate_mut(at).filter(|it| it.marks & Candidate::IN_LINE != 0) else {
            return true;
        };
        candidate.marks &= !Candidate::IN_LINE;
        let is_first = (candidate.state, candidate.tries, candidate.block_len) == (State::Waiting, 1, 0);
        if !are_full || !is_first || is_near {
            self.num_waiting += 1;
            return true;
        }
        let again = Candidate { slot: candidate.slot, ..Candidate::new(candidate.distance_prefix) };
        *candidate = Candidate { marks: candidate.marks & Candidate::PINNED, ..again };
        self.credit.not_asked(at.slot);
        self.num_heard += 1;
        self.pending -= 1;
        self.unchanged = false;
        false
    }

    fn candidate_mut(&mut self, at: CandidateRef) -> Option<&mut Candidate> {
        let first =
            self.candidates.partition_point(|candidate| candidate.distance_prefix < at.distance_prefix);
        self.candidates.get_mut(first..)?.iter_mut().find(|candidate| candidate.slot == at.slot)
    }

    /// The distance of the k-th closest live candidate; `None` if there are fewer.
    pub(crate) fn kth_distance(&self, target: &F::Key, k: u16) -> Option<F::Key> {
        let mut live = self
            .candidates
            .iter()
            .filter(|candidate| !matches!(candidate.state, State::Failed | State::Missed));
        let slot = live.nth(usize::from(k) - 1)?.slot;
        self.contacts.get(usize::from(slot)).map(|contact| F::key(&contact.node).distance(target))
    }

    /// Whether the candidate at this rank is this node.
    #[inline]
    pub(crate) fn is_at(&self, rank: usize, distance_prefix: u64, node: &F::Node) -> bool {
        self.candidates.get(rank).is_some_and(|candidate| {
            candidate.distance_prefix == distance_prefix
                && self.contacts.get(usize::from(candidate.slot)).is_some_and(|contact| contact.node == *node)
        })
    }

    /// Whether a node with this distance prefix is to be inserted at this rank: it is farther than the candidate before
    /// and closer than the one there.
    #[inline]
    pub(crate) fn is_place(&self, rank: usize, distance_prefix: u64) -> bool {
        let prefix = |rank: usize| self.candidates.get(rank).map(|candidate| candidate.distance_prefix);
        prefix(rank).is_none_or(|there| distance_prefix < there)
            && (rank == 0 || prefix(rank - 1).is_some_and(|before| before < distance_prefix))
    }

    /// The rank at which a node is to be inserted; `Err` with its rank if it is in the list, or with another's if there
    /// are [`MAX_SAME_KEY`] with its key.
    pub(crate) fn insertion_rank(
        &self,
        target: &F::Key,
        distance_prefix: u64,
        node: &F::Node,
    ) -> Result<usize, usize> {
        let first = self.candidates.partition_point(|candidate| candidate.distance_prefix < distance_prefix);
        let is_equal = |candidate: &Candidate| candidate.distance_prefix == distance_prefix;
        if !self.candidates.get(first).is_some_and(is_equal) {
            return Ok(first);
        }
        // Among equal prefixes (the node itself has one) the full distance decides, in which they are in order, too:
        // anybody may claim keys that are alike, so they must not be looked at one by one.
        let key = F::key(node);
        let distance = key.distance(target);
        let known = |candidate: &Candidate| self.contacts.get(usize::from(candidate.slot));
        let is_nearer = |candidate: &Candidate| {
            is_equal(candidate)
                && known(candidate).is_some_and(|known| F::key(&known.node).distance(target) < distance)
        };
        let beyond = self.candidates.get(first..).unwrap_or_default();
        let rank = first + beyond.partition_point(is_nearer);
        let same_key = (rank..).zip(self.candidates.get(rank..).unwrap_or_default());
        let mut count = 0;
        for (place, candidate) in same_key.take_while(|(_, candidate)| is_equal(candidate)) {
            let Some(known) = known(candidate).filter(|known| F::key(&known.node) == key) else { break };
            count += 1;
            if known.node == *node || count == MAX_SAME_KEY {
                return Err(place);
            }
        }
        Ok(rank)
    }

    /// Makes the `closest` first candidates exempt from removal.
    pub(crate) fn pin_closest(&mut self, closest: usize) {
        for candidate in self.candidates.iter_mut().take(closest) {
            candidate.marks |= Candidate::PINNED;
        }
    }

    /// Inserts a candidate at the rank found by [`insertion_rank`](Self::insertion_rank). If the list is full,
    /// the farthest candidate not asked and not pinned is removed for it. Returns `false` if every candidate
    /// that could be removed is closer. `named_by`: the candidate that has named it; `None` for a seed.
    pub(crate) fn insert(
        &mut self,
        rank: usize,
        mut candidate: Candidate,
        node: impl FnOnce() -> F::Node,
        (hop, named_by): (u16, Option<CandidateRef>),
        rules: &LookupRules,
    ) -> bool {
        let is_full = self.num_heard >= rules.max_candidates;
        let victim = if is_full { self.victim(rank, candidate, named_by, rules) } else { None };
        // Between the place of the one that is removed and that of the new one, the candidates move by one.
        let (is_farther, moved) = match victim {
            Some(victim) if victim >= rank => (true, self.candidates.get_mut(rank..=victim)),
            Some(victim) => (false, self.candidates.get_mut(victim..rank)),
            None => (true, None),
        };
        match moved {
            Some(moved) => {
                let removed = if is_farther { moved.last() } else { moved.first() };
                let Some(slot) = removed.map(|removed| removed.slot) else { return false };
                candidate.slot = slot;
                let place = if is_farther {
                    moved.rotate_right(1);
                    moved.first_mut()
                } else {
                    moved.rotate_left(1);
                    moved.last_mut()
                };
                if let (Some(place), Some(contact)) = (place, self.contacts.get_mut(usize::from(slot))) {
                    *place = candidate;
                    *contact = Contact { node: node(), micros: 0, hop, carried: Carried::Unknown };
                }
            }
            // Every candidate that could be removed is closer.
            None if is_full => return false,
            None => {
                let Ok(slot) = u16::try_from(self.free_slot()) else { return false };
                candidate.slot = slot;
                let contact = Contact { node: node(), micros: 0, hop, carried: Carried::Unknown };
                match self.contacts.get_mut(usize::from(slot)) {
                    Some(free) => *free = contact,
                    None => self.contacts.push(contact),
                }
                self.candidates.insert(rank.min(self.candidates.len()), candidate);
                self.num_heard += 1;
            }
        }
        let is_nearer = named_by.is_some_and(|by| candidate.distance_prefix < by.distance_prefix);
        self.credit.heard(candidate.slot, named_by.map(|by| by.slot), is_nearer);
        self.unchanged = false;
        if rank < usize::from(self.settled_prefix) {
            self.reset_settled();
        }
        if self.num_heard >= rules.max_candidates {
            let farthest = self.farthest(rules).and_then(|victim| self.candidates.get(victim));
            let farthest = farthest.map_or(0, |candidate| candidate.distance_prefix);
            // Within the region it is not the farthest that is removed.
            self.admission_distance = rules.region.map_or(farthest, |region| {
                let witness = self.candidates.get(self.witnesses(&region).end.saturating_sub(1));
                let witness = witness.map_or(u64::MAX, |candidate| candidate.distance_prefix);
                farthest.max(region.reach(0)).max(witness)
            });
        }
        true
    }

    /// The rank of the candidate that is removed for a new one at this rank: the farthest. But within the region it is one where
    /// most others are near it, besides the k closest; `None` if that is the new one itself. In a flood, those that are put off
    /// keep half of the places at most.
    fn victim(
        &self,
        rank: usize,
        new: Candidate,
        by: Option<CandidateRef>,
        rules: &LookupRules,
    ) -> Option<usize> {
        if self.credit.is_flood() && !by.is_some_and(|by| self.credit.is_doubted(by.slot)) {
            let is_put_off = |it: &Candidate| it.can_be_removed() && self.credit.is_put_off(it.slot);
            let put_off = self.candidates.iter().enumerate().filter(|(_, it)| is_put_off(it));
            if let Some((farthest, _)) = put_off.skip(usize::from(rules.max_candidates / 2)).last() {
                return Some(farthest);
            }
        }
        let farthest = self.farthest(rules)?;
        let Some(region) = rules.region else { return Some(farthest).filter(|victim| *victim >= rank) };
        let can_go = |rank: usize| self.candidates.get(rank).is_some_and(Candidate::can_be_removed);
        let kept = self.witnesses(&region);
        let is_kept = new.distance_prefix > region.much_farther(0) && rank < kept.end;
        if is_kept && can_go(kept.end - 1) {
            return Some(kept.end - 1);
        }
        if self.candidates.get(farthest)?.distance_prefix > region.reach(0) {
            return Some(farthest).filter(|victim| *victim >= rank || is_kept);
        }
        let nearness = |at: u64, other: Option<&Candidate>| {
            other.map_or(0, |other| (at ^ other.distance_prefix).leading_zeros())
        };
        let get = |rank: Option<usize>| rank.and_then(|rank| self.candidates.get(rank));
        let mut most = (0, None);
        for (at, candidate) in self.candidates.iter().enumerate().skip(usize::from(rules.k)) {
            if candidate.can_be_removed() && !kept.contains(&at) {
                let place = candidate.distance_prefix;
                let near = nearness(place, get(at.checked_sub(1))).max(nearness(place, get(Some(at + 1))));
                if near >= most.0 {
                    most = (near, Some(at));
                }
            }
        }
        let place = new.distance_prefix;
        let near = nearness(place, get(rank.checked_sub(1))).max(nearness(place, get(Some(rank))));
        most.1.filter(|_| rank < usize::from(rules.k) || near < most.0)
    }

    /// The rank of the candidate that is removed first.
    fn farthest(&self, rules: &LookupRules) -> Option<usize> {
        let kept = rules.region.map_or(0..0, |region| self.witnesses(&region));
        let mut outermost_first = self.candidates.iter().enumerate().rev();
        let removed = outermost_first.find(|(rank, it)| it.can_be_removed() && !kept.contains(rank));
        removed.map(|(rank, _)| rank)
    }

    /// The ranks of the candidates that are kept, however many nearer ones are named, so that some who are [much
    /// farther](Region::much_farther) can be asked about the region: the nearest of these.
    fn witnesses(&self, region: &Region) -> core::ops::Range<usize> {
        let far = region.much_farther(0);
        let from = self.candidates.partition_point(|candidate| candidate.distance_prefix <= far);
        from..from + WITNESSES
    }

    /// The candidates that are neither `Missed` nor `Failed`, in order of distance: slot, contact, and whether
    /// it has answered.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u16, &Contact<F>, bool)> {
        let live = self
            .candidates
            .iter()
            .filter(|candidate| !matches!(candidate.state, State::Failed | State::Missed));
        live.filter_map(|candidate| {
            let contact = self.contacts.get(usize::from(candidate.slot))?;
            Some((candidate.slot, contact, candidate.state.has_answered()))
        })
    }

    /// The slots of the candidates that were asked and have not answered, and of those [put off](crate::lookups::credit).
    pub(crate) fn unheard(&self) -> impl Iterator<Item = u16> {
        let is_unheard =
            |it: &&Candidate| !it.state.has_answered() && (it.tries > 0 || self.credit.is_put_off(it.slot));
        self.candidates.iter().filter(is_unheard).map(|candidate| candidate.slot)
    }

    /// Moves out the contacts of the closest candidates that answered, in order of distance, at most `limit`.
    /// Reuses the memory of the contacts instead of allocating: they are permuted to the front.
    pub(crate) fn drain_closest(&mut self, limit: usize) -> Vec<Contact<F>> {
        let answered = self.candidates.iter().filter(|candidate| candidate.state.has_answered()).take(limit);
        let mut order: SmallVec<[usize; 32]> =
            answered.map(|candidate| usize::from(candidate.slot)).collect();
        let mut contacts = core::mem::take(&mut self.contacts);
        for rank in 0..order.len() {
            // If the contact wanted here was at an index already filled, it was swapped away: follow where to.
            let mut from = order.get(rank).copied().unwrap_or(rank);
            while from < rank {
                from = order.get(from).copied().unwrap_or(rank);
            }
            contacts.swap(rank, from);
            if let Some(at) = order.get_mut(rank) {
                *at = from;
            }
        }
        contacts.truncate(order.len());
        contacts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::family::{AnswerScope, Plain};
    use crate::vocabulary::region::KnownSize;
    use crate::{Key8, QueryConfig};

    fn rules(config: &QueryConfig, size: Option<u64>) -> LookupRules {
        config.rules_for(None, false, AnswerScope::Closest(4), size.map(KnownSize::hint))
    }

    impl Candidate {
        /// The key of the node, which is its distance.
        fn place(&self) -> u8 {
            self.distance_prefix.to_be_bytes()[0]
        }
    }

    /// Candidates of the key 0, whose distances are their keys.
    fn list_of(keys: &[u8], rules: &LookupRules) -> CandidateList<Plain> {
        let mut list = CandidateList::with_capacity(keys.len());
        for key in keys {
            hear_of(&mut list, *key, rules);
        }
        list
    }

    fn hear_of(list: &mut CandidateList<Plain>, key: u8, rules: &LookupRules) {
        hear_from(list, None, key, rules);
    }

    fn hear_from(list: &mut CandidateList<Plain>, by: Option<CandidateRef>, key: u8, rules: &LookupRules) {
        let node = Key8::new([key]);
        let candidate = Candidate::new(node.leading());
        if candidate.distance_prefix <= list.admission_distance {
            let rank = list.insertion_rank(&Key8::new([0]), node.leading(), &node).unwrap();
            list.insert(rank, candidate, || node, (1, by), rules);
        }
    }

    fn place_of(list: &CandidateList<Plain>, key: u8) -> CandidateRef {
        let prefix = Key8::new([key]).leading();
        let is_it = |it: &&Candidate| it.distance_prefix == prefix;
        let Candidate { slot, distance_prefix, .. } = *list.candidates.iter().find(is_it).unwrap();
        CandidateRef { path: 0, slot, distance_prefix, block: None, edge_probe: false }
    }

    /// Asks the node with this key, which does not answer.
    fn ask_in_vain(list: &mut CandidateList<Plain>, key: u8, rules: &LookupRules) {
        let at = place_of(list, key);
        let rank = list.candidates.iter().position(|it| it.slot == at.slot).unwrap();
        list.ask(rank, None, false);
        let miss = NoAnswer::Silent { sent: Instant::ORIGIN, is_capped: false, may_retry: false };
        list.missed(at, miss, rules);
    }

    fn known(list: &CandidateList<Plain>) -> Vec<u8> {
        list.candidates.iter().map(Candidate::place).collect()
    }

    #[test]
    fn whoever_names_many_near_the_key_does_not_drive_out_those_who_are_much_farther() {
        let config = QueryConfig { k: 2, max_candidates: 6, ..QueryConfig::default() };
        // Two of 63 nodes are within 1/32 of the key space: much farther is beyond 1/8.
        let search = rules(&config, Some(63));
        let honest = [0x18, 0x30, 0x48, 0x60, 0x90, 0xf0];
        let mut list = list_of(&honest, &search);
        for key in 1..=5 {
            hear_of(&mut list, key, &search);
        }
        assert_eq!(known(&list)[4..], [0x30, 0x48], "the nearest that are");
        hear_of(&mut list, 0x28, &search);
        assert_eq!(known(&list)[4..], [0x28, 0x30], "one that is nearer, instead of the farthest");
        hear_of(&mut list, 0x2c, &search);
        assert_eq!(known(&list)[4..], [0x28, 0x2c]);
        hear_of(&mut list, 0x40, &search);
        assert_eq!(known(&list)[4..], [0x28, 0x2c], "none that is farther");
        // A lookup that searches no region goes to the nearest only.
        let plain = rules(&config, None);
        let mut list = list_of(&honest, &plain);
        for key in 1..=5 {
            hear_of(&mut list, key, &plain);
        }
        assert_eq!(known(&list), [1, 2, 3, 4, 5, 0x18]);
    }

    /// The rules of a list with room for 16 that were not asked; and the list, in a flood, with as many of a liar's names.
    fn flooded() -> (LookupRules, CandidateList<Plain>, CandidateRef) {
        let config = QueryConfig { k: 2, retries: 0, max_candidates: 16, ..QueryConfig::default() };
        let rules = rules(&config, None);
        let mut list = list_of(&[0x80], &rules);
        let liar = place_of(&list, 0x80);
        list.ask(0, None, false);
        list.answered(liar, Duration::from_millis(1));
        for key in 1..=16 {
            assert!(!list.credit.is_flood());
            hear_from(&mut list, Some(liar), key, &rules);
            ask_in_vain(&mut list, key, &rules);
        }
        assert!(list.credit.is_flood() && list.credit.is_doubted(liar.slot));
        for key in 0x21..=0x30 {
            hear_from(&mut list, Some(liar), key, &rules);
        }
        assert_eq!(list.num_heard, 16);
        (rules, list, liar)
    }

    #[test]
    fn in_a_flood_those_that_are_put_off_keep_half_of_the_places() {
        let (rules, mut list, liar) = flooded();
        list.admission_distance = u64::MAX;
        hear_from(&mut list, Some(liar), 0xf0, &rules);
        assert!(!known(&list).contains(&0xf0), "the liar gets no place for one that is farther");
        for key in 0xf1..=0xfa {
            list.admission_distance = u64::MAX;
            hear_of(&mut list, key, &rules);
        }
        let not_asked = |it: &&Candidate| it.tries == 0;
        let left: Vec<u8> = list.candidates.iter().filter(not_asked).map(Candidate::place).collect();
        let expected: Vec<u8> = (0x21..=0x28).chain(0xf1..=0xf8).collect();
        assert_eq!(left, expected, "others are admitted in the place of the farthest that are put off");
    }

    #[test]
    fn whoever_was_asked_in_vain_or_is_put_off_is_unheard() {
        let (_, list, _) = flooded();
        let place = |slot| list.candidates.iter().find(|it| it.slot == slot).unwrap().place();
        let unheard: Vec<u8> = list.unheard().map(place).collect();
        let expected: Vec<u8> = (1..=16).chain(0x21..=0x30).collect();
        assert_eq!(unheard, expected, "all but the one that has answered");
        // One that is still to be asked, and not put off, may be there.
        let rules = rules(&QueryConfig::default(), None);
        let mut list = list_of(&[1, 2], &rules);
        assert_eq!(list.unheard().count(), 0);
        ask_in_vain(&mut list, 2, &rules);
        assert_eq!(list.unheard().collect::<Vec<_>>(), [place_of(&list, 2).slot]);
    }

    #[test]
    fn a_node_that_is_silent_twice_is_asked_a_third_time_where_nearly_all_answer_when_asked_again() {
        let silent = |may_retry| NoAnswer::Silent { sent: Instant::ORIGIN, is_capped: false, may_retry };
        for (retries, may_retry, most) in [(0, true, 1), (1, false, 2), (1, true, 3), (2, true, 4)] {
            let rules = rules(&QueryConfig { retries, ..QueryConfig::default() }, None);
            let mut list = list_of(&[1], &rules);
            let mut tries = 0;
            while matches!(list.candidates[0].state, State::Heard | State::Missed) {
                list.ask(0, None, false);
                tries += 1;
                let Candidate { slot, distance_prefix, .. } = list.candidates[0];
                let at = CandidateRef { path: 0, slot, distance_prefix, block: None, edge_probe: false };
                list.missed(at, silent(may_retry), &rules);
            }
            assert_eq!(tries, most, "{retries} {may_retry}");
            assert_eq!(list.candidates[0].state, State::Failed);
        }
    }
    /// A path with one slot. The nearest has waited in line so long that it has none, and the next has taken it.
    fn with_one_in_line(rules: &LookupRules, asked_before: bool) -> (CandidateList<Plain>, CandidateRef) {
        let mut list = list_of(&[1, 2, 3], rules);
        list.pin_closest(1);
        if asked_before {
            ask_in_vain(&mut list, 1, rules);
            list.rounds_without_progress = 0; // else the path is wide
        }
        let at = place_of(&list, 1);
        list.ask(0, None, false);
        list.stands_in_line(at);
        assert_eq!((list.num_waiting, list.has_waiting()), (0, true));
        list.ask(1, None, false);
        assert!(list.are_slots_full(rules));
        (list, at)
    }

    #[test]
    fn a_turn_is_given_up_where_all_slots_are_occupied_and_the_node_counts_as_not_asked() {
        let rules = rules(&QueryConfig { k: 4, alpha: 1, ..QueryConfig::default() }, None);
        let (mut list, at) = with_one_in_line(&rules, false);
        assert!(list.unheard().any(|slot| slot == at.slot));
        assert!(!list.takes_turn(at, &rules));
        let Candidate { state, tries, pending, awaited, marks, .. } = list.candidates[0];
        assert_eq!((state, tries, pending, awaited, marks), (State::Heard, 0, 0, 0, Candidate::PINNED));
        assert_eq!((list.num_waiting, list.num_heard, list.pending), (1, 2, 1));
        assert!(!list.unheard().any(|slot| slot == at.slot), "it is not taken for silent");
        // It takes a slot that is free, and holds it.
        list.answered(place_of(&list, 2), Duration::ZERO);
        list.ask(0, None, false);
        list.stands_in_line(at);
        assert!(list.takes_turn(at, &rules) && list.are_slots_full(&rules));
        assert_eq!((list.num_waiting, list.num_heard, list.pending), (1, 1, 1));
        list.answered(at, Duration::ZERO);
        assert_eq!((list.num_waiting, list.pending), (0, 0));
    }

    #[test]
    fn who_was_asked_before_and_who_is_of_the_region_takes_the_turn() {
        for (size, asked_before) in [(None, true), (Some(16), false)] {
            let rules = rules(&QueryConfig { k: 4, alpha: 1, ..QueryConfig::default() }, size);
            assert_eq!(rules.region.is_some(), size.is_some());
            let (mut list, at) = with_one_in_line(&rules, asked_before);
            assert!(list.takes_turn(at, &rules));
            assert_eq!((list.num_waiting, list.candidates[0].state), (2, State::Waiting));
        }
    }

    /// A candidate whose request is over, however that ends, stands in no line.
    #[test]
    fn what_ends_in_line_frees_no_slot_and_stands_there_no_more() {
        let rules = rules(&QueryConfig { k: 4, alpha: 1, ..QueryConfig::default() }, None);
        let ends: [fn(&mut CandidateList<Plain>, CandidateRef, &LookupRules); 3] = [
            |list, at, rules| list.missed(at, NoAnswer::Busy, rules),
            |list, at, rules| list.slow(at, false, rules.alpha),
            |list, at, _| {
                list.answered(at, Duration::ZERO);
            },
        ];
        for end in ends {
            let (mut list, at) = with_one_in_line(&rules, false);
            end(&mut list, at, &rules);
            assert_eq!((list.num_waiting, list.candidates[0].marks & Candidate::IN_LINE), (1, 0));
        }
    }
}
