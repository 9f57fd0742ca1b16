//! The nodes of a simulated network: their keys, and which of all nodes are truly the closest to a key. No
//! node of the network has this knowledge; it is for building ideal tables and for measuring results.

pub(crate) mod handle;
pub(crate) mod population;
