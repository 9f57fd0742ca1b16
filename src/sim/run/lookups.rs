//! Starts and stops lookups.

use crate::coordinator::events::Inbound;
use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Key64, Net};
use crate::sim::random::{Stream, scaled};
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::{Ending, LookupRun, Reason};
use crate::sim::scenario::who::Who;
use crate::sim::scenario::workload::Targets;
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Start;
use crate::vocabulary::request_events::Ask;
use core::time::Duration;

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// The closest nodes.
    Nodes,
    /// Sends a message to each.
    Message,
    /// A record, by number, from so many nodes.
    Record(u32, usize),
}

impl World {
    /// Starts the workload's next lookup at a random online node, and schedules the one after it.
    pub(super) fn start_next_lookup(&mut self) {
        let number = self.begun;
        self.begun += 1;
        let mut random = self.random(Stream::Target, number);
        let drawn = Handle::point(random.below(Handle::NODES)).key();
        let is_message = random.chance(self.scenario.workload.messages);
        let plain = if is_message { Sought::Message } else { Sought::Nodes };
        let turn = |list: &[u32]| list.get(number as usize % list.len().max(1)).copied().unwrap_or_default();
        let (target, sought) = match &self.scenario.workload.targets {
            Targets::Random => (drawn, plain),
            Targets::Points(list) => (Handle::point(turn(list)).key(), plain),
            Targets::Nodes(list) => (self.population.handle(turn(list)).key(), plain),
            Targets::Records { first, count, enough } => {
                let record = first.wrapping_add(number % count);
                (self.record_key(record), Sought::Record(record, *enough))
            }
        };
        let by = self.scenario.workload.by.clone();
        let starter = self.random_online_node(Stream::Starter, number, &by);
        if self.begun < self.scenario.workload.lookups {
            let gap = self.scenario.workload.pace.gap(self.scenario.seed, [u64::from(number)], number);
            self.queue.schedule(self.now + gap, Action::StartLookup);
        }
        let mut random = self.random(Stream::Stop, number);
        if random.chance(self.scenario.workload.stopped) {
            let later = scaled(Duration::from_secs(1), random.unit());
            self.queue.schedule(self.now + later, Action::StopLookup(self.next_lookup_number()));
        }
        if number < self.scenario.detailed_lookups {
            self.detailed.insert(self.next_lookup_number());
        }
        self.start_lookup(Reason::Workload, starter, target, sought, Vec::new());
    }

    /// Starts a lookup of a key at a node, by number, that counts as one of the workload. Returns its number among
    /// [`lookups`](World::lookups). If the node is offline, it ends at once by [`End::NobodyThere`].
    pub fn look_up(&mut self, index: u32, target: Key64) -> u32 {
        self.start_now(index, target, Sought::Nodes)
    }

    /// Starts a search for a record at a node, both by number, that ends when so many nodes, at least one, have shown it;
    /// else like [`look_up`](World::look_up). [`LookupRun::shown`] says how many have.
    pub fn search(&mut self, index: u32, record: u32, enough: usize) -> u32 {
        self.start_now(index, self.record_key(record), Sought::Record(record, enough.max(1)))
    }

    /// Starts this lookup at a node, by number, with its seeds, number of results and quorum; else like
    /// [`look_up`](World::look_up) and [`search`](World::search): a message is the number of a record. The simulator
    /// chooses the tag. A lookup of the node's own key is a [bootstrap](Start::bootstrap).
    pub fn begin(&mut self, index: u32, start: Start<Net>) -> u32 {
        let number = self.next_lookup_number();
        self.begun += 1;
        let record = if let Ask::Message(record) = start.ask { Some(record) } else { None };
        self.begin_lookup(Reason::Workload, Some(index), start, record);
        number
    }

