//! [`RememberedNodes`]: places to come back to.
//!
//! Seeds that the driver named, and nodes that the table has lost because they were silent. A network that was split heals
//! only if somebody asks across the old border again, and a node whose neighbours were all away for a night has nobody else
//! to ask. So one of the remembered nodes that are not in the table is tried at a time, in turn: those tried least first,
//! and of these the one that had been in the table for longest. When one comes back, those that were lost with it are
//! tried at once: what had taken them away may be over. When several have come back, a bootstrap is due.

use crate::routing::table::{RoutingTable, SavedNode};
use crate::vocabulary::family::{Family, ToldBy};
use crate::vocabulary::time::{Instant, nanos};
use core::cmp::Reverse;
use core::time::Duration;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// After each has been tried so often, they are tried no more rarely.
const MAX_TRIES: u32 = 16;
/// How many lost nodes of one [group](crate::Family::group) are remembered.
const MAX_PER_GROUP: usize = 8;
/// Nodes lost within this time of each other were lost together.
const TOGETHER: Duration = Duration::from_secs(600);
/// A node that was tried within this time is not tried again because another has come back.
const JUST_TRIED: Duration = Duration::from_secs(60);
/// How many nodes must come back within [`TOGETHER`], so that a bootstrap is due.
const HEALED: u32 = 3;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct RememberedNodes<F: Family> {
    /// The latest last.
    seeds: Vec<Place<F>>,
    lost: Vec<Place<F>>,
    max_seeds: usize,
    max_lost: usize,
    interval: Duration,
    /// When the next of them may be tried.
    next_try: Instant,
    random: Xoshiro256PlusPlus,
    /// How many have come back lately, and when the first of these.
    returned: (u32, Instant),
}

/// A place to come back to.
#[derive(Clone, Debug)]
struct Place<F: Family> {
    node: F::Node,
    /// How long it was in the table and answered; zero for a seed.
    lived: Duration,
    /// When it was last heard from, less than its age when it was restored; how old it was when it was lost.
    lost: Instant,
    age: Duration,
    tries: u32,
    last_try: Option<Instant>,
    /// It is in the table: a seed may be.
    in_table: bool,
}

/// What follows from the return of a node.
pub(super) struct Returned<F: Family> {
    /// To be tried at once: these were lost with it.
    pub(super) others: Vec<F::Node>,
    /// Several have come back.
    pub(super) is_healing: bool,
}

impl<F: Family> RememberedNodes<F> {
    /// An empty list for so many seeds and lost nodes, one of which is tried in each interval.
    pub(super) fn new((max_seeds, max_lost): (usize, usize), interval: Duration, seed: u64) -> Self {
        Self {
            seeds: Vec::new(),
            lost: Vec::new(),
            max_seeds,
            max_lost,
            interval,
            next_try: Instant::ORIGIN,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            returned: (0, Instant::ORIGIN),
        }
    }

    /// Remembers seeds; the oldest are forgotten beyond the maximum. Returns whether one of them is new.
    pub(super) fn remember(&mut self, seeds: &[F::Node], table: &RoutingTable<F>) -> bool {
        let latest = seeds.get(seeds.len().saturating_sub(self.max_seeds)..).unwrap_or_default();
        let mut any_new = false;
        for seed in latest.iter().filter(|seed| table.accepts(seed)) {
            let mut node = seed.clone();
            if let Some(at) = self.seeds.iter().position(|known| known.node == *seed) {
                // What is known of a seed counts before what is said of it.
                let known = self.seeds.remove(at).node;
                if F::NODES_CHANGE {
                    node = known;
                    F::update(&mut node, seed, ToldBy::Others);
                }
            } else {
                any_new = true;
            }
            self.seeds.push(Place {
                in_table: table.get(&node).is_some(),
                node,
                lived: Duration::ZERO,
                lost: Instant::ORIGIN,
                age: Duration::ZERO,
                tries: 0,
                last_try: None,
            });
        }
        self.seeds.drain(..self.seeds.len().saturating_sub(self.max_seeds));
        any_new
    }

