//! General data structures without any Kademlia: an indexed heap for timers, a slab with generational handles, a
//! keyed hash.
//!
//! Modules of this folder use no other module of the crate.

pub(crate) mod generational_slab;
pub(crate) mod indexed_heap;
pub(crate) mod seeded_hash;
