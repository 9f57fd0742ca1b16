//! Lookups at once, some of whose nodes have as many requests in flight as are allowed.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    Batch, Finish, Instant, Key8, Machine, NetworkConfig, Outcome, PoolConfig, QueryConfig, QueryPool,
    RequestId, Response, Secret, Stamped, Start,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tiny::Tiny;

const MAX_PER_NODE: usize = 8;
/// So many may be in flight to a node with those that nobody waits for any more.
const MAX_IN_FLIGHT_TO_NODE: usize = 8 * MAX_PER_NODE;
/// The one that everybody asks.
const NODE: Key8 = Key8::new([1]);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A pool of lookups, and what is on its way to it.
struct World {
    pool: QueryPool<Tiny>,
    /// What answers are due, in order of time; without an entry, a request is never answered.
    due: BTreeSet<(Instant, RequestId)>,
    /// The node of each request in flight, and when it was sent.
    open: BTreeMap<RequestId, (Key8, Instant)>,
    /// The most that were in flight to [`NODE`] at a time; and of those, sent within the shortest patience.
    most_at_node: usize,
    most_awaited: usize,
    shortest: Duration,
    /// The nodes asked, in order.
    asked: Vec<Key8>,
    finishes: Vec<(Instant, Finish<Tiny>)>,
    /// What the answer of a node names.
    closer: fn(Key8) -> Vec<Key8>,
}

impl World {
    fn new() -> Self {
        Self::with(MAX_PER_NODE, QueryConfig::default().alpha)
    }

    fn with(max_per_node: usize, alpha: usize) -> Self {
        let network = NetworkConfig { max_per_node, ..NetworkConfig::default() };
        Self::of(network, QueryConfig { retries: 0, alpha, ..QueryConfig::default() })
    }

    fn of(network: NetworkConfig, query: QueryConfig) -> Self {
        let network = NetworkConfig { request_timeout: Duration::from_secs(2), ..network };
        let (pool, shortest) = (PoolConfig::default(), network.min_timeout);
        let local = Key8::new([0xff]);
        let pool = QueryPool::new(local, query, pool, network, &Secret::from_seed(0)).unwrap();
        let (due, open, finishes) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        let (asked, closer) = (Vec::new(), |_| Vec::new());
        Self { pool, due, open, most_at_node: 0, most_awaited: 0, shortest, asked, finishes, closer }
    }

    fn call(
        &mut self,
        now: Instant,
        event: Inbound<Tiny>,
        answer: &mut impl FnMut(Instant, Key8) -> Option<u64>,
    ) {
        let out: Batch<_> = self.pool.handle(now, Stamped::new(event));
        for out in out {
            match out.event {
                Outbound::Request(request) => {
                    self.open.insert(request.id, (request.node, now));
                    self.asked.push(request.node);
                    if let Some(millis) = answer(now, request.node) {
                        self.due.insert((now + Duration::from_millis(millis), request.id));
                    }
                }
                Outbound::Cancel(cancel) => {
                    self.open.remove(&cancel.id);
                    self.due.retain(|(_, id)| *id != cancel.id);
                }
                Outbound::Finished(finish) => self.finishes.push((now, finish)),
                _ => {}
            }
        }
        let at_node = || self.open.values().filter(|(node, _)| *node == NODE);
        let awaited = at_node().filter(|(_, sent)| now < *sent + self.shortest).count();
        self.most_at_node = self.most_at_node.max(at_node().count());
        self.most_awaited = self.most_awaited.max(awaited);
    }

