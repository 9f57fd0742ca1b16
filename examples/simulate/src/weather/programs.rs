//! The rows that are no networks: programs that drive one machine by hand, and count.
//!
//! | row | file | what is counted |
//! | --- | --- | --- |
//! | L11 | `crowded_groups.rs` | calls of the family's functions in the call that takes an answer of 1,024 nodes |
//! | L12 | `equal_deadlines.rs` | operations of one deadline that are never served, or out of turn |
//! | T12 | `small_faults.rs` | five small behaviours, each right (1) or wrong (0) |
//! | R7 | `reprovide.rs` | regions due at once after a sleep, their order, and the tries of those that fail |
//! | R8 | `crawl.rs` | edges and nodes that a crawl misses where requests are lost; the cost of a failure |

// Figures are small numbers.
#![allow(clippy::cast_precision_loss)]

pub mod crawl;
pub mod crowded_groups;
pub mod equal_deadlines;
pub mod reprovide;
pub mod small_faults;
mod tools;

use crate::weather::Row;

/// The rows, in the order of their names.
pub const ROWS: [Row; 5] =
    [crowded_groups::ROW, equal_deadlines::ROW, small_faults::ROW, reprovide::ROW, crawl::ROW];
