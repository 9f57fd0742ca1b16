//! Calls of an honest engine that are forged before they are checked: each forgery must be found, with and without
//! models. Without them it is found by the rule that it breaks; a model may see it first.

use crate::broadcast::events::{BroadcastFinish, StartBroadcast, StoreEnd};
use crate::context::Context;
use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::requests::stats::RequestStats;
use crate::routing::config::RoutingConfig;
use crate::routing::events::RoutingOutbound;
use crate::routing::table::RoutingTable;
use crate::testing::checker::ContractChecker;
use crate::testing::machine_under_test::MachineUnderTest;
use crate::vocabulary::family::Family;
use crate::vocabulary::key::Key8;
use crate::vocabulary::machine::{Machine, Stamped};
use crate::vocabulary::operation_events::{Carried, Contact, Progress, Start};
use crate::vocabulary::request_events::{RequestOutcome, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;
use core::time::Duration;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const NOW: Instant = Instant::from_millis(5);
const OWN: Key8 = Key8::new([0]);
const TARGET: Key8 = Key8::new([0x40]);

/// A node is its key; a message is a number.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = u8;

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

fn node(byte: u8) -> Key8 {
    Key8::new([byte])
}

fn span(trace: u8, span: u8) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes([trace; 16]), SpanId::from_bytes([span; 8]));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// What the checker sees of a call, to be forged.
#[derive(Clone)]
struct Seen {
    outbound: Vec<Stamped<Outbound<Tiny>>>,
    machine: Forged,
}

/// An engine whose counters and whose wake-up are not its own.
#[derive(Clone)]
struct Forged {
    engine: Coordinator<Tiny>,
    stats: RequestStats,
    wake: Option<Instant>,
}

impl MachineUnderTest<Tiny> for Forged {
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<Tiny>>) -> Vec<Stamped<Outbound<Tiny>>> {
        MachineUnderTest::handle(&mut self.engine, now, event)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    fn request_stats(&self) -> RequestStats {
        self.stats
    }

    fn counts(&self) -> Option<(usize, usize)> {
        MachineUnderTest::counts(&self.engine)
    }

    fn table(&self) -> Option<&RoutingTable<Tiny>> {
        MachineUnderTest::table(&self.engine)
    }
}

/// A real engine whose calls are checked after they were forged.
struct Forgery {
    engine: Coordinator<Tiny>,
    checker: ContractChecker<Tiny>,
}

type Result = core::result::Result<(), super::broken::Broken>;

impl Forgery {
    fn new(models: bool) -> Self {
        let config = Config { routing: RoutingConfig::off(), ..Config::default() };
        let engine = Coordinator::new(OWN, config.clone(), &Secret::from_seed(0)).unwrap();
        let checker = ContractChecker::new(OWN, config).unwrap();
        Self { engine, checker: if models { checker } else { checker.without_models() } }
    }

    /// Makes a call, and returns what came out.
    fn call(&mut self, event: Inbound<Tiny>, forge: impl FnOnce(&mut Seen)) -> (Vec<Outbound<Tiny>>, Result) {
        let event = Stamped::new(event).in_span(span(1, 2));
        let outbound: Vec<_> = Machine::handle(&mut self.engine, NOW, event.clone()).into_iter().collect();
        let real = outbound.iter().map(|out| out.event.clone()).collect();
        let (stats, wake) = (self.engine.request_stats(), Machine::poll_timeout(&self.engine));
        let mut seen = Seen { outbound, machine: Forged { engine: self.engine.clone(), stats, wake } };
        forge(&mut seen);
        (real, self.checker.check(NOW, &event, &seen.outbound, &seen.machine))
    }

    fn honest(&mut self, event: Inbound<Tiny>) -> Vec<Outbound<Tiny>> {
        let (outbound, result) = self.call(event, |_| {});
        assert_eq!(result, Ok(()));
        outbound
    }

    /// The start of a lookup that asks two nodes.
    fn lookup() -> Inbound<Tiny> {
        Inbound::Start(Start::find(7, TARGET).with_seeds(vec![node(1), node(2)]))
    }

    /// The start of a broadcast to two nodes.
    fn broadcast() -> Inbound<Tiny> {
        Inbound::Broadcast(StartBroadcast::fixed(7, TARGET, 7, vec![node(1), node(2)]))
    }

    /// The stop of the operation that a call has started.
    fn stop(outbound: &[Outbound<Tiny>]) -> Inbound<Tiny> {
        let Outbound::Started(started) = &outbound[0] else { unreachable!() };
        Inbound::Stop(started.operation)
    }

    /// A response to the first request that a call has sent.
    fn response(
        outbound: &[Outbound<Tiny>],
        response: fn(crate::RequestId) -> Response<Tiny>,
    ) -> Inbound<Tiny> {
        let Outbound::Request(request) = &outbound[1] else { unreachable!() };
        Inbound::Response(response(request.id))
    }
}

