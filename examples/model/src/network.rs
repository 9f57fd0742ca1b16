//! [`Model`]: the network as `stateright` sees it.

use crate::Tiny;
use crate::scenario::{BEGIN, Scenario};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::testing::{Checked, DriverFault, Fault, MachineUnderTest};
use kad_proto::{
    Ask, ConfigError, Instant, Key8, Machine as _, OperationId, Outcome, RequestId, Response, RoutingInbound,
    Stamped,
};
use stateright::Property;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A node, as its driver sees it.
#[derive(Clone)]
struct Node<M> {
    machine: Checked<Tiny, M>,
    /// A digest of all its inputs, in order.
    history: u64,
    /// Its live operations, and until when.
    live: Vec<(OperationId, Instant)>,
    /// What has become of the others, and of requests.
    seen: BTreeSet<&'static str>,
    /// What it sent last.
    sent: Vec<(RequestId, Key8, Key8, bool)>,
}

impl<M: MachineUnderTest<Tiny>> Node<M> {
    fn call(&mut self, now: Instant, event: Stamped<Inbound<Tiny>>) {
        let mut hasher = DefaultHasher::new();
        // The text of an event has all its fields.
        (self.history, now, format!("{event:?}")).hash(&mut hasher);
        self.history = hasher.finish();
        for stamped in self.machine.handle(now, event) {
            let ended = match &stamped.event {
                Outbound::Started(started) => {
                    self.live.push((started.operation, stamped.deadline.unwrap_or(Instant::FAR_FUTURE)));
                    continue;
                }
                Outbound::Request(request) => {
                    let is_store = matches!(request.ask, Ask::Store { .. });
                    self.sent.push((request.id, request.node, request.target, is_store));
                    continue;
                }
                Outbound::Finished(finish) => (finish.operation, finish.outcome),
                Outbound::BroadcastFinished(finish) => {
                    self.seen.insert(if finish.succeeded { "stored" } else { "not stored" });
                    (finish.operation, finish.outcome)
                }
                Outbound::Routing(kad_proto::RoutingOutbound::Admitted(_)) => {
                    self.seen.insert("admitted");
                    continue;
                }
                _ => continue,
            };
            if !self.live.iter().any(|(id, _)| *id == ended.0) {
                self.seen.insert("finished twice");
            }
            self.live.retain(|(id, _)| *id != ended.0);
            self.seen.insert(match ended.1 {
                Outcome::Stopped => "stopped",
                Outcome::DeadlineExceeded => "deadline exceeded",
                Outcome::Unreachable => "unreachable",
                _ => "natural end",
            });
        }
        if self.machine.request_stats().late > 0 {
            self.seen.insert("late answer");
        }
    }

    /// What is wrong with the machine; or with its driver, other than that it hands in all that comes.
    fn fault(&self) -> Option<&Fault> {
        self.machine.faults().iter().find(|fault| {
            !matches!(
                fault,
                Fault::Driver(DriverFault::AnsweredTwice { .. } | DriverFault::AnsweredAfterCancel { .. })
            )
        })
    }
}

/// A message that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flight {
    /// A request.
    Request {
        /// The place of the node that asks.
        from: usize,
        /// The place of the node that is asked.
        to: usize,
        /// The id that the answer will have.
        id: u64,
        /// What it asks about.
        target: Key8,
        /// It is one to store.
        store: bool,
    },
    /// An answer.
    Answer {
        /// The place of the node that asked.
        to: usize,
        /// The id of the request.
        id: u64,
        /// The nodes that it names.
        closer: Vec<Key8>,
    },
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The message comes.
    Deliver(Flight),
    /// The message is lost.
    Lose(Flight),
    /// The message comes, and will come once more.
    Copy(Flight),
    /// The node at this place stops its operation.
    Stop(usize, OperationId),
    /// Time passes to the next wake-up.
    Wake,
}

/// A state of the network.
pub struct State<M> {
    now: Instant,
    /// States share the nodes that do not differ.
    nodes: Vec<Arc<Mutex<Node<M>>>>,
    /// The digests of the inputs of each.
    histories: Vec<u64>,
    /// In order, so that the order of sending makes no difference.
    flights: Vec<Flight>,
    losses: u8,
    copies: u8,
    stops: u8,
}

impl<M> Clone for State<M> {
    fn clone(&self) -> Self {
        let (nodes, histories, flights) = (self.nodes.clone(), self.histories.clone(), self.flights.clone());
        Self { nodes, histories, flights, ..*self }
    }
}

