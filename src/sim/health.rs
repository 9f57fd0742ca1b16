//! What the routing tables look like at some instant.

use crate::time::Instant;

/// The routing tables of the nodes that are there (of up to 256 of them, evenly chosen) at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// When.
    pub at: Instant,
    /// How many nodes are there.
    pub up: u32,
    /// How many nodes a table holds, on average.
    pub size: f64,
    /// How many of them stand in the bucket of each common prefix length, from 0.
    pub by_cpl: Vec<f64>,
    /// The share of nodes in the tables that could not be asked: dead, away, or not to be reached. 0 to 1.
    pub dead: f64,
}

/// How many tables are looked at.
pub(crate) const SAMPLE: usize = 256;
