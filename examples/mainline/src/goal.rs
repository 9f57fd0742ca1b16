//! What this program wants of the network, and how it puts that to the engine.

use crate::family::{Failure, Mainline, Node, Payload};
use crate::krpc::Query;
use kad_proto::broadcast::StartBroadcast;
use kad_proto::coordinator::Inbound;
use kad_proto::crawl::StartCrawl;
use kad_proto::{Ask, Key160, RequestId, Response, Start};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// What an operation is to do with its target.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// Find the nodes closest to it.
    Find,
    /// Store this item, of which it is the SHA-1, with the closest nodes.
    Put { item: Vec<u8>, optimistic: bool },
    /// Be named as a peer of this torrent by the closest nodes, at this port, or the one that we send from.
    Announce { port: Option<u16>, optimistic: bool },
    /// Find the item with this SHA-1, with so many nodes, or all; and give it to those of the closest that lack
    /// it.
    Get { quorum: Option<usize>, correct: bool },
    /// Find the peers that so many nodes know of this torrent, or all.
    Peers { quorum: Option<usize> },
    /// Store an item that a [`Goal::Get`] has found with those that lacked it, and gave it these tokens.
    Correct { item: Vec<u8>, tokens: Vec<(Node, Vec<u8>)> },
    /// Map the network; draw it into this file.
    Crawl { file: Option<PathBuf> },
}

/// The event for a request that failed. A node that answers a request other than `find_node` with an error is
/// alive: it has rejected the request, as has one that gave no token. An error in answer to `find_node` is a
/// failure of the node.
pub fn failed(request: RequestId, asks: Asks, failure: Failure) -> Inbound<Mainline> {
    match failure {
        Failure::Error { .. } | Failure::NoToken if asks != Asks::Nodes => {
            Response::rejected(request, Payload::Refused(failure)).into()
        }
        Failure::OtherNode(_) => Response::gone(request).into(),
        Failure::Unsendable(_) => Response::unreachable(request).into(),
        _ => Response::failed(request).into(),
    }
}

/// What an answer is an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Nodes,
    Peers,
    Item,
    Put,
    Announce,
}

impl Asks {
    /// The query, as the protocol calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "find_node",
            Self::Peers => "get_peers",
            Self::Item => "get",
            Self::Put => "put",
            Self::Announce => "announce_peer",
        }
    }

    /// What an ask of the engine's is on the wire. None asks for anything else.
    pub const fn of(ask: &Ask<Mainline>) -> Option<Self> {
        Some(match ask {
            Ask::FindCloser => Self::Nodes,
            Ask::Message(Payload::GetPeers) => Self::Peers,
            Ask::Message(Payload::Get) => Self::Item,
            Ask::Store { message: Payload::Put(_), .. } => Self::Put,
            Ask::Store { message: Payload::Announce(_), .. } => Self::Announce,
            _ => return None,
        })
    }
}

impl Goal {
    /// What it is called.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Find => "lookup",
            Self::Put { .. } => "put",
            Self::Announce { .. } => "announce",
            Self::Get { .. } => "get",
            Self::Peers { .. } => "peers",
            Self::Correct { .. } => "correct",
            Self::Crawl { .. } => "crawl",
        }
    }

    /// The event that starts it.
    pub fn start(&self, tag: u64, target: Key160) -> Inbound<Mainline> {
        // Who is to store has to be asked in the terms of what is to be stored: the answers carry the tokens.
        let store = |message, ask, optimistic| {
            let start = if optimistic { StartBroadcast::optimistic } else { StartBroadcast::follow_up };
            Inbound::Broadcast(start(tag, target, message).with_ask(ask))
        };
        let search = |ask, quorum: Option<usize>| {
            let start = Start::message(tag, target, ask);
            Inbound::Start(if let Some(quorum) = quorum { start.with_quorum(quorum) } else { start })
        };
        match self {
            Self::Find => Inbound::Start(Start::find(tag, target)),
            Self::Put { item, optimistic } => store(Payload::Put(item.clone()), Payload::Get, *optimistic),
            Self::Announce { port, optimistic } => {
                store(Payload::Announce(*port), Payload::GetPeers, *optimistic)
            }
            Self::Get { quorum, .. } => search(Payload::Get, *quorum),
            Self::Peers { quorum } => search(Payload::GetPeers, *quorum),
            Self::Correct { item, tokens } => {
                let nodes = tokens.iter().map(|(node, _)| *node).collect();
                Inbound::Broadcast(StartBroadcast::fixed(tag, target, Payload::Put(item.clone()), nodes))
            }
            Self::Crawl { .. } => Inbound::Crawl(StartCrawl::new(tag)),
        }
    }

    /// The token that a node gave us outside of this operation.
    fn token(&self, of: Node) -> Option<Vec<u8>> {
        let Self::Correct { tokens, .. } = self else { return None };
        tokens.iter().find(|(node, _)| *node == of).map(|(_, token)| token.clone())
    }
}

/// The query that asks this of a node, on behalf of an operation with this goal; `own` is our own port.
///
/// # Errors
/// [`Failure::NoToken`] where a node has not given us what we would have to give back.
pub fn query(
    ask: Ask<Mainline>,
    (node, target): (Node, Key160),
    goal: Option<&Goal>,
    own: u16,
) -> Result<Query, Failure> {
    let (message, token) = match ask {
        Ask::FindCloser => return Ok(Query::FindNode { target }),
        Ask::Message(Payload::GetPeers) => return Ok(Query::GetPeers { info_hash: target }),
        Ask::Message(Payload::Get) => return Ok(Query::Get { target }),
        Ask::Store { message, token } => (message, token),
        _ => return Err(Failure::Unknown),
    };
    let token = match token {
        Some(Payload::Token(token)) => Some(token),
        _ => goal.and_then(|goal| goal.token(node)),
    };
    let token = token.ok_or(Failure::NoToken)?;
    match message {
        Payload::Put(item) => Ok(Query::Put { item, target: Some(target), token }),
        Payload::Announce(port) => Ok(Query::AnnouncePeer {
            info_hash: target,
            port: port.unwrap_or(own),
            implied_port: port.is_none(),
            token,
        }),
        _ => Err(Failure::Unknown),
    }
}

/// What an operation has found in answers.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The item with the right SHA-1.
    pub item: Option<Vec<u8>>,
    /// By how many nodes each peer was named; by none, where only the own store knows it.
    pub peers: BTreeMap<SocketAddrV4, usize>,
    /// Whether the item, and which of the peers, were in the own store.
    pub own_item: bool,
    pub own_peers: BTreeSet<SocketAddrV4>,
    /// What nodes gave us to be given back with a store.
    pub tokens: HashMap<Node, Vec<u8>>,
}
