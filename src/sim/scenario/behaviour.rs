//! [`Behaviour`]: how nodes answer that are not honest, and the usual implementations.

use crate::sim::network::handle::{Handle, Key64};
use crate::sim::network::population::Population;
use crate::sim::random::Random;
use crate::vocabulary::config_error::{ConfigError, require};
use crate::vocabulary::key::Key;
use crate::vocabulary::time::Instant;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// How nodes behave that are not honest: how they answer requests, what they keep and show, and what they do of their
/// own accord. An implementation must depend on nothing but its arguments, or the run cannot be repeated.
pub trait Behaviour: fmt::Debug + Send + Sync {
    /// The answer to a request; `None` if the node sends none.
    fn answer(&self, question: Question<'_>) -> Option<Answer>;

    /// Whether the node answers at all: only then it counts as one that a lookup should find. Default: true.
    fn answers(&self) -> bool {
        true
    }

    /// Whether [accomplices](Handle::accomplice) exist and behave so too. Of the parties the first that says so counts; of
    /// Sybils it has no effect. Default: false.
    fn has_accomplices(&self) -> bool {
        false
    }

    /// Whether all [made-up nodes](Handle::made_up) exist and behave so too. Of the parties the first that says so counts; of
    /// Sybils it has no effect. Default: false.
    fn has_made_up_nodes(&self) -> bool {
        false
    }

    /// How long a round trip to a node that behaves so takes, whatever the link is. Default: what the link takes.
    fn round_trip(&self) -> Option<Duration> {
        None
    }

    /// The time from one [act](Behaviour::act) to the next, the first as soon as the network is built; more than zero.
    /// Default: they do nothing of their own accord.
    fn acts_every(&self) -> Option<Duration> {
        None
    }

    /// What all of them together do of their own accord in one turn.
    fn act(&self, turn: Turn<'_>) -> Vec<Act> {
        let _ = turn;
        Vec::new()
    }
}

/// A request, as a [`Behaviour`] sees it.
#[derive(Debug)]
pub struct Question<'a> {
    /// When it arrives.
    pub at: Instant,
    /// The node that is asked.
    pub node: Handle,
    /// The node that asks.
    pub asker: Handle,
    /// The target of the request.
    pub target: Key64,
    /// What it asks for.
    pub asked: AskedFor<'a>,
    /// The maximum number of nodes in an honest answer.
    pub k: usize,
    /// The nodes of an honest answer. Of an accomplice or a made-up node: empty. Of a [Sybil](crate::sim::Sybils): the
    /// nodes of the network that are truly the closest.
    pub honest: &'a [Handle],
    /// The other members of its set of [Sybils](crate::sim::Sybils), the closest to the target first.
    pub members: &'a [Handle],
    /// The random stream of this question.
    pub(crate) random: Random,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskedFor<'a> {
    /// The nodes that are closest to the target.
    Nodes,
    /// The nodes, and the answer to a message: a record with this number, if the lookup is a search.
    Message(u32),
    /// To store records with these numbers.
    Store(&'a [u32]),
}

impl Question<'_> {
    /// A uniform random number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        self.random.below(n)
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The nodes it returns.
    pub closer: Vec<Handle>,
    /// How long the node waits before it sends the answer.
    pub after: Duration,
    /// Whether the node keeps the records that it is asked to store. It acknowledges them in any case.
    pub keeps: bool,
    /// The record that it shows to a search, by number. One that the search does not look for is a lie, which its driver
    /// sees through.
    pub shows: Option<u32>,
}

impl Answer {
    /// An answer with these nodes, at once.
    pub fn naming(closer: Vec<Handle>) -> Self {
        Self { closer, ..Self::default() }
    }
}

/// A turn in which nodes that are not honest act of their own accord.
#[derive(Debug)]
pub struct Turn<'a> {
    /// When it is.
    pub at: Instant,
    /// How many turns there were before.
    pub number: u32,
    /// The members of the set of Sybils, the closest to its place first; empty for a [`Party`].
    pub members: &'a [Handle],
    /// What the attacker knows of the network: all of it.
    pub(crate) population: &'a Population,
    /// How many nodes the network has.
    pub nodes: u32,
    /// The random stream of this turn.
    pub(crate) random: Random,
}

impl Turn<'_> {
    /// The handle of a node of the network, by number.
    pub fn node(&self, number: u32) -> Handle {
        self.population.handle(number)
    }

    /// The nodes of the network that are closest to a key, dead or not.
    pub fn closest(&self, target: Key64, count: usize) -> Vec<Handle> {
        let count_all = |handle: Handle| self.population.index(handle).is_some();
        self.population.closest(target, count, count_all)
    }

    /// A uniform random number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        self.random.below(n)
    }
}

/// What nodes that are not honest do of their own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// A request arrives at a node, and says that it comes from another one: the sender may be spoofed.
    Ask {
        /// The node that it arrives at.
        node: Handle,
        /// The node that it says it comes from.
        sender: Handle,
    },
}

/// Returns nodes that do not exist, with keys uniform over the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeUp;

impl Behaviour for MadeUp {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        let closer = (0..question.k).map(|_| Handle::made_up(question.below(u32::MAX))).collect();
        Some(Answer::naming(closer))
    }
}

/// Returns itself and [accomplices](Handle::accomplice) that are closer to the target than any other node; these
/// do the same. Whoever counts them takes the network for larger than it is. If the target is neither a node nor a
/// point, and so has no accomplices, the answer is honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eclipse;

