//! The retry policy of a lookup: what it does about nodes that are slow or silent.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code)] // each test binary uses a part of it
#[path = "support/tiny.rs"]
mod tiny;

use kad_proto::lookups::query::{Inbound, Outbound};
use kad_proto::{
    AnswerScope, Batch, CancelReason, Family, Instant, Key, Key8, Machine, NetworkConfig, Outcome, Query,
    QueryConfig, Request, RequestId, RequestOutcome, Response, Secret, Stamped, Start,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::VecDeque;
use std::time::Duration;
use tiny::Tiny;

const MS: Duration = Duration::from_millis(1);

/// Soft limit at 100 ms, time-out at 300 ms, neither adapted.
fn fixed() -> NetworkConfig {
    let (soft_timeout, request_timeout) = (100 * MS, 300 * MS);
    NetworkConfig { soft_timeout, request_timeout, min_timeout: request_timeout, ..NetworkConfig::default() }
}

fn query(config: QueryConfig) -> Query<Tiny> {
    Query::new(Key8::new([0xff]), config, fixed(), &Secret::from_seed(0)).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn keys<const N: usize>(bytes: [u8; N]) -> Vec<Key8> {
    bytes.map(|byte| Key8::new([byte])).to_vec()
}

fn start(query: &mut Query<Tiny>, start: Start<Tiny>) -> Batch<Outbound<Tiny>> {
    query.handle(at(0), Stamped::new(Inbound::Start(start)))
}

fn answer(query: &mut Query<Tiny>, now: u64, request: RequestId, closer: Vec<Key8>) -> Batch<Outbound<Tiny>> {
    query.handle(at(now), Stamped::new(Inbound::Response(Response::answered(request, closer))))
}

fn tick(query: &mut Query<Tiny>, now: u64) -> Batch<Outbound<Tiny>> {
    query.handle(at(now), Stamped::new(Inbound::Tick))
}

fn requests(batch: &Batch<Outbound<Tiny>>) -> Vec<(Request<Tiny>, Instant)> {
    batch
        .iter()
        .filter_map(|stamped| match &stamped.event {
            Outbound::Request(request) => Some((request.clone(), stamped.deadline.unwrap())),
            _ => None,
        })
        .collect()
}

fn cancels(batch: &Batch<Outbound<Tiny>>) -> Vec<(RequestId, CancelReason)> {
    batch
        .iter()
        .filter_map(|stamped| match &stamped.event {
            Outbound::Cancel(cancel) => Some((cancel.id, cancel.reason)),
            _ => None,
        })
        .collect()
}

fn outcome(batch: &Batch<Outbound<Tiny>>) -> Option<(Outcome, usize)> {
    batch.iter().find_map(|stamped| match &stamped.event {
        Outbound::Finished(finish) => Some((finish.outcome, finish.closest.len())),
        _ => None,
    })
}

#[test]
fn a_slow_node_is_asked_again_and_either_answer_counts() {
    for answered in [0, 1] {
        let mut query = query(QueryConfig::default());
        let first = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(keys([1]))));
        assert_eq!((first.len(), first[0].1), (1, at(300)));
        assert_eq!(query.poll_timeout(), Some(at(100)));
        let again = requests(&tick(&mut query, 100));
        assert_eq!((again.len(), again[0].0.node, again[0].1), (1, Key8::new([1]), at(300)));
        assert_ne!(again[0].0.id, first[0].0.id);

        let ids = [first[0].0.id, again[0].0.id];
        let said = answer(&mut query, 150, ids[answered], Vec::new());
        assert_eq!(cancels(&said), [(ids[1 - answered], CancelReason::Superseded)]);
        assert_eq!(outcome(&said), Some((Outcome::AllFound, 1)));
        let request_stats = query.request_stats();
        assert_eq!(
            (request_stats.sent, request_stats.answered, request_stats.cancelled, request_stats.in_flight),
            (2, 1, 1, 0)
        );
    }
}

