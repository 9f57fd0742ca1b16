//! How large the network is, judged by how close together nodes stand; and how near is near enough, given that.
//!
//! Where N keys are uniformly random, the i-th closest of them to any target is at i / (N + 1) of the key space on
//! average. So each completed lookup is a sample of N. The estimate and the thresholds are those that go-libp2p-kad-dht
//! uses (`netsize`, and its optimistic provide; Trautwein et al., INFOCOM 2024). Distances here are *normed*: parts of
//! the largest distance there is, 0 to 1.
//!
//! What decides uses IEEE arithmetic and the `libm` crate, and so is the same on every platform.

use crate::error::{ConfigError, require};
use crate::key::Key;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;

/// How lookups are made into an estimate.
///
/// Memory: `max_samples + 1` rows of `k` numbers of 8 bytes, besides some 100 bytes and a key each; with the defaults 40 kB.
/// They are taken as samples come in; after that nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkSizeConfig {
    /// k: how many closest nodes of a lookup are looked at. 1 to 1,024. Default: 20.
    pub k: usize,
    /// How many lookups are remembered; a new one takes the place of the oldest. At most 65,536. Default: 150.
    pub max_samples: usize,
    /// With fewer lookups there is no estimate. 2 to `max_samples`. Default: 5.
    pub min_samples: usize,
    /// How long a lookup counts. Default: 2 h.
    pub max_age: Duration,
}

impl Default for NetworkSizeConfig {
    fn default() -> Self {
        Self { k: 20, max_samples: 150, min_samples: 5, max_age: Duration::from_secs(2 * 60 * 60) }
    }
}

impl NetworkSizeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.k), "network_size.k", "1 to 1,024")?;
        require(self.max_samples <= 65_536, "network_size.max_samples", "at most 65,536")?;
        let samples = 2..=self.max_samples;
        require(
            samples.contains(&self.min_samples),
            "network_size.min_samples",
            "2 to network_size.max_samples",
        )?;
        require(!self.max_age.is_zero(), "network_size.max_age", "longer than zero")
    }
}

/// One lookup.
#[derive(Clone, Debug)]
struct Sample<K> {
    target: K,
    at: Instant,
    weight: f64,
    /// Of the i-th closest.
    distances: Vec<f64>,
}

/// Estimates the number of nodes (others than ourselves, that answer) from completed lookups. Plain data: it wants no
/// wake-up.
///
/// ```
/// use kad_proto::netsize::{NetworkSize, NetworkSizeConfig};
/// use kad_proto::{Instant, Key, Key8};
///
/// let mut size = NetworkSize::new(NetworkSizeConfig { k: 3, ..NetworkSizeConfig::default() })?;
/// let now = Instant::ORIGIN;
/// assert_eq!(size.estimate(now).map_err(|few| few.samples), Err(0));
/// for target in (0..250).step_by(25).map(|byte| Key8::new([byte])) {
///     // A lookup found nodes at these distances. All the while, our bucket at the target's cpl was full.
///     let closest = [8, 16, 24].map(|distance| target.distance(&Key8::new([distance])));
///     assert!(size.record(now, target, closest, 3));
/// }
/// assert_eq!(size.estimate(now)?.nodes(), 31);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetworkSize<K> {
    config: NetworkSizeConfig,
    /// In no order: a new one takes the place of one.
    samples: Vec<Sample<K>>,
    /// Room for the distances of the next.
    spare: Vec<f64>,
    latest: Instant,
}

