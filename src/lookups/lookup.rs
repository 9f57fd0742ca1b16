//! [`Lookup`]: an iterative lookup (Kademlia paper, section 2.3), over one path or several disjoint paths.
//!
//! A lookup has no time, context or requests: it holds candidates in order of distance and the state of each.
//! With disjoint paths (S/Kademlia, section 4.4) each path iterates alone over what its own nodes name, no node is asked by
//! two of them, and the results are merged in the end. A node that several paths have heard of belongs to the one that asks
//! it first: a path that has been captured, and has spent its share of the node limit, keeps nothing from the others.

use crate::lookups::candidates::{Candidate, CandidateList, Elsewhere, MAX_SAME_KEY};
use crate::lookups::next_candidate::{CandidateStep, StepLimits};
use crate::lookups::region::Region;
use crate::lookups::rules::LookupRules;
use crate::lookups::values::ValueTally;
use crate::operations::task::NoAnswer;
use crate::requests::purpose::{Attempt, Block, CandidateRef};
use crate::vocabulary::family::{Family, Group};
use crate::vocabulary::key::Key;
use crate::vocabulary::local_node::LocalNode;
use crate::vocabulary::operation_events::{Carried, Contact, Outcome, ValueReport};
use crate::vocabulary::region::RegionReport;
use crate::vocabulary::request_events::Verdict;
use crate::vocabulary::target::Target;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use smallvec::SmallVec;

#[derive(Clone, Debug)]
pub(crate) struct Lookup<F: Family> {
    local: F::Key,
    family: F,
    target: F::Target,
    rules: LookupRules,
    /// Nodes to begin with; once [begun](Self::begin), those for which there was no room.
    seeds: Vec<F::Node>,
    paths: SmallVec<[CandidateList<F>; 1]>,
    /// Nodes asked so far.
    asked: u16,
    /// It has starved, and there were no further nodes to begin with.
    was_given_none: bool,
    /// See [`seeds_wanted`](Self::seeds_wanted).
    seeds_wanted: usize,
    /// What answers have carried.
    values: ValueTally,
}

/// How the paths of a lookup have ended.
#[derive(Clone, Copy, Debug, Default)]
struct PathEnds {
    converged: bool,
    unsure: bool,
    node_limit: bool,
}

