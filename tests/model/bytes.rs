//! Bytes to scenarios. Any bytes will do: where they run out, zeros follow.

use kad_proto::{
    BroadcastConfig, Config, CrawlConfig, IncludeConfig, NetworkConfig, NetworkSizeConfig, PoolConfig,
    ProbeConfig, QueryConfig, RoutingConfig, SweepConfig, TableConfig,
};
use std::time::Duration;

/// The machine under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Query,
    Pool,
    Coordinator,
    /// Crawls: of a machine of their own, or of a coordinator, among lookups. The scenario says which.
    Crawl,
    /// Broadcasts, likewise.
    Broadcast,
}

/// Bytes before the first step; some are spare.
pub(crate) const HEADER: usize = 28;
/// Where there are crawls.
pub(crate) const CRAWL_HEADER: usize = HEADER + 12;
/// Where there are broadcasts.
pub(crate) const CAST_HEADER: usize = HEADER + 16;
/// Bytes of a step.
pub(crate) const STEP: usize = 4;
/// Steps beyond these are not played, so that every scenario is short.
const MOST_STEPS: usize = 200;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// Crawls are started.
    pub(crate) crawls: bool,
    /// Bytes of a key: 1, 20 or 32.
    pub(crate) width: usize,
    pub(crate) config: Config,
    /// Of all that is random in the world.
    pub(crate) seed: u64,
    /// How many nodes there are.
    pub(crate) population: usize,
    /// How nodes behave, one in each pair of bits, from the most to the least healthy network.
    pub(crate) mood: u8,
    pub(crate) steps: Vec<Step>,
}

/// What happens next. Numbers are indices modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
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
    /// The node of an outstanding request answers, as it is wont to; it may have the value, and a token.
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
    /// Something comes for a request that has ended.
    Late {
        request: u8,
        failed: bool,
    },
    /// Something comes for an id that may never have been given out.
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
    /// Time passes, and the caller says so now, or with the next event only.
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
    /// All nodes that live answer, and time passes in between, for so many calls.
    Drive {
        calls: u8,
        by: u8,
    },
}

/// Times that scenarios are made of, in nanoseconds: coarse enough to coincide often.
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

