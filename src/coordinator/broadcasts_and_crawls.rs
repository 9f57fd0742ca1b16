//! What the [`Engine`] of a coordinator does beyond that of a [`Maintenance`](crate::Maintenance): crawls,
//! broadcasts, and the estimate of the network's size.

use crate::broadcast::config::BroadcastConfig;
use crate::broadcast::events::{StartBroadcast, Strategy};
use crate::coordinator::any_task::AnyTask;
use crate::coordinator::events::Outbound;
use crate::crawl::config::CrawlConfig;
use crate::crawl::events::StartCrawl;
use crate::maintenance::known_size::known_size;
use crate::maintenance::quiescence::Engine;
use crate::network_size::NotEnoughData;
use crate::network_size::watch::SizeWatch;
use crate::requests::call_context::CallContext;
use crate::routing::table::TableEntry;
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Outcome;
use crate::vocabulary::target::Target;

impl<F: Family> Engine<F, AnyTask<F>> {
    /// Starts a crawl from all nodes of the table and the given seeds.
    pub(super) fn start_crawl(
        &mut self,
        call: &mut CallContext<'_, F, Outbound<F>>,
        start: Stamped<StartCrawl<F>>,
        config: &CrawlConfig,
    ) {
        let Self { operations, routing, .. } = self;
        operations.start_crawl(call, start, config, |seeds| {
            seeds.extend(routing.table.iter().map(|entry| entry.node().clone()));
        });
    }

    /// Starts a broadcast from the given seeds and the 2k nodes of the table closest to its key; a sweep from
    /// all nodes of the table, a static one from none.
    pub(super) fn start_broadcast(
        &mut self,
        call: &mut CallContext<'_, F, Outbound<F>>,
        start: Stamped<StartBroadcast<F>>,
        config: &BroadcastConfig,
    ) {
        let Self { operations, routing, query, size_watch } = self;
        let (now, table, k) = (call.now, &routing.table, query.k);
        let add_seeds = |start: &mut StartBroadcast<F>| {
            let node = |entry: &TableEntry<F>| entry.node().clone();
            match (&start.strategy, start.records.first()) {
                (Strategy::Static(_), _) | (_, None) => {}
                (Strategy::Sweep, _) => start.seeds.extend(table.iter().map(node)),
                (_, Some(record)) => {
                    start.seeds.extend(table.closest(record.target.key()).take(2 * k).map(node));
                }
            }
        };
        let estimate = || size_watch.as_ref().map_or(Err(NotEnoughData::NONE), |size| size.estimate(now));
        let size = || {
            let nodes = estimate().map(|estimate| estimate.nodes());
            (nodes, known_size(table, nodes.ok(), k))
        };
        operations.start_broadcast(call, start, config, query, add_seeds, size);
    }

    /// Samples the size of the network from the lookups that have converged: their finishes are among the
    /// outbound events from index `first_new` on. Emits the estimate if it has changed enough, and moves
    /// `first_new` to the end.
    pub(super) fn update_network_size(
        &mut self,
        call: &mut CallContext<'_, F, Outbound<F>>,
        first_new: &mut usize,
    ) {
        for Stamped { event, context, .. } in call.out.get(*first_new..).unwrap_or_default() {
            let (target, closest) = match event {
                Outbound::Finished(finish) if finish.outcome.shows_density() => {
                    (finish.target.key(), &finish.closest)
                }
                Outbound::BroadcastFinished(finish)
                    if finish.lookup_outcome.is_some_and(Outcome::shows_density) =>
                {
                    (finish.target.key(), &finish.closest)
                }
                _ => continue,
            };
            self.sample_size(call.now, target, closest, context);
        }
        if let Some((nodes, context)) = self.size_watch.as_mut().and_then(SizeWatch::take_news) {
            call.emit_detached(Outbound::NetworkSize { nodes }, context);
        }
        *first_new = call.out.len();
    }
}
