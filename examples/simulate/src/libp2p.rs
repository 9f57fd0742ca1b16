//! The closest-peers iterator of rust-libp2p (kad 0.49), as faithful as a few lines can be: 3 requests at a time;
//! a peer is unresponsive after 10 s; 3 answers in a row without progress stall it, and then up to 20 requests are
//! in flight, to ever farther peers while a close one is silent. Nobody is asked twice; a late answer counts.

use kad_proto::Key as _;
use kad_proto::sim::{Handle, Key64, LookupRun, World};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

const K: usize = 20;
const PARALLELISM: usize = 3;
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq)]
enum State {
    NotContacted,
    Waiting { until: Duration },
    Unresponsive,
    Succeeded,
}

struct Peer {
    node: Handle,
    hop: u32,
    state: State,
}

/// What came of one lookup.
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    pub(crate) requests: u32,
    pub(crate) hops: u32,
    pub(crate) recall: f64,
}

struct Iter<'a> {
    world: &'a World,
    lookup: u32,
    starter: Handle,
    target: Key64,
    /// By distance.
    peers: BTreeMap<Key64, Peer>,
    waiting: usize,
    stalled: bool,
    no_progress: usize,
    now: Duration,
    /// Answers under way, by arrival.
    answers: BinaryHeap<Reverse<(Duration, Handle)>>,
    requests: u32,
    hops: u32,
}

/// Does a lookup that the engine has done once more, with the same draws of the network.
pub(crate) fn look_up(world: &World, lookup: &LookupRun) -> Outcome {
    let mut iter = Iter {
        world,
        lookup: lookup.number,
        starter: lookup.starter,
        target: lookup.target,
        peers: BTreeMap::new(),
        waiting: 0,
        stalled: false,
        no_progress: 0,
        now: Duration::ZERO,
        answers: BinaryHeap::new(),
        requests: 0,
        hops: 0,
    };
    for node in world.closest_known(lookup.starter, lookup.target) {
        iter.add(node, 1);
    }
    while iter.poll() {
        iter.wait();
    }
    let truth = world.truly_closest(iter.target, iter.starter);
    let succeeded = iter.peers.values().filter(|peer| peer.state == State::Succeeded).take(K);
    let found = succeeded.filter(|peer| truth.contains(&peer.node)).count();
    let recall = found as f64 / truth.len().max(1) as f64;
    Outcome { time: iter.now, requests: iter.requests, hops: iter.hops, recall }
}

impl Iter<'_> {
    fn add(&mut self, node: Handle, hop: u32) {
        if node != self.starter {
            let peer = Peer { node, hop, state: State::NotContacted };
            self.peers.entry(node.key().distance(&self.target)).or_insert(peer);
        }
    }

    fn at_capacity(&self) -> bool {
        self.waiting >= if self.stalled { K.max(PARALLELISM) } else { PARALLELISM }
    }

    /// Asks the next peers. Returns whether there is anything to wait for.
    fn poll(&mut self) -> bool {
        let mut in_a_row = Some(0);
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            let at_capacity = self.at_capacity();
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            match peer.state {
                State::Waiting { until } if self.now >= until => {
                    peer.state = State::Unresponsive;
                    self.waiting -= 1;
                }
                State::Waiting { .. } | State::NotContacted if at_capacity => return true,
                State::Waiting { .. } => in_a_row = None,
                State::Succeeded => {
                    in_a_row = in_a_row.map(|count| count + 1);
                    if in_a_row.is_some_and(|count| count >= K) {
                        return false;
                    }
                }
                State::NotContacted => {
                    peer.state = State::Waiting { until: self.now + PEER_TIMEOUT };
                    let node = peer.node;
                    self.waiting += 1;
                    self.requests += 1;
                    in_a_row = None;
                    if let Some(took) = self.world.round_trip(self.lookup, self.starter, node, 0) {
                        self.answers.push(Reverse((self.now + took, node)));
                    }
                }
                State::Unresponsive => {}
            }
        }
        self.waiting > 0
    }

    /// Lets the next thing happen: an answer, or a peer's time-out.
    fn wait(&mut self) {
        // At capacity the iterator does not get as far as to notice every time-out that is past.
        let timeouts = self.peers.values().filter_map(|peer| match peer.state {
            State::Waiting { until } if until > self.now => Some(until),
            _ => None,
        });
        let timeout = timeouts.min().unwrap_or(Duration::MAX);
        match self.answers.peek() {
            Some(Reverse((at, _))) if *at <= timeout => {
                if let Some(Reverse((at, node))) = self.answers.pop() {
                    self.now = at;
                    self.answered(node);
                }
            }
            _ => self.now = timeout,
        }
    }

    fn answered(&mut self, node: Handle) {
        let distance = node.key().distance(&self.target);
        let Some(peer) = self.peers.get_mut(&distance) else { return };
        match peer.state {
            State::Waiting { .. } => self.waiting -= 1,
            State::Unresponsive => {}
            _ => return,
        }
        peer.state = State::Succeeded;
        let hop = peer.hop;
        self.hops = self.hops.max(hop);
        let known = self.peers.len();
        let closest = self.peers.keys().next().copied();
        for closer in self.world.closest_known(node, self.target) {
            self.add(closer, hop + 1);
        }
        let grew = self.peers.len() > known;
        let progress = self.peers.keys().next().copied() != closest || (known < K && grew);
        if progress {
            (self.stalled, self.no_progress) = (false, 0);
        } else if !self.stalled {
            self.no_progress += 1;
            self.stalled = self.no_progress >= PARALLELISM;
        }
    }
}
