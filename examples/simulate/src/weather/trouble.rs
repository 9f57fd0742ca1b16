//! The rows about lookups that something goes wrong with: an attack, a slow-down, too many at once, a bad start.

use super::measure::{
    MINUTE, MS, S, at_least, at_most, found_of, living, lookups, mean, network, numbered, one_maintained,
    pass, recall, requests, rounds, run, settled, some_key, stated, world,
};
use super::{Figure, Trial};
use kad_proto::sim::{
    Answer, Asked, Behaviour, Dial, Effect, End, Handle, Interarrival, Key64, Latency, LookupRun, Party,
    Place, Question, RequestEnd, Scenario, Sybils, Who, World,
};
use kad_proto::{Config, Key, Outcome, Start};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn finish(world: &mut World) -> Result<(), String> {
    world.run().map_err(|broken| broken.to_string())
}

fn apply(world: &mut World, effect: &Effect) -> Result<(), String> {
    world.apply(effect).map_err(|error| error.to_string())
}

/// Sybils that answer at once, each with the three that are next nearer to their place than itself: who meets the
/// farthest of them and looks for the nearest must ask them all.
#[derive(Debug)]
struct Stairs;

impl Behaviour for Stairs {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let distance = |node: &Handle| node.key().distance(&question.target);
        let own = distance(&question.node);
        let mut next: Vec<_> = question.members.iter().copied().filter(|node| distance(node) < own).collect();
        let nearer = next.len().saturating_sub(3);
        Some(Answer::naming(next.split_off(nearer)))
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(MS)
    }
}

/// The point that the quick Sybils are near.
const QUICK: u32 = 77;

/// 40 % of the nodes are far, and there are 240 quick Sybils, whom nobody knows.
fn with_quick_sybils(mut scenario: Scenario) -> Scenario {
    let classes = [(0.6, 20 * MS), (0.4, 400 * MS)];
    scenario.link.loss = 0.0;
    scenario.link.round_trip =
        Latency::classes(classes.map(|(share, time)| (share, Latency::Constant(time))));
    scenario.workload.lookups = 0;
    scenario.sybils = vec![Sybils {
        count: 240,
        groups: 240,
        near: Place::Point(QUICK),
        every: Duration::ZERO,
        behaviour: Arc::new(Stairs),
        ..Sybils::default()
    }];
    scenario
}

/// A lookup that begins with the farthest of the quick Sybils.
fn poisoned_lookup(world: &World) -> Start<kad_proto::sim::Net> {
    let seed = world.sybils().next().and_then(|sybils| sybils.last());
    Start::find(0, Handle::point(QUICK).key()).with_seeds(seed.copied().into_iter().collect())
}

// That less than 1 % of the answerers moves patience by at most a factor of 1.25 is a property of the engine's estimator,
// and tested there.
pub(super) fn poisoned(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut world_of_many = world(with_quick_sybils(network(trial)))?;
    let world = &mut world_of_many;
    let nodes: Vec<u32> = (100..120).collect();
    let start = |number| Start::find(0, some_key(trial, number));
    let far = |world: &World, numbers: &[u32]| {
        found_of(&numbered(world, numbers), |node| world.latency_class(node) == Some(1))
    };
    let before = rounds(world, &nodes, 3, 0.., start)?;
    let seeded = poisoned_lookup(world);
    let poison = rounds(world, &nodes, 1, 0.., |_| seeded.clone())?;
    let after = rounds(world, &nodes, if trial.short { 5 } else { 10 }, 1_000.., start)?;
    let answered = numbered(world, &poison).into_iter().filter_map(|lookup| lookup.ending);
    let mut figures = vec![
        stated("before: far found", far(world, &before)),
        stated("poisoned: requests answered", mean(answered.map(|end| f64::from(end.stats.answered)))),
        at_least("next lookup: far found", far(world, after.get(..nodes.len()).unwrap_or_default()), 0.99),
        at_least("next lookups: far found", far(world, &after), 0.99),
    ];

    // A node that keeps its table: which far nodes are in it before, and two hours later; and the same without poison.
    let mut world = super::measure::world(with_quick_sybils(one_maintained(trial, 100)))?;
    let node = world.handle(100);
    let known = |world: &World| -> Vec<Handle> {
        let all = world.closest_in_table(node, node.key(), usize::MAX).into_iter();
        all.filter(|other| world.latency_class(*other) == Some(1) && world.number(*other).is_some()).collect()
    };
    let at_first = known(&world);
    pass(&mut world, 120 * MINUTE)?;
    let before = known(&world);
    let seeded = poisoned_lookup(&world);
    world.begin(100, seeded);
    pass(&mut world, 120 * MINUTE)?;
    let after = known(&world);
    let left = |before: &[Handle], after: &[Handle]| {
        before.iter().filter(|node| !after.contains(node)).count() as f64
    };
    figures.push(stated("table: far nodes", before.len() as f64));
    figures.push(stated("table: left it in the same time before", left(&at_first, &before)));
    figures.push(at_most("table: far nodes that left it", left(&before, &after), 0.0));
    Ok(figures)
}

