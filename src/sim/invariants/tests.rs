use super::*;

#[test]
fn rules_have_their_invariants() {
    let of = Invariant::of_rule;
    assert_eq!((of("context 1 to 3"), of("context 4")), (Invariant::Context, Invariant::Context));
    assert_eq!((of("deadline 3"), of("deadline 5")), (Invariant::Deadline, Invariant::OneEnding));
    assert_eq!((of("deadline 5, counters"), of("stats")), (Invariant::Conservation, Invariant::Conservation));
    assert_eq!((of("deadline 7"), of("deadline 9")), (Invariant::OneFinish, Invariant::OneFinish));
    assert_eq!((of("wake-up"), of("not self")), (Invariant::WakeUp, Invariant::NotSelf));
    assert_eq!((of("closest"), of("stores")), (Invariant::Closest, Invariant::Stores));
    assert_eq!((of("network"), of("table")), (Invariant::Other, Invariant::Other));
}
