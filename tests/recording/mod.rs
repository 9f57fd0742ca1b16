//! What any bytes must keep that claim to be a recording: what the tests, the replay of the corpus and the fuzz target share.

use kad_proto::record::{Recording, ReplayError, Replayed, replay};
use kad_proto::{Family, Group, Key8};

/// A network with 8-bit keys: a node is a key and an address, which names its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Eight;

impl Family for Eight {
    type Key = Key8;
    type Node = (Key8, u8);
    type Message = Vec<u8>;

    fn key(node: &(Key8, u8)) -> Key8 {
        node.0
    }

    fn admits(node: &(Key8, u8)) -> bool {
        node.1 != 0xee
    }

    fn group(node: &(Key8, u8)) -> Option<Group> {
        (!node.1.is_multiple_of(4)).then(|| Group(node.1.into()))
    }
}

/// Replays the bytes; panics only where the crate is wrong.
pub(crate) fn check(bytes: &[u8]) -> Result<Replayed<Eight>, ReplayError> {
    let sealed = replay::<Eight>(bytes);
    // What a fuzzer has changed has the wrong sums.
    if let Ok(recording) = Recording::<Eight>::mutated(bytes) {
        let shown: Result<Vec<_>, _> =
            recording.calls().map(|call| call.map(|call| call.to_string())).collect();
        let replayed = recording.replay();
        if sealed.is_ok() {
            assert_eq!(replayed, sealed, "sums change nothing but what they find");
        }
        if let Ok(replayed) = replayed {
            assert!(!replayed.to_string().is_empty());
        }
        if let Ok(again) = recording.again() {
            let calls = shown.map(|shown| shown.len() as u64);
            assert_eq!(replay::<Eight>(&again), calls.map(|calls| Replayed { calls, difference: None }));
        }
    }
    sealed
}