/// Of some lookups whose requests were kept: how many living nodes each has asked, taken for dead by a time-out, and not
/// found.
fn given_up(lookups: &[&LookupRun], lives: impl Fn(Handle) -> bool) -> f64 {
    let of_one = |lookup: &&LookupRun| {
        let timed_out = |asked: &&Asked| asked.ended.is_some_and(|(_, end)| end == RequestEnd::TimedOut);
        let given_up = lookup.asked.iter().filter(timed_out).map(|asked| asked.node);
        let given_up = given_up.filter(|node| lives(*node) && !has_answered(lookup, *node));
        given_up.collect::<BTreeSet<_>>().len() as f64
    };
    mean(lookups.iter().map(of_one))
}

fn has_answered(lookup: &LookupRun, node: Handle) -> bool {
    let answered = |asked: &Asked| asked.ended.is_some_and(|(_, end)| end == RequestEnd::Answered);
    lookup.asked.iter().any(|asked| asked.node == node && answered(asked))
}

pub(super) fn dial(trial: Trial) -> Result<Vec<Figure>, String> {
    let with_dial = |mut scenario: Scenario, round_trip: Latency| {
        scenario.link.loss = 0.0;
        scenario.link.dial = Some(Dial::default());
        scenario.link.round_trip = round_trip;
        // Five of the longest round trips fit, nearly always.
        scenario.config.network.request_timeout = 10 * S;
        scenario.detailed_lookups = u32::MAX;
        scenario
    };
    let usual = Latency::LogNormal { median: 80 * MS, sigma: 0.6 };
    let busy = Latency::LogNormal { median: 80 * MS, sigma: 1.0 };
    let mut figures = Vec::new();
    let worlds = [
        ("40 others, 100 ms", Latency::Constant(100 * MS)),
        ("40 others", usual.clone()),
        ("40 others, busy", busy),
    ];
    for (name, round_trip) in worlds {
        let (mut known, mut recalls, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..if trial.short { 20 } else { 100 } {
            // Buckets of this size hold about half of the others, to whom there are connections.
            let mut scenario = with_dial(network(trial), round_trip.clone());
            (scenario.nodes, scenario.seed) = (41, trial.seed.wrapping_mul(1_000) + number);
            scenario.config.table.bucket_size = 6;
            scenario.workload.lookups = 0;
            scenario.workload.by = Who::All;
            let mut world = world(scenario)?;
            let node = world.handle(0);
            known.push(world.closest_in_table(node, node.key(), 41).len() as f64);
            world.look_up(0, some_key(trial, 0));
            finish(&mut world)?;
            let all: Vec<_> = lookups(&world).collect();
            recalls.push(recall(&all));
            silent.push(given_up(&all, |node| world.engine(node).is_some()));
        }
        figures.push(stated(format!("{name}: known"), mean(known.into_iter())));
        figures.push(at_least(format!("{name}: recall"), mean(recalls.into_iter()), 0.995));
        figures.push(at_most(format!("{name}: living taken for dead"), mean(silent.into_iter()), 0.005));
    }
    let world = run(with_dial(network(trial), usual))?;
    let lookups = settled(&world);
    figures.push(at_least("large: recall", recall(&lookups), 0.995));
    let dead = given_up(&lookups, |node| world.engine(node).is_some());
    figures.push(at_most("large: living taken for dead", dead, 0.005));
    Ok(figures)
}

/// What came of a crowd: how many converged, and of the rest the share that ended by name, within half of its time.
fn yield_of(scenario: &Scenario, limit: Option<usize>) -> Result<(f64, f64), String> {
    let mut scenario = scenario.clone();
    if let Some(limit) = limit {
        scenario.config.pool.max_running = limit;
    }
    let world = run(scenario)?;
    let (mut converged, mut rest, mut early) = (0, 0, 0);
    for lookup in lookups(&world) {
        let end = lookup.ending.map(|ending| ending.end);
        // What cannot be done in time is refused, or ends without having begun.
        let is_named = matches!(end, Some(End::Refused(_)))
            || lookup.ending.is_some_and(|ending| {
                ending.stats.sent == 0 && ending.end != End::Finished(Outcome::DeadlineExceeded)
            });
        let found = lookup.ending.is_some_and(|ending| ending.recall >= 0.95);
        if end == Some(End::Finished(Outcome::Converged)) && found {
            converged += 1;
        } else {
            rest += 1;
            early += u32::from(is_named && lookup.took().is_some_and(|took| took <= 5 * S));
        }
    }
    Ok((f64::from(converged), if rest == 0 { 1.0 } else { f64::from(early) / f64::from(rest) }))
}

pub(super) fn crowd(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut scenario = network(trial);
    scenario.workload.by = Who::Node(100);
    scenario.workload.deadline = Some(10 * S);
    let mut at_once = scenario.clone();
    at_once.workload.lookups = if trial.short { 2_000 } else { 5_000 };
    at_once.workload.pace = Interarrival::Every(Duration::ZERO);
    at_once.config.network.max_in_flight = 256;
    // Eight a second, where about seven fit; and ten times what fits.
    let mut steady = scenario;
    steady.workload.lookups = if trial.short { 500 } else { 2_400 };
    steady.workload.pace = Interarrival::Every(S / 8);
    steady.config.network.max_in_flight = 19;
    let mut tenfold = steady.clone();
    tenfold.workload.lookups = if trial.short { 2_100 } else { 7_000 };
    tenfold.workload.pace = Interarrival::Every(S / 70);
    let mut figures = Vec::new();
    let mut served = 0.0;
    for (name, scenario) in [("at once", at_once), ("steady", steady)] {
        let (converged, early) = yield_of(&scenario, None)?;
        let mut best = (0.0, 0);
        for limit in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256] {
            let (converged, _) = yield_of(&scenario, Some(limit))?;
            best = if converged > best.0 { (converged, limit) } else { best };
        }
        figures.push(stated(format!("{name}: converged"), converged));
        figures.push(stated(format!("{name}: with the best limit"), best.0));
        figures.push(stated(format!("{name}: the best limit"), best.1 as f64));
        figures.push(at_least(format!("{name}: share of the best"), converged / best.0.max(1.0), 0.9));
        figures.push(at_least(format!("{name}: of the rest, ended early"), early, 0.995));
        served = best.0 / f64::from(scenario.workload.lookups) * 8.0;
    }
    // A limit does not help there: whoever waits long begins when it is too late. So it is held against the rate that can be served.
    let seconds = f64::from(tenfold.workload.lookups) / 70.0;
    let (converged, early) = yield_of(&tenfold, None)?;
    figures.push(stated("tenfold: converged", converged));
    figures.push(at_least("tenfold: share of what can be served", converged / (served * seconds), 0.9));
    figures.push(at_least("tenfold: of the rest, ended early", early, 0.995));
    Ok(figures)
}

