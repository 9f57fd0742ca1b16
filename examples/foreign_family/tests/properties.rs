//! The family and the driver under proptest and under a fuzzer's bytes; each fault of the driver is found by both.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kad_foreign_family::{Driver, Fault, Foreign, Hashed, fuzz};
use kad_proto::testing::{Checked, Draw, MachineKind, Scenario, strategies, terminates};
use kad_proto::{Config, Instant};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;

const NOW: Instant = Instant::from_secs(1);

// The twenty lines.

#[test]
fn each_machine_keeps_its_contract_with_the_family() {
    use MachineKind::{Broadcast, Coordinator, Crawl, Pool, Query};
    for kind in [Query, Pool, Coordinator, Crawl, Broadcast] {
        let reached = strategies::explore(kind, 40, Scenario::check::<Foreign>).unwrap();
        assert!(reached["started"] > 100 && reached["cancel: timed out"] > 10, "{kind:?}: {reached:?}");
    }
}

proptest! {
    #![proptest_config(Cases { failure_persistence: None, ..Cases::with_cases(64) })]

    #[test]
    fn every_operation_of_the_driver_ends((mut network, starts) in strategies::network::<Foreign>(12)
        .prop_flat_map(|network| { let nodes = network.nodes(); (Just(network), strategies::starts(6, NOW, nodes)) }))
    {
        let driver = Driver::new(Hashed::new([7; 32]), Config::default(), Fault::None).unwrap();
        let mut driver = Checked::new(driver, Hashed::new([7; 32]), Config::default()).unwrap();
        let ends = terminates(&mut driver, NOW, starts, |_, request| network.fate(request));
        prop_assert!(ends.is_ok(), "{}", ends.unwrap_err());
    }
}

// What they find.

fn explored(fault: Fault) -> Result<(), String> {
    let play = |scenario: &Scenario| scenario.play(|local, config| Driver::new(local, config, fault));
    strategies::explore(MachineKind::Coordinator, 40, play).map(|_| ())
}

/// As a fuzzer calls it, of which no part is here but its bytes.
fn fuzzed(fault: Fault) -> Option<String> {
    let mut draw = Draw::new(1);
    (0..60).find_map(|_| {
        let bytes: Vec<u8> = (0..28 + 4 * draw.below(120)).map(|_| draw.byte()).collect();
        let message = std::panic::catch_unwind(|| fuzz(fault, &bytes)).err()?;
        Some(message.downcast_ref::<String>().cloned().unwrap_or_default())
    })
}

#[test]
fn the_driver_without_a_fault_passes() {
    assert_eq!((explored(Fault::None), fuzzed(Fault::None)), (Ok(()), None));
}

#[test]
fn each_fault_is_found_by_proptest_and_by_a_fuzzer() {
    let planted = [(Fault::LosesSpans, "context"), (Fault::CutsAnswers, ""), (Fault::Oversleeps, "wake-up")];
    for (fault, rule) in planted {
        let error = explored(fault).unwrap_err();
        assert!(error.contains(rule), "{fault:?}: {error}");
        // Of the simplest scenario, the steps that do something.
        let steps = error.matches("Start {").count() + error.matches("Drive {").count();
        println!("{fault:?}: {} of {steps} steps", error.lines().next().unwrap_or_default());
        let error = fuzzed(fault).unwrap();
        println!("{fault:?}: {}", error.lines().next().unwrap_or_default());
        assert!(error.contains(rule), "{fault:?}: {error}");
    }
}
