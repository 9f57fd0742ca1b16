//! The machines under test, and how each is constructed from the configuration of a coordinator, which contains
//! those of all others.

use super::test_family::Net;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::testing::MachineUnderTest;
use kad_proto::{
    Bits, BroadcastPool, Config, ConfigError, Coordinator, Crawl, Query, QueryPool, Secret, Stamped,
};

pub(crate) type In<const N: usize> = Stamped<Inbound<Net<N>>>;
pub(crate) type Out<const N: usize> = Stamped<Outbound<Net<N>>>;

pub(crate) trait Build<const N: usize>: MachineUnderTest<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError>;
}

impl<const N: usize> Build<N> for Query<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Query::new(local, config.query, config.network, &Secret::from_seed(0))
    }
}

impl<const N: usize> Build<N> for QueryPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        QueryPool::new(local, config.query, config.pool, config.network, &Secret::from_seed(0))
    }
}

impl<const N: usize> Build<N> for BroadcastPool<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        let Config { broadcast, query, pool, network, .. } = config;
        BroadcastPool::new(local, broadcast, query, pool, network, &Secret::from_seed(0))
    }
}

impl<const N: usize> Build<N> for Crawl<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Crawl::new(local, config.crawl, config.network, &Secret::from_seed(0))
    }
}

impl<const N: usize> Build<N> for Coordinator<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError> {
        Coordinator::new(local, config, &Secret::from_seed(0))
    }
}