/// Made-up nodes, all of which exist and answer at once, each with the three that are next nearer than itself, but not as
/// near as the k closest of the honest: a lookup that meets one can ask hundreds.
#[derive(Debug)]
struct Endless {
    /// They share so many bits with the target, and no more.
    bits: u32,
    /// All of them, in the order of their keys.
    all: Vec<(Key64, Handle)>,
}

impl Endless {
    fn new(bits: u32) -> Self {
        // So many that 2,048 are in place.
        let mut all: Vec<_> =
            (0..1 << (12 + bits)).map(Handle::made_up).map(|node| (node.key(), node)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        Self { bits, all }
    }

    /// Those that are where they should be, the closest to the target first.
    fn near(&self, target: Key64) -> Vec<Handle> {
        // The nodes that share this many bits and no more with the target are next to each other.
        let shared = |key: &Key64| key.common_prefix_len(&target);
        let place = self.all.partition_point(|(key, _)| *key < target);
        let (below, above) = self.all.split_at(place);
        let below = below.iter().rev().skip_while(|(key, _)| shared(key) > self.bits);
        let above = above.iter().skip_while(|(key, _)| shared(key) > self.bits);
        let in_place = |(key, _): &&(Key64, Handle)| shared(key) == self.bits;
        let mut near: Vec<_> = below.take_while(in_place).chain(above.take_while(in_place)).collect();
        near.sort_unstable_by_key(|(key, _)| key.distance(&target));
        near.into_iter().map(|(_, node)| *node).collect()
    }
}

impl Behaviour for Endless {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let distance = |node: &Handle| node.key().distance(&question.target);
        let own = distance(&question.node);
        let mut near = self.near(question.target);
        near.truncate(near.partition_point(|node| distance(node) < own));
        Some(Answer::naming(near.split_off(near.len().saturating_sub(3))))
    }