impl<M> State<M> {
    /// All by which states differ.
    fn identity(&self) -> impl Hash + PartialEq + fmt::Debug + '_ {
        (self.now, &self.histories, &self.flights, (self.losses, self.copies, self.stops))
    }

    /// Reads all nodes.
    fn all(&self, mut holds: impl FnMut(&Node<M>) -> bool) -> bool {
        self.nodes.iter().all(|node| holds(&node.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn has_seen(&self, what: &str) -> bool {
        !self.all(|node| !node.seen.contains(what))
    }
}

impl<M> Hash for State<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl<M> PartialEq for State<M> {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl<M> fmt::Debug for State<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity().fmt(f)
    }
}

impl<M: MachineUnderTest<Tiny>> State<M> {
    /// The next wake-up of any machine.
    fn wake(&self) -> Option<Instant> {
        let mut wake = None;
        self.all(|node| {
            wake = wake.into_iter().chain(node.machine.poll_timeout()).min();
            true
        });
        wake
    }

    /// Hands an event in to a node, and puts on their way the requests that follow.
    fn call(&mut self, model: &Model<M>, place: usize, event: Stamped<Inbound<Tiny>>) {
        let Some(node) = self.nodes.get_mut(place) else { return };
        let mut changed = node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        changed.call(self.now, event);
        for (id, node, target, store) in changed.sent.drain(..) {
            if let Some(to) = model.scenario.nodes.iter().position(|(key, _)| *key == node) {
                self.flights.push(Flight::Request { from: place, to, id: id.to_u64(), target, store });
            }
        }
        self.flights.sort();
        if let Some(history) = self.histories.get_mut(place) {
            *history = changed.history;
        }
        *node = Arc::new(Mutex::new(changed));
    }

    fn remove(&mut self, flight: &Flight) {
        if let Some(place) = self.flights.iter().position(|other| other == flight) {
            self.flights.remove(place);
        }
    }

    fn deliver(&mut self, model: &Model<M>, flight: Flight) {
        match flight {
            Flight::Request { from, to, id, target, store } => {
                let asks = model.scenario.nodes.get(from).map(|(key, _)| *key);
                let mut closer = Vec::new();
                if let Some(node) = self.nodes.get(to).filter(|_| !store) {
                    let node = node.lock().unwrap_or_else(PoisonError::into_inner);
                    let known = node.machine.table().into_iter().flat_map(|table| table.closest(target));
                    closer.extend(known.map(|entry| *entry.node()).filter(|key| Some(*key) != asks).take(2));
                }
                self.flights.push(Flight::Answer { to: from, id, closer });
                self.flights.sort();
                if let Some(node) = asks.filter(|_| model.scenario.learns) {
                    let event = RoutingInbound::Connected { node, round_trip: None };
                    self.call(model, to, Stamped::new(Inbound::Routing(event)));
                }
            }
            Flight::Answer { to, id, closer } => {
                let answer = Response::answered(RequestId::from_u64(id), closer);
                self.call(model, to, Stamped::new(Inbound::Response(answer)));
            }
        }
    }
}

/// A scenario, and how its machines are made.
#[derive(Debug)]
pub struct Model<M> {
    scenario: Scenario,
    begin: State<M>,
}

impl Model<crate::Machine> {
    /// The scenario with coordinators.
    ///
    /// # Errors
    /// [`ConfigError`] if a configuration is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, ConfigError> {
        Self::with_machines(scenario, |machine| machine)
    }
}

impl<M: MachineUnderTest<Tiny>> Model<M> {
    /// The scenario with machines that contain coordinators.
    ///
    /// # Errors
    /// [`ConfigError`] if a configuration is out of bounds.
    pub fn with_machines(scenario: Scenario, wrap: fn(crate::Machine) -> M) -> Result<Self, ConfigError> {
        let mut nodes = Vec::new();
        for (key, config) in &scenario.nodes {
            let machine = crate::Machine::new(*key, config.clone(), &kad_proto::Secret::from_seed(1))?;
            let machine = Checked::new(wrap(machine), *key, config.clone())?;
            let (live, seen, sent) = (Vec::new(), BTreeSet::new(), Vec::new());
            nodes.push(Arc::new(Mutex::new(Node { machine, history: 0, live, seen, sent })));
        }
        let begin = State {
            now: BEGIN,
            histories: vec![0; nodes.len()],
            nodes,
            flights: Vec::new(),
            losses: 0,
            copies: 0,
            stops: 0,
        };
        let mut model = Self { scenario, begin };
        let mut state = model.begin.clone();
        for (who, whom) in &model.scenario.knows {
            if let Some((node, _)) = model.scenario.nodes.get(*whom) {
                let event = RoutingInbound::Connected { node: *node, round_trip: None };
                state.call(&model, *who, Stamped::new(Inbound::Routing(event)));
            }
        }
        for (who, start) in &model.scenario.starts {
            state.call(&model, *who, start.clone());
        }
        for node in &state.nodes {
            node.lock().unwrap_or_else(PoisonError::into_inner).seen.clear();
        }
        model.begin = state;
        Ok(model)
    }

