//! [`Thresholds`]: how close to a key a node must be for an optimistic store.

use crate::network_size::gamma::inverse_gamma_p;
use crate::network_size::numbers::{count_as_f64, normed_distance};
use crate::vocabulary::key::Key;

/// How close to a key nodes must be for a record to be stored with them before the lookup has ended: the
/// thresholds of optimistic provide (Trautwein et al., INFOCOM 2024).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    k: usize,
    individual: f64,
    set: f64,
}

impl Thresholds {
    /// The probability that k nodes are within the individual threshold.
    const INDIVIDUAL_PROBABILITY: f64 = 0.1;
    /// The probability that k/2 + 1 nodes are within the set threshold.
    const SET_PROBABILITY: f64 = 0.9;

    /// The thresholds for records that are stored with the k closest nodes of a network of `nodes` nodes. `k` is
    /// clamped to 1 ..= 1,024, and `nodes` is at least 1. Costs some 10,000 floating-point operations for k = 20.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(k: usize, nodes: u64) -> Self {
        Self::of(k.clamp(1, 1_024), nodes.max(1) as f64)
    }

    pub(super) fn of(k: usize, nodes: f64) -> Self {
        let individual = inverse_gamma_p(count_as_f64(k), Self::INDIVIDUAL_PROBABILITY) / nodes;
        let set = inverse_gamma_p(count_as_f64(k) / 2.0 + 1.0, Self::SET_PROBABILITY) / nodes;
        Self { k, individual, set }
    }

    /// The individual threshold: P⁻¹(k, 0.1) / N, which is 14.53 / N for k = 20, as a normed distance. P⁻¹ is the
    /// inverse of the regularised lower incomplete gamma function.
    pub const fn individual(&self) -> f64 {
        self.individual
    }

    /// The set threshold: P⁻¹(k/2 + 1, 0.9) / N, which is 15.41 / N for k = 20, as a normed distance.
    pub const fn set(&self) -> f64 {
        self.set
    }

    /// Whether a node is no farther from the target than the individual threshold: almost surely one of the k
    /// closest.
    pub fn is_close<K: Key>(&self, target: &K, node: &K) -> bool {
        normed_distance(&node.distance(target)) <= self.individual
    }

    /// Whether the lookup may stop: the mean distance of the first k of `closest` is below the set threshold.
    /// False if there are fewer than k.
    pub fn may_stop<K: Key>(&self, target: &K, closest: impl IntoIterator<Item = K>) -> bool {
        let distances = closest.into_iter().take(self.k).map(|node| normed_distance(&node.distance(target)));
        let (count, sum) = distances.fold((0, 0.0), |(count, sum), distance| (count + 1, sum + distance));
        count == self.k && sum < self.set * count_as_f64(self.k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key160;
    use crate::network_size::gamma::tests::integrated;

    #[test]
    fn thresholds_for_any_k() {
        let known = Thresholds::new(20, 1);
        assert!(
            (known.individual() - 14.53).abs() < 0.005 && (known.set() - 15.41).abs() < 0.005,
            "{known:?}"
        );
        for k in [1, 2, 3, 5, 8, 16, 20, 32, 100, 255, 1_024] {
            let thresholds = Thresholds::new(k, 1);
            let found = integrated(count_as_f64(k), thresholds.individual());
            assert!((found - 0.1).abs() < 1e-4, "{k}: {found}");
            let found = integrated(count_as_f64(k) / 2.0 + 1.0, thresholds.set());
            assert!((found - 0.9).abs() < 1e-4, "{k}: {found}");
            // In a network of 1,000 nodes they are a thousandth.
            let thousandth = Thresholds::new(k, 1_000);
            assert!((thousandth.individual() * 1_000.0 - thresholds.individual()).abs() < 1e-9);
            assert!((thousandth.set() * 1_000.0 - thresholds.set()).abs() < 1e-9);
        }
        assert_eq!(Thresholds::new(0, 0), Thresholds::new(1, 1));
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
}
