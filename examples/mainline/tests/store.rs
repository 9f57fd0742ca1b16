//! What the node keeps for others: items, peers and tokens, as time passes and room runs out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_mainline::store::{
    ITEM_LIFE, Limits, PEER_LIFE, PEERS_IN_ANSWER, Refusal, SECRET_LIFE, Store, target,
};
use kad_proto::{Key, Key160};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LOCAL: Key160 = Key160::new([0x5a; 20]);
const S: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { items: 5, bytes: 40, item: 20, torrents: 3, peers: 4 };

fn peer(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(HOST, port)
}

fn put(store: &mut Store, item: &[u8], now: Instant) -> Result<(), Refusal> {
    let token = store.token(HOST, now);
    store.put(HOST, &token, None, item.to_vec(), now)
}

fn announce(store: &mut Store, port: u16, info_hash: &Key160, now: Instant) -> Result<(), Refusal> {
    let token = store.token(HOST, now);
    store.announce(peer(port), &token, info_hash, now)
}

#[test]
fn the_key_of_an_item() {
    // The example of BEP 44 for immutable items.
    assert_eq!(target(b"12:Hello World!").to_string(), "e5f96f6f38320f0f33959cb4d3d656452117aadb");
}

#[test]
fn a_token_is_valid_for_5_to_10_minutes_and_for_one_address() {
    let begin = Instant::now();
    for issued in 0..20 {
        let issued = begin + issued * 31 * S;
        // Whenever it is asked in between, or is not.
        for step in [7, 61, 299, 301, 601, 10_000] {
            let mut store = Store::new(LOCAL, LIMITS, begin);
            let token = store.token(HOST, issued);
            assert_eq!(token.len(), 8);
            assert_eq!(
                store.put([10, 0, 0, 1].into(), &token, None, b"0:".to_vec(), issued),
                Err(Refusal::BadToken)
            );
            let mut now = issued;
            let mut last = None;
            while now < issued + 1_000 * S {
                now += step * S;
                let age = now - issued;
                let valid = store.put(HOST, &token, None, b"0:".to_vec(), now).is_ok();
                assert!(valid || age > SECRET_LIFE, "after {age:?}");
                assert!(!valid || age < 2 * SECRET_LIFE, "after {age:?}");
                assert!(!valid || last != Some(false), "again valid after {age:?}");
                last = Some(valid);
            }
        }
    }
    let mut store = Store::new(LOCAL, LIMITS, begin);
    let token = store.token(HOST, begin);
    for wrong in [&token[..7], b"", &[&token[..], b"x"].concat(), &[0; 8]] {
        assert_eq!(store.put(HOST, wrong, None, b"0:".to_vec(), begin), Err(Refusal::BadToken));
    }
    assert_ne!(Store::new(LOCAL, LIMITS, begin).token(HOST, begin), token, "nobody else can make it");
}

#[test]
fn items_expire_unless_they_are_put_again() {
    let begin = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, begin);
    let key = target(b"1:a");
    assert_eq!(put(&mut store, b"1:a", begin), Ok(()));
    assert_eq!(put(&mut store, b"1:b", begin), Ok(()));
    assert_eq!(put(&mut store, b"1:a", begin + ITEM_LIFE / 2), Ok(()));
    let late = begin + ITEM_LIFE;
    assert!(store.get(&target(b"1:b"), late.checked_sub(S).unwrap()).is_some());
    assert!(store.get(&target(b"1:b"), late).is_none());
    assert_eq!(store.get(&key, late), Some(b"1:a".as_slice()));
    assert_eq!(store.len().0, 2);
    let _ = store.token(HOST, late);
    assert_eq!(store.len().0, 1, "it makes room");
    assert!(store.get(&key, late + ITEM_LIFE / 2).is_none());

    // What has expired takes no bytes.
    for begin in [begin, begin + 2 * ITEM_LIFE] {
        for item in [b"17:aaaaaaaaaaaaaaaaa", b"17:bbbbbbbbbbbbbbbbb"] {
            assert_eq!(put(&mut store, item, begin + ITEM_LIFE), Ok(()));
        }
    }
}

