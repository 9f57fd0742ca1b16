//! A figure over several seeds.

use core::fmt;

/// The mean, the least and the greatest of some values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Measures a value with each of these seeds.
    pub(crate) fn over(seeds: impl IntoIterator<Item = u64>, measure: impl FnMut(u64) -> f64) -> Self {
        Self::of(&seeds.into_iter().map(measure).collect::<Vec<_>>())
    }

    pub(crate) fn of(values: &[f64]) -> Self {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (min, max) = (min.min(*value), max.max(*value));
        }
        Self { mean: values.iter().sum::<f64>() / values.len() as f64, min, max }
    }

    /// Prints it under this name.
    pub(crate) fn print(self, name: &str) -> Self {
        println!("{name}: {self}");
        self
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {:.4}, min {:.4}, max {:.4}", self.mean, self.min, self.max)
    }
}

/// The first of two sizes with debug assertions, else the second.
pub(crate) const fn size<T: Copy>(debug: T, release: T) -> T {
    if cfg!(debug_assertions) { debug } else { release }
}
