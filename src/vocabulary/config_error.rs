//! [`ConfigError`]: a configuration field that is out of bounds.

use core::fmt;

/// A configuration that cannot be used: one field is out of bounds. Every constructor that takes a configuration
/// checks it and returns this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    bound: &'static str,
}

impl ConfigError {
    /// The field that is out of bounds, as section and name: `query.alpha`, `network.soft_timeout`.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The bound that the field must keep, in words that follow "must be": `longer than zero`, `1 to 2^30`.
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

/// Returns an error that names the field and its bound unless `holds`.
pub(crate) fn require(holds: bool, field: &'static str, bound: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field, bound }) }
}
