//! Packets and the keys of sessions (devp2p, `discv5-wire.md` and `discv5-theory.md`, version 5.1).

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::{KeyIvInit, StreamCipher};
use enr::NodeId;
use enr::k256::ProjectivePoint;
use enr::k256::ecdsa::signature::{Signer, Verifier};
use enr::k256::ecdsa::{Signature, SigningKey, VerifyingKey};
use enr::k256::elliptic_curve::sec1::ToSec1Point;
use enr::k256::sha2::Sha256;
use hkdf::Hkdf;

pub(crate) type Nonce = [u8; 12];

/// Kinds of packets.
pub(crate) const MESSAGE: u8 = 0;
pub(crate) const WHOAREYOU: u8 = 1;
pub(crate) const HANDSHAKE: u8 = 2;

const PROTOCOL: &[u8; 8] = b"discv5\x00\x01";
const MAX_PACKET: usize = 1_280;

/// A packet whose header is not masked.
pub(crate) struct Packet {
    pub(crate) kind: u8,
    pub(crate) nonce: Nonce,
    /// What the header says besides, depending on the kind.
    pub(crate) says: Vec<u8>,
    /// The initial value of the mask, and the header. It is authenticated together with the message.
    pub(crate) head: Vec<u8>,
    /// Encrypted.
    pub(crate) message: Vec<u8>,
}

fn mask(receiver: &NodeId, initial: &[u8; 16]) -> Option<ctr::Ctr128BE<Aes128>> {
    ctr::Ctr128BE::new_from_slices(receiver.raw().get(..16)?, initial).ok()
}

impl Packet {
    pub(crate) fn new(kind: u8, nonce: Nonce, says: Vec<u8>) -> Self {
        let length = u16::try_from(says.len()).unwrap_or(u16::MAX);
        let (initial, length) = (rand::random::<[u8; 16]>(), length.to_be_bytes());
        let head = [&initial[..], PROTOCOL, &[kind], &nonce, &length, &says].concat();
        Self { kind, nonce, says, head, message: Vec::new() }
    }

    pub(crate) fn encode(&self, receiver: &NodeId) -> Option<Vec<u8>> {
        let mut bytes = self.head.clone();
        let (initial, header) = bytes.split_first_chunk_mut()?;
        mask(receiver, initial)?.apply_keystream(header);
        bytes.extend_from_slice(&self.message);
        (bytes.len() <= MAX_PACKET).then_some(bytes)
    }

    pub(crate) fn decode(receiver: &NodeId, bytes: &[u8]) -> Option<Self> {
        let (initial, mut rest) = bytes.split_first_chunk::<16>().filter(|_| bytes.len() <= MAX_PACKET)?;
        let mut mask = mask(receiver, initial)?;
        let mut head = initial.to_vec();
        let mut take = |length: usize| {
            let (taken, left) = rest.split_at_checked(length)?;
            rest = left;
            let mut taken = taken.to_vec();
            mask.apply_keystream(&mut taken);
            head.extend_from_slice(&taken);
            Some(taken)
        };
        take(PROTOCOL.len()).filter(|it| it == PROTOCOL)?;
        let kind = *take(1)?.first()?;
        let nonce = take(12)?.try_into().ok()?;
        let length = u16::from_be_bytes(take(2)?.try_into().ok()?);
        let says = take(length.into())?;
        Some(Self { kind, nonce, says, message: rest.to_vec(), head })
    }

    /// Adds the message, encrypted.
    pub(crate) fn sealed(mut self, key: &[u8; 16], plain: &[u8]) -> Option<Self> {
        let payload = Payload { msg: plain, aad: &self.head };
        self.message = Aes128Gcm::new(key.into()).encrypt(&self.nonce.into(), payload).ok()?;
        Some(self)
    }

    /// The message.
    pub(crate) fn open(&self, key: &[u8; 16]) -> Option<Vec<u8>> {
        let payload = Payload { msg: &self.message, aad: &self.head };
        Aes128Gcm::new(key.into()).decrypt(&self.nonce.into(), payload).ok()
    }
}

/// The keys of a session.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) encrypt: [u8; 16],
    pub(crate) decrypt: [u8; 16],
}

/// The keys of who began the session, then those of the other side.
fn derive(
    (public, secret): (&VerifyingKey, &SigningKey),
    challenge: &[u8],
    (initiator, recipient): (&NodeId, &NodeId),
) -> Option<([u8; 16], [u8; 16])> {
    let point = ProjectivePoint::from(public.as_affine()) * **secret.as_nonzero_scalar();
    let shared = point.to_affine().to_sec1_point(true);
    let info = [&b"discovery v5 key agreement"[..], &initiator.raw(), &recipient.raw()].concat();
    let mut keys = [0; 32];
    Hkdf::<Sha256>::new(Some(challenge), shared.as_bytes()).expand(&info, &mut keys).ok()?;
    let (first, second) = keys.split_first_chunk()?;
    Some((*first, second.try_into().ok()?))
}

/// What one signs who answers a challenge.
fn proof(challenge: &[u8], ephemeral: &[u8], recipient: &NodeId) -> Vec<u8> {
    [b"discovery v5 identity proof", challenge, ephemeral, &recipient.raw()].concat()
}

/// Answers a challenge of this node: the signature, the public half of a key for this once, and the keys of the session.
pub(crate) fn answer(
    own: (&NodeId, &SigningKey),
    to: (&NodeId, &VerifyingKey),
    challenge: &[u8],
) -> Option<(Vec<u8>, Vec<u8>, Keys)> {
    // One in 2^128 numbers is no key.
    let once = SigningKey::from_slice(&rand::random::<[u8; 32]>()).ok()?;
    let ephemeral = once.verifying_key().to_sec1_bytes().to_vec();
    let signature: Signature = own.1.try_sign(&proof(challenge, &ephemeral, to.0)).ok()?;
    let (encrypt, decrypt) = derive((to.1, &once), challenge, (own.0, to.0))?;
    Some((signature.to_bytes().to_vec(), ephemeral, Keys { encrypt, decrypt }))
}

/// The keys of a session, if the answer to the challenge is right.
pub(crate) fn check(
    own: (&NodeId, &SigningKey),
    from: (&NodeId, &VerifyingKey),
    challenge: &[u8],
    (signature, ephemeral): (&[u8], &[u8]),
) -> Option<Keys> {
    let signature = Signature::from_slice(signature).ok()?;
    from.1.verify(&proof(challenge, ephemeral, own.0), &signature).ok()?;
    let ephemeral = VerifyingKey::from_sec1_bytes(ephemeral).ok()?;
    let (decrypt, encrypt) = derive((&ephemeral, own.1), challenge, (from.0, own.0))?;
    Some(Keys { encrypt, decrypt })
}
