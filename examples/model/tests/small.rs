//! The small form of each scenario, whole; and machines with a planted fault, which is found. `.ci/deep model` runs the large form.

#![allow(clippy::unwrap_used, clippy::panic)]

use kad_model::{Bounds, CONTRACT, DEADLINES, Machine, Model, ONCE, QUIET, REACHED, Scenario, Tiny};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::testing::MachineUnderTest;
use kad_proto::{Instant, Outcome, RequestStats, Stamped};
use stateright::{Checker, Model as _};
use std::collections::BTreeSet;

const BOUNDS: Bounds =
    Bounds { losses: 1, copies: 0, stops: 0, horizon: Instant::from_secs(5), checks: false };

/// Visits all states, in which all must hold; returns how many there are, and what was reached.
fn visit(scenario: Scenario) -> (usize, BTreeSet<&'static str>) {
    let checker = Model::new(scenario).unwrap().checker().spawn_dfs().join();
    for property in [CONTRACT, DEADLINES, QUIET, ONCE] {
        if let Some(path) = checker.discovery(property) {
            panic!("does not hold: {property}: {:?}\n{path}", Model::faults(path.last_state()));
        }
    }
    let reached = REACHED.into_iter().filter(|what| checker.discovery(what).is_some());
    (checker.unique_state_count(), reached.collect())
}

#[test]
fn a_lookup_ends_in_every_order() {
    let (states, reached) = visit(Scenario::lookup(Bounds { losses: 2, copies: 1, stops: 1, ..BOUNDS }));
    assert!(states > 5_000, "{states}");
    let expected = [
        "a lookup ends by itself",
        "a deadline is exceeded",
        "nobody can be reached",
        "an operation is stopped",
        "an answer is late",
        "a node is admitted",
    ];
    assert_eq!(reached, BTreeSet::from(expected));
}

#[test]
fn a_broadcast_ends_in_every_order() {
    let (states, reached) = visit(Scenario::broadcast(BOUNDS));
    assert!(states > 5_000, "{states}");
    assert!(
        reached.contains("a record is stored") && reached.contains("a record is not stored"),
        "{reached:?}"
    );
    assert!(
        reached.contains("a deadline is exceeded") && reached.contains("an answer is late"),
        "{reached:?}"
    );
}

#[test]
fn a_bootstrap_ends_in_every_order() {
    let (states, reached) = visit(Scenario::bootstrap(BOUNDS));
    assert!(states > 2_000, "{states}");
    assert!(
        reached.contains("a node is admitted") && reached.contains("nobody can be reached"),
        "{reached:?}"
    );
}

/// A machine with a fault.
macro_rules! broken_machine {
    ($name:ident, |$machine:ident| $wake:expr, |$out:ident| $kept:expr) => {
        #[derive(Clone)]
        struct $name(Machine);

        impl MachineUnderTest<Tiny> for $name {
            fn handle(
                &mut self,
                now: Instant,
                event: Stamped<Inbound<Tiny>>,
            ) -> Vec<Stamped<Outbound<Tiny>>> {
                let mut all = MachineUnderTest::handle(&mut self.0, now, event);
                all.retain(|$out| $kept);
                all
            }

            fn poll_timeout(&self) -> Option<Instant> {
                let $machine = &self.0;
                $wake
            }

            fn request_stats(&self) -> RequestStats {
                self.0.request_stats()
            }

            fn counts(&self) -> Option<(usize, usize)> {
                self.0.counts()
            }

            fn table(&self) -> Option<&kad_proto::RoutingTable<Tiny>> {
                MachineUnderTest::table(&self.0)
            }
        }
    };
}

// It does not wake up any more once it has sent three requests.
broken_machine!(
    Sleepy,
    |machine| MachineUnderTest::poll_timeout(machine).filter(|_| machine.request_stats().sent < 3),
    |_out| true
);
// It does not say that a deadline has ended an operation.
broken_machine!(
    Silent,
    |machine| MachineUnderTest::poll_timeout(machine),
    |out| !matches!(&out.event, Outbound::Finished(finish) if finish.outcome == Outcome::DeadlineExceeded)
);

#[test]
fn what_is_broken_on_purpose_is_found() {
    let sleepy = Model::with_machines(Scenario::lookup(BOUNDS), Sleepy).unwrap().checker().spawn_dfs().join();
    let found = |checker: &dyn Fn(&'static str) -> bool| [CONTRACT, DEADLINES, QUIET, ONCE].map(checker);
    assert_eq!(found(&|what| sleepy.discovery(what).is_some()), [true, false, true, false]);
    let silent = Model::with_machines(Scenario::lookup(BOUNDS), Silent).unwrap().checker().spawn_dfs().join();
    assert_eq!(found(&|what| silent.discovery(what).is_some()), [true, true, true, false]);
}
