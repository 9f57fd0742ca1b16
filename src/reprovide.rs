//! Reprovide: records are stored again before they expire, region by region, on a schedule.
//!
//! Records expire (libp2p: after 48 h), and the nodes that hold them leave. So whoever provides them stores each again
//! every 22 h. To store them one by one takes a lookup each; a [`Sweep`](crate::Sweep) of a region of the key space stores
//! all that lie in it by a few. A [`Reprovide`] says when which region is to be swept, and for which keys, so that the work
//! is spread evenly over time. (The schedule is that of go-libp2p-kad-dht, `provider`.)
//!
//! # The schedule
//!
//! A hand goes round the key space once per interval, like that of a clock: in order of distance to the own key,
//! so that nodes that provide the same records do so at different times. After the share x of an interval it stands at the
//! key whose distance is the share x of all. A region is due when the hand comes to its first key: `interval × (prefix XOR own
//! prefix) / 2^bits` after the interval began, and intervals are counted from the origin of time. An origin that outlives
//! the program, such as that of Unix time, makes the schedule outlive it too.
//!
//! While regions have the same length, each key is due exactly once per interval, always after the same share of it.
//!
//! # When regions change
//!
//! Networks grow and shrink, and so should regions. A region that has been due is done with: up to its end, not only up to the
//! hand. The next region begins there. It is the largest that can, of those that are not larger than the new length says: so
//! between parts of different lengths there is neither a gap nor an overlap. Only where regions become smaller, what lies
//! ahead of the hand's new region counts as not done: a key that has been due with the rest of its region, or was added
//! too late to be, is due with its part of it too. (So a node that learns only after a while how large the network is, and
//! provides in one large region until then, need not wait for the next round.)
//!
//! **No key waits longer than the interval and one slot**, the slot being the time for which the hand stays in a region, of the
//! length that regions had when the key was last due, or was added. For a key is due in each round, with a region that it
//! lies in, so between the moment the hand comes to that region and the moment it comes to the key; from a slot
//! before the key in one round to the key itself in the next it is an interval and a slot. A key that is added while the hand is
//! in its region is due in the next round; then too, the hand is less than a slot before it. And no change makes
//! anything due by itself.

use crate::context;
use crate::deadline::Clock;
use crate::error::{ConfigError, require};
use crate::key::Key;
use crate::keyspace::Prefix;
use crate::machine::{Batch, Machine, Stamped};
use crate::time::{Instant, nanos};
use core::ops::Bound::{Excluded, Unbounded};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use std::collections::BTreeSet;

/// How records are provided again.
///
/// Memory: a sorted set of `max_keys` keys at the very most, which takes up to twice the size of the keys themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReprovideConfig {
    /// How often each record is stored again: well before it expires, with time for one sweep that fails. Longer than zero.
    /// Default: 22 h.
    pub interval: Duration,
    /// How many bits the keys of a region share, until [`Inbound::Resize`] says otherwise; cut off at those that a key has.
    /// [`SweepConfig::region_bits`](crate::SweepConfig::region_bits) tells what suits a network. Default: 0, one region, as
    /// nothing is known about the network yet.
    pub bits: u32,
    /// How many keys there may be. At least 1. Default: 1,000,000.
    pub max_keys: usize,
}

impl Default for ReprovideConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(22 * 3_600), bits: 0, max_keys: 1_000_000 }
    }
}

impl ReprovideConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.interval.is_zero(), "reprovide.interval", "longer than zero")?;
        require(self.max_keys > 0, "reprovide.max_keys", "at least 1")
    }
}

/// What a [`Reprovide`] is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound<K> {
    /// Records with these keys are to be stored again from now on. That they are stored a first time is the
    /// caller's business. They are due when the hand comes to their region: in this round if that is ahead, otherwise in the
    /// next. Keys that are there already stay as they are.
    Add(Vec<K>),
    /// The same, and they are due at once as well, those that are there already too.
    Provide(Vec<K>),
    /// The record with this key is not to be stored again.
    Remove(K),
    /// The network has another size than thought.
    Resize {
        /// How many bits the keys of a region share from now on; cut off at those that a key has.
        bits: u32,
    },
    /// Nothing happened but time.
    Tick,
}

