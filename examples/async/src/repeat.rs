//! [`Repeat`]: the schedule of the records that are stored again and again.

use crate::wire::Wire;
use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::broadcast::{BroadcastFinish, StoreEnd};
use kad_proto::{Batch, ConfigError, Instant, Machine, Reprovide, ReprovideConfig, Stamped, SweepConfig};
use std::collections::HashMap;

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
    /// By tag, the broadcasts that run, and what they store.
    running: HashMap<u64, Vec<W::Key>>,
}

impl<W: Wire> Repeat<W> {
    /// The schedule of these records, of the node whose key is `local`.
    pub(crate) fn new(
        local: W::Key,
        config: &ReprovideConfig,
        keys: Vec<W::Key>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let most = config.max_keys;
        let mut schedule = Reprovide::new(local, config.clone())?;
        let mut batch = Batch::new();
        schedule.handle_into(now, Stamped::new(Inbound::Add(keys)), &mut batch);
        batch.clear();
        Ok(Self { schedule, most, size: None, batch, running: HashMap::new() })
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

    /// A broadcast of these records has begun.
    pub(crate) fn began(&mut self, tag: u64, keys: Vec<W::Key>) {
        self.running.insert(tag, keys);
    }

    /// A broadcast has ended. What it could not store is tried again, after a back-off.
    pub(crate) fn ended(&mut self, now: Instant, finish: &BroadcastFinish<W>) {
        let Some(mut keys) = self.running.remove(&finish.operation.tag()) else { return };
        if keys.len() > 1 {
            let mut is_stored = vec![false; keys.len()];
            for stored in finish.stores.iter().filter(|stored| stored.end == StoreEnd::Stored) {
                for record in &stored.records {
                    if let Some(is_stored) = is_stored.get_mut(*record as usize) {
                        *is_stored = true;
                    }
                }
            }
            let mut is_stored = is_stored.into_iter();
            keys.retain(|_| is_stored.next() == Some(false));
        } else if finish.succeeded {
            return;
        }
        self.failed(now, keys);
    }

    /// A broadcast was refused, as soon as it began.
    pub(crate) fn refused(&mut self, tag: u64) {
        if let Some(keys) = self.running.remove(&tag) {
            // No time has passed since the latest call of the schedule, which knows that.
            self.failed(Instant::ORIGIN, keys);
        }
    }

    fn failed(&mut self, now: Instant, keys: Vec<W::Key>) {
        if !keys.is_empty() {
            self.handle(now, Inbound::Failed(keys));
        }
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
        let due: Vec<_> = due.collect();
        due.iter().flat_map(|keys| keys.chunks(RECORDS_AT_ONCE)).map(<[_]>::to_vec).collect()
    }

    fn handle(&mut self, now: Instant, event: Inbound<W::Key>) {
        self.schedule.handle_into(now, Stamped::new(event), &mut self.batch);
    }
}
