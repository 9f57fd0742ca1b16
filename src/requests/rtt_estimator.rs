//! [`RttEstimator`]: what is known of round trips, and how long to wait by it.
//!
//! See the [module above](crate::requests) for what the limits are for, and what they do in several networks.
//!
//! Answers are counted in a histogram with logarithmic buckets. Its counts decay, so that it follows the network, and
//! its memory is constant. A *patience* is a high quantile of it: patience is to be long enough for nearly all answers
//! of a mixture of near and far nodes, for which a mean and a deviation say nothing. Integer arithmetic only, so that the
//! limits are the same on every platform.
//!
//! Who answers can only move the limits so far: within [`EPOCH`](RttEstimator::EPOCH) answers each answerer (each
//! group of nodes, where the family tells groups) counts once. As the patience is the quantile that 1.5 % of the answers
//! exceed, answers that are quick do not lower it below that quantile of the others, unless they are nearly all answers.

use crate::collections::seeded_hash::SeededHash;
use crate::vocabulary::time::Instant;
use core::hash::{BuildHasher, Hasher};

/// How long to wait for an answer, in nanoseconds from the sending of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The soft limit: from then on the request occupies no concurrency slot.
    pub(crate) soft: u64,
    /// From then on the node may be asked again.
    pub(crate) repeat: u64,
    /// From then on the node counts as silent for its operation.
    pub(crate) patience: u64,
    /// The same for a request that repeats another.
    pub(crate) repeat_patience: u64,
    /// The configured maximum has shortened the patience.
    pub(crate) is_capped: bool,
}

/// The configured limits, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfiguredLimits {
    /// The soft limit before enough is known.
    pub(crate) soft: u64,
    /// The request time-out.
    pub(crate) hard: u64,
    /// The least patience.
    pub(crate) min: u64,
    /// The greatest patience.
    pub(crate) max: u64,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct RttEstimator {
    limits: Limits,
    configured: ConfiguredLimits,
    /// Moving average of the share of requests that were not answered within the patience, in units of
    /// 1 / `FULL_SHARE`.
    silence: u32,
    /// The same of those that were not answered at all.
    loss: u32,
    /// The share of repeated requests that were answered.
    repeats: u32,
    /// When the first request was answered; `None` from a time-out later on: then it is known how many are lost.
    first_answer: Option<Instant>,
    /// Short memory: the 56 % and the 25 % quantile of the latest answers, as positions on the logarithmic scale of the
    /// buckets.
    usual: u32,
    quick: u32,
    /// How many answers in a row took longer than `usual`. One counts only if it was sent after the last that did not had arrived:
    /// those of slow nodes come late and together, though others were quick meanwhile.
    slower: u32,
    /// When that one arrived.
    last_quick: Instant,
    /// Answers counted so far, up to `MIN_FULL`.
    samples: u32,
    /// Answers until the limits are computed anew.
    until_update: u32,
    /// See [`take_shortened`](Self::take_shortened).
    shortened: bool,
    /// The limits are of many answers.
    knows_enough: bool,
    /// Long memory; allocated at the first answer.
    answers: Option<Box<Histogram>>,
}

/// A decaying histogram of answers, and who has answered.
#[derive(Clone, Debug)]
struct Histogram {
    /// Answers by bucket, each `UNIT`.
    counts: [u16; Self::BUCKETS],
    total: u32,
    /// No bucket from here on has a count.
    end: usize,
    /// Who was counted in this epoch, by hash.
    counted: [u64; Self::SEEN_WORDS],
    counted_now: u32,
    offered_now: u32,
}

impl Histogram {
    /// Buckets of an octave.
    const PER_OCTAVE: u32 = 16;
    /// Shorter round trips than 2^14 ns (16 µs) count as that.
    const FIRST_OCTAVE: u32 = 14;
    /// Longer ones than 2^39 ns (9 min) count as that.
    const OCTAVES: u32 = 25;
    const BUCKETS: usize = (Self::PER_OCTAVE * Self::OCTAVES) as usize;
    /// The count of one answer: it takes four halvings to be forgotten.
    const UNIT: u16 = 8;
    /// At this total all counts are halved: 4,096 answers.
    const MOST: u32 = 4_096 * Self::UNIT as u32;
    const SEEN_WORDS: usize = 64;

