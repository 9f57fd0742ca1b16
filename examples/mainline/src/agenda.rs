//! What the program was asked to do, one thing after the other.

use crate::options::{Action, Options};
use kad_mainline::driver::Driver;
use std::slice::Iter;

/// First the lookups, all at once; then the actions, each when the one before has ended.
#[derive(Debug)]
pub(crate) struct Agenda<'a> {
    options: &'a Options,
    lookups: bool,
    actions: Iter<'a, Action>,
}

impl<'a> Agenda<'a> {
    /// All of it is still to be done.
    pub(crate) fn new(options: &'a Options) -> Self {
        Self { options, lookups: true, actions: options.actions.iter() }
    }

    /// Begins what is next, if nothing is under way. Says whether something is then.
    pub(crate) fn go_on(&mut self, driver: &mut Driver) -> bool {
        while driver.unfinished() == 0 {
            let time = self.options.deadline;
            if core::mem::take(&mut self.lookups) {
                self.options.targets().for_each(|target| driver.look_up(target, time));
            } else if let Some((goal, target)) = self.actions.next() {
                driver.begin(goal.clone(), *target, time);
            } else {
                return false;
            }
        }
        true
    }
}
