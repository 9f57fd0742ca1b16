//! Shared types: keys, ids, time, families, machines, and the events that several modules use.
//!
//! These are plain data and small traits, without decisions. They depend only on the
//! [collections](crate::collections) and on [`context`](crate::context). A type that only one other room uses
//! belongs in that room.

pub(crate) mod config_error;
pub(crate) mod family;
pub(crate) mod id;
pub(crate) mod key;
pub(crate) mod local_node;
pub(crate) mod machine;
pub(crate) mod nearest;
pub(crate) mod operation_events;
pub(crate) mod outbound;
pub(crate) mod region;
pub(crate) mod request_events;
pub(crate) mod secret;
pub(crate) mod target;
pub(crate) mod time;
