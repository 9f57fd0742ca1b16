//! What the node keeps for others: items, peers and tokens, as time passes and room runs out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_mainline::shares::{Host, NoRoom, Room, Shares};
use kad_mainline::store::{
    ITEM_COST, ITEM_LIFE, Limits, PEER_LIFE, PEERS_IN_ANSWER, Refusal, SECRET_LIFE, Store, target,
};
use kad_proto::{Key, Key160};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LOCAL: Key160 = Key160::new([0x5a; 20]);
const S: Duration = Duration::from_secs(1);
/// Room for three items of one host and six of all; for three peers of one host, of which two of one torrent, and
/// for nine of all, of which four of one torrent.
const LIMITS: Limits = Limits {
    items: Room { host: 3 * (ITEM_COST + 5), total: 6 * (ITEM_COST + 5) },
    item: 20,
    peers: Room { host: 3, total: 9 },
    torrent: Room { host: 2, total: 4 },
};

/// Where another host sends from.
fn other(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new([198, 51, 100, host].into(), 6881)
}

fn put_from(store: &mut Store, from: SocketAddrV4, item: &[u8], now: Instant) -> Result<(), Refusal> {
    let token = store.token(*from.ip(), now);
    store.put(from, &token, None, item.to_vec(), now)
}

fn put(store: &mut Store, item: &[u8], now: Instant) -> Result<(), Refusal> {
    put_from(store, SocketAddrV4::new(HOST, 6881), item, now)
}

fn announce_from(
    store: &mut Store,
    from: SocketAddrV4,
    torrent: &Key160,
    now: Instant,
) -> Result<(), Refusal> {
    let token = store.token(*from.ip(), now);
    store.announce(from, None, &token, torrent, now)
}

fn announce(store: &mut Store, port: u16, info_hash: &Key160, now: Instant) -> Result<(), Refusal> {
    announce_from(store, SocketAddrV4::new(HOST, port), info_hash, now)
}

/// A torrent at this distance.
fn torrent(distance: u8) -> Key160 {
    Key160::new([distance; 20]).distance(&LOCAL)
}

/// The peers of a torrent that the store names, in order.
fn peers(store: &Store, torrent: &Key160, now: Instant) -> Vec<SocketAddrV4> {
    let mut peers = store.peers(torrent, now);
    peers.sort_unstable();
    peers
}

/// Items of 5 bytes, the nearest first.
fn items() -> Vec<Vec<u8>> {
    let mut items: Vec<_> = (100..200).map(|number| format!("3:{number}").into_bytes()).collect();
    items.sort_by_key(|item| target(item).distance(&LOCAL));
    items
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
            assert_eq!(store.put(other(1), &token, None, b"0:".to_vec(), issued), Err(Refusal::BadToken));
            let mut now = issued;
            let mut last = None;
            while now < issued + 1_000 * S {
                now += step * S;
                let age = now - issued;
                let valid = store.put(SocketAddrV4::new(HOST, 1), &token, None, b"0:".to_vec(), now).is_ok();
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
        assert_eq!(
            store.put(SocketAddrV4::new(HOST, 1), wrong, None, b"0:".to_vec(), begin),
            Err(Refusal::BadToken)
        );
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

    // What has expired takes no room.
    for begin in [begin, begin + 2 * ITEM_LIFE] {
        for item in &items()[..3] {
            assert_eq!(put(&mut store, item, begin + ITEM_LIFE), Ok(()));
        }
    }
}

#[test]
fn the_wrong_item_and_one_that_is_too_big_are_refused() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    let token = store.token(HOST, now);
    let said = Some(target(b"1:b"));
    assert_eq!(
        store.put(SocketAddrV4::new(HOST, 1), &token, said, b"1:a".to_vec(), now),
        Err(Refusal::OtherTarget)
    );
    assert_eq!(store.put(SocketAddrV4::new(HOST, 1), &token, said, b"1:b".to_vec(), now), Ok(()));
    let item = |length| [format!("{length}:").as_bytes(), &vec![b'x'; length][..]].concat();
    assert_eq!(put(&mut store, &item(17), now), Ok(()));
    assert_eq!(put(&mut store, &item(18), now), Err(Refusal::TooBig));
    assert_eq!(announce(&mut store, 0, &LOCAL, now), Err(Refusal::NoPort));
    assert_eq!(store.len(), (2, 0));
}

