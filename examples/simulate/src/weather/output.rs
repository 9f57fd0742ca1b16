//! Runs rows of the table, and prints them.

use super::verdict::{Report, Summary};
use super::{Figure, Row, Trial};
use crate::work;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::io;
use std::process::ExitCode;

/// Which rows are run, how, and how they are printed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The names of the rows, in upper or lower case; empty for all.
    pub names: Vec<String>,
    /// The seeds; by default 1 to 20, in the short form 1 and 2. The first one only, for rows without chance.
    pub seeds: Option<Vec<u64>>,
    /// The short form: only the rows that are part of it.
    pub short: bool,
    /// How many trials run at once.
    pub threads: usize,
    /// How it is printed.
    pub format: Format,
    /// Figures that were met before, each as its row, a tab and its name: one that is missed now, in a row that is run, is
    /// lost.
    pub kept: Vec<String>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table for a terminal.
    Text,
    /// One JSON object a line, for each row.
    Json,
    /// The table of the documentation.
    Markdown,
    /// The figures that are met and have a goal, each in a line as its row, a tab and its name.
    Met,
}

/// Runs these rows, and prints each as soon as it and those before it are done. The exit code is a failure where a row
/// falls short that is marked as reached.
///
/// # Errors
/// A name that no row has; one that has no short form; no seeds; or what printing says.
pub fn command(
    rows: &[Row],
    plan: &Plan,
    mut print: impl FnMut(&str) -> io::Result<()>,
) -> Result<ExitCode, String> {
    let rows = chosen(rows, plan)?;
    let seeds = plan.seeds.clone().unwrap_or_else(|| (1..=if plan.short { 2 } else { 20 }).collect());
    let Some(first) = seeds.first() else { return Err("no seeds".to_owned()) };
    let seeds_of = |row: &Row| if row.seeded { seeds.as_slice() } else { core::slice::from_ref(first) };
    let mut jobs = Vec::new();
    for row in &rows {
        jobs.extend(seeds_of(row).iter().map(|&seed| (*row, Trial { seed, short: plan.short })));
    }
    let mut printed = print(header(plan.format));
    let mut trials = Vec::new();
    let (mut met, mut lost) = (0, Vec::<String>::new());
    let run = |(row, trial): &(Row, Trial)| work::caught(|| (row.run)(*trial));
    work::in_order(&jobs, plan.threads, run, |(row, trial), result: Result<Vec<Figure>, String>| {
        trials.push((trial.seed, result));
        if trials.len() < seeds_of(row).len() {
            return;
        }
        let report = Report::of(*row, core::mem::take(&mut trials));
        met += usize::from(report.is_met());
        lost.extend(report.is_lost().then(|| row.name.to_owned()));
        // A figure that is not there any more is lost, too.
        let met_now: Vec<_> = report.met().map(|figure| line_of(row, figure)).collect();
        let of_row = |line: &&String| line.split_once('\t').is_some_and(|(name, _)| name == row.name);
        lost.extend(plan.kept.iter().filter(of_row).filter(|line| !met_now.contains(line)).cloned());
        let text = match plan.format {
            Format::Text => as_text(&report),
            Format::Json => format!("{}\n", as_json(&report)),
            Format::Markdown => as_markdown(&report),
            Format::Met => report.met().map(|figure| line_of(row, figure) + "\n").collect(),
        };
        if printed.is_ok() {
            printed = print(&text);
        }
    });
    if plan.format == Format::Text && printed.is_ok() {
        let mut text = format!("{met} of {} rows are met\n", rows.len());
        for lost in &lost {
            let _ = writeln!(text, "lost, though reached before: {}", lost.replace('\t', ": ")); // a string takes all
        }
        printed = print(&text);
    }
    printed.map_err(|error| error.to_string())?;
    Ok(if lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a figure is named in a list of those that are met.
fn line_of(row: &Row, figure: &Summary) -> String {
    format!("{}\t{}", row.name, figure.name)
}

fn chosen(rows: &[Row], plan: &Plan) -> Result<Vec<Row>, String> {
    for name in &plan.names {
        let mut named = rows.iter().filter(|row| row.name.eq_ignore_ascii_case(name)).peekable();
        if named.peek().is_none() {
            let all: Vec<_> = rows.iter().map(|row| row.name).collect();
            return Err(format!("`{name}` is no row of the weather table; they are: {}", all.join(", ")));
        }
        if plan.short && !named.any(|row| row.in_short) {
            return Err(format!("`{name}` is not part of the short form"));
        }
    }
    let is_named = |row: &&Row| {
        plan.names.is_empty() || plan.names.iter().any(|name| row.name.eq_ignore_ascii_case(name))
    };
    Ok(rows.iter().filter(is_named).filter(|row| row.in_short || !plan.short).copied().collect())
}

fn header(format: Format) -> &'static str {
    match format {
        Format::Text => {
            "row  figure                                    mean  [least, most]             goal        verdict\n"
        }
        Format::Json | Format::Met => "",
        Format::Markdown => {
            "| row | world | figure | mean | least | most | goal | verdict |\n\
             | --- | --- | --- | ---: | ---: | ---: | --- | --- |\n"
        }
    }
}

/// The verdict on a figure in a word.
fn verdict(figure: &Summary) -> &'static str {
    match (figure.goal, figure.met) {
        (super::Goal::Stated, _) => "",
        (_, true) => "met",
        (_, false) => "missed",
    }
}

