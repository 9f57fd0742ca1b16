//! Scenarios by name.

use kad_proto::Config;
use kad_proto::sim::{
    Bootstrap, Broadcasts, Build, Churn, Eclipse, Empty, Interarrival, Late, Latency, Length, Link, MadeUp,
    Partition, Party, Scenario, Scheme, Silent, Slow, Sybils, Workload,
};
use std::time::Duration;

/// All of them, and what they are.
pub const NAMES: [&str; 11] = [
    "healthy",
    "under-fire",
    "lossy",
    "publish",
    "join",
    "kill",
    "eclipse",
    "day",
    "ipfs",
    "hostile",
    "partition",
];

/// Nodes that come one by one, know three seeds, and keep their routing tables themselves.
fn growing() -> Scenario {
    Scenario {
        config: Config::default(),
        build: Build::Bootstrap(Bootstrap::default()),
        link: Link { loss: 0.01, ..Link::default() },
        health: Some(Duration::from_secs(10)),
        ..Scenario::default()
    }
}

fn intercontinental() -> Link {
    Link {
        round_trip: Latency::LogNormal { median: Duration::from_millis(120), sigma: 0.7 },
        loss: 0.02,
        duplication: 0.001,
        reordering: 0.01,
        refusal: 0.3,
    }
}

/// The preset of this name.
pub fn named(name: &str) -> Option<Scenario> {
    let minute = Duration::from_secs(60);
    let workload = Workload { pace: Interarrival::Mean(Duration::from_secs(2)), ..Workload::default() };
    let large = Scenario { nodes: 10_000, health: Some(minute), ..Scenario::default() };
    Some(match name {
        "healthy" => Scenario { workload, ..large },
        "under-fire" => Scenario::under_fire(),
        "lossy" => Scenario::lossy(),
        "publish" => Scenario {
            workload: Workload { lookups: 0, ..workload },
            broadcasts: Some(Broadcasts {
                scheme: Scheme::Optimistic { nodes: None },
                pace: Interarrival::Mean(Duration::from_secs(2)),
                ..Broadcasts::default()
            }),
            ..Scenario::under_fire()
        },
        "join" => Scenario { workload: Workload { lookups: 1_000, ..workload }, ..growing() },
        "kill" => Scenario {
            dead: 0.3,
            workload: Workload { lookups: 1_000, ..workload },
            health: Some(minute),
            ..growing()
        },
        "eclipse" => Scenario { sybils: Some(Sybils::default()), workload, ..growing() },
        "day" => Scenario {
            churn: Some(Churn::ipfs()),
            link: intercontinental(),
            workload: Workload { lookups: 1_440, pace: Interarrival::Every(minute), ..workload },
            health: Some(5 * minute),
            ..growing()
        },
        // Shares and lengths in the order of magnitude that crawls of the public network have published: about a
        // third of what stands in routing tables cannot be reached; half of all sessions are shorter than an hour,
        // with a heavy tail; intercontinental round trips.
        "ipfs" => Scenario {
            dead: 0.2,
            nat: 0.1,
            reverse_ping: true,
            slow: Slow { share: 0.1, factor: 5.0 },
            churn: Some(Churn {
                share: 0.7,
                sessions: Length::Weibull { scale: 80 * minute, shape: 0.5 },
                absences: Length::Exponential(30 * minute),
            }),
            link: intercontinental(),
            workload: Workload { lookups: 1_000, deadline: Some(minute), ..workload },
            ..large
        },
        "hostile" => Scenario {
            hostile: vec![
                Party::new(0.04, MadeUp),
                Party::new(0.02, Eclipse),
                Party::new(0.04, Late(Duration::from_secs(1))),
                Party::new(0.05, Empty),
                Party::new(0.05, Silent),
            ],
            link: Link { loss: 0.02, ..Link::default() },
            workload,
            ..large
        },
        "partition" => Scenario {
            partition: Some(Partition::Split { share: 0.3, from: 2 * minute, until: 5 * minute }),
            link: Link { loss: 0.02, ..Link::default() },
            workload: Workload { deadline: Some(minute), ..workload },
            health: Some(minute / 2),
            ..large
        },
        _ => return None,
    })
}
