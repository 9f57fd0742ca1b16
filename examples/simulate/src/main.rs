//! Simulates a network and prints what came of its lookups:
//! `cargo run --release -p kad-simulate -- --help`.

// Figures and plots: small numbers.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod libp2p;
mod options;
mod policies;
mod recordings;
mod report;
mod single;
mod strategies;

use options::{HELP, Options};
use std::error::Error;
use std::process::ExitCode;

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(path) = &options.replay {
        return recordings::replay(path);
    }
    match &options.named {
        None if options.strategies => strategies::print(options),
        None => policies::print(options),
        Some((name, scenario)) => single::run(name, options.changes.apply(scenario.clone())?, options),
    }?;
    Ok(ExitCode::SUCCESS)
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
