//! Simulates a network and prints what came of its lookups:
//! `cargo run --release --features sim --example simulate -- --help`.

// Figures and plots: small numbers.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod file;
mod libp2p;
mod options;
mod policies;
mod presets;
mod report;
mod single;
mod strategies;

use options::{HELP, Options};
use std::error::Error;
use std::process::ExitCode;

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    match &options.named {
        None if options.strategies => strategies::print(options),
        None => policies::print(options),
        Some((name, scenario)) => single::run(name, options.changes.apply(scenario.clone())?, options),
    }
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
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulate: {message}");
            ExitCode::FAILURE
        }
    }
}