    fn has_made_up_nodes(&self) -> bool {
        true
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(MS)
    }
}

pub(super) fn disjoint(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for attacked in [false, true] {
        let mut scenario = network(trial);
        scenario.link.round_trip = Latency::Constant(100 * MS);
        scenario.workload.lookups = 0;
        scenario.config.query.paths = 4;
        // At 2^-bits of the key space there are more than k honest nodes.
        let bits = (scenario.nodes / 40).ilog2();
        let endless = Arc::new(Endless::new(bits));
        scenario.hostile = vec![Party { share: 0.0, behaviour: endless.clone() }];
        let mut world = world(scenario)?;
        let nodes: Vec<u32> = (100..120).collect();
        let start = |number| {
            let target = some_key(trial, number);
            // Nearer than any node that the table knows, and the farthest of them, so that the others are before it.
            let seed = endless.near(target).pop().filter(|_| attacked);
            Start::find(0, target).with_seeds(seed.into_iter().collect())
        };
        let numbers = rounds(&mut world, &nodes, if trial.short { 1 } else { 3 }, 0.., start)?;
        let lookups = numbered(&world, &numbers);
        if attacked {
            figures.push(at_least("recall", recall(&lookups), 0.99));
            figures.push(stated("requests", requests(&lookups)));
        } else {
            figures.push(stated("not attacked: recall", recall(&lookups)));
            figures.push(stated("not attacked: requests", requests(&lookups)));
        }
    }
    Ok(figures)
}

pub(super) fn slow_down(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for after in [50, 200] {
        let mut scenario = network(trial);
        scenario.workload.lookups = 0;
        scenario.workload.deadline = Some(60 * S);
        let mut world = world(scenario)?;
        let nodes: Vec<u32> = (100..if trial.short { 110 } else { 120 }).collect();
        let (mut during, mut next) = (Vec::new(), Vec::new());
        for node in nodes {
            let key = |number| some_key(trial, node * 16 + number);
            rounds(&mut world, &[node], 10, 0.., |number| Start::find(0, key(number)))?;
            during.push(world.look_up(node, key(10)));
            pass(&mut world, after * MS)?;
            apply(&mut world, &Effect::SlowDown { factor: 1.0, add: 600 * MS })?;
            finish(&mut world)?;
            next.push(world.look_up(node, key(11)));
            finish(&mut world)?;
            apply(&mut world, &Effect::SlowDown { factor: 1.0, add: Duration::ZERO })?;
        }
        let (during, next) = (numbered(&world, &during), numbered(&world, &next));
        figures.extend([
            at_least(format!("after {after} ms, that one: recall"), recall(&during), 0.99),
            at_most(format!("after {after} ms, that one: requests"), requests(&during), 130.0),
            at_least(format!("after {after} ms, the next: recall"), recall(&next), 0.99),
            at_most(format!("after {after} ms, the next: requests"), requests(&next), 130.0),
        ]);
    }
    Ok(figures)
}

/// Whether an outcome says that a lookup has found all nodes that there are. No outcome of a lookup does so far.
fn says_all(end: End) -> bool {
    end.to_string() == "all found"
}

pub(super) fn few(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for nodes in [2, 5, 12, 20] {
        let mut scenario = Scenario { nodes, ..network(trial) };
        scenario.link.loss = 0.0;
        scenario.workload.by = Who::All;
        scenario.workload.lookups = 100;
        let world = run(scenario)?;
        let all: Vec<_> = lookups(&world).collect();
        let so = all.iter().filter(|lookup| lookup.ending.is_some_and(|ending| says_all(ending.end))).count();
        figures.push(at_least(format!("{nodes} nodes: recall"), recall(&all), 0.995));
        let share = so as f64 / all.len().max(1) as f64;
        figures.push(at_least(format!("{nodes} nodes: told that these are all"), share, 0.995));
    }
    // Where there are more, it is never told.
    let world = run(Scenario { nodes: 400, ..network(trial) })?;
    let told =
        lookups(&world).filter(|lookup| lookup.ending.is_some_and(|ending| says_all(ending.end))).count();
    figures.push(at_most("400 nodes: told that these are all", told as f64, 0.0));
    Ok(figures)
}

/// Kills these nodes.
fn kill(world: &mut World, nodes: &[Handle]) -> Result<(), String> {
    let who: Vec<u32> = nodes.iter().filter_map(|node| world.number(*node)).collect();
    apply(world, &Effect::Kill { who: Who::Nodes(who.into()) })
}

