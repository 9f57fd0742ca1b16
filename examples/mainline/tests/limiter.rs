//! The limits of queries: of one host, of all, and what floods of forged addresses do to them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_mainline::limiter::{Excess, Limiter, Rates};
use kad_mainline::shares::Host;
use proptest::prelude::*;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const S: Duration = Duration::from_secs(1);
/// No limit of bytes.
const RATES: Rates = Rates { queries: 10, burst: 20, hosts: 50, bytes: u32::MAX };

fn host(number: u32) -> Host {
    Host::of(SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + number), 6881))
}

/// How many of so many queries at once are admitted.
fn admitted(limiter: &mut Limiter, host: Host, queries: usize, now: Instant) -> usize {
    (0..queries).filter(|_| limiter.admit(host, false, now).is_ok()).count()
}

#[test]
fn a_host_has_a_burst_and_a_rate() {
    let begin = Instant::now();
    let mut limiter = Limiter::new(RATES);
    assert_eq!(admitted(&mut limiter, host(0), 100, begin), 20);
    assert_eq!(limiter.admit(host(0), true, begin), Err(Excess::OfHost), "also where it is proven");
    assert_eq!(admitted(&mut limiter, host(1), 100, begin), 20, "another host has its own");
    assert_eq!(admitted(&mut limiter, host(0), 100, begin + S / 20), 0);
    assert_eq!(admitted(&mut limiter, host(0), 100, begin + S / 10), 1);
    assert_eq!(admitted(&mut limiter, host(0), 100, begin + S), 9);
    // In the long run it is the rate.
    let in_a_minute: usize =
        (1..=600).map(|tenth| admitted(&mut limiter, host(0), 3, begin + S + tenth * S / 10)).sum();
    assert_eq!(in_a_minute, 600);
    // No more than a burst is saved up.
    assert_eq!(admitted(&mut limiter, host(0), 100, begin + 1_000 * S), 20);
}

#[test]
fn who_is_at_the_limit_stays_there_through_a_flood() {
    let begin = Instant::now();
    let mut limiter = Limiter::new(RATES);
    assert_eq!(admitted(&mut limiter, host(0), 100, begin), 20);
    // Each forged address asks as often as half a burst, and there are twenty times as many as the table has room for.
    for forged in 1..=1_000 {
        assert_eq!(admitted(&mut limiter, host(forged), 10, begin), 10, "each is new, and has its answer");
        assert!(limiter.hosts() <= 50);
    }
    assert_eq!(admitted(&mut limiter, host(0), 100, begin), 0, "what it owes is not forgotten");
    assert_eq!(admitted(&mut limiter, host(5_000), 100, begin), 20, "and nobody new is locked out");
    assert_eq!(admitted(&mut limiter, host(0), 100, begin + S), 10);
}

#[test]
fn who_has_not_asked_for_a_while_is_forgotten() {
    let begin = Instant::now();
    let mut limiter = Limiter::new(RATES);
    for number in 0..30 {
        assert_eq!(limiter.admit(host(number), false, begin), Ok(()));
    }
    assert_eq!(limiter.hosts(), 30);
    assert_eq!(limiter.admit(host(99), false, begin + S / 10), Ok(()));
    assert_eq!(limiter.hosts(), 1);
}

#[test]
fn all_answers_together_are_bounded_and_forged_addresses_leave_proven_ones_theirs() {
    let begin = Instant::now();
    let mut limiter = Limiter::new(Rates { bytes: 10_000, ..RATES });
    let mut sent = 0;
    for forged in 0..1_000 {
        match limiter.admit(host(forged), false, begin) {
            Ok(()) => {
                limiter.answered(500, false, begin);
                sent += 500;
            }
            Err(excess) => assert_eq!(excess, Excess::OfAll),
        }
    }
    // That of a second, and the answer that overdraws it.
    assert_eq!(sent, 10_500);
    assert_eq!(limiter.admit(host(2_000), false, begin), Err(Excess::OfAll));
    assert_eq!(limiter.admit(host(2_000), true, begin), Ok(()), "its own budget");
    limiter.answered(10_001, true, begin);
    assert_eq!(limiter.admit(host(2_001), true, begin), Err(Excess::OfAll), "which is bounded as well");
    // With time, those who come have their chance.
    assert_eq!(limiter.admit(host(2_002), false, begin + S / 20), Ok(()));
    // What was not answered costs the host nothing.
    assert_eq!(admitted(&mut limiter, host(2_001), 100, begin + S), 20);
}

proptest! {
    /// Whatever comes from whom and when: no host has more than its burst and its rate, unless as many queries came in
    /// the name of others as it takes to have it forgotten; and the table is bounded.
    #[test]
    fn no_host_exceeds_its_limit(queries in proptest::collection::vec((0..20_u32, 0..40_u64), 1..400)) {
        let begin = Instant::now();
        let mut limiter = Limiter::new(RATES);
        let (mut now, mut count) = (begin, vec![0_u32; 20]);
        for (number, millis) in queries {
            now += Duration::from_millis(millis);
            if limiter.admit(host(number), false, now).is_ok() {
                count[number as usize] += 1;
            }
            let most = 20 + u32::try_from((now - begin).as_millis() / 100).unwrap();
            prop_assert!(count[number as usize] <= most);
            prop_assert!(limiter.hosts() <= 20);
        }
    }
}