    const fn new() -> Self {
        Self {
            counts: [0; Self::BUCKETS],
            total: 0,
            end: 0,
            counted: [0; Self::SEEN_WORDS],
            counted_now: 0,
            offered_now: 0,
        }
    }

    /// Whether this answerer has not been counted in this epoch; counts it.
    fn is_first(&mut self, answerer: u64) -> bool {
        self.offered_now += 1;
        // In a small network the answerers come again before others do. Not so that one of them could count again alone.
        let come_again = self.counted_now >= 8 && self.offered_now > (4 * self.counted_now).max(64);
        if self.counted_now >= RttEstimator::EPOCH || come_again {
            self.counted = [0; Self::SEEN_WORDS];
            (self.counted_now, self.offered_now) = (0, 1);
        }
        #[allow(clippy::cast_possible_truncation)] // the lowest bits are meant
        let word = self.counted.get_mut((answerer >> 6) as usize % Self::SEEN_WORDS);
        let Some(word) = word else { return false };
        let bit = 1 << (answerer & 63);
        let is_first = *word & bit == 0;
        *word |= bit;
        self.counted_now += u32::from(is_first);
        is_first
    }

    /// The count of the answers that took longer, to a bucket.
    fn later_than(&self, round_trip: u64) -> u32 {
        let first = (position(round_trip) >> 6) as usize + 1;
        self.counts.get(first..self.end).unwrap_or_default().iter().map(|count| u32::from(*count)).sum()
    }

    fn add(&mut self, bucket: usize) {
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += Self::UNIT;
            self.total += u32::from(Self::UNIT);
            self.end = self.end.max(bucket + 1);
        }
        if self.total >= Self::MOST {
            self.total = 0;
            let mut end = 0;
            for (bucket, count) in self.counts.iter_mut().enumerate() {
                *count /= 2;
                self.total += u32::from(*count);
                if *count > 0 {
                    end = bucket + 1;
                }
            }
            self.end = end;
        }
    }
}

/// The place of a round trip on the logarithmic scale, in units of 1/64 bucket.
fn position(round_trip: u64) -> u32 {
    let least = 1 << Histogram::FIRST_OCTAVE;
    let most = (1 << (Histogram::FIRST_OCTAVE + Histogram::OCTAVES)) - 1;
    let nanos = round_trip.clamp(least, most);
    let octave = nanos.ilog2();
    // The ten bits after the leading one: 16 buckets of 64 parts.
    #[allow(clippy::cast_possible_truncation)] // ten bits
    let parts = (nanos >> (octave - 10)) as u32 & 0x3ff;
    (octave - Histogram::FIRST_OCTAVE) << 10 | parts
}

/// The round trip at a place on the logarithmic scale.
fn round_trip_at(position: u32) -> u64 {
    let octave = Histogram::FIRST_OCTAVE + (position >> 10);
    u64::from(1 << 10 | position & 0x3ff) << (octave - 10)
}

impl RttEstimator {
    /// With fewer answers, the configured limits hold.
    const MIN_SAMPLES: u32 = 8;
    /// With fewer answers, a quantile of 99 % is not known: the patience is a multiple of the longest round trip.
    const MIN_FULL: u32 = 32;
    /// The patience is the time that this share of the answers exceeds, per mille. More than a hundredth of the answerers
    /// is needed to move it far.
    const SLOWEST: u32 = 15;
    /// The same, where the patience is longer than a quarter of the time-out.
    const COSTLY: u32 = 28;
    /// An answerer counts once within this many answers that count, or four times as many that do not.
    const EPOCH: u32 = 512;
    /// While no request is lost, the time-out after so many answers, half of it after twice as many, and so on: see
    /// [`doubt`](Self::doubt).
    const DOUBT: u64 = 64;
    /// Less than that where some are lost, and nothing where one of so many is.
    const SPARE: u32 = 32;
    const FULL_SHARE: u32 = 1 << 16;
    /// Each request has the weight 1 / `SILENCE_WINDOW` in `silence`.
    const SILENCE_WINDOW: u32 = 64;
    /// Each repeated request has the weight 1 / `REPEATS_WINDOW` in `repeats`.
    const REPEATS_WINDOW: u32 = 8;
    /// By how much the quantiles of the short memory move with an answer: 1.5 buckets.
    const STEP: u32 = 96;
    /// Eight times as much if so many in [a row](Self::slower) took longer than usual: the network has slowed down. By chance less than
    /// one answer in 700 is the last of such a row.
    const SLOWER: u32 = 8;