/// What [`Lookup::next`] decided.
#[derive(Clone, Debug)]
pub(crate) enum LookupStep<F: Family> {
    /// Ask this node; it counts as asked from now on.
    Ask {
        candidate: CandidateRef,
        node: F::Node,
        hop: u16,
        attempt: Attempt,
    },
    /// Wait for pending requests.
    Wait,
    /// Nothing is left to ask, and fewer than k nodes have answered: the lookup wants further nodes to begin with. Once
    /// it has been [given](Lookup::add_seeds) none, this does not come again.
    Starved,
    Done(LookupEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupEnd {
    Converged,
    StoppedEarly,
    Unsure,
    AllFound,
    Exhausted,
    Unreachable,
    NodeLimit,
}

impl From<LookupEnd> for Outcome {
    fn from(done: LookupEnd) -> Self {
        match done {
            LookupEnd::Converged => Self::Converged,
            LookupEnd::StoppedEarly => Self::StoppedEarly,
            LookupEnd::Unsure => Self::Unsure,
            LookupEnd::AllFound => Self::AllFound,
            LookupEnd::Exhausted => Self::Exhausted,
            LookupEnd::Unreachable => Self::Unreachable,
            LookupEnd::NodeLimit => Self::NodeLimit,
        }
    }
}

impl<F: Family> Lookup<F> {
    pub(crate) fn new(
        local: &LocalNode<F>,
        target: F::Target,
        rules: LookupRules,
        seeds: Vec<F::Node>,
    ) -> Self {
        let (local, family) = (*local.key(), local.family.clone());
        Self {
            local,
            family,
            target,
            rules,
            seeds,
            paths: SmallVec::new(),
            asked: 0,
            was_given_none: false,
            seeds_wanted: 0,
            values: ValueTally::default(),
        }
    }

    /// The caller holds a valid value of this version itself, or none.
    pub(crate) const fn hold(&mut self, version: Option<u64>) {
        self.values = ValueTally::of_caller(version);
    }

    /// How many have the newest valid value, the caller included.
    pub(crate) fn value_holders(&self) -> usize {
        self.values.holders()
    }

    pub(crate) const fn target(&self) -> &F::Target {
        &self.target
    }

    /// The key of the target.
    #[inline]
    pub(crate) fn key(&self) -> F::Key {
        self.target.key()
    }

    /// What this candidate is asked about: the target, or the point of a block that is nearest to it. If the family knows none
    /// there, a node of that block is asked about itself, and any other about the target.
    pub(crate) fn target_for(&self, at: CandidateRef, node: &F::Node) -> F::Target {
        let Some(block) = at.block else { return self.target.clone() };
        let lies_there = Block::around(at.distance_prefix, block.len).first == block.first;
        let near = self.family.target_near(block.point(&self.key()), block.len.into());
        near.or_else(|| if lies_there { F::target_of(node) } else { None })
            .unwrap_or_else(|| self.target.clone())
    }

    /// Whether the point that this candidate was asked about is that of the block, not something near it.
    fn is_asked_exactly(&self, at: CandidateRef) -> bool {
        let Some(block) = at.block else { return true };
        let path = self.paths.get(usize::from(at.path));
        path.and_then(|path| path.contacts.get(usize::from(at.slot)))
            .is_some_and(|contact| self.target_for(at, &contact.node).key() == block.point(&self.key()))
    }

    /// Allocates the paths and distributes the seeds among them, closest first. The closest seeds (up to half
    /// of `max_candidates`) are pinned, so that peers that name made-up close nodes cannot remove the nodes
    /// that the caller knew before.
    pub(crate) fn begin(&mut self) {
        // Enough for a lookup in a healthy network, so that nothing is allocated later.
        let (k, most) = (usize::from(self.rules.k), usize::from(self.rules.max_candidates));
        let seeds = self.seeds.len().min(most);
        let capacity = (k * 5 / 2)
            .max(seeds + k * 3 / 2)
            .min(most + usize::from(self.rules.max_nodes / self.rules.paths));
        self.paths = (0..self.rules.paths).map(|_| CandidateList::with_capacity(capacity)).collect();
        // The farther ones are kept for the case that these do not answer.
        let seeds = self.take_nearest_seeds();
        self.seeds_wanted = 2 * k;
        self.insert_seeds(seeds);
        for path in &mut self.paths {
            path.pin_closest((most / 2).max(1));
        }
    }

    /// Takes the nearest nodes to begin with, as many as there is room for.
    fn take_nearest_seeds(&mut self) -> Vec<F::Node> {
        let most = usize::from(self.rules.max_candidates);
        let mut seeds = core::mem::take(&mut self.seeds);
        if seeds.len() > most {
            let target = self.key();
            seeds.retain(|node| F::key(node) != self.local && self.family.admits(node));
            // By the whole distance, as anybody may claim keys that begin alike.
            seeds.sort_by_key(|node| F::key(node).distance(&target));
            let mut once: Vec<F::Node> = Vec::with_capacity(seeds.len());
            for node in seeds {
                let mut alike = once.iter().rev().take_while(|other| F::key(other) == F::key(&node));
                if alike.by_ref().take(MAX_SAME_KEY).all(|other| *other != node) {
                    once.push(node);
                }
            }
            self.seeds = once.split_off(most.min(once.len()));
            seeds = once;
        }
        seeds
    }

    /// Distributes nodes to begin with among the paths.
    fn insert_seeds(&mut self, mut seeds: Vec<F::Node>) {
        let target = self.key();
        let paths = self.paths.len();
        if paths > 1 {
            seeds.sort_by_key(|node| F::key(node).distance(&target));
        }
        let (mut num_dealt, mut after_last) = (0, 0);
        for node in seeds {
            let (key, number) = (F::key(&node), num_dealt % paths.max(1));
            let distance_prefix = key.leading() ^ target.leading();
            if key == self.local || !self.family.admits(&node) {
                continue;
            }
            // Most come in order of distance.
            let is_next = paths == 1
                && self.paths.first().is_some_and(|path| path.is_place(after_last, distance_prefix));
            let place = if is_next {
                Ok(after_last)
            } else {
                insertion_rank(&self.paths, number, &target, distance_prefix, &node, |_, _| true)
            };
            if let Ok(rank) = place
                && let Some(path) = self.paths.get_mut(number)
            {
                let candidate = Candidate::new(distance_prefix);
                num_dealt += usize::from(path.insert(rank, candidate, || node, (1, None), &self.rules));
                after_last = rank + 1;
            }
        }
    }

    /// What to do now. To be called until it returns something else than `Ask`.
    pub(crate) fn next(&mut self, now: Instant) -> LookupStep<F> {
        let all_asked = self.asked >= self.rules.max_nodes;
        // Each of several paths has its share, so that one cannot spend what the others need.
        let share = usize::from(self.rules.max_nodes.div_ceil(self.rules.paths));
        let (mut waits, mut starves, mut ends) = (false, false, PathEnds::default());
        let may_be_given = !self.was_given_none || !self.seeds.is_empty();
        for (number, path) in (0..).zip(&mut self.paths) {
            let at_limit = all_asked || self.rules.paths > 1 && path.num_asked() >= share;
            let limits = StepLimits { at_limit, has_seeds: !all_asked && may_be_given };
            match path.step(&self.rules, limits, now) {
                CandidateStep::Ask { rank, block, edge_probe } if !at_limit || path.was_asked(rank) => {
                    if let Some(candidate) = path.ask(rank, block, edge_probe)
                        && let Some(contact) = path.contacts.get(usize::from(candidate.slot))
                    {
                        let at = CandidateRef {
                            path: number,
                            slot: candidate.slot,
                            distance_prefix: candidate.distance_prefix,
                            block,
                            edge_probe,
                        };
                        let (node, hop) = (contact.node.clone(), contact.hop);
                        self.asked += u16::from(candidate.tries == 1);
                        if edge_probe && block.is_some() && self.target_for(at, &node).key() == self.key() {
                            // The wire format cannot ask about the block: it would be one more question about the target.
                            self.undo_ask(at);
                            if let Some(path) = self.paths.get_mut(usize::from(number)) {
                                // Not even about itself: then no more are asked.
                                let is_own = candidate.block_len > 0 && !candidate.asks_elsewhere();
                                path.edge_probes = if is_own { u16::MAX } else { path.edge_probes };
                                path.elsewhere = Elsewhere::Impossible;
                            }
                            return self.next(now);
                        }
                        if candidate.tries == 1 && self.rules.paths > 1 {
                            self.claim(number, candidate.distance_prefix, &node);
                        }
                        let attempt = match (candidate.tries, candidate.awaited) {
                            (..=1, _) => Attempt::First,
                            (_, ..=1) => Attempt::Again,
                            _ => Attempt::Hedge,
                        };
                        return LookupStep::Ask { candidate: at, node, hop, attempt };
                    }
                }
                CandidateStep::Ask { .. } | CandidateStep::Spent if path.is_idle() => ends.node_limit = true,
                CandidateStep::Ask { .. } | CandidateStep::Spent | CandidateStep::Wait => waits = true,
                CandidateStep::Listening => (waits, starves) = (true, true),
                CandidateStep::Converged { unsure } => {
                    ends.unsure |= unsure;
                    ends.converged = true;
                }
                CandidateStep::Exhausted => starves = true,
            }
        }
        if starves && !all_asked {
            if !self.seeds.is_empty() {
                let seeds = self.take_nearest_seeds();
                self.insert_seeds(seeds);
                return self.next(now);
            }
            if !self.was_given_none {
                return LookupStep::Starved;
            }
        }
        if waits { LookupStep::Wait } else { LookupStep::Done(self.end(ends)) }
    }

    /// This path asks a node: the others do not.
    fn claim(&mut self, number: u16, distance_prefix: u64, node: &F::Node) {
        let target = self.key();
        let others = (0..).zip(&mut self.paths).filter(|(other, _)| *other != number);
        others.for_each(|(_, path)| path.give_up(&target, distance_prefix, node));
    }

    /// [`next`](Self::next), of a lookup that is given no further nodes to begin with.
    pub(crate) fn next_of_seeds(&mut self, now: Instant) -> LookupStep<F> {
        match self.next(now) {
            LookupStep::Starved => {
                self.was_given_none = true;
                self.next(now)
            }
            step => step,
        }
    }

    /// How the lookup ends, as all paths have ended.
    fn end(&self, ends: PathEnds) -> LookupEnd {
        let PathEnds { converged, unsure, node_limit } = ends;
        if node_limit {
            LookupEnd::NodeLimit
        } else if converged && unsure {
            LookupEnd::Unsure
        } else if converged {
            if self.rules.beta < self.rules.k { LookupEnd::StoppedEarly } else { LookupEnd::Converged }
        } else if self.paths.iter().all(CandidateList::has_no_answer) {
            LookupEnd::Unreachable
        } else if self.paths.iter().all(|path| path.are_all_there_are(&self.rules)) {
            LookupEnd::AllFound
        } else {
            LookupEnd::Exhausted
        }
    }

    /// How many nodes it wanted to begin with so far: further ones are to be farther than as many closest.
    pub(crate) const fn seeds_wanted(&self) -> usize {
        self.seeds_wanted
    }

    /// Gives the lookup further nodes to begin with, after it has [starved](LookupStep::Starved). None ends its wishes.
    pub(crate) fn add_seeds(&mut self, seeds: Vec<F::Node>) {
        self.was_given_none = seeds.is_empty();
        self.seeds_wanted += seeds.len();
        self.insert_seeds(seeds);
    }

    /// When [`next`](Self::next) is to be called again although nothing has happened, after it returned `Wait`.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.paths.iter().filter_map(|path| path.hold_until).min()
    }

    /// The [timer](Self::timer) is due, if it is not after `now`.
    pub(crate) fn elapse(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.hold_until = path.hold_until.filter(|until| *until > now);
        }
    }

