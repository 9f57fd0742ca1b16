//! [`Latency`]: how long round trips take.

use crate::sim::network::handle::Handle;
use crate::sim::random::{Random, scaled};
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// The distribution of round-trip times, drawn for each exchange.
#[derive(Clone)]
pub enum Latency {
    /// Always the same.
    Constant(Duration),
    /// Uniform from the first to the second.
    Uniform(Duration, Duration),
    /// Log-normal.
    LogNormal {
        /// Half of all round trips take less.
        median: Duration,
        /// Standard deviation of the natural logarithm, 0 to 10; 0.6 is the internet's order of magnitude.
        sigma: f64,
    },
    /// The result of this function of the asker, the node asked, and a number drawn uniformly from 0 to 1. It must
    /// depend on nothing else, or the run cannot be repeated.
    By(Arc<dyn Fn(Handle, Handle, f64) -> Duration + Send + Sync>),
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(always) => f.debug_tuple("Constant").field(always).finish(),
            Self::Uniform(least, most) => f.debug_tuple("Uniform").field(least).field(most).finish(),
            Self::LogNormal { median, sigma } => {
                f.debug_struct("LogNormal").field("median", median).field("sigma", sigma).finish()
            }
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

impl Latency {
    pub(crate) fn draw(&self, from: Handle, to: Handle, random: &mut Random) -> Duration {
        match self {
            Self::Constant(always) => *always,
            Self::Uniform(least, most) => *least + scaled(most.saturating_sub(*least), random.unit()),
            Self::LogNormal { median, sigma } => scaled(*median, libm::exp(sigma * random.normal())),
            Self::By(function) => function(from, to, random.unit()),
        }
    }
}
