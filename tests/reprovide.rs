//! The reprovide schedule, against the simplest model of it: a clock hand that moves one nanosecond at a time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::{Batch, Bits, Instant, Key8, Machine, Prefix, Reprovide, ReprovideConfig, Stamped};
use proptest::collection::vec;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A due region: its first key, its length in bits, and its keys.
type Due = (u8, u32, Vec<u8>);

/// The model.
#[derive(Clone)]
struct Model {
    local: u8,
    interval: u64,
    bits: u32,
    now: u64,
    keys: BTreeSet<u8>,
    /// Distances below this are done in this round.
    done: u64,
    /// The keys that were slept through, by when they were due and by distance. They are not in `keys`.
    late: BTreeSet<(u64, u8)>,
    /// When the next late region may be due, at an even pace.
    next_late: u64,
    /// How many regions have been due at this time.
    due_now: usize,
}

impl Model {
    fn new(local: u8, interval: u64, bits: u32, now: u64) -> Self {
        let (keys, late) = (BTreeSet::new(), BTreeSet::new());
        let mut model = Self { local, interval, bits, now, keys, done: 0, late, next_late: 0, due_now: 0 };
        // There are no keys yet, so it does not matter how much of the round has passed.
        assert!(model.look().is_empty());
        model
    }

    /// Whether the hand has reached a distance.
    fn begun(&self, distance: u64) -> bool {
        distance < 256 && distance * self.interval / 256 <= self.now % self.interval
    }

    /// Starts each region that the hand has reached: the largest one that may start there.
    fn look(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        while self.begun(self.done) {
            let bits = (self.bits..=8).find(|bits| self.done.is_multiple_of(256 >> bits)).unwrap();
            let region = self.done..self.done + (256 >> bits);
            self.done = region.end;
            let key = |distance| u8::try_from(distance).unwrap() ^ self.local;
            let keys: Vec<_> = region.map(key).filter(|key| self.keys.contains(key)).collect();
            if !keys.is_empty() {
                let first = keys[0] & u8::try_from(0xff00_u32 >> bits & 0xff).unwrap();
                due.push((first, bits, keys));
            }
        }
        due
    }

    fn nanosecond(&mut self) -> Vec<Due> {
        self.now += 1;
        if self.now.is_multiple_of(self.interval) {
            self.done = 0;
        }
        self.look()
    }

    /// All that is due in a call at that time: what the hand has reached, each key once. Of several regions those that
    /// should have been due before are late, and are due at their pace.
    fn advance(&mut self, to: u64) -> Vec<Due> {
        let mut said = BTreeSet::new();
        let mut reached = Vec::new();
        if self.now < to {
            self.due_now = 0;
        }
        while self.now < to {
            for (first, bits, mut keys) in self.nanosecond() {
                keys.retain(|key| said.insert(*key));
                if !keys.is_empty() {
                    reached.push((self.now, (first, bits, keys)));
                }
            }
        }
        if reached.len() > 1 {
            for (at, (_, _, keys)) in reached.iter().filter(|(at, _)| *at < to) {
                for key in keys {
                    self.keys.remove(key);
                    self.late.insert((*at, key ^ self.local));
                }
            }
            reached.retain(|(at, _)| *at == to);
        }
        let mut due = Vec::new();
        self.due_now += reached.len();
        while self.due_now < 8 && self.late_at().is_some_and(|at| at <= to) {
            self.next_late = self.next_late.max(to) + self.gap();
            self.due_now += 1;
            due.push(self.take_late());
        }
        due.extend(reached.into_iter().map(|(_, due)| due));
        due
    }

    /// The time from one late region to the next.
    fn gap(&self) -> u64 {
        ((self.interval / 11 * 2) >> self.bits).max(1)
    }

    /// When a late region may be due, if there is one.
    fn late_at(&self) -> Option<u64> {
        (!self.late.is_empty()).then(|| self.next_late.saturating_sub(7 * self.gap()))
    }

    /// The most overdue key, with all other late keys of its region.
    fn take_late(&mut self) -> Due {
        let (_, most) = *self.late.first().unwrap();
        let mask = u8::try_from(0xff00_u32 >> self.bits & 0xff).unwrap();
        let is_in = |distance: &u8| *distance & mask == most & mask;
        let mut distances: Vec<_> = self.late.iter().map(|(_, distance)| *distance).filter(is_in).collect();
        distances.sort_unstable();
        self.late.retain(|(_, distance)| !is_in(distance));
        let keys: Vec<_> = distances.into_iter().map(|distance| distance ^ self.local).collect();
        self.keys.extend(&keys);
        ((most ^ self.local) & mask, self.bits, keys)
    }

