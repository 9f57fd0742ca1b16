//! [`LocalNode`]: what the machines of one node know about the node that they belong to.

use crate::vocabulary::family::Family;
use crate::vocabulary::target::Target;

/// The value of the node's family, and its own id as a target.
#[derive(Clone, Debug)]
pub(crate) struct LocalNode<F: Family> {
    pub(crate) family: F,
    /// What asks for the node itself.
    pub(crate) target: F::Target,
    /// The key of that, kept because it is compared with often.
    key: F::Key,
}

impl<F: Family> LocalNode<F> {
    /// A node with this target, and with the default value of its family.
    pub(crate) fn new(target: F::Target) -> Self {
        Self { family: F::default(), key: target.key(), target }
    }

    /// The node has another id.
    pub(crate) fn set_target(&mut self, target: F::Target) {
        (self.key, self.target) = (target.key(), target);
    }

    /// The node's own key.
    #[inline]
    pub(crate) const fn key(&self) -> &F::Key {
        &self.key
    }

    /// Whether a node may be asked at all: it is another one, and the family admits it.
    #[inline]
    pub(crate) fn may_ask(&self, node: &F::Node) -> bool {
        F::key(node) != self.key && self.family.admits(node)
    }

    /// What a node is asked for if it is asked about itself.
    pub(crate) fn target_of(&self, node: &F::Node) -> F::Target {
        F::target_of(node).unwrap_or_else(|| self.target.clone())
    }
}
