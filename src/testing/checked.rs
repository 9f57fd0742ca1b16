//! [`Checked`]: stands where a machine stood, and judges both sides, the machine and its driver.

use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::testing::broken::Broken;
use crate::testing::checker::ContractChecker;
use crate::testing::common_parts::finish_of;
use crate::testing::driver_fault::{DriverFault, DriverWatch};
use crate::testing::machine_under_test::MachineUnderTest;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::id::RequestId;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::request_events::{Request, Response};
use crate::vocabulary::secret::Secret;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::ops::Deref;
use core::time::Duration;
use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A machine within a driver, both checked: put it where the [`Coordinator`] stood, run the driver's tests, and ask for the
/// [faults](Self::faults).
///
/// The machine is checked by a [`ContractChecker`] without models, the driver by what its contract with the machine asks of it:
/// see [`DriverFault`]. A call costs about twice what the machine's own costs, and the memory does not grow with the number of
/// calls. Neither side is changed: what the driver gets is what the machine alone would have said.
///
/// ```
/// use kad_proto::testing::{Checked, DriverFault, Fault};
/// use kad_proto::coordinator::Outbound;
/// use kad_proto::{Config, Family, Instant, Key8, Machine, Response, Secret, Stamped, Start};
/// use std::time::Duration;
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
///
/// let mut dht = Checked::<Tiny>::coordinator(Key8::new([0]), Config::default(), &Secret::from_seed(1))?;
/// let start = Start::find(1, Key8::new([7])).with_seeds(vec![Key8::new([3])]);
/// let batch = dht.handle(Instant::from_secs(1), Stamped::new(start.into()));
/// let request = batch.iter().find_map(|out| match &out.event {
///     Outbound::Request(request) => Some(request.id),
///     _ => None,
/// });
/// // A driver that hands in each answer twice.
/// for _ in 0..2 {
///     let answer = Response::answered(request.unwrap(), vec![]);
///     let _ = dht.handle(Instant::from_secs(1) + Duration::from_millis(20), Stamped::new(answer.into()));
/// }
/// assert!(matches!(dht.faults(), [Fault::Driver(DriverFault::AnsweredTwice { .. })]));
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Checked<F: Family, M = Coordinator<F>> {
    machine: M,
    /// `None` once the machine has broken a rule: from then on it is of no more use.
    checker: Option<ContractChecker<F>>,
    driver: DriverWatch,
    faults: Vec<Fault>,
}

/// What is wrong, and on which side.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The machine has broken a rule of its contract.
    Machine(Broken),
    /// The driver does not do what a machine asks of it.
    Driver(DriverFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(broken) => write!(f, "machine: {broken}"),
            Self::Driver(fault) => write!(f, "driver: {fault}"),
        }
    }
}

impl core::error::Error for Fault {}

/// So many faults are kept, the first.
const MAX_FAULTS: usize = 1_000;

impl<F: Family> Checked<F> {
    /// A [`Coordinator`], checked.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn coordinator(
        local: F::Target,
        config: impl Into<Arc<Config>>,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        let config = config.into();
        let machine = Coordinator::new(local.clone(), (*config).clone(), secret)?;
        Self::new(machine, local, config)
    }
}

impl<F: Family, M: MachineUnderTest<F>> Checked<F, M> {
    /// A new machine of the node with the id `local`, constructed with this configuration, checked from now on.
    ///
    /// # Errors
    /// [`ConfigError`] if the part of the configuration about the routing table is out of bounds.
    pub fn new(machine: M, local: F::Target, config: impl Into<Arc<Config>>) -> Result<Self, ConfigError> {
        let checker = Some(ContractChecker::new(local, config)?.without_models());
        Ok(Self { machine, checker, driver: DriverWatch::default(), faults: Vec::new() })
    }

    /// The same, whose driver may be late by so much: in real time it always is. Zero where nothing is said, as under virtual
    /// time.
    #[must_use]
    pub fn with_lateness(mut self, lateness: Duration) -> Self {
        self.driver.lateness = lateness;
        self
    }

    /// What was found so far, in the order in which it showed; after 1,000, no more is kept.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The same as text, and what is not done though it should be by now: an operation or a request that lives at its deadline.
    ///
    /// # Errors
    /// All faults, a line each.
    pub fn verdict(&self, now: Instant) -> Result<(), String> {
        let mut lines: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        if let Some(Err(broken)) = self.checker.as_ref().map(|checker| checker.check_ended(now)) {
            lines.push(format!("at {now}, not woken or broken: {broken}"));
        }
        if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
    }

    /// How often each situation occurred so far: see [`ContractChecker::tally`]. Empty once the machine has broken a rule.
    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.checker.as_ref().map(|checker| checker.tally().clone()).unwrap_or_default()
    }

    /// The machine itself.
    pub fn into_machine(self) -> M {
        self.machine
    }

    fn note(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    /// One call of the machine, checked.
    fn call(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let outbound = match &mut self.checker {
            None => self.machine.handle(now, event),
            Some(checker) => {
                let outbound = self.machine.handle(now, event.clone());
                if let Err(broken) = checker.check(now, &event, &outbound, &self.machine) {
                    self.checker = None;
                    self.note(Fault::Machine(broken));
                }
                outbound
            }
        };
        self.driver.after(now, &outbound);
        out.extend(outbound);
    }
}

