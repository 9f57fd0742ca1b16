//! [`Reprovide`]: when which records are to be stored again, region by region of the key space.
//!
//! Records expire (libp2p: after 48 h), and the nodes that hold them leave. So a provider stores each record again
//! every 22 h. Stored one by one, each takes a lookup; a [`Sweep`](crate::Sweep) of a region of the key space
//! stores all records in it by a few lookups. A [`Reprovide`] emits which region is to be swept, when, and for
//! which keys, so that the work is spread evenly over time. (The schedule is that of go-libp2p-kad-dht,
//! `provider`.)
//!
//! # The schedule
//!
//! A cursor moves through the key space once per interval, in order of distance to the own key, so that nodes that
//! provide the same records do so at different times. After the share x of an interval it is at the key whose
//! distance is the share x of all distances. A region is due when the cursor reaches its first key: `interval ×
//! (prefix XOR own prefix) / 2^bits` after the interval began. Intervals are counted from the origin of time, so
//! an origin that outlives the program, such as that of Unix time, makes the schedule outlive it too. A *round* is
//! one interval.
//!
//! While the regions keep their length, each key is due exactly once per round, always after the same share of it.
//!
//! # When regions change
//!
//! Networks grow and shrink, and so should regions. A region that has been due is done as a whole: up to its
//! end, not only up to the cursor. The next region begins there. It is the largest possible that is not
//! larger than the new length allows, so between parts of different lengths there is neither a gap nor an
//! overlap. One exception: if regions become smaller, the part ahead of the cursor's new region counts as not
//! done. A key in that part is due again with its new region, even if it was due with its old one, or was
//! added too late for it. (So a node that provides in one large region until it learns the network's size
//! need not wait for the next round.)
//!
//! **No key waits longer than the interval and one slot.** The slot is the time for which the cursor stays in
//! a region, of the length that regions had when the key was last due, or was added. Proof: in each round, a
//! key is due once, with a region that contains it. That is after the cursor reaches the region and before it
//! reaches the key: at most a slot before it reaches the key. From that moment in one round to the moment at
//! which the cursor reaches the key in the next round, at most an interval and a slot pass. A key that is
//! added while the cursor is in its region is due in the next round; then, too, the cursor is less than a
//! slot before the key. No change of the length makes anything due at once.
//!
//! # What was slept through
//!
//! The proof assumes that the machine is called when it [wants to be](Machine::poll_timeout). A machine that sleeps
//! for hours, or for a month, would find hundreds of regions due at once. So where a call comes so late that more than
//! one region has become due since the last one, those that should have been due earlier are *overdue*: they are made due
//! one by one, the most overdue first, at 5.5 times the pace of the schedule (of 4,096 regions, one in 3.5 s, and all of
//! them within 4 h where the interval is 22 h), at least one in 10 s. After a rest 8 are due at once, and in no call
//! more than 8. Regions whose turn comes meanwhile are due in time, unless they are overdue themselves. Each key that was
//! slept through is due once, however often its turn was missed. [`Reprovide::overdue`] tells what waits.
//!
//! # What has failed
//!
//! A caller who could not store what was due says so with [`Inbound::Failed`]. The keys are due again after a back-off:
//! [`retry_interval`](ReprovideConfig::retry_interval), twice that after the next failure, and so on up to 12 times, each
//! from three quarters to five quarters of it, which differs by region, so that what failed together is not tried
//! together. With the default of 2 min a region that always fails is tried 6 to 8 times in the first hour, and then every
//! 18 to 30 min; once stores succeed again, nothing waits longer than that, but for the pace: twice that of what
//! was slept through. Failures of a region that are 24 `retry_interval`s ago no longer count.

use crate::broadcast::backlog::{BURST, Backlog};
use crate::broadcast::regions::Prefix;
use crate::context;
use crate::deadline::MonotonicClock;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::time::{Instant, nanos};
use core::ops::Bound::{Excluded, Unbounded};
use core::time::Duration;
use opentelemetry::trace::SpanContext;
use std::collections::BTreeSet;

