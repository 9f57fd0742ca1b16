//! The same tests under tokio, in virtual time, and under smol, in real time.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)] // small numbers

mod support;

use futures_util::future::{join_all, poll_immediate};
use kad_proto::broadcast::StoreEnd;
use kad_proto::crawl::Reach;
use kad_proto::{
    Config, Finish, Key160, NetworkConfig, Outcome, ReprovideConfig, RoutingConfig, ValueReport,
};
use kad_proto_async::{Dht, Error, Limits, Timer};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;
use support::{Manner, Mem, Net, beside, key, with_network};

macro_rules! under_both {
    ($($name:ident)*) => {
        mod tokio_runtime {
            $(#[test]
            fn $name() {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_time().start_paused(true).build().unwrap();
                runtime.block_on(async { super::$name(kad_proto_async::TokioTimer::new()).await });
            })*
        }
        mod smol_runtime {
            $(#[test]
            fn $name() {
                smol::block_on(super::$name(kad_proto_async::SmolTimer::new()));
            })*
        }
    };
}

under_both! {
    the_closest_nodes_are_exact
    what_is_stored_is_found
    the_own_store_is_searched
    enough_is_enough
    a_deadline_ends_with_what_was_found
    dropping_aborts
    operations_wait_for_room
    a_wait_for_room_ends_by_the_deadline
    shutdown_ends_all
    a_transport_that_fails
    a_transport_that_never_answers
    nothing_is_polled_without_need
    progress_is_a_stream_that_waits_for_nobody
    a_crawl_maps_the_network
    what_is_not_valid_is_taken_out
    the_newest_value_is_found_and_given_to_those_that_lack_it
    records_are_stored_again
    the_last_handle_ends_the_node
}

/// A table that does nothing by itself.
fn quiet() -> Config {
    Config { routing: RoutingConfig::off(), ..Config::default() }
}

fn limits(edit: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    edit(&mut limits);
    limits
}

fn nodes<'a>(contacts: impl IntoIterator<Item = &'a kad_proto::Contact<Mem>>) -> Vec<Key160> {
    contacts.into_iter().map(|contact| contact.node).collect()
}

/// Returns when all that was sent to the event loop before has been handled.
async fn settled(dht: &Dht<Mem>) -> (usize, u64) {
    dht.inspect(|engine, _| (engine.operations(), engine.request_stats().sent)).await.unwrap()
}

async fn the_closest_nodes_are_exact<C: Timer + Copy>(timer: C) {
    with_network(timer, 60, async |net, all| {
        for (number, dht) in all.iter().enumerate().step_by(12) {
            let own = key(number as u64);
            for target in (1_000..1_004).map(key) {
                let found = dht.find_node(target).await.unwrap();
                assert_eq!(found.outcome, Outcome::Converged);
                assert_eq!(nodes(&found.closest), net.closest(&target, 20, &own));
            }
            let few = dht.find_node(key(9)).results(3).await.unwrap();
            assert_eq!(nodes(&few.closest).len(), 3);
            assert!(!dht.closest(&key(9), 5).is_empty());
        }
    })
    .await;
}

async fn what_is_stored_is_found<C: Timer + Copy>(timer: C) {
    with_network(timer, 40, async |net, all| {
        let target = key(2_000);
        let stored = all[1].put(target, "a value".into()).await.unwrap();
        assert!(stored.succeeded && stored.stores.iter().all(|store| store.end == StoreEnd::Stored));
        let mut at: Vec<_> = stored.stores.iter().map(|store| store.node).collect();
        at.sort_by_key(|id| kad_proto::Key::distance(id, &target));
        // The k closest, and whoever else is in the region of the key.
        let closest = net.closest(&target, 20, &key(1));
        assert!(at.starts_with(&closest) && at.len() <= 40, "{at:?}, closest {closest:?}");

        let mut found = all[2].get(target).start();
        let mut answers = 0;
        while let Some(value) = found.next().await {
            assert_eq!(value.item, "a value");
            answers += u32::from(value.from.is_some());
        }
        let finish = found.finish().await.unwrap();
        assert!(answers >= 19, "{answers} of 20, without itself");
        assert_eq!(finish.to_correct().count(), finish.closest.iter().filter(|it| !it.has_value()).count());
        assert_eq!(finish.values.valid, answers);
        assert_eq!(all[3].get(target).first().await, Ok(Some("a value".into())));
        assert_eq!(all[3].get(key(2_001)).first().await, Ok(None));

        // What is not valid is refused, and would not be taken.
        let refused = all[1].put(target, "!".into()).await.unwrap();
        assert!(!refused.succeeded);
        assert!(refused.stores.iter().all(|store| matches!(store.end, StoreEnd::Rejected(_))));

        for provider in [5, 6, 7] {
            assert!(all[5].provide(target, key(provider)).optimistic().await.unwrap().succeeded);
        }
        let mut providers = all[8].get_providers(target).start();
        let mut each = Vec::new();
        while let Some(found) = providers.next().await {
            each.push(found.item);
        }
        each.sort_unstable();
        let mut expected = [5, 6, 7].map(key).to_vec();
        expected.sort_unstable();
        assert_eq!(each, expected, "each once");
    })
    .await;
}