#[test]
fn a_node_that_stays_silent_fails_once_and_ends_the_wait() {
    let mut query = query(QueryConfig::default());
    let first = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(keys([1]))));
    let again = requests(&tick(&mut query, 100));
    let last = requests(&tick(&mut query, 200));
    let ids = [&first, &again, &last].map(|batch| batch[0].0.id);
    let mut given_up = Vec::new();
    for (now, ends) in [(300, None), (400, Some((Outcome::Unreachable, 0)))] {
        let said = tick(&mut query, now);
        given_up.extend(cancels(&said));
        let times_out = |stamped: &&Stamped<Outbound<Tiny>>| matches!(&stamped.event, Outbound::Progress(progress) if progress.outcome == RequestOutcome::TimedOut);
        assert_eq!(said.iter().filter(times_out).count(), cancels(&said).len());
        assert_eq!(outcome(&said), ends);
    }
    assert_eq!(given_up, ids.map(|id| (id, CancelReason::TimedOut)));
}

/// The closest node would be the first result: to lose it to two lost messages in a row is too likely.
#[test]
fn a_node_closer_than_all_that_answered_is_retried_once_more() {
    for (silent, times) in [(1, 3), (2, 2)] {
        let mut query = query(QueryConfig::default());
        let first = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(keys([1, 2]))));
        let [other] = &first.iter().filter(|it| it.0.node != Key8::new([silent])).collect::<Vec<_>>()[..]
        else {
            panic!("{first:?}")
        };
        let mut asked = first.len() - 1;
        assert_eq!(outcome(&answer(&mut query, 10, other.0.id, Vec::new())), None);
        let mut last = None;
        for now in [100, 200, 300] {
            let said = tick(&mut query, now);
            asked += requests(&said).len();
            last = requests(&said).pop().or(last);
        }
        assert_eq!(asked as u64, times, "{silent} is silent");
        let (request, deadline) = last.unwrap();
        assert_eq!((request.node, deadline), (Key8::new([silent]), at(times * 100 + 100)));
    }
}

#[test]
fn without_retries_no_node_is_asked_again() {
    let mut query = query(QueryConfig { retries: 0, ..QueryConfig::default() });
    let _ = start(&mut query, Start::find(1, Key8::new([0])).with_seeds(keys([1])));
    assert!(requests(&tick(&mut query, 100)).is_empty());
    assert_eq!(outcome(&tick(&mut query, 300)), Some((Outcome::Unreachable, 0)));
}

#[test]
fn a_message_is_repeated_only_after_its_time_out() {
    let mut query = query(QueryConfig::default());
    let message = Start::message(1, Key8::new([0]), ()).with_seeds(keys([1]));
    let first = requests(&start(&mut query, message));
    assert!(requests(&tick(&mut query, 100)).is_empty(), "the first is still listened to");
    let said = tick(&mut query, 300);
    assert_eq!(cancels(&said), [(first[0].0.id, CancelReason::TimedOut)]);
    let again = requests(&said);
    assert_eq!((again.len(), again[0].0.node, again[0].1), (1, Key8::new([1]), at(600)));
}

/// An answer is progress if it is the first to name more than a sixteenth of the k closest, or of all that it names. After
/// `alpha` others in a row, all of them are asked at once.
#[test]
fn a_lookup_widens_when_answers_hardly_name_new_ones() {
    for (k, most) in [(8, 0), (15, 0), (16, 1), (20, 1), (32, 2), (40, 2)] {
        for (named, alpha) in [(0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (4, 2)] {
            let mut query = query(QueryConfig { k, alpha, max_candidates: 2 * k, ..QueryConfig::default() });
            let seeds: Vec<_> = (100..=200).take(k + 1).map(|key| Key8::new([key])).collect();
            let known = seeds.clone();
            let mut open = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(seeds)));
            assert_eq!(open.len(), alpha);
            for number in 0..alpha {
                let new = (1..100).skip(number * named).take(named).map(|key| Key8::new([key]));
                let closer = new.chain(known.iter().take(most * 16).copied()).collect();
                let (request, _) = open.remove(0);
                let next = requests(&answer(&mut query, 1, request.id, closer));
                let is_wide = named <= most && number + 1 == alpha;
                assert_eq!(next.len() > 1, is_wide, "k {k}, {named} named by {number} of {alpha}");
            }
        }
    }
}