/// How often records are stored again, and how many there may be.
///
/// Memory: a sorted set of at most `max_keys` keys, which takes up to twice the size of the keys; while all of them are
/// overdue or have failed, some four times that and 60 bytes for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReprovideConfig {
    /// The time from one store of a record to the next: well below its expiry, so that one failed sweep does
    /// no harm. Longer than zero. Default: 22 h.
    pub interval: Duration,
    /// The prefix length of regions, in bits, until [`Inbound::Resize`] changes it; at most the bits of a
    /// key. [`SweepConfig::region_bits`](crate::SweepConfig::region_bits) returns the length that suits a
    /// network. Default: 0, one region, because nothing is known about the network at first.
    pub bits: u32,
    /// The maximum number of keys. At least 1. Default: 1,000,000.
    pub max_keys: usize,
    /// How long after a [failure](Inbound::Failed) records are due again, on average; longer after the next ones. Longer
    /// than zero. Default: 2 min.
    pub retry_interval: Duration,
}

impl Default for ReprovideConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(22 * 3_600),
            bits: 0,
            max_keys: 1_000_000,
            retry_interval: Duration::from_secs(120),
        }
    }
}

impl ReprovideConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.interval.is_zero(), "reprovide.interval", "longer than zero")?;
        require(self.max_keys > 0, "reprovide.max_keys", "at least 1")?;
        require(!self.retry_interval.is_zero(), "reprovide.retry_interval", "longer than zero")
    }
}

/// Inbound events of a [`Reprovide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound<K> {
    /// Store records with these keys again from now on. The caller stores them the first time. They are due
    /// when the cursor reaches their region: in this round if the region is ahead of the cursor, else in the
    /// next. Nothing changes for keys that were added before.
    Add(Vec<K>),
    /// Like [`Add`](Self::Add); in addition all these keys are due at once, including those that were added
    /// before.
    Provide(Vec<K>),
    /// Do not store the record with this key again.
    Remove(K),
    /// The size of the network has changed, so regions get another length.
    Resize {
        /// The prefix length of regions from now on, in bits; at most as many as a key has.
        bits: u32,
    },
    /// Only time has passed: emits what is due.
    Tick,
    /// The records with these keys were [due](Outbound::Due) and could not be stored: they are due again
    /// [after a back-off](self#what-has-failed). Keys that are not in the schedule, or that wait already, are ignored.
    Failed(Vec<K>),
}

/// Outbound events of a [`Reprovide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound<K: Key> {
    /// Store the records with these keys again. It is emitted only once: if the store fails, the caller
    /// [says so](Inbound::Failed).
    ///
    /// If time is the cause, this is a side effect without origin ([rule 4](crate::context)). If
    /// [`Inbound::Provide`] is the cause, it continues the span of that event.
    Due {
        /// The region that contains all of them.
        region: Prefix<K>,
        /// At least one, in order of distance to the own key: all keys in the region, with two exceptions. If
        /// [`Inbound::Provide`] is the cause, only the keys of that event. If some of the keys are overdue or have
        /// failed, these are due apart from the others.
        keys: Vec<K>,
    },
    /// These keys were not added, because there are [`max_keys`](ReprovideConfig::max_keys) already. They are
    /// in the order in which they were given.
    Refused {
        /// The keys.
        keys: Vec<K>,
    },
}

/// A machine that emits which records are to be stored again, and when; see [the module](self).
///
/// ```
/// use kad_proto::broadcast::reprovide::{Inbound, Outbound};
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
/// let out = schedule.handle(Instant::from_secs(300), Stamped::new(Inbound::Tick));
/// let [Stamped { event: Outbound::Due { region, keys }, .. }] = &out[..] else { panic!("{out:?}") };
/// assert_eq!((region.to_string(), keys.len()), ("0001*".into(), 1));
///
/// assert_eq!(schedule.poll_timeout(), Some(Instant::from_secs(500)), "that of 0111* is 0101*");
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reprovide<K> {
    clock: MonotonicClock,
    local: K,
    /// Its `bits` are the current ones: [`Inbound::Resize`] changes them.
    config: ReprovideConfig,
    /// The configured interval in nanoseconds.
    interval: u64,
    /// The keys that are due in their turn, as distances from the own key.
    distances: BTreeSet<K>,
    /// The others.
    backlog: Backlog<K>,
    /// The time of the latest call, and how many regions have been due at that time because it had come.
    called: Instant,
    given_out: usize,
    /// The number of the current round, from the origin of time.
    round: u64,
    /// In this round, everything up to this distance is done. The cursor is at or before it.
    done_until: K,
}

