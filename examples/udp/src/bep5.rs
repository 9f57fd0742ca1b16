//! What the engine has to know of BEP 5: the types of the network, and its figures.

use crate::krpc::Node;
use kad_proto::{AnswerScope, Config, Family, Group, Key160, RoutingConfig};

/// k of BEP 5: how many closest nodes a lookup finds, a bucket of the routing table holds, and an answer names.
pub(crate) const K: usize = 8;

/// The types of this network, and the rules for its nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bep5;

impl Family for Bep5 {
    type Key = Key160;
    type Target = Key160;
    type Node = Node;
    type Message = (); // requests ask for nothing but closer nodes

    fn key((id, _): &Node) -> Key160 {
        *id
    }

    /// The routing table takes only a few nodes of one group, as they may all belong to one party. A /24 network
    /// is such a group, but not on loopback: all nodes of a test network are in one there.
    fn group((_, address): &Node) -> Option<Group> {
        let ip = *address.ip();
        (!ip.is_loopback()).then(|| Group(u64::from(u32::from(ip) >> 8)))
    }

    /// Nothing can be sent to port 0. (On the internet, refuse the private addresses that strangers name as well.)
    fn admits(&self, (_, address): &Node) -> bool {
        address.port() != 0
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(K)
    }
}

/// The configuration of the engine. A node that leaves after one lookup has no need to maintain its routing table.
pub(crate) fn config(read_only: bool) -> Config {
    let mut config = Config::default();
    config.query.k = K;
    config.table.bucket_size = K;
    if read_only {
        config.routing = RoutingConfig::off();
    }
    config
}