    /// Reverts an [`LookupStep::Ask`] whose request could not be submitted.
    pub(crate) fn undo_ask(&mut self, at: CandidateRef) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path))
            && path.undo_ask(at)
        {
            self.asked -= 1;
        }
    }

    /// To be called right after the node was asked: whether it had timed out, and is [live](Self::visit_live)
    /// again by this request.
    pub(crate) fn is_revived(&mut self, at: CandidateRef) -> bool {
        self.paths.get_mut(usize::from(at.path)).is_some_and(|path| path.is_revived(at))
    }

    /// The node answered where this says that it is.
    #[inline]
    pub(crate) fn answered_at(&mut self, at: CandidateRef, node: &F::Node) {
        if F::NODES_CHANGE
            && let Some(path) = self.paths.get_mut(usize::from(at.path))
            && let Some(contact) = path.contacts.get_mut(usize::from(at.slot))
            && contact.node == *node
        {
            contact.node.clone_from(node);
        }
    }

    /// The node answered `elapsed` after the request, and named the nodes `closer`. `value`: what the answer
    /// carried besides; `None` if it does not tell. Returns the number of other pending requests to it, which are superseded.
    pub(crate) fn answered(
        &mut self,
        at: CandidateRef,
        elapsed: Duration,
        closer: &[F::Node],
        value: Option<Verdict>,
    ) -> u8 {
        let (number, target, is_exact) = (usize::from(at.path), self.key(), self.is_asked_exactly(at));
        let paths = self.paths.as_mut_slice();
        let Some(path) = paths.get_mut(number) else { return 0 };
        let superseded = path.answered(at, elapsed);
        let Some(contact) = path.contacts.get_mut(usize::from(at.slot)) else { return superseded };
        contact.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        // A question about another point than the target says nothing of the value.
        let is_about_value = at.block.is_none() || self.rules.finds;
        let mut is_newer = false;
        if let Some(verdict) = value.filter(|_| is_about_value) {
            let carried;
            (carried, is_newer) = self.values.enter(contact.carried, verdict, (at.path, at.slot));
            contact.carried = carried;
        }
        let hop = contact.hop.saturating_add(1);
        if is_newer {
            self.values_are_older(at);
        }
        let paths = self.paths.as_mut_slice();
        let target_prefix = target.leading();
        let mut kth = None;
        // How many of the k closest the answer is the first to name. More than a sixteenth of k, or of all that it names, are progress.
        let (mut gained, mut progress) = (0, false);
        // One answer fills at most half of the candidate list, so that one dishonest node cannot fill it.
        let mut quota = (self.rules.max_candidates / 2).max(1);
        // Most answers are in order of distance and name known nodes: first compare with the candidate after
        // the last match.
        let mut cursor = 0;
        let closer = closer.get(..usize::from(self.rules.max_closer_nodes)).unwrap_or(closer);
        let few = closer.len().min(self.rules.k.into()) / 16;
        let crowded = crowded_groups::<F>(closer, self.rules.max_per_group);
        for node in closer {
            if !crowded.is_empty()
                && F::group(node).is_some_and(|group| crowded.binary_search(&group).is_ok())
            {
                continue;
            }
            let key = F::key(node);
            let distance_prefix = key.leading() ^ target_prefix;
            // Fast path: most nodes of an answer end here, without a search or a clone.
            let Some(path) = paths.get_mut(number) else { return superseded };
            if path.is_at(cursor, distance_prefix, node) {
                path.told_by_others(cursor, node, at.slot);
                cursor += 1;
                continue;
            }
            if distance_prefix > path.admission_distance || key == self.local || !self.family.admits(node) {
                continue;
            }
            // Most new nodes come in order too: their place is right after the last one.
            let is_next =
                paths.len() == 1 && paths.first().is_some_and(|path| path.is_place(cursor, distance_prefix));
            let place = if is_next {
                Ok(cursor)
            } else {
                let was_asked = |path: &CandidateList<F>, rank| !path.is_heard(rank);
                insertion_rank(paths, number, &target, distance_prefix, node, was_asked)
            };
            let rank = match place {
                Ok(rank) => rank,
                Err(known) => {
                    if let Some(path) = paths.get_mut(number) {
                        path.told_by_others(known, node, at.slot);
                    }
                    cursor = known + 1;
                    continue;
                }
            };
            cursor = rank + 1;
            let Some(path) = paths.get_mut(number) else { return superseded };
            let kth = *kth.get_or_insert_with(|| path.kth_distance(&target, self.rules.k));
            let taken = path.insert(
                rank,
                Candidate::new(distance_prefix),
                || node.clone(),
                (hop, Some(at)),
                &self.rules,
            );
            quota -= u16::from(taken);
            if taken && !progress && kth.is_none_or(|kth| key.distance(&target) < kth) {
                gained += 1;
                progress = gained > few;
            }
            if quota == 0 {
                break;
            }
        }
        if let Some(path) = paths.get_mut(number) {
            let distance = |node: &F::Node| F::key(node).leading() ^ target_prefix;
            let ends =
                closer.first().zip(closer.last()).map(|(first, last)| (distance(first), distance(last)));
            // A bucket that is empty tells of its block, too.
            if let Some(ends) = ends.or(self.rules.names_buckets.then_some((0, 0))) {
                path.cover(at, closer.len(), ends, is_exact, &self.rules);
            }
            path.rounds_without_progress =
                if progress { 0 } else { path.rounds_without_progress.saturating_add(1) };
        }
        superseded
    }

    /// The answer of this candidate carried a newer value than all others.
    #[cold]
    fn values_are_older(&mut self, than: CandidateRef) {
        for (number, path) in (0..).zip(&mut self.paths) {
            for (slot, contact) in (0..).zip(&mut path.contacts) {
                if contact.carried == Carried::Newest && (number, slot) != (than.path, than.slot) {
                    contact.carried = Carried::Older;
                }
            }
        }
    }

    /// A request to the node ended without an answer.
    pub(crate) fn missed(&mut self, at: CandidateRef, miss: NoAnswer) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.missed(at, miss, &self.rules);
        }
    }

    /// A node failed by other means than a request of the lookup.
    pub(crate) fn mark_failed(&mut self, node: &F::Node) {
        let target = self.key();
        let distance_prefix = F::key(node).leading() ^ target.leading();
        for path in &mut self.paths {
            if let Err(rank) = path.insertion_rank(&target, distance_prefix, node)
                && path.is_at(rank, distance_prefix, node)
            {
                path.mark_failed(rank);
            }
        }
    }

    /// A queued request to the node was dropped before it was sent.
    pub(crate) fn not_sent(&mut self, at: CandidateRef) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.not_sent(at);
        }
    }

    /// A request to the node passed the soft limit: it no longer occupies a slot, but may still be answered.
    /// `may_repeat`: the node may be asked again.
    pub(crate) fn slow(&mut self, at: CandidateRef, may_repeat: bool) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.slow(at, may_repeat, self.rules.alpha);
        }
    }

    /// A request to the node waits in line there, without a slot.
    pub(crate) fn stands_in_line(&mut self, at: CandidateRef) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.stands_in_line(at);
        }
    }

    /// The turn of a request to the node has come; `false` if it is not to be sent, as all slots are occupied.
    pub(crate) fn takes_turn(&mut self, at: CandidateRef) -> bool {
        let path = self.paths.get_mut(usize::from(at.path));
        let takes_turn = path.is_none_or(|path| path.takes_turn(at, &self.rules));
        self.asked -= u16::from(!takes_turn);
        takes_turn
    }

    /// Visits the candidates that have neither timed out nor failed, in order of distance, until `visit` returns
    /// `false`. Its arguments: a number that identifies the candidate, its contact, and whether it has answered.
    pub(crate) fn visit_live(&self, mut visit: impl FnMut(u32, &Contact<F>, bool) -> bool) {
        if let [path] = self.paths.as_slice() {
            for (slot, contact, answered) in path.live() {
                if !visit(visit_id(0, slot), contact, answered) {
                    return;
                }
            }
            return;
        }
        let each = (0..).zip(&self.paths);
        let mut all: SmallVec<[_; 64]> =
            each.flat_map(|(number, path)| path.live().map(move |it| (number, it))).collect();
        let target = self.key();
        all.sort_by_key(|(_, (_, contact, answered))| (F::key(&contact.node).distance(&target), !answered));
        let mut from = 0;
        for (rank, (number, (slot, contact, answered))) in all.iter().enumerate() {
            // Several paths may have heard of it.
            let is_alike =
                |it: &&(u16, (u16, &Contact<F>, bool))| F::key(&it.1.1.node) == F::key(&contact.node);
            from = if all.get(from).as_ref().is_some_and(is_alike) { from } else { rank };
            let mut before = all.get(from..rank).unwrap_or_default().iter();
            if before.any(|(_, (_, other, _))| other.node == contact.node) {
                continue;
            }
            if !visit(visit_id(*number, *slot), contact, *answered) {
                return;
            }
        }
    }

    /// Visits all candidates and seeds.
    pub(crate) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.seeds.iter().for_each(&mut *visit);
        self.paths.iter().flat_map(|path| &path.contacts).for_each(|contact| visit(&contact.node));
    }

    /// The closest nodes that have answered so far, in order of distance; at most `num_results`.
    pub(crate) fn closest(&self) -> Vec<Contact<F>> {
        let mut closest = Vec::new();
        let most = usize::from(self.rules.num_results);
        self.visit_live(|_, contact, answered| {
            closest.extend(answered.then(|| contact.clone()));
            closest.len() < most
        });
        closest
    }

    /// What was found in the region of the target, if it was looked for.
    pub(crate) fn region_report(&self) -> Option<RegionReport> {
        let region = self.rules.region?;
        let target = self.key().leading();
        let chosen = self.chosen(&region, false);
        let distances = || chosen.iter().map(|contact| F::key(&contact.node).leading() ^ target);
        Some(region.report(distances(), distances().map(|distance| (distance, false)), core::iter::empty()).0)
    }

    /// What the answers have carried.
    pub(crate) fn value_report(&self) -> ValueReport<F> {
        let mut report = ValueReport { newest: self.values.newest(), ..ValueReport::default() };
        if self.values.is_any() {
            report.valid = self.values.count();
            for contact in self.paths.iter().flat_map(|path| &path.contacts) {
                report.older += u32::from(contact.carried == Carried::Older);
                report.invalid += u32::from(contact.carried == Carried::Invalid);
            }
            report.first = self.values.first().and_then(|(path, slot)| {
                let contact = self.paths.get(usize::from(path))?.contacts.get(usize::from(slot))?;
                Some(contact.node.clone())
            });
        }
        report
    }

    /// The distances of the nodes that have answered, and of those that are known within the region and were not asked. Not those that were
    /// asked and have not answered, nor those [put off](crate::lookups::credit): they are easily made up.
    pub(crate) fn known_in_region(&self) -> Vec<u64> {
        let Some(region) = self.rules.region else { return Vec::new() };
        let (target, mut known) = (self.key().leading(), Vec::new());
        let mut unheard: Vec<_> = (0..)
            .zip(&self.paths)
            .flat_map(|(number, path)| path.unheard().map(move |slot| visit_id(number, slot)))
            .collect();
        unheard.sort_unstable();
        self.visit_live(|id, contact, has_answered| {
            let distance = F::key(&contact.node).leading() ^ target;
            let counts = has_answered || distance <= region.reach(0) && unheard.binary_search(&id).is_err();
            known.extend(counts.then_some(distance));
            true
        });
        known
    }

    /// The nodes to store with: the closest that have answered, and others of the region. `unanswered`: there too those that
    /// are known and have not answered yet, as if they had.
    pub(crate) fn stores(&self, unanswered: bool) -> Vec<Contact<F>> {
        self.rules.region.map_or_else(|| self.closest(), |region| self.chosen(&region, unanswered))
    }

    /// The nodes of the region that have answered, as many as the bound allows, and at least the k closest.
    fn chosen(&self, region: &Region, unanswered: bool) -> Vec<Contact<F>> {
        let mut nodes = Vec::new();
        let mut answered: SmallVec<[bool; 128]> = SmallVec::new();
        self.visit_live(|_, contact, has_answered| {
            if has_answered || unanswered {
                nodes.push(contact.clone());
                answered.push(has_answered);
            }
            true
        });
        let picked = region.select(self.key().leading(), &nodes, &answered, self.rules.max_per_group);
        let mut picked = picked.into_iter();
        nodes.retain(|_| picked.next().unwrap_or(false));
        nodes
    }

    /// The [closest](Self::closest), of a lookup that is over. With one path nothing is allocated: the lookup's own memory is
    /// reused.
    pub(crate) fn into_closest(mut self) -> Vec<Contact<F>> {
        let (target, most) = (self.key(), usize::from(self.rules.num_results));
        match self.paths.as_mut_slice() {
            [path] => path.drain_closest(most),
            [] => Vec::new(),
            paths => {
                let mut all: Vec<_> = paths.iter_mut().flat_map(|path| path.drain_closest(most)).collect();
                all.sort_by_key(|contact| F::key(&contact.node).distance(&target));
                all.truncate(most);
                all
            }
        }
    }
}

