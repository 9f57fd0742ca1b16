//! A family of a network that the crate does not know, with keys that are hashes, and a driver around a coordinator that may have a
//! fault. What tests them is in `tests/properties.rs` (proptest) and [`fuzz`] (any fuzzer).

use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::network_size::NotEnoughData;
use kad_proto::testing::{MachineKind, MachineUnderTest, Sample, Scenario};
use kad_proto::{
    Config, ConfigError, Context, Coordinator, Family, Group, Instant, Key256, RequestStats, RoutingTable,
    Secret, Stamped, Target,
};
use sha2::{Digest, Sha256};

/// The family: a node is its public key, which is hashed, and a port, at which it may have several identities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign;

/// What is hashed to a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Hashed {
    bytes: [u8; 32],
    key: Key256,
}

impl Hashed {
    /// The hash of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, key: Key256::new(Sha256::digest(bytes).into()) }
    }
}

impl Target<Key256> for Hashed {
    fn key(&self) -> Key256 {
        self.key
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    id: Hashed,
    port: u8,
}

impl Family for Foreign {
    type Key = Key256;
    type Target = Hashed;
    type Node = Node;
    type Message = String;

    fn key(node: &Node) -> Key256 {
        node.id.key
    }

    fn group(node: &Node) -> Option<Group> {
        Some(Group(u64::from(node.port)))
    }

    fn target_of(node: &Node) -> Option<Hashed> {
        Some(node.id.clone())
    }
}

/// How tests make nodes, targets and messages.
impl Sample for Foreign {
    fn node(bits: Key256, address: u8) -> Node {
        Node { id: Hashed::new(*bits.as_bytes()), port: address }
    }

    fn target(bits: Key256) -> Hashed {
        Hashed::new(*bits.as_bytes())
    }

    fn message(number: u64) -> String {
        number.to_string()
    }
}

/// What the driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It loses the span of each request.
    LosesSpans,
    /// It reports an answer without the nodes beyond the fourth.
    CutsAnswers,
    /// It sleeps for a microsecond longer than it may.
    Oversleeps,
}

/// A driver: a coordinator, and what the program does with its events. Sockets would stand beside it.
#[derive(Clone, Debug)]
pub struct Driver {
    dht: Coordinator<Foreign>,
    fault: Fault,
}

impl Driver {
    /// A driver with this fault.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: Hashed, config: Config, fault: Fault) -> Result<Self, ConfigError> {
        Ok(Self { dht: Coordinator::new(local, config, &Secret::from_seed(0))?, fault })
    }
}

/// The driver is tested as the machine in it is.
impl MachineUnderTest<Foreign> for Driver {
    fn handle(
        &mut self,
        now: Instant,
        mut event: Stamped<Inbound<Foreign>>,
    ) -> Vec<Stamped<Outbound<Foreign>>> {
        if let (Fault::CutsAnswers, Inbound::Response(response)) = (self.fault, &mut event.event)
            && let Ok(answer) = &mut response.result
        {
            answer.closer.truncate(4);
        }
        let mut out = MachineUnderTest::handle(&mut self.dht, now, event);
        for stamped in &mut out {
            if self.fault == Fault::LosesSpans && matches!(stamped.event, Outbound::Request(_)) {
                stamped.context = Context::NONE;
            }
        }
        out
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let late = std::time::Duration::from_micros(u64::from(self.fault == Fault::Oversleeps));
        MachineUnderTest::poll_timeout(&self.dht).map(|at| at + late)
    }

    fn request_stats(&self) -> RequestStats {
        self.dht.request_stats()
    }

    fn counts(&self) -> Option<(usize, usize)> {
        Some((self.dht.operations(), self.dht.running()))
    }

    fn table(&self) -> Option<&RoutingTable<Foreign>> {
        Some(self.dht.table())
    }

    fn size(&self, now: Instant) -> Result<u64, NotEnoughData> {
        self.dht.network_size(now).map(|size| size.nodes())
    }
}

/// The whole fuzz target: `fuzz/fuzz_targets/foreign.rs` calls it.
///
/// # Panics
/// If the driver breaks a rule; never for [`Fault::None`].
pub fn fuzz(fault: Fault, bytes: &[u8]) {
    let scenario = Scenario::decode(MachineKind::Coordinator, bytes);
    if let Err(broken) = scenario.play(|local, config| Driver::new(local, config, fault)) {
        #[allow(clippy::panic)] // so a fuzzer is told
        {
            panic!("{broken}");
        }
    }
}
