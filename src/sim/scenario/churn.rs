//! [`Churn`]: nodes that go offline and come back.

use crate::sim::random::{Random, scaled};
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;
use std::sync::Arc;

/// The distribution of a session's or an absence's length, drawn each time; at least a millisecond.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    /// Always the same.
    Constant(Duration),
    /// Exponential with this mean: the remaining time does not depend on the time so far.
    Exponential(Duration),
    /// Weibull: with a shape below 1, the longer a node has stayed, the longer it will probably stay, as measured
    /// in the wild.
    Weibull {
        /// The length that 63 % do not exceed.
        scale: Duration,
        /// The shape parameter. 0.1 to 10.
        shape: f64,
    },
    /// One of these, each with the same probability: measured ones, for example. At least one.
    OneOf(Arc<[Duration]>),
}

impl Length {
    const LEAST: Duration = Duration::from_millis(1);

    /// The mean of the distribution.
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

    pub(crate) fn draw(&self, random: &mut Random) -> Duration {
        let length = match self {
            Self::Constant(always) => *always,
            Self::Exponential(mean) => scaled(*mean, random.exponential()),
            Self::Weibull { scale, shape } => scaled(*scale, libm::pow(random.exponential(), 1.0 / shape)),
            Self::OneOf(list) => {
                let index = random.below(u32::try_from(list.len()).unwrap_or(u32::MAX));
                list.get(index as usize).copied().unwrap_or_default()
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

/// Nodes that go offline and come back. One that goes offline stops its operations. It keeps its routing table for
/// its return, except where nodes keep their tables themselves: there it starts anew.
///
/// Churn begins in its steady state: the share of nodes that is online is the average, and sessions in progress
/// are chosen in proportion to their length.
#[derive(Clone, Debug, PartialEq)]
pub struct Churn {
    /// The share of nodes that churn; the others stay online. 0 to 1.
    pub share: f64,
    /// How long a node stays online.
    pub sessions: Length,
    /// How long a node stays offline.
    pub absences: Length,
    /// Whether a node that starts anew restores the snapshot of its table; else it begins with an empty table and the
    /// seeds.
    pub restores: bool,
}

impl Churn {
    /// Churn as measured for the servers of the public IPFS network.
    ///
    /// Sessions follow the Weibull distribution with the two shares published by Trautwein et al., "Design and
    /// Evaluation of IPFS" (SIGCOMM 2022), of 467,134 sessions: 87.6 % last less than 8 hours, 2.5 % more than 24.
    /// Its median, 57 minutes, is in the range of the published medians, which are given by country: 24 minutes
    /// (Hong Kong) to more than twice as long (Germany).
    ///
    /// One node in six stays online: of the peers seen online in a week, 17 % never went offline (10.5 of 62.2 %;
    /// `ProbeLab`'s report RFM 2 on uptime and churn, April 2022). For absences only a plot is published, no
    /// figures: their mean, 5 hours, is an assumption, by which half of all nodes are online at a time.
    pub fn ipfs() -> Self {
        let hour = Duration::from_secs(3_600);
        Self {
            share: 0.83,
            sessions: Length::Weibull { scale: scaled(hour, 1.934), shape: 0.5183 },
            absences: Length::Exponential(5 * hour),
            restores: false,
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

    /// Draws whether a node is online at the beginning, and how long this state lasts.
    pub(crate) fn initial(&self, random: &mut Random) -> (bool, Duration) {
        let (session, absence) = (self.sessions.mean().as_secs_f64(), self.absences.mean().as_secs_f64());
        let online = random.chance(session / (session + absence));
        // A random instant falls into a session with a probability in proportion to its length, and uniformly
        // within it: draw 32 sessions, and choose the one that contains a uniform point of their sum.
        let lengths: [Duration; 32] = core::array::from_fn(|_| self.next(online, random));
        let mut point = scaled(lengths.iter().sum(), random.unit());
        let current = lengths.into_iter().find(|length| {
            let within = point < *length;
            point = point.saturating_sub(*length);
            within
        });
        (online, scaled(current.unwrap_or_default(), random.unit()))
    }

    /// Draws how long a node stays online that has just come online, or offline that has just gone.
    pub(crate) fn next(&self, online: bool, random: &mut Random) -> Duration {
        if online { &self.sessions } else { &self.absences }.draw(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Stream;

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
            let mut random = Random::new(3, Stream::Churn, []);
            let n = 50_000_u32;
            let sum: f64 = (0..n).map(|_| length.draw(&mut random).as_secs_f64()).sum();
            let (mean, expected) = (sum / f64::from(n), length.mean().as_secs_f64());
            assert!((mean / expected - 1.0).abs() < 0.02, "{length:?}: {mean} s, not {expected} s");
        }
    }

    #[test]
    fn sessions_of_ipfs_are_as_published() {
        let churn = Churn::ipfs();
        let n = 200_000_u64;
        let session = |number| churn.next(true, &mut Random::new(1, Stream::Churn, [number]));
        let mut hours: Vec<_> = (0..n).map(|number| session(number).as_secs_f64() / 3_600.0).collect();
        hours.sort_unstable_by(f64::total_cmp);
        let below = |limit: f64| hours.partition_point(|length| *length < limit) as f64 / n as f64;
        let (below_8, above_24) = (below(8.0), 1.0 - below(24.0));
        assert!((below_8 - 0.876).abs() < 0.002, "{below_8} are shorter than 8 h");
        assert!((above_24 - 0.025).abs() < 0.001, "{above_24} are longer than 24 h");
        let median = hours.get(hours.len() / 2).copied().unwrap_or_default() * 60.0;
        assert!((55.0..59.0).contains(&median), "half are shorter than {median} min");
        let online = |number| {
            let mut random = Random::new(2, Stream::Churn, [number]);
            !random.chance(churn.share) || churn.initial(&mut random).0
        };
        let online = (0..10_000).filter(|number| online(*number)).count();
        assert!((5_000..5_400).contains(&online), "{online} of 10,000 are there");
    }

    #[test]
    fn the_share_online_at_the_beginning_is_the_average() {
        let length = |secs| Length::Exponential(Duration::from_secs(secs));
        let churn = Churn { share: 1.0, sessions: length(30), absences: length(10), restores: false };
        let online = |number| churn.initial(&mut Random::new(1, Stream::Churn, [number])).0;
        let count = (0..10_000).filter(|number| online(*number)).count();
        assert!((7_300..7_700).contains(&count), "{count}");
    }

    #[test]
    fn invalid_lengths_are_named() {
        let zero = Length::Exponential(Duration::ZERO);
        let list = Length::OneOf(Arc::from([]));
        let shape = Length::Weibull { scale: Duration::from_secs(1), shape: 0.0 };
        for bad in [zero, list, shape] {
            let good = Length::Constant(Duration::from_secs(1));
            let churn = Churn { share: 1.0, sessions: good, absences: bad, restores: false };
            assert_eq!(churn.validate().map_err(|error| error.field()), Err("churn.absences"));
        }
    }
}