/// What a [`Reprovide`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound<K: Key> {
    /// Store the records with these keys again. It is said once: that it succeeds is the caller's business.
    ///
    /// Where time is the cause, this is a side effect without origin ([rule 4](crate::context)). What
    /// [`Inbound::Provide`] asked for continues its span.
    Due {
        /// The region that all of them lie in.
        region: Prefix<K>,
        /// At least one, in order of distance to the own key. They are all that lie in the region, except of those that had to
        /// be provided just now, and of a call that comes so late that the hand went round in between: it says each key
        /// once.
        keys: Vec<K>,
    },
    /// These were not added, as there are [`max_keys`](ReprovideConfig::max_keys) already. In the order in which they were
    /// given.
    Refused {
        /// The keys.
        keys: Vec<K>,
    },
}

/// Says when which records are to be stored again; see [the module](self).
///
/// ```
/// use kad_proto::reprovide::{Inbound, Outbound};
/// use kad_proto::{Instant, Key8, Machine, Reprovide, ReprovideConfig, Stamped};
/// use std::time::Duration;
///
/// let config = ReprovideConfig { interval: Duration::from_secs(1_600), bits: 4, ..ReprovideConfig::default() };
/// let mut schedule = Reprovide::new(Key8::new([0x20]), config)?;
/// let keys = [0x77, 0x11, 0x7f].map(|byte| Key8::new([byte])).to_vec();
/// assert!(schedule.handle(Instant::from_secs(10), Stamped::new(Inbound::Add(keys))).is_empty());
///
/// // The distance of 0001* from the own key is 0011*, the third of 16 parts.
/// assert_eq!(schedule.poll_timeout(), Some(Instant::from_secs(300)));
/// let said = schedule.handle(Instant::from_secs(300), Stamped::new(Inbound::Tick));
/// let [Stamped { event: Outbound::Due { region, keys }, .. }] = &said[..] else { panic!("{said:?}") };
/// assert_eq!((region.to_string(), keys.len()), ("0001*".into(), 1));
///
/// assert_eq!(schedule.poll_timeout(), Some(Instant::from_secs(500)), "that of 0111* is 0101*");
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reprovide<K> {
    clock: Clock,
    local: K,
    /// Its `bits` are those of now.
    config: ReprovideConfig,
    /// That of the configuration, in nanoseconds.
    interval: u64,
    /// The keys, as distances from the own key.
    distances: BTreeSet<K>,
    /// How many intervals there have been before this.
    round: u64,
    /// All up to this distance is done with in this round. The hand stands at or before it.
    swept: K,
}

