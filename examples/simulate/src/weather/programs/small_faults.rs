//! T12: five small behaviours of the routing maintenance, each right (1) or wrong (0).
//!
//! Each check contains its control: the same world in which the opposite must happen, so that no engine is right by
//! doing nothing.

use crate::weather::programs::tools::at_least;
use crate::weather::{Figure, Row, Trial};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::maintenance::explore;
use kad_proto::routing::probe;
use kad_proto::{
    Batch, BootstrapConfig, Config, Context, Coordinator, Explore, ExploreConfig, Family, Initiator, Instant,
    Key, Key8, Machine, NetworkConfig, Probe, ProbeConfig, QueryConfig, RequestId, Response, RoutingConfig,
    RoutingInbound, SavedNode, Schedule, Secret, SpanContext, Stamped, Start,
};
use std::collections::VecDeque;
use std::time::Duration;

/// The row.
pub(super) const ROW: Row = Row {
    name: "T12",
    world: "five small faults of the maintenance",
    reached: false,
    in_short: true,
    seeded: false,
    run,
};

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(2);
const LOCAL: Key8 = Key8::new([0]);
const NODE: Key8 = Key8::new([0x80]);

/// A node is its key.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain;

impl Family for Plain {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

type Engine = Coordinator<Plain>;

/// Time-outs that are not adapted, so that they are known beforehand.
fn fixed() -> NetworkConfig {
    NetworkConfig { request_timeout: TIMEOUT, min_timeout: TIMEOUT, ..NetworkConfig::default() }
}

fn engine(routing: RoutingConfig) -> Result<Engine, String> {
    let mut config = Config { network: fixed(), routing, ..Config::default() };
    config.table.max_failures = 1;
    Engine::new(LOCAL, config, &Secret::from_seed(0)).map_err(|error| error.to_string())
}

fn call(
    engine: &mut Engine,
    now: Instant,
    event: impl Into<Stamped<Inbound<Plain>>>,
) -> Batch<Outbound<Plain>> {
    engine.handle(now, event.into())
}

fn connected(node: Key8) -> Inbound<Plain> {
    Inbound::Routing(RoutingInbound::Connected { node, round_trip: None })
}

/// The requests that this initiator made: id and context.
fn requests(out: &Batch<Outbound<Plain>>, is_such: impl Fn(Initiator) -> bool) -> Vec<(RequestId, Context)> {
    let requests = out.iter().filter_map(|stamped| match &stamped.event {
        Outbound::Request(request) if is_such(request.initiator) => {
            Some((request.id, stamped.context.clone()))
        }
        _ => None,
    });
    requests.collect()
}

/// How a node is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not at all.
    Never,
    /// The driver says that it is connected.
    Connected,
    /// It answers a request of a lookup.
    Answer,
}

/// Whether a node is still in the table, without a failure, when its probe has timed out and it was heard of in this
/// way while the probe was in flight.
///
/// # Errors
/// The world is not as it should be: there is no probe.
pub fn survives_its_probe(heard: Heard) -> Result<bool, String> {
    let interval = MINUTE;
    let probe = Some(ProbeConfig { interval, ..ProbeConfig::default() });
    let mut engine = engine(RoutingConfig { probe, ..RoutingConfig::off() })?;
    call(&mut engine, Instant::ORIGIN, connected(NODE));
    let probed = Instant::ORIGIN + interval;
    let out = call(&mut engine, probed, Inbound::Tick);
    if requests(&out, |initiator| initiator == Initiator::Probe).len() != 1 {
        return Err("no probe is in flight".into());
    }
    let between = probed + TIMEOUT / 4;
    match heard {
        Heard::Never => {}
        Heard::Connected => drop(call(&mut engine, between, connected(NODE))),
        Heard::Answer => {
            let out = call(&mut engine, between, Inbound::Start(Start::find(1, NODE)));
            let asked = requests(&out, |initiator| initiator.operation().is_some());
            let (id, _) = asked.first().ok_or("the lookup does not ask the node")?;
            call(&mut engine, between, Inbound::Response(Response::answered(*id, Vec::new())));
        }
    }
    call(&mut engine, probed + TIMEOUT, Inbound::Tick);
    Ok(engine.table().get(&NODE).is_some_and(|entry| entry.failures() == 0))
}