async fn the_own_store_is_searched<C: Timer + Copy>(timer: C) {
    let net = Net::new(timer, Duration::ZERO);
    let (dht, run) = net.add(key(0), quiet(), Limits::default(), Manner::Answers);
    beside([run], async {
        let ask =
            kad_proto::Ask::Store { message: kad_proto_async::Payload::Put("mine".into()), token: None };
        dht.serve(&key(5), &ask, None).unwrap();
        let ask = kad_proto::Ask::Store { message: kad_proto_async::Payload::Provide(key(7)), token: None };
        dht.serve(&key(5), &ask, None).unwrap();
        let found = dht.get(key(5)).start().next().await.unwrap();
        assert_eq!((found.item.as_str(), found.from), ("mine", None));
        let found = dht.get_providers(key(5)).enough(1).start().next().await.unwrap();
        assert_eq!((found.item, found.from), (key(7), None));
        // Nobody was asked for what is here.
        let finish = dht.get(key(5)).with_seeds(vec![key(1)]).enough(1).await.unwrap();
        assert_eq!((finish.outcome, finish.values.newest), (Outcome::Quorum, Some(1)));
        assert_eq!(net.sent.load(Ordering::Relaxed), 0);
    })
    .await;
}

async fn enough_is_enough<C: Timer + Copy>(timer: C) {
    with_network(timer, 40, async |net, all| {
        let target = key(2_000);
        for provider in 0..8 {
            all[1].provide(target, key(provider)).await.unwrap();
        }
        all[1].put(target, "a value".into()).await.unwrap();
        // One that is not itself among those that store them.
        let closest = net.closest(&target, 25, &key(u64::MAX));
        let far = (0..40).find(|seed| !closest.contains(&key(*seed))).unwrap() as usize;
        let before = net.sent.load(Ordering::Relaxed);
        let mut some = all[far].get_providers(target).enough(3).start();
        let mut count = 0;
        while some.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
        let finish = some.finish().await.unwrap();
        assert!(matches!(finish.outcome, Outcome::Stopped), "{:?}", finish.outcome);
        let finish = all[far].get(target).enough(2).await.unwrap();
        assert_eq!(finish.outcome, Outcome::Quorum);
        let sent = net.sent.load(Ordering::Relaxed) - before;
        assert!(sent < 30, "{sent} requests for two searches that ended early");
    })
    .await;
}

async fn what_is_not_valid_is_taken_out<C: Timer + Copy>(timer: C) {
    let net = Net::new(timer, Duration::ZERO);
    let (dht, run) = net.add(key(0), quiet(), Limits::default(), Manner::Answers);
    let (_, other) = net.add(key(1), quiet(), Limits::default(), Manner::Lies);
    beside([run, other], async {
        let mut found = dht.get(key(5)).with_seeds(vec![key(1)]).start();
        let first = found.next().await.unwrap();
        assert_eq!((first.item.as_str(), first.from), ("valid", Some(key(1))));
        assert!(found.next().await.is_none());
        // Nobody who looks up nodes is told of values.
        let lookup = dht.find_node(key(5)).with_seeds(vec![key(1)]).await.unwrap();
        assert!(!lookup.closest[0].has_value());
    })
    .await;
}

