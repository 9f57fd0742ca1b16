//! The families of the tests of the routing maintenance: keys of 8 bits, and a node is its key.

#![allow(dead_code)] // each user of it uses a part of it

use kad_proto::{Family, Group, Instant, Key8, SpanContext};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use std::time::Duration;

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

    fn admits(&self, node: &Key8) -> bool {
        node.as_bytes()[0] != REFUSED
    }
}

/// The same, where half of the nodes belong to one of four diversity groups.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Grouped;

impl Family for Grouped {
    type Key = Key8;
    type Target = Key8;
    type Node = Key8;
    type Message = ();

    fn key(node: &Key8) -> Key8 {
        *node
    }

    fn admits(&self, node: &Key8) -> bool {
        Tiny.admits(node)
    }

    fn group(node: &Key8) -> Option<Group> {
        let [key] = *node.as_bytes();
        key.is_multiple_of(2).then(|| Group(u64::from(key / 2 % 4)))
    }
}

pub(crate) const LOCAL: Key8 = Key8::new([0xff]);
pub(crate) const REFUSED: u8 = 0x13;
pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) fn node(key: u8) -> Key8 {
    Key8::new([key])
}

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

pub(crate) fn span(number: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(u128::from(number)), SpanId::from(number));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}
