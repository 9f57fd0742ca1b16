//! [`Connections`]: the connections that a node keeps.

use crate::sim::network::handle::Handle;
use crate::sim::scenario::dial::Dial;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use std::collections::BTreeMap;

/// The connections of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    by_node: BTreeMap<Handle, Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// When it is established: requests wait until then.
    ready: Instant,
    used: Instant,
}

impl Connections {
    /// Connections to these nodes, as many as a node keeps, established at time zero and not used since.
    pub(crate) fn to(nodes: impl Iterator<Item = Handle>, dial: &Dial) -> Self {
        let connection = Connection { ready: Instant::ORIGIN, used: Instant::ORIGIN };
        Self { by_node: nodes.take(dial.most as usize).map(|node| (node, connection)).collect() }
    }

    /// A connection to this node is used now. Returns how long to wait for it, and whether it is new: then it takes
    /// `takes` to establish.
    pub(crate) fn use_now(
        &mut self,
        dial: &Dial,
        now: Instant,
        node: Handle,
        takes: Duration,
    ) -> (Duration, bool) {
        if let Some(connection) = self.by_node.get_mut(&node)
            && now - connection.used.max(connection.ready) <= dial.idle
        {
            connection.used = now;
            return (connection.ready - now, connection.ready > now);
        }
        let ready = now + takes;
        self.by_node.insert(node, Connection { ready, used: now });
        while self.by_node.len() > dial.most as usize {
            let oldest = self.by_node.iter().filter(|(other, _)| **other != node);
            let Some((oldest, _)) = oldest.min_by_key(|(_, connection)| connection.used) else { break };
            let oldest = *oldest;
            self.by_node.remove(&oldest);
        }
        (takes, true)
    }

    /// The connection to a node is lost.
    pub(crate) fn close(&mut self, node: Handle) {
        self.by_node.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_once_and_is_closed_when_idle_or_one_too_many() {
        let dial = Dial { most: 2, idle: Duration::from_secs(10), ..Dial::default() };
        let (ms, s) = (Duration::from_millis, |secs: u64| Instant::ORIGIN + Duration::from_secs(secs));
        let [a, b, c] = [1, 2, 3].map(Handle);
        let mut connections = Connections::to([a].into_iter(), &dial);
        let mut asks = |at, node| connections.use_now(&dial, at, node, ms(400));
        assert_eq!(asks(s(1), a), (Duration::ZERO, false));
        assert_eq!(asks(s(2), b), (ms(400), true));
        assert_eq!(asks(s(2) + ms(100), b), (ms(300), true), "both wait for the same connection");
        assert_eq!(asks(s(3), b), (Duration::ZERO, false));
        // The one that was used least recently makes room.
        assert_eq!(asks(s(4), c), (ms(400), true));
        assert_eq!(asks(s(5), a), (ms(400), true));
        // Not used for longer than ten seconds.
        assert_eq!(asks(s(20), c), (ms(400), true));
    }
}
