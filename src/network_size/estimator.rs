//! [`NetworkSize`]: the estimator, with its samples, its result [`SizeEstimate`] and its error [`NotEnoughData`].

use crate::network_size::config::NetworkSizeConfig;
use crate::network_size::gamma::{gamma_p, inverse_gamma_p};
use crate::network_size::numbers::{count_as_f64, normed_distance};
use crate::network_size::thresholds::Thresholds;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Group;
use crate::vocabulary::key::Key;
use crate::vocabulary::region::IMPLAUSIBLE;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::ops::RangeInclusive;
use std::collections::BTreeMap;

/// The sums of so many ranks are made at a time, without allocating: all ranks of the default k.
const RANKS: usize = 20;

/// How often the lookups that count are chosen anew by the estimate that they give.
const REFINEMENTS: usize = 6;

/// The variance of an estimate by one lookup, times k, as a share of the true number; and that of networks of one node.
/// Measured: see the tests.
const VARIANCE: f64 = 1.5;
const OF_A_NETWORK: f64 = 0.3;

/// One lookup.
#[derive(Clone, Debug)]
struct Sample<K> {
    target: K,
    /// The latest time seen when it was recorded.
    at: Instant,
    weight: f64,
    /// The address group that has more than half of the places.
    group: Option<u64>,
    /// Normed distances of the k closest, closest first.
    distances: Vec<f64>,
}

impl<K> Sample<K> {
    /// The normed distance of the k-th closest.
    fn farthest(&self) -> f64 {
        self.distances.last().copied().unwrap_or_default()
    }
}

/// Estimates the number of nodes that answer, the own node not counted, from completed lookups. Plain data: it
/// needs no wake-up.
///
/// ```
/// use kad_proto::network_size::{NetworkSize, NetworkSizeConfig};
/// use kad_proto::{Instant, Key, Key8};
///
/// let mut size = NetworkSize::new(NetworkSizeConfig { k: 3, ..NetworkSizeConfig::default() })?;
/// let now = Instant::ORIGIN;
/// assert_eq!(size.estimate(now).map_err(|few| few.samples), Err(0));
/// for target in (0..250).step_by(25).map(|byte| Key8::new([byte])) {
///     // A lookup found nodes at these distances, while the own bucket at the target's cpl was full.
///     let closest = [8, 16, 24].map(|distance| target.distance(&Key8::new([distance])));
///     assert!(size.record(now, target, closest, 3));
/// }
/// assert_eq!(size.estimate(now)?.nodes(), 31);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetworkSize<K> {
    config: NetworkSizeConfig,
    /// In no order: once full, a new sample overwrites the oldest.
    samples: Vec<Sample<K>>,
    /// Their indices, in order of the distances of the k-th closest.
    order: Vec<usize>,
    /// In how many samples a group has most places.
    groups: BTreeMap<u64, usize>,
    /// The distance of the k-th closest of the own table to the own key.
    neighbourhood: Option<f64>,
    spare_groups: Vec<u64>,
    /// Between which values the distance of the k-th closest times the number of nodes is plausible.
    plausible: [f64; 2],
    /// Buffer for the distances of the next sample, so that recording allocates nothing once the samples are full.
    spare: Vec<f64>,
    latest: Instant,
}

