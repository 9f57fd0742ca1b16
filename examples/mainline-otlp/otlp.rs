//! Spans and metrics for a collector: OTLP over HTTP.

use async_trait::async_trait;
use core::time::Duration;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor};
use std::error::Error;

/// How long the collector may take for one piece.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many spans may wait to be sent. What comes beyond them is lost.
const QUEUE: usize = 1 << 16;

/// What hands spans, and metrics, to the collector at this address, such as `http://127.0.0.1:4318`.
///
/// # Errors
/// Where that is no address.
pub(crate) fn exporters(
    collector: &str,
    resource: Resource,
) -> Result<(BatchSpanProcessor, SdkMeterProvider), Box<dyn Error>> {
    Ok((spans(collector)?, meters(collector, resource)?))
}

/// Spans are sent a few seconds after they ended, by a thread of its own.
fn spans(collector: &str) -> Result<BatchSpanProcessor, ExporterBuildError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Http::new())
        .with_endpoint(signal(collector, "traces"))
        .build()?;
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
    Ok(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
}

/// Metrics are sent now and then, and in the end.
fn meters(collector: &str, resource: Resource) -> Result<SdkMeterProvider, ExporterBuildError> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(Http::new())
        .with_endpoint(signal(collector, "metrics"))
        .build()?;
    let reader = PeriodicReader::builder(exporter).with_interval(PATIENCE).build();
    Ok(SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build())
}

/// Where a collector takes them, as the specification of OTLP/HTTP has it.
fn signal(collector: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", collector.trim_end_matches('/'))
}

/// A client that blocks the thread of an exporter, and nobody else.
#[derive(Debug)]
struct Http(ureq::Agent);

impl Http {
    fn new() -> Self {
        Self(ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into())
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = response.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}
