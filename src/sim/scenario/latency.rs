//! [`Latency`]: how long round trips take.

use crate::sim::network::handle::Handle;
use crate::sim::random::{Random, Stream, scaled};
use crate::sim::scenario::latency_matrix::LatencyMatrix;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// How long round trips take.
#[derive(Clone)]
#[non_exhaustive]
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
    /// Drawn once, and then the same for the whole run but for the jitter.
    Fixed {
        /// What it is drawn from.
        of: Arc<Self>,
        /// What it is drawn for.
        per: Per,
        /// The share by which each exchange deviates at most, to both sides, uniformly. 0 to 1.
        jitter: f64,
    },
    /// Classes of nodes: the round trip is drawn from that of the class of the node asked. Each node is in one class for
    /// the whole run.
    Classes(Arc<[LatencyClass]>),
    /// Measured round trips. The node with the number n has the row and the column n modulo the size, whatever the seed.
    Matrix(Arc<LatencyMatrix>),
    /// The result of this function. It must depend on nothing but its argument, or the run cannot be repeated.
    By(Arc<dyn Fn(&Trip) -> Duration + Send + Sync>),
}

/// A class of nodes of [`Latency::Classes`].
#[derive(Clone, Debug)]
pub struct LatencyClass {
    /// The share of the nodes in this class. 0 to 1; those of all classes together are at most 1, and the last class
    /// takes what is left.
    pub share: f64,
    /// The round trips to the nodes of this class.
    pub round_trip: Latency,
}

/// What a [fixed](Latency::Fixed) round trip is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// For each node that is asked: the same from everywhere.
    Node,
    /// For each pair of nodes: the same in both directions.
    Pair,
}

/// An exchange whose round trip is to be known: the argument of [`Latency::By`].
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    /// The asker.
    pub from: Handle,
    /// The node asked.
    pub to: Handle,
    /// The asker's number, from 0, which does not change with the seed; `None` for Sybils.
    pub from_number: Option<u32>,
    /// The number of the node asked; `None` if it is no node of the network.
    pub to_number: Option<u32>,
    /// When the request is sent.
    pub at: Instant,
    /// A number drawn uniformly from 0 to 1 for this exchange.
    pub unit: f64,
    pub(crate) seed: u64,
}

