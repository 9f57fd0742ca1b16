//! [`SpanAttributes`]: attributes of requests' spans, added from any task.

use crate::vocabulary::id::RequestId;
use opentelemetry::KeyValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle by which the tasks that do the IO add attributes to the spans of requests (sizes in bytes, the address that
/// answered), without a way through the task that owns the engine. It is cheap to clone and can be sent anywhere. Made
/// by [`Traced::share_attributes`](crate::telemetry::Traced::share_attributes).
///
/// ```
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl kad_proto::Family for Tiny {
/// #     type Key = kad_proto::Key8;
/// #     type Target = kad_proto::Key8;
/// #     type Node = kad_proto::Key8;
/// #     type Message = ();
/// #     fn key(node: &kad_proto::Key8) -> kad_proto::Key8 {
/// #         *node
/// #     }
/// # }
/// # let secret = kad_proto::Secret::from_seed(0);
/// # let local = kad_proto::Key8::new([0]);
/// # let request = kad_proto::RequestId::from_u64(0);
/// use kad_proto::{Config, Coordinator, telemetry::Traced};
/// use opentelemetry::{KeyValue, global};
/// use std::time::SystemTime;
///
/// let plain = Coordinator::<Tiny>::new(local, Config::default(), &secret)?;
/// let mut dht = Traced::new(plain, global::tracer("kad"), SystemTime::now());
/// let attributes = dht.share_attributes();
/// std::thread::spawn(move || {
///     // The task that has received the answer, before it submits that to the task of the engine:
///     attributes.add(request, KeyValue::new("kad.response.size", 512));
/// });
/// # Ok::<(), kad_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SpanAttributes {
    /// By request whose span is open.
    open: Arc<Mutex<HashMap<RequestId, Vec<KeyValue>>>>,
}

impl SpanAttributes {
    /// Adds an attribute to the span of a request. Returns whether the span is open: not before the engine has emitted
    /// the request, and not after the response was submitted, or without a tracer.
    pub fn add(&self, request: RequestId, attribute: KeyValue) -> bool {
        let mut open = self.lock();
        let attributes = open.get_mut(&request);
        attributes.map(|attributes| attributes.push(attribute)).is_some()
    }

    /// The span of a request has begun.
    pub(super) fn begin(&self, request: RequestId) {
        self.lock().insert(request, Vec::new());
    }

    /// The span of a request ends: what was added to it.
    pub(super) fn end(&self, request: RequestId) -> Vec<KeyValue> {
        self.lock().remove(&request).unwrap_or_default()
    }

    /// All spans have ended.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Vec<KeyValue>>> {
        // No code of others runs while it is held, so what it guards is sound whoever panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
