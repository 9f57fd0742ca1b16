//! [`Interarrival`]: when lookups and broadcasts begin.

use crate::sim::random::{Random, Stream, scaled};
use core::time::Duration;
use std::sync::Arc;

/// The time from one start to the next one, of lookups or of broadcasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interarrival {
    /// Always the same.
    Every(Duration),
    /// Exponential with this mean: starts are independent of each other (a Poisson process).
    Mean(Duration),
    /// These times, in ascending order, counted from the field `first` of [`Workload`](crate::sim::Workload) or
    /// [`Broadcasts`](crate::sim::Broadcasts). The last gap is repeated where there are more starts than times.
    At(Arc<[Duration]>),
}

impl Interarrival {
    /// Whether a list of times is not empty and in order.
    pub(crate) fn is_valid(&self) -> bool {
        if let Self::At(times) = self { !times.is_empty() && times.is_sorted() } else { true }
    }

    /// From start `number` to the next one; `ids` identify the random stream of this start.
    pub(crate) fn gap<const N: usize>(&self, seed: u64, ids: [u64; N], number: u32) -> Duration {
        match self {
            Self::Every(gap) => *gap,
            Self::Mean(mean) => {
                let mut random = Random::new(seed, Stream::Interarrival, ids);
                scaled(*mean, random.exponential())
            }
            Self::At(times) => {
                let next = (number as usize + 1).min(times.len().saturating_sub(1));
                let gap = times.get(next.saturating_sub(1)..=next).unwrap_or_default();
                gap.last().zip(gap.first()).map_or(Duration::ZERO, |(end, begin)| end.saturating_sub(*begin))
            }
        }
    }

    /// The first time of a list; otherwise zero.
    pub(crate) fn first(&self) -> Duration {
        match self {
            Self::At(times) => times.first().copied().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}
