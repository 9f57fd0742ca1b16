//! What the trials of a row amount to.

use super::{Figure, Goal, Row};
use std::fmt;

/// How much worse than the goal the worst seed may be, as a share of the goal's value.
const TOLERANCE: f64 = 0.05;

/// A mean that misses its goal by less than this share of the goal's value has met it: what adding up loses.
const ROUNDING: f64 = 1e-9;

/// A row with all its trials.
pub(super) struct Report {
    pub(super) row: Row,
    /// How many trials there were.
    pub(super) seeds: usize,
    pub(super) figures: Vec<Summary>,
    /// What went wrong: a trial that failed, by its seed; figures that are not the same for all.
    pub(super) errors: Vec<String>,
}

/// A figure over all trials.
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) goal: Goal,
    pub(super) met: bool,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Stated => f.write_str("stated"),
        }
    }
}

impl Goal {
    /// Whether it is met by values of this mean, least and most.
    fn is_met(self, mean: f64, min: f64, max: f64) -> bool {
        match self {
            Self::AtLeast(goal) => {
                mean >= goal - goal.abs() * ROUNDING && min >= goal - goal.abs() * TOLERANCE
            }
            Self::AtMost(goal) => {
                mean <= goal + goal.abs() * ROUNDING && max <= goal + goal.abs() * TOLERANCE
            }
            Self::Stated => true,
        }
    }
}

impl Summary {
    fn of(name: String, goal: Goal, values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (min, max) = (min.min(*value), max.max(*value));
        }
        // A value that is no number makes a mean that is none, which meets no goal.
        Self { name, mean, min, max, goal, met: goal.is_met(mean, min, max) }
    }
}

impl Report {
    /// Of the trials of a row, each with its seed.
    pub(super) fn of(row: Row, trials: Vec<(u64, Result<Vec<Figure>, String>)>) -> Self {
        let seeds = trials.len();
        let (mut errors, mut all) = (Vec::new(), Vec::<(String, Goal, Vec<f64>)>::new());
        let mut succeeded = 0;
        for (seed, trial) in trials {
            match trial {
                Err(message) => errors.push(format!("seed {seed}: {message}")),
                Ok(figures) => {
                    succeeded += 1;
                    for Figure { name, value, goal } in figures {
                        match all.iter_mut().find(|(known, ..)| *known == name) {
                            None => all.push((name, goal, vec![value])),
                            Some((_, known, values)) if *known == goal => values.push(value),
                            Some(_) => errors.push(format!("seed {seed}: {name}: another goal, {goal}")),
                        }
                    }
                }
            }
        }
        for (name, _, values) in &all {
            if values.len() != succeeded {
                errors.push(format!("{name}: {} values of {succeeded} trials", values.len()));
            }
        }
        if all.is_empty() && errors.is_empty() {
            errors.push("no figures".to_owned());
        }
        let summary = |(name, goal, values): (String, Goal, Vec<f64>)| Summary::of(name, goal, &values);
        Self { row, seeds, figures: all.into_iter().map(summary).collect(), errors }
    }

    /// Whether all figures meet their goals, and nothing went wrong.
    pub(super) fn is_met(&self) -> bool {
        self.errors.is_empty() && self.figures.iter().all(|figure| figure.met)
    }

    /// The figures that have a goal and meet it.
    pub(super) fn met(&self) -> impl Iterator<Item = &Summary> {
        let failed = !self.errors.is_empty();
        self.figures.iter().filter(move |figure| figure.met && figure.goal != Goal::Stated && !failed)
    }

    /// Whether a goal that was reached is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.row.reached && !self.is_met()
    }

    /// All goals in one line.
    pub(super) fn goal(&self) -> String {
        let goals = self.figures.iter().filter(|figure| figure.goal != Goal::Stated);
        let goals: Vec<_> = goals.map(|figure| format!("{} {}", figure.name, figure.goal)).collect();
        goals.join("; ")
    }
}