/// The recall of a lookup, if it has ended within five seconds; else 0.
fn in_time(world: &World, number: u32) -> f64 {
    let lookup = world.lookups().get(number as usize);
    let in_time = lookup.filter(|lookup| lookup.took().is_some_and(|took| took <= 5 * S));
    in_time.and_then(|lookup| lookup.ending).map_or(0.0, |ending| ending.recall)
}

/// A node that is down begins with an empty table. The seeds that it knows are dead.
fn empty(world: &mut World, node: u32) -> Result<(), String> {
    apply(world, &Effect::Restart { who: Who::Node(node), snapshot: false })?;
    pass(world, 30 * S)?;
    match world.engine(world.handle(node)).map(|engine| engine.table().len()) {
        Some(0) => Ok(()),
        size => Err(format!("the table holds {size:?} nodes, not none")),
    }
}

pub(super) fn bad_start(trial: Trial) -> Result<Vec<Figure>, String> {
    let trials = if trial.short { 4 } else { 10 };
    let [mut table, mut seeds, mut nothing, mut restored, mut later] = [0; 5].map(|_| Vec::new());
    for number in 0..trials {
        let mut scenario = network(trial);
        (scenario.nodes, scenario.seed) = (10_000, trial.seed.wrapping_mul(1_000) + number);
        scenario.workload.lookups = 0;
        scenario.config = Config::default();
        scenario.maintained = Who::Nodes([100, 101, 103].into());
        scenario.config.query.timeout = if number % 2 == 0 { 60 * S } else { 10 * S };
        let mut world = world(scenario)?;
        let own = world.handle(101);
        let mut contacts = world.closest_in_table(own, own.key(), usize::MAX);
        // Those that begin later are down until then, so that none of them asks another.
        apply(&mut world, &Effect::Kill { who: Who::Nodes([0, 1, 2, 100, 101, 103].into()) })?;

        // The table: the nearest 40 to the target are dead, and of the others 60 live.
        let (node, target) = (world.handle(102), some_key(trial, 500));
        let known = world.closest_in_table(node, target, usize::MAX);
        let others = known.len().saturating_sub(40).max(1);
        let lives = |rank: usize| rank >= 40 && (rank - 40) * 60 / others != (rank - 39) * 60 / others;
        let dead = |(rank, node): (usize, &Handle)| (!lives(rank)).then_some(*node);
        let spared = |node: &Handle| world.number(*node).is_some_and(|number| number < 110);
        let dead: Vec<_> = known.iter().enumerate().filter_map(dead).filter(|node| !spared(node)).collect();
        kill(&mut world, &dead)?;
        let lookup = world.look_up(102, target);
        pass(&mut world, 60 * S)?;
        table.push(in_time(&world, lookup));

        // From nothing: one living seed; then 100 dead ones besides.
        for (node, count) in [(103, 0), (100, 100)] {
            empty(&mut world, node)?;
            let some: Vec<Handle> = (200..200 + count).map(|number| world.handle(number)).collect();
            kill(&mut world, &some)?;
            let living = living(&world, 1_000).last().copied().unwrap_or_default();
            let mut seeds_of = some;
            seeds_of.insert(seeds_of.len() / 2, world.handle(living));
            let own = world.handle(node).key();
            let lookup = world.begin(node, Start::bootstrap(0, own, seeds_of));
            pass(&mut world, 60 * S)?;
            if count == 0 { &mut nothing } else { &mut seeds }.push(in_time(&world, lookup));
            apply(&mut world, &Effect::Kill { who: Who::Node(node) })?;
        }

        // The contacts of its own table, but for the nearest, of which one lives.
        let mut contacts = contacts.split_off(contacts.len().saturating_sub(161));
        let is_up =
            |node: &Handle| world.engine(*node).is_some() && world.number(*node).is_some_and(|it| it > 3);
        let living = contacts.iter().position(is_up).ok_or("no contact lives")?;
        let living = contacts.remove(living);
        kill(&mut world, &contacts)?;
        empty(&mut world, 101)?;
        contacts.insert(contacts.len() / 2, living);
        apply(&mut world, &Effect::Restore { who: Who::Node(101), contacts })?;
        pass(&mut world, 5 * S)?;
        restored.push(world.look_at(101).recall);
        pass(&mut world, 15 * MINUTE)?;
        later.push(world.look_at(101).recall);
    }
    let of = |values: Vec<f64>| mean(values.into_iter());
    Ok(vec![
        at_least("table: recall within 5 s", of(table), 0.995),
        stated("one seed: recall within 5 s", of(nothing)),
        at_least("100 dead seeds: recall within 5 s", of(seeds), 0.995),
        at_least("160 dead restored: recall within 5 s", of(restored), 0.995),
        stated("160 dead restored: recall after 15 min", of(later)),
    ])
}
