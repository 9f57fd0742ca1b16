//! [`Partition`]: periods in which some nodes cannot reach others.

use crate::sim::network::handle::Handle;
use crate::sim::split_mix::mix;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// Which nodes cannot reach each other, and when. A datagram between them is lost when it is sent.
#[derive(Clone)]
pub enum Partition {
    /// A share of the nodes is separated from the others for some time.
    Split {
        /// The share. 0 to 1.
        share: f64,
        /// When the partition begins, from time zero of the run.
        from: Duration,
        /// When it ends, from time zero of the run; not before `from`.
        until: Duration,
    },
    /// Whether a datagram sent at this instant, from this node to that one, is lost. The function must depend on
    /// nothing else, or the run cannot be repeated.
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

    /// Whether a datagram that `from` sends now cannot reach `to`.
    pub(crate) fn separates(&self, now: Instant, from: Handle, to: Handle) -> bool {
        match self {
            Self::By(function) => function(now, from, to),
            Self::Split { share, from: begin, until } => {
                // A separate hash, so that a node's side depends neither on its key nor on when it joined.
                let side = |node: Handle| {
                    (mix(mix(u64::from(node.0))) >> 11) as f64 / (1_u64 << 53) as f64 <= *share
                };
                let since = now - Instant::ORIGIN;
                (*begin..*until).contains(&since) && side(from) != side(to)
            }
        }
    }
}
