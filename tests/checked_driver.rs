//! A driver around [`Checked`]: one that does all right, and the same with one fault each, which is found by its name.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)]

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::testing::{Checked, DriverFault, Fate, Fault, terminates};
use kad_proto::{Config, Family, Instant, Key8, Machine, RequestId, Response, Secret, Stamped, Start};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, Default, PartialEq)]
struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();
    fn key(node: &Key8) -> Key8 {
        *node
    }
}

/// What the driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    Nothing,
    ForgetsCancels,
    AnswersTwice,
    DropsContexts,
    MixesTraces,
    OversleepsBy(Duration),
    TicksInBetween,
    ReadsTwoClocks,
    StopsTheEnded,
    AnswersTheUnasked,
}

fn span(trace: u128, id: u64) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(id.to_be_bytes()),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

/// Ten lookups among 60 nodes, of which a quarter is silent and a quarter takes its time; the machine and the instant at the end.
fn drive(plant: Plant, patience: Duration) -> (Checked<Tiny>, Instant) {
    let nodes: Vec<Key8> = (1..=60_u8).map(|node| Key8::new([node.wrapping_mul(37)])).collect();
    let machine = Checked::<Tiny>::coordinator(Key8::new([0]), Config::default(), &Secret::from_seed(5));
    let mut machine = machine.unwrap().with_lateness(patience);
    let mut now = Instant::from_secs(1);
    let mut agenda: BTreeMap<(Instant, u64), (RequestId, Key8, Option<SpanContext>)> = BTreeMap::new();
    let mut number = 0;
    let mut events: Vec<Stamped<Inbound<Tiny>>> = (1..=10_u8)
        .map(|tag| {
            let start = Start::find(u64::from(tag), Key8::new([tag * 20]))
                .with_seeds(nodes.iter().take(3).copied().collect());
            Stamped::new(start.into()).in_span(span(u128::from(tag), u64::from(tag)))
        })
        .collect();
    for _ in 0..2_000 {
        let mut out = Vec::new();
        for event in events.drain(..) {
            let late = if plant == Plant::ReadsTwoClocks && number % 2 == 0 { 5_000_000 } else { 0 };
            out.extend(machine.handle(Instant::from_nanos(now.as_nanos() - late), event));
        }
        let mut ended = Vec::new();
        for stamped in out {
            match stamped.event {
                Outbound::Request(request) => {
                    number += 1;
                    let index = nodes.iter().position(|node| *node == request.node);
                    let wait = match index.map(|index| index % 4) {
                        Some(0) | None => continue,
                        Some(1) => MS * 700,
                        Some(_) => MS * 20,
                    };
                    let parent = stamped.context.parent().cloned();
                    let own = parent.map(|parent| {
                        span(u128::from_be_bytes(parent.trace_id().to_bytes()), 1_000 + number)
                    });
                    agenda.insert((now + wait, number), (request.id, request.target, own));
                }
                Outbound::Cancel(cancel) if plant != Plant::ForgetsCancels => {
                    agenda.retain(|_, (id, ..)| *id != cancel.id);
                }
                Outbound::Finished(finish) => ended.push(finish.operation),
                _ => {}
            }
        }
        if plant == Plant::StopsTheEnded && !ended.is_empty() {
            events.extend(ended.into_iter().map(|operation| Stamped::new(Inbound::Stop(operation))));
            continue;
        }
        let (next, due) = (agenda.keys().next().map(|(at, _)| *at), machine.poll_timeout());
        let Some(wake) = next.into_iter().chain(due).min().filter(|wake| *wake < Instant::from_secs(60))
        else {
            break;
        };
        if plant == Plant::TicksInBetween && wake - now > MS {
            now = now + (wake - now) / 2;
            events.push(Stamped::new(Inbound::Tick));
            continue;
        }
        let is_due = due.is_some_and(|due| due <= wake);
        now = now.max(wake);
        if let Plant::OversleepsBy(late) = plant
            && is_due
        {
            now = now + late;
        }
        let answer = agenda
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
            .map(std::collections::btree_map::OccupiedEntry::remove);
        let Some((id, target, own)) = answer else {
            events.push(Stamped::new(Inbound::Tick));
            continue;
        };
        let mut closest = nodes.clone();
        closest.sort_by_key(|node| kad_proto::Key::distance(node, &target));
        closest.truncate(20);
        let mut answer = Stamped::new(Inbound::from(Response::answered(id, closest)));
        match (plant, own) {
            (Plant::DropsContexts, _) | (_, None) => {}
            (Plant::MixesTraces, Some(_)) => answer = answer.in_span(span(77, number)),
            (_, Some(own)) => answer = answer.in_span(own),
        }
        if plant == Plant::AnswersTwice {
            events.push(answer.clone());
        }
        if plant == Plant::AnswersTheUnasked {
            events.push(Stamped::new(Inbound::from(Response::failed(RequestId::from_u64(0x5000_0000_0000)))));
        }
        events.push(answer);
    }
    (machine, now)
}

