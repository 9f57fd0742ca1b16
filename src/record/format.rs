//! The binary format of a recording: its frames, written and read.
//!
//! ```text
//! recording = magic (8 bytes), format (1 byte), frame*
//! frame     = length of the payload (u32), check sum of the payload (u32), payload     (little-endian)
//! payload   = kind (1 byte), then for each kind:
//!   CONSTRUCTION  version of the crate, bits of a key, own target, configuration, seed of the choices, nodes of
//!                 the table, round trips, value of the family
//!   CALL          now, stamped inbound event, digest of the output (u64), and its text, if any, up to the end
//!   GAP           how many calls are missing
//!   OPEN          now, stamped inbound event: of a call that had not returned when the recording was closed
//!   END           how many calls there were, whether all could be recorded
//! ```
//!
//! Values without a width here are encoded by postcard. The construction has nodes of the table, by bucket, oldest
//! first, and round trips only where the node began with them: in a simulation. Offering the nodes to an empty
//! table in this order, at time zero, gives the same table.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

pub(super) const MAGIC: [u8; 8] = *b"\x89kadrec\n";

/// The number of the format. It must be raised with every change of what a frame contains, including changes to a
/// field or a variant of a configuration or of an inbound event.
pub(super) const FORMAT: u8 = 7;

pub(super) const CONSTRUCTION: u8 = 0;
pub(super) const CALL: u8 = 1;
pub(super) const GAP: u8 = 2;
pub(super) const END: u8 = 3;
pub(super) const OPEN: u8 = 4;

/// How many bytes a frame has before its payload.
pub(super) const PREFIX: usize = 8;

/// A postcard output that appends to a vector.
struct AppendTo<'a>(&'a mut Vec<u8>);

impl Flavor for AppendTo<'_> {
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

/// Appends the value. Returns whether it could be serialized; only types of the caller's can fail to be.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) -> bool {
    postcard::serialize_with_flavor(value, AppendTo(to)).is_ok()
}

/// A 64-bit hash of the bytes. It is not cryptographic: an adversary can find other bytes with the same hash.
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

/// The check sum of a payload.
#[allow(clippy::cast_possible_truncation)] // the upper half of the hash
fn check_sum(payload: &[u8]) -> u32 {
    (hash(payload) >> 32) as u32
}

/// The length and the check sum to write before this payload; `None` if it is too long.
pub(super) fn prefix(payload: &[u8]) -> Option<[u8; PREFIX]> {
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let sum = check_sum(payload).to_le_bytes();
    let mut prefix = [0; PREFIX];
    for (to, byte) in prefix.iter_mut().zip(length.into_iter().chain(sum)) {
        *to = byte;
    }
    Some(prefix)
}

/// Why a frame could not be read.
pub(super) enum FrameError {
    /// The bytes end before the frame does.
    Truncated,
    /// The check sum does not match, or the payload is empty.
    Damaged,
}

/// Reads the first frame: its kind, the rest of its payload, and the bytes after it. The check sum is verified
/// only where `verify_sums` is set.
pub(super) fn read_frame(bytes: &[u8], verify_sums: bool) -> Result<(u8, &[u8], &[u8]), FrameError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(FrameError::Truncated)?;
    let (expected, rest) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FrameError::Truncated)?;
    let (payload, rest) = rest.split_at_checked(length).ok_or(FrameError::Truncated)?;
    if verify_sums && check_sum(payload) != u32::from_le_bytes(*expected) {
        return Err(FrameError::Damaged);
    }
    let (kind, body) = payload.split_first().ok_or(FrameError::Damaged)?;
    Ok((*kind, body, rest))
}
