//! [`Link`]: the socket, the sessions, and the requests that wait for their answers.

use crate::session::{self, HANDSHAKE, Keys, MESSAGE, Nonce, Packet, WHOAREYOU};
use crate::wire::{self, Discv5, MAX_RECORDS, Message, Record};
use alloy_rlp::Decodable;
use enr::k256::ecdsa::SigningKey;
use enr::{Enr, NodeId};
use kad_proto::{Ask, Failure, Key256, RoutingInbound};
use kad_proto_async::{Call, Dht, Reply, Transport};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

/// A session is with a node at an address.
type Peer = (NodeId, SocketAddr);

/// How many sessions are kept at most, how many challenges, and how many records.
const MAX_SESSIONS: usize = 1_000;
/// For so long a node may answer a challenge, and is sent no other.
const CHALLENGE: Duration = Duration::from_secs(1);
/// How many distances of a request are looked at.
const MAX_DISTANCES: usize = 32;
/// How long a node that has a newer record has to tell it.
const RENEWAL: Duration = Duration::from_secs(2);

struct Session {
    keys: Keys,
    /// Where both sides began a session at once, each may still use the keys of the other one.
    former: Option<Keys>,
    record: Record,
    used: Instant,
}

/// That this node has asked another who it is.
struct Challenge {
    /// What the answer must prove to have seen.
    data: Vec<u8>,
    known: Option<Record>,
    sent: Instant,
}

/// A request without an answer.
struct Pending {
    to: Record,
    peer: Peer,
    distances: Vec<u64>,
    /// Of the packet that it was last sent in: a challenge repeats it.
    nonce: Nonce,
    /// Whether a session was made for it.
    shook_hands: bool,
    /// What has come of the answer.
    packets: u64,
    records: Vec<Record>,
    answer: oneshot::Sender<Answer>,
}

struct Answer {
    records: Vec<Record>,
    shook_hands: bool,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Peer, Session>,
    challenges: HashMap<Peer, Challenge>,
    pending: HashMap<u32, Pending>,
    /// Records whose signatures are known to be valid, by what they were read from: others name the same ones again and again.
    valid: HashMap<Vec<u8>, Record>,
    /// Numbers requests and packets. A request's is in its nonce, so that a challenge names it.
    last: u32,
}

impl State {
    fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// The record that these bytes are, if it is valid.
    fn record(&mut self, bytes: Vec<u8>) -> Option<Record> {
        if let Some(record) = self.valid.get(&bytes) {
            return Some(record.clone());
        }
        let record = Record::from(Enr::decode(&mut bytes.as_slice()).ok()?);
        if self.valid.len() >= MAX_SESSIONS {
            self.valid.clear();
        }
        self.valid.insert(bytes, record.clone());
        Some(record)
    }
}

/// How requests travel.
pub(crate) struct Link {
    pub(crate) own: Record,
    socket: UdpSocket,
    key: SigningKey,
    state: Mutex<State>,
}

/// Forgets a request that nobody waits for.
struct Guard<'a>(&'a Link, u32);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.lock().pending.remove(&self.1);
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce: Nonce = rand::random();
    let (first, _) = nonce.split_at_mut(4);
    first.copy_from_slice(&number.to_be_bytes());
    nonce
}

impl Transport<Discv5> for Arc<Link> {
    async fn request(&self, call: Call<Discv5>) -> Result<Reply<Discv5>, Failure<Discv5>> {
        let Ask::FindCloser = call.ask else { return Err(Failure::Failed) };
        let distances = wire::distances(&call.node.key(), &call.target);
        let answer = self.ask(&call.node, distances).await.ok_or(Failure::Unreachable)?;
        Ok(Reply { dialed: answer.shook_hands, ..Reply::naming(answer.records) })
    }
}

/// Reads the socket for as long as the node runs.
pub(crate) async fn read(link: Arc<Link>, dht: Dht<Discv5>) {
    let mut buffer = [0; 2_048];
    loop {
        // An error tells of a packet that was sent: its request times out.
        let Ok((length, from)) = link.socket.recv_from(&mut buffer).await else { continue };
        link.receive(&dht, buffer.get(..length).unwrap_or_default(), from);
    }
}

