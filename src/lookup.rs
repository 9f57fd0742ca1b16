//! Which node to ask next, and when a lookup is done: the iteration of Kademlia (paper, section 2.3).
//!
//! No time, no context and no requests here: a [`Lookup`] knows candidates in order of distance and what became
//! of each. With disjoint paths (S/Kademlia, section 4.4) each path iterates alone, no node is in two of them, and
//! the results are merged in the end. How a path iterates is in `path.rs`.

use crate::event::{Contact, Outcome};
use crate::family::Family;
use crate::key::Key;
use crate::path::{Path, Rank, Step};
use core::time::Duration;
use smallvec::SmallVec;

/// The numbers that a lookup goes by, checked by `QueryConfig`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How many closest nodes must have answered for the lookup to converge, and how far it looks.
    pub(crate) k: u16,
    /// Converges already when so many have; at most k.
    pub(crate) beta: u16,
    /// Concurrency slots of each path.
    pub(crate) alpha: u16,
    pub(crate) paths: u16,
    pub(crate) retries: u16,
    pub(crate) max_closer_nodes: u16,
    pub(crate) max_per_group: usize,
    /// Candidates heard of and not asked yet, each path.
    pub(crate) max_candidates: u16,
    /// Nodes asked, all paths together.
    pub(crate) max_nodes: u16,
    pub(crate) num_results: u16,
    /// Whether nodes may be asked about another key than the target.
    pub(crate) rim: bool,
    /// Whether a slow node is asked again while its first request is still listened to.
    pub(crate) hedges: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Lookup<F: Family> {
    local: F::Key,
    target: F::Key,
    rules: Rules,
    /// Nodes to begin with; empty once begun.
    seeds: Vec<F::Node>,
    paths: SmallVec<[Path<F>; 1]>,
    /// Nodes asked so far.
    asked: u16,
}

/// Where a candidate stands: what a request remembers of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    path: u16,
    pub(crate) slot: u16,
    pub(crate) lead: u64,
    /// The bit of the target that is flipped in what the node is asked about.
    pub(crate) rim: Option<u8>,
    /// It was asked for the sake of the rim only.
    pub(crate) detour: bool,
}

impl Spot {
    /// What the node is asked about.
    pub(crate) fn target<K: Key>(self, target: K) -> K {
        self.rim.map_or(target, |bit| target.with_flipped(u32::from(bit)))
    }

    /// Whether both are the same candidate.
    pub(crate) const fn is_of(self, other: Self) -> bool {
        self.path == other.path && self.slot == other.slot
    }
}

/// What the lookup wants.
#[derive(Clone, Debug)]
pub(crate) enum Next<F: Family> {
    /// Ask this node; it counts as asked now.
    Ask { spot: Spot, node: F::Node, hop: u16, again: bool },
    /// Wait for those asked.
    Wait,
    /// It is over.
    Done(Done),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Converged,
    Exhausted,
    NodeLimit,
}

impl From<Done> for Outcome {
    fn from(done: Done) -> Self {
        match done {
            Done::Converged => Self::Converged,
            Done::Exhausted => Self::Exhausted,
            Done::NodeLimit => Self::NodeLimit,
        }
    }
}

/// How a request that did not bring an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// It ran into its own timeout: a lost message is not a dead node, so it may be asked again.
    TimedOut,
    /// It failed, or was never sent.
    Failed,
}

impl<F: Family> Lookup<F> {
    pub(crate) fn new(local: F::Key, target: F::Key, rules: Rules, seeds: Vec<F::Node>) -> Self {
        Self { local, target, rules, seeds, paths: SmallVec::new(), asked: 0 }
    }

    pub(crate) const fn target(&self) -> F::Key {
        self.target
    }

    /// Takes its memory, and deals the seeds out to the paths, closest first. The closest of them are kept whatever
    /// comes, so that peers who lie about distance cannot push out what the caller knew already.
    pub(crate) fn begin(&mut self) {
        // Room for a lookup in a healthy network, so that nothing is allocated after the start.
        let (k, most) = (usize::from(self.rules.k), usize::from(self.rules.max_candidates));
        let seeds = self.seeds.len().min(most);
        let room = (k * 5 / 2)
            .max(seeds + k * 3 / 2)
            .min(most + usize::from(self.rules.max_nodes / self.rules.paths));
        self.paths = (0..self.rules.paths).map(|_| Path::with_room(room)).collect();
        let mut seeds = core::mem::take(&mut self.seeds);
        let target = self.target;
        let paths = self.paths.len();
        if paths > 1 {
            seeds.sort_by_key(|node| F::key(node).distance(&target));
        }
        let mut dealt = 0;
        for node in seeds {
            let (key, path) = (F::key(&node), dealt % paths);
            let lead = key.leading() ^ target.leading();
            if key != self.local
                && F::admits(&node)
                && let Ok(place) = vacancy(&self.paths, path, &target, lead, &node)
                && let Some(path) = self.paths.get_mut(path)
            {
                dealt += usize::from(path.insert(place, Rank::new(lead), || node, 1, &self.rules));
            }
        }
        for path in &mut self.paths {
            path.keep((most / 2).max(1));
        }
    }

