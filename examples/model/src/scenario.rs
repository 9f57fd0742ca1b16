//! [`Scenario`]: what the nodes of a network know and start; [`Bounds`]: what may go wrong.

use crate::Tiny;
use kad_proto::coordinator::Inbound;
use kad_proto::{
    BootstrapConfig, BroadcastConfig, Config, IncludeConfig, Instant, Key8, NetworkConfig, QueryConfig,
    RoutingConfig, Stamped, Start, StartBroadcast,
};
use std::time::Duration;

/// What may happen in one run, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages that are lost.
    pub losses: u8,
    /// Messages that come twice.
    pub copies: u8,
    /// Operations that are stopped.
    pub stops: u8,
    /// Time does not pass beyond this.
    pub horizon: Instant,
    /// Whether a node that joins checks whom it admits to its table; else who answers is admitted.
    pub checks: bool,
}

/// When everything begins.
pub(crate) const BEGIN: Instant = Instant::from_secs(1);
/// When operations end at the latest: between the time-out of a first and of a second request to a node.
const DEADLINE: Duration = Duration::from_secs(3);

/// A network of three nodes, and what they do.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The nodes: the key of each, and its configuration.
    pub(crate) nodes: Vec<(Key8, Config)>,
    /// Who is in whose table to begin with: places of nodes.
    pub(crate) knows: Vec<(usize, usize)>,
    /// What which node starts.
    pub(crate) starts: Vec<(usize, Stamped<Inbound<Tiny>>)>,
    /// A node that is asked enters the one that asks into its table.
    pub(crate) learns: bool,
    /// What may happen.
    pub bounds: Bounds,
}

fn keys() -> [Key8; 3] {
    [0b0000_0001, 0b0100_0010, 0b1100_0100].map(|key| Key8::new([key]))
}

/// A node of three: two are the neighbourhood.
fn config() -> Config {
    Config {
        query: QueryConfig { k: 2, alpha: 2, max_candidates: 8, max_nodes: 16, ..QueryConfig::default() },
        network: NetworkConfig {
            request_timeout: Duration::from_secs(2),
            min_timeout: Duration::from_secs(2),
            soft_timeout: Duration::from_secs(1),
            ..NetworkConfig::default()
        },
        broadcast: BroadcastConfig { store_reserve: Duration::from_secs(1), ..BroadcastConfig::default() },
        routing: RoutingConfig::off(),
        network_size: None,
        ..Config::default()
    }
}

impl Scenario {
    /// A chain: the first knows the second, that one both others, the third the second.
    fn chain(bounds: Bounds) -> Self {
        Self {
            nodes: keys().map(|key| (key, config())).to_vec(),
            knows: vec![(0, 1), (1, 0), (1, 2), (2, 1)],
            starts: Vec::new(),
            learns: false,
            bounds,
        }
    }

    fn starting(mut self, place: usize, start: impl Into<Inbound<Tiny>>) -> Self {
        self.starts.push((place, Stamped::new(start.into()).with_deadline(BEGIN + DEADLINE)));
        self
    }

    /// The first node looks up the key of the third, which only the second knows.
    pub fn lookup(bounds: Bounds) -> Self {
        let [_, _, third] = keys();
        Self::chain(bounds).starting(0, Start::find(1, third))
    }

    /// The first node stores a record with the two others.
    pub fn broadcast(bounds: Bounds) -> Self {
        let [_, _, third] = keys();
        Self::chain(bounds).starting(0, StartBroadcast::follow_up(1, third, ()))
    }

    /// The third node knows nobody, and joins by the second, which enters whom it is asked by. Its table is maintained: it checks
    /// whom it is to admit, and bootstraps again as long as it knows nobody.
    pub fn bootstrap(bounds: Bounds) -> Self {
        let [_, second, third] = keys();
        let mut scenario = Self::chain(bounds);
        scenario.learns = true;
        scenario.knows = vec![(0, 1), (1, 0)];
        if let Some((_, newcomer)) = scenario.nodes.last_mut() {
            newcomer.routing = RoutingConfig {
                bootstrap: Some(BootstrapConfig { min_nodes: 1, ..BootstrapConfig::default() }),
                include: bounds.checks.then(IncludeConfig::default),
                ..RoutingConfig::off()
            };
        }
        scenario.starting(2, Start::bootstrap(1, third, vec![second]))
    }

    /// All at once: the first node looks up, the second stores, the third joins. One request at a time each, and none a second
    /// time: three operations are a product of three.
    pub fn together(bounds: Bounds) -> Self {
        let [first, _, third] = keys();
        let mut scenario = Self::bootstrap(bounds);
        for (_, config) in &mut scenario.nodes {
            (config.query.alpha, config.query.retries, config.query.edge_probing) = (1, 0, false);
            config.network.soft_timeout = config.network.request_timeout;
        }
        scenario.starting(0, Start::find(2, third)).starting(1, StartBroadcast::follow_up(3, first, ()))
    }

    /// The scenario of this name.
    pub fn named(name: &str, bounds: Bounds) -> Option<Self> {
        match name {
            "lookup" => Some(Self::lookup(bounds)),
            "broadcast" => Some(Self::broadcast(bounds)),
            "bootstrap" => Some(Self::bootstrap(bounds)),
            "together" => Some(Self::together(bounds)),
            _ => None,
        }
    }
}
