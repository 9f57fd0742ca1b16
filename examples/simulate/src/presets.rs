//! Scenarios by name.

use kad_proto::Config;
use kad_proto::sim::{
    Bootstrap, Broadcasts, Build, Churn, Dial, Eclipse, Empty, Interarrival, Late, Latency, Length, Link,
    MadeUp, Partition, Party, Scenario, Scheme, Silent, Sybils, Workload,
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
        dial: None,
    }
}

/// The servers of the public IPFS network, the Amino DHT, which keep their tables themselves. What is published, and what
/// is assumed where nothing is:
///
/// * **Unreachable.** Of 20,811 peers that a crawl found in routing tables, 15,371 could be reached (mean of 28 crawls, April
///   2022; `ProbeLab`, RFM 19, "DHT Routing Table Health"): 26.1 % could not, because they were offline or hidden behind a
///   NAT or a firewall. The ideal tables of the beginning hold that share. In the tables themselves it is less, as
///   they are kept: 3.8 % of the bucket of prefix length 0, around 15 % of those that are not full; 61 % of the nodes know
///   all of their 20 closest, 95.2 % at least 18. A maintained network should come near these.
/// * **Hidden** (`nat`). How many of the 26.1 % are hidden is not published: 10 % is an assumption. (52.19 % of all nodes,
///   Henningsen et al., "Mapping the Interplanetary Filesystem", IFIP Networking 2020, was measured before clients left the
///   tables.) None is dead for good.
/// * **Sessions**: [`Churn::ipfs`], by Trautwein et al., "Design and Evaluation of IPFS", SIGCOMM 2022.
/// * **Absences**: only plots of the time from one start to the next are published (`ProbeLab`, RFM 2). A mean of one hour
///   makes the share that is offline what is left of the 26.1 %.
/// * **Snapshots**: none. Kubo saves no routing table; since 0.21 it saves some peers to bootstrap from.
/// * **Round trips**: no distribution is published. The mean time to connect to a provider, 0.579 s (RFM 7, with six regions
///   of the world asking), is that of four round trips of 145 ms. A median of 120 ms and a sigma of 0.7 have a mean
///   of 153 ms. The time of a walk is published for comparison: 0.622 s until a record is found, by 1.74 hops (RFM 7;
///   SIGCOMM 2022).
/// * **Loss, refusals**: nothing is published, as libp2p runs over reliable streams. 2 % and 30 % are assumptions.
///
/// Lookups begin after half an hour, in which the tables lose what is dead in them.
fn ipfs(large: Scenario, workload: Workload) -> Scenario {
    let minute = Duration::from_secs(60);
    Scenario {
        config: Config::default(),
        nat: 0.1,
        churn: Some(Churn { absences: Length::Exponential(60 * minute), ..Churn::ipfs() }),
        link: Link { dial: Some(Dial::default()), ..intercontinental() },
        workload: Workload { lookups: 1_000, first: 30 * minute, deadline: Some(minute), ..workload },
        nodes: 2_000,
        ..large
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
        "eclipse" => Scenario { sybils: vec![Sybils::default()], workload, ..growing() },
        "day" => Scenario {
            churn: Some(Churn::ipfs()),
            link: intercontinental(),
            workload: Workload { lookups: 1_440, pace: Interarrival::Every(minute), ..workload },
            health: Some(5 * minute),
            ..growing()
        },
        "ipfs" => ipfs(large, workload),
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
            config: Config::default(),
            partition: Some(Partition::Split { share: 0.3, from: 2 * minute, until: 5 * minute }),
            link: Link { loss: 0.02, ..Link::default() },
            workload: Workload { deadline: Some(minute), ..workload },
            health: Some(minute / 2),
            ..large
        },
        _ => return None,
    })
}