impl<F: Family, M: MachineUnderTest<F>> Machine for Checked<F, M> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        let due = self.machine.poll_timeout();
        let mut found = Vec::new();
        self.driver.before(now, &event, due, &mut found);
        for fault in found {
            self.note(Fault::Driver(fault));
        }
        let now = self.driver.now();
        // The checker must know what time alone has caused. Both calls together are the same as one.
        let is_tick = matches!(event.event, Inbound::Tick);
        if !is_tick && due.is_some_and(|due| due <= now) {
            self.call(now, Stamped::new(Inbound::Tick), out);
        }
        self.call(now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

/// Reads the machine: its table, its statistics.
impl<F: Family, M> Deref for Checked<F, M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<F: Family, M: fmt::Debug> fmt::Debug for Checked<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("machine", &self.machine)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// What a network does with a request: see [`terminates`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fate<F: Family> {
    /// Nothing comes back.
    Lost,
    /// This comes back after so long, however late that is. For [`Response::answered`] and its like, take the id of the request.
    Comes(Duration, Response<F>),
    /// It cannot be sent: this is known at once.
    Fails,
}

/// Runs operations to their ends in a network that you make up, and checks that each accepted start finishes exactly once, by its
/// deadline, and that machine and driver keep their contract meanwhile. `network` says what becomes of each request; a proptest
/// strategy or bytes of a fuzzer may decide. Time is virtual. Returns the last event of each operation, in the order of ending.
///
/// An answer to a request that was cancelled is not handed in, as a driver does that aborts its IO.
///
/// # Errors
/// All that is wrong, a line each: see [`Checked::verdict`]; and starts that were accepted and do not finish.
///
/// ```
/// use kad_proto::testing::{Checked, Fate, terminates};
/// use kad_proto::{Config, Family, Instant, Key8, Response, Secret, Stamped, Start};
/// use std::time::Duration;
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
///
/// let now = Instant::from_secs(1);
/// let mut dht = Checked::<Tiny>::coordinator(Key8::new([0]), Config::default(), &Secret::from_seed(1))?;
/// let starts = (1..100).map(|tag| {
///     let start = Start::find(tag, Key8::new([7])).with_seeds(vec![Key8::new([3])]);
///     Stamped::new(start.into()).with_deadline(now + Duration::from_millis(tag * 10))
/// });
/// // Whoever is asked names three nodes that do not exist, each later than the one before; every third says nothing.
/// let mut asked = 0;
/// let ends = terminates(&mut dht, now, starts, |_, request| {
///     asked = u8::wrapping_add(asked, 1);
///     let named = [1, 2, 3].map(|more| Key8::new([asked.wrapping_mul(more)])).to_vec();
///     match asked % 3 {
///         0 => Fate::Lost,
///         _ => Fate::Comes(Duration::from_millis(u64::from(asked)), Response::answered(request.id, named)),
///     }
/// });
/// assert_eq!(ends.map(|ends| ends.len()), Ok(99));
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
pub fn terminates<F: Family, M: MachineUnderTest<F>>(
    machine: &mut Checked<F, M>,
    mut now: Instant,
    starts: impl IntoIterator<Item = Stamped<Inbound<F>>>,
    mut network: impl FnMut(Instant, &Request<F>) -> Fate<F>,
) -> Result<Vec<Stamped<Outbound<F>>>, String> {
    let mut out = Batch::new();
    let mut agenda: BTreeMap<(Instant, u64), Stamped<Inbound<F>>> = BTreeMap::new();
    let mut places: BTreeMap<RequestId, (Instant, u64)> = BTreeMap::new();
    let (mut live, mut ends, mut number) = (BTreeSet::new(), Vec::new(), 0);
    let mut events: VecDeque<_> = starts.into_iter().collect();
    loop {
        let Some(event) = events.pop_front() else {
            machine.verdict(now)?;
            if live.is_empty() {
                break;
            }
            let (next, due) = (agenda.keys().next().map(|(at, _)| *at), machine.poll_timeout());
            let Some(wake) = next.into_iter().chain(due).min() else {
                return Err(format!("no wake-up, and these never finish: {live:?}"));
            };
            now = now.max(wake);
            let answer = agenda.first_entry().filter(|entry| entry.key().0 <= now).map(OccupiedEntry::remove);
            events.push_back(answer.unwrap_or_else(|| Stamped::new(Inbound::Tick)));
            continue;
        };
        machine.handle_into(now, event, &mut out);
        for stamped in out.drain(..) {
            match &stamped.event {
                Outbound::Started(started) => {
                    live.insert(started.operation);
                }
                Outbound::Request(request) => {
                    let (after, response) = match network(now, request) {
                        Fate::Lost => continue,
                        Fate::Comes(after, response) => (after, response),
                        Fate::Fails => (Duration::ZERO, Response::failed(request.id)),
                    };
                    number += 1;
                    let mut answer = Stamped::new(Inbound::Response(response));
                    answer.context = stamped.context.clone();
                    places.insert(request.id, (now + after, number));
                    agenda.insert((now + after, number), answer);
                }
                Outbound::Cancel(cancel) => {
                    if let Some(place) = places.remove(&cancel.id) {
                        agenda.remove(&place);
                    }
                }
                event => {
                    if let Some((operation, ..)) = finish_of(event) {
                        if !live.remove(&operation) {
                            return Err(format!("finished twice, or never started: {operation:?}"));
                        }
                        ends.push(stamped);
                    }
                }
            }
        }
    }
    Ok(ends)
}
