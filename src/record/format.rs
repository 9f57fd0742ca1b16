//! Bytes: what a recording is made of.
//!
//! ```text
//! recording = magic (8 bytes), format (1 byte), frame*
//! frame     = length of the payload (u32), sum of the payload (u32), payload     little-endian
//! payload   = kind (1 byte), then of
//!   CONSTRUCTION  version of the crate, bits of a key, own key, configuration, nodes of the table, round trips
//!   CALL          now, stamped inbound event, digest of what came out (u64), its text, if any, up to the end
//!   GAP           how many calls are not there
//!   OPEN          now, stamped inbound event: of a call that had not returned when the recording was closed
//!   END           how many calls there were, whether all could be recorded
//! ```
//!
//! What is not given a width here is postcard's. A table is there, by bucket, oldest first, and round trips are, where the node
//! began with them: in a simulation. Whoever takes the nodes in this order, at time zero, has the same table.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

pub(super) const MAGIC: [u8; 8] = *b"\x89kadrec\n";

/// To be raised with every change of what stands in a frame: of a field or a variant of a configuration or an inbound event too.
pub(super) const FORMAT: u8 = 2;

pub(super) const CONSTRUCTION: u8 = 0;
pub(super) const CALL: u8 = 1;
pub(super) const GAP: u8 = 2;
pub(super) const END: u8 = 3;
pub(super) const OPEN: u8 = 4;

/// Bytes of a frame before its payload.
pub(super) const PREFIX: usize = 8;

/// Bytes to append to.
struct To<'a>(&'a mut Vec<u8>);

impl Flavor for To<'_> {
    type Output = ();

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the value. Says whether it could be; only types of the caller's can refuse.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) -> bool {
    postcard::serialize_with_flavor(value, To(to)).is_ok()
}

/// A number that other bytes do not have. (Not one that an adversary could not make them have.)
pub(super) fn hash(bytes: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, byte) in last.iter_mut().zip(rest) {
        *to = *byte;
    }
    let start = (bytes.len() as u64 ^ MIX).wrapping_mul(MIX);
    words.iter().chain([&last]).fold(start, |hash, word| {
        let mixed = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(MIX);
        mixed ^ mixed >> 32
    })
}

#[allow(clippy::cast_possible_truncation)] // one half of it
fn sum(payload: &[u8]) -> u32 {
    (hash(payload) >> 32) as u32
}

/// What stands before this payload; `None` where it is too long.
pub(super) fn prefix(payload: &[u8]) -> Option<[u8; PREFIX]> {
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let sum = sum(payload).to_le_bytes();
    let mut prefix = [0; PREFIX];
    for (to, byte) in prefix.iter_mut().zip(length.into_iter().chain(sum)) {
        *to = byte;
    }
    Some(prefix)
}

/// Why there is no frame.
pub(super) enum NoFrame {
    /// There are fewer bytes than it has.
    Short,
    /// Its sum does not fit.
    Damaged,
}

/// The first frame: its kind, what follows that, and the rest of the bytes.
pub(super) fn frame(bytes: &[u8], sums: bool) -> Result<(u8, &[u8], &[u8]), NoFrame> {
    let (length, rest) = bytes.split_first_chunk().ok_or(NoFrame::Short)?;
    let (expected, rest) = rest.split_first_chunk().ok_or(NoFrame::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| NoFrame::Short)?;
    let (payload, rest) = rest.split_at_checked(length).ok_or(NoFrame::Short)?;
    if sums && sum(payload) != u32::from_le_bytes(*expected) {
        return Err(NoFrame::Damaged);
    }
    let (kind, body) = payload.split_first().ok_or(NoFrame::Damaged)?;
    Ok((*kind, body, rest))
}
