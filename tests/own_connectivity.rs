//! Own connectivity: a node that nothing gets through to removes nobody, and one whose neighbours have died takes that for
//! what it is. A coordinator by itself, in a network in which everybody knows everybody and answers after some time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail so

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::routing::table::TableEntry;
use kad_proto::{
    Config, Coordinator, Family, Initiator, Instant, Key, Key160, Machine, RequestId, Response,
    RoutingInbound, RoutingOutbound, SavedNode, Secret, Stamped,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq)]
struct Plain;

impl Family for Plain {
    type Key = Key160;
    type Target = Key160;
    type Node = Key160;
    type Message = ();

    fn key(node: &Key160) -> Key160 {
        *node
    }
}

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// What becomes of what the node sends, but to its neighbours in the local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    Lost,
    /// The driver is told at once.
    Fails,
}

struct World {
    machine: Coordinator<Plain>,
    now: Instant,
    link: Link,
    nodes: Vec<Key160>,
    dead: BTreeSet<Key160>,
    /// In the local network: they answer whatever the link does, and quickly.
    near: BTreeSet<Key160>,
    /// What comes to the driver: when, and whether it is an answer.
    coming: BTreeMap<(Instant, RequestId), (Key160, bool)>,
    /// When the machine asked by itself.
    asked: Vec<Instant>,
    probes: usize,
    removed: usize,
    cut_offs: usize,
    is_cut_off: bool,
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (mixed >> 31)
}

fn keys(seed: u64, count: usize) -> Vec<Key160> {
    let mut state = seed;
    let mut key = || {
        let mut bytes = [0; 20];
        bytes.chunks_mut(4).for_each(|part| part.copy_from_slice(&random(&mut state).to_be_bytes()[..4]));
        Key160::new(bytes)
    };
    (0..count).map(|_| key()).collect()
}

impl World {
    /// A machine that knows nobody.
    fn empty(nodes: usize, seed: u64) -> Self {
        let mut nodes = keys(seed, nodes + 1);
        let local = nodes.pop().unwrap();
        Self {
            machine: Coordinator::new(local, Config::default(), &Secret::from_seed(seed)).unwrap(),
            now: Instant::from_secs(1),
            link: Link::Up,
            nodes,
            dead: BTreeSet::new(),
            near: BTreeSet::new(),
            coming: BTreeMap::new(),
            asked: Vec::new(),
            probes: 0,
            removed: 0,
            cut_offs: 0,
            is_cut_off: false,
        }
    }

