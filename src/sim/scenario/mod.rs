//! [`Scenario`]: everything that a run depends on.

pub(crate) mod answers;
pub(crate) mod behaviour;
pub(crate) mod broadcasts;
pub(crate) mod build;
pub(crate) mod change;
pub(crate) mod churn;
pub(crate) mod dial;
pub(crate) mod interarrival;
pub(crate) mod latency;
pub(crate) mod latency_matrix;
pub(crate) mod link;
pub(crate) mod partition;
pub(crate) mod sybils;
pub(crate) mod who;
pub(crate) mod workload;

use crate::coordinator::config::Config;
use crate::routing::config::RoutingConfig;
use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::{Random, Stream};
use crate::sim::scenario::answers::Answers;
use crate::sim::scenario::behaviour::Party;
use crate::sim::scenario::broadcasts::Broadcasts;
use crate::sim::scenario::build::Build;
use crate::sim::scenario::change::Change;
use crate::sim::scenario::churn::Churn;
use crate::sim::scenario::link::Link;
use crate::sim::scenario::partition::Partition;
use crate::sim::scenario::sybils::Sybils;
use crate::sim::scenario::who::Who;
use crate::sim::scenario::workload::{Targets, Workload};
use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// Everything that a run depends on: two runs of the same scenario are the same, event by event.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed of all random numbers. Default: 1.
    pub seed: u64,
    /// How many nodes there are, including the dead. 1 to 8,388,608. Default: 1,000.
    pub nodes: u32,
    /// The configuration of every node. Where its `routing` is on, nodes keep their tables themselves, and a run goes on
    /// for the scheduled workload and changes only, as some message is always under way; where it is off, tables hold
    /// what the build puts there and what lookups add. Default: the engine's, with `routing` off.
    pub config: Config,
    /// Which nodes keep their tables themselves, if `config.routing` is on; the others have it off. Default: all.
    pub maintained: Who,
    /// How many of the truly closest nodes a lookup's recall counts (recall@k). 1 to 1,024. Default: 20.
    pub k: usize,
    /// What honest answers name.
    pub answers: Answers,
    /// How the network is built. Default: with ideal tables.
    pub build: Build,
    /// How many round trips a node that begins with an ideal table has measured before: to nodes of its table, drawn from
    /// the link's latency, fed to its engine before its first event. At most 1,024. Default: 0.
    pub known_round_trips: u16,
    /// Whether a node that receives a request from an unknown node pings it, and offers it to its table if the
    /// ping is answered. Other nodes learn of nodes that join or come back only in this way. Default: false.
    pub reverse_ping: bool,
    /// The share of nodes that die when the network is built: they are in the tables of others and never answer. 0
    /// to 1. Default: 0.
    pub dead: f64,
    /// The share of nodes that send requests but cannot receive any (behind a NAT). 0 to 1. Default: 0.
    pub nat: f64,
    /// Nodes that are slow. Default: none.
    pub slow: Slow,
    /// Nodes that go offline and come back, from when the network is built. Default: none.
    pub churn: Option<Churn>,
    /// Nodes that are not honest. Default: none.
    pub hostile: Vec<Party>,
    /// Attackers with identities near nodes or keys. Default: none.
    pub sybils: Vec<Sybils>,
    /// What links do to requests and answers.
    pub link: Link,
    /// Which nodes cannot reach each other, and when. Default: none.
    pub partition: Option<Partition>,
    /// What happens in the course of the run. Default: nothing.
    pub changes: Vec<Change>,
    /// How long a run lasts at least, from when the network is built. Default: as long as there is anything to do.
    pub lasts: Duration,
    /// The lookups of the run.
    pub workload: Workload,
    /// The broadcasts of the run. Default: none.
    pub broadcasts: Option<Broadcasts>,
    /// For how many lookups of the workload, the first ones, [`LookupRun::asked`](crate::sim::LookupRun::asked) is
    /// kept after their end. Default: 16.
    pub detailed_lookups: u32,
    /// The interval at which the routing tables are measured; see [`Health`](crate::sim::Health). More than zero.
    /// Default: never.
    pub health: Option<Duration>,
    /// Whether the [invariants](crate::sim::Invariant) are checked after every call of an engine. Default: in
    /// debug builds.
    pub check_invariants: bool,
    /// The command that repeats this scenario, with the placeholders `{seed}` for the seed and `{node}` for the
    /// number of a node's handle: part of a [`Violation`](crate::sim::Violation). Default: that of the program
    /// `kad-simulate`.
    pub replay: String,
}

/// Nodes to which every round trip takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// Their share of the nodes. 0 to 1. Default: 0.
    pub share: f64,
    /// The factor by which round trips are longer. 1 to 1,000. Default: 5.
    pub factor: f64,
}

