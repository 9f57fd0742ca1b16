//! An Ethereum discv5 node (version 5.1, UDP over IPv4) whose DHT is kad-proto, on the kit for async runtimes.
//!
//! The kit has one async method to fill in, and it is [`Link::ask`]: a request is encrypted with the keys of a session, which a
//! handshake makes where there is none; its answer comes in several packets, and counts when the last of them has come. What
//! a node is told of another is a signed record with a sequence number, so the engine may believe whoever tells it.
//!
//! # What it leaves out
//!
//! Topics (which version 5.1 leaves out too), talk protocols (it answers that it has none), IPv6, and learning its own address from
//! what others see: [`Node::start`] is told it.

mod link;
mod session;
mod wire;

use enr::Enr;
use enr::k256::ecdsa::SigningKey;
use kad_proto::{Config, Secret};
use kad_proto_async::{Dht, TokioTimer};
use link::Link;
use std::net::SocketAddrV4;
use std::{error::Error, sync::Arc};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
pub use wire::{Discv5, Record};

/// The configuration of this network: k and the size of buckets are 16. No more is asked at once than the socket has room for
/// the answers, which come in several packets each.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::default();
    (config.query.k, config.table.bucket_size) = (16, 16);
    config.network.max_in_flight = 32;
    config
}

/// A node of the network.
pub struct Node {
    /// Its DHT: lookups of nodes, and crawls.
    pub dht: Dht<Discv5>,
    link: Arc<Link>,
    reader: JoinHandle<()>,
}

impl Node {
    /// Starts a node within the runtime. Its record says that it is reached where it listens, and has this sequence number:
    /// whoever knows a lower one from an earlier run takes the new address.
    ///
    /// # Errors
    /// If the configuration is not valid, or the address cannot be listened on.
    pub async fn start(
        key: SigningKey,
        listen: SocketAddrV4,
        sequence: u64,
        config: Config,
    ) -> Result<Self, Box<dyn Error>> {
        let socket = UdpSocket::bind(listen).await?;
        let port = socket.local_addr()?.port();
        let record = Enr::builder().seq(sequence).ip4(*listen.ip()).udp4(port).build(&key)?;
        let link = Arc::new(Link::new(socket, key, record.into()));
        let secret = Secret::new(rand::random());
        let node = kad_proto_async::Node::<Discv5>::new(link.own.key(), config, &secret)?;
        let (dht, run) = node.run(link.clone(), TokioTimer::new())?;
        tokio::spawn(run);
        let reader = tokio::spawn(link::read(link.clone(), dht.clone()));
        Ok(Self { dht, link, reader })
    }

    /// The record of this node, which others are told.
    #[must_use]
    pub fn record(&self) -> Record {
        self.link.own.clone()
    }

    /// Ends it: its calls end with what they have found, and it answers nobody any more.
    pub async fn shutdown(&self) {
        self.reader.abort();
        self.dht.shutdown().await;
    }
}