    /// Runs until this time. `answer`: after how many milliseconds a request that is sent now is answered.
    fn run(&mut self, until: Instant, answer: &mut impl FnMut(Instant, Key8) -> Option<u64>) {
        loop {
            let answered = self.due.first().copied();
            let wake = self.pool.poll_timeout();
            let next = answered.map(|(at, _)| at).into_iter().chain(wake).min();
            let Some(now) = next.filter(|now| *now <= until) else { return };
            match answered.filter(|(at, _)| *at == now) {
                Some((_, id)) => {
                    self.due.pop_first();
                    let closer = self.open.remove(&id).map_or(Vec::new(), |(node, _)| (self.closer)(node));
                    self.call(now, Inbound::Response(Response::answered(id, closer)), answer);
                }
                None => self.call(now, Inbound::Tick, answer),
            }
        }
    }

    /// Starts lookups, each of which knows [`NODE`] and one that answers.
    fn start(
        &mut self,
        now: Instant,
        tags: std::ops::Range<u8>,
        answer: &mut impl FnMut(Instant, Key8) -> Option<u64>,
    ) {
        for tag in tags {
            let seeds = vec![NODE, Key8::new([100 + tag])];
            let start = Start::find(tag.into(), Key8::new([0])).with_seeds(seeds);
            self.call(now, Inbound::Start(start), answer);
        }
    }

    fn last_end(&self) -> Instant {
        self.finishes.iter().map(|(at, _)| *at).max().unwrap()
    }

    /// How many of the lookups that ended found it.
    fn found_node(&self) -> usize {
        let found = |finish: &Finish<Tiny>| finish.closest.iter().any(|contact| contact.node == NODE);
        self.finishes.iter().filter(|(_, finish)| found(finish)).count()
    }
}

/// Those that wait for it wait no longer than those whose requests are on their way.
#[test]
fn nobody_waits_in_line_at_a_silent_node() {
    let mut world = World::new();
    let answer = &mut |_, node| (node != NODE).then_some(50);
    world.start(at(0), 0..40, answer);
    world.run(at(60_000), answer);
    assert_eq!(world.finishes.len(), 40);
    let last = world.last_end();
    assert!(last <= at(2_000), "the last one ended at {last}");
    assert_eq!(world.most_awaited, MAX_PER_NODE);
    let sent = world.asked.iter().filter(|node| **node == NODE).count();
    assert!(sent <= 40, "{sent} requests to it");
}

/// However many wait for it, though it never answers, and though nobody waits for long.
#[test]
fn the_requests_to_a_node_are_bounded() {
    for min_timeout in [10, 25, 250].map(Duration::from_millis) {
        let network = NetworkConfig { min_timeout, max_per_node: MAX_PER_NODE, ..NetworkConfig::default() };
        let mut world = World::of(network, QueryConfig { retries: 0, ..QueryConfig::default() });
        let answer = &mut |_, node| (node != NODE).then_some(5);
        world.start(at(0), 0..150, answer);
        world.run(at(60_000), answer);
        assert_eq!(world.finishes.len(), 150);
        assert_eq!((world.most_at_node, world.most_awaited), (MAX_IN_FLIGHT_TO_NODE, MAX_PER_NODE));
        // What was sent late is given up together with what was sent first.
        let last = world.last_end();
        assert!(last <= at(2_000), "the last one ended at {last}");
    }
}

/// Operations that found no room in the queue are told when a place becomes free at the node.
#[test]
fn nobody_is_forgotten_where_the_queue_is_short() {
    for max_queued in [0, 1, 4, 16] {
        let network = NetworkConfig { max_queued, max_per_node: MAX_PER_NODE, ..NetworkConfig::default() };
        let mut world = World::of(network, QueryConfig { retries: 0, ..QueryConfig::default() });
        let answer = &mut |_, node| (node != NODE).then_some(50);
        world.start(at(0), 0..40, answer);
        world.run(at(60_000), answer);
        assert_eq!(world.finishes.len(), 40);
        let last = world.last_end();
        assert!(last <= at(4_000), "the last one ended at {last}, room for {max_queued}");
    }
}

