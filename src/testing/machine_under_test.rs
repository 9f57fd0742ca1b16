//! [`MachineUnderTest`]: the machines that run operations, behind one trait.

use crate::broadcast::{BroadcastPool, Inbound as BroadcastInbound, Outbound as BroadcastOutbound};
use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::crawl::{Crawl, Inbound as CrawlInbound, Outbound as CrawlOutbound};
use crate::lookups::query::{Inbound as QueryInbound, Outbound as QueryOutbound, Query};
use crate::lookups::query_pool::QueryPool;
use crate::maintenance::{Inbound as MaintenanceInbound, Maintenance, Outbound as MaintenanceOutbound};
use crate::network_size::estimator::NotEnoughData;
use crate::operations::config::PoolConfig;
use crate::requests::stats::RequestStats;
use crate::routing::table::RoutingTable;
use crate::vocabulary::family::Family;
use crate::vocabulary::machine::{Machine, Stamped};
use crate::vocabulary::operation_events::{OperationInbound, OperationOutbound};
use crate::vocabulary::time::Instant;

/// A machine that runs operations, as the checker calls it and reads it: with the events of a coordinator, which
/// contain those of every other machine.
///
/// It is implemented for [`Coordinator`], [`Query`], [`QueryPool`], [`BroadcastPool`], [`Crawl`] and
/// [`Maintenance`]. Implement it for a type of your own that contains one of them, such as a driver, to check that
/// it passes events on unchanged.
pub trait MachineUnderTest<F: Family>: Clone {
    /// Handles an event. One that the machine does not know is a tick to it.
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>>;

    /// See [`Machine::poll_timeout`].
    fn poll_timeout(&self) -> Option<Instant>;

    /// Statistics of all requests so far.
    fn request_stats(&self) -> RequestStats;

    /// The numbers of live and of running operations; `None` if the machine does not know them.
    fn counts(&self) -> Option<(usize, usize)>;

    /// How many operations may run and wait, and whether there are progress events, where the type of the machine
    /// decides it. The default is what the configuration says.
    fn pool(&self, config: &Config) -> PoolConfig {
        config.pool.clone()
    }

    /// The routing table, if it has one.
    fn table(&self) -> Option<&RoutingTable<F>> {
        None
    }

    /// The estimated number of nodes in the network.
    ///
    /// # Errors
    /// [`NotEnoughData`] if the machine has no estimate.
    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        let _ = now;
        Err(NotEnoughData::NONE)
    }
}

/// The event for a machine of one kind of operations, whose starts `start` selects; events about nodes become
/// ticks.
fn narrow<F: Family, S>(
    event: Stamped<Inbound<F>>,
    start: impl FnOnce(Inbound<F>) -> Option<S>,
) -> Stamped<OperationInbound<F, S>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Stop(id) => OperationInbound::Stop(id),
        Inbound::Response(response) => OperationInbound::Response(response),
        event => start(event).map_or(OperationInbound::Tick, OperationInbound::Start),
    };
    Stamped { event, context, deadline }
}

/// An outbound event of such a machine, as the coordinator's.
fn widen<F: Family, P, E>(
    event: Stamped<OperationOutbound<F, P, E>>,
    progress: impl FnOnce(P) -> Outbound<F>,
    finish: impl FnOnce(E) -> Outbound<F>,
) -> Stamped<Outbound<F>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        OperationOutbound::Started(payload) => Outbound::Started(payload),
        OperationOutbound::Request(payload) => Outbound::Request(payload),
        OperationOutbound::Cancel(payload) => Outbound::Cancel(payload),
        OperationOutbound::Progress(payload) => progress(payload),
        OperationOutbound::Finished(payload) => finish(payload),
        OperationOutbound::Refused(payload) => Outbound::Refused(payload),
    };
    Stamped { event, context, deadline }
}

fn narrow_lookup<F: Family>(event: Stamped<Inbound<F>>) -> Stamped<QueryInbound<F>> {
    narrow(event, |event| if let Inbound::Start(start) = event { Some(start) } else { None })
}

fn widen_lookup<F: Family>(event: Stamped<QueryOutbound<F>>) -> Stamped<Outbound<F>> {
    widen(event, Outbound::Progress, Outbound::Finished)
}

fn narrow_crawl<F: Family>(event: Stamped<Inbound<F>>) -> Stamped<CrawlInbound<F>> {
    narrow(event, |event| if let Inbound::Crawl(start) = event { Some(start) } else { None })
}