    fn resize(&mut self, bits: u32) {
        if bits > self.bits {
            let part = 256 >> bits;
            let ahead = (1..=256).find(|place| place % part == 0 && !self.begun(*place)).unwrap();
            self.done = self.done.min(ahead);
        }
        self.bits = bits;
    }

    fn wake(&self) -> Option<u64> {
        let mut ahead = self.clone();
        let end = self.now + 2 * self.interval;
        while ahead.now <= end {
            if !ahead.nanosecond().is_empty() || ahead.late_at().is_some_and(|at| at <= ahead.now) {
                return Some(ahead.now);
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// Call at the wake-up.
    Wake,
    Add(Vec<u8>),
    Remove(u8),
    Resize(u32),
}

fn steps(resizes: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..40_u64).prop_map(Step::Wait),
        1 => (0..3_000_u64).prop_map(Step::Wait),
        4 => Just(Step::Wake),
        2 => vec(any::<u8>(), 1..6).prop_map(Step::Add),
        1 => any::<u8>().prop_map(Step::Remove),
        resizes => (0..=9_u32).prop_map(Step::Resize),
    ];
    vec(step, 1..50)
}

fn machine(local: u8, interval: u64, bits: u32) -> Reprovide<Key8> {
    let interval = Duration::from_nanos(interval);
    let config = ReprovideConfig { interval, bits, ..ReprovideConfig::default() };
    Reprovide::new(Key8::new([local]), config).unwrap()
}

fn keys(bytes: &[u8]) -> Vec<Key8> {
    bytes.iter().map(|byte| Key8::new([*byte])).collect()
}

fn due(said: &Batch<Outbound<Key8>>) -> Vec<Due> {
    let due = said.iter().filter_map(|said| match &said.event {
        Outbound::Due { region, keys } => {
            let keys = keys.iter().map(|key| key.as_bytes()[0]).collect();
            Some((region.first().as_bytes()[0], region.bits(), keys))
        }
        Outbound::Refused { .. } => None,
    });
    due.collect()
}

fn tick(machine: &mut Reprovide<Key8>, now: u64) -> Vec<Due> {
    due(&machine.handle(Instant::from_nanos(now), Stamped::new(Inbound::Tick)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_schedule_equals_the_model(
        local: u8,
        interval in prop_oneof![1..20_u64, 20..2_000_u64, Just(256), Just(1_024)],
        bits in 0..=8_u32,
        begin in 0..5_000_u64,
        steps in steps(2),
    ) {
        let mut machine = machine(local, interval, bits);
        let mut model = Model::new(local, interval, bits, begin);
        let mut now = begin;
        prop_assert!(tick(&mut machine, now).is_empty());
        for step in steps {
            match step {
                Step::Wait(nanos) => now += nanos,
                Step::Wake => {
                    let wake = machine.poll_timeout().map(Instant::as_nanos);
                    if let Some(wake) = wake {
                        let early = wake - 1;
                        prop_assert!(early <= now || tick(&mut machine.clone(), early).is_empty(), "woken late");
                        now = wake;
                    }
                }
                _ => {}
            }
            let inbound = match &step {
                Step::Add(bytes) => Inbound::Add(keys(bytes)),
                Step::Remove(byte) => Inbound::Remove(Key8::new([*byte])),
                Step::Resize(bits) => Inbound::Resize { bits: *bits },
                _ => Inbound::Tick,
            };
            let said = machine.handle(Instant::from_nanos(now), Stamped::new(inbound));
            prop_assert_eq!(due(&said), model.advance(now), "{:?} at {}", step, now);
            match step {
                Step::Add(keys) => {
                    let is_late = |key: &u8| model.late.iter().any(|(_, distance)| distance ^ local == *key);
                    let new: Vec<_> = keys.into_iter().filter(|key| !is_late(key)).collect();
                    model.keys.extend(new);
                }
                Step::Remove(key) => {
                    model.keys.remove(&key);
                    model.late.retain(|(_, distance)| distance ^ local != key);
                }
                Step::Resize(bits) => model.resize(bits.min(8)),
                _ => {}
            }
            prop_assert_eq!(machine.poll_timeout().map(Instant::as_nanos), model.wake());
            prop_assert_eq!(machine.len(), model.keys.len() + model.late.len());
            let overdue: Vec<_> = machine.overdue().map(|(key, at)| (at.as_nanos(), key.as_bytes()[0] ^ local)).collect();
            prop_assert_eq!(overdue, model.late.iter().copied().collect::<Vec<_>>());
            let all = model.keys.iter().map(|key| key ^ local).chain(model.late.iter().map(|(_, distance)| *distance));
            let all: BTreeSet<_> = all.collect();
            prop_assert!(machine.keys().map(|key| key.as_bytes()[0] ^ local).eq(all), "in order");
        }
    }

    #[test]
    fn each_key_is_due_once_per_interval_while_regions_do_not_change(
        local: u8,
        interval in 1..3_000_u64,
        bits in 0..=8_u32,
        bytes in vec(any::<u8>(), 1..40),
        begin in prop_oneof![0..10_000_u64, u64::MAX - 20_000..u64::MAX - 12_000],
    ) {
        let mut machine = machine(local, interval, bits);
        let _ = machine.handle(Instant::from_nanos(begin), Stamped::new(Inbound::Add(keys(&bytes))));
        let mut last = BTreeMap::new();
        let mut count = BTreeMap::<u8, u64>::new();
        let end = begin + 3 * interval;
        while let Some(now) = machine.poll_timeout().map(Instant::as_nanos).filter(|now| *now <= end) {
            let all = tick(&mut machine, now);
            for key in all.into_iter().flat_map(|(_, _, keys)| keys) {
                prop_assert!(last.insert(key, now).is_none_or(|last| now - last == interval));
                *count.entry(key).or_default() += 1;
            }
        }
        prop_assert!(bytes.iter().all(|key| count.get(key) == Some(&3)), "{count:?}");
    }

    #[test]
    fn no_key_waits_longer_than_the_interval_and_a_slot_and_few_are_due_at_once(
        local: u8,
        interval in 256..3_000_u64,
        bits in 0..=8_u32,
        begin in 0..5_000_u64,
        steps in steps(6),
    ) {
        let mut machine = machine(local, interval, bits);
        // When each key was last due or added, and the slot at that time.
        let mut since = BTreeMap::<u8, (u64, u64)>::new();
        let mut now = begin;
        for step in steps {
            let (until, inbound) = match step {
                Step::Wait(nanos) => (now + nanos, Inbound::Tick),
                Step::Wake => (machine.poll_timeout().map_or(now, Instant::as_nanos), Inbound::Tick),
                Step::Add(bytes) => (now, Inbound::Add(keys(&bytes))),
                Step::Remove(byte) => (now, Inbound::Remove(Key8::new([byte]))),
                Step::Resize(bits) => (now, Inbound::Resize { bits }),
            };
            // Every wake-up is kept.
            while let Some(wake) = machine.poll_timeout().map(Instant::as_nanos).filter(|wake| *wake <= until) {
                now = wake;
                let slot = interval.div_ceil(1 << machine.bits());
                let said = tick(&mut machine, now);
                prop_assert_eq!(said.len(), 1, "one region at a time");
                for (_, bits, keys) in said {
                    prop_assert!(bits >= machine.bits());
                    for key in keys {
                        let (last, slot) = since.insert(key, (now, slot)).unwrap();
                        prop_assert!(now - last <= interval + slot, "{} waited for {}", key, now - last);
                    }
                }
            }
            now = until;
            let slot = interval.div_ceil(1 << machine.bits());
            match &inbound {
                Inbound::Add(keys) => {
                    for key in keys {
                        since.entry(key.as_bytes()[0]).or_insert((now, slot));
                    }
                }
                Inbound::Remove(key) => {
                    since.remove(&key.as_bytes()[0]);
                }
                _ => {}
            }
            prop_assert!(machine.handle(Instant::from_nanos(now), Stamped::new(inbound)).is_empty());
            // No key waits too long.
            for (last, slot) in since.values() {
                prop_assert!(now - last <= interval + slot);
            }
        }
    }

    #[test]
    fn keys_added_together_are_due_by_region(local: u8, bits in 0..=8_u32, bytes in vec(any::<u8>(), 1..40)) {
        let mut machine = machine(local, 1_000, bits);
        let said = due(&machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Provide(keys(&bytes)))));
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for key in &bytes {
            let region = Prefix::new(Key8::new([key ^ local]), bits);
            all.entry(region).or_default().insert(key ^ local);
        }
        let expected: Vec<_> = all
            .into_iter()
            .map(|(region, keys)| {
                let keys = keys.into_iter().map(|distance| distance ^ local).collect();
                let first = Prefix::new(Key8::new([region.first().as_bytes()[0] ^ local]), bits);
                (first.first().as_bytes()[0], bits, keys)
            })
            .collect();
        prop_assert_eq!(said, expected);
    }
}

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;

/// Regions of 22 hours, each with keys, whose stores succeed or fail.
struct Provider {
    machine: Reprovide<Bits<8>>,
    bits: u32,
    now: u64,
    /// When each region was due.
    due: BTreeMap<u64, Vec<u64>>,
    /// When stores fail, the caller hears of it: by time.
    failures: BTreeSet<(u64, Vec<Bits<8>>)>,
    /// The times at which regions were due, since the machine woke.
    times: Vec<u64>,
}

impl Provider {
    fn new(bits: u32, seed: u64) -> Self {
        let config = ReprovideConfig { bits, ..ReprovideConfig::default() };
        let mut random = SplitMix64::seed_from_u64(seed);
        let local = Bits::new(random.next_u64().to_be_bytes());
        let mut machine = Reprovide::new(local, config).unwrap();
        let key = |number: u64| number >> 1 << (64 - bits) | random.next_u64() >> bits;
        let keys = (0..2 << bits).map(key).map(|key| Bits::new(key.to_be_bytes())).collect();
        let _ = machine.handle(Instant::ORIGIN, Stamped::new(Inbound::Add(keys)));
        let (due, failures) = (BTreeMap::new(), BTreeSet::new());
        Self { machine, bits, now: 0, due, failures, times: Vec::new() }
    }

