//! The rules of the routing maintenance over any bytes, for the machine of its own and inside the coordinator: what the
//! property tests, the fuzz targets and the replay of their corpora share. How the machines are told apart is in
//! [`subject`], what must hold in [`witness`].

#![allow(dead_code)] // each user of it uses its part

pub(crate) mod subject;
pub(crate) mod witness;

use kad_proto::coordinator::Inbound;
use kad_proto::explore::Schedule;
use kad_proto::{
    BootstrapConfig, Config, ExploreConfig, Family, Group, IncludeConfig, Instant, Key8, NetworkConfig,
    PoolConfig, ProbeConfig, RoutingConfig, SpanContext, Stamped, Start, TableConfig,
};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::collections::BTreeMap;
use std::time::Duration;
use subject::Subject;
use witness::Witness;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }

    fn admits(node: &Key8) -> bool {
        node.as_bytes()[0] != REFUSED
    }
}

/// The same, where half of the nodes belong to one of four groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grouped;

impl Family for Grouped {
    type Key = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }

    fn admits(node: &Key8) -> bool {
        Tiny::admits(node)
    }

    fn group(node: &Key8) -> Option<Group> {
        let [key] = *node.as_bytes();
        key.is_multiple_of(2).then(|| Group(u64::from(key / 2 % 4)))
    }
}

pub(crate) const LOCAL: Key8 = Key8::new([0xff]);
pub(crate) const REFUSED: u8 = 0x13;
pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) fn node(key: u8) -> Key8 {
    Key8::new([key])
}

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

pub(crate) fn span(number: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(u128::from(number)), SpanId::from(number));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// What a fixed share of the keys does when it is asked.
pub(crate) fn reply(key: u8, salt: u8) -> Option<Vec<u8>> {
    match key.wrapping_mul(37) ^ salt {
        0..=79 => None,
        80..=99 => Some(Vec::new()),
        other => Some((0..20).map(|i| other.wrapping_mul(i).wrapping_add(key)).collect()),
    }
}

/// The limits that a scenario is played under.
pub(crate) const BUCKET: usize = 4;
pub(crate) const CHECKS: u64 = 3;
pub(crate) const QUEUED: u64 = 5;
pub(crate) const MIN_NODES: usize = 3;
pub(crate) const CLIENTS: usize = 3;
/// How long a request and an operation may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(2);
pub(crate) const OPERATION: Duration = Duration::from_secs(60);

fn config(seed: u8) -> Config {
    let bits = |shift: u32, below: u8| usize::from(seed.rotate_right(shift) % below);
    let table = TableConfig {
        bucket_size: BUCKET,
        max_failures: 1 + usize::from(seed % 3),
        ..TableConfig::default()
    };
    let include = IncludeConfig { max_queued: QUEUED as usize, ..IncludeConfig::default() };
    let probe =
        ProbeConfig { interval: S * 7, retry_interval: S * 2, timeout: S * 3, ..ProbeConfig::default() };
    let schedule = if seed.is_multiple_of(5) {
        Schedule::NoWait
    } else {
        Schedule::Dynamic { interval: S * 20, multiplier: 50, jitter: 20 }
    };
    let explore = ExploreConfig { schedule, max_cpl: 20, timeout: S * 9 };
    let bootstrap =
        BootstrapConfig { min_nodes: MIN_NODES, retry_interval: S * 4, timeout: S * 6, max_seeds: 4 };
    let routing = RoutingConfig {
        bootstrap: Some(bootstrap),
        include: Some(include),
        probe: Some(probe),
        explore: Some(explore),
        max_clients: CLIENTS,
        seed: seed.into(),
    };
    let network = NetworkConfig {
        request_timeout: REQUEST,
        // In half of the scenarios nothing is adapted.
        min_timeout: if bits(3, 2) == 0 { S / 4 } else { REQUEST },
        max_in_flight: 2 + usize::from(seed % 7),
        max_per_node: 1 + usize::from(seed % 2),
        max_queued: usize::from(seed % 4),
        ..NetworkConfig::default()
    };
    let mut pool = PoolConfig { max_running: 1 + bits(5, 4), max_waiting: 2, ..PoolConfig::default() };
    pool.query.timeout = OPERATION;
    Config { pool, network, table, routing, network_size: None, ..Config::default() }
}

/// Plays the scenario that the bytes are: a seed of the configuration, then two bytes for each step. Says how often each
/// thing happened.
pub(crate) fn soak<M: Subject>(bytes: &[u8]) -> BTreeMap<&'static str, u64> {
    let (seed, steps) = bytes.split_first().map_or((0, bytes), |(seed, steps)| (*seed, steps));
    let mut play = Witness::<M>::new(config(seed));
    let mut tag = 0;
    for step in steps.chunks_exact(2) {
        let (what, argument) = (step[0], step[1]);
        let target = node(argument);
        let open = play.open(argument);
        let seeds = vec![node(argument ^ 0x55)];
        let event = match (what % 16, open) {
            (0, _) if M::LOOKUPS => {
                tag += 1;
                Inbound::Start(Start::find(tag, target).with_seeds(seeds))
            }
            (0 | 1, _) => {
                // Sometimes a tag that is in use, perhaps.
                tag += u64::from(argument % 8 != 0);
                Inbound::Start(Start::bootstrap(tag, LOCAL, vec![target]))
            }
            (2, _) => Inbound::Discovered(target),
            (3, _) => {
                let round_trip = argument.is_multiple_of(8).then(|| S / 20);
                Inbound::Connected { node: target, round_trip }
            }
            (4, _) => Inbound::Disconnected(target),
            (5, _) if argument < 32 => Inbound::Client(target),
            (6, _) => Inbound::Seeds(vec![target]),
            (7, _) => Inbound::Restore(play.snapshot()),
            (8, Some((request, _))) => Inbound::Failed(request),
            (9, _) if tag > 0 => play.operation(tag).map_or(Inbound::Tick, Inbound::Stop),
            (10..=12, Some((request, asked))) => match reply(asked.as_bytes()[0], seed) {
                Some(closer) => Inbound::Answered { request, closer: closer.into_iter().map(node).collect() },
                None => Inbound::Tick,
            },
            (13, _) => {
                // The caller comes late to what is due by then.
                play.sleep(S / 50 * u32::from(argument));
                continue;
            }
            _ => {
                play.wake();
                continue;
            }
        };
        let mut event = Stamped::new(event);
        if !argument.is_multiple_of(7) {
            event = event.in_span(span(u64::from(argument) + 1));
        }
        if argument.is_multiple_of(3) {
            event = event.by(play.now() + S / 4 * u32::from(argument));
        }
        play.tell(event);
    }
    play.end()
}
