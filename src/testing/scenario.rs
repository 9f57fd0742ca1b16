//! [`Scenario`]: decoded from bytes, of a proptest or of a fuzzer. Any bytes are valid: where they run out, zeros follow.
//!
//! The corpora of the fuzz targets are such bytes: the mapping must not change.

use crate::broadcast::BroadcastConfig;
use crate::broadcast::sweep::SweepConfig;
use crate::coordinator::config::Config;
use crate::crawl::CrawlConfig;
use crate::lookups::config::QueryConfig;
use crate::network_size::NetworkSizeConfig;
use crate::operations::config::PoolConfig;
use crate::requests::config::NetworkConfig;
use crate::routing::candidate_queue::IncludeConfig;
use crate::routing::config::RoutingConfig;
use crate::routing::probe_list::ProbeConfig;
use crate::routing::table::TableConfig;
use core::time::Duration;

/// The kind of machine that a scenario is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// A [`Query`](crate::Query).
    Query,
    /// A [`QueryPool`](crate::QueryPool).
    Pool,
    /// A [`Coordinator`](crate::Coordinator), whose table is not maintained.
    Coordinator,
    /// Crawls: in a [`Crawl`](crate::Crawl), or among lookups in a coordinator, as the bytes say.
    Crawl,
    /// Broadcasts: in a [`BroadcastPool`](crate::BroadcastPool) or in a coordinator, likewise.
    Broadcast,
}

impl MachineKind {
    /// Bytes before the first step of a scenario; some are unused.
    pub const fn header(self) -> usize {
        match self {
            Self::Query | Self::Pool | Self::Coordinator => 28,
            Self::Crawl => 28 + 12,
            Self::Broadcast => 28 + 16,
        }
    }
}

/// Bytes of a step.
pub(super) const STEP: usize = 4;
/// Later steps are not played, so that every scenario is short.
const MOST_STEPS: usize = 200;

/// A small network of honest, dead and lying nodes, and what happens to a machine in it: starts, answers in any order, failures,
/// late and forged answers, stops, and time that passes, also backwards.
///
/// [`check`](crate::testing::check) decodes one from bytes and plays it; this type is for tests that choose the machine or alter the
/// configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// The machine it is for: a scenario of crawls or broadcasts may be for a coordinator.
    pub kind: MachineKind,
    /// Starts are crawls, mostly.
    pub(super) crawls: bool,
    /// How many bytes a key should have: 1, 20 or 32. For tests over several families.
    pub width: usize,
    /// The configuration, with times of some microseconds.
    pub config: Config,
    /// The seed of all random numbers in the world.
    pub seed: u64,
    /// The number of nodes.
    pub(super) population: usize,
    /// How nodes behave, one `Behaviour` in each pair of bits; zero is the healthiest network.
    pub(super) behaviours: u8,
    /// So many Sybils stand next to the target of each operation. No bytes decode to any: a test sets it.
    pub sybils: usize,
    pub(super) steps: Vec<Step>,
    /// Whether the checker has models, as it has to begin with: see
    /// [`ContractChecker::without_models`](crate::testing::ContractChecker::without_models).
    pub models: bool,
}

/// A step. Numbers are indices modulo the length of the list they select from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Start {
        tag: u8,
        target: u8,
        deadline: u8,
        results: u8,
        seeds: u8,
        message: bool,
        quorum: Option<usize>,
    },
    Crawl {
        tag: u8,
        deadline: u8,
        seeds: u8,
    },
    Broadcast {
        tag: u8,
        target: u8,
        deadline: u8,
        how: u8,
        seeds: u8,
    },
    /// The node of a request in flight answers according to its behaviour, or lies; `carries` selects a value and
    /// a token.
    Answer {
        request: u8,
        lie: u8,
        carries: u8,
    },
    /// The driver reports a failure, or the node's refusal.
    Fail {
        request: u8,
        rejected: bool,
    },
    /// A response to a request that has already ended.
    Late {
        request: u8,
        failed: bool,
    },
    /// A response to an id that may never have been issued.
    Forged {
        id: [u8; 3],
    },
    /// The caller stops an operation, which may have ended.
    Stop {
        operation: u8,
    },
    /// The caller stops an operation of another machine.
    StopForged {
        tag: u8,
    },
    /// Time passes; the machine gets a tick now, or sees the new time with the next event only.
    Advance {
        by: u8,
        tick: bool,
    },
    /// The caller's clock is behind for the next event.
    Backwards {
        by: u8,
    },
    Connected {
        node: u8,
    },
    Disconnected {
        node: u8,
    },
    /// For this many calls, responsive nodes answer and the machine is woken up, while time passes.
    Drive {
        calls: u8,
        by: u8,
    },
}

