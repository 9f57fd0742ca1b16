//! What happens to an exchange on its way: latency, loss, duplication, reordering.

use super::nodes::Handle;
use super::random::{Draw, scaled};
use crate::error::{ConfigError, require};
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// How long a round trip takes, drawn anew for each exchange.
#[derive(Clone)]
pub enum Latency {
    /// Always the same.
    Constant(Duration),
    /// Evenly between the two.
    Uniform(Duration, Duration),
    /// Log-normal: half of all are below the median, and sigma is the deviation of the logarithm.
    LogNormal {
        /// Half of all round trips take less.
        median: Duration,
        /// Deviation of the natural logarithm; 0.6 is the internet's order of magnitude.
        sigma: f64,
    },
    /// What this function says of asker, asked and a number drawn evenly from 0 to 1. It must depend on nothing else,
    /// or the run cannot be repeated.
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
    pub(crate) fn draw(&self, from: Handle, to: Handle, draw: &mut Draw) -> Duration {
        match self {
            Self::Constant(always) => *always,
            Self::Uniform(least, most) => *least + scaled(most.saturating_sub(*least), draw.unit()),
            Self::LogNormal { median, sigma } => scaled(*median, libm::exp(sigma * draw.normal())),
            Self::By(function) => function(from, to, draw.unit()),
        }
    }
}

/// What links do to exchanges.
#[derive(Clone, Debug)]
pub struct Link {
    /// The time from request to answer, of which each way takes half. Default: log-normal, median 80 ms, sigma 0.6.
    pub round_trip: Latency,
    /// The probability that an exchange is lost: the request or the answer, as likely. 0 to 1. Default: 0.
    pub loss: f64,
    /// The probability that a datagram arrives twice, the second time up to a round trip later. 0 to 1. Default: 0.
    pub duplication: f64,
    /// The probability that an answer is held back by up to three more round trips, so that later ones overtake it.
    /// 0 to 1. Default: 0.
    pub reordering: f64,
    /// The probability that a request to nobody, or to somebody who cannot be asked, is refused a round trip later: a
    /// failure that the driver reports. Else there is silence. 0 to 1. Default: 0.
    pub refusal: f64,
}

impl Default for Link {
    fn default() -> Self {
        let round_trip = Latency::LogNormal { median: Duration::from_millis(80), sigma: 0.6 };
        Self { round_trip, loss: 0.0, duplication: 0.0, reordering: 0.0, refusal: 0.0 }
    }
}

impl Link {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if let Latency::LogNormal { sigma, .. } = self.round_trip {
            require((0.0..=10.0).contains(&sigma), "link.sigma", "0 to 10")?;
        }
        if let Latency::Uniform(least, most) = self.round_trip {
            require(least <= most, "link.round_trip", "a range that ends after it begins")?;
        }
        require(share(self.loss), "link.loss", "0 to 1")?;
        require(share(self.duplication), "link.duplication", "0 to 1")?;
        require(share(self.reordering), "link.reordering", "0 to 1")?;
        require(share(self.refusal), "link.refusal", "0 to 1")
    }

    /// The fate of one exchange; round trips to the node take `factor` times as long.
    pub(crate) fn exchange(&self, from: Handle, to: Handle, factor: f64, draw: &mut Draw) -> Exchange {
        let lost = draw.unit();
        let round_trip = scaled(self.round_trip.draw(from, to, draw), factor);
        // Drawn in any case, so that turning one knob leaves the others' draws alone.
        let (twice, again, late, longer) = (draw.unit(), draw.unit(), draw.unit(), draw.unit());
        let there = round_trip / 2;
        let back = round_trip.saturating_sub(there);
        let held = if late < self.reordering { scaled(round_trip, 3.0 * longer) } else { Duration::ZERO };
        let duplicate = (twice < self.duplication).then(|| scaled(round_trip, again));
        Exchange {
            there,
            back: back + held,
            request_lost: lost < self.loss / 2.0,
            answer_lost: lost < self.loss,
            duplicate,
            refused: draw.chance(self.refusal),
        }
    }
}

/// What will happen to a request and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Until the request arrives.
    pub(crate) there: Duration,
    /// From the answer's leaving to its arrival.
    pub(crate) back: Duration,
    pub(crate) request_lost: bool,
    pub(crate) answer_lost: bool,
    /// The answer arrives a second time, so much later.
    pub(crate) duplicate: Option<Duration>,
    /// If nobody is there, the asker hears of it.
    pub(crate) refused: bool,
}
