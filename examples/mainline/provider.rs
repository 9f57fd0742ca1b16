//! Where spans and metrics go: to be shown by this program and, if it was built with an exporter, to a collector.

use crate::trace::Kept;
use kad_proto::telemetry::Metrics;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::error::Error;

/// The providers of this program.
#[derive(Debug)]
pub(crate) struct Providers {
    spans: SdkTracerProvider,
    /// Where somebody wants metrics.
    meters: Option<SdkMeterProvider>,
}

impl Providers {
    /// Those whose spans are kept here, and sent to the collector at this address, if there is one, as are metrics.
    ///
    /// # Errors
    /// Where that is no address.
    pub(crate) fn new(kept: &Kept, collector: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let resource = Resource::builder().with_service_name("mainline").build();
        let spans =
            SdkTracerProvider::builder().with_resource(resource.clone()).with_span_processor(kept.clone());
        let Some(collector) = collector else { return Ok(Self { spans: spans.build(), meters: None }) };
        let (processor, meters) = exporters(collector, resource)?;
        Ok(Self { spans: spans.with_span_processor(processor).build(), meters: Some(meters) })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.spans.tracer("mainline")
    }

    pub(crate) fn metrics(&self) -> Option<Metrics> {
        self.meters.as_ref().map(|meters| Metrics::new(&meters.meter("mainline")))
    }

    /// Sends what has not been sent. To be called in the end.
    ///
    /// # Errors
    /// Where the collector does not take it.
    pub(crate) fn flush(&self) -> Result<(), Box<dyn Error>> {
        self.spans.force_flush()?;
        Ok(self.meters.as_ref().map_or(Ok(()), SdkMeterProvider::force_flush)?)
    }
}

#[cfg(feature = "otlp")]
use crate::otlp::exporters;

#[cfg(not(feature = "otlp"))]
fn exporters(_: &str, _: Resource) -> Result<(Kept, SdkMeterProvider), Box<dyn Error>> {
    Err("built without an exporter".into())
}
