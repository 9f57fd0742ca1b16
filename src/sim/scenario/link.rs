//! [`Link`]: what the network does to a request and its answer, by latency, loss, duplication and reordering.

use crate::sim::random::{Random, scaled};
use crate::sim::scenario::dial::Dial;
use crate::sim::scenario::latency::{Latency, Trip};
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// What links do to exchanges. An exchange is a request and its answer.
#[derive(Clone, Debug)]
pub struct Link {
    /// The time from request to answer; each direction takes half. Default: log-normal, median 80 ms, sigma 0.6.
    pub round_trip: Latency,
    /// The probability that an exchange is lost: with equal probability its request or its answer. 0 to 1.
    /// Default: 0.
    pub loss: f64,
    /// The probability that an answer arrives twice, the second time up to a round trip later. 0 to 1. Default: 0.
    pub duplication: f64,
    /// The probability that an answer is delayed by up to three more round trips, so that later ones overtake it.
    /// 0 to 1. Default: 0.
    pub reordering: f64,
    /// The probability that a request to a node that does not exist, is offline or is unreachable is refused a
    /// round trip later: a failure that the driver reports. Otherwise there is no answer. 0 to 1. Default: 0.
    pub refusal: f64,
    /// What a first contact costs. Default: nothing; nodes have no connections.
    pub dial: Option<Dial>,
}

impl Default for Link {
    fn default() -> Self {
        let round_trip = Latency::LogNormal { median: Duration::from_millis(80), sigma: 0.6 };
        Self { round_trip, loss: 0.0, duplication: 0.0, reordering: 0.0, refusal: 0.0, dial: None }
    }
}

impl Link {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        self.round_trip.validate()?;
        self.dial.map_or(Ok(()), |dial| dial.validate())?;
        require(share(self.loss), "link.loss", "0 to 1")?;
        require(share(self.duplication), "link.duplication", "0 to 1")?;
        require(share(self.reordering), "link.reordering", "0 to 1")?;
        require(share(self.refusal), "link.refusal", "0 to 1")
    }

    /// Draws what happens to one exchange under these conditions.
    pub(crate) fn exchange(&self, trip: &Trip, conditions: &Conditions, random: &mut Random) -> Exchange {
        let lost = random.unit();
        let drawn = scaled(self.round_trip.draw(trip, random), conditions.factor) + conditions.add;
        let round_trip = conditions.round_trip.unwrap_or(drawn);
        // All are drawn in every case, so that a change of one probability does not change the other draws.
        let (twice, again, late, longer) = (random.unit(), random.unit(), random.unit(), random.unit());
        let request_delay = round_trip / 2;
        let answer_delay = round_trip.saturating_sub(request_delay);
        let held = if late < self.reordering { scaled(round_trip, 3.0 * longer) } else { Duration::ZERO };
        let duplicate = (twice < self.duplication).then(|| scaled(round_trip, again));
        Exchange {
            request_delay,
            answer_delay: answer_delay + held,
            request_lost: lost < conditions.loss / 2.0,
            answer_lost: lost < conditions.loss,
            duplicate,
            refused: random.chance(self.refusal),
        }
    }
}

/// What holds for an exchange besides the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// The probability that it is lost.
    pub(crate) loss: f64,
    /// By how much its round trip is longer.
    pub(crate) factor: f64,
    pub(crate) add: Duration,
    /// Its round trip, if the node that is asked determines it.
    pub(crate) round_trip: Option<Duration>,
}

/// What will happen to one request and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// From the request's departure to its arrival.
    pub(crate) request_delay: Duration,
    /// From the answer's departure to its arrival.
    pub(crate) answer_delay: Duration,
    pub(crate) request_lost: bool,
    pub(crate) answer_lost: bool,
    /// The answer arrives a second time, this much later.
    pub(crate) duplicate: Option<Duration>,
    /// If the node cannot be reached, the asker receives a refusal.
    pub(crate) refused: bool,
}