    /// What to do now. To be called until it says something else than `Ask`.
    pub(crate) fn next(&mut self) -> Next<F> {
        let mut done = Some(Done::Exhausted);
        let limit = self.asked >= self.rules.max_nodes;
        for (number, path) in (0..).zip(&mut self.paths) {
            match path.step(&self.rules, limit) {
                Step::Ask { place, rim, detour } if !limit || path.was_asked(place) => {
                    if let Some(rank) = path.ask(place, rim, detour)
                        && let Some(contact) = path.contacts.get(usize::from(rank.slot))
                    {
                        self.asked += u16::from(rank.tries == 1);
                        let spot = Spot { path: number, slot: rank.slot, lead: rank.lead, rim, detour };
                        return Next::Ask {
                            spot,
                            node: contact.node.clone(),
                            hop: contact.hop,
                            again: rank.pending > 1,
                        };
                    }
                }
                Step::Ask { .. } if path.is_idle() => {
                    done = done.map(|_| Done::NodeLimit);
                }
                Step::Ask { .. } | Step::Wait => done = None,
                Step::Converged => {
                    done = done.map(|done| if done == Done::Exhausted { Done::Converged } else { done });
                }
                Step::Exhausted => {}
            }
        }
        done.map_or(Next::Wait, Next::Done)
    }