/// The first request to the node was given up, and so counts no more. The second is waited for.
#[test]
fn what_was_given_up_does_not_end_the_wait_for_what_is_asked_again() {
    for alive_from in [1_400, 1_600, 1_800, 2_000, 2_200] {
        let network = NetworkConfig { max_per_node: MAX_PER_NODE, ..NetworkConfig::default() };
        let mut world = World::of(network, QueryConfig { retries: 1, ..QueryConfig::default() });
        let answer =
            &mut |now, node| if node == NODE { (now >= at(alive_from)).then_some(900) } else { Some(50) };
        world.start(at(0), 0..40, answer);
        world.run(at(60_000), answer);
        assert_eq!((world.finishes.len(), world.found_node()), (40, 40), "answers from {alive_from} ms on");
    }
}

/// One answer now and then shows that it lives. But those that wait for the others give back their places.
#[test]
fn a_node_that_answers_one_request_at_a_time_is_no_bottleneck() {
    let mut world = World::new();
    let mut free_at = at(0);
    let answer = &mut |now, node| {
        let answers = node != NODE || now >= free_at;
        free_at = if node == NODE && answers { now + Duration::from_millis(300) } else { free_at };
        answers.then_some(50)
    };
    world.start(at(0), 0..40, answer);
    world.run(at(60_000), answer);
    assert_eq!(world.finishes.len(), 40);
    let last = world.last_end();
    assert!(last <= at(4_500), "the last one ended at {last}");
}

/// They wait for those that were sent before they came, and for those that are sent then.
#[test]
fn who_comes_later_to_a_silent_node_waits_at_most_twice_as_long() {
    let mut world = World::new();
    let answer = &mut |_, node| (node != NODE).then_some(50);
    for wave in 0..10 {
        world.run(at(700 * wave), answer);
        let first = 8 * u8::try_from(wave).unwrap();
        world.start(at(700 * wave), first..first + 8, answer);
    }
    world.run(at(60_000), answer);
    assert_eq!(world.finishes.len(), 80);
    for (ended, finish) in &world.finishes {
        let took = *ended - finish.stats.started;
        assert!(took <= Duration::from_secs(4), "took {took:?}");
    }
}

/// One message that is lost says nothing of the node.
#[test]
fn a_lost_message_keeps_nobody_from_a_node_that_answers() {
    for lost in 0..MAX_PER_NODE {
        let mut world = World::new();
        let mut sent = 0;
        let answer = &mut |_, node| {
            sent += usize::from(node == NODE);
            (node != NODE || sent != lost + 1).then_some(200)
        };
        world.start(at(0), 0..40, answer);
        world.run(at(60_000), answer);
        assert_eq!((world.finishes.len(), world.found_node()), (40, 39), "lost: {lost}");
    }
}

/// Where few requests to a node are allowed, all of them may be lost by chance.
#[test]
fn few_messages_that_are_lost_together_keep_nobody_from_a_node_that_answers() {
    for allowed in [1, 2, 4, 7] {
        let mut world = World::with(allowed, 3);
        let mut sent = 0;
        let answer = &mut |_, node| {
            sent += usize::from(node == NODE);
            (node != NODE || sent > allowed).then_some(50)
        };
        world.start(at(0), 0..40, answer);
        world.run(at(60_000), answer);
        assert_eq!((world.finishes.len(), world.found_node()), (40, 40 - allowed), "{allowed} at once");
    }
}

/// Seven of eight messages are lost, and one answer comes: so it lives.
#[test]
fn a_node_that_has_answered_meanwhile_is_not_given_up() {
    let mut world = World::new();
    let mut sent = 0;
    let answer = &mut |now: Instant, node| {
        sent += usize::from(node == NODE);
        match sent {
            _ if node != NODE || now >= at(2_000) => Some(50),
            1..MAX_PER_NODE => None,
            _ => Some(900),
        }
    };
    world.start(at(0), 0..40, answer);
    world.run(at(60_000), answer);
    assert_eq!((world.finishes.len(), world.found_node()), (40, 40 - (MAX_PER_NODE - 1)));
}

