//! [`Sybils`]: an attempt to eclipse a node by many nodes of few address groups in its neighbourhood.

use crate::sim::network::handle::Handle;
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// Nodes of one attacker in the neighbourhood of a victim: in each address group the closest to its key of 2^24
/// identities. One after the other they advertise themselves to the victim, and to a random node each time, and
/// answer each request with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sybils {
    /// How many there are. 1 to 4,096. Default: 200.
    pub count: u32,
    /// From how many address groups they come, in equal numbers. 1 to 127. Default: 1.
    pub groups: u8,
    /// The victim, by index: less than the scenario's `nodes`. Default: 500.
    pub victim: u32,
    /// When the first of them advertises itself, from time zero of the run. Default: zero.
    pub from: Duration,
    /// From one advertisement to the next, by the next Sybil in turn. More than zero. Default: 100 ms.
    pub every: Duration,
}

impl Default for Sybils {
    fn default() -> Self {
        Self { count: 200, groups: 1, victim: 500, from: Duration::ZERO, every: Duration::from_millis(100) }
    }
}

impl Sybils {
    pub(crate) fn validate(&self, nodes: u32) -> Result<(), ConfigError> {
        require((1..=4_096).contains(&self.count), "sybils.count", "1 to 4,096")?;
        require((1..=127).contains(&self.groups), "sybils.groups", "1 to 127")?;
        require(self.victim < nodes, "sybils.victim", "less than nodes")?;
        require(!self.every.is_zero(), "sybils.every", "longer than zero")
    }

    /// All Sybils, the closest to the victim first.
    pub(crate) fn all(&self, victim: Handle) -> Vec<Handle> {
        let each = self.count.div_ceil(u32::from(self.groups));
        let mut all: Vec<_> =
            (1..=self.groups).flat_map(|group| Handle::closest_made_up(group, victim, each)).collect();
        all.sort_unstable_by_key(|sybil| sybil.position() ^ victim.position());
        all.truncate(self.count as usize);
        all
    }
}
