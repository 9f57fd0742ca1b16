//! Nodes that come and go.

use super::random::{Draw, scaled};
use crate::error::{ConfigError, require};
use core::time::Duration;
use std::sync::Arc;

/// How long something lasts, drawn anew each time; never less than a millisecond.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    /// Always the same.
    Constant(Duration),
    /// Exponential of this mean: whoever has stayed for long is not likelier to stay longer.
    Exponential(Duration),
    /// Weibull: with a shape below 1, whoever has stayed for long is likelier to stay longer, as measured in the wild.
    Weibull {
        /// What 63 % do not exceed.
        scale: Duration,
        /// 0.1 to 10.
        shape: f64,
    },
    /// One of these, each as likely: measured ones, say. At least one.
    OneOf(Arc<[Duration]>),
}

impl Length {
    const LEAST: Duration = Duration::from_millis(1);

    /// The mean of what is drawn.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Constant(mean) | Self::Exponential(mean) => *mean,
            Self::Weibull { scale, shape } => scaled(*scale, libm::tgamma(1.0 + 1.0 / shape)),
            Self::OneOf(list) => {
                let count = u32::try_from(list.len()).unwrap_or(u32::MAX).max(1);
                list.iter().map(|length| *length / count).sum()
            }
        }
    }

    pub(crate) fn draw(&self, draw: &mut Draw) -> Duration {
        let length = match self {
            Self::Constant(always) => *always,
            Self::Exponential(mean) => scaled(*mean, draw.exponential()),
            Self::Weibull { scale, shape } => scaled(*scale, libm::pow(draw.exponential(), 1.0 / shape)),
            Self::OneOf(list) => {
                let place = draw.below(u32::try_from(list.len()).unwrap_or(u32::MAX));
                list.get(place as usize).copied().unwrap_or_default()
            }
        };
        length.max(Self::LEAST)
    }

    fn validate(&self, field: &'static str) -> Result<(), ConfigError> {
        if let Self::Weibull { shape, .. } = self {
            require((0.1..=10.0).contains(shape), field, "of a shape from 0.1 to 10")?;
        }
        require(*self != Self::OneOf(Arc::from([])), field, "a list with at least one length")?;
        require(!self.mean().is_zero(), field, "longer than zero")
    }
}

/// Nodes that come and go. One that goes stops its lookups and keeps its routing table for when it comes back.
///
/// In the beginning it is as if this had gone on for ever: as many are there as on average, and those are likelier to be
/// met that stay for long.
#[derive(Clone, Debug, PartialEq)]
pub struct Churn {
    /// The share of nodes that come and go; the others stay. 0 to 1.
    pub share: f64,
    /// How long one is there.
    pub sessions: Length,
    /// How long one is away.
    pub absences: Length,
}

