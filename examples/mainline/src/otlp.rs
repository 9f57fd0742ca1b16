//! Spans and metrics for a collector: OTLP over HTTP.

use crate::provider::Lost;
use async_trait::async_trait;
use core::time::Duration;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// How long the collector may take for one piece.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many spans may wait to be sent. What comes beyond them is lost.
const QUEUE: usize = 1 << 16;

/// What hands spans, and metrics, to the collector at this address, such as `http://127.0.0.1:4318`. Spans that it
/// does not take are counted.
///
/// # Errors
/// Where that is no address.
pub(crate) fn exporters(
    collector: &str,
    resource: Resource,
    lost: &Arc<Mutex<Lost>>,
) -> Result<(BatchSpanProcessor, SdkMeterProvider), Box<dyn Error>> {
    Ok((spans(collector, Arc::clone(lost))?, meters(collector, resource)?))
}

/// Spans are sent a few seconds after they ended, by a thread of its own.
fn spans(collector: &str, lost: Arc<Mutex<Lost>>) -> Result<BatchSpanProcessor, ExporterBuildError> {
    let failure = Arc::default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Http::new(Arc::clone(&failure)))
        .with_endpoint(signal(collector, "traces"))
        .build()?;
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
    Ok(BatchSpanProcessor::builder(Counting { exporter, failure, lost }).with_batch_config(config).build())
}

/// Metrics are sent now and then, and in the end.
fn meters(collector: &str, resource: Resource) -> Result<SdkMeterProvider, ExporterBuildError> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(Http::new(Arc::default()))
        .with_endpoint(signal(collector, "metrics"))
        .build()?;
    let reader = PeriodicReader::builder(exporter).with_interval(PATIENCE).build();
    Ok(SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build())
}

/// Where a collector takes them, as the specification of OTLP/HTTP has it.
fn signal(collector: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", collector.trim_end_matches('/'))
}

/// An exporter that counts the spans that were not taken in the end: it tries several times itself, and then drops
/// them.
#[derive(Debug)]
struct Counting {
    exporter: SpanExporter,
    failure: Failure,
    lost: Arc<Mutex<Lost>>,
}

/// Why the latest attempt to send something failed, in words: an exporter does not tell all of it.
type Failure = Arc<Mutex<Option<String>>>;

impl opentelemetry_sdk::trace::SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let done = self.exporter.export(batch).await;
        if let Err(error) = &done {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.spans += count;
            lost.why.get_or_insert(failure.unwrap_or_else(|| error.to_string()));
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A client that blocks the thread of an exporter, and nobody else.
#[derive(Debug)]
struct Http {
    agent: ureq::Agent,
    failure: Failure,
}

impl Http {
    fn new(failure: Failure) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE));
        // The exporter reads the status, and tries once more where that may help.
        Self { agent: config.http_status_as_error(false).build().into(), failure }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = response.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let done = self.send(request);
        let failure = match &done {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("its answer is {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        Ok(done?)
    }
}
