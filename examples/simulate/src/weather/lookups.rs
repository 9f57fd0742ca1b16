//! The rows about lookups and time-outs.

use super::measure::{
    MS, S, after_the_first, all_at_most, at_least, at_most, ended, found_of, living, mean, network, numbered,
    recall, requests, rounds, run, seconds, settled, some_key, stated, world,
};
use super::{Figure, Row, Trial, trouble};
use kad_proto::sim::{Figures, Key64, Latency, LookupRun, Scenario, Who, World};
use kad_proto::{Key, Outcome, Start};
use std::time::Duration;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "fire",
        world: "30 % dead, 2 % lost; nodes know some round trips",
        reached: false,
        in_short: true,
        seeded: true,
        run: fire,
    },
    Row {
        name: "L1",
        world: "slow: round trips log-normal, median 1.2 s; and 5 s with a time-out of 15 s",
        reached: false,
        in_short: true,
        seeded: true,
        run: slow,
    },
    Row {
        name: "L2",
        world: "mixed: a minority of far nodes, nobody dead, nothing lost",
        reached: false,
        in_short: true,
        seeded: true,
        run: mixed,
    },
    Row {
        name: "L3",
        world: "poisoned clock: 40 % far; one lookup of each node meets 240 Sybils that answer at once",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::poisoned,
    },
    Row {
        name: "L4",
        world: "dial: the first request to a node costs five round trips; nobody dead, nothing lost",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::dial,
    },
    Row {
        name: "L5",
        world: "late: 30 % and 50 % of the nodes answer at 0.95 of the time-out",
        reached: false,
        in_short: true,
        seeded: true,
        run: late,
    },
    Row {
        name: "L6",
        world: "steady: 400 ms and 50 ms, ± 10 %; nobody dead, nothing lost",
        reached: false,
        in_short: true,
        seeded: true,
        run: steady,
    },
    Row {
        name: "L7",
        world: "small k: 1, 2, 3, 5; answers of 20 and of 8; 30 % dead",
        reached: false,
        in_short: true,
        seeded: true,
        run: small_k,
    },
    Row {
        name: "L8",
        world: "answers shorter than k, or than the results that are asked for",
        reached: false,
        in_short: true,
        seeded: true,
        run: short_answers,
    },
    Row {
        name: "L9",
        world: "crowd: more lookups than the requests in flight can serve within their 10 s",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::crowd,
    },
    Row {
        name: "L10",
        world: "four disjoint paths; one begins at Sybils that answer in 1 ms, the honest in 100 ms",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::disjoint,
    },
    Row {
        name: "L13",
        world: "slow-down: in the middle of a lookup of 60 s every round trip grows by 600 ms",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::slow_down,
    },
    Row {
        name: "L14",
        world: "few: fewer than k nodes, all known and answering",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::few,
    },
    Row {
        name: "L15",
        world: "most are dead: 60 % and 80 % of the nodes; what `Converged` is worth",
        reached: false,
        in_short: true,
        seeded: true,
        run: mostly_dead,
    },
    Row {
        name: "L16",
        world: "bad start: the nearest are dead; one living among 100 seeds, or among 160 restored",
        reached: false,
        in_short: true,
        seeded: true,
        run: trouble::bad_start,
    },
    Row {
        name: "L17",
        world: "slow on purpose: under fire, and 1 % of the nodes answer at 0.95 of the time-out",
        reached: false,
        in_short: true,
        seeded: true,
        run: slow_on_purpose,
    },
    Row {
        name: "L18",
        world: "fresh: under fire, the first ten lookups of nodes that know no round trip",
        reached: true,
        in_short: true,
        seeded: true,
        run: fresh,
    },
];

fn fire(trial: Trial) -> Result<Vec<Figure>, String> {
    let with = |scenario: Scenario| {
        let mut scenario = Scenario { seed: trial.seed, check_invariants: false, ..scenario };
        scenario.workload.lookups = if trial.short { 400 } else { 2_000 };
        scenario
    };
    let fire = run(with(Scenario::under_fire()))?.figures();
    let healthy = run(with(Scenario::lossy()))?.figures();
    let mut figures = all_at_most("under fire: ", &fire, [0.75, 1.05, 1.55, 58.0, 0.995]);
    figures.push(at_most("healthy: p50, s", healthy.time.p50.as_secs_f64(), 0.43));
    figures.push(at_most("healthy: requests", healthy.mean_requests, 34.0));
    figures.push(at_least("healthy: recall", healthy.recall, 0.998));
    Ok(figures)
}

