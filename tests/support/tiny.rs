//! The smallest families: 8-bit keys, and a node is its key, so that a test can be checked by hand.

use kad_proto::{Family, Key8};

/// Messages carry nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Tiny;

impl Family for Tiny {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }
}

/// Messages are words.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct TinyText;

impl Family for TinyText {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = &'static str;

    fn key(node: &Key8) -> Key8 {
        *node
    }
}
