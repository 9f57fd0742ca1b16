//! The machines that run operations, behind one trait: all take and return the coordinator's events, which are a
//! superset of the others'.

use super::test_family::Net;
use kad_proto::broadcast::{Inbound as BroadcastInbound, Outbound as BroadcastOutbound};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::{Inbound as CrawlInbound, Outbound as CrawlOutbound};
use kad_proto::lookups::query::{Inbound as QueryInbound, Outbound as QueryOutbound};
use kad_proto::network_size::NotEnoughData;
use kad_proto::{
    Bits, BroadcastPool, Config, ConfigError, Coordinator, Crawl, Instant, Machine, OperationInbound,
    OperationOutbound, Query, QueryPool, RequestStats, RoutingTable, Secret, Stamped,
};

pub(crate) type In<const N: usize> = Stamped<Inbound<Net<N>>>;
pub(crate) type Out<const N: usize> = Stamped<Outbound<Net<N>>>;

pub(crate) trait MachineUnderTest<const N: usize>: Clone {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError>;
    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn request_stats(&self) -> RequestStats;

    /// The numbers of live and of running operations, where the machine offers them.
    fn counts(&self) -> Option<(usize, usize)>;

    fn table(&self) -> Option<&RoutingTable<Net<N>>> {
        None
    }

    /// The estimated network size.
    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        let _ = now;
        Err(NotEnoughData { samples: 0, needed: 1 })
    }
}

/// The event for a machine of one kind of operations, whose starts `start` selects; events about nodes become
/// ticks.
fn narrow<const N: usize, S>(
    event: In<N>,
    start: impl FnOnce(Inbound<Net<N>>) -> Option<S>,
) -> Stamped<OperationInbound<Net<N>, S>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Stop(id) => OperationInbound::Stop(id),
        Inbound::Response(response) => OperationInbound::Response(response),
        event => start(event).map_or(OperationInbound::Tick, OperationInbound::Start),
    };
    Stamped { event, context, deadline }
}

/// An outbound event of such a machine, as the coordinator's.
fn widen<const N: usize, P, E>(
    event: Stamped<OperationOutbound<Net<N>, P, E>>,
    progress: impl FnOnce(P) -> Outbound<Net<N>>,
    finish: impl FnOnce(E) -> Outbound<Net<N>>,
) -> Out<N> {
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

fn narrow_lookup<const N: usize>(event: In<N>) -> Stamped<QueryInbound<Net<N>>> {
    narrow(event, |event| if let Inbound::Start(start) = event { Some(start) } else { None })
}

fn widen_lookup<const N: usize>(event: Stamped<QueryOutbound<Net<N>>>) -> Out<N> {
    widen(event, Outbound::Progress, Outbound::Finished)
}

fn narrow_crawl<const N: usize>(event: In<N>) -> Stamped<CrawlInbound<Net<N>>> {
    narrow(event, |event| if let Inbound::Crawl(start) = event { Some(start) } else { None })
}

fn widen_crawl<const N: usize>(event: Stamped<CrawlOutbound<Net<N>>>) -> Out<N> {
    widen(event, Outbound::CrawlProgress, Outbound::CrawlFinished)
}

fn narrow_broadcast<const N: usize>(event: In<N>) -> Stamped<BroadcastInbound<Net<N>>> {
    narrow(event, |event| if let Inbound::Broadcast(start) = event { Some(start) } else { None })
}

fn widen_broadcast<const N: usize>(event: Stamped<BroadcastOutbound<Net<N>>>) -> Out<N> {
    widen(event, Outbound::BroadcastProgress, Outbound::BroadcastFinished)
}

impl<const N: usize> MachineUnderTest<N> for BroadcastPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        BroadcastPool::new(
            local,
            config.broadcast,
            config.query,
            config.pool,
            config.network,
            &Secret::from_seed(0),
        )
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
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

impl<const N: usize> MachineUnderTest<N> for Crawl<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Crawl::new(local, config.crawl, config.network, &Secret::from_seed(0))
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
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

impl<const N: usize> MachineUnderTest<N> for Query<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Query::new(local, config.query, config.network, &Secret::from_seed(0))
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
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

impl<const N: usize> MachineUnderTest<N> for QueryPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        QueryPool::new(local, config.query, config.pool, config.network, &Secret::from_seed(0))
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
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

impl<const N: usize> MachineUnderTest<N> for Coordinator<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Coordinator::new(local, config, &Secret::from_seed(0))
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
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

    fn table(&self) -> Option<&RoutingTable<Net<N>>> {
        Some(Coordinator::table(self))
    }

    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        self.network_size(now).map(|size| size.nodes())
    }
}