/// The times in scenarios, in nanoseconds: few values, so that they coincide often.
const TIMES: [u64; 16] = [
    2_000,
    1,
    500,
    1_000,
    2_000,
    3_000,
    4_000,
    8_000,
    16_000,
    32_000,
    64_000,
    100_000,
    200_000,
    1_000_000,
    1_000_000_000,
    u64::MAX,
];

pub(super) fn time(index: u8) -> u64 {
    TIMES.get(usize::from(index) % TIMES.len()).copied().unwrap_or_default()
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let place = usize::from(self.byte()).checked_rem(choices.len()).unwrap_or_default();
        choices.get(place).copied().unwrap_or_default()
    }

    /// One of these, selected by a byte.
    fn pick(&mut self, choices: &[usize]) -> usize {
        self.one_of(choices)
    }

    fn duration(&mut self, choices: &[u8]) -> Duration {
        Duration::from_nanos(time(self.one_of(choices)))
    }
}

impl Scenario {
    /// The scenario that these bytes say. A header, then steps of four bytes, so that with fewer or smaller bytes it stays similar.
    pub fn decode(kind: MachineKind, bytes: &[u8]) -> Self {
        let (crawls, broadcasts) = (kind == MachineKind::Crawl, kind == MachineKind::Broadcast);
        let (header, steps) = bytes.split_at(bytes.len().min(kind.header()));
        let (mut bytes, mut rest) = (Bytes(header), Bytes(steps));
        let widths = if crawls { [1, 1, 20, 1] } else { [1, 1, 32, 20] };
        let width = bytes.pick(&widths);
        let seed = u64::from(bytes.byte()) << 8 | u64::from(bytes.byte());
        let population = bytes.pick(&[8, 0, 1, 2, 3, 5, 12, 20, 30, 50]);
        let behaviours = bytes.byte();
        let mut config = config(kind, &mut bytes);
        let kind = match kind {
            MachineKind::Crawl => crawl_config(&mut config, &mut bytes),
            MachineKind::Broadcast => broadcast_config(&mut config, &mut bytes),
            kind => kind,
        };
        let mut steps = Vec::new();
        while !rest.0.is_empty() && steps.len() < MOST_STEPS {
            let step = step(&mut rest);
            steps.push(match step {
                step if crawls => as_crawl_step(kind, step),
                step if broadcasts => as_broadcast_step(kind, step),
                step => step,
            });
        }
        Self { kind, crawls, width, config, seed, population, behaviours, sybils: 0, steps, models: true }
    }
}

/// Completes the configuration of a scenario with crawls. Returns the machine it is for.
fn crawl_config(config: &mut Config, bytes: &mut Bytes<'_>) -> MachineKind {
    let machine = bytes.byte();
    config.crawl = CrawlConfig {
        timeout: bytes.duration(&[13, 8, 10, 11, 12, 14, 15]),
        max_cpl: u32::try_from(bytes.pick(&[7, 0, 1, 2, 3, 15, 200])).unwrap_or_default(),
        max_in_flight: bytes.pick(&[8, 1, 2, 3, 64]),
        max_nodes: bytes.pick(&[200, 1, 2, 8, 20]),
        max_edges: bytes.pick(&[1_000, 1_000, 0, 1, 10]),
        max_closer_nodes: bytes.pick(&[40, 1, 2, 5]),
        max_failures: u32::try_from(bytes.pick(&[2, 1, 3, 200])).unwrap_or_default(),
        max_crawls: bytes.pick(&[2, 1, 3, 0, 8]),
    };
    let times = |ticks| Duration::from_nanos(ticks * 1_000);
    match machine % 4 {
        0 => {
            config.pool.max_running = config.crawl.max_crawls.max(1);
            config.pool.max_waiting = 0;
            return MachineKind::Crawl;
        }
        1 => {}
        which => {
            let probe = ProbeConfig {
                interval: times(20 + u64::from(machine)),
                retry_interval: times(5),
                timeout: times(10),
                ..ProbeConfig::default()
            };
            config.routing = RoutingConfig {
                include: (which == 2).then(|| IncludeConfig { max_queued: 5, ..IncludeConfig::default() }),
                probe: Some(probe),
                ..RoutingConfig::off()
            };
        }
    }
    MachineKind::Coordinator
}