impl Churn {
    /// As measured for the servers of the public IPFS network.
    ///
    /// Sessions follow the Weibull distribution that has the two shares published by Trautwein et al., "Design and
    /// Evaluation of IPFS" (SIGCOMM 2022), of 467,134 sessions: 87.6 % last less than 8 hours, 2.5 % more than 24. Its
    /// median, 57 minutes, lies where theirs do, which are told by country: 24 minutes (Hong Kong) to more than twice
    /// as long (Germany).
    ///
    /// One node in six stays: of the peers seen online in a week, 17 % never went offline (10.5 of 62.2 %; `ProbeLab`'s
    /// report RFM 2 on uptime and churn, April 2022). For absences no figures are published but a plot: their mean, 5
    /// hours, is an assumption, by which half of all nodes are there at a time.
    pub fn ipfs() -> Self {
        let hour = Duration::from_secs(3_600);
        Self {
            share: 0.83,
            sessions: Length::Weibull { scale: scaled(hour, 1.934), shape: 0.5183 },
            absences: Length::Exponential(5 * hour),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((0.0..=1.0).contains(&self.share), "churn.share", "0 to 1")?;
        self.sessions.validate("churn.sessions")?;
        self.absences.validate("churn.absences")
    }

    /// Whether a node is there in the beginning, and for how long it stays so.
    pub(crate) fn begin(&self, draw: &mut Draw) -> (bool, Duration) {
        let (there, away) = (self.sessions.mean().as_secs_f64(), self.absences.mean().as_secs_f64());
        let is_there = draw.chance(there / (there + away));
        // Whoever is met at a random instant is in a long session, in proportion to its length, and somewhere in it.
        let lengths: [Duration; 32] = core::array::from_fn(|_| self.next(is_there, draw));
        let mut point = scaled(lengths.iter().sum(), draw.unit());
        let met = lengths.into_iter().find(|length| {
            let within = point < *length;
            point = point.saturating_sub(*length);
            within
        });
        (is_there, scaled(met.unwrap_or_default(), draw.unit()))
    }

    /// How long a node that just came stays, or one that just went is away.
    pub(crate) fn next(&self, is_there: bool, draw: &mut Draw) -> Duration {
        if is_there { &self.sessions } else { &self.absences }.draw(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Purpose;
    use super::*;

    #[test]
    fn draws_have_the_means_they_should() {
        let s = Duration::from_secs;
        let lengths = [
            Length::Constant(s(10)),
            Length::Exponential(s(10)),
            Length::Weibull { scale: s(10), shape: 0.7 },
            Length::Weibull { scale: s(10), shape: 2.0 },
            Length::OneOf([s(5), s(15), s(40)].into()),
        ];
        for length in lengths {
            let mut draw = Draw::new(3, Purpose::Churn, []);
            let n = 50_000_u32;
            let sum: f64 = (0..n).map(|_| length.draw(&mut draw).as_secs_f64()).sum();
            let (mean, expected) = (sum / f64::from(n), length.mean().as_secs_f64());
            assert!((mean / expected - 1.0).abs() < 0.02, "{length:?}: {mean} s, not {expected} s");
        }
    }

    #[test]
    fn sessions_of_ipfs_are_as_published() {
        let churn = Churn::ipfs();
        let n = 200_000_u64;
        let session = |number| churn.next(true, &mut Draw::new(1, Purpose::Churn, [number]));
        let mut hours: Vec<_> = (0..n).map(|number| session(number).as_secs_f64() / 3_600.0).collect();
        hours.sort_unstable_by(f64::total_cmp);
        let below = |limit: f64| hours.partition_point(|length| *length < limit) as f64 / n as f64;
        let (below_8, above_24) = (below(8.0), 1.0 - below(24.0));
        assert!((below_8 - 0.876).abs() < 0.002, "{below_8} are shorter than 8 h");
        assert!((above_24 - 0.025).abs() < 0.001, "{above_24} are longer than 24 h");
        let median = hours.get(hours.len() / 2).copied().unwrap_or_default() * 60.0;
        assert!((55.0..59.0).contains(&median), "half are shorter than {median} min");
        let there = |number| {
            let mut draw = Draw::new(2, Purpose::Churn, [number]);
            !draw.chance(churn.share) || churn.begin(&mut draw).0
        };
        let there = (0..10_000).filter(|number| there(*number)).count();
        assert!((5_000..5_400).contains(&there), "{there} of 10,000 are there");
    }

    #[test]
    fn as_many_are_there_as_on_average() {
        let length = |secs| Length::Exponential(Duration::from_secs(secs));
        let churn = Churn { share: 1.0, sessions: length(30), absences: length(10) };
        let there = |number| churn.begin(&mut Draw::new(1, Purpose::Churn, [number])).0;
        let count = (0..10_000).filter(|number| there(*number)).count();
        assert!((7_300..7_700).contains(&count), "{count}");
    }

    #[test]
    fn senseless_lengths_are_named() {
        let zero = Length::Exponential(Duration::ZERO);
        let list = Length::OneOf(Arc::from([]));
        let shape = Length::Weibull { scale: Duration::from_secs(1), shape: 0.0 };
        for bad in [zero, list, shape] {
            let good = Length::Constant(Duration::from_secs(1));
            let churn = Churn { share: 1.0, sessions: good, absences: bad };
            assert_eq!(churn.validate().map_err(|error| error.field()), Err("churn.absences"));
        }
    }
}
