//! The reprovide schedule, against the simplest model of it: a clock hand that moves one nanosecond at a time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::{Batch, Instant, Key8, Machine, Prefix, Reprovide, ReprovideConfig, Stamped};
use proptest::collection::vec;
use proptest::prelude::*;
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
}

impl Model {
    fn new(local: u8, interval: u64, bits: u32, now: u64) -> Self {
        let mut model = Self { local, interval, bits, now, keys: BTreeSet::new(), done: 0 };
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

    /// All that is due until then, in order; each key once.
    fn advance(&mut self, to: u64) -> Vec<Due> {
        let mut said = BTreeSet::new();
        let mut all = Vec::new();
        while self.now < to {
            for (first, bits, mut keys) in self.nanosecond() {
                keys.retain(|key| said.insert(*key));
                if !keys.is_empty() {
                    all.push((first, bits, keys));
                }
            }
        }
        all
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
            if !ahead.nanosecond().is_empty() {
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
                        prop_assert!(tick(&mut machine.clone(), wake - 1).is_empty(), "woken late");
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
                Step::Add(keys) => model.keys.extend(keys),
                Step::Remove(key) => {
                    model.keys.remove(&key);
                }
                Step::Resize(bits) => model.resize(bits.min(8)),
                _ => {}
            }
            prop_assert_eq!(machine.poll_timeout().map(Instant::as_nanos), model.wake());
            prop_assert_eq!(machine.len(), model.keys.len());
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
