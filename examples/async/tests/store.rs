//! The store in memory: bounds, expiry, and shares.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_proto::{Family, Group, Instant, Key160, Record};
use kad_proto_async::{MemoryStore, Payload, Refusal, Store, StoreLimits, Wire};
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq)]
struct Mem;

impl Family for Mem {
    type Key = Key160;
    type Target = Key160;
    type Node = Key160;
    type Message = Payload<Mem>;

    fn key(node: &Key160) -> Key160 {
        *node
    }
}

impl Wire for Mem {
    /// A sequence number, and as many bytes.
    type Value = (u32, usize);
    type Provider = u32;

    fn replaces(old: &Self::Value, new: &Self::Value) -> bool {
        new.0 >= old.0
    }

    fn size(value: &Self::Value) -> usize {
        value.1
    }
}

fn key(first: u8) -> Key160 {
    let mut bytes = [0; 20];
    bytes[0] = first;
    Key160::new(bytes)
}

/// The own key is 0, so keys are distances.
fn store(edit: impl FnOnce(&mut StoreLimits)) -> MemoryStore<Mem> {
    let mut limits = StoreLimits::default();
    edit(&mut limits);
    MemoryStore::new(key(0), limits)
}

const A: Option<Group> = Some(Group(1));
const B: Option<Group> = Some(Group(2));

fn at(secs: u64) -> Instant {
    Instant::from_secs(secs)
}

#[test]
fn what_has_expired_is_not_given_out_and_goes() {
    let mut store = store(|limits| {
        limits.value_life = Duration::from_secs(100);
        limits.provider_life = Duration::from_secs(50);
    });
    store.put(key(1), (1, 10), A, at(0)).unwrap();
    store.add_provider(key(1), 7, A, at(0)).unwrap();
    assert_eq!((store.value(&key(1), at(99)), store.providers(&key(1), at(49))), (Some((1, 10)), vec![7]));
    assert_eq!((store.value(&key(1), at(100)), store.providers(&key(1), at(50))), (None, vec![]));
    // Said again, they live longer.
    store.put(key(1), (1, 10), B, at(90)).unwrap();
    store.add_provider(key(1), 7, B, at(40)).unwrap();
    assert_eq!((store.value(&key(1), at(189)), store.providers(&key(1), at(89))), (Some((1, 10)), vec![7]));
    store.put(key(2), (1, 10), A, at(500)).unwrap();
    assert_eq!(store.len(), (1, 0), "what has expired is dropped");
}

#[test]
fn a_newer_value_stays() {
    let mut store = store(|limits| limits.value_bytes = 50);
    store.put(key(1), (5, 10), A, at(0)).unwrap();
    assert_eq!(store.put(key(1), (4, 10), A, at(0)), Err(Refusal::Outdated));
    store.put(key(1), (6, 20), B, at(0)).unwrap();
    assert_eq!(store.value(&key(1), at(0)), Some((6, 20)));
    assert_eq!(store.put(key(1), (7, 51), A, at(0)), Err(Refusal::TooLarge));
    assert_eq!(store.len(), (1, 0));
}

#[test]
fn what_is_farther_makes_room() {
    let mut store = store(|limits| (limits.values, limits.bytes) = (3, 100));
    for distance in [10, 20, 30] {
        store.put(key(distance), (1, 30), None, at(0)).unwrap();
    }
    assert_eq!(store.put(key(40), (1, 1), None, at(0)), Err(Refusal::Full));
    store.put(key(5), (1, 30), None, at(0)).unwrap();
    assert_eq!(store.value(&key(30), at(0)), None);
    // Larger than one that goes: both that are farther go.
    store.put(key(7), (1, 60), None, at(0)).unwrap();
    assert_eq!((store.len().0, store.value(&key(5), at(0))), (2, Some((1, 30))));
    // In place of itself, it needs only what it grows by.
    store.put(key(7), (2, 70), None, at(0)).unwrap();
    assert_eq!(store.put(key(7), (3, 71), None, at(0)), Err(Refusal::Full));
    assert_eq!(store.value(&key(7), at(0)), Some((2, 70)), "nothing goes in vain");
}

#[test]
fn values_replaced_at_full_size_need_no_room() {
    let mut store = store(|limits| (limits.values, limits.bytes) = (1, 100));
    store.put(key(1), (1, 100), None, at(0)).unwrap();
    store.put(key(1), (2, 100), None, at(0)).unwrap();
    assert_eq!(store.value(&key(1), at(0)), Some((2, 100)));
    store.put(key(1), (3, 0), None, at(0)).unwrap();
    store.put(key(1), (4, 100), None, at(0)).unwrap();
    assert_eq!((store.len(), store.value(&key(1), at(0))), ((1, 0), Some((4, 100))));
}

#[test]
fn no_group_gets_more_than_its_share() {
    let mut store = store(|limits| (limits.values, limits.providers, limits.share) = (20, 20, 10));
    for distance in 1..=2 {
        store.put(key(distance), (1, 1), A, at(0)).unwrap();
        store.add_provider(key(distance), 1, A, at(0)).unwrap();
    }
    assert_eq!(store.put(key(3), (1, 1), A, at(0)), Err(Refusal::Share));
    assert_eq!(store.add_provider(key(3), 1, A, at(0)), Err(Refusal::Share));
    store.put(key(3), (1, 1), B, at(0)).unwrap();
    store.put(key(2), (2, 1), A, at(0)).unwrap();
    store.add_provider(key(1), 1, A, at(0)).unwrap();
    // What expires gives the share back.
    store.put(key(9), (1, 1), A, at(3 * 86_400)).unwrap();
    assert_eq!(store.len(), (1, 0));
}

#[test]
fn one_group_cannot_push_out_the_providers_of_others() {
    let mut store = store(|limits| limits.providers_of_key = 4);
    for (provider, group) in [(1, Some(Group(10))), (2, Some(Group(11))), (3, None)] {
        store.add_provider(key(1), provider, group, at(0)).unwrap();
    }
    for provider in 100..200 {
        store.add_provider(key(1), provider, A, at(0)).unwrap();
    }
    assert_eq!(store.providers(&key(1), at(0)), [1, 2, 3, 199]);
    // A newcomer of another group takes the place of the oldest, where all have one.
    store.add_provider(key(1), 300, B, at(0)).unwrap();
    assert_eq!(store.providers(&key(1), at(0)), [2, 3, 199, 300]);
    assert_eq!(store.len(), (0, 4));
}

#[test]
fn providers_are_bounded_in_all() {
    let mut store = store(|limits| limits.providers = 6);
    for distance in [10, 20] {
        for provider in 0..3 {
            store.add_provider(key(distance), provider, None, at(0)).unwrap();
        }
    }
    assert_eq!(store.add_provider(key(30), 1, None, at(0)), Err(Refusal::Full));
    store.add_provider(key(5), 1, None, at(0)).unwrap();
    assert_eq!((store.len(), store.providers(&key(20), at(0))), ((0, 4), vec![]));
}

#[test]
fn own_records_are_remembered() {
    let mut store = store(|_| ());
    store.repeat(Record { target: key(1), message: Payload::Provide(1) });
    store.repeat(Record { target: key(1), message: Payload::Provide(2) });
    store.repeat(Record { target: key(2), message: Payload::Provide(3) });
    store.forget(&key(2));
    assert_eq!(store.repeated(), [key(1)]);
    assert_eq!(store.record(&key(1)).unwrap().message, Payload::Provide(2));
    assert!(store.record(&key(2)).is_none() && store.is_empty());
}
