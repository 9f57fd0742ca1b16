//! How nodes answer that are not honest: [`Behaviour`], and the usual ones.

use super::nodes::{Handle, Key64};
use super::random::Draw;
use crate::error::{ConfigError, require};
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// How a node answers. An implementation must depend on nothing but the question, or the run cannot be repeated.
pub trait Behaviour: fmt::Debug + Send + Sync {
    /// What the node answers; `None` where it never does.
    fn answer(&self, question: Question<'_>) -> Option<Answer>;

    /// Whether a lookup should be able to find the node: whether it answers at all. Default: true.
    fn answers(&self) -> bool {
        true
    }

    /// Whether [accomplices](Handle::accomplice) behave so, too. Else nobody is there. Default: false.
    fn has_accomplices(&self) -> bool {
        false
    }
}

/// What a node is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// Who is asked.
    pub node: Handle,
    /// Who asks.
    pub asker: Handle,
    /// What for.
    pub target: Key64,
    /// How many nodes an answer names at most.
    pub k: usize,
    /// What an honest node would answer: nothing where an accomplice is asked.
    pub honest: &'a [Handle],
    /// Chance, of a stream for this question only.
    pub(crate) draw: Draw,
}

impl Question<'_> {
    /// A random number below `n`; 0 where there is none.
    pub fn below(&mut self, n: u32) -> u32 {
        self.draw.below(n)
    }
}

/// What a node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The nodes it names.
    pub closer: Vec<Handle>,
    /// How long it waits before.
    pub after: Duration,
}

/// Names nodes that do not exist, all over the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeUp;

impl Behaviour for MadeUp {
    fn answer(&self, mut question: Question<'_>) -> Option<Answer> {
        let closer = (0..question.k).map(|_| Handle::made_up(question.below(u32::MAX))).collect();
        Some(Answer { closer, after: Duration::ZERO })
    }
}

/// Names itself and accomplices that stand closer to the target than anybody else; these do the same. About targets
/// that nobody can stand next to it tells the truth.
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

/// Tells the truth, so much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late(pub Duration);

impl Behaviour for Late {
    fn answer(&self, question: Question<'_>) -> Option<Answer> {
        Some(Answer { closer: question.honest.to_vec(), after: self.0 })
    }
}

/// Answers, and names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty;

impl Behaviour for Empty {
    fn answer(&self, _: Question<'_>) -> Option<Answer> {
        Some(Answer::default())
    }
}

/// Never answers, but takes part otherwise.
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

/// A share of the nodes that behaves so.
#[derive(Clone, Debug)]
pub struct Party {
    /// The share of all nodes. 0 to 1; the shares of all parties together are at most 1.
    pub share: f64,
    /// How they answer.
    pub behaviour: Arc<dyn Behaviour>,
}

impl Party {
    /// A share of the nodes that behaves so.
    pub fn new(share: f64, behaviour: impl Behaviour + 'static) -> Self {
        Self { share, behaviour: Arc::new(behaviour) }
    }

    pub(crate) fn validate(parties: &[Self]) -> Result<(), ConfigError> {
        let shares = || parties.iter().map(|party| party.share);
        let sound = shares().all(|share| share >= 0.0) && shares().sum::<f64>() <= 1.0;
        require(sound && parties.len() < 255, "hostile.share", "0 to 1, all together too")
    }

    /// The party that a node belongs to, by a number drawn evenly from 0 to 1.
    pub(crate) fn of(parties: &[Self], mut number: f64) -> Option<u8> {
        (0..).zip(parties).find_map(|(place, party)| {
            number -= party.share;
            (number < 0.0).then_some(place)
        })
    }
}
