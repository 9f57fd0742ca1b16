//! What silent nodes cost many lookups at once, in virtual time.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
mod support;

use futures_util::future::join_all;
use kad_proto::Config;
use kad_proto_async::{Limits, TokioTimer};
use std::time::Duration;
use support::{Manner, beside, key, with_network};

/// How long lookups take that begin at once, among 18 nodes that answer and 3 that are silent: the median and the longest.
async fn lookups(count: u64, max_per_node: usize) -> (Duration, Duration) {
    with_network(TokioTimer::new(), 21, async |net, _| {
        (5..8).for_each(|silent| net.set(&key(silent), Manner::Silent));
        let mut config = Config::default();
        config.network.max_per_node = max_per_node;
        let (dht, run) = net.add(key(77_777), config, Limits::default(), Manner::Answers);
        beside([run], async {
            dht.bootstrap(vec![key(0)]).await.unwrap();
            let found =
                join_all((0..count).map(|number| dht.find_node(key(1_000 + number)).into_future())).await;
            let stats = found.into_iter().map(|found| found.unwrap().stats);
            let mut took: Vec<_> = stats.map(|stats| stats.ended.unwrap() - stats.started).collect();
            took.sort();
            (took[took.len() / 2], took[took.len() - 1])
        })
        .await
    })
    .await
}

/// So many at once end within so many times the time of one alone.
async fn end_within(times: u32) {
    let (alone, _) = lookups(1, 16).await;
    for count in [10, 50, 100, 200] {
        let (ours, without) = (lookups(count, 16).await, lookups(count, 1_000).await);
        println!(
            "{count} at once: {ours:.1?}; {without:.1?} without the limit for each node; one alone {alone:.1?}"
        );
        assert!(ours.1 < times * alone, "{count} at once");
    }
}

/// A few rounds of the time-out: the first requests, their repeats, and those that came meanwhile.
#[tokio::test(start_paused = true)]
async fn the_wait_for_silent_nodes_does_not_grow_with_the_number_of_lookups() {
    end_within(3).await;
}
