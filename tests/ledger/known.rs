//! What one lookup has been told: whom it may ask, who answered, and how it may end.
//!
//! A lookup keeps a bounded number of candidates, deals them out to disjoint paths, and adapts its time-outs. As long
//! as none of these hides anything, this account is [exact](Known::is_exact), and the rules of the iteration are
//! checked to the letter; beyond that, only what holds in any case is.

use super::net::{Net, Peer};
use kad_proto::{
    Ask, Bits, Config, Contact, Family, Instant, Key, Outcome, QueryConfig, Request, RequestId, Start,
};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Heard,
    /// Asked; a slot is occupied until `slow_at`, then it may be asked again.
    Waiting {
        slow_at: Option<Instant>,
    },
    /// Its requests timed out, and it may be asked again.
    Missed,
    Answered {
        elapsed: Duration,
        hop: u32,
        value: bool,
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
    /// Requests that have not ended.
    pending: Vec<RequestId>,
    /// All that has ended timed out: one more may have waited for capacity meanwhile.
    silent: bool,
    /// It has failed by other means than a request of the lookup.
    lost: bool,
}

impl Entry {
    fn answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }

    fn is_slow(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { slow_at: Some(at) } if at <= now)
    }
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
    /// Soft limits are as configured.
    fixed: bool,
    exact: bool,
    /// A request has been slow, or ended without an answer: the rim of the neighbourhood may be explored.
    troubled: bool,
    /// Only closer nodes are asked for: a slow node may be asked again while its first request is listened to.
    find: bool,
    /// Nodes asked beyond the k closest, for the sake of the rim.
    detours: usize,
}

impl<const N: usize> Known<N> {
    /// How many nodes a path asks beyond the k closest at most.
    const DETOURS: usize = 4;