/// Which call of a scenario is forged.
#[derive(Clone, Copy)]
enum At {
    Start,
    Stop,
    Answer,
    Rejection,
}

/// Plays a lookup up to a call, and forges that one. An honest call at the same place passes.
fn play(models: bool, at: At, forge: impl FnOnce(&mut Seen)) -> Result {
    let mut forgery = Forgery::new(models);
    if matches!(at, At::Start) {
        return forgery.call(Forgery::lookup(), forge).1;
    }
    let started = forgery.honest(Forgery::lookup());
    let event = match at {
        At::Start | At::Stop => Forgery::stop(&started),
        At::Answer => Forgery::response(&started, |id| Response::answered(id, Vec::new())),
        At::Rejection => Forgery::response(&started, |id| Response::rejected(id, 9)),
    };
    forgery.call(event, forge).1
}

/// A forgery breaks this rule.
#[track_caller]
fn found(rule: &str, at: At, forge: impl Fn(&mut Seen)) {
    let result = play(false, at, &forge).map_err(|broken| (broken.rule().to_owned(), broken.to_string()));
    assert_eq!(result.as_ref().map_err(|(rule, _)| rule.as_str()), Err(rule), "{result:?}");
    assert!(play(true, at, &forge).is_err(), "with models too");
}

fn last_finish(seen: &mut Seen) -> &mut crate::Finish<Tiny> {
    let Some(Outbound::Finished(finish)) = seen.outbound.last_mut().map(|outbound| &mut outbound.event)
    else {
        unreachable!()
    };
    finish
}

#[test]
fn an_honest_engine_passes() {
    for models in [false, true] {
        for at in [At::Start, At::Stop, At::Answer, At::Rejection] {
            assert_eq!(play(models, at, |_| {}), Ok(()));
        }
    }
}

#[test]
fn sums_that_do_not_hold_are_found() {
    found("deadline 5, counters", At::Start, |seen| seen.machine.stats.answered += 1);
    // A request that was counted and not sent.
    found("deadline 5, counters", At::Start, |seen| drop(seen.outbound.pop()));
    found("stats", At::Stop, |seen| last_finish(seen).stats.cancelled -= 1);
    found("deadline 5, counters", At::Rejection, |seen| {
        seen.machine.stats.failed -= 1;
        seen.machine.stats.answered += 1;
    });
}

#[test]
fn deadlines_that_do_not_hold_are_found() {
    for deadline in [NOW, NOW + Duration::from_secs(61)] {
        found("deadline 3", At::Start, |seen| seen.outbound[1].deadline = Some(deadline));
    }
    found("deadline 1", At::Start, |seen| seen.outbound[0].deadline = Some(NOW + Duration::from_secs(61)));
    found("wake-up", At::Start, |seen| seen.machine.wake = Some(NOW)); // due already
    found("wake-up", At::Start, |seen| seen.machine.wake = None); // a deadline overslept
    found("wake-up", At::Answer, |seen| {
        let wake = seen.outbound.iter().filter_map(|out| out.deadline).min().unwrap();
        seen.machine.wake = Some(wake + Duration::from_nanos(1));
    });
}

#[test]
fn contexts_that_leak_are_found() {
    for foreign in [span(2, 2), span(1, 3), SpanContext::NONE] {
        found("context 1 to 3", At::Start, |seen| seen.outbound[1].context = foreign.clone().into());
    }
    found("context 1 to 3", At::Start, |seen| seen.outbound[1].context = Context::Link(span(1, 2)));
    found("context 4", At::Answer, |seen| {
        let admitted = &mut seen.outbound[0];
        assert!(matches!(admitted.event, Outbound::Routing(RoutingOutbound::Admitted(_))));
        admitted.context = span(1, 2).into();
    });
}

#[test]
fn what_ends_twice_or_never_is_found() {
    found("deadline 5", At::Stop, |seen| seen.outbound.insert(0, seen.outbound[0].clone()));
    found("deadline 7", At::Stop, |seen| seen.outbound.push(seen.outbound.last().unwrap().clone()));
    found("deadline 5", At::Stop, |seen| seen.outbound.push(seen.outbound[0].clone())); // after the finish
    found("deadline 5", At::Stop, |seen| drop(seen.outbound.remove(0))); // a request that is not cancelled
    found("deadline 9", At::Stop, |seen| {
        seen.outbound.clear();
        seen.machine.stats = RequestStats::default();
    });
    found("deadline 7", At::Start, |seen| {
        seen.outbound.clear();
        seen.machine.stats = RequestStats::default();
    });
    for models in [false, true] {
        let mut forgery = Forgery::new(models);
        forgery.honest(Forgery::lookup());
        let left = forgery.checker.check_ended(Instant::FAR_FUTURE);
        assert_eq!(left.map_err(|broken| broken.rule().to_owned()), Err("deadline 7".to_owned()));
        assert_eq!(forgery.checker.check_ended(NOW), Ok(()));
    }
}

