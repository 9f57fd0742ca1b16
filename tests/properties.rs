//! The contract as properties over random scenarios: see [`random_world`].

#![cfg(feature = "proptest")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod random_world;

use kad_proto::NetworkSizeConfig;
use kad_proto::testing::strategies::explore;
use random_world::{MachineKind, Scenario, run};

/// How many times fewer cases an unoptimised build runs; `.ci/deep` runs all of them.
const FEWER: u32 = if cfg!(debug_assertions) { 3 } else { 1 };

/// How many times more cases are asked for, by the environment variable `KAD_TIMES`.
fn more() -> u32 {
    std::env::var("KAD_TIMES").map_or(1, |times| times.parse().unwrap())
}

/// Runs random but fixed scenarios, and checks that each expected situation occurs at least ten times, or three times in
/// an unoptimised build.
fn scenarios(kind: MachineKind, cases: u32, expected: &[&str]) {
    altered_scenarios(kind, cases, |_| {}, expected);
}

/// The same with scenarios that are altered.
fn altered_scenarios(kind: MachineKind, cases: u32, alter: impl Fn(&mut Scenario), expected: &[&str]) {
    let tally = explore(kind, cases * more() / FEWER, |scenario| {
        let mut scenario = scenario.clone();
        alter(&mut scenario);
        run(&scenario)
    });
    let tally = tally.unwrap_or_else(|error| panic!("{error}"));
    println!("{tally:#?}");
    for what in expected {
        assert!(
            tally.get(what).is_some_and(|count| *count >= u64::from(10 / FEWER)),
            "hardly ever seen: {what}: {tally:?}"
        );
    }
}

const OF_A_QUERY: [&str; 27] = [
    "started",
    "refused: full",
    "refused: deadline passed",
    "refused: number of results",
    "refused: quorum",
    "request",
    "request: message",
    "cancel: timed out",
    "cancel: operation ended",
    "cancel: superseded",
    "request: edge probe",
    "progress: answered",
    "progress: failed",
    "progress: rejected",
    "request: again",
    "late",
    "outcome: converged",
    "outcome: exhausted",
    "outcome: node limit",
    "outcome: deadline exceeded",
    "outcome: stopped",
    "outcome: quorum",
    "values: some to correct",
    "values: older",
    "values: invalid",
    "values: valid beside invalid",
    "values: newer than what the caller holds",
];
const OF_A_POOL: [&str; 4] =
    ["refused: tag in use", "waits for a place to run", "queued", "finish: exact model of several results"];
const OF_A_COORDINATOR: [&str; 2] = ["admitted", "removed"];

#[test]
fn a_query_keeps_the_contract() {
    scenarios(MachineKind::Query, 400, &OF_A_QUERY);
}

#[test]
fn a_pool_keeps_the_contract() {
    scenarios(MachineKind::Pool, 400, &[&OF_A_QUERY[..], &OF_A_POOL].concat());
}

#[test]
fn a_coordinator_keeps_the_contract() {
    scenarios(MachineKind::Coordinator, 400, &[&OF_A_QUERY[..], &OF_A_POOL, &OF_A_COORDINATOR].concat());
}

const OF_A_CRAWL: [&str; 31] = [
    "started",
    "refused: tag in use",
    "refused: full",
    "refused: deadline passed",
    "crawl: request",
    "crawl: request in turn",
    "crawl: repeated",
    "crawl: unsure",
    "crawl: all slots",
    "crawl: progress",
    "crawl: rejected",
    "crawl: left out",
    "crawl: complete, several nodes",
    "crawl: node limit",
    "crawl: partial results",
    "crawl: cut off with requests in flight",
    "crawl: some unreachable",
    "crawl: some unknown",
    "crawl: as many nodes with one key as are kept",
    "crawl: a node answered and then failed",
    "crawl: edge limit",
    "crawl: hop above 3",
    "crawl: no node to ask",
    "outcome: deadline exceeded",
    "outcome: stopped",
    "outcome: complete",
    "cancel: timed out",
    "late",
    "forged",
    "queued",
    "waits for a place to run",
];
/// Lookups beside the crawls, and the checks of the routing maintenance.
const BESIDE_A_CRAWL: [&str; 8] = [
    "request",
    "outcome: converged",
    "outcome: exhausted",
    "admitted",
    "removed",
    "side effect: request",
    "side effect: response",
    "side effect: timed out",
];

#[test]
fn a_crawl_keeps_the_contract() {
    scenarios(MachineKind::Crawl, 500, &[&OF_A_CRAWL[..], &BESIDE_A_CRAWL].concat());
}