impl<K: Key> NetworkSize<K> {
    /// An estimator without samples.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(config: NetworkSizeConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let bound = |share| inverse_gamma_p(count_as_f64(config.k), share);
        Ok(Self {
            plausible: [bound(IMPLAUSIBLE), bound(1.0 - IMPLAUSIBLE)],
            config,
            samples: Vec::new(),
            order: Vec::new(),
            groups: BTreeMap::new(),
            neighbourhood: None,
            spare_groups: Vec::new(),
            spare: Vec::new(),
            latest: Instant::ORIGIN,
        })
    }

    /// Records a lookup that converged at `now`, of nodes without address groups; see
    /// [`record_in_groups`](Self::record_in_groups).
    pub fn record(
        &mut self,
        now: Instant,
        target: K,
        closest: impl IntoIterator<Item = K>,
        bucket_len: usize,
    ) -> bool {
        self.record_in_groups(now, target, closest.into_iter().map(|key| (key, None)), bucket_len)
    }

    /// Records a lookup that converged at `now`. Lookups that were stopped or ran out of time must not be
    /// recorded.
    ///
    /// `closest` are the keys of the nodes closest to `target` that have answered, closest first, each with its [address
    /// group](crate::Family::group); the first k count. A node that was only named must not be among them. Returns whether
    /// the lookup became a sample: one with fewer than k nodes does not.
    ///
    /// `bucket_len` is the number of nodes in the target's bucket of the node's own routing table,
    /// `table.bucket(table.local().common_prefix_len(&target)).len()`. For each node by which it is less than
    /// k, the weight of the sample is halved: the fewer nodes are known there, the likelier the lookup missed
    /// some.
    ///
    /// Each target counts once: a new sample replaces an old one of the same target, so that looking up one key
    /// over and over does not reduce the estimate to a single sample. Each address group counts once, too, where it has
    /// more than half of the places: such samples of one group share the weight of one.
    ///
    /// O(k + `max_samples`).
    pub fn record_in_groups(
        &mut self,
        now: Instant,
        target: K,
        closest: impl IntoIterator<Item = (K, Option<Group>)>,
        bucket_len: usize,
    ) -> bool {
        self.latest = self.latest.max(now);
        let NetworkSizeConfig { k, max_samples, .. } = self.config;
        self.spare.clear();
        self.spare.reserve_exact(k);
        self.spare_groups.clear();
        for (key, group) in closest.into_iter().take(k) {
            self.spare.push(normed_distance(&key.distance(&target)));
            self.spare_groups.extend(group.map(|group| group.0));
        }
        let Some(farthest) = self.spare.last().copied().filter(|_| self.spare.len() == k) else {
            return false;
        };
        // A weight below 2^-512 makes no difference.
        let missing = i32::try_from(k.saturating_sub(bucket_len)).unwrap_or(i32::MAX).min(512);
        let (at, weight, group) = (self.latest, libm::ldexp(1.0, -missing), self.majority());
        let same_target = self.samples.iter().position(|sample| sample.target == target);
        let is_full = self.samples.len() >= max_samples;
        let oldest = || (0..).zip(&self.samples).min_by_key(|(_, sample)| sample.at).map(|(index, _)| index);
        let index = same_target.or_else(|| if is_full { oldest() } else { None });
        let index = if let Some(index) = index
            && let Some(sample) = self.samples.get_mut(index)
        {
            core::mem::swap(&mut sample.distances, &mut self.spare);
            let before = sample.group;
            (sample.target, sample.at, sample.weight, sample.group) = (target, at, weight, group);
            self.order.retain(|place| *place != index);
            self.count_group(before, false);
            index
        } else {
            let distances = core::mem::take(&mut self.spare);
            self.samples.push(Sample { target, at, weight, group, distances });
            self.samples.len() - 1
        };
        self.count_group(group, true);
        let of = |place: &usize| self.samples.get(*place).map_or(0.0, Sample::farthest);
        let place = self.order.partition_point(|place| of(place) <= farthest);
        self.order.insert(place, index);
        true
    }

    /// Of the groups of the new sample, the one that has more than half of the places.
    fn majority(&mut self) -> Option<u64> {
        self.spare_groups.sort_unstable();
        let middle = *self.spare_groups.get(self.spare_groups.len() / 2)?;
        let places = self.spare_groups.iter().filter(|group| **group == middle).count();
        (places * 2 > self.config.k).then_some(middle)
    }

    /// Tells how dense the own neighbourhood is: `closest` are the nodes of the own routing table that have answered, the
    /// closest to the own key `local` first. Whoever stands there was there for a while, so this is costlier to
    /// shape than a lookup just made. Where lookups contradict each other, the estimate follows those that agree with it.
    ///
    /// O(k).
    pub fn observe_neighbourhood(&mut self, local: &K, closest: impl IntoIterator<Item = K>) {
        let farthest = closest.into_iter().nth(self.config.k - 1);
        self.neighbourhood = farthest.map(|key| normed_distance(&key.distance(local)));
    }

    /// Counts one sample more, or one fewer, in which this group has most places.
    fn count_group(&mut self, group: Option<u64>, is_more: bool) {
        let Some(group) = group else { return };
        let count = self.groups.entry(group).or_insert(0);
        if is_more {
            *count += 1;
        } else if *count <= 1 {
            self.groups.remove(&group);
        } else {
            *count -= 1;
        }
    }

    /// Estimates the size of the network from the lookups that ended no longer than `max_age` before `now`.
    ///
    /// # Which lookups count
    ///
    /// Whoever answers a lookup can name accomplices next to its target, and who is asked next are these: their lookup
    /// tells of a network of any size. One such lookup would move a mean by as much as they like. So the estimate is made
    /// of lookups that agree. N times the distance of the k-th closest is distributed as Γ(k), and 998 of 1,000 are
    /// within a factor of 4.1 (k = 20). Those that agree are the most within such a factor. If there are others farther
    /// away that agree with each other, and have at least a third of the weight of these, they are taken instead:
    /// names that are too close are free, while to keep a lookup from the closest takes control of all its
    /// answers. Then, a few times over, the estimate is made and the lookups are taken that are plausible under it.
    ///
    /// Where the own neighbourhood [has been told](Self::observe_neighbourhood), a seventh is enough for those that agree with
    /// it, and those that do not cannot displace those that do.
    ///
    /// So lookups whose k-th closest are a quarter as far away as is true, or nearer, move the estimate by nothing at all as long as
    /// they have less than three quarters of the weight (six sevenths with a neighbourhood). Lies within what is plausible
    /// move it by their share: at most by a factor of 2.2 if all lookups are lied to.
    ///
    /// # From these
    ///
    /// For each rank i of k, take the weighted mean yᵢ and the weighted deviation σᵢ of the distances of the i-th
    /// closest node. Fit a line through the origin with the slope Σ σᵢ·i·yᵢ / Σ σᵢ·i². N is the inverse of the
    /// slope, less one. If no rank deviates, all ranks have the same weight. In networks of 1,000 nodes or
    /// more, after 50 lookups half of all estimates are within 2.5 %, and 99 of 100 within 11 %; after 150, within
    /// 1.6 % and 7 %.
    ///
    /// O(k · `max_samples`).
    ///
    /// # Errors
    /// [`NotEnoughData`] where there are fewer than `min_samples` such lookups.
    pub fn estimate(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        let NetworkSizeConfig { k, min_samples, .. } = self.config;
        let now = self.latest.max(now);
        let samples = self.fresh(now).count();
        if samples < min_samples {
            return Err(NotEnoughData { samples, needed: min_samples });
        }
        let [low, high] = self.plausible;
        let mut within = self.agreeing(now);
        let mut nodes = self.fit(now, within);
        for _ in 0..REFINEMENTS {
            let plausible = [low / (nodes + 1.0), high / (nodes + 1.0)];
            // Nothing is plausible under a number that has no meaning.
            let is_same = plausible.iter().zip(&within).all(|(a, b)| a.total_cmp(b).is_eq());
            if is_same || self.fresh_within(now, plausible).next().is_none() {
                break;
            }
            within = plausible;
            nodes = self.fit(now, within);
        }
        let (mut total, mut taken, mut squares) = (0.0, 0.0, 0.0);
        for sample in self.fresh(now) {
            total += self.weight(sample);
        }
        for sample in self.fresh_within(now, within) {
            let weight = self.weight(sample);
            taken += weight;
            squares += weight * weight;
        }
        let lookups = self.fresh_within(now, within).count();
        // The deviation of one lookup, and what a network differs by from others of its size.
        let variance = VARIANCE / count_as_f64(k) * squares / (taken * taken) + OF_A_NETWORK / nodes;
        let deviation = if variance.is_finite() { libm::sqrt(variance) } else { 1.0 };
        // The lookups have found k nodes, so there are at least k.
        let nodes = nodes.max(count_as_f64(k));
        // As many lies as were found out may have passed for the truth, each by at most as much again.
        let unseen = 1.0 + (total - taken) / total;
        let range = [nodes / (1.0 + 2.0 * deviation) / unseen, nodes * (1.0 + 2.0 * deviation)];
        Ok(SizeEstimate { k, nodes, range, lookups, rejected: samples - lookups })
    }

    /// The samples that are not too old, those of the densest places first.
    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Sample<K>> {
        let max_age = self.config.max_age;
        let all = self.order.iter().filter_map(|place| self.samples.get(*place));
        all.filter(move |sample| now - sample.at <= max_age)
    }

    /// Those of them whose k-th closest is between these distances.
    fn fresh_within(&self, now: Instant, within: [f64; 2]) -> impl Iterator<Item = &Sample<K>> {
        let [low, high] = within;
        self.fresh(now).filter(move |sample| low <= sample.farthest() && sample.farthest() <= high)
    }

    /// The weight of a sample: those of one group share that of one.
    fn weight(&self, sample: &Sample<K>) -> f64 {
        let alike = sample.group.and_then(|group| self.groups.get(&group)).copied().unwrap_or(1);
        sample.weight / count_as_f64(alike)
    }

    /// The distances between which the k-th closest are of the samples that agree.
    fn agreeing(&self, now: Instant) -> [f64; 2] {
        let (mut weight, mut within) = self.most_within(now, None);
        loop {
            let [_, high] = within;
            let (other, farther) = self.most_within(now, Some(high));
            // The first of a few samples is not the nearest that there can be.
            let agrees = |[low, high]: [f64; 2]| {
                self.neighbourhood.is_some_and(|distance| low / 2.0 <= distance && distance <= high)
            };
            let needed = match (agrees(within), agrees(farther)) {
                (true, _) => return within,
                (false, true) => weight / 6.0,
                (false, false) => weight / 3.0,
            };
            if other <= 0.0 || other < needed {
                return within;
            }
            (weight, within) = (other, farther);
        }
    }

    /// The most samples, by weight, whose k-th closest are within the factor of what is plausible, of those beyond a
    /// distance: their weight, and the distances between which they are.
    fn most_within(&self, now: Instant, beyond: Option<f64>) -> (f64, [f64; 2]) {
        let [low, high] = self.plausible;
        let factor = high / low;
        let all =
            || self.fresh(now).filter(move |sample| beyond.is_none_or(|beyond| sample.farthest() > beyond));
        let (mut ahead, mut weight) = (all().peekable(), 0.0);
        let (mut most, mut within) = (0.0, [0.0, 0.0]);
        for sample in all() {
            let (first, last) = (sample.farthest(), sample.farthest() * factor);
            while let Some(next) = ahead.next_if(|next| next.farthest() <= last) {
                weight += self.weight(next);
            }
            if weight > most {
                (most, within) = (weight, [first, last]);
            }
            weight -= self.weight(sample);
        }
        (most, within)
    }

    /// The number of nodes by the samples whose k-th closest is between these distances.
    fn fit(&self, now: Instant, within: [f64; 2]) -> f64 {
        let k = self.config.k;
        let fresh = || self.fresh_within(now, within);
        let total: f64 = fresh().map(|sample| self.weight(sample)).sum();
        let (mut by_deviation, mut unweighted) = (LineFit::default(), LineFit::default());
        // Sample by sample, each with several ranks: the sum of each rank is the same as if it were made alone.
        for first in (0..k).step_by(RANKS) {
            let points = || {
                fresh().map(|sample| (self.weight(sample), sample.distances.get(first..).unwrap_or_default()))
            };
            let mut means = [0.0; RANKS];
            for (weight, distances) in points() {
                for (sum, distance) in means.iter_mut().zip(distances) {
                    *sum += weight * distance;
                }
            }
            means = means.map(|sum| sum / total);
            let mut variances = [0.0; RANKS];
            for (weight, distances) in points() {
                for ((sum, mean), distance) in variances.iter_mut().zip(&means).zip(distances) {
                    *sum += weight * (distance - mean) * (distance - mean);
                }
            }
            // Biased as the variance of a sample is, but by the same factor at each rank, which cancels out of the
            // slope.
            for (rank, (sum, mean)) in (first + 1..=k).zip(variances.into_iter().zip(means)) {
                by_deviation.add(libm::sqrt(sum / total), count_as_f64(rank), mean);
                unweighted.add(1.0, count_as_f64(rank), mean);
            }
        }
        1.0 / by_deviation.slope().or(unweighted.slope()).unwrap_or(0.0) - 1.0
    }

    /// The number of samples that are stored, including those older than `max_age`.
    pub const fn samples(&self) -> usize {
        self.samples.len()
    }
}

