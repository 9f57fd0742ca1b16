//! The weather table: worlds in which the engine must hold, each with its figures and their goals.
//!
//! A [`Row`] is a network, or a small program, that is run with several seeds. A figure is **met** where its mean over
//! the seeds meets the goal, and no seed misses it by more than 5 % of the goal's value: by anything at all where the
//! goal is 0. A row is met where all its figures are, and no trial failed. [`command`] runs rows and prints
//! them; it fails where a row falls short that is marked as [reached](Row::reached).

// Times of the scenarios: constants.
#![allow(clippy::unchecked_time_subtraction)]

mod lookups;
mod measure;
mod newcomers;
mod outages;
mod output;
pub mod programs;
mod records;
mod tables;
mod trouble;
mod verdict;

pub use output::{Format, Plan, command};

/// How a row is run.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What all chance comes from.
    pub seed: u64,
    /// Whether it is to be the short form: smaller, for continuous integration.
    pub short: bool,
}

/// What came of a trial: one of several numbers, each with its goal.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is, with its unit: `p50, s`. The same, with the same goal, for every seed.
    pub name: String,
    /// The value.
    pub value: f64,
    /// What it is to be.
    pub goal: Goal,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// No goal: the figure is only stated, and counts as met.
    Stated,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name: `L1`.
    pub name: &'static str,
    /// The world, in a few words.
    pub world: &'static str,
    /// Whether the engine has met its goals: from then on it must.
    pub reached: bool,
    /// Whether it is part of the short form.
    pub in_short: bool,
    /// Whether chance plays a part. Otherwise it is run once.
    pub seeded: bool,
    /// Runs it, and says what came of it, or why nothing did.
    pub run: fn(Trial) -> Result<Vec<Figure>, String>,
}

/// All rows, in the order of the table: lookups, tables, records.
pub fn rows() -> Vec<Row> {
    let mut rows = [lookups::ROWS, tables::ROWS, records::ROWS, &programs::ROWS].concat();
    rows.sort_by_key(|row| {
        let (letter, number) = row.name.split_at(1);
        ("fLTR".find(letter), number.parse::<u32>().unwrap_or_default())
    });
    rows
}
