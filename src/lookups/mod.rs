//! Lookups: which node is asked next, and when the k closest nodes are found (Kademlia paper, section 2.3).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `config.rs`, `rules.rs` | the limits of lookups: as configured, and as one lookup uses them |
//! | `candidates.rs` | the candidates of one path in order of distance, and the state of each |
//! | `next_candidate.rs` | which candidate is asked next, and when the path has converged |
//! | `credit.rs` | whether the nodes that somebody has named answer |
//! | `edge_probing.rs` | after a time-out: requests about keys next to the target |
//! | `coverage.rs` | which distances from the target the answers have told all nodes of |
//! | `region.rs` | the region of a key, and which of its nodes are stored with or asked |
//! | `region_search.rs` | how these are found where the k closest are much nearer |
//! | `values.rs` | which of the values that answers carried is the newest, and how many have it |
//! | `lookup.rs` | a lookup over one path or several disjoint paths |
//! | `lookup_task.rs` | a lookup as the task of an operation |
//! | `query_pool.rs`, `query.rs` | many lookups, and one, as machines |
//!
//! Lookups use operations and what is below them. They use nothing of the routing table, of broadcasts or of
//! crawls: those call lookups. A rule about which node is asked next belongs here; time-outs and limits on
//! requests belong in `requests`.

pub(crate) mod candidates;
pub(crate) mod config;
pub(crate) mod coverage;
pub(crate) mod credit;
pub(crate) mod edge_probing;
pub(crate) mod lookup;
pub(crate) mod lookup_task;
pub(crate) mod next_candidate;
pub mod query;
pub mod query_pool;
pub(crate) mod region;
pub(crate) mod region_search;
pub(crate) mod rules;
pub(crate) mod values;
