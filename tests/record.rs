//! The flight recorder: recordings replay without a difference, and what cannot be replayed gives a named error.

#![cfg(all(feature = "record", feature = "testing"))]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod wrapped_coordinator;
mod maintenance_contract;
mod random_world;
mod recording;

use kad_proto::broadcast::{StartBroadcast, Success};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::StartCrawl;
use kad_proto::record::{Call, Keep, Recordable, Recorder, Recording, ReplayError, replay};
use kad_proto::routing::table::SavedNode;
use kad_proto::testing::Draw;
use kad_proto::{
    AnswerExtra, Config, ConfigError, Coordinator, Instant, Key8, Key160, Machine, Record, RequestId,
    Response, RoutingConfig, RoutingInbound, Secret, Stamped, Start, Verdict,
};
use maintenance_contract::Grouped;
use proptest::prelude::*;
use random_world::{MachineKind, Net, Peer, Scenario, run_on};
use recording::{Eight, again, begins, check};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl<const N: usize> Serialize for Peer<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.key, self.address).serialize(to)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Peer<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (key, address) = Deserialize::deserialize(from)?;
        Ok(Self { key, address })
    }
}

/// A recorder beside a plain coordinator, under the contract checkers. On drop, its recording is compared with the
/// events it was given, and replayed.
#[derive(Clone)]
struct Taped<F: Recordable> {
    recorder: Recorder<F>,
    plain: Coordinator<F>,
    told: Vec<(Instant, Stamped<Inbound<F>>)>,
}

thread_local! {
    /// Calls in the recordings that were compared.
    static JUDGED: RefCell<u64> = const { RefCell::new(0) };
}

impl<F: Recordable> Taped<F> {
    fn new(local: F::Target, config: Config) -> Result<Self, ConfigError> {
        let recorder = Recorder::new(local.clone(), config.clone(), &Secret::from_seed(0), Keep::All)?;
        Ok(Self {
            recorder,
            plain: Coordinator::new(local, config, &Secret::from_seed(0))?,
            told: Vec::new(),
        })
    }

    fn call(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        let out = self.recorder.handle(now, event.clone());
        assert_eq!(out, self.plain.handle(now, event.clone()), "a recorder changes nothing");
        assert_eq!(Machine::poll_timeout(&self.recorder), Machine::poll_timeout(&self.plain));
        self.told.push((now, event));
        out.into_iter().collect()
    }
}

impl<F: Recordable> Drop for Taped<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let bytes = self.recorder.bytes();
        let recording = Recording::<F>::open(&bytes).unwrap();
        let told = recording.calls().map(|call| call.map(|Call { now, event, .. }| (now, event)));
        assert_eq!(told.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&self.told));
        let replayed = recording.replay().unwrap();
        assert_eq!(replayed.difference, None, "{replayed}");
        assert_eq!(replayed.calls, self.told.len() as u64);
        assert_eq!(recording.record_anew().as_ref(), Ok(&bytes));
        JUDGED.with_borrow_mut(|judged| *judged += replayed.calls);
    }
}

wrapper_under_test!(Taped);

/// The recording of a small node that receives every kind of event, at random.
fn life(seed: u64, calls: usize, text: bool) -> Recorder<Eight> {
    let mut random = Draw::new(seed);
    let mut recorder =
        Recorder::new(Key8::new([random.byte()]), config(&mut random), &Secret::from_seed(seed), Keep::All)
            .unwrap();
    if text {
        recorder = recorder.with_text();
    }
    live(&mut recorder, &mut random, calls);
    recorder
}

fn config(random: &mut Draw) -> Config {
    let mut config = Config::default();
    config.query.k = 1 + random.below(5);
    config.query.alpha = 1 + random.below(4);
    config.pool.max_running = 1 + random.below(3);
    config.network.max_in_flight = 1 + random.below(8);
    config.network.request_timeout = Duration::from_secs(1 + random.number() % 4);
    config.table.bucket_size = 1 + random.below(3);
    if random.below(3) == 0 {
        config.routing = RoutingConfig::off();
    }
    if random.below(3) == 0 {
        config.network_size = None;
    }
    config
}