impl Link {
    pub(crate) fn new(socket: UdpSocket, key: SigningKey, own: Record) -> Self {
        Self { own, socket, key, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a node for those that it knows at these distances, and waits for all packets of its answer.
    async fn ask(&self, to: &Record, distances: Vec<u64>) -> Option<Answer> {
        let peer = (to.id(), to.address()?);
        let (answer, answered) = oneshot::channel();
        let (records, packets, shook_hands) = (Vec::new(), 0, false);
        let pending = Pending {
            to: to.clone(),
            peer,
            distances,
            nonce: Nonce::default(),
            shook_hands,
            packets,
            records,
            answer,
        };
        let number = {
            let mut state = self.lock();
            let number = state.number();
            state.pending.insert(number, pending);
            self.send_request(&mut state, number);
            number
        };
        let _guard = Guard(self, number);
        answered.await.ok()
    }

    fn send(&self, packet: &Packet, to: Peer) {
        if let Some(bytes) = packet.encode(&to.0) {
            // What the socket has no room for is lost, as on the way.
            let _ = self.socket.try_send_to(&bytes, to.1);
        }
    }

    fn header(&self, kind: u8, number: u32, rest: &[u8]) -> Packet {
        Packet::new(kind, nonce(number), [&self.own.id().raw(), rest].concat())
    }

    /// Sends a request, with the keys of the session. Where there is none, a packet of random bytes calls for a challenge.
    fn send_request(&self, state: &mut State, number: u32) {
        let Some(pending) = state.pending.get_mut(&number) else { return };
        let packet = self.header(MESSAGE, number, &[]);
        pending.nonce = packet.nonce;
        let (key, plain) = match state.sessions.get_mut(&pending.peer) {
            Some(session) => {
                session.used = Instant::now();
                (session.keys.encrypt, pending.message(number))
            }
            None => (rand::random(), vec![0; 20]),
        };
        if let Some(packet) = packet.sealed(&key, &plain) {
            self.send(&packet, pending.peer);
        }
    }

    fn receive(self: &Arc<Self>, dht: &Dht<Discv5>, bytes: &[u8], from: SocketAddr) -> Option<()> {
        let packet = Packet::decode(&self.own.id(), bytes)?;
        if packet.kind == WHOAREYOU {
            return self.on_challenge(&packet, from);
        }
        let (id, says) = packet.says.split_first_chunk::<32>()?;
        let peer = (NodeId::from(*id), from);
        match packet.kind {
            MESSAGE => match self.open(peer, &packet) {
                Some((plain, record)) => self.on_message(dht, peer, &record, &plain)?,
                None => self.challenge(dht, peer, packet.nonce),
            },
            HANDSHAKE => {
                let (keys, record) = self.on_handshake(peer, says)?;
                let plain = packet.open(&keys.decrypt)?;
                self.on_message(dht, peer, &record, &plain)?;
            }
            _ => {}
        }
        Some(())
    }

    fn open(&self, peer: Peer, packet: &Packet) -> Option<(Vec<u8>, Record)> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&peer)?;
        let plain = packet.open(&session.keys.decrypt).or_else(|| {
            let former = session.former?;
            let plain = packet.open(&former.decrypt)?;
            session.former = Some(std::mem::replace(&mut session.keys, former));
            Some(plain)
        })?;
        session.used = Instant::now();
        Some((plain, session.record.clone()))
    }