    pub(crate) fn new(
        local: Bits<N>,
        target: Bits<N>,
        config: &Config,
        start: &Start<Net<N>>,
        seeds: &[Peer<N>],
    ) -> Self {
        let (query, network) = (&config.pool.query, &config.network);
        let num_results = start.num_results.unwrap_or(query.k);
        let fixed = network.min_timeout >= network.request_timeout;
        let mut known = Self {
            local,
            target,
            num_results,
            k: query.k.max(num_results),
            max_candidates: query.max_candidates.max(2 * num_results),
            entries: BTreeMap::new(),
            fruitless: 0,
            fixed,
            exact: fixed && query.paths == 1,
            troubled: false,
            find: start.ask == Ask::FindCloser,
            detours: 0,
            config: query.clone(),
        };
        for seed in seeds {
            known.told(*seed, 1);
        }
        known
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether it can be told when the lookup is over: where somebody was silent, the rim is made sure of first.
    pub(crate) fn is_sure(&self) -> bool {
        self.exact && !(self.troubled && self.config.rim && self.find)
    }

    /// Whether there is nothing left to ask, as far as this account goes.
    pub(crate) fn is_over(&self) -> bool {
        let (alive, enough) = (self.alive(), self.enough());
        let converged = alive.len() >= enough && alive[..enough].iter().all(|(_, entry)| entry.answered());
        let exhausted = alive.iter().all(|(_, entry)| entry.answered());
        // Whoever was asked before may be asked again.
        let next = alive.iter().find(|(_, entry)| !entry.answered());
        let next_is_new = next.is_some_and(|(_, entry)| entry.state == State::Heard);
        let limited = next_is_new && self.asked() >= self.config.max_nodes && !self.is_pending();
        converged || exhausted || limited
    }

    /// Whether a request is in flight.
    pub(crate) fn is_pending(&self) -> bool {
        self.entries.values().any(|entry| !entry.pending.is_empty())
    }

    pub(crate) fn has_answered(&self, peer: &Peer<N>) -> bool {
        self.entries.get(peer).is_some_and(Entry::answered)
    }

    /// Whether a node has been silent, and has not been asked again since.
    pub(crate) fn is_silent(&self, peer: &Peer<N>) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.state == State::Missed)
    }

    /// How far away a node is, by each naming.
    pub(crate) fn hops(&self, peer: &Peer<N>) -> Option<&[u32]> {
        self.entries.get(peer).map(|entry| &entry.hops[..])
    }

    /// A request was given up as the lookup is over.
    pub(crate) fn abandoned(&mut self, id: RequestId, peer: &Peer<N>) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.pending.retain(|other| *other != id);
        }
    }

    /// Those that are not known to be silent or to have failed, in order of distance: how far away they are, and whether they
    /// have answered.
    pub(crate) fn live(&self) -> Vec<(Peer<N>, u32, bool)> {
        let live = self.alive().into_iter().filter(|(_, entry)| entry.state != State::Missed);
        live.map(|(peer, entry)| (*peer, entry.hops[0], entry.answered())).collect()
    }

    /// The closest that have answered, in order, and how far away they are.
    pub(crate) fn closest(&self) -> Vec<(Peer<N>, u32)> {
        let answered = self.live().into_iter().filter(|(.., answered)| *answered);
        answered.take(self.num_results).map(|(peer, hop, _)| (peer, hop)).collect()
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
        // Which of two nodes with one key comes first is left open.
        self.exact = self.exact
            && self.entries.values().filter(|entry| entry.state == State::Heard).count()
                < self.max_candidates
            && !self.entries.keys().any(|other| other.key == peer.key);
        let entry = Entry {
            state: State::Heard,
            hops: vec![hop],
            tries: 0,
            pending: Vec::new(),
            silent: true,
            lost: false,
        };
        self.entries.insert(peer, entry);
        true
    }

    /// In how many nodes that are not slow the lookup waits.
    fn occupied(&self, now: Instant) -> usize {
        let waits = |entry: &&Entry| matches!(entry.state, State::Waiting { .. }) && !entry.is_slow(now);
        self.entries.values().filter(waits).count()
    }

    fn asked(&self) -> usize {
        self.entries.values().filter(|entry| entry.tries > 0).count()
    }

    fn parallelism(&self) -> usize {
        let alpha = self.config.alpha;
        if self.fruitless >= alpha { alpha.max(self.k) } else { alpha }
    }

    /// Time has passed.
    pub(crate) fn look(&mut self, now: Instant) {
        self.troubled |= self.entries.values().any(|entry| entry.is_slow(now));
    }

    /// A request comes out. `unqueued` says that nothing waited for capacity before or after this call. Says whether
    /// the node was never asked before.
    pub(crate) fn asks(
        &mut self,
        now: Instant,
        request: &Request<Net<N>>,
        slow_at: Option<Instant>,
        unqueued: bool,
    ) -> bool {
        let peer = request.node;
        assert_ne!(peer.key, self.local, "query: never contacts self");
        let Some(entry) = self.entries.get(&peer) else {
            panic!("query: asked a node that nobody named: {peer:?}")
        };
        assert!(entry.hops.contains(&request.hop), "hops: {} of {:?}", request.hop, entry.hops);
        let first_named = entry.hops[0] == request.hop;
        assert!(!self.exact || first_named, "hops: one more than the answer that first named it");
        let silent = match entry.state {
            State::Heard | State::Missed => true,
            State::Waiting { .. } => self.find && (entry.is_slow(now) || !self.fixed),
            State::Failed => (self.find && entry.silent || entry.lost) && !unqueued,
            State::Answered { .. } => false,
        };
        assert!(silent, "query: asked again though not silent: {peer:?} {:?}", entry.state);
        let most = self.repeats(&peer, entry, unqueued);
        assert!(entry.tries <= most, "query: asked more often than the retry rule allows");
        self.about(request);
        let first = entry.tries == 0;
        // Those passed over do not count: who is slow, and who was, as the next is asked in their stead.
        let closer = self.entries.iter().filter(|(other, entry)| {
            let counts = match entry.state {
                State::Waiting { .. } => !entry.is_slow(now) && entry.tries == 1,
                State::Heard | State::Missed | State::Answered { .. } => true,
                State::Failed => false,
            };
            counts && self.distance(other) < self.distance(&peer)
        });
        let beyond = self.exact && unqueued && closer.count() >= self.k;
        self.detours += usize::from(beyond);
        let detour = first && request.target != self.target && self.detours <= Self::DETOURS;
        assert!(!beyond || detour, "query: asked a node beyond the k closest: {peer:?} of {self}");
        let Some(entry) = self.entries.get_mut(&peer) else { return first };
        entry.tries += 1;
        entry.pending.push(request.id);
        // One that is asked though it was lost was to be asked already, and that waited for capacity.
        entry.lost = false;
        entry.state = State::Waiting { slow_at };
        assert!(self.asked() <= self.config.max_nodes, "query: asked more nodes than max_nodes");
        let most = self.config.paths * self.config.alpha.max(self.k);
        assert!(!self.fixed || self.occupied(now) <= most, "query: more than k slots a path");
        if self.exact && unqueued {
            assert!(
                self.occupied(now) <= self.parallelism(),
                "query: alpha slots, k where it stalls: {self}"
            );
        }
        first
    }

    /// How often a node may have been asked for it to be asked again: once more where it is slow, and nearer than all that
    /// have answered. Where something waited for capacity, it may have been so when the request was handed in.
    fn repeats(&self, peer: &Peer<N>, entry: &Entry, unqueued: bool) -> usize {
        let retries = self.config.retries;
        let waits = self.find && retries > 0 && !matches!(entry.state, State::Heard | State::Missed);
        let nearer = |(other, entry): (&Peer<N>, &Entry)| {
            entry.answered() && self.distance(other) < self.distance(peer)
        };
        let exact = self.exact && unqueued;
        retries + usize::from(waits && !(exact && self.entries.iter().any(nearer)))
    }

    /// What a node is asked about: the target; or, once somebody has been silent, the target with one bit flipped,
    /// which stands in another subtree.
    fn about(&self, request: &Request<Net<N>>) {
        let flipped = request.target.distance(&self.target);
        let bits: u32 = flipped.as_bytes().iter().map(|byte| byte.count_ones()).sum();
        assert!(bits <= 1, "query: asked about another key: {}", request.target);
        let find = request.ask == Ask::FindCloser;
        let may = find && self.config.rim && (self.troubled || !self.fixed);
        assert!(bits == 0 || may, "query: asked about another key without need");
    }

    /// Takes an answer. Says which other requests to the node are superseded by it.
    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        peer: Peer<N>,
        elapsed: Duration,
        hop: u32,
        closer: &[Peer<N>],
        value: bool,
    ) -> Vec<RequestId> {
        let entry = self.entry(&peer);
        entry.state = State::Answered { elapsed, hop, value };
        let mut superseded = std::mem::take(&mut entry.pending);
        superseded.retain(|other| *other != id);
        let edge = self.edge();
        let mut progress = false;
        let closer = &closer[..closer.len().min(self.config.max_closer_nodes)];
        let crowd = |group| closer.iter().filter(|peer| Net::group(peer) == Some(group)).count();
        let crowded = |peer| Net::group(peer).is_some_and(|group| crowd(group) > self.config.max_per_group);
        let welcome: Vec<_> = closer.iter().filter(|peer| !crowded(peer)).collect();
        let mut room = (self.max_candidates / 2).max(1);
        for named in welcome {
            let near = edge.is_none_or(|edge| self.distance(named) < edge);
            let news = self.told(*named, hop + 1);
            // An answer that names more fills no more than its share: which of them it is, is left open.
            self.exact &= !news || room > 0;
            room = room.saturating_sub(usize::from(news));
            progress |= news && near;
        }
        self.fruitless = if progress { 0 } else { self.fruitless + 1 };
        superseded
    }

    /// The distance of the k-th closest that is not silent.
    fn edge(&self) -> Option<Bits<N>> {
        let alive = self.entries.iter();
        let alive = alive.filter(|(_, entry)| !matches!(entry.state, State::Failed | State::Missed));
        let mut distances: Vec<_> = alive.map(|(peer, _)| self.distance(peer)).collect();
        distances.sort_unstable();
        distances.get(self.k - 1).copied()
    }

    /// A request ended without an answer. A node whose requests have all timed out may be asked again, within the
    /// number of retries.
    pub(crate) fn missed(&mut self, id: RequestId, peer: Peer<N>, timed_out: bool) {
        let retries = self.config.retries;
        let entry = self.entry(&peer);
        entry.pending.retain(|other| *other != id);
        entry.silent &= timed_out;
        if entry.state != State::Failed && (entry.pending.is_empty() || !timed_out) {
            let again = timed_out && entry.tries <= retries;
            entry.state = if again { State::Missed } else { State::Failed };
        }
        self.fruitless += 1;
        self.troubled = true;
    }

    /// A node has failed by other means than a request of the lookup.
    pub(crate) fn lost(&mut self, peer: &Peer<N>) {
        if let Some(entry) = self.entries.get_mut(peer)
            && !entry.answered()
            && entry.state != State::Failed
        {
            if entry.pending.is_empty() {
                entry.state = State::Failed;
                entry.lost = true;
            }
            self.troubled = true;
        }
    }

    fn entry(&mut self, peer: &Peer<N>) -> &mut Entry {
        self.entries.get_mut(peer).expect("progress of a node that somebody named")
    }

    /// Whether no request to a node is in flight.
    pub(crate) fn is_quiet(&self, peer: &Peer<N>) -> bool {
        self.entries.get(peer).is_none_or(|entry| entry.pending.is_empty())
    }

    /// Whether the node of a request is known to have failed by another one.
    pub(crate) fn has_failed(&self, peer: &Peer<N>) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.state == State::Failed)
    }

    /// By distance, those that have not failed.
    fn alive(&self) -> Vec<(&Peer<N>, &Entry)> {
        let mut alive: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.state != State::Failed).collect();
        alive.sort_by_key(|(peer, _)| self.distance(peer));
        alive
    }

    /// How many closest nodes must have answered.
    fn enough(&self) -> usize {
        self.config.beta.unwrap_or(self.k)
    }

    /// The lookup goes on after a call, and nothing keeps it from sending: it must have a reason to wait.
    /// `busy` names the nodes that have as many requests as they may.
    pub(crate) fn assert_restless(&self, now: Instant, busy: &[Bits<N>]) {
        let pending = self.entries.values().any(|entry| !entry.pending.is_empty());
        let waits = pending || !busy.is_empty();
        assert!(waits, "quiescence: a lookup that goes on waits for something: {self}");
        if !self.exact {
            return;
        }
        let (alive, enough) = (self.alive(), self.enough());
        let converged = alive.len() >= enough && alive[..enough].iter().all(|(_, entry)| entry.answered());
        let exhausted = alive.iter().all(|(_, entry)| entry.answered());
        // Where somebody was silent, the rim is made sure of first.
        assert!(self.troubled || !converged, "query: ends when the k closest have answered: {self}");
        assert!(self.troubled || !exhausted, "query: ends when nothing is left to ask: {self}");
        if converged || self.occupied(now) >= self.parallelism() {
            return;
        }
        let mut window = 0;
        for (peer, entry) in alive {
            let again = self.find && entry.tries <= self.repeats(peer, entry, true);
            let could = match entry.state {
                State::Heard => self.asked() < self.config.max_nodes,
                State::Missed => true,
                State::Waiting { .. } => entry.is_slow(now) && again,
                State::Answered { .. } | State::Failed => false,
            };
            if could && busy.contains(&peer.key) {
                return; // it waits for that node, and asks nobody in its stead
            }
            assert!(!could, "quiescence: {peer:?} could be asked now: {self}");
            // At the limit of nodes nobody new can be asked, and nobody beyond.
            let slow = entry.is_slow(now) || matches!(entry.state, State::Waiting { .. }) && entry.tries > 1;
            window += usize::from(!slow);
            if window == self.k || entry.state == State::Heard {
                break;
            }
        }
    }

    /// The operation ends.
    pub(crate) fn assert_finish(&self, outcome: Outcome, closest: &[Contact<Net<N>>]) {
        let responsive = self.entries.iter().filter(|(_, entry)| entry.answered());
        let mut responsive: Vec<_> = responsive.map(|(peer, _)| self.distance(peer)).collect();
        responsive.sort_unstable();
        let found: Vec<_> = closest.iter().map(|contact| self.distance(&contact.node)).collect();
        let expected = &responsive[..responsive.len().min(self.num_results)];
        assert_eq!(found, expected, "results: the closest that answered, in order");
        for (place, contact) in closest.iter().enumerate() {
            let State::Answered { elapsed, hop, value } = self.entries[&contact.node].state else {
                panic!("results: only nodes that answered")
            };
            let double = closest[..place].iter().any(|other| other.node == contact.node);
            assert!(!double, "results: no duplicates");
            let whole = u128::from(u32::MAX).min(elapsed.as_micros());
            let (round_trip, found_by) = (contact.round_trip().as_micros(), contact.hop());
            assert_eq!((round_trip, found_by), (whole, hop), "results: round trip and hop");
            assert_eq!(contact.has_value(), value, "results: who had the value");
        }
        let enough = self.enough();
        if outcome == Outcome::Converged {
            assert!(responsive.len() >= enough, "outcome: converged without enough answers");
        }
        if !self.exact {
            return;
        }
        let alive = self.alive();
        let converged = alive.len() >= enough && alive[..enough].iter().all(|(_, entry)| entry.answered());
        let open = alive.iter().any(|(_, entry)| !entry.answered());
        match outcome {
            Outcome::Converged => {
                assert!(converged, "outcome: converged, but a close node has not answered: {self}")
            }
            Outcome::Exhausted => {
                assert!(
                    !open && alive.len() < enough,
                    "outcome: exhausted, but something was left to ask: {self}"
                );
            }
            Outcome::NodeLimit => {
                let limit = self.asked() == self.config.max_nodes;
                // One that was lost may have been so since.
                let open = open || self.entries.values().any(|entry| entry.lost);
                assert!(limit && open && !converged, "outcome: node limit: {self}");
            }
            _ => {}
        }
    }
}

impl<const N: usize> std::fmt::Display for Known<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "k {}, alpha {}, beta {:?}, ", self.k, self.config.alpha, self.config.beta)?;
        write!(f, "retries {}, max_nodes {}, ", self.config.retries, self.config.max_nodes)?;
        write!(f, "target {}, fruitless {}, troubled {}", self.target, self.fruitless, self.troubled)?;
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(peer, _)| self.distance(peer));
        for (Peer { key, address }, Entry { state, tries, pending, .. }) in entries {
            write!(f, "\n{key}/{address} {state:?}, tries {tries}, pending {pending:?}")?;
        }
        Ok(())
    }
}
