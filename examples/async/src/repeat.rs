//! [`Repeat`]: the schedule of the records that are stored again and again.

use crate::wire::Wire;
use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::{Batch, ConfigError, Instant, Machine, Reprovide, ReprovideConfig, Stamped, SweepConfig};

/// How many records one broadcast stores. The engine takes no more than its
/// [`max_records`](kad_proto::BroadcastConfig::max_records).
const RECORDS_AT_ONCE: usize = 4_096;

/// The schedule, and what it has said.
#[derive(Debug)]
pub(crate) struct Repeat<W: Wire> {
    schedule: Reprovide<W::Key>,
    most: usize,
    size: Option<u64>,
    batch: Batch<Outbound<W::Key>>,
}

impl<W: Wire> Repeat<W> {
    /// The schedule of these records, of the node whose key is `local`.
    pub(crate) fn new(
        local: W::Key,
        config: ReprovideConfig,
        keys: Vec<W::Key>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let most = config.max_keys;
        let mut schedule = Reprovide::new(local, config)?;
        let mut batch = Batch::new();
        schedule.handle_into(now, Stamped::new(Inbound::Add(keys)), &mut batch);
        batch.clear();
        Ok(Self { schedule, most, size: None, batch })
    }

    /// Adds a record. If there are as many as there may be, the error is their number.
    pub(crate) fn add(&mut self, now: Instant, key: W::Key) -> Result<(), usize> {
        if self.schedule.len() >= self.most && !self.schedule.contains(&key) {
            return Err(self.most);
        }
        self.handle(now, Inbound::Add(vec![key]));
        Ok(())
    }

    pub(crate) fn remove(&mut self, now: Instant, key: W::Key) {
        self.handle(now, Inbound::Remove(key));
    }

    /// The network has so many nodes. What is due is done by regions that suit it, from the next time on.
    pub(crate) const fn resize(&mut self, nodes: u64) {
        self.size = Some(nodes);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.batch.is_empty() { self.schedule.poll_timeout() } else { Some(Instant::ORIGIN) }
    }

    /// What is due by now, in portions of what one broadcast stores.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Vec<W::Key>> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.handle(now, Inbound::Tick);
        if let Some(nodes) = self.size.take() {
            let bits = SweepConfig::default().region_bits(nodes);
            if bits != self.schedule.bits() {
                self.handle(now, Inbound::Resize { bits });
            }
        }
        let due = self.batch.drain(..).filter_map(|out| match out.event {
            Outbound::Due { keys, .. } => Some(keys),
            Outbound::Refused { .. } => None,
        });
        due.flat_map(|keys| keys.chunks(RECORDS_AT_ONCE).map(<[_]>::to_vec).collect::<Vec<_>>()).collect()
    }

    fn handle(&mut self, now: Instant, event: Inbound<W::Key>) {
        self.schedule.handle_into(now, Stamped::new(event), &mut self.batch);
    }
}
