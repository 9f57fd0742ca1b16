//! [`Transport`]: how requests reach other nodes; [`Timer`]: what time it is, and how to wait.

use crate::wire::{Reply, Wire};
use core::future::Future;
use kad_proto::{Ask, Context, Failure, Instant, RequestId, WireToken};

/// Sends requests, and waits for their answers: the part that an embedder writes.
///
/// Each request is a future of its own. It runs within the future of the [node](crate::Node::run), so it should wait
/// rather than compute. **The kit drops it when its answer is not wanted any more**: the operation was dropped or has
/// ended, or the deadline has passed. Dropping must abort the IO: it does where the future holds what it uses (a stream,
/// an entry in a table of pending requests with a guard). A transport that spawns tasks aborts them in `Drop`.
///
/// The future need not watch the deadline. What it decodes it should bound: the engine looks at so many nodes of an answer as
/// it is configured to, but by then they are in memory.
pub trait Transport<W: Wire>: Send + Sync + 'static {
    /// Sends a request to a node, and returns its answer, or how it failed.
    ///
    /// A request that has no reply on the wire returns the default [`Reply`] once it is sent. An answer that comes in
    /// several packets is returned as a whole.
    fn request(&self, call: Call<W>) -> impl Future<Output = Result<Reply<W>, Failure<W>>> + Send;
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Call<W: Wire> {
    /// Whom to ask.
    pub node: W::Node,
    /// What to ask about.
    pub target: W::Target,
    /// What to ask.
    pub ask: Ask<W>,
    /// From when on an answer is late. The future is dropped then.
    pub deadline: Instant,
    /// The span of the request. With the feature `telemetry` it is the current one while the future is polled.
    pub context: Context,
    /// A transaction id that can be [guessed](kad_proto::guide::embedding#transaction-ids-on-an-unauthenticated-wire):
    /// for authenticated wires, and for attributes of the span.
    pub id: RequestId,
    /// A transaction id that cannot be guessed.
    pub token: WireToken,
}

/// The time, and how to wait for it.
pub trait Timer: Send + Sync + 'static {
    /// What time it is. The origin is the timer's choice.
    fn now(&self) -> Instant;

    /// Waits until it is so late. It may return earlier, but then the kit waits again.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;
}

/// The timers of tokio. Under `tokio::time::pause` its time is virtual too.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug)]
pub struct TokioTimer(tokio::time::Instant);

#[cfg(feature = "tokio")]
impl TokioTimer {
    /// A timer whose origin is now.
    pub fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

#[cfg(feature = "tokio")]
impl Default for TokioTimer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
impl Timer for TokioTimer {
    fn now(&self) -> Instant {
        Instant::ORIGIN + self.0.elapsed()
    }

    async fn sleep_until(&self, at: Instant) {
        let after = core::time::Duration::from_nanos(at.as_nanos());
        match self.0.checked_add(after) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => core::future::pending().await,
        }
    }
}

/// The timers of smol, which those of async-std are too.
#[cfg(feature = "smol")]
#[derive(Clone, Copy, Debug)]
pub struct SmolTimer(std::time::Instant);

#[cfg(feature = "smol")]
impl SmolTimer {
    /// A timer whose origin is now.
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

#[cfg(feature = "smol")]
impl Default for SmolTimer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "smol")]
impl Timer for SmolTimer {
    fn now(&self) -> Instant {
        Instant::from_std(self.0, std::time::Instant::now())
    }

    async fn sleep_until(&self, at: Instant) {
        match at.to_std(self.0) {
            Some(at) => drop(async_io::Timer::at(at).await),
            None => core::future::pending().await,
        }
    }
}
