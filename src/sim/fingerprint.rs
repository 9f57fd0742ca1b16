//! [`Fingerprint`]: a running hash of all events of a run.

use crate::sim::event::SimEvent;
use crate::sim::split_mix::GOLDEN;
use crate::vocabulary::time::Instant;

/// A running hash of all events with their times: a rotation, an exclusive or, and a multiplication for each
/// number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, at: Instant, event: &SimEvent) {
        self.word(at.as_nanos());
        for number in event.numbers() {
            self.word(number);
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(GOLDEN);
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}
