//! The macro that implements `From` for event enums, and the bound that machines with requests need of their
//! outbound events.

use crate::vocabulary::family::Family;
use crate::vocabulary::request_events::{Cancel, Request};

/// Implements `From` of each payload for an outbound enum.
macro_rules! outbound_from {
    ($outbound:ident { $($variant:ident: $payload:ty),* $(,)? }) => {
        $(impl<F: Family> From<$payload> for $outbound<F> {
            #[inline]
            fn from(payload: $payload) -> Self {
                Self::$variant(payload)
            }
        })*
    };
}
// Inbound enums use the same macro.
pub(crate) use {outbound_from, outbound_from as inbound_from};

/// The outbound events of a machine that sends requests.
pub(crate) trait EmitsRequests<F: Family>: From<Request<F>> + From<Cancel<F>> {}

impl<F: Family, E> EmitsRequests<F> for E where E: From<Request<F>> + From<Cancel<F>> {}