async fn the_newest_value_is_found_and_given_to_those_that_lack_it<C: Timer + Copy>(timer: C) {
    let net = Net::new(timer, Duration::ZERO);
    let manner = |seed| if seed == 4 { Manner::OnlyLies } else { Manner::Answers };
    let add = |seed| net.add(key(seed), quiet(), Limits::default(), manner(seed));
    let (all, runs): (Vec<_>, Vec<_>) = (0..6).map(add).unzip();
    beside(runs, async {
        let put = |value: &str| kad_proto::Ask::Store {
            message: kad_proto_async::Payload::Put(value.into()),
            token: None,
        };
        for (seed, value) in [(0, "2"), (1, "1"), (2, "3"), (5, "3")] {
            all[seed].serve(&key(77), &put(value), None).unwrap();
        }
        let search = || all[0].get(key(77)).with_seeds((1..6).map(key).collect());
        assert_eq!(search().newest().await, Ok(Some("3".into())));
        let finish = search().await.unwrap();
        let ValueReport { valid, older, invalid, .. } = finish.values;
        assert_eq!((valid, older, invalid), (2, 1, 1));
        let mut lacking = nodes(finish.to_correct());
        lacking.sort_unstable();
        let mut expected = [1, 3].map(key).to_vec();
        expected.sort_unstable();
        assert_eq!(lacking, expected, "neither the liar nor those that have it");
        let corrected = all[0].correct(&finish, "3".into()).await.unwrap();
        assert_eq!((corrected.succeeded, corrected.stores.len()), (true, 2));
        let again = search().enough(4).await.unwrap();
        assert_eq!((again.outcome, again.values.valid, again.to_correct().count()), (Outcome::Quorum, 4, 0));
        // The own value is older than theirs, and does not count.
        let short = search().enough(5).await.unwrap();
        assert_ne!(short.outcome, Outcome::Quorum);
        all[0].serve(&key(77), &put("3"), None).unwrap();
        assert_eq!(search().enough(5).await.unwrap().outcome, Outcome::Quorum);
    })
    .await;
}

/// A node alone among others, of which three answer, and the rest are silent.
fn among_silent<C: Timer + Copy>(
    timer: C,
    limits: Limits,
    config: Config,
) -> (Arc<Net<C>>, Dht<Mem>, Vec<futures_util::future::BoxFuture<'static, ()>>) {
    let net = Net::new(timer, Duration::ZERO);
    let (dht, run) = net.add(key(0), config, limits, Manner::Answers);
    let mut runs = vec![run];
    for seed in 1..60 {
        let manner = if seed <= 3 { Manner::Answers } else { Manner::Silent };
        runs.push(net.add(key(seed), quiet(), Limits::default(), manner).1);
    }
    (net, dht, runs)
}

async fn a_deadline_ends_with_what_was_found<C: Timer + Copy>(timer: C) {
    let (net, dht, runs) = among_silent(timer, Limits::default(), quiet());
    beside(runs, async {
        let lookup = dht.find_node(key(77)).with_seeds((1..40).map(key).collect());
        let found = lookup.within(Duration::from_millis(300)).await.unwrap();
        assert_eq!(found.outcome, Outcome::DeadlineExceeded);
        let mut answered = nodes(&found.closest);
        answered.sort_unstable();
        let mut expected: Vec<_> = [1, 2, 3].map(key).to_vec();
        expected.retain(|id| answered.contains(id));
        expected.sort_unstable();
        assert_eq!(answered, expected);
        settled(&dht).await;
        assert_eq!(net.live(), 0);
        // One that is over already is refused by name.
        let late = dht.find_node(key(77)).until(dht.now()).await;
        assert!(matches!(late, Err(Error::Refused(kad_proto::RefusalReason::DeadlinePassed))), "{late:?}");
    })
    .await;
}

