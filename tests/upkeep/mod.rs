//! The rules of the routing maintenance over any bytes: what the property test, the fuzz target and the replay of its
//! corpus share.

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::explore::Schedule;
use kad_proto::{
    BootstrapConfig, Config, Context, Coordinator, ExploreConfig, Family, IncludeConfig, Instant, Key8,
    Machine, NetworkConfig, Owner, ProbeConfig, RequestId, RoutingConfig, SpanContext, Stamped, Start,
    TableConfig,
};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::collections::BTreeMap;
use std::time::Duration;

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

/// Plays the scenario that the bytes are: a seed of the configuration, then two bytes for each step. Says how often each
/// thing happened.
pub(crate) fn soak(bytes: &[u8]) -> BTreeMap<&'static str, u64> {
    let (seed, steps) = bytes.split_first().map_or((0, bytes), |(seed, steps)| (*seed, steps));
    let table =
        TableConfig { bucket_size: 4, max_failures: 1 + usize::from(seed % 3), ..TableConfig::default() };
    let include = IncludeConfig { max_queued: 5, ..IncludeConfig::default() };
    let probe =
        ProbeConfig { interval: S * 7, retry_interval: S * 2, timeout: S * 3, ..ProbeConfig::default() };
    let schedule = if seed.is_multiple_of(5) {
        Schedule::NoWait
    } else {
        Schedule::Dynamic { interval: S * 20, multiplier: 50, jitter: 20 }
    };
    let explore = ExploreConfig { schedule, max_cpl: 20, timeout: S * 9 };
    let bootstrap = BootstrapConfig { min_nodes: 3, retry_interval: S * 4, timeout: S * 6, max_seeds: 4 };
    let routing = RoutingConfig {
        bootstrap: Some(bootstrap),
        include: Some(include),
        probe: Some(probe),
        explore: Some(explore),
        max_clients: 3,
        seed: seed.into(),
    };
    let network = NetworkConfig {
        max_in_flight: 2 + usize::from(seed % 7),
        max_per_node: 1 + usize::from(seed % 2),
        max_queued: usize::from(seed % 4),
        ..NetworkConfig::default()
    };
    let most = network.max_in_flight as u64;
    let config = Config { network, table, routing, ..Config::default() };
    let mut machine = Coordinator::<Tiny>::new(LOCAL, config).unwrap();
    let (mut now, mut open, mut tally) = (at(1), BTreeMap::new(), BTreeMap::new());
    let mut tag = 0;
    for step in steps.chunks_exact(2) {
        let (what, argument) = (step[0], step[1]);
        let target = node(argument);
        let first = open.iter().nth(usize::from(argument) % open.len().max(1));
        let first: Option<(RequestId, Key8)> = first.map(|(id, (node, _))| (*id, *node));
        let mut advance = false;
        let event = match (what % 16, first) {
            (0, _) => {
                tag += 1;
                let start = Start::find(tag, target).with_seeds(vec![node(argument ^ 0x55)]);
                Inbound::Start(start)
            }
            (1, _) => {
                tag += 1;
                Inbound::Start(Start::bootstrap(tag, LOCAL, vec![target]))
            }
            (2, _) => Inbound::Discovered(target),
            (3, _) => Inbound::Connected { node: target, round_trip: None },
            (4, _) => Inbound::Disconnected(target),
            (5, _) if argument < 32 => Inbound::Client(target),
            (6, _) => Inbound::Seeds(vec![target]),
            (7, _) => Inbound::Restore(machine.snapshot(now)),
            (8, Some((request, _))) => Inbound::Failed(request),
            (9, _) if tag > 0 => machine.operation(tag).map_or(Inbound::Tick, Inbound::Stop),
            (10..=12, Some((request, asked))) => match reply(asked.as_bytes()[0], seed) {
                Some(closer) => Inbound::Answered { request, closer: closer.into_iter().map(node).collect() },
                None => Inbound::Tick,
            },
            _ => {
                advance = true;
                Inbound::Tick
            }
        };
        if advance && let Some(wake) = machine.poll_timeout() {
            assert!(wake > now, "nothing that is due is left undone");
            // Not earlier, not later.
            let mut early = machine.clone();
            let just_before = Instant::from_nanos(wake.as_nanos() - 1);
            assert!(early.handle(just_before, Stamped::new(Inbound::Tick)).is_empty());
            assert_eq!(early.poll_timeout(), Some(wake));
            now = wake;
        }
        if let Inbound::Answered { request, .. } | Inbound::Failed(request) = &event {
            open.remove(request);
        }
        let stamp = span(u64::from(argument) + 1);
        for Stamped { event, context, deadline } in machine.handle(now, Stamped::new(event).in_span(stamp)) {
            let (owner, named) = match &event {
                Outbound::Request(request) => {
                    let deadline = deadline.unwrap();
                    assert!(deadline > now && deadline <= now + S * 2, "until {deadline}");
                    open.insert(request.id, (request.node, deadline));
                    (Some(request.owner), "request")
                }
                Outbound::Cancel(cancel) => {
                    assert!(open.remove(&cancel.id).is_some(), "one cancel, of what is in flight");
                    (Some(cancel.owner), "cancel")
                }
                Outbound::Admitted(_) => (None, "admitted"),
                Outbound::Removed(_) => (None, "removed"),
                Outbound::NearEmpty { .. } => (None, "near empty"),
                Outbound::Bootstrapped(_) => (None, "bootstrapped"),
                _ => continue,
            };
            *tally.entry(named).or_insert(0) += 1;
            if let Some(owner) = owner.filter(|owner| owner.operation().is_none()) {
                *tally
                    .entry(match owner {
                        Owner::Include => "include",
                        Owner::Probe => "probe",
                        Owner::Explore => "explore",
                        _ => "bootstrap",
                    })
                    .or_insert(0) += 1;
            }
            if owner.is_none_or(|owner| owner.operation().is_none()) {
                assert!(matches!(context, Context::Link(_)), "context 4: {event:?} {context:?}");
                assert!(deadline.is_none() || named == "request", "context 4: no deadline: {event:?}");
            }
        }
        assert!(open.values().all(|(_, deadline)| *deadline > now), "every check ends by its time-out");
        let (traffic, counts) = (machine.traffic(), machine.routing());
        let ended = traffic.answered + traffic.failed + traffic.timed_out + traffic.cancelled;
        assert_eq!(traffic.sent, ended + traffic.in_flight);
        assert_eq!(traffic.in_flight, open.len() as u64);
        assert!(traffic.in_flight <= most);
        assert!(counts.include.in_flight <= 3 && counts.probe.in_flight <= 3 && counts.include.queued <= 5);
        let include = counts.include;
        let dropped = include.duplicate + include.dropped + include.shunned + include.unwanted;
        let known = dropped + include.passed + include.failed;
        assert_eq!(include.offered, known + include.in_flight + include.queued);
        assert_eq!(counts.probe.nodes, machine.table().len() as u64);
        for record in machine.table().iter() {
            assert_eq!(machine.probes(record.node()), Some(true));
            assert!(*record.node() != node(REFUSED) && *record.node() != LOCAL);
        }
        assert!((0..8).all(|cpl| machine.table().bucket(cpl).len() <= 4));
        assert!(machine.poll_timeout().is_none_or(|wake| wake > now));
    }
    tally
}