fn slow(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (median, request_timeout) in [(1_200 * MS, 2 * S), (5 * S, 15 * S)] {
        let mut scenario = network(trial);
        scenario.link.round_trip = Latency::LogNormal { median, sigma: 0.3 };
        scenario.config.network.request_timeout = request_timeout;
        let world = run(scenario)?;
        let (lookups, name) = (after_the_first(&world), format!("{} s: ", median.as_secs_f64()));
        figures.push(at_least(format!("{name}recall"), recall(&lookups), 0.99));
        let p50 = seconds(&lookups, 0.5) / median.as_secs_f64();
        figures.push(at_most(format!("{name}p50, median round trips"), p50, 4.5));
    }
    Ok(figures)
}

fn mixed(trial: Trial) -> Result<Vec<Figure>, String> {
    type Classes = Vec<(f64, u32)>;
    let constant = |ms: u32| Latency::Constant(ms * MS);
    let worlds: [(&str, Classes, f64); 6] = [
        ("2 % at 400 ms", vec![(0.98, 20), (0.02, 400)], 0.97),
        ("5 % at 400 ms", vec![(0.95, 20), (0.05, 400)], 0.99),
        ("20 % at 400 ms", vec![(0.8, 20), (0.2, 400)], 0.99),
        ("40 % at 400 ms", vec![(0.6, 20), (0.4, 400)], 0.99),
        ("20 % at 450 ms, others at 80", vec![(0.8, 80), (0.2, 450)], 0.99),
        ("20, 200, 1,500 ms", vec![(0.4, 20), (0.4, 200), (0.2, 1_500)], 0.99),
    ];
    let mut figures = Vec::new();
    for (name, classes, least) in worlds {
        let mut scenario = network(trial);
        scenario.link.loss = 0.0;
        let last = classes.len() - 1;
        let far = Duration::from_millis(classes.last().map_or(0, |(_, ms)| u64::from(*ms)));
        scenario.link.round_trip =
            Latency::classes(classes.into_iter().map(|(share, ms)| (share, constant(ms))));
        let world = run(scenario)?;
        let lookups = after_the_first(&world);
        let found = found_of(&lookups, |node| world.latency_class(node) == Some(last));
        figures.push(at_least(format!("{name}: far found"), found, least));
        let p50 = seconds(&lookups, 0.5) / far.as_secs_f64();
        figures.push(at_most(format!("{name}: p50, far round trips"), p50, 1.6));
    }
    Ok(figures)
}

/// Round trips of the usual kind, but a share of the nodes answers at 0.95 of the time-out.
fn some_late(share: f64) -> Latency {
    let usual = Latency::LogNormal { median: 80 * MS, sigma: 0.6 };
    Latency::classes([(1.0 - share, usual), (share, Latency::Constant(1_900 * MS))])
}

fn late(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (share, name, most) in [(0.3, "30 %", 2.5), (0.5, "50 %", 2.8)] {
        // The same, but they are dead.
        let dead = run(Scenario { dead: share, ..network(trial) })?;
        let dead = seconds(&settled(&dead), 0.5);
        figures.push(stated(format!("{name} dead: p50, s"), dead));
        // By default the time-out adapts to those that are not late, who must not be lost by that. Where it is fixed,
        // every lookup meets late answers.
        for (is_fixed, kind) in [(false, ""), (true, ", fixed time-out")] {
            let mut scenario = network(trial);
            scenario.link.round_trip = some_late(share);
            if is_fixed {
                scenario.config.network.min_timeout = scenario.config.network.request_timeout;
            }
            let world = run(scenario)?;
            let (lookups, name) = (settled(&world), format!("{name}{kind}"));
            let p50 = seconds(&lookups, 0.5);
            figures.push(at_least(format!("{name}: recall"), recall(&lookups), 0.99));
            figures.push(at_most(format!("{name}: p50, s"), p50, most));
            figures.push(at_most(format!("{name}: p50 beyond the dead, s"), p50 - dead, 1.9));
            // A caller who would rather not wait sets the most patience, and has what it would have if those nodes were dead.
            let impatient = |mut scenario: Scenario| {
                if is_fixed {
                    scenario.config.network.min_timeout = scenario.config.network.request_timeout;
                }
                scenario.config.network.max_patience = Some(IMPATIENT);
                run(scenario)
            };
            let mut scenario = network(trial);
            scenario.link.round_trip = some_late(share);
            let world = impatient(scenario)?;
            let lookups = settled(&world);
            let p50 = seconds(&lookups, 0.5);
            let dead = if is_fixed {
                let world = impatient(Scenario { dead: share, ..network(trial) })?;
                let alike = seconds(&settled(&world), 0.5);
                figures.push(stated(format!("{name}, impatient: p50, of those that adapt"), p50 / dead));
                figures.push(stated(format!("{name}, impatient, dead: p50, s"), alike));
                alike
            } else {
                dead
            };
            figures.push(at_most(format!("{name}, impatient: p50, of the dead"), p50 / dead, 1.05));
            let unsure = ended(&lookups, Outcome::Unsure);
            figures.push(at_least(format!("{name}, impatient: told unsure"), unsure, 0.995));
        }
    }
    Ok(figures)
}

