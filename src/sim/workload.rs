//! What the network is made to do: lookups, when, and by when they must be done.

use super::random::{Draw, Purpose, scaled};
use crate::error::{ConfigError, require};
use core::time::Duration;
use std::sync::Arc;

/// Lookups of uniformly random keys, each started by a random node that is there at the time.
///
/// Each lookup has a trace id of its own, made of the scenario's seed and the lookup's number.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How many lookups there are. Default: 200.
    pub lookups: u32,
    /// When the first begins, once the network is built. Default: at once.
    pub first: Duration,
    /// When the next begins. Default: every 600 s, so that no two of them meet.
    pub pace: Pace,
    /// How long each may take; `None` leaves it to the node's configuration. Default: none.
    pub deadline: Option<Duration>,
    /// How many of the lookups send a message to each node they visit, instead of asking for closer nodes only. 0 to
    /// 1. Default: 0.
    pub messages: f64,
    /// How many of the lookups are stopped by their caller, within a second, if they have not ended. 0 to 1. Default: 0.
    pub stopped: f64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            lookups: 200,
            first: Duration::ZERO,
            pace: Pace::Every(Duration::from_secs(600)),
            deadline: None,
            messages: 0.0,
            stopped: 0.0,
        }
    }
}

/// The time from one lookup's start to the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Always the same.
    Every(Duration),
    /// Exponential of this mean: starts are independent of each other (a Poisson process).
    Mean(Duration),
    /// Given: the first so long after [`Workload::first`], the others as they follow, in order. The last gap is used
    /// again where there are more lookups than times.
    At(Arc<[Duration]>),
}

impl Workload {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let deadline = self.deadline.is_none_or(|deadline| !deadline.is_zero());
        require(deadline, "workload.deadline", "longer than zero")?;
        require((0.0..=1.0).contains(&self.messages), "workload.messages", "0 to 1")?;
        require((0.0..=1.0).contains(&self.stopped), "workload.stopped", "0 to 1")?;
        require(self.pace.is_sound(), "workload.pace", "at least one time, all in order")
    }

    /// When the first lookup begins, counted from when the network is built.
    pub(crate) fn begins(&self) -> Duration {
        self.first + self.pace.first()
    }
}

impl Pace {
    /// Whether times are given, and in order, where they are to be.
    pub(crate) fn is_sound(&self) -> bool {
        if let Self::At(times) = self { !times.is_empty() && times.is_sorted() } else { true }
    }

    /// From the start of `number` to that of the next; `ids` name what it is the start of.
    pub(crate) fn gap<const N: usize>(&self, seed: u64, ids: [u64; N], number: u32) -> Duration {
        match self {
            Self::Every(gap) => *gap,
            Self::Mean(mean) => {
                let mut draw = Draw::new(seed, Purpose::Pace, ids);
                scaled(*mean, draw.exponential())
            }
            Self::At(times) => {
                let next = (number as usize + 1).min(times.len().saturating_sub(1));
                let gap = times.get(next.saturating_sub(1)..=next).unwrap_or_default();
                gap.last().zip(gap.first()).map_or(Duration::ZERO, |(end, begin)| end.saturating_sub(*begin))
            }
        }
    }

    /// The time of the first, where times are given.
    pub(crate) fn first(&self) -> Duration {
        match self {
            Self::At(times) => times.first().copied().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}