    /// Asks who sends what cannot be read.
    fn challenge(&self, dht: &Dht<Discv5>, peer: Peer, nonce: Nonce) {
        let key = Key256::new(peer.0.raw());
        let known = dht.view().closest(&key).next().filter(|record| record.key() == key).cloned();
        let mut state = self.lock();
        let (sent, challenges) = (Instant::now(), &mut state.challenges);
        if challenges.len() >= MAX_SESSIONS {
            challenges.retain(|_, challenge| challenge.sent + CHALLENGE > sent);
        }
        let waits = challenges.get(&peer).is_some_and(|challenge| challenge.sent + CHALLENGE > sent);
        if waits || challenges.len() >= MAX_SESSIONS {
            return;
        }
        let sequence = known.as_ref().map_or(0, |record| record.0.seq());
        let says = [&rand::random::<[u8; 16]>()[..], &sequence.to_be_bytes()].concat();
        let packet = Packet::new(WHOAREYOU, nonce, says);
        challenges.insert(peer, Challenge { data: packet.head.clone(), known, sent });
        drop(state);
        self.send(&packet, peer);
    }

    /// Another asks who this node is: it says so, with the request that called for the challenge.
    fn on_challenge(&self, packet: &Packet, from: SocketAddr) -> Option<()> {
        let number = u32::from_be_bytes(*packet.nonce.first_chunk()?);
        let mut state = self.lock();
        let pending = state.pending.get_mut(&number)?;
        if pending.nonce != packet.nonce || pending.peer.1 != from || pending.shook_hands {
            return None;
        }
        let (own, to, peer) = (self.own.id(), pending.to.clone(), pending.peer);
        let (signature, ephemeral, keys) =
            session::answer((&own, &self.key), (&peer.0, &to.0.public_key()), &packet.head)?;
        let mut says = vec![64, u8::try_from(ephemeral.len()).ok()?];
        says.extend([signature, ephemeral].concat());
        let (_, known) = packet.says.split_last_chunk::<8>()?;
        if u64::from_be_bytes(*known) < self.own.0.seq() {
            says.extend(alloy_rlp::encode(&*self.own.0));
        }
        let packet = self.header(HANDSHAKE, number, &says);
        (pending.shook_hands, pending.nonce) = (true, packet.nonce);
        let packet = packet.sealed(&keys.encrypt, &pending.message(number))?;
        self.send(&packet, peer);
        self.begin(&mut state, peer, keys, to, Some(number));
        Some(())
    }

    /// Another says who it is.
    fn on_handshake(&self, peer: Peer, says: &[u8]) -> Option<(Keys, Record)> {
        let (&[signature, ephemeral], rest) = says.split_first_chunk()?;
        let (signature, rest) = rest.split_at_checked(signature.into())?;
        let (ephemeral, mut rest) = rest.split_at_checked(ephemeral.into())?;
        let mut state = self.lock();
        let challenge = state.challenges.get(&peer)?;
        let told = Enr::decode(&mut rest).ok().map(Record::from);
        let told = told.filter(|told| told.id() == peer.0);
        let record = told.into_iter().chain(challenge.known.clone()).max_by_key(|record| record.0.seq())?;
        let from = (&peer.0, &record.0.public_key());
        let own = (&self.own.id(), &self.key);
        let keys = session::check(own, from, &challenge.data, (signature, ephemeral))?;
        state.challenges.remove(&peer);
        self.begin(&mut state, peer, keys, record.clone(), None);
        Some((keys, record))
    }

