//! The command line.

use crate::recordings::Chosen;
use kad_proto::sim::Scenario;
use kad_simulate::runner::{self, Sweep};
use kad_simulate::{file, presets};
use lexopt::{Arg, Parser, ValueExt};
use std::num::NonZero;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Simulates a Kademlia network of real coordinators under virtual time, and prints what came of its lookups.

Usage: kad-simulate [PRESET | FILE.toml] [OPTIONS]
       kad-simulate PRESET | FILE.toml [--seeds SEEDS] [--sweep FIELD=VALUES]... [--csv FILE] [OPTIONS]
       kad-simulate --weather [ROW]... [--seeds N] [--short] [--json | --markdown | --met] [--keep FILE]
       kad-simulate --replay FILE

Without a preset or a file: a table of lookup policies in the workload \"under fire\", and in the same with nobody dead.

Presets:
  healthy       10,000 nodes, all well
  under-fire    the same, of which 30 % are dead; 2 % of all exchanges lost
  lossy         2 % of all exchanges lost
  publish       under fire: optimistic broadcasts store records
  join          1,000 nodes that come one by one, know 3 seeds, and keep their routing tables themselves
  kill          the same, of which 30 % die at once
  eclipse       the same, one of them amid 200 Sybils of one address group
  day           the same for 24 hours, coming and going as published of the public IPFS network
  ipfs          churn and hidden nodes as published of the public network; nodes keep their routing tables themselves
  hostile       20 % of the nodes lie in various ways
  partition     30 % of the nodes are cut off from the others for three minutes