/// The faults that were found, each kind once, by the first words of its text.
fn kinds(machine: &Checked<Tiny>) -> Vec<String> {
    let mut kinds: Vec<String> = machine
        .faults()
        .iter()
        .map(|fault| fault.to_string().splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
        .collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn a_driver_that_does_all_right_has_no_fault() {
    let (machine, now) = drive(Plant::Nothing, Duration::ZERO);
    assert_eq!(machine.verdict(now), Ok(()));
    let stats = machine.request_stats();
    assert!(stats.answered > 100 && stats.timed_out > 10 && machine.operations() == 0, "{stats:?}");
}

#[test]
fn each_fault_of_a_driver_is_found_by_its_name() {
    let planted = [
        (Plant::ForgetsCancels, "driver: answered after its cancel"),
        (Plant::AnswersTwice, "driver: answered twice"),
        (Plant::DropsContexts, "driver: outside of its trace"),
        (Plant::MixesTraces, "driver: outside of its trace"),
        (Plant::OversleepsBy(MS * 3), "driver: woken late"),
        (Plant::TicksInBetween, "driver: ticks without need"),
        (Plant::StopsTheEnded, "driver: stopped, but not live"),
        (Plant::AnswersTheUnasked, "driver: answered, but never sent"),
    ];
    for (plant, expected) in planted {
        let (machine, now) = drive(plant, Duration::ZERO);
        assert_eq!(kinds(&machine), [expected], "{plant:?}");
        assert!(machine.verdict(now).unwrap_err().contains(expected));
    }
    let (machine, _) = drive(Plant::ReadsTwoClocks, Duration::ZERO);
    assert!(kinds(&machine).contains(&"driver: time went back".to_owned()), "{:?}", kinds(&machine));
}

#[test]
fn a_driver_in_real_time_may_be_a_little_late() {
    let (machine, _) = drive(Plant::OversleepsBy(MS * 3), MS * 5);
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
    let (machine, _) = drive(Plant::OversleepsBy(MS * 6), MS * 5);
    let is_late = |fault: &Fault| matches!(fault, Fault::Driver(DriverFault::WokenLate { .. }));
    assert!(machine.faults().iter().any(is_late));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Twenty lines: whatever a network of 256 keys does with each request, each operation ends once, by its deadline.
    #[test]
    fn every_operation_ends_whatever_the_network_does(
        fates in proptest::collection::vec((any::<u8>(), 0_u64..3_000, any::<[u8; 5]>()), 1..200),
        starts in proptest::collection::vec((any::<u8>(), any::<u8>(), 1_u64..20_000), 1..30),
        config in prop_oneof![Just(Config::default()), Just(Config::quiet())],
    ) {
        let now = Instant::from_secs(1);
        let mut machine = Checked::<Tiny>::coordinator(Key8::new([0]), config, &Secret::from_seed(5)).unwrap();
        let mut tag = 0;
        let starts: Vec<_> = starts.into_iter().map(|(target, seed, deadline)| {
            tag += 1;
            let start = Start::find(tag, Key8::new([target])).with_seeds(vec![Key8::new([seed])]);
            Stamped::new(start.into()).in_span(span(u128::from(tag), tag)).with_deadline(now + MS * u32::try_from(deadline).unwrap())
        }).collect();
        let accepted = starts.len();
        let mut fates = fates.iter().cycle();
        let ends = terminates(&mut machine, now, starts, |_, request| {
            let (kind, wait, named) = fates.next().unwrap();
            let answer = Response::answered(request.id, named.map(|key| Key8::new([key])).to_vec());
            match kind % 4 {
                0 => Fate::Lost,
                1 => Fate::Fails,
                _ => Fate::Comes(Duration::from_millis(*wait), answer),
            }
        });
        prop_assert_eq!(ends.map(|ends| ends.len()), Ok(accepted));
    }
}