#[test]
fn a_rejection_that_is_misreported_is_found() {
    fn progress(seen: &mut Seen) -> &mut Progress<Tiny> {
        let of = |out: &mut Stamped<Outbound<Tiny>>| matches!(out.event, Outbound::Progress(_));
        let place = seen.outbound.iter_mut().position(of).unwrap();
        let Outbound::Progress(progress) = &mut seen.outbound[place].event else { unreachable!() };
        progress
    }
    found("progress", At::Rejection, |seen| progress(seen).outcome = RequestOutcome::Failed);
    found("progress", At::Rejection, |seen| progress(seen).outcome = RequestOutcome::Rejected(8));
    let answered = || RequestOutcome::Answered { closer: Vec::new() };
    found("progress", At::Rejection, |seen| progress(seen).outcome = answered());
    found("progress", At::Rejection, |seen| {
        seen.outbound.retain(|out| !matches!(out.event, Outbound::Progress(_)));
    });
}

#[test]
fn a_broadcast_that_misreports_its_stores_is_found() {
    /// Starts a broadcast to two nodes, of which the first has stored, and forges its finish.
    fn broadcast(models: bool, forge: impl FnOnce(&mut BroadcastFinish<Tiny>)) -> Result {
        let mut forgery = Forgery::new(models);
        let started = forgery.honest(Forgery::broadcast());
        forgery.honest(Forgery::response(&started, |id| Response::answered(id, Vec::new())));
        let result = forgery.call(Forgery::stop(&started), |seen| {
            let Some(Outbound::BroadcastFinished(finish)) =
                seen.outbound.last_mut().map(|outbound| &mut outbound.event)
            else {
                unreachable!()
            };
            forge(finish);
        });
        result.1
    }
    for models in [false, true] {
        assert_eq!(broadcast(models, |_| {}), Ok(()));
        let rule = |forge: fn(&mut BroadcastFinish<Tiny>)| {
            broadcast(models, forge).map_err(|broken| broken.rule().to_owned())
        };
        assert_eq!(rule(|finish| finish.stores[1].end = StoreEnd::Stored), Err("stores".to_owned()));
        assert_eq!(rule(|finish| finish.stores[0].end = StoreEnd::TimedOut), Err("stores".to_owned()));
        assert_eq!(rule(|finish| finish.stores.push(finish.stores[0].clone())), Err("stores".to_owned()));
        assert_eq!(rule(|finish| finish.stats.sent += 1), Err("stats".to_owned()));
        assert_eq!(rule(|finish| finish.target = node(3)), Err("closest".to_owned()));
    }
}

#[test]
fn a_request_to_the_node_itself_is_found() {
    found("not self", At::Start, |seen| {
        let Outbound::Request(request) = &mut seen.outbound[1].event else { unreachable!() };
        request.node = OWN;
    });
}

#[test]
fn a_finish_that_lists_a_node_without_an_answer_is_found() {
    found("closest", At::Stop, |seen| {
        let contact = Contact { node: node(1), micros: 0, hop: 1, carried: Carried::Unknown };
        last_finish(seen).closest.push(contact);
    });
    found("closest", At::Stop, |seen| last_finish(seen).target = node(1));
}

#[test]
fn a_table_that_changes_without_an_event_is_found() {
    found("table", At::Answer, |seen| drop(seen.outbound.remove(0)));
    found("table", At::Answer, |seen| seen.outbound.insert(0, seen.outbound[0].clone()));
}

#[test]
fn an_event_before_what_was_due_is_refused() {
    let mut forgery = Forgery::new(false);
    let started = forgery.honest(Forgery::lookup());
    let late = NOW + Duration::from_secs(3_600);
    let event = Stamped::new(Forgery::stop(&started));
    let outbound = MachineUnderTest::handle(&mut forgery.engine, late, event.clone());
    let result = forgery.checker.check(late, &event, &outbound, &forgery.engine);
    assert_eq!(result.map_err(|broken| broken.rule().to_owned()), Err("order".to_owned()));
}

/// With two requests and an operation in hand, ten wake-ups in a row may say nothing.
#[test]
fn a_machine_that_wakes_up_on_and_on_is_found() {
    let Forgery { mut engine, mut checker } = Forgery::new(false);
    let mut wake_up = |now: Instant, event| {
        let event = Stamped::new(event);
        let out: Vec<_> = Machine::handle(&mut engine, now, event.clone()).into_iter().collect();
        let (engine, stats) = (engine.clone(), engine.request_stats());
        let machine = Forged { engine, stats, wake: Some(now + Duration::from_millis(1)) };
        checker.check(now, &event, &out, &machine)
    };
    assert_eq!(wake_up(NOW, Forgery::lookup()), Ok(()));
    let found = (1..100).find(|more| wake_up(NOW + Duration::from_millis(*more), Inbound::Tick).is_err());
    assert_eq!(found, Some(11));
}