impl Behaviour for Eclipse {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        let first = question.below(64);
        let mut closer = vec![question.node];
        if let Some(victim) = Handle::at(&question.target) {
            let others = (first..).take(question.k - 1).filter_map(|number| victim.accomplice(number));
            closer.extend(others);
        } else {
            closer = question.honest.to_vec();
        }
        Some(Answer::naming(closer))
    }

    fn has_accomplices(&self) -> bool {
        true
    }
}

/// Answers honestly, this much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late(pub Duration);

impl Behaviour for Late {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(Answer { after: self.0, ..Answer::naming(question.honest.to_vec()) })
    }
}

/// Answers without any nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty;

impl Behaviour for Empty {
    fn answer(&self, _: Question<'_>) -> Option<Answer> {
        Some(Answer::default())
    }
}

/// Never answers requests, but sends its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent;

impl Behaviour for Silent {
    fn answer(&self, _: Question<'_>) -> Option<Answer> {
        None
    }

    fn answers(&self) -> bool {
        false
    }
}

/// The answer of a [Sybil](crate::sim::Sybils) that names the others of its set, the closest first, and no other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clique;

impl Behaviour for Clique {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(Answer::naming(question.members.iter().copied().take(question.k).collect()))
    }
}

/// Accepts every record, and shows none; or shows another one, a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Censor {
    /// Whether it names what an honest node would name, with the other Sybils of its set; else these only.
    pub truthful: bool,
    /// Whether it shows a wrong record to every search, instead of none.
    pub lies: bool,
}

impl Behaviour for Censor {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        let shows = match question.asked {
            AskedFor::Message(record) if self.lies => Some(record.wrapping_add(1 << 31)),
            _ => None,
        };
        let mut closer = question.members.to_vec();
        if self.truthful {
            closer.extend_from_slice(question.honest);
            closer.sort_unstable_by_key(|node| node.key().distance(&question.target));
            closer.dedup();
        }
        closer.truncate(question.k);
        Some(Answer { shows, ..Answer::naming(closer) })
    }
}

/// Poisons the clock of those who ask: returns this many made-up nodes, all of which exist, and answer at once with no
/// nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuickCrowd {
    /// How many it names.
    pub names: u32,
    /// How long the round trip to each of them takes.
    pub round_trip: Duration,
}

impl Behaviour for QuickCrowd {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        if question.node.is_made_up() {
            return Some(Answer::default());
        }
        Some(Answer::naming((0..self.names).map(|_| Handle::made_up(question.below(u32::MAX))).collect()))
    }

    fn has_made_up_nodes(&self) -> bool {
        true
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.round_trip)
    }
}

/// Sends a victim requests with spoofed senders, where nobody is: made-up nodes, or its neighbours at addresses that are
/// not theirs. Answers honestly what it is asked itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// The victim, by number.
    pub victim: u32,
    /// The time from one request to the next.
    pub every: Duration,
    /// How many of the victim's neighbours are named, in turn; 0: made-up nodes.
    pub neighbours: u32,
}

impl Behaviour for Flood {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(Answer::naming(question.honest.to_vec()))
    }

    fn acts_every(&self) -> Option<Duration> {
        Some(self.every)
    }

    fn act(&self, mut turn: Turn<'_>) -> Vec<Act> {
        let victim = turn.node(self.victim);
        let sender = if self.neighbours == 0 {
            Some(Handle::made_up(turn.below(u32::MAX)))
        } else {
            let near = turn.closest(victim.key(), self.neighbours as usize + 1);
            let near: Vec<_> = near.into_iter().filter(|node| *node != victim).collect();
            let neighbour = near.get(turn.number as usize % near.len().max(1));
            neighbour.and_then(|node| node.at_address(64 + turn.below(63)))
        };
        sender.map(|sender| Act::Ask { node: victim, sender }).into_iter().collect()
    }
}

/// A share of the nodes that has a [`Behaviour`].
#[derive(Clone, Debug)]
pub struct Party {
    /// The share of all nodes. 0 to 1; the shares of all parties together are at most 1.
    pub share: f64,
    /// How they answer.
    pub behaviour: Arc<dyn Behaviour>,
}

impl Party {
    /// This share of the nodes, with this behaviour.
    pub fn new(share: f64, behaviour: impl Behaviour + 'static) -> Self {
        Self { share, behaviour: Arc::new(behaviour) }
    }

    pub(crate) fn validate(parties: &[Self]) -> Result<(), ConfigError> {
        let shares = || parties.iter().map(|party| party.share);
        let sound = shares().all(|share| share >= 0.0) && shares().sum::<f64>() <= 1.0;
        require(sound && parties.len() < 255, "hostile.share", "0 to 1, all together too")?;
        let acts = parties.iter().filter_map(|party| party.behaviour.acts_every());
        require(acts.into_iter().all(|every| !every.is_zero()), "hostile.every", "longer than zero")
    }

    /// The index of the party that a node belongs to, by a number drawn uniformly from 0 to 1; `None` if it is
    /// honest.
    pub(crate) fn choose(parties: &[Self], mut number: f64) -> Option<u8> {
        (0..).zip(parties).find_map(|(index, party)| {
            number -= party.share;
            (number < 0.0).then_some(index)
        })
    }
}