fn live(machine: &mut Recorder<Eight>, random: &mut Draw, calls: usize) {
    let (mut open, mut operations, mut now) = (Vec::<RequestId>::new(), Vec::new(), Instant::ORIGIN);
    let node = |random: &mut Draw| (Key8::new([random.byte()]), random.byte() % 16);
    for call in 0..calls as u64 {
        let some = |random: &mut Draw| -> Vec<_> { (0..random.below(6)).map(|_| node(random)).collect() };
        let key = Key8::new([random.byte()]);
        let message = vec![random.byte(); random.below(4)];
        // A request in flight, or an id that was never issued.
        let request = match open.len() {
            0 => RequestId::from_u64(random.number() >> random.below(64)),
            many => open.swap_remove(random.below(many)),
        };
        let event = match random.below(24) {
            0 => Inbound::Start(
                Start::find(call, key).with_seeds(some(random)).with_num_results(1 + random.below(9)),
            ),
            1 => {
                let start = Start::message(call, key, message).with_seeds(some(random)).with_quorum(2);
                Inbound::Start(start.with_held(random.number()))
            }
            2 => Inbound::Start(Start::bootstrap(call, machine.coordinator().table().local(), some(random))),
            3 => Inbound::Crawl(StartCrawl::new(call).with_seeds(some(random))),
            4 => Inbound::Broadcast(
                StartBroadcast::follow_up(call, key, message.clone())
                    .with_seeds(some(random))
                    .with_ask(message),
            ),
            5 => Inbound::Broadcast(
                StartBroadcast::fixed(call, key, message, some(random)).with_success(Success::Share(50)),
            ),
            6 => Inbound::Broadcast(StartBroadcast::optimistic(call, key, message).with_seeds(some(random))),
            7 => {
                let record =
                    |random: &mut Draw| Record { target: node(random).0, message: vec![random.byte()] };
                let records = (0..random.below(5)).map(|_| record(random)).collect();
                Inbound::Broadcast(StartBroadcast::sweep(call, records).with_seeds(some(random)))
            }
            8 if !operations.is_empty() => Inbound::Stop(operations[random.below(operations.len())]),
            9 => Inbound::Response(Response::failed(request)),
            10 => Inbound::Response(Response::rejected(request, message)),
            11 => Inbound::Routing(RoutingInbound::Connected {
                node: node(random),
                round_trip: Some(Duration::from_millis(call)),
            }),
            12 => Inbound::Routing(RoutingInbound::Disconnected(node(random))),
            13 => Inbound::Routing(RoutingInbound::Discovered(node(random))),
            14 => Inbound::Routing(RoutingInbound::Client(node(random))),
            15 => Inbound::Routing(RoutingInbound::Seeds(some(random))),
            16 => {
                let saved = some(random).into_iter();
                let saved =
                    saved.map(|node| SavedNode { node, age: Duration::from_secs(call), round_trip: None });
                Inbound::Routing(RoutingInbound::Restore(saved.collect()))
            }
            17 => Inbound::Tick,
            18 => {
                let verdicts = [Verdict::Nothing, Verdict::Valid(random.number()), Verdict::Invalid];
                let extra = AnswerExtra { value: verdicts[random.below(3)], token: Some(message) };
                Inbound::Response(Response::answered(request, some(random)).with_extra(extra))
            }
            _ => Inbound::Response(Response::answered(request, some(random))),
        };
        let deadline = (random.below(4) == 0).then(|| now + Duration::from_secs(random.number() % 9));
        let context = Draw::context(random.byte(), random.number().into(), random.number());
        for out in machine.handle(now, Stamped { event, context, deadline }) {
            match out.event {
                Outbound::Request(request) => open.push(request.id),
                Outbound::Started(started) => operations.push(started.operation),
                _ => {}
            }
        }
        now = match random.below(4) {
            0 => machine.poll_timeout().unwrap_or(now).max(now),
            1 => now + Duration::from_millis(random.number() % 900),
            _ => now,
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 6 } else { 500 }))]

    #[test]
    fn lookups_and_crawls_replay(bytes in prop::collection::vec(any::<u8>(), 0..400), crawls: bool) {
        let scenario = Scenario::decode(if crawls { MachineKind::Crawl } else { MachineKind::Coordinator }, &bytes);
        // Scenarios for a `Crawl` alone have no coordinator to record.
        if scenario.kind == MachineKind::Coordinator {
            match scenario.width {
                1 => run_on::<1, Taped<Net<1>>>(&scenario),
                20 => run_on::<20, Taped<Net<20>>>(&scenario),
                _ => run_on::<32, Taped<Net<32>>>(&scenario),
            };
        }
    }

    #[test]
    fn a_maintenance_replays(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        maintenance_contract::run_scenario::<Taped<Grouped>>(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 16 } else { 1_000 }))]

    #[test]
    fn every_kind_of_inbound_event_replays(seed: u64, text: bool) {
        let recorder = life(seed, 100, text);
        let replayed = check(&recorder.bytes()).unwrap();
        prop_assert_eq!(replayed.difference, None);
        prop_assert_eq!((replayed.calls, recorder.calls()), (100, 100));
    }

    #[test]
    fn a_truncated_recording_reports_its_complete_calls(seed: u64, places in prop::collection::vec(any::<usize>(), 20)) {
        let bytes = life(seed, 12, seed % 2 == 0).bytes();
        let ends = frames(&bytes);
        let between = &ends[..ends.len() - 1];
        for length in places.iter().map(|place| place % bytes.len()).chain(between.iter().copied()) {
            cut(&bytes, &ends, length)?;
        }
    }

    #[test]
    fn any_changed_byte_is_an_error(
        seed: u64,
        changes in prop::collection::vec((any::<usize>(), 1..=255_u8), 20),
    ) {
        let bytes = life(seed, 12, seed % 2 == 0).bytes();
        for (place, with) in changes {
            let mut bytes = bytes.clone();
            let place = place % bytes.len();
            bytes[place] ^= with;
            prop_assert!(check(&bytes).is_err(), "byte {}", place);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), seed: u64) {
        let _ = check(&bytes);
        // The same bytes behind a readable beginning, and in the middle of a recording.
        let whole = life(seed, 8, false).bytes();
        let from = seed as usize % whole.len();
        let _ = check(&[&whole[..from], &bytes[..]].concat());
        let until = (from + bytes.len()).min(whole.len());
        let _ = check(&[&whole[..from], &bytes[..], &whole[until..]].concat());
    }

    #[test]
    fn the_first_difference_is_shown(seed: u64, text: bool) {
        let recorder = life(seed, 100, text);
        let bytes = recorder.bytes();
        let recording = Recording::<Eight>::open(&bytes).unwrap();
        let mut config = recording.config().clone();
        config.network.request_timeout += Duration::from_millis(1);
        config.network.min_timeout += Duration::from_millis(1);
        let build = || recording.coordinator(config.clone()).unwrap();
        let mut same = recording.coordinator(recording.config().clone()).unwrap();
        let mut other = build();
        let expected = recording.calls().map(Result::unwrap).find_map(|Call { number, now, event, .. }| {
            let had = (same.handle(now, event.clone()), same.poll_timeout());
            let came = (other.handle(now, event.clone()), other.poll_timeout());
            (had != came).then_some((number, now, event, had, came))
        });
        let replayed = recording.replay_on(build()).unwrap();
        let Some((number, now, event, had, came)) = expected else {
            prop_assert_eq!(replayed.difference, None);
            return Ok(());
        };
        prop_assert_eq!(replayed.calls, number);
        let shown = replayed.to_string();
        let difference = replayed.difference.unwrap();
        prop_assert_eq!((difference.call, difference.now, difference.event), (number, now, event));
        let lines = |(out, wake): &(kad_proto::Batch<Outbound<Eight>>, _)| {
            let events = out.iter().map(|event| format!("{event:?}\n")).collect::<String>();
            format!("{events}wakes at {wake:?}")
        };
        prop_assert_eq!(&difference.replayed_output, &lines(&came));
        prop_assert_eq!(difference.recorded_output, text.then(|| lines(&had)));
        prop_assert!(shown.contains(&format!("call {number} at {now}")), "{}", shown);
        prop_assert_eq!(shown.contains("\n  - ") && shown.contains("\n  + "), text, "{}", shown);
    }

    #[test]
    fn a_ring_keeps_the_latest_calls(seed: u64, bytes in 0..6_000_usize, taken in 0..100_usize) {
        let mut random = Draw::new(seed);
        let (local, config) = (Key8::new([random.byte()]), config(&mut random));
        let mut ring = Recorder::<Eight>::new(local, config.clone(), &Secret::from_seed(0), Keep::Last { bytes }).unwrap();
        let mut full = Recorder::<Eight>::new(local, config, &Secret::from_seed(0), Keep::All).unwrap();
        let mut again = random.clone();
        live(&mut ring, &mut random, 100);
        live(&mut full, &mut again, 100);
        let (last, all) = (ring.bytes(), full.bytes());
        let nothing = Recorder::<Eight>::new(local, ring_config(&all), &Secret::from_seed(0), Keep::All).unwrap().bytes().len();
        prop_assert!(last.len() <= nothing + bytes + 32);
        let kept = Recording::<Eight>::open(&last).unwrap().calls().collect::<Result<Vec<_>, _>>().unwrap();
        let calls = Recording::<Eight>::open(&all).unwrap().calls().collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(&kept[..], &calls[100 - kept.len()..]);
        // As many calls as there is room for.
        let next = 100 - kept.len();
        if next > 0 {
            let ends = frames(&all);
            prop_assert!(ends[100] - ends[next - 1] > bytes);
            prop_assert_eq!(check(&last), Err(ReplayError::Partial { calls: 0, lost: next as u64 }));
        } else {
            prop_assert_eq!(&last, &all);
        }

        // A recording that is taken in pieces.
        let mut random = Draw::new(seed);
        let (local, config) = (Key8::new([random.byte()]), self::config(&mut random));
        let mut pieces = Recorder::<Eight>::new(local, config, &Secret::from_seed(0), Keep::All).unwrap();
        live(&mut pieces, &mut random.clone(), taken);
        let mut file = pieces.take();
        prop_assert_eq!(replay::<Eight>(&file), Err(ReplayError::Truncated { calls: taken as u64 }));
        file.extend(pieces.bytes());
        prop_assert_eq!(check(&file).unwrap().calls, taken as u64);
    }
}

