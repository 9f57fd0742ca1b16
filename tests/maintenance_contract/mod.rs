//! The contract of the routing maintenance over any bytes, for [`Maintenance`](kad_proto::Maintenance) alone and
//! inside the coordinator. The property tests, the fuzz targets and the replay of their corpora share it:
//! [`run_scenario`] decodes bytes into steps and plays them.
//!
//! - [`family`]: the types of the network.
//! - [`machine_under_test`]: the two machines behind one trait.
//! - [`checker`]: what must hold after every call, besides the contract of all machines.

#![allow(dead_code)] // each user of it uses a part of it

pub(crate) mod checker;
pub(crate) mod family;
pub(crate) mod machine_under_test;

use checker::MaintenanceChecker;
#[allow(unused_imports)] // as above
pub(crate) use family::{Grouped, LOCAL, REFUSED, S, node, span};
use kad_proto::coordinator::Inbound;
use kad_proto::{
    BootstrapConfig, Config, ExploreConfig, IncludeConfig, NetworkConfig, PoolConfig, ProbeConfig,
    QueryConfig, Response, RoutingConfig, RoutingInbound, Schedule, Stamped, Start, TableConfig,
};
use machine_under_test::MaintainsTable;
use std::collections::BTreeMap;
use std::time::Duration;

/// The answer of a node, by its key: a fixed share of the keys does not answer at all, and another names no nodes.
pub(crate) fn answer_of(key: u8, salt: u8) -> Option<Vec<u8>> {
    match key.wrapping_mul(37) ^ salt {
        0..=79 => None,
        80..=99 => Some(Vec::new()),
        other => Some((0..20).map(|i| other.wrapping_mul(i).wrapping_add(key)).collect()),
    }
}

/// The limits of every scenario.
pub(crate) const BUCKET_SIZE: usize = 4;
pub(crate) const MAX_CHECKS: u64 = 3;
pub(crate) const MAX_QUEUED: u64 = 5;
pub(crate) const MIN_NODES: usize = 3;
pub(crate) const MAX_CLIENTS: usize = 3;
/// Time-outs of a request and of an operation.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

fn config(seed: u8) -> Config {
    let bits = |shift: u32, below: u8| usize::from(seed.rotate_right(shift) % below);
    let table = TableConfig {
        bucket_size: BUCKET_SIZE,
        max_failures: 1 + usize::from(seed % 3),
        ..TableConfig::default()
    };
    let include = IncludeConfig { max_queued: MAX_QUEUED as usize, ..IncludeConfig::default() };
    let probe =
        ProbeConfig { interval: S * 7, retry_interval: S * 2, timeout: S * 3, ..ProbeConfig::default() };
    let schedule = if seed.is_multiple_of(5) {
        Schedule::NoWait
    } else {
        Schedule::Dynamic { interval: S * 20, multiplier: 50, jitter: 20 }
    };
    let explore = ExploreConfig { schedule, max_cpl: 20, timeout: S * 9 };
    let bootstrap = BootstrapConfig {
        min_nodes: MIN_NODES,
        retry_interval: S * 4,
        max_retry_interval: S * 30,
        timeout: S * 6,
        max_seeds: 4,
        max_lost: 4,
        return_interval: S * 5,
    };
    let routing = RoutingConfig {
        bootstrap: Some(bootstrap),
        include: Some(include),
        probe: Some(probe),
        explore: Some(explore),
        max_clients: MAX_CLIENTS,
    };
    let network = NetworkConfig {
        request_timeout: REQUEST_TIMEOUT,
        // In half of the scenarios time-outs are not adapted.
        min_timeout: if bits(3, 2) == 0 { S / 4 } else { REQUEST_TIMEOUT },
        max_in_flight: 2 + usize::from(seed % 7),
        max_per_node: 1 + usize::from(seed % 2),
        max_queued: usize::from(seed % 4),
        ..NetworkConfig::default()
    };
    let pool = PoolConfig { max_running: 1 + bits(5, 4), max_waiting: 2, ..PoolConfig::default() };
    let query = QueryConfig { timeout: OPERATION_TIMEOUT, ..QueryConfig::default() };
    Config { query, pool, network, table, routing, network_size: None, ..Config::default() }
}