const OF_A_BROADCAST: [&str; 53] = [
    "started",
    "refused: tag in use",
    "refused: full",
    "refused: deadline passed",
    "refused: records",
    "refused: nodes",
    "broadcast: follow-up",
    "broadcast: static",
    "broadcast: optimistic",
    "broadcast: sweep",
    "broadcast: fell back to a follow-up",
    "broadcast: succeeded",
    "broadcast: did not succeed",
    "broadcast: exact model of several stores",
    "broadcast: the lookup's share ran out",
    "broadcast: the lookup's share ran out, and it stored",
    "broadcast: returned early",
    "broadcast: returned early, no room in the background",
    "broadcast: stopped during the lookup",
    "broadcast: stopped while storing",
    "broadcast: lookup request",
    "broadcast: progress of a lookup",
    "broadcast: progress of a store",
    "store: sent",
    "store: expected by an exact model",
    "store: with a token",
    "store: stored",
    "store: failed",
    "store: rejected",
    "store: timed out",
    "store: cancelled",
    "store: unsent",
    "store: in the background",
    "sweep: explored",
    "sweep: allotted",
    "sweep: several lookups at once",
    "background: store sent",
    "background: store timed out",
    "background: store cancelled",
    "background: lookup request",
    "background: lookup timed out",
    "background: lookup cancelled",
    "background: superseded",
    "background: response",
    "cancel: by its operation",
    "cancel: superseded",
    "outcome: complete",
    "outcome: deadline exceeded",
    "outcome: stopped",
    "late",
    "forged",
    "queued",
    "waits for a place to run",
];
/// Lookups beside the broadcasts, their size estimates, and the checks of the routing maintenance.
const BESIDE_A_BROADCAST: [&str; 9] = [
    "request",
    "outcome: converged",
    "outcome: exhausted",
    "admitted",
    "removed",
    "network size",
    "side effect: request",
    "side effect: response",
    "side effect: timed out",
];

#[test]
fn a_broadcast_keeps_the_contract() {
    scenarios(MachineKind::Broadcast, 800, &[&OF_A_BROADCAST[..], &BESIDE_A_BROADCAST].concat());
}

/// Without progress events the checker sees the ends of requests by their responses and cancels alone.
#[test]
fn machines_without_progress_keep_the_contract() {
    let silent = |scenario: &mut Scenario| scenario.config.pool.progress = false;
    let lookups =
        ["started", "outcome: converged", "outcome: quorum", "cancel: timed out", "admitted", "removed"];
    altered_scenarios(MachineKind::Coordinator, 200, silent, &lookups);
    let stores =
        ["store: stored", "store: failed", "store: timed out", "sweep: allotted", "background: response"];
    altered_scenarios(MachineKind::Broadcast, 300, silent, &stores);
}

/// Sybils stand next to the target of each operation: they hide, lie, replay old values, refuse, or are silent. None of their
/// values ends a search or counts, none of them is to be corrected for a lie, and no bound is exceeded.
#[test]
fn the_contract_holds_under_attack() {
    let attacked = |scenario: &mut Scenario| {
        scenario.sybils = 2 + scenario.seed as usize % 24;
        let query = &mut scenario.config.query;
        (query.regions, query.region_bound) = (true, query.region_bound.max(2));
        scenario.config.broadcast.regions = true;
        scenario.config.network_size.get_or_insert_with(|| NetworkSizeConfig {
            k: scenario.config.query.k.min(3),
            min_samples: 2,
            ..NetworkSizeConfig::default()
        });
    };
    let searches = [
        "values: some to correct",
        "values: older",
        "values: invalid",
        "values: valid beside invalid",
        "outcome: quorum",
        "outcome: converged",
        "outcome: node limit",
        "progress: rejected",
    ];
    altered_scenarios(MachineKind::Query, 400, attacked, &searches);
    let seen = [&searches[..], &["network size", "region: asked beyond the k closest"]].concat();
    altered_scenarios(MachineKind::Coordinator, 400, attacked, &seen);
    let stores = [
        "store: stored",
        "store: rejected",
        "store: timed out",
        "sweep: allotted",
        "network size",
        "region: asked beyond the k closest",
    ];
    altered_scenarios(MachineKind::Broadcast, 400, attacked, &stores);
}

/// Without models, as the simulator has it, every scenario passes as well.
#[test]
fn the_contract_without_models_allows_what_machines_do() {
    let bare = |scenario: &mut Scenario| scenario.models = false;
    let both = |scenario: &mut Scenario| (scenario.models, scenario.config.pool.progress) = (false, false);
    let ends = ["started", "cancel: operation ended", "cancel: timed out"];
    altered_scenarios(MachineKind::Coordinator, 100, bare, &ends);
    altered_scenarios(MachineKind::Crawl, 50, bare, &ends);
    altered_scenarios(MachineKind::Broadcast, 150, bare, &ends);
    altered_scenarios(MachineKind::Broadcast, 150, both, &ends);
}