    pub(crate) fn new(configured: ConfiguredLimits) -> Self {
        let mut estimator = Self {
            limits: Limits { soft: 0, repeat: 0, patience: 0, repeat_patience: 0, is_capped: false },
            configured,
            silence: Self::FULL_SHARE / 64,
            loss: Self::FULL_SHARE / 64,
            repeats: Self::FULL_SHARE / 2,
            first_answer: Some(Instant::FAR_FUTURE),
            usual: 0,
            quick: 0,
            slower: 0,
            last_quick: Instant::ORIGIN,
            samples: 0,
            until_update: Self::MIN_SAMPLES,
            shortened: false,
            knows_enough: false,
            answers: None,
        };
        estimator.update();
        estimator
    }

    /// Whether limits are adapted at all.
    const fn adapts(&self) -> bool {
        self.configured.min < self.configured.hard
    }

    /// The limits of a request that is sent now.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the nodes that this knows of usually take more than 1.4 times as long as those that another does, or too few have answered
    /// for saying so.
    pub(crate) const fn may_be_slower_than(&self, other: &Self) -> bool {
        self.samples < Self::MIN_SAMPLES || self.usual > other.usual + (1 << 9)
    }

    /// Whether enough answers have become known since this was called last. Then requests in flight have timers that were
    /// set when nothing was known.
    pub(crate) const fn take_shortened(&mut self) -> bool {
        core::mem::replace(&mut self.shortened, false)
    }

    /// Records whether a request was answered within the patience.
    pub(crate) fn record_outcome(&mut self, answered: bool) {
        average::<{ Self::SILENCE_WINDOW }>(&mut self.silence, !answered);
    }

    /// Records whether a request that repeats another, which was late, was answered within the patience.
    pub(crate) fn record_repeat(&mut self, answered: bool) {
        average::<{ Self::REPEATS_WINDOW }>(&mut self.repeats, answered);
    }

    /// Whether nearly all nodes that are late answer when they are asked again: it was the messages that were lost, so one
    /// more request to a node that is silent twice is hardly ever in vain.
    pub(crate) const fn repeats_are_answered(&self) -> bool {
        self.repeats >= Self::FULL_SHARE / 8 * 7
    }

    /// Records whether a request that has ended was answered at all.
    pub(crate) fn record_end(&mut self, now: Instant, answered: bool) {
        average::<{ Self::SILENCE_WINDOW }>(&mut self.loss, !answered);
        if let Some(first) = self.first_answer {
            let first = if answered { first.min(now) } else { first };
            self.first_answer = (now < first.plus(self.configured.hard)).then_some(first);
        }
    }

    /// Records a round trip that something else has measured. `answerer` is a number of the node, or of its group.
    pub(crate) fn observe(&mut self, round_trip: u64, answerer: u64, hash: SeededHash) {
        self.observe_answer(round_trip, answerer, hash, None);
    }

    /// Records the round trip of an answer. `times`: when the request was sent, and when its answer arrived.
    pub(crate) fn observe_answer(
        &mut self,
        round_trip: u64,
        answerer: u64,
        hash: SeededHash,
        times: Option<(Instant, Instant)>,
    ) {
        if !self.adapts() {
            return;
        }
        let mut hasher = hash.build_hasher();
        hasher.write_u64(answerer);
        let answers = self.answers.get_or_insert_with(|| Box::new(Histogram::new()));
        if !answers.is_first(hasher.finish()) {
            return;
        }
        let at = position(round_trip);
        answers.add((at >> 6) as usize);
        if self.samples == 0 {
            (self.usual, self.quick) = (at, at);
        }
        self.samples = (self.samples + 1).min(Self::MIN_FULL);
        if round_trip <= self.configured.max {
            self.move_usual(at, times);
        }
        self.until_update -= 1;
        if self.until_update == 0 {
            self.update();
            let knows = self.samples >= Self::MIN_FULL * 2 / 3;
            self.shortened |= knows && !self.knows_enough;
            self.knows_enough = knows;
        }
    }

