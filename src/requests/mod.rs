//! Requests: the queue, the limits and the time-outs that all machines with requests have in common.
//!
//! One request queue per machine keeps the limits on requests in flight, per node and in total, over an in-flight
//! table with the timers. An estimate of the round-trip time adapts the time-outs. The queue refuses requests to banned
//! nodes, and to this node's own keys. The purpose of a request is plain data, interpreted by the modules that submit
//! requests: this module knows neither operations nor the routing table, and decides nothing about which node is asked.
//!
//! [`Network`](network::Network) offers the queue alone, as a machine.

pub(crate) mod ban_list;
pub(crate) mod call_context;
pub(crate) mod config;
pub(crate) mod in_flight_table;
pub mod network;
pub(crate) mod purpose;
pub(crate) mod request_queue;
pub(crate) mod rtt_estimator;
pub(crate) mod stats;
