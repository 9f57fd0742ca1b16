//! The results of a run: its lookups and broadcasts, their statistics, and the health of the routing tables.

pub(crate) mod broadcast_run;
pub(crate) mod end;
pub(crate) mod figures;
pub(crate) mod health;
pub(crate) mod lookup_run;
pub(crate) mod serial;