    /// Takes back an [`Next::Ask`] that could not be carried out, as if it had not been said.
    pub(crate) fn take_back(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path))
            && path.take_back(spot)
        {
            self.asked -= 1;
        }
    }

    /// Whether the node, which is asked now, had been silent: until now it was not [live](Self::look_at_live).
    pub(crate) fn is_back(&mut self, spot: Spot) -> bool {
        self.paths.get_mut(usize::from(spot.path)).is_some_and(|path| path.is_back(spot))
    }

    /// The node answered after this time, named these nodes, and had the value that is looked for or not. Says how many other requests to it are superseded.
    pub(crate) fn answered(&mut self, spot: Spot, elapsed: Duration, closer: &[F::Node], value: bool) -> u8 {
        let (number, paths) = (usize::from(spot.path), self.paths.as_mut_slice());
        let Some(path) = paths.get_mut(number) else { return 0 };
        let superseded = path.answered(spot);
        let Some(contact) = path.contacts.get_mut(usize::from(spot.slot)) else { return superseded };
        contact.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        contact.value = value;
        let hop = contact.hop.saturating_add(1);
        let target_lead = self.target.leading();
        let mut edge = None;
        let mut progress = false;
        // One answer fills no more than half of what there is room for: others named candidates too.
        let mut room = (self.rules.max_candidates / 2).max(1);
        // Answers are mostly in order of distance, and mostly of nodes that are known: the next is looked for beside
        // the last.
        let mut beside = 0;
        let closer = closer.get(..usize::from(self.rules.max_closer_nodes)).unwrap_or(closer);
        for node in closer {
            if is_crowded::<F>(node, closer, self.rules.max_per_group) {
                continue;
            }
            let key = F::key(node);
            let lead = key.leading() ^ target_lead;
            // Much of what an answer names ends here, without being looked up or cloned.
            let Some(path) = paths.get(number) else { return superseded };
            if path.is_at(beside, lead, node) {
                beside += 1;
                continue;
            }
            if lead > path.horizon || key == self.local || !F::admits(node) {
                continue;
            }
            let place = match vacancy(paths, number, &self.target, lead, node) {
                Ok(place) => place,
                Err(known) => {
                    beside = known + 1;
                    continue;
                }
            };
            beside = place + 1;
            let Some(path) = paths.get_mut(number) else { return superseded };
            let edge = *edge.get_or_insert_with(|| path.edge(&self.target, self.rules.k));
            let taken = path.insert(place, Rank::new(lead), || node.clone(), hop, &self.rules);
            room -= u16::from(taken);
            progress |= taken && edge.is_none_or(|edge| key.distance(&self.target) < edge);
            if room == 0 {
                break;
            }
        }
        if let Some(path) = paths.get_mut(number) {
            path.fruitless = if progress { 0 } else { path.fruitless.saturating_add(1) };
        }
        superseded
    }

    /// A request to the node ended without an answer.
    pub(crate) fn missed(&mut self, spot: Spot, miss: Miss) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.missed(spot, miss, &self.rules);
        }
    }

    /// A node has failed by other means than a request of the lookup.
    pub(crate) fn lost(&mut self, node: &F::Node) {
        let lead = F::key(node).leading() ^ self.target.leading();
        for path in &mut self.paths {
            if let Err(place) = path.position(&self.target, lead, node) {
                path.lost(place);
            }
        }
    }

    /// A request to a node that has failed by another one was not sent.
    pub(crate) fn withdrawn(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.withdrawn(spot);
        }
    }

    /// A request to the node is slow: it no longer occupies a slot, but may still be answered.
    pub(crate) fn slow(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.slow(spot);
        }
    }

    /// Shows the candidates of which it is not known that they are silent or have failed, in order of distance, as long as
    /// that is wanted: where each is kept, and whether it has answered.
    pub(crate) fn look_at_live(&self, mut look: impl FnMut(u32, &Contact<F>, bool) -> bool) {
        let spot = |path: u16, slot: u16| u32::from(path) << 16 | u32::from(slot);
        if let [path] = self.paths.as_slice() {
            for (slot, contact, answered) in path.live() {
                if !look(spot(0, slot), contact, answered) {
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
            if !look(spot(number, slot), contact, answered) {
                return;
            }
        }
    }

    /// The closest that have answered by now, in order of distance.
    pub(crate) fn closest(&self) -> Vec<Contact<F>> {
        let mut closest = Vec::new();
        let most = usize::from(self.rules.num_results);
        self.look_at_live(|_, contact, answered| {
            closest.extend(answered.then(|| contact.clone()));
            closest.len() < most
        });
        closest
    }

    /// The closest that answered, in order of distance. Takes them out of the lookup's own memory.
    pub(crate) fn into_closest(mut self) -> Vec<Contact<F>> {
        let most = usize::from(self.rules.num_results);
        match self.paths.as_mut_slice() {
            [path] => path.take_closest(most),
            [] => Vec::new(),
            paths => {
                let mut all: Vec<_> = paths.iter_mut().flat_map(|path| path.take_closest(most)).collect();
                all.sort_by_key(|contact| F::key(&contact.node).distance(&self.target));
                all.truncate(most);
                all
            }
        }
    }
}

/// Whether an answer names more nodes of a node's group than it may.
fn is_crowded<F: Family>(node: &F::Node, answer: &[F::Node], most: usize) -> bool {
    F::group(node)
        .is_some_and(|group| answer.iter().filter(|other| F::group(other) == Some(group)).nth(most).is_some())
}

/// Where a node belongs in a path; or, where a path knows it, `Err` with its place there.
fn vacancy<F: Family>(
    paths: &[Path<F>],
    number: usize,
    target: &F::Key,
    lead: u64,
    node: &F::Node,
) -> Result<usize, usize> {
    let mut place = 0;
    for (other, path) in paths.iter().enumerate() {
        let position = path.position(target, lead, node)?;
        if other == number {
            place = position;
        }
    }
    Ok(place)
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

    /// A lookup of key 0 by a node far away, in which the seed 255 was asked.
    fn lookup(config: &QueryConfig) -> (Lookup<Grouped>, Spot) {
        let target = Key8::new([0]);
        let rules = config.rules::<Grouped>(&Start::find(1, target));
        let mut lookup = Lookup::new(Key8::new([0xaa]), target, rules, vec![(255, 0)]);
        lookup.begin();
        let Next::Ask { spot, .. } = lookup.next() else { panic!("a seed to ask") };
        (lookup, spot)
    }

    fn asked(lookup: &mut Lookup<Grouped>) -> Vec<u8> {
        core::iter::from_fn(|| match lookup.next() {
            Next::Ask { node, .. } => Some(node.0),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn one_group_does_not_fill_an_answer() {
        let (mut lookup, spot) = lookup(&QueryConfig { alpha: 20, ..QueryConfig::default() });
        let nodes =
            [(1, 7), (2, 7), (3, 7), (4, 7), (5, 9), (6, 9), (7, 9), (8, 0), (9, 0), (10, 0), (11, 0)];
        lookup.answered(spot, Duration::ZERO, &nodes, false);
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
        let Next::Ask { spot, node, .. } = lookup.next() else { panic!("a seed to ask") };
        assert_eq!(node.0, 200);
        lookup.answered(spot, Duration::ZERO, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)], false);
        // Each of the made-up nodes fails; the second seed, which is kept, is asked in the end.
        let mut order = Vec::new();
        while let Next::Ask { spot, node, .. } = lookup.next() {
            order.push(node.0);
            lookup.missed(spot, Miss::Failed);
        }
        assert_eq!(order, [1, 2, 201, 202], "a liar has half of the room");
    }
}