Options:
  --nodes N           nodes, dead ones too, 1 to 8388608
  --lookups N         lookups
  --broadcasts N      broadcasts, where there are any; sweeps excepted
  --seed N            what all chance comes from [default: 1]
  --cold              nodes have measured no round trips before their first lookup
  --set KEY=VALUE     any field of a scenario file: link.loss=0.05, engine.alpha=5, churn.share=0.5,
                      link.round_trip={log-normal={median=\"80ms\",sigma=0.6}}; repeatable
  --baselines         in the table: the policies of other implementations too
  --strategies        instead: a table of the strategies of broadcasts, with 1,000 and 10,000 nodes, all well and under
                      fire; goes with --json and --report
  --check             check the contract's invariants at every step (debug builds always do)
  --json              print one JSON object
  --report DIR        write DIR/report.html, a page with plots
  --log               print every event
  --record NODE=FILE  record all that a node is told, a broken invariant included, and write it to FILE: its latest life,
                      where it begins anew whenever it comes. NODE is its number, from 0, or as events name it: '#4711';
                      repeatable
  --replay FILE       instead of a run: tell a fresh node what a recording says, and print the first difference in what
                      comes out, if there is one
  --help              print this

Many runs, on all cores; the results are the same, in the same order, whatever the cores do:
  --seeds SEEDS       one run for each of these seeds: 1..20 (both ends included), or a list: 1,5,9
  --sweep FIELD=A,B   one run for each of these values of a field of a scenario file, and each seed; repeatable, for all
                      combinations: --sweep engine.alpha=1,3,10 --sweep 'engine.request_timeout=\"1s\",\"2s\"'.
                      Commas in braces, brackets and quotes do not separate values
  --csv FILE          write the figures of every run, a line each: seed, swept values, all figures, fingerprint
  --csv-lookups FILE  every lookup of every run; so do --csv-broadcasts, and --csv-health for the measurements of the
                      tables. Times are in seconds. `swept.FIELD` and `seed` say which run it is
  --threads N         how many at once [default: as many as there are cores]
  Printed is a table: for each combination the means over its seeds, with their 95 % intervals (Student's t). With
  --json: one object a line for each run, with `events_per_s`.

The weather table: worlds in which the engine must hold, each with its figures, their goals, and a verdict:
  --weather [ROW]...  run these rows, or all. A figure is met where its mean meets the goal and no seed misses it by more
                      than 5 % of the goal's value (by anything, where the goal is 0)
  --seeds N           with the seeds 1 to N [default: 20]; or 3..9, or a list
  --short             the short form: smaller, 2 seeds, the rows that can be
  --json              one object a line for each row: row, world, figures, goal, met, reached, seeds, errors
  --markdown          as a table of the documentation
  --met               the figures that are met, a line each
  --keep FILE         fail where a figure of the rows that are run is missed, and is in this file, as --met has
                      written it
  --threads N         as above

Ctrl-C ends a single run with the figures so far. Exit code: 0, or 1 for errors: bad arguments, a broken invariant, a
difference, a recording that cannot be read, a row or a figure of the weather table that was reached
once and falls short.
";

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // switches
pub(crate) struct Options {
    /// `None`: the table of policies.
    pub(crate) named: Option<(String, Scenario)>,
    pub(crate) changes: Changes,
    pub(crate) baselines: bool,
    /// The table of broadcast strategies instead.
    pub(crate) strategies: bool,
    pub(crate) json: bool,
    pub(crate) log: bool,
    pub(crate) report: Option<PathBuf>,
    pub(crate) record: Vec<Chosen>,
    /// A recording to replay instead.
    pub(crate) replay: Option<PathBuf>,
    /// As given; what it means depends on what is run.
    pub(crate) seeds: Option<String>,
    pub(crate) sweeps: Vec<Sweep>,
    pub(crate) csv: CsvFiles,
    pub(crate) threads: Option<NonZero<usize>>,
    /// The weather table instead.
    pub(crate) weather: bool,
    /// Only the figures that are met.
    pub(crate) met: bool,
    /// A list of figures that must be met.
    pub(crate) keep: Option<PathBuf>,
    pub(crate) short: bool,
    pub(crate) markdown: bool,
    /// The arguments that are no options: a preset or a file; rows of the weather table.
    pub(crate) values: Vec<String>,
}

/// Where CSV goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CsvFiles {
    pub(crate) runs: Option<PathBuf>,
    pub(crate) lookups: Option<PathBuf>,
    pub(crate) broadcasts: Option<PathBuf>,
    pub(crate) health: Option<PathBuf>,
}

impl CsvFiles {
    fn any(&self) -> bool {
        let Self { runs, lookups, broadcasts, health } = self;
        [runs, lookups, broadcasts, health].iter().any(|path| path.is_some())
    }
}

/// The options with a value that are no part of a single run.
const LEFT_OUT: [&str; 9] = [
    "--seed",
    "--record",
    "--seeds",
    "--sweep",
    "--threads",
    "--csv",
    "--csv-lookups",
    "--csv-broadcasts",
    "--csv-health",
];

/// What the command line changes of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    nodes: Option<u32>,
    lookups: Option<u32>,
    broadcasts: Option<u32>,
    seed: Option<u64>,
    cold: bool,
    check: bool,
    settings: Vec<String>,
}

impl Changes {
    pub(crate) fn apply(&self, mut scenario: Scenario) -> Result<Scenario, String> {
        for setting in &self.settings {
            file::set(setting, &mut scenario)?;
        }
        scenario.nodes = self.nodes.unwrap_or(scenario.nodes);
        scenario.workload.lookups = self.lookups.unwrap_or(scenario.workload.lookups);
        if let (Some(count), Some(broadcasts)) = (self.broadcasts, &mut scenario.broadcasts) {
            // A sweep is one.
            if broadcasts.scheme.records() == 1 {
                broadcasts.count = count;
            }
        }
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        if self.cold {
            scenario.known_round_trips = 0;
        }
        scenario.check_invariants |= self.check;
        scenario.replay = Self::replay();
        scenario.validate().map_err(|error| error.to_string())?;
        Ok(scenario)
    }

    /// The command line that does the same with another seed, records nobody, and is a single run.
    fn replay() -> String {
        let mut skip = false;
        let others = std::env::args().skip(1).filter(|argument| {
            let given = |name: &&str| argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
            let value = core::mem::replace(&mut skip, LEFT_OUT.contains(&argument.as_str()));
            !(value || skip || LEFT_OUT.iter().any(given) || argument == "--check")
        });
        let quoted = others.map(|argument| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=".contains(c);
            if argument.chars().all(plain) { argument } else { format!("'{argument}'") }
        });
        let arguments: Vec<_> = quoted.chain(["--check --seed {seed}".to_owned()]).collect();
        format!("cargo run --release -p kad-simulate -- {}", arguments.join(" "))
    }
}

impl Options {
    /// Reads the arguments; `None` if help was asked for.
    ///
    /// # Errors
    /// Says which argument is wrong, and how.
    pub(crate) fn parse(mut parser: Parser) -> Result<Option<Self>, String> {
        let mut options = Self {
            named: None,
            changes: Changes::default(),
            baselines: false,
            strategies: false,
            json: false,
            log: false,
            report: None,
            record: Vec::new(),
            replay: None,
            seeds: None,
            sweeps: Vec::new(),
            csv: CsvFiles::default(),
            threads: None,
            weather: false,
            met: false,
            keep: None,
            short: false,
            markdown: false,
            values: Vec::new(),
        };
        loop {
            match options.take(&mut parser) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => break,
                Ok(None) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
        options.check()?;
        Ok(Some(options))
    }

    /// Whether there are many runs.
    pub(crate) fn is_many(&self) -> bool {
        self.seeds.is_some() || !self.sweeps.is_empty() || self.csv.any()
    }

    /// How many runs there are at once.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(runner::cores, NonZero::get)
    }

