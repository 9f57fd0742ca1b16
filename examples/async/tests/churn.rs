//! Ten thousand operations that are started and dropped leave nothing: no request, no operation, no memory.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)] // shared with other tests
mod support;

use kad_proto::{Config, Instant, RoutingConfig};
use kad_proto_async::{Dht, Limits, Timer};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use support::{Manner, Mem, Net, key};

/// No time passes.
#[derive(Clone, Copy, Debug)]
struct Still;

impl Timer for Still {
    fn now(&self) -> Instant {
        Instant::from_secs(1)
    }

    async fn sleep_until(&self, _: Instant) {
        std::future::pending::<()>().await;
    }
}

type Any = Pin<Box<dyn Future<Output = ()>>>;

/// Operations of all kinds, whose requests are never answered.
fn start(dht: &Dht<Mem>, count: u64) -> Vec<Any> {
    let one = |seed: u64| -> Any {
        let (dht, target, seeds) = (dht.clone(), key(seed), vec![key(1), key(2), key(3)]);
        Box::pin(async move {
            let has_ended = match seed % 6 {
                0 => dht.find_node(target).with_seeds(seeds).await.is_ok(),
                1 => dht.get(target).with_seeds(seeds).start().next().await.is_none(),
                2 => dht.get_providers(target).enough(3).with_seeds(seeds).start().next().await.is_none(),
                3 => dht.put(target, "text".into()).with_seeds(seeds).await.is_ok(),
                4 => {
                    let provide = dht.provide(target, key(0)).optimistic().with_seeds(seeds);
                    provide.start().next().await.is_none()
                }
                _ => dht.crawl().with_seeds(seeds).start().next().await.is_none(),
            };
            panic!("ended, {has_ended}, though nobody answers");
        })
    };
    (0..count).map(one).collect()
}

/// Polls a node until it has nothing to do.
fn settle(run: &mut (impl Future<Output = ()> + Unpin)) {
    let mut cx = Context::from_waker(Waker::noop());
    // The loop lets others run after some events: as nobody counts its wake-ups here, poll it often enough.
    for _ in 0..2_000 {
        assert_eq!(Pin::new(&mut *run).poll(&mut cx), Poll::Pending);
    }
}

#[test]
fn ten_thousand_dropped_operations_leave_nothing() {
    let config = Config { routing: RoutingConfig::off(), ..Config::default() };
    let net = Net::new(Still, Duration::ZERO);
    let (dht, mut run) = net.add(key(0), config.clone(), Limits::default(), Manner::Answers);
    let _others: Vec<_> =
        (1..4).map(|seed| net.add(key(seed), config.clone(), Limits::default(), Manner::Silent)).collect();
    let mut round = |live: bool| {
        let mut all = start(&dht, 10_000);
        let mut cx = Context::from_waker(Waker::noop());
        for one in &mut all {
            assert!(one.as_mut().poll(&mut cx).is_pending());
        }
        if live {
            settle(&mut run);
            assert!(net.live() > 40, "the limit for each node is reached: {}", net.live());
        }
        drop(all);
        settle(&mut run);
        assert_eq!(net.live(), 0);
        let mut counts = pin!(dht.inspect(|engine, _| (engine.operations(), engine.request_stats())));
        assert!(counts.as_mut().poll(&mut cx).is_pending());
        settle(&mut run);
        let Poll::Ready(Ok((operations, stats))) = counts.as_mut().poll(&mut cx) else { panic!() };
        assert_eq!((operations, stats.in_flight, stats.listening, stats.queued), (0, 0, 0, 0));
    };
    // The tables grow to what they need in the first rounds.
    (0..2).for_each(|_| round(true));
    let left = allocation_counter::measure(|| (0..3).for_each(|_| round(true)));
    assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
    let left = allocation_counter::measure(|| round(false));
    assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
}
