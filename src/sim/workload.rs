//! What the network is made to do: lookups, when, and by when they must be done.

use super::random::{Draw, Purpose, scaled};
use crate::error::{ConfigError, require};
use core::time::Duration;

/// Lookups of uniformly random keys, each started by a random node that is there at the time.
///
/// Each lookup has a trace id of its own, made of the scenario's seed and the lookup's number.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How many lookups there are. Default: 200.
    pub lookups: u32,
    /// When the first begins. Default: at once.
    pub first: Duration,
    /// When the next begins. Default: every 600 s, so that no two of them meet.
    pub pace: Pace,
    /// How long each may take; `None` leaves it to the node's configuration. Default: none.
    pub deadline: Option<Duration>,
    /// How many of the lookups send a message to each node they visit, instead of asking for closer nodes only. 0 to
    /// 1. Default: 0.
    pub messages: f64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            lookups: 200,
            first: Duration::ZERO,
            pace: Pace::Every(Duration::from_secs(600)),
            deadline: None,
            messages: 0.0,
        }
    }
}

/// The time from one lookup's start to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Always the same.
    Every(Duration),
    /// Exponential of this mean: starts are independent of each other (a Poisson process).
    Mean(Duration),
}

impl Workload {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let deadline = self.deadline.is_none_or(|deadline| !deadline.is_zero());
        require(deadline, "workload.deadline", "longer than zero")?;
        require((0.0..=1.0).contains(&self.messages), "workload.messages", "0 to 1")
    }

    /// From the start of lookup `number` to that of the next.
    pub(crate) fn gap(&self, seed: u64, number: u32) -> Duration {
        match self.pace {
            Pace::Every(gap) => gap,
            Pace::Mean(mean) => {
                let mut draw = Draw::new(seed, Purpose::Pace, [u64::from(number)]);
                scaled(mean, draw.exponential())
            }
        }
    }
}
