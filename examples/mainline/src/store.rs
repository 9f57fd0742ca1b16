//! What a node keeps for others: immutable items (BEP 44), peers of torrents (BEP 5), and the tokens without which
//! nobody can store anything.
//!
//! Plain data: it is told what time it is. Bounded whatever strangers store; what there is no room for is refused
//! by name. The room is shared by host, see [`shares`](crate::shares): no host can push out what others with less
//! have stored. Of one host, what is farthest from the own id makes room for what is nearer, as others will look for
//! that here.

use crate::krpc;
use crate::shares::{Claim, Host, NoRoom, Room, Shares};
use core::fmt;
use core::time::Duration;
use kad_proto::{Key, Key160};
use rand::seq::IteratorRandom;
use sha1_smol::Sha1;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// How much is kept. Memory: about twice `items.total`, and 250 bytes for each of `peers.total`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In bytes, with [`ITEM_COST`] for each item. An item that several hosts have put counts for each.
    pub items: Room,
    /// Of one item, bencoded, in bytes.
    pub item: usize,
    /// In peers, of all torrents together.
    pub peers: Room,
    /// In peers, of one torrent.
    pub torrent: Room,
}

impl Default for Limits {
    /// No item may be larger than BEP 44 says. One host may have a twentieth of the room for items, and a hundredth of
    /// that for peers: 200, of which 8 of one torrent, as a router can hide several clients.
    fn default() -> Self {
        Self {
            items: Room { host: 250_000, total: 5_000_000 },
            item: 1_000,
            peers: Room { host: 200, total: 20_000 },
            torrent: Room { host: 8, total: 200 },
        }
    }
}

/// What an item costs besides its bytes.
pub const ITEM_COST: usize = 100;
/// Of how many hosts that put an item it is known. It is kept as long as one of them keeps it.
const PUTTERS: usize = 8;
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
    /// There is no room: the host has its share, and all that is kept for it is nearer to the own id.
    Full,
}

impl Refusal {
    /// The error that says so, of those of BEP 5 and BEP 44.
    pub const fn code(self) -> i64 {
        match self {
            Self::Full => krpc::SERVER_ERROR,
            Self::BadToken | Self::OtherTarget | Self::NoPort => krpc::PROTOCOL_ERROR,
            Self::TooBig => 205,
        }
    }
}