#[test]
fn in_place_of_a_slow_node_only_the_next_one_is_asked() {
    let config = QueryConfig { k: 2, alpha: 4, retries: 0, ..QueryConfig::default() };
    let mut query = query(config);
    let seeds = keys([1, 2, 3, 4, 5]);
    let first = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(seeds)));
    assert_eq!(first.iter().map(|(request, _)| request.node).collect::<Vec<_>>(), keys([1, 2]));
    assert!(requests(&answer(&mut query, 10, first[1].0.id, Vec::new())).is_empty());
    let stead = requests(&tick(&mut query, 100));
    assert_eq!(stead.iter().map(|(request, _)| request.node).collect::<Vec<_>>(), keys([3]));
    let said = answer(&mut query, 110, stead[0].0.id, Vec::new());
    assert_eq!(outcome(&said), None, "1 has not failed yet");
    assert!(requests(&said).iter().all(|(request, _)| request.target != Key8::new([0])), "edge probes only");
}

#[test]
fn after_a_failure_edge_probes_ask_about_the_nodes_own_subtrees() {
    let config = QueryConfig { k: 4, alpha: 1, ..QueryConfig::default() };
    let asked_with = |config: &QueryConfig, start: Start<Tiny>, fails: bool| {
        let mut query = query(config.clone());
        let mut open = VecDeque::from(requests(&query.handle(at(0), Stamped::new(Inbound::Start(start)))));
        let mut asked = Vec::new();
        while let Some((request, _)) = open.pop_front() {
            asked.push((request.node.as_bytes()[0], request.target.as_bytes()[0]));
            let event = match asked.len() {
                1 if fails => Inbound::Response(Response::failed(request.id)),
                _ => Inbound::Response(Response::answered(request.id, Vec::new())),
            };
            open.extend(requests(&query.handle(at(1), Stamped::new(event))));
        }
        asked
    };
    let targets = |start: Start<Tiny>, fails: bool| asked_with(&config, start, fails);
    let seeds = keys([0x01, 0x02, 0x04, 0x08, 0x10]);
    let find = Start::find(1, Key8::new([0])).with_seeds(seeds.clone());
    assert_eq!(targets(find.clone(), false), [(1, 0), (2, 0), (4, 0), (8, 0)]);
    // An answer names 20 nodes: the ten closest are asked about the target, those farther away about the point of their
    // own subtree next to it.
    assert_eq!(targets(find, true), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0)]);
    let far = (0..8).map(|byte| 0x10 + byte).chain([0x40, 0x80]);
    let find = Start::find(1, Key8::new([0])).with_num_results(12);
    let find =
        find.with_seeds(keys([0x01, 0x02]).into_iter().chain(far.map(|byte| Key8::new([byte]))).collect());
    // Three at a time, so that some have answered before the far ones are asked.
    let asked = asked_with(&QueryConfig { alpha: 3, ..config.clone() }, find, true);
    assert!(asked.contains(&(0x40, 0x40)) && asked.contains(&(0x80, 0x80)), "{asked:?}");
    assert!(asked.contains(&(0x10, 0)), "{asked:?}");
    // A message is only sent with its own target.
    let message = Start::message(1, Key8::new([0]), ()).with_seeds(seeds);
    assert!(targets(message, true).iter().all(|(_, target)| *target == 0));
}

