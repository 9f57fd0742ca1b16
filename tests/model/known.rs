//! What one lookup has been told: whom it may ask, who answered, and how it may end.
//!
//! A lookup keeps a bounded number of candidates, and with disjoint paths it deals them out. As long as neither
//! has hidden anything, this account is [exact](Known::exact), and the rules of the iteration are checked to the
//! letter; beyond that, only what holds in any case is.

use super::Peer;
use kad_proto::{Bits, Contact, Instant, Key, Outcome, QueryConfig};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Heard,
    /// Asked; no longer occupying a slot from `slow_at` on.
    Waiting {
        slow_at: Option<Instant>,
    },
    Answered {
        elapsed: Duration,
        hop: u32,
    },
    Failed,
}

#[derive(Clone, Debug)]
struct Entry {
    state: State,
    /// The hop of each naming, the first one first.
    hops: Vec<u32>,
    /// Requests sent.
    tries: usize,
    /// It counts as asked: a request was sent, or refused by the queue.
    asked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Known<const N: usize> {
    local: Bits<N>,
    target: Bits<N>,
    config: QueryConfig,
    num_results: usize,
    k: usize,
    max_candidates: usize,
    entries: BTreeMap<Peer<N>, Entry>,
    /// Answers and misses since the last answer that brought something closer.
    fruitless: usize,
    exact: bool,
}

impl<const N: usize> Known<N> {
    pub(crate) fn new(
        local: Bits<N>,
        target: Bits<N>,
        config: &QueryConfig,
        num_results: Option<usize>,
        seeds: &[Peer<N>],
    ) -> Self {
        let num_results = num_results.unwrap_or(config.k);
        let mut known = Self {
            local,
            target,
            num_results,
            k: config.k.max(num_results),
            max_candidates: config.max_candidates.max(2 * num_results),
            entries: BTreeMap::new(),
            fruitless: 0,
            exact: config.paths == 1,
            config: config.clone(),
        };
        for seed in seeds {
            known.told(*seed, 1);
        }
        known
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    fn distance(&self, peer: &Peer<N>) -> Bits<N> {
        peer.key.distance(&self.target)
    }

    /// Takes a node that a seed list or an answer names. Says whether it is news.
    fn told(&mut self, peer: Peer<N>, hop: u32) -> bool {
        if peer.key == self.local {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.hops.push(hop);
            return false;
        }
        let heard = self.entries.values().filter(|entry| entry.state == State::Heard).count();
        self.exact &= heard < self.max_candidates;
        let entry = Entry { state: State::Heard, hops: vec![hop], tries: 0, asked: false };
        self.entries.insert(peer, entry);
        true
    }

    /// How many nodes that have not failed are strictly closer than this distance, and how many are as close.
    fn alive_within(&self, distance: Bits<N>) -> (usize, usize) {
        let alive = self.entries.iter().filter(|(_, entry)| entry.state != State::Failed);
        alive.fold((0, 0), |(closer, equal), (peer, _)| match self.distance(peer).cmp(&distance) {
            std::cmp::Ordering::Less => (closer + 1, equal),
            std::cmp::Ordering::Equal => (closer, equal + 1),
            std::cmp::Ordering::Greater => (closer, equal),
        })
    }

    /// In how many requests that are not slow the lookup waits.
    fn occupied(&self, now: Instant) -> usize {
        let occupies =
            |state: State| matches!(state, State::Waiting { slow_at } if slow_at.is_none_or(|at| at > now));
        self.entries.values().filter(|entry| occupies(entry.state)).count()
    }

    fn parallelism(&self) -> usize {
        let alpha = self.config.alpha;
        if self.fruitless >= alpha { alpha.max(self.k) } else { alpha }
    }

    /// A request to this node comes out. `unqueued` says that nothing waited for capacity before or after this call.
    pub(crate) fn asks(
        &mut self,
        now: Instant,
        peer: Peer<N>,
        hop: u32,
        slow_at: Option<Instant>,
        unqueued: bool,
    ) {
        assert_ne!(peer.key, self.local, "query: never contacts self");
        let Some(entry) = self.entries.get_mut(&peer) else {
            panic!("query: asked a node that nobody named: {peer:?}")
        };
        assert!(entry.hops.contains(&hop), "hops: {hop} for a node named with {:?}", entry.hops);
        assert!(!self.exact || entry.hops[0] == hop, "hops: one more than the answer that first named it");
        // What makes a node that was asked `Heard` again is a time-out among the k closest: see `missed`.
        assert_eq!(
            entry.state,
            State::Heard,
            "query: a node is asked once, and again only after a time-out: {peer:?}"
        );
        (entry.tries, entry.asked) = (entry.tries + 1, true);
        entry.state = State::Waiting { slow_at };
        assert!(entry.tries <= 1 + self.config.retries, "query: asked more often than the retry rule allows");
        let asked = self.entries.values().filter(|entry| entry.asked).count();
        assert!(asked <= self.config.max_nodes, "query: asked more nodes than max_nodes");
        let most = self.config.paths * self.config.alpha.max(self.k);
        assert!(self.occupied(now) <= most, "query: more than k slots a path");
        if self.exact && unqueued {
            assert!(self.occupied(now) <= self.parallelism(), "query: alpha slots, k where it stalls");
            // Who is slow is passed over, so it does not count among the k closest that may be asked.
            let closer = self.entries.iter().filter(|(other, entry)| {
                let slow = matches!(entry.state, State::Waiting { slow_at: Some(at) } if at <= now);
                entry.state != State::Failed && !slow && self.distance(other) < self.distance(&peer)
            });
            assert!(closer.count() < self.k, "query: asked a node beyond the k closest: {peer:?} of {self}");
        }
    }

    pub(crate) fn answered(&mut self, peer: Peer<N>, elapsed: Duration, hop: u32, closer: &[Peer<N>]) {
        let edge = self.edge();
        self.set(peer, State::Answered { elapsed, hop });
        let mut progress = false;
        for named in closer.iter().take(self.config.max_closer_nodes) {
            let near = edge.is_none_or(|edge| self.distance(named) < edge);
            progress |= self.told(*named, hop + 1) && near;
        }
        self.fruitless = if progress { 0 } else { self.fruitless + 1 };
    }

    /// The distance of the k-th closest that has not failed.
    fn edge(&self) -> Option<Bits<N>> {
        let alive = self.entries.iter().filter(|(_, entry)| entry.state != State::Failed);
        let mut distances: Vec<_> = alive.map(|(peer, _)| self.distance(peer)).collect();
        distances.sort_unstable();
        distances.get(self.k - 1).copied()
    }

    /// A request ended without an answer. One that timed out while its node was among the k closest may be sent
    /// again, within the number of retries.
    pub(crate) fn missed(&mut self, peer: Peer<N>, timed_out: bool) {
        let tries = self.entries.get(&peer).map_or(0, |entry| entry.tries);
        let (closer, _) = self.alive_within(self.distance(&peer));
        let near = !self.exact || closer < self.k;
        let again = timed_out && tries <= self.config.retries && near;
        self.set(peer, if again { State::Heard } else { State::Failed });
        self.fruitless += 1;
    }

    /// A request was never sent.
    pub(crate) fn unsent(&mut self, peer: Peer<N>) {
        self.set(peer, State::Failed);
        self.fruitless += 1;
    }

    fn set(&mut self, peer: Peer<N>, state: State) {
        let Some(entry) = self.entries.get_mut(&peer) else {
            panic!("progress of a node that nobody named: {peer:?}")
        };
        entry.state = state;
        entry.asked = true;
    }

    /// The lookup goes on after a call: it must have a reason to wait. Where nothing waits for capacity.
    pub(crate) fn assert_restless(&self, now: Instant) {
        if !self.exact {
            return;
        }
        let mut alive: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.state != State::Failed).collect();
        alive.sort_by_key(|(peer, _)| self.distance(peer));
        let slow = |state: State| matches!(state, State::Waiting { slow_at: Some(at) } if at <= now);
        let answered = |entry: &Entry| matches!(entry.state, State::Answered { .. });
        let enough = self.config.beta.unwrap_or(self.k);
        // Of nodes with one key, any may come first.
        let edge = alive.get(enough - 1).map(|(peer, _)| self.distance(peer));
        let open = alive.iter().any(|(peer, entry)| !answered(entry) && Some(self.distance(peer)) <= edge);
        assert!(open || alive.len() < enough, "query: ends when the k closest have answered: {self}");
        assert!(alive.iter().any(|(_, entry)| !answered(entry)), "query: ends when nothing is left to ask");
        let limit = self.entries.values().filter(|entry| entry.asked).count() >= self.config.max_nodes;
        let window = alive.iter().filter(|(_, entry)| !slow(entry.state)).take(self.k);
        let last = window.clone().last().map(|(peer, _)| self.distance(peer));
        // Of two nodes with one key at the edge, either may stand within it.
        let certain = |peer| Some(self.distance(peer)) != last || !shares_key(peer, &alive);
        let first = window.clone().find(|(_, entry)| entry.state == State::Heard);
        // At the node limit, the next one can be asked only if it was before.
        let could = first.is_some_and(|(peer, entry)| {
            certain(peer) && (!limit || entry.asked && !shares_key(peer, &alive))
        });
        assert!(
            self.occupied(now) >= self.parallelism() || !could,
            "quiescence: a node could be asked now: {self}"
        );
    }

