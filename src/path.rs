//! One path of a lookup: which of its candidates to ask next.
//!
//! **The rim.** A node answers with the k closest that it knows, dead or alive. Where some of the k closest are dead,
//! the k closest that live reach farther than any such answer: the nodes at the rim of the neighbourhood are never
//! named, and more requests about the same key do not help. So once a node has been silent, nodes farther out are
//! asked about the point of their own subtree that is nearest to the target: the target with the first bit flipped in
//! which they differ from it. They know that subtree, and its nodes stand in the same order from there as from the
//! target. Before a troubled path converges, it asks for the subtree of its k-th closest like this, with a few extra
//! nodes at most.
//!
//! **The first.** Time-outs are adapted to what is usual, so a node that lives may miss two in a row: two in a thousand do
//! where 1 % of messages is lost. Far out among the k closest that is a small loss; but the very closest is what many a
//! lookup is for. A node that is slow and nearer than all that have answered is therefore asked once more than others.
//! Those are few, and as the nearest are asked first, the lookup hardly ends later: it waits for others meanwhile.

use crate::event::Contact;
use crate::family::Family;
use crate::key::Key;
use crate::lookup::{Miss, Rules, Spot};
use smallvec::SmallVec;

/// The candidates of one path. A node once asked is never forgotten, so that it is never asked anew; those not
/// asked yet are bounded, and the closest win.
#[derive(Clone, Debug)]
pub(crate) struct Path<F: Family> {
    /// In order of distance.
    ranks: Vec<Rank>,
    /// By slot.
    pub(crate) contacts: Vec<Contact<F>>,
    /// Ranks that are `Heard`.
    heard: u16,
    /// Ranks that are `Waiting`: they occupy concurrency slots.
    waiting: u16,
    /// Requests that have not ended.
    pending: u32,
    /// Answers and misses since the last answer that named a node among the k closest.
    pub(crate) fruitless: u16,
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
    pub(crate) horizon: u64,
}

/// One candidate, in 16 bytes: four to a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rank {
    /// The first 64 bits of its distance.
    pub(crate) lead: u64,
    pub(crate) slot: u16,
    state: State,
    /// How often it was asked.
    pub(crate) tries: u8,
    /// Requests to it that have not ended: two where it was asked again because it was slow.
    pub(crate) pending: u8,
    /// The bit that was flipped in what it was last asked about, plus one; 0 where that was the target.
    rim: u8,
    /// Never pushed out: a seed.
    keep: bool,
}

impl Rank {
    pub(crate) const fn new(lead: u64) -> Self {
        Self { lead, slot: 0, state: State::Heard, tries: 0, pending: 0, rim: 0, keep: false }
    }

