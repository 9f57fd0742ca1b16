//! What the rows have in common: the network that they begin with, and figures over its lookups.

use super::{Figure, Goal, Trial};
use kad_proto::sim::{End, Figures, Handle, Interarrival, Key64, LookupRun, Net, Reason, Scenario, World};
use kad_proto::{Config, Outcome, Start};
use std::time::Duration;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// The network of most rows: 10,000 nodes (short form: 2,000) with ideal tables, 2 % of exchanges lost, no round trip
/// known before; twenty nodes make twenty lookups each, one at a time.
pub(super) fn network(trial: Trial) -> Scenario {
    let mut scenario = Scenario::lossy();
    scenario.seed = trial.seed;
    scenario.known_round_trips = 0;
    scenario.check_invariants = false;
    scenario.detailed_lookups = 0;
    if trial.short {
        scenario.nodes = 2_000;
    }
    scenario.workload.lookups = 400;
    scenario.workload.by = kad_proto::sim::Who::Nodes((100..120).collect());
    scenario.workload.pace = Interarrival::Every(100 * S);
    scenario
}

/// The same, with the nodes' maintenance on for this one node among ideal ones, and without lookups.
pub(super) fn one_maintained(trial: Trial, node: u32) -> Scenario {
    let mut scenario = network(trial);
    scenario.config = Config::default();
    scenario.maintained = kad_proto::sim::Who::Node(node);
    scenario.workload.lookups = 0;
    scenario
}

/// Runs a scenario to its end.
pub(super) fn run(scenario: Scenario) -> Result<World, String> {
    let mut world = world(scenario)?;
    world.run().map_err(|broken| broken.to_string())?;
    Ok(world)
}

/// A world at its beginning.
pub(super) fn world(scenario: Scenario) -> Result<World, String> {
    World::new(scenario).map_err(|error| error.to_string())
}

/// Lets a world go on for this time.
pub(super) fn pass(world: &mut World, time: Duration) -> Result<(), String> {
    world.run_for(time).map_err(|broken| broken.to_string())
}

/// The lookups of the workload.
pub(super) fn lookups(world: &World) -> impl Iterator<Item = &LookupRun> {
    world.lookups().iter().filter(|lookup| lookup.reason == Reason::Workload)
}

/// The lookups of the workload without the first one of each node.
pub(super) fn after_the_first(world: &World) -> Vec<&LookupRun> {
    let mut seen = std::collections::BTreeSet::new();
    lookups(world).filter(|lookup| !seen.insert(lookup.starter)).collect()
}

/// The second half of the workload's lookups: those of nodes that have made some.
pub(super) fn settled(world: &World) -> Vec<&LookupRun> {
    lookups(world).skip(lookups(world).count() / 2).collect()
}

/// A key that no node has; another one for each number, and for each seed.
pub(super) fn some_key(trial: Trial, number: u32) -> Key64 {
    let seed = u32::try_from(trial.seed % 4_096).unwrap_or_default();
    Handle::point(number.wrapping_add(seed * 2_048)).key()
}

/// The first nodes, by number, that live, from number 100 on.
pub(super) fn living(world: &World, count: usize) -> Vec<u32> {
    let all = 100..world.scenario().nodes;
    all.filter(|node| world.engine(world.handle(*node)).is_some()).take(count).collect()
}

/// Each of these nodes makes a lookup, one after the other, 100 s apart; then each the next one, and so on, until each
/// has made `each`. `start` gives the lookup from its number: those of `numbers` in order. Returns the lookups, by
/// number.
pub(super) fn rounds(
    world: &mut World,
    nodes: &[u32],
    each: usize,
    numbers: core::ops::RangeFrom<u32>,
    start: impl Fn(u32) -> Start<Net>,
) -> Result<Vec<u32>, String> {
    let turns = core::iter::repeat_n(nodes, each).flatten();
    let mut begun = Vec::new();
    for (number, node) in numbers.zip(turns) {
        begun.push(world.begin(*node, start(number)));
        pass(world, 100 * S)?;
    }
    Ok(begun)
}

/// The lookups with these numbers.
pub(super) fn numbered<'a>(world: &'a World, numbers: &[u32]) -> Vec<&'a LookupRun> {
    numbers.iter().filter_map(|number| world.lookups().get(*number as usize)).collect()
}

/// The mean recall.
pub(super) fn recall(lookups: &[&LookupRun]) -> f64 {
    mean(lookups.iter().map(|lookup| lookup.ending.map_or(0.0, |ending| ending.recall)))
}

/// The mean number of requests.
pub(super) fn requests(lookups: &[&LookupRun]) -> f64 {
    mean(lookups.iter().filter_map(|lookup| lookup.ending).map(|ending| f64::from(ending.stats.sent)))
}

/// A quantile of the time that lookups took, in seconds; `share` from 0 to 1.
pub(super) fn seconds(lookups: &[&LookupRun], share: f64) -> f64 {
    let took = lookups.iter().filter_map(|lookup| lookup.took()).map(|took| took.as_secs_f64());
    quantile(took.collect(), share)
}

/// Of the nodes that lookups should have found and for which this holds, the share that they found.
pub(super) fn found_of(lookups: &[&LookupRun], counts: impl Fn(Handle) -> bool) -> f64 {
    const K: usize = 20;
    let count = |list: &[Handle]| list.iter().filter(|node| counts(**node)).count() as f64;
    // Of the nodes found, the nearest are the true ones: as many as were not missed.
    let right = |lookup: &LookupRun| (K - lookup.missed.len().min(K)).min(lookup.found.len());
    let found: f64 =
        lookups.iter().map(|lookup| count(lookup.found.get(..right(lookup)).unwrap_or_default())).sum();
    let missed: f64 = lookups.iter().map(|lookup| count(&lookup.missed)).sum();
    if found + missed > 0.0 { found / (found + missed) } else { 0.0 }
}

/// The share of lookups that ended so.
pub(super) fn ended(lookups: &[&LookupRun], outcome: Outcome) -> f64 {
    let so = |lookup: &&&LookupRun| lookup.ending.is_some_and(|ending| ending.end == End::Finished(outcome));
    lookups.iter().filter(so).count() as f64 / lookups.len().max(1) as f64
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

/// The least value that this share of the values does not exceed; 0 of none.
pub(super) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil().max(1.0) as usize;
    values.get(rank - 1).copied().unwrap_or_default()
}

pub(super) fn at_least(name: impl Into<String>, value: f64, least: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::AtLeast(least) }
}

pub(super) fn at_most(name: impl Into<String>, value: f64, most: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::AtMost(most) }
}

pub(super) fn stated(name: impl Into<String>, value: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::Stated }
}

/// The figures "p50, p90, p99, requests, recall" of a run, at most and at least these.
pub(super) fn all_at_most(
    name: &str,
    figures: &Figures,
    [p50, p90, p99, requests, recall]: [f64; 5],
) -> Vec<Figure> {
    let time = figures.time;
    vec![
        at_most(format!("{name}p50, s"), time.p50.as_secs_f64(), p50),
        at_most(format!("{name}p90, s"), time.p90.as_secs_f64(), p90),
        at_most(format!("{name}p99, s"), time.p99.as_secs_f64(), p99),
        at_most(format!("{name}requests"), figures.mean_requests, requests),
        at_least(format!("{name}recall"), figures.recall, recall),
    ]
}