    /// The operation ends.
    pub(crate) fn assert_finish(&self, outcome: Outcome, closest: &[Contact<super::Net<N>>], cancelled: u32) {
        let answered = |entry: &Entry| matches!(entry.state, State::Answered { .. });
        let mut responsive: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| answered(entry))
            .map(|(peer, _)| self.distance(peer))
            .collect();
        responsive.sort_unstable();
        let found: Vec<_> = closest.iter().map(|contact| self.distance(&contact.node)).collect();
        assert_eq!(
            found,
            responsive[..responsive.len().min(self.num_results)],
            "results: the closest that answered, in order"
        );
        for (place, contact) in closest.iter().enumerate() {
            let State::Answered { elapsed, hop } = self.entries[&contact.node].state else {
                panic!("results: only nodes that answered")
            };
            assert!(
                closest[..place].iter().all(|other| other.node != contact.node),
                "results: no duplicates"
            );
            let whole = u128::from(u32::MAX).min(elapsed.as_micros());
            assert_eq!(
                (contact.round_trip().as_micros(), contact.hop()),
                (whole, hop),
                "results: round trip and hop"
            );
        }
        let enough = self.config.beta.unwrap_or(self.k);
        match outcome {
            Outcome::Converged => {
                assert!(responsive.len() >= enough, "outcome: converged without enough answers")
            }
            // At the node limit, a path that has converged does not wait for what it has in flight.
            Outcome::NodeLimit if self.config.paths > 1 => {}
            Outcome::Exhausted | Outcome::NodeLimit => {
                assert_eq!(cancelled, 0, "outcome: nothing was to be waited for")
            }
            _ => {}
        }
        if !self.exact {
            return;
        }
        let alive = self.entries.iter().filter(|(_, entry)| entry.state != State::Failed);
        let mut alive: Vec<_> = alive.map(|(peer, entry)| (self.distance(peer), !answered(entry))).collect();
        // Of nodes with one key, the answered ones come first here.
        alive.sort_unstable();
        let converged = alive.len() >= enough && !alive[..enough].iter().any(|(_, open)| *open);
        let open = alive.iter().any(|(_, open)| *open);
        match outcome {
            Outcome::Converged => assert!(converged, "outcome: converged, but a close node has not answered"),
            Outcome::Exhausted => {
                assert!(!open && alive.len() < enough, "outcome: exhausted, but something was left to ask")
            }
            Outcome::NodeLimit => {
                let asked = self.entries.values().filter(|entry| entry.asked).count();
                assert!(asked == self.config.max_nodes && open, "outcome: node limit");
            }
            _ => {}
        }
    }
}

impl<const N: usize> std::fmt::Display for Known<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "k {}, alpha {}, beta {:?}, ", self.k, self.config.alpha, self.config.beta)?;
        write!(
            f,
            "max_nodes {}, target {}, fruitless {}",
            self.config.max_nodes, self.target, self.fruitless
        )?;
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(peer, _)| self.distance(peer));
        for (Peer { key, address }, entry) in entries {
            write!(f, "\n{key}/{address} {:?}, tries {}, asked {}", entry.state, entry.tries, entry.asked)?;
        }
        Ok(())
    }
}

fn shares_key<const N: usize>(peer: &Peer<N>, alive: &[(&Peer<N>, &Entry)]) -> bool {
    alive.iter().any(|(other, _)| other.key == peer.key && *other != peer)
}
