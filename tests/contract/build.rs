//! The machines of these tests that contain a coordinator, and how each is constructed.

use super::test_family::Net;
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::testing::MachineUnderTest;
use kad_proto::{Bits, Config, ConfigError, Stamped};

pub(crate) type In<const N: usize> = Stamped<Inbound<Net<N>>>;
pub(crate) type Out<const N: usize> = Stamped<Outbound<Net<N>>>;

pub(crate) trait Build<const N: usize>: MachineUnderTest<Net<N>> {
    fn build(local: Bits<N>, config: Config) -> Result<Self, ConfigError>;
}
