//! Time as the event loop sees it: what it waits for, and whether an answer is late.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with other tests
mod support;

use futures_channel::oneshot;
use kad_proto::{Config, Coordinator, Failure, Instant, Key160, RoutingConfig, Secret};
use kad_proto_async::{Call, Dht, Limits, Node, Reply, Timer, Transport};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use support::{Mem, key};

/// A clock that is set by hand, and what was waited for last.
#[derive(Clone, Debug, Default)]
struct Hand(Arc<(AtomicU64, Mutex<Option<Instant>>)>);

impl Timer for Hand {
    fn now(&self) -> Instant {
        Instant::from_millis(self.0.0.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, at: Instant) {
        *self.0.1.lock().unwrap() = Some(at);
        std::future::poll_fn(|_| if self.now() < at { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// Answers come when the test says so.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<oneshot::Sender<Reply<Mem>>>>>);

impl Transport<Mem> for Held {
    async fn request(&self, _: Call<Mem>) -> Result<Reply<Mem>, Failure<Mem>> {
        let (to, from) = oneshot::channel();
        self.0.lock().unwrap().push(to);
        from.await.map_err(|_| Failure::Failed)
    }
}

/// A lookup of which one request is in flight; then the clock is set to 2.5 s, and the answer comes. Returns how many requests
/// were answered, and how many timed out.
fn after_a_pause(arrived: Option<Instant>) -> (u64, u64) {
    let (clock, held) = (Hand::default(), Held::default());
    let config = Config { routing: RoutingConfig::off(), ..Config::default() };
    let node = Node::<Mem>::new(key(0), config, &Secret::from_seed(1)).unwrap();
    let (dht, run) = node.run(held.clone(), clock.clone()).unwrap();
    let mut run = pin!(run);
    let mut cx = Context::from_waker(Waker::noop());
    let mut lookup = pin!(dht.find_node(key(5)).with_seeds(vec![key(1)]).into_future());
    assert!(lookup.as_mut().poll(&mut cx).is_pending());
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let next = inspect(&dht, run.as_mut(), kad_proto::Machine::poll_timeout);
    assert_eq!(*clock.0.1.lock().unwrap(), next, "it waits until the engine is due, exactly");
    clock.0.0.store(2_500, Ordering::Relaxed);
    let answer = held.0.lock().unwrap().remove(0);
    answer.send(Reply { arrived, ..Reply::default() }).unwrap();
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let stats = inspect(&dht, run.as_mut(), Coordinator::request_stats);
    (stats.answered, stats.timed_out)
}

fn inspect<R: Send + 'static>(
    dht: &Dht<Mem>,
    run: Pin<&mut impl Future<Output = ()>>,
    read: fn(&Coordinator<Mem>) -> R,
) -> R {
    let mut cx = Context::from_waker(Waker::noop());
    let mut asked = pin!(dht.inspect(move |engine, _| read(engine)));
    assert!(asked.as_mut().poll(&mut cx).is_pending());
    assert!(run.poll(&mut cx).is_pending());
    let Poll::Ready(Ok(answer)) = asked.as_mut().poll(&mut cx) else { panic!() };
    answer
}

#[test]
fn an_answer_counts_as_of_when_it_arrived() {
    assert_eq!(after_a_pause(Some(Instant::from_millis(100))), (1, 0));
    assert_eq!(after_a_pause(Some(Instant::from_millis(9_999))), (0, 1), "not after now");
    assert_eq!(after_a_pause(None), (0, 1));
}

#[test]
fn the_timer_follows_what_is_due_next() {
    let clock = Hand::default();
    let config = Config { routing: RoutingConfig::off(), ..Config::default() };
    let node = Node::<Mem>::new(key(0), config, &Secret::from_seed(1)).unwrap();
    let (dht, run) = node.run(Held::default(), clock.clone()).unwrap();
    let mut run = pin!(run);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert_eq!(*clock.0.1.lock().unwrap(), None, "nothing is due");
    // Each is due before the one before.
    let mut lookups = Vec::new();
    for deadline in [90, 60, 30] {
        let lookup = dht.find_node(key(5)).with_seeds(vec![key(1)]);
        let mut lookup = Box::pin(lookup.until(Instant::from_millis(deadline)).into_future());
        assert!(lookup.as_mut().poll(&mut cx).is_pending());
        lookups.push(lookup);
        assert!(run.as_mut().poll(&mut cx).is_pending());
        let next = Some(Instant::from_millis(deadline));
        assert_eq!(inspect(&dht, run.as_mut(), kad_proto::Machine::poll_timeout), next);
        assert_eq!(*clock.0.1.lock().unwrap(), next);
    }
    // And later ones when those have gone.
    for deadline in [60, 90] {
        drop(lookups.pop());
        assert!(run.as_mut().poll(&mut cx).is_pending());
        assert_eq!(*clock.0.1.lock().unwrap(), Some(Instant::from_millis(deadline)));
    }
}

#[test]
fn what_could_not_be_stored_is_tried_again_ever_later() {
    let clock = Hand::default();
    let config = Config { routing: RoutingConfig::off(), ..Config::default() };
    let mut limits = Limits::default();
    limits.reprovide.interval = Duration::from_secs(1_000_000);
    limits.reprovide.retry_interval = Duration::from_secs(10);
    let node = Node::<Mem>::new(key(0), config, &Secret::from_seed(1)).unwrap().with_limits(limits);
    let (dht, run) = node.run(Held::default(), clock.clone()).unwrap();
    let mut run = pin!(run);
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = || assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let wakes = || clock.0.1.lock().unwrap().unwrap();
    // Nobody is known, so nobody stores it: neither the first time nor later.
    let mut provide = pin!(dht.provide(key(5), key(0)).repeated().into_future());
    assert!(provide.as_mut().poll(&mut cx).is_pending());
    poll();
    let Poll::Ready(Ok(finish)) = provide.as_mut().poll(&mut cx) else { panic!() };
    assert!(!finish.succeeded);
    for back_off in [10, 20, 40, 80, 120, 120] {
        // From three quarters to five quarters of it.
        let wait = wakes() - clock.now();
        let (least, most) = (Duration::from_millis(back_off * 750), Duration::from_millis(back_off * 1_250));
        assert!((least..=most + Duration::from_millis(1)).contains(&wait), "{back_off}: {wait:?}");
        clock.0.0.store(wakes().as_nanos() / 1_000_000 + 1, Ordering::Relaxed);
        poll();
    }
    let other = Key160::new([0; 20]);
    let before = wakes();
    let mut forget = pin!(dht.forget(&other));
    assert!(forget.as_mut().poll(&mut cx).is_ready());
    poll();
    assert_eq!(wakes(), before, "that was another one");
    let target = key(5);
    let mut forget = pin!(dht.forget(&target));
    assert!(forget.as_mut().poll(&mut cx).is_ready());
    *clock.0.1.lock().unwrap() = None;
    poll();
    clock.0.0.fetch_add(200_000, Ordering::Relaxed);
    poll();
    assert_eq!(*clock.0.1.lock().unwrap(), None, "nothing is due any more");
}