impl<K: Key> Reprovide<K> {
    /// A schedule without keys, of the node whose own key is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: K, mut config: ReprovideConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        config.bits = config.bits.min(K::BITS);
        Ok(Self {
            clock: Clock::default(),
            local,
            interval: nanos(config.interval),
            distances: BTreeSet::new(),
            round: 0,
            swept: Prefix::new(K::ZERO, config.bits).last(),
            config,
        })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.distances.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.distances.is_empty()
    }

    /// Whether the record with this key is to be stored again.
    pub fn contains(&self, key: &K) -> bool {
        self.distances.contains(&key.distance(&self.local))
    }

    /// The keys, in order of distance to the own key.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.distances.iter().map(|distance| distance.distance(&self.local))
    }

    /// How many bits the keys of a region share.
    pub const fn bits(&self) -> u32 {
        self.config.bits
    }

    /// Moves the hand to where it is now, and says what is due on the way.
    fn elapse(&mut self, now: Instant, out: &mut Batch<Outbound<K>>) {
        let (round, hand) = self.hand(now);
        let before = self.swept;
        // What is done with is so for all distances that begin like the hand's, so this is all there is to most calls.
        if round == self.round && hand <= before.leading() {
            return;
        }
        let hand = greatest(hand);
        if round == self.round {
            self.swept = self.region(&hand, Some(before)).last();
            self.due(Some(before), self.swept, out);
            return;
        }
        let rounds = round - self.round;
        self.round = round;
        self.swept = self.region(&hand, None).last();
        self.due(Some(before), K::ONES, out);
        // What the rest of the last round has made due is not due again.
        self.due(None, if rounds == 1 { before.min(self.swept) } else { before }, out);
    }

    /// Says that the keys are due whose distances lie in this range.
    fn due(&self, mut after: Option<K>, until: K, out: &mut Batch<Outbound<K>>) {
        while let Some(distance) = self.next(after).filter(|distance| *distance <= until) {
            let region = self.region(&distance, after);
            let last = region.last();
            let keys = self.distances.range(distance..=last.min(until)).copied().collect();
            out.push(self.say(region, keys, context::apart(&SpanContext::NONE)));
            after = Some(last);
        }
    }

    /// That a region is due, and in it the keys at these distances.
    fn say(&self, region: Prefix<K>, mut keys: Vec<K>, context: context::Context) -> Stamped<Outbound<K>> {
        let region = Prefix::new(region.first().distance(&self.local), region.bits());
        for key in &mut keys {
            *key = key.distance(&self.local);
        }
        Stamped { event: Outbound::Due { region, keys }, context, deadline: None }
    }

    /// Adds keys. Says which it has no room for, and takes them out.
    fn add(&mut self, keys: &mut Vec<K>, context: &context::Context, out: &mut Batch<Outbound<K>>) {
        let mut refused = Vec::new();
        keys.retain(|key| {
            let distance = key.distance(&self.local);
            let is_in = if self.distances.len() < self.config.max_keys {
                self.distances.insert(distance);
                true
            } else {
                self.distances.contains(&distance)
            };
            if !is_in {
                refused.push(*key);
            }
            is_in
        });
        if !refused.is_empty() {
            let event = Outbound::Refused { keys: refused };
            out.push(Stamped { event, context: context::own(context).into(), deadline: None });
        }
    }

    /// Says that these keys are due at once.
    fn provide(&self, mut keys: Vec<K>, context: &context::Context, out: &mut Batch<Outbound<K>>) {
        for key in &mut keys {
            *key = key.distance(&self.local);
        }
        keys.sort_unstable();
        keys.dedup();
        let regions = keys.chunk_by(|a, b| a.common_prefix_len(b) >= self.config.bits);
        for (first, keys) in regions.filter_map(|keys| Some((*keys.first()?, keys))) {
            let region = Prefix::new(first, self.config.bits);
            out.push(self.say(region, keys.to_vec(), context::own(context).into()));
        }
    }

    /// The least distance after this one, or of all, at which there is a key.
    fn next(&self, after: Option<K>) -> Option<K> {
        self.distances.range((after.map_or(Unbounded, Excluded), Unbounded)).next().copied()
    }

    /// The region of this distance where all up to `after` is done with: the largest that holds nothing of that.
    fn region(&self, distance: &K, after: Option<K>) -> Prefix<K> {
        let apart = after.map_or(0, |after| after.common_prefix_len(distance) + 1);
        Prefix::new(*distance, self.config.bits.max(apart))
    }

    /// The round, and how far the hand is in it: the first 64 bits of the greatest distance that it has come to.
    fn hand(&self, now: Instant) -> (u64, u64) {
        let (round, passed) = (now.as_nanos() / self.interval, now.as_nanos() % self.interval);
        // The greatest of which `offset` says no more than has passed.
        let leading = (((u128::from(passed) + 1) << 64) - 1) / u128::from(self.interval);
        // It fits, as less than an interval has passed.
        (round, u64::try_from(leading).unwrap_or(u64::MAX))
    }

    /// How long after the beginning of a round the hand comes to this distance.
    fn offset(&self, distance: &K) -> u128 {
        (u128::from(self.interval) * u128::from(distance.leading())) >> 64
    }
}