/// Cuts the recording, whose frames end at these places, to this length, and checks the error.
fn cut(bytes: &[u8], ends: &[usize], length: usize) -> Result<(), TestCaseError> {
    let calls = ends.iter().filter(|end| **end <= length).count().saturating_sub(1) as u64;
    let error = match length {
        0..8 => ReplayError::NotARecording,
        _ => ReplayError::Truncated { calls },
    };
    let found = check(&bytes[..length]);
    prop_assert_eq!(found, Err(error), "{} of {}", length, bytes.len());
    Ok(())
}

#[test]
fn every_truncation_and_every_changed_byte_is_an_error() {
    let bytes = life(5, 4, false).bytes();
    let ends = frames(&bytes);
    for place in 0..bytes.len() {
        cut(&bytes, &ends, place).unwrap();
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x11;
        assert!(replay::<Eight>(&bytes).is_err(), "byte {place}");
    }
}

/// The recorded configuration.
fn ring_config(bytes: &[u8]) -> Config {
    Recording::<Eight>::open(bytes).unwrap().config().clone()
}

/// Where each frame ends; the first is the construction.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 9);
    while at < bytes.len() {
        let length = bytes[at..at + 4].try_into().unwrap();
        at += 8 + u32::from_le_bytes(length) as usize;
        ends.push(at);
    }
    ends
}