/// Turns most starts of lookups into starts of crawls.
fn as_crawl_step(kind: MachineKind, step: Step) -> Step {
    match step {
        Step::Start { tag, target, deadline, seeds, .. } if kind == MachineKind::Crawl || target % 4 != 0 => {
            Step::Crawl { tag, deadline, seeds }
        }
        step => step,
    }
}

/// Completes the configuration of a scenario with broadcasts. Returns the machine it is for.
fn broadcast_config(config: &mut Config, bytes: &mut Bytes<'_>) -> MachineKind {
    let machine = bytes.byte();
    let timeout = bytes.duration(&[11, 8, 10, 12, 13, 14, 15]);
    config.broadcast = BroadcastConfig {
        timeout,
        sweep_timeout: timeout,
        store_reserve: bytes.duration(&[8, 1, 3, 5, 10, 14]),
        max_in_flight: bytes.pick(&[20, 1, 2, 3, 20]),
        max_nodes: bytes.pick(&[1_024, 1_024, 2, 0]),
        early_return_percent: u8::try_from(bytes.pick(&[75, 1, 30, 50, 100])).unwrap_or(75),
        store_before_response: bytes.byte() % 3 != 2,
        regions: true,
        max_background: bytes.pick(&[60, 60, 2, 4, 0]),
        background_timeout: bytes.duration(&[10, 1, 3, 6, 8, 9, 12, 15]),
        sweep: SweepConfig {
            results: bytes.pick(&[40, 21, 25]),
            max_lookups: bytes.pick(&[64, 1, 2, 5]),
            max_without_news: bytes.pick(&[2, 1, 3]),
            ..SweepConfig::default()
        },
        max_lookups: bytes.pick(&[3, 1, 2, 8]),
        max_records: bytes.pick(&[100, 100, 3]),
    };
    // With edge probing, the lookup that a request of a sweep belongs to is not always visible.
    config.query.edge_probing = machine >= 128;
    let samples =
        NetworkSizeConfig { k: config.query.k.min(3), min_samples: 2, ..NetworkSizeConfig::default() };
    match machine % 8 {
        0..=3 => return MachineKind::Broadcast,
        4..=6 => {
            config.query.edge_probing = false;
            config.network_size = (machine % 8 != 4).then_some(samples);
        }
        _ => {
            let times = |ticks| Duration::from_nanos(ticks * 1_000);
            let probe = ProbeConfig {
                interval: times(20 + u64::from(machine)),
                retry_interval: times(5),
                timeout: times(10),
                ..ProbeConfig::default()
            };
            let include = Some(IncludeConfig { max_queued: 5, ..IncludeConfig::default() });
            config.routing = RoutingConfig { include, probe: Some(probe), ..RoutingConfig::off() };
        }
    }
    MachineKind::Coordinator
}

/// Turns most starts of lookups into starts of broadcasts.
fn as_broadcast_step(kind: MachineKind, step: Step) -> Step {
    match step {
        Step::Start { tag, target, deadline, results, seeds, message, .. }
            if kind == MachineKind::Broadcast || target % 4 != 0 =>
        {
            let how = deadline.wrapping_mul(29) ^ results << 1 ^ if message { 0xc0 } else { 0 };
            Step::Broadcast { tag, target, deadline, how, seeds }
        }
        step => step,
    }
}

