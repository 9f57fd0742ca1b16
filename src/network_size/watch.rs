//! [`SizeWatch`]: feeds lookups to the estimator, and decides when a changed estimate is to be published.

use crate::context;
use crate::context::Context;
use crate::network_size::config::NetworkSizeConfig;
use crate::network_size::estimator::{NetworkSize, NotEnoughData, SizeEstimate};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Family;
use crate::vocabulary::operation_events::Contact;
use crate::vocabulary::time::Instant;

/// The estimator of a coordinator, and the estimates that it has emitted or is to emit.
#[derive(Clone, Debug)]
pub(crate) struct SizeWatch<F: Family> {
    estimator: NetworkSize<F::Key>,
    /// Samples recorded since the last estimate.
    new_samples: usize,
    /// The last estimate that was published.
    published: Option<u64>,
    /// The estimate to publish next, and the link to the lookup that led to it.
    unpublished: Option<(u64, Context)>,
}

impl<F: Family> SizeWatch<F> {
    /// An estimate is published if it differs from the last published one by more than the last one divided
    /// by this number.
    const CHANGE_DIVISOR: u64 = 10;

    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub(crate) fn new(config: NetworkSizeConfig) -> Result<Self, ConfigError> {
        Ok(Self { estimator: NetworkSize::new(config)?, new_samples: 0, published: None, unpublished: None })
    }

    pub(crate) fn estimate(&self, now: Instant) -> Result<SizeEstimate, NotEnoughData> {
        self.estimator.estimate(now)
    }

    /// The new estimate in nodes, if there is one to publish, and the link to the lookup that led to it.
    pub(crate) fn take_news(&mut self) -> Option<(u64, Context)> {
        self.unpublished.take()
    }

    /// Records a lookup that has converged. `bucket_len` is the number of nodes in the target's bucket.
    /// `observe` tells of the own neighbourhood, when an estimate is due.
    pub(crate) fn sample(
        &mut self,
        now: Instant,
        target: F::Key,
        closest: &[Contact<F>],
        bucket_len: usize,
        context: &Context,
        observe: impl FnOnce(&mut NetworkSize<F::Key>),
    ) {
        let nodes = closest.iter().map(|contact| (F::key(&contact.node), F::group(&contact.node)));
        if !self.estimator.record_in_groups(now, target, nodes, bucket_len) {
            return;
        }
        // An estimate costs as much as a lookup: make one whenever a tenth of the samples is new.
        self.new_samples += 1;
        if self.new_samples < self.estimator.samples() / 10 {
            return;
        }
        self.new_samples = 0;
        observe(&mut self.estimator);
        let Ok(estimate) = self.estimator.estimate(now) else { return };
        let nodes = estimate.nodes();
        if self.published.is_none_or(|last| last.abs_diff(nodes) > last / Self::CHANGE_DIVISOR) {
            self.published = Some(nodes);
            self.unpublished = Some((nodes, context::detached(context)));
        }
    }
}