impl<K: Key> NetworkSize<K> {
    /// Knows of no lookup.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(config: NetworkSizeConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config, samples: Vec::new(), spare: Vec::new(), latest: Instant::ORIGIN })
    }

    /// Takes a lookup that ended at `now` by itself, neither stopped nor out of time: the keys of the closest nodes to
    /// `target`, closest first, of which the first k count. Says whether it is a sample: one of fewer is not.
    ///
    /// `fill` is how many nodes our routing table holds in the target's bucket,
    /// `table.bucket(table.local().common_prefix_len(&target)).len()`. Each that is missing to k halves the weight of the
    /// sample: the fewer nodes we know there, the likelier the lookup missed some.
    ///
    /// A target counts once: where it is looked up again, the new sample takes the place of the old, so that nobody who
    /// looks up one key over and over makes an estimate of one sample.
    ///
    /// O(k + `max_samples`).
    pub fn record(
        &mut self,
        now: Instant,
        target: K,
        closest: impl IntoIterator<Item = K>,
        fill: usize,
    ) -> bool {
        self.latest = self.latest.max(now);
        let NetworkSizeConfig { k, max_samples, .. } = self.config;
        self.spare.clear();
        self.spare.reserve_exact(k);
        self.spare.extend(closest.into_iter().take(k).map(|key| normed(&key.distance(&target))));
        if self.spare.len() < k {
            return false;
        }
        // Beyond that, what is left of a weight makes no difference.
        let missing = i32::try_from(k.saturating_sub(fill)).unwrap_or(i32::MAX).min(512);
        let (at, weight) = (self.latest, libm::ldexp(1.0, -missing));
        let same = self.samples.iter().position(|sample| sample.target == target);
        let crowded = self.samples.len() >= max_samples;
        let oldest = || (0..).zip(&self.samples).min_by_key(|(_, sample)| sample.at).map(|(place, _)| place);
        let place = same.or_else(|| if crowded { oldest() } else { None });
        if let Some(sample) = place.and_then(|place| self.samples.get_mut(place)) {
            core::mem::swap(&mut sample.distances, &mut self.spare);
            (sample.target, sample.at, sample.weight) = (target, at, weight);
        } else {
            let distances = core::mem::take(&mut self.spare);
            self.samples.push(Sample { target, at, weight, distances });
        }
        true
    }

    /// The size of the network, by the lookups that ended no longer than `max_age` before `now`.
    ///
    /// For each rank i of k, the weighted mean yᵢ and the weighted deviation σᵢ of the distances of the i-th closest; a line
    /// through the origin with the slope Σ σᵢ·i·yᵢ / Σ σᵢ·i²; N is one less than its inverse. Where nothing deviates, all
    /// ranks weigh the same. In networks of 1,000 nodes or more, after 50 lookups half of all estimates are within 2.5 %, and
    /// 99 of 100 within 11 %; after 150, within 1.6 % and 7 %.
    ///
    /// O(k · `max_samples`).
    ///
    /// # Errors
    /// [`NotEnoughData`] where there are fewer than `min_samples` such lookups.
    pub fn estimate(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        let NetworkSizeConfig { k, min_samples, max_age, .. } = self.config;
        let now = self.latest.max(now);
        let fresh = || self.samples.iter().filter(|sample| now - sample.at <= max_age);
        let samples = fresh().count();
        if samples < min_samples {
            return Err(NotEnoughData { samples, needed: min_samples });
        }
        let total: f64 = fresh().map(|sample| sample.weight).sum();
        let (mut weighed, mut flat) = (Line::default(), Line::default());
        for rank in 0..k {
            let points = || {
                fresh()
                    .filter_map(|sample| sample.distances.get(rank).map(|distance| (sample.weight, distance)))
            };
            let mean = points().map(|(weight, distance)| weight * distance).sum::<f64>() / total;
            let squares = points().map(|(weight, distance)| weight * (distance - mean) * (distance - mean));
            // As much too small at each rank as the sample is small: of no consequence.
            let variance = squares.sum::<f64>() / total;
            weighed.add(libm::sqrt(variance), whole(rank + 1), mean);
            flat.add(1.0, whole(rank + 1), mean);
        }
        let slope = weighed.slope().or(flat.slope()).unwrap_or(0.0);
        // As many as were found there are.
        Ok(SizeEstimate { k, nodes: (1.0 / slope - 1.0).max(whole(k)) })
    }

    /// How many lookups are remembered, old ones included.
    pub const fn samples(&self) -> usize {
        self.samples.len()
    }
}

/// Sums of a linear regression through the origin.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    moment: f64,
    square: f64,
}

impl Line {
    fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.moment += weight * x * y;
        self.square += weight * x * x;
    }

    fn slope(&self) -> Option<f64> {
        (self.square > 0.0).then_some(self.moment / self.square)
    }
}

/// Too few lookups to estimate the size of the network by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize))]
pub struct NotEnoughData {
    /// How many lookups there are that are not too old.
    pub samples: usize,
    /// How many there have to be.
    pub needed: usize,
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
}

impl SizeEstimate {
    /// How many nodes there are: at least k, and `u64::MAX` where no number is large enough.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    pub fn nodes(&self) -> u64 {
        libm::round(self.nodes) as u64
    }

    /// How near is near enough in a network of this size.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds::of(self.k, self.nodes)
    }

    /// How plausible it is that a lookup of `target` found honest nodes: the chance that k of them stand by themselves at
    /// least as close together as the first k of `closest`, closest first. `None` where there are fewer.
    ///
    /// For honest lookups this is any number from 0 to 1, each as likely: one of 1,000 is below 0.001. Who wants to own a
    /// key has to put nodes closer to it than all others (CVE-2023-26248). Where the k closest are all such Sybil nodes, the
    /// chance is as good as 0; where half of 20 are, it is 0.003 in the middle. The remedy is to store with, or to ask, all
    /// nodes of the region rather than the k closest.
    ///
    /// N times the distance of the k-th closest of N random keys is distributed as Γ(k).
    pub fn plausibility<K: Key>(&self, target: &K, closest: impl IntoIterator<Item = K>) -> Option<f64> {
        let farthest = closest.into_iter().nth(self.k - 1)?;
        Some(gamma(whole(self.k), self.nodes * normed(&farthest.distance(target))))
    }
}