impl Default for Slow {
    fn default() -> Self {
        Self { share: 0.0, factor: 5.0 }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 1_000,
            config: Config { routing: RoutingConfig::off(), ..Config::default() },
            maintained: Who::All,
            k: 20,
            answers: Answers::default(),
            build: Build::Ideal,
            known_round_trips: 0,
            reverse_ping: false,
            dead: 0.0,
            nat: 0.0,
            slow: Slow::default(),
            churn: None,
            hostile: Vec::new(),
            sybils: Vec::new(),
            link: Link::default(),
            partition: None,
            changes: Vec::new(),
            lasts: Duration::ZERO,
            workload: Workload::default(),
            broadcasts: None,
            detailed_lookups: 16,
            health: None,
            check_invariants: cfg!(debug_assertions),
            replay: "cargo run --release -p kad-simulate -- --check --seed {seed}".to_owned(),
        }
    }
}

impl Scenario {
    /// The workload "under fire", by which lookup policies are judged: 10,000 nodes with ideal tables, of which 30
    /// % are dead; 2 % of all exchanges lost; round trips log-normal, median 80 ms, sigma 0.6; 200 lookups, one at
    /// a time, of nodes that know 32 round trips.
    pub fn under_fire() -> Self {
        Self { dead: 0.3, ..Self::lossy() }
    }

    /// The same with no dead nodes.
    pub fn lossy() -> Self {
        let link = Link { loss: 0.02, ..Link::default() };
        Self { nodes: 10_000, link, known_round_trips: 32, ..Self::default() }
    }

    /// Whether nodes keep their tables themselves.
    pub(crate) fn is_maintained(&self) -> bool {
        let RoutingConfig { bootstrap, include, probe, explore, .. } = &self.config.routing;
        let off = bootstrap.is_none() && include.is_none() && probe.is_none() && explore.is_none();
        !off || matches!(self.build, Build::Bootstrap(_))
    }

    /// Whether a node, by index, is one of the seeds that others bootstrap from: no churn takes it offline, it is reachable
    /// and honest.
    pub(crate) fn is_seed(&self, index: u32) -> bool {
        self.is_maintained() && index < self.build.seeds()
    }

    /// The key of a record, by number.
    pub(crate) fn record_key(&self, record: u32) -> Key64 {
        let keys = self.broadcasts.as_ref().and_then(|broadcasts| broadcasts.keys.as_ref());
        let chosen = keys.and_then(|keys| keys.get(record as usize % keys.len().max(1)));
        let drawn = || Random::new(self.seed, Stream::Record, [u64::from(record)]).below(Handle::NODES);
        Handle::point(chosen.copied().unwrap_or_else(drawn)).key()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        require((1..=Handle::NODES).contains(&self.nodes), "nodes", "1 to 8,388,608")?;
        require((1..=1_024).contains(&self.k), "k", "1 to 1,024")?;
        require(share(self.dead), "dead", "0 to 1")?;
        require(share(self.nat), "nat", "0 to 1")?;
        require(share(self.slow.share), "slow.share", "0 to 1")?;
        require((1.0..=1_000.0).contains(&self.slow.factor), "slow.factor", "1 to 1,000")?;
        require(self.health.is_none_or(|every| !every.is_zero()), "health", "longer than zero")?;
        Party::validate(&self.hostile)?;
        self.build.validate()?;
        require(self.known_round_trips <= 1_024, "known_round_trips", "at most 1,024")?;
        self.answers.validate()?;
        self.maintained.validate(self.nodes, "maintained")?;
        self.workload.by.validate(self.nodes, "workload.by")?;
        let exist = |list: &[u32]| list.iter().all(|number| *number < self.nodes);
        let sound = if let Targets::Nodes(list) = &self.workload.targets { exist(list) } else { true };
        require(sound, "workload.targets", "numbers less than nodes")?;
        self.changes.iter().try_for_each(|change| change.effect.validate(self.nodes))?;
        let boots = matches!(self.build, Build::Bootstrap(_));
        require(self.build.seeds() <= self.nodes || !boots, "bootstrap.seeds", "at most nodes")?;
        self.sybils.iter().try_for_each(|sybils| sybils.validate(self.nodes))?;
        self.churn.as_ref().map_or(Ok(()), Churn::validate)?;
        self.partition.as_ref().map_or(Ok(()), Partition::validate)?;
        self.config.validate()?;
        self.link.validate()?;
        self.broadcasts.as_ref().map_or(Ok(()), |it| it.by.validate(self.nodes, "broadcasts.by"))?;
        self.broadcasts.as_ref().map_or(Ok(()), Broadcasts::validate)?;
        self.workload.validate()
    }
}
