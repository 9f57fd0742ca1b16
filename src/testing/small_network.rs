//! [`SmallNetwork`]: nodes that answer, fail, are silent or lie, for [`terminates`](crate::testing::terminates).

use crate::testing::checked::Fate;
use crate::testing::draw::Draw;
use crate::testing::sample::Sample;
use crate::vocabulary::key::Key;
use crate::vocabulary::request_events::{Ask, Request, Response};
use crate::vocabulary::target::Target;
use core::time::Duration;

/// What a node does when it is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Manner {
    /// It answers after so long, with the closest of all nodes.
    Answers(Duration),
    /// It cannot be reached.
    Fails,
    /// Nothing is heard of it.
    Silent,
    /// It names nodes that do not exist, ever closer to the target or anywhere, at once.
    Lies(Draw),
}

/// A small network that answers the requests of one machine.
#[derive(Clone, Debug)]
pub struct SmallNetwork<F: Sample> {
    nodes: Vec<(F::Node, Manner)>,
}

impl<F: Sample> SmallNetwork<F> {
    /// The network of these nodes. One that is asked and is none of them is silent.
    pub fn new(nodes: Vec<(F::Node, Manner)>) -> Self {
        Self { nodes }
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<F::Node> {
        self.nodes.iter().map(|(node, _)| node.clone()).collect()
    }

    /// What becomes of a request.
    pub fn fate(&mut self, request: &Request<F>) -> Fate<F> {
        let target = request.target.key();
        let asked = self.nodes.iter_mut().find(|(node, _)| *node == request.node);
        let (after, closer) = match asked.map(|(_, manner)| manner) {
            None | Some(Manner::Silent) => return Fate::Lost,
            Some(Manner::Fails) => return Fate::Fails,
            Some(Manner::Lies(draw)) => {
                let lie = |_| {
                    let cpl = u32::try_from(draw.below(F::Key::BITS as usize)).unwrap_or_default();
                    F::node(target.random_with_cpl(cpl, || draw.number()), 1)
                };
                (Duration::from_millis(1), (0..8).map(lie).collect())
            }
            Some(Manner::Answers(after)) => {
                let after = *after;
                let mut all = self.nodes();
                all.sort_by_key(|node| F::key(node).distance(&target));
                all.truncate(20);
                (after, all)
            }
        };
        let is_store = matches!(request.ask, Ask::Store { .. } | Ask::Batch { .. });
        Fate::Comes(after, Response::answered(request.id, if is_store { Vec::new() } else { closer }))
    }
}
