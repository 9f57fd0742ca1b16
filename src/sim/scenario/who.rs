//! [`Who`]: some of the nodes.

use crate::vocabulary::config_error::{ConfigError, require};
use std::sync::Arc;

/// Some of the nodes, by their numbers from 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Who {
    /// All of them.
    #[default]
    All,
    /// This one.
    Node(u32),
    /// These.
    Nodes(Arc<[u32]>),
    /// The first so many.
    First(u32),
    /// A share of them, drawn at random: another one for each change; the same for all who start lookups and broadcasts. 0
    /// to 1.
    Share(f64),
    /// The nodes that are closest to the key of this one, without it.
    Near {
        /// The node.
        node: u32,
        /// How many.
        count: u32,
    },
    /// The nodes of this node's table, as it is at the time; of them the closest to its own key. Nobody, for
    /// [`Scenario::maintained`](crate::sim::Scenario::maintained).
    Known {
        /// The node.
        to: u32,
        /// How many at most.
        count: u32,
    },
    /// All others.
    Except(Box<Self>),
}

impl Who {
    /// All nodes but this one.
    pub fn except(node: u32) -> Self {
        Self::Except(Box::new(Self::Node(node)))
    }

    pub(crate) fn validate(&self, nodes: u32, field: &'static str) -> Result<(), ConfigError> {
        let exists = |node: &u32| *node < nodes;
        match self {
            Self::All | Self::First(_) => Ok(()),
            Self::Share(share) => require((0.0..=1.0).contains(share), field, "a share from 0 to 1"),
            Self::Node(node) | Self::Near { node, .. } | Self::Known { to: node, .. } => {
                require(exists(node), field, "numbers less than nodes")
            }
            Self::Nodes(list) => require(list.iter().all(exists), field, "numbers less than nodes"),
            Self::Except(others) => others.validate(nodes, field),
        }
    }
}
