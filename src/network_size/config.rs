//! [`NetworkSizeConfig`]: which lookups an estimate is made of.

use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// Which lookups an estimate is made of, and how much of each.
///
/// Memory: `max_samples + 1` rows of `k` numbers of 8 bytes, and some 100 bytes and a key each; with the defaults
/// 40 kB. Rows are allocated as samples are recorded; once there are `max_samples`, nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkSizeConfig {
    /// k: the number of closest nodes of a lookup that are used. 1 to 1,024. Default: 20.
    pub k: usize,
    /// The maximum number of lookups that are stored; a further one replaces the oldest. At most 65,536.
    /// Default: 150.
    pub max_samples: usize,
    /// The minimum number of lookups for an estimate. 2 to `max_samples`. Default: 5.
    pub min_samples: usize,
    /// The maximum age of a lookup that is used, counted from its end. Longer than zero. Default: 2 h.
    pub max_age: Duration,
}

impl Default for NetworkSizeConfig {
    fn default() -> Self {
        Self { k: 20, max_samples: 150, min_samples: 5, max_age: Duration::from_secs(2 * 60 * 60) }
    }
}

impl NetworkSizeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.k), "network_size.k", "1 to 1,024")?;
        require(self.max_samples <= 65_536, "network_size.max_samples", "at most 65,536")?;
        let samples = 2..=self.max_samples;
        require(
            samples.contains(&self.min_samples),
            "network_size.min_samples",
            "2 to network_size.max_samples",
        )?;
        require(!self.max_age.is_zero(), "network_size.max_age", "longer than zero")
    }
}