    /// Up with the weight of the quantile, down with the rest: it stays where that share of answers is below.
    fn move_usual(&mut self, at: u32, times: Option<(Instant, Instant)>) {
        if let Some((sent, arrived)) = times {
            if at <= self.usual {
                (self.slower, self.last_quick) = (0, arrived);
            } else if sent >= self.last_quick {
                self.slower = self.slower.saturating_add(1);
            }
        }
        let step = match self.slower {
            Self::SLOWER.. => 8 * Self::STEP,
            _ if self.samples < 16 => 4 * Self::STEP,
            _ => Self::STEP,
        };
        self.usual = moved(self.usual, at, step * 56 / 100, step * 44 / 100);
        self.quick = moved(self.quick, at, step / 4, step * 3 / 4);
    }

    /// The least patience after so many answers: that of a far node may not be among them yet. While hardly any request is lost,
    /// waiting costs little, as nearly nobody is waited for in vain. How many are lost is known a time-out after the first answer; until
    /// then, the patience is what the answers say. This least is at most twice the configured minimum, and a quarter of the time-out:
    /// what few answers do not tell must not cost much.
    fn doubt(&self, answers: u32) -> u64 {
        if self.first_answer.is_some() {
            return 0;
        }
        let most = self.configured.hard.saturating_mul(Self::DOUBT) / u64::from(answers.max(1));
        let spare = (Self::FULL_SHARE / Self::SPARE).saturating_sub(self.loss) * Self::SPARE;
        let doubt = most / u64::from(Self::FULL_SHARE) * u64::from(spare);
        doubt.min(self.configured.hard / 4).min(self.configured.min.saturating_mul(2))
    }

    /// Computes the limits anew.
    fn update(&mut self) {
        let ConfiguredLimits { soft, hard, min, max } = self.configured;
        self.until_update = (self.samples / 4).clamp(1, 16);
        let Some(answers) = self.answers.as_deref().filter(|_| self.samples >= Self::MIN_SAMPLES) else {
            self.until_update = Self::MIN_SAMPLES - self.samples.min(Self::MIN_SAMPLES - 1);
            let patience = hard.min(max);
            let soft = soft.min(patience);
            let is_capped = max < hard;
            self.limits = Limits { soft, repeat: soft, patience, repeat_patience: patience, is_capped };
            if !self.adapts() {
                // A repeated request has only the time that the first one left.
                self.limits.repeat_patience = patience.saturating_sub(soft).max(1);
            }
            return;
        };
        // From the slowest answers down: for each quantile the bucket in which it lies.
        let beyond = |per_mille: u32| answers.total * per_mille / 1_000;
        // Seven times the share of silence, per mille; beyond 40 % the soft limit is later.
        let repeat_share = (self.silence * 110 / 1_024).min(400);
        // Of few answers a share is uncertain: less by a standard deviation, for patience where in doubt.
        let unit = u32::from(Histogram::UNIT);
        let surely = |share: u32| share.saturating_sub((share * unit).isqrt());
        // Answers that a caller would not wait for tell of nobody whom it would wait for.
        let late = answers.later_than(max);
        let in_time = |per_mille: u32| late + (answers.total - late) * per_mille / 1_000;
        let shares =
            [surely(beyond(Self::SLOWEST)), surely(beyond(Self::COSTLY)), in_time(50), in_time(repeat_share)];
        let mut edges = [None; 4];
        let mut above = 0;
        for (bucket, count) in answers.counts.iter().enumerate().take(answers.end).rev() {
            above += u32::from(*count);
            let mut is_done = true;
            for (edge, share) in edges.iter_mut().zip(shares) {
                if edge.is_none() && above > share {
                    #[allow(clippy::cast_possible_truncation)] // a few hundred
                    let upper = round_trip_at((bucket as u32 + 1) << 6);
                    *edge = Some(upper);
                }
                is_done &= edge.is_some();
            }
            if is_done {
                break;
            }
        }
        let [slowest, costly, own, repeat] = edges.map(|edge| edge.unwrap_or(hard));
        // Where waiting for the slowest costs much of the time-out, a few of them are not waited for.
        let mut wait = slowest.min(costly.max(hard / 4));
        let mut own = own;
        if self.samples < Self::MIN_FULL {
            // A multiple of the longest round trip seen, the more the fewer were seen.
            wait = slowest.saturating_mul(u64::from(1 + Self::MIN_FULL / self.samples.max(1)));
            own = wait;
        }
        wait = wait.max(self.doubt(answers.total / unit));
        let most = hard.min(max);
        let patience = wait.max(min).min(most);
        let soft = round_trip_at(self.usual).min(2 * round_trip_at(self.quick)).max(min / 3);
        let soft = soft.max(1).min(patience);
        let repeat = repeat.clamp(soft, patience);
        let repeat_patience = own.max(min).min(patience);
        let is_capped = max < hard.min(wait.max(min));
        self.limits = Limits { soft, repeat, patience, repeat_patience, is_capped };
    }
}

