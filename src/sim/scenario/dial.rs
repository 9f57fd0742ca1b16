//! [`Dial`]: the cost of a first contact.

use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// What a first contact costs: a request to a node without a connection takes longer by the time to connect. Both sides
/// keep the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dial {
    /// How many round trips it takes to connect, before the request is sent: TCP, Noise and Yamux take four. 0 to
    /// 1,000. Default: 4.
    pub round_trips: f64,
    /// A connection that was not used for so long is closed. Default: 10 min.
    pub idle: Duration,
    /// How many connections a node keeps; beyond it, the one that was used least recently is closed. At least 1.
    /// Default: 160.
    pub most: u32,
    /// Whether nodes are connected to those of their tables in the beginning. Default: true.
    pub tables: bool,
}

impl Default for Dial {
    fn default() -> Self {
        Self { round_trips: 4.0, idle: Duration::from_secs(600), most: 160, tables: true }
    }
}

impl Dial {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        require((0.0..=1_000.0).contains(&self.round_trips), "link.dial.round_trips", "0 to 1,000")?;
        require(self.most > 0, "link.dial.most", "at least 1")
    }
}
