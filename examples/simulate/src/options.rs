//! The command line.

use crate::recordings::Chosen;
use kad_proto::sim::Scenario;
use kad_simulate::{file, presets};
use lexopt::{Arg, Parser, ValueExt};
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Simulates a Kademlia network of real coordinators under virtual time, and prints what came of its lookups.

Usage: kad-simulate [PRESET | FILE.toml] [OPTIONS]
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
  ipfs          dead, slow and hidden nodes, and churn, as published of the public network
  hostile       20 % of the nodes lie in various ways
  partition     30 % of the nodes are cut off from the others for three minutes

Options:
  --nodes N           nodes, dead ones too, 2 to 8388608
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

Ctrl-C ends a run with the figures so far. Exit code: 0, or 1 for errors: bad arguments, a broken invariant, a
difference, a recording that cannot be read.
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
}

/// What the command line changes of a scenario.
#[derive(Clone, Debug, Default)]
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
        scenario.preseed_rtt &= !self.cold;
        scenario.check_invariants |= self.check;
        scenario.replay = Self::replay();
        scenario.validate().map_err(|error| error.to_string())?;
        Ok(scenario)
    }

    /// The command line that does the same with another seed, and records nobody.
    fn replay() -> String {
        let mut skip = false;
        let others = std::env::args().skip(1).filter(|argument| {
            let given = |name: &str| argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
            let value = core::mem::replace(&mut skip, ["--seed", "--record"].contains(&argument.as_str()));
            !(value || skip || given("--seed") || given("--record") || argument == "--check")
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
        };
        loop {
            match options.take(&mut parser) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => break,
                Ok(None) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
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
        Ok(Some(options))
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
            Arg::Value(value) if self.named.is_none() => {
                let name = value.string()?;
                let scenario = named(&name).map_err(|error| lexopt::Error::Custom(error.into()))?;
                self.named = Some((name, scenario));
            }
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
