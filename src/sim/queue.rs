//! What is to happen, in order of time; at one instant, in the order in which it was planned.

use super::event::Work;
use super::nodes::{Handle, Key64, Net};
use crate::event::Ask;
use crate::id::RequestId;
use crate::time::Instant;
use core::cmp::Reverse;
use core::time::Duration;
use slab::Slab;
use std::collections::BinaryHeap;

/// A request on its way, or its answer.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) request: RequestId,
    pub(crate) target: Key64,
    /// From the answer's leaving to its arrival.
    pub(crate) back: Duration,
    /// A second answer comes so much later.
    pub(crate) duplicate: Option<Duration>,
    pub(crate) work: Work,
    /// The asker, by index, and which of its lives it was in.
    pub(crate) asker: u32,
    pub(crate) life: u32,
    pub(crate) node: Handle,
    pub(crate) answer_lost: bool,
    /// Nobody is there: the request is refused instead of answered.
    pub(crate) refused: bool,
    /// The broadcast that it is sent for, in the foreground or in the background.
    pub(crate) broadcast: Option<u32>,
    pub(crate) cargo: Cargo,
}

/// What a request is to store.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    Nothing,
    /// This record, by number.
    One(u32),
    Many(Box<[u32]>),
}

impl Cargo {
    /// What a node is asked to store.
    pub(crate) fn of(ask: &Ask<Net>) -> Self {
        match ask {
            Ask::Store { message, .. } => Self::One(*message),
            Ask::Batch { records, .. } => Self::Many(records.iter().map(|record| record.message).collect()),
            Ask::FindCloser | Ask::Message(_) => Self::Nothing,
        }
    }

    pub(crate) fn records(&self) -> &[u32] {
        match self {
            Self::Nothing => &[],
            Self::One(record) => core::slice::from_ref(record),
            Self::Many(records) => records,
        }
    }
}

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// The next lookup of the workload begins.
    Start,
    /// The next broadcast begins.
    Broadcast,
    /// A broadcast, by its node's index and by number, begins at last.
    Publish(u32, u32),
    /// The caller of a broadcast stops it.
    StopBroadcast(u32),
    /// What a broadcast has left to do is done: who holds its records?
    Judge(u32),
    /// A node, by index, joins.
    Join(u32),
    /// A node, by index, looks up a random key; so many are left after this one.
    Refresh(u32, u32),
    /// The network is built.
    Built,
    /// A node, by index, comes if it is away and goes if it is there, for this time.
    Turn(u32, u32),
    /// The caller of a lookup stops it.
    Stop(u32),
    /// A node has reached one that asked it, after this round trip.
    Meet { node: u32, asker: Handle, work: Work, took: Duration },
    /// A Sybil makes itself known, for this time.
    Intrude(u32),
    /// The routing tables are looked at.
    Health,
    /// A node, by index, may have something to do.
    Wake(u32),
    /// A request arrives.
    Ask(Flight),
    /// An answer arrives.
    Answer(Flight, Vec<Handle>),
    /// The news arrives that nobody is there.
    Refused(Flight),
}

impl Plan {
    /// Whether a run goes on for the sake of it. Where nodes keep their tables themselves there is always something on
    /// its way, and a run goes on for lookups only.
    const fn counts(&self, maintained: bool) -> bool {
        match self {
            Self::Turn(..) | Self::Intrude(_) | Self::Health => false,
            Self::Start
            | Self::Broadcast
            | Self::Publish(..)
            | Self::StopBroadcast(_)
            | Self::Judge(_)
            | Self::Join(_)
            | Self::Refresh(..)
            | Self::Built
            | Self::Stop(_) => true,
            Self::Meet { .. } | Self::Wake(_) | Self::Ask(_) | Self::Answer(..) | Self::Refused(_) => {
                !maintained
            }
        }
    }
}

/// The plans of a world.
#[derive(Debug)]
pub(crate) struct Queue {
    /// When each is due, in which order it was planned, and where it lies: small, as the heap moves them about.
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    plans: Slab<Plan>,
    sequence: u64,
    /// How many of them a run goes on for.
    counting: usize,
    /// Whether nodes keep their tables themselves.
    maintained: bool,
}

impl Queue {
    pub(crate) const fn new(maintained: bool) -> Self {
        Self { heap: BinaryHeap::new(), plans: Slab::new(), sequence: 0, counting: 0, maintained }
    }

    pub(crate) fn plan(&mut self, at: Instant, plan: Plan) {
        self.counting += usize::from(plan.counts(self.maintained));
        self.heap.push(Reverse((at, self.sequence, self.plans.insert(plan))));
        self.sequence += 1;
    }

    /// When the next plan is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Plan)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        let plan = self.plans.try_remove(place)?;
        self.counting -= usize::from(plan.counts(self.maintained));
        Some((at, plan))
    }

    /// Whether there is anything that a run goes on for: not so where nodes merely come and go.
    pub(crate) const fn is_busy(&self) -> bool {
        self.counting > 0
    }
}
