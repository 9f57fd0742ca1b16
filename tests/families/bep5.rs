//! A family of BEP 5: an id that anybody may claim, and an address.

use crate::network::{Known, Random, Wire};
use kad_proto::{AnswerScope, Family, Group, Key160, Request};
use std::net::{Ipv4Addr, SocketAddrV4};

/// How many nodes a node of this network names.
const NAMED: usize = 8;

/// A node: two that claim one id at different addresses are two.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contact {
    pub(crate) id: Key160,
    pub(crate) address: SocketAddrV4,
}

impl Contact {
    pub(crate) fn random(random: &mut Random) -> Self {
        let address = SocketAddrV4::new(Ipv4Addr::from(0x5000_0000 | random.next() as u32 >> 3), 6881);
        Self { id: random.key(), address }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bep5 {
    /// What the family claims that an answer names.
    pub(crate) claimed: usize,
}

impl Default for Bep5 {
    fn default() -> Self {
        Self { claimed: NAMED }
    }
}

impl Family for Bep5 {
    type Key = Key160;
    type Target = Key160;
    type Node = Contact;
    type Message = u64;

    fn key(node: &Contact) -> Key160 {
        node.id
    }

    fn admits(&self, node: &Contact) -> bool {
        node.address.port() != 0
    }

    fn group(node: &Contact) -> Option<Group> {
        Some(Group(u64::from(u32::from(*node.address.ip()) >> 8)))
    }

    fn answers(&self) -> AnswerScope {
        AnswerScope::Closest(self.claimed)
    }
}

impl Wire for Bep5 {
    type Query = Key160;

    const BUCKET: usize = 20;
    const CONNECTS: bool = false;
    const PROVES_IDENTITY: bool = false;
    const STORE_IS_ANSWERED: bool = true;
    const TOKENS: bool = true;

    fn query(request: &Request<Self>) -> Key160 {
        request.target
    }

    fn answer(_: &Contact, known: &dyn Known<Self>, _: &Contact, query: &Key160) -> Vec<Vec<Contact>> {
        vec![known.closest(*query, NAMED)]
    }

    fn addresses(node: &Contact) -> Vec<SocketAddrV4> {
        vec![node.address]
    }

    fn moved(node: &Contact, to: SocketAddrV4) -> Contact {
        Contact { address: to, ..node.clone() }
    }
}
