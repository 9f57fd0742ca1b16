//! A libp2p node (TCP, noise, yamux, identify, ping, `/ipfs/kad/1.0.0`) whose DHT is kad-proto, on the kit for async runtimes.
//!
//! Each request is a stream of its own. The swarm dials whom a stream is opened to, once, by the addresses that the engine
//! has handed out with the request; dropping the request's future resets the stream.
//!
//! # Why it is no `NetworkBehaviour`
//!
//! It could be one: a behaviour that owns the engine, says `Dial` and `NotifyHandler` where a request comes out, arms a timer with
//! `poll_timeout`, and has a connection handler of its own that opens, reads, times and closes streams. The handler is the long
//! part, and the swarm's task would run the engine between polls of the sockets. `libp2p-stream` has the handler already; so the
//! behaviour of this node is `identify`, `ping` (js-libp2p pings whom it has heard of before it admits them to its table) and
//! `streams`, and any other can stand beside them.

mod wire;

use futures::{AsyncWriteExt, StreamExt};
use kad_proto::{Config, Failure, RoutingInbound, Secret};
use kad_proto_async::{Call, Dht, Reply, TokioTimer, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Stream, StreamProtocol, SwarmBuilder, identify, noise, ping, tcp, yamux};
use libp2p_stream::{Control, OpenStreamError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::HashMap, error::Error, io, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
pub use wire::{Ipfs, Peer, Preimage};

const KAD: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// Who is connected, and the address at the other end.
type Connections = Arc<Mutex<HashMap<PeerId, Multiaddr>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// Who waits for a dial to end.
type Waiter = oneshot::Sender<Result<(), Failure<Ipfs>>>;
type Waiters = HashMap<PeerId, Vec<Waiter>>;

/// How requests travel: a stream for each message.
struct Streams {
    connections: Connections,
    dials: mpsc::UnboundedSender<(Peer, Waiter)>,
    control: Control,
}

fn failure(error: &DialError) -> Failure<Ipfs> {
    match error {
        DialError::WrongPeerId { .. } => Failure::Gone,
        // It says why in many layers.
        DialError::Transport(_) if format!("{error:?}").contains("ConnectionRefused") => {
            Failure::ConnectionRefused
        }
        _ => Failure::Unreachable,
    }
}

impl Transport<Ipfs> for Streams {
    async fn request(&self, call: Call<Ipfs>) -> Result<Reply<Ipfs>, Failure<Ipfs>> {
        let id = call.node.id;
        let dialed = !lock(&self.connections).contains_key(&id);
        if dialed {
            // Not left to `libp2p_stream`, which knows no addresses, and forgets to dial where it is to dial many at once.
            let (to, ended) = oneshot::channel();
            self.dials.send((call.node, to)).map_err(|_| Failure::Failed)?;
            ended.await.map_err(|_| Failure::Failed)??;
        }
        let mut reply = Reply { dialed, ..Reply::default() };
        for message in wire::Message::requests(&call.target, &call.ask) {
            let mut stream = match self.control.clone().open_stream(id, KAD).await {
                Err(OpenStreamError::UnsupportedProtocol(_)) => return Err(Failure::ConnectionRefused),
                opened => opened.map_err(|_| Failure::Failed)?,
            };
            let exchange = async {
                message.write(&mut stream).await?;
                if message.has_answer() {
                    let answer = wire::Message::read(&mut stream).await?;
                    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
                    reply = Reply { dialed, ..message.reply(answer) };
                }
                stream.close().await
            };
            exchange.await.map_err(|_| Failure::Failed)?;
        }
        Ok(reply)
    }
}

/// Answers what a peer asks on one stream.
async fn serve(dht: Dht<Ipfs>, connections: Connections, peer: PeerId, mut stream: Stream) -> io::Result<()> {
    let from = lock(&connections).get(&peer).and_then(wire::group);
    loop {
        // That is how long a stream may be idle.
        let read = tokio::time::timeout(Duration::from_secs(10), wire::Message::read(&mut stream)).await;
        let Ok(Some(message)) = read.map_err(io::Error::from)? else { return stream.close().await };
        // What is not understood, or refused, ends the stream: the protocol has no other words for it.
        let Some((target, ask)) = message.ask(peer) else { return Ok(()) };
        let Ok(reply) = dht.serve(&target, &ask, from) else { return Ok(()) };
        if message.has_answer() {
            message.answer(reply, peer).write(&mut stream).await?;
        }
    }
}

/// A node of the network.
pub struct Node {
    /// Its DHT: lookups, records, providers.
    pub dht: Dht<Ipfs>,
    id: PeerId,
    own: Arc<Mutex<Vec<Multiaddr>>>,
    connections: Connections,
    control: Control,
    serving: Mutex<Option<AbortHandle>>,
}

impl Node {
    /// Starts a node within the runtime, in client mode: it asks others, and answers nobody. It ends by
    /// [`Dht::shutdown`].
    ///
    /// # Errors
    /// If the configuration is not valid, or the address cannot be listened on.
    pub fn start(keys: Keypair, listen: Multiaddr, config: Config) -> Result<Self, Box<dyn Error>> {
        let id = keys.public().to_peer_id();
        let mut swarm = SwarmBuilder::with_existing_identity(keys)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|keys| {
                let identify =
                    identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), keys.public()));
                Behaviour {
                    identify,
                    ping: ping::Behaviour::default(),
                    streams: libp2p_stream::Behaviour::new(),
                }
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        swarm.listen_on(listen)?;
        let control = swarm.behaviour().streams.new_control();
        let (dials, mut to_dial) = mpsc::unbounded_channel();
        let (connections, own) = (Connections::default(), Arc::new(Mutex::new(Vec::new())));
        let transport = Streams { connections: connections.clone(), dials, control: control.clone() };
        let secret = Secret::new(rand::random());
        let node = kad_proto_async::Node::<Ipfs>::new(Preimage::new(id.to_bytes()), config, &secret)?;
        let (dht, run) = node.run(transport, TokioTimer::new())?;
        let (handle, known, addresses) = (dht.clone(), connections.clone(), own.clone());
        tokio::spawn(run);
        tokio::spawn(async move {
            let mut waiters = Waiters::new();
            loop {
                tokio::select! {
                    dial = to_dial.recv() => {
                        // The transport is gone when the node has ended.
                        let Some((peer, waiter)) = dial else { return };
                        let dial = DialOpts::peer_id(peer.id).addresses(peer.addresses);
                        match swarm.dial(dial.condition(PeerCondition::DisconnectedAndNotDialing).build()) {
                            _ if swarm.is_connected(&peer.id) => drop(waiter.send(Ok(()))),
                            // There is a dial already.
                            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {
                                waiters.entry(peer.id).or_default().push(waiter);
                            }
                            Err(error) => drop(waiter.send(Err(failure(&error)))),
                        }
                    }
                    event = swarm.select_next_some() => {
                        on_event(event, &handle, &known, &mut waiters);
                        *lock(&addresses) = swarm.listeners().cloned().collect();
                    }
                }
            }
        });
        Ok(Self { dht, id, own, connections, control, serving: Mutex::new(None) })
    }

    /// This node, as others are told of it: with the addresses that it listens on.
    pub fn peer(&self) -> Peer {
        Peer::new(self.id, lock(&self.own).clone())
    }

    /// Whether it serves others, from now on. Others learn it by identify.
    pub fn serve(&self, serves: bool) {
        let mut serving = lock(&self.serving);
        if let Some(task) = serving.take_if(|_| !serves) {
            task.abort();
        }
        if serves
            && serving.is_none()
            && let Ok(mut incoming) = self.control.clone().accept(KAD)
        {
            let (dht, connections) = (self.dht.clone(), self.connections.clone());
            let task = tokio::spawn(async move {
                while let Some((peer, stream)) = incoming.next().await {
                    tokio::spawn(serve(dht.clone(), connections.clone(), peer, stream));
                }
            });
            *serving = Some(task.abort_handle());
        }
    }
}

fn on_event(event: SwarmEvent<BehaviourEvent>, dht: &Dht<Ipfs>, all: &Connections, waiters: &mut Waiters) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            lock(all).insert(peer_id, endpoint.get_remote_address().clone());
            waiters.remove(&peer_id).into_iter().flatten().for_each(|it| drop(it.send(Ok(()))));
        }
        SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
            let waiting = waiters.remove(&peer).into_iter().flatten();
            waiting.for_each(|it| drop(it.send(Err(failure(&error)))));
        }
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => drop(lock(all).remove(&peer_id)),
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id, info, ..
        })) => {
            let node = Peer::new(peer_id, info.listen_addrs);
            let serves = info.protocols.contains(&KAD);
            dht.report(if serves { RoutingInbound::Server(node) } else { RoutingInbound::Client(node) });
        }
        _ => {}
    }
}