pub(crate) fn time(index: u8) -> u64 {
    TIMES[usize::from(index) % TIMES.len()]
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// One of these.
    fn of(&mut self, choices: &[usize]) -> usize {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn duration(&mut self, choices: &[u8]) -> Duration {
        Duration::from_nanos(time(choices[usize::from(self.byte()) % choices.len()]))
    }
}

pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Scenario {
    let (crawls, casts) = (kind == Kind::Crawl, kind == Kind::Broadcast);
    let header = if crawls {
        CRAWL_HEADER
    } else if casts {
        CAST_HEADER
    } else {
        HEADER
    };
    let (header, steps) = bytes.split_at(bytes.len().min(header));
    let (mut bytes, mut rest) = (Bytes(header), Bytes(steps));
    let widths = if crawls { [1, 1, 20, 1] } else { [1, 1, 32, 20] };
    let width = bytes.of(&widths);
    let seed = u64::from(bytes.byte()) << 8 | u64::from(bytes.byte());
    let population = bytes.of(&[8, 0, 1, 2, 3, 5, 12, 20, 30, 50]);
    let mood = bytes.byte();
    let mut config = config(kind, &mut bytes);
    let kind = match kind {
        Kind::Crawl => crawl(&mut config, &mut bytes),
        Kind::Broadcast => cast(&mut config, &mut bytes),
        kind => kind,
    };
    let mut steps = Vec::new();
    while !rest.0.is_empty() && steps.len() < MOST_STEPS {
        let step = step(&mut rest);
        steps.push(match step {
            step if crawls => of_a_crawl(kind, step),
            step if casts => of_a_cast(kind, step),
            step => step,
        });
    }
    Scenario { kind, crawls, width, config, seed, population, mood, steps }
}

/// Completes the configuration of a scenario with crawls. Says which machine it is for.
fn crawl(config: &mut Config, bytes: &mut Bytes<'_>) -> Kind {
    let machine = bytes.byte();
    config.crawl = CrawlConfig {
        timeout: bytes.duration(&[13, 8, 10, 11, 12, 14, 15]),
        max_cpl: u32::try_from(bytes.of(&[7, 0, 1, 2, 3, 15, 200])).unwrap_or_default(),
        max_in_flight: bytes.of(&[8, 1, 2, 3, 64]),
        max_nodes: bytes.of(&[200, 1, 2, 8, 20]),
        max_edges: bytes.of(&[1_000, 1_000, 0, 1, 10]),
        max_closer_nodes: bytes.of(&[40, 1, 2, 5]),
        max_failures: u32::try_from(bytes.of(&[2, 1, 3, 200])).unwrap_or_default(),
        max_crawls: bytes.of(&[2, 1, 3, 0, 8]),
        hash_seed: u64::from(machine),
    };
    let times = |ticks| Duration::from_nanos(ticks * 1_000);
    match machine % 4 {
        0 => {
            config.pool.max_running = config.crawl.max_crawls.max(1);
            config.pool.max_waiting = 0;
            return Kind::Crawl;
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
    Kind::Coordinator
}

/// The same step where there are crawls: most starts are of one.
fn of_a_crawl(kind: Kind, step: Step) -> Step {
    match step {
        Step::Start { tag, target, deadline, seeds, .. } if kind == Kind::Crawl || target % 4 != 0 => {
            Step::Crawl { tag, deadline, seeds }
        }
        step => step,
    }
}

/// Completes the configuration of a scenario with broadcasts. Says which machine it is for.
fn cast(config: &mut Config, bytes: &mut Bytes<'_>) -> Kind {
    let machine = bytes.byte();
    let timeout = bytes.duration(&[11, 8, 10, 12, 13, 14, 15]);
    config.broadcast = BroadcastConfig {
        timeout,
        sweep_timeout: timeout,
        store_time: bytes.duration(&[8, 1, 3, 5, 10, 14]),
        parallel: bytes.of(&[20, 1, 2, 3, 20]),
        max_nodes: bytes.of(&[1_024, 1_024, 2, 0]),
        return_share: u8::try_from(bytes.of(&[75, 1, 30, 50, 100])).unwrap_or(75),
        unasked: bytes.byte() % 3 != 2,
        max_background: bytes.of(&[60, 60, 2, 4, 0]),
        background_timeout: bytes.duration(&[10, 1, 3, 6, 8, 9, 12, 15]),
        sweep: SweepConfig {
            results: bytes.of(&[40, 21, 25]),
            max_lookups: bytes.of(&[64, 1, 2, 5]),
            max_fruitless: bytes.of(&[2, 1, 3]),
            ..SweepConfig::default()
        },
        max_lookups: bytes.of(&[3, 1, 2, 8]),
        max_records: bytes.of(&[100, 100, 3]),
    };
    // Where the rim is looked at, what a request is for cannot always be told.
    config.pool.query.rim = machine >= 128;
    let samples =
        NetworkSizeConfig { k: config.pool.query.k.min(3), min_samples: 2, ..NetworkSizeConfig::default() };
    match machine % 8 {
        0..=3 => return Kind::Broadcast,
        4..=6 => {
            config.pool.query.rim = false;
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
    Kind::Coordinator
}

/// The same step where there are broadcasts: most starts are of one.
fn of_a_cast(kind: Kind, step: Step) -> Step {
    match step {
        Step::Start { tag, target, deadline, results, seeds, message, .. }
            if kind == Kind::Broadcast || target % 4 != 0 =>
        {
            let how = deadline.wrapping_mul(29) ^ results << 1 ^ if message { 0xc0 } else { 0 };
            Step::Broadcast { tag, target, deadline, how, seeds }
        }
        step => step,
    }
}

fn config(kind: Kind, bytes: &mut Bytes<'_>) -> Config {
    let k = bytes.of(&[3, 1, 2, 4, 5, 8, 20]);
    let max_candidates = k + bytes.of(&[40, 0, 1, 2, 5, 100]);
    let mut query = QueryConfig {
        timeout: bytes.duration(&[11, 1, 3, 8, 10, 12, 13, 15]),
        k,
        alpha: bytes.of(&[3, 1, 2, 5, 30]),
        beta: Some(bytes.of(&[0, 0, 1, 2, 3, 20])).filter(|beta| (1..=k).contains(beta)),
        paths: bytes.of(&[1, 1, 1, 2, 3]),
        retries: bytes.of(&[1, 0, 2]),
        max_closer_nodes: bytes.of(&[40, 1, 3, 2 * k]),
        max_candidates,
        max_nodes: max_candidates + bytes.of(&[200, 0, 1, 10]),
        ..QueryConfig::default()
    };
    let (max_running, max_waiting) = (bytes.of(&[8, 1, 2, 3]), bytes.of(&[8, 0, 1, 2]));
    let (max_running, max_waiting) = if kind == Kind::Query { (1, 0) } else { (max_running, max_waiting) };
    let (seed, min_timeout) = (bytes.byte(), bytes.duration(&[15, 15, 1, 3, 7]));
    query.max_per_group = 1 + usize::from(seed / 2 % 4);
    query.rim = seed % 8 != 7;
    Config {
        pool: PoolConfig { query, max_running, max_waiting, hash_seed: u64::from(seed) },
        network: NetworkConfig {
            request_timeout: bytes.duration(&[9, 1, 3, 4, 6, 8, 10, 11, 15]),
            soft_timeout: bytes.duration(&[7, 1, 3, 4, 5, 8, 10, 15]),
            // Mostly beyond the time-out, where nothing is adapted.
            min_timeout,
            max_in_flight: bytes.of(&[1_000, 1, 2, 3, 7]),
            max_per_node: bytes.of(&[16, 1, 2]),
            max_queued: bytes.of(&[1_000, 0, 1, 2, 5]),
            hash_seed: u64::from(seed),
        },
        table: TableConfig {
            bucket_size: 1 + usize::from(seed % 4),
            max_per_group: 1 + usize::from(seed / 4 % 3),
            max_per_group_in_bucket: 1 + usize::from(seed / 16 % 2),
            max_failures: 1 + usize::from(seed / 64 % 3),
            hash_seed: u64::from(seed),
        },
        routing: RoutingConfig::off(),
        network_size: None,
        ..Config::default()
    }
}

fn step(bytes: &mut Bytes<'_>) -> Step {
    let [kind, a, b, c] = [bytes.byte(), bytes.byte(), bytes.byte(), bytes.byte()];
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
