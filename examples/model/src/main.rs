//! Visits all states of a scenario, and prints how many there are.
//!
//! `kad-model SCENARIO [--losses N] [--copies N] [--stops N] [--seconds N]`; the scenarios are `lookup`, `broadcast`, `bootstrap` and
//! `together`.

use kad_model::{Bounds, Model, REACHED, Scenario};
use kad_proto::Instant;
use lexopt::prelude::*;
use stateright::{Checker, Model as _};
use std::process::ExitCode;

fn bounds_and_name() -> Result<(String, Bounds), lexopt::Error> {
    let mut name = String::new();
    let mut bounds =
        Bounds { losses: 3, copies: 1, stops: 1, horizon: Instant::from_secs(21), checks: false };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("losses") => bounds.losses = arguments.value()?.parse()?,
            Long("copies") => bounds.copies = arguments.value()?.parse()?,
            Long("stops") => bounds.stops = arguments.value()?.parse()?,
            Long("checks") => bounds.checks = true,
            Long("seconds") => {
                bounds.horizon = Instant::from_secs(1 + arguments.value()?.parse::<u64>()?);
            }
            Value(value) => name = value.string()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((name, bounds))
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let (name, bounds) = bounds_and_name()?;
    let scenario =
        Scenario::named(&name, bounds).ok_or("which scenario? lookup, broadcast, bootstrap or together")?;
    let begin = std::time::Instant::now();
    let checker = Model::new(scenario)?.checker().spawn_dfs().join();
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begin.elapsed().as_secs_f64()
    );
    let mut holds = true;
    for (property, path) in checker.discoveries() {
        if !REACHED.contains(&property) {
            println!("does not hold: {property}\n{path}\n{:?}", Model::faults(path.last_state()));
            holds = false;
        }
    }
    for what in REACHED {
        println!("{what}: {}", if checker.discovery(what).is_some() { "reached" } else { "not reached" });
    }
    Ok(holds)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
