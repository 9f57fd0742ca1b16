//! Simulates a network and prints what came of its lookups:
//! `cargo run --release --features sim --example simulate -- --help`.

use kad_proto::Config;
use kad_proto::sim::{Scenario, World};
use lexopt::{Arg, Parser, ValueExt};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
simulate [options]: lookups in the workload \"under fire\", and in the same with nobody dead

  --nodes N           nodes, dead ones too (10000)
  --lookups N         lookups, one at a time (200)
  --seed N            what all chance comes from (1)
  --cold              nodes have measured no round trips before their first lookup
  --baselines         the policies of other implementations too
  --figures           all figures
  --log               every event
of the engine's configuration:
  --alpha N  --k N  --beta N  --retries N  --paths N  --candidates N  --max-nodes N
  --soft MS           soft limit, in milliseconds
  --timeout MS        request timeout, in milliseconds";

struct Options {
    scenarios: [(&'static str, Scenario); 2],
    config: Config,
    baselines: bool,
    figures: bool,
    log: bool,
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut scenarios = [("under fire", Scenario::under_fire()), ("nobody dead", Scenario::lossy())];
    let mut config = Config::default();
    let (mut baselines, mut figures, mut log) = (false, false, false);
    let mut parser = Parser::from_env();
    let number = |parser: &mut Parser| parser.value()?.parse::<u32>();
    let size = |parser: &mut Parser| parser.value()?.parse::<usize>();
    let millis = |parser: &mut Parser| parser.value()?.parse().map(Duration::from_millis);
    while let Some(argument) = parser.next()? {
        let query = &mut config.pool.query;
        match argument {
            Arg::Long("nodes") => {
                let nodes = number(&mut parser)?;
                for (_, scenario) in &mut scenarios {
                    scenario.nodes = nodes;
                }
            }
            Arg::Long("lookups") => {
                let lookups = number(&mut parser)?;
                for (_, scenario) in &mut scenarios {
                    scenario.workload.lookups = lookups;
                }
            }
            Arg::Long("seed") => {
                let seed = parser.value()?.parse()?;
                for (_, scenario) in &mut scenarios {
                    scenario.seed = seed;
                }
            }
            Arg::Long("alpha") => query.alpha = size(&mut parser)?,
            Arg::Long("k") => query.k = size(&mut parser)?,
            Arg::Long("beta") => query.beta = Some(size(&mut parser)?),
            Arg::Long("retries") => query.retries = size(&mut parser)?,
            Arg::Long("paths") => query.paths = size(&mut parser)?,
            Arg::Long("candidates") => query.max_candidates = size(&mut parser)?,
            Arg::Long("max-nodes") => query.max_nodes = size(&mut parser)?,
            Arg::Long("soft") => config.network.soft_timeout = millis(&mut parser)?,
            Arg::Long("timeout") => config.network.request_timeout = millis(&mut parser)?,
            Arg::Long("cold") => {
                for (_, scenario) in &mut scenarios {
                    scenario.warm = false;
                }
            }
            Arg::Long("baselines") => baselines = true,
            Arg::Long("figures") => figures = true,
            Arg::Long("log") => log = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(Options { scenarios, config, baselines, figures, log }))
}

/// The fixed policies of other implementations, as far as a configuration can say them: one peer time-out, no soft
/// limit, no second try.
fn baselines() -> [(&'static str, Config); 3] {
    [("rust-libp2p, 10 s", 10), ("Zikade, 60 s", 60), ("discv5, 2 s", 2)].map(|(name, timeout)| {
        let mut config = Config::default();
        config.network.request_timeout = Duration::from_secs(timeout);
        config.network.soft_timeout = config.network.request_timeout;
        config.network.min_timeout = config.network.request_timeout;
        config.pool.query.timeout = Duration::from_secs(600);
        config.pool.query.retries = 0;
        (name, config)
    })
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut policies = vec![("this configuration", options.config)];
    if options.baselines {
        policies.extend(baselines());
    }
    for (title, scenario) in options.scenarios {
        println!(
            "{title:24} {:>8} {:>8} {:>8} {:>9} {:>6} {:>7}",
            "p50", "p90", "p99", "requests", "hops", "recall"
        );
        for (name, config) in &policies {
            let mut world = World::new(Scenario { config: config.clone(), ..scenario.clone() })?;
            if options.log {
                world.set_log(|at, event| println!("{at} {event}"));
            }
            world.run()?;
            let figures = world.figures();
            let [p50, p90, p99] =
                [figures.time.p50, figures.time.p90, figures.time.p99].map(|time| time.as_secs_f64());
            let (requests, hops, recall) = (figures.mean_requests, figures.mean_hops, figures.recall);
            println!(
                "  {name:22} {p50:6.2} s {p90:6.2} s {p99:6.2} s {requests:9.1} {hops:6.2} {recall:7.4}"
            );
            if options.figures {
                println!("{figures}");
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let result = match options() {
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) => run(options).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulate: {message}");
            ExitCode::FAILURE
        }
    }
}
