//! draft

pub mod context;
pub mod coordinator;
pub mod deadline;
mod error;
mod event;
mod family;
mod heap;
mod id;
mod inflight;
mod key;
mod lookup;
mod machine;
pub mod network;
mod operation;
mod outbox;
pub mod pool;
pub mod query;
#[cfg(feature = "sim")]
pub mod sim;
pub mod table;
mod time;

pub use context::Context;
pub use coordinator::{Config, Coordinator};
pub use error::ConfigError;
pub use event::{
    Ask, Cancel, Contact, Finish, GivenUp, Outcome, Progress, Refused, RefusedBecause, Reply, Request, Start,
    Started, Statistics,
};
pub use family::{Family, Group};
pub use id::{OperationId, RequestId};
pub use key::{Bits, Key, Key8, Key160, Key256, ParseKeyError};
pub use machine::{Batch, Machine, Stamped};
pub use network::Network;
pub use outbox::{NetworkConfig, Refusal, Traffic};
pub use pool::{PoolConfig, QueryPool};
pub use query::{Query, QueryConfig};
pub use table::{RoutingTable, TableConfig};
pub use time::Instant;