fn config(kind: MachineKind, bytes: &mut Bytes<'_>) -> Config {
    let k = bytes.pick(&[3, 1, 2, 4, 5, 8, 20]);
    let max_candidates = k + bytes.pick(&[40, 0, 1, 2, 5, 100]);
    let mut query = QueryConfig {
        timeout: bytes.duration(&[11, 1, 3, 8, 10, 12, 13, 15]),
        k,
        alpha: bytes.pick(&[3, 1, 2, 5, 30]),
        beta: Some(bytes.pick(&[0, 0, 1, 2, 3, 20])).filter(|beta| (1..=k).contains(beta)),
        paths: bytes.pick(&[1, 1, 1, 2, 3]),
        retries: bytes.pick(&[1, 0, 2]),
        max_closer_nodes: bytes.pick(&[40, 1, 3, 2 * k]),
        max_candidates,
        max_nodes: max_candidates + bytes.pick(&[200, 0, 1, 10]),
        ..QueryConfig::default()
    };
    let (max_running, max_waiting) = (bytes.pick(&[8, 1, 2, 3]), bytes.pick(&[8, 0, 1, 2]));
    let (max_running, max_waiting) =
        if kind == MachineKind::Query { (1, 0) } else { (max_running, max_waiting) };
    let (seed, min_timeout) = (bytes.byte(), bytes.duration(&[15, 15, 1, 3, 7]));
    query.max_per_group = 1 + usize::from(seed / 2 % 4);
    query.edge_probing = seed % 8 != 7;
    query.regions = seed % 16 != 6;
    query.region_bound = match seed / 32 % 4 {
        0 | 1 => 4,
        2 => 2,
        _ => 1,
    };
    Config {
        query,
        pool: PoolConfig { max_running, max_waiting, ..PoolConfig::default() },
        network: NetworkConfig {
            request_timeout: bytes.duration(&[9, 1, 3, 4, 6, 8, 10, 11, 15]),
            soft_timeout: bytes.duration(&[7, 1, 3, 4, 5, 8, 10, 15]),
            // Mostly above the request time-out, so that time-outs are not adapted.
            min_timeout,
            max_in_flight: bytes.pick(&[1_000, 1, 2, 3, 7]),
            max_per_node: bytes.pick(&[16, 1, 2]),
            max_queued: bytes.pick(&[1_000, 0, 1, 2, 5]),
            ..NetworkConfig::default()
        },
        table: TableConfig {
            bucket_size: 1 + usize::from(seed % 4),
            max_per_group: 1 + usize::from(seed / 4 % 3),
            max_per_group_in_bucket: 1 + usize::from(seed / 16 % 2),
            max_failures: 1 + usize::from(seed / 64 % 3),
        },
        routing: RoutingConfig::off(),
        network_size: None,
        ..Config::default()
    }
}

fn step(bytes: &mut Bytes<'_>) -> Step {
    let [kind, a, b, c]: [u8; STEP] = core::array::from_fn(|_| bytes.byte());
    match kind % 32 {
        0..=6 => Step::Start {
            tag: a % 8,
            target: a / 8,
            deadline: b,
            results: c % 8,
            seeds: c / 8 % 16,
            message: c >= 128,
            quorum: (13..16).contains(&(b % 16)).then(|| usize::from(b % 16 - 13)).filter(|_| b < 128),
        },
        7..=13 => Step::Answer { request: a, lie: b, carries: c },
        14 | 15 => Step::Fail { request: a, rejected: b >= 128 },
        16 => Step::Late { request: a, failed: b % 2 == 1 },
        17 => Step::Forged { id: [a, b, c] },
        18 => Step::Stop { operation: a },
        19 => Step::StopForged { tag: a % 8 },
        20..=24 => Step::Advance { by: a, tick: b % 2 == 0 },
        25 => Step::Backwards { by: a },
        26 => Step::Connected { node: a },
        27 => Step::Disconnected { node: a },
        _ => Step::Drive { calls: a, by: b },
    }
}
