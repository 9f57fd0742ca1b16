//! What a node keeps for others: immutable items (BEP 44), peers of torrents (BEP 5), and the tokens without which
//! nobody can store anything.
//!
//! Plain data: it is told what time it is. Bounded whatever strangers store; what there is no room for is refused
//! by name. Where it is full, what is farthest from the own id makes room for what is nearer, as others will look
//! for that here.

use core::fmt;
use core::time::Duration;
use kad_proto::{Key, Key160};
use rand::seq::IteratorRandom;
use sha1_smol::Sha1;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// How much is kept. Memory: about `bytes`, 100 bytes for each item, and 32 for each of `torrents` × `peers`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub items: usize,
    /// Of all items together.
    pub bytes: usize,
    /// Of one item, bencoded.
    pub item: usize,
    pub torrents: usize,
    /// Of one torrent.
    pub peers: usize,
}

impl Default for Limits {
    /// No item may be larger than BEP 44 says.
    fn default() -> Self {
        Self { items: 10_000, bytes: 4_000_000, item: 1_000, torrents: 2_000, peers: 200 }
    }
}

/// For how long an item is kept after it was put. BEP 44 has it put again every hour.
pub const ITEM_LIFE: Duration = Duration::from_secs(2 * 3_600);
/// For how long a peer is kept after it was announced. Most clients announce themselves every 15 to 30 minutes.
pub const PEER_LIFE: Duration = Duration::from_secs(45 * 60);
/// How long a secret is used to issue tokens. They are valid for as long again.
pub const SECRET_LIFE: Duration = Duration::from_secs(5 * 60);
/// No more peers are named at once than fit into a datagram of which no router makes two.
pub const PEERS_IN_ANSWER: usize = 100;

/// Why something is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is not one that this node gave to this address in the last minutes.
    BadToken,
    /// The item is not the one that the sender says it is.
    OtherTarget,
    /// The item is larger than any may be.
    TooBig,
    /// No peer has port 0.
    NoPort,
    /// There is no room, and all that is kept is nearer to the own id.
    Full,
}

impl Refusal {
    /// The error that says so, of those of BEP 5 and BEP 44.
    pub const fn code(self) -> i64 {
        match self {
            Self::Full => 202,
            Self::BadToken | Self::OtherTarget | Self::NoPort => 203,
            Self::TooBig => 205,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadToken => "Bad token",
            Self::OtherTarget => "The target is not the SHA-1 of v",
            Self::TooBig => "Message (v field) too big",
            Self::NoPort => "Port 0",
            Self::Full => "No room",
        })
    }
}

/// What is kept. Items and torrents are in order of their distance from the own id.
#[derive(Debug)]
pub struct Store {
    local: Key160,
    limits: Limits,
    /// That of now, and the one before.
    secrets: [[u8; 20]; 2],
    /// Since when it has been that of now.
    rotated: Instant,
    items: BTreeMap<Key160, Item>,
    bytes: usize,
    torrents: BTreeMap<Key160, Vec<Peer>>,
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    expires: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    address: SocketAddrV4,
    expires: Instant,
}

/// The key of an item: the SHA-1 of it, bencoded as it is.
pub fn target(item: &[u8]) -> Key160 {
    Key160::new(Sha1::from(item).digest().bytes())
}

impl Store {
    /// An empty store, of the node with this id.
    pub fn new(local: Key160, limits: Limits, now: Instant) -> Self {
        Self {
            local,
            limits,
            secrets: rand::random(),
            rotated: now,
            items: BTreeMap::new(),
            bytes: 0,
            torrents: BTreeMap::new(),
        }
    }

    /// The token for whoever asks from this address. It is valid for 5 to 10 minutes.
    pub fn token(&mut self, to: Ipv4Addr, now: Instant) -> Vec<u8> {
        self.elapse(now);
        let [secret, _] = &self.secrets;
        token(secret, to).to_vec()
    }

    /// Keeps an item, or keeps it longer.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not kept.
    pub fn put(
        &mut self,
        from: Ipv4Addr,
        token: &[u8],
        said: Option<Key160>,
        item: Vec<u8>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.admit(from, token, now)?;
        if item.len() > self.limits.item {
            return Err(Refusal::TooBig);
        }
        let target = target(&item);
        if said.is_some_and(|said| said != target) {
            return Err(Refusal::OtherTarget);
        }
        let (distance, expires) = (target.distance(&self.local), now + ITEM_LIFE);
        if let Some(known) = self.items.get_mut(&distance) {
            known.expires = expires;
            return Ok(());
        }
        self.make_room(&distance, item.len())?;
        self.bytes += item.len();
        self.items.insert(distance, Item { bytes: item, expires });
        Ok(())
    }

