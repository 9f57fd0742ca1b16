//! Many runs of a scenario: with several seeds, and with several values of its fields.

use crate::options::Options;
use crate::single::show;
use kad_proto::sim::Scenario;
use kad_simulate::csv::Csv;
use kad_simulate::runner::{self, Labels, RunResult};
use serde::Serialize;
use serde_json::{Map, Value};
use std::error::Error;
use std::fs::File;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A record of a run, with what says which run it is.
#[derive(Serialize)]
struct Line<'a, T> {
    seed: u64,
    swept: &'a Map<String, Value>,
    #[serde(flatten)]
    record: T,
}

/// What is printed of a run.
#[derive(Serialize)]
struct Printed<'a> {
    scenario: &'a str,
    #[serde(flatten)]
    run: Option<&'a runner::Run>,
    run_s: Option<f64>,
    events_per_s: Option<f64>,
    /// Why there are no figures.
    error: Option<&'a str>,
}

/// A CSV file that is written in the end.
struct Sheet {
    path: PathBuf,
    file: File,
    csv: Csv,
}

impl Sheet {
    /// Creates the file at once, as it would be a pity to fail in the end.
    fn create(path: Option<&PathBuf>) -> Result<Option<Self>, String> {
        let Some(path) = path else { return Ok(None) };
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Some(Self { path: path.clone(), file, csv: Csv::new() }))
    }

    fn write(self) -> Result<(), String> {
        self.csv.write(self.file).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// The sheets that are asked for.
struct Sheets {
    runs: Option<Sheet>,
    lookups: Option<Sheet>,
    broadcasts: Option<Sheet>,
    health: Option<Sheet>,
}

impl Sheets {
    fn push(&mut self, result: &RunResult, swept: &Map<String, Value>) -> Result<(), serde_json::Error> {
        let Ok(run) = &result.run else { return Ok(()) };
        let seed = result.seed;
        push(self.runs.as_mut(), seed, swept, core::slice::from_ref(run))?;
        push(self.lookups.as_mut(), seed, swept, &run.lookups)?;
        push(self.broadcasts.as_mut(), seed, swept, &run.broadcasts)?;
        push(self.health.as_mut(), seed, swept, &run.health)
    }
}

fn push<T: Serialize>(
    sheet: Option<&mut Sheet>,
    seed: u64,
    swept: &Map<String, Value>,
    records: &[T],
) -> Result<(), serde_json::Error> {
    let Some(sheet) = sheet else { return Ok(()) };
    records.iter().try_for_each(|record| sheet.csv.push(&Line { seed, swept, record }))
}

/// Swept values: numbers and truth values as such, others as their text.
fn values(labels: &Labels) -> Map<String, Value> {
    let value = |text: &str| match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::String(_))) => value,
        _ => Value::String(text.to_owned()),
    };
    labels.iter().map(|(field, text)| (field.clone(), value(text))).collect()
}

pub(crate) fn run(name: &str, base: &Scenario, options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let seeds = match &options.seeds {
        Some(text) => runner::seeds(text).map_err(|error| format!("--seeds: {error}"))?,
        None => vec![base.seed],
    };
    let variants = runner::combinations(base, &options.sweeps)?;
    let mut sheets = Sheets {
        runs: Sheet::create(options.csv.runs.as_ref())?,
        lookups: Sheet::create(options.csv.lookups.as_ref())?,
        broadcasts: Sheet::create(options.csv.broadcasts.as_ref())?,
        health: Sheet::create(options.csv.health.as_ref())?,
    };
    let (count, threads) = (variants.len() * seeds.len(), options.threads());
    let is_terminal = stderr().is_terminal();
    let (began, mut events, mut ran, mut failed) = (Instant::now(), 0, Duration::ZERO, 0);
    let mut results: Vec<RunResult> = Vec::new();
    let mut written: Result<(), Box<dyn Error>> = Ok(());
    runner::run_each(runner::with_seeds(&variants, &seeds), threads, |mut result| {
        let swept = values(&result.labels);
        if written.is_ok() {
            written = sheets.push(&result, &swept).map_err(Into::into);
        }
        if options.json && written.is_ok() {
            written = line(name, &result, &swept).and_then(|text| Ok(show(&text)?));
        }
        if is_terminal {
            eprint!("\r\x1b[K");
        }
        match &mut result.run {
            Ok(run) => {
                events += run.events;
                ran += run.took;
                // What is not needed for the table.
                (run.lookups, run.broadcasts, run.health) = (Vec::new(), Vec::new(), Vec::new());
            }
            Err(error) => {
                failed += 1;
                let labels = result.labels.iter().map(|(field, value)| format!("{field}={value}, "));
                eprintln!("{}seed {}: {error}", labels.collect::<String>(), result.seed);
            }
        }
        results.push(result);
        if is_terminal && results.len() < count {
            eprint!("{} of {count} runs", results.len());
            let _ = stderr().flush(); // a progress line that cannot be shown is no harm
        }
    });
    written?;
    let Sheets { runs, lookups, broadcasts, health } = sheets;
    [runs, lookups, broadcasts, health].into_iter().flatten().try_for_each(Sheet::write)?;
    if !options.json {
        let took = began.elapsed().as_secs_f64();
        // Without the building of the networks, as that of a single run.
        let rate = events as f64 / ran.as_secs_f64().max(1e-9) / 1e6;
        show(&format!(
            "scenario   {name}, {} combinations, {} seeds: means, with 95 % intervals over seeds\n{}\
             runs       {count} in {took:.2} s, {events} events, {rate:.2} M events/s on each of {threads} threads, {failed} failed\n",
            variants.len(),
            seeds.len(),
            runner::table(&results)
        ))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(name: &str, result: &RunResult, swept: &Map<String, Value>) -> Result<String, Box<dyn Error>> {
    let run = result.run.as_ref();
    let printed = Printed {
        scenario: name,
        run: run.ok(),
        run_s: run.ok().map(|run| run.took.as_secs_f64()),
        events_per_s: run.ok().map(runner::Run::events_per_second),
        error: run.err().map(String::as_str),
    };
    let text = serde_json::to_string(&Line { seed: result.seed, swept, record: printed })?;
    Ok(text + "\n")
}