/// Whether the machine `Probe` says that a node was missed, if it was said to be alive while the check was in flight.
fn is_missed(alive: bool) -> Result<bool, String> {
    let machine = Probe::<Plain>::new(LOCAL, &ProbeConfig::default(), fixed(), &Secret::from_seed(0));
    let mut machine = machine.map_err(|error| error.to_string())?;
    let now = Instant::ORIGIN;
    let mut handle = |now, event| machine.handle(now, Stamped::new(event));
    let _ = handle(now, probe::Inbound::Add(NODE));
    let _ = handle(now, probe::Inbound::Suspect(NODE));
    if alive {
        let _ = handle(now + TIMEOUT / 4, probe::Inbound::Alive(NODE));
    }
    let out = handle(now + TIMEOUT, probe::Inbound::Tick);
    Ok(out.iter().any(|stamped| matches!(stamped.event, probe::Outbound::Missed(_))))
}

fn heard_while_probed() -> Result<bool, String> {
    let heard =
        survives_its_probe(Heard::Connected)? && survives_its_probe(Heard::Answer)? && !is_missed(true)?;
    Ok(heard && !survives_its_probe(Heard::Never)? && is_missed(false)?)
}

/// How old a node says to be that was restored with this age, this long after the origin of time.
///
/// # Errors
/// The node is not restored.
pub fn age_read(age: Duration, since_origin: Duration) -> Result<Duration, String> {
    let mut engine = engine(RoutingConfig::off())?;
    let now = Instant::ORIGIN + since_origin;
    let saved = SavedNode { node: NODE, age, round_trip: None };
    call(&mut engine, now, Inbound::Routing(RoutingInbound::Restore(vec![saved])));
    engine.snapshot(now).first().map(|saved| saved.age).ok_or_else(|| "nothing is restored".into())
}

fn restored_age() -> Result<bool, String> {
    let soon = Duration::from_secs(6);
    Ok(age_read(DAY, soon)? == DAY && age_read(30 * DAY, soon)? == 30 * DAY && age_read(soon, DAY)? == soon)
}

#[allow(clippy::default_trait_access)] // the types are not of this crate's dependencies
fn span() -> SpanContext {
    SpanContext::new(1_u128.into(), 1_u64.into(), Default::default(), false, Default::default())
}

/// Whether all requests of the bootstrap that begins in the call of this event have a link to the event.
fn bootstrap_links_to(event: RoutingInbound<Plain>) -> Result<bool, String> {
    let bootstrap = Some(BootstrapConfig::default());
    let mut engine = engine(RoutingConfig { bootstrap, ..RoutingConfig::off() })?;
    let event = Stamped::new(Inbound::Routing(event)).in_span(span());
    let out = call(&mut engine, Instant::ORIGIN, event);
    let requests = requests(&out, |initiator| initiator == Initiator::Bootstrap);
    if requests.is_empty() {
        return Err("no bootstrap begins".into());
    }
    Ok(requests.iter().all(|(_, context)| *context == Context::Link(span())))
}

fn bootstrap_link() -> Result<bool, String> {
    let saved = SavedNode { node: NODE, age: MINUTE, round_trip: None };
    let events = [
        RoutingInbound::Seeds(vec![NODE]),
        RoutingInbound::Restore(vec![saved]),
        RoutingInbound::Connected { node: NODE, round_trip: None },
    ];
    let links: Result<Vec<_>, _> = events.into_iter().map(bootstrap_links_to).collect();
    Ok(links?.into_iter().all(|linked| linked))
}