/// Sums of a linear regression through the origin.
#[derive(Clone, Copy, Debug, Default)]
struct LineFit {
    moment: f64,
    square: f64,
}

impl LineFit {
    fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.moment += weight * x * y;
        self.square += weight * x * x;
    }

    /// `None` if all weights are 0.
    fn slope(&self) -> Option<f64> {
        (self.square > 0.0).then_some(self.moment / self.square)
    }
}

/// There are too few lookups to estimate the size of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct NotEnoughData {
    /// The number of lookups that are not too old.
    pub samples: usize,
    /// The number of lookups that are needed.
    pub needed: usize,
}

impl NotEnoughData {
    /// For machines that do not estimate the size at all.
    pub(crate) const NONE: Self = Self { samples: 0, needed: 1 };
}

impl fmt::Display for NotEnoughData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, needed } = self;
        write!(f, "not enough data: {samples} of {needed} lookups to estimate the network's size by")
    }
}

impl core::error::Error for NotEnoughData {}

/// The estimated size of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeEstimate {
    k: usize,
    /// At least k; infinite where all nodes were at distance 0.
    nodes: f64,
    range: [f64; 2],
    lookups: usize,
    rejected: usize,
}

impl SizeEstimate {
    /// The number of nodes: at least k; `u64::MAX` where the estimate is larger than that.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    pub fn nodes(&self) -> u64 {
        libm::round(self.nodes) as u64
    }

    /// Between which numbers of nodes the truth is, with a confidence of 95 %: two standard deviations, for so many lookups.
    /// Where lookups were [rejected](Self::rejected), it begins lower: as many lies may have passed as were found out. It
    /// does not cover lies that are not found out at all; see [`NetworkSize::estimate`].
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    pub fn range(&self) -> RangeInclusive<u64> {
        let [low, high] = self.range;
        libm::floor(low) as u64..=libm::ceil(high) as u64
    }

    /// How many lookups it is made of.
    pub const fn lookups(&self) -> usize {
        self.lookups
    }

    /// How many lookups were left out, because they do not agree with the others: they were lied to, or have missed nodes. Of
    /// honest ones it is 2 of 1,000.
    pub const fn rejected(&self) -> usize {
        self.rejected
    }

    /// The thresholds of optimistic provide in a network of this size.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds::of(self.k, self.nodes)
    }

    /// How plausible it is that a lookup of `target` found honest nodes: the probability that k honest nodes are
    /// at least as close to it as the first k of `closest`, closest first. `None` if there are fewer.
    ///
    /// For honest lookups this is uniformly distributed from 0 to 1: one of 1,000 is below 0.001. An attacker
    /// who wants to own a key has to place nodes closer to it than all others (CVE-2023-26248). If the k
    /// closest are all such Sybil nodes, the probability is practically 0; if half of 20 are, its median is
    /// 0.003. The remedy is to store with, or to ask, all nodes of the region rather than the k closest.
    ///
    /// N times the distance of the k-th closest of N random keys is distributed as Γ(k).
    pub fn plausibility<K: Key>(&self, target: &K, closest: impl IntoIterator<Item = K>) -> Option<f64> {
        let farthest = closest.into_iter().nth(self.k - 1)?;
        Some(gamma_p(count_as_f64(self.k), self.nodes * normed_distance(&farthest.distance(target))))
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use crate::vocabulary::nearest::nearest;
    use crate::{Bits, Key8};
    use core::time::Duration;
    use proptest::prelude::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::SplitMix64;

    type Key64 = Bits<8>;

    const NOW: Instant = Instant::from_secs(1_000_000);

    struct Random(SplitMix64);

    impl Random {
        fn key(&mut self) -> Key64 {
            Key64::new(self.0.next_u64().to_be_bytes())
        }
    }

    /// All keys of a network, in order.
    struct Network(Vec<Key64>);

    impl Network {
        fn new(nodes: usize, random: &mut Random) -> Self {
            let mut keys: Vec<_> = (0..nodes).map(|_| random.key()).collect();
            keys.sort_unstable();
            Self(keys)
        }

        /// The closest first.
        fn closest(&self, target: Key64) -> impl Iterator<Item = Key64> {
            nearest(&self.0, |key| *key, target).map(|index| self.0[index])
        }

        /// What a node knows of the network after so many lookups.
        fn estimated(&self, lookups: usize, random: &mut Random) -> SizeEstimate {
            let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
            let local = random.key();
            let mut buckets = [0; 65];
            for key in &self.0 {
                buckets[local.common_prefix_len(key) as usize] += 1;
            }
            for _ in 0..lookups {
                let target = random.key();
                let fill = buckets[local.common_prefix_len(&target) as usize].min(20);
                assert!(size.record(NOW, target, self.closest(target), fill));
            }
            size.estimate(NOW).unwrap()
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn error(estimate: SizeEstimate, nodes: usize) -> f64 {
        (estimate.nodes() as f64 - nodes as f64).abs() / nodes as f64
    }

    #[test]
    fn fifty_lookups_tell_the_size_within_a_tenth() {
        for (seed, nodes) in [(1, 1_000), (2, 10_000), (3, 100_000)] {
            let mut random = Random(SplitMix64::seed_from_u64(seed));
            let network = Network::new(nodes, &mut random);
            let mut errors: Vec<_> =
                (0..20).map(|_| error(network.estimated(50, &mut random), nodes)).collect();
            errors.sort_by(f64::total_cmp);
            assert!(errors[19] < 0.1, "{nodes}: {errors:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        fn many_lookups_tell_the_size_of_any_network(seed: u64, magnitude in 2.0..5.0_f64) {
            let nodes = 10_f64.powf(magnitude) as usize;
            let mut random = Random(SplitMix64::seed_from_u64(seed));
            let network = Network::new(nodes, &mut random);
            let found = network.estimated(150, &mut random);
            // A small network is itself a small sample of the key space.
            let most = 0.1 + 30.0 / nodes as f64;
            prop_assert!(error(found, nodes) < most, "{} of {}", found.nodes(), nodes);
        }
    }

    fn small(k: usize, min_samples: usize) -> NetworkSize<Key8> {
        let config = NetworkSizeConfig { k, min_samples, max_samples: 8, ..NetworkSizeConfig::default() };
        NetworkSize::new(config).unwrap()
    }

    /// Records a lookup that found nodes at these distances.
    fn record(size: &mut NetworkSize<Key8>, at: Instant, target: u8, distances: &[u8], fill: usize) -> bool {
        size.record(
            at,
            Key8::new([target]),
            distances.iter().map(|distance| Key8::new([target ^ distance])),
            fill,
        )
    }

    #[test]
    fn worked_out_by_hand() {
        let mut size = small(2, 2);
        assert!(record(&mut size, NOW, 1, &[30, 60], 2));
        // Its weight is 1/2.
        assert!(record(&mut size, NOW, 2, &[90, 150], 1));
        // The means are 50 and 90 of 255, the deviations 40 and 60. The slope is
        // (40 * 1 * 50 + 60 * 2 * 90) / (40 * 1 + 60 * 4) / 255 = 12,800 / 280 / 255.
        let found = size.estimate(NOW).unwrap();
        assert!((found.nodes - (255.0 * 280.0 / 12_800.0 - 1.0)).abs() < 1e-9, "{found:?}");
        assert_eq!(found.nodes(), 5);
    }

    #[test]
    fn a_fuller_bucket_weighs_no_more_and_an_empty_one_still_counts() {
        let mut size = small(2, 2);
        record(&mut size, NOW, 1, &[30, 60], 99);
        record(&mut size, NOW, 2, &[30, 60], usize::MAX);
        let of_equals = size.estimate(NOW).unwrap();
        record(&mut size, NOW, 3, &[15, 30], 0);
        let found = size.estimate(NOW).unwrap();
        assert!(found.nodes > of_equals.nodes && found.nodes < 1.5 * of_equals.nodes, "{found:?}");
        // If all weigh the same, it makes no difference how little that is.
        let of_fill = |fill| {
            let mut size =
                NetworkSize::new(NetworkSizeConfig { k: 1_024, ..NetworkSizeConfig::default() }).unwrap();
            let mut random = Random(SplitMix64::seed_from_u64(1));
            for target in 0..5_u64 {
                let target = Key64::new(target.to_be_bytes());
                let mut distances: Vec<_> = (0..1_024).map(|_| random.key()).collect();
                distances.sort_unstable();
                assert!(size.record(
                    NOW,
                    target,
                    distances.iter().map(|distance| distance.distance(&target)),
                    fill
                ));
            }
            size.estimate(NOW).unwrap()
        };
        assert_eq!(of_fill(0), of_fill(1_024));
    }

    #[test]
    fn lookups_count_until_they_are_too_old() {
        let mut size = small(2, 2);
        let age = NetworkSizeConfig::default().max_age;
        assert!(record(&mut size, NOW, 1, &[1, 2], 2));
        assert_eq!(size.estimate(NOW), Err(NotEnoughData { samples: 1, needed: 2 }));
        let later = NOW + Duration::from_secs(60);
        assert!(record(&mut size, later, 2, &[1, 2], 2));
        assert!(size.estimate(NOW + age).is_ok());
        let past = NOW + age + Duration::from_nanos(1);
        assert_eq!(size.estimate(past), Err(NotEnoughData { samples: 1, needed: 2 }));
        assert_eq!(size.estimate(Instant::FAR_FUTURE), Err(NotEnoughData { samples: 0, needed: 2 }));
        assert!(size.estimate(Instant::ORIGIN).is_ok(), "time does not run backwards");
        assert!(record(&mut size, Instant::ORIGIN, 3, &[1, 2], 2));
        assert!(size.estimate(later + age).is_ok(), "the third counts as of the latest time seen");
        assert!(record(&mut size, Instant::FAR_FUTURE, 4, &[1, 2], 2));
        assert_eq!(size.estimate(NOW), Err(NotEnoughData { samples: 1, needed: 2 }), "the others are past");
    }

    #[test]
    fn a_lookup_that_found_fewer_than_k_is_no_sample() {
        let mut size = small(3, 2);
        assert!(!record(&mut size, NOW, 1, &[], 3) && !record(&mut size, NOW, 1, &[1, 2], 3));
        assert_eq!(size.samples(), 0);
        assert!(record(&mut size, NOW, 1, &[1, 2, 3, 200], 3), "of more, the first k count");
        let endless = [1, 2, 3].into_iter().chain(core::iter::repeat(200));
        assert!(size.record(NOW, Key8::ZERO, endless.map(|byte| Key8::new([byte])), 3));
        assert_eq!(size.estimate(NOW).unwrap().nodes(), 254);
    }

    #[test]
    fn one_target_counts_once() {
        let mut size = small(2, 2);
        for _ in 0..100 {
            assert!(record(&mut size, NOW, 1, &[100, 200], 2));
        }
        assert_eq!(size.estimate(NOW), Err(NotEnoughData { samples: 1, needed: 2 }));
        record(&mut size, NOW, 1, &[1, 2], 2);
        record(&mut size, NOW, 2, &[1, 2], 2);
        assert_eq!(size.estimate(NOW).unwrap().nodes(), 254, "by the last lookup of each");
    }

    #[test]
    fn a_new_lookup_takes_the_place_of_the_oldest() {
        let mut size = small(1, 2);
        for target in 0..8 {
            record(&mut size, NOW + Duration::from_secs(u64::from(target)), target, &[100 + target], 1);
        }
        for target in 8..16 {
            let at = NOW + Duration::from_secs(u64::from(target));
            record(&mut size, at, target, &[100 + target], 1);
            assert_eq!(size.samples(), 8);
            let mut there: Vec<_> = size.samples.iter().map(|sample| sample.target).collect();
            there.sort_unstable();
            assert!(there.into_iter().eq((target - 7..=target).map(|target| Key8::new([target]))));
        }
    }

    #[test]
    fn degenerate_distances_give_a_number_all_the_same() {
        // Nothing deviates: the i-th is at exactly i / 51.
        let mut size = small(3, 5);
        for target in 0..5 {
            assert!(record(&mut size, NOW, target, &[5, 10, 15], 3));
        }
        assert_eq!(size.estimate(NOW).unwrap().nodes(), 50);
        // All at one distance, under many addresses: that of the k-th weighs most.
        let mut size = small(3, 5);
        for target in 0..5 {
            assert!(record(&mut size, NOW, target, &[70, 70, 70], 3));
        }
        let nodes = size.estimate(NOW).unwrap().nodes();
        assert_eq!(nodes, 8, "1 / (70 / 255 * (1 + 2 + 3) / (1 + 4 + 9)) - 1 is 7.5");
        // All at the target itself.
        let mut size = small(3, 5);
        for target in 0..5 {
            assert!(record(&mut size, NOW, target, &[0, 0, 0], 3));
        }
        let found = size.estimate(NOW).unwrap();
        assert_eq!(found.nodes(), u64::MAX);
        let thresholds = found.thresholds();
        assert_eq!((thresholds.individual(), thresholds.set()), (0.0, 0.0));
        let closest = [Key8::ZERO; 3];
        assert!(!thresholds.may_stop(&Key8::ZERO, closest));
        assert!(found.plausibility(&Key8::ZERO, closest).is_some_and(|chance| !chance.is_nan()));
        // As far away as can be: still as many as were found.
        let mut size = small(3, 5);
        for target in 0..5 {
            assert!(record(&mut size, NOW, target, &[255, 255, 255], 3));
        }
        assert_eq!(size.estimate(NOW).unwrap().nodes(), 3);
    }

    #[test]
    fn a_network_of_every_8_bit_key() {
        let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
        for target in 0..=u8::MAX {
            let nodes = (0..20).map(|distance| Key8::new([target ^ distance]));
            assert!(size.record(NOW, Key8::new([target]), nodes, 20));
        }
        assert_eq!(size.samples(), 150);
        let nodes = size.estimate(NOW).unwrap().nodes();
        assert!((230..=282).contains(&nodes), "{nodes}");
    }

    #[test]
    fn the_thresholds_mean_what_they_say() {
        let (nodes, mut random) = (10_000, Random(SplitMix64::seed_from_u64(4)));
        let network = Network::new(nodes, &mut random);
        let thresholds = Thresholds::new(20, 10_000);
        let (mut beyond, mut early) = (0, 0);
        for _ in 0..1_000 {
            let target = random.key();
            // As many as k within the individual threshold are a rarity: one of ten.
            beyond += u32::from(
                network.closest(target).nth(19).is_some_and(|node| thresholds.is_close(&target, &node)),
            );
            early += u32::from(thresholds.may_stop(&target, network.closest(target)));
        }
        assert!((70..130).contains(&beyond), "{beyond}");
        assert!(
            (850..=1_000).contains(&early),
            "a lookup that has found the k closest may mostly stop: {early}"
        );
    }

    #[test]
    fn sybil_nodes_are_implausibly_close() {
        let (nodes, mut random) = (10_000, Random(SplitMix64::seed_from_u64(5)));
        let network = Network::new(nodes, &mut random);
        let found = network.estimated(100, &mut random);
        let (mut honest, mut half, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1_000 {
            let target = random.key();
            honest.push(found.plausibility(&target, network.closest(target)).unwrap());
            // Nodes that stand closer than any other: 20 of them, and 10.
            let sybil = network.closest(target).next().unwrap();
            let sybils = |count| core::iter::repeat_n(sybil, count).chain(network.closest(target));
            all.push(found.plausibility(&target, sybils(20)).unwrap());
            half.push(found.plausibility(&target, sybils(10)).unwrap());
        }
        for chances in [&mut honest, &mut half, &mut all] {
            chances.sort_by(f64::total_cmp);
        }
        // Any number from 0 to 1 is as likely.
        assert!(honest[999] < 1.0);
        for (rank, expected) in [(100, 0.1), (500, 0.5), (900, 0.9)] {
            assert!((honest[rank] - expected).abs() < 0.06, "{rank}: {}", honest[rank]);
        }
        assert!((0.001..0.006).contains(&half[500]), "{}", half[500]);
        assert!(all[500] < 1e-15 && all[999] < honest[0], "{} {}", all[500], all[999]);
        assert_eq!(found.plausibility(&Key64::ZERO, network.closest(Key64::ZERO).take(19)), None);
    }

    /// What comes of so many lookups of which this share is lied to: liars stand at the target, as many as take this number of
    /// places. With a neighbourhood, or without.
    fn lied_to(
        network: &Network,
        random: &mut Random,
        lies: (usize, f64, usize),
        anchored: bool,
    ) -> SizeEstimate {
        let (lookups, share, places) = lies;
        let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
        for lookup in 0..lookups {
            let target = random.key();
            let is_lied_to = (lookup as f64 + 1.0) * share >= (lookup as f64 * share).floor() + 1.0;
            let lies = if is_lied_to { places } else { 0 };
            size.record(NOW, target, core::iter::repeat_n(target, lies).chain(network.closest(target)), 20);
        }
        if anchored {
            let local = random.key();
            size.observe_neighbourhood(&local, network.closest(local));
        }
        size.estimate(NOW).unwrap()
    }

    #[test]
    fn lookups_that_are_lied_to_move_the_estimate_little() {
        let mut random = Random(SplitMix64::seed_from_u64(6));
        for nodes in [100, 1_000, 10_000] {
            let network = Network::new(nodes, &mut random);
            let small = if nodes == 100 { 0.1 } else { 0.0 };
            for lookups in [20, 50, 150] {
                for share in [0.05, 0.15, 0.3, 0.5, 0.7] {
                    let found = lied_to(&network, &mut random, (lookups, share, 20), false);
                    let lied = share * lookups as f64;
                    let most = 0.1 + 0.6 / (lookups as f64 - lied).sqrt() + small;
                    assert!(error(found, nodes) < most, "{nodes}, {share} of {lookups}: {found:?}");
                    assert!((found.rejected() as f64 - lied).abs() < 5.0, "{share} of {lookups}: {found:?}");
                    assert_eq!(found.rejected() + found.lookups(), lookups);
                }
                let found = lied_to(&network, &mut random, (lookups, 0.8, 20), true);
                assert!(error(found, nodes) < 0.4 + small, "{nodes}, of {lookups}: {found:?}");
            }
            // Liars who take only some of the places pass for the truth more easily, and gain less: here up to 31 %.
            for places in [3, 5, 10, 15] {
                let found = lied_to(&network, &mut random, (100, 0.3, places), false);
                assert!(error(found, nodes) < 0.35 + small, "{nodes}, {places} places: {found:?}");
            }
        }
    }

    #[test]
    fn a_liar_of_one_address_group_counts_once() {
        let (nodes, mut random) = (10_000, Random(SplitMix64::seed_from_u64(7)));
        let network = Network::new(nodes, &mut random);
        let estimate = |random: &mut Random, alike: bool| {
            let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
            for lookup in 0..100_u64 {
                let target = random.key();
                // Half of the lookups find liars at twice the density, which is plausible.
                let is_lied_to = lookup % 2 == 0;
                let group =
                    |place: u64| Some(Group(if alike && is_lied_to { 7 } else { 1_000 * lookup + place }));
                let closest: Vec<_> = network.closest(target).take(40).collect();
                let step = u32::from(is_lied_to);
                let near = |key: Key64| {
                    let distance = u64::from_be_bytes(*key.distance(&target).as_bytes()) >> step;
                    Key64::new(distance.to_be_bytes()).distance(&target)
                };
                let nodes = (0..).zip(closest).map(|(place, key)| (near(key), group(place)));
                assert!(size.record_in_groups(NOW, target, nodes, 20));
            }
            size.estimate(NOW).unwrap().nodes()
        };
        let (apart, alike) = (estimate(&mut random, false), estimate(&mut random, true));
        assert!(apart > 12_000 && (9_000..=11_000).contains(&alike), "{apart}, {alike}");
    }

    #[test]
    fn where_all_are_of_one_group_all_count() {
        let (nodes, mut random) = (1_000, Random(SplitMix64::seed_from_u64(8)));
        let network = Network::new(nodes, &mut random);
        let mut sizes = [(); 2].map(|()| NetworkSize::new(NetworkSizeConfig::default()).unwrap());
        for _ in 0..200 {
            let target = random.key();
            let alike = network.closest(target).map(|key| (key, Some(Group(1))));
            sizes[0].record_in_groups(NOW, target, alike, 20);
            sizes[1].record(NOW, target, network.closest(target), 20);
        }
        let [alike, none] = sizes.map(|size| size.estimate(NOW).unwrap());
        assert_eq!((alike.nodes(), alike.lookups()), (none.nodes(), none.lookups()));
    }

    #[test]
    fn lookups_that_miss_nodes_do_not_displace_those_that_do_not() {
        let (nodes, mut random) = (10_000, Random(SplitMix64::seed_from_u64(9)));
        let network = Network::new(nodes, &mut random);
        let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
        for lookup in 0..100 {
            let target = random.key();
            // One of five has found every fourth node only.
            let step = if lookup % 5 == 0 { 8 } else { 1 };
            size.record(NOW, target, network.closest(target).step_by(step), 20);
        }
        let found = size.estimate(NOW).unwrap();
        assert!(error(found, nodes) < 0.1 && (15..=25).contains(&found.rejected()), "{found:?}");
    }

    #[test]
    fn the_truth_is_within_the_range() {
        for (seed, nodes, lookups) in
            [(1, 100, 50), (2, 1_000, 5), (3, 1_000, 50), (4, 1_000, 150), (5, 10_000, 10), (6, 10_000, 150)]
        {
            let mut random = Random(SplitMix64::seed_from_u64(seed));
            let (mut within, mut width) = (0, 0.0);
            for _ in 0..60 {
                let network = Network::new(nodes, &mut random);
                let found = network.estimated(lookups, &mut random);
                within += u32::from(found.range().contains(&(nodes as u64)));
                width += (found.range().end() - found.range().start()) as f64 / nodes as f64 / 60.0;
            }
            assert!((54..=60).contains(&within), "{nodes} nodes, {lookups} lookups: {within} of 60, {width}");
            assert!(width < 1.2 / (lookups as f64).sqrt() + 2.5 / (nodes as f64).sqrt(), "{nodes}: {width}");
        }
    }

    /// The estimate is unbiased: it is off by no more than chance. Its spread is that of as many samples as the lookups have
    /// (20 each), and leaving out those that do not agree, though all are honest, costs next to nothing.
    #[test]
    fn honest_lookups_are_unbiased_and_hardly_any_is_left_out() {
        const REPEATS: usize = 60;
        for (nodes, lookups) in [(30, 10), (1_000, 10), (1_000, 150), (10_000, 10), (10_000, 150)] {
            let mut random = Random(SplitMix64::seed_from_u64(nodes as u64));
            let (mut errors, mut rejected) = ([Vec::new(), Vec::new()], 0);
            for _ in 0..REPEATS {
                let network = Network::new(nodes, &mut random);
                let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
                for _ in 0..lookups {
                    let target = random.key();
                    assert!(size.record(NOW, target, network.closest(target), 20));
                }
                let found = size.estimate(NOW).unwrap();
                errors[0].push(size.fit(NOW, [0.0, 1.0]) / nodes as f64 - 1.0);
                errors[1].push(found.nodes / nodes as f64 - 1.0);
                rejected += found.rejected();
            }
            let of = |errors: &[f64]| {
                let mean = errors.iter().sum::<f64>() / errors.len() as f64;
                let square = errors.iter().map(|error| (error - mean).powi(2)).sum::<f64>();
                (mean, (square / errors.len() as f64).sqrt())
            };
            let [(bias_of_all, spread_of_all), (bias, spread)] = errors.map(|errors| of(&errors));
            let what = format!("{nodes} nodes, {lookups} lookups: {bias} {spread}, of all {spread_of_all}");
            for (bias, spread) in [(bias_of_all, spread_of_all), (bias, spread)] {
                assert!(bias.abs() < 4.0 * spread / (REPEATS as f64).sqrt(), "biased: {what}");
            }
            assert!(spread < 1.4 / (20.0 * lookups as f64).sqrt(), "too wide: {what}");
            assert!(spread < 1.1 * spread_of_all, "wider than all lookups: {what}");
            let most = REPEATS * lookups / 100;
            assert!(rejected <= most, "{rejected} rejected: {what}");
        }
    }

    #[test]
    fn bad_configurations_are_named() {
        let bad = |change: fn(&mut NetworkSizeConfig)| {
            let mut config = NetworkSizeConfig::default();
            change(&mut config);
            NetworkSize::<Key8>::new(config).map(|_| ()).map_err(|error| error.field())
        };
        assert_eq!(bad(|config| config.k = 0), Err("network_size.k"));
        assert_eq!(bad(|config| config.k = 1_025), Err("network_size.k"));
        assert_eq!(bad(|config| config.max_samples = 65_537), Err("network_size.max_samples"));
        assert_eq!(bad(|config| config.min_samples = 0), Err("network_size.min_samples"));
        assert_eq!(bad(|config| config.min_samples = 151), Err("network_size.min_samples"));
        assert_eq!(bad(|config| config.max_age = Duration::ZERO), Err("network_size.max_age"));
        assert_eq!(bad(|_| ()), Ok(()));
    }
}