    /// One call. Stores that fail are heard of `fails_after` later.
    fn call(&mut self, now: u64, inbound: Inbound<Bits<8>>, fails_after: Option<u64>) -> usize {
        self.now = now;
        let out = self.machine.handle(Instant::from_nanos(now), Stamped::new(inbound));
        for stamped in &out {
            let Outbound::Due { region, keys } = &stamped.event else { continue };
            assert!(keys.iter().all(|key| region.contains(key)));
            let number = u64::from_be_bytes(*region.first().as_bytes()) >> (64 - self.bits);
            self.due.entry(number).or_default().push(now);
            self.times.push(now);
            self.failures.extend(fails_after.map(|after| (now + after, keys.clone())));
        }
        assert!(out.len() <= 8, "{} regions in a call", out.len());
        out.len()
    }

    /// Calls whenever the machine wants to be called, and whenever a store fails.
    fn run(&mut self, until: u64, fails_after: Option<u64>) {
        loop {
            let wake = self.machine.poll_timeout().map(Instant::as_nanos);
            let failure =
                self.failures.first().map(|(at, _)| *at).filter(|at| wake.is_none_or(|wake| *at <= wake));
            let Some(at) = failure.or(wake).filter(|at| *at <= until) else { return };
            if failure.is_some() {
                let (_, keys) = self.failures.pop_first().unwrap();
                self.call(at, Inbound::Failed(keys), fails_after);
            } else {
                assert!(self.call(at, Inbound::Tick, fails_after) > 0, "woken for nothing");
                let next = self.machine.poll_timeout().map(Instant::as_nanos);
                assert!(next.is_none_or(|next| next > at));
            }
        }
    }

