//! [`Change`]: what happens to a network in the course of a run.

use crate::sim::network::handle::Handle;
use crate::sim::scenario::who::Who;
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// An [`Effect`], and when it happens. A run goes on until all have happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// From when the network is built.
    pub at: Duration,
    /// What happens.
    pub effect: Effect,
}

impl Change {
    /// This effect, at this time after the network is built.
    pub const fn new(at: Duration, effect: Effect) -> Self {
        Self { at, effect }
    }
}

/// What can happen to a network while it runs: by the [changes](Change) of a scenario, or by
/// [`World::apply`](crate::sim::World::apply) between two steps.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// The link of each of these nodes fails: nothing reaches them, and nothing that they send arrives. Their
    /// engines go on.
    LinkDown {
        /// The nodes.
        who: Who,
        /// What becomes of what they send.
        sends: Sends,
    },
    /// The links of these nodes are back.
    LinkUp {
        /// The nodes.
        who: Who,
    },
    /// The drivers of these nodes tell their engines that the link is up, or down. It has no effect on the link.
    TellLink {
        /// The nodes.
        who: Who,
        /// Whether it is up.
        up: bool,
    },
    /// The machine of each of these nodes sleeps: nothing reaches it, its engine is not called, and when it wakes its
    /// time has jumped.
    Sleep {
        /// The nodes.
        who: Who,
        /// For how long.
        time: Duration,
    },
    /// These nodes can reach each other, and no others, from now on, until the network [heals](Self::Heal). Several
    /// such sets are apart from each other.
    Separate {
        /// The nodes.
        who: Who,
    },
    /// All sets that were [separated](Self::Separate) are joined again.
    Heal,
    /// These nodes die, without a word. If they churn, they come back at the end of their absence.
    Kill {
        /// The nodes.
        who: Who,
    },
    /// These nodes, killed or not, start anew: with empty tables and the seeds, or with the snapshot of their tables and
    /// the seeds.
    Restart {
        /// The nodes.
        who: Who,
        /// Whether each restores its snapshot: of now; or of when it went offline, if it keeps its table
        /// itself.
        snapshot: bool,
    },
    /// These nodes are told to restore these contacts, as from a snapshot.
    Restore {
        /// The nodes.
        who: Who,
        /// The contacts.
        contacts: Vec<Handle>,
    },
    /// These nodes are told to remember these seeds, besides those that they know.
    Seeds {
        /// The nodes.
        who: Who,
        /// The seeds.
        seeds: Vec<Handle>,
    },
    /// Each of these nodes has another address from now on: its id is the same, nobody answers at the old address, and
    /// what it sends comes from the new one.
    Move {
        /// The nodes.
        who: Who,
    },
    /// Each of these nodes takes another id, and says so to its engine; nobody answers by the old one. As long as ids are
    /// left: there are 2^23. A machine that sleeps keeps its id.
    ChangeId {
        /// The nodes.
        who: Who,
    },
    /// These nodes serve others, or do not (clients): a client asks, answers by an error, and is not reported to those
    /// that it asks. The nodes whose tables hold it are told that it stops; those of its table, that it serves again.
    Serve {
        /// The nodes.
        who: Who,
        /// Whether they serve.
        serve: bool,
    },
    /// From now on this share of exchanges is lost. 0 to 1.
    Loss(f64),
    /// From now on every round trip takes longer: this factor, and this much more. The latest such change counts.
    SlowDown {
        /// The factor. 0 to 1,000.
        factor: f64,
        /// What is added.
        add: Duration,
    },
}

/// What becomes of what a node sends while its link is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sends {
    /// It is lost in silence.
    #[default]
    Lost,
    /// The driver is told at once that the node asked is unreachable.
    Fail,
}

impl Effect {
    pub(crate) fn validate(&self, nodes: u32) -> Result<(), ConfigError> {
        match self {
            Self::LinkDown { who, .. }
            | Self::LinkUp { who }
            | Self::TellLink { who, .. }
            | Self::Separate { who }
            | Self::Sleep { who, .. }
            | Self::Kill { who }
            | Self::Restart { who, .. }
            | Self::Restore { who, .. }
            | Self::Seeds { who, .. }
            | Self::Move { who }
            | Self::ChangeId { who }
            | Self::Serve { who, .. } => who.validate(nodes, "change.who"),
            Self::Heal => Ok(()),
            Self::Loss(loss) => require((0.0..=1.0).contains(loss), "change.loss", "0 to 1"),
            Self::SlowDown { factor, .. } => {
                require((0.0..=1_000.0).contains(factor), "change.factor", "0 to 1,000")
            }
        }
    }
}
