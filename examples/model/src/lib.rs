//! Small networks of real machines, of which [`stateright`] visits every state: whatever the order in which messages come, are
//! lost and come twice, and whenever time passes, each machine keeps its contract and each operation ends.
//!
//! # What is explored
//!
//! A [`Scenario`] has three nodes, each a [`Coordinator`] within [`Checked`], and what each of them starts at the beginning. In
//! each state, one of these is next:
//!
//! * a message that is on its way, any of them, comes: a request is answered from the table of the node that is asked, and the
//!   answer is on its way; an answer is handed in, also one that comes too late or a second time;
//! * a message is lost, or comes and stays on its way as well, as long as the [bounds](Bounds) allow it;
//! * an operation is stopped, likewise;
//! * time passes to the next wake-up of any machine, and all machines that want to be woken by then get a tick.
//!
//! Time passes only to wake-ups: a message comes before or after each of them, which is all that a machine can tell but for round
//! trips. Messages come as late as can be: nothing but their loss ends their way.
//!
//! # What is the same state
//!
//! A machine is a function of its inputs (`now`, event), so two machines with the same inputs in the same order are the same. Two
//! states are the same where each machine has had the same inputs, the time is the same, and the same messages are on their way. So
//! deliveries to different nodes commute, and the states that they lead to are one; deliveries to one node do not, even where the
//! machine ends up the same. This is sound by construction: no digest of the private state has to be complete. The identity is
//! a hash of 64 bits of all that, as `stateright` has it: of 10 million states, two have the same one with a chance of 3 in a million.
//!
//! Wire tokens are no part of a message here, as no machine reads them.

mod network;
mod scenario;

pub use network::{Action, CONTRACT, DEADLINES, Flight, Model, ONCE, QUIET, REACHED, State};
pub use scenario::{Bounds, Scenario};

use kad_proto::{Coordinator, Family, Key8};

/// The family of the networks: a node is its 8-bit key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

/// The machine that the scenarios are about.
pub type Machine = Coordinator<Tiny>;
