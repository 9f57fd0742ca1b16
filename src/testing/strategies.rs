//! Strategies for proptest (feature `proptest`): what comes into a machine, and small networks, of any family that says how its nodes
//! are [made up](Sample).
//!
//! What is rare in the field is frequent here: keys that differ in their last bits, instants that coincide, contexts without a
//! span, nodes that lie. What shrinks becomes fewer, smaller and healthier: networks lose nodes, silent nodes answer, lies become
//! plain answers, contexts lose their trace state.
//!
//! [`explore`] runs whole sequences of events against a machine, and returns how often each situation was reached, so that a test can
//! require the ones that it is about. [`network`] is for [`terminates`](crate::testing::terminates), that is for a driver under
//! virtual time.
//!
//! ```
//! use kad_proto::testing::{MachineKind, Sample, Scenario, strategies};
//! use kad_proto::{Family, Key8};
//!
//! #[derive(Clone, Debug, Default, PartialEq)]
//! struct Mine;
//!
//! impl Family for Mine {
//!     type Key = Key8;
//!     type Target = Key8;
//!     type Node = (Key8, u8);
//!     type Message = u64;
//!     fn key(node: &(Key8, u8)) -> Key8 {
//!         node.0
//!     }
//! }
//!
//! impl Sample for Mine {
//!     fn node(key: Key8, address: u8) -> (Key8, u8) {
//!         (key, address)
//!     }
//!     fn target(key: Key8) -> Key8 {
//!         key
//!     }
//!     fn message(number: u64) -> u64 {
//!         number
//!     }
//! }
//!
//! let reached = strategies::explore(MachineKind::Coordinator, 20, Scenario::check::<Mine>).unwrap();
//! assert!(reached["outcome: converged"] > 0);
//! ```

use crate::broadcast::events::StartBroadcast;
use crate::context::Context;
use crate::coordinator::events::Inbound;
use crate::crawl::events::StartCrawl;
use crate::testing::broken::Broken;
use crate::testing::draw::{Draw, key_of};
use crate::testing::sample::Sample;
use crate::testing::scenario::{MachineKind, STEP, Scenario};
use crate::testing::small_network::{Manner, SmallNetwork};
use crate::testing::world::Tally;
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Start;
use crate::vocabulary::request_events::{Answer, AnswerExtra, Failure, Verdict};
use crate::vocabulary::time::Instant;
use core::time::Duration;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::cell::RefCell;

/// Keys. Some differ in the last bits only, and some are near the ends of the key space.
pub fn key<K: Key>() -> impl Strategy<Value = K> {
    let bytes = usize::try_from(K::BITS / 8).unwrap_or_default();
    prop_oneof![
        2 => any::<u8>().prop_map(|first| key_of(&[first])),
        4 => proptest::collection::vec(any::<u8>(), bytes).prop_map(|bytes| key_of(&bytes)),
        1 => any::<u8>().prop_map(move |last| key_of(&[vec![0; bytes.saturating_sub(1)], vec![last]].concat())),
        1 => any::<u8>().prop_map(move |last| key_of(&[vec![0xff; bytes.saturating_sub(1)], vec![last]].concat())),
    ]
}

/// Nodes, of which several may have one key.
pub fn node<F: Sample>() -> impl Strategy<Value = F::Node> {
    (key(), 0..8_u8).prop_map(|(key, address)| F::node(key, address))
}

/// Targets.
pub fn target<F: Sample>() -> impl Strategy<Value = F::Target> {
    key().prop_map(F::target)
}

/// Instants: few different ones, so that they coincide often; the first and the last one, too.
pub fn instant() -> impl Strategy<Value = Instant> {
    prop_oneof![
        8 => (0..32_u64).prop_map(|times| Instant::from_millis(250 * times)),
        4 => (0..60_000_u64).prop_map(Instant::from_millis),
        1 => Just(Instant::ORIGIN),
        1 => Just(Instant::FAR_FUTURE),
    ]
}