#[test]
fn peers_expire_and_the_first_of_a_host_makes_room() {
    let begin = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, begin);
    let torrent = torrent(1);
    let at = |port| SocketAddrV4::new(HOST, port);
    assert_eq!(announce_from(&mut store, other(1), &torrent, begin), Ok(()));
    for port in [1, 2, 1, 3, 3] {
        assert_eq!(announce(&mut store, port, &torrent, begin + u32::from(port) * S), Ok(()));
    }
    // 1 was announced again before 2 had to go.
    assert_eq!(peers(&store, &torrent, begin), [at(1), at(3), other(1)]);
    assert_eq!(peers(&store, &torrent, begin + PEER_LIFE), [at(1), at(3)]);
    assert_eq!(peers(&store, &torrent, begin + PEER_LIFE + S), [at(3)]);
    assert_eq!(store.len().1, 1);
    let _ = store.token(HOST, begin + PEER_LIFE + 3 * S);
    assert_eq!(store.len().1, 0);
    // What has expired takes no room.
    for distance in [5, 6, 7] {
        assert_eq!(announce(&mut store, 1, &self::torrent(distance), begin + PEER_LIFE + 4 * S), Ok(()));
    }
}

#[test]
fn an_answer_names_some_of_many_peers() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, Limits::default(), now);
    let mut seen = HashSet::new();
    for host in 1..=200 {
        assert_eq!(announce_from(&mut store, other(host), &LOCAL, now), Ok(()));
    }
    for _ in 0..100 {
        let some: HashSet<_> = store.peers(&LOCAL, now).into_iter().collect();
        assert_eq!(some.len(), PEERS_IN_ANSWER);
        seen.extend(some);
    }
    assert_eq!(seen.len(), 200, "all have their turn");
    assert_eq!(store.all_peers(&LOCAL, now).count(), 200);
}

/// Of one host, what is near makes room for nothing.
#[test]
fn what_is_near_has_its_place() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    for distance in [9, 5, 7] {
        assert_eq!(announce(&mut store, 1, &torrent(distance), now), Ok(()));
    }
    assert_eq!(announce(&mut store, 1, &torrent(10), now), Err(Refusal::Full));
    assert_eq!(announce(&mut store, 1, &torrent(9), now), Ok(()), "one that is there already");
    assert_eq!(announce(&mut store, 1, &torrent(8), now), Ok(()));
    let kept: Vec<_> =
        (0..=20).filter(|distance| !store.peers(&torrent(*distance), now).is_empty()).collect();
    assert_eq!(kept, [5, 7, 8]);

    let items = items();
    for item in [&items[9], &items[5], &items[7]] {
        assert_eq!(put(&mut store, item, now), Ok(()));
    }
    assert_eq!(put(&mut store, &items[10], now), Err(Refusal::Full));
    assert_eq!(put(&mut store, &items[9], now), Ok(()), "one that is there already");
    assert_eq!(put(&mut store, &items[8], now), Ok(()));
    let has = |place: &usize| store.get(&target(&items[*place]), now).is_some();
    assert_eq!((0..20).filter(has).collect::<Vec<_>>(), [5, 7, 8]);
}

/// Whatever one host announces, and however near, the peers that others announced stay.
#[test]
fn no_host_pushes_out_the_peers_of_others() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    let far = torrent(200);
    for host in 1..=3 {
        assert_eq!(announce_from(&mut store, other(host), &far, now), Ok(()));
    }
    // In the same torrent: by its ports.
    for port in 1..100 {
        assert_eq!(announce(&mut store, port, &far, now), Ok(()));
    }
    let others = [other(1), other(2), other(3)];
    let both = [&[SocketAddrV4::new(HOST, 99)][..], &others].concat();
    assert_eq!(peers(&store, &far, now), both);
    // In other torrents, all nearer.
    for distance in 1..150 {
        let _ = announce(&mut store, 1, &torrent(distance), now);
    }
    assert_eq!(peers(&store, &far, now), others);
    // Where all is full, who has most gives way, and who has as much as the others has to be nearer.
    for (host, distance) in (4..=5).flat_map(|host| (10..13).map(move |distance| (host, distance))) {
        let _ = announce_from(&mut store, other(host), &torrent(distance), now);
    }
    assert_eq!(peers(&store, &far, now), others);
    assert_eq!(announce_from(&mut store, other(6), &torrent(250), now), Ok(()));
    assert_eq!(peers(&store, &torrent(250), now), [other(6)]);
    assert_eq!(peers(&store, &far, now), others);
    // A torrent that is full of hosts with one peer each still takes in who is new, for the oldest.
    let popular = torrent(1);
    let mut store = Store::new(LOCAL, LIMITS, now);
    for host in 10..=15 {
        let _ = announce_from(&mut store, other(host), &popular, now);
    }
    assert_eq!(peers(&store, &popular, now), [other(12), other(13), other(14), other(15)]);
}