async fn dropping_aborts<C: Timer + Copy>(timer: C) {
    let (net, dht, runs) = among_silent(timer, Limits::default(), quiet());
    beside(runs, async {
        let seeds: Vec<_> = (4..40).map(key).collect();
        let operation = |dht: &Dht<Mem>| dht.find_node(key(77)).with_seeds(seeds.clone());
        // A future.
        let mut lookup = Box::pin(operation(&dht).into_future());
        assert!(poll_immediate(&mut lookup).await.is_none());
        let (operations, sent) = settled(&dht).await;
        assert_eq!((operations, sent as usize), (1, net.live()));
        assert!(sent >= 3);
        drop(lookup);
        assert_eq!(settled(&dht).await.0, 0);
        assert_eq!((net.live(), net.aborted.load(Ordering::Relaxed) as u64), (0, sent));
        // A stream, and one that was never polled.
        let mut stream = operation(&dht).start();
        assert!(poll_immediate(pin!(stream.next())).await.is_none());
        assert_eq!(settled(&dht).await.0, 1);
        drop(stream);
        drop(operation(&dht).into_future());
        assert_eq!((settled(&dht).await.0, net.live()), (0, 0));
        // A broadcast and a crawl.
        let mut put = Box::pin(dht.put(key(5), "text".into()).with_seeds(seeds.clone()).into_future());
        let mut crawl = Box::pin(dht.crawl().with_seeds(seeds.clone()).into_future());
        assert!(poll_immediate(&mut put).await.is_none() && poll_immediate(&mut crawl).await.is_none());
        assert_eq!(settled(&dht).await.0, 2);
        assert!(net.live() > 0);
        drop((put, crawl));
        assert_eq!((settled(&dht).await.0, net.live()), (0, 0));
    })
    .await;
}

type Lookup = Pin<Box<dyn Future<Output = Result<Finish<Mem>, Error>>>>;

/// Starts so many lookups, which do not end by themselves.
fn start_many(dht: &Dht<Mem>, count: u64) -> Vec<Lookup> {
    let lookup = |seed| -> Lookup {
        Box::pin(dht.find_node(key(seed)).with_seeds(vec![key(9), key(10)]).into_future())
    };
    (0..count).map(lookup).collect()
}

async fn operations_wait_for_room<C: Timer + Copy>(timer: C) {
    let (net, dht, runs) = among_silent(timer, limits(|limits| limits.operations = 4), quiet());
    beside(runs, async {
        let mut many = start_many(&dht, 20);
        for one in &mut many {
            assert!(poll_immediate(one).await.is_none());
        }
        assert_eq!(settled(&dht).await.0, 4, "the others wait in their callers");
        let most = net.live();
        // Whoever goes makes room for one.
        drop(many.remove(0));
        for one in &mut many {
            let _ = poll_immediate(one).await;
        }
        settled(&dht).await;
        for one in &mut many {
            let _ = poll_immediate(one).await;
        }
        assert_eq!(settled(&dht).await.0, 4);
        assert_eq!(net.live(), most);
        // One that waits is dropped: nothing changes.
        drop(many.pop());
        assert_eq!(settled(&dht).await.0, 4);
        drop(many);
        assert_eq!((settled(&dht).await.0, net.live()), (0, 0));
    })
    .await;
}

async fn a_wait_for_room_ends_by_the_deadline<C: Timer + Copy>(timer: C) {
    let (_, dht, runs) = among_silent(timer, limits(|limits| limits.operations = 1), quiet());
    beside(runs, async {
        let mut first = start_many(&dht, 1);
        assert!(poll_immediate(&mut first[0]).await.is_none());
        let late = dht.find_node(key(5)).within(Duration::from_millis(50)).await;
        assert!(matches!(late, Err(Error::Refused(kad_proto::RefusalReason::DeadlinePassed))), "{late:?}");
        assert_eq!(settled(&dht).await.0, 1);
    })
    .await;
}

async fn shutdown_ends_all<C: Timer + Copy>(timer: C) {
    let (net, dht, runs) = among_silent(timer, limits(|limits| limits.operations = 4), quiet());
    beside(runs, async {
        let mut many = start_many(&dht, 8);
        for one in &mut many {
            assert!(poll_immediate(one).await.is_none());
        }
        settled(&dht).await;
        assert!(net.live() > 0);
        dht.shutdown().await;
        assert_eq!(net.live(), 0);
        let ends = join_all(many).await;
        let stopped =
            ends.iter().filter(|end| matches!(end, Ok(end) if end.outcome == Outcome::Stopped)).count();
        let closed = ends.iter().filter(|end| matches!(end, Err(Error::Closed))).count();
        assert_eq!((stopped, closed), (4, 4));
        // What comes later is told so.
        assert!(matches!(dht.find_node(key(1)).await, Err(Error::Closed)));
        assert_eq!(dht.get(key(1)).start().next().await, None);
        assert!(matches!(dht.inspect(|_, _| ()).await, Err(Error::Closed)));
        assert!(!dht.report(kad_proto::RoutingInbound::LinkUp));
        dht.shutdown().await;
    })
    .await;
}

