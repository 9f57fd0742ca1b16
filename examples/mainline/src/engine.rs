//! The engine for this network: its configuration, and the recorder that may be around it.

use crate::family::Mainline;
use core::time::Duration;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::record::{Keep, Recorder};
use kad_proto::{
    Batch, Config, ConfigError, Coordinator, Instant, Key160, Machine, RoutingConfig, Secret, Stamped,
};

/// How many of the closest nodes are searched for and stored with: BEP 5's k, as many as an answer names. With more,
/// each answer would leave out some of those that are searched for.
pub const K: usize = 8;

/// The engine's configuration for this driver, with operations that take up to `longest`.
pub fn config(longest: Duration) -> Config {
    let mut config = Config::default();
    config.query.k = K;
    config.query.timeout = longest;
    config.broadcast.timeout = longest;
    config.crawl.timeout = longest;
    // A store needs the token that the node's answer carried.
    config.broadcast.store_before_response = false;
    // A program that ends after its operations does not maintain its routing table.
    config.routing = RoutingConfig::off();
    // The answers to 64 requests fit into a socket's receive buffer of 200 kB. With more, the system would drop
    // answers of lookups that run at once; with this limit the engine queues requests instead.
    config.network.max_in_flight = 64;
    config
}

/// The same for a node that stays, and probes the nodes of its table at this interval, if it is given.
pub fn staying(mut config: Config, probe: Option<Duration>) -> Config {
    config.routing = RoutingConfig::default();
    if let (Some(config), Some(interval)) = (&mut config.routing.probe, probe) {
        config.interval = interval;
        config.retry_interval = config.retry_interval.min(interval);
    }
    config
}

/// A coordinator, or one within a recorder.
#[derive(Debug)]
pub enum Engine {
    Plain(Coordinator<Mainline>),
    Recorded(Recorder<Mainline>),
}

impl Engine {
    /// The engine of the node with this id and a secret drawn at random; recorded from its construction on where
    /// `record` is set.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(id: Key160, config: Config, record: bool) -> Result<Self, ConfigError> {
        let secret = Secret::new(rand::random());
        if record {
            return Recorder::new(id, config, &secret, Keep::All).map(Self::Recorded);
        }
        Coordinator::new(id, config, &secret).map(Self::Plain)
    }

    /// Takes what was recorded since the last call: the next piece of a file. `None` where nothing is recorded.
    pub fn take_recording(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Recorded(recorder) => Some(recorder.take()),
        }
    }

    /// The rest of what was recorded: the last piece of a file, or all of it where none was taken.
    pub fn recording(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Recorded(recorder) => Some(recorder.bytes()),
        }
    }
}

impl AsRef<Coordinator<Mainline>> for Engine {
    fn as_ref(&self) -> &Coordinator<Mainline> {
        match self {
            Self::Plain(coordinator) => coordinator,
            Self::Recorded(recorder) => recorder.coordinator(),
        }
    }
}

impl Machine for Engine {
    type Inbound = Inbound<Mainline>;
    type Outbound = Outbound<Mainline>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Self::Inbound>, out: &mut Batch<Self::Outbound>) {
        match self {
            Self::Plain(coordinator) => coordinator.handle_into(now, event, out),
            Self::Recorded(recorder) => recorder.handle_into(now, event, out),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.as_ref().poll_timeout()
    }
}