/// While they wait for one that is slow, they ask others.
#[test]
fn who_waits_for_a_slow_node_asks_others() {
    let mut world = World::with(MAX_PER_NODE, 1);
    let answer = &mut |_, node| (node != NODE).then_some(50);
    world.start(at(0), 0..40, answer);
    world.run(at(400), answer);
    let others = world.asked.iter().filter(|node| **node != NODE).count();
    assert_eq!(others, 40, "each asks the other node that it knows, though the nearest has not answered");
}

/// Many messages are lost together, and then it answers.
#[test]
fn a_node_that_is_silent_for_a_moment_is_found_by_who_comes_later() {
    for later in [50, 150, 300, 600, 1_500] {
        let mut world = World::new();
        let answer = &mut |now, node| (node != NODE || now >= at(40)).then_some(50);
        world.start(at(0), 0..8, answer);
        world.run(at(later), answer);
        world.start(at(later), 8..40, answer);
        world.run(at(60_000), answer);
        assert_eq!((world.finishes.len(), world.found_node()), (40, 32), "later by {later} ms");
    }
}

/// An old request times out, at the very time when many new ones are on their way.
#[test]
fn an_old_time_out_keeps_nobody_from_a_node_that_answers() {
    let mut world = World::new();
    let answer = &mut |now, node| (node != NODE || now > at(0)).then_some(100);
    world.start(at(0), 0..1, answer);
    world.run(at(1_950), answer);
    world.start(at(1_950), 1..40, answer);
    world.run(at(60_000), answer);
    assert_eq!((world.finishes.len(), world.found_node()), (40, 39));
}

/// A node that is slower than the soft limit is found by all: the wait in line is not counted against it.
#[test]
fn a_slow_node_is_found_by_all_who_wait_for_it() {
    for millis in [100, 300, 400, 600, 900, 1_900] {
        let mut world = World::new();
        let answer = &mut |_, node| Some(if node == NODE { millis } else { 50 });
        world.start(at(0), 0..24, answer);
        world.run(at(60_000), answer);
        assert_eq!((world.finishes.len(), world.found_node()), (24, 24), "answers after {millis} ms");
    }
}

/// Lookups that all know the same 24 nodes, some of which answer each request in time, but slowly, and end within `timeout`. Returns how
/// long each has taken, its outcome, and how many of the twenty nearest it has found, in the order in which they end.
fn hot_key(
    lookups: u64,
    within: u64,
    timeout: Duration,
    millis: impl Fn(Key8) -> u64,
) -> Vec<(Duration, Outcome, usize)> {
    hot_key_of(NetworkConfig::default(), lookups, within, timeout, millis)
}

fn hot_key_of(
    network: NetworkConfig,
    lookups: u64,
    within: u64,
    timeout: Duration,
    millis: impl Fn(Key8) -> u64,
) -> Vec<(Duration, Outcome, usize)> {
    // What is in flight is waited for: this is about what stands in line.
    let min_timeout = Duration::from_millis(1_990).max(network.min_timeout);
    let network = NetworkConfig { min_timeout, ..network };
    let mut world = World::of(network, QueryConfig { timeout, ..QueryConfig::default() });
    let answer = &mut |_, node| Some(millis(node));
    let nodes: Vec<_> = (1..=24).map(|key| Key8::new([key])).collect();
    for tag in 0..lookups {
        let now = at(tag * within / lookups);
        world.run(now, answer);
        let start = Start::find(tag, Key8::new([0])).with_seeds(nodes.clone());
        world.call(now, Inbound::Start(start), answer);
    }
    world.run(at(120_000), answer);
    assert_eq!(world.finishes.len() as u64, lookups);
    let took = |(ended, finish): &(Instant, Finish<Tiny>)| {
        let found = finish.closest.iter().filter(|contact| nodes[..20].contains(&contact.node)).count();
        (*ended - finish.stats.started, finish.outcome, found)
    };
    world.finishes.iter().map(took).collect()
}

