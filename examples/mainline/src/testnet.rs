//! A network to look things up in: nodes of the independent crate `mainline`, on loopback, in this process.

use crate::family::Node;
use kad_proto::{Key, Key160};
use std::io;
use std::net::SocketAddrV4;
use std::thread;

/// The network. It ends when this is dropped.
#[derive(Debug)]
pub struct Testnet {
    nodes: Vec<Node>,
    _running: mainline::Testnet,
}

impl Testnet {
    /// Starts this many nodes, each of which knows all others.
    ///
    /// # Errors
    /// That of the sockets and threads of the nodes.
    pub fn start(nodes: usize) -> io::Result<Self> {
        let running = mainline::Testnet::builder(nodes).build()?;
        // A node takes some time to answer. They are asked all at once, by their blocking interface.
        #[allow(deprecated)]
        let ask = |node: &mainline::Dht| node.info();
        let infos: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> = running.nodes.iter().map(|node| scope.spawn(move || ask(node))).collect();
            asking.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        let nodes =
            infos.into_iter().flatten().map(|info| (Key160::new(*info.id().as_bytes()), info.local_addr()));
        Ok(Self { nodes: nodes.collect(), _running: running })
    }

    /// How many nodes there are.
    #[allow(clippy::len_without_is_empty)] // there is no network without nodes
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Addresses to begin with: those of a few nodes.
    pub fn bootstrap(&self) -> Vec<SocketAddrV4> {
        self.nodes.iter().take(3).map(|node| node.1).collect()
    }

    /// What a lookup of `target` should find: the nodes that are closest in truth.
    pub fn closest(&self, target: Key160, count: usize) -> Vec<Node> {
        let mut nodes = self.nodes.clone();
        nodes.sort_by_key(|node| node.0.distance(&target));
        nodes.truncate(count);
        nodes
    }
}
