//! Which node to ask next, and when a lookup is done: the iteration of Kademlia (paper, section 2.3).
//!
//! No time, no context and no requests here: a [`Lookup`] knows candidates in order of distance and what became
//! of each. With disjoint paths (S/Kademlia, section 4.4) each path iterates alone, no node is in two of them, and
//! the results are merged in the end.

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
    pub(crate) retries: u8,
    pub(crate) max_closer_nodes: u16,
    /// Candidates heard of and not asked yet, each path.
    pub(crate) max_candidates: u16,
    /// Nodes asked, all paths together.
    pub(crate) max_nodes: u16,
    pub(crate) num_results: u16,
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
}

/// What the lookup wants.
#[derive(Clone, Debug)]
pub(crate) enum Next<F: Family> {
    /// Ask this node; it counts as asked now.
    Ask { spot: Spot, node: F::Node, hop: u32 },
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

    /// Takes its memory, and deals the seeds out to the paths, closest first. The closest of them are kept whatever
    /// comes, so that peers who lie about distance cannot push out what the caller knew already.
    pub(crate) fn begin(&mut self) {
        // Room for a lookup in a healthy network, so that nothing is allocated after the start.
        let room = usize::from(self.rules.k) * 3;
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
            let lead = key.distance(&target).leading();
            if key != self.local
                && let Some(place) = self.vacancy(path, lead, &node)
                && let Some(path) = self.paths.get_mut(path)
            {
                let keep = dealt / paths < kept;
                let rank = Rank { lead, slot: 0, state: State::Heard, tries: 0, keep };
                dealt += usize::from(path.insert(place, rank, || node, 1, &self.rules));
            }
        }
    }

    /// What to do now. To be called until it says something else than `Ask`.
    pub(crate) fn next(&mut self) -> Next<F> {
        let mut done = Some(Done::Exhausted);
        for (number, path) in (0..).zip(&mut self.paths) {
            match path.step(&self.rules) {
                Step::Ask(place) if self.asked < self.rules.max_nodes || path.was_asked(place) => {
                    if let Some((slot, lead, first)) = path.ask(place)
                        && let Some(contact) = path.contacts.get(usize::from(slot))
                    {
                        self.asked += u16::from(first);
                        let spot = Spot { path: number, slot, lead };
                        return Next::Ask { spot, node: contact.node.clone(), hop: contact.hop() };
                    }
                }
                Step::Ask(_) if path.is_idle() => {
                    done = done.map(|_| Done::NodeLimit);
                }
                Step::Ask(_) | Step::Wait => done = None,
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
            && let Some(rank) = path.leave(spot, State::Heard)
        {
            rank.tries -= 1;
            self.asked -= u16::from(rank.tries == 0);
            path.heard += 1;
        }
    }

    /// The node answered after this time, and named these nodes.
    pub(crate) fn answered(&mut self, spot: Spot, elapsed: Duration, closer: &[F::Node]) {
        let Some(path) = self.paths.get_mut(usize::from(spot.path)) else { return };
        if path.leave(spot, State::Answered).is_none() {
            return;
        }
        let edge = path.edge(&self.target, self.rules.k);
        let Some(contact) = path.contacts.get_mut(usize::from(spot.slot)) else { return };
        contact.micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        let hop = contact.hop.saturating_add(1);
        let mut progress = false;
        for node in closer.iter().take(usize::from(self.rules.max_closer_nodes)) {
            let taken = self.offer(usize::from(spot.path), node, hop);
            progress |= taken.is_some_and(|distance| edge.is_none_or(|edge| distance < edge));
        }
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.fruitless = if progress { 0 } else { path.fruitless.saturating_add(1) };
        }
    }

    /// The node was asked and did not answer.
    pub(crate) fn missed(&mut self, spot: Spot, miss: Miss) {
        let Some(path) = self.paths.get_mut(usize::from(spot.path)) else { return };
        let edge = path.edge(&self.target, self.rules.k);
        let distance = path.distance(&self.target, spot.slot);
        let Some(rank) = path.leave(spot, State::Failed) else { return };
        let near = edge.is_none_or(|edge| distance.is_some_and(|distance| distance <= edge));
        if miss == Miss::TimedOut && rank.tries <= self.rules.retries && near {
            rank.state = State::Heard;
            rank.keep = true;
            path.heard += 1;
        }
        path.fruitless = path.fruitless.saturating_add(1);
    }

    /// The node is slow: it no longer occupies a slot, but may still answer.
    pub(crate) fn slow(&mut self, spot: Spot) {
        if let Some(path) = self.paths.get_mut(usize::from(spot.path)) {
            path.leave(spot, State::Slow);
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

    /// Takes a node that an answer named. Says its distance if it went in.
    fn offer(&mut self, path: usize, node: &F::Node, hop: u16) -> Option<F::Key> {
        let key = F::key(node);
        let distance = key.distance(&self.target);
        let lead = distance.leading();
        // Most of what an answer names ends here, without being looked up or cloned.
        if self.paths.get(path).is_none_or(|path| lead > path.horizon) || key == self.local {
            return None;
        }
        let place = self.vacancy(path, lead, node)?;
        let rank = Rank { lead, slot: 0, state: State::Heard, tries: 0, keep: false };
        self.paths.get_mut(path)?.insert(place, rank, || node.clone(), hop, &self.rules).then_some(distance)
    }

    /// Where a node belongs in a path, or `None` where any path knows it.
    fn vacancy(&self, path: usize, lead: u64, node: &F::Node) -> Option<usize> {
        let mut place = None;
        for (number, known) in self.paths.iter().enumerate() {
            let position = known.position(&self.target, lead, node)?;
            if number == path {
                place = Some(position);
            }
        }
        place
    }
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
    /// Ranks that are `Slow`.
    slow: u16,
    /// Answers and misses since the last answer that named a node among the k closest.
    fruitless: u16,
    /// Nothing happened since `step` looked, except that nodes were asked.
    unchanged: bool,
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
    /// Never pushed out: a seed, or one to be asked again.
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not asked, or to be asked again.
    Heard,
    /// Asked, and occupying a slot.
    Waiting,
    /// Asked, and past the soft limit.
    Slow,
    Answered,
    Failed,
}

enum Step {
    Ask(usize),
    Wait,
    Converged,
    Exhausted,
}

impl<F: Family> Path<F> {
    fn with_room(room: usize) -> Self {
        Self {
            ranks: Vec::with_capacity(room),
            contacts: Vec::with_capacity(room),
            heard: 0,
            waiting: 0,
            slow: 0,
            fruitless: 0,
            unchanged: false,
            horizon: u64::MAX,
        }
    }

    /// Looks at the k closest that have not failed. They must all have answered for the path to converge; where
    /// one is slow, the next one is asked in its stead, but nothing farther: whoever waits for a silent node
    /// does not go on asking ever farther ones.
    fn step(&self, rules: &Rules) -> Step {
        // A round that brought nothing closer: look at the whole neighbourhood at once.
        let parallelism = if self.fruitless >= rules.alpha { rules.alpha.max(rules.k) } else { rules.alpha };
        let full = self.waiting >= parallelism;
        if full && self.unchanged {
            return Step::Wait;
        }
        let (mut alive, mut window, mut answered) = (0, 0, true);
        let mut first_heard = None;
        for (place, rank) in self.ranks.iter().enumerate() {
            match rank.state {
                State::Failed => continue,
                State::Answered => window += 1,
                State::Slow => answered = false,
                State::Waiting => {
                    answered = false;
                    window += 1;
                }
                State::Heard => {
                    answered = false;
                    window += 1;
                    first_heard = first_heard.or(Some(place));
                }
            }
            alive += 1;
            if alive == rules.beta && answered {
                return Step::Converged;
            }
            if window == rules.k {
                break;
            }
        }
        match first_heard {
            Some(_) if full => Step::Wait,
            Some(place) => Step::Ask(place),
            None if answered => Step::Exhausted,
            None => Step::Wait,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.slow == 0
    }

    fn was_asked(&self, place: usize) -> bool {
        self.ranks.get(place).is_some_and(|rank| rank.tries > 0)
    }

    /// Marks a candidate as asked. Says its slot, the start of its distance, and whether this is the first time.
    fn ask(&mut self, place: usize) -> Option<(u16, u64, bool)> {
        let rank = self.ranks.get_mut(place)?;
        rank.state = State::Waiting;
        rank.tries = rank.tries.saturating_add(1);
        self.waiting += 1;
        self.heard -= 1;
        self.unchanged = true;
        self.horizon = u64::MAX;
        Some((rank.slot, rank.lead, rank.tries == 1))
    }

    /// Lets a candidate that was asked, and whose request has not ended, take another state.
    fn leave(&mut self, spot: Spot, to: State) -> Option<&mut Rank> {
        let first = self.ranks.partition_point(|rank| rank.lead < spot.lead);
        let rank = self.ranks.get_mut(first..)?.iter_mut().find(|rank| rank.slot == spot.slot)?;
        match rank.state {
            State::Waiting => self.waiting -= 1,
            State::Slow => self.slow -= 1,
            State::Heard | State::Answered | State::Failed => return None,
        }
        if to == State::Slow {
            self.slow += 1;
        }
        self.unchanged = false;
        rank.state = to;
        Some(rank)
    }

    /// The distance of the k-th closest that has not failed, if there are as many.
    fn edge(&self, target: &F::Key, k: u16) -> Option<F::Key> {
        let mut alive = self.ranks.iter().filter(|rank| rank.state != State::Failed);
        alive.nth(usize::from(k) - 1).and_then(|rank| self.distance(target, rank.slot))
    }

    fn distance(&self, target: &F::Key, slot: u16) -> Option<F::Key> {
        self.contacts.get(usize::from(slot)).map(|contact| F::key(&contact.node).distance(target))
    }

    /// Where a node belongs, or `None` where it is known.
    fn position(&self, target: &F::Key, lead: u64, node: &F::Node) -> Option<usize> {
        let mut place = self.ranks.partition_point(|rank| rank.lead < lead);
        let equal = self.ranks.get(place..)?.iter().take_while(|rank| rank.lead == lead);
        for rank in equal {
            let known = &self.contacts.get(usize::from(rank.slot))?.node;
            if known == node {
                return None;
            }
            if F::key(known).distance(target) < F::key(node).distance(target) {
                place += 1;
            }
        }
        Some(place)
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