/// Plays the scenario that the bytes encode: a seed of the configuration, then two bytes for each step. Returns
/// how often each situation occurred.
pub(crate) fn run_scenario<M: MaintainsTable>(bytes: &[u8]) -> BTreeMap<&'static str, u64> {
    let (seed, steps) = bytes.split_first().map_or((0, bytes), |(seed, steps)| (*seed, steps));
    let mut checker = MaintenanceChecker::<M>::new(config(seed), seed.into());
    let mut tag = 0;
    for (number, step) in steps.chunks_exact(2).enumerate() {
        let (what, argument) = (step[0], step[1]);
        // In some scenarios nothing is heard of anybody from some time on, and in some many nodes go: in those without
        // models of lookups, which know nothing of that.
        let (falls_silent, many_go) = (seed % 8 == 1 && number > 40, seed % 8 == 4);
        let target = node(argument);
        let open = checker.request_in_flight(argument);
        let seeds = vec![node(argument ^ 0x55)];
        let event = match (what % 16, open) {
            (2 | 3 | 5 | 6 | 8 | 10..=12, _) if falls_silent => Inbound::Tick,
            (4 | 5, _) if many_go => {
                Inbound::Routing(RoutingInbound::Gone(checker.member(argument).unwrap_or(target)))
            }
            (0, _) if M::HAS_LOOKUPS => {
                tag += 1;
                Inbound::Start(Start::find(tag, target).with_seeds(seeds))
            }
            (0 | 1, _) => {
                // Sometimes the tag of the previous start, which may be in use.
                tag += u64::from(argument % 8 != 0);
                Inbound::Start(Start::bootstrap(tag, LOCAL, vec![target]))
            }
            (2, _) => Inbound::Routing(RoutingInbound::Discovered(target)),
            (3, _) => {
                let round_trip = argument.is_multiple_of(8).then(|| S / 20);
                Inbound::Routing(RoutingInbound::Connected { node: target, round_trip })
            }
            (4, _) => Inbound::Routing(RoutingInbound::Disconnected(target)),
            (5, _) if argument < 32 => Inbound::Routing(RoutingInbound::Client(target)),
            (5, _) if argument < 64 => Inbound::Routing(RoutingInbound::Server(target)),
            (5, _) if argument < 96 => Inbound::Routing(RoutingInbound::Gone(target)),
            (5, _) if argument < 160 && checker.allows_bans() => {
                let duration = S * u32::from(argument % 8);
                Inbound::Routing(RoutingInbound::Banned { node: target, duration })
            }
            (6, _) if argument < 16 => Inbound::Routing(RoutingInbound::LinkDown),
            (6, _) if argument < 64 => Inbound::Routing(RoutingInbound::LinkUp),
            (6, _) => Inbound::Routing(RoutingInbound::Seeds(vec![target])),
            (7, _) => Inbound::Routing(RoutingInbound::Restore(checker.snapshot())),
            (8, Some((request, _))) => Inbound::Response(match argument % 5 {
                0 => Response::unreachable(request),
                1 => Response::connection_refused(request),
                2 => Response::gone(request),
                _ => Response::failed(request),
            }),
            (9, _) if tag > 0 => checker.operation(tag).map_or(Inbound::Tick, Inbound::Stop),
            (10..=12, Some((request, asked))) => match answer_of(asked.as_bytes()[0], seed) {
                Some(closer) => {
                    let closer: Vec<_> = closer.into_iter().map(node).collect();
                    Inbound::Response(match argument % 6 {
                        // More may follow, or not.
                        0 => Response::part(request, closer),
                        1 => Response::answered(request, closer).after_dial(),
                        _ => Response::answered(request, closer),
                    })
                }
                None => Inbound::Tick,
            },
            (13, _) => {
                // The next call is late for what is due by then.
                checker.advance(S / 50 * u32::from(argument));
                continue;
            }
            _ => {
                checker.advance_to_wake_up();
                continue;
            }
        };
        let mut event = Stamped::new(event);
        if !argument.is_multiple_of(7) {
            event = event.in_span(span(u64::from(argument) + 1));
        }
        if argument.is_multiple_of(3) {
            event = event.with_deadline(checker.now() + S / 4 * u32::from(argument));
        }
        checker.handle_event(event);
    }
    checker.finish()
}