/// The groups of which an answer names more than `limit` nodes, in order.
fn crowded_groups<F: Family>(answer: &[F::Node], limit: usize) -> SmallVec<[Group; 8]> {
    let mut groups: SmallVec<[Group; 64]> = answer.iter().filter_map(F::group).collect();
    groups.sort_unstable();
    let crowds = groups.chunk_by(|a, b| a == b).filter(|crowd| crowd.len() > limit);
    crowds.filter_map(|crowd| crowd.first().copied()).collect()
}

/// The rank at which path `number` is to insert a node; `Err` with its rank if that path has it, or another has it where it
/// [counts](Fn).
fn insertion_rank<F: Family>(
    paths: &[CandidateList<F>],
    number: usize,
    target: &F::Key,
    distance_prefix: u64,
    node: &F::Node,
    counts: impl Fn(&CandidateList<F>, usize) -> bool,
) -> Result<usize, usize> {
    let mut rank = 0;
    for (other, path) in paths.iter().enumerate() {
        let place = path.insertion_rank(target, distance_prefix, node);
        match place {
            _ if other == number => rank = place?,
            Err(known) if counts(path, known) => return Err(known),
            _ => {}
        }
    }
    Ok(rank)
}

/// The number of a candidate that is [visited](Lookup::visit_live).
fn visit_id(path: u16, slot: u16) -> u32 {
    u32::from(path) << 16 | u32::from(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Group, Key8, QueryConfig, Start};

    /// An 8-bit key, and the group: 0 is none.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Grouped;

    impl Family for Grouped {
        type Key = Key8;
        type Target = Key8;
        type Node = (u8, u8);
        type Message = ();

        fn key(node: &(u8, u8)) -> Key8 {
            Key8::new([node.0])
        }

        fn group(node: &(u8, u8)) -> Option<Group> {
            (node.1 != 0).then_some(Group(u64::from(node.1)))
        }
    }

    /// A lookup of key 0 by the node 0xaa, which has just asked its only seed, 255.
    fn lookup(config: &QueryConfig) -> (Lookup<Grouped>, CandidateRef) {
        let target = Key8::new([0]);
        let rules = config.rules::<Grouped>(&Start::find(1, target), Grouped.answers(), None, false);
        let mut lookup = Lookup::new(&LocalNode::new(Key8::new([0xaa])), target, rules, vec![(255, 0)]);
        lookup.begin();
        let LookupStep::Ask { candidate: at, .. } = step(&mut lookup) else { panic!("a seed to ask") };
        (lookup, at)
    }

    fn asked(lookup: &mut Lookup<Grouped>) -> Vec<u8> {
        core::iter::from_fn(|| match step(lookup) {
            LookupStep::Ask { node, .. } => Some(node.0),
            _ => None,
        })
        .collect()
    }

    fn step(lookup: &mut Lookup<Grouped>) -> LookupStep<Grouped> {
        lookup.next_of_seeds(Instant::ORIGIN)
    }

    #[test]
    fn a_turn_that_is_given_up_does_not_count_towards_the_limit_of_nodes() {
        let (mut lookup, at) = lookup(&QueryConfig { alpha: 1, ..QueryConfig::default() });
        lookup.stands_in_line(at);
        lookup.add_seeds(vec![(254, 0)]);
        let LookupStep::Ask { attempt: Attempt::First, .. } = step(&mut lookup) else { panic!("another") };
        assert_eq!((lookup.asked, lookup.takes_turn(at), lookup.asked), (2, false, 1));
    }

    #[test]
    fn one_group_does_not_fill_an_answer() {
        let (mut lookup, at) = lookup(&QueryConfig { alpha: 20, ..QueryConfig::default() });
        let nodes =
            [(1, 7), (2, 7), (3, 7), (4, 7), (5, 9), (6, 9), (7, 9), (8, 0), (9, 0), (10, 0), (11, 0)];
        lookup.answered(at, Duration::ZERO, &nodes, None);
        assert_eq!(asked(&mut lookup), [5, 6, 7, 8, 9, 10, 11], "four of group 7 are too many");
    }

    #[test]
    fn nodes_to_begin_with_that_are_given_twice_take_one_place() {
        let config = QueryConfig { k: 2, max_candidates: 4, alpha: 10, ..QueryConfig::default() };
        let rules = config.rules::<Grouped>(&Start::find(1, Key8::new([0])), Grouped.answers(), None, false);
        // Two at one key, of which one is given twice.
        let seeds = vec![(9, 1), (5, 0), (9, 2), (9, 1), (7, 0), (5, 0)];
        let mut lookup =
            Lookup::<Grouped>::new(&LocalNode::new(Key8::new([0xaa])), Key8::new([0]), rules, seeds);
        lookup.begin();
        assert!(lookup.seeds.is_empty(), "there is room for all: {:?}", lookup.seeds);
        assert_eq!(lookup.paths[0].candidates.len(), 4);
    }

    #[test]
    fn liars_do_not_push_out_what_was_known() {
        let config =
            QueryConfig { k: 2, max_candidates: 4, max_nodes: 8, alpha: 1, ..QueryConfig::default() };
        let rules = config.rules::<Grouped>(&Start::find(1, Key8::new([0])), Grouped.answers(), None, false);
        let seeds = vec![(200, 0), (201, 0), (202, 0)];
        let mut lookup =
            Lookup::<Grouped>::new(&LocalNode::new(Key8::new([0xaa])), Key8::new([0]), rules, seeds);
        lookup.begin();
        let LookupStep::Ask { candidate: at, node, .. } = step(&mut lookup) else { panic!("a seed to ask") };
        assert_eq!(node.0, 200);
        lookup.answered(at, Duration::ZERO, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)], None);
        // Each of the made-up nodes fails; the second seed, which is kept, is asked in the end.
        let mut order = Vec::new();
        while let LookupStep::Ask { candidate: at, node, .. } = step(&mut lookup) {
            order.push(node.0);
            lookup.missed(at, NoAnswer::Failed);
        }
        assert_eq!(order, [1, 2, 201, 202], "a liar has half of the room");
    }
}