    fn start_now(&mut self, index: u32, target: Key64, sought: Sought) -> u32 {
        let number = self.next_lookup_number();
        if self.begun < self.scenario.detailed_lookups {
            self.detailed.insert(number);
        }
        self.begun += 1;
        self.start_lookup(Reason::Workload, Some(index), target, sought, Vec::new());
        number
    }

    /// A random online node of these, by index, of a stream with this id. `None` if none is found in 1,000 tries.
    pub(super) fn random_online_node(&self, stream: Stream, id: u32, by: &Who) -> Option<u32> {
        const TRIES: u32 = 1_000;
        let mut random = self.random(stream, id);
        let some: Vec<u32> = match by {
            Who::All => Vec::new(),
            by => (0..self.scenario.nodes).filter(|index| self.starts(by, *index)).collect(),
        };
        let draw = |_| match by {
            Who::All => Some(random.below(self.scenario.nodes)),
            _ => some.get(random.below(u32::try_from(some.len()).unwrap_or(u32::MAX)) as usize).copied(),
        };
        (0..TRIES).filter_map(draw).find(|index| self.is_awake(*index))
    }

    fn next_lookup_number(&self) -> u32 {
        u32::try_from(self.lookups.len()).unwrap_or(u32::MAX)
    }

    /// Starts a lookup at a node, by index, with these seeds besides those of its table. If there is no such
    /// node, or it is offline, the lookup ends at once by [`End::NobodyThere`].
    pub(super) fn start_lookup(
        &mut self,
        reason: Reason,
        starter: Option<u32>,
        target: Key64,
        sought: Sought,
        seeds: Vec<Handle>,
    ) {
        let record = if let Sought::Record(record, _) = sought { Some(record) } else { None };
        // The tag is chosen below.
        let start = match sought {
            Sought::Nodes => Start::find(0, target),
            Sought::Message => Start::message(0, target, self.next_lookup_number()),
            Sought::Record(record, enough) => Start::message(0, target, record).with_quorum(enough),
        };
        self.begin_lookup(reason, starter, start.with_seeds(seeds), record);
    }

    /// Starts a lookup at a node, by index; its number becomes its tag. `record`: what it searches for.
    fn begin_lookup(
        &mut self,
        reason: Reason,
        starter: Option<u32>,
        mut start: Start<Net>,
        record: Option<u32>,
    ) {
        let number = self.next_lookup_number();
        start.tag = u64::from(number);
        let target = start.target;
        let node = self.population.handle(starter.unwrap_or_default());
        let began = self.now;
        self.unfinished += u32::from(reason == Reason::Workload);
        self.lookups.push(LookupRun {
            number,
            reason,
            starter: node,
            target,
            began,
            ending: None,
            asked: Vec::new(),
            record,
            shown: 0,
            lies: 0,
            found: Vec::new(),
            missed: Vec::new(),
        });
        self.emit(&SimEvent::Started { lookup: number, node });
        let Some(starter) = starter.filter(|index| self.is_awake(*index)) else {
            self.close_lookup(number, 0, Ending::without_requests(End::NobodyThere, self.now));
            return;
        };
        let mut stamped = Stamped::new(Inbound::Start(start)).in_span(self.span(Activity::Lookup(number)));
        if reason == Reason::Workload {
            stamped.deadline = self.scenario.workload.deadline.map(|deadline| self.now + deadline);
        }
        self.call_engine(starter, stamped);
    }

    /// Stops a lookup, as its caller would, if it runs.
    pub(super) fn stop_lookup(&mut self, lookup: u32) {
        let starter = self.lookups.get(lookup as usize).map(|lookup| lookup.starter);
        let Some(index) = starter.and_then(|starter| self.population.index_ever(starter)) else { return };
        let Some(id) = self.operations.get(&(index, lookup)).copied().filter(|_| self.is_awake(index)) else {
            return;
        };
        self.emit(&SimEvent::Stopped { lookup });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(Activity::Lookup(lookup)));
        self.call_engine(index, stop);
    }
}
