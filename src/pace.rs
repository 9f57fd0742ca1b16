//! How long to wait: time-outs adapted to observed round trips, in the manner of TCP (RFC 6298).
//!
//! Only answers that come in time are observed. Where hardly any does, the estimates are not to be trusted (the nodes
//! asked so far were much nearer than these), and time-outs go back towards the configured one: TCP's back-off, over
//! all requests together.

/// Running estimates of the mean and the mean deviation of round trips, in nanoseconds. Integers only, so that they
/// are the same everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    mean: u64,
    deviation: u64,
    samples: u64,
    /// The share of the last requests that were not answered in time, in parts of `ALL`.
    silent: u64,
}

impl Pace {
    /// With fewer samples the time-outs for the start are used.
    const ENOUGH: u64 = 8;
    /// Each sample has this share of the estimates, once there are as many.
    const MEMORY: u64 = 32;
    const ALL: u64 = 1 << 16;
    /// Each request has this share of `silent`.
    const LATEST: u64 = 16;
    /// Beyond this share of silence, time-outs grow.
    const TRUSTED: u64 = Self::ALL / 4 * 3;

    /// Notes that a request was answered in time, or ran into its time-out.
    pub(crate) fn ended(&mut self, in_time: bool) {
        self.silent -= self.silent / Self::LATEST;
        if !in_time {
            self.silent += Self::ALL / Self::LATEST;
        }
    }

    /// Takes the round trip of an answer.
    pub(crate) fn observe(&mut self, round_trip: u64) {
        // A lifetime is beyond any time-out, and leaves room for the arithmetic.
        let sample = round_trip.min(1 << 61);
        self.samples = (self.samples + 1).min(Self::MEMORY);
        if self.samples == 1 {
            (self.mean, self.deviation) = (sample, sample / 2);
        } else {
            self.deviation = Self::blend(self.deviation, self.mean.abs_diff(sample), self.samples);
            self.mean = Self::blend(self.mean, sample, self.samples);
        }
    }

    fn blend(old: u64, new: u64, samples: u64) -> u64 {
        // The usual case by a constant, which is a shift.
        let share = |part: u64| if samples == Self::MEMORY { part / Self::MEMORY } else { part / samples };
        if new >= old { old + share(new - old) } else { old - share(old - new) }
    }

    /// The soft limit: a little more than the mean, as a request costs less than the wait for one that is lost. Never
    /// below a third of `least`, never above `most`.
    pub(crate) fn soft(&self, least: u64, at_first: u64, most: u64) -> u64 {
        // Not at once: a call leaves nothing undone that is due.
        self.limit(self.mean + self.deviation / 4, (least / 3).max(1), at_first, most)
    }

    /// The time-out: the mean and five deviations, at least twice the mean. Never below `least`, never above `most`.
    pub(crate) fn hard(&self, least: u64, at_first: u64, most: u64) -> u64 {
        let spread = self.deviation.saturating_mul(5).max(self.mean);
        let wanted = self.mean.saturating_add(spread).max(least);
        let doubt = self.silent.saturating_sub(Self::TRUSTED);
        let more = most.saturating_sub(wanted) / (Self::ALL - Self::TRUSTED) * doubt;
        self.limit(wanted.saturating_add(more), least, at_first, most)
    }

    fn limit(&self, wanted: u64, least: u64, at_first: u64, most: u64) -> u64 {
        (if self.samples >= Self::ENOUGH { wanted.max(least) } else { at_first }).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const MOST: u64 = 10_000 * MS;

    #[test]
    fn without_samples_the_configured_time_outs_hold() {
        let mut pace = Pace::default();
        for _ in 1..Pace::ENOUGH {
            pace.observe(MS);
            assert_eq!((pace.soft(MS, MOST, MOST), pace.hard(MS, MOST, MOST)), (MOST, MOST));
        }
        pace.observe(MS);
        assert!(pace.hard(MS, MOST, MOST) < MOST);
    }

    #[test]
    fn steady_round_trips_are_learnt_and_forgotten() {
        let mut pace = Pace::default();
        for ms in [40, 400] {
            (0..1_000).for_each(|_| pace.observe(ms * MS));
            let (soft, hard) = (pace.soft(MS, MOST, MOST), pace.hard(MS, MOST, MOST));
            assert!(soft >= (ms - 1) * MS && soft <= (ms + 2) * MS, "{soft}");
            assert!(hard >= 2 * (ms - 1) * MS && hard <= (2 * ms + 2) * MS, "{hard}");
        }
    }

    #[test]
    fn where_hardly_anybody_answers_time_outs_go_back_to_the_configured_one() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| pace.observe(10 * MS));
        let near = pace.hard(MS, MOST, MOST);
        for round in 0..300 {
            // Two of three are silent: that alone is no reason.
            pace.ended(round % 3 == 0);
        }
        assert_eq!(pace.hard(MS, MOST, MOST), near);
        (0..100).for_each(|_| pace.ended(false));
        let far = pace.hard(MS, MOST, MOST);
        assert!(far > MOST / 10 * 9 && far <= MOST, "{far}");
        (0..20).for_each(|_| pace.ended(true));
        assert_eq!(pace.hard(MS, MOST, MOST), near);
    }

    #[test]
    fn bounds_hold_at_the_ends_of_time() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.observe(u64::MAX);
            pace.observe(0);
        }
        assert_eq!(pace.hard(MS, MOST, MOST), MOST);
        (0..1_000).for_each(|_| pace.observe(0));
        assert_eq!((pace.soft(9 * MS, MOST, MOST), pace.hard(9 * MS, MOST, MOST)), (3 * MS, 9 * MS));
        assert_eq!(pace.hard(2 * MOST, MOST, MOST), MOST, "a floor above the ceiling means fixed time-outs");
    }
}
