//! The types of this network, as the engine wants to know them.

use core::fmt;
use kad_proto::{AnswerScope, Family, Group, Key160};
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// A node's id and address.
pub type Node = (Key160, SocketAddrV4);

/// The types of `BitTorrent`'s DHT, and how many nodes an answer names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mainline {
    pub answers: u16,
}

impl Default for Mainline {
    /// BEP 5's k. Some programs name more; what counts is the number that all do: a lookup concludes from an answer
    /// with fewer that there are no others.
    fn default() -> Self {
        Self { answers: 8 }
    }
}

impl Family for Mainline {
    type Key = Key160;
    type Target = Key160;
    type Node = Node;
    type Message = Payload;

    fn key(node: &Node) -> Key160 {
        node.0
    }

    /// Nodes of one /24 network are likely to be in one hand: the routing table admits only a few of them. On
    /// loopback all nodes would be of one group, and a test network would never get into the table, so there the
    /// limits do not apply.
    fn group((_, address): &Node) -> Option<Group> {
        let ip = *address.ip();
        (!ip.is_loopback()).then(|| Group(u64::from(u32::from(ip) >> 8)))
    }

    /// Nothing can be sent to the others.
    fn admits(&self, (_, address): &Node) -> bool {
        let ip = address.ip();
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(usize::from(self.answers))
    }
}

/// What the engine carries for this driver: what to ask, and what nodes said that it has to know again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    Get,
    GetPeers,
    Put(Vec<u8>),
    Announce(Option<u16>),
    /// What a node gave us, and wants back with a store.
    Token(Vec<u8>),
    /// Why a node did not do what it was asked to.
    Refused(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The node answered with an error.
    Error { code: i64, text: String },
    /// Another node than the one that is said to live there answered.
    OtherNode(Key160),
    /// The node has given us no token to store with it by.
    NoToken,
    /// The datagram could not be sent.
    Unsendable(String),
    /// The engine asks for something that this driver does not know.
    Unknown,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A stranger's words, which are not to control a terminal or to fill it.
            Self::Error { code, text } => {
                let text: String = text.chars().take(80).collect();
                write!(f, "error {code} \"{}\"", text.escape_debug())
            }
            Self::OtherNode(key) => write!(f, "node {key} lives there"),
            Self::NoToken => f.write_str("it gave no token"),
            Self::Unknown => f.write_str("not sent: unknown"),
            Self::Unsendable(why) => write!(f, "not sent: {}", why.escape_debug()),
        }
    }
}
