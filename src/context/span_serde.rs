//! Serialization of span contexts, for `#[serde(with = ...)]`: `None` for [`SpanContext::NONE`], else the five
//! parts (trace id, span id, flags, whether it is remote, trace state).

use core::fmt;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, Serialize as Serializable};

#[derive(Serializable)]
struct Parts<'a>([u8; 16], [u8; 8], u8, bool, State<'a>);

/// A trace state as the sequence of its key-value pairs, in order.
struct State<'a>(&'a TraceState);

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0)
    }
}

/// What [`Parts`] is read back as.
#[derive(Deserialize)]
struct Owned([u8; 16], [u8; 8], u8, bool, Pairs);

struct Pairs(TraceState);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the pairs of a trace state")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::<(String, String)>::new();
                while let Some(pair) = from.next_element()? {
                    pairs.push(pair);
                }
                TraceState::from_key_value(pairs).map(Pairs).map_err(A::Error::custom)
            }
        }

        from.deserialize_seq(Reader)
    }
}

pub(crate) fn serialize<S: Serializer>(span: &SpanContext, to: S) -> Result<S::Ok, S::Error> {
    if *span == SpanContext::NONE {
        return to.serialize_none();
    }
    to.serialize_some(&Parts(
        span.trace_id().to_bytes(),
        span.span_id().to_bytes(),
        span.trace_flags().to_u8(),
        span.is_remote(),
        State(span.trace_state()),
    ))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SpanContext, D::Error> {
    let parts = Option::<Owned>::deserialize(from)?;
    Ok(parts.map_or(SpanContext::NONE, |Owned(trace, span, flags, remote, Pairs(state))| {
        let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
        SpanContext::new(trace, span, TraceFlags::new(flags), remote, state)
    }))
}
