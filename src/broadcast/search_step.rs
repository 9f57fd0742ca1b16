//! [`SearchStep`]: what the node search of a broadcast wants next, in the same form for every strategy.

use crate::lookups::lookup::LookupStep;
use crate::requests::purpose::{Attempt, CandidateRef};
use crate::vocabulary::family::Family;
use crate::vocabulary::operation_events::Outcome;

/// What the search for nodes wants next.
pub(crate) enum SearchStep<F: Family> {
    /// Ask this node, for the lookup with this number.
    Ask { number: u16, candidate: CandidateRef, node: F::Node, hop: u16, attempt: Attempt },
    /// The lookup with this number has ended; the search goes on.
    LookupEnded(u16),
    /// The search has begun a lookup: call for the next step at once.
    Continue,
    /// Wait for answers.
    Wait,
    /// Nobody is left to ask: give the lookup further nodes to begin with.
    Starved,
    /// The search has ended.
    Done(Outcome),
}

impl<F: Family> SearchStep<F> {
    /// The step of a search that consists of one lookup, or of the lookup with this number.
    pub(crate) fn of_lookup(number: u16, step: LookupStep<F>) -> Self {
        match step {
            LookupStep::Ask { candidate, node, hop, attempt } => {
                Self::Ask { number, candidate, node, hop, attempt }
            }
            LookupStep::Wait => Self::Wait,
            LookupStep::Starved => Self::Starved,
            LookupStep::Done(end) => Self::Done(end.into()),
        }
    }
}