/// The most patience of a caller who would rather not wait for late answers: about what lookups wait where those nodes are
/// dead.
const IMPATIENT: Duration = Duration::from_millis(250);

fn steady(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    // The times are those of the version of 2026-11-28.
    for (ms, p50) in [(400, 1.6), (50, 0.2)] {
        let mut scenario = network(trial);
        scenario.link.loss = 0.0;
        scenario.link.round_trip = Latency::Uniform(ms * MS * 9 / 10, ms * MS * 11 / 10);
        let world = run(scenario)?;
        let lookups = settled(&world);
        figures.push(at_most(format!("{ms} ms: requests"), requests(&lookups), 29.0));
        figures.push(at_most(format!("{ms} ms: p50, s"), seconds(&lookups, 0.5), p50));
        figures.push(at_most(format!("{ms} ms: p99, s"), seconds(&lookups, 0.99), 2.5));
        figures.push(at_least(format!("{ms} ms: recall"), recall(&lookups), 0.998));
    }
    Ok(figures)
}

/// For each k the requests of a lookup in the version of 2026-11-28, where answers name 20 nodes, and 8.
type OfSmallK = [(usize, [f64; 2]); 4];

const REQUESTS: OfSmallK = [(1, [6.56, 6.53]), (2, [9.93, 10.0]), (3, [12.8, 12.9]), (5, [16.9, 17.1])];
const REQUESTS_IN_SHORT: OfSmallK =
    [(1, [5.38, 5.34]), (2, [8.31, 8.32]), (3, [11.0, 11.1]), (5, [15.5, 15.6])];

fn small_k(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (k, today) in if trial.short { REQUESTS_IN_SHORT } else { REQUESTS } {
        for (names, today) in [20, 8].into_iter().zip(today) {
            let mut scenario = Scenario { dead: 0.3, k, ..network(trial) };
            scenario.config.query.k = k;
            scenario.answers.names = names;
            scenario.answers.told = Some(names);
            scenario.workload.lookups = if trial.short { 400 } else { 1_200 };
            let world = run(scenario)?;
            let (lookups, name) = (settled(&world), format!("k {k}, answers of {names}: "));
            figures.push(at_least(format!("{name}recall"), recall(&lookups), 0.998));
            figures.push(at_most(format!("{name}requests, of today's"), requests(&lookups) / today, 1.1));
        }
    }
    Ok(figures)
}

/// The recall of the closest `count`, of lookups that have looked for more.
fn recall_of_first(lookups: &[&LookupRun], count: usize) -> f64 {
    mean(lookups.iter().map(|lookup| {
        let distance = |key: Key64| key.distance(&lookup.target);
        let found = lookup.found.iter().map(|node| (distance(node.key()), 1.0));
        let mut all: Vec<_> =
            found.chain(lookup.missed.iter().map(|node| (distance(node.key()), 0.0))).collect();
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.iter().take(count).map(|(_, found)| found).sum::<f64>() / count as f64
    }))
}

/// Lookups of twenty nodes for so many results, without the first ones of each node.
fn for_results(trial: Trial, mut scenario: Scenario, results: usize) -> Result<(World, Vec<u32>), String> {
    scenario.workload.lookups = 0;
    scenario.k = results;
    let candidates = &mut scenario.config.query.max_candidates;
    *candidates = results.max(*candidates);
    let mut world = world(scenario)?;
    let nodes = living(&world, 20);
    let start = |number| Start::find(0, some_key(trial, number)).with_num_results(results);
    let (before, each) = if trial.short { (1, 3) } else { (5, 10) };
    rounds(&mut world, &nodes, before, 0.., start)?;
    let numbers = rounds(&mut world, &nodes, each, 1_000.., start)?;
    Ok((world, numbers))
}

