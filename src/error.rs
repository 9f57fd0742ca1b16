//! [`ConfigError`]: what is wrong with a configuration.

use core::fmt;

/// A configuration that cannot be used. Every constructor that takes a configuration checks it and returns this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    bound: &'static str,
}

impl ConfigError {
    /// The field that is wrong, by its section and name: `query.alpha`, `network.soft_timeout`.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The bound that the field must keep.
    pub fn bound(&self) -> &'static str {
        self.bound
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.bound)
    }
}

impl core::error::Error for ConfigError {}

/// Fails with the field and its bound unless the bound holds.
pub(crate) fn require(holds: bool, field: &'static str, bound: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field, bound }) }
}
