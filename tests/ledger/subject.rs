//! The machines that run operations, in one shape: the coordinator's events, which are a superset.

use super::net::Net;
use kad_proto::broadcast::{Inbound as CastInbound, Outbound as CastOutbound};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::crawl::{Inbound as CrawlInbound, Outbound as CrawlOutbound};
use kad_proto::netsize::NotEnoughData;
use kad_proto::query::{Inbound as QueryInbound, Outbound as QueryOutbound};
use kad_proto::{
    Bits, BroadcastPool, Config, ConfigError, Coordinator, Crawl, Instant, Machine, Query, QueryPool,
    RoutingTable, Stamped, Traffic,
};

pub(crate) type In<const N: usize> = Stamped<Inbound<Net<N>>>;
pub(crate) type Out<const N: usize> = Stamped<Outbound<Net<N>>>;

pub(crate) trait Subject<const N: usize>: Clone {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError>;
    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn traffic(&self) -> Traffic;

    /// Operations that live, and how many of them run, where the machine tells.
    fn counts(&self) -> Option<(usize, usize)>;

    fn table(&self) -> Option<&RoutingTable<Net<N>>> {
        None
    }

    /// How large the network is.
    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        let _ = now;
        Err(NotEnoughData { samples: 0, needed: 1 })
    }
}

/// The same event for a machine that knows lookups only; notices of nodes are ticks to it.
fn narrow<const N: usize>(event: In<N>) -> Stamped<QueryInbound<Net<N>>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Start(start) => QueryInbound::Start(start),
        Inbound::Stop(id) => QueryInbound::Stop(id),
        Inbound::Answered { request, closer } => QueryInbound::Answered { request, closer },
        Inbound::AnsweredWith { request, closer, carried } => {
            QueryInbound::AnsweredWith { request, closer, carried }
        }
        Inbound::Failed(request) => QueryInbound::Failed(request),
        Inbound::Rejected { request, why } => QueryInbound::Rejected { request, why },
        _ => QueryInbound::Tick,
    };
    Stamped { event, context, deadline }
}

fn widen<const N: usize>(event: Stamped<QueryOutbound<Net<N>>>) -> Out<N> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        QueryOutbound::Started(payload) => Outbound::Started(payload),
        QueryOutbound::Request(payload) => Outbound::Request(payload),
        QueryOutbound::Cancel(payload) => Outbound::Cancel(payload),
        QueryOutbound::Progress(payload) => Outbound::Progress(payload),
        QueryOutbound::Finished(payload) => Outbound::Finished(payload),
        QueryOutbound::Refused(payload) => Outbound::Refused(payload),
    };
    Stamped { event, context, deadline }
}

/// The same event for a machine that knows crawls only.
fn narrow_crawl<const N: usize>(event: In<N>) -> Stamped<CrawlInbound<Net<N>>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Crawl(start) => CrawlInbound::Start(start),
        Inbound::Stop(id) => CrawlInbound::Stop(id),
        Inbound::Answered { request, closer } => CrawlInbound::Answered { request, closer },
        Inbound::Failed(request) => CrawlInbound::Failed(request),
        Inbound::Tick => CrawlInbound::Tick,
        other => panic!("a crawl is not told {other:?}"),
    };
    Stamped { event, context, deadline }
}

fn widen_crawl<const N: usize>(event: Stamped<CrawlOutbound<Net<N>>>) -> Out<N> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        CrawlOutbound::Started(payload) => Outbound::Started(payload),
        CrawlOutbound::Request(payload) => Outbound::Request(payload),
        CrawlOutbound::Cancel(payload) => Outbound::Cancel(payload),
        CrawlOutbound::Progress(payload) => Outbound::CrawlProgress(payload),
        CrawlOutbound::Finished(payload) => Outbound::CrawlFinished(payload),
        CrawlOutbound::Refused(payload) => Outbound::Refused(payload),
    };
    Stamped { event, context, deadline }
}

/// The same event for a machine that knows broadcasts only.
fn narrow_cast<const N: usize>(event: In<N>) -> Stamped<CastInbound<Net<N>>> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        Inbound::Broadcast(start) => CastInbound::Start(start),
        Inbound::Stop(id) => CastInbound::Stop(id),
        Inbound::Answered { request, closer } => CastInbound::Answered { request, closer },
        Inbound::AnsweredWith { request, closer, carried } => {
            CastInbound::AnsweredWith { request, closer, carried }
        }
        Inbound::Failed(request) => CastInbound::Failed(request),
        Inbound::Rejected { request, why } => CastInbound::Rejected { request, why },
        Inbound::Connected { .. } | Inbound::Disconnected(_) | Inbound::Tick => CastInbound::Tick,
        other => panic!("a broadcast is not told {other:?}"),
    };
    Stamped { event, context, deadline }
}

fn widen_cast<const N: usize>(event: Stamped<CastOutbound<Net<N>>>) -> Out<N> {
    let Stamped { event, context, deadline } = event;
    let event = match event {
        CastOutbound::Started(payload) => Outbound::Started(payload),
        CastOutbound::Request(payload) => Outbound::Request(payload),
        CastOutbound::Cancel(payload) => Outbound::Cancel(payload),
        CastOutbound::Progress(payload) => Outbound::BroadcastProgress(payload),
        CastOutbound::Finished(payload) => Outbound::BroadcastFinished(payload),
        CastOutbound::Refused(payload) => Outbound::Refused(payload),
    };
    Stamped { event, context, deadline }
}

impl<const N: usize> Subject<N> for BroadcastPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        BroadcastPool::new(local, config.broadcast, config.pool, config.network)
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
        Machine::handle(self, now, narrow_cast(event)).into_iter().map(widen_cast).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn traffic(&self) -> Traffic {
        BroadcastPool::traffic(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.operations(), self.running()))
    }
}

impl<const N: usize> Subject<N> for Crawl<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Crawl::new(local, config.crawl, config.network)
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
        Machine::handle(self, now, narrow_crawl(event)).into_iter().map(widen_crawl).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn traffic(&self) -> Traffic {
        Crawl::traffic(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        None
    }
}

impl<const N: usize> Subject<N> for Query<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Query::new(local, config.pool.query, config.network)
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
        Machine::handle(self, now, narrow(event)).into_iter().map(widen).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn traffic(&self) -> Traffic {
        Query::traffic(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        None
    }
}

impl<const N: usize> Subject<N> for QueryPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        QueryPool::new(local, config.pool, config.network)
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
        Machine::handle(self, now, narrow(event)).into_iter().map(widen).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn traffic(&self) -> Traffic {
        QueryPool::traffic(self)
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.operations(), self.running()))
    }
}

impl<const N: usize> Subject<N> for Coordinator<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Coordinator::new(local, config)
    }

    fn handle(&mut self, now: Instant, event: In<N>) -> Vec<Out<N>> {
        Machine::handle(self, now, event).into_iter().collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Machine::poll_timeout(self)
    }

    fn traffic(&self) -> Traffic {
        Coordinator::traffic(self)
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