/// Deadlines of a start at `now`: mostly none; some have passed, or are just now, or leave a moment.
pub fn deadline(now: Instant) -> impl Strategy<Value = Option<Instant>> {
    prop_oneof![
        8 => Just(None),
        6 => (1..20_000_u64).prop_map(move |millis| Some(now + Duration::from_millis(millis))),
        2 => (0..3_u64).prop_map(move |nanos| Some(now + Duration::from_nanos(nanos))),
        1 => Just(Some(Instant::ORIGIN)),
        1 => Just(Some(Instant::FAR_FUTURE)),
    ]
}

/// Contexts: of a parent or a link; invalid, unsampled, with a trace state. The trace is one of few.
pub fn context() -> impl Strategy<Value = Context> {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let state = prop_oneof![
        3 => Just(TraceState::NONE),
        1 => (0..100_u8).prop_map(|value| {
            TraceState::from_key_value([("vendor", value.to_string())]).unwrap_or_default()
        }),
    ];
    let trace = prop_oneof![7 => 1..5_u128, 1 => Just(0_u128)];
    let span = prop_oneof![7 => any::<u64>(), 1 => Just(0_u64)];
    let flags = prop_oneof![3 => Just(TraceFlags::SAMPLED), 1 => Just(TraceFlags::NOT_SAMPLED)];
    let parts = (trace, span, flags, any::<bool>(), state);
    (parts, prop_oneof![7 => Just(false), 1 => Just(true)]).prop_map(
        |((trace, span, flags, remote, state), link)| {
            let span = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, remote, state);
            if link { Context::Link(span) } else { Context::Parent(span) }
        },
    )
}

/// Starts with this tag that begin at `now`, from some of these nodes: mostly lookups; broadcasts and crawls, too. Some are refused.
pub fn start<F: Sample>(
    tag: u64,
    now: Instant,
    nodes: Vec<F::Node>,
) -> impl Strategy<Value = Stamped<Inbound<F>>> {
    let most = nodes.len().min(4);
    let seeds = proptest::sample::subsequence(nodes, 0..=most);
    (0..16_u8, target::<F>(), any::<u8>(), seeds, context(), deadline(now)).prop_map(
        move |(how, target, message, seeds, context, deadline)| {
            let message = F::message(u64::from(message));
            let event = match how {
                0..=6 => Inbound::Start(Start::find(tag, target).with_seeds(seeds)),
                7 | 8 => Inbound::Start(Start::message(tag, target, message).with_seeds(seeds)),
                9 => Inbound::Start(Start::find(tag, target).with_seeds(seeds).with_num_results(1)),
                10 => Inbound::Start(Start::message(tag, target, message).with_seeds(seeds).with_quorum(1)),
                11 => Inbound::Broadcast(StartBroadcast::fixed(tag, target, message, seeds)),
                12 => Inbound::Broadcast(StartBroadcast::optimistic(tag, target, message).with_seeds(seeds)),
                13 | 14 => {
                    Inbound::Broadcast(StartBroadcast::follow_up(tag, target, message).with_seeds(seeds))
                }
                _ => Inbound::Crawl(StartCrawl::new(tag).with_seeds(seeds)),
            };
            Stamped { event, context, deadline }
        },
    )
}

/// Starts with the tags from 1 on, at `now`, from some of these nodes: up to so many.
#[allow(clippy::needless_pass_by_value)] // as the others
pub fn starts<F: Sample>(
    most: usize,
    now: Instant,
    nodes: Vec<F::Node>,
) -> impl Strategy<Value = Vec<Stamped<Inbound<F>>>> {
    let all = (1..).take(most).map(|tag| start::<F>(tag, now, nodes.clone()).boxed()).collect::<Vec<_>>();
    (all, 1..=most.max(1)).prop_map(|(mut all, count)| {
        all.truncate(count);
        all
    })
}