#[test]
fn no_host_pushes_out_the_items_of_others() {
    let now = Instant::now();
    let mut store = Store::new(LOCAL, LIMITS, now);
    let items = items();
    let has = |store: &Store, place: usize| store.get(&target(&items[place]), now).is_some();
    // The farthest there are, of two hosts; and one of them that both have put.
    for (host, place) in [(1, 98), (1, 99), (2, 97), (2, 99)] {
        assert_eq!(put_from(&mut store, other(host), &items[place], now), Ok(()));
    }
    for item in &items[..90] {
        let _ = put(&mut store, item, now);
    }
    assert!([97, 98, 99].iter().all(|place| has(&store, *place)));
    // To put what others have put, and then more, does not push it out either.
    let mut store = Store::new(LOCAL, LIMITS, now);
    assert_eq!(put_from(&mut store, other(1), &items[99], now), Ok(()));
    for item in items.iter().rev() {
        let _ = put(&mut store, item, now);
    }
    assert!(has(&store, 99) && has(&store, 0));
    // It is kept as long as one of them keeps it.
    let late = now + ITEM_LIFE / 2;
    let mut store = Store::new(LOCAL, LIMITS, now);
    for (host, when) in [(1, now), (2, late)] {
        assert_eq!(put_from(&mut store, other(host), &items[0], when), Ok(()));
    }
    let _ = store.token(HOST, now + ITEM_LIFE);
    assert!(store.get(&target(&items[0]), now + ITEM_LIFE).is_some());
    assert!(store.get(&target(&items[0]), late + ITEM_LIFE).is_none());
}

#[test]
fn on_loopback_each_port_is_a_host() {
    let host = |text: &str| Host::of(text.parse().unwrap());
    assert_eq!(host("192.0.2.1:1"), host("192.0.2.1:2"));
    assert_ne!(host("192.0.2.1:1"), host("192.0.2.2:1"));
    assert_ne!(host("127.0.0.1:1"), host("127.0.0.1:2"));
}

proptest! {
    /// The room is never exceeded; no claim of a host goes by that of another that has as much already; and what is
    /// told to be dropped is what goes.
    #[test]
    fn who_has_less_loses_nothing(
        claims in proptest::collection::vec((0..5_u8, any::<u8>(), 1..4_usize), 1..80),
    ) {
        let room = Room { host: 6, total: 12 };
        let mut shares = Shares::new(room);
        let mut kept = BTreeMap::<(Host, Key160), usize>::new();
        let taken = |kept: &BTreeMap<(Host, Key160), usize>, host| -> usize {
            kept.iter().filter(|((of, _), _)| *of == host).map(|(_, size)| size).sum()
        };
        for (host, distance, size) in claims {
            let (host, distance) = (Host::of(other(host)), Key160::new([distance; 20]));
            if kept.contains_key(&(host, distance)) {
                continue;
            }
            let before = kept.clone();
            let mut gone = Vec::new();
            let said = shares.claim(host, (distance, other(0)), size, |host, (key, _)| gone.push((host, key)));
            for (of, key) in gone {
                prop_assert!(kept.remove(&(of, key)).is_some());
                // It had at least what the host has with this claim, after what it has lost so far.
                let least = taken(&before, host).min(taken(&kept, host)) + size;
                prop_assert!(of == host || taken(&before, of) >= least, "a host with less gave way");
                prop_assert!(of != host || key > distance, "what is nearer gave way");
            }
            if said == Err(NoRoom) {
                let full: usize = kept.values().sum();
                prop_assert!(full + size > room.total || taken(&kept, host) + size > room.host);
            } else {
                kept.insert((host, distance), size);
            }
            prop_assert_eq!(shares.total(), kept.values().sum::<usize>());
            prop_assert!(shares.total() <= room.total);
            for host in (0..5).map(|host| Host::of(other(host))) {
                prop_assert_eq!(shares.of(host), taken(&kept, host));
                prop_assert!(shares.of(host) <= room.host);
            }
        }
    }

    /// What one host puts is kept, the nearest first, as far as it fits.
    #[test]
    fn items_of_one_host_are_bounded(order in Just((0..30).collect::<Vec<usize>>()).prop_shuffle()) {
        let now = Instant::now();
        let mut store = Store::new(LOCAL, LIMITS, now);
        let items = items();
        let mut kept = Vec::new();
        for place in order {
            let _ = put(&mut store, &items[place], now);
            kept.push(place);
            kept.sort_unstable();
            kept.truncate(3);
            let has = |place: &usize| store.get(&target(&items[*place]), now).is_some();
            prop_assert_eq!((0..30).filter(has).collect::<Vec<_>>(), kept.clone());
            prop_assert_eq!(store.len().0, kept.len());
        }
    }
}