    /// The most regions that were due within a minute since it woke.
    fn most_in_a_minute(&self) -> usize {
        let within =
            |from: &u64| self.times.iter().filter(|at| (*from..*from + MINUTE).contains(*at)).count();
        self.times.iter().map(within).max().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn what_was_slept_through_is_due_at_an_even_pace_the_most_overdue_first(
        bits in 1..=13_u32,
        asleep in 22 * HOUR..66 * HOUR,
        length in prop_oneof![MINUTE..30 * MINUTE, HOUR..22 * HOUR, 22 * HOUR..60 * 24 * HOUR],
        seed: u64,
    ) {
        let mut provider = Provider::new(bits, seed);
        provider.run(asleep, None);
        prop_assert_eq!(provider.due.len(), 1 << bits);
        let last: BTreeMap<_, _> = provider.due.iter().map(|(region, times)| (*region, *times.last().unwrap())).collect();
        provider.due.clear();
        provider.times.clear();
        let woken = asleep + length;
        provider.call(woken, Inbound::Tick, None);
        // A region is overdue if more than an interval has passed since it was due.
        let mut overdue: Vec<_> = last.iter().filter(|(_, at)| **at + 22 * HOUR < woken).map(|(region, at)| (*at, *region)).collect();
        overdue.sort_unstable();
        let left = overdue.len().saturating_sub(provider.times.len());
        prop_assert_eq!(provider.machine.overdue_len(), 2 * left, "told");
        provider.run(woken + 6 * HOUR, None);
        prop_assert_eq!(provider.machine.overdue_len(), 0);
        prop_assert!(provider.most_in_a_minute() <= 64, "{} in a minute", provider.most_in_a_minute());
        let times: Vec<_> = overdue.iter().map(|(_, region)| provider.due.get(region).map(|times| times[0])).collect();
        prop_assert!(times.iter().all(Option::is_some), "all done within six hours");
        prop_assert!(times.is_sorted(), "the most overdue first");
        // Afterwards all is as if nothing had been.
        provider.due.clear();
        let wakes = woken + 6 * HOUR..woken + 28 * HOUR;
        provider.run(wakes.end, None);
        let mut awake = Provider::new(bits, seed);
        awake.run(wakes.start, None);
        awake.due.clear();
        awake.run(wakes.end, None);
        prop_assert_eq!(provider.due, awake.due);
    }

    #[test]
    fn what_has_failed_is_tried_again_ever_more_rarely(
        bits in 1..=12_u32,
        begin in 22 * HOUR..44 * HOUR,
        length in prop_oneof![Just(0), HOUR..60 * 24 * HOUR],
        fails_after in prop_oneof![Just(0), 0..3 * MINUTE],
        seed: u64,
    ) {
        let mut provider = Provider::new(bits, seed);
        provider.run(begin, None);
        provider.due.clear();
        provider.times.clear();
        let down = begin + length;
        provider.call(down, Inbound::Tick, Some(fails_after));
        let back = down + HOUR;
        provider.run(back, Some(fails_after));
        let tries = provider.due.values().map(Vec::len).max().unwrap_or(0);
        prop_assert!(tries <= 8, "{} tries", tries);
        let is_early = provider.due.values().any(|times| times[0] + 10 * MINUTE < back);
        prop_assert!(tries > 1 || !is_early, "tried again");
        let failed: BTreeSet<_> = core::mem::take(&mut provider.due).into_keys().collect();
        provider.run(back + HOUR, None);
        prop_assert!(failed.iter().all(|region| provider.due.contains_key(region)), "all done in the next hour");
        prop_assert!(provider.most_in_a_minute() <= 64, "{} in a minute", provider.most_in_a_minute());
        // Nothing is left of it.
        provider.run(back + 7 * HOUR, None);
        prop_assert_eq!(provider.machine.overdue_len(), 0);
        prop_assert_eq!(provider.machine.len(), 2 << bits);
    }
}

#[test]
fn a_key_that_waits_can_be_removed_provided_and_added() {
    let mut machine = machine(0, 2_000_000, 4);
    let all = keys(&[0x11, 0x12, 0x21, 0x31]);
    let mut call = |now, inbound| due(&machine.handle(Instant::from_nanos(now), Stamped::new(inbound)));
    assert!(call(1, Inbound::Add(all.clone())).is_empty());
    assert_eq!(call(130_000, Inbound::Tick), [(0x10, 4, vec![0x11, 0x12])]);
    assert!(call(130_001, Inbound::Failed(keys(&[0x12, 0x11, 0x12, 0x99]))).is_empty());
    // Twice is once.
    assert!(call(130_002, Inbound::Failed(keys(&[0x12]))).is_empty());
    assert!(call(130_003, Inbound::Add(keys(&[0x12]))).is_empty());
    assert_eq!(call(130_004, Inbound::Provide(keys(&[0x11]))), [(0x10, 4, vec![0x11])]);
    assert_eq!(machine.overdue().collect::<Vec<_>>(), [(Key8::new([0x12]), Instant::from_nanos(130_001))]);
    assert!(machine.contains(&Key8::new([0x12])) && machine.len() == 4);
    let _ = machine.handle(Instant::from_nanos(130_005), Stamped::new(Inbound::Remove(Key8::new([0x12]))));
    assert_eq!((machine.overdue_len(), machine.len(), machine.contains(&Key8::new([0x12]))), (0, 3, false));
}