impl Trip {
    /// Ids of the random streams of these two, which stay the same when the seed's handles shift.
    fn ids(&self) -> [u64; 2] {
        let id = |number: Option<u32>, handle: Handle| {
            number.map_or_else(|| 1 << 32 | u64::from(handle.0), u64::from)
        };
        [id(self.from_number, self.from), id(self.to_number, self.to)]
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(always) => f.debug_tuple("Constant").field(always).finish(),
            Self::Uniform(least, most) => f.debug_tuple("Uniform").field(least).field(most).finish(),
            Self::LogNormal { median, sigma } => {
                f.debug_struct("LogNormal").field("median", median).field("sigma", sigma).finish()
            }
            Self::Fixed { of, per, jitter } => {
                let fields = [("of", of as &dyn fmt::Debug), ("per", per), ("jitter", jitter)];
                let mut text = f.debug_struct("Fixed");
                fields.into_iter().fold(&mut text, |text, (name, value)| text.field(name, value)).finish()
            }
            Self::Classes(classes) => f.debug_tuple("Classes").field(classes).finish(),
            Self::Matrix(matrix) => f.debug_tuple("Matrix").field(matrix).finish(),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

impl Latency {
    /// Classes of nodes, each with its share and its round trips; the last one takes the nodes that are left.
    pub fn classes(classes: impl IntoIterator<Item = (f64, Self)>) -> Self {
        let class = |(share, round_trip)| LatencyClass { share, round_trip };
        Self::Classes(classes.into_iter().map(class).collect())
    }

    /// A round trip that stays the same for each node or pair, up to this jitter.
    pub fn fixed(of: Self, per: Per, jitter: f64) -> Self {
        Self::Fixed { of: Arc::new(of), per, jitter }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::LogNormal { sigma, .. } => require((0.0..=10.0).contains(sigma), "link.sigma", "0 to 10"),
            Self::Uniform(least, most) => {
                require(least <= most, "link.round_trip", "a range that ends after it begins")
            }
            Self::Fixed { of, jitter, .. } => {
                require((0.0..=1.0).contains(jitter), "link.jitter", "0 to 1")?;
                of.validate()
            }
            Self::Classes(classes) => {
                let shares = || classes.iter().map(|class| class.share);
                let sound = shares().all(|share| share >= 0.0) && shares().sum::<f64>() <= 1.0 + 1e-9;
                require(sound && !classes.is_empty(), "link.share", "0 to 1, all classes together too")?;
                classes.iter().try_for_each(|class| class.round_trip.validate())
            }
            Self::Constant(_) | Self::Matrix(_) | Self::By(_) => Ok(()),
        }
    }

    /// The class of a node in [`Classes`](Self::Classes), from 0; `None` for other distributions.
    pub(crate) fn class_of(&self, trip: &Trip) -> Option<usize> {
        let Self::Classes(classes) = self else { return None };
        let mut number = Random::new(trip.seed, Stream::LatencyClass, [trip.ids()[1]]).unit();
        let in_class = classes.iter().position(|class| {
            number -= class.share;
            number < 0.0
        });
        Some(in_class.unwrap_or(classes.len() - 1))
    }

    pub(crate) fn draw(&self, trip: &Trip, random: &mut Random) -> Duration {
        match self {
            Self::Constant(always) => *always,
            Self::Uniform(least, most) => *least + scaled(most.saturating_sub(*least), random.unit()),
            Self::LogNormal { median, sigma } => scaled(*median, libm::exp(sigma * random.normal())),
            Self::Fixed { of, per, jitter } => {
                let [from, to] = trip.ids();
                let ids = match per {
                    Per::Node => [to, u64::MAX],
                    Per::Pair => [from.min(to), from.max(to)],
                };
                let mut once = Random::new(trip.seed, Stream::FixedLatency, ids);
                let always = of.draw(&Trip { unit: once.unit(), ..*trip }, &mut once);
                scaled(always, 1.0 + jitter * (2.0 * random.unit() - 1.0))
            }
            Self::Classes(classes) => {
                let class = self.class_of(trip).and_then(|class| classes.get(class));
                class.map_or(Duration::ZERO, |class| class.round_trip.draw(trip, random))
            }
            Self::Matrix(matrix) => {
                let number = |number: Option<u32>, handle: Handle| number.unwrap_or(handle.0);
                matrix.between(number(trip.from_number, trip.from), number(trip.to_number, trip.to))
            }
            Self::By(function) => function(&Trip { unit: random.unit(), ..*trip }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn trip(seed: u64, from: u32, to: u32) -> Trip {
        let (from_number, to_number) = (Some(from), Some(to));
        // The handles shift with the seed, the numbers do not.
        let handle = |number| Handle(number + u32::try_from(seed).unwrap_or_default() * 100);
        let (from, to) = (handle(from), handle(to));
        Trip { from, to, from_number, to_number, at: Instant::ORIGIN, unit: 0.0, seed }
    }

    fn draw(latency: &Latency, trip: &Trip, number: u64) -> Duration {
        latency.draw(trip, &mut Random::new(trip.seed, Stream::Exchange, [number]))
    }

    #[test]
    fn fixed_round_trips_are_those_of_the_node_or_of_the_pair() {
        let uniform = Latency::Uniform(10 * MS, 1_000 * MS);
        let by_node = Latency::fixed(uniform.clone(), Per::Node, 0.0);
        let by_pair = Latency::fixed(uniform, Per::Pair, 0.1);
        let (here, there) = (trip(1, 3, 4), trip(1, 4, 3));
        assert_eq!(draw(&by_node, &here, 1), draw(&by_node, &here, 2));
        assert_eq!(draw(&by_node, &here, 1), draw(&by_node, &trip(1, 9, 4), 1));
        assert_ne!(draw(&by_node, &here, 1), draw(&by_node, &there, 1));
        let spread: Vec<_> = (0..100).map(|number| draw(&by_pair, &here, number).as_secs_f64()).collect();
        let back: Vec<_> = (0..100).map(|number| draw(&by_pair, &there, number).as_secs_f64()).collect();
        assert_eq!(spread, back);
        let (least, most) =
            (spread.iter().fold(9.0, |a: f64, b| a.min(*b)), spread.iter().fold(0.0, |a: f64, b| a.max(*b)));
        assert!(most / least > 1.1 && most / least < 1.1 / 0.9 + 1e-9, "{least} to {most}");
    }

    #[test]
    fn nodes_are_in_their_classes_by_share() {
        let classes =
            Latency::classes([(0.1, Latency::Constant(400 * MS)), (0.9, Latency::Constant(20 * MS))]);
        for seed in 1..4 {
            let far = (0..10_000).filter(|to| draw(&classes, &trip(seed, 0, *to), 0) == 400 * MS).count();
            assert!((900..1_100).contains(&far), "{far}");
        }
        let far = |seed, to| classes.class_of(&trip(seed, 5, to));
        assert!((0..100).all(|to| far(1, to) == far(1, to)) && (0..100).any(|to| far(1, to) != far(2, to)));
    }
}