/// Two of the twenty nearest can serve one lookup in twelve. The others do not wait for their turn until their time has passed, but for
/// a quarter of it, and are told that the k closest may be others.
#[test]
fn who_stands_in_line_for_few_ends_without_them_in_time() {
    for (first, millis, timeout) in [(1, 1_900, 60), (1, 1_000, 60), (19, 1_900, 60), (9, 1_500, 12)] {
        let slow = [first, first + 1].map(|key| Key8::new([key]));
        let timeout = Duration::from_secs(timeout);
        let ends = hot_key(1_000, 5_000, timeout, |node| if slow.contains(&node) { millis } else { 50 });
        let longest = ends.iter().map(|(took, ..)| *took).max().unwrap();
        let most = timeout / 4 + Duration::from_millis(500 + millis);
        assert!(longest <= most, "the longest took {longest:?} of {timeout:?}");
        for (_, outcome, found) in &ends {
            let told = if *found == 20 { Outcome::Converged } else { Outcome::Unsure };
            assert_eq!((*outcome, *found >= 18), (told, true), "{found}");
        }
        // Each of them serves sixteen at a time, as long as somebody waits.
        let both = ends.iter().filter(|(.., found)| *found == 20).count() as u64;
        assert!(both >= 16 * 5_000 / millis, "{both} found both");
    }
}

/// Where all are as busy, or one is hardly slower than the others, nobody is given up, however long it takes.
#[test]
fn who_stands_in_line_for_all_waits_for_all() {
    for (lookups, within, slowest) in
        [(1_000, 1, 50), (5_000, 1, 50), (2_000, 4_000, 50), (3_000, 10_000, 70)]
    {
        let millis = |node| if node == Key8::new([7]) { slowest } else { 50 };
        let ends = hot_key(lookups, within, Duration::from_secs(60), millis);
        assert!(ends.iter().all(|(_, outcome, found)| (*outcome, *found) == (Outcome::Converged, 20)));
    }
}

/// One node is slower than the others, and its line would be served before anybody's time has passed: all wait.
#[test]
fn who_is_served_in_time_waits() {
    for (lookups, slow) in [(200, 200), (200, 1_000), (100, 1_900)] {
        let millis = |node| if node == Key8::new([7]) { slow } else { 50 };
        let ends = hot_key(lookups, 1, Duration::from_secs(60), millis);
        assert!(ends.iter().all(|(_, outcome, found)| (*outcome, *found) == (Outcome::Converged, 20)));
    }
}

/// Few requests to a node are allowed, and the nearest are slow: who stands in line there asks the others meanwhile.
#[test]
fn what_stands_in_line_occupies_no_slot() {
    let timeout = Duration::from_secs(60);
    for (max_per_node, num_slow, lookups) in
        [(1, 1, 40), (1, 3, 160), (2, 6, 400), (4, 3, 400), (4, 9, 80), (16, 9, 1_200)]
    {
        let network = NetworkConfig { max_per_node, ..NetworkConfig::default() };
        let slow = 1..=num_slow;
        let millis = |node| if slow.clone().any(|key| node == Key8::new([key])) { 1_500 } else { 50 };
        let ends = hot_key_of(network, lookups, 20_000, timeout, millis);
        let longest = ends.iter().map(|(took, ..)| *took).max().unwrap();
        // Each `alpha` of them have the slots for a sixteenth of the time; and one that is asked before the last turn comes has to answer.
        let with_slots = timeout / 16 * u32::from(num_slow.div_ceil(3));
        let most = timeout / 4 + with_slots + Duration::from_millis(500 + 2 * 1_500);
        assert!(longest <= most, "{max_per_node}, {num_slow} slow: the longest took {longest:?}");
        for (_, outcome, found) in ends {
            // There are four to replace those that it goes without.
            let told = match found {
                20 => Outcome::Converged,
                16.. => Outcome::Unsure,
                _ => Outcome::Exhausted,
            };
            assert_eq!((outcome, found >= 20 - usize::from(num_slow)), (told, true), "{found}");
        }
    }
}