impl From<NoRoom> for Refusal {
    fn from(NoRoom: NoRoom) -> Self {
        Self::Full
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
    /// Who has put them.
    putters: Shares,
    torrents: BTreeMap<Key160, Vec<Peer>>,
    /// Who has announced peers.
    announcers: Shares,
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    /// The hosts that put it, and until when it is kept for each. Never empty.
    putters: Vec<(Host, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    host: Host,
    address: SocketAddrV4,
    expires: Instant,
}

/// The claim on an item.
const fn item_at(distance: Key160) -> Claim {
    (distance, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))
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
            putters: Shares::new(limits.items),
            torrents: BTreeMap::new(),
            announcers: Shares::new(limits.peers),
        }
    }

    /// The token for whoever asks from this address. It is valid for 5 to 10 minutes.
    pub fn token(&mut self, to: Ipv4Addr, now: Instant) -> Vec<u8> {
        self.elapse(now);
        let [secret, _] = &self.secrets;
        token(secret, to).to_vec()
    }

    /// Keeps an item for the host that puts it, or keeps it longer.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not kept.
    pub fn put(
        &mut self,
        from: SocketAddrV4,
        token: &[u8],
        said: Option<Key160>,
        item: Vec<u8>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.admit(*from.ip(), token, now)?;
        if item.len() > self.limits.item {
            return Err(Refusal::TooBig);
        }
        let target = target(&item);
        if said.is_some_and(|said| said != target) {
            return Err(Refusal::OtherTarget);
        }
        let (distance, host, expires) = (target.distance(&self.local), Host::of(from), now + ITEM_LIFE);
        let known = self.items.get_mut(&distance).map(|known| &mut known.putters);
        if let Some((_, until)) =
            known.and_then(|putters| putters.iter_mut().find(|(putter, _)| *putter == host))
        {
            *until = expires;
            return Ok(());
        }
        let Self { items, putters, .. } = self;
        let gone = |host, (distance, _): Claim| remove_putter(items, distance, host);
        putters.claim(host, item_at(distance), item.len() + ITEM_COST, gone)?;
        let known = items.entry(distance).or_insert_with(|| Item { bytes: item, putters: Vec::new() });
        if known.putters.len() >= PUTTERS
            && let Some(first) = known.putters.iter().enumerate().min_by_key(|(_, (_, until))| *until)
        {
            let (gone, _) = known.putters.swap_remove(first.0);
            putters.release(gone, item_at(distance));
        }
        known.putters.push((host, expires));
        Ok(())
    }

    /// The item with this key, bencoded.
    pub fn get(&self, target: &Key160, now: Instant) -> Option<&[u8]> {
        let item = self.items.get(&target.distance(&self.local))?;
        item.putters.iter().any(|(_, until)| now < *until).then_some(&item.bytes)
    }

    /// Keeps a peer of a torrent for the host that announces it, or keeps it longer; at this port, or the one that
    /// it sends from. Where a host has too many peers of the torrent, that which it announced first goes. Where the
    /// torrent has too many, that of the host with most of them, as long as the announcing host has less.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not kept.
    pub fn announce(
        &mut self,
        from: SocketAddrV4,
        port: Option<u16>,
        token: &[u8],
        info_hash: &Key160,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.admit(*from.ip(), token, now)?;
        let address = SocketAddrV4::new(*from.ip(), port.unwrap_or(from.port()));
        if address.port() == 0 {
            return Err(Refusal::NoPort);
        }
        let (distance, host) = (info_hash.distance(&self.local), Host::of(from));
        let peer = Peer { host, address, expires: now + PEER_LIFE };
        // In the order in which they were announced, and expire.
        let known = self.torrents.get(&distance).map_or(&[][..], Vec::as_slice);
        let mut shares = BTreeMap::<Host, usize>::new();
        for peer in known {
            *shares.entry(peer.host).or_default() += 1;
        }
        let share = |host| shares.get(&host).copied().unwrap_or_default();
        let (own, limit) = (share(host), self.limits.torrent);
        let gives_way = match known.iter().find(|known| known.address == address) {
            Some(same) => Some(*same),
            None if own >= limit.host => known.iter().find(|known| known.host == host).copied(),
            None if known.len() >= limit.total => {
                let most = shares.values().copied().max().unwrap_or_default();
                let is_victim =
                    |known: &&Peer| if own >= most { known.host == host } else { share(known.host) == most };
                known.iter().find(is_victim).copied()
            }
            None => None,
        };
        // Where the host replaces its own peer, there is room for another claim of its. That of another host goes only
        // when there is room for this one.
        if gives_way.is_some_and(|gone| gone.host == host) {
            self.remove_peer(distance, gives_way);
        }
        let Self { torrents, announcers, .. } = self;
        let gone = |host, (distance, address): Claim| {
            drop_peer(torrents, distance, |known| known.host == host && known.address == address);
        };
        announcers.claim(host, (distance, address), 1, gone)?;
        if gives_way.is_some_and(|gone| gone.host != host) {
            self.remove_peer(distance, gives_way);
        }
        self.torrents.entry(distance).or_default().push(peer);
        Ok(())
    }

    /// Peers of a torrent: all, or as many as an answer names, at random.
    pub fn peers(&self, info_hash: &Key160, now: Instant) -> Vec<SocketAddrV4> {
        self.all_peers(info_hash, now).sample(&mut rand::rng(), PEERS_IN_ANSWER)
    }

    /// All peers of a torrent.
    pub fn all_peers(&self, info_hash: &Key160, now: Instant) -> impl Iterator<Item = SocketAddrV4> {
        let known = self.torrents.get(&info_hash.distance(&self.local)).map_or(&[][..], Vec::as_slice);
        known.iter().filter(move |peer| now < peer.expires).map(|peer| peer.address)
    }

    /// How many items there are, and how many torrents.
    pub fn len(&self) -> (usize, usize) {
        (self.items.len(), self.torrents.len())
    }

    /// Whether a token is one that this address has been given: then it is really the address of who sends from it.
    pub fn knows(&self, from: Ipv4Addr, said: &[u8]) -> bool {
        self.secrets.iter().any(|secret| token(secret, from) == said)
    }

    fn remove_peer(&mut self, distance: Key160, peer: Option<Peer>) {
        let Some(Peer { host, address, .. }) = peer else { return };
        self.announcers.release(host, (distance, address));
        drop_peer(&mut self.torrents, distance, |known| known.host == host && known.address == address);
    }

    fn admit(&mut self, from: Ipv4Addr, said: &[u8], now: Instant) -> Result<(), Refusal> {
        self.elapse(now);
        if self.knows(from, said) { Ok(()) } else { Err(Refusal::BadToken) }
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
        let Self { items, putters, torrents, announcers, .. } = self;
        items.retain(|distance, item| {
            item.putters.retain(|(host, until)| {
                let is_over = *until <= now;
                if is_over {
                    putters.release(*host, item_at(*distance));
                }
                !is_over
            });
            !item.putters.is_empty()
        });
        torrents.retain(|distance, peers| {
            peers.retain(|peer| {
                let is_over = peer.expires <= now;
                if is_over {
                    announcers.release(peer.host, (*distance, peer.address));
                }
                !is_over
            });
            !peers.is_empty()
        });
    }
}

/// Keeps an item no longer for this host.
fn remove_putter(items: &mut BTreeMap<Key160, Item>, distance: Key160, host: Host) {
    let Some(item) = items.get_mut(&distance) else { return };
    item.putters.retain(|(putter, _)| *putter != host);
    if item.putters.is_empty() {
        items.remove(&distance);
    }
}

/// Drops a peer, and the torrent if it was the last.
fn drop_peer(torrents: &mut BTreeMap<Key160, Vec<Peer>>, distance: Key160, is_it: impl Fn(&Peer) -> bool) {
    let Some(peers) = torrents.get_mut(&distance) else { return };
    peers.retain(|known| !is_it(known));
    if peers.is_empty() {
        torrents.remove(&distance);
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