/// The network machine against the simplest model of it: a list that is searched.
mod network {
    use super::random_world::{Net, Peer};
    use kad_proto::requests::network::{End, Inbound, Outbound};
    use kad_proto::{
        Bits, Context, Instant, Machine, Network, NetworkConfig, RequestId, Stamped, SubmitRefusal,
    };
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use proptest::prelude::*;
    use std::time::Duration;

    type Out = Stamped<Outbound<Net<1>>>;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// With a deadline this much later, if it is not zero.
        Submit {
            node: u8,
            deadline: u64,
            valid: bool,
        },
        Withdraw(usize),
        Answered(usize),
        Failed(usize),
        Advance(u64),
    }

    #[derive(Clone, Debug)]
    struct Entry {
        id: RequestId,
        tag: u64,
        own: SpanContext,
        node: Peer<1>,
        until: Instant,
        /// When it fails, whether it waits or is sent.
        deadline: Instant,
        sent: bool,
    }

    struct List {
        config: NetworkConfig,
        now: Instant,
        /// Live requests, in order of arrival.
        entries: Vec<Entry>,
        out: Vec<Out>,
    }

    impl List {
        fn say(&mut self, event: Outbound<Net<1>>, context: SpanContext, deadline: Option<Instant>) {
            self.out.push(Stamped { event, context: Context::Parent(context), deadline });
        }

        fn end(&mut self, place: usize, end: End, cause: Option<&SpanContext>) {
            let Entry { id: request, tag, own, node, until, sent, .. } = self.entries.remove(place);
            let context = cause.filter(|span| span.is_valid()).unwrap_or(&own).clone();
            if sent && matches!(end, End::TimedOut | End::Withdrawn) {
                self.say(Outbound::Cancel { tag, request }, context.clone(), Some(until));
            }
            self.say(Outbound::Ended { tag, request, node, end }, context, Some(until));
        }

        /// Of all that have room, the one with the earliest deadline is sent first, then in order of arrival.
        fn release(&mut self) {
            loop {
                let in_flight = self.entries.iter().filter(|entry| entry.sent);
                let room = |node: Peer<1>| {
                    in_flight.clone().filter(|entry| entry.node.key == node.key).count()
                        < self.config.max_per_node
                };
                let waiting =
                    self.entries.iter().enumerate().filter(|(_, entry)| !entry.sent && room(entry.node));
                let next =
                    waiting.min_by_key(|(place, entry)| (entry.deadline, *place)).map(|(place, _)| place);
                let Some(place) = next.filter(|_| in_flight.count() < self.config.max_in_flight) else {
                    return;
                };
                let entry = &mut self.entries[place];
                entry.sent = true;
                entry.deadline = entry.until.min(self.now + self.config.request_timeout);
                let Entry { id: request, tag, own, node, deadline, .. } = entry.clone();
                self.say(Outbound::Send { tag, request, node, message: tag }, own, Some(deadline));
            }
        }

        fn elapse(&mut self, now: Instant) {
            self.now = self.now.max(now);
            while let Some(place) = self.entries.iter().position(|entry| entry.deadline <= self.now) {
                let end = if self.entries[place].sent { End::TimedOut } else { End::Unsent };
                self.end(place, end, None);
            }
            self.release();
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..6_u8, 0..40_u64, any::<bool>()).prop_map(|(node, deadline, valid)| Step::Submit { node, deadline, valid }),
            1 => (0..8_usize).prop_map(Step::Withdraw),
            2 => (0..8_usize).prop_map(Step::Answered),
            1 => (0..8_usize).prop_map(Step::Failed),
            2 => (0..12_u64).prop_map(Step::Advance),
        ]
    }

    fn sorted(out: &[Out]) -> Vec<Out> {
        let mut out = out.to_vec();
        out.sort_by_key(|out| match &out.event {
            // The order of requests that time out together is unspecified.
            Outbound::Cancel { request, .. } => (0, request.to_u64(), 0),
            Outbound::Ended { request, .. } => (0, request.to_u64(), 1),
            _ => (1, 0, 0),
        });
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_network_machine_equals_a_searched_list(
            limits in (1..4_usize, 1..4_usize, 0..5_usize),
            times in (1..30_u64, 1..30_u64),
            steps in proptest::collection::vec(step(), 0..80),
        ) {
            let config = NetworkConfig {
                max_in_flight: limits.0,
                max_per_node: limits.1,
                max_queued: limits.2,
                request_timeout: Duration::from_nanos(times.0),
                min_timeout: Duration::from_nanos(times.0),
                soft_timeout: Duration::from_nanos(times.1),
                ..NetworkConfig::default()
            };
            let mut machine = Network::<Net<1>>::new(config.clone(), &kad_proto::Secret::from_seed(0)).unwrap();
            let mut list = List { config: config.clone(), now: Instant::ORIGIN, entries: Vec::new(), out: Vec::new() };
            let mut now = Instant::ORIGIN;
            for (number, step) in (1..).zip(steps) {
                let valid = !matches!(step, Step::Submit { valid: false, .. });
                let trace = if valid { TraceId::from(u128::from(number)) } else { TraceId::INVALID };
                let state = TraceState::from_key_value([("step", number.to_string())]).unwrap();
                let span = SpanContext::new(trace, SpanId::from(number), TraceFlags::SAMPLED, true, state);
                let of = |list: &List, place: usize| list.entries.get(place).map(|entry| entry.id);
                // The submission's own context, where it has a valid one.
                let mut stamped = Stamped::new(Inbound::Tick);
                match step {
                    Step::Advance(by) => now = now + Duration::from_nanos(by),
                    Step::Submit { node, deadline, .. } => {
                        let node = Peer { key: Bits::new([node / 2]), address: node };
                        stamped.event = Inbound::Submit { tag: number, node, message: number };
                        stamped.deadline = (deadline > 0).then(|| Instant::from_nanos(now.as_nanos() + deadline - 3.min(deadline)));
                    }
                    Step::Withdraw(place) => stamped.event = of(&list, place).map_or(Inbound::Tick, Inbound::Withdraw),
                    Step::Answered(place) => stamped.event = of(&list, place).map_or(Inbound::Tick, Inbound::Answered),
                    Step::Failed(place) => stamped.event = of(&list, place).map_or(Inbound::Tick, Inbound::Failed),
                }
                stamped.context = Context::Parent(span.clone());
                let out = machine.handle(now, stamped.clone());
                list.elapse(now);
                let place = |id| list.entries.iter().position(|entry| entry.id == id);
                match &stamped.event {
                    Inbound::Submit { tag, node, .. } => {
                        let until = stamped.deadline.unwrap_or(now + config.request_timeout);
                        let accepted = out.iter().find_map(|out| match out.event {
                            Outbound::Accepted { request, .. } => Some(request),
                            _ => None,
                        });
                        let id = accepted.unwrap_or(RequestId::from_u64(u64::MAX));
                        let own = if valid { span.clone() } else { SpanContext::NONE };
                        let entry = Entry { id, tag: *tag, own, node: *node, until, deadline: until, sent: false };
                        let (before, said) = (list.entries.clone(), list.out.len());
                        list.say(Outbound::Accepted { tag: *tag, request: id }, span.clone(), Some(until));
                        list.entries.push(entry);
                        list.release();
                        let queued = list.entries.iter().filter(|entry| !entry.sent).count();
                        let reason = if until <= now { Some(SubmitRefusal::NoTimeLeft) } else { None };
                        let reason = reason.or_else(|| (queued > config.max_queued).then_some(SubmitRefusal::QueueFull));
                        if let Some(reason) = reason {
                            list.entries = before;
                            list.out.truncate(said);
                            list.say(Outbound::Refused { tag: *tag, reason }, span.clone(), None);
                        }
                    }
                    Inbound::Withdraw(id) => {
                        if let Some(place) = place(*id) {
                            list.end(place, End::Withdrawn, Some(&span));
                        }
                    }
                    Inbound::Answered(id) | Inbound::Failed(id) => {
                        let answered = matches!(stamped.event, Inbound::Answered(_));
                        let end = if answered { End::Answered } else { End::Failed };
                        if let Some(place) = place(*id).filter(|place| list.entries[*place].sent) {
                            list.end(place, end, Some(&span));
                        }
                    }
                    Inbound::Tick => {}
                }
                list.release();
                prop_assert_eq!(sorted(&out), sorted(&list.out), "after {:?} at {}", stamped, now);
                list.out.clear();
                let in_flight: Vec<_> = list.entries.iter().filter(|entry| entry.sent).collect();
                let mut keys: Vec<_> = in_flight.iter().map(|entry| entry.node.key).collect();
                keys.sort_unstable();
                keys.dedup();
                prop_assert_eq!(machine.tracked_nodes(), keys.len(), "network: state of idle nodes is dropped");
                let request_stats = machine.request_stats();
                let ended = request_stats.answered + request_stats.failed + request_stats.timed_out + request_stats.cancelled;
                let sum = ended + request_stats.in_flight;
                prop_assert_eq!(request_stats.sent, sum);
                prop_assert_eq!(request_stats.in_flight, in_flight.len() as u64);
                prop_assert_eq!(request_stats.queued, (list.entries.len() - in_flight.len()) as u64);
                let earliest = list.entries.iter().map(|entry| entry.deadline).min();
                prop_assert_eq!(machine.poll_timeout(), earliest, "wake-up: the first deadline");
            }
        }
    }
}
