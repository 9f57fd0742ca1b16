//! The table of lookup policies: this engine's and the fixed ones of other implementations.

use crate::libp2p;
use crate::options::Options;
use kad_proto::sim::{Figures, Scenario, World};
use kad_proto::{Config, RoutingConfig};
use std::error::Error;
use std::time::Duration;

/// Fixed policies as configurations: one peer time-out, no soft limit, nothing adapted, no second try.
fn fixed() -> [(&'static str, Config); 3] {
    [("alpha 3, 10 s", 10), ("Zikade: alpha 3, 60 s", 60), ("discv5: alpha 3, 2 s", 2)]
        .map(|(name, timeout)| (name, fixed_time_out(timeout)))
}

/// Alpha 3 with a fixed time-out of so many seconds.
pub(crate) fn fixed_time_out(timeout: u64) -> Config {
    let mut config = Config { routing: RoutingConfig::off(), ..Config::default() };
    config.network.request_timeout = Duration::from_secs(timeout);
    config.network.soft_timeout = config.network.request_timeout;
    config.network.min_timeout = config.network.request_timeout;
    config.query.timeout = Duration::from_secs(600);
    config.query.retries = 0;
    config.query.edge_probing = false;
    config
}

pub(crate) fn print(options: &Options) -> Result<(), Box<dyn Error>> {
    for (title, scenario) in [("under fire", Scenario::under_fire()), ("nobody dead", Scenario::lossy())] {
        println!(
            "{title:26} {:>8} {:>8} {:>8} {:>9} {:>6} {:>7}",
            "p50", "p90", "p99", "requests", "hops", "recall"
        );
        let scenario = options.changes.apply(scenario)?;
        let measured = world(options, scenario.clone())?;
        row("this engine", &measured.figures());
        if scenario.known_round_trips > 0 {
            let cold = world(options, Scenario { known_round_trips: 0, ..scenario.clone() })?;
            row("this engine, cold", &cold.figures());
        }
        if options.baselines {
            for (name, config) in fixed() {
                row(name, &world(options, Scenario { config, ..scenario.clone() })?.figures());
            }
            rust_libp2p(&measured)?;
        }
    }
    if options.baselines {
        println!(
            "\n\
             cold: nodes have measured no round trips before their first lookup.\n\
             alpha 3 with a fixed time-out, Zikade, discv5: this engine with the fixed time-out of that \
             implementation,\nno soft limit, no second try, no probing at the edge; its own way of widening on stall stays.\n\
             rust-libp2p: its closest-peers iterator rewritten, over the same lookups and the same draws."
        );
    }
    Ok(())
}

fn world(options: &Options, scenario: Scenario) -> Result<World, Box<dyn Error>> {
    let mut world = World::new(scenario)?;
    if options.log {
        world.set_log(|at, event| println!("{at} {event}"));
    }
    world.run()?;
    Ok(world)
}

fn row(name: &str, figures: &Figures) {
    let Figures { time, mean_requests, mean_hops, recall, .. } = figures;
    line(name, [time.p50, time.p90, time.p99], [*mean_requests, *mean_hops, *recall]);
}

fn line(name: &str, times: [Duration; 3], [requests, hops, recall]: [f64; 3]) {
    let [p50, p90, p99] = times.map(|time| time.as_secs_f64());
    println!("  {name:24} {p50:6.2} s {p90:6.2} s {p99:6.2} s {requests:9.1} {hops:6.2} {recall:7.4}");
}

/// The same lookups by the iterator of rust-libp2p, over the tables as they were in the beginning.
fn rust_libp2p(done: &World) -> Result<(), Box<dyn Error>> {
    let mut scenario = done.scenario().clone();
    scenario.workload.lookups = 0;
    let fresh = World::new(scenario)?;
    let outcomes: Vec<_> = done.lookups().iter().map(|lookup| libp2p::look_up(&fresh, lookup)).collect();
    let mut times: Vec<_> = outcomes.iter().map(|outcome| outcome.time).collect();
    times.sort_unstable();
    let quantile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default()
    };
    let mean = |figure: fn(&libp2p::Outcome) -> f64| {
        outcomes.iter().map(figure).sum::<f64>() / outcomes.len().max(1) as f64
    };
    let requests = mean(|outcome| f64::from(outcome.requests));
    let means = [requests, mean(|outcome| f64::from(outcome.hops)), mean(|outcome| outcome.recall)];
    line("rust-libp2p", [50, 90, 99].map(quantile), means);
    Ok(())
}
