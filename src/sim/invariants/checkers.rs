//! [`Checkers`]: the [checkers](ContractChecker) of the engines of a run.

use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::sim::network::handle::Net;
use crate::testing::broken::Broken;
use crate::testing::checker::ContractChecker;
use crate::vocabulary::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One checker for each engine that was called. It has no models, so that a network of thousands can be checked.
#[derive(Debug)]
pub(crate) struct Checkers {
    config: Arc<Config>,
    /// By index of the node.
    by_node: BTreeMap<u32, ContractChecker<Net>>,
    /// Nodes that are not checked any more.
    exempt: BTreeSet<u32>,
}

impl Checkers {
    /// For engines with this configuration.
    pub(crate) fn new(config: Config) -> Self {
        Self { config: Arc::new(config), by_node: BTreeMap::new(), exempt: BTreeSet::new() }
    }

    /// Begins to check an engine that has had no call yet, unless it is checked already.
    pub(crate) fn begin(&mut self, index: u32, engine: &Coordinator<Net>) {
        if self.by_node.contains_key(&index) || self.exempt.contains(&index) {
            return;
        }
        let table = engine.table();
        // The configuration was validated before.
        if let Ok(checker) = ContractChecker::new(table.local(), Arc::clone(&self.config)) {
            self.by_node.insert(index, checker.without_models().with_table(table));
        }
    }

    /// The checker of an engine, if it has begun.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut ContractChecker<Net>> {
        self.by_node.get_mut(&index)
    }

    /// Does not check an engine any more: it takes another id, which a checker does not follow.
    pub(crate) fn exempt(&mut self, index: u32) {
        self.by_node.remove(&index);
        self.exempt.insert(index);
    }

    /// Forgets an engine that is dropped, after all of its operations were stopped.
    pub(crate) fn forget(&mut self, index: u32) -> Result<(), Broken> {
        self.by_node
            .remove(&index)
            .map_or(Ok(()), |checker| checker.check_operations_ended(Instant::FAR_FUTURE))
    }

    /// Checks at the end of a run that no operation is left: none at all, or, if the run stops at `now` while
    /// more would happen, none whose deadline has passed.
    pub(crate) fn at_end(&self, now: Option<Instant>) -> Result<(), (u32, Broken)> {
        let by = now.map_or(Instant::FAR_FUTURE, |now| Instant::from_nanos(now.as_nanos().saturating_sub(1)));
        for (index, checker) in &self.by_node {
            checker.check_operations_ended(by).map_err(|broken| (*index, broken))?;
        }
        Ok(())
    }
}