#[test]
fn while_nobody_has_answered_others_are_asked_before_any_is_asked_again() {
    let mut query = query(QueryConfig { alpha: 2, ..QueryConfig::default() });
    let seeds = keys([1, 2, 3, 4, 5]);
    let first = requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(seeds)));
    let asked = |batch: &Batch<Outbound<Tiny>>| -> Vec<_> {
        requests(batch).iter().map(|(request, _)| request.node.as_bytes()[0]).collect()
    };
    // The two nearest are slow: two others are asked. Then the last one, and the nearest again.
    assert_eq!(first.len(), 2);
    assert_eq!(asked(&tick(&mut query, 100)), [3, 4]);
    assert_eq!(asked(&tick(&mut query, 200)), [5, 1]);
    // Where somebody has answered, a slow one that is nearer is asked again first.
    let mut other = self::query(QueryConfig { alpha: 2, ..QueryConfig::default() });
    let first =
        requests(&start(&mut other, Start::find(1, Key8::new([0])).with_seeds(keys([1, 2, 3, 4, 5]))));
    assert_eq!(asked(&answer(&mut other, 50, first[1].0.id, Vec::new())), [3]);
    assert_eq!(asked(&tick(&mut other, 100))[0], 1);
}

#[test]
fn a_far_node_is_asked_about_the_target_as_long_as_no_nearer_one_has_answered() {
    let mut query = query(QueryConfig { alpha: 1, ..QueryConfig::default() });
    // Fifteen dead nodes that are nearer, and one at the other end of the key space.
    let seeds: Vec<_> = (1..16).chain([0x80]).map(|byte| Key8::new([byte])).collect();
    let mut open =
        VecDeque::from(requests(&start(&mut query, Start::find(1, Key8::new([0])).with_seeds(seeds))));
    while let Some((request, _)) = open.pop_front() {
        if request.node == Key8::new([0x80]) {
            assert_eq!(request.target, Key8::new([0]), "the neighbourhood is not known yet");
            return;
        }
        let failed = Response::failed(request.id);
        open.extend(requests(&query.handle(at(1), Stamped::new(Inbound::Response(failed)))));
    }
    panic!("the last one is never asked");
}

#[test]
fn an_answer_is_welcome_until_the_request_time_out() {
    let mut query = Query::<Tiny>::new(
        Key8::new([0xff]),
        QueryConfig::default(),
        NetworkConfig::default(),
        &Secret::from_seed(0),
    )
    .unwrap();
    let first = requests(&start(
        &mut query,
        Start::find(1, Key8::new([0])).with_seeds((1..60).map(|byte| Key8::new([byte])).collect()),
    ));
    assert_eq!(first[0].1, at(2_000), "an answer is welcome until the request time-out");
    let mut open = first;
    let mut now = 0;
    let last = loop {
        now += 40;
        let (request, _) = open.remove(0);
        let said = answer(&mut query, now, request.id, Vec::new());
        open.extend(requests(&said));
        if open.is_empty() || now > 600 {
            break open.pop();
        }
    };
    // Quick answers do not make it shorter: only the patience follows them.
    let (_, deadline) = last.unwrap();
    assert!(deadline - at(now) > 1_800 * MS, "{deadline:?}");
}

/// Answers name so many nodes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naming(usize);

impl Family for Naming {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(self.0)
    }
}

/// A network in which every node knows all others, dead and alive, and names those that are closest.
#[derive(Clone, Debug)]
struct AllKnown {
    nodes: Vec<(Key8, bool)>,
    /// How many nodes an answer names, and how many the engine is told that it names.
    names: usize,
    told: usize,
    k: usize,
    target: Key8,
    seeds: usize,
    /// The lookup carries a message, and asks about no gaps.
    message: bool,
}

