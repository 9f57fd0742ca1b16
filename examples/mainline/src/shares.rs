//! Room that strangers share: who takes how much of it, and who has to give way.
//!
//! Each claim on the room is charged to the host that made it. A host beyond what one host may have replaces its own
//! claims. Where the whole room is taken, the host that has most gives way, so that no host can push out those that
//! have less than itself, however much it claims.

use kad_proto::Key160;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What is taken for one host: an IPv4 address. On loopback each port is a host, as there a whole network runs on
/// one address, and nobody else can send from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Ipv4Addr, u16);

impl Host {
    /// The host of who sends from this address.
    pub fn of(address: SocketAddrV4) -> Self {
        Self(*address.ip(), if address.ip().is_loopback() { address.port() } else { 0 })
    }
}

/// What a claim is on: a distance from the own id, and a port where that makes a difference. The nearest come first.
pub type Claim = (Key160, SocketAddrV4);

/// There is no room: neither is there a host with more, nor has the host itself a claim that is farther.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For one host.
    pub host: usize,
    /// For all together.
    pub total: usize,
}

/// The claims of all hosts, and their sizes.
#[derive(Debug)]
pub struct Shares {
    room: Room,
    claims: BTreeMap<(Host, Claim), usize>,
    taken: BTreeMap<Host, usize>,
    /// The same by size, and among equals by the farthest claim.
    ranking: BTreeSet<(usize, Claim, Host)>,
    total: usize,
}

impl Shares {
    pub const fn new(room: Room) -> Self {
        Self { room, claims: BTreeMap::new(), taken: BTreeMap::new(), ranking: BTreeSet::new(), total: 0 }
    }

    /// How much is taken.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// How much this host has taken.
    pub fn of(&self, host: Host) -> usize {
        self.taken.get(&host).copied().unwrap_or_default()
    }

    /// Records a claim of this size, which the host must not have already, after it has made room for it. `drop` is
    /// told which claims went for that, and is to drop what they were on.
    ///
    /// # Errors
    /// Where there is no room. Claims may have gone even then, but only of hosts that had more than this one would
    /// have, and of itself.
    pub fn claim(
        &mut self,
        host: Host,
        claim: Claim,
        size: usize,
        mut drop: impl FnMut(Host, Claim),
    ) -> Result<(), NoRoom> {
        loop {
            let own = self.of(host) + size;
            let has_too_much = own > self.room.host;
            if !has_too_much && self.total + size <= self.room.total {
                break;
            }
            // Among equals it is the distance that counts.
            let victim = match self.ranking.last() {
                Some((most, farthest, largest))
                    if !has_too_much && (*most > own || *most == own && *farthest > claim) =>
                {
                    (*largest, *farthest)
                }
                _ => (host, self.farthest(host).filter(|farthest| *farthest > claim).ok_or(NoRoom)?),
            };
            self.release(victim.0, victim.1);
            drop(victim.0, victim.1);
        }
        self.change(host, |claims, taken| {
            claims.insert((host, claim), size);
            taken + size
        });
        self.total += size;
        Ok(())
    }

    /// Forgets a claim.
    pub fn release(&mut self, host: Host, claim: Claim) {
        let Some(size) = self.claims.get(&(host, claim)).copied() else { return };
        self.change(host, |claims, taken| {
            claims.remove(&(host, claim));
            taken - size
        });
        self.total -= size;
    }

    /// The claim of this host that is farthest from the own id.
    fn farthest(&self, host: Host) -> Option<Claim> {
        let first = (Key160::new([0; 20]), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let last = (Key160::new([0xff; 20]), SocketAddrV4::new(Ipv4Addr::BROADCAST, u16::MAX));
        let mut all = self.claims.range((host, first)..=(host, last));
        all.next_back().map(|((_, claim), _)| *claim)
    }

    /// Changes the claims of a host, and with them how much it has taken, and its rank.
    fn change(
        &mut self,
        host: Host,
        change: impl FnOnce(&mut BTreeMap<(Host, Claim), usize>, usize) -> usize,
    ) {
        let before = self.of(host);
        if let Some(farthest) = self.farthest(host) {
            self.ranking.remove(&(before, farthest, host));
        }
        let after = change(&mut self.claims, before);
        self.taken.remove(&host);
        if let Some(farthest) = self.farthest(host) {
            self.taken.insert(host, after);
            self.ranking.insert((after, farthest, host));
        }
    }
}