    /// What is wrong in a state, as text.
    pub fn faults(state: &State<M>) -> Vec<String> {
        let mut faults = Vec::new();
        state.all(|node| {
            faults.extend(node.fault().map(ToString::to_string));
            true
        });
        faults
    }
}

impl<M: MachineUnderTest<Tiny> + Send + 'static> stateright::Model for Model<M> {
    type State = State<M>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<M>> {
        vec![self.begin.clone()]
    }

    fn actions(&self, state: &State<M>, actions: &mut Vec<Action>) {
        let bounds = self.scenario.bounds;
        for (place, flight) in state.flights.iter().enumerate() {
            // Two that are the same lead to the same.
            if place > 0 && state.flights.get(place - 1) == Some(flight) {
                continue;
            }
            actions.push(Action::Deliver(flight.clone()));
            if state.losses < bounds.losses {
                actions.push(Action::Lose(flight.clone()));
            }
            if state.copies < bounds.copies {
                actions.push(Action::Copy(flight.clone()));
            }
        }
        if state.stops < bounds.stops {
            let mut place = 0;
            state.all(|node| {
                actions.extend(node.live.iter().map(|(operation, _)| Action::Stop(place, *operation)));
                place += 1;
                true
            });
        }
        if state.wake().is_some_and(|wake| wake <= bounds.horizon) {
            actions.push(Action::Wake);
        }
    }

    fn next_state(&self, last: &State<M>, action: Action) -> Option<State<M>> {
        let mut state = last.clone();
        match action {
            Action::Deliver(flight) => {
                state.remove(&flight);
                state.deliver(self, flight);
            }
            Action::Lose(flight) => {
                state.remove(&flight);
                state.losses += 1;
            }
            Action::Copy(flight) => {
                state.copies += 1;
                state.deliver(self, flight);
            }
            Action::Stop(place, operation) => {
                state.stops += 1;
                state.call(self, place, Stamped::new(Inbound::Stop(operation)));
            }
            Action::Wake => {
                state.now = state.wake()?;
                let mut due = Vec::new();
                state.all(|node| {
                    due.push(node.machine.poll_timeout().is_some_and(|at| at <= state.now));
                    true
                });
                for place in (0..due.len()).filter(|place| due.get(*place) == Some(&true)) {
                    state.call(self, place, Stamped::new(Inbound::Tick));
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(CONTRACT, |_, state: &State<M>| state.all(|node| node.fault().is_none())),
            Property::always(DEADLINES, |_, state: &State<M>| {
                state.all(|node| node.live.iter().all(|(_, deadline)| *deadline > state.now))
            }),
            Property::always(QUIET, |_, state: &State<M>| {
                state.all(|node| node.machine.poll_timeout().is_some() || node.live.is_empty())
            }),
            Property::always(ONCE, |_, state: &State<M>| !state.has_seen("finished twice")),
            Property::sometimes(REACHED[0], |_, state: &State<M>| state.has_seen("natural end")),
            Property::sometimes(REACHED[1], |_, state: &State<M>| state.has_seen("deadline exceeded")),
            Property::sometimes(REACHED[2], |_, state: &State<M>| state.has_seen("unreachable")),
            Property::sometimes(REACHED[3], |_, state: &State<M>| state.has_seen("stopped")),
            Property::sometimes(REACHED[4], |_, state: &State<M>| state.has_seen("late answer")),
            Property::sometimes(REACHED[5], |_, state: &State<M>| state.has_seen("stored")),
            Property::sometimes(REACHED[6], |_, state: &State<M>| state.has_seen("not stored")),
            Property::sometimes(REACHED[7], |_, state: &State<M>| state.has_seen("admitted")),
        ]
    }
}

/// Machines keep their contract, and are driven as they are to be.
pub const CONTRACT: &str = "the contract is kept";
/// No operation lives at or after its deadline.
pub const DEADLINES: &str = "no operation lives at its deadline";
/// Who does not want to be woken has no operation.
pub const QUIET: &str = "what does not wake up has ended";
/// An operation has one finish.
pub const ONCE: &str = "each operation finishes once";
/// What some state of some scenario is to reach, lest the others hold of nothing.
pub const REACHED: [&str; 8] = [
    "a lookup ends by itself",
    "a deadline is exceeded",
    "nobody can be reached",
    "an operation is stopped",
    "an answer is late",
    "a record is stored",
    "a record is not stored",
    "a node is admitted",
];
