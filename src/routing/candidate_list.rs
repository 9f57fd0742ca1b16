//! [`CandidateList`]: candidates by node, those that wait for a check and those being checked; whom it has room for,
//! and who goes first.
//!
//! Anybody can name nodes that do not exist, in answers, and on some transports by queries with a spoofed sender. So
//! whoever makes nodes known has a [share](Shares) of the queue, and no flood of names keeps others out:
//!
//! * A node that **answers have named** is counted in the share of the answerer that named it first: of its
//!   [group](Family::group), or of its key. A node that two different answerers have named goes before all that one has
//!   named. If there is no room, one that came earlier gives way, if its source has more candidates waiting.
//! * A node **known only by its own contact** waits in another share, which has no order: which of its nodes is checked
//!   next, and which gives way where there is no room, are random choices. So nobody can choose the moment at which a
//!   place is free, and with n contacts to each check, a contact leads to a check with a probability of 1/n, whatever the
//!   other contacts are. If a node's own group or key has taken its part of that share, one of these gives way.
//! * A node **that was good once**, and is tried whether it [has come back](crate::routing#places-to-come-back-to), goes first.
//! * A **claimant**, which has contacted this node and has the key of a node of the table, waits in a third share: at first
//!   until that one is to be checked, then until it leaves.
//!
//! Several nodes with the same key may wait, of each source one.

use crate::collections::indexed_heap::IndexedHeap;
use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use slab::Slab;
use std::collections::HashMap;

/// The most nodes with one key that wait because others have named them.
const NAMED_PER_KEY: usize = 4;
/// The most nodes with one key that wait because they have made contact, and the most of them that are claimants.
const UNSOLICITED_PER_KEY: usize = 2;
/// The most nodes of one group that wait because they have made contact.
const UNSOLICITED_PER_GROUP: usize = 4;
/// The most nodes that wait because they have made contact, however long the queue is: with more, a contact is not more
/// likely to lead to a check.
const MAX_UNSOLICITED: usize = 64;

/// Claims cause no second check of the holder of a key within this time: with each, a holder that loses messages may leave
/// the table.
const CLAIM_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// No slot.
const NONE: u32 = u32::MAX;

/// The number of candidates so far, by result. `offered` is the sum of all other fields but `listening`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncludeCounts {
    /// Candidates offered.
    pub offered: u64,
    /// Dropped because they were queued or being checked already.
    pub duplicate: u64,
    /// Dropped because the queue was full, or [their share](crate::IncludeConfig#shares) of it; or because they gave way to others.
    pub dropped: u64,
    /// Dropped because their last two checks failed, the later one less than [`retry_interval`](crate::IncludeConfig::retry_interval)
    /// ago.
    pub backed_off: u64,
    /// Dropped from the queue because the table would no longer admit them, or because they are gone or banned.
    pub unwanted: u64,
    /// Answered, and named a node.
    pub passed: u64,
    /// Failed, did not answer in time, named no node, or were never sent a request.
    pub failed: u64,
    /// Being checked.
    pub in_flight: u64,
    /// Of those being checked: beyond the soft limit, so that they keep nobody from being checked.
    pub listening: u64,
    /// Waiting.
    pub queued: u64,
}

/// Who has made a candidate known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The answer of this source, the number of a group or a key, names it.
    Answer(u64),
    /// The answer of a node that was checked only because it had made contact: all of those are one source, as
    /// anybody can make contact.
    StrangersAnswer,
    /// The caller, who does not say who named it.
    Caller,
    /// The node itself, by its contact.
    Contact,
    /// Nobody: it was good once, and is asked whether it still is.
    Returning,
}

/// A candidate, with the span that its check links to.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<F: Family> {
    pub(crate) node: F::Node,
    pub(crate) link: SpanContext,
    /// It has told about itself since its check began.
    pub(crate) has_news: bool,
    /// Who has made it known: of those that named it, the first.
    origin: Origin,
    /// Two different answerers have named it.
    is_confirmed: bool,
    /// Its last check had no answer, and it is checked once more: a message may have been lost.
    is_retried: bool,
    /// Of a claimant: when the holder of its key was last to be checked because of it.
    holder_checked: Option<Instant>,
    stage: Stage,
    /// The next candidate with the same key.
    next: u32,
}

