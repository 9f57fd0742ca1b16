//! The contract of the routing maintenance over any sequence of events: see [`maintenance_contract`].

#![cfg(feature = "testing")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod maintenance_contract;

use kad_proto::{Coordinator, Maintenance};
use maintenance_contract::machine_under_test::MaintainsTable;
use maintenance_contract::{Grouped, run_scenario};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 60 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_keeps_the_contract_in_the_coordinator(bytes in proptest::collection::vec(any::<u8>(), 1..800)) {
        run_scenario::<Coordinator<Grouped>>(&bytes);
    }

    #[test]
    fn any_sequence_keeps_the_contract_alone(bytes in proptest::collection::vec(any::<u8>(), 1..800)) {
        run_scenario::<Maintenance<Grouped>>(&bytes);
    }
}

/// Replays the corpus of a fuzz target.
fn replay<M: MaintainsTable>(target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "{}", paths.len());
    for path in paths {
        println!("{}", path.display()); // shown where the assertion below fails
        run_scenario::<M>(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn the_corpus_keeps_the_contract_in_the_coordinator() {
    replay::<Coordinator<Grouped>>("routing");
}

#[test]
fn the_corpus_keeps_the_contract_alone() {
    replay::<Maintenance<Grouped>>("maintenance");
}

/// Checks that the scenarios reach every situation.
fn sees_all<M: MaintainsTable>() {
    let mut all = BTreeMap::new();
    for seed in 0..32_u8 {
        let mixed = |i: u32| (i + 977 * u32::from(seed)).wrapping_mul(0x9e37_79b9).rotate_left(13);
        let byte = |i: u32| mixed(i).wrapping_mul(0x85eb_ca6b).to_le_bytes()[3];
        let bytes: Vec<_> = std::iter::once(seed).chain((0..800).map(byte)).collect();
        for (what, times) in run_scenario::<M>(&bytes) {
            *all.entry(what).or_insert(0) += times;
        }
    }
    for what in [
        "request",
        "cancel",
        "refused",
        "joined",
        "admitted",
        "removed",
        "near empty",
        "bootstrapped",
        "include",
        "probe",
        "explore",
        "bootstrap",
        "cut off, as told",
        "reconnected",
    ] {
        assert!(all.get(what).is_some_and(|times| *times > 0), "{what}: {all:?}");
    }
}

#[test]
fn scenarios_reach_every_situation() {
    sees_all::<Coordinator<Grouped>>();
    sees_all::<Maintenance<Grouped>>();
}