impl<K: Key> Reprovide<K> {
    /// A schedule without keys, for the node whose own key is `local`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: K, mut config: ReprovideConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        config.bits = config.bits.min(K::BITS);
        Ok(Self {
            clock: MonotonicClock::default(),
            local,
            interval: nanos(config.interval),
            distances: BTreeSet::new(),
            backlog: Backlog::new(nanos(config.retry_interval)),
            called: Instant::ORIGIN,
            given_out: 0,
            round: 0,
            done_until: Prefix::new(K::ZERO, config.bits).last(),
            config,
        })
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.distances.len() + self.backlog.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the record with this key is in the schedule.
    pub fn contains(&self, key: &K) -> bool {
        let distance = key.distance(&self.local);
        self.distances.contains(&distance) || self.backlog.contains(&distance)
    }

    /// The keys, in order of distance to the own key.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        let (mut in_turn, mut waiting) =
            (self.distances.iter().peekable(), self.backlog.distances().peekable());
        let distances = core::iter::from_fn(move || match (in_turn.peek(), waiting.peek()) {
            (Some(next), Some(other)) if other < next => waiting.next(),
            (None, _) => waiting.next(),
            _ => in_turn.next(),
        });
        distances.map(|distance| distance.distance(&self.local))
    }

    /// The keys that wait although their time has passed, and since when. First those that were
    /// [slept through](self#what-was-slept-through), the most overdue first; then those that [have failed](Inbound::Failed),
    /// since the caller said so for the first time, in the order in which they are due again.
    pub fn overdue(&self) -> impl Iterator<Item = (K, Instant)> {
        self.backlog.since().map(|(distance, since)| (distance.distance(&self.local), since))
    }

    /// The number of keys that are [overdue](Self::overdue).
    pub fn overdue_len(&self) -> usize {
        self.backlog.len()
    }

    /// The current prefix length of regions, in bits.
    pub const fn bits(&self) -> u32 {
        self.config.bits
    }

    /// Moves the cursor to where it is at `now`, and emits what is due, or puts it into the backlog.
    fn elapse(&mut self, now: Instant, out: &mut Batch<Outbound<K>>) {
        let mut passed = self.pass(now);
        // Nothing is late about a single region: the call came before the next.
        if passed.len() > 1 {
            for (_, since, distances) in passed.iter().filter(|(_, since, _)| *since < now) {
                for distance in distances {
                    self.distances.remove(distance);
                    self.backlog.postpone(*distance, *since);
                }
            }
            passed.retain(|(_, since, _)| *since >= now);
        }
        if now > self.called {
            self.given_out = 0;
        }
        self.called = now;
        let gap = self.gap();
        self.given_out += passed.len();
        while self.given_out < BURST
            && let Some((region, distances)) = self.backlog.pop(now, self.config.bits, gap)
        {
            self.given_out += 1;
            self.distances.extend(distances.iter().copied());
            out.push(self.due_event(region, distances, context::linked(&SpanContext::NONE)));
        }
        for (region, _, distances) in passed {
            for distance in &distances {
                self.backlog.given_out(distance, now);
            }
            out.push(self.due_event(region, distances, context::linked(&SpanContext::NONE)));
        }
    }

    /// The time from one overdue region to the next, in nanoseconds: two elevenths of that from one region to the next.
    fn gap(&self) -> u64 {
        (self.interval / 11).saturating_mul(2).checked_shr(self.config.bits).unwrap_or(0).min(MAX_GAP)
    }

    /// Moves the cursor to where it is at `now`. Returns the regions that it has passed, each with when it was due and
    /// the distances in it, in order.
    fn pass(&mut self, now: Instant) -> Vec<(Prefix<K>, Instant, Vec<K>)> {
        let mut passed = Vec::new();
        let (round, cursor) = self.cursor(now);
        let before = self.done_until;
        // `done_until` is the end of a region, so all distances with the same leading bits as the cursor are
        // done: most calls return here.
        if round == self.round && cursor <= before.leading() {
            return passed;
        }
        let cursor = greatest_distance(cursor);
        if round == self.round {
            self.done_until = self.region(&cursor, Some(before)).last();
            self.pass_part(round, Some(before), self.done_until, &mut passed);
            return passed;
        }
        let (last, rounds) = (self.round, round - self.round);
        self.round = round;
        self.done_until = self.region(&cursor, None).last();
        self.pass_part(last, Some(before), K::ONES, &mut passed);
        // What was due in the rest of the last round is not due again in this one.
        let until = if rounds == 1 { before.min(self.done_until) } else { before };
        self.pass_part(last + 1, None, until, &mut passed);
        passed
    }

    /// Lists the regions of a round whose distances are after `after` and at most `until`.
    fn pass_part(
        &self,
        round: u64,
        mut after: Option<K>,
        until: K,
        passed: &mut Vec<(Prefix<K>, Instant, Vec<K>)>,
    ) {
        while let Some(distance) = self.next_distance(after).filter(|distance| *distance <= until) {
            let region = self.region(&distance, after);
            let last = region.last();
            let distances = self.distances.range(distance..=last.min(until)).copied().collect();
            let since = self.time_of(round, &region).unwrap_or(Instant::FAR_FUTURE);
            passed.push((region, since, distances));
            after = Some(last);
        }
    }

    /// When the cursor reaches a region in a round. `None` if that does not fit into 64 bits of nanoseconds: it is
    /// never reached.
    fn time_of(&self, round: u64, region: &Prefix<K>) -> Option<Instant> {
        let at = u128::from(round) * u128::from(self.interval) + self.offset(&region.first());
        u64::try_from(at).ok().map(Instant::from_nanos)
    }

    /// The event that a region is due, and in it the keys at these distances. Both are given as distances.
    fn due_event(
        &self,
        region: Prefix<K>,
        mut keys: Vec<K>,
        context: context::Context,
    ) -> Stamped<Outbound<K>> {
        let region = Prefix::new(region.first().distance(&self.local), region.bits());
        for key in &mut keys {
            *key = key.distance(&self.local);
        }
        Stamped { event: Outbound::Due { region, keys }, context, deadline: None }
    }

    /// Adds keys. Those for which there is no room are refused, and removed from `keys`.
    fn add(&mut self, keys: &mut Vec<K>, context: &context::Context, out: &mut Batch<Outbound<K>>) {
        let mut refused = Vec::new();
        keys.retain(|key| {
            let distance = key.distance(&self.local);
            let is_known = self.backlog.contains(&distance) || self.distances.contains(&distance);
            let is_in = is_known || self.len() < self.config.max_keys;
            if is_in && !is_known {
                self.distances.insert(distance);
            }
            if !is_in {
                refused.push(*key);
            }
            is_in
        });
        if !refused.is_empty() {
            let event = Outbound::Refused { keys: refused };
            out.push(Stamped { event, context: context::stored(context).into(), deadline: None });
        }
    }

    /// Emits that these keys are due at once, region by region.
    fn provide(&mut self, keys: Vec<K>, context: &context::Context, out: &mut Batch<Outbound<K>>) {
        let keys = self.sorted_distances(keys);
        for distance in &keys {
            if self.backlog.forget(distance) {
                self.distances.insert(*distance);
            }
        }
        let regions = keys.chunk_by(|a, b| a.common_prefix_len(b) >= self.config.bits);
        for (first, keys) in regions.filter_map(|keys| Some((*keys.first()?, keys))) {
            let region = Prefix::new(first, self.config.bits);
            out.push(self.due_event(region, keys.to_vec(), context::stored(context).into()));
        }
    }

    /// The distances of these keys, in order, each once.
    fn sorted_distances(&self, mut keys: Vec<K>) -> Vec<K> {
        for key in &mut keys {
            *key = key.distance(&self.local);
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// These keys are to be tried again later, region by region.
    fn failed(&mut self, now: Instant, keys: Vec<K>) {
        let mut distances = self.sorted_distances(keys);
        distances.retain(|distance| self.distances.remove(distance));
        for region in distances.chunk_by(|a, b| a.common_prefix_len(b) >= self.config.bits) {
            self.backlog.failed(now, region, self.local.leading());
        }
    }

    /// The least distance of a key after this distance; if it is `None`, of all keys.
    fn next_distance(&self, after: Option<K>) -> Option<K> {
        self.distances.range((after.map_or(Unbounded, Excluded), Unbounded)).next().copied()
    }

    /// The region that contains this distance where everything up to `after` is done: the largest that contains
    /// nothing of it.
    fn region(&self, distance: &K, after: Option<K>) -> Prefix<K> {
        let min_bits = after.map_or(0, |after| after.common_prefix_len(distance) + 1);
        Prefix::new(*distance, self.config.bits.max(min_bits))
    }

    /// The round, and the cursor in it: the first 64 bits of the greatest distance that it has reached.
    fn cursor(&self, now: Instant) -> (u64, u64) {
        let (round, passed) = (now.as_nanos() / self.interval, now.as_nanos() % self.interval);
        // The greatest distance whose `offset` is at most `passed`.
        let leading = (((u128::from(passed) + 1) << 64) - 1) / u128::from(self.interval);
        // It fits into 64 bits, as `passed` is less than the interval.
        (round, u64::try_from(leading).unwrap_or(u64::MAX))
    }

    /// How long after the beginning of a round the cursor reaches this distance, in nanoseconds.
    fn offset(&self, distance: &K) -> u128 {
        (u128::from(self.interval) * u128::from(distance.leading())) >> 64
    }
}

/// The longest time from one overdue region to the next, in nanoseconds.
const MAX_GAP: u64 = 10_000_000_000;

/// The greatest distance that begins with these bits.
fn greatest_distance<K: Key>(leading: u64) -> K {
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
                let distance = key.distance(&self.local);
                self.distances.remove(&distance);
                self.backlog.forget(&distance);
            }
            Inbound::Resize { bits } => {
                let bits = bits.min(K::BITS);
                let (_, cursor) = self.cursor(now);
                // This reduces `done_until` only where regions become smaller.
                self.done_until = self.done_until.min(Prefix::new(greatest_distance(cursor), bits).last());
                self.config.bits = bits;
            }
            Inbound::Tick => {}
            Inbound::Failed(keys) => self.failed(now, keys),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let ahead =
            self.next_distance(Some(self.done_until)).map(|next| (self.round, next, Some(self.done_until)));
        let next = ahead.or_else(|| Some((self.round.checked_add(1)?, self.next_distance(None)?, None)));
        let in_turn =
            next.and_then(|(round, distance, after)| self.time_of(round, &self.region(&distance, after)));
        // What could be given out in the latest call has been, as much as fits into a call.
        let again = self.backlog.wake(self.gap()).map(|at| at.max(self.called.plus(1)));
        in_turn.into_iter().chain(again.filter(|at| *at > self.called)).min()
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
    fn due<K: Key>(out: &Batch<Outbound<K>>) -> Vec<(String, Vec<K>)> {
        let due = out.iter().map(|out| match &out.event {
            Outbound::Due { region, keys } => {
                assert!(!keys.is_empty() && keys.iter().all(|key| region.contains(key)));
                (region.to_string(), keys.clone())
            }
            Outbound::Refused { .. } => panic!("{out:?}"),
        });
        due.collect()
    }

    /// Calls at each wake-up up to this instant. Returns what is due, and when.
    fn run<K: Key>(schedule: &mut Reprovide<K>, until: u64) -> Vec<(u64, String, Vec<K>)> {
        let mut all = Vec::new();
        while let Some(wake) = schedule.poll_timeout().filter(|wake| *wake <= at(until)) {
            let out = schedule.handle(wake, Stamped::new(Inbound::Tick));
            assert!(!out.is_empty(), "woken for nothing");
            assert!(schedule.poll_timeout().is_none_or(|next| next > wake));
            all.extend(due(&out).into_iter().map(|(region, keys)| (wake.as_nanos(), region, keys)));
        }
        all
    }

    #[test]
    fn bad_values_are_named() {
        let of = |interval, max_keys| ReprovideConfig {
            interval,
            bits: 99,
            max_keys,
            retry_interval: Duration::from_nanos(u64::from(interval != Duration::from_nanos(2))),
        };
        for (config, field) in [
            (of(Duration::ZERO, 1), "reprovide.interval"),
            (of(Duration::from_nanos(1), 0), "reprovide.max_keys"),
            (of(Duration::from_nanos(2), 1), "reprovide.retry_interval"),
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
        let out = run(&mut schedule, 2_560);
        // Distance 0 was due when the round began.
        assert_eq!(out.len(), 256);
        for ((time, region, keys), distance) in out.into_iter().zip(1..=256) {
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
        let out = run(&mut schedule, 1_500_000);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].0, out[0].2.len()), (999_999, 60));
        // Regions that the clock cannot tell apart are due at once, in order.
        let _ = schedule.handle(at(1_500_000), Stamped::new(Inbound::Resize { bits: 110 }));
        let out = run(&mut schedule, 2_500_000);
        assert_eq!(out.len(), 11);
        assert!(out.iter().all(|(time, ..)| *time == 1_999_999));
        assert!(out.iter().flat_map(|(.., keys)| keys).is_sorted());
    }

    #[test]
    fn a_resize_makes_nothing_due_and_skips_nothing() {
        let mut schedule = schedule(Key8::ZERO, 1_600, 4);
        let _ = schedule.handle(at(0), Stamped::new(Inbound::Add(keys(0..=255))));
        assert_eq!(run(&mut schedule, 550).len(), 5);
        // 0101* has been due. The quarter that it lies in is not due as a whole: what is left of it is.
        assert!(schedule.handle(at(550), Stamped::new(Inbound::Resize { bits: 2 })).is_empty());
        let out: Vec<_> =
            run(&mut schedule, 1_600).into_iter().map(|(time, region, _)| (time, region)).collect();
        let expected = [(600, "011*"), (800, "10*"), (1_200, "11*"), (1_600, "00*")];
        assert_eq!(out, expected.map(|(time, region)| (time, region.to_owned())));
        // Of the region that is under way, what is ahead is due in its smaller parts too.
        assert!(schedule.handle(at(1_650), Stamped::new(Inbound::Resize { bits: 3 })).is_empty());
        let out: Vec<_> =
            run(&mut schedule, 2_000).into_iter().map(|(time, region, _)| (time, region)).collect();
        assert_eq!(out, [(1_800, "001*".to_owned()), (2_000, "010*".to_owned())]);
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
        // The cursor has passed 0110* when the sleep begins.
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
            let out = due(&schedule.handle(at(woken), Stamped::new(Inbound::Tick)));
            let out: Vec<_> = out.into_iter().flat_map(|(_, keys)| keys).collect();
            assert_eq!(out, keys(expected.iter().copied()), "{woken}");
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
            let out = due(&schedule.handle(Instant::FAR_FUTURE, Stamped::new(Inbound::Tick)));
            // There is no time left for more.
            assert_eq!((out.len(), schedule.overdue_len()), (BURST, 256 - BURST), "after {interval}");
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
        let out = schedule.handle(at(1), add);
        let refused = Outbound::Refused { keys: keys([7, 1]) };
        let due = Outbound::Due { region: Prefix::WHOLE, keys: keys([4, 9]) };
        let expected = [refused, due].map(|event| Stamped::new(event).in_span(span.clone()));
        assert_eq!(out[..], expected);
        // What time makes due continues no span, though it comes in a call that has one.
        let late = Stamped::new(Inbound::Remove(Key8::new([9]))).in_span(span);
        let out = schedule.handle(at(u64::MAX), late);
        assert_eq!(out[0].context, Context::Link(SpanContext::NONE));
        assert_eq!((schedule.len(), schedule.contains(&Key8::new([4]))), (1, true));
        assert!(schedule.keys().eq(keys([4])));
    }
}
