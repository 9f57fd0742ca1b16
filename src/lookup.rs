//! Which node to ask next, and when a lookup is done: the iteration of Kademlia (paper, section 2.3).
//!
//! No time, no context and no requests here: a [`Lookup`] knows candidates in order of distance and what became
//! of each. With disjoint paths (S/Kademlia, section 4.4) each path iterates alone, no node is in two of them, and
//! the results are merged in the end.
//!
//! **The rim.** A node answers with the k closest that it knows, dead or alive. Where some of the k closest are dead,
//! the k closest that live reach farther than any such answer: the nodes at the rim of the neighbourhood are never
//! named, and more requests about the same key do not help. So once a node has been silent, nodes farther out are
//! asked about the point of their own subtree that is nearest to the target: the target with the first bit flipped in
//! which they differ from it. They know that subtree, and its nodes stand in the same order from there as from the
//! target. Before a troubled path converges, the subtree of its k-th closest must have been asked for like this.

use crate::event::Contact;
use crate::family::Family;
use crate::key::Key;
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
    slot: u16,
    lead: u64,
    /// The bit of the target that is flipped in what the node is asked about.
    rim: Option<u8>,
    /// It was asked for the sake of the rim only.
    detour: bool,
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
        let room = usize::from(self.rules.k) * 5 / 2;
        self.paths = (0..self.rules.paths).map(|_| Path::with_room(room)).collect();
        let mut seeds = core::mem::take(&mut self.seeds);
        let target = self.target;
        let paths = self.paths.len();
        let kept = usize::from(self.rules.max_candidates / 2).max(1);
        if paths > 1 || seeds.len() > kept {
            seeds.sort_by_key(|node| F::key(node).distance(&target));
        }
        let mut dealt = 0;
        for node in seeds {
            let (key, path) = (F::key(&node), dealt % paths);
            let lead = key.leading() ^ target.leading();
            if key != self.local
                && let Ok(place) = vacancy(&self.paths, path, &target, lead, &node)
                && let Some(path) = self.paths.get_mut(path)
            {
                let rank = Rank::new(lead, dealt / paths < kept);
                dealt += usize::from(path.insert(place, rank, || node, 1, &self.rules));
            }
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

    /// The node answered after this time, and named these nodes. Says how many other requests to it are superseded.
    pub(crate) fn answered(&mut self, spot: Spot, elapsed: Duration, closer: &[F::Node]) -> u8 {
        let (number, paths) = (usize::from(spot.path), self.paths.as_mut_slice());
        let Some(path) = paths.get_mut(number) else { return 0 };
        let superseded = path.answered(spot);
        let Some(contact) = path.contacts.get_mut(usize::from(spot.slot)) else { return superseded };
        contact.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        let hop = contact.hop.saturating_add(1);
        let target_lead = self.target.leading();
        let mut edge = None;
        let mut progress = false;
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
            if lead > path.horizon || key == self.local {
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
            let taken = path.insert(place, Rank::new(lead, false), || node.clone(), hop, &self.rules);
            progress |= taken && edge.is_none_or(|edge| key.distance(&self.target) < edge);
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

    /// A request to a node that has failed by another one was not sent.
    pub(crate) fn withdrawn(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path))
            && let Some(rank) = path.rank_mut(spot).filter(|rank| rank.pending > 0)
        {
            rank.pending -= 1;
            path.pending -= 1;
        }
    }

    /// A request to the node is slow: it no longer occupies a slot, but may still be answered.
    pub(crate) fn slow(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.slow(spot);
        }
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

/// The candidates of one path. A node once asked is never forgotten, so that it is never asked anew; those not
/// asked yet are bounded, and the closest win.
#[derive(Clone, Debug)]
struct Path<F: Family> {
    /// In order of distance.
    ranks: Vec<Rank>,
    /// By slot.
    contacts: Vec<Contact<F>>,
    /// Ranks that are `Heard`.
    heard: u16,
    /// Ranks that are `Waiting`: they occupy concurrency slots.
    waiting: u16,
    /// Requests that have not ended.
    pending: u16,
    /// Answers and misses since the last answer that named a node among the k closest.
    fruitless: u16,
    /// How many ranks from the first on have answered or failed, as far as `step` has seen.
    settled: u16,
    /// How many of those have answered.
    settled_alive: u16,
    /// The place of the last of those.
    settled_edge: usize,
    /// Nothing happened since `step` looked, except that nodes were asked.
    unchanged: bool,
    /// A node has been silent.
    troubled: bool,
    /// Extra nodes asked for the sake of the rim.
    detours: u8,
    /// By common prefix length with the target: a node there has answered for its own subtree.
    explored: u64,
    /// Candidates beyond this distance are not taken: there are as many closer ones as there may be.
    horizon: u64,
}

/// One candidate, in 16 bytes: four to a cache line.
#[derive(Clone, Copy, Debug)]
struct Rank {
    /// The first 64 bits of its distance.
    lead: u64,
    slot: u16,
    state: State,
    /// How often it was asked.
    tries: u8,
    /// Requests to it that have not ended: two where it was asked again because it was slow.
    pending: u8,
    /// The bit that was flipped in what it was last asked about, plus one; 0 where that was the target.
    rim: u8,
    /// Never pushed out: a seed.
    keep: bool,
}

impl Rank {
    const fn new(lead: u64, keep: bool) -> Self {
        Self { lead, slot: 0, state: State::Heard, tries: 0, pending: 0, rim: 0, keep }
    }

    /// The common prefix length with the target, as far as `lead` tells; less than 64.
    #[allow(clippy::cast_possible_truncation)] // at most 63
    fn cpl(&self) -> u8 {
        self.lead.leading_zeros().min(63) as u8
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not asked.
    Heard,
    /// Asked, and occupying a slot.
    Waiting,
    /// Asked, and past the soft limit. May be asked again while it is among the k closest.
    Slow,
    /// Ran into its time-out. May be asked again once it is among the k closest; until then it has as good as failed.
    Missed,
    Answered,
    Failed,
}

enum Step {
    Ask { place: usize, rim: Option<u8>, detour: bool },
    Wait,
    Converged,
    Exhausted,
}

impl<F: Family> Path<F> {
    /// How many extra nodes are asked at most for the sake of the rim.
    const DETOURS: u8 = 4;

    fn with_room(room: usize) -> Self {
        Self {
            ranks: Vec::with_capacity(room),
            contacts: Vec::with_capacity(room),
            heard: 0,
            waiting: 0,
            pending: 0,
            fruitless: 0,
            settled: 0,
            settled_alive: 0,
            settled_edge: 0,
            unchanged: false,
            troubled: false,
            detours: 0,
            explored: 0,
            horizon: u64::MAX,
        }
    }

    /// Looks at the k closest that have not failed. They must all have answered for the path to converge; where
    /// one is slow, the next one is asked in its stead, but nothing farther: whoever waits for a silent node
    /// does not go on asking ever farther ones.
    fn step(&mut self, rules: &Rules, limit: bool) -> Step {
        // A round that brought nothing closer: look at the whole neighbourhood at once.
        let parallelism = if self.fruitless >= rules.alpha { rules.alpha.max(rules.k) } else { rules.alpha };
        let full = self.waiting >= parallelism;
        if full && self.unchanged {
            return Step::Wait;
        }
        // The first candidates have answered or failed, more and more of them: they need not be looked at again.
        let (mut alive, mut window, mut answered) = (self.settled_alive, self.settled_alive, true);
        let mut edge = self.settled_edge;
        let mut converged = self.settled_alive == rules.beta;
        let from = usize::from(self.settled);
        for (place, rank) in (from..).zip(self.ranks.get(from..).unwrap_or_default()) {
            if converged || window == rules.k {
                break;
            }
            match rank.state {
                State::Answered => {
                    window += 1;
                    if answered {
                        self.settled += 1;
                        self.settled_alive += 1;
                        self.settled_edge = place;
                    }
                }
                State::Waiting => {
                    answered = false;
                    // One that was slow before is likely not to answer: the next is asked in its stead.
                    window += u16::from(rank.tries == 1);
                }
                State::Failed => {
                    self.settled += u16::from(answered);
                    continue;
                }
                State::Heard | State::Missed if full => return Step::Wait,
                State::Heard | State::Missed => {
                    return Step::Ask { place, rim: self.rim(place, rank, rules), detour: false };
                }
                State::Slow if u16::from(rank.tries) <= rules.retries && !full => {
                    return Step::Ask { place, rim: self.rim(place, rank, rules), detour: false };
                }
                State::Slow => answered = false,
            }
            if full && !answered {
                return Step::Wait;
            }
            alive += 1;
            if alive <= rules.k {
                edge = place;
            }
            converged = answered && alive == rules.beta;
        }
        if self.troubled
            && rules.rim
            && let Some(detour) = self.detour(edge, full || limit, rules)
        {
            return detour;
        }
        match (converged, answered) {
            (true, _) => Step::Converged,
            (false, true) => Step::Exhausted,
            (false, false) => Step::Wait,
        }
    }

    /// What a candidate is asked about: itself a node of the rim, about its own subtree.
    fn rim(&self, place: usize, rank: &Rank, rules: &Rules) -> Option<u8> {
        (rules.rim && self.troubled && place >= usize::from(rules.k / 2)).then(|| rank.cpl())
    }

    /// Where nodes were silent, makes sure that the subtrees between the k-th closest of all and the k-th closest that
    /// live have been asked for.
    fn detour(&self, edge: usize, full: bool, rules: &Rules) -> Option<Step> {
        let edge = self.ranks.get(edge)?.cpl();
        let named = self.ranks.get(usize::from(rules.k) - 1)?.cpl();
        // A node with the target's own key stands in no subtree beside it.
        let named = u8::try_from(F::Key::BITS - 1).map_or(named, |most| named.min(most));
        let cpl = (edge..=named).rev().find(|cpl| self.explored >> cpl & 1 == 0)?;
        let asked = |rank: &Rank| rank.state == State::Waiting && rank.rim == cpl + 1;
        if self.ranks.iter().any(asked) {
            return Some(Step::Wait);
        }
        if full || self.detours == Self::DETOURS {
            return None;
        }
        let heard = |rank: &Rank| rank.state == State::Heard;
        let inside = self.ranks.iter().position(|rank| heard(rank) && rank.cpl() == cpl);
        let place = inside.or_else(|| self.ranks.iter().position(heard))?;
        Some(Step::Ask { place, rim: Some(cpl), detour: true })
    }

    fn unsettle(&mut self) {
        (self.settled, self.settled_alive, self.settled_edge) = (0, 0, 0);
    }

    fn is_idle(&self) -> bool {
        self.pending == 0
    }

    fn was_asked(&self, place: usize) -> bool {
        self.ranks.get(place).is_some_and(|rank| rank.tries > 0)
    }

    /// Marks a candidate as asked.
    fn ask(&mut self, place: usize, rim: Option<u8>, detour: bool) -> Option<Rank> {
        let rank = self.ranks.get_mut(place)?;
        self.detours += u8::from(detour);
        if rank.state == State::Heard {
            self.heard -= 1;
            self.horizon = u64::MAX;
        }
        rank.state = State::Waiting;
        rank.tries = rank.tries.saturating_add(1);
        rank.pending += 1;
        rank.rim = rim.map_or(0, |bit| bit + 1);
        self.waiting += 1;
        self.pending += 1;
        self.unchanged = true;
        Some(*rank)
    }

    /// Undoes the last `ask`. Says whether the candidate had not been asked before.
    fn take_back(&mut self, spot: Spot) -> bool {
        let Some(rank) = self.rank_mut(spot).filter(|rank| rank.state == State::Waiting) else {
            return false;
        };
        rank.tries -= 1;
        rank.pending -= 1;
        let (tries, pending) = (rank.tries, rank.pending);
        rank.state = match (tries, pending) {
            (0, _) => State::Heard,
            (_, 0) => State::Missed,
            _ => State::Slow,
        };
        self.heard += u16::from(tries == 0);
        self.detours -= u8::from(spot.detour);
        self.waiting -= 1;
        self.pending -= 1;
        tries == 0
    }

    /// A request to the candidate was answered. Says how many others to it are superseded.
    fn answered(&mut self, spot: Spot) -> u8 {
        let Some(rank) = self.rank_mut(spot) else { return 0 };
        let was = core::mem::replace(&mut rank.state, State::Answered);
        let pending = core::mem::take(&mut rank.pending);
        let explored = u64::from(spot.rim == Some(rank.cpl())) << rank.cpl();
        self.waiting -= u16::from(was == State::Waiting);
        self.pending -= u16::from(pending);
        self.explored |= explored;
        self.unchanged = false;
        if was == State::Failed {
            // Its other request failed, so `step` counts it out.
            self.unsettle();
        }
        pending.saturating_sub(1)
    }

    /// A request to the candidate ended without an answer.
    fn missed(&mut self, spot: Spot, miss: Miss, rules: &Rules) {
        let Some(rank) = self.rank_mut(spot).filter(|rank| rank.pending > 0) else { return };
        rank.pending -= 1;
        let was = rank.state;
        let over = was != State::Failed && (rank.pending == 0 || miss == Miss::Failed);
        if over {
            let again = miss == Miss::TimedOut && u16::from(rank.tries) <= rules.retries;
            rank.state = if again { State::Missed } else { State::Failed };
        }
        self.waiting -= u16::from(over && was == State::Waiting);
        self.pending -= 1;
        self.fruitless = self.fruitless.saturating_add(1);
        self.troubled = true;
        self.unchanged = false;
        // It may stand among those that `step` no longer looks at.
        self.unsettle();
    }

    /// The last request to the candidate is slow.
    fn slow(&mut self, spot: Spot) {
        if let Some(rank) = self.rank_mut(spot).filter(|rank| rank.state == State::Waiting) {
            rank.state = State::Slow;
            self.waiting -= 1;
            self.troubled = true;
            self.unchanged = false;
        }
    }

    fn rank_mut(&mut self, spot: Spot) -> Option<&mut Rank> {
        let first = self.ranks.partition_point(|rank| rank.lead < spot.lead);
        self.ranks.get_mut(first..)?.iter_mut().find(|rank| rank.slot == spot.slot)
    }

    /// The distance of the k-th closest that has not failed, if there are as many.
    fn edge(&self, target: &F::Key, k: u16) -> Option<F::Key> {
        let mut alive = self.ranks.iter().filter(|rank| !matches!(rank.state, State::Failed | State::Missed));
        let slot = alive.nth(usize::from(k) - 1)?.slot;
        self.contacts.get(usize::from(slot)).map(|contact| F::key(&contact.node).distance(target))
    }

    /// Whether the candidate at this place is this node.
    #[inline]
    fn is_at(&self, place: usize, lead: u64, node: &F::Node) -> bool {
        self.ranks.get(place).is_some_and(|rank| {
            rank.lead == lead
                && self.contacts.get(usize::from(rank.slot)).is_some_and(|contact| contact.node == *node)
        })
    }

    /// Where a node belongs; or, where it is known, `Err` with its place.
    fn position(&self, target: &F::Key, lead: u64, node: &F::Node) -> Result<usize, usize> {
        let mut place = self.ranks.partition_point(|rank| rank.lead < lead);
        // Where distances start alike, as they do for the node itself, all of them counts.
        let mut equal = place;
        while let Some(rank) = self.ranks.get(equal).filter(|rank| rank.lead == lead) {
            let Some(known) = self.contacts.get(usize::from(rank.slot)) else { break };
            if known.node == *node {
                return Err(equal);
            }
            place += usize::from(F::key(&known.node).distance(target) < F::key(node).distance(target));
            equal += 1;
        }
        Ok(place)
    }

    /// Puts a candidate in at its place, if there is room or one farther gives way.
    fn insert(
        &mut self,
        place: usize,
        mut rank: Rank,
        node: impl FnOnce() -> F::Node,
        hop: u16,
        rules: &Rules,
    ) -> bool {
        let victim = if self.heard >= rules.max_candidates { self.farthest() } else { None };
        match victim.and_then(|victim| self.ranks.get_mut(place..=victim)) {
            Some(shifted) => {
                let Some(slot) = shifted.last().map(|victim| victim.slot) else { return false };
                rank.slot = slot;
                shifted.rotate_right(1);
                if let (Some(first), Some(contact)) =
                    (shifted.first_mut(), self.contacts.get_mut(usize::from(slot)))
                {
                    *first = rank;
                    *contact = Contact { node: node(), micros: 0, hop };
                }
            }
            // Everything that could give way is closer.
            None if self.heard >= rules.max_candidates => return false,
            None => {
                let Ok(slot) = u16::try_from(self.contacts.len()) else { return false };
                rank.slot = slot;
                self.contacts.push(Contact { node: node(), micros: 0, hop });
                self.ranks.insert(place.min(self.ranks.len()), rank);
                self.heard += 1;
            }
        }
        self.unchanged = false;
        if place < usize::from(self.settled) {
            self.unsettle();
        }
        if self.heard >= rules.max_candidates {
            let farthest = self.farthest().and_then(|victim| self.ranks.get(victim));
            self.horizon = farthest.map_or(0, |rank| rank.lead);
        }
        true
    }

    /// The candidate that gives way first.
    fn farthest(&self) -> Option<usize> {
        self.ranks.iter().rposition(|rank| rank.state == State::Heard && !rank.keep)
    }

    /// Takes out the closest that answered, in order, without allocating: they are moved to the front.
    fn take_closest(&mut self, most: usize) -> Vec<Contact<F>> {
        let answered = self.ranks.iter().filter(|rank| rank.state == State::Answered).take(most);
        let mut order: SmallVec<[usize; 32]> = answered.map(|rank| usize::from(rank.slot)).collect();
        let mut contacts = core::mem::take(&mut self.contacts);
        for place in 0..order.len() {
            // What stood at a place before this one was swapped away to where the order says by now.
            let mut from = order.get(place).copied().unwrap_or(place);
            while from < place {
                from = order.get(from).copied().unwrap_or(place);
            }
            contacts.swap(place, from);
            if let Some(at) = order.get_mut(place) {
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
        lookup.answered(spot, Duration::ZERO, &nodes);
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
        lookup.answered(spot, Duration::ZERO, &[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)]);
        // Each of the made-up nodes fails; the second seed, which is kept, is asked in the end.
        let mut order = Vec::new();
        while let Next::Ask { spot, node, .. } = lookup.next() {
            order.push(node.0);
            lookup.missed(spot, Miss::Failed);
        }
        assert_eq!(order, [1, 2, 3, 201]);
    }
}
