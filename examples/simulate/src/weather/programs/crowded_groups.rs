//! L11: what it costs to take an answer that names many nodes with address groups.
//!
//! Instructions cannot be counted in a program, so the calls of the family's functions (`key`, `group`, `admits`, `==`)
//! are: whatever looks at a node calls one of them. They are counted in the one call of the machine that takes the
//! answer. A quadratic rule costs four times as many calls for each node if an answer is four times as long. Comparisons of
//! keys or of groups among themselves, as in sorting, are not seen.

use crate::weather::programs::tools::{Random, at_most};
use crate::weather::{Figure, Row, Trial};
use kad_proto::coordinator::{Inbound, Outbound};
use kad_proto::{
    Batch, Config, Coordinator, Family, Group, Instant, Key160, Machine, QueryConfig, Response,
    RoutingInbound, Secret, Stamped, Start,
};
use std::cell::Cell;

/// The row.
pub(super) const ROW: Row = Row {
    name: "L11",
    world: "an answer names 1,024 nodes with address groups",
    reached: false,
    in_short: true,
    seeded: true,
    run,
};

const LONG: u32 = 1_024;
const SHORT: u32 = 256;

/// For each node that is named, the table compares its key and its group with those of the 20 nodes of one bucket, and a
/// little more is done.
const CALLS_PER_NODE: f64 = 64.0;

thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });

fn count_call() {
    CALLS.set(CALLS.get() + 1);
}

/// A family that counts the calls of its functions.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counting;

#[derive(Clone, Copy, Debug)]
struct Node {
    key: Key160,
    group: u64,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        count_call();
        (self.key, self.group) == (other.key, other.group)
    }
}

impl Family for Counting {
    type Key = Key160;
    type Target = Key160;
    type Node = Node;
    type Message = ();

    fn key(node: &Node) -> Key160 {
        count_call();
        node.key
    }

    fn admits(&self, _: &Node) -> bool {
        count_call();
        true
    }

    fn group(node: &Node) -> Option<Group> {
        count_call();
        Some(Group(node.group))
    }
}

/// What the nodes of an answer have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each is of a group of its own.
    Apart,
    /// So many are of one group each.
    Groups(u32),
    /// All are of one group.
    OneGroup,
    /// Each is of a group of its own, and their keys agree in the first 64 bits: anybody may claim such keys where the
    /// transport does not prove identity.
    OnePrefix,
    /// As `Apart`; the answer comes in two parts.
    InParts,
}

/// An answer of this shape is taken.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// How many nodes it names.
    pub nodes: u32,
    /// What they have in common.
    pub shape: Shape,
    /// How many candidates a lookup keeps.
    pub max_candidates: usize,
    /// The seed.
    pub seed: u64,
}

fn key(random: &mut Random, first: Option<u64>) -> Key160 {
    let mut bytes = [0; 20];
    let words = [first.unwrap_or_else(|| random.next()), random.next(), random.next()];
    for (byte, word) in bytes.iter_mut().zip(words.iter().flat_map(|word| word.to_be_bytes())) {
        *byte = word;
    }
    Key160::new(bytes)
}

impl Answer {
    fn nodes(&self, random: &mut Random) -> Vec<Node> {
        let alike = random.next();
        let group = |number: u32| match self.shape {
            Shape::Groups(of) => u64::from(number / of.max(1)),
            Shape::OneGroup => 0,
            _ => u64::from(number),
        };
        let first = (self.shape == Shape::OnePrefix).then_some(alike);
        (0..self.nodes).map(|number| Node { key: key(random, first), group: group(number) }).collect()
    }

    /// The calls of the family's functions while a node with a full table takes the answer, in the middle of a lookup.
    ///
    /// # Errors
    /// The lookup does not ask its seed.
    pub fn calls(&self) -> Result<u64, String> {
        let mut random = Random::new(self.seed);
        let mut config = Config::default();
        config.query = QueryConfig {
            max_closer_nodes: 1_024,
            max_candidates: self.max_candidates,
            max_nodes: self.max_candidates.max(QueryConfig::default().max_nodes),
            ..config.query
        };
        config.network.max_part_nodes = 1_024;
        let secret = Secret::from_seed(self.seed);
        let local = key(&mut random, None);
        let mut engine =
            Coordinator::<Counting>::new(local, config, &secret).map_err(|error| error.to_string())?;
        let mut out = Batch::new();
        let now = Instant::ORIGIN;
        for number in 0..400 {
            let node = Node { key: key(&mut random, None), group: 1 << 40 | number };
            let connected = RoutingInbound::Connected { node, round_trip: None };
            engine.handle_into(now, Stamped::new(Inbound::Routing(connected)), &mut out);
        }
        out.clear();
        let start = Start::find(1, key(&mut random, None));
        engine.handle_into(now, Stamped::new(Inbound::Start(start)), &mut out);
        let asked = out.iter().find_map(|stamped| match &stamped.event {
            Outbound::Request(request) if request.initiator.operation().is_some() => Some(request.id),
            _ => None,
        });
        let asked = asked.ok_or("the lookup asks nobody")?;
        let mut closer = self.nodes(&mut random);
        if self.shape == Shape::InParts {
            let rest = closer.split_off(closer.len() / 2);
            let part = core::mem::replace(&mut closer, rest);
            engine.handle_into(now, Stamped::new(Inbound::Response(Response::part(asked, part))), &mut out);
        }
        out.clear();
        let answer = Stamped::new(Inbound::Response(Response::answered(asked, closer)));
        CALLS.set(0);
        engine.handle_into(now, answer, &mut out);
        Ok(CALLS.get())
    }
}

/// How many times as many calls each node costs if the answer is four times as long: 1 if they are linear, 4 if they
/// are quadratic.
///
/// # Errors
/// Those of `calls`.
pub fn growth(calls: impl Fn(u32) -> Result<u64, String>) -> Result<f64, String> {
    let per_node = |nodes: u32| calls(nodes).map(|calls| calls as f64 / f64::from(nodes));
    Ok(per_node(LONG)? / per_node(SHORT)?)
}

fn run(trial: Trial) -> Result<Vec<Figure>, String> {
    let grouped =
        [Shape::Apart, Shape::Groups(2), Shape::Groups(4), Shape::OneGroup, Shape::InParts].as_slice();
    let mut figures = Vec::new();
    for max_candidates in [QueryConfig::default().max_candidates, 8_192] {
        for (name, shapes) in [("any groups", grouped), ("one 64-bit prefix", &[Shape::OnePrefix])] {
            let (mut most, mut grown) = (0, 0.0_f64);
            for shape in shapes {
                let answer = Answer { nodes: LONG, shape: *shape, max_candidates, seed: trial.seed };
                let calls = |nodes| Answer { nodes, ..answer }.calls();
                most = most.max(calls(LONG)?);
                grown = grown.max(growth(calls)?);
            }
            let most = most as f64 / f64::from(LONG);
            let title = format!("{name}, {max_candidates} candidates");
            figures.push(at_most(format!("calls a node, {title}"), most, CALLS_PER_NODE));
            figures.push(at_most(format!("growth, {title}"), grown, 1.1));
        }
    }
    Ok(figures)
}
