//! [`Sybils`]: nodes of one attacker, placed where they matter.

use crate::sim::scenario::behaviour::{Behaviour, Clique};
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;
use std::sync::Arc;

/// Nodes of one attacker near a node or a key. They exist besides the nodes of the network. Where nodes keep their tables
/// themselves, one Sybil after the other advertises itself to the nodes that are closest to the place, and to a random
/// node each time.
#[derive(Clone, Debug)]
pub struct Sybils {
    /// How many there are. 1 to 4,096. Default: 200.
    pub count: u32,
    /// From how many address groups they come, in equal numbers. 1 to 1,024. Default: 1.
    pub groups: u16,
    /// Where they are. Default: near the node with the number 500.
    pub near: Place,
    /// At which distances. Default: the nearest.
    pub placed: Placement,
    /// Whether they stand in the ideal tables that nodes begin with, like all others. Default: false.
    pub in_tables: bool,
    /// When the first of them advertises itself, from time zero of the run. Default: zero.
    pub from: Duration,
    /// From one advertisement to the next, by the next Sybil in turn; zero: they do not advertise themselves. Default:
    /// 100 ms.
    pub every: Duration,
    /// How many of the nodes that are closest to the place each advertises itself to, in turn. At least 1. Default: 1.
    pub audience: u32,
    /// How they answer, and what else they do. Default: [`Clique`].
    pub behaviour: Arc<dyn Behaviour>,
}

/// Where Sybils are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Near the key of this node.
    Node(u32),
    /// Near the [point](crate::sim::Handle::point) with this number.
    Point(u32),
    /// Near the key of this [record](crate::sim::World::record_key).
    Record(u32),
}

/// At which distances Sybils are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The closest that an attacker gets by generating identities: of 2^24 in all, and of about 2^21 in each
    /// address group.
    Nearest,
    /// So that they do not crowd more than this: the n-th of them is a little nearer than the honest node is, on average,
    /// whose number is n / `crowd`.
    Plausible {
        /// How many there are for each honest node. At least 1. With 1 the neighbourhood looks twice as dense as it is.
        crowd: u32,
    },
    /// One, by the id of the node that is the place, which it claims from this other address, 1 to 127.
    Claimant(u32),
}

impl Default for Sybils {
    fn default() -> Self {
        Self {
            count: 200,
            groups: 1,
            near: Place::Node(500),
            placed: Placement::Nearest,
            in_tables: false,
            from: Duration::ZERO,
            every: Duration::from_millis(100),
            audience: 1,
            behaviour: Arc::new(Clique),
        }
    }
}

impl Sybils {
    pub(crate) fn validate(&self, nodes: u32) -> Result<(), ConfigError> {
        require((1..=4_096).contains(&self.count), "sybils.count", "1 to 4,096")?;
        require((1..=1_024).contains(&self.groups), "sybils.groups", "1 to 1,024")?;
        let exists = if let Place::Node(node) = self.near { node < nodes } else { true };
        require(exists, "sybils.near", "less than nodes")?;
        let claims = match self.placed {
            Placement::Claimant(address) => {
                (1..=127).contains(&address)
                    && self.count == 1
                    && matches!(self.near, Place::Node(_))
                    && !self.in_tables
            }
            Placement::Plausible { crowd } => crowd > 0,
            Placement::Nearest => true,
        };
        require(
            claims,
            "sybils.placed",
            "of one Sybil near a node, at an address from 1 to 127 and not in tables, to claim an id; a crowd at least 1",
        )?;
        require(self.audience > 0, "sybils.audience", "at least 1")?;
        let acts = self.behaviour.acts_every().is_none_or(|every| !every.is_zero());
        require(acts, "sybils.behaviour", "one that acts at intervals longer than zero")
    }
}
