//! The engine for this network: its configuration, and the recorder that may be around it.

use crate::family::Mainline;
use core::time::Duration;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::record::{Keep, Recorder};
use kad_proto::{Batch, Config, ConfigError, Coordinator, Instant, Key160, Machine, RoutingConfig, Stamped};

/// The engine's configuration for this driver, with operations that take up to `longest`.
pub(crate) fn config(longest: Duration) -> Config {
    let mut config = Config::default();
    config.pool.query.timeout = longest;
    config.broadcast.timeout = longest;
    config.crawl.timeout = longest;
    // Who is to store something has to have answered: it wants its token back.
    config.broadcast.unasked = false;
    // A program that ends after its operations has no table to look after.
    config.routing = RoutingConfig::off();
    // The answers to so many requests fit into a socket's receive buffer of 200 kB. More lookups at once would have
    // the system throw answers away; like this the engine lets requests wait for a moment.
    config.network.max_in_flight = 64;
    // Peers choose their ids: they must not know how ours are hashed.
    config.pool.hash_seed = rand::random();
    config.network.hash_seed = rand::random();
    config.crawl.hash_seed = rand::random();
    config.table.hash_seed = rand::random();
    config
}

/// The same for a node that stays, and checks the nodes of its table as often as this, if it is said.
pub(crate) fn staying(mut config: Config, probe: Option<Duration>) -> Config {
    config.routing = RoutingConfig { seed: rand::random(), ..RoutingConfig::default() };
    if let (Some(config), Some(interval)) = (&mut config.routing.probe, probe) {
        config.interval = interval;
        config.retry_interval = config.retry_interval.min(interval);
    }
    config
}

/// A coordinator, or one within a flight recorder.
#[derive(Debug)]
pub(crate) enum Engine {
    Plain(Coordinator<Mainline>),
    Recorded(Recorder<Mainline>),
}

impl Engine {
    /// The engine of the node with this id, recorded from its construction on if that is wanted.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub(crate) fn new(id: Key160, config: Config, record: bool) -> Result<Self, ConfigError> {
        if record {
            return Recorder::new(id, config, Keep::All).map(Self::Recorded);
        }
        Coordinator::new(id, config).map(Self::Plain)
    }

    /// Takes what was recorded since the last time: the next piece of a file.
    pub(crate) fn take_recording(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Recorded(recorder) => Some(recorder.take()),
        }
    }

    /// The rest of what was recorded: the last piece of a file, or all of it where none was taken.
    pub(crate) fn recording(&self) -> Option<Vec<u8>> {
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
