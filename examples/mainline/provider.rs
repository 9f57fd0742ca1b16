//! Where spans go: the tracer provider of this program.

use crate::trace::Kept;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, TracerProviderBuilder};

/// A provider whose spans are kept to be shown. Another processor may be added to it, such as one that exports them.
pub(crate) fn provider(kept: &Kept) -> TracerProviderBuilder {
    SdkTracerProvider::builder().with_span_processor(kept.clone()).with_sampler(Sampler::AlwaysOn)
}