async fn a_transport_that_fails<C: Timer + Copy>(timer: C) {
    let net = Net::new(timer, Duration::ZERO);
    let (dht, run) = net.add(key(0), quiet(), Limits::default(), Manner::Answers);
    let (_, other) = net.add(key(1), quiet(), Limits::default(), Manner::Fails);
    beside([run, other], async {
        // One that fails, and one that nobody knows.
        let found = dht.find_node(key(77)).with_seeds(vec![key(1), key(2)]).await.unwrap();
        assert!(found.closest.is_empty());
        assert!(matches!(found.outcome, Outcome::Exhausted | Outcome::Unreachable), "{:?}", found.outcome);
        assert_eq!((found.stats.failed, net.live()), (found.stats.sent, 0));
    })
    .await;
}

async fn a_transport_that_never_answers<C: Timer + Copy>(timer: C) {
    let network = NetworkConfig {
        request_timeout: Duration::from_millis(100),
        soft_timeout: Duration::from_millis(50),
        min_timeout: Duration::from_millis(50),
        ..NetworkConfig::default()
    };
    let (net, dht, runs) = among_silent(timer, Limits::default(), Config { network, ..quiet() });
    beside(runs, async {
        let found = dht.find_node(key(77)).with_seeds(vec![key(9), key(10)]).await.unwrap();
        assert_eq!((found.outcome, found.stats.answered), (Outcome::Unreachable, 0));
        settled(&dht).await;
        assert_eq!(net.live(), 0);
    })
    .await;
}

/// Counts calls of an engine, and checks that ticks are due.
#[derive(Debug)]
struct Counted {
    engine: kad_proto::Coordinator<Mem>,
    calls: Arc<AtomicUsize>,
}

impl AsRef<kad_proto::Coordinator<Mem>> for Counted {
    fn as_ref(&self) -> &kad_proto::Coordinator<Mem> {
        &self.engine
    }
}

impl kad_proto::Machine for Counted {
    type Inbound = kad_proto::coordinator::Inbound<Mem>;
    type Outbound = kad_proto::coordinator::Outbound<Mem>;

    fn handle_into(
        &mut self,
        now: kad_proto::Instant,
        event: kad_proto::Stamped<Self::Inbound>,
        out: &mut kad_proto::Batch<Self::Outbound>,
    ) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if matches!(event.event, kad_proto::coordinator::Inbound::Tick) {
            assert!(self.poll_timeout().is_some_and(|at| at <= now), "a tick that is not due");
        }
        self.engine.handle_into(now, event, out);
    }

    fn poll_timeout(&self) -> Option<kad_proto::Instant> {
        self.engine.poll_timeout()
    }
}

