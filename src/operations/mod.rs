//! Operations: what lookups, broadcasts and crawls have in common.
//!
//! An [`Operation`](operation::Operation) has a life cycle (accepted, waiting, running, ended), requests, a
//! context, a deadline and statistics, according to the rules of [`context`](crate::context) and
//! [`deadline`](crate::deadline). Its [`Task`](task::Task) decides which nodes to ask and evaluates the answers.
//! The [`OperationPool`](pool::OperationPool) contains all operations, bounds how many run, and runs those whose
//! timers are due. Those that wait to begin are in its [`WaitingLine`](admission::WaitingLine), which learns what
//! operations [cost](work::WorkCosts), and ends those for which there is no time.
//!
//! This module uses neither the routing table nor any kind of task. The pool returns what it learns about
//! nodes (a time-out, for example) to its caller as plain values.

pub(crate) mod admission;
pub(crate) mod blocked;
pub(crate) mod config;
pub(crate) mod listener;
pub(crate) mod machine;
pub(crate) mod operation;
pub(crate) mod pool;
pub(crate) mod task;
pub(crate) mod work;