    /// A node has left the table because it was silent. `lived`: how long it had been there and answered; `age`: how long
    /// ago it was last heard from.
    pub(super) fn lose(&mut self, now: Instant, node: &F::Node, lived: Duration, age: Duration) {
        if self.max_lost == 0 || self.seeds.iter().any(|seed| seed.node == *node) {
            return;
        }
        self.lost.retain(|known| known.node != *node);
        if self.lost.is_empty() {
            self.next_try = self.next_try.max(self.after_wait(now));
        }
        let place =
            Place { node: node.clone(), lived, lost: now, age, tries: 0, last_try: None, in_table: false };
        self.lost.push(place);
        let group = F::group(node);
        let of_group = |place: &Place<F>| group.is_some() && F::group(&place.node) == group;
        let crowded = self.lost.iter().filter(|place| of_group(place)).count() > MAX_PER_GROUP;
        if crowded || self.lost.len() > self.max_lost {
            // The one that had been there for the shortest time goes.
            let places = self.lost.iter().enumerate().filter(|(_, place)| !crowded || of_group(place));
            let worst = places.min_by_key(|(at, place)| (place.lived, *at)).map(|(at, _)| at);
            if let Some(worst) = worst {
                self.lost.remove(worst);
            }
        }
    }

    /// A node has come back: it is live, and in the table.
    pub(super) fn returned(&mut self, now: Instant, node: &F::Node) -> Option<Returned<F>> {
        let at = self.lost.iter().position(|known| known.node == *node)?;
        let back = self.lost.remove(at);
        let (count, since) = self.returned;
        self.returned = if now - since > TOGETHER { (1, now) } else { (count.saturating_add(1), since) };
        let apart = |other: Instant| (other - back.lost).max(back.lost - other);
        let others = self.lost.iter_mut().filter(|place| {
            apart(place.lost) <= TOGETHER && place.last_try.is_none_or(|at| now - at > JUST_TRIED)
        });
        let others = others.map(|place| {
            place.last_try = Some(now);
            place.node.clone()
        });
        Some(Returned { others: others.collect(), is_healing: self.returned.0 == HEALED })
    }

    /// A node has entered the table, or left it.
    pub(super) fn moved(&mut self, node: &F::Node, in_table: bool) {
        if let Some(seed) = self.seeds.iter_mut().find(|seed| seed.node == *node) {
            seed.in_table = in_table;
        }
    }

    /// A node is gone for good, or not to be used.
    pub(super) fn forget(&mut self, node: &F::Node) {
        self.seeds.retain(|place| place.node != *node);
        self.lost.retain(|place| place.node != *node);
    }

    /// Forgets all that the table would not accept.
    pub(super) fn retain_accepted(&mut self, table: &RoutingTable<F>) {
        self.seeds.retain(|place| table.accepts(&place.node));
        self.lost.retain(|place| table.accepts(&place.node));
        for seed in &mut self.seeds {
            seed.in_table = table.get(&seed.node).is_some();
        }
    }

    /// Merges what is told about a node.
    pub(super) fn told(&mut self, node: &F::Node, by: ToldBy) {
        for place in self.seeds.iter_mut().chain(&mut self.lost).filter(|place| place.node == *node) {
            F::update(&mut place.node, node, by);
        }
    }

    /// A random time, at least `at`, and later by at most `jitter`.
    pub(super) fn jittered(&mut self, at: Instant, jitter: Duration) -> Instant {
        let random = (u128::from(self.random.next_u64()) * u128::from(nanos(jitter))) >> 64;
        at.plus(u64::try_from(random).unwrap_or(0))
    }

    /// The time to wait after a try: between three and five quarters of the interval.
    fn after_wait(&mut self, now: Instant) -> Instant {
        self.jittered(now + self.interval / 4 * 3, self.interval / 2)
    }

