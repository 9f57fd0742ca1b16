//! The types of the program `kad-mainline`, in `examples/mainline`, as far as its recordings hold them: the tests of the
//! packaged crate read some of these, and the package does not contain the program.

use kad_proto::{AnswerScope, Family, Group, Key160};
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

type Node = (Key160, SocketAddrV4);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mainline {
    answers: u16,
}

impl Default for Mainline {
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

    fn group((_, address): &Node) -> Option<Group> {
        let ip = *address.ip();
        (!ip.is_loopback()).then(|| Group(u64::from(u32::from(ip) >> 8)))
    }

    fn admits(&self, (_, address): &Node) -> bool {
        let ip = address.ip();
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(usize::from(self.answers))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Payload {
    Get,
    GetPeers,
    Put(Vec<u8>),
    Announce(Option<u16>),
    Token(Vec<u8>),
    Refused(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Error { code: i64, text: String },
    OtherNode(Key160),
    NoToken,
    Unsendable(String),
    Unknown,
}
