//! What must hold for any bytes that are read as a recording; shared by the tests, the replay of the corpus and
//! the fuzz target.

mod mainline;

use kad_proto::record::{Recordable, Recording, ReplayError, Replayed, replay};
use kad_proto::{Family, Group, Key, Key8};

/// A family with 8-bit keys: a node is a key and an address, which determines its group.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Eight;

impl Family for Eight {
    type Key = Key8;
    type Target = Key8;
    type Node = (Key8, u8);
    type Message = Vec<u8>;

    fn key(node: &(Key8, u8)) -> Key8 {
        node.0
    }

    fn admits(&self, node: &(Key8, u8)) -> bool {
        node.1 != 0xee
    }

    fn group(node: &(Key8, u8)) -> Option<Group> {
        (!node.1.is_multiple_of(4)).then(|| Group(node.1.into()))
    }
}

/// The result of a replay, for any family.
#[derive(Debug, PartialEq)]
pub(crate) struct Checked {
    pub(crate) calls: u64,
    /// The first difference, as text.
    pub(crate) difference: Option<String>,
}

impl<F: Recordable> From<Replayed<F>> for Checked {
    fn from(Replayed { calls, difference }: Replayed<F>) -> Self {
        Self { calls, difference: difference.map(|difference| difference.to_string()) }
    }
}

/// Calls the function for the family of the recording, which the width of its keys determines; no two families
/// share one.
macro_rules! of_its_family {
    ($function:ident, $bytes:expr) => {
        match width($bytes) {
            #[cfg(feature = "sim")]
            64 => $function::<kad_proto::sim::Net>($bytes),
            160 => $function::<mainline::Mainline>($bytes),
            _ => $function::<Eight>($bytes),
        }
    };
}

/// Bits of the keys, if the bytes are a recording.
fn width(bytes: &[u8]) -> u32 {
    match Recording::<Eight>::mutated(bytes) {
        Err(ReplayError::KeyBits { found, .. }) => found,
        _ => Key8::BITS,
    }
}

/// Replays the bytes and checks that reading, replaying and re-recording agree; panics only on a defect of the
/// crate.
pub(crate) fn check(bytes: &[u8]) -> Result<Checked, ReplayError> {
    of_its_family!(check_of, bytes)
}

/// The same calls, recorded again by this version.
#[allow(dead_code)] // only tests use it
pub(crate) fn again(bytes: &[u8]) -> Result<Vec<u8>, ReplayError> {
    of_its_family!(again_of, bytes)
}

/// Whether the bytes begin as a recording does, whatever their checksums.
#[allow(dead_code)] // only tests use it
pub(crate) fn begins(bytes: &[u8]) -> bool {
    of_its_family!(begins_of, bytes)
}

fn again_of<F: Recordable>(bytes: &[u8]) -> Result<Vec<u8>, ReplayError> {
    Recording::<F>::open(bytes)?.record_anew()
}

fn begins_of<F: Recordable>(bytes: &[u8]) -> bool {
    Recording::<F>::mutated(bytes).is_ok()
}

fn check_of<F: Recordable>(bytes: &[u8]) -> Result<Checked, ReplayError> {
    let sealed = replay::<F>(bytes);
    // Bytes that a fuzzer has changed have wrong checksums.
    if let Ok(recording) = Recording::<F>::mutated(bytes) {
        let shown: Result<Vec<_>, _> =
            recording.calls().map(|call| call.map(|call| call.to_string())).collect();
        let replayed = recording.replay();
        if sealed.is_ok() {
            assert_eq!(replayed, sealed, "sums change nothing but what they find");
        }
        if let Ok(replayed) = replayed {
            assert!(!replayed.to_string().is_empty());
        }
        if let Ok(again) = recording.record_anew() {
            let calls = shown.map(|shown| shown.len() as u64);
            assert_eq!(replay::<F>(&again), calls.map(|calls| Replayed { calls, difference: None }));
        }
    }
    sealed.map(Checked::from)
}
