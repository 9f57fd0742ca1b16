//! [`Repeat`]: the schedule of the records that are stored again and again.

use crate::node::Limits;
use crate::wire::Wire;
use core::time::Duration;
use kad_proto::broadcast::reprovide::{Inbound, Outbound};
use kad_proto::{Batch, ConfigError, Instant, Machine, Reprovide, Stamped, SweepConfig};
use std::collections::{HashMap, VecDeque};

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
    /// By tag, the broadcasts that run: since when, and what they store.
    running: HashMap<u64, (Instant, Vec<W::Key>)>,
    /// What could not be stored, and when it is tried again, in order.
    again: VecDeque<(Instant, Vec<W::Key>)>,
    retry: Duration,
}

impl<W: Wire> Repeat<W> {
    /// The schedule of these records, of the node whose key is `local`.
    pub(crate) fn new(
        local: W::Key,
        Limits { reprovide: config, retry, .. }: &Limits,
        keys: Vec<W::Key>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let most = config.max_keys;
        let mut schedule = Reprovide::new(local, config.clone())?;
        let mut batch = Batch::new();
        schedule.handle_into(now, Stamped::new(Inbound::Add(keys)), &mut batch);
        batch.clear();
        Ok(Self {
            schedule,
            most,
            size: None,
            batch,
            running: HashMap::new(),
            again: VecDeque::new(),
            retry: *retry,
        })
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
        self.again.retain_mut(|(_, keys)| {
            keys.retain(|known| *known != key);
            !keys.is_empty()
        });
        self.handle(now, Inbound::Remove(key));
    }

    /// The network has so many nodes. What is due is done by regions that suit it, from the next time on.
    pub(crate) const fn resize(&mut self, nodes: u64) {
        self.size = Some(nodes);
    }

    /// A broadcast of these records has begun.
    pub(crate) fn began(&mut self, now: Instant, tag: u64, keys: Vec<W::Key>) {
        self.running.insert(tag, (now, keys));
    }

    /// A broadcast has ended, or (at no time) was refused. What it could not store is tried again.
    pub(crate) fn ended(&mut self, tag: u64, at: Option<Instant>, is_short: bool) {
        if let Some((began, keys)) = self.running.remove(&tag)
            && is_short
        {
            self.again.push_back((at.unwrap_or(began) + self.retry, keys));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.batch.is_empty() {
            return Some(Instant::ORIGIN);
        }
        let again = self.again.front().map(|(at, _)| *at);
        [self.schedule.poll_timeout(), again].into_iter().flatten().min()
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
        let mut due: Vec<_> = due.collect();
        while self.again.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, keys)) = self.again.pop_front()
        {
            due.push(keys.into_iter().filter(|key| self.schedule.contains(key)).collect());
        }
        due.iter().flat_map(|keys| keys.chunks(RECORDS_AT_ONCE)).map(<[_]>::to_vec).collect()
    }

    fn handle(&mut self, now: Instant, event: Inbound<W::Key>) {
        self.schedule.handle_into(now, Stamped::new(event), &mut self.batch);
    }
}