/// A share of requests that has met one more.
fn average<const WINDOW: u32>(share: &mut u32, counts: bool) {
    *share -= *share / WINDOW;
    if counts {
        *share += RttEstimator::FULL_SHARE / WINDOW;
    }
}

/// A quantile that has met a value.
fn moved(quantile: u32, value: u32, up: u32, down: u32) -> u32 {
    if value > quantile { (quantile + up).min(value) } else { quantile.saturating_sub(down).max(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const HASH: SeededHash = SeededHash(7);

    fn estimator() -> RttEstimator {
        RttEstimator::new(ConfiguredLimits { soft: 250 * MS, hard: 2_000 * MS, min: MS, max: u64::MAX })
    }

    /// Round trips of a network, by a number: 80 ms, by a factor of up to four more or less, and most in the middle.
    fn usual(number: u64) -> u64 {
        let parts = (0..4).map(|part| HASH.hash_one(number * 4 + part) % 1_000).sum::<u64>();
        // 0 to 4,000, in a bell curve; a thousand is a factor of two.
        let octaves = parts / 1_000;
        (20 * MS * (1_000 + parts % 1_000) / 1_000) << octaves
    }

    fn fill(rtt: &mut RttEstimator, answers: core::ops::Range<u64>) {
        answers.for_each(|number| rtt.observe(usual(number), number, HASH));
    }

    /// How much longer `a` is than `b`, or shorter, in per cent of the shorter.
    fn factor(a: u64, b: u64) -> u64 {
        a.max(b) * 100 / a.min(b)
    }

    #[test]
    fn with_nothing_known_the_configured_limits_hold() {
        let mut rtt = estimator();
        for number in 1..u64::from(RttEstimator::MIN_SAMPLES) {
            rtt.observe(MS, number, HASH);
            let Limits { soft, repeat, patience, repeat_patience, is_capped } = *rtt.limits();
            assert_eq!((soft, repeat), (250 * MS, 250 * MS));
            assert_eq!((patience, repeat_patience, is_capped), (2_000 * MS, 2_000 * MS, false));
        }
        rtt.observe(MS, 99, HASH);
        assert!(rtt.limits().patience < 20 * MS && rtt.limits().soft < 2 * MS, "{:?}", rtt.limits());
    }

    #[test]
    fn a_repeated_request_has_the_rest_of_a_fixed_time() {
        let rtt = RttEstimator::new(ConfiguredLimits {
            soft: 250 * MS,
            hard: 2_000 * MS,
            min: 2_000 * MS,
            max: u64::MAX,
        });
        assert_eq!(rtt.limits().repeat_patience, 1_750 * MS);
    }

    #[test]
    fn limits_follow_steady_round_trips() {
        let mut rtt = estimator();
        for (round, ms) in [40, 400, 1_500].into_iter().enumerate() {
            let first = round as u64 * 10_000;
            (first..first + 9_000).for_each(|number| rtt.observe(ms * MS, number, HASH));
            let Limits { soft, patience, .. } = *rtt.limits();
            assert!(factor(soft, ms * MS) < 102, "{soft}");
            assert!(patience >= ms * MS && factor(patience, ms * MS) < 107, "{patience}");
        }
    }

    /// From 200 ms to 800 ms is two octaves.
    #[test]
    fn the_soft_limit_follows_a_network_that_slows_down_within_a_lookup() {
        let soft_after = |slow: &dyn Fn(u64) -> bool, answers: u64| {
            let mut rtt = estimator();
            for number in 0..100 + answers {
                let took = if number >= 100 && slow(number) { 800 } else { 200 };
                let (sent, arrived) =
                    (Instant::from_millis(1_000 * number), Instant::from_millis(1_000 * number + took));
                rtt.observe_answer(took * MS, number, HASH, Some((sent, arrived)));
            }
            rtt.limits().soft / MS
        };
        assert!(soft_after(&|_| true, 32) > 700, "{} ms", soft_after(&|_| true, 32));
        // So many slow ones in a row are no such thing, nor is a minority, however often it answers.
        let most = (0..40).map(|answers| soft_after(&|number| number < 107, answers)).max().unwrap();
        assert!(most < 350, "{most} ms");
        for share in [3, 5, 10] {
            let soft = soft_after(&|number| number % share == 0, 300);
            assert!(soft < 260, "1 of {share} is slow: {soft} ms");
        }
    }

    /// Lookups, whose late answers arrive together when all others have: nothing has become slower.
    #[test]
    fn the_soft_limit_does_not_follow_late_answers_that_come_together() {
        let mut rtt = estimator();
        let mut most = 0;
        for lookup in 0..20 {
            let sent = Instant::from_millis(10_000 * lookup);
            for (took, count) in [(50, 40), (1_900, 16)] {
                let numbers = (0..count).map(|number| 100 * lookup + number + took);
                let times = (sent, sent + core::time::Duration::from_millis(took));
                numbers.for_each(|number| rtt.observe_answer(took * MS, number, HASH, Some(times)));
                most = most.max(rtt.limits().soft);
            }
        }
        assert!(most <= 130 * MS, "{} ms", most / MS);
    }

    /// In a network as usual, nearly no answer is the last of such a row.
    #[test]
    fn the_soft_limit_stays_where_it_is_in_a_network_that_varies() {
        let mut rtt = estimator();
        fill(&mut rtt, 0..1_000);
        let mut most: u64 = 0;
        for number in 1_000..5_000 {
            let times = (Instant::from_millis(1_000 * number), Instant::from_millis(1_000 * number + 500));
            rtt.observe_answer(usual(number), number, HASH, Some(times));
            most = most.max(rtt.limits().soft);
        }
        assert!(most < 140 * MS, "{} ms", most / MS);
    }

    #[test]
    fn patience_is_longer_than_nearly_all_answers_take() {
        let mut rtt = estimator();
        fill(&mut rtt, 0..4_000);
        let late = (10_000..20_000).filter(|number| usual(*number) > rtt.limits().patience).count();
        assert!((50..200).contains(&late), "{late} of 10,000 after {:?}", rtt.limits());
    }

    #[test]
    fn a_far_minority_of_the_nodes_is_waited_for() {
        let mut rtt = estimator();
        (0..6_000).for_each(|number| {
            rtt.observe(if number % 50 == 0 { 400 * MS } else { 20 * MS }, number, HASH);
        });
        assert!(rtt.limits().patience >= 400 * MS, "{:?}", rtt.limits());
        assert!(rtt.limits().soft < 50 * MS, "but it frees its slot: {:?}", rtt.limits());
    }

    #[test]
    fn after_few_answers_a_far_node_may_not_have_answered_yet() {
        let at = Instant::from_millis;
        let quick = |rtt: &mut RttEstimator, numbers: core::ops::Range<u64>, lost_of_100: u64| {
            for number in numbers {
                rtt.observe(20 * MS, number, HASH);
                rtt.record_end(at(1), true);
                (0..lost_of_100)
                    .filter(|lost| lost % 100 == number % 100)
                    .for_each(|_| rtt.record_end(at(1), false));
            }
        };
        for (lost_of_100, waits) in [(0, true), (10, false)] {
            let (soft, hard) = (250 * MS, 2_000 * MS);
            let mut rtt = RttEstimator::new(ConfiguredLimits { soft, hard, min: 40 * MS, max: u64::MAX });
            quick(&mut rtt, 0..60, lost_of_100);
            assert!(rtt.limits().patience < 50 * MS, "not yet known how many are lost: {:?}", rtt.limits());
            rtt.record_end(at(2_001), true);
            quick(&mut rtt, 60..128, lost_of_100);
            let patience = rtt.limits().patience;
            assert_eq!(patience == 80 * MS, waits, "after 128, {lost_of_100} % lost: {patience}");
            assert_eq!(patience < 50 * MS, !waits, "after 128, {lost_of_100} % lost: {patience}");
            quick(&mut rtt, 128..4_000, lost_of_100);
            assert!(rtt.limits().patience < 70 * MS, "after 4,000: {:?}", rtt.limits());
        }
    }

    #[test]
    fn less_than_a_hundredth_of_the_answerers_moves_the_patience_little() {
        for theirs in [0, MS, 400 * MS, 1_999 * MS] {
            let (mut rtt, mut without) = (estimator(), estimator());
            for number in 0..20_000 {
                // 9 of 1,000 answerers, with any number of answers.
                if number % 1_000 < 9 {
                    (0..30).for_each(|_| rtt.observe(theirs, number, HASH));
                } else {
                    rtt.observe(usual(number), number, HASH);
                    without.observe(usual(number), number, HASH);
                }
            }
            let (moved, was) = (rtt.limits().patience, without.limits().patience);
            assert!(factor(moved, was) <= 125, "by {theirs} from {was} to {moved}");
        }
    }

    #[test]
    fn one_group_moves_the_patience_little() {
        for theirs in [0, 1_999 * MS] {
            let mut rtt = estimator();
            fill(&mut rtt, 0..2_000);
            let was = rtt.limits().patience;
            (0..10_000).for_each(|_| rtt.observe(theirs, 1 << 60, HASH));
            // The answers of others that come meanwhile.
            fill(&mut rtt, 2_000..2_400);
            let moved = rtt.limits().patience;
            assert!(factor(moved, was) <= 125, "by {theirs} from {was} to {moved}");
        }
    }

    #[test]
    fn quick_answers_do_not_lower_it_below_the_quantile_of_the_rest() {
        let mut rtt = estimator();
        fill(&mut rtt, 0..3_000);
        let mut quantile: Vec<_> = (0..3_000).map(usual).collect();
        quantile.sort_unstable();
        // The quantile that the rest would have to fall below for the quick to hide them: as many again are quick.
        let of_rest = quantile[3_000 * 96 / 100];
        (10_000..12_000).for_each(|number| rtt.observe(MS, number, HASH));
        assert!(rtt.limits().patience >= of_rest, "{} below {of_rest}", rtt.limits().patience);
    }

    #[test]
    fn it_is_never_too_short_for_good() {
        let mut rtt = estimator();
        (0..9_000).for_each(|number| rtt.observe(20 * MS, number, HASH));
        // All become slow: late answers are observed, and after a hundred the patience fits.
        (10_000..10_100).for_each(|number| rtt.observe(900 * MS, number, HASH));
        assert!(rtt.limits().patience >= 900 * MS, "{:?}", rtt.limits());
    }

    #[test]
    fn few_answers_of_few_nodes_are_enough_to_adapt() {
        let mut rtt = estimator();
        (0..640).for_each(|number| rtt.observe(10 * MS, number % 10, HASH));
        assert!(rtt.limits().patience < 100 * MS, "{:?}", rtt.limits());
        (0..6_400).for_each(|number| rtt.observe(300 * MS, number % 10, HASH));
        assert!(rtt.limits().patience >= 300 * MS, "{:?}", rtt.limits());
    }

    #[test]
    fn repeats_are_common_where_silence_is() {
        let mut rtt = estimator();
        fill(&mut rtt, 0..1_000);
        (0..1_000).for_each(|_| rtt.record_outcome(true));
        fill(&mut rtt, 1_000..1_100);
        assert_eq!(rtt.limits().repeat, rtt.limits().patience, "nobody is silent: no repeats");
        (0..1_000).for_each(|number| rtt.record_outcome(number % 50 != 0));
        fill(&mut rtt, 1_100..1_200);
        let Limits { soft, repeat, patience, .. } = *rtt.limits();
        assert!(repeat > soft && repeat < patience, "{:?}", rtt.limits());
        (0..1_000).for_each(|number| rtt.record_outcome(number % 3 != 0));
        fill(&mut rtt, 1_200..1_300);
        assert!(rtt.limits().repeat < repeat, "{:?}", rtt.limits());
    }

    #[test]
    fn where_messages_are_lost_repeats_are_answered_and_where_nodes_are_dead_they_are_not() {
        let mut rtt = estimator();
        assert!(!rtt.repeats_are_answered(), "nothing is known");
        (0..16).for_each(|_| rtt.record_repeat(true));
        assert!(rtt.repeats_are_answered());
        rtt.record_repeat(false);
        assert!(!rtt.repeats_are_answered(), "one lost, after few");
        (0..48).for_each(|number| rtt.record_repeat(number % 25 != 0));
        assert!(rtt.repeats_are_answered(), "one of 25 is lost");
        // A tenth of the nodes is dead: of those that are late, most are.
        for number in 0..100 {
            rtt.record_repeat(number % 3 == 0);
            assert!(number < 3 || !rtt.repeats_are_answered());
        }
    }

    /// A caller who would not wait for late nodes has the limits that it would have if they did not answer.
    #[test]
    fn answers_beyond_the_most_patience_move_no_other_limit() {
        let limits_with = |late: u64| {
            let (soft, hard, min, max) = (250 * MS, 2_000 * MS, MS, 330 * MS);
            let mut rtt = RttEstimator::new(ConfiguredLimits { soft, hard, min, max });
            for number in 0..4_000 {
                rtt.observe(usual(number).min(max), number, HASH);
                rtt.record_outcome(number % 40 != 0);
                // Of each node that answers in time, so many that do not.
                (1..=late).for_each(|other| rtt.observe(1_900 * MS, number + other * 10_000, HASH));
            }
            rtt.update();
            *rtt.limits()
        };
        let without = limits_with(0);
        for late in 1..4 {
            let with = limits_with(late);
            assert!(with.is_capped && with.patience == 330 * MS, "{with:?}");
            let same = |of: fn(&Limits) -> u64| factor(of(&with), of(&without)) <= 110;
            assert!(
                same(|it| it.soft) && same(|it| it.repeat) && same(|it| it.repeat_patience),
                "{with:?} {without:?}"
            );
        }
    }

    #[test]
    fn bounds_hold_at_the_ends_of_time() {
        let configured = ConfiguredLimits { soft: 9 * MS, hard: 100 * MS, min: 30 * MS, max: 80 * MS };
        let mut rtt = RttEstimator::new(configured);
        for number in 0..9_000 {
            rtt.observe(if number % 2 == 0 { 0 } else { u64::MAX }, number, HASH);
            let Limits { soft, repeat, patience, repeat_patience, .. } = *rtt.limits();
            assert!((9 * MS..=80 * MS).contains(&soft) && soft <= repeat && repeat <= patience);
            assert!((30 * MS..=80 * MS).contains(&patience) && repeat_patience <= patience);
        }
        assert!(rtt.limits().is_capped && rtt.limits().patience == 80 * MS);
        (0..90_000).for_each(|number| rtt.observe(0, number, HASH));
        assert_eq!((rtt.limits().soft, rtt.limits().patience), (10 * MS, 30 * MS));
    }

    #[test]
    fn places_on_the_scale_are_exact_to_a_thousandth() {
        for nanos in [1 << 14, 12_345_678, 80 * MS, 1_999_999_999, 1 << 38] {
            let there = round_trip_at(position(nanos));
            assert!(there <= nanos && nanos - there <= nanos / 1_000, "{nanos} {there}");
        }
        assert_eq!(position(0), position(1 << 14));
        assert_eq!(position(u64::MAX), position(1 << 50));
    }
}