    /// Says which options do not go together, and reads the arguments that are no options.
    fn check(&mut self) -> Result<(), String> {
        let options = self;
        if !options.weather && (options.short || options.markdown || options.met || options.keep.is_some()) {
            return Err("--short, --markdown, --met and --keep go with --weather".to_owned());
        }
        if options.weather {
            let others = !options.sweeps.is_empty()
                || options.csv.any()
                || options.baselines
                || options.strategies
                || options.log
                || options.report.is_some()
                || !options.record.is_empty()
                || options.replay.is_some()
                || options.changes != Changes::default();
            let formats = [options.json, options.markdown, options.met];
            return match (others, formats.into_iter().filter(|is| *is).count() > 1) {
                (true, _) => {
                    let goes_with = "--seeds, --short, --json, --markdown, --met, --keep and --threads";
                    Err(format!("--weather goes with {goes_with} only"))
                }
                (_, true) => Err("--json or --markdown or --met".to_owned()),
                _ => Ok(()),
            };
        }
        if let [_, more, ..] = options.values.as_slice() {
            return Err(format!("unexpected argument \"{more}\""));
        }
        if let [name] = options.values.as_slice() {
            options.named = Some((name.clone(), named(name)?));
        }
        if options.is_many() {
            if options.named.is_none() {
                return Err("--seeds, --sweep and --csv need a preset or a scenario file".to_owned());
            }
            if options.log || options.report.is_some() || !options.record.is_empty() {
                return Err("--log, --report and --record go with a single run".to_owned());
            }
            if options.seeds.is_some() && options.changes.seed.is_some() {
                return Err("--seed or --seeds".to_owned());
            }
        } else if options.threads.is_some() {
            return Err("--threads goes with --seeds, --sweep, --csv and --weather".to_owned());
        }
        if options.named.is_none() && !options.record.is_empty() {
            return Err("--record needs a preset or a scenario file".to_owned());
        }
        if options.named.is_none() && !options.strategies && (options.json || options.report.is_some()) {
            return Err("--json and --report need a preset, a scenario file, or --strategies".to_owned());
        }
        if options.named.is_some() && (options.baselines || options.strategies) {
            return Err("--baselines and --strategies go with neither preset nor scenario file".to_owned());
        }
        Ok(())
    }

    /// Takes one argument. Says whether there was one; `None` if it asks for help.
    fn take(&mut self, parser: &mut Parser) -> Result<Option<bool>, lexopt::Error> {
        let changes = &mut self.changes;
        let Some(argument) = parser.next()? else { return Ok(Some(false)) };
        match argument {
            Arg::Long("nodes") => changes.nodes = Some(parser.value()?.parse()?),
            Arg::Long("lookups") => changes.lookups = Some(parser.value()?.parse()?),
            Arg::Long("seed") => changes.seed = Some(parser.value()?.parse()?),
            Arg::Long("cold") => changes.cold = true,
            Arg::Long("check") => changes.check = true,
            Arg::Long("set") => changes.settings.push(parser.value()?.string()?),
            Arg::Long("baselines") => self.baselines = true,
            Arg::Long("strategies") => self.strategies = true,
            Arg::Long("broadcasts") => changes.broadcasts = Some(parser.value()?.parse()?),
            Arg::Long("json") => self.json = true,
            Arg::Long("log") => self.log = true,
            Arg::Long("report") => self.report = Some(parser.value()?.into()),
            Arg::Long("record") => {
                let chosen = Chosen::read(&parser.value()?.string()?);
                self.record.push(chosen.map_err(|error| lexopt::Error::Custom(error.into()))?);
            }
            Arg::Long("replay") => self.replay = Some(parser.value()?.into()),
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long("seeds") => self.seeds = Some(parser.value()?.string()?),
            Arg::Long("sweep") => {
                let sweep = Sweep::parse(&parser.value()?.string()?);
                self.sweeps
                    .push(sweep.map_err(|error| lexopt::Error::Custom(format!("--sweep: {error}").into()))?);
            }
            Arg::Long("csv") => self.csv.runs = Some(parser.value()?.into()),
            Arg::Long("csv-lookups") => self.csv.lookups = Some(parser.value()?.into()),
            Arg::Long("csv-broadcasts") => self.csv.broadcasts = Some(parser.value()?.into()),
            Arg::Long("csv-health") => self.csv.health = Some(parser.value()?.into()),
            Arg::Long("threads") => self.threads = Some(parser.value()?.parse()?),
            Arg::Long("weather") => self.weather = true,
            Arg::Long("short") => self.short = true,
            Arg::Long("markdown") => self.markdown = true,
            Arg::Long("met") => self.met = true,
            Arg::Long("keep") => self.keep = Some(parser.value()?.into()),
            Arg::Value(value) => self.values.push(value.string()?),
            other => return Err(other.unexpected()),
        }
        Ok(Some(true))
    }
}

fn named(name: &str) -> Result<Scenario, String> {
    if let Some(scenario) = presets::named(name) {
        return Ok(scenario);
    }
    match std::fs::read_to_string(name) {
        Ok(text) => file::read(name, &text),
        Err(error) if name.contains(['.', '/']) => Err(format!("{name}: {error}")),
        Err(_) => Err(format!("`{name}` is neither a file nor one of {}", presets::NAMES.join(", "))),
    }
}
