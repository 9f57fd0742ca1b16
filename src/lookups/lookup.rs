//! [`Lookup`]: an iterative lookup (Kademlia paper, section 2.3), over one path or several disjoint paths.
//!
//! A lookup has no time, context or requests: it holds candidates in order of distance and the state of each.
//! With disjoint paths (S/Kademlia, section 4.4) each path iterates alone, no node is in two of them, and the
//! results are merged in the end.

use crate::lookups::candidates::{Candidate, CandidateList};
use crate::lookups::next_candidate::CandidateStep;
use crate::lookups::rules::LookupRules;
use crate::operations::task::NoAnswer;
use crate::requests::purpose::CandidateRef;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key;
use crate::vocabulary::operation_events::{Contact, Outcome};
use core::time::Duration;
use smallvec::SmallVec;

#[derive(Clone, Debug)]
pub(crate) struct Lookup<F: Family> {
    local: F::Key,
    target: F::Key,
    rules: LookupRules,
    /// Nodes to begin with; empty once [begun](Self::begin).
    seeds: Vec<F::Node>,
    paths: SmallVec<[CandidateList<F>; 1]>,
    /// Nodes asked so far.
    asked: u16,
}

/// What [`Lookup::next`] decided.
#[derive(Clone, Debug)]
pub(crate) enum LookupStep<F: Family> {
    /// Ask this node; it counts as asked from now on. `is_hedge`: an earlier request to it is still pending.
    Ask {
        candidate: CandidateRef,
        node: F::Node,
        hop: u16,
        is_hedge: bool,
    },
    /// Wait for pending requests.
    Wait,
    Done(LookupEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupEnd {
    Converged,
    Exhausted,
    NodeLimit,
}

impl From<LookupEnd> for Outcome {
    fn from(done: LookupEnd) -> Self {
        match done {
            LookupEnd::Converged => Self::Converged,
            LookupEnd::Exhausted => Self::Exhausted,
            LookupEnd::NodeLimit => Self::NodeLimit,
        }
    }
}

impl<F: Family> Lookup<F> {
    pub(crate) fn new(local: F::Key, target: F::Key, rules: LookupRules, seeds: Vec<F::Node>) -> Self {
        Self { local, target, rules, seeds, paths: SmallVec::new(), asked: 0 }
    }

    pub(crate) const fn target(&self) -> F::Key {
        self.target
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
        let mut seeds = core::mem::take(&mut self.seeds);
        let target = self.target;
        let paths = self.paths.len();
        if paths > 1 {
            seeds.sort_by_key(|node| F::key(node).distance(&target));
        }
        let mut num_dealt = 0;
        for node in seeds {
            let (key, path) = (F::key(&node), num_dealt % paths);
            let distance_prefix = key.leading() ^ target.leading();
            if key != self.local
                && F::admits(&node)
                && let Ok(rank) = insertion_rank(&self.paths, path, &target, distance_prefix, &node)
                && let Some(path) = self.paths.get_mut(path)
            {
                num_dealt +=
                    usize::from(path.insert(rank, Candidate::new(distance_prefix), || node, 1, &self.rules));
            }
        }
        for path in &mut self.paths {
            path.pin_closest((most / 2).max(1));
        }
    }

    /// What to do now. To be called until it returns something else than `Ask`.
    pub(crate) fn next(&mut self) -> LookupStep<F> {
        let mut done = Some(LookupEnd::Exhausted);
        let at_limit = self.asked >= self.rules.max_nodes;
        for (number, path) in (0..).zip(&mut self.paths) {
            match path.step(&self.rules, at_limit) {
                CandidateStep::Ask { rank, edge_bit, edge_probe } if !at_limit || path.was_asked(rank) => {
                    if let Some(candidate) = path.ask(rank, edge_bit, edge_probe)
                        && let Some(contact) = path.contacts.get(usize::from(candidate.slot))
                    {
                        self.asked += u16::from(candidate.tries == 1);
                        let at = CandidateRef {
                            path: number,
                            slot: candidate.slot,
                            distance_prefix: candidate.distance_prefix,
                            edge_bit,
                            edge_probe,
                        };
                        return LookupStep::Ask {
                            candidate: at,
                            node: contact.node.clone(),
                            hop: contact.hop,
                            is_hedge: candidate.pending > 1,
                        };
                    }
                }
                CandidateStep::Ask { .. } if path.is_idle() => {
                    done = done.map(|_| LookupEnd::NodeLimit);
                }
                CandidateStep::Ask { .. } | CandidateStep::Wait => done = None,
                CandidateStep::Converged => {
                    done = done
                        .map(|done| if done == LookupEnd::Exhausted { LookupEnd::Converged } else { done });
                }
                CandidateStep::Exhausted => {}
            }
        }
        done.map_or(LookupStep::Wait, LookupStep::Done)
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

    /// The node answered `elapsed` after the request, and named the nodes `closer`. `value`: the answer
    /// carried a value. Returns the number of other pending requests to it, which are superseded.
    pub(crate) fn answered(
        &mut self,
        at: CandidateRef,
        elapsed: Duration,
        closer: &[F::Node],
        value: bool,
    ) -> u8 {
        let (number, paths) = (usize::from(at.path), self.paths.as_mut_slice());
        let Some(path) = paths.get_mut(number) else { return 0 };
        let superseded = path.answered(at);
        let Some(contact) = path.contacts.get_mut(usize::from(at.slot)) else { return superseded };
        contact.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        contact.value = value;
        let hop = contact.hop.saturating_add(1);
        let target_prefix = self.target.leading();
        let mut kth = None;
        let mut progress = false;
        // One answer fills at most half of the candidate list, so that one dishonest node cannot fill it.
        let mut quota = (self.rules.max_candidates / 2).max(1);
        // Most answers are in order of distance and name known nodes: first compare with the candidate after
        // the last match.
        let mut cursor = 0;
        let closer = closer.get(..usize::from(self.rules.max_closer_nodes)).unwrap_or(closer);
        for node in closer {
            if exceeds_group_limit::<F>(node, closer, self.rules.max_per_group) {
                continue;
            }
            let key = F::key(node);
            let distance_prefix = key.leading() ^ target_prefix;
            // Fast path: most nodes of an answer end here, without a search or a clone.
            let Some(path) = paths.get(number) else { return superseded };
            if path.is_at(cursor, distance_prefix, node) {
                cursor += 1;
                continue;
            }
            if distance_prefix > path.admission_distance || key == self.local || !F::admits(node) {
                continue;
            }
            let rank = match insertion_rank(paths, number, &self.target, distance_prefix, node) {
                Ok(rank) => rank,
                Err(known) => {
                    cursor = known + 1;
                    continue;
                }
            };
            cursor = rank + 1;
            let Some(path) = paths.get_mut(number) else { return superseded };
            let kth = *kth.get_or_insert_with(|| path.kth_distance(&self.target, self.rules.k));
            let taken = path.insert(rank, Candidate::new(distance_prefix), || node.clone(), hop, &self.rules);
            quota -= u16::from(taken);
            progress |= taken && kth.is_none_or(|kth| key.distance(&self.target) < kth);
            if quota == 0 {
                break;
            }
        }
        if let Some(path) = paths.get_mut(number) {
            path.rounds_without_progress =
                if progress { 0 } else { path.rounds_without_progress.saturating_add(1) };
        }
        superseded
    }

    /// A request to the node ended without an answer.
    pub(crate) fn missed(&mut self, at: CandidateRef, miss: NoAnswer) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.missed(at, miss, &self.rules);
        }
    }

    /// A node failed by other means than a request of the lookup.
    pub(crate) fn mark_failed(&mut self, node: &F::Node) {
        let distance_prefix = F::key(node).leading() ^ self.target.leading();
        for path in &mut self.paths {
            if let Err(rank) = path.insertion_rank(&self.target, distance_prefix, node) {
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
    pub(crate) fn slow(&mut self, at: CandidateRef) {
        if let Some(path) = self.paths.get_mut(usize::from(at.path)) {
            path.slow(at);
        }
    }

    /// Visits the candidates that have neither timed out nor failed, in order of distance, until `visit` returns
    /// `false`. Its arguments: a number that identifies the candidate, its contact, and whether it has answered.
    pub(crate) fn visit_live(&self, mut visit: impl FnMut(u32, &Contact<F>, bool) -> bool) {
        let id = |path: u16, slot: u16| u32::from(path) << 16 | u32::from(slot);
        if let [path] = self.paths.as_slice() {
            for (slot, contact, answered) in path.live() {
                if !visit(id(0, slot), contact, answered) {
                    return;
                }
            }
            return;
        }
        let each = (0..).zip(&self.paths);
        let mut all: SmallVec<[_; 64]> =
            each.flat_map(|(number, path)| path.live().map(move |it| (number, it))).collect();
        all.sort_by_key(|(_, (_, contact, _))| F::key(&contact.node).distance(&self.target));
        for (number, (slot, contact, answered)) in all {
            if !visit(id(number, slot), contact, answered) {
                return;
            }
        }
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

    /// The same, of a lookup that is over. With one path nothing is allocated: the lookup's own memory is
    /// reused.
    pub(crate) fn into_closest(mut self) -> Vec<Contact<F>> {
        let most = usize::from(self.rules.num_results);
        match self.paths.as_mut_slice() {
            [path] => path.drain_closest(most),
            [] => Vec::new(),
            paths => {
                let mut all: Vec<_> = paths.iter_mut().flat_map(|path| path.drain_closest(most)).collect();
                all.sort_by_key(|contact| F::key(&contact.node).distance(&self.target));
                all.truncate(most);
                all
            }
        }
    }
}

/// Whether an answer names more than `limit` nodes of this node's group.
fn exceeds_group_limit<F: Family>(node: &F::Node, answer: &[F::Node], limit: usize) -> bool {
    F::group(node).is_some_and(|group| {
        answer.iter().filter(|other| F::group(other) == Some(group)).nth(limit).is_some()
    })
}

/// The rank at which path `number` is to insert a node; `Err` with its rank if any of the paths has it.
fn insertion_rank<F: Family>(
    paths: &[CandidateList<F>],
    number: usize,
    target: &F::Key,
    distance_prefix: u64,
    node: &F::Node,
) -> Result<usize, usize> {
    let mut rank = 0;
    for (other, path) in paths.iter().enumerate() {
        let in_path = path.insertion_rank(target, distance_prefix, node)?;
        if other == number {
            rank = in_path;
        }
    }
    Ok(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Group, Key8, QueryConfig, Start};

    /// An 8-bit key, and the group: 0 is none.
    #[derive(Clone, Debug, PartialEq)]
    struct Grouped;

    impl Family for Grouped {
        type Key = Key8;
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
        let rules = config.rules::<Grouped>(&Start::find(1, target));
        let mut lookup = Lookup::new(Key8::new([0xaa]), target, rules, vec![(255, 0)]);
        lookup.begin();
        let LookupStep::Ask { candidate: at, .. } = lookup.next() else { panic!("a seed to ask") };
        (lookup, at)
    }

    fn asked(lookup: &mut Lookup<Grouped>) -> Vec<u8> {
        core::iter::from_fn(|| match lookup.next() {
            LookupStep::Ask { node, .. } => Some(node.0),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn one_group_does_not_fill_an_answer() {
        let (mut lookup, at) = lookup(&QueryConfig { alpha: 20, ..QueryConfig::default() });
        let nodes =
            [(1, 7), (2, 7), (3, 7), (4, 7), (5, 9), (6, 9), (7, 9), (8, 0), (9, 0), (10, 0), (11, 0)];
        lookup.answered(at, Duration::ZERO, &nodes, false);
        assert_eq!(asked(&mut lookup), [5, 6, 7, 8, 9, 10, 11], "four of group 7 are too many");
    }

    #[test]
    fn liars_do_not_push_out_what_was_known() {
        let config =
            QueryConfig { k: 2, max_candidates: 4, max_nodes: 8, alpha: 1, ..QueryConfig::default() };
        let rules = config.rules::<Grouped>(&Start::find(1, Key8::new([0])));
        let seeds = vec![(200, 0), (201, 0), (202, 0)];
        let mut lookup = Lookup::<Grouped>::new(Key8::new([0xaa]), Key8::new([0]), rules, seeds);
        lookup.begin();
        let LookupStep::Ask { candidate: at, node, .. } = lookup.next() else { panic!("a seed to ask") };
        assert_eq!(node.0, 200);
        lookup.answered(at, Duration::ZERO, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)], false);
        // Each of the made-up nodes fails; the second seed, which is kept, is asked in the end.
        let mut order = Vec::new();
        while let LookupStep::Ask { candidate: at, node, .. } = lookup.next() {
            order.push(node.0);
            lookup.missed(at, NoAnswer::Failed);
        }
        assert_eq!(order, [1, 2, 201, 202], "a liar has half of the room");
    }
}