#[test]
fn the_scenarios_compare_many_calls() {
    let bytes: Vec<_> = (0..=255).map(|byte: u8| byte.wrapping_mul(31)).collect();
    maintenance_contract::run_scenario::<Taped<Grouped>>(&bytes);
    run_on::<1, Taped<Net<1>>>(&Scenario::decode(MachineKind::Coordinator, &[&[0; 28], &bytes[..]].concat()));
    assert!(JUDGED.with_borrow(|judged| *judged) > 200);
}

#[test]
fn what_cannot_be_replayed_gives_the_reason() {
    let bytes = life(1, 5, false).bytes();
    assert_eq!(replay::<Eight>(b"a JPEG, say"), Err(ReplayError::NotARecording));
    assert_eq!(replay::<Eight>(b""), Err(ReplayError::NotARecording));

    let mut newer = bytes.clone();
    newer[8] += 1;
    let error = replay::<Eight>(&newer).unwrap_err();
    assert_eq!(error, ReplayError::Format { found: 8, known: 7 });
    assert_eq!(error.to_string(), "recorded in format 8, where this version knows 7");

    let wide = replay::<Net<20>>(&bytes).unwrap_err();
    assert_eq!(wide, ReplayError::KeyBits { found: 8, expected: 160 });

    // Keys of the same width, but other nodes.
    let other = replay::<Grouped>(&life(4, 50, false).bytes()).unwrap_err();
    assert!(matches!(other, ReplayError::Unreadable { .. }), "{other}");

    // Bytes after the end.
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(replay::<Eight>(&longer), Err(ReplayError::Damaged { calls: 5 }));

    // One call is missing between two others.
    let ends = frames(&bytes);
    let fewer = [&bytes[..ends[2]], &bytes[ends[3]..]].concat();
    let replayed = replay::<Eight>(&fewer);
    assert!(!matches!(&replayed, Ok(replayed) if replayed.difference.is_none()), "{replayed:?}");

    assert_eq!(Recording::<Eight>::open(&bytes).unwrap().version(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_invalid_recorded_configuration_names_its_field() {
    let with = |alpha| {
        let mut config = Config::default();
        config.query.alpha = alpha;
        Recorder::<Eight>::new(Key8::new([0]), config, &Secret::from_seed(0), Keep::All).unwrap().bytes()
    };
    let (mut three, five) = (with(3), with(5));
    // After the checksum of the first frame, the field is the only difference.
    let place = (17..three.len()).find(|place| three[*place] != five[*place]).unwrap();
    assert_eq!((three[place], five[place]), (3, 5));
    three[place] = 0;
    assert_eq!(replay::<Eight>(&three), Err(ReplayError::Damaged { calls: 0 }));
    let error = Recording::<Eight>::mutated(&three).unwrap().replay().unwrap_err();
    assert!(matches!(error, ReplayError::Config(error) if error.field() == "query.alpha"), "{error}");
}

#[test]
fn a_forged_length_allocates_little() {
    let mut recorder =
        Recorder::<Eight>::new(Key8::new([0]), Config::default(), &Secret::from_seed(0), Keep::All).unwrap();
    let seeds = vec![(Key8::new([0x55]), 7); 3];
    let _ = recorder.handle(Instant::ORIGIN, Inbound::Routing(RoutingInbound::Seeds(seeds)).into());
    let bytes = recorder.bytes();
    let place = bytes.windows(4).position(|window| window == [3, 1, 0x55, 7]).unwrap();
    // The list of three seeds claims 2^63.
    let length = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    let forged = [&bytes[..place], &length, &bytes[place + 1..]].concat();
    let mut outcome = None;
    let counted = allocation_counter::measure(|| outcome = Some(check(&forged)));
    assert!(outcome.unwrap().is_err());
    // The most that serde reserves in advance, for each time that the bytes are read.
    assert!(counted.bytes_max < 8 << 20, "{} bytes", counted.bytes_max);
    // The length of the frame.
    let mut forged = bytes.clone();
    forged[frames(&bytes)[0] + 3] = 0xff;
    assert_eq!(check(&forged), Err(ReplayError::Truncated { calls: 0 }));
}

/// A message whose serialization fails if it is 7.
#[derive(Clone, Debug, PartialEq)]
struct Fussy(u8);

impl Serialize for Fussy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 == 7 { Err(S::Error::custom("seven")) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for Fussy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u8::deserialize(from).map(Self)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
struct Refusing;

impl kad_proto::Family for Refusing {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = Fussy;

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

#[test]
fn an_event_that_cannot_be_serialized_ends_only_the_recording() {
    let mut recorder =
        Recorder::<Refusing>::new(Key8::new([0]), Config::default(), &Secret::from_seed(0), Keep::All)
            .unwrap();
    for message in [6, 7, 8] {
        let start = Start::message(u64::from(message), Key8::new([9]), Fussy(message));
        let start = start.with_seeds(vec![Key8::new([1])]);
        let out = recorder.handle(Instant::ORIGIN, Inbound::Start(start).into());
        assert!(out.iter().any(|out| matches!(out.event, Outbound::Request(_))), "{message}");
    }
    assert_eq!(replay::<Refusing>(&recorder.bytes()), Err(ReplayError::Unrecorded { calls: 1 }));
}

/// A family that panics on one node.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
struct Fragile;

impl kad_proto::Family for Fragile {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }

    fn admits(&self, node: &Key8) -> bool {
        assert_ne!(*node, Key8::new([0x66]), "a bug of the caller's");
        true
    }
}

#[test]
fn the_call_that_crashed_is_the_last_one_and_crashes_again() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for text in [false, true] {
        let mut recorder =
            Recorder::<Fragile>::new(Key8::new([0]), Config::default(), &Secret::from_seed(0), Keep::All)
                .unwrap();
        if text {
            recorder = recorder.with_text();
        }
        let discovered = |key| Stamped::new(Inbound::Routing(RoutingInbound::Discovered(Key8::new([key]))));
        let _ = recorder.handle(Instant::ORIGIN, discovered(0x55));
        let taken = recorder.take();
        let _ = recorder.handle(Instant::ORIGIN, discovered(0x56));
        let crash = catch_unwind(AssertUnwindSafe(|| {
            recorder.handle(Instant::from_secs(1), discovered(0x66)).into_iter().collect::<Vec<_>>()
        }));
        assert!(crash.is_err());
        let bytes = [taken, recorder.bytes()].concat();
        let recording = Recording::<Fragile>::open(&bytes).unwrap();
        let calls: Vec<_> = recording.calls().map(|call| call.unwrap()).collect();
        let last = calls.last().unwrap();
        assert_eq!((calls.len(), last.number, last.now), (3, 3, Instant::from_secs(1)));
        assert_eq!(last.event, discovered(0x66));
        let again = catch_unwind(AssertUnwindSafe(|| recording.replay()));
        assert!(again.is_err(), "{again:?}");
    }
    // A machine that does not crash gives nothing to compare the crashed call with.
    let mut recorder =
        Recorder::<Fragile>::new(Key8::new([0]), Config::default(), &Secret::from_seed(0), Keep::All)
            .unwrap();
    let event = Inbound::Routing(RoutingInbound::Discovered(Key8::new([0x66])));
    let crash = catch_unwind(AssertUnwindSafe(|| {
        recorder.handle(Instant::ORIGIN, event.into()).into_iter().collect::<Vec<_>>()
    }));
    assert!(crash.is_err());
    let replayed = Recording::<Fragile>::open(&recorder.bytes()).unwrap().replay_on(Deaf).unwrap();
    assert_eq!((replayed.calls, replayed.difference), (1, None));
}

/// A machine that emits nothing.
struct Deaf;

impl Machine for Deaf {
    type Inbound = Inbound<Fragile>;
    type Outbound = Outbound<Fragile>;

    fn handle_into(
        &mut self,
        _: Instant,
        _: Stamped<Inbound<Fragile>>,
        _: &mut kad_proto::Batch<Outbound<Fragile>>,
    ) {
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn keys_are_hexadecimal_in_text_formats() {
    let key = Key160::new([0xab; 20]);
    let text = serde_json::to_string(&key).unwrap();
    assert_eq!(text, format!("\"{key}\""));
    assert_eq!(serde_json::from_str::<Key160>(&text).unwrap(), key);
    let error = serde_json::from_str::<Key8>(&text).unwrap_err().to_string();
    assert!(error.contains("2 hexadecimal digits, not 40"), "{error}");
}

fn folder(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The recorded lookup of the documentation.
const LOOKUP: &str = "tests/recordings/lookup.kadrec";

/// Each recording is replayed without a difference. After an intended change, `KAD_RECORD=1` records them again.
#[test]
fn the_stored_recordings_replay_without_difference() {
    renewed();
    let paths = folder("tests/recordings");
    assert!(paths.len() >= 4, "{} files", paths.len());
    for path in paths {
        let replayed = check(&std::fs::read(&path).unwrap());
        if !cfg!(feature = "sim") && matches!(replayed, Err(ReplayError::KeyBits { found: 64, .. })) {
            continue; // a recording of the simulator
        }
        let replayed = replayed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(replayed.calls > 0, "{}", path.display());
        assert!(replayed.difference.is_none(), "{}: {}", path.display(), replayed.difference.unwrap());
    }
}

/// The corpus of the fuzz target; at least half of its files must still be readable as recordings.
#[test]
fn the_recording_corpus_replays_without_panic() {
    renewed();
    let paths = folder("fuzz/corpus/recording");
    assert!(paths.len() >= 20, "{} files", paths.len());
    let mut read = 0;
    for path in &paths {
        println!("{}", path.display()); // shown where an assertion fails
        let bytes = std::fs::read(path).unwrap();
        let _ = check(&bytes);
        read += usize::from(begins(&bytes));
    }
    assert!(2 * read >= paths.len(), "of {} files {read} can be read", paths.len());
}

fn renewed() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if std::env::var_os("KAD_RECORD").is_some() {
        ONCE.call_once(renew);
    }
}

fn renew() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in folder("tests/recordings") {
        let bytes = std::fs::read(&path).unwrap();
        // A recording in another format is kept, and fails.
        if let Ok(again) = again(&bytes) {
            std::fs::write(&path, again).unwrap();
        }
    }
    for (name, seed, calls, text) in [("long-life", 1, 80, false), ("in-full", 6, 16, true)] {
        std::fs::write(root.join("tests/recordings").join(name), life(seed, calls, text).bytes()).unwrap();
    }
    for seed in 0..24 {
        let recorder = life(100 + seed, 4 + seed as usize, seed == 3);
        std::fs::write(root.join(format!("fuzz/corpus/recording/life-{seed:02}")), recorder.bytes()).unwrap();
    }
    std::fs::copy(root.join(LOOKUP), root.join("fuzz/corpus/recording/mainline-lookup")).unwrap();
    #[cfg(feature = "sim")]
    simulated::renew(root);
}

/// Recordings of simulated nodes.
#[cfg(feature = "sim")]
mod simulated {
    use kad_proto::Config;
    use kad_proto::record::Keep;
    use kad_proto::sim::{
        Bootstrap, Broadcasts, Build, Eclipse, Link, MadeUp, Party, Scenario, Scheme, Workload, World,
    };
    use std::path::Path;
    use std::time::Duration;

    /// The recording of the node that starts the first lookup or broadcast.
    fn recording(scenario: &Scenario) -> Vec<u8> {
        let mut world = World::new(scenario.clone()).unwrap();
        world.run().unwrap();
        let lookup = world.lookups().first().map(|lookup| lookup.starter);
        let starter = lookup.or_else(|| world.broadcasts().first().map(|broadcast| broadcast.starter));
        let index = starter.unwrap().0 - world.handle(0).0;
        world = World::new(scenario.clone()).unwrap();
        world.record(index, Keep::All, false).unwrap();
        world.run().unwrap();
        world.recordings(index).pop().unwrap()
    }

    pub(super) fn renew(root: &Path) {
        let lookups = |lookups| Workload { lookups, ..Workload::default() };
        let fire = Scenario { workload: lookups(1), ..Scenario::under_fire() };
        std::fs::write(root.join("tests/recordings/under-fire"), recording(&fire)).unwrap();
        let few = || {
            let mut config = fire.config.clone();
            (config.query.k, config.query.alpha, config.table.bucket_size) = (4, 2, 4);
            Scenario { nodes: 60, k: 4, config, ..fire.clone() }
        };
        let broadcasts = |scheme| {
            let broadcasts =
                Some(Broadcasts { scheme, count: 1, warmup_lookups: 0, ..Broadcasts::default() });
            Scenario { broadcasts, workload: lookups(0), ..few() }
        };
        let joins = Bootstrap { seeds: 1, every: Duration::from_secs(1), settle: Duration::ZERO };
        let seeds = [
            ("lookup", few()),
            ("liars", Scenario { hostile: vec![Party::new(0.3, MadeUp), Party::new(0.3, Eclipse)], ..few() }),
            ("optimistic", broadcasts(Scheme::Optimistic { nodes: Some(60) })),
            ("sweep", broadcasts(Scheme::Sweep { records: 8 })),
            (
                "join",
                Scenario {
                    nodes: 8,
                    config: Config { routing: Config::default().routing, ..few().config },
                    build: Build::Bootstrap(joins),
                    link: Link { refusal: 1.0, ..Link::default() },
                    ..few()
                },
            ),
        ];
        for (name, scenario) in seeds {
            let path = root.join(format!("fuzz/corpus/recording/simulated-{name}"));
            std::fs::write(path, recording(&scenario)).unwrap();
        }
    }
}