    /// The common prefix length with the target, as far as `lead` tells; less than 64.
    #[allow(clippy::cast_possible_truncation)] // at most 63
    fn cpl(&self) -> u8 {
        self.lead.leading_zeros().min(63) as u8
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
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

pub(crate) enum Step {
    Ask { place: usize, rim: Option<u8>, detour: bool },
    Wait,
    Converged,
    Exhausted,
}

impl<F: Family> Path<F> {
    /// How many extra nodes are asked at most for the sake of the rim.
    const DETOURS: u8 = 4;

    pub(crate) fn with_room(room: usize) -> Self {
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
    /// does not go on asking ever farther ones. At the `limit`, as many nodes have been asked as may be.
    pub(crate) fn step(&mut self, rules: &Rules, limit: bool) -> Step {
        // A round that brought nothing closer: look at the whole neighbourhood at once.
        let parallelism = if self.fruitless >= rules.alpha { rules.alpha.max(rules.k) } else { rules.alpha };
        let full = self.waiting >= parallelism;
        if full && self.unchanged {
            return Step::Wait;
        }
        // The first candidates have answered or failed, more and more of them: they need not be looked at again.
        let (mut alive, mut window, mut answered) = (self.settled_alive, self.settled_alive, true);
        let mut edge = self.settled_edge;
        // Before the first that has answered, one who lives is the first of the result: it may be asked once more.
        let mut tries = rules.retries + u16::from(rules.retries > 0 && self.settled_alive == 0);
        let mut converged = self.settled_alive == rules.beta;
        let from = usize::from(self.settled);
        for (place, rank) in (from..).zip(self.ranks.get(from..).unwrap_or_default()) {
            if converged || window == rules.k {
                break;
            }
            match rank.state {
                State::Answered => {
                    window += 1;
                    tries = rules.retries;
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
                State::Slow if rules.hedges && u16::from(rank.tries) <= tries && !full => {
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

    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0
    }

    pub(crate) fn was_asked(&self, place: usize) -> bool {
        self.ranks.get(place).is_some_and(|rank| rank.tries > 0)
    }

    /// Marks a candidate as asked.
    pub(crate) fn ask(&mut self, place: usize, rim: Option<u8>, detour: bool) -> Option<Rank> {
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
    pub(crate) fn take_back(&mut self, spot: Spot) -> bool {
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

    /// Whether the candidate, which is asked now, ran into its time-out before, and no request to it was left.
    pub(crate) fn is_back(&mut self, spot: Spot) -> bool {
        self.rank_mut(spot).is_some_and(|rank| rank.tries > 1 && rank.pending == 1)
    }

    /// A request to the candidate was answered. Says how many others to it are superseded.
    pub(crate) fn answered(&mut self, spot: Spot) -> u8 {
        let Some(rank) = self.rank_mut(spot) else { return 0 };
        let was = core::mem::replace(&mut rank.state, State::Answered);
        let pending = core::mem::take(&mut rank.pending);
        let explored = u64::from(spot.rim == Some(rank.cpl())) << rank.cpl();
        self.waiting -= u16::from(was == State::Waiting);
        self.pending -= u32::from(pending);
        self.explored |= explored;
        self.unchanged = false;
        if was == State::Failed {
            // Its other request failed, so `step` counts it out.
            self.unsettle();
        }
        pending.saturating_sub(1)
    }

    /// A request to the candidate ended without an answer.
    pub(crate) fn missed(&mut self, spot: Spot, miss: Miss, rules: &Rules) {
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

    /// The candidate at this place has failed by other means than a request of the lookup. One that has answered lives.
    pub(crate) fn lost(&mut self, place: usize) {
        let Some(rank) = self.ranks.get_mut(place) else { return };
        if matches!(rank.state, State::Answered | State::Failed) {
            return;
        }
        self.troubled = true;
        self.unchanged = false;
        // Where it has been asked, that request will tell: it may yet be answered.
        if rank.pending > 0 {
            return;
        }
        if core::mem::replace(&mut rank.state, State::Failed) == State::Heard {
            self.heard -= 1;
            self.horizon = u64::MAX;
        }
        self.unsettle();
    }

    /// A request to the candidate, which has failed by another one, was not sent.
    pub(crate) fn withdrawn(&mut self, spot: Spot) {
        if let Some(rank) = self.rank_mut(spot).filter(|rank| rank.pending > 0) {
            rank.pending -= 1;
            self.pending -= 1;
        }
    }

    /// The last request to the candidate is slow.
    pub(crate) fn slow(&mut self, spot: Spot) {
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
    pub(crate) fn edge(&self, target: &F::Key, k: u16) -> Option<F::Key> {
        let mut alive = self.ranks.iter().filter(|rank| !matches!(rank.state, State::Failed | State::Missed));
        let slot = alive.nth(usize::from(k) - 1)?.slot;
        self.contacts.get(usize::from(slot)).map(|contact| F::key(&contact.node).distance(target))
    }

    /// Whether the candidate at this place is this node.
    #[inline]
    pub(crate) fn is_at(&self, place: usize, lead: u64, node: &F::Node) -> bool {
        self.ranks.get(place).is_some_and(|rank| {
            rank.lead == lead
                && self.contacts.get(usize::from(rank.slot)).is_some_and(|contact| contact.node == *node)
        })
    }

    /// Where a node belongs; or, where it is known, `Err` with its place.
    pub(crate) fn position(&self, target: &F::Key, lead: u64, node: &F::Node) -> Result<usize, usize> {
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

    /// Lets the closest, these many, never be pushed out.
    pub(crate) fn keep(&mut self, closest: usize) {
        for rank in self.ranks.iter_mut().take(closest) {
            rank.keep = true;
        }
    }

    /// Puts a candidate in at its place, if there is room or one farther gives way.
    pub(crate) fn insert(
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
                    *contact = Contact { node: node(), micros: 0, hop, value: false };
                }
            }
            // Everything that could give way is closer.
            None if self.heard >= rules.max_candidates => return false,
            None => {
                let Ok(slot) = u16::try_from(self.contacts.len()) else { return false };
                rank.slot = slot;
                self.contacts.push(Contact { node: node(), micros: 0, hop, value: false });
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

    /// The candidates of which it is not known that they are silent or have failed, in order: slot, contact, and whether it has
    /// answered.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u16, &Contact<F>, bool)> {
        let live = self.ranks.iter().filter(|rank| !matches!(rank.state, State::Failed | State::Missed));
        live.filter_map(|rank| {
            let contact = self.contacts.get(usize::from(rank.slot))?;
            Some((rank.slot, contact, rank.state == State::Answered))
        })
    }

    /// Takes out the closest that answered, in order, without allocating: they are moved to the front.
    pub(crate) fn take_closest(&mut self, most: usize) -> Vec<Contact<F>> {
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