/// The greatest distance that begins with these bits.
fn greatest<K: Key>(leading: u64) -> K {
    let ones = (0..64).filter(|bit| leading << bit >> 63 == 1);
    ones.fold(K::ZERO, |distance, bit| distance.with_flipped(bit)).spliced(64, &K::ONES)
}

impl<K: Key> Machine for Reprovide<K> {
    type Inbound = Inbound<K>;
    type Outbound = Outbound<K>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<K>>, out: &mut Batch<Outbound<K>>) {
        let now = self.clock.advance(now);
        self.elapse(now, out);
        let Stamped { event, context, .. } = event;
        match event {
            Inbound::Add(mut keys) => self.add(&mut keys, &context, out),
            Inbound::Provide(mut keys) => {
                self.add(&mut keys, &context, out);
                self.provide(keys, &context, out);
            }
            Inbound::Remove(key) => {
                self.distances.remove(&key.distance(&self.local));
            }
            Inbound::Resize { bits } => {
                let bits = bits.min(K::BITS);
                let (_, hand) = self.hand(now);
                // That is less only where regions become smaller.
                self.swept = self.swept.min(Prefix::new(greatest(hand), bits).last());
                self.config.bits = bits;
            }
            Inbound::Tick => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let ahead = self.next(Some(self.swept)).map(|next| (self.round, next, Some(self.swept)));
        let next = ahead.or_else(|| Some((self.round.checked_add(1)?, self.next(None)?, None)));
        let (round, distance, after) = next?;
        let first = self.region(&distance, after).first();
        let at = u128::from(round) * u128::from(self.interval) + self.offset(&first);
        // What is due after the end of time never is.
        u64::try_from(at).ok().map(Instant::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Key8, Key160, Key256};
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    fn schedule<K: Key>(local: K, interval: u64, bits: u32) -> Reprovide<K> {
        let interval = Duration::from_nanos(interval);
        Reprovide::new(local, ReprovideConfig { interval, bits, ..ReprovideConfig::default() }).unwrap()
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn keys(bytes: impl IntoIterator<Item = u8>) -> Vec<Key8> {
        bytes.into_iter().map(|byte| Key8::new([byte])).collect()
    }

    /// What is due: regions and keys.
    fn due<K: Key>(said: &Batch<Outbound<K>>) -> Vec<(String, Vec<K>)> {
        let due = said.iter().map(|said| match &said.event {
            Outbound::Due { region, keys } => {
                assert!(!keys.is_empty() && keys.iter().all(|key| region.contains(key)));
                (region.to_string(), keys.clone())
            }
            Outbound::Refused { .. } => panic!("{said:?}"),
        });
        due.collect()
    }

    /// Calls at each wake-up up to this instant. Says what is due when.
    fn run<K: Key>(schedule: &mut Reprovide<K>, until: u64) -> Vec<(u64, String, Vec<K>)> {
        let mut all = Vec::new();
        while let Some(wake) = schedule.poll_timeout().filter(|wake| *wake <= at(until)) {
            let said = schedule.handle(wake, Stamped::new(Inbound::Tick));
            assert!(!said.is_empty(), "woken for nothing");
            assert!(schedule.poll_timeout().is_none_or(|next| next > wake));
            all.extend(due(&said).into_iter().map(|(region, keys)| (wake.as_nanos(), region, keys)));
        }
        all
    }

    #[test]
    fn bad_values_are_named() {
        let of = |interval, max_keys| ReprovideConfig { interval, bits: 99, max_keys };
        for (config, field) in [
            (of(Duration::ZERO, 1), "reprovide.interval"),
            (of(Duration::from_nanos(1), 0), "reprovide.max_keys"),
        ] {
            assert_eq!(Reprovide::new(Key8::ZERO, config).unwrap_err().field(), field);
        }
        let schedule = Reprovide::new(Key8::ZERO, of(Duration::MAX, 1)).unwrap();
        assert_eq!(schedule.bits(), 8, "as many as a key has");
    }

    #[test]
    fn one_region() {
        let mut schedule = schedule(Key8::new([0x90]), 100, 0);
        let all = keys([0x90, 0x6f, 0x00, 0xff]);
        assert!(schedule.handle(at(5), Stamped::new(Inbound::Add(all))).is_empty());
        let order = keys([0x90, 0xff, 0x00, 0x6f]);
        let expected = [100, 200, 300].map(|time| (time, "*".to_owned(), order.clone()));
        assert_eq!(run(&mut schedule, 350), expected);
    }

    #[test]
    fn a_single_key_is_due_once_per_interval_and_wakes_for_nothing_else() {
        let day = 22 * 3_600 * 1_000_000_000_u64;
        let mut schedule = Reprovide::new(Key256::ZERO, ReprovideConfig::default()).unwrap();
        assert_eq!(schedule.poll_timeout(), None);
        let resize = Stamped::new(Inbound::Resize { bits: 10 });
        assert!(schedule.handle(at(0), resize).is_empty());
        let key = Key256::ONES.spliced(1, &Key256::ZERO);
        let _ = schedule.handle(at(day / 2 - 1), Stamped::new(Inbound::Add(vec![key, key])));
        let times: Vec<_> = run(&mut schedule, 3 * day).into_iter().map(|(time, ..)| time).collect();
        assert_eq!(times, [day / 2, day / 2 + day, day / 2 + 2 * day]);
        let _ = schedule.handle(at(3 * day), Stamped::new(Inbound::Remove(key)));
        assert!(schedule.is_empty() && schedule.poll_timeout().is_none());
    }

    #[test]
    fn regions_of_one_key_each() {
        let mut schedule = schedule(Key8::new([3]), 2_560, 8);
        let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(keys(0..=255))));
        let said = run(&mut schedule, 2_560);
        // Distance 0 was due when the round began.
        assert_eq!(said.len(), 256);
        for ((time, region, keys), distance) in said.into_iter().zip(1..=256) {
            assert_eq!((time, region.len(), keys.len()), (10 * distance, 8, 1));
            assert_eq!(u64::from(keys[0].as_bytes()[0] ^ 3), distance % 256);
        }
    }

    #[test]
    fn keys_that_differ_in_their_last_bits_only_are_one_region_at_once() {
        let mut schedule = schedule(Key160::ZERO, 1_000_000, 70);
        let cluster = |last| Key160::ONES.with_flipped(80).with_flipped(last);
        let all: Vec<_> = (100..160).map(cluster).collect();
        let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(all.clone())));
        let said = run(&mut schedule, 1_500_000);
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].0, said[0].2.len()), (999_999, 60));
        // Regions that the clock cannot tell apart are due at once, in order.
        let _ = schedule.handle(at(1_500_000), Stamped::new(Inbound::Resize { bits: 110 }));
        let said = run(&mut schedule, 2_500_000);
        assert_eq!(said.len(), 11);
        assert!(said.iter().all(|(time, ..)| *time == 1_999_999));
        assert!(said.iter().flat_map(|(.., keys)| keys).is_sorted());
    }

    #[test]
    fn a_resize_makes_nothing_due_and_skips_nothing() {
        let mut schedule = schedule(Key8::ZERO, 1_600, 4);
        let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(keys(0..=255))));
        assert_eq!(run(&mut schedule, 550).len(), 5);
        // 0101* has been due. The quarter that it lies in is not due as a whole: what is left of it is.
        assert!(schedule.handle(at(550), Stamped::new(Inbound::Resize { bits: 2 })).is_empty());
        let said: Vec<_> =
            run(&mut schedule, 1_600).into_iter().map(|(time, region, _)| (time, region)).collect();
        let expected = [(600, "011*"), (800, "10*"), (1_200, "11*"), (1_600, "00*")];
        assert_eq!(said, expected.map(|(time, region)| (time, region.to_owned())));
        // Of the region that is under way, what is ahead is due in its smaller parts too.
        assert!(schedule.handle(at(1_650), Stamped::new(Inbound::Resize { bits: 3 })).is_empty());
        let said: Vec<_> =
            run(&mut schedule, 2_000).into_iter().map(|(time, region, _)| (time, region)).collect();
        assert_eq!(said, [(1_800, "001*".to_owned()), (2_000, "010*".to_owned())]);
    }

    #[test]
    fn who_learns_late_how_large_the_network_is_need_not_wait_for_the_next_round() {
        let mut schedule = schedule(Key8::ZERO, 1_600, 0);
        let _ = schedule.handle(at(10), Stamped::new(Inbound::Add(keys([0x08, 0x80]))));
        assert_eq!(schedule.poll_timeout(), Some(at(1_600)));
        let _ = schedule.handle(at(20), Stamped::new(Inbound::Resize { bits: 4 }));
        assert_eq!(run(&mut schedule, 1_000), [(800, "1000*".to_owned(), keys([0x80]))]);
    }

    #[test]
    fn what_was_slept_through_is_due_once_and_in_order() {
        // The hand has passed 0110* when the sleep begins.
        let cases: [(u64, &[u8]); 4] = [
            (900, &[0x70]),
            (1_599, &[0x70, 0xf0]),
            (2_099, &[0x70, 0xf0, 0x00]),
            (9_999, &[0x70, 0xf0, 0x00, 0x50]),
        ];
        for (woken, expected) in cases {
            let mut schedule = schedule(Key8::ZERO, 1_600, 4);
            let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(keys([0x50, 0xf0, 0x00, 0x70]))));
            let _ = schedule.handle(at(600), Stamped::new(Inbound::Tick));
            let said = due(&schedule.handle(at(woken), Stamped::new(Inbound::Tick)));
            let said: Vec<_> = said.into_iter().flat_map(|(_, keys)| keys).collect();
            assert_eq!(said, keys(expected.iter().copied()), "{woken}");
        }
    }

    #[test]
    fn the_end_of_time() {
        let mut schedule = schedule(Key8::ZERO, 1_600, 4);
        let _ = schedule.handle(at(u64::MAX - 800), Stamped::new(Inbound::Add(keys(0..=255))));
        assert!(run(&mut schedule, u64::MAX).len() < 16);
        assert_eq!(schedule.poll_timeout(), None);
        // Time does not run backwards.
        assert!(schedule.handle(at(0), Stamped::new(Inbound::Tick)).is_empty());
        let more = Stamped::new(Inbound::Resize { bits: u32::MAX });
        assert!(schedule.handle(Instant::FAR_FUTURE, more).is_empty());
        for interval in [1, 2, u64::MAX] {
            let mut schedule = self::schedule(Key8::ZERO, interval, 8);
            let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(keys(0..=255))));
            let said = due(&schedule.handle(Instant::FAR_FUTURE, Stamped::new(Inbound::Tick)));
            let due: usize = said.iter().map(|(_, keys)| keys.len()).sum();
            assert_eq!(due, 256, "after {interval}");
            assert_eq!(schedule.poll_timeout(), None);
        }
    }

    #[test]
    fn over_the_limit_says_which() {
        let config = ReprovideConfig { max_keys: 2, ..ReprovideConfig::default() };
        let mut schedule = Reprovide::new(Key8::ZERO, config).unwrap();
        let span = SpanContext::new(
            TraceId::from_bytes([1; 16]),
            SpanId::from_bytes([2; 8]),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let add = Stamped::new(Inbound::Provide(keys([4, 9, 4, 7, 9, 1]))).in_span(span.clone());
        let said = schedule.handle(at(1), add);
        let refused = Outbound::Refused { keys: keys([7, 1]) };
        let due = Outbound::Due { region: Prefix::WHOLE, keys: keys([4, 9]) };
        let expected = [refused, due].map(|event| Stamped::new(event).in_span(span.clone()));
        assert_eq!(said[..], expected);
        // What time makes due continues no span, though it comes in a call that has one.
        let late = Stamped::new(Inbound::Remove(Key8::new([9]))).in_span(span);
        let said = schedule.handle(at(u64::MAX), late);
        assert_eq!(said[0].context, Context::Link(SpanContext::NONE));
        assert_eq!((schedule.len(), schedule.contains(&Key8::new([4]))), (1, true));
        assert!(schedule.keys().eq(keys([4])));
    }
}
