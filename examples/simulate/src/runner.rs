//! Many runs at once: the same scenario with several seeds, and with several values of its fields.
//!
//! ```
//! use kad_proto::sim::{Scenario, Workload};
//! use kad_simulate::runner::{self, Interval, Sweep};
//!
//! let workload = Workload { lookups: 10, ..Workload::default() };
//! let base = Scenario { nodes: 100, workload, ..Scenario::default() };
//! let variants = runner::combinations(&base, &[Sweep::parse("engine.alpha=1,3")?])?;
//! let runs = runner::run(runner::with_seeds(&variants, &[1, 2, 3]), runner::cores());
//! for of_one_alpha in runs.chunks(3) {
//!     let recalls: Vec<_> = of_one_alpha.iter().flat_map(|it| &it.run).map(|run| run.figures.recall).collect();
//!     println!("{:?}: recall {}", of_one_alpha[0].labels, Interval::of(&recalls));
//! }
//! # Ok::<(), String>(())
//! ```

use crate::{file, work};
use kad_proto::Instant;
use kad_proto::sim::{BroadcastFigures, BroadcastRun, Figures, Health, LookupRun, Scenario, World};
use serde::{Serialize, Serializer};
use std::fmt::{self, Write};
use std::time::Duration;

/// What is particular to a run: swept fields and their values.
pub type Labels = Vec<(String, String)>;

/// The most seeds that [`seeds`] takes.
const MAX_SEEDS: u64 = 100_000;

/// One run, or why there is none.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// As given with the scenario.
    pub labels: Labels,
    /// The seed of the scenario.
    pub seed: u64,
    /// What came of it. Otherwise: a field out of bounds, a broken invariant of the contract, or a panic.
    pub run: Result<Run, String>,
}

/// What came of a run. Serialised flat: its [`Figures`], those of its broadcasts as `broadcasts`, `fingerprint`,
/// `events` and `virtual_s`. Neither the lists nor real time are serialised, so that the same run has the same text.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Statistics of its lookups.
    #[serde(flatten)]
    pub figures: Figures,
    /// Statistics of its broadcasts, if the scenario has any.
    #[serde(rename = "broadcasts")]
    pub broadcast_figures: Option<BroadcastFigures>,
    /// All lookups.
    #[serde(skip)]
    pub lookups: Vec<LookupRun>,
    /// All broadcasts.
    #[serde(skip)]
    pub broadcasts: Vec<BroadcastRun>,
    /// All measurements of the routing tables.
    #[serde(skip)]
    pub health: Vec<Health>,
    /// A hash of all events and their times, serialised as 16 hexadecimal digits.
    #[serde(serialize_with = "hexadecimal")]
    pub fingerprint: u64,
    /// How many events there were.
    pub events: u64,
    /// How long the run took in virtual time, in seconds.
    pub virtual_s: f64,
    /// How long the run took in real time, without the building of the network.
    #[serde(skip)]
    pub took: Duration,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn hexadecimal<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{number:016x}"))
}

impl Run {
    /// Runs a scenario to its end.
    ///
    /// # Errors
    /// Says which field of the scenario is out of bounds, or which invariant does not hold.
    pub fn of(scenario: Scenario) -> Result<Self, String> {
        let mut world = World::new(scenario).map_err(|error| error.to_string())?;
        let began = std::time::Instant::now();
        world.run().map_err(|violation| violation.to_string())?;
        Ok(Self {
            took: began.elapsed(),
            figures: world.figures(),
            broadcast_figures: world.scenario().broadcasts.as_ref().map(|_| world.broadcast_figures()),
            lookups: world.lookups().to_vec(),
            broadcasts: world.broadcasts().to_vec(),
            health: world.health().to_vec(),
            fingerprint: world.fingerprint(),
            events: world.events(),
            virtual_s: (world.now() - Instant::ORIGIN).as_secs_f64(),
        })
    }

    /// Events per second of real time.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// As many threads as there are cores.
pub fn cores() -> usize {
    work::cores()
}

/// Runs all scenarios on so many threads. The results are in the order of the scenarios, whatever the threads do.
pub fn run(scenarios: impl Iterator<Item = (Labels, Scenario)>, threads: usize) -> Vec<RunResult> {
    let mut results = Vec::new();
    run_each(scenarios, threads, |result| results.push(result));
    results
}

/// As [`run`], but hands out each result as soon as those before it are done.
pub fn run_each(
    scenarios: impl Iterator<Item = (Labels, Scenario)>,
    threads: usize,
    mut each: impl FnMut(RunResult),
) {
    let jobs: Vec<_> = scenarios.collect();
    let work = |(_, scenario): &(Labels, Scenario)| work::caught(|| Run::of(scenario.clone()));
    work::in_order(&jobs, threads, work, |(labels, scenario), run| {
        each(RunResult { labels: labels.clone(), seed: scenario.seed, run });
    });
}

/// Each of these scenarios with each of these seeds; the seeds of one scenario follow each other.
pub fn with_seeds<'a>(
    scenarios: &'a [(Labels, Scenario)],
    seeds: &'a [u64],
) -> impl Iterator<Item = (Labels, Scenario)> + 'a {
    scenarios.iter().flat_map(move |(labels, scenario)| {
        seeds.iter().map(move |&seed| (labels.clone(), Scenario { seed, ..scenario.clone() }))
    })
}