fn widen_crawl<F: Family>(event: Stamped<CrawlOutbound<F>>) -> Stamped<Outbound<F>> {
    widen(event, Outbound::CrawlProgress, Outbound::CrawlFinished)
}

fn narrow_broadcast<F: Family>(event: Stamped<Inbound<F>>) -> Stamped<BroadcastInbound<F>> {
    narrow(event, |event| if let Inbound::Broadcast(start) = event { Some(start) } else { None })
}

fn widen_broadcast<F: Family>(event: Stamped<BroadcastOutbound<F>>) -> Stamped<Outbound<F>> {
    widen(event, Outbound::BroadcastProgress, Outbound::BroadcastFinished)
}

impl<F: Family> MachineUnderTest<F> for BroadcastPool<F> {
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        Machine::handle(self, now, narrow_broadcast(event)).into_iter().map(widen_broadcast).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        BroadcastPool::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.operations(), self.running()))
    }
}

impl<F: Family> MachineUnderTest<F> for Crawl<F> {
    fn pool(&self, config: &Config) -> PoolConfig {
        PoolConfig { max_running: config.crawl.max_crawls.max(1), max_waiting: 0, ..PoolConfig::default() }
    }

    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        Machine::handle(self, now, narrow_crawl(event)).into_iter().map(widen_crawl).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        Crawl::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        None
    }
}

impl<F: Family> MachineUnderTest<F> for Query<F> {
    fn pool(&self, _config: &Config) -> PoolConfig {
        PoolConfig { max_running: 1, max_waiting: 0, ..PoolConfig::default() }
    }

    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        Machine::handle(self, now, narrow_lookup(event)).into_iter().map(widen_lookup).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        Query::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        None
    }
}

impl<F: Family> MachineUnderTest<F> for QueryPool<F> {
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        Machine::handle(self, now, narrow_lookup(event)).into_iter().map(widen_lookup).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        QueryPool::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.operations(), self.running()))
    }
}

/// Reads the event for a machine that maintains a table: of the starts it knows only bootstraps.
fn narrow_maintenance<F: Family>(
    event: Stamped<Inbound<F>>,
    local: F::Key,
) -> Stamped<MaintenanceInbound<F>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Start(start) if start.is_bootstrap(local) => {
            MaintenanceInbound::Bootstrap { tag: start.tag, seeds: start.seeds }
        }
        Inbound::Stop(id) => MaintenanceInbound::Stop(id),
        Inbound::Response(response) => MaintenanceInbound::Response(response),
        Inbound::Routing(event) => MaintenanceInbound::Routing(event),
        Inbound::Start(_) | Inbound::Crawl(_) | Inbound::Broadcast(_) | Inbound::Tick => {
            MaintenanceInbound::Tick
        }
    };
    Stamped { event, context, deadline }
}

fn widen_maintenance<F: Family>(event: Stamped<MaintenanceOutbound<F>>) -> Stamped<Outbound<F>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        MaintenanceOutbound::Started(payload) => Outbound::Started(payload),
        MaintenanceOutbound::Request(payload) => Outbound::Request(payload),
        MaintenanceOutbound::Cancel(payload) => Outbound::Cancel(payload),
        MaintenanceOutbound::Progress(payload) => Outbound::Progress(payload),
        MaintenanceOutbound::Finished(payload) => Outbound::Finished(payload),
        MaintenanceOutbound::Refused(payload) => Outbound::Refused(payload),
        MaintenanceOutbound::Routing(event) => Outbound::Routing(event),
    };
    Stamped { event, context, deadline }
}

impl<F: Family> MachineUnderTest<F> for Maintenance<F> {
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        let event = narrow_maintenance(event, self.table().local());
        Machine::handle(self, now, event).into_iter().map(widen_maintenance).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        Maintenance::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        None
    }

    fn table(&self) -> Option<&RoutingTable<F>> {
        Some(Maintenance::table(self))
    }
}

impl<F: Family> MachineUnderTest<F> for Coordinator<F> {
    fn handle(&mut self, now: Instant, event: Stamped<Inbound<F>>) -> Vec<Stamped<Outbound<F>>> {
        Machine::handle(self, now, event).into_iter().collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn request_stats(&self) -> RequestStats {
        Coordinator::request_stats(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.operations(), self.running()))
    }

    fn table(&self) -> Option<&RoutingTable<F>> {
        Some(Coordinator::table(self))
    }

    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        self.network_size(now).map(|size| size.nodes())
    }
}