/// How near to a key a node has to be for a record to be stored with it before the lookup has ended: optimistic provide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    k: usize,
    individual: f64,
    set: f64,
}

impl Thresholds {
    /// How likely it is that k nodes are within the individual threshold.
    const STRAY: f64 = 0.1;
    /// How likely it is that k/2 + 1 nodes are within the set threshold.
    const SURE: f64 = 0.9;

    /// The thresholds for records that are stored with the k closest of so many nodes. No more than 1,024 are considered
    /// for k, no fewer than 1 for either. Costs some 10,000 floating-point operations for k = 20.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(k: usize, nodes: u64) -> Self {
        Self::of(k.clamp(1, 1_024), nodes.max(1) as f64)
    }

    fn of(k: usize, nodes: f64) -> Self {
        let individual = inverse_gamma(whole(k), Self::STRAY) / nodes;
        let set = inverse_gamma(whole(k) / 2.0 + 1.0, Self::SURE) / nodes;
        Self { k, individual, set }
    }

    /// The individual threshold: P⁻¹(k, 0.1) / N, which is 14.53 / N for k = 20, as a normed distance. P⁻¹ is the inverse
    /// of the regularised lower incomplete gamma function.
    pub const fn individual(&self) -> f64 {
        self.individual
    }

    /// The set threshold: P⁻¹(k/2 + 1, 0.9) / N, which is 15.41 / N for k = 20, as a normed distance.
    pub const fn set(&self) -> f64 {
        self.set
    }

    /// Whether a node is no farther from the target than the individual threshold: almost surely one of the k closest.
    pub fn is_close<K: Key>(&self, target: &K, node: &K) -> bool {
        normed(&node.distance(target)) <= self.individual
    }

    /// Whether the lookup may stop: the mean distance of the first k of `closest` is below the set threshold. Not where
    /// there are fewer than k.
    pub fn may_stop<K: Key>(&self, target: &K, closest: impl IntoIterator<Item = K>) -> bool {
        let distances = closest.into_iter().take(self.k).map(|node| normed(&node.distance(target)));
        let (count, sum) = distances.fold((0, 0.0), |(count, sum), distance| (count + 1, sum + distance));
        count == self.k && sum < self.set * whole(self.k)
    }
}

/// The distance as a part of the largest there is. What lies beyond the first 64 bits makes no difference.
#[allow(clippy::cast_precision_loss)]
fn normed<K: Key>(distance: &K) -> f64 {
    let most = u64::MAX.checked_shl(64_u32.saturating_sub(K::BITS)).unwrap_or(1);
    distance.leading() as f64 / most as f64
}

#[allow(clippy::cast_precision_loss)] // small numbers
fn whole(number: usize) -> f64 {
    number as f64
}

/// Beyond this, the regularised lower incomplete gamma function for `a` from 1 to 1,024 is 1 to double precision.
fn beyond(a: f64) -> f64 {
    a + 10.0 * libm::sqrt(a) + 100.0
}

/// The regularised lower incomplete gamma function P(a, x), `a` from 1 to 1,024, by its series: all terms are positive,
/// so nothing cancels out.
fn gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x > beyond(a) {
        return 1.0;
    }
    let (mut term, mut sum, mut n) = (1.0, 1.0, a);
    while term > sum * f64::EPSILON {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    (sum * libm::exp(a * libm::log(x) - x - libm::lgamma(a + 1.0))).min(1.0)
}