/// What becomes of a request that some of these nodes could answer: mostly an answer, in full or in part, with a value, a token, or
/// neither; each kind of failure.
pub fn answer<F: Sample>(nodes: Vec<F::Node>) -> impl Strategy<Value = Result<Answer<F>, Failure<F>>> {
    let most = nodes.len().min(20);
    let named = proptest::sample::subsequence(nodes, 0..=most);
    let verdict = prop_oneof![
        6 => Just(Verdict::Nothing),
        4 => (0..4_u64).prop_map(Verdict::Valid),
        1 => Just(Verdict::Invalid),
    ];
    let extra = (verdict, proptest::option::of(any::<u8>()));
    let answered = (named, extra, prop_oneof![7 => Just(false), 1 => Just(true)]).prop_map(
        |(closer, (value, token), is_part)| {
            let token = token.map(|token| F::message(u64::from(token)));
            Ok(Answer { closer, extra: AnswerExtra { value, token }, is_part })
        },
    );
    prop_oneof![
        10 => answered,
        2 => Just(Err(Failure::Failed)),
        1 => any::<u8>().prop_map(|why| Err(Failure::Rejected(F::message(u64::from(why))))),
        1 => Just(Err(Failure::Unreachable)),
        1 => Just(Err(Failure::ConnectionRefused)),
        1 => Just(Err(Failure::Gone)),
    ]
}

/// Networks of up to so many nodes: most answer, some after long; some are silent, fail, or lie.
pub fn network<F: Sample>(most: usize) -> impl Strategy<Value = SmallNetwork<F>> {
    let manner = prop_oneof![
        8 => (1..400_u64).prop_map(|millis| Manner::Answers(Duration::from_millis(millis))),
        2 => (400..5_000_u64).prop_map(|millis| Manner::Answers(Duration::from_millis(millis))),
        2 => Just(Manner::Fails),
        2 => Just(Manner::Silent),
        2 => any::<u64>().prop_map(|seed| Manner::Lies(Draw::new(seed))),
    ];
    proptest::collection::vec((node::<F>(), manner), 0..=most).prop_map(SmallNetwork::new)
}

/// Bytes that [decode](Scenario::decode) to scenarios: they shrink step by step, and each step towards the simplest.
pub fn bytes(kind: MachineKind) -> impl Strategy<Value = Vec<u8>> {
    let byte = || prop_oneof![1 => Just(0), 2 => any::<u8>()];
    let header = proptest::collection::vec(byte(), kind.header());
    let steps = proptest::collection::vec(any::<[u8; STEP]>(), 0..120);
    (header, steps).prop_map(|(header, steps)| [header, steps.concat()].concat())
}

/// Scenarios for this kind of machine.
pub fn scenario(kind: MachineKind) -> impl Strategy<Value = Scenario> {
    bytes(kind).prop_map(move |bytes| Scenario::decode(kind, &bytes))
}

/// Plays so many scenarios, the same ones each time; returns how often each situation was reached. `play` may be
/// [`Scenario::check`] of a family, or [`Scenario::play`] with a machine of your own.
///
/// # Errors
/// How `play` fails, and the simplest scenario that was found in which it does, with the bytes that decode to it.
pub fn explore(
    kind: MachineKind,
    cases: u32,
    play: impl Fn(&Scenario) -> Result<Tally, Broken>,
) -> Result<Tally, String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[kind as u8; 32]);
    let reached = RefCell::new(Tally::new());
    let result = TestRunner::new_with_rng(config, rng).run(&bytes(kind), |bytes| {
        let tally = play(&Scenario::decode(kind, &bytes))
            .map_err(|broken| TestCaseError::fail(broken.to_string()))?;
        for (what, count) in tally {
            *reached.borrow_mut().entry(what).or_insert(0) += count;
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(reached.into_inner()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, bytes)) => {
            Err(format!("{reason}\nin {:#?}\nof the bytes {bytes:?}", Scenario::decode(kind, &bytes)))
        }
    }
}