/// Reads seeds: `7`, or a list of seeds and of ranges that include both ends: `1..20,33`.
///
/// # Errors
/// Says what is wrong: no number, an empty range, a seed that is there twice, or more than 100,000.
pub fn seeds(text: &str) -> Result<Vec<u64>, String> {
    let number = |word: &str| {
        word.trim().parse::<u64>().map_err(|_| format!("`{word}` is no seed such as 7, 1..20 or 1,5,9"))
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("`{part}` is empty: {first} is more than {last}"));
        }
        if last - first >= MAX_SEEDS || all.len() as u64 + (last - first) >= MAX_SEEDS {
            return Err(format!("`{text}` is more than 100,000 seeds"));
        }
        all.extend(first..=last);
    }
    let mut sorted = all.clone();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(format!("seed {} is there twice", pair.first().copied().unwrap_or_default())),
        None => Ok(all),
    }
}

/// A field of a scenario file, and the values that it takes one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The field, as [`file::set`] takes it: `engine.alpha`.
    pub field: String,
    /// Its values, as TOML.
    pub values: Vec<String>,
}

impl Sweep {
    /// Reads `engine.alpha=1,3,5`. Commas inside braces, brackets and quotes do not separate values.
    ///
    /// # Errors
    /// Says what is wrong, and of which field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (field, list) =
            text.split_once('=').ok_or_else(|| format!("{text}: no values: write {text}=1,2"))?;
        let field = field.trim();
        match field {
            "" => return Err(format!("{text}: no field: write engine.alpha=1,2")),
            "seed" => return Err("seed: give seeds by --seeds".to_owned()),
            _ => {}
        }
        let values = split(list).map_err(|what| format!("{field}: {what} in `{list}`"))?;
        if values.iter().any(String::is_empty) {
            return Err(format!("{field}: an empty value in `{list}`"));
        }
        let again = (1..values.len()).find(|&at| values.iter().take(at).any(|it| Some(it) == values.get(at)));
        if let Some(value) = again.and_then(|at| values.get(at)) {
            return Err(format!("{field}: `{value}` is there twice"));
        }
        Ok(Self { field: field.to_owned(), values })
    }
}

/// Splits a list at the commas that are in no braces, brackets or quotes.
fn split(list: &str) -> Result<Vec<String>, String> {
    let (mut values, mut value) = (Vec::new(), String::new());
    let (mut open, mut quote, mut escaped) = (Vec::new(), None, false);
    for next in list.chars() {
        if let Some(mark) = quote {
            if escaped {
                escaped = false;
            } else if next == mark {
                quote = None;
            } else {
                escaped = mark == '"' && next == '\\';
            }
        } else {
            match next {
                '"' | '\'' => quote = Some(next),
                '{' => open.push('}'),
                '[' => open.push(']'),
                '}' | ']' if open.pop() != Some(next) => return Err(format!("`{next}` closes nothing")),
                ',' if open.is_empty() => {
                    values.push(core::mem::take(&mut value).trim().to_owned());
                    continue;
                }
                _ => {}
            }
        }
        value.push(next);
    }
    if let Some(missing) = quote.or_else(|| open.pop()) {
        return Err(format!("`{missing}` is missing"));
    }
    values.push(value.trim().to_owned());
    Ok(values)
}

/// All combinations of the values of these fields, the last one changing first: each as labels, and the scenario
/// with these values. One without labels if nothing is swept.
///
/// # Errors
/// Names the field that there is not, that has no such value, or whose value is out of bounds.
pub fn combinations(base: &Scenario, sweeps: &[Sweep]) -> Result<Vec<(Labels, Scenario)>, String> {
    for (at, sweep) in sweeps.iter().enumerate() {
        if sweeps.iter().take(at).any(|other| other.field == sweep.field) {
            return Err(format!("--sweep: {}: is swept twice", sweep.field));
        }
    }
    let mut all = vec![(Labels::new(), base.clone())];
    for Sweep { field, values } in sweeps {
        let mut longer = Vec::new();
        for (labels, scenario) in &all {
            for value in values {
                let (mut labels, mut scenario) = (labels.clone(), scenario.clone());
                let setting = format!("{field}={value}");
                file::set(&setting, &mut scenario).map_err(|error| {
                    // The place in a setting is no news.
                    let text = error.strip_prefix("--set").unwrap_or(&error);
                    let text = text.strip_prefix(":1").unwrap_or(text);
                    format!("--sweep{text}")
                })?;
                if !scenario.replay.is_empty() {
                    let _ = write!(scenario.replay, " --set '{setting}'"); // a string takes all
                }
                labels.push((field.clone(), value.clone()));
                longer.push((labels, scenario));
            }
        }
        all = longer;
    }
    for (labels, scenario) in &all {
        scenario.validate().map_err(|error| {
            let what: Vec<_> = labels.iter().map(|(field, value)| format!("{field}={value}")).collect();
            format!("--sweep: {}: {error}", what.join(", "))
        })?;
    }
    Ok(all)
}

