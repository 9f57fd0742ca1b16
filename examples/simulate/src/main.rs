//! Simulates a network and prints what came of its lookups:
//! `cargo run --release -p kad-simulate -- --help`.

// Figures and plots: small numbers.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod libp2p;
mod many;
mod options;
mod policies;
mod recordings;
mod report;
mod single;
mod strategies;

use kad_simulate::runner;
use kad_simulate::weather::{self, Format, Plan};
use options::{HELP, Options};
use std::error::Error;
use std::process::ExitCode;

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(path) = &options.replay {
        return recordings::replay(path);
    }
    if options.weather {
        return weather_table(options);
    }
    if let Some((name, scenario)) = options.named.as_ref().filter(|_| options.is_many()) {
        return many::run(name, &options.changes.apply(scenario.clone())?, options);
    }
    match &options.named {
        None if options.strategies => strategies::print(options),
        None => policies::print(options),
        Some((name, scenario)) => single::run(name, options.changes.apply(scenario.clone())?, options),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn weather_table(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let seeds = options.seeds.as_ref().map(|text| match text.parse::<u64>() {
        Ok(0) => Err("--seeds: at least 1".to_owned()),
        Ok(count) => runner::seeds(&format!("1..{count}")).map_err(|error| format!("--seeds: {error}")),
        Err(_) => runner::seeds(text).map_err(|error| format!("--seeds: {error}")),
    });
    let format = match (options.json, options.markdown, options.met) {
        (true, ..) => Format::Json,
        (_, true, _) => Format::Markdown,
        (.., true) => Format::Met,
        _ => Format::Text,
    };
    let kept = match &options.keep {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            text.lines().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let (names, short, threads) = (options.values.clone(), options.short, options.threads());
    let plan = Plan { names, seeds: seeds.transpose()?, short, threads, format, kept };
    Ok(weather::command(&weather::rows(), &plan, single::show)?)
}

fn main() -> ExitCode {
    let result = match Options::parse(lexopt::Parser::from_env()) {
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) => run(&options).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("kad-simulate: {message}");
            ExitCode::FAILURE
        }
    }
}