fn short_answers(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (dead, state, least) in [(0.0, "healthy", 0.99), (0.3, "30 % dead", 0.98)] {
        // As many as the engine is told that answers name, and as many as it knows nothing of: by default it is told 20.
        for (told, name) in [(8, "told"), (20, "not told")] {
            let mut scenario = Scenario { dead, ..network(trial) };
            scenario.answers.names = 8;
            scenario.answers.told = Some(told);
            let world = run(scenario)?;
            let (lookups, name) = (settled(&world), format!("8 named, {name}, {state}: "));
            figures.push(at_least(format!("{name}recall"), recall(&lookups), least));
            figures.push(at_least(format!("{name}first 8"), recall_of_first(&lookups, 8), least));
        }
        for results in [30, 40, 100] {
            let (world, numbers) = for_results(trial, Scenario { dead, ..network(trial) }, results)?;
            let (lookups, name) = (numbered(&world, &numbers), format!("{results} results, {state}: "));
            figures.push(at_least(format!("{name}recall"), recall(&lookups), least));
            figures.push(stated(format!("{name}told Converged"), ended(&lookups, Outcome::Converged)));
        }
    }
    Ok(figures)
}

fn mostly_dead(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let worlds = [
        (0.0, "healthy", None, Some(0.99)),
        (0.3, "30 % dead", None, Some(0.95)),
        (0.6, "60 % dead", Some(0.98), Some(0.5)),
        (0.8, "80 % dead", Some(0.95), None),
    ];
    for (dead, name, least, told) in worlds {
        let mut scenario = Scenario { dead, ..network(trial) };
        // About twenty of them live.
        let count = (20.0 / (1.0 - dead)) as u32;
        scenario.workload.by = Who::Nodes((100..100 + count).collect());
        scenario.workload.lookups = 1_000;
        let world = run(scenario)?;
        let lookups = settled(&world);
        let goal = |name, value, least: Option<f64>| match least {
            Some(least) => at_least(name, value, least),
            None => stated(name, value),
        };
        figures.push(goal(format!("{name}: recall"), recall(&lookups), least));
        let converged = ended(&lookups, Outcome::Converged);
        figures.push(goal(format!("{name}: told Converged"), converged, told));
        let converged: Vec<_> =
            lookups.into_iter().filter(|lookup| ended(&[lookup], Outcome::Converged) > 0.0).collect();
        let all = converged.iter().filter(|lookup| lookup.missed.is_empty()).count();
        // Where none is told so, none is told wrongly.
        let right = if converged.is_empty() { 1.0 } else { all as f64 / converged.len() as f64 };
        figures.push(at_least(format!("{name}: of them right"), right, 0.98));
    }
    Ok(figures)
}

fn slow_on_purpose(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut scenario = Scenario { seed: trial.seed, check_invariants: false, ..Scenario::under_fire() };
    scenario.workload.lookups = if trial.short { 400 } else { 2_000 };
    scenario.link.round_trip = some_late(0.01);
    let figures: Figures = run(scenario)?.figures();
    Ok(vec![
        at_most("p50, s", figures.time.p50.as_secs_f64(), 0.8),
        at_least("recall", figures.recall, 0.99),
        stated("requests", figures.mean_requests),
    ])
}

fn fresh(trial: Trial) -> Result<Vec<Figure>, String> {
    let mut scenario = Scenario { dead: 0.3, ..network(trial) };
    scenario.workload.lookups = 0;
    let mut world = world(scenario)?;
    let nodes = living(&world, if trial.short { 50 } else { 200 });
    let numbers = rounds(&mut world, &nodes, 10, 0.., |number| Start::find(0, some_key(trial, number)))?;
    let all = numbered(&world, &numbers);
    let first: Vec<_> = all.iter().copied().take(nodes.len()).collect();
    Ok(vec![
        at_most("first: p50, s", seconds(&first, 0.5), 2.0),
        at_least("first: recall", recall(&first), 0.98),
        at_most("first ten: p50, s", seconds(&all, 0.5), 0.75),
        at_least("first ten: recall", recall(&all), 0.99),
    ])
}