/// The mean of independent values, and its 95 % confidence interval by Student's t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean; NaN of no values.
    pub mean: f64,
    /// The interval is the mean plus and minus this; `None` of fewer than two values.
    pub half: Option<f64>,
}

impl Interval {
    /// Of these values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let half = (values.len() > 1)
            .then(|| student_t(values.len() - 1) * (squares / (count - 1.0)).sqrt() / count.sqrt());
        Self { mean, half }
    }
}

impl fmt::Display for Interval {
    /// With the precision of the formatter, by default 4 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(4);
        match self.half {
            Some(half) => write!(f, "{:.digits$} ± {half:.digits$}", self.mean),
            None => write!(f, "{:.digits$}", self.mean),
        }
    }
}

/// The 97.5 % quantile of Student's t with so many degrees of freedom, 1 or more.
fn student_t(freedom: usize) -> f64 {
    const FIRST: [f64; 30] = [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788,
        2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
        2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
    ];
    // From 31 on, the expansion around the normal quantile (Abramowitz and Stegun, 26.7.5), to 0.0001.
    let (z, n) = (1.959_964_f64, freedom as f64);
    let expansion =
        || z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    FIRST.get(freedom.wrapping_sub(1)).copied().unwrap_or_else(expansion)
}

/// A column of a table: its name, how many digits its values have, and what it is of a run.
type Column = (&'static str, usize, fn(&Run) -> f64);

const LOOKUPS: [Column; 6] = [
    ("p50, s", 3, |run| run.figures.time.p50.as_secs_f64()),
    ("p90, s", 3, |run| run.figures.time.p90.as_secs_f64()),
    ("p99, s", 3, |run| run.figures.time.p99.as_secs_f64()),
    ("requests", 2, |run| run.figures.mean_requests),
    ("recall", 4, |run| run.figures.recall),
    ("success", 4, |run| run.figures.success),
];

const BROADCASTS: [Column; 6] = [
    ("return p50, s", 3, |run| of_broadcasts(run, |figures| figures.time.p50.as_secs_f64())),
    ("p99, s", 3, |run| of_broadcasts(run, |figures| figures.time.p99.as_secs_f64())),
    ("finds", 2, |run| of_broadcasts(run, |figures| figures.finds)),
    ("copies", 2, |run| of_broadcasts(run, |figures| figures.stores)),
    ("share", 4, |run| of_broadcasts(run, |figures| figures.share)),
    ("success", 4, |run| of_broadcasts(run, |figures| figures.success)),
];

fn of_broadcasts(run: &Run, figure: fn(&BroadcastFigures) -> f64) -> f64 {
    run.broadcast_figures.as_ref().map_or(f64::NAN, figure)
}

/// A table with a line for each combination of labels: the means over its runs, with their 95 % intervals. Lookups,
/// and then broadcasts, if there are any. Runs that failed do not count.
pub fn table(results: &[RunResult]) -> String {
    let mut groups: Vec<(&Labels, Vec<&Run>)> = Vec::new();
    for result in results {
        let Ok(run) = &result.run else { continue };
        match groups.iter_mut().find(|(labels, _)| **labels == result.labels) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((&result.labels, vec![run])),
        }
    }
    let any = |has: fn(&Run) -> bool| groups.iter().any(|(_, runs)| runs.iter().any(|run| has(run)));
    let mut out = String::new();
    if any(|run| run.figures.lookups > 0) || !any(|run| run.broadcast_figures.is_some()) {
        out.push_str(&lines(&groups, &LOOKUPS));
    }
    if any(|run| run.broadcast_figures.is_some()) {
        out.push_str(&lines(&groups, &BROADCASTS));
    }
    out
}

fn lines(groups: &[(&Labels, Vec<&Run>)], columns: &[Column]) -> String {
    let fields = groups.first().map(|(labels, _)| labels.as_slice()).unwrap_or_default();
    let header = fields.iter().map(|(field, _)| field.clone());
    let names = columns.iter().map(|(name, ..)| (*name).to_owned());
    let mut cells: Vec<Vec<String>> = vec![header.chain(["runs".to_owned()]).chain(names).collect()];
    for (labels, runs) in groups {
        let values = labels.iter().map(|(_, value)| value.clone());
        let figures = columns.iter().map(|(_, digits, figure)| {
            let values: Vec<_> = runs.iter().map(|run| figure(run)).collect();
            format!("{:.digits$}", Interval::of(&values))
        });
        cells.push(values.chain([runs.len().to_string()]).chain(figures).collect());
    }
    let width = |column: usize| {
        cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..fields.len() + 1 + columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        padded.collect::<Vec<_>>().join("  ") + "\n"
    };
    cells.iter().map(line).collect()
}