#[test]
fn the_wrong_item_and_one_that_is_too_big_are_refused() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    let token = store.token(HOST, now);
    let other = Some(target(b"1:b"));
    assert_eq!(store.put(HOST, &token, other, b"1:a".to_vec(), now), Err(Refusal::OtherTarget));
    assert_eq!(store.put(HOST, &token, other, b"1:b".to_vec(), now), Ok(()));
    let item = |length| [format!("{length}:").as_bytes(), &vec![b'x'; length][..]].concat();
    assert_eq!(put(&mut store, &item(17), now), Ok(()));
    assert_eq!(put(&mut store, &item(18), now), Err(Refusal::TooBig));
    assert_eq!(announce(&mut store, 0, &LOCAL, now), Err(Refusal::NoPort));
    assert_eq!(store.len(), (2, 0));
}

#[test]
fn peers_expire_and_the_first_make_room() {
    let begin = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, begin);
    let torrent = Key160::new([1; 20]);
    for port in [1, 2, 3, 4, 4, 1, 5] {
        assert_eq!(announce(&mut store, port, &torrent, begin + u32::from(port) * S), Ok(()));
    }
    let ports = |store: &Store, now| {
        let mut ports: Vec<_> = store.peers(&torrent, now).iter().map(SocketAddrV4::port).collect();
        ports.sort_unstable();
        ports
    };
    // 1 was announced again before 2 had to go.
    assert_eq!(ports(&store, begin + 5 * S), [1, 3, 4, 5]);
    assert_eq!(ports(&store, begin + PEER_LIFE + 3 * S), [4, 5]);
    assert_eq!(store.len().1, 1);
    let _ = store.token(HOST, begin + PEER_LIFE + 5 * S);
    assert_eq!(store.len().1, 0);
}

#[test]
fn an_answer_names_some_of_many_peers() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, Limits::default(), now);
    let mut seen = HashSet::new();
    for port in 1..=200 {
        assert_eq!(announce(&mut store, port, &LOCAL, now), Ok(()));
    }
    for _ in 0..100 {
        let some: HashSet<_> = store.peers(&LOCAL, now).into_iter().collect();
        assert_eq!(some.len(), PEERS_IN_ANSWER);
        seen.extend(some);
    }
    assert_eq!(seen.len(), 200, "all have their turn");
}

/// What fits, the nearest first; an item never goes without another taking its place.
#[test]
fn what_is_near_has_its_place() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    let torrent = |distance: u8| Key160::new([distance; 20]).distance(&LOCAL);
    for distance in [9, 5, 7] {
        assert_eq!(announce(&mut store, 1, &torrent(distance), now), Ok(()));
    }
    assert_eq!(announce(&mut store, 1, &torrent(10), now), Err(Refusal::Full));
    assert_eq!(announce(&mut store, 2, &torrent(9), now), Ok(()), "one that is there already");
    assert_eq!(announce(&mut store, 1, &torrent(8), now), Ok(()));
    let kept: Vec<_> =
        (0..=20).filter(|distance| !store.peers(&torrent(*distance), now).is_empty()).collect();
    assert_eq!(kept, [5, 7, 8]);
}

proptest! {
    #[test]
    fn items_are_bounded_in_number_and_bytes(items in proptest::collection::vec("[a-z]{0,17}", 1..60)) {
        let now = Instant::now();
        let mut store = Store::new(LOCAL, LIMITS, now);
        // By distance.
        let mut kept = BTreeMap::<Key160, Vec<u8>>::new();
        for item in items {
            let item = format!("{}:{item}", item.len()).into_bytes();
            let distance = target(&item).distance(&LOCAL);
            let said = put(&mut store, &item, now);
            let mut without = kept.clone();
            without.insert(distance, item);
            let fits = |items: &BTreeMap<Key160, Vec<u8>>| {
                items.len() <= LIMITS.items
                    && items.values().map(Vec::len).sum::<usize>() <= LIMITS.bytes
            };
            while !fits(&without) {
                without.pop_last();
            }
            // All that is nearer stays, so it has no place only where it would be the farthest itself.
            let has_place = without.contains_key(&distance);
            prop_assert_eq!(said, if has_place { Ok(()) } else { Err(Refusal::Full) });
            if has_place {
                kept = without;
            }
            prop_assert_eq!(store.len().0, kept.len());
            for (distance, item) in &kept {
                prop_assert_eq!(store.get(&distance.distance(&LOCAL), now), Some(item.as_slice()));
            }
        }
    }
}
