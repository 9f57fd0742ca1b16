//! What several programs need: random numbers, what is to happen when, and figures.

use crate::weather::{Figure, Goal};
use kad_proto::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub(super) const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration from `least` to `most`.
    pub(super) fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }
}

/// What is to happen when; what is entered for the same instant happens in the order in which it was entered.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    entered: u64,
}

impl<T> Agenda<T> {
    pub(super) const fn new() -> Self {
        Self { entries: BTreeMap::new(), entered: 0 }
    }

    pub(super) fn enter(&mut self, at: Instant, what: T) {
        self.entries.insert((at, self.entered), what);
        self.entered += 1;
    }

    /// When the next is to happen.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn take_next(&mut self) -> Option<(Instant, T)> {
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }
}

pub(super) fn at_least(name: impl Into<String>, value: f64, bound: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::AtLeast(bound) }
}

pub(super) fn at_most(name: impl Into<String>, value: f64, bound: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::AtMost(bound) }
}

pub(super) fn stated(name: impl Into<String>, value: f64) -> Figure {
    Figure { name: name.into(), value, goal: Goal::Stated }
}
