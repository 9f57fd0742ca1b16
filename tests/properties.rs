//! The contract as properties over random scenarios; see [`model`].

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{HEADER, Kind, STEP, Tally, check};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Bytes that shrink step by step, and each step towards the simplest.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let header = proptest::array::uniform::<_, HEADER>(prop_oneof![1 => Just(0), 2 => any::<u8>()]);
    let steps = proptest::collection::vec(any::<[u8; STEP]>(), 0..120);
    (header, steps).prop_map(|(header, steps)| [&header[..], &steps.concat()].concat())
}

/// Runs scenarios, always the same ones, and sees to it that they reach what they are there for.
fn scenarios(kind: Kind, cases: u32, expected: &[&str]) {
    let tally = std::cell::RefCell::new(Tally::new());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[kind as u8; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(&bytes(), |bytes| {
        for (what, count) in check(kind, &bytes) {
            *tally.borrow_mut().entry(what).or_insert(0) += count;
        }
        Ok(())
    });
    let tally = tally.into_inner();
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{tally:#?}");
    for what in expected {
        assert!(tally.get(what).is_some_and(|count| *count >= 10), "hardly ever seen: {what}: {tally:?}");
    }
}

const OF_A_QUERY: [&str; 17] = [
    "started",
    "refused: full",
    "refused: deadline passed",
    "refused: number of results",
    "request",
    "request: message",
    "cancel: timed out",
    "cancel: operation ended",
    "progress: answered",
    "progress: failed",
    "progress: unsent",
    "late",
    "outcome: converged",
    "outcome: exhausted",
    "outcome: node limit",
    "outcome: deadline exceeded",
    "outcome: stopped",
];
const OF_A_POOL: [&str; 4] =
    ["refused: tag in use", "waits for its turn", "queued", "finish: exact account of several results"];
const OF_A_COORDINATOR: [&str; 2] = ["admitted", "removed"];

#[test]
fn a_query_keeps_the_contract() {
    scenarios(Kind::Query, 400, &OF_A_QUERY);
}

#[test]
fn a_pool_keeps_the_contract() {
    scenarios(Kind::Pool, 400, &[&OF_A_QUERY[..], &OF_A_POOL].concat());
}

#[test]
fn a_coordinator_keeps_the_contract() {
    scenarios(Kind::Coordinator, 400, &[&OF_A_QUERY[..], &OF_A_POOL, &OF_A_COORDINATOR].concat());
}
