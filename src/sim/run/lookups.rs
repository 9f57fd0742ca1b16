//! Starts and stops lookups.

use crate::coordinator::events::Inbound;
use crate::sim::activity::Activity;
use crate::sim::event::SimEvent;
use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::{Stream, scaled};
use crate::sim::results::end::End;
use crate::sim::results::lookup_run::{Ending, LookupRun, Reason};
use crate::sim::world::World;
use crate::sim::world::action::Action;
use crate::vocabulary::machine::Stamped;
use crate::vocabulary::operation_events::Start;
use core::time::Duration;

impl World {
    /// Starts the workload's next lookup at a random online node, and schedules the one after it.
    pub(super) fn start_next_lookup(&mut self) {
        let number = self.begun;
        self.begun += 1;
        let mut random = self.random(Stream::Target, number);
        let target = Handle::point(random.below(Handle::NODES)).key();
        let is_message = random.chance(self.scenario.workload.messages);
        let starter = self.random_online_node(Stream::Starter, number);
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
        self.start_lookup(Reason::Workload, starter, target, is_message, Vec::new());
    }

    /// A random online node, by index, of a stream with this id. `None` if none is found in 1,000 tries.
    pub(super) fn random_online_node(&self, stream: Stream, id: u32) -> Option<u32> {
        const TRIES: u32 = 1_000;
        let mut random = self.random(stream, id);
        let is_up = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        (0..TRIES).map(|_| random.below(self.scenario.nodes)).find(is_up)
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
        is_message: bool,
        seeds: Vec<Handle>,
    ) {
        let number = self.next_lookup_number();
        let node = self.population.handle(starter.unwrap_or_default());
        let began = self.now;
        let asked = Vec::new();
        self.unfinished += u32::from(reason == Reason::Workload);
        self.lookups.push(LookupRun { number, reason, starter: node, target, began, ending: None, asked });
        self.emit(&SimEvent::Started { lookup: number, node });
        let is_up = |index: &u32| self.nodes.get(*index as usize).is_some_and(|node| node.up);
        let Some(starter) = starter.filter(is_up) else {
            self.close_lookup(number, 0, Ending::without_requests(End::NobodyThere, self.now));
            return;
        };
        let tag = u64::from(number);
        let start = if is_message { Start::message(tag, target, number) } else { Start::find(tag, target) };
        let mut stamped = Stamped::new(Inbound::Start(start.with_seeds(seeds)))
            .in_span(self.span(Activity::Lookup(number)));
        if reason == Reason::Workload {
            stamped.deadline = self.scenario.workload.deadline.map(|deadline| self.now + deadline);
        }
        self.call_engine(starter, stamped);
    }

    /// Stops a lookup, as its caller would, if it runs.
    pub(super) fn stop_lookup(&mut self, lookup: u32) {
        let starter = self.lookups.get(lookup as usize).map(|lookup| lookup.starter);
        let Some(index) = starter.and_then(|starter| self.population.index(starter)) else { return };
        let Some(id) = self.operations.get(&(index, lookup)).copied() else { return };
        self.emit(&SimEvent::Stopped { lookup });
        let stop = Stamped::new(Inbound::Stop(id)).in_span(self.span(Activity::Lookup(lookup)));
        self.call_engine(index, stop);
    }
}
