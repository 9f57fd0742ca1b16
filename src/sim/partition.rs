//! Times at which some nodes cannot reach others.

use super::nodes::{Handle, mix};
use crate::error::{ConfigError, require};
use crate::time::Instant;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// Which nodes cannot reach each other, and when. A datagram between them is lost where it leaves.
#[derive(Clone)]
pub enum Partition {
    /// A share of the nodes is cut off from the others for some time.
    Split {
        /// The share. 0 to 1.
        share: f64,
        /// When it begins.
        from: Duration,
        /// When it ends.
        until: Duration,
    },
    /// Sender and receiver of a datagram that leaves at this instant are cut off where this function says so. It must
    /// depend on nothing else, or the run cannot be repeated.
    By(Arc<dyn Fn(Instant, Handle, Handle) -> bool + Send + Sync>),
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split { share, from, until } => {
                write!(f, "Split {{ share: {share}, from: {from:?}, until: {until:?} }}")
            }
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

impl Partition {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self::Split { share, from, until } = self else { return Ok(()) };
        require((0.0..=1.0).contains(share), "partition.share", "0 to 1")?;
        require(from <= until, "partition.until", "no earlier than partition.from")
    }

    /// Whether a datagram that leaves `from` now cannot reach `to`.
    pub(crate) fn cuts(&self, now: Instant, from: Handle, to: Handle) -> bool {
        match self {
            Self::By(function) => function(now, from, to),
            Self::Split { share, from: begin, until } => {
                // A hash of its own: neither where a node stands nor when it joined decides on which side it is.
                let side = |node: Handle| {
                    (mix(mix(u64::from(node.0))) >> 11) as f64 / (1_u64 << 53) as f64 <= *share
                };
                let since = now - Instant::ORIGIN;
                (*begin..*until).contains(&since) && side(from) != side(to)
            }
        }
    }
}