/// How often each of the eight buckets, each with one node, is refreshed in so many refreshes without a pause, if every
/// answer takes `round_trip`.
///
/// # Errors
/// The configuration is not valid, or the machine stops.
pub fn refreshes(count: usize, round_trip: Duration) -> Result<[u32; 8], String> {
    let config = ExploreConfig { schedule: Schedule::NoWait, max_cpl: 7, ..ExploreConfig::default() };
    let machine =
        Explore::<Plain>::new(LOCAL, config, QueryConfig::default(), fixed(), &Secret::from_seed(0));
    let mut machine = machine.map_err(|error| error.to_string())?;
    let mut now = Instant::ORIGIN;
    let mut events: VecDeque<_> = (0..8).map(|cpl| explore::Inbound::Add(LOCAL.with_flipped(cpl))).collect();
    let (mut explored, mut total) = ([0; 8], 0);
    while total < count {
        let event = events.pop_front().ok_or("the refreshes stop")?;
        for stamped in machine.handle(now, Stamped::new(event)) {
            match stamped.event {
                explore::Outbound::Request(request) => {
                    events.push_back(explore::Inbound::Response(Response::answered(request.id, Vec::new())));
                }
                explore::Outbound::Explored { cpl, .. } => {
                    total += 1;
                    if let Some(explored) = explored.get_mut(cpl as usize) {
                        *explored += 1;
                    }
                }
                explore::Outbound::Cancel(_) => {}
            }
        }
        now = now + round_trip;
    }
    Ok(explored)
}

fn no_wait() -> Result<bool, String> {
    // While the clock stands, and while it moves. The first refresh began when there was one node.
    let even =
        |of: [u32; 8]| of.iter().min().zip(of.iter().max()).is_some_and(|(least, most)| most - least <= 1);
    Ok(even(refreshes(64, Duration::ZERO)?) && even(refreshes(64, Duration::from_nanos(1))?))
}

/// When the only bucket is due first: after `interval`, and a random time of at most `jitter` hundredths of it.
fn first_due(
    interval: Duration,
    multiplier: u32,
    jitter: u32,
    max_cpl: u32,
    seed: u64,
) -> Result<Option<Instant>, String> {
    let schedule = Schedule::Dynamic { interval, multiplier, jitter };
    let config = ExploreConfig { schedule, max_cpl, ..ExploreConfig::default() };
    let machine =
        Explore::<Plain>::new(LOCAL, config, QueryConfig::default(), fixed(), &Secret::from_seed(seed));
    let mut machine = machine.map_err(|error| error.to_string())?;
    let _ = machine.handle(Instant::ORIGIN, Stamped::new(explore::Inbound::Add(NODE)));
    Ok(machine.poll_timeout())
}

/// The mean over 64 seeds of the random share of the first due time, of at most 1; 1/2 if it is right. `None` if a share
/// is outside 0 to 1.
fn mean_share(interval: u64, jitter: u32) -> Result<Option<f64>, String> {
    let most = interval as f64 * f64::from(jitter) / 100.0;
    let mut sum = 0.0;
    for seed in 0..64 {
        let due = first_due(Duration::from_nanos(interval), 0, jitter, 0, seed)?;
        let Some(extra) = due.and_then(|due| due.as_nanos().checked_sub(interval)) else { return Ok(None) };
        let share = extra as f64 / most;
        if share > 1.0 {
            return Ok(None);
        }
        sum += share;
    }
    Ok(Some(sum / 64.0))
}

fn jitter() -> Result<bool, String> {
    let is_half = |share: Option<f64>| share.is_some_and(|share| (0.35..=0.65).contains(&share));
    // A product of 2^60 ns, 700 hundredths and 64 random bits does not fit into 128 bits.
    let far = mean_share(1 << 60, 700)?;
    let near = mean_share(1_000_000_000, 10_000)?;
    let never = first_due(Duration::MAX, 10_000, 10_000, 1_023, 0)?.is_none()
        && first_due(Duration::from_nanos(u64::MAX), 10_000, 10_000, 7, 1)?.is_none();
    Ok(is_half(far) && is_half(near) && never)
}

type Check = fn() -> Result<bool, String>;

fn run(_: Trial) -> Result<Vec<Figure>, String> {
    let checks: [(_, Check); 5] = [
        ("heard of while probed", heard_while_probed),
        ("restored age", restored_age),
        ("link of a bootstrap", bootstrap_link),
        ("refreshes without a pause", no_wait),
        ("jitter at the extremes", jitter),
    ];
    let figure = |(name, check): (&str, Check)| Ok(at_least(name, f64::from(u8::from(check()?)), 1.0));
    checks.into_iter().map(figure).collect()
}
