//! The invariants of the engine's contract, which a simulated network can check after every call of every engine:
//! [`Invariant`], and the [`Violation`] that reports one that does not hold. The [checker](crate::testing) is that
//! of the property tests.

pub(crate) mod checkers;

use crate::sim::network::handle::Handle;
use crate::vocabulary::time::Instant;
use core::fmt;

/// What must hold after every call of every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invariant {
    /// The number of requests sent equals the number answered, failed, timed out, cancelled and in flight; the
    /// same holds for the statistics of an operation.
    Conservation,
    /// A request's deadline is in the future, within the request time-out, and no later than its operation's; no
    /// request is in flight past its deadline.
    Deadline,
    /// The events of an operation have the span that caused them or the operation's own as their parent. Requests
    /// of the maintenance have no parent; events about tables have a link and no deadline.
    Context,
    /// A request ends once: by its answer, its failure or one cancel.
    OneEnding,
    /// Each accepted start is followed by one finish, no later than its deadline, and no event of the operation
    /// comes after it.
    OneFinish,
    /// The next wake-up time is in the future, and no later than the next deadline of a request.
    WakeUp,
    /// No node sends a request to itself.
    NotSelf,
    /// A finish lists nodes that answered, each once, in order of distance.
    Closest,
    /// The finish of a broadcast reports the result of each node's store once, and exactly those nodes as having
    /// stored that answered a store.
    Stores,
    /// Another rule of the contract, which the [detail](Violation::detail) names: limits of requests and of
    /// operations, agreement of the routing table with its events, and the like.
    Other,
}

impl Invariant {
    /// The invariant that a rule of the [checker](crate::testing) belongs to.
    pub(crate) fn of_rule(rule: &str) -> Self {
        match rule {
            "deadline 5, counters" | "stats" => Self::Conservation,
            "deadline 1" | "deadline 3" | "deadline 4" | "deadline 6" | "deadline 8" => Self::Deadline,
            "deadline 5" | "progress" => Self::OneEnding,
            "deadline 2" | "deadline 7" | "deadline 9" | "finish" | "ids" => Self::OneFinish,
            "wake-up" => Self::WakeUp,
            "not self" => Self::NotSelf,
            "closest" => Self::Closest,
            "stores" => Self::Stores,
            _ if rule.starts_with("context ") => Self::Context,
            _ => Self::Other,
        }
    }
}

/// An invariant that did not hold: where, when, and how to reproduce it.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// What was observed instead, as text.
    pub detail: String,
    /// The virtual time of the call.
    pub at: Instant,
    /// The node whose engine violated it.
    pub node: Handle,
    /// The seed of the run.
    pub seed: u64,
    /// The command that repeats the run: the scenario's [`replay`](crate::sim::Scenario::replay), filled in.
    pub replay: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, detail, at, node, seed, replay } = self;
        write!(
            f,
            "invariant {invariant:?} is broken at {at} by {node}, seed {seed}: {detail}\nreplay: {replay}"
        )
    }
}

impl core::error::Error for Violation {}

#[cfg(test)]
mod tests;
