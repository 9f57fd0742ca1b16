//! How many queries are answered: of one host, and of all together.
//!
//! A token bucket for each host (in the form of the time at which it will be full again), in a table of bounded
//! size; and two budgets of bytes for all answers together, as the source address of a datagram can be forged and
//! whoever answers all of them is an amplifier. One budget is that of hosts whose address is proven: forged
//! addresses use up the other, and leave the nodes of the routing table and those that hold a token their answers.
//!
//! Plain data: it is told what time it is.
//!
//! What a flood of forged addresses can do:
//! - A host that is not in the table has a full bucket, so dropping the entry of a bucket that is full again changes
//!   nothing. Where all are in use, that goes which is nearest to full. To have the table forget that a host owes `n`
//!   queries, somebody would have to send `n` queries in the name of every other host of the table.
//! - A new host always gets an entry, so a table that is full locks nobody out.
//! - It can use up the budget of unproven hosts, so that of all who are unproven only some get an answer, by chance.
//! - It can use up the bucket of a host in whose name it asks. Without an exchange of tokens for each query, nothing
//!   can prevent that; this host gets [`Rates::burst`] answers that it has not asked for, and
//!   [`Rates::queries`] a second from then on, and no more.

use crate::shares::Host;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// How many queries of one host are answered in a second, in the long run. At least 1.
    pub queries: u32,
    /// How many at once, of a host that has not asked for long. At least 1.
    pub burst: u32,
    /// How many hosts are known that have asked in the last time. Memory: some 100 bytes for each.
    pub hosts: usize,
    /// How many bytes of answers are sent in a second to all hosts whose address is proven, and as many to all
    /// others; and how many at once is that of one second. At least 1.
    pub bytes: u32,
}

impl Default for Rates {
    /// 10 queries a second and 100 at once; 4,096 hosts; 100 kB a second. An answer has some 300 bytes, and at most
    /// 1,500. (libtorrent answers 5 queries a second, on average over 10 s.)
    fn default() -> Self {
        Self { queries: 10, burst: 100, hosts: 4_096, bytes: 100_000 }
    }
}

/// Why a query is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// The host has asked too much.
    OfHost,
    /// All hosts together have.
    OfAll,
}

/// Counts queries and the bytes of answers.
#[derive(Debug)]
pub struct Limiter {
    rates: Rates,
    /// When the bucket of each host will be full again.
    full: BTreeMap<Host, Instant>,
    /// The same in the order of time.
    order: BTreeSet<(Instant, Host)>,
    /// When each budget will be whole again: that of unproven hosts, and that of proven ones.
    whole: [Option<Instant>; 2],
}

impl Limiter {
    pub const fn new(rates: Rates) -> Self {
        Self { rates, full: BTreeMap::new(), order: BTreeSet::new(), whole: [None; 2] }
    }

    /// Whether a query of this host may be answered now. If so, it counts. `proven`: that it is really this host
    /// that asks, or was a short time ago.
    ///
    /// # Errors
    /// [`Excess`] says why not.
    pub fn admit(&mut self, host: Host, proven: bool, now: Instant) -> Result<(), Excess> {
        let query = Duration::from_secs(1) / self.rates.queries.max(1);
        let known = self.full.get(&host).copied();
        let full = known.map_or(now, |full| full.max(now)) + query;
        if full > now + query * self.rates.burst.max(1) {
            return Err(Excess::OfHost);
        }
        // Whoever overdraws the budget has it, and the next has to wait.
        if self.whole.get(usize::from(proven)).copied().flatten() > Some(now + Duration::from_secs(1)) {
            return Err(Excess::OfAll);
        }
        if let Some(known) = known {
            self.order.remove(&(known, host));
        }
        while let Some(first) = self.order.first().copied()
            && (first.0 <= now || known.is_none() && self.order.len() >= self.rates.hosts.max(1))
        {
            self.order.remove(&first);
            self.full.remove(&first.1);
        }
        self.full.insert(host, full);
        self.order.insert((full, host));
        Ok(())
    }

    /// An answer of this many bytes is sent.
    pub fn answered(&mut self, bytes: usize, proven: bool, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(whole) = self.whole.get_mut(usize::from(proven)) {
            let took = Duration::from_secs(1) * bytes / self.rates.bytes.max(1);
            *whole = Some(whole.map_or(now, |whole| whole.max(now)) + took);
        }
    }

    /// How many hosts are in the table.
    pub fn hosts(&self) -> usize {
        self.full.len()
    }
}