    /// The next may be tried now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next_try = self.next_try.min(now);
    }

    /// When the next of them is to be tried; `None` if there is none.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let has_places = !self.lost.is_empty() || self.seeds.iter().any(|seed| !seed.in_table);
        (has_places && self.next_try < Instant::FAR_FUTURE).then_some(self.next_try)
    }

    /// The node to be tried now, one that is not in the table, and that may be asked; `None` if there is none.
    pub(super) fn next(&mut self, now: Instant, may_ask: impl Fn(&F::Node) -> bool) -> Option<F::Node> {
        self.next_try = self.after_wait(now);
        let places = self.seeds.iter_mut().chain(&mut self.lost);
        let order = |place: &Place<F>| (place.tries, Reverse(place.lived), place.last_try);
        let may_be_tried = |place: &&mut Place<F>| !place.in_table && may_ask(&place.node);
        let place = places.filter(may_be_tried).min_by_key(|place| order(place))?;
        place.tries = place.tries.saturating_add(1);
        place.last_try = Some(now);
        let (node, tries) = (place.node.clone(), place.tries);
        // Where all were tried before: ever more rarely.
        self.next_try = self.next_try + self.interval.saturating_mul(tries.min(MAX_TRIES) - 1);
        Some(node)
    }

    /// Those to bootstrap from: seeds first, the latest of these last; and who was not lost just now, if the table holds
    /// `known` nodes that can be asked instead.
    pub(super) fn to_ask(&self, now: Instant, known: usize) -> impl Iterator<Item = &F::Node> {
        let lost = self.lost.iter().filter(move |place| known == 0 || now - place.lost > JUST_TRIED);
        self.seeds.iter().chain(lost).map(|place| &place.node)
    }

    /// Whether there is nobody to bootstrap from, not even later.
    pub(super) fn is_empty(&self) -> bool {
        self.seeds.is_empty() && self.lost.is_empty()
    }

    /// Visits all of them.
    pub(super) fn visit_nodes(&self, visit: &mut dyn FnMut(&F::Node)) {
        self.seeds.iter().chain(&self.lost).for_each(|place| visit(&place.node));
    }

    /// The lost nodes, each with how long ago it was last heard from; then the seeds that are not in the table, of which that
    /// is not known.
    pub(super) fn to_save(&self, now: Instant) -> impl Iterator<Item = (&F::Node, Duration)> {
        let lost =
            self.lost.iter().map(move |place| (&place.node, place.age.saturating_add(now - place.lost)));
        let seeds = self.seeds.iter().filter(|seed| !seed.in_table);
        lost.chain(seeds.map(|seed| (&seed.node, SavedNode::<F>::NEVER)))
    }
}

#[cfg(test)]
mod tests {
    use super::RememberedNodes;
    use crate::vocabulary::family::Plain;
    use crate::vocabulary::key::Key8;
    use crate::vocabulary::time::Instant;
    use core::time::Duration;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(10_000 + seconds)
    }

    #[test]
    fn those_that_were_lost_together_are_tried_together() {
        let mut places = RememberedNodes::<Plain>::new((8, 8), S * 60, 1);
        // Three at once, one that was tried just now, and one long before.
        places.lose(at(0), &Key8::new([9]), S, S);
        for node in 1..=4 {
            places.lose(at(700), &Key8::new([node]), S * u32::from(10 - node), S);
        }
        // The one whose turn it is may be banned; it stays the next.
        let mut others = places.clone();
        assert_eq!(others.next(at(2_000), |node| *node != Key8::new([1])), Some(Key8::new([2])));
        assert_eq!(others.next(at(2_000), |_| false), None);
        assert_eq!(others.next(at(2_000), |_| true), Some(Key8::new([1])));
        assert_eq!(places.next(at(2_000), |_| true), Some(Key8::new([1])));
        let back = places.returned(at(2_010), &Key8::new([2])).expect("it was lost");
        assert_eq!((back.others, back.is_healing), ([3, 4].map(|node| Key8::new([node])).to_vec(), false));
        // These were tried just now.
        let back = places.returned(at(2_011), &Key8::new([3])).expect("it was lost");
        assert_eq!((back.others, back.is_healing), (vec![], false));
        // With the third a bootstrap is due, and not with the next.
        assert!(places.returned(at(2_012), &Key8::new([4])).expect("it was lost").is_healing);
        assert!(!places.returned(at(2_013), &Key8::new([1])).expect("it was lost").is_healing);
        assert!(places.returned(at(2_014), &Key8::new([1])).is_none());
    }
}
