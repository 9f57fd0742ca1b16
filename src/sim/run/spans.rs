//! Span contexts: each lookup and each broadcast has its own trace, and so has each request of the maintenance.
//!
//! The upper half of a trace id is the seed. The lower half identifies what the trace belongs to:
//!
//! | lower half of the trace id | the trace |
//! | --- | --- |
//! | 2^63 + number | a lookup |
//! | 2^63 + 2^62 + number | a broadcast |
//! | 2^61 + number · 2^40 + span | an answer in the background of a broadcast |
//! | 2^62 + span | anything else |

use crate::context::Context;
use crate::sim::activity::Activity;
use crate::sim::world::World;
use crate::sim::world::sent_request::SentRequest;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

impl World {
    /// A new span in the trace of a lookup or a broadcast; in a new trace for other activities.
    pub(super) fn span(&mut self, activity: Activity) -> SpanContext {
        match activity {
            Activity::Lookup(lookup) => self.span_in(1 << 63 | u64::from(lookup)),
            Activity::Broadcast(number) => self.span_in(3 << 62 | u64::from(number)),
            _ => self.root_span(),
        }
    }

    /// A new span for the answer to a request. In the background of a broadcast it is in a new trace, whose id has
    /// the number of the broadcast, so that [`broadcast_of`](Self::broadcast_of) finds it for the requests that
    /// follow.
    pub(super) fn answer_span(&mut self, sent: &SentRequest) -> SpanContext {
        match (sent.activity, sent.broadcast) {
            (Activity::Background, Some(number)) => {
                self.span_in(1 << 61 | u64::from(number) << 40 | (self.spans % (1 << 40)))
            }
            (activity, _) => self.span(activity),
        }
    }

    /// The broadcast that a request is for: one in the foreground by its activity, one in the background by its
    /// link.
    pub(super) fn broadcast_of(activity: Activity, context: &Context) -> Option<u32> {
        match (activity, context) {
            (Activity::Broadcast(number), _) => Some(number),
            (Activity::Background, Context::Link(span)) => {
                let trace = u128::from_be_bytes(span.trace_id().to_bytes());
                #[allow(clippy::cast_possible_truncation)] // takes the lower half, and the number from it
                match trace as u64 {
                    trace if trace >> 62 == 3 => Some(trace as u32),
                    trace => Some((trace << 3 >> 43) as u32),
                }
            }
            _ => None,
        }
    }

    /// The first span of a new trace.
    pub(super) fn root_span(&mut self) -> SpanContext {
        self.span_in(1 << 62 | self.spans)
    }

    fn span_in(&mut self, trace: u64) -> SpanContext {
        self.spans += 1;
        let trace = u128::from(self.scenario.seed) << 64 | u128::from(trace);
        SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes(self.spans.to_be_bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        )
    }
}
