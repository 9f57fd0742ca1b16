//! [`Behaviour`]: how nodes answer that are not honest, and the usual implementations.

use crate::sim::network::handle::{Handle, Key64};
use crate::sim::random::Random;
use crate::vocabulary::config_error::{ConfigError, require};
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// How a node answers requests. An implementation must depend on nothing but the question, or the run cannot be
/// repeated.
pub trait Behaviour: fmt::Debug + Send + Sync {
    /// The answer to a request; `None` if the node sends none.
    fn answer(&self, question: Question<'_>) -> Option<Answer>;

    /// Whether the node answers at all: only then it counts as one that a lookup should find. Default: true.
    fn answers(&self) -> bool {
        true
    }

    /// Whether [accomplices](Handle::accomplice) exist and behave so too. Default: false.
    fn has_accomplices(&self) -> bool {
        false
    }
}

/// A request, as a [`Behaviour`] sees it.
#[derive(Debug)]
pub struct Question<'a> {
    /// The node that is asked.
    pub node: Handle,
    /// The node that asks.
    pub asker: Handle,
    /// The target of the request.
    pub target: Key64,
    /// The maximum number of nodes in an honest answer.
    pub k: usize,
    /// The nodes of an honest answer; empty if an accomplice is asked.
    pub honest: &'a [Handle],
    /// The random stream of this question.
    pub(crate) random: Random,
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
}

/// Returns nodes that do not exist, with keys uniform over the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeUp;

impl Behaviour for MadeUp {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        let closer = (0..question.k).map(|_| Handle::made_up(question.below(u32::MAX))).collect();
        Some(Answer { closer, after: Duration::ZERO })
    }
}

/// Returns itself and [accomplices](Handle::accomplice) that are closer to the target than any other node; these
/// do the same. If the target is neither a node nor a point, and so has no accomplices, the answer is honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eclipse;

impl Behaviour for Eclipse {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        let first = question.below(128);
        let mut closer = vec![question.node];
        if let Some(victim) = Handle::at(&question.target) {
            let others = (first..).take(question.k - 1).filter_map(|number| victim.accomplice(number));
            closer.extend(others);
        } else {
            closer = question.honest.to_vec();
        }
        Some(Answer { closer, after: Duration::ZERO })
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
        Some(Answer { closer: question.honest.to_vec(), after: self.0 })
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
        require(sound && parties.len() < 255, "hostile.share", "0 to 1, all together too")
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