/// A number with about four digits.
fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        return format!("{value:.0}");
    }
    match size {
        1_000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        1.0.. => format!("{value:.3}"),
        1e-3.. => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

fn as_text(report: &Report) -> String {
    let mut out = String::new();
    let state = match (report.is_met(), report.row.reached) {
        (true, true) => "met",
        (true, false) => "met, and not marked as reached",
        (false, true) => "LOST",
        (false, false) => "not met",
    };
    let trials = if report.seeds == 1 { "once".to_owned() } else { format!("{} seeds", report.seeds) };
    let mut lines = vec![format!("{:4} {} ({trials}): {state}", report.row.name, report.row.world)];
    for figure in &report.figures {
        let [mean, min, max] = [figure.mean, figure.min, figure.max].map(number);
        let (name, goal, range) = (&figure.name, figure.goal.to_string(), format!("[{min}, {max}]"));
        let line = format!("     {name:36} {mean:>9}  {range:24}  {goal:10}  {}", verdict(figure));
        lines.push(line.trim_end().to_owned());
    }
    lines.extend(report.errors.iter().map(|error| format!("     {error}")));
    for line in lines {
        let _ = writeln!(out, "{line}"); // a string takes all
    }
    out
}

fn as_json(report: &Report) -> Value {
    let figures: Map<_, _> = report
        .figures
        .iter()
        .map(|figure| {
            let Summary { mean, min, max, goal, met, .. } = figure;
            let value = json!({ "mean": mean, "min": min, "max": max, "goal": goal.to_string(), "met": met });
            (figure.name.clone(), value)
        })
        .collect();
    json!({
        "row": report.row.name,
        "world": report.row.world,
        "figures": figures,
        "goal": report.goal(),
        "met": report.is_met(),
        "reached": report.row.reached,
        "seeds": report.seeds,
        "errors": report.errors,
    })
}

fn as_markdown(report: &Report) -> String {
    let plain = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut out = String::new();
    let (mut row, mut world) = (report.row.name.to_owned(), plain(report.row.world));
    for figure in &report.figures {
        let [mean, min, max] = [figure.mean, figure.min, figure.max].map(number);
        let (name, goal) = (plain(&figure.name), figure.goal);
        let verdict = verdict(figure);
        let _ = writeln!(out, "| {row} | {world} | {name} | {mean} | {min} | {max} | {goal} | {verdict} |"); // as above
        (row, world) = (String::new(), String::new());
    }
    for error in &report.errors {
        let _ = writeln!(out, "| {row} | {world} | {} | | | | | failed |", plain(error));
        (row, world) = (String::new(), String::new());
    }
    out
}