impl AllKnown {
    /// The outcome of a lookup, whether its nodes are the closest that live, and how many nodes it asked.
    fn look_up(&self) -> (Outcome, bool, usize) {
        let config = QueryConfig { k: self.k, max_candidates: 230, ..QueryConfig::default() };
        let mut query =
            Query::<Naming>::new(Key8::new([0xff]), config, fixed(), &Secret::from_seed(0)).unwrap();
        query = query.with_family(Naming(self.told));
        let seeds = self.nodes.iter().take(self.seeds).map(|(node, _)| *node).collect();
        let start =
            if self.message { Start::message(1, self.target, ()) } else { Start::find(1, self.target) };
        let find = Inbound::Start(start.with_seeds(seeds));
        let mut open = VecDeque::new();
        let mut asked = 0;
        let mut event = find;
        loop {
            let out = query.handle(at(0), Stamped::new(event));
            for stamped in out {
                match stamped.event {
                    Outbound::Request(request) => open.push_back(request),
                    Outbound::Finished(finish) => {
                        let mut live: Vec<_> =
                            self.nodes.iter().filter(|(_, lives)| *lives).map(|(node, _)| *node).collect();
                        live.sort_by_key(|node| node.distance(&self.target));
                        live.truncate(self.k);
                        let found: Vec<_> = finish.closest.iter().map(|contact| contact.node).collect();
                        return (finish.outcome, found == live, asked);
                    }
                    _ => {}
                }
            }
            let request = open.pop_front().unwrap();
            asked += 1;
            let lives = self.nodes.iter().any(|(node, lives)| *node == request.node && *lives);
            event = Inbound::Response(if lives {
                let mut named: Vec<_> =
                    self.nodes.iter().map(|(node, _)| *node).filter(|node| *node != request.node).collect();
                named.sort_by_key(|node| node.distance(&request.target));
                named.truncate(self.names);
                Response::answered(request.id, named)
            } else {
                Response::failed(request.id)
            });
        }
    }
}

fn all_known() -> impl Strategy<Value = AllKnown> {
    let nodes = prop::collection::btree_map(0..255_u8, 0..100_u8, 1..220);
    (nodes, 0..95_u8, 1..25_usize, any::<bool>(), 1..30_usize, any::<u8>(), 1..30_usize, any::<u64>())
        .prop_map(|(nodes, dead, names, is_told, k, target, seeds, order)| {
            let mut nodes: Vec<_> =
                nodes.into_iter().map(|(byte, luck)| (Key8::new([byte]), luck >= dead)).collect();
            nodes.sort_by_key(|(node, _)| u64::from(node.as_bytes()[0]).wrapping_mul(order | 1));
            let told = if is_told { names } else { 20.max(names) };
            AllKnown { nodes, names, told, k, target: Key8::new([target]), seeds, message: false }
        })
}

proptest! {
    /// Whatever share is dead, however few nodes an answer names, and whether the engine is told how many: `Converged`
    /// means that these are the closest. So does `AllFound`, if it is told.
    #[test]
    fn what_is_told_to_be_sure_is_the_closest(network in all_known(), message: bool) {
        let network = AllKnown { message, ..network };
        let (outcome, are_closest, _) = network.look_up();
        let is_told = network.told == network.names;
        let is_sure = outcome == Outcome::Converged || outcome == Outcome::AllFound && is_told;
        prop_assert!(!is_sure || are_closest, "{}: {:?}", outcome, network);
    }
}

/// What is told is told often enough.
#[test]
fn where_a_third_is_dead_most_lookups_converge() {
    let mut runner = TestRunner::deterministic();
    let (mut converged, mut closest, mut lookups) = (0, 0, 0);
    while lookups < 200 {
        let mut network = all_known().new_tree(&mut runner).unwrap().current();
        let dead = network.nodes.iter().filter(|(_, lives)| !*lives).count() * 100 / network.nodes.len();
        if dead > 40 || network.nodes.len() < 120 || network.names < 8 || network.seeds < 10 {
            continue;
        }
        network.k = network.k.min(20);
        let (outcome, are_closest, _) = network.look_up();
        lookups += 1;
        converged += usize::from(outcome == Outcome::Converged);
        closest += usize::from(are_closest);
    }
    assert!(converged > 180 && closest > 190, "{converged} and {closest} of {lookups}");
}