impl<F: Family> Candidate<F> {
    fn new(node: F::Node, link: SpanContext, origin: Origin, stage: Stage) -> Self {
        let (is_confirmed, is_retried) = (false, false);
        let (has_news, holder_checked, next) = (false, None, NONE);
        Self { node, link, has_news, origin, is_confirmed, is_retried, holder_checked, stage, next }
    }

    /// Whether nobody else has named it.
    pub(crate) fn is_unsolicited(&self) -> bool {
        self.origin == Origin::Contact
    }

    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it waits, or the check of the holder of its key does, with those that nobody else has named.
    pub(crate) fn waits_unsolicited(&self) -> bool {
        matches!(self.stage, Stage::Unsolicited | Stage::Claimant)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits, named by one.
    Named,
    /// Waits, and goes first: named by two, or a claimant whose key has become free.
    Preferred,
    /// Waits, known by its own contact only.
    Unsolicited,
    /// Waits until the key that it claims is free.
    Claimant,
    /// Is being checked.
    Checked,
}

/// How many candidates may wait, by how they became known.
#[derive(Clone, Copy, Debug)]
struct Shares {
    all: usize,
    named: usize,
    /// Of those named by one, by one source.
    of_source: usize,
    unsolicited: usize,
    claimants: usize,
}

impl Shares {
    fn of(max_queued: usize) -> Self {
        let unsolicited = (max_queued / 4).clamp(1, MAX_UNSOLICITED);
        let claimants = (max_queued / 8).clamp(1, MAX_UNSOLICITED / 2);
        let named = max_queued.saturating_sub(unsolicited + claimants).max(1);
        Self { all: max_queued, named, of_source: (named / 2).max(1), unsolicited, claimants }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct CandidateList<F: Family> {
    shares: Shares,
    candidates: Slab<Candidate<F>>,
    /// By key: the first of its candidates, the latest. Never iterated.
    keys: HashMap<F::Key, u32, SeededHash>,
    /// By slot, the candidates that go first, by when they came to do so.
    preferred: IndexedHeap<u64>,
    /// By slot, the other named ones, by arrival.
    named: IndexedHeap<u64>,
    /// How many of `named` each source has. Never iterated.
    sources: HashMap<u64, u32, SeededHash>,
    /// How many of `named` strangers' answers have named.
    of_strangers: u32,
    unsolicited: Vec<u32>,
    claimants: Vec<u32>,
    /// By slot, the claimants because of which the holder of the key is to be checked, by when.
    due: IndexedHeap<Instant>,
    /// The one of `unsolicited` or `due` that is next. It stays so until its check begins.
    chosen: Option<u32>,
    arrivals: u64,
    random: Xoshiro256PlusPlus,
    pub(super) counts: IncludeCounts,
}

impl<F: Family> CandidateList<F> {
    pub(super) fn new(max_queued: usize, hash: u64, choices: u64) -> Self {
        Self {
            shares: Shares::of(max_queued),
            candidates: Slab::new(),
            keys: HashMap::with_hasher(SeededHash(hash)),
            preferred: IndexedHeap::new(),
            named: IndexedHeap::new(),
            sources: HashMap::with_hasher(SeededHash(hash)),
            of_strangers: 0,
            unsolicited: Vec::new(),
            claimants: Vec::new(),
            due: IndexedHeap::new(),
            chosen: None,
            arrivals: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(choices),
            counts: IncludeCounts::default(),
        }
    }

    /// The number of candidates that wait.
    pub(super) fn waiting(&self) -> usize {
        self.preferred.len() + self.named.len() + self.unsolicited.len() + self.claimants.len()
    }

    /// Whether a candidate waits that goes first.
    pub(super) fn has_preferred(&self) -> bool {
        self.preferred.len() > 0
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Candidate<F>> {
        self.candidates.get(slot as usize)
    }

    /// The node as it is known, if it is a candidate.
    pub(super) fn known(&self, node: &F::Node) -> Option<&F::Node> {
        self.find(node).and_then(|slot| self.get(slot)).map(|candidate| &candidate.node)
    }

    pub(super) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.candidates.iter().for_each(|(_, candidate)| visit(&candidate.node));
    }

    /// Merges what a candidate tells about itself.
    pub(super) fn told_by_itself(&mut self, node: &F::Node) {
        let Some(slot) = self.find(node) else { return };
        if let Some(candidate) = self.candidates.get_mut(slot as usize) {
            let has_news = F::update(&mut candidate.node, node, ToldBy::Itself);
            candidate.has_news |= has_news && candidate.stage == Stage::Checked;
        }
    }

    /// The candidates with a key, and their slots.
    fn of_key(&self, key: &F::Key) -> impl Iterator<Item = (u32, &Candidate<F>)> {
        let mut slot = self.keys.get(key).copied().unwrap_or(NONE);
        core::iter::from_fn(move || {
            let (at, candidate) = (slot, self.get(slot)?);
            slot = candidate.next;
            Some((at, candidate))
        })
    }

    fn find(&self, node: &F::Node) -> Option<u32> {
        if self.candidates.is_empty() {
            return None;
        }
        self.of_key(&F::key(node)).find(|(_, candidate)| candidate.node == *node).map(|(slot, _)| slot)
    }

    /// Queues a candidate. One that is there already is queued no second time, but may go earlier from now on. Without
    /// room for it, it is dropped, or it takes the place of another. Returns whether it is queued now that was not.
    pub(super) fn offer(&mut self, node: &F::Node, link: &SpanContext, origin: Origin) -> bool {
        if let Some(slot) = self.find(node) {
            self.counts.duplicate += 1;
            self.named_again(slot, origin);
            return false;
        }
        let stage = match origin {
            Origin::Contact => Stage::Unsolicited,
            Origin::Returning => Stage::Preferred,
            _ => Stage::Named,
        };
        let has_room = match stage {
            Stage::Unsolicited => self.make_unsolicited_room(node),
            Stage::Preferred => self.waiting() < self.shares.all,
            _ => self.make_named_room(&F::key(node), origin, true),
        };
        if has_room {
            let (node, link) = (node.clone(), link.clone());
            self.insert(Candidate::new(node, link, origin, stage));
        } else {
            self.counts.dropped += 1;
        }
        has_room
    }

    /// Queues a candidate once more whose check had no answer, if two have named it, or if nobody has and none has to give
    /// way. Returns whether it is queued.
    pub(super) fn retry(&mut self, candidate: &Candidate<F>) -> bool {
        let Candidate { is_confirmed, is_retried, origin, .. } = *candidate;
        let (key, group) = (F::key(&candidate.node), F::group(&candidate.node));
        let stage = if is_confirmed { Stage::Preferred } else { Stage::Unsolicited };
        let has_room = if is_confirmed {
            self.preferred.len() + self.named.len() < self.shares.named
        } else {
            origin == Origin::Contact
                && self.unsolicited.len() < self.shares.unsolicited
                && self.count_unsolicited(|other| F::key(other) == key) < UNSOLICITED_PER_KEY
                && (group.is_none()
                    || self.count_unsolicited(|other| F::group(other) == group) < UNSOLICITED_PER_GROUP)
        };
        let again = has_room && !is_retried && self.waiting() < self.shares.all;
        if again {
            self.counts.offered += 1;
            self.insert(Candidate { is_retried: true, stage, ..candidate.clone() });
        }
        again
    }

    /// A candidate was made known once more.
    fn named_again(&mut self, slot: u32, origin: Origin) {
        let Some(candidate) = self.get(slot) else { return };
        let (stage, first) = (candidate.stage, candidate.origin);
        match (stage, first, origin) {
            (Stage::Named | Stage::Checked, Origin::Answer(one), Origin::Answer(other)) if one != other => {
                if stage == Stage::Named {
                    self.set_stage(slot, Stage::Preferred);
                }
                if let Some(candidate) = self.candidates.get_mut(slot as usize) {
                    candidate.is_confirmed = true;
                }
            }
            (_, _, Origin::Contact | Origin::Returning)
            | (Stage::Claimant | Stage::Preferred | Stage::Checked, _, _) => {}
            // Strangers have named it: what counts is who else does.
            (Stage::Named, Origin::StrangersAnswer, Origin::Answer(_))
                if self.share_of(origin) < self.shares.of_source =>
            {
                self.change_origin(slot, origin);
            }
            (Stage::Unsolicited, _, _) => {
                let key = F::key(&candidate.node);
                if self.make_named_room(&key, origin, false) {
                    self.change_origin(slot, origin);
                }
            }
            _ => {}
        }
    }

    /// A candidate waits because this one has named it.
    fn change_origin(&mut self, slot: u32, origin: Origin) {
        self.leave(slot);
        if let Some(candidate) = self.candidates.get_mut(slot as usize) {
            candidate.origin = origin;
        }
        self.join(slot, Stage::Named);
    }

    /// Makes room for one more candidate with this key that others have named. `is_new`: it does not wait yet. Returns
    /// whether there is room.
    fn make_named_room(&mut self, key: &F::Key, origin: Origin, is_new: bool) -> bool {
        let shares = self.shares;
        let (mut of_key, mut of_source) = (0, 0);
        for (_, candidate) in self.of_key(key) {
            let waits = matches!(candidate.stage, Stage::Named | Stage::Preferred);
            of_key += usize::from(waits);
            of_source += usize::from(waits && candidate.origin == origin && origin != Origin::Caller);
        }
        let own = self.share_of(origin);
        if of_key >= NAMED_PER_KEY || of_source > 0 || own >= shares.of_source {
            return false;
        }
        if self.preferred.len() + self.named.len() >= shares.named {
            // The oldest gives way, if its source has more than this one would have.
            let oldest = self.named.peek().map(|(_, slot)| slot);
            let gives_way = |slot: &u32| {
                self.get(*slot).is_some_and(|candidate| self.share_of(candidate.origin) > own + 1)
            };
            let Some(oldest) = oldest.filter(gives_way) else { return false };
            self.drop_waiting(oldest);
        } else if is_new && self.waiting() >= shares.all {
            let Some(other) = self.any_unsolicited() else { return false };
            self.drop_waiting(other);
        }
        true
    }

    /// How many candidates wait that this source, and no other, has named.
    fn share_of(&self, origin: Origin) -> usize {
        match origin {
            Origin::Answer(source) => self.sources.get(&source).map_or(0, |count| *count as usize),
            Origin::StrangersAnswer => self.of_strangers as usize,
            Origin::Caller | Origin::Contact | Origin::Returning => 0,
        }
    }

    /// Queues a claimant, because of which the holder of its key is to be checked at `due`. Without room for it, it is dropped,
    /// or it takes the place of another.
    pub(super) fn claim(&mut self, node: &F::Node, link: &SpanContext, due: Instant) {
        let due = due.max(self.next_claim(&F::key(node)));
        let known = self.find(node);
        self.counts.duplicate += u64::from(known.is_some());
        match known.and_then(|slot| self.get(slot)).map(|candidate| candidate.stage) {
            None if self.make_claimant_room(&F::key(node), true) => {
                let (stage, origin) = (Stage::Claimant, Origin::Contact);
                let slot = self.insert(Candidate::new(node.clone(), link.clone(), origin, stage));
                self.due.set(slot, due);
            }
            None => self.counts.dropped += 1,
            Some(Stage::Claimant) => {
                if let Some(slot) = known {
                    self.due.set(slot, due);
                }
            }
            Some(_) => {}
        }
    }

    /// When the holder of a key may be checked again because of claims, as far as that is remembered.
    fn next_claim(&self, key: &F::Key) -> Instant {
        let checked = self.of_key(key).filter_map(|(_, claimant)| claimant.holder_checked).max();
        checked.map_or(Instant::ORIGIN, |at| at + CLAIM_RETRY_INTERVAL)
    }

    /// Makes room for one more claimant. `is_new`: it does not wait yet. Returns whether there is room.
    fn make_claimant_room(&mut self, key: &F::Key, is_new: bool) -> bool {
        let same_key = |slot: &&u32| self.get(**slot).is_some_and(|other| F::key(&other.node) == *key);
        let of_key = self.claimants.iter().filter(same_key).count();
        if of_key >= UNSOLICITED_PER_KEY {
            let choice = Self::below(&mut self.random, of_key);
            let same_key = |slot: &&u32| self.get(**slot).is_some_and(|other| F::key(&other.node) == *key);
            let other = self.claimants.iter().filter(same_key).nth(choice).copied();
            if let Some(other) = other {
                self.drop_waiting(other);
            }
        } else if self.claimants.len() >= self.shares.claimants {
            let choice = Self::below(&mut self.random, self.claimants.len());
            let other = self.claimants.get(choice).copied();
            if let Some(other) = other {
                self.drop_waiting(other);
            }
        } else if is_new && self.waiting() >= self.shares.all {
            let Some(other) = self.any_unsolicited() else { return false };
            self.drop_waiting(other);
        }
        true
    }

    /// Makes room for one more candidate that nobody else has named. Returns whether there is.
    fn make_unsolicited_room(&mut self, node: &F::Node) -> bool {
        let (key, group) = (F::key(node), F::group(node));
        let has_key = |other: &F::Node| F::key(other) == key;
        let has_group = |other: &F::Node| F::group(other) == group;
        let is_full = self.unsolicited.len() >= self.shares.unsolicited || self.waiting() >= self.shares.all;
        let gives_way = if self.count_unsolicited(has_key) >= UNSOLICITED_PER_KEY {
            self.some_unsolicited(has_key)
        } else if group.is_some() && self.count_unsolicited(has_group) >= UNSOLICITED_PER_GROUP {
            self.some_unsolicited(has_group)
        } else if is_full {
            let Some(any) = self.any_unsolicited() else { return false };
            Some(any)
        } else {
            None
        };
        if let Some(other) = gives_way {
            self.drop_waiting(other);
        }
        true
    }

    /// How many wait that nobody else has named and that are such.
    fn count_unsolicited(&self, is_such: impl Fn(&F::Node) -> bool) -> usize {
        let waiting = self.unsolicited.iter().filter_map(|slot| self.get(*slot));
        waiting.filter(|candidate| is_such(&candidate.node)).count()
    }

    /// One of these, at random.
    fn some_unsolicited(&mut self, is_such: impl Fn(&F::Node) -> bool) -> Option<u32> {
        let count = self.count_unsolicited(&is_such);
        let choice = Self::below(&mut self.random, count);
        let is_such = |slot: &&u32| self.get(**slot).is_some_and(|candidate| is_such(&candidate.node));
        self.unsolicited.iter().filter(is_such).nth(choice).copied()
    }

    /// A random number below `count`.
    fn below(random: &mut Xoshiro256PlusPlus, count: usize) -> usize {
        #[allow(clippy::cast_possible_truncation)] // less than `count`
        let number = ((u128::from(random.next_u64()) * count as u128) >> 64) as usize;
        number
    }

    /// One of those that nobody else has named, at random.
    pub(super) fn any_unsolicited(&mut self) -> Option<u32> {
        let choice = Self::below(&mut self.random, self.unsolicited.len());
        self.unsolicited.get(choice).copied()
    }

    /// When the first claimant is due, or whoever else nobody has named: that is at any time.
    pub(super) fn unsolicited_from(&self) -> Option<Instant> {
        if self.unsolicited.is_empty() { self.due.peek().map(|(at, _)| at) } else { Some(Instant::ORIGIN) }
    }

    /// The next of those that nobody else has named, claimants included: at random, of which kind, too.
    pub(super) fn next_unsolicited(&mut self, now: Instant) -> Option<u32> {
        if self.chosen.is_none() {
            let claimant = self.due.peek().filter(|(due, _)| *due <= now).map(|(_, slot)| slot);
            let is_for_claimant = self.unsolicited.is_empty() || Self::below(&mut self.random, 2) == 0;
            let is_claimant = claimant.is_some() && is_for_claimant;
            self.chosen = if is_claimant { claimant } else { self.any_unsolicited() };
        }
        self.chosen
    }

    /// The one that goes first of those that others have named.
    pub(super) fn first_named(&self) -> Option<u32> {
        self.preferred.peek().or_else(|| self.named.peek()).map(|(_, slot)| slot)
    }

    /// The check of a candidate begins. What it told before is what is checked.
    pub(super) fn begin(&mut self, slot: u32) {
        self.set_stage(slot, Stage::Checked);
        if let Some(candidate) = self.candidates.get_mut(slot as usize) {
            candidate.has_news = false;
        }
    }

    /// A candidate waits until the key that it claims is free. The holder is checked now, or at `due`, if it is to be then.
    pub(super) fn park(&mut self, slot: u32, now: Instant, due: Option<Instant>) {
        let Some(candidate) = self.get(slot) else { return };
        if candidate.stage != Stage::Claimant {
            let key = F::key(&candidate.node);
            if !self.make_claimant_room(&key, false) {
                return;
            }
            self.set_stage(slot, Stage::Claimant);
        }
        self.chosen = self.chosen.filter(|chosen| *chosen != slot);
        if let Some(due) = due {
            self.due.set(slot, due);
            return;
        }
        self.due.clear(slot);
        if let Some(candidate) = self.candidates.get_mut(slot as usize) {
            candidate.holder_checked = Some(now);
        }
    }

    /// A key is free: whoever has claimed it goes first.
    pub(super) fn key_freed(&mut self, key: &F::Key) {
        if self.claimants.is_empty() {
            return;
        }
        let claims = |(_, candidate): &(u32, &Candidate<F>)| candidate.stage == Stage::Claimant;
        loop {
            let claimant = self.of_key(key).find(claims).map(|(slot, _)| slot);
            let Some(slot) = claimant else { break };
            self.set_stage(slot, Stage::Preferred);
        }
    }

    /// Removes a candidate that waits, if the node is one.
    pub(super) fn withdraw(&mut self, node: &F::Node) {
        let waits = |slot: &u32| self.get(*slot).is_some_and(|candidate| candidate.stage != Stage::Checked);
        if let Some(slot) = self.find(node).filter(waits) {
            self.remove(slot);
            self.counts.unwanted += 1;
        }
    }

    /// Drops a candidate that waits, for want of room.
    fn drop_waiting(&mut self, slot: u32) {
        if self.remove(slot).is_some() {
            self.counts.dropped += 1;
        }
    }

    fn insert(&mut self, mut candidate: Candidate<F>) -> u32 {
        let (key, stage) = (F::key(&candidate.node), candidate.stage);
        #[allow(clippy::cast_possible_truncation)] // 2^32 candidates do not fit into the queue
        let slot = self.candidates.vacant_key() as u32;
        candidate.next = self.keys.insert(key, slot).unwrap_or(NONE);
        self.candidates.insert(candidate);
        self.join(slot, stage);
        slot
    }

    /// Removes a candidate.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Candidate<F>> {
        let candidate = self.get(slot)?;
        let (key, next) = (F::key(&candidate.node), candidate.next);
        self.leave(slot);
        let before = self.of_key(&key).find(|(_, other)| other.next == slot).map(|(before, _)| before);
        match before.and_then(|before| self.candidates.get_mut(before as usize)) {
            Some(before) => before.next = next,
            None if next == NONE => {
                self.keys.remove(&key);
            }
            None => {
                self.keys.insert(key, next);
            }
        }
        self.candidates.try_remove(slot as usize)
    }

    fn set_stage(&mut self, slot: u32, stage: Stage) {
        self.leave(slot);
        self.join(slot, stage);
    }

    /// A candidate is not where its stage has put it any more.
    fn leave(&mut self, slot: u32) {
        self.chosen = self.chosen.filter(|chosen| *chosen != slot);
        let Some((stage, origin)) = self.get(slot).map(|candidate| (candidate.stage, candidate.origin))
        else {
            return;
        };
        let list = match stage {
            Stage::Named => {
                self.named.clear(slot);
                match origin {
                    Origin::Answer(source) => {
                        if let Some(count) = self.sources.get_mut(&source) {
                            *count -= 1;
                            if *count == 0 {
                                self.sources.remove(&source);
                            }
                        }
                    }
                    Origin::StrangersAnswer => self.of_strangers -= 1,
                    Origin::Caller | Origin::Contact | Origin::Returning => {}
                }
                return;
            }
            Stage::Preferred => {
                self.preferred.clear(slot);
                return;
            }
            Stage::Checked => return,
            Stage::Unsolicited => &mut self.unsolicited,
            Stage::Claimant => {
                self.due.clear(slot);
                &mut self.claimants
            }
        };
        if let Some(at) = list.iter().position(|other| *other == slot) {
            list.swap_remove(at);
        }
    }

    /// A candidate goes where this stage puts it.
    fn join(&mut self, slot: u32, stage: Stage) {
        let Some(candidate) = self.candidates.get_mut(slot as usize) else { return };
        candidate.stage = stage;
        self.arrivals += 1;
        match stage {
            Stage::Named => {
                self.named.set(slot, self.arrivals);
                match candidate.origin {
                    Origin::Answer(source) => *self.sources.entry(source).or_insert(0) += 1,
                    Origin::StrangersAnswer => self.of_strangers += 1,
                    Origin::Caller | Origin::Contact | Origin::Returning => {}
                }
            }
            Stage::Preferred => self.preferred.set(slot, self.arrivals),
            Stage::Unsolicited => self.unsolicited.push(slot),
            Stage::Claimant => self.claimants.push(slot),
            Stage::Checked => {}
        }
    }
}

#[cfg(test)]
mod tests;
