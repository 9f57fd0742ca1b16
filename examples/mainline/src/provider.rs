//! Where spans and metrics go: to be shown by this program and, if it was built with an exporter, to a collector.

use crate::trace::Kept;
use kad_proto::telemetry::Metrics;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// The providers of this program.
#[derive(Debug)]
pub struct Providers {
    spans: SdkTracerProvider,
    /// Where somebody wants metrics.
    meters: Option<SdkMeterProvider>,
    lost: Arc<Mutex<Lost>>,
}

/// The spans that the collector did not take, however often it was asked to. (Metrics say it again the next time.)
#[derive(Debug, Default)]
pub struct Lost {
    pub spans: usize,
    /// Of the first of them.
    pub why: Option<String>,
}

impl Providers {
    /// Those whose spans are kept here, and sent to the collector at this address, if there is one, as are
    /// metrics.
    ///
    /// # Errors
    /// Where that is no address.
    pub fn new(kept: &Kept, collector: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let resource = Resource::builder().with_service_name("mainline").build();
        let spans =
            SdkTracerProvider::builder().with_resource(resource.clone()).with_span_processor(kept.clone());
        let lost = Arc::default();
        let Some(collector) = collector else { return Ok(Self { spans: spans.build(), meters: None, lost }) };
        let (processor, meters) = exporters(collector, resource, &lost)?;
        Ok(Self { spans: spans.with_span_processor(processor).build(), meters: Some(meters), lost })
    }

    pub fn tracer(&self) -> SdkTracer {
        self.spans.tracer("mainline")
    }

    pub fn metrics(&self) -> Option<Metrics> {
        self.meters.as_ref().map(|meters| Metrics::new(&meters.meter("mainline")))
    }

    /// Sends what has not been sent. To be called in the end.
    ///
    /// # Errors
    /// Where the collector does not take it, or did not take earlier spans.
    pub fn flush(&self) -> Result<(), String> {
        let spans = self.spans.force_flush().err().map(|error| format!("spans: {error}"));
        let metrics = self.meters.as_ref().and_then(|meters| meters.force_flush().err());
        let Lost { spans: count, why } = &*self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = why
            .as_ref()
            .map(|why| format!("{count} spans were not taken by the collector, the first because: {why}"));
        // Those that just failed are among the lost.
        let failures = [lost.or(spans), metrics.map(|error| format!("metrics: {error}"))];
        let failures: Vec<_> = failures.into_iter().flatten().collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

#[cfg(feature = "otlp")]
use crate::otlp::exporters;

#[cfg(not(feature = "otlp"))]
fn exporters(_: &str, _: Resource, _: &Mutex<Lost>) -> Result<(Kept, SdkMeterProvider), Box<dyn Error>> {
    Err("built without an exporter".into())
}