async fn nothing_is_polled_without_need<C: Timer + Copy>(timer: C) {
    let (calls, polls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (net, _, mut runs) = among_silent(timer, Limits::default(), quiet());
    let id = key(500);
    let engine = kad_proto::Coordinator::new(id, quiet(), &kad_proto::Secret::from_seed(1)).unwrap();
    let counted = Counted { engine, calls: calls.clone() };
    let (dht, mut run) = net.insert(kad_proto_async::Node::with_engine(counted, id), id, Manner::Answers);
    let seen = polls.clone();
    runs.push(Box::pin(std::future::poll_fn(move |cx| {
        seen.fetch_add(1, Ordering::Relaxed);
        run.as_mut().poll(cx)
    })));
    beside(runs, async {
        let lookup = dht.find_node(key(77)).with_seeds((1..20).map(key).collect());
        let found = lookup.within(Duration::from_millis(800)).await.unwrap();
        assert!(found.stats.sent > found.stats.answered);
        let before = (polls.load(Ordering::Relaxed), calls.load(Ordering::Relaxed));
        // The first, and then one for each event of the outside: the start, and wake-ups of the engine. Answers that come at
        // once are handled without a further poll.
        assert!(before.0 <= before.1 + 1, "{before:?}");
        // At rest nothing happens.
        timer.sleep_until(timer.now() + Duration::from_millis(500)).await;
        assert_eq!((polls.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), before);
    })
    .await;
}

async fn progress_is_a_stream_that_waits_for_nobody<C: Timer + Copy>(timer: C) {
    with_network(timer, 40, async |net, all| {
        let mut lookup = all[7].find_node(key(99)).start();
        let mut steps = 0;
        while let Some(step) = lookup.next().await {
            steps += 1;
            assert_eq!(step.stats.answered, steps);
        }
        assert_eq!(lookup.finish().await.unwrap().stats.answered, steps);

        // Of a stream that nobody reads, as much is kept as may be.
        let (dht, run) = net.add(key(600), quiet(), limits(|limits| limits.unread = 3), Manner::Answers);
        beside([run], async {
            let mut lookup = dht.find_node(key(99)).with_seeds((1..10).map(key).collect()).start();
            assert!(poll_immediate(pin!(lookup.next())).await.is_none());
            while settled(&dht).await.0 > 0 {
                timer.sleep_until(timer.now() + Duration::from_millis(20)).await;
            }
            let mut kept = 0;
            while lookup.next().await.is_some() {
                kept += 1;
            }
            assert!(kept == 3 && lookup.missed() > 0);
            let missed = lookup.missed();
            assert_eq!(u64::from(lookup.finish().await.unwrap().stats.answered), kept + missed);
        })
        .await;
    })
    .await;
}

async fn a_crawl_maps_the_network<C: Timer + Copy>(timer: C) {
    with_network(timer, 30, async |net, all| {
        net.set(&key(11), Manner::Fails);
        let map = all[0].crawl().await.unwrap();
        assert_eq!(map.outcome, Outcome::Complete);
        let of = |reach| map.nodes.iter().filter(move |node| node.reach == reach);
        assert_eq!(of(Reach::Reachable).count(), 28, "without itself");
        assert_eq!(of(Reach::Unreachable).map(|node| node.node).collect::<Vec<_>>(), [key(11)]);
    })
    .await;
}

async fn records_are_stored_again<C: Timer + Copy>(timer: C) {
    with_network(timer, 25, async |net, _| {
        let reprovide =
            ReprovideConfig { interval: Duration::from_millis(400), ..ReprovideConfig::default() };
        let (dht, run) = net.add(
            key(700),
            Config::default(),
            limits(|limits| limits.reprovide = reprovide),
            Manner::Answers,
        );
        beside([run], async {
            dht.bootstrap(vec![key(0)]).await.unwrap();
            let target = key(42);
            dht.provide(target, key(700)).repeated().await.unwrap();
            // Newcomers are nearer than those that have it.
            let near: Vec<_> = (0..5).map(|bit| kad_proto::Key::with_flipped(&target, 159 - bit)).collect();
            let add = |id: &Key160| net.add(*id, Config::default(), Limits::default(), Manner::Answers);
            let (fresh, runs): (Vec<_>, Vec<_>) = near.iter().map(add).unzip();
            beside(runs, async {
                for node in &fresh {
                    node.bootstrap(vec![key(0)]).await.unwrap();
                }
                let ask = kad_proto::Ask::Message(kad_proto_async::Payload::GetProviders);
                let has = |node: &Dht<Mem>| node.serve(&target, &ask, None).unwrap().providers == [key(700)];
                while !fresh.iter().all(has) {
                    timer.sleep_until(timer.now() + Duration::from_millis(50)).await;
                }
                dht.forget(&target).await.unwrap();
            })
            .await;
        })
        .await;
    })
    .await;
}

async fn the_last_handle_ends_the_node<C: Timer + Copy>(timer: C) {
    let node = kad_proto_async::Node::<Mem>::new(key(0), quiet(), &kad_proto::Secret::from_seed(1)).unwrap();
    let net = Net::new(timer, Duration::ZERO);
    let (dht, run) = node.run(support::Link(net, key(0)), timer).unwrap();
    let mut run = pin!(run);
    assert!(poll_immediate(&mut run).await.is_none());
    let other = dht.clone();
    drop(dht);
    assert!(poll_immediate(&mut run).await.is_none());
    drop(other);
    run.await;
}