    /// One whose table is full, and has been for half an hour.
    fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self::empty(nodes, seed);
        for node in world.nodes.clone() {
            world.submit(RoutingInbound::Connected { node, round_trip: None });
            world.pass(15 * MINUTE / u32::try_from(nodes).unwrap());
        }
        world.pass(17 * MINUTE);
        (world.removed, world.cut_offs) = (0, 0);
        world.asked.clear();
        world
    }

    fn submit(&mut self, event: impl Into<Inbound<Plain>>) {
        let out = self.machine.handle(self.now, Stamped::new(event.into()));
        for stamped in out {
            match stamped.event {
                Outbound::Request(request) => {
                    if request.initiator.operation().is_none() && request.initiator != Initiator::Background {
                        self.asked.push(self.now);
                    }
                    self.probes += usize::from(request.initiator == Initiator::Probe);
                    let (id, node) = (request.id, request.node);
                    let is_near = self.near.contains(&node);
                    let arrives = is_near || self.link == Link::Up;
                    if arrives && !self.dead.contains(&node) {
                        let millis = if is_near { 1 } else { 20 + u64::from(node.as_bytes()[19]) };
                        self.coming.insert((self.now + Duration::from_millis(millis), id), (node, true));
                    } else if !arrives && self.link == Link::Fails {
                        self.coming.insert((self.now, id), (node, false));
                    }
                }
                Outbound::Cancel(cancel) => self.coming.retain(|(_, id), _| *id != cancel.id),
                Outbound::Routing(RoutingOutbound::Removed(_)) => self.removed += 1,
                Outbound::Routing(RoutingOutbound::CutOff { .. }) => {
                    (self.is_cut_off, self.cut_offs) = (true, self.cut_offs + 1);
                }
                Outbound::Routing(RoutingOutbound::Reconnected { .. }) => self.is_cut_off = false,
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let wake = self.machine.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
            let coming = self.coming.first_key_value().map(|(at, _)| *at);
            match coming.filter(|(at, _)| *at <= wake) {
                Some((at, id)) if at <= until => {
                    self.now = self.now.max(at);
                    let Some((node, is_answer)) = self.coming.remove(&(at, id)) else { continue };
                    let arrives = self.link == Link::Up || self.near.contains(&node);
                    if is_answer && arrives {
                        let mut closer = self.nodes.clone();
                        closer.sort_unstable_by_key(|other| other.distance(&node));
                        closer.truncate(20);
                        self.submit(Response::answered(id, closer));
                    } else if !is_answer {
                        self.submit(Response::unreachable(id));
                    }
                }
                None if wake <= until => {
                    self.now = self.now.max(wake);
                    self.submit(Inbound::Tick);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn kill(&mut self, spared: usize) {
        self.dead = self.nodes.iter().skip(spared).copied().collect();
    }

    fn table(&self) -> BTreeSet<Key160> {
        self.machine.table().iter().map(|entry| *entry.node()).collect()
    }

    fn dead_in_table(&self) -> usize {
        self.table().intersection(&self.dead).count()
    }

    /// The most requests of its own within an hour.
    fn busiest_hour(&self) -> usize {
        let within =
            |from: &Instant| self.asked.iter().filter(|at| **at >= *from && **at < *from + HOUR).count();
        self.asked.iter().map(within).max().unwrap_or(0)
    }
}

#[test]
fn nobody_leaves_while_nothing_gets_through() {
    for link in [Link::Lost, Link::Fails] {
        for nodes in [1, 2, 5, 30, 300] {
            for lasts in [45 * S, 10 * MINUTE, 5 * HOUR] {
                let mut world = World::new(nodes, 7 + nodes as u64);
                let before = world.table();
                world.link = link;
                world.pass(lasts);
                let what = format!("{link:?} for {lasts:?}, of {nodes}");
                assert_eq!((world.removed, world.table()), (0, before.clone()), "{what}");
                assert!(world.busiest_hour() <= 100, "{what}: {}", world.busiest_hour());
                assert!(world.is_cut_off || lasts < MINUTE * 20, "{what}");
                world.link = Link::Up;
                world.pass(3 * MINUTE);
                assert!(!world.is_cut_off && world.table() == before, "{what}");
                assert!(world.cut_offs <= 1, "{what}");
            }
        }
    }
}

#[test]
fn a_neighbour_that_goes_on_answering_changes_little_in_a_large_table() {
    for link in [Link::Lost, Link::Fails] {
        for seed in 1..4 {
            let mut world = World::new(300, seed);
            let before = world.table();
            world.near = before.first().into_iter().copied().collect();
            world.link = link;
            world.pass(3 * HOUR);
            assert!(world.is_cut_off && world.removed == 0, "{link:?}, seed {seed}: {}", world.removed);
            // Once it may be taken for a sign that the link is back.
            assert!(world.cut_offs <= 3 && world.busiest_hour() <= 300, "{}", world.busiest_hour());
            world.link = Link::Up;
            world.pass(5 * MINUTE);
            assert!(!world.is_cut_off && world.table() == before);
        }
    }
}

#[test]
fn in_a_small_table_the_others_leave_then_and_come_back() {
    for nodes in [3, 10, 20] {
        let mut world = World::new(nodes, 5);
        let before = world.table();
        world.near = before.first().into_iter().copied().collect();
        world.link = Link::Fails;
        world.pass(12 * HOUR);
        assert!(!world.is_cut_off && world.table() == world.near, "{nodes}");
        world.link = Link::Up;
        world.pass(20 * MINUTE);
        assert_eq!(world.table(), before, "{nodes}");
    }
}

#[test]
fn the_dead_leave() {
    for (nodes, spared) in [(4, 1), (10, 1), (30, 2), (300, 210), (300, 120), (300, 60)] {
        for seed in 1..4 {
            let mut world = World::new(nodes, seed);
            world.kill(spared);
            world.pass(30 * MINUTE);
            assert!(!world.is_cut_off, "{spared} of {nodes} live, seed {seed}");
            assert_eq!(world.dead_in_table(), 0, "{spared} of {nodes} live, seed {seed}");
            assert!(world.cut_offs == 0 || spared <= 2, "{spared} of {nodes} live, seed {seed}");
        }
    }
}

#[test]
fn a_newcomer_ends_the_silence() {
    for nodes in [1, 4, 20] {
        let mut world = World::new(nodes, 3);
        world.kill(0);
        world.pass(2 * HOUR);
        assert!(world.is_cut_off && world.removed == 0, "{nodes}: all that it knows are silent");
        let newcomer = keys(99, 1)[0];
        world.nodes.push(newcomer);
        world.submit(RoutingInbound::Discovered(newcomer));
        world.pass(30 * MINUTE);
        assert_eq!(world.table().into_iter().collect::<Vec<_>>(), [newcomer], "{nodes}");
        assert!(!world.is_cut_off);
    }
}

#[test]
fn what_the_driver_says_counts_at_once() {
    let mut world = World::new(300, 1);
    let before = world.table();
    world.link = Link::Lost;
    world.submit(RoutingInbound::LinkDown);
    world.submit(RoutingInbound::LinkDown);
    assert!(world.is_cut_off && world.cut_offs == 1);
    world.pass(HOUR);
    assert_eq!((world.asked.len(), world.table()), (0, before.clone()), "nothing begins by itself");
    world.link = Link::Up;
    let before_it = world.probes;
    world.submit(RoutingInbound::LinkUp);
    assert!(!world.is_cut_off);
    world.pass(S);
    let probes = world.probes - before_it;
    assert!((5..=21).contains(&probes), "verified at a pace: {probes}");
    world.pass(MINUTE);
    let all = world.machine.table().iter().all(|entry| entry.age(world.now) <= MINUTE + S);
    assert!(all, "all of them, by a probe or a refresh");
    let checked = world.probes;
    // However often it is said: nobody is checked twice within a minute.
    for _ in 0..200 {
        world.submit(RoutingInbound::LinkDown);
        world.pass(S / 20);
        world.submit(RoutingInbound::LinkUp);
        world.pass(S / 20);
    }
    assert!(world.probes - checked <= before.len(), "{} more", world.probes - checked);
    assert_eq!(world.table(), before);
}

#[test]
fn a_table_restored_without_a_link_waits_for_it() {
    for (down, dead) in [(10 * S, 0), (HOUR, 100), (12 * HOUR, 20)] {
        let mut world = World::empty(150, 4);
        world.link = Link::Lost;
        world.kill(150 - dead);
        let saved = world.nodes.iter().map(|node| SavedNode { node: *node, age: HOUR, round_trip: None });
        let saved = saved.collect();
        world.submit(RoutingInbound::Restore(saved));
        let before = world.table();
        assert!(
            world.machine.table().iter().all(|entry| !entry.is_verified() && entry.age(world.now) == HOUR)
        );
        world.pass(down);
        assert_eq!(world.table(), before, "their silence says nothing");
        world.link = Link::Up;
        world.pass(15 * MINUTE);
        assert_eq!(world.dead_in_table(), 0, "{down:?}");
        let living = before.difference(&world.dead).copied().collect::<BTreeSet<_>>();
        assert!(living.is_subset(&world.table()), "{down:?}");
    }
}

#[test]
fn the_one_that_lives_among_the_restored_is_found_at_once() {
    for seed in 1..6 {
        let mut world = World::empty(90, seed);
        world.kill(1);
        let saved = world.nodes.iter().map(|node| SavedNode { node: *node, age: HOUR, round_trip: None });
        let saved = saved.collect();
        world.submit(RoutingInbound::Restore(saved));
        world.pass(10 * S);
        let living = world.nodes[0];
        let is_known = world.machine.table().get(&living).is_some_and(TableEntry::is_verified);
        assert!(is_known, "seed {seed}: a table of which nobody has answered is as good as empty");
    }
}

#[test]
fn who_is_heard_from_while_it_is_probed_has_not_failed() {
    for heard in [true, false] {
        let mut world = World::new(3, 2);
        let node = world.nodes[0];
        world.link = Link::Lost;
        world.submit(RoutingInbound::Disconnected(node));
        world.pass(S);
        if heard {
            world.submit(RoutingInbound::Connected { node, round_trip: None });
        }
        world.pass(2 * S);
        let failures = world.machine.table().get(&node).map(TableEntry::failures);
        assert_eq!(failures, Some(u32::from(!heard)));
    }
}

#[test]
fn nobody_is_fooled_where_most_of_a_large_network_die() {
    for seed in 1..13 {
        let mut world = World::new(300, 100 + seed);
        world.kill(54);
        world.pass(40 * MINUTE);
        assert!(world.cut_offs == 0 && world.dead_in_table() == 0, "seed {seed}: {}", world.cut_offs);
    }
}
