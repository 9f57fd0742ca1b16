//! [`RttEstimator`]: time-outs and soft limits adapted to observed round trips, in the manner of TCP (RFC 6298).
//!
//! Only answers that arrive in time are observed. If hardly any answer does, the estimates are too low (the nodes
//! asked so far were much nearer than these), and the time-out grows back towards the configured one: TCP's
//! backoff, applied to all requests together.

/// Moving averages of the round-trip time and of its mean deviation, in nanoseconds. Integer arithmetic only, so
/// that they are the same on every platform.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    mean: u64,
    deviation: u64,
    samples: u64,
    /// Moving average of the share of requests that timed out, in units of 1 / `FULL_SHARE`.
    timeout_share: u64,
}

impl RttEstimator {
    /// With fewer samples, the initial time-outs are used.
    const MIN_SAMPLES: u64 = 8;
    /// Each round trip has the weight 1 / `RTT_WINDOW` in the averages, once there are that many samples; before,
    /// 1 / samples.
    const RTT_WINDOW: u64 = 32;
    const FULL_SHARE: u64 = 1 << 16;
    /// Each request has the weight 1 / `TIMEOUT_WINDOW` in `timeout_share`.
    const TIMEOUT_WINDOW: u64 = 16;
    /// Above this `timeout_share`, the time-out grows.
    const BACKOFF_THRESHOLD: u64 = Self::FULL_SHARE / 4 * 3;

    /// Records whether a request was answered in time, or ran into its time-out.
    pub(crate) fn record_outcome(&mut self, in_time: bool) {
        self.timeout_share -= self.timeout_share / Self::TIMEOUT_WINDOW;
        if !in_time {
            self.timeout_share += Self::FULL_SHARE / Self::TIMEOUT_WINDOW;
        }
    }

    /// Records the round trip of an answer.
    pub(crate) fn observe(&mut self, round_trip: u64) {
        // 2^61 ns (73 years) is longer than any time-out, and the arithmetic below cannot overflow.
        let sample = round_trip.min(1 << 61);
        self.samples = (self.samples + 1).min(Self::RTT_WINDOW);
        if self.samples == 1 {
            (self.mean, self.deviation) = (sample, sample / 2);
        } else {
            self.deviation = Self::smooth(self.deviation, self.mean.abs_diff(sample), self.samples);
            self.mean = Self::smooth(self.mean, sample, self.samples);
        }
    }

    fn smooth(old: u64, new: u64, samples: u64) -> u64 {
        // In the usual case the divisor is a constant power of two: a shift.
        let share =
            |part: u64| if samples == Self::RTT_WINDOW { part / Self::RTT_WINDOW } else { part / samples };
        if new >= old { old + share(new - old) } else { old - share(old - new) }
    }

    /// The soft limit: mean + 1/4 deviation. It is only a little above the mean, as another request costs less
    /// than waiting for one that is lost. At least a third of `min`, at most `max`; `initial` before there are
    /// enough samples.
    pub(crate) fn soft_limit(&self, min: u64, initial: u64, max: u64) -> u64 {
        // At least 1 ns: a soft limit of zero would be due in the call that sends the request.
        self.clamp(self.mean + self.deviation / 4, (min / 3).max(1), initial, max)
    }

    /// The time-out: mean + 5 deviations, but at least twice the mean, and the backoff. At least `min`, at most
    /// `max`; `initial` before there are enough samples.
    pub(crate) fn timeout(&self, min: u64, initial: u64, max: u64) -> u64 {
        let spread = self.deviation.saturating_mul(5).max(self.mean);
        let estimate = self.mean.saturating_add(spread).max(min);
        let excess = self.timeout_share.saturating_sub(Self::BACKOFF_THRESHOLD);
        let backoff = max.saturating_sub(estimate) / (Self::FULL_SHARE - Self::BACKOFF_THRESHOLD) * excess;
        self.clamp(estimate.saturating_add(backoff), min, initial, max)
    }

    fn clamp(&self, estimate: u64, min: u64, initial: u64, max: u64) -> u64 {
        (if self.samples >= Self::MIN_SAMPLES { estimate.max(min) } else { initial }).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const MOST: u64 = 10_000 * MS;

    #[test]
    fn without_samples_the_configured_time_outs_hold() {
        let mut rtt = RttEstimator::default();
        for _ in 1..RttEstimator::MIN_SAMPLES {
            rtt.observe(MS);
            assert_eq!((rtt.soft_limit(MS, MOST, MOST), rtt.timeout(MS, MOST, MOST)), (MOST, MOST));
        }
        rtt.observe(MS);
        assert!(rtt.timeout(MS, MOST, MOST) < MOST);
    }

    #[test]
    fn estimates_follow_steady_round_trips() {
        let mut rtt = RttEstimator::default();
        for ms in [40, 400] {
            (0..1_000).for_each(|_| rtt.observe(ms * MS));
            let (soft, hard) = (rtt.soft_limit(MS, MOST, MOST), rtt.timeout(MS, MOST, MOST));
            assert!(soft >= (ms - 1) * MS && soft <= (ms + 2) * MS, "{soft}");
            assert!(hard >= 2 * (ms - 1) * MS && hard <= (2 * ms + 2) * MS, "{hard}");
        }
    }

    #[test]
    fn the_time_out_backs_off_when_nearly_all_requests_time_out() {
        let mut rtt = RttEstimator::default();
        (0..100).for_each(|_| rtt.observe(10 * MS));
        let near = rtt.timeout(MS, MOST, MOST);
        for round in 0..300 {
            // Two of three requests time out: still below the backoff threshold.
            rtt.record_outcome(round % 3 == 0);
        }
        assert_eq!(rtt.timeout(MS, MOST, MOST), near);
        (0..100).for_each(|_| rtt.record_outcome(false));
        let far = rtt.timeout(MS, MOST, MOST);
        assert!(far > MOST / 10 * 9 && far <= MOST, "{far}");
        (0..20).for_each(|_| rtt.record_outcome(true));
        assert_eq!(rtt.timeout(MS, MOST, MOST), near);
    }

    #[test]
    fn bounds_hold_at_the_ends_of_time() {
        let mut rtt = RttEstimator::default();
        for _ in 0..100 {
            rtt.observe(u64::MAX);
            rtt.observe(0);
        }
        assert_eq!(rtt.timeout(MS, MOST, MOST), MOST);
        (0..1_000).for_each(|_| rtt.observe(0));
        assert_eq!((rtt.soft_limit(9 * MS, MOST, MOST), rtt.timeout(9 * MS, MOST, MOST)), (3 * MS, 9 * MS));
        assert_eq!(
            rtt.timeout(2 * MOST, MOST, MOST),
            MOST,
            "a floor above the ceiling means fixed time-outs"
        );
    }
}