    /// A session begins. Other requests to the node were sent when there was none, and are sent again.
    fn begin(&self, state: &mut State, peer: Peer, keys: Keys, record: Record, sent: Option<u32>) {
        let former = state.sessions.remove(&peer).map(|session| session.keys);
        if state.sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = state.sessions.iter().min_by_key(|(_, session)| session.used)
        {
            let oldest = *oldest.0;
            state.sessions.remove(&oldest);
        }
        state.sessions.insert(peer, Session { keys, former, record, used: Instant::now() });
        let waiting = state.pending.iter().filter(|(number, it)| it.peer == peer && Some(**number) != sent);
        let waiting: Vec<_> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            self.send_request(state, number);
        }
    }

    fn on_message(
        self: &Arc<Self>,
        dht: &Dht<Discv5>,
        peer: Peer,
        from: &Record,
        plain: &[u8],
    ) -> Option<()> {
        match Message::decode(plain)? {
            Message::Nodes { id, total, records } => return self.on_nodes(peer, &id, total, records),
            Message::FindNode { id, distances } => {
                let records = self.at(dht, &distances, from);
                for packet in wire::nodes(&id, &records) {
                    self.respond(peer, &packet);
                }
            }
            Message::Ping { id, sequence } => {
                self.respond(peer, &wire::pong(&id, self.own.0.seq(), peer.1));
                if sequence > from.0.seq() {
                    self.renew(dht, from.clone());
                }
            }
            Message::Talk { id } => self.respond(peer, &wire::talk_answer(&id)),
        }
        // Whose record says that it is elsewhere may not be reached by it.
        if from.address() == Some(peer.1) {
            dht.report(RoutingInbound::Discovered(from.clone()));
        }
        Some(())
    }

    fn respond(&self, to: Peer, plain: &[u8]) {
        let mut state = self.lock();
        let number = state.number();
        let Some(session) = state.sessions.get(&to) else { return };
        if let Some(packet) = self.header(MESSAGE, number, &[]).sealed(&session.keys.encrypt, plain) {
            self.send(&packet, to);
        }
    }

    /// Asks a node for its record, of which there is a newer one.
    fn renew(self: &Arc<Self>, dht: &Dht<Discv5>, of: Record) {
        if self.lock().pending.len() >= MAX_SESSIONS {
            return;
        }
        let (link, dht) = (self.clone(), dht.clone());
        tokio::spawn(async move {
            let answer = tokio::time::timeout(RENEWAL, link.ask(&of, vec![0])).await;
            for record in answer.ok().flatten().into_iter().flat_map(|answer| answer.records) {
                dht.report(RoutingInbound::Discovered(record));
            }
        });
    }

    /// The records that are known at these distances, but that of who asks.
    fn at(&self, dht: &Dht<Discv5>, distances: &[u64], asks: &Record) -> Vec<Record> {
        let (view, own) = (dht.view(), self.own.key());
        let mut records: Vec<Record> = Vec::new();
        for wanted in distances.iter().take(MAX_DISTANCES) {
            let known = std::iter::once(&self.own).chain(view.nodes());
            let at = known.filter(|it| wire::distance(&own, &it.key()) == *wanted && *it != asks);
            for record in at {
                if records.len() < MAX_RECORDS && !records.contains(record) {
                    records.push(record.clone());
                }
            }
        }
        records
    }

    /// A packet of an answer. What was not asked for is left out.
    fn on_nodes(&self, peer: Peer, id: &[u8], total: u64, records: Vec<Vec<u8>>) -> Option<()> {
        let number = u32::from_be_bytes(id.try_into().ok()?);
        let mut state = self.lock();
        state.pending.get(&number).filter(|pending| pending.peer == peer)?;
        // One that is not valid costs itself, not the answer.
        let records: Vec<_> = records.into_iter().filter_map(|bytes| state.record(bytes)).collect();
        let State { pending, sessions, .. } = &mut *state;
        let pending = pending.get_mut(&number)?;
        if let Some(session) = sessions.get_mut(&peer) {
            let own = records.iter().filter(|told| **told == session.record);
            let newest = own.chain([&session.record]).max_by_key(|told| told.0.seq()).cloned();
            session.record = newest.unwrap_or_else(|| pending.to.clone());
        }
        pending.packets += 1;
        let asked = pending.to.key();
        let at = |record: &Record| pending.distances.contains(&wire::distance(&asked, &record.key()));
        let room = MAX_RECORDS.saturating_sub(pending.records.len());
        pending.records.extend(records.into_iter().filter(at).take(room));
        if pending.packets >= total {
            let pending = state.pending.remove(&number)?;
            let answer = Answer { records: pending.records, shook_hands: pending.shook_hands };
            let _ = pending.answer.send(answer);
        }
        Some(())
    }
}

impl Pending {
    fn message(&self, number: u32) -> Vec<u8> {
        wire::find_node(&number.to_be_bytes(), &self.distances)
    }
}