/// Where P(a, x) is p: by bisection, down to the last bit.
fn inverse_gamma(a: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, beyond(a));
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        *(if gamma(a, middle) < p { &mut low } else { &mut high }) = middle;
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::nearest;
    use crate::{Bits, Key8, Key160};
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
            nearest(&self.0, |key| *key, target).map(|place| self.0[place])
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
        record(&mut size, NOW, 3, &[1, 2], 0);
        let found = size.estimate(NOW).unwrap();
        assert!(found.nodes > of_equals.nodes && found.nodes < 1.5 * of_equals.nodes, "{found:?}");
        // Where all weigh the same, it makes no difference how little that is.
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

    /// P(a, x) by Simpson's rule, for `a` a whole or half number: P is an integral, and 1/P⁻¹ is not used.
    fn integrated(a: f64, x: f64) -> f64 {
        // ln Γ(a), from Γ(1) = 1 or Γ(1/2) = √π up.
        let half = a.fract() != 0.0;
        let mut log_gamma = if half { std::f64::consts::PI.sqrt().ln() } else { 0.0 };
        let mut at = if half { 0.5 } else { 1.0 };
        while at < a {
            log_gamma += f64::ln(at);
            at += 1.0;
        }
        let at_zero = if a > 1.0 { 0.0 } else { 1.0 };
        let density = |t: f64| ((a - 1.0) * t.ln() - t - log_gamma).exp();
        let steps = 20_000_i32;
        let width = x / f64::from(steps);
        let inner = (1..steps).map(|i| f64::from(2 + i % 2 * 2) * density(width * f64::from(i)));
        (inner.sum::<f64>() + at_zero + density(x)) * width / 3.0
    }

    #[test]
    fn thresholds_for_any_k() {
        let known = Thresholds::new(20, 1);
        assert!(
            (known.individual() - 14.53).abs() < 0.005 && (known.set() - 15.41).abs() < 0.005,
            "{known:?}"
        );
        for k in [1, 2, 3, 5, 8, 16, 20, 32, 100, 255, 1_024] {
            let thresholds = Thresholds::new(k, 1);
            let found = integrated(whole(k), thresholds.individual());
            assert!((found - 0.1).abs() < 1e-4, "{k}: {found}");
            let found = integrated(whole(k) / 2.0 + 1.0, thresholds.set());
            assert!((found - 0.9).abs() < 1e-4, "{k}: {found}");
            // In a network of 1,000 nodes they are a thousandth.
            let thousandth = Thresholds::new(k, 1_000);
            assert!((thousandth.individual() * 1_000.0 - thresholds.individual()).abs() < 1e-9);
            assert!((thousandth.set() * 1_000.0 - thresholds.set()).abs() < 1e-9);
        }
        assert_eq!(Thresholds::new(0, 0), Thresholds::new(1, 1));
    }

    #[test]
    fn the_gamma_function_is_what_the_integral_says() {
        for a in [1.0, 1.5, 2.0, 11.0, 20.0, 20.5, 300.0, 1_024.0] {
            for part in [0.3, 0.7, 0.95, 1.0, 1.1, 1.5, 3.0, 20.0] {
                let x: f64 = a * part;
                let (found, expected) = (gamma(a, x), integrated(a, x.min(a + 40.0 * a.sqrt())));
                assert!((found - expected).abs() < 1e-4, "P({a}, {x}) is {expected}, not {found}");
            }
            assert_eq!((gamma(a, 0.0), gamma(a, -1.0), gamma(a, f64::INFINITY)), (0.0, 0.0, 1.0));
            assert!(gamma(a, beyond(a)) > 1.0 - 1e-12);
        }
    }

    #[test]
    fn nodes_within_the_thresholds() {
        // 1,000 nodes: the individual threshold is at 0.01453, the set threshold at 0.01541 of the key space.
        let thresholds = Thresholds::new(20, 1_000);
        let target = Key160::ZERO;
        let at = |part: f64| {
            let mut bytes = [0; 20];
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            bytes[..4].copy_from_slice(&((part * 2_f64.powi(32)) as u32).to_be_bytes());
            Key160::new(bytes)
        };
        assert!(thresholds.is_close(&target, &at(0.0145)) && !thresholds.is_close(&target, &at(0.0146)));
        assert!(
            thresholds.may_stop(&target, [at(0.0154); 20]) && !thresholds.may_stop(&target, [at(0.0155); 20])
        );
        // Half of them nearer, half of them farther: it is the mean that counts.
        let mean = |far| [[at(0.01); 10], [at(far); 10]].concat();
        assert!(thresholds.may_stop(&target, mean(0.0207)) && !thresholds.may_stop(&target, mean(0.0209)));
        assert!(!thresholds.may_stop(&target, [at(0.0); 19]), "those that are missing are not at distance 0");
        assert!(thresholds.may_stop(&target, [[at(0.0); 20], [at(0.9); 20]].concat()), "the first k count");
        assert!(!Thresholds::new(20, u64::MAX).is_close(&target, &at(0.001)));
        assert!(Thresholds::new(20, 20).is_close(&target, &at(0.7)), "most of a small network is close");
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

    #[test]
    fn lookups_that_are_lied_to_move_the_estimate_by_their_share() {
        let (nodes, mut random) = (10_000, Random(SplitMix64::seed_from_u64(6)));
        let network = Network::new(nodes, &mut random);
        let mut size = NetworkSize::new(NetworkSizeConfig::default()).unwrap();
        for lookup in 0..100 {
            let target = random.key();
            // One of ten targets is surrounded by nodes that stand where it is.
            let lies = if lookup % 10 == 0 { 20 } else { 0 };
            size.record(NOW, target, core::iter::repeat_n(target, lies).chain(network.closest(target)), 20);
        }
        assert!(error(size.estimate(NOW).unwrap(), nodes) < 0.25);
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