/// That the time in line is limited keeps nobody from hearing before that a node is silent.
#[test]
fn who_stands_in_line_for_few_hears_that_they_are_silent() {
    for (lookups, min_timeout) in [(40_u8, 250), (200, 250), (200, 1_000)] {
        let min_timeout = Duration::from_millis(min_timeout);
        let network = NetworkConfig { min_timeout, max_per_node: MAX_PER_NODE, ..NetworkConfig::default() };
        let mut world = World::of(network, QueryConfig { retries: 0, ..QueryConfig::default() });
        let nodes: Vec<_> = (0..21).map(|place| Key8::new([12 * place + 1])).collect();
        let is_silent = |node| [nodes[0], nodes[7], nodes[14]].contains(&node);
        let answer = &mut |_, node| (!is_silent(node)).then_some(50);
        for tag in 0..lookups {
            let target = Key8::new([tag.wrapping_mul(37)]);
            let start = Start::find(tag.into(), target).with_seeds(nodes.clone());
            world.call(at(0), Inbound::Start(start), answer);
        }
        world.run(at(120_000), answer);
        assert_eq!(world.finishes.len(), usize::from(lookups));
        let last = world.last_end();
        assert!(last <= at(4_000), "{lookups}: the last one ended at {last}, after two time-outs");
        assert!(world.finishes.iter().all(|(_, finish)| finish.closest.len() == 18));
    }
}

/// Whose turn comes at many nodes at a time takes no more of them than it has slots. Else a node with which all lookups begin would have
/// to answer each of them, and a line that was long once would never become short again.
#[test]
fn nodes_to_begin_with_are_not_all_asked_because_their_lines_were_long() {
    let network = NetworkConfig { max_per_node: 1, ..NetworkConfig::default() };
    let mut world = World::of(network, QueryConfig::default());
    let first = |node: Key8| node >= Key8::new([200]);
    world.closer = |node| {
        if node >= Key8::new([200]) { (1..=20).map(|key| Key8::new([key])).collect() } else { Vec::new() }
    };
    let answer = &mut |_, node| Some(if first(node) { 80 } else { 2 });
    let seeds: Vec<_> = (200..220).map(|key| Key8::new([key])).collect();
    for tag in 0..700 {
        // A hundred at once, then forty a second. All want the same three first, which answer 37 requests a second.
        let now = at(tag.max(100) * 25 - 2_500);
        world.run(now, answer);
        world.call(now, Inbound::Start(Start::find(tag, Key8::new([0])).with_seeds(seeds.clone())), answer);
    }
    world.run(at(120_000), answer);
    assert_eq!(world.finishes.len(), 700);
    let asked = world.asked.iter().filter(|node| first(**node)).count();
    assert!(asked <= 5 * 700, "{asked} requests to those that they begin with");
    let longest = world.finishes.iter().map(|(ended, finish)| *ended - finish.stats.started).max().unwrap();
    assert!(longest <= Duration::from_secs(15), "the longest took {longest:?}");
}

/// As many nodes are busy as have answered: that says nothing of who is busier than the others, so all wait for their turn.
#[test]
fn who_knows_as_many_busy_nodes_as_others_waits_for_them() {
    let min_timeout = Duration::from_millis(1_990);
    let network = NetworkConfig { min_timeout, max_per_node: MAX_PER_NODE, ..NetworkConfig::default() };
    let mut world = World::of(network, QueryConfig { retries: 0, ..QueryConfig::default() });
    let answer = &mut |_, node| Some(if node == NODE { 1_900 } else { 50 });
    world.start(at(0), 0..100, answer);
    world.run(at(60_000), answer);
    assert_eq!((world.finishes.len(), world.found_node()), (100, 100));
    assert!(world.last_end() > at(20_000), "the line is longer than a quarter of their time");
}