    /// The item with this key, bencoded.
    pub fn get(&self, target: &Key160, now: Instant) -> Option<&[u8]> {
        let item = self.items.get(&target.distance(&self.local))?;
        (now < item.expires).then_some(&item.bytes)
    }

    /// Keeps a peer of a torrent, or keeps it longer. Where the torrent has too many, that which was announced
    /// first goes.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not kept.
    pub fn announce(
        &mut self,
        peer: SocketAddrV4,
        token: &[u8],
        info_hash: &Key160,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.admit(*peer.ip(), token, now)?;
        if peer.port() == 0 {
            return Err(Refusal::NoPort);
        }
        let distance = info_hash.distance(&self.local);
        if self.torrents.len() >= self.limits.torrents && !self.torrents.contains_key(&distance) {
            let farthest = self.torrents.last_entry().filter(|farthest| *farthest.key() > distance);
            farthest.ok_or(Refusal::Full)?.remove();
        }
        // In the order in which they were announced, and expire.
        let peers = self.torrents.entry(distance).or_default();
        peers.retain(|known| known.address != peer);
        if peers.len() >= self.limits.peers {
            peers.remove(0);
        }
        peers.push(Peer { address: peer, expires: now + PEER_LIFE });
        Ok(())
    }

    /// Peers of a torrent: all, or as many as an answer names, at random.
    pub fn peers(&self, info_hash: &Key160, now: Instant) -> Vec<SocketAddrV4> {
        let known = self.torrents.get(&info_hash.distance(&self.local)).map_or(&[][..], Vec::as_slice);
        let live = known.iter().filter(|peer| now < peer.expires).map(|peer| peer.address);
        live.sample(&mut rand::rng(), PEERS_IN_ANSWER)
    }

    /// How many items there are, and how many torrents.
    pub fn len(&self) -> (usize, usize) {
        (self.items.len(), self.torrents.len())
    }

    /// Whether a token is one that this address has been given.
    fn admit(&mut self, from: Ipv4Addr, said: &[u8], now: Instant) -> Result<(), Refusal> {
        self.elapse(now);
        let is_ours = self.secrets.iter().any(|secret| token(secret, from) == said);
        if is_ours { Ok(()) } else { Err(Refusal::BadToken) }
    }

    /// Makes room for so many bytes at this distance, at the cost of what is farther.
    fn make_room(&mut self, distance: &Key160, bytes: usize) -> Result<(), Refusal> {
        // Nothing goes unless it is enough.
        let mut farther = self.items.range(distance..).map(|(_, item)| item.bytes.len()).rev();
        let (mut going, mut gone) = (0, 0);
        while self.items.len() - going >= self.limits.items || self.bytes - gone + bytes > self.limits.bytes {
            gone += farther.next().ok_or(Refusal::Full)?;
            going += 1;
        }
        for _ in 0..going {
            self.items.pop_last();
        }
        self.bytes -= gone;
        Ok(())
    }

    /// Changes the secret when it is time, and drops what has expired then.
    fn elapse(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.rotated);
        if age < SECRET_LIFE {
            return;
        }
        let [current, _] = self.secrets;
        let is_next = age < 2 * SECRET_LIFE;
        self.secrets = if is_next { [rand::random(), current] } else { rand::random() };
        self.rotated = if is_next { self.rotated + SECRET_LIFE } else { now };
        self.items.retain(|_, item| now < item.expires);
        self.bytes = self.items.values().map(|item| item.bytes.len()).sum();
        self.torrents.retain(|_, peers| {
            peers.retain(|peer| now < peer.expires);
            !peers.is_empty()
        });
    }
}

/// Nobody else can make it: the secret is hashed with the address, and too little of the hash is shown to go on
/// from.
fn token(secret: &[u8; 20], to: Ipv4Addr) -> [u8; 8] {
    let mut hash = Sha1::from(secret);
    hash.update(&to.octets());
    let mut token = [0; 8];
    token.iter_mut().zip(hash.digest().bytes()).for_each(|(to, byte)| *to = byte);
    token
}
